/*
 * What the block device offers (virtio 1.3, 5.2.3), its configuration space (5.2.4) and the cache
 * mode that follows from both (5.2.6.2). Filled on the main thread; the driver's accesses come on
 * vCPU threads under the device's lock.
 */
#include <linux/virtio_blk.h>
#include "backends/disk.h"
#include "virtio/blk-queue.h"
#include "virtio/blk.h"

#define WCE offsetof(struct virtio_blk_config, wce)

/* Any segment that fits a request does; a bound is offered so that drivers that want one have a
 * large one. */
#define SEGMENT_MAX (1u << 30)

u64 blk_config_features(const struct virtio_blk *blk)
{
	const struct disk *disk = blk->disk;
	u64 features = BIT64(VIRTIO_BLK_F_SIZE_MAX) | BIT64(VIRTIO_BLK_F_SEG_MAX) |
		       BIT64(VIRTIO_BLK_F_BLK_SIZE) | BIT64(VIRTIO_BLK_F_TOPOLOGY) |
		       BIT64(VIRTIO_BLK_F_FLUSH) | BIT64(VIRTIO_BLK_F_CONFIG_WCE);

	if (disk->readonly)
		features |= BIT64(VIRTIO_BLK_F_RO);
	if (disk->can_discard && !disk->readonly)
		features |= BIT64(VIRTIO_BLK_F_DISCARD);
	if (disk->can_zero && !disk->readonly)
		features |= BIT64(VIRTIO_BLK_F_WRITE_ZEROES);
	if (blk->queue_count > 1)
		features |= BIT64(VIRTIO_BLK_F_MQ);
	return features;
}

u32 blk_config_size(void)
{
	/* secure erase and zoned devices, whose fields follow, are not offered */
	return offsetof(struct virtio_blk_config, max_secure_erase_sectors);
}

void blk_config_fill(struct virtio_blk *blk)
{
	const struct disk *disk = blk->disk;
	u32 block = disk->logical_block;
	u16 ring = blk->device.queues[0].max_size;
	struct virtio_blk_config c = {
		.capacity = htole64(disk->sectors),
		.size_max = htole32(SEGMENT_MAX),
		.seg_max = htole32(ring > 2 ? ring - 2u : 1), /* header and status take one each */
		.blk_size = htole32(block),
		.min_io_size = htole16((u16)(disk->minimum_io / block > UINT16_MAX
						     ? UINT16_MAX
						     : disk->minimum_io / block)),
		.opt_io_size = htole32(disk->optimal_io / block),
		.wce = !blk->initially_through,
		.num_queues = htole16(blk->queue_count),
	};

	while (c.physical_block_exp < 16 && block << c.physical_block_exp < disk->physical_block)
		c.physical_block_exp++;
	if (disk->can_discard) {
		c.max_discard_sectors = htole32(BLK_MAX_DISCARD / DISK_SECTOR);
		c.max_discard_seg = htole32(BLK_MAX_RANGES);
		c.discard_sector_alignment = htole32(disk->discard_granularity / DISK_SECTOR);
	}
	if (disk->can_zero) {
		c.max_write_zeroes_sectors = htole32(BLK_MAX_ZEROES / DISK_SECTOR);
		c.max_write_zeroes_seg = htole32(BLK_MAX_RANGES);
		c.write_zeroes_may_unmap = disk->can_discard;
	}
	memcpy(blk->device.config, &c, blk_config_size());
}

void virtio_blk_resized(struct virtio_blk *blk)
{
	u8 capacity[8];

	le64_store(capacity, blk->disk->sectors);
	virtio_config_update(&blk->device, offsetof(struct virtio_blk_config, capacity), capacity,
			     sizeof(capacity));
}

/*
 * 5.2.6.2: without FLUSH every write is stable when it completes, whatever else was negotiated.
 * With it, the writeback field decides if the driver knows that field, else the mode the user
 * chose.
 */
static void decide_cache_mode(struct virtio_blk *blk)
{
	struct virtio_device *device = &blk->device;
	bool through = blk->initially_through;

	if (virtio_has(device, VIRTIO_BLK_F_CONFIG_WCE))
		through = !device->config[WCE];
	if (!virtio_has(device, VIRTIO_BLK_F_FLUSH))
		through = true;
	/* what is gone with the machine need not outlive the host */
	atomic_store_explicit(&blk->writethrough, through && !blk->disk->overlay,
			      memory_order_relaxed);
}

/* 5.2.5.2: writeback starts as 0 if CONFIG_WCE is negotiated without FLUSH. */
static void start_without_flush(struct virtio_device *device, u64 features)
{
	if (!(features & BIT64(VIRTIO_BLK_F_CONFIG_WCE)) || features & BIT64(VIRTIO_BLK_F_FLUSH) ||
	    !device->config[WCE])
		return;
	device->config[WCE] = 0;
	device->config_changed = true;
}

bool blk_config_features_ok(struct virtio_device *device, u64 features)
{
	start_without_flush(device, features);
	return true;
}

/* The writeback field alone can be written, once negotiated or (legacy drivers) before that is
 * known. */
void blk_config_write(struct virtio_device *device, u32 offset, u32 size, u64 value)
{
	struct virtio_blk *blk = device->owner;
	bool running = atomic_load_explicit(&device->running, memory_order_relaxed);

	if (offset > WCE || WCE - offset >= size)
		return;
	if (running && !virtio_has(device, VIRTIO_BLK_F_CONFIG_WCE))
		return;
	device->config[WCE] = (value >> 8 * (WCE - offset) & 0xff) != 0;
	if (running)
		decide_cache_mode(blk);
}

void blk_config_start(struct virtio_device *device)
{
	start_without_flush(device, device->features);
	decide_cache_mode(device->owner);
}

void blk_config_reset(struct virtio_device *device)
{
	struct virtio_blk *blk = device->owner;

	device->config[WCE] = !blk->initially_through;
}
