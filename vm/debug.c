/* A machine under a debugger: see debug.h. */
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "vm/debug.h"
#include "vm/paging.h"
#include "vm/vcpu.h"

#define PAGE	  KIB(4)
#define VECTOR_BP 3u
#define DR7_FIXED BIT(10) /* reads as one */
#define DR7_EXACT BIT(9)  /* Intel SDM volume 3, 18.2.4: GE */
#define ON	  KVM_GUESTDBG_ENABLE

int debug_create(struct debug *debug, struct vcpus *vcpus, u32 count, const struct memory *memory,
		 int flags)
{
	*debug = (struct debug){
		.vcpus = vcpus,
		.memory = memory,
		.count = count,
		.block_irqs = flags > 0 && (u32)flags & KVM_GUESTDBG_BLOCKIRQ,
		.controls = calloc(count, sizeof(*debug->controls)),
		.stops = calloc(count, sizeof(*debug->stops)),
		.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
	};
	if (debug->fd >= 0 && debug->controls && debug->stops)
		return 0;
	debug_destroy(debug);
	return debug->fd < 0 ? -EMFILE : -ENOMEM;
}

void debug_destroy(struct debug *debug)
{
	free(debug->controls);
	free(debug->stops);
	if (debug->fd >= 0)
		close(debug->fd);
}

/* ---- stopping ---- */

/* DR7 of what is armed: as the length and the kind are encoded (Intel SDM volume 3, 18.2.4). */
static u32 dr7_of(const struct debug *debug)
{
	static const u8 lengths[] = { [1] = 0, [2] = 1, [4] = 3, [8] = 2 };
	u32 dr7 = 0;

	for (u32 i = 0; i < DEBUG_HARD; i++) {
		enum debug_kind kind = debug->hard[i].kind;
		u32 access = kind == DEBUG_EXEC ? 0 : kind == DEBUG_WRITE ? 1 : 3;

		if (debug->hard[i].length)
			dr7 |= BIT(2 * i + 1) | (access | (u32)lengths[debug->hard[i].length] << 2)
							<< (16 + 4 * i);
	}
	return dr7;
}

static void tell_kvm(const struct debug *debug, u32 index, u32 once)
{
	struct kvm_guest_debug g = { .control = debug->controls[index] | once };

	for (u32 i = 0; i < DEBUG_HARD; i++)
		g.arch.debugreg[i] = debug->hard[i].address;
	g.arch.debugreg[7] = dr7_of(debug) | DR7_FIXED | DR7_EXACT;
	ioctl(vcpus_fd(debug->vcpus, index), KVM_SET_GUEST_DEBUG, &g);
}

void debug_exit(struct debug *debug, u32 index, const struct kvm_debug_exit_arch *exit)
{
	struct debug_stop stop = { .fresh = true };
	u64 one = 1;

	for (u32 i = 0; exit->exception == VECTOR_BP && i < DEBUG_SOFT; i++) {
		if (debug->soft[i].at && debug->soft[i].address == exit->pc) {
			stop.hit = true;
			stop.address = exit->pc;
		}
	}
	if (exit->exception == VECTOR_BP && !stop.hit) {
		tell_kvm(debug, index, KVM_GUESTDBG_INJECT_BP);
		return;
	}
	for (u32 i = 0; exit->exception != VECTOR_BP && i < DEBUG_HARD; i++) {
		if (exit->dr6 & BIT(i) && debug->hard[i].length) {
			stop.hit = true;
			stop.kind = debug->hard[i].kind;
			stop.address = debug->hard[i].address;
		}
	}
	debug->stops[index] = stop;
	vcpus_hold(debug->vcpus, false);
	if (write(debug->fd, &one, sizeof(one)) < 0) {
		/* it is full, and so readable */
	}
}

int debug_take(struct debug *debug, struct debug_stop *stop)
{
	for (u32 i = 0; i < debug->count; i++) {
		if (debug->stops[i].fresh) {
			*stop = debug->stops[i];
			debug->stops[i].fresh = false;
			return (int)i;
		}
	}
	return -1;
}

/* ---- running ---- */

static bool is_armed(const struct debug *debug, const struct debug_stop *stop)
{
	for (u32 i = 0; i < DEBUG_HARD; i++)
		if (debug->hard[i].length && debug->hard[i].kind == stop->kind &&
		    debug->hard[i].address == stop->address)
			return true;
	return false;
}

/* The access that hit a watchpoint is done, and would not hit it again; an instruction that hit a
 * breakpoint will. */
static bool is_owed(const struct debug *debug, const u8 *actions)
{
	for (u32 i = 0; i < debug->count; i++) {
		const struct debug_stop *stop = &debug->stops[i];

		if (stop->fresh && stop->hit && stop->kind > DEBUG_EXEC &&
		    actions[i] != DEBUG_STAY && is_armed(debug, stop))
			return true;
	}
	return false;
}

bool debug_resume(struct debug *debug, const u8 *actions)
{
	u32 control = 0;

	if (is_owed(debug, actions))
		return false;
	for (u32 i = 0; i < DEBUG_SOFT; i++)
		if (debug->soft[i].at)
			control = ON | KVM_GUESTDBG_USE_SW_BP;
	if (dr7_of(debug))
		control |= ON | KVM_GUESTDBG_USE_HW_BP;
	for (u32 i = 0; i < debug->count; i++) {
		u32 old = debug->controls[i];

		if (actions[i] == DEBUG_STAY)
			continue;
		debug->stops[i].fresh = false;
		debug->controls[i] = control;
		if (actions[i] == DEBUG_STEP)
			debug->controls[i] |= ON | KVM_GUESTDBG_SINGLESTEP |
					      (debug->block_irqs ? KVM_GUESTDBG_BLOCKIRQ : 0);
		if (old || debug->controls[i])
			tell_kvm(debug, i, 0);
		/* its watchdogs need not know; only a guest with kvm-clock can be told */
		ioctl(vcpus_fd(debug->vcpus, i), KVM_KVMCLOCK_CTRL, 0);
	}
	for (u32 i = 0; i < debug->count; i++)
		if (actions[i] != DEBUG_STAY)
			vcpus_release(debug->vcpus, i);
	return true;
}

/* ---- breakpoints ---- */

/* Not by KVM_TRANSLATE, which minds SMAP (Intel SDM volume 3, 4.5). */
u8 *debug_memory(const struct debug *debug, u32 vcpu, u64 address, u64 length)
{
	struct kvm_sregs s;
	u32 shift;
	u64 table;

	if (ioctl(vcpus_fd(debug->vcpus, vcpu), KVM_GET_SREGS, &s))
		return NULL;
	if (!(s.cr0 & CR0_PG))
		return memory_at(debug->memory, address, length);
	shift = s.cr4 & CR4_LA57 ? 57 : 48;
	if (!(s.efer & EFER_LMA) ||
	    (u64)((s64)(address << (64 - shift)) >> (64 - shift)) != address)
		return NULL;
	for (table = s.cr3; shift > 12;) {
		const u8 *entry;

		shift -= 9;
		entry = memory_at(debug->memory,
				  (table & ADDRESS_BITS) + 8 * (address >> shift & 511), 8);
		table = entry ? le64_load(entry) : 0;
		if (!(table & ENTRY_THERE))
			return NULL;
		if (shift < 39 && table & ENTRY_LARGE)
			break;
	}
	table &= ADDRESS_BITS & ~(BIT64(shift) - 1);
	return memory_at(debug->memory, table | (address & (BIT64(shift) - 1)), length);
}

static int insert_soft(struct debug *debug, u32 vcpu, u64 address)
{
	u8 *at = debug_memory(debug, vcpu, address, 1);
	u32 place = DEBUG_SOFT;

	if (!at)
		return -EFAULT;
	for (u32 i = 0; i < DEBUG_SOFT; i++) {
		if (debug->soft[i].at == at && debug->soft[i].address == address)
			return 0;
		if (!debug->soft[i].at)
			place = i;
	}
	if (place == DEBUG_SOFT)
		return -ENOSPC;
	debug->soft[place].address = address;
	debug->soft[place].at = at;
	debug->soft[place].was = *at;
	*at = 0xcc;
	return 0;
}

int debug_insert(struct debug *debug, u32 vcpu, enum debug_kind kind, u64 address, u64 length)
{
	u32 place = DEBUG_HARD;

	if (kind == DEBUG_INT3)
		return insert_soft(debug, vcpu, address);
	if (kind == DEBUG_EXEC)
		length = 1;
	if (kind > DEBUG_ACCESS || !length || length > 8 || length & (length - 1) ||
	    address & (length - 1))
		return -EINVAL;
	for (u32 i = 0; i < DEBUG_HARD; i++) {
		if (debug->hard[i].length == length && debug->hard[i].kind == kind &&
		    debug->hard[i].address == address)
			return 0;
		if (!debug->hard[i].length)
			place = i;
	}
	if (place == DEBUG_HARD)
		return -ENOSPC;
	debug->hard[place].address = address;
	debug->hard[place].length = (u8)length;
	debug->hard[place].kind = kind;
	return 0;
}

/* Unless the guest has put something else there. */
static void remove_soft(struct debug *debug, u32 place)
{
	if (debug->soft[place].at && *debug->soft[place].at == 0xcc)
		*debug->soft[place].at = debug->soft[place].was;
	debug->soft[place].at = NULL;
}

void debug_remove(struct debug *debug, enum debug_kind kind, u64 address)
{
	for (u32 i = 0; kind == DEBUG_INT3 && i < DEBUG_SOFT; i++)
		if (debug->soft[i].address == address)
			remove_soft(debug, i);
	for (u32 i = 0; i < DEBUG_HARD; i++)
		if (debug->hard[i].kind == kind && debug->hard[i].address == address)
			debug->hard[i].length = 0;
}

void debug_clear(struct debug *debug)
{
	for (u32 i = 0; i < DEBUG_SOFT; i++)
		remove_soft(debug, i);
	for (u32 i = 0; i < DEBUG_HARD; i++)
		debug->hard[i].length = 0;
}

void debug_forget(struct debug *debug)
{
	for (u32 i = 0; i < DEBUG_SOFT; i++)
		debug->soft[i].at = NULL;
}
