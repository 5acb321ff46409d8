/* Entropy device (virtio 1.3, 5.4): every buffer filled from getrandom(2), never empty; with a rate
 * at that many bytes a second, of which one second's may come at once. */
#ifndef VIRTIO_RNG_H
#define VIRTIO_RNG_H

#include "virtio/device.h"

struct virtio_rng;

/* queue_size: offered; 0: as large as can be; features: of VIRTIO_OPTIONAL, those offered; rate:
 * bytes a second; 0: no limit. Before reactors_start(). 0 or -errno
 * (logged). Main thread. */
int virtio_rng_create(struct virtio_rng **rng, const struct memory *memory,
		      struct reactors *reactors, u16 queue_size, u64 features, u32 rate);
struct virtio_device *virtio_rng_device(struct virtio_rng *rng);
void virtio_rng_destroy(struct virtio_rng *rng);

#endif
