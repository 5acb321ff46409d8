/*
 * Interrupts: IOAPIC lines and MSI routes, each an object that a device fires by an eventfd
 * (irqfd) or by a call. Holds KVM's one GSI routing table.
 */
#ifndef VM_IRQ_H
#define VM_IRQ_H

#include "vm/types.h"

struct kvm;
struct irq;
struct irq_msi;

/* kvm may be NULL (tests): eventfds work, nothing is injected. Logs, 0 or -errno. Main thread. */
int irq_create(struct irq **irq, const struct kvm *kvm);
void irq_destroy(struct irq *irq);

/* Back to power-on: every line low, IOAPIC and PIC as KVM made them. vCPUs stopped. Main thread. */
void irq_reset(struct irq *irq);

/* ---- lines of platform devices, driven by level (KVM_IRQ_LINE) ---- */

/* Sets GSI gsi (below LAYOUT_GSI_COUNT) high or low. Any thread. */
void irq_line_set(struct irq *irq, u32 gsi, bool high);

/* ---- shared, level-triggered PCI lines: irqfd with a resamplefd ---- */

/*
 * One function's share of a PCI line. asserted() tells whether the function still wants
 * the line (ISR not 0, INTx not disabled); called by irq_shared_resampled() on whatever thread
 * calls that.
 */
struct irq_share {
	bool (*asserted)(void *owner);
	void *owner;
	struct irq_share *next; /* irq's own */
};

/* Adds a share to a line, making its irqfd at the first. 0 or -errno. Main thread (or hotplug's).
 */
int irq_shared_add(struct irq *irq, u32 gsi, struct irq_share *share);
void irq_shared_remove(struct irq *irq, u32 gsi, struct irq_share *share);

/* The eventfd that raises the line (write 1), and the one that KVM writes at the end of the
 * interrupt; both EFD_NONBLOCK and -1 for a line nobody shares. Any thread. */
int irq_shared_fd(const struct irq *irq, u32 gsi);
int irq_shared_resample_fd(const struct irq *irq, u32 gsi);

/* To be called when the resample fd was readable (it has been read): raises the line again if any
 * share asks. Reactor thread. */
void irq_shared_resampled(struct irq *irq, u32 gsi);

/* ---- message-signalled interrupts ---- */

/*
 * A vector: an eventfd, and while connected, a route (address, data) with an irqfd. Written while
 * it is not connected, the eventfd keeps the interrupt pending, and connecting delivers it. So
 * whoever fires never needs to know whether the vector is masked. Lives as long as its device. 0,
 * or -errno (-ENOSPC: no GSI left in KVM's routing table). Main thread (or hotplug's).
 */
int irq_msi_create(struct irq *irq, struct irq_msi **msi);
void irq_msi_destroy(struct irq_msi *msi);

/* How many more vectors irq_msi_create() has GSIs for. Any thread. */
u32 irq_msi_room(struct irq *irq);

/* The eventfd to write 1 to (EFD_NONBLOCK). Any thread. */
int irq_msi_fd(const struct irq_msi *msi);

/* irq_msi_connect() will follow with this address and data: the first of those that were prepared
 * together takes the routes of all to KVM, which waits for each change of its table. Does nothing
 * while connected. Any thread. */
void irq_msi_prepare(struct irq_msi *msi, u64 address, u32 data);

/* Routes to the MSI address and data (PCI 3.0, 6.8.2) and attaches the irqfd; does nothing when
 * that is already so. Logs once and returns -errno: -EINVAL for an address above 4 GiB, where no
 * LAPIC is and KVM would not look. Any thread. */
int irq_msi_connect(struct irq_msi *msi, u64 address, u32 data);

/* Detaches the irqfd; the route stays for the next connect. Any thread. */
void irq_msi_disconnect(struct irq_msi *msi);

/* Is an interrupt waiting in a vector that is not connected (the PBA's bit)? Any thread. */
bool irq_msi_pending(const struct irq_msi *msi);

/* Drops a waiting interrupt (device reset). Any thread. */
void irq_msi_clear(struct irq_msi *msi);

#endif
