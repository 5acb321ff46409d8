/* tsan
 * Reactors: the same cases on every engine, and on io_uring without each feature that a kernel may
 * lack.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "vm/reactor-engine.h"
#include "vm/sandbox.h"

#define MANY 10000

static struct {
	const char *name;
	bool force_epoll;
	u32 poll_us;
	u32 refuse;
} mode;

static struct reactors *reactors;
static struct reactor *reactor;

static bool is_uring(void)
{
	return !mode.force_epoll;
}

static int make_with(void (*thread_start)(void *owner), void (*worker_start)(void *owner))
{
	const struct reactors_config config = { .count = 2,
						.max_files = 64,
						.force_epoll = mode.force_epoll,
						.poll_us = mode.poll_us,
						.refuse = mode.refuse,
						.thread_start = thread_start,
						.worker_start = worker_start };
	int error = reactors_create(&reactors, &config);

	if (!error)
		reactor = reactors_get(reactors, 1);
	return error;
}

static int setup(void **state)
{
	(void)state;
	return make_with(NULL, NULL);
}

static int teardown(void **state)
{
	(void)state;
	reactors_destroy(reactors);
	return 0;
}

static void start(void)
{
	assert_int_equal(reactors_start(reactors), 0);
	assert_string_equal(reactors_engine(reactors), is_uring() ? "io_uring" : "epoll");
}

/* Assertions of cmocka belong to the main thread: the reactor's thread only notes what it saw. */

static void call(void (*fn)(void *arg), void *arg)
{
	reactor_call(reactor, fn, arg);
}

static void nothing(void *arg)
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

static void request_done(struct reactor_op *op, s32 result)
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

static void request_init(struct request *request, enum reactor_code code, reactor_file file,
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

static void submit_batch(void *arg)
{
	struct batch *batch = arg;
	struct reactor_counts counts;

	reactor_counts(reactor, &counts);
	batch->enters = counts.enters;
	for (u32 i = 0; i < batch->count; i++)
		reactor_submit(reactor, &batch->requests[i].op);
}

static void cancel_batch(void *arg)
{
	struct batch *batch = arg;

	for (u32 i = 0; i < batch->count; i++)
		reactor_cancel(reactor, &batch->requests[i].op);
}

static void submit_and_cancel_batch(void *arg)
{
	submit_batch(arg);
	cancel_batch(arg);
}

static void await(sem_t *ended, u32 count)
{
	struct timespec limit;

	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 30;
	for (u32 i = 0; i < count; i++)
		while (sem_timedwait(ended, &limit) < 0)
			if (errno != EINTR)
				fail_msg("%s: %u of %u ended", mode.name, i, count);
}

static s32 run_one(struct request *request)
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

static int temporary(void)
{
	char path[] = "/tmp/reactor-test-XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	unlink(path);
	return fd;
}

/* ---- operations ---- */

static void test_file_operations(void **state)
{
	struct request request;
	int fd = temporary();
	reactor_file file = reactor_file_add(reactors, fd);
	struct iovec two[2];
	struct stat st;
	char bytes[8];

	(void)state;
	assert_true(file >= 0);
	start();
	request_init(&request, REACTOR_WRITEV, file, NULL);
	memcpy(request.buffer, "0123456789abcdef", 16);
	request.op.offset = 4096;
	request.op.flags = RWF_DSYNC;
	assert_int_equal(run_one(&request), 16);
	assert_int_equal(pread(fd, bytes, 8, 4100), 8);
	assert_memory_equal(bytes, "456789ab", 8);

	/* two buffers, past the end: a short read */
	request_init(&request, REACTOR_READV, file, NULL);
	two[0] = (struct iovec){ request.buffer, 3 };
	two[1] = (struct iovec){ request.buffer + 8, 8 };
	request.op.iov = two;
	request.op.iov_count = 2;
	request.op.offset = 4096 + 10;
	assert_int_equal(run_one(&request), 6);
	assert_memory_equal(request.buffer, "abc", 3);
	assert_memory_equal(request.buffer + 8, "def", 3);

	request_init(&request, REACTOR_FSYNC, file, NULL);
	request.op.flags = IORING_FSYNC_DATASYNC;
	assert_int_equal(run_one(&request), 0);

	request_init(&request, REACTOR_FALLOCATE, file, NULL);
	request.op.offset = 1 << 20;
	request.op.length = 1 << 20;
	assert_int_equal(run_one(&request), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 2 << 20);

	request_init(&request, REACTOR_FALLOCATE, file, NULL);
	request.op.length = 0;
	assert_int_equal(run_one(&request), -EINVAL);
	reactor_file_remove(reactors, file);
	close(fd);
}

/* N operations and as many interrupts cost one system call. */
static void signal_too(void *arg)
{
	submit_batch(arg);
	for (int i = 0; i < 5; i++)
		reactor_signal(reactor, ((struct batch *)arg)->requests[0].op.file + 1);
}

static void test_batch(void **state)
{
	struct request *requests = calloc(200, sizeof(*requests));
	struct batch batch = { .requests = requests, .count = 200 };
	int fd = temporary(), notify = eventfd(0, EFD_NONBLOCK);
	reactor_file file = reactor_file_add(reactors, fd);
	struct reactor_counts before, after;
	eventfd_t value;
	sem_t ended;

	(void)state;
	assert_int_equal(reactor_file_add(reactors, notify), file + 1);
	assert_int_equal(write(fd, "0123456789abcdef", 16), 16);
	sem_init(&ended, 0, 0);
	for (u32 i = 0; i < batch.count; i++)
		request_init(&requests[i], REACTOR_READV, file, &ended);
	start();
	call(nothing, NULL);
	usleep(20000); /* it waits now */
	reactor_counts(reactor, &before);
	call(signal_too, &batch);
	await(&ended, batch.count);
	call(nothing, NULL);
	reactor_counts(reactor, &after);
	for (u32 i = 0; i < batch.count; i++) {
		assert_int_equal(requests[i].result, 16);
		assert_memory_equal(requests[i].buffer, "0123456789abcdef", 16);
		if (is_uring())
			assert_int_equal(requests[i].enters, batch.enters + 1);
	}
	assert_int_equal(eventfd_read(notify, &value), 0);
	assert_int_equal(value, 5);
	assert_int_equal(after.operations - before.operations, batch.count);
	assert_int_equal(after.signals - before.signals, 5);
	sem_destroy(&ended);
	free(requests);
	close(fd);
	close(notify);
}

/* The wait that comes after interrupts is not ended by their completions. */
static void signal_five(void *arg)
{
	for (int i = 0; i < 5; i++)
		reactor_signal(reactor, *(reactor_file *)arg);
}

static void test_signals_do_not_wake(void **state)
{
	int notify = eventfd(0, EFD_NONBLOCK);
	reactor_file file = reactor_file_add(reactors, notify);
	struct reactor_counts before, after;
	eventfd_t value;

	(void)state;
	start();
	call(nothing, NULL);
	usleep(20000);
	reactor_counts(reactor, &before);
	for (int i = 0; i < 10; i++) {
		call(signal_five, &file);
		usleep(5000);
	}
	reactor_counts(reactor, &after);
	assert_int_equal(eventfd_read(notify, &value), 0);
	assert_int_equal(value, 50);
	/* one sweep for each call */
	assert_in_range(after.sweeps - before.sweeps, 10, 11);
	close(notify);
}

/* More than any queue of the kernel holds, nothing lost, each done once. */
static void test_overflow(void **state)
{
	struct request *requests = calloc(MANY, sizeof(*requests));
	struct batch batch = { .requests = requests, .count = MANY };
	int fd = temporary();
	reactor_file file = reactor_file_add(reactors, fd);
	sem_t ended;

	(void)state;
	assert_int_equal(ftruncate(fd, MANY * 16), 0);
	for (u64 i = 0; i < MANY; i++)
		assert_int_equal(pwrite(fd, &i, 8, (off_t)i * 16), 8);
	sem_init(&ended, 0, 0);
	for (u32 i = 0; i < MANY; i++) {
		request_init(&requests[i], REACTOR_READV, file, &ended);
		requests[i].op.offset = i * 16;
	}
	start();
	call(submit_batch, &batch);
	await(&ended, MANY);
	call(nothing, NULL);
	for (u64 i = 0; i < MANY; i++) {
		assert_int_equal(requests[i].result, 16);
		assert_int_equal(requests[i].calls, 1);
		assert_memory_equal(requests[i].buffer, &i, 8);
	}
	sem_destroy(&ended);
	free(requests);
	close(fd);
}

static void test_poll(void **state)
{
	struct request request;
	int fds[2];
	reactor_file file;

	(void)state;
	assert_int_equal(pipe2(fds, O_NONBLOCK), 0);
	file = reactor_file_add(reactors, fds[0]);
	start();
	request_init(&request, REACTOR_POLL, file, NULL);
	request.op.flags = POLLIN;
	assert_int_equal(write(fds[1], "x", 1), 1);
	assert_int_equal(run_one(&request) & POLLIN, POLLIN);
	close(fds[0]);
	close(fds[1]);
}

static void test_nonblocking(void **state)
{
	struct request request;
	int fds[2], pty, other;
	reactor_file file;

	(void)state;
	assert_int_equal(pipe2(fds, O_NONBLOCK), 0);
	file = reactor_file_add(reactors, fds[0]);
	start();
	for (int i = 0; i < 3; i++) {
		request_init(&request, REACTOR_READV, file, NULL);
		request.op.nonblocking = true;
		request.op.offset = (u64)-1;
		assert_int_equal(run_one(&request), -EAGAIN);
		assert_int_equal(write(fds[1], "abc", 3), 3);
		request_init(&request, REACTOR_READV, file, NULL);
		request.op.nonblocking = true;
		request.op.offset = (u64)-1;
		assert_int_equal(run_one(&request), 3);
		assert_memory_equal(request.buffer, "abc", 3);
	}
	/* terminals know no RWF_NOWAIT, as taps did not before Linux 6.4 */
	pty = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
	assert_true(pty >= 0 && !unlockpt(pty));
	other = open(ptsname(pty), O_RDWR | O_NOCTTY);
	assert_true(other >= 0);
	file = reactor_file_add(reactors, pty);
	for (int i = 0; i < 3; i++) {
		request_init(&request, REACTOR_READV, file, NULL);
		request.op.nonblocking = true;
		request.op.offset = (u64)-1;
		assert_int_equal(run_one(&request), -EAGAIN);
	}
	assert_int_equal(write(other, "abc", 3), 3);
	request_init(&request, REACTOR_READV, file, NULL);
	request.op.nonblocking = true;
	request.op.offset = (u64)-1;
	assert_int_equal(run_one(&request), 3);
	close(pty);
	close(other);
	close(fds[0]);
	close(fds[1]);
}

/* A file that is ready for writing does not keep a reactor busy that waits to read it. */
static void test_idle(void **state)
{
	struct request requests[2], fill;
	struct batch batch = { .requests = requests, .count = 2 };
	struct reactor_counts before, after;
	char big[4096] = {};
	reactor_file file;
	int fds[2];
	sem_t ended;

	(void)state;
	sem_init(&ended, 0, 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	file = reactor_file_add(reactors, fds[0]);
	start();
	do {
		request_init(&fill, REACTOR_WRITEV, file, NULL);
		fill.op.offset = (u64)-1;
		fill.op.nonblocking = true;
		fill.iov = (struct iovec){ big, sizeof(big) };
	} while (run_one(&fill) > 0);
	assert_int_equal(fill.result, -EAGAIN);
	request_init(&requests[0], REACTOR_WRITEV, file, &ended);
	request_init(&requests[1], REACTOR_READV, file, &ended);
	requests[0].op.offset = requests[1].op.offset = (u64)-1;
	call(submit_batch, &batch);
	call(nothing, NULL);
	while (read(fds[1], big, sizeof(big)) > 0)
		;
	await(&ended, 1);
	call(nothing, NULL);
	assert_int_equal(requests[0].result, 16);
	reactor_counts(reactor, &before);
	usleep(50000);
	reactor_counts(reactor, &after);
	assert_in_range(after.sweeps - before.sweeps, 0, 3);
	assert_int_equal(write(fds[1], "x", 1), 1);
	await(&ended, 1);
	assert_int_equal(requests[1].result, 1);
	sem_destroy(&ended);
	close(fds[0]);
	close(fds[1]);
}

static u32 worker_threads_of_kernel(void)
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

/* A read that has to wait does it in the ring: neither the reactor nor a kernel thread sits in it.
 */
static void test_waiting_read(void **state)
{
	struct request request;
	struct batch batch = { .requests = &request, .count = 1 };
	int fds[2];
	reactor_file in, out;
	sem_t ended;

	(void)state;
	sem_init(&ended, 0, 0);
	assert_int_equal(pipe2(fds, O_NONBLOCK), 0);
	in = reactor_file_add(reactors, fds[0]);
	out = reactor_file_add(reactors, fds[1]);
	start();
	for (int i = 0; i < 100; i++) {
		struct request other;

		request_init(&request, REACTOR_READV, in, &ended);
		request.op.offset = (u64)-1;
		call(submit_batch, &batch);
		call(nothing, NULL);
		assert_int_equal(request.calls, 0);
		request_init(&other, REACTOR_WRITEV, out, NULL);
		other.op.offset = (u64)-1;
		assert_int_equal(run_one(&other), 16);
		await(&ended, 1);
		assert_int_equal(request.result, 16);
	}
	assert_int_equal(worker_threads_of_kernel(), 0);
	sem_destroy(&ended);
	close(fds[0]);
	close(fds[1]);
}

/* ---- a real tap ---- */

struct tap_pair {
	int tap, sender, error;
};

/* In a network namespace that only these two descriptors keep. */
static void *make_tap(void *arg)
{
	struct tap_pair *pair = arg;
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI, .ifr_name = "test0" };
	struct sockaddr_ll address = { .sll_family = AF_PACKET };

	int quiet;

	pair->error = EPERM;
	if (unshare(CLONE_NEWNET))
		return NULL;
	/* or the kernel sends frames of its own */
	quiet = open("/proc/sys/net/ipv6/conf/default/disable_ipv6", O_WRONLY);
	if (quiet < 0 || write(quiet, "1", 1) != 1)
		return NULL;
	close(quiet);
	pair->tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (pair->tap < 0 || ioctl(pair->tap, TUNSETIFF, &ifr))
		return NULL;
	pair->sender = socket(AF_PACKET, SOCK_RAW, 0);
	ifr.ifr_flags = IFF_UP;
	if (pair->sender < 0 || ioctl(pair->sender, SIOCSIFFLAGS, &ifr) ||
	    ioctl(pair->sender, SIOCGIFINDEX, &ifr))
		return NULL;
	address.sll_ifindex = ifr.ifr_ifindex;
	if (!bind(pair->sender, (struct sockaddr *)&address, sizeof(address)))
		pair->error = 0;
	return NULL;
}

/* One waiting read, and when it ends a burst of those that do not wait: EAGAIN ends it, and no
 * frame of ours is lost or out of order. */
static void test_tap(void **state)
{
	struct request waiting, burst[8];
	struct batch batch = { .requests = &waiting, .count = 1 };
	struct tap_pair pair = { -1, -1, 0 };
	char frame[60] = "\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\1\x88\xb5";
	reactor_file file;
	pthread_t thread;
	sem_t ended;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, make_tap, &pair), 0);
	pthread_join(thread, NULL);
	if (pair.error) {
		print_message("no tap can be made here\n");
		skip();
	}
	file = reactor_file_add(reactors, pair.tap);
	start();
	sem_init(&ended, 0, 0);
	request_init(&waiting, REACTOR_READV, file, &ended);
	waiting.op.offset = (u64)-1;
	call(submit_batch, &batch);
	call(nothing, NULL);
	for (frame[14] = 1; frame[14] <= 4; frame[14]++)
		assert_int_equal(send(pair.sender, frame, sizeof(frame), 0), sizeof(frame));
	await(&ended, 1);
	batch = (struct batch){ .requests = burst, .count = 8 };
	for (int i = 0; i < 8; i++) {
		request_init(&burst[i], REACTOR_READV, file, &ended);
		burst[i].op.offset = (u64)-1;
		burst[i].op.nonblocking = true;
	}
	call(submit_batch, &batch);
	await(&ended, 8);
	call(nothing, NULL);
	assert_int_equal(waiting.buffer[14], 1);
	for (int i = 0; i < 8; i++) {
		assert_int_equal(burst[i].result, i < 3 ? 16 : -EAGAIN);
		if (i < 3)
			assert_int_equal(burst[i].buffer[14], 2 + i);
	}
	assert_int_equal(worker_threads_of_kernel(), 0);
	sem_destroy(&ended);
	close(pair.tap);
	close(pair.sender);
}

/* ---- cancelling ---- */

static void test_cancel(void **state)
{
	struct request *requests = calloc(MANY, sizeof(*requests));
	struct batch batch = { .requests = requests, .count = 2 };
	int fds[2];
	reactor_file file;
	sem_t ended;

	(void)state;
	sem_init(&ended, 0, 0);
	assert_int_equal(pipe2(fds, O_NONBLOCK), 0);
	file = reactor_file_add(reactors, fds[0]);
	start();
	for (u32 i = 0; i < MANY; i++) {
		request_init(&requests[i], i & 1 ? REACTOR_POLL : REACTOR_READV, file, &ended);
		requests[i].op.offset = (u64)-1;
		if (i & 1)
			requests[i].op.flags = POLLIN;
	}
	/* waiting in the kernel */
	call(submit_batch, &batch);
	call(nothing, NULL);
	call(cancel_batch, &batch);
	await(&ended, 2);
	/* not yet handed over, more of them than the kernel's queue takes */
	batch = (struct batch){ .requests = requests + 2, .count = 3000 };
	call(submit_and_cancel_batch, &batch);
	await(&ended, batch.count);
	/* waiting, more cancellations than it takes; and a second cancellation, and one of what
	 * never began */
	batch = (struct batch){ .requests = requests + 3002, .count = 3000 };
	call(submit_batch, &batch);
	for (int i = 0; i < 10; i++)
		call(nothing, NULL);
	batch.count = 3001;
	call(cancel_batch, &batch);
	call(cancel_batch, &batch);
	await(&ended, 3000);
	call(cancel_batch, &batch);
	call(nothing, NULL);
	for (u32 i = 0; i < 6002; i++) {
		assert_int_equal(requests[i].result, -ECANCELED);
		assert_int_equal(requests[i].calls, 1);
	}
	assert_int_equal(requests[6002].calls, 0);
	sem_destroy(&ended);
	free(requests);
	close(fds[0]);
	close(fds[1]);
}

/* Disk I/O that is under way ends as it will, and each once; what only waits for its turn may be
 * cancelled. */
static void test_cancel_disk(void **state)
{
	struct request *requests = calloc(300, sizeof(*requests));
	struct batch batch = { .requests = requests, .count = is_uring() ? 30 : 300 };
	int fd = temporary();
	reactor_file file = reactor_file_add(reactors, fd);
	u32 cancelled = 0;
	sem_t ended;

	(void)state;
	sem_init(&ended, 0, 0);
	for (u32 i = 0; i < batch.count; i++) {
		request_init(&requests[i], REACTOR_WRITEV, file, &ended);
		requests[i].op.offset = i * 4096;
		requests[i].op.flags = RWF_DSYNC;
	}
	start();
	call(submit_batch, &batch);
	call(cancel_batch, &batch);
	await(&ended, batch.count);
	call(nothing, NULL);
	for (u32 i = 0; i < batch.count; i++) {
		assert_int_equal(requests[i].calls, 1);
		cancelled += requests[i].result == -ECANCELED;
		assert_true(requests[i].result == -ECANCELED || requests[i].result == 16);
	}
	if (!is_uring())
		assert_true(cancelled > 0);
	sem_destroy(&ended);
	free(requests);
	close(fd);
}

/* ---- events ---- */

struct bell {
	struct reactor_event event;
	_Atomic u64 sum;
	u32 calls;
	bool once;
};

static void bell_fired(struct reactor_event *event)
{
	struct bell *bell = container_of(event, struct bell, event);

	bell->sum += event->count;
	bell->calls++;
	if (bell->once)
		reactor_event_remove(event);
}

static void bell_add(void *arg)
{
	reactor_event_add(reactor, &((struct bell *)arg)->event);
}

static void bell_remove(void *arg)
{
	reactor_event_remove(&((struct bell *)arg)->event);
}

static void bell_once(void *arg)
{
	((struct bell *)arg)->once = true;
}

/* What an owner may do as soon as it has removed an event. */
static void bell_discard(void *arg)
{
	struct bell *bell = *(struct bell **)arg;

	reactor_event_remove(&bell->event);
	eventfd_write(bell->event.fd, 1);
	close(bell->event.fd);
	free(bell);
}

/* Out with one, and the next gets its descriptor's number, all in one message. */
static void bell_replace(void *arg)
{
	struct bell *bell = arg;
	int old = bell->event.fd;

	reactor_event_remove(&bell->event);
	close(old);
	bell->event.fd = eventfd(0, EFD_NONBLOCK);
	if (bell->event.fd == old)
		reactor_event_add(reactor, &bell->event);
}

static void await_sum(struct bell *bell, u64 sum)
{
	for (int i = 0; i < 5000; i++) {
		call(nothing, NULL);
		if (bell->sum >= sum)
			break;
		usleep(1000);
	}
	assert_int_equal(bell->sum, sum);
}

static void test_events(void **state)
{
	struct bell before = { .event = { .fired = bell_fired, .fd = eventfd(0, EFD_NONBLOCK) } };
	struct bell never = before, later = before, *gone;
	struct reactor_counts counts;

	(void)state;
	later.event.fd = eventfd(0, EFD_NONBLOCK);
	never.event.fd = eventfd(3, EFD_NONBLOCK);
	assert_int_equal(reactor_event_add(reactor, &before.event), 0);
	assert_int_equal(reactor_event_add(reactor, &never.event), 0);
	reactor_event_remove(&never.event); /* before the start this thread may */
	start();
	call(bell_add, &later);
	for (int i = 0; i < 1000; i++) {
		eventfd_write(before.event.fd, 1);
		eventfd_write(later.event.fd, 2);
	}
	await_sum(&before, 1000);
	await_sum(&later, 2000);
	reactor_counts(reactor, &counts);
	assert_true(counts.events >= before.calls + later.calls);

	call(bell_remove, &before);
	eventfd_write(before.event.fd, 1);
	usleep(2000);
	call(nothing, NULL);
	assert_int_equal(before.sum, 1000);
	call(bell_remove, &before); /* again: nothing */
	call(bell_add, &before); /* it finds what came meanwhile, unless the read that was cancelled
				    took it */
	eventfd_write(before.event.fd, 1);
	for (int i = 0; i < 1000; i++) {
		call(nothing, NULL);
		if (before.sum >= 1001)
			break;
		usleep(1000);
	}
	assert_in_range(before.sum, 1001, 1002);

	call(bell_once, &later);
	eventfd_write(later.event.fd, 1);
	await_sum(&later, 2001);
	eventfd_write(later.event.fd, 1);
	usleep(2000);
	call(nothing, NULL);
	assert_int_equal(later.sum, 2001);
	assert_int_equal(never.calls, 0);

	/* removed, written to, closed, freed, with descriptor and file number taken by the next:
	 * 300 times in 64 numbers */
	for (int i = 0; i < 300; i++) {
		gone = calloc(1, sizeof(*gone));
		gone->event.fired = bell_fired;
		gone->event.fd = eventfd(0, EFD_NONBLOCK);
		call(bell_add, gone);
		assert_non_null(gone->event.wait);
		eventfd_write(gone->event.fd, 1);
		if (i & 1)
			await_sum(gone, 1);
		call(bell_discard, &gone);
	}
	call(bell_replace, &before);
	assert_non_null(before.event.wait);
	call(nothing, NULL);
	call(nothing, NULL);
	atomic_store(&before.sum, 0);
	eventfd_write(before.event.fd, 1);
	await_sum(&before, 1);
	call(bell_remove, &before);
	call(bell_remove, &later);
	assert_int_equal(worker_threads_of_kernel(), 0);
	close(before.event.fd);
	close(later.event.fd);
	close(never.event.fd);
}

/* ---- files that come and go while it runs ---- */

static void test_hotplug_files(void **state)
{
	struct request request;
	reactor_file files[70];
	int fd = temporary(), n = 0;

	(void)state;
	assert_int_equal(write(fd, "0123456789abcdef", 16), 16);
	assert_int_equal(reactor_file_add(reactors, -1), -EBADF);
	start();
	while (n < 70 && (files[n] = reactor_file_add(reactors, fd)) >= 0)
		n++;
	assert_int_equal(n, 64);
	assert_int_equal(files[64], -ENOSPC);
	request_init(&request, REACTOR_READV, files[63], NULL);
	assert_int_equal(run_one(&request), 16);
	for (int i = 0; i < n; i++)
		reactor_file_remove(reactors, files[i]);
	if (is_uring()) {
		request_init(&request, REACTOR_READV, files[63], NULL);
		assert_int_equal(run_one(&request), -EBADF);
	}
	files[0] = reactor_file_add(reactors, fd);
	request_init(&request, REACTOR_READV, files[0], NULL);
	assert_int_equal(run_one(&request), 16);
	close(fd);
}

/* ---- tasks ---- */

struct chain {
	struct reactor_task serve, flush, again;
	char order[32];
	u32 length;
	u64 sweeps[32];
	sem_t ended;
};

static void note(struct chain *chain, char what)
{
	struct reactor_counts counts;

	reactor_counts(reactor, &counts);
	chain->sweeps[chain->length] = counts.sweeps;
	chain->order[chain->length++] = what;
}

static void chain_serve(struct reactor_task *task)
{
	struct chain *chain = container_of(task, struct chain, serve);

	note(chain, 's');
	if (chain->length < 9)
		reactor_defer(reactor, REACTOR_FLUSH, &chain->flush);
	else
		sem_post(&chain->ended);
}

static void chain_flush(struct reactor_task *task)
{
	struct chain *chain = container_of(task, struct chain, flush);

	note(chain, 'f');
	reactor_defer(reactor, REACTOR_SERVE, &chain->serve);
	reactor_defer(reactor, REACTOR_FLUSH, &chain->again);
}

static void chain_again(struct reactor_task *task)
{
	note(container_of(task, struct chain, again), 'a');
}

static void chain_start(void *arg)
{
	struct chain *chain = arg;

	reactor_defer(reactor, REACTOR_FLUSH, &chain->again);
	reactor_defer(reactor, REACTOR_SERVE, &chain->serve);
	reactor_defer(reactor, REACTOR_SERVE, &chain->serve);
}

static void test_tasks(void **state)
{
	struct chain chain = { .serve = { .run = chain_serve },
			       .flush = { .run = chain_flush },
			       .again = { .run = chain_again } };

	(void)state;
	sem_init(&chain.ended, 0, 0);
	start();
	call(chain_start, &chain);
	await(&chain.ended, 1); /* hangs if a sweep waits with a task on its list */
	call(nothing, NULL);
	/* serve before flush within a sweep; what flush asks for comes with the next */
	assert_string_equal(chain.order, "safsafsafsa");
	assert_int_equal(chain.sweeps[0], chain.sweeps[2]);
	assert_int_equal(chain.sweeps[3], chain.sweeps[2] + 1);
	assert_int_equal(chain.sweeps[9], chain.sweeps[0] + 3);
	sem_destroy(&chain.ended);
}

/* ---- messages ---- */

#define SENDERS	 6
#define MESSAGES 3000

struct letter {
	struct reactor_message message;
	u32 sender, number;
};

static u32 received[SENDERS]; /* the reactor's thread alone */
static bool out_of_order;

static void letter_run(struct reactor_message *message)
{
	struct letter *letter = container_of(message, struct letter, message);

	out_of_order |= received[letter->sender]++ != letter->number;
}

static void *sender_main(void *arg)
{
	struct letter *letters = arg;

	for (u32 i = 0; i < MESSAGES; i++) {
		reactor_post(reactor, &letters[i].message);
		if (i % 100 == 0)
			call(nothing, NULL);
	}
	return NULL;
}

static void test_messages(void **state)
{
	struct letter *letters = calloc(SENDERS * MESSAGES, sizeof(*letters));
	pthread_t threads[SENDERS];

	(void)state;
	memset(received, 0, sizeof(received));
	out_of_order = false;
	for (u32 i = 0; i < SENDERS * MESSAGES; i++) {
		letters[i].message.run = letter_run;
		letters[i].sender = i / MESSAGES;
		letters[i].number = i % MESSAGES;
	}
	start();
	for (u32 i = 0; i < SENDERS; i++)
		assert_int_equal(
			pthread_create(&threads[i], NULL, sender_main, letters + i * MESSAGES), 0);
	for (u32 i = 0; i < SENDERS; i++)
		pthread_join(threads[i], NULL);
	call(nothing, NULL);
	for (u32 i = 0; i < SENDERS; i++)
		assert_int_equal(received[i], MESSAGES);
	assert_false(out_of_order);
	free(letters);
}

/* ---- what the ring refuses ---- */

static void submit_raw(void *arg)
{
	struct request *requests = arg;
	struct io_uring *ring = reactor->ring; /* its first member */
	struct io_uring_sqe *sqe;

	sqe = io_uring_get_sqe(ring);
	io_uring_prep_openat(sqe, AT_FDCWD, "/etc/passwd", O_RDONLY, 0);
	io_uring_sqe_set_data(sqe, &requests[0].op);
	sqe = io_uring_get_sqe(ring);
	io_uring_prep_write(sqe, requests[1].op.file, "not a registered file", 21, (u64)-1);
	io_uring_sqe_set_data(sqe, &requests[1].op);
	requests[2].result = io_uring_register((unsigned int)ring->ring_fd, IORING_REGISTER_EVENTFD,
					       &requests[2].result, 1);
}

static void test_restrictions(void **state)
{
	struct request requests[3];
	int null;
	sem_t ended;

	(void)state;
	if (!is_uring())
		return; /* nothing to restrict */
	null = open("/dev/null", O_WRONLY);
	sem_init(&ended, 0, 0);
	for (int i = 0; i < 3; i++)
		request_init(&requests[i], REACTOR_READV, null, &ended);
	start();
	call(submit_raw, requests);
	await(&ended, 2);
	call(nothing, NULL);
	assert_int_equal(requests[0].result, -EACCES);
	/* Where a cancellation cannot carry the flag, other operations are not forced to. */
	if (!(mode.refuse & REACTOR_REFUSE_SPARSE))
		assert_int_equal(requests[1].result, -EACCES);
	assert_int_equal(requests[2].result, -EACCES);
	close(null);
	sem_destroy(&ended);
}

/* ---- in the sandbox, and without io_uring; each in a child ---- */

static void enter_reactor(void *owner)
{
	(void)owner;
	if (sandbox_enter(SANDBOX_REACTOR))
		_exit(97);
}

static void enter_worker(void *owner)
{
	(void)owner;
	if (sandbox_enter(SANDBOX_WORKER))
		_exit(97);
}

static void live_in_sandbox(void)
{
	struct bell bell = { .event = { .fired = bell_fired, .fd = eventfd(0, EFD_NONBLOCK) } };
	struct request request;
	int fd = temporary();
	reactor_file file;

	if (make_with(enter_reactor, enter_worker))
		_exit(1);
	file = reactor_file_add(reactors, fd);
	if (sandbox_prepare() || reactors_start(reactors) || sandbox_enter(SANDBOX_MAIN))
		_exit(2);
	for (int i = 0; i < 10; i++) {
		request_init(&request, REACTOR_WRITEV, file, NULL);
		request.op.offset = (u64)i * 16;
		if (run_one(&request) != 16)
			_exit(3);
	}
	request_init(&request, REACTOR_FSYNC, file, NULL);
	if (run_one(&request))
		_exit(4);
	call(bell_add, &bell);
	eventfd_write(bell.event.fd, 1);
	for (int i = 0; i < 5000; i++) {
		call(nothing, NULL);
		if (bell.sum)
			break;
		usleep(1000);
	}
	if (bell.sum != 1)
		_exit(5);
	call(bell_remove, &bell);
	reactors_destroy(reactors);
}

static char said[4096];

static int child(void (*fn)(void))
{
	int out[2], status;
	size_t length = 0;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe(out), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		dup2(out[1], STDERR_FILENO);
		close(out[0]);
		alarm(60);
		fn();
		_exit(42);
	}
	close(out[1]);
	while ((n = read(out[0], said + length, sizeof(said) - 1 - length)) > 0)
		length += (size_t)n;
	said[length] = '\0';
	close(out[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void test_sandbox(void **state)
{
	int status;

	(void)state;
	status = child(live_in_sandbox);
	if (status != 42)
		fail_msg("%s: status %d: %s", mode.name, status, said);
}

static void live_without_io_uring(void)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

	if (seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(io_uring_setup), 0) ||
	    seccomp_load(filter))
		_exit(1);
	seccomp_release(filter);
	if (make_with(NULL, NULL) || strcmp(reactors_engine(reactors), "epoll") ||
	    reactors_start(reactors))
		_exit(2);
	call(nothing, NULL);
	reactors_destroy(reactors);
}

static void test_denied(void **state)
{
	int status;

	(void)state;
	if (!is_uring()) {
		print_message("no io_uring here\n");
		skip();
	}
	status = child(live_without_io_uring);
	if (status != 42)
		fail_msg("status %d: %s", status, said);
	assert_string_equal(
		said, "vmm: io_uring: not permitted here (Operation not permitted); using epoll "
		      "and worker threads\n");
}

static void test_create_errors(void **state)
{
	struct reactors_config config = { .count = 0 };
	struct reactors *none = NULL;

	(void)state;
	assert_int_equal(reactors_create(&none, &config), -EINVAL);
	config.count = 65;
	assert_int_equal(reactors_create(&none, &config), -EINVAL);
	assert_null(none);
	/* never started: all is freed (LeakSanitizer looks) */
	assert_int_equal(make_with(NULL, NULL), 0);
	assert_int_equal(reactors_count(reactors), 2);
	reactors_destroy(reactors);
	reactors_destroy(NULL);
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	static const struct {
		const char *name;
		bool force_epoll;
		u32 refuse;
		u32 poll_us;
	} modes[] = {
		{ "io_uring", false, 0, 0 },
		{ "io_uring without DEFER_TASKRUN", false, REACTOR_REFUSE_DEFER_TASKRUN, 0 },
		{ "io_uring without SINGLE_ISSUER", false, REACTOR_REFUSE_SINGLE_ISSUER, 0 },
		{ "io_uring without COOP_TASKRUN", false, REACTOR_REFUSE_COOP_TASKRUN, 0 },
		{ "io_uring without SUBMIT_ALL", false, REACTOR_REFUSE_SUBMIT_ALL, 0 },
		{ "io_uring without CQE_SKIP", false, REACTOR_REFUSE_CQE_SKIP, 0 },
		{ "io_uring without sparse tables", false, REACTOR_REFUSE_SPARSE, 0 },
		{ "io_uring without registered rings", false, REACTOR_REFUSE_RING_FD, 0 },
		{ "io_uring without NOWAIT", false, REACTOR_REFUSE_NOWAIT, 0 },
		{ "io_uring without anything", false, REACTOR_REFUSE_ALL, 0 },
		{ "io_uring, busy-polling", false, 0, 1000 },
		{ "io_uring without anything, busy-polling", false, REACTOR_REFUSE_ALL, 1000 },
		{ "epoll", true, 0, 0 },
	};
	const struct CMUnitTest once[] = {
		cmocka_unit_test(test_create_errors),
		cmocka_unit_test(test_denied),
	};
	const struct CMUnitTest each[] = {
		cmocka_unit_test(test_sandbox),
		EACH(test_file_operations),
		EACH(test_batch),
		EACH(test_signals_do_not_wake),
		EACH(test_overflow),
		EACH(test_poll),
		EACH(test_nonblocking),
		EACH(test_idle),
		EACH(test_waiting_read),
		EACH(test_tap),
		EACH(test_cancel),
		EACH(test_cancel_disk),
		EACH(test_events),
		EACH(test_hotplug_files),
		EACH(test_tasks),
		EACH(test_messages),
		EACH(test_restrictions),
	};
	int failed;

	mode.name = modes[0].name;
	failed = cmocka_run_group_tests(once, NULL, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		mode.name = modes[i].name;
		mode.force_epoll = modes[i].force_epoll;
		mode.refuse = modes[i].refuse;
		mode.poll_us = modes[i].poll_us;
		failed += cmocka_run_group_tests_name(modes[i].name, each, NULL, NULL);
	}
	return failed;
}
