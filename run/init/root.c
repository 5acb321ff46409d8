/*
 * The root: mounted, a throw-away layer over it where that is wanted, the file systems that
 * programs expect in it, and / from then on. Then the shares.
 */
#include <linux/magic.h>
#include "run/init/init.h"

#define NEW_ROOT "/root"
#define LAYERS	 "/layers"  /* in the initramfs; the root's layers */
#define STAGING	 "/run/vmm" /* in the new root, while a share is mounted */
#define DISK_MS	 5000
#define DETACH	 2 /* umount2(2): MNT_DETACH */

/* cache=loose trusts that nobody else changes what was read: true of a folder that is read-only
 * here and of nobody's writing there. Else mmap, the least that shared mappings work with. */
#define OPTIONS_9P "trans=virtio,version=9p2000.L,msize=512000,cache="

static void fail(const char *kind, const char *what, const char *why, const char *mend)
{
	say_error(kind, what, ": ", why, *mend ? "; " : "", mend, NULL);
	power_off();
}

/* mkdir -p of an absolute path. 0 or -errno. */
static int make_folders(const char *path)
{
	char part[PATH_ROOM];
	int ret = 0;

	for (size_t i = 1; path[i - 1]; i++) {
		if (path[i] && path[i] != '/')
			continue;
		if (i + 1 > sizeof(part))
			return -ENAMETOOLONG;
		memcpy(part, path, i);
		part[i] = '\0';
		ret = sys_mkdir(part, 0755);
		ret = ret == -EEXIST ? 0 : ret;
	}
	return ret;
}

static const char *why_not_9p(int error)
{
	switch (error) {
	case ENODEV:
		return "this kernel has no 9p: it needs CONFIG_9P_FS and CONFIG_NET_9P_VIRTIO, "
		       "built "
		       "in or as modules, or --pack";
	case EINVAL:
	case EPROTONOSUPPORT:
		return "this kernel has no 9p over virtio: it needs CONFIG_NET_9P_VIRTIO, built in "
		       "or "
		       "as a module";
	case ENOENT:
		return "no share of this name: it needs the device, and CONFIG_VIRTIO_PCI";
	default:
		return error_text(error);
	}
}

static void mount_9p(const char *kind, const char *tag, const char *target, bool readonly)
{
	int ret = sys_mount(tag, target, "9p", readonly ? MS_RDONLY : 0,
			    readonly ? OPTIONS_9P "loose" : OPTIONS_9P "mmap");

	if (ret)
		fail(kind, tag, why_not_9p(-ret), "");
}

/* lower, with what is written in RAM, on target, which is to be `path`. The layers are in folder.
 */
static void mount_overlay(const char *path, const char *lower, const char *folder,
			  const char *target)
{
	char options[512], upper[64], work[64];
	int ret = sys_mount("layer", folder, "tmpfs", 0, "mode=755");

	if (!ret)
		ret = sys_mkdir(join(upper, sizeof(upper), folder, "/upper", NULL), 0755);
	if (!ret)
		ret = sys_mkdir(join(work, sizeof(work), folder, "/work", NULL), 0755);
	if (ret)
		fail(RUN_ERROR_OVERLAY, path, error_text(-ret), "give the guest more memory");
	ret = sys_mount("overlay", target, "overlay", 0,
			join(options, sizeof(options), "lowerdir=", lower, ",upperdir=", upper,
			     ",workdir=", work, NULL));
	if (ret == -ENODEV)
		fail(RUN_ERROR_OVERLAY, path,
		     "this kernel has no overlayfs: it needs CONFIG_OVERLAY_FS, built in or as a "
		     "module",
		     "or mount it read-only, or for writing");
	if (ret)
		fail(RUN_ERROR_OVERLAY, path, error_text(-ret), "the console may say more");
}

/* Tries the types the kernel knows, as they are told by /proc/filesystems: `nodev` is no disk's. */
static int mount_any_type(const char *device, const char *target, unsigned long flags)
{
	static char types[4096];
	int ret = -EINVAL;

	if (read_file("/proc/filesystems", types, sizeof(types)) < 0)
		return -ENODEV;
	for (char *line = types, *end; *line && ret; line = end) {
		for (end = line; *end && *end != '\n'; end++)
			;
		if (*end)
			*end++ = '\0';
		if (*line == '\t')
			ret = sys_mount(device, target, line + 1, flags, NULL);
		/* a type that finds itself there, and something wrong */
		if (ret && ret != -EINVAL)
			break;
	}
	return ret;
}

static void mount_disk(const char *words, const char *target, bool readonly)
{
	char device[256], dev[300], *type = NULL;
	unsigned long flags = readonly ? MS_RDONLY : 0;
	long since = 0;
	int ret, fd;

	join(device, sizeof(device), words, NULL);
	for (char *c = device; *c; c++)
		if (*c == ':') {
			*c = '\0';
			type = c + 1;
			break;
		}
	while ((fd = sys_open(device, O_RDONLY)) < 0 && wait_more(&since, DISK_MS))
		if (after(device, "/dev/"))
			node_from_sysfs(join(dev, sizeof(dev), "/sys/class/block/",
					     after(device, "/dev/"), "/dev", NULL),
					device, S_IFBLK);
	if (fd < 0)
		fail(RUN_ERROR_ROOT, device, error_text(-fd),
		     "a disk needs CONFIG_VIRTIO_BLK and CONFIG_VIRTIO_PCI, built in or as "
		     "modules");
	sys_close(fd);
	ret = type ? sys_mount(device, target, type, flags, NULL)
		   : mount_any_type(device, target, flags);
	if (ret == -EINVAL || (type && ret == -ENODEV))
		fail(RUN_ERROR_ROOT, device, "no file system of a type that this kernel knows",
		     type ? "its type needs a module or a CONFIG (squashfs: CONFIG_SQUASHFS_LZ4 "
			    "too)"
			  : "give its type, and a kernel with it");
	if (ret)
		fail(RUN_ERROR_ROOT, device, error_text(-ret), "check the image");
}

static void mount_root(const struct conf *conf)
{
	bool overlay = same(conf->rootmode, "overlay");
	bool readonly = !same(conf->rootmode, "rw");
	const char *target = overlay ? LAYERS "/lower" : NEW_ROOT, *of;

	sys_mkdir(NEW_ROOT, 0755);
	sys_mkdir(LAYERS, 0755);
	sys_mkdir(LAYERS "/lower", 0755);
	sys_mkdir(LAYERS "/written", 0755);
	if ((of = after(conf->root, "9p:")))
		mount_9p(RUN_ERROR_ROOT, of, target, readonly);
	else if ((of = after(conf->root, "blk:")))
		mount_disk(of, target, readonly);
	else
		fail(RUN_ERROR_ROOT, conf->root, "neither 9p: nor blk:", "");
	if (overlay)
		mount_overlay("/", target, LAYERS "/written", NEW_ROOT);
}

/* What was mounted in the initramfs, into the new root. */
static void move_in(void)
{
	static const char *const moved[] = { "/proc", "/sys", "/dev" };
	char to[32];
	int ret;

	for (size_t i = 0; i < ARRAY_SIZE(moved); i++) {
		join(to, sizeof(to), NEW_ROOT, moved[i], NULL);
		sys_mkdir(to, 0755);
		ret = sys_mount(moved[i], to, NULL, MS_MOVE, NULL);
		if (ret)
			fail(RUN_ERROR_MOUNT, moved[i], error_text(-ret),
			     "the root needs this folder, or an overlay in which it can be made");
	}
}

/* Where the root lacks the folder and cannot have it, or the kernel the file system, there is none.
 */
static void mount_expected(void)
{
	static const struct {
		const char *type, *target, *options;
		unsigned int mode;
	} mounts[] = {
		{ "devpts", "/dev/pts", "mode=620,ptmxmode=666", 0755 },
		{ "tmpfs", "/dev/shm", "mode=1777", 01777 },
		{ "tmpfs", "/run", "mode=755", 0755 },
		{ "tmpfs", "/tmp", "mode=1777", 01777 },
		{ "cgroup2", "/sys/fs/cgroup", NULL, 0755 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(mounts); i++) {
		sys_mkdir(mounts[i].target, mounts[i].mode);
		sys_mount(mounts[i].type, mounts[i].target, mounts[i].type, MS_NOSUID,
			  mounts[i].options);
	}
}

void root_enter(const struct conf *conf)
{
	int ret;

	mount_root(conf);
	move_in();
	/* As switch_root(8) does: chroot alone would leave a process whose / is not its
	 * namespace's, which user namespaces are refused to. */
	ret = sys_chdir(NEW_ROOT);
	if (!ret)
		ret = sys_mount(".", "/", NULL, MS_MOVE, NULL);
	if (!ret)
		ret = (int)SYS(chroot, ".", 0, 0, 0, 0);
	if (ret)
		fail(RUN_ERROR_ROOT, "/", error_text(-ret), "");
	sys_chdir("/");
	mount_expected();
	network_up(conf);
	if (conf->hostname)
		SYS(sethostname, conf->hostname, length(conf->hostname), 0, 0, 0);
}

/* TAG:PATH:MODE taken apart, in place in words. */
static void split_share(const char *value, char *words, const char **path, const char **mode)
{
	char *first = NULL, *last = NULL;

	join(words, PATH_ROOM, value, NULL);
	for (char *c = words; *c; c++)
		if (*c == ':') {
			first = first ? first : c;
			last = c;
		}
	if (!first || first == last || first[1] != '/')
		fail(RUN_ERROR_SHARE, value, "not TAG:/PATH:MODE", "");
	*first = *last = '\0';
	*path = first + 1;
	*mode = last + 1;
}

static void mount_share(const char *value)
{
	static const char *const staged[] = { STAGING "/lower", STAGING "/written", STAGING };
	static char words[PATH_ROOM];
	const char *path, *mode;
	int ret;

	split_share(value, words, &path, &mode);
	ret = make_folders(path);
	if (ret)
		fail(RUN_ERROR_SHARE, path, error_text(-ret),
		     "the root needs this folder, or an overlay in which it can be made");
	if (!same(mode, "overlay")) {
		mount_9p(RUN_ERROR_SHARE, words, path, !same(mode, "rw"));
		return;
	}
	for (size_t i = ARRAY_SIZE(staged); i-- > 0;)
		sys_mkdir(staged[i], 0700);
	if (words[0] == '/')
		mount_disk(words, STAGING "/lower", true);
	else
		mount_9p(RUN_ERROR_SHARE, words, STAGING "/lower", true);
	mount_overlay(path, STAGING "/lower", STAGING "/written", path);
	/* The overlay holds them; nobody else need see them. */
	for (size_t i = 0; i < ARRAY_SIZE(staged); i++) {
		SYS(umount2, staged[i], DETACH, 0, 0, 0);
		SYS(unlinkat, AT_FDCWD, staged[i], 0x200 /* AT_REMOVEDIR */, 0, 0);
	}
}

void shares_mount(const struct conf *conf)
{
	const char *value;
	char **at = NULL;

	while ((value = conf_next(conf, "share=", &at)))
		mount_share(value);
}

const char *full_folder(const struct conf *conf)
{
	const char *const folders[] = { "/", conf->cwd, "/tmp" };
	struct statfs st;

	/* an overlay tells of the layer that is written to */
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++)
		if (!SYS(statfs, folders[i], &st, 0, 0, 0) &&
		    (st.f_type == OVERLAYFS_SUPER_MAGIC || st.f_type == TMPFS_MAGIC) &&
		    st.f_bavail < st.f_blocks / 64)
			return folders[i];
	return NULL;
}

void shares_unmount(const struct conf *conf)
{
	static char words[PATH_ROOM];
	const char *value, *path, *mode;
	char **at = NULL;

	SYS(sync, 0, 0, 0, 0, 0);
	while ((value = conf_next(conf, "share=", &at))) {
		split_share(value, words, &path, &mode);
		if (same(mode, "rw"))
			SYS(umount2, path, DETACH, 0, 0, 0);
	}
	/* A disk's journal is closed, so that the image is clean. */
	if (same(conf->rootmode, "rw"))
		sys_mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
}
