/*
 * A vCPU's state, from power-on and back to it. The power-on state is what KVM gave the new vCPU:
 * general and system registers, FPU, XCRs, debug registers, LAPIC, pending events, nested state and
 * every MSR that KVM lists. At a reset only MSRs that differ are written.
 *
 * Main thread. Allocates when saving only, so that a reset can't fail for want of memory.
 */
#include <asm/kvm_para.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "vm/kvm.h"
#include "vm/layout.h"
#include "vm/registers.h"
#include "vm/vcpu.h"

/* Intel SDM volume 4; the KVM ones are in asm/kvm_para.h. */
#define MSR_IA32_TSC		0x010u
#define MSR_IA32_MTRR_PHYSBASE0 0x200u
#define MSR_IA32_MTRR_PHYSMASK0 0x201u
#define MSR_IA32_MTRR_DEF_TYPE	0x2ffu
#define MSR_HYPERV_TIME		0x40000020u

#define MTRR_ENABLE	BIT64(11)
#define MTRR_VALID	BIT64(11)
#define MTRR_WRITE_BACK 6u
#define MTRR_UNCACHED	0u

#define CR0_PE	 BIT64(0)
#define CR0_ET	 BIT64(4)
#define CR0_PG	 BIT64(31)
#define CR4_PAE	 BIT64(5)
#define EFER_LME BIT64(8)
#define EFER_LMA BIT64(10)

#define XSAVE_AREA 4096u

/* What KVM's own list may leave out and a guest can change. */
static const struct {
	u32 first, last;
} extra_msrs[] = {
	{ 0x01b, 0x01b },	    /* APIC base */
	{ 0x03b, 0x03b },	    /* TSC adjust */
	{ 0x174, 0x176 },	    /* SYSENTER */
	{ 0x1a0, 0x1a0 },	    /* misc enable */
	{ 0x1d9, 0x1d9 },	    /* debug control */
	{ 0x200, 0x20f },	    /* variable MTRRs */
	{ 0x250, 0x250 },	    /* fixed MTRRs */
	{ 0x258, 0x259 },	    /* " */
	{ 0x268, 0x26f },	    /* " */
	{ 0x277, 0x277 },	    /* PAT */
	{ 0x2ff, 0x2ff },	    /* MTRR default type */
	{ 0x6e0, 0x6e0 },	    /* TSC deadline */
	{ 0xda0, 0xda0 },	    /* XSS */
	{ 0xc0000080, 0xc0000084 }, /* EFER, SYSCALL */
	{ 0xc0000100, 0xc0000103 }, /* FS, GS and kernel GS base, TSC_AUX */
	{ MSR_KVM_WALL_CLOCK, MSR_KVM_SYSTEM_TIME },
	/* asynchronous page faults, steal time, PV EOI and polling among them */
	{ MSR_KVM_WALL_CLOCK_NEW, MSR_KVM_ASYNC_PF_ACK },
};
#define EXTRA_MSRS_MAX 64

/* struct kvm_msrs with its one entry. */
struct msr_one {
	u32 nmsrs, pad;
	struct kvm_msr_entry entry;
};

struct registers {
	u8 physical_bits;
	bool has_events, has_debug, has_xcrs, has_xsave, has_lapic;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_fpu fpu;
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debug;
	struct kvm_lapic_state lapic;
	struct kvm_mp_state mp_state;
	struct kvm_vcpu_events events;
	void *xsave;			 /* of the size that KVM told */
	struct kvm_nested_state *nested; /* NULL: none */
	struct kvm_msr_entry *msrs;
	u32 msr_count;
};

static int get_msr(int fd, u32 index, u64 *value)
{
	struct msr_one one = { .nmsrs = 1, .entry.index = index };
	int count = ioctl(fd, KVM_GET_MSRS, &one);

	if (count != 1)
		return count < 0 ? -errno : -ENOENT;
	*value = one.entry.data;
	return 0;
}

/* Not every MSR that can be read can be written, on every host: no error. */
static void set_msr(int fd, u32 index, u64 value)
{
	struct msr_one one = { .nmsrs = 1, .entry = { .index = index, .data = value } };

	ioctl(fd, KVM_SET_MSRS, &one);
}

/* Clocks, which differ whenever one looks. */
static bool is_skipped(u32 index)
{
	return index == MSR_IA32_TSC || index == MSR_HYPERV_TIME;
}

static void save_msr(struct registers *r, int fd, u32 index)
{
	struct kvm_msr_entry *entry = &r->msrs[r->msr_count];
	u64 value = 0;

	for (u32 i = 0; i < r->msr_count; i++) {
		if (r->msrs[i].index == index)
			return;
	}
	if (is_skipped(index))
		return;
	if (get_msr(fd, index, &value))
		return;
	*entry = (struct kvm_msr_entry){ .index = index, .data = value };
	r->msr_count++;
}

static int save_msrs(struct registers *r, const struct kvm *kvm, int fd)
{
	struct kvm_msr_list probe = { .nmsrs = 0 }, *list;

	/* fails with E2BIG and tells how many there are */
	ioctl(kvm->fd, KVM_GET_MSR_INDEX_LIST, &probe);
	list = calloc(1, sizeof(*list) + probe.nmsrs * sizeof(list->indices[0]));
	r->msrs = calloc(probe.nmsrs + EXTRA_MSRS_MAX, sizeof(*r->msrs));
	if (!list || !r->msrs) {
		free(list);
		return -ENOMEM;
	}
	list->nmsrs = probe.nmsrs;
	if (ioctl(kvm->fd, KVM_GET_MSR_INDEX_LIST, list))
		list->nmsrs = 0;
	for (u32 i = 0; i < list->nmsrs; i++)
		save_msr(r, fd, list->indices[i]);
	for (size_t i = 0; i < ARRAY_SIZE(extra_msrs); i++) {
		for (u32 index = extra_msrs[i].first; index <= extra_msrs[i].last; index++)
			save_msr(r, fd, index);
	}
	free(list);
	return 0;
}

static int save_xsave(struct registers *r, const struct kvm *kvm, int fd)
{
	int size = ioctl(kvm->vm, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
	unsigned long get = KVM_GET_XSAVE2;

	if (size <= 0) {
		if (ioctl(kvm->fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE) <= 0)
			return 0;
		get = KVM_GET_XSAVE;
	}
	r->xsave = calloc(1, size > (int)XSAVE_AREA ? (size_t)size : XSAVE_AREA);
	if (!r->xsave)
		return -ENOMEM;
	r->has_xsave = !ioctl(fd, get, r->xsave);
	return 0;
}

static int save_nested(struct registers *r, const struct kvm *kvm, int fd)
{
	int size = ioctl(kvm->fd, KVM_CHECK_EXTENSION, KVM_CAP_NESTED_STATE);

	if (size < (int)sizeof(*r->nested))
		return 0;
	r->nested = calloc(1, (size_t)size);
	if (!r->nested)
		return -ENOMEM;
	r->nested->size = (u32)size;
	if (ioctl(fd, KVM_GET_NESTED_STATE, r->nested)) {
		free(r->nested);
		r->nested = NULL;
	}
	return 0;
}

int registers_save(struct registers **out, const struct kvm *kvm, int fd)
{
	struct registers *r = calloc(1, sizeof(*r));
	int err = 0;

	if (!r)
		return -ENOMEM;
	r->physical_bits = kvm->physical_bits;
	if (ioctl(fd, KVM_GET_REGS, &r->regs) || ioctl(fd, KVM_GET_SREGS, &r->sregs) ||
	    ioctl(fd, KVM_GET_FPU, &r->fpu) || ioctl(fd, KVM_GET_MP_STATE, &r->mp_state))
		err = -errno;
	r->has_lapic = !ioctl(fd, KVM_GET_LAPIC, &r->lapic);
	r->has_events = !ioctl(fd, KVM_GET_VCPU_EVENTS, &r->events);
	r->has_debug = !ioctl(fd, KVM_GET_DEBUGREGS, &r->debug);
	r->has_xcrs = !ioctl(fd, KVM_GET_XCRS, &r->xcrs) && r->xcrs.nr_xcrs;
	if (!err)
		err = save_xsave(r, kvm, fd);
	if (!err)
		err = save_nested(r, kvm, fd);
	if (!err)
		err = save_msrs(r, kvm, fd);
	if (err) {
		registers_free(r);
		return err;
	}
	*out = r;
	return 0;
}

void registers_free(struct registers *r)
{
	if (!r)
		return;
	free(r->xsave);
	free(r->nested);
	free(r->msrs);
	free(r);
}

static struct kvm_segment flat_segment(u16 selector, u8 type)
{
	return (struct kvm_segment){
		.limit = 0xffffffff,
		.selector = selector,
		.type = type,
		.present = 1,
		.s = 1,
		.g = 1,
		.db = 1,
	};
}

/* Linux Documentation/arch/x86/boot.rst, "64-bit boot protocol";
 * xen/include/public/arch-x86/hvm/start_info.h */
static void entry_sregs(struct kvm_sregs *sregs, const struct vcpu_entry *entry)
{
	struct kvm_segment data = flat_segment(0x18, 3); /* read, write, accessed */

	sregs->cs = flat_segment(0x10, 11); /* execute, read, accessed */
	sregs->ds = data;
	sregs->es = data;
	sregs->fs = data;
	sregs->gs = data;
	sregs->ss = data;
	sregs->tr = (struct kvm_segment){
		.limit = 0x67,
		.selector = 0x20,
		.type = 11, /* busy TSS */
		.present = 1,
	};
	sregs->gdt.base = entry->gdt;
	sregs->gdt.limit = entry->gdt_limit;
	sregs->cr0 = CR0_PE | CR0_ET;
	if (!entry->long_mode)
		return;
	sregs->cs.l = 1;
	sregs->cs.db = 0;
	sregs->cr0 |= CR0_PG;
	sregs->cr3 = entry->cr3;
	sregs->cr4 = CR4_PAE;
	sregs->efer = EFER_LME | EFER_LMA;
}

/* As firmware leaves it: all memory write-back, the PCI hole uncached. */
static void set_mtrrs(int fd, u8 physical_bits)
{
	u64 address_mask = BIT64(physical_bits) - 1;

	set_msr(fd, MSR_IA32_MTRR_PHYSBASE0, LAYOUT_RAM_LOW_END | MTRR_UNCACHED);
	set_msr(fd, MSR_IA32_MTRR_PHYSMASK0,
		(address_mask & ~(LAYOUT_RAM_HIGH - LAYOUT_RAM_LOW_END - 1)) | MTRR_VALID);
	set_msr(fd, MSR_IA32_MTRR_DEF_TYPE, MTRR_ENABLE | MTRR_WRITE_BACK);
}

static void reset_msrs(const struct registers *r, int fd)
{
	for (u32 i = 0; i < r->msr_count; i++) {
		u64 now = 0;

		if (!get_msr(fd, r->msrs[i].index, &now) && now != r->msrs[i].data)
			set_msr(fd, r->msrs[i].index, r->msrs[i].data);
	}
	/* KVM takes 0 from us to mean "as the other vCPUs": they stay in step */
	set_msr(fd, MSR_IA32_TSC, 0);
	set_mtrrs(fd, r->physical_bits);
}

int registers_reset(struct registers *r, int fd, const struct vcpu_entry *entry, const char **what)
{
	struct kvm_regs regs = r->regs;
	struct kvm_sregs sregs = r->sregs;

	if (entry) {
		regs = (struct kvm_regs){
			.rip = entry->rip,
			.rsp = entry->rsp,
			.rsi = entry->rsi,
			.rbx = entry->rbx,
			.rflags = 2,
		};
		entry_sregs(&sregs, entry);
	}
	/* first out of system management mode and of a guest's guest, which may refuse all else */
	if (r->has_events)
		ioctl(fd, KVM_SET_VCPU_EVENTS, &r->events);
	if (r->nested)
		ioctl(fd, KVM_SET_NESTED_STATE, r->nested);

	*what = "system registers";
	if (ioctl(fd, KVM_SET_SREGS, &r->sregs))
		return -errno;
	*what = "FPU";
	if (r->has_xcrs && ioctl(fd, KVM_SET_XCRS, &r->xcrs))
		return -errno;
	if (r->has_xsave ? ioctl(fd, KVM_SET_XSAVE, r->xsave) : ioctl(fd, KVM_SET_FPU, &r->fpu))
		return -errno;
	*what = "debug registers";
	if (r->has_debug && ioctl(fd, KVM_SET_DEBUGREGS, &r->debug))
		return -errno;
	reset_msrs(r, fd);
	*what = "local APIC";
	if (r->has_lapic && ioctl(fd, KVM_SET_LAPIC, &r->lapic))
		return -errno;
	/* the entry's after the MSRs, one of which is EFER */
	*what = "registers";
	if (ioctl(fd, KVM_SET_REGS, &regs) || (entry && ioctl(fd, KVM_SET_SREGS, &sregs)))
		return -errno;
	*what = "pending events";
	if (r->has_events && ioctl(fd, KVM_SET_VCPU_EVENTS, &r->events))
		return -errno;
	*what = "processor state";
	if (ioctl(fd, KVM_SET_MP_STATE, &r->mp_state))
		return -errno;
	return 0;
}
