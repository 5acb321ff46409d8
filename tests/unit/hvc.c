/* hvc0's way to the terminal (backends/console.c with a stream): batches, a terminal that is stuck,
 * input for whoever listens, breaks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "backends/console.h"
#include "vm/ticks.h"
#include "vm/types.h"

static char folder[64], path[96];
static struct terminal *terminal;
static struct console *console;
static int guest, reader;
static bool listening;

static bool listens(void *owner)
{
	return *(bool *)owner;
}

/* The terminal is a named pipe, so output only; it is stuck when that is full. */
static int up(void **state)
{
	int pair[2];

	(void)state;
	strcpy(folder, "/tmp/vmm-hvc-XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/pipe", folder);
	assert_int_equal(mkfifo(path, 0600), 0);
	reader = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	assert_true(reader >= 0);
	assert_int_equal(terminal_open(&terminal, path), 0);
	assert_int_equal(console_create(&console, terminal), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair),
			 0);
	guest = pair[0];
	console_attach_stream(console, pair[1], listens, &listening, NULL);
	return 0;
}

static int down(void **state)
{
	char command[128];

	(void)state;
	console_destroy(console);
	terminal_close(terminal);
	close(reader);
	close(guest);
	snprintf(command, sizeof(command), "rm -r %s", folder);
	return system(command);
}

/* One turn of the main thread's loop; how long it would have slept at most. */
static u64 turn(void)
{
	struct pollfd fds[CONSOLE_POLLS];
	u64 deadline = ~0ull, now = clock_now_ns(), sleep;

	console_prepare(console, fds, &deadline);
	sleep = deadline > now ? deadline - now : 0;
	poll(fds, CONSOLE_POLLS, sleep > 10000000 ? 10 : (int)(sleep / 1000000) + 1);
	console_run(console, fds, clock_now_ns());
	return sleep;
}

static size_t take(char *to, size_t size)
{
	ssize_t n = read(reader, to, size);

	return n > 0 ? (size_t)n : 0;
}

static void output_is_collected(void **state)
{
	char got[256];
	size_t n = 0;

	(void)state;
	for (int i = 0; i < 8; i++)
		assert_int_equal(write(guest, "sixteen bytes...", 16), 16);
	while (!n) {
		turn();
		n = take(got, sizeof(got));
	}
	assert_int_equal(n, 128); /* in one piece */
	assert_true(console_first_output(console) > 0);
	assert_false(console_panicked(console));
	assert_int_equal(write(guest, "Kernel panic - not syncing: x\n", 30), 30);
	while (!console_panicked(console))
		turn();
}

/* The guest is never held up for good: of a terminal that takes nothing it is rid after a second,
 * and has it back as soon as that takes something. */
static void a_stuck_terminal(void **state)
{
	static char many[KIB(4)];
	char got[KIB(4)];
	u64 sent = 0, taken = 0, end = clock_now_ns() + 30000000000ull;
	size_t n;

	(void)state;
	memset(many, 'x', sizeof(many));
	while (sent < MIB(2)) { /* more than pipe, buffer and socket hold */
		ssize_t m = write(guest, many, sizeof(many));

		sent += m > 0 ? (u64)m : 0;
		turn();
		assert_true(clock_now_ns() < end);
	}
	while ((n = take(got, sizeof(got))))
		taken += n;
	assert_true(taken > 0 && taken < sent);
	assert_int_equal(write(guest, "back", 4), 4);
	for (;;) {
		turn();
		n = take(got, sizeof(got));
		assert_true(clock_now_ns() < end);
		if (n >= 4 && !memcmp(got + n - 4, "back", 4))
			break;
	}
}

/* A terminal that is slow, but not stuck, gets everything. */
static void a_slow_terminal(void **state)
{
	static u8 some[KIB(4)], got[KIB(1)];
	u64 sent = 0, taken = 0;

	(void)state;
	while (taken < KIB(512)) {
		size_t n;
		ssize_t m;

		for (size_t i = 0; i < sizeof(some); i++)
			some[i] = (u8)((sent + i) * 7 + ((sent + i) >> 8));
		m = sent < KIB(512) ? write(guest, some, sizeof(some)) : 0;
		sent += m > 0 ? (u64)m : 0;
		turn();
		n = take((char *)got, sizeof(got));
		for (size_t i = 0; i < n; i++, taken++)
			assert_int_equal(got[i], (u8)(taken * 7 + (taken >> 8)));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(output_is_collected, up, down),
		cmocka_unit_test_setup_teardown(a_stuck_terminal, up, down),
		cmocka_unit_test_setup_teardown(a_slow_terminal, up, down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
