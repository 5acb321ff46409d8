/*
 * What kind of kernel a file holds, told by its first bytes, and in plain words when it holds none.
 * Runs on the main thread before the guest does.
 */
#include <errno.h>
#include <unistd.h>
#include "firmware/loader.h"
#include "vm/log.h"

#define SETUP_MAGIC_OFFSET 0x202
#define SETUP_MAGIC_END	   0x210

int file_read(int fd, void *to, u64 size, u64 offset)
{
	u8 *next = to;

	while (size) {
		ssize_t n = pread(fd, next, size, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return -ENODATA;
		next += n;
		offset += (u64)n;
		size -= (u64)n;
	}
	return 0;
}

/* Files that people hand over by mistake. */
static const struct {
	const char *magic;
	u32 size, offset;
	const char *what;
} strangers[] = {
	{ "\x1f\x8b", 2, 0, "a gzip file; unpack it with `zcat`" },
	{ "\xfd\x37zXZ", 5, 0, "an xz file; unpack it with `xzcat`" },
	{ "\x28\xb5\x2f\xfd", 4, 0, "a zstd file; unpack it with `zstdcat`" },
	{ "zimg", 4, 4,
	  "an EFI zboot image, which only firmware can start; give the bzImage or vmlinux" },
	{ "ARM\x64", 4, 56, "a kernel for arm64; this machine is x86-64" },
	{ "RISCV", 5, 48, "a kernel for RISC-V; this machine is x86-64" },
	{ "\xff\xd8\xff", 3, 0, "a JPEG picture" },
	{ "\x89PNG", 4, 0, "a PNG picture" },
	{ "PK\x03\x04", 4, 0, "a zip archive" },
	{ "!<arch>", 7, 0, "a Debian package or an archive; unpack it with `dpkg -x`" },
	{ "070701", 6, 0, "a cpio archive; give it as --initrd" },
	{ "QFI\xfb", 4, 0,
	  "a qcow2 disk image; give it to --disk after `qemu-img convert -O raw`" },
};

int kernel_read(const struct kernel_file *file, void *to, u64 size, u64 offset)
{
	if (offset > file->first_size || size > file->first_size - offset)
		return file_read(file->fd, to, size, offset);
	memcpy(to, file->first + offset, size);
	return 0;
}

int kernel_recognise(struct kernel_file *file, enum kernel_format *format)
{
	const char *path = file->path;
	u8 *first = file->first;
	ssize_t n;

	do {
		n = pread(file->fd, first, sizeof(file->first), 0);
	} while (n < 0 && errno == EINTR);
	file->first_size = n > 0 ? (u32)n : 0;
	if (n < 0) {
		n = -errno;
		log_line("%s: cannot read the kernel: %s; check the file", path, strerror(errno));
		return (int)n;
	}
	if (!n) {
		log_line("%s: the kernel file is empty; give a bzImage or vmlinux", path);
		return -ENOEXEC;
	}
	if (n >= SETUP_MAGIC_END && !memcmp(first + SETUP_MAGIC_OFFSET, "HdrS", 4)) {
		*format = KERNEL_BZIMAGE;
		return 0;
	}
	if (n >= 4 && !memcmp(first, "\177ELF", 4)) {
		*format = KERNEL_ELF;
		return 0;
	}
	for (u32 i = 0; i < ARRAY_SIZE(strangers); i++) {
		if (n < (ssize_t)(strangers[i].offset + strangers[i].size))
			continue;
		if (!memcmp(first + strangers[i].offset, strangers[i].magic, strangers[i].size)) {
			log_line("%s: not a kernel but %s", path, strangers[i].what);
			return -ENOEXEC;
		}
	}
	if (n >= 2 && !memcmp(first, "MZ", 2))
		log_line("%s: an EFI program without a Linux boot header: only firmware could "
			 "start it; "
			 "give a bzImage or vmlinux",
			 path);
	else
		log_line("%s: not a Linux kernel (no boot header, not ELF); give a bzImage or "
			 "vmlinux",
			 path);
	return -ENOEXEC;
}
