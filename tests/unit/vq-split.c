/* The split ring alone: areas, chains, hostile rings. */
#include "tests/unit/ring-fixture.h"

/* ---- start ---- */

static void start_checks_areas(void **state)
{
	struct fixture *f = *state;
	struct vq_setup good = setup_of(f, false, false), bad;

#define refuse(change, err)                                               \
	do {                                                              \
		bad = good;                                               \
		bad.change;                                               \
		assert_int_equal(vq_start(&f->vq, &vq_split, &bad), err); \
		assert_non_null(f->vq.fault);                             \
	} while (0)
	refuse(size = 0, -EINVAL);
	refuse(size = 3, -EINVAL);
	refuse(size = 2048, -EINVAL);
	refuse(size = 32768, -EINVAL);
	refuse(descriptors += 8, -EINVAL);
	refuse(driver += 1, -EINVAL);
	refuse(device += 2, -EINVAL);
	refuse(descriptors = RAM, -EFAULT);
	refuse(descriptors = RAM - 16 * SIZE + 16, -EFAULT);
	refuse(driver = RAM - (6 + 2 * SIZE) + 2, -EFAULT);
	refuse(device = RAM - (6 + 8 * SIZE) + 2, -EFAULT);
	refuse(descriptors = UINT64_MAX - 15, -EFAULT);
	refuse(driver = UINT64_MAX - 1, -EFAULT);
	refuse(device = LAYOUT_RAM_LOW_END, -EFAULT);
	refuse(device = LAYOUT_RAM_HIGH, -EFAULT);
	/* to the last byte of RAM is fine */
	good.device = RAM - ALIGN_UP(6 + 8 * SIZE, 4);
	assert_int_equal(vq_start(&f->vq, &vq_split, &good), 0);
	assert_null(f->vq.fault);
}

/* ---- chains ---- */

static void empty_ring(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(pop(f), 0);
	assert_false(vq_publish(&f->vq));
	assert_false(vq_unmute(&f->vq));
}

static void direct_chain(void **state)
{
	struct fixture *f = *state;
	const struct driver_part parts[] = { { BUFFER, 16, false },
					     { BUFFER + 100, 7, false },
					     { BUFFER + 4096, 512, true },
					     { BUFFER + 9000, 1, true } };
	int head = driver_add(&f->ring, parts, 4);
	u32 id, written;

	assert_int_equal(pop(f), 0); /* not shown yet */
	driver_publish(&f->ring);
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->buffer.head, head);
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
	assert_true(driver_used(&f->ring, &id, &written));
	assert_int_equal(id, head);
	assert_int_equal(written, 513);
}

/* 2.7.5.1: no descriptor is written by the device, nor the driver's ring. */
static void driver_areas_stay_untouched(void **state)
{
	struct fixture *f = *state;
	const struct driver_part parts[] = { { BUFFER, 16, false }, { BUFFER + 4096, 512, true } };
	u8 before[16 * SIZE + 6 + 2 * SIZE];

	driver_add(&f->ring, parts, 2);
	driver_add_indirect(&f->ring, TABLE, parts, 2);
	driver_publish(&f->ring);
	memcpy(before, f->ring.descriptors, sizeof(before));
	vq_mute(&f->vq);
	assert_int_equal(pop(f), 1);
	vq_push(&f->vq, f->buffer.head, 0);
	assert_int_equal(pop(f), 1);
	vq_push(&f->vq, f->buffer.head, 0);
	vq_publish(&f->vq);
	vq_unmute(&f->vq);
	assert_memory_equal(before, f->ring.descriptors, sizeof(before));
}

/* All completion orders are free (2.7.8). */
static void used_in_any_order(void **state)
{
	struct fixture *f = *state;
	const struct driver_part part = { BUFFER, 16, true };
	u16 heads[3];
	u32 id, written;

	for (int i = 0; i < 3; i++)
		driver_add(&f->ring, &part, 1);
	driver_publish(&f->ring);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(pop(f), 1);
		heads[i] = f->buffer.head;
	}
	vq_push(&f->vq, heads[2], 2);
	vq_push(&f->vq, heads[0], 0);
	vq_push(&f->vq, heads[1], 1);
	vq_publish(&f->vq);
	static const int order[] = { 2, 0, 1 };
	for (int i = 0; i < 3; i++) {
		assert_true(driver_used(&f->ring, &id, &written));
		assert_int_equal(id, heads[order[i]]);
		assert_int_equal(written, order[i]);
	}
}

static void zero_length_descriptor(void **state)
{
	struct fixture *f = *state;

	/* says nothing, wherever it points */
	driver_descriptor(&f->ring, 0, UINT64_MAX, 0, VRING_DESC_F_NEXT, 1);
	driver_descriptor(&f->ring, 1, BUFFER, 8, VRING_DESC_F_NEXT, 2);
	driver_descriptor(&f->ring, 2, 0, 0, VRING_DESC_F_WRITE, 0);
	offer(f, 0);
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->buffer.readable, 1);
	assert_int_equal(f->buffer.writable, 0);
	assert_int_equal(f->buffer.readable_bytes, 8);
}

static void indirect_table(void **state)
{
	struct fixture *f = *state;
	const struct driver_part parts[] = { { BUFFER, 16, false },
					     { BUFFER + 4096, 512, true },
					     { BUFFER + 8192, 1, true } };
	int head = driver_add_indirect(&f->ring, TABLE, parts, 3);

	driver_publish(&f->ring);
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->buffer.head, head);
	assert_int_equal(f->buffer.readable, 1);
	assert_int_equal(f->buffer.writable, 2);
	assert_ptr_equal(f->buffer.iov[2].iov_base, host(f, BUFFER + 8192));
}

/* 2.7.5.3.2: WRITE on the descriptor that refers to a table is to be ignored; tables lie at any
 * address. */
static void indirect_with_write_flag_and_odd_address(void **state)
{
	struct fixture *f = *state;
	const struct driver_part parts[] = { { BUFFER, 16, false }, { BUFFER + 4096, 512, true } };
	int head = driver_add_indirect(&f->ring, TABLE + 3, parts, 2);

	f->ring.descriptors[head].flags |= VRING_DESC_F_WRITE;
	driver_publish(&f->ring);
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->buffer.readable, 1);
	assert_int_equal(f->buffer.writable, 1);
}

/* 2.7.5.3.2: direct descriptors, then one indirect. */
static void direct_then_indirect(void **state)
{
	struct fixture *f = *state;
	const struct driver_part parts[] = { { BUFFER, 16, false }, { BUFFER + 4096, 512, true } };
	int head = driver_add_indirect(&f->ring, TABLE, parts, 2);

	driver_descriptor(&f->ring, 5, BUFFER + 64, 4, VRING_DESC_F_NEXT, (u16)head);
	f->ring.next_available = 0;
	offer(f, 5);
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->buffer.head, 5);
	assert_int_equal(f->buffer.readable, 2);
	assert_int_equal(f->buffer.writable, 1);
	assert_int_equal(f->buffer.readable_bytes, 20);
}

/* A chain may be as long as the size the device offers, however small a ring the driver chose. */
static void chain_limits(void **state)
{
	struct fixture *f = *state;
	struct vq_setup setup = setup_of(f, false, true);
	struct driver_part parts[65];

	for (int i = 0; i < 65; i++)
		parts[i] = (struct driver_part){ BUFFER + 4096ull * (u64)i, 16, true };
	setup.chain_max = 64;
	assert_int_equal(vq_start(&f->vq, &vq_split, &setup), 0);
	driver_add_indirect(&f->ring, TABLE, parts, 64);
	driver_publish(&f->ring);
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->buffer.writable, 64);
	driver_add_indirect(&f->ring, TABLE, parts, 65);
	driver_publish(&f->ring);
	expect_fault(f, "a descriptor chain is longer than the queue");
}

static void whole_ring_in_one_chain(void **state)
{
	struct fixture *f = *state;
	struct driver_part parts[SIZE];

	for (int i = 0; i < SIZE; i++)
		parts[i] = (struct driver_part){ BUFFER + 4096ull * (u64)i, 16, true };
	assert_true(driver_add(&f->ring, parts, SIZE) >= 0);
	driver_publish(&f->ring);
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->buffer.writable, SIZE);
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

static void loop_of_one(void **state)
{
	struct fixture *f = *state;

	driver_descriptor(&f->ring, 0, BUFFER, 1, VRING_DESC_F_NEXT, 0);
	offer(f, 0);
	expect_fault(f, "a descriptor chain loops");
}

static void loop_of_all(void **state)
{
	struct fixture *f = *state;

	for (u16 i = 0; i < SIZE; i++)
		driver_descriptor(&f->ring, i, BUFFER, 1, VRING_DESC_F_NEXT, (u16)((i + 1) % SIZE));
	offer(f, 5);
	expect_fault(f, "a descriptor chain loops");
}

/* Empty descriptors do not make a loop pass. */
static void loop_of_empty_ones(void **state)
{
	struct fixture *f = *state;

	driver_descriptor(&f->ring, 0, 0, 0, VRING_DESC_F_NEXT, 1);
	driver_descriptor(&f->ring, 1, 0, 0, VRING_DESC_F_NEXT, 0);
	offer(f, 0);
	expect_fault(f, "a descriptor chain loops");
}

static void head_outside(void **state)
{
	struct fixture *f = *state;

	offer(f, SIZE);
	expect_fault(f, "a head is outside the descriptor table");
}

static void next_outside(void **state)
{
	struct fixture *f = *state;

	driver_descriptor(&f->ring, 0, BUFFER, 1, VRING_DESC_F_NEXT, SIZE);
	offer(f, 0);
	expect_fault(f, "a next index is outside the descriptor table");
}

static void index_jumps(void **state)
{
	struct fixture *f = *state;
	const struct driver_part part = { BUFFER, 1, true };

	driver_add(&f->ring, &part, 1);
	f->ring.next_available = SIZE; /* all of it: allowed */
	driver_publish(&f->ring);
	assert_int_equal(pop(f), 1);
	f->ring.next_available = SIZE + 1; /* one more than was ever given back */
	driver_publish(&f->ring);
	expect_fault(f, "the available index jumped");
}

static void index_goes_back(void **state)
{
	struct fixture *f = *state;
	const struct driver_part part = { BUFFER, 1, true };

	driver_add(&f->ring, &part, 1);
	driver_add(&f->ring, &part, 1);
	driver_publish(&f->ring);
	assert_int_equal(pop(f), 1);
	assert_int_equal(pop(f), 1);
	f->ring.next_available = 1;
	driver_publish(&f->ring);
	expect_fault(f, "the available index jumped");
}

static void buffer_offered_twice(void **state)
{
	struct fixture *f = *state;
	const struct driver_part part = { BUFFER, 1, true };
	u16 head = (u16)driver_add(&f->ring, &part, 1);

	offer(f, head);
	assert_int_equal(pop(f), 1);
	expect_fault(f, "a buffer in flight was made available again");
}

static void readable_after_writable(void **state)
{
	struct fixture *f = *state;

	driver_descriptor(&f->ring, 0, BUFFER, 1, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 1);
	driver_descriptor(&f->ring, 1, BUFFER, 1, 0, 0);
	offer(f, 0);
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
		driver_descriptor(&f->ring, 3, bad[i].at, bad[i].length, VRING_DESC_F_WRITE, 0);
		offer(f, 3);
		expect_fault(f, "a descriptor is outside RAM");
	}
}

/* RAM on both sides of the hole; a buffer may not reach across. Sparse: no page is touched. */
static void buffer_straddles_the_hole(void **state)
{
	struct fixture *f = *state;
	struct memory big;
	struct vq_setup setup;

	assert_int_equal(memory_create(&big, NULL, GIB(3) + MIB(16), MEMORY_PAGES_DEFAULT), 0);
	driver_ring_init(&f->ring, &big, LAYOUT_RAM_HIGH + RINGS, SIZE, false);
	setup = setup_of(f, false, true);
	setup.memory = &big;
	assert_int_equal(vq_start(&f->vq, &vq_split, &setup), 0);
	driver_descriptor(&f->ring, 0, LAYOUT_RAM_LOW_END - 1, 1, VRING_DESC_F_NEXT, 1);
	driver_descriptor(&f->ring, 1, LAYOUT_RAM_HIGH, 1, VRING_DESC_F_NEXT, 2);
	driver_descriptor(&f->ring, 2, LAYOUT_RAM_HIGH + MIB(16) - 1, 1, 0, 0);
	driver_descriptor(&f->ring, 3, LAYOUT_RAM_LOW_END - 1, 2, 0, 0);
	offer(f, 0);
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->buffer.readable, 3);
	offer(f, 3);
	expect_fault(f, "a descriptor is outside RAM");
	/* the total of a chain, by the same gigabytes over and over */
	driver_ring_init(&f->ring, &big, LAYOUT_RAM_HIGH + RINGS, SIZE, false);
	assert_int_equal(vq_start(&f->vq, &vq_split, &setup), 0);
	driver_descriptor(&f->ring, 0, 0, (u32)GIB(2), VRING_DESC_F_NEXT, 1);
	driver_descriptor(&f->ring, 1, 0, (u32)GIB(2) - 1, VRING_DESC_F_NEXT, 2);
	driver_descriptor(&f->ring, 2, 0, (u32)GIB(3), VRING_DESC_F_WRITE, 0);
	driver_descriptor(&f->ring, 4, 0, (u32)GIB(2), VRING_DESC_F_NEXT, 5);
	driver_descriptor(&f->ring, 5, 0, (u32)GIB(2), 0, 0);
	offer(f, 0);
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->buffer.readable_bytes, UINT32_MAX);
	offer(f, 4);
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
		{ TABLE, 16, VRING_DESC_F_NEXT, "an indirect descriptor with a next one" },
		{ TABLE, 0, 0, "an indirect table's length is not a multiple of 16" },
		{ TABLE, 15, 0, "an indirect table's length is not a multiple of 16" },
		{ TABLE, 17, 0, "an indirect table's length is not a multiple of 16" },
		{ TABLE, UINT32_MAX, 0, "an indirect table's length is not a multiple of 16" },
		{ TABLE, 16 * 65537, 0, "an indirect table is longer than an index can say" },
		{ TABLE, UINT32_MAX - 15, 0, "an indirect table is longer than an index can say" },
		{ RAM - 16, 32, 0, "an indirect table is outside RAM" },
		{ UINT64_MAX - 15, 32, 0, "an indirect table is outside RAM" },
		/* the tables that fill() makes */
		{ TABLE, 16, 0, "an indirect descriptor inside an indirect table" },
		{ TABLE + 16, 16, 0, "a next index is outside its indirect table" },
		{ TABLE + 16, 32, 0, "a descriptor chain loops" },
		{ TABLE + 48, 16, 0, "a descriptor is outside RAM" },
	};
	struct fixture *f = *state;
	struct vring_desc *table = memory_at(&f->memory, TABLE, 64);

	table[0] = (struct vring_desc){ .addr = TABLE, .len = 16, .flags = VRING_DESC_F_INDIRECT };
	table[1] = (struct vring_desc){
		.addr = BUFFER, .len = 1, .flags = VRING_DESC_F_NEXT, .next = 1
	};
	table[2] = table[1];
	table[3] = (struct vring_desc){ .addr = RAM, .len = 1 };
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		begin(f, SIZE, false);
		driver_descriptor(&f->ring, 2, bad[i].at, bad[i].length,
				  VRING_DESC_F_INDIRECT | bad[i].flags, 1);
		offer(f, 2);
		expect_fault(f, bad[i].fault);
	}
}

static void indirect_not_negotiated(void **state)
{
	struct fixture *f = *state;
	struct vq_setup setup = setup_of(f, false, false);
	const struct driver_part part = { BUFFER, 1, true };

	assert_int_equal(vq_start(&f->vq, &vq_split, &setup), 0);
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
		test(driver_areas_stay_untouched),
		test(used_in_any_order),
		test(zero_length_descriptor),
		test(indirect_table),
		test(indirect_with_write_flag_and_odd_address),
		test(direct_then_indirect),
		test(chain_limits),
		test(whole_ring_in_one_chain),
		test(no_room_for_parts),
		test(loop_of_one),
		test(loop_of_all),
		test(loop_of_empty_ones),
		test(head_outside),
		test(next_outside),
		test(index_jumps),
		test(index_goes_back),
		test(buffer_offered_twice),
		test(readable_after_writable),
		test(buffer_outside_ram),
		test(buffer_straddles_the_hole),
		test(indirect_faults),
		test(indirect_not_negotiated),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
