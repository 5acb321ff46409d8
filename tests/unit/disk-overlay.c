/* tsan
 *
 * A disk that keeps nothing (snapshot=on): what a driver reads is what it wrote over what the image
 * has, whatever the blocks and buffers, and the image never changes.
 */
#include "tests/unit/blk-fixture.h"
#include "backends/disk-overlay.h"

static u8 image[IMAGE], shadow[IMAGE];

static struct fixture *up_on_image(bool direct, u32 alignment)
{
	struct fixture *f =
		up(&(struct setting){ .snapshot = true, .direct = direct, .alignment = alignment });

	fill(image, sizeof(image), 3);
	memcpy(shadow, image, sizeof(image));
	assert_int_equal(pwrite(f->file, image, sizeof(image), 0), IMAGE);
	assert_int_equal(fsync(f->file), 0);
	return f;
}

static void assert_image_as_it_was(struct fixture *f)
{
	static u8 now[IMAGE];

	assert_int_equal(pread(f->file, now, sizeof(now), 0), IMAGE);
	assert_memory_equal(now, image, IMAGE);
}

/* A transfer in buffers of any length. */
static void transfer(struct fixture *f, bool write, u64 sector, u32 length)
{
	struct request r = { 0 };
	u8 *pieces[8];
	u32 lengths[8], count = 1 + draw(8), left = length, at = 0;

	header(part(f, &r, 16, false), write ? T_OUT : T_IN, sector);
	for (u32 i = 0; i < count; i++) {
		lengths[i] = i == count - 1 ? left : draw(left + 1);
		left -= lengths[i];
		pieces[i] = lengths[i] ? part(f, &r, lengths[i], !write) : NULL;
		if (write && lengths[i])
			fill(pieces[i], lengths[i], prng);
	}
	r.status = part(f, &r, 1, true);
	expect(f, &r, S_OK, write ? 1 : length + 1);
	for (u32 i = 0; i < count; at += lengths[i++]) {
		if (write && lengths[i])
			memcpy(shadow + sector * 512 + at, pieces[i], lengths[i]);
		else if (lengths[i] && memcmp(shadow + sector * 512 + at, pieces[i], lengths[i]))
			fail_msg("sectors %llu, %u bytes: piece %u differs",
				 (unsigned long long)sector, length, i);
	}
}

static void zero(struct fixture *f, u32 type, u64 sector, u32 sectors)
{
	struct request r;
	u8 *range = frame(f, &r, type, 0, 16, false);

	memset(range, 0, 16);
	le64_store(range, sector);
	le32_store(range + 8, sectors);
	expect(f, &r, S_OK, 1);
	memset(shadow + sector * 512, 0, (size_t)sectors * 512);
}

static void random_requests(bool direct, u32 block, u32 rounds)
{
	struct fixture *f = up_on_image(direct, direct && block > 512 ? block : 0);
	u32 unit = block / 512;

	assert_true(f->disk.overlay->can_punch);
	for (u32 round = 0; round < rounds; round++) {
		/* small ones near each other, so that old and new lie side by side */
		u32 sectors = unit * (1 + draw(draw(4) ? 8 : 200)), place = draw(8) ? 512 : 8192;
		u64 sector;

		place = place > sectors ? place : 8192;
		sector = draw((place - sectors) / unit) * unit;

		switch (draw(8)) {
		case 0:
			zero(f, T_DISCARD, sector, sectors);
			break;
		case 1:
			zero(f, T_ZEROES, sector, sectors);
			break;
		case 2:
		case 3:
		case 4:
			transfer(f, true, sector, sectors * 512);
			break;
		default:
			transfer(f, false, sector, sectors * 512);
		}
	}
	assert_int_equal(simple(f, T_FLUSH, 0, 0), S_OK);
	transfer(f, false, 0, 1024 * 1024);
	assert_int_equal(counts(f).syncs, 0);
	assert_int_equal(counts(f).errors, 0);
	assert_image_as_it_was(f);
	down(f);
}

static void test_buffered(void **state)
{
	(void)state;
	random_requests(false, 512, 600);
}

static void test_direct(void **state)
{
	(void)state;
	random_requests(true, 4096, 300);
}

/* Nothing is written through to stable storage that is gone with the machine anyway. */
static void test_write_through(void **state)
{
	struct fixture *f;

	(void)state;
	make(&the, &(struct setting){ .snapshot = true, .writethrough = true });
	f = &the;
	begin(f, 0);
	assert_int_equal(simple(f, T_OUT, 8, 4096), S_OK);
	assert_int_equal(last_flags(f), 0);
	assert_int_equal(simple(f, T_FLUSH, 0, 0), S_OK);
	assert_int_equal(counts(f).syncs, 0);
	down(f);
}

/* Several machines may use one image so, and one that would write it may not. */
static void test_shared(void **state)
{
	struct disk_config again = { .snapshot = true }, writer = { 0 };
	struct fixture *f = up_on_image(false, 0);
	int saved, file;
	struct disk disk;

	(void)state;
	again.path = writer.path = f->path;
	assert_int_equal(disk_open(&disk, &again), 0);
	disk_close(&disk);
	take_stderr(&saved, &file);
	assert_int_equal(disk_open(&disk, &writer), -EBUSY);
	assert_int_equal(give_stderr(saved, file, f->path), 1);
	down(f);
}

static void test_no_place(void **state)
{
	struct disk_config config = { .snapshot = true };
	struct fixture *f = up_on_image(false, 0);
	int saved, file;
	struct disk disk;

	(void)state;
	config.path = f->path;
	setenv("TMPDIR", "/nowhere-at-all", true);
	take_stderr(&saved, &file);
	assert_int_equal(disk_open(&disk, &config), -ENOENT);
	assert_int_equal(give_stderr(saved, file, "TMPDIR"), 1);
	unsetenv("TMPDIR");
	down(f);
}

/* Runs against one bit at a time. */
static void test_runs(void **state)
{
	struct disk_overlay *overlay;
	bool bits[300] = { false }, ours;

	(void)state;
	assert_int_equal(disk_overlay_create(&overlay, "x", sizeof(bits) * 512, 512), 0);
	for (u32 round = 0; round < 3000; round++) {
		u32 first = draw(sizeof(bits)), count = 1 + draw((u32)sizeof(bits) - first), n = 1;

		if (draw(4) == 0) {
			count = 1 + draw(count < 5 ? count : 5);
			disk_overlay_mark(overlay, first * 512ull, count * 512ull);
			memset(bits + first, true, count);
			continue;
		}
		while (n < count && bits[first + n] == bits[first])
			n++;
		assert_int_equal(disk_overlay_run(overlay, first * 512ull, count * 512ull, &ours),
				 n * 512);
		assert_int_equal(ours, bits[first]);
		if (round % 500 == 0) {
			disk_overlay_destroy(overlay);
			assert_int_equal(
				disk_overlay_create(&overlay, "x", sizeof(bits) * 512, 512), 0);
			memset(bits, false, sizeof(bits));
		}
	}
	disk_overlay_destroy(overlay);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_buffered),      cmocka_unit_test(test_direct),
		cmocka_unit_test(test_write_through), cmocka_unit_test(test_shared),
		cmocka_unit_test(test_no_place),      cmocka_unit_test(test_runs),
	};

	return on_both_engines(tests);
}
