/*
 * /dev/kvm and the VM made from it: which capabilities are there, and what each missing one
 * costs. Linux Documentation/virt/kvm/api.rst.
 */
#ifndef VM_KVM_H
#define VM_KVM_H

#include "vm/types.h"

struct kvm {
	int fd;	      /* /dev/kvm */
	int vm;	      /* the VM; -1 until kvm_create_vm() */
	u32 run_size; /* bytes of each vCPU's shared kvm_run page(s) */
	u32 max_vcpus;
	u32 max_vcpu_id;  /* first id that is not possible */
	u32 max_routes;	  /* GSI routing entries */
	u8 physical_bits; /* guest-physical address width */
	/* optional capabilities, each done without when missing */
	bool tsc_deadline, x2apic_api, ioeventfd_any_length, readonly_memory;
};

/*
 * Opens /dev/kvm and reads what it offers. What cannot be done without (irqchip, ioeventfd,
 * irqfd with resampling, user memory, routing, immediate exits) is one log line each and -ENOTSUP.
 * Missing device, no permission: a log line that says what to do, and -errno. Main thread.
 */
int kvm_open(struct kvm *kvm);

/* Creates the VM with its in-kernel irqchip (no PIT) and x2APIC ids. Logs and returns -errno. Main
 * thread. */
int kvm_create_vm(struct kvm *kvm);

/* Closes what is open. Main thread. */
void kvm_close(struct kvm *kvm);

#endif
