/*
 * What the user is told, on stderr: one line a fact, `vmm: what: why; what to do`.
 *
 * Every line goes out in one write(2) (so that lines of threads do not mix), ends with a
 * carriage return too while the terminal is raw, and never carries a control character that
 * a guest or a file put into a string.
 */
#ifndef VM_LOG_H
#define VM_LOG_H

#include "vm/types.h"

/* Prints "vmm: " and the formatted line (no newline in fmt). Any thread. */
void log_line(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* The same for things a guest can cause as often as it likes: at most one line in `seconds`
 * for each place that calls, the next one saying how many were left out. Any thread. */
struct log_limit {
	_Atomic u64 next_ns;
	_Atomic u32 dropped;
};
void log_limited(struct log_limit *limit, unsigned int seconds, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* The calling thread's lines go to text (the last of them, without "vmm: "; size bytes,
 * NUL-terminated, empty at first) instead of stderr, until it is called with NULL: what a command
 * over the control socket has to say is its answer. */
void log_capture(char *text, size_t size);

/* The last line of the calling thread is also kept in text, as above; NULL: no more. */
void log_remember(char *text, size_t size);

/* Tells that the terminal is raw (lines then end in \r\n). Main thread. */
void log_terminal_raw(bool raw);

#endif
