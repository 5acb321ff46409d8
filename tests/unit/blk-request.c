/* tsan: what block requests mean, however they are framed and however wrong they are. */
#include "tests/unit/blk-fixture.h"

static void test_read_and_write(void **state)
{
	static u8 bytes[KIB(64)], again[KIB(64)];
	struct fixture *f = up(&(struct setting){ 0 });
	struct request r;
	u8 *data;

	(void)state;
	fill(bytes, sizeof(bytes), 1);
	data = frame(f, &r, T_OUT, 100, sizeof(bytes), false);
	memcpy(data, bytes, sizeof(bytes));
	expect(f, &r, S_OK, 1);
	assert_int_equal(pread(f->file, again, sizeof(again), 100 * 512), sizeof(again));
	assert_memory_equal(bytes, again, sizeof(bytes));
	data = frame(f, &r, T_IN, 100, sizeof(bytes), true);
	memset(data, 0, sizeof(bytes));
	expect(f, &r, S_OK, sizeof(bytes) + 1);
	assert_memory_equal(bytes, data, sizeof(bytes));
	/* no data at all is nothing wrong */
	frame(f, &r, T_IN, 0, 0, true);
	expect(f, &r, S_OK, 1);
	/* the last sectors of the disk */
	frame(f, &r, T_IN, IMAGE / 512 - 8, 4096, true);
	expect(f, &r, S_OK, 4097);
	/* one request object served them all, beside the one that finds the ring empty: what is not
	 * needed costs no memory */
	for (int i = 0; i < 500; i++)
		assert_int_equal(simple(f, T_IN, (u64)i, 512), S_OK);
	assert_int_equal(look_at(f).touched, 2);
	down(f);
}

/* Cuts `total` bytes, which lie scattered in RAM, into up to `most` pieces, empty ones excluded
 * (2.7.5). Copies bytes in. */
static void cut(struct fixture *f, struct request *r, const u8 *bytes, u32 total, bool writable,
		u32 most)
{
	u32 done = 0, n;

	while (done < total) {
		n = most-- > 1 ? 1 + draw(total - done) : total - done;
		if (draw(3) == 0 && n > 20)
			n = 1 + draw(20);
		if (most == 0)
			n = total - done;
		memcpy(part(f, r, n, writable), bytes + done, n);
		done += n;
	}
}

static void gather(struct fixture *f, const struct request *r, u8 *to)
{
	for (u16 i = 0; i < r->count; i++) {
		if (!r->parts[i].writable)
			continue;
		memcpy(to, memory_at(&f->machine.memory, r->parts[i].at, r->parts[i].length),
		       r->parts[i].length);
		to += r->parts[i].length;
	}
}

/* 2.7.5.1: what the device may only read holds what the driver put there. */
static void assert_readable_untouched(struct fixture *f, const struct request *r, const u8 *bytes)
{
	for (u16 i = 0; i < r->count && !r->parts[i].writable; i++) {
		assert_memory_equal(
			memory_at(&f->machine.memory, r->parts[i].at, r->parts[i].length), bytes,
			r->parts[i].length);
		bytes += r->parts[i].length;
	}
}

/* 2.7.4.1: wherever the driver ends its buffers, the request is the same. Written, then read back.
 */
static void any_framing(const struct setting *s)
{
	static u8 bytes[16 + 32768 + 1], again[32768 + 1];
	struct fixture *f = up(s);
	struct request r;
	u32 head, written;

	for (int round = 0; round < 200; round++) {
		u32 length = (1 + draw(64)) * 512;
		u64 sector = draw((u32)(IMAGE / 512) - 64), table;

		fill(bytes, 16 + length, (u32)round);
		header(bytes, T_OUT, sector);
		memset(&r, 0, sizeof(r));
		cut(f, &r, bytes, 16 + length, false, 1 + draw(40));
		cut(f, &r, bytes, 1, true, 1);
		allot(f, 4096, &table);
		if (round & 1)
			assert_true(driver_add_indirect(&f->rings[0], table, r.parts, r.count) >=
				    0);
		else
			send(&f->rings[0], &r);
		driver_kick(&f->rings[0]);
		driver_wait_used(&f->rings[0], &head, &written);
		assert_int_equal(written, 1);
		gather(f, &r, again);
		assert_int_equal(again[0], S_OK);
		assert_readable_untouched(f, &r, bytes);
		assert_int_equal(pread(f->file, again, length, (off_t)sector * 512), length);
		assert_memory_equal(again, bytes + 16, length);

		f->arena = ARENA;
		header(again, T_IN, sector);
		memset(&r, 0, sizeof(r));
		cut(f, &r, again, 16, false, 1 + draw(16));
		memset(again, S_NONE, sizeof(again));
		cut(f, &r, again, length + 1, true, 1 + draw(40));
		allot(f, 4096, &table);
		if (round & 1)
			assert_true(driver_add_indirect(&f->rings[0], table, r.parts, r.count) >=
				    0);
		else
			send(&f->rings[0], &r);
		driver_kick(&f->rings[0]);
		driver_wait_used(&f->rings[0], &head, &written);
		assert_int_equal(written, length + 1);
		gather(f, &r, again);
		assert_int_equal(again[length], S_OK);
		assert_memory_equal(again, bytes + 16, length);
		f->arena = ARENA;
	}
	down(f);
}

static void test_any_framing(void **state)
{
	(void)state;
	any_framing(&(struct setting){ 0 });
}

/* The same where hardly any buffer suits O_DIRECT: all goes through bounce buffers. */
static void test_any_framing_direct(void **state)
{
	(void)state;
	any_framing(&(struct setting){ .direct = true });
}

static void test_bad_requests(void **state)
{
	static const struct {
		u32 type;
		u64 sector;
		u32 length;
	} cases[] = {
		{ T_OUT, 0, 511 },
		{ T_OUT, 0, 513 },
		{ T_OUT, IMAGE / 512, 512 },
		{ T_OUT, IMAGE / 512 - 1, 1024 },
		{ T_OUT, IMAGE / 512 + 1, 512 },
		{ T_OUT, UINT64_MAX, 512 },
		{ T_OUT, UINT64_MAX - 1, 1024 },
		{ T_OUT, UINT64_MAX / 512, 512 },
		{ T_OUT, UINT64_MAX / 512 + 1, 512 }, /* times 512 it would be 0 */
		{ T_OUT, 1ull << 55, 512 },
		{ T_OUT, 1ull << 63, 512 },
	};
	static u8 zero[IMAGE], image[IMAGE];
	struct fixture *f = up(&(struct setting){ 0 });
	struct request r;
	u8 *data;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		data = frame(f, &r, cases[i].type, cases[i].sector, cases[i].length, false);
		memset(data, 0xff, cases[i].length);
		expect(f, &r, S_IOERR, 1);
		data = frame(f, &r, T_IN, cases[i].sector, cases[i].length, true);
		memset(data, 0x77, cases[i].length);
		expect(f, &r, S_IOERR, 0); /* nothing before the status was written */
		for (u32 n = 0; n < cases[i].length; n++)
			assert_int_equal(data[n], 0x77);
	}
	/* a header that is too short, or not there */
	for (u32 length = 0; length < 16; length++) {
		memset(&r, 0, sizeof(r));
		if (length)
			part(f, &r, length, false);
		r.status = part(f, &r, 1, true);
		*r.status = S_NONE;
		expect(f, &r, S_IOERR, 1);
	}
	assert_int_equal(pread(f->file, image, IMAGE, 0), IMAGE);
	assert_memory_equal(image, zero, IMAGE);
	assert_int_equal(driver_status_now(f->device) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
	down(f);
}

/* Every type that is not ours ends with UNSUPP: SCSI (2, 3), secure erase (14), zones (15 to 26),
 * barriers, all others. */
static void test_unknown_types(void **state)
{
	struct fixture *f = up(&(struct setting){ 0 });
	struct request r;

	(void)state;
	for (u64 type = 0; type < 64; type++) {
		if (type < 2 || type == T_FLUSH || type == T_FLUSH_OUT || type == T_GET_ID ||
		    type == T_DISCARD || type == T_ZEROES)
			continue;
		frame(f, &r, (u32)type, 0, 0, false);
		expect(f, &r, S_UNSUPP, 1);
		frame(f, &r, (u32)type, 0, 512, false);
		expect(f, &r, S_UNSUPP, 1);
		frame(f, &r, (u32)type, 0, 512, true);
		expect(f, &r, S_UNSUPP, 0);
		frame(f, &r, (u32)type | 1u << 31, 0, 512, false);
		expect(f, &r, S_UNSUPP, 1);
	}
	frame(f, &r, 1u << 31, 0, 512, true);
	expect(f, &r, S_UNSUPP, 0);
	frame(f, &r, UINT32_MAX, 0, 512, false);
	expect(f, &r, S_UNSUPP, 1);
	down(f);
}

/* No byte for the status: all that is left is to say that the device needs a reset, after which it
 * works again. */
static void test_no_status_byte(void **state)
{
	struct fixture *f = up(&(struct setting){ 0 });
	int saved, file;
	struct request r;

	(void)state;
	take_stderr(&saved, &file);
	memset(&r, 0, sizeof(r));
	header(part(f, &r, 16, false), T_OUT, 0);
	memset(part(f, &r, 512, false), 0xff, 512);
	send(&f->rings[0], &r);
	driver_kick(&f->rings[0]);
	driver_wait(driver_status_now(f->device) & VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_int_equal(give_stderr(saved, file, "no byte to write its status"), 1);
	assert_false(driver_used(&f->rings[0], NULL, NULL));
	driver_reset(f->device);
	f->arena = ARENA;
	begin(f, BIT64(F_FLUSH));
	assert_int_equal(simple(f, T_IN, 0, 512), S_OK);
	down(f);
}

static void test_identity(void **state)
{
	static const struct {
		u32 room, filled, written;
	} cases[] = { { 20, 20, 21 }, { 1, 1, 2 },     { 19, 19, 20 },
		      { 21, 20, 20 }, { 512, 20, 20 }, { 0, 0, 1 } };
	struct fixture *f = up(&(struct setting){ 0 });
	struct request r;
	u8 *data;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		data = frame(f, &r, T_GET_ID, 0, cases[i].room, true);
		if (data)
			memset(data, 0x11, cases[i].room);
		expect(f, &r, S_OK, cases[i].written);
		if (data)
			assert_memory_equal(data, "a serial of 20 bytes", cases[i].filled);
		if (cases[i].room > 20)
			assert_int_equal(data[20], 0x11);
	}
	down(f);
}

static void test_read_only(void **state)
{
	struct fixture *f = up(&(struct setting){ .readonly = true });
	struct request r;
	u8 *data;
	u8 byte = 1;

	(void)state;
	assert_true(virtio_has(f->device, F_RO));
	assert_true(virtio_has(f->device, F_FLUSH));
	assert_false(virtio_has(f->device, F_DISCARD) || virtio_has(f->device, F_ZEROES));
	data = frame(f, &r, T_OUT, 0, 512, false);
	memset(data, 0xff, 512);
	expect(f, &r, S_IOERR, 1);
	assert_int_equal(pread(f->file, &byte, 1, 0), 1);
	assert_int_equal(byte, 0);
	assert_int_equal(simple(f, T_IN, 0, 512), S_OK);
	assert_int_equal(simple(f, T_FLUSH, 0, 0), S_OK);
	assert_int_equal(simple(f, T_DISCARD, 0, 16), S_UNSUPP);
	/* none of it got as far as the host */
	assert_int_equal(counts(f).errors, 0);
	assert_int_equal(counts(f).syncs, 0);
	down(f);
}

/* As long a request as seg_max promises, through an indirect table. */
static void test_longest_request(void **state)
{
	struct fixture *f = up(&(struct setting){ 0 });
	struct request r;
	u32 head, written;
	u64 table;

	(void)state;
	dirty(f);
	memset(&r, 0, sizeof(r));
	header(part(f, &r, 16, false), T_IN, 0);
	for (int i = 0; i < 254; i++)
		part(f, &r, 512, true);
	r.status = part(f, &r, 1, true);
	allot(f, 4096, &table);
	assert_true(driver_add_indirect(&f->rings[0], table, r.parts, r.count) >= 0);
	driver_kick(&f->rings[0]);
	driver_wait_used(&f->rings[0], &head, &written);
	assert_int_equal(*r.status, S_OK);
	assert_int_equal(written, 254 * 512 + 1);
	for (int i = 1; i <= 254; i++)
		assert_int_equal(*(u8 *)memory_at(&f->machine.memory, r.parts[i].at + 511, 1),
				 0x5a);
	down(f);
}

/* Anything at all, thousands of times: each request is answered, nothing beyond its buffers is
 * touched (the sanitizers and a red zone watch), and what cannot be answered asks for a reset. */
static void any_request(const struct setting *s)
{
	static const u32 types[] = { 0, 1, 4, 5, 8, 11, 13, 0, 1, 11, 13, 14, 2, 0x80000001 };
	static const u64 sectors[] = { 0,	    1,		8,	    IMAGE / 512 - 1,
				       IMAGE / 512, 1ull << 55, 1ull << 63, ~0ull };
	struct fixture *f = up(s);
	struct request r;
	int broken = 0;

	for (u32 round = 0; round < 3000; round++) {
		u8 bytes[608] = { 0 }; /* whole ranges */
		u32 readable = draw(4) ? 16 + 16 * draw(35) : draw(600), writable = draw(600);
		u64 red;

		if (draw(3) == 0)
			writable = 1 + 512 * draw(2);
		if (draw(3) == 0)
			readable = 16 + 512 * draw(2);
		if (draw(50) == 0)
			writable = 0;
		f->arena = ARENA;
		memset(&r, 0, sizeof(r));
		for (u32 i = 0; i < sizeof(bytes); i += 16) {
			le64_store(bytes + i, sectors[draw(ARRAY_SIZE(sectors))] + draw(2));
			le32_store(bytes + i + 8, draw(3) ? draw(64) : draw(UINT32_MAX));
			le32_store(bytes + i + 12, draw(3) ? draw(2) : draw(UINT32_MAX));
		}
		header(bytes, types[draw(ARRAY_SIZE(types))], sectors[draw(ARRAY_SIZE(sectors))]);
		if (readable)
			cut(f, &r, bytes, readable, false, 1 + draw(5));
		if (writable)
			cut(f, &r, bytes, writable, true, 1 + draw(5));
		if (!r.count)
			continue;
		for (u16 i = 0; i < r.count; i++) /* what lies behind each part */
			*(u8 *)memory_at(&f->machine.memory, r.parts[i].at + r.parts[i].length, 1) =
				0xbb;
		send(&f->rings[0], &r);
		driver_kick(&f->rings[0]);
		if (!writable) {
			driver_wait(driver_status_now(f->device) & VIRTIO_CONFIG_S_NEEDS_RESET);
			driver_reset(f->device);
			begin(f, f->device->offered & 0xffffff);
			broken++;
		} else {
			u32 written;
			u8 status;

			driver_wait_used(&f->rings[0], NULL, &written);
			assert_true(written <= writable);
			red = r.parts[r.count - 1].at + r.parts[r.count - 1].length;
			status = *(u8 *)memory_at(&f->machine.memory, red - 1, 1);
			assert_true(status <= S_UNSUPP);
		}
		assert_readable_untouched(f, &r, bytes);
		for (u16 i = 0; i < r.count; i++)
			assert_int_equal(*(u8 *)memory_at(&f->machine.memory,
							  r.parts[i].at + r.parts[i].length, 1),
					 0xbb);
	}
	assert_true(broken > 0);
	assert_int_equal(counts(f).errors, 0);
	assert_int_equal(lseek(f->file, 0, SEEK_END), IMAGE);
	down(f);
}

static void test_any_request(void **state)
{
	(void)state;
	any_request(&(struct setting){ 0 });
	any_request(&(struct setting){ .direct = true });
	any_request(&(struct setting){ .readonly = true });
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_read_and_write),	   cmocka_unit_test(test_any_framing),
		cmocka_unit_test(test_any_framing_direct), cmocka_unit_test(test_bad_requests),
		cmocka_unit_test(test_unknown_types),	   cmocka_unit_test(test_no_status_byte),
		cmocka_unit_test(test_identity),	   cmocka_unit_test(test_read_only),
		cmocka_unit_test(test_longest_request),	   cmocka_unit_test(test_any_request),
	};

	return on_both_engines(tests);
}
