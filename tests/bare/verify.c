/*
 * Bare guest in ring 3: fills a disk with a pattern at depth 32, flushes, reads it back and
 * compares. Polls; rings the memory and the I/O doorbell in turn.
 */
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include "bare.h"

#define DEPTH	 BUFFERS_OUT
#define BYTES	 4096u
#define SECTORS	 (BYTES / 512)
#define PATIENCE 2000000000u

static struct virtio_blk_outhdr headers[DEPTH];
static volatile u8 states[DEPTH];
static u8 *buffers;
u64 verify_features =
	1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_EVENT_IDX | 1ull << VIRTIO_BLK_F_FLUSH;

static u64 word(u64 sector, u64 i)
{
	return (sector * 0x9e3779b97f4a7c15ull) ^ (i * 0xbf58476d1ce4e5b9ull);
}

static void fill(u64 *to, u64 sector)
{
	for (u64 i = 0; i < BYTES / 8; i++)
		to[i] = word(sector, i);
}

static u64 count_wrong(const u64 *from, u64 sector)
{
	u64 wrong = 0;

	for (u64 i = 0; i < BYTES / 8; i++)
		wrong += from[i] != word(sector, i);
	return wrong;
}

static void put(struct queue *q, u32 slot, u32 type, u64 sector)
{
	const struct part parts[] = { { &headers[slot], sizeof(headers[slot]) },
				      { buffers + slot * BYTES, BYTES },
				      { (void *)&states[slot], 1 } };

	headers[slot] = (struct virtio_blk_outhdr){ .type = type, .sector = sector };
	states[slot] = 0xff;
	prepare_buffer(q, slot, parts, 3, type == VIRTIO_BLK_T_IN ? 1 : 2);
	show_chain(q);
}

/* The slot of the next used element; DEPTH if the device gives none. */
static u32 take(struct queue *q)
{
	u32 number, length;

	for (u32 i = 0; i < PATIENCE; i++) {
		if (take_used(q, &number, &length))
			return number;
		__asm__ volatile("pause");
	}
	return DEPTH;
}

/* One pass over the disk; false if the device stopped answering or failed a request. */
static bool pass(struct driver *d, u32 type, u64 blocks, u64 *wrong)
{
	struct queue *q = &d->queue[0];
	u64 next = 0, done = 0;
	u64 at[DEPTH];

	while (done < blocks) {
		u32 slot = next < DEPTH ? (u32)next : DEPTH;

		if (next >= DEPTH || next >= blocks) {
			slot = take(q);
			if (slot >= DEPTH || states[slot] != VIRTIO_BLK_S_OK)
				return false;
			if (type == VIRTIO_BLK_T_IN)
				*wrong += count_wrong((u64 *)(buffers + slot * BYTES), at[slot]);
			done++;
		}
		if (next >= blocks)
			continue;
		at[slot] = next++ * SECTORS;
		if (type == VIRTIO_BLK_T_OUT)
			fill((u64 *)(buffers + slot * BYTES), at[slot]);
		put(q, slot, type, at[slot]);
		ring(d, 0, next % 2 && d->f->notify_io.found ? DOORBELL_IO : DOORBELL_MEM);
	}
	return true;
}

void verify(void)
{
	struct function f;
	struct driver d = { 0 };
	u64 blocks, wrong = 0;

	begin("ring 3: the whole disk written and read back at depth 32");
	buffers = allocate(DEPTH * BYTES, 4096);
	if (!find_function(&f, VIRTIO_ID_BLOCK, 0) || !start_modern(&d, &f, verify_features, 1)) {
		EXPECT(false);
		finish();
		machine_end(1);
	}
	if (d.queue[0].packed) /* polls: split rings ask for none by their zero */
		*d.queue[0].driver_event = VRING_PACKED_EVENT_FLAG_DISABLE << 16;
	blocks = read64(f.bar[f.config.bar] + f.config.offset) / SECTORS;
	EXPECT(pass(&d, VIRTIO_BLK_T_OUT, blocks, &wrong));
	EXPECT(pass(&d, VIRTIO_BLK_T_IN, blocks, &wrong));
	EXPECT_EQ(wrong, 0);
	EXPECT(blocks > 0);
	/* each buffer came back once; in order, one element may have stood for several */
	EXPECT_EQ(d.queue[0].oldest, (u16)(2 * blocks));
	EXPECT(d.queue[0].in_order || d.queue[0].batches == d.queue[0].oldest);
	finish();
	machine_end(failures ? 1 : 77);
}
