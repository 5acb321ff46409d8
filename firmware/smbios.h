/* SMBIOS 3 tables (DMTF DSP0134 3.4): entry point and structures 0, 1, 3, 4, 16, 17, 19, 32 and
 * 127. */
#ifndef FIRMWARE_SMBIOS_H
#define FIRMWARE_SMBIOS_H

#include "vm/memory.h"

struct smbios_config {
	u32 sockets, cores, threads;
};

/* Writes the entry point at guest-physical address (16-byte aligned, where kernels search: 0xf0000
 * on) and the structures after it. Returns the bytes used, 0 if they do not fit into room. Main
 * thread. */
u64 smbios_write(struct memory *memory, const struct smbios_config *config, u64 address, u64 room);

#endif
