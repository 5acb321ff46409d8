/*
 * The registers behind the slots' ACPI methods (firmware/hotplug.asl), four u32 at
 * LAYOUT_PORT_HOTPLUG, a bit a slot:
 *
 *   0  read: slots with a new function; bit 0: one has gone unasked; reading takes them
 *   4  read: slots whose function the guest is asked to let go; reading takes them
 *   8  read: occupied slots; write: ejects
 *
 * Accesses on vCPU threads, the rest on the main thread.
 */
#include "pci/pci-internal.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include "pci/hotplug.h"
#include "vm/platform.h"

enum { ADDED, LEAVING, OCCUPIED, REGISTERS = 4 };

/* What is left of a function that was taken away. */
struct ghost {
	struct bus_region regions[PCI_BARS];
	u32 count;
};

struct pci_hotplug {
	struct ghost ghosts[PCI_SLOTS];
	struct pci_hotplug_config config;
	struct bus_region region;
	_Atomic u32 added, leaving;
};

static u32 occupied(struct pci_host *host)
{
	u32 slots = 0;

	pthread_rwlock_rdlock(&host->lock);
	for (u32 slot = 1; slot < PCI_SLOTS; slot++)
		if (host->slots[slot])
			slots |= BIT(slot);
	pthread_rwlock_unlock(&host->lock);
	return slots;
}

/* The field is DWordAcc; nobody reads otherwise but a guest that plays. */
static u64 hotplug_read(void *owner, u64 offset, unsigned int size)
{
	struct pci_hotplug *hotplug = owner;

	if (size != 4 || offset % 4)
		return 0;
	switch (offset / 4) {
	case ADDED:
		return atomic_exchange(&hotplug->added, 0);
	case LEAVING:
		return atomic_exchange(&hotplug->leaving, 0);
	case OCCUPIED:
		return occupied(hotplug->config.host);
	}
	return 0;
}

static void hotplug_write(void *owner, u64 offset, unsigned int size, u64 value)
{
	struct pci_hotplug *hotplug = owner;

	if (size != 4 || offset != 4 * OCCUPIED)
		return;
	for (u8 slot = 1; slot < PCI_SLOTS; slot++)
		if (value & BIT(slot))
			hotplug->config.ejected(hotplug->config.owner, slot);
}

static const struct bus_ops hotplug_ops = { .read = hotplug_read, .write = hotplug_write };

/* ---- ghosts ---- */

static u64 ghost_read(void *owner, u64 offset, unsigned int size)
{
	(void)owner;
	(void)offset;
	(void)size;
	return 0;
}

static const struct bus_ops ghost_ops = { .read = ghost_read, .yields = true };

static void ghost_banish(struct pci_hotplug *hotplug, u8 slot)
{
	struct ghost *ghost = &hotplug->ghosts[slot];

	while (ghost->count)
		bus_unmap(hotplug->config.host->config.bus, &ghost->regions[--ghost->count]);
}

void pci_hotplug_haunt(struct pci_hotplug *hotplug, struct pci_function *function)
{
	struct ghost *ghost = &hotplug->ghosts[function->slot];

	ghost_banish(hotplug, function->slot);
	pthread_mutex_lock(&function->lock);
	for (u32 i = 0; i < PCI_BARS; i++) {
		struct bus_region *region = &ghost->regions[ghost->count];

		if (!function->bars[i].mapped)
			continue;
		*region = function->bars[i].region;
		region->ops = &ghost_ops;
		ghost->count += !bus_map(hotplug->config.host->config.bus, region);
	}
	pthread_mutex_unlock(&function->lock);
}

/* ---- the slots ---- */

int pci_hotplug_create(struct pci_hotplug **result, const struct pci_hotplug_config *config)
{
	struct pci_hotplug *hotplug = calloc(1, sizeof(*hotplug));
	int error;

	if (!hotplug)
		return -ENOMEM;
	hotplug->config = *config;
	hotplug->region = (struct bus_region){ BUS_PIO, LAYOUT_PORT_HOTPLUG, 4 * REGISTERS,
					       &hotplug_ops, hotplug };
	error = bus_map(config->host->config.bus, &hotplug->region);
	if (error) {
		free(hotplug);
		return error;
	}
	*result = hotplug;
	return 0;
}

void pci_hotplug_destroy(struct pci_hotplug *hotplug)
{
	if (!hotplug)
		return;
	for (u8 slot = 0; slot < PCI_SLOTS; slot++)
		ghost_banish(hotplug, slot);
	bus_unmap(hotplug->config.host->config.bus, &hotplug->region);
	free(hotplug);
}

void pci_hotplug_reset(struct pci_hotplug *hotplug)
{
	atomic_store(&hotplug->added, 0);
	atomic_store(&hotplug->leaving, 0);
	for (u8 slot = 0; slot < PCI_SLOTS; slot++)
		ghost_banish(hotplug, slot);
}

void pci_hotplug_check(struct pci_hotplug *hotplug, u8 slot)
{
	/* what was asked of the occupant before is not for the next, and what is left of it goes */
	atomic_fetch_and(&hotplug->leaving, ~BIT(slot));
	ghost_banish(hotplug, slot);
	atomic_fetch_or(&hotplug->added, BIT(slot));
	acpi_pm_event(hotplug->config.pm, LAYOUT_GED_HOTPLUG);
}

void pci_hotplug_lost(struct pci_hotplug *hotplug)
{
	atomic_fetch_or(&hotplug->added, BIT(0));
	acpi_pm_event(hotplug->config.pm, LAYOUT_GED_HOTPLUG);
}

void pci_hotplug_ask(struct pci_hotplug *hotplug, u8 slot)
{
	atomic_fetch_or(&hotplug->leaving, BIT(slot));
	acpi_pm_event(hotplug->config.pm, LAYOUT_GED_HOTPLUG);
}
