/*
 * What a driver and a device share, for tests/unit/notification-model.c: the queue in guest memory,
 * what each counts for itself, the steps that can go wrong, and the arithmetic of indices and
 * events.
 */
#ifndef TESTS_UNIT_MODEL_QUEUE_H
#define TESTS_UNIT_MODEL_QUEUE_H

#include "tests/unit/model.h"

enum { DRIVER, DEVICE };

/* What is left out or done wrong. */
enum mutation {
	NONE,
	DRIVER_NO_KICK_FENCE,
	DRIVER_NO_SLEEP_FENCE,
	DRIVER_NO_SECOND_LOOK,
	DEVICE_NO_UNMUTE_FENCE,
	DEVICE_NO_SECOND_LOOK,
	DEVICE_LOOKS_BEFORE_UNMUTE,
	DEVICE_RESTS_MUTED,
	DEVICE_TURN_UNSEEN, /* mutes for the driver's turn, and does not look */
	DEVICE_STARVES_FOREVER,
	DEVICE_NO_PUBLISH_FENCE,
	DEVICE_WISH_BEFORE_INDEX,
	DEVICE_EVENT_EQUALS, /* is the event the last one, instead of among the new ones? */
	DRIVER_EVENT_EQUALS,
	DEVICE_IGNORES_WRAP,  /* of a packed event */
	DEVICE_RELAXED_INDEX, /* no release */
	DEVICE_RELAXED_POP,   /* no acquire */
};

struct setting {
	bool packed, event_idx;
	bool instant;		/* requests are done inside serve() */
	bool restless;		/* the driver also looks for used buffers that it will be told of */
	u8 size, buffers, pool; /* of the ring; in all; requests that may be in flight */
	enum mutation mutation;
};

/* Indices of a split queue are free-running, modulo this instead of 2^16. */
#define INDICES 8
#define START	6 /* of all indices: they wrap soon */

/* ---- what is shared ---- */

#define SIZE_MAX_MODEL 3
enum {
	ENTRY, /* what a descriptor or an available ring entry says: which buffer it is */
	USED = ENTRY + SIZE_MAX_MODEL, /* what a used element says */
	FLAGS = USED + SIZE_MAX_MODEL, /* packed: AVAIL and USED of each descriptor */
	AVAIL_INDEX = FLAGS + SIZE_MAX_MODEL,
	USED_INDEX,
	DEVICE_WISH, /* avail_event, or used.flags; packed: flags of device event suppression */
	DRIVER_WISH,
	DRIVER_EVENT, /* packed: its descriptor event offset and wrap counter */
	LOCATIONS
};
_Static_assert(LOCATIONS <= MODEL_LOCATIONS, "room for all of them");

enum { WISH_ENABLE = 0, WISH_DISABLE = 1, WISH_DESC = 2 }; /* 2.8.10; flags' NO_* are 1 too */
#define WRAP	   8					   /* in an event's offset */
#define WISH_EVENT 0x10 /* the device's WISH_DESC: its event is in the same word */

/* Locals, by name. Counters count buffers, modulo what makes indices and wrap counters unique. */
enum { LEFT, OUT, ADDED, REAPED, BATCH, ARMED, DELAY, SNAP, QUIET }; /* driver */
enum { TAKEN, PUSHED, PUBLISHED, FLIGHT, TODO, BITS };		     /* device */
enum {								     /* BITS */
       MUTED = 1,
       POLLED = 2,
       STARVED = 4,
       SCHEDULED = 8,
       RESTING = 16,
       EARLY = 32,
       TURNING = 64
};

enum { SAW_QUIET_ADD = 1, SAW_QUIET_PUBLISH = 2, SAW_SECOND_LOOK = 4, SAW_DRIVER_SECOND_LOOK = 8 };
#define SAW_ALL 15u

/* One step of one thread. */
struct at {
	struct model *model;
	const struct setting *set;
	struct model_state *state;
	struct model_thread *self;
	u8 *l;
	u32 thread, alternative;
};

static inline u8 count_modulo(const struct setting *set)
{
	return set->packed ? (u8)(2 * set->size) : INDICES;
}

static inline u8 advance(const struct setting *set, u8 counter, u32 by)
{
	return (u8)((counter + by) % count_modulo(set));
}

static inline u32 distance(const struct setting *set, u8 from, u8 to)
{
	return (u32)(to + count_modulo(set) - from) % count_modulo(set);
}

static inline u32 slot(const struct setting *set, u8 counter)
{
	return counter % set->size;
}

/* A packed ring's wrap counter begins with 1 (2.8.1). */
static inline u32 wrap_of(const struct setting *set, u8 counter)
{
	return counter / set->size % 2 == 0;
}

/* AVAIL is bit 1, USED bit 0. */
static inline u8 flags_avail(const struct setting *set, u8 counter)
{
	return wrap_of(set, counter) ? 2 : 1;
}

static inline u8 flags_used(const struct setting *set, u8 counter)
{
	return wrap_of(set, counter) ? 3 : 0;
}

static inline bool mutated(const struct at *at, enum mutation mutation)
{
	return at->set->mutation == mutation;
}

static inline u8 load(const struct at *at, u32 location, bool acquire)
{
	return model_load(at->model, at->state, at->thread, location, at->alternative, acquire);
}

static inline void put(const struct at *at, u32 location, u8 value, bool release)
{
	model_put(at->model, at->state, at->thread, location, value, release);
}

static inline u32 readable(const struct at *at, u32 location)
{
	return model_readable(at->state, at->thread, location);
}

static inline u32 go(const struct at *at, u8 pc)
{
	at->self->pc = pc;
	return 1;
}

/* vring_need_event() with what takes the place of 16 bits. */
static inline bool need_event(const struct setting *set, u8 event, u8 new, u8 old)
{
	return distance(set, advance(set, event, 1), new) < distance(set, old, new);
}

/* An event of a packed queue, as a counter near `new` (Linux: an older wrap's is below zero). */
static inline bool need_event_packed(const struct at *at, u8 event, u8 new, u32 added)
{
	int position = (int)slot(at->set, new), offset = event % WRAP;

	if ((event / WRAP != 0) != (wrap_of(at->set, new) != 0) &&
	    !mutated(at, DEVICE_IGNORES_WRAP))
		offset -= at->set->size;
	return (u16)(position - offset - 1) < (u16)added;
}

static inline u8 event_packed(const struct setting *set, u8 counter)
{
	return (u8)(slot(set, counter) | (wrap_of(set, counter) ? WRAP : 0));
}

#endif
