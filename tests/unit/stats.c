/* tsan: --stats from a device of later.h on its reactor: the file is rewritten whole, its numbers
 * are those of the driver; other files get one object after the other, or a line says why not. */
#include "tests/unit/queue-fixture.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include "virtio/stats.h"

static char path[64], text[65536];

static const char *read_back(void)
{
	int fd = open(path, O_RDONLY);
	ssize_t n;

	assert_true(fd >= 0);
	n = read(fd, text, sizeof(text) - 1);
	assert_true(n > 0);
	text[n] = '\0';
	close(fd);
	return text;
}

static void assert_says(const char *what)
{
	if (!strstr(text, what))
		fail_msg("no %s in %s", what, text);
}

static int stderr_to(int fd)
{
	int before = dup(STDERR_FILENO);

	assert_true(before >= 0 && dup2(fd, STDERR_FILENO) == STDERR_FILENO);
	return before;
}

static void put(struct fixture *f, const struct stats *file, const struct ticks *start)
{
	struct virtio_device *devices[] = { f->device, &f->other.device };
	struct milestones milestones = { .start = start->ns };
	struct stats_sources sources = { .vcpus = NULL,
					 .reactors = f->machine.reactors,
					 .devices = devices,
					 .device_count = 2,
					 .start = *start,
					 .milestones = &milestones };

	stats_put_all(&sources, file);
}

static void test_counts(void **state)
{
	struct fixture *f = *state;
	const struct ticks start = ticks_look();
	struct stats file;
	char name[64];
	size_t length;

	snprintf(path, sizeof(path), "/tmp/vmm-stats-%d", getpid());
	assert_int_equal(stats_open(&file, path), 0);
	assert_true(file.rewritten);
	put(f, &file, &start);
	read_back();
	assert_says("\"name\": \"later0\", \"type\": \"later\", \"layout\": null, "
		    "\"features\": \"0x0\", \"status\": \"0x0\"");

	begin(f, BIT64(VIRTIO_RING_F_EVENT_IDX));
	for (int i = 0; i < 8; i++)
		add(&f->ring, i);
	driver_kick(&f->ring);
	for (int i = 0; i < 8; i++)
		driver_wait_used(&f->ring, NULL, NULL);
	later_settle(&f->later);
	put(f, &file, &start);
	read_back();
	assert_says("\"layout\": \"modern\", \"features\": \"0x120000000\", \"status\": \"0xf\"");
	snprintf(name, sizeof(name), "{\"queue\": 0, \"kicks\": %llu, \"batches\": ",
		 (unsigned long long)f->ring.kicks);
	assert_says(name);
	assert_says("\"buffers\": 8, \"bytes_read\": 64, \"bytes_written\": 40");
	assert_says("\"latency_us\": {\"count\": 8, ");
	assert_says("\"later0: driver ready\": ");
	assert_null(strstr(text, "other0: driver ready"));

	/* after a reset by the driver it still says how the device was used */
	virtio_device_power_on(f->device);
	put(f, &file, &start);
	read_back();
	assert_says("\"layout\": \"modern\", \"features\": \"0x120000000\", \"status\": \"0x0\"");

	/* nothing stays behind a shorter text */
	length = strlen(text);
	assert_int_equal(pwrite(file.fd, text, length, (off_t)length), length);
	put(f, &file, &start);
	read_back();
	assert_true(strlen(text) < length + 100);
	close(file.fd);
	unlink(path);
}

static void test_untimed(void **state)
{
	struct fixture *f = *state;
	const struct ticks start = ticks_look();
	struct stats file;
	const char *first;

	snprintf(path, sizeof(path), "/tmp/vmm-stats-%d", getpid());
	assert_int_equal(stats_open(&file, path), 0);
	f->device->queues[1].untimed = true;
	put(f, &file, &start);
	read_back();
	first = strstr(text, "\"queue\": 0");
	assert_non_null(first);
	first = strstr(first, "latency_us");
	assert_non_null(first);
	/* the next one is the other device's */
	assert_true(strstr(first + 1, "latency_us") > strstr(text, "other0"));
	close(file.fd);
	unlink(path);
}

static void test_files(void **state)
{
	struct fixture *f = *state;
	const struct ticks start = ticks_look();
	int pipes[2], before, quiet = open("/dev/null", O_WRONLY);
	char name[32];
	struct stats file;
	u32 objects = 0;
	ssize_t n;

	assert_int_equal(stats_open(&file, NULL), 0);
	assert_int_equal(file.fd, -1);
	assert_int_equal(stats_open(&file, "-"), 0);
	assert_int_equal(file.fd, STDERR_FILENO);
	assert_false(file.rewritten);

	/* what follows says why on stderr */
	before = stderr_to(quiet);
	assert_int_equal(stats_open(&file, "/nonexistent/dir/file"), -ENOENT);
	assert_int_equal(stats_open(&file, "/tmp"), -EISDIR);
	snprintf(path, sizeof(path), "/tmp/vmm-stats-fifo-%d", getpid());
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(stats_open(&file, path), -ENXIO);
	unlink(path);
	assert_int_equal(stats_open(&file, "/dev/full"), 0);
	put(f, &file, &start);
	close(file.fd);
	dup2(before, STDERR_FILENO);
	close(before);
	close(quiet);

	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	snprintf(name, sizeof(name), "/dev/fd/%d", pipes[1]);
	assert_int_equal(stats_open(&file, name), 0);
	assert_false(file.rewritten);
	put(f, &file, &start);
	put(f, &file, &start);
	n = read(pipes[0], text, sizeof(text) - 1);
	assert_true(n > 0);
	text[n] = '\0';
	for (const char *at = text; (at = strstr(at, "elapsed_ms")); at++)
		objects++;
	assert_int_equal(objects, 2);
	close(file.fd);
	close(pipes[0]);
	close(pipes[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(test_counts),
		test(test_untimed),
		test(test_files),
	};

	return cmocka_run_group_tests_name("stats", tests, NULL, NULL);
}
