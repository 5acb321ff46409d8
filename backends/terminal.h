/*
 * The user's end of the serial port: stdin and stdout, a file, a new pty, or nothing. A terminal goes raw and comes back whatever ends the
 * process but SIGKILL. Main thread throughout.
 */
#ifndef BACKENDS_TERMINAL_H
#define BACKENDS_TERMINAL_H

#include "vm/types.h"

struct terminal;

/* What the escape key (Ctrl-A) asked for. */
enum terminal_command { TERMINAL_NONE, TERMINAL_QUIT, TERMINAL_BREAK, TERMINAL_HELP };

/* kind: "stdio", "none", "pty" (its name is logged), or a file's path (created or truncated; output only). 0 or -errno (logged). */
int terminal_open(struct terminal **terminal, const char *kind);
/* Restores the terminal, closes. Idempotent; also done by atexit and on fatal signals. */
void terminal_close(struct terminal *terminal);
/* Restores the terminal's modes; async-signal-safe. */
void terminal_restore(void);

/* Descriptors to poll: -1 when there is none (or input has ended). */
int terminal_input_fd(const struct terminal *terminal);
int terminal_output_fd(const struct terminal *terminal);

/* Reads what is there (non-blocking) with escapes taken out (only when input is a terminal); *command gets at most one. Bytes, 0 for none now, -1 when
 * input has ended. Bytes after a command stay for the next call. */
int terminal_read(struct terminal *terminal, u8 *to, size_t size, enum terminal_command *command);
/* Writes what it can without blocking: bytes taken; -errno when the output is gone (EPIPE: it is then discarded from now on, after one log line). */
int terminal_write(struct terminal *terminal, const u8 *from, size_t size);

#endif
