/* tsan: the block device's queues: full, reset under way, several at once. */
#include "tests/unit/blk-fixture.h"

/* The whole ring in flight, each buffer given again as soon as it comes back: none is forgotten. */
static void test_full_ring(void **state)
{
	enum { REQUESTS = 1000 };
	struct fixture *f = up(&(struct setting){ 0 });
	struct driver_ring *ring = &f->rings[0];
	u32 sent = 0, fed = 0, used = 0;
	const u8 sector[512] = { 0 };
	struct request r;
	u64 table, until;

	(void)state;
	become_pipe(f);
	frame(f, &r, T_IN, 0, 512, true);
	allot(f, REQUESTS * 48, &table);
	for (; sent < 256; sent++)
		assert_true(driver_add_indirect(ring, table + sent * 48, r.parts, r.count) >= 0);
	driver_kick(ring);
	driver_wait(look_at(f).in_flight == 256);
	assert_int_equal(look_at(f).touched, BLK_QUEUE_SIZE);
	until = driver_ms() + DRIVER_PATIENCE_MS;
	while (used < REQUESTS) {
		if (fed < REQUESTS && write(f->pipe[1], sector, 512) == 512)
			fed++;
		while (driver_used(ring, NULL, NULL)) {
			used++;
			if (sent == REQUESTS)
				continue;
			assert_true(driver_add_indirect(ring, table + sent * 48, r.parts,
							r.count) >= 0);
			sent++;
			driver_kick(ring);
		}
		assert_true(driver_ms() < until);
	}
	down(f);
}

/* A reset with I/O in flight: not over before the I/O is, and nothing is said of it afterwards. */
static void test_reset_in_flight(void **state)
{
	struct fixture *f = up(&(struct setting){ 0 });
	reactor_file real = f->disk.file;
	struct request r;

	(void)state;
	become_pipe(f);
	frame(f, &r, T_IN, 0, 512, true);
	send(&f->rings[0], &r);
	driver_kick(&f->rings[0]);
	driver_wait(look_at(f).in_flight == 1);
	driver_status(f->device, 0, false);
	usleep(50000);
	assert_int_not_equal(driver_status_now(f->device), 0);
	assert_int_equal(write(f->pipe[1], f->path, 100), 100);
	usleep(20000);
	assert_int_not_equal(driver_status_now(f->device), 0);
	assert_int_equal(write(f->pipe[1], (u8[412]){ 0 }, 412), 412);
	driver_wait(driver_status_now(f->device) == 0);
	assert_int_equal(f->rings[0].used->idx, 0);
	f->disk.file = real;
	f->arena = ARENA;
	begin(f, BIT64(F_FLUSH));
	assert_int_equal(simple(f, T_IN, 0, 512), S_OK);
	down(f);
}

/* Four queues on two threads, each writing and flushing its own quarter, deep and at once. */
static void test_queues(void **state)
{
	enum { QUEUES = 4, DEPTH = 32, ROUNDS = 20, LENGTH = 4096 };
	struct fixture *f = up(&(struct setting){ .queues = QUEUES, .threads = 2 });
	static struct request r[QUEUES][DEPTH];
	static u8 expected[LENGTH], got[LENGTH];
	u64 quarter = IMAGE / 512 / QUEUES;

	(void)state;
	for (u32 round = 0; round < ROUNDS; round++) {
		f->arena = ARENA;
		for (u32 q = 0; q < QUEUES; q++) {
			for (u32 i = 0; i < DEPTH; i++) {
				u8 *data =
					frame(f, &r[q][i], i % 8 == 7 ? T_FLUSH : T_OUT,
					      q * quarter + i * 8, i % 8 == 7 ? 0 : LENGTH, false);

				if (data)
					fill(data, LENGTH, round * 1000 + q * 100 + i);
				send(&f->rings[q], &r[q][i]);
			}
		}
		for (u32 q = 0; q < QUEUES; q++)
			driver_kick(&f->rings[q]);
		for (u32 q = 0; q < QUEUES; q++) {
			for (u32 i = 0; i < DEPTH; i++)
				driver_wait_used(&f->rings[q], NULL, NULL);
			for (u32 i = 0; i < DEPTH; i++)
				assert_int_equal(*r[q][i].status, S_OK);
		}
	}
	for (u32 q = 0; q < QUEUES; q++) {
		for (u32 i = 0; i < DEPTH; i++) {
			if (i % 8 == 7)
				continue;
			fill(expected, LENGTH, (ROUNDS - 1) * 1000 + q * 100 + i);
			assert_int_equal(
				pread(f->file, got, LENGTH, (off_t)(q * quarter + i * 8) * 512),
				LENGTH);
			assert_memory_equal(expected, got, LENGTH);
		}
	}
	assert_true(counts(f).syncs <= counts(f).flushes);
	assert_int_equal(counts(f).flushes, QUEUES * ROUNDS * DEPTH / 8);
	down(f);
}

/* Resets at any moment, with everything under way that there is: transfers, bounces and who waits
 * for one, ranges, syncs. Nothing is lost or kept. */
static void test_reset_storm(void **state)
{
	struct fixture *f = &the;
	static const u32 types[] = { T_OUT, T_IN, T_FLUSH, T_ZEROES, T_DISCARD, T_GET_ID, 99 };
	struct request r;

	(void)state;
	make(f, &(struct setting){ .direct = true, .queues = 2, .threads = 2 });
	for (u32 round = 0; round < 150; round++) {
		f->arena = ARENA;
		begin(f, f->device->offered & 0xffffff);
		config_write(f, C_WRITEBACK, 1, round & 1);
		for (u32 i = 0; i < 100; i++) {
			u32 type = types[draw(ARRAY_SIZE(types))];
			u64 sector = draw(IMAGE / 512 - 32);
			u8 *data = frame(f, &r, type, sector,
					 type == T_FLUSH ? 0 : 4096 * (1 + draw(4)),
					 type == T_IN || type == T_GET_ID);

			if (type == T_IN || type == T_OUT)
				r.parts[1].at += draw(2);
			if (type == T_ZEROES || type == T_DISCARD) {
				le64_store(data, sector);
				le64_store(data + 8, draw(32));
				r.parts[1].length = 16;
			}
			send(&f->rings[i & 1], &r);
		}
		driver_kick(&f->rings[0]);
		driver_kick(&f->rings[1]);
		usleep(draw(3000));
		driver_reset(f->device);
	}
	begin(f, BIT64(F_FLUSH));
	f->arena = ARENA;
	assert_int_equal(look_at(f).in_flight, 0);
	assert_int_equal(look_at(f).bounces, BLK_BOUNCES);
	assert_int_equal(counts(f).errors, 0);
	assert_int_equal(simple(f, T_OUT, 0, 4096), S_OK);
	assert_int_equal(simple(f, T_FLUSH, 0, 0), S_OK);
	down(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_full_ring),
		cmocka_unit_test(test_reset_in_flight),
		cmocka_unit_test(test_reset_storm),
		cmocka_unit_test(test_queues),
	};

	return on_both_engines(tests);
}
