/*
 * What a block request means (virtio 1.3, 5.2.6): its header, data and status are cut out of the
 * driver's buffers, however these are framed (2.7.4.1), checked against the disk, and handed to
 * blk-io.c or answered. On the queue's reactor.
 */
#include <linux/falloc.h>
#include <linux/virtio_blk.h>
#include "backends/disk.h"
#include "virtio/blk-queue.h"

/* virtio 0.9.5: FLUSH_OUT, an older form of FLUSH */
#define T_FLUSH_OUT 5

/* One part of a chain, readable or writable; shrinks as pieces are cut off. */
struct part {
	struct iovec *iov;
	u32 count;
	u32 bytes;
};

static void cut_first(struct part *part, u32 length)
{
	part->bytes -= length;
	while (part->count && length >= part->iov->iov_len) {
		length -= (u32)part->iov->iov_len;
		part->iov++;
		part->count--;
	}
	if (length) {
		part->iov->iov_base = (u8 *)part->iov->iov_base + length;
		part->iov->iov_len -= length;
	}
}

/* Copies the part's first bytes out and cuts them off; false if it has not as many. */
static bool take(struct part *part, void *to, u32 length)
{
	u32 copied = 0;

	if (part->bytes < length)
		return false;
	for (u32 i = 0; copied < length; i++) {
		size_t n = part->iov[i].iov_len;

		if (n > length - copied)
			n = length - copied;
		memcpy((u8 *)to + copied, part->iov[i].iov_base, n);
		copied += (u32)n;
	}
	cut_first(part, length);
	return true;
}

/* Copies bytes into the part, as many as fit. Returns how many. */
static u32 put(const struct part *part, const void *from, u32 length)
{
	u32 copied = 0;

	for (u32 i = 0; i < part->count && copied < length; i++) {
		size_t n = part->iov[i].iov_len;

		if (n > length - copied)
			n = length - copied;
		memcpy(part->iov[i].iov_base, (const u8 *)from + copied, n);
		copied += (u32)n;
	}
	return copied;
}

/* The status is the last writable byte, wherever a buffer ends. NULL if there is none. */
static u8 *take_last(struct part *part)
{
	struct iovec *last;

	while (part->count && !part->iov[part->count - 1].iov_len)
		part->count--;
	if (!part->count)
		return NULL;
	last = &part->iov[part->count - 1];
	last->iov_len--;
	part->bytes--;
	if (!last->iov_len)
		part->count--;
	return (u8 *)last->iov_base + last->iov_len;
}

/* Are these whole sectors inside the disk? No sum can wrap. */
static bool inside(const struct disk *disk, u64 sector, u64 sectors)
{
	/* once: it may change under us */
	u64 end = atomic_load_explicit(&disk->sectors, memory_order_relaxed);

	return sector <= end && sectors <= end - sector;
}

/* The driver's buffers for the data become the request's own list. */
static struct iovec *keep(struct blk_request *request, const struct part *data)
{
	struct blk_queue *queue = request->queue;
	struct iovec *to = request->small;

	if (data->count > BLK_CHAIN_SMALL)
		to = &queue->chains[(size_t)(request - queue->requests) * BLK_QUEUE_SIZE];
	for (u32 i = 0; i < data->count; i++)
		to[i] = data->iov[i];
	return to;
}

static void begin_transfer(struct blk_request *request, const struct part *data, u64 sector)
{
	const struct virtio_blk *blk = request->queue->blk;
	const struct disk *disk = blk->disk;

	if ((request->write && disk->readonly) || data->bytes % DISK_SECTOR != 0 ||
	    !inside(disk, sector, data->bytes / DISK_SECTOR)) {
		blk_request_finish(request, VIRTIO_BLK_S_IOERR);
		return;
	}
	request->iov = keep(request, data);
	request->iov_count = data->count;
	request->offset = sector * DISK_SECTOR;
	request->length = data->bytes;
	/* blk_size is what O_DIRECT can do here; 5.2.6 lets the driver do no less */
	if ((request->offset | request->length) & (disk->alignment - 1))
		blk_request_finish(request, VIRTIO_BLK_S_IOERR);
	else if (!request->length)
		blk_request_finish(request, VIRTIO_BLK_S_OK);
	else
		blk_io_transfer(request);
}

/*
 * One range of a DISCARD or WRITE_ZEROES: the status it would fail with, or OK. 5.2.6.2: unknown
 * flags are UNSUPP, and so is unmap with DISCARD; unmap clear means the range stays allocated.
 */
static u8 check_range(const struct disk *disk, u32 type,
		      const struct virtio_blk_discard_write_zeroes *from, struct blk_range *range)
{
	u64 sector = le64toh(from->sector);
	u32 sectors = le32toh(from->num_sectors), flags = le32toh(from->flags);
	bool zeroes = type == VIRTIO_BLK_T_WRITE_ZEROES;
	bool unmap = flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;

	if (flags & ~VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP || (unmap && !zeroes))
		return VIRTIO_BLK_S_UNSUPP;
	if (sectors > (zeroes ? BLK_MAX_ZEROES : BLK_MAX_DISCARD) / DISK_SECTOR ||
	    !inside(disk, sector, sectors))
		return VIRTIO_BLK_S_IOERR;
	range->offset = sector * DISK_SECTOR;
	range->length = (u64)sectors * DISK_SECTOR;
	/* a file takes any range, a device whole blocks */
	if ((disk->block_device || disk->overlay) &&
	    (range->offset | range->length) & (disk->logical_block - 1))
		return VIRTIO_BLK_S_IOERR;
	range->mode = FALLOC_FL_KEEP_SIZE;
	/* over a hole in the overlay the image does not show through */
	if (zeroes && !disk->overlay && !(unmap && disk->can_discard))
		range->mode |= FALLOC_FL_ZERO_RANGE;
	else
		range->mode |= FALLOC_FL_PUNCH_HOLE;
	return VIRTIO_BLK_S_OK;
}

/* All ranges are checked before the first is carried out. */
static void begin_ranges(struct blk_request *request, struct part *data, u32 type)
{
	const struct disk *disk = request->queue->blk->disk;
	struct virtio_blk_discard_write_zeroes from;
	u8 status = VIRTIO_BLK_S_OK;
	u32 count = data->bytes / (u32)sizeof(from);

	if (!(type == VIRTIO_BLK_T_DISCARD ? disk->can_discard : disk->can_zero))
		status = VIRTIO_BLK_S_UNSUPP;
	else if (!count || count > BLK_MAX_RANGES || data->bytes % sizeof(from) != 0)
		status = VIRTIO_BLK_S_IOERR;
	for (u32 i = 0; i < count && status == VIRTIO_BLK_S_OK; i++) {
		take(data, &from, sizeof(from));
		status = check_range(disk, type, &from, &request->ranges[i]);
	}
	if (status != VIRTIO_BLK_S_OK) {
		blk_request_finish(request, status);
		return;
	}
	request->range = 0;
	request->range_count = count;
	blk_io_ranges(request);
}

static void begin_flush(struct blk_request *request)
{
	const struct disk *disk = request->queue->blk->disk;

	/* nothing was written that shall last, so all that was is on stable storage */
	if (disk->readonly || disk->overlay)
		blk_request_finish(request, VIRTIO_BLK_S_OK);
	else
		blk_io_sync(request);
}

/* Any request, framed in any way. */
static void begin_any(struct blk_request *request, const struct vq_buffer *buffer)
{
	struct virtio_blk *blk = request->queue->blk;
	struct part readable = { buffer->iov, buffer->readable, buffer->readable_bytes };
	struct part writable = { buffer->iov + buffer->readable, buffer->writable,
				 buffer->writable_bytes };
	struct virtio_blk_outhdr header;
	u32 type;

	request->head = buffer->head;
	request->writable = buffer->writable_bytes;
	request->filled = 0;
	request->write = false;
	request->bounce = NULL;
	request->clipped = 0;
	request->stable = atomic_load_explicit(&blk->writethrough, memory_order_relaxed);
	request->status = take_last(&writable);
	if (!request->status) {
		blk_request_drop(request);
		return;
	}
	if (!take(&readable, &header, sizeof(header))) {
		blk_request_finish(request, VIRTIO_BLK_S_IOERR);
		return;
	}
	type = le32toh(header.type);
	switch (type) {
	case VIRTIO_BLK_T_IN:
		begin_transfer(request, &writable, le64toh(header.sector));
		break;
	case VIRTIO_BLK_T_OUT:
		request->write = true;
		begin_transfer(request, &readable, le64toh(header.sector));
		break;
	case VIRTIO_BLK_T_FLUSH:
	case T_FLUSH_OUT:
		begin_flush(request);
		break;
	case VIRTIO_BLK_T_GET_ID:
		request->filled = put(&writable, blk->serial, sizeof(blk->serial));
		blk_request_finish(request, VIRTIO_BLK_S_OK);
		break;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		begin_ranges(request, &readable, type);
		break;
	default: /* SCSI commands, secure erase, zones, barriers, and what is not yet thought of */
		blk_request_finish(request, VIRTIO_BLK_S_UNSUPP);
	}
}

/* As drivers frame it: the header is one buffer, the status the last one. */
static bool is_plain(const struct vq_buffer *buffer)
{
	return buffer->readable && buffer->iov[0].iov_len == sizeof(struct virtio_blk_outhdr) &&
	       buffer->writable &&
	       buffer->iov[buffer->readable + buffer->writable - 1].iov_len == 1;
}

void blk_request_begin(struct blk_request *request, const struct vq_buffer *buffer)
{
	const struct virtio_blk *blk = request->queue->blk;
	const struct virtio_blk_outhdr *header;
	struct iovec *iov = buffer->iov;
	struct part data;
	u64 sector;
	u32 type;

	request->head = buffer->head;
	request->writable = buffer->writable_bytes;
	request->filled = 0;
	request->write = false;
	request->bounce = NULL;
	request->stable = atomic_load_explicit(&blk->writethrough, memory_order_relaxed);
	if (!is_plain(buffer)) {
		begin_any(request, buffer);
		return;
	}
	header = iov[0].iov_base;
	type = le32_load(&header->type);
	sector = le64_load(&header->sector);
	/* read once: from here on they are ours (begin_any() reads for itself, and relies on
	 * nothing of this) */
	__asm__ volatile("" : "+r"(type), "+r"(sector));
	if (type == VIRTIO_BLK_T_IN) {
		data = (struct part){ iov + buffer->readable, buffer->writable - 1u,
				      buffer->writable_bytes - 1 };
	} else if (type == VIRTIO_BLK_T_OUT) {
		data = (struct part){ iov + 1, buffer->readable - 1u,
				      buffer->readable_bytes - (u32)sizeof(*header) };
		request->write = true;
	} else {
		begin_any(request, buffer);
		return;
	}
	request->status = iov[buffer->readable + buffer->writable - 1].iov_base;
	begin_transfer(request, &data, sector);
}
