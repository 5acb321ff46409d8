/* firmware/decompress.c: payloads that are right, cut, wrong and hostile. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <sys/mman.h>
#include "firmware/decompress.h"
#include "packed.h"

static u8 packed[PACKED_ROOM];
static u8 *room; /* PLAIN_SIZE bytes that end where a page begins that nobody may touch */

static int up(void **state)
{
	const size_t size = ALIGN_UP(PLAIN_SIZE, 4096u);
	u8 *map = mmap(NULL, size + 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)state;
	if (map == MAP_FAILED || mprotect(map, size, PROT_READ | PROT_WRITE))
		return -1;
	room = map + size - PLAIN_SIZE;
	make_plain(1);
	return 0;
}

static int unpack(u32 size, u64 to)
{
	memset(room, 0, PLAIN_SIZE);
	return decompress("test", packed, size, room + PLAIN_SIZE - to, to);
}

static void all_formats_come_back_whole(void **state)
{
	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(packers); i++) {
		u32 size = packers[i](packed);
		u64 unpacked;

		assert_true(size < PLAIN_SIZE);
		assert_int_equal(decompress_size("test", packed, size, &unpacked), 0);
		assert_int_equal(unpacked, PLAIN_SIZE);
		assert_int_equal(unpack(size, PLAIN_SIZE), 0);
		assert_memory_equal(room, plain, PLAIN_SIZE);
	}
}

/* A payload that becomes more than it says writes no byte more; one that becomes less is told. */
static void sizes_that_lie_are_refused(void **state)
{
	static const u64 lies[] = { 1, 4096, PLAIN_SIZE / 3, PLAIN_SIZE - 1 };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(packers); i++) {
		u32 size = packers[i](packed);

		for (u32 j = 0; j < ARRAY_SIZE(lies); j++)
			assert_int_equal(unpack(size, lies[j]), -ENOEXEC);
	}
	/* less: a third of the blocks */
	le32_store(packed, 0x184c2102);
	{
		u32 size = pack_lz4(packed), first = le32_load(packed + 4);

		(void)size;
		assert_int_equal(unpack(put_size(packed, 8 + first, PLAIN_SIZE), PLAIN_SIZE),
				 -ENOEXEC);
	}
}

static void what_is_cut_is_refused(void **state)
{
	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(packers); i++) {
		u32 size = packers[i](packed);

		for (u32 cut = 5; cut < size - 4; cut += 3001)
			assert_true(unpack(cut, PLAIN_SIZE) < 0);
	}
}

/* Whatever is in it: an answer, and nothing written beside. gzip's and xz's checksums
 * miss none; the other two have none here. */
static void what_is_broken_does_no_harm(void **state)
{
	u32 x = 12345, refused = 0, same = 0;

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(packers); i++) {
		u32 size = packers[i](packed);

		for (u32 round = 0; round < 60; round++) {
			u32 at;
			u8 old;
			int ret;

			x = x * 1664525 + 1013904223;
			at = x % (size - 4);
			old = packed[at];
			packed[at] ^= (u8)(1 + (x >> 24) % 255);
			ret = unpack(size, PLAIN_SIZE);
			refused += ret < 0;
			same += !ret && !memcmp(room, plain, PLAIN_SIZE);
			packed[at] = old;
		}
	}
	assert_true(refused >= 100);
	print_message("%u refused, %u unharmed\n", refused, same);
}

static void sizes_no_kernel_has(void **state)
{
	u64 unpacked;

	(void)state;
	assert_int_equal(decompress_size("test", packed, 4, &unpacked), -ENOEXEC);
	assert_int_equal(decompress_size("test", packed, 0, &unpacked), -ENOEXEC);
	le32_store(packed + 4, 0);
	assert_int_equal(decompress_size("test", packed, 8, &unpacked), -ENOEXEC);
	le32_store(packed + 4, 0xffffffff);
	assert_int_equal(decompress_size("test", packed, 8, &unpacked), -ENOEXEC);
}

static void other_formats_are_named(void **state)
{
	static const char starts[][5] = { "BZh9", "\x89LZO", "\x5d\0\0\0", "ELF?", "\x1f" };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(starts); i++) {
		memset(packed, 0, 64);
		memcpy(packed, starts[i], 4);
		assert_int_equal(unpack(64, 100), -ENOTSUP);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_formats_come_back_whole),
		cmocka_unit_test(sizes_that_lie_are_refused),
		cmocka_unit_test(what_is_cut_is_refused),
		cmocka_unit_test(what_is_broken_does_no_harm),
		cmocka_unit_test(sizes_no_kernel_has),
		cmocka_unit_test(other_formats_are_named),
	};

	return cmocka_run_group_tests(tests, up, NULL);
}
