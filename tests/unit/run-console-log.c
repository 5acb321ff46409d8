/* run/console-log.c: a console cut into pieces, what is found in it, what is kept of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>
#include "run/console-log.h"

static struct run_result result;
static struct console_log console;

static void begin(const char *path)
{
	memset(&result, 0, sizeof(result));
	result.start = 1000000000;
	assert_int_equal(console_log_open(&console, &result, path), 0);
}

/* In pieces of this size, at 2.5 s. */
static void feed(const char *text, size_t piece)
{
	for (size_t at = 0, length = strlen(text); at < length; at += piece)
		console_log_feed(&console, (const u8 *)text + at,
				 length - at < piece ? length - at : piece, 3500000000ull);
}

static const char oops[] =
	"[    1.000000] random: crng init done\r\n"
	"[    2.000001] BUG: kernel NULL pointer dereference, address: 0000000000000000\r\n"
	"[    2.000002] #PF: supervisor write access in kernel mode\r\n"
	"[    2.000003] Oops: 0002 [#1] PREEMPT SMP NOPTI\r\n"
	"[    2.000004] Call Trace:\r\n"
	"[    2.000005] ---[ end trace 0000000000000000 ]---\r\n"
	"[    2.000006] after\r\n";

static const char panic[] =
	"[    3.000000] Kernel panic - not syncing: sysrq triggered crash\r\n"
	"[    3.000001] CPU: 0 PID: 1 Comm: sh Not tainted\r\n"
	"[    3.000002] ---[ end Kernel panic - not syncing: sysrq triggered crash ]---\r\n"
	"[    3.000003] rebooting\r\n";

static void test_oops(void **state)
{
	(void)state;
	for (size_t piece = 1; piece < 100; piece += 7) {
		begin(NULL);
		feed(oops, piece);
		assert_int_equal(result.oopses, 1);
		assert_int_equal(result.warnings, 0);
		assert_memory_equal(result.message, "BUG: kernel NULL", 16);
		assert_memory_equal(result.crash, "BUG: kernel NULL", 16);
		assert_non_null(strstr(result.crash, "Call Trace:\n---[ end trace"));
		assert_null(strstr(result.crash, "after"));
		assert_non_null(strstr(result.tail, "crng init done\n[    2.000001] BUG"));
		assert_null(strchr(result.tail, '\r'));
		assert_string_equal(result.reason, "");
	}
}

static void test_panic(void **state)
{
	(void)state;
	begin(NULL);
	feed(oops, 13);
	feed(panic, 13);
	assert_int_equal(result.oopses, 1);
	assert_string_equal(result.reason, "Kernel panic - not syncing: sysrq triggered crash");
	assert_memory_equal(result.crash, "Kernel panic", 12);
	assert_null(strstr(result.crash, "rebooting"));
	assert_false(console_rootless(result.crash));

	/* within an oops that has not ended, both are kept */
	begin(NULL);
	feed("[    1.0] BUG: unable to handle page fault for address: ffff\n", 9);
	feed(panic, 9);
	assert_int_equal(result.oopses, 1);
	assert_memory_equal(result.crash, "BUG: unable", 11);
	assert_non_null(strstr(result.crash, "---[ end Kernel panic"));

	begin(NULL);
	feed("[    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs on "
	     "unknown-block(0,0)\n",
	     5);
	assert_true(console_rootless(result.crash));
}

static void test_warnings(void **state)
{
	static const char *const warn[] = {
		"WARNING: CPU: 0 PID: 7 at kernel/x.c:1 f+0x1/0x2",
		"WARNING: possible circular locking dependency detected",
		"UBSAN: array-index-out-of-bounds in a.c:1:2",
		"INFO: task sh:7 blocked for more than 120 seconds.",
		"rcu: INFO: rcu_preempt self-detected stall on CPU",
		"rcu: INFO: rcu_sched detected stalls on CPUs/tasks:",
	};
	static const char *const bad[] = {
		"BUG: KASAN: use-after-free in f+0x1/0x2",
		"BUG: sleeping function called from invalid context at a.c:1",
		"watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [sh:7]",
		"kernel BUG at mm/slub.c:1!",
		"invalid opcode: 0000 [#1] SMP",
		"general protection fault, probably for non-canonical address 0xdead: 0000 [#2]",
		"Oops: general protection fault, 0000 [#1] PREEMPT SMP",
	};
	static const char *const nothing[] = {
		"PCI: bug compatible",
		"random [#words]",
		"a WARNING: in the middle of a program's text",
		"task blocked",
		"",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(warn); i++) {
		assert_true(console_line_warns(warn[i]));
		assert_false(console_line_oopses(warn[i]));
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (!console_line_oopses(bad[i]) || console_line_warns(bad[i]))
			fail_msg("%s", bad[i]);
	for (size_t i = 0; i < ARRAY_SIZE(nothing); i++)
		if (console_line_oopses(nothing[i]) || console_line_warns(nothing[i]))
			fail_msg("%s", nothing[i]);

	/* only the kernel's lines count, whatever stamp they have */
	begin(NULL);
	feed("WARNING: CPU: 0\nBUG: no stamp\n[not a stamp] BUG: x\n[  1.0 BUG: x\n", 100);
	assert_int_equal(result.warnings + result.oopses, 0);
	feed("[    1.5][    T1] WARNING: CPU: 0 PID: 1\n[ 1.6] ---[ end trace 0 ]---\n", 100);
	assert_int_equal(result.warnings, 1);
	/* another beside it counts, once more an oops within it */
	feed("[12345.5] WARNING: lock held\n[12345.6] BUG: x\n[12345.7] WARNING: y\n", 100);
	assert_int_equal(result.warnings, 2);
	assert_int_equal(result.oopses, 1);
	assert_string_equal(result.message, "WARNING: CPU: 0 PID: 1");
	assert_memory_equal(result.crash, "BUG: x\n", 7);
}

static void test_limits(void **state)
{
	static char long_line[5000];

	(void)state;
	begin(NULL);
	memset(long_line, 'x', sizeof(long_line) - 1);
	feed(long_line, 4096);
	feed("\n", 1);
	for (u32 i = 0; i < 5000; i++) {
		char line[40];

		snprintf(line, sizeof(line), "[ 1.0] line %u\n", i);
		feed(line, 40);
		assert_true(strlen(result.tail) == console.tail);
		assert_true(console.tail < sizeof(result.tail));
	}
	assert_non_null(strstr(result.tail, "line 4999\n"));
	/* begins with a whole line */
	assert_memory_equal(result.tail, "[ 1.0] line ", 12);
	/* a report without an end, longer than what is kept of it */
	feed("[ 1.0] BUG: endless\n", 40);
	for (u32 i = 0; i < 300; i++)
		feed("[ 1.0] 0123456789012345678901234567890123456789012345678901234567890123456789"
		     "01234567890123456789012345678901234567890123456789\n",
		     200);
	assert_memory_equal(result.crash, "BUG: endless\n", 13);
	assert_true(strlen(result.crash) < sizeof(result.crash));
	assert_int_equal(console.in, CONSOLE_QUIET);
	/* a NUL does not hide what is behind it */
	console_log_feed(&console, (const u8 *)"a\0b\n", 4, 0);
	assert_non_null(strstr(result.tail, "a?b\n"));
}

static void test_file(void **state)
{
	char path[] = "/tmp/vmm-test-log-XXXXXX", text[256] = "";
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "old", 3), 3);
	begin(path);
	feed("one\r\n[ 1.0] two\nno end", 4);
	console_log_flush(&console, 4000000000ull);
	assert_true(pread(fd, text, sizeof(text) - 1, 0) > 0);
	assert_string_equal(text,
			    "    2.500000 one\n    2.500000 [ 1.0] two\n    3.000000 no end\n");
	close(console.fd);
	close(fd);
	unlink(path);
	assert_int_equal(console_log_open(&console, &result, "/no/such/folder/log"), -2);
}

static void test_explain(void **state)
{
	(void)state;
	assert_non_null(strstr(console_explain(""), "x86-64"));
	assert_non_null(strstr(console_explain("[ 1.0] VFS: Cannot open root device\n"),
			       "CONFIG_BLK_DEV_INITRD"));
	assert_non_null(strstr(console_explain("[ 1.0] Failed to execute /init (error -8)\n"),
			       "CONFIG_BINFMT_ELF"));
	assert_non_null(strstr(console_explain("[ 1.0] Out of memory: Killed\n"), "--mem"));
	assert_null(console_explain("[ 1.0] all is well\n"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_oops),	 cmocka_unit_test(test_panic),
		cmocka_unit_test(test_warnings), cmocka_unit_test(test_limits),
		cmocka_unit_test(test_file),	 cmocka_unit_test(test_explain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
