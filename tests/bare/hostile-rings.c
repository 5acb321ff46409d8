/*
 * Bare guest: the hostile driver's rings. Chains that are mostly what a device expects, with a lie
 * here and there: addresses, lengths, flags, next and available indices, tables, ring areas; things
 * that change under the device's eyes, queues reset and functions switched off in between.
 */
#include <linux/pci_regs.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include "hostile.h"

#define QUEUE_RESET 58 /* queue_reset in the common configuration */
#define QUEUES	    4

/* An address for a device to read or write: mostly RAM that may be overwritten, at times none. */
static u64 address(void)
{
	switch (below(24)) {
	case 0:
		return RAM_END - below(64); /* runs out of RAM */
	case 1:
		return 0xc0000000ull + below(0x40000000); /* the hole, devices in it */
	case 2:
		return next() | 1ull << 63;
	case 3:
		return ~0ull - below(8192); /* wraps */
	case 4:
		return ARENA + below(ARENA_SIZE); /* any alignment */
	default:
		return ARENA + (below(ARENA_SIZE) & ~0xfffu);
	}
}

struct rings {
	u64 desc, avail, used;
	u32 size;
	bool packed;
	u32 fill; /* packed: the next descriptor to write, on and on */
};

static struct rings rings_of[2][QUEUES]; /* each CPU believes in its own */

/* What a device would take for a request's first bytes. */
static void put_header(u64 at, u32 type)
{
	static const u8 types[] = { VIRTIO_BLK_T_IN,	  VIRTIO_BLK_T_OUT,
				    VIRTIO_BLK_T_FLUSH,	  VIRTIO_BLK_T_GET_ID,
				    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES };

	at = ARENA + (at - ARENA) % (ARENA_SIZE - 64);
	if (type == VIRTIO_ID_BLOCK) {
		write32(at, one_in(8) ? (u32)number() : types[below(ARRAY_SIZE(types))]);
		write32(at + 4, (u32)number());
		write64(at + 8, one_in(4) ? number() : below(32768));
		return;
	}
	/* a network header, or (class, command) of the control queue */
	for (u32 i = 0; i < 12; i++)
		write8(at + i, one_in(4) ? (u8)next() : (u8)below(6));
	if (one_in(2))
		write16(at + 2, (u16)below(128));
}

static u32 length(void)
{
	static const u32 usual[] = {
		1, 2, 4, 10, 12, 16, 17, 60, 511, 512, 513, 1514, 4096, 65536
	};

	return one_in(12) ? (u32)number() : usual[below(ARRAY_SIZE(usual))];
}

static bool is_table(u64 at)
{
	return (at >= TABLES && at <= TABLES + TABLES_SIZE - 16) ||
	       (at >= LEGACY && at <= LEGACY + LEGACY_SIZE - 16);
}

static void put_descriptor(u64 at, u32 next_one, u32 type, bool readable, bool first, bool last)
{
	u64 target = address();
	u16 flags = readable ? 0 : VRING_DESC_F_WRITE;

	if (!is_table(at))
		return;
	write64(at, target);
	write32(at + 8, length());
	write16(at + 14, one_in(24) ? (u16)number() : (u16)next_one);
	if (!last)
		flags |= VRING_DESC_F_NEXT;
	if (one_in(24))
		flags ^= (u16)BIT(below(16));
	if (one_in(24))
		flags = (u16)next();
	write16(at + 12, flags);
	if (first && target >= ARENA && target < ARENA + ARENA_SIZE) {
		put_header(target, type);
		if (below(4))
			write32(at + 8, type == VIRTIO_ID_NET ? 12 : 16);
	}
}

static void put_chain(u64 table, u32 first, u32 size, u32 type)
{
	u32 count = one_in(16) ? below(300) + 1 : below(5) + 1;
	u32 readable = type == VIRTIO_ID_RNG ? 0 : below(count + 1);

	for (u32 i = 0; i < count; i++)
		put_descriptor(table + (first + i) % size * 16, (first + i + 1) % size, type,
			       i < readable, !i, i + 1 == count);
}

/* What is written as the n-th descriptor of a packed ring: whose turn it is. */
static u16 turn(const struct rings *r, u32 n)
{
	return n / r->size % 2 ? BIT(VRING_PACKED_DESC_F_USED) : BIT(VRING_PACKED_DESC_F_AVAIL);
}

/* A descriptor for a packed ring or a table of one, from one for a split one. */
static void convert(u64 at, u16 id, u16 turn_flags)
{
	u16 flags = read16(at + 12);

	write16(at + 12, one_in(24) ? (u16)number() : id);
	barrier();
	write16(at + 14, one_in(24) ? (u16)next() : (u16)((flags & 0x7f7f) | turn_flags));
}

static u64 table(u32 align)
{
	return TABLES + (below(TABLES_SIZE - 65536) & ~(align - 1));
}

static void fill_ring(const struct rings *r, u32 type)
{
	u32 heads = below(6) + 1;
	u16 index;

	if (r->avail < ARENA || r->avail > LEGACY + LEGACY_SIZE - 4096 || !r->size)
		return;
	index = read16(r->avail + 2);
	for (u32 i = 0; i < heads; i++) {
		u32 head = below(r->size);
		u64 at = r->desc + head * 16;

		put_chain(r->desc, head, r->size, type);
		if (one_in(4) && is_table(at)) { /* the chain in a table of its own */
			u64 own = table(16);

			put_chain(own, 0, 300, type);
			write64(at, one_in(16) ? RAM_END - 16 * below(64) : own);
			write32(at + 8, one_in(8) ? (u32)number() : below(300) * 16);
			write16(at + 12, one_in(8) ? (u16)next() : VRING_DESC_F_INDIRECT);
		}
		write16(r->avail + 4 + (u16)(index + i) % r->size * 2,
			one_in(24) ? (u16)number() : (u16)head);
	}
	write16(r->avail, one_in(4) ? (u16)next() : 0);
	barrier();
	write16(r->avail + 2, one_in(24) ? (u16)number() : (u16)(index + heads));
	barrier();
}

static void fill_packed(struct rings *r, u32 type)
{
	if (!r->size || !is_table(r->desc) || !is_table(r->desc + (r->size - 1) * 16))
		return;
	for (u32 heads = below(6) + 1; heads--;) {
		u32 count = one_in(16) ? below(2 * r->size) + 1 : below(5) + 1;
		u32 readable = type == VIRTIO_ID_RNG ? 0 : below(count + 1);
		u16 id = (u16)below(r->size);

		if (one_in(4)) {
			u64 own = table(16), at = r->desc + r->fill % r->size * 16;

			for (u32 i = 0; i < count; i++) {
				put_descriptor(own + i * 16, 0, type, i < readable, !i,
					       i + 1 == count);
				convert(own + i * 16, id, (u16)next());
			}
			write64(at, one_in(16) ? RAM_END - 16 * below(64) : own);
			write32(at + 8, one_in(8) ? (u32)number() : count * 16);
			write16(at + 12, one_in(8) ? (u16)next() : VRING_DESC_F_INDIRECT);
			convert(at, id, turn(r, r->fill));
			r->fill++;
			continue;
		}
		/* the first one's flags last, or not */
		for (u32 i = one_in(8) ? 0 : count; i-- > 0;) {
			u64 at = r->desc + (r->fill + i) % r->size * 16;

			put_descriptor(at, 0, type, i < readable, !i, i + 1 == count);
			convert(at, id, turn(r, r->fill + i));
		}
		r->fill += one_in(24) ? below(r->size) : count;
	}
	if (r->avail >= ARENA && r->avail < LEGACY + LEGACY_SIZE - 4096)
		write32(r->avail, one_in(2) ? (u32)next() : (u32)number());
	barrier();
}

static u64 ring_area(u32 align)
{
	if (one_in(24))
		return address();
	return ARENA + (below(ARENA_SIZE - 65536) & ~(align - 1));
}

static void kick(const struct function *f, u32 queue)
{
	if (below(2))
		out16((u16)(f->bar[0] + VIRTIO_PCI_QUEUE_NOTIFY), (u16)queue);
	else
		write16(f->bar[2] + f->notify_mem.offset + queue * f->notify_mem.extra, (u16)queue);
}

static void start_queue_modern(u64 c, struct rings *r, u32 i, bool packed)
{
	r->packed = packed;
	write16(c + VIRTIO_PCI_COMMON_Q_SELECT, (u16)i);
	r->size = read16(c + VIRTIO_PCI_COMMON_Q_SIZE);
	if (r->size && below(2))
		r->size = r->packed ? below(r->size) + 1 : 1u << below(9);
	r->fill = 0;
	write16(c + VIRTIO_PCI_COMMON_Q_SIZE, one_in(16) ? (u16)number() : (u16)r->size);
	r->size = read16(c + VIRTIO_PCI_COMMON_Q_SIZE);
	r->desc = one_in(24) ? RAM_END - 16 * below(64) : table(one_in(24) ? 1 : 16);
	r->avail = ring_area(r->packed ? 4 : 2);
	r->used = ring_area(4);
	for (u32 n = 0; r->packed && n < r->size && is_table(r->desc + n * 16); n++)
		write64(r->desc + n * 16 + 8, 0);
	if (r->avail >= ARENA && r->avail < ARENA + ARENA_SIZE)
		write32(r->avail, 0);
	write64(c + VIRTIO_PCI_COMMON_Q_DESCLO, r->desc);
	write64(c + VIRTIO_PCI_COMMON_Q_AVAILLO, r->avail);
	write64(c + VIRTIO_PCI_COMMON_Q_USEDLO, r->used);
	write16(c + VIRTIO_PCI_COMMON_Q_MSIX, below(2) ? (u16)below(4) : 0xffff);
	write16(c + VIRTIO_PCI_COMMON_Q_ENABLE, 1);
}

static void start_queue_legacy(u16 base, struct rings *r, u32 i)
{
	r->packed = false;
	out16((u16)(base + VIRTIO_PCI_QUEUE_SEL), (u16)i);
	r->size = in16((u16)(base + VIRTIO_PCI_QUEUE_NUM));
	r->desc = LEGACY + below(LEGACY_SIZE / LEGACY_STEP) * LEGACY_STEP;
	r->avail = r->desc + 16ull * r->size;
	r->used = 0;
	write32(r->avail, 0);
	out32((u16)(base + VIRTIO_PCI_QUEUE_PFN), (u32)(r->desc >> 12));
}

static void await_reset(u64 c)
{
	for (u32 i = 0; i < 300000 && read8(c + VIRTIO_PCI_COMMON_STATUS); i++)
		;
}

void attack_rings(struct victim *v)
{
	struct rings *rings = rings_of[this_cpu() & 1];
	struct function *f = &v->f;
	u32 queues = f->type == VIRTIO_ID_NET ? 3 : f->type == VIRTIO_ID_BLOCK ? 2 : 1;
	bool legacy = one_in(3), packed = false;
	u16 base = (u16)f->bar[0];
	u64 c;

	heal(v);
	c = f->bar[f->common.bar] + f->common.offset;
	write8(c + VIRTIO_PCI_COMMON_STATUS, 0);
	if (below(4))
		await_reset(c);
	write8(c + VIRTIO_PCI_COMMON_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	write8(c + VIRTIO_PCI_COMMON_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	if (legacy) {
		out32((u16)(base + VIRTIO_PCI_GUEST_FEATURES), below(2) ? ~0u : (u32)next());
	} else {
		u64 features = below(3) ? ~0ull : next();

		if (below(3) == 0)
			features &= ~(1ull << VIRTIO_F_RING_PACKED);

		for (u32 i = 0; i < 2; i++) {
			write32(c + VIRTIO_PCI_COMMON_DFSELECT, i);
			write32(c + VIRTIO_PCI_COMMON_GFSELECT, i);
			write32(c + VIRTIO_PCI_COMMON_GF,
				(read32(c + VIRTIO_PCI_COMMON_DF) & (u32)(features >> 32 * i)) |
					(i ? (u32)(VERSION_1 >> 32) : 0));
		}
		write8(c + VIRTIO_PCI_COMMON_STATUS, 11);
		packed = read32(c + VIRTIO_PCI_COMMON_GF) >> (VIRTIO_F_RING_PACKED - 32) & 1;
	}
	for (u32 i = 0; i < queues; i++)
		if (legacy)
			start_queue_legacy(base, &rings[i], i);
		else
			start_queue_modern(c, &rings[i], i, packed);
	write8(c + VIRTIO_PCI_COMMON_STATUS, 15);
	for (u32 round = below(6) + 1; round--;) {
		u32 i = below(queues);

		if (rings[i].packed)
			fill_packed(&rings[i], f->type);
		else
			fill_ring(&rings[i], f->type);
		kick(f, i);
		for (u32 wait = below(2) ? below(200) : 0; wait--;)
			in8(0x80);
		if (one_in(8)) { /* under the device's eyes */
			u64 r = rings[i].desc;

			if (is_table(r) && is_table(r + 4080))
				for (u32 n = 0; n < 32; n++)
					write8(r + below(4096) / 16 * 16 + 8 + below(8),
					       (u8)next());
		}
		if (one_in(8)) {
			write16(c + VIRTIO_PCI_COMMON_Q_SELECT, (u16)i);
			write16(c + QUEUE_RESET, 1);
		}
		if (one_in(8))
			config_write(f->slot, PCI_COMMAND, 2, COMMAND & ~below(8));
		if (one_in(8))
			heal(v);
	}
	if (below(2)) {
		heal(v);
		write8(c + VIRTIO_PCI_COMMON_STATUS, 0);
	}
}

void prepare_tables(void)
{
	for (u64 at = 0; at < TABLES_SIZE; at += 16)
		write64(TABLES + at, ARENA);
	for (u64 at = 0; at < LEGACY_SIZE; at += 16)
		write64(LEGACY + at, ARENA);
}
