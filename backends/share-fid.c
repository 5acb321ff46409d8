/*
 * Fids, and how names become files. A fid is a descriptor (O_PATH), not a path: what it stands for
 * stays the same whatever is renamed or replaced. One component at a time is resolved from there,
 * beneath it, on its mount, by no link; so no name leads out of the folder that is shared.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "backends/share-internal.h"

#define BENEATH (RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS)
#define TYPES	(O_ACCMODE | O_TRUNC | O_APPEND | O_DSYNC | O_SYNC) /* of a Tlopen's flags */
/* What a file may turn out to be must not make us wait, or its terminal ours. */
#define CAREFUL (O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY)

enum { QTFILE = 0, QTSYMLINK = 0x02, QTDIR = 0x80 };

static int open_beneath(int folder, const char *name, int flags, mode_t mode)
{
	const struct open_how how = { .flags = (u64)flags, .mode = mode, .resolve = BENEATH };
	long fd;

	do
		fd = syscall(SYS_openat2, folder, name, &how, sizeof(how));
	while (fd < 0 && (errno == EINTR || errno == EAGAIN));
	return fd < 0 ? -errno : (int)fd;
}

/* ---- the table ---- */

static struct share_fid **bucket_of(struct share_session *s, u32 id)
{
	return &s->fids[id % SHARE_BUCKETS];
}

struct share_fid *share_fid_find(struct share_session *s, u32 id)
{
	struct share_fid *fid = *bucket_of(s, id);

	while (fid && fid->id != id)
		fid = fid->next;
	return fid;
}

static void node_close(const struct share_node *node)
{
	if (node->fd >= 0)
		close(node->fd);
}

struct share_fid *share_fid_new(struct share_session *s, u32 id, u32 uid,
				const struct share_node *node)
{
	struct share_fid *fid = NULL, **bucket = bucket_of(s, id);

	errno = EINVAL;
	if (!share_fid_find(s, id)) {
		errno = EMFILE;
		if (s->fid_count < SHARE_FIDS)
			fid = calloc(1, sizeof(*fid));
	}
	if (!fid) {
		node_close(node);
		return NULL;
	}
	s->fid_count++;
	*fid = (struct share_fid){ .next = *bucket, .id = id, .uid = uid, .node = *node, .io = -1 };
	*bucket = fid;
	return fid;
}

void share_fid_drop(struct share_session *s, struct share_fid *fid)
{
	struct share_fid **link = bucket_of(s, fid->id);

	while (*link != fid)
		link = &(*link)->next;
	*link = fid->next;
	s->fid_count--;
	if (fid->value)
		s->xattr_bytes -= fid->size;
	if (fid->io >= 0 && fid->locked) /* the machine may have the file a while longer */
		fcntl(fid->io, F_OFD_SETLK, &(struct flock){ .l_type = F_UNLCK });
	if (fid->io >= 0 && fid->io != fid->node.fd)
		close(fid->io);
	node_close(&fid->node);
	free(fid->name);
	free(fid->value);
	free(fid);
}

void share_fids_clear(struct share_session *s)
{
	for (u32 i = 0; i < SHARE_BUCKETS; i++)
		while (s->fids[i])
			share_fid_drop(s, s->fids[i]);
}

/* ---- nodes ---- */

const char *share_proc_name(int fd, char name[12])
{
	snprintf(name, 12, "%d", fd);
	return name;
}

int share_stat(const struct share_node *node, struct stat *st)
{
	if (node->fd >= 0)
		return fstat(node->fd, st) ? -errno : 0;
	*st = (struct stat){
		.st_dev = node->dev,
		.st_ino = node->ino,
		.st_mode = node->type | (S_ISDIR(node->type) ? 0555 : 0444),
		.st_nlink = S_ISDIR(node->type) ? 2 : 1,
	};
	return 0;
}

static int node_of(int fd, struct share_node *node, struct stat *st)
{
	int err;

	node->fd = fd;
	err = share_stat(node, st);
	if (err) {
		close(fd);
		return err;
	}
	node->dev = st->st_dev;
	node->ino = st->st_ino;
	node->type = st->st_mode & S_IFMT;
	return 0;
}

/* What is mounted there is not shared; what it is mounted on cannot be seen, and is known to be a
 * folder, or not one, as the mounted is. */
static int stub(int folder, const char *name, struct share_node *node, struct stat *st)
{
	if (fstatat(folder, name, st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT))
		return -errno;
	*node = (struct share_node){
		.fd = -1,
		.dev = st->st_dev,
		.ino = st->st_ino,
		.type = S_ISDIR(st->st_mode) ? S_IFDIR : S_IFREG,
	};
	return share_stat(node, st);
}

int share_step(int folder, const char *name, struct share_node *node, struct stat *st)
{
	int fd = folder < 0 ? -ENOENT
			    : open_beneath(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);

	if (fd == -EXDEV)
		return stub(folder, name, node, st);
	return fd < 0 ? fd : node_of(fd, node, st);
}

/* Unique in the share: on btrfs and overlayfs files of one mount may have several device numbers.
 */
void share_put_qid(struct share_session *s, struct share_reply *reply, const struct stat *st)
{
	share_put(reply,
		  S_ISDIR(st->st_mode)	 ? QTDIR
		  : S_ISLNK(st->st_mode) ? QTSYMLINK
					 : QTFILE,
		  1);
	share_put(reply, (u64)(st->st_mtim.tv_sec ^ st->st_mtim.tv_nsec ^ st->st_size << 8), 4);
	share_put(reply, st->st_ino ^ (u64)(st->st_dev - s->dev) << 40, 8);
}

/* ---- attaching and walking ---- */

int share_attach(struct share_session *s, struct share_args *a, struct share_reply *reply)
{
	const char *path = a->text[1] + strspn(a->text[1], "/");
	int fd = open_beneath(SHARE_ROOT, *path ? path : ".", O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
	struct share_node node;
	struct stat st;
	int err = fd < 0 ? fd : node_of(fd, &node, &st);

	if (err)
		return err;
	if (!share_fid_new(s, (u32)a->number[0], (u32)a->number[2], &node))
		return -errno;
	share_put_qid(s, reply, &st);
	return 0;
}

/* The walked-to node becomes the new fid's, or the old one's if that is the same. */
static int arrive(struct share_session *s, struct share_fid *fid, u32 id,
		  const struct share_node *node)
{
	if (id != fid->id)
		return share_fid_new(s, id, fid->uid, node) ? 0 : -errno;
	if (fid->open) {
		node_close(node);
		return -EBADF;
	}
	node_close(&fid->node);
	fid->node = *node;
	return 0;
}

int share_walk(struct share_session *s, struct share_args *a, struct share_reply *reply)
{
	u8 *count_at = reply->at, *at = a->rest, *end = a->rest + a->rest_size;
	struct share_node node = a->fid->node, next;
	u32 count = (u32)a->number[1], done = 0;
	struct stat st;
	char *name;
	int err = 0;

	if (count > SHARE_WALK_MAX || a->fid->kind != SHARE_FILE)
		return -EINVAL;
	if (node.fd >= 0) {
		node.fd = fcntl(node.fd, F_DUPFD_CLOEXEC, 0);
		if (node.fd < 0)
			return -errno;
	}
	reply->at += 2;
	for (; done < count; done++) {
		err = share_text(&at, end, true, &name);
		if (!err)
			err = S_ISDIR(node.type) ? share_step(node.fd, name, &next, &st) : -ENOTDIR;
		if (err)
			break;
		node_close(&node);
		node = next;
		share_put_qid(s, reply, &st);
	}
	if (done == count) {
		err = arrive(s, a->fid, (u32)a->number[0], &node);
		if (err)
			return err;
	} else {
		node_close(&node);
		/* Part of the way is told, and nothing comes of it. */
		if (!done || err == -EBADMSG || err == -EINVAL)
			return err;
	}
	share_put(&(struct share_reply){ .at = count_at }, done, 2);
	return 0;
}

int share_clunk(struct share_session *s, struct share_args *a, struct share_reply *reply)
{
	int err = a->fid->kind == SHARE_XATTR_WRITE ? share_xattr_end(s, a->fid) : 0;

	(void)reply;
	share_fid_drop(s, a->fid);
	return err;
}

/* ---- opening ---- */

int share_open_fid(struct share_session *s, struct share_fid *fid, int flags)
{
	const struct share_node *node = &fid->node;
	struct stat st;
	char name[12];
	int fd;

	if (fid->open || fid->kind != SHARE_FILE)
		return -EBADF;
	flags &= TYPES;
	if (s->readonly && (flags & O_ACCMODE || flags & O_TRUNC))
		return -EROFS;
	/* FIFOs, sockets and devices of the host are not the guest's to use. */
	if (!S_ISREG(node->type) && !S_ISDIR(node->type))
		return S_ISLNK(node->type) ? -ELOOP : -EPERM;
	if (node->fd < 0) {
		if (flags & O_ACCMODE || flags & O_TRUNC)
			return -EROFS;
		fid->open = true;
		return 0;
	}
	if (S_ISDIR(node->type)) {
		if (flags & O_ACCMODE || flags & O_TRUNC)
			return -EISDIR;
		fd = open_beneath(node->fd, ".", O_DIRECTORY | CAREFUL, 0);
	} else {
		/* The link in /proc leads to the very file, which is no link itself. */
		fd = openat(AT_FDCWD, share_proc_name(node->fd, name),
			    flags | (CAREFUL & ~O_NOFOLLOW));
		fd = fd < 0 ? -errno : fd;
	}
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) || st.st_ino != node->ino || st.st_dev != node->dev ||
	    (st.st_mode & S_IFMT) != node->type) {
		close(fd);
		return -ESTALE;
	}
	fid->io = fd;
	fid->access = flags & O_ACCMODE;
	fid->open = true;
	return 0;
}

static int put_opened(struct share_session *s, struct share_fid *fid, struct share_reply *reply)
{
	struct stat st;
	int err = share_stat(&fid->node, &st);

	if (err)
		return err;
	share_put_qid(s, reply, &st);
	share_put(reply, 0, 4); /* iounit: as much as a message holds */
	return 0;
}

int share_lopen(struct share_session *s, struct share_args *a, struct share_reply *reply)
{
	int err = share_open_fid(s, a->fid, (int)a->number[0]);

	return err ? err : put_opened(s, a->fid, reply);
}

/* The folder's fid becomes the new file's. */
static void become(struct share_fid *fid, const struct share_node *node)
{
	node_close(&fid->node);
	fid->node = *node;
}

/* It is there already, and may be anything. */
static int open_existing(struct share_session *s, struct share_args *a, int flags)
{
	struct share_node node;
	struct stat st;
	int err = flags & O_EXCL ? -EEXIST : share_step(a->fid->node.fd, a->text[0], &node, &st);

	if (err)
		return err;
	become(a->fid, &node);
	return share_open_fid(s, a->fid, flags);
}

int share_lcreate(struct share_session *s, struct share_args *a, struct share_reply *reply)
{
	int flags = (int)a->number[0], folder = a->fid->node.fd, fd, err;
	mode_t mode = (mode_t)a->number[1] & 07777;
	struct share_node node;
	struct stat st;

	if (!S_ISDIR(a->fid->node.type) || a->fid->open || a->fid->kind != SHARE_FILE)
		return -EBADF;
	if (folder < 0)
		return -EROFS;
	fd = open_beneath(folder, a->text[0],
			  (flags & TYPES & ~O_TRUNC) | O_CREAT | O_EXCL | CAREFUL,
			  share_host_mode(s, mode));
	if (fd == -EEXIST) {
		err = open_existing(s, a, flags);
		return err ? err : put_opened(s, a->fid, reply);
	}
	if (fd < 0)
		return fd == -EXDEV ? -EEXIST : fd;
	err = share_own(s, fd, a->fid->uid, (u32)a->number[2], S_IFREG | mode);
	if (err) {
		unlinkat(folder, a->text[0], 0);
		close(fd);
		return err;
	}
	err = node_of(fd, &node, &st);
	if (err)
		return err;
	become(a->fid, &node);
	a->fid->io = fd;
	a->fid->access = flags & O_ACCMODE;
	a->fid->open = true;
	return put_opened(s, a->fid, reply);
}
