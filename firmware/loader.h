/*
 * Inside firmware/: what the kernel loaders share. A loader reads an open file anew at every load
 * and trusts nothing in it.
 */
#ifndef FIRMWARE_LOADER_H
#define FIRMWARE_LOADER_H

#include "vm/memory.h"

/* Fixed places below 1 MiB. */
#define BOOT_GDT	 0x500ull
#define BOOT_ZERO_PAGE	 0x7000ull
#define BOOT_PAGE_TABLES 0x9000ull /* PML4, PDPT, four page directories: the first 4 GiB */
#define BOOT_START_INFO	 0x10000ull
#define BOOT_CMDLINE	 0x20000ull
#define BOOT_CMDLINE_MAX 0x10000ull
#define BOOT_STACK	 0x8ff0ull
#define BOOT_EBDA	 0x9fc00ull
#define BOOT_TABLES	 0xe0000ull /* ACPI */
#define BOOT_SMBIOS	 0xf0000ull
#define BOOT_RESET	 0xffff0ull /* where real mode jumps to reset a machine */
#define BOOT_KERNEL	 MIB(1)

enum kernel_format { KERNEL_BZIMAGE, KERNEL_ELF };

/* Where a kernel went, and how it is entered. */
struct kernel_image {
	enum kernel_format format;
	bool pvh;	 /* ELF: 32-bit entry with a start info, else 64-bit with a zero page */
	u64 entry;	 /* guest-physical */
	u64 start, end;	 /* RAM that the kernel occupies or will before it knows the memory map */
	u64 initrd_max;	 /* highest address an initrd may use */
	u64 cmdline_max; /* longest command line, without its NUL */
	u8 setup_header[128]; /* bzImage: bytes of the file from 0x1f1 on */
	u32 setup_header_size;
	u64 payload, payload_length; /* bzImage: the compressed kernel in the file; 0: not told */
};

/* Reads exactly size bytes at offset into a buffer: 0, -errno, or -ENODATA when the file ends
 * first. */
int file_read(int fd, void *to, u64 size, u64 offset);

/* An open kernel, whose first bytes were read once: the headers are in there. */
#define KERNEL_FIRST_BYTES 4096
struct kernel_file {
	int fd;
	const char *path; /* for lines */
	u64 size;
	u32 first_size;
	u8 first[KERNEL_FIRST_BYTES];
};

/* Reads the first bytes and tells by them what it is; fd, path and size are set. A line that says
 * why not, and -ENOEXEC, if it cannot be booted. */
int kernel_recognise(struct kernel_file *file, enum kernel_format *format);

/* As file_read(); what was read before is not read again. */
int kernel_read(const struct kernel_file *file, void *to, u64 size, u64 offset);

/*
 * Checks the file's headers (memory NULL) or loads it: 0; -ENOEXEC or -E2BIG after a line that says
 * why; other -errno after a line.
 */
int bzimage_load(const struct kernel_file *file, struct memory *memory, struct kernel_image *image);
int elf_load(const struct kernel_file *file, struct memory *memory, struct kernel_image *image);

#endif
