/* What a device is doing right now, for people who look: `vmm ctl devices` (docs/control.md). */
#ifndef VIRTIO_DESCRIBE_H
#define VIRTIO_DESCRIBE_H

#include "virtio/device.h"

struct virtio_pci;

/* Status, layout, features, interrupts, generation and queues, as members of an open object. pci is
 * the device's function, NULL over MMIO. Looks only: registers under the device's lock, which is
 * not held, and what reactors have left to be read. Main thread. */
void virtio_describe(struct virtio_device *device, const struct virtio_pci *pci, struct json *json);

#endif
