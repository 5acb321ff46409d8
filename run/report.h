/*
 * What is left of a run for others to read: --report (JSON, docs/ci.md has the schema), --junit
 * (XML), the line and the console's tail on stderr, the table of several kernels. Main thread.
 */
#ifndef RUN_REPORT_H
#define RUN_REPORT_H

#include <stdio.h>
#include "run/result.h"
#include "vm/json.h"

#define REPORT_SCHEMA 1

/* Opens a file that is written when all is over; NULL path: -1. Logs, 0 or -errno. Before the
 * sandbox. */
int report_open(const char *option, const char *path, int *fd);
/* What fails is one log line. */
void report_write(const char *option, int fd, const char *text, size_t length);

/* The members of one run's object but its counters. */
void report_put(struct json *json, const struct config *config, const struct run_result *result);

/* All of --junit, in allocated text of *length bytes; NULL: no memory. */
char *junit_text(const struct config *config, char *const *kernels,
		 const struct run_result *results, u32 count, size_t *length);

/* If the verdict is the guest's: why, on stderr, behind what the console says of it. And the line
 * that tells a command's 120 to 124 from ours. */
void report_say(const struct run_result *result);

/* The table of several, one line each, to f. */
void report_table(FILE *f, char *const *kernels, const struct run_result *results, u32 count);

/* Whole words on what it came to: "exit 3", "signal 9 (Killed)", "panic". */
void report_verdict(const struct run_result *result, char *text, size_t size);

#endif
