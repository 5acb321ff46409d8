/* A vCPU's registers as gdb has them, and the description that tells it so: see gdb.h. */
#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include "machine/gdb.h"

#define MSR_KERNEL_GS_BASE 0xc0000102u

static const char names[] =
	"rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip eflags cs ss ds es fs "
	"gs "
	"st0 st1 st2 st3 st4 st5 st6 st7 fctrl fstat ftag fiseg fioff foseg fooff fop "
	"xmm0 xmm1 xmm2 xmm3 xmm4 xmm5 xmm6 xmm7 xmm8 xmm9 xmm10 xmm11 xmm12 xmm13 xmm14 xmm15 "
	"mxcsr fs_base gs_base k_gs_base cr0 cr2 cr3 cr4 cr8 efer ";

/* Runs of those names: how many, how long, of what type, and with which feature of gdb's begins. */
static const struct {
	u8 count, size;
	char type[12], feature[9];
} runs[] = {
	{ 6, 8, "int64", "core" }, { 2, 8, "data_ptr", "" },	  { 8, 8, "int64", "" },
	{ 1, 8, "code_ptr", "" },  { 1, 4, "i386_eflags", "" },	  { 6, 4, "int32", "" },
	{ 8, 10, "i387_ext", "" }, { 8, 4, "int", "" },		  { 16, 16, "uint128", "sse" },
	{ 1, 4, "int", "" },	   { 9, 8, "int64", "segments" },
};

/* Bits of eflags, from the lowest (Intel SDM volume 1, 3.4.3). */
static const char flags[][4] = { "CF", "", "PF", "",   "AF", "",   "ZF", "SF", "TF",  "IF",  "DF",
				 "OF", "", "",	 "NT", "",   "RF", "VM", "AC", "VIF", "VIP", "ID" };

bool gdb_register_place(u32 n, u32 *offset, u32 *size)
{
	*offset = 0;
	for (size_t i = 0; i < ARRAY_SIZE(runs); i++) {
		*size = runs[i].size;
		if (n < runs[i].count) {
			*offset += n * *size;
			return true;
		}
		n -= runs[i].count;
		*offset += runs[i].count * *size;
	}
	return false;
}

/* Of the XSAVE area what is FXSAVE's (Intel SDM volume 1, table 10-2), and the header's bits of the
 * two parts that it has. */
#define FCW	 0
#define FSW	 2
#define FTW	 4
#define FOP	 6
#define FIP	 8
#define FDP	 16
#define MXCSR	 24
#define ST	 32 /* 16 bytes each, as the next */
#define XMM	 160
#define STATE_BV 512
#define X87_SSE	 3

struct state {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	union {
		struct kvm_xsave whole;
		u8 bytes[sizeof(struct kvm_xsave)];
	} xsave;
	struct {
		u32 count, pad;
		struct kvm_msr_entry entry;
	} msr;
};

_Static_assert(offsetof(struct kvm_sregs, efer) - offsetof(struct kvm_sregs, cr0) == 40,
	       "the control registers stand together");

static int read_state(int fd, struct state *s)
{
	*s = (struct state){ .msr = { .count = 1, .entry.index = MSR_KERNEL_GS_BASE } };
	if (ioctl(fd, KVM_GET_REGS, &s->regs) || ioctl(fd, KVM_GET_SREGS, &s->sregs) ||
	    ioctl(fd, KVM_GET_XSAVE, &s->xsave))
		return -errno;
	ioctl(fd, KVM_GET_MSRS, &s->msr); /* what cannot be read is zero */
	return 0;
}

/* Tags are a bit for each register that is in use there, and two here, of which 3 is empty (Intel
 * SDM volume 1, 8.1.7 and 10.5.1.1). */
static void read_fpu(struct gdb_registers *r, const u8 *area)
{
	r->x87[0] = le16_load(area + FCW);
	r->x87[1] = le16_load(area + FSW);
	r->x87[4] = le32_load(area + FIP);
	r->x87[6] = le32_load(area + FDP);
	r->x87[7] = le16_load(area + FOP);
	r->mxcsr = le32_load(area + MXCSR);
	memcpy(r->xmm, area + XMM, sizeof(r->xmm));
	for (u32 i = 0; i < 8; i++) {
		memcpy(r->st[i], area + ST + 16 * i, sizeof(r->st[i]));
		r->x87[2] |= area[FTW] & BIT(i) ? 0 : 3u << 2 * i;
	}
}

static void write_fpu(u8 *area, const struct gdb_registers *r)
{
	le16_store(area + FCW, (u16)r->x87[0]);
	le16_store(area + FSW, (u16)r->x87[1]);
	le32_store(area + MXCSR, r->mxcsr);
	memcpy(area + XMM, r->xmm, sizeof(r->xmm));
	area[FTW] = 0;
	for (u32 i = 0; i < 8; i++) {
		memcpy(area + ST + 16 * i, r->st[i], sizeof(r->st[i]));
		if ((r->x87[2] >> 2 * i & 3) != 3)
			area[FTW] |= (u8)BIT(i);
	}
	area[STATE_BV] |= X87_SSE;
}

int gdb_registers_load(int fd, struct gdb_registers *r)
{
	struct state s;
	const struct kvm_sregs *sregs = &s.sregs;
	int error = read_state(fd, &s);

	if (error)
		return error;
	*r = (struct gdb_registers){
		.rip = s.regs.rip,
		.eflags = (u32)s.regs.rflags,
		.segments = { sregs->cs.selector, sregs->ss.selector, sregs->ds.selector,
			      sregs->es.selector, sregs->fs.selector, sregs->gs.selector },
		.fs_base = sregs->fs.base,
		.gs_base = sregs->gs.base,
		.kernel_gs_base = s.msr.entry.data,
	};
	memcpy(r->control, &sregs->cr0, sizeof(r->control));
	/* KVM has two of them the other way round */
	memcpy(r->general, &s.regs, sizeof(r->general));
	r->general[6] = s.regs.rbp;
	r->general[7] = s.regs.rsp;
	read_fpu(r, s.xsave.bytes);
	return 0;
}

/* Does anything differ from the member at `from` to the one at `to`? */
static bool differ(const struct gdb_registers *a, const struct gdb_registers *b, size_t from,
		   size_t to)
{
	return memcmp((const u8 *)a + from, (const u8 *)b + from, to - from);
}

int gdb_registers_store(int fd, const struct gdb_registers *old, const struct gdb_registers *r)
{
	const size_t segments = offsetof(struct gdb_registers, segments);
	const size_t st = offsetof(struct gdb_registers, st);
	const size_t fs_base = offsetof(struct gdb_registers, fs_base);
	struct state s;
	int error = read_state(fd, &s);

	if (error)
		return error;
	if (differ(old, r, segments, st))
		return -EINVAL;
	memcpy(&s.regs, r->general, sizeof(r->general));
	s.regs.rbp = r->general[6];
	s.regs.rsp = r->general[7];
	s.regs.rip = r->rip;
	s.regs.rflags = r->eflags;
	write_fpu(s.xsave.bytes, r);
	s.sregs.fs.base = r->fs_base;
	s.sregs.gs.base = r->gs_base;
	memcpy(&s.sregs.cr0, r->control, sizeof(r->control));
	s.msr.entry.data = r->kernel_gs_base;
	if ((differ(old, r, 0, segments) && ioctl(fd, KVM_SET_REGS, &s.regs)) ||
	    (differ(old, r, st, fs_base) && ioctl(fd, KVM_SET_XSAVE, &s.xsave)) ||
	    (differ(old, r, fs_base, sizeof(*r)) && ioctl(fd, KVM_SET_SREGS, &s.sregs)))
		return -errno;
	if (old->kernel_gs_base != r->kernel_gs_base && ioctl(fd, KVM_SET_MSRS, &s.msr) != 1)
		return -EINVAL;
	return 0;
}

const char *gdb_registers_xml(void)
{
	static char xml[6144];
	const char *name = names;
	FILE *to;

	if (*xml)
		return xml;
	to = fmemopen(xml, sizeof(xml), "w");
	if (!to)
		return xml;
	fputs("<?xml version=\"1.0\"?><target><architecture>i386:x86-64</architecture>", to);
	for (size_t i = 0; i < ARRAY_SIZE(runs); i++) {
		if (*runs[i].feature)
			fprintf(to, "%s<feature name=\"org.gnu.gdb.i386.%s\">",
				i ? "</feature>" : "", runs[i].feature);
		for (u32 bit = 0; !i && bit < ARRAY_SIZE(flags); bit++) {
			if (!bit)
				fputs("<flags id=\"i386_eflags\" size=\"4\">", to);
			if (*flags[bit])
				fprintf(to, "<field name=\"%s\" start=\"%u\" end=\"%u\"/>",
					flags[bit], bit, bit);
			if (bit == ARRAY_SIZE(flags) - 1)
				fputs("</flags>", to);
		}
		for (u32 n = 0; n < runs[i].count; n++) {
			size_t length = strcspn(name, " ");

			fprintf(to, "<reg name=\"%.*s\" bitsize=\"%u\" type=\"%s\"/>", (int)length,
				name, 8u * runs[i].size, runs[i].type);
			name += length + 1;
		}
	}
	fputs("</feature></target>", to);
	fclose(to);
	return xml;
}
