/* Flags as words, parsed; what was accepted, and the one line that refuses. */
#ifndef TESTS_UNIT_CONFIG_FIXTURE_H
#define TESTS_UNIT_CONFIG_FIXTURE_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "machine/pages.h"
#include "vm/config.h"

static struct config config;
static int errors; /* where stderr goes */
static char message[4096];

/* Parses flags given as words up to NULL. What was logged is in message. */
static inline int parse(const char *first, ...)
{
	static char *argv[64]; /* run.command points into it */
	int argc = 1, saved = dup(STDERR_FILENO), err;
	const char *word = first;
	ssize_t n;
	va_list args;

	memset(argv, 0, sizeof(argv));
	argv[0] = "vmm";
	va_start(args, first);
	for (; word; word = va_arg(args, const char *)) {
		assert_true(argc < 63);
		argv[argc++] = (char *)word;
	}
	va_end(args);
	assert_int_equal(ftruncate(errors, 0), 0);
	lseek(errors, 0, SEEK_SET);
	dup2(errors, STDERR_FILENO);
	err = config_parse(&config, argc, argv);
	dup2(saved, STDERR_FILENO);
	close(saved);
	n = pread(errors, message, sizeof(message) - 1, 0);
	message[n > 0 ? n : 0] = '\0';
	if (err < 0) /* one line, and the struct is clean */
		assert_ptr_equal(strchr(message, '\n'), message + strlen(message) - 1);
	else
		assert_string_equal(message, "");
	return err;
}

#define accept(...)                                       \
	do {                                              \
		int err_ = parse(__VA_ARGS__, NULL);      \
		if (err_)                                 \
			fail_msg("refused: %s", message); \
	} while (0)

/* Refused, with all the words of `expected` (separated by |) in the line. */
#define refuse(expected, ...)                                        \
	do {                                                         \
		assert_int_equal(parse(__VA_ARGS__, NULL), -EINVAL); \
		assert_message(expected);                            \
	} while (0)

static inline void assert_message(const char *expected)
{
	char words[512], *cursor = words, *word;

	assert_memory_equal(message, "vmm: ", 5);
	snprintf(words, sizeof(words), "%s", expected);
	while ((word = strsep(&cursor, "|")))
		if (!strstr(message, word))
			fail_msg("no \"%s\" in: %s", word, message);
}

static inline int open_errors(void **state)
{
	(void)state;
	errors = memfd_create("errors", MFD_CLOEXEC);
	return errors < 0;
}

static inline int close_errors(void **state)
{
	(void)state;
	return close(errors);
}

/* What a print function writes to stdout. */
static inline const char *output_of(enum page page)
{
	static char text[65536];
	int fd = memfd_create("output", 0), saved = dup(STDOUT_FILENO), err;
	ssize_t n;

	fflush(stdout);
	dup2(fd, STDOUT_FILENO);
	err = page_print(page);
	dup2(saved, STDOUT_FILENO);
	assert_int_equal(err, 0);
	n = pread(fd, text, sizeof(text) - 1, 0);
	assert_true(n > 0 && n < (ssize_t)sizeof(text) - 1);
	text[n] = '\0';
	close(saved);
	close(fd);
	return text;
}

#endif
