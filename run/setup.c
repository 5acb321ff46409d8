/* From options to a machine and its initramfs: see setup.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "backends/passt.h"
#include "run/initramfs.h"
#include "run/protocol.h"
#include "run/setup.h"
#include "vm/log.h"

#define PACKED	   "squashfs"
#define GUEST_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* ---- the kernel's command line ---- */

/* Warnings are shown, and all that tells a story where somebody keeps it. A guest that hangs can be
 * asked by SysRq. */
char *setup_cmdline(const struct config *config)
{
	const char *user = config->cmdline ? config->cmdline : "";
	char *line;

	if (asprintf(&line,
		     "console=ttyS0 loglevel=%d printk.time=1 panic=-1 "
		     "sysrq_always_enabled=1%s%s",
		     config->run.log ? 7 : 5, *user ? " " : "", user) < 0)
		return NULL;
	return line;
}

static bool has_word(const char *line, const char *word)
{
	size_t length = strlen(word);

	for (const char *at = line; (at = strstr(at, word)); at += length)
		if ((at == line || at[-1] == ' ') &&
		    (word[length - 1] == '=' || !at[length] || at[length] == ' '))
			return true;
	return false;
}

static int check_cmdline(const struct config *config)
{
	if (config->run.fail_on == CONFIG_FAIL_ON_PANIC || !config->cmdline ||
	    (!has_word(config->cmdline, "quiet") && !has_word(config->cmdline, "loglevel=")))
		return 0;
	log_line("--cmdline: quiet or loglevel= may hide what --fail-on looks for; leave one out");
	return -EINVAL;
}

/* ---- what init is told ---- */

static void put_env(struct bytes *conf, const char *name, const char *value)
{
	char *text;

	if (!value || !*value)
		return;
	if (asprintf(&text, "%s=%s", name, value) < 0) {
		conf->failed = true;
		return;
	}
	run_conf_add(conf, "env", text);
	free(text);
}

/* Of the caller's own variables only these: others may be secrets, or of use on the host alone. */
static void put_environment(struct bytes *conf, const struct setup *setup,
			    const struct config *config)
{
	static const char *const always[] = { "TERM", "LANG", "LC_ALL", "TZ" };
	const struct setup_user *user = &setup->user;
	bool own = !config->run.user;

	for (size_t i = 0; i < ARRAY_SIZE(always); i++)
		put_env(conf, always[i], getenv(always[i]));
	put_env(conf, "PATH", own && !config->run.root ? getenv("PATH") : GUEST_PATH);
	put_env(conf, "HOME", own && getenv("HOME") ? getenv("HOME") : user->home);
	put_env(conf, "SHELL", own && getenv("SHELL") ? getenv("SHELL") : user->shell);
	put_env(conf, "USER", user->name);
	put_env(conf, "LOGNAME", user->name);
	/* the last of a name counts */
	for (u32 i = 0; i < config->run.env_count; i++)
		run_conf_add(conf, "env", config->run.env[i]);
}

static void put_user(struct bytes *conf, const struct setup_user *user)
{
	run_conf_add_number(conf, "uid", user->uid);
	run_conf_add_number(conf, "gid", user->gid);
	for (u32 i = 0; i < user->group_count; i++)
		run_conf_add_number(conf, "group", user->groups[i]);
}

static void put_roots(struct bytes *conf, const struct setup *setup)
{
	char text[4200];

	/* an image is under an overlay of the host's: the guest needs none */
	snprintf(text, sizeof(text), "blk:/dev/vd%c:" PACKED, 'a' + (int)setup->disk);
	run_conf_add(conf, "root",
		     setup->packed  ? text
		     : setup->image ? "blk:/dev/vda"
				    : "9p:root");
	run_conf_add(conf, "rootmode", setup->image ? "rw" : "overlay");
	for (u32 i = 0; i < setup->share_count; i++) {
		const struct setup_share *share = &setup->shares[i];

		if (!share->path[1])
			continue;
		if (setup->packed)
			snprintf(text, sizeof(text), "/dev/vd%c:%s:overlay",
				 'a' + (int)(setup->disk + i), share->path);
		else
			snprintf(text, sizeof(text), "share%u:%s:%s", i, share->path,
				 share->writable ? "rw" : "overlay");
		run_conf_add(conf, "share", text);
	}
}

/* The guest knows its interfaces by their order. */
static void put_net(struct bytes *conf, const struct config *config)
{
	char resolver[PASST_ADDRESS], text[96];

	for (u32 i = 0; i < config->net_count; i++) {
		if (!config_net_is_user(&config->nets[i]))
			continue;
		passt_resolver(resolver);
		snprintf(text, sizeof(text),
			 "eth%u " PASST_GUEST " " PASST_MASK " " PASST_GATEWAY " %s", i, resolver);
		run_conf_add(conf, "net", text);
	}
}

static int make_initramfs(const struct setup *setup, const struct config *config,
			  const struct modules *modules, bool tty, u16 rows, u16 cols)
{
	struct bytes conf = { 0 };
	int fd;

	put_roots(&conf, setup);
	run_conf_add(&conf, "cwd", setup->cwd);
	put_user(&conf, &setup->user);
	put_environment(&conf, setup, config);
	run_conf_add_number(&conf, "tty", tty);
	run_conf_add_number(&conf, "rows", rows);
	run_conf_add_number(&conf, "cols", cols);
	run_conf_add(&conf, "hostname", "vmm");
	put_net(&conf, config);
	for (char **word = config->run.command; word && *word; word++)
		run_conf_add(&conf, "arg", *word);
	fd = initramfs_make(modules, &conf);
	free(conf.start);
	return fd;
}

/* ---- modules ---- */

/* Without 9p the shares are packed. What is really to be written to cannot be. */
static int choose(struct setup *setup, const struct config *config, struct modules *modules)
{
	if (!setup->share_count)
		return 0;
	setup->packed = config->run.pack ||
			modules_want(modules, "9pnet_virtio", NULL) == -ENOENT ||
			modules_want(modules, "9p", NULL) == -ENOENT;
	for (u32 i = 0; setup->packed && i < setup->share_count; i++)
		if (setup->shares[i].writable) {
			log_line("--rw %s: it needs 9p, which %s; give a kernel with CONFIG_9P_FS "
				 "and "
				 "CONFIG_NET_9P_VIRTIO, or leave it out",
				 setup->shares[i].path,
				 config->run.pack ? "--pack does without" : "this kernel has not");
			return -ENOENT;
		}
	return 0;
}

static int want_modules(struct modules *modules, const struct setup *setup,
			const struct config *config)
{
	int error = modules_want(modules, "virtio_pci", "the machine's devices");

	if (error >= 0)
		error = modules_want(modules, "virtio_console", "the command's streams");
	if (error >= 0 && setup->packed)
		error = modules_want(modules, PACKED,
				     "a root without 9p (CONFIG_9P_FS and CONFIG_NET_9P_VIRTIO)");
	if (error >= 0 && setup->share_count && !setup->image)
		error = modules_want(modules, "overlay", "what is written to the root");
	if (error >= 0 && (config->disk_count || setup->packed))
		error = modules_want(modules, "virtio_blk", "the disks");
	if (error >= 0 && config->net_count)
		error = modules_want(modules, "virtio_net", "the network");
	/* of use, and not needed */
	if (error >= 0 && config->rng)
		modules_want(modules, "virtio_rng", NULL);
	if (error >= 0 && config->balloon)
		modules_want(modules, "virtio_balloon", NULL);
	return error < 0 ? error : 0;
}

static int want_file_system(struct modules *modules, const struct config *config)
{
	FILE *f = fopen(config->run.root, "re");
	const char *type = f ? image_type(fileno(f)) : NULL;
	int error = type ? modules_want(modules, type, "the root") : 0;

	if (f)
		fclose(f);
	return error < 0 ? error : 0;
}

/* ---- the machine ---- */

static int too_many_disks(const char *path)
{
	log_line("--root %s: one disk too many; a machine has at most %u", path, CONFIG_MAX_DISKS);
	return -E2BIG;
}

/* The image is the first disk, whose changes go with the machine. */
static int put_image(struct config *config)
{
	char *path = strdup(config->run.root);

	if (!path)
		return -ENOMEM;
	if (config->disk_count == CONFIG_MAX_DISKS) {
		free(path);
		return too_many_disks(config->run.root);
	}
	memmove(&config->disks[1], &config->disks[0],
		config->disk_count * sizeof(config->disks[0]));
	config->disks[0] = (struct config_disk){ .path = path, .snapshot = true, .iothread = -1 };
	config->disk_count++;
	return 0;
}

/* Behind the user's own, whose names stay. The descriptors are left open, for whoever takes the
 * paths. */
static int put_packed(struct config *config, struct setup *setup, int parent)
{
	setup->disk = config->disk_count;
	for (u32 i = 0; i < setup->share_count; i++) {
		const struct setup_share *from = &setup->shares[i];
		struct config_disk *disk = &config->disks[config->disk_count];
		int fd;

		if (config->disk_count == CONFIG_MAX_DISKS)
			return too_many_disks(from->path);
		fd = pack_folder(from->host ? from->host : from->path, !from->path[1], parent);
		if (fd < 0)
			return fd;
		*disk = (struct config_disk){ .readonly = true, .iothread = -1 };
		if (asprintf(&disk->path, "/proc/self/fd/%d", fd) < 0)
			return -ENOMEM;
		config->disk_count++;
	}
	return 0;
}

static int put_shares(struct config *config, struct setup *setup)
{
	for (u32 i = 0; i < setup->share_count; i++) {
		struct config_share *share = &config->shares[config->share_count];
		struct setup_share *from = &setup->shares[i];

		if (config->share_count == CONFIG_MAX_SHARES) {
			log_line("%s: one share too many; a machine has at most %u", from->path,
				 CONFIG_MAX_SHARES);
			return -E2BIG;
		}
		*share = (struct config_share){ .readonly = !from->writable, .iothread = -1 };
		share->path = strdup(from->host ? from->host : from->path);
		if (!share->path)
			return -ENOMEM;
		if (from->path[1])
			snprintf(share->tag, sizeof(share->tag), "share%u", i);
		else
			snprintf(share->tag, sizeof(share->tag), "root");
		config->share_count++;
	}
	return 0;
}

static int set_string(char **to, char *text)
{
	if (!text)
		return -ENOMEM;
	free(*to);
	*to = text;
	return 0;
}

static int make(struct config *config, struct setup *setup, struct modules *modules, bool tty,
		u16 rows, u16 cols, int parent)
{
	char path[32];
	int error = choose(setup, config, modules), fd;

	if (!error && setup->image)
		error = put_image(config);
	if (!error)
		error = want_modules(modules, setup, config);
	if (!error && setup->image)
		error = want_file_system(modules, config);
	if (error)
		return error == -ENOENT ? -ENOPKG : error;
	error = setup->packed ? put_packed(config, setup, parent) : put_shares(config, setup);
	if (error)
		return error;
	fd = make_initramfs(setup, config, modules, tty, rows, cols);
	if (fd < 0)
		return fd;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	error = set_string(&config->initrd, strdup(path));
	if (!error)
		error = set_string(&config->cmdline, setup_cmdline(config));
	if (!error)
		error = set_string(&config->serial, strdup("none"));
	return error;
}

int setup_machine(struct config *config, char *version, size_t size, bool tty, u16 rows, u16 cols,
		  int parent)
{
	static struct setup setup;
	struct modules *modules = NULL;
	int error;

	memset(&setup, 0, sizeof(setup));
	error = check_cmdline(config);
	if (!error)
		error = setup_shares(&setup, config);
	if (!error)
		error = setup_user(&setup, config);
	if (!error)
		error = modules_open(&modules, config->kernel, config->run.modules);
	if (!error) {
		snprintf(version, size, "%s", modules_version(modules));
		error = make(config, &setup, modules, tty, rows, cols, parent);
		modules_close(modules);
	}
	if (error == -ENOMEM)
		log_line("start: out of memory; free some");
	config->reboot = false;
	setup_free(&setup);
	return error;
}

int setup_ports(struct config *config, int in, int control)
{
	const struct config_port ports[] = {
		{ RUN_PORT_STDIN, CONFIG_PORT_FDS, NULL, in, -1 },
		{ RUN_PORT_STDOUT, CONFIG_PORT_FDS, NULL, -1, STDOUT_FILENO },
		{ RUN_PORT_STDERR, CONFIG_PORT_FDS, NULL, -1, STDERR_FILENO },
		{ RUN_PORT_CONTROL, CONFIG_PORT_FDS, NULL, control, control },
	};

	if (config->port_count + ARRAY_SIZE(ports) > CONFIG_MAX_PORTS) {
		log_line("--port: too many; vmm run itself has %zu of %u", ARRAY_SIZE(ports),
			 CONFIG_MAX_PORTS);
		return -E2BIG;
	}
	for (size_t i = 0; i < ARRAY_SIZE(ports); i++) {
		struct config_port *port = &config->ports[config->port_count];

		*port = ports[i];
		port->name = strdup(ports[i].name);
		if (!port->name)
			return -ENOMEM;
		config->port_count++;
	}
	return 0;
}
