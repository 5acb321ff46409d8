/*
 * The legacy register layout in BAR0 (virtio 1.3, 4.1.4.10): the structure before 1.0, in the
 * guest's byte order, which on x86 is little-endian. vCPU threads, under the function's and the
 * device's lock.
 */
#include "virtio/pci-internal.h"
#include "virtio/strict.h"

/* Without MSI-X the list ends before the vectors, and device configuration begins there
 * (VIRTIO_PCI_CONFIG_OFF). */
static const struct virtio_pci_register legacy[] = {
	{ VIRTIO_PCI_HOST_FEATURES, 4 }, { VIRTIO_PCI_GUEST_FEATURES, 4 },
	{ VIRTIO_PCI_QUEUE_PFN, 4 },	 { VIRTIO_PCI_QUEUE_NUM, 2 },
	{ VIRTIO_PCI_QUEUE_SEL, 2 },	 { VIRTIO_PCI_QUEUE_NOTIFY, 2 },
	{ VIRTIO_PCI_STATUS, 1 },	 { VIRTIO_PCI_ISR, 1 },
	{ VIRTIO_MSI_CONFIG_VECTOR, 2 }, { VIRTIO_MSI_QUEUE_VECTOR, 2 },
};
#define VECTOR_REGISTERS 2

static u32 legacy_register_read(struct virtio_pci *pci, u32 offset)
{
	struct virtio_queue *queue = virtio_pci_selected(pci);

	switch (offset) {
	case VIRTIO_PCI_HOST_FEATURES:
		return virtio_features_read(pci->device, 0, true);
	case VIRTIO_PCI_GUEST_FEATURES:
		return (u32)pci->device->features;
	case VIRTIO_PCI_QUEUE_PFN:
		return queue && queue->enabled
			       ? (u32)(queue->descriptors >> VIRTIO_PCI_QUEUE_ADDR_SHIFT)
			       : 0;
	case VIRTIO_PCI_QUEUE_NUM:
		return queue ? queue->size : 0;
	case VIRTIO_PCI_QUEUE_SEL:
		return pci->queue_select;
	case VIRTIO_PCI_STATUS:
		return virtio_status_read(pci->device);
	case VIRTIO_PCI_ISR:
		return virtio_pci_isr_read(pci);
	case VIRTIO_MSI_CONFIG_VECTOR:
		if (pci->device->strict)
			strict_vector_read(pci->device, NULL);
		return pci->config_vector;
	case VIRTIO_MSI_QUEUE_VECTOR:
		if (queue && pci->device->strict)
			strict_vector_read(pci->device, queue);
		return queue ? queue->msix_vector : VIRTIO_MSI_NO_VECTOR;
	default:
		return 0;
	}
}

static void legacy_register_write(struct virtio_pci *pci, u32 offset, u32 value)
{
	struct virtio_queue *queue = virtio_pci_selected(pci);

	switch (offset) {
	case VIRTIO_PCI_GUEST_FEATURES:
		virtio_features_write(pci->device, 0, value, true);
		break;
	case VIRTIO_PCI_QUEUE_PFN:
		if (pci->device->strict)
			strict_access(pci->device, true, true);
		if (queue)
			virtio_queue_set_pfn(queue, value);
		else if (pci->device->strict)
			strict_report(pci->device, NULL, STRICT_QUEUE_NONE,
				      "queue %u is given an address", pci->queue_select);
		break;
	case VIRTIO_PCI_QUEUE_SEL:
		pci->queue_select = (u16)value;
		break;
	case VIRTIO_PCI_QUEUE_NOTIFY:
		virtio_queue_kick(pci->device, (u16)value);
		break;
	case VIRTIO_PCI_STATUS:
		virtio_pci_set_status(pci, (u8)value, true);
		break;
	case VIRTIO_MSI_CONFIG_VECTOR:
		virtio_pci_set_config_vector(pci, (u16)value);
		break;
	case VIRTIO_MSI_QUEUE_VECTOR:
		if (queue)
			virtio_pci_set_queue_vector(pci, queue, (u16)value);
		break;
	}
}

static struct virtio_pci_registers registers_now(bool vectors)
{
	return (struct virtio_pci_registers){
		.list = legacy,
		.count = ARRAY_SIZE(legacy) - (vectors ? 0 : VECTOR_REGISTERS),
		.read = legacy_register_read,
		.write = legacy_register_write,
	};
}

/*
 * A legacy driver takes a reset to be done when its write is, so whatever it accesses next waits
 * for it. Not the ISR and the doorbell: a modern driver uses those here too, and for it a reset is
 * over when status says so.
 */
static void wait_for_reset(struct virtio_pci *pci, u64 offset, unsigned int size)
{
	bool shared = (offset == VIRTIO_PCI_QUEUE_NOTIFY && size <= 2) ||
		      (offset == VIRTIO_PCI_ISR && size == 1);

	if (pci->device->resetting && !shared)
		virtio_reset_wait(pci->device);
}

/* How many bytes of an access are registers; device configuration follows. */
static unsigned int register_bytes(u64 offset, unsigned int size, u32 config)
{
	if (offset >= config)
		return 0;
	return size < config - offset ? size : config - (u32)offset;
}

u64 virtio_pci_legacy_read(struct virtio_pci *pci, u64 offset, unsigned int size)
{
	bool vectors = pci_msix_enabled(&pci->function);
	struct virtio_pci_registers registers = registers_now(vectors);
	u32 config = VIRTIO_PCI_CONFIG_OFF(vectors);
	unsigned int first = register_bytes(offset, size, config);
	u64 value = 0;

	wait_for_reset(pci, offset, size);
	if (first)
		value = virtio_pci_registers_read(pci, &registers, offset, first);
	if (first < size)
		value |= virtio_config_read(pci->device, (u32)offset + first - config, size - first)
			 << 8 * first;
	return value;
}

void virtio_pci_legacy_write(struct virtio_pci *pci, u64 offset, unsigned int size, u64 value)
{
	bool vectors = pci_msix_enabled(&pci->function);
	struct virtio_pci_registers registers = registers_now(vectors);
	u32 config = VIRTIO_PCI_CONFIG_OFF(vectors);
	unsigned int first = register_bytes(offset, size, config);

	wait_for_reset(pci, offset, size);
	if (first)
		virtio_pci_registers_write(pci, &registers, offset, first, value);
	if (first < size)
		virtio_config_write(pci->device, (u32)offset + first - config, size - first,
				    value >> 8 * first);
}
