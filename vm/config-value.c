/*
 * The values of options: numbers, sizes, switches, addresses and comma lists, each checked whole,
 * and the lines that say what is wrong with one. Main thread.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "vm/config-table.h"
#include "vm/log.h"

/* Longer words are never near another. */
#define MAX_WORD 32

int config_error(const struct config_parser *parser, const char *value, const char *fmt, ...)
{
	char what[160], why[512];
	va_list args;
	size_t used = 0;

	if (parser->file)
		used = (size_t)snprintf(what, sizeof(what), "%.60s, line %u: ", parser->file,
					parser->line);
	snprintf(what + used, sizeof(what) - used, "%s%s%s%.60s",
		 parser->file || parser->bare ? "" : "--", parser->option->name,
		 value && *value ? " " : "", value ? value : "");
	va_start(args, fmt);
	vsnprintf(why, sizeof(why), fmt, args);
	va_end(args);
	log_line("%s: %s", what, why);
	return -EINVAL;
}

/* Digits up to `end`; false on none of them or overflow. */
static bool parse_digits(const char *text, u64 *number, const char **end)
{
	u64 n = 0;
	const char *p;

	for (p = text; *p >= '0' && *p <= '9'; p++) {
		if (__builtin_mul_overflow(n, 10, &n) ||
		    __builtin_add_overflow(n, (u64)(*p - '0'), &n))
			n = UINT64_MAX; /* and stays there: larger than any limit */
		if (n == UINT64_MAX) {
			while (*p >= '0' && *p <= '9')
				p++;
			break;
		}
	}
	*number = n;
	*end = p;
	return p != text;
}

int config_number(const struct config_parser *parser, const char *what, const char *text, u64 min,
		  u64 max, u64 *number)
{
	char shown[96];
	const char *end;
	u64 n;

	snprintf(shown, sizeof(shown), "%s%s%.40s", what ? what : "", what ? "=" : "", text);
	if (!parse_digits(text, &n, &end) || *end)
		return config_error(parser, shown, "%s; give a whole number from %llu to %llu",
				    *text == '-' ? "it cannot be negative" : "not a number",
				    (unsigned long long)min, (unsigned long long)max);
	if (n < min || n > max)
		return config_error(parser, shown, "too %s; give %llu to %llu",
				    n < min ? "small" : "large", (unsigned long long)min,
				    (unsigned long long)max);
	*number = n;
	return 0;
}

int config_size(const struct config_parser *parser, const char *text, u64 *bytes)
{
	unsigned int shift = 20;
	const char *end;
	u64 n;

	if (!parse_digits(text, &n, &end))
		return config_error(parser, text, "%s; give it as in 512M or 4G",
				    *text == '-' ? "a size cannot be negative" : "not a size");
	switch (*end) {
	case 'T':
	case 't':
		shift += 10;
		/* fallthrough */
	case 'G':
	case 'g':
		shift += 10;
		/* fallthrough */
	case 'M':
	case 'm':
		end++;
		break;
	}
	if (*end)
		return config_error(parser, text, "not a size; give it as in 512M or 4G");
	/* 52 bits of address is all that the architecture has. */
	if (n > BIT64(52) >> shift)
		return config_error(parser, text, "too large; no machine can address it");
	*bytes = n << shift;
	return 0;
}

int config_bool(const struct config_parser *parser, const char *what, const char *text, bool *on)
{
	char shown[96];

	if (!strcmp(text, "on")) {
		*on = true;
		return 0;
	}
	if (!strcmp(text, "off")) {
		*on = false;
		return 0;
	}
	snprintf(shown, sizeof(shown), "%s%s%.40s", what ? what : "", what ? "=" : "", text);
	return config_error(parser, shown, "neither on nor off; give one of them");
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int config_mac(const struct config_parser *parser, const char *text, u8 mac[6])
{
	static const u8 none[6];
	char shown[64];
	const char *p = text;

	snprintf(shown, sizeof(shown), "mac=%.40s", text);
	for (unsigned int i = 0; i < 6; i++, p += 3) {
		int high = hex_digit(p[0]), low = high < 0 ? -1 : hex_digit(p[1]);

		if (low < 0 || p[2] != (i < 5 ? ':' : '\0'))
			return config_error(
				parser, shown,
				"not an Ethernet address; give six pairs of hex digits, as in "
				"52:54:00:12:34:56");
		mac[i] = (u8)(high << 4 | low);
	}
	if (mac[0] & 1)
		return config_error(parser, shown,
				    "a multicast address; make the first pair even, as in %02x",
				    (mac[0] & 0xfe) | 2);
	if (!memcmp(mac, none, sizeof(none)))
		return config_error(parser, shown,
				    "the null address; give another, as in 52:54:00:12:34:56");
	return 0;
}

char *config_next_part(char **cursor)
{
	char *part = *cursor, *from = part, *to = part;

	if (!part)
		return NULL;
	for (; *from; from++) {
		if (*from == ',') {
			if (from[1] != ',')
				break;
			from++;
		}
		*to++ = *from;
	}
	*cursor = *from ? from + 1 : NULL;
	*to = '\0';
	return part;
}

/* An option's own suboptions, then those it shares; NULL: the first, and after the last. */
static const struct config_suboption *next_suboption(const struct config_option *option,
						     const struct config_suboption *sub)
{
	const struct config_suboption *shared =
		option->function ? config_function_suboptions : NULL;

	if (sub && sub[1].name)
		return sub + 1;
	if (!sub && option->suboptions)
		return option->suboptions;
	for (const struct config_suboption *at = shared; sub && at && at->name; at++)
		if (at == sub)
			return NULL;
	return shared;
}

static const struct config_suboption *find_suboption(const struct config_option *option,
						     const char *name, u32 *number)
{
	const struct config_suboption *sub = NULL;

	for (*number = 0; (sub = next_suboption(option, sub)); (*number)++)
		if (!strcmp(sub->name, name))
			return sub;
	return NULL;
}

static int unknown_suboption(const struct config_parser *parser, const char *name)
{
	const struct config_suboption *sub = NULL, *nearest = NULL;
	unsigned int best = 3;
	char known[200] = "";
	size_t used = 0;

	while ((sub = next_suboption(parser->option, sub))) {
		unsigned int distance = config_distance(name, sub->name);

		used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s",
					 used ? ", " : "", sub->name);
		if (distance < best && 2 * distance <= strlen(sub->name)) {
			best = distance;
			nearest = sub;
		}
	}
	if (nearest)
		return config_error(parser, NULL,
				    "%.40s is no key of it; did you mean %s? (it has: %s)", name,
				    nearest->name, known);
	return config_error(parser, NULL,
			    "%.40s is no key of it; it has: %s (a comma in a value is doubled)",
			    name, known);
}

int config_parse_suboptions(struct config_parser *parser, void *target, char **cursor)
{
	const struct config_suboption *sub;
	u32 seen = 0, number;
	char *part, *value;
	int err;

	while ((part = config_next_part(cursor))) {
		value = strchr(part, '=');
		if (value)
			*value++ = '\0';
		if (!*part)
			return config_error(parser, NULL,
					    "nothing between two commas; remove one, or "
					    "double it if it belongs to the value");
		sub = find_suboption(parser->option, part, &number);
		if (!sub)
			return unknown_suboption(parser, part);
		if (seen & BIT(number) && !sub->repeats)
			return config_error(parser, NULL, "%s is given twice; keep one", sub->name);
		seen |= BIT(number);
		if (!value && sub->argument_optional)
			value = "on";
		if (!value || !*value)
			return config_error(parser, NULL, "%s has no value; write %s=%s", sub->name,
					    sub->name, sub->argument);
		err = sub->set(parser, sub->shared ? parser->function : target, value);
		if (err)
			return err;
	}
	return parser->option->function ? config_check_function(parser) : 0;
}

/* Damerau's distance (optimal string alignment), three rows at a time. */
unsigned int config_distance(const char *a, const char *b)
{
	size_t m = strlen(a), n = strlen(b);
	unsigned int rows[3][MAX_WORD + 1];

	if (m > MAX_WORD || n > MAX_WORD)
		return MAX_WORD;
	for (unsigned int j = 0; j <= n; j++)
		rows[0][j] = j;
	for (unsigned int i = 1; i <= m; i++) {
		unsigned int *row = rows[i % 3], *above = rows[(i + 2) % 3];

		row[0] = i;
		for (unsigned int j = 1; j <= n; j++) {
			unsigned int best = above[j - 1] + (a[i - 1] != b[j - 1]);

			if (above[j] + 1 < best)
				best = above[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
			    rows[(i + 1) % 3][j - 2] + 1 < best)
				best = rows[(i + 1) % 3][j - 2] + 1;
			row[j] = best;
		}
	}
	return rows[m % 3][n];
}
