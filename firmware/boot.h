/*
 * What the guest finds in memory at its first instruction: kernel, initrd, command line, zero page
 * or PVH start info, page tables, GDT, ACPI and SMBIOS tables. Linux Documentation/x86/boot.rst
 * (64-bit protocol), the x86/HVM direct boot ABI (PVH), ACPI 6.4, SMBIOS 3.
 */
#ifndef FIRMWARE_BOOT_H
#define FIRMWARE_BOOT_H

#include "vm/memory.h"
#include "vm/vcpu.h"

struct boot;

struct boot_config {
	const char *kernel, *initrd, *cmdline; /* initrd may be NULL; cmdline is whole */
	u32 cpus;
	u32 sockets, cores, threads;
	u64 window64_start, window64_size; /* for _CRS */
	bool hotplug;			   /* PCI slots are hot-plug slots */
	u8 physical_bits;
	bool decompress; /* a bzImage is unpacked here and booted as the ELF it carries */
	u32 mmio_count; /* virtio-mmio devices that ACPI announces */
};

/* Opens and checks kernel and initrd: bzImage (protocol 2.12 on, XLF_KERNEL_64) or ELF64 (PVH note,
 * else 64-bit entry). What cannot be booted (32-bit-only or EFI-stub-only images, truncated files,
 * JPEGs) is one line that says why. Logs, -errno. Main thread, before the sandbox. */
int boot_open(struct boot **boot, const struct boot_config *config);
/* Puts everything into (zero) RAM and gives vCPU 0's entry. May be called again for a restart:
 * reads the open files anew and trusts them no more than the first time. Logs, -errno (-E2BIG: does
 * not fit into RAM). Main thread; allowed in the sandbox. */
int boot_load(struct boot *boot, struct memory *memory, struct vcpu_entry *entry);
void boot_close(struct boot *boot);

#endif
