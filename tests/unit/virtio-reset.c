/* tsan: stopping queues: resets of devices and of queues with I/O in flight, on top of each other,
 * and in a storm; both engines. */
#include <stdlib.h>
#include "tests/unit/queue-fixture.h"

/* ---- stopping ---- */

/* Where used elements of a ring of 16 would be written. */
static const void *device_area(const struct driver_ring *ring)
{
	return ring->packed ? (const void *)ring->descriptors : ring->used->ring;
}

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
	u8 untouched[16 * 16];

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
		assert_int_equal(f->later.writes, 0);
		pthread_mutex_unlock(&f->device->lock);
		later_settle(&f->later);
		assert_int_not_equal(driver_status_now(f->device), 0);
		if (!driver_packed)
			memset(f->ring.used->ring, 0xee, 8 * 16);
		memcpy(untouched, device_area(&f->ring), sizeof(untouched));
		later_release(&f->later, 0);
		driver_wait(driver_status_now(f->device) == 0);
		assert_int_equal(driver_shown(&f->ring), 0);
		assert_memory_equal(device_area(&f->ring), untouched, sizeof(untouched));
		assert_int_equal(taken(f) - before, 4);
		assert_int_equal(driver_interrupts(f->interrupt), 0);
		assert_int_equal(f->device->queues[0].in_flight, 0);
		assert_false(f->device->queues[1].enabled);
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
	assert_int_equal(driver_shown(&f->ring), 0);
}

/* What is unpopped after the stop has begun is out of flight too. */
static void reset_waits_for_unpop(void **state)
{
	struct fixture *f = *state;

	set_mode(f, LATER_HOLD);
	begin(f, 0);
	for (int i = 0; i < 3; i++)
		add(&f->ring, i);
	driver_kick(&f->ring);
	driver_wait(held(f) == 3);
	driver_status(f->device, 0, false);
	driver_wait(atomic_load(&f->later.queues[0].stops) == 1);
	later_settle(&f->later);
	assert_int_not_equal(driver_status_now(f->device), 0);
	later_unpop(&f->later, 0);
	driver_wait(driver_status_now(f->device) == 0);
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
	assert_int_equal(driver_shown(&f->ring), 0);
	pthread_join(thread, NULL);
}

/* Used before it ever set a status bit: its reset still reads non-zero, and is not interrupted by
 * what is written next. */
static void legacy_reset_of_status_zero(void **state)
{
	struct fixture *f = *state;

	set_mode(f, LATER_HOLD);
	legacy_ring(f, &f->ring, 0, RINGS(0));
	add(&f->ring, 0);
	driver_kick(&f->ring);
	driver_wait(held(f) == 1);
	assert_int_equal(driver_status_now(f->device), 0);
	driver_status(f->device, 0, true);
	assert_int_not_equal(driver_status_now(f->device), 0);
	driver_status(f->device, 7, true);
	assert_false(atomic_load(&f->device->running));
	later_release(&f->later, 0);
	driver_wait(driver_status_now(f->device) == 0);
	assert_false(f->device->queues[0].enabled);
	assert_int_equal(f->later.device_starts, 1);
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
	assert_int_equal(driver_shown(&f->ring), 0);
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
	assert_int_equal(driver_shown(&f->ring), 0);
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
			if (driver_room(&f->ring) >= 2)
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(modern_reset_drains),
		test(reset_cancels),
		test(reset_waits_for_unpop),
		test(legacy_reset_waits),
		test(legacy_reset_of_status_zero),
		test(legacy_pfn_zero_waits),
		test(ring_reset),
		test(ring_reset_not_negotiated),
		test(resets_on_resets),
		test(storm),
	};

	return driver_run_two(tests);
}
