/*
 * An ELF64 core of a machine (gABI, chapter 5; the notes of Linux's and QEMU's cores): for each
 * vCPU NT_PRSTATUS and the note from which crash(8) reads system registers, VMCOREINFO where the
 * guest's kernel has one in RAM, a segment for each piece of RAM at its physical address, and one
 * for each range that the kernel has mapped, over the same bytes of the file. Main thread.
 */
#ifndef MACHINE_VMCORE_H
#define MACHINE_VMCORE_H

#include <linux/kvm.h>
#include "vm/memory.h"

struct vmcore_cpu {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	u64 kernel_gs_base;
};

/* Writes it to an empty regular file, with holes where RAM is zero; *with_info (VMCOREINFO was
 * found) and *bytes (not counting holes) are set. pwrite(2) only. 0 or -errno. */
int vmcore_write(int fd, const struct memory *memory, const struct vmcore_cpu *cpus, u32 count,
		 bool *with_info, u64 *bytes);

#endif
