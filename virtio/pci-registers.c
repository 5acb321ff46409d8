/*
 * Accesses of any width to a list of registers, for both layouts (virtio 1.3, 4.1.3.1
 * and 4.1.4.10). vCPU threads.
 */
#include "virtio/pci-internal.h"

u64 virtio_pci_registers_read(struct virtio_pci *pci, const struct virtio_pci_registers *registers,
			      u64 offset, unsigned int size)
{
	u64 value = 0;

	for (u32 i = 0; i < registers->count; i++) {
		const struct virtio_pci_register *r = &registers->list[i];
		u64 bits;

		if (r->offset >= offset + size || offset >= (u64)r->offset + r->size)
			continue;
		bits = registers->read(pci, r->offset);
		if (r->offset >= offset)
			value |= bits << 8 * (r->offset - offset);
		else
			value |= bits >> 8 * (offset - r->offset);
	}
	return size < 8 ? value & (BIT64(8 * size) - 1) : value;
}

void virtio_pci_registers_write(struct virtio_pci *pci,
				const struct virtio_pci_registers *registers, u64 offset,
				unsigned int size, u64 value)
{
	for (u32 i = 0; i < registers->count; i++) {
		const struct virtio_pci_register *r = &registers->list[i];
		u64 start, end, mask;
		u32 bits;

		if (r->offset >= offset + size || offset >= (u64)r->offset + r->size)
			continue;
		start = offset > r->offset ? offset - r->offset : 0;
		end = offset + size - r->offset < r->size ? offset + size - r->offset : r->size;
		if (r->offset >= offset)
			bits = (u32)(value >> 8 * (r->offset - offset));
		else
			bits = (u32)(value << 8 * start);
		mask = (BIT64(8 * end) - 1) & ~(BIT64(8 * start) - 1);
		bits &= (u32)mask;
		/* Only registers of two bytes and more can be hit in part; no read of such has an
		 * effect. */
		if (end - start < r->size)
			bits |= registers->read(pci, r->offset) & ~(u32)mask;
		registers->write(pci, r->offset, bits);
	}
}
