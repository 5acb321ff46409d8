/*
 * Image locks by open-file-description locks (fcntl(2), F_OFD_SETLK), on the bytes on which QEMU
 * puts its own, so that either program keeps the other out. Byte 100 + n, locked shared, means "I
 * do n"; byte 200 + n means "nobody else may do n". Who holds a byte is found with F_OFD_GETLK, by
 * which process in /proc: such locks have no owner but the open file. Main thread.
 *
 * A VM that was killed may hold its image a moment longer than it lives: its rings have files of
 * their own, and the kernel takes rings apart at its leisure. So locks that no process has are
 * waited for.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "vm/log.h"
#include "backends/disk-lock.h"

#define BYTE_DOES    100
#define BYTE_FORBIDS 200
#define ACT_READ     BIT(0) /* reads, and relies on what it reads */
#define ACT_WRITE    BIT(1)
#define ACT_RESIZE   BIT(3)
#define ACTS	     4
#define WAIT_STEPS   100
#define WAIT_STEP_NS 20000000

struct holder {
	int pid; /* 0: nobody found */
	bool locks;
	char command[32];
};

static int lock_byte(int fd, off_t byte)
{
	struct flock lock = {
		.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1
	};

	return fcntl(fd, F_OFD_SETLK, &lock) == 0 ? 0 : -errno;
}

/* Is the byte locked, in whatever way, through another open file? */
static int test_byte(int fd, off_t byte)
{
	struct flock lock = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1
	};

	if (fcntl(fd, F_OFD_GETLK, &lock) != 0)
		return -errno;
	return lock.l_type == F_UNLCK ? 0 : -EBUSY;
}

/* Declares what we do and what we forbid, then looks whether others do or forbid the opposite. In
 * this order two that come at once see each other, and both give way at worst. */
static int lock_acts(int fd, unsigned int does, unsigned int forbids)
{
	int r = 0;

	for (int n = 0; n < ACTS && r == 0; n++) {
		if (does & BIT(n))
			r = lock_byte(fd, BYTE_DOES + n);
		if (r == 0 && forbids & BIT(n))
			r = lock_byte(fd, BYTE_FORBIDS + n);
	}
	for (int n = 0; n < ACTS && r == 0; n++) {
		if (does & BIT(n))
			r = test_byte(fd, BYTE_FORBIDS + n);
		if (r == 0 && forbids & BIT(n))
			r = test_byte(fd, BYTE_DOES + n);
	}
	return r == -EAGAIN || r == -EACCES ? -EBUSY : r;
}

/* Does the process' descriptor `name` hold any lock? fdinfo lists them (proc(5)). */
static bool descriptor_locks(int pid, const char *name)
{
	char path[64 + NAME_MAX], line[256];
	bool locks = false;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%s", pid, name);
	file = fopen(path, "re");
	if (!file)
		return false;
	while (!locks && fgets(line, sizeof(line), file))
		locks = strncmp(line, "lock:", 5) == 0;
	fclose(file);
	return locks;
}

/* Looks through one process' descriptors for the image; a descriptor that holds a lock is surer
 * than one that has it open. */
static void search_process(int pid, int our_fd, const struct stat *image, struct holder *holder)
{
	char path[64];
	struct dirent *entry;
	struct stat st;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	if (!dir)
		return;
	while (!holder->locks && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.' || fstatat(dirfd(dir), entry->d_name, &st, 0) != 0 ||
		    st.st_dev != image->st_dev || st.st_ino != image->st_ino)
			continue;
		if (pid == getpid() && atoi(entry->d_name) == our_fd)
			continue;
		holder->pid = pid;
		holder->locks = descriptor_locks(pid, entry->d_name);
	}
	closedir(dir);
}

static void find_holder(int fd, struct holder *holder)
{
	struct dirent *entry;
	struct stat image;
	char path[64];
	FILE *file;
	DIR *dir;

	memset(holder, 0, sizeof(*holder));
	dir = opendir("/proc");
	if (!dir)
		return;
	if (fstat(fd, &image) == 0) {
		while (!holder->locks && (entry = readdir(dir))) {
			int pid = atoi(entry->d_name);

			if (pid > 0)
				search_process(pid, fd, &image, holder);
		}
	}
	closedir(dir);
	snprintf(path, sizeof(path), "/proc/%d/comm", holder->pid);
	file = holder->pid ? fopen(path, "re") : NULL;
	if (!file)
		return;
	if (fgets(holder->command, sizeof(holder->command), file))
		holder->command[strcspn(holder->command, "\n")] = '\0';
	fclose(file);
}

/* Waits for locks that no process has, which those of other users and containers look like too. */
static int lock_patiently(int fd, unsigned int does, unsigned int forbids, struct holder *holder)
{
	const struct timespec step = { .tv_nsec = WAIT_STEP_NS };
	int r = lock_acts(fd, does, forbids);

	for (int n = 0; r == -EBUSY && n < WAIT_STEPS; n++) {
		find_holder(fd, holder);
		if (holder->locks)
			break;
		nanosleep(&step, NULL);
		r = lock_acts(fd, does, forbids);
	}
	return r;
}

static void log_conflict(const char *path, bool readonly, const struct holder *holder)
{
	char who[80] = "another process (of another user, or of a container)";

	if (holder->pid == getpid()) {
		log_line("%s: it is given twice, and two disks would overwrite each other; give it "
			 "once, or both times with `,ro`",
			 path);
		return;
	}
	if (holder->pid)
		snprintf(who, sizeof(who), "%s (pid %d)", holder->command, holder->pid);
	if (readonly)
		log_line(
			"%s: %s has it open for writing, so it would change underneath its reader; "
			"stop that one first, or use a copy",
			path, who);
	else
		log_line("%s: %s has it open, and a second writer would destroy it; stop that one "
			 "first, or use a copy",
			 path, who);
}

void disk_unlock(int fd)
{
	struct flock lock = { .l_type = F_UNLCK, .l_whence = SEEK_SET };

	fcntl(fd, F_OFD_SETLK, &lock);
}

int disk_lock_again(int fd, bool readonly)
{
	return lock_acts(fd, readonly ? ACT_READ : ACT_READ | ACT_WRITE, ACT_WRITE | ACT_RESIZE);
}

int disk_lock(int fd, const char *path, bool readonly)
{
	unsigned int does = readonly ? ACT_READ : ACT_READ | ACT_WRITE;
	struct holder holder = { 0 };
	int r = lock_patiently(fd, does, ACT_WRITE | ACT_RESIZE, &holder);

	if (r == -EBUSY) {
		log_conflict(path, readonly, &holder);
		return r;
	}
	if (r < 0)
		log_line("%s: cannot be locked: %s; see to it that no other machine uses it", path,
			 strerror(-r));
	return 0;
}
