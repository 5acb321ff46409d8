/*
 * What the files of the console device share: console.c (the device and its life), console-port.c
 * (streams), console-control.c (control messages, strict rules).
 *
 * All that is in a port belongs to the reactor that serves the device's queues, but for what is
 * atomic and, while the port has no host end, `stream`, which is the main thread's.
 */
#ifndef VIRTIO_CONSOLE_INTERNAL_H
#define VIRTIO_CONSOLE_INTERNAL_H

#include <linux/virtio_console.h>
#include <stdatomic.h>
#include "backends/stream.h"
#include "virtio/console.h"
#include "vm/config.h"

#define CONSOLE_QUEUE_SIZE CONFIG_PORT_QUEUE_SIZE
#define CONSOLE_IOVS	   (4 * CONSOLE_QUEUE_SIZE)

/* A buffer taken from a queue: the next `iovs` of its flow's. */
struct console_chain {
	u16 head, iovs;
	u32 bytes;
};

/* One direction of a port: buffers taken from its queue, and the one operation that fills or
 * empties the oldest of them. */
struct console_flow {
	struct console_port *port;
	struct virtio_queue *queue;
	struct reactor_op op;
	bool busy;    /* op is in flight */
	bool polling; /* it waits for the host */
	bool ready;   /* and has waited, since the last transfer */
	u16 first, count, iov_first, iov_count;
	struct iovec bound; /* the piece that a bounded end takes */
	_Atomic u64 bytes, dropped;
	struct console_chain chains[CONSOLE_IOVS];
	struct iovec iov[CONSOLE_IOVS];
};

/* Control messages that a port's driver has to be told, in this order. */
enum console_due {
	CONSOLE_DUE_ADD = BIT(0),
	CONSOLE_DUE_CONSOLE = BIT(1),
	CONSOLE_DUE_NAME = BIT(2),
	CONSOLE_DUE_CLOSE = BIT(3), /* of a host that is gone, before ... */
	CONSOLE_DUE_OPEN = BIT(4),  /* ... the next */
	CONSOLE_DUE_RESIZE = BIT(5),
};

struct console_port {
	struct virtio_console *console;
	u32 id;
	char name[VIRTIO_CONSOLE_NAME_MAX + 1]; /* "": none */
	bool lasting;
	struct stream stream;
	bool connected; /* stream is ours to use */
	bool ending;	/* and to be given back, when what was taken is written, ... */
	bool lost;	/* ... or at once: nobody takes it */
	bool told_full;
	bool ready;		    /* the driver knows the port */
	u32 due;		    /* enum console_due */
	_Atomic bool open;	    /* by the driver */
	_Atomic bool over;	    /* stream is given back */
	struct console_flow rx, tx; /* into the guest, out of it */
};

struct virtio_console {
	struct virtio_device device;
	bool console;
	int wake_fd;
	_Atomic bool fresh; /* a driver has begun, and its queues have not */
	bool added;	    /* it was told of the ports */
	_Atomic u32 size;   /* columns, and rows above bit 16 */
	struct virtio_queue *control_rx, *control_tx;
	struct iovec iov[CONSOLE_QUEUE_SIZE];	      /* of the control queues */
	u32 port_count;
	struct console_port *ports;
};

/* The queue carries control messages. */
static inline bool console_is_control(const struct virtio_queue *queue)
{
	return queue->index / 2 == 1;
}

static inline bool console_multiport(const struct virtio_console *console)
{
	return virtio_has(&console->device, VIRTIO_CONSOLE_F_MULTIPORT);
}

/* ---- console-port.c, on the reactor ---- */

enum virtio_served console_rx_serve(struct console_port *port);
enum virtio_served console_tx_serve(struct console_port *port);
/* Operations of the reactors of the same name, for a port's queues. */
void console_flow_start(struct console_flow *flow);
void console_flow_stop(struct console_flow *flow);
/* The port has a host end from now on. */
void console_port_connect(struct console_port *port, const struct stream *stream);
/* It is to be given back; lost: without regard to what it has not taken yet. */
void console_port_end(struct console_port *port, bool lost);

/* ---- console-control.c, on the reactor ---- */

enum virtio_served console_control_rx_serve(struct virtio_console *console);
enum virtio_served console_control_tx_serve(struct virtio_console *console);
/* A driver begins: what another said is forgotten. */
void console_control_forget(struct virtio_console *console);
/* The host has come, or gone. */
void console_control_host(struct console_port *port, bool open);
void console_control_due(struct console_port *port, enum console_due due);
/* virtio_device_ops.check and .config_writable */
void console_strict_check(struct virtio_queue *queue, const struct vq_buffer *buffer);
bool console_strict_writable(const struct virtio_device *device, u32 offset, u32 size);

#endif
