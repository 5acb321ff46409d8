/*
 * A port's two streams (virtio 1.3, 5.3.6): descriptors of the host are read and written by
 * operations on the driver's own buffers, one at a time in each direction. Each is tried first, and
 * waits (a poll) only when the host is not ready. Runs on the queues' reactor.
 */
#include "virtio/console-internal.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

static void flow_done(struct reactor_op *op, s32 result);

static void add(_Atomic u64 *counter, u64 by)
{
	if (COUNTED)
		atomic_store_explicit(counter,
				      atomic_load_explicit(counter, memory_order_relaxed) + by,
				      memory_order_relaxed);
}

static bool is_rx(const struct console_flow *flow)
{
	return flow == &flow->port->rx;
}

static const struct stream_end *end_of(const struct console_flow *flow)
{
	return is_rx(flow) ? &flow->port->stream.in : &flow->port->stream.out;
}

/* ---- buffers ---- */

void console_flow_start(struct console_flow *flow)
{
	flow->first = flow->count = flow->iov_first = flow->iov_count = 0;
	flow->ready = false;
}

/* The oldest is done with. */
static void give(struct console_flow *flow, u32 written)
{
	const struct console_chain *chain = &flow->chains[flow->first++];

	flow->count--;
	flow->iov_first = (u16)(flow->iov_first + chain->iovs);
	flow->iov_count = (u16)(flow->iov_count - chain->iovs);
	virtio_queue_push(flow->queue, chain->head, written);
	if (!flow->count)
		flow->first = flow->iov_first = 0;
}

static void give_all(struct console_flow *flow)
{
	while (flow->count) {
		if (!is_rx(flow))
			add(&flow->dropped, flow->chains[flow->first].bytes);
		give(flow, 0);
	}
}

/* Takes buffers while there are some and room for the longest; false: the driver has broken the
 * queue. Those with nothing for us in them go straight back. */
static bool take(struct console_flow *flow)
{
	struct vq_buffer buffer;
	int got = 1;

	for (u16 n = 0; n < CONSOLE_QUEUE_SIZE; n++) {
		u32 at = flow->iov_first + flow->iov_count;
		struct iovec *iov = &flow->iov[at];
		struct console_chain *chain;

		if (at + CONSOLE_QUEUE_SIZE > CONSOLE_IOVS)
			break;
		got = virtio_queue_pop(flow->queue, &buffer, iov, CONSOLE_QUEUE_SIZE);
		if (got <= 0)
			break;
		if (is_rx(flow) ? !buffer.writable : !buffer.readable) {
			virtio_queue_push(flow->queue, buffer.head, 0);
			continue;
		}
		chain = &flow->chains[flow->first + flow->count++];
		chain->head = buffer.head;
		chain->iovs = is_rx(flow) ? buffer.writable : buffer.readable;
		chain->bytes = is_rx(flow) ? buffer.writable_bytes : buffer.readable_bytes;
		if (is_rx(flow) && buffer.readable)
			memmove(iov, iov + buffer.readable, chain->iovs * sizeof(*iov));
		flow->iov_count = (u16)(flow->iov_count + chain->iovs);
	}
	return got >= 0;
}

/* n bytes have come into the oldest buffers: each that has some goes back. */
static void filled(struct console_flow *flow, u32 n)
{
	add(&flow->bytes, n);
	while (n) {
		u32 bytes = flow->chains[flow->first].bytes;

		bytes = bytes < n ? bytes : n;
		n -= bytes;
		give(flow, bytes);
	}
}

/* n bytes of the oldest buffers are out: those that are empty go back. */
static void emptied(struct console_flow *flow, u32 n)
{
	add(&flow->bytes, n);
	while (n) {
		struct console_chain *chain = &flow->chains[flow->first];
		struct iovec *iov = &flow->iov[flow->iov_first];

		if (n >= chain->bytes) {
			n -= chain->bytes;
			give(flow, 0);
			continue;
		}
		chain->bytes -= n;
		for (; n >= iov->iov_len; iov++) {
			n -= (u32)iov->iov_len;
			chain->iovs--;
			flow->iov_first++;
			flow->iov_count--;
		}
		iov->iov_base = (u8 *)iov->iov_base + n;
		iov->iov_len -= n;
		n = 0;
	}
}

/* ---- operations ---- */

static void submit(struct console_flow *flow)
{
	flow->op.done = flow_done;
	flow->op.file = end_of(flow)->file;
	flow->busy = true;
	reactor_submit(flow->queue->reactor, &flow->op);
}

static void wait(struct console_flow *flow)
{
	flow->op.code = REACTOR_POLL;
	flow->op.flags = is_rx(flow) ? POLLIN : POLLOUT;
	flow->polling = true;
	submit(flow);
}

static void transfer(struct console_flow *flow)
{
	const struct stream_end *end = end_of(flow);
	struct reactor_op *op = &flow->op;

	if (end->bounded && !flow->ready) {
		wait(flow);
		return;
	}
	flow->ready = false;
	op->code = is_rx(flow) ? REACTOR_READV : REACTOR_WRITEV;
	op->iov = &flow->iov[flow->iov_first];
	op->iov_count = flow->iov_count;
	if (end->bounded) {
		flow->bound = *op->iov;
		if (flow->bound.iov_len > STREAM_BOUND)
			flow->bound.iov_len = STREAM_BOUND;
		op->iov = &flow->bound;
		op->iov_count = 1;
	}
	op->offset = (u64)-1;
	op->flags = 0;
	op->nonblocking = !end->storage && !end->bounded;
	submit(flow);
}

/* ---- the host's end ---- */

/* Nothing of it is in flight: it is the main thread's from here on. */
static void give_back(struct console_port *port)
{
	const struct virtio_console *console = port->console;
	const u64 one = 1;

	give_all(&port->tx);
	port->connected = port->ending = port->lost = false;
	atomic_store(&port->over, true);
	if (console->wake_fd >= 0 && write(console->wake_fd, &one, sizeof(one)) < 0) {
		/* it is as loud as can be */
	}
}

/* May an ending port's end be given back yet? What the guest has sent is looked for once more. */
static void step(struct console_port *port)
{
	if (!port->ending || port->rx.busy || port->tx.busy)
		return;
	if (!port->lost && port->stream.out.fd >= 0 && virtio_queue_running(port->tx.queue))
		virtio_queue_schedule(port->tx.queue);
	else
		give_back(port);
}

void console_port_end(struct console_port *port, bool lost)
{
	if (!port->connected)
		return;
	port->lost |= lost;
	if (!port->ending) {
		port->ending = true;
		console_control_host(port, false);
	}
	if (port->rx.busy)
		reactor_cancel(port->rx.queue->reactor, &port->rx.op);
	if (port->lost && port->tx.busy)
		reactor_cancel(port->tx.queue->reactor, &port->tx.op);
	step(port);
}

void console_port_connect(struct console_port *port, const struct stream *stream)
{
	port->stream = *stream;
	port->connected = true;
	console_control_host(port, true);
	virtio_queue_schedule(port->rx.queue);
	virtio_queue_schedule(port->tx.queue);
}

/* A file that can take no more now, but may later: this is lost. True if that is how it is. */
static bool is_full(struct console_flow *flow, s32 error)
{
	struct console_port *port = flow->port;

	if (error != -ENOSPC && error != -EDQUOT && error != -EFBIG)
		return false;
	if (!port->told_full)
		log_line("%s: port %s: %s; its output has a gap until there is room again",
			 port->console->device.name, port->name, strerror(-error));
	port->told_full = true;
	give_all(flow);
	return true;
}

/* The operation has ended, and its queue still runs. */
static void moved(struct console_flow *flow, s32 result)
{
	if (result == -EAGAIN) {
		if (is_rx(flow) ? !flow->port->ending : !flow->port->lost)
			wait(flow);
	} else if (result > 0) {
		if (is_rx(flow))
			filled(flow, (u32)result);
		else
			emptied(flow, (u32)result);
	} else if (result != -ECANCELED && result != -EINTR &&
		   (is_rx(flow) || !is_full(flow, result))) {
		/* the end of the file, or a connection that is no more */
		console_port_end(flow->port, !is_rx(flow));
	}
}

static void flow_done(struct reactor_op *op, s32 result)
{
	struct console_flow *flow = container_of(op, struct console_flow, op);
	struct console_port *port = flow->port;
	bool polled = flow->polling;

	flow->busy = flow->polling = false;
	flow->ready = polled && result != -ECANCELED;
	if (!virtio_queue_running(flow->queue))
		give_all(flow);
	else if (!polled)
		moved(flow, result);
	step(port);
	virtio_queue_schedule(flow->queue);
}

void console_flow_stop(struct console_flow *flow)
{
	if (flow->busy)
		reactor_cancel(flow->queue->reactor, &flow->op);
	else
		give_all(flow);
	step(flow->port);
}

/* ---- queues ---- */

/* While the driver has to learn of one host's going and another's coming, nothing of the other's
 * reaches it. */
static bool may_read(const struct console_port *port)
{
	return port->connected && !port->ending && port->stream.in.fd >= 0 &&
	       atomic_load_explicit(&port->open, memory_order_relaxed) &&
	       !(port->due & (CONSOLE_DUE_CLOSE | CONSOLE_DUE_OPEN));
}

enum virtio_served console_rx_serve(struct console_port *port)
{
	struct console_flow *flow = &port->rx;
	bool whole;

	if (flow->busy || !may_read(port))
		return VIRTIO_SERVED_LATER;
	whole = take(flow);
	if (!flow->count)
		return whole ? VIRTIO_SERVED_ALL : VIRTIO_SERVED_LATER;
	transfer(flow);
	return VIRTIO_SERVED_LATER;
}

enum virtio_served console_tx_serve(struct console_port *port)
{
	struct console_flow *flow = &port->tx;
	bool whole;

	if (flow->busy)
		return VIRTIO_SERVED_LATER;
	whole = take(flow);
	if (!port->connected || port->lost || port->stream.out.fd < 0)
		give_all(flow);
	if (flow->count) {
		transfer(flow);
		return VIRTIO_SERVED_LATER;
	}
	if (port->ending && !port->rx.busy)
		give_back(port);
	return whole ? VIRTIO_SERVED_ALL : VIRTIO_SERVED_LATER;
}
