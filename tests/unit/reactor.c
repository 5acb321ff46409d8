/* tsan
 * Reactors: operations, from their submission to their end or cancellation; the same cases in every
 * mode.
 */
#include "tests/unit/reactor-fixture.h"
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

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
		if (is_uring() && !mode.sqpoll)
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

	(void)state;
	start();
	call(nothing, NULL);
	usleep(20000);
	reactor_counts(reactor, &before);
	for (int i = 0; i < 10; i++) {
		eventfd_t value, sum = 0;

		call(signal_five, &file);
		/* the sweep goes on to submit them after the call has returned */
		while (sum < 5)
			if (eventfd_read(notify, &value))
				usleep(1000);
			else
				sum += value;
		assert_int_equal(sum, 5);
		usleep(5000); /* until it sleeps: a call that comes before is none of its own */
	}
	reactor_counts(reactor, &after);
	/* one sweep for each call, and one for interrupts that cannot be silent where they are seen
	 */
	assert_in_range(after.sweeps - before.sweeps, 10,
			mode.refuse & REACTOR_REFUSE_CQE_SKIP && mode.poll_us ? 21 : 11);
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
	await_no_worker_threads();
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

/* ---- a file for the second ring ---- */

/* The kernel may find only now that there is nothing to poll (here: no disk of this machine); then
 * the operation, and all after it, go the usual way and nobody notices. */
static void test_iopoll(void **state)
{
	struct request requests[40];
	struct batch batch = { .requests = requests, .count = ARRAY_SIZE(requests) };
	char path[] = "/tmp/reactor-test-XXXXXX";
	int fd = mkostemp(path, O_DIRECT);
	struct reactor_counts counts;
	reactor_file file;
	u8 *pages = NULL;
	sem_t ended;

	(void)state;
	unlink(path);
	if (fd < 0) {
		print_message("/tmp takes no O_DIRECT\n");
		skip();
	}
	assert_int_equal(posix_memalign((void **)&pages, 4096, 4096 * batch.count), 0);
	file = reactor_file_add(reactors, fd);
	assert_int_equal(reactor_file_iopoll(reactors, file, "test"), is_uring() ? 0 : -EOPNOTSUPP);
	sem_init(&ended, 0, 0);
	start();
	for (u32 round = 0; round < 4; round++) {
		bool write = round % 2 == 0;

		for (u32 i = 0; i < batch.count; i++) {
			request_init(&requests[i], write ? REACTOR_WRITEV : REACTOR_READV, file,
				     &ended);
			requests[i].iov = (struct iovec){ pages + 4096 * i, 4096 };
			requests[i].op.offset = 4096 * i;
			memset(pages + 4096 * i, write ? (int)(round + i) : 0, 4096);
		}
		call(submit_batch, &batch);
		await(&ended, batch.count);
		call(nothing, NULL);
		for (u32 i = 0; i < batch.count; i++) {
			assert_int_equal(requests[i].result, 4096);
			assert_int_equal(requests[i].calls, 1);
			assert_int_equal(pages[4096 * i + 4095], (u8)(round - !write + i));
		}
	}
	/* Either all were polled for, or it is known that they cannot be. */
	reactor_counts(reactor, &counts);
	if (atomic_load(&reactors->iopolled[file]))
		assert_int_equal(counts.polled, 4 * batch.count);
	sem_destroy(&ended);
	free(pages);
	close(fd);
}

/* ---- who submits ---- */

#define CHAINS 4
#define LINKS  2000

/* Reads one after the other: each, when it has ended, is submitted again. */
struct chain {
	struct reactor_op op;
	struct iovec iov;
	char buffer[16];
	u32 left;
	sem_t *ended;
};

static void chain_done(struct reactor_op *op, s32 result)
{
	struct chain *chain = container_of(op, struct chain, op);

	if (result == sizeof(chain->buffer) && --chain->left)
		reactor_submit(reactor, op);
	else
		sem_post(chain->ended);
}

static void chains_begin(void *arg)
{
	struct chain *chains = arg;

	for (u32 i = 0; i < CHAINS; i++) {
		chains[i].left = LINKS;
		reactor_submit(reactor, &chains[i].op);
	}
}

/* With sqpoll a reactor that busy-polls submits without a system call; without, each sweep is one.
 * Where other processes take the CPU from the kernel's thread it sleeps and must be woken, so
 * several tries are allowed. */
static void test_enters(void **state)
{
	struct chain chains[CHAINS] = {};
	int fd = temporary();
	reactor_file file = reactor_file_add(reactors, fd);
	struct reactor_counts before, after;
	sem_t ended;

	(void)state;
	if (!is_uring() || !mode.poll_us)
		return;
	assert_int_equal(ftruncate(fd, 16), 0);
	sem_init(&ended, 0, 0);
	for (u32 i = 0; i < CHAINS; i++) {
		chains[i].iov = (struct iovec){ chains[i].buffer, sizeof(chains[i].buffer) };
		chains[i].ended = &ended;
		chains[i].op = (struct reactor_op){ .done = chain_done,
						    .code = REACTOR_READV,
						    .file = file,
						    .iov = &chains[i].iov,
						    .iov_count = 1 };
	}
	start();
	for (u32 try = 0;; try++) {
		reactor_counts(reactor, &before);
		call(chains_begin, chains);
		await(&ended, CHAINS);
		call(nothing, NULL);
		reactor_counts(reactor, &after);
		after.sweeps -= before.sweeps;
		after.enters -= before.enters;
		for (u32 i = 0; i < CHAINS; i++)
			assert_int_equal(chains[i].left, 0);
		if (!mode.sqpoll) {
			assert_true(after.enters * 10 > after.sweeps * 9);
			break;
		}
		if (after.enters < after.sweeps / 4)
			break;
		if (try == 20)
			fail_msg("%llu enters in %llu sweeps", (unsigned long long)after.enters,
				 (unsigned long long)after.sweeps);
	}
	sem_destroy(&ended);
	close(fd);
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
	await_no_worker_threads();
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		EACH(test_file_operations),
		EACH(test_batch),
		EACH(test_signals_do_not_wake),
		EACH(test_overflow),
		EACH(test_poll),
		EACH(test_nonblocking),
		EACH(test_idle),
		EACH(test_waiting_read),
		EACH(test_iopoll),
		EACH(test_enters),
		EACH(test_tap),
		EACH(test_cancel),
		EACH(test_cancel_disk),
	};

	return in_each_mode(tests);
}
