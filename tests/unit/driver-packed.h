/*
 * The driver's side of a packed ring (virtio 1.3, 2.8.21 and 2.8.22), and of IN_ORDER in both
 * formats: what driver.h does when a ring is of that kind.
 *
 * A descriptor's last eight bytes (length, id, flags) are accessed as one word, as the device does,
 * so that the thread sanitizer knows which store a load saw.
 */
#ifndef TESTS_UNIT_DRIVER_PACKED_H
#define TESTS_UNIT_DRIVER_PACKED_H

#define DRIVER_TURN (BIT(VRING_PACKED_DESC_F_AVAIL) | BIT(VRING_PACKED_DESC_F_USED))

static inline void driver_place_move(struct driver_place *place, u16 by, u16 size)
{
	u32 at = (u32)place->at + by;

	if (at >= size) {
		at -= size;
		place->wrap = !place->wrap;
	}
	place->at = (u16)at;
}

static inline u16 driver_place_event(const struct driver_place *place)
{
	return (u16)(place->at | (u32)place->wrap << VRING_PACKED_EVENT_F_WRAP_CTR);
}

static inline u64 driver_tail(u32 length, u16 id, u16 flags)
{
	return length | (u64)id << 32 | (u64)flags << 48;
}

static inline u64 *driver_tail_at(struct driver_ring *ring, u16 at)
{
	return (u64 *)(void *)ring->descriptors + 2ul * at + 1;
}

/* What an available descriptor's two flags are at a wrap counter. */
static inline u16 driver_turn(bool wrap)
{
	return wrap ? BIT(VRING_PACKED_DESC_F_AVAIL) : BIT(VRING_PACKED_DESC_F_USED);
}

/* Writes one descriptor at the next place and goes on; the first since the last publication is kept
 * back, so that the device sees none. */
static inline void driver_packed_write(struct driver_ring *ring, u64 at, u32 length, u16 id,
				       u16 flags)
{
	u64 tail = driver_tail(length, id, (u16)(flags | driver_turn(ring->fill.wrap)));

	__atomic_store_n(driver_tail_at(ring, ring->fill.at) - 1, at, __ATOMIC_RELAXED);
	if (!ring->added) {
		ring->pending_at = ring->fill.at;
		ring->pending = tail;
	} else {
		__atomic_store_n(driver_tail_at(ring, ring->fill.at), tail, __ATOMIC_RELAXED);
	}
	ring->added++;
	driver_place_move(&ring->fill, 1, ring->size);
}

/* The next free id, for a buffer of `span` descriptors; -1: no room. */
static inline int driver_packed_id(struct driver_ring *ring, u16 span)
{
	u16 id;

	if (ring->room < span || !ring->free_count)
		return -1;
	ring->room = (u16)(ring->room - span);
	id = ring->free[--ring->free_count];
	ring->chain[id] = span;
	return id;
}

static inline bool driver_packed_publish(struct driver_ring *ring)
{
	u16 added = ring->added, event;
	u32 wish;

	if (added)
		__atomic_store_n(driver_tail_at(ring, ring->pending_at), ring->pending,
				 __ATOMIC_RELEASE);
	ring->added = 0;
	__sync_synchronize();
	wish = __atomic_load_n((u32 *)(void *)ring->used, __ATOMIC_RELAXED);
	if (wish >> 16 != VRING_PACKED_EVENT_FLAG_DESC)
		return wish >> 16 == VRING_PACKED_EVENT_FLAG_ENABLE;
	event = wish & 0x7fff;
	if ((wish >> 15 & 1) != ring->fill.wrap)
		event = (u16)(event - ring->size);
	return vring_need_event(event, ring->fill.at, (u16)(ring->fill.at - added));
}

/* Is the next descriptor used? Its tail. */
static inline bool driver_packed_look(struct driver_ring *ring, u64 *tail)
{
	u16 used = ring->look.wrap ? DRIVER_TURN : 0;

	*tail = __atomic_load_n(driver_tail_at(ring, ring->look.at), __ATOMIC_ACQUIRE);
	return (*tail >> 48 & DRIVER_TURN) == used;
}

static inline void driver_packed_wish(struct driver_ring *ring, u16 event, u16 flags)
{
	__atomic_store_n((u32 *)(void *)ring->available, event | (u32)flags << 16,
			 __ATOMIC_RELAXED);
}

/* After `after` more descriptors, which is no later than after as many buffers. */
static inline bool driver_packed_arm(struct driver_ring *ring, u16 after)
{
	struct driver_place event = ring->look;
	u64 tail;

	driver_place_move(&event, (u16)(after - 1), ring->size);
	if (ring->event_idx)
		driver_packed_wish(ring, driver_place_event(&event), VRING_PACKED_EVENT_FLAG_DESC);
	else
		driver_packed_wish(ring, 0, VRING_PACKED_EVENT_FLAG_ENABLE);
	__sync_synchronize();
	return ring->batch_left || driver_packed_look(ring, &tail);
}

#endif
