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

static void check_chain(struct virtqueue *vq, struct strict_queue *strict, u16 head)
{
	const u16 known = VRING_DESC_F_NEXT | VRING_DESC_F_WRITE | VRING_DESC_F_INDIRECT;
	struct virtio_queue *queue = queue_of(vq);
	struct chain chain;

	if (strict->format != &vq_split || head >= strict->sizes)
		return;
	chain = look(vq, head);
	strict->sums[head] = chain.sum;
	if (chain.flags & ~known)
		strict_report(queue->device, queue, STRICT_RING_FLAGS, "flags 0x%x at head %u",
			      chain.flags & ~known, head);
	if (chain.count > vq->size)
		strict_report(queue->device, queue, STRICT_RING_LONG,
			      "%u descriptors in a queue of %u", chain.count, vq->size);
}

static void check_suppression(struct virtqueue *vq, const struct strict_queue *strict)
{
	const struct vring_avail *available = vq->available;
	struct virtio_queue *queue = queue_of(vq);
	u16 flags;

	if (strict->format != &vq_split)
		return;
	flags = le16toh(__atomic_load_n(&available->flags, __ATOMIC_RELAXED));
	if (flags > (vq->event_idx ? 0 : VRING_AVAIL_F_NO_INTERRUPT))
		strict_report(queue->device, queue, STRICT_RING_SUPPRESSION, "flags are 0x%x%s",
			      flags, vq->event_idx ? " with EVENT_IDX" : "");
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
	check_suppression(vq, strict);
	check_chain(vq, strict, buffer->head);
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
	struct virtio_queue *queue = queue_of(vq);

	if (strict->format == &vq_split && head < strict->sizes &&
	    look(vq, head).sum != strict->sums[head])
		strict_report(queue->device, queue, STRICT_RING_CHANGED,
			      "the chain at head %u is another than it was", head);
	strict->format->push(vq, head, written);
}

static void strict_skip(struct virtqueue *vq, u16 head)
{
	strict_of(vq)->format->skip(vq, head);
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
