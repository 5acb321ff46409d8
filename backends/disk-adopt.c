/*
 * Images of machines that run: one that another process has opened for us and sent here, and new
 * sizes. Nothing here looks up a path or opens a file, which the sandbox forbids. Main thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "backends/disk-format.h"
#include "backends/disk-lock.h"
#include "backends/disk.h"
#include "vm/log.h"

#define BLOCK_MAX     65536u
#define ALIGNMENT_MAX 4096u /* of memory: what bounce buffers have */
#define DISCARD_MAX   (1u << 30)

static bool power_of_two(u32 n, u32 least, u32 most)
{
	return n >= least && n <= most && !(n & (n - 1));
}

/* What no file can be like. */
static bool learned_is_sane(const struct disk *learned)
{
	return power_of_two(learned->logical_block, DISK_SECTOR, BLOCK_MAX) &&
	       power_of_two(learned->physical_block, learned->logical_block, BLOCK_MAX) &&
	       power_of_two(learned->alignment, 1, BLOCK_MAX) &&
	       learned->alignment <= learned->logical_block &&
	       power_of_two(learned->memory_alignment, 1, ALIGNMENT_MAX) &&
	       (!learned->can_discard ||
		power_of_two(learned->discard_granularity, DISK_SECTOR, DISCARD_MAX));
}

/* Is the open file what the options say? Logs. */
static int check_file(const struct disk_config *config, int fd, struct stat *st)
{
	bool readonly = config->readonly || config->snapshot;
	int flags = fcntl(fd, F_GETFL);
	const char *why = NULL;

	if (flags < 0 || fstat(fd, st))
		why = strerror(errno);
	else if (flags & O_PATH || (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode)))
		why = "it is no open image or block device";
	else if ((flags & O_ACCMODE) != (readonly ? O_RDONLY : O_RDWR))
		why = readonly ? "it is not open for reading alone"
			       : "it is not open for reading and writing";
	else if (flags & O_APPEND || !(flags & O_DIRECT) == config->direct)
		why = "it is open in another mode than the options say";
	else if (fcntl(fd, F_SETFL, flags & ~O_NONBLOCK))
		why = strerror(errno);
	if (!why)
		return 0;
	log_line("%s: cannot be taken over: %s; add it by `vmm ctl`", config->path, why);
	return -EINVAL;
}

static int current_size(int fd, u64 *size)
{
	off_t end = lseek(fd, 0, SEEK_END); /* of block devices too */

	if (end < 0)
		return -errno;
	*size = (u64)end;
	return 0;
}

static int adopt(struct disk *disk, const struct disk_config *config, int fd)
{
	const struct disk_format *format;
	int error = current_size(fd, &disk->size);

	if (error || disk->size < disk->logical_block) {
		log_line("%s: has no size; give it one: `truncate -s 8G %s`", disk->path,
			 disk->path);
		return error ? error : -EINVAL;
	}
	format = disk_format_probe(fd, disk->size);
	if (format) {
		log_line("%s: is %s, and disks are raw here; convert it", disk->path, format->name);
		return -EMEDIUMTYPE;
	}
	error = disk_lock_again(fd, config->readonly || config->snapshot);
	if (error == -EBUSY) {
		log_line("%s: another process has it open, and a second writer would destroy it; "
			 "stop that one first, or use a copy",
			 disk->path);
		return error;
	}
	disk->sectors = ALIGN_DOWN(disk->size, (u64)disk->logical_block) / DISK_SECTOR;
	return 0;
}

int disk_adopt(struct disk *disk, const struct disk_config *config, const int *fds, u32 count,
	       const struct disk *learned)
{
	struct stat st;
	int error;

	memset(disk, 0, sizeof(*disk));
	disk->fd = disk->file = -1;
	if (count != (config->snapshot ? 2 : 1)) {
		log_line("%s: its open file was not sent along; add it by `vmm ctl`", config->path);
		return -EBADF;
	}
	error = check_file(config, fds[0], &st);
	if (error)
		return error;
	if (!learned_is_sane(learned)) {
		log_line("%s: no file has such blocks; add it by `vmm ctl`", config->path);
		return -EINVAL;
	}
	disk->path = strdup(config->path);
	if (!disk->path)
		return -ENOMEM;
	disk->readonly = config->readonly;
	disk->direct = config->direct;
	disk->block_device = S_ISBLK(st.st_mode);
	disk->iopoll = config->iopoll && learned->iopoll;
	disk->logical_block = learned->logical_block;
	disk->physical_block = learned->physical_block;
	disk->minimum_io = learned->minimum_io;
	disk->optimal_io = learned->optimal_io;
	disk->alignment = learned->alignment;
	disk->memory_alignment = learned->memory_alignment;
	disk->can_discard = learned->can_discard && !config->readonly;
	disk->can_zero = learned->can_zero && !config->readonly;
	disk->discard_granularity = learned->discard_granularity;
	memcpy(disk->identity, learned->identity, sizeof(disk->identity));
	disk->identity[sizeof(disk->identity) - 1] = '\0';
	error = adopt(disk, config, fds[0]);
	if (!error && config->snapshot)
		error = disk_set_up_overlay(disk, fds[1]);
	if (error) {
		disk_close(disk);
		return error;
	}
	disk->fd = fds[0];
	return 0;
}

/* ---- new sizes ---- */

static int set_file_size(struct disk *disk, u64 size)
{
	if (disk->overlay) {
		log_line("%s: with snapshot it keeps its size", disk->path);
		return -EROFS;
	}
	if (disk->readonly) {
		log_line("%s: is read-only here; leave the size out to take the file's",
			 disk->path);
		return -EROFS;
	}
	if (disk->block_device) {
		log_line("%s: a block device has the size it has; change it by its own tools, then "
			 "leave the size out",
			 disk->path);
		return -EINVAL;
	}
	if (size % disk->logical_block) {
		log_line("%s: %llu bytes are no whole blocks of %u; round the size", disk->path,
			 (unsigned long long)size, disk->logical_block);
		return -EINVAL;
	}
	if (size < disk->size) /* before the file ends there: what is beyond then fails cleanly */
		disk->sectors = size / DISK_SECTOR;
	if (ftruncate(disk->fd, (off_t)size)) {
		int error = -errno;

		disk->sectors = ALIGN_DOWN(disk->size, (u64)disk->logical_block) / DISK_SECTOR;
		log_line("%s: cannot become %llu bytes: %s; the disk stays as it is", disk->path,
			 (unsigned long long)size, strerror(-error));
		return error;
	}
	return 0;
}

int disk_resize(struct disk *disk, u64 size, bool shrink)
{
	u64 now = 0;
	int error = current_size(disk->fd, &now);

	if (error) {
		log_line("%s: does not tell its size: %s", disk->path, strerror(-error));
		return error;
	}
	if (!size)
		size = disk->overlay ? disk->size : now; /* it has no room for more */
	if (size > INT64_MAX || size < disk->logical_block) {
		log_line("%s: no disk has %llu bytes", disk->path, (unsigned long long)size);
		return -EINVAL;
	}
	if (ALIGN_DOWN(size, (u64)disk->logical_block) / DISK_SECTOR < disk->sectors && !shrink) {
		log_line("%s: %llu bytes are less than it has, and what is beyond would be lost; "
			 "--shrink does it all the same",
			 disk->path, (unsigned long long)size);
		return -EINVAL;
	}
	if (size != (disk->overlay ? disk->size : now))
		error = set_file_size(disk, size);
	if (error)
		return error;
	disk->size = size;
	disk->sectors = ALIGN_DOWN(size, (u64)disk->logical_block) / DISK_SECTOR;
	return 0;
}
