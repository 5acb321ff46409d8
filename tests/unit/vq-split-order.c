/* The split ring alone: what goes back, suppression both ways, wrap of the indices. */
#include "tests/unit/ring-fixture.h"

/* ---- unpop ---- */

static void unpop_puts_back(void **state)
{
	struct fixture *f = *state;
	const struct driver_part part = { BUFFER, 16, true };
	u16 heads[3];

	for (int i = 0; i < 3; i++)
		heads[i] = (u16)driver_add(&f->ring, &part, 1);
	driver_publish(&f->ring);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pop(f), 1);
	/* the driver scribbles meanwhile: what was taken is what goes back */
	f->ring.available->ring[1] = SIZE - 1;
	f->ring.available->ring[2] = SIZE - 1;
	vq_unpop(&f->vq, 2);
	f->ring.available->ring[1] = heads[1];
	f->ring.available->ring[2] = heads[2];
	for (int i = 1; i < 3; i++) {
		assert_int_equal(pop(f), 1);
		assert_int_equal(f->buffer.head, heads[i]);
	}
	assert_int_equal(pop(f), 0);
}

/* ---- suppression, device to driver ---- */

static bool complete_one(struct fixture *f)
{
	assert_int_equal(pop(f), 1);
	vq_push(&f->vq, f->buffer.head, 0);
	return vq_publish(&f->vq);
}

/* 2.7.7.2 without EVENT_IDX: flags alone; used_event means nothing. */
static void flags_suppress_interrupts(void **state)
{
	struct fixture *f = *state;
	const struct driver_part part = { BUFFER, 16, true };

	for (int i = 0; i < 4; i++)
		driver_add(&f->ring, &part, 1);
	driver_publish(&f->ring);
	assert_true(complete_one(f));
	f->ring.available->flags = VRING_AVAIL_F_NO_INTERRUPT;
	f->ring.available->ring[SIZE] = 1;
	assert_false(complete_one(f));
	f->ring.available->flags = 0;
	f->ring.available->ring[SIZE] = 1000;
	assert_true(complete_one(f));
}

/* Legacy NOTIFY_ON_EMPTY: once nothing is available any more, even though suppressed. */
static void notify_on_empty(void **state)
{
	struct fixture *f = *state;
	struct vq_setup setup = setup_of(f, false, false);
	const struct driver_part part = { BUFFER, 16, true };

	setup.notify_on_empty = true;
	assert_int_equal(vq_start(&f->vq, &vq_split, &setup), 0);
	f->ring.available->flags = VRING_AVAIL_F_NO_INTERRUPT;
	driver_add(&f->ring, &part, 1);
	driver_add(&f->ring, &part, 1);
	driver_publish(&f->ring);
	assert_false(complete_one(f));
	assert_true(complete_one(f));
}

/*
 * 2.7.7.2 with EVENT_IDX: for every used_event, batch size and starting index (over the wrap), the
 * driver is notified exactly when the batch passes its event. The model counts one by one.
 */
static void event_idx_over_batches(void **state)
{
	static const u16 starts[] = { 0, 1, 7, 32767, 65528, 65535 };
	struct fixture *f = *state;
	const struct driver_part part = { BUFFER, 16, true };

	for (size_t s = 0; s < ARRAY_SIZE(starts); s++)
		for (u16 batch = 1; batch <= SIZE; batch++)
			for (int event = -3; event <= SIZE + 3; event++) {
				u16 used_event = (u16)(starts[s] + event);
				bool crossed = false;

				begin(f, SIZE, true);
				f->vq.next_available = f->vq.next_used = f->vq.published =
					starts[s];
				f->ring.next_available = f->ring.published = f->ring.next_used =
					starts[s];
				f->ring.available->idx = f->ring.used->idx = starts[s];
				/* to be ignored with EVENT_IDX (2.7.7.2) */
				f->ring.available->flags =
					batch & 1 ? VRING_AVAIL_F_NO_INTERRUPT : 0;
				f->ring.available->ring[SIZE] = used_event;
				for (u16 i = 0; i < batch; i++)
					driver_add(&f->ring, &part, 1);
				driver_publish(&f->ring);
				for (u16 i = 0; i < batch; i++) {
					assert_int_equal(pop(f), 1);
					crossed |= f->vq.next_used == used_event;
					vq_push(&f->vq, f->buffer.head, 0);
				}
				assert_int_equal(vq_publish(&f->vq), crossed);
				for (u16 i = 0; i < batch; i++)
					assert_true(driver_used(&f->ring, NULL, NULL));
			}
}

/* ---- suppression, driver to device ---- */

static void mute_by_flags(void **state)
{
	struct fixture *f = *state;
	const struct driver_part part = { BUFFER, 16, true };

	driver_add(&f->ring, &part, 1);
	assert_true(driver_publish(&f->ring));
	vq_mute(&f->vq);
	assert_int_equal(f->ring.used->flags, VRING_USED_F_NO_NOTIFY);
	driver_add(&f->ring, &part, 1);
	assert_false(driver_publish(&f->ring));
	assert_int_equal(pop(f), 1);
	assert_true(vq_unmute(&f->vq)); /* one is left */
	assert_int_equal(f->ring.used->flags, 0);
	assert_int_equal(pop(f), 1);
	assert_false(vq_unmute(&f->vq));
}

/* 2.7.10.1 with EVENT_IDX: used.flags stays 0; one notification per wish. */
static void mute_by_event_idx(void **state)
{
	struct fixture *f = *state;
	const struct driver_part part = { BUFFER, 16, true };

	f->ring.used->flags = 0xdead;
	begin(f, SIZE, true);
	f->ring.used->flags = 0xdead; /* what a driver left there */
	struct vq_setup setup = setup_of(f, true, true);
	assert_int_equal(vq_start(&f->vq, &vq_split, &setup), 0);
	assert_int_equal(f->ring.used->flags, 0);

	assert_false(vq_unmute(&f->vq));
	driver_add(&f->ring, &part, 1);
	assert_true(driver_publish(&f->ring)); /* crosses avail_event */
	vq_mute(&f->vq);
	assert_int_equal(f->ring.used->flags, 0);
	driver_add(&f->ring, &part, 1);
	assert_false(driver_publish(&f->ring)); /* left behind */
	assert_int_equal(pop(f), 1);
	assert_true(vq_unmute(&f->vq));
	assert_int_equal(pop(f), 1);
	assert_false(vq_unmute(&f->vq));
	driver_add(&f->ring, &part, 1);
	driver_add(&f->ring, &part, 1);
	assert_true(driver_publish(&f->ring)); /* one for both */
	assert_int_equal(f->ring.used->flags, 0);
}

/* ---- long runs ---- */

/* Twice around the 16-bit indices with changing batches, chains and completion order. */
static void wrap_of_indices(void **state)
{
	struct fixture *f = *state;
	u32 total = 0, batch, id, written;
	u16 heads[SIZE];

	for (int event_idx = 0; event_idx < 2; event_idx++) {
		begin(f, SIZE, event_idx);
		for (total = 0; total < 140000; total += batch) {
			batch = 1 + total % 7;
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
			driver_publish(&f->ring);
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
		assert_int_equal(f->ring.used->idx, (u16)total);
	}
}

/* The smallest and the largest ring. */
static void extreme_sizes(void **state)
{
	static const u16 sizes[] = { 1, 2, VQ_MAX_SIZE };
	const struct driver_part part = { BUFFER, 16, true };
	struct fixture *f = *state;

	for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
		begin(f, sizes[s], true);
		for (int round = 0; round < 3; round++) {
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
		test(unpop_puts_back), test(flags_suppress_interrupts),
		test(notify_on_empty), test(event_idx_over_batches),
		test(mute_by_flags),   test(mute_by_event_idx),
		test(wrap_of_indices), test(extreme_sizes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
