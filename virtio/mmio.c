/*
 * virtio over MMIO (virtio 1.3, 4.2.2): registers of 32 bits on vCPU threads under the device's
 * lock; a doorbell per queue by the value written to QueueNotify; one level-triggered line.
 */
#include "virtio/mmio.h"

#include <errno.h>
#include <linux/virtio_mmio.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include "virtio/strict.h"
#include "vm/bus.h"
#include "vm/irq.h"
#include "vm/layout.h"

#define MAGIC	    0x74726976 /* "virt" */
#define VERSION	    2
#define VENDOR	    0x204d4d56 /* "VMM " */
#define QUEUE_RESET 0x0c0      /* 4.2.2; newer than some uapi headers */
#define SIZE	    LAYOUT_MMIO_STEP

struct virtio_mmio {
	struct virtio_mmio_config config;
	struct virtio_device *device;
	struct bus_region region;
	struct irq_share share;
	struct reactor_event resample;
	reactor_file line;
	bool mapped, shared;
	u32 doorbells; /* how many are with KVM */

	/* under the device's lock */
	u32 device_feature_select, driver_feature_select, queue_select;
};

/* ---- interrupts ---- */

static bool asserted(void *owner)
{
	const struct virtio_mmio *mmio = owner;

	return atomic_load(&mmio->device->isr) != 0;
}

/* [reactor 0] The guest's end of an interrupt on the line. */
static void line_resampled(struct reactor_event *event)
{
	struct virtio_mmio *mmio = container_of(event, struct virtio_mmio, resample);

	irq_shared_resampled(mmio->config.irq, mmio->config.gsi);
}

static void transport_config_interrupt(struct virtio_device *device)
{
	struct virtio_mmio *mmio = device->transport_owner;

	atomic_fetch_or(&device->isr, VIRTIO_ISR_CONFIG);
	eventfd_write(irq_shared_fd(mmio->config.irq, mmio->config.gsi), 1);
}

static void transport_queue_reset(struct virtio_queue *queue)
{
	virtio_queue_set_interrupt(queue, VIRTIO_INTERRUPT_INTX, VIRTIO_INTERRUPT_INTX);
}

static void transport_reset(struct virtio_device *device)
{
	struct virtio_mmio *mmio = device->transport_owner;

	mmio->device_feature_select = mmio->driver_feature_select = mmio->queue_select = 0;
}

static const struct virtio_transport_ops transport_ops = {
	.config_interrupt = transport_config_interrupt,
	.queue_reset = transport_queue_reset,
	.reset = transport_reset,
};

static void nobody_config_interrupt(struct virtio_device *device)
{
	(void)device;
}

static const struct virtio_transport_ops nobody_ops = {
	.config_interrupt = nobody_config_interrupt,
};

/* ---- registers ---- */

static struct virtio_queue *selected(struct virtio_mmio *mmio)
{
	return mmio->queue_select > UINT16_MAX
		       ? NULL
		       : virtio_queue_get(mmio->device, (u16)mmio->queue_select);
}

static u32 queue_read(struct virtio_mmio *mmio, u32 offset)
{
	struct virtio_queue *queue = selected(mmio);

	if (!queue)
		return 0;
	switch (offset) {
	case VIRTIO_MMIO_QUEUE_NUM_MAX:
		return queue->max_size;
	case VIRTIO_MMIO_QUEUE_READY:
		return queue->enabled;
	case QUEUE_RESET:
		if (mmio->device->strict)
			strict_queue_reset_read(queue);
		return queue->resetting;
	default:
		return 0;
	}
}

static u32 register_read(struct virtio_mmio *mmio, u32 offset)
{
	struct virtio_device *device = mmio->device;

	switch (offset) {
	case VIRTIO_MMIO_MAGIC_VALUE:
		return MAGIC;
	case VIRTIO_MMIO_VERSION:
		return VERSION;
	case VIRTIO_MMIO_DEVICE_ID:
		return device->ops->id;
	case VIRTIO_MMIO_VENDOR_ID:
		return VENDOR;
	case VIRTIO_MMIO_DEVICE_FEATURES:
		return virtio_features_read(device, mmio->device_feature_select, false);
	case VIRTIO_MMIO_INTERRUPT_STATUS:
		return atomic_load(&device->isr);
	case VIRTIO_MMIO_STATUS:
		return virtio_status_read(device);
	case VIRTIO_MMIO_CONFIG_GENERATION:
		return virtio_config_generation(device);
	case VIRTIO_MMIO_SHM_LEN_LOW: /* no shared memory: all ones (4.2.2.1) */
	case VIRTIO_MMIO_SHM_LEN_HIGH:
	case VIRTIO_MMIO_SHM_BASE_LOW:
	case VIRTIO_MMIO_SHM_BASE_HIGH:
		return UINT32_MAX;
	default:
		return queue_read(mmio, offset);
	}
}

static void half_write(u64 *address, u32 value, bool high)
{
	if (high)
		*address = (*address & UINT32_MAX) | (u64)value << 32;
	else
		*address = (*address & ~(u64)UINT32_MAX) | value;
}

static void area_write(struct virtio_queue *queue, u32 offset, u32 value)
{
	bool high = offset & 4;

	if (queue->device->strict)
		strict_queue_register(queue);
	if (queue->enabled || queue->resetting)
		return;
	switch (offset & ~4u) {
	case VIRTIO_MMIO_QUEUE_DESC_LOW:
		half_write(&queue->descriptors, value, high);
		break;
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
		half_write(&queue->driver, value, high);
		break;
	case VIRTIO_MMIO_QUEUE_USED_LOW:
		half_write(&queue->used, value, high);
		break;
	}
}

static void queue_write(struct virtio_mmio *mmio, u32 offset, u32 value)
{
	struct virtio_device *device = mmio->device;
	struct virtio_queue *queue = selected(mmio);

	if (!queue) {
		if (device->strict)
			strict_report(device, NULL, STRICT_QUEUE_NONE,
				      "a register of queue %u is written", mmio->queue_select);
		return;
	}
	switch (offset) {
	case VIRTIO_MMIO_QUEUE_NUM:
		virtio_queue_set_size(queue, value > UINT16_MAX ? 0 : (u16)value);
		break;
	case VIRTIO_MMIO_QUEUE_READY:
		if (value == 0) {
			virtio_queue_disable(queue);
			break;
		}
		if (device->strict)
			strict_queue_enable(queue, value);
		virtio_queue_enable(queue);
		break;
	case QUEUE_RESET:
		if (device->strict)
			strict_queue_reset(queue, value);
		if (value == 1)
			virtio_queue_reset(queue);
		break;
	default:
		if (offset >= VIRTIO_MMIO_QUEUE_DESC_LOW && offset <= VIRTIO_MMIO_QUEUE_USED_HIGH)
			area_write(queue, offset, value);
	}
}

static void register_write(struct virtio_mmio *mmio, u32 offset, u32 value)
{
	struct virtio_device *device = mmio->device;

	switch (offset) {
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
		mmio->device_feature_select = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
		mmio->driver_feature_select = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES:
		virtio_features_write(device, mmio->driver_feature_select, value, false);
		break;
	case VIRTIO_MMIO_QUEUE_SEL:
		mmio->queue_select = value;
		break;
	case VIRTIO_MMIO_QUEUE_NOTIFY:
		/* 4.2.2: the index in the low half */
		virtio_queue_kick(device, (u16)value);
		break;
	case VIRTIO_MMIO_INTERRUPT_ACK:
		atomic_fetch_and(&device->isr, ~value);
		break;
	case VIRTIO_MMIO_STATUS:
		virtio_status_write(device, (u8)value, false);
		if (device->strict && (u8)value == 0)
			strict_status_read(device, 0); /* nobody has to look: see enter() */
		break;
	default:
		queue_write(mmio, offset, value);
	}
}

/* What a driver may only read, or only write (4.2.2, table 4.1). */
static bool read_only(u64 offset)
{
	switch (offset) {
	case VIRTIO_MMIO_MAGIC_VALUE:
	case VIRTIO_MMIO_VERSION:
	case VIRTIO_MMIO_DEVICE_ID:
	case VIRTIO_MMIO_VENDOR_ID:
	case VIRTIO_MMIO_DEVICE_FEATURES:
	case VIRTIO_MMIO_QUEUE_NUM_MAX:
	case VIRTIO_MMIO_INTERRUPT_STATUS:
	case VIRTIO_MMIO_CONFIG_GENERATION:
		return true;
	default:
		return false;
	}
}

static bool write_only(u64 offset)
{
	switch (offset) {
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
	case VIRTIO_MMIO_DRIVER_FEATURES:
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
	case VIRTIO_MMIO_QUEUE_SEL:
	case VIRTIO_MMIO_QUEUE_NUM:
	case VIRTIO_MMIO_QUEUE_NOTIFY:
	case VIRTIO_MMIO_INTERRUPT_ACK:
		return true;
	default:
		return offset >= VIRTIO_MMIO_QUEUE_DESC_LOW &&
		       offset <= VIRTIO_MMIO_QUEUE_USED_HIGH;
	}
}

/* 4.2.2.2 */
static void check_access(struct virtio_mmio *mmio, u64 offset, unsigned int size, bool write)
{
	struct virtio_device *device = mmio->device;

	if (size != 4 || offset % 4)
		strict_report(device, NULL, STRICT_REGISTER_WIDTH, "%u bytes at 0x%x", size,
			      (u32)offset);
	else if (write ? read_only(offset) : write_only(offset))
		strict_report(device, NULL, STRICT_REGISTER_READONLY, "0x%x is %s", (u32)offset,
			      write ? "written" : "read");
	if (offset == VIRTIO_MMIO_STATUS || offset == VIRTIO_MMIO_CONFIG_GENERATION ||
	    offset == VIRTIO_MMIO_QUEUE_NOTIFY)
		return;
	strict_access(device, false, write);
}

/*
 * An access begins. 4.2.2.2 has no driver wait for a reset, as it has over PCI: whatever it
 * accesses next does. Not the doorbell, nor the interrupt's acknowledge.
 */
static void enter(struct virtio_mmio *mmio, u64 offset)
{
	struct virtio_device *device = mmio->device;

	pthread_mutex_lock(&device->lock);
	if (device->resetting && offset != VIRTIO_MMIO_QUEUE_NOTIFY &&
	    offset != VIRTIO_MMIO_INTERRUPT_STATUS && offset != VIRTIO_MMIO_INTERRUPT_ACK)
		virtio_reset_wait(device);
}

static u64 region_read(void *owner, u64 offset, unsigned int size)
{
	struct virtio_mmio *mmio = owner;
	u64 value = 0;

	enter(mmio, offset);
	if (offset >= VIRTIO_MMIO_CONFIG) {
		value = virtio_config_read(mmio->device, (u32)(offset - VIRTIO_MMIO_CONFIG), size);
	} else {
		if (mmio->device->strict)
			check_access(mmio, offset, size, false);
		if (size == 4 && offset % 4 == 0)
			value = register_read(mmio, (u32)offset);
	}
	pthread_mutex_unlock(&mmio->device->lock);
	return value;
}

static void region_write(void *owner, u64 offset, unsigned int size, u64 value)
{
	struct virtio_mmio *mmio = owner;

	enter(mmio, offset);
	if (offset >= VIRTIO_MMIO_CONFIG) {
		virtio_config_write(mmio->device, (u32)(offset - VIRTIO_MMIO_CONFIG), size, value);
	} else {
		if (mmio->device->strict)
			check_access(mmio, offset, size, true);
		if (size == 4 && offset % 4 == 0)
			register_write(mmio, (u32)offset, (u32)value);
	}
	pthread_mutex_unlock(&mmio->device->lock);
}

static const struct bus_ops region_ops = { .read = region_read, .write = region_write };

/* ---- construction ---- */

static struct bus_doorbell doorbell_of(const struct virtio_mmio *mmio, u32 queue)
{
	return (struct bus_doorbell){ .space = BUS_MMIO,
				      .address = mmio->config.address + VIRTIO_MMIO_QUEUE_NOTIFY,
				      .length = 4,
				      .match = true,
				      .value = queue,
				      .fd = mmio->device->queues[queue].doorbell_fd };
}

static int add_doorbells(struct virtio_mmio *mmio)
{
	struct bus_doorbell doorbell;
	int error;

	while (mmio->doorbells < mmio->device->queue_count) {
		doorbell = doorbell_of(mmio, mmio->doorbells);
		error = bus_doorbell_add(mmio->config.bus, &doorbell);
		if (error)
			return error;
		mmio->doorbells++;
	}
	return 0;
}

static int add_line(struct virtio_mmio *mmio)
{
	const struct virtio_mmio_config *config = &mmio->config;
	int error;

	mmio->share = (struct irq_share){ .asserted = asserted, .owner = mmio };
	error = irq_shared_add(config->irq, config->gsi, &mmio->share);
	if (error)
		return error;
	mmio->shared = true;
	mmio->line = reactor_file_add(config->reactors, irq_shared_fd(config->irq, config->gsi));
	if (mmio->line < 0)
		return mmio->line;
	if (!config->first)
		return 0;
	mmio->resample.fired = line_resampled;
	mmio->resample.fd = irq_shared_resample_fd(config->irq, config->gsi);
	return reactor_event_add(reactors_get(config->reactors, 0), &mmio->resample);
}

static void connect_device(struct virtio_mmio *mmio)
{
	struct virtio_device *device = mmio->device;

	pthread_mutex_lock(&device->lock);
	device->transport_owner = mmio;
	device->transport = &transport_ops;
	for (u16 i = 0; i < device->queue_count; i++)
		transport_queue_reset(&device->queues[i]);
	transport_reset(device);
	atomic_store(&device->intx_file, mmio->line);
	pthread_mutex_unlock(&device->lock);
}

int virtio_mmio_create(struct virtio_mmio **result, const struct virtio_mmio_config *config)
{
	struct virtio_mmio *mmio = calloc(1, sizeof(*mmio));
	int error = -ENOMEM;

	if (!mmio)
		goto out;
	mmio->config = *config;
	mmio->device = config->device;
	mmio->line = -1;
	mmio->region = (struct bus_region){ .space = BUS_MMIO,
					    .base = config->address,
					    .size = SIZE,
					    .ops = &region_ops,
					    .owner = mmio };
	error = bus_map(config->bus, &mmio->region);
	mmio->mapped = !error;
	if (!error)
		error = add_line(mmio);
	if (!error)
		error = add_doorbells(mmio);
	if (error) {
		virtio_mmio_destroy(mmio);
		goto out;
	}
	connect_device(mmio);
	*result = mmio;
	return 0;
out:
	log_line("%s: its registers cannot be put into memory: %s; use fewer devices or queues",
		 config->device->name, strerror(-error));
	return error;
}

void virtio_mmio_destroy(struct virtio_mmio *mmio)
{
	struct virtio_device *device;

	if (!mmio)
		return;
	device = mmio->device;
	pthread_mutex_lock(&device->lock);
	device->transport = &nobody_ops;
	atomic_store(&device->intx_file, -1);
	for (u16 i = 0; i < device->queue_count; i++)
		virtio_queue_set_interrupt(&device->queues[i], VIRTIO_INTERRUPT_NONE,
					   VIRTIO_INTERRUPT_NONE);
	pthread_mutex_unlock(&device->lock);
	while (mmio->doorbells) {
		struct bus_doorbell doorbell = doorbell_of(mmio, --mmio->doorbells);

		bus_doorbell_remove(mmio->config.bus, &doorbell);
	}
	if (mmio->mapped)
		bus_unmap(mmio->config.bus, &mmio->region);
	if (mmio->shared)
		irq_shared_remove(mmio->config.irq, mmio->config.gsi, &mmio->share);
	free(mmio);
}

void virtio_mmio_reset(struct virtio_mmio *mmio)
{
	virtio_device_power_on(mmio->device);
	connect_device(mmio);
}
