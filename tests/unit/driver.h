/*
 * A driver for tests: lays out split or packed rings in guest RAM, adds buffers, rings doorbells,
 * waits for used ones, and walks a device through its status. It plays the guest: what it shares
 * with the device it accesses as a driver must (virtio 1.3, 2.7.13 and 2.7.14), so that the
 * sanitizers see only the device's mistakes.
 *
 * Typical: driver_machine_up(); make the device; driver_machine_go(); driver_negotiate();
 * driver_queue(); driver_ok(); driver_add(); driver_kick(); driver_wait_used().
 */
#ifndef TESTS_UNIT_DRIVER_H
#define TESTS_UNIT_DRIVER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include "tests/unit/reactor-modes.h"
#include "virtio/device.h"

#define DRIVER_RING_MAX	   1024
#define DRIVER_PATIENCE_MS 10000

/* ---- the machine: RAM and reactors, no KVM ---- */

struct driver_machine {
	struct memory memory;
	struct reactors *reactors;
	bool started;
};

/* The busy-polling window of machines made from now on, and how their reactors run. */
static u32 driver_poll_us;
/* And how many files there may be. */
static u32 driver_max_files = 256;
static struct reactor_mode driver_mode;

static inline void driver_machine_up(struct driver_machine *machine, u64 ram, u32 threads,
				     bool epoll)
{
	struct reactors_config config = { .count = threads,
					  .poll_us = driver_poll_us + driver_mode.poll_us,
					  .sqpoll = driver_mode.sqpoll,
					  .iopoll = true,
					  .refuse = driver_mode.refuse,
					  .max_files = driver_max_files,
					  .force_epoll = epoll || driver_mode.force_epoll };

	memset(machine, 0, sizeof(*machine));
	assert_int_equal(memory_create(&machine->memory, NULL, ram, MEMORY_PAGES_DEFAULT), 0);
	assert_int_equal(reactors_create(&machine->reactors, &config), 0);
}

static inline void driver_machine_go(struct driver_machine *machine)
{
	assert_int_equal(reactors_start(machine->reactors), 0);
	machine->started = true;
}

/* First bring the devices to rest (virtio_device_power_on), then this, then destroy them. */
static inline void driver_machine_stop(struct driver_machine *machine)
{
	reactors_destroy(machine->reactors);
	machine->reactors = NULL;
}

static inline void driver_machine_down(struct driver_machine *machine)
{
	if (machine->reactors)
		driver_machine_stop(machine);
	memory_destroy(&machine->memory);
}

static inline u64 driver_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (u64)now.tv_sec * 1000 + (u64)now.tv_nsec / 1000000;
}

/* Waits until the expression is true, or fails the test. */
#define driver_wait(expression)                                                  \
	do {                                                                     \
		u64 until_ = driver_ms() + DRIVER_PATIENCE_MS;                   \
		while (!(expression)) {                                          \
			if (driver_ms() > until_)                                \
				fail_msg("waited in vain for: %s", #expression); \
			usleep(50);                                              \
		}                                                                \
	} while (0)

/* ---- a ring ---- */

/* Rings and feature sets made from now on are packed; in order. */
static bool driver_packed, driver_in_order;

static inline u64 driver_features(void)
{
	return (driver_packed ? BIT64(VIRTIO_F_RING_PACKED) : 0) |
	       (driver_in_order ? BIT64(VIRTIO_F_IN_ORDER) : 0);
}

/* A place in a packed ring and its wrap counter. */
struct driver_place {
	u16 at;
	bool wrap;
};

struct driver_ring {
	struct memory *memory;
	u16 size;
	bool event_idx, packed, in_order;
	u64 descriptors_at, available_at, used_at; /* guest-physical; the legacy layout */
	struct vring_desc *descriptors;
	struct vring_avail *available;
	struct vring_used *used;
	u16 next_available; /* free-running: entries written */
	u16 published;	    /* free-running: index the device sees */
	u16 next_used;	    /* free-running: used elements taken */
	u16 free[DRIVER_RING_MAX];
	u16 free_count;
	u16 chain[DRIVER_RING_MAX]; /* descriptors of the chain with this head */
	/* packed: descriptors, driver event suppression, device event suppression are where
	 * descriptors, available and used point; heads are buffer ids */
	struct driver_place fill, look; /* next descriptor to write; to see used */
	u16 room;			/* descriptors that are free */
	u16 added;			/* descriptors written since the last publication, ... */
	u16 pending_at;			/* ... the first of them, which hides all, ... */
	u64 pending;			/* ... and its tail */
	/* in order: heads out, oldest first, and the batch being taken */
	u16 order[DRIVER_RING_MAX], order_first, order_next;
	u16 batch_left; /* of it, up to the one that was told of */
	u32 batch_id, batch_written;
	u32 batches;		       /* elements that the device wrote */
	u16 next_free;		       /* split: descriptors go round */
	u32 writable[DRIVER_RING_MAX]; /* bytes, by head */
	int doorbell_fd;	       /* -1: driver_kick() only publishes */
	u64 kicks;		       /* doorbells rung */
};

/* One part of a buffer. Readable ones first. */
struct driver_part {
	u64 at;
	u32 length;
	bool writable;
};

#include "tests/unit/driver-packed.h"

/* Bytes of a ring in the legacy layout. */
static inline u64 driver_ring_bytes(u16 size)
{
	return ALIGN_UP(16ull * size + 6 + 2ull * size, 4096ull) + 6 + 8ull * size;
}

/* Zeroed rings at guest-physical `at` (a multiple of 4096). */
static inline void driver_ring_init(struct driver_ring *ring, struct memory *memory, u64 at,
				    u16 size, bool event_idx)
{
	u8 *base = memory_at(memory, at, driver_ring_bytes(size));

	assert_non_null(base);
	memset(base, 0, driver_ring_bytes(size));
	memset(ring, 0, sizeof(*ring));
	ring->memory = memory;
	ring->size = size;
	ring->event_idx = event_idx;
	ring->packed = driver_packed;
	ring->in_order = driver_in_order;
	ring->fill.wrap = ring->look.wrap = true;
	ring->room = size;
	ring->descriptors_at = at;
	ring->available_at = at + 16ull * size;
	ring->used_at = ALIGN_UP(ring->available_at + 6 + 2ull * size, 4096ull);
	ring->descriptors = memory_at(memory, ring->descriptors_at, 16ull * size);
	ring->available = memory_at(memory, ring->available_at, 6 + 2ull * size);
	ring->used = memory_at(memory, ring->used_at, 6 + 8ull * size);
	ring->doorbell_fd = -1;
	for (u16 i = 0; i < size; i++)
		ring->free[i] = (u16)(size - 1 - i);
	ring->free_count = size;
}

static inline void driver_fence(void)
{
	__sync_synchronize();
}

/* Writes one descriptor, as the test says, however wrong. */
static inline void driver_descriptor(struct driver_ring *ring, u16 index, u64 at, u32 length,
				     u16 flags, u16 next)
{
	ring->descriptors[index] =
		(struct vring_desc){ .addr = at, .len = length, .flags = flags, .next = next };
}

/* Puts a head into the available ring, as the test says; driver_publish() shows it. */
static inline void driver_offer(struct driver_ring *ring, u16 head)
{
	__atomic_store_n(&ring->available->ring[ring->next_available & (ring->size - 1)], head,
			 __ATOMIC_RELAXED);
	ring->next_available++;
}

/* What a driver keeps of a buffer that it makes available. */
static inline void driver_note(struct driver_ring *ring, u16 head, const struct driver_part *parts,
			       u16 count)
{
	ring->writable[head] = 0;
	for (u16 i = 0; i < count; i++)
		ring->writable[head] += parts[i].writable ? parts[i].length : 0;
	ring->order[ring->order_next++ % DRIVER_RING_MAX] = head;
}

static inline int driver_packed_add(struct driver_ring *ring, const struct driver_part *parts,
				    u16 count)
{
	int id = driver_packed_id(ring, count);

	for (u16 i = 0; i < count && id >= 0; i++)
		driver_packed_write(ring, parts[i].at, parts[i].length,
				    i + 1 < count ? UINT16_MAX : (u16)id, /* 2.8.6: in the last */
				    (u16)((parts[i].writable ? VRING_DESC_F_WRITE : 0) |
					  (i + 1 < count ? VRING_DESC_F_NEXT : 0)));
	if (id >= 0)
		driver_note(ring, (u16)id, parts, count);
	return id;
}

/* A free descriptor: in ring order if that was negotiated (2.7.5). */
static inline u16 driver_free(struct driver_ring *ring)
{
	ring->free_count--;
	return ring->in_order ? ring->next_free++ & (ring->size - 1) : ring->free[ring->free_count];
}

/* Free descriptors. */
static inline u16 driver_room(const struct driver_ring *ring)
{
	return ring->packed ? ring->room : ring->free_count;
}

/* A buffer of direct descriptors: its head, or -1 when the ring has no room. */
static inline int driver_add(struct driver_ring *ring, const struct driver_part *parts, u16 count)
{
	u16 head = 0, at = 0, previous = 0;

	assert_true(count > 0);
	if (ring->packed)
		return driver_packed_add(ring, parts, count);
	if (ring->free_count < count)
		return -1;
	for (u16 i = 0; i < count; i++) {
		at = driver_free(ring);
		if (i == 0)
			head = at;
		else {
			ring->descriptors[previous].flags |= VRING_DESC_F_NEXT;
			ring->descriptors[previous].next = at;
		}
		driver_descriptor(ring, at, parts[i].at, parts[i].length,
				  parts[i].writable ? VRING_DESC_F_WRITE : 0, 0);
		previous = at;
	}
	ring->chain[head] = count;
	driver_note(ring, head, parts, count);
	driver_offer(ring, head);
	return head;
}

/* The same through an indirect table, written at guest-physical `table`. */
static inline int driver_add_indirect(struct driver_ring *ring, u64 table,
				      const struct driver_part *parts, u16 count)
{
	struct vring_desc *to = memory_at(ring->memory, table, 16ull * count), desc;
	int id;
	u16 head;

	assert_non_null(to);
	if (!ring->free_count)
		return -1;
	for (u16 i = 0; i < count; i++) {
		desc = (struct vring_desc){ .addr = parts[i].at, .len = parts[i].length };
		if (ring->packed) { /* 2.8.7: flags in the last field; all but WRITE mean nothing */
			desc.next = (u16)(parts[i].writable ? VRING_DESC_F_WRITE : 0);
			desc.flags = UINT16_MAX;
		} else {
			desc.flags = parts[i].writable ? VRING_DESC_F_WRITE : 0;
			if (i + 1 < count) {
				desc.flags |= VRING_DESC_F_NEXT;
				desc.next = (u16)(i + 1);
			}
		}
		memcpy((u8 *)to + 16ull * i, &desc, sizeof(desc));
	}
	if (ring->packed) {
		id = driver_packed_id(ring, 1);
		if (id < 0)
			return -1;
		driver_packed_write(ring, table, 16u * count, (u16)id, VRING_DESC_F_INDIRECT);
		driver_note(ring, (u16)id, parts, count);
		return id;
	}
	head = driver_free(ring);
	driver_descriptor(ring, head, table, 16u * count, VRING_DESC_F_INDIRECT, 0);
	ring->chain[head] = 1;
	driver_note(ring, head, parts, count);
	driver_offer(ring, head);
	return head;
}

/* Shows the device all that was added. True if it wants to be notified of that (2.7.10). */
static inline bool driver_publish(struct driver_ring *ring)
{
	u16 old = ring->published, new = ring->next_available;
	u16 event;

	if (ring->packed)
		return driver_packed_publish(ring);
	__atomic_store_n(&ring->available->idx, new, __ATOMIC_RELEASE);
	ring->published = new;
	driver_fence();
	if (!ring->event_idx)
		return !(__atomic_load_n(&ring->used->flags, __ATOMIC_RELAXED) &
			 VRING_USED_F_NO_NOTIFY);
	event = __atomic_load_n((u16 *)(void *)&ring->used->ring[ring->size], __ATOMIC_RELAXED);
	return vring_need_event(event, new, old);
}

static inline void driver_ring_doorbell(struct driver_ring *ring)
{
	ring->kicks++;
	assert_int_equal(eventfd_write(ring->doorbell_fd, 1), 0);
}

/* Publishes, and rings the doorbell if the device wants that. */
static inline void driver_kick(struct driver_ring *ring)
{
	if (driver_publish(ring) && ring->doorbell_fd >= 0)
		driver_ring_doorbell(ring);
}

/* The next used element as the device wrote it. */
static inline bool driver_element(struct driver_ring *ring, u32 *id, u32 *written)
{
	const struct vring_used_elem *element;
	u64 tail;

	if (ring->packed) {
		if (!driver_packed_look(ring, &tail))
			return false;
		*id = (u16)(tail >> 32);
		/* 2.8.4: without WRITE the length is reserved */
		*written = tail >> 48 & VRING_DESC_F_WRITE ? (u32)tail : 0;
	} else {
		if (__atomic_load_n(&ring->used->idx, __ATOMIC_ACQUIRE) == ring->next_used)
			return false;
		element = &ring->used->ring[ring->next_used & (ring->size - 1)];
		*id = __atomic_load_n(&element->id, __ATOMIC_RELAXED);
		*written = __atomic_load_n(&element->len, __ATOMIC_RELAXED);
	}
	assert_true(*id < ring->size);
	return true;
}

/* A buffer's descriptors become free, and the next used element is looked for behind it. */
static inline void driver_release(struct driver_ring *ring, u16 id)
{
	u16 at = id, count = ring->chain[id], next;

	ring->chain[id] = 0;
	ring->next_used++;
	if (ring->packed) {
		assert_true(count > 0);
		ring->free[ring->free_count++] = id;
		ring->room = (u16)(ring->room + count);
		driver_place_move(&ring->look, count, ring->size);
		return;
	}
	while (count--) {
		next = ring->descriptors[at].next;
		ring->free[ring->free_count++] = at;
		at = next;
	}
}

/* The next used buffer, if there is one; its descriptors become free (heads unknown to driver_add()
 * are left alone). In order (2.7.9, 2.8.8) those that one element stands for come one by one. */
static inline bool driver_used(struct driver_ring *ring, u32 *head, u32 *written)
{
	u32 id, length;
	u16 last;

	if (!ring->in_order) {
		if (!driver_element(ring, &id, &length))
			return false;
	} else {
		if (!ring->batch_left) {
			if (!driver_element(ring, &ring->batch_id, &ring->batch_written))
				return false;
			last = ring->order_first;
			while (ring->order[last % DRIVER_RING_MAX] != ring->batch_id) {
				last++;
				assert_true(last != ring->order_next);
			}
			ring->batch_left = (u16)(last - ring->order_first + 1);
			ring->batches++;
		}
		id = ring->order[ring->order_first++ % DRIVER_RING_MAX];
		length = --ring->batch_left ? ring->writable[id] : ring->batch_written;
	}
	driver_release(ring, (u16)id);
	if (head)
		*head = id;
	if (written)
		*written = length;
	return true;
}

/* How many buffers the device has shown as used since the start; free-running. */
static inline u16 driver_shown(struct driver_ring *ring)
{
	struct driver_place look = ring->look;
	u16 count = 0, left = ring->batch_left, at = ring->order_first, head;
	u64 tail;

	if (!ring->packed)
		return __atomic_load_n(&ring->used->idx, __ATOMIC_ACQUIRE);
	while (left || driver_packed_look(ring, &tail)) {
		if (!left && ring->in_order) /* all up to the one that the element names */
			while (ring->order[(u16)(at + left++) % DRIVER_RING_MAX] !=
			       (u16)(tail >> 32))
				;
		head = left ? ring->order[at++ % DRIVER_RING_MAX] : (u16)(tail >> 32);
		left = left ? (u16)(left - 1) : 0;
		driver_place_move(&ring->look, ring->chain[head], ring->size);
		count++;
	}
	ring->look = look;
	return (u16)(ring->next_used + count);
}

static inline void driver_wait_used(struct driver_ring *ring, u32 *head, u32 *written)
{
	driver_wait(driver_used(ring, head, written));
}

/* Asks for an interrupt after `after` more used elements (1: the next one; without EVENT_IDX: any).
 * True if elements are there already. */
static inline bool driver_arm(struct driver_ring *ring, u16 after)
{
	if (ring->packed)
		return driver_packed_arm(ring, after);
	if (ring->event_idx)
		__atomic_store_n(&ring->available->ring[ring->size],
				 (u16)(ring->next_used + after - 1), __ATOMIC_RELAXED);
	else
		__atomic_store_n(&ring->available->flags, 0, __ATOMIC_RELAXED);
	driver_fence();
	return (u16)(__atomic_load_n(&ring->used->idx, __ATOMIC_ACQUIRE) - ring->next_used) >=
	       after;
}

/* Asks for no interrupts. */
static inline void driver_disarm(struct driver_ring *ring)
{
	if (ring->packed)
		driver_packed_wish(ring, 0, VRING_PACKED_EVENT_FLAG_DISABLE);
	else if (ring->event_idx) /* as far away as can be */
		__atomic_store_n(&ring->available->ring[ring->size], (u16)(ring->next_used - 1),
				 __ATOMIC_RELAXED);
	else
		__atomic_store_n(&ring->available->flags, VRING_AVAIL_F_NO_INTERRUPT,
				 __ATOMIC_RELAXED);
}

/* ---- a device ---- */

/* The modern way to FEATURES_OK (VERSION_1 is added, and what driver_packed says). False if the
 * device refused. */
static inline bool driver_negotiate(struct virtio_device *device, u64 features)
{
	bool ok;

	features |= BIT64(VIRTIO_F_VERSION_1) | driver_features();
	pthread_mutex_lock(&device->lock);
	virtio_status_write(device, VIRTIO_CONFIG_S_ACKNOWLEDGE, false);
	virtio_status_write(device, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER, false);
	virtio_features_write(device, 0, (u32)features, false);
	virtio_features_write(device, 1, (u32)(features >> 32), false);
	virtio_status_write(device, virtio_status_read(device) | VIRTIO_CONFIG_S_FEATURES_OK,
			    false);
	ok = virtio_status_read(device) & VIRTIO_CONFIG_S_FEATURES_OK;
	pthread_mutex_unlock(&device->lock);
	return ok;
}

/* Gives a queue its ring and enables it; the ring then rings that queue's doorbell. */
static inline void driver_queue(struct virtio_device *device, u16 index, struct driver_ring *ring)
{
	struct virtio_queue *queue;

	pthread_mutex_lock(&device->lock);
	queue = virtio_queue_get(device, index);
	assert_non_null(queue);
	virtio_queue_set_size(queue, ring->size);
	assert_int_equal(queue->size, ring->size);
	queue->descriptors = ring->descriptors_at;
	queue->driver = ring->available_at;
	queue->used = ring->used_at;
	virtio_queue_enable(queue);
	ring->doorbell_fd = queue->doorbell_fd;
	pthread_mutex_unlock(&device->lock);
}

static inline void driver_status(struct virtio_device *device, u8 status, bool legacy)
{
	pthread_mutex_lock(&device->lock);
	virtio_status_write(device, status, legacy);
	pthread_mutex_unlock(&device->lock);
}

static inline u8 driver_status_now(struct virtio_device *device)
{
	u8 status;

	pthread_mutex_lock(&device->lock);
	status = virtio_status_read(device);
	pthread_mutex_unlock(&device->lock);
	return status;
}

static inline void driver_ok(struct virtio_device *device)
{
	driver_status(device, (u8)(driver_status_now(device) | VIRTIO_CONFIG_S_DRIVER_OK), false);
	assert_true(driver_status_now(device) & VIRTIO_CONFIG_S_DRIVER_OK);
}

/* The modern reset: write 0, read until 0. */
static inline void driver_reset(struct virtio_device *device)
{
	driver_status(device, 0, false);
	driver_wait(driver_status_now(device) == 0);
}

/* Runs the tests with rings of a kind. Returns how many failed. */
#define driver_run(tests, packed, in_order)                                                       \
	({                                                                                        \
		driver_packed = packed;                                                           \
		driver_in_order = in_order;                                                       \
		cmocka_run_group_tests_name(packed     ? in_order ? "packed, in order" : "packed" \
					    : in_order ? "in order"                               \
						       : "split",                                 \
					    tests, NULL, NULL);                                   \
	})
#define driver_run_two(tests) (driver_run(tests, false, false) + driver_run(tests, true, true))
#define driver_run_all(tests)                                               \
	(driver_run(tests, false, false) + driver_run(tests, true, false) + \
	 driver_run(tests, false, true))

/* An eventfd as the queue's interrupt: call between driver_machine_up() and driver_machine_go() and
 * after the device was made. A reset unmaps nothing here, as there is no transport. Returns the
 * eventfd; close it after the machine is down. */
static inline int driver_interrupt(struct driver_machine *machine, struct virtio_queue *queue)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	reactor_file file;

	assert_true(fd >= 0);
	file = reactor_file_add(machine->reactors, fd);
	assert_true(file >= 0);
	atomic_store(&queue->interrupt, file);
	return fd;
}

/* Waits for an interrupt and takes it. */
static inline void driver_wait_interrupt(int fd)
{
	struct pollfd ready = { .fd = fd, .events = POLLIN };
	eventfd_t value;

	assert_int_equal(poll(&ready, 1, DRIVER_PATIENCE_MS), 1);
	assert_int_equal(eventfd_read(fd, &value), 0);
}

/* Takes interrupts that are there: how many (coalesced writes counted). */
static inline u64 driver_interrupts(int fd)
{
	eventfd_t value = 0;

	return eventfd_read(fd, &value) == 0 ? value : 0;
}

#endif
