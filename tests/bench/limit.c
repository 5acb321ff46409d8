/*
 * The limit: random 4 KiB requests as one thread of the host itself makes them on the same file,
 * without any machine around. What a VMM can reach at most.
 *
 *   limit FILE randread|randwrite DEPTH MS cached|direct uring|plain|sync|writer
 *
 * uring: one io_uring with registered file and buffers, one system call a batch. plain: the same
 * without registered buffers, which a guest's RAM is not. sync: preadv2 and
 * pwritev2, one request each. writer: what `sync` does, by a second thread, to which the first
 * hands its requests as an event thread could: each tells the other by an eventfd, once a batch,
 * and looks at its own side of the ring before it sleeps. Prints RESULT ops=N us=N p50_ns=N
 * p99_ns=N.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define BYTES	  4096u
#define DEPTH_MAX 256u
#define BUCKETS	  1000000u /* of 10 ns */

static struct iovec parts[DEPTH_MAX];
static uint64_t started[DEPTH_MAX];
static uint32_t *histogram;
static uint64_t blocks, randomness = 88172645463325252ull;
static int fd;
static int writes, plain;

static void die(const char *what, int err)
{
	fprintf(stderr, "limit: %s: %s\n", what, strerror(err));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static off_t somewhere(void)
{
	randomness ^= randomness << 13;
	randomness ^= randomness >> 7;
	randomness ^= randomness << 17;
	return (off_t)(randomness % blocks * BYTES);
}

static void count(uint64_t ns)
{
	uint64_t b = ns / 10;

	histogram[b < BUCKETS ? b : BUCKETS - 1]++;
}

static uint64_t percentile(uint64_t total, uint64_t percent)
{
	uint64_t seen = 0;

	for (uint32_t b = 0; b < BUCKETS; b++) {
		seen += histogram[b];
		if (seen * 100 >= total * percent)
			return (uint64_t)b * 10;
	}
	return 0;
}

static void add(struct io_uring *ring, uint32_t i, uint64_t t)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

	if (plain && writes)
		io_uring_prep_write(sqe, 0, parts[i].iov_base, BYTES, (__u64)somewhere());
	else if (plain)
		io_uring_prep_read(sqe, 0, parts[i].iov_base, BYTES, (__u64)somewhere());
	else if (writes)
		io_uring_prep_write_fixed(sqe, 0, parts[i].iov_base, BYTES, (__u64)somewhere(),
					  (int)i);
	else
		io_uring_prep_read_fixed(sqe, 0, parts[i].iov_base, BYTES, (__u64)somewhere(),
					 (int)i);
	sqe->flags |= IOSQE_FIXED_FILE;
	sqe->user_data = i;
	started[i] = t;
}

static uint64_t run_uring(uint32_t depth, uint64_t end)
{
	struct io_uring_params params = { .flags = IORING_SETUP_SINGLE_ISSUER |
						   IORING_SETUP_DEFER_TASKRUN };
	struct io_uring ring;
	uint64_t done = 0, t = now_ns();
	int err = io_uring_queue_init_params(DEPTH_MAX, &ring, &params);

	if (err) {
		params = (struct io_uring_params){ 0 };
		err = io_uring_queue_init_params(DEPTH_MAX, &ring, &params);
	}
	if (err)
		die("io_uring", -err);
	io_uring_register_ring_fd(&ring);
	err = io_uring_register_files(&ring, &fd, 1);
	if (!err && !plain)
		err = io_uring_register_buffers(&ring, parts, depth);
	if (err)
		die("registering", -err);
	for (uint32_t i = 0; i < depth; i++)
		add(&ring, i, t);
	while (t < end) {
		struct io_uring_cqe *cqe;
		unsigned int head, n = 0;

		io_uring_submit_and_wait(&ring, 1);
		t = now_ns();
		io_uring_for_each_cqe(&ring, head, cqe)
		{
			uint32_t i = (uint32_t)cqe->user_data;

			if (cqe->res != (int)BYTES)
				die("a request", cqe->res < 0 ? -cqe->res : EIO);
			count(t - started[i]);
			add(&ring, i, t);
			n++;
		}
		io_uring_cq_advance(&ring, n);
		done += n;
	}
	return done;
}

static uint64_t run_sync(uint64_t end)
{
	uint64_t done = 0, t = now_ns();

	while (t < end) {
		uint64_t before = t;
		ssize_t n = writes ? pwritev2(fd, parts, 1, somewhere(), 0)
				   : preadv2(fd, parts, 1, somewhere(), 0);

		if (n != BYTES)
			die("a request", n < 0 ? errno : EIO);
		t = now_ns();
		count(t - before);
		done++;
	}
	return done;
}

/* ---- a thread that writes for another ---- */

static struct {
	_Atomic uint64_t wanted, done; /* requests, since the start; free running */
	int wanted_fd, done_fd;
	off_t at[DEPTH_MAX];
} hand;

static void wake(int event)
{
	uint64_t one = 1;

	if (write(event, &one, sizeof(one)) != sizeof(one))
		die("eventfd", errno);
}

static void sleep_on(int event)
{
	uint64_t n;

	if (read(event, &n, sizeof(n)) != sizeof(n))
		die("eventfd", errno);
}

static void *writer(void *arg)
{
	uint64_t done = 0, wanted;

	(void)arg;
	for (;;) {
		while ((wanted = atomic_load(&hand.wanted)) == done)
			sleep_on(hand.wanted_fd);
		for (; done < wanted; atomic_store(&hand.done, ++done)) {
			uint64_t i = done % DEPTH_MAX;
			ssize_t n = writes ? pwritev2(fd, parts, 1, hand.at[i], 0)
					   : preadv2(fd, parts, 1, hand.at[i], 0);

			if (n != BYTES)
				die("a request", n < 0 ? errno : EIO);
		}
		wake(hand.done_fd);
	}
	return NULL;
}

static uint64_t run_writer(uint32_t depth, uint64_t end)
{
	uint64_t seen = 0, wanted = 0, t = now_ns();
	pthread_t thread;

	hand.wanted_fd = eventfd(0, EFD_CLOEXEC);
	hand.done_fd = eventfd(0, EFD_CLOEXEC);
	if (hand.wanted_fd < 0 || hand.done_fd < 0 || pthread_create(&thread, NULL, writer, NULL))
		die("a thread", errno);
	while (t < end) {
		uint64_t before = wanted, done;

		for (; wanted - seen < depth; wanted++) {
			hand.at[wanted % DEPTH_MAX] = somewhere();
			started[wanted % DEPTH_MAX] = t;
		}
		atomic_store(&hand.wanted, wanted);
		if (wanted != before)
			wake(hand.wanted_fd);
		while ((done = atomic_load(&hand.done)) == seen)
			sleep_on(hand.done_fd);
		t = now_ns();
		for (; seen < done; seen++)
			count(t - started[seen % DEPTH_MAX]);
	}
	return seen;
}

int main(int argc, char **argv)
{
	uint32_t depth;
	struct stat st;
	uint64_t start, done, ms;

	if (argc != 7) {
		fprintf(stderr, "usage: limit FILE randread|randwrite DEPTH MS cached|direct "
				"uring|plain|sync|writer\n");
		return 2;
	}
	writes = !strcmp(argv[2], "randwrite");
	depth = (uint32_t)strtoul(argv[3], NULL, 10);
	ms = strtoull(argv[4], NULL, 10);
	fd = open(argv[1], O_RDWR | O_CLOEXEC | (strcmp(argv[5], "direct") ? 0 : O_DIRECT));
	if (fd < 0 || fstat(fd, &st))
		die(argv[1], errno);
	blocks = (uint64_t)st.st_size / BYTES;
	histogram = calloc(BUCKETS, sizeof(*histogram));
	if (!depth || depth > DEPTH_MAX || !blocks || !histogram)
		die("depth or file", EINVAL);
	for (uint32_t i = 0; i < depth; i++)
		parts[i] = (struct iovec){ aligned_alloc(4096, BYTES), BYTES };
	start = now_ns();
	plain = !strcmp(argv[6], "plain");
	if (plain || !strcmp(argv[6], "uring"))
		done = run_uring(depth, start + ms * 1000000);
	else if (!strcmp(argv[6], "writer"))
		done = run_writer(depth, start + ms * 1000000);
	else
		done = run_sync(start + ms * 1000000);
	printf("RESULT ops=%llu us=%llu p50_ns=%llu p99_ns=%llu\n", (unsigned long long)done,
	       (unsigned long long)(now_ns() - start) / 1000,
	       (unsigned long long)percentile(done, 50), (unsigned long long)percentile(done, 99));
	return 0;
}
