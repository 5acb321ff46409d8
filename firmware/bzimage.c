/*
 * bzImage by the 64-bit boot protocol (Linux Documentation/x86/boot.rst, "64-bit Boot Protocol").
 * Runs on the main thread while the guest does not.
 */
#include <asm/bootparam.h>
#include <errno.h>
#include "firmware/loader.h"
#include "vm/log.h"

#define HEADER_OFFSET	 0x1f1
#define PROTOCOL_MINIMUM 0x020c /* 2.12: xloadflags */
#define ENTRY_64	 0x200
#define SECTOR		 512
#define CMDLINE_MINIMUM	 255

/* A line for a file whose header cannot be right. */
static int absurd(const char *path, const char *what)
{
	log_line("%s: damaged kernel image: %s; fetch or build it again", path, what);
	return -ENOEXEC;
}

/* Reads the setup header and checks all of it that we rely on. */
static int read_header(const struct kernel_file *file, struct kernel_image *image,
		       struct setup_header *h, u64 *payload)
{
	const char *path = file->path;
	u64 file_size = file->size;
	u8 jump[2];
	int ret;

	memset(h, 0, sizeof(*h));
	if (kernel_read(file, jump, sizeof(jump), 0x200))
		return absurd(path, "it ends inside the boot header");
	/* The header's length is told by the jump over it (boot.rst, "0x0202 + byte at 0x0201"). */
	image->setup_header_size = 0x202u + jump[1] - HEADER_OFFSET;
	if (image->setup_header_size > sizeof(image->setup_header))
		image->setup_header_size = sizeof(image->setup_header);
	ret = kernel_read(file, image->setup_header, image->setup_header_size, HEADER_OFFSET);
	if (ret)
		return absurd(path, "it ends inside the boot header");
	memcpy(h, image->setup_header,
	       image->setup_header_size < sizeof(*h) ? image->setup_header_size : sizeof(*h));
	if (h->version < PROTOCOL_MINIMUM) {
		log_line("%s: boot protocol %u.%u is too old; a kernel of 3.8 or later (protocol "
			 "2.12) is needed",
			 path, h->version >> 8, h->version & 0xff);
		return -ENOEXEC;
	}
	if (!(h->xloadflags & XLF_KERNEL_64)) {
		log_line(
			"%s: a 32-bit kernel: it has no 64-bit entry; build it with CONFIG_64BIT=y",
			path);
		return -ENOEXEC;
	}
	if (!(h->loadflags & LOADED_HIGH))
		return absurd(path, "a zImage that loads low");
	*payload = (u64)((h->setup_sects ? h->setup_sects : 4) + 1) * SECTOR;
	if (*payload >= file_size)
		return absurd(path, "it ends before the kernel proper");
	/* syssize counts 16-byte paragraphs; the build rounds it up and the file is padded for it.
	 */
	if ((u64)h->syssize * 16 > ALIGN_UP(file_size - *payload, 16)) {
		log_line("%s: truncated kernel image: %llu bytes where its header promises %llu; "
			 "fetch or build it again",
			 path, (unsigned long long)file_size,
			 (unsigned long long)(*payload + (u64)h->syssize * 16));
		return -ENOEXEC;
	}
	if (!h->init_size)
		return absurd(path, "it says it needs no memory");
	if (!h->kernel_alignment || h->kernel_alignment & (h->kernel_alignment - 1))
		return absurd(path, "its alignment is not a power of two");
	return 0;
}

/* Where the kernel goes: its preferred address. Lower is no help where RAM is small: a relocatable
 * kernel moves itself up to there (boot.rst, "kernel runtime start"), and would run out of RAM
 * without a word. 0 if RAM is too small. */
static u64 choose_address(const struct setup_header *h, const struct memory *memory, u64 needed)
{
	u64 at = h->pref_address;

	if (h->relocatable_kernel)
		at = ALIGN_UP(at > BOOT_KERNEL ? at : BOOT_KERNEL, (u64)h->kernel_alignment);
	return at >= BOOT_KERNEL && memory_at(memory, at, needed) ? at : 0;
}

int bzimage_load(const struct kernel_file *file, struct memory *memory, struct kernel_image *image)
{
	const char *path = file->path;
	struct setup_header h;
	u64 payload, size, needed, address;
	int ret = read_header(file, image, &h, &payload);

	if (ret)
		return ret;
	size = file->size - payload;
	needed = size > h.init_size ? size : h.init_size;
	image->cmdline_max = h.cmdline_size ? h.cmdline_size : CMDLINE_MINIMUM;
	/* boot.rst, payload_offset: from the start of the protected-mode code */
	image->payload = payload + h.payload_offset;
	image->payload_length = h.payload_length;
	image->initrd_max = h.initrd_addr_max ? h.initrd_addr_max : 0x37ffffff;
	if (!memory)
		return 0;
	address = choose_address(&h, memory, needed);
	if (!address) {
		log_line("%s: the kernel needs %llu MiB at %llu MiB, more than the guest's RAM; "
			 "raise --mem",
			 path, (unsigned long long)(needed >> 20),
			 (unsigned long long)(h.pref_address >> 20));
		return -E2BIG;
	}
	ret = file_read(file->fd, memory_at(memory, address, size), size, payload);
	if (ret) {
		log_line("%s: cannot read the kernel: %s; check the file", path, strerror(-ret));
		return ret;
	}
	image->start = address;
	image->end = address + needed;
	image->entry = address + ENTRY_64;
	return 0;
}
