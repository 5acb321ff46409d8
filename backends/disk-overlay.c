/*
 * The overlay of a disk that keeps nothing. Blocks are marked when a write to them has ended, on
 * whichever reactor, and asked for when a read begins: a read that meets a write in flight may get
 * either, as on any disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "vm/log.h"
#include "backends/disk-overlay.h"

#define BITS 64

/* Where the file system has no O_TMPFILE it gets a name for a moment. */
int disk_overlay_file(const char **folder)
{
	char path[4096];
	int fd;

	*folder = getenv("TMPDIR");
	if (!*folder || !**folder)
		*folder = "/var/tmp";
	fd = open(*folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
		if ((size_t)snprintf(path, sizeof(path), "%s/vmm-XXXXXX", *folder) >= sizeof(path))
			return -ENAMETOOLONG;
		fd = mkostemp(path, O_CLOEXEC);
		if (fd >= 0)
			unlink(path);
	}
	return fd < 0 ? -errno : fd;
}

static int give_size(struct disk_overlay *overlay, int fd)
{
	if (ftruncate(fd, (off_t)(overlay->blocks * overlay->block)) < 0)
		return -errno;
	overlay->can_punch = !fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
					(off_t)overlay->block);
	return 0;
}

static int make_file(struct disk_overlay *overlay, const char *path)
{
	const char *folder;
	int error = overlay->fd = disk_overlay_file(&folder);

	if (error >= 0)
		error = give_size(overlay, overlay->fd);
	if (error)
		log_line("%s: no place in %s for what is written to it: %s; set TMPDIR to a "
			 "folder that has one",
			 path, folder, strerror(-error));
	return error;
}

/* A bit a block, in memory that is there when it is touched. */
static int make_bits(struct disk_overlay *overlay, const char *path)
{
	void *bits;

	overlay->ours_bytes = (overlay->blocks + BITS - 1) / BITS * sizeof(u64);
	bits = mmap(NULL, overlay->ours_bytes, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (bits == MAP_FAILED) {
		log_line("%s: snapshot: out of memory; free some", path);
		return -ENOMEM;
	}
	overlay->ours = bits;
	return 0;
}

static struct disk_overlay *overlay_new(u64 size, u32 block)
{
	struct disk_overlay *overlay = calloc(1, sizeof(*overlay));

	if (!overlay)
		return NULL;
	overlay->fd = -1;
	overlay->file = -1;
	overlay->block = block;
	overlay->blocks = size / block;
	return overlay;
}

int disk_overlay_create(struct disk_overlay **overlay_out, const char *path, u64 size, u32 block)
{
	struct disk_overlay *overlay = overlay_new(size, block);
	int err;

	if (!overlay)
		return -ENOMEM;
	err = make_file(overlay, path);
	if (!err)
		err = make_bits(overlay, path);
	if (err) {
		disk_overlay_destroy(overlay);
		return err;
	}
	*overlay_out = overlay;
	return 0;
}

int disk_overlay_adopt(struct disk_overlay **overlay_out, const char *path, int fd, u64 size,
		       u32 block)
{
	struct disk_overlay *overlay;
	int flags = fcntl(fd, F_GETFL), err = 0;
	struct stat st;

	if (flags < 0 || (flags & O_ACCMODE) != O_RDWR || flags & (O_PATH | O_APPEND) ||
	    fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_nlink) {
		log_line("%s: what is written to it has no file without a name to go to; add it by "
			 "`vmm ctl`",
			 path);
		return -EINVAL;
	}
	overlay = overlay_new(size, block);
	if (!overlay)
		return -ENOMEM;
	err = give_size(overlay, fd);
	if (err)
		log_line("%s: no place for what is written to it: %s", path, strerror(-err));
	else
		err = make_bits(overlay, path);
	if (err) {
		disk_overlay_destroy(overlay);
		return err;
	}
	overlay->fd = fd;
	*overlay_out = overlay;
	return 0;
}

void disk_overlay_destroy(struct disk_overlay *overlay)
{
	if (!overlay)
		return;
	if (overlay->ours)
		munmap((void *)overlay->ours, overlay->ours_bytes);
	if (overlay->fd >= 0)
		close(overlay->fd);
	free(overlay);
}

/* The blocks of one word from first on, up to end: a bit for each. */
static u64 mask_of(u64 first, u64 end)
{
	u64 n = end - first < BITS - first % BITS ? end - first : BITS - first % BITS;

	return (n == BITS ? ~0ull : BIT64(n) - 1) << first % BITS;
}

u64 disk_overlay_run(const struct disk_overlay *overlay, u64 offset, u64 length, bool *ours)
{
	u64 first = offset / overlay->block, end = first + length / overlay->block, at = first;

	*ours = atomic_load_explicit(&overlay->ours[at / BITS], memory_order_acquire) >> at % BITS &
		1;
	while (at < end) {
		u64 word = atomic_load_explicit(&overlay->ours[at / BITS], memory_order_acquire);
		u64 mask = mask_of(at, end);
		u64 other = (*ours ? ~word : word) & mask;

		if (other) {
			at = at / BITS * BITS + (u64)__builtin_ctzll(other);
			break;
		}
		at += (u64)__builtin_popcountll(mask);
	}
	/* between the two looks another thread may have marked the first */
	if (at == first)
		at++;
	return (at - first) * overlay->block;
}

void disk_overlay_mark(struct disk_overlay *overlay, u64 offset, u64 length)
{
	u64 at = offset / overlay->block, end = at + length / overlay->block;

	while (at < end) {
		u64 mask = mask_of(at, end);
		_Atomic u64 *word = &overlay->ours[at / BITS];

		/* most writes are to what was written before */
		if ((atomic_load_explicit(word, memory_order_relaxed) & mask) != mask)
			atomic_fetch_or_explicit(word, mask, memory_order_release);
		at += (u64)__builtin_popcountll(mask);
	}
}
