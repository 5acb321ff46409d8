/*
 * The split virtqueue, device side (virtio 1.3, 2.7). Runs on the queue's reactor.
 *
 * The three ring areas are checked once, at the start, and then used by host pointers. What the
 * driver writes into them may change at any time: each field is loaded exactly once (atomically, or
 * a descriptor by one copy), checked, and only the copy is used.
 *
 * The order of these accesses is what keeps notifications from being lost: who changes it changes
 * tests/unit/model-device.h too, which tries every interleaving with a driver.
 */
#include <linux/virtio_ring.h>
#include "virtio/vq-chain.h"

/* All ring fields are naturally aligned, as the areas are (2.7: 16, 2 and 4). */
static u16 ring_load(const __virtio16 *from)
{
	return le16toh(__atomic_load_n(from, __ATOMIC_RELAXED));
}

static u16 ring_load_acquire(const __virtio16 *from)
{
	return le16toh(__atomic_load_n(from, __ATOMIC_ACQUIRE));
}

static void ring_store(__virtio16 *to, u16 value)
{
	__atomic_store_n(to, htole16(value), __ATOMIC_RELAXED);
}

/* An indirect table may lie at any address, so a descriptor is copied bytewise, in two halves; the
 * barrier keeps the compiler from reading guest memory a second time. */
static struct vring_desc desc_load(const struct vring_desc *from)
{
	u64 low, high;

	memcpy(&low, from, sizeof(low));
	memcpy(&high, &from->len, sizeof(high));
	__asm__ volatile("" : "+r"(low), "+r"(high));
	high = le64toh(high);
	return (struct vring_desc){
		.addr = le64toh(low),
		.len = (u32)high,
		.flags = (u16)(high >> 32),
		.next = (u16)(high >> 48),
	};
}

/* 2.7.10: behind the used ring's last entry. */
static __virtio16 *avail_event(const struct virtqueue *vq)
{
	struct vring_used *used = vq->used;

	return (__virtio16 *)(void *)&used->ring[vq->size];
}

static const __virtio16 *used_event(const struct virtqueue *vq)
{
	struct vring_avail *available = vq->available;

	return &available->ring[vq->size];
}

static int split_start(struct virtqueue *vq, const struct vq_setup *setup)
{
	u64 size = setup->size;

	if (size & (size - 1)) {
		vq->fault = "queue size is not a power of two";
		return -EINVAL;
	}
	if (setup->descriptors % VRING_DESC_ALIGN_SIZE || setup->driver % VRING_AVAIL_ALIGN_SIZE ||
	    setup->device % VRING_USED_ALIGN_SIZE) {
		vq->fault = "a ring area is misaligned";
		return -EINVAL;
	}
	/* Lengths with the event fields, which are reserved there even when not negotiated (2.7).
	 */
	vq->descriptors = memory_at(setup->memory, setup->descriptors, 16 * size);
	vq->available = memory_at(setup->memory, setup->driver, 6 + 2 * size);
	vq->used = memory_at(setup->memory, setup->device, 6 + 8 * size);
	if (!vq->descriptors || !vq->available || !vq->used) {
		vq->fault = "a ring area is outside RAM";
		return -EFAULT;
	}
	/* 2.7.10.1: with EVENT_IDX the flags are 0; without, notifications begin enabled. */
	ring_store(&((struct vring_used *)vq->used)->flags, 0);
	return 0;
}

/* 2.7.5.3: a descriptor that refers to a table of its own: the table, and how many entries it has;
 * or NULL. WRITE means nothing here (2.7.5.3.2). */
static const struct vring_desc *indirect_table(struct virtqueue *vq, u64 address, u32 length,
					       u16 flags, u32 *entries)
{
	const struct vring_desc *table = NULL;

	*entries = length / sizeof(*table);
	if (!vq->indirect)
		vq_fault(vq, "an indirect descriptor without the feature");
	else if (flags & VRING_DESC_F_NEXT)
		vq_fault(vq, "an indirect descriptor with a next one");
	else if (length == 0 || length % sizeof(*table))
		vq_fault(vq, "an indirect table's length is not a multiple of 16");
	else if (*entries > UINT16_MAX + 1u)
		vq_fault(vq, "an indirect table is longer than an index can say");
	else if (!(table = memory_at(vq->memory, address, length)))
		vq_fault(vq, "an indirect table is outside RAM");
	return table;
}

/* Along the chain in the queue's table, and on in an indirect one, from whose entry 0 it goes and
 * which it does not leave. */
VQ_WALK_INLINE int walk_chain(struct virtqueue *vq, struct vq_walk *walk, u16 head)
{
	const struct vring_desc *table = vq->descriptors;
	u32 entries = vq->size, steps = 0, at = head;
	bool inside = false;

	for (;;) {
		struct vring_desc desc = desc_load(&table[at]);
		int err;

		if (desc.flags & VRING_DESC_F_INDIRECT) {
			if (inside)
				return vq_fault(vq,
						"an indirect descriptor inside an indirect table");
			table = indirect_table(vq, desc.addr, desc.len, desc.flags, &entries);
			if (!table)
				return -EPROTO;
			inside = true;
			steps = 0;
			at = 0;
			continue;
		}
		err = vq_walk_element(vq, walk, desc.addr, desc.len,
				      desc.flags & VRING_DESC_F_WRITE);
		if (err || !(desc.flags & VRING_DESC_F_NEXT))
			return err;
		at = desc.next;
		if (at >= entries)
			return vq_fault(vq,
					inside ? "a next index is outside its indirect table"
					       : "a next index is outside the descriptor table");
		if (++steps == entries)
			return vq_fault(vq, "a descriptor chain loops");
	}
}

static int split_pop(struct virtqueue *vq, struct vq_buffer *buffer, struct iovec *iov, u16 max)
{
	const struct vring_avail *available = vq->available;
	struct vq_walk walk;
	u16 place = vq->next_available & (vq->size - 1);
	u16 index, head;
	int err;

	if (vq->fault)
		return -EPROTO;
	/* Pairs with the driver's barrier between its ring entries and its index (2.7.13.3). */
	index = ring_load_acquire(&available->idx);
	if (index == vq->next_available)
		return 0;
	/* Every buffer out takes a descriptor at least until its used index was seen: more than the
	 * size cannot be. This bounds what a serve takes and what is in flight, whatever the driver
	 * writes. */
	if ((u16)(index - vq->next_available) > vq->size || (u16)(index - vq->published) > vq->size)
		return vq_fault(vq, "the available index jumped");
	head = ring_load(&available->ring[place]);
	if (head >= vq->size)
		return vq_fault(vq, "a head is outside the descriptor table");
	if (vq_is_out(vq, head))
		return vq_fault(vq, "a buffer in flight was made available again");

	walk = vq_walk_begin(vq, iov, max);
	err = walk_chain(vq, &walk, head);
	if (!err)
		err = vq_walk_end(vq, &walk, buffer, iov, head);
	if (err)
		return err;
	vq_set_out(vq, head);
	vq->taken[place] = head;
	vq->next_available++;
	return 1;
}

static void split_unpop(struct virtqueue *vq, u16 count)
{
	u16 head;

	while (count--) {
		vq->next_available--;
		head = vq->taken[vq->next_available & (vq->size - 1)];
		vq_clear_out(vq, head);
	}
}

static void split_push(struct virtqueue *vq, u16 head, u32 written)
{
	struct vring_used *used = vq->used;
	struct vring_used_elem *element = &used->ring[vq->next_used & (vq->size - 1)];

	__atomic_store_n(&element->id, htole32(head), __ATOMIC_RELAXED);
	__atomic_store_n(&element->len, htole32(written), __ATOMIC_RELAXED);
	vq_clear_out(vq, head);
	vq->next_used++;
}

static void split_skip(struct virtqueue *vq, u16 head)
{
	vq_clear_out(vq, head);
	vq->next_used++;
}

static bool split_publish(struct virtqueue *vq)
{
	const struct vring_avail *available = vq->available;
	struct vring_used *used = vq->used;
	u16 old = vq->published, new = vq->next_used;

	if (old == new)
		return false;
	/* 2.7.8.2: elements (and the data) before the index. */
	__atomic_store_n(&used->idx, htole16(new), __ATOMIC_RELEASE);
	vq->published = new;
	/* 2.7.7.2: the index before the driver's wish is read; pairs with the driver's barrier
	 * between writing used_event (or flags) and its last look at the index. */
	vq_full_fence();
	if (vq->notify_on_empty && ring_load(&available->idx) == vq->next_available)
		return true;
	if (vq->event_idx) /* avail flags are to be ignored */
		return vring_need_event(ring_load(used_event(vq)), new, old);
	return !(ring_load(&available->flags) & VRING_AVAIL_F_NO_INTERRUPT);
}

static bool split_available(const struct virtqueue *vq)
{
	const struct vring_avail *available = vq->available;

	return ring_load_acquire(&available->idx) != vq->next_available;
}

static void split_mute(struct virtqueue *vq)
{
	if (vq->muted)
		return;
	vq->muted = true;
	/* With EVENT_IDX avail_event just stays behind once the driver has crossed it; before that
	 * it is put there. */
	if (!vq->event_idx)
		ring_store(&((struct vring_used *)vq->used)->flags, VRING_USED_F_NO_NOTIFY);
	else if (!split_available(vq))
		ring_store(avail_event(vq), (u16)(vq->next_available - 1));
}

static bool split_unmute(struct virtqueue *vq)
{
	vq->muted = false;
	if (vq->event_idx)
		ring_store(avail_event(vq), vq->next_available);
	else
		ring_store(&((struct vring_used *)vq->used)->flags, 0);
	/* 2.7.10.1: our wish before the index is read again; pairs with the driver's barrier
	 * between its index and its reading of our wish. */
	vq_full_fence();
	return split_available(vq);
}

const struct vq_format vq_split = {
	.start = split_start,
	.pop = split_pop,
	.unpop = split_unpop,
	.push = split_push,
	.skip = split_skip,
	.publish = split_publish,
	.mute = split_mute,
	.unmute = split_unmute,
	.available = split_available,
};
