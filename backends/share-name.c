/*
 * What changes folders: new files, links, renaming, removing. Names are single components
 * (decode() in share-server.c), and the folder is a descriptor, so each call acts in that folder
 * alone; the kernel refuses to remove or rename what something is mounted on.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
#include "backends/share-internal.h"

static int folder_of(const struct share_fid *fid)
{
	if (fid->kind != SHARE_FILE || !S_ISDIR(fid->node.type))
		return -ENOTDIR;
	return fid->node.fd < 0 ? -EROFS : fid->node.fd;
}

/* What was just made: it gets its owner, and its qid goes out. */
static int made(struct share_session *s, struct share_fid *fid, const char *name, u32 gid,
		mode_t mode, struct share_reply *reply)
{
	struct share_node node;
	struct stat st;
	int err = share_step(fid->node.fd, name, &node, &st);

	if (err)
		return err;
	if (node.type != (mode & S_IFMT) || node.fd < 0)
		err = -ESTALE; /* somebody else was quicker to replace it */
	if (!err)
		err = share_own(s, node.fd, fid->uid, gid, mode);
	if (err && err != -ESTALE)
		unlinkat(fid->node.fd, name, S_ISDIR(mode) ? AT_REMOVEDIR : 0);
	if (!err)
		share_put_qid(s, reply, &st);
	close(node.fd);
	return err;
}

int share_symlink(struct share_session *s, struct share_args *a, struct share_reply *reply)
{
	int folder = folder_of(a->fid);

	if (folder < 0)
		return folder;
	if (symlinkat(a->text[1], folder, a->text[0]))
		return -errno;
	return made(s, a->fid, a->text[0], (u32)a->number[0], S_IFLNK | 0777, reply);
}

/* Regular files only: the others would be the host's. */
int share_mknod(struct share_session *s, struct share_args *a, struct share_reply *reply)
{
	int folder = folder_of(a->fid);
	mode_t mode = (mode_t)a->number[0];

	if (folder < 0)
		return folder;
	if (!S_ISREG(mode) && mode & S_IFMT)
		return -EPERM;
	mode = S_IFREG | (mode & 07777);
	if (mknodat(folder, a->text[0], S_IFREG | share_host_mode(s, mode & 07777), 0))
		return -errno;
	return made(s, a->fid, a->text[0], (u32)a->number[3], mode, reply);
}

int share_mkdir(struct share_session *s, struct share_args *a, struct share_reply *reply)
{
	int folder = folder_of(a->fid);
	mode_t mode = S_IFDIR | ((mode_t)a->number[0] & 07777);

	if (folder < 0)
		return folder;
	if (mkdirat(folder, a->text[0], share_host_mode(s, mode)))
		return -errno;
	return made(s, a->fid, a->text[0], (u32)a->number[1], mode, reply);
}

int share_link(struct share_session *s, struct share_args *a, struct share_reply *reply)
{
	const struct share_node *node = &a->other->node;
	int folder = folder_of(a->fid);
	char name[12];

	(void)s, (void)reply;
	if (folder < 0)
		return folder;
	if (a->other->kind != SHARE_FILE || node->fd < 0 ||
	    (!S_ISREG(node->type) && !S_ISLNK(node->type)))
		return -EPERM;
	return linkat(AT_FDCWD, share_proc_name(node->fd, name), folder, a->text[0],
		      AT_SYMLINK_FOLLOW)
		       ? -errno
		       : 0;
}

int share_renameat(struct share_session *s, struct share_args *a, struct share_reply *reply)
{
	int from = folder_of(a->fid), to = folder_of(a->other);

	(void)s, (void)reply;
	if (from < 0 || to < 0)
		return from < 0 ? from : to;
	return renameat(from, a->text[0], to, a->text[1]) ? -errno : 0;
}

int share_unlinkat(struct share_session *s, struct share_args *a, struct share_reply *reply)
{
	int folder = folder_of(a->fid);

	(void)s, (void)reply;
	if (folder < 0)
		return folder;
	return unlinkat(folder, a->text[0], (int)a->number[0] & AT_REMOVEDIR) ? -errno : 0;
}

int share_readlink(struct share_session *s, struct share_args *a, struct share_reply *reply)
{
	ssize_t n = -1;

	(void)s;
	errno = EINVAL;
	/* The largest target, 4095 bytes, fits in the smallest message but for its header. */
	if (a->fid->node.fd >= 0 && S_ISLNK(a->fid->node.type))
		n = readlinkat(a->fid->node.fd, "", (char *)reply->at + 2,
			       (size_t)(reply->end - reply->at - 2));
	if (n < 0)
		return -errno;
	share_put(reply, (u64)n, 2);
	reply->at += n;
	return 0;
}
