/* tsan: the life of queues on their reactors: kicks, interrupts, stop, drain, reset in every state,
 * faults, on both engines. */
#include <pthread.h>
#include <stdlib.h>
#include "tests/unit/later.h"

#define RAM	    MIB(8)
#define RINGS(n)    (0x10000ull * (1 + (u64)(n)))
#define BUFFER(n)   (MIB(1) + 4096ull * (u64)(n))
#define NEEDS_RESET VIRTIO_CONFIG_S_NEEDS_RESET

struct fixture {
	struct driver_machine machine;
	struct later later, other;
	struct virtio_device *device;
	struct driver_ring ring, ring1;
	int interrupt, intx;
	reactor_file interrupt_file;
};

static int up(void **state, u32 threads, bool epoll)
{
	static struct fixture fixture;
	struct fixture *f = &fixture;

	memset(f, 0, sizeof(*f));
	driver_machine_up(&f->machine, RAM, threads, epoll);
	later_init(&f->later, &f->machine, "later0");
	later_init(&f->other, &f->machine, "other0");
	f->device = &f->later.device;
	f->intx = driver_interrupt(&f->machine, &f->device->queues[0]);
	atomic_store(&f->device->intx_file, atomic_load(&f->device->queues[0].interrupt));
	f->interrupt = driver_interrupt(&f->machine, &f->device->queues[0]);
	f->interrupt_file = atomic_load(&f->device->queues[0].interrupt);
	driver_machine_go(&f->machine);
	*state = f;
	return 0;
}

static int up_uring(void **state)
{
	return up(state, 1, false);
}

static int up_uring2(void **state)
{
	return up(state, 2, false);
}

static int up_epoll2(void **state)
{
	return up(state, 2, true);
}

static int down(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < LATER_QUEUES; i++) {
		atomic_store(&f->later.queues[i].mode, LATER_SOON);
		later_release(&f->later, (u16)i);
	}
	virtio_device_power_on(f->device);
	virtio_device_power_on(&f->other.device);
	driver_machine_stop(&f->machine);
	virtio_device_destroy(f->device);
	virtio_device_destroy(&f->other.device);
	driver_machine_down(&f->machine);
	close(f->interrupt);
	close(f->intx);
	return 0;
}

static void begin(struct fixture *f, u64 features)
{
	assert_true(driver_negotiate(f->device, features));
	driver_ring_init(&f->ring, &f->machine.memory, RINGS(0), 16,
			 features & BIT64(VIRTIO_RING_F_EVENT_IDX));
	driver_queue(f->device, 0, &f->ring);
	driver_ok(f->device);
}

static void add(struct driver_ring *ring, int n)
{
	const struct driver_part parts[] = { { BUFFER(n), 8, false }, { BUFFER(n) + 64, 5, true } };

	assert_true(driver_add(ring, parts, 2) >= 0);
}

static u16 used_index(const struct driver_ring *ring)
{
	return __atomic_load_n(&ring->used->idx, __ATOMIC_ACQUIRE);
}

static void set_mode(struct fixture *f, enum later_mode mode)
{
	atomic_store(&f->later.queues[0].mode, mode);
}

static u32 held(struct fixture *f)
{
	return atomic_load(&f->later.queues[0].held_now);
}

static u32 taken(struct fixture *f)
{
	return atomic_load(&f->later.queues[0].taken);
}

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

static void set_pfn(struct fixture *f, u16 index, u64 at)
{
	pthread_mutex_lock(&f->device->lock);
	virtio_queue_set_pfn(&f->device->queues[index], (u32)(at / 4096));
	pthread_mutex_unlock(&f->device->lock);
}

static void legacy_ring(struct fixture *f, struct driver_ring *ring, u16 index, u64 at)
{
	driver_ring_init(ring, &f->machine.memory, at, LATER_SIZE, false);
	set_pfn(f, index, at);
	assert_true(f->device->queues[index].enabled);
	assert_int_equal(f->device->queues[index].descriptors, ring->descriptors_at);
	assert_int_equal(f->device->queues[index].driver, ring->available_at);
	assert_int_equal(f->device->queues[index].used, ring->used_at);
	ring->doorbell_fd = f->device->queues[index].doorbell_fd;
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

/* ---- stopping ---- */

static void *release_soon(void *arg)
{
	struct fixture *f = arg;

	usleep(30000);
	later_release(&f->later, 0);
	return NULL;
}

/* 2.4.1: the status is 0 when nothing is in flight any more; the ring is left alone from the reset
 * on. */
static void modern_reset_drains(void **state)
{
	struct fixture *f = *state;

	for (int round = 0; round < 3; round++) {
		u32 before = taken(f);

		set_mode(f, LATER_HOLD);
		begin(f, BIT64(VIRTIO_RING_F_EVENT_IDX));
		for (int i = 0; i < 4; i++)
			add(&f->ring, i);
		driver_kick(&f->ring);
		driver_wait(held(f) == 4);
		driver_status(f->device, 0, false);
		driver_wait(atomic_load(&f->later.queues[0].stops) == (u32)round + 1);
		later_settle(&f->later);
		assert_int_not_equal(driver_status_now(f->device), 0);
		/* deaf meanwhile: to kicks, to registers, to another reset */
		add(&f->ring, 5);
		driver_publish(&f->ring);
		driver_ring_doorbell(&f->ring);
		driver_status(f->device, 0x0f, false);
		driver_status(f->device, 0, false);
		pthread_mutex_lock(&f->device->lock);
		virtio_features_write(f->device, 0, 0xff, false);
		virtio_queue_enable(&f->device->queues[1]);
		virtio_queue_set_pfn(&f->device->queues[1], 1);
		virtio_queue_reset(&f->device->queues[0]);
		virtio_config_write(f->device, 8, 1, 1);
		pthread_mutex_unlock(&f->device->lock);
		later_settle(&f->later);
		assert_int_not_equal(driver_status_now(f->device), 0);
		later_release(&f->later, 0);
		driver_wait(driver_status_now(f->device) == 0);
		assert_int_equal(used_index(&f->ring), 0);
		assert_int_equal(taken(f) - before, 4);
		assert_int_equal(driver_interrupts(f->interrupt), 0);
		assert_int_equal(f->device->queues[0].in_flight, 0);
		assert_false(f->device->queues[1].enabled);
		assert_int_equal(f->later.writes, 0);
		assert_int_equal(f->device->features, 0);
		set_mode(f, LATER_NOW);
		begin(f, 0);
		add(&f->ring, 0);
		driver_kick(&f->ring);
		driver_wait_interrupt(f->interrupt);
		assert_true(driver_used(&f->ring, NULL, NULL));
		driver_reset(f->device);
		assert_int_equal(f->later.resets, 2 * (round + 1));
		atomic_store(&f->later.queues[0].stops, (u32)round + 1);
	}
}

/* The device type may give everything back on its own, pushed or unpopped. */
static void reset_cancels(void **state)
{
	struct fixture *f = *state;

	set_mode(f, LATER_HOLD);
	atomic_store(&f->later.queues[0].cancel, true);
	begin(f, 0);
	for (int i = 0; i < 5; i++)
		add(&f->ring, i);
	driver_kick(&f->ring);
	driver_wait(held(f) == 5);
	driver_reset(f->device);
	assert_int_equal(used_index(&f->ring), 0);
}

static void legacy_reset_waits(void **state)
{
	struct fixture *f = *state;
	pthread_t thread;

	set_mode(f, LATER_HOLD);
	legacy_ring(f, &f->ring, 0, RINGS(0));
	driver_status(f->device, 7, true);
	add(&f->ring, 0);
	driver_kick(&f->ring);
	driver_wait(held(f) == 1);
	assert_int_equal(pthread_create(&thread, NULL, release_soon, f), 0);
	pthread_mutex_lock(&f->device->lock);
	virtio_status_write(f->device, 0, true);
	assert_int_not_equal(virtio_status_read(f->device), 0);
	virtio_reset_wait(f->device);
	assert_int_equal(virtio_status_read(f->device), 0);
	assert_int_equal(f->device->queues[0].descriptors, 0);
	pthread_mutex_unlock(&f->device->lock);
	assert_int_equal(held(f), 0);
	assert_int_equal(used_index(&f->ring), 0);
	pthread_join(thread, NULL);
}

/* PFN 0 returns when the memory is the driver's again; another PFN over it is a new ring. */
static void legacy_pfn_zero_waits(void **state)
{
	struct fixture *f = *state;
	pthread_t thread;

	set_mode(f, LATER_HOLD);
	legacy_ring(f, &f->ring, 0, RINGS(0));
	driver_status(f->device, 7, true);
	add(&f->ring, 0);
	driver_kick(&f->ring);
	driver_wait(held(f) == 1);
	assert_int_equal(pthread_create(&thread, NULL, release_soon, f), 0);
	set_pfn(f, 0, 0);
	assert_int_equal(held(f), 0);
	pthread_join(thread, NULL);
	assert_false(f->device->queues[0].enabled);
	assert_int_equal(f->device->queues[0].descriptors, 0);
	assert_int_equal(used_index(&f->ring), 0);
	assert_int_equal(driver_status_now(f->device), 7);
	set_mode(f, LATER_NOW);
	for (int i = 0; i < 3; i++) { /* each time over the one before */
		legacy_ring(f, &f->ring, 0, RINGS(i));
		add(&f->ring, 0);
		driver_kick(&f->ring);
		driver_wait_used(&f->ring, NULL, NULL);
	}
}

/* 2.6.1: one queue alone, with I/O in flight; the other goes on; then again with another ring. */
static void ring_reset(void **state)
{
	struct fixture *f = *state;
	struct virtio_queue *queue = &f->device->queues[0];
	bool resetting, enabled;

	set_mode(f, LATER_HOLD);
	begin(f, BIT64(VIRTIO_F_RING_RESET));
	driver_ring_init(&f->ring1, &f->machine.memory, RINGS(1), 8, false);
	driver_queue(f->device, 1, &f->ring1);
	for (int i = 0; i < 3; i++)
		add(&f->ring, i);
	driver_kick(&f->ring);
	driver_wait(held(f) == 3);
	pthread_mutex_lock(&f->device->lock);
	virtio_queue_reset(queue);
	assert_true(queue->resetting);
	pthread_mutex_unlock(&f->device->lock);
	later_settle(&f->later);
	pthread_mutex_lock(&f->device->lock);
	assert_true(queue->resetting);
	assert_true(queue->enabled);
	virtio_queue_enable(queue); /* too early: nothing */
	virtio_queue_reset(queue);
	pthread_mutex_unlock(&f->device->lock);
	add(&f->ring1, 4);
	driver_kick(&f->ring1);
	driver_wait_used(&f->ring1, NULL, NULL);
	later_release(&f->later, 0);
	driver_wait((pthread_mutex_lock(&f->device->lock), resetting = queue->resetting,
		     enabled = queue->enabled, pthread_mutex_unlock(&f->device->lock), !resetting));
	assert_false(enabled);
	assert_int_equal(queue->descriptors, 0);
	assert_int_equal(queue->size, LATER_SIZE);
	assert_int_equal(f->later.queue_resets, 1);
	assert_int_equal(f->later.resets, 0);
	assert_int_equal(used_index(&f->ring), 0);
	set_mode(f, LATER_NOW);
	driver_ring_init(&f->ring, &f->machine.memory, RINGS(2), 4, false);
	driver_queue(f->device, 0, &f->ring); /* runs at once: the device does */
	add(&f->ring, 0);
	driver_kick(&f->ring);
	driver_wait_used(&f->ring, NULL, NULL);
	assert_int_equal(driver_status_now(f->device), 0x0f);
}

static void ring_reset_not_negotiated(void **state)
{
	struct fixture *f = *state;

	begin(f, 0);
	pthread_mutex_lock(&f->device->lock);
	virtio_queue_reset(&f->device->queues[0]);
	assert_false(f->device->queues[0].resetting);
	pthread_mutex_unlock(&f->device->lock);
	add(&f->ring, 0);
	driver_kick(&f->ring);
	driver_wait_used(&f->ring, NULL, NULL);
}

/* A queue that was reset while the whole device is reset on top; and power-on in all of that. */
static void resets_on_resets(void **state)
{
	struct fixture *f = *state;
	pthread_t thread;

	for (int kind = 0; kind < 8; kind++) {
		set_mode(f, LATER_HOLD);
		begin(f, BIT64(VIRTIO_F_RING_RESET));
		add(&f->ring, 0);
		driver_kick(&f->ring);
		driver_wait(held(f) == 1);
		pthread_mutex_lock(&f->device->lock);
		if (kind & 1)
			virtio_queue_reset(&f->device->queues[0]);
		if (kind & 2)
			virtio_status_write(f->device, 0, false);
		if (kind & 4)
			virtio_device_broken(f->device, "tried");
		pthread_mutex_unlock(&f->device->lock);
		assert_int_equal(pthread_create(&thread, NULL, release_soon, f), 0);
		virtio_device_power_on(f->device);
		assert_int_equal(driver_status_now(f->device), 0);
		assert_int_equal(held(f), 0);
		pthread_join(thread, NULL);
		virtio_device_power_on(f->device); /* at rest */
		set_mode(f, LATER_NOW);
		begin(f, 0);
		add(&f->ring, 0);
		driver_kick(&f->ring);
		driver_wait_used(&f->ring, NULL, NULL);
		driver_reset(f->device);
	}
}

/* ---- bus mastering ---- */

static void bus_master(struct fixture *f, bool on)
{
	pthread_mutex_lock(&f->device->lock);
	virtio_device_bus_master(f->device, on);
	pthread_mutex_unlock(&f->device->lock);
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
	assert_int_equal(used_index(&f->ring), 0);
	assert_int_equal(driver_interrupts(f->interrupt), 0);
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

static void hostile(struct driver_ring *ring, int kind)
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
	driver_publish(ring);
	driver_ring_doorbell(ring);
}

/* 2.1.2: a broken ring is NEEDS_RESET and a configuration interrupt; another device goes on; a
 * reset mends it. */
static void broken_rings(void **state)
{
	static const char *const faults[] = {
		"a descriptor chain loops",
		"a head is outside the descriptor table",
		"the available index jumped",
		"a descriptor is outside RAM",
		"an indirect descriptor inside an indirect table",
		"a readable descriptor follows a writable one",
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
		hostile(&f->ring, kind);
		driver_wait(driver_status_now(f->device) & NEEDS_RESET);
		later_settle(&f->later);
		assert_string_equal(f->device->queues[0].ring.fault, faults[kind]);
		assert_int_equal(f->later.config_interrupts, before + 1);
		/* nothing more is taken, on no queue of it */
		before = taken(f);
		driver_ring_doorbell(&f->ring);
		later_settle(&f->later);
		assert_int_equal(taken(f), before);
		add(&f->ring1, 1);
		driver_kick(&f->ring1);
		driver_wait_used(&f->ring1, NULL, NULL);
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

/* ---- everything at once ---- */

struct storm {
	struct fixture *f;
	_Atomic bool end;
	unsigned int seed;
};

static void *storm_config(void *arg)
{
	struct storm *storm = arg;
	u32 n = 0;

	while (!atomic_load(&storm->end)) {
		n++;
		virtio_config_update(storm->f->device, 4, &n, 4);
		virtio_isr_read(storm->f->device);
		bus_master(storm->f, n & 1);
	}
	bus_master(storm->f, true);
	return NULL;
}

static void *storm_registers(void *arg)
{
	struct storm *storm = arg;
	struct virtio_device *device = storm->f->device;
	struct virtio_queue *queue;
	unsigned int seed = 7;

	while (!atomic_load(&storm->end)) {
		pthread_mutex_lock(&device->lock);
		queue = &device->queues[rand_r(&seed) % LATER_QUEUES];
		switch (rand_r(&seed) % 6) {
		case 0:
			virtio_queue_reset(queue);
			break;
		case 1:
			virtio_queue_enable(queue);
			break;
		case 2:
			virtio_config_read(device, 0, 8);
			virtio_config_generation(device);
			break;
		case 3:
			virtio_status_read(device);
			break;
		case 4:
			if (rand_r(&seed) % 16 == 0)
				virtio_status_write(device, 0, false);
			break;
		case 5:
			if (rand_r(&seed) % 16 == 0)
				virtio_device_broken(device, "stormy");
			break;
		}
		pthread_mutex_unlock(&device->lock);
		virtio_queue_kick(device, (u16)(rand_r(&seed) % 3));
	}
	return NULL;
}

/* A driver works while another vCPU resets, enables, breaks and pauses at random: whatever happens,
 * a last reset ends it. */
static void storm(void **state)
{
	struct fixture *f = *state;
	struct storm storm = { .f = f };
	pthread_t threads[2];
	u64 until = driver_ms() + 1500;
	int n = 0;

	set_mode(f, LATER_SOON);
	assert_int_equal(pthread_create(&threads[0], NULL, storm_config, &storm), 0);
	assert_int_equal(pthread_create(&threads[1], NULL, storm_registers, &storm), 0);
	while (driver_ms() < until) {
		driver_reset(f->device);
		atomic_store(&f->later.queues[0].cancel, n & 1);
		/* the other vCPU may reset in between: all of this may come to nothing */
		driver_negotiate(f->device,
				 BIT64(VIRTIO_F_RING_RESET) | BIT64(VIRTIO_RING_F_EVENT_IDX));
		driver_ring_init(&f->ring, &f->machine.memory, RINGS(n & 3), 16, true);
		pthread_mutex_lock(&f->device->lock);
		if (!f->device->queues[0].enabled && !f->device->resetting) {
			f->device->queues[0].size = 16;
			f->device->queues[0].descriptors = f->ring.descriptors_at;
			f->device->queues[0].driver = f->ring.available_at;
			f->device->queues[0].used = f->ring.used_at;
			virtio_queue_enable(&f->device->queues[0]);
		}
		virtio_status_write(f->device, 0x0f, false);
		pthread_mutex_unlock(&f->device->lock);
		f->ring.doorbell_fd = f->device->queues[0].doorbell_fd;
		for (int i = 0; i < 100; i++) {
			if (f->ring.free_count >= 2)
				add(&f->ring, i);
			driver_kick(&f->ring);
			driver_used(&f->ring, NULL, NULL);
		}
		n++;
	}
	atomic_store(&storm.end, true);
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	virtio_device_power_on(f->device);
	atomic_store(&f->later.queues[0].cancel, false);
	set_mode(f, LATER_NOW);
	driver_interrupts(f->interrupt);
	begin(f, 0);
	add(&f->ring, 0);
	driver_kick(&f->ring);
	driver_wait_interrupt(f->interrupt);
	assert_true(driver_used(&f->ring, NULL, NULL));
	assert_true(n > 3);
}

#define test(name)                                                      \
	cmocka_unit_test_setup_teardown(name, up_uring, down),          \
		cmocka_unit_test_setup_teardown(name, up_uring2, down), \
		cmocka_unit_test_setup_teardown(name, up_epoll2, down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(a_request),
		test(ping_pong),
		test(suppressed_interrupts),
		test(kinds_of_interrupt),
		test(kick_by_exit),
		test(modern_waits_for_driver_ok),
		test(legacy_does_not_wait),
		test(modern_reset_drains),
		test(reset_cancels),
		test(legacy_reset_waits),
		test(legacy_pfn_zero_waits),
		test(ring_reset),
		test(ring_reset_not_negotiated),
		test(resets_on_resets),
		test(bus_master_pauses),
		test(broken_rings),
		test(bad_areas),
		test(storm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
