/*
 * All the state KVM keeps of a vCPU: what it is when new, put back for a reset, and vCPU 0's
 * registers for a kernel's entry. Main thread, the vCPU not running.
 */
#ifndef VM_REGISTERS_H
#define VM_REGISTERS_H

#include "vm/types.h"

struct kvm;
struct registers;
struct vcpu_entry;

/* Saves the state of the new vCPU behind fd (CPUID already set), which stands for all vCPUs that
 * are like it: vCPU 0 for itself, any other for all others. What the host's KVM does not offer is
 * left out. 0 or -errno. */
int registers_save(struct registers **registers, const struct kvm *kvm, int fd);
void registers_free(struct registers *registers);

/* Puts vCPU number index back to the saved state. 0, or -errno with *what (a static string) telling
 * which part failed. */
int registers_reset(const struct registers *registers, int fd, u32 index, const char **what);

/* From power-on to where firmware would leave the vCPU: memory types, and with entry the registers
 * for it. 0 or -errno. */
int registers_enter(const struct registers *registers, int fd, const struct vcpu_entry *entry);

#endif
