/*
 * The strict checker's part that watches rings: a format around the real one (virtio 1.3, 2.7 and
 * 2.8). On the queue's reactor; what it reads of guest memory it reads for itself, once more than
 * the real format, so that a driver which changes it meanwhile gets a line more or less, and
 * nothing else.
 */
#include <linux/virtio_ring.h>
#include "virtio/strict.h"

static struct virtio_queue *queue_of(struct virtqueue *vq)
{
	return container_of(vq, struct virtio_queue, ring);
}

static struct strict_queue *strict_of(struct virtqueue *vq)
{
	struct virtio_queue *queue = queue_of(vq);

	return &queue->device->strict->queues[queue->index];
}

/* ---- faults, which are violations in any case ---- */

void strict_fault(struct virtio_queue *queue)
{
	static const struct {
		const char *words;
		enum strict_rule rule;
	} known[] = {
		{ "loops", STRICT_RING_LOOP },
		{ "outside RAM", STRICT_RING_MEMORY },
		{ "longer than the queue", STRICT_RING_LONG },
		{ "indirect", STRICT_RING_INDIRECT },
		{ "misaligned", STRICT_QUEUE_ALIGNMENT },
		{ "queue size", STRICT_QUEUE_SIZE },
		{ "readable", STRICT_RING_ORDER },
		{ "parts", STRICT_RING_LONG },
		{ "GiB", STRICT_RING_BYTES },
		{ "jumped", STRICT_RING_INDEX },
		{ "head", STRICT_RING_HEAD },
		{ "buffer id", STRICT_RING_HEAD },
		{ "next index", STRICT_RING_HEAD },
		{ "in flight", STRICT_RING_IN_FLIGHT },
	};
	const char *fault = queue->ring.fault;

	for (size_t i = 0; fault && i < ARRAY_SIZE(known); i++)
		if (strstr(fault, known[i].words)) {
			strict_report(queue->device, queue, known[i].rule, "%s", fault);
			return;
		}
	strict_report(queue->device, queue, STRICT_RING_FORMAT, "%s",
		      fault ? fault : "it is broken");
}

/* ---- chains of a split ring ---- */

struct chain {
	u64 sum;
	u32 count; /* descriptors that are buffers */
	u16 flags; /* all of them */
};

static u64 mix(u64 sum, u64 value)
{
	return (sum ^ value) * 0x9e3779b97f4a7c15ull + (sum >> 29);
}

static struct vring_desc load(const struct vring_desc *from)
{
	struct vring_desc raw, desc;

	memcpy(&raw, from, sizeof(raw));
	__asm__ volatile("" ::: "memory");
	desc.addr = le64toh(raw.addr);
	desc.len = le32toh(raw.len);
	desc.flags = le16toh(raw.flags);
	desc.next = le16toh(raw.next);
	return desc;
}

static void add(struct chain *chain, const struct vring_desc *desc)
{
	chain->sum = mix(mix(chain->sum, desc->addr),
			 (u64)desc->len << 32 | (u64)desc->flags << 16 |
				 (desc->flags & VRING_DESC_F_NEXT ? desc->next : 0));
	chain->flags |= desc->flags;
	chain->count += !(desc->flags & VRING_DESC_F_INDIRECT);
}

/* Through a table of `entries`, for so many steps at most; the descriptor that refers to an
 * indirect table, if there is one, is left in *last. */
static void walk(struct chain *chain, const struct vring_desc *table, u32 entries, u32 at,
		 u32 steps, struct vring_desc *last)
{
	while (steps-- && at < entries) {
		*last = load(&table[at]);
		add(chain, last);
		if (last->flags & VRING_DESC_F_INDIRECT || !(last->flags & VRING_DESC_F_NEXT))
			return;
		at = last->next;
	}
}

static struct chain look(struct virtqueue *vq, u16 head)
{
	struct vring_desc last = { 0 }, inner;
	struct chain chain = { 0 };
	const void *table;

	walk(&chain, vq->descriptors, vq->size, head, vq->size, &last);
	if (!(last.flags & VRING_DESC_F_INDIRECT))
		return chain;
	table = memory_at(vq->memory, last.addr, last.len);
	if (table)
		walk(&chain, table, last.len / (u32)sizeof(inner), 0, vq->chain_max, &inner);
	return chain;
}

static void check_split(struct virtqueue *vq, struct strict_queue *strict, u16 head)
{
	const u16 known = VRING_DESC_F_NEXT | VRING_DESC_F_WRITE | VRING_DESC_F_INDIRECT;
	struct virtio_queue *queue = queue_of(vq);
	struct chain chain = look(vq, head);

	strict->chains[head].sum = chain.sum;
	if (chain.flags & ~known)
		strict_report(queue->device, queue, STRICT_RING_FLAGS, "flags 0x%x at head %u",
			      chain.flags & ~known, head);
	if (chain.count > vq->size)
		strict_report(queue->device, queue, STRICT_RING_LONG,
			      "%u descriptors in a queue of %u", chain.count, vq->size);
}

static void check_split_suppression(struct virtqueue *vq)
{
	const struct vring_avail *available = vq->available;
	struct virtio_queue *queue = queue_of(vq);
	u16 flags = le16toh(__atomic_load_n(&available->flags, __ATOMIC_RELAXED));

	if (flags > (vq->event_idx ? 0 : VRING_AVAIL_F_NO_INTERRUPT))
		strict_report(queue->device, queue, STRICT_RING_SUPPRESSION, "flags are 0x%x%s",
			      flags, vq->event_idx ? " with EVENT_IDX" : "");
}

/* ---- chains of a packed ring ---- */

/* The sum of so many descriptors in the ring, from `at` on; the last is left in *address and *tail,
 * and the flags of all are returned in *flags. Each half is loaded as the format does it. */
static u64 sum_of_ring(const struct virtqueue *vq, u32 at, u16 count, u64 *address, u64 *tail,
		       u16 *flags)
{
	const u64 *words = vq->descriptors;
	u64 sum = 0;

	*flags = 0;
	while (count--) {
		*address = le64toh(__atomic_load_n(&words[2 * at], __ATOMIC_RELAXED));
		*tail = le64toh(__atomic_load_n(&words[2 * at + 1], __ATOMIC_RELAXED));
		sum = mix(mix(sum, *address), *tail);
		*flags |= (u16)(*tail >> 48);
		at = at + 1 == vq->size ? 0 : at + 1;
	}
	return sum;
}

/* Of a table; what means nothing in it may change (2.8.7). */
static u64 sum_of_table(const struct virtqueue *vq, u64 at, u32 bytes)
{
	const struct vring_packed_desc *table = memory_at(vq->memory, at, bytes);
	struct vring_packed_desc desc;
	u64 sum = 0;

	for (u32 i = 0; table && i < bytes / sizeof(desc); i++) {
		memcpy(&desc, &table[i], sizeof(desc));
		__asm__ volatile("" ::: "memory");
		sum = mix(mix(sum, le64toh(desc.addr)),
			  (u64)le32toh(desc.len) << 16 |
				  (le16toh(desc.flags) & VRING_DESC_F_WRITE));
	}
	return sum;
}

/* Where in the ring the free-running index stands, which is not before next_used's round. */
static u32 place_of(const struct virtqueue *vq, u16 index)
{
	u32 back = (u16)(vq->next_available - index);

	return vq->take.at >= back ? vq->take.at - back : vq->take.at + vq->size - back;
}

static u16 span_of(const struct virtqueue *vq, u16 id)
{
	return vq->span[id] & 0x7fff;
}

static void check_packed(struct virtqueue *vq, struct strict_queue *strict, u16 id)
{
	const u16 known = VRING_DESC_F_NEXT | VRING_DESC_F_WRITE | VRING_DESC_F_INDIRECT |
			  BIT(VRING_PACKED_DESC_F_AVAIL) | BIT(VRING_PACKED_DESC_F_USED);
	struct strict_chain *chain = &strict->chains[id];
	struct virtio_queue *queue = queue_of(vq);
	u16 span = span_of(vq, id), flags;
	u64 address = 0, tail = 0;

	chain->start = (u16)(vq->next_available - span);
	chain->sum = sum_of_ring(vq, place_of(vq, chain->start), span, &address, &tail, &flags);
	chain->table = address;
	chain->table_bytes = flags & VRING_DESC_F_INDIRECT ? (u32)tail : 0;
	/* read a second time: it need not be what was found good */
	if (chain->table_bytes > vq->size * sizeof(struct vring_packed_desc))
		chain->table_bytes = vq->size * (u32)sizeof(struct vring_packed_desc);
	chain->table_sum = sum_of_table(vq, address, chain->table_bytes);
	if (flags & ~known)
		strict_report(queue->device, queue, STRICT_RING_FLAGS, "flags 0x%x at id %u",
			      flags & ~known, id);
}

/*
 * Used descriptors are written in ring order, over those of whoever was there (2.8.2), and the
 * driver may then make new ones of them: a chain whose place we have passed has only its table
 * left.
 */
static bool packed_changed(const struct virtqueue *vq, const struct strict_chain *chain, u16 id)
{
	u64 address, tail;
	u16 flags;

	if ((u16)(chain->start - vq->next_used) < 0x8000 &&
	    sum_of_ring(vq, place_of(vq, chain->start), span_of(vq, id), &address, &tail, &flags) !=
		    chain->sum)
		return true;
	return sum_of_table(vq, chain->table, chain->table_bytes) != chain->table_sum;
}

/* 2.8.14: what the driver's event structure may say. */
static void check_packed_suppression(struct virtqueue *vq)
{
	u32 wish = le32toh(__atomic_load_n((const u32 *)vq->available, __ATOMIC_RELAXED));
	struct virtio_queue *queue = queue_of(vq);
	u16 flags = (u16)(wish >> 16);

	if (flags >
	    (vq->event_idx ? VRING_PACKED_EVENT_FLAG_DESC : VRING_PACKED_EVENT_FLAG_DISABLE))
		strict_report(queue->device, queue, STRICT_RING_SUPPRESSION, "flags are 0x%x%s",
			      flags, vq->event_idx ? "" : " without EVENT_IDX");
}

/* ---- of either ---- */

static void check_taken(struct virtqueue *vq, struct strict_queue *strict, u16 head)
{
	if (head >= strict->sizes)
		return;
	if (strict->format == &vq_split) {
		check_split_suppression(vq);
		check_split(vq, strict, head);
	} else {
		check_packed_suppression(vq);
		check_packed(vq, strict, head);
	}
}

static void check_unchanged(struct virtqueue *vq, struct strict_queue *strict, u16 head)
{
	struct virtio_queue *queue = queue_of(vq);
	bool changed;

	if (head >= strict->sizes)
		return;
	if (strict->format == &vq_split)
		changed = look(vq, head).sum != strict->chains[head].sum;
	else
		changed = packed_changed(vq, &strict->chains[head], head);
	if (changed)
		strict_report(queue->device, queue, STRICT_RING_CHANGED,
			      "the chain at head %u is another than it was", head);
}

/* ---- the format ---- */

static int strict_start(struct virtqueue *vq, const struct vq_setup *setup)
{
	struct strict_queue *strict = strict_of(vq);

	strict->wishes = 1; /* rings begin with notifications on */
	strict->kicks = strict->taken = strict->wished_at = 0;
	strict->mutes = 0;
	strict->muted = false;
	return strict->format->start(vq, setup);
}

static int strict_pop(struct virtqueue *vq, struct vq_buffer *buffer, struct iovec *iov, u16 max)
{
	struct strict_queue *strict = strict_of(vq);
	struct virtio_queue *queue = queue_of(vq);
	int got = strict->format->pop(vq, buffer, iov, max);

	if (got <= 0)
		return got; /* virtio_queue_pop() tells of faults */
	strict->taken++;
	check_taken(vq, strict, buffer->head);
	if (queue->device->ops->check)
		queue->device->ops->check(queue, buffer);
	return got;
}

static void strict_unpop(struct virtqueue *vq, u16 count)
{
	struct strict_queue *strict = strict_of(vq);

	strict->taken -= count;
	strict->format->unpop(vq, count);
}

static void strict_push(struct virtqueue *vq, u16 head, u32 written)
{
	struct strict_queue *strict = strict_of(vq);

	check_unchanged(vq, strict, head);
	strict->format->push(vq, head, written);
}

static void strict_skip(struct virtqueue *vq, u16 head)
{
	struct strict_queue *strict = strict_of(vq);

	check_unchanged(vq, strict, head);
	strict->format->skip(vq, head);
}

static bool strict_publish(struct virtqueue *vq)
{
	return strict_of(vq)->format->publish(vq);
}

static void strict_mute(struct virtqueue *vq)
{
	struct strict_queue *strict = strict_of(vq);

	if (!strict->muted)
		strict->mutes = 0;
	strict->muted = true;
	strict->format->mute(vq);
}

static bool strict_unmute(struct virtqueue *vq)
{
	struct strict_queue *strict = strict_of(vq);

	strict->muted = false;
	/* Where it was already it lets nobody notify once more. */
	if (strict->taken != strict->wished_at)
		strict->wishes++;
	strict->wished_at = strict->taken;
	return strict->format->unmute(vq);
}

static bool strict_available(const struct virtqueue *vq)
{
	const struct virtio_queue *queue = container_of(vq, const struct virtio_queue, ring);

	return queue->device->strict->queues[queue->index].format->available(vq);
}

static const struct vq_format vq_strict = {
	.start = strict_start,
	.pop = strict_pop,
	.unpop = strict_unpop,
	.push = strict_push,
	.skip = strict_skip,
	.publish = strict_publish,
	.mute = strict_mute,
	.unmute = strict_unmute,
	.available = strict_available,
};

const struct vq_format *strict_format(struct virtio_queue *queue, const struct vq_format *format)
{
	queue->device->strict->queues[queue->index].format = format;
	return &vq_strict;
}
