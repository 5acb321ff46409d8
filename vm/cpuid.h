/*
 * What the guest's CPUID says: what KVM supports, less what this machine does not give, plus the
 * topology, the timer's frequencies and each vCPU's own numbers.
 */
#ifndef VM_CPUID_H
#define VM_CPUID_H

#include "vm/types.h"

struct kvm;
struct kvm_cpuid2;

/* Entries in a table; KVM takes no more. */
#define CPUID_MAX_ENTRIES 256

struct cpuid_vcpu {
	u32 apic_id;
	u32 cores, threads; /* of a socket, of a core */
	u64 tsc_khz;	    /* 0: unknown */
};

/* A zeroed table with room for CPUID_MAX_ENTRIES, to be freed; NULL without memory. Any thread. */
struct kvm_cpuid2 *cpuid_alloc(void);

/* Fills table (from cpuid_alloc()) with what KVM supports. 0 or -errno. Main thread. */
int cpuid_supported(const struct kvm *kvm, struct kvm_cpuid2 *table);

/* What a supported table says: guest-physical address width; whether AMD made the CPU. Pure. */
u8 cpuid_physical_bits(struct kvm_cpuid2 *supported);
bool cpuid_is_amd(struct kvm_cpuid2 *supported);

/*
 * Writes vCPU's table to `to`, from the supported one. APIC ids are dense, so cores and threads
 * must be powers of two wherever something is counted above them. Pure. 0 or -ENOSPC.
 */
int cpuid_build(struct kvm_cpuid2 *to, const struct kvm_cpuid2 *supported,
		const struct cpuid_vcpu *vcpu);

#endif
