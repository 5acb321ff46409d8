/* run/input.c: the terminal's keys reach the guest unharmed, and Ctrl-] three times ends it. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include <cmocka.h>
#include "backends/terminal.h"
#include "run/input.h"

#define SECOND 1000000000ull
static const u8 quit[] = { 0x1d, 0x1d, 0x1d };
static struct input input;

static void test_quit(void **state)
{
	(void)state;
	input = (struct input){ .terminal = -1 };
	assert_true(input_take(&input, quit, 3, 5 * SECOND));
	/* they go to the guest, too */
	assert_int_equal(input.end, 3);

	input = (struct input){ .terminal = -1 };
	assert_false(input_take(&input, quit, 2, 5 * SECOND));
	assert_false(input_take(&input, (const u8 *)"x", 1, 5 * SECOND));
	assert_false(input_take(&input, quit, 2, 5 * SECOND));
	assert_true(input_take(&input, quit, 1, 5 * SECOND + SECOND / 2));
	/* too slow: the second begins anew */
	input = (struct input){ .terminal = -1 };
	assert_false(input_take(&input, quit, 1, 5 * SECOND));
	assert_false(input_take(&input, quit, 1, 7 * SECOND));
	assert_false(input_take(&input, quit, 1, 7 * SECOND));
	assert_true(input_take(&input, quit, 1, 7 * SECOND));

	/* a guest that reads nothing can be ended all the same */
	input = (struct input){ .terminal = -1, .end = sizeof(input.bytes) };
	assert_true(input_take(&input, quit, 3, 9 * SECOND));
	assert_int_equal(input.end, sizeof(input.bytes));
}

/* One turn of the loop. */
static bool turn(u64 now)
{
	struct pollfd fds[INPUT_POLLS];

	input_prepare(&input, fds);
	poll(fds, INPUT_POLLS, 50);
	return input_run(&input, fds, now);
}

/* Standard input is a pty's; *keyboard gets its master. */
static int begin(int *keyboard)
{
	struct winsize size = { .ws_row = 33, .ws_col = 101 };
	int slave, from = -1;

	*keyboard = posix_openpt(O_RDWR | O_NOCTTY);
	assert_true(*keyboard >= 0 && !grantpt(*keyboard) && !unlockpt(*keyboard));
	slave = open(ptsname(*keyboard), O_RDWR | O_NOCTTY);
	assert_true(slave >= 0);
	ioctl(slave, TIOCSWINSZ, &size);
	dup2(slave, STDIN_FILENO);
	close(slave);
	assert_int_equal(input_open(&input, &from), 0);
	return from;
}

static void test_terminal(void **state)
{
	static const u8 keys[] = {
		0, 1, 3, 4, 0x11, 0x13, 0x1a, 0x1c, '\r', '\n', 0x7f, 0xff, 0x1d
	};
	int keyboard, from = begin(&keyboard);
	u8 got[64];
	u16 rows, cols;

	(void)state;
	input_size(&input, &rows, &cols);
	assert_int_equal(rows, 33);
	assert_int_equal(cols, 101);
	/* all of them, those of signals and of line editing, too */
	assert_int_equal(write(keyboard, keys, sizeof(keys)), sizeof(keys));
	for (u32 i = 0; i < 20 && input.end < sizeof(keys) && read(from, got, 0) == 0; i++)
		if (turn(SECOND) || input.start == input.end)
			break;
	turn(SECOND);
	assert_int_equal(read(from, got, sizeof(got)), sizeof(keys));
	assert_memory_equal(got, keys, sizeof(keys));
	/* one was among them */
	assert_int_equal(write(keyboard, quit, 2), 2);
	assert_true(turn(SECOND));
	/* hung up: the guest sees the end */
	close(keyboard);
	for (u32 i = 0; i < 20 && input.to >= 0; i++)
		turn(SECOND);
	assert_int_equal(input.to, -1);
	assert_int_equal(read(from, got, sizeof(got)), 2);
	assert_int_equal(read(from, got, sizeof(got)), 0);
	close(from);
	terminal_restore();
}

/* A guest that has closed its end takes no more. */
static void test_reader_gone(void **state)
{
	int keyboard, from = begin(&keyboard);

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	close(from);
	assert_int_equal(write(keyboard, "x", 1), 1);
	for (u32 i = 0; i < 20 && input.to >= 0; i++)
		turn(SECOND);
	assert_int_equal(input.to, -1);
	assert_int_equal(write(keyboard, quit, 3), 3);
	terminal_restore();
	close(keyboard);
}

/* No terminal: nothing is polled, nothing happens. */
static void test_none(void **state)
{
	struct pollfd fds[INPUT_POLLS];
	u16 rows, cols;

	(void)state;
	input = (struct input){ .terminal = -1, .to = -1 };
	input_prepare(&input, fds);
	assert_int_equal(fds[0].fd, -1);
	assert_int_equal(fds[1].fd, -1);
	assert_false(input_run(&input, fds, SECOND));
	input_size(&input, &rows, &cols);
	assert_int_equal(rows + cols, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_quit),
		cmocka_unit_test(test_terminal),
		cmocka_unit_test(test_reader_gone),
		cmocka_unit_test(test_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
