/*
 * The user's end of the serial port: stdin and stdout, a file, a new pty, or nothing. A terminal
 * goes raw and comes back whatever ends the process but SIGKILL. Main thread throughout.
 */
#ifndef BACKENDS_TERMINAL_H
#define BACKENDS_TERMINAL_H

#include "vm/types.h"

struct terminal;

/* What the escape key (Ctrl-A) asked for. */
enum terminal_command { TERMINAL_NONE, TERMINAL_QUIT, TERMINAL_BREAK, TERMINAL_HELP };

/* Puts /dev/null where standard input, output or error are closed, so that no file of ours takes
 * their place. First thing in main(). 0 or -errno. */
int terminal_hold_standard_files(void);

/*
 * kind: "stdio", "none", "pty" (its name is logged; output is discarded while nobody has it open),
 * or a file's path (created or truncated; output only). In the background of its terminal it leaves
 * that alone and takes no input until terminal_resume(). SIGTTIN and SIGTTOU are ignored from now
 * on. After main has blocked the signals it waits for, and SIGPIPE and SIGXFSZ, before other
 * threads start; one at a time. 0 or -errno (logged).
 */
int terminal_open(struct terminal **terminal, const char *kind);
/* Restores the terminal, closes. */
void terminal_close(struct terminal *terminal);
/* Restores the terminal's modes: called by us at exit and on fatal signals. Async-signal-safe, any
 * thread, as often as you like. */
void terminal_restore(void);
/* Makes the terminal raw again, and takes input again, after SIGCONT; not if we went on in the
 * background. */
void terminal_resume(void);

/* The window's size; false: it is no terminal, or does not say. */
bool terminal_size(const struct terminal *terminal, u16 *cols, u16 *rows);

/* Descriptors to poll: -1 when there is none (or input has ended). They change: ask before each
 * poll. */
int terminal_input_fd(const struct terminal *terminal);
int terminal_output_fd(const struct terminal *terminal);

/*
 * Reads what is there (non-blocking) with escapes taken out (only when input is a terminal);
 * *command gets at most one, which stands behind the bytes returned. Bytes, 0 for none now, -1 when
 * input has ended. Bytes after a command, or beyond size, stay for the next call: poll does not see
 * them, so call until there is no command and fewer than size.
 */
int terminal_read(struct terminal *terminal, u8 *to, size_t size, enum terminal_command *command);
/* Writes what it can without blocking: bytes taken; -errno when the output is gone (EPIPE: it is
 * then discarded from now on, after one log line). A full disk is logged once, and what it did not
 * take is lost. */
int terminal_write(struct terminal *terminal, const u8 *from, size_t size);

#endif
