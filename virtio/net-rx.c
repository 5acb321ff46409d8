/*
 * Reception (virtio 1.3, 5.1.6.3 and 5.1.6.4): the tap is read straight into the driver's buffers.
 * Runs on the pair's reactor.
 *
 * A frame's size is unknown before it is read, so a read is given the buffers that the largest
 * frame needs; what a frame leaves over stays with the read, for the next frame. In flight is one
 * read that waits for the tap (armed) and, while frames come thick, a burst before it of reads that
 * do not wait; the burst grows while it finds frames and shrinks when it finds none. All go to
 * the kernel in one submit, in order.
 *
 * While the driver has given less than the largest frame needs, a poll waits instead, and the frame
 * gets what there is when it comes.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include "virtio/net-internal.h"

#define LARGE_SIZE  (NET_QUEUE_SIZE * NET_QUEUE_SIZE * sizeof(struct iovec))
#define POLL	    NET_READS /* armed: the poll */
#define NONE	    (NET_READS + 1)
#define BURST_MAX   (NET_READS - 1)
#define PROBE_AFTER 4 /* frames that came at once until a burst of one is tried again */
#define HEAD_BYTES  (NET_HEADER_MAX + ETH_HLEN + NET_VLAN_BYTES)

int net_rx_create(struct net_pair *pair)
{
	struct net_rx *rx = &pair->rx;

	/* large is 4 MiB of address space that only buffers in many pieces ever touch */
	rx->chains = calloc(NET_QUEUE_SIZE, sizeof(*rx->chains));
	rx->large = virtio_room(LARGE_SIZE);
	rx->reads = calloc(NET_READS, sizeof(*rx->reads));
	rx->armed = NONE;
	return rx->chains && rx->large && rx->reads ? 0 : -ENOMEM;
}

void net_rx_destroy(struct net_pair *pair)
{
	free(pair->rx.reads);
	virtio_room_free(pair->rx.large, LARGE_SIZE);
	free(pair->rx.chains);
}

static void read_empty(struct net_read *read)
{
	read->count = 0;
	read->iov_count = 0;
	read->capacity = 0;
}

void net_rx_start(struct net_pair *pair)
{
	struct net_rx *rx = &pair->rx;

	rx->free_count = 0;
	for (u16 i = NET_QUEUE_SIZE; i-- > 0;)
		rx->free[rx->free_count++] = i;
	rx->held_first = 0;
	rx->held_count = 0;
	for (u16 i = 0; i < NET_READS; i++)
		read_empty(&rx->reads[i]);
	rx->reading = 0;
	rx->armed = NONE;
	rx->cancelling = false;
	rx->readable = false;
	rx->depth = 0;
	rx->burst = 0;
	rx->got = 0;
	rx->at_once = 0;
}

/* ---- chains ---- */

static const struct iovec *chain_iov(const struct net_rx *rx, u16 chain)
{
	return rx->chains[chain].iov_count <= NET_CHAIN_SMALL
		       ? rx->chains[chain].small
		       : &rx->large[(size_t)chain * NET_QUEUE_SIZE];
}

static void hold(struct net_rx *rx, u16 chain)
{
	rx->held[(rx->held_first + rx->held_count++) % NET_QUEUE_SIZE] = chain;
}

static u16 unhold(struct net_rx *rx)
{
	u16 chain = rx->held[rx->held_first];

	rx->held_first = (u16)((rx->held_first + 1) % NET_QUEUE_SIZE);
	rx->held_count--;
	return chain;
}

/* Takes one more buffer from the driver into held. 1, 0: there is none, -errno. */
static int take(struct net_pair *pair)
{
	struct net_rx *rx = &pair->rx;
	struct virtio_device *device = &pair->net->device;
	struct vq_buffer buffer;
	struct net_chain *chain;
	u16 n;
	int ret;

	if (!rx->free_count)
		return 0; /* all of the ring is with us */
	ret = virtio_queue_pop(rx->queue, &buffer, rx->pop, NET_QUEUE_SIZE);
	if (ret <= 0)
		return ret;
	n = rx->free[--rx->free_count];
	chain = &rx->chains[n];
	chain->head = buffer.head;
	chain->iov_count = buffer.writable;
	/* more than any frame has, and such sums stay in 32 bits */
	chain->bytes = buffer.writable_bytes < MIB(1) ? buffer.writable_bytes : (u32)MIB(1);
	memcpy((struct iovec *)chain_iov(rx, n), buffer.iov + buffer.readable,
	       buffer.writable * sizeof(*buffer.iov));
	hold(rx, n);
	/* 5.1.6.3.1; without merging it has to hold a frame as well */
	if (!chain->bytes || (!virtio_has(device, VIRTIO_NET_F_MRG_RXBUF) &&
			      chain->bytes < pair->net->header + ETH_HLEN)) {
		virtio_device_broken(device, "a receive buffer has no room for a frame");
		return -EPROTO;
	}
	return 1;
}

/* The driver has its buffer back, with a frame or a part of one in it. */
static void give(struct net_rx *rx, u16 chain, u32 written)
{
	virtio_queue_push(rx->queue, rx->chains[chain].head, written);
	rx->free[rx->free_count++] = chain;
}

/* A read that is not in flight gives up its chains. */
static void read_release(struct net_rx *rx, struct net_read *read)
{
	for (u16 i = 0; i < read->count; i++)
		hold(rx, read->chains[read->first + i]);
	read_empty(read);
}

/* Nothing is in flight and the queue stops: the ring is forgotten, the buffers only have to be
 * accounted for. */
static void give_all(struct net_rx *rx)
{
	for (u16 i = 0; i < NET_READS; i++)
		read_release(rx, &rx->reads[i]);
	while (rx->held_count)
		give(rx, unhold(rx), 0);
}

/* ---- a frame has come ---- */

static bool gso_allowed(u64 offloads, u8 type)
{
	u64 needed;

	switch (type & ~VIRTIO_NET_HDR_GSO_ECN) {
	case VIRTIO_NET_HDR_GSO_TCPV4:
		needed = BIT64(VIRTIO_NET_F_GUEST_TSO4);
		break;
	case VIRTIO_NET_HDR_GSO_TCPV6:
		needed = BIT64(VIRTIO_NET_F_GUEST_TSO6);
		break;
	case VIRTIO_NET_HDR_GSO_UDP:
		needed = BIT64(VIRTIO_NET_F_GUEST_UFO);
		break;
	case VIRTIO_NET_HDR_GSO_UDP_L4:
		needed = BIT64(VIRTIO_NET_F_GUEST_USO4) | BIT64(VIRTIO_NET_F_GUEST_USO6);
		break;
	default:
		return false;
	}
	return (offloads & needed) == needed &&
	       (!(type & VIRTIO_NET_HDR_GSO_ECN) || offloads & BIT64(VIRTIO_NET_F_GUEST_ECN));
}

/* The kernel was told what is negotiated, but frames that waited in the tap may be older than that
 * (5.1.6.4.1). */
static bool header_allowed(const struct net_pair *pair, const u8 *head, u32 frame)
{
	const struct virtio_net *net = pair->net;
	u8 flags = head[offsetof(struct virtio_net_hdr, flags)];
	u8 gso = head[offsetof(struct virtio_net_hdr, gso_type)];
	const u8 *type = head + net->header + 2 * ETH_ALEN;
	u16 ethertype = (u16)(type[0] << 8 | type[1]);
	u32 vlan = ethertype == ETH_P_8021Q || ethertype == ETH_P_8021AD ? NET_VLAN_BYTES : 0;

	if (flags & VIRTIO_NET_HDR_F_NEEDS_CSUM &&
	    !(pair->shared.offloads & BIT64(VIRTIO_NET_F_GUEST_CSUM)))
		return false;
	if (gso != VIRTIO_NET_HDR_GSO_NONE)
		return gso_allowed(pair->shared.offloads, gso) &&
		       flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;
	return !virtio_has(&net->device, VIRTIO_NET_F_MTU) || frame <= net->mtu + ETH_HLEN + vlan;
}

static bool wanted(struct net_pair *pair, const struct net_read *read, u32 total)
{
	struct net_counters *counters = &pair->counters;
	u32 header = pair->net->header;
	u8 head[HEAD_BYTES];
	u32 size = total < sizeof(head) ? total : (u32)sizeof(head);

	if (!pair->active || !virtio_queue_running(pair->rx.queue))
		return false;
	if (total > read->capacity) {
		net_count(&counters->rx_truncated);
		return false;
	}
	if (total < header + ETH_HLEN) {
		net_count(&counters->rx_invalid);
		return false;
	}
	net_iov_read(read->iov + read->iov_first, 0, head, size);
	if (!header_allowed(pair, head, total - header)) {
		net_count(&counters->rx_invalid);
		return false;
	}
	if (!net_filter_accepts(&pair->shared.filter, head + header, size - header)) {
		net_count(&counters->rx_filtered);
		return false;
	}
	return true;
}

/* What the tap leaves to us of the header: flags if the driver has no use for them, and the number
 * of buffers, which it has in all headers but the legacy one without merging (5.1.6.4.1). */
static void header_finish(const struct net_pair *pair, const struct net_read *read, u16 buffers)
{
	const struct iovec *iov = read->iov + read->iov_first;
	u8 bytes[2];

	if (!(pair->shared.offloads & BIT64(VIRTIO_NET_F_GUEST_CSUM)))
		net_iov_write(iov, offsetof(struct virtio_net_hdr, flags), "", 1);
	if (pair->net->header < NET_HEADER_MAX)
		return;
	le16_store(bytes, buffers);
	net_iov_write(iov, offsetof(struct virtio_net_hdr_v1, num_buffers), bytes, 2);
}

/* All buffers of the frame are pushed together, so they are published together. */
static void deliver(struct net_pair *pair, struct net_read *read, u32 total)
{
	struct net_rx *rx = &pair->rx;
	u16 used = 0;

	for (u32 left = total; left; used++) {
		u32 bytes = rx->chains[read->chains[read->first + used]].bytes;

		left -= left < bytes ? left : bytes;
	}
	header_finish(pair, read, used);
	read->count = (u16)(read->count - used);
	for (; used; used--) {
		u16 n = read->chains[read->first++];
		const struct net_chain *chain = &rx->chains[n];
		u32 bytes = chain->bytes < total ? chain->bytes : total;

		read->iov_first = (u16)(read->iov_first + chain->iov_count);
		read->iov_count = (u16)(read->iov_count - chain->iov_count);
		read->capacity -= chain->bytes;
		total -= bytes;
		give(rx, n, bytes);
	}
	net_count(&pair->counters.rx_frames);
}

/* Is the tap still there? A deleted one says EFAULT to those who read, then EBADFD. */
static bool transient(s32 error)
{
	return error == -EAGAIN || error == -ECANCELED || error == -EINTR || error == -ENOMEM ||
	       error == -ENOBUFS;
}

static void operation_ended(struct net_pair *pair, s32 result)
{
	struct net_rx *rx = &pair->rx;

	if (result < 0 && !transient(result))
		net_tap_lost(pair->net, result);
	if (rx->reading)
		return;
	if (virtio_queue_running(rx->queue))
		virtio_queue_schedule(rx->queue);
	else
		give_all(rx);
}

void net_rx_arm(struct net_pair *pair)
{
	struct net_rx *rx = &pair->rx;

	rx->reading = BIT(0);
	rx->armed = 0;
	rx->reads[0].pair = pair;
	reactor_submit(rx->queue->reactor, &rx->reads[0].op);
}

void net_rx_disarmed(struct net_pair *pair, s32 result)
{
	struct net_rx *rx = &pair->rx;

	rx->reading = 0;
	rx->armed = NONE;
	rx->cancelling = false;
	operation_ended(pair, result);
}

static void read_done(struct reactor_op *op, s32 result)
{
	struct net_read *read = container_of(op, struct net_read, op);
	struct net_pair *pair = read->pair;
	struct net_rx *rx = &pair->rx;
	u16 n = (u16)(read - rx->reads);

	rx->reading &= ~BIT(n);
	if (n == rx->armed) {
		rx->armed = NONE;
		rx->cancelling = false;
		/* It was there when it was asked for, or came while nothing else did. */
		if (reactor_sweep(op->reactor) == rx->armed_sweep + 1)
			rx->at_once++;
		else
			rx->at_once = 0;
	} else if (result >= 0) {
		rx->got++;
	}
	if (result >= 0 && wanted(pair, read, (u32)result))
		deliver(pair, read, (u32)result);
	operation_ended(pair, result);
}

static void poll_done(struct reactor_op *op, s32 result)
{
	struct net_rx *rx = container_of(op, struct net_rx, poll);

	rx->reading &= ~BIT(POLL);
	rx->armed = NONE;
	rx->cancelling = false;
	rx->readable = result > 0;
	operation_ended(container_of(rx, struct net_pair, rx), result);
}

/* ---- reading ---- */

/* The lists begin at the beginning again. */
static void read_compact(struct net_read *read)
{
	memmove(read->chains, &read->chains[read->first], read->count * sizeof(read->chains[0]));
	memmove(read->iov, &read->iov[read->iov_first], read->iov_count * sizeof(read->iov[0]));
	read->first = 0;
	read->iov_first = 0;
}

/* Has it room for one more chain, and behind that for the spill? */
static bool read_has_room(struct net_read *read, const struct net_chain *chain)
{
	if (read->first + read->count < NET_QUEUE_SIZE &&
	    read->iov_first + read->iov_count + chain->iov_count < NET_READ_IOVS)
		return true;
	read_compact(read);
	return read->iov_count + chain->iov_count < NET_READ_IOVS;
}

/* Nothing is in flight: a read behind this one gives up a chain that it has no use for yet. */
static bool reclaim(struct net_rx *rx, const struct net_read *read)
{
	for (struct net_read *from = &rx->reads[NET_READS - 1]; from > read; from--) {
		u16 n;

		if (!from->count)
			continue;
		n = from->chains[from->first + --from->count];
		from->iov_count = (u16)(from->iov_count - rx->chains[n].iov_count);
		from->capacity -= rx->chains[n].bytes;
		hold(rx, n);
		return true;
	}
	return false;
}

/* Gives the read buffers for the largest frame, or as many as there are. Returns 1; 0: there are no
 * more to be had; -errno. */
static int read_fill(struct net_pair *pair, struct net_read *read)
{
	struct net_rx *rx = &pair->rx;
	bool merge = virtio_has(&pair->net->device, VIRTIO_NET_F_MRG_RXBUF);
	int ret = 1;

	while (read->capacity < pair->rx_capacity && (merge || !read->count)) {
		const struct net_chain *chain;
		const struct iovec *from;
		struct iovec *to;
		u16 n;

		if (!rx->held_count) {
			ret = take(pair);
			if (ret == 0 && reclaim(rx, read))
				ret = 1;
			if (ret <= 0)
				break;
		}
		n = rx->held[rx->held_first];
		chain = &rx->chains[n];
		if (!read_has_room(read, chain))
			break;
		from = chain_iov(rx, n);
		to = &read->iov[read->iov_first + read->iov_count];
		for (u16 i = 0; i < chain->iov_count; i++)
			to[i] = from[i];
		read->iov_count = (u16)(read->iov_count + chain->iov_count);
		read->capacity += chain->bytes;
		read->chains[read->first + read->count++] = unhold(rx);
	}
	return ret;
}

static bool read_enough(const struct net_pair *pair, const struct net_read *read)
{
	return read->capacity >= pair->rx_capacity ||
	       (read->count && !virtio_has(&pair->net->device, VIRTIO_NET_F_MRG_RXBUF));
}

int net_rx_fill(struct net_pair *pair)
{
	return read_fill(pair, &pair->rx.reads[0]);
}

int net_rx_put(struct net_pair *pair, const u8 *frame, u32 size)
{
	static const struct virtio_net_hdr_v1 none;
	struct virtio_queue *queue = pair->rx.queue;
	struct net_read *read = &pair->rx.reads[0];
	u32 header = pair->net->header, total = header + size;
	int ret = net_rx_fill(pair);

	if (ret < 0)
		return ret;
	if (read->capacity < total && !read_enough(pair, read) &&
	    queue->in_flight < queue->ring.size)
		return 0;
	if (read->capacity >= total) {
		net_iov_write(read->iov + read->iov_first, 0, &none, header);
		net_iov_write(read->iov + read->iov_first, header, frame, size);
	}
	if (wanted(pair, read, total))
		deliver(pair, read, total);
	return 1;
}

static void read_submit(struct net_pair *pair, struct net_read *read, bool waits)
{
	struct net_rx *rx = &pair->rx;

	struct iovec *iov = read->iov + read->iov_first;

	/* The tap cuts off silently what has no room, so there always is some. */
	iov[read->iov_count] = (struct iovec){ rx->spill, sizeof(rx->spill) };
	read->pair = pair;
	read->op.done = read_done;
	read->op.code = REACTOR_READV;
	read->op.file = pair->net->tap->files[pair->index];
	read->op.iov = iov;
	read->op.iov_count = read->iov_count + 1u;
	read->op.offset = (u64)-1;
	read->op.nonblocking = !waits;
	rx->reading |= BIT(read - rx->reads);
	if (waits) {
		rx->armed = (u16)(read - rx->reads);
		rx->armed_sweep = reactor_sweep(rx->queue->reactor);
	} else {
		rx->burst++;
	}
	reactor_submit(rx->queue->reactor, &read->op);
}

static void poll_submit(struct net_pair *pair)
{
	struct net_rx *rx = &pair->rx;

	rx->poll.done = poll_done;
	rx->poll.code = REACTOR_POLL;
	rx->poll.file = pair->net->tap->files[pair->index];
	rx->poll.flags = POLLIN;
	rx->reading |= BIT(POLL);
	rx->armed = POLL;
	reactor_submit(rx->queue->reactor, &rx->poll);
}

/* How many reads without waiting are worth their while, by what the last burst found. */
static void adapt(struct net_pair *pair)
{
	struct net_rx *rx = &pair->rx;

	/* A read that finds nothing keeps buffers that come before those of the next. */
	if (virtio_has(&pair->net->device, VIRTIO_F_IN_ORDER)) {
		rx->burst = 0;
		return;
	}
	if (rx->got < rx->burst) {
		rx->depth = rx->got;
		rx->at_once = 0;
	} else if (rx->burst) {
		rx->depth = rx->burst < BURST_MAX / 2 ? (u16)(rx->burst * 2) : BURST_MAX;
	} else if (rx->at_once >= PROBE_AFTER) {
		rx->depth = 1;
		rx->at_once = 0;
	}
	rx->burst = 0;
	rx->got = 0;
}

/* Nothing is in flight: a burst, as far as there are buffers for it, and the read that waits. */
static enum virtio_served read_begin(struct net_pair *pair)
{
	struct net_rx *rx = &pair->rx;
	u32 least = pair->net->header + ETH_HLEN;
	struct net_read *last = NULL;
	int ret = 1;

	adapt(pair);
	for (u16 i = 0; i <= rx->depth; i++) {
		struct net_read *read = &rx->reads[i];

		ret = read_fill(pair, read);
		if (read->capacity < least || (last && !read_enough(pair, read)))
			break;
		if (last)
			read_submit(pair, last, false);
		last = read;
		if (ret <= 0)
			break;
	}
	if (!last)
		return ret ? VIRTIO_SERVED_LATER : VIRTIO_SERVED_ALL;
	if (read_enough(pair, last)) {
		read_submit(pair, last, true);
	} else if (rx->readable) {
		read_submit(pair, last, false);
	} else {
		poll_submit(pair);
	}
	rx->readable = false;
	/* What the driver adds meanwhile is found when a frame has come. */
	return VIRTIO_SERVED_LATER;
}

enum virtio_served net_rx_serve(struct net_pair *pair)
{
	struct net_rx *rx = &pair->rx;

	if (!pair->active || atomic_load_explicit(&pair->net->lost, memory_order_relaxed))
		return VIRTIO_SERVED_LATER;
	if (rx->reading)
		return VIRTIO_SERVED_LATER;
	return pair->net->stream ? net_stream_receive(pair) : read_begin(pair);
}

/* Calls back what waits for the tap. */
static void disarm(struct net_rx *rx)
{
	if (rx->armed == NONE || rx->cancelling)
		return;
	rx->cancelling = true;
	reactor_cancel(rx->queue->reactor,
		       rx->armed == POLL ? &rx->poll : &rx->reads[rx->armed].op);
}

void net_rx_renew(struct net_pair *pair)
{
	disarm(&pair->rx);
	virtio_queue_schedule(pair->rx.queue);
}

void net_rx_stop(struct net_pair *pair)
{
	if (pair->rx.reading)
		disarm(&pair->rx);
	else
		give_all(&pair->rx);
}
