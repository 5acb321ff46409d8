/*
 * ACPI tables (ACPI 6.4, hardware-reduced): RSDP, XSDT, FADT, MADT, MCFG, the DSDT compiled from
 * dsdt.asl, and an SSDT that names what depends on the configuration (the 64-bit PCI window). A
 * second SSDT, compiled from hotplug.asl, makes the PCI slots hot-plug slots.
 */
#ifndef FIRMWARE_ACPI_H
#define FIRMWARE_ACPI_H

#include "vm/memory.h"

struct acpi_config {
	u32 cpus;
	u64 window64_start, window64_size;
	bool hotplug;
	u32 mmio_count; /* virtio-mmio devices to announce */
};

/* Writes the tables at guest-physical address (16-byte aligned, `room` bytes), returns the RSDP's
 * address, 0 if they do not fit; *used gets the bytes written. Main thread. */
u64 acpi_write(struct memory *memory, const struct acpi_config *config, u64 address, u64 room,
	       u64 *used);

/* ---- acpi-mmio.c, for acpi.c ---- */

/* The AML that announces so many virtio-mmio devices: its size, and itself. */
u32 acpi_mmio_size(u32 count);
void acpi_mmio_put(u8 *to, u32 count);

#endif
