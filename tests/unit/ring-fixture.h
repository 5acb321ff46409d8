/* A ring with its driver, no device, no thread: split, or packed while driver_packed is set. */
#ifndef TESTS_UNIT_RING_FIXTURE_H
#define TESTS_UNIT_RING_FIXTURE_H

#include "tests/unit/driver.h"

#define RAM    MIB(16)
#define RINGS  0x10000ull
#define TABLE  0x40000ull
#define BUFFER 0x100000ull
#define SIZE   16

struct fixture {
	struct memory memory;
	struct driver_ring ring;
	struct virtqueue vq;
	struct vq_buffer buffer;
	struct iovec iov[VQ_MAX_SIZE];
};

static inline struct vq_setup setup_of(const struct fixture *f, bool event_idx, bool indirect)
{
	return (struct vq_setup){
		.memory = &f->memory,
		.size = f->ring.size,
		.descriptors = f->ring.descriptors_at,
		.driver = f->ring.available_at,
		.device = f->ring.used_at,
		.event_idx = event_idx,
		.indirect = indirect,
		.in_order = driver_in_order,
	};
}

static inline int start(struct fixture *f, const struct vq_setup *setup)
{
	return vq_start(&f->vq, driver_packed ? &vq_packed : &vq_split, setup);
}

static inline void begin(struct fixture *f, u16 size, bool event_idx)
{
	struct vq_setup setup;

	driver_ring_init(&f->ring, &f->memory, RINGS, size, event_idx);
	setup = setup_of(f, event_idx, true);
	assert_int_equal(start(f, &setup), 0);
}

static inline int up(void **state)
{
	static struct fixture fixture;

	memset(&fixture, 0, sizeof(fixture));
	assert_int_equal(memory_create(&fixture.memory, NULL, RAM, MEMORY_PAGES_DEFAULT), 0);
	begin(&fixture, SIZE, false);
	*state = &fixture;
	return 0;
}

static inline int down(void **state)
{
	struct fixture *f = *state;

	memory_destroy(&f->memory);
	return 0;
}

static inline int pop(struct fixture *f)
{
	return vq_pop(&f->vq, &f->buffer, f->iov, VQ_MAX_SIZE);
}

/* Split: one chain of our own making is the next thing the device sees. */
static inline void offer(struct fixture *f, u16 head)
{
	driver_offer(&f->ring, head);
	driver_publish(&f->ring);
}

#define expect_fault(f, what)                             \
	do {                                              \
		assert_int_equal(pop(f), -EPROTO);        \
		assert_string_equal((f)->vq.fault, what); \
		/* and for good */                        \
		assert_int_equal(pop(f), -EPROTO);        \
	} while (0)

static inline void *host(struct fixture *f, u64 at)
{
	return memory_at(&f->memory, at, 1);
}

#define test(name) cmocka_unit_test_setup_teardown(name, up, down)

#endif
