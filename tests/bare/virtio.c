/* Bare guest: a split-ring driver for either layout. */
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include "bare.h"

#define PATIENCE 300000u

u64 common(struct driver *d)
{
	return d->f->bar[d->f->common.bar] + d->f->common.offset;
}

static u16 io(struct driver *d)
{
	return (u16)d->f->bar[0];
}

u64 device_features(struct driver *d)
{
	u64 c = common(d), low;

	write32(c + VIRTIO_PCI_COMMON_DFSELECT, 0);
	low = read32(c + VIRTIO_PCI_COMMON_DF);
	write32(c + VIRTIO_PCI_COMMON_DFSELECT, 1);
	return low | (u64)read32(c + VIRTIO_PCI_COMMON_DF) << 32;
}

void reset(struct driver *d)
{
	if (d->legacy) {
		out8((u16)(io(d) + VIRTIO_PCI_STATUS), 0);
		in8((u16)(io(d) + VIRTIO_PCI_STATUS));
		return;
	}
	write8(common(d) + VIRTIO_PCI_COMMON_STATUS, 0);
	for (u32 i = 0; i < PATIENCE && read8(common(d) + VIRTIO_PCI_COMMON_STATUS); i++)
		;
}

/* Rings of the legacy layout: contiguous, used ring on a page of its own; serves both. */
static void make_queue(struct queue *q, u16 index, u16 size)
{
	u64 base = (u64)allocate(vring_size(size, 4096), 4096);
	struct vring v;

	vring_init(&v, size, (void *)base, 4096);
	q->desc = v.desc;
	q->avail = v.avail;
	q->used = v.used;
	q->size = size;
	q->seen = 0;
	q->index = index;
}

bool start_modern(struct driver *d, struct function *f, u64 features, u32 queues)
{
	u64 c;

	d->f = f;
	d->legacy = false;
	c = common(d);
	reset(d);
	write8(c + VIRTIO_PCI_COMMON_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	write8(c + VIRTIO_PCI_COMMON_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	d->features = features;
	write32(c + VIRTIO_PCI_COMMON_GFSELECT, 0);
	write32(c + VIRTIO_PCI_COMMON_GF, (u32)features);
	write32(c + VIRTIO_PCI_COMMON_GFSELECT, 1);
	write32(c + VIRTIO_PCI_COMMON_GF, (u32)(features >> 32));
	write8(c + VIRTIO_PCI_COMMON_STATUS, 11);
	if (!(read8(c + VIRTIO_PCI_COMMON_STATUS) & VIRTIO_CONFIG_S_FEATURES_OK))
		return false;
	for (u16 i = 0; i < queues; i++) {
		struct queue *q = &d->queue[i];

		make_queue(q, i, QUEUE_SIZE);
		write16(c + VIRTIO_PCI_COMMON_Q_SELECT, i);
		write16(c + VIRTIO_PCI_COMMON_Q_SIZE, QUEUE_SIZE);
		write64(c + VIRTIO_PCI_COMMON_Q_DESCLO, (u64)q->desc);
		write32(c + VIRTIO_PCI_COMMON_Q_AVAILLO, (u32)(u64)q->avail);
		write32(c + VIRTIO_PCI_COMMON_Q_AVAILHI, (u32)((u64)q->avail >> 32));
		write64(c + VIRTIO_PCI_COMMON_Q_USEDLO, (u64)q->used);
		write16(c + VIRTIO_PCI_COMMON_Q_ENABLE, 1);
	}
	write8(c + VIRTIO_PCI_COMMON_STATUS, 15);
	return true;
}

void start_legacy(struct driver *d, struct function *f, u32 features, u32 queues)
{
	u16 base;

	d->f = f;
	d->legacy = true;
	d->features = features;
	base = io(d);
	reset(d);
	out8((u16)(base + VIRTIO_PCI_STATUS), VIRTIO_CONFIG_S_ACKNOWLEDGE);
	out8((u16)(base + VIRTIO_PCI_STATUS), VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	out32((u16)(base + VIRTIO_PCI_GUEST_FEATURES), features);
	for (u16 i = 0; i < queues; i++) {
		out16((u16)(base + VIRTIO_PCI_QUEUE_SEL), i);
		make_queue(&d->queue[i], i, in16((u16)(base + VIRTIO_PCI_QUEUE_NUM)));
		out32((u16)(base + VIRTIO_PCI_QUEUE_PFN), (u32)((u64)d->queue[i].desc >> 12));
	}
	out8((u16)(base + VIRTIO_PCI_STATUS), 7);
}

void set_vector(struct driver *d, u32 queue, u16 vector)
{
	if (d->legacy) {
		out16((u16)(io(d) + VIRTIO_PCI_QUEUE_SEL), (u16)queue);
		out16((u16)(io(d) + VIRTIO_MSI_QUEUE_VECTOR), vector);
		return;
	}
	write16(common(d) + VIRTIO_PCI_COMMON_Q_SELECT, (u16)queue);
	write16(common(d) + VIRTIO_PCI_COMMON_Q_MSIX, vector);
}

void prepare_chain(struct queue *q, const struct part *parts, u32 count, u32 readable)
{
	/* Each chain has descriptors of its own: the tests have few in flight. */
	u16 head = (u16)((q->avail->idx * 8u) % q->size);

	for (u32 i = 0; i < count; i++) {
		struct vring_desc *e = &q->desc[head + i];

		e->addr = (u64)parts[i].at;
		e->len = parts[i].length;
		e->flags = (u16)((i < readable ? 0 : VRING_DESC_F_WRITE) |
				 (i + 1 < count ? VRING_DESC_F_NEXT : 0));
		e->next = (u16)(head + i + 1);
	}
	q->avail->ring[q->avail->idx % q->size] = head;
	barrier();
}

void add_chain(struct queue *q, const struct part *parts, u32 count, u32 readable)
{
	prepare_chain(q, parts, count, readable);
	q->avail->idx++;
	barrier();
}

/* A write through the PCI_CFG window (virtio 1.3, 4.1.4.9). */
static void window_write16(struct function *f, u8 bar, u32 offset, u16 value)
{
	u32 at = f->window.at;

	config_write(f->slot, at + 4, 1, bar);
	config_write(f->slot, at + 8, 4, offset);
	config_write(f->slot, at + 12, 4, 2);
	config_write(f->slot, at + 16, 2, value);
}

void ring(struct driver *d, u32 queue, enum doorbell how)
{
	struct function *f = d->f;
	u32 offset = 0;

	if (how != DOORBELL_LEGACY) {
		write16(common(d) + VIRTIO_PCI_COMMON_Q_SELECT, (u16)queue);
		offset = read16(common(d) + VIRTIO_PCI_COMMON_Q_NOFF);
	}
	switch (how) {
	case DOORBELL_LEGACY:
		out16((u16)(io(d) + VIRTIO_PCI_QUEUE_NOTIFY), (u16)queue);
		break;
	case DOORBELL_IO:
		out16((u16)(f->bar[f->notify_io.bar] + f->notify_io.offset +
			    offset * f->notify_io.extra),
		      (u16)queue);
		break;
	case DOORBELL_MEM:
		write16(f->bar[f->notify_mem.bar] + f->notify_mem.offset +
				offset * f->notify_mem.extra,
			(u16)queue);
		break;
	case DOORBELL_WINDOW:
		window_write16(f, f->notify_mem.bar,
			       f->notify_mem.offset + offset * f->notify_mem.extra, (u16)queue);
		break;
	}
}

long wait_used(struct queue *q)
{
	volatile u16 *index = &q->used->idx;

	for (u32 i = 0; i < PATIENCE; i++) {
		if (*index != q->seen) {
			barrier();
			return (long)q->used->ring[q->seen++ % q->size].len;
		}
		in8(0x80);
	}
	return -1;
}

u8 block(struct driver *d, u32 type, u64 sector, void *data, u32 length, enum doorbell how)
{
	static struct virtio_blk_outhdr header;
	static volatile u8 status;
	const struct part parts[] = { { &header, sizeof(header) },
				      { data, length },
				      { (void *)&status, 1 } };
	struct queue *q = &d->queue[0];

	header = (struct virtio_blk_outhdr){ .type = type, .sector = sector };
	status = 0xff;
	if (length)
		add_chain(q, parts, 3, type == VIRTIO_BLK_T_OUT ? 2 : 1);
	else
		add_chain(q, (const struct part[]){ parts[0], parts[2] }, 2, 1);
	ring(d, 0, how);
	wait_used(q);
	return status;
}
