/* backends/terminal*.c on real ptys, pipes, sockets and files: what arrives, what never blocks, and
 * what the terminal is left like by every kind of end.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include <utmp.h>
#include <cmocka.h>

#include "backends/terminal.h"

#define PATIENCE_MS 10000

/* ---- stdin, stdout and stderr put aside ---- */

static int kept[3], errors;

static int set_up(void **state)
{
	(void)state;
	alarm(120); /* something blocked */
	fflush(NULL);
	for (int fd = 0; fd < 3; fd++)
		kept[fd] = fcntl(fd, F_DUPFD_CLOEXEC, 100);
	errors = memfd_create("errors", MFD_CLOEXEC);
	dup2(errors, STDERR_FILENO);
	return 0;
}

static void put_back(void)
{
	for (int fd = 0; fd < 3; fd++)
		if (kept[fd] >= 0)
			dup2(kept[fd], fd);
		else
			close(fd);
}

static int tear_down(void **state)
{
	(void)state;
	put_back();
	for (int fd = 0; fd < 3; fd++)
		close(kept[fd]);
	close(errors);
	alarm(0);
	return 0;
}

/* Lines logged since the last call; text must be in them. */
static unsigned int logged(const char *text)
{
	static char lines[4096];
	unsigned int count = 0;
	ssize_t n = pread(errors, lines, sizeof(lines) - 1, 0);

	lines[n > 0 ? n : 0] = '\0';
	if (text && !strstr(lines, text))
		fail_msg("no \"%s\" in: %s", text, lines);
	for (const char *p = lines; (p = strchr(p, '\n')); p++)
		count++;
	assert_int_equal(ftruncate(errors, 0), 0);
	lseek(errors, 0, SEEK_SET);
	return count;
}

/* Sets stdin and stdout, which are then ours no more; -1 closes. */
static void stdio(int in, int out)
{
	if (in < 0)
		close(STDIN_FILENO);
	else
		dup2(in, STDIN_FILENO);
	if (out < 0)
		close(STDOUT_FILENO);
	else
		dup2(out, STDOUT_FILENO);
	if (in >= 0)
		close(in);
	if (out >= 0 && out != in)
		close(out);
}

static struct terminal *open_kind(const char *kind)
{
	struct terminal *t;

	assert_int_equal(terminal_open(&t, kind), 0);
	return t;
}

/* Reads until `size` bytes are there or input ends. */
static size_t collect(struct terminal *t, void *to, size_t size)
{
	enum terminal_command command;
	size_t done = 0;
	int n;

	while (done < size) {
		struct pollfd fd = { .fd = terminal_input_fd(t), .events = POLLIN };

		if (poll(&fd, 1, PATIENCE_MS) == 0)
			break;
		n = terminal_read(t, (u8 *)to + done, size - done, &command);
		if (n < 0)
			break;
		done += (size_t)n;
	}
	return done;
}

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
	if (read(nudge[0], &go, 1) != 1)
		_exit(95);
	terminal_resume(); /* SIGCONT by fg */
	say(report, terminal_input_fd(t) < 0 ? "background " : "foreground ");
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
	usleep(300000);
	tcgetattr(0, &modes);
	say(report, modes.c_lflag & ICANON ? "cooked " : "raw ");
	tcsetpgrp(0, pid);
	if (write(nudge[1], "1", 1) != 1)
		_exit(93);
	usleep(300000);
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
		TEST(test_pipe_input),	TEST(test_no_input),	  TEST(test_closed),
		TEST(test_file_input),	TEST(test_full_pipe),	  TEST(test_full_socket),
		TEST(test_broken_pipe), TEST(test_files),	  TEST(test_pty),
		TEST(test_keys),	TEST(test_hangup),	  TEST(test_ends),
		TEST(test_job_control), TEST(test_full_terminal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
