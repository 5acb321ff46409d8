/* Bare guest: a driver for either layout and either kind of ring. */
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
void make_queue(struct queue *q, u16 index, u16 size)
{
	u64 base = (u64)allocate(vring_size(size, 4096), 4096);
	struct vring v;

	vring_init(&v, size, (void *)base, 4096);
	q->desc = v.desc;
	q->avail = v.avail;
	q->used = v.used;
	*q = (struct queue){
		.desc = v.desc, .avail = v.avail, .used = v.used, .size = size, .index = index
	};
}

void enable_queue(struct driver *d, u16 index)
{
	struct queue *q = &d->queue[index];
	const u64 areas[] = { q->packed ? (u64)q->ring : (u64)q->desc,
			      q->packed ? (u64)q->driver_event : (u64)q->avail,
			      q->packed ? (u64)q->device_event : (u64)q->used };
	u64 c = common(d);

	write16(c + VIRTIO_PCI_COMMON_Q_SELECT, index);
	write16(c + VIRTIO_PCI_COMMON_Q_SIZE, q->size);
	/* 64-bit registers take halves (virtio 1.3, 4.1.3.1) */
	for (u32 i = 0; i < ARRAY_SIZE(areas); i++) {
		write32(c + VIRTIO_PCI_COMMON_Q_DESCLO + 8 * i, (u32)areas[i]);
		write32(c + VIRTIO_PCI_COMMON_Q_DESCHI + 8 * i, (u32)(areas[i] >> 32));
	}
	write16(c + VIRTIO_PCI_COMMON_Q_ENABLE, 1);
}

bool start_modern(struct driver *d, struct function *f, u64 features, u32 queues)
{
	u16 size;
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

		write16(c + VIRTIO_PCI_COMMON_Q_SELECT, i);
		size = read16(c + VIRTIO_PCI_COMMON_Q_SIZE);
		if (size > QUEUE_SIZE)
			size = QUEUE_SIZE;
		make_queue(q, i, size);
		if (features >> VIRTIO_F_RING_PACKED & 1)
			packed_make(q, size);
		q->in_order = features >> VIRTIO_F_IN_ORDER & 1;
		enable_queue(d, i);
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

void reset_queue(struct driver *d, u16 index)
{
	u64 c = common(d);

	write16(c + VIRTIO_PCI_COMMON_Q_SELECT, index);
	write16(c + VIRTIO_PCI_COMMON_Q_RESET, 1);
	for (u32 i = 0; i < PATIENCE && (read16(c + VIRTIO_PCI_COMMON_Q_RESET) ||
					 read16(c + VIRTIO_PCI_COMMON_Q_ENABLE));
	     i++)
		;
}

u64 device_wrote(const struct queue *q)
{
	u64 sum = 0;

	if (!q->packed)
		return *(volatile u16 *)&q->used->idx;
	for (u32 i = 0; i < 2u * q->size; i++)
		sum = sum * 31 + ((volatile u64 *)q->ring)[i];
	return sum;
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

static void split_prepare(struct queue *q, u32 number, const struct part *parts, u32 count,
			  u32 readable)
{
	/* Each buffer has descriptors of its own, or in order they go round (virtio 1.3, 2.7.5). */
	u16 head = q->in_order ? q->fill : (u16)(number * CHAIN_STRIDE), at = head;

	for (u32 i = 0; i < count; i++) {
		struct vring_desc *e = &q->desc[at];

		at = (u16)((at + 1) % q->size);
		e->addr = (u64)parts[i].at;
		e->len = parts[i].length;
		e->flags = (u16)((i < readable ? 0 : VRING_DESC_F_WRITE) |
				 (i + 1 < count ? VRING_DESC_F_NEXT : 0));
		e->next = at;
	}
	q->fill = at;
	q->number_of[head] = (u16)number;
	q->avail->ring[q->avail->idx % q->size] = head;
}

void prepare_buffer(struct queue *q, u32 number, const struct part *parts, u32 count, u32 readable)
{
	if (q->packed)
		packed_prepare(q, number, parts, count, readable);
	else
		split_prepare(q, number, parts, count, readable);
	q->order[q->newest % BUFFERS_OUT] = (u16)number;
	barrier();
}

void prepare_chain(struct queue *q, const struct part *parts, u32 count, u32 readable)
{
	/* ids of a packed ring are below its size */
	prepare_buffer(q, q->added % (q->size < BUFFERS_OUT ? q->size : BUFFERS_OUT), parts, count,
		       readable);
}

void show_chain(struct queue *q)
{
	q->added++;
	q->newest++;
	if (q->packed)
		packed_show(q);
	else
		q->avail->idx++;
	barrier();
}

void add_chain(struct queue *q, const struct part *parts, u32 count, u32 readable)
{
	prepare_chain(q, parts, count, readable);
	show_chain(q);
}

static bool split_used(struct queue *q, u32 *number, u32 *length)
{
	if (*(volatile u16 *)&q->used->idx == q->seen)
		return false;
	barrier();
	*number = q->number_of[q->used->ring[q->seen % q->size].id % QUEUE_SIZE];
	*length = q->used->ring[q->seen % q->size].len;
	return true;
}

bool take_used(struct queue *q, u32 *number, u32 *length)
{
	u32 last;

	if (!q->batch) {
		if (!(q->packed ? packed_used(q, number, length) : split_used(q, number, length)))
			return false;
		q->batch = 1;
		q->batches++;
		last = *number;
		q->batch_length = *length;
		/* One element may stand for many (2.7.9, 2.8.8): up to this one. */
		while (q->in_order && q->order[(q->oldest + q->batch - 1u) % BUFFERS_OUT] != last &&
		       q->batch < BUFFERS_OUT)
			q->batch++;
	}
	if (q->in_order)
		*number = q->order[q->oldest % BUFFERS_OUT];
	*length = q->batch_length;
	q->oldest++;
	q->batch--;
	q->seen++;
	if (q->packed)
		packed_release(q, *number);
	return true;
}

/* A write through the PCI_CFG window (virtio 1.3, 4.1.4.9). */
static void window_write(struct function *f, u8 bar, u32 offset, u32 value, u32 size)
{
	u32 at = f->window.at;

	config_write(f->slot, at + 4, 1, bar);
	config_write(f->slot, at + 8, 4, offset);
	config_write(f->slot, at + 12, 4, size);
	config_write(f->slot, at + 16, size, value);
}

/* 2.9: the queue, and where the next descriptor or available entry will be. */
static u32 notification(const struct queue *q)
{
	u32 next = q->packed ? q->fill | (u32)q->fill_wrap << 15 : q->avail->idx;

	return q->index | next << 16;
}

void ring(struct driver *d, u32 queue, enum doorbell how)
{
	u32 offset = 0, value = queue, size = 2;
	struct function *f = d->f;
	u64 at;

	if (!d->legacy && d->features >> VIRTIO_F_NOTIFICATION_DATA & 1) {
		value = notification(&d->queue[queue]);
		size = 4;
	}
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
		at = f->bar[f->notify_mem.bar] + f->notify_mem.offset +
		     offset * f->notify_mem.extra;
		if (size == 4)
			write32(at, value);
		else
			write16(at, (u16)value);
		break;
	case DOORBELL_WINDOW:
		window_write(f, f->notify_mem.bar,
			     f->notify_mem.offset + offset * f->notify_mem.extra, value, size);
		break;
	}
}

long wait_used(struct queue *q)
{
	u32 number, length;

	for (u32 i = 0; i < PATIENCE; i++) {
		if (take_used(q, &number, &length))
			return (long)length;
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
