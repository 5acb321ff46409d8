/* vm/config*.c: `vmm run`: what stands where, what is refused, what help and man page tell. */
#include <stdlib.h>
#include "tests/unit/config-fixture.h"

static void test_command(void **state)
{
	(void)state;
	accept("run", "--kernel", "k", "--mem", "2G", "--", "make", "--kernel", "--", "x");
	assert_true(config.run.asked);
	assert_string_equal(config.kernel, "k");
	assert_int_equal(config.run.kernel_count, 1);
	assert_int_equal(config.memory, GIB(2));
	assert_string_equal(config.run.command[0], "make");
	assert_string_equal(config.run.command[1], "--kernel");
	assert_string_equal(config.run.command[2], "--");
	assert_string_equal(config.run.command[3], "x");
	assert_null(config.run.command[4]);
	config_free(&config);

	/* a shell */
	accept("run", "--kernel=k", "--");
	assert_null(config.run.command);
	config_free(&config);
	accept("run", "--kernel=k");
	assert_null(config.run.command);
	assert_int_equal(config.memory, CONFIG_RUN_MEMORY);
	assert_int_equal(config.run.boot_timeout_seconds, CONFIG_BOOT_SECONDS);
	assert_int_equal(config.run.fail_on, CONFIG_FAIL_ON_PANIC);
	assert_null(config.run.root);
	config_free(&config);
}

static void test_options(void **state)
{
	(void)state;
	setenv("VMM_TEST_HANDED_ON", "a=b", true);
	unsetenv("VMM_TEST_NOT_THERE");
	accept("run", "--kernel", "a", "--kernel", "b", "--root", "/srv/root", "--rw", ".", "--rw",
	       "/tmp", "--user", "nobody:users", "--env", "A=", "--env", "VMM_TEST_HANDED_ON",
	       "--env", "VMM_TEST_NOT_THERE", "--cwd", "/x", "--modules", "m", "--timeout", "9",
	       "--boot-timeout", "0", "--fail-on", "warn", "--report", "r", "--log", "l", "--junit",
	       "j", "--jobs", "3", "--disk", "d", "--net", "tap0", "--cmdline", "w", "--", "true");
	assert_int_equal(config.run.kernel_count, 2);
	assert_string_equal(config.kernel, "a");
	assert_string_equal(config.run.kernels[0], "a");
	assert_string_equal(config.run.kernels[1], "b");
	assert_string_equal(config.run.root, "/srv/root");
	assert_int_equal(config.run.rw_count, 2);
	assert_string_equal(config.run.rw[1], "/tmp");
	assert_string_equal(config.run.user, "nobody:users");
	assert_int_equal(config.run.env_count, 2);
	assert_string_equal(config.run.env[0], "A=");
	assert_string_equal(config.run.env[1], "VMM_TEST_HANDED_ON=a=b");
	assert_string_equal(config.run.cwd, "/x");
	assert_string_equal(config.run.modules, "m");
	assert_int_equal(config.timeout_seconds, 9);
	assert_int_equal(config.run.boot_timeout_seconds, 0);
	assert_int_equal(config.run.fail_on, CONFIG_FAIL_ON_WARN);
	assert_string_equal(config.run.report, "r");
	assert_string_equal(config.run.log, "l");
	assert_string_equal(config.run.junit, "j");
	assert_int_equal(config.run.jobs, 3);
	assert_int_equal(config.disk_count, 1);
	assert_int_equal(config.net_count, 1);
	config_free(&config);
	assert_false(config.run.pack);
	accept("run", "--kernel", "a", "--fail-on=oops", "--pack");
	assert_int_equal(config.run.fail_on, CONFIG_FAIL_ON_OOPS);
	assert_true(config.run.pack);
	config_free(&config);
}

static void test_usage(void **state)
{
	(void)state;
	/* `--` forgotten */
	refuse("make|behind --|vmm run --kernel bzImage -- make", "run", "--kernel", "k", "make",
	       "check");
	refuse("ls|behind --", "run", "ls");
	refuse("--kernel|needs a value", "run", "--kernel", "--", "true");
	refuse("no kernel|vmm run --kernel|vmm run --help", "run", "--", "true");
	refuse("--repotr|did you mean --report?", "run", "--repotr", "x");
	refuse("--xyzzy|no such option|vmm run --help", "run", "--xyzzy");
	refuse("did you mean vmm run", "rum", "--kernel", "k");

	/* what has no meaning here, or there */
	refuse("--initrd|not for vmm run|leave it out", "run", "--kernel", "k", "--initrd", "i");
	refuse("--serial|not for vmm run", "run", "--kernel", "k", "--serial", "pty");
	refuse("--no-reboot|not for vmm run", "run", "--kernel", "k", "--no-reboot");
	refuse("--root|belongs to vmm run|leave it out", "--kernel", "k", "--root", "/");
	refuse("--rw|belongs to vmm run", "--kernel", "k", "--rw", "/");
	refuse("--|no such option", "--kernel", "k", "--", "x");
	refuse("--kernel|given twice", "--kernel", "k", "--kernel", "l");
	/* nor is it proposed */
	refuse("--juni|no such option|vmm --help", "--juni", "x");

	refuse("--env =x|no name", "run", "--kernel", "k", "--env", "=x");
	refuse("--cwd x|whole path", "run", "--kernel", "k", "--cwd", "x");
	refuse("--fail-on panic|oops or warn", "run", "--kernel", "k", "--fail-on", "panic");
	refuse("--jobs 0|too small", "run", "--kernel", "k", "--jobs", "0");
	refuse("--boot-timeout x|not a number", "run", "--kernel", "k", "--boot-timeout", "x");
	refuse("--report|given twice", "run", "--kernel", "k", "--report", "a", "--report", "b");
	refuse("--rw 9|one folder too many|8", "run", "--kernel", "k", "--rw", "1", "--rw", "2",
	       "--rw", "3", "--rw", "4", "--rw", "5", "--rw", "6", "--rw", "7", "--rw", "8", "--rw",
	       "9");
}

static const char *const told[] = { "kernel",  "root",	  "rw",	   "user",	   "env",
				    "cwd",     "modules", "pack",  "boot-timeout", "fail-on",
				    "report",  "log",	  "junit", "jobs",	   "mem",
				    "cmdline", "timeout", "stats", "disk",	   "net",
				    "help" };
static const char *const statuses[] = { "N",   "126", "127", "128+N", "2",
					"120", "121", "122", "123",   "124" };

static void test_help(void **state)
{
	const char *text, *line;
	unsigned int lines = 0;

	(void)state;
	accept("run", "--kernel", "k", "--help");
	assert_int_equal(config.action, CONFIG_HELP);
	assert_true(config.run.asked);
	text = output_of(PAGE_RUN_HELP);
	for (line = text; *line; line += strcspn(line, "\n") + 1) {
		assert_true(strcspn(line, "\n") < 80);
		lines++;
	}
	assert_true(lines <= 23);
	for (size_t i = 0; i < ARRAY_SIZE(told); i++) {
		char word[32];

		snprintf(word, sizeof(word), " --%s", told[i]);
		if (!strstr(text, word))
			fail_msg("vmm run --help has no%s", word);
	}
	for (size_t i = 0; i < ARRAY_SIZE(statuses); i++) {
		char word[32];

		snprintf(word, sizeof(word), " %s ", statuses[i]);
		if (!strstr(strstr(text, "Status"), word))
			fail_msg("vmm run --help has no status%s", word);
	}
	assert_null(strstr(text, "--initrd"));
	assert_null(strstr(text, "--serial"));
	text = output_of(PAGE_HELP);
	assert_null(strstr(text, "--junit"));
	assert_non_null(strstr(text, "vmm run"));
}

static void test_man(void **state)
{
	const char *text = strstr(output_of(PAGE_MAN), ".SH RUN");

	(void)state;
	assert_non_null(text);
	for (size_t i = 1; i < 14; i++) { /* those that are told there alone */
		char word[64] = "\\fB\\-\\-";

		for (const char *p = told[i]; *p; p++)
			snprintf(word + strlen(word), sizeof(word) - strlen(word), "%s%c",
				 *p == '-' ? "\\" : "", *p);
		strcat(word, "\\fR");
		if (!strstr(text, word))
			fail_msg("the page has no %s", word);
	}
	for (size_t i = 0; i < ARRAY_SIZE(statuses); i++) {
		char word[32];

		snprintf(word, sizeof(word), ".B %s\n", statuses[i]);
		assert_non_null(strstr(text, word));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_command), cmocka_unit_test(test_options),
		cmocka_unit_test(test_usage),	cmocka_unit_test(test_help),
		cmocka_unit_test(test_man),
	};

	return cmocka_run_group_tests(tests, open_errors, close_errors);
}
