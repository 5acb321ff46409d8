/*
 * The modules for a kernel, by the text indexes that depmod(8) writes. They are read whole, as a
 * few hundred KiB, and looked through a line at a time: a dozen names are asked for.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "firmware/decompress.h"
#include "run/modules.h"
#include "vm/log.h"

#define INDEX_MAX  MIB(64)
#define MODULE_MAX MIB(256)
#define WANTED_MAX 256

struct modules {
	char version[KERNEL_VERSION_ROOM];
	char *kernel, *folder;		       /* folder NULL: nothing is known */
	char *dep, *softdep, *alias, *builtin; /* text; "" where there is none */
	char *wanted[WANTED_MAX];	       /* paths below the folder, in load order */
	char *names[WANTED_MAX];
	u32 count;
	struct {
		const char *path; /* in dep */
		size_t size;
	} seen[WANTED_MAX];
	u32 seen_count;
};

/* What a kernel is built with to have a module. */
static const struct {
	const char *name, *config;
} configs[] = {
	{ "virtio_pci", "CONFIG_VIRTIO_PCI" },
	{ "virtio_mmio", "CONFIG_VIRTIO_MMIO" },
	{ "virtio_blk", "CONFIG_VIRTIO_BLK" },
	{ "virtio_net", "CONFIG_VIRTIO_NET" },
	{ "virtio_console", "CONFIG_VIRTIO_CONSOLE" },
	{ "9p", "CONFIG_9P_FS" },
	{ "9pnet_virtio", "CONFIG_NET_9P_VIRTIO" },
	{ "overlay", "CONFIG_OVERLAY_FS" },
	{ "ext4", "CONFIG_EXT4_FS" },
	{ "xfs", "CONFIG_XFS_FS" },
	{ "btrfs", "CONFIG_BTRFS_FS" },
	{ "squashfs", "CONFIG_SQUASHFS and CONFIG_SQUASHFS_LZ4" },
	{ "erofs", "CONFIG_EROFS_FS" },
};

/* A file whole, NUL-terminated, for free(). -errno without a line. */
static int read_whole(const char *path, u64 most, char **bytes, u64 *size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), ret = 0;
	struct stat st;
	ssize_t n;

	*bytes = NULL;
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st))
		ret = -errno;
	else if (!S_ISREG(st.st_mode))
		ret = -EINVAL;
	else if ((u64)st.st_size > most)
		ret = -EFBIG;
	else if (!(*bytes = malloc((size_t)st.st_size + 1)))
		ret = -ENOMEM;
	for (*size = 0; !ret && *size < (u64)st.st_size; *size += (u64)n) {
		n = read(fd, *bytes + *size, (size_t)st.st_size - *size);
		if (n > 0)
			continue;
		if (n < 0)
			ret = -errno;
		break;
	}
	close(fd);
	if (ret) {
		free(*bytes);
		*bytes = NULL;
	} else {
		(*bytes)[*size] = '\0';
	}
	return ret;
}

/* The first word of text, if it can be a version. */
static bool take_version(char version[KERNEL_VERSION_ROOM], const char *text, size_t size)
{
	size_t n = 0;

	while (n < size && text[n] > ' ' && text[n] < 127 && text[n] != '/')
		n++;
	if (!n || n == size || n >= KERNEL_VERSION_ROOM || text[0] < '0' || text[0] > '9')
		return false;
	memcpy(version, text, n);
	version[n] = '\0';
	return true;
}

/* Looks through the file for the banner that every kernel has (Linux init/version.c). */
static int version_of_elf(int fd, char version[KERNEL_VERSION_ROOM])
{
	static const char banner[] = "Linux version ";
	const size_t keep = sizeof(banner) + KERNEL_VERSION_ROOM, room = MIB(1);
	char *block = malloc(room), *at;
	size_t held = 0;
	int ret = -ENODATA;
	ssize_t n;

	if (!block)
		return -ENOMEM;
	while (ret == -ENODATA && (n = read(fd, block + held, room - held)) > 0) {
		held += (size_t)n;
		for (at = block;
		     (at = memmem(at, held - (size_t)(at - block), banner, sizeof(banner) - 1));
		     at++)
			if (take_version(version, at + sizeof(banner) - 1,
					 held - (size_t)(at - block) - sizeof(banner) + 1)) {
				ret = 0;
				break;
			}
		/* One that is cut here is whole in the next block. */
		if (held > keep) {
			memmove(block, block + held - keep, keep);
			held = keep;
		}
	}
	free(block);
	return ret;
}

int kernel_version(const char *kernel, char version[KERNEL_VERSION_ROOM])
{
	int fd = open(kernel, O_RDONLY | O_CLOEXEC | O_NONBLOCK), ret = -ENODATA;
	u8 head[0x210] = { 0 };
	char text[KERNEL_VERSION_ROOM];
	ssize_t n;

	version[0] = '\0';
	n = fd < 0 ? -1 : pread(fd, head, sizeof(head), 0);
	if (n < 0) {
		ret = -errno;
		log_line("%s: cannot read the kernel: %s; check --kernel", kernel, strerror(errno));
	} else if (!memcmp(head + 0x202, "HdrS", 4)) {
		/* boot.rst, kernel_version: from 0x200 on; 0 means there is none */
		u16 offset = le16_load(head + 0x20e);

		n = offset ? pread(fd, text, sizeof(text), offset + 0x200) : 0;
		if (n > 0 && take_version(version, text, (size_t)n))
			ret = 0;
	} else if (!memcmp(head, "\177ELF", 4)) {
		ret = version_of_elf(fd, version);
	}
	if (fd >= 0)
		close(fd);
	return ret;
}

static bool same_letter(char a, char b)
{
	return a == b || (a == '-' && b == '_') || (a == '_' && b == '-');
}

/* Is it that module's name? To kmod - and _ are the same. */
static bool same_name(const char *a, size_t size, const char *name)
{
	for (size_t i = 0; i < size; i++)
		if (!name[i] || !same_letter(a[i], name[i]))
			return false;
	return !name[size];
}

/* A line's end. */
static const char *end_of(const char *line)
{
	return line + strcspn(line, "\n");
}

/* Does the path lead to that module: folder/NAME.ko, .ko.xz ...? */
static bool is_module(const char *path, size_t size, const char *name)
{
	const char *base = memrchr(path, '/', size), *dot;

	base = base ? base + 1 : path;
	dot = memmem(base, size - (size_t)(base - path), ".ko", 3);
	return dot && same_name(base, (size_t)(dot - base), name);
}

/* The line of modules.dep or modules.builtin whose first path is that module's. NULL: there is
 * none. */
static const char *find_line(const char *text, const char *name)
{
	for (const char *line = text; *line; line = *end_of(line) ? end_of(line) + 1 : "")
		if (is_module(line, strcspn(line, ":\n"), name))
			return line;
	return NULL;
}

static int add_path(struct modules *m, const char *path, size_t size)
{
	const char *base = memrchr(path, '/', size), *dot;

	base = base ? base + 1 : path;
	dot = memmem(base, size - (size_t)(base - path), ".ko", 3);
	if (m->count == WANTED_MAX || !dot)
		return -E2BIG;
	m->wanted[m->count] = strndup(path, size);
	m->names[m->count] = strndup(base, (size_t)(dot - base) + 3);
	if (!m->wanted[m->count] || !m->names[m->count])
		return -ENOMEM;
	m->count++;
	return 0;
}

static int add_named(struct modules *m, const char *name);

/* What modules.softdep says is to be loaded before (`pre:`) or behind (`post:`) a module, by names
 * or aliases; what is not there is not missed. */
static int add_soft(struct modules *m, const char *path, size_t size, const char *when)
{
	int ret = 0;

	for (const char *line = m->softdep; !ret && *line;
	     line = *end_of(line) ? end_of(line) + 1 : "") {
		const char *end = end_of(line), *word = line;
		bool counts = false;
		char name[128];
		u32 n = 0;

		for (; !ret && word < end; word += strspn(word, " ")) {
			size_t length = strcspn(word, " \n");

			n++;
			if (n == 1 && (length != 7 || memcmp(word, "softdep", 7)))
				break;
			snprintf(name, sizeof(name), "%.*s", (int)length, word);
			if (n == 2 && !is_module(path, size, name))
				break;
			if (n > 2 && name[0] && name[strlen(name) - 1] == ':')
				counts = !strcmp(name, when);
			else if (n > 2 && counts)
				ret = add_named(m, name);
			word += length;
		}
	}
	return ret;
}

/* True from the second time on that a path is asked for: dependencies may go in circles. */
static bool seen_before(struct modules *m, const char *path, size_t size)
{
	for (u32 i = 0; i < m->seen_count; i++)
		if (m->seen[i].size == size && !memcmp(m->seen[i].path, path, size))
			return true;
	if (m->seen_count < WANTED_MAX) {
		m->seen[m->seen_count].path = path;
		m->seen[m->seen_count++].size = size;
	}
	return false;
}

static int add_with_soft(struct modules *m, const char *path, size_t size)
{
	int ret;

	if (seen_before(m, path, size))
		return 0;
	ret = m->seen_count == WANTED_MAX ? -E2BIG : add_soft(m, path, size, "pre:");
	if (!ret)
		ret = add_path(m, path, size);
	return ret ? ret : add_soft(m, path, size, "post:");
}

/* A line of modules.dep: `path: dependency dependency...`, of which the last is loaded first. */
static int add_line(struct modules *m, const char *line)
{
	size_t own = strcspn(line, ":\n");
	const char *end = end_of(line), *start;
	int ret = 0;

	if (line[own] != ':')
		return 0;
	while (!ret && end > line + own + 1) {
		for (start = end; start[-1] != ' ' && start[-1] != ':'; start--)
			;
		if (start < end)
			ret = add_with_soft(m, start, (size_t)(end - start));
		end = start - 1;
	}
	return ret ? ret : add_with_soft(m, line, own);
}

/* By the module's own name, else every module that modules.alias has for it. Wildcards there are
 * for hardware. 0 too if there is none. */
static int add_named(struct modules *m, const char *name)
{
	const char *line = find_line(m->dep, name);
	int ret = 0;

	if (line)
		return add_line(m, line);
	for (line = m->alias; !ret && *line; line = *end_of(line) ? end_of(line) + 1 : "") {
		const char *alias = strchr(line, ' '), *module;
		char target[128];

		if (!alias || alias > end_of(line))
			continue;
		module = strchr(++alias, ' ');
		if (!module || !same_name(alias, (size_t)(module - alias), name))
			continue;
		module++;
		snprintf(target, sizeof(target), "%.*s", (int)strcspn(module, "\n"), module);
		module = find_line(m->dep, target);
		if (module)
			ret = add_line(m, module);
	}
	return ret;
}

static const char *config_of(const char *name)
{
	for (u32 i = 0; i < ARRAY_SIZE(configs); i++)
		if (same_name(name, strlen(name), configs[i].name))
			return configs[i].config;
	return name;
}

int modules_want(struct modules *m, const char *name, const char *needed)
{
	const char *line;
	int ret;

	if (!m->folder || find_line(m->builtin, name))
		return 0;
	line = find_line(m->dep, name);
	if (!line) {
		if (needed)
			log_line("%s: this kernel (%s) has no %s, which %s needs, neither built in "
				 "nor in %s; build it with %s",
				 m->kernel, m->version, name, needed, m->folder, config_of(name));
		return -ENOENT;
	}
	ret = add_line(m, line);
	if (ret)
		log_line("%s: the modules for %s: %s", m->folder, name,
			 ret == -ENOMEM ? "out of memory; free some"
					: "too many or damaged; run depmod");
	return ret ? ret : 1;
}

static bool has_index(const char *folder)
{
	char *path = NULL;
	bool found = asprintf(&path, "%s/modules.dep", folder) > 0 && !access(path, R_OK);

	free(path);
	return found;
}

/* An index file; not every kernel has every one. */
static int read_index(const struct modules *m, const char *name, char **text)
{
	char *path = NULL;
	u64 size;
	int ret;

	if (asprintf(&path, "%s/%s", m->folder, name) < 0)
		return -ENOMEM;
	ret = read_whole(path, INDEX_MAX, text, &size);
	if (ret == -ENOENT) {
		*text = strdup("");
		ret = *text ? 0 : -ENOMEM;
	}
	if (ret)
		log_line("%s: cannot be read: %s; run depmod, or give another folder by --modules",
			 path, strerror(-ret));
	free(path);
	return ret;
}

/* Sets m->folder, if there is one. */
static int find_folder(struct modules *m, const char *given)
{
	static const char *const places[] = { "%s", "%s/lib/modules/%s", "%s/%s" };

	for (u32 i = 0; given && i < ARRAY_SIZE(places); i++) {
		char *folder = NULL;
		int n = i == 0	 ? asprintf(&folder, "%s", given)
			: i == 1 ? asprintf(&folder, "%s/lib/modules/%s", given, m->version)
				 : asprintf(&folder, "%s/%s", given, m->version);

		if (n < 0)
			return -ENOMEM;
		if (has_index(folder)) {
			m->folder = folder;
			return 0;
		}
		free(folder);
	}
	if (given) {
		log_line("--modules %s: no modules.dep in it, nor in lib/modules/%s below it; give "
			 "the "
			 "folder that `make modules_install` made, or run depmod",
			 given, m->version);
		return -ENOENT;
	}
	if (!m->version[0])
		return 0;
	if (asprintf(&m->folder, "/lib/modules/%s", m->version) < 0)
		return -ENOMEM;
	if (!has_index(m->folder)) {
		free(m->folder);
		m->folder = NULL;
	}
	return 0;
}

int modules_open(struct modules **result, const char *kernel, const char *folder)
{
	struct modules *m = calloc(1, sizeof(*m));
	int ret = -ENOMEM;

	if (!m)
		return ret;
	m->kernel = strdup(kernel);
	if (m->kernel)
		ret = kernel_version(kernel, m->version);
	if (ret == -ENODATA && folder) {
		log_line("%s: does not tell its version, so no modules can be matched to it; start "
			 "without --modules",
			 kernel);
	} else if (ret == -ENODATA || !ret) {
		ret = find_folder(m, folder);
		if (!ret && m->folder)
			ret = read_index(m, "modules.dep", &m->dep);
		if (!ret && m->folder)
			ret = read_index(m, "modules.softdep", &m->softdep);
		if (!ret && m->folder)
			ret = read_index(m, "modules.alias", &m->alias);
		if (!ret && m->folder)
			ret = read_index(m, "modules.builtin", &m->builtin);
	}
	if (ret)
		modules_close(m);
	else
		*result = m;
	return ret;
}

bool modules_known(const struct modules *m)
{
	return m->folder != NULL;
}

const char *modules_version(const struct modules *m)
{
	return m->version;
}

u32 modules_count(const struct modules *m)
{
	return m->count;
}

const char *modules_name(const struct modules *m, u32 index)
{
	return m->names[index];
}

/* `vermagic=VERSION ...` of its .modinfo section (Linux include/linux/vermagic.h). */
static int check_version(const struct modules *m, const char *path, const u8 *bytes, u64 size)
{
	static const char key[] = "\0vermagic=";
	const char *at = memmem(bytes, size, key, sizeof(key) - 1);
	char version[KERNEL_VERSION_ROOM];

	if (size < 4 || memcmp(bytes, "\177ELF", 4)) {
		log_line("%s: not a module but something else; install the kernel's modules again",
			 path);
		return -ENOEXEC;
	}
	if (!at ||
	    !take_version(version, at + sizeof(key) - 1,
			  (size_t)((const char *)bytes + size - at) - sizeof(key) + 1) ||
	    !strcmp(version, m->version))
		return 0;
	log_line("%s: a module for %s, but %s is %s; give the modules of that one by --modules",
		 path, version, m->kernel, m->version);
	return -ENOEXEC;
}

int modules_read(const struct modules *m, u32 index, u8 **bytes, u64 *size)
{
	char *path = NULL, *packed;
	u64 packed_size;
	int ret;

	if (asprintf(&path, "%s/%s", m->folder, m->wanted[index]) < 0)
		return -ENOMEM;
	ret = read_whole(path, MODULE_MAX, &packed, &packed_size);
	if (ret)
		log_line(
			"%s: cannot be read: %s; install the kernel's modules again, or run depmod",
			path, strerror(-ret));
	else if (decompress_known((u8 *)packed, packed_size))
		ret = decompress_file(path, (u8 *)packed, packed_size, MODULE_MAX, bytes, size);
	if (!ret && !decompress_known((u8 *)packed, packed_size)) {
		*bytes = (u8 *)packed;
		*size = packed_size;
		packed = NULL;
	}
	free(packed);
	if (!ret && (ret = check_version(m, path, *bytes, *size)))
		free(*bytes);
	free(path);
	return ret;
}

void modules_close(struct modules *m)
{
	if (!m)
		return;
	for (u32 i = 0; i < WANTED_MAX; i++) {
		free(m->wanted[i]);
		free(m->names[i]);
	}
	free(m->dep);
	free(m->softdep);
	free(m->alias);
	free(m->builtin);
	free(m->folder);
	free(m->kernel);
	free(m);
}
