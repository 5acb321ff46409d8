/*
 * tsan: adaptive busy-polling, in counts: a hot queue's driver need not notify, and the reactor
 * makes no system call for it; an idle one costs nothing at all; and one that is neither is soon
 * not looked for.
 */
#include "tests/unit/queue-fixture.h"

#define HOT 3000u

static struct reactor_counts counts_of(struct fixture *f)
{
	struct reactor_counts counts;

	reactor_counts(reactors_get(f->machine.reactors, 0), &counts);
	return counts;
}

/* Requests one after the other, without a pause; the driver looks for the answers. */
static void ping(struct fixture *f, u32 times)
{
	driver_disarm(&f->ring);
	for (u32 i = 0; i < times; i++) {
		add(&f->ring, (int)(i % 16));
		driver_kick(&f->ring);
		driver_wait_used(&f->ring, NULL, NULL);
		driver_disarm(&f->ring);
	}
}

static bool same(const struct reactor_counts *a, const struct reactor_counts *b)
{
	return a->sweeps == b->sweeps && a->enters == b->enters && a->events == b->events &&
	       a->polls_hit == b->polls_hit && a->polls_missed == b->polls_missed;
}

/* Waits until the reactor stands still: a window that began may last as long as it is. */
static struct reactor_counts rest(struct fixture *f)
{
	struct reactor_counts before, now = counts_of(f);

	do {
		before = now;
		usleep(50000);
		now = counts_of(f);
	} while (!same(&before, &now));
	return now;
}

static int up_long(void **state)
{
	driver_poll_us = 1000000;
	return up_uring(state);
}

static int up_short(void **state)
{
	driver_poll_us = 1000;
	return up_uring(state);
}

static const u64 features[] = { 0, BIT64(VIRTIO_RING_F_EVENT_IDX) };

/* The window doubles until it covers the gaps between requests: at most as often as there are
 * doublings up to the longest. Then no doorbell is rung and the kernel is not entered. */
static void hot(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		struct reactor_counts before, after;

		begin(f, features[i]);
		before = counts_of(f);
		ping(f, HOT);
		after = counts_of(f);
		assert_in_range(f->ring.kicks, 0, HOT / 20);
		assert_in_range(after.enters - before.enters, 0, 4 * f->ring.kicks + 20);
		assert_in_range(after.polls_hit - before.polls_hit, HOT * 9 / 10, 2 * HOT);
		driver_reset(f->device);
	}
}

/* However hot it was: not a single sweep, enter or look. */
static void idle(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		struct reactor_counts before, after;

		begin(f, features[i]);
		ping(f, 500);
		before = rest(f);
		usleep(500000);
		after = counts_of(f);
		assert_true(same(&before, &after));
		/* and it hears: the driver was asked to notify again */
		add(&f->ring, 0);
		driver_kick(&f->ring);
		driver_wait_used(&f->ring, NULL, NULL);
		driver_reset(f->device);
	}
}

/* Requests with pauses that no window covers: it shrinks to nothing, and each costs the doorbell.
 */
static void slow(void **state)
{
	struct fixture *f = *state;
	struct reactor_counts before, after;
	u64 kicks;

	begin(f, 0);
	ping(f, 500);
	for (u32 i = 0; i < 40; i++) {
		usleep(3000);
		ping(f, 1);
	}
	before = counts_of(f);
	kicks = f->ring.kicks;
	for (u32 i = 0; i < 20; i++) {
		usleep(3000);
		ping(f, 1);
	}
	after = counts_of(f);
	assert_int_equal(f->ring.kicks - kicks, 20);
	assert_int_equal(after.polls_missed - before.polls_missed, 0);
	assert_int_equal(after.polls_hit - before.polls_hit, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(hot, up_long, down),
		cmocka_unit_test_setup_teardown(idle, up_short, down),
		cmocka_unit_test_setup_teardown(slow, up_short, down),
	};
	int failed = cmocka_run_group_tests_name("split", tests, NULL, NULL);

	driver_packed = true;
	return failed + cmocka_run_group_tests_name("packed", tests, NULL, NULL);
}
