/* backends/terminal.c on pipes, sockets, files and a pty of its own: what arrives, and that nothing
 * blocks.
 */
#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "tests/unit/terminal-fixture.h"

/* ---- input that is no terminal ---- */

static void test_pipe_input(void **state)
{
	enum terminal_command command;
	struct terminal *t;
	int in[2];
	u8 bytes[64];

	(void)state;
	assert_int_equal(pipe(in), 0);
	stdio(in[0], open("/dev/null", O_WRONLY));
	t = open_kind("stdio");
	assert_int_equal(terminal_read(t, bytes, sizeof(bytes), &command), 0);
	assert_int_equal(write(in[1], "a\001xb\001\001", 6), 6);
	assert_int_equal(collect(t, bytes, 6), 6);
	assert_memory_equal(bytes, "a\001xb\001\001", 6); /* no escapes */
	assert_int_equal(write(in[1], "12345", 5), 5);
	close(in[1]);
	assert_int_equal(terminal_read(t, bytes, 2, &command), 2);
	assert_int_equal(terminal_read(t, bytes + 2, 9, &command), 3);
	assert_memory_equal(bytes, "12345", 5);
	assert_int_equal(terminal_read(t, bytes, 9, &command), -1);
	assert_int_equal(terminal_input_fd(t), -1);
	assert_int_equal(terminal_read(t, bytes, 9, &command), -1);
	/* the descriptor that others share is as it was */
	assert_false(fcntl(STDIN_FILENO, F_GETFL) & O_NONBLOCK);
	terminal_close(t);
}

static void test_no_input(void **state)
{
	enum terminal_command command;
	struct terminal *t;
	u8 byte;

	(void)state;
	stdio(-1, -1);
	t = open_kind("stdio");
	assert_int_equal(terminal_input_fd(t), -1);
	assert_int_equal(terminal_read(t, &byte, 1, &command), -1);
	assert_int_equal(terminal_output_fd(t), -1);
	assert_int_equal(terminal_write(t, (const u8 *)"gone", 4), 4);
	terminal_close(t);
	stdio(open("/dev/null", O_RDWR), open("/dev/null", O_RDWR));
	t = open_kind("stdio");
	assert_int_equal(terminal_read(t, &byte, 1, &command), -1);
	assert_int_equal(terminal_write(t, (const u8 *)"gone", 4), 4);
	terminal_close(t);
	assert_int_equal(logged(NULL), 0);
}

/* Started without standard descriptors, what is opened next must not become the console. */
static void test_closed(void **state)
{
	int fd;

	(void)state;
	for (fd = 0; fd < 3; fd++)
		close(fd);
	assert_int_equal(terminal_hold_standard_files(), 0);
	fd = open("/dev/zero", O_RDWR);
	assert_true(fd > 2);
	close(fd);
	struct terminal *t = open_kind("stdio");
	u8 byte;

	assert_int_equal(collect(t, &byte, 1), 0);
	assert_int_equal(terminal_write(t, (const u8 *)"x", 1), 1);
	terminal_close(t);
	assert_int_equal(terminal_hold_standard_files(), 0);
}

static void test_file_input(void **state)
{
	int fd = memfd_create("input", 0), out = memfd_create("output", 0);
	struct terminal *t;
	u8 bytes[16];

	(void)state;
	assert_int_equal(write(fd, "from a file", 11), 11);
	lseek(fd, 0, SEEK_SET);
	assert_int_equal(write(out, "before ", 7), 7);
	stdio(fd, out);
	t = open_kind("stdio");
	assert_int_equal(collect(t, bytes, sizeof(bytes)), 11);
	assert_memory_equal(bytes, "from a file", 11);
	assert_int_equal(terminal_input_fd(t), -1);
	/* output goes on where the file stands */
	assert_int_equal(terminal_write(t, (const u8 *)"after", 5), 5);
	assert_int_equal(pread(STDOUT_FILENO, bytes, 16, 0), 12);
	assert_memory_equal(bytes, "before after", 12);
	terminal_close(t);
}

/* ---- output that does not take ---- */

/* Fills what stands behind stdout, empties it through `reader`, and counts. */
static void fill_and_drain(int reader)
{
	static u8 chunk[300000], back[65536];
	struct terminal *t = open_kind("stdio");
	size_t sent = 0, got = 0;
	int n, flags = fcntl(STDOUT_FILENO, F_GETFL);

	for (int round = 0; round < 3; round++) {
		for (;;) {
			for (size_t i = 0; i < sizeof(chunk); i++)
				chunk[i] = (u8)((sent + i) * 31 >> 3);
			n = terminal_write(t, chunk, sizeof(chunk));
			assert_true(n >= 0);
			if (!n)
				break;
			sent += (size_t)n;
			assert_true(sent < 100000000);
		}
		while (got < sent) {
			ssize_t k = read(reader, back, sizeof(back));

			assert_true(k > 0);
			for (ssize_t i = 0; i < k; i++)
				if (back[i] != (u8)((got + (size_t)i) * 31 >> 3))
					fail_msg("byte %zu is wrong", got + (size_t)i);
			got += (size_t)k;
		}
		struct pollfd fd = { .fd = terminal_output_fd(t), .events = POLLOUT };

		assert_int_equal(poll(&fd, 1, PATIENCE_MS), 1);
	}
	assert_true(sent > 10000);
	assert_int_equal(fcntl(STDOUT_FILENO, F_GETFL),
			 flags); /* nothing leaked to those who share it */
	terminal_close(t);
}

static void test_full_pipe(void **state)
{
	int out[2];

	(void)state;
	assert_int_equal(pipe(out), 0);
	stdio(open("/dev/null", O_RDONLY), out[1]);
	fill_and_drain(out[0]);
	close(out[0]);
}

static void test_full_socket(void **state)
{
	int out[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, out), 0);
	stdio(open("/dev/null", O_RDONLY), out[1]);
	fill_and_drain(out[0]);
	close(out[0]);
}

static void test_broken_pipe(void **state)
{
	struct terminal *t;
	int out[2];

	(void)state;
	assert_int_equal(pipe(out), 0);
	stdio(open("/dev/null", O_RDONLY), out[1]);
	t = open_kind("stdio");
	assert_int_equal(terminal_write(t, (const u8 *)"x", 1), 1);
	close(out[0]);
	assert_int_equal(terminal_write(t, (const u8 *)"lost", 4), -EPIPE);
	for (int i = 0; i < 10; i++)
		assert_int_equal(terminal_write(t, (const u8 *)"lost", 4), 4);
	assert_int_equal(terminal_output_fd(t), -1);
	assert_int_equal(logged("standard output: Broken pipe"), 1);
	terminal_close(t);
}

static void test_files(void **state)
{
	char folder[] = "/tmp/vmm-terminal-XXXXXX", path[64];
	enum terminal_command command;
	struct terminal *t;
	struct stat st;
	u8 byte;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/log", folder);
	close(open(path, O_WRONLY | O_CREAT, 0600));
	assert_int_equal(truncate(path, 5000), 0);
	t = open_kind(path);
	assert_int_equal(terminal_write(t, (const u8 *)"log", 3), 3);
	assert_int_equal(terminal_input_fd(t), -1);
	assert_int_equal(terminal_read(t, &byte, 1, &command), -1);
	terminal_close(t);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 3);
	unlink(path);
	/* a pipe that nobody reads, a folder, a place that is not there */
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(terminal_open(&t, path), -ENXIO);
	assert_int_equal(logged("nobody reads"), 1);
	unlink(path);
	assert_int_equal(terminal_open(&t, folder), -EISDIR);
	assert_int_equal(logged("directory"), 1);
	assert_int_equal(terminal_open(&t, path + strlen("/tmp")), -ENOENT);
	assert_int_equal(logged("No such file"), 1);
	rmdir(folder);
	/* a full disk: told once, and it goes on */
	t = open_kind("/dev/full");
	for (int i = 0; i < 10; i++)
		assert_int_equal(terminal_write(t, (const u8 *)"lost", 4), 4);
	assert_int_equal(logged("No space left"), 1);
	assert_true(terminal_output_fd(t) >= 0);
	terminal_close(t);
	t = open_kind("none");
	assert_int_equal(terminal_input_fd(t), -1);
	assert_int_equal(terminal_output_fd(t), -1);
	assert_int_equal(terminal_write(t, (const u8 *)"lost", 4), 4);
	terminal_close(t);
}

/* ---- --serial pty ---- */

/* Opens the pty that was named in the log. */
static int open_named(char *name, size_t size)
{
	char line[512] = "";
	const char *start;

	assert_true(pread(errors, line, sizeof(line) - 1, 0) > 0);
	start = strstr(line, "/dev/pts/");
	assert_non_null(start);
	snprintf(name, size, "%.*s", (int)strcspn(start, " ;"), start);
	return open(name, O_RDWR | O_NOCTTY);
}

static void test_pty(void **state)
{
	enum terminal_command command;
	struct terminal *t = open_kind("pty");
	char name[64];
	u8 bytes[16];
	int fd;

	(void)state;
	/* nobody there: output is dropped, input silent, and the poll is quiet */
	for (int i = 0; i < 1000; i++)
		assert_int_equal(terminal_write(t, (const u8 *)"to nobody whatever", 18), 18);
	assert_int_equal(terminal_read(t, bytes, sizeof(bytes), &command), 0);
	assert_int_equal(
		poll(&(struct pollfd){ .fd = terminal_input_fd(t), .events = POLLIN }, 1, 50), 0);
	for (int round = 0; round < 3; round++) {
		fd = open_named(name, sizeof(name));
		assert_true(fd >= 0);
		assert_int_equal(write(fd, "in\001x\r", 5), 5);
		assert_int_equal(collect(t, bytes, 5), 5);
		assert_memory_equal(bytes, "in\001x\r", 5); /* no escapes, no line discipline */
		assert_int_equal(terminal_write(t, (const u8 *)"out\n", 4), 4);
		assert_int_equal(read(fd, bytes, sizeof(bytes)), 4);
		assert_memory_equal(bytes, "out\n", 4);
		/* no echo of it */
		assert_int_equal(terminal_read(t, bytes, sizeof(bytes), &command), 0);
		close(fd);
		for (int i = 0; i < 5; i++)
			assert_int_equal(terminal_read(t, bytes, sizeof(bytes), &command), 0);
		assert_int_equal(
			poll(&(struct pollfd){ .fd = terminal_input_fd(t), .events = POLLIN }, 1,
			     50),
			0);
	}
	/* somebody there who does not read: it must not block, nor lose */
	fd = open_named(name, sizeof(name));
	while (terminal_write(t, bytes, sizeof(bytes)) > 0)
		;
	close(fd);
	assert_int_equal(terminal_write(t, bytes, sizeof(bytes)), sizeof(bytes));
	terminal_close(t);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_pipe_input),	TEST(test_no_input),  TEST(test_closed),
		TEST(test_file_input),	TEST(test_full_pipe), TEST(test_full_socket),
		TEST(test_broken_pipe), TEST(test_files),     TEST(test_pty),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
