/*
 * The control virtqueue (virtio 1.3, 5.1.6.5): receive modes, MAC and VLAN tables, announcement,
 * number of queue pairs, guest offloads. Runs on the control queue's reactor, a command at a time;
 * one that changes what pairs do is used only when all of them do it.
 */
#include <errno.h>
#include "virtio/net-internal.h"

/* What a command's data is read with: each byte once. */
struct reader {
	const struct iovec *iov;
	u32 offset; /* in all of it */
	u32 left;
};

static bool reader_take(struct reader *reader, void *to, u32 size)
{
	if (reader->left < size)
		return false;
	net_iov_read(reader->iov, reader->offset, to, size);
	reader->offset += size;
	reader->left -= size;
	return true;
}

static bool reader_skip(struct reader *reader, u64 size)
{
	if (reader->left < size)
		return false;
	reader->offset += (u32)size;
	reader->left -= (u32)size;
	return true;
}

/* ---- commands: true is VIRTIO_NET_OK ---- */

static bool receive_mode(struct virtio_net *net, u8 command, struct reader *data)
{
	struct net_filter *filter = &net->shared.filter;
	bool *const modes[] = {
		[VIRTIO_NET_CTRL_RX_PROMISC] = &filter->promisc,
		[VIRTIO_NET_CTRL_RX_ALLMULTI] = &filter->allmulti,
		[VIRTIO_NET_CTRL_RX_ALLUNI] = &filter->alluni,
		[VIRTIO_NET_CTRL_RX_NOMULTI] = &filter->nomulti,
		[VIRTIO_NET_CTRL_RX_NOUNI] = &filter->nouni,
		[VIRTIO_NET_CTRL_RX_NOBCAST] = &filter->nobcast,
	};
	unsigned int needed = command <= VIRTIO_NET_CTRL_RX_ALLMULTI ? VIRTIO_NET_F_CTRL_RX
								     : VIRTIO_NET_F_CTRL_RX_EXTRA;
	u8 on;

	if (command >= ARRAY_SIZE(modes) || !virtio_has(&net->device, needed) ||
	    !reader_take(data, &on, sizeof(on)))
		return false;
	pthread_mutex_lock(&net->lock);
	*modes[command] = on;
	pthread_mutex_unlock(&net->lock);
	return true;
}

struct mac_table {
	u16 count;
	bool overflow;
	u8 macs[NET_FILTER_MACS][ETH_ALEN];
};

/* One of the two tables. More entries than we have room for: no error, but none of them counts and
 * all frames of the kind come (5.1.6.5.2). */
static bool table_take(struct reader *data, struct mac_table *table)
{
	u8 bytes[4];
	u32 count;

	if (!reader_take(data, bytes, sizeof(bytes)))
		return false;
	count = le32_load(bytes);
	table->overflow = count > NET_FILTER_MACS;
	table->count = table->overflow ? 0 : (u16)count;
	if (table->overflow)
		return reader_skip(data, (u64)count * ETH_ALEN);
	return reader_take(data, table->macs, count * ETH_ALEN);
}

static bool mac_table_set(struct virtio_net *net, struct reader *data)
{
	struct net_filter *filter = &net->shared.filter;
	struct mac_table unicast, multicast;

	if (!virtio_has(&net->device, VIRTIO_NET_F_CTRL_RX) || !table_take(data, &unicast) ||
	    !table_take(data, &multicast))
		return false;
	pthread_mutex_lock(&net->lock);
	filter->unicast_count = unicast.count;
	filter->unicast_overflow = unicast.overflow;
	memcpy(filter->unicast, unicast.macs, (size_t)unicast.count * ETH_ALEN);
	filter->multicast_count = multicast.count;
	filter->multicast_overflow = multicast.overflow;
	memcpy(filter->multicast, multicast.macs, (size_t)multicast.count * ETH_ALEN);
	pthread_mutex_unlock(&net->lock);
	return true;
}

static bool mac_addr_set(struct virtio_net *net, struct reader *data)
{
	u8 mac[ETH_ALEN];

	if (!virtio_has(&net->device, VIRTIO_NET_F_CTRL_MAC_ADDR) ||
	    !reader_take(data, mac, sizeof(mac)))
		return false;
	pthread_mutex_lock(&net->lock);
	memcpy(net->shared.filter.mac, mac, sizeof(mac));
	net->shared.filter.mac_known = true;
	pthread_mutex_unlock(&net->lock);
	if (virtio_has(&net->device, VIRTIO_NET_F_MAC))
		virtio_config_update(&net->device, offsetof(struct virtio_net_space, mac), mac,
				     sizeof(mac));
	return true;
}

static bool mac_command(struct virtio_net *net, u8 command, struct reader *data)
{
	switch (command) {
	case VIRTIO_NET_CTRL_MAC_TABLE_SET:
		return mac_table_set(net, data);
	case VIRTIO_NET_CTRL_MAC_ADDR_SET:
		return mac_addr_set(net, data);
	}
	return false;
}

static bool vlan_command(struct virtio_net *net, u8 command, struct reader *data)
{
	u8 bytes[2];
	u16 id;

	if (!virtio_has(&net->device, VIRTIO_NET_F_CTRL_VLAN) ||
	    (command != VIRTIO_NET_CTRL_VLAN_ADD && command != VIRTIO_NET_CTRL_VLAN_DEL) ||
	    !reader_take(data, bytes, sizeof(bytes)))
		return false;
	id = le16_load(bytes);
	if (id >= NET_FILTER_VLANS)
		return false;
	pthread_mutex_lock(&net->lock);
	net_filter_vlan(&net->shared.filter, id, command == VIRTIO_NET_CTRL_VLAN_ADD);
	pthread_mutex_unlock(&net->lock);
	return true;
}

static bool announce_command(struct virtio_net *net, u8 command)
{
	if (!virtio_has(&net->device, VIRTIO_NET_F_GUEST_ANNOUNCE) ||
	    command != VIRTIO_NET_CTRL_ANNOUNCE_ACK)
		return false;
	net_status_change(net, 0, VIRTIO_NET_S_ANNOUNCE);
	return true;
}

static bool pairs_command(struct virtio_net *net, u8 command, struct reader *data)
{
	u8 bytes[2];
	u16 pairs;

	if (!virtio_has(&net->device, VIRTIO_NET_F_MQ) ||
	    command != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET || !reader_take(data, bytes, sizeof(bytes)))
		return false;
	pairs = le16_load(bytes);
	if (!pairs || pairs > net->max_pairs)
		return false;
	pthread_mutex_lock(&net->lock);
	net->shared.pairs = pairs;
	pthread_mutex_unlock(&net->lock);
	return true;
}

static bool offloads_command(struct virtio_net *net, u8 command, struct reader *data)
{
	u64 negotiated = net->device.features & NET_GUEST_OFFLOADS, offloads;
	u8 bytes[8];

	if (!virtio_has(&net->device, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) ||
	    command != VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET ||
	    !reader_take(data, bytes, sizeof(bytes)))
		return false;
	offloads = le64_load(bytes);
	if (offloads & ~negotiated || !net_features_consistent(offloads) ||
	    net_vhost_set_offload(net, net_tap_offloads(offloads)))
		return false;
	pthread_mutex_lock(&net->lock);
	net->shared.offloads = offloads;
	pthread_mutex_unlock(&net->lock);
	return true;
}

static bool command_run(struct virtio_net *net, struct reader *data)
{
	struct virtio_net_ctrl_hdr header;

	if (!reader_take(data, &header, sizeof(header)))
		return false;
	switch (header.class) {
	case VIRTIO_NET_CTRL_RX:
		return receive_mode(net, header.cmd, data);
	case VIRTIO_NET_CTRL_MAC:
		return mac_command(net, header.cmd, data);
	case VIRTIO_NET_CTRL_VLAN:
		return vlan_command(net, header.cmd, data);
	case VIRTIO_NET_CTRL_ANNOUNCE:
		return announce_command(net, header.cmd);
	case VIRTIO_NET_CTRL_MQ:
		return pairs_command(net, header.cmd, data);
	case VIRTIO_NET_CTRL_GUEST_OFFLOADS:
		return offloads_command(net, header.cmd, data);
	}
	return false;
}

/* ---- waiting for the pairs ---- */

void net_ctrl_answer(struct virtio_net *net, int error)
{
	struct net_ctrl *ctrl = &net->ctrl;

	if (error)
		atomic_store(&ctrl->failed, true);
	if (atomic_fetch_sub(&ctrl->waiting, 1) == 1)
		reactor_post(ctrl->queue->reactor, &ctrl->answer);
}

/* Has every pair renew its copy; the last to answer has the command finished. */
static void sync_pairs(struct virtio_net *net)
{
	struct net_ctrl *ctrl = &net->ctrl;

	ctrl->pending = true;
	atomic_store(&ctrl->failed, false);
	atomic_store(&ctrl->waiting, net->pair_limit);
	for (u16 i = 0; i < net->pair_limit; i++) {
		struct net_pair *pair = &net->pairs[i];

		if (pair->rx.queue->reactor == ctrl->queue->reactor)
			net_pair_sync(pair);
		else
			reactor_post(pair->rx.queue->reactor, &pair->sync);
	}
}

static void finish(struct net_ctrl *ctrl, bool ok)
{
	*ctrl->ack = ok ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
	virtio_queue_push(ctrl->queue, ctrl->head, sizeof(virtio_net_ctrl_ack));
}

static void answer_run(struct reactor_message *message)
{
	struct net_ctrl *ctrl = container_of(message, struct net_ctrl, answer);

	ctrl->pending = false;
	finish(ctrl, !atomic_load(&ctrl->failed));
	if (virtio_queue_running(ctrl->queue))
		virtio_queue_schedule(ctrl->queue);
}

/* ---- the queue ---- */

/* The ack is the first byte that the driver left writable; results, which no command of ours has,
 * would follow it (5.1.6.5). */
static u8 *ack_byte(const struct vq_buffer *buffer)
{
	const struct iovec *iov = buffer->iov + buffer->readable;

	for (u16 i = 0; i < buffer->writable; i++)
		if (iov[i].iov_len)
			return iov[i].iov_base;
	return NULL;
}

void net_ctrl_start(struct virtio_net *net, struct virtio_queue *queue)
{
	net->ctrl.queue = queue;
	net->ctrl.answer.run = answer_run;
	net->ctrl.pending = false;
}

enum virtio_served net_ctrl_serve(struct virtio_net *net)
{
	struct net_ctrl *ctrl = &net->ctrl;
	struct vq_buffer buffer;
	int ret;

	while (!ctrl->pending) {
		struct reader data;

		ret = virtio_queue_pop(ctrl->queue, &buffer, ctrl->iov, NET_QUEUE_SIZE);
		if (ret <= 0)
			return ret ? VIRTIO_SERVED_LATER : VIRTIO_SERVED_ALL;
		ctrl->head = buffer.head;
		ctrl->ack = ack_byte(&buffer);
		if (!ctrl->ack) {
			virtio_device_broken(&net->device,
					     "a control command has no room for its ack");
			virtio_queue_unpop(ctrl->queue, 1);
			return VIRTIO_SERVED_LATER;
		}
		data = (struct reader){ .iov = buffer.iov, .left = buffer.readable_bytes };
		if (command_run(net, &data))
			sync_pairs(net);
		else
			finish(ctrl, false);
	}
	return VIRTIO_SERVED_LATER;
}
