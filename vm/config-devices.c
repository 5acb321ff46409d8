/*
 * The options that make devices: --disk, --net, --rng and --balloon, with what may follow each
 * value. Main thread.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>

#include "vm/config-table.h"
#include "vm/log.h"

/* ---- disk ---- */

/* What the last --disk said about the cache, whether or not it is the default. */
struct disk_target {
	struct config_disk *disk;
	bool cache_given;
};

static int set_disk_ro(struct config_parser *parser, void *target, const char *value)
{
	struct disk_target *t = target;

	return config_bool(parser, "ro", value, &t->disk->readonly);
}

static int set_disk_direct(struct config_parser *parser, void *target, const char *value)
{
	struct disk_target *t = target;

	return config_bool(parser, "direct", value, &t->disk->direct);
}

static int set_disk_snapshot(struct config_parser *parser, void *target, const char *value)
{
	struct disk_target *t = target;

	return config_bool(parser, "snapshot", value, &t->disk->snapshot);
}

static int set_disk_cache(struct config_parser *parser, void *target, const char *value)
{
	struct disk_target *t = target;

	t->cache_given = true;
	t->disk->writethrough = !strcmp(value, "writethrough");
	if (t->disk->writethrough || !strcmp(value, "writeback"))
		return 0;
	return config_error(parser, NULL,
			    "cache=%.40s: no such mode; give writeback or writethrough", value);
}

static int set_disk_serial(struct config_parser *parser, void *target, const char *value)
{
	struct disk_target *t = target;
	size_t length = strlen(value);

	if (length >= sizeof(t->disk->serial))
		return config_error(parser, NULL,
				    "serial=%.40s: %zu letters; a disk has room for %zu", value,
				    length, sizeof(t->disk->serial) - 1);
	for (size_t i = 0; i < length; i++)
		if (value[i] < ' ' || value[i] > '~')
			return config_error(parser, NULL,
					    "serial=%.40s: not plain text; use printable ASCII",
					    value);
	memcpy(t->disk->serial, value, length + 1);
	return 0;
}

static int set_queues(struct config_parser *parser, const char *value, u16 *to)
{
	u64 n;
	int err = config_number(parser, "queues", value, 1, CONFIG_MAX_QUEUES, &n);

	if (!err)
		*to = (u16)n;
	return err;
}

static int set_disk_queues(struct config_parser *parser, void *target, const char *value)
{
	struct disk_target *t = target;

	return set_queues(parser, value, &t->disk->queues);
}

static int set_disk_iothread(struct config_parser *parser, void *target, const char *value)
{
	struct disk_target *t = target;

	return config_set_iothread(parser, value, &t->disk->iothread);
}

static int set_disk_iopoll(struct config_parser *parser, void *target, const char *value)
{
	struct disk_target *t = target;

	return config_bool(parser, "iopoll", value, &t->disk->iopoll);
}

int config_set_disk(struct config_parser *parser, const char *value)
{
	struct config *config = parser->config;
	struct disk_target target = { .disk = &config->disks[config->disk_count] };
	char *copy, *cursor;
	const char *path;
	int err;

	if (config->disk_count == CONFIG_MAX_DISKS)
		return config_error(parser, value, "one disk too many; a machine has at most %u",
				    CONFIG_MAX_DISKS);
	copy = cursor = strdup(value);
	if (!copy)
		return config_no_memory();
	memset(target.disk, 0, sizeof(*target.disk));
	parser->function = &target.disk->function;
	parser->queue_size_max = CONFIG_DISK_QUEUE_SIZE;
	target.disk->iothread = -1;
	path = config_next_part(&cursor);
	if (!*path)
		err = config_error(parser, value,
				   "the path is missing; write it before the first comma");
	else
		err = config_parse_suboptions(parser, &target, &cursor);
	if (!err && target.disk->readonly && target.disk->snapshot)
		err = config_error(parser, path,
				   "ro and snapshot contradict: one never writes, the other never "
				   "keeps; leave one out");
	if (!err && target.disk->readonly && target.cache_given)
		err = config_error(parser, path,
				   "ro and cache= contradict: what is never written has no write "
				   "cache; leave one out");
	if (!err && target.disk->iopoll && !target.disk->direct)
		err = config_error(
			parser, path,
			"iopoll looks for what the device itself has done; add direct=on, "
			"or leave iopoll out");
	for (u32 i = 0; !err && i < config->disk_count; i++)
		if (!strcmp(config->disks[i].path, path) &&
		    !((config->disks[i].readonly || config->disks[i].snapshot) &&
		      (target.disk->readonly || target.disk->snapshot)))
			err = config_error(parser, path,
					   "given twice: two disks would write one image; keep "
					   "one, or make both ro or snapshot");
	if (!err)
		err = config_set_string(&target.disk->path, path);
	if (!err)
		config->disk_count++;
	free(copy);
	return err;
}

/* ---- net ---- */

static int set_net_mac(struct config_parser *parser, void *target, const char *value)
{
	struct config_net *net = target;
	int err = config_mac(parser, value, net->mac);

	net->mac_given = !err;
	return err;
}

static int set_net_mtu(struct config_parser *parser, void *target, const char *value)
{
	struct config_net *net = target;
	u64 n;
	/* 68: RFC 791, the least that every IPv4 link carries */
	int err = config_number(parser, "mtu", value, 68, 65535, &n);

	if (!err)
		net->mtu = (u16)n;
	return err;
}

static int set_net_queues(struct config_parser *parser, void *target, const char *value)
{
	struct config_net *net = target;

	return set_queues(parser, value, &net->queues);
}

static int set_net_iothread(struct config_parser *parser, void *target, const char *value)
{
	struct config_net *net = target;

	return config_set_iothread(parser, value, &net->iothread);
}

static int set_net_vhost(struct config_parser *parser, void *target, const char *value)
{
	struct config_net *net = target;

	return config_bool(parser, "vhost", value, &net->vhost);
}

/* PROTOCOL:[ADDRESS:]PORT:PORT */
static int set_net_forward(struct config_parser *parser, void *target, const char *value)
{
	struct config_net *net = target;
	struct config_forward *forward = &net->forwards[net->forward_count];
	const char *at = strchr(value, ':'), *address = "127.0.0.1";
	struct in_addr parsed;
	u32 host, guest;
	char text[16];
	int end = 0;

	if (net->forward_count == CONFIG_MAX_FORWARDS)
		return config_error(parser, NULL, "forward=: too many; there may be %u",
				    CONFIG_MAX_FORWARDS);
	forward->udp = !strncmp(value, "udp:", 4);
	if (at && sscanf(at, ":%15[0-9.]:%n", text, &end) == 1 && end &&
	    inet_pton(AF_INET, text, &parsed) == 1) {
		address = text;
		at += end - 1;
	}
	end = 0;
	if (!at || (!forward->udp && strncmp(value, "tcp:", 4)) || strpbrk(at, "+- ") ||
	    sscanf(at, ":%5u:%5u%n", &host, &guest, &end) != 2 || at[end] || !host || !guest ||
	    host > 65535 || guest > 65535)
		return config_error(parser, NULL,
				    "forward=%.40s: no ports to forward; write tcp:2222:22, or "
				    "udp:0.0.0.0:5353:53 for all of the host's addresses",
				    value);
	snprintf(forward->ports, sizeof(forward->ports), "%s/%u:%u", address, host, guest);
	net->forward_count++;
	return 0;
}

static int check_user_net(const struct config_parser *parser, const struct config_net *net)
{
	if (net->forward_count && !config_net_is_user(net))
		return config_error(parser, net->tap,
				    "forward= is for passt; give --net user, or leave it out");
	if (!config_net_is_user(net))
		return 0;
	if (parser->bare)
		return config_error(parser, net->tap,
				    "passt can only be started with the machine, whose sandbox "
				    "starts nothing; give it --net user then");
	if (net->vhost || net->queues > 1)
		return config_error(parser, net->tap,
				    "passt has one queue pair, served here; leave %s out",
				    net->vhost ? "vhost=on" : "queues=");
	if (net->mtu > CONFIG_USER_MTU)
		return config_error(parser, net->tap, "mtu=%u: passt is given at most %u", net->mtu,
				    CONFIG_USER_MTU);
	return 0;
}

static int check_interface_name(const struct config_parser *parser, const char *name)
{
	if (!*name)
		return config_error(parser, NULL,
				    "the tap's name is missing; write it before the first comma");
	if (strlen(name) >= IFNAMSIZ)
		return config_error(parser, name,
				    "too long for an interface; its name has at most %d letters",
				    IFNAMSIZ - 1);
	if (!strcmp(name, ".") || !strcmp(name, ".."))
		return config_error(parser, name,
				    "not an interface's name; give a tap's, as in tap0");
	for (const char *p = name; *p; p++)
		if (strchr("/:%", *p) || isspace((unsigned char)*p) || iscntrl((unsigned char)*p))
			return config_error(parser, name,
					    "not an interface's name; give a tap's, as in tap0");
	return 0;
}

int config_set_net(struct config_parser *parser, const char *value)
{
	struct config *config = parser->config;
	struct config_net *net = &config->nets[config->net_count];
	char *copy, *cursor;
	const char *tap;
	int err;

	if (config->net_count == CONFIG_MAX_NETS)
		return config_error(parser, value,
				    "one interface too many; a machine has at most %u",
				    CONFIG_MAX_NETS);
	copy = cursor = strdup(value);
	if (!copy)
		return config_no_memory();
	memset(net, 0, sizeof(*net));
	parser->function = &net->function;
	parser->queue_size_max = CONFIG_NET_QUEUE_SIZE;
	net->iothread = -1;
	tap = config_next_part(&cursor);
	err = check_interface_name(parser, tap);
	if (!err)
		err = config_parse_suboptions(parser, net, &cursor);
	if (!err)
		err = config_set_string(&net->tap, tap);
	if (!err)
		err = check_user_net(parser, net);
	if (!err && net->vhost && (net->function.packed || net->function.in_order))
		err = config_error(parser, tap,
				   "%s and vhost=on contradict: vhost-net has split virtqueues "
				   "alone, in any order; leave one out",
				   net->function.packed ? "packed" : "in-order");
	for (u32 i = 0; !err && i < config->net_count; i++) {
		if (!strcmp(config->nets[i].tap, tap))
			err = config_error(parser, tap,
					   "given twice; each interface of the machine needs one "
					   "of its own");
		else if (net->mac_given && config->nets[i].mac_given &&
			 !memcmp(net->mac, config->nets[i].mac, sizeof(net->mac)))
			err = config_error(parser, tap, "has the same mac= as %s; change one",
					   config->nets[i].tap);
	}
	if (err)
		free(net->tap);
	else
		config->net_count++;
	free(copy);
	return err;
}

/* ---- rng ---- */

/* A device of which there is one; on: the value begins with whether there is. */
static int set_single(struct config_parser *parser, const char *value,
		      struct config_function *function, u32 queue_size, bool *on)
{
	char *copy = strdup(value), *cursor = copy;
	int err = 0;

	if (!copy)
		return config_no_memory();
	*function = (struct config_function){ 0 };
	parser->function = function;
	parser->queue_size_max = queue_size;
	if (on)
		err = config_bool(parser, NULL, config_next_part(&cursor), on);
	if (!err)
		err = config_parse_suboptions(parser, parser->config, &cursor);
	free(copy);
	return err;
}

int config_set_rng(struct config_parser *parser, const char *value)
{
	struct config *config = parser->config;

	config->rng_rate = 0;
	return set_single(parser, value, &config->rng_function, CONFIG_RNG_QUEUE_SIZE,
			  &config->rng);
}

static int set_rng_rate(struct config_parser *parser, void *target, const char *value)
{
	struct config *config = target;
	u64 rate;
	int err = config_number(parser, "rate", value, 1, UINT32_MAX, &rate);

	if (!err)
		config->rng_rate = (u32)rate;
	return err;
}

/* ---- balloon ---- */

static int set_balloon_size(struct config_parser *parser, void *target, const char *value)
{
	struct config *config = target;

	return config_size(parser, value, &config->balloon_size);
}

static int set_balloon_reporting(struct config_parser *parser, void *target, const char *value)
{
	struct config *config = target;

	return config_bool(parser, "reporting", value, &config->balloon_reporting);
}

int config_set_balloon(struct config_parser *parser, const char *value)
{
	struct config *config = parser->config;

	config->balloon = true;
	config->balloon_size = 0;
	config->balloon_reporting = false;
	return set_single(parser, value, &config->balloon_function, CONFIG_BALLOON_QUEUE_SIZE,
			  NULL);
}

int config_check_balloon(const struct config *config)
{
	if (config->balloon_size > config->memory) {
		log_line("--balloon size=%lluM: the machine has %lluM of memory; give less, or "
			 "more --mem",
			 (unsigned long long)(config->balloon_size >> 20),
			 (unsigned long long)(config->memory >> 20));
		return -EINVAL;
	}
	if (config->balloon_reporting && config->pages != MEMORY_PAGES_DEFAULT) {
		log_line("--balloon reporting=on: memory from the host's pool of huge pages is not "
			 "given back; leave it or hugepages= out");
		return -EINVAL;
	}
	return 0;
}

const struct config_suboption config_disk_suboptions[] = {
	{ "ro", "on|off", true, .set = set_disk_ro,
	  MAN("The guest may only read. The default is off.") },
	{ "direct", "on|off", true, .set = set_disk_direct,
	  MAN("Go around the host's page cache (O_DIRECT). The default is off.") },
	{ "snapshot", "on|off", true, .set = set_disk_snapshot,
	  MAN("Never change the image: what the guest writes goes to a file without a name in "
	      "$TMPDIR (or /var/tmp) and is gone with the machine. Any number of machines "
	      "may share an image so. The default is off.") },
	{ "serial", "TEXT", .set = set_disk_serial,
	  MAN("The serial number that the guest reads, up to 20 letters. By default it is "
	      "derived "
	      "from the file.") },
	{ "queues", "N", .set = set_disk_queues,
	  MAN("Virtqueues, 1 to 64. By default one for each CPU, but no more than 8.") },
	{ "cache", "writeback|writethrough", .set = set_disk_cache,
	  MAN("Whether a write is complete when the host has taken it (the guest flushes when "
	      "it "
	      "must), or only when it is on stable storage. The default is writeback.") },
	{ "iothread", "N", .set = set_disk_iothread,
	  MAN("The thread of --iothreads, counted from 0, that serves all of its queues. By "
	      "default they are spread.") },
	{ "iopoll", "on|off", true, .set = set_disk_iopoll,
	  MAN("With direct=on: look for the end of reads and writes instead of waiting for the "
	      "device's interrupt, while there are any. It needs a device that can be polled, "
	      "as "
	      "NVMe with nvme.poll_queues. The default is off.") },
	{ 0 },
};

const struct config_suboption config_net_suboptions[] = {
	{ "mac", "ADDRESS", .set = set_net_mac,
	  MAN("The interface's Ethernet address. By default one that stays the same for the "
	      "same tap.") },
	{ "mtu", "BYTES", .set = set_net_mtu,
	  MAN("The MTU told to the guest. By default the tap's; with user 32000.") },
	{ "queues", "N", .set = set_net_queues,
	  MAN("Pairs of virtqueues, 1 to 64; more than one need a tap made with multi_queue. "
	      "The "
	      "default is 1.") },
	{ "iothread", "N", .set = set_net_iothread,
	  MAN("The thread of --iothreads, counted from 0, that serves all of its queues. By "
	      "default they are spread.") },
	{ "forward", "PROTOCOL:[ADDRESS:]PORT:PORT", .repeats = true, .set = set_net_forward,
	  MAN("With user: connections (tcp) or datagrams (udp) to a port of the host go to one of "
	      "the guest. ADDRESS is the host's, by default 127.0.0.1. May repeat. With udp "
	      "the guest reaches what the host serves on 127.0.0.1, at 10.0.2.2.") },
	{ "vhost", "on|off", true, .set = set_net_vhost,
	  MAN("Leave the interface's frames to the host kernel's vhost-net, where that can be "
	      "had "
	      "(a line says so if not). The guest then filters what it receives by itself. The "
	      "default is off.") },
	{ 0 },
};

const struct config_suboption config_rng_suboptions[] = {
	{ "rate", "BYTES", .set = set_rng_rate,
	  MAN("Random bytes a second that the guest may have. By default there is no limit.") },
	{ 0 },
};

const struct config_suboption config_balloon_suboptions[] = {
	{ "size", "SIZE", .set = set_balloon_size,
	  MAN("The memory that the guest shall give up, as for --mem. The default is 0.") },
	{ "reporting", "on|off", true, .set = set_balloon_reporting,
	  MAN("The guest also reports pages that are free, which go back to the host until it "
	      "uses them. The default is off.") },
	{ 0 },
};
