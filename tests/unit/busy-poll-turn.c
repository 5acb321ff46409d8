/* tsan
 * Busy-polling beside a slow disk: while it is at work the driver is asked to ring for more, and as
 * soon as a request is published no longer, as the next one is looked for. The disk is a pipe that
 * the test answers.
 */
#include "tests/unit/blk-fixture.h"
#include "vm/reactor-engine.h"

#define WINDOW_US 20000u /* the longest; the driver's turn is shorter, the disk's longer */
#define DISK_US	  50000u
#define TRIES	  12u /* the first is for learning; a busy host may be slower than the window */
#define ROUNDS	  8u

/* Requests one after the other. How many of them were rung for. */
static u64 ask(struct fixture *f, struct request *r)
{
	struct driver_ring *ring = &f->rings[0];
	static const u8 sector[512];
	u64 kicks = ring->kicks;

	for (u32 i = 0; i < ROUNDS; i++) {
		send(ring, r);
		driver_kick(ring);
		usleep(DISK_US);
		assert_int_equal(write(f->pipe[1], sector, sizeof(sector)), sizeof(sector));
		while (!driver_used(ring, NULL, NULL))
			__builtin_ia32_pause();
		assert_int_equal(*r->status, S_OK);
	}
	return ring->kicks - kicks;
}

static void next_is_looked_for(bool event_idx)
{
	u64 kicks = ROUNDS, wanted = event_idx ? BIT64(VIRTIO_RING_F_EVENT_IDX) : 0;
	struct fixture *f = &the;
	struct request r;

	make(f, &(struct setting){});
	become_pipe(f);
	f->machine.reactors->storage[f->disk.file] = true;
	assert_true(driver_negotiate(f->device, wanted));
	rings(f, 256);
	f->rings[0].event_idx = event_idx;
	driver_ok(f->device);
	frame(f, &r, T_IN, 0, 512, true);
	for (u32 i = 0; i < TRIES && kicks > ROUNDS / 4; i++)
		kicks = ask(f, &r);
	assert_in_range(kicks, 0, ROUNDS / 4);
	down(f);
}

static void by_flags(void **state)
{
	(void)state;
	next_is_looked_for(false);
}

static void by_events(void **state)
{
	(void)state;
	next_is_looked_for(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(by_flags),
		cmocka_unit_test(by_events),
	};
	int failed;

	driver_poll_us = WINDOW_US;
	failed = cmocka_run_group_tests_name("split", tests, set_up, tear_down);
	driver_packed = true;
	return failed + cmocka_run_group_tests_name("packed", tests, set_up, tear_down);
}
