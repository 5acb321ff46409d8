/*
 * A socket device whose rings the host kernel's vhost-vsock serves (backends/vhost.h): it has them
 * while both are placed, the device may use memory, and nothing is broken. The event queue stays
 * here.
 *
 * Threads as in net-vhost.c: rings are placed and taken back on their reactor, interrupts and bus
 * mastering move on the thread where that is noticed; one lock keeps them apart.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "virtio/net-internal.h"
#include "virtio/vsock-internal.h"

#define TOLD                                                                    \
	(BIT64(VIRTIO_F_NOTIFY_ON_EMPTY) | BIT64(VIRTIO_RING_F_INDIRECT_DESC) | \
	 BIT64(VIRTIO_RING_F_EVENT_IDX) | BIT64(VIRTIO_F_VERSION_1) |           \
	 BIT64(VIRTIO_VSOCK_F_SEQPACKET))

u64 vsock_vhost_withheld(const struct vhost *vhost)
{
	return net_vhost_withheld(vhost);
}

/* ---- rings, under the lock ---- */

static int call_fd(const struct virtio_vsock *vsock, const struct virtio_queue *queue)
{
	s32 fd = atomic_load(&queue->interrupt_fd);

	return fd == VIRTIO_INTERRUPT_INTX ? vsock->lent.relay.fd : fd;
}

/* vhost's ring 0 is the receive queue, as the device's. */
static int run(struct virtio_vsock *vsock)
{
	int error = 0;

	for (u32 n = 0; n < VHOST_RINGS && !error; n++)
		error = vhost_ring_start(vsock->lent.vhost, 0, n, vsock->lent.rings[n].base,
					 call_fd(vsock, &vsock->device.queues[n]), -1);
	if (!error)
		error = vhost_vsock_run(vsock->lent.vhost, true);
	for (u32 n = 0; n < VHOST_RINGS && !error; n++) {
		vsock->lent.rings[n].own_kicks++;
		eventfd_write(vsock->device.queues[n].doorbell_fd, 1);
	}
	return error;
}

static int rest(struct virtio_vsock *vsock)
{
	int error = vhost_vsock_run(vsock->lent.vhost, false);

	for (u32 n = 0; n < VHOST_RINGS && !error; n++)
		error = vhost_ring_stop(vsock->lent.vhost, 0, n, &vsock->lent.rings[n].base);
	return error;
}

static int follow(struct virtio_vsock *vsock)
{
	bool may = vsock->lent.rings[VHOST_RX].placed && vsock->lent.rings[VHOST_TX].placed &&
		   virtio_device_may_dma(&vsock->device);
	int error;

	if (may == vsock->lent.on)
		return 0;
	vsock->lent.on = false;
	error = may ? run(vsock) : rest(vsock);
	vsock->lent.on = may && !error;
	return error;
}

static void refused(struct virtio_vsock *vsock, int error)
{
	char why[96];

	snprintf(why, sizeof(why), "vhost-vsock does not take its queues: %s", strerror(-error));
	virtio_device_broken(&vsock->device, why);
}

/* ---- the device's life ---- */

void vsock_vhost_gate(struct virtio_device *device)
{
	struct virtio_vsock *vsock = device->owner;
	int error;

	if (!vsock->lent.vhost)
		return;
	pthread_mutex_lock(&vsock->lent.lock);
	error = follow(vsock);
	pthread_mutex_unlock(&vsock->lent.lock);
	if (error)
		refused(vsock, error);
}

void vsock_vhost_start(struct virtio_vsock *vsock)
{
	struct vhost *vhost = vsock->lent.vhost;
	int error = vhost_set_features(vhost, vsock->device.features & vhost->features & TOLD);

	if (error)
		refused(vsock, error);
}

void vsock_vhost_queue_start(struct virtio_queue *queue)
{
	struct virtio_vsock *vsock = queue->device->owner;
	struct vsock_lent *ring = &vsock->lent.rings[queue->index];
	const struct vq_setup *setup = &queue->setup;
	const struct vhost_place place = {
		.size = setup->size,
		.descriptors = memory_at(setup->memory, setup->descriptors, 1),
		.available = memory_at(setup->memory, setup->driver, 1),
		.used = memory_at(setup->memory, setup->device, 1),
	};
	int error;

	virtio_queue_lend(queue);
	pthread_mutex_lock(&vsock->lent.lock);
	*ring = (struct vsock_lent){};
	error = vhost_ring_place(vsock->lent.vhost, 0, queue->index, &place, queue->doorbell_fd);
	ring->placed = !error;
	if (!error)
		error = follow(vsock);
	pthread_mutex_unlock(&vsock->lent.lock);
	if (error)
		refused(vsock, error);
}

void vsock_vhost_queue_stop(struct virtio_queue *queue)
{
	struct virtio_vsock *vsock = queue->device->owner;
	struct vsock_lent *ring = &vsock->lent.rings[queue->index];
	int error;

	pthread_mutex_lock(&vsock->lent.lock);
	ring->placed = false;
	error = follow(vsock);
	if (!error)
		error = vhost_ring_leave(vsock->lent.vhost, 0, queue->index);
	pthread_mutex_unlock(&vsock->lent.lock);
	if (error)
		log_limited(&vsock->lines, 10,
			    "%s: vhost-vsock does not let go of queue %u: %s; restart the VM",
			    vsock->device.name, queue->index, strerror(-error));
	virtio_queue_take_back(queue, ring->own_kicks);
}

void vsock_vhost_interrupt_moved(struct virtio_queue *queue)
{
	struct virtio_vsock *vsock = queue->device->owner;
	int error = 0;

	if (!vsock->lent.vhost || queue->index >= VHOST_RINGS)
		return;
	pthread_mutex_lock(&vsock->lent.lock);
	if (vsock->lent.on)
		error = vhost_ring_call(vsock->lent.vhost, 0, queue->index, call_fd(vsock, queue));
	pthread_mutex_unlock(&vsock->lent.lock);
	if (error)
		refused(vsock, error);
}

/* Used buffers of a driver without MSI-X. */
static void relay_fired(struct reactor_event *event)
{
	struct virtio_vsock *vsock = container_of(event, struct virtio_vsock, lent.relay);

	virtio_queue_interrupt(vsock->rx);
}

static void errors_fired(struct reactor_event *event)
{
	struct virtio_vsock *vsock = container_of(event, struct virtio_vsock, lent.errors);

	if (atomic_load(&vsock->device.running))
		virtio_device_broken(&vsock->device,
				     "vhost-vsock cannot work with one of its queues");
}

static int event_create(struct virtio_vsock *vsock, struct reactor_event *event,
			void (*fired)(struct reactor_event *event))
{
	event->fired = fired;
	event->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return event->fd < 0 ? -errno : reactor_event_attach(vsock->reactor, event);
}

int vsock_vhost_create(struct virtio_vsock *vsock, const struct virtio_vsock_options *options)
{
	int error;

	vsock->lent.errors.fd = -1;
	pthread_mutex_init(&vsock->lent.lock, NULL);
	vsock->lent.vhost = options->vhost;
	error = event_create(vsock, &vsock->lent.relay, relay_fired);
	if (!error)
		error = event_create(vsock, &vsock->lent.errors, errors_fired);
	if (error)
		log_line("%s: vhost=on: %s; allow more open files (ulimit -n)", options->name,
			 strerror(-error));
	else
		error = vhost_prepare(options->vhost, options->memory, vsock->lent.errors.fd);
	return error;
}

void vsock_vhost_detach(struct virtio_vsock *vsock)
{
	reactor_event_detach(&vsock->lent.relay);
	reactor_event_detach(&vsock->lent.errors);
}

void vsock_vhost_destroy(struct virtio_vsock *vsock)
{
	if (!vsock->lent.vhost)
		return;
	close(vsock->lent.relay.fd);
	close(vsock->lent.errors.fd);
	pthread_mutex_destroy(&vsock->lent.lock);
}
