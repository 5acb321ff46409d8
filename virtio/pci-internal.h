/* What pci.c, pci-modern.c and pci-legacy.c share; nobody else includes it. */
#ifndef VIRTIO_PCI_INTERNAL_H
#define VIRTIO_PCI_INTERNAL_H

#include <linux/pci_regs.h>
#include <linux/virtio_pci.h>
#include "virtio/pci.h"

#define VIRTIO_PCI_VENDOR     0x1af4
#define VIRTIO_PCI_IO_BAR     0
#define VIRTIO_PCI_MEMORY_BAR 2
#define VIRTIO_PCI_WINDOWS    6

/* One virtio structure somewhere in a BAR, and the capability that says so (virtio 1.3, 4.1.4). */
struct virtio_pci_window {
	u8 type; /* VIRTIO_PCI_CAP_* */
	u8 bar;
	u32 offset, length;
	u32 multiplier; /* NOTIFY: notify_off_multiplier */
	bool silent;	/* no capability tells of it: legacy drivers alone use it */
};

/* Where everything stands in a function: chosen once, when it is made. */
struct virtio_pci_layout {
	bool legacy; /* BAR0 has the legacy registers */
	bool modern; /* there are virtio capabilities */
	u16 device_id, subsystem_id;
	u8 revision;
	u64 io_size, memory_size;			      /* BAR0 and BAR2; 0: none */
	struct virtio_pci_window windows[VIRTIO_PCI_WINDOWS]; /* in order of preference */
	u32 window_count;
	u8 msix_bar;
	u32 msix_table, msix_pba;
	u16 vectors;	    /* MSI-X; 0: no such capability */
	u32 doorbell_bytes; /* of the memory doorbells; 0: any length */
};

struct virtio_pci {
	struct pci_function function;
	struct virtio_pci_layout layout;
	struct virtio_device *device;
	struct reactors *reactors;
	u8 window_capability; /* offset of the PCI_CFG capability */
	reactor_file intx_file;
	reactor_file *vector_files; /* layout.vectors of them */

	/* registers that are no device's business, under the device's lock */
	u32 device_feature_select, driver_feature_select;
	u16 queue_select;
	u16 config_vector;
	bool vanished;	   /* virtio_pci_vanish() */
	int idle_fd;	   /* eventfd, told when the last queue is idle after that; or -1 */
	bool drop_pending; /* a reset has finished: interrupts that wait in masked vectors are void
			    */
};

/* pci-layout.c: where a device's structures stand, and (function initialised) the capabilities. 0
 * or -ENOSPC. Main thread. */
void virtio_pci_choose_layout(struct virtio_pci_layout *layout, const struct virtio_device *device,
			      const struct config_function *wishes);
int virtio_pci_add_capabilities(struct virtio_pci *pci);

/* pci-layout.c: before a config read, after a config write: the configuration access window does
 * what it was asked. Function's lock held, the device's not. */
void virtio_pci_window_read(struct virtio_pci *pci, u32 offset, u32 size);
void virtio_pci_window_written(struct virtio_pci *pci, u32 offset, u32 size);

/* Registers of a structure: ascending, not overlapping, at most 4 bytes each. */
struct virtio_pci_register {
	u8 offset, size;
};
struct virtio_pci_registers {
	const struct virtio_pci_register *list;
	u32 count;
	u32 (*read)(struct virtio_pci *pci, u32 offset);
	void (*write)(struct virtio_pci *pci, u32 offset, u32 value);
};

/*
 * pci-registers.c: an access of any width and alignment, register by register; bytes of no register
 * read as zero. A register written in part keeps the rest of its value. Function's and device's
 * lock held.
 */
u64 virtio_pci_registers_read(struct virtio_pci *pci, const struct virtio_pci_registers *registers,
			      u64 offset, unsigned int size);
void virtio_pci_registers_write(struct virtio_pci *pci,
				const struct virtio_pci_registers *registers, u64 offset,
				unsigned int size, u64 value);

/* Accesses inside a structure of the modern layout. Both locks held. */
u64 virtio_pci_modern_read(struct virtio_pci *pci, const struct virtio_pci_window *window,
			   u64 offset, unsigned int size);
void virtio_pci_modern_write(struct virtio_pci *pci, const struct virtio_pci_window *window,
			     u64 offset, unsigned int size, u64 value);

/* Accesses to BAR0 with the legacy layout. Both locks held. */
u64 virtio_pci_legacy_read(struct virtio_pci *pci, u64 offset, unsigned int size);
void virtio_pci_legacy_write(struct virtio_pci *pci, u64 offset, unsigned int size, u64 value);

/* The queue that queue_select names, or NULL. */
static inline struct virtio_queue *virtio_pci_selected(struct virtio_pci *pci)
{
	return virtio_queue_get(pci->device, pci->queue_select);
}

/* Vector registers of both layouts (4.1.5.1.2): what cannot be mapped reads back as NO_VECTOR. */
void virtio_pci_set_config_vector(struct virtio_pci *pci, u16 vector);
void virtio_pci_set_queue_vector(struct virtio_pci *pci, struct virtio_queue *queue, u16 vector);
/* The driver reads the ISR, wherever it is. */
u8 virtio_pci_isr_read(struct virtio_pci *pci);
/* A status write through either layout. */
void virtio_pci_set_status(struct virtio_pci *pci, u8 value, bool legacy);

#endif
