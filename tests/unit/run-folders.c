/* run/folders.c: which folders of the host a guest has, where a mount point or the guest's own file
 * systems stand between.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "run/setup.h"

static struct config config;
static struct setup setup;
static bool mounts; /* may be made */

static void shares(const char *here)
{
	setup_free(&setup);
	memset(&setup, 0, sizeof(setup));
	assert_int_equal(chdir(here), 0);
	assert_int_equal(setup_shares(&setup, &config), 0);
}

static void refuse(int error)
{
	setup_free(&setup);
	memset(&setup, 0, sizeof(setup));
	assert_int_equal(setup_shares(&setup, &config), error);
}

/* The one with this path; NULL: none. */
static const struct setup_share *find(const char *path)
{
	for (u32 i = 0; i < setup.share_count; i++)
		if (!strcmp(setup.shares[i].path, path))
			return &setup.shares[i];
	return NULL;
}

/* Mounts of our own, over folders that are empty or ours. */
static int set_up(void **state)
{
	(void)state;
	mounts = !unshare(CLONE_NEWNS);
	if (mounts && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		mounts = false;
	if (mounts && mount("mnt", "/mnt", "tmpfs", 0, NULL))
		mounts = false;
	if (mounts && (mkdir("/mnt/a", 0755) || mkdir("/mnt/a/b", 0755) ||
		       mkdir("/mnt/disk", 0755) || mkdir("/mnt/disk/c", 0755)))
		return -1;
	mkdir("/tmp/vmm-test-folders", 0755);
	return mkdir("/tmp/vmm-test-folders/sub", 0755) && errno != EEXIST;
}

static int tear_down(void **state)
{
	(void)state;
	setup_free(&setup);
	rmdir("/tmp/vmm-test-folders/sub");
	return rmdir("/tmp/vmm-test-folders");
}

static void test_host_root(void **state)
{
	(void)state;
	memset(&config, 0, sizeof(config));
	shares("/");
	assert_string_equal(setup.shares[0].path, "/");
	assert_null(setup.shares[0].host);
	assert_false(setup.shares[0].writable);
	assert_string_equal(setup.cwd, "/");
	/* on the root's own mount: it is there already */
	shares("/etc");
	assert_null(find("/etc"));
	assert_string_equal(setup.cwd, "/etc");
	/* beneath a file system that the guest has itself */
	shares("/tmp/vmm-test-folders/sub");
	assert_non_null(find("/tmp/vmm-test-folders/sub"));
	assert_null(find("/tmp"));
	assert_false(find("/tmp/vmm-test-folders/sub")->writable);
	assert_string_equal(setup.cwd, "/tmp/vmm-test-folders/sub");
}

static void test_mounts(void **state)
{
	(void)state;
	if (!mounts) {
		print_message("skip: mounts cannot be made here\n");
		skip();
	}
	memset(&config, 0, sizeof(config));
	/* with the whole of its mount */
	shares("/mnt/a/b");
	assert_non_null(find("/mnt"));
	assert_null(find("/mnt/a/b"));
	assert_string_equal(setup.cwd, "/mnt/a/b");
	/* what may be written lies above what is only seen */
	config.run.rw[0] = "/mnt/a";
	config.run.rw_count = 1;
	shares("/mnt/a/b");
	assert_true(find("/mnt/a")->writable);
	assert_false(find("/mnt")->writable);
	assert_string_equal(setup.shares[setup.share_count - 1].path, "/mnt/a");
	/* another folder on it, by --cwd */
	config.run.rw_count = 0;
	config.run.cwd = "/mnt/disk/c";
	shares("/");
	assert_non_null(find("/mnt"));
	assert_string_equal(setup.cwd, "/mnt/disk/c");
}

static void test_writable(void **state)
{
	(void)state;
	memset(&config, 0, sizeof(config));
	config.run.rw[0] = ".";
	config.run.rw[1] = "/tmp/../tmp/vmm-test-folders";
	config.run.rw_count = 1;
	shares("/tmp/vmm-test-folders");
	assert_true(find("/tmp/vmm-test-folders")->writable);
	assert_int_equal(setup.share_count, find("/usr") ? 3 : 2);
	/* the same twice, and the current folder within */
	config.run.rw_count = 2;
	shares("/tmp/vmm-test-folders/sub");
	assert_true(find("/tmp/vmm-test-folders")->writable);
	config.run.rw[0] = "/tmp/vmm-test-folders";
	shares("/tmp/vmm-test-folders/sub");
	assert_null(find("/tmp/vmm-test-folders/sub"));
	assert_string_equal(setup.cwd, "/tmp/vmm-test-folders/sub");
	/* not the host's whole root, not a file, not nothing */
	config.run.rw_count = 1;
	config.run.rw[0] = "/";
	refuse(-EINVAL);
	config.run.rw[0] = "/etc/passwd";
	refuse(-ENOTDIR);
	config.run.rw[0] = "/no/such/folder";
	refuse(-ENOENT);
}

static void test_other_roots(void **state)
{
	(void)state;
	memset(&config, 0, sizeof(config));
	config.run.root = "/tmp/vmm-test-folders";
	shares("/etc");
	assert_string_equal(setup.shares[0].path, "/");
	assert_string_equal(setup.shares[0].host, "/tmp/vmm-test-folders");
	/* another root: the current folder is seen there only by itself */
	assert_non_null(find("/etc"));
	assert_false(setup.image);
	/* an image: nothing is shared that is not asked for */
	config.run.root = "/etc/passwd";
	shares("/etc");
	assert_true(setup.image);
	assert_int_equal(setup.share_count, 0);
	assert_string_equal(setup.cwd, "/");
	config.run.rw[0] = "/tmp/vmm-test-folders";
	config.run.rw_count = 1;
	shares("/etc");
	assert_int_equal(setup.share_count, 1);
	config.run.root = "/dev/null";
	refuse(-EINVAL);
	config.run.root = "/no/such/root";
	refuse(-ENOENT);
}

static void test_user(void **state)
{
	FILE *f;

	(void)state;
	memset(&config, 0, sizeof(config));
	shares("/etc");
	assert_int_equal(setup_user(&setup, &config), 0);
	assert_int_equal(setup.user.uid, getuid());
	assert_int_equal(setup.user.gid, getgid());
	/* of a root of its own */
	mkdir("/tmp/vmm-test-folders/etc", 0755);
	f = fopen("/tmp/vmm-test-folders/etc/passwd", "w");
	assert_non_null(f);
	fputs("root:x:0:0::/root:/bin/sh\ntester:x:1234:99:T:/home/t:/bin/zsh\n", f);
	fclose(f);
	f = fopen("/tmp/vmm-test-folders/etc/group", "w");
	assert_non_null(f);
	fputs("kvm:x:77:other,tester\nstaff:x:88:\nlast:x:66:tester\n", f);
	fclose(f);
	config.run.root = "/tmp/vmm-test-folders";
	config.run.user = "tester";
	shares("/etc");
	assert_int_equal(setup_user(&setup, &config), 0);
	assert_int_equal(setup.user.uid, 1234);
	assert_int_equal(setup.user.gid, 99);
	assert_int_equal(setup.user.group_count, 2);
	assert_int_equal(setup.user.groups[0], 77);
	assert_int_equal(setup.user.groups[1], 66);
	assert_string_equal(setup.user.home, "/home/t");
	assert_string_equal(setup.user.shell, "/bin/zsh");
	config.run.user = "1234:staff";
	shares("/etc");
	assert_int_equal(setup_user(&setup, &config), 0);
	assert_string_equal(setup.user.name, "tester");
	assert_int_equal(setup.user.gid, 88);
	/* a number that nobody has */
	config.run.user = "4321";
	shares("/etc");
	assert_int_equal(setup_user(&setup, &config), 0);
	assert_int_equal(setup.user.uid, 4321);
	assert_int_equal(setup.user.gid, 4321);
	config.run.user = "4321:55";
	shares("/etc");
	assert_int_equal(setup_user(&setup, &config), 0);
	assert_int_equal(setup.user.gid, 55);
	config.run.user = "nobody-there";
	assert_int_equal(setup_user(&setup, &config), -ENOENT);
	config.run.user = "tester:nothing";
	assert_int_equal(setup_user(&setup, &config), -ENOENT);
	unlink("/tmp/vmm-test-folders/etc/passwd");
	unlink("/tmp/vmm-test-folders/etc/group");
	rmdir("/tmp/vmm-test-folders/etc");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_host_root), cmocka_unit_test(test_mounts),
		cmocka_unit_test(test_writable),  cmocka_unit_test(test_other_roots),
		cmocka_unit_test(test_user),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
