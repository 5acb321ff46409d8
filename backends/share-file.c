/*
 * What is done with open files and folders of a share. Locks are told to the host as well as they
 * can be: the guest's kernel arbitrates between its own processes before it asks.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/socket.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "backends/descriptor.h"
#include "backends/share-internal.h"

#define ENTRY 24u /* of a folder's, without the name: qid[13] offset[8] type[1] name[s] */

enum { LOCK_SUCCESS, LOCK_BLOCKED, LOCK_ERROR };
enum { LOCK_RDLCK, LOCK_WRLCK, LOCK_UNLCK };

static u32 room(const struct share_reply *reply, u64 count)
{
	u64 left = (u64)(reply->end - reply->at) - 4;

	return (u32)(count < left ? count : left);
}

int share_read(struct share_session *s, struct share_args *a, struct share_reply *reply)
{
	struct share_fid *fid = a->fid;
	u32 count = room(reply, a->number[1]);
	off64_t offset = (off64_t)a->number[0];
	ssize_t n = 0;

	(void)s;
	if (fid->kind == SHARE_XATTR_READ)
		return share_xattr_read(fid, a->number[0], count, reply);
	if (!fid->open || S_ISDIR(fid->node.type))
		return fid->open ? -EISDIR : -EBADF;
	if (fid->io >= 0)
		do
			n = pread(fid->io, reply->at + 4, count, offset);
		while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	share_put(reply, (u64)n, 4);
	reply->at += n;
	return 0;
}

int share_write(struct share_session *s, struct share_args *a, struct share_reply *reply)
{
	struct share_fid *fid = a->fid;
	u32 count = (u32)a->number[1];
	ssize_t n;

	(void)s;
	if (count > a->rest_size)
		return -EBADMSG;
	if (fid->kind == SHARE_XATTR_WRITE) {
		n = share_xattr_write(fid, a->number[0], a->rest, count);
		if (n < 0)
			return (int)n;
	} else {
		if (!fid->open || fid->io < 0)
			return -EBADF;
		n = 0;
		if (count)
			do
				n = pwrite(fid->io, a->rest, count, (off_t)a->number[0]);
			while (n < 0 && errno == EINTR);
		if (n < 0)
			return -errno;
	}
	share_put(reply, (u64)n, 4);
	return 0;
}

/* To the machine, which then reads and writes it as we would, waiting where that is needed. */
int share_lend(struct share_session *s, struct share_args *a, struct share_reply *reply)
{
	static const u8 nothing;
	const struct share_fid *fid = a->fid;
	int flags;

	(void)s, (void)reply;
	if (!fid->open || fid->io < 0 || !S_ISREG(fid->node.type))
		return -EBADF;
	flags = fcntl(fid->io, F_GETFL);
	if (flags < 0 || fcntl(fid->io, F_SETFL, flags & ~O_NONBLOCK))
		return -errno;
	return descriptor_send(SHARE_FILES, &nothing, sizeof(nothing), fid->io, MSG_DONTWAIT);
}

int share_fsync(struct share_session *s, struct share_args *a, struct share_reply *reply)
{
	(void)reply;
	if (!a->fid->open)
		return -EBADF;
	/* A read-only share has nothing to write, and no second thread. */
	return a->fid->io < 0 || s->readonly ? 0 : share_sync(s, a->fid->io, a->number[0] != 0);
}

/* ---- folders ---- */

static u8 qid_type(u8 type)
{
	return type == DT_DIR ? 0x80 : type == DT_LNK ? 0x02 : 0;
}

/* An entry's offset is where the kernel goes on behind it; its file system keeps that valid
 * whatever else is made or removed. */
int share_readdir(struct share_session *s, struct share_args *a, struct share_reply *reply)
{
	static u8 entries[KIB(64)] __attribute__((aligned(8)));
	struct share_fid *fid = a->fid;
	u8 *start = reply->at, *end = start + 4 + room(reply, a->number[1]);
	size_t most =
		(size_t)(end - start) < sizeof(entries) ? (size_t)(end - start) : sizeof(entries);
	ssize_t n = 0;

	(void)s;
	if (!fid->open || !S_ISDIR(fid->node.type))
		return fid->open ? -ENOTDIR : -EBADF;
	if (fid->io >= 0 && fid->position != a->number[0] &&
	    lseek(fid->io, (off_t)a->number[0], SEEK_SET) < 0)
		return -errno;
	if (fid->io >= 0)
		n = getdents64(fid->io, entries, most);
	if (n < 0)
		return -errno;
	fid->position = a->number[0];
	reply->at += 4;
	for (ssize_t at = 0; at < n;) {
		const struct dirent64 *entry = (const struct dirent64 *)(entries + at);
		size_t length = strlen(entry->d_name);

		if ((size_t)(end - reply->at) < ENTRY + length) {
			if (reply->at == start + 4)
				return -EINVAL;
			/* The rest once more: the kernel is further than the guest. */
			lseek(fid->io, (off_t)fid->position, SEEK_SET);
			break;
		}
		share_put(reply, qid_type(entry->d_type), 1);
		share_put(reply, 0, 4);
		share_put(reply, entry->d_ino, 8);
		share_put(reply, (u64)entry->d_off, 8);
		share_put(reply, entry->d_type, 1);
		share_put_text(reply, entry->d_name, length);
		fid->position = (u64)entry->d_off;
		at += entry->d_reclen;
	}
	share_put(&(struct share_reply){ .at = start }, (u64)(reply->at - start) - 4, 4);
	return 0;
}

/* ---- locks ---- */

static struct flock flock_of(u64 type, u64 start, u64 length)
{
	return (struct flock){
		.l_type = type == LOCK_RDLCK   ? F_RDLCK
			  : type == LOCK_WRLCK ? F_WRLCK
					       : F_UNLCK,
		.l_whence = SEEK_SET,
		.l_start = (off_t)start,
		.l_len = (off_t)length,
	};
}

/* Does another fid of ours hold a lock on this file? The guest's kernel has seen to it that the two
 * agree. */
static bool locked_by_guest(const struct share_session *s, const struct share_fid *mine)
{
	for (u32 i = 0; i < SHARE_BUCKETS; i++)
		for (const struct share_fid *fid = s->fids[i]; fid; fid = fid->next)
			if (fid != mine && fid->locked && fid->node.ino == mine->node.ino &&
			    fid->node.dev == mine->node.dev)
				return true;
	return false;
}

int share_lock(struct share_session *s, struct share_args *a, struct share_reply *reply)
{
	struct share_fid *fid = a->fid;
	struct flock lock = flock_of(a->number[0], a->number[2], a->number[3]);
	u32 status = LOCK_SUCCESS;

	if (!fid->open || a->number[0] > LOCK_UNLCK)
		return fid->open ? -EINVAL : -EBADF;
	if (fid->io >= 0 && fcntl(fid->io, F_OFD_SETLK, &lock) < 0) {
		if (errno == EAGAIN || errno == EACCES)
			status = locked_by_guest(s, fid) ? LOCK_SUCCESS : LOCK_BLOCKED;
		else if (errno != EBADF) /* flock(2) locks what is not open for writing, too */
			status = LOCK_ERROR;
	} else if (lock.l_type != F_UNLCK) {
		fid->locked = true;
	}
	share_put(reply, status, 1);
	return 0;
}

int share_getlock(struct share_session *s, struct share_args *a, struct share_reply *reply)
{
	struct flock lock = flock_of(a->number[0], a->number[1], a->number[2]);

	if (!a->fid->open || a->number[0] > LOCK_UNLCK)
		return a->fid->open ? -EINVAL : -EBADF;
	if (a->fid->io < 0 || fcntl(a->fid->io, F_OFD_GETLK, &lock) < 0 ||
	    (lock.l_type != F_UNLCK && locked_by_guest(s, a->fid)))
		lock.l_type = F_UNLCK;
	share_put(reply,
		  lock.l_type == F_RDLCK   ? LOCK_RDLCK
		  : lock.l_type == F_WRLCK ? LOCK_WRLCK
					   : LOCK_UNLCK,
		  1);
	share_put(reply, (u64)lock.l_start, 8);
	share_put(reply, (u64)lock.l_len, 8);
	share_put(reply, a->number[3], 4);
	share_put_text(reply, a->text[0], strnlen(a->text[0], SHARE_NAME_MAX));
	return 0;
}

/* ---- the file system ---- */

int share_statfs(struct share_session *s, struct share_args *a, struct share_reply *reply)
{
	int fd = a->fid->node.fd < 0 ? SHARE_ROOT : a->fid->node.fd;
	struct statfs fs;

	(void)s;
	if (fstatfs(fd, &fs))
		return -errno;
	share_put(reply, V9FS_MAGIC, 4);
	share_put(reply, (u64)fs.f_bsize, 4);
	share_put(reply, fs.f_blocks, 8);
	share_put(reply, fs.f_bfree, 8);
	share_put(reply, fs.f_bavail, 8);
	share_put(reply, fs.f_files, 8);
	share_put(reply, fs.f_ffree, 8);
	share_put(reply, 0, 8);
	share_put(reply, (u64)fs.f_namelen, 4);
	return 0;
}
