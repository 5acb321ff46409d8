/* tsan
 * Writes into the page cache that a reactor does itself: when it does, and when the engine gets
 * them. Counted; what counts for how much of memory is dirty is a file of the test's own.
 */
#include "tests/unit/reactor-fixture.h"
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define PAGE  4096u
#define COUNT 64u

static char vmstat[] = "/tmp/reactor-vmstat-XXXXXX";
static int vmstat_fd;
static int file_fd;
static reactor_file file;
static sem_t ended;
static char *pages; /* COUNT of them */
static struct request requests[COUNT];
static u64 slow_ns;

/* dirty pages, of 1000 to 3000 from which on writers are slowed down */
static void set_dirty(u32 dirty)
{
	char text[200];
	int n = snprintf(text, sizeof(text),
			 "nr_free_pages 1\nnr_dirty %u\nnr_writeback 10\nnr_dirtied 77777777\n"
			 "nr_dirty_threshold 3000000\nnr_dirty_background_threshold 1000000\n",
			 dirty);

	assert_int_equal(ftruncate(vmstat_fd, 0), 0);
	assert_int_equal(pwrite(vmstat_fd, text, (size_t)n, 0), n);
}

static int make(void **state)
{
	const struct reactors_config config = { .count = 2,
						.max_files = 64,
						.force_epoll = mode.force_epoll,
						.refuse = mode.refuse,
						.poll_us = mode.poll_us,
						.vmstat = vmstat,
						.slow_ns = slow_ns };

	(void)state;
	vmstat_fd = mkstemp(vmstat);
	assert_true(vmstat_fd >= 0);
	set_dirty(0);
	file_fd = memfd_create("disk", 0);
	sem_init(&ended, 0, 0);
	pages = mmap(NULL, COUNT * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		     0);
	assert_int_equal(reactors_create(&reactors, &config), 0);
	reactor = reactors_get(reactors, 1);
	file = reactor_file_add(reactors, file_fd);
	start();
	return 0;
}

/* On a busy machine any write may take long. */
static int make_untimed(void **state)
{
	int ret;

	slow_ns = ~0ull;
	ret = make(state);
	slow_ns = 0;
	return ret;
}

static int unmake(void **state)
{
	(void)state;
	reactors_destroy(reactors);
	munmap(pages, COUNT * PAGE);
	sem_destroy(&ended);
	close(file_fd);
	close(vmstat_fd);
	unlink(vmstat);
	memcpy(vmstat + sizeof(vmstat) - 7, "XXXXXX", 6);
	return 0;
}

/* Writes of a page each, `first` and after it, with bytes of `fill`. */
static struct batch writes(u32 first, u32 count, char fill)
{
	for (u32 i = first; i < first + count; i++) {
		struct request *request = &requests[i];

		request_init(request, REACTOR_WRITEV, file, &ended);
		memset(pages + i * PAGE, fill, PAGE);
		request->iov = (struct iovec){ pages + i * PAGE, PAGE };
		request->op.offset = i * PAGE;
		request->op.buffered = true;
	}
	return (struct batch){ .requests = &requests[first], .count = count };
}

static void run(struct batch batch, s32 result)
{
	call(submit_batch, &batch);
	await(&ended, batch.count);
	call(nothing, NULL);
	for (u32 i = 0; i < batch.count; i++) {
		assert_int_equal(batch.requests[i].calls, 1);
		assert_int_equal(batch.requests[i].result, result);
	}
}

static void expect_file(char fill)
{
	static char got[COUNT * PAGE];

	assert_int_equal(pread(file_fd, got, sizeof(got), 0), sizeof(got));
	for (u32 i = 0; i < sizeof(got); i++)
		assert_int_equal(got[i], fill);
}

static void expect_counts(u64 here, u64 handed)
{
	struct reactor_counts counts;

	reactor_counts(reactor, &counts);
	assert_int_equal(counts.writes_here, here);
	assert_int_equal(counts.writes_handed, handed);
}

/* A file whose system never makes such a write wait goes another way. */
static bool waits(void)
{
	struct iovec iov = { pages, PAGE };

	if (pwritev2(file_fd, &iov, 1, 0, RWF_NOWAIT) < 0)
		return true;
	print_message("skip: this kernel's tmpfs writes without waiting\n");
	return false;
}

static void done_here(void **state)
{
	(void)state;
	if (!waits())
		skip();
	for (char fill = 'a'; fill < 'd'; fill++) {
		run(writes(0, COUNT, fill), PAGE);
		expect_file(fill);
	}
	expect_counts(3 * COUNT, 0);
	assert_int_equal(worker_threads_of_kernel(), 0);
}

static void much_is_dirty(void **state)
{
	(void)state;
	if (!waits())
		skip();
	set_dirty(1900000);
	run(writes(0, COUNT, 'a'), PAGE);
	expect_file('a');
	expect_counts(0, COUNT);
	set_dirty(500000);
	usleep(20000); /* it is not looked at all the time */
	run(writes(0, COUNT, 'b'), PAGE);
	expect_file('b');
	expect_counts(COUNT, COUNT);
}

static void nothing_is_known(void **state)
{
	(void)state;
	assert_int_equal(ftruncate(vmstat_fd, 0), 0);
	run(writes(0, COUNT, 'a'), PAGE);
	expect_file('a');
	expect_counts(0, COUNT);
}

/* Between two looks a quarter of what there may be more is written. */
static void looked_at_again(void **state)
{
	(void)state;
	if (!waits())
		skip();
	set_dirty(1750000 - 10 - 16); /* 10 are being written */
	run(writes(0, COUNT, 'a'), PAGE);
	expect_file('a');
	expect_counts(4, COUNT - 4);
}

/* Behind what holds the file's lock nothing is done here. */
static void file_is_busy(void **state)
{
	struct batch batch;

	(void)state;
	if (!waits())
		skip();
	run(writes(0, 1, 'a'), PAGE); /* from now on it is known how */
	batch = writes(0, COUNT, 'b');
	request_init(&requests[0], REACTOR_FSYNC, file, &ended);
	call(submit_batch, &batch);
	await(&ended, COUNT);
	call(nothing, NULL);
	expect_counts(1, COUNT - 1);
	run(writes(0, COUNT, 'c'), PAGE);
	expect_file('c');
	expect_counts(1 + COUNT, COUNT - 1);
}

/* While some are the engine's, more come: all are done, and in the end here again. */
static void both_ways(void **state)
{
	struct reactor_counts counts;
	struct batch first, second;

	(void)state;
	if (!waits())
		skip();
	run(writes(0, 1, 'a'), PAGE);
	for (u32 round = 0; round < 200; round++) {
		first = writes(0, COUNT / 2, 'b');
		request_init(&requests[0], REACTOR_FSYNC, file, &ended);
		second = writes(COUNT / 2, COUNT / 2, 'b');
		call(submit_batch, &first);
		call(submit_batch, &second);
		await(&ended, COUNT);
	}
	run(writes(0, COUNT, 'c'), PAGE);
	expect_file('c');
	reactor_counts(reactor, &counts);
	assert_int_equal(counts.writes_here + counts.writes_handed, 1 + 200 * (COUNT - 1) + COUNT);
	assert_true(counts.writes_handed >= 200 * (COUNT / 2 - 1));
	assert_true(counts.writes_here > COUNT);
}

static void cancelled(void **state)
{
	struct batch batch = writes(0, COUNT, 'a');

	(void)state;
	call(submit_and_cancel_batch, &batch);
	await(&ended, COUNT);
	for (u32 i = 0; i < COUNT; i++)
		assert_int_equal(requests[i].result, -ECANCELED);
	expect_counts(0, 0);
	assert_int_equal(lseek(file_fd, 0, SEEK_END), 0);
}

static void errors(void **state)
{
	struct request *request = requests;

	(void)state;
	assert_int_equal(fcntl(file_fd, F_ADD_SEALS, F_SEAL_WRITE), -1); /* no sealing allowed */
	run(writes(0, 1, 'a'), PAGE);
	writes(0, 1, 'b');
	request->iov.iov_base = (void *)64;
	assert_int_equal(run_one(request), -EFAULT);
}

/* ---- a write that waits, because its memory does ---- */

struct pager {
	int fd;
	pthread_t thread;
	u32 wanted; /* pages that will be missed */
};

static void *pager_main(void *arg)
{
	struct pager *pager = arg;
	struct uffd_msg message;

	while (pager->wanted-- && read(pager->fd, &message, sizeof(message)) > 0) {
		struct uffdio_zeropage zero = {
			.range = { message.arg.pagefault.address & ~(u64)(PAGE - 1), PAGE }
		};

		usleep(20000); /* much longer than what counts as slow */
		ioctl(pager->fd, UFFDIO_ZEROPAGE, &zero);
	}
	return NULL;
}

static bool pager_start(struct pager *pager, u32 wanted)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register all = {
		.range = { (u64)(uintptr_t)pages, COUNT * PAGE },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	pager->wanted = wanted;
	pager->fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	if (pager->fd < 0)
		return false;
	assert_int_equal(ioctl(pager->fd, UFFDIO_API, &api), 0);
	assert_int_equal(ioctl(pager->fd, UFFDIO_REGISTER, &all), 0);
	assert_int_equal(pthread_create(&pager->thread, NULL, pager_main, pager), 0);
	return true;
}

/* Twice slow: from then on it is the engine's. */
static void slow(void **state)
{
	struct reactor_counts counts;
	struct pager pager;

	(void)state;
	if (!waits())
		skip();
	run(writes(0, COUNT, 'a'), PAGE);
	madvise(pages, 4 * PAGE, MADV_DONTNEED);
	if (!pager_start(&pager, 4)) {
		print_message("skip: userfaultfd(2): %s\n", strerror(errno));
		skip();
	}
	for (u32 i = 0; i < 4; i++) {
		request_init(&requests[i], REACTOR_WRITEV, file, NULL);
		requests[i].iov = (struct iovec){ pages + i * PAGE, PAGE };
		requests[i].op.buffered = true;
		assert_int_equal(run_one(&requests[i]), PAGE);
	}
	pthread_join(pager.thread, NULL);
	close(pager.fd);
	/* on a busy machine what went before may already have been slow */
	reactor_counts(reactor, &counts);
	assert_in_range(counts.writes_handed, 2, COUNT + 2);
	assert_int_equal(counts.writes_here + counts.writes_handed, COUNT + 4);
	run(writes(0, COUNT, 'b'), PAGE);
	expect_file('b');
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, make_untimed, unmake)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(done_here),
		TEST(much_is_dirty),
		TEST(nothing_is_known),
		TEST(looked_at_again),
		TEST(file_is_busy),
		TEST(both_ways),
		TEST(cancelled),
		TEST(errors),
		cmocka_unit_test_setup_teardown(slow, make, unmake),
	};

	return in_each_mode(tests);
}
