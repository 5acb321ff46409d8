/*
 * The pump between a terminal and the guest's console: the serial port, or the other end of a
 * virtio console's stream. The guest prints a byte an exit (16 bytes, by hvc); we collect for a few
 * milliseconds and write once, so that a boot log costs hundreds of system calls, not tens of
 * thousands. Main thread, but for console_wake(), which vCPU threads call.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include "backends/console.h"
#include "vm/log.h"
#include "vm/panic-watch.h"
#include "vm/ticks.h"
#include "vm/uart.h"

#define BATCH_NS 2000000ull /* how long output may collect */
#define RETRY_NS 10000000ull
/* hvc0's driver spins until its bytes are taken, with interrupts off: a terminal that is stuck for
 * so long gets none any more. */
#define PATIENCE_NS 1000000000ull
#define SYSRQ	    0x0f /* hvc's break */
#define OUTPUT_SIZE 16384
/* Read ahead of a guest that does not read, so that its user can still quit... */
#define INPUT_SIZE 65536
/* ...in pieces larger than what the terminal may hold back. */
#define INPUT_READ 4096

struct console {
	struct terminal *terminal;
	struct uart *uart; /* the port, or with a stream who gets input that it does not want */
	int stream;	   /* -1: it is the port */
	bool (*listens)(void *owner);
	void *owner;
	bool silent; /* another console reads the terminal */
	u64 blocked_since, dropped;
	struct panic_watch watch;
	console_output_fn *output_fn;
	void *output_arg;
	int wake_fd;
	u64 output_due;	  /* 0: nothing announced */
	u64 first_output; /* when the first was; 0: none yet */
	bool panicked;
	bool blocked; /* the terminal takes no more for now */
	bool refused; /* the port takes no more for now */
	bool more;    /* the terminal holds bytes that stood behind a command */
	size_t output_start, output_end, input_start, input_end;
	u8 output[OUTPUT_SIZE];
	u8 input[INPUT_SIZE];
};

int console_create(struct console **result, struct terminal *terminal)
{
	struct console *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->terminal = terminal;
	c->stream = -1;
	c->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (c->wake_fd < 0) {
		free(c);
		return -errno;
	}
	*result = c;
	return 0;
}

void console_destroy(struct console *c)
{
	if (!c)
		return;
	close(c->wake_fd);
	free(c);
}

void console_attach(struct console *c, struct uart *uart)
{
	c->uart = uart;
}

void console_attach_stream(struct console *c, int stream, bool (*listens)(void *owner), void *owner,
			   struct console *serial)
{
	c->stream = stream;
	c->listens = listens;
	c->owner = owner;
	if (serial && serial->terminal == c->terminal) {
		c->uart = serial->uart;
		serial->silent = true;
	}
}

void console_on_output(struct console *c, console_output_fn *fn, void *arg)
{
	c->output_fn = fn;
	c->output_arg = arg;
}

void console_wake(void *owner)
{
	const struct console *c = owner;
	u64 one = 1;
	ssize_t n = write(c->wake_fd, &one, sizeof(one));

	(void)n; /* a full counter has woken us already */
}

static size_t take_output(struct console *c)
{
	ssize_t n;

	if (c->stream < 0)
		return uart_output(c->uart, c->output, sizeof(c->output));
	n = read(c->stream, c->output, sizeof(c->output));
	return n > 0 ? (size_t)n : 0;
}

/* The terminal takes nothing. True: not for long enough. */
static bool is_patient(struct console *c)
{
	u64 now = clock_now_ns();

	if (!c->blocked_since)
		c->blocked_since = now;
	return c->stream < 0 || now - c->blocked_since < PATIENCE_NS;
}

static void unblock(struct console *c)
{
	c->blocked_since = 0;
	if (c->dropped)
		log_line("hvc0: the terminal was stuck; %llu bytes are lost",
			 (unsigned long long)c->dropped);
	c->dropped = 0;
}

/* Moves the guest's output to the terminal until one of them has nothing more. */
static void pump_output(struct console *c)
{
	u64 announced = c->output_due ? c->output_due - BATCH_NS : 0;

	c->output_due = 0;
	c->blocked = false;
	for (;;) {
		int n;

		if (c->output_start == c->output_end) {
			c->output_start = 0;
			c->output_end = take_output(c);
			if (!c->output_end)
				return;
			if (!c->first_output)
				c->first_output = announced ? announced : clock_now_ns();
			if (panic_watch_feed(&c->watch, c->output, c->output_end))
				c->panicked = true;
			if (c->output_fn)
				c->output_fn(c->output_arg, c->output, c->output_end,
					     clock_now_ns());
		}
		n = terminal_write(c->terminal, c->output + c->output_start,
				   c->output_end - c->output_start);
		if (n < 0) { /* the output is gone: the guest goes on without it */
			c->output_start = c->output_end;
			continue;
		}
		c->output_start += (size_t)n;
		if (n > 0)
			unblock(c);
		if (c->output_start == c->output_end)
			continue;
		if (is_patient(c)) {
			c->blocked = true;
			return;
		}
		c->dropped += c->output_end - c->output_start;
		c->output_start = c->output_end;
	}
}

static bool has_input_room(const struct console *c)
{
	return INPUT_SIZE - (c->input_end - c->input_start) >= INPUT_READ;
}

/* Reads on as long as there is room, whether or not the port takes it: a command may stand behind.
 */
static enum terminal_command read_ahead(struct console *c)
{
	enum terminal_command command = TERMINAL_NONE;
	int n;

	if (INPUT_SIZE - c->input_end < INPUT_READ || c->input_start == c->input_end) {
		memmove(c->input, c->input + c->input_start, c->input_end - c->input_start);
		c->input_end -= c->input_start;
		c->input_start = 0;
	}
	n = terminal_read(c->terminal, c->input + c->input_end, INPUT_READ, &command);
	c->input_end += n > 0 ? (size_t)n : 0;
	c->more = command != TERMINAL_NONE;
	return command;
}

static size_t give_input(struct console *c, const u8 *bytes, size_t size)
{
	ssize_t n;

	if (c->stream < 0 || (c->uart && !c->listens(c->owner)))
		return uart_input(c->uart, bytes, size);
	n = write(c->stream, bytes, size);
	return n > 0 ? (size_t)n : 0;
}

static void give_break(struct console *c)
{
	static const u8 sysrq = SYSRQ;

	if (c->stream < 0 || (c->uart && !c->listens(c->owner)))
		uart_break(c->uart);
	else
		give_input(c, &sysrq, 1);
}

/* Gives the port what was read. */
static enum terminal_command pump_input(struct console *c, bool readable)
{
	enum terminal_command command = TERMINAL_NONE;

	if (readable && has_input_room(c))
		command = read_ahead(c);
	c->refused = false;
	if (c->input_start != c->input_end) {
		c->input_start +=
			give_input(c, c->input + c->input_start, c->input_end - c->input_start);
		c->refused = c->input_start != c->input_end;
	}
	if (command == TERMINAL_BREAK)
		give_break(c);
	return command;
}

void console_prepare(struct console *c, struct pollfd *fds, u64 *deadline)
{
	int input = has_input_room(c) && !c->silent ? terminal_input_fd(c->terminal) : -1;

	fds[0] = (struct pollfd){ .fd = c->wake_fd, .events = POLLIN };
	if (c->stream >= 0) /* its bytes wait there meanwhile */
		fds[0].fd = c->output_due || c->blocked ? -1 : c->stream;
	fds[1] = (struct pollfd){ .fd = input, .events = POLLIN };
	fds[2] = (struct pollfd){ .fd = c->blocked ? terminal_output_fd(c->terminal) : -1,
				  .events = POLLOUT };
	if (c->output_due && !c->blocked && c->output_due < *deadline)
		*deadline = c->output_due;
	if (c->more && has_input_room(c))
		*deadline = 0;
	if (c->stream < 0)
		return;
	if (c->blocked && c->blocked_since + PATIENCE_NS < *deadline)
		*deadline = c->blocked_since + PATIENCE_NS;
	if (c->refused && clock_now_ns() + RETRY_NS < *deadline)
		*deadline = clock_now_ns() + RETRY_NS;
}

enum terminal_command console_run(struct console *c, const struct pollfd *fds, u64 now)
{
	enum terminal_command command = TERMINAL_NONE;
	bool readable = c->more || (fds[1].fd >= 0 && fds[1].revents);
	bool woken = fds[0].revents, again = woken;
	u64 count;

	if (c->stream >= 0)
		again = true;
	else if (woken)
		woken = read(c->wake_fd, &count, sizeof(count)) == sizeof(count);
	if (woken && !c->output_due)
		c->output_due = now + BATCH_NS;
	if (readable || (again && c->refused))
		command = pump_input(c, readable);
	if (c->blocked ? fds[2].revents || !is_patient(c) : c->output_due && now >= c->output_due)
		pump_output(c);
	return command;
}

void console_flush(struct console *c, unsigned int wait_ms)
{
	if (!c->uart && c->stream < 0)
		return;
	pump_output(c);
	while (c->blocked && wait_ms) {
		struct pollfd fd = { .fd = terminal_output_fd(c->terminal), .events = POLLOUT };
		unsigned int slice = wait_ms < 50 ? wait_ms : 50;

		poll(&fd, 1, (int)slice);
		wait_ms -= slice;
		pump_output(c);
	}
}

u64 console_first_output(const struct console *c)
{
	return c->first_output;
}

bool console_panicked(const struct console *c)
{
	return c->panicked;
}

bool console_panic_complete(const struct console *c)
{
	return panic_watch_complete(&c->watch);
}

void console_reset(struct console *c)
{
	c->panicked = false;
	memset(&c->watch, 0, sizeof(c->watch));
}
