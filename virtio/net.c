/*
 * The network device (virtio 1.3, 5.1) over a tap, or a stream that stands for one: what it offers, its configuration space, and the
 * life of its queues. The data path is in net-rx.c and net-tx.c, or the kernel's (net-vhost.c);
 * commands are in net-ctrl.c.
 *
 * speed and duplex: a tap has none. The guest is told 10 Gbit/s, full duplex, as bonding and
 * spanning trees reckon with the figure and do badly with an unknown one.
 */
#include <errno.h>
#include <stdlib.h>
#include "virtio/net-internal.h"
#include "virtio/strict.h"
#include "vm/json.h"

#define CLASS_ETHERNET 0x020000 /* PCI: network controller, Ethernet */
#define SPEED_MBIT     10000
#define DUPLEX_FULL    1
#define MTU_MIN	       68 /* 5.1.4.1 */

#define CONFIG(field) ((u32)offsetof(struct virtio_net_space, field))
/* What comes after duplex belongs to features that are not offered. */
#define CONFIG_BYTES CONFIG(rss_max_key_size)

/* ---- buffers ---- */

void net_iov_read(const struct iovec *iov, u32 offset, void *to, u32 size)
{
	for (; size; iov++) {
		u32 n;

		if (offset >= iov->iov_len) {
			offset -= (u32)iov->iov_len;
			continue;
		}
		n = (u32)iov->iov_len - offset < size ? (u32)iov->iov_len - offset : size;
		memcpy(to, (u8 *)iov->iov_base + offset, n);
		to = (u8 *)to + n;
		size -= n;
		offset = 0;
	}
}

void net_iov_write(const struct iovec *iov, u32 offset, const void *from, u32 size)
{
	for (; size; iov++) {
		u32 n;

		if (offset >= iov->iov_len) {
			offset -= (u32)iov->iov_len;
			continue;
		}
		n = (u32)iov->iov_len - offset < size ? (u32)iov->iov_len - offset : size;
		memcpy((u8 *)iov->iov_base + offset, from, n);
		from = (const u8 *)from + n;
		size -= n;
		offset = 0;
	}
}

/* ---- features ---- */

static u64 features_offered(const struct tap *tap)
{
	u64 features = BIT64(VIRTIO_NET_F_MAC) | BIT64(VIRTIO_NET_F_STATUS) |
		       BIT64(VIRTIO_NET_F_MTU) | BIT64(VIRTIO_NET_F_SPEED_DUPLEX) |
		       BIT64(VIRTIO_NET_F_MRG_RXBUF) | BIT64(VIRTIO_NET_F_CTRL_VQ) |
		       BIT64(VIRTIO_NET_F_CTRL_RX) | BIT64(VIRTIO_NET_F_CTRL_RX_EXTRA) |
		       BIT64(VIRTIO_NET_F_CTRL_VLAN) | BIT64(VIRTIO_NET_F_CTRL_MAC_ADDR) |
		       BIT64(VIRTIO_NET_F_GUEST_ANNOUNCE);

	if (tap->queues > 1)
		features |= BIT64(VIRTIO_NET_F_MQ);
	if (!tap->can_csum)
		return features;
	features |= BIT64(VIRTIO_NET_F_CSUM) | BIT64(VIRTIO_NET_F_GUEST_CSUM) |
		    BIT64(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);
	if (tap->can_tso4)
		features |= BIT64(VIRTIO_NET_F_HOST_TSO4) | BIT64(VIRTIO_NET_F_GUEST_TSO4);
	if (tap->can_tso6)
		features |= BIT64(VIRTIO_NET_F_HOST_TSO6) | BIT64(VIRTIO_NET_F_GUEST_TSO6);
	if (tap->can_ecn && (tap->can_tso4 || tap->can_tso6))
		features |= BIT64(VIRTIO_NET_F_HOST_ECN) | BIT64(VIRTIO_NET_F_GUEST_ECN);
	if (tap->can_ufo)
		features |= BIT64(VIRTIO_NET_F_HOST_UFO) | BIT64(VIRTIO_NET_F_GUEST_UFO);
	if (tap->can_uso)
		features |= BIT64(VIRTIO_NET_F_HOST_USO) | BIT64(VIRTIO_NET_F_GUEST_USO4) |
			    BIT64(VIRTIO_NET_F_GUEST_USO6);
	return features;
}

bool net_features_consistent(u64 features)
{
	static const struct {
		u8 bit;
		u64 any_of;
	} needs[] = {
		/* 5.1.3.1 */
		{ VIRTIO_NET_F_GUEST_TSO4, BIT64(VIRTIO_NET_F_GUEST_CSUM) },
		{ VIRTIO_NET_F_GUEST_TSO6, BIT64(VIRTIO_NET_F_GUEST_CSUM) },
		{ VIRTIO_NET_F_GUEST_ECN,
		  BIT64(VIRTIO_NET_F_GUEST_TSO4) | BIT64(VIRTIO_NET_F_GUEST_TSO6) },
		{ VIRTIO_NET_F_GUEST_UFO, BIT64(VIRTIO_NET_F_GUEST_CSUM) },
		{ VIRTIO_NET_F_GUEST_USO4, BIT64(VIRTIO_NET_F_GUEST_CSUM) },
		{ VIRTIO_NET_F_GUEST_USO6, BIT64(VIRTIO_NET_F_GUEST_CSUM) },
		{ VIRTIO_NET_F_HOST_TSO4, BIT64(VIRTIO_NET_F_CSUM) },
		{ VIRTIO_NET_F_HOST_TSO6, BIT64(VIRTIO_NET_F_CSUM) },
		{ VIRTIO_NET_F_HOST_ECN,
		  BIT64(VIRTIO_NET_F_HOST_TSO4) | BIT64(VIRTIO_NET_F_HOST_TSO6) },
		{ VIRTIO_NET_F_HOST_UFO, BIT64(VIRTIO_NET_F_CSUM) },
		{ VIRTIO_NET_F_HOST_USO, BIT64(VIRTIO_NET_F_CSUM) },
		{ VIRTIO_NET_F_CTRL_RX, BIT64(VIRTIO_NET_F_CTRL_VQ) },
		{ VIRTIO_NET_F_CTRL_VLAN, BIT64(VIRTIO_NET_F_CTRL_VQ) },
		{ VIRTIO_NET_F_GUEST_ANNOUNCE, BIT64(VIRTIO_NET_F_CTRL_VQ) },
		{ VIRTIO_NET_F_MQ, BIT64(VIRTIO_NET_F_CTRL_VQ) },
		{ VIRTIO_NET_F_CTRL_MAC_ADDR, BIT64(VIRTIO_NET_F_CTRL_VQ) },
	};

	for (u32 i = 0; i < ARRAY_SIZE(needs); i++)
		if (features & BIT64(needs[i].bit) && !(features & needs[i].any_of))
			return false;
	return true;
}

static bool features_ok(struct virtio_device *device, u64 features)
{
	(void)device;
	return net_features_consistent(features);
}

u32 net_tap_offloads(u64 offloads)
{
	const u64 uso = BIT64(VIRTIO_NET_F_GUEST_USO4) | BIT64(VIRTIO_NET_F_GUEST_USO6);
	u32 bits = 0;

	if (!(offloads & BIT64(VIRTIO_NET_F_GUEST_CSUM)))
		return 0;
	bits |= TUN_F_CSUM;
	if (offloads & BIT64(VIRTIO_NET_F_GUEST_TSO4))
		bits |= TUN_F_TSO4;
	if (offloads & BIT64(VIRTIO_NET_F_GUEST_TSO6))
		bits |= TUN_F_TSO6;
	if (bits & (TUN_F_TSO4 | TUN_F_TSO6) && offloads & BIT64(VIRTIO_NET_F_GUEST_ECN))
		bits |= TUN_F_TSO_ECN;
	if (offloads & BIT64(VIRTIO_NET_F_GUEST_UFO))
		bits |= TUN_F_UFO;
	if ((offloads & uso) == uso) /* the tap knows only both */
		bits |= TUN_F_USO4 | TUN_F_USO6;
	return bits;
}

/* ---- status ---- */

void net_status_change(struct virtio_net *net, u16 set, u16 clear)
{
	u8 bytes[2];

	/* The lock keeps two changes in order on their way into the configuration. */
	pthread_mutex_lock(&net->status_lock);
	atomic_fetch_or(&net->status, set);
	atomic_fetch_and(&net->status, (u16)~clear);
	le16_store(bytes, atomic_load(&net->status));
	virtio_config_update(&net->device, CONFIG(status), bytes, sizeof(bytes));
	pthread_mutex_unlock(&net->status_lock);
}

void net_tap_lost(struct virtio_net *net, int error)
{
	if (atomic_exchange(&net->lost, true))
		return;
	log_line("%s: %s has vanished: %s; the guest's link is down, start anew%s",
		 net->device.name, net->tap->name, strerror(-error),
		 net->stream ? "" : " with another tap");
	net_status_change(net, 0, VIRTIO_NET_S_LINK_UP);
}

bool virtio_net_announce(struct virtio_net *net)
{
	if (!atomic_load(&net->device.running) ||
	    !virtio_has(&net->device, VIRTIO_NET_F_GUEST_ANNOUNCE))
		return false;
	net_status_change(net, VIRTIO_NET_S_ANNOUNCE, 0);
	return true;
}

/* ---- a pair's copy of what the driver wants ---- */

/* The largest frame with its header. Without GSO that is the MTU's, with a VLAN tag. */
static u32 capacity_for(const struct virtio_net *net, u64 offloads)
{
	if (offloads & NET_GUEST_GSO)
		return net->header + NET_FRAME_MAX;
	return net->header + ETH_HLEN + NET_VLAN_BYTES +
	       (net->mtu > ETH_DATA_LEN ? net->mtu : ETH_DATA_LEN);
}

/* A queue out of use, or without a receive queue that runs, gets no frames (5.1.6.5.5): the tap
 * steers them to the others. */
static int follow_attach(struct net_pair *pair, bool attach)
{
	struct virtio_net *net = pair->net;
	int error;

	if (!net->tap->multi_queue || attach == pair->attached || atomic_load(&net->lost))
		return 0;
	error = tap_enable_queue(net->tap, pair->index, attach);
	if (error)
		log_limited(&net->queue_lines, 10, "%s: %s: queue %u cannot be %s: %s",
			    net->device.name, net->tap->name, pair->index,
			    attach ? "attached" : "detached", strerror(-error));
	else
		pair->attached = attach;
	return error;
}

int net_pair_refresh(struct net_pair *pair)
{
	struct virtio_net *net = pair->net;
	bool rx_runs = virtio_queue_running(pair->rx.queue), active;
	bool by_vhost = atomic_load_explicit(&net->by_vhost, memory_order_relaxed);
	u32 capacity;
	int error;

	pthread_mutex_lock(&net->lock);
	pair->shared = net->shared;
	pthread_mutex_unlock(&net->lock);
	active = pair->index < pair->shared.pairs;
	capacity = capacity_for(net, pair->shared.offloads);
	if (by_vhost && !active)
		net_vhost_activate(pair, false);
	error = follow_attach(pair, active && rx_runs);
	if (by_vhost && active)
		net_vhost_activate(pair, true);
	if (active != pair->active || capacity != pair->rx_capacity) {
		pair->active = active;
		pair->rx_capacity = capacity;
		if (rx_runs && !by_vhost)
			net_rx_renew(pair);
		if (virtio_queue_running(pair->tx.queue))
			virtio_queue_schedule(pair->tx.queue);
	}
	return error;
}

/* Frames that were pushed before are published at the end of this sweep; the driver must see them
 * no later than that the command is used (5.1.6.5.5.2), so the answer waits for its turn behind
 * them. */
void net_pair_sync(struct net_pair *pair)
{
	pair->sync_error = net_pair_refresh(pair);
	reactor_defer(pair->rx.queue->reactor, REACTOR_FLUSH, &pair->answer);
}

static void sync_run(struct reactor_message *message)
{
	net_pair_sync(container_of(message, struct net_pair, sync));
}

static void answer_run(struct reactor_task *task)
{
	struct net_pair *pair = container_of(task, struct net_pair, answer);

	net_ctrl_answer(pair->net, pair->sync_error);
}

static void renew_run(struct reactor_message *message)
{
	struct net_pair *pair = container_of(message, struct net_pair, renew);

	atomic_store(&pair->renewing, false);
	/* A reset may have come before us. Then the next driver may be starting the device now, and
	 * its queues renew the copy when they start. */
	if (virtio_queue_running(pair->rx.queue) || virtio_queue_running(pair->tx.queue))
		net_pair_refresh(pair);
}

/* ---- the queues' life ---- */

enum role { ROLE_NONE, ROLE_RX, ROLE_TX, ROLE_CTRL };

/* With N pairs the control queue is number 2N, and N is 1 unless VIRTIO_NET_F_MQ was negotiated
 * (5.1.2). */
static enum role role_of(const struct virtio_queue *queue)
{
	const struct virtio_net *net = net_of(queue->device);

	if (net->ctrl_index && queue->index == net->ctrl_index)
		return ROLE_CTRL;
	if (queue->index >= 2 * net->pair_limit)
		return ROLE_NONE;
	return queue->index & 1 ? ROLE_TX : ROLE_RX;
}

static void queue_start(struct virtio_queue *queue)
{
	enum role role = role_of(queue);

	switch (role) {
	case ROLE_RX:
	case ROLE_TX:
		if (atomic_load(&net_of(queue->device)->by_vhost))
			net_vhost_queue_start(queue);
		else if (role == ROLE_RX)
			net_rx_start(net_pair_of(queue));
		else
			net_tx_start(net_pair_of(queue));
		net_pair_refresh(net_pair_of(queue));
		break;
	case ROLE_CTRL:
		net_ctrl_start(net_of(queue->device), queue);
		break;
	case ROLE_NONE:
		return;
	}
	virtio_queue_schedule(queue);
}

static enum virtio_served serve(struct virtio_queue *queue)
{
	switch (role_of(queue)) {
	case ROLE_RX:
		return net_rx_serve(net_pair_of(queue));
	case ROLE_TX:
		return net_tx_serve(net_pair_of(queue));
	case ROLE_CTRL:
		return net_ctrl_serve(net_of(queue->device));
	case ROLE_NONE:
		break;
	}
	return VIRTIO_SERVED_LATER;
}

static void queue_stop(struct virtio_queue *queue)
{
	switch (role_of(queue)) {
	case ROLE_RX:
		if (queue->lent)
			net_vhost_queue_stop(queue);
		else
			net_rx_stop(net_pair_of(queue));
		follow_attach(net_pair_of(queue), false);
		break;
	case ROLE_TX:
		if (queue->lent)
			net_vhost_queue_stop(queue);
		else
			net_tx_stop(net_pair_of(queue));
		break;
	case ROLE_CTRL: /* a command that waits for pairs gets its answer */
	case ROLE_NONE:
		break;
	}
}

/* ---- the device's life ---- */

static void shared_reset(struct virtio_net *net)
{
	const struct virtio_device *device = &net->device;
	struct net_filter *filter = &net->shared.filter;

	pthread_mutex_lock(&net->lock);
	net->shared.pairs = 1;
	net->shared.offloads = device->features & NET_GUEST_OFFLOADS;
	net_filter_reset(filter, virtio_has(device, VIRTIO_NET_F_CTRL_RX),
			 virtio_has(device, VIRTIO_NET_F_CTRL_VLAN));
	memcpy(filter->mac, device->config, ETH_ALEN);
	/* a driver that did not take our address has one of its own, unless it wrote it (5.1.4.2)
	 */
	filter->mac_known =
		virtio_has(device, VIRTIO_NET_F_MAC) || memcmp(filter->mac, net->mac, ETH_ALEN);
	pthread_mutex_unlock(&net->lock);
}

static void tap_follow(struct virtio_net *net, u64 offloads)
{
	int error = net->stream ? 0 : tap_set_offload(net->tap, net_tap_offloads(offloads), net->header);

	/* of a tap that has vanished the next read or write tells */
	if (error && error != -EBADFD)
		log_limited(&net->offload_lines, 10, "%s: %s: cannot set offloads: %s",
			    net->device.name, net->tap->name, strerror(-error));
}

static void start(struct virtio_device *device)
{
	struct virtio_net *net = net_of(device);

	/* only a legacy driver without merging has no num_buffers (5.1.6.1) */
	net->header = !device->legacy || virtio_has(device, VIRTIO_NET_F_MRG_RXBUF)
			      ? (u32)sizeof(struct virtio_net_hdr_v1)
			      : (u32)sizeof(struct virtio_net_hdr);
	net->pair_limit = virtio_has(device, VIRTIO_NET_F_MQ) ? net->max_pairs : 1;
	net->ctrl_index = virtio_has(device, VIRTIO_NET_F_CTRL_VQ) ? (u16)(2 * net->pair_limit) : 0;
	shared_reset(net);
	tap_follow(net, device->features & NET_GUEST_OFFLOADS);
	atomic_store(&net->by_vhost, net_vhost_suits(net));
}

static void gate(struct virtio_device *device)
{
	net_vhost_gate(net_of(device));
}

static void detach(struct virtio_device *device)
{
	net_vhost_detach(net_of(device));
}

static void reset(struct virtio_device *device)
{
	struct virtio_net *net = net_of(device);

	memcpy(device->config + CONFIG(mac), net->mac, ETH_ALEN);
	atomic_fetch_and(&net->status, (u16)~VIRTIO_NET_S_ANNOUNCE);
	le16_store(device->config + CONFIG(status), atomic_load(&net->status));
	net->pair_limit = 1;
	net->ctrl_index = 0;
	tap_follow(net, 0);
}

/* A legacy driver may write its address, byte by byte, first to last; it counts when it is whole
 * (5.1.6.5.2.1). Modern ones find all fields read-only. */
static void config_write(struct virtio_device *device, u32 offset, u32 size, u64 value)
{
	struct virtio_net *net = net_of(device);

	if (virtio_has(device, VIRTIO_F_VERSION_1) || offset >= ETH_ALEN)
		return;
	for (u32 i = 0; i < size && offset + i < ETH_ALEN; i++)
		device->config[CONFIG(mac) + offset + i] = (u8)(value >> 8 * i);
	if (offset + size < ETH_ALEN)
		return;
	pthread_mutex_lock(&net->lock);
	memcpy(net->shared.filter.mac, device->config + CONFIG(mac), ETH_ALEN);
	net->shared.filter.mac_known = true;
	pthread_mutex_unlock(&net->lock);
	if (!atomic_load(&device->running))
		return;
	for (u16 i = 0; i < net->pair_limit; i++)
		if (!atomic_exchange(&net->pairs[i].renewing, true))
			reactor_post(net->pairs[i].rx.queue->reactor, &net->pairs[i].renew);
}

static void stats(struct virtio_device *device, struct json *json)
{
	struct virtio_net_counts counts;

	virtio_net_counts(net_of(device), &counts);
	json_text(json, "served_by", atomic_load(&net_of(device)->by_vhost) ? "vhost-net" : "vmm");
	json_number(json, "rx_frames", counts.rx_frames);
	json_number(json, "rx_filtered", counts.rx_filtered);
	json_number(json, "rx_truncated", counts.rx_truncated);
	json_number(json, "rx_invalid", counts.rx_invalid);
	json_number(json, "tx_frames", counts.tx_frames);
	json_number(json, "tx_invalid", counts.tx_invalid);
	json_number(json, "tx_refused", counts.tx_refused);
}

static const struct virtio_device_ops net_ops = {
	.id = VIRTIO_ID_NET,
	.pci_class = CLASS_ETHERNET,
	.name = "net",
	.features_ok = features_ok,
	.config_write = config_write,
	.start = start,
	.queue_start = queue_start,
	.serve = serve,
	.check = net_strict_check,
	.config_writable = net_strict_writable,
	.queue_stop = queue_stop,
	.gate = gate,
	.interrupt_moved = net_vhost_interrupt_moved,
	.detach = detach,
	.reset = reset,
	.stats = stats,
};

/* ---- making ---- */

static void config_fill(struct virtio_net *net)
{
	u8 *config = net->device.config;

	memcpy(config + CONFIG(mac), net->mac, ETH_ALEN);
	le16_store(config + CONFIG(status), atomic_load(&net->status));
	le16_store(config + CONFIG(max_virtqueue_pairs), net->max_pairs);
	le16_store(config + CONFIG(mtu), net->mtu);
	le32_store(config + CONFIG(speed), SPEED_MBIT);
	config[CONFIG(duplex)] = DUPLEX_FULL;
}

static int pairs_create(struct virtio_net *net)
{
	net->pairs = calloc(net->max_pairs, sizeof(*net->pairs));
	if (!net->pairs)
		return -ENOMEM;
	for (u16 i = 0; i < net->max_pairs; i++) {
		struct net_pair *pair = &net->pairs[i];

		pair->net = net;
		pair->index = i;
		pair->attached = true;
		pair->sync.run = sync_run;
		pair->answer.run = answer_run;
		pair->renew.run = renew_run;
		pthread_mutex_init(&pair->vhost.lock, NULL);
		pair->rx.queue = &net->device.queues[2 * i];
		pair->rx.queue->untimed = true;
		pair->tx.queue = &net->device.queues[2 * i + 1];
		pair->tx.queue->gathers = true;
		if (net_rx_create(pair) || net_tx_create(pair))
			return -ENOMEM;
		follow_attach(pair, false); /* until the driver comes */
	}
	return 0;
}

static int device_init(struct virtio_net *net, const struct virtio_net_options *config)
{
	u32 reactors = reactors_count(config->reactors);
	u8 queue_reactor[2 * TAP_MAX_QUEUES + 1] = {};
	const u64 features = features_offered(config->tap);
	const struct virtio_device_config c = {
		.ops = &net_ops,
		.owner = net,
		.name = config->name,
		.memory = config->memory,
		.reactors = config->reactors,
		.features = (net->vhost ? net_vhost_offered(net->vhost, features) : features) |
			    config->features,
		.withheld = net->vhost ? net_vhost_withheld(net->vhost) : 0,
		.config_size = CONFIG_BYTES,
		.queue_count = (u16)(2 * net->max_pairs + 1),
		.queue_size = NET_QUEUE_SIZE,
		.queue_offer = config->queue_size,
		.queue_reactor = queue_reactor,
	};

	for (u32 i = 0; i < c.queue_count; i++)
		queue_reactor[i] =
			(u8)((config->first_reactor + (config->one_reactor ? 0 : i / 2)) %
			     reactors);
	return virtio_device_init(&net->device, &c);
}

int virtio_net_create(struct virtio_net **result, const struct virtio_net_options *config)
{
	struct virtio_net *net;
	int error;

	if (config->mtu < MTU_MIN) {
		log_line("%s: mtu=%u: an MTU is at least %u", config->name, config->mtu, MTU_MIN);
		return -EINVAL;
	}
	net = calloc(1, sizeof(*net));
	if (!net)
		return -ENOMEM;
	net->tap = config->tap;
	net->mtu = config->mtu;
	net->max_pairs = config->tap->queues;
	net->pair_limit = 1;
	net->header = NET_HEADER_MAX;
	memcpy(net->mac, config->mac, ETH_ALEN);
	atomic_init(&net->status, VIRTIO_NET_S_LINK_UP);
	net_vhost_init(net, config);
	error = device_init(net, config);
	if (error) {
		net_vhost_exit(net);
		free(net);
		return error;
	}
	pthread_mutex_init(&net->lock, NULL);
	pthread_mutex_init(&net->status_lock, NULL);
	config_fill(net);
	error = pairs_create(net);
	if (!error && net->tap->stream)
		error = net_stream_create(net);
	if (!error)
		error = net_vhost_connect(net);
	if (error) {
		log_line("%s: %u queue pairs: %s", config->name, net->max_pairs, strerror(-error));
		virtio_device_detach(&net->device);
		virtio_net_destroy(net);
		return error;
	}
	*result = net;
	return 0;
}

struct virtio_device *virtio_net_device(struct virtio_net *net)
{
	return &net->device;
}

void virtio_net_destroy(struct virtio_net *net)
{
	if (!net)
		return;
	for (u16 i = 0; net->pairs && i < net->max_pairs; i++) {
		net_rx_destroy(&net->pairs[i]);
		net_tx_destroy(&net->pairs[i]);
		pthread_mutex_destroy(&net->pairs[i].vhost.lock);
	}
	net_stream_destroy(net);
	net_vhost_exit(net);
	free(net->pairs);
	virtio_device_destroy(&net->device);
	pthread_mutex_destroy(&net->status_lock);
	pthread_mutex_destroy(&net->lock);
	free(net);
}

static u64 count_of(const _Atomic u64 *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

void virtio_net_counts(const struct virtio_net *net, struct virtio_net_counts *counts)
{
	memset(counts, 0, sizeof(*counts));
	for (u16 i = 0; i < net->max_pairs; i++) {
		const struct net_counters *c = &net->pairs[i].counters;

		counts->rx_frames += count_of(&c->rx_frames);
		counts->rx_filtered += count_of(&c->rx_filtered);
		counts->rx_truncated += count_of(&c->rx_truncated);
		counts->rx_invalid += count_of(&c->rx_invalid);
		counts->tx_frames += count_of(&c->tx_frames);
		counts->tx_invalid += count_of(&c->tx_invalid);
		counts->tx_refused += count_of(&c->tx_refused);
	}
}
