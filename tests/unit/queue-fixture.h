/* Two devices of later.h on the engines and thread counts that exist, and what the tests of queues
 * do to them. */
#ifndef TESTS_UNIT_QUEUE_FIXTURE_H
#define TESTS_UNIT_QUEUE_FIXTURE_H

#include <pthread.h>
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

static inline int up(void **state, u32 threads, bool epoll)
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

static inline int up_uring(void **state)
{
	return up(state, 1, false);
}

static inline int up_uring2(void **state)
{
	return up(state, 2, false);
}

static inline int up_epoll2(void **state)
{
	return up(state, 2, true);
}

static inline int down(void **state)
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

static inline void begin(struct fixture *f, u64 features)
{
	assert_true(driver_negotiate(f->device, features));
	driver_ring_init(&f->ring, &f->machine.memory, RINGS(0), 16,
			 features & BIT64(VIRTIO_RING_F_EVENT_IDX));
	driver_queue(f->device, 0, &f->ring);
	driver_ok(f->device);
}

static inline void add(struct driver_ring *ring, int n)
{
	const struct driver_part parts[] = { { BUFFER(n), 8, false }, { BUFFER(n) + 64, 5, true } };

	assert_true(driver_add(ring, parts, 2) >= 0);
}

static inline void set_mode(struct fixture *f, enum later_mode mode)
{
	atomic_store(&f->later.queues[0].mode, mode);
}

static inline u32 held(struct fixture *f)
{
	return atomic_load(&f->later.queues[0].held_now);
}

static inline u32 taken(struct fixture *f)
{
	return atomic_load(&f->later.queues[0].taken);
}

static inline void set_pfn(struct fixture *f, u16 index, u64 at)
{
	pthread_mutex_lock(&f->device->lock);
	virtio_queue_set_pfn(&f->device->queues[index], (u32)(at / 4096));
	pthread_mutex_unlock(&f->device->lock);
}

static inline void legacy_ring(struct fixture *f, struct driver_ring *ring, u16 index, u64 at)
{
	driver_ring_init(ring, &f->machine.memory, at, LATER_SIZE, false);
	ring->packed = ring->in_order = false; /* whatever is offered */
	set_pfn(f, index, at);
	assert_true(f->device->queues[index].enabled);
	assert_int_equal(f->device->queues[index].descriptors, ring->descriptors_at);
	assert_int_equal(f->device->queues[index].driver, ring->available_at);
	assert_int_equal(f->device->queues[index].used, ring->used_at);
	ring->doorbell_fd = f->device->queues[index].doorbell_fd;
}

static inline void bus_master(struct fixture *f, bool on)
{
	pthread_mutex_lock(&f->device->lock);
	virtio_device_bus_master(f->device, on);
	pthread_mutex_unlock(&f->device->lock);
}

#define test(name)                                                      \
	cmocka_unit_test_setup_teardown(name, up_uring, down),          \
		cmocka_unit_test_setup_teardown(name, up_uring2, down), \
		cmocka_unit_test_setup_teardown(name, up_epoll2, down)

#endif
