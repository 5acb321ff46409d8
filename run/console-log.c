/*
 * The guest's console by lines: see console-log.h. What counts as a warning or an oops is what
 * Linux prints through __warn(), die(), and the BUG: and WARNING: lines of its checkers
 * (Documentation/admin-guide/bug-hunting.rst); only lines with the kernel's time stamp count, which
 * programs that write to the console have not.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
#include "run/console-log.h"
#include "vm/log.h"

/* A report that never says its end is over after so many lines. */
#define REPORT_LINES 120

int console_log_open(struct console_log *log, struct run_result *result, const char *path)
{
	*log = (struct console_log){ .result = result, .fd = -1 };
	if (!path)
		return 0;
	log->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOCTTY | O_CLOEXEC, 0666);
	if (log->fd >= 0)
		return 0;
	log_line("--log %s: %s; give a file that can be written", path, strerror(errno));
	return -errno;
}

static bool begins(const char *line, const char *with)
{
	return !strncmp(line, with, strlen(with));
}

bool console_line_oopses(const char *line)
{
	/* "Oops: 0002 [#1]", "divide error: 0000 [#2]" */
	const char *die = strstr(line, " [#");

	return begins(line, "BUG: ") || strstr(line, ": BUG: ") || begins(line, "Oops: ") ||
	       begins(line, "kernel BUG at ") || (die && die[3] >= '1' && die[3] <= '9');
}

bool console_line_warns(const char *line)
{
	return begins(line, "WARNING: ") || begins(line, "UBSAN: ") ||
	       (strstr(line, "INFO: task ") && strstr(line, " blocked for more than ")) ||
	       (strstr(line, "rcu") && strstr(line, " detected stall")) ||
	       (strstr(line, "rcu") && strstr(line, " self-detected stall"));
}

bool console_rootless(const char *crash)
{
	return strstr(crash, "VFS: Unable to mount root fs") ||
	       strstr(crash, "No working init found") || strstr(crash, "Requested init ");
}

const char *console_explain(const char *tail)
{
	static const struct {
		const char *sign, *meaning;
	} known[] = {
		{ "Initramfs unpacking failed",
		  "the kernel cannot unpack the initramfs: it lacks memory (--mem), or "
		  "CONFIG_BLK_DEV_INITRD" },
		{ "Failed to execute /init (error -8)",
		  "the kernel cannot run 64-bit programs: it lacks CONFIG_BINFMT_ELF, or is not "
		  "for x86-64" },
		{ "VFS: ",
		  "the kernel has looked for a root of its own instead of the initramfs: it lacks "
		  "CONFIG_BLK_DEV_INITRD" },
		{ "No working init found",
		  "the kernel has not run /init of the initramfs: it lacks CONFIG_BLK_DEV_INITRD "
		  "or CONFIG_BINFMT_ELF" },
		{ "Out of memory", "the guest's memory is too small; raise --mem" },
		{ "System is deadlocked on memory",
		  "the guest's memory is too small; raise --mem" },
		{ "Attempted to kill init", "init itself was killed; the lines above say by what" },
	};

	if (!*tail)
		return "the kernel has printed nothing: it is not for x86-64, or lacks "
		       "CONFIG_SERIAL_8250_CONSOLE, or stopped before its console";
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (strstr(tail, known[i].sign))
			return known[i].meaning;
	return NULL;
}

/* Adds a line and its end to text; what is old goes by halves, or, if `first` counts, nothing goes
 * and what does not fit is left out. */
static void keep(char *text, size_t room, size_t *used, const char *line, bool first)
{
	size_t length = strlen(line);

	if (length + 2 > room / 2 || (first && *used + length + 2 > room))
		return;
	if (*used + length + 2 > room) {
		const char *from = strchr(text + *used / 2, '\n');

		from = from ? from + 1 : text + *used;
		*used -= (size_t)(from - text);
		memmove(text, from, *used);
	}
	memcpy(text + *used, line, length);
	*used += length;
	text[(*used)++] = '\n';
	text[*used] = '\0';
}

/* Behind "[   12.345678] " or "[   12.345678][    T1] "; NULL without one. */
static const char *behind_stamp(const char *line)
{
	const char *end;

	if (*line != '[')
		return NULL;
	line++;
	line += strspn(line, " ");
	end = line + strspn(line, "0123456789.");
	if (end == line || *end != ']')
		return NULL;
	end++;
	if (*end == '[' && (line = strchr(end, ']')))
		end = line + 1;
	return *end == ' ' ? end + 1 : end;
}

/* Begins a report, whose lines are kept as the crash. */
static void begin_report(struct console_log *log, const char *line)
{
	struct run_result *r = log->result;

	if (!*r->message)
		snprintf(r->message, sizeof(r->message), "%s", line);
	log->report_lines = 0;
	log->crash = 0;
	*r->crash = '\0';
}

static void look(struct console_log *log, const char *line)
{
	struct run_result *r = log->result;

	/* one of a kind a report: an oops has several such lines */
	if (log->in != CONSOLE_IN_OOPS && console_line_oopses(line)) {
		begin_report(log, line);
		log->in = CONSOLE_IN_OOPS;
		r->oopses++;
	} else if (log->in == CONSOLE_QUIET && console_line_warns(line)) {
		begin_report(log, line);
		log->in = CONSOLE_IN_WARNING;
		r->warnings++;
	}
	if (!log->in_panic && begins(line, "Kernel panic - not syncing")) {
		if (log->in == CONSOLE_QUIET)
			begin_report(log, line);
		log->in = CONSOLE_IN_OOPS;
		log->in_panic = true;
		snprintf(r->reason, sizeof(r->reason), "%s", line);
	}
	if (log->in == CONSOLE_QUIET)
		return;
	keep(r->crash, sizeof(r->crash), &log->crash, line, true);
	if (begins(line, log->in_panic ? "---[ end Kernel panic" : "---[ end trace") ||
	    ++log->report_lines == REPORT_LINES)
		log->in = CONSOLE_QUIET;
}

static void end_line(struct console_log *log, u64 now)
{
	struct run_result *r = log->result;
	const char *message;

	log->line[log->length] = '\0';
	for (size_t i = 0; i < log->length; i++) /* NULs would cut what is kept */
		if (!log->line[i])
			log->line[i] = '?';
	if (log->fd >= 0 && !log->failed) {
		u64 us = now > r->start ? (now - r->start) / 1000 : 0;

		if (dprintf(log->fd, "%5llu.%06llu %s\n", (unsigned long long)(us / 1000000),
			    (unsigned long long)(us % 1000000), log->line) < 0) {
			log->failed = true;
			log_line("--log: %s; the console is no longer written", strerror(errno));
		}
	}
	keep(r->tail, sizeof(r->tail), &log->tail, log->line, false);
	message = behind_stamp(log->line);
	if (message)
		look(log, message);
	log->length = 0;
}

void console_log_feed(struct console_log *log, const u8 *bytes, size_t size, u64 now)
{
	for (size_t i = 0; i < size; i++) {
		char c = (char)bytes[i];

		if (c == '\n' || log->length == sizeof(log->line) - 1)
			end_line(log, now);
		if (c != '\n' && c != '\r')
			log->line[log->length++] = c;
	}
}

void console_log_flush(struct console_log *log, u64 now)
{
	if (log->length)
		end_line(log, now);
}
