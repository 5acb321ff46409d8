/*
 * A machine under a debugger: breakpoints and watchpoints, single steps, and who stopped where.
 * Without one nothing here is called, and no vCPU has a debug control set.
 *
 * Code addresses that are not hardware breakpoints become int3 in guest memory; KVM hands every
 * int3 to us then, and the guest gets its own back. Hardware breakpoints and watchpoints share the
 * four debug registers, which the guest's own use gives way to (Intel SDM volume 3, 18.2).
 */
#ifndef VM_DEBUG_H
#define VM_DEBUG_H

#include "vm/memory.h"

struct vcpus;
struct kvm_debug_exit_arch;

#define DEBUG_SOFT 64
#define DEBUG_HARD 4

/* Numbered as the remote protocol has them. */
enum debug_kind { DEBUG_INT3, DEBUG_EXEC, DEBUG_WRITE, DEBUG_READ, DEBUG_ACCESS };

enum debug_action { DEBUG_STAY, DEBUG_CONTINUE, DEBUG_STEP };

/* Why a vCPU stopped. */
struct debug_stop {
	bool hit;	      /* a breakpoint or watchpoint; else a step, or a trap of the guest */
	enum debug_kind kind; /* if hit */
	u64 address;	      /* that of what was hit */
	bool fresh;	      /* has not been taken yet */
};

struct debug {
	struct vcpus *vcpus;
	const struct memory *memory;
	u32 count;	 /* of vCPUs */
	int fd;		 /* eventfd, readable when a vCPU has stopped by itself */
	bool block_irqs; /* KVM can keep interrupts from a step */
	u32 *controls;	 /* what KVM was told for each vCPU, as it is while it runs */
	struct debug_stop *stops;
	struct {
		u64 address;
		u8 *at; /* in guest memory, NULL: free */
		u8 was;
	} soft[DEBUG_SOFT];
	struct {
		u64 address;
		u8 length; /* 0: free */
		enum debug_kind kind;
	} hard[DEBUG_HARD];
};

/* count vCPUs, that are made; flags as KVM_CAP_SET_GUEST_DEBUG2 has them. 0 or -errno. Main thread,
 * as all that follow. */
int debug_create(struct debug *debug, struct vcpus *vcpus, u32 count, const struct memory *memory,
		 int flags);
void debug_destroy(struct debug *debug);

/* For vcpus_config: keeps what it is, holds all vCPUs and writes to fd; or gives the guest its own
 * int3. The vCPU's thread. */
void debug_exit(struct debug *debug, u32 index, const struct kvm_debug_exit_arch *exit);

/* The calls below want all vCPUs held and out of the guest. */

/* The next that stopped by itself and was not taken: its number, -1: none. */
int debug_take(struct debug *debug, struct debug_stop *stop);

/* Lets each vCPU do as actions[its number] says. False, and nobody runs: a watchpoint that was hit
 * meanwhile is yet to be taken. */
bool debug_resume(struct debug *debug, const u8 *actions);

/* 0; -ENOSPC: all places are taken; -EFAULT: no RAM is mapped there; -EINVAL: no such kind, or a
 * length or alignment that no debug register has. Twice the same is one. */
int debug_insert(struct debug *debug, u32 vcpu, enum debug_kind kind, u64 address, u64 length);
void debug_remove(struct debug *debug, enum debug_kind kind, u64 address);
/* All of them. */
void debug_clear(struct debug *debug);
/* The guest's memory is made anew: int3 is gone from it. */
void debug_forget(struct debug *debug);

/* Where length bytes from this virtual address of a vCPU are, which cross no page: NULL if no RAM
 * is mapped there by 4 or 5 levels of tables. Before paging an address is a physical one. */
u8 *debug_memory(const struct debug *debug, u32 vcpu, u64 address, u64 length);

#endif
