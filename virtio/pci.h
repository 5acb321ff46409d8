/*
 * virtio over PCI (virtio 1.3, 4.1): usually a transitional function with the legacy registers, ISR
 * and doorbell in BAR0 (I/O) and the modern structures, MSI-X table and PBA in BAR2 (64-bit
 * memory). pci-modern.c and pci-legacy.c are the two register layouts over one device core; pci.c
 * is the function: capabilities, interrupts, doorbells.
 */
#ifndef VIRTIO_PCI_H
#define VIRTIO_PCI_H

#include "pci/pci.h"
#include "virtio/device.h"
#include "vm/config.h"

struct virtio_pci;

struct virtio_pci_config {
	struct pci_host *host;
	struct irq *irq;
	struct reactors *reactors;
	struct virtio_device *device;		/* initialised, not yet plugged */
	const struct config_function *function; /* the user's wishes; NULL: none */
};

/* How many files and events a function of so many queues registers with the reactors: its vectors
 * (by default one a queue and one for the configuration), the line, and perhaps the line's end of
 * interrupt. */
static inline u32 virtio_pci_files(u16 queues, const struct config_function *function)
{
	return (function && function->vectors_given ? function->vectors : queues + 1u) + 2;
}

/* Makes the function and plugs it into the next free slot, whether or not the machine runs: it
 * appears when all of it is there. Sets device->transport. 0 or -errno (logged). Main thread. */
int virtio_pci_create(struct virtio_pci **pci, const struct virtio_pci_config *config);
/* Takes the function out of the machine. vCPUs paused, queues idle (virtio_device_power_on());
 * before reactors_destroy(), which comes before virtio_device_destroy() and pci_host_destroy().
 * Main thread. */
void virtio_pci_destroy(struct virtio_pci *pci);
/*
 * The function is gone for the guest from here on: config space, BARs, doorbells and interrupts;
 * and its queues are stopping. idle_fd, an eventfd, is written when the last has nothing in flight
 * any more, which may be at once, and never if the host's disk hangs. Once. Main thread, or a
 * vCPU's outside of any function (an eject register).
 */
void virtio_pci_vanish(struct virtio_pci *pci, int idle_fd);
/* After that: is nothing in flight any more? Any thread. */
bool virtio_pci_idle(struct virtio_pci *pci);
struct pci_function *virtio_pci_function(struct virtio_pci *pci);
/* Its slot on bus 0. */
u8 virtio_pci_slot(const struct virtio_pci *pci);
/* Function and device to power-on state. vCPUs paused. Main thread. */
void virtio_pci_reset(struct virtio_pci *pci);

#endif
