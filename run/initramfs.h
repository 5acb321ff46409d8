/*
 * The initramfs of `vmm run`, made in memory: our init, the modules it loads, and what it is to do.
 * A cpio archive in the "newc" format (Linux
 * Documentation/driver-api/early-userspace/buffer-format.rst). Main thread, before the sandbox.
 */
#ifndef RUN_INITRAMFS_H
#define RUN_INITRAMFS_H

#include "run/modules.h"

/* Bytes that grow. `failed`: there was no memory for some of them; the rest is of no use then. */
struct bytes {
	u8 *start;
	u64 size, room;
	bool failed;
};

/* RUN_CONF, string by string: run/protocol.h has the keys. Begins as all zero. */
void run_conf_add(struct bytes *conf, const char *key, const char *value);
void run_conf_add_number(struct bytes *conf, const char *key, u64 value);

/*
 * Packs it all: an open memfd, sealed, that /proc/self/fd/N names for whom it takes a path; -errno
 * after a line. Modules are loaded before what conf says (`module=` is added); NULL: none. conf
 * stays the caller's, who frees conf->start.
 */
int initramfs_make(const struct modules *modules, const struct bytes *conf);

/* The archive's parts, for initramfs_make() and its test. Names without a leading /; folders first.
 */
void cpio_add(struct bytes *archive, const char *name, u32 mode, const void *data, u64 size);
void cpio_add_node(struct bytes *archive, const char *name, u32 mode, u32 major, u32 minor);
void cpio_end(struct bytes *archive);

/* The type of the file system on a disk image, by its superblock, as mount(8) names it; NULL:
 * another. The file stays where it was read. */
const char *image_type(int fd);

#endif
