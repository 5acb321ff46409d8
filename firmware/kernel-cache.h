/*
 * --kernel-decompress: the ELF kernel that a bzImage carries, unpacked once and kept.
 *
 * Kept kernels are files in $XDG_CACHE_HOME/vmm (or ~/.cache/vmm), named by the SHA-256 of the
 * bzImage; links beside them tell by a bzImage's inode and times which one it is, so that a start
 * need not read it. Together they take KERNEL_CACHE_LIMIT at most; the one that was used longest
 * ago goes first. Any number of VMs may use the cache at once, and anybody may delete it at any
 * time. Main thread, before the sandbox.
 */
#ifndef FIRMWARE_KERNEL_CACHE_H
#define FIRMWARE_KERNEL_CACHE_H

#include "vm/types.h"

#define KERNEL_CACHE_LIMIT MIB(512)

/*
 * Opens the kernel inside the bzImage behind fd, whose payload lies at [offset, offset + length) of
 * the file: a descriptor, with *size the ELF's, or -errno after a line. Where nothing can be kept
 * (no folder, no room, someone else's) that is one line, and memory holds the kernel instead. path
 * is for lines.
 */
int kernel_unpack(int fd, const char *path, u64 offset, u64 length, u64 *size);

#endif
