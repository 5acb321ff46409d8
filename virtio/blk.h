/* Block device (virtio 1.3, 5.2) over a backends/disk. Queue work runs on the queue's reactor. */
#ifndef VIRTIO_BLK_H
#define VIRTIO_BLK_H

#include "virtio/device.h"

struct disk;
struct virtio_blk;

struct virtio_blk_options {
	const char *name; /* "blk0" */
	const struct memory *memory;
	struct reactors *reactors;
	struct disk *disk; /* open and registered; outlives the device */
	u16 queues;
	u16 queue_size;	   /* offered; 0: as large as can be */
	u64 features;	   /* of VIRTIO_OPTIONAL, those offered */
	u32 first_reactor; /* queue n is served by reactor first_reactor + n, modulo their number */
	bool one_reactor;  /* all queues by first_reactor */
	bool writethrough; /* the device starts with writeback = 0 */
	char serial[21];
};

/* Beyond the queues' own counts; summed over queues. */
struct virtio_blk_counts {
	u64 flushes; /* requests that waited for stable storage */
	u64 syncs;   /* fdatasyncs that served them */
	u64 bounced; /* transfers that O_DIRECT could not do in the driver's buffers */
	u64 errors;  /* operations the host failed */
};

/* 0 or -errno (logged). Main thread. */
int virtio_blk_create(struct virtio_blk **blk, const struct virtio_blk_options *config);
struct virtio_device *virtio_blk_device(struct virtio_blk *blk);
void virtio_blk_destroy(struct virtio_blk *blk);
/* The disk's sectors have changed: so does the capacity, and the driver is told (5.2.6.2). Main
 * thread.
 */
void virtio_blk_resized(struct virtio_blk *blk);

/* Any thread. */
void virtio_blk_counts(const struct virtio_blk *blk, struct virtio_blk_counts *counts);

#endif
