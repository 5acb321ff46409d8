/*
 * The console device's control messages (virtio 1.3, 5.3.6.2), which come and go through queues 2
 * and 3 once MULTIPORT is negotiated; and what the strict checker sees of a console driver.
 *
 * What a driver has to be told is kept as one bit for each kind of message and port, so there is
 * never more of it than that, whatever the host or the driver do and however late the driver gives
 * buffers. On the queues' reactor.
 */
#include "virtio/console-internal.h"
#include "virtio/strict.h"

/* ---- to the driver ---- */

void console_control_due(struct console_port *port, enum console_due due)
{
	port->due |= due;
	if (port->console->control_rx)
		virtio_queue_schedule(port->console->control_rx);
}

void console_control_host(struct console_port *port, bool open)
{
	if (!port->ready)
		return;
	if (!open && port->due & CONSOLE_DUE_OPEN)
		port->due &= ~(u32)CONSOLE_DUE_OPEN; /* it came and went, and nobody saw it */
	else
		console_control_due(port, open ? CONSOLE_DUE_OPEN : CONSOLE_DUE_CLOSE);
}

void console_control_forget(struct virtio_console *console)
{
	console->added = false;
	for (u32 i = 0; i < console->port_count; i++) {
		struct console_port *port = &console->ports[i];

		port->ready = false;
		port->due = 0;
		atomic_store(&port->open, i == 0 && !console_multiport(console));
	}
}

/* The message for the lowest bit that is due, to[]; its bytes. */
static u32 compose(const struct console_port *port, u32 due, u8 *to)
{
	static const struct {
		u16 event, value;
	} messages[] = {
		{ VIRTIO_CONSOLE_PORT_ADD, 1 },	 { VIRTIO_CONSOLE_CONSOLE_PORT, 1 },
		{ VIRTIO_CONSOLE_PORT_NAME, 1 }, { VIRTIO_CONSOLE_PORT_OPEN, 0 },
		{ VIRTIO_CONSOLE_PORT_OPEN, 1 }, { VIRTIO_CONSOLE_RESIZE, 0 },
	};
	u32 size = atomic_load(&port->console->size), n = sizeof(struct virtio_console_control);
	u32 kind = (u32)__builtin_ctz(due);

	le32_store(to, port->id);
	le16_store(to + 4, messages[kind].event);
	le16_store(to + 6, messages[kind].value);
	if (BIT(kind) == CONSOLE_DUE_NAME) { /* without a NUL */
		memcpy(to + n, port->name, strlen(port->name));
		n += (u32)strlen(port->name);
	}
	if (BIT(kind) == CONSOLE_DUE_RESIZE) {
		le16_store(to + n, (u16)size);
		le16_store(to + n + 2, (u16)(size >> 16));
		n += 4;
	}
	return n;
}

/* Between a list of buffers and size bytes; false: they have not that many. */
static bool copy(const struct iovec *iov, u16 count, u8 *bytes, u32 size, bool into)
{
	for (u16 i = 0; i < count && size; i++) {
		u32 n = iov[i].iov_len < size ? (u32)iov[i].iov_len : size;

		memcpy(into ? iov[i].iov_base : bytes, into ? bytes : iov[i].iov_base, n);
		bytes += n;
		size -= n;
	}
	return !size;
}

/* 1, or 0: the driver has given no buffer that serves. */
static int send(struct console_port *port)
{
	u8 message[sizeof(struct virtio_console_control) + VIRTIO_CONSOLE_NAME_MAX];
	struct virtio_console *console = port->console;
	u32 due = port->due & -port->due, n = compose(port, due, message);
	struct vq_buffer buffer;

	if (virtio_queue_pop(console->control_rx, &buffer, console->iov, CONSOLE_QUEUE_SIZE) != 1)
		return 0;
	if (!copy(buffer.iov + buffer.readable, buffer.writable, message, n, true)) {
		virtio_device_broken(&console->device,
				     "a buffer has no room for a control message");
		virtio_queue_unpop(console->control_rx, 1);
		return 0;
	}
	virtio_queue_push(console->control_rx, buffer.head, n);
	port->due &= ~due;
	if (due & (CONSOLE_DUE_OPEN | CONSOLE_DUE_CLOSE))
		virtio_queue_schedule(port->rx.queue);
	return 1;
}

enum virtio_served console_control_rx_serve(struct virtio_console *console)
{
	for (u32 i = 0; i < console->port_count; i++)
		while (console->ports[i].due)
			if (!send(&console->ports[i]))
				return VIRTIO_SERVED_ALL;
	return VIRTIO_SERVED_LATER; /* buffers stay where they are until something is due */
}

/* ---- from the driver ---- */

/* 5.3.6.2: once from reset to reset, since a port must not be added that is there. */
static void device_ready(struct virtio_console *console)
{
	if (console->added)
		return;
	console->added = true;
	for (u32 i = console->console ? 0 : 1; i < console->port_count; i++)
		console_control_due(&console->ports[i], CONSOLE_DUE_ADD);
}

static void port_ready(struct console_port *port)
{
	u32 due = *port->name ? CONSOLE_DUE_NAME : 0;

	if (port->ready)
		return;
	port->ready = true;
	if (port->id == 0)
		due |= CONSOLE_DUE_CONSOLE | CONSOLE_DUE_RESIZE;
	if (port->connected && !port->ending)
		due |= CONSOLE_DUE_OPEN;
	console_control_due(port, due);
}

static void port_open(struct console_port *port, bool open)
{
	if (atomic_exchange(&port->open, open) == open)
		return;
	if (open)
		virtio_queue_schedule(port->rx.queue);
	else if (!port->lasting)
		console_port_end(port, false);
}

static void handle(struct virtio_console *console, const u8 *message)
{
	u32 id = le32_load(message);
	u16 event = le16_load(message + 4), value = le16_load(message + 6);
	struct console_port *port = id < console->port_count ? &console->ports[id] : NULL;
	const char *what = NULL;

	if (event == VIRTIO_CONSOLE_DEVICE_READY) {
		if (value)
			device_ready(console);
		return;
	}
	if (!port || !console->added || (id == 0 && !console->console))
		what = "there is no such port";
	else if (event == VIRTIO_CONSOLE_PORT_READY && value)
		port_ready(port);
	else if (event == VIRTIO_CONSOLE_PORT_OPEN && port->ready)
		port_open(port, value);
	else if (event == VIRTIO_CONSOLE_PORT_OPEN)
		what = "the port is not ready";
	else if (event != VIRTIO_CONSOLE_PORT_READY)
		what = "a driver sends none such";
	if (what && console->device.strict)
		strict_report(&console->device, console->control_tx, STRICT_CONSOLE_CONTROL,
			      "event %u for port %u: %s", event, id, what);
}

enum virtio_served console_control_tx_serve(struct virtio_console *console)
{
	u8 message[sizeof(struct virtio_console_control)];
	struct vq_buffer buffer;
	int got = 0;

	for (u16 n = 0; n < CONSOLE_QUEUE_SIZE; n++) {
		got = virtio_queue_pop(console->control_tx, &buffer, console->iov,
				       CONSOLE_QUEUE_SIZE);
		if (got != 1)
			break;
		if (copy(buffer.iov, buffer.readable, message, sizeof(message), false))
			handle(console, message);
		virtio_queue_push(console->control_tx, buffer.head, 0);
	}
	return got < 0 ? VIRTIO_SERVED_LATER : VIRTIO_SERVED_ALL;
}

/* ---- the strict checker ---- */

void console_strict_check(struct virtio_queue *queue, const struct vq_buffer *buffer)
{
	bool sends = queue->index % 2;
	u32 least = !console_is_control(queue) ? 1 : (u32)sizeof(struct virtio_console_control);

	if (sends ? buffer->writable || buffer->readable_bytes < least
		  : buffer->readable || buffer->writable_bytes < least)
		strict_report(queue->device, queue, STRICT_CONSOLE_BUFFER,
			      "%u bytes are readable, %u writable", buffer->readable_bytes,
			      buffer->writable_bytes);
}

/* 5.3.4: the emergency write alone. */
bool console_strict_writable(const struct virtio_device *device, u32 offset, u32 size)
{
	return device->offered & BIT64(VIRTIO_CONSOLE_F_EMERG_WRITE) &&
	       offset == offsetof(struct virtio_console_config, emerg_wr) && size <= 4;
}
