/*
 * Reactors for tests, on every engine, and on io_uring without each feature that a kernel may lack:
 * operations with a place for their result, events that count, and the list of modes.
 *
 * Assertions of cmocka belong to the main thread: the reactor's thread only notes what it saw.
 */
#ifndef TESTS_UNIT_REACTOR_FIXTURE_H
#define TESTS_UNIT_REACTOR_FIXTURE_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "tests/unit/reactor-modes.h"
#include "vm/reactor-engine.h"

#define MANY 10000

static struct reactor_mode mode;

static struct reactors *reactors;
static struct reactor *reactor;

static inline bool is_uring(void)
{
	return !mode.force_epoll;
}

static inline int make_with(void (*thread_start)(void *owner), void (*worker_start)(void *owner))
{
	const struct reactors_config config = { .count = 2,
						.max_files = 64,
						.force_epoll = mode.force_epoll,
						.poll_us = mode.poll_us,
						.sqpoll = mode.sqpoll,
						.iopoll = true,
						.refuse = mode.refuse,
						.thread_start = thread_start,
						.worker_start = worker_start };
	int error = reactors_create(&reactors, &config);

	if (!error)
		reactor = reactors_get(reactors, 1);
	return error;
}

static inline int setup(void **state)
{
	(void)state;
	return make_with(NULL, NULL);
}

static inline int teardown(void **state)
{
	(void)state;
	reactors_destroy(reactors);
	return 0;
}

static inline void start(void)
{
	assert_int_equal(reactors_start(reactors), 0);
	assert_string_equal(reactors_engine(reactors), is_uring() ? "io_uring" : "epoll");
}

static inline void call(void (*fn)(void *arg), void *arg)
{
	reactor_call(reactor, fn, arg);
}

static inline void nothing(void *arg)
{
	(void)arg;
}

/* An operation with a place for its result. */
struct request {
	struct reactor_op op;
	struct iovec iov;
	char buffer[16];
	s32 result;
	u32 calls;
	u64 enters; /* of the reactor at done() */
	sem_t *ended;
};

static inline void request_done(struct reactor_op *op, s32 result)
{
	struct request *request = container_of(op, struct request, op);
	struct reactor_counts counts;

	reactor_counts(reactor, &counts);
	request->enters = counts.enters;
	request->result = result;
	request->calls++;
	if (request->ended)
		sem_post(request->ended);
}

static inline void request_init(struct request *request, enum reactor_code code, reactor_file file,
				sem_t *ended)
{
	*request = (struct request){ .ended = ended };
	request->iov = (struct iovec){ request->buffer, sizeof(request->buffer) };
	request->op = (struct reactor_op){ .done = request_done,
					   .code = code,
					   .file = file,
					   .iov = &request->iov,
					   .iov_count = 1 };
}

struct batch {
	struct request *requests;
	u32 count;
	u64 enters;
};

static inline void submit_batch(void *arg)
{
	struct batch *batch = arg;
	struct reactor_counts counts;

	reactor_counts(reactor, &counts);
	batch->enters = counts.enters;
	for (u32 i = 0; i < batch->count; i++)
		reactor_submit(reactor, &batch->requests[i].op);
}

static inline void cancel_batch(void *arg)
{
	struct batch *batch = arg;

	for (u32 i = 0; i < batch->count; i++)
		reactor_cancel(reactor, &batch->requests[i].op);
}

static inline void submit_and_cancel_batch(void *arg)
{
	submit_batch(arg);
	cancel_batch(arg);
}

static inline void await(sem_t *ended, u32 count)
{
	struct timespec limit;

	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 30;
	for (u32 i = 0; i < count; i++)
		while (sem_timedwait(ended, &limit) < 0)
			if (errno != EINTR)
				fail_msg("%s: %u of %u ended", mode.name, i, count);
}

static inline s32 run_one(struct request *request)
{
	struct batch batch = { .requests = request, .count = 1 };
	sem_t ended;

	sem_init(&ended, 0, 0);
	request->ended = &ended;
	call(submit_batch, &batch);
	await(&ended, 1);
	call(nothing, NULL);
	sem_destroy(&ended);
	return request->result;
}

static inline int temporary(void)
{
	char path[] = "/tmp/reactor-test-XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	unlink(path);
	return fd;
}

static inline u32 worker_threads_of_kernel(void)
{
	DIR *dir = opendir("/proc/self/task");
	struct dirent *entry;
	u32 count = 0;

	while ((entry = readdir(dir))) {
		char path[300], comm[32] = "";
		FILE *file;

		snprintf(path, sizeof(path), "/proc/self/task/%s/comm", entry->d_name);
		file = fopen(path, "r");
		if (!file)
			continue;
		if (fgets(comm, sizeof(comm), file))
			count += !strncmp(comm, "iou-wrk", 7);
		fclose(file);
	}
	closedir(dir);
	return count;
}

/* Those of the test before may be on their way out still. */
static inline void await_no_worker_threads(void)
{
	for (int i = 0; worker_threads_of_kernel() && i < 5000; i++)
		usleep(1000);
}

/* A read that has to wait does it in the ring: neither the reactor nor a kernel thread sits in it.
 */
/* ---- events ---- */

struct bell {
	struct reactor_event event;
	_Atomic u64 sum;
	u32 calls;
	bool once;
};

static inline void bell_fired(struct reactor_event *event)
{
	struct bell *bell = container_of(event, struct bell, event);

	bell->sum += event->count;
	bell->calls++;
	if (bell->once)
		reactor_event_remove(event);
}

static inline void bell_add(void *arg)
{
	reactor_event_add(reactor, &((struct bell *)arg)->event);
}

static inline void bell_remove(void *arg)
{
	reactor_event_remove(&((struct bell *)arg)->event);
}

static inline void bell_once(void *arg)
{
	((struct bell *)arg)->once = true;
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

/* Runs the tests in each mode. Returns how many failed. */
#define in_each_mode(tests)                                                                   \
	({                                                                                    \
		int failed_ = 0;                                                              \
                                                                                              \
		for (size_t i_ = 0; i_ < ARRAY_SIZE(reactor_modes); i_++) {                   \
			mode = reactor_modes[i_];                                             \
			failed_ += cmocka_run_group_tests_name(mode.name, tests, NULL, NULL); \
		}                                                                             \
		failed_;                                                                      \
	})

#endif
