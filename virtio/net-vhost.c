/*
 * Network queues that the kernel's vhost-net serves (backends/vhost.h): what may be offered with
 * it, which drivers it suits, and the life of the rings that are lent to it. The doorbells go to it
 * as they are, its used buffers ring the vectors' own eventfds: no frame comes by here. Only where
 * a driver uses the line, each interrupt does, for its ISR bit.
 *
 * Ours stays the control queue. The tap does what it commands, but for the receive filters, which
 * are not offered: vhost-net has none, and the tap's own (TUNSETTXFILTER) would stay with the tap
 * when the VM is killed, and keep frames from whoever uses it next.
 *
 * Threads: rings are placed and taken back on their reactor; a driver that moves an interrupt,
 * turns bus mastering off or breaks something does that on the thread where it is noticed, so that
 * it is done when the register access is. The pair's lock keeps them apart; it is taken under the
 * device's.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "virtio/net-internal.h"

/* What vhost-net is told of the features negotiated. ANY_LAYOUT is none of them: to vhost-net,
 * which takes any layout, its bit means that there is no vnet header. */
#define TOLD                                                                    \
	(BIT64(VIRTIO_F_NOTIFY_ON_EMPTY) | BIT64(VIRTIO_RING_F_INDIRECT_DESC) | \
	 BIT64(VIRTIO_RING_F_EVENT_IDX) | BIT64(VIRTIO_F_VERSION_1) |           \
	 BIT64(VIRTIO_NET_F_MRG_RXBUF))
/* The core's features that need nothing of it, though there is a bit for them. */
#define OURS                                                       \
	(BIT64(VIRTIO_F_ANY_LAYOUT) | BIT64(VIRTIO_F_RING_RESET) | \
	 BIT64(VIRTIO_F_NOTIFICATION_DATA))
#define FIRST VIRTIO_F_NOTIFY_ON_EMPTY /* the core's features: this bit and those from 28 to 41 */
#define CORE  (BIT64(FIRST) | BIT64(VIRTIO_F_ANY_LAYOUT) | (BIT64(42) - BIT64(28)))

/* ---- what can be offered ---- */

u64 net_vhost_withheld(const struct vhost *vhost)
{
	return CORE & ~OURS & ~(TOLD & vhost->features);
}

u64 net_vhost_offered(const struct vhost *vhost, u64 features)
{
	features &= ~(BIT64(VIRTIO_NET_F_CTRL_RX) | BIT64(VIRTIO_NET_F_CTRL_RX_EXTRA) |
		      BIT64(VIRTIO_NET_F_CTRL_VLAN));
	if (!(vhost->features & BIT64(VIRTIO_NET_F_MRG_RXBUF)))
		features &= ~BIT64(VIRTIO_NET_F_MRG_RXBUF);
	return features;
}

/* ---- rings, under the pair's lock ---- */

static int call_fd(const struct virtio_net *net, const struct virtio_queue *queue)
{
	s32 fd = atomic_load(&queue->interrupt_fd);

	switch (fd) {
	case VIRTIO_INTERRUPT_INTX:
		return net->relay.fd;
	case VIRTIO_INTERRUPT_NONE:
		return -1;
	default:
		return fd;
	}
}

static struct virtio_queue *queue_of(struct net_pair *pair, enum vhost_ring ring)
{
	return ring == VHOST_RX ? pair->rx.queue : pair->tx.queue;
}

static int ring_start(struct net_pair *pair, enum vhost_ring n)
{
	const struct virtio_net *net = pair->net;
	struct net_vhost_ring *ring = &pair->vhost.rings[n];
	const struct virtio_queue *queue = queue_of(pair, n);
	int error = vhost_ring_start(net->vhost, pair->index, n, ring->base, call_fd(net, queue),
				     net->tap->fds[pair->index]);

	if (error)
		return error;
	ring->on = true;
	/* vhost-net looks when it is told; what the driver has told so far may have been to us */
	ring->own_kicks++;
	eventfd_write(queue->doorbell_fd, 1);
	return 0;
}

static int ring_stop(struct net_pair *pair, enum vhost_ring n)
{
	struct net_vhost_ring *ring = &pair->vhost.rings[n];

	ring->on = false;
	return vhost_ring_stop(pair->net->vhost, pair->index, n, &ring->base);
}

/* A worker that busy-polls for one ring looks at the other too, and writes into it. */
static int set_polling(struct net_pair *pair, bool on)
{
	const struct virtio_net *net = pair->net;

	if (!net->vhost_poll_us || pair->vhost.polls == on)
		return 0;
	pair->vhost.polls = on;
	return vhost_pair_poll(net->vhost, pair->index, on ? net->vhost_poll_us : 0);
}

/* Rings run that are lent, of a pair in use, while they may be touched. */
static int follow(struct net_pair *pair)
{
	const struct virtio_net *net = pair->net;
	struct net_vhost_ring *rings = pair->vhost.rings;
	bool may = pair->vhost.active && virtio_device_may_dma(&net->device) &&
		   !atomic_load(&net->vhost_paused);
	bool both = may && rings[VHOST_RX].placed && rings[VHOST_TX].placed;
	int error = both ? 0 : set_polling(pair, false);

	for (u32 n = 0; n < VHOST_RINGS && !error; n++) {
		bool wanted = may && rings[n].placed;

		if (wanted != rings[n].on)
			error = wanted ? ring_start(pair, n) : ring_stop(pair, n);
	}
	return both && !error ? set_polling(pair, true) : error;
}

/* Nobody's fault but the host's; the driver can try again. */
static void refused(struct virtio_net *net, int error)
{
	char why[96];

	snprintf(why, sizeof(why), "vhost-net does not take its queues: %s", strerror(-error));
	virtio_device_broken(&net->device, why);
}

static void follow_now(struct net_pair *pair)
{
	int error;

	pthread_mutex_lock(&pair->vhost.lock);
	error = follow(pair);
	pthread_mutex_unlock(&pair->vhost.lock);
	if (error)
		refused(pair->net, error);
}

static void follow_all(struct virtio_net *net)
{
	for (u16 i = 0; i < net->max_pairs; i++)
		follow_now(&net->pairs[i]);
}

void net_vhost_activate(struct net_pair *pair, bool active)
{
	pthread_mutex_lock(&pair->vhost.lock);
	pair->vhost.active = active;
	pthread_mutex_unlock(&pair->vhost.lock);
	follow_now(pair);
}

/* ---- the queues' life ---- */

void net_vhost_queue_start(struct virtio_queue *queue)
{
	struct net_pair *pair = net_pair_of(queue);
	const struct virtio_net *net = pair->net;
	enum vhost_ring n = queue->index & 1 ? VHOST_TX : VHOST_RX;
	struct net_vhost_ring *ring = &pair->vhost.rings[n];
	const struct vq_setup *setup = &queue->setup;
	/* the core has found all of them in RAM */
	const struct vhost_place place = {
		.size = setup->size,
		.descriptors = memory_at(setup->memory, setup->descriptors, 1),
		.available = memory_at(setup->memory, setup->driver, 1),
		.used = memory_at(setup->memory, setup->device, 1),
	};
	int error;

	virtio_queue_lend(queue);
	pthread_mutex_lock(&pair->vhost.lock);
	*ring = (struct net_vhost_ring){};
	error = vhost_ring_place(net->vhost, pair->index, n, &place, queue->doorbell_fd);
	ring->placed = !error;
	pthread_mutex_unlock(&pair->vhost.lock);
	if (error)
		refused(pair->net, error);
}

void net_vhost_queue_stop(struct virtio_queue *queue)
{
	struct net_pair *pair = net_pair_of(queue);
	struct virtio_net *net = pair->net;
	enum vhost_ring n = queue->index & 1 ? VHOST_TX : VHOST_RX;
	struct net_vhost_ring *ring = &pair->vhost.rings[n];
	int error;

	pthread_mutex_lock(&pair->vhost.lock);
	ring->placed = false;
	error = follow(pair);
	if (!error)
		error = vhost_ring_leave(net->vhost, pair->index, n);
	pthread_mutex_unlock(&pair->vhost.lock);
	if (error)
		log_limited(&net->queue_lines, 10,
			    "%s: vhost-net does not let go of queue %u: %s; restart the VM",
			    net->device.name, queue->index, strerror(-error));
	virtio_queue_take_back(queue, ring->own_kicks);
}

void net_vhost_interrupt_moved(struct virtio_queue *queue)
{
	struct virtio_net *net = net_of(queue->device);
	enum vhost_ring n = queue->index & 1 ? VHOST_TX : VHOST_RX;
	struct net_pair *pair;
	int error = 0;

	if (!atomic_load(&net->by_vhost) || queue->index >= 2 * net->max_pairs)
		return;
	pair = net_pair_of(queue);
	pthread_mutex_lock(&pair->vhost.lock);
	if (pair->vhost.rings[n].on)
		error = vhost_ring_call(net->vhost, pair->index, n, call_fd(net, queue));
	pthread_mutex_unlock(&pair->vhost.lock);
	if (error)
		refused(net, error);
}

void net_vhost_gate(struct virtio_net *net)
{
	if (atomic_load(&net->by_vhost))
		follow_all(net);
}

/* ---- the device's life ---- */

/* What vhost-net would do otherwise than the specification has it, for this driver; or NULL. */
static const char *unsuited(const struct virtio_device *device)
{
	/* 5.1.6.4.1: flags is 0 without GUEST_CSUM; the tap says there what it knows of checksums
	 */
	if (!virtio_has(device, VIRTIO_NET_F_GUEST_CSUM))
		return "takes no part in checksums";
	/* 5.1.6.4.1: num_buffers is 1 without merging; kernels before 6.14 leave it unwritten */
	if (!device->legacy && !virtio_has(device, VIRTIO_NET_F_MRG_RXBUF))
		return "does not merge receive buffers";
	return NULL;
}

bool net_vhost_suits(struct virtio_net *net)
{
	const struct virtio_device *device = &net->device;
	const char *why;
	int error;

	if (!net->vhost || atomic_load(&net->lost))
		return false;
	why = unsuited(device);
	if (why) {
		log_limited(&net->vhost_lines, 10,
			    "%s: the guest's driver %s, as vhost-net needs it to; served without "
			    "vhost-net",
			    device->name, why);
		return false;
	}
	error = vhost_set_features(net->vhost, device->features & net->vhost->features & TOLD);
	if (error) {
		log_limited(&net->vhost_lines, 10,
			    "%s: vhost-net refuses features 0x%llx: %s; served without vhost-net",
			    device->name, (unsigned long long)device->features, strerror(-error));
		return false;
	}
	for (u16 i = 0; i < net->max_pairs; i++) {
		pthread_mutex_lock(&net->pairs[i].vhost.lock);
		net->pairs[i].vhost.active = false;
		pthread_mutex_unlock(&net->pairs[i].vhost.lock);
	}
	/* 5.1.6.4.1: what waited is from before; it may be segmented as was agreed with another */
	tap_drain(net->tap);
	return true;
}

int net_vhost_set_offload(struct virtio_net *net, u32 tun_f)
{
	int error;

	if (!atomic_load(&net->by_vhost))
		return tap_set_offload(net->tap, tun_f, net->header);
	/* frames that were made for the old set are none of the new one's */
	atomic_store(&net->vhost_paused, true);
	follow_all(net);
	error = tap_set_offload(net->tap, tun_f, net->header);
	if (!error)
		tap_drain(net->tap);
	atomic_store(&net->vhost_paused, false);
	follow_all(net);
	return error;
}

/* vhost-net has used buffers of a driver without MSI-X. */
static void relay_fired(struct reactor_event *event)
{
	struct virtio_net *net = container_of(event, struct virtio_net, relay);

	if (atomic_load(&net->by_vhost))
		virtio_queue_interrupt(net->pairs[0].rx.queue);
}

/* vhost-net cannot work with a ring, or its tap is gone. */
static void errors_fired(struct reactor_event *event)
{
	struct virtio_net *net = container_of(event, struct virtio_net, errors);
	int error;

	if (!atomic_load(&net->by_vhost) || !atomic_load(&net->device.running))
		return;
	error = tap_gone(net->tap);
	if (error)
		net_tap_lost(net, error);
	else
		virtio_device_broken(&net->device, "vhost-net cannot work with one of its queues");
}

/* vhost-net learns that the tap is gone when it sends; a guest may only wait for frames. */
static void deletion_fired(struct reactor_event *event)
{
	struct virtio_net *net = container_of(event, struct virtio_net, deletions);
	int error = tap_gone(net->tap);

	if (error)
		net_tap_lost(net, error);
}

static int event_init(struct reactor_event *event, void (*fired)(struct reactor_event *event))
{
	event->fired = fired;
	event->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return event->fd < 0 ? -errno : 0;
}

void net_vhost_init(struct virtio_net *net, const struct virtio_net_options *config)
{
	struct vhost *vhost = config->vhost;
	int error;

	net->relay.fd = net->errors.fd = -1;
	if (!vhost || !vhost->pairs)
		return;
	if (config->mtu < config->tap->mtu) {
		log_line(
			"%s: vhost=on: the guest is told an MTU of %u, and vhost-net would pass "
			"on all of %s's %u; `sudo ip link set %s mtu %u`; served without vhost-net",
			config->name, config->mtu, config->tap->name, config->tap->mtu,
			config->tap->name, config->mtu);
		return;
	}
	error = event_init(&net->relay, relay_fired);
	if (!error)
		error = event_init(&net->errors, errors_fired);
	if (error)
		log_line("%s: vhost=on: %s; allow more open files (ulimit -n); served without "
			 "vhost-net",
			 config->name, strerror(-error));
	else if (!vhost_prepare(vhost, config->memory, net->errors.fd))
		net->vhost = vhost;
	net->vhost_poll_us = config->vhost_poll_us;
}

int net_vhost_connect(struct virtio_net *net)
{
	struct reactor *reactor = net->pairs[0].rx.queue->reactor;
	int error;

	if (!net->vhost)
		return 0;
	net->deletions.fired = deletion_fired;
	net->deletions.fd = net->vhost->deletions;
	error = reactor_event_attach(reactor, &net->relay);
	if (!error)
		error = reactor_event_attach(reactor, &net->errors);
	return error ? error : reactor_event_attach(reactor, &net->deletions);
}

void net_vhost_detach(struct virtio_net *net)
{
	if (!net->vhost)
		return;
	reactor_event_detach(&net->relay);
	reactor_event_detach(&net->errors);
	reactor_event_detach(&net->deletions);
}

void net_vhost_exit(struct virtio_net *net)
{
	if (net->relay.fd >= 0)
		close(net->relay.fd);
	if (net->errors.fd >= 0)
		close(net->errors.fd);
}
