/* The host's side of named ports: see ports.h. */
#include "machine/ports.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "backends/listen.h"
#include "machine/machine.h"
#include "vm/log.h"

struct port_host {
	const struct config_port *config;
	int listener; /* -1: none */
	int client;   /* the port's, only polled here; -1: none */
	bool left;    /* it has hung up, and what it sent last is still to be read */
};

struct ports {
	struct virtio_console *console;
	int wake;
	u32 count;
	struct port_host hosts[CONFIG_MAX_PORTS];
	/* until the device has them; port 0 is nobody's */
	struct virtio_console_port ports[1 + CONFIG_MAX_PORTS];
	struct log_limit lines;
};

/* ---- opening ---- */

static int say(const struct config_port *port, int error, const char *what, const char *mend)
{
	log_line("--port name=%s: %s: %s; %s", port->name, what, strerror(-error), mend);
	return error;
}

/* Ours for reading and writing, so that no reader's or writer's going ends it. */
static int open_pipe(const char *path, const char *suffix)
{
	char name[4096];
	struct stat st;
	int fd;

	if (snprintf(name, sizeof(name), "%s%s", path, suffix) >= (int)sizeof(name))
		return -ENAMETOOLONG;
	if (mkfifo(name, 0600) && errno != EEXIST)
		return -errno;
	fd = open(name, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (!fstat(fd, &st) && S_ISFIFO(st.st_mode))
		return fd;
	close(fd);
	return -EEXIST;
}

static int open_pipes(const struct config_port *config, struct virtio_console_port *port)
{
	port->in_fd = open_pipe(config->path, ".in");
	if (port->in_fd >= 0)
		port->out_fd = open_pipe(config->path, ".out");
	if (port->in_fd >= 0 && port->out_fd >= 0)
		return 0;
	return say(
		config, port->in_fd < 0 ? port->in_fd : port->out_fd, config->path,
		"PATH.in and PATH.out are named pipes, or nothing yet in a directory that can be "
		"written");
}

static int open_port(struct port_host *host, struct virtio_console_port *port)
{
	const struct config_port *config = host->config;

	port->name = config->name;
	port->in_fd = port->out_fd = host->listener = host->client = -1;
	port->lasting = config->kind == CONFIG_PORT_PIPE || config->kind == CONFIG_PORT_FILE;
	switch (config->kind) {
	case CONFIG_PORT_FDS:
		port->in_fd = config->in_fd;
		port->out_fd = config->out_fd;
		break;
	case CONFIG_PORT_UNIX:
		host->listener = listen_unix(config->path, SOCK_STREAM, 4);
		if (host->listener < 0)
			return say(config, host->listener, config->path,
				   host->listener == -EADDRINUSE
					   ? "another machine listens there, or it is no socket; "
					     "give another path"
					   : "give a path in a directory that can be written");
		break;
	case CONFIG_PORT_PIPE:
		return open_pipes(config, port);
	case CONFIG_PORT_FILE:
		port->out_fd = open(
			config->path,
			O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0666);
		if (port->out_fd < 0)
			return say(config, -errno, config->path, "give a file that can be written");
		break;
	}
	return 0;
}

static int make(struct ports **result)
{
	struct ports *ports = calloc(1, sizeof(*ports));

	if (ports)
		ports->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (!ports || ports->wake < 0) {
		log_line("ports: %s; " MORE_FILES, strerror(errno));
		free(ports);
		return -errno;
	}
	ports->ports[0].in_fd = ports->ports[0].out_fd = -1;
	*result = ports;
	return 0;
}

int ports_open(struct ports **result, const struct config *config)
{
	struct ports *ports;
	int error = make(&ports);

	if (error)
		return error;
	for (u32 i = 0; i < config->port_count && !error; i++) {
		ports->hosts[i].config = &config->ports[i];
		error = open_port(&ports->hosts[i], &ports->ports[1 + i]);
		ports->count++;
	}
	*result = ports;
	return error;
}

/* What a port of this kind has of host and port, in this order. */
static u32 descriptors(struct port_host *host, struct virtio_console_port *port, int *ends[2])
{
	ends[0] = host->config->kind == CONFIG_PORT_UNIX   ? &host->listener
		  : host->config->kind == CONFIG_PORT_FILE ? &port->out_fd
							   : &port->in_fd;
	ends[1] = &port->out_fd;
	return host->config->kind == CONFIG_PORT_PIPE ? 2 : 1;
}

int ports_open_files(const struct config *config, int *fds)
{
	struct port_host host = { .config = &config->ports[0] };
	struct virtio_console_port port = { 0 };
	int error = open_port(&host, &port), *ends[2];
	u32 count = descriptors(&host, &port, ends);

	for (u32 i = 0; i < count && !error; i++)
		fds[i] = *ends[i];
	return error ? error : (int)count;
}

int ports_adopt(struct ports **result, const struct config *config, const int *fds, u32 count)
{
	struct port_host host = { .config = &config->ports[0], .listener = -1, .client = -1 };
	struct virtio_console_port port = { .name = host.config->name,
					    .in_fd = -1,
					    .out_fd = -1,
					    .lasting = host.config->kind != CONFIG_PORT_UNIX };
	int error, *ends[2];

	if (count != descriptors(&host, &port, ends)) {
		log_line("port %s: its host end was not sent along; add it by `vmm ctl`",
			 port.name);
		return -EBADF;
	}
	error = make(result);
	if (error)
		return error;
	for (u32 i = 0; i < count; i++)
		*ends[i] = fds[i];
	(*result)->hosts[0] = host;
	(*result)->ports[1] = port;
	(*result)->count = 1;
	return 0;
}

int ports_make(struct machine *m, struct machine_device *d)
{
	struct ports *ports = m->ports;
	const struct virtio_console_options c = {
		.name = d->id,
		.memory = &m->memory,
		.reactors = m->reactors,
		.queue_size = m->config->console_function.queue_size,
		.features = machine_ring_features(&m->config->console_function),
		.ports = ports->ports,
		.port_count = 1 + ports->count,
		.wake_fd = ports->wake,
	};
	int error = virtio_console_create(&d->console, &c);

	if (!error) {
		ports->console = d->console;
		d->device = virtio_console_device(d->console);
	}
	return error;
}

void ports_close(struct ports *ports)
{
	for (u32 i = 0; i < ports->count; i++)
		if (ports->hosts[i].listener >= 0)
			close(ports->hosts[i].listener);
	close(ports->wake);
	free(ports);
}

/* ---- the loop ---- */

void ports_prepare(const struct ports *ports, struct pollfd *fds)
{
	for (u32 i = 0; i < PORTS_POLLS; i++)
		fds[i].fd = -1;
	fds[0] = (struct pollfd){ .fd = ports->wake, .events = POLLIN };
	for (u32 i = 0; i < ports->count; i++) {
		const struct port_host *host = &ports->hosts[i];

		if (host->listener >= 0 && host->client < 0)
			fds[1 + i] = (struct pollfd){ .fd = host->listener, .events = POLLIN };
		else if (host->client >= 0 && !host->left) /* POLLHUP: both ways are shut */
			fds[1 + i] = (struct pollfd){ .fd = host->client };
	}
}

static void take_client(struct ports *ports, u32 i)
{
	struct port_host *host = &ports->hosts[i];
	int fd = accept4(host->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), error;

	if (fd < 0)
		return;
	error = virtio_console_connect(ports->console, 1 + i, fd, fd);
	host->left = false;
	host->client = error ? -1 : fd;
	if (error)
		log_limited(&ports->lines, 10, "port %s: a client cannot be taken: %s; " MORE_FILES,
			    host->config->name, strerror(-error));
}

/* A client that has gone leaves its place, once the guest has read what it sent: the guest may not
 * be reading, and then only we see it. */
static void client_left(struct ports *ports, u32 i)
{
	struct port_host *host = &ports->hosts[i];
	int unread = 0;

	host->left = true;
	if (ioctl(host->client, FIONREAD, &unread) || !unread)
		virtio_console_hang_up(ports->console, 1 + i);
}

void ports_run(struct ports *ports, const struct pollfd *fds)
{
	eventfd_t rung;

	for (u32 i = 0; i < ports->count; i++) {
		if (!fds[1 + i].revents)
			continue;
		if (fds[1 + i].fd == ports->hosts[i].listener)
			take_client(ports, i);
		else
			client_left(ports, i);
	}
	if (!fds[0].revents)
		return;
	eventfd_read(ports->wake, &rung);
	for (u32 i = 0; i < ports->count; i++)
		if (virtio_console_reap(ports->console, 1 + i))
			ports->hosts[i].client = -1;
}

u64 ports_written(const struct ports *ports, const char *name)
{
	for (u32 i = 0; i < ports->count && ports->console; i++)
		if (!strcmp(ports->hosts[i].config->name, name))
			return virtio_console_written(ports->console, 1 + i);
	return 0;
}
