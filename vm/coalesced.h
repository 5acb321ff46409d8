/*
 * Port writes that KVM collects instead of leaving the guest for each: writes that mean nothing
 * until something else is read or written, as those that choose a register. They lie in a ring that
 * all vCPUs share, and are done before the next access that does leave the guest. Linux
 * Documentation/virt/kvm/api.rst, KVM_REGISTER_COALESCED_MMIO.
 */
#ifndef VM_COALESCED_H
#define VM_COALESCED_H

#include <pthread.h>
#include "vm/types.h"

struct bus;
struct kvm;
struct kvm_coalesced_mmio_ring;

struct coalesced {
	struct bus *bus;
	pthread_mutex_t lock;		      /* first and what it stands for */
	struct kvm_coalesced_mmio_ring *ring; /* NULL: KVM does not collect */
};

/* run: the shared pages of any vCPU, mapped as long as this is used. A kernel that cannot (before
 * 4.20) costs exits, not function. Main thread. */
void coalesced_create(struct coalesced *coalesced, const struct kvm *kvm, struct bus *bus,
		      void *run);
void coalesced_destroy(struct coalesced *coalesced);

/* Does what was collected, in its order; when it returns all of that is done, by this thread or
 * another. On a vCPU's thread before it answers an exit; main thread with vCPUs paused. */
void coalesced_drain(struct coalesced *coalesced);

#endif
