/*
 * Puts kernel, initrd, command line and tables into guest RAM and says how vCPU 0 enters: the
 * 64-bit boot protocol (Linux Documentation/x86/boot.rst and zero-page.rst) or PVH (x86/HVM direct
 * boot ABI). Runs on the main thread while the guest does not.
 */
#include <asm/bootparam.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "firmware/acpi.h"
#include "firmware/boot.h"
#include "firmware/kernel-cache.h"
#include "firmware/loader.h"
#include "firmware/smbios.h"
#include "vm/log.h"

#define E820_RAM      1
#define E820_RESERVED 2
#define MAX_RANGES    12
#define PAGE	      4096ull

#define GDT_ENTRIES 5
#define PTE_TABLE   0x03ull /* present, writable */
#define PTE_LARGE   0x83ull

#define PVH_MAGIC 0x336ec578

struct boot {
	struct boot_config config;
	char *kernel_path, *initrd_path, *cmdline;
	struct kernel_file kernel;
	int initrd;   /* -1: none */
	bool checked; /* the kernel, just now: the first load need not look again */
	enum kernel_format format;
	bool unpacked; /* the kernel is a file of our own, which does not change */
	u64 initrd_size;
};

struct range {
	u64 start, size;
	u32 type;
};

/* As in the ABI's hvm_start_info, version 1. */
struct start_info {
	u32 magic, version, flags, module_count;
	u64 modules, cmdline, rsdp, memory_map;
	u32 memory_map_count, reserved;
};

struct start_info_module {
	u64 address, size, cmdline, reserved;
};

struct start_info_range {
	u64 address, size;
	u32 type, reserved;
};

static int open_file(const char *path, const char *what, const char *option, u64 *size)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), err;

	if (fd < 0) {
		err = errno;
		log_line("%s: cannot open the %s: %s; check %s", path, what, strerror(err), option);
		return -err;
	}
	err = fstat(fd, &st)	     ? errno
	      : S_ISDIR(st.st_mode)  ? EISDIR
	      : !S_ISREG(st.st_mode) ? EINVAL
				     : 0;
	if (err) {
		log_line("%s: the %s must be a regular file%s; check %s", path, what,
			 err == EISDIR ? ", and this is a folder" : "", option);
		close(fd);
		return -err;
	}
	*size = (u64)st.st_size;
	return fd;
}

static int load_kernel(struct boot *boot, struct memory *memory, struct kernel_image *image)
{
	memset(image, 0, sizeof(*image));
	image->format = boot->format;
	return boot->format == KERNEL_BZIMAGE ? bzimage_load(&boot->kernel, memory, image)
					      : elf_load(&boot->kernel, memory, image);
}

/* The ELF kernel inside takes the bzImage's place, for restarts too. */
static int open_inside(struct boot *boot, struct kernel_image *image)
{
	u64 size;
	int fd;

	log_line("--kernel-decompress: the kernel's own unpacking is skipped, and with it KASLR");
	if (!image->payload_length) {
		log_line("%s: --kernel-decompress: the kernel does not tell where it is packed; "
			 "start without",
			 boot->kernel_path);
		return -ENOEXEC;
	}
	fd = kernel_unpack(boot->kernel.fd, boot->kernel_path, image->payload,
			   image->payload_length, &size);
	if (fd < 0)
		return fd;
	close(boot->kernel.fd);
	boot->kernel.fd = fd;
	boot->kernel.size = size;
	boot->unpacked = true;
	fd = kernel_recognise(&boot->kernel, &boot->format);
	return fd ? fd : load_kernel(boot, NULL, image);
}

int boot_open(struct boot **result, const struct boot_config *config)
{
	struct boot *boot = calloc(1, sizeof(*boot));
	struct kernel_image image;
	int ret = -ENOMEM;

	if (!boot)
		return ret;
	boot->config = *config;
	boot->kernel.fd = boot->initrd = -1;
	boot->kernel.path = boot->kernel_path = strdup(config->kernel);
	boot->cmdline = strdup(config->cmdline ? config->cmdline : "");
	boot->initrd_path = config->initrd ? strdup(config->initrd) : NULL;
	if (!boot->kernel_path || !boot->cmdline || (config->initrd && !boot->initrd_path))
		goto fail;
	ret = boot->kernel.fd = open_file(config->kernel, "kernel", "--kernel", &boot->kernel.size);
	if (ret < 0)
		goto fail;
	ret = kernel_recognise(&boot->kernel, &boot->format);
	if (!ret)
		ret = load_kernel(boot, NULL, &image);
	if (!ret && config->decompress && boot->format == KERNEL_BZIMAGE)
		ret = open_inside(boot, &image);
	if (ret)
		goto fail;
	if (strlen(boot->cmdline) > image.cmdline_max ||
	    strlen(boot->cmdline) >= BOOT_CMDLINE_MAX) {
		log_line("--cmdline: %zu bytes, but this kernel takes %llu; shorten it",
			 strlen(boot->cmdline), (unsigned long long)image.cmdline_max);
		ret = -E2BIG;
		goto fail;
	}
	if (config->initrd) {
		ret = boot->initrd =
			open_file(config->initrd, "initrd", "--initrd", &boot->initrd_size);
		if (ret < 0)
			goto fail;
		if (!boot->initrd_size) {
			log_line("%s: the initrd is empty; check --initrd", config->initrd);
			ret = -EINVAL;
			goto fail;
		}
	}
	boot->checked = true;
	*result = boot;
	return 0;
fail:
	boot_close(boot);
	return ret;
}

/* The initrd goes as high as kernel and RAM allow. 0 bytes if there is none. */
static int load_initrd(struct boot *boot, struct memory *memory, const struct kernel_image *image,
		       u64 *address)
{
	u64 top = memory->low_size, size = boot->initrd_size;
	int ret;

	*address = 0;
	if (boot->initrd < 0)
		return 0;
	if (top > image->initrd_max)
		top = image->initrd_max + 1;
	if (size > top || ALIGN_DOWN(top - size, PAGE) < image->end) {
		log_line("%s: the initrd (%llu MiB) does not fit into the guest's RAM beside the "
			 "kernel; raise --mem",
			 boot->initrd_path, (unsigned long long)(size >> 20));
		return -E2BIG;
	}
	*address = ALIGN_DOWN(top - size, PAGE);
	ret = file_read(boot->initrd, memory_at(memory, *address, size), size, 0);
	if (ret)
		log_line("%s: cannot read the initrd: %s; check the file", boot->initrd_path,
			 strerror(-ret));
	return ret;
}

static u32 memory_ranges(const struct memory *memory, struct range *r)
{
	u32 n = 0;

	r[n++] = (struct range){ 0, BOOT_EBDA, E820_RAM };
	r[n++] = (struct range){ BOOT_EBDA, 0xa0000 - BOOT_EBDA, E820_RESERVED };
	r[n++] = (struct range){ BOOT_TABLES, MIB(1) - BOOT_TABLES, E820_RESERVED };
	r[n++] = (struct range){ MIB(1), memory->low_size - MIB(1), E820_RAM };
	r[n++] = (struct range){ LAYOUT_ECAM_START, LAYOUT_ECAM_SIZE, E820_RESERVED };
	r[n++] = (struct range){ LAYOUT_IDENTITY_MAP, 4 * PAGE, E820_RESERVED };
	if (memory->high_size)
		r[n++] = (struct range){ LAYOUT_RAM_HIGH, memory->high_size, E820_RAM };
	return n;
}

static void write_zero_page(const struct boot *boot, struct memory *memory,
			    const struct kernel_image *image, u64 initrd, u64 rsdp)
{
	struct boot_params *zero = memory_at(memory, BOOT_ZERO_PAGE, sizeof(*zero));
	struct range ranges[MAX_RANGES];
	u32 count = memory_ranges(memory, ranges), copied = image->setup_header_size;

	memset(zero, 0, sizeof(*zero));
	if (image->format == KERNEL_BZIMAGE) {
		if (copied > sizeof(zero->hdr))
			copied = sizeof(zero->hdr);
		memcpy(&zero->hdr, image->setup_header, copied);
	} else { /* what a kernel entered without its setup header expects there */
		zero->hdr.boot_flag = 0xaa55;
		zero->hdr.header = 0x53726448;
		zero->hdr.kernel_alignment = 0x1000000;
	}
	zero->hdr.type_of_loader = 0xff;
	zero->hdr.vid_mode = 0xffff;
	zero->hdr.cmd_line_ptr = (u32)BOOT_CMDLINE;
	zero->hdr.cmdline_size = (u32)strlen(boot->cmdline);
	zero->hdr.ramdisk_image = (u32)initrd;
	zero->hdr.ramdisk_size = (u32)boot->initrd_size;
	zero->ext_ramdisk_image = (u32)(initrd >> 32);
	zero->ext_ramdisk_size = (u32)(boot->initrd_size >> 32);
	zero->acpi_rsdp_addr = rsdp;
	zero->e820_entries = (u8)count;
	for (u32 i = 0; i < count; i++) {
		zero->e820_table[i].addr = ranges[i].start;
		zero->e820_table[i].size = ranges[i].size;
		zero->e820_table[i].type = ranges[i].type;
	}
}

static void write_start_info(const struct boot *boot, struct memory *memory, u64 initrd, u64 rsdp)
{
	struct {
		struct start_info info;
		struct start_info_module module;
		struct start_info_range ranges[MAX_RANGES];
	} *page = memory_at(memory, BOOT_START_INFO, sizeof(*page));
	struct range ranges[MAX_RANGES];
	u32 count = memory_ranges(memory, ranges);
	const u64 base = BOOT_START_INFO;

	memset(page, 0, sizeof(*page));
	page->info = (struct start_info){
		.magic = PVH_MAGIC,
		.version = 1,
		.module_count = boot->initrd >= 0,
		.modules = boot->initrd >= 0 ? base + sizeof(page->info) : 0,
		.cmdline = BOOT_CMDLINE,
		.rsdp = rsdp,
		.memory_map = base + sizeof(page->info) + sizeof(page->module),
		.memory_map_count = count,
	};
	page->module.address = initrd;
	page->module.size = boot->initrd_size;
	for (u32 i = 0; i < count; i++)
		page->ranges[i] = (struct start_info_range){ ranges[i].start, ranges[i].size,
							     ranges[i].type, 0 };
}

/* The first 4 GiB, one to one, in 2 MiB pages. */
static void write_page_tables(struct memory *memory)
{
	u64 *tables = memory_at(memory, BOOT_PAGE_TABLES, 6 * PAGE);

	memset(tables, 0, 2 * PAGE);
	tables[0] = htole64((BOOT_PAGE_TABLES + PAGE) | PTE_TABLE);
	for (u64 i = 0; i < 4; i++)
		tables[512 + i] = htole64((BOOT_PAGE_TABLES + (2 + i) * PAGE) | PTE_TABLE);
	for (u64 i = 0; i < 4 * 512; i++)
		tables[1024 + i] = htole64(i << 21 | PTE_LARGE);
}

static void write_gdt(struct memory *memory, bool long_mode)
{
	const u64 entries[GDT_ENTRIES] = {
		0,
		0,
		long_mode ? 0x00af9b000000ffff : 0x00cf9b000000ffff, /* code */
		0x00cf93000000ffff,				     /* data */
		0x00008b0000000067,				     /* TSS */
	};
	u8 *gdt = memory_at(memory, BOOT_GDT, sizeof(entries));

	for (u32 i = 0; i < GDT_ENTRIES; i++)
		le64_store(gdt + i * 8, entries[i]);
}

/*
 * A reset by real mode goes through ffff:0000, as on every PC: Linux takes this way on
 * hardware-reduced ACPI machines without EFI, past the reset register that the FADT names. So the
 * code there writes that register.
 */
static void write_reset_vector(struct memory *memory)
{
	static const u8 code[] = {
		0xba,
		LAYOUT_PORT_ACPI_RESET & 0xff,
		LAYOUT_PORT_ACPI_RESET >> 8, /* mov $port, %dx */
		0xb0,
		0x01, /* mov $1, %al */
		0xee, /* out %al, %dx */
		0xf4, /* hlt */
		0xeb,
		0xfd, /* jmp to the hlt */
	};

	memcpy(memory_at(memory, BOOT_RESET, sizeof(code)), code, sizeof(code));
}

static int write_tables(struct boot *boot, struct memory *memory, u64 *rsdp)
{
	const struct acpi_config acpi = { boot->config.cpus, boot->config.window64_start,
					  boot->config.window64_size,
					  boot->config.hotplug, boot->config.mmio_count };
	const struct smbios_config smbios = { boot->config.sockets, boot->config.cores,
					      boot->config.threads };
	u64 used;

	*rsdp = acpi_write(memory, &acpi, BOOT_TABLES, BOOT_SMBIOS - BOOT_TABLES, &used);
	if (!*rsdp || !smbios_write(memory, &smbios, BOOT_SMBIOS, BOOT_RESET - BOOT_SMBIOS)) {
		log_line("firmware tables: they do not fit below 1 MiB; use fewer CPUs or sockets");
		return -E2BIG;
	}
	return 0;
}

/* The files may have been replaced in place since the last load: sizes and headers are read anew.
 */
static int look_again(struct boot *boot)
{
	struct stat st;

	if (!boot->unpacked && !fstat(boot->kernel.fd, &st))
		boot->kernel.size = (u64)st.st_size;
	if (boot->initrd >= 0 && !fstat(boot->initrd, &st))
		boot->initrd_size = (u64)st.st_size;
	return kernel_recognise(&boot->kernel, &boot->format);
}

int boot_load(struct boot *boot, struct memory *memory, struct vcpu_entry *entry)
{
	struct kernel_image image;
	u64 initrd, rsdp;
	int ret;

	ret = boot->checked ? 0 : look_again(boot);
	boot->checked = false;
	if (!ret)
		ret = load_kernel(boot, memory, &image);
	if (!ret)
		ret = load_initrd(boot, memory, &image, &initrd);
	if (!ret)
		ret = write_tables(boot, memory, &rsdp);
	if (ret)
		return ret;
	memcpy(memory_at(memory, BOOT_CMDLINE, BOOT_CMDLINE_MAX), boot->cmdline,
	       strlen(boot->cmdline) + 1);
	write_gdt(memory, !image.pvh);
	write_reset_vector(memory);
	*entry = (struct vcpu_entry){
		.long_mode = !image.pvh,
		.rip = image.entry,
		.rsp = BOOT_STACK,
		.gdt = BOOT_GDT,
		.gdt_limit = GDT_ENTRIES * 8 - 1,
	};
	if (image.pvh) {
		write_start_info(boot, memory, initrd, rsdp);
		entry->rbx = BOOT_START_INFO;
	} else {
		write_page_tables(memory);
		write_zero_page(boot, memory, &image, initrd, rsdp);
		entry->rsi = BOOT_ZERO_PAGE;
		entry->cr3 = BOOT_PAGE_TABLES;
	}
	return 0;
}

void boot_close(struct boot *boot)
{
	if (!boot)
		return;
	if (boot->kernel.fd >= 0)
		close(boot->kernel.fd);
	if (boot->initrd >= 0)
		close(boot->initrd);
	free(boot->kernel_path);
	free(boot->initrd_path);
	free(boot->cmdline);
	free(boot);
}
