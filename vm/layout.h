/*
 * The machine's fixed addresses: guest-physical memory, I/O ports and interrupt numbers (GSIs).
 * The one place where they stand; the ACPI tables (firmware/dsdt.asl) repeat what they must.
 */
#ifndef VM_LAYOUT_H
#define VM_LAYOUT_H

#include "vm/types.h"

/* Guest-physical memory: RAM to 3 GiB, the hole, RAM from 4 GiB, then the 64-bit PCI window. */
#define LAYOUT_RAM_LOW_END   GIB(3)
#define LAYOUT_PCI32_START   0xc0000000ull
#define LAYOUT_PCI32_END     0xe0000000ull
#define LAYOUT_ECAM_START    0xe0000000ull /* bus 0 alone: 1 MiB */
#define LAYOUT_ECAM_SIZE     MIB(1)
#define LAYOUT_MMIO_START    0xe1000000ull /* --virtio-mmio: a page of registers a device */
#define LAYOUT_MMIO_STEP     KIB(4)
#define LAYOUT_IOAPIC	     0xfec00000ull
#define LAYOUT_LAPIC	     0xfee00000ull
#define LAYOUT_IDENTITY_MAP  0xfeffc000ull /* one page, for KVM on Intel */
#define LAYOUT_TSS	     0xfeffd000ull /* three pages, for KVM on Intel */
#define LAYOUT_RAM_HIGH	     GIB(4)
#define LAYOUT_PCI64_SIZE    GIB(32) /* starts at RAM's end (at least 4 GiB), aligned to 1 GiB */

/* I/O ports. */
#define LAYOUT_PORT_CONTROL_B	0x61  /* NMI reasons, timer 2 */
#define LAYOUT_PORT_RTC		0x70  /* index, data */
#define LAYOUT_PORT_DEBUG_EXIT	0xf4
#define LAYOUT_PORT_UART	0x3f8 /* eight registers */
#define LAYOUT_PORT_PVPANIC	0x505
#define LAYOUT_PORT_ACPI	0x600 /* sleep control, sleep status, reset, (reserved) */
#define LAYOUT_PORT_ACPI_RESET	0x602 /* write 1 */
#define LAYOUT_PORT_GED		0x604 /* u32: which events happened; reading clears */
#define LAYOUT_PORT_HOTPLUG	0x610 /* four u32: see pci/hotplug.c */
#define LAYOUT_PORT_PCI_ADDRESS 0xcf8
#define LAYOUT_PORT_PCI_DATA	0xcfc
#define LAYOUT_PORT_PCI_START	0x1000 /* I/O BARs */
#define LAYOUT_PORT_PCI_END	0x10000

/* Interrupt numbers at the IOAPIC. */
#define LAYOUT_GSI_UART	      4
#define LAYOUT_GSI_RTC	      8
#define LAYOUT_GSI_GED	      9
#define LAYOUT_GSI_PCI	      16 /* eight lines, function in slot n uses 16 + n % 8 */
#define LAYOUT_GSI_PCI_COUNT  8
#define LAYOUT_GSI_COUNT      24 /* MSI routes come after */

/* Events of the generic event device, bits of LAYOUT_PORT_GED. */
#define LAYOUT_GED_POWER_BUTTON BIT(0)
#define LAYOUT_GED_HOTPLUG	BIT(1) /* a PCI slot has something to tell */

#endif
