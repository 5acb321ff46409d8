/*
 * virtio over MMIO (virtio 1.3, 4.2, version 2), for kernels without PCI: a device is a page of
 * registers and an interrupt line, which firmware/ announces. Modern drivers only.
 */
#ifndef VIRTIO_MMIO_H
#define VIRTIO_MMIO_H

#include "virtio/device.h"

struct bus;
struct irq;
struct virtio_mmio;

struct virtio_mmio_config {
	struct bus *bus;
	struct irq *irq;
	struct reactors *reactors;
	struct virtio_device *device; /* initialised, not yet plugged */
	u64 address;		      /* of its page */
	u32 gsi;		      /* its line, which others may share */
	bool first; /* on the line: has reactor 0 watch for its end of interrupt */
};

/* Files and events that a device registers with the reactors: line and end of interrupt. */
#define VIRTIO_MMIO_FILES 2

/* Makes the registers and sets device->transport. Before reactors_start(). 0 or -errno (logged).
 * Main thread. */
int virtio_mmio_create(struct virtio_mmio **mmio, const struct virtio_mmio_config *config);
/* vCPUs paused, queues idle (virtio_device_power_on()); after reactors_destroy(), or before
 * reactors_start(); before virtio_device_destroy(). Main thread. */
void virtio_mmio_destroy(struct virtio_mmio *mmio);
/* To power-on state. vCPUs paused. Main thread. */
void virtio_mmio_reset(struct virtio_mmio *mmio);

#endif
