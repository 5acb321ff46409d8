/*
 * Private to vcpu*.c: what a vCPU is. Creation and end (vcpu-create.c) are the main thread's;
 * running is in vcpu.c.
 */
#ifndef VM_VCPU_PRIVATE_H
#define VM_VCPU_PRIVATE_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>

#include "vm/coalesced.h"
#include "vm/registers.h"
#include "vm/vcpu.h"

enum wanted { WANTED_PARK, WANTED_RUN, WANTED_END };

/* What is counted apart. */
enum exit_kind {
	EXIT_PIO_READ,
	EXIT_PIO_WRITE,
	EXIT_MMIO_READ,
	EXIT_MMIO_WRITE,
	EXIT_OTHER,
	EXIT_INTERRUPTED,
	EXITS
};

struct vcpu {
	struct vcpus *vcpus;
	u32 index;
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	bool started;
	bool entered;	 /* not as new any more */
	bool parked;	 /* under vcpus->lock */
	bool unfinished; /* an access that the next KVM_RUN completes */
	bool leave;	 /* what happened ends this vCPU's run until it is resumed */
	atomic_bool nmi;
	atomic_bool held; /* by a debugger */
	/* the vCPU's thread writes, anyone reads */
	_Atomic u64 exits[EXITS];
};

struct vcpus {
	struct vcpus_config config;
	struct vcpu *vcpu;
	u32 created;		       /* vCPUs with a descriptor */
	struct registers *power_on[2]; /* of vCPU 0, of the others */
	u64 tsc_khz;		       /* 0: unknown */
	struct coalesced coalesced;
	pthread_mutex_t lock;
	pthread_cond_t parked, resumed;
	_Atomic enum wanted wanted;
	u32 parked_count;
	u64 resumes;
};

/* Has all vCPUs leave the guest, and waits until they have: to park, or for their threads to end.
 * Main thread. */
void vcpus_stop(struct vcpus *vcpus, enum wanted wanted);

#endif
