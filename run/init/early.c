/*
 * Before the ports are there: /proc, /sys and /dev in the initramfs, and the modules.
 */
#include "run/init/init.h"

#define MKDEV(major, minor) ((major) << 8 | (minor))

/* Kernels without devtmpfs: what programs expect. */
static void plain_dev(void)
{
	static const struct {
		const char *path;
		unsigned short mode, device;
	} nodes[] = {
		{ "/dev/null", 0666, MKDEV(1, 3) },    { "/dev/zero", 0666, MKDEV(1, 5) },
		{ "/dev/full", 0666, MKDEV(1, 7) },    { "/dev/random", 0666, MKDEV(1, 8) },
		{ "/dev/urandom", 0666, MKDEV(1, 9) }, { "/dev/kmsg", 0600, MKDEV(1, 11) },
		{ "/dev/tty", 0666, MKDEV(5, 0) },     { "/dev/console", 0600, MKDEV(5, 1) },
		{ "/dev/ptmx", 0666, MKDEV(5, 2) },
	};

	sys_mount("dev", "/dev", "tmpfs", MS_NOSUID, "mode=755");
	for (size_t i = 0; i < ARRAY_SIZE(nodes); i++)
		sys_mknod(nodes[i].path, S_IFCHR | nodes[i].mode, nodes[i].device);
}

void mount_early(void)
{
	static const char *const links[][2] = {
		{ "/proc/self/fd", "/dev/fd" },
		{ "/proc/self/fd/0", "/dev/stdin" },
		{ "/proc/self/fd/1", "/dev/stdout" },
		{ "/proc/self/fd/2", "/dev/stderr" },
	};

	SYS(umask, 0, 0, 0, 0, 0);
	sys_mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	sys_mount("sys", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	if (sys_mount("dev", "/dev", "devtmpfs", MS_NOSUID, "mode=755"))
		plain_dev();
	for (size_t i = 0; i < ARRAY_SIZE(links); i++)
		SYS(symlinkat, links[i][0], AT_FDCWD, links[i][1], 0, 0);
	sys_mkdir("/dev/pts", 0755);
	sys_mkdir("/dev/shm", 01777);
}

int node_from_sysfs(const char *dev, const char *node, unsigned int type)
{
	long n, minor, major;
	const char *end;
	char text[32];

	n = read_file(dev, text, sizeof(text));
	if (n < 0)
		return (int)n;
	for (char *c = text; *c; c++)
		if (*c == ':' || *c == '\n')
			*c = ' ';
	major = number_of(text, &end);
	minor = major < 0 ? -1 : number_of(end + 1, NULL);
	if (minor < 0)
		return -EINVAL;
	/* as the kernel packs them: new_encode_dev() of Linux include/linux/kdev_t.h */
	return sys_mknod(node, type | 0600,
			 (unsigned long)((minor & 0xff) | major << 8 | (minor & ~0xffL) << 12));
}

static const char *why_refused(int error)
{
	switch (error) {
	case ENOEXEC:
		return "built for another kernel";
	case ENOSYS:
		return "this kernel loads none (CONFIG_MODULES)";
	case ENOENT:
		return "it uses what this kernel has not";
	case EKEYREJECTED:
	case ENOKEY:
	case EPERM:
		return "this kernel wants it signed by another key";
	default:
		return error_text(error);
	}
}

const char *load_modules(const struct conf *conf)
{
	static char failed[256];
	const char *path;
	char **at = NULL;
	int fd, ret;

	while ((path = conf_next(conf, "module=", &at))) {
		ret = fd = sys_open(path, O_RDONLY);
		if (fd >= 0) {
			ret = (int)SYS(finit_module, fd, "", 0, 0, 0);
			sys_close(fd);
		}
		/* It was read: RAM again. */
		sys_unlink(path);
		/* -ENODEV: a driver whose hardware is not there, like a CPU's own checksums. */
		if (ret && ret != -EEXIST && ret != -ENODEV && !*failed)
			join(failed, sizeof(failed), path, ": ", why_refused(-ret),
			     "; the console says more; give the modules of this very kernel", NULL);
	}
	return *failed ? failed : NULL;
}
