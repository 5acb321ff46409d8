/*
 * A virtqueue's life: registers on vCPU threads, everything else on the queue's reactor.
 *
 * Under the device's lock a queue is `wanted` or not; a message takes the wish to the reactor,
 * which starts the ring, or stops it, waits until nothing is in flight, and says so
 * (virtio_device_queue_idle). From the first wish to that report the queue is `busy`, and it is
 * wanted again only after the report, so a stop can never be overtaken by the next start. Nobody
 * waits for anybody.
 */
#include <errno.h>
#include <linux/virtio_pci.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "virtio/core.h"
#include "virtio/strict.h"

#define LEGACY_ALIGN 4096ull /* VIRTIO_PCI_VRING_ALIGN: 2.7.2, 4.1.5.1.3.1 */
#define NAP_WORTH    2	     /* buffers that a nap must have brought */
#define AWAKE_LEAST  4	     /* serves without a nap, after one in vain */
#define AWAKE_MOST   256

/* [reactor] Only the reactor writes state. */
static int state_of(const struct virtio_queue *queue)
{
	return atomic_load_explicit(&queue->state, memory_order_relaxed);
}

static void set_state(struct virtio_queue *queue, enum virtio_queue_state state)
{
	atomic_store_explicit(&queue->state, state, memory_order_release);
}

/* May a running queue touch its ring now? */
static bool may_dma(const struct virtio_queue *queue)
{
	return atomic_load_explicit(&queue->device->bus_master, memory_order_acquire);
}

bool virtio_device_may_dma(const struct virtio_device *device)
{
	return atomic_load_explicit(&device->bus_master, memory_order_acquire) &&
	       !atomic_load_explicit(&device->broken, memory_order_acquire);
}

static inline bool may_take(const struct virtio_queue *queue)
{
	return state_of(queue) == VIRTIO_QUEUE_RUNNING && virtio_device_may_dma(queue->device);
}

/* ---- for device types, on the reactor ---- */

bool virtio_queue_running(const struct virtio_queue *queue)
{
	return state_of(queue) == VIRTIO_QUEUE_RUNNING;
}

void virtio_queue_schedule(struct virtio_queue *queue)
{
	if (virtio_queue_running(queue) && !queue->lent)
		reactor_defer(queue->reactor, REACTOR_SERVE, &queue->serve);
}

static __attribute__((cold)) void ring_broken(struct virtio_queue *queue)
{
	char why[160];

	if (queue->device->strict)
		strict_fault(queue);
	snprintf(why, sizeof(why), "queue %u: %s", queue->index, queue->ring.fault);
	virtio_device_broken(queue->device, why);
}

int virtio_queue_pop(struct virtio_queue *queue, struct vq_buffer *buffer, struct iovec *iov,
		     u16 max)
{
	int got;

	if (!may_take(queue))
		return 0;
	got = vq_pop(&queue->ring, buffer, iov, max);
	if (got != 1) {
		if (got < 0)
			ring_broken(queue);
		return got;
	}
	queue->in_flight++;
	if (!queue->untimed)
		latency_pop(&queue->latency, buffer->head);
	counter_add(&queue->counts.bytes_read, buffer->readable_bytes);
	return 1;
}

void virtio_queue_unpop(struct virtio_queue *queue, u16 how_many)
{
	queue->in_flight -= how_many;
	vq_unpop(&queue->ring, how_many);
	if (!virtio_queue_running(queue))
		reactor_defer(queue->reactor, REACTOR_FLUSH, &queue->flush);
}

void virtio_queue_push(struct virtio_queue *queue, u16 head, u32 written)
{
	queue->in_flight--;
	if (virtio_queue_running(queue)) {
		counter_add(&queue->counts.buffers, 1);
		counter_add(&queue->counts.bytes_written, written);
		if (!queue->untimed)
			latency_push(&queue->latency, head);
		vq_push(&queue->ring, head, written);
	}
	reactor_defer(queue->reactor, REACTOR_FLUSH, &queue->flush);
}

/* ---- the reactor's side ---- */

void virtio_queue_interrupt(struct virtio_queue *queue)
{
	struct virtio_device *device = queue->device;
	s32 file = atomic_load_explicit(&queue->interrupt, memory_order_acquire);

	/* Without a vector the driver wants none: no silent change to INTx (4.1.5.1.3). */
	if (file == VIRTIO_INTERRUPT_NONE)
		return;
	if (file == VIRTIO_INTERRUPT_INTX) {
		/* 4.1.4.5.1: the ISR bit before the line. A driver that disabled INTx may poll it.
		 */
		atomic_fetch_or(&device->isr, VIRTIO_ISR_QUEUE);
		file = atomic_load_explicit(&device->intx_file, memory_order_acquire);
	}
	counter_add(&queue->counts.interrupts, 1);
	if (file >= 0)
		reactor_signal(queue->reactor, file);
}

static void become_idle(struct virtio_queue *queue)
{
	struct virtio_device *device = queue->device;

	set_state(queue, VIRTIO_QUEUE_IDLE);
	pthread_mutex_lock(&device->lock);
	queue->busy = false;
	virtio_device_queue_idle(queue);
	pthread_mutex_unlock(&device->lock);
}

static void show(struct virtio_queue *queue)
{
	u64 shown = VIRTIO_SHOWN_LENT;

	if (!queue->lent)
		shown = queue->ring.next_available | (u64)queue->ring.next_used << 16 |
			(u64)queue->in_flight << 32;
	atomic_store_explicit(&queue->shown, shown, memory_order_relaxed);
}

static void flush_run(struct reactor_task *task)
{
	struct virtio_queue *queue = container_of(task, struct virtio_queue, flush);
	u16 published = queue->ring.published;

	latency_break(&queue->latency);
	switch (state_of(queue)) {
	case VIRTIO_QUEUE_STOPPING:
		if (queue->in_flight == 0)
			become_idle(queue);
		return;
	case VIRTIO_QUEUE_RUNNING:
		break;
	default:
		return;
	}
	if (queue->lent)
		return;
	if (!may_dma(queue)) /* kept until bus mastering comes back, or a reset */
		return;
	show(queue);
	/* It is the driver's turn. If it is looked for, it need not ring, though it was asked to
	 * while the disk was at work. */
	if (!queue->ring.muted && queue->ring.next_used != published &&
	    reactor_polls(queue->reactor)) {
		vq_mute(&queue->ring);
		queue->polled = true;
	}
	if (vq_publish(&queue->ring))
		virtio_queue_interrupt(queue);
	else if (queue->ring.published != published)
		counter_add(&queue->counts.interrupts_suppressed, 1);
}

static void nap_in_vain(struct virtio_queue *queue)
{
	queue->napped = false;
	queue->awake = queue->awake_next ? queue->awake_next : AWAKE_LEAST;
	queue->awake_next = queue->awake < AWAKE_MOST ? (u16)(queue->awake * 2) : AWAKE_MOST;
}

/* The queue stays muted over a nap. One in which no two buffers came was in vain: after each such
 * it takes longer until the next. */
static bool nap(struct virtio_queue *queue, u32 taken)
{
	bool again = queue->napped;

	queue->napped = false;
	if (again && taken < NAP_WORTH) {
		nap_in_vain(queue);
		return false;
	}
	if (again)
		queue->awake_next = 0;
	if (!taken)
		return false;
	if (queue->awake) {
		queue->awake--;
		return false;
	}
	queue->napped = reactor_nap(queue->reactor, again);
	return queue->napped;
}

static void serve_run(struct reactor_task *task)
{
	struct virtio_queue *queue = container_of(task, struct virtio_queue, serve);
	enum virtio_served served;
	u32 before = queue->in_flight;

	if (!may_take(queue))
		return;
	vq_mute(&queue->ring);
	latency_break(&queue->latency);
	counter_add(&queue->counts.batches, 1);
	queue->polled = false;
	served = queue->device->ops->serve(queue);
	show(queue);
	if (served == VIRTIO_SERVED_LATER)
		return;
	/* no notifications until the reactor rests */
	if (reactor_polls(queue->reactor) ||
	    (queue->gathers && nap(queue, queue->in_flight - before))) {
		queue->polled = true;
		return;
	}
	/* More came meanwhile: in the next sweep, so that used rings are published and others have
	 * their turn first. */
	if (may_take(queue) && vq_unmute(&queue->ring))
		virtio_queue_schedule(queue);
}

static bool poll_run(struct reactor_poller *poller)
{
	struct virtio_queue *queue = container_of(poller, struct virtio_queue, poller);

	if (!queue->polled || !may_take(queue) || !vq_available(&queue->ring))
		return false;
	virtio_queue_schedule(queue);
	return true;
}

static bool rest_run(struct reactor_poller *poller)
{
	struct virtio_queue *queue = container_of(poller, struct virtio_queue, poller);

	if (!queue->polled)
		return false;
	if (poll_run(poller)) /* what is there needs no notification */
		return true;
	queue->polled = false;
	if (queue->napped)
		nap_in_vain(queue);
	if (!may_take(queue) || !vq_unmute(&queue->ring))
		return false;
	virtio_queue_schedule(queue);
	return true;
}

static void start(struct virtio_queue *queue, const struct vq_setup *setup)
{
	const struct vq_format *format = setup->packed ? &vq_packed : &vq_split;

	if (queue->device->strict)
		format = strict_format(queue, format);
	if (vq_start(&queue->ring, format, setup) < 0) {
		ring_broken(queue);
		become_idle(queue);
		return;
	}
	queue->in_flight = 0;
	queue->polled = false;
	queue->napped = false;
	queue->awake = queue->awake_next = 0;
	queue->lent = false;
	set_state(queue, VIRTIO_QUEUE_RUNNING);
	reactor_poller_add(queue->reactor, &queue->poller);
	if (queue->device->ops->queue_start)
		queue->device->ops->queue_start(queue);
	show(queue);
	/* A doorbell rung before this was ignored. */
	virtio_queue_schedule(queue);
}

static void stop(struct virtio_queue *queue)
{
	set_state(queue, VIRTIO_QUEUE_STOPPING);
	reactor_poller_remove(&queue->poller);
	if (queue->device->ops->queue_stop)
		queue->device->ops->queue_stop(queue);
	reactor_defer(queue->reactor, REACTOR_FLUSH, &queue->flush);
}

/* The wish under the lock has changed, or a pause is over. */
static void message_run(struct reactor_message *message)
{
	struct virtio_queue *queue = container_of(message, struct virtio_queue, message);
	struct virtio_device *device = queue->device;
	struct vq_setup setup;
	bool wanted, busy;

	pthread_mutex_lock(&device->lock);
	queue->posted = false;
	wanted = queue->wanted;
	busy = queue->busy;
	setup = queue->setup;
	pthread_mutex_unlock(&device->lock);

	switch (state_of(queue)) {
	case VIRTIO_QUEUE_IDLE:
		if (wanted && busy)
			start(queue, &setup);
		else if (busy) /* stopped before it ever started */
			become_idle(queue);
		break;
	case VIRTIO_QUEUE_RUNNING:
		if (!wanted) {
			stop(queue);
			break;
		}
		virtio_queue_schedule(queue);
		reactor_defer(queue->reactor, REACTOR_FLUSH, &queue->flush);
		break;
	case VIRTIO_QUEUE_STOPPING:
		break;
	}
}

/* The doorbell is armed as long as the device lives; on a queue that does not run it means nothing,
 * except from a legacy driver, which may use the device before DRIVER_OK (3.1.2). */
static void doorbell_fired(struct reactor_event *event)
{
	struct virtio_queue *queue = container_of(event, struct virtio_queue, doorbell);
	struct virtio_device *device = queue->device;

	counter_add(&queue->counts.kicks, event->count);
	if (virtio_queue_running(queue)) {
		virtio_queue_schedule(queue);
		return;
	}
	if (atomic_load_explicit(&device->running, memory_order_acquire))
		return;
	pthread_mutex_lock(&device->lock);
	if (device->legacy && queue->enabled && !queue->resetting && !device->resetting &&
	    !(device->status & VIRTIO_CONFIG_S_FAILED) && !atomic_load(&device->running))
		virtio_device_run(device);
	pthread_mutex_unlock(&device->lock);
}

static void checked_doorbell_fired(struct reactor_event *event)
{
	strict_kick(container_of(event, struct virtio_queue, doorbell), event->count);
	doorbell_fired(event);
}

void virtio_queue_check(struct virtio_queue *queue)
{
	queue->doorbell.fired = checked_doorbell_fired;
}

/* ---- rings lent to somebody else ---- */

void virtio_queue_lend(struct virtio_queue *queue)
{
	queue->lent = true;
	reactor_poller_remove(&queue->poller);
	reactor_event_remove(&queue->doorbell);
}

void virtio_queue_take_back(struct virtio_queue *queue, u64 own)
{
	eventfd_t kicks = 0;
	int error;

	/* Now, as they are none of the next driver's. */
	if (eventfd_read(queue->doorbell_fd, &kicks) == 0 && kicks > own)
		counter_add(&queue->counts.kicks, kicks - own);
	error = reactor_event_add(queue->reactor, &queue->doorbell);
	if (error)
		log_line("%s: queue %u: its doorbell is lost: %s; restart the VM",
			 queue->device->name, queue->index, strerror(-error));
}

/* ---- under the lock ---- */

static void post(struct virtio_queue *queue)
{
	if (queue->posted)
		return;
	queue->posted = true;
	reactor_post(queue->reactor, &queue->message);
}

void virtio_queue_want(struct virtio_queue *queue)
{
	const struct virtio_device *device = queue->device;

	if (queue->busy)
		return;
	/* Kept aside: registers that the driver writes from now on change nothing. */
	queue->setup = (struct vq_setup){
		.memory = device->memory,
		.size = queue->size,
		.chain_max = queue->chain_max,
		.descriptors = queue->descriptors,
		.driver = queue->driver,
		.device = queue->used,
		.event_idx = virtio_has(device, VIRTIO_RING_F_EVENT_IDX),
		.indirect = virtio_has(device, VIRTIO_RING_F_INDIRECT_DESC),
		.notify_on_empty = device->legacy && virtio_has(device, VIRTIO_F_NOTIFY_ON_EMPTY),
		.packed = !device->legacy && virtio_has(device, VIRTIO_F_RING_PACKED),
		.in_order = !device->legacy && virtio_has(device, VIRTIO_F_IN_ORDER),
	};
	if (device->strict)
		strict_queue_started(queue);
	queue->wanted = true;
	queue->busy = true;
	post(queue);
}

bool virtio_queue_unwant(struct virtio_queue *queue)
{
	queue->wanted = false;
	if (!queue->busy)
		return false;
	post(queue);
	return true;
}

void virtio_queue_resume(struct virtio_queue *queue)
{
	if (queue->wanted)
		post(queue);
}

void virtio_queue_defaults(struct virtio_queue *queue)
{
	const struct virtio_transport_ops *transport = queue->device->transport;

	queue->size = queue->max_size;
	queue->enabled = false;
	queue->resetting = false;
	queue->msix_vector = VIRTIO_MSI_NO_VECTOR;
	queue->descriptors = queue->driver = queue->used = 0;
	if (transport && transport->queue_reset)
		transport->queue_reset(queue);
}

void virtio_queue_set_interrupt(struct virtio_queue *queue, s32 file, s32 fd)
{
	const struct virtio_device_ops *ops = queue->device->ops;

	atomic_store(&queue->interrupt, file);
	if (atomic_exchange(&queue->interrupt_fd, fd) != fd && ops->interrupt_moved)
		ops->interrupt_moved(queue);
}

struct virtio_queue *virtio_queue_get(struct virtio_device *device, u16 index)
{
	return index < device->queue_count ? &device->queues[index] : NULL;
}

void virtio_queue_set_size(struct virtio_queue *queue, u16 size)
{
	const struct virtio_device *device = queue->device;
	/* 4.1.4.3.1: from when it is final that rings are packed, any size goes */
	bool any = device->status & VIRTIO_CONFIG_S_FEATURES_OK &&
		   virtio_has(device, VIRTIO_F_RING_PACKED);

	if (device->strict)
		strict_queue_size(queue, size);
	if (queue->enabled || queue->resetting || device->resetting)
		return;
	if (size == 0 || size > queue->max_size || (!any && (size & (size - 1))))
		return;
	queue->size = size;
}

void virtio_queue_enable(struct virtio_queue *queue)
{
	struct virtio_device *device = queue->device;

	if (queue->enabled || queue->resetting || device->resetting)
		return;
	queue->enabled = true;
	if (atomic_load(&device->running))
		virtio_queue_want(queue);
}

static void begin_reset(struct virtio_queue *queue)
{
	queue->resetting = true;
	if (!virtio_queue_unwant(queue))
		virtio_device_queue_idle(queue);
}

void virtio_queue_reset(struct virtio_queue *queue)
{
	struct virtio_device *device = queue->device;

	if (queue->resetting || device->resetting || !virtio_has(device, VIRTIO_F_RING_RESET) ||
	    !(device->status & VIRTIO_CONFIG_S_FEATURES_OK))
		return;
	begin_reset(queue);
}

void virtio_queue_disable(struct virtio_queue *queue)
{
	struct virtio_device *device = queue->device;

	if (device->resetting || queue->resetting || !queue->enabled)
		return;
	begin_reset(queue);
	virtio_reset_wait(device);
}

void virtio_queue_set_pfn(struct virtio_queue *queue, u32 pfn)
{
	struct virtio_device *device = queue->device;

	if (device->resetting || queue->resetting)
		return;
	device->legacy = true;
	virtio_queue_disable(queue);
	if (pfn == 0 || device->resetting || queue->enabled)
		return; /* perhaps another vCPU was quicker */
	/* 2.7.2: descriptors, available ring, padding, used ring. */
	queue->descriptors = pfn * LEGACY_ALIGN;
	queue->driver = queue->descriptors + 16ull * queue->size;
	queue->used = ALIGN_UP(queue->driver + 6 + 2ull * queue->size, LEGACY_ALIGN);
	virtio_queue_enable(queue);
}

void virtio_queue_kick(struct virtio_device *device, u16 index)
{
	const struct virtio_queue *queue = virtio_queue_get(device, index);

	if (!queue && device->strict)
		strict_report(device, NULL, STRICT_QUEUE_NONE, "queue %u is notified", index);
	/* The eventfd's counter cannot be full: its only reader takes all of it. */
	if (queue && eventfd_write(queue->doorbell_fd, 1) < 0 && errno != EAGAIN)
		log_limited(&device->lines, 10, "%s: doorbell: %s", device->name, strerror(errno));
}

/* ---- construction ---- */

int virtio_queue_init(struct virtio_queue *queue, struct virtio_device *device, u16 index,
		      u16 max_size, struct reactor *reactor)
{
	int err;

	queue->device = device;
	queue->index = index;
	queue->max_size = queue->chain_max = max_size;
	queue->reactor = reactor;
	queue->interrupt = VIRTIO_INTERRUPT_NONE;
	queue->interrupt_fd = VIRTIO_INTERRUPT_NONE;
	queue->serve.run = serve_run;
	queue->flush.run = flush_run;
	queue->poller.poll = poll_run;
	queue->poller.rest = rest_run;
	queue->message.run = message_run;
	queue->doorbell.fired = doorbell_fired;
	virtio_queue_defaults(queue);
	queue->doorbell_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (queue->doorbell_fd < 0)
		return -errno;
	queue->doorbell.fd = queue->doorbell_fd;
	err = reactor_event_attach(reactor, &queue->doorbell);
	if (err < 0) {
		close(queue->doorbell_fd);
		queue->doorbell_fd = -1;
	}
	return err;
}

void virtio_queue_destroy(struct virtio_queue *queue)
{
	if (queue->doorbell_fd >= 0)
		close(queue->doorbell_fd);
	queue->doorbell_fd = -1;
}
