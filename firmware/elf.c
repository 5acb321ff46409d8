/*
 * ELF kernels: by the PVH entry if the file has the note for it (x86/HVM direct boot ABI), else by
 * the 64-bit boot protocol at its ELF entry. Runs on the main thread while the guest does not.
 */
#include <elf.h>
#include <errno.h>
#include "firmware/loader.h"
#include "vm/log.h"

#define MAX_SEGMENTS	128
#define NOTE_BYTES	4096 /* of a note segment, as much as we look at */
#define NOTE_PVH_ENTRY	18   /* XEN_ELFNOTE_PHYS32_ENTRY */
#define ELF_INITRD_MAX	0x7fffffff
#define ELF_CMDLINE_MAX 2047

static int absurd(const char *path, const char *what)
{
	log_line("%s: damaged ELF kernel: %s; build it again", path, what);
	return -ENOEXEC;
}

static int read_header(const struct kernel_file *file, Elf64_Ehdr *e)
{
	const char *path = file->path;

	if (kernel_read(file, e, sizeof(*e), 0))
		return absurd(path, "it ends inside the ELF header");
	if (e->e_ident[EI_CLASS] != ELFCLASS64 || e->e_ident[EI_DATA] != ELFDATA2LSB ||
	    e->e_machine != EM_X86_64) {
		log_line("%s: an ELF file for another machine; give a 64-bit x86 kernel", path);
		return -ENOEXEC;
	}
	if (e->e_type == ET_REL || (e->e_type == ET_DYN && !e->e_entry)) {
		log_line("%s: an object file or library, not a kernel; give vmlinux", path);
		return -ENOEXEC;
	}
	if (e->e_phentsize != sizeof(Elf64_Phdr) || !e->e_phnum || e->e_phnum > MAX_SEGMENTS)
		return absurd(path, "its program header table makes no sense");
	return 0;
}

/* Looks through one note segment for the PVH entry. */
static bool find_pvh_entry(const struct kernel_file *file, const Elf64_Phdr *p, u64 *entry)
{
	u8 notes[NOTE_BYTES];
	u64 size = p->p_filesz < sizeof(notes) ? p->p_filesz : sizeof(notes), at = 0;

	if (kernel_read(file, notes, size, p->p_offset))
		return false;
	while (size - at >= sizeof(Elf64_Nhdr)) {
		u64 name_size = ALIGN_UP((u64)le32_load(notes + at), 4);
		u64 value_size = ALIGN_UP((u64)le32_load(notes + at + 4), 4);
		u32 type = le32_load(notes + at + 8);
		const u8 *name = notes + at + sizeof(Elf64_Nhdr);

		at += sizeof(Elf64_Nhdr);
		if (name_size > size - at || value_size > size - at - name_size)
			return false;
		if (type == NOTE_PVH_ENTRY && name_size == 4 && !memcmp(name, "Xen", 4) &&
		    value_size >= 4) {
			*entry = le32_load(name + name_size);
			return true;
		}
		at += name_size + value_size;
	}
	return false;
}

static bool segment_is_sane(const Elf64_Phdr *p, u64 file_size)
{
	u64 end;

	return p->p_filesz <= p->p_memsz && !__builtin_add_overflow(p->p_paddr, p->p_memsz, &end) &&
	       p->p_offset <= file_size && p->p_filesz <= file_size - p->p_offset;
}

static int load_segment(const struct kernel_file *file, const Elf64_Phdr *p, struct memory *memory)
{
	const char *path = file->path;
	void *to = memory_at(memory, p->p_paddr, p->p_memsz);
	int ret;

	if (!to || p->p_paddr < BOOT_KERNEL) {
		log_line("%s: a segment of %llu MiB at %llu MiB lies outside the guest's RAM from "
			 "1 MiB on; raise --mem",
			 path, (unsigned long long)(p->p_memsz >> 20),
			 (unsigned long long)(p->p_paddr >> 20));
		return -E2BIG;
	}
	ret = file_read(file->fd, to, p->p_filesz, p->p_offset);
	if (ret)
		log_line("%s: cannot read the kernel: %s; check the file", path, strerror(-ret));
	return ret;
}

/* The entry as a physical address in a loaded segment: kernels give one or the other kind. */
static bool resolve_entry(const Elf64_Phdr *p, u64 e_entry, u64 *entry)
{
	if (e_entry >= p->p_paddr && e_entry - p->p_paddr < p->p_memsz) {
		*entry = e_entry;
		return true;
	}
	if (e_entry >= p->p_vaddr && e_entry - p->p_vaddr < p->p_memsz) {
		*entry = e_entry - p->p_vaddr + p->p_paddr;
		return true;
	}
	return false;
}

int elf_load(const struct kernel_file *file, struct memory *memory, struct kernel_image *image)
{
	const char *path = file->path;
	Elf64_Phdr segments[MAX_SEGMENTS];
	bool have_entry = false, loaded = false;
	u64 pvh_entry = 0, entry = 0;
	Elf64_Ehdr e;
	int ret = read_header(file, &e);

	if (ret)
		return ret;
	if (kernel_read(file, segments, e.e_phnum * sizeof(segments[0]), e.e_phoff))
		return absurd(path, "it ends inside the program header table");
	image->pvh = false;
	image->start = ~0ull;
	image->end = 0;
	for (u32 i = 0; i < e.e_phnum; i++) {
		const Elf64_Phdr *p = &segments[i];

		if (p->p_type == PT_NOTE && segment_is_sane(p, file->size) && !image->pvh)
			image->pvh = find_pvh_entry(file, p, &pvh_entry);
		if (p->p_type != PT_LOAD || !p->p_memsz)
			continue;
		if (!segment_is_sane(p, file->size))
			return absurd(path, "a segment is cut off or wraps");
		loaded = true;
		have_entry = have_entry || resolve_entry(p, e.e_entry, &entry);
		if (p->p_paddr < image->start)
			image->start = p->p_paddr;
		if (p->p_paddr + p->p_memsz > image->end)
			image->end = p->p_paddr + p->p_memsz;
		ret = memory ? load_segment(file, p, memory) : 0;
		if (ret)
			return ret;
	}
	if (!loaded)
		return absurd(path, "it has nothing to load");
	if (image->pvh ? pvh_entry < image->start || pvh_entry >= image->end : !have_entry)
		return absurd(path, "its entry lies outside of what it loads");
	image->entry = image->pvh ? pvh_entry : entry;
	image->initrd_max = ELF_INITRD_MAX;
	image->cmdline_max = ELF_CMDLINE_MAX;
	return 0;
}
