/*
 * The server of a shared folder, in its process and its sandbox, from the guest's side of the
 * socket: what every operation does, on the host's files as seen from here.
 */
#include "tests/unit/share-client.h"
#include <sys/resource.h>

static int up_with(void **state, bool readonly, enum config_map map)
{
	static struct client client;

	folder_up(&client);
	serve(&client, in_folder(&client, "share"), readonly, map);
	*state = &client;
	return 0;
}

static int up(void **state)
{
	return up_with(state, false, CONFIG_MAP_SQUASH);
}

static int up_ro(void **state)
{
	return up_with(state, true, CONFIG_MAP_SQUASH);
}

static int up_mapped(void **state)
{
	return up_with(state, false, CONFIG_MAP_MAPPED);
}

static int up_passthrough(void **state)
{
	return up_with(state, false, geteuid() ? CONFIG_MAP_SQUASH : CONFIG_MAP_PASSTHROUGH);
}

static int down(void **state)
{
	unserve(*state);
	folder_down(*state);
	return 0;
}

static void agrees_on_a_version(void **state)
{
	struct client *c = *state;

	assert_true(version(c, 1u << 30, "9P2000.L"));
	assert_int_equal(got(c, 0, 4), SHARE_MSIZE);
	assert_true(version(c, 8192, "9P2000.L"));
	assert_int_equal(got(c, 0, 4), 8192);
	/* a version ends what was before it */
	assert_int_equal(walk(c, ROOT, 2, ""), -EBADF);
	assert_int_equal(attach(c, ROOT, ""), 0);
	/* no message is longer than agreed */
	assert_int_equal(truncate(in_folder(c, "share/file"), MIB(1)), 0);
	assert_int_equal(walk_open(c, 2, "file", O_RDONLY), 0);
	assert_int_equal(read_at(c, 2, 0, KIB(64)), 8192 - 11);
	assert_false(version(c, 100, "9P2000.L"));
	assert_true(version(c, 8192, "9P2000"));
	assert_memory_equal(c->in + 6, "unknown", 7);
	assert_int_equal(attach(c, ROOT, ""), -EPROTO);
}

static void walks(void **state)
{
	struct client *c = *state;
	struct attr file, inner, clone;

	assert_int_equal(walk(c, ROOT, 2, "file"), 0);
	assert_int_equal(walk(c, ROOT, 3, "sub/inner"), 0);
	assert_int_equal(getattr(c, 2, &file), 0);
	assert_int_equal(getattr(c, 3, &inner), 0);
	assert_int_equal(file.mode, S_IFREG | 0644);
	assert_int_equal(file.size, 5);
	assert_int_not_equal(file.path, inner.path);
	assert_int_equal(walk(c, 2, 4, ""), 0);
	assert_int_equal(getattr(c, 4, &clone), 0);
	assert_int_equal(clone.path, file.path);
	assert_int_equal(walk(c, ROOT, 5, "nothing"), -ENOENT);
	/* of the way that there is, so much is told, and no fid comes of it */
	assert_int_equal(walk(c, ROOT, 5, "sub/nothing"), -ENOENT);
	assert_int_equal(got(c, 0, 2), 1);
	assert_int_equal(clunk(c, 5), -EBADF);
	assert_int_equal(walk(c, ROOT, 5, "file/x"), -ENOENT);
	assert_int_equal(walk(c, ROOT, 2, "sub"), -EINVAL); /* in use */
	assert_int_equal(walk(c, ROOT, ROOT, "sub"), 0);
	assert_int_equal(walk(c, ROOT, 6, "inner"), 0);
	assert_int_equal(attach(c, 7, "/sub"), 0);
	assert_int_equal(walk(c, 7, 8, "inner"), 0);
	assert_int_equal(attach(c, 9, "/nothing"), -ENOENT);
	assert_int_equal(attach(c, 9, "/../secret"), -EXDEV);
}

static void reads_and_writes(void **state)
{
	struct client *c = *state;
	static u8 large[KIB(300)], back[KIB(300)];
	struct attr attr;
	int fd;

	for (u32 i = 0; i < sizeof(large); i++)
		large[i] = (u8)(i * 7 + i / 256);
	assert_int_equal(create(c, ROOT, 2, "new", O_RDWR | O_EXCL, 0640), 0);
	assert_int_equal(write_at(c, 2, 0, large, sizeof(large)), sizeof(large));
	assert_int_equal(read_at(c, 2, 100, sizeof(large)), sizeof(large) - 100);
	assert_memory_equal(c->in + 4, large + 100, sizeof(large) - 100);
	assert_int_equal(read_at(c, 2, MIB(1), 10), 0);
	fd = open(in_folder(c, "share/new"), O_RDONLY);
	assert_int_equal(read(fd, back, sizeof(back)), sizeof(back));
	assert_memory_equal(back, large, sizeof(back));
	close(fd);
	assert_int_equal(create(c, ROOT, 3, "new", O_RDWR | O_EXCL, 0640), -EEXIST);
	assert_int_equal(clunk(c, 3), 0);
	/* without O_EXCL it is what is there */
	assert_int_equal(create(c, ROOT, 3, "new", O_RDWR | O_TRUNC, 0640), 0);
	assert_int_equal(getattr(c, 3, &attr), 0);
	assert_int_equal(attr.size, 0);
	assert_int_equal(attr.mode, S_IFREG | 0640);
	assert_int_equal(write_at(c, 3, 0, "12345", 5), 5);
	assert_int_equal(walk_open(c, 4, "new", O_WRONLY | O_APPEND), 0);
	assert_int_equal(write_at(c, 4, 0, "678", 3), 3);
	assert_int_equal(read_at(c, 3, 0, 100), 8);
	assert_memory_equal(c->in + 4, "12345678", 8);
	assert_int_equal(read_at(c, 4, 0, 100), -EBADF);
	assert_int_equal(setattr(c, 3, 8, 0, 0, 0, 3), 0);
	assert_int_equal(getattr(c, 3, &attr), 0);
	assert_int_equal(attr.size, 3);
	start(c, TFSYNC);
	put(c, 3, 4);
	put(c, 0, 4);
	assert_int_equal(call(c), 0);
	assert_int_equal(walk_open(c, 5, "sub", O_RDWR), -EISDIR);
	assert_int_equal(walk_open(c, 5, "sub", O_RDONLY), 0);
	assert_int_equal(read_at(c, 5, 0, 100), -EISDIR);
	assert_int_equal(lopen(c, 5, O_RDONLY), -EBADF); /* once is enough */
}

/* A fid is the file, whatever becomes of its name. */
static void keeps_files_without_names(void **state)
{
	struct client *c = *state;
	struct attr attr;

	assert_int_equal(walk_open(c, 2, "file", O_RDWR), 0);
	assert_int_equal(named(c, TUNLINKAT, ROOT, "file", 0, 0), 0);
	assert_int_equal(walk(c, ROOT, 3, "file"), -ENOENT);
	assert_int_equal(write_at(c, 2, 5, " there", 6), 6);
	assert_int_equal(read_at(c, 2, 0, 100), 11);
	assert_memory_equal(c->in + 4, "hello there", 11);
	assert_int_equal(getattr(c, 2, &attr), 0);
	assert_int_equal(attr.nlink, 0);
	assert_int_equal(setattr(c, 2, 1 | 8, 0600, 0, 0, 2), 0);
	assert_int_equal(getattr(c, 2, &attr), 0);
	assert_int_equal(attr.size, 2);
	assert_int_equal(attr.mode, S_IFREG | 0600);
}

static void changes_folders(void **state)
{
	struct client *c = *state;
	struct attr attr, other;

	assert_int_equal(named(c, TMKDIR, ROOT, "made", 01755, 0), 0);
	assert_int_equal(got(c, 0, 1), 0x80);
	assert_int_equal(named(c, TMKDIR, ROOT, "made", 0755, 0), -EEXIST);
	assert_int_equal(walk(c, ROOT, 2, "made"), 0);
	assert_int_equal(getattr(c, 2, &attr), 0);
	assert_int_equal(attr.mode, S_IFDIR | 01755);
	assert_int_equal(named(c, TMKNOD, 2, "regular", S_IFREG | 0604, 0), 0);
	assert_int_equal(named(c, TMKNOD, 2, "fifo", S_IFIFO | 0600, 0), -EPERM);
	assert_int_equal(named(c, TMKNOD, 2, "null", S_IFCHR | 0600, 1), -EPERM);
	assert_int_equal(named(c, TMKNOD, 2, "disk", S_IFBLK | 0600, 8), -EPERM);
	assert_int_equal(named(c, TMKNOD, 2, "socket", S_IFSOCK | 0600, 0), -EPERM);
	start(c, TLINK);
	put(c, 2, 4);
	assert_int_equal(walk(c, ROOT, 3, "file"), 0);
	start(c, TLINK);
	put(c, 2, 4);
	put(c, 3, 4);
	put_text(c, "linked");
	assert_int_equal(call(c), 0);
	assert_int_equal(walk(c, 2, 4, "linked"), 0);
	assert_int_equal(getattr(c, 3, &attr), 0);
	assert_int_equal(getattr(c, 4, &other), 0);
	assert_int_equal(attr.path, other.path);
	assert_int_equal(other.nlink, 2);
	start(c, TLINK); /* no folder has a second name */
	put(c, ROOT, 4);
	put(c, 2, 4);
	put_text(c, "again");
	assert_int_equal(call(c), -EPERM);
	start(c, TRENAMEAT);
	put(c, 2, 4);
	put_text(c, "linked");
	put(c, ROOT, 4);
	put_text(c, "moved");
	assert_int_equal(call(c), 0);
	assert_int_equal(walk(c, ROOT, 5, "moved"), 0);
	assert_int_equal(named(c, TUNLINKAT, ROOT, "made", 0x200, 0), -ENOTEMPTY);
	assert_int_equal(named(c, TUNLINKAT, 2, "regular", 0, 0), 0);
	assert_int_equal(named(c, TUNLINKAT, ROOT, "made", 0, 0), -EISDIR);
	assert_int_equal(named(c, TUNLINKAT, ROOT, "made", 0x200, 0), 0);
	assert_int_equal(named(c, TMKDIR, 3, "x", 0755, 0), -ENOTDIR);
}

static void makes_and_reads_symlinks(void **state)
{
	struct client *c = *state;
	struct attr attr;

	start(c, TSYMLINK);
	put(c, ROOT, 4);
	put_text(c, "link");
	put_text(c, "/anywhere/at/all");
	put(c, 0, 4);
	assert_int_equal(call(c), 0);
	assert_int_equal(got(c, 0, 1), 0x02);
	assert_int_equal(walk(c, ROOT, 2, "link"), 0);
	assert_int_equal(getattr(c, 2, &attr), 0);
	assert_int_equal(attr.mode & S_IFMT, S_IFLNK);
	start(c, TREADLINK);
	put(c, 2, 4);
	assert_int_equal(call(c), 0);
	assert_int_equal(got(c, 0, 2), 16);
	assert_memory_equal(c->in + 2, "/anywhere/at/all", 16);
	assert_int_equal(lopen(c, 2, O_RDONLY), -ELOOP);
	assert_int_equal(walk(c, ROOT, 3, "file"), 0);
	start(c, TREADLINK);
	put(c, 3, 4);
	assert_int_equal(call(c), -EINVAL);
}

/* A folder's entries with the names of their files, from an offset on; returns how many. */
static u32 list(struct client *c, u32 fid, u64 *offset, u32 room, u32 most,
		void (*each)(struct client *c, const char *name))
{
	u32 count = 0, at, end;
	u64 next = *offset;
	char name[256];

	while (count < most) {
		start(c, TREADDIR);
		put(c, fid, 4);
		put(c, next, 8);
		put(c, room, 4);
		assert_int_equal(call(c), 0);
		end = (u32)got(c, 0, 4);
		assert_in_range(end, 0, room);
		if (!end)
			break;
		for (at = 4; at < end + 4 && count < most; count++) {
			u32 length = (u32)got(c, at + 22, 2);

			next = got(c, at + 13, 8);
			memcpy(name, c->in + at + 24, length);
			name[length] = '\0';
			at += 24 + length;
			if (each)
				each(c, name);
		}
	}
	*offset = next;
	return count;
}

#define MANY 100000

static u8 seen[MANY];

static void see(struct client *c, const char *name)
{
	unsigned long n;

	(void)c;
	if (*name == '.')
		return;
	n = strtoul(name + 1, NULL, 10);
	assert_in_range(n, 0, MANY - 1);
	assert_int_equal(seen[n], 0);
	seen[n] = 1;
}

/* Each entry once, though others are removed and made between, and every step begins anew. */
static void lists_large_folders(void **state)
{
	struct client *c = *state;
	u64 offset = 0, early;
	u32 total, before;
	char name[32];
	int folder;

	assert_int_equal(mkdir(in_folder(c, "share/many"), 0755), 0);
	folder = open(in_folder(c, "share/many"), O_DIRECTORY);
	for (u32 i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		close(openat(folder, name, O_CREAT | O_WRONLY, 0644));
	}
	memset(seen, 0, sizeof(seen));
	assert_int_equal(walk_open(c, 2, "many", O_RDONLY), 0);
	total = list(c, 2, &offset, KIB(128), 1000, see);
	early = offset;
	before = total;
	total += list(c, 2, &offset, 1024, 5000, see);
	/* those that were seen go; the others stay where they were */
	for (u32 i = 0; i < MANY; i++)
		if (seen[i]) {
			snprintf(name, sizeof(name), "n%u", i);
			assert_int_equal(unlinkat(folder, name, 0), 0);
		}
	total += list(c, 2, &offset, KIB(500), ~0u, see);
	assert_int_equal(total, MANY + 2);
	/* from an offset of before on, through another fid */
	memset(seen, 0, sizeof(seen));
	assert_int_equal(walk_open(c, 3, "many", O_RDONLY), 0);
	assert_int_equal(list(c, 3, &early, KIB(64), ~0u, see), total - before - 5000);
	close(folder);
}

static void tells_of_the_file_system(void **state)
{
	struct client *c = *state;

	start(c, TSTATFS);
	put(c, ROOT, 4);
	assert_int_equal(call(c), 0);
	assert_int_equal(got(c, 0, 4), 0x01021997);
	assert_true(got(c, 8, 8) > 0);
	assert_int_equal(got(c, 56, 4), 255);
}

/* ---- extended attributes ---- */

static int set_xattr(struct client *c, u32 fid, const char *name, const char *value, u32 flags)
{
	int err;

	assert_int_equal(walk(c, fid, 90, ""), 0);
	start(c, TXATTRCREATE);
	put(c, 90, 4);
	put_text(c, name);
	put(c, strlen(value), 8);
	put(c, flags, 4);
	err = call(c);
	if (!err && *value)
		assert_int_equal(write_at(c, 90, 0, value, (u32)strlen(value)), strlen(value));
	return clunk(c, 90) ?: err;
}

static int get_xattr(struct client *c, u32 fid, const char *name)
{
	int n;

	start(c, TXATTRWALK);
	put(c, fid, 4);
	put(c, 91, 4);
	put_text(c, name);
	n = call(c);
	if (n)
		return n;
	n = (int)got(c, 0, 8);
	assert_int_equal(read_at(c, 91, 0, 1000), n);
	assert_int_equal(clunk(c, 91), 0);
	assert_int_equal(got(c, 0, 0), 0);
	return n;
}

static void has_xattrs(void **state)
{
	struct client *c = *state;
	char value[16];

	if (setxattr(in_folder(c, "share/sub"), "user.probe", "x", 1, 0)) {
		print_message("skip: no user xattrs on the file system of the tests\n");
		skip();
	}
	assert_int_equal(walk(c, ROOT, 2, "file"), 0);
	assert_int_equal(set_xattr(c, 2, "user.one", "first", 0), 0);
	assert_int_equal(getxattr(in_folder(c, "share/file"), "user.one", value, 16), 5);
	assert_int_equal(set_xattr(c, 2, "user.one", "x", XATTR_CREATE), -EEXIST);
	assert_int_equal(set_xattr(c, 2, "user.two", "x", XATTR_REPLACE), -ENODATA);
	assert_int_equal(set_xattr(c, 2, "user.empty", "", 0), 0);
	assert_int_equal(get_xattr(c, 2, "user.empty"), 0);
	assert_int_equal(get_xattr(c, 2, "user.one"), 5);
	assert_int_equal(get_xattr(c, 2, "user.none"), -ENODATA);
	assert_int_equal(get_xattr(c, 2, ""), 9 + 11);
	assert_int_equal(set_xattr(c, 2, "user.one", "", XATTR_REPLACE), 0);
	assert_int_equal(get_xattr(c, 2, "user.one"), -ENODATA);
	assert_int_equal(set_xattr(c, 2, "security.capability", "x", 0), -EOPNOTSUPP);
	assert_int_equal(set_xattr(c, 2, "trusted.x", "x", 0), -EOPNOTSUPP);
	/* more than was announced, and less */
	assert_int_equal(walk(c, 2, 90, ""), 0);
	start(c, TXATTRCREATE);
	put(c, 90, 4);
	put_text(c, "user.short");
	put(c, 4, 8);
	put(c, 0, 4);
	assert_int_equal(call(c), 0);
	assert_int_equal(write_at(c, 90, 0, "12345", 5), -EINVAL);
	assert_int_equal(write_at(c, 90, 0, "123", 3), 3);
	assert_int_equal(write_at(c, 90, 2, "3", 1), -EINVAL);
	assert_int_equal(clunk(c, 90), -EINVAL);
	assert_int_equal(get_xattr(c, 2, "user.short"), -ENODATA);
}

/* ---- owners ---- */

static void squashes_owners(void **state)
{
	struct client *c = *state;
	struct attr attr;

	assert_int_equal(create(c, ROOT, 2, "new", O_RDWR, 06755), 0);
	assert_int_equal(getattr(c, 2, &attr), 0);
	assert_int_equal(attr.mode, S_IFREG | 0755); /* nobody's program to run as us */
	assert_int_equal(attr.uid, geteuid());
	assert_int_equal(setattr(c, 2, 1, 04711, 0, 0, 0), 0);
	assert_int_equal(getattr(c, 2, &attr), 0);
	assert_int_equal(attr.mode, S_IFREG | 0711);
	assert_int_equal(setattr(c, 2, 2 | 4, 0, 1234, 5678, 0), 0);
	assert_int_equal(getattr(c, 2, &attr), 0);
	assert_int_equal(attr.uid, geteuid());
	assert_int_equal(named(c, TMKDIR, ROOT, "dir", 02770, 0), 0);
	assert_int_equal(walk(c, ROOT, 3, "dir"), 0);
	assert_int_equal(getattr(c, 3, &attr), 0);
	assert_int_equal(attr.mode, S_IFDIR | 02770); /* a folder that hands on its group is none */
}

static void maps_owners(void **state)
{
	struct client *c = *state;
	struct attr attr;
	struct stat st;

	assert_int_equal(create(c, ROOT, 2, "new", O_RDWR, 06511), 0);
	assert_int_equal(getattr(c, 2, &attr), 0);
	assert_int_equal(attr.mode, S_IFREG | 06511);
	assert_int_equal(attr.uid, 0);
	assert_int_equal(stat(in_folder(c, "share/new"), &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0711);
	assert_int_equal(st.st_uid, geteuid());
	assert_int_equal(setattr(c, 2, 2 | 4, 0, 1234, 5678, 0), 0);
	assert_int_equal(getattr(c, 2, &attr), 0);
	assert_int_equal(attr.uid, 1234);
	assert_int_equal(attr.gid, 5678);
	assert_int_equal(attr.mode, S_IFREG | 0511); /* chown(2) takes set-id bits */
	assert_int_equal(setattr(c, 2, 1, 04700, 0, 0, 0), 0);
	assert_int_equal(getattr(c, 2, &attr), 0);
	assert_int_equal(attr.mode, S_IFREG | 04700);
	assert_int_equal(stat(in_folder(c, "share/new"), &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0700);
	/* one that the host made is as it is, until it is changed */
	assert_int_equal(walk(c, ROOT, 3, "file"), 0);
	assert_int_equal(setattr(c, 3, 2, 0, 77, 0, 0), 0);
	assert_int_equal(getattr(c, 3, &attr), 0);
	assert_int_equal(attr.uid, 77);
	assert_int_equal(attr.mode, S_IFREG | 0644);
	/* the guest does not see how */
	assert_int_equal(get_xattr(c, 3, ""), 0);
	assert_int_equal(get_xattr(c, 3, "user.vmm.attr"), -ENODATA);
	assert_int_equal(set_xattr(c, 3, "user.vmm.attr", "x", 0), -EPERM);
}

static void passes_owners_through(void **state)
{
	struct client *c = *state;
	struct attr attr;
	struct stat st;

	if (geteuid()) {
		print_message("skip: only root may give files away\n");
		skip();
	}
	assert_int_equal(create(c, ROOT, 2, "new", O_RDWR, 04755), 0);
	assert_int_equal(setattr(c, 2, 2 | 4, 0, 1234, 5678, 0), 0);
	assert_int_equal(setattr(c, 2, 1, 04751, 0, 0, 0), 0);
	assert_int_equal(stat(in_folder(c, "share/new"), &st), 0);
	assert_int_equal(st.st_uid, 1234);
	assert_int_equal(st.st_gid, 5678);
	assert_int_equal(st.st_mode, S_IFREG | 04751);
	assert_int_equal(getattr(c, 2, &attr), 0);
	assert_int_equal(attr.uid, 1234);
	/* who attached owns what is made */
	start(c, TATTACH);
	put(c, 10, 4);
	put(c, NO_FID, 4);
	put_text(c, "");
	put_text(c, "");
	put(c, 4321, 4);
	assert_int_equal(call(c), 0);
	assert_int_equal(named(c, TMKDIR, 10, "dir", 0750, 8765), 0);
	assert_int_equal(stat(in_folder(c, "share/dir"), &st), 0);
	assert_int_equal(st.st_uid, 4321);
	assert_int_equal(st.st_gid, 8765);
}

/* ---- read-only ---- */

static void changes_nothing_if_read_only(void **state)
{
	struct client *c = *state;

	assert_int_equal(create(c, ROOT, 2, "new", O_RDWR, 0644), -EROFS);
	assert_int_equal(clunk(c, 2), 0);
	assert_int_equal(walk_open(c, 2, "file", O_RDWR), -EROFS);
	assert_int_equal(walk_open(c, 2, "file", O_WRONLY), -EROFS);
	assert_int_equal(walk_open(c, 2, "file", O_RDONLY | O_TRUNC), -EROFS);
	assert_int_equal(walk_open(c, 2, "file", O_RDONLY), 0);
	assert_int_equal(write_at(c, 2, 0, "x", 1), -EBADF);
	assert_int_equal(read_at(c, 2, 0, 100), 5);
	assert_int_equal(setattr(c, 2, 1, 0777, 0, 0, 0), -EROFS);
	assert_int_equal(setattr(c, 2, 8, 0, 0, 0, 0), -EROFS);
	assert_int_equal(named(c, TMKDIR, ROOT, "x", 0755, 0), -EROFS);
	assert_int_equal(named(c, TMKNOD, ROOT, "x", S_IFREG | 0755, 0), -EROFS);
	assert_int_equal(named(c, TUNLINKAT, ROOT, "file", 0, 0), -EROFS);
	start(c, TRENAMEAT);
	put(c, ROOT, 4);
	put_text(c, "file");
	put(c, ROOT, 4);
	put_text(c, "moved");
	assert_int_equal(call(c), -EROFS);
	start(c, TLINK);
	put(c, ROOT, 4);
	put(c, 2, 4);
	put_text(c, "linked");
	assert_int_equal(call(c), -EROFS);
	start(c, TSYMLINK);
	put(c, ROOT, 4);
	put_text(c, "link");
	put_text(c, "file");
	put(c, 0, 4);
	assert_int_equal(call(c), -EROFS);
	assert_int_equal(set_xattr(c, 2, "user.x", "x", 0), -EROFS);
	start(c, TFSYNC);
	put(c, 2, 4);
	put(c, 0, 4);
	assert_int_equal(call(c), 0);
}

/* ---- locks ---- */

static int lock(struct client *c, u32 fid, u8 type, u64 at, u64 length)
{
	start(c, TLOCK);
	put(c, fid, 4);
	put(c, type, 1);
	put(c, 0, 4);
	put(c, at, 8);
	put(c, length, 8);
	put(c, 1, 4);
	put_text(c, "guest");
	assert_int_equal(call(c), 0);
	return (int)got(c, 0, 1);
}

/* Seen by the host and by other guests; between its own processes the guest arbitrates. */
static void locks(void **state)
{
	struct client *c = *state, other = { .tag = 0 };

	serve(&other, in_folder(c, "share"), false, CONFIG_MAP_SQUASH);
	assert_int_equal(walk_open(c, 2, "file", O_RDWR), 0);
	assert_int_equal(walk_open(c, 3, "file", O_RDWR), 0);
	assert_int_equal(walk_open(&other, 2, "file", O_RDWR), 0);
	assert_int_equal(lock(c, 2, 1, 0, 10), 0);
	assert_int_equal(lock(c, 3, 1, 5, 10), 0);
	assert_int_equal(lock(&other, 2, 0, 0, 1), 1);
	assert_int_equal(lock(&other, 2, 1, 20, 1), 0);
	start(&other, TGETLOCK);
	put(&other, 2, 4);
	put(&other, 0, 1);
	put(&other, 0, 8);
	put(&other, 1, 8);
	put(&other, 1, 4);
	put_text(&other, "other");
	assert_int_equal(call(&other), 0);
	assert_int_equal(got(&other, 0, 1), 1);
	assert_int_equal(lock(c, 2, 2, 0, 10), 0);
	assert_int_equal(lock(&other, 2, 0, 0, 1), 0);
	unserve(&other);
}

/* The machine gets the file that the server has open, no more and no less. */
static void lends_files(void **state)
{
	struct client *c = *state, other = { .tag = 0 };
	char text[16];
	int fd;

	assert_int_equal(walk_open(c, 2, "file", O_RDONLY), 0);
	fd = lend(c, 2);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, text, sizeof(text), 0), 5);
	assert_memory_equal(text, "hello", 5);
	assert_int_equal(pwrite(fd, text, 5, 0), -1);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
	assert_int_equal(read_at(c, 2, 0, 5), 5);
	/* whoever reads it may wait; what is behind its end goes there */
	assert_int_equal(walk_open(c, 3, "file", O_WRONLY | O_APPEND), 0);
	fd = lend(c, 3);
	assert_int_equal(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK),
			 O_WRONLY | O_APPEND);
	assert_int_equal(pwrite(fd, " you", 4, 0), 4);
	assert_int_equal(read_at(c, 2, 0, 20), 9);
	/* a lock ends with the fid, not with what was lent */
	serve(&other, in_folder(c, "share"), false, CONFIG_MAP_SQUASH);
	assert_int_equal(walk_open(&other, 2, "file", O_RDWR), 0);
	assert_int_equal(lock(c, 3, 1, 0, 10), 0);
	assert_int_equal(lock(&other, 2, 1, 0, 10), 1);
	assert_int_equal(clunk(c, 3), 0);
	assert_int_equal(lock(&other, 2, 1, 0, 10), 0);
	unserve(&other);
	close(fd);
	/* nothing but regular files, and open ones */
	assert_int_equal(lend(c, 3), -EBADF);
	assert_int_equal(lend(c, ROOT), -EBADF);
	assert_int_equal(lopen(c, ROOT, O_RDONLY), 0);
	assert_int_equal(lend(c, ROOT), -EBADF);
	assert_int_equal(walk(c, 2, 4, ""), 0);
	assert_int_equal(lend(c, 4), -EBADF);
	start(c, TXATTRWALK);
	put(c, 4, 4);
	put(c, 5, 4);
	put_text(c, "");
	if (!call(c)) /* not every file system has them */
		assert_int_equal(lend(c, 5), -EBADF);
}

/* ---- syncing beside the rest ---- */

static void flushes_in_order(void **state)
{
	struct client *c = *state;
	u16 tag, sync_tag, flush_tag;
	bool synced = false, flushed = false;

	assert_int_equal(walk_open(c, 2, "file", O_RDWR), 0);
	for (int i = 0; i < 200; i++) {
		start(c, TFSYNC);
		put(c, 2, 4);
		put(c, 0, 4);
		c->out[0] = (u8)c->length;
		sync_tag = c->tag;
		assert_true(send_out(c));
		start(c, TFLUSH);
		put(c, sync_tag, 2);
		c->out[0] = (u8)c->length;
		flush_tag = c->tag;
		assert_true(send_out(c));
		for (synced = flushed = false; !synced || !flushed;) {
			assert_true(receive(c, &tag));
			if (tag == sync_tag) {
				assert_false(flushed);
				synced = true;
			} else {
				assert_int_equal(tag, flush_tag);
				flushed = true;
			}
		}
	}
}

#define test(name, setup) cmocka_unit_test_setup_teardown(name, setup, down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(agrees_on_a_version, up),
		test(walks, up),
		test(walks, up_ro),
		test(reads_and_writes, up),
		test(lends_files, up),
		test(reads_and_writes, up_mapped),
		test(reads_and_writes, up_passthrough),
		test(keeps_files_without_names, up),
		test(keeps_files_without_names, up_mapped),
		test(changes_folders, up),
		test(changes_folders, up_mapped),
		test(changes_folders, up_passthrough),
		test(makes_and_reads_symlinks, up),
		test(makes_and_reads_symlinks, up_mapped),
		test(makes_and_reads_symlinks, up_passthrough),
		test(lists_large_folders, up),
		test(tells_of_the_file_system, up),
		test(has_xattrs, up),
		test(squashes_owners, up),
		test(maps_owners, up_mapped),
		test(passes_owners_through, up_passthrough),
		test(changes_nothing_if_read_only, up_ro),
		test(locks, up),
		test(flushes_in_order, up),
	};

	umask(022);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
