/*
 * /dev/kvm and the VM made from it: which capabilities are there, and what each missing one
 * costs. Linux Documentation/virt/kvm/api.rst.
 */
#ifndef VM_KVM_H
#define VM_KVM_H

#include "vm/types.h"

struct kvm_cpuid2;

/* What every KVM has. */
#define KVM_MIN_ROUTES 1024

struct kvm {
	int fd;		  /* /dev/kvm */
	int vm;		  /* the VM; -1 until kvm_create_vm() */
	u32 run_size;	  /* bytes of each vCPU's shared kvm_run page(s) */
	u8 physical_bits; /* guest-physical address width */
	/* optional capabilities, each done without when missing */
	bool ioeventfd_any_length;
	struct kvm_cpuid2 *cpuid; /* what KVM supports */
};

/*
 * Opens /dev/kvm and reads what it offers, as far as every VM needs it. Missing device, no
 * permission: a log line that says what to do, and -errno. Main thread.
 */
int kvm_open(struct kvm *kvm);

/* What cannot be done without (irqchip, ioeventfd, irqfd with resampling, user memory, routing,
 * immediate exits) and is missing: a log line each and -ENOTSUP, else 0. Every kernel that has the
 * rest has it, so this is asked for only when something failed, and by `vmm check`. */
int kvm_check_required(const struct kvm *kvm);

/* How many vCPUs a VM can have, how many GSI routing entries (at least KVM_MIN_ROUTES on kernels
 * that tell no number). A system call each. Main thread, before the sandbox. */
u32 kvm_max_vcpus(const struct kvm *kvm);
u32 kvm_max_routes(const struct kvm *kvm);

/* Creates the VM with its in-kernel irqchip (no PIT) and x2APIC ids. Logs and returns -errno. Main
 * thread. */
int kvm_create_vm(struct kvm *kvm);

/* Closes what is open. Main thread. */
void kvm_close(struct kvm *kvm);

#endif
