/*
 * PCI as functions see it (PCI Local Bus 3.0): config space with write masks, BARs that a driver
 * may size and move, capabilities, MSI-X, INTx, doorbells that follow their BAR. Bus 0 only, one
 * function a slot.
 *
 * Threads: registers are accessed on vCPU threads, each access under the function's lock
 * (recursive: a PCI_CFG window access re-enters). Set-up and removal on the main thread.
 */
#ifndef PCI_PCI_H
#define PCI_PCI_H

#include <pthread.h>
#include "vm/bus.h"
#include "vm/irq.h"
#include "vm/types.h"

#define PCI_SLOTS	  32
#define PCI_BARS	  6
#define PCI_CONFIG_SIZE	  256
#define PCI_MAX_DOORBELLS 1024
#define PCI_MSIX_MAX	  512 /* vectors we give one function at most */

struct pci_function;
struct pci_msix;
struct reactors;

enum pci_bar_kind {
	PCI_BAR_NONE,
	PCI_BAR_IO,
	PCI_BAR_MEM32,
	PCI_BAR_MEM64 /* takes the next one too */
};

/* All are optional but the bar ones where BARs exist; all called with the function's lock held. */
struct pci_function_ops {
	/* Access inside a BAR (not to the MSI-X tables, which pci answers itself). size 1, 2, 4, 8.
	 */
	u64 (*bar_read)(struct pci_function *function, unsigned int bar, u64 offset,
			unsigned int size);
	void (*bar_write)(struct pci_function *function, unsigned int bar, u64 offset,
			  unsigned int size, u64 value);
	/* Before a config read is answered from the bytes (a PCI_CFG window refreshes its data
	 * here). */
	void (*config_read)(struct pci_function *function, u32 offset, u32 size);
	/* After a config write went into the writable bits. */
	void (*config_written)(struct pci_function *function, u32 offset, u32 size);
	/* Command's Bus Master bit changed. */
	void (*bus_master)(struct pci_function *function, bool on);
	/* MSI-X was enabled or disabled (Message Control bit 15). */
	void (*msix_enabled)(struct pci_function *function, bool on);
};

struct pci_bar {
	enum pci_bar_kind kind;
	u64 size; /* power of two; at least 4 (I/O; at most 256) or 16 (memory) */
	/* pci's own */
	u64 first;   /* the address given at plugging */
	u64 address; /* where it is mapped */
	bool mapped;
	struct bus_region region;
	struct pci_function *function;
};

/* A doorbell inside a BAR: registered with KVM whenever the BAR is decoded, at the address where it
 * then is. */
struct pci_doorbell {
	u8 bar;
	u32 offset;
	u32 length; /* 0: any length (memory BARs; see kvm.ioeventfd_any_length) */
	bool match;
	u16 value;
	int fd;
	bool live; /* pci's own */
};

struct pci_function {
	const struct pci_function_ops *ops;
	void *owner;
	const char *name; /* for log lines */
	struct pci_bar bars[PCI_BARS];
	u8 config[PCI_CONFIG_SIZE];   /* little-endian; filled by pci_function_init and capabilities
				       */
	u8 writable[PCI_CONFIG_SIZE]; /* bits the driver can change */
	u8 power_on[PCI_CONFIG_SIZE]; /* config as plugged */
	u8 config_end;		      /* where the next capability goes */
	u8 last_capability;	      /* offset of the byte that will point to it */
	_Atomic u16 command;	      /* as in config, for readers without the lock */
	u8 slot;
	pthread_mutex_t lock;
	struct pci_host *host;
	struct pci_msix *msix;
	struct pci_doorbell *doorbells;
	u32 doorbell_count;
	/* INTx */
	u32 gsi;
	struct irq_share share;
	/* Does the function want its line (the ISR is not 0)? NULL: never. Any thread, lock not
	 * needed. */
	bool (*interrupt_status)(struct pci_function *function);
};

struct pci_id {
	u16 vendor, device, subsystem_vendor, subsystem;
	u8 revision;
	u32 class_code; /* 24 bits: class, subclass, interface */
};

struct pci_host_config {
	struct bus *bus;
	struct irq *irq;
	u64 window64_start, window64_size; /* 64-bit memory window above RAM */
	bool any_length_doorbells;	   /* kvm.ioeventfd_any_length */
};

/* The host bridge (00:00.0), config ports 0xcf8/0xcfc, ECAM at LAYOUT_ECAM_START. 0 or -errno. Main
 * thread. */
int pci_host_create(struct pci_host **host, const struct pci_host_config *config);
/* All functions unplugged; after reactors_destroy() if pci_intx_watch() was used. Main thread. */
void pci_host_destroy(struct pci_host *host);
/* The bridge and the 0xcf8 latch to power-on state; functions are reset one by one. vCPUs paused.
 * Main thread. */
void pci_host_reset(struct pci_host *host);

/*
 * Fills the header (type 0, INTA) and the lock. The struct is all zero but for bars[] kinds and
 * sizes, ops, owner, name and interrupt_status, which are set first. Main thread.
 */
void pci_function_init(struct pci_function *function, const struct pci_id *id);
/* Frees what init, pci_msix_init() and pci_doorbell_add() made. Unplugged, or never plugged. Main
 * thread. */
void pci_function_destroy(struct pci_function *function);

/* Appends a capability of `size` bytes (id and next pointer included) and returns its offset in
 * config space, or -ENOSPC; the body is zero and read-only until the caller fills config[] and
 * writable[]. Before pci_function_plug(). */
int pci_capability_add(struct pci_function *function, u8 id, u8 size);

/*
 * MSI-X with `vectors` entries (1 to PCI_MSIX_MAX), table and PBA at the given offsets of a memory
 * BAR. Must precede plug. 0 or -errno. */
int pci_msix_init(struct pci_function *function, struct irq *irq, u8 bar, u32 table_offset,
		  u32 pba_offset, u16 vectors);
/* The vector's eventfd: write 1 to fire; masking and pending are taken care of. -1 if no such
 * vector. Any thread. */
int pci_msix_fd(const struct pci_function *function, u16 vector);
/* Entries, 0 without MSI-X. */
u16 pci_msix_vectors(const struct pci_function *function);
/* Message Control's enable bit, live. Any thread. */
bool pci_msix_enabled(const struct pci_function *function);
/* Drops interrupts that wait in masked vectors (device reset). Lock held. */
void pci_msix_clear(struct pci_function *function);

/*
 * Puts the function into the next free slot (or slot if not 0), gives every BAR an address, with
 * I/O, memory decoding off (the driver's job) and doorbells ready. 0, -ENOSPC, or -EINVAL for a BAR
 * that cannot be. Main thread.
 */
int pci_function_plug(struct pci_host *host, struct pci_function *function, u8 slot);
/* The two halves of it, for a machine that runs: the place is taken and addresses are given, but no
 * access arrives yet; then the driver can find the function. Nothing else is plugged in between.
 * Main thread. */
int pci_function_place(struct pci_host *host, struct pci_function *function, u8 slot);
void pci_function_appear(struct pci_function *function);
/* Takes the function out: slot, regions, doorbells, routes and its share of the line. No config
 * access enters or is left in it; a BAR access that another vCPU had begun may be, so vCPUs are
 * paused (or pass an exit) before the memory goes. Once; main thread, or a vCPU's outside of any
 * function. */
void pci_function_unplug(struct pci_function *function);

/* Back to power-on: command 0, BARs at their first addresses, MSI-X off with cleared tables. vCPUs
 * paused. Main thread. */
void pci_function_reset(struct pci_function *function);

/* The function's INTx line: eventfd to raise it. Whether it may be raised (INTx Disable is clear,
 * MSI-X off): any thread. */
int pci_intx_fd(const struct pci_function *function);
bool pci_intx_allowed(const struct pci_function *function);
bool pci_bus_master(const struct pci_function *function);
/* The function's interrupt status may ask for the line now (it changed, or INTx became possible):
 * raises it if so. Any thread. */
void pci_intx_changed(struct pci_function *function);
/* Has reactor 0 watch the line's end of interrupt, once a line whoever asks first. Plugged or
 * placed. 0 or -errno. Main thread. */
int pci_intx_watch(struct pci_function *function, struct reactors *reactors);

/* Adds a doorbell (kept in an array that pci owns). 0 or -errno. Before plug. */
int pci_doorbell_add(struct pci_function *function, const struct pci_doorbell *doorbell);

/* Access to a BAR from inside (the PCI_CFG window): MSI-X tables and doorbells included. Lock held.
 * Out of range: all ones, or dropped. */
u64 pci_bar_access_read(struct pci_function *function, unsigned int bar, u64 offset,
			unsigned int size);
void pci_bar_access_write(struct pci_function *function, unsigned int bar, u64 offset,
			  unsigned int size, u64 value);

/* For log lines and ctl: calls fn for each plugged function in slot order. Main thread. */
void pci_host_each(struct pci_host *host, void (*fn)(struct pci_function *function, void *arg),
		   void *arg);

#endif
