/*
 * posix FOLDER squash|mapped|passthrough [CHAPTER...]: what POSIX says of files, tried in an empty
 * folder by root and by another user; chapters and cases are called as in pjdfstest. Prints `ok
 * ...`, `not ok
 * ...` and `skip ...` lines. What a share cannot have, other than regular files, folders and
 * symbolic links, is expected to be refused.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define USER 65534

static const char *chapter;
static int failures, squash, mapped;

static void __attribute__((format(printf, 2, 3))) wrong(int line, const char *fmt, ...)
{
	va_list args;

	failures++;
	printf("not ok %s: line %d: ", chapter, line);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	printf("\n");
}

/* The call ends with this errno, or well (0). */
#define E(want, call)                                                              \
	do {                                                                       \
		long ret_;                                                         \
		errno = 0;                                                         \
		ret_ = (long)(call);                                               \
		if ((want) == 0 ? ret_ < 0 : ret_ >= 0 || errno != (want))         \
			wrong(__LINE__, #call ": %ld, %s", ret_, strerror(errno)); \
	} while (0)
#define IS(got, want)                                                                        \
	do {                                                                                 \
		long long got_ = (long long)(got), want_ = (long long)(want);                \
		if (got_ != want_)                                                           \
			wrong(__LINE__, #got " is %lld, not " #want " (%lld)", got_, want_); \
	} while (0)

static struct stat st;

static struct stat *look(const char *path)
{
	if (lstat(path, &st)) {
		memset(&st, 0, sizeof(st));
		wrong(0, "%s: %s", path, strerror(errno));
	}
	return &st;
}

static void make(const char *path, mode_t mode, const char *text)
{
	int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, mode);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		wrong(0, "making %s: %s", path, strerror(errno));
	close(fd);
}

/* Runs what follows as another user, in a process of its own. */
#define AS_USER(body)                                      \
	do {                                               \
		int status_ = 0;                           \
		fflush(stdout);                            \
		if (!fork()) {                             \
			failures = 0;                      \
			if (setgid(USER) || setuid(USER))  \
				wrong(__LINE__, "setuid"); \
			body;                              \
			fflush(stdout);                    \
			_exit(failures ? 1 : 0);           \
		}                                          \
		wait(&status_);                            \
		failures += status_ != 0;                  \
	} while (0)

static char long_name[257], long_path[PATH_MAX + 1];

static struct timespec later(struct timespec t, const char *what, int line)
{
	if (st.st_ctim.tv_sec < t.tv_sec ||
	    (st.st_ctim.tv_sec == t.tv_sec && st.st_ctim.tv_nsec <= t.tv_nsec))
		wrong(line, "%s: its time of change has not moved", what);
	return st.st_ctim;
}

/* Does the call move the file's (or folder's) time of change? */
#define MOVES(path, call)                                      \
	do {                                                   \
		struct timespec before_ = look(path)->st_ctim; \
		usleep(20000);                                 \
		E(0, call);                                    \
		look(path);                                    \
		later(before_, #call, __LINE__);               \
	} while (0)

static void chapter_mkdir(void)
{
	umask(027);
	MOVES(".", mkdir("d", 0777));
	IS(look("d")->st_mode, S_IFDIR | 0750);
	IS(st.st_nlink >= 1, 1);
	umask(0);
	E(EEXIST, mkdir("d", 0777));
	make("f", 0644, "");
	E(EEXIST, mkdir("f", 0777));
	E(ENOTDIR, mkdir("f/d", 0777));
	E(ENOENT, mkdir("none/d", 0777));
	E(ENAMETOOLONG, mkdir(long_name, 0777));
	E(ENAMETOOLONG, mkdir(long_path, 0777));
	long_name[255] = '\0';
	E(0, mkdir(long_name, 0777));
	E(0, rmdir(long_name));
	long_name[255] = 'x';
	E(0, symlink("nowhere", "l"));
	E(EEXIST, mkdir("l", 0777));
	E(0, mkdir("sticky", 01777));
	IS(look("sticky")->st_mode, S_IFDIR | 01777);
	AS_USER(E(EACCES, mkdir("d/x", 0777)); E(0, mkdir("sticky/his", 0700)));
	if (!squash)
		IS(look("sticky/his")->st_uid, USER);
	E(0, mkdir("setgid", 0775));
	E(0, chmod("setgid", 02775));
	E(0, mkdir("setgid/below", 0755));
	IS(look("setgid/below")->st_mode & 02000, 02000);
}

static void chapter_rmdir(void)
{
	E(0, mkdir("d", 0755));
	E(0, mkdir("d/sub", 0755));
	make("f", 0644, "");
	E(ENOTEMPTY, rmdir("d"));
	E(ENOTDIR, rmdir("f"));
	E(ENOTDIR, rmdir("f/x"));
	E(ENOENT, rmdir("none"));
	E(EINVAL, rmdir("d/."));
	E(ENAMETOOLONG, rmdir(long_name));
	AS_USER(E(EACCES, rmdir("d/sub")));
	MOVES("d", rmdir("d/sub"));
	E(0, rmdir("d"));
	E(0, symlink("none", "l"));
	E(ENOTDIR, rmdir("l"));
}

static void chapter_open(void)
{
	char buffer[32];
	int fd, other;

	umask(022);
	fd = open("f", O_CREAT | O_EXCL | O_RDWR, 0666);
	E(0, fd);
	IS(look("f")->st_mode, S_IFREG | 0644);
	umask(0);
	IS(write(fd, "hello", 5), 5);
	E(EEXIST, open("f", O_CREAT | O_EXCL | O_RDWR, 0666));
	other = open("f", O_WRONLY | O_APPEND);
	IS(write(other, " you", 4), 4);
	IS(write(fd, "!", 1), 1);
	IS(pread(fd, buffer, 32, 0), 9);
	IS(memcmp(buffer, "hello!you", 9), 0);
	IS(write(other, "+", 1), 1);
	IS(look("f")->st_size, 10);
	close(other);
	other = open("f", O_RDONLY | O_TRUNC);
	IS(look("f")->st_size, 0);
	IS(pread(fd, buffer, 32, 0), 0);
	close(other);
	close(fd);
	E(ENOTDIR, open("f/x", O_RDONLY));
	E(ENOTDIR, open("f", O_RDONLY | O_DIRECTORY));
	E(ENOENT, open("none", O_RDONLY));
	E(ENOENT, open("none/f", O_CREAT | O_RDWR, 0644));
	E(ENAMETOOLONG, open(long_name, O_CREAT | O_RDWR, 0644));
	E(0, mkdir("d", 0755));
	E(EISDIR, open("d", O_RDWR));
	E(EISDIR, open("d", O_WRONLY));
	E(0, symlink("f", "l"));
	E(0, symlink("loop2", "loop1"));
	E(0, symlink("loop1", "loop2"));
	E(ELOOP, open("l", O_RDONLY | O_NOFOLLOW));
	E(ELOOP, open("loop1", O_RDONLY));
	E(EEXIST, open("l", O_CREAT | O_EXCL | O_RDWR, 0644));
	E(0, fd = open("l", O_RDONLY));
	close(fd);
	E(0, chmod("f", 0600));
	AS_USER(E(EACCES, open("f", O_RDONLY)); E(EACCES, open("d/x", O_CREAT | O_RDWR, 0644)));
	/* a mode that forbids what is being done by who makes it */
	fd = open("only", O_CREAT | O_EXCL | O_WRONLY, 0400);
	E(0, fd);
	IS(write(fd, "x", 1), 1);
	E(0, ftruncate(fd, 0));
	close(fd);
	fd = open(".", O_TMPFILE | O_RDWR, 0600);
	IS(fd, -1); /* 9p has none: programs fall back */
}

static void chapter_link(void)
{
	make("f", 0644, "text");
	MOVES("f", link("f", "g"));
	IS(look("f")->st_nlink, 2);
	IS(look("g")->st_size, 4);
	E(0, chmod("g", 0600));
	IS(look("f")->st_mode, S_IFREG | 0600);
	E(0, chmod("g", 0666));
	E(0, mkdir("d", 0755));
	E(EEXIST, link("f", "g"));
	E(EPERM, link("d", "e"));
	E(ENOENT, link("none", "h"));
	E(ENOENT, link("f", "none/h"));
	E(ENOTDIR, link("f", "g/h"));
	E(ENAMETOOLONG, link("f", long_name));
	AS_USER(E(EACCES, link("f", "d/h")));
	MOVES("g", unlink("f"));
	IS(look("g")->st_nlink, 1);
	E(0, link("g", "d/h"));
	IS(look("d/h")->st_nlink, 2);
}

static void chapter_unlink(void)
{
	char buffer[8];
	int fd;

	make("f", 0644, "text");
	E(0, mkdir("d", 0755));
	E(0, mkdir("sticky", 01777));
	E(EISDIR, unlink("d"));
	E(ENOENT, unlink("none"));
	E(ENOTDIR, unlink("f/x"));
	E(ENAMETOOLONG, unlink(long_name));
	make("d/f", 0666, "");
	make("sticky/f", 0666, "");
	AS_USER(E(EACCES, unlink("d/f")); if (!squash) E(EPERM, unlink("sticky/f")));
	fd = open("f", O_RDWR);
	MOVES(".", unlink("f"));
	E(ENOENT, lstat("f", &st));
	IS(pread(fd, buffer, 8, 0), 4);
	IS(pwrite(fd, "more", 4, 4), 4);
	IS(fstat(fd, &st), 0);
	IS(st.st_nlink, 0);
	IS(st.st_size, 8);
	E(0, ftruncate(fd, 3));
	E(0, fchmod(fd, 0600));
	E(0, fsync(fd));
	IS(lseek(fd, 0, SEEK_END), 3);
	make("f", 0644, "another"); /* the name is free again */
	IS(pread(fd, buffer, 8, 0), 3);
	close(fd);
	E(0, symlink("f", "l"));
	E(0, unlink("l"));
	IS(look("f")->st_size, 7);
}

static void chapter_rename(void)
{
	ino_t ino;
	int fd;

	make("f", 0644, "f");
	make("g", 0644, "gg");
	E(0, mkdir("d", 0755));
	E(0, mkdir("e", 0755));
	make("e/x", 0644, "");
	fd = open("g", O_RDONLY);
	ino = look("f")->st_ino;
	MOVES(".", rename("f", "h"));
	IS(look("h")->st_ino, ino);
	MOVES(".", rename("h", "g"));
	IS(look("g")->st_size, 1);
	fstat(fd, &st);
	IS(st.st_size, 2); /* the one that was replaced lives on */
	close(fd);
	E(ENOENT, rename("none", "x"));
	E(ENOENT, rename("g", "none/x"));
	E(ENOTDIR, rename("g", "g/x"));
	E(EISDIR, rename("g", "d"));
	E(ENOTDIR, rename("d", "g"));
	E(EINVAL, rename("d", "d/below"));
	E(ENOTEMPTY, rename("d", "e"));
	E(ENAMETOOLONG, rename("g", long_name));
	E(0, rename("e", "d"));
	IS(look("d/x")->st_size, 0);
	E(0, rename("d/x", "d/y"));
	E(0, rename("d/y", "z"));
	E(0, link("z", "z2"));
	E(0, rename("z", "z2")); /* two names of one file: nothing happens */
	IS(look("z")->st_nlink, 2);
	E(0, mkdir("sticky", 01777));
	make("sticky/f", 0666, "");
	AS_USER(E(EACCES, rename("g", "d/g"));
		if (!squash) E(EPERM, rename("sticky/f", "sticky/g")));
	E(0, symlink("g", "l"));
	E(0, rename("l", "l2"));
	IS(look("l2")->st_mode & S_IFMT, S_IFLNK);
}

static void chapter_symlink(void)
{
	char buffer[PATH_MAX + 1];
	static char longest[PATH_MAX];

	memset(longest, 'x', sizeof(longest) - 1);
	E(0, symlink("target", "l"));
	IS(look("l")->st_mode & S_IFMT, S_IFLNK);
	IS(st.st_size, 6);
	IS(readlink("l", buffer, sizeof(buffer)), 6);
	IS(memcmp(buffer, "target", 6), 0);
	E(ENOENT, open("l", O_RDONLY));
	E(EEXIST, symlink("x", "l"));
	E(ENOENT, symlink("", "m"));
	E(ENOENT, symlink("x", "none/l"));
	E(ENAMETOOLONG, symlink("x", long_name));
	E(ENAMETOOLONG, symlink(long_path, "m"));
	longest[1000] = '\0';
	E(0, symlink(longest, "long"));
	IS(readlink("long", buffer, sizeof(buffer)), 1000);
	make("f", 0644, "text");
	E(0, symlink("/proc/self/status", "absolute")); /* the guest's own */
	E(0, open("absolute", O_RDONLY));
	E(0, symlink("f", "tof"));
	IS(stat("tof", &st), 0);
	IS(st.st_size, 4);
	E(EINVAL, readlink("f", buffer, sizeof(buffer)));
}

static void chapter_truncate(void)
{
	char buffer[16];
	int fd;

	make("f", 0644, "0123456789");
	MOVES("f", truncate("f", 4));
	IS(look("f")->st_size, 4);
	E(0, truncate("f", 8));
	fd = open("f", O_RDWR);
	IS(read(fd, buffer, 16), 8);
	IS(memcmp(buffer, "0123\0\0\0\0", 8), 0);
	E(0, ftruncate(fd, 5LL << 30));
	IS(look("f")->st_size, 5LL << 30);
	IS(pwrite(fd, "end", 3, 5LL << 30), 3);
	IS(pread(fd, buffer, 16, (5LL << 30) - 1), 4);
	IS(memcmp(buffer, "\0end", 4), 0);
	E(EINVAL, ftruncate(fd, -1));
	E(0, ftruncate(fd, 0));
	close(fd);
	fd = open("f", O_RDONLY);
	E(EINVAL, ftruncate(fd, 0));
	close(fd);
	E(0, mkdir("d", 0755));
	E(EISDIR, truncate("d", 0));
	E(ENOENT, truncate("none", 0));
	E(ENOTDIR, truncate("f/x", 0));
	AS_USER(E(EACCES, truncate("f", 0)));
	AS_USER(E(EACCES, open("f", O_RDWR | O_TRUNC)));
}

static void chapter_chmod(void)
{
	static const mode_t modes[] = { 0000, 0111, 0222, 0444, 0640, 0755, 0777 };

	make("f", 0644, "");
	E(0, mkdir("d", 0755));
	for (unsigned int i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
		MOVES("f", chmod("f", modes[i]));
		IS(look("f")->st_mode, S_IFREG | modes[i]);
	}
	E(0, chmod("d", 01777));
	IS(look("d")->st_mode, S_IFDIR | 01777);
	E(0, chmod("f", 04755));
	if (!squash)
		IS(look("f")->st_mode, S_IFREG | 04755);
	E(0, chmod("f", 0644));
	E(ENOENT, chmod("none", 0644));
	E(ENOTDIR, chmod("f/x", 0644));
	E(0, symlink("f", "l"));
	E(0, chmod("l", 0600));
	IS(look("f")->st_mode, S_IFREG | 0600);
	AS_USER(E(EPERM, chmod("f", 0666)));
}

static void chapter_chown(void)
{
	make("f", 04755, "");
	E(0, mkdir("d", 0755));
	E(0, symlink("f", "l"));
	MOVES("f", chown("f", 1234, 5678));
	IS(look("f")->st_uid, 1234);
	IS(st.st_gid, 5678);
	IS(st.st_mode, S_IFREG | 0755);
	E(0, chown("f", -1, 99));
	IS(look("f")->st_uid, 1234);
	IS(st.st_gid, 99);
	E(0, chown("d", 77, -1));
	IS(look("d")->st_uid, 77);
	E(0, lchown("l", 55, 66));
	if (!mapped)
		IS(look("l")->st_uid, 55);
	E(0, chown("l", USER, USER));
	IS(look("f")->st_uid, USER);
	AS_USER(E(EPERM, chown("f", 0, -1)); E(0, chmod("f", 0700)); E(0, truncate("f", 0)));
	E(ENOENT, chown("none", 0, 0));
	E(ENOTDIR, chown("f/x", 0, 0));
}

static void chapter_mknod(void)
{
	E(EPERM, mkfifo("fifo", 0644));
	E(EPERM, mknod("null", S_IFCHR | 0666, makedev(1, 3)));
	E(EPERM, mknod("disk", S_IFBLK | 0666, makedev(8, 0)));
	E(EPERM, mknod("socket", S_IFSOCK | 0666, 0));
	E(0, mknod("regular", S_IFREG | 0604, 0));
	IS(look("regular")->st_mode, S_IFREG | 0604);
	E(EEXIST, mknod("regular", S_IFREG | 0604, 0));
}

static void chapter_utimensat(void)
{
	const struct timespec times[2] = { { 1000000000, 123456789 }, { 2000000000, 987654321 } };
	const struct timespec omit[2] = { { 0, UTIME_OMIT }, { 5, 0 } };
	const struct timespec now[2] = { { 0, UTIME_NOW }, { 0, UTIME_NOW } };

	make("f", 0644, "");
	MOVES("f", utimensat(AT_FDCWD, "f", times, 0));
	/* Linux's 9p cuts what it sets to seconds */
	IS(look("f")->st_atim.tv_sec, 1000000000);
	IS(st.st_mtim.tv_sec, 2000000000);
	E(0, utimensat(AT_FDCWD, "f", omit, 0));
	IS(look("f")->st_atim.tv_sec, 1000000000);
	IS(st.st_mtim.tv_sec, 5);
	E(0, utimensat(AT_FDCWD, "f", now, 0));
	IS(llabs((long long)look("f")->st_mtim.tv_sec - (long long)time(NULL)) < 100, 1);
	E(0, symlink("f", "l"));
	E(0, utimensat(AT_FDCWD, "l", times, AT_SYMLINK_NOFOLLOW));
	IS(look("l")->st_mtim.tv_sec, 2000000000);
	IS(look("f")->st_mtim.tv_sec == 2000000000, 0);
	AS_USER(E(EPERM, utimensat(AT_FDCWD, "f", times, 0)));
}

static void chapter_xattr(void)
{
	char buffer[256];

	make("f", 0644, "");
	if (setxattr("f", "user.one", "first", 5, 0) && errno == EOPNOTSUPP) {
		printf("skip xattr: the host's file system has none\n");
		return;
	}
	IS(getxattr("f", "user.one", buffer, sizeof(buffer)), 5);
	IS(memcmp(buffer, "first", 5), 0);
	E(EEXIST, setxattr("f", "user.one", "x", 1, XATTR_CREATE));
	E(ENODATA, setxattr("f", "user.two", "x", 1, XATTR_REPLACE));
	E(0, setxattr("f", "user.one", "second!", 7, XATTR_REPLACE));
	IS(getxattr("f", "user.one", NULL, 0), 7);
	E(ERANGE, getxattr("f", "user.one", buffer, 3));
	E(0, setxattr("f", "user.three", "", 0, 0));
	IS(listxattr("f", buffer, sizeof(buffer)), 9 + 11);
	E(0, removexattr("f", "user.one"));
	E(ENODATA, getxattr("f", "user.one", buffer, sizeof(buffer)));
	E(ENODATA, removexattr("f", "user.one"));
	E(0, mkdir("d", 0755));
	E(0, setxattr("d", "user.folder", "x", 1, 0));
}

static void chapter_locks(void)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 10 };
	int fd, again, status;

	make("f", 0644, "0123456789012345678901234567890");
	fd = open("f", O_RDWR);
	again = open("f", O_RDWR);
	E(0, fcntl(fd, F_SETLK, &lock));
	E(0, fcntl(again, F_SETLK, &lock)); /* the same process */
	fflush(stdout);
	if (!fork()) {
		int mine = open("f", O_RDWR);

		failures = 0;
		E(EAGAIN, fcntl(mine, F_SETLK, &lock));
		lock.l_start = 0;
		E(0, fcntl(mine, F_SETLK, &lock));
		lock.l_start = 10;
		E(0, fcntl(mine, F_GETLK, &lock));
		IS(lock.l_pid, getppid());
		fflush(stdout);
		_exit(failures != 0);
	}
	wait(&status);
	failures += status != 0;
	lock.l_type = F_UNLCK;
	E(0, fcntl(fd, F_SETLK, &lock));
	E(0, flock(fd, LOCK_EX));
	E(EAGAIN, flock(again, LOCK_EX | LOCK_NB));
	E(0, flock(fd, LOCK_UN));
	E(0, flock(again, LOCK_EX | LOCK_NB));
	close(fd);
	close(again);
}

static void chapter_readdir(void)
{
	struct dirent *entry;
	char name[32], seen[200] = { 0 };
	unsigned int n, count = 0;
	long place = 0;
	DIR *dir;

	for (n = 0; n < 200; n++) {
		snprintf(name, sizeof(name), "n%u", n);
		make(name, 0644, "");
	}
	dir = opendir(".");
	while ((entry = readdir(dir))) {
		if (sscanf(entry->d_name, "n%u", &n) == 1 && n < 200 && !seen[n]++)
			count++;
		if (count == 100 && !place)
			place = telldir(dir);
		IS(entry->d_type, *entry->d_name == '.' ? DT_DIR : DT_REG);
	}
	IS(count, 200);
	seekdir(dir, place);
	for (count = 0; (entry = readdir(dir));)
		count++;
	IS(count >= 100 && count <= 102, 1);
	rewinddir(dir);
	for (count = 0; (entry = readdir(dir));) /* removing while reading misses nothing */
		if (*entry->d_name == 'n')
			count += unlink(entry->d_name) == 0;
	IS(count, 200);
	closedir(dir);
}

static void chapter_statvfs(void)
{
	struct statvfs fs;

	E(0, statvfs(".", &fs));
	IS(fs.f_namemax, 255);
	IS(fs.f_blocks > 0, 1);
}

static const struct {
	const char *name;
	void (*run)(void);
} chapters[] = {
	{ "chmod", chapter_chmod },	{ "chown", chapter_chown },
	{ "link", chapter_link },	{ "mkdir", chapter_mkdir },
	{ "mknod", chapter_mknod },	{ "open", chapter_open },
	{ "rename", chapter_rename },	{ "rmdir", chapter_rmdir },
	{ "symlink", chapter_symlink }, { "truncate", chapter_truncate },
	{ "unlink", chapter_unlink },	{ "utimensat", chapter_utimensat },
	{ "xattr", chapter_xattr },	{ "locks", chapter_locks },
	{ "readdir", chapter_readdir }, { "statvfs", chapter_statvfs },
};

static int wanted(int argc, char **argv)
{
	for (int i = 3; i < argc; i++)
		if (!strcmp(argv[i], chapter))
			return 1;
	return argc == 3 && (!squash || strcmp(chapter, "chown"));
}

int main(int argc, char **argv)
{
	if (argc < 3 || chdir(argv[1]))
		return 2;
	squash = !strcmp(argv[2], "squash");
	mapped = !strcmp(argv[2], "mapped");
	memset(long_name, 'x', sizeof(long_name) - 1);
	memset(long_path, 'y', sizeof(long_path) - 1);
	umask(0);
	for (unsigned int i = 0; i < sizeof(chapters) / sizeof(*chapters); i++) {
		chapter = chapters[i].name;
		failures = 0;
		if (!wanted(argc, argv))
			continue;
		if (mkdir(chapter, 0777) || chdir(chapter))
			return 3;
		chapters[i].run();
		umask(0);
		if (chdir(".."))
			return 3;
		if (!failures)
			printf("ok %s\n", chapter);
		fflush(stdout);
	}
	return 0;
}
