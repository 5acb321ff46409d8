/* firmware/: kernels good, truncated, absurd and hostile; where everything goes in RAM. */
#include <asm/bootparam.h>
#include <elf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>
#include "firmware/boot.h"
#include "firmware/loader.h"

#define SETUP_SECTS 2
#define KERNEL_SIZE 8192u
#define PREFERRED   MIB(16)
#define INIT_SIZE   MIB(4)

static u8 file[65536];
static u32 file_size;

static void make_bzimage(void)
{
	struct setup_header *h = (struct setup_header *)(file + 0x1f1);

	memset(file, 0, sizeof(file));
	file_size = (SETUP_SECTS + 1) * 512 + KERNEL_SIZE;
	memset(file + (SETUP_SECTS + 1) * 512, 0x90, KERNEL_SIZE);
	file[0x201] = 0x6a;
	h->setup_sects = SETUP_SECTS;
	h->syssize = KERNEL_SIZE / 16;
	h->boot_flag = 0xaa55;
	memcpy(file + 0x202, "HdrS", 4);
	h->version = 0x020f;
	h->loadflags = LOADED_HIGH;
	h->initrd_addr_max = 0x7fffffff;
	h->kernel_alignment = 0x200000;
	h->relocatable_kernel = 1;
	h->xloadflags = XLF_KERNEL_64;
	h->cmdline_size = 2047;
	h->pref_address = PREFERRED;
	h->init_size = INIT_SIZE;
}

static struct setup_header *header(void)
{
	return (struct setup_header *)(file + 0x1f1);
}

static void make_elf(bool pvh)
{
	Elf64_Ehdr *e = (Elf64_Ehdr *)file;
	Elf64_Phdr *p = (Elf64_Phdr *)(file + sizeof(*e));
	u8 *note = file + 0x800;

	memset(file, 0, sizeof(file));
	memcpy(e->e_ident, ELFMAG, SELFMAG);
	e->e_ident[EI_CLASS] = ELFCLASS64;
	e->e_ident[EI_DATA] = ELFDATA2LSB;
	e->e_type = ET_EXEC;
	e->e_machine = EM_X86_64;
	e->e_phoff = sizeof(*e);
	e->e_phentsize = sizeof(*p);
	e->e_phnum = 2;
	e->e_entry = 0x1000010;
	p[0] = (Elf64_Phdr){ .p_type = PT_LOAD,
			     .p_offset = 0x1000,
			     .p_paddr = MIB(16),
			     .p_vaddr = 0xffffffff81000000,
			     .p_filesz = 0x1000,
			     .p_memsz = 0x3000 };
	p[1] = (Elf64_Phdr){
		.p_type = pvh ? PT_NOTE : PT_NULL, .p_offset = 0x800, .p_filesz = 20, .p_memsz = 20
	};
	le32_store(note, 4);
	le32_store(note + 4, 4);
	le32_store(note + 8, 18);
	memcpy(note + 12, "Xen", 4);
	le32_store(note + 16, 0x1000020);
	memset(file + 0x1000, 0xf4, 0x1000);
	file_size = 0x2000;
}

static char path[64];
static int file_fd = -1;

static void write_file(void)
{
	if (file_fd >= 0)
		close(file_fd);
	file_fd = memfd_create("kernel", 0);
	assert_true(file_fd >= 0);
	assert_int_equal(write(file_fd, file, file_size), file_size);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", file_fd);
}

/* Opens and loads into a machine of `size` bytes; the first error, or 0. */
static int try_boot(struct memory *memory, u64 size, const char *initrd, const char *cmdline,
		    struct vcpu_entry *entry)
{
	struct boot_config config = { .kernel = path,
				      .initrd = initrd,
				      .cmdline = cmdline,
				      .cpus = 2,
				      .sockets = 1,
				      .cores = 2,
				      .threads = 1,
				      .window64_start = GIB(8),
				      .window64_size = GIB(32),
				      .physical_bits = 40 };
	struct boot *boot;
	int ret;

	assert_int_equal(memory_create(memory, NULL, size, MEMORY_PAGES_DEFAULT), 0);
	ret = boot_open(&boot, &config);
	if (!ret) {
		ret = boot_load(boot, memory, entry);
		boot_close(boot);
	}
	return ret;
}

static int try_once(void)
{
	struct vcpu_entry entry;
	struct memory memory;
	int ret;

	write_file();
	ret = try_boot(&memory, MIB(128), NULL, "quiet", &entry);
	memory_destroy(&memory);
	return ret;
}

static void bzimage_enters_by_the_64_bit_protocol(void **state)
{
	struct vcpu_entry entry;
	struct memory memory;
	struct boot_params *zero;

	(void)state;
	make_bzimage();
	write_file();
	assert_int_equal(try_boot(&memory, GIB(6), "/proc/self/exe", "quiet panic=-1", &entry), 0);
	assert_true(entry.long_mode);
	assert_int_equal(entry.rip, PREFERRED + 0x200);
	assert_int_equal(*(u8 *)memory_at(&memory, PREFERRED, 1), 0x90);
	zero = memory_at(&memory, entry.rsi, sizeof(*zero));
	assert_int_equal(zero->hdr.header, 0x53726448);
	assert_int_equal(zero->hdr.type_of_loader, 0xff);
	assert_string_equal(memory_at(&memory, zero->hdr.cmd_line_ptr, 32), "quiet panic=-1");
	/* the initrd lies in RAM below the limit, whole and in order */
	assert_true(zero->hdr.ramdisk_size > 0 && zero->hdr.ramdisk_image >= PREFERRED + INIT_SIZE);
	assert_true((u64)zero->hdr.ramdisk_image + zero->hdr.ramdisk_size <= 0x80000000);
	assert_memory_equal(memory_at(&memory, zero->hdr.ramdisk_image, 4), "\177ELF", 4);
	/* RAM on both sides of the hole, nothing in it */
	for (u32 i = 0; i < zero->e820_entries; i++) {
		const struct boot_e820_entry *r = &zero->e820_table[i];

		if (r->type == 1) {
			assert_non_null(memory_at(&memory, r->addr, r->size));
			assert_true(r->addr + r->size <= GIB(3) || r->addr >= GIB(4));
		}
	}
	assert_memory_equal(memory_at(&memory, zero->acpi_rsdp_addr, 8), "RSD PTR ", 8);
	/* ffff:0000 writes 1 to the reset register */
	assert_memory_equal(memory_at(&memory, 0xffff0, 6), "\xba\x02\x06\xb0\x01\xee", 6);
	memory_destroy(&memory);
}

/* Loaded lower it would move itself up, and out of RAM. */
static void bzimage_runs_from_its_preferred_address_on(void **state)
{
	struct vcpu_entry entry;
	struct memory memory;

	(void)state;
	make_bzimage();
	header()->init_size = (u32)MIB(48);
	write_file();
	assert_int_equal(try_boot(&memory, MIB(64), NULL, "", &entry), 0);
	assert_int_equal(entry.rip, MIB(16) + 0x200);
	memory_destroy(&memory);
	header()->init_size++;
	write_file();
	assert_int_equal(try_boot(&memory, MIB(64), NULL, "", &entry), -E2BIG);
	memory_destroy(&memory);
	/* no preference that counts: the lowest place that is aligned */
	make_bzimage();
	header()->pref_address = 0;
	write_file();
	assert_int_equal(try_boot(&memory, MIB(64), NULL, "", &entry), 0);
	assert_int_equal(entry.rip, MIB(2) + 0x200);
	memory_destroy(&memory);
	header()->relocatable_kernel = 0;
	assert_int_equal(try_once(), -E2BIG);
}

static void broken_bzimages_are_refused(void **state)
{
	(void)state;
	make_bzimage();
	assert_int_equal(try_once(), 0);
	for (u32 size = 0; size < (SETUP_SECTS + 1) * 512 + KERNEL_SIZE; size += 97) {
		make_bzimage();
		file_size = size;
		assert_int_equal(try_once(), -ENOEXEC);
	}
	make_bzimage();
	header()->xloadflags = 0; /* 32-bit only */
	assert_int_equal(try_once(), -ENOEXEC);
	make_bzimage();
	header()->version = 0x020b;
	assert_int_equal(try_once(), -ENOEXEC);
	make_bzimage();
	header()->loadflags = 0;
	assert_int_equal(try_once(), -ENOEXEC);
	make_bzimage();
	header()->kernel_alignment = 3;
	assert_int_equal(try_once(), -ENOEXEC);
	make_bzimage();
	header()->init_size = 0xffffffff;
	assert_int_equal(try_once(), -E2BIG);
	make_bzimage();
	header()->syssize = 0xffffffff;
	assert_int_equal(try_once(), -ENOEXEC);
	make_bzimage();
	header()->pref_address = ~0ull - 5;
	assert_int_equal(try_once(), -E2BIG);
	make_bzimage();
	header()->initrd_addr_max = 10;
	assert_int_equal(try_once(), 0);
}

static void elf_enters_by_pvh_or_64_bit(void **state)
{
	struct vcpu_entry entry;
	struct memory memory;

	(void)state;
	make_elf(true);
	write_file();
	assert_int_equal(try_boot(&memory, MIB(128), NULL, "x=y", &entry), 0);
	assert_false(entry.long_mode);
	assert_int_equal(entry.rip, 0x1000020);
	assert_int_equal(le32_load(memory_at(&memory, entry.rbx, 4)), 0x336ec578);
	assert_string_equal(memory_at(&memory, le64_load(memory_at(&memory, entry.rbx + 24, 8)), 8),
			    "x=y");
	memory_destroy(&memory);

	make_elf(false);
	write_file();
	assert_int_equal(try_boot(&memory, MIB(128), NULL, "", &entry), 0);
	assert_true(entry.long_mode);
	assert_int_equal(entry.rip, 0x1000010);
	memory_destroy(&memory);

	make_elf(false); /* a virtual entry is brought down to the segment's physical place */
	((Elf64_Ehdr *)file)->e_entry = 0xffffffff81000040;
	write_file();
	assert_int_equal(try_boot(&memory, MIB(128), NULL, "", &entry), 0);
	assert_int_equal(entry.rip, 0x1000040);
	memory_destroy(&memory);
}

static void broken_elfs_are_refused(void **state)
{
	Elf64_Ehdr *e = (Elf64_Ehdr *)file;
	Elf64_Phdr *p = (Elf64_Phdr *)(file + sizeof(*e));

	(void)state;
	for (u32 size = 0; size < 0x2000; size += 61) {
		make_elf(true);
		file_size = size;
		assert_int_equal(try_once(), -ENOEXEC);
	}
	make_elf(true);
	e->e_machine = EM_AARCH64;
	assert_int_equal(try_once(), -ENOEXEC);
	make_elf(true);
	e->e_phnum = 65535;
	assert_int_equal(try_once(), -ENOEXEC);
	make_elf(true);
	e->e_phoff = ~0ull - 8;
	assert_int_equal(try_once(), -ENOEXEC);
	make_elf(true);
	p[0].p_memsz = ~0ull;
	assert_int_equal(try_once(), -ENOEXEC);
	make_elf(true);
	p[0].p_filesz = p[0].p_memsz + 1;
	assert_int_equal(try_once(), -ENOEXEC);
	make_elf(true);
	p[0].p_paddr = GIB(3);
	assert_int_equal(try_once(), -ENOEXEC); /* the entry is not in it */
	make_elf(false);
	e->e_entry = 0x510;
	p[0].p_paddr = 0x500; /* over our own tables */
	assert_int_equal(try_once(), -E2BIG);
	make_elf(false);
	e->e_entry = 0x55;
	assert_int_equal(try_once(), -ENOEXEC);
	make_elf(true); /* a note that runs past its end is no note: 64-bit entry */
	le32_store(file + 0x800, 0xfffffffc);
	assert_int_equal(try_once(), 0);
	make_elf(true);
	le32_store(file + 0x810, 0x5);
	assert_int_equal(try_once(), -ENOEXEC);
}

static void strangers_are_named(void **state)
{
	static const char *const starts[] = { "\xff\xd8\xff\xe0", "\x89PNG", "\x1f\x8b\x08",
					      "PK\x03\x04",	  "MZ",	     "hello, world\n" };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(starts); i++) {
		memset(file, 0, sizeof(file));
		memcpy(file, starts[i], strlen(starts[i]));
		file_size = 4096;
		assert_int_equal(try_once(), -ENOEXEC);
	}
	snprintf(path, sizeof(path), "/proc/self/nothing");
	{
		struct vcpu_entry entry;
		struct memory memory;

		assert_int_equal(try_boot(&memory, MIB(128), NULL, "", &entry), -ENOENT);
		memory_destroy(&memory);
		snprintf(path, sizeof(path), "/tmp");
		assert_int_equal(try_boot(&memory, MIB(128), NULL, "", &entry), -EISDIR);
		memory_destroy(&memory);
	}
}

static void a_kernel_that_shrinks_between_boots_is_an_error(void **state)
{
	struct boot_config config = { .kernel = path,
				      .cmdline = "",
				      .cpus = 1,
				      .sockets = 1,
				      .cores = 1,
				      .threads = 1,
				      .window64_start = GIB(4),
				      .window64_size = GIB(1) };
	struct vcpu_entry entry;
	struct memory memory;
	struct boot *boot;

	(void)state;
	make_bzimage();
	write_file();
	assert_int_equal(memory_create(&memory, NULL, MIB(128), MEMORY_PAGES_DEFAULT), 0);
	assert_int_equal(boot_open(&boot, &config), 0);
	assert_int_equal(boot_load(boot, &memory, &entry), 0);
	assert_int_equal(ftruncate(file_fd, 700), 0);
	assert_int_equal(boot_load(boot, &memory, &entry), -ENOEXEC);
	assert_int_equal(ftruncate(file_fd, 0), 0);
	assert_int_equal(boot_load(boot, &memory, &entry), -ENOEXEC);
	boot_close(boot);
	memory_destroy(&memory);
}

static void long_command_lines_and_large_initrds_are_refused(void **state)
{
	static char line[3000];
	struct vcpu_entry entry;
	struct memory memory;

	(void)state;
	make_bzimage();
	write_file();
	memset(line, 'x', 2047);
	assert_int_equal(try_boot(&memory, MIB(128), NULL, line, &entry), 0);
	memory_destroy(&memory);
	line[2047] = 'x';
	assert_int_equal(try_boot(&memory, MIB(128), NULL, line, &entry), -E2BIG);
	memory_destroy(&memory);
	header()->initrd_addr_max = (u32)PREFERRED; /* ends where the kernel begins */
	write_file();
	assert_int_equal(try_boot(&memory, MIB(128), "/proc/self/exe", "", &entry), -E2BIG);
	memory_destroy(&memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bzimage_enters_by_the_64_bit_protocol),
		cmocka_unit_test(bzimage_runs_from_its_preferred_address_on),
		cmocka_unit_test(broken_bzimages_are_refused),
		cmocka_unit_test(elf_enters_by_pvh_or_64_bit),
		cmocka_unit_test(broken_elfs_are_refused),
		cmocka_unit_test(strangers_are_named),
		cmocka_unit_test(a_kernel_that_shrinks_between_boots_is_an_error),
		cmocka_unit_test(long_command_lines_and_large_initrds_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
