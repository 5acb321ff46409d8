/* The core of a machine: what its segments and notes say, where RAM stands in the file, what stays
 * a hole, tables that lead nowhere, and a disk that is full. */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/procfs.h>
#include <sys/stat.h>
#include <sys/user.h>
#include <unistd.h>
#include <cmocka.h>

#include "machine/vmcore.h"

#define TOP	0x10000ull /* page tables */
#define KERNEL	0xffffffff81000000ull
#define AT	MIB(16) /* where it lies */
#define INFO	MIB(20)
#define LARGE	BIT64(7)
#define PRESENT BIT64(0)

struct fixture {
	struct memory memory;
	struct vmcore_cpu cpus[2];
	FILE *file;
	bool with_info;
	u64 bytes;
};

static void put(struct fixture *f, u64 gpa, u64 value)
{
	memcpy(memory_at(&f->memory, gpa, 8), &value, 8);
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	assert_int_equal(memory_create(&f->memory, NULL, MIB(64), MEMORY_PAGES_DEFAULT), 0);
	f->file = tmpfile();
	assert_non_null(f->file);
	for (u32 i = 0; i < 2; i++) {
		f->cpus[i].sregs.cr0 = BIT64(31) | 1;
		f->cpus[i].sregs.cr3 = TOP;
		f->cpus[i].sregs.efer = BIT64(10);
		f->cpus[i].regs.rip = KERNEL + 0x1234 + i;
		f->cpus[i].regs.r15 = 15 + i;
		f->cpus[i].sregs.cs.selector = 0x10;
		f->cpus[i].sregs.gs.base = 0x777;
	}
	f->cpus[0].sregs.cs.selector = 0x33; /* in user space, where not all may be mapped */
	f->cpus[0].sregs.cr3 = MIB(500);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	fclose(f->file);
	memory_destroy(&f->memory);
	free(f);
	return 0;
}

static void map_kernel(struct fixture *f)
{
	put(f, TOP + 8 * 511, (TOP + 0x1000) | PRESENT);
	put(f, TOP + 0x1000 + 8 * 510, (TOP + 0x2000) | PRESENT);
	put(f, TOP + 0x2000 + 8 * 8, AT | LARGE | PRESENT);
	put(f, TOP + 0x2000 + 8 * 9, (AT + MIB(2)) | LARGE | PRESENT);
	put(f, TOP + 0x2000 + 8 * 11, MIB(600) | LARGE | PRESENT); /* no RAM */
	put(f, TOP + 0x2000 + 8 * 12, MIB(600) | PRESENT);	   /* no table */
}

static int write_core(struct fixture *f)
{
	return vmcore_write(fileno(f->file), &f->memory, f->cpus, 2, &f->with_info, &f->bytes);
}

static void read_at(struct fixture *f, void *to, size_t size, u64 offset)
{
	assert_int_equal(pread(fileno(f->file), to, size, (off_t)offset), size);
}

/* The file's offset of an address; 0: it is in no segment. */
static u64 find(struct fixture *f, u64 address, bool physical)
{
	Elf64_Ehdr head;
	Elf64_Phdr s;

	read_at(f, &head, sizeof(head), 0);
	for (u32 i = 0; i < head.e_phnum; i++) {
		u64 start;

		read_at(f, &s, sizeof(s), head.e_phoff + i * sizeof(s));
		start = physical ? s.p_paddr : s.p_vaddr;
		if (s.p_type == PT_LOAD && address >= start && address < start + s.p_filesz)
			return s.p_offset + (address - start);
	}
	return 0;
}

static void test_segments(void **state)
{
	struct fixture *f = *state;
	Elf64_Ehdr head;
	struct stat st;
	u64 value;

	map_kernel(f);
	put(f, AT + MIB(2) + 0x128, 0x1122334455667788);
	assert_int_equal(write_core(f), 0);
	read_at(f, &head, sizeof(head), 0);
	assert_memory_equal(head.e_ident, ELFMAG, SELFMAG);
	assert_int_equal(head.e_type, ET_CORE);
	assert_int_equal(head.e_phnum, 3); /* notes, RAM, one piece of the kernel's */
	assert_true(find(f, AT + MIB(2) + 0x128, true));
	assert_int_equal(find(f, AT + MIB(2) + 0x128, true),
			 find(f, KERNEL + MIB(2) + 0x128, false));
	read_at(f, &value, 8, find(f, KERNEL + MIB(2) + 0x128, false));
	assert_int_equal(value, 0x1122334455667788);
	assert_int_equal(find(f, KERNEL + MIB(4), false), 0);
	/* the last byte of RAM is there, and what nobody touched takes no room */
	read_at(f, &value, 8, find(f, MIB(64) - 8, true));
	assert_int_equal(value, 0);
	assert_int_equal(fstat(fileno(f->file), &st), 0);
	assert_true(st.st_size > (off_t)MIB(64));
	assert_true(st.st_blocks * 512 < (off_t)MIB(1));
	assert_true(f->bytes < KIB(64));
}

static void test_notes(void **state)
{
	struct fixture *f = *state;
	struct elf_prstatus status;
	struct user_regs_struct regs;
	Elf64_Phdr notes;
	Elf64_Nhdr head;
	u8 *page = memory_at(&f->memory, INFO, 4096);
	const Elf64_Nhdr info = { 11, 20, 0 };
	u8 all[4096] = { 0 };

	memcpy(page, &info, sizeof(info));
	strcpy((char *)page + 12, "VMCOREINFO");
	strcpy((char *)page + 24, "OSRELEASE=6.1.0-test");
	assert_int_equal(write_core(f), 0);
	assert_true(f->with_info);
	read_at(f, &notes, sizeof(notes), sizeof(Elf64_Ehdr));
	assert_int_equal(notes.p_type, PT_NOTE);
	assert_true(notes.p_filesz < sizeof(all));
	read_at(f, all, notes.p_filesz, notes.p_offset);
	for (u32 i = 0; i < 2; i++) {
		const u8 *at = all + i * (12 + 8 + sizeof(status));

		memcpy(&head, at, sizeof(head));
		assert_int_equal(head.n_type, NT_PRSTATUS);
		assert_int_equal(head.n_descsz, sizeof(status));
		assert_string_equal((const char *)at + 12, "CORE");
		memcpy(&status, at + 20, sizeof(status));
		memcpy(&regs, &status.pr_reg, sizeof(regs));
		assert_int_equal(regs.rip, KERNEL + 0x1234 + i);
		assert_int_equal(regs.r15, 15 + i);
		assert_int_equal(regs.gs_base, 0x777);
		assert_int_equal(regs.cs, i ? 0x10 : 0x33);
	}
	assert_non_null(memmem(all, notes.p_filesz, "OSRELEASE=6.1.0-test", 20));
	assert_non_null(memmem(all, notes.p_filesz, "QEMU", 5));
}

static void test_info_that_lies(void **state)
{
	struct fixture *f = *state;
	u8 *page = memory_at(&f->memory, MIB(64) - 4096, 4096);
	const Elf64_Nhdr info = { 11, 4096, 0 };

	memcpy(page, &info, sizeof(info));
	strcpy((char *)page + 12, "VMCOREINFO");
	strcpy((char *)page + 24, "OSRELEASE=x");
	assert_int_equal(write_core(f), 0);
	assert_false(f->with_info); /* it would go on behind the end of RAM */
}

/* Each table is all of them, at every level: as many pieces as there can be, and an end to it. */
static void test_endless_tables(void **state)
{
	struct fixture *f = *state;
	Elf64_Ehdr head;

	for (u32 i = 0; i < 512; i++)
		put(f, TOP + 8 * i, TOP | PRESENT);
	assert_int_equal(write_core(f), 0);
	read_at(f, &head, sizeof(head), 0);
	assert_int_equal(head.e_phnum, 8192);
}

/* Every entry of every level leads to the next, and the last to no RAM: as good as for ever. */
static void test_tables_of_nothing(void **state)
{
	struct fixture *f = *state;
	Elf64_Ehdr head;

	for (u64 level = 0; level < 4; level++)
		for (u32 i = 0; i < 512; i++)
			put(f, TOP + 0x1000 * level + 8 * i,
			    (level < 3 ? TOP + 0x1000 * (level + 1) : MIB(600)) | PRESENT);
	assert_int_equal(write_core(f), 0);
	read_at(f, &head, sizeof(head), 0);
	assert_int_equal(head.e_phnum, 2);
}

static void test_full_disk(void **state)
{
	struct fixture *f = *state;
	int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(vmcore_write(fd, &f->memory, f->cpus, 2, &f->with_info, &f->bytes),
			 -ENOSPC);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_segments, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_notes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_info_that_lies, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_endless_tables, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_tables_of_nothing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_full_disk, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
