/*
 * The strict checker's part that reads block requests (virtio 1.3, 5.2.5 and 5.2.6): what their
 * driver owes. Changes nothing: blk-request.c answers them as ever. On the queue's reactor.
 */
#include <linux/virtio_blk.h>
#include "backends/disk.h"
#include "virtio/blk-queue.h"
#include "virtio/strict.h"

#define HEADER ((u32)sizeof(struct virtio_blk_outhdr))
/* virtio 0.9.5: FLUSH_OUT, an older form of FLUSH */
#define T_FLUSH_OUT 5

struct request {
	struct virtio_queue *queue;
	struct virtio_device *device;
	const struct vq_buffer *buffer;
	u32 type;
	u64 sector;
	u32 out, in; /* bytes of data, readable and writable */
};

static void check_transfer(const struct request *r, u32 bytes)
{
	const struct virtio_blk *blk = r->device->owner;
	u64 sectors = blk->disk->sectors;

	if (bytes % DISK_SECTOR)
		strict_report(r->device, r->queue, STRICT_BLK_LENGTH, "%u bytes", bytes);
	if (r->sector > sectors || (bytes + DISK_SECTOR - 1) / DISK_SECTOR > sectors - r->sector)
		strict_report(r->device, r->queue, STRICT_BLK_CAPACITY,
			      "%u bytes at sector %llu of %llu", bytes,
			      (unsigned long long)r->sector, (unsigned long long)sectors);
}

static void check_write(const struct request *r)
{
	if (virtio_has(r->device, VIRTIO_BLK_F_RO))
		strict_report(r->device, r->queue, STRICT_BLK_FEATURE,
			      "a write to a read-only disk");
	check_transfer(r, r->out);
}

static void check_flush(const struct request *r)
{
	if (r->sector)
		strict_report(r->device, r->queue, STRICT_BLK_FLUSH, "sector %llu",
			      (unsigned long long)r->sector);
	if (r->out || r->in)
		strict_report(r->device, r->queue, STRICT_BLK_FLUSH, "%u bytes of data",
			      r->out + r->in);
	if (!r->device->legacy && !virtio_has(r->device, VIRTIO_BLK_F_FLUSH))
		strict_report(r->device, r->queue, STRICT_BLK_FEATURE, "FLUSH was not negotiated");
}

static void check_range(const struct request *r, u32 number)
{
	struct virtio_blk_discard_write_zeroes range = { 0 };
	const struct virtio_blk *blk = r->device->owner;
	u64 start, sectors;
	u32 flags;

	strict_read(r->buffer->iov, r->buffer->readable, HEADER + number * (u32)sizeof(range),
		    &range, sizeof(range));
	start = le64_load(&range.sector);
	sectors = le32_load(&range.num_sectors);
	flags = le32_load(&range.flags);
	if (flags & ~VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP ||
	    (flags && r->type == VIRTIO_BLK_T_DISCARD))
		strict_report(r->device, r->queue, STRICT_BLK_RANGES, "flags 0x%x", flags);
	if (start > blk->disk->sectors || sectors > blk->disk->sectors - start)
		strict_report(r->device, r->queue, STRICT_BLK_CAPACITY,
			      "a range of %llu sectors at %llu", (unsigned long long)sectors,
			      (unsigned long long)start);
}

static void check_ranges(const struct request *r, unsigned int feature)
{
	const u32 size = sizeof(struct virtio_blk_discard_write_zeroes);

	if (!virtio_has(r->device, feature))
		strict_report(r->device, r->queue, STRICT_BLK_FEATURE,
			      "feature %u was not negotiated", feature);
	if (!r->out || r->out % size || r->out / size > BLK_MAX_RANGES)
		strict_report(r->device, r->queue, STRICT_BLK_RANGES, "%u bytes of ranges", r->out);
	for (u32 i = 0; i < r->out / size && i < BLK_MAX_RANGES; i++)
		check_range(r, i);
}

/* 2.7.4.3: what a driver from before ANY_LAYOUT has in descriptors of their own. */
static void check_framing(const struct request *r)
{
	const struct vq_buffer *buffer = r->buffer;
	const struct iovec *last = &buffer->iov[buffer->readable + buffer->writable - 1];

	if (!r->device->legacy || virtio_has(r->device, VIRTIO_F_ANY_LAYOUT))
		return;
	if (buffer->iov[0].iov_len != HEADER || last->iov_len != 1)
		strict_report(r->device, r->queue, STRICT_BLK_FRAMING,
			      "they have %zu and %zu bytes", buffer->iov[0].iov_len, last->iov_len);
}

void blk_strict_check(struct virtio_queue *queue, const struct vq_buffer *buffer)
{
	struct virtio_blk_outhdr header = { 0 };
	struct request r = { .queue = queue, .device = queue->device, .buffer = buffer };

	if (buffer->readable_bytes < HEADER || !buffer->writable_bytes) {
		strict_report(r.device, queue, STRICT_BLK_REQUEST,
			      "%u bytes are readable, %u writable", buffer->readable_bytes,
			      buffer->writable_bytes);
		return;
	}
	strict_read(buffer->iov, buffer->readable, 0, &header, HEADER);
	r.type = le32_load(&header.type);
	r.sector = le64_load(&header.sector);
	r.out = buffer->readable_bytes - HEADER;
	r.in = buffer->writable_bytes - 1;
	check_framing(&r);
	switch (r.type) {
	case VIRTIO_BLK_T_IN:
		check_transfer(&r, r.in);
		break;
	case VIRTIO_BLK_T_OUT:
		check_write(&r);
		break;
	case T_FLUSH_OUT:
	case VIRTIO_BLK_T_FLUSH:
		check_flush(&r);
		break;
	case VIRTIO_BLK_T_DISCARD:
		check_ranges(&r, VIRTIO_BLK_F_DISCARD);
		break;
	case VIRTIO_BLK_T_WRITE_ZEROES:
		check_ranges(&r, VIRTIO_BLK_F_WRITE_ZEROES);
		break;
	case VIRTIO_BLK_T_GET_ID:
		if (r.in != BLK_ID_BYTES)
			strict_report(r.device, queue, STRICT_BLK_LENGTH, "GET_ID of %u bytes",
				      r.in);
		break;
	default:
		strict_report(r.device, queue, STRICT_BLK_REQUEST, "type %u", r.type);
	}
}

/* The writeback field, once negotiated; a legacy driver may come first (3.1.2). */
bool blk_strict_writable(const struct virtio_device *device, u32 offset, u32 size)
{
	return offset == offsetof(struct virtio_blk_config, wce) && size == 1 &&
	       (device->legacy || virtio_has(device, VIRTIO_BLK_F_CONFIG_WCE));
}
