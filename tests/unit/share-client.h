/* A client of a share's server: folders to share, requests written by hand, and their answers. */
#ifndef TESTS_UNIT_SHARE_CLIENT_H
#define TESTS_UNIT_SHARE_CLIENT_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "backends/share.h"

enum {
	TSTATFS = 8,
	TLOPEN = 12,
	TLCREATE = 14,
	TSYMLINK = 16,
	TMKNOD = 18,
	TREADLINK = 22,
	TGETATTR = 24,
	TSETATTR = 26,
	TXATTRWALK = 30,
	TXATTRCREATE = 32,
	TREADDIR = 40,
	TFSYNC = 50,
	TLOCK = 52,
	TGETLOCK = 54,
	TLINK = 70,
	TMKDIR = 72,
	TRENAMEAT = 74,
	TUNLINKAT = 76,
	TVERSION = 100,
	TATTACH = 104,
	TFLUSH = 108,
	TWALK = 110,
	TREAD = 116,
	TWRITE = 118,
	TCLUNK = 120,
	TREMOVE = 122,
};

#define ROOT   1u /* the fid attached */
#define NO_FID 0xffffffffu

struct client {
	char folder[64]; /* what is shared is folder/share */
	struct share share;
	u8 *out; /* the request being built */
	u32 length;
	u8 *in; /* the answer: its body */
	u32 in_length;
	u16 tag;
};

static inline void put(struct client *c, u64 value, u32 bytes)
{
	value = htole64(value);
	memcpy(c->out + c->length, &value, bytes);
	c->length += bytes;
}

static inline void put_bytes(struct client *c, const void *bytes, size_t length)
{
	memcpy(c->out + c->length, bytes, length);
	c->length += (u32)length;
}

static inline void put_text(struct client *c, const char *text)
{
	put(c, strlen(text), 2);
	put_bytes(c, text, strlen(text));
}

static inline u64 got(const struct client *c, u32 at, u32 bytes)
{
	u64 value = 0;

	assert_true(at + bytes <= c->in_length);
	memcpy(&value, c->in + at, bytes);
	return le64toh(value);
}

static inline void start(struct client *c, u8 type)
{
	c->length = 0;
	put(c, 0, 4);
	put(c, type, 1);
	put(c, ++c->tag, 2);
}

/* False: the server has hung up. */
static inline bool read_exactly(struct client *c, void *to, size_t length)
{
	struct pollfd pollfd = { .fd = c->share.fd, .events = POLLIN };
	ssize_t n;

	for (size_t at = 0; at < length; at += (size_t)n) {
		if (poll(&pollfd, 1, 20000) != 1)
			fail_msg("the server does not answer");
		n = read(c->share.fd, (u8 *)to + at, length - at);
		if (n <= 0)
			return false;
	}
	return true;
}

static inline bool send_out(struct client *c)
{
	return send(c->share.fd, c->out, c->length, MSG_NOSIGNAL) == (ssize_t)c->length;
}

/* The next answer, whosever: its type, or 0 when the server has hung up. */
static inline u8 receive(struct client *c, u16 *tag)
{
	u8 header[7];
	u32 size;

	if (!read_exactly(c, header, sizeof(header)))
		return 0;
	memcpy(&size, header, 4);
	size = le32toh(size);
	assert_in_range(size, 7, SHARE_MSIZE);
	*tag = (u16)(header[5] | header[6] << 8);
	c->in_length = size - 7;
	assert_true(read_exactly(c, c->in, c->in_length));
	return header[4];
}

/* Sends what was built and waits for its answer: 0 or -errno. */
static inline int call(struct client *c)
{
	u32 size = htole32(c->length);
	u8 type;
	u16 tag;

	memcpy(c->out, &size, 4);
	assert_true(send_out(c));
	type = receive(c, &tag);
	assert_int_equal(tag, c->tag);
	if (type == 7)
		return -(int)got(c, 0, 4);
	assert_int_equal(type, c->out[4] | 1);
	return 0;
}

/* ---- requests that tests make often ---- */

static inline int walk(struct client *c, u32 fid, u32 to, const char *path)
{
	char copy[512], *cursor = copy, *name;
	u32 at, count = 0;

	snprintf(copy, sizeof(copy), "%s", path);
	start(c, TWALK);
	put(c, fid, 4);
	put(c, to, 4);
	at = c->length;
	put(c, 0, 2);
	while (*path && (name = strsep(&cursor, "/"))) {
		put_text(c, name);
		count++;
	}
	c->out[at] = (u8)count;
	return call(c) ?: got(c, 0, 2) == count ? 0 : -ENOENT;
}

static inline int clunk(struct client *c, u32 fid)
{
	start(c, TCLUNK);
	put(c, fid, 4);
	return call(c);
}

static inline int lopen(struct client *c, u32 fid, int flags)
{
	start(c, TLOPEN);
	put(c, fid, 4);
	put(c, (u32)flags, 4);
	return call(c);
}

static inline int walk_open(struct client *c, u32 fid, const char *path, int flags)
{
	int err = walk(c, ROOT, fid, path);

	if (!err && (err = lopen(c, fid, flags)))
		clunk(c, fid);
	return err;
}

static inline int create(struct client *c, u32 folder, u32 fid, const char *name, int flags,
			 u32 mode)
{
	int err = walk(c, folder, fid, "");

	if (err)
		return err;
	start(c, TLCREATE);
	put(c, fid, 4);
	put_text(c, name);
	put(c, (u32)flags, 4);
	put(c, mode, 4);
	put(c, 0, 4);
	return call(c);
}

static inline int write_at(struct client *c, u32 fid, u64 offset, const void *bytes, u32 length)
{
	int err;

	start(c, TWRITE);
	put(c, fid, 4);
	put(c, offset, 8);
	put(c, length, 4);
	put_bytes(c, bytes, length);
	err = call(c);
	return err ? err : (int)got(c, 0, 4);
}

/* What was read is at c->in + 4. */
static inline int read_at(struct client *c, u32 fid, u64 offset, u32 length)
{
	int err;

	start(c, TREAD);
	put(c, fid, 4);
	put(c, offset, 8);
	put(c, length, 4);
	err = call(c);
	return err ? err : (int)got(c, 0, 4);
}

/* Asks for the file of a fid: its descriptor, or -errno. */
static inline int lend(struct client *c, u32 fid)
{
	int err;

	start(c, SHARE_TLEND);
	put(c, fid, 4);
	err = call(c);
	return err ? err : share_take_file(&c->share);
}

struct attr {
	u32 mode, uid, gid;
	u64 nlink, size, path;
	u8 qid;
};

static inline int getattr(struct client *c, u32 fid, struct attr *attr)
{
	int err;

	start(c, TGETATTR);
	put(c, fid, 4);
	put(c, 0x7ff, 8);
	err = call(c);
	if (err)
		return err;
	assert_int_equal(c->in_length, 153);
	attr->qid = (u8)got(c, 8, 1);
	attr->path = got(c, 13, 8);
	attr->mode = (u32)got(c, 21, 4);
	attr->uid = (u32)got(c, 25, 4);
	attr->gid = (u32)got(c, 29, 4);
	attr->nlink = got(c, 33, 8);
	attr->size = got(c, 49, 8);
	return 0;
}

static inline int setattr(struct client *c, u32 fid, u32 valid, u32 mode, u32 uid, u32 gid,
			  u64 size)
{
	start(c, TSETATTR);
	put(c, fid, 4);
	put(c, valid, 4);
	put(c, mode, 4);
	put(c, uid, 4);
	put(c, gid, 4);
	put(c, size, 8);
	for (int i = 0; i < 4; i++)
		put(c, 0, 8);
	return call(c);
}

static inline int named(struct client *c, u8 type, u32 fid, const char *name, u32 a, u32 b)
{
	start(c, type);
	put(c, fid, 4);
	put_text(c, name);
	put(c, a, 4);
	if (type != TUNLINKAT)
		put(c, b, 4);
	if (type == TMKNOD) {
		put(c, 0, 4);
		put(c, 0, 4);
	}
	return call(c);
}

/* ---- the server ---- */

static inline bool version(struct client *c, u32 msize, const char *name)
{
	start(c, TVERSION);
	put(c, msize, 4);
	put_text(c, name);
	return call(c) == 0;
}

static inline int attach(struct client *c, u32 fid, const char *aname)
{
	start(c, TATTACH);
	put(c, fid, 4);
	put(c, NO_FID, 4);
	put_text(c, "root");
	put_text(c, aname);
	put(c, 0, 4);
	return call(c);
}

static inline void serve(struct client *c, const char *path, bool readonly, enum config_map map)
{
	const struct share_config config = {
		.path = path, .readonly = readonly, .map = map, .sandbox = true
	};
	u8 ready;

	c->out = malloc(2 * SHARE_MSIZE);
	c->in = malloc(SHARE_MSIZE);
	assert_int_equal(share_open(&c->share, &config), 0);
	assert_true(read_exactly(c, &ready, 1));
	assert_true(version(c, SHARE_MSIZE, "9P2000.L"));
	assert_int_equal(attach(c, ROOT, ""), 0);
}

static inline void unserve(struct client *c)
{
	share_close(&c->share);
	free(c->out);
	free(c->in);
	c->out = c->in = NULL;
}

/* ---- folders ---- */

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static inline const char *in_folder(struct client *c, const char *name)
{
	static char path[4][512];
	static unsigned int i;

	i = (i + 1) % 4;
	snprintf(path[i], sizeof(path[i]), "%s/%s", c->folder, name);
	return path[i];
}

static inline void make_file(struct client *c, const char *name, const char *text)
{
	FILE *f = fopen(in_folder(c, name), "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static inline void folder_up(struct client *c)
{
	memset(c, 0, sizeof(*c));
	snprintf(c->folder, sizeof(c->folder), "/tmp/vmm-share-XXXXXX");
	assert_non_null(mkdtemp(c->folder));
	assert_int_equal(mkdir(in_folder(c, "share"), 0755), 0);
	make_file(c, "secret", "secret");
	make_file(c, "share/file", "hello");
	assert_int_equal(mkdir(in_folder(c, "share/sub"), 0755), 0);
	make_file(c, "share/sub/inner", "inner");
}

static inline void folder_down(struct client *c)
{
	nftw(c->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
