/*
 * What both ring formats do with a buffer's descriptors: check each and gather its iovecs. For
 * vq-split.c and vq-packed.c alone; on the queue's reactor.
 */
#ifndef VIRTIO_VQ_CHAIN_H
#define VIRTIO_VQ_CHAIN_H

#include <errno.h>
#include "virtio/virtqueue.h"

/* The driver broke a rule: nothing more is taken. */
static inline __attribute__((cold)) int vq_fault(struct virtqueue *vq, const char *what)
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

/*
 * A walk through one chain, direct or in its indirect table. Lives in registers while it lasts: all
 * that touches it is inlined, and what it needs of the queue is copied, because the compiler has to
 * suppose that a store to iov changes anything that a pointer leads to.
 */
struct vq_walk {
	u8 *low; /* RAM below the hole, where most addresses are */
	u64 low_size;
	u32 left; /* descriptors that the chain may still have, those of length 0 included */
	struct iovec *iov, *end; /* the next to fill, and where the room for them ends */
	struct iovec *writable;	 /* where the writable part begins; NULL: it has not */
	u64 bytes;		 /* of the part that grows */
	u64 readable_bytes;	 /* once the writable part has begun */
};

#define VQ_WALK_INLINE static inline __attribute__((always_inline))

VQ_WALK_INLINE struct vq_walk vq_walk_begin(const struct virtqueue *vq, struct iovec *iov, u32 max)
{
	return (struct vq_walk){
		.low = vq->memory->low,
		.low_size = vq->memory->low_size,
		.iov = iov,
		.end = iov + max,
		.left = vq->chain_max,
	};
}

/* One element, as the driver's descriptor says it, which was read once. 0 or -EPROTO. */
VQ_WALK_INLINE int vq_walk_element(struct virtqueue *vq, struct vq_walk *walk, u64 address,
				   u32 length, bool writable)
{
	void *at;

	if (!walk->left--)
		return vq_fault(vq, "a descriptor chain is longer than the queue");
	/* 2.7.4.2, 2.8.17: readable first. A device that tolerated it would misplace the payload.
	 */
	if (!writable && walk->writable)
		return vq_fault(vq, "a readable descriptor follows a writable one");
	if (length == 0) /* says nothing, and nothing forbids it */
		return 0;
	if (writable && !walk->writable) {
		walk->writable = walk->iov;
		walk->readable_bytes = walk->bytes;
		walk->bytes = 0;
	}
	if (address < walk->low_size && length <= walk->low_size - address)
		at = walk->low + address;
	else if (!(at = memory_at(vq->memory, address, length)))
		return vq_fault(vq, "a descriptor is outside RAM");
	if (walk->iov == walk->end)
		return vq_fault(vq, "a descriptor chain has too many parts");
	*walk->iov++ = (struct iovec){ .iov_base = at, .iov_len = length };
	walk->bytes += length;
	return 0;
}

/* The chain, which fills iov from its beginning, is complete. 0 or -EPROTO. */
VQ_WALK_INLINE int vq_walk_end(struct virtqueue *vq, const struct vq_walk *walk,
			       struct vq_buffer *buffer, struct iovec *iov, u16 head)
{
	const struct iovec *writable = walk->writable ? walk->writable : walk->iov;
	u64 readable_bytes = walk->writable ? walk->readable_bytes : walk->bytes;
	u64 writable_bytes = walk->writable ? walk->bytes : 0;

	/* at most 2^16 elements of less than 2^32 bytes: the sums cannot have wrapped */
	if ((readable_bytes | writable_bytes) > UINT32_MAX)
		return vq_fault(vq, "a descriptor chain is longer than 4 GiB");
	buffer->iov = iov;
	buffer->readable = (u16)(writable - iov);
	buffer->writable = (u16)(walk->iov - writable);
	buffer->head = head;
	buffer->readable_bytes = (u32)readable_bytes;
	buffer->writable_bytes = (u32)writable_bytes;
	return 0;
}

#endif
