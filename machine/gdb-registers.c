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
	u8 xsave[sizeof(struct kvm_xsave)] __attribute__((aligned(8)));
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
	    ioctl(fd, KVM_GET_XSAVE, s->xsave))
		return -errno;
	ioctl(fd, KVM_GET_MSRS, &s->msr); /* what cannot be read is zero */
	return 0;
}

/* Where gdb has what, where KVM has it, and how many bytes. */
#define PLACE(wire, kvm, size)                                                          \
	{                                                                               \
		offsetof(struct gdb_registers, wire), offsetof(struct state, kvm), size \
	}
#define SELECTOR(i, name)    PLACE(segments[i], sregs.name.selector, 2)
#define X87(i, offset, size) PLACE(x87[i], xsave[offset], size)
#define STACK(i)	     PLACE(st[i], xsave[ST + 16 * (i)], 10)

static const struct {
	u16 wire, kvm, size;
} places[] = {
	PLACE(general[0], regs.rax, 6 * 8),
	PLACE(general[6], regs.rbp, 8),
	PLACE(general[7], regs.rsp, 8),
	PLACE(general[8], regs.r8, 9 * 8 + 4), /* with rip and eflags */
	SELECTOR(0, cs),
	SELECTOR(1, ss),
	SELECTOR(2, ds),
	SELECTOR(3, es),
	SELECTOR(4, fs),
	SELECTOR(5, gs),
	STACK(0),
	STACK(1),
	STACK(2),
	STACK(3),
	STACK(4),
	STACK(5),
	STACK(6),
	STACK(7),
	X87(0, FCW, 2),
	X87(1, FSW, 2),
	X87(4, FIP, 4),
	X87(6, FDP, 4),
	X87(7, FOP, 2),
	PLACE(xmm, xsave[XMM], 16 * 16),
	PLACE(mxcsr, xsave[MXCSR], 4),
	PLACE(fs_base, sregs.fs.base, 8),
	PLACE(gs_base, sregs.gs.base, 8),
	PLACE(kernel_gs_base, msr.entry.data, 8),
	PLACE(control, sregs.cr0, 6 * 8),
};

/* Tags are a bit for each register that is in use at KVM's, and two at gdb's, of which 3 is empty
 * (Intel SDM volume 1, 8.1.7 and 10.5.1.1). */
static u32 tags_of(u8 used)
{
	u32 tags = 0;

	for (u32 i = 0; i < 8; i++)
		tags |= used & BIT(i) ? 0 : 3u << 2 * i;
	return tags;
}

int gdb_registers_load(int fd, struct gdb_registers *r)
{
	struct state s;
	int error = read_state(fd, &s);

	memset(r, 0, sizeof(*r));
	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		memcpy((u8 *)r + places[i].wire, (u8 *)&s + places[i].kvm, places[i].size);
	r->x87[2] = tags_of(s.xsave[FTW]);
	return error;
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
	u8 used = 0;

	if (error)
		return error;
	if (differ(old, r, segments, st))
		return -EINVAL;
	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		memcpy((u8 *)&s + places[i].kvm, (const u8 *)r + places[i].wire, places[i].size);
	for (u32 i = 0; i < 8; i++)
		if ((r->x87[2] >> 2 * i & 3) != 3)
			used |= (u8)BIT(i);
	s.xsave[FTW] = used;
	s.xsave[STATE_BV] |= X87_SSE;
	if ((differ(old, r, 0, segments) && ioctl(fd, KVM_SET_REGS, &s.regs)) ||
	    (differ(old, r, st, fs_base) && ioctl(fd, KVM_SET_XSAVE, s.xsave)) ||
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
