/*
 * Unpacking a bzImage's payload: see decompress.h. Formats as Linux builds them
 * (scripts/Makefile.lib, "Decompressors"): all but gzip, whose own last four bytes are its size,
 * are followed by four bytes with the size.
 */
#include <dlfcn.h>
#include <errno.h>
#include <lz4.h>
#include <lzma.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>
#include "firmware/decompress.h"
#include "vm/log.h"

#define SIZE_BYTES 4
/* What xz may take for a dictionary: twice the kernel build's. */
#define XZ_MEMORY MIB(96)
/* lz4's legacy frames: 0x184c2102, then blocks that become at most this (lz4_Frame_format.md) */
#define LZ4_MAGIC     0x184c2102u
#define LZ4_BLOCK_MAX MIB(8)

struct stream {
	const u8 *from;
	u64 size;
	u8 *to;
	u64 room, done; /* of `to` */
};

/* The function of that name and type in the open library. False if it lacks it. */
#define FIND(library, name) ((name##_ = (__typeof__(name) *)dlsym(library, #name)) != NULL)

/* Each unpacks the stream: 0; -EBADMSG: broken; -E2BIG: no room; -ENOSYS: an odd library. */

static int run_gzip(void *library, struct stream *s)
{
	z_stream z = { .next_in = (u8 *)s->from,
		       .avail_in = (unsigned int)s->size,
		       .next_out = s->to,
		       .avail_out = (unsigned int)s->room };
	__typeof__(inflateInit2_) *inflateInit2__;
	__typeof__(inflateEnd) *inflateEnd_;
	__typeof__(inflate) *inflate_;
	int ret;

	if (!FIND(library, inflateInit2_) || !FIND(library, inflate) || !FIND(library, inflateEnd))
		return -ENOSYS;
	/* 16: with gzip's header */
	ret = inflateInit2__(&z, 16 + MAX_WBITS, ZLIB_VERSION, (int)sizeof(z));
	if (ret != Z_OK)
		return ret == Z_MEM_ERROR ? -ENOMEM : -ENOSYS;
	ret = inflate_(&z, Z_FINISH);
	s->done = s->room - z.avail_out;
	inflateEnd_(&z);
	if (ret == Z_STREAM_END)
		return 0;
	return ret == Z_MEM_ERROR		    ? -ENOMEM
	       : ret == Z_BUF_ERROR && !z.avail_out ? -E2BIG
						    : -EBADMSG;
}

static int run_xz(void *library, struct stream *s)
{
	__typeof__(lzma_stream_buffer_decode) *lzma_stream_buffer_decode_;
	u64 memory = XZ_MEMORY;
	size_t in = 0, out = 0;
	lzma_ret ret;

	if (!FIND(library, lzma_stream_buffer_decode))
		return -ENOSYS;
	ret = lzma_stream_buffer_decode_(&memory, 0, NULL, s->from, &in, s->size, s->to, &out,
					 s->room);
	s->done = out;
	switch (ret) {
	case LZMA_OK:
		return 0;
	case LZMA_BUF_ERROR:
		return in < s->size ? -E2BIG : -EBADMSG;
	case LZMA_MEM_ERROR:
		return -ENOMEM;
	default:
		return -EBADMSG;
	}
}

static int run_zstd(void *library, struct stream *s)
{
	__typeof__(ZSTD_decompress) *ZSTD_decompress_;
	__typeof__(ZSTD_isError) *ZSTD_isError_;
	__typeof__(ZSTD_getFrameContentSize) *ZSTD_getFrameContentSize_;
	unsigned long long told;
	size_t ret;

	if (!FIND(library, ZSTD_decompress) || !FIND(library, ZSTD_isError) ||
	    !FIND(library, ZSTD_getFrameContentSize))
		return -ENOSYS;
	told = ZSTD_getFrameContentSize_(s->from, s->size);
	if (told != ZSTD_CONTENTSIZE_UNKNOWN && told != ZSTD_CONTENTSIZE_ERROR && told > s->room)
		return -E2BIG;
	ret = ZSTD_decompress_(s->to, s->room, s->from, s->size);
	if (ZSTD_isError_(ret))
		return -EBADMSG;
	s->done = ret;
	return 0;
}

static int run_lz4(void *library, struct stream *s)
{
	__typeof__(LZ4_decompress_safe) *LZ4_decompress_safe_;

	if (!FIND(library, LZ4_decompress_safe))
		return -ENOSYS;
	for (u64 at = 0; s->size - at >= 4;) {
		u64 room = s->room - s->done;
		u32 size = le32_load(s->from + at);
		int n;

		at += 4;
		if (size == LZ4_MAGIC) /* at the start, and where frames were joined */
			continue;
		if (!size || size > s->size - at || size > INT32_MAX)
			return -EBADMSG;
		if (!room)
			return -E2BIG;
		n = LZ4_decompress_safe_((const char *)s->from + at, (char *)s->to + s->done,
					 (int)size,
					 (int)(room < LZ4_BLOCK_MAX ? room : LZ4_BLOCK_MAX));
		if (n < 0)
			return -EBADMSG;
		s->done += (u64)n;
		at += size;
	}
	return 0;
}

static const struct format {
	const char *name;
	const char *magic;
	u32 magic_size;
	bool size_follows;	       /* behind the stream; else it is the stream's own end */
	const char *library, *package; /* package: Debian's */
	int (*run)(void *library, struct stream *stream);
} formats[] = {
	{ "gzip", "\x1f\x8b", 2, false, "libz.so.1", "zlib1g", run_gzip },
	{ "xz", "\xfd\x37zXZ", 6, true, "liblzma.so.5", "liblzma5", run_xz },
	{ "zstd", "\x28\xb5\x2f\xfd", 4, true, "libzstd.so.1", "libzstd1", run_zstd },
	{ "lz4", "\x02\x21\x4c\x18", 4, true, "liblz4.so.1", "liblz4-1", run_lz4 },
	{ "lzma", "\x5d\0\0", 3, true, NULL, NULL, NULL },
	{ "bzip2", "BZh", 3, true, NULL, NULL, NULL },
	{ "lzo", "\x89LZO", 4, true, NULL, NULL, NULL },
};

static const struct format *find_format(const u8 *payload, u64 size)
{
	for (u32 i = 0; i < ARRAY_SIZE(formats); i++)
		if (size > formats[i].magic_size + SIZE_BYTES &&
		    !memcmp(payload, formats[i].magic, formats[i].magic_size))
			return &formats[i];
	return NULL;
}

int decompress_size(const char *path, const u8 *payload, u64 size, u64 *unpacked)
{
	if (size <= SIZE_BYTES) {
		log_line("%s: --kernel-decompress: the kernel inside is empty; start without",
			 path);
		return -ENOEXEC;
	}
	*unpacked = le32_load(payload + size - SIZE_BYTES);
	if (*unpacked && *unpacked <= DECOMPRESS_MAX)
		return 0;
	log_line("%s: --kernel-decompress: says it unpacks to %llu MiB, which no kernel does; "
		 "start without, or fetch it again",
		 path, (unsigned long long)(*unpacked >> 20));
	return -ENOEXEC;
}

/* What is unpacked, and what to do when it cannot be, in the words of the line about it. */
struct words {
	const char *what, *instead;
};

static const struct words kernel_words = { "--kernel-decompress: the kernel inside",
					   "start without" };
static const struct words file_words = { "the packed file", "unpack it" };

static int fail(const char *path, const struct words *words, const struct format *format, int error)
{
	const char *why = error == -ENOSYS   ? "its library is not the one known"
			  : error == -ENOMEM ? "the host is out of memory"
			  : error == -E2BIG  ? "it unpacks to more than it says"
					     : "it is broken";

	log_line("%s: %s (%s): %s; %s, or fetch it again", path, words->what, format->name, why,
		 words->instead);
	return error == -ENOMEM ? error : -ENOEXEC;
}

/* The library of the stream's format. NULL after a line, with *error set. */
static void *open_library(const char *path, const struct words *words, const struct format *format,
			  int *error)
{
	void *library = NULL;

	*error = -ENOTSUP;
	if (!format || !format->run) {
		log_line("%s: %s is packed by %s, not by gzip, xz, zstd or lz4; %s", path,
			 words->what, format ? format->name : "something unknown", words->instead);
		return NULL;
	}
	library = dlopen(format->library, RTLD_NOW | RTLD_LOCAL);
	*error = library ? 0 : -ENOENT;
	if (!library)
		log_line("%s: %s needs %s; install it (apt install %s), or %s", path, words->what,
			 format->library, format->package, words->instead);
	return library;
}

int decompress(const char *path, const u8 *payload, u64 size, u8 *to, u64 unpacked)
{
	const struct format *format = find_format(payload, size);
	struct stream stream = { payload, size, to, unpacked, 0 };
	int error;
	void *library = open_library(path, &kernel_words, format, &error);

	if (!library)
		return error;
	stream.size -= format->size_follows ? SIZE_BYTES : 0;
	error = format->run(library, &stream);
	dlclose(library);
	if (!error && stream.done != unpacked)
		error = -EBADMSG;
	return error ? fail(path, &kernel_words, format, error) : 0;
}

bool decompress_known(const u8 *file, u64 size)
{
	return find_format(file, size) != NULL;
}

int decompress_file(const char *path, const u8 *file, u64 size, u64 most, u8 **to, u64 *unpacked)
{
	const struct format *format = find_format(file, size);
	struct stream stream = { file, size, NULL, 4 * size + KIB(64), 0 };
	int error;
	void *library = open_library(path, &file_words, format, &error);

	if (!library)
		return error;
	/* Not every format tells its size in advance. */
	for (error = -E2BIG; error == -E2BIG && stream.room <= 2 * most; stream.room *= 2) {
		free(stream.to);
		stream.done = 0;
		stream.to = malloc(stream.room);
		error = stream.to ? format->run(library, &stream) : -ENOMEM;
	}
	dlclose(library);
	if (!error && stream.done > most)
		error = -E2BIG;
	if (error) {
		free(stream.to);
		return fail(path, &file_words, format, error);
	}
	*to = stream.to;
	*unpacked = stream.done;
	return 0;
}
