/*
 * The insides of a share's server process, shared by backends/share-*.c alone: share-server.c (the
 * session: messages in, messages out), share-fid.c (fids, and how names become files),
 * share-name.c (what changes folders), share-file.c (what is done with open files), share-attr.c
 * (attributes and their mapping), share-xattr.c. 9P2000.L is what Linux's fs/9p speaks
 * (include/net/9p/9p.h there).
 *
 * The guest is on the other side of the socket: whatever comes from there is checked by decode() in
 * share-server.c before a handler sees it. One thread, but for syncing (share-server.c).
 */
#ifndef BACKENDS_SHARE_INTERNAL_H
#define BACKENDS_SHARE_INTERNAL_H

#include <endian.h>
#include <string.h>
#include <sys/stat.h>
#include "backends/share.h"
#include "vm/types.h"

#define SHARE_MSIZE_LEAST KIB(4)
#define SHARE_BUFFER	  (SHARE_MSIZE + KIB(64))
#define SHARE_FIDS	  (1u << 18)
#define SHARE_BUCKETS	  4096u
#define SHARE_XATTRS	  MIB(16) /* bytes of all that are being read or written */
#define SHARE_NAME_MAX	  255u
#define SHARE_WALK_MAX	  16u

/* What the server is, of descriptors: everything else is closed. */
#define SHARE_SOCKET 0
#define SHARE_ROOT   1
#define SHARE_FILES  3 /* where descriptors go */

/* Our own attribute of map=mapped: le32 uid, gid, mode. */
#define SHARE_ATTR "user.vmm.attr"

enum share_fid_kind { SHARE_FILE, SHARE_XATTR_READ, SHARE_XATTR_WRITE };

/* A file that a name led to. A stub stands for what is on another mount: an empty folder or file,
 * with no descriptor. */
struct share_node {
	int fd; /* O_PATH, or -1 */
	dev_t dev;
	ino_t ino;
	mode_t type; /* S_IFMT bits */
};

struct share_fid {
	struct share_fid *next; /* of its bucket */
	u32 id;
	u32 uid; /* who attached */
	enum share_fid_kind kind;
	struct share_node node;
	bool open;
	int io;	    /* -1: not open, or a stub */
	int access; /* O_ACCMODE bits of io */
	bool locked;
	u64 position; /* of a folder: where the next getdents64 would go on */
	/* an extended attribute being read or written */
	char *name;
	u8 *value;
	u32 size, filled;
	int flags;
};

struct share_session {
	bool readonly;
	enum config_map map;
	u32 msize; /* 0: no version yet */
	/* of the request being served */
	u16 tag;
	dev_t dev; /* the root's */
	u32 fid_count;
	u64 xattr_bytes;
	struct share_fid *fids[SHARE_BUCKETS];
};

/* A request's arguments, decoded by the format in share-server.c's table. */
struct share_args {
	struct share_fid *fid, *other;
	u64 number[10];
	char *text[2]; /* NUL-terminated, without NUL inside */
	u8 *rest;
	u32 rest_size;
};

/* A reply under construction; there is always room for the largest, but what depends on the guest
 * is checked against end. */
struct share_reply {
	u8 *at, *end;
};

static inline void share_put(struct share_reply *reply, u64 value, u32 bytes)
{
	value = htole64(value);
	memcpy(reply->at, &value, bytes);
	reply->at += bytes;
}

static inline u64 share_get(const u8 *at, u32 bytes)
{
	u64 value = 0;

	memcpy(&value, at, bytes);
	return le64toh(value);
}

static inline void share_put_text(struct share_reply *reply, const char *text, size_t length)
{
	share_put(reply, length, 2);
	memcpy(reply->at, text, length);
	reply->at += length;
}

/* ---- share-server.c ---- */

/* The next string of a message, in place and NUL-terminated; *at moves behind it. A name is one
 * component: not empty, `.` or `..`, without `/`. 0 or -errno. */
int share_text(u8 **at, u8 *end, bool name, char **text);
/* Syncs on another thread, which then answers the request itself. */
int share_sync(struct share_session *s, int fd, bool data_only);

/* ---- share-fid.c ---- */

struct share_fid *share_fid_find(struct share_session *s, u32 id);
/* A new one for a node, which becomes its own. NULL: errno says why; the node is closed. */
struct share_fid *share_fid_new(struct share_session *s, u32 id, u32 uid,
				const struct share_node *node);
void share_fid_drop(struct share_session *s, struct share_fid *fid);
void share_fids_clear(struct share_session *s);

/* The child of a folder, never beyond its mount, never by a link. 0 or -errno. */
int share_step(int folder, const char *name, struct share_node *node, struct stat *stat);
/* Opens what the fid stands for, if it is a regular file or a folder; flags are open(2)'s. */
int share_open_fid(struct share_session *s, struct share_fid *fid, int flags);
/* What fstat(2) says of a node; of a stub, what we do. */
int share_stat(const struct share_node *node, struct stat *stat);
void share_put_qid(struct share_session *s, struct share_reply *reply, const struct stat *stat);
/* The descriptor's name in /proc/self/fd, which is the current folder: for calls that take no
 * O_PATH descriptor. */
const char *share_proc_name(int fd, char name[12]);

/* ---- share-attr.c ---- */

/* The owner and mode of a file just made by fid's user. 0 or -errno. */
int share_own(struct share_session *s, int fd, u32 uid, u32 gid, mode_t mode);
/* The mode a new file has on the host until share_own(). */
mode_t share_host_mode(const struct share_session *s, mode_t mode);

/* ---- the handlers: 0, 1 (another thread answers) or -errno ---- */

#define SHARE_HANDLERS(H)                                                                         \
	H(attach)                                                                                 \
	H(walk)                                                                                   \
	H(clunk) H(lopen) H(lcreate) H(symlink) H(mknod) H(mkdir) H(link) H(renameat) H(unlinkat) \
		H(readlink) H(read) H(write) H(lend) H(readdir) H(fsync) H(lock) H(getlock)       \
			H(statfs) H(getattr) H(setattr) H(xattrwalk) H(xattrcreate)

#define SHARE_DECLARE(name) \
	int share_##name(struct share_session *s, struct share_args *a, struct share_reply *reply);
SHARE_HANDLERS(SHARE_DECLARE)

/* share-xattr.c, for read, write and clunk of such a fid */
int share_xattr_read(struct share_fid *fid, u64 offset, u32 count, struct share_reply *reply);
int share_xattr_write(struct share_fid *fid, u64 offset, const u8 *bytes, u32 count);
int share_xattr_end(struct share_session *s, struct share_fid *fid);

#endif
