/* tsan
 * Busy-polling beside a slow disk, in counts: what the driver does next is looked for, what the
 * disk answers is slept for. The disk is a pipe that the test answers.
 */
#include "tests/unit/reactor-fixture.h"

#define WINDOW_US 20000u /* the longest; the driver's turn is shorter, the disk's longer */
#define DISK_US	  50000u
#define TRIES	  8u /* the first is for learning; a busy host may be slower than the window */
#define ROUNDS	  16u

static int pipe_fds[2];
static reactor_file disk;

static int up(void **state)
{
	const struct reactors_config config = { .count = 2, .max_files = 8, .poll_us = WINDOW_US };

	(void)state;
	mode.name = "the default";
	assert_int_equal(pipe(pipe_fds), 0);
	assert_int_equal(reactors_create(&reactors, &config), 0);
	reactor = reactors_get(reactors, 1);
	disk = reactor_file_add(reactors, pipe_fds[0]);
	reactors->storage[disk] = true;
	assert_int_equal(reactors_start(reactors), 0);
	return 0;
}

static int down(void **state)
{
	close(pipe_fds[1]);
	close(pipe_fds[0]);
	return teardown(state);
}

/* Requests, one as soon as the one before has ended, of which each takes the disk its time. */
static struct reactor_counts ask_disk(u32 rounds)
{
	struct reactor_counts counts;
	struct request request;
	sem_t ended;

	sem_init(&ended, 0, 0);
	for (u32 i = 0; i < rounds; i++) {
		struct batch batch = { .requests = &request, .count = 1 };

		request_init(&request, REACTOR_READV, disk, &ended);
		request.op.offset = (u64)-1;
		call(submit_batch, &batch);
		usleep(DISK_US);
		assert_int_equal(write(pipe_fds[1], "x", 1), 1);
		await(&ended, 1);
		assert_int_equal(request.result, 1);
	}
	sem_destroy(&ended);
	reactor_counts(reactor, &counts);
	return counts;
}

static void only_the_driver_is_looked_for(void **state)
{
	struct reactor_counts before, after;
	u64 missed = ROUNDS, hit = 0;

	(void)state;
	if (strcmp(reactors_engine(reactors), "io_uring") != 0) {
		print_message("skip: only io_uring busy-polls\n");
		skip();
	}
	before = ask_disk(ROUNDS);
	for (u32 i = 1; i < TRIES && (missed > ROUNDS / 3 || hit < ROUNDS / 2); i++) {
		after = ask_disk(ROUNDS);
		missed = after.polls_missed - before.polls_missed;
		hit = after.polls_hit - before.polls_hit;
		before = after;
	}
	assert_in_range(missed, 0, ROUNDS / 3);
	assert_in_range(hit, ROUNDS / 2, 4 * ROUNDS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(only_the_driver_is_looked_for, up, down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
