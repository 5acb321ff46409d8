/*
 * The guest's consoles and the user's terminal: the serial port, hvc0, or both, each with its pump.
 * Main thread.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "machine/machine.h"
#include "vm/log.h"

static bool shares_terminal(const struct config *config)
{
	return config->console == CONFIG_CONSOLE_BOTH && !strcmp(config->serial, "stdio");
}

const char *machine_console_words(const struct config *config)
{
	bool serial = strcmp(config->serial, "none") && config->console != CONFIG_CONSOLE_VIRTIO;

	if (config->console == CONFIG_CONSOLE_SERIAL)
		return serial ? "console=ttyS0 " : "";
	return serial ? "console=ttyS0 console=hvc0 " : "console=hvc0 ";
}

int machine_open_terminals(struct machine *m)
{
	const struct config *config = m->config;
	const char *serial = config->serial;
	int error;

	if (config->console == CONFIG_CONSOLE_VIRTIO && !strcmp(serial, "stdio"))
		serial = "none";
	if (config->console != CONFIG_CONSOLE_SERIAL) {
		error = terminal_open(&m->terminal, "stdio");
		if (error)
			return error;
	}
	if (shares_terminal(config))
		m->serial_terminal = m->terminal;
	else
		return terminal_open(&m->serial_terminal, serial);
	return 0;
}

static bool hvc_listens(void *owner)
{
	const struct machine *m = owner;

	return m->virtio_console && virtio_console_is_open(m->virtio_console, 0);
}

int machine_make_consoles(struct machine *m)
{
	int error = console_create(&m->console, m->serial_terminal), pair[2];

	if (!error)
		error = uart_create(&m->uart, m->bus, m->irq, console_wake, m->console);
	if (error)
		return error;
	console_attach(m->console, m->uart);
	if (m->watcher)
		console_on_output(m->console, m->watcher->output, m->watcher->arg);
	if (m->config->console == CONFIG_CONSOLE_SERIAL)
		return 0;
	error = console_create(&m->hvc, m->terminal);
	if (!error && socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair))
		error = -errno;
	if (error)
		return error;
	m->hvc_device_end = pair[0];
	console_attach_stream(m->hvc, pair[1], hvc_listens, m, m->console);
	return 0;
}

int machine_make_hvc(struct machine *m, struct machine_device *d)
{
	const struct virtio_console_port port = { .in_fd = m->hvc_device_end,
						  .out_fd = m->hvc_device_end,
						  .lasting = true };
	struct virtio_console_options c = {
		.name = d->id,
		.memory = &m->memory,
		.reactors = m->reactors,
		.queue_size = m->config->console_function.queue_size,
		.features = machine_ring_features(&m->config->console_function),
		.console = true,
		.ports = &port,
		.port_count = 1,
		.wake_fd = -1,
	};
	int error;

	terminal_size(m->terminal, &c.cols, &c.rows);
	error = virtio_console_create(&d->console, &c);
	if (error)
		return error;
	m->virtio_console = d->console;
	d->device = virtio_console_device(d->console);
	return 0;
}

void machine_window_changed(const struct machine *m)
{
	u16 cols, rows;

	if (m->virtio_console && terminal_size(m->terminal, &cols, &rows))
		virtio_console_resize(m->virtio_console, cols, rows);
}

/* ---- both of them ---- */

void machine_consoles_prepare(struct machine *m, struct pollfd *fds, u64 *deadline)
{
	console_prepare(m->console, fds, deadline);
	if (m->hvc) {
		console_prepare(m->hvc, fds + CONSOLE_POLLS, deadline);
		return;
	}
	for (u32 i = CONSOLE_POLLS; i < MACHINE_CONSOLE_POLLS; i++)
		fds[i].fd = -1;
}

enum terminal_command machine_consoles_run(struct machine *m, const struct pollfd *fds, u64 now)
{
	enum terminal_command command = console_run(m->console, fds, now);

	if (m->hvc && command == TERMINAL_NONE)
		command = console_run(m->hvc, fds + CONSOLE_POLLS, now);
	return command;
}

void machine_consoles_flush(struct machine *m, unsigned int wait_ms)
{
	/* what the guest has sent is on its way to the pump */
	if (m->hvc)
		reactors_settle(m->reactors);
	console_flush(m->console, wait_ms);
	if (m->hvc)
		console_flush(m->hvc, wait_ms);
}

void machine_consoles_reset(struct machine *m)
{
	console_reset(m->console);
	if (m->hvc)
		console_reset(m->hvc);
}

u64 machine_first_output(const struct machine *m)
{
	u64 serial = console_first_output(m->console);
	u64 hvc = m->hvc ? console_first_output(m->hvc) : 0;

	return !serial || (hvc && hvc < serial) ? hvc : serial;
}

bool machine_panicked(const struct machine *m)
{
	return console_panicked(m->console) || (m->hvc && console_panicked(m->hvc));
}

bool machine_panic_complete(const struct machine *m)
{
	return console_panic_complete(m->console) || (m->hvc && console_panic_complete(m->hvc));
}
