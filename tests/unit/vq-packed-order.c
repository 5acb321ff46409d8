/* The packed ring alone: what goes back, suppression both ways, long runs over the wrap counters.
 */
#include "tests/unit/ring-fixture.h"

static const struct driver_part part = { BUFFER, 16, true };

/* ---- unpop ---- */

/* From every place, chains of every length: what was taken is what goes back, whatever the driver
 * scribbles meanwhile. */
static void unpop_puts_back(void **state)
{
	struct fixture *f = *state;
	struct driver_part parts[4];
	struct vring_packed_desc kept[SIZE];
	u16 heads[3];

	for (u16 i = 0; i < 4; i++)
		parts[i] = (struct driver_part){ BUFFER + 64 * i, 16, true };
	for (u16 round = 0; round < 5 * SIZE; round++) {
		for (u16 i = 0; i < 3; i++)
			heads[i] = (u16)driver_add(&f->ring, parts, (u16)(1 + (round + i) % 4));
		driver_publish(&f->ring);
		for (int i = 0; i < 3; i++)
			assert_int_equal(pop(f), 1);
		assert_int_equal(pop(f), 0);
		memcpy(kept, f->ring.descriptors, sizeof(kept));
		memset(f->ring.descriptors, 0xa5, sizeof(kept));
		vq_unpop(&f->vq, 2);
		memcpy(f->ring.descriptors, kept, sizeof(kept));
		for (u16 i = 1; i < 3; i++) {
			assert_int_equal(pop(f), 1);
			assert_int_equal(f->buffer.head, heads[i]);
			assert_int_equal(f->buffer.writable, 1 + (round + i) % 4);
		}
		assert_int_equal(pop(f), 0);
		for (int i = 3; i--;)
			vq_push(&f->vq, heads[i], 1);
		vq_publish(&f->vq);
		for (int i = 0; i < 3; i++)
			assert_true(driver_used(&f->ring, NULL, NULL));
	}
}

/* ---- suppression, device to driver ---- */

static bool complete_one(struct fixture *f)
{
	assert_int_equal(pop(f), 1);
	vq_push(&f->vq, f->buffer.head, 0);
	return vq_publish(&f->vq);
}

/* 2.8.10: enable, disable, and what must not be there: DESC without EVENT_IDX, the reserved value.
 * A notification too many does no harm, one too few does. */
static void flags_suppress_interrupts(void **state)
{
	static const struct {
		u16 flags;
		bool told;
	} wishes[] = {
		{ VRING_PACKED_EVENT_FLAG_ENABLE, true },
		{ VRING_PACKED_EVENT_FLAG_DISABLE, false },
		{ VRING_PACKED_EVENT_FLAG_DESC, true },
		{ 3, true },
		{ 0xfffc | VRING_PACKED_EVENT_FLAG_DISABLE, false }, /* 14 reserved bits */
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(wishes); i++) {
		driver_add(&f->ring, &part, 1);
		driver_publish(&f->ring);
		driver_packed_wish(&f->ring, 9, wishes[i].flags);
		assert_int_equal(complete_one(f), wishes[i].told);
	}
}

/*
 * With EVENT_IDX: for every place of the event, in this round and in the next, batch and starting
 * place, the driver is notified exactly when the batch passes its event. The model counts one by
 * one.
 */
static void events_over_batches(void **state)
{
	struct fixture *f = *state;
	static const u16 sizes[] = { 7, 8 };

	for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
		const u16 size = sizes[s];

		for (u16 first = 0; first < 2 * size; first++)
			for (u16 batch = 1; batch <= size; batch++)
				for (u16 ahead = 0; ahead < 2 * size; ahead++) {
					struct driver_place event;
					bool passes = ahead < batch;

					begin(f, size, true);
					for (u16 i = 0; i < first; i++) {
						driver_add(&f->ring, &part, 1);
						driver_publish(&f->ring);
						complete_one(f);
						driver_used(&f->ring, NULL, NULL);
					}
					event = f->ring.look;
					driver_place_move(&event, ahead % size, size);
					if (ahead >= size)
						event.wrap = !event.wrap;
					driver_packed_wish(&f->ring, driver_place_event(&event),
							   VRING_PACKED_EVENT_FLAG_DESC);
					for (u16 i = 0; i < batch; i++)
						driver_add(&f->ring, &part, 1);
					driver_publish(&f->ring);
					for (u16 i = 0; i < batch; i++) {
						assert_int_equal(pop(f), 1);
						vq_push(&f->vq, f->buffer.head, 0);
					}
					assert_int_equal(vq_publish(&f->vq), passes);
				}
	}
}

/* An event inside a chain that is skipped counts as passed. */
static void event_inside_a_chain(void **state)
{
	const struct driver_part parts[] = { { BUFFER, 8, false },
					     { BUFFER + 64, 8, false },
					     { BUFFER + 128, 8, true } };
	struct fixture *f = *state;

	for (u16 at = 0; at < 6; at++) {
		begin(f, SIZE, true);
		driver_add(&f->ring, parts, 3);
		driver_add(&f->ring, parts, 3);
		driver_publish(&f->ring);
		driver_packed_wish(&f->ring, (u16)(at | 0x8000), VRING_PACKED_EVENT_FLAG_DESC);
		assert_int_equal(complete_one(f), at < 3);
		assert_int_equal(complete_one(f), at >= 3);
	}
}

/* ---- suppression, driver to device ---- */

static void mute_by_flags(void **state)
{
	struct fixture *f = *state;

	driver_add(&f->ring, &part, 1);
	assert_true(driver_publish(&f->ring));
	vq_mute(&f->vq);
	driver_add(&f->ring, &part, 1);
	assert_false(driver_publish(&f->ring));
	assert_int_equal(pop(f), 1);
	assert_true(vq_unmute(&f->vq)); /* one is left */
	assert_int_equal(pop(f), 1);
	assert_false(vq_unmute(&f->vq));
	driver_add(&f->ring, &part, 1);
	assert_true(driver_publish(&f->ring));
	assert_int_equal(*(u32 *)(void *)f->ring.used, VRING_PACKED_EVENT_FLAG_ENABLE << 16);
}

/* With EVENT_IDX: one notification for a wish, however long it stands, and none while muted for
 * however long; all around the ring. */
static void mute_by_events(void **state)
{
	struct fixture *f = *state;

	begin(f, SIZE, true);
	for (u16 round = 0; round < 4 * SIZE; round++) {
		assert_false(vq_unmute(&f->vq));
		driver_add(&f->ring, &part, 1);
		assert_true(driver_publish(&f->ring));
		driver_add(&f->ring, &part, 1);
		assert_false(driver_publish(&f->ring)); /* passed already */
		assert_true(vq_unmute(&f->vq));
		complete_one(f);
		complete_one(f);
		assert_true(driver_used(&f->ring, NULL, NULL));
		assert_true(driver_used(&f->ring, NULL, NULL));
		assert_false(vq_unmute(&f->vq));
		driver_add(&f->ring, &part, 1);
		driver_add(&f->ring, &part, 1);
		assert_true(driver_publish(&f->ring)); /* one for both */
		complete_one(f);
		complete_one(f);
		assert_true(driver_used(&f->ring, NULL, NULL));
		assert_true(driver_used(&f->ring, NULL, NULL));
	}
	vq_mute(&f->vq);
	for (u16 i = 0; i < 8 * SIZE; i++) {
		driver_add(&f->ring, &part, 1);
		assert_false(driver_publish(&f->ring));
		complete_one(f);
		assert_true(driver_used(&f->ring, NULL, NULL));
	}
}

/* What a driver left in the device's area at the start means nothing. */
static void starts_unmuted(void **state)
{
	struct fixture *f = *state;

	for (int event_idx = 0; event_idx < 2; event_idx++) {
		begin(f, SIZE, event_idx);
		vq_mute(&f->vq);
		*(u32 *)(void *)f->ring.used = 0x12345;
		struct vq_setup setup = setup_of(f, event_idx, true);
		assert_int_equal(start(f, &setup), 0);
		driver_add(&f->ring, &part, 1);
		assert_true(driver_publish(&f->ring));
	}
}

/* ---- long runs ---- */

/* Many times around, rings of sizes that are no powers of two too, with changing batches, chains,
 * tables and completion orders: no buffer is lost, and no notification. */
static void long_runs(void **state)
{
	static const u16 sizes[] = { 5, 16, 37, 300, VQ_MAX_SIZE - 1, VQ_MAX_SIZE };
	struct fixture *f = *state;
	u32 id, written, batch;
	u16 heads[7];

	for (size_t s = 0; s < ARRAY_SIZE(sizes) * 2; s++) {
		u32 passed_by = 0;

		begin(f, sizes[s / 2], s & 1);
		for (u32 total = 0; total < 20000; total += batch) {
			batch = 1 + total % (sizes[s / 2] < 14 ? 2 : 7);
			for (u32 i = 0; i < batch; i++) {
				const struct driver_part parts[] = { { BUFFER + i * 64, 8, false },
								     { BUFFER + i * 64 + 32, 4 + i,
								       true } };

				if ((total + i) & 1)
					assert_true(driver_add(&f->ring, parts, 2) >= 0);
				else
					assert_true(driver_add_indirect(&f->ring, TABLE + 32 * i,
									parts, 2) >= 0);
			}
			driver_arm(&f->ring, (u16)batch);
			passed_by += driver_publish(&f->ring);
			for (u32 i = 0; i < batch; i++) {
				assert_int_equal(pop(f), 1);
				assert_int_equal(f->buffer.writable_bytes, 4 + i);
				heads[i] = f->buffer.head;
			}
			assert_int_equal(pop(f), 0);
			for (u32 i = batch; i--;)
				vq_push(&f->vq, heads[i], i);
			assert_true(vq_publish(&f->vq));
			for (u32 i = batch; i--;) {
				assert_true(driver_used(&f->ring, &id, &written));
				assert_int_equal(id, heads[i]);
				assert_int_equal(written, i);
			}
			assert_false(driver_used(&f->ring, &id, &written));
			assert_false(vq_unmute(&f->vq));
		}
		assert_true(passed_by > 5000); /* each batch rang */
	}
}

/* The smallest and the largest ring, full. */
static void extreme_sizes(void **state)
{
	static const u16 sizes[] = { 1, 2, 3, VQ_MAX_SIZE };
	struct fixture *f = *state;

	for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
		begin(f, sizes[s], true);
		for (int round = 0; round < 5; round++) {
			for (u16 i = 0; i < sizes[s]; i++)
				assert_true(driver_add(&f->ring, &part, 1) >= 0);
			assert_int_equal(driver_add(&f->ring, &part, 1), -1);
			driver_publish(&f->ring);
			for (u16 i = 0; i < sizes[s]; i++) {
				assert_int_equal(pop(f), 1);
				vq_push(&f->vq, f->buffer.head, 16);
			}
			assert_int_equal(pop(f), 0);
			vq_publish(&f->vq);
			for (u16 i = 0; i < sizes[s]; i++)
				assert_true(driver_used(&f->ring, NULL, NULL));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(unpop_puts_back),	   test(flags_suppress_interrupts),
		test(events_over_batches), test(event_inside_a_chain),
		test(mute_by_flags),	   test(mute_by_events),
		test(starts_unmuted),	   test(long_runs),
		test(extreme_sizes),
	};

	driver_packed = true;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
