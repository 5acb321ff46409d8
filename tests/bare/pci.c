/* Bare guest: configuration space and capabilities. */
#include <linux/pci_regs.h>
#include <linux/virtio_pci.h>
#include "bare.h"

struct lock config_ports; /* address and data belong together */

u32 config_read(u32 slot, u32 offset, u32 size)
{
	u32 value;

	lock(&config_ports);
	out32(0xcf8, 0x80000000u | slot << 11 | (offset & 0xfc));
	if (size == 1)
		value = in8((u16)(0xcfc + (offset & 3)));
	else
		value = size == 2 ? in16((u16)(0xcfc + (offset & 2))) : in32(0xcfc);
	unlock(&config_ports);
	return value;
}

void config_write(u32 slot, u32 offset, u32 size, u32 value)
{
	lock(&config_ports);
	out32(0xcf8, 0x80000000u | slot << 11 | (offset & 0xfc));
	if (size == 1)
		out8((u16)(0xcfc + (offset & 3)), (u8)value);
	else if (size == 2)
		out16((u16)(0xcfc + (offset & 2)), (u16)value);
	else
		out32(0xcfc, value);
	unlock(&config_ports);
}

void read_bars(struct function *f)
{
	for (u32 i = 0; i < 6; i++) {
		u32 low = config_read(f->slot, PCI_BASE_ADDRESS_0 + i * 4, 4);

		f->bar_io[i] = low & 1;
		f->bar[i] = low & (low & 1 ? ~3u : ~15u);
		if (!(low & 1) && (low & 6) == 4 && i < 5) {
			f->bar[i] |= (u64)config_read(f->slot, PCI_BASE_ADDRESS_0 + i * 4 + 4, 4)
				     << 32;
			i++;
		}
	}
}

static struct capability *slot_for(struct function *f, u8 type, bool io)
{
	switch (type) {
	case VIRTIO_PCI_CAP_COMMON_CFG:
		return &f->common;
	case VIRTIO_PCI_CAP_NOTIFY_CFG:
		return io ? &f->notify_io : &f->notify_mem;
	case VIRTIO_PCI_CAP_ISR_CFG:
		return io ? &f->isr_io : &f->isr_mem;
	case VIRTIO_PCI_CAP_DEVICE_CFG:
		return &f->config;
	case VIRTIO_PCI_CAP_PCI_CFG:
		return &f->window;
	}
	return NULL;
}

static void read_capabilities(struct function *f)
{
	u32 at = config_read(f->slot, PCI_CAPABILITY_LIST, 1);

	for (u32 n = 0; at && n < 48; n++, at = config_read(f->slot, at + 1, 1)) {
		u32 id = config_read(f->slot, at, 1);
		struct capability *c;
		u8 bar;

		if (id == PCI_CAP_ID_MSIX) {
			u32 table = config_read(f->slot, at + PCI_MSIX_TABLE, 4);
			u32 pba = config_read(f->slot, at + PCI_MSIX_PBA, 4);

			f->msix = at;
			f->msix_table = f->bar[table & 7] + (table & ~7u);
			f->msix_pba = f->bar[pba & 7] + (pba & ~7u);
		}
		if (id != PCI_CAP_ID_VNDR)
			continue;
		bar = (u8)config_read(f->slot, at + 4, 1);
		c = slot_for(f, (u8)config_read(f->slot, at + 3, 1), bar < 6 && f->bar_io[bar]);
		if (!c || c->found)
			continue;
		c->found = true;
		c->at = at;
		c->bar = bar;
		c->offset = config_read(f->slot, at + 8, 4);
		c->length = config_read(f->slot, at + 12, 4);
		c->extra = config_read(f->slot, at + 16, 4);
	}
}

bool find_function(struct function *f, u32 type, u32 n)
{
	for (u32 slot = 0; slot < 32; slot++) {
		if (config_read(slot, PCI_VENDOR_ID, 2) != 0x1af4)
			continue;
		*f = (struct function){ .slot = slot,
					.device = config_read(slot, PCI_DEVICE_ID, 2),
					.type = config_read(slot, PCI_SUBSYSTEM_ID, 2) };
		/* virtio 1.3, 4.1.2: a modern device's id tells its type; a transitional one's does
		 * not */
		if (f->device >= 0x1040)
			f->type = f->device - 0x1040;
		if (f->type != type || n--)
			continue;
		config_write(slot, PCI_COMMAND, 2,
			     PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
		read_bars(f);
		read_capabilities(f);
		return true;
	}
	return false;
}

u64 bar_size(struct function *f, u32 bar)
{
	u32 at = PCI_BASE_ADDRESS_0 + bar * 4, old = config_read(f->slot, at, 4), mask;
	u32 command = config_read(f->slot, PCI_COMMAND, 2);

	config_write(f->slot, PCI_COMMAND, 2, 0);
	config_write(f->slot, at, 4, ~0u);
	mask = config_read(f->slot, at, 4);
	config_write(f->slot, at, 4, old);
	config_write(f->slot, PCI_COMMAND, 2, command);
	mask &= f->bar_io[bar] ? ~3u : ~15u;
	return mask ? (u64)(u32)(~mask + 1) & (f->bar_io[bar] ? 0xffff : ~0ull) : 0;
}

void move_bar(struct function *f, u32 bar, u64 to)
{
	u32 at = PCI_BASE_ADDRESS_0 + bar * 4, command = config_read(f->slot, PCI_COMMAND, 2);
	u64 table = f->msix_table - f->bar[bar], pba = f->msix_pba - f->bar[bar];
	u64 size = bar_size(f, bar);

	config_write(f->slot, PCI_COMMAND, 2,
		     command & ~(u32)(PCI_COMMAND_IO | PCI_COMMAND_MEMORY));
	config_write(f->slot, at, 4, (u32)to);
	if (!f->bar_io[bar])
		config_write(f->slot, at + 4, 4, (u32)(to >> 32));
	config_write(f->slot, PCI_COMMAND, 2, command);
	read_bars(f);
	if (table < size)
		f->msix_table = f->bar[bar] + table;
	if (pba < size)
		f->msix_pba = f->bar[bar] + pba;
}
