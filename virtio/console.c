/*
 * The console device as a whole: what it offers, its configuration, its queues and their life; and
 * the main thread's part of it, which is to hand host ends over and take them back.
 */
#include "virtio/console-internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "virtio/strict.h"
#include "vm/json.h"

#define CONFIG(field) offsetof(struct virtio_console_config, field)

/* 5.3.2: ports from 1 on have theirs behind the control queues. NULL: of the latter. */
static struct console_port *port_of(const struct virtio_queue *queue)
{
	struct virtio_console *console = queue->device->owner;
	u32 pair = queue->index / 2;

	return pair == 1 ? NULL : &console->ports[pair ? pair - 1 : 0];
}

static struct console_flow *flow_of(const struct virtio_queue *queue)
{
	struct console_port *port = port_of(queue);

	if (!port)
		return NULL;
	return queue->index % 2 ? &port->tx : &port->rx;
}

/* ---- on the reactor ---- */

static void queue_start(struct virtio_queue *queue)
{
	struct virtio_console *console = queue->device->owner;
	struct console_flow *flow = flow_of(queue);

	if (atomic_exchange(&console->fresh, false))
		console_control_forget(console);
	if (flow)
		console_flow_start(flow);
}

static void queue_stop(struct virtio_queue *queue)
{
	struct console_flow *flow = flow_of(queue);

	if (flow)
		console_flow_stop(flow);
}

static enum virtio_served serve(struct virtio_queue *queue)
{
	struct virtio_console *console = queue->device->owner;

	if (queue->index > 1 && !console_multiport(console))
		return VIRTIO_SERVED_LATER;
	if (queue == console->control_rx)
		return console_control_rx_serve(console);
	if (queue == console->control_tx)
		return console_control_tx_serve(console);
	return queue->index % 2 ? console_tx_serve(port_of(queue))
				: console_rx_serve(port_of(queue));
}

/* ---- registers ---- */

static void start(struct virtio_device *device)
{
	struct virtio_console *console = device->owner;

	atomic_store(&console->fresh, true);
}

/* 5.3.4: a byte straight to the console, also of a driver that has set up nothing. vCPU thread. */
static void config_write(struct virtio_device *device, u32 offset, u32 size, u64 value)
{
	const struct virtio_console *console = device->owner;
	u8 byte = (u8)value;

	if (console->console && offset == CONFIG(emerg_wr) && size <= 4 &&
	    write(console->ports[0].stream.out.fd, &byte, 1) < 0) {
		/* nobody takes it now */
	}
}

static void stats(struct virtio_device *device, struct json *json)
{
	const struct virtio_console *console = device->owner;

	json_begin_array(json, "ports");
	for (u32 i = console->console ? 0 : 1; i < console->port_count; i++) {
		const struct console_port *port = &console->ports[i];

		json_begin_object(json, NULL);
		json_text(json, "name", port->name);
		json_bool(json, "open", virtio_console_is_open(console, i));
		json_number(json, "to_guest_bytes", atomic_load(&port->rx.bytes));
		json_number(json, "to_host_bytes", atomic_load(&port->tx.bytes));
		json_number(json, "dropped_bytes", atomic_load(&port->tx.dropped));
		json_end(json);
	}
	json_end(json);
}

static void detach(struct virtio_device *device)
{
	struct virtio_console *console = device->owner;

	for (u32 i = 0; i < console->port_count; i++)
		stream_unregister(&console->ports[i].stream, device->reactors);
}

static const struct virtio_device_ops console_ops = {
	.id = VIRTIO_ID_CONSOLE,
	.pci_class = 0x078000, /* simple communication, other */
	.name = "console",
	.config_write = config_write,
	.start = start,
	.queue_start = queue_start,
	.serve = serve,
	.queue_stop = queue_stop,
	.detach = detach,
	.check = console_strict_check,
	.config_writable = console_strict_writable,
	.stats = stats,
};

/* ---- the main thread's part ---- */

struct port_call {
	struct console_port *port;
	struct stream stream;
};

static void connect_run(void *arg)
{
	const struct port_call *call = arg;

	console_port_connect(call->port, &call->stream);
}

static void hang_up_run(void *arg)
{
	const struct port_call *call = arg;

	console_port_end(call->port, true);
}

static void resize_run(void *arg)
{
	const struct port_call *call = arg;

	if (call->port->ready)
		console_control_due(call->port, CONSOLE_DUE_RESIZE);
}

static void on_reactor(struct virtio_console *console, void (*fn)(void *arg),
		       struct port_call *call)
{
	reactor_call(console->device.queues[0].reactor, fn, call);
}

bool virtio_console_reap(struct virtio_console *console, u32 number)
{
	struct console_port *port = &console->ports[number];

	if (!atomic_exchange(&port->over, false))
		return false;
	stream_unregister(&port->stream, console->device.reactors);
	stream_close(&port->stream);
	reactor_files_release(console->device.reactors);
	return true;
}

int virtio_console_connect(struct virtio_console *console, u32 number, int in_fd, int out_fd)
{
	struct port_call call = { .port = &console->ports[number] };
	int error = stream_open(&call.stream, in_fd, out_fd);

	if (error)
		return error;
	error = stream_register(&call.stream, console->device.reactors);
	if (error)
		stream_close(&call.stream);
	else
		on_reactor(console, connect_run, &call);
	return error;
}

void virtio_console_hang_up(struct virtio_console *console, u32 number)
{
	on_reactor(console, hang_up_run, &(struct port_call){ .port = &console->ports[number] });
}

u64 virtio_console_written(const struct virtio_console *console, u32 port)
{
	const struct console_flow *tx = &console->ports[port].tx;

	return atomic_load_explicit(&tx->bytes, memory_order_relaxed) +
	       atomic_load_explicit(&tx->dropped, memory_order_relaxed);
}

bool virtio_console_is_open(const struct virtio_console *console, u32 number)
{
	return atomic_load(&console->device.running) && atomic_load(&console->ports[number].open);
}

void virtio_console_resize(struct virtio_console *console, u16 cols, u16 rows)
{
	u8 bytes[4];

	le16_store(bytes, cols);
	le16_store(bytes + 2, rows);
	atomic_store(&console->size, cols | (u32)rows << 16);
	virtio_config_update(&console->device, CONFIG(cols), bytes, sizeof(bytes));
	on_reactor(console, resize_run, &(struct port_call){ .port = &console->ports[0] });
}

/* ---- making ---- */

/* Every descriptor is taken over, whatever becomes of the others. */
static int open_ports(struct virtio_console *console, const struct virtio_console_options *options)
{
	int result = 0;

	for (u32 i = 0; i < options->port_count; i++) {
		const struct virtio_console_port *from = &options->ports[i];
		struct console_port *port = &console->ports[i];
		int error = stream_open(&port->stream, from->in_fd, from->out_fd);

		port->console = console;
		port->rx.port = port->tx.port = port;
		port->id = i;
		port->lasting = from->lasting;
		port->connected = !error && (from->in_fd >= 0 || from->out_fd >= 0);
		snprintf(port->name, sizeof(port->name), "%s", from->name ? from->name : "");
		if (!error)
			continue;
		log_line("%s: port %s: its descriptors are of no use: %s; give one that can be "
			 "read and one that can be written",
			 options->name, port->name, strerror(-error));
		result = error;
	}
	return result;
}

static int device_init(struct virtio_console *console, const struct virtio_console_options *options)
{
	/* MULTIPORT also where there is one: without, Linux asks for no window's size. */
	const u16 queues = (u16)(2 * options->port_count + 2);
	u8 reactor = (u8)(options->reactor % reactors_count(options->reactors));
	u8 *queue_reactor = malloc(queues);
	const struct virtio_device_config config = {
		.ops = &console_ops,
		.owner = console,
		.name = options->name,
		.memory = options->memory,
		.reactors = options->reactors,
		.features = options->features | BIT64(VIRTIO_CONSOLE_F_MULTIPORT) |
			    (options->console ? BIT64(VIRTIO_CONSOLE_F_SIZE) |
							BIT64(VIRTIO_CONSOLE_F_EMERG_WRITE)
					      : 0),
		.config_size = sizeof(struct virtio_console_config),
		.queue_count = queues,
		.queue_size = CONSOLE_QUEUE_SIZE,
		.queue_offer = options->queue_size,
		.queue_reactor = queue_reactor,
	};
	int error;

	if (!queue_reactor)
		return -ENOMEM;
	memset(queue_reactor, reactor, queues);
	error = virtio_device_init(&console->device, &config);
	free(queue_reactor);
	if (error)
		return error;
	if (options->console) {
		le16_store(console->device.config + CONFIG(cols), options->cols);
		le16_store(console->device.config + CONFIG(rows), options->rows);
	}
	le32_store(console->device.config + CONFIG(max_nr_ports), options->port_count);
	console->control_rx = &console->device.queues[2];
	console->control_tx = &console->device.queues[3];
	console->control_rx->untimed = true;
	return 0;
}

int virtio_console_create(struct virtio_console **result,
			  const struct virtio_console_options *options)
{
	struct virtio_console *console = calloc(1, sizeof(*console));
	int error = -ENOMEM;

	if (console)
		console->ports = calloc(options->port_count, sizeof(*console->ports));
	if (!console || !console->ports) {
		free(console);
		log_line("%s: out of memory; free some", options->name);
		return error;
	}
	console->console = options->console;
	console->wake_fd = options->wake_fd;
	atomic_init(&console->size, options->cols | (u32)options->rows << 16);
	error = open_ports(console, options);
	if (!error)
		error = device_init(console, options);
	if (error) {
		for (u32 i = 0; i < options->port_count; i++)
			stream_close(&console->ports[i].stream);
		free(console->ports);
		free(console);
		return error;
	}
	for (u32 i = 0; i < options->port_count && !error; i++) {
		struct console_port *port = &console->ports[i];

		port->rx.queue = &console->device.queues[i ? 2 * i + 2 : 0];
		port->tx.queue = &console->device.queues[i ? 2 * i + 3 : 1];
		port->rx.queue->untimed = true;
		error = stream_register(&port->stream, options->reactors);
		console->port_count++;
	}
	if (error) {
		log_line("%s: its ports cannot be registered: %s", options->name, strerror(-error));
		virtio_device_detach(&console->device);
		virtio_console_destroy(console);
		return error;
	}
	*result = console;
	return 0;
}

struct virtio_device *virtio_console_device(struct virtio_console *console)
{
	return &console->device;
}

void virtio_console_destroy(struct virtio_console *console)
{
	if (!console)
		return;
	for (u32 i = 0; i < console->port_count; i++)
		stream_close(&console->ports[i].stream);
	virtio_device_destroy(&console->device);
	free(console->ports);
	free(console);
}
