/*
 * Recognises files that are not raw images: served as raw, they would show the guest a container's
 * headers and, once written to, be destroyed.
 */
#ifndef BACKENDS_DISK_FORMAT_H
#define BACKENDS_DISK_FORMAT_H

#include "vm/types.h"

/* What the file is ("a qcow2 image"), and the shell words that make a raw image of it: `command
 * FILE joint RAW`. */
struct disk_format {
	const char *name, *command, *joint;
};

/* What the file of `size` bytes holds: a foreign format, or NULL: raw as far as anyone can tell.
 * Reads its first and last bytes with pread(2). Main thread. */
const struct disk_format *disk_format_probe(int fd, u64 size);

/* The command line that converts path, names quoted for a shell where they need it. Main thread. */
void disk_format_advice(const struct disk_format *format, const char *path, char *line,
			size_t size);

#endif
