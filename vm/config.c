/*
 * The parser of flags and config files: both fill struct config through the setters of
 * config-table.c. Main thread.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "vm/config-table.h"
#include "vm/log.h"

#define MAX_FILE KIB(256)
/* Some editors put it before UTF-8 text. */
#define BYTE_ORDER_MARK "\xef\xbb\xbf"

/* One option as it stood among the flags. */
struct given {
	const struct config_option *option;
	const char *value;
};

static const struct config_option *find_option(const char *name, size_t length)
{
	for (size_t i = 0; i < config_option_count; i++)
		if (strlen(config_options[i].name) == length &&
		    !memcmp(config_options[i].name, name, length))
			return &config_options[i];
	return NULL;
}

static bool option_fits(const struct config *config, const struct config_option *option)
{
	return option->use != (config->run.asked ? CONFIG_PLAIN_ONLY : CONFIG_RUN_ONLY);
}

/* What the user may have meant: few letters off, or one of the two begins the other. NULL: no idea.
 */
static const struct config_option *nearest_option(const struct config *config, const char *name,
						  size_t length)
{
	const struct config_option *nearest = NULL;
	unsigned int best = 1 + (unsigned int)(length < 4 ? length / 2 : length / 3 + 1);
	char word[32];

	if (length >= sizeof(word))
		return NULL;
	memcpy(word, name, length);
	word[length] = '\0';
	for (size_t i = 0; i < config_option_count; i++) {
		const struct config_option *option = &config_options[i];
		size_t shorter = strlen(option->name) < length ? strlen(option->name) : length;
		unsigned int distance = config_distance(word, option->name);

		if (option->hidden || !option_fits(config, option))
			continue;
		if (length == 1 && word[0] == option->name[0]) /* -h, -m */
			return option;
		if (shorter >= 3 && distance > 1 && !strncmp(word, option->name, shorter))
			distance = 1;
		if (distance < best) {
			best = distance;
			nearest = option;
		}
	}
	return nearest;
}

static int unknown_flag(const struct config *config, const char *word, size_t length)
{
	const struct config_option *nearest;
	size_t dashes = strspn(word, "-");

	if (dashes > length)
		dashes = length;
	nearest = nearest_option(config, word + dashes, length - dashes);
	if (nearest)
		log_line("%.*s: no such option; did you mean --%s?", (int)length, word,
			 nearest->name);
	else
		log_line("%.*s: no such option; see vmm %s--help", (int)length, word,
			 config->run.asked ? "run " : "");
	return -EINVAL;
}

static int stray_word(const struct config *config, const char *word)
{
	const struct config_option *nearest = nearest_option(config, word, strcspn(word, "="));

	if (!*word)
		log_line("\"\": an empty word among the options; remove it");
	else if (config->run.asked)
		log_line("%.60s: not an option; the command comes behind --, as in vmm run "
			 "--kernel bzImage -- %.60s",
			 word, word);
	else if (config_distance(word, "run") <= 1)
		log_line("%.60s: not an option; did you mean vmm run, with run as the first word?",
			 word);
	else if (config_distance(word, "check") <= 2)
		log_line("%.60s: not an option; did you mean vmm check, with check as the first "
			 "word?",
			 word);
	else if (nearest)
		log_line("%.60s: not an option; did you mean --%s?", word, nearest->name);
	else
		log_line("%.60s: not an option; a kernel is given by --kernel, a disk by --disk, a "
			 "tap by --net",
			 word);
	return -EINVAL;
}

static bool is_option(const char *word)
{
	return !strncmp(word, "--", 2) && find_option(word + 2, strcspn(word + 2, "="));
}

static int set_option(struct config_parser *parser, const char *value)
{
	const struct config_option *option = parser->option;

	if (option->set)
		return option->set(parser, value);
	return option->text
		       ? config_set_string((char **)((char *)parser->config + option->text), value)
		       : 0; /* --config, beneath all others wherever it stands */
}

static int check_repeated(const struct config_parser *parser, u64 *seen)
{
	const struct config_option *option = parser->option;
	u64 bit = BIT64(option - config_options);
	bool list = option->list || (option->run_list && parser->config->run.asked);

	if (!option_fits(parser->config, option))
		return config_error(parser, NULL, "%s; leave it out",
				    option->use == CONFIG_RUN_ONLY ? "belongs to vmm run"
								   : "is not for vmm run");
	if (!list && *seen & bit)
		return config_error(parser, NULL, "given twice; keep one");
	*seen |= bit;
	return 0;
}

/* Reads the flags without acting on them, but for --help and the like: they win over all that
 * follows. */
static int read_flags(struct config *config, int argc, char **argv, struct given *given,
		      size_t *given_count)
{
	u64 seen = 0;

	for (int i = config->run.asked ? 2 : 1; i < argc; i++) {
		struct config_parser parser = { .config = config };
		const char *word = argv[i], *value = NULL;
		size_t length = strcspn(word, "=");
		int err;

		if (word[0] != '-')
			return stray_word(config, word);
		if (config->run.asked && !strcmp(word, "--")) {
			if (i + 1 < argc)
				config->run.command = &argv[i + 1];
			return 0;
		}
		if (!strncmp(word, "--", 2) && length > 2)
			parser.option = find_option(word + 2, length - 2);
		if (!parser.option)
			return unknown_flag(config, word, length);
		if (word[length])
			value = word + length + 1;
		if (parser.option->action != CONFIG_RUN) {
			if (value)
				return config_error(&parser, value, "takes no value; leave it out");
			config->action = parser.option->action;
			return 0;
		}
		if (!value && !parser.option->argument) {
			value = "on";
		} else if (!value) {
			if (i + 1 == argc || is_option(argv[i + 1]) ||
			    (config->run.asked && !strcmp(argv[i + 1], "--")))
				return config_error(&parser, NULL, "needs a value; write --%s %s",
						    parser.option->name, parser.option->argument);
			value = argv[++i];
		}
		if (!*value && !parser.option->empty_value)
			return config_error(&parser, NULL, "its value is empty; write --%s %s",
					    parser.option->name,
					    parser.option->argument ? parser.option->argument : "");
		err = check_repeated(&parser, &seen);
		if (err)
			return err;
		given[(*given_count)++] = (struct given){ parser.option, value };
	}
	return 0;
}

/* ---- the config file ---- */

/* The whole file, NUL-terminated, or -errno after a log line. */
static int read_file(const char *path, char **text, size_t *length)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY), err = 0;
	ssize_t n;

	if (fd < 0) {
		err = -errno;
		log_line("%s: cannot open this config file: %s; give the path of a readable file",
			 path, strerror(-err));
		return err;
	}
	*length = 0;
	*text = malloc(MAX_FILE + 1);
	if (!*text) {
		log_line("%s: cannot read this config file: out of memory; free some", path);
		err = -ENOMEM;
		goto out;
	}
	while ((n = read(fd, *text + *length, MAX_FILE + 1 - *length)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			err = -errno;
			log_line("%s: cannot read this config file: %s; give the path of a "
				 "readable file",
				 path, strerror(-err));
			goto out;
		}
		*length += (size_t)n;
		if (*length > MAX_FILE) {
			log_line("%s: larger than 256 KiB, so not a config file; give the path of "
				 "one",
				 path);
			err = -EINVAL;
			goto out;
		}
	}
	(*text)[*length] = '\0';
	if (memchr(*text, '\0', *length)) {
		log_line("%s: not a text file, so not a config file; give the path of one", path);
		err = -EINVAL;
	}
out:
	if (err) {
		free(*text);
		*text = NULL;
	}
	close(fd);
	return err;
}

static char *trim(char *text)
{
	char *end;

	while (isspace((unsigned char)*text))
		text++;
	end = text + strlen(text);
	while (end > text && isspace((unsigned char)end[-1]))
		*--end = '\0';
	return text;
}

static int unknown_key(const struct config_parser *parser, const char *key)
{
	const struct config_option *nearest;
	size_t dashes = strspn(key, "-");

	nearest = nearest_option(parser->config, key + dashes, strlen(key + dashes));
	if (nearest && nearest->flag_only)
		nearest = NULL;
	log_line("%.60s, line %u: %.60s: no such key; %s%s", parser->file, parser->line,
		 *key ? key : "(nothing)",
		 nearest ? "did you mean " : "keys are the long options of vmm --help",
		 nearest ? nearest->name : "");
	return -EINVAL;
}

/* `key = value`, or the bare name of a switch. */
static int parse_line(struct config_parser *parser, char *line, u64 *seen)
{
	char *key, *equals = strchr(line, '=');
	const char *value = NULL;
	int err;

	if (equals)
		*equals = '\0';
	key = trim(line);
	parser->option = find_option(key, strlen(key));
	if (!parser->option)
		return unknown_key(parser, key);
	if (parser->option->flag_only)
		return config_error(parser, NULL, "not in a config file; give it as a flag");
	if (equals)
		value = trim(equals + 1);
	else if (!parser->option->argument)
		value = "on";
	if (!value)
		return config_error(parser, NULL, "has no value; write %s = %s", key,
				    parser->option->argument);
	if (!*value && !parser->option->empty_value)
		return config_error(parser, NULL, "its value is empty; write %s = %s", key,
				    parser->option->argument ? parser->option->argument : "on");
	err = check_repeated(parser, seen);
	return err ? err : set_option(parser, value);
}

static int parse_file(struct config *config, const char *path)
{
	struct config_parser parser = { .config = config, .file = path };
	char *text = NULL, *cursor, *line;
	size_t length;
	u64 seen = 0;
	int err = read_file(path, &text, &length);

	if (err)
		return err;
	cursor = text;
	if (!strncmp(cursor, BYTE_ORDER_MARK, strlen(BYTE_ORDER_MARK)))
		cursor += strlen(BYTE_ORDER_MARK);
	while (!err && (line = strsep(&cursor, "\n"))) {
		parser.line++;
		line = trim(line);
		if (*line && *line != '#')
			err = parse_line(&parser, line, &seen);
	}
	free(text);
	return err;
}

/* ---- all of it ---- */

static int set_defaults(struct config *config)
{
	*config = (struct config){
		.action = CONFIG_RUN,
		.cpus = 1,
		.sockets = 1,
		.cores = 1,
		.threads = 1,
		.memory = MIB(512),
		.serial = strdup("stdio"),
		.rng = true,
		.iothreads = 1,
		.grace_seconds = 10,
		.reboot = true,
		.sandbox = true,
		.run.boot_timeout_seconds = CONFIG_BOOT_SECONDS,
	};
	if (config->serial)
		return 0;
	log_line("options: the host is out of memory; free some");
	return -ENOMEM;
}

static int apply(struct config *config, const struct given *given, size_t count)
{
	struct config_parser parser = { .config = config };
	int err;

	for (size_t i = 0; i < count; i++)
		if (!strcmp(given[i].option->name, "config")) {
			err = parse_file(config, given[i].value);
			if (err)
				return err;
		}
	for (size_t i = 0; i < count; i++) {
		parser.option = given[i].option;
		err = set_option(&parser, given[i].value);
		if (err)
			return err;
	}
	if (config->strict == CONFIG_STRICT_LIST) {
		config->action = CONFIG_RULES;
		return 0;
	}
	err = config_check_mmio(config);
	if (!err)
		err = config_check_balloon(config);
	if (err)
		return err;
	if (config->kernel)
		return config_check_threads(config);
	log_line("no kernel: the machine has nothing to boot; run vmm %s--kernel bzImage, or see "
		 "vmm %s--help",
		 config->run.asked ? "run " : "", config->run.asked ? "run " : "");
	return -EINVAL;
}

int config_parse(struct config *config, int argc, char **argv)
{
	struct given *given = NULL;
	size_t given_count = 0;
	int err = set_defaults(config);

	if (err)
		return err;
	if (argc > 1 && !strcmp(argv[1], "check")) {
		config->action = CONFIG_CHECK;
		if (argc == 2)
			return 0;
		if (!strcmp(argv[2], "--help")) {
			config->action = CONFIG_HELP;
			return 0;
		}
		log_line("check: takes no options, but %.60s follows; run vmm check", argv[2]);
		err = -EINVAL;
		goto out;
	}
	if (argc > 1 && !strcmp(argv[1], "run")) {
		config->run.asked = true;
		config->memory = CONFIG_RUN_MEMORY;
	}
	given = calloc(argc > 0 ? (size_t)argc : 1, sizeof(*given));
	if (!given) {
		log_line("options: the host is out of memory; free some");
		err = -ENOMEM;
		goto out;
	}
	err = read_flags(config, argc, argv, given, &given_count);
	if (!err && config->action == CONFIG_RUN)
		err = apply(config, given, given_count);
out:
	free(given);
	if (err)
		config_free(config);
	return err;
}

/* What may come while the machine runs. */
static bool is_kind(const char *option)
{
	static const char *const kinds[] = { "disk", "net", "port", "rng", "balloon", "vsock" };

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (!strcmp(option, kinds[i]))
			return true;
	return false;
}

int config_parse_device(struct config **result, const struct config *machine, const char *option,
			const char *value)
{
	struct config_parser parser = { .option = find_option(option, strlen(option)),
					.bare = true };
	int err;

	if (!parser.option || !is_kind(option)) {
		log_line("%.40s: no such kind of device; add a disk, net, port, rng, balloon or "
			 "vsock",
			 option);
		return -EINVAL;
	}
	if (!*value)
		return config_error(&parser, NULL, "its value is empty; write %s %s", option,
				    parser.option->argument);
	parser.config = calloc(1, sizeof(*parser.config));
	if (!parser.config)
		return config_no_memory();
	err = parser.option->set(&parser, value);
	if (!err && machine) {
		parser.config->iothreads = machine->iothreads;
		parser.config->memory = machine->memory;
		parser.config->pages = machine->pages;
		err = config_check_threads(parser.config);
		if (!err)
			err = config_check_balloon(parser.config);
	}
	if (!err && !strcmp(option, "rng") && !parser.config->rng)
		err = config_error(&parser, NULL, "%s adds nothing; write on", value);
	if (err) {
		config_free(parser.config);
		free(parser.config);
		return err;
	}
	*result = parser.config;
	return 0;
}

int config_parse_size(const char *name, const char *text, u64 *bytes)
{
	const struct config_option option = { .name = name };
	const struct config_parser parser = { .option = &option, .bare = true };

	return config_size(&parser, text, bytes);
}

int config_parse_count(const char *name, const char *text, u64 min, u64 max, u64 *number)
{
	const struct config_option option = { .name = name };
	const struct config_parser parser = { .option = &option, .bare = true };

	return config_number(&parser, NULL, text, min, max, number);
}

void config_free(struct config *config)
{
	free(config->kernel);
	free(config->initrd);
	free(config->cmdline);
	free(config->serial);
	free(config->stats);
	free(config->control);
	free(config->gdb);
	free(config->vmcore);
	config_free_run(&config->run);
	for (u32 i = 0; i < config->disk_count; i++)
		free(config->disks[i].path);
	for (u32 i = 0; i < config->net_count; i++)
		free(config->nets[i].tap);
	for (u32 i = 0; i < config->port_count; i++) {
		free(config->ports[i].name);
		free(config->ports[i].path);
	}
	for (u32 i = 0; i < config->share_count; i++)
		free(config->shares[i].path);
	free(config->vsock.path);
	memset(config, 0, sizeof(*config));
}
