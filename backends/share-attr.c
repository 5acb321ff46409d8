/*
 * Attributes, and what map= makes of owners. squash: files have the owners they have, new ones are
 * the server's user's, chown changes nothing and set-id bits are not set. mapped: owner and mode
 * of what the guest made or changed are in an attribute beside the file. passthrough: all is as the
 * guest says.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "backends/share-internal.h"

#define BLOCK_MOST KIB(128) /* st_blksize: what programs take for a buffer */

enum { /* Tsetattr's valid */
       SET_MODE = 1,
       SET_UID = 2,
       SET_GID = 4,
       SET_SIZE = 8,
       SET_ATIME = 0x10,
       SET_MTIME = 0x20,
       SET_CTIME = 0x40,
       SET_ATIME_TO = 0x80,
       SET_MTIME_TO = 0x100,
};
#define GETATTR_BASIC 0x7ff

struct owner {
	u32 uid, gid, mode;
};

/* ---- the attribute of map=mapped ---- */

static int read_owner(int fd, struct owner *owner)
{
	u8 bytes[12];
	char name[12];

	if (getxattr(share_proc_name(fd, name), SHARE_ATTR, bytes, sizeof(bytes)) !=
	    (ssize_t)sizeof(bytes))
		return -ENODATA;
	owner->uid = (u32)share_get(bytes, 4);
	owner->gid = (u32)share_get(bytes + 4, 4);
	owner->mode = (u32)share_get(bytes + 8, 4);
	return 0;
}

static int write_owner(int fd, const struct owner *owner)
{
	u8 bytes[12];
	struct share_reply to = { .at = bytes };
	char name[12];

	share_put(&to, owner->uid, 4);
	share_put(&to, owner->gid, 4);
	share_put(&to, owner->mode, 4);
	return setxattr(share_proc_name(fd, name), SHARE_ATTR, bytes, sizeof(bytes), 0) ? -errno
											: 0;
}

/* Only regular files and folders can have one: symbolic links stay the server's user's. */
static bool keeps_owner(const struct share_session *s, mode_t type)
{
	return s->map == CONFIG_MAP_MAPPED && (S_ISREG(type) || S_ISDIR(type));
}

static void map_stat(const struct share_session *s, const struct share_node *node, struct stat *st)
{
	struct owner owner;

	if (node->fd < 0 || !keeps_owner(s, node->type) || read_owner(node->fd, &owner))
		return;
	st->st_uid = owner.uid;
	st->st_gid = owner.gid;
	st->st_mode = (st->st_mode & S_IFMT) | (owner.mode & 07777);
}

mode_t share_host_mode(const struct share_session *s, mode_t mode)
{
	if (s->map == CONFIG_MAP_PASSTHROUGH)
		return mode & 0700;	 /* until it has its owner */
	if (s->map == CONFIG_MAP_MAPPED) /* the server must be able to use it */
		return (mode & 0777) | (S_ISDIR(mode) ? 0700 : 0600);
	/* A program that runs as the server's user for anybody is not the guest's to make. */
	return mode & (S_ISDIR(mode) ? 03777 : 01777);
}

static int change_mode(int fd, mode_t mode)
{
	char name[12];

	return fchmodat(AT_FDCWD, share_proc_name(fd, name), mode, 0) ? -errno : 0;
}

int share_own(struct share_session *s, int fd, u32 uid, u32 gid, mode_t mode)
{
	const struct owner owner = { uid, gid, mode & 07777 };

	if (keeps_owner(s, mode))
		return write_owner(fd, &owner);
	if (s->map != CONFIG_MAP_PASSTHROUGH) /* mkdir(2) alone leaves that bit out */
		return S_ISDIR(mode) && mode & S_ISGID
			       ? change_mode(fd, share_host_mode(s, mode) & 07777)
			       : 0;
	if (fchownat(fd, "", uid, gid, AT_EMPTY_PATH))
		return -errno;
	return S_ISLNK(mode) ? 0 : change_mode(fd, mode & 07777);
}

/* ---- getting ---- */

static void put_time(struct share_reply *reply, const struct timespec *t)
{
	share_put(reply, (u64)t->tv_sec, 8);
	share_put(reply, (u64)t->tv_nsec, 8);
}

int share_getattr(struct share_session *s, struct share_args *a, struct share_reply *reply)
{
	static const struct timespec never;
	struct stat st;
	u64 block = ALIGN_DOWN(s->msize - 24, KIB(4));
	int err = share_stat(&a->fid->node, &st);

	if (err)
		return err;
	map_stat(s, &a->fid->node, &st);
	share_put(reply, GETATTR_BASIC, 8);
	share_put_qid(s, reply, &st);
	share_put(reply, st.st_mode, 4);
	share_put(reply, st.st_uid, 4);
	share_put(reply, st.st_gid, 4);
	share_put(reply, st.st_nlink, 8);
	share_put(reply, st.st_rdev, 8);
	share_put(reply, (u64)st.st_size, 8);
	share_put(reply, !block ? KIB(4) : block < BLOCK_MOST ? block : BLOCK_MOST, 8);
	share_put(reply, (u64)st.st_blocks, 8);
	put_time(reply, &st.st_atim);
	put_time(reply, &st.st_mtim);
	put_time(reply, &st.st_ctim);
	put_time(reply, &never); /* birth, generation and data version are not valid */
	put_time(reply, &never);
	return 0;
}

/* ---- setting ---- */

static int set_owner_mapped(const struct share_node *node, u64 valid, const u64 *number)
{
	struct owner owner;
	struct stat st;
	int err = share_stat(node, &st);

	if (err)
		return err;
	if (read_owner(node->fd, &owner))
		owner = (struct owner){ st.st_uid, st.st_gid, st.st_mode & 07777 };
	if (valid & (SET_UID | SET_GID) && S_ISREG(node->type))
		owner.mode &= ~(u32)(S_ISUID | (owner.mode & S_IXGRP ? S_ISGID : 0));
	if (valid & SET_MODE)
		owner.mode = (u32)number[1] & 07777;
	if (valid & SET_UID)
		owner.uid = (u32)number[2];
	if (valid & SET_GID)
		owner.gid = (u32)number[3];
	return write_owner(node->fd, &owner);
}

static int set_mode(struct share_session *s, const struct share_node *node, mode_t mode)
{
	mode = (mode & 07777) | node->type;
	if (s->map != CONFIG_MAP_PASSTHROUGH)
		mode = share_host_mode(s, mode);
	return change_mode(node->fd, mode & 07777);
}

static int set_times(int fd, u64 valid, const u64 *number)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_nsec = UTIME_OMIT } };
	char name[12];

	if (valid & SET_ATIME)
		times[0] = (struct timespec){ .tv_sec = (time_t)number[5],
					      .tv_nsec = valid & SET_ATIME_TO ? (long)number[6]
									      : UTIME_NOW };
	if (valid & SET_MTIME)
		times[1] = (struct timespec){ .tv_sec = (time_t)number[7],
					      .tv_nsec = valid & SET_MTIME_TO ? (long)number[8]
									      : UTIME_NOW };
	return utimensat(AT_FDCWD, share_proc_name(fd, name), times, 0) ? -errno : 0;
}

/* What is open for writing may be cut whatever its mode says by now. */
static int set_size(const struct share_fid *fid, u64 size)
{
	char name[12];

	if (fid->io >= 0 && fid->access != O_RDONLY)
		return ftruncate(fid->io, (off_t)size) ? -errno : 0;
	return truncate(share_proc_name(fid->node.fd, name), (off_t)size) ? -errno : 0;
}

int share_setattr(struct share_session *s, struct share_args *a, struct share_reply *reply)
{
	const struct share_node *node = &a->fid->node;
	u64 valid = a->number[0];
	int err = 0;

	(void)reply;
	if (a->fid->kind != SHARE_FILE)
		return -EINVAL;
	if (node->fd < 0)
		return -EROFS;
	if (!S_ISREG(node->type) && !S_ISDIR(node->type) && !S_ISLNK(node->type))
		return -EPERM;
	if (valid & SET_SIZE)
		err = S_ISREG(node->type) ? set_size(a->fid, a->number[4]) : -EINVAL;
	if (!err && valid & (SET_UID | SET_GID) && s->map == CONFIG_MAP_PASSTHROUGH)
		err = fchownat(node->fd, "", valid & SET_UID ? (uid_t)a->number[2] : (uid_t)-1,
			       valid & SET_GID ? (gid_t)a->number[3] : (gid_t)-1, AT_EMPTY_PATH)
			      ? -errno
			      : 0;
	if (!err && valid & (SET_MODE | SET_UID | SET_GID) && keeps_owner(s, node->type))
		err = set_owner_mapped(node, valid, a->number);
	if (!err && valid & SET_MODE)
		err = set_mode(s, node, (mode_t)a->number[1]);
	if (!err && valid & (SET_ATIME | SET_MTIME))
		err = set_times(node->fd, valid, a->number);
	/* Nothing but the time of change. */
	if (!err && valid & SET_CTIME && !(valid & ~(u64)SET_CTIME) &&
	    fchownat(node->fd, "", (uid_t)-1, (gid_t)-1, AT_EMPTY_PATH))
		err = -errno;
	return err;
}
