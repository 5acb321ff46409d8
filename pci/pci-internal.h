/* What the files of pci/ share among themselves; nobody else includes it. */
#ifndef PCI_INTERNAL_H
#define PCI_INTERNAL_H

#include <linux/pci_regs.h>
#include "pci/pci.h"
#include "vm/layout.h"
#include "vm/reactor.h"

/* One of the PCI interrupt lines, once a function has asked for its end-of-interrupt to be watched.
 */
struct pci_line {
	struct pci_host *host;
	u32 gsi;
	bool watched;
	struct irq_share
		share; /* never asks: keeps the line's eventfds while functions come and go */
	struct reactor_event resample;
};

struct pci_host {
	struct pci_host_config config;
	struct pci_function bridge;
	/*
	 * Slots: read-locked for the whole of a config access, so that who has taken a function out
	 * under the write lock knows that no config access is left in it. Order: this, then a
	 * function's lock.
	 */
	pthread_rwlock_t lock;
	struct pci_function *slots[PCI_SLOTS];
	u8 last_slot;	     /* given to a function */
	_Atomic u32 address; /* the latch at 0xcf8 */
	struct bus_region address_port, data_port, ecam;
	struct pci_line lines[LAYOUT_GSI_PCI_COUNT];
};

static inline bool pci_overlaps(u32 offset, u32 size, u32 start, u32 length)
{
	return offset < start + length && start < offset + size;
}

/* function.c: one config access of 1, 2 or 4 bytes, offset below 4096. Takes the function's lock.
 */
u32 pci_config_read(struct pci_function *function, u32 offset, u32 size);
void pci_config_write(struct pci_function *function, u32 offset, u32 size, u32 value);

/* bar.c; function's lock held but for pci_bars_assign() (host's, for reading) */
int pci_bars_check(const struct pci_function *function);
void pci_bars_init(struct pci_function *function);
int pci_bars_assign(struct pci_host *host, struct pci_function *function);
void pci_bars_update(struct pci_function *function);
void pci_bars_unmap(struct pci_function *function);

/* doorbell.c; function's lock held */
void pci_doorbells_connect(struct pci_function *function, unsigned int bar);
void pci_doorbells_disconnect(struct pci_function *function, unsigned int bar);

/* msix.c; function's lock held. read and write: false if the access is not to the tables. */
bool pci_msix_read(struct pci_function *function, unsigned int bar, u64 offset, unsigned int size,
		   u64 *value);
bool pci_msix_write(struct pci_function *function, unsigned int bar, u64 offset, unsigned int size,
		    u64 value);
void pci_msix_control_written(struct pci_function *function, u32 offset, u32 size);
void pci_msix_reset(struct pci_function *function);
void pci_msix_destroy(struct pci_function *function);

/* intx.c */
int pci_intx_add(struct pci_function *function);
void pci_intx_remove(struct pci_function *function);

#endif
