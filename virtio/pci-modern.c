/*
 * The modern register layout (virtio 1.3, 4.1.4.3 to 4.1.4.6): common configuration, notification
 * area, ISR and device configuration. vCPU threads, under the function's and the device's lock.
 */
#include "virtio/pci-internal.h"
#include "virtio/strict.h"

static const struct virtio_pci_register common[] = {
	{ VIRTIO_PCI_COMMON_DFSELECT, 4 },  { VIRTIO_PCI_COMMON_DF, 4 },
	{ VIRTIO_PCI_COMMON_GFSELECT, 4 },  { VIRTIO_PCI_COMMON_GF, 4 },
	{ VIRTIO_PCI_COMMON_MSIX, 2 },	    { VIRTIO_PCI_COMMON_NUMQ, 2 },
	{ VIRTIO_PCI_COMMON_STATUS, 1 },    { VIRTIO_PCI_COMMON_CFGGENERATION, 1 },
	{ VIRTIO_PCI_COMMON_Q_SELECT, 2 },  { VIRTIO_PCI_COMMON_Q_SIZE, 2 },
	{ VIRTIO_PCI_COMMON_Q_MSIX, 2 },    { VIRTIO_PCI_COMMON_Q_ENABLE, 2 },
	{ VIRTIO_PCI_COMMON_Q_NOFF, 2 },    { VIRTIO_PCI_COMMON_Q_DESCLO, 4 },
	{ VIRTIO_PCI_COMMON_Q_DESCHI, 4 },  { VIRTIO_PCI_COMMON_Q_AVAILLO, 4 },
	{ VIRTIO_PCI_COMMON_Q_AVAILHI, 4 }, { VIRTIO_PCI_COMMON_Q_USEDLO, 4 },
	{ VIRTIO_PCI_COMMON_Q_USEDHI, 4 },  { VIRTIO_PCI_COMMON_Q_NDATA, 2 },
	{ VIRTIO_PCI_COMMON_Q_RESET, 2 },
};

/* Registers of the selected queue. A queue that does not exist has size 0 (4.1.4.3.1), and nothing
 * else. */
static u32 queue_read(struct virtio_pci *pci, u32 offset)
{
	struct virtio_queue *queue = virtio_pci_selected(pci);
	struct virtio_device *device = pci->device;

	if (!queue)
		return offset == VIRTIO_PCI_COMMON_Q_MSIX ? VIRTIO_MSI_NO_VECTOR : 0;
	switch (offset) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		return queue->size;
	case VIRTIO_PCI_COMMON_Q_MSIX:
		if (device->strict)
			strict_vector_read(device, queue);
		return queue->msix_vector;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		return queue->enabled;
	case VIRTIO_PCI_COMMON_Q_NOFF:
	case VIRTIO_PCI_COMMON_Q_NDATA:
		return queue->index;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
		return (u32)queue->descriptors;
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		return (u32)(queue->descriptors >> 32);
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
		return (u32)queue->driver;
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		return (u32)(queue->driver >> 32);
	case VIRTIO_PCI_COMMON_Q_USEDLO:
		return (u32)queue->used;
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		return (u32)(queue->used >> 32);
	case VIRTIO_PCI_COMMON_Q_RESET:
		if (device->strict)
			strict_queue_reset_read(queue);
		return queue->resetting;
	default:
		return 0;
	}
}

static u32 common_read(struct virtio_pci *pci, u32 offset)
{
	struct virtio_device *device = pci->device;

	switch (offset) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		return pci->device_feature_select;
	case VIRTIO_PCI_COMMON_DF:
		return virtio_features_read(device, pci->device_feature_select, false);
	case VIRTIO_PCI_COMMON_GFSELECT:
		return pci->driver_feature_select;
	case VIRTIO_PCI_COMMON_GF:
		return pci->driver_feature_select > 1
			       ? 0
			       : (u32)(device->features >> 32 * pci->driver_feature_select);
	case VIRTIO_PCI_COMMON_MSIX:
		if (device->strict)
			strict_vector_read(device, NULL);
		return pci->config_vector;
	case VIRTIO_PCI_COMMON_NUMQ:
		return device->queue_count;
	case VIRTIO_PCI_COMMON_STATUS:
		return virtio_status_read(device);
	case VIRTIO_PCI_COMMON_CFGGENERATION:
		return virtio_config_generation(device);
	case VIRTIO_PCI_COMMON_Q_SELECT:
		return pci->queue_select;
	default:
		return queue_read(pci, offset);
	}
}

static void set_low(u64 *address, u32 value)
{
	*address = (*address & ~0xffffffffull) | value;
}

static void set_high(u64 *address, u32 value)
{
	*address = (*address & 0xffffffffull) | (u64)value << 32;
}

static void area_write(struct virtio_queue *queue, u32 offset, u32 value)
{
	/* A running queue's areas do not move under it. */
	if (queue->enabled || queue->resetting)
		return;
	switch (offset) {
	case VIRTIO_PCI_COMMON_Q_DESCLO:
		set_low(&queue->descriptors, value);
		break;
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		set_high(&queue->descriptors, value);
		break;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
		set_low(&queue->driver, value);
		break;
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		set_high(&queue->driver, value);
		break;
	case VIRTIO_PCI_COMMON_Q_USEDLO:
		set_low(&queue->used, value);
		break;
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		set_high(&queue->used, value);
		break;
	}
}

static void queue_write(struct virtio_pci *pci, u32 offset, u32 value)
{
	struct virtio_queue *queue = virtio_pci_selected(pci);

	if (!queue) {
		if (pci->device->strict)
			strict_report(pci->device, NULL, STRICT_QUEUE_NONE,
				      "a register of queue %u is written", pci->queue_select);
		return;
	}
	switch (offset) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		virtio_queue_set_size(queue, (u16)value);
		break;
	case VIRTIO_PCI_COMMON_Q_MSIX:
		virtio_pci_set_queue_vector(pci, queue, (u16)value);
		break;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		if (pci->device->strict)
			strict_queue_enable(queue, value);
		/* Writing 0 is forbidden to drivers (4.1.4.3.2) and means nothing. */
		if (value == 1)
			virtio_queue_enable(queue);
		break;
	case VIRTIO_PCI_COMMON_Q_RESET:
		if (pci->device->strict)
			strict_queue_reset(queue, value);
		if (value == 1)
			virtio_queue_reset(queue);
		break;
	default:
		if (pci->device->strict && offset >= VIRTIO_PCI_COMMON_Q_DESCLO)
			strict_queue_register(queue);
		area_write(queue, offset, value);
	}
}

static void common_write(struct virtio_pci *pci, u32 offset, u32 value)
{
	switch (offset) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		pci->device_feature_select = value;
		break;
	case VIRTIO_PCI_COMMON_GFSELECT:
		pci->driver_feature_select = value;
		break;
	case VIRTIO_PCI_COMMON_GF:
		virtio_features_write(pci->device, pci->driver_feature_select, value, false);
		break;
	case VIRTIO_PCI_COMMON_MSIX:
		virtio_pci_set_config_vector(pci, (u16)value);
		break;
	case VIRTIO_PCI_COMMON_STATUS:
		virtio_pci_set_status(pci, (u8)value, false);
		break;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		pci->queue_select = (u16)value;
		break;
	default:
		queue_write(pci, offset, value);
	}
}

static const struct virtio_pci_registers common_registers = {
	.list = common,
	.count = ARRAY_SIZE(common),
	.read = common_read,
	.write = common_write,
};

/*
 * A notification that no doorbell took. Where each queue has an address of its own that names the
 * queue, at a single address the value does (4.1.5.2).
 */
static void notify(struct virtio_pci *pci, const struct virtio_pci_window *window, u64 offset,
		   u64 value)
{
	u64 index = window->multiplier ? offset / window->multiplier : value & 0xffff;

	if (window->multiplier ? offset % window->multiplier != 0 : offset != 0)
		return;
	virtio_queue_kick(pci->device, (u16)index);
}

/* ---- the strict checker ---- */

/* 4.1.3.1, 4.1.4.3.2: registers at their width, and not those of the device. */
static void check_access(struct virtio_pci *pci, u64 offset, unsigned int size, bool write)
{
	struct virtio_device *device = pci->device;
	const struct virtio_pci_register *r = common;

	while (r < common + ARRAY_SIZE(common) - 1 && (u64)r->offset + r->size <= offset)
		r++;
	if (r->offset != offset || r->size != size)
		strict_report(device, NULL, STRICT_REGISTER_WIDTH,
			      "%u bytes at %u of the common configuration", size, (u32)offset);
	switch (offset) {
	case VIRTIO_PCI_COMMON_STATUS: /* checked where both layouts meet */
	case VIRTIO_PCI_COMMON_CFGGENERATION:
		break;
	default:
		strict_access(device, false, write);
	}
	if (write && (offset == VIRTIO_PCI_COMMON_DF || offset == VIRTIO_PCI_COMMON_NUMQ ||
		      offset == VIRTIO_PCI_COMMON_CFGGENERATION ||
		      offset == VIRTIO_PCI_COMMON_Q_NOFF || offset == VIRTIO_PCI_COMMON_Q_NDATA))
		strict_report(device, NULL, STRICT_REGISTER_READONLY,
			      "the one at %u of the common configuration is written", (u32)offset);
}

u64 virtio_pci_modern_read(struct virtio_pci *pci, const struct virtio_pci_window *window,
			   u64 offset, unsigned int size)
{
	switch (window->type) {
	case VIRTIO_PCI_CAP_COMMON_CFG:
		if (pci->device->strict)
			check_access(pci, offset, size, false);
		return virtio_pci_registers_read(pci, &common_registers, offset, size);
	case VIRTIO_PCI_CAP_ISR_CFG:
		return virtio_pci_isr_read(pci);
	case VIRTIO_PCI_CAP_DEVICE_CFG:
		return virtio_config_read(pci->device, (u32)offset, size);
	default:
		return 0;
	}
}

void virtio_pci_modern_write(struct virtio_pci *pci, const struct virtio_pci_window *window,
			     u64 offset, unsigned int size, u64 value)
{
	switch (window->type) {
	case VIRTIO_PCI_CAP_COMMON_CFG:
		if (pci->device->strict)
			check_access(pci, offset, size, true);
		virtio_pci_registers_write(pci, &common_registers, offset, size, value);
		break;
	case VIRTIO_PCI_CAP_NOTIFY_CFG:
		notify(pci, window, offset, value);
		break;
	case VIRTIO_PCI_CAP_DEVICE_CFG:
		virtio_config_write(pci->device, (u32)offset, size, value);
		break;
	}
}
