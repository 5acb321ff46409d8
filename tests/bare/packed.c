/*
 * Bare guest: the driver's side of a packed ring (virtio 1.3, 2.8.21 and 2.8.22), and what tests.c
 * has no split counterpart of: rings of odd sizes, tables, both event structures.
 */
#include <linux/pci_regs.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include "bare.h"

#define F_AVAIL	    BIT(VRING_PACKED_DESC_F_AVAIL)
#define F_USED	    BIT(VRING_PACKED_DESC_F_USED)
#define FEATURE(n)  (1ull << (n))
#define PACKED	    (FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_F_RING_PACKED))
#define SECTOR	    512u
#define WRAP(place) ((u32)(place) << VRING_PACKED_EVENT_F_WRAP_CTR)

/* ---- the ring ---- */

void packed_make(struct queue *q, u16 size)
{
	u32 *events = allocate(128, 64);
	u16 index = q->index;

	*q = (struct queue){
		.packed = true,
		.ring = allocate(16ull * size, 16),
		.driver_event = events,
		.device_event = events + 16,
		.size = size,
		.index = index,
		.fill_wrap = true,
		.look_wrap = true,
	};
}

static void move(const struct queue *q, u16 *at, bool *wrap, u32 by)
{
	u32 to = *at + by;

	if (to >= q->size) {
		to -= q->size;
		*wrap = !*wrap;
	}
	*at = (u16)to;
}

void packed_write(struct queue *q, u64 at, u32 length, u16 id, u16 flags)
{
	struct vring_packed_desc *e = &q->ring[q->fill];

	e->addr = at;
	e->len = length;
	e->id = id;
	*(volatile u16 *)&e->flags = (u16)(flags | (q->fill_wrap ? F_AVAIL : F_USED));
	move(q, &q->fill, &q->fill_wrap, 1);
}

void packed_prepare(struct queue *q, u32 number, const struct part *parts, u32 count, u32 readable)
{
	u16 first = q->fill;
	bool wrap = q->fill_wrap;

	for (u32 i = 0; i < count; i++) {
		u16 flags = (u16)((i < readable ? 0 : VRING_DESC_F_WRITE) |
				  (i + 1 < count ? VRING_DESC_F_NEXT : 0));

		if (i) {
			packed_write(q, (u64)parts[i].at, parts[i].length, (u16)number, flags);
			continue;
		}
		/* the first one's flags make all of them available (2.8.6) */
		q->ring[first].addr = (u64)parts[0].at;
		q->ring[first].len = parts[0].length;
		q->ring[first].id = (u16)number;
		q->first = first;
		q->first_flags = (u16)(flags | (wrap ? F_AVAIL : F_USED));
		move(q, &q->fill, &q->fill_wrap, 1);
	}
	q->span[number] = (u16)count;
}

void packed_show(struct queue *q)
{
	barrier();
	*(volatile u16 *)&q->ring[q->first].flags = q->first_flags;
}

bool packed_used(struct queue *q, u32 *number, u32 *length)
{
	u16 flags = *(volatile u16 *)&q->ring[q->look].flags;

	if ((flags & (F_AVAIL | F_USED)) != (q->look_wrap ? F_AVAIL | F_USED : 0))
		return false;
	barrier();
	*number = q->ring[q->look].id % QUEUE_SIZE;
	*length = flags & VRING_DESC_F_WRITE ? q->ring[q->look].len : 0;
	return true;
}

void packed_release(struct queue *q, u32 number)
{
	move(q, &q->look, &q->look_wrap, q->span[number]);
}

/* ---- tests ---- */

static u8 *data;

static bool reads(struct driver *d, u64 sector, enum doorbell how)
{
	return block(d, VIRTIO_BLK_T_IN, sector, data, SECTOR, how) == VIRTIO_BLK_S_OK;
}

/* The queue alone begins anew, with a ring of that size. */
static bool resize(struct driver *d, u16 size)
{
	u64 c = common(d);
	u32 i = 0;

	reset_queue(d, 0);
	packed_make(&d->queue[0], size);
	enable_queue(d, 0);
	write16(c + VIRTIO_PCI_COMMON_Q_SELECT, 0);
	while (i++ < 1000 && !read16(c + VIRTIO_PCI_COMMON_Q_ENABLE))
		;
	return read16(c + VIRTIO_PCI_COMMON_Q_SIZE) == size;
}

static void test_sizes(struct function *f)
{
	static const u16 sizes[] = { 3, 4, 5, 7, 100, QUEUE_SIZE };
	struct driver d = { 0 };

	begin("packed rings of any size: around and around");
	EXPECT(start_modern(&d, f, PACKED | FEATURE(VIRTIO_F_RING_RESET), 1));
	for (u32 i = 0; i < ARRAY_SIZE(sizes); i++) {
		u32 requests = sizes[i] > 10 ? sizes[i] : 10; /* three descriptors each */

		EXPECT(resize(&d, sizes[i]));
		for (u32 n = 0; n < requests; n++)
			EXPECT(reads(&d, n, n % 2 ? DOORBELL_IO : DOORBELL_MEM));
	}
	finish();
	reset(&d);
}

static void test_tables(struct function *f)
{
	static struct virtio_blk_outhdr header;
	static struct vring_packed_desc table[3] __attribute__((aligned(16)));
	static volatile u8 status;
	struct driver d = { 0 };
	struct queue *q = &d.queue[0];

	begin("packed rings: indirect tables, whose flags but WRITE mean nothing");
	EXPECT(start_modern(&d, f, PACKED | FEATURE(VIRTIO_RING_F_INDIRECT_DESC), 1));
	for (u32 i = 0; i < 2 * QUEUE_SIZE; i++) {
		status = 0xff;
		table[0] = (struct vring_packed_desc){ (u64)&header, sizeof(header), 99, 0xfffd };
		table[1] = (struct vring_packed_desc){ (u64)data, SECTOR, 99, 0xffff };
		table[2] = (struct vring_packed_desc){ (u64)&status, 1, 99, 0xffff };
		q->span[i % BUFFERS_OUT] = 1;
		barrier();
		packed_write(q, (u64)table, sizeof(table), (u16)(i % BUFFERS_OUT),
			     VRING_DESC_F_INDIRECT);
		ring(&d, 0, DOORBELL_MEM);
		EXPECT_EQ(wait_used(q), SECTOR + 1);
		EXPECT_EQ(status, VIRTIO_BLK_S_OK);
	}
	finish();
	reset(&d);
}

/* Until it is so, or for a good while. */
static bool becomes(volatile u32 *at, u32 value)
{
	for (u32 i = 0; i < 100000 && *at != value; i++)
		in8(0x80);
	return *at == value;
}

static void test_device_events(struct function *f)
{
	struct driver d = { 0 };
	struct queue *q = &d.queue[0];

	begin("packed rings: the device says from where on it wants notifications");
	EXPECT(start_modern(&d, f, PACKED | FEATURE(VIRTIO_RING_F_EVENT_IDX), 1));
	for (u32 i = 0; i < QUEUE_SIZE; i++) { /* three times around */
		EXPECT(reads(&d, 0, DOORBELL_MEM));
		if (i % 16 == 0)
			EXPECT(becomes(q->device_event,
				       q->fill | WRAP(q->fill_wrap) |
					       VRING_PACKED_EVENT_FLAG_DESC << 16));
	}
	reset(&d);
	EXPECT(start_modern(&d, f, PACKED, 1));
	EXPECT(reads(&d, 0, DOORBELL_MEM));
	EXPECT(becomes(q->device_event, VRING_PACKED_EVENT_FLAG_ENABLE << 16));
	finish();
	reset(&d);
}

static void test_driver_events(struct function *f)
{
	const u8 v = VECTOR_FIRST + 8;
	struct driver d = { 0 };
	struct queue *q = &d.queue[0];
	u64 entry = f->msix_table;
	u32 before;

	begin("packed rings: interrupts come when the driver's event is passed, and not before");
	EXPECT(start_modern(&d, f, PACKED | FEATURE(VIRTIO_RING_F_EVENT_IDX), 1));
	write32(entry + PCI_MSIX_ENTRY_LOWER_ADDR, 0xfee00000);
	write32(entry + PCI_MSIX_ENTRY_UPPER_ADDR, 0);
	write32(entry + PCI_MSIX_ENTRY_DATA, v);
	write32(entry + PCI_MSIX_ENTRY_VECTOR_CTRL, 0);
	config_write(f->slot, f->msix + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
	set_vector(&d, 0, 0);
	for (u32 i = 0; i < 200; i += 20) { /* each place in another part of the ring */
		u16 at = q->look;
		bool wrap = q->look_wrap;

		before = interrupts[v];
		*q->driver_event = VRING_PACKED_EVENT_FLAG_DISABLE << 16;
		EXPECT(reads(&d, 0, DOORBELL_MEM));
		move(q, &at, &wrap, 3 * 4 + 1); /* in the fifth request from here */
		*q->driver_event = at | WRAP(wrap) | VRING_PACKED_EVENT_FLAG_DESC << 16;
		for (u32 n = 0; n < 3; n++)
			EXPECT(reads(&d, 0, DOORBELL_MEM));
		settle();
		EXPECT_EQ(interrupts[v], before);
		EXPECT(reads(&d, 0, DOORBELL_MEM));
		EXPECT_EQ(wait_interrupts(v, before + 1), before + 1);
		for (u32 n = 0; n < 15; n++)
			EXPECT(reads(&d, 0, DOORBELL_MEM));
		EXPECT_EQ(interrupts[v], before + 1);
	}
	*q->driver_event = VRING_PACKED_EVENT_FLAG_ENABLE << 16;
	before = interrupts[v];
	EXPECT(reads(&d, 0, DOORBELL_MEM));
	EXPECT_EQ(wait_interrupts(v, before + 1), before + 1);
	finish();
	config_write(f->slot, f->msix + PCI_MSIX_FLAGS, 2, 0);
	reset(&d);
}

static void test_not_taken(struct function *f)
{
	struct driver d = { 0 };

	begin("packed rings are offered: split ones and the legacy interface are still there");
	EXPECT(start_modern(&d, f, FEATURE(VIRTIO_F_VERSION_1), 1));
	EXPECT(reads(&d, 1, DOORBELL_IO));
	reset(&d);
	start_legacy(&d, f, 0, 1);
	EXPECT(reads(&d, 2, DOORBELL_LEGACY));
	reset(&d);
	d.legacy = false;
	EXPECT(start_modern(&d, f, PACKED, 1));
	EXPECT(reads(&d, 3, DOORBELL_IO));
	finish();
	reset(&d);
}

void test_packed(struct function *f)
{
	data = allocate(SECTOR, SECTOR);
	test_sizes(f);
	test_tables(f);
	test_device_events(f);
	test_driver_events(f);
	test_not_taken(f);
}
