/* tsan
 * Log lines: one write each, nothing in them that could steer a terminal, rate limits.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "vm/log.h"

static char text[65536];
static FILE *file;
static int saved;

static void catch_lines(void)
{
	file = tmpfile();
	assert_non_null(file);
	saved = dup(STDERR_FILENO);
	dup2(fileno(file), STDERR_FILENO);
}

static const char *caught(void)
{
	size_t length;

	dup2(saved, STDERR_FILENO);
	close(saved);
	rewind(file);
	length = fread(text, 1, sizeof(text) - 1, file);
	text[length] = 0;
	fclose(file);
	return text;
}

static const char *line_of(const char *string)
{
	catch_lines();
	log_line("%s", string);
	return caught();
}

static void test_clean(void **state)
{
	(void)state;
	assert_string_equal(line_of("a: b; c"), "vmm: a: b; c\n");
	assert_string_equal(line_of("x\033[2Jy\nz\r\t\177"), "vmm: x?[2Jy?z???\n");
	assert_string_equal(line_of("gr\303\274n \342\202\254 \360\237\220\247"),
			    "vmm: gr\303\274n \342\202\254 \360\237\220\247\n");
	/* C1 controls in both forms, cut, overlong and surrogate sequences */
	assert_string_equal(line_of("a\302\233b\233c"), "vmm: a??b?c\n");
	assert_string_equal(line_of("\303"), "vmm: ?\n");
	assert_string_equal(line_of("\300\212\340\200\212\355\240\200\364\220\200\200"),
			    "vmm: ????????????\n");
}

/* The last line is kept as it was said, and said all the same. */
static void test_remember(void **state)
{
	char last[16];

	(void)state;
	log_remember(last, sizeof(last));
	assert_string_equal(line_of("one"), "vmm: one\n");
	assert_string_equal(line_of("two\033 and what does not fit"),
			    "vmm: two? and what does not fit\n");
	assert_string_equal(last, "two? and what d");
	log_remember(NULL, 0);
	assert_string_equal(line_of("three"), "vmm: three\n");
	assert_string_equal(last, "two? and what d");
}

static void test_long(void **state)
{
	char *many = malloc(10000);
	const char *line;

	(void)state;
	memset(many, 'x', 9999);
	many[9999] = 0;
	line = line_of(many);
	assert_true(strlen(line) <= 4096);
	assert_true(strlen(line) > 4000);
	assert_string_equal(line + strlen(line) - 4, "...\n");
	free(many);
}

static void test_errno(void **state)
{
	(void)state;
	catch_lines();
	close(STDERR_FILENO);
	errno = ENOSPC;
	log_line("nobody reads this");
	assert_int_equal(errno, ENOSPC);
	dup2(fileno(file), STDERR_FILENO);
	assert_string_equal(caught(), "");
}

static void test_limit(void **state)
{
	struct log_limit limit = { 0 }, other = { 0 };

	(void)state;
	catch_lines();
	for (int i = 0; i < 5; i++)
		log_limited(&limit, 3600, "line %d", i);
	log_limited(&other, 0, "other");
	limit.next_ns = 0;
	log_limited(&limit, 3600, "line 5");
	log_limited(&other, 0, "other");
	assert_string_equal(caught(), "vmm: line 0\nvmm: other\n"
				      "vmm: line 5 (and 4 more like this)\nvmm: other\n");
}

/* A pipe that nobody reads: lines are lost, counted, and nobody waits for ever. */
static void test_full_pipe(void **state)
{
	static char many[65536];
	int ends[2], keep = dup(STDERR_FILENO), flags;
	ssize_t n;

	(void)state;
	assert_int_equal(pipe(ends), 0);
	flags = fcntl(ends[1], F_GETFL);
	fcntl(ends[1], F_SETFL, flags | O_NONBLOCK);
	while (write(ends[1], many, sizeof(many)) > 0)
		;
	while (write(ends[1], many, 1) > 0)
		;
	fcntl(ends[1], F_SETFL, flags);
	dup2(ends[1], STDERR_FILENO);
	errno = ENOSPC;
	log_line("one");
	log_line("two");
	log_line("three");
	dup2(keep, STDERR_FILENO);
	assert_int_equal(errno, ENOSPC);
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	while (read(ends[0], many, sizeof(many)) > 0)
		;
	dup2(ends[1], STDERR_FILENO);
	log_line("four");
	log_line("five");
	dup2(keep, STDERR_FILENO);
	n = read(ends[0], text, sizeof(text) - 1);
	assert_true(n > 0);
	text[n] = 0;
	assert_string_equal(text, "vmm: four (3 lines before this one are lost: nobody read them)\n"
				  "vmm: five\n");
	close(ends[0]);
	close(ends[1]);
	close(keep);
}

static struct log_limit shared_limit;

static void *speak(void *arg)
{
	for (int i = 0; i < 100; i++) {
		log_line("%s", (char *)arg);
		log_limited(&shared_limit, 3600, "limited");
	}
	return NULL;
}

static void test_threads(void **state)
{
	char *names[] = { "one", "two", "three" };
	pthread_t threads[3];
	u32 lines = 0, limited = 0;

	(void)state;
	catch_lines();
	for (int i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, speak, names[i]);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	caught();
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		lines++;
		limited += !strcmp(line, "vmm: limited");
		assert_memory_equal(line, "vmm: ", 5);
	}
	assert_int_equal(lines, 301);
	assert_int_equal(limited, 1);
	assert_int_equal(shared_limit.dropped, 299);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clean),	 cmocka_unit_test(test_long),
		cmocka_unit_test(test_errno),	 cmocka_unit_test(test_limit),
		cmocka_unit_test(test_threads),	 cmocka_unit_test(test_full_pipe),
		cmocka_unit_test(test_remember),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
