/* Inside virtio/: what device.c (registers, under the lock) and queue.c (queues, on their reactors)
 * share. */
#ifndef VIRTIO_CORE_H
#define VIRTIO_CORE_H

#include "virtio/device.h"

/* ---- queue.c ---- */

/* Doorbell, tasks and message of a fresh queue; registers at their defaults. 0 or -errno. Main
 * thread. */
int virtio_queue_init(struct virtio_queue *queue, struct virtio_device *device, u16 index,
		      u16 max_size, struct reactor *reactor);
void virtio_queue_destroy(struct virtio_queue *queue);

/* [lock] Has an enabled queue started with the areas, size and features as they are now. */
void virtio_queue_want(struct virtio_queue *queue);
/* [lock] Has it stopped. False if nothing of it is running or starting: it is idle already. */
bool virtio_queue_unwant(struct virtio_queue *queue);
/* [lock] Has a running queue serve and flush: what paused it is over. */
void virtio_queue_resume(struct virtio_queue *queue);
/* [lock] Registers to their defaults, and the transport is told. */
void virtio_queue_defaults(struct virtio_queue *queue);

/* ---- device.c ---- */

/* [lock] Features are final: starts the device and its enabled queues. */
void virtio_device_run(struct virtio_device *device);
/* [lock] A queue has become idle: ends the reset that was waiting for it. */
void virtio_device_queue_idle(struct virtio_queue *queue);

#endif
