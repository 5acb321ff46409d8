/*
 * Packs the initramfs.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "firmware/decompress.h"
#include "run/initramfs.h"
#include "run/protocol.h"
#include "vm/log.h"

/* made from run/init/ */
__asm__(".section .rodata\n"
	"run_init: .incbin \"build/run-init.xz\"\n"
	"run_init_end:\n"
	".previous\n");
extern const u8 run_init[], run_init_end[];

static u8 *grow(struct bytes *b, u64 more)
{
	u64 room = b->room;
	u8 *start;

	if (b->failed)
		return NULL;
	while (room - b->size < more)
		room = room ? 2 * room : KIB(4);
	if (room != b->room) {
		start = realloc(b->start, room);
		if (!start) {
			b->failed = true;
			return NULL;
		}
		b->start = start;
		b->room = room;
	}
	b->size += more;
	return b->start + b->size - more;
}

static void append(struct bytes *b, const void *data, u64 size)
{
	u8 *to = size ? grow(b, size) : NULL;

	if (to)
		memcpy(to, data, size);
}

void run_conf_add(struct bytes *conf, const char *key, const char *value)
{
	append(conf, key, strlen(key));
	append(conf, "=", 1);
	append(conf, value, strlen(value) + 1);
}

void run_conf_add_number(struct bytes *conf, const char *key, u64 value)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	run_conf_add(conf, key, text);
}

/* Fills up to a multiple of four, as header with name and data are. */
static void align(struct bytes *archive)
{
	append(archive, "\0\0", -archive->size & 3);
}

/* The format's header has 13 fields of eight hexadecimal digits. Links, times and the archive's own
 * device mean nothing to the kernel here. */
static void entry(struct bytes *archive, const char *name, u32 mode, u32 major, u32 minor,
		  const void *data, u64 size)
{
	const u32 fields[13] = { [1] = mode,  [4] = 1,	    [6] = (u32)size,
				 [9] = major, [10] = minor, [11] = (u32)strlen(name) + 1 };
	char digits[9];

	append(archive, "070701", 6);
	for (u32 i = 0; i < ARRAY_SIZE(fields); i++) {
		snprintf(digits, sizeof(digits), "%08x", fields[i]);
		append(archive, digits, 8);
	}
	append(archive, name, strlen(name) + 1);
	align(archive);
	append(archive, data, size);
	align(archive);
}

void cpio_add(struct bytes *archive, const char *name, u32 mode, const void *data, u64 size)
{
	entry(archive, name, mode, 0, 0, data, size);
}

void cpio_add_node(struct bytes *archive, const char *name, u32 mode, u32 major, u32 minor)
{
	entry(archive, name, mode, major, minor, NULL, 0);
}

void cpio_end(struct bytes *archive)
{
	entry(archive, "TRAILER!!!", 0, 0, 0, NULL, 0);
}

static int add_base(struct bytes *archive)
{
	static const char *const folders[] = { "dev", "proc", "sys", "modules" };
	u64 size;
	u8 *init;
	int ret = decompress_file("the guest's init", run_init, (u64)(run_init_end - run_init),
				  MIB(1), &init, &size);

	if (ret)
		return ret;

	for (u32 i = 0; i < ARRAY_SIZE(folders); i++)
		cpio_add(archive, folders[i], S_IFDIR | 0755, NULL, 0);
	/* The kernel opens it for init before anything is mounted (Documentation, devices.txt). */
	cpio_add_node(archive, "dev/console", S_IFCHR | 0600, 5, 1);
	cpio_add(archive, "init", S_IFREG | 0755, init, size);
	free(init);
	return 0;
}

/* The modules' files, and their strings to conf. */
static int add_modules(struct bytes *archive, struct bytes *conf, const struct modules *modules)
{
	char name[300];
	u64 size;
	u8 *data;
	int ret;

	for (u32 i = 0; i < modules_count(modules); i++) {
		ret = modules_read(modules, i, &data, &size);
		if (ret)
			return ret;
		snprintf(name, sizeof(name), "/modules/%s", modules_name(modules, i));
		run_conf_add(conf, "module", name);
		cpio_add(archive, name + 1, S_IFREG | 0600, data, size);
		free(data);
	}
	return 0;
}

/* In a file without a name. */
static int keep(const struct bytes *archive)
{
	int fd = memfd_create("initramfs", MFD_CLOEXEC | MFD_ALLOW_SEALING), ret;
	u64 done = 0;
	ssize_t n;

	while (fd >= 0 && done < archive->size) {
		n = write(fd, archive->start + done, archive->size - done);
		if (n < 0)
			break;
		done += (u64)n;
	}
	if (fd >= 0 && done == archive->size &&
	    !fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL))
		return fd;
	ret = -errno;
	log_line("the initramfs (%llu KiB) cannot be kept in memory: %s; free some",
		 (unsigned long long)archive->size >> 10, strerror(-ret));
	if (fd >= 0)
		close(fd);
	return ret;
}

int initramfs_make(const struct modules *modules, const struct bytes *conf)
{
	struct bytes archive = { 0 }, whole = { 0 };
	int ret = add_base(&archive);

	if (!ret && modules)
		ret = add_modules(&archive, &whole, modules);
	append(&whole, conf->start, conf->size);
	cpio_add(&archive, RUN_CONF, S_IFREG | 0600, whole.start, whole.size);
	cpio_end(&archive);
	if (!ret && (archive.failed || whole.failed || conf->failed)) {
		log_line("the initramfs: out of memory; free some");
		ret = -ENOMEM;
	}
	if (!ret)
		ret = keep(&archive);
	free(archive.start);
	free(whole.start);
	return ret;
}
