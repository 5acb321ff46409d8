/*
 * The strict checker's part that watches registers: status, features, configuration, queues,
 * vectors, notifications (virtio 1.3, 2.1 to 2.6, 3.1, 4.1.4, 4.1.5). Under the device's lock, on
 * vCPU threads; strict_kick() on reactors.
 */
#include <linux/virtio_pci.h>
#include <stdatomic.h>
#include "virtio/strict.h"

#define ACKNOWLEDGE VIRTIO_CONFIG_S_ACKNOWLEDGE
#define DRIVER	    VIRTIO_CONFIG_S_DRIVER
#define FEATURES_OK VIRTIO_CONFIG_S_FEATURES_OK
#define DRIVER_OK   VIRTIO_CONFIG_S_DRIVER_OK
#define FAILED	    VIRTIO_CONFIG_S_FAILED

static struct strict_queue *strict_of(struct virtio_queue *queue)
{
	return &queue->device->strict->queues[queue->index];
}

/* ---- status ---- */

static void check_order(struct virtio_device *device, u8 value, bool legacy)
{
	static const struct {
		u8 bit, needs;
		const char *what;
		bool modern;
	} order[] = {
		{ DRIVER, ACKNOWLEDGE, "DRIVER without ACKNOWLEDGE", false },
		{ FEATURES_OK, DRIVER, "FEATURES_OK without DRIVER", true },
		{ DRIVER_OK, DRIVER, "DRIVER_OK without DRIVER", false },
		{ DRIVER_OK, FEATURES_OK, "DRIVER_OK without FEATURES_OK", true },
	};
	u8 set = value & (u8)~device->status, all = device->status | value;

	for (size_t i = 0; i < ARRAY_SIZE(order); i++)
		if (set & order[i].bit && !(all & order[i].needs) && !(order[i].modern && legacy))
			strict_report(device, NULL, STRICT_STATUS_ORDER, "%s", order[i].what);
}

static void check_vectors(struct virtio_device *device)
{
	struct strict *strict = device->strict;

	if (strict->config_vector_unread)
		strict_report(device, NULL, STRICT_VECTOR_UNREAD,
			      "the configuration's vector was not read back by DRIVER_OK");
	for (u16 i = 0; i < device->queue_count; i++)
		if (strict->queues[i].vector_unread)
			strict_report(device, &device->queues[i], STRICT_VECTOR_UNREAD,
				      "its vector was not read back by DRIVER_OK");
}

void strict_status_write(struct virtio_device *device, u8 value, bool legacy)
{
	struct strict *strict = device->strict;
	u8 status = device->status & (u8)~VIRTIO_CONFIG_S_NEEDS_RESET;
	u8 set = value & (u8)~status;

	if (value == 0) {
		strict->reset_unread = !legacy;
		strict->features_unread = false;
		return;
	}
	strict_access(device, legacy, true);
	if (device->resetting)
		return;
	if (status & (u8)~value)
		strict_report(device, NULL, STRICT_STATUS_CLEARED, "0x%02x written over 0x%02x",
			      value, status);
	if (status & FAILED && set)
		strict_report(device, NULL, STRICT_AFTER_FAILED, "0x%02x written after FAILED",
			      value);
	check_order(device, value, legacy);
	if (!(set & DRIVER_OK))
		return;
	if (strict->features_unread)
		strict_report(device, NULL, STRICT_FEATURES_UNREAD,
			      "DRIVER_OK, and FEATURES_OK was not looked at");
	check_vectors(device);
}

void strict_status_read(struct virtio_device *device, u8 value)
{
	if (value == 0)
		device->strict->reset_unread = false;
	if (value & FEATURES_OK)
		device->strict->features_unread = false;
}

void strict_reset_done(struct virtio_device *device)
{
	struct strict *strict = device->strict;

	atomic_store(&strict->told, 0);
	strict->legacy_used = strict->modern_used = false;
	strict->features_unread = strict->config_vector_unread = false;
	strict->config_reads = 0;
	strict->torn = false;
	for (u16 i = 0; i < device->queue_count; i++) {
		struct strict_queue *queue = &strict->queues[i];

		queue->vector_unread = queue->reset_unread = queue->ran = false;
	}
}

/* ---- features ---- */

void strict_features_write(struct virtio_device *device, u32 select, u32 value, bool legacy,
			   u64 offered)
{
	u64 bits = select > 1 ? 0 : (u64)value << 32 * select;

	strict_access(device, legacy, true);
	if (device->resetting)
		return;
	if (device->status & FEATURES_OK || atomic_load(&device->running))
		strict_report(device, NULL, STRICT_FEATURES_LATE,
			      "features written when 0x%02x was", device->status);
	else if (!(device->status & DRIVER))
		strict_report(device, NULL, STRICT_STATUS_ORDER, "features written before DRIVER");
	/* Those of the modern interface are final at FEATURES_OK. */
	if (legacy && bits & ~offered)
		strict_report(device, NULL, STRICT_FEATURES_NOT_OFFERED, "features 0x%llx",
			      (unsigned long long)(bits & ~offered));
}

void strict_features_checked(struct virtio_device *device, bool accepted, u64 offered)
{
	u64 features = device->features;

	device->strict->features_unread = true;
	if (features & ~offered)
		strict_report(device, NULL, STRICT_FEATURES_NOT_OFFERED, "features 0x%llx",
			      (unsigned long long)(features & ~offered));
	else if (device->features_beyond)
		strict_report(device, NULL, STRICT_FEATURES_NOT_OFFERED, "features above bit 63");
	else if (!(features & BIT64(VIRTIO_F_VERSION_1)))
		strict_report(device, NULL, STRICT_VERSION_1, "features 0x%llx without it",
			      (unsigned long long)features);
	else if (!accepted)
		strict_report(device, NULL, STRICT_FEATURES_DEPENDENCY, "features 0x%llx",
			      (unsigned long long)features);
}

/* ---- configuration ---- */

void strict_config_read(struct virtio_device *device, u32 offset, u32 size)
{
	struct strict *strict = device->strict;
	bool goes_on = strict->config_reads && strict->config_end == offset &&
		       offset / 8 == (offset - 1) / 8;

	/* 2.5.1: a field in two parts, and a change between them */
	if (goes_on && device->config_changed && !strict->config_was_changed)
		strict->torn = true;
	strict->config_was_changed = device->config_changed;
	strict->config_end = offset + size;
	strict->config_reads++;
}

void strict_generation_read(struct virtio_device *device)
{
	struct strict *strict = device->strict;

	strict->torn = false;
	strict->config_reads = 0;
	/* The core has taken note of the change by this read. */
	strict->config_was_changed = false;
}

void strict_config_write(struct virtio_device *device, u32 offset, u32 size, bool legacy)
{
	/* 3.1.2: a legacy driver may write first. */
	if (!legacy && !(device->status & FEATURES_OK))
		strict_report(device, NULL, STRICT_CONFIG_EARLY,
			      "%u bytes at %u written when the status was 0x%02x", size, offset,
			      device->status);
	if (!device->ops->config_writable || !device->ops->config_writable(device, offset, size))
		strict_report(device, NULL, STRICT_CONFIG_READONLY, "%u bytes at %u written", size,
			      offset);
}

/* ---- registers of a transport ---- */

void strict_access(struct virtio_device *device, bool legacy, bool write)
{
	struct strict *strict = device->strict;

	if (strict->torn) {
		strict->torn = false;
		strict_report(device, NULL, STRICT_CONFIG_TORN,
			      "a change came between the parts, and was not looked for");
	}
	strict->config_reads = 0;
	if (strict->reset_unread && write && !legacy) {
		strict->reset_unread = false;
		strict_report(device, NULL, STRICT_RESET_UNREAD,
			      "registers are written, and the reset was not waited for");
	}
	if (!write)
		return;
	if (legacy)
		strict->legacy_used = true;
	else
		strict->modern_used = true;
	if (strict->legacy_used && strict->modern_used)
		strict_report(device, NULL, STRICT_LAYOUTS_MIXED, "the %s interface is written to",
			      legacy ? "legacy" : "modern");
}

void strict_vector_write(struct virtio_device *device, struct virtio_queue *queue, u16 vector,
			 u16 vectors)
{
	bool mapped = vector != VIRTIO_MSI_NO_VECTOR;

	if (mapped && vector >= vectors)
		strict_report(device, queue, STRICT_VECTOR_RANGE, "vector %u of %u", vector,
			      vectors);
	if (queue)
		strict_of(queue)->vector_unread = mapped;
	else
		device->strict->config_vector_unread = mapped;
}

void strict_vector_read(struct virtio_device *device, struct virtio_queue *queue)
{
	if (queue)
		strict_of(queue)->vector_unread = false;
	else
		device->strict->config_vector_unread = false;
}

/* ---- queues ---- */

void strict_queue_register(struct virtio_queue *queue)
{
	if (queue->enabled)
		strict_report(queue->device, queue, STRICT_QUEUE_LATE,
			      "a register is written while it is enabled");
}

void strict_queue_size(struct virtio_queue *queue, u16 size)
{
	bool packed = virtio_has(queue->device, VIRTIO_F_RING_PACKED);

	strict_queue_register(queue);
	if (size == 0 || size > queue->max_size || (!packed && size & (size - 1)))
		strict_report(queue->device, queue, STRICT_QUEUE_SIZE, "size %u of at most %u",
			      size, queue->max_size);
}

static void check_areas(struct virtio_queue *queue)
{
	struct virtio_device *device = queue->device;
	bool packed = virtio_has(device, VIRTIO_F_RING_PACKED);
	u32 driver = packed ? 4 : VRING_AVAIL_ALIGN_SIZE;

	if (!queue->descriptors || !queue->driver || !queue->used)
		strict_report(device, queue, STRICT_QUEUE_UNCONFIGURED, "enabled at address 0");
	if (queue->descriptors % VRING_DESC_ALIGN_SIZE || queue->driver % driver ||
	    queue->used % VRING_USED_ALIGN_SIZE)
		strict_report(device, queue, STRICT_QUEUE_ALIGNMENT,
			      "areas at 0x%llx, 0x%llx, 0x%llx",
			      (unsigned long long)queue->descriptors,
			      (unsigned long long)queue->driver, (unsigned long long)queue->used);
}

void strict_queue_enable(struct virtio_queue *queue, u32 enable)
{
	struct virtio_device *device = queue->device;

	if (enable != 1) {
		strict_report(device, queue, STRICT_QUEUE_ENABLE_ZERO, "%u is written", enable);
		return;
	}
	if (!(device->status & FEATURES_OK))
		strict_report(device, queue, STRICT_STATUS_ORDER,
			      "enabled when the status was 0x%02x", device->status);
	if (strict_of(queue)->reset_unread)
		strict_report(device, queue, STRICT_QUEUE_RESET,
			      "enabled, and its reset was not waited for");
	strict_queue_register(queue);
	check_areas(queue);
}

void strict_queue_reset(struct virtio_queue *queue, u32 value)
{
	struct virtio_device *device = queue->device;

	if (value != 1)
		strict_report(device, queue, STRICT_QUEUE_RESET, "%u is written", value);
	else if (!virtio_has(device, VIRTIO_F_RING_RESET))
		strict_report(device, queue, STRICT_QUEUE_RESET,
			      "written, and RING_RESET was not negotiated");
	else
		strict_of(queue)->reset_unread = true;
}

void strict_queue_reset_read(struct virtio_queue *queue)
{
	if (!queue->resetting)
		strict_of(queue)->reset_unread = false;
}

void strict_queue_started(struct virtio_queue *queue)
{
	strict_of(queue)->ran = strict_of(queue)->ever_ran = true;
}

/* ---- notifications ---- */

/*
 * 2.7.10.1. Only what cannot be a race is told. With EVENT_IDX each wish is crossed at most once,
 * so more notifications than wishes are too many (but for indices that came round). With flags the
 * driver may have read them before they changed; its second notification after that it may not.
 */
static void check_suppressed(struct virtio_queue *queue, struct strict_queue *strict, u64 count)
{
	bool over;

	strict->kicks += count;
	if (virtio_has(queue->device, VIRTIO_RING_F_EVENT_IDX)) {
		over = strict->kicks > strict->wishes + strict->taken / 65536;
	} else {
		strict->mutes += strict->muted;
		over = strict->muted && (strict->mutes > 2 || (strict->mutes == 2 && count > 1));
	}
	if (over)
		strict_report(queue->device, queue, STRICT_KICK_SUPPRESSED,
			      "%llu notifications, %llu were asked for",
			      (unsigned long long)strict->kicks,
			      (unsigned long long)strict->wishes);
}

void strict_kick(struct virtio_queue *queue, u64 count)
{
	struct virtio_device *device = queue->device;
	struct strict_queue *strict = strict_of(queue);

	if (virtio_queue_running(queue)) {
		check_suppressed(queue, strict, count);
		return;
	}
	pthread_mutex_lock(&device->lock);
	/* One that was sent before a reset may arrive after it. */
	if (!device->resetting && !queue->resetting && !device->legacy) {
		if (!(device->status & DRIVER_OK) &&
		    (device->status & FEATURES_OK || !strict->ever_ran))
			strict_report(device, queue, STRICT_KICK_EARLY,
				      "notified when the status was 0x%02x", device->status);
		else if (device->status & DRIVER_OK && !queue->enabled && !strict->ran)
			strict_report(device, queue, STRICT_KICK_DISABLED,
				      "notified, and it is not enabled");
	}
	pthread_mutex_unlock(&device->lock);
}
