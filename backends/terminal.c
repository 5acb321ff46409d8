/*
 * Where the serial port's bytes come from and go to. Nothing here blocks: pipes and terminals are
 * opened a second time through /proc, because O_NONBLOCK on the descriptor we were given would hold
 * for everybody who has it; where that fails, poll(2) is asked before bounded writes. All opening
 * is done in terminal_open(); later there are read, write, poll and the terminal's modes alone.
 * Main thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include <unistd.h>

#include "backends/terminal-mode.h"
#include "backends/terminal.h"
#include "vm/log.h"

#define ESCAPE	    0x01 /* Ctrl-A */
#define BUFFER_SIZE 2048
/* What a blocking descriptor takes at once when poll says that it is writable: a pipe has a page
 * free then. */
#define BOUNDED_WRITE	     4096
#define BOUNDED_WRITE_TO_TTY 256

struct terminal {
	const char *name;  /* of the output, for messages */
	int input, output; /* -1: none, or gone */
	bool own_input, own_output;
	bool input_is_raw_tty; /* has escapes, and may be in the background */
	bool nonblocking_input;
	size_t bound; /* of a write to a blocking output that poll calls writable; 0: need not ask
		       */
	int opened_watch; /* pty: inotify, tells when somebody opens it; else -1 */
	bool attached;	  /* pty: somebody has it open, as far as we know */
	bool told_failed; /* that a write failed */
	bool escaped;	  /* the last byte was the escape key */
	size_t start, end;
	u8 buffer[BUFFER_SIZE]; /* read, not yet handed on */
};

/* ---- opening ---- */

int terminal_hold_standard_files(void)
{
	struct pollfd fds[STDERR_FILENO + 1];

	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		fds[fd] = (struct pollfd){ .fd = fd };
	if (poll(fds, ARRAY_SIZE(fds), 0) <= 0)
		return 0;
	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		/* open() gives the lowest number that is free: this one */
		if (fds[fd].revents & POLLNVAL && open("/dev/null", O_RDWR) < 0)
			return -errno;
	return 0;
}

/* The same pipe or terminal once more, non-blocking for us alone; -1 where that cannot be. */
static int open_again(int fd, const struct stat *st, bool tty, int access)
{
	char path[32];

	/* sockets cannot, files need not; opening a pty's master once more would make another pty
	 */
	if (!S_ISFIFO(st->st_mode) && !tty)
		return -1;
	if (S_ISCHR(st->st_mode) && st->st_rdev == makedev(5, 2))
		return -1;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, access | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

/* /dev/null, where many start us: there is nothing to wait for. */
static bool is_null(const struct stat *st)
{
	return S_ISCHR(st->st_mode) && st->st_rdev == makedev(1, 3);
}

/* May fd be read from, or written to? Not when it is closed. */
static bool has_access(int fd, int access)
{
	int flags = fcntl(fd, F_GETFL), mode = flags & O_ACCMODE;

	return flags >= 0 && (mode == access || mode == O_RDWR);
}

static int open_stdin(struct terminal *t)
{
	struct stat st;
	bool tty;
	int err;

	if (fstat(STDIN_FILENO, &st) || is_null(&st) || !has_access(STDIN_FILENO, O_RDONLY))
		return 0;
	tty = S_ISCHR(st.st_mode) && isatty(STDIN_FILENO);
	t->input = open_again(STDIN_FILENO, &st, tty, O_RDONLY);
	t->own_input = t->nonblocking_input = t->input >= 0;
	if (t->input < 0)
		t->input = STDIN_FILENO;
	if (!tty)
		return 0;
	err = terminal_mode_take(STDIN_FILENO);
	if (err)
		log_line(
			"standard input: the terminal's modes cannot be read: %s; use --serial pty",
			strerror(-err));
	t->input_is_raw_tty = !err;
	return err;
}

static void open_stdout(struct terminal *t)
{
	struct stat st;
	bool tty;

	t->name = "standard output";
	if (!has_access(STDOUT_FILENO, O_WRONLY) || fstat(STDOUT_FILENO, &st))
		return;
	tty = S_ISCHR(st.st_mode) && isatty(STDOUT_FILENO);
	t->output = open_again(STDOUT_FILENO, &st, tty, O_WRONLY);
	t->own_output = t->output >= 0;
	if (t->own_output)
		return;
	t->output = STDOUT_FILENO;
	if (tty)
		t->bound = BOUNDED_WRITE_TO_TTY;
	else if (!S_ISREG(st.st_mode))
		t->bound = BOUNDED_WRITE;
}

/* The master's end; opened_watch tells when the other is opened. Its modes stay as long as the
 * master is open. */
static int open_pty(struct terminal *t)
{
	struct termios modes;
	const char *name = NULL;
	int slave = -1, err = 0;

	t->name = "pty";
	t->input = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	t->own_input = t->nonblocking_input = true;
	if (t->input >= 0 && !grantpt(t->input) && !unlockpt(t->input))
		name = ptsname(t->input);
	if (name)
		slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	t->opened_watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	/* raw, or what we write would be echoed to us; and closed once, or the master would not
	 * tell that nobody is there */
	if (slave < 0 || t->opened_watch < 0 || tcgetattr(slave, &modes)) {
		err = -errno;
	} else {
		cfmakeraw(&modes);
		if (tcsetattr(slave, TCSANOW, &modes))
			err = -errno;
	}
	if (slave >= 0)
		close(slave);
	if (!err && inotify_add_watch(t->opened_watch, name, IN_OPEN) < 0)
		err = -errno;
	if (err) {
		log_line("--serial pty: cannot make a pseudo-terminal: %s; use --serial stdio or a "
			 "file",
			 strerror(-err));
		return err;
	}
	t->output = t->input;
	log_line("serial port: on %s; connect to it with screen %s", name, name);
	return 0;
}

static int open_file(struct terminal *t, const char *path)
{
	int err;

	t->name = "--serial";
	t->output =
		open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0666);
	t->own_output = true;
	if (t->output >= 0)
		return 0;
	err = -errno;
	log_line("--serial %s: %s; %s", path,
		 err == -ENXIO ? "nobody reads from this pipe" : strerror(-err),
		 err == -ENXIO ? "start its reader first"
			       : "give a file that can be written, or stdio, pty or none");
	return err;
}

int terminal_open(struct terminal **terminal, const char *kind)
{
	struct terminal *t = calloc(1, sizeof(*t));
	int err = 0;

	if (!t) {
		log_line("serial port: out of memory; free some");
		return -ENOMEM;
	}
	t->input = t->output = t->opened_watch = -1;
	if (!strcmp(kind, "stdio")) {
		open_stdout(t);
		err = open_stdin(t);
	} else if (!strcmp(kind, "pty")) {
		err = open_pty(t);
	} else if (strcmp(kind, "none") != 0) {
		err = open_file(t, kind);
	}
	if (err) {
		terminal_close(t);
		return err;
	}
	*terminal = t;
	return 0;
}

static void close_input(struct terminal *t)
{
	if (t->own_input && t->input >= 0)
		close(t->input);
	t->input = -1;
}

void terminal_close(struct terminal *t)
{
	if (!t)
		return;
	if (t->input_is_raw_tty)
		terminal_mode_give_back();
	close_input(t);
	if (t->own_output && t->output >= 0)
		close(t->output);
	if (t->opened_watch >= 0)
		close(t->opened_watch);
	free(t);
}

bool terminal_size(const struct terminal *t, u16 *cols, u16 *rows)
{
	struct winsize size;

	if (!t->input_is_raw_tty || t->input < 0 || ioctl(t->input, TIOCGWINSZ, &size))
		return false;
	*cols = size.ws_col;
	*rows = size.ws_row;
	return size.ws_col && size.ws_row;
}

/* ---- input ---- */

int terminal_input_fd(const struct terminal *t)
{
	if (t->input_is_raw_tty && !terminal_mode_is_raw())
		return -1;
	return t->opened_watch >= 0 && !t->attached ? t->opened_watch : t->input;
}

/* Somebody may have opened the pty; whether they are still there, the read says. */
static void take_open_events(struct terminal *t)
{
	char events[sizeof(struct inotify_event) * 16 + 256];

	while (read(t->opened_watch, events, sizeof(events)) > 0)
		t->attached = true;
}

static bool is_readable(int fd)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };

	return poll(&poll_fd, 1, 0) > 0;
}

/* Bytes into the empty buffer: 1, 0 for none now, -1 when input has ended. */
static int fill(struct terminal *t)
{
	ssize_t n;

	if (t->input < 0)
		return -1;
	if (t->input_is_raw_tty && !terminal_mode_is_raw())
		return 0;
	if (t->opened_watch >= 0 && !t->attached)
		take_open_events(t);
	if (!t->nonblocking_input && !is_readable(t->input))
		return 0;
	n = read(t->input, t->buffer, sizeof(t->buffer));
	if (n > 0) {
		t->start = 0;
		t->end = (size_t)n;
		return 1;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (t->opened_watch >= 0) { /* EIO: whoever had the pty open has closed it */
		t->attached = false;
		return 0;
	}
	if (n < 0 && errno == EIO && t->input_is_raw_tty && terminal_mode_lost())
		return 0;
	close_input(t);
	return -1;
}

/* What the key after the escape key means. */
static enum terminal_command command_of(u8 key)
{
	switch (key) {
	case 'x':
		return TERMINAL_QUIT;
	case 'b':
		return TERMINAL_BREAK;
	case 'h':
		return TERMINAL_HELP;
	default:
		return TERMINAL_NONE;
	}
}

/* Hands on what is buffered, up to a command. Any other key after the escape key goes on along with
 * it. */
static size_t take_keys(struct terminal *t, u8 *to, size_t size, enum terminal_command *command)
{
	size_t n = 0;

	while (t->start < t->end && n < size) {
		u8 key = t->buffer[t->start];

		if (t->escaped) {
			t->escaped = false;
			*command = command_of(key);
			if (*command != TERMINAL_NONE) {
				t->start++;
				return n;
			}
			to[n++] = ESCAPE;
			t->start += key == ESCAPE;
		} else {
			t->escaped = key == ESCAPE;
			if (!t->escaped)
				to[n++] = key;
			t->start++;
		}
	}
	return n;
}

int terminal_read(struct terminal *t, u8 *to, size_t size, enum terminal_command *command)
{
	size_t n;

	*command = TERMINAL_NONE;
	if (t->start == t->end) {
		int got = fill(t);

		if (got <= 0)
			return got;
	}
	if (t->input_is_raw_tty)
		return (int)take_keys(t, to, size, command);
	n = t->end - t->start < size ? t->end - t->start : size;
	memcpy(to, t->buffer + t->start, n);
	t->start += n;
	return (int)n;
}

/* ---- output ---- */

int terminal_output_fd(const struct terminal *t)
{
	return t->output;
}

/* What may be written now: 0 for nothing without blocking. *gone: there is nobody to write to. */
static size_t writable(const struct terminal *t, size_t size, bool *gone)
{
	struct pollfd fd = { .fd = t->output, .events = POLLOUT };

	*gone = false;
	if (!t->bound && t->opened_watch < 0)
		return size;
	if (poll(&fd, 1, 0) < 0)
		return 0;
	if (t->opened_watch >= 0) {
		*gone = fd.revents & POLLHUP;
		return size;
	}
	if (!fd.revents)
		return 0;
	return size < t->bound ? size : t->bound;
}

/* One line for the first failure. Returns what terminal_write() returns. */
static int write_failed(struct terminal *t, size_t size)
{
	int err = -errno;
	bool full = err == -ENOSPC || err == -EDQUOT || err == -EFBIG;

	if (!t->told_failed)
		log_line("%s: %s; the console's output %s", t->name, strerror(-err),
			 full ? "has a gap until there is room again" : "is discarded from now on");
	t->told_failed = true;
	if (full)
		return (int)size;
	if (t->own_output)
		close(t->output);
	t->output = -1;
	return err;
}

int terminal_write(struct terminal *t, const u8 *from, size_t size)
{
	size_t done = 0;

	if (size > INT32_MAX)
		size = INT32_MAX;
	while (done < size && t->output >= 0) {
		bool gone;
		size_t most = writable(t, size - done, &gone);
		ssize_t n;

		if (gone)
			return (int)size;
		if (!most)
			return (int)done;
		n = write(t->output, from + done, most);
		if (n > 0)
			done += (size_t)n;
		else if (n == 0 || errno == EAGAIN)
			return (int)done;
		else if (errno != EINTR)
			return write_failed(t, size);
	}
	return t->output < 0 ? (int)size : (int)done;
}
