/*
 * A vCPU's state, from power-on and back to it. What the architecture says of a processor after
 * power-on (Intel SDM volume 3, table 10-1) is a constant here; what KVM chooses is read once from
 * a new vCPU: system registers, LAPIC and every MSR that KVM lists. At a reset only MSRs that
 * differ are written, and a new vCPU gets nothing but its entry.
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
#define MSR_HYPERV_FIRST	0x40000000u
#define MSR_HYPERV_LAST		0x400001ffu

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

/* The largest XSAVE area that KVM may want to read; only its first part is ever touched. */
#define XSAVE_AREA	  KIB(64)
#define XSAVE_HEADER	  512
#define XSAVE_X87_AND_SSE 3u
#define FCW_INITIAL	  0x37fu
#define MXCSR_INITIAL	  0x1f80u
#define MXCSR_OFFSET	  24

#define DR6_INITIAL 0xffff0ff0u
#define DR7_INITIAL 0x400u

#define LAPIC_ID 0x20 /* bits 24 to 31 in xAPIC mode, which is the mode after power-on */

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
#define MSRS_MAX 768

/* struct kvm_msrs with as many entries as KVM takes at once, MAX_IO_MSRS. */
#define MSRS_AT_ONCE 256
struct msrs {
	u32 nmsrs, pad;
	struct kvm_msr_entry entries[MSRS_AT_ONCE];
};

struct registers {
	u8 physical_bits;
	bool has_lapic;
	struct kvm_sregs sregs;
	struct kvm_lapic_state lapic;
	u32 msr_count;
	struct kvm_msr_entry msrs[]; /* in the order of their reading */
};

/* Not every MSR that can be read can be written, on every host: no error. */
static void set_msrs(int fd, const struct kvm_msr_entry *entries, u32 count)
{
	struct msrs some;

	for (u32 done = 0; done < count;) {
		int n;

		some.nmsrs = count - done < MSRS_AT_ONCE ? count - done : MSRS_AT_ONCE;
		some.pad = 0;
		memcpy(some.entries, entries + done, some.nmsrs * sizeof(entries[0]));
		n = ioctl(fd, KVM_SET_MSRS, &some);
		/* KVM stops at the first that it refuses */
		done += n < 0 ? 1 : (u32)n < some.nmsrs ? (u32)n + 1 : (u32)n;
	}
}

/* Reads the MSRs that entries name into them. Those that cannot be read are taken out; returns how
 * many are left. */
static u32 get_msrs(int fd, struct kvm_msr_entry *entries, u32 count)
{
	struct msrs some;
	u32 kept = 0;

	for (u32 done = 0; done < count;) {
		int n;

		some.nmsrs = count - done < MSRS_AT_ONCE ? count - done : MSRS_AT_ONCE;
		some.pad = 0;
		memcpy(some.entries, entries + done, some.nmsrs * sizeof(entries[0]));
		n = ioctl(fd, KVM_GET_MSRS, &some);
		n = n < 0 ? 0 : n;
		/* not behind what is still to be read */
		memcpy(entries + kept, some.entries, (u32)n * sizeof(entries[0]));
		kept += (u32)n;
		done += (u32)n < some.nmsrs ? (u32)n + 1 : (u32)n;
	}
	return kept;
}

/* A clock, which differs whenever one looks; Hyper-V's, which we offer no guest, and which count
 * vCPUs. */
static bool is_skipped(u32 index)
{
	return index == MSR_IA32_TSC || (index >= MSR_HYPERV_FIRST && index <= MSR_HYPERV_LAST);
}

static void add_msr(struct registers *r, u32 index)
{
	for (u32 i = 0; i < r->msr_count; i++) {
		if (r->msrs[i].index == index)
			return;
	}
	if (!is_skipped(index) && r->msr_count < MSRS_MAX)
		r->msrs[r->msr_count++] = (struct kvm_msr_entry){ .index = index };
}

static void save_msrs(struct registers *r, const struct kvm *kvm, int fd)
{
	struct {
		u32 nmsrs, indices[MSRS_MAX];
	} list = { .nmsrs = MSRS_MAX };

	if (ioctl(kvm->fd, KVM_GET_MSR_INDEX_LIST, &list))
		list.nmsrs = 0;
	for (u32 i = 0; i < list.nmsrs; i++)
		add_msr(r, list.indices[i]);
	for (size_t i = 0; i < ARRAY_SIZE(extra_msrs); i++) {
		for (u32 index = extra_msrs[i].first; index <= extra_msrs[i].last; index++)
			add_msr(r, index);
	}
	r->msr_count = get_msrs(fd, r->msrs, r->msr_count);
}

int registers_save(struct registers **out, const struct kvm *kvm, int fd)
{
	struct registers *r = calloc(1, sizeof(*r) + MSRS_MAX * sizeof(r->msrs[0])), *smaller;

	if (!r)
		return -ENOMEM;
	r->physical_bits = kvm->physical_bits;
	if (ioctl(fd, KVM_GET_SREGS, &r->sregs)) {
		int err = -errno;

		free(r);
		return err;
	}
	r->has_lapic = !ioctl(fd, KVM_GET_LAPIC, &r->lapic);
	save_msrs(r, kvm, fd);
	smaller = realloc(r, sizeof(*r) + r->msr_count * sizeof(r->msrs[0]));
	*out = smaller ? smaller : r;
	return 0;
}

void registers_free(struct registers *r)
{
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
	const struct kvm_msr_entry msrs[] = {
		{ .index = MSR_IA32_MTRR_PHYSBASE0, .data = LAYOUT_RAM_LOW_END | MTRR_UNCACHED },
		{ .index = MSR_IA32_MTRR_PHYSMASK0,
		  .data = (address_mask & ~(LAYOUT_RAM_HIGH - LAYOUT_RAM_LOW_END - 1)) |
			  MTRR_VALID },
		{ .index = MSR_IA32_MTRR_DEF_TYPE, .data = MTRR_ENABLE | MTRR_WRITE_BACK },
	};

	set_msrs(fd, msrs, ARRAY_SIZE(msrs));
}

static void reset_msrs(const struct registers *r, int fd)
{
	/* KVM takes 0 from us to mean "as the other vCPUs": they stay in step */
	const struct kvm_msr_entry tsc = { .index = MSR_IA32_TSC };
	struct kvm_msr_entry now[MSRS_MAX];
	u32 count = r->msr_count, changed = 0;

	memcpy(now, r->msrs, count * sizeof(now[0]));
	count = get_msrs(fd, now, count);
	/* both in the same order, but for those that cannot be read now */
	for (u32 i = 0, j = 0; i < r->msr_count && j < count; i++) {
		if (now[j].index != r->msrs[i].index)
			continue;
		if (now[j++].data != r->msrs[i].data)
			now[changed++] = r->msrs[i];
	}
	set_msrs(fd, now, changed);
	set_msrs(fd, &tsc, 1);
}

static void reset_events(int fd)
{
	struct kvm_vcpu_events none = { .flags = KVM_VCPUEVENT_VALID_NMI_PENDING |
						 KVM_VCPUEVENT_VALID_SHADOW |
						 KVM_VCPUEVENT_VALID_SMM };

	if (!ioctl(fd, KVM_SET_VCPU_EVENTS, &none))
		return;
	none.flags &= ~(u32)KVM_VCPUEVENT_VALID_SMM;
	ioctl(fd, KVM_SET_VCPU_EVENTS, &none);
}

/* Out of a guest's guest; no such state is no error. */
static void reset_nested(int fd)
{
	struct kvm_nested_state intel = { .format = KVM_STATE_NESTED_FORMAT_VMX,
					  .size = sizeof(intel),
					  .hdr.vmx = { .vmxon_pa = ~0ull, .vmcs12_pa = ~0ull } };
	struct kvm_nested_state amd = { .flags = KVM_STATE_NESTED_GIF_SET,
					.format = KVM_STATE_NESTED_FORMAT_SVM,
					.size = sizeof(amd) };

	if (ioctl(fd, KVM_SET_NESTED_STATE, &intel))
		ioctl(fd, KVM_SET_NESTED_STATE, &amd);
}

static int reset_fpu(int fd)
{
	static u8 area[XSAVE_AREA] __attribute__((aligned(64)));
	struct kvm_fpu fpu = { .fcw = FCW_INITIAL, .mxcsr = MXCSR_INITIAL };
	struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs[0].value = 1 };

	ioctl(fd, KVM_SET_XCRS, &xcrs); /* fails where the host has no XSAVE */
	le32_store(area, FCW_INITIAL);
	le32_store(area + MXCSR_OFFSET, MXCSR_INITIAL);
	le32_store(area + XSAVE_HEADER, XSAVE_X87_AND_SSE);
	return ioctl(fd, KVM_SET_XSAVE, area) && ioctl(fd, KVM_SET_FPU, &fpu) ? -errno : 0;
}

static int reset_lapic(const struct registers *r, int fd, u32 index)
{
	struct kvm_lapic_state lapic;

	if (!r->has_lapic)
		return 0;
	lapic = r->lapic;
	le32_store((u8 *)lapic.regs + LAPIC_ID, index << 24);
	return ioctl(fd, KVM_SET_LAPIC, &lapic) ? -errno : 0;
}

int registers_enter(const struct registers *r, int fd, const struct vcpu_entry *entry)
{
	struct kvm_sregs sregs = r->sregs;
	struct kvm_regs regs;

	set_mtrrs(fd, r->physical_bits);
	if (!entry)
		return 0;
	regs = (struct kvm_regs){
		.rip = entry->rip,
		.rsp = entry->rsp,
		.rsi = entry->rsi,
		.rbx = entry->rbx,
		.rflags = 2,
	};
	entry_sregs(&sregs, entry);
	return ioctl(fd, KVM_SET_REGS, &regs) || ioctl(fd, KVM_SET_SREGS, &sregs) ? -errno : 0;
}

int registers_reset(const struct registers *r, int fd, u32 index, const char **what)
{
	struct kvm_debugregs debug = { .dr6 = DR6_INITIAL, .dr7 = DR7_INITIAL };
	struct kvm_mp_state mp_state = { index ? KVM_MP_STATE_UNINITIALIZED
					       : KVM_MP_STATE_RUNNABLE };
	struct kvm_regs regs = { .rip = 0xfff0, .rflags = 2 };
	int err;

	/* first out of system management mode and of a guest's guest, which may refuse all else */
	reset_events(fd);
	reset_nested(fd);
	*what = "system registers";
	if (ioctl(fd, KVM_SET_SREGS, &r->sregs))
		return -errno;
	*what = "FPU";
	err = reset_fpu(fd);
	if (err)
		return err;
	*what = "debug registers";
	if (ioctl(fd, KVM_SET_DEBUGREGS, &debug))
		return -errno;
	reset_msrs(r, fd);
	*what = "local APIC";
	err = reset_lapic(r, fd, index);
	if (err)
		return err;
	*what = "registers";
	if (ioctl(fd, KVM_SET_REGS, &regs))
		return -errno;
	reset_events(fd);
	*what = "processor state";
	return ioctl(fd, KVM_SET_MP_STATE, &mp_state) ? -errno : 0;
}
