/*
 * What the control socket's commands do. Each unpacks its request strictly, does its work, and has
 * its answer's members written; what it logs when it fails is the answer's "error". Main thread.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "machine/control.h"
#include "machine/hotplug.h"
#include "machine/json-library.h"
#include "machine/learned.h"
#include "virtio/describe.h"
#include "virtio/stats.h"
#include "vm/log.h"

#define NS	       1000000000ull
#define REMOVE_SECONDS 10 /* that the guest has unless the request says otherwise */
#define ERROR_BYTES    1024
#define MAX_ID	       32

struct command {
	const struct control_request *request;
	struct machine *m;
	json_t *json;
	struct json *answer;
	bool later;
};

/* The request's members, all of them: as json_unpack_ex() has it. Logs, -EINVAL. */
#define UNPACK(command, ...)                                                                      \
	({                                                                                        \
		json_error_t unpack_error;                                                        \
		int unpacked =                                                                    \
			json_unpack_ex((command)->json, &unpack_error, JSON_STRICT, __VA_ARGS__); \
		if (unpacked)                                                                     \
			log_line("the request: %s; see docs/control.md", unpack_error.text);      \
		unpacked ? -EINVAL : 0;                                                           \
	})

static int do_add(struct command *c)
{
	static const char *const kinds[] = { "disk", "net", "port", "rng", "balloon", "vsock" };
	const char *name, *values[ARRAY_SIZE(kinds)] = { 0 }, *id = NULL;
	json_t *learned = NULL;
	struct disk learned_disk = { 0 };
	struct tap learned_tap = { 0 };
	struct hotplug_addition a = { 0 };
	u32 count = 0;
	int error =
		UNPACK(c, "{s:s, s?s, s?s, s?s, s?s, s?s, s?s, s?o}", "command", &name, kinds[0],
		       &values[0], kinds[1], &values[1], kinds[2], &values[2], kinds[3], &values[3],
		       kinds[4], &values[4], kinds[5], &values[5], "learned", &learned);

	if (error)
		return error;
	for (u32 i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (!values[i])
			continue;
		a.option = kinds[i];
		a.value = values[i];
		count++;
	}
	if (count != 1) {
		log_line("add: one disk, net, port, rng, balloon or vsock is what can be added at "
			 "a time");
		return -EINVAL;
	}
	if (values[0] && learned && learned_unpack_disk(learned, &learned_disk))
		a.disk = &learned_disk;
	if (values[1] && learned && learned_unpack_tap(learned, &learned_tap))
		a.tap = &learned_tap;
	a.fds = c->request->fds;
	a.fd_count = c->request->fd_count;
	error = hotplug_add(c->m->hotplug, &a, &id);
	/* taken or closed */
	for (u32 i = 0; i < c->request->fd_count; i++)
		c->request->fds[i] = -1;
	if (!error)
		json_text(c->answer, "id", id);
	return error;
}

static void removed(void *arg, const char *id, const char *error)
{
	struct json json = { .line = "" };

	json_begin_object(&json, NULL);
	json_text(&json, error ? "error" : "id", error ? error : id);
	control_answer(arg, &json);
}

static int do_remove(struct command *c)
{
	struct hotplug_removal r = { .told = removed, .arg = c->request->client };
	const char *name, *id;
	int force = false, error;
	json_int_t seconds = REMOVE_SECONDS;

	error = UNPACK(c, "{s:s, s:s, s?b, s?I}", "command", &name, "id", &id, "force", &force,
		       "timeout", &seconds);
	if (error)
		return error;
	if (seconds < 0 || seconds > CONFIG_MAX_SECONDS) {
		log_line("remove: a timeout of %lld: give 0 to %u seconds", (long long)seconds,
			 CONFIG_MAX_SECONDS);
		return -EINVAL;
	}
	r.force = force;
	r.patience = (u64)seconds * NS;
	error = hotplug_remove(c->m->hotplug, id, &r);
	if (error == -EOPNOTSUPP)
		log_line("%s: it is not on PCI, so it stays; leave --virtio-mmio out", id);
	c->later = !error;
	return error;
}

static int do_resize(struct command *c)
{
	const char *name, *id;
	json_int_t size = 0;
	int shrink = false, error;

	error = UNPACK(c, "{s:s, s:s, s?I, s?b}", "command", &name, "id", &id, "size", &size,
		       "shrink", &shrink);
	if (error)
		return error;
	if (size < 0) {
		log_line("resize: a negative size; give bytes");
		return -EINVAL;
	}
	error = hotplug_resize(c->m->hotplug, id, (u64)size, shrink);
	if (!error) {
		json_text(c->answer, "id", id);
		json_number(c->answer, "size",
			    hotplug_find(c->m->hotplug, id)->disk.sectors * DISK_SECTOR);
	}
	return error;
}

/* Begins the device's object with what it is, and what state it is in. */
static void begin_device(struct command *c, struct machine_device *d, u8 status)
{
	struct json *answer = c->answer;
	char address[16];

	json_begin_object(answer, NULL);
	json_text(answer, "id", d->id);
	json_text(answer, "type", d->device->ops->name);
	if (d->function) {
		snprintf(address, sizeof(address), "00:%02x.0", virtio_pci_slot(d->function));
		json_text(answer, "address", address);
	}
	json_text(answer, "state",
		  hotplug_vanished(c->m->hotplug, d)	 ? "gone"
		  : d->removal.asked			 ? "leaving"
		  : status & VIRTIO_CONFIG_S_NEEDS_RESET ? "broken"
		  : status & VIRTIO_CONFIG_S_DRIVER_OK	 ? "driven"
							 : "idle");
}

static void put_device(struct command *c, struct machine_device *d)
{
	struct virtio_device *device = d->device;
	struct json *answer = c->answer;
	bool legacy;
	u64 features;
	u32 generation;
	u8 status;

	pthread_mutex_lock(&device->lock);
	status = device->status;
	legacy = device->legacy;
	features = device->features;
	generation = device->config_generation;
	pthread_mutex_unlock(&device->lock);
	begin_device(c, d, status);
	if (d->kind == MACHINE_DISK) {
		json_text(answer, "source", d->disk.path);
		json_number(answer, "size", d->disk.sectors * DISK_SECTOR);
		json_bool(answer, "readonly", d->disk.readonly);
	} else if (d->kind == MACHINE_NET) {
		json_text(answer, "source", d->tap.name);
	} else if (d->kind == MACHINE_BALLOON) {
		virtio_balloon_put(d->balloon, 0, answer);
	} else if (d->kind == MACHINE_SHARE) {
		json_text(answer, "source", d->share.path);
		json_bool(answer, "readonly", d->share_config->readonly);
	}
	json_text(answer, "layout",
		  status & VIRTIO_CONFIG_S_DRIVER ? legacy ? "legacy" : "modern" : NULL);
	json_hex(answer, "features", features);
	json_hex(answer, "status", status);
	json_number(answer, "queues", device->queue_count);
	json_number(answer, "generation", generation);
	json_end(answer);
}

static void describe_device(struct command *c, struct machine_device *d)
{
	u8 status;

	pthread_mutex_lock(&d->device->lock);
	status = d->device->status;
	pthread_mutex_unlock(&d->device->lock);
	begin_device(c, d, status);
	virtio_describe(d->device, d->function, c->answer);
	json_end(c->answer);
}

static int each_device(struct command *c, void (*put)(struct command *c, struct machine_device *d))
{
	const char *name;
	int error = UNPACK(c, "{s:s}", "command", &name);

	if (error)
		return error;
	json_begin_array(c->answer, "devices");
	for (u32 i = 0; i < c->m->device_count; i++)
		put(c, c->m->devices[i]);
	json_end(c->answer);
	return 0;
}

static int do_list(struct command *c)
{
	return each_device(c, put_device);
}

static int do_devices(struct command *c)
{
	return each_device(c, describe_device);
}

static int do_stats(struct command *c)
{
	const char *name;
	int error = UNPACK(c, "{s:s}", "command", &name);

	if (!error)
		machine_put_stats(c->m, c->answer);
	return error;
}

static int do_power(struct command *c)
{
	const char *name;
	int error = UNPACK(c, "{s:s}", "command", &name);

	if (error)
		return error;
	acpi_pm_event(c->m->pm, LAYOUT_GED_POWER_BUTTON);
	json_text(c->answer, "done", name);
	return 0;
}

static int do_quit(struct command *c)
{
	const char *name;
	int error = UNPACK(c, "{s:s}", "command", &name);

	if (error)
		return error;
	end_request(&c->m->end, END_QUIT, 0);
	json_text(c->answer, "done", name);
	return 0;
}

static int do_nmi(struct command *c)
{
	const char *name;
	int error = UNPACK(c, "{s:s}", "command", &name);

	if (error)
		return error;
	vcpus_nmi(c->m->vcpus);
	json_text(c->answer, "done", name);
	return 0;
}

static int do_announce(struct command *c)
{
	const char *name, *id;
	struct machine_device *d;
	int error = UNPACK(c, "{s:s, s:s}", "command", &name, "id", &id);

	if (error)
		return error;
	d = hotplug_find(c->m->hotplug, id);
	if (!d)
		return -ENOENT;
	if (d->kind != MACHINE_NET) {
		log_line("%s: is no network interface, so it has nobody to announce", d->id);
		return -EINVAL;
	}
	if (!virtio_net_announce(d->net)) {
		log_line("%s: its driver does not run, or cannot announce; it needs "
			 "VIRTIO_NET_F_GUEST_ANNOUNCE",
			 d->id);
		return -EOPNOTSUPP;
	}
	json_text(c->answer, "id", d->id);
	return 0;
}

static struct machine_device *find_balloon(const struct machine *m)
{
	for (u32 i = 0; i < m->device_count; i++)
		if (m->devices[i]->kind == MACHINE_BALLOON &&
		    !hotplug_vanished(m->hotplug, m->devices[i]))
			return m->devices[i];
	log_line("balloon: the machine has none; add one: `vmm ctl PATH add balloon size=0`");
	return NULL;
}

/* Has the driver told its statistics? */
static bool put_balloon(struct machine *m, u64 number, struct json *answer)
{
	struct machine_device *d = find_balloon(m);

	return !d || virtio_balloon_put(d->balloon, number, answer) || !number;
}

static int do_balloon(struct command *c)
{
	const struct machine_device *d;
	const char *name;
	json_int_t size = 0;
	int error = UNPACK(c, "{s:s, s?I}", "command", &name, "size", &size);

	if (error)
		return error;
	d = find_balloon(c->m);
	if (!d)
		return -ENOENT;
	if (!json_object_get(c->json, "size")) {
		control_retry(c->request->client, put_balloon, virtio_balloon_ask(d->balloon));
		c->later = true;
		return 0;
	}
	if (size < 0 || (u64)size > c->m->config->memory) {
		log_line("balloon: %lld bytes: the machine has %llu of memory; give 0 to that",
			 (long long)size, (unsigned long long)c->m->config->memory);
		return -EINVAL;
	}
	virtio_balloon_resize(d->balloon, (u64)size);
	put_balloon(c->m, 0, c->answer);
	return 0;
}

static const struct {
	const char *name;
	int (*run)(struct command *c);
} commands[] = {
	{ "add", do_add },     { "remove", do_remove },	  { "resize", do_resize },
	{ "list", do_list },   { "devices", do_devices }, { "stats", do_stats },
	{ "power", do_power }, { "quit", do_quit },	  { "announce", do_announce },
	{ "nmi", do_nmi },     { "balloon", do_balloon },
};

static int run(struct command *c)
{
	const char *name = json_string_value(json_object_get(c->json, "command"));

	if (!name) {
		log_line("the request: an object with a \"command\" is wanted; see "
			 "docs/control.md");
		return -EINVAL;
	}
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(commands[i].name, name))
			return commands[i].run(c);
	log_line("%.40s: there is no such command; there are add, remove, resize, list, devices, "
		 "stats, power, quit, announce, nmi, balloon",
		 name);
	return -EINVAL;
}

bool command_run(const struct control_request *request, struct json *answer)
{
	struct command c = { .request = request, .m = request->m, .answer = answer };
	char said[ERROR_BYTES];
	json_error_t syntax;
	int error = -EINVAL;

	log_capture(said, sizeof(said));
	c.json = json_loadb(request->text, request->length, JSON_REJECT_DUPLICATES, &syntax);
	if (c.json)
		error = run(&c);
	else
		log_line("the request: no JSON: %s, at byte %d; see docs/control.md", syntax.text,
			 syntax.position);
	log_capture(NULL, 0);
	json_decref(c.json);
	if (error)
		json_text(answer, "error", *said ? said : strerror(-error));
	else if (*said) /* it went well, and there is something to know */
		log_line("%s", said);
	return !c.later;
}
