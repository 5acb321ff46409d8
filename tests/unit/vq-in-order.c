/* Rings of both formats with IN_ORDER: what is used late holds up what was used early, elements
 * stand for many buffers, and a driver that believes in all of that never loses one. */
#include "tests/unit/ring-fixture.h"

static u64 next_random(u64 *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* So many buffers of a byte to write, taken by the device; their heads. */
static void take_some(struct fixture *f, u16 *heads, u16 count)
{
	const struct driver_part part = { BUFFER, 1, true };

	for (u16 i = 0; i < count; i++)
		heads[i] = (u16)driver_add(&f->ring, &part, 1);
	driver_publish(&f->ring);
	for (u16 i = 0; i < count; i++) {
		assert_int_equal(pop(f), 1);
		assert_int_equal(f->buffer.head, heads[i]);
	}
}

static void expect_used(struct fixture *f, u16 head, u32 written)
{
	u32 id, length;

	assert_true(driver_used(&f->ring, &id, &length));
	assert_int_equal(id, head);
	assert_int_equal(length, written);
}

/* Nobody is told, and nothing shown, while an older one is out. */
static void early_ones_wait(void **state)
{
	struct fixture *f = *state;
	u16 heads[3];

	take_some(f, heads, 3);
	vq_push(&f->vq, heads[2], 1);
	assert_false(vq_publish(&f->vq));
	assert_false(driver_used(&f->ring, NULL, NULL));
	vq_push(&f->vq, heads[1], 0);
	assert_false(vq_publish(&f->vq));
	vq_push(&f->vq, heads[0], 1);
	assert_true(vq_publish(&f->vq));
	expect_used(f, heads[0], 1);
	expect_used(f, heads[1], 0);
	expect_used(f, heads[2], 1);
	assert_false(driver_used(&f->ring, NULL, NULL));
	/* 0 was whole: the element of 1 stands for it; 1 was not, so it has one of its own */
	assert_int_equal(f->ring.batches, 2);
}

/* One element for all that were used completely; who used less, its own. */
static void batches(void **state)
{
	struct fixture *f = *state;
	u16 heads[SIZE];

	take_some(f, heads, SIZE);
	for (u16 i = 0; i < SIZE; i++)
		vq_push(&f->vq, heads[i], 1);
	assert_true(vq_publish(&f->vq));
	for (u16 i = 0; i < SIZE; i++)
		expect_used(f, heads[i], 1);
	assert_int_equal(f->ring.batches, 1);
	take_some(f, heads, SIZE);
	for (u16 i = 0; i < SIZE; i++)
		vq_push(&f->vq, heads[i], 0);
	vq_publish(&f->vq);
	for (u16 i = 0; i < SIZE; i++)
		expect_used(f, heads[i], 0);
	assert_int_equal(f->ring.batches, 1 + SIZE);
}

/* What was put back is not waited for. */
static void unpop_leaves_no_gap(void **state)
{
	struct fixture *f = *state;
	u16 heads[4];

	take_some(f, heads, 4);
	vq_push(&f->vq, heads[1], 1);
	vq_unpop(&f->vq, 2);
	vq_push(&f->vq, heads[0], 1);
	assert_true(vq_publish(&f->vq));
	expect_used(f, heads[0], 1);
	expect_used(f, heads[1], 1);
	for (u16 i = 2; i < 4; i++) {
		assert_int_equal(pop(f), 1);
		assert_int_equal(f->buffer.head, heads[i]);
	}
	vq_push(&f->vq, heads[3], 1);
	vq_push(&f->vq, heads[2], 1);
	assert_true(vq_publish(&f->vq));
	expect_used(f, heads[2], 1);
	expect_used(f, heads[3], 1);
	assert_false(driver_used(&f->ring, NULL, NULL));
	assert_int_equal(f->vq.next_used, 4); /* each once */
}

/* 2.7.7.2, 2.8.10: an event within a batch is passed with it. */
static void events_inside_batches(void **state)
{
	struct fixture *f = *state;
	u16 heads[4];

	for (u16 after = 1; after <= 6; after++) {
		begin(f, SIZE, true);
		driver_arm(&f->ring, after);
		take_some(f, heads, 4);
		for (u16 i = 4; i--;)
			vq_push(&f->vq, heads[i], 1);
		assert_int_equal(vq_publish(&f->vq), after <= 4);
		assert_true(driver_used(&f->ring, NULL, NULL));
		assert_int_equal(f->ring.batches, 1);
	}
}

#define NOT UINT32_MAX

/* Chains and tables, done at random, over the wrap of everything. */
static void long_runs(void **state)
{
	struct fixture *f = *state;
	u64 seed = 0x9e3779b97f4a7c15;
	u16 out[SIZE * 4], count = 0;
	u32 taken = 0, used = 0, id, written, pushed[SIZE * 4];

	memset(pushed, 0xff, sizeof(pushed));
	begin(f, SIZE * 4, true);
	while (used < 150000) {
		const struct driver_part parts[] = { { BUFFER, 8, false },
						     { BUFFER + 32, 4, true },
						     { BUFFER + 64, 2, true } };
		u16 wish = (u16)(next_random(&seed) % 8);

		while (wish--)
			if (next_random(&seed) & 1)
				driver_add_indirect(&f->ring, TABLE, parts, 3);
			else
				driver_add(&f->ring, parts, (u16)(2 + next_random(&seed) % 2));
		driver_publish(&f->ring);
		while (pop(f) == 1) {
			out[count++] = f->buffer.head;
			taken++;
		}
		assert_null(f->vq.fault);
		for (wish = next_random(&seed) % 8; wish && count; wish--) {
			u16 which = (u16)(next_random(&seed) % count);

			/* whole or not */
			written = next_random(&seed) & 3 ? f->ring.writable[out[which]] : 1;
			vq_push(&f->vq, out[which], written);
			pushed[out[which]] = written;
			out[which] = out[--count];
		}
		vq_publish(&f->vq);
		while (driver_used(&f->ring, &id, &written)) {
			assert_int_equal(pushed[id], written);
			pushed[id] = NOT;
			used++;
		}
		assert_true(used <= taken);
	}
	assert_true(f->ring.batches < used - used / 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(early_ones_wait),	     test(batches),   test(unpop_leaves_no_gap),
		test(events_inside_batches), test(long_runs),
	};

	return driver_run(tests, false, true) + driver_run(tests, true, true);
}
