/* tests/fuzz/virtqueue.c with programs of random bytes, the same in every run (VIRTQUEUE_FUZZ: how
 * many); then a ring whose memory another thread scribbles over while it is read. */
#include <pthread.h>
#include <stdatomic.h>
#include "tests/unit/driver.h"
#include "tests/fuzz/virtqueue.c"

static u64 next_random(u64 *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void random_programs(void **state)
{
	const char *wish = getenv("VIRTQUEUE_FUZZ");
	u64 count = wish ? strtoull(wish, NULL, 0) : 30000, seed = 0x9e3779b97f4a7c15;
	u8 program[1024];
	size_t size;

	(void)state;
	for (u64 i = 0; i < count; i++) {
		size = 16 + next_random(&seed) % (sizeof(program) - 16);
		for (size_t at = 0; at < size; at++)
			program[at] = (u8)(next_random(&seed) >> 24);
		LLVMFuzzerTestOneInput(program, size);
	}
}

struct scribbler {
	struct driver_ring *ring;
	_Atomic bool end;
};

/* The other vCPU of a hostile guest: descriptors and tables change between any two of our reads. */
static void *scribble(void *arg)
{
	struct scribbler *scribbler = arg;
	u64 seed = 42, value;
	volatile u64 *words = (void *)scribbler->ring->descriptors;
	u64 mask = scribbler->ring->packed ? 0x8087000f000000ff : 0x000f0007000000ff;

	while (!atomic_load(&scribbler->end)) {
		value = next_random(&seed);
		/* addresses in RAM or past its end; lengths, flags and next (or id, flags) in the
		 * other word */
		words[value % (2 * scribbler->ring->size)] =
			value & 256 ? value >> 40 : (value >> 32 | value << 32) & mask;
	}
	return NULL;
}

static void scribbled(bool packed)
{
	const struct vq_format *format = packed ? &vq_packed : &vq_split;
	struct scribbler scribbler = { 0 };
	struct driver_ring ring;
	struct memory memory;
	struct virtqueue vq;
	struct vq_setup setup;
	struct vq_buffer buffer;
	static struct iovec iov[VQ_MAX_SIZE];
	u64 seed = 7, buffers = 0, faults = 0, until = driver_ms() + 1000;
	pthread_t thread;
	int got;

	assert_int_equal(memory_create(&memory, NULL, MIB(1), MEMORY_PAGES_DEFAULT), 0);
	driver_packed = packed;
	driver_ring_init(&ring, &memory, 0x10000, 16, false);
	setup = (struct vq_setup){ .memory = &memory,
				   .size = 16,
				   .descriptors = ring.descriptors_at,
				   .driver = ring.available_at,
				   .device = ring.used_at,
				   .indirect = true,
				   .packed = packed };
	assert_int_equal(vq_start(&vq, format, &setup), 0);
	scribbler.ring = &ring;
	assert_int_equal(pthread_create(&thread, NULL, scribble, &scribbler), 0);
	/* a second of it; on a busy host until both have happened */
	while (driver_ms() < until ||
	       ((buffers <= 100 || faults <= 100) && driver_ms() < until + DRIVER_PATIENCE_MS)) {
		if (packed) { /* whatever it then says: it is the device's turn */
			ring.fill.at = vq.take.at;
			ring.fill.wrap = vq.take.flags == BIT(VRING_PACKED_DESC_F_AVAIL);
			driver_packed_write(&ring, 4096, 16, (u16)(next_random(&seed) % 16),
					    next_random(&seed) & 7);
		} else {
			driver_offer(&ring, (u16)(next_random(&seed) % 16));
		}
		driver_publish(&ring);
		got = vq_pop(&vq, &buffer, iov, VQ_MAX_SIZE);
		if (got < 0) {
			faults++;
			memset(ring.used, 0, 6 + 8 * 16);
			assert_int_equal(vq_start(&vq, format, &setup), 0);
			ring.next_available = 0;
		}
		if (got != 1)
			continue;
		buffers++;
		for (u32 i = 0; i < (u32)buffer.readable + buffer.writable; i++) {
			const u8 *from = iov[i].iov_base;

			assert_true(from >= memory.low && iov[i].iov_len > 0 &&
				    iov[i].iov_len <= memory.low_size - (u64)(from - memory.low));
		}
		vq_push(&vq, buffer.head, 0);
		vq_publish(&vq);
	}
	atomic_store(&scribbler.end, true);
	pthread_join(thread, NULL);
	memory_destroy(&memory);
	assert_true(buffers > 100 && faults > 100); /* both happen, or this tests nothing */
}

static void scribbled_memory(void **state)
{
	(void)state;
	scribbled(false);
}

static void scribbled_packed_memory(void **state)
{
	(void)state;
	scribbled(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_programs),
		cmocka_unit_test(scribbled_memory),
		cmocka_unit_test(scribbled_packed_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
