/*
 * 9P transport device: a shared folder under a tag (the specification has no chapter for it; device
 * ID and transitional PCI ID are in virtio 1.3, 5 and 4.1.2.1, configuration and feature bit in
 * Linux's include/uapi/linux/virtio_9p.h).
 */
#ifndef VIRTIO_9P_H
#define VIRTIO_9P_H

#include "backends/share.h"
#include "virtio/device.h"

struct virtio_9p;

struct virtio_9p_options {
	const struct memory *memory;
	struct reactors *reactors;
	const char *name, *tag;
	struct share *share; /* registered; kept by the caller */
	u32 reactor;	     /* number of the one that serves it */
	u16 queue_size;	     /* offered; 0: as large as can be */
	u64 features;	     /* of VIRTIO_OPTIONAL, those offered */
};

/* Before reactors_start() or later. 0 or -errno (logged). Main thread. */
int virtio_9p_create(struct virtio_9p **p9, const struct virtio_9p_options *options);
struct virtio_device *virtio_9p_device(struct virtio_9p *p9);
void virtio_9p_destroy(struct virtio_9p *p9);

#endif
