/* run/initramfs.c and image-type.c: what cpio(1) finds in the archive is what was put there. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "run/initramfs.h"
#include "run/protocol.h"

/* What the command prints when the file is its standard input; its status must be 0. */
static void said(char *text, size_t room, int fd, const char *command)
{
	char line[300];
	size_t n;
	FILE *f;

	snprintf(line, sizeof(line), "exec </proc/self/fd/%d; %s", fd, command);
	f = popen(line, "r");
	assert_non_null(f);
	n = fread(text, 1, room - 1, f);
	text[n] = '\0';
	assert_int_equal(pclose(f), 0);
}

static int made(const struct bytes *conf)
{
	int fd = initramfs_make(NULL, conf);

	assert_true(fd >= 0);
	/* The child of popen() shall have it. */
	assert_int_equal(fcntl(fd, F_SETFD, 0), 0);
	return fd;
}

static void cpio_lists_all_of_it(void **state)
{
	struct bytes conf = { 0 };
	char text[4096];
	int fd;

	(void)state;
	run_conf_add(&conf, "root", "9p:root");
	fd = made(&conf);
	said(text, sizeof(text), fd, "cpio -t --quiet");
	assert_string_equal(text, "dev\nproc\nsys\nmodules\ndev/console\ninit\nrun.conf\n");
	said(text, sizeof(text), fd, "cpio -tvn --quiet | awk '{ print $1, $3, $4 }'");
	assert_string_equal(text, "drwxr-xr-x 0 0\ndrwxr-xr-x 0 0\ndrwxr-xr-x 0 0\ndrwxr-xr-x 0 0\n"
				  "crw------- 0 0\n-rwxr-xr-x 0 0\n-rw------- 0 0\n");
	said(text, sizeof(text), fd, "cpio -tvn --quiet | grep -c ' 5, *1 .* dev/console$'");
	assert_string_equal(text, "1\n");
	close(fd);
	free(conf.start);
}

static void init_comes_out_as_it_was_built(void **state)
{
	struct bytes conf = { 0 };
	char text[64];
	int fd = made(&conf);

	(void)state;
	said(text, sizeof(text), fd,
	     "cpio -i --quiet --to-stdout init | cmp - build/run-init && echo same");
	assert_string_equal(text, "same\n");
	close(fd);
}

static void conf_keeps_order_and_bytes(void **state)
{
	static const char whole[] = "root=blk:/dev/vda\0env=A=1\0env=B=\0arg=two words\n\0arg=\0"
				    "uid=4294967294";
	struct bytes conf = { 0 };
	char text[256];
	int fd;

	(void)state;
	run_conf_add(&conf, "root", "blk:/dev/vda");
	run_conf_add(&conf, "env", "A=1");
	run_conf_add(&conf, "env", "B=");
	run_conf_add(&conf, "arg", "two words\n");
	run_conf_add(&conf, "arg", "");
	run_conf_add_number(&conf, "uid", 4294967294u);
	assert_int_equal(conf.size, sizeof(whole));
	assert_memory_equal(conf.start, whole, sizeof(whole));
	fd = made(&conf);
	said(text, sizeof(text), fd, "cpio -i --quiet --to-stdout " RUN_CONF " | wc -c");
	assert_int_equal(atoi(text), sizeof(whole));
	said(text, sizeof(text), fd, "cpio -i --quiet --to-stdout " RUN_CONF " | tr '\\0' '|'");
	assert_string_equal(
		text, "root=blk:/dev/vda|env=A=1|env=B=|arg=two words\n|arg=|uid=4294967294|");
	close(fd);
	free(conf.start);
}

/* Every length of name and data, so that both paddings take every value. */
static void any_length_is_found_again(void **state)
{
	struct bytes archive = { 0 };
	const char *names[] = { "a", "ab", "abc", "abcd", "abcde" };
	char text[256];
	int fd;

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(names); i++)
		cpio_add(&archive, names[i], S_IFREG | 0644, "12345678", i);
	cpio_end(&archive);
	assert_false(archive.failed);
	assert_int_equal(archive.size % 4, 0);
	fd = memfd_create("archive", 0);
	assert_int_equal(write(fd, archive.start, archive.size), archive.size);
	said(text, sizeof(text), fd, "cpio -tv --quiet | awk '{ print $5, $9 }'");
	assert_string_equal(text, "0 a\n1 ab\n2 abc\n3 abcd\n4 abcde\n");
	said(text, sizeof(text), fd, "cpio -i --quiet --to-stdout");
	assert_string_equal(text, "1121231234");
	close(fd);
	free(archive.start);
}

static void nobody_changes_it(void **state)
{
	struct bytes conf = { 0 };
	int fd = made(&conf);

	(void)state;
	assert_int_equal(pwrite(fd, "x", 1, 0), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(fd, 0), -1);
	close(fd);
}

static void image_types(void **state)
{
	static const struct {
		const char *type, *magic;
		off_t at;
	} images[] = {
		{ "ext4", "\x53\xef", 1080 },	{ "xfs", "XFSB", 0 },
		{ "btrfs", "_BHRfS_M", 65600 }, { "squashfs", "hsqs", 0 },
		{ NULL, "LABELONE", 512 },	{ NULL, "XFSC", 0 },
		{ NULL, "\x53", 1080 }, /* cut off */
	};

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(images); i++) {
		size_t size = strlen(images[i].magic);
		int fd = memfd_create("image", 0);

		assert_int_equal(pwrite(fd, images[i].magic, size, images[i].at), size);
		if (images[i].type)
			assert_string_equal(image_type(fd), images[i].type);
		else
			assert_null(image_type(fd));
		close(fd);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cpio_lists_all_of_it),
		cmocka_unit_test(init_comes_out_as_it_was_built),
		cmocka_unit_test(conf_keeps_order_and_bytes),
		cmocka_unit_test(any_length_is_found_again),
		cmocka_unit_test(nobody_changes_it),
		cmocka_unit_test(image_types),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
