/*
 * A raw image or block device as a disk: what it is, what it can do, its lock. Ignorant of virtio;
 * I/O itself is done with the reactor's operations on disk->file.
 */
#ifndef BACKENDS_DISK_H
#define BACKENDS_DISK_H

#include "vm/reactor.h"

#define DISK_SECTOR 512u

struct disk_overlay; /* disk-overlay.h */

struct disk_config {
	const char *path;
	bool readonly;
	bool direct;   /* O_DIRECT */
	bool iopoll;   /* with direct: look for completions, where the device can be polled */
	bool snapshot; /* writes go to an overlay that is gone with the disk; excludes readonly */
};

struct disk {
	int fd;
	reactor_file file; /* set by disk_register() */
	char *path;
	bool readonly, direct, block_device;
	bool iopoll;	     /* wanted, and nothing known against it */
	u64 size;	     /* bytes, as the file is */
	_Atomic u64 sectors; /* of 512, a multiple of logical_block; an odd tail is not offered (and
			said once) */
	u32 logical_block;   /* bytes: 512 or more; a block device's own, or what O_DIRECT on a file
				demands */
	u32 physical_block;  /* bytes, at least logical_block */
	u32 minimum_io, optimal_io; /* bytes, 0: unknown */
	u32 alignment; /* O_DIRECT: what file offset and length must be multiples of; else 1 */
	u32 memory_alignment; /* O_DIRECT: what buffers must be aligned to; else 1 */
	bool can_discard; /* fallocate PUNCH_HOLE works (tried on a file beyond its end, where there
			     is no data; read from sysfs for a device) */
	bool can_zero;	  /* fallocate ZERO_RANGE works (by the file system's kind) */
	u32 discard_granularity;      /* bytes */
	struct disk_overlay *overlay; /* snapshot: where writes go; else NULL */
	char identity[21];	      /* default serial: stable for the same file */
};

/*
 * Opens, recognises foreign formats (disk-format.c: refused with the line that converts them),
 * locks (disk-lock.c), probes. Logs one line and returns -errno. Main thread.
 */
int disk_open(struct disk *disk, const struct disk_config *config);
/* Registers its file with the reactors. 0 or -errno. Main thread. */
int disk_register(struct disk *disk, struct reactors *reactors);
/*
 * The same for an image that another process opened, locked and examined. fds: its open file, and
 * with snapshot the overlay's; learned: what was found by means that the sandbox has not (block
 * sizes, alignments, what ranges can do, identity). What can be checked here is checked as at
 * start. The descriptors are the disk's from then on, and the caller's still after an error. Logs
 * one line and returns -errno. Main thread; allowed in the sandbox with a control socket.
 */
int disk_adopt(struct disk *disk, const struct disk_config *config, const int *fds, u32 count,
	       const struct disk *learned);
/* Has what is written go to an overlay: in a file of its own (fd -1), or in that one. Logs, -errno.
 * Main thread. */
int disk_set_up_overlay(struct disk *disk, int fd);
/* Makes the image `size` bytes and the disk with it; 0: as large as the file or device is now.
 * Smaller only if `shrink`. In flight may be what it will: sectors changes in one piece. Logs one
 * line and returns -errno. Main thread; allowed in the sandbox with a control socket. */
int disk_resize(struct disk *disk, u64 size, bool shrink);
/* Takes the file out of reactors that run; nothing is in flight. Main thread. */
void disk_unregister(struct disk *disk, struct reactors *reactors);
/* The reactors must be gone, or have the number removed. Harmless after a failed open. */
void disk_close(struct disk *disk);

#endif
