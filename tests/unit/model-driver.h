/*
 * The driver is Linux's virtio_ring.c: entry, index (for each buffer), fence, the device's wish,
 * the doorbell; callbacks off, used buffers, callbacks on (now, or after all that is outstanding),
 * fence, a second look, sleep. It may also go on adding instead, and look without being told.
 */
#ifndef TESTS_UNIT_MODEL_DRIVER_H
#define TESTS_UNIT_MODEL_DRIVER_H

#include "tests/unit/model-queue.h"

enum {
	D_TOP,
	D_ENTRY,
	D_INDEX,
	D_FENCE,
	D_WISH,
	D_OFF,
	D_LOOK,
	D_TAKE,
	D_AFTER,
	D_EVENT,
	D_ON,
	D_SLEEP_FENCE,
	D_SECOND_LOOK,
	D_SLEEP,
	D_DONE
};

/* Adds 1 or 2 buffers, looks for used ones, or (if it will be told of them) sleeps. */
static inline u32 driver_top(const struct at *at)
{
	u8 *l = at->l, room = (u8)(at->set->size - l[OUT]);
	u8 most = l[LEFT] < room ? l[LEFT] : room;
	u32 pick = at->alternative;

	if (most > 2)
		most = 2;
	if (pick < most) {
		l[BATCH] = (u8)(pick + 1);
		l[SNAP] = l[ADDED];
		go(at, D_ENTRY);
	} else if (!l[OUT]) {
		return go(at, D_DONE);
	} else if (!l[ARMED] || (at->set->restless && pick > most)) {
		go(at, D_OFF);
	} else {
		go(at, D_SLEEP);
	}
	return most + (l[OUT] ? 1u : 0u) + (l[OUT] && l[ARMED] && at->set->restless ? 1u : 0u);
}

static inline void ring_doorbell(const struct at *at, bool wanted)
{
	if (wanted)
		model_wake(at->state, DRIVER);
	else
		at->model->seen |= SAW_QUIET_ADD;
	at->l[SNAP] = 0;
	go(at, D_TOP);
}

static inline u32 driver_add(const struct at *at)
{
	const struct setting *set = at->set;
	u8 *l = at->l, wish;
	u32 n;

	switch (at->self->pc) {
	case D_ENTRY:
		put(at, ENTRY + slot(set, l[ADDED]), l[ADDED], false);
		return go(at, D_INDEX);
	case D_INDEX: /* 2.7.13.3; 2.8.21.1 */
		if (set->packed)
			put(at, FLAGS + slot(set, l[ADDED]), flags_avail(set, l[ADDED]), true);
		else
			put(at, AVAIL_INDEX, advance(set, l[ADDED], 1), true);
		l[ADDED] = advance(set, l[ADDED], 1);
		l[LEFT]--;
		l[OUT]++;
		return go(at, --l[BATCH]			  ? D_ENTRY
			      : mutated(at, DRIVER_NO_KICK_FENCE) ? D_WISH
								  : D_FENCE);
	case D_FENCE: /* 2.7.13.4.1 */
		model_fence(at->model, at->state, at->thread);
		return go(at, D_WISH);
	default: /* D_WISH */
		n = readable(at, DEVICE_WISH);
		wish = load(at, DEVICE_WISH, false);
		if (wish >= WISH_EVENT)
			ring_doorbell(at, need_event_packed(at, (u8)(wish - WISH_EVENT), l[ADDED],
							    distance(set, l[SNAP], l[ADDED])));
		else if (set->packed || !set->event_idx)
			ring_doorbell(at, wish == WISH_ENABLE);
		else if (mutated(at, DRIVER_EVENT_EQUALS))
			ring_doorbell(at, advance(set, wish, 1) == l[ADDED]);
		else
			ring_doorbell(at, need_event(set, wish, l[ADDED], l[SNAP]));
		return n;
	}
}

/* Is the `ahead`-th buffer from the first that was not reaped used? */
static inline bool driver_sees_used(const struct at *at, u32 ahead, u32 *n)
{
	const struct setting *set = at->set;
	u32 location = set->packed ? FLAGS + slot(set, at->l[REAPED]) : USED_INDEX;
	u8 value;

	*n = readable(at, location);
	value = load(at, location, true);
	if (set->packed)
		return value == flags_used(set, at->l[REAPED]);
	return distance(set, at->l[REAPED], value) >= ahead;
}

static inline u32 driver_reap(const struct at *at)
{
	const struct setting *set = at->set;
	u8 *l = at->l;
	bool later;
	u32 n = 1;

	switch (at->self->pc) {
	case D_OFF: /* a hint; with EVENT_IDX the event just stays behind */
		l[ARMED] = 0;
		if (!l[QUIET] && (set->packed || !set->event_idx))
			put(at, DRIVER_WISH, WISH_DISABLE, false);
		l[QUIET] = 1;
		return go(at, D_LOOK);
	case D_LOOK:
		if (driver_sees_used(at, 1, &n))
			go(at, D_TAKE);
		else
			go(at, D_AFTER);
		return n;
	case D_TAKE:
		n = readable(at, USED + slot(set, l[REAPED]));
		if (load(at, USED + slot(set, l[REAPED]), false) != l[REAPED])
			at->model->error = "a used element is read before it is written";
		l[REAPED] = advance(set, l[REAPED], 1);
		l[OUT]--;
		go(at, l[OUT] ? D_LOOK : D_TOP);
		return n;
	default: /* D_AFTER: add more, or be told of the next one, or of all */
		later = set->event_idx && l[OUT] > 1;
		n = 1u + later + (l[LEFT] > 0 && l[OUT] < set->size);
		go(at, set->packed && set->event_idx ? D_EVENT : D_ON);
		if (at->alternative == 0)
			l[DELAY] = 1;
		else if (at->alternative == 1 && later)
			l[DELAY] = l[OUT];
		else
			go(at, D_TOP);
		return n;
	}
}

static inline u32 driver_sleep(const struct at *at)
{
	const struct setting *set = at->set;
	u8 *l = at->l;
	u32 n;

	switch (at->self->pc) {
	case D_EVENT:
		put(at, DRIVER_EVENT, event_packed(set, advance(set, l[REAPED], l[DELAY] - 1u)),
		    false);
		return go(at, D_ON);
	case D_ON:
		if (!set->packed && set->event_idx)
			put(at, DRIVER_WISH, advance(set, l[REAPED], l[DELAY] - 1u), false);
		else
			put(at, DRIVER_WISH, set->event_idx ? WISH_DESC : WISH_ENABLE, set->packed);
		l[QUIET] = 0;
		if (mutated(at, DRIVER_NO_SECOND_LOOK)) {
			l[ARMED] = 1;
			return go(at, D_TOP);
		}
		return go(at, mutated(at, DRIVER_NO_SLEEP_FENCE) ? D_SECOND_LOOK : D_SLEEP_FENCE);
	case D_SLEEP_FENCE: /* 2.7.7.1 */
		model_fence(at->model, at->state, at->thread);
		return go(at, D_SECOND_LOOK);
	case D_SECOND_LOOK:
		if (driver_sees_used(at, set->event_idx ? l[DELAY] : 1, &n)) {
			at->model->seen |= SAW_DRIVER_SECOND_LOOK;
			go(at, D_OFF);
		} else {
			l[ARMED] = 1;
			go(at, D_TOP);
		}
		l[DELAY] = 0;
		return n;
	default: /* D_SLEEP */
		if (!at->state->wake[DRIVER])
			return 0;
		model_woken(at->model, at->state, DRIVER);
		return go(at, D_OFF);
	}
}

static inline u32 driver_step(const struct at *at)
{
	if (at->self->pc == D_DONE)
		return 0;
	if (at->self->pc == D_TOP)
		return driver_top(at);
	if (at->self->pc < D_OFF)
		return driver_add(at);
	return at->self->pc < D_EVENT ? driver_reap(at) : driver_sleep(at);
}

#endif
