/*
 * The socket device as a whole: what it offers, its configuration, its queues and their life. The
 * event queue's buffers stay where they are: the one event there is tells of a machine that was
 * moved or restored, and none is here.
 */
#include "virtio/vsock-internal.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include "vm/json.h"

#define EVENTS 2

/* ---- on the reactor ---- */

static void queue_start(struct virtio_queue *queue)
{
	struct virtio_vsock *vsock = queue->device->owner;

	if (queue->index == EVENTS)
		return;
	if (vsock->lent.vhost)
		vsock_vhost_queue_start(queue);
	else if (virtio_queue_running(vsock->rx) && virtio_queue_running(vsock->tx))
		vsock_open_doors(vsock);
}

/* Without one of its queues nothing can be told of a connection. */
static void queue_stop(struct virtio_queue *queue)
{
	struct virtio_vsock *vsock = queue->device->owner;

	if (queue->index == EVENTS)
		return;
	if (vsock->lent.vhost)
		vsock_vhost_queue_stop(queue);
	else if (vsock->up)
		vsock_end_all(vsock);
}

static enum virtio_served serve(struct virtio_queue *queue)
{
	struct virtio_vsock *vsock = queue->device->owner;

	/* packets wait until there is a way to answer them */
	if (!vsock->up)
		return VIRTIO_SERVED_LATER;
	if (queue == vsock->rx)
		return vsock_rx_serve(vsock);
	return queue == vsock->tx ? vsock_tx_serve(vsock) : VIRTIO_SERVED_LATER;
}

/* ---- registers ---- */

static void start(struct virtio_device *device)
{
	struct virtio_vsock *vsock = device->owner;

	if (vsock->lent.vhost)
		vsock_vhost_start(vsock);
}

static void stats(struct virtio_device *device, struct json *json)
{
	const struct virtio_vsock *vsock = device->owner;
	const struct vsock_counts *counts = &vsock->counts;

	json_text(json, "served_by", vsock->lent.vhost ? "vhost-vsock" : "vmm");
	json_number(json, "accepted", __atomic_load_n(&counts->accepted, __ATOMIC_RELAXED));
	json_number(json, "refused", __atomic_load_n(&counts->refused, __ATOMIC_RELAXED));
	json_number(json, "resets", __atomic_load_n(&counts->resets, __ATOMIC_RELAXED));
	json_number(json, "to_guest_bytes", __atomic_load_n(&counts->to_guest, __ATOMIC_RELAXED));
	json_number(json, "to_host_bytes", __atomic_load_n(&counts->to_host, __ATOMIC_RELAXED));
}

static void stop_run(void *arg)
{
	struct virtio_vsock *vsock = arg;

	vsock->stopping = true;
	vsock_end_all(vsock);
}

static void detach(struct virtio_device *device)
{
	struct virtio_vsock *vsock = device->owner;

	if (vsock->lent.vhost) {
		vsock_vhost_detach(vsock);
		return;
	}
	/* nothing is in flight where no driver ever was, and perhaps no reactor */
	if (atomic_load(&vsock->live))
		reactor_call(vsock->reactor, stop_run, vsock);
	while (atomic_load(&vsock->live))
		reactors_settle(device->reactors);
}

static const struct virtio_device_ops vsock_ops = {
	.id = VIRTIO_ID_VSOCK,
	.pci_class = 0x028000, /* network, other */
	.name = "vsock",
	.start = start,
	.queue_start = queue_start,
	.serve = serve,
	.queue_stop = queue_stop,
	.gate = vsock_vhost_gate,
	.interrupt_moved = vsock_vhost_interrupt_moved,
	.detach = detach,
	.check = vsock_strict_check,
	.stats = stats,
};

/* ---- making ---- */

static int device_init(struct virtio_vsock *vsock, const struct virtio_vsock_options *options)
{
	const u8 n = (u8)(options->reactor % reactors_count(options->reactors));
	const u8 reactors[] = { n, n, n };
	u64 kinds = BIT64(VIRTIO_VSOCK_F_STREAM) | BIT64(VIRTIO_VSOCK_F_SEQPACKET) |
		    BIT64(VIRTIO_VSOCK_F_NO_IMPLIED_STREAM);
	struct virtio_device_config config = {
		.ops = &vsock_ops,
		.owner = vsock,
		.name = options->name,
		.memory = options->memory,
		.reactors = options->reactors,
		.queue_count = 3,
		.queue_size = CONFIG_VSOCK_QUEUE_SIZE,
		.queue_offer = options->queue_size,
		.queue_reactor = reactors,
		.config_size = sizeof(struct virtio_vsock_config),
	};
	int error;

	if (options->vhost) {
		kinds &= options->vhost->features;
		config.withheld = vsock_vhost_withheld(options->vhost);
	}
	config.features = options->features | kinds;
	error = virtio_device_init(&vsock->device, &config);
	if (error)
		return error;
	le64_store(vsock->device.config, options->cid);
	vsock->cid = options->cid;
	vsock->host = options->host;
	vsock->rx = &vsock->device.queues[0];
	vsock->tx = &vsock->device.queues[1];
	vsock->rx->untimed = vsock->device.queues[EVENTS].untimed = true;
	vsock->reactor = vsock->rx->reactor;
	return 0;
}

int virtio_vsock_create(struct virtio_vsock **result, const struct virtio_vsock_options *options)
{
	struct virtio_vsock *vsock = virtio_room(sizeof(*vsock));
	int error = vsock ? 0 : -ENOMEM;

	if (!error && options->host)
		error = vsock_conns_create(vsock);
	if (error)
		log_line("%s: out of memory; free some", options->name);
	else
		error = device_init(vsock, options);
	if (!error && options->vhost) {
		error = vsock_vhost_create(vsock, options);
		if (error)
			virtio_device_destroy(&vsock->device);
	}
	if (!error) {
		*result = vsock;
		return 0;
	}
	if (vsock)
		vsock_conns_destroy(vsock);
	virtio_room_free(vsock, sizeof(*vsock));
	return error;
}

struct virtio_device *virtio_vsock_device(struct virtio_vsock *vsock)
{
	return &vsock->device;
}

void virtio_vsock_destroy(struct virtio_vsock *vsock)
{
	if (!vsock)
		return;
	vsock_conns_destroy(vsock);
	vsock_vhost_destroy(vsock);
	virtio_device_destroy(&vsock->device);
	virtio_room_free(vsock, sizeof(*vsock));
}
