/*
 * While the command runs: bytes between its streams and the host's, the host's lines, children's
 * ends.
 */
#include <linux/signalfd.h>
#include <linux/wait.h>
#include "run/init/init.h"

#define SIGNAL_CHILD 17
#define SIGNAL_KILL  9
#define END_OF_INPUT 4 /* a pseudo-terminal's VEOF, Ctrl-D */
#define REAP_MS	     2000
#define LEFT_MS	     200 /* for what the command left behind to end by itself */

struct stream {
	int from, to;  /* -1: at its end, or nobody reads it any more */
	bool terminal; /* the command's end is the pseudo-terminal, which all streams share */
	size_t start, end;
	unsigned long bytes; /* written in all */
	char *buffer;
};
#define BUFFER_SIZE 65536

enum { IN, OUT, ERR, STREAMS };

/* The end of what goes to the command. A pseudo-terminal is not closed but told. */
static void end_input(struct stream *s)
{
	if (s->to >= 0 && s->terminal) {
		char c = END_OF_INPUT;

		sys_write(s->to, &c, 1);
	} else if (s->to >= 0) {
		sys_close(s->to);
	}
	s->from = s->to = -1;
}

/* Reads if the buffer is empty, writes what is in it. True: something moved. */
static bool move(struct stream *s)
{
	bool moved = false;
	long n;

	if (s->from >= 0 && s->start == s->end) {
		n = sys_read(s->from, s->buffer, BUFFER_SIZE);
		moved = n > 0;
		s->start = 0;
		s->end = n > 0 ? (size_t)n : 0;
		/* EIO: a pseudo-terminal that nobody has open any more */
		if (!n || (n < 0 && n != -EAGAIN))
			s->from = -1;
	}
	if (s->to >= 0 && s->start < s->end) {
		n = sys_write(s->to, s->buffer + s->start, s->end - s->start);
		if (n > 0) {
			s->start += (size_t)n;
			s->bytes += (unsigned long)n;
			moved = true;
		} else if (n != -EAGAIN) {
			s->from = s->to = -1;
		}
	}
	return moved;
}

/* Everybody that ended; true: the command is among them. */
static bool reap(int command, int *status)
{
	bool ended = false;
	int pid, s;

	while ((pid = (int)SYS(wait4, -1, &s, WNOHANG, NULL, 0)) > 0)
		if (pid == command) {
			*status = s;
			ended = true;
		}
	return ended;
}

static void deliver(const struct command *command, int number)
{
	int group = command->pid, foreground;

	if (command->master >= 0 && !sys_ioctl(command->master, TIOCGPGRP, &foreground) &&
	    foreground > 0)
		group = foreground;
	sys_kill(-group, number);
}

static bool obey_line(const struct command *command, const char *line)
{
	const char *words, *end;
	long a, b;

	if (same(line, RUN_LINE_POWEROFF))
		return true;
	if (same(line, RUN_LINE_PING))
		say(RUN_LINE_PONG, NULL);
	else if ((words = after(line, RUN_LINE_SIGNAL " ")) && command) {
		a = number_of(words, NULL);
		if (a > 0 && a <= 64)
			deliver(command, (int)a);
	} else if ((words = after(line, RUN_LINE_WINSIZE " ")) && command && command->master >= 0) {
		a = number_of(words, &end);
		b = a < 0 || !*end ? -1 : number_of(end + 1, NULL);
		if (b >= 0) {
			struct winsize size = { (unsigned short)a, (unsigned short)b, 0, 0 };

			sys_ioctl(command->master, TIOCSWINSZ, &size);
		}
	}
	return false;
}

bool obey(const struct command *command)
{
	static char line[RUN_LINE_MAX];
	static size_t size;
	static bool off;
	long n;

	while ((n = sys_read(ports.control, line + size, sizeof(line) - size)) > 0) {
		size_t start = 0;

		size += (size_t)n;
		for (size_t i = 0; i < size; i++)
			if (line[i] == '\n') {
				line[i] = '\0';
				off = obey_line(command, line + start) || off;
				start = i + 1;
			}
		/* a line without an end is dropped */
		size = size == sizeof(line) && !start ? 0 : size - start;
		for (size_t i = 0; i < size; i++)
			line[i] = line[start + i];
	}
	return off;
}

/* Waits for what can go on, at most so long; -1: for ever. */
static void wait_for(struct command *command, struct stream *streams, int signals, int milliseconds)
{
	struct pollfd p[STREAMS * 2 + 2];
	unsigned int count = 0;

	p[count++] = (struct pollfd){ signals, POLLIN, 0 };
	p[count++] = (struct pollfd){ ports.control, POLLIN, 0 };
	for (int i = 0; i < STREAMS; i++) {
		struct stream *s = &streams[i];

		if (s->start < s->end)
			p[count++] = (struct pollfd){ s->to, POLLOUT, 0 };
		else
			p[count++] = (struct pollfd){ s->from, POLLIN, 0 };
	}
	if (sys_poll(p, count, milliseconds) <= 0)
		return;
	if (p[1].revents & POLLHUP)
		ports.control = -1;
	/* The host has closed its end: who writes there learns it, by SIGPIPE or SIGHUP. */
	for (int i = OUT; i < STREAMS; i++)
		if (p[2 + i].revents & POLLHUP && p[2 + i].events == POLLOUT) {
			streams[i].start = streams[i].end;
			sys_close(streams[i].from);
			streams[i].from = streams[i].to = -1;
			if (streams[i].terminal)
				streams[IN].from = streams[IN].to = command->master = -1;
		}
}

static bool is_empty(const struct stream *s)
{
	return s->start == s->end;
}

static bool at_end(const struct stream *s)
{
	return s->from < 0 && is_empty(s);
}

int pump(struct command *command, unsigned long *out_bytes, unsigned long *err_bytes)
{
	static char buffers[STREAMS][BUFFER_SIZE];
	unsigned long mask = 1ul << (SIGNAL_CHILD - 1);
	bool terminal = command->master >= 0;
	struct stream streams[STREAMS] = {
		{ ports.in, command->in, terminal, 0, 0, 0, buffers[IN] },
		{ command->out, ports.out, terminal, 0, 0, 0, buffers[OUT] },
		{ command->err, ports.err, terminal, 0, 0, 0, buffers[ERR] },
	};
	int signals = (int)SYS(signalfd4, -1, &mask, sizeof(mask), O_CLOEXEC | O_NONBLOCK, 0);
	struct signalfd_siginfo info;
	bool ended = false, killed = false, moved;
	int left, status = 0;
	long since = 0;

	for (;;) {
		while (sys_read(signals, &info, sizeof(info)) > 0)
			;
		/* A child may have ended before the descriptor was there: look in any case. It is
		 * looked for before the streams, so that what they then hold is all it wrote. */
		ended = reap(command->pid, &status) || ended;
		if (obey(command))
			power_off();
		moved = false;
		for (int i = 0; i < STREAMS; i++)
			if (!ended || i != IN)
				moved = move(&streams[i]) || moved;
		if (at_end(&streams[IN]))
			end_input(&streams[IN]);
		if (ended && at_end(&streams[OUT]) && at_end(&streams[ERR]))
			break;
		/* What it left behind may have output of its own yet, like a tee; but not for ever.
		 */
		if (ended && !killed && !wait_more(&since, LEFT_MS)) {
			sys_kill(-1, SIGNAL_KILL);
			killed = true;
		}
		if (moved)
			continue;
		if (killed && is_empty(&streams[OUT]) && is_empty(&streams[ERR]))
			break;
		wait_for(command, streams, signals, ended && !killed ? LEFT_MS : -1);
	}
	since = 0;
	sys_kill(-1, SIGNAL_KILL);
	do {
		left = (int)SYS(wait4, -1, NULL, WNOHANG, NULL, 0);
	} while (left > 0 || (!left && wait_more(&since, REAP_MS)));
	*out_bytes = streams[OUT].bytes;
	*err_bytes = streams[ERR].bytes;
	return status;
}
