/* Guest RAM: which ranges exist, what a clear gives back, what is refused. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>
#include <cmocka.h>

#include "vm/kvm.h"
#include "vm/memory.h"

/* Log lines are checked for what they say: stderr goes to a file meanwhile. */
static FILE *caught;
static int saved_stderr;

static void catch_lines(void)
{
	caught = tmpfile();
	assert_non_null(caught);
	fflush(stderr);
	saved_stderr = dup(STDERR_FILENO);
	dup2(fileno(caught), STDERR_FILENO);
}

static void assert_line(const char *word)
{
	char line[4096] = "";

	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	rewind(caught);
	assert_non_null(fgets(line, sizeof(line), caught));
	assert_non_null(strstr(line, "vmm: memory: "));
	if (!strstr(line, word))
		fail_msg("no '%s' in: %s", word, line);
	assert_null(fgets(line, sizeof(line), caught)); /* one line */
	fclose(caught);
}

/* How much of the process is in RAM, in KiB. */
static u64 resident(void)
{
	unsigned long long size, pages = 0;
	FILE *file = fopen("/proc/self/statm", "r");

	assert_non_null(file);
	assert_int_equal(fscanf(file, "%llu %llu", &size, &pages), 2);
	fclose(file);
	return pages * 4;
}

static void test_low_only(void **state)
{
	struct memory m;

	(void)state;
	assert_int_equal(memory_create(&m, NULL, MIB(64), MEMORY_PAGES_DEFAULT), 0);
	assert_int_equal(m.low_size, MIB(64));
	assert_int_equal(m.high_size, 0);
	assert_int_equal(memory_end(&m), GIB(4));
	assert_ptr_equal(memory_at(&m, 0, 1), m.low);
	assert_ptr_equal(memory_at(&m, 0, MIB(64)), m.low);
	assert_ptr_equal(memory_at(&m, MIB(64) - 1, 1), m.low + MIB(64) - 1);
	assert_ptr_equal(memory_at(&m, 5, 0), m.low + 5);
	assert_null(memory_at(&m, MIB(64) - 1, 2));
	assert_null(memory_at(&m, MIB(64), 0));
	assert_null(memory_at(&m, 0, MIB(64) + 1));
	assert_null(memory_at(&m, 1, UINT64_MAX));
	assert_null(memory_at(&m, UINT64_MAX, 1));
	assert_null(memory_at(&m, UINT64_MAX, UINT64_MAX));
	assert_null(memory_at(&m, GIB(4), 1));
	assert_null(memory_at(&m, GIB(4), 0));
	memory_destroy(&m);
	memory_destroy(&m);
}

/* The kernel gives address space for 3 GiB and more without touching it; skipped where it can't. */
static void test_hole(void **state)
{
	struct sysinfo info;
	u64 size = GIB(3) + MIB(64), before = resident();
	struct memory m;

	(void)state;
	assert_int_equal(sysinfo(&info), 0);
	if (((u64)info.totalram + info.totalswap) * info.mem_unit < size) {
		print_message("skipped: less than %llu MiB of RAM here\n",
			      (unsigned long long)(size >> 20));
		skip();
	}
	assert_int_equal(memory_create(&m, NULL, size, MEMORY_PAGES_DEFAULT), 0);
	assert_true(resident() < before + 8192);
	assert_int_equal((uintptr_t)m.low % MIB(2), 0);
	assert_int_equal((uintptr_t)m.high % MIB(2), 0);
	assert_int_equal(memory_end(&m), GIB(4) + MIB(64));
	/* either side of the hole, and nothing across it */
	assert_ptr_equal(memory_at(&m, GIB(3) - 4, 4), m.low + GIB(3) - 4);
	assert_null(memory_at(&m, GIB(3) - 4, 5));
	assert_null(memory_at(&m, GIB(3), 1));
	assert_null(memory_at(&m, GIB(4) - 1, 1));
	assert_null(memory_at(&m, GIB(4) - 1, 2));
	assert_ptr_equal(memory_at(&m, GIB(4), MIB(64)), m.high);
	assert_null(memory_at(&m, GIB(4), MIB(64) + 1));
	assert_null(memory_at(&m, GIB(4) + MIB(64), 1));
	/* they are different memory */
	memset(memory_at(&m, GIB(3) - 4, 4), 0xaa, 4);
	memset(memory_at(&m, GIB(4), 4), 0xbb, 4);
	memset(memory_at(&m, GIB(4) + MIB(64) - 4, 4), 0xcc, 4);
	assert_int_equal(m.low[GIB(3) - 1], 0xaa);
	assert_int_equal(m.high[0], 0xbb);
	memory_destroy(&m);
}

static void test_clear(void **state)
{
	u64 before;
	struct memory m;

	(void)state;
	assert_int_equal(memory_create(&m, NULL, MIB(64), MEMORY_PAGES_DEFAULT), 0);
	before = resident();
	memset(m.low, 0x5a, MIB(64));
	assert_true(resident() > before + 60000);
	memory_clear(&m);
	assert_true(resident() < before + 10000);
	for (u64 at = 0; at < MIB(64); at += 4096)
		assert_int_equal(m.low[at], 0);
	memory_destroy(&m);
}

static void test_clear_locked(void **state)
{
	struct memory m;

	(void)state;
	assert_int_equal(memory_create(&m, NULL, KIB(64), MEMORY_PAGES_DEFAULT), 0);
	/* ASan makes mlock() a no-op */
	if (syscall(SYS_mlock, m.low, KIB(64))) {
		memory_destroy(&m);
		print_message("skipped: mlock: %s\n", strerror(errno));
		skip();
	}
	memset(m.low, 0x5a, KIB(64));
	memory_clear(&m);
	for (u64 at = 0; at < KIB(64); at++)
		assert_int_equal(m.low[at], 0);
	memory_destroy(&m);
}

static void test_refused(void **state)
{
	struct kvm kvm = { .fd = -1, .vm = -1, .physical_bits = 39 };
	struct memory m;

	(void)state;
	catch_lines();
	assert_int_equal(memory_create(&m, NULL, 0, MEMORY_PAGES_DEFAULT), -EINVAL);
	assert_line("round");
	catch_lines();
	assert_int_equal(memory_create(&m, NULL, MIB(64) + 1, MEMORY_PAGES_DEFAULT), -EINVAL);
	assert_line("4 KiB");
	catch_lines();
	assert_int_equal(memory_create(&m, NULL, MIB(65), MEMORY_PAGES_2M), -EINVAL);
	assert_line("2048 KiB");
	catch_lines();
	assert_int_equal(memory_create(&m, &kvm, GIB(512), MEMORY_PAGES_DEFAULT), -E2BIG);
	assert_line("39 address bits");
	catch_lines();
	assert_int_equal(memory_create(&m, &kvm, UINT64_MAX - 4095, MEMORY_PAGES_DEFAULT), -E2BIG);
	assert_line("39 address bits");
	/* within the width, and more than any host of these tests */
	kvm.physical_bits = 52;
	catch_lines();
	assert_int_equal(memory_create(&m, &kvm, GIB(1) << 20, MEMORY_PAGES_DEFAULT), -ENOMEM);
	assert_line("of RAM and swap");
	memory_destroy(&m);
}

static long pool(const char *path, long value)
{
	FILE *file = fopen(path, value < 0 ? "r" : "w");
	long now = -1;

	if (!file)
		return -1;
	if (value < 0 ? fscanf(file, "%ld", &now) != 1 : fprintf(file, "%ld", value) < 0)
		now = -1;
	fclose(file);
	return now;
}

#define POOL_2M "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"

static void test_hugetlb(void **state)
{
	long before = pool(POOL_2M, -1);
	struct memory m;

	(void)state;
	if (before < 0) {
		print_message("skipped: no pool of 2 MiB pages in this kernel\n");
		skip();
	}
	/* more than the pool has: the line says how to fill it */
	catch_lines();
	assert_int_equal(memory_create(&m, NULL, MIB(2) * (u64)(before + 100000), MEMORY_PAGES_2M),
			 -ENOMEM);
	assert_line("nr_hugepages");

	pool(POOL_2M, before + 8);
	if (pool(POOL_2M, -1) != before + 8) {
		pool(POOL_2M, before);
		print_message("skipped: 8 huge pages are not to be had here\n");
		skip();
	}
	assert_int_equal(memory_create(&m, NULL, MIB(16), MEMORY_PAGES_2M), 0);
	memset(m.low, 0x5a, MIB(16));
	memory_clear(&m);
	assert_int_equal(m.low[0], 0);
	assert_int_equal(m.low[MIB(16) - 1], 0);
	memory_clear(&m);
	/* after a clear the pages are still ours: nobody else gets them */
	if (before == 0) {
		catch_lines();
		assert_int_equal(
			memory_create(&(struct memory){ 0 }, NULL, MIB(16), MEMORY_PAGES_2M),
			-ENOMEM);
		assert_line("8 huge pages of 2M needed, 0 free");
	}
	memory_destroy(&m);
	pool(POOL_2M, before);
}

static void test_no_pool(void **state)
{
	struct memory m;

	(void)state;
	if (!access("/sys/kernel/mm/hugepages/hugepages-1048576kB", F_OK)) {
		print_message("skipped: this host has 1 GiB pages\n");
		skip();
	}
	catch_lines();
	assert_int_not_equal(memory_create(&m, NULL, GIB(1), MEMORY_PAGES_1G), 0);
	assert_line("hugepages=2M");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_low_only), cmocka_unit_test(test_hole),
		cmocka_unit_test(test_clear),	 cmocka_unit_test(test_clear_locked),
		cmocka_unit_test(test_refused),	 cmocka_unit_test(test_hugetlb),
		cmocka_unit_test(test_no_pool),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
