/* Network device (virtio 1.3, 5.1) over a backends/tap. Queue work runs on the pair's reactor. */
#ifndef VIRTIO_NET_H
#define VIRTIO_NET_H

#include "virtio/device.h"

struct tap;
struct virtio_net;

struct virtio_net_config {
	const char *name; /* "net0" */
	const struct memory *memory;
	struct reactors *reactors;
	struct tap *tap; /* open, one fd per pair; outlives the device */
	u8 mac[6];
	u16 mtu; /* offered as VIRTIO_NET_F_MTU */
};

/* Before reactors_start(). 0 or -errno (logged). Main thread. */
int virtio_net_create(struct virtio_net **net, const struct virtio_net_config *config);
struct virtio_device *virtio_net_device(struct virtio_net *net);
void virtio_net_destroy(struct virtio_net *net);

#endif
