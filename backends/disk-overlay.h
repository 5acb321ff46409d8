/*
 * What is written to a disk that keeps nothing (snapshot=on): a file without a name, as large as
 * the disk and as sparse as what was written, and a bit for each block that says whether the file
 * or the image has it.
 */
#ifndef BACKENDS_DISK_OVERLAY_H
#define BACKENDS_DISK_OVERLAY_H

#include "vm/reactor.h"

struct disk_overlay {
	int fd;
	reactor_file file; /* set by its owner */
	u32 block;	   /* bytes; a power of two */
	u64 blocks;
	_Atomic u64 *ours; /* a bit for each block: the overlay has it */
	size_t ours_bytes;
	bool can_punch;
};

/* For a disk of size bytes, a multiple of block. In $TMPDIR, or /var/tmp. Logs about path, 0 or
 * -errno. Main thread, before the sandbox closes. */
int disk_overlay_create(struct disk_overlay **overlay, const char *path, u64 size, u32 block);
/* The same over an empty file that another process opened so: fd is the overlay's from then on, and
 * the caller's still after an error. Main thread; allowed in the sandbox with a control socket. */
int disk_overlay_adopt(struct disk_overlay **overlay, const char *path, int fd, u64 size,
		       u32 block);
/* Such a file there, empty. folder: its place, for a line. -errno. Main thread, before the sandbox
 * closes. */
int disk_overlay_file(const char **folder);
void disk_overlay_destroy(struct disk_overlay *overlay);

/* How many of the length bytes at offset (whole blocks, inside the disk) lie in the same file as
 * the first, at least one block; *ours tells which. Any thread. */
u64 disk_overlay_run(const struct disk_overlay *overlay, u64 offset, u64 length, bool *ours);

/* The length bytes at offset (whole blocks) are in the overlay now. Any thread. */
void disk_overlay_mark(struct disk_overlay *overlay, u64 offset, u64 length);

#endif
