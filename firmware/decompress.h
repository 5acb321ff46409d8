/*
 * A bzImage's payload, unpacked here instead of in the guest, and other packed files: gzip, xz, zstd
 * and lz4 by their libraries, which are loaded when one needs them. Main thread, before the sandbox.
 */
#ifndef FIRMWARE_DECOMPRESS_H
#define FIRMWARE_DECOMPRESS_H

#include "vm/types.h"

/* More is no kernel. */
#define DECOMPRESS_MAX MIB(512)

/* How large the payload says it becomes: its last four bytes, as Linux Documentation/x86/boot.rst
 * has it of payload_length. -ENOEXEC after a line if that cannot be; path is for the line. */
int decompress_size(const char *path, const u8 *payload, u64 size, u64 *unpacked);

/* Unpacks into exactly `unpacked` bytes at `to`. Whatever the payload holds, nothing else is
 * written. A format that is unknown, a library that is not installed, a payload that is broken or
 * becomes larger or smaller than it says: one line, and -errno (-ENOTSUP, -ENOENT, -ENOEXEC,
 * -ENOMEM). */
int decompress(const char *path, const u8 *payload, u64 size, u8 *to, u64 unpacked);

/* Is this file one that decompress_file() unpacks? By its first bytes. */
bool decompress_known(const u8 *file, u64 size);
/* Unpacks a whole file, say a module, that becomes at most `most` bytes: *to is for free(). Errors as
 * decompress() has them. */
int decompress_file(const char *path, const u8 *file, u64 size, u64 most, u8 **to, u64 *unpacked);

#endif
