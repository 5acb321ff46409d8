/*
 * How a block request is carried out: operations of the queue's reactor on the disk's file. Data
 * goes between the disk and the driver's own buffers, except where O_DIRECT cannot use these. Never
 * waits; a request that must wait for something lies in a list until a completion takes it out.
 */
#include <errno.h>
#include <linux/io_uring.h>
#include <linux/virtio_blk.h>
#include "backends/disk-overlay.h"
#include "backends/disk.h"
#include "virtio/blk-queue.h"

static void list_add(struct blk_list *list, struct blk_request *request)
{
	request->next = NULL;
	if (list->first)
		list->last->next = request;
	else
		list->first = request;
	list->last = request;
}

static struct blk_request *list_take(struct blk_list *list)
{
	struct blk_request *request = list->first;

	if (request)
		list->first = request->next;
	return request;
}

/* What is written goes to the overlay, if there is one. */
static void submit(struct blk_queue *queue, struct reactor_op *op)
{
	const struct disk *disk = queue->blk->disk;

	op->file = disk->overlay ? disk->overlay->file : disk->file;
	reactor_submit(queue->queue->reactor, op);
}

/* A host error becomes a status byte, a count and, once in a while, a line. */
static u8 failed(struct blk_queue *queue, const char *what, int error)
{
	struct virtio_blk *blk = queue->blk;
	const char *advice;

	blk_count(&queue->errors);
	switch (error) {
	case ENOSPC:
	case EDQUOT:
		advice = "make room on its file system (`df`, `quota`)";
		break;
	case ENODATA: /* our own: the file ended before the disk did */
		advice = "the file was cut short while in use; restore its size";
		break;
	case EIO:
		advice = "look at the host's kernel log (`dmesg`), and save what you can";
		break;
	default:
		advice = "look at the host's kernel log (`dmesg`)";
	}
	log_limited(&blk->error_limit, 10, "%s: %s: %s failed: %s, an I/O error for the guest; %s",
		    blk->device.name, blk->disk->path, what,
		    error == ENODATA ? "end of file" : strerror(error), advice);
	return VIRTIO_BLK_S_IOERR;
}

/* ---- reading and writing ---- */

static void transfer_done(struct reactor_op *op, s32 result);

/* O_DIRECT wants each buffer's address and length in its own multiples. */
static bool needs_bounce(const struct blk_request *request)
{
	const struct disk *disk = request->queue->blk->disk;
	u64 address = 0, length = 0;

	if (!disk->direct)
		return false;
	for (u32 i = 0; i < request->iov_count; i++) {
		address |= (uintptr_t)request->iov[i].iov_base;
		length |= request->iov[i].iov_len;
	}
	return address & (disk->memory_alignment - 1) || length & (disk->alignment - 1);
}

/* Between the driver's buffers, from where the transfer stands, and the bounce buffer. */
static void copy_bounced(const struct blk_request *request, u32 length)
{
	u8 *bounce = request->bounce;

	for (u32 i = 0; length; i++) {
		const struct iovec *iov = &request->iov[i];
		u32 n = iov->iov_len < length ? (u32)iov->iov_len : length;

		if (request->write)
			memcpy(bounce, iov->iov_base, n);
		else
			memcpy(iov->iov_base, bounce, n);
		bounce += n;
		length -= n;
	}
}

/* The transfer is `length` bytes further. */
static void advance(struct blk_request *request, u32 length)
{
	request->offset += length;
	request->length -= length;
	if (!request->write)
		request->filled += length;
	while (length && length >= request->iov->iov_len) {
		length -= (u32)request->iov->iov_len;
		request->iov++;
		request->iov_count--;
	}
	if (length) {
		request->iov->iov_base = (u8 *)request->iov->iov_base + length;
		request->iov->iov_len -= length;
	}
}

/* ---- reading a disk with an overlay: from where the first blocks are, and no further than others
 * follow; transfer_done() goes on behind them ---- */

/* Makes the driver's buffers as short as the read, while it lasts. */
static void clip(struct blk_request *request, u32 length)
{
	u32 at = 0;

	while (length > request->iov[at].iov_len)
		length -= (u32)request->iov[at++].iov_len;
	request->clipped = (u32)request->iov[at].iov_len - length;
	request->clipped_at = at;
	request->iov[at].iov_len = length;
	request->op.iov_count = at + 1;
}

static void unclip(struct blk_request *request)
{
	request->iov[request->clipped_at].iov_len += request->clipped;
	request->clipped = 0;
}

static void submit_overlaid(struct blk_request *request)
{
	struct blk_queue *queue = request->queue;
	const struct disk *disk = queue->blk->disk;
	u32 length = request->bounce ? (u32)request->bounce_iov.iov_len : request->length;
	bool ours;

	length = (u32)disk_overlay_run(disk->overlay, request->offset, length, &ours);
	if (request->bounce)
		request->bounce_iov.iov_len = length;
	else
		clip(request, length);
	request->op.file = ours ? disk->overlay->file : disk->file;
	reactor_submit(queue->queue->reactor, &request->op);
}

/* How much of a transfer counts: whole blocks, and those of a write are the overlay's now. */
static u32 overlaid(struct blk_request *request, u32 done)
{
	struct disk_overlay *overlay = request->queue->blk->disk->overlay;

	if (request->clipped)
		unclip(request);
	done = ALIGN_DOWN(done, overlay->block);
	if (request->write && done)
		disk_overlay_mark(overlay, request->offset, done);
	return done;
}

/* ---- all transfers ---- */

/* Larger writes would keep other queues waiting; of part of a page the rest may have to be read
 * first. */
static bool is_small_buffered(const struct blk_request *request)
{
	return request->write && !request->stable && request->length <= BLK_SMALL_WRITE &&
	       !((request->offset | request->length) & (KIB(4) - 1)) &&
	       !request->queue->blk->disk->direct;
}

static void submit_transfer(struct blk_request *request)
{
	struct reactor_op *op = &request->op;

	op->done = transfer_done;
	op->code = request->write ? REACTOR_WRITEV : REACTOR_READV;
	op->iov = request->iov;
	op->iov_count = request->iov_count;
	op->offset = request->offset;
	op->flags = request->write && request->stable ? RWF_DSYNC : 0;
	op->buffered = is_small_buffered(request);
	if (request->bounce) {
		request->bounce_iov.iov_base = request->bounce;
		request->bounce_iov.iov_len =
			request->length < BLK_BOUNCE_SIZE ? request->length : BLK_BOUNCE_SIZE;
		if (request->write)
			copy_bounced(request, (u32)request->bounce_iov.iov_len);
		op->iov = &request->bounce_iov;
		op->iov_count = 1;
	}
	if (request->queue->blk->disk->overlay && !request->write)
		submit_overlaid(request);
	else
		submit(request->queue, op);
}

/* The bounce buffer goes to the next in line, or back. */
static void end_transfer(struct blk_request *request, u8 status)
{
	struct blk_queue *queue = request->queue;
	void *bounce = request->bounce;
	struct blk_request *next;

	blk_request_finish(request, status);
	if (!bounce)
		return;
	next = list_take(&queue->unbounced);
	if (next) {
		next->bounce = bounce;
		submit_transfer(next);
	} else {
		queue->bounces[queue->bounce_count++] = bounce;
	}
}

static void transfer_done(struct reactor_op *op, s32 result)
{
	struct blk_request *request = container_of(op, struct blk_request, op);
	struct blk_queue *queue = request->queue;
	u32 done = result > 0 ? (u32)result : 0;

	if (queue->blk->disk->overlay)
		done = overlaid(request, done);
	if (done == request->length && !request->bounce) { /* nearly all */
		if (!request->write)
			request->filled += done;
		blk_request_finish(request, VIRTIO_BLK_S_OK);
		return;
	}
	/* O_DIRECT goes on at a block's start, or not at all */
	done = ALIGN_DOWN(done, queue->blk->disk->alignment);
	if (done > request->length)
		done = request->length;
	if (done) {
		if (request->bounce && !request->write)
			copy_bounced(request, done);
		advance(request, done);
	}
	if (!request->length) {
		end_transfer(request, VIRTIO_BLK_S_OK);
	} else if (done || result == -EINTR) {
		submit_transfer(request);
	} else {
		int error = result < 0 ? -result : ENODATA;

		end_transfer(request, failed(queue, request->write ? "a write" : "a read", error));
	}
}

void blk_io_transfer(struct blk_request *request)
{
	struct blk_queue *queue = request->queue;

	if (needs_bounce(request)) {
		blk_count(&queue->bounced);
		if (!queue->bounce_count) {
			list_add(&queue->unbounced, request);
			return;
		}
		request->bounce = queue->bounces[--queue->bounce_count];
	}
	submit_transfer(request);
}

/* ---- discarding and zeroing ---- */

static void next_range(struct blk_request *request);

static void range_done(struct reactor_op *op, s32 result)
{
	struct blk_request *request = container_of(op, struct blk_request, op);
	struct disk_overlay *overlay = request->queue->blk->disk->overlay;

	if (result == 0 && overlay)
		disk_overlay_mark(overlay, op->offset, op->length);
	if (result == 0)
		request->range++;
	if (result == 0 || result == -EINTR)
		next_range(request);
	else if (result == -EOPNOTSUPP)
		blk_request_finish(request, VIRTIO_BLK_S_UNSUPP);
	else
		blk_request_finish(request,
				   failed(request->queue, "discarding or zeroing", -result));
}

/* One after the other; with write-through, stable in the end. */
static void next_range(struct blk_request *request)
{
	const struct blk_range *range = &request->ranges[request->range];
	const struct blk_range *end = &request->ranges[request->range_count];
	struct reactor_op *op = &request->op;

	for (; range < end && !range->length; range++)
		request->range++;
	if (range == end) {
		if (request->stable)
			blk_io_sync(request);
		else
			blk_request_finish(request, VIRTIO_BLK_S_OK);
		return;
	}
	op->done = range_done;
	op->code = REACTOR_FALLOCATE;
	op->iov = NULL;
	op->iov_count = 0;
	op->offset = range->offset;
	op->length = range->length;
	op->flags = range->mode;
	submit(request->queue, op);
}

void blk_io_ranges(struct blk_request *request)
{
	next_range(request);
}

/* ---- stable storage ---- */

static void sync_done(struct reactor_op *op, s32 result)
{
	struct blk_queue *queue = container_of(op, struct blk_queue, sync);
	struct virtio_blk *blk = queue->blk;
	struct blk_request *request;
	u8 status = VIRTIO_BLK_S_OK;

	if (result == -EINTR) {
		submit(queue, op);
		return;
	}
	queue->syncing = false;
	if (result < 0) {
		status = failed(queue, "a flush", -result);
		/* fsync(2): the page cache may have dropped what it could not write and now calls
		 * it clean, so that a second try would succeed with the data lost */
		if (!blk->disk->direct && !atomic_exchange(&blk->unflushable, true))
			log_line("%s: %s: the host may have lost written data, so every later "
				 "flush fails too; mend its storage, then start the machine anew",
				 blk->device.name, blk->disk->path);
	}
	if (atomic_load(&blk->unflushable))
		status = VIRTIO_BLK_S_IOERR;
	while ((request = list_take(&queue->synced)))
		blk_request_finish(request, status);
	if (queue->unsynced.first)
		reactor_defer(queue->queue->reactor, REACTOR_FLUSH, &queue->sync_start);
}

/* At the end of a sweep: one fdatasync for all that came in it or since the last one began. */
static void sync_start(struct reactor_task *task)
{
	struct blk_queue *queue = container_of(task, struct blk_queue, sync_start);

	if (queue->syncing || !queue->unsynced.first)
		return;
	queue->syncing = true;
	queue->synced = queue->unsynced;
	queue->unsynced.first = NULL;
	blk_count(&queue->syncs);
	queue->sync.done = sync_done;
	queue->sync.code = REACTOR_FSYNC;
	queue->sync.flags = IORING_FSYNC_DATASYNC;
	submit(queue, &queue->sync);
}

void blk_io_sync(struct blk_request *request)
{
	struct blk_queue *queue = request->queue;

	blk_count(&queue->flushes);
	list_add(&queue->unsynced, request);
	reactor_defer(queue->queue->reactor, REACTOR_FLUSH, &queue->sync_start);
}

void blk_io_init(struct blk_queue *queue)
{
	queue->sync_start.run = sync_start;
	if (!queue->bounce_area)
		return;
	for (u32 i = 0; i < BLK_BOUNCES; i++)
		queue->bounces[i] = (u8 *)queue->bounce_area + i * BLK_BOUNCE_SIZE;
	queue->bounce_count = BLK_BOUNCES;
}
