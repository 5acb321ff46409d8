/*
 * Bare guest: hot-plug slots, driven by their registers as the ACPI methods would. Says what comes
 * and drives it, lets go of what it is asked for, and reads each disk's capacity as it changes.
 */
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pci.h>
#include "bare.h"

#define SLOTS_ADDED    0x610
#define SLOTS_LEAVING  0x614
#define SLOTS_OCCUPIED 0x618

static struct disk {
	bool driven;
	struct function f;
	struct driver d;
	u64 sectors;
} disks[32];

static u8 *data;

static void come(u32 slot)
{
	struct disk *disk = &disks[slot];
	struct function *f = &disk->f;
	u32 n = 0;

	*disk = (struct disk){ 0 };
	while (find_function(f, VIRTIO_ID_BLOCK, n++)) {
		if (f->slot != slot)
			continue;
		if (!start_modern(&disk->d, f, 1ull << VIRTIO_F_VERSION_1, 1))
			break;
		disk->driven = true;
		data[0] = (u8)slot;
		say("slot %u came, write %u, read %u\n", (u64)slot,
		    (u64)block(&disk->d, VIRTIO_BLK_T_OUT, 1, data, 512, DOORBELL_IO),
		    (u64)block(&disk->d, VIRTIO_BLK_T_IN, 0, data, 512, DOORBELL_MEM));
		return;
	}
	say("slot %u has no disk, id %u\n", (u64)slot, (u64)config_read(slot, 0, 4));
}

/* A function has gone that was not ejected. */
static void find_lost(void)
{
	for (u32 slot = 1; slot < 32; slot++) {
		if (!disks[slot].driven || config_read(slot, 0, 4) != ~0u)
			continue;
		/* its driver resets it all the same, and is not kept */
		reset(&disks[slot].d);
		disks[slot].driven = false;
		say("slot %u is lost\n", (u64)slot);
	}
}

static void go(u32 slot)
{
	if (disks[slot].driven)
		reset(&disks[slot].d);
	disks[slot].driven = false;
	out32(SLOTS_OCCUPIED, BIT(slot));
	say("slot %u let go, id %u, occupied %u\n", (u64)slot, (u64)config_read(slot, 0, 4),
	    (u64)(in32(SLOTS_OCCUPIED) >> slot & 1));
}

/* virtio 1.3, 2.5.1: the two halves belong together if the generation has not moved. */
static void look(struct disk *disk, u32 slot)
{
	u64 at = disk->f.bar[disk->f.config.bar] + disk->f.config.offset, sectors;
	u64 generation = common(&disk->d) + VIRTIO_PCI_COMMON_CFGGENERATION;
	u8 before;

	do {
		before = read8(generation);
		sectors = read32(at) | (u64)read32(at + 4) << 32;
	} while (read8(generation) != before);
	if (disk->sectors && disk->sectors != sectors)
		say("slot %u has %u sectors\n", (u64)slot, sectors);
	disk->sectors = sectors;
}

void slots(void)
{
	data = allocate(4096, 4096);
	say("slots: %u\n", (u64)in32(SLOTS_OCCUPIED));
	for (;;) {
		u32 added = in32(SLOTS_ADDED), leaving = in32(SLOTS_LEAVING);

		if (added & 1)
			find_lost();
		for (u32 slot = 1; slot < 32; slot++) {
			if (added >> slot & 1)
				come(slot);
			if (leaving >> slot & 1)
				go(slot);
			if (disks[slot].driven)
				look(&disks[slot], slot);
		}
	}
}
