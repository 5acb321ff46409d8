/*
 * A raw image or block device as a disk: what it is, what it can do, its lock. Ignorant of virtio; I/O itself is done with the
 * reactor's operations on disk->file.
 */
#ifndef BACKENDS_DISK_H
#define BACKENDS_DISK_H

#include "vm/reactor.h"

struct disk_config {
	const char *path;
	bool readonly;
	bool direct; /* O_DIRECT */
};

struct disk {
	int fd;
	reactor_file file; /* set by disk_register() */
	char *path;
	bool readonly, direct, block_device;
	u64 size;	     /* bytes, as the file is */
	u64 sectors;	     /* of 512, rounded down; an odd tail is not offered (and said once) */
	u32 logical_block;   /* bytes: 512 or more; a block device's own */
	u32 physical_block;  /* bytes */
	u32 minimum_io, optimal_io; /* bytes, 0: unknown */
	u32 alignment;	     /* O_DIRECT: what file offset and length must be multiples of; else 1 */
	u32 memory_alignment; /* O_DIRECT: what buffers must be aligned to; else 1 */
	bool can_discard;    /* fallocate PUNCH_HOLE works (tried, for a file: by asking for it beyond its end or on fs type knowledge, never harming data) */
	bool can_zero;	     /* fallocate ZERO_RANGE works */
	u32 discard_granularity; /* bytes */
	char identity[21];   /* default serial: stable for the same file */
};

/*
 * Opens, recognises foreign formats (qcow2, vmdk, vhd/vhdx, vdi, gzip, xz, zstd: refused with the qemu-img line or decompressor that converts it), locks
 * (OFD locks on the bytes QEMU uses: shared readers, one writer; the message names the holder where /proc shows it), probes. Logs one line and returns -errno. Main thread.
 */
int disk_open(struct disk *disk, const struct disk_config *config);
/* Registers its file with the reactors. 0 or -errno. Main thread, before reactors_start(). */
int disk_register(struct disk *disk, struct reactors *reactors);
void disk_close(struct disk *disk);

#endif
