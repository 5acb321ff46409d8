/* vm/panic-watch.c: the phrases in every chunking, after false starts, and not where they are not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "vm/panic-watch.h"

static const char report[] =
	"[    0.9] VFS: Unable to mount root fs\r\n[    1.0] Kernel panic - not syncing: VFS: "
	"Unable\r\n"
	"[    1.0] CPU: 0 PID: 1\r\n[    1.1] ---[ end Kernel panic - not syncing: VFS ]---\r\n";

/* Feeds text in pieces of size; how often a panic was announced. */
static unsigned int feed(struct panic_watch *watch, const char *text, size_t size)
{
	unsigned int seen = 0;

	for (size_t at = 0, left = strlen(text); left;) {
		size_t n = size < left ? size : left;

		seen += panic_watch_feed(watch, (const u8 *)text + at, n);
		at += n;
		left -= n;
	}
	return seen;
}

static void test_every_chunking(void **state)
{
	(void)state;
	for (size_t size = 1; size <= sizeof(report); size++) {
		struct panic_watch watch = { 0 };

		assert_int_equal(feed(&watch, report, size), 1);
		assert_true(panic_watch_complete(&watch));
		assert_int_equal(feed(&watch, report, size), 0); /* said once */
	}
	for (size_t cut = 0; cut < sizeof(report); cut++) {
		struct panic_watch watch = { 0 };
		unsigned int seen = panic_watch_feed(&watch, (const u8 *)report, cut);

		seen += panic_watch_feed(&watch, (const u8 *)report + cut,
					 sizeof(report) - 1 - cut);
		assert_int_equal(seen, 1);
		assert_true(panic_watch_complete(&watch));
	}
}

static void test_when(void **state)
{
	struct panic_watch watch = { 0 };

	(void)state;
	assert_int_equal(feed(&watch, "Kernel panic - not syncin", 100), 0);
	assert_int_equal(feed(&watch, "g", 1), 1);
	assert_false(panic_watch_complete(&watch));
	feed(&watch, "\r\n---[ end Kernel pani", 100);
	assert_false(panic_watch_complete(&watch));
	feed(&watch, "c", 1);
	assert_true(panic_watch_complete(&watch));
}

static void test_false_starts(void **state)
{
	static const char *const seen[] = {
		"KKernel panic - not syncing",
		"Kernel Kernel panic - not syncing",
		"Kernel panic - not Kernel panic - not syncing",
		"----[ end Kernel panic - not syncing",
		"---[ end ---[ end Kernel panic - not syncing",
		"-----[---[ end Kernel panic - not syncing",
	};
	static const char *const unseen[] = {
		"",
		"kernel panic - not syncing",
		"Kernel panic: not syncing",
		"Kernel panic -\nnot syncing",
		"---[ end trace 0000 ]---",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(seen); i++)
		for (size_t size = 1; size < 50; size++) {
			struct panic_watch watch = { 0 };

			assert_int_equal(feed(&watch, seen[i], size), 1);
			assert_int_equal(panic_watch_complete(&watch), seen[i][0] == '-');
		}
	for (size_t i = 0; i < ARRAY_SIZE(unseen); i++) {
		struct panic_watch watch = { 0 };

		assert_int_equal(feed(&watch, unseen[i], 3), 0);
		assert_false(panic_watch_complete(&watch));
	}
}

/* Against a plain search, on text made of the phrases' own letters. */
static void test_against_strstr(void **state)
{
	static const char *const pieces[] = { "Kernel panic", " - not ", "syncing", "K",    "-",
					      "---[ end ",    "--",	 " ",	    "ernel" };

	(void)state;
	srand(6);
	for (int i = 0; i < 20000; i++) {
		struct panic_watch watch = { 0 };
		char text[256] = "";

		for (int n = rand() % 12; n >= 0; n--)
			strcat(text, pieces[rand() % (int)ARRAY_SIZE(pieces)]);
		assert_int_equal(feed(&watch, text, 1 + (size_t)rand() % 9),
				 !!strstr(text, "Kernel panic - not syncing"));
		assert_int_equal(panic_watch_complete(&watch),
				 !!strstr(text, "---[ end Kernel panic"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_chunking),
		cmocka_unit_test(test_when),
		cmocka_unit_test(test_false_starts),
		cmocka_unit_test(test_against_strstr),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
