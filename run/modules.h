/*
 * The modules that a guest's kernel needs before it has a root: found on the host by the kernel's
 * version, in load order, unpacked. modules.dep(5), modules.softdep and modules.builtin of kmod.
 * Main thread, before the sandbox.
 */
#ifndef RUN_MODULES_H
#define RUN_MODULES_H

#include "vm/types.h"

struct modules;

#define KERNEL_VERSION_ROOM 128

/* The version (`uname -r`) that a kernel file tells of itself, bzImage or ELF, into version.
 * -ENODATA without a line when it tells none, -errno after a line when it cannot be read. */
int kernel_version(const char *kernel, char version[KERNEL_VERSION_ROOM]);

/*
 * Opens the index of the modules for a kernel. folder is what the user gave, with modules.dep in it
 * or in lib/modules/VERSION or VERSION below it; NULL: /lib/modules/VERSION. Without a folder of
 * that name all is taken for built in (modules_known() is false). A given folder without an index,
 * one that cannot be read, a kernel without a version: one line, -errno.
 */
int modules_open(struct modules **modules, const char *kernel, const char *folder);
bool modules_known(const struct modules *modules);
/* Of the kernel; "" if it tells none. */
const char *modules_version(const struct modules *modules);

/*
 * Adds a module and what it depends on, what it wants loaded before it too, behind what was added
 * before. 1: it will be loaded; 0: it is built in, or nothing is known; -ENOENT: this kernel has it
 * not: with `needed`, a word on what for, after one line that names the CONFIG. -ENOMEM after a
 * line.
 */
int modules_want(struct modules *modules, const char *name, const char *needed);

/* What is to be loaded, in order: the file's name without what it is packed by. */
u32 modules_count(const struct modules *modules);
const char *modules_name(const struct modules *modules, u32 index);
/* Its bytes, unpacked, for free(). Checks that it was built for the kernel. Logs, -errno. */
int modules_read(const struct modules *modules, u32 index, u8 **bytes, u64 *size);

void modules_close(struct modules *modules);

#endif
