/*
 * pty SCRIPT COMMAND...: runs a command on a terminal of its own, and acts the user who sits there:
 *   expect SECONDS TEXT   waits for TEXT in what the command prints (from where the last expect ended)
 *   send TEXT             types TEXT; \r \n \e \\ and \xHH as in C
 *   file PATH             types a file, as fast as it is taken
 *   signal NUMBER         sends the command a signal
 *   window ROWS COLUMNS   changes the terminal's size
 *   pause MILLISECONDS
 *   end SECONDS           waits for the command's end
 * All that was printed goes to standard output. At the end, on standard error: `exit N` with the command's
 * status (128+N for a signal) and `terminal restored` or `terminal changed`. Status: 0, or 1 when the
 * script did not play out.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <utmp.h>

static int master, slave, status = -1;
static pid_t child;
static char seen[1 << 24];
static size_t have, mark;

static long long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ll + t.tv_nsec / 1000000;
}

static void reap(void)
{
	int s;

	if (status < 0 && waitpid(child, &s, WNOHANG) == child)
		status = WIFSIGNALED(s) ? 128 + WTERMSIG(s) : WEXITSTATUS(s);
}

/* Takes what the command printed; waits at most MS for something. */
static void drain(int ms)
{
	struct pollfd p = { .fd = master, .events = POLLIN };
	ssize_t n;

	if (poll(&p, 1, ms) <= 0)
		return;
	if (have == sizeof(seen))
		have = mark = 0;
	n = read(master, seen + have, sizeof(seen) - have);
	if (n > 0) {
		fwrite(seen + have, 1, n, stdout);
		fflush(stdout);
		have += n;
	}
}

static int expect(long long seconds, const char *text)
{
	long long end = now_ms() + seconds * 1000;

	for (;;) {
		char *at = memmem(seen + mark, have - mark, text, strlen(text));

		if (at) {
			mark = at - seen + strlen(text);
			return 0;
		}
		if (now_ms() > end || status >= 0)
			break;
		drain(100);
		reap();
	}
	fprintf(stderr, "never printed: %s\n", text);
	return 1;
}

static int type(const char *p, size_t n)
{
	long long end = now_ms() + 120000;

	while (n) {
		ssize_t w = write(master, p, n);

		if (w > 0) {
			p += w;
			n -= w;
			end = now_ms() + 120000;
		} else if (errno != EAGAIN && errno != EINTR) {
			perror("typing");
			return 1;
		}
		drain(w > 0 ? 0 : 10);
		reap();
		if (now_ms() > end || status >= 0) {
			fprintf(stderr, "nobody takes what is typed\n");
			return 1;
		}
	}
	return 0;
}

static int type_file(const char *path)
{
	char *b = malloc(1 << 24);
	int fd = open(path, O_RDONLY);
	ssize_t n = fd < 0 || !b ? -1 : read(fd, b, 1 << 24);

	if (n < 0) {
		perror(path);
		return 1;
	}
	close(fd);
	n = type(b, n);
	free(b);
	return n;
}

static size_t unescape(char *s)
{
	char *to = s, *start = s;

	for (; *s; s++) {
		if (*s != '\\') {
			*to++ = *s;
			continue;
		}
		switch (*++s) {
		case 'r': *to++ = '\r'; break;
		case 'n': *to++ = '\n'; break;
		case 'e': *to++ = 27; break;
		case 'x': {
			char hex[3] = { s[1], s[1] ? s[2] : 0, 0 };

			*to++ = (char)strtol(hex, NULL, 16);
			s += strlen(hex);
			break;
		}
		default: *to++ = *s;
		}
	}
	return to - start;
}

static int step(char *line)
{
	char *rest = strchr(line, ' ');
	char *more;

	rest = rest ? rest + 1 : line + strlen(line);
	if (!strncmp(line, "expect ", 7)) {
		long s = strtol(rest, &more, 10);

		return expect(s, *more ? more + 1 : more);
	}
	if (!strncmp(line, "send ", 5))
		return type(rest, unescape(rest));
	if (!strncmp(line, "file ", 5))
		return type_file(rest);
	if (!strncmp(line, "signal ", 7))
		return kill(child, atoi(rest)) != 0;
	if (!strncmp(line, "window ", 7)) {
		struct winsize size = { .ws_row = (unsigned short)strtol(rest, &more, 10) };

		size.ws_col = (unsigned short)atoi(more);
		return ioctl(master, TIOCSWINSZ, &size) != 0;
	}
	if (!strncmp(line, "pause ", 6)) {
		long long end = now_ms() + atoll(rest);

		while (now_ms() < end)
			drain(10);
		return 0;
	}
	if (!strncmp(line, "end ", 4)) {
		long long end = now_ms() + atoll(rest) * 1000;

		while (status < 0 && now_ms() < end) {
			drain(50);
			reap();
		}
		if (status < 0)
			fprintf(stderr, "did not end\n");
		return status < 0;
	}
	if (*line && *line != '#') {
		fprintf(stderr, "not a step: %s\n", line);
		return 1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct winsize size = { .ws_row = 24, .ws_col = 80 };
	struct termios before, after;
	char line[4096];
	int bad = 0, i;
	FILE *script;

	script = argc < 3 ? NULL : fopen(argv[1], "r");
	if (!script || openpty(&master, &slave, NULL, NULL, &size)) {
		fprintf(stderr, "pty SCRIPT COMMAND...\n");
		return 2;
	}
	tcgetattr(slave, &before);
	child = fork();
	if (child == 0) {
		close(master);
		login_tty(slave);
		execvp(argv[2], argv + 2);
		perror(argv[2]);
		_exit(127);
	}
	fcntl(master, F_SETFL, O_NONBLOCK);
	while (!bad && fgets(line, sizeof(line), script)) {
		line[strcspn(line, "\n")] = 0;
		bad = step(line);
	}
	for (i = 0; status < 0; i++) {
		if (i == 20 || bad)
			kill(child, i > 20 ? SIGKILL : SIGTERM);
		drain(100);
		reap();
		if (i > 20)
			bad = 1;
	}
	drain(100);
	/* The slave was kept open here, so its state outlives the command. */
	tcgetattr(slave, &after);
	fprintf(stderr, "exit %d\n", status);
	fprintf(stderr, "terminal %s\n",
		before.c_lflag == after.c_lflag && before.c_iflag == after.c_iflag &&
		before.c_oflag == after.c_oflag ? "restored" : "changed");
	return bad;
}
