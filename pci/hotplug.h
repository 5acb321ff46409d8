/*
 * Hot-plug slots by ACPI (6.4, 5.6.6 and 6.3): the guest is told that a slot's occupant has
 * changed, or asked to let it go, and says when it has.
 */
#ifndef PCI_HOTPLUG_H
#define PCI_HOTPLUG_H

#include "vm/types.h"

struct acpi_pm;
struct pci_function;
struct pci_host;
struct pci_hotplug;

struct pci_hotplug_config {
	struct pci_host *host;
	struct acpi_pm *pm;
	/* The guest ejects what is in the slot, if anything: it is gone for the guest when this
	 * returns (virtio_pci_vanish()). vCPU threads. */
	void (*ejected)(void *owner, u8 slot);
	void *owner;
};

/* The registers at LAYOUT_PORT_HOTPLUG. 0 or -errno. Main thread. */
int pci_hotplug_create(struct pci_hotplug **hotplug, const struct pci_hotplug_config *config);
void pci_hotplug_destroy(struct pci_hotplug *hotplug);
/* To power-on state: nothing to tell. vCPUs paused. Main thread. */
void pci_hotplug_reset(struct pci_hotplug *hotplug);

/* Tells the guest of the slot's new function. Main thread. */
void pci_hotplug_check(struct pci_hotplug *hotplug, u8 slot);
/* Tells the guest that a function has gone that it did not eject: it looks which. Any thread. */
void pci_hotplug_lost(struct pci_hotplug *hotplug);
/* The function is about to be taken away by force: where its BARs are decoded now, reads will find
 * zeroes until something else stands there, or the slot is used again. A driver that resets its
 * device waits until the status reads 0 (virtio 1.3, 2.4.2), and some for ever. Before it is
 * unplugged. Main thread. */
void pci_hotplug_haunt(struct pci_hotplug *hotplug, struct pci_function *function);
/* Asks the guest to let go of the slot's function; it ejects it, or not. Any thread. */
void pci_hotplug_ask(struct pci_hotplug *hotplug, u8 slot);

#endif
