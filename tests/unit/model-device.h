/*
 * The device does what virtio/queue.c does, in its order, with the steps of virtio/vq-split.c and
 * virtio/vq-packed.c:
 *
 *	V_MUTE..V_MUTE_EVENT	serve_run(): vq_mute()
 *	V_POP, V_TAKE		serve(): virtio_queue_pop() = vq_pop()
 *	V_PUSH			virtio_queue_push() = vq_push()
 *	V_SERVED		VIRTIO_SERVED_LATER, or reactor_polls(), or a nap: stays muted; else
 *	V_UNMUTE..V_RECHECK	vq_unmute(): the wish, a full fence, a second look
 *	V_TURN			flush_run(): reactor_polls(): vq_mute() again
 *	V_PUBLISH..V_WISH_EVENT	flush_run(): vq_publish(): the used index (or the first used
 *				descriptor, behind all others), a full fence, the driver's wish, the
 *				interrupt
 *	V_SPIN			poll_run(), or rest_run(): unmutes as above; between them the
 *reactor looks around, or naps V_IDLE			the reactor sleeps until the doorbell rings
 *or a request ends
 *
 * Our event suppression structure is stored at once; the driver's is written, and read here, field
 *by field, which allows more than Linux and we do (2.8.10).
 */
#ifndef TESTS_UNIT_MODEL_DEVICE_H
#define TESTS_UNIT_MODEL_DEVICE_H

#include "tests/unit/model-queue.h"

enum {
	V_SWEEP,
	V_IDLE,
	V_SPIN,
	V_PUSH,
	V_MUTE,
	V_MUTE_LOOK,
	V_MUTE_EVENT,
	V_POP,
	V_TAKE,
	V_SERVED,
	V_EARLY_LOOK,
	V_UNMUTE,
	V_UNMUTE_FENCE,
	V_RECHECK,
	V_EARLY_WISH,
	V_TURN,
	V_PUBLISH,
	V_PUBLISH_FENCE,
	V_WISH,
	V_WISH_EVENT
};

static inline bool device_sees_available(const struct at *at, u32 *n)
{
	const struct setting *set = at->set;
	u8 next = at->l[TAKEN], value;
	u32 location = set->packed ? FLAGS + slot(set, next) : AVAIL_INDEX;

	*n = readable(at, location);
	value = load(at, location, !mutated(at, DEVICE_RELAXED_POP));
	return set->packed ? value == flags_avail(set, next) : value != next;
}

/* Behind the end of serve(). */
static inline u8 after_serve(const struct at *at)
{
	if (at->l[PUSHED] == at->l[PUBLISHED])
		return V_SWEEP;
	return mutated(at, DEVICE_WISH_BEFORE_INDEX) ? V_EARLY_WISH : V_TURN;
}

/* Some requests end, and what was scheduled is served; with nothing to do the reactor looks
 * around, or sleeps. */
static inline u32 device_sweep(const struct at *at)
{
	u8 *l = at->l;
	u32 pick = at->alternative;

	if (l[BITS] & SCHEDULED || pick) {
		l[TODO] = (u8)pick;
		go(at, pick ? V_PUSH : V_MUTE);
	} else {
		go(at, l[BITS] & POLLED ? V_SPIN : V_IDLE);
	}
	return 1u + l[FLIGHT];
}

/* Sleeps until a request ends, the doorbell rings, or both. */
static inline u32 device_idle(const struct at *at)
{
	u8 *l = at->l;
	bool rung = at->state->wake[DEVICE];
	u32 ends = rung ? at->alternative : at->alternative + 1;

	if (!rung && !l[FLIGHT])
		return 0;
	if (rung) {
		model_woken(at->model, at->state, DEVICE);
		l[BITS] |= SCHEDULED;
	}
	l[TODO] = (u8)ends;
	go(at, ends ? V_PUSH : V_MUTE);
	return l[FLIGHT] + (rung ? 1u : 0u);
}

static inline u32 device_spin(const struct at *at)
{
	struct at look = *at;
	u8 *l = at->l;
	u32 n;

	if (at->alternative == 0) { /* the window is over */
		l[BITS] &= (u8)~POLLED;
		l[BITS] |= RESTING;
		if (mutated(at, DEVICE_RESTS_MUTED))
			l[BITS] &= (u8)~RESTING;
		go(at, mutated(at, DEVICE_RESTS_MUTED) ? V_IDLE : V_UNMUTE);
		return 1u + readable(at, at->set->packed ? FLAGS + slot(at->set, l[TAKEN])
							 : (u32)AVAIL_INDEX);
	}
	look.alternative--;
	if (device_sees_available(&look, &n))
		l[BITS] |= SCHEDULED;
	go(at, V_SWEEP);
	return n + 1;
}

static inline u32 device_push(const struct at *at)
{
	u8 *l = at->l;

	put(at, USED + slot(at->set, l[PUSHED]), l[PUSHED], false);
	l[PUSHED] = advance(at->set, l[PUSHED], 1);
	l[FLIGHT]--;
	if (l[BITS] & STARVED && !mutated(at, DEVICE_STARVES_FOREVER))
		l[BITS] |= SCHEDULED;
	l[BITS] &= (u8)~STARVED;
	if (--l[TODO])
		return 1;
	if (at->set->instant)
		return go(at, V_POP);
	return go(at, l[BITS] & SCHEDULED ? V_MUTE : after_serve(at));
}

/* Serves, or it is the driver's turn. */
static inline u32 muted(const struct at *at)
{
	bool turn = at->l[BITS] & TURNING;

	at->l[BITS] &= (u8)~TURNING;
	return go(at, turn ? V_PUBLISH : V_POP);
}

static inline u32 device_mute(const struct at *at)
{
	const struct setting *set = at->set;
	u8 *l = at->l;
	bool was = l[BITS] & MUTED;
	u32 n;

	switch (at->self->pc) {
	case V_TURN: /* does the reactor busy-poll just now? */
		if (!at->alternative)
			return go(at, V_PUBLISH) + !was;
		l[BITS] |= mutated(at, DEVICE_TURN_UNSEEN) ? TURNING : TURNING | POLLED;
		go(at, V_MUTE);
		return 2;
	case V_MUTE:
		if (!(l[BITS] & TURNING))
			l[BITS] &= (u8) ~(SCHEDULED | POLLED);
		l[BITS] |= MUTED;
		if (!was && !set->packed && set->event_idx)
			return go(at, V_MUTE_LOOK);
		if (!was)
			put(at, DEVICE_WISH, WISH_DISABLE, false);
		return muted(at);
	case V_MUTE_LOOK: /* the driver has crossed the event, or is kept from it */
		if (device_sees_available(at, &n))
			muted(at);
		else
			go(at, V_MUTE_EVENT);
		return n;
	default: /* V_MUTE_EVENT */
		put(at, DEVICE_WISH, advance(set, l[TAKEN], INDICES - 1), false);
		return muted(at);
	}
}

static inline u32 device_serve(const struct at *at)
{
	const struct setting *set = at->set;
	u8 *l = at->l;
	u32 n;

	switch (at->self->pc) {
	case V_POP:
		if (l[FLIGHT] == set->pool) { /* VIRTIO_SERVED_LATER */
			l[BITS] |= STARVED;
			return go(at, after_serve(at));
		}
		if (device_sees_available(at, &n))
			go(at, V_TAKE);
		else
			go(at, V_SERVED);
		return n;
	case V_TAKE:
		n = readable(at, ENTRY + slot(set, l[TAKEN]));
		if (load(at, ENTRY + slot(set, l[TAKEN]), false) != l[TAKEN])
			at->model->error = "a buffer is read before it is written";
		l[TAKEN] = advance(set, l[TAKEN], 1);
		l[FLIGHT]++;
		l[TODO] = set->instant;
		go(at, set->instant ? V_PUSH : V_POP);
		return n;
	default: /* V_SERVED: does the reactor busy-poll just now, or will it nap? */
		if (at->alternative) {
			l[BITS] |= POLLED;
			go(at, after_serve(at));
		} else {
			go(at, mutated(at, DEVICE_LOOKS_BEFORE_UNMUTE) ? V_EARLY_LOOK : V_UNMUTE);
		}
		return 2;
	}
}

static inline u32 device_unmute(const struct at *at)
{
	const struct setting *set = at->set;
	u8 *l = at->l, next;
	u32 n = 1;

	switch (at->self->pc) {
	case V_EARLY_LOOK:
		if (device_sees_available(at, &n))
			l[BITS] |= SCHEDULED;
		go(at, V_UNMUTE);
		return n;
	case V_UNMUTE:
		l[BITS] &= (u8)~MUTED;
		put(at, DEVICE_WISH,
		    !set->event_idx ? WISH_ENABLE
		    : set->packed   ? WISH_EVENT + event_packed(set, l[TAKEN])
				    : l[TAKEN],
		    false);
		if (mutated(at, DEVICE_NO_UNMUTE_FENCE))
			return go(at, V_RECHECK);
		return go(at, V_UNMUTE_FENCE);
	case V_UNMUTE_FENCE: /* 2.7.10.1 */
		model_fence(at->model, at->state, at->thread);
		if (!mutated(at, DEVICE_NO_SECOND_LOOK) && !mutated(at, DEVICE_LOOKS_BEFORE_UNMUTE))
			return go(at, V_RECHECK);
		break;
	default: /* V_RECHECK */
		if (device_sees_available(at, &n)) {
			l[BITS] |= SCHEDULED;
			at->model->seen |= SAW_SECOND_LOOK;
		}
	}
	/* rest() is followed by sleep, serve() by what is to be published */
	next = l[BITS] & RESTING ? l[BITS] & SCHEDULED ? V_SWEEP : V_IDLE : after_serve(at);
	l[BITS] &= (u8)~RESTING;
	go(at, next);
	return n;
}

static inline void interrupt(const struct at *at, bool wanted)
{
	at->l[PUBLISHED] = at->l[PUSHED];
	if (wanted)
		model_wake(at->state, DEVICE);
	else
		at->model->seen |= SAW_QUIET_PUBLISH;
	go(at, V_SWEEP);
}

static inline u32 device_publish(const struct at *at)
{
	const struct setting *set = at->set;
	u8 *l = at->l, wish;
	u32 n, left;

	switch (at->self->pc) {
	case V_PUBLISH: /* 2.7.8.2. Packed: the first descriptor last, so all come at once */
		left = distance(set, l[PUBLISHED], l[PUSHED]);
		if (set->packed) {
			u8 which = advance(set, l[PUBLISHED], left - 1u - l[TODO]);

			put(at, FLAGS + slot(set, which), flags_used(set, which),
			    !mutated(at, DEVICE_RELAXED_INDEX) && which == l[PUBLISHED]);
			if (++l[TODO] < left)
				return 1;
			l[TODO] = 0;
		} else {
			put(at, USED_INDEX, l[PUSHED], !mutated(at, DEVICE_RELAXED_INDEX));
		}
		if (mutated(at, DEVICE_WISH_BEFORE_INDEX)) {
			interrupt(at, l[BITS] & EARLY);
			l[BITS] &= (u8)~EARLY;
			return 1;
		}
		return go(at, mutated(at, DEVICE_NO_PUBLISH_FENCE) ? V_WISH : V_PUBLISH_FENCE);
	case V_PUBLISH_FENCE: /* 2.7.7.2 */
		model_fence(at->model, at->state, at->thread);
		return go(at, V_WISH);
	case V_WISH:
		n = readable(at, DRIVER_WISH);
		wish = load(at, DRIVER_WISH, set->packed);
		if (set->packed && wish == WISH_DESC)
			go(at, V_WISH_EVENT);
		else if (set->packed || !set->event_idx)
			interrupt(at, wish == WISH_ENABLE);
		else if (mutated(at, DEVICE_EVENT_EQUALS))
			interrupt(at, advance(set, wish, 1) == l[PUSHED]);
		else
			interrupt(at, need_event(set, wish, l[PUSHED], l[PUBLISHED]));
		return n;
	case V_EARLY_WISH: /* only for split queues */
		n = readable(at, DRIVER_WISH);
		wish = load(at, DRIVER_WISH, false);
		if (set->event_idx ? need_event(set, wish, l[PUSHED], l[PUBLISHED])
				   : wish == WISH_ENABLE)
			l[BITS] |= EARLY;
		go(at, V_PUBLISH);
		return n;
	default:
		n = readable(at, DRIVER_EVENT);
		wish = load(at, DRIVER_EVENT, false);
		interrupt(at, need_event_packed(at, wish, l[PUSHED],
						distance(set, l[PUBLISHED], l[PUSHED])));
		return n;
	}
}

static inline u32 device_step(const struct at *at)
{
	switch (at->self->pc) {
	case V_SWEEP:
		return device_sweep(at);
	case V_IDLE:
		return device_idle(at);
	case V_SPIN:
		return device_spin(at);
	case V_PUSH:
		return device_push(at);
	case V_MUTE:
	case V_MUTE_LOOK:
	case V_MUTE_EVENT:
	case V_TURN:
		return device_mute(at);
	case V_POP:
	case V_TAKE:
	case V_SERVED:
		return device_serve(at);
	case V_EARLY_LOOK:
	case V_UNMUTE:
	case V_UNMUTE_FENCE:
	case V_RECHECK:
		return device_unmute(at);
	default:
		return device_publish(at);
	}
}

#endif
