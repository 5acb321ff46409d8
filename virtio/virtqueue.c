/* What every virtqueue format starts with (virtio 1.3, 2.6). Runs on the queue's reactor. */
#include <errno.h>
#include "virtio/virtqueue.h"

int vq_start(struct virtqueue *vq, const struct vq_format *format, const struct vq_setup *setup)
{
	memset(vq, 0, offsetof(struct virtqueue, taken));
	vq->format = format;
	vq->memory = setup->memory;
	vq->size = setup->size;
	vq->chain_max = setup->chain_max ? setup->chain_max : setup->size;
	vq->event_idx = setup->event_idx;
	vq->indirect = setup->indirect;
	vq->notify_on_empty = setup->notify_on_empty;
	if (setup->size == 0 || setup->size > VQ_MAX_SIZE) {
		vq->fault = "queue size out of range";
		return -EINVAL;
	}
	if (setup->in_order) {
		vq->inner = format;
		vq->format = &vq_in_order;
	}
	return vq->format->start(vq, setup);
}
