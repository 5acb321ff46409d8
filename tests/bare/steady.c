/*
 * Bare guest in ring 3: the same over and over, so that the host can count what one of it costs.
 * Rounds of so many block requests, made available together and awaited together; or echo requests
 * to whoever is behind the network device, one at a time. Looks at the used ring for answers, but
 * has interrupts sent too, as drivers do.
 */
#include <linux/pci_regs.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include "bare.h"

#define DEPTH_MAX 64u
#define BYTES	  4096u
#define SPAN	  2048u /* blocks of the disk that are used */
#define BUFFERS	  32u	/* to receive into */
#define ROOM	  2048u
#define PATIENCE  2000000000u

static struct steady_work work;
static struct function f;
static struct driver d;
static u64 doorbells;

void steady(const struct steady_work *w)
{
	work = *w;
	enter_user(w->echo ? steady_echo : steady_block);
}

static void start(u32 type, u64 features, u32 queues)
{
	u64 e;

	if (!find_function(&f, type, 0) ||
	    !start_modern(&d, &f, 1ull << VIRTIO_F_VERSION_1 | features, queues)) {
		EXPECT(false);
		finish();
		machine_end(1);
	}
	e = f.msix_table;
	write32(e + PCI_MSIX_ENTRY_LOWER_ADDR, 0xfee00000);
	write32(e + PCI_MSIX_ENTRY_UPPER_ADDR, 0);
	write32(e + PCI_MSIX_ENTRY_DATA, VECTOR_FIRST);
	write32(e + PCI_MSIX_ENTRY_VECTOR_CTRL, 0);
	config_write(f.slot, f.msix + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
	for (u32 i = 0; i < queues; i++)
		set_vector(&d, i, 0);
	doorbells = f.bar[f.notify_mem.bar] + f.notify_mem.offset;
}

/* What was put into the ring is made available; the doorbell is rung if it is wanted. */
static void publish(struct queue *q, u16 count)
{
	__asm__ volatile("" ::: "memory");
	*(volatile u16 *)&q->avail->idx = (u16)(q->avail->idx + count);
	barrier();
	if (!(*(volatile u16 *)&q->used->flags & VRING_USED_F_NO_NOTIFY))
		write16(doorbells + q->index * f.notify_mem.extra, q->index);
}

/* Waits for so many used elements; the last one's. */
static bool await(struct queue *q, u16 count, struct vring_used_elem *last)
{
	for (u32 i = 0; i < PATIENCE; i++) {
		u16 there = (u16)(*(volatile u16 *)&q->used->idx - q->seen);

		if (there >= count) {
			__asm__ volatile("" ::: "memory");
			q->seen = (u16)(q->seen + count);
			*last = q->used->ring[(q->seen - 1u) % q->size];
			return true;
		}
		__asm__ volatile("pause");
	}
	return false;
}

void steady_block(void)
{
	static struct virtio_blk_outhdr headers[DEPTH_MAX];
	static volatile u8 states[DEPTH_MAX];
	u8 *data = allocate(DEPTH_MAX * BYTES, 4096);
	struct vring_used_elem last = { 0 };
	struct queue *q = &d.queue[0];

	begin("rounds of block requests");
	start(VIRTIO_ID_BLOCK, 1ull << VIRTIO_BLK_F_FLUSH, 1);
	for (u32 i = 0; i < work.depth; i++) {
		u16 head = (u16)(i * 3), flags = work.writes ? 0 : VRING_DESC_F_WRITE;

		headers[i].type = work.writes ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN;
		q->desc[head] = (struct vring_desc){ (u64)&headers[i], sizeof(headers[i]),
						     VRING_DESC_F_NEXT, (u16)(head + 1) };
		q->desc[head + 1] =
			(struct vring_desc){ (u64)(data + i * BYTES), BYTES,
					     (u16)(VRING_DESC_F_NEXT | flags), (u16)(head + 2) };
		q->desc[head + 2] =
			(struct vring_desc){ (u64)&states[i], 1, VRING_DESC_F_WRITE, 0 };
	}
	if (work.silent)
		*(volatile u16 *)&q->avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
	for (u64 round = 0; round < work.rounds; round++) {
		for (u32 i = 0; i < work.depth; i++) {
			headers[i].sector = (round * work.depth + i) * 7919 % SPAN * (BYTES / 512);
			states[i] = 0xff;
			q->avail->ring[(q->avail->idx + i) % q->size] = (u16)(i * 3);
		}
		publish(q, (u16)work.depth);
		EXPECT(await(q, (u16)work.depth, &last));
		for (u32 i = 0; i < work.depth; i++)
			EXPECT_EQ(states[i], VIRTIO_BLK_S_OK);
	}
	finish();
	machine_end(failures ? 1 : 77);
}

/* ---- ICMP echo (RFC 792) over IPv4, of whose fields only these change ---- */

static const u8 request[] = {
	/* virtio: no offloads, one buffer */
	0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	/* from 02:00:00:00:00:02 to :01 */
	2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0,
	/* 192.0.2.2 to 192.0.2.1, 28 bytes, ICMP */
	0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0xf6, 0xdd, 192, 0, 2, 2, 192, 0, 2, 1,
	/* echo request, id 0, sequence 0 */
	8, 0, 0xf7, 0xff, 0, 0, 0, 0
};

#define ICMP 46u /* in the request and the answer */

void steady_echo(void)
{
	struct queue *rx = &d.queue[0], *tx = &d.queue[1];
	u8 *in = allocate(BUFFERS * ROOM, 4096), *out = allocate(sizeof(request), 64);
	struct vring_used_elem last = { 0 };

	begin("echo requests");
	start(VIRTIO_ID_NET, 0, 2);
	for (u32 i = 0; i < sizeof(request); i++)
		out[i] = request[i];
	tx->desc[0] = (struct vring_desc){ (u64)out, sizeof(request), 0, 0 };
	for (u32 i = 0; i < BUFFERS; i++) {
		rx->desc[i] =
			(struct vring_desc){ (u64)(in + i * ROOM), ROOM, VRING_DESC_F_WRITE, 0 };
		rx->avail->ring[i] = (u16)i;
	}
	publish(rx, BUFFERS);
	for (u64 round = 0; round < work.rounds; round++) {
		const u8 *answer;

		tx->avail->ring[tx->avail->idx % tx->size] = 0;
		publish(tx, 1);
		EXPECT(await(tx, 1, &last));
		EXPECT(await(rx, 1, &last));
		answer = in + last.id * ROOM;
		EXPECT_EQ(answer[ICMP], 0);
		rx->avail->ring[rx->avail->idx % rx->size] = (u16)last.id;
		publish(rx, 1);
	}
	finish();
	machine_end(failures ? 1 : 77);
}
