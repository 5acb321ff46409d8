/*
 * What the guest's kernel says on its serial console: kept with time stamps (--log), its last lines
 * remembered, warnings, oopses and panics found in it. Main thread.
 */
#ifndef RUN_CONSOLE_LOG_H
#define RUN_CONSOLE_LOG_H

#include "run/result.h"

struct console_log {
	struct run_result *result; /* takes tail, crash, message and the counts */
	int fd;			   /* of --log, -1: none */
	bool failed;		   /* a write to it has */
	size_t length;		   /* of line */
	size_t tail, crash;	   /* bytes in those of the result */
	/* between the first line of such a report and its end */
	enum { CONSOLE_QUIET, CONSOLE_IN_WARNING, CONSOLE_IN_OOPS } in;
	bool in_panic;
	u32 report_lines;
	char line[1024];
};

/* Opens --log, if there is one; result begins as zeros. Logs, 0 or -errno. Before the sandbox. */
int console_log_open(struct console_log *log, struct run_result *result, const char *path);
/* The next bytes, cut anywhere; now: CLOCK_MONOTONIC ns. What cannot be written is one log line. */
void console_log_feed(struct console_log *log, const u8 *bytes, size_t size, u64 now);
/* The line that has no end yet is one. */
void console_log_flush(struct console_log *log, u64 now);

/* Would the kernel's line (without its time stamp) be a warning, or an oops? */
bool console_line_warns(const char *line);
bool console_line_oopses(const char *line);

/* What a boot that never came to the command usually lacks, by the console's last lines; NULL: no
 * idea. */
const char *console_explain(const char *tail);
/* Says this panic that the kernel found nothing to run? */
bool console_rootless(const char *crash);

#endif
