/*
 * The packed virtqueue, device side (virtio 1.3, 2.8). Runs on the queue's reactor.
 *
 * One ring of descriptors, which both sides write: the driver makes them available in ring order,
 * the device overwrites them with used ones in ring order too, one for each buffer, and both skip
 * what a chain has beyond its first. Whose turn a descriptor is says its last field, flags, by two
 * bits compared with a wrap counter.
 *
 * A descriptor is two words of eight bytes: the address, and a tail of length, buffer id and flags.
 * The tail is loaded and stored as one, so what belongs together is read once and together; the
 * address is read after the flags have said that it is there. Only the copies are checked and used.
 */
#include <linux/virtio_ring.h>
#include "virtio/vq-chain.h"

#define F_AVAIL BIT(VRING_PACKED_DESC_F_AVAIL)
#define F_USED	BIT(VRING_PACKED_DESC_F_USED)
#define F_TURN	(F_AVAIL | F_USED)

/* 2.8.1: what the flags of an available descriptor are while the wrap counter is 1. The device's
 * used descriptors have both flags then, and neither while it is 0. */
#define AVAILABLE_AT_1 F_AVAIL
#define USED_AT_1      F_TURN

/* span[]: how many descriptors a buffer has in the ring, and whether a part of it is writable */
#define SPAN_WRITABLE BIT(15)

/* struct vring_packed_desc from its length on. */
struct tail {
	u32 length;
	u16 id, flags;
};

static u64 *tail_at(const struct virtqueue *vq, u32 at)
{
	return (u64 *)vq->descriptors + 2ul * at + 1;
}

static struct tail tail_of(u64 raw)
{
	u64 word = le64toh(raw);

	return (struct tail){ (u32)word, (u16)(word >> 32), (u16)(word >> 48) };
}

static u64 make_tail(u32 length, u16 id, u16 flags)
{
	return htole64(length | (u64)id << 32 | (u64)flags << 48);
}

static void move(const struct virtqueue *vq, struct vq_place *place, u16 by)
{
	u32 at = (u32)place->at + by;

	if (at >= vq->size) {
		at -= vq->size;
		place->flags ^= F_TURN;
	}
	place->at = (u16)at;
}

static void move_back(const struct virtqueue *vq, struct vq_place *place, u16 by)
{
	u32 at = place->at;

	if (at < by) {
		at += vq->size;
		place->flags ^= F_TURN;
	}
	place->at = (u16)(at - by);
}

static void ask(struct virtqueue *vq, u16 offset_wrap, u16 flags)
{
	/* Both fields at once: a driver never sees the flag with another event's place. */
	__atomic_store_n((u32 *)vq->used, htole32(offset_wrap | (u32)flags << 16),
			 __ATOMIC_RELAXED);
}

static int packed_start(struct virtqueue *vq, const struct vq_setup *setup)
{
	const u64 event_bytes = sizeof(struct vring_packed_desc_event);

	/* 2.8.10.1 */
	if (setup->descriptors % sizeof(struct vring_packed_desc) || setup->driver % event_bytes ||
	    setup->device % event_bytes) {
		vq->fault = "a ring area is misaligned";
		return -EINVAL;
	}
	vq->descriptors = memory_at(setup->memory, setup->descriptors,
				    sizeof(struct vring_packed_desc) * (u64)setup->size);
	vq->available = memory_at(setup->memory, setup->driver, event_bytes);
	vq->used = memory_at(setup->memory, setup->device, event_bytes);
	if (!vq->descriptors || !vq->available || !vq->used) {
		vq->fault = "a ring area is outside RAM";
		return -EFAULT;
	}
	vq->take = (struct vq_place){ 0, AVAILABLE_AT_1 };
	vq->use = (struct vq_place){ 0, USED_AT_1 };
	ask(vq, 0, VRING_PACKED_EVENT_FLAG_ENABLE);
	return 0;
}

/* 2.8.7: where the table is that a descriptor refers to, which has one in length / 16 of them, or
 * NULL. WRITE and whose turn it is mean nothing here. */
static const struct vring_packed_desc *indirect_table(struct virtqueue *vq, u64 address, u32 length)
{
	const struct vring_packed_desc *table = NULL;

	if (!vq->indirect)
		vq_fault(vq, "an indirect descriptor without the feature");
	else if (length == 0 || length % sizeof(*table))
		vq_fault(vq, "an indirect table's length is not a multiple of 16");
	else if (length / sizeof(*table) > vq->chain_max)
		vq_fault(vq, "an indirect table is longer than the queue");
	else if (!(table = memory_at(vq->memory, address, length)))
		vq_fault(vq, "an indirect table is outside RAM");
	return table;
}

/* All of the table is the buffer, in order; of the flags in it only WRITE means anything, and its
 * ids nothing. It may lie at any address, so halves are copied bytewise; the barrier keeps the
 * compiler from a second look. */
VQ_WALK_INLINE int walk_table(struct virtqueue *vq, struct vq_walk *walk,
			      const struct vring_packed_desc *table, u32 length)
{
	u32 entries = length / sizeof(*table);
	u64 address, tail;
	int err = 0;

	for (u32 i = 0; i < entries && !err; i++) {
		memcpy(&address, &table[i], sizeof(address));
		memcpy(&tail, &table[i].len, sizeof(tail));
		__asm__ volatile("" : "+r"(address), "+r"(tail));
		err = vq_walk_element(vq, walk, le64toh(address), tail_of(tail).length,
				      tail_of(tail).flags & VRING_DESC_F_WRITE);
	}
	return err;
}

/*
 * From the descriptor at *place, which is available and whose tail is given, to the chain's last;
 * *place moves behind it. Returns how many there are and, in *id, the buffer's id, or -EPROTO.
 */
VQ_WALK_INLINE int walk_ring(struct virtqueue *vq, struct vq_walk *walk, struct vq_place *place,
			     struct tail tail, u16 *id)
{
	/* Descriptors are the driver's again when it saw them used, and not before. This bounds
	 * what is taken and in flight, whatever the driver writes. */
	u16 free = (u16)(vq->size - (u16)(vq->next_available - vq->published));
	const struct vring_packed_desc *table;
	u64 address;
	int err;

	for (u16 steps = 1; steps <= free; steps++) {
		address = le64toh(__atomic_load_n(tail_at(vq, place->at) - 1, __ATOMIC_RELAXED));
		*id = tail.id; /* the last one counts (2.8.6) */
		move(vq, place, 1);
		if (tail.flags & VRING_DESC_F_INDIRECT) {
			/* 2.8.5, 2.8.19: a list is of one kind */
			if (steps > 1 || tail.flags & VRING_DESC_F_NEXT)
				return vq_fault(vq, "an indirect descriptor in a chain");
			table = indirect_table(vq, address, tail.length);
			err = table ? walk_table(vq, walk, table, tail.length) : -EPROTO;
			return err ? err : 1;
		}
		err = vq_walk_element(vq, walk, address, tail.length,
				      tail.flags & VRING_DESC_F_WRITE);
		if (err)
			return err;
		if (!(tail.flags & VRING_DESC_F_NEXT))
			return steps;
		tail = tail_of(__atomic_load_n(tail_at(vq, place->at), __ATOMIC_RELAXED));
		/* 2.8.6, 2.8.17: the first is made available after all others are */
		if ((tail.flags & F_TURN) != place->flags)
			return vq_fault(vq, "a chain goes on with a descriptor that is not there");
	}
	return vq_fault(vq, free ? "a descriptor chain is longer than the queue has room for"
				 : "a descriptor in flight was made available again");
}

static int packed_pop(struct virtqueue *vq, struct vq_buffer *buffer, struct iovec *iov, u16 max)
{
	struct vq_place place = vq->take;
	struct vq_walk walk;
	struct tail tail;
	int count;
	u16 id;

	if (vq->fault)
		return -EPROTO;
	/* Pairs with the driver's barrier between a chain and its first flags (2.8.21.1.1). */
	tail = tail_of(__atomic_load_n(tail_at(vq, place.at), __ATOMIC_ACQUIRE));
	if ((tail.flags & F_TURN) != place.flags)
		return 0;
	walk = vq_walk_begin(vq, iov, max);
	count = walk_ring(vq, &walk, &place, tail, &id);
	if (count < 0)
		return count;
	if (id >= vq->size)
		return vq_fault(vq, "a buffer id is outside the ring");
	if (vq_is_out(vq, id))
		return vq_fault(vq, "a buffer in flight was made available again");
	if (vq_walk_end(vq, &walk, buffer, iov, id))
		return -EPROTO;
	vq_set_out(vq, id);
	vq->span[id] = (u16)((u32)count | (buffer->writable ? SPAN_WRITABLE : 0));
	vq->taken[place.at ? place.at - 1 : vq->size - 1] = id;
	vq->take = place;
	vq->next_available = (u16)(vq->next_available + count);
	return 1;
}

static void packed_unpop(struct virtqueue *vq, u16 count)
{
	u16 id, span;

	while (count--) {
		id = vq->taken[vq->take.at ? vq->take.at - 1 : vq->size - 1];
		span = vq->span[id] & (u16)~SPAN_WRITABLE;
		move_back(vq, &vq->take, span);
		vq->next_available = (u16)(vq->next_available - span);
		vq_clear_out(vq, id);
	}
}

static void packed_skip(struct virtqueue *vq, u16 id)
{
	u16 span = vq->span[id] & (u16)~SPAN_WRITABLE;

	move(vq, &vq->use, span);
	vq->next_used = (u16)(vq->next_used + span);
	vq_clear_out(vq, id);
}

static void packed_push(struct virtqueue *vq, u16 id, u32 written)
{
	u16 span = vq->span[id];
	/* 2.8.3: whether anything was written. That it was not, nobody knows for a buffer that has
	 * a writable part; then the length says for how much of it that is certain. */
	u64 tail =
		make_tail(written, id,
			  (u16)(vq->use.flags | (span & SPAN_WRITABLE ? VRING_DESC_F_WRITE : 0)));

	/* The driver looks at the next descriptor only (2.8.2): while the first is not shown, no
	 * later one is seen. */
	if (vq->published == vq->next_used) {
		vq->hidden_at = vq->use.at;
		vq->hidden = tail;
	} else {
		__atomic_store_n(tail_at(vq, vq->use.at), tail, __ATOMIC_RELAXED);
	}
	packed_skip(vq, id);
}

/* 2.8.10: did the last `used` descriptors, up to where we stand, pass the driver's event? */
static bool passed(const struct virtqueue *vq, u16 offset_wrap, u16 used)
{
	u16 event = offset_wrap & (u16)~BIT(VRING_PACKED_EVENT_F_WRAP_CTR);
	bool wrap = offset_wrap >> VRING_PACKED_EVENT_F_WRAP_CTR;

	if (wrap != (vq->use.flags == USED_AT_1)) /* in the round before this one */
		event = (u16)(event - vq->size);
	return vring_need_event(event, vq->use.at, (u16)(vq->use.at - used));
}

static bool packed_publish(struct virtqueue *vq)
{
	u16 used = (u16)(vq->next_used - vq->published);
	u32 wish;

	if (!used)
		return false;
	/* The other used descriptors (and the data) before the first. */
	__atomic_store_n(tail_at(vq, vq->hidden_at), vq->hidden, __ATOMIC_RELEASE);
	vq->published = vq->next_used;
	/* The descriptor before the driver's wish is read; pairs with the driver's barrier between
	 * writing the wish and its last look at the ring (2.8.22). */
	vq_full_fence();
	wish = le32toh(__atomic_load_n((const u32 *)vq->available, __ATOMIC_RELAXED));
	switch (wish >> 16 & 3) {
	case VRING_PACKED_EVENT_FLAG_DISABLE:
		return false;
	case VRING_PACKED_EVENT_FLAG_DESC:
		return !vq->event_idx || passed(vq, (u16)wish, used);
	default: /* and the reserved value: once too often does no harm */
		return true;
	}
}

static void packed_mute(struct virtqueue *vq)
{
	if (vq->muted)
		return;
	vq->muted = true;
	/* An event left behind would do for a round of the ring or two, not for a driver that is
	 * busy-polled. */
	ask(vq, 0, VRING_PACKED_EVENT_FLAG_DISABLE);
}

static bool packed_available(const struct virtqueue *vq)
{
	u64 tail = __atomic_load_n(tail_at(vq, vq->take.at), __ATOMIC_ACQUIRE);

	return (tail_of(tail).flags & F_TURN) == vq->take.flags;
}

static bool packed_unmute(struct virtqueue *vq)
{
	bool wrap = vq->take.flags == AVAILABLE_AT_1;

	vq->muted = false;
	if (vq->event_idx)
		ask(vq, (u16)(vq->take.at | (u32)wrap << VRING_PACKED_EVENT_F_WRAP_CTR),
		    VRING_PACKED_EVENT_FLAG_DESC);
	else
		ask(vq, 0, VRING_PACKED_EVENT_FLAG_ENABLE);
	/* Our wish before the ring is looked at again; pairs with the driver's barrier between its
	 * flags and its reading of our wish (2.8.21.2). */
	vq_full_fence();
	return packed_available(vq);
}

const struct vq_format vq_packed = {
	.start = packed_start,
	.pop = packed_pop,
	.unpop = packed_unpop,
	.push = packed_push,
	.skip = packed_skip,
	.publish = packed_publish,
	.mute = packed_mute,
	.unmute = packed_unmute,
	.available = packed_available,
};
