/* run/report.c, run/junit.c: what a run leaves for others is JSON and XML whatever the guest said.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <jansson.h>
#include <cmocka.h>
#include "run/report.h"

static char *command[] = { "make", "-C", "/src \"x\"", "check\x01<&>", NULL };
static struct config config = { .kernel = "bzImage", .run.command = command };
static struct run_result result;

static json_t *report(void)
{
	struct json json = { 0 };
	json_error_t error;
	json_t *parsed;

	json_begin_object(&json, NULL);
	report_put(&json, &config, &result);
	json_end(&json);
	assert_int_equal(json_done(&json), 0);
	parsed = json_loadb(json.text, json.length, JSON_REJECT_DUPLICATES, &error);
	if (!parsed)
		fail_msg("%s in: %.*s", error.text, (int)json.length, json.text);
	json_free(&json);
	return parsed;
}

static const json_t *at(const json_t *object, const char *a, const char *b)
{
	const json_t *value = json_object_get(object, a);

	return b ? json_object_get(value, b) : value;
}

static void begin(enum run_verdict verdict, int status)
{
	memset(&result, 0, sizeof(result));
	result.verdict = verdict;
	result.status = status;
	result.start = 5000000000;
	result.facts.ended = verdict == RUN_EXIT || verdict == RUN_SIGNAL;
	result.facts.by_signal = verdict == RUN_SIGNAL;
	result.facts.code = (u32)(verdict == RUN_SIGNAL ? status - 128 : status);
}

static void test_exit(void **state)
{
	json_t *json;

	(void)state;
	begin(RUN_EXIT, 3);
	strcpy(result.version, "6.1.0-1-amd64");
	for (u32 i = 0; i < RUN_TIMES; i++)
		result.times[i] = 5000000000 + 1500000 * (i + 1);
	json = report();
	assert_int_equal(json_integer_value(at(json, "schema", NULL)), 1);
	assert_string_equal(json_string_value(at(json, "verdict", NULL)), "exit");
	assert_int_equal(json_integer_value(at(json, "status", NULL)), 3);
	assert_true(json_is_null(at(json, "reason", NULL)));
	assert_int_equal(json_integer_value(at(json, "command", "exit")), 3);
	assert_true(json_is_null(at(json, "command", "signal")));
	assert_int_equal(json_array_size(at(json, "command", "words")), 4);
	assert_string_equal(json_string_value(json_array_get(at(json, "command", "words"), 2)),
			    "/src \"x\"");
	assert_string_equal(json_string_value(at(json, "kernel", "version")), "6.1.0-1-amd64");
	assert_true(json_is_null(at(json, "kernel", "panic")));
	assert_int_equal(json_integer_value(at(json, "milestones_ms", "process_start")), 0);
	assert_true(json_real_value(at(json, "milestones_ms", "first_instruction")) == 1.5);
	assert_true(json_real_value(at(json, "milestones_ms", "end")) == 10.5);
	assert_true(json_integer_value(at(json, "resources", "max_rss_kib")) > 0);
	json_decref(json);
}

static void test_panic(void **state)
{
	json_t *json;

	(void)state;
	begin(RUN_PANIC, 123);
	result.facts.reason = END_PANIC;
	strcpy(result.reason, "Kernel panic - not syncing: x");
	strcpy(result.crash, "BUG: \"\xff\x1b[31m\n\\\ttext\n");
	result.oopses = 2;
	json = report();
	assert_string_equal(json_string_value(at(json, "verdict", NULL)), "panic");
	assert_int_equal(json_integer_value(at(json, "kernel", "oopses")), 2);
	assert_non_null(strstr(json_string_value(at(json, "kernel", "panic")), "\n\\\ttext\n"));
	assert_true(json_is_null(at(json, "command", "exit")));
	assert_true(json_is_null(at(json, "milestones_ms", "init")));
	assert_true(json_is_null(at(json, "kernel", "version")));
	json_decref(json);

	begin(RUN_SIGNAL, 137);
	json = report();
	assert_int_equal(json_integer_value(at(json, "command", "signal")), 9);
	assert_true(json_is_null(at(json, "command", "exit")));
	json_decref(json);
}

/* Well-formed as far as it is ours to make it so: tags nest, and no character that XML has not. */
static void check_xml(const char *text, size_t length)
{
	char stack[8][32];
	u32 depth = 0;

	for (size_t i = 0; i < length; i++)
		assert_true(text[i] == '\n' || text[i] == '\t' ||
			    (text[i] >= 0x20 && text[i] < 0x7f));
	for (const char *p = strstr(text, "?>"); (p = strchr(p, '<')); p++) {
		size_t name = strcspn(p + 1, " />");
		const char *end = strchr(p, '>');

		assert_non_null(end);
		if (p[1] == '/') {
			assert_true(depth > 0);
			depth--;
			assert_true(!strncmp(stack[depth], p + 2, strlen(stack[depth])));
		} else if (end[-1] != '/') {
			assert_true(depth < 8 && name < 32);
			snprintf(stack[depth++], 32, "%.*s", (int)name, p + 1);
		}
	}
	assert_int_equal(depth, 0);
	for (const char *p = text; (p = strchr(p, '&')); p++)
		assert_true(!strncmp(p, "&amp;", 5) || !strncmp(p, "&lt;", 4) ||
			    !strncmp(p, "&gt;", 4) || !strncmp(p, "&quot;", 6));
}

static void test_junit(void **state)
{
	static struct run_result results[4];
	char *kernels[] = { "a", "b<\"&>", "c\xc3\xa4", "d" };
	size_t length;
	char *text;

	(void)state;
	begin(RUN_EXIT, 0);
	results[0] = result;
	results[0].times[RUN_TIME_END] = result.start + 1234000000;
	begin(RUN_EXIT, 1);
	strcpy(result.tail, "console ]]> <x>\n\x1b[0m");
	results[1] = result;
	begin(RUN_PANIC, 123);
	strcpy(result.reason, "Kernel panic - \"x\"");
	strcpy(result.crash, "the crash\n");
	results[2] = result;
	begin(RUN_NO_INIT, 121);
	results[3] = result;
	text = junit_text(&config, kernels, results, 4, &length);
	assert_non_null(text);
	check_xml(text, length);
	assert_non_null(strstr(text, "tests=\"4\" failures=\"2\" errors=\"1\""));
	assert_non_null(strstr(text, "classname=\"a\" name=\"make -C /src &quot;x&quot; "
				     "check?&lt;&amp;&gt;\" time=\"1.234\"/>"));
	assert_non_null(strstr(text, "<failure type=\"exit\" message=\"exit 1\">console ]]&gt;"));
	assert_non_null(strstr(text, "<failure type=\"panic\" message=\"Kernel panic - "
				     "&quot;x&quot;\">the crash\n</failure>"));
	assert_non_null(strstr(text, "<error type=\"no-init\" message=\"no-init\">"));
	free(text);
	config.run.command = NULL;
	text = junit_text(&config, kernels, results, 1, &length);
	assert_non_null(strstr(text, "name=\"shell\""));
	config.run.command = command;
	free(text);
}

/* What report_say() writes to stderr. */
static const char *said(void)
{
	static char text[65536];
	int fd = memfd_create("said", 0), saved = dup(STDERR_FILENO);
	ssize_t n;

	dup2(fd, STDERR_FILENO);
	report_say(&result);
	dup2(saved, STDERR_FILENO);
	n = pread(fd, text, sizeof(text) - 1, 0);
	text[n > 0 ? n : 0] = '\0';
	close(saved);
	close(fd);
	return text;
}

static void test_said(void **state)
{
	char line[64];

	(void)state;
	/* quiet, but where the status could be ours */
	begin(RUN_EXIT, 0);
	strcpy(result.tail, "a\n");
	assert_string_equal(said(), "");
	for (int status = 118; status < 128; status++) {
		begin(RUN_EXIT, status);
		snprintf(line, sizeof(line), "vmm: status %d is the command's own\n", status);
		assert_string_equal(said(), status < 120 || status > 124 ? "" : line);
	}
	begin(RUN_SIGNAL, 139);
	assert_string_equal(said(), "");

	begin(RUN_NO_INIT, 121);
	result.times[RUN_TIME_INSTRUCTION] = 1;
	for (u32 i = 0; i < 100; i++)
		sprintf(result.tail + strlen(result.tail), "line %u\n", i);
	strcpy(result.reason, "because");
	assert_memory_equal(said(), "vmm: | line 80\nvmm: | line 81\n", 30);
	assert_non_null(strstr(said(), "vmm: | line 99\nvmm: no-init: because; status 121\n"));
	strcpy(result.crash, "a warning long before\n");
	assert_null(strstr(said(), "long before"));
	/* of a panic its own report says more than the end */
	result.verdict = RUN_PANIC;
	result.status = 123;
	strcpy(result.crash, "the crash\nits trace\n");
	assert_string_equal(said(), "vmm: | the crash\nvmm: | its trace\nvmm: panic: because; "
				    "status 123\n");
	/* has been said */
	begin(RUN_ERROR, 120);
	result.times[RUN_TIME_INSTRUCTION] = 1;
	strcpy(result.tail, "a\n");
	assert_string_equal(said(), "");
	begin(RUN_NO_INIT, 121);
	assert_string_equal(said(), "");
}

static void test_table(void **state)
{
	static struct run_result results[2];
	char *kernels[] = { "short", "a-longer-name" }, *text;
	size_t length;
	FILE *f = open_memstream(&text, &length);

	(void)state;
	begin(RUN_SIGNAL, 137);
	result.times[RUN_TIME_INSTRUCTION] = 1000000000;
	result.times[RUN_TIME_START] = 1250000000;
	result.times[RUN_TIME_STOP] = 3000000000;
	strcpy(result.version, "6.1");
	results[0] = result;
	begin(RUN_PANIC, 123);
	results[1] = result;
	report_table(f, kernels, results, 2);
	fclose(f);
	assert_non_null(strstr(text, "short          signal 9 (Killed)           137     0.250 "
				     "    1.750  6.1\n"));
	assert_non_null(strstr(text, "a-longer-name  panic                       123     0.000 "
				     "    0.000  -\n"));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exit),  cmocka_unit_test(test_panic),
		cmocka_unit_test(test_junit), cmocka_unit_test(test_said),
		cmocka_unit_test(test_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
