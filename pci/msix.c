/*
 * MSI-X (PCI Local Bus 3.0, 6.8.2 and 6.8.3): capability, table and pending bits. A vector is an
 * eventfd that keeps an interrupt while it is not connected, so whoever fires one needs to know
 * nothing of masks; the pending bit is the eventfd's own state.
 */
#include "pci/pci-internal.h"

#include <errno.h>
#include <stdlib.h>

struct msix_entry {
	u64 address;
	u32 data;
	u32 control;
	bool connected;
	struct irq_msi *msi;
};

struct pci_msix {
	u8 capability; /* its offset in config space */
	u8 bar;
	u32 table, pba; /* offsets in the BAR */
	u16 vectors;
	bool masked; /* Message Control, Function Mask */
	_Atomic bool enabled;
	struct msix_entry entries[];
};

static u32 pba_size(const struct pci_msix *msix)
{
	return ALIGN_UP((u32)msix->vectors, 64u) / 8;
}

int pci_msix_init(struct pci_function *function, struct irq *irq, u8 bar, u32 table_offset,
		  u32 pba_offset, u16 vectors)
{
	struct pci_msix *msix;
	int capability, error;
	u8 *config;

	if (!vectors || vectors > PCI_MSIX_MAX || bar >= PCI_BARS || table_offset % 8 ||
	    pba_offset % 8)
		return -EINVAL;
	msix = calloc(1, sizeof(*msix) + vectors * sizeof(msix->entries[0]));
	if (!msix)
		return -ENOMEM;
	msix->bar = bar;
	msix->table = table_offset;
	msix->pba = pba_offset;
	msix->vectors = vectors;
	function->msix = msix;
	for (u16 i = 0; i < vectors; i++) {
		msix->entries[i].control = PCI_MSIX_ENTRY_CTRL_MASKBIT;
		error = irq_msi_create(irq, &msix->entries[i].msi);
		if (error)
			goto out;
	}
	capability = pci_capability_add(function, PCI_CAP_ID_MSIX, PCI_CAP_MSIX_SIZEOF);
	if (capability < 0) {
		error = capability;
		goto out;
	}
	msix->capability = (u8)capability;
	config = function->config + capability;
	le16_store(config + PCI_MSIX_FLAGS, (u16)(vectors - 1));
	le32_store(config + PCI_MSIX_TABLE, table_offset | bar);
	le32_store(config + PCI_MSIX_PBA, pba_offset | bar);
	le16_store(function->writable + capability + PCI_MSIX_FLAGS,
		   PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	return 0;
out:
	pci_msix_destroy(function);
	return error;
}

void pci_msix_destroy(struct pci_function *function)
{
	struct pci_msix *msix = function->msix;

	if (!msix)
		return;
	for (u16 i = 0; i < msix->vectors; i++)
		if (msix->entries[i].msi)
			irq_msi_destroy(msix->entries[i].msi);
	function->msix = NULL;
	free(msix);
}

int pci_msix_fd(const struct pci_function *function, u16 vector)
{
	if (vector >= pci_msix_vectors(function))
		return -1;
	return irq_msi_fd(function->msix->entries[vector].msi);
}

u16 pci_msix_vectors(const struct pci_function *function)
{
	return function->msix ? function->msix->vectors : 0;
}

bool pci_msix_enabled(const struct pci_function *function)
{
	return function->msix && function->msix->enabled;
}

/* A vector has a route exactly while nothing masks it. */
static bool entry_wanted(const struct pci_msix *msix, const struct msix_entry *entry)
{
	return msix->enabled && !msix->masked && !(entry->control & PCI_MSIX_ENTRY_CTRL_MASKBIT);
}

static void entry_update(const struct pci_msix *msix, struct msix_entry *entry)
{
	if (entry_wanted(msix, entry)) {
		/* A failure was logged; the interrupt stays pending until a connect succeeds. */
		entry->connected = !irq_msi_connect(entry->msi, entry->address, entry->data);
	} else if (entry->connected) {
		irq_msi_disconnect(entry->msi);
		entry->connected = false;
	}
}

static void set_control(struct pci_function *function, bool enabled, bool masked)
{
	struct pci_msix *msix = function->msix;
	bool changed = msix->enabled != enabled;

	if (!changed && msix->masked == masked)
		return;
	msix->masked = masked;
	/* What was fired into vectors before they counted is no interrupt of theirs. */
	if (changed && enabled)
		pci_msix_clear(function);
	msix->enabled = enabled;
	for (u16 i = 0; i < msix->vectors; i++)
		if (entry_wanted(msix, &msix->entries[i]))
			irq_msi_prepare(msix->entries[i].msi, msix->entries[i].address,
					msix->entries[i].data);
	for (u16 i = 0; i < msix->vectors; i++)
		entry_update(msix, &msix->entries[i]);
	if (!changed)
		return;
	if (function->ops->msix_enabled)
		function->ops->msix_enabled(function, enabled);
	pci_intx_changed(function);
}

void pci_msix_control_written(struct pci_function *function, u32 offset, u32 size)
{
	struct pci_msix *msix = function->msix;
	u16 control;

	if (!msix || !pci_overlaps(offset, size, (u32)msix->capability + PCI_MSIX_FLAGS, 2))
		return;
	control = le16_load(function->config + msix->capability + PCI_MSIX_FLAGS);
	set_control(function, control & PCI_MSIX_FLAGS_ENABLE, control & PCI_MSIX_FLAGS_MASKALL);
}

void pci_msix_clear(struct pci_function *function)
{
	for (u16 i = 0; i < pci_msix_vectors(function); i++)
		if (!function->msix->entries[i].connected)
			irq_msi_clear(function->msix->entries[i].msi);
}

void pci_msix_reset(struct pci_function *function)
{
	struct pci_msix *msix = function->msix;

	if (!msix)
		return;
	set_control(function, false, false);
	for (u16 i = 0; i < msix->vectors; i++) {
		msix->entries[i].address = 0;
		msix->entries[i].data = 0;
		msix->entries[i].control = PCI_MSIX_ENTRY_CTRL_MASKBIT;
	}
	pci_msix_clear(function);
}

/* ---- accesses to table and pending bits, dword by dword ---- */

static u32 table_read(const struct pci_msix *msix, u32 offset)
{
	const struct msix_entry *entry = &msix->entries[offset / PCI_MSIX_ENTRY_SIZE];

	switch (offset % PCI_MSIX_ENTRY_SIZE) {
	case PCI_MSIX_ENTRY_LOWER_ADDR:
		return (u32)entry->address;
	case PCI_MSIX_ENTRY_UPPER_ADDR:
		return (u32)(entry->address >> 32);
	case PCI_MSIX_ENTRY_DATA:
		return entry->data;
	default:
		return entry->control;
	}
}

static void table_write(struct pci_msix *msix, u32 offset, u32 value)
{
	struct msix_entry *entry = &msix->entries[offset / PCI_MSIX_ENTRY_SIZE];

	switch (offset % PCI_MSIX_ENTRY_SIZE) {
	case PCI_MSIX_ENTRY_LOWER_ADDR:
		entry->address = (entry->address & ~0xffffffffull) | (value & ~3u);
		break;
	case PCI_MSIX_ENTRY_UPPER_ADDR:
		entry->address = (entry->address & 0xffffffffull) | (u64)value << 32;
		break;
	case PCI_MSIX_ENTRY_DATA:
		entry->data = value;
		break;
	default:
		entry->control = value & PCI_MSIX_ENTRY_CTRL_MASKBIT;
	}
}

/* 32 pending bits. */
static u32 pba_read(const struct pci_msix *msix, u32 offset)
{
	u32 bits = 0;

	for (u32 i = 0; i < 32; i++) {
		u32 vector = offset * 8 + i;

		if (vector < msix->vectors && !msix->entries[vector].connected &&
		    irq_msi_pending(msix->entries[vector].msi))
			bits |= BIT(i);
	}
	return bits;
}

static bool in_window(const struct pci_msix *msix, unsigned int bar, u64 offset, u32 start,
		      u32 size)
{
	return msix && bar == msix->bar && offset >= start && offset - start < size;
}

/* Dword at an offset that counts from the window's start; what is cut off by its end reads as zero.
 */
static u32 window_read(const struct pci_msix *msix, bool table, u32 offset)
{
	if (table)
		return offset < (u32)msix->vectors * PCI_MSIX_ENTRY_SIZE ? table_read(msix, offset)
									 : 0;
	return offset < pba_size(msix) ? pba_read(msix, offset) : 0;
}

bool pci_msix_read(struct pci_function *function, unsigned int bar, u64 offset, unsigned int size,
		   u64 *value)
{
	const struct pci_msix *msix = function->msix;
	bool table;
	u32 at, low;
	u64 dwords;

	if (msix && in_window(msix, bar, offset, msix->table, msix->vectors * PCI_MSIX_ENTRY_SIZE))
		table = true;
	else if (msix && in_window(msix, bar, offset, msix->pba, pba_size(msix)))
		table = false;
	else
		return false;
	/* Only aligned 4 and 8 byte accesses are defined (6.8.2); the others read the bytes that
	 * are there. */
	at = (u32)offset - (table ? msix->table : msix->pba);
	low = ALIGN_DOWN(at, 4u);
	dwords = window_read(msix, table, low) | (u64)window_read(msix, table, low + 4) << 32;
	dwords >>= 8 * (at - low);
	*value = size < 8 ? dwords & (BIT64(8 * size) - 1) : dwords;
	return true;
}

bool pci_msix_write(struct pci_function *function, unsigned int bar, u64 offset, unsigned int size,
		    u64 value)
{
	struct pci_msix *msix = function->msix;
	u32 at;

	if (msix && in_window(msix, bar, offset, msix->pba, pba_size(msix)))
		return true; /* read-only */
	if (!msix ||
	    !in_window(msix, bar, offset, msix->table, msix->vectors * PCI_MSIX_ENTRY_SIZE))
		return false;
	at = (u32)offset - msix->table;
	if (size < 4 || at % size)
		return true;
	table_write(msix, at, (u32)value);
	if (size == 8)
		table_write(msix, at + 4, (u32)(value >> 32));
	entry_update(msix, &msix->entries[at / PCI_MSIX_ENTRY_SIZE]);
	return true;
}
