/*
 * The options that vmm run alone has, and what its help and the man page say of them together.
 * Main thread.
 */
#include <errno.h>
#include <stdlib.h>

#include "vm/config-table.h"

/* One more string at the end of a list that grows. 0 or -ENOMEM. */
static int add_string(char ***list, u32 *count, char *text)
{
	char **grown = text ? realloc(*list, (*count + 1) * sizeof(**list)) : NULL;

	if (!grown) {
		free(text);
		return config_no_memory();
	}
	grown[(*count)++] = text;
	*list = grown;
	return 0;
}

int config_add_kernel(struct config_parser *parser, const char *value)
{
	struct config_run *run = &parser->config->run;

	if (run->asked) {
		if (run->kernel_count == CONFIG_MAX_KERNELS)
			return config_error(parser, value,
					    "one kernel too many; give up to %u at a time",
					    CONFIG_MAX_KERNELS);
		if (add_string(&run->kernels, &run->kernel_count, strdup(value)))
			return -ENOMEM;
		if (run->kernel_count > 1)
			return 0;
	}
	return config_set_string(&parser->config->kernel, value);
}

int config_set_rw(struct config_parser *parser, const char *value)
{
	struct config_run *run = &parser->config->run;
	int err;

	if (run->rw_count == CONFIG_MAX_RW)
		return config_error(parser, value, "one folder too many; give up to %u",
				    CONFIG_MAX_RW);
	run->rw[run->rw_count] = NULL;
	err = config_set_string(&run->rw[run->rw_count], value);
	run->rw_count += !err;
	return err;
}

int config_set_pack(struct config_parser *parser, const char *value)
{
	return config_bool(parser, NULL, value, &parser->config->run.pack);
}

int config_set_env(struct config_parser *parser, const char *value)
{
	struct config_run *run = &parser->config->run;
	const char *own;
	char *text;

	if (*value == '=')
		return config_error(parser, value, "has no name; write NAME=VALUE");
	if (strchr(value, '='))
		return add_string(&run->env, &run->env_count, strdup(value));
	own = getenv(value);
	if (!own) /* as with others that hand variables on: what is not there stays so */
		return 0;
	text = malloc(strlen(value) + strlen(own) + 2);
	if (text)
		stpcpy(stpcpy(stpcpy(text, value), "="), own);
	return add_string(&run->env, &run->env_count, text);
}

int config_set_cwd(struct config_parser *parser, const char *value)
{
	if (*value != '/')
		return config_error(parser, value,
				    "a folder in the guest; give its whole path, from / on");
	return config_set_string(&parser->config->run.cwd, value);
}

static int set_number(struct config_parser *parser, const char *value, u64 min, u64 max, u32 *to)
{
	u64 n;
	int err = config_number(parser, NULL, value, min, max, &n);

	if (!err)
		*to = (u32)n;
	return err;
}

int config_set_boot_timeout(struct config_parser *parser, const char *value)
{
	return set_number(parser, value, 0, CONFIG_MAX_SECONDS,
			  &parser->config->run.boot_timeout_seconds);
}

int config_set_jobs(struct config_parser *parser, const char *value)
{
	return set_number(parser, value, 1, CONFIG_MAX_JOBS, &parser->config->run.jobs);
}

int config_set_fail_on(struct config_parser *parser, const char *value)
{
	enum config_fail_on *to = &parser->config->run.fail_on;

	if (!strcmp(value, "oops"))
		*to = CONFIG_FAIL_ON_OOPS;
	else if (!strcmp(value, "warn"))
		*to = CONFIG_FAIL_ON_WARN;
	else
		return config_error(parser, value, "no such message; give oops or warn");
	return 0;
}

static void free_list(char **list, u32 count)
{
	while (count)
		free(list[--count]);
}

void config_free_run(struct config_run *run)
{
	free_list(run->kernels, run->kernel_count);
	free_list(run->env, run->env_count);
	free_list(run->rw, run->rw_count);
	free(run->kernels);
	free(run->env);
	free(run->root);
	free(run->user);
	free(run->cwd);
	free(run->modules);
	free(run->report);
	free(run->log);
	free(run->junit);
}
