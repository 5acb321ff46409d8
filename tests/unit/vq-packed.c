/* The packed ring alone: areas, chains, used descriptors, hostile rings. */
#include "tests/unit/ring-fixture.h"

#define F_AVAIL BIT(VRING_PACKED_DESC_F_AVAIL)
#define F_USED	BIT(VRING_PACKED_DESC_F_USED)
#define NEXT	VRING_DESC_F_NEXT
#define WRITE	VRING_DESC_F_WRITE
#define TABLE_F VRING_DESC_F_INDIRECT

/* One descriptor of our own making at the next place, shown at once unless more follow. */
static void write_one(struct fixture *f, u64 at, u32 length, u16 id, u16 flags)
{
	driver_packed_write(&f->ring, at, length, id, flags);
}

static void show(struct fixture *f, u64 at, u32 length, u16 id, u16 flags)
{
	write_one(f, at, length, id, flags);
	driver_publish(&f->ring);
}

static struct vring_packed_desc *descriptor(struct fixture *f, u16 at)
{
	return (struct vring_packed_desc *)(void *)f->ring.descriptors + at;
}

/* ---- start ---- */

static void start_checks_areas(void **state)
{
	struct fixture *f = *state;
	struct vq_setup good = setup_of(f, false, false), bad;

#define refuse(change, err)                            \
	do {                                           \
		bad = good;                            \
		bad.change;                            \
		assert_int_equal(start(f, &bad), err); \
		assert_non_null(f->vq.fault);          \
	} while (0)
	refuse(size = 0, -EINVAL);
	refuse(size = VQ_MAX_SIZE + 1, -EINVAL);
	refuse(size = 32768, -EINVAL);
	refuse(descriptors += 8, -EINVAL);
	refuse(driver += 2, -EINVAL);
	refuse(device += 1, -EINVAL);
	refuse(descriptors = RAM, -EFAULT);
	refuse(descriptors = RAM - 16 * SIZE + 16, -EFAULT);
	refuse(driver = RAM, -EFAULT);
	refuse(device = RAM, -EFAULT);
	refuse(descriptors = UINT64_MAX - 15, -EFAULT);
	refuse(driver = UINT64_MAX - 3, -EFAULT);
	refuse(device = LAYOUT_RAM_LOW_END - 4, -EFAULT);
	refuse(device = LAYOUT_RAM_HIGH, -EFAULT);
	/* to the last byte of RAM is fine, and so is any size (4.1.4.3.1) */
	good.device = RAM - 4;
	good.driver = RAM - 8;
	good.size = 3;
	assert_int_equal(start(f, &good), 0);
	assert_null(f->vq.fault);
}

/* ---- chains ---- */

static void empty_ring(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(pop(f), 0);
	assert_false(vq_publish(&f->vq));
	assert_false(vq_unmute(&f->vq));
	assert_false(vq_available(&f->vq));
}

static void direct_chain(void **state)
{
	struct fixture *f = *state;
	const struct driver_part parts[] = { { BUFFER, 16, false },
					     { BUFFER + 100, 7, false },
					     { BUFFER + 4096, 512, true },
					     { BUFFER + 9000, 1, true } };
	int id = driver_add(&f->ring, parts, 4);
	u32 used, written;

	assert_int_equal(pop(f), 0); /* not shown yet */
	driver_publish(&f->ring);
	assert_true(vq_available(&f->vq));
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->buffer.head, id);
	assert_int_equal(f->buffer.readable, 2);
	assert_int_equal(f->buffer.writable, 2);
	assert_int_equal(f->buffer.readable_bytes, 23);
	assert_int_equal(f->buffer.writable_bytes, 513);
	for (int i = 0; i < 4; i++) {
		assert_ptr_equal(f->buffer.iov[i].iov_base, host(f, parts[i].at));
		assert_int_equal(f->buffer.iov[i].iov_len, parts[i].length);
	}
	assert_int_equal(pop(f), 0);
	vq_push(&f->vq, f->buffer.head, 513);
	assert_false(driver_used(&f->ring, NULL, NULL)); /* not published yet */
	assert_true(vq_publish(&f->vq));
	assert_false(vq_publish(&f->vq)); /* nothing new */
	assert_true(driver_used(&f->ring, &used, &written));
	assert_int_equal(used, id);
	assert_int_equal(written, 513);
}

/* 2.8.1: of the four states of the two flags one is available, the inverse one round later. */
static void whose_turn(void **state)
{
	struct fixture *f = *state;
	static const u16 all[] = { 0, F_AVAIL, F_USED, F_AVAIL | F_USED };

	for (int round = 0; round < 4; round++)
		for (u16 at = 0; at < SIZE; at++) {
			u16 available = round % 2 ? F_USED : F_AVAIL;

			for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
				descriptor(f, at)->flags = all[i];
				assert_int_equal(vq_available(&f->vq), all[i] == available);
				if (all[i] != available)
					assert_int_equal(pop(f), 0);
			}
			*descriptor(f, at) = (struct vring_packed_desc){ BUFFER, 1, 5, available };
			assert_int_equal(pop(f), 1);
			vq_push(&f->vq, 5, 0);
			vq_publish(&f->vq);
		}
}

/* 2.8.12, 2.8.15: only used descriptors are written, one for a chain, and nothing of the driver's.
 */
static void driver_areas_stay_untouched(void **state)
{
	struct fixture *f = *state;
	const struct driver_part parts[] = { { BUFFER, 16, false }, { BUFFER + 4096, 512, true } };
	struct vring_packed_desc before[SIZE];
	u8 table[32];

	driver_add(&f->ring, parts, 2);
	driver_add_indirect(&f->ring, TABLE, parts, 2);
	driver_publish(&f->ring);
	*(u32 *)(void *)f->ring.available = 0xdead0000;
	memcpy(before, f->ring.descriptors, sizeof(before));
	memcpy(table, host(f, TABLE), sizeof(table));
	vq_mute(&f->vq);
	for (u16 i = 0; i < 2; i++) {
		assert_int_equal(pop(f), 1);
		vq_push(&f->vq, f->buffer.head, 0);
	}
	vq_publish(&f->vq);
	vq_unmute(&f->vq);
	assert_int_equal(*(u32 *)(void *)f->ring.available, 0xdead0000);
	assert_memory_equal(table, host(f, TABLE), sizeof(table));
	/* the chain's second one, and what was never used */
	assert_memory_equal(&before[1], descriptor(f, 1), 16);
	assert_memory_equal(&before[3], descriptor(f, 3), 16 * (SIZE - 3));
}

/* 2.8.3, 2.8.4 and 2.8.6: a used descriptor is where the next one is due, and says what it has to.
 */
static void used_descriptors(void **state)
{
	struct fixture *f = *state;
	const struct driver_part out[] = { { BUFFER, 16, false }, { BUFFER + 64, 9, false } },
				 in[] = { { BUFFER, 4, false }, { BUFFER + 64, 9, true } };
	u16 at = 0, flags;
	int ids[2];

	for (int round = 0; round < 40; round++) { /* 40 times 4: ten times around */
		ids[0] = driver_add(&f->ring, out, 2);
		ids[1] = driver_add(&f->ring, in, 2);
		driver_publish(&f->ring);
		assert_int_equal(pop(f), 1);
		assert_int_equal(pop(f), 1);
		/* the later one first: the ids tell */
		vq_push(&f->vq, (u16)ids[1], round % 2 ? 7 : 0);
		vq_push(&f->vq, (u16)ids[0], 0);
		vq_publish(&f->vq);
		flags = at / SIZE % 2 ? 0 : F_AVAIL | F_USED;
		assert_int_equal(descriptor(f, at % SIZE)->id, ids[1]);
		/* 0 for certain, but perhaps something beyond that, as a status */
		assert_int_equal(descriptor(f, at % SIZE)->len, round % 2 ? 7 : 0);
		assert_int_equal(descriptor(f, at % SIZE)->flags, flags | WRITE);
		at += 2;
		flags = at / SIZE % 2 ? 0 : F_AVAIL | F_USED;
		assert_int_equal(descriptor(f, at % SIZE)->id, ids[0]);
		assert_int_equal(descriptor(f, at % SIZE)->flags, flags);
		at += 2;
		assert_true(driver_used(&f->ring, NULL, NULL));
		assert_true(driver_used(&f->ring, NULL, NULL));
	}
}

/* All completion orders are free (2.8.12), whatever the lengths of the chains. */
static void used_in_any_order(void **state)
{
	static const u16 orders[][3] = { { 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 },
					 { 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 } };
	struct fixture *f = *state;
	struct driver_part parts[5];
	u16 heads[3];
	u32 id, written;

	for (u16 i = 0; i < 5; i++)
		parts[i] = (struct driver_part){ BUFFER + 64 * i, 16, true };
	for (int round = 0; round < 100; round++) {
		const u16 *order = orders[round % 6];

		for (u16 i = 0; i < 3; i++)
			assert_true(driver_add(&f->ring, parts, (u16)(1 + (round + i) % 5)) >= 0);
		driver_publish(&f->ring);
		for (int i = 0; i < 3; i++) {
			assert_int_equal(pop(f), 1);
			heads[i] = f->buffer.head;
		}
		for (u16 i = 0; i < 3; i++)
			vq_push(&f->vq, heads[order[i]], order[i]);
		assert_false(driver_used(&f->ring, NULL, NULL));
		vq_publish(&f->vq); /* all at once */
		for (int i = 0; i < 3; i++) {
			assert_true(driver_used(&f->ring, &id, &written));
			assert_int_equal(id, heads[order[i]]);
			assert_int_equal(written, order[i]);
		}
		assert_false(driver_used(&f->ring, NULL, NULL));
	}
}

static void zero_length_descriptor(void **state)
{
	struct fixture *f = *state;

	/* says nothing, wherever it points */
	write_one(f, UINT64_MAX, 0, 0, NEXT);
	write_one(f, BUFFER, 8, 0, NEXT);
	show(f, 0, 0, 3, WRITE);
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->buffer.head, 3);
	assert_int_equal(f->buffer.readable, 1);
	assert_int_equal(f->buffer.writable, 0);
	assert_int_equal(f->buffer.readable_bytes, 8);
}

/* 2.8.7: in a table all flags but WRITE and all ids are ignored; on the descriptor that refers to
 * it WRITE is. Tables lie at any address. */
static void indirect_table(void **state)
{
	struct fixture *f = *state;
	const struct driver_part parts[] = { { BUFFER, 16, false },
					     { BUFFER + 4096, 512, true },
					     { BUFFER + 8192, 1, true } };
	struct vring_packed_desc table[3];

	for (u16 odd = 0; odd < 2; odd++) {
		for (int i = 0; i < 3; i++)
			table[i] = (struct vring_packed_desc){
				.addr = parts[i].at,
				.len = parts[i].length,
				.id = 0xfff0,
				.flags = (u16)(0xfffd & (parts[i].writable ? 0xffff : ~WRITE)) |
					 (parts[i].writable ? WRITE : 0),
			};
		memcpy(host(f, TABLE + 3u * odd), table, sizeof(table));
		show(f, TABLE + 3u * odd, sizeof(table), (u16)(7 + odd),
		     (u16)(TABLE_F | (odd ? WRITE : 0)));
		assert_int_equal(pop(f), 1);
		assert_int_equal(f->buffer.head, 7 + odd);
		assert_int_equal(f->buffer.readable, 1);
		assert_int_equal(f->buffer.writable, 2);
		assert_ptr_equal(f->buffer.iov[2].iov_base, host(f, BUFFER + 8192));
	}
}

/* 2.8.5: lists of both kinds in one ring. */
static void direct_and_indirect(void **state)
{
	struct fixture *f = *state;
	const struct driver_part parts[] = { { BUFFER, 16, false }, { BUFFER + 4096, 512, true } };
	u32 id;

	for (int round = 0; round < 50; round++) {
		int heads[3] = { driver_add(&f->ring, parts, 2),
				 driver_add_indirect(&f->ring, TABLE, parts, 2),
				 driver_add(&f->ring, parts, 2) };

		driver_publish(&f->ring);
		for (int i = 0; i < 3; i++) {
			assert_int_equal(pop(f), 1);
			assert_int_equal(f->buffer.head, heads[i]);
			assert_int_equal(f->buffer.readable + f->buffer.writable, 2);
		}
		for (int i = 3; i--;)
			vq_push(&f->vq, (u16)heads[i], 1);
		vq_publish(&f->vq);
		for (int i = 3; i--;) {
			assert_true(driver_used(&f->ring, &id, NULL));
			assert_int_equal(id, heads[i]);
		}
	}
}

/* A table may be as long as the size the device offers, however small a ring the driver chose. */
static void chain_limits(void **state)
{
	struct fixture *f = *state;
	struct vq_setup setup = setup_of(f, false, true);
	struct driver_part parts[65];

	for (int i = 0; i < 65; i++)
		parts[i] = (struct driver_part){ BUFFER + 4096ull * (u64)i, 16, true };
	setup.chain_max = 64;
	assert_int_equal(start(f, &setup), 0);
	driver_add_indirect(&f->ring, TABLE, parts, 64);
	driver_publish(&f->ring);
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->buffer.writable, 64);
	driver_add_indirect(&f->ring, TABLE, parts, 65);
	driver_publish(&f->ring);
	expect_fault(f, "an indirect table is longer than the queue");
}

/* A chain of the whole ring, from each place in it: the wrap counter flips in its midst. */
static void whole_ring_in_one_chain(void **state)
{
	struct fixture *f = *state;
	struct driver_part parts[SIZE];

	for (int i = 0; i < SIZE; i++)
		parts[i] = (struct driver_part){ BUFFER + 4096ull * (u64)i, 16, true };
	for (int round = 0; round < 3 * SIZE; round++) {
		assert_true(driver_add(&f->ring, parts, SIZE) >= 0);
		driver_publish(&f->ring);
		assert_int_equal(pop(f), 1);
		assert_int_equal(f->buffer.writable, SIZE);
		vq_push(&f->vq, f->buffer.head, 16);
		vq_publish(&f->vq);
		assert_true(driver_used(&f->ring, NULL, NULL));
		assert_true(driver_add(&f->ring, parts, 1) >= 0);
		driver_publish(&f->ring);
		assert_int_equal(pop(f), 1);
		vq_push(&f->vq, f->buffer.head, 16);
		vq_publish(&f->vq);
		assert_true(driver_used(&f->ring, NULL, NULL));
	}
}

static void no_room_for_parts(void **state)
{
	struct fixture *f = *state;
	const struct driver_part parts[] = { { BUFFER, 16, false }, { BUFFER + 4096, 512, true } };

	driver_add(&f->ring, parts, 2);
	driver_publish(&f->ring);
	assert_int_equal(vq_pop(&f->vq, &f->buffer, f->iov, 1), -EPROTO);
	assert_string_equal(f->vq.fault, "a descriptor chain has too many parts");
}

/* ---- hostile rings ---- */

/* NEXT all around: the second time around flags are the ones of the round before. */
static void chain_without_end(void **state)
{
	static const u16 sizes[] = { SIZE, 1 };
	struct fixture *f = *state;

	for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
		struct vq_setup setup;

		begin(f, sizes[s], false);
		setup = setup_of(f, false, true);
		setup.chain_max = 64; /* so that the ring itself is the bound */
		assert_int_equal(start(f, &setup), 0);
		for (u16 i = 0; i < sizes[s]; i++)
			write_one(f, BUFFER, 0, 0, NEXT);
		driver_publish(&f->ring);
		expect_fault(f, "a chain goes on with a descriptor that is not there");
	}
}

/* The chain's next descriptor was never made available (2.8.17). */
static void chain_not_there(void **state)
{
	struct fixture *f = *state;

	show(f, BUFFER, 1, 0, NEXT);
	expect_fault(f, "a chain goes on with a descriptor that is not there");
}

static void chain_into_what_is_in_flight(void **state)
{
	struct fixture *f = *state;
	const struct driver_part part = { BUFFER, 1, true };

	driver_add(&f->ring, &part, 1);
	driver_publish(&f->ring);
	assert_int_equal(pop(f), 1);
	/* all others and then the one that the device has */
	f->ring.room = 0;
	for (u16 i = 1; i < SIZE; i++)
		write_one(f, BUFFER, 0, 3, NEXT);
	write_one(f, BUFFER, 0, 3, 0);
	driver_publish(&f->ring);
	expect_fault(f, "a descriptor chain is longer than the queue has room for");
}

/* The same ring entry again, one round later, while the device has it. */
static void descriptor_offered_twice(void **state)
{
	struct fixture *f = *state;

	for (u16 i = 0; i < SIZE; i++) {
		show(f, BUFFER, 1, i, WRITE);
		assert_int_equal(pop(f), 1);
	}
	show(f, BUFFER, 1, 0, WRITE);
	expect_fault(f, "a descriptor in flight was made available again");
}

/* Used but not yet shown is not free either. */
static void descriptor_offered_early(void **state)
{
	struct fixture *f = *state;

	for (u16 i = 0; i < SIZE; i++) {
		show(f, BUFFER, 1, i, WRITE);
		assert_int_equal(pop(f), 1);
		vq_push(&f->vq, i, 1);
	}
	assert_int_equal(pop(f), 0);
	show(f, BUFFER, 1, 0, WRITE);
	expect_fault(f, "a descriptor in flight was made available again");
}

static void id_offered_twice(void **state)
{
	struct fixture *f = *state;

	show(f, BUFFER, 1, 4, WRITE);
	assert_int_equal(pop(f), 1);
	show(f, BUFFER, 1, 4, WRITE);
	expect_fault(f, "a buffer in flight was made available again");
}

static void id_outside(void **state)
{
	static const u16 ids[] = { SIZE, SIZE + 1, VQ_MAX_SIZE, 0x8000, UINT16_MAX };
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		begin(f, SIZE, false);
		show(f, BUFFER, 1, ids[i], WRITE);
		expect_fault(f, "a buffer id is outside the ring");
	}
}

static void readable_after_writable(void **state)
{
	struct fixture *f = *state;

	write_one(f, BUFFER, 1, 0, NEXT | WRITE);
	show(f, BUFFER, 1, 0, 0);
	expect_fault(f, "a readable descriptor follows a writable one");
}

static void buffer_outside_ram(void **state)
{
	static const struct {
		u64 at;
		u32 length;
	} bad[] = {
		{ RAM, 1 },
		{ RAM - 1, 2 },
		{ RAM - 4096, UINT32_MAX },
		{ UINT64_MAX, 1 },
		{ UINT64_MAX - 15, 32 }, /* wraps to 16 */
		{ LAYOUT_RAM_LOW_END - 1, 2 },
		{ LAYOUT_RAM_HIGH - 1, 1 },
		{ LAYOUT_RAM_HIGH, 1 },
		{ 0xfee00000, 4 },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		begin(f, SIZE, false);
		show(f, bad[i].at, bad[i].length, 0, WRITE);
		expect_fault(f, "a descriptor is outside RAM");
	}
}

static void longer_than_4_gib(void **state)
{
	struct fixture *f = *state;
	struct memory big;
	struct vq_setup setup;

	assert_int_equal(memory_create(&big, NULL, GIB(3), MEMORY_PAGES_DEFAULT), 0);
	driver_ring_init(&f->ring, &big, RINGS, SIZE, false);
	setup = setup_of(f, false, true);
	setup.memory = &big;
	assert_int_equal(start(f, &setup), 0);
	write_one(f, 0, (u32)GIB(2), 0, NEXT);
	write_one(f, 0, (u32)GIB(2) - 1, 0, NEXT);
	show(f, 0, (u32)GIB(3), 0, WRITE);
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->buffer.readable_bytes, UINT32_MAX);
	write_one(f, 0, (u32)GIB(2), 1, NEXT);
	show(f, 0, (u32)GIB(2), 1, 0);
	expect_fault(f, "a descriptor chain is longer than 4 GiB");
	memory_destroy(&big);
}

static void indirect_faults(void **state)
{
	static const struct {
		u64 at;
		u32 length;
		u16 flags;
		const char *fault;
	} bad[] = {
		{ TABLE, 16, NEXT, "an indirect descriptor in a chain" },
		{ TABLE, 0, 0, "an indirect table's length is not a multiple of 16" },
		{ TABLE, 15, 0, "an indirect table's length is not a multiple of 16" },
		{ TABLE, 17, 0, "an indirect table's length is not a multiple of 16" },
		{ TABLE, UINT32_MAX, 0, "an indirect table's length is not a multiple of 16" },
		{ TABLE, 16 * (SIZE + 1), 0, "an indirect table is longer than the queue" },
		{ TABLE, 16u << 24, 0, "an indirect table is longer than the queue" },
		{ TABLE, UINT32_MAX - 15, 0, "an indirect table is longer than the queue" },
		{ RAM - 16, 32, 0, "an indirect table is outside RAM" },
		{ UINT64_MAX - 15, 32, 0, "an indirect table is outside RAM" },
		/* the tables made below */
		{ TABLE, 32, 0, "a readable descriptor follows a writable one" },
		{ TABLE + 16, 32, 0, "a descriptor is outside RAM" },
	};
	struct fixture *f = *state;
	struct vring_packed_desc *table = memory_at(&f->memory, TABLE, 64);

	table[0] = (struct vring_packed_desc){ .addr = BUFFER, .len = 16, .flags = WRITE };
	table[1] = (struct vring_packed_desc){ .addr = BUFFER, .len = 1 };
	table[2] = (struct vring_packed_desc){ .addr = RAM, .len = 1 };
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		begin(f, SIZE, false);
		show(f, bad[i].at, bad[i].length, 2, (u16)(TABLE_F | bad[i].flags));
		expect_fault(f, bad[i].fault);
	}
	/* 2.8.19: nor at the end of a chain */
	begin(f, SIZE, false);
	write_one(f, BUFFER, 1, 2, NEXT);
	show(f, TABLE, 16, 2, TABLE_F);
	expect_fault(f, "an indirect descriptor in a chain");
}

static void indirect_not_negotiated(void **state)
{
	struct fixture *f = *state;
	struct vq_setup setup = setup_of(f, false, false);
	const struct driver_part part = { BUFFER, 1, true };

	assert_int_equal(start(f, &setup), 0);
	driver_add_indirect(&f->ring, TABLE, &part, 1);
	driver_publish(&f->ring);
	expect_fault(f, "an indirect descriptor without the feature");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(start_checks_areas),
		test(empty_ring),
		test(direct_chain),
		test(whose_turn),
		test(driver_areas_stay_untouched),
		test(used_descriptors),
		test(used_in_any_order),
		test(zero_length_descriptor),
		test(indirect_table),
		test(direct_and_indirect),
		test(chain_limits),
		test(whole_ring_in_one_chain),
		test(no_room_for_parts),
		test(chain_without_end),
		test(chain_not_there),
		test(chain_into_what_is_in_flight),
		test(descriptor_offered_twice),
		test(descriptor_offered_early),
		test(id_offered_twice),
		test(id_outside),
		test(readable_after_writable),
		test(buffer_outside_ram),
		test(longer_than_4_gib),
		test(indirect_faults),
		test(indirect_not_negotiated),
	};

	driver_packed = true;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
