/* A run's report: see report.h. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>
#include "run/report.h"
#include "vm/log.h"

#define PATIENCE_MS 1000
#define TAIL_LINES  20
#define CRASH_LINES 40

int report_open(const char *option, const char *path, int *fd)
{
	*fd = -1;
	if (!path)
		return 0;
	*fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0666);
	if (*fd >= 0)
		return 0;
	log_line("%s %s: %s; give a file that can be written", option, path, strerror(errno));
	return -errno;
}

void report_write(const char *option, int fd, const char *text, size_t length)
{
	size_t done = 0;

	while (fd >= 0 && done < length) {
		ssize_t n = write(fd, text + done, length - done);
		struct pollfd wait = { .fd = fd, .events = POLLOUT };

		if (n > 0)
			done += (size_t)n;
		else if (n < 0 && errno == EAGAIN && poll(&wait, 1, PATIENCE_MS) > 0)
			continue;
		else if (n == 0 || errno != EINTR) {
			log_line("%s: %s; it is not whole", option, n ? strerror(errno) : "full");
			return;
		}
	}
}

void report_verdict(const struct run_result *r, char *text, size_t size)
{
	const char *word = run_verdict_word(r->verdict);

	if (r->verdict == RUN_SIGNAL)
		snprintf(text, size, "signal %u (%s)", r->facts.code,
			 strsignal((int)r->facts.code));
	else if (r->verdict == RUN_EXIT)
		snprintf(text, size, "exit %u", r->facts.code);
	else
		snprintf(text, size, "%s", word);
}

/* ---- JSON ---- */

static void put_optional(struct json *json, const char *key, const char *text)
{
	json_text(json, key, *text ? text : NULL);
}

static void put_number(struct json *json, const char *key, bool there, u64 number)
{
	if (there)
		json_number(json, key, number);
	else
		json_text(json, key, NULL);
}

static void put_seconds(struct json *json, const char *key, const struct timeval *time)
{
	json_thousandths(json, key, (u64)time->tv_sec * 1000 + (u64)time->tv_usec / 1000);
}

static void put_resources(struct json *json)
{
	struct rusage used;

	getrusage(RUSAGE_SELF, &used);
	json_begin_object(json, "resources");
	put_seconds(json, "user_s", &used.ru_utime);
	put_seconds(json, "system_s", &used.ru_stime);
	json_number(json, "max_rss_kib", (u64)used.ru_maxrss);
	json_number(json, "minor_faults", (u64)used.ru_minflt);
	json_number(json, "major_faults", (u64)used.ru_majflt);
	json_number(json, "voluntary_switches", (u64)used.ru_nvcsw);
	json_number(json, "involuntary_switches", (u64)used.ru_nivcsw);
	json_end(json);
}

static void put_times(struct json *json, const struct run_result *r)
{
	static const char *const names[RUN_TIMES] = {
		[RUN_TIME_INSTRUCTION] = "first_instruction",
		[RUN_TIME_CONSOLE] = "first_console_byte",
		[RUN_TIME_INIT] = "init",
		[RUN_TIME_ROOT] = "root",
		[RUN_TIME_START] = "command_start",
		[RUN_TIME_STOP] = "command_end",
		[RUN_TIME_END] = "end",
	};

	json_begin_object(json, "milestones_ms");
	json_number(json, "process_start", 0);
	for (u32 i = 0; i < RUN_TIMES; i++)
		if (r->times[i])
			json_thousandths(json, names[i],
					 r->times[i] > r->start ? (r->times[i] - r->start) / 1000
								: 0);
		else
			json_text(json, names[i], NULL);
	json_end(json);
}

void report_put(struct json *json, const struct config *config, const struct run_result *r)
{
	const struct run_facts *f = &r->facts;

	json_number(json, "schema", REPORT_SCHEMA);
	json_text(json, "verdict", run_verdict_word(r->verdict));
	json_number(json, "status", (u64)r->status);
	put_optional(json, "reason", r->reason);
	json_begin_object(json, "command");
	put_number(json, "exit", f->ended && !f->by_signal, f->code);
	put_number(json, "signal", f->ended && f->by_signal, f->code);
	json_begin_array(json, "words");
	for (char **word = config->run.command; word && *word; word++)
		json_text(json, NULL, *word);
	json_end(json);
	json_end(json);
	json_begin_object(json, "kernel");
	json_text(json, "file", config->kernel);
	put_optional(json, "version", r->version);
	json_number(json, "warnings", r->warnings);
	json_number(json, "oopses", r->oopses);
	put_optional(json, "message", r->message);
	put_optional(json, "crash", r->crash);
	json_text(json, "panic", f->reason == END_PANIC && *r->crash ? r->crash : NULL);
	json_end(json);
	put_times(json, r);
	put_resources(json);
}

/* ---- stderr ---- */

/* The last lines of a text. */
static const char *last_lines(const char *text, u32 lines)
{
	const char *at = text + strlen(text);

	while (at > text) {
		at--;
		if (*at == '\n' && at[1] && !--lines)
			return at + 1;
	}
	return text;
}

static void say_lines(const char *text, u32 lines)
{
	size_t length;

	for (; *text && lines; lines--) {
		length = strcspn(text, "\n");
		log_line("| %.*s", (int)length, text);
		text += length + (text[length] == '\n');
	}
}

void report_say(const struct run_result *r)
{
	if (run_verdict_own(r->verdict)) {
		if (r->status >= RUN_STATUS_ERROR && r->status <= RUN_STATUS_TIMEOUT)
			log_line("status %d is the command's own", r->status);
		return;
	}
	if (!r->times[RUN_TIME_INSTRUCTION] || r->verdict == RUN_ERROR)
		return; /* why is said already */
	if (r->verdict != RUN_INTERRUPTED) {
		/* what a report begins with says the most, of other things the end does */
		if (r->verdict == RUN_PANIC || r->verdict == RUN_OOPS || r->verdict == RUN_WARNING)
			say_lines(r->crash, CRASH_LINES);
		else
			say_lines(last_lines(r->tail, TAIL_LINES), TAIL_LINES);
	}
	log_line("%s%s%s; status %d", run_verdict_word(r->verdict), *r->reason ? ": " : "",
		 r->reason, r->status);
}

/* ---- the table ---- */

static u64 elapsed_ms(const struct run_result *r, enum run_time from, enum run_time to)
{
	return r->times[from] && r->times[to] > r->times[from]
		       ? (r->times[to] - r->times[from]) / 1000000
		       : 0;
}

void report_table(FILE *f, char *const *kernels, const struct run_result *results, u32 count)
{
	int width = 6;
	char verdict[64];

	for (u32 i = 0; i < count; i++)
		if ((int)strlen(kernels[i]) > width)
			width = (int)strlen(kernels[i]);
	fprintf(f, "%-*s  %-24s %6s %9s %9s  %s\n", width, "kernel", "verdict", "status", "boot s",
		"command s", "version");
	for (u32 i = 0; i < count; i++) {
		const struct run_result *r = &results[i];
		u64 boot = elapsed_ms(r, RUN_TIME_INSTRUCTION, RUN_TIME_START);
		u64 command = elapsed_ms(r, RUN_TIME_START, RUN_TIME_STOP);

		report_verdict(r, verdict, sizeof(verdict));
		fprintf(f, "%-*s  %-24s %6d %9.3f %9.3f  %s\n", width, kernels[i], verdict,
			r->status, (double)boot / 1e3, (double)command / 1e3,
			*r->version ? r->version : "-");
	}
}
