/*
 * Console device (virtio 1.3, 5.3): streams of bytes between descriptors of the host and ports of
 * the guest. Port 0 is its console (hvc0) or nothing; the others have names, by which guests find
 * them (/dev/virtio-ports/NAME), and need MULTIPORT. Queue work runs on one reactor.
 *
 * A port reads its host's bytes straight into the driver's buffers, and only while there are some,
 * so whoever writes to a guest that does not read is held up as by any pipe. What the guest writes
 * goes straight from its buffers, which it gets back when the host has taken them: one stuck reader
 * holds up its own port alone.
 *
 * Ends: when reading finds the end of file (or the connection is broken) the guest's port is
 * closed, behind the last byte; what the guest has sent by then is still written, then the host's
 * end is given back. When the guest closes its port, the host's end is given back behind its last
 * byte.
 */
#ifndef VIRTIO_CONSOLE_H
#define VIRTIO_CONSOLE_H

#include "virtio/device.h"

struct virtio_console;

#define VIRTIO_CONSOLE_NAME_MAX 63 /* as CONFIG_PORT_NAME_MAX */

struct virtio_console_port {
	const char *name; /* up to VIRTIO_CONSOLE_NAME_MAX letters; NULL: port 0 */
	/* What is read for the guest and written from it; -1: none. Taken over (backends/stream.h).
	 */
	int in_fd, out_fd;
	bool lasting; /* the guest's closing of its port leaves the host's end as it is */
};

struct virtio_console_options {
	const char *name; /* "console0" */
	const struct memory *memory;
	struct reactors *reactors;
	u32 reactor;	/* number of the one that serves all queues */
	u16 queue_size; /* offered; 0: as large as can be */
	u64 features;	/* of VIRTIO_OPTIONAL, those offered */
	/* port 0 is a console: SIZE and EMERG_WRITE are offered */
	bool console;
	u16 cols, rows;
	/* MULTIPORT is offered if there are more than one. Read during the call alone. */
	const struct virtio_console_port *ports;
	u32 port_count; /* at least 1 */
	int wake_fd;	/* eventfd, rung when an end is to be given back; -1: nobody takes it */
};

/* The descriptors are the device's from here on, also after an error. Before reactors_start(). 0 or
 * -errno (logged). Main thread. */
int virtio_console_create(struct virtio_console **console,
			  const struct virtio_console_options *options);
struct virtio_device *virtio_console_device(struct virtio_console *console);
/* As virtio_device_destroy(); closes what is left of the host's ends. */
void virtio_console_destroy(struct virtio_console *console);

/* The port's host end, given back since the last call, is closed. False: there was none. The
 * reactors run. Main thread. */
bool virtio_console_reap(struct virtio_console *console, u32 port);
/* A new end for a port that has none, as in virtio_console_port. 0 or -errno, and then both are
 * closed. The reactors run. Main thread. */
int virtio_console_connect(struct virtio_console *console, u32 port, int in_fd, int out_fd);
/* Has the end given back, what was not written yet is lost. The reactors run. Main thread. */
void virtio_console_hang_up(struct virtio_console *console, u32 port);

/* Bytes that the guest has written to the port in all and that are with whoever reads them, or lost
 * because nobody does. Any thread. */
u64 virtio_console_written(const struct virtio_console *console, u32 port);

/* Has a driver opened the port? Any thread. */
bool virtio_console_is_open(const struct virtio_console *console, u32 port);
/* The console's window. Any thread, the device's lock not held; the reactors run. */
void virtio_console_resize(struct virtio_console *console, u16 cols, u16 rows);

#endif
