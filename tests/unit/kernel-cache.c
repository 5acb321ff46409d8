/*
 * firmware/kernel-cache.c: what is kept is what was unpacked, whoever meddles, and whatever stands
 * in the way of keeping costs no boot.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "firmware/kernel-cache.h"
#include "firmware/sha256.h"
#include "packed.h"

#define OFFSET 1000

static char base[64], folder[80];
static u8 bzimage[OFFSET + PACKED_ROOM];
static u32 bzimage_size;
static int bzimage_fd = -1;

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

static int down(void **state)
{
	(void)state;
	if (bzimage_fd >= 0)
		close(bzimage_fd);
	bzimage_fd = -1;
	return nftw(base, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* A bzImage that changed a minute ago, as far as its times tell. */
static void make_bzimage(unsigned int seed)
{
	char path[96];

	snprintf(path, sizeof(path), "%s/bzimage", base);
	if (bzimage_fd >= 0)
		close(bzimage_fd);
	bzimage_fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_true(bzimage_fd >= 0);
	make_plain(seed);
	memset(bzimage, 0, OFFSET);
	bzimage_size = OFFSET + pack_zstd(bzimage + OFFSET);
	assert_int_equal(write(bzimage_fd, bzimage, bzimage_size), bzimage_size);
}

static int up(void **state)
{
	(void)state;
	strcpy(base, "/tmp/vmm-cache-XXXXXX");
	if (!mkdtemp(base))
		return -1;
	setenv("XDG_CACHE_HOME", base, 1);
	snprintf(folder, sizeof(folder), "%s/vmm", base);
	make_bzimage(7);
	return 0;
}

/* Unpacks, compares, and gives the inode that holds it. */
static ino_t unpacked(void)
{
	static u8 got[PLAIN_SIZE];
	struct stat st;
	u64 size = 0;
	int fd = kernel_unpack(bzimage_fd, "test", OFFSET, bzimage_size - OFFSET, &size);

	assert_true(fd >= 0);
	assert_int_equal(size, PLAIN_SIZE);
	assert_int_equal(pread(fd, got, PLAIN_SIZE, 0), PLAIN_SIZE);
	assert_memory_equal(got, plain, PLAIN_SIZE);
	assert_int_equal(fstat(fd, &st), 0);
	close(fd);
	return st.st_ino;
}

struct found {
	u32 files, links, others;
	u64 bytes;
	char entry[300];
};

static struct found look(void)
{
	struct found found = { 0 };
	DIR *dir = opendir(folder);
	const struct dirent *d;
	struct stat st;

	assert_non_null(dir);
	while ((d = readdir(dir))) {
		char path[400];

		snprintf(path, sizeof(path), "%s/%s", folder, d->d_name);
		if (lstat(path, &st) || S_ISDIR(st.st_mode))
			continue;
		found.links += S_ISLNK(st.st_mode);
		if (S_ISREG(st.st_mode) && strlen(d->d_name) == 64) {
			found.files++;
			strcpy(found.entry, path);
		} else {
			found.others += S_ISREG(st.st_mode);
		}
		found.bytes += S_ISREG(st.st_mode) ? (u64)st.st_size : 0;
	}
	closedir(dir);
	return found;
}

static void sha256_is_sha256(void **state)
{
	/* FIPS 180-4's own examples */
	static const struct {
		const char *text;
		u8 first[4];
	} cases[] = {
		{ "abc", { 0xba, 0x78, 0x16, 0xbf } },
		{ "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
		  { 0x24, 0x8d, 0x6a, 0x61 } },
		{ "", { 0xe3, 0xb0, 0xc4, 0x42 } },
	};
	u8 digest[SHA256_SIZE];

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
		sha256(cases[i].text, strlen(cases[i].text), digest);
		assert_memory_equal(digest, cases[i].first, 4);
	}
}

static void a_kernel_is_unpacked_once(void **state)
{
	struct found found;
	ino_t first;

	(void)state;
	first = unpacked();
	found = look();
	assert_int_equal(found.files, 1);
	assert_int_equal(found.others, 0);
	assert_int_equal(found.links, 0); /* the file is too young for its times to count */
	assert_int_equal(unpacked(), first);
	sleep(3);
	assert_int_equal(unpacked(), first);
	assert_int_equal(look().links, 1);
	assert_int_equal(unpacked(), first);
	/* a link is enough: what the file holds is not read */
	assert_int_equal(look().files, 1);
	/* a bzImage that changes is another one */
	make_bzimage(8);
	assert_true(unpacked() != first);
	found = look();
	assert_int_equal(found.files, 2);
}

static void damage_is_noticed(void **state)
{
	struct found found;
	struct stat st;
	ino_t first;
	u8 byte;
	int fd;

	(void)state;
	sleep(3); /* so that a link leads to the entry */
	first = unpacked();
	found = look();
	assert_int_equal(found.links, 1);
	/* a byte changed */
	fd = open(found.entry, O_RDWR);
	assert_true(fd >= 0 && !fstat(fd, &st));
	assert_int_equal(pread(fd, &byte, 1, 5000), 1);
	byte ^= 0x10;
	assert_int_equal(pwrite(fd, &byte, 1, 5000), 1);
	assert_true(unpacked() != first);
	close(fd);
	/* cut, and longer */
	assert_int_equal(truncate(found.entry, 4000), 0);
	unpacked();
	assert_int_equal(truncate(found.entry, PLAIN_SIZE * 2), 0);
	unpacked();
	assert_int_equal(truncate(found.entry, 0), 0);
	unpacked();
	/* changed, and its times put back: found by contents only, when no link leads there */
	fd = open(found.entry, O_RDWR);
	assert_true(fd >= 0 && !fstat(fd, &st));
	first = st.st_ino;
	assert_int_equal(pwrite(fd, &byte, 1, 7), 1);
	assert_int_equal(futimens(fd, (struct timespec[2]){ st.st_atim, st.st_mtim }), 0);
	close(fd);
	make_bzimage(7); /* the same contents, other times */
	assert_true(unpacked() != first);
	/* not a file at all */
	assert_int_equal(unlink(found.entry), 0);
	assert_int_equal(mkfifo(found.entry, 0600), 0);
	unpacked();
	assert_int_equal(look().files, 1);
	assert_int_equal(look().others, 0);
}

static void what_cannot_be_kept_is_unpacked_all_the_same(void **state)
{
	(void)state;
	/* others may write there */
	assert_int_equal(mkdir(folder, 0700), 0);
	assert_int_equal(chmod(folder, 0777), 0);
	unpacked();
	assert_int_equal(look().files, 0);
	/* no folder */
	assert_int_equal(rmdir(folder), 0);
	close(open(folder, O_CREAT | O_WRONLY, 0600));
	unpacked();
	unlink(folder);
	setenv("XDG_CACHE_HOME", "relative", 1);
	unsetenv("HOME");
	unpacked();
	setenv("HOME", base, 1);
	unpacked();
	snprintf(folder, sizeof(folder), "%s/.cache/vmm", base);
	assert_int_equal(look().files, 1);
}

static void a_full_disk_costs_no_boot(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	pid = fork();
	if (!pid) {
		if (mkdir(folder, 0700) || unshare(CLONE_NEWNS) ||
		    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
		    mount("tmpfs", folder, "tmpfs", 0, "size=128k,mode=700"))
			_exit(77);
		unpacked();
		unpacked();
		_exit(look().files || look().others ? 1 : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(status, 0);
}

static void many_at_once_make_one(void **state)
{
	pid_t pids[12];
	int status;

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(pids); i++) {
		pids[i] = fork();
		if (!pids[i]) {
			for (u32 round = 0; round < 10; round++) {
				unpacked();
				/* and somebody meddles */
				if (round % 5 == i % 5 && *look().entry)
					unlink(look().entry);
			}
			_exit(0);
		}
	}
	for (u32 i = 0; i < ARRAY_SIZE(pids); i++) {
		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_int_equal(status, 0);
	}
	unpacked();
	assert_int_equal(look().files, 1);
	assert_int_equal(look().others, 0);
}

static void the_oldest_makes_room(void **state)
{
	static const char *const names[] = { "a", "b", "c" };
	char path[200];
	struct found found;

	(void)state;
	assert_int_equal(mkdir(folder, 0700), 0);
	for (u32 i = 0; i < ARRAY_SIZE(names); i++) {
		const struct timespec used[2] = { { .tv_sec = 1000000 + (i == 1 ? 0 : 1000) },
						  { .tv_sec = 2000000 } };

		snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
		close(open(path, O_CREAT | O_WRONLY, 0600));
		assert_int_equal(truncate(path, (off_t)KERNEL_CACHE_LIMIT / 3), 0);
		assert_int_equal(utimensat(AT_FDCWD, path, used, 0), 0);
	}
	assert_int_equal(symlink("b", strcat(strcpy(path, folder), "/link")), 0);
	unpacked();
	found = look();
	assert_int_equal(found.files, 1);
	assert_int_equal(found.others, 2);
	assert_int_equal(found.links, 0); /* went with what it led to */
	assert_true(found.bytes <= KERNEL_CACHE_LIMIT);
	snprintf(path, sizeof(path), "%s/b", folder);
	assert_int_equal(access(path, F_OK), -1);
}

static void what_is_cut_off_is_refused(void **state)
{
	u64 size;

	(void)state;
	assert_int_equal(kernel_unpack(bzimage_fd, "test", bzimage_size, 100, &size), -ENOEXEC);
	assert_int_equal(kernel_unpack(bzimage_fd, "test", ~0ull - 10, 100, &size), -ENOEXEC);
	assert_int_equal(kernel_unpack(bzimage_fd, "test", OFFSET, ~0ull, &size), -ENOEXEC);
	assert_int_equal(kernel_unpack(bzimage_fd, "test", OFFSET, 50, &size), -ENOEXEC);
	assert_int_equal(kernel_unpack(bzimage_fd, "test", 0, 500, &size), -ENOEXEC);
	assert_int_equal(look().files, 0);
	assert_int_equal(look().others, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sha256_is_sha256),
		cmocka_unit_test_setup_teardown(a_kernel_is_unpacked_once, up, down),
		cmocka_unit_test_setup_teardown(damage_is_noticed, up, down),
		cmocka_unit_test_setup_teardown(what_cannot_be_kept_is_unpacked_all_the_same, up,
						down),
		cmocka_unit_test_setup_teardown(a_full_disk_costs_no_boot, up, down),
		cmocka_unit_test_setup_teardown(many_at_once_make_one, up, down),
		cmocka_unit_test_setup_teardown(the_oldest_makes_room, up, down),
		cmocka_unit_test_setup_teardown(what_is_cut_off_is_refused, up, down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
