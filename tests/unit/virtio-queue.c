/* tsan: queues on their reactors: kicks, interrupts, what may run before DRIVER_OK, pauses, faults;
 * both engines. */
#include "tests/unit/queue-fixture.h"

/* ---- kicks and interrupts ---- */

static void a_request(void **state)
{
	struct fixture *f = *state;
	u8 *byte = memory_at(&f->machine.memory, BUFFER(0), 65);
	u32 written;

	begin(f, 0);
	byte[0] = 0x5a;
	add(&f->ring, 0);
	driver_kick(&f->ring);
	driver_wait_interrupt(f->interrupt);
	assert_true(driver_used(&f->ring, NULL, &written));
	assert_int_equal(written, 5);
	assert_int_equal(byte[64], 0x5a);
	assert_int_equal(virtio_isr_read(f->device), 0); /* MSI: no ISR */
	assert_int_equal(f->later.queues[0].starts, 1);
}

/* As the driver's side of suppression is a promise, both ends sleep here: a lost wake-up would
 * hang. */
static void ping_pong(void **state)
{
	static const u64 features[] = { 0, BIT64(VIRTIO_RING_F_EVENT_IDX) };
	struct fixture *f = *state;
	const struct virtio_queue_counts *counts = &f->device->queues[0].counts;
	u32 rounds = 600, seen;

	for (size_t i = 0; i < ARRAY_SIZE(features); i++)
		for (int mode = LATER_NOW; mode <= LATER_SOON; mode++) {
			u64 total = 0,
			    buffers = __atomic_load_n(&counts->buffers, __ATOMIC_RELAXED);

			set_mode(f, mode);
			begin(f, features[i]);
			for (u32 round = 0; round < rounds; round++) {
				u16 batch = (u16)(1 + round % 8);

				for (u16 n = 0; n < batch; n++)
					add(&f->ring, n);
				total += batch;
				driver_kick(&f->ring);
				for (seen = 0; seen < batch;) {
					if (driver_used(&f->ring, NULL, NULL))
						seen++;
					else if (!driver_arm(&f->ring,
							     round & 1 ? 1 : (u16)(batch - seen)))
						driver_wait_interrupt(f->interrupt);
				}
				driver_disarm(&f->ring);
			}
			driver_reset(f->device);
			driver_interrupts(f->interrupt);
			assert_int_equal(__atomic_load_n(&counts->buffers, __ATOMIC_RELAXED) -
						 buffers,
					 total);
		}
}

/* Sent only if asked for. */
static void suppressed_interrupts(void **state)
{
	struct fixture *f = *state;

	begin(f, 0);
	driver_disarm(&f->ring);
	for (int i = 0; i < 20; i++) {
		add(&f->ring, i);
		driver_kick(&f->ring);
		driver_wait_used(&f->ring, NULL, NULL);
	}
	later_settle(&f->later);
	assert_int_equal(driver_interrupts(f->interrupt), 0);
	driver_arm(&f->ring, 1);
	add(&f->ring, 0);
	driver_kick(&f->ring);
	driver_wait_interrupt(f->interrupt);
}

/* 4.1.5.1.3 (NO_VECTOR: none, nor the line), 4.1.4.5.1 (ISR, then the line, unless it may not be
 * raised). */
static void kinds_of_interrupt(void **state)
{
	struct fixture *f = *state;
	struct virtio_queue *queue = &f->device->queues[0];
	s32 line = atomic_load(&f->device->intx_file);

	begin(f, 0);
	atomic_store(&queue->interrupt, VIRTIO_INTERRUPT_NONE);
	add(&f->ring, 0);
	driver_kick(&f->ring);
	driver_wait_used(&f->ring, NULL, NULL);
	later_settle(&f->later);
	assert_int_equal(virtio_isr_read(f->device), 0);

	atomic_store(&queue->interrupt, VIRTIO_INTERRUPT_INTX);
	add(&f->ring, 0);
	driver_kick(&f->ring);
	driver_wait_interrupt(f->intx);
	assert_int_equal(virtio_isr_read(f->device), VIRTIO_ISR_QUEUE);
	assert_int_equal(virtio_isr_read(f->device), 0);
	assert_true(driver_used(&f->ring, NULL, NULL));

	atomic_store(&f->device->intx_file, -1);
	add(&f->ring, 0);
	driver_kick(&f->ring);
	driver_wait(virtio_isr_read(f->device) == VIRTIO_ISR_QUEUE);
	later_settle(&f->later);
	assert_int_equal(driver_interrupts(f->intx), 0);
	assert_int_equal(driver_interrupts(f->interrupt), 0);
	atomic_store(&f->device->intx_file, line);
}

/* A doorbell that came as an exit. */
static void kick_by_exit(void **state)
{
	struct fixture *f = *state;

	begin(f, 0);
	f->ring.doorbell_fd = -1;
	add(&f->ring, 0);
	driver_kick(&f->ring);
	virtio_queue_kick(f->device, 0);
	driver_wait_used(&f->ring, NULL, NULL);
}

static void add_unheard(void *arg)
{
	struct fixture *f = arg;
	bool wanted;

	add(&f->ring, 1);
	wanted = driver_publish(&f->ring);
	/* muted, so no doorbell; a busy-polling reactor may have moved the event meanwhile */
	if (!driver_poll_us)
		assert_false(wanted);
}

/* A buffer that comes between the last look and the unmuting has no doorbell, and is found all the
 * same. */
static void late_arrival(void **state)
{
	struct fixture *f = *state;
	static const u64 features[] = { 0, BIT64(VIRTIO_RING_F_EVENT_IDX) };

	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		begin(f, features[i]);
		later_settle(&f->later); /* its first look at the empty ring is over */
		add(&f->ring, 0);
		driver_publish(&f->ring);
		/* from here on the ring is the other thread's */
		f->later.queues[0].found_empty_arg = f;
		atomic_store(&f->later.queues[0].found_empty, add_unheard);
		driver_ring_doorbell(&f->ring);
		driver_wait(driver_shown(&f->ring) == 2);
		driver_reset(f->device);
	}
}

/* 2.7.10: notifications of nothing take nothing, tell nothing, and leave the queue listening. */
static void spurious_kicks(void **state)
{
	struct fixture *f = *state;
	static const u64 features[] = { 0, BIT64(VIRTIO_RING_F_EVENT_IDX) };

	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		u32 before = taken(f);

		begin(f, features[i]);
		for (int n = 0; n < 50; n++) {
			driver_ring_doorbell(&f->ring);
			if (n % 8 == 0)
				later_settle(&f->later);
		}
		later_settle(&f->later);
		assert_int_equal(taken(f), before);
		assert_int_equal(driver_shown(&f->ring), 0);
		assert_int_equal(driver_interrupts(f->interrupt), 0);
		assert_int_equal(driver_status_now(f->device), 0x0f);
		/* whether it listens again or still looks by itself: the next one is heard */
		add(&f->ring, 0);
		driver_kick(&f->ring);
		driver_wait_interrupt(f->interrupt);
		assert_true(driver_used(&f->ring, NULL, NULL));
		driver_reset(f->device);
	}
}

/* 6.3: to a legacy driver that took NOTIFY_ON_EMPTY, although it asked for no interrupts. */
static void legacy_notify_on_empty(void **state)
{
	struct fixture *f = *state;

	driver_status(f->device, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER, true);
	pthread_mutex_lock(&f->device->lock);
	virtio_features_write(f->device, 0, BIT(VIRTIO_F_NOTIFY_ON_EMPTY), true);
	pthread_mutex_unlock(&f->device->lock);
	legacy_ring(f, &f->ring, 0, RINGS(0));
	driver_status(f->device, 7, true);
	driver_disarm(&f->ring);
	add(&f->ring, 0);
	driver_kick(&f->ring);
	driver_wait_interrupt(f->interrupt);
	assert_true(driver_used(&f->ring, NULL, NULL));
}

/* ---- before DRIVER_OK ---- */

/* 2.1.2: nothing is taken; what was rung for is served afterwards without another kick. */
static void modern_waits_for_driver_ok(void **state)
{
	struct fixture *f = *state;

	assert_true(driver_negotiate(f->device, 0));
	driver_ring_init(&f->ring, &f->machine.memory, RINGS(0), 16, false);
	driver_queue(f->device, 0, &f->ring);
	add(&f->ring, 0);
	driver_kick(&f->ring);
	later_settle(&f->later);
	assert_int_equal(taken(f), 0);
	assert_int_equal(driver_interrupts(f->interrupt), 0);
	driver_ok(f->device);
	driver_wait_interrupt(f->interrupt);
	assert_true(driver_used(&f->ring, NULL, NULL));
}

/* 3.1.2: a legacy driver may use its queues before DRIVER_OK. */
static void legacy_does_not_wait(void **state)
{
	struct fixture *f = *state;

	driver_status(f->device, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER, true);
	legacy_ring(f, &f->ring, 0, RINGS(0));
	later_settle(&f->later);
	assert_int_equal(f->later.device_starts, 0); /* features may still come */
	add(&f->ring, 0);
	driver_kick(&f->ring);
	driver_wait_interrupt(f->interrupt);
	assert_true(driver_used(&f->ring, NULL, NULL));
	/* another queue now starts at once, and DRIVER_OK is no second start */
	legacy_ring(f, &f->ring1, 1, RINGS(1));
	add(&f->ring1, 1);
	driver_kick(&f->ring1);
	driver_wait_used(&f->ring1, NULL, NULL);
	driver_status(f->device, 7, true);
	assert_int_equal(f->later.device_starts, 1);
	add(&f->ring, 0);
	driver_kick(&f->ring);
	driver_wait_used(&f->ring, NULL, NULL);
}

/* ---- bus mastering ---- */

static void try_pop(void *queue)
{
	struct iovec iov[LATER_SIZE];
	struct vq_buffer buffer;

	assert_int_equal(virtio_queue_pop(queue, &buffer, iov, LATER_SIZE), 0);
}

static void bus_master_pauses(void **state)
{
	struct fixture *f = *state;

	set_mode(f, LATER_HOLD);
	begin(f, 0);
	add(&f->ring, 0);
	driver_kick(&f->ring);
	driver_wait(held(f) == 1);
	bus_master(f, false);
	later_release(&f->later, 0); /* its end must not reach memory */
	add(&f->ring, 1);
	driver_publish(&f->ring);
	driver_ring_doorbell(&f->ring);
	later_settle(&f->later);
	assert_int_equal(taken(f), 1);
	assert_int_equal(driver_shown(&f->ring), 0);
	assert_int_equal(driver_interrupts(f->interrupt), 0);
	/* not even if the device type asks by itself */
	reactor_call(f->device->queues[0].reactor, try_pop, &f->device->queues[0]);
	set_mode(f, LATER_NOW);
	bus_master(f, true);
	driver_wait_used(&f->ring, NULL, NULL);
	driver_wait_used(&f->ring, NULL, NULL);
	driver_wait_interrupt(f->interrupt);
	/* and a reset in the pause ends */
	bus_master(f, false);
	driver_reset(f->device);
	bus_master(f, true);
}

/* ---- faults ---- */

static void hostile_packed(struct driver_ring *ring, int kind)
{
	static const struct {
		u64 at;
		u32 length;
		u16 id, flags;
	} descriptors[] = {
		{ BUFFER(0), 1, 0, VRING_DESC_F_NEXT }, /* the rest is not there */
		{ BUFFER(0), 1, 16, 0 },
		{ BUFFER(0), 1, 2, 0 }, /* twice, see below */
		{ UINT64_MAX, 2, 0, 0 },
		{ BUFFER(0), 16, 0, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT },
		{ BUFFER(0), 16, 0, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT },
	};

	driver_packed_write(ring, descriptors[kind].at, descriptors[kind].length,
			    descriptors[kind].id, descriptors[kind].flags);
	if (kind == 2 || kind == 5)
		driver_packed_write(ring, BUFFER(0), 16, 2, 0);
}

static void hostile_split(struct driver_ring *ring, int kind)
{
	switch (kind) {
	case 0:
		driver_descriptor(ring, 0, BUFFER(0), 1, VRING_DESC_F_NEXT, 0);
		driver_offer(ring, 0);
		break;
	case 1:
		driver_offer(ring, 16);
		break;
	case 2:
		ring->next_available = 17;
		break;
	case 3:
		driver_descriptor(ring, 0, UINT64_MAX, 2, 0, 0);
		driver_offer(ring, 0);
		break;
	case 4:
		driver_descriptor(ring, 0, BUFFER(0), 16, VRING_DESC_F_INDIRECT, 0);
		*(struct vring_desc *)memory_at(ring->memory, BUFFER(0), 16) = (struct vring_desc){
			.addr = BUFFER(0), .len = 16, .flags = VRING_DESC_F_INDIRECT
		};
		driver_offer(ring, 0);
		break;
	case 5:
		driver_descriptor(ring, 0, BUFFER(0), 16, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT,
				  1);
		driver_descriptor(ring, 1, BUFFER(0), 16, 0, 0);
		driver_offer(ring, 0);
		break;
	}
}

/* 2.1.2: a broken ring is NEEDS_RESET and a configuration interrupt; another device goes on; a
 * reset mends it. */
static void broken_rings(void **state)
{
	static const struct {
		const char *split, *packed;
	} faults[] = {
		{ "a descriptor chain loops",
		  "a chain goes on with a descriptor that is not there" },
		{ "a head is outside the descriptor table", "a buffer id is outside the ring" },
		{ "the available index jumped", "a buffer in flight was made available again" },
		{ "a descriptor is outside RAM", "a descriptor is outside RAM" },
		{ "an indirect descriptor inside an indirect table",
		  "an indirect descriptor in a chain" },
		{ "a readable descriptor follows a writable one",
		  "a readable descriptor follows a writable one" },
	};
	struct fixture *f = *state;
	u32 before;

	assert_true(driver_negotiate(&f->other.device, 0));
	driver_ring_init(&f->ring1, &f->machine.memory, RINGS(5), 16, false);
	driver_queue(&f->other.device, 0, &f->ring1);
	driver_ok(&f->other.device);
	for (int kind = 0; kind < (int)ARRAY_SIZE(faults); kind++) {
		before = f->later.config_interrupts;
		begin(f, BIT64(VIRTIO_RING_F_INDIRECT_DESC));
		set_mode(f, LATER_HOLD);
		if (driver_packed)
			hostile_packed(&f->ring, kind);
		else
			hostile_split(&f->ring, kind);
		driver_publish(&f->ring);
		driver_ring_doorbell(&f->ring);
		driver_wait(driver_status_now(f->device) & NEEDS_RESET);
		later_settle(&f->later);
		assert_string_equal(f->device->queues[0].ring.fault,
				    driver_packed ? faults[kind].packed : faults[kind].split);
		assert_int_equal(f->later.config_interrupts, before + 1);
		/* nothing more is taken, on no queue of it */
		before = taken(f);
		driver_ring_doorbell(&f->ring);
		reactor_call(f->device->queues[0].reactor, try_pop, &f->device->queues[0]);
		later_settle(&f->later);
		assert_int_equal(taken(f), before);
		add(&f->ring1, 1);
		driver_kick(&f->ring1);
		driver_wait_used(&f->ring1, NULL, NULL);
		set_mode(f, LATER_NOW);
		later_release(&f->later, 0);
		driver_reset(f->device);
		begin(f, 0);
		add(&f->ring, 0);
		driver_kick(&f->ring);
		driver_wait_used(&f->ring, NULL, NULL);
		driver_reset(f->device);
	}
}

/* A ring that is not in RAM never starts. */
static void bad_areas(void **state)
{
	struct fixture *f = *state;
	static const u64 bad[] = { RAM, RAM - 16, 8, UINT64_MAX - 15 };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_true(driver_negotiate(f->device, 0));
		driver_ring_init(&f->ring, &f->machine.memory, RINGS(0), 16, false);
		f->ring.descriptors_at = bad[i];
		driver_queue(f->device, 0, &f->ring);
		driver_ok(f->device);
		driver_wait(driver_status_now(f->device) & NEEDS_RESET);
		assert_int_equal(f->later.queues[0].starts, 0);
		driver_ring_doorbell(&f->ring);
		later_settle(&f->later);
		driver_reset(f->device);
	}
	/* legacy: all of 32 bits */
	pthread_mutex_lock(&f->device->lock);
	virtio_queue_set_pfn(&f->device->queues[0], UINT32_MAX);
	pthread_mutex_unlock(&f->device->lock);
	driver_status(f->device, 7, true);
	driver_wait(driver_status_now(f->device) & NEEDS_RESET);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(a_request),
		test(ping_pong),
		test(suppressed_interrupts),
		test(kinds_of_interrupt),
		test(kick_by_exit),
		test(late_arrival),
		test(spurious_kicks),
		test(legacy_notify_on_empty),
		test(modern_waits_for_driver_ok),
		test(legacy_does_not_wait),
		test(bus_master_pauses),
		test(broken_rings),
		test(bad_areas),
	};

	int failed = driver_run_all(tests) + driver_run(tests, true, true);

	driver_poll_us = 1000;
	return failed + driver_run(tests, false, false) + driver_run(tests, true, false);
}
