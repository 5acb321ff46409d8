/*
 * Which folders of the host the guest has, and where: the root, the current folder if it is not in
 * that, what --rw names. A share never crosses a mount point, and the guest mounts over /tmp, /run
 * and the like, so what lies there is shared by itself. Main thread, before the sandbox.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "run/setup.h"
#include "vm/log.h"

/* The mount a path is on; 0 where the kernel does not tell (before 5.8) or it is not there. */
static u64 mount_of(const char *path)
{
	struct statx st;

	return !statx(AT_FDCWD, path, 0, STATX_MNT_ID, &st) && st.stx_mask & STATX_MNT_ID
		       ? st.stx_mnt_id
		       : 0;
}

/* Does a contain b, or is it b? */
static bool contains(const char *a, const char *b)
{
	size_t n = strlen(a);

	return !strncmp(a, b, n) && (!b[n] || b[n] == '/' || n == 1);
}

/* Where the guest has file systems of its own. */
static bool is_guests_own(const char *path)
{
	static const char *const own[] = { "/tmp", "/run", "/proc", "/sys", "/dev" };

	for (size_t i = 0; i < ARRAY_SIZE(own); i++)
		if (contains(own[i], path))
			return true;
	return false;
}

static int add(struct setup *setup, const char *path, const char *host, bool writable)
{
	struct setup_share *share;

	for (u32 i = 0; i < setup->share_count; i++)
		if (!strcmp(setup->shares[i].path, path)) {
			setup->shares[i].writable |= writable;
			return 0;
		}
	if (setup->share_count == SETUP_SHARES) {
		log_line("--rw %s: one folder too many; give up to %u", path, CONFIG_MAX_RW);
		return -E2BIG;
	}
	share = &setup->shares[setup->share_count];
	share->path = strdup(path);
	share->host = host ? strdup(host) : NULL;
	share->writable = writable;
	if (!share->path || (host && !share->host)) {
		free(share->path);
		free(share->host);
		log_line("shares: out of memory; free some");
		return -ENOMEM;
	}
	setup->share_count++;
	return 0;
}

/* A folder that the guest is to see at its own path: with it, what is above it on its mount, but
 * for what lies beneath the guest's own. */
static int add_seen(struct setup *setup, const char *path, bool host_root)
{
	char top[sizeof(setup->here)], above[sizeof(setup->here)];
	u64 mount = mount_of(path);

	snprintf(top, sizeof(top), "%s", path);
	if (!host_root || is_guests_own(path))
		return add(setup, top, NULL, false);
	while (top[1]) {
		char *slash;

		snprintf(above, sizeof(above), "%s", top);
		slash = strrchr(above, '/');
		slash[slash == above] = '\0';
		if (!mount || mount_of(above) != mount)
			break;
		memcpy(top, above, sizeof(top));
	}
	return top[1] ? add(setup, top, NULL, false) : 0; /* "/": it is there already */
}

static int add_writable(struct setup *setup, const char *given)
{
	char *path = realpath(given, NULL);
	struct stat st;
	int error = 0;

	if (!path || stat(path, &st))
		error = -errno;
	else if (!S_ISDIR(st.st_mode))
		error = -ENOTDIR;
	if (error)
		log_line("--rw %s: %s; give a folder", given, strerror(-error));
	else if (!path[1]) {
		log_line("--rw /: the guest would write to the host's whole root; give the folders "
			 "that it must");
		error = -EINVAL;
	}
	if (!error)
		error = add(setup, path, NULL, true);
	free(path);
	return error;
}

static int by_path(const void *a, const void *b)
{
	const struct setup_share *first = a, *second = b;

	return strcmp(first->path, second->path);
}

/* What is seen only, and lies in what may be written to, is that. */
static void drop_covered(struct setup *setup)
{
	struct setup_share *shares = setup->shares;
	u32 kept = 0;

	for (u32 i = 0; i < setup->share_count; i++) {
		bool covered = false;

		for (u32 j = 0; j < setup->share_count && !shares[i].writable; j++)
			covered |= shares[j].writable && shares[i].path[1] &&
				   contains(shares[j].path, shares[i].path) &&
				   mount_of(shares[j].path) == mount_of(shares[i].path);
		if (covered) {
			free(shares[i].path);
			free(shares[i].host);
		} else {
			shares[kept++] = shares[i];
		}
	}
	setup->share_count = kept;
}

/* The root, a folder or an image: is it the host's own? */
static int find_root(struct setup *setup, const struct config *config, bool *host_root)
{
	const char *root = config->run.root ? config->run.root : "/";
	char *path = realpath(root, NULL);
	struct stat st;
	int error = 0;

	*host_root = false;
	if (!path || stat(path, &st))
		error = -errno;
	else if (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode))
		setup->image = true;
	else if (!S_ISDIR(st.st_mode))
		error = -EINVAL;
	if (error) {
		log_line("--root %s: %s; give a folder or a disk image", root, strerror(-error));
	} else if (!setup->image) {
		*host_root = !path[1];
		error = add(setup, "/", *host_root ? NULL : path, false);
	}
	free(path);
	return error;
}

int setup_shares(struct setup *setup, const struct config *config)
{
	/* where programs are, if that is a mount of its own */
	static const char *const programs[] = { "/usr", "/opt", "/nix" };
	const char *seen = config->run.cwd ? config->run.cwd : setup->here;
	bool host_root;
	int error = find_root(setup, config, &host_root);

	if (!error && !getcwd(setup->here, sizeof(setup->here))) {
		error = -errno;
		log_line("the current folder: %s; go to another", strerror(errno));
	}
	for (size_t i = 0; i < ARRAY_SIZE(programs) && !error && host_root; i++)
		if (mount_of(programs[i]) && mount_of(programs[i]) != mount_of("/"))
			error = add_seen(setup, programs[i], true);
	setup->cwd = config->run.cwd ? config->run.cwd : setup->image ? "/" : setup->here;
	if (!host_root || access(seen, X_OK))
		seen = setup->here;
	if (!error && !setup->image && seen[1])
		error = add_seen(setup, seen, host_root);
	for (u32 i = 0; i < config->run.rw_count && !error; i++)
		error = add_writable(setup, config->run.rw[i]);
	drop_covered(setup);
	/* those above come first */
	qsort(setup->shares, setup->share_count, sizeof(setup->shares[0]), by_path);
	return error;
}

void setup_free(struct setup *setup)
{
	while (setup->share_count) {
		setup->share_count--;
		free(setup->shares[setup->share_count].path);
		free(setup->shares[setup->share_count].host);
	}
}
