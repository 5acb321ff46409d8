/* The option that shares a folder: --share, with what may follow it. Main thread. */
#include <errno.h>
#include <stdlib.h>

#include "vm/config-table.h"

static int set_ro(struct config_parser *parser, void *target, const char *value)
{
	struct config_share *share = target;

	return config_bool(parser, "ro", value, &share->readonly);
}

static int set_tag(struct config_parser *parser, void *target, const char *value)
{
	struct config_share *share = target;
	size_t length = strlen(value);

	if (length > CONFIG_MAX_TAG)
		return config_error(parser, NULL, "tag=%.40s: %zu letters; a tag has at most %u",
				    value, length, CONFIG_MAX_TAG);
	for (size_t i = 0; i < length; i++)
		if (value[i] <= ' ' || value[i] > '~')
			return config_error(parser, NULL,
					    "tag=%.40s: the guest mounts it by this name; use "
					    "letters, digits and the like",
					    value);
	memcpy(share->tag, value, length + 1);
	return 0;
}

static int set_map(struct config_parser *parser, void *target, const char *value)
{
	static const char *const names[] = { [CONFIG_MAP_SQUASH] = "squash",
					     [CONFIG_MAP_MAPPED] = "mapped",
					     [CONFIG_MAP_PASSTHROUGH] = "passthrough" };
	struct config_share *share = target;

	for (unsigned int i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(value, names[i])) {
			share->map = (enum config_map)i;
			return 0;
		}
	return config_error(parser, NULL,
			    "map=%.40s: no such mapping; give squash, mapped or passthrough",
			    value);
}

static int set_iothread(struct config_parser *parser, void *target, const char *value)
{
	struct config_share *share = target;

	return config_set_iothread(parser, value, &share->iothread);
}

int config_set_share(struct config_parser *parser, const char *value)
{
	struct config *config = parser->config;
	struct config_share *share = &config->shares[config->share_count];
	char *copy, *cursor;
	const char *path;
	int err;

	if (config->share_count == CONFIG_MAX_SHARES)
		return config_error(parser, value, "one share too many; a machine has at most %u",
				    CONFIG_MAX_SHARES);
	copy = cursor = strdup(value);
	if (!copy)
		return config_no_memory();
	*share = (struct config_share){ .iothread = -1 };
	parser->function = &share->function;
	parser->queue_size_max = CONFIG_SHARE_QUEUE_SIZE;
	path = config_next_part(&cursor);
	if (!*path)
		err = config_error(parser, value,
				   "the folder is missing; write it before the first comma");
	else
		err = config_parse_suboptions(parser, share, &cursor);
	if (!err && !*share->tag)
		err = config_error(parser, path,
				   "the guest mounts it by a name; add it, as in tag=src");
	for (u32 i = 0; !err && i < config->share_count; i++)
		if (!strcmp(config->shares[i].tag, share->tag))
			err = config_error(parser, path, "has the same tag= as %s; change one",
					   config->shares[i].path);
	if (!err)
		err = config_set_string(&share->path, path);
	if (!err)
		config->share_count++;
	free(copy);
	return err;
}

const struct config_suboption config_share_suboptions[] = {
	{ "tag", "TAG", .set = set_tag,
	  MAN("The name by which the guest mounts it, up to 31 letters. Needed.") },
	{ "ro", "on|off", true, .set = set_ro,
	  MAN("The guest may only read. The default is off.") },
	{ "map", "squash|mapped|passthrough", .set = set_map,
	  MAN("Whose the files are. With squash, the default, the guest sees the owners there "
	      "are, what it makes belongs to the user who runs vmm, set-id bits are left out, "
	      "and chown has no effect. With mapped, owner and mode of what the guest makes or "
	      "changes are kept beside the file, in an attribute (user.vmm.attr), for the guest "
	      "alone. With passthrough they are the file's own, set-id bits included, which "
	      "needs root.") },
	{ "iothread", "N", .set = set_iothread,
	  MAN("The thread of --iothreads, counted from 0, that serves its queue.") },
	{ 0 },
};
