/* Payloads as kernel builds make them, from the libraries' own packing; for the tests of
 * unpacking. */
#ifndef TESTS_UNIT_PACKED_H
#define TESTS_UNIT_PACKED_H

#include <lz4.h>
#include <lzma.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>
#include "vm/types.h"

#define PLAIN_SIZE  300000u
#define PACKED_ROOM 500000u

static u8 plain[PLAIN_SIZE];

/* Neither random nor even: packs to about a half. */
static void make_plain(unsigned int seed)
{
	u32 x = seed * 2654435761u + 1;

	for (u32 i = 0; i < PLAIN_SIZE; i++) {
		x = x * 1664525 + 1013904223;
		plain[i] = (u8)(i & 64 ? x >> 28 : i >> 9);
	}
	memcpy(plain, "\177ELF", 4);
}

static u32 put_size(u8 *packed, u64 length, u32 size)
{
	le32_store(packed + length, size);
	return (u32)length + 4;
}

static u32 pack_gzip(u8 *packed)
{
	z_stream z = { .next_in = plain,
		       .avail_in = PLAIN_SIZE,
		       .next_out = packed,
		       .avail_out = PACKED_ROOM };

	assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return PACKED_ROOM - z.avail_out; /* its last bytes are the size */
}

/* scripts/xz_wrap.sh: --check=crc32 --x86 --lzma2=dict=32MiB */
static u32 pack_xz(u8 *packed)
{
	lzma_options_lzma lzma2;
	const lzma_filter filters[] = { { LZMA_FILTER_X86, NULL },
					{ LZMA_FILTER_LZMA2, &lzma2 },
					{ LZMA_VLI_UNKNOWN, NULL } };
	size_t length = 0;

	lzma_lzma_preset(&lzma2, 1);
	lzma2.dict_size = 32 << 20;
	assert_int_equal(lzma_stream_buffer_encode((lzma_filter *)filters, LZMA_CHECK_CRC32, NULL,
						   plain, PLAIN_SIZE, packed, &length,
						   PACKED_ROOM - 4),
			 LZMA_OK);
	return put_size(packed, length, PLAIN_SIZE);
}

static u32 pack_zstd(u8 *packed)
{
	size_t length = ZSTD_compress(packed, PACKED_ROOM - 4, plain, PLAIN_SIZE, 3);

	assert_false(ZSTD_isError(length));
	return put_size(packed, length, PLAIN_SIZE);
}

/* Legacy frames, in three blocks (of less than the format's 8 MiB: a reader takes any). */
static u32 pack_lz4(u8 *packed)
{
	u32 length = 4, third = PLAIN_SIZE / 3;

	le32_store(packed, 0x184c2102);
	for (u32 i = 0; i < 3; i++) {
		int n = LZ4_compress_default((const char *)plain + i * third,
					     (char *)packed + length + 4, (int)third,
					     (int)(PACKED_ROOM - length - 8));

		assert_true(n > 0);
		le32_store(packed + length, (u32)n);
		length += 4 + (u32)n;
	}
	return put_size(packed, length, PLAIN_SIZE);
}

static u32 (*const packers[])(u8 *packed) = { pack_gzip, pack_xz, pack_zstd, pack_lz4 };

#endif
