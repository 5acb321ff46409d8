/*
 * Frames over a stream (backends/passt.h), each behind its length: reception and transmission
 * (virtio 1.3, 5.1.6) on the pair's reactor, where a tap's are in net-rx.c and net-tx.c.
 *
 * A stream takes and gives any part of a frame, and a frame that was begun must be ended whatever
 * becomes of the driver's buffers meanwhile. So frames are copied: one read brings what there is,
 * one write takes what the driver has given, as much as passt sees at once. While an operation is
 * in flight, so is a buffer of its queue, which thereby does not stop before.
 */
#include <errno.h>
#include "backends/passt.h"
#include "virtio/net-internal.h"

#define PREFIX	 ((u32)sizeof(__be32))
#define IN_ROOM	 KIB(128) /* more than the largest frame */
#define OUT_ROOM (2 * PASST_WRITE)

struct net_stream {
	struct net_pair *pair;
	struct reactor_op send;
	bool sending, stopping;
	u16 heads[NET_QUEUE_SIZE]; /* of buffers in out */
	u16 head_count;
	struct iovec in_iov, out_iov;
	u32 in_first, in_end, out_first, out_end; /* of bytes that wait */
	u32 rest; /* of out: what is left of a frame that was begun for the driver before */
	u8 in[IN_ROOM], out[OUT_ROOM];
};

static u32 size_at(const u8 *prefix)
{
	__be32 size;

	memcpy(&size, prefix, sizeof(size));
	return be32toh(size);
}

/* ---- reception ---- */

static void receive_done(struct reactor_op *op, s32 result)
{
	struct net_pair *pair = container_of(op, struct net_read, op)->pair;

	if (result > 0)
		pair->net->stream->in_end += (u32)result;
	net_rx_disarmed(pair, result ? result : -ECONNRESET);
}

static void receive_more(struct net_stream *s)
{
	struct reactor_op *op = &s->pair->rx.reads[0].op;

	s->in_end -= s->in_first;
	memmove(s->in, s->in + s->in_first, s->in_end);
	s->in_first = 0;
	s->in_iov = (struct iovec){ s->in + s->in_end, sizeof(s->in) - s->in_end };
	op->done = receive_done;
	op->code = REACTOR_READV;
	op->file = s->pair->net->tap->files[0];
	op->iov = &s->in_iov;
	op->iov_count = 1;
	op->offset = (u64)-1;
	net_rx_arm(s->pair);
}

enum virtio_served net_stream_receive(struct net_pair *pair)
{
	struct net_stream *s = pair->net->stream;
	int ret;

	while (s->in_end - s->in_first >= PREFIX) {
		u32 size = size_at(s->in + s->in_first);

		if (size < ETH_HLEN || size > NET_FRAME_MAX) {
			net_tap_lost(pair->net, -EPROTO);
			return VIRTIO_SERVED_LATER;
		}
		if (s->in_end - s->in_first - PREFIX < size)
			break;
		ret = net_rx_put(pair, s->in + s->in_first + PREFIX, size);
		if (ret <= 0)
			return ret ? VIRTIO_SERVED_LATER : VIRTIO_SERVED_ALL;
		s->in_first += PREFIX + size;
	}
	ret = net_rx_fill(pair);
	if (ret < 0)
		return VIRTIO_SERVED_LATER;
	if (!pair->rx.reads[0].count)
		return VIRTIO_SERVED_ALL;
	receive_more(s);
	return VIRTIO_SERVED_LATER;
}

/* ---- transmission ---- */

static void send_rest(struct net_stream *s)
{
	s->out_iov = (struct iovec){ s->out + s->out_first, s->out_end - s->out_first };
	s->sending = true;
	reactor_submit(s->pair->tx.queue->reactor, &s->send);
}

/* The driver has its buffers back. */
static void sent(struct net_stream *s, bool well)
{
	struct net_pair *pair = s->pair;

	for (u16 i = 0; i < s->head_count; i++) {
		net_count(well ? &pair->counters.tx_frames : &pair->counters.tx_refused);
		virtio_queue_push(pair->tx.queue, s->heads[i], 0);
	}
	s->head_count = 0;
	if (virtio_queue_running(pair->tx.queue))
		virtio_queue_schedule(pair->tx.queue);
}

/* Of what waits only the frame that was begun is kept, or nothing. */
static void keep_begun(struct net_stream *s)
{
	u32 end = s->rest;

	while (end < s->out_first)
		end += PREFIX + size_at(s->out + end);
	s->rest = end - s->out_first;
	memmove(s->out, s->out + s->out_first, s->rest);
	s->out_first = 0;
	s->out_end = s->rest;
}

static void send_done(struct reactor_op *op, s32 result)
{
	struct net_stream *s = container_of(op, struct net_stream, send);
	bool again = result > 0 || result == -EAGAIN || result == -EINTR;

	s->sending = false;
	if (result > 0)
		s->out_first += (u32)result;
	if (again && !s->stopping && s->out_first < s->out_end) {
		send_rest(s);
		return;
	}
	keep_begun(s);
	if (!again && result != -ECANCELED)
		net_tap_lost(s->pair->net, result);
	sent(s, result > 0);
}

/* One frame with its length behind what is there already. False: it fits no more. */
static bool put(struct net_stream *s, const struct vq_buffer *buffer)
{
	u32 header = s->pair->net->header, size = buffer->readable_bytes - header;
	struct virtio_net_hdr_v1 checked;
	__be32 prefix;

	if (!net_tx_check(s->pair, buffer, PASST_WRITE - PREFIX, &checked)) {
		virtio_queue_push(s->pair->tx.queue, buffer->head, 0);
		return true;
	}
	if (s->out_end + PREFIX + size > PASST_WRITE + s->rest)
		return false;
	prefix = htobe32(size);
	memcpy(s->out + s->out_end, &prefix, PREFIX);
	net_iov_read(buffer->iov, header, s->out + s->out_end + PREFIX, size);
	s->out_end += PREFIX + size;
	s->heads[s->head_count++] = buffer->head;
	return true;
}

enum virtio_served net_stream_send(struct net_pair *pair)
{
	struct net_stream *s = pair->net->stream;
	struct virtio_queue *queue = pair->tx.queue;
	struct vq_buffer buffer;
	int ret = 1;

	if (s->sending)
		return VIRTIO_SERVED_LATER;
	s->stopping = false;
	while (s->head_count < NET_QUEUE_SIZE &&
	       (ret = virtio_queue_pop(queue, &buffer, pair->tx.pop, NET_QUEUE_SIZE)) > 0) {
		if (!put(s, &buffer)) {
			virtio_queue_unpop(queue, 1);
			break;
		}
	}
	if (!s->head_count)
		return ret ? VIRTIO_SERVED_LATER : VIRTIO_SERVED_ALL;
	if (!atomic_load_explicit(&pair->net->lost, memory_order_relaxed)) {
		send_rest(s);
	} else {
		keep_begun(s);
		sent(s, false);
	}
	return VIRTIO_SERVED_LATER;
}

void net_stream_stop_sending(struct net_pair *pair)
{
	struct net_stream *s = pair->net->stream;

	s->stopping = true;
	if (s->sending)
		reactor_cancel(pair->tx.queue->reactor, &s->send);
}

/* ---- making ---- */

int net_stream_create(struct virtio_net *net)
{
	struct net_stream *s = virtio_room(sizeof(*s));

	net->stream = s;
	if (!s)
		return -ENOMEM;
	s->pair = &net->pairs[0];
	s->send.done = send_done;
	s->send.code = REACTOR_WRITEV;
	s->send.file = net->tap->files[1];
	s->send.iov = &s->out_iov;
	s->send.iov_count = 1;
	s->send.offset = (u64)-1;
	return 0;
}

void net_stream_destroy(struct virtio_net *net)
{
	if (net->stream)
		virtio_room_free(net->stream, sizeof(*net->stream));
}
