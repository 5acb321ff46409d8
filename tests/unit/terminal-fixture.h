/*
 * What the tests of backends/terminal*.c share: the standard descriptors put aside, the log caught,
 * patience.
 */
#ifndef TESTS_UNIT_TERMINAL_FIXTURE_H
#define TESTS_UNIT_TERMINAL_FIXTURE_H

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "backends/terminal.h"

#define PATIENCE_MS 10000

/* ---- stdin, stdout and stderr put aside ---- */

static int kept[3], errors;

static inline int set_up(void **state)
{
	(void)state;
	alarm(120);		  /* something blocked */
	signal(SIGPIPE, SIG_IGN); /* as main() blocks them */
	signal(SIGXFSZ, SIG_IGN);
	fflush(NULL);
	for (int fd = 0; fd < 3; fd++)
		kept[fd] = fcntl(fd, F_DUPFD_CLOEXEC, 100);
	errors = memfd_create("errors", MFD_CLOEXEC);
	dup2(errors, STDERR_FILENO);
	return 0;
}

static inline void put_back(void)
{
	for (int fd = 0; fd < 3; fd++)
		if (kept[fd] >= 0)
			dup2(kept[fd], fd);
		else
			close(fd);
}

static inline int tear_down(void **state)
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
static inline unsigned int logged(const char *text)
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
static inline void stdio(int in, int out)
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

static inline struct terminal *open_kind(const char *kind)
{
	struct terminal *t;

	assert_int_equal(terminal_open(&t, kind), 0);
	return t;
}

/* Reads until `size` bytes are there or input ends. */
static inline size_t collect(struct terminal *t, void *to, size_t size)
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

#endif
