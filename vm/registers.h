/*
 * All the state KVM keeps of one vCPU: saved when it is new, put back for a reset, and vCPU 0's
 * registers for a kernel's entry. Main thread, the vCPU not running.
 */
#ifndef VM_REGISTERS_H
#define VM_REGISTERS_H

#include "vm/types.h"

struct kvm;
struct registers;
struct vcpu_entry;

/* Saves the state of the new vCPU behind fd (CPUID already set). What the host's KVM does not offer
 * is left out. 0 or -errno. */
int registers_save(struct registers **registers, const struct kvm *kvm, int fd);
void registers_free(struct registers *registers);

/* Puts the saved state back; with entry, then the registers for it. 0, or -errno with *what (a
 * static string) telling which part failed. */
int registers_reset(struct registers *registers, int fd, const struct vcpu_entry *entry,
		    const char **what);

#endif
