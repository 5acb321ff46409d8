/*
 * A device type for tests: takes every buffer and gives it back at once, some sweeps later, or when
 * the test says so. It has writable config bytes and a transport that only counts.
 */
#ifndef TESTS_UNIT_LATER_H
#define TESTS_UNIT_LATER_H

#include "tests/unit/driver.h"

#define LATER_QUEUES  2
#define LATER_SIZE    64
#define LATER_CONFIG  12
#define LATER_FEATURE 0 /* bit 1 depends on it */

enum later_mode {
	LATER_NOW,  /* pushed in serve() */
	LATER_SOON, /* held, pushed by a task over the next sweeps */
	LATER_HOLD, /* held until later_release() */
};

struct later_queue {
	struct virtio_queue *queue;
	_Atomic int mode;
	_Atomic bool cancel; /* queue_stop gives back what is held, half pushed and half unpopped */
	struct reactor_task soon;
	struct vq_buffer held[LATER_SIZE];
	struct iovec iov[LATER_SIZE];
	u16 held_count;
	_Atomic u32 held_now; /* for the test to look at */
	_Atomic u32 starts, stops, taken;
	/* once, on the reactor, after serve() found the queue empty and before the core looks again
	 */
	void (*_Atomic found_empty)(void *arg);
	void *found_empty_arg;
};

struct later {
	struct virtio_device device;
	struct later_queue queues[LATER_QUEUES];
	_Atomic u32 config_interrupts, queue_resets, resets, device_starts;
	u32 writes;
	bool refuse;
};

static inline void later_finish(struct later_queue *lq, u16 how_many)
{
	for (u16 i = 0; i < how_many; i++) {
		const struct vq_buffer *buffer = &lq->held[i];

		virtio_queue_push(lq->queue, buffer->head, buffer->writable_bytes);
	}
	memmove(lq->held, lq->held + how_many,
		sizeof(lq->held[0]) * (u16)(lq->held_count - how_many));
	lq->held_count = (u16)(lq->held_count - how_many);
	atomic_store(&lq->held_now, lq->held_count);
}

static inline void later_soon(struct reactor_task *task)
{
	struct later_queue *lq = container_of(task, struct later_queue, soon);

	/* a few a sweep, oldest first */
	later_finish(lq, lq->held_count > 3 ? 3 : lq->held_count);
	if (lq->held_count)
		reactor_defer(lq->queue->reactor, REACTOR_SERVE, task);
}

static inline enum virtio_served later_serve(struct virtio_queue *queue)
{
	struct later_queue *lq = queue->owner;
	void (*found_empty)(void *arg) = atomic_exchange(&lq->found_empty, NULL);
	struct vq_buffer buffer;

	assert_true(queue->ring.muted);
	while (virtio_queue_pop(queue, &buffer, lq->iov, LATER_SIZE) == 1) {
		atomic_fetch_add(&lq->taken, 1);
		/* something that the driver can check */
		if (buffer.writable && buffer.readable)
			memcpy(lq->iov[buffer.readable].iov_base, lq->iov[0].iov_base, 1);
		if (atomic_load(&lq->mode) == LATER_NOW) {
			virtio_queue_push(queue, buffer.head, buffer.writable_bytes);
			continue;
		}
		assert_true(lq->held_count <
			    LATER_SIZE); /* the core's promise: no more than the size */
		lq->held[lq->held_count++] = buffer;
		atomic_store(&lq->held_now, lq->held_count);
	}
	if (lq->held_count && atomic_load(&lq->mode) == LATER_SOON)
		reactor_defer(queue->reactor, REACTOR_SERVE, &lq->soon);
	if (found_empty)
		found_empty(lq->found_empty_arg);
	return VIRTIO_SERVED_ALL;
}

static inline void later_queue_start(struct virtio_queue *queue)
{
	struct later_queue *lq = queue->owner;

	assert_int_equal(lq->held_count, 0);
	assert_true(virtio_queue_running(queue));
	atomic_fetch_add(&lq->starts, 1);
}

static inline void later_queue_stop(struct virtio_queue *queue)
{
	struct later_queue *lq = queue->owner;
	u16 back;

	assert_false(virtio_queue_running(queue));
	atomic_fetch_add(&lq->stops, 1);
	if (atomic_load(&lq->cancel)) {
		back = lq->held_count / 2;
		lq->held_count = (u16)(lq->held_count - back);
		virtio_queue_unpop(queue, back);
		later_finish(lq, lq->held_count);
	} else if (lq->held_count && atomic_load(&lq->mode) == LATER_SOON) {
		reactor_defer(queue->reactor, REACTOR_SERVE, &lq->soon);
	}
}

static inline bool later_features_ok(struct virtio_device *device, u64 features)
{
	const struct later *later = device->owner;

	return !later->refuse && (!(features & 2) || (features & 1));
}

static inline void later_config_write(struct virtio_device *device, u32 offset, u32 size, u64 value)
{
	struct later *later = device->owner;

	assert_true(offset + size <= LATER_CONFIG);
	later->writes++;
	le_store(device->config + offset, size, value);
}

static inline void later_start(struct virtio_device *device)
{
	struct later *later = device->owner;

	atomic_fetch_add(&later->device_starts, 1);
}

static inline void later_reset(struct virtio_device *device)
{
	struct later *later = device->owner;

	for (int i = 0; i < LATER_QUEUES; i++)
		assert_int_equal(atomic_load(&device->queues[i].state), VIRTIO_QUEUE_IDLE);
	later->writes = 0;
	memset(device->config, 0x11, 4);
}

static const struct virtio_device_ops later_ops = {
	.id = 42,
	.name = "later",
	.features_ok = later_features_ok,
	.config_write = later_config_write,
	.start = later_start,
	.queue_start = later_queue_start,
	.serve = later_serve,
	.queue_stop = later_queue_stop,
	.reset = later_reset,
};

static inline void later_config_interrupt(struct virtio_device *device)
{
	struct later *later = device->owner;

	atomic_fetch_or(&device->isr, VIRTIO_ISR_CONFIG);
	atomic_fetch_add(&later->config_interrupts, 1);
}

static inline void later_transport_queue_reset(struct virtio_queue *queue)
{
	struct later *later = queue->device->owner;

	assert_int_equal(queue->msix_vector, 0xffff);
	atomic_fetch_add(&later->queue_resets, 1);
}

static inline void later_transport_reset(struct virtio_device *device)
{
	struct later *later = device->owner;

	atomic_fetch_add(&later->resets, 1);
}

static const struct virtio_transport_ops later_transport = {
	.config_interrupt = later_config_interrupt,
	.queue_reset = later_transport_queue_reset,
	.reset = later_transport_reset,
};

/* Its queues spread over the reactors there are. */
static inline void later_init(struct later *later, struct driver_machine *machine, const char *name)
{
	u8 reactors[LATER_QUEUES];
	const struct virtio_device_config config = {
		.ops = &later_ops,
		.owner = later,
		.name = name,
		.memory = &machine->memory,
		.reactors = machine->reactors,
		.features = 0xff | BIT64(50) | VIRTIO_OPTIONAL,
		.config_size = LATER_CONFIG,
		.queue_count = LATER_QUEUES,
		.queue_size = LATER_SIZE,
		.queue_reactor = reactors,
	};

	memset(later, 0, sizeof(*later));
	for (u32 i = 0; i < LATER_QUEUES; i++)
		reactors[i] = (u8)(i % reactors_count(machine->reactors));
	assert_int_equal(virtio_device_init(&later->device, &config), 0);
	memset(later->device.config, 0x11, 4);
	for (u32 i = 0; i < LATER_QUEUES; i++) {
		later->queues[i].queue = &later->device.queues[i];
		later->queues[i].soon.run = later_soon;
		later->device.queues[i].owner = &later->queues[i];
	}
	later->device.transport = &later_transport;
}

static inline void later_release_run(void *arg)
{
	struct later_queue *lq = arg;

	later_finish(lq, lq->held_count);
}

/* Gives back what a queue in LATER_HOLD holds. */
static inline void later_release(struct later *later, u16 index)
{
	reactor_call(later->device.queues[index].reactor, later_release_run, &later->queues[index]);
}

static inline void later_unpop_run(void *arg)
{
	struct later_queue *lq = arg;
	u16 count = lq->held_count;

	lq->held_count = 0;
	atomic_store(&lq->held_now, 0);
	virtio_queue_unpop(lq->queue, count);
}

/* The same, as if they had never been taken. */
static inline void later_unpop(struct later *later, u16 index)
{
	reactor_call(later->device.queues[index].reactor, later_unpop_run, &later->queues[index]);
}

static inline void later_nothing(void *arg)
{
	(void)arg;
}

/* Waits until every reactor has done at least one whole sweep with all that was asked of it so far.
 */
static inline void later_settle(struct later *later)
{
	for (int turn = 0; turn < 4; turn++)
		for (u32 i = 0; i < reactors_count(later->device.reactors); i++)
			reactor_call(reactors_get(later->device.reactors, i), later_nothing, NULL);
}

#endif
