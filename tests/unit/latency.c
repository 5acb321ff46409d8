/*
 * The histogram of latencies: its buckets cover all numbers without gap or overlap, its percentiles
 * are those of the sorted list to within an eighth, and a run of pops or pushes shares one look at
 * the clock.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include "virtio/latency.h"

static struct latency latency;

static int fresh(void **state)
{
	(void)state;
	memset(&latency, 0, sizeof(latency));
	return 0;
}

/* As if a request had taken so long. */
static void add(u64 ticks)
{
	latency.run = LATENCY_PUSHING;
	latency.look = BIT64(60);
	latency.popped[3] = latency.look - ticks;
	latency_push(&latency, 3);
}

static struct latency_summary summary(void)
{
	struct latency_summary s;

	latency_break(&latency);
	latency_summarize(&latency, &s);
	return s;
}

static void test_buckets(void **state)
{
	u32 last = 0;

	(void)state;
	for (u64 n = 0; n < 100000; n++) {
		u32 bucket = latency_bucket(n);

		assert_true(bucket == last || bucket == last + 1);
		last = bucket;
	}
	for (u32 bits = 3; bits < LATENCY_BITS; bits++)
		for (u32 part = 0; part < 8; part++) {
			u64 first = BIT64(bits) + part * BIT64(bits - 3);

			assert_int_equal(latency_bucket(first), (bits - 2) * 8 + part);
			assert_int_equal(latency_bucket(first + BIT64(bits - 3) - 1),
					 (bits - 2) * 8 + part);
		}
	assert_int_equal(latency_bucket(BIT64(LATENCY_BITS) - 1), LATENCY_BUCKETS - 1);
	assert_int_equal(latency_bucket(BIT64(LATENCY_BITS)), LATENCY_BUCKETS - 1);
	assert_int_equal(latency_bucket(UINT64_MAX), LATENCY_BUCKETS - 1);
}

static void test_none_and_one(void **state)
{
	struct latency_summary s = summary();

	(void)state;
	assert_int_equal(s.count | s.p50 | s.p90 | s.p99 | s.max, 0);
	add(12345);
	s = summary();
	assert_int_equal(s.count, 1);
	/* no percentile is above what was seen */
	assert_int_equal(s.p50, 12345);
	assert_int_equal(s.p99, 12345);
	assert_int_equal(s.max, 12345);
}

static int by_size(const void *a, const void *b)
{
	const u64 *first = a, *second = b;

	return (*first > *second) - (*first < *second);
}

static void assert_near(u64 got, u64 exact)
{
	if (got < exact || got > exact + exact / 8 + 1)
		fail_msg("%llu for %llu", (unsigned long long)got, (unsigned long long)exact);
}

/* Against the sorted list itself, over many magnitudes. */
static void test_percentiles(void **state)
{
	static u64 list[2000];
	u64 seed = 12345;

	(void)state;
	for (u32 round = 0; round < 50; round++) {
		u32 count = 1 + round * 39;
		struct latency_summary s;

		fresh(NULL);
		for (u32 i = 0; i < count; i++) {
			seed = seed * 6364136223846793005ull + 1442695040888963407ull;
			list[i] = seed >> (24 + (seed >> 8) % 38);
			add(list[i]);
		}
		qsort(list, count, sizeof(list[0]), by_size);
		s = summary();
		assert_int_equal(s.count, count);
		assert_near(s.p50, list[(count * 50 + 99) / 100 - 1]);
		assert_near(s.p90, list[(count * 90 + 99) / 100 - 1]);
		assert_near(s.p99, list[(count * 99 + 99) / 100 - 1]);
		assert_int_equal(s.max, list[count - 1]);
	}
}

/* One in a hundred is slow: p99 does not see it, two are seen. */
static void test_ranks(void **state)
{
	(void)state;
	for (int i = 0; i < 99; i++)
		add(5);
	add(1000000);
	assert_int_equal(summary().p99, 5);
	assert_int_equal(summary().max, 1000000);
	add(1000000);
	assert_near(summary().p99, 1000000);
	assert_int_equal(summary().p90, 5);
}

static void test_backwards(void **state)
{
	(void)state;
	latency.run = LATENCY_PUSHING;
	latency.look = 1000;
	latency.popped[0] = 1001; /* by a CPU whose counter is ahead */
	latency_push(&latency, 0);
	assert_int_equal(summary().max, 0);
	assert_int_equal(latency.counts[0], 1);
}

static void test_runs(void **state)
{
	u64 first;

	(void)state;
	assert_int_equal(latency.first, 0);
	latency_pop(&latency, 0);
	latency_pop(&latency, 1);
	first = latency.first;
	assert_true(first);
	assert_int_equal(latency.popped[0], first);
	assert_int_equal(latency.popped[1], first);
	latency_break(&latency);
	latency_pop(&latency, 2);
	assert_true(latency.popped[2] > first);
	assert_int_equal(latency.first, first);
	latency_push(&latency, 0);
	assert_true(latency.look > latency.popped[2]);
	first = latency.look;
	latency_push(&latency, 1);
	assert_int_equal(latency.look, first);
	assert_int_equal(latency.alike, 2); /* popped together, pushed together */
	latency_push(&latency, 2);	    /* popped later */
	assert_int_equal(latency.look, first);
	assert_int_equal(latency.alike, 1);
	/* taken and given back in turn: each is measured by itself */
	latency_pop(&latency, 0);
	assert_true(latency.popped[0] > first);
	assert_int_equal(summary().count, 3);
}

#define test(name) cmocka_unit_test_setup(name, fresh)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(test_buckets), test(test_none_and_one), test(test_percentiles),
		test(test_ranks),   test(test_backwards),    test(test_runs),
	};

	return cmocka_run_group_tests_name("latency", tests, NULL, NULL);
}
