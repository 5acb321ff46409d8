/* A bus, interrupts and a PCI host without KVM, and config accesses as a guest makes them: for the
 * tests of pci/ and virtio/pci. */
#ifndef TESTS_UNIT_PCI_MACHINE_H
#define TESTS_UNIT_PCI_MACHINE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "pci/pci.h"
#include "vm/layout.h"

#define WINDOW64      GIB(8)
#define WINDOW64_SIZE LAYOUT_PCI64_SIZE

struct pci_machine {
	struct bus *bus;
	struct irq *irq;
	struct pci_host *host;
};

static inline void pci_machine_up(struct pci_machine *machine)
{
	struct pci_host_config config = { .window64_start = WINDOW64,
					  .window64_size = WINDOW64_SIZE,
					  .any_length_doorbells = true };

	assert_int_equal(bus_create(&machine->bus, NULL), 0);
	assert_int_equal(irq_create(&machine->irq, NULL), 0);
	config.bus = machine->bus;
	config.irq = machine->irq;
	assert_int_equal(pci_host_create(&machine->host, &config), 0);
}

static inline void pci_machine_down(struct pci_machine *machine)
{
	pci_host_destroy(machine->host);
	irq_destroy(machine->irq);
	bus_destroy(machine->bus);
}

static inline u64 ecam(u32 slot, u32 offset)
{
	return LAYOUT_ECAM_START + (slot << 15) + offset;
}

static inline u32 config_get(struct pci_machine *machine, u32 slot, u32 offset, unsigned int size)
{
	return (u32)bus_read(machine->bus, BUS_MMIO, ecam(slot, offset), size);
}

static inline void config_put(struct pci_machine *machine, u32 slot, u32 offset, unsigned int size,
			      u32 value)
{
	bus_write(machine->bus, BUS_MMIO, ecam(slot, offset), size, value);
}

/* Command register: these bits and no others. */
static inline void command(struct pci_machine *machine, u32 slot, u16 bits)
{
	config_put(machine, slot, PCI_COMMAND, 2, bits);
}

/* Where a BAR register points. */
static inline u64 bar_address(struct pci_machine *machine, u32 slot, unsigned int bar)
{
	u32 low = config_get(machine, slot, PCI_BASE_ADDRESS_0 + 4 * bar, 4);

	if (low & PCI_BASE_ADDRESS_SPACE_IO)
		return low & ~3u;
	if (low & PCI_BASE_ADDRESS_MEM_TYPE_64)
		return (low & ~15u) |
		       (u64)config_get(machine, slot, PCI_BASE_ADDRESS_0 + 4 * bar + 4, 4) << 32;
	return low & ~15u;
}

/* Takes what an eventfd holds; 0 for nothing. */
static inline u64 taken(int fd)
{
	eventfd_t value;

	return eventfd_read(fd, &value) ? 0 : value;
}

/* The n-th capability with this id from the list in config space, or 0. */
static inline u32 find_capability(struct pci_machine *machine, u32 slot, u8 id, unsigned int n)
{
	u32 at = config_get(machine, slot, PCI_CAPABILITY_LIST, 1);

	for (unsigned int steps = 0; at && steps < 64; steps++) {
		if (config_get(machine, slot, at, 1) == id && n-- == 0)
			return at;
		at = config_get(machine, slot, at + PCI_CAP_LIST_NEXT, 1);
	}
	return 0;
}

#endif
