/* backends/terminal-mode.c and the escape keys, on a real pty: what the terminal is left like by
 * every kind of end, and by job control.
 */
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <termios.h>

#include "tests/unit/terminal-fixture.h"

/* ---- a real terminal ---- */

struct session {
	int master;
	pid_t pid;
	int results[2]; /* what the child reports */
};

/* Starts fn in a session of its own whose terminal is a new pty. */
static void start(struct session *s, void (*fn)(int report))
{
	fflush(NULL);
	assert_int_equal(pipe(s->results), 0);
	s->pid = forkpty(&s->master, NULL, NULL, NULL);
	assert_true(s->pid >= 0);
	if (!s->pid) {
		/* cmocka's and the sanitizers' handlers would hide how it ends */
		for (int number = 1; number < 32; number++)
			signal(number, SIG_DFL);
		close(s->results[0]);
		dup2(errors, STDERR_FILENO);
		alarm(60);
		fn(s->results[1]);
		_exit(99);
	}
	close(s->results[1]);
}

static void expect(struct session *s, const char *report)
{
	char got[256] = "";
	size_t done = 0;

	while (done < strlen(report)) {
		ssize_t n = read(s->results[0], got + done, strlen(report) - done);

		if (n <= 0)
			break;
		done += (size_t)n;
	}
	if (strcmp(got, report) != 0)
		fail_msg("reported \"%s\", not \"%s\"", got, report);
}

static void type(struct session *s, const char *keys, size_t n)
{
	assert_int_equal(write(s->master, keys, n), (ssize_t)n);
}

static bool is_raw(const struct session *s)
{
	struct termios modes;

	assert_int_equal(tcgetattr(s->master, &modes), 0);
	assert_int_equal(!(modes.c_lflag & ICANON), !(modes.c_lflag & ECHO));
	assert_int_equal(!(modes.c_lflag & ICANON), !(modes.c_oflag & OPOST));
	return !(modes.c_lflag & (ICANON | ISIG));
}

static int finish(struct session *s)
{
	int status;

	assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
	close(s->results[0]);
	return status;
}

static void say(int report, const char *text)
{
	if (write(report, text, strlen(text)) < 0)
		_exit(98);
}

/* Reports all that is read and asked for, until q. */
static void echo_loop(int report, struct terminal *t)
{
	static const char *const names[] = { "", "<quit>", "<break>", "<help>" };
	enum terminal_command command = TERMINAL_NONE;

	for (;;) {
		struct pollfd fd = { .fd = terminal_input_fd(t), .events = POLLIN };
		u8 bytes[3]; /* small: what stays must come by the next call */
		int n;

		poll(&fd, 1, -1);
		do {
			n = terminal_read(t, bytes, sizeof(bytes), &command);
			if (n < 0) {
				say(report, "<end>");
				return;
			}
			if (n && write(report, bytes, (size_t)n) < 0)
				_exit(98);
			say(report, names[command]);
			if (n && bytes[n - 1] == 'q')
				return;
		} while (n == sizeof(bytes) || command != TERMINAL_NONE);
	}
}

static void child_echo(int report)
{
	struct terminal *t;

	if (terminal_open(&t, "stdio"))
		_exit(97);
	say(report, "ready");
	echo_loop(report, t);
	if (terminal_write(t, (const u8 *)"bye\n", 4) != 4)
		_exit(96);
	terminal_close(t);
	_exit(0);
}

static void test_keys(void **state)
{
	struct session s;
	char back[16];

	(void)state;
	start(&s, child_echo);
	expect(&s, "ready");
	assert_true(is_raw(&s));
	type(&s, "a\003\004\032\177\r", 6); /* Ctrl-C, D, Z, delete: all the guest's */
	expect(&s, "a\003\004\032\177\r");
	type(&s, "12\001b34\001h5\001\0016", 12);
	expect(&s, "12<break>34<help>5\0016");
	type(&s, "\001", 1);
	usleep(20000);
	type(&s, "x", 1); /* the two keys come apart */
	expect(&s, "<quit>");
	type(&s, "\001kz", 3); /* no command: both keys are the guest's */
	expect(&s, "\001kz");
	type(&s, "ab\001\001\001xcd", 8);
	expect(&s, "ab\001<quit>cd");
	type(&s, "q", 1);
	expect(&s, "q");
	/* raw output: no carriage return is added */
	assert_int_equal(read(s.master, back, sizeof(back)), 4);
	assert_memory_equal(back, "bye\n", 4);
	assert_int_equal(finish(&s), 0);
	assert_false(is_raw(&s));
	close(s.master);
}

static void test_hangup(void **state)
{
	struct session s;

	(void)state;
	start(&s, child_echo);
	expect(&s, "ready");
	kill(s.pid, SIGSTOP);
	close(s.master);
	kill(s.pid, SIGCONT);
	/* the hangup's signal comes first, or the end of input is seen; it never spins */
	int status = finish(&s);

	assert_true((WIFSIGNALED(status) && WTERMSIG(status) == SIGHUP) || WIFEXITED(status));
}

/* ---- every end ---- */

static void child_wait(int report)
{
	struct terminal *t;

	if (terminal_open(&t, "stdio"))
		_exit(97);
	say(report, "ready");
	for (;;)
		pause();
}

static void child_exits(int report)
{
	struct terminal *t;

	if (terminal_open(&t, "stdio"))
		_exit(97);
	say(report, "ready");
	while (terminal_input_fd(t) >= 0 && collect(t, &(u8){ 0 }, 1) == 0)
		;
	exit(3);
}

static void child_faults(int report)
{
	struct terminal *t;

	if (terminal_open(&t, "stdio"))
		_exit(97);
	say(report, "ready");
	collect(t, &(u8){ 0 }, 1);
	*(volatile int *)(mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) = 1;
}

static void child_aborts(int report)
{
	struct terminal *t;

	if (terminal_open(&t, "stdio"))
		_exit(97);
	say(report, "ready");
	collect(t, &(u8){ 0 }, 1);
	abort();
}

static void test_ends(void **state)
{
	static const int signals[] = { SIGTERM, SIGINT,	 SIGHUP, SIGQUIT,   SIGUSR1,
				       SIGUSR2, SIGALRM, SIGBUS, SIGFPE,    SIGILL,
				       SIGSEGV, SIGABRT, SIGSYS, SIGTRAP,   SIGXCPU,
				       SIGPROF, SIGIO,	 SIGPWR, SIGVTALRM, 40 };
	static void (*const children[])(int) = { child_exits, child_faults, child_aborts };
	struct session s;
	int status;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		start(&s, child_wait);
		expect(&s, "ready");
		assert_true(is_raw(&s));
		kill(s.pid, signals[i]);
		status = finish(&s);
		if (is_raw(&s))
			fail_msg("signal %d left the terminal raw", signals[i]);
		if (!WIFSIGNALED(status) || WTERMSIG(status) != signals[i])
			fail_msg("signal %d became status %x", signals[i], status);
		close(s.master);
	}
	for (size_t i = 0; i < ARRAY_SIZE(children); i++) {
		start(&s, children[i]);
		expect(&s, "ready");
		assert_true(is_raw(&s));
		type(&s, "!", 1);
		status = finish(&s);
		if (i == 0)
			assert_int_equal(WEXITSTATUS(status), 3);
		else
			assert_int_equal(WTERMSIG(status), i == 1 ? SIGSEGV : SIGABRT);
		assert_false(is_raw(&s));
		close(s.master);
	}
}

/* ---- job control ---- */

static int nudge[2]; /* the shell tells its job to go on */
static int step[2];  /* the job tells its shell how far it is */
static bool job_reads;

static void job(int report)
{
	struct terminal *t;
	char go;

	if (terminal_open(&t, "stdio"))
		_exit(97);
	if (terminal_write(t, (const u8 *)"hello\n", 6) != 6)
		_exit(96);
	say(report, terminal_input_fd(t) < 0 ? "background " : "foreground ");
	terminal_resume(); /* SIGCONT by bg */
	say(report, terminal_input_fd(t) < 0 ? "background " : "foreground ");
	say(step[1], "1");
	if (read(nudge[0], &go, 1) != 1)
		_exit(95);
	terminal_resume(); /* SIGCONT by fg */
	say(report, terminal_input_fd(t) < 0 ? "background " : "foreground ");
	say(step[1], "2");
	/* the shell takes the terminal away while we are reading it */
	if (read(nudge[0], &go, 1) != 1)
		_exit(95);
	for (int i = 0; i < 3 && job_reads; i++) {
		enum terminal_command command;
		u8 byte;

		if (terminal_read(t, &byte, 1, &command) != 0)
			say(report, "read! ");
	}
	say(report, terminal_input_fd(t) < 0 ? "background " : "foreground ");
	terminal_close(t); /* leaves the shell's modes alone */
	_exit(0);
}

static void wait_for_job(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, WUNTRACED) != pid || WIFSTOPPED(status) || status)
		_exit(94);
}

static void wait_for_step(void)
{
	char c;

	if (read(step[0], &c, 1) != 1)
		_exit(92);
}

/* A shell with a job in the background, then the foreground, then the background. */
static void child_shell(int report)
{
	struct termios modes;
	pid_t pid;

	signal(SIGTTOU, SIG_IGN);
	pid = fork();
	if (!pid) {
		setpgid(0, 0);
		signal(SIGTTOU, SIG_DFL);
		job(report);
	}
	setpgid(pid, pid);
	wait_for_step();
	tcgetattr(0, &modes);
	say(report, modes.c_lflag & ICANON ? "cooked " : "raw ");
	tcsetpgrp(0, pid);
	if (write(nudge[1], "1", 1) != 1)
		_exit(93);
	wait_for_step();
	tcgetattr(0, &modes);
	say(report, modes.c_lflag & ICANON ? "cooked " : "raw ");
	/* as shells do: their own modes, here with an odd character to know them by */
	tcsetpgrp(0, getpgrp());
	modes.c_cc[VEOL2] = 7;
	tcsetattr(0, TCSANOW, &modes);
	if (write(nudge[1], "2", 1) != 1)
		_exit(93);
	wait_for_job(pid);
	tcgetattr(0, &modes);
	say(report, modes.c_cc[VEOL2] == 7 ? "kept" : "changed");
	_exit(0);
}

static void test_job_control(void **state)
{
	struct session s;

	(void)state;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(pipe(nudge), 0);
		assert_int_equal(pipe(step), 0);
		job_reads = i == 0; /* by a read it learns that the terminal was taken away; else at
				       its end */
		start(&s, child_shell);
		expect(&s, job_reads
				   ? "background background cooked foreground raw background kept"
				   : "background background cooked foreground raw foreground kept");
		assert_int_equal(finish(&s), 0);
		close(s.master);
		close(nudge[0]);
		close(nudge[1]);
		close(step[0]);
		close(step[1]);
	}
}

/* A terminal that takes no more (its window hangs) must not stop us. */
static void child_floods(int report)
{
	struct terminal *t;
	u8 bytes[1000] = "x";
	size_t sent = 0;
	int n;

	if (terminal_open(&t, "stdio"))
		_exit(97);
	while ((n = terminal_write(t, bytes, sizeof(bytes))) > 0)
		sent += (size_t)n;
	say(report, n == 0 && sent > 1000 ? "full" : "odd");
	terminal_close(t);
	_exit(0);
}

static void test_full_terminal(void **state)
{
	struct session s;

	(void)state;
	start(&s, child_floods);
	expect(&s, "full");
	assert_int_equal(finish(&s), 0);
	assert_false(is_raw(&s));
	close(s.master);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_keys),	TEST(test_hangup),	  TEST(test_ends),
		TEST(test_job_control), TEST(test_full_terminal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
