/*
 * Who runs the command: whoever calls vmm, or --user, by the files of the root that the guest has.
 * Main thread, before the sandbox.
 */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "run/setup.h"
#include "vm/log.h"

static bool parse_number(const char *text, u32 *number)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(text, &end, 10);
	*number = (u32)n;
	return *text >= '0' && *text <= '9' && !*end && !errno && n < UINT32_MAX;
}

static FILE *open_in(const char *root, const char *file)
{
	char path[4200];

	snprintf(path, sizeof(path), "%s%s", root, file);
	return fopen(path, "re");
}

static bool is_user(const struct passwd *entry, const char *name, bool by_number, u32 uid)
{
	return by_number ? entry->pw_uid == uid : !strcmp(entry->pw_name, name);
}

static void take(struct setup_user *user, const struct passwd *entry)
{
	user->uid = entry->pw_uid;
	user->gid = entry->pw_gid;
	snprintf(user->name, sizeof(user->name), "%s", entry->pw_name);
	snprintf(user->home, sizeof(user->home), "%s", entry->pw_dir);
	snprintf(user->shell, sizeof(user->shell), "%s", entry->pw_shell);
}

/* In a root's own passwd; root NULL: the host's users, wherever they are kept. */
static bool find_user(struct setup_user *user, const char *root, const char *name)
{
	u32 uid = 0;
	bool by_number = parse_number(name, &uid), found = false;
	struct passwd *entry;
	FILE *f;

	if (!root) {
		entry = by_number ? getpwuid(uid) : getpwnam(name);
		if (entry)
			take(user, entry);
		return entry;
	}
	f = open_in(root, "/etc/passwd");
	while (f && !found && (entry = fgetpwent(f))) {
		found = is_user(entry, name, by_number, uid);
		if (found)
			take(user, entry);
	}
	if (f)
		fclose(f);
	return found;
}

/* The group's number by its name, and the groups that list the user. */
static bool find_groups(struct setup_user *user, const char *root, const char *name, u32 *gid)
{
	FILE *f = open_in(root ? root : "", "/etc/group");
	struct group *entry;
	bool found = false;

	while (f && (entry = fgetgrent(f))) {
		if (name && !strcmp(entry->gr_name, name)) {
			*gid = entry->gr_gid;
			found = true;
		}
		for (char **member = entry->gr_mem; *member; member++)
			if (!strcmp(*member, user->name) &&
			    user->group_count < ARRAY_SIZE(user->groups))
				user->groups[user->group_count++] = entry->gr_gid;
	}
	if (f)
		fclose(f);
	return found;
}

static void take_caller(struct setup_user *user)
{
	gid_t groups[ARRAY_SIZE(user->groups)];
	int n = getgroups(ARRAY_SIZE(groups), groups);
	char number[16];

	snprintf(number, sizeof(number), "%u", getuid());
	find_user(user, NULL, number); /* one without a name has none */
	user->uid = getuid();
	user->gid = getgid();
	for (int i = 0; i < n; i++)
		user->groups[user->group_count++] = groups[i];
}

static int take_named(struct setup_user *user, const struct setup *setup, const char *given)
{
	const char *root = NULL;
	char *name = strdup(given), *group = name ? strchr(name, ':') : NULL;
	u32 gid = 0;
	int error = 0;

	if (!name) {
		log_line("--user: out of memory; free some");
		return -ENOMEM;
	}
	if (group)
		*group++ = '\0';
	if (!setup->image && setup->share_count && !setup->shares[0].path[1])
		root = setup->shares[0].host;
	if ((setup->image || !find_user(user, root, name)) && !parse_number(name, &user->uid)) {
		if (setup->image && !strcmp(name, "root")) {
			snprintf(user->name, sizeof(user->name), "root");
		} else {
			log_line("--user %s: %s", given,
				 setup->image ? "an image is not looked into; give a number"
					      : "the root has no such user; give another, or a "
						"number");
			error = -ENOENT;
		}
	}
	if (!error && !*user->name && !group)
		user->gid = user->uid;
	if (!error && group && parse_number(group, &gid))
		group = NULL, user->gid = gid;
	if (!error && !setup->image && find_groups(user, root, group, &gid))
		user->gid = gid;
	else if (!error && group) {
		log_line("--user %s: the root has no such group; give another, or a number", given);
		error = -ENOENT;
	}
	free(name);
	return error;
}

int setup_user(struct setup *setup, const struct config *config)
{
	if (config->run.user)
		return take_named(&setup->user, setup, config->run.user);
	take_caller(&setup->user);
	return 0;
}
