/*
 * The options that say which threads there are and where they run: --iothreads, --pin, and the
 * iothread= of --disk, --net and --share. Main thread.
 */
#include <errno.h>
#include <stdlib.h>

#include "vm/config-table.h"
#include "vm/log.h"

/* ---- iothreads ---- */

static int set_poll(struct config_parser *parser, void *target, const char *value)
{
	struct config *config = target;
	u64 n;
	int err = config_number(parser, "poll-us", value, 0, CONFIG_MAX_POLL_US, &n);

	if (err)
		return err;
	config->poll_given = true;
	config->poll_us = (u32)n;
	return 0;
}

static int set_sqpoll(struct config_parser *parser, void *target, const char *value)
{
	struct config *config = target;

	return config_bool(parser, "sqpoll", value, &config->sqpoll);
}

int config_set_iothreads(struct config_parser *parser, const char *value)
{
	struct config *config = parser->config;
	char *copy = strdup(value), *cursor = copy;
	u64 n;
	int err;

	if (!copy)
		return config_no_memory();
	config->sqpoll = false;
	err = config_number(parser, NULL, config_next_part(&cursor), 1, CONFIG_MAX_IOTHREADS, &n);
	if (!err) {
		config->iothreads = (u32)n;
		err = config_parse_suboptions(parser, config, &cursor);
	}
	free(copy);
	return err;
}

int config_set_iothread(struct config_parser *parser, const char *value, s32 *to)
{
	u64 n;
	int err = config_number(parser, "iothread", value, 0, CONFIG_MAX_IOTHREADS - 1, &n);

	if (!err)
		*to = (s32)n;
	return err;
}

/* ---- pin ---- */

static int pin_error(const struct config_parser *parser, const char *what, const char *value)
{
	return config_error(parser, NULL,
			    "%s=%.40s: not a list of CPUs; give numbers and ranges, as in 0-3 or "
			    "0+2+8-11",
			    what, value);
}

/* N or N-M, up to + or the end. NULL: neither. */
static const char *take_range(const char *text, unsigned long *first, unsigned long *last)
{
	unsigned long *const ends[] = { first, last };
	char *end;

	for (u32 i = 0; i < ARRAY_SIZE(ends); i++) {
		if (*text < '0' || *text > '9')
			return NULL;
		*ends[i] = strtoul(text, &end, 10); /* too large is so large */
		text = end;
		if (i == 0 && *text == '-') {
			text++;
			continue;
		}
		if (i == 0)
			*last = *first;
		break;
	}
	return *text == '\0' || *text == '+' ? text : NULL;
}

static int set_list(struct config_parser *parser, const char *what, const char *value,
		    struct cpu_list *list)
{
	const char *at = value;

	list->count = 0;
	for (;;) {
		unsigned long first, last;

		at = take_range(at, &first, &last);
		if (!at || first > last)
			return pin_error(parser, what, value);
		if (last > CPU_NUMBER_MAX)
			return config_error(parser, NULL,
					    "%s=%.40s: no host has a CPU %lu; give up to %d", what,
					    value, last, CPU_NUMBER_MAX);
		if (last - first >= (unsigned long)(CPU_LIST_MAX - list->count))
			return config_error(parser, NULL,
					    "%s=%.40s: too many CPUs; a list has at most %d", what,
					    value, CPU_LIST_MAX);
		while (first <= last)
			list->cpu[list->count++] = (u16)first++;
		if (!*at)
			return 0;
		at++;
	}
}

static int set_pin_vcpus(struct config_parser *parser, void *target, const char *value)
{
	struct config *config = target;

	return set_list(parser, "vcpus", value, &config->pin_vcpus);
}

static int set_pin_io(struct config_parser *parser, void *target, const char *value)
{
	struct config *config = target;

	return set_list(parser, "io", value, &config->pin_io);
}

static int set_pin_sqpoll(struct config_parser *parser, void *target, const char *value)
{
	struct config *config = target;

	return set_list(parser, "sqpoll", value, &config->pin_sqpoll);
}

int config_set_pin(struct config_parser *parser, const char *value)
{
	struct config *config = parser->config;
	char *copy = strdup(value), *cursor = copy;
	int err;

	if (!copy)
		return config_no_memory();
	config->pin_vcpus.count = config->pin_io.count = config->pin_sqpoll.count = 0;
	err = config_parse_suboptions(parser, config, &cursor);
	free(copy);
	return err;
}

/* ---- together ---- */

static int check_iothread(const struct config *config, const char *option, const char *name,
			  s32 iothread)
{
	if (iothread < (s32)config->iothreads)
		return 0;
	log_line("--%s %.60s: iothread=%d: the last of %u event threads is number %u; give that or "
		 "less, or --iothreads %d",
		 option, name, iothread, config->iothreads, config->iothreads - 1, iothread + 1);
	return -EINVAL;
}

int config_check_threads(const struct config *config)
{
	int err = 0;

	for (u32 i = 0; i < config->disk_count && !err; i++)
		err = check_iothread(config, "disk", config->disks[i].path,
				     config->disks[i].iothread);
	for (u32 i = 0; i < config->net_count && !err; i++)
		err = check_iothread(config, "net", config->nets[i].tap, config->nets[i].iothread);
	for (u32 i = 0; i < config->share_count && !err; i++)
		err = check_iothread(config, "share", config->shares[i].path,
				     config->shares[i].iothread);
	if (!err && config->vsock.cid)
		err = check_iothread(config, "vsock", "", config->vsock.iothread);
	if (!err && config->pin_sqpoll.count && !config->sqpoll) {
		log_line("--pin sqpoll=: there is no such thread; add sqpoll=on to --iothreads, or "
			 "leave it out");
		err = -EINVAL;
	}
	return err;
}

const struct config_suboption config_iothreads_suboptions[] = {
	{ "poll-us", "N", .set = set_poll,
	  MAN("Before such a thread sleeps it looks for work for up to this many microseconds, "
	      "less or not at all while that finds nothing. The default is 32, or 0 where the "
	      "host has no more CPUs than the machine. Given, it is also how long vhost-net "
	      "looks.") },
	{ "sqpoll", "on|off", true, .set = set_sqpoll,
	  MAN("Each such thread gets a thread of the host's kernel beside it that takes its "
	      "operations without a system call (IORING_SETUP_SQPOLL). That one keeps a CPU "
	      "busy "
	      "while there is work and for 10 ms after, then sleeps. The default is off.") },
	{ 0 },
};

const struct config_suboption config_pin_suboptions[] = {
	{ "vcpus", "CPUS", .set = set_pin_vcpus,
	  MAN("The first virtual CPU runs on the first CPU of the list, and so on; a list that "
	      "is too short begins anew.") },
	{ "io", "CPUS", .set = set_pin_io, MAN("The same for the threads of --iothreads.") },
	{ "sqpoll", "CPUS", .set = set_pin_sqpoll,
	  MAN("The same for the kernel's threads of --iothreads N,sqpoll=on.") },
	{ 0 },
};
