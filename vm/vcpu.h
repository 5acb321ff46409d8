/*
 * The vCPUs: CPUID, registers, the KVM_RUN loop, one thread each.
 */
#ifndef VM_VCPU_H
#define VM_VCPU_H

#include "vm/pin.h"

struct kvm;
struct bus;
struct end;
struct vcpus;
struct kvm_debug_exit_arch;

/* State of vCPU 0 at its first instruction; flat 4 GiB segments. The others wait for INIT and SIPI.
 */
struct vcpu_entry {
	bool long_mode; /* 64-bit, paging on with cr3; else 32-bit protected mode, paging off */
	u64 rip, rsp, rsi, rbx, cr3;
	u64 gdt; /* guest-physical; as long mode and PVH entries need: null, null, code 0x10, data
		    0x18, TSS 0x20 */
	u16 gdt_limit;
};

struct vcpus_config {
	u32 count;		     /* 1 to 254 */
	u32 sockets, cores, threads; /* product == count */
	const struct kvm *kvm;
	struct bus *bus;
	struct end *end;
	struct cpu_list pin; /* host CPUs for the threads; empty: any */
	void (*thread_start)(
		void *owner); /* on each vCPU thread before its first KVM_RUN (sandbox) */
	/* KVM_EXIT_DEBUG, on the thread of vCPU number index (vm/debug.h); NULL: nobody asks KVM for
	 * one */
	void (*debug)(void *owner, u32 index, const struct kvm_debug_exit_arch *exit);
	void *owner;
};

/* Exits to us by reason, summed over vCPUs; relaxed counters, any thread. total is all but
 * interrupted, which are returns from the guest for a signal of our own. */
struct vcpu_counts {
	u64 total, pio, mmio, other, interrupted;
	u64 pio_reads, pio_writes, mmio_reads, mmio_writes;
};

/* Creates the vCPUs (dense APIC ids 0..count-1, topology in leaves 1, 4, 0xb, 0x1f and
 * 0x8000001e/0x80000008; x2APIC; TSC deadline; kvm-clock; TSC frequency leaf 0x40000010 and 0x15
 * where the frequency is known). Every MSR or leaf that the host lacks is done without. Logs, 0 or
 * -errno. Main thread. */
int vcpus_create(struct vcpus **vcpus, const struct vcpus_config *config);

/* Puts all vCPUs to power-on state, vCPU 0 to entry. Stopped or not yet started. 0 or -errno
 * (logged). Main thread. */
int vcpus_reset(struct vcpus *vcpus, const struct vcpu_entry *entry);

/* Starts the threads, paused; each runs thread_start before anything else. 0 or -errno (logged).
 * Main thread. */
int vcpus_start(struct vcpus *vcpus);

/* Lets all run / brings all out of the guest and waits until they are. Main thread. */
void vcpus_resume(struct vcpus *vcpus);
void vcpus_pause(struct vcpus *vcpus);

/* After a pause: lets go on only those that it brought out of the guest; who left it to end the run
 * waits for vcpus_resume(). Main thread. */
void vcpus_continue(struct vcpus *vcpus);

/* Holds all, beside and apart from pausing: who is held stays out of the guest, whoever resumes,
 * until it is released. With wait also waits until they are out (main thread); else any thread. */
void vcpus_hold(struct vcpus *vcpus, bool wait);
/* index is below the number of vCPUs. Main thread. */
void vcpus_release(struct vcpus *vcpus, u32 index);

/* Sends an NMI to each. Main thread. */
void vcpus_nmi(struct vcpus *vcpus);

/* The descriptor of vCPU number index, to read or change its state while it is paused; -1: there
 * are no more. Main thread. */
int vcpus_fd(const struct vcpus *vcpus, u32 index);

/* Pauses and ends the threads, closes the vCPUs. Main thread. */
void vcpus_destroy(struct vcpus *vcpus);

void vcpus_counts(const struct vcpus *vcpus, struct vcpu_counts *counts);

#endif
