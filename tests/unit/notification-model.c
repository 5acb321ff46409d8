/*
 * No wake-up is lost, neither a driver's notification nor a device's: shown by trying every
 * interleaving of a driver and a device that share a queue, under x86's memory order and under a
 * weaker one (tests/unit/model.h), split and packed, with and without EVENT_IDX (virtio 1.3, 2.7.7,
 * 2.7.10, 2.7.13, 2.8.10, 2.8.21). And that each fence and each second look is needed: without it
 * the loss is found.
 *
 * The driver is in model-driver.h, the device in model-device.h, what they share in model-queue.h.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "tests/unit/model-device.h"
#include "tests/unit/model-driver.h"

/* ---- together ---- */

static u32 step(struct model *model, struct model_state *state, u32 thread, u32 alternative)
{
	struct model_thread *self = &state->thread[thread];
	const struct at at = { .model = model,
			       .set = model->config,
			       .state = state,
			       .self = self,
			       .l = self->local,
			       .thread = thread,
			       .alternative = alternative };

	return thread == DRIVER ? driver_step(&at) : device_step(&at);
}

static bool eager(const struct model *model, const struct model_state *state, u32 thread)
{
	static const u32 driver_steps = BIT(D_TOP) | BIT(D_ENTRY) | BIT(D_INDEX) | BIT(D_OFF) |
					BIT(D_AFTER) | BIT(D_EVENT) | BIT(D_ON);
	static const u32 device_steps = BIT(V_SWEEP) | BIT(V_PUSH) | BIT(V_MUTE) | BIT(V_SERVED) |
					BIT(V_UNMUTE) | BIT(V_TURN) | BIT(V_MUTE_EVENT) |
					BIT(V_PUBLISH);
	const struct setting *set = model->config;
	u8 pc = state->thread[thread].pc;

	if (thread == DEVICE && pc == V_PUBLISH && set->mutation == DEVICE_WISH_BEFORE_INDEX)
		return false; /* it interrupts */
	return (thread == DRIVER ? driver_steps : device_steps) >> pc & 1;
}

/* All buffers were added, used, and seen by the driver; who else stands still sleeps for ever. */
static bool done(const struct model *model, const struct model_state *state)
{
	(void)model;
	return state->thread[DRIVER].pc == D_DONE;
}

#define MOST_STATES 700000

static void run(struct model *model, const struct setting *set, enum model_order order, bool trace)
{
	struct model_state start = {};
	u8 first = set->packed ? 0 : START;

	*model = (struct model){ .order = order,
				 .config = set,
				 .locations = LOCATIONS,
				 .step = step,
				 .eager = eager,
				 .done = done };
	for (u32 l = 0; l < LOCATIONS; l++) {
		start.at[l].count = 1;
		start.at[l].stores[0].value = l < FLAGS ? 0xff : 0;
	}
	if (!set->packed) {
		start.at[AVAIL_INDEX].stores[0].value = first;
		start.at[USED_INDEX].stores[0].value = first;
		if (set->event_idx) {
			start.at[DEVICE_WISH].stores[0].value = first;
			start.at[DRIVER_WISH].stores[0].value = first;
		}
	}
	start.thread[DRIVER].local[LEFT] = set->buffers;
	start.thread[DRIVER].local[ADDED] = first;
	start.thread[DRIVER].local[REAPED] = first;
	start.thread[DRIVER].local[ARMED] = 1;
	start.thread[DEVICE].local[TAKEN] = first;
	start.thread[DEVICE].local[PUSHED] = first;
	start.thread[DEVICE].local[PUBLISHED] = first;
	/* start(): a doorbell rung before was ignored */
	start.thread[DEVICE].local[BITS] = SCHEDULED;
	start.thread[DEVICE].pc = V_SWEEP;
	model_explore(model, &start, MOST_STATES, trace);
}

/* ---- the tests ---- */

static void describe(const struct model *model, const struct setting *set)
{
	print_message(
		"%s, %s, %s: %u buffers through %u places, %u requests%s%s: %llu states%s%s\n",
		set->packed ? "packed" : "split", set->event_idx ? "EVENT_IDX" : "flags",
		model->order == MODEL_TSO ? "x86" : "weak", set->buffers, set->size, set->pool,
		set->instant ? " at once" : "", set->restless ? ", restless" : "",
		(unsigned long long)model->states, model->error ? ": " : "",
		model->error ? model->error : "");
}

static void expect_right(const struct setting *set, enum model_order order)
{
	struct model model;

	run(&model, set, order, true);
	describe(&model, set);
	assert_null(model.error);
	/* and notifications were left out, in both directions: nothing is right for being loud */
	assert_int_equal(model.seen & SAW_ALL, SAW_ALL);
}

/* For split and packed, flags and EVENT_IDX. */
static void each_format(struct setting set, enum model_order order)
{
	for (u32 format = 0; format < 4; format++) {
		set.packed = format & 2;
		set.event_idx = format & 1;
		expect_right(&set, order);
	}
}

static void test_x86(void **state)
{
	(void)state;
	each_format((struct setting){ .size = 2, .buffers = 5, .pool = 2 }, MODEL_TSO);
	each_format((struct setting){ .size = 2, .buffers = 3, .pool = 1 }, MODEL_TSO);
	each_format((struct setting){ .size = 2, .buffers = 3, .pool = 2, .instant = true },
		    MODEL_TSO);
	each_format((struct setting){ .size = 2, .buffers = 3, .pool = 2, .restless = true },
		    MODEL_TSO);
	/* a packed ring need not be a power of two */
	expect_right(
		&(struct setting){
			.packed = true, .event_idx = true, .size = 3, .buffers = 4, .pool = 3 },
		MODEL_TSO);
}

static void test_weak(void **state)
{
	(void)state;
	each_format((struct setting){ .size = 2, .buffers = 3, .pool = 2 }, MODEL_WEAK);
	each_format((struct setting){ .size = 2, .buffers = 3, .pool = 1 }, MODEL_WEAK);
}

#define FLAGS_TOO   1 /* also without EVENT_IDX */
#define SPLIT_ONLY  2
#define PACKED_ONLY 4
#define WEAK_ONLY   8 /* x86 forgives it */

static const struct {
	const char *what;
	enum mutation mutation;
	u32 where;
	u8 pool;
} mutants[] = {
	{ "driver: no fence between index and the device's wish", DRIVER_NO_KICK_FENCE, FLAGS_TOO,
	  2 },
	{ "driver: no fence before the second look", DRIVER_NO_SLEEP_FENCE, FLAGS_TOO, 2 },
	{ "driver: no second look", DRIVER_NO_SECOND_LOOK, FLAGS_TOO, 2 },
	{ "driver: is the event the last index?", DRIVER_EVENT_EQUALS, SPLIT_ONLY, 2 },
	{ "device: unmutes without a fence", DEVICE_NO_UNMUTE_FENCE, FLAGS_TOO, 2 },
	{ "device: unmutes without a second look", DEVICE_NO_SECOND_LOOK, FLAGS_TOO, 2 },
	{ "device: looks, then unmutes", DEVICE_LOOKS_BEFORE_UNMUTE, FLAGS_TOO, 2 },
	{ "device: rests muted after busy-polling", DEVICE_RESTS_MUTED, FLAGS_TOO, 2 },
	{ "device: mutes for the driver's turn and does not look", DEVICE_TURN_UNSEEN, FLAGS_TOO,
	  2 },
	{ "device: out of requests, nobody serves again", DEVICE_STARVES_FOREVER, FLAGS_TOO, 1 },
	{ "device: publishes without a fence", DEVICE_NO_PUBLISH_FENCE, FLAGS_TOO, 2 },
	{ "device: reads the driver's wish, then publishes", DEVICE_WISH_BEFORE_INDEX,
	  FLAGS_TOO | SPLIT_ONLY, 2 },
	{ "device: is the event the last index?", DEVICE_EVENT_EQUALS, SPLIT_ONLY, 2 },
	{ "both: forget the wrap counter of an event", DEVICE_IGNORES_WRAP, PACKED_ONLY, 2 },
	{ "device: publishes without release", DEVICE_RELAXED_INDEX, FLAGS_TOO | WEAK_ONLY, 2 },
	{ "device: takes without acquire", DEVICE_RELAXED_POP, FLAGS_TOO | WEAK_ONLY, 2 },
};

static bool found(struct setting *set, enum model_order order)
{
	struct model model;

	run(&model, set, order, false);
	describe(&model, set);
	return model.error && model.states < MOST_STATES;
}

static void test_mutants(void **state)
{
	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(mutants); i++) {
		u32 where = mutants[i].where;

		print_message("%s\n", mutants[i].what);
		for (u32 format = 0; format < 4; format++) {
			struct setting set = { .packed = format & 2,
					       .event_idx = format & 1,
					       .size = 2,
					       .buffers = 3,
					       .pool = mutants[i].pool,
					       .mutation = mutants[i].mutation };
			enum model_order order = where & WEAK_ONLY ? MODEL_WEAK : MODEL_TSO;

			if ((where & SPLIT_ONLY && set.packed) ||
			    (where & PACKED_ONLY && !set.packed) ||
			    (!(where & FLAGS_TOO) && !set.event_idx))
				continue;
			if (!found(&set, order))
				fail_msg("not found: %s", mutants[i].what);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_x86),
		cmocka_unit_test(test_weak),
		cmocka_unit_test(test_mutants),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
