/*
 * --junit: a test suite with a test case for each kernel, in the XML that CI systems read (the
 * Jenkins schema of JUnit's reports). What is not plain text becomes a question mark: XML 1.0 (2.2)
 * has no way to write control characters.
 */
#include <stdlib.h>
#include "run/report.h"

static void put_text(FILE *f, const char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '&')
			fputs("&amp;", f);
		else if (c == '<')
			fputs("&lt;", f);
		else if (c == '>')
			fputs("&gt;", f);
		else if (c == '"')
			fputs("&quot;", f);
		else if ((c < 0x20 && c != '\n' && c != '\t') || c > 0x7e)
			putc('?', f);
		else
			putc(c, f);
	}
}

static void put_attribute(FILE *f, const char *name, const char *text)
{
	fprintf(f, " %s=\"", name);
	put_text(f, text);
	putc('"', f);
}

static void put_seconds(FILE *f, const struct run_result *r)
{
	u64 end = r->times[RUN_TIME_END];

	fprintf(f, " time=\"%.3f\"", end > r->start ? (double)(end - r->start) / 1e9 : 0.0);
}

/* Is it the tested thing that failed, or what was to test it? */
static bool is_failure(const struct run_result *r)
{
	return r->status && r->verdict != RUN_ERROR && r->verdict != RUN_NO_INIT &&
	       r->verdict != RUN_UNKNOWN && r->verdict != RUN_INTERRUPTED;
}

static void put_case(FILE *f, const char *command, const char *kernel, const struct run_result *r)
{
	const char *element = is_failure(r) ? "failure" : "error";
	char verdict[64];

	fputs("  <testcase", f);
	put_attribute(f, "classname", kernel);
	put_attribute(f, "name", command);
	put_seconds(f, r);
	if (!r->status) {
		fputs("/>\n", f);
		return;
	}
	report_verdict(r, verdict, sizeof(verdict));
	fprintf(f, ">\n    <%s", element);
	put_attribute(f, "type", run_verdict_word(r->verdict));
	put_attribute(f, "message", *r->reason ? r->reason : verdict);
	putc('>', f);
	put_text(f, *r->crash && !run_verdict_own(r->verdict) ? r->crash : r->tail);
	fprintf(f, "</%s>\n  </testcase>\n", element);
}

/* The words with spaces between, as many as there is room for. */
static void join_words(char **words, char *text, size_t size)
{
	size_t used = 0;

	snprintf(text, size, "%s", words ? "" : "shell");
	for (; words && *words && used < size; words++)
		used += (size_t)snprintf(text + used, size - used, "%s%s", used ? " " : "", *words);
}

char *junit_text(const struct config *config, char *const *kernels,
		 const struct run_result *results, u32 count, size_t *length)
{
	u32 failures = 0, errors = 0;
	char command[512], *text = NULL;
	FILE *f = open_memstream(&text, length);

	if (!f)
		return NULL;
	for (u32 i = 0; i < count; i++) {
		failures += is_failure(&results[i]);
		errors += results[i].status && !is_failure(&results[i]);
	}
	join_words(config->run.command, command, sizeof(command));
	fprintf(f,
		"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
		"<testsuites>\n<testsuite name=\"vmm run\" tests=\"%u\" failures=\"%u\" "
		"errors=\"%u\">\n",
		count, failures, errors);
	for (u32 i = 0; i < count; i++)
		put_case(f, command, kernels[i], &results[i]);
	fputs("</testsuite>\n</testsuites>\n", f);
	if (fclose(f)) {
		free(text);
		return NULL;
	}
	return text;
}
