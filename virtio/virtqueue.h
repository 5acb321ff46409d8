/*
 * A virtqueue, the device's side of it (virtio 1.3, 2.6 to 2.8): takes buffers that the driver made
 * available, returns them used. Knows rings and guest memory only: no device, no thread, no
 * interrupt.
 *
 * One thread at a time (the queue's reactor). No function allocates. All ring and descriptor fields
 * are read once, checked, then used; whatever a driver writes, the process is safe, and a broken
 * ring is -EPROTO with `fault` saying what.
 */
#ifndef VIRTIO_VIRTQUEUE_H
#define VIRTIO_VIRTQUEUE_H

#include <sys/uio.h>
#include "vm/memory.h"

#define VQ_MAX_SIZE 1024 /* what our devices offer at most */

/* One buffer: first its device-readable part, then its device-writable one. */
struct vq_buffer {
	struct iovec *iov;  /* readable ones first; host pointers into guest memory */
	u16 readable;	    /* how many of iov */
	u16 writable;	    /* how many after them */
	u16 head;	    /* what vq_push() wants back: below the ring's size */
	u32 readable_bytes; /* totals; a chain past 4 GiB is a fault */
	u32 writable_bytes;
};

struct vq_setup {
	const struct memory *memory;
	u16 size;      /* 1 to VQ_MAX_SIZE; split: power of two */
	u16 chain_max; /* longest chain that there is room for; 0: size */
	u64 descriptors, driver,
		device;		  /* guest-physical: descriptor area, driver area, device area */
	bool event_idx, indirect; /* negotiated */
	bool notify_on_empty;	  /* negotiated (legacy) */
	bool packed;		  /* negotiated: vq_packed is the format */
	bool in_order;		  /* negotiated */
};

struct virtqueue;

/* What differs between the split and the packed format; and what stands around one of them. */
struct vq_format {
	int (*start)(struct virtqueue *vq, const struct vq_setup *setup);
	int (*pop)(struct virtqueue *vq, struct vq_buffer *buffer, struct iovec *iov, u16 max);
	void (*unpop)(struct virtqueue *vq, u16 count);
	void (*push)(struct virtqueue *vq, u16 head, u32 written);
	/* One more buffer for which the element pushed last stands, and which was taken before it;
	 * only in order (2.7.9, 2.8.8). */
	void (*skip)(struct virtqueue *vq, u16 head);
	bool (*publish)(struct virtqueue *vq);
	void (*mute)(struct virtqueue *vq);
	bool (*unmute)(struct virtqueue *vq);
	bool (*available)(const struct virtqueue *vq);
};

extern const struct vq_format vq_split, vq_packed, vq_in_order;

/* A place in a packed ring, and the two flags that its wrap counter stands for there. */
struct vq_place {
	u16 at, flags;
};

/* In order: what became of a buffer. */
struct vq_pushed {
	u32 writable, written; /* bytes */
	bool done;
};

struct virtqueue {
	const struct vq_format *format;
	const struct vq_format *inner; /* in order: the one that vq_in_order is around */
	const struct memory *memory;
	const char *fault; /* what the driver broke, or NULL */
	u16 size, chain_max;
	bool event_idx, indirect, notify_on_empty;
	bool muted;
	/* host pointers, checked to lie in RAM for their whole length */
	void *descriptors;
	void *available; /* the driver area: available ring, or driver event suppression */
	void *used;	 /* the device area: used ring, or device event suppression */
	/* free-running, in ring entries: split, of the two rings; packed, descriptors */
	u16 next_available;		 /* next entry to take */
	u16 next_used;			 /* next entry to write */
	u16 published;			 /* the used index the driver saw last */
	u64 in_flight[VQ_MAX_SIZE / 64]; /* heads popped and not yet pushed or unpopped */
	/* packed ring */
	struct vq_place take, use; /* the next descriptor to take, and to write as used */
	u16 hidden_at;		   /* the first of those used and not yet shown ... */
	u64 hidden;		   /* ... and what will show them all: its last eight bytes */

	/* in order: places in order[] of the oldest buffer out, and behind the newest */
	u16 oldest, newest;

	/* not cleared at the start */
	u16 taken[VQ_MAX_SIZE]; /* heads popped, by their (last) place in the ring */
	u16 span[VQ_MAX_SIZE];	/* packed, by head: descriptors, and whether one is writable */
	u16 order[VQ_MAX_SIZE]; /* in order: heads out */
	struct vq_pushed pushed[VQ_MAX_SIZE]; /* in order: by head */
};

/* Begins with an empty ring at index 0 (2.6.1), wrap counters at 1 (2.8.1). -EINVAL: bad size or
 * alignment; -EFAULT: an area outside RAM; vq->fault says which. */
int vq_start(struct virtqueue *vq, const struct vq_format *format, const struct vq_setup *setup);

/*
 * Takes the next available buffer; its iovecs go to iov[max]. 1: got one; 0: none available;
 * -EPROTO: the driver broke the ring, vq->fault says how, and nothing more is taken. max of at
 * least vq->chain_max never runs out, since longer chains are a fault. 2.7.5.3.1 allows none longer
 * than the queue, but drivers on small queues do fill long indirect tables. At most vq->size
 * buffers are out at a time, none twice: the rest is a fault too.
 */
static inline int vq_pop(struct virtqueue *vq, struct vq_buffer *buffer, struct iovec *iov, u16 max)
{
	return vq->format->pop(vq, buffer, iov, max);
}

/* Puts the last `count` popped buffers back as if never taken; none of them pushed, nothing popped
 * since. */
static inline void vq_unpop(struct virtqueue *vq, u16 count)
{
	vq->format->unpop(vq, count);
}

/* Adds a used element, not yet visible: written is how many bytes from the start of the writable
 * part the device wrote at least (2.7.8.2, 2.8.4). Completion order is free: with IN_ORDER it waits
 * for those that were taken before. */
static inline void vq_push(struct virtqueue *vq, u16 head, u32 written)
{
	vq->format->push(vq, head, written);
}

/* Makes all pushed elements visible at once. True if the driver wants to be notified of them
 * (2.7.7.2, 2.8.10). */
static inline bool vq_publish(struct virtqueue *vq)
{
	return vq->format->publish(vq);
}

/* Asks the driver for no available buffer notifications: a hint (2.7.10, 2.8.10). */
static inline void vq_mute(struct virtqueue *vq)
{
	vq->format->mute(vq);
}

/* Asks for notifications again. True if buffers became available meanwhile, so that the caller must
 * go on (the full fence between is inside, and pairs with the driver's between its index and its
 * reading of our wish). */
static inline bool vq_unmute(struct virtqueue *vq)
{
	return vq->format->unmute(vq);
}

/* Is there a buffer to take? Looks only, for busy-polling. */
static inline bool vq_available(const struct virtqueue *vq)
{
	return vq->format->available(vq);
}

#endif
