/*
 * Extended attributes of a share. The guest may read those that the server's user may, but our own;
 * it may change those of the user namespace, and with map=passthrough what the host lets it.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/xattr.h>
#include "backends/share-internal.h"

#define VALUE_MOST KIB(64) /* the kernel's limit */

static bool has_some(const struct share_node *node)
{
	return node->fd >= 0 && (S_ISREG(node->type) || S_ISDIR(node->type) || S_ISLNK(node->type));
}

static bool is_ours(const struct share_session *s, const char *name)
{
	return s->map == CONFIG_MAP_MAPPED && !strcmp(name, SHARE_ATTR);
}

/* Takes our own out of a list of names; returns its length. */
static u32 without_ours(const struct share_session *s, u8 *list, u32 length)
{
	for (u32 at = 0, n; at < length; at += n) {
		n = (u32)strlen((char *)list + at) + 1;
		if (is_ours(s, (char *)list + at)) {
			memmove(list + at, list + at + n, length - at - n);
			return length - n;
		}
	}
	return length;
}

/* Makes room for a value in the fid; 0 or -errno. */
static int make_room(struct share_session *s, struct share_fid *fid, u64 size)
{
	if (size > VALUE_MOST)
		return -E2BIG;
	if (s->xattr_bytes + size > SHARE_XATTRS)
		return -ENOSPC;
	fid->value = malloc(size ? size : 1);
	if (!fid->value)
		return -ENOMEM;
	fid->size = (u32)size;
	s->xattr_bytes += size;
	return 0;
}

/* A new fid, from which the value (or, without a name, the list of names) is read. */
int share_xattrwalk(struct share_session *s, struct share_args *a, struct share_reply *reply)
{
	static u8 value[VALUE_MOST];
	const struct share_node none = { .fd = -1 };
	const char *name = a->text[0];
	struct share_fid *fid;
	char path[12];
	ssize_t n;
	int err;

	if (!has_some(&a->fid->node) || a->fid->kind != SHARE_FILE)
		return -EOPNOTSUPP;
	if (is_ours(s, name))
		return -ENODATA;
	share_proc_name(a->fid->node.fd, path);
	n = *name ? getxattr(path, name, value, sizeof(value))
		  : listxattr(path, (char *)value, sizeof(value));
	if (n < 0)
		return -errno;
	if (!*name)
		n = without_ours(s, value, (u32)n);
	fid = share_fid_new(s, (u32)a->number[0], a->fid->uid, &none);
	if (!fid)
		return -errno;
	err = make_room(s, fid, (u64)n);
	if (err) {
		share_fid_drop(s, fid);
		return err;
	}
	memcpy(fid->value, value, (size_t)n);
	fid->kind = SHARE_XATTR_READ;
	share_put(reply, (u64)n, 8);
	return 0;
}

int share_xattr_read(struct share_fid *fid, u64 offset, u32 count, struct share_reply *reply)
{
	u32 left = offset < fid->size ? fid->size - (u32)offset : 0;

	if (count > left)
		count = left;
	share_put(reply, count, 4);
	memcpy(reply->at, fid->value + (left ? offset : 0), count);
	reply->at += count;
	return 0;
}

/* The fid becomes the attribute's; it is set when the fid ends. */
int share_xattrcreate(struct share_session *s, struct share_args *a, struct share_reply *reply)
{
	struct share_fid *fid = a->fid;
	int err;

	(void)reply;
	if (fid->kind != SHARE_FILE || fid->open)
		return -EBADF;
	if (!has_some(&fid->node) ||
	    (s->map != CONFIG_MAP_PASSTHROUGH && strncmp(a->text[0], "user.", 5)))
		return -EOPNOTSUPP;
	if (is_ours(s, a->text[0]))
		return -EPERM;
	if (a->number[1] & ~(u64)(XATTR_CREATE | XATTR_REPLACE))
		return -EINVAL;
	fid->name = strdup(a->text[0]);
	err = fid->name ? make_room(s, fid, a->number[0]) : -ENOMEM;
	if (err) {
		free(fid->name);
		fid->name = NULL;
		return err;
	}
	fid->flags = (int)a->number[1];
	fid->kind = SHARE_XATTR_WRITE;
	return 0;
}

int share_xattr_write(struct share_fid *fid, u64 offset, const u8 *bytes, u32 count)
{
	if (offset != fid->filled || count > fid->size - fid->filled)
		return -EINVAL;
	memcpy(fid->value + fid->filled, bytes, count);
	fid->filled += count;
	return (int)count;
}

/* Linux removes an attribute by replacing it with nothing. */
int share_xattr_end(struct share_session *s, struct share_fid *fid)
{
	char path[12];
	int ret;

	(void)s;
	if (fid->filled != fid->size)
		return -EINVAL;
	share_proc_name(fid->node.fd, path);
	if (!fid->size && fid->flags & XATTR_REPLACE)
		ret = removexattr(path, fid->name);
	else
		ret = setxattr(path, fid->name, fid->value, fid->size, fid->flags);
	return ret ? -errno : 0;
}
