/* The core of a machine: see vmcore.h. */
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/procfs.h>
#include <sys/user.h>
#include <unistd.h>
#include "machine/vmcore.h"
#include "vm/paging.h"

#define PAGE KIB(4)
#define SEGMENTS_MAX                                                                \
	8192 /* a kernel's direct map and text are few; scattered pages may be many \
	      */
#define TABLES_MAX (1u << 18) /* walked: of 4 KiB pages they would map half a TiB */
#define NAME_BYTES 12	      /* of a note, the longest here */
#define UPPER_HALF BIT64(63)
#define WRITE_MAX  MIB(8)

struct core {
	int fd;
	const struct memory *memory;
	Elf64_Phdr *segments;
	u32 count;
	u32 tables; /* walked */
	u8 *notes;
	size_t notes_size;
	const u8 *info;
	u32 info_size;
	u64 low, high, end; /* where in the file RAM stands, and where it ends */
	u64 written;
};

/* What crash(8) knows as QEMU's note (QEMU, target/i386/arch_dump.c tells its layout). */
struct system_segment {
	u32 selector, limit, flags, pad;
	u64 base;
};
struct system_note {
	u32 version, size;
	u64 rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip,
		rflags;
	struct system_segment cs, ds, es, fs, gs, ss, ldt, tr, gdt, idt;
	u64 cr[5];
	u64 kernel_gs_base;
};

static int write_at(struct core *core, const void *from, size_t size, u64 offset)
{
	const u8 *bytes = from;

	while (size) {
		size_t some = size < WRITE_MAX ? size : WRITE_MAX;
		ssize_t n = pwrite(core->fd, bytes, some, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -ENOSPC;
		bytes += n;
		offset += (u64)n;
		size -= (size_t)n;
		core->written += (u64)n;
	}
	return 0;
}

/* ---- notes ---- */

static void put_note(struct core *core, const char *name, u32 type, const void *from, u32 size)
{
	u8 *to = core->notes + core->notes_size;
	Elf64_Nhdr head = { (u32)strlen(name) + 1, size, type };

	memcpy(to, &head, sizeof(head));
	memcpy(to + sizeof(head), name, head.n_namesz);
	to += sizeof(head) + ALIGN_UP(head.n_namesz, 4u);
	memcpy(to, from, size);
	core->notes_size = (size_t)(to - core->notes) + ALIGN_UP(size, 4u);
}

static void put_prstatus(struct core *core, const struct vmcore_cpu *cpu, u32 index)
{
	const struct kvm_regs *r = &cpu->regs;
	const struct kvm_sregs *s = &cpu->sregs;
	const struct user_regs_struct regs = {
		.r15 = r->r15,
		.r14 = r->r14,
		.r13 = r->r13,
		.r12 = r->r12,
		.rbp = r->rbp,
		.rbx = r->rbx,
		.r11 = r->r11,
		.r10 = r->r10,
		.r9 = r->r9,
		.r8 = r->r8,
		.rax = r->rax,
		.rcx = r->rcx,
		.rdx = r->rdx,
		.rsi = r->rsi,
		.rdi = r->rdi,
		.orig_rax = ~0ull,
		.rip = r->rip,
		.cs = s->cs.selector,
		.eflags = r->rflags,
		.rsp = r->rsp,
		.ss = s->ss.selector,
		.fs_base = s->fs.base,
		.gs_base = s->gs.base,
		.ds = s->ds.selector,
		.es = s->es.selector,
		.fs = s->fs.selector,
		.gs = s->gs.selector,
	};
	struct elf_prstatus status = { .pr_pid = (int)index + 1 };

	_Static_assert(sizeof(status.pr_reg) == sizeof(regs), "the same registers");
	memcpy(&status.pr_reg, &regs, sizeof(regs));
	put_note(core, "CORE", NT_PRSTATUS, &status, sizeof(status));
}

static struct system_segment segment_of(const struct kvm_segment *s)
{
	return (struct system_segment){
		.selector = s->selector,
		.limit = s->limit,
		.flags = (u32)s->type << 8 | (u32)s->s << 12 | (u32)s->dpl << 13 |
			 (u32)s->present << 15 | (u32)s->avl << 20 | (u32)s->l << 21 |
			 (u32)s->db << 22 | (u32)s->g << 23,
		.base = s->base,
	};
}

static struct system_segment table_of(const struct kvm_dtable *t)
{
	return (struct system_segment){ .limit = t->limit, .base = t->base };
}

static void put_system(struct core *core, const struct vmcore_cpu *cpu)
{
	const struct kvm_regs *r = &cpu->regs;
	const struct kvm_sregs *s = &cpu->sregs;
	const struct system_note note = {
		1,
		sizeof(note),
		r->rax,
		r->rbx,
		r->rcx,
		r->rdx,
		r->rsi,
		r->rdi,
		r->rsp,
		r->rbp,
		r->r8,
		r->r9,
		r->r10,
		r->r11,
		r->r12,
		r->r13,
		r->r14,
		r->r15,
		r->rip,
		r->rflags,
		.cs = segment_of(&s->cs),
		.ds = segment_of(&s->ds),
		.es = segment_of(&s->es),
		.fs = segment_of(&s->fs),
		.gs = segment_of(&s->gs),
		.ss = segment_of(&s->ss),
		.ldt = segment_of(&s->ldt),
		.tr = segment_of(&s->tr),
		.gdt = table_of(&s->gdt),
		.idt = table_of(&s->idt),
		.cr = { s->cr0, 0, s->cr2, s->cr3, s->cr4 },
		.kernel_gs_base = cpu->kernel_gs_base,
	};

	put_note(core, "QEMU", 0, &note, sizeof(note));
}

/* Linux keeps this note, with its head, in pages of its own; a guest may have anything there. */
static void find_info(struct core *core)
{
	static const char name[NAME_BYTES] = "VMCOREINFO", first[] = "OSRELEASE=";

	for (u64 gpa = 0; gpa < memory_end(core->memory); gpa += PAGE) {
		const u8 *page = memory_at(core->memory, gpa, PAGE);
		Elf64_Nhdr head;

		if (!page) { /* the hole */
			gpa = gpa < LAYOUT_RAM_HIGH ? LAYOUT_RAM_HIGH - PAGE : gpa;
			continue;
		}
		memcpy(&head, page, sizeof(head));
		if (head.n_namesz != sizeof("VMCOREINFO") || head.n_type || head.n_descsz > PAGE ||
		    memcmp(page + sizeof(head), name, sizeof(name)) ||
		    memcmp(page + sizeof(head) + sizeof(name), first, strlen(first)) ||
		    !memory_at(core->memory, gpa, sizeof(head) + sizeof(name) + head.n_descsz))
			continue;
		core->info = page + sizeof(head) + sizeof(name);
		core->info_size = head.n_descsz;
		return;
	}
}

static int make_notes(struct core *core, const struct vmcore_cpu *cpus, u32 count)
{
	size_t one = sizeof(Elf64_Nhdr) + NAME_BYTES;

	find_info(core);
	core->notes = calloc(
		1, count * (2 * one + sizeof(struct elf_prstatus) + sizeof(struct system_note)) +
			   one + ALIGN_UP(core->info_size, 4u));
	if (!core->notes)
		return -ENOMEM;
	for (u32 i = 0; i < count; i++)
		put_prstatus(core, &cpus[i], i);
	for (u32 i = 0; i < count; i++)
		put_system(core, &cpus[i]);
	if (core->info)
		put_note(core, "VMCOREINFO", 0, core->info, core->info_size);
	return 0;
}

/* ---- segments ---- */

/* A range of RAM; offset is set when the place of RAM in the file is known. */
static void add_segment(struct core *core, u64 va, u64 pa, u64 size)
{
	Elf64_Phdr *last = &core->segments[core->count - 1];

	if (!memory_at(core->memory, pa, size))
		return;
	if (va >= UPPER_HALF && last->p_vaddr >= UPPER_HALF &&
	    last->p_vaddr + last->p_memsz == va && last->p_paddr + last->p_memsz == pa &&
	    memory_at(core->memory, last->p_paddr, last->p_memsz + size)) {
		last->p_memsz += size;
		last->p_filesz += size;
		return;
	}
	if (core->count == SEGMENTS_MAX)
		return;
	core->segments[core->count++] = (Elf64_Phdr){
		.p_type = PT_LOAD,
		.p_flags = PF_R | PF_W | PF_X,
		.p_vaddr = va,
		.p_paddr = pa,
		.p_filesz = size,
		.p_memsz = size,
	};
}

/* What a table maps into the upper half (Intel SDM volume 3, 4.5). A guest's tables may lead
 * anywhere and in circles, so the depth is ours, and the numbers of tables and segments have an
 * end. */
static void walk(struct core *core, u64 table, u32 level, u64 va, u32 from)
{
	u64 step = BIT64(12 + 9 * (level - 1));
	const u8 *entries = memory_at(core->memory, table & ADDRESS_BITS, PAGE);

	if (!entries || core->tables == TABLES_MAX)
		return;
	core->tables++;
	for (u32 i = from; i < 512 && core->count < SEGMENTS_MAX; i++) {
		u64 entry, at = va + i * step;

		memcpy(&entry, entries + 8 * i, sizeof(entry));
		if (!(entry & ENTRY_THERE))
			continue;
		if (level == 1 || (level <= 3 && entry & ENTRY_LARGE))
			add_segment(core, at, entry & ADDRESS_BITS & ~(step - 1), step);
		else
			walk(core, entry, level - 1, at, 0);
	}
}

/* The kernel's mappings are the same on all of them; one that is in the kernel has them all. */
static void add_mapped(struct core *core, const struct vmcore_cpu *cpus, u32 count)
{
	for (u32 i = 0; i < count; i++) {
		const struct kvm_sregs *s = &cpus[i].sregs;
		bool five = s->cr4 & CR4_LA57;

		if (!(s->cr0 & CR0_PG) || !(s->efer & EFER_LMA) || s->cs.selector & 3)
			continue;
		walk(core, s->cr3, five ? 5 : 4, five ? ~0ull << 57 : ~0ull << 48, 256);
		break;
	}
}

static int make_segments(struct core *core, const struct vmcore_cpu *cpus, u32 count)
{
	const struct memory *m = core->memory;

	core->segments = calloc(SEGMENTS_MAX, sizeof(*core->segments));
	if (!core->segments)
		return -ENOMEM;
	core->segments[core->count++] = (Elf64_Phdr){ .p_type = PT_NOTE, .p_align = 4 };
	add_segment(core, 0, 0, m->low_size);
	if (m->high_size)
		add_segment(core, LAYOUT_RAM_HIGH, LAYOUT_RAM_HIGH, m->high_size);
	add_mapped(core, cpus, count);
	return 0;
}

static int write_heads(struct core *core)
{
	Elf64_Ehdr head = {
		.e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
			     EV_CURRENT },
		.e_type = ET_CORE,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_phoff = sizeof(head),
		.e_ehsize = sizeof(head),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = (u16)core->count,
	};
	u64 notes = sizeof(head) + core->count * sizeof(Elf64_Phdr);
	int error;

	core->low = ALIGN_UP(notes + core->notes_size, PAGE);
	core->high = core->low + core->memory->low_size;
	core->end = core->high + core->memory->high_size;
	core->segments[0].p_offset = notes;
	core->segments[0].p_filesz = core->segments[0].p_memsz = core->notes_size;
	for (u32 i = 1; i < core->count; i++) {
		Elf64_Phdr *s = &core->segments[i];

		s->p_offset = s->p_paddr < LAYOUT_RAM_HIGH
				      ? core->low + s->p_paddr
				      : core->high + (s->p_paddr - LAYOUT_RAM_HIGH);
	}
	error = write_at(core, &head, sizeof(head), 0);
	if (!error)
		error = write_at(core, core->segments, core->count * sizeof(Elf64_Phdr),
				 sizeof(head));
	return error ? error : write_at(core, core->notes, core->notes_size, notes);
}

/* ---- RAM ---- */

static bool is_zero(const u8 *page)
{
	return !page[0] && !memcmp(page, page + 1, PAGE - 1);
}

/* Pages without a bit in them stay holes; a page that the guest never touched is one of zeroes. */
static int write_ram(struct core *core, const u8 *ram, u64 size, u64 offset)
{
	u64 at = 0, start;

	while (at < size) {
		int error;

		while (at < size && is_zero(ram + at))
			at += PAGE;
		start = at;
		while (at < size && at - start < WRITE_MAX && !is_zero(ram + at))
			at += PAGE;
		error = write_at(core, ram + start, at - start, offset + start);
		if (error)
			return error;
	}
	return 0;
}

int vmcore_write(int fd, const struct memory *memory, const struct vmcore_cpu *cpus, u32 count,
		 bool *with_info, u64 *bytes)
{
	struct core core = { .fd = fd, .memory = memory };
	int error = make_notes(&core, cpus, count);

	if (!error)
		error = make_segments(&core, cpus, count);
	if (!error)
		error = write_heads(&core);
	if (!error)
		error = write_ram(&core, memory->low, memory->low_size, core.low);
	if (!error)
		error = write_ram(&core, memory->high, memory->high_size, core.high);
	/* so that the file has its whole size */
	if (!error)
		error = write_at(&core, "", 1, core.end); /* behind the last segment */
	*with_info = core.info != NULL;
	*bytes = core.written;
	free(core.segments);
	free(core.notes);
	return error;
}
