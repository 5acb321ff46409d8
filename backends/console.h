/*
 * The pump between the guest's console, serial or virtio, and the user's terminal: batches what the
 * guest prints, feeds what the user types as fast as the guest takes it, and watches the stream for
 * a kernel panic. Main thread, but for console_wake().
 */
#ifndef BACKENDS_CONSOLE_H
#define BACKENDS_CONSOLE_H

#include <poll.h>
#include "backends/terminal.h"

struct uart;
struct console;

#define CONSOLE_POLLS 3

/* 0 or -errno. The terminal stays the caller's. */
int console_create(struct console **console, struct terminal *terminal);
void console_destroy(struct console *console);
/* The port it serves; before the guest runs. */
void console_attach(struct console *console, struct uart *uart);

/* Instead: the other end of a virtio console's stream, a non-blocking socket. listens: does the
 * guest read there? serial: the console of the serial port, NULL for none; where both have the same
 * terminal, what is typed goes to the port until the other listens. Before the guest runs. */
void console_attach_stream(struct console *console, int stream, bool (*listens)(void *owner),
			   void *owner, struct console *serial);

/* Somebody else sees all that the guest prints, too; NULL: nobody. now: ns. */
typedef void console_output_fn(void *arg, const u8 *bytes, size_t size, u64 now);
void console_on_output(struct console *console, console_output_fn *fn, void *arg);

/* A uart_wake_fn: the port has output, or room again. Any thread. */
void console_wake(void *console);

/* Fills fds[CONSOLE_POLLS] with what it waits for (fd -1: nothing) and lowers *deadline
 * (CLOCK_MONOTONIC ns) to when it wants to be called at the latest. */
void console_prepare(struct console *console, struct pollfd *fds, u64 *deadline);
/* Does what poll's answer allows, never blocks. Returns what the escape key asked for;
 * TERMINAL_BREAK is done already. */
enum terminal_command console_run(struct console *console, const struct pollfd *fds, u64 now);
/* Writes all that the guest has printed, waiting at most wait_ms for a slow reader. */
void console_flush(struct console *console, unsigned int wait_ms);

/* When the guest printed first, CLOCK_MONOTONIC ns (for --boot-timing); 0: not yet. */
u64 console_first_output(const struct console *console);

/* "Kernel panic - not syncing" was printed, and the end of its report. */
bool console_panicked(const struct console *console);
bool console_panic_complete(const struct console *console);
/* Forgets a panic (restart in place). */
void console_reset(struct console *console);

#endif
