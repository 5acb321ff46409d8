/*
 * Network device (virtio 1.3, 5.1) over a backends/tap. Queue work runs on the pair's reactor.
 */
#ifndef VIRTIO_NET_H
#define VIRTIO_NET_H

#include "virtio/device.h"

struct tap;
struct vhost;
struct virtio_net;

struct virtio_net_options {
	const char *name; /* "net0" */
	const struct memory *memory;
	struct reactors *reactors;
	struct tap *tap; /* open and registered, one fd per pair; outlives the device */
	/* open, a pair for each of the tap's, outlives the device: serves queues in our place where
	 * it can, which is said if not. NULL: queues are served in process. */
	struct vhost *vhost;
	u32 vhost_poll_us; /* how long it busy-polls, 0: not */
	u32 first_reactor; /* pair n is served by reactor first_reactor + n, modulo their number */
	bool one_reactor;  /* all pairs, and the control queue, by first_reactor */
	u8 mac[6];
	u16 queue_size; /* offered; 0: as large as can be */
	u64 features;	/* of VIRTIO_OPTIONAL, those offered */
	u16 mtu;	/* offered as VIRTIO_NET_F_MTU; at least 68 */
};

/* 0 or -errno (logged). Main thread. */
int virtio_net_create(struct virtio_net **net, const struct virtio_net_options *config);
struct virtio_device *virtio_net_device(struct virtio_net *net);
/* As virtio_device_destroy(). */
void virtio_net_destroy(struct virtio_net *net);

/* Asks the guest to make itself known on its network (VIRTIO_NET_S_ANNOUNCE). False: it has not
 * negotiated that. Any thread, the device's lock not held. */
bool virtio_net_announce(struct virtio_net *net);

/* What became of frames, all queues together. */
struct virtio_net_counts {
	u64 rx_frames;
	u64 rx_filtered;  /* not for this guest */
	u64 rx_truncated; /* did not fit into the buffers there were */
	u64 rx_invalid;	  /* not as negotiated: left from before, or over the MTU */
	u64 tx_frames;
	u64 tx_invalid; /* bad header or size */
	u64 tx_refused; /* by the tap */
};

/* Any thread. */
void virtio_net_counts(const struct virtio_net *net, struct virtio_net_counts *counts);

#endif
