/*
 * Transmission (virtio 1.3, 5.1.6.2): each frame is one write of the driver's own buffers to the
 * tap. Only the header is copied, checked, and handed over from our copy, so that the kernel sees
 * what we checked. Runs on the pair's reactor.
 */
#include <errno.h>
#include <stdlib.h>
#include "virtio/net-internal.h"

#define LARGE_IOVS (NET_QUEUE_SIZE + 1)
#define LARGE_SIZE (NET_QUEUE_SIZE * LARGE_IOVS * sizeof(struct iovec))

int net_tx_create(struct net_pair *pair)
{
	struct net_tx *tx = &pair->tx;

	/* large is 4 MiB of address space that only frames in many pieces ever touch */
	tx->writes = calloc(NET_QUEUE_SIZE, sizeof(*tx->writes));
	tx->large = virtio_room(LARGE_SIZE);
	return tx->writes && tx->large ? 0 : -ENOMEM;
}

void net_tx_destroy(struct net_pair *pair)
{
	virtio_room_free(pair->tx.large, LARGE_SIZE);
	free(pair->tx.writes);
}

void net_tx_start(struct net_pair *pair)
{
	struct net_tx *tx = &pair->tx;

	/* the lowest on top: few in flight use few, always the same */
	tx->free_count = 0;
	for (u16 i = NET_QUEUE_SIZE; i-- > 0;)
		tx->free[tx->free_count++] = i;
	tx->starved = false;
}

/* The GSO types that the driver may ask for are those it negotiated (5.1.6.2). */
static bool gso_allowed(const struct virtio_device *device, u8 type)
{
	bool ecn = type & VIRTIO_NET_HDR_GSO_ECN;

	switch (type & ~VIRTIO_NET_HDR_GSO_ECN) {
	case VIRTIO_NET_HDR_GSO_TCPV4:
		return virtio_has(device, VIRTIO_NET_F_HOST_TSO4) &&
		       (!ecn || virtio_has(device, VIRTIO_NET_F_HOST_ECN));
	case VIRTIO_NET_HDR_GSO_TCPV6:
		return virtio_has(device, VIRTIO_NET_F_HOST_TSO6) &&
		       (!ecn || virtio_has(device, VIRTIO_NET_F_HOST_ECN));
	case VIRTIO_NET_HDR_GSO_UDP:
		return !ecn && virtio_has(device, VIRTIO_NET_F_HOST_UFO);
	case VIRTIO_NET_HDR_GSO_UDP_L4:
		return !ecn && virtio_has(device, VIRTIO_NET_F_HOST_USO);
	}
	return false;
}

/* Makes of the driver's header one that means the same and holds nothing else, or refuses. frame:
 * bytes after the header. */
static bool header_check(const struct virtio_device *device, struct virtio_net_hdr_v1 *header,
			 u32 frame)
{
	/* Flags that we do not know are ignored; DATA_VALID is for the other direction. */
	bool csum = header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM &&
		    virtio_has(device, VIRTIO_NET_F_CSUM);
	u32 start = le16_load(&header->csum_start), offset = le16_load(&header->csum_offset);
	u32 length = le16_load(&header->hdr_len);
	u16 size = le16_load(&header->gso_size);
	u8 gso = header->gso_type;

	memset(header, 0, sizeof(*header));
	if (csum) {
		if (start + offset + 2 > frame)
			return false;
		header->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
		le16_store(&header->csum_start, (u16)start);
		le16_store(&header->csum_offset, (u16)offset);
	}
	if (gso == VIRTIO_NET_HDR_GSO_NONE)
		return true;
	if (!csum || !size || !gso_allowed(device, gso))
		return false;
	header->gso_type = gso;
	le16_store(&header->gso_size, size);
	/* a hint that drivers get wrong; the tap refuses one past the frame's end */
	le16_store(&header->hdr_len, (u16)(length < frame ? length : frame));
	return true;
}

/* The header's copy, then the buffers from `skip` bytes on. */
static u32 gather(struct iovec *to, struct net_write *write, const struct vq_buffer *buffer,
		  u32 skip)
{
	u32 count = 1;

	to[0] = (struct iovec){ &write->header, skip };
	for (u16 i = 0; i < buffer->readable; i++) {
		const struct iovec *from = &buffer->iov[i];

		if (from->iov_len <= skip) {
			skip -= (u32)from->iov_len;
			continue;
		}
		to[count++] = (struct iovec){ (u8 *)from->iov_base + skip, from->iov_len - skip };
		skip = 0;
	}
	return count;
}

static void write_done(struct reactor_op *op, s32 result)
{
	struct net_write *write = container_of(op, struct net_write, op);
	struct net_pair *pair = write->pair;
	struct virtio_net *net = pair->net;
	struct net_tx *tx = &pair->tx;

	write->busy = false;
	tx->free[tx->free_count++] = (u16)(write - tx->writes);
	if (result >= 0) {
		net_count(&pair->counters.tx_frames);
	} else if (result == -EBADFD || result == -ENODEV) {
		net_tap_lost(net, result);
	} else if (result != -ECANCELED) {
		net_count(&pair->counters.tx_refused);
		if (result == -EIO)
			log_limited(&net->down_lines, 10,
				    "%s: %s is down, frames are dropped; `sudo ip link set %s up`",
				    net->device.name, net->tap->name, net->tap->name);
		else
			log_limited(&net->tx_lines, 10, "%s: %s refuses a frame: %s",
				    net->device.name, net->tap->name, strerror(-result));
	}
	virtio_queue_push(tx->queue, write->head, 0);
	if (tx->starved) {
		tx->starved = false;
		virtio_queue_schedule(tx->queue);
	}
}

bool net_tx_check(struct net_pair *pair, const struct vq_buffer *buffer, u32 most,
		  struct virtio_net_hdr_v1 *header)
{
	struct virtio_net *net = pair->net;
	u32 size = buffer->readable_bytes;

	if (size >= net->header + ETH_HLEN && size <= net->header + most) {
		net_iov_read(buffer->iov, 0, header, net->header);
		if (header_check(&net->device, header, size - net->header))
			return true;
	}
	net_count(&pair->counters.tx_invalid);
	log_limited(&net->tx_lines, 10,
		    "%s: the driver sent a frame with a bad header or size; it is dropped",
		    net->device.name);
	return false;
}

/* False: not a frame that can go out. */
static bool submit(struct net_pair *pair, const struct vq_buffer *buffer)
{
	struct virtio_net *net = pair->net;
	struct net_tx *tx = &pair->tx;
	struct net_write *write = &tx->writes[tx->free[tx->free_count - 1]];
	u32 header = net->header;
	struct iovec *iov = write->small;

	if (!net_tx_check(pair, buffer, NET_FRAME_MAX, &write->header))
		return false;
	if (buffer->readable >= NET_WRITE_SMALL)
		iov = &tx->large[(size_t)(write - tx->writes) * LARGE_IOVS];
	write->pair = pair;
	write->head = buffer->head;
	write->busy = true;
	write->op.done = write_done;
	write->op.code = REACTOR_WRITEV;
	write->op.file = net->tap->files[pair->index];
	write->op.iov_count = gather(iov, write, buffer, header);
	write->op.iov = iov;
	write->op.offset = (u64)-1;
	tx->free_count--;
	reactor_submit(tx->queue->reactor, &write->op);
	return true;
}

enum virtio_served net_tx_serve(struct net_pair *pair)
{
	struct net_tx *tx = &pair->tx;
	struct vq_buffer buffer;
	int ret;

	/* Frames on a queue that is not in use stay where they are (5.1.6.5.5). */
	if (!pair->active)
		return VIRTIO_SERVED_LATER;
	if (pair->net->stream)
		return net_stream_send(pair);
	while (tx->free_count) {
		ret = virtio_queue_pop(tx->queue, &buffer, tx->pop, NET_QUEUE_SIZE);
		if (ret <= 0)
			return ret ? VIRTIO_SERVED_LATER : VIRTIO_SERVED_ALL;
		if (atomic_load_explicit(&pair->net->lost, memory_order_relaxed)) {
			net_count(&pair->counters.tx_refused);
			virtio_queue_push(tx->queue, buffer.head, 0);
		} else if (!submit(pair, &buffer)) {
			virtio_queue_push(tx->queue, buffer.head, 0);
		}
	}
	tx->starved = true;
	return VIRTIO_SERVED_LATER;
}

void net_tx_stop(struct net_pair *pair)
{
	struct net_tx *tx = &pair->tx;

	if (pair->net->stream)
		net_stream_stop_sending(pair);
	for (u16 i = 0; i < NET_QUEUE_SIZE && tx->free_count < NET_QUEUE_SIZE; i++)
		if (tx->writes[i].busy)
			reactor_cancel(tx->queue->reactor, &tx->writes[i].op);
}
