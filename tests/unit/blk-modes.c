/*
 * tsan: a disk filled and read back by a driver, in every way in which reactors can run: what a
 * kernel's io_uring lacks costs speed, nothing else. And whatever is in a sweep, a queue decides
 * once whether to interrupt.
 */
#include "tests/unit/blk-fixture.h"

#define DEPTH	32u
#define BLOCK	4096u
#define SECTORS (BLOCK / 512)
#define BLOCKS	(IMAGE / BLOCK)

static struct request requests[DEPTH];
static u8 *data[DEPTH];

static void prepare(struct fixture *f, u32 n, u32 type, u64 block)
{
	f->arena = ARENA + n * 4 * 4096ull;
	data[n] = frame(f, &requests[n], type, block * SECTORS, BLOCK, type == T_IN);
}

/* The whole disk, DEPTH requests at a time, a doorbell for each batch if the device wants it. */
static void pass(struct fixture *f, u32 type)
{
	static u8 expected[BLOCK];

	for (u32 block = 0; block < BLOCKS; block += DEPTH) {
		for (u32 n = 0; n < DEPTH; n++) {
			prepare(f, n, type, block + n);
			if (type == T_OUT)
				fill(data[n], BLOCK, block + n);
			else
				memset(data[n], 0, BLOCK);
			send(&f->rings[0], &requests[n]);
		}
		driver_kick(&f->rings[0]);
		for (u32 n = 0; n < DEPTH; n++)
			driver_wait_used(&f->rings[0], NULL, NULL);
		for (u32 n = 0; n < DEPTH; n++) {
			assert_int_equal(*requests[n].status, S_OK);
			fill(expected, BLOCK, block + n);
			assert_memory_equal(data[n], expected, BLOCK);
		}
	}
}

static u64 read_u64(const u64 *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static void verify(const struct setting *s)
{
	struct fixture *f = up(s);
	const struct virtio_queue_counts *counts = &f->device->queues[0].counts;
	struct reactor_counts reactor;
	static u8 bytes[BLOCK], expected[BLOCK];
	int interrupt = driver_interrupt(&f->machine, &f->device->queues[0]);

	if (s->direct)
		assert_int_equal(reactor_file_iopoll(f->machine.reactors, f->disk.file, "image"),
				 driver_mode.force_epoll ? -EOPNOTSUPP : 0);
	pass(f, T_OUT);
	assert_int_equal(simple(f, T_FLUSH, 0, 0), S_OK);
	pass(f, T_IN);
	for (u32 block = 0; block < BLOCKS; block += 97) {
		assert_int_equal(pread(f->file, bytes, BLOCK, block * BLOCK), BLOCK);
		fill(expected, BLOCK, block);
		assert_memory_equal(bytes, expected, BLOCK);
	}
	/* one decision a sweep at most, and on io_uring about one a batch: no request has its own
	 */
	reactor_counts(reactors_get(f->machine.reactors, 0), &reactor);
	assert_int_equal(read_u64(&counts->buffers), 2 * BLOCKS + 1);
	assert_in_range(read_u64(&counts->interrupts) + read_u64(&counts->interrupts_suppressed), 1,
			reactor.sweeps);
	down(f);
	close(interrupt);
}

static void test_cached(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(reactor_modes); i++) {
		driver_mode = reactor_modes[i];
		print_message("%s\n", driver_mode.name);
		verify(&(struct setting){ 0 });
	}
	driver_mode = (struct reactor_mode){ 0 };
}

/* Each request asks the second ring first, which may find that there is nothing to poll. */
static void test_direct(void **state)
{
	char path[] = "/tmp/vmm-direct-XXXXXX";
	int fd = mkostemp(path, O_DIRECT);

	(void)state;
	unlink(path);
	if (fd < 0) {
		print_message("/tmp takes no O_DIRECT\n");
		skip();
	}
	close(fd);
	for (size_t i = 0; i < ARRAY_SIZE(reactor_modes); i++) {
		driver_mode = reactor_modes[i];
		print_message("%s\n", driver_mode.name);
		verify(&(struct setting){ .direct = true });
	}
	driver_mode = (struct reactor_mode){ 0 };
}

/* Reads from the page cache end while they are submitted, so those of one doorbell end in one
 * sweep: one interrupt for all. */
static void test_one_interrupt(void **state)
{
	struct fixture *f;
	int fd;

	(void)state;
	make(&the, &(struct setting){ 0 });
	f = &the;
	dirty(f);
	assert_true(driver_negotiate(f->device, 0));
	rings(f, 256);
	fd = driver_interrupt(&f->machine, &f->device->queues[0]);
	driver_ok(f->device);
	for (u32 round = 1; round <= 50; round++) {
		for (u32 n = 0; n < DEPTH; n++) {
			prepare(f, n, T_IN, n);
			send(&f->rings[0], &requests[n]);
		}
		driver_kick(&f->rings[0]);
		for (u32 n = 0; n < DEPTH; n++)
			driver_wait_used(&f->rings[0], NULL, NULL);
		driver_wait_interrupt(fd);
		assert_int_equal(read_u64(&f->device->queues[0].counts.buffers), round * DEPTH);
		assert_int_equal(read_u64(&f->device->queues[0].counts.interrupts), round);
	}
	down(f);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cached),
		cmocka_unit_test(test_direct),
		cmocka_unit_test(test_one_interrupt),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
