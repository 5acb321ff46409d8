/*
 * Opens a raw image or a block device and learns what it is: size, block sizes, O_DIRECT's demands,
 * whether ranges can be discarded and zeroed. Main thread, before the sandbox closes; the I/O
 * itself is the reactors'.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>
#include "vm/log.h"
#include "backends/disk-format.h"
#include "backends/disk-lock.h"
#include "backends/disk-overlay.h"
#include "backends/disk.h"

#define XFS_MAGIC	  0x58465342 /* statfs(2); not in linux/magic.h */
#define PAGE_BYTES	  4096u
#define EXCLUSIVE_STEPS	  50u
#define EXCLUSIVE_STEP_NS 20000000

static const char *kind_name(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR:
		return "a directory";
	case S_IFIFO:
		return "a fifo";
	case S_IFSOCK:
		return "a socket";
	case S_IFCHR:
		return "a character device";
	default:
		return "not a file";
	}
}

static int log_open_error(const struct disk_config *config, int error)
{
	const char *path = config->path;

	switch (error) {
	case ENOENT:
	case ENOTDIR:
		log_line("%s: there is no such file; mind the spelling, or make an empty disk: "
			 "`truncate -s 8G %s`",
			 path, path);
		break;
	case EROFS:
	case ETXTBSY:
		log_line("%s: cannot be written: %s; add `,ro` to use it read-only", path,
			 strerror(error));
		break;
	case EACCES:
	case EPERM:
		if (!config->readonly && access(path, R_OK) == 0)
			log_line("%s: cannot be written: %s; add `,ro` to use it read-only, or get "
				 "yourself write permission",
				 path, strerror(error));
		else
			log_line("%s: cannot be read: %s; get yourself permission (chmod, setfacl, "
				 "or the group that owns it)",
				 path, strerror(error));
		break;
	case EBUSY:
		log_line("%s: the host uses it (mounted, or part of a volume or RAID); release it "
			 "first, or add `,ro`",
			 path);
		break;
	default:
		log_line("%s: cannot be opened: %s", path, strerror(error));
	}
	return -error;
}

static int check_kind(const char *path, mode_t mode)
{
	if (S_ISREG(mode) || S_ISBLK(mode))
		return 0;
	log_line("%s: is %s, not a disk; give an image file or a block device", path,
		 kind_name(mode));
	return S_ISDIR(mode) ? -EISDIR : -EINVAL;
}

/* A VM that was killed may hold its device a moment longer than it lives, as its image
 * (disk-lock.c). Who else has it, nobody tells: it is waited for, but not long. */
static int open_exclusive(const char *path, int flags)
{
	const struct timespec step = { .tv_nsec = EXCLUSIVE_STEP_NS };
	int fd = open(path, flags);

	for (u32 i = 0; fd < 0 && errno == EBUSY && i < EXCLUSIVE_STEPS; i++) {
		nanosleep(&step, NULL);
		fd = open(path, flags);
	}
	return fd;
}

/* Looks before it opens: opening alone makes a fifo wait and some devices act. */
static int open_image(struct disk *disk, const struct disk_config *config, struct stat *st)
{
	bool readonly = config->readonly || config->snapshot;
	int flags = (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	int r;

	if (stat(config->path, st) != 0)
		return log_open_error(config, errno);
	r = check_kind(config->path, st->st_mode);
	if (r < 0)
		return r;
	/* exclusive: not while the host has it mounted; several readers do no harm */
	if (S_ISBLK(st->st_mode) && !readonly)
		flags |= O_EXCL;
	disk->fd = open_exclusive(config->path, flags);
	if (disk->fd < 0)
		return log_open_error(config, errno);
	if (fstat(disk->fd, st) != 0)
		return log_open_error(config, errno);
	r = check_kind(config->path, st->st_mode);
	if (r < 0)
		return r;
	/* a non-blocking file would make io_uring fail what it cannot do at once */
	flags = fcntl(disk->fd, F_GETFL);
	if (flags < 0 || fcntl(disk->fd, F_SETFL, flags & ~O_NONBLOCK) != 0)
		return log_open_error(config, errno);
	return 0;
}

static int read_size(struct disk *disk, const struct stat *st)
{
	disk->size = (u64)st->st_size;
	if (disk->block_device && ioctl(disk->fd, BLKGETSIZE64, &disk->size) != 0) {
		log_line("%s: the device does not tell its size: %s", disk->path, strerror(errno));
		return -EIO;
	}
	if (disk->size == 0 && disk->block_device) {
		log_line("%s: has no medium or no size; insert or attach one", disk->path);
		return -ENOMEDIUM;
	}
	if (disk->size == 0) {
		log_line("%s: is empty; give it a size: `truncate -s 8G %s`", disk->path,
			 disk->path);
		return -EINVAL;
	}
	return 0;
}

static int refuse_foreign(const struct disk *disk)
{
	const struct disk_format *format = disk_format_probe(disk->fd, disk->size);
	char advice[4096];

	if (!format)
		return 0;
	disk_format_advice(format, disk->path, advice, sizeof(advice));
	log_line("%s: is %s, and disks are raw here; convert it: `%s`", disk->path, format->name,
		 advice);
	return -EMEDIUMTYPE;
}

static u32 power_of_two(u64 value, u32 least, u32 most)
{
	u32 n = least;

	while (n < value && n < most)
		n <<= 1;
	return n;
}

/* An unsigned number from what sysfs has on a device's queue; -ENOENT if there is none such. */
static s64 queue_number(dev_t device, const char *name)
{
	static const char *const places[] = { "queue", "../queue" }; /* a disk's, a partition's */
	unsigned long long value = 0;
	char path[128];
	FILE *file;

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s/%s", major(device),
			 minor(device), places[i], name);
		file = fopen(path, "re");
		if (!file)
			continue;
		if (fscanf(file, "%llu", &value) != 1)
			value = 0;
		fclose(file);
		return value <= INT64_MAX ? (s64)value : INT64_MAX;
	}
	return -ENOENT;
}

/* A limit of a block device's disk, 0 if there is none. */
static u64 queue_limit(const struct stat *st, const char *name)
{
	s64 value = queue_number(st->st_rdev, name);

	return value > 0 ? (u64)value : 0;
}

/* A device that cannot be polled says so, but not to those who poll it, before Linux 6.11. */
static void learn_polling(struct disk *disk, const struct stat *st)
{
	if (!disk->iopoll ||
	    queue_number(disk->block_device ? st->st_rdev : st->st_dev, "io_poll") != 0)
		return;
	disk->iopoll = false;
	log_line("%s: iopoll: its device cannot be polled, so it is waited for (NVMe can with "
		 "nvme.poll_queues=N)",
		 disk->path);
}

static void learn_blocks(struct disk *disk, const struct stat *st)
{
	unsigned int physical = 0, minimum = 0, optimal = 0;
	int logical = 0;

	disk->logical_block = DISK_SECTOR;
	if (!disk->block_device) {
		disk->physical_block = power_of_two((u64)st->st_blksize, DISK_SECTOR, PAGE_BYTES);
		disk->minimum_io = disk->physical_block;
		if ((u64)st->st_blksize > PAGE_BYTES && (u64)st->st_blksize <= MIB(16))
			disk->optimal_io = (u32)st->st_blksize;
		return;
	}
	if (ioctl(disk->fd, BLKSSZGET, &logical) == 0 && logical > 0)
		disk->logical_block = power_of_two((u64)logical, DISK_SECTOR, 65536);
	if (ioctl(disk->fd, BLKPBSZGET, &physical) == 0 &&
	    ioctl(disk->fd, BLKIOMIN, &minimum) == 0 && ioctl(disk->fd, BLKIOOPT, &optimal) == 0) {
		disk->minimum_io = minimum;
		disk->optimal_io = optimal;
	}
	disk->physical_block = power_of_two(physical, disk->logical_block, 65536);
}

/* Finds the smallest block that O_DIRECT reads, where statx(2) (Linux 6.1) does not tell: 0 if
 * none. */
static u32 try_direct(int fd)
{
	void *page =
		mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	u32 block, found = 0;

	if (page == MAP_FAILED)
		return 0;
	for (block = DISK_SECTOR; block <= PAGE_BYTES && !found; block <<= 1) {
		if (pread(fd, page, block, block) >= 0)
			found = block;
	}
	munmap(page, PAGE_BYTES);
	return found;
}

static int set_up_direct(struct disk *disk)
{
	struct statx stx = { 0 };
	int flags = fcntl(disk->fd, F_GETFL);

	if (flags < 0 || fcntl(disk->fd, F_SETFL, flags | O_DIRECT) != 0)
		goto refuse;
	if (disk->block_device) {
		disk->alignment = disk->logical_block;
		disk->memory_alignment = disk->logical_block;
	}
	if (statx(disk->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
	    stx.stx_mask & STATX_DIOALIGN) {
		if (!stx.stx_dio_offset_align || !stx.stx_dio_mem_align)
			goto refuse;
		disk->alignment = power_of_two(stx.stx_dio_offset_align, DISK_SECTOR, 1u << 31);
		disk->memory_alignment = power_of_two(stx.stx_dio_mem_align, 1, 1u << 31);
	} else if (!disk->block_device) {
		disk->alignment = try_direct(disk->fd);
		disk->memory_alignment = disk->alignment;
	}
	/* more than a page: no file system of ours; the bounce buffers stand on pages */
	if (!disk->alignment || disk->alignment > 65536 || disk->memory_alignment > PAGE_BYTES)
		goto refuse;
	disk->logical_block = power_of_two(disk->alignment, disk->logical_block, 65536);
	disk->physical_block = power_of_two(disk->physical_block, disk->logical_block, 65536);
	return 0;
refuse:
	log_line("%s: its file system offers no direct I/O that a disk could use; leave out "
		 "`direct=on`",
		 disk->path);
	return -EINVAL;
}

/*
 * What fallocate(2) can do here. PUNCH_HOLE is tried beyond the end of the file, where it cannot
 * touch data. ZERO_RANGE would leave blocks allocated there, so the kind of file system tells: one
 * that then refuses after all (an ext3 file under the ext4 driver) is an unsupported request. A
 * block device zeroes by itself in the worst case, and punches if it can zero by deallocating.
 */
static void learn_ranges(struct disk *disk, const struct stat *st)
{
	struct statfs fs;
	u64 past;

	if (disk->readonly)
		return;
	if (disk->block_device) {
		disk->can_zero = true;
		disk->can_discard = queue_limit(st, "write_zeroes_max_bytes") > 0 &&
				    queue_limit(st, "discard_max_bytes") > 0;
		disk->discard_granularity = power_of_two(queue_limit(st, "discard_granularity"),
							 disk->logical_block, 1u << 30);
		return;
	}
	past = ALIGN_UP(disk->size, MIB(1)) + MIB(1);
	disk->can_discard = fallocate(disk->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				      (off_t)past, PAGE_BYTES) == 0;
	disk->discard_granularity =
		power_of_two((u64)st->st_blksize, disk->physical_block, (u32)MIB(1));
	if (fstatfs(disk->fd, &fs) != 0)
		return;
	switch ((u64)fs.f_type) {
	case EXT4_SUPER_MAGIC:
	case XFS_MAGIC:
	case BTRFS_SUPER_MAGIC:
	case F2FS_SUPER_MAGIC:
		disk->can_zero = true;
	}
}

/* An identity that a reopened file keeps: from its inode number and its file system's id (which,
 * unlike the device number, lasts where the file system has a UUID), or the number of a block
 * device. */
static void make_identity(struct disk *disk, const struct stat *st)
{
	u64 parts[3] = { disk->block_device, st->st_rdev, 0 };
	u64 hash = 0xcbf29ce484222325ull; /* FNV-1a */
	struct statfs fs;

	if (!disk->block_device) {
		parts[1] = st->st_ino;
		parts[2] = st->st_dev;
		if (fstatfs(disk->fd, &fs) == 0 && (fs.f_fsid.__val[0] || fs.f_fsid.__val[1]))
			parts[2] = (u64)(u32)fs.f_fsid.__val[0] << 32 | (u32)fs.f_fsid.__val[1];
	}
	for (size_t i = 0; i < sizeof(parts); i++)
		hash = (hash ^ ((const u8 *)parts)[i]) * 0x100000001b3ull;
	snprintf(disk->identity, sizeof(disk->identity), "vmm-%016llx", (unsigned long long)hash);
}

static int size_sectors(struct disk *disk)
{
	u64 tail = disk->size % disk->logical_block;

	disk->sectors = (disk->size - tail) / DISK_SECTOR;
	if (!disk->sectors) {
		log_line("%s: is smaller than one block of %u bytes; make it larger: `truncate -s "
			 "%%%u %s`",
			 disk->path, disk->logical_block, disk->logical_block, disk->path);
		return -EINVAL;
	}
	if (tail)
		log_line(
			"%s: the guest does not see its last %u bytes, less than a block of %u; to "
			"round it up: `truncate -s %%%u %s`",
			disk->path, (u32)tail, disk->logical_block, disk->logical_block,
			disk->path);
	return 0;
}

/* Its blocks are the smallest that a driver can write, so a write never needs what was there. */
int disk_set_up_overlay(struct disk *disk, int fd)
{
	u32 block = disk->alignment > DISK_SECTOR ? disk->alignment : DISK_SECTOR;
	u64 size = disk->sectors * DISK_SECTOR;
	int r = fd < 0 ? disk_overlay_create(&disk->overlay, disk->path, size, block)
		       : disk_overlay_adopt(&disk->overlay, disk->path, fd, size, block);

	if (r < 0)
		return r;
	disk->can_discard = disk->can_zero = disk->overlay->can_punch;
	disk->discard_granularity = disk->physical_block;
	return 0;
}

int disk_open(struct disk *disk, const struct disk_config *config)
{
	struct stat st;
	int r;

	memset(disk, 0, sizeof(*disk));
	disk->fd = -1;
	disk->file = -1;
	disk->readonly = config->readonly;
	disk->direct = config->direct;
	disk->iopoll = config->iopoll;
	disk->alignment = 1;
	disk->memory_alignment = 1;
	disk->path = strdup(config->path);
	if (!disk->path)
		return -ENOMEM;
	r = open_image(disk, config, &st);
	if (r < 0)
		goto fail;
	disk->block_device = S_ISBLK(st.st_mode);
	r = read_size(disk, &st);
	if (r == 0)
		r = refuse_foreign(disk);
	if (r == 0)
		r = disk_lock(disk->fd, disk->path, config->readonly || config->snapshot);
	if (r < 0)
		goto fail;
	learn_blocks(disk, &st);
	if (disk->direct)
		r = set_up_direct(disk);
	if (r == 0)
		r = size_sectors(disk);
	if (r < 0)
		goto fail;
	if (config->snapshot)
		r = disk_set_up_overlay(disk, -1);
	else
		learn_ranges(disk, &st);
	if (r < 0)
		goto fail;
	learn_polling(disk, &st);
	make_identity(disk, &st);
	return 0;
fail:
	disk_close(disk);
	return r;
}

int disk_register(struct disk *disk, struct reactors *reactors)
{
	reactor_file file = reactor_file_add(reactors, disk->fd);

	if (file < 0) {
		log_line("%s: the event threads cannot take it: %s", disk->path, strerror(-file));
		return file;
	}
	disk->file = file;
	if (disk->overlay) {
		file = reactor_file_add(reactors, disk->overlay->fd);
		if (file < 0) {
			log_line("%s: the event threads cannot take its overlay: %s", disk->path,
				 strerror(-file));
			return file;
		}
		disk->overlay->file = file;
	}
	if (disk->iopoll && reactor_file_iopoll(reactors, file, disk->path)) {
		disk->iopoll = false;
		log_line("%s: iopoll: the event threads do not poll, so it is waited for",
			 disk->path);
	}
	return 0;
}

void disk_unregister(struct disk *disk, struct reactors *reactors)
{
	disk_unlock(disk->fd);
	reactor_file_remove(reactors, disk->file);
	disk->file = -1;
	if (disk->overlay)
		reactor_file_remove(reactors, disk->overlay->file);
}

void disk_close(struct disk *disk)
{
	if (disk->fd >= 0)
		close(disk->fd);
	disk->fd = -1;
	disk->file = -1;
	disk_overlay_destroy(disk->overlay);
	disk->overlay = NULL;
	free(disk->path);
	disk->path = NULL;
}
