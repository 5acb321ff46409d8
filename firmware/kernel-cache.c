/*
 * Unpacked kernels, kept: see kernel-cache.h.
 *
 * An entry is the ELF file and a trailer. It is written under another name, which its writer holds
 * locked, and renamed when it is whole and on the disk. From then on nobody writes to it; its
 * modification time is made of its checksum, so whatever writes to it or cuts it all the same gives
 * itself away, and the entry is made anew. Where an entry is found by contents and not by a link,
 * its checksum is looked at too. The access time is when it was last used.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "firmware/decompress.h"
#include "firmware/kernel-cache.h"
#include "firmware/loader.h"
#include "firmware/sha256.h"
#include "vm/log.h"

#define NAME_MAX_BYTES 128
/* Who waits for another VM that unpacks the same kernel does not do so for ever. */
#define LOCK_TRIES   600
#define LOCK_WAIT_NS 100000000
/* A file that changed later than this ago may change again without its times telling. */
#define SETTLED_SECONDS 2

static const u8 magic[8] = { 'v', 'm', 'm', ' ', 'e', 'l', 'f', '1' };

struct trailer {
	u8 magic[8];
	u64 size, checksum;   /* of what is before it */
	u8 hash[SHA256_SIZE]; /* of the bzImage */
};

/* A bzImage on its way through. */
struct source {
	int fd;
	const char *path;
	u64 offset, length; /* of the payload */
	struct stat st;
	u8 *file; /* all of it, once it had to be read */
	u8 hash[SHA256_SIZE];
	char name[2 * SHA256_SIZE + 1]; /* of its entry */
	char link[NAME_MAX_BYTES];	/* that tells its entry */
};

static u64 checksum(const u8 *data, u64 size)
{
	u64 sum = size, word;

	for (; size >= sizeof(word); size -= sizeof(word), data += sizeof(word)) {
		memcpy(&word, data, sizeof(word));
		sum = (sum ^ word) * 0x9e3779b97f4a7c15;
		sum ^= sum >> 29;
	}
	word = 0;
	memcpy(&word, data, size);
	sum = (sum ^ word) * 0x9e3779b97f4a7c15;
	return sum ^ sum >> 32;
}

/* An entry's modification time: some even second from 2001 to 2035, which every file system can
 * keep. */
static struct timespec seal_of(u64 sum)
{
	return (struct timespec){ .tv_sec = (time_t)(0x3b000000 + (sum & 0x3ffffffe)) };
}

/* ---- the folder ---- */

static int make_folder(const char *path)
{
	return mkdir(path, 0700) && errno != EEXIST ? -errno : 0;
}

/* Opens it, made if need be: a descriptor, or -errno with *why. Somebody else's kernels are no
 * kernels for us. */
static int open_folder(char *path, size_t path_size, const char **why)
{
	const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	int length, fd, err;
	struct stat st;

	*why = "neither XDG_CACHE_HOME nor HOME is set";
	if (base && *base == '/')
		length = snprintf(path, path_size, "%s", base);
	else if (home && *home == '/')
		length = snprintf(path, path_size, "%s/.cache", home);
	else
		return -ENOENT;
	*why = NULL;
	if (length + sizeof("/vmm") > path_size)
		return -ENAMETOOLONG;
	err = make_folder(path);
	strcat(path, "/vmm");
	if (!err)
		err = make_folder(path);
	if (err)
		return err;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) || st.st_uid != geteuid() || st.st_mode & 022) {
		*why = "others may write there";
		close(fd);
		return -EPERM;
	}
	return fd;
}

/* ---- entries ---- */

static bool is_sound(int fd, const u8 *hash, u64 *size)
{
	struct trailer t;
	struct stat st;
	bool sound;
	void *data;

	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_uid != geteuid() ||
	    st.st_size <= (off_t)sizeof(t) ||
	    file_read(fd, &t, sizeof(t), (u64)st.st_size - sizeof(t)))
		return false;
	if (memcmp(t.magic, magic, sizeof(magic)) || t.size != (u64)st.st_size - sizeof(t) ||
	    st.st_mtim.tv_nsec || st.st_mtim.tv_sec != seal_of(t.checksum).tv_sec)
		return false;
	*size = t.size;
	if (!hash)
		return true;
	if (memcmp(t.hash, hash, sizeof(t.hash)))
		return false;
	data = mmap(NULL, t.size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED)
		return false;
	sound = checksum(data, t.size) == t.checksum;
	munmap(data, t.size);
	return sound;
}

/* Opens an entry by its name or a link to it. With hash, its contents are checked as well. -1: none
 * that could be used. */
static int open_entry(int folder, const char *name, const u8 *hash, u64 *size)
{
	static const struct timespec used[2] = { { .tv_nsec = UTIME_NOW },
						 { .tv_nsec = UTIME_OMIT } };
	int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return -1;
	if (!is_sound(fd, hash, size)) {
		close(fd);
		return -1;
	}
	futimens(fd, used);
	return fd;
}

/* Links the bzImage's times to its entry, unless it may still be changing. */
static void link_entry(int folder, const struct source *source)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (now.tv_sec - source->st.st_ctim.tv_sec < SETTLED_SECONDS)
		return;
	if (symlinkat(source->name, folder, source->link) && errno == EEXIST &&
	    !unlinkat(folder, source->link, 0) && symlinkat(source->name, folder, source->link))
		return; /* the next start reads the bzImage again */
}

/* ---- room ---- */

struct census {
	u64 total; /* bytes of all entries */
	char oldest[NAME_MAX_BYTES];
	struct timespec oldest_use;
};

static bool is_earlier(struct timespec a, struct timespec b)
{
	return a.tv_sec < b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec < b.tv_nsec);
}

/* Looks at everything in the folder; with dangling, links to entries that are gone go too. */
static int take_census(int folder, struct census *census, const char *spared, bool dangling)
{
	int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *d;
	struct stat st;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return -EIO;
	}
	*census = (struct census){ .total = 0 };
	while ((d = readdir(dir))) {
		if (strlen(d->d_name) >= NAME_MAX_BYTES ||
		    fstatat(folder, d->d_name, &st, AT_SYMLINK_NOFOLLOW))
			continue;
		if (S_ISLNK(st.st_mode) && dangling && faccessat(folder, d->d_name, F_OK, 0) &&
		    errno == ENOENT)
			unlinkat(folder, d->d_name, 0);
		if (!S_ISREG(st.st_mode))
			continue;
		census->total += (u64)st.st_size;
		if (!strcmp(d->d_name, spared) ||
		    (*census->oldest && !is_earlier(st.st_atim, census->oldest_use)))
			continue;
		strcpy(census->oldest, d->d_name);
		census->oldest_use = st.st_atim;
	}
	closedir(dir);
	return 0;
}

/* Deletes what was used longest ago until there is room for `size` bytes more. */
static int make_room(int folder, u64 size, const char *spared)
{
	struct census census;
	bool deleted = false;

	if (size > KERNEL_CACHE_LIMIT)
		return -EFBIG;
	for (;;) {
		if (take_census(folder, &census, spared, deleted))
			return -EIO;
		if (census.total + size <= KERNEL_CACHE_LIMIT)
			return 0;
		if (!*census.oldest || (unlinkat(folder, census.oldest, 0) && errno != ENOENT))
			return -ENOSPC;
		deleted = true;
	}
}

/* ---- making ---- */

static int write_all(int fd, const void *from, u64 size)
{
	const u8 *next = from;

	while (size) {
		ssize_t n = write(fd, next, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		next += n;
		size -= (u64)n;
	}
	return 0;
}

/* The file in which an entry is made, locked, empty and still of that name. */
static int open_new(int folder, const char *name)
{
	const struct timespec pause = { .tv_nsec = LOCK_WAIT_NS };
	struct stat ours, named;

	for (u32 i = 0; i < LOCK_TRIES; i++) {
		int fd = openat(folder, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

		if (fd < 0)
			return -errno;
		if (!flock(fd, LOCK_EX | LOCK_NB)) {
			if (!fstat(fd, &ours) && !fstatat(folder, name, &named, 0) &&
			    ours.st_ino == named.st_ino && !ftruncate(fd, 0))
				return fd;
			/* it has become an entry, or is gone, meanwhile */
		} else {
			nanosleep(&pause, NULL);
		}
		close(fd);
	}
	return -ETIMEDOUT;
}

static int write_entry(int fd, const struct source *source, const u8 *elf, u64 size)
{
	struct trailer t = { .size = size, .checksum = checksum(elf, size) };
	const struct timespec times[2] = { { .tv_nsec = UTIME_NOW }, seal_of(t.checksum) };
	int err;

	memcpy(t.magic, magic, sizeof(magic));
	memcpy(t.hash, source->hash, sizeof(t.hash));
	err = write_all(fd, elf, size);
	if (!err)
		err = write_all(fd, &t, sizeof(t));
	if (!err && (fdatasync(fd) || futimens(fd, times)))
		err = -errno;
	return err;
}

static int unpack(const struct source *source, u8 **elf, u64 *size)
{
	const u8 *payload = source->file + source->offset;
	int ret = decompress_size(source->path, payload, source->length, size);

	if (ret)
		return ret;
	*elf = mmap(NULL, *size, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (*elf == MAP_FAILED) {
		log_line("%s: --kernel-decompress: no memory for %llu MiB; free some", source->path,
			 (unsigned long long)(*size >> 20));
		return -ENOMEM;
	}
	ret = decompress(source->path, payload, source->length, *elf, *size);
	if (ret)
		munmap(*elf, *size);
	return ret;
}

/* The kernel in memory alone: a descriptor. */
static int hold(const struct source *source, const u8 *elf, u64 size)
{
	int fd = memfd_create("kernel", MFD_CLOEXEC), err;

	err = fd < 0 ? -errno : write_all(fd, elf, size);
	if (!err)
		return fd;
	log_line("%s: --kernel-decompress: cannot be held in memory: %s; free some", source->path,
		 strerror(-err));
	if (fd >= 0)
		close(fd);
	return err;
}

/* Unpacks into the cache. 0 with *fd, which may be -1: unpacked but not kept, *elf and *size have
 * it, and *kept says why not. */
static int make_entry(int folder, const struct source *source, int *fd, u8 **elf, u64 *size,
		      int *kept)
{
	char name[NAME_MAX_BYTES];
	int new, ret;

	snprintf(name, sizeof(name), "%s.new", source->name);
	new = open_new(folder, name);
	/* somebody else may have made it while we waited */
	*fd = open_entry(folder, source->name, source->hash, size);
	if (*fd >= 0) {
		if (new >= 0)
			unlinkat(folder, name, 0);
		ret = 0;
		goto out;
	}
	ret = unpack(source, elf, size);
	if (ret) {
		if (new >= 0)
			unlinkat(folder, name, 0);
		goto out;
	}
	*kept = new < 0 ? new : make_room(folder, *size + sizeof(struct trailer), name);
	if (!*kept)
		*kept = write_entry(new, source, *elf, *size);
	if (!*kept && renameat(folder, name, folder, source->name))
		*kept = -errno;
	if (*kept && new >= 0)
		unlinkat(folder, name, 0);
	if (!*kept)
		*fd = openat(folder, source->name, O_RDONLY | O_CLOEXEC);
out:
	if (new >= 0)
		close(new);
	return ret;
}

static void say_not_kept(const char *folder, const char *why, int error)
{
	log_line("kernel cache: %s%s%s; the kernel is unpacked anew at each start", folder,
		 *folder ? ": " : "", why ? why : strerror(-error));
}

/* Reads the whole bzImage and names its contents. */
static int read_source(struct source *source)
{
	u64 size = (u64)source->st.st_size;
	int ret;

	if (size > DECOMPRESS_MAX || source->offset > size ||
	    source->length > size - source->offset) {
		log_line("%s: --kernel-decompress: the kernel inside is cut off; fetch or build it "
			 "again",
			 source->path);
		return -ENOEXEC;
	}
	source->file = mmap(NULL, size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (source->file == MAP_FAILED) {
		source->file = NULL;
		log_line("%s: --kernel-decompress: no memory; free some", source->path);
		return -ENOMEM;
	}
	ret = file_read(source->fd, source->file, size, 0);
	if (ret) {
		log_line("%s: cannot read the kernel: %s; check the file", source->path,
			 strerror(-ret));
		return ret;
	}
	sha256(source->file, size, source->hash);
	for (u32 i = 0; i < SHA256_SIZE; i++)
		snprintf(source->name + 2 * i, 3, "%02x", source->hash[i]);
	return 0;
}

/* By contents: what is kept, or else unpacked now. */
static int unpack_source(int folder, const char *folder_path, struct source *source, u64 *size)
{
	u8 *elf = NULL;
	int fd = -1, kept = 0, ret = read_source(source);

	if (ret)
		return ret;
	if (folder >= 0) {
		fd = open_entry(folder, source->name, source->hash, size);
		if (fd < 0)
			ret = make_entry(folder, source, &fd, &elf, size, &kept);
		if (fd >= 0)
			link_entry(folder, source);
		if (kept)
			say_not_kept(folder_path, NULL, kept);
	} else {
		ret = unpack(source, &elf, size);
	}
	if (!ret && fd < 0)
		fd = hold(source, elf, *size);
	if (elf && !ret)
		munmap(elf, *size);
	return ret ? ret : fd;
}

int kernel_unpack(int fd, const char *path, u64 offset, u64 length, u64 *size)
{
	struct source source = { .fd = fd, .path = path, .offset = offset, .length = length };
	char folder_path[PATH_MAX] = "";
	const char *why;
	int folder = open_folder(folder_path, sizeof(folder_path), &why), ret = -1;

	if (folder < 0)
		say_not_kept(folder_path, why, folder);
	if (fstat(fd, &source.st)) {
		ret = -errno;
		log_line("%s: %s; check --kernel", path, strerror(-ret));
		goto out;
	}
	snprintf(source.link, sizeof(source.link), "%llx-%llx-%llx-%llx.%09lx-%llx.%09lx",
		 (unsigned long long)source.st.st_dev, (unsigned long long)source.st.st_ino,
		 (unsigned long long)source.st.st_size,
		 (unsigned long long)source.st.st_mtim.tv_sec, source.st.st_mtim.tv_nsec,
		 (unsigned long long)source.st.st_ctim.tv_sec, source.st.st_ctim.tv_nsec);
	if (folder >= 0)
		ret = open_entry(folder, source.link, NULL, size);
	if (ret < 0)
		ret = unpack_source(folder, folder_path, &source, size);
	if (source.file)
		munmap(source.file, (size_t)source.st.st_size);
out:
	if (folder >= 0)
		close(folder);
	return ret;
}
