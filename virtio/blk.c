/*
 * Block device (virtio 1.3, 5.2): its life, and the way of a request between its queue's ring and
 * its request object. Created on the main thread; each queue runs on one reactor.
 */
#include <errno.h>
#include <stdlib.h>
#include "backends/disk.h"
#include "virtio/blk-queue.h"
#include "virtio/blk.h"
#include "virtio/strict.h"
#include "vm/json.h"

#define PCI_CLASS_MASS_STORAGE 0x010000
#define CHAINS_SIZE	       (BLK_QUEUE_SIZE * BLK_QUEUE_SIZE * sizeof(struct iovec))

static struct blk_request *take_free(struct blk_queue *queue)
{
	struct blk_request *request = queue->free;

	if (request) {
		queue->free = request->next;
	} else if (queue->touched < BLK_QUEUE_SIZE) {
		request = &queue->requests[queue->touched++];
		request->queue = queue;
	}
	return request;
}

static void give_free(struct blk_request *request)
{
	request->next = request->queue->free;
	request->queue->free = request;
}

static enum virtio_served serve(struct virtio_queue *virtio_queue)
{
	struct blk_queue *queue = virtio_queue->owner;
	struct blk_request *request;
	struct vq_buffer buffer;

	while ((request = take_free(queue))) {
		if (virtio_queue_pop(virtio_queue, &buffer, queue->chain, BLK_QUEUE_SIZE) <= 0) {
			give_free(request);
			return VIRTIO_SERVED_ALL;
		}
		blk_request_begin(request, &buffer);
	}
	/* the whole ring is in flight: the first to end asks again */
	queue->starved = true;
	return VIRTIO_SERVED_LATER;
}

void blk_request_finish(struct blk_request *request, u8 status)
{
	struct blk_queue *queue = request->queue;
	u32 written = request->filled;

	*(volatile u8 *)request->status = status;
	/* 2.7.8.2: only what was written without a gap from the start; the status byte is the last
	 */
	if (written == request->writable - 1)
		written++;
	virtio_queue_push(queue->queue, request->head, written);
	give_free(request);
	if (queue->starved) {
		queue->starved = false;
		if (virtio_queue_running(queue->queue))
			virtio_queue_schedule(queue->queue);
	}
}

void blk_request_drop(struct blk_request *request)
{
	struct virtio_queue *queue = request->queue->queue;

	virtio_device_broken(queue->device, "a block request has no byte to write its status to");
	virtio_queue_unpop(queue, 1);
	give_free(request);
}

static void queue_start(struct virtio_queue *virtio_queue)
{
	struct blk_queue *queue = virtio_queue->owner;

	queue->starved = false;
}

static void stats(struct virtio_device *device, struct json *json)
{
	struct virtio_blk_counts counts;

	virtio_blk_counts(device->owner, &counts);
	json_number(json, "flushes", counts.flushes);
	json_number(json, "syncs", counts.syncs);
	json_number(json, "bounced", counts.bounced);
	json_number(json, "errors", counts.errors);
}

static const struct virtio_device_ops blk_ops = {
	.id = VIRTIO_ID_BLOCK,
	.pci_class = PCI_CLASS_MASS_STORAGE,
	.name = "blk",
	.features_ok = blk_config_features_ok,
	.config_write = blk_config_write,
	.start = blk_config_start,
	.queue_start = queue_start,
	.serve = serve,
	.check = blk_strict_check,
	.config_writable = blk_strict_writable,
	.reset = blk_config_reset,
	.stats = stats,
};

static int make_queue(struct virtio_blk *blk, u16 index)
{
	struct blk_queue *queue = &blk->queues[index];

	queue->blk = blk;
	queue->queue = &blk->device.queues[index];
	queue->queue->owner = queue;
	queue->requests = virtio_room(BLK_QUEUE_SIZE * sizeof(*queue->requests));
	queue->chains = virtio_room(CHAINS_SIZE);
	if (!queue->requests || !queue->chains)
		return -ENOMEM;
	if (blk->disk->direct) {
		queue->bounce_area = virtio_room(BLK_BOUNCES * BLK_BOUNCE_SIZE);
		if (!queue->bounce_area)
			return -ENOMEM;
	}
	blk_io_init(queue);
	return 0;
}

static int make_device(struct virtio_blk *blk, const struct virtio_blk_options *config)
{
	u32 reactors = reactors_count(config->reactors);
	u8 queue_reactor[UINT8_MAX];
	struct virtio_device_config device = {
		.ops = &blk_ops,
		.owner = blk,
		.name = config->name,
		.memory = config->memory,
		.reactors = config->reactors,
		.features = blk_config_features(blk) | config->features,
		.config_size = blk_config_size(),
		.queue_count = config->queues,
		.queue_size = BLK_QUEUE_SIZE,
		.queue_offer = config->queue_size,
		.queue_reactor = queue_reactor,
	};

	for (u32 i = 0; i < config->queues; i++)
		queue_reactor[i] =
			(u8)((config->first_reactor + (config->one_reactor ? 0 : i)) % reactors);
	return virtio_device_init(&blk->device, &device);
}

int virtio_blk_create(struct virtio_blk **blk_out, const struct virtio_blk_options *config)
{
	struct virtio_blk *blk;
	int r;

	if (config->queues == 0 || config->queues > UINT8_MAX)
		return -EINVAL;
	blk = calloc(1, sizeof(*blk) + config->queues * sizeof(blk->queues[0]));
	if (!blk)
		return -ENOMEM;
	blk->disk = config->disk;
	blk->queue_count = config->queues;
	blk->initially_through = config->writethrough;
	memcpy(blk->serial, config->serial, strnlen(config->serial, sizeof(blk->serial)));
	r = make_device(blk, config);
	if (r < 0) {
		free(blk);
		return r;
	}
	for (u16 i = 0; i < config->queues && r == 0; i++)
		r = make_queue(blk, i);
	if (r < 0) {
		log_line("%s: no memory for its queues; give it fewer with `queues=`",
			 config->name);
		virtio_device_detach(&blk->device);
		virtio_blk_destroy(blk);
		return r;
	}
	blk_config_fill(blk);
	*blk_out = blk;
	return 0;
}

struct virtio_device *virtio_blk_device(struct virtio_blk *blk)
{
	return &blk->device;
}

void virtio_blk_destroy(struct virtio_blk *blk)
{
	if (!blk)
		return;
	virtio_device_destroy(&blk->device);
	for (u16 i = 0; i < blk->queue_count; i++) {
		struct blk_queue *queue = &blk->queues[i];

		virtio_room_free(queue->requests, BLK_QUEUE_SIZE * sizeof(*queue->requests));
		virtio_room_free(queue->chains, CHAINS_SIZE);
		virtio_room_free(queue->bounce_area, BLK_BOUNCES * BLK_BOUNCE_SIZE);
	}
	free(blk);
}

void virtio_blk_counts(const struct virtio_blk *blk, struct virtio_blk_counts *counts)
{
	memset(counts, 0, sizeof(*counts));
	for (u16 i = 0; i < blk->queue_count; i++) {
		const struct blk_queue *queue = &blk->queues[i];

		counts->flushes += atomic_load_explicit(&queue->flushes, memory_order_relaxed);
		counts->syncs += atomic_load_explicit(&queue->syncs, memory_order_relaxed);
		counts->bounced += atomic_load_explicit(&queue->bounced, memory_order_relaxed);
		counts->errors += atomic_load_explicit(&queue->errors, memory_order_relaxed);
	}
}
