/*
 * Private to config*.c: the table of options, from which the parser, --help, the config file's keys
 * and the man page come, and what its setters share. Main thread throughout.
 */
#ifndef VM_CONFIG_TABLE_H
#define VM_CONFIG_TABLE_H

#include "vm/config.h"

/* What the table says for people. It is not kept in vmm, which has the pages made of it
 * (pages-generate.c) packed. */
#ifdef PAGES
#define HELP(text) (text)
#define MAN(text)  .man = (text)
#else
#define HELP(text) NULL
#define MAN(text)  .man = NULL
#endif

/* Who is being parsed: errors begin with it. */
struct config_parser {
	struct config *config;
	const struct config_option *option;
	const char *file; /* the config file, or NULL: flags */
	unsigned int line;
	bool bare; /* neither: the option's name stands alone, as a word of `vmm ctl` */
	/* set by the setter of an option that has `function`, before config_parse_suboptions() */
	struct config_function *function;
	u32 queue_size_max;
};

/* A `,name` or `,name=value` after an option's value. */
struct config_suboption {
	const char *name;
	const char *argument;	/* what the value looks like */
	bool argument_optional; /* `,name` alone means on */
	bool shared;		/* target is the parser's function */
	bool repeats;		/* may be given more than once */
	const char *man;
	/* target is what the option fills. 0, or -EINVAL after a log line. value is not empty. */
	int (*set)(struct config_parser *parser, void *target, const char *value);
};

/* Where an option has a meaning. */
enum config_use { CONFIG_ANYWHERE, CONFIG_PLAIN_ONLY, CONFIG_RUN_ONLY };

struct config_option {
	const char *name;
	const char *argument; /* NULL: a switch, which may be given on or off */
	const char *help;     /* a few words for --help */
	const char *man;      /* sentences for the man page; a blank line starts a paragraph */
	/* 0, or -errno after a log line. A value set before is replaced (or, for a list, added to).
	 */
	int (*set)(struct config_parser *parser, const char *value);
	const struct config_suboption *suboptions; /* ended by a NULL name */
	bool function;				   /* and those of config_function_suboptions */
	bool list;				   /* may be given more than once */
	bool run_list;				   /* to vmm run */
	enum config_use use;
	u16 text;	  /* without a setter: which char * of struct config takes the value */
	bool flag_only;	  /* has no place in a config file */
	bool hidden;	  /* not in --help and the man page */
	bool empty_value; /* "" is a value */
	bool beside;	  /* --help has it on the line of the option before: both are short */
	enum config_action action; /* not CONFIG_RUN: done at once, instead of running */
};

#define CONFIG_MAX_OPTIONS 64
extern const struct config_option config_options[];
extern const size_t config_option_count;

/* "--cpus 0: why; what to do", or "vm.conf, line 3: cpus 0: why; what to do". value may be NULL.
 * Returns -EINVAL. */
int config_error(const struct config_parser *parser, const char *value, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Decimal digits and nothing else, from min to max. Logs and returns -EINVAL; what names a
 * suboption, or is NULL. */
int config_number(const struct config_parser *parser, const char *what, const char *text, u64 min,
		  u64 max, u64 *number);
/* 512M, 4G, 1T, or a plain number of MiB; in bytes. */
int config_size(const struct config_parser *parser, const char *text, u64 *bytes);
/* on or off. */
int config_bool(const struct config_parser *parser, const char *what, const char *text, bool *on);
/* Six bytes, unicast, not all zero. */
int config_mac(const struct config_parser *parser, const char *text, u8 mac[6]);

/* Says that the host is out of memory; -ENOMEM. */
int config_no_memory(void);
/* A copy of value takes the place of *to. 0 or -ENOMEM. */
int config_set_string(char **to, const char *value);

/* ---- config-share.c: what it says of --share ---- */
int config_set_share(struct config_parser *parser, const char *value);
extern const struct config_suboption config_share_suboptions[];
/* ---- config-devices.c: what the table says of --disk, --net, --rng and --balloon ---- */
int config_set_disk(struct config_parser *parser, const char *value);
int config_set_net(struct config_parser *parser, const char *value);
int config_set_rng(struct config_parser *parser, const char *value);
int config_set_balloon(struct config_parser *parser, const char *value);
/* When all options are known: does it go with the memory? 0, or -EINVAL after a log line. */
int config_check_balloon(const struct config *config);
extern const struct config_suboption config_disk_suboptions[], config_net_suboptions[],
	config_rng_suboptions[], config_balloon_suboptions[];

/* ---- config-ports.c: --console and --port ---- */
int config_set_console(struct config_parser *parser, const char *value);
int config_set_port(struct config_parser *parser, const char *value);
extern const struct config_suboption config_port_suboptions[];
/* ---- config-vsock.c: --vsock ---- */
int config_set_vsock(struct config_parser *parser, const char *value);
extern const struct config_suboption config_vsock_suboptions[];

/* ---- config-function.c: what they have in common ---- */
extern const struct config_suboption config_function_suboptions[];
int config_set_mmio(struct config_parser *parser, const char *value);
int config_set_strict(struct config_parser *parser, const char *value);
/* Does --virtio-mmio go with the devices? 0, or -EINVAL after a log line. */
int config_check_mmio(const struct config *config);
/* After the suboptions: do they go together? 0, or -EINVAL after a log line. */
int config_check_function(const struct config_parser *parser);
/* ---- config-threads.c: --iothreads, --pin, and iothread= of the devices ---- */
int config_set_iothreads(struct config_parser *parser, const char *value);
int config_set_pin(struct config_parser *parser, const char *value);
int config_set_iothread(struct config_parser *parser, const char *value, s32 *to);
/* When all options are known: do the numbers fit each other? 0, or -EINVAL after a log line. */
int config_check_threads(const struct config *config);
extern const struct config_suboption config_iothreads_suboptions[], config_pin_suboptions[];

/* ---- config-run.c: what vmm run alone has ---- */
int config_add_kernel(struct config_parser *parser, const char *value);
int config_set_rw(struct config_parser *parser, const char *value);
int config_set_pack(struct config_parser *parser, const char *value);
int config_set_env(struct config_parser *parser, const char *value);
int config_set_cwd(struct config_parser *parser, const char *value);
int config_set_boot_timeout(struct config_parser *parser, const char *value);
int config_set_fail_on(struct config_parser *parser, const char *value);
int config_set_jobs(struct config_parser *parser, const char *value);
void config_free_run(struct config_run *run);

/* Cuts the next part off a comma list in place; a doubled comma is a comma of the value. NULL at
 * the end. */
char *config_next_part(char **cursor);
/* Sets the `,name=value` parts that remain at cursor. */
int config_parse_suboptions(struct config_parser *parser, void *target, char **cursor);

/* How many letters were added, left out, changed or swapped between a and b; many for long words.
 */
unsigned int config_distance(const char *a, const char *b);

#endif
