/*
 * The block device's insides, shared by its files alone: blk.c (its life, and taking requests),
 * blk-config.c (features and configuration space), blk-request.c (what a request means), blk-io.c
 * (how it is carried out).
 */
#ifndef VIRTIO_BLK_QUEUE_H
#define VIRTIO_BLK_QUEUE_H

#include <stdatomic.h>
#include "vm/log.h"
#include "virtio/device.h"
#include "vm/config.h"

#define BLK_QUEUE_SIZE	CONFIG_DISK_QUEUE_SIZE
#define BLK_ID_BYTES	20
#define BLK_MAX_RANGES	32	/* in one DISCARD or WRITE_ZEROES */
#define BLK_MAX_DISCARD GIB(1)	/* bytes of one range */
#define BLK_MAX_ZEROES	MIB(64) /* a device may have to write them */
#define BLK_SMALL_WRITE KIB(64)
#define BLK_BOUNCES	4 /* buffers of a queue of an O_DIRECT disk */
#define BLK_BOUNCE_SIZE KIB(256)

struct blk_queue;

struct blk_range {
	u64 offset, length; /* bytes */
	u32 mode;	    /* fallocate(2)'s */
};

#define BLK_CHAIN_SMALL 4

/*
 * One request from its pop to its push. A queue has as many as its ring has entries; their memory
 * is touched as they are first used, and the one used last is used next.
 */
struct blk_request {
	struct reactor_op op;
	struct blk_queue *queue;
	struct blk_request *next; /* in the list it waits in */

	u8 *status;   /* the last writable byte */
	u32 writable; /* bytes of the writable part, status included */
	u32 filled;   /* of these, how many were written from the first on */
	u16 head;
	bool stable; /* ends on stable storage: write-through */

	/* the data: what is still to be transferred */
	bool write;
	u32 iov_count;
	struct iovec *iov;
	u64 offset; /* on the disk */
	u32 length;

	/* the driver's buffers for it, if so many suffice; else in blk_queue.chains */
	struct iovec small[BLK_CHAIN_SMALL];

	/* read of a disk with an overlay: iov[clipped_at] is shorter by this while it lasts */
	u32 clipped, clipped_at;

	void *bounce; /* NULL: none */
	struct iovec bounce_iov;

	u32 range, range_count;
	struct blk_range ranges[BLK_MAX_RANGES];
};

struct blk_list {
	struct blk_request *first, *last;
};

struct blk_queue {
	struct virtio_blk *blk;
	struct virtio_queue *queue;

	struct blk_request *requests; /* BLK_QUEUE_SIZE of them */
	struct iovec *chains;	      /* for each room for the longest, touched only by long ones */
	struct blk_request *free;
	u32 touched;  /* how many of requests were ever used */
	bool starved; /* all are in use while buffers may be available */

	/* fdatasync: at most one runs; who comes meanwhile shares the next */
	struct reactor_op sync;
	struct reactor_task sync_start;
	bool syncing;
	struct blk_list synced, unsynced;

	/* bounce buffers, of O_DIRECT disks only */
	void *bounce_area;
	void *bounces[BLK_BOUNCES];
	u32 bounce_count; /* free ones */
	struct blk_list unbounced;

	_Atomic u64 flushes, syncs, bounced, errors;

	/* what was popped last; no chain is longer (2.7.5.3.1) */
	struct iovec chain[BLK_QUEUE_SIZE];
};

struct virtio_blk {
	struct virtio_device device;
	struct disk *disk;
	char serial[BLK_ID_BYTES]; /* padded with zeros */
	bool initially_through;	   /* cache=writethrough */
	/* in force: every write reaches stable storage before it completes */
	_Atomic bool writethrough;
	/* the host lost written data: no flush may succeed any more */
	_Atomic bool unflushable;
	struct log_limit error_limit;
	u16 queue_count;
	struct blk_queue queues[];
};

static inline void blk_count(_Atomic u64 *counter)
{
	counter_add((u64 *)counter, 1);
}

/* ---- blk-config.c; main and vCPU threads ---- */

/* Device feature bits for what the disk can do. */
u64 blk_config_features(const struct virtio_blk *blk);
u32 blk_config_size(void);
void blk_config_fill(struct virtio_blk *blk);
bool blk_config_features_ok(struct virtio_device *device, u64 features);
void blk_config_write(struct virtio_device *device, u32 offset, u32 size, u64 value);
void blk_config_start(struct virtio_device *device);
void blk_config_reset(struct virtio_device *device);

/* ---- blk.c; reactor ---- */

/* Answers a request: status byte, used element, and back into the free list. */
void blk_request_finish(struct blk_request *request, u8 status);

/* Gives up on a request that has no status byte to be answered with: the device needs a reset. */
void blk_request_drop(struct blk_request *request);

/* ---- blk-request.c; reactor ---- */

/* Begins what the driver asks for. The buffer's iovecs are free for other use when this returns;
 * the request is finished in any case. */
void blk_request_begin(struct blk_request *request, const struct vq_buffer *buffer);

/* ---- blk-io.c; reactor ---- */

/* Each ends in blk_request_finish(). */
void blk_io_transfer(struct blk_request *request);
void blk_io_ranges(struct blk_request *request);
void blk_io_sync(struct blk_request *request);
/* Prepares a queue's lists. Main thread. */
void blk_io_init(struct blk_queue *queue);

#endif
