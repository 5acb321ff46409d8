/*
 * The strict checker's part that reads what a network driver puts into its queues (virtio 1.3,
 * 5.1.4 to 5.1.6). Changes nothing. On the queue's reactor.
 */
#include "virtio/net-internal.h"
#include "virtio/strict.h"

static bool has(const struct virtio_queue *queue, unsigned int feature)
{
	return virtio_has(queue->device, feature);
}

static void check_gso(struct virtio_queue *queue, const struct virtio_net_hdr_v1 *header)
{
	static const struct {
		u8 type, feature;
	} types[] = {
		{ VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_F_HOST_TSO4 },
		{ VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_F_HOST_TSO6 },
		{ VIRTIO_NET_HDR_GSO_UDP, VIRTIO_NET_F_HOST_UFO },
		{ VIRTIO_NET_HDR_GSO_UDP_L4, VIRTIO_NET_F_HOST_USO },
	};
	u8 type = header->gso_type;
	bool negotiated = !(type & VIRTIO_NET_HDR_GSO_ECN) || has(queue, VIRTIO_NET_F_HOST_ECN);
	size_t i = 0;

	while (i < ARRAY_SIZE(types) && types[i].type != (type & ~VIRTIO_NET_HDR_GSO_ECN))
		i++;
	if (i == ARRAY_SIZE(types) || !has(queue, types[i].feature) || !negotiated)
		strict_report(queue->device, queue, STRICT_NET_GSO, "type 0x%x", type);
	else if (!(header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
		strict_report(queue->device, queue, STRICT_NET_GSO, "without NEEDS_CSUM");
	else if (!header->gso_size)
		strict_report(queue->device, queue, STRICT_NET_GSO, "gso_size is 0");
}

static void check_flags(struct virtio_queue *queue, const struct virtio_net_hdr_v1 *header,
			u32 frame)
{
	u32 end = (u32)le16_load(&header->csum_start) + le16_load(&header->csum_offset) + 2;
	u8 known = has(queue, VIRTIO_NET_F_CSUM) ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0;

	if (header->flags & ~known)
		strict_report(queue->device, queue, STRICT_NET_FLAGS, "flags 0x%x", header->flags);
	if (header->num_buffers)
		strict_report(queue->device, queue, STRICT_NET_FLAGS, "num_buffers %u",
			      le16_load(&header->num_buffers));
	if (header->flags & known && end > frame)
		strict_report(queue->device, queue, STRICT_NET_FLAGS,
			      "a checksum at %u of a frame of %u", end - 2, frame);
}

static void check_transmit(struct virtio_queue *queue, const struct vq_buffer *buffer)
{
	const struct virtio_net *net = queue->device->owner;
	struct virtio_net_hdr_v1 header = { 0 };
	u32 frame;

	if (buffer->writable || buffer->readable_bytes < net->header + ETH_HLEN) {
		strict_report(queue->device, queue, STRICT_NET_HEADER,
			      "%u bytes are readable, %u writable", buffer->readable_bytes,
			      buffer->writable_bytes);
		return;
	}
	frame = buffer->readable_bytes - net->header;
	strict_read(buffer->iov, buffer->readable, 0, &header, net->header);
	check_flags(queue, &header, frame);
	if (header.gso_type != VIRTIO_NET_HDR_GSO_NONE)
		check_gso(queue, &header);
	else if (has(queue, VIRTIO_NET_F_MTU) &&
		 frame > net->mtu + (u32)(ETH_HLEN + NET_VLAN_BYTES))
		strict_report(queue->device, queue, STRICT_NET_LENGTH, "%u bytes, the MTU is %u",
			      frame, net->mtu);
}

/* 5.1.6.3.1 */
static void check_receive(struct virtio_queue *queue, const struct vq_buffer *buffer)
{
	const struct virtio_net *net = queue->device->owner;
	const u64 large = BIT64(VIRTIO_NET_F_GUEST_TSO4) | BIT64(VIRTIO_NET_F_GUEST_TSO6) |
			  BIT64(VIRTIO_NET_F_GUEST_UFO) | BIT64(VIRTIO_NET_F_GUEST_USO4) |
			  BIT64(VIRTIO_NET_F_GUEST_USO6);
	u32 least = net->header + 1514;

	if (has(queue, VIRTIO_NET_F_MRG_RXBUF))
		least = net->header;
	else if (queue->device->features & large)
		least = net->header + 65550;
	if (buffer->readable || buffer->writable_bytes < least)
		strict_report(queue->device, queue, STRICT_NET_RECEIVE,
			      "%u bytes are readable, %u writable; %u are wanted",
			      buffer->readable_bytes, buffer->writable_bytes, least);
}

static void check_control(struct virtio_queue *queue, const struct vq_buffer *buffer)
{
	static const struct {
		u8 class, feature;
	} classes[] = {
		{ VIRTIO_NET_CTRL_RX, VIRTIO_NET_F_CTRL_RX },
		{ VIRTIO_NET_CTRL_MAC, VIRTIO_NET_F_CTRL_RX },
		{ VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_F_CTRL_VLAN },
		{ VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_F_GUEST_ANNOUNCE },
		{ VIRTIO_NET_CTRL_MQ, VIRTIO_NET_F_MQ },
		{ VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS },
	};
	struct virtio_net_ctrl_hdr header = { 0 };
	unsigned int feature;
	size_t i = 0;

	if (buffer->readable_bytes < sizeof(header) || !buffer->writable_bytes) {
		strict_report(queue->device, queue, STRICT_NET_CONTROL,
			      "%u bytes are readable, %u writable", buffer->readable_bytes,
			      buffer->writable_bytes);
		return;
	}
	strict_read(buffer->iov, buffer->readable, 0, &header, sizeof(header));
	while (i < ARRAY_SIZE(classes) && classes[i].class != header.class)
		i++;
	if (i == ARRAY_SIZE(classes)) {
		strict_report(queue->device, queue, STRICT_NET_CONTROL, "class %u", header.class);
		return;
	}
	feature = classes[i].feature;
	if (header.class == VIRTIO_NET_CTRL_RX && header.cmd > VIRTIO_NET_CTRL_RX_ALLMULTI)
		feature = VIRTIO_NET_F_CTRL_RX_EXTRA;
	if (header.class == VIRTIO_NET_CTRL_MAC && header.cmd == VIRTIO_NET_CTRL_MAC_ADDR_SET)
		feature = VIRTIO_NET_F_CTRL_MAC_ADDR;
	if (!has(queue, feature))
		strict_report(queue->device, queue, STRICT_NET_CONTROL,
			      "command %u of class %u, and feature %u was not negotiated",
			      header.cmd, header.class, feature);
}

void net_strict_check(struct virtio_queue *queue, const struct vq_buffer *buffer)
{
	const struct virtio_net *net = queue->device->owner;

	if (net->ctrl_index && queue->index == net->ctrl_index)
		check_control(queue, buffer);
	else if (queue->index % 2)
		check_transmit(queue, buffer);
	else
		check_receive(queue, buffer);
}

/* 5.1.4.1: a legacy driver alone writes, and only the address. */
bool net_strict_writable(const struct virtio_device *device, u32 offset, u32 size)
{
	return device->legacy && offset + size <= ETH_ALEN;
}
