/*
 * Lines for the user on stderr. Any thread; no allocation, no lock: a line is put together on
 * the caller's stack and leaves in one write(2).
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "vm/log.h"

/* Not more than PIPE_BUF, so that lines stay whole in a pipe that several threads write to. */
#define LINE_SIZE 4096

/* How long whoever reads may take to make room for a line. */
#define PATIENCE_MS 1000

static atomic_bool terminal_raw;
static atomic_bool stuck;      /* the last line found no room */
static _Atomic u32 lost_lines; /* since the last one that went out */
static __thread char *captured;
static __thread size_t capture_size;
static __thread char *remembered;
static __thread size_t remember_size;

/* The length of the printable UTF-8 character at s (RFC 3629), 0 if there is none: a control
 * character (C0, DEL, C1) or a byte that is no text. */
static size_t character_length(const unsigned char *s, size_t left)
{
	size_t length = s[0] < 0x80 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;

	if (length == 1)
		return s[0] >= 0x20 && s[0] != 0x7f;
	if (s[0] < 0xc2 || s[0] > 0xf4 || length > left)
		return 0;
	for (size_t i = 1; i < length; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	}
	/* C1 controls, overlong forms, surrogates, beyond U+10FFFF */
	if ((s[0] == 0xc2 && s[1] < 0xa0) || (s[0] == 0xe0 && s[1] < 0xa0) ||
	    (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
	    (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return length;
}

static void clean(char *text, size_t length)
{
	for (size_t i = 0; i < length;) {
		size_t n = character_length((unsigned char *)text + i, length - i);

		if (!n) {
			text[i] = '?';
			n = 1;
		}
		i += n;
	}
}

/*
 * Somebody who has stopped reading (a pager, a shell that sleeps) must not stop the machine, nor
 * keep it from ending: a line that finds no room in time is lost, and those after it are not waited
 * for. Between this look and the write another thread may take the room; a page of it is enough for
 * many lines.
 */
static bool has_room(void)
{
	struct pollfd fd = { .fd = STDERR_FILENO, .events = POLLOUT };
	bool waited_before = atomic_load_explicit(&stuck, memory_order_relaxed);
	int n;

	while ((n = poll(&fd, 1, waited_before ? 0 : PATIENCE_MS)) < 0 && errno == EINTR)
		;
	atomic_store_explicit(&stuck, n == 0, memory_order_relaxed);
	if (n == 0)
		atomic_fetch_add_explicit(&lost_lines, 1, memory_order_relaxed);
	return n != 0;
}

static __attribute__((format(printf, 2, 0))) void put_line(u32 dropped, const char *fmt, va_list ap)
{
	char line[LINE_SIZE], tail[96] = "";
	int saved_errno = errno, n;
	size_t prefix = strlen("vmm: "), length, room, end;
	bool raw = atomic_load_explicit(&terminal_raw, memory_order_relaxed);
	u32 lost;

	if (remembered) {
		va_list again;

		va_copy(again, ap);
		n = vsnprintf(remembered, remember_size, fmt, again);
		va_end(again);
		clean(remembered, n < 0 ? 0 : strlen(remembered));
	}
	if (captured) {
		n = vsnprintf(captured, capture_size, fmt, ap);
		clean(captured, n < 0 ? 0 : strlen(captured));
		errno = saved_errno;
		return;
	}
	if (!has_room()) {
		errno = saved_errno;
		return;
	}
	lost = atomic_exchange_explicit(&lost_lines, 0, memory_order_relaxed);
	if (dropped)
		snprintf(tail, sizeof(tail), " (and %u more like this)", dropped);
	if (lost)
		snprintf(tail + strlen(tail), sizeof(tail) - strlen(tail),
			 " (%u lines before this one are lost: nobody read them)", lost);
	end = strlen(tail) + (raw ? 2 : 1);
	memcpy(line, "vmm: ", prefix);
	room = sizeof(line) - prefix - end;
	n = vsnprintf(line + prefix, room, fmt, ap);
	length = n < 0 ? 0 : (size_t)n;
	if (length >= room) {
		length = room - 1;
		memcpy(line + prefix + length - 3, "...", 3);
	}
	clean(line + prefix, length);
	length += prefix;
	memcpy(line + length, tail, strlen(tail));
	length += strlen(tail);
	if (raw)
		line[length++] = '\r';
	line[length++] = '\n';
	while (write(STDERR_FILENO, line, length) < 0 && errno == EINTR)
		;
	errno = saved_errno;
}

void log_line(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	put_line(0, fmt, ap);
	va_end(ap);
}

void log_limited(struct log_limit *limit, unsigned int seconds, const char *fmt, ...)
{
	struct timespec ts;
	u64 now, next = atomic_load_explicit(&limit->next_ns, memory_order_relaxed);
	va_list ap;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	now = (u64)ts.tv_sec * 1000000000 + (u64)ts.tv_nsec;
	/* one of the threads that come at the same time wins the exchange and speaks */
	if (now < next || !atomic_compare_exchange_strong(&limit->next_ns, &next,
							  now + (u64)seconds * 1000000000)) {
		atomic_fetch_add_explicit(&limit->dropped, 1, memory_order_relaxed);
		return;
	}
	va_start(ap, fmt);
	put_line(atomic_exchange(&limit->dropped, 0), fmt, ap);
	va_end(ap);
}

void log_capture(char *text, size_t size)
{
	captured = text;
	capture_size = size;
	if (text)
		*text = '\0';
}

void log_remember(char *text, size_t size)
{
	remembered = text;
	remember_size = size;
}

void log_terminal_raw(bool raw)
{
	/* a stderr that goes elsewhere keeps plain lines */
	atomic_store(&terminal_raw, raw && isatty(STDERR_FILENO));
}
