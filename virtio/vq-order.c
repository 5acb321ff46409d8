/*
 * IN_ORDER (virtio 1.3, 2.7.9 and 2.8.8): a format around another that gives buffers back in the
 * order in which they were taken, whatever the order in which the device type is done with them.
 * Runs on the queue's reactor; where IN_ORDER was not negotiated nothing of this is in the way.
 *
 * A pushed buffer is only noted. Publishing writes elements for those that nobody older is missing
 * before; one element stands for itself and all directly before it that were used completely, which
 * is what a driver supposes of them.
 */
#include "virtio/vq-chain.h"

#define PLACE(n) ((n) & (VQ_MAX_SIZE - 1))

static int order_pop(struct virtqueue *vq, struct vq_buffer *buffer, struct iovec *iov, u16 max)
{
	int got = vq->inner->pop(vq, buffer, iov, max);

	if (got != 1)
		return got;
	vq->order[PLACE(vq->newest++)] = buffer->head;
	vq->pushed[buffer->head] = (struct vq_pushed){ .writable = buffer->writable_bytes };
	return 1;
}

static void order_unpop(struct virtqueue *vq, u16 count)
{
	vq->newest = (u16)(vq->newest - count);
	vq->inner->unpop(vq, count);
}

static void order_push(struct virtqueue *vq, u16 head, u32 written)
{
	vq->pushed[head].written = written;
	vq->pushed[head].done = true;
}

/* The n-th buffer out, if it is done. */
static const struct vq_pushed *done(const struct virtqueue *vq, u16 n)
{
	const struct vq_pushed *pushed = NULL;

	if (n != vq->newest)
		pushed = &vq->pushed[vq->order[PLACE(n)]];
	return pushed && pushed->done ? pushed : NULL;
}

static bool order_publish(struct virtqueue *vq)
{
	const struct vq_pushed *last;

	while ((last = done(vq, vq->oldest))) {
		u16 first = vq->oldest;

		while (last->written == last->writable && done(vq, (u16)(vq->oldest + 1)))
			last = done(vq, ++vq->oldest);
		vq->inner->push(vq, vq->order[PLACE(vq->oldest)], last->written);
		for (; first != vq->oldest; first++)
			vq->inner->skip(vq, vq->order[PLACE(first)]);
		vq->oldest++;
	}
	return vq->inner->publish(vq);
}

static void order_mute(struct virtqueue *vq)
{
	vq->inner->mute(vq);
}

static bool order_unmute(struct virtqueue *vq)
{
	return vq->inner->unmute(vq);
}

static bool order_available(const struct virtqueue *vq)
{
	return vq->inner->available(vq);
}

static int order_start(struct virtqueue *vq, const struct vq_setup *setup)
{
	vq->oldest = vq->newest = 0;
	return vq->inner->start(vq, setup);
}

const struct vq_format vq_in_order = {
	.start = order_start,
	.pop = order_pop,
	.unpop = order_unpop,
	.push = order_push,
	.publish = order_publish,
	.mute = order_mute,
	.unmute = order_unmute,
	.available = order_available,
};
