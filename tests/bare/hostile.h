/* Bare guest: what the hostile driver's two files share. */
#ifndef HOSTILE_H
#define HOSTILE_H

#include "bare.h"

#define VERSION_1 (1ull << VIRTIO_F_VERSION_1)
#define RAM_END	  0x8000000ull /* 128 MiB: tests/host/hostile asks for that */
/* Below lives the guest. Devices write here... */
#define ARENA	   0x4000000ull
#define ARENA_SIZE 0x2000000ull
/* ...and what they read as descriptors is the driver's own lies, never what a device has written:
 * that might be an address in the guest. */
#define TABLES	    0x6000000ull
#define TABLES_SIZE 0x400000ull
/* Legacy rings are in one piece, so each has a place for itself. */
#define LEGACY	    0x7000000ull
#define LEGACY_STEP 0x10000ull
#define LEGACY_SIZE 0x200000ull

#define COMMAND (PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER)

struct victim {
	struct function f;
	u32 registers[6]; /* its BARs as they were */
};

/* hostile.c: chance. number() prefers those at which things break. */
u64 next(void);
u32 below(u32 n);
bool one_in(u32 n);
u64 number(void);
/* BARs where they were, and decoding; left alone if they are, because moving takes KVM its time. */
void heal(const struct victim *v);

/* hostile-rings.c: a driver that begins in order and goes on out of it. */
void attack_rings(struct victim *v);
/* Every descriptor that nobody filled in names the arena. */
void prepare_tables(void);

#endif
