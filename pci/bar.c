/*
 * Base address registers (PCI Local Bus 3.0, 6.2.5.1): first addresses, moves, decoding, and
 * accesses that arrive in them. The registers are the config bytes with their write masks, so a
 * sizing probe answers itself.
 */
#include "pci/pci-internal.h"

#include <errno.h>
#include "vm/log.h"

#define PORTS	       0x10000ull
#define PHYSICAL_LIMIT BIT64(52) /* no x86 has more address bits */

static u32 bar_register(unsigned int bar)
{
	return PCI_BASE_ADDRESS_0 + 4 * bar;
}

static bool is_power_of_two(u64 n)
{
	return n && !(n & (n - 1));
}

int pci_bars_check(const struct pci_function *function)
{
	for (unsigned int i = 0; i < PCI_BARS; i++) {
		const struct pci_bar *bar = &function->bars[i];
		u64 least = bar->kind == PCI_BAR_IO ? 4 : 16;
		u64 most = bar->kind == PCI_BAR_IO ? 256 : GIB(1);

		if (bar->kind == PCI_BAR_NONE)
			continue;
		if (!is_power_of_two(bar->size) || bar->size < least || bar->size > most)
			return -EINVAL;
		if (bar->kind == PCI_BAR_MEM64 &&
		    (i + 1 == PCI_BARS || function->bars[i + 1].kind != PCI_BAR_NONE))
			return -EINVAL;
	}
	return 0;
}

void pci_bars_init(struct pci_function *function)
{
	for (unsigned int i = 0; i < PCI_BARS; i++) {
		struct pci_bar *bar = &function->bars[i];
		u8 *config = function->config + bar_register(i);
		u8 *writable = function->writable + bar_register(i);

		bar->function = function;
		switch (bar->kind) {
		case PCI_BAR_NONE:
			break;
		case PCI_BAR_IO:
			config[0] = PCI_BASE_ADDRESS_SPACE_IO;
			le32_store(writable, ~(u32)(bar->size - 1));
			break;
		case PCI_BAR_MEM32:
			config[0] = PCI_BASE_ADDRESS_MEM_TYPE_32;
			le32_store(writable, ~(u32)(bar->size - 1));
			break;
		case PCI_BAR_MEM64:
			config[0] = PCI_BASE_ADDRESS_MEM_TYPE_64;
			le64_store(writable, ~(bar->size - 1));
			break;
		}
	}
}

static void bar_store(struct pci_function *function, unsigned int i)
{
	struct pci_bar *bar = &function->bars[i];
	u8 *config = function->config + bar_register(i);

	if (bar->kind == PCI_BAR_MEM64)
		le64_store(config, bar->first | config[0]);
	else
		le32_store(config, (u32)bar->first | config[0]);
}

/* The end of a BAR of `kind` that lies in [start, start + size) by the addresses given at plugging,
 * or 0. */
static u64 taken_until(const struct pci_function *function, enum pci_bar_kind kind, u64 start,
		       u64 size)
{
	for (unsigned int i = 0; i < PCI_BARS; i++) {
		const struct pci_bar *bar = &function->bars[i];

		if (bar->kind == kind && bar->first && bar->first < start + size &&
		    start < bar->first + bar->size)
			return bar->first + bar->size;
	}
	return 0;
}

/* First fit, naturally aligned, among the addresses given to the plugged functions and to this one
 * so far. */
static int bar_assign(struct pci_host *host, struct pci_function *function, struct pci_bar *bar)
{
	u64 start, end, at;

	switch (bar->kind) {
	case PCI_BAR_IO:
		start = LAYOUT_PORT_PCI_START;
		end = LAYOUT_PORT_PCI_END;
		break;
	case PCI_BAR_MEM32:
		start = LAYOUT_PCI32_START;
		end = LAYOUT_PCI32_END;
		break;
	default:
		start = host->config.window64_start;
		end = start + host->config.window64_size;
	}
	at = ALIGN_UP(start, bar->size);
	while (at < end && bar->size <= end - at) {
		u64 taken = taken_until(function, bar->kind, at, bar->size);

		for (unsigned int slot = 1; slot < PCI_SLOTS && !taken; slot++)
			if (host->slots[slot])
				taken = taken_until(host->slots[slot], bar->kind, at, bar->size);
		if (!taken) {
			bar->first = at;
			return 0;
		}
		at = ALIGN_UP(taken, bar->size);
	}
	return -ENOSPC;
}

int pci_bars_assign(struct pci_host *host, struct pci_function *function)
{
	for (unsigned int i = 0; i < PCI_BARS; i++)
		function->bars[i].first = 0;
	for (unsigned int i = 0; i < PCI_BARS; i++) {
		int error;

		if (function->bars[i].kind == PCI_BAR_NONE)
			continue;
		error = bar_assign(host, function, &function->bars[i]);
		if (error)
			return error;
		bar_store(function, i);
	}
	return 0;
}

/* Where the registers put the BAR now; false if it is not decoded there. */
static bool bar_decoded(const struct pci_function *function, unsigned int i, u64 *address)
{
	const struct pci_bar *bar = &function->bars[i];
	const u8 *config = function->config + bar_register(i);
	u64 mask = ~(bar->size - 1), at, end, limit;
	u16 enable;

	switch (bar->kind) {
	case PCI_BAR_IO:
		at = le32_load(config) & mask;
		limit = PORTS;
		enable = PCI_COMMAND_IO;
		break;
	case PCI_BAR_MEM32:
		at = le32_load(config) & mask;
		limit = GIB(4) - 1; /* the topmost place is what a sizing probe leaves behind */
		enable = PCI_COMMAND_MEMORY;
		break;
	case PCI_BAR_MEM64:
		at = le64_load(config) & mask;
		limit = PHYSICAL_LIMIT;
		enable = PCI_COMMAND_MEMORY;
		break;
	default:
		return false;
	}
	*address = at;
	/* Address 0 is what firmware calls unassigned. */
	return function->command & enable && at && !__builtin_add_overflow(at, bar->size, &end) &&
	       end <= limit;
}

static u64 bar_bus_read(void *owner, u64 offset, unsigned int size)
{
	struct pci_bar *bar = owner;
	struct pci_function *function = bar->function;
	u64 value;

	pthread_mutex_lock(&function->lock);
	value = pci_bar_access_read(function, (unsigned int)(bar - function->bars), offset, size);
	pthread_mutex_unlock(&function->lock);
	return value;
}

static void bar_bus_write(void *owner, u64 offset, unsigned int size, u64 value)
{
	struct pci_bar *bar = owner;
	struct pci_function *function = bar->function;

	pthread_mutex_lock(&function->lock);
	pci_bar_access_write(function, (unsigned int)(bar - function->bars), offset, size, value);
	pthread_mutex_unlock(&function->lock);
}

static const struct bus_ops bar_bus_ops = { .read = bar_bus_read, .write = bar_bus_write };

static void bar_unmap(struct pci_function *function, unsigned int i)
{
	struct pci_bar *bar = &function->bars[i];

	if (!bar->mapped)
		return;
	pci_doorbells_disconnect(function, i);
	bus_unmap(function->host->config.bus, &bar->region);
	bar->mapped = false;
}

static void bar_map(struct pci_function *function, unsigned int i, u64 address)
{
	static struct log_limit limit;
	struct pci_bar *bar = &function->bars[i];
	int error;

	bar->address = address;
	bar->region = (struct bus_region){
		.space = bar->kind == PCI_BAR_IO ? BUS_PIO : BUS_MMIO,
		.base = address,
		.size = bar->size,
		.ops = &bar_bus_ops,
		.owner = bar,
	};
	error = bus_map(function->host->config.bus, &bar->region);
	if (error) {
		log_limited(&limit, 10, "%s: BAR %u at 0x%llx: %s; the driver will not reach it",
			    function->name, i, (unsigned long long)address, strerror(-error));
		return;
	}
	bar->mapped = true;
	pci_doorbells_connect(function, i);
}

void pci_bars_update(struct pci_function *function)
{
	/* All that leave go before any that come: two BARs may change places in one decode write.
	 */
	for (unsigned int i = 0; i < PCI_BARS; i++) {
		u64 address;

		if (!bar_decoded(function, i, &address) || address != function->bars[i].address)
			bar_unmap(function, i);
	}
	for (unsigned int i = 0; i < PCI_BARS; i++) {
		u64 address;

		if (!function->bars[i].mapped && bar_decoded(function, i, &address))
			bar_map(function, i, address);
	}
}

void pci_bars_unmap(struct pci_function *function)
{
	for (unsigned int i = 0; i < PCI_BARS; i++)
		bar_unmap(function, i);
}

static bool access_valid(const struct pci_function *function, unsigned int bar, u64 offset,
			 unsigned int size)
{
	u64 limit;

	if (bar >= PCI_BARS || function->bars[bar].kind == PCI_BAR_NONE)
		return false;
	limit = function->bars[bar].size;
	return offset < limit && size <= limit - offset;
}

u64 pci_bar_access_read(struct pci_function *function, unsigned int bar, u64 offset,
			unsigned int size)
{
	u64 value;

	if (!access_valid(function, bar, offset, size))
		return size < 8 ? BIT64(8 * size) - 1 : ~0ull;
	if (pci_msix_read(function, bar, offset, size, &value))
		return value;
	return function->ops->bar_read(function, bar, offset, size);
}

void pci_bar_access_write(struct pci_function *function, unsigned int bar, u64 offset,
			  unsigned int size, u64 value)
{
	if (!access_valid(function, bar, offset, size))
		return;
	if (pci_msix_write(function, bar, offset, size, value))
		return;
	function->ops->bar_write(function, bar, offset, size, value);
}
