/*
 * What both ring formats do with a buffer's descriptors: check each and gather its iovecs. For
 * vq-split.c and vq-packed.c alone; on the queue's reactor.
 */
#ifndef VIRTIO_VQ_CHAIN_H
#define VIRTIO_VQ_CHAIN_H

#include <errno.h>
#include "virtio/virtqueue.h"

/* The driver broke a rule: nothing more is taken. */
static inline int vq_fault(struct virtqueue *vq, const char *what)
{
	vq->fault = what;
	return -EPROTO;
}

/* Our store, then the driver's: neither side may read the other's wish before its own ring entry is
 * out. (Not the C11 fence: the thread sanitizer refuses that one.) */
static inline void vq_full_fence(void)
{
	__sync_synchronize();
}

/* Is a buffer of this head (split) or id (packed) out? */
static inline bool vq_is_out(const struct virtqueue *vq, u16 head)
{
	return vq->in_flight[head / 64] >> (head % 64) & 1;
}

static inline void vq_set_out(struct virtqueue *vq, u16 head)
{
	vq->in_flight[head / 64] |= BIT64(head % 64);
}

static inline void vq_clear_out(struct virtqueue *vq, u16 head)
{
	vq->in_flight[head / 64] &= ~BIT64(head % 64);
}

/* A walk through one chain, direct or in its indirect table. */
struct vq_walk {
	struct vq_buffer *buffer;
	struct iovec *iov;
	u32 room;  /* entries in iov */
	u32 count; /* descriptors that are buffers, those of length 0 included */
};

/* One element, as the driver's descriptor says it, which was read once. 0 or -EPROTO. */
static inline int vq_walk_element(struct virtqueue *vq, struct vq_walk *walk, u64 address,
				  u32 length, bool writable)
{
	struct vq_buffer *buffer = walk->buffer;
	u32 *total = writable ? &buffer->writable_bytes : &buffer->readable_bytes;
	u32 entries = buffer->readable + buffer->writable;
	void *at;

	if (++walk->count > vq->chain_max)
		return vq_fault(vq, "a descriptor chain is longer than the queue");
	/* 2.7.4.2, 2.8.17: readable first. A device that tolerated it would misplace the payload.
	 */
	if (!writable && buffer->writable)
		return vq_fault(vq, "a readable descriptor follows a writable one");
	if (length == 0) /* says nothing, and nothing forbids it */
		return 0;
	at = memory_at(vq->memory, address, length);
	if (!at)
		return vq_fault(vq, "a descriptor is outside RAM");
	if (__builtin_add_overflow(*total, length, total))
		return vq_fault(vq, "a descriptor chain is longer than 4 GiB");
	if (entries >= walk->room)
		return vq_fault(vq, "a descriptor chain has too many parts");
	walk->iov[entries] = (struct iovec){ .iov_base = at, .iov_len = length };
	if (writable)
		buffer->writable++;
	else
		buffer->readable++;
	return 0;
}

#endif
