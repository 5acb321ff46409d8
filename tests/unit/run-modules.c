/* run/modules.c: versions, folders, load order, packed modules, and each line about what is wrong.
 * The order of real kernels' modules is compared with modprobe's by tests/guest/run-init.sh. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "packed.h"
#include "run/modules.h"
#include "vm/log.h"

#define VERSION "6.1.0-test_amd64+"

static char folder[] = "/tmp/run-modules-XXXXXX";
static char kernel[64];
static char said[512];

static void put(const char *name, const void *bytes, size_t size)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, size), size);
	close(fd);
}

static void put_text(const char *name, const char *text)
{
	put(name, text, strlen(text));
}

static void gone(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	unlink(path);
}

/* A bzImage's header, as far as its version. */
static void put_kernel(const char *banner)
{
	u8 image[0x600] = { 0 };

	memcpy(image + 0x202, "HdrS", 4);
	if (banner) {
		le16_store(image + 0x20e, 0x300);
		strcpy((char *)image + 0x500, banner);
	}
	put("bzImage", image, sizeof(image));
}

static int up(void **state)
{
	(void)state;
	if (!mkdtemp(folder))
		return -1;
	snprintf(kernel, sizeof(kernel), "%s/bzImage", folder);
	put_kernel(VERSION " (somebody@somewhere) #1 SMP");
	put_text("modules.dep", "kernel/a.ko:\n"
				"kernel/b.ko.xz: kernel/a.ko\n"
				"kernel/deep/c-d.ko.zst: kernel/b.ko.xz kernel/a.ko\n"
				"kernel/hard.ko:\n"
				"kernel/generic.ko:\n"
				"kernel/soft.ko: kernel/jbd.ko kernel/a.ko\n"
				"kernel/jbd.ko: kernel/a.ko\n"
				"kernel/round.ko:\n"
				"kernel/about.ko:\n"
				"kernel/back.ko:\n"
				"kernel/late.ko:\n");
	put_text("modules.softdep", "# Soft dependencies\n"
				    "softdep jbd pre: crypto-sum nothing post: late\n"
				    "softdep round pre: about\n"
				    "softdep about pre: round back\n"
				    "softdep back pre: round about\n"
				    "softdep a unsorted\n");
	put_text("modules.alias", "alias cpu:type:x86 hard\n"
				  "alias crypto-sum hard\n"
				  "alias crypto_sum generic\n"
				  "alias crypto-sums b\n");
	put_text("modules.builtin", "kernel/in/side.ko\nkernel/in/also-side.ko\n");
	return 0;
}

static int down(void **state)
{
	char line[64];

	(void)state;
	snprintf(line, sizeof(line), "rm -r %s", folder);
	return system(line);
}

static struct modules *opened(void)
{
	struct modules *m;

	assert_int_equal(modules_open(&m, kernel, folder), 0);
	assert_true(modules_known(m));
	assert_string_equal(modules_version(m), VERSION);
	return m;
}

static void has(const struct modules *m, const char *wanted)
{
	char text[256] = "";

	for (u32 i = 0; i < modules_count(m); i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s ",
			 modules_name(m, i));
	assert_string_equal(text, wanted);
}

static void what_a_module_needs_comes_first(void **state)
{
	struct modules *m = opened();

	(void)state;
	assert_int_equal(modules_want(m, "c_d", NULL), 1);
	has(m, "a.ko b.ko c-d.ko ");
	assert_int_equal(modules_want(m, "b", NULL), 1);
	assert_int_equal(modules_want(m, "c-d", NULL), 1);
	has(m, "a.ko b.ko c-d.ko ");
	modules_close(m);
}

/* Both kinds of dash are one; every module of an alias counts; post: comes behind. */
static void soft_dependencies_are_followed(void **state)
{
	struct modules *m = opened();

	(void)state;
	assert_int_equal(modules_want(m, "soft", NULL), 1);
	has(m, "a.ko hard.ko generic.ko jbd.ko late.ko soft.ko ");
	modules_close(m);
}

static void circles_end(void **state)
{
	struct modules *m = opened();

	(void)state;
	assert_int_equal(modules_want(m, "round", NULL), 1);
	has(m, "back.ko about.ko round.ko ");
	modules_close(m);
}

static void built_in_is_nothing_to_load(void **state)
{
	struct modules *m = opened();

	(void)state;
	assert_int_equal(modules_want(m, "side", "the test"), 0);
	assert_int_equal(modules_want(m, "also_side", "the test"), 0);
	has(m, "");
	modules_close(m);
}

static void what_is_missing_is_named_with_its_config(void **state)
{
	struct modules *m = opened();

	(void)state;
	log_capture(said, sizeof(said));
	assert_int_equal(modules_want(m, "9p", NULL), -ENOENT);
	assert_string_equal(said, "");
	assert_int_equal(modules_want(m, "9p", "a folder as root"), -ENOENT);
	log_capture(NULL, 0);
	assert_non_null(strstr(said, "(" VERSION ") has no 9p, which a folder as root needs"));
	assert_non_null(strstr(said, "CONFIG_9P_FS"));
	has(m, "");
	modules_close(m);
}

static void refused(const char *k, const char *given, int error, const char *why)
{
	struct modules *m;

	log_capture(said, sizeof(said));
	assert_int_equal(modules_open(&m, k, given), error);
	log_capture(NULL, 0);
	if (!strstr(said, why))
		fail_msg("no '%s' in '%s'", why, said);
}

static void folders_are_found(void **state)
{
	char path[128], root[64];
	struct modules *m;

	(void)state;
	snprintf(path, sizeof(path),
		 "mkdir -p %s/root/lib/modules && ln -s ../../.. %s/root/lib/modules/" VERSION,
		 folder, folder);
	assert_int_equal(system(path), 0);
	snprintf(root, sizeof(root), "%s/root", folder);
	assert_int_equal(modules_open(&m, kernel, root), 0);
	assert_int_equal(modules_want(m, "b", NULL), 1);
	modules_close(m);
	snprintf(root, sizeof(root), "%s/root/lib/modules", folder);
	assert_int_equal(modules_open(&m, kernel, root), 0);
	assert_int_equal(modules_want(m, "b", NULL), 1);
	modules_close(m);
	snprintf(root, sizeof(root), "%s/root/lib", folder);
	refused(kernel, root, -ENOENT, "no modules.dep in it, nor in lib/modules/" VERSION);
	/* no folder given, and none of that version: all is taken for built in */
	assert_int_equal(modules_open(&m, kernel, NULL), 0);
	assert_false(modules_known(m));
	assert_int_equal(modules_want(m, "b", "the test"), 0);
	assert_int_equal(modules_count(m), 0);
	modules_close(m);
}

static void versions_are_read(void **state)
{
	char version[KERNEL_VERSION_ROOM], path[64];
	char *elf = calloc(1, MIB(2) + 100);

	(void)state;
	assert_int_equal(kernel_version(kernel, version), 0);
	assert_string_equal(version, VERSION);
	put_kernel(NULL);
	assert_int_equal(kernel_version(kernel, version), -ENODATA);
	refused(kernel, folder, -ENODATA, "does not tell its version");
	put_kernel("../../etc #1");
	assert_int_equal(kernel_version(kernel, version), -ENODATA);
	put_kernel(VERSION " (somebody@somewhere) #1 SMP");
	/* an ELF kernel, whose banner lies across the blocks it is read in, after a format string
	 */
	memcpy(elf, "\177ELF", 4);
	strcpy(elf + 5000, "Linux version %s");
	strcpy(elf + MIB(1) - 20, "Linux version 5.15.0-rc1 (x) #1");
	put("elf", elf, MIB(2) + 100);
	snprintf(path, sizeof(path), "%s/elf", folder);
	assert_int_equal(kernel_version(path, version), 0);
	assert_string_equal(version, "5.15.0-rc1");
	put("elf", elf, MIB(1) - 25);
	assert_int_equal(kernel_version(path, version), -ENODATA);
	put("elf", elf, 3);
	assert_int_equal(kernel_version(path, version), -ENODATA);
	free(elf);
	log_capture(said, sizeof(said));
	assert_int_equal(kernel_version("/nowhere/kernel", version), -ENOENT);
	log_capture(NULL, 0);
	assert_non_null(strstr(said, "/nowhere/kernel: cannot read the kernel"));
	/* that is not a kernel which tells nothing */
	refused("/nowhere/kernel", NULL, -ENOENT, "cannot read the kernel");
}

static int read_of(const char *name, u8 **bytes, u64 *size)
{
	struct modules *m = opened();
	int ret;

	assert_int_equal(modules_want(m, name, NULL), 1);
	log_capture(said, sizeof(said));
	ret = modules_read(m, modules_count(m) - 1, bytes, size);
	log_capture(NULL, 0);
	modules_close(m);
	return ret;
}

static void wrong(const char *name, int error, const char *why)
{
	u8 *bytes;
	u64 size;

	assert_int_equal(read_of(name, &bytes, &size), error);
	if (!strstr(said, why))
		fail_msg("no '%s' in '%s'", why, said);
}

/* plain as a module for that version, the packed files from it */
static void make_module(const char *version)
{
	make_plain(7);
	memset(plain + 1000, 0, 200);
	snprintf((char *)plain + 1001, 100, "vermagic=%s SMP mod_unload", version);
}

static void modules_come_unpacked(void **state)
{
	static const struct {
		u32 packer, trailer;
		const char *file, *name;
	} kinds[] = {
		{ 1, 4, "kernel/b.ko.xz", "b" },
		{ 2, 4, "kernel/deep/c-d.ko.zst", "c_d" },
		{ 0, 0, "kernel/a.ko", "a" }, /* by its bytes, not by its name */
	};
	static u8 packed[PACKED_ROOM];
	char line[64];
	u8 *bytes;
	u64 size;

	(void)state;
	snprintf(line, sizeof(line), "mkdir -p %s/kernel/deep", folder);
	assert_int_equal(system(line), 0);
	make_module(VERSION);
	for (u32 i = 0; i < ARRAY_SIZE(kinds); i++) {
		u32 length = packers[kinds[i].packer](packed) - kinds[i].trailer;

		put(kinds[i].file, packed, length);
		assert_int_equal(read_of(kinds[i].name, &bytes, &size), 0);
		assert_int_equal(size, PLAIN_SIZE);
		assert_memory_equal(bytes, plain, PLAIN_SIZE);
		free(bytes);
		put(kinds[i].file, packed, length / 2);
		wrong(kinds[i].name, -ENOEXEC, "the packed file");
	}
	put("kernel/a.ko", plain, PLAIN_SIZE);
	assert_int_equal(read_of("a", &bytes, &size), 0);
	assert_memory_equal(bytes, plain, PLAIN_SIZE);
	free(bytes);
}

static void modules_that_do_not_fit_are_refused(void **state)
{
	(void)state;
	gone("kernel/a.ko");
	wrong("a", -ENOENT, "kernel/a.ko: cannot be read: No such file");
	put_text("kernel/a.ko", "-----BEGIN something that is no ELF file and no packed one");
	wrong("a", -ENOEXEC, "not a module");
	make_module("6.1.0-other");
	put("kernel/a.ko", plain, PLAIN_SIZE);
	wrong("a", -ENOEXEC, "a module for 6.1.0-other, but ");
	/* a version that begins alike is another */
	make_module(VERSION "1");
	put("kernel/a.ko", plain, PLAIN_SIZE);
	wrong("a", -ENOEXEC, "a module for " VERSION "1, but ");
}

static void indexes_that_are_damaged_end_somewhere(void **state)
{
	static const char *const texts[] = { "",
					     "\n\n",
					     ":",
					     "kernel/a.ko",
					     "a.ko: :::",
					     "kernel/a.ko:    \n",
					     "softdep",
					     "alias",
					     "alias x",
					     "softdep a pre:",
					     "kernel/a.ko: x y z\n" };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(texts); i++) {
		struct modules *m;

		put_text("modules.dep", texts[i]);
		put_text("modules.softdep", texts[i]);
		put_text("modules.alias", texts[i]);
		put_text("modules.builtin", "");
		m = opened();
		log_capture(said, sizeof(said));
		modules_want(m, "a", "the test");
		modules_want(m, "z", "the test");
		log_capture(NULL, 0);
		assert_true(modules_count(m) <= 1);
		modules_close(m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_a_module_needs_comes_first),
		cmocka_unit_test(soft_dependencies_are_followed),
		cmocka_unit_test(circles_end),
		cmocka_unit_test(built_in_is_nothing_to_load),
		cmocka_unit_test(what_is_missing_is_named_with_its_config),
		cmocka_unit_test(folders_are_found),
		cmocka_unit_test(versions_are_read),
		cmocka_unit_test(modules_come_unpacked),
		cmocka_unit_test(modules_that_do_not_fit_are_refused),
		cmocka_unit_test(indexes_that_are_damaged_end_somewhere),
	};

	return cmocka_run_group_tests(tests, up, down);
}
