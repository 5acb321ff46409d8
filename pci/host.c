/*
 * The host bridge and bus 0 (PCI Local Bus 3.0, 3.2.2.3.2; PCI Firmware 3.0, 4.1): config space
 * through the ports 0xcf8/0xcfc and through ECAM, and the slots. Accesses on vCPU threads, plugging
 * on the main thread.
 */
#include "pci/pci-internal.h"

#include <errno.h>
#include <stdlib.h>
#include "vm/log.h"

#define BRIDGE_VENDOR \
	0x1b36 /* Red Hat's generic host bridge: no driver binds to it, no quirk knows it */
#define BRIDGE_DEVICE 0x0008

#define ADDRESS_ENABLE	 BIT(31)
#define ADDRESS_WRITABLE 0x80fffffcu /* the rest is reserved and reads as zero */

/* ECAM: where the parts of an address stand. */
#define ECAM_SLOT(offset)     ((u32)((offset) >> 15) & 31)
#define ECAM_FUNCTION(offset) ((u32)((offset) >> 12) & 7)
#define ECAM_REGISTER(offset) ((u32)(offset)&0xfff)

static u32 all_ones(unsigned int size)
{
	return (u32)(BIT64(8 * size) - 1);
}

/* One access on bus 0 that does not cross a dword. */
static u32 host_read(struct pci_host *host, u32 slot, u32 function, u32 offset, unsigned int size)
{
	u32 value = all_ones(size);

	pthread_rwlock_rdlock(&host->lock);
	if (function == 0 && host->slots[slot])
		value = pci_config_read(host->slots[slot], offset, size);
	pthread_rwlock_unlock(&host->lock);
	return value;
}

static void host_write(struct pci_host *host, u32 slot, u32 function, u32 offset, unsigned int size,
		       u32 value)
{
	pthread_rwlock_rdlock(&host->lock);
	if (function == 0 && host->slots[slot])
		pci_config_write(host->slots[slot], offset, size, value);
	pthread_rwlock_unlock(&host->lock);
}

/*
 * 0xcf8: only a 32-bit access at its very address is the latch (3.2.2.3.2); anything smaller is an
 * ordinary port that nobody owns. Linux tells mechanism #1 from #2 by a byte write to 0xcfb that
 * must not count.
 */
static u64 address_read(void *owner, u64 offset, unsigned int size)
{
	struct pci_host *host = owner;

	return offset == 0 && size == 4 ? host->address : all_ones(size);
}

static void address_write(void *owner, u64 offset, unsigned int size, u64 value)
{
	struct pci_host *host = owner;

	if (offset == 0 && size == 4)
		host->address = (u32)value & ADDRESS_WRITABLE;
}

static const struct bus_ops address_ops = { .read = address_read, .write = address_write };

/* Does the latch name a function of ours? Enabled, and bus 0. */
static bool address_valid(u32 address)
{
	return address & ADDRESS_ENABLE && (address >> 16 & 0xff) == 0;
}

static u64 data_read(void *owner, u64 offset, unsigned int size)
{
	struct pci_host *host = owner;
	u32 address = host->address;

	if (!address_valid(address) || offset + size > 4)
		return all_ones(size);
	return host_read(host, address >> 11 & 31, address >> 8 & 7, (address & 0xfc) + (u32)offset,
			 size);
}

static void data_write(void *owner, u64 offset, unsigned int size, u64 value)
{
	struct pci_host *host = owner;
	u32 address = host->address;

	if (address_valid(address) && offset + size <= 4)
		host_write(host, address >> 11 & 31, address >> 8 & 7,
			   (address & 0xfc) + (u32)offset, size, (u32)value);
}

static const struct bus_ops data_ops = { .read = data_read, .write = data_write };

/* How much of an ECAM access to do at once: a dword, or single bytes where that is not aligned. */
static unsigned int ecam_step(u64 offset, unsigned int size)
{
	if (offset % size)
		return 1;
	return size > 4 ? 4 : size;
}

static u64 ecam_read(void *owner, u64 offset, unsigned int size)
{
	unsigned int step = ecam_step(offset, size);
	u64 value = 0;

	for (unsigned int done = 0; done < size; done += step, offset += step)
		value |= (u64)host_read(owner, ECAM_SLOT(offset), ECAM_FUNCTION(offset),
					ECAM_REGISTER(offset), step)
			 << 8 * done;
	return value;
}

static void ecam_write(void *owner, u64 offset, unsigned int size, u64 value)
{
	unsigned int step = ecam_step(offset, size);

	for (unsigned int done = 0; done < size; done += step, offset += step)
		host_write(owner, ECAM_SLOT(offset), ECAM_FUNCTION(offset), ECAM_REGISTER(offset),
			   step, (u32)(value >> 8 * done) & all_ones(step));
}

static const struct bus_ops ecam_ops = { .read = ecam_read, .write = ecam_write };

static const struct pci_function_ops bridge_ops = {};

static void bridge_init(struct pci_host *host)
{
	const struct pci_id id = {
		.vendor = BRIDGE_VENDOR,
		.device = BRIDGE_DEVICE,
		.class_code = 0x060000,
	};

	host->bridge.ops = &bridge_ops;
	host->bridge.name = "host bridge";
	pci_function_init(&host->bridge, &id);
	host->bridge.config[PCI_INTERRUPT_PIN] = 0;
	host->bridge.host = host;
	memcpy(host->bridge.power_on, host->bridge.config, PCI_CONFIG_SIZE);
	host->slots[0] = &host->bridge;
}

int pci_host_create(struct pci_host **result, const struct pci_host_config *config)
{
	struct pci_host *host = calloc(1, sizeof(*host));
	struct bus *bus = config->bus;
	int error;

	if (!host)
		return -ENOMEM;
	host->config = *config;
	pthread_rwlock_init(&host->lock, NULL);
	for (u32 i = 0; i < LAYOUT_GSI_PCI_COUNT; i++) {
		host->lines[i].host = host;
		host->lines[i].gsi = LAYOUT_GSI_PCI + i;
	}
	bridge_init(host);
	host->address_port =
		(struct bus_region){ BUS_PIO, LAYOUT_PORT_PCI_ADDRESS, 4, &address_ops, host };
	host->data_port = (struct bus_region){ BUS_PIO, LAYOUT_PORT_PCI_DATA, 4, &data_ops, host };
	host->ecam = (struct bus_region){ BUS_MMIO, LAYOUT_ECAM_START, LAYOUT_ECAM_SIZE, &ecam_ops,
					  host };

	error = bus_map(bus, &host->address_port);
	if (error)
		goto out_free;
	error = bus_map(bus, &host->data_port);
	if (error)
		goto out_address;
	error = bus_map(bus, &host->ecam);
	if (error)
		goto out_data;
	*result = host;
	return 0;

out_data:
	bus_unmap(bus, &host->data_port);
out_address:
	bus_unmap(bus, &host->address_port);
out_free:
	pci_function_destroy(&host->bridge);
	pthread_rwlock_destroy(&host->lock);
	free(host);
	return error;
}

void pci_host_destroy(struct pci_host *host)
{
	if (!host)
		return;
	bus_unmap(host->config.bus, &host->ecam);
	bus_unmap(host->config.bus, &host->data_port);
	bus_unmap(host->config.bus, &host->address_port);
	for (u32 i = 0; i < LAYOUT_GSI_PCI_COUNT; i++)
		if (host->lines[i].watched)
			irq_shared_remove(host->config.irq, host->lines[i].gsi,
					  &host->lines[i].share);
	pci_function_destroy(&host->bridge);
	pthread_rwlock_destroy(&host->lock);
	free(host);
}

void pci_host_reset(struct pci_host *host)
{
	host->address = 0;
	pci_function_reset(&host->bridge);
}

/* 0 for none left. Round and round: a guest that has not yet noticed that a function is gone would
 * take the next in its place for the same. */
static u8 free_slot(const struct pci_host *host)
{
	for (u8 i = 0; i < PCI_SLOTS - 1; i++) {
		u8 slot = (u8)(1 + (host->last_slot + i) % (PCI_SLOTS - 1));

		if (!host->slots[slot])
			return slot;
	}
	return 0;
}

/* Slot and addresses that nobody has. The lock keeps those that others leave meanwhile, on vCPUs,
 * in place. */
static int take_place(struct pci_host *host, struct pci_function *function, u8 slot)
{
	int error = -ENOSPC;

	pthread_rwlock_rdlock(&host->lock);
	if (!slot)
		slot = free_slot(host);
	if (slot && slot < PCI_SLOTS && !host->slots[slot])
		error = pci_bars_assign(host, function);
	pthread_rwlock_unlock(&host->lock);
	function->slot = slot;
	return error;
}

int pci_function_place(struct pci_host *host, struct pci_function *function, u8 slot)
{
	int error = pci_bars_check(function);

	if (!error)
		error = take_place(host, function, slot);
	if (error)
		return error;
	function->host = host;
	function->gsi = LAYOUT_GSI_PCI + function->slot % LAYOUT_GSI_PCI_COUNT;
	error = pci_intx_add(function);
	if (error) {
		function->host = NULL;
		return error;
	}
	if (function->config[PCI_INTERRUPT_PIN])
		function->config[PCI_INTERRUPT_LINE] = (u8)function->gsi;
	memcpy(function->power_on, function->config, PCI_CONFIG_SIZE);
	return 0;
}

void pci_function_appear(struct pci_function *function)
{
	struct pci_host *host = function->host;

	pthread_rwlock_wrlock(&host->lock);
	host->slots[function->slot] = function;
	host->last_slot = function->slot;
	pthread_rwlock_unlock(&host->lock);
}

int pci_function_plug(struct pci_host *host, struct pci_function *function, u8 slot)
{
	int error = pci_function_place(host, function, slot);

	if (!error)
		pci_function_appear(function);
	return error;
}

void pci_function_unplug(struct pci_function *function)
{
	struct pci_host *host = function->host;

	if (!host)
		return;
	pthread_rwlock_wrlock(&host->lock);
	if (host->slots[function->slot] == function)
		host->slots[function->slot] = NULL;
	pthread_rwlock_unlock(&host->lock);

	pthread_mutex_lock(&function->lock);
	pci_bars_unmap(function);
	pci_msix_reset(function);
	pthread_mutex_unlock(&function->lock);
	pci_intx_remove(function);
	function->host = NULL;
}

void pci_host_each(struct pci_host *host, void (*fn)(struct pci_function *function, void *arg),
		   void *arg)
{
	pthread_rwlock_rdlock(&host->lock);
	for (unsigned int slot = 1; slot < PCI_SLOTS; slot++)
		if (host->slots[slot])
			fn(host->slots[slot], arg);
	pthread_rwlock_unlock(&host->lock);
}
