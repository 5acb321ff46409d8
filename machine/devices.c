/*
 * The devices a user names: their host ends are opened first, then each becomes a virtio function
 * on the PCI bus, its queues spread over the reactors. Main thread.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "backends/passt.h"
#include "machine/machine.h"
#include "machine/ports.h"
#include "virtio/strict.h"
#include "vm/log.h"
#include "vm/sandbox.h"

#define DEFAULT_MAX_QUEUES 8
#define DEFAULT_POLL_US	   32
#define SPARE_FILES	   4096 /* 16 disks with 64 queues each have half of it */

static u16 disk_queues(const struct config *config, const struct config_disk *disk)
{
	u32 n = config->cpus < DEFAULT_MAX_QUEUES ? config->cpus : DEFAULT_MAX_QUEUES;

	return disk->queues ? disk->queues : (u16)n;
}

static u16 net_queues(const struct config_net *net)
{
	return net->queues ? net->queues : 1;
}

/* Every descriptor that a reactor may name: doorbells, vectors, the line, disk or tap queues; what
 * vhost-net rings, and doorbells that it gives back while the ring still closes them. */
static u32 count_files(const struct config *config)
{
	u32 files = 64 + virtio_pci_files(1, &config->rng_function);

	for (u32 i = 0; i < config->disk_count; i++) {
		const struct config_disk *d = &config->disks[i];
		u16 queues = disk_queues(config, d);

		files += queues + virtio_pci_files(queues, &d->function) + 8;
	}
	for (u32 i = 0; i < config->net_count; i++) {
		const struct config_net *n = &config->nets[i];
		u16 pairs = net_queues(n);
		u16 queues = (u16)(2 * pairs + 1);

		files += queues + pairs + virtio_pci_files(queues, &n->function) + 8;
		files += n->vhost ? queues + 3u : 0;
	}
	files += virtio_pci_files(5, &config->balloon_function);
	for (u32 i = 0; i < config->share_count; i++)
		files += 2 + SHARE_LENT + virtio_pci_files(1, &config->shares[i].function);
	if (config->console != CONFIG_CONSOLE_SERIAL)
		files += 2 + virtio_pci_files(2, &config->console_function) + 2 + 8;
	if (config->vsock.cid)
		files += 3 + virtio_pci_files(3, &config->vsock.function) + 8 +
			 (config->vsock.vhost ? 2 : VSOCK_DOORS + VSOCK_CONNECTIONS);
	if (config->port_count) {
		u16 queues = (u16)(2 * config->port_count + 4);

		files += queues + virtio_pci_files(queues, &config->console_function) +
			 2 * config->port_count + 8;
	}
	return files;
}

void machine_allow_files(const struct config *config)
{
	rlim_t need = config->control ? RLIM_INFINITY : 2ull * count_files(config) + config->cpus;
	struct rlimit limit;

	/* no host has a default below that */
	if (need > 256 && !getrlimit(RLIMIT_NOFILE, &limit) && limit.rlim_cur < need &&
	    limit.rlim_cur != limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/* The same for devices that may come later, within what the kernel lets a table have. */
static u32 spare_files(const struct config *config)
{
	struct rlimit limit;

	if (!config->control || getrlimit(RLIMIT_NOFILE, &limit))
		return 0;
	return limit.rlim_cur / 2 < SPARE_FILES ? (u32)(limit.rlim_cur / 2) : SPARE_FILES;
}

static const char *const kind_names[] = {
	[MACHINE_DISK] = "blk",	       [MACHINE_NET] = "net",	      [MACHINE_SHARE] = "share",
	[MACHINE_RNG] = "rng",	       [MACHINE_CONSOLE] = "console", [MACHINE_PORTS] = "ports",
	[MACHINE_BALLOON] = "balloon", [MACHINE_VSOCK] = "vsock",
};

static bool number_taken(const struct machine *m, enum machine_kind kind, u32 number)
{
	for (u32 i = 0; i < m->device_count; i++)
		if (m->devices[i]->kind == kind && m->devices[i]->number == number)
			return true;
	return false;
}

struct machine_device *machine_device_new(struct machine *m, enum machine_kind kind)
{
	struct machine_device *d;

	if (m->device_count == MACHINE_MAX_DEVICES) {
		log_line("one device too many: a machine has at most %u; remove another first",
			 MACHINE_MAX_DEVICES);
		return NULL;
	}
	d = calloc(1, sizeof(*d));
	if (!d) {
		log_line("%s: out of memory; free some", kind_names[kind]);
		return NULL;
	}
	d->kind = kind;
	while (number_taken(m, kind, d->number))
		d->number++;
	if (kind >= MACHINE_RNG && d->number) {
		log_line("%s: the machine has one, and can have no more; remove it first",
			 kind_names[kind]);
		free(d);
		return NULL;
	}
	if (kind >= MACHINE_RNG) /* there is one of them */
		snprintf(d->id, sizeof(d->id), "%s", kind_names[kind]);
	else
		snprintf(d->id, sizeof(d->id), "%s%u", kind_names[kind], d->number);
	m->devices[m->device_count++] = d;
	return d;
}

static int open_disk(struct machine *m, const struct config_disk *config)
{
	const struct disk_config c = { .path = config->path,
				       .readonly = config->readonly,
				       .direct = config->direct,
				       .snapshot = config->snapshot,
				       .iopoll = config->iopoll };
	struct machine_device *d = machine_device_new(m, MACHINE_DISK);
	int ret;

	if (!d)
		return -ENOMEM;
	d->disk_config = config;
	ret = disk_open(&d->disk, &c);
	d->open = !ret;
	return ret;
}

bool machine_wants_vhost(const struct machine *m, const struct config_net *config)
{
	if (config->vhost && m->config->strict != CONFIG_STRICT_OFF) {
		log_line("%s: vhost=on: --strict has to see the driver's buffers; served without "
			 "vhost-net",
			 config->tap);
		return false;
	}
	return config->vhost;
}

static int open_net(struct machine *m, const struct config_net *config)
{
	const struct tap_config c = { .name = config->tap, .queues = net_queues(config) };
	const struct vhost_config v = { .name = config->tap, .pairs = c.queues };
	struct machine_device *d = machine_device_new(m, MACHINE_NET);
	int ret;

	if (!d)
		return -ENOMEM;
	d->net_config = config;
	ret = config_net_is_user(config) ? passt_open(&d->tap, config) : tap_open(&d->tap, &c);
	d->open = !ret;
	if (d->open && machine_wants_vhost(m, config))
		vhost_open(&d->vhost, &v); /* without it, said why, things go on */
	return ret;
}

static int open_share(struct machine *m, const struct config_share *config)
{
	const struct share_config c = { .path = config->path,
					.readonly = config->readonly,
					.map = config->map,
					.sandbox = m->config->sandbox };
	struct machine_device *d = machine_device_new(m, MACHINE_SHARE);
	int ret;

	if (!d)
		return -ENOMEM;
	d->share_config = config;
	ret = share_open(&d->share, &c);
	d->open = !ret;
	return ret;
}

int machine_check_vsock(const struct machine *m, const struct config_vsock *config)
{
	if (!config->vhost || m->config->strict == CONFIG_STRICT_OFF)
		return 0;
	log_line(
		"vsock: vhost=on: --strict has to see the driver's buffers; leave one of them out");
	return -EINVAL;
}

static int open_vsock(struct machine *m, const struct config_vsock *config)
{
	const struct vhost_config v = { .name = "vsock", .pairs = 1, .cid = config->cid };
	struct machine_device *d = machine_device_new(m, MACHINE_VSOCK);

	int error = d ? machine_check_vsock(m, config) : -ENOMEM;

	if (error)
		return error;
	if (!config->vhost)
		return vsock_host_open(&d->vsock_host, config->path, m->config->sandbox);
	return vhost_open(&d->vhost, &v);
}

int machine_open_backends(struct machine *m)
{
	const struct config *config = m->config;
	int ret = 0;

	for (u32 i = 0; i < config->disk_count && !ret; i++)
		ret = open_disk(m, &config->disks[i]);
	for (u32 i = 0; i < config->net_count && !ret; i++)
		ret = open_net(m, &config->nets[i]);
	for (u32 i = 0; i < config->share_count && !ret; i++)
		ret = open_share(m, &config->shares[i]);
	if (!ret && config->rng && !machine_device_new(m, MACHINE_RNG))
		ret = -ENOMEM;
	if (!ret && config->balloon && !machine_device_new(m, MACHINE_BALLOON))
		ret = -ENOMEM;
	if (!ret && config->console != CONFIG_CONSOLE_SERIAL &&
	    !machine_device_new(m, MACHINE_CONSOLE))
		ret = -ENOMEM;
	if (!ret && config->vsock.cid)
		ret = open_vsock(m, &config->vsock);
	if (!ret && config->port_count) {
		ret = ports_open(&m->ports, config);
		if (!ret && !machine_device_new(m, MACHINE_PORTS))
			ret = -ENOMEM;
	}
	return ret ? ret : stats_open(&m->stats, config->stats);
}

/* Whose queues begin at which reactor: each device at the next, unless the user named one. */
static u32 place_of(const struct machine *m, const struct machine_device *d, s32 iothread)
{
	u32 i = 0;

	if (iothread >= 0)
		return (u32)iothread;
	while (m->devices[i] != d)
		i++;
	return i;
}

u64 machine_ring_features(const struct config_function *function)
{
	return (function->packed ? BIT64(VIRTIO_F_RING_PACKED) : 0) |
	       (function->in_order ? BIT64(VIRTIO_F_IN_ORDER) : 0) |
	       (function->notify_data ? BIT64(VIRTIO_F_NOTIFICATION_DATA) : 0);
}

static int make_disk(struct machine *m, struct machine_device *d)
{
	const struct config_disk *config = d->disk_config;
	struct virtio_blk_options c = {
		.memory = &m->memory,
		.reactors = m->reactors,
		.name = d->id,
		.disk = &d->disk,
		.queues = disk_queues(m->config, config),
		.first_reactor = place_of(m, d, config->iothread),
		.one_reactor = config->iothread >= 0,
		.writethrough = config->writethrough,
		.queue_size = config->function.queue_size,
		.features = machine_ring_features(&config->function),
	};
	int ret = disk_register(&d->disk, m->reactors);

	snprintf(c.serial, sizeof(c.serial), "%s",
		 *config->serial ? config->serial : d->disk.identity);
	if (!ret)
		ret = virtio_blk_create(&d->blk, &c);
	if (!ret)
		d->device = virtio_blk_device(d->blk);
	return ret;
}

static int make_net(struct machine *m, struct machine_device *d)
{
	const struct config_net *config = d->net_config;
	struct virtio_net_options c = {
		.memory = &m->memory,
		.reactors = m->reactors,
		.name = d->id,
		.tap = &d->tap,
		.vhost = config->vhost ? &d->vhost : NULL,
		.vhost_poll_us = m->config->poll_given ? m->config->poll_us : 0,
		.queue_size = config->function.queue_size,
		.first_reactor = place_of(m, d, config->iothread),
		.one_reactor = config->iothread >= 0,
		.features = machine_ring_features(&config->function),
		.mtu = config->mtu ? config->mtu : (u16)(d->tap.mtu > 65535 ? 65535 : d->tap.mtu),
	};
	int ret = tap_register(&d->tap, m->reactors);

	memcpy(c.mac, config->mac_given ? config->mac : d->tap.mac, sizeof(c.mac));
	if (!ret)
		ret = virtio_net_create(&d->net, &c);
	if (!ret)
		d->device = virtio_net_device(d->net);
	return ret;
}

static int make_share(struct machine *m, struct machine_device *d)
{
	const struct config_share *config = d->share_config;
	const struct virtio_9p_options c = {
		.memory = &m->memory,
		.reactors = m->reactors,
		.name = d->id,
		.tag = config->tag,
		.share = &d->share,
		.reactor = place_of(m, d, config->iothread),
		.queue_size = config->function.queue_size,
		.features = machine_ring_features(&config->function),
	};
	int ret = share_register(&d->share, m->reactors);

	if (!ret)
		ret = virtio_9p_create(&d->p9, &c);
	if (!ret)
		d->device = virtio_9p_device(d->p9);
	return ret;
}

/* Where the options are of which there is one: the machine's, or its own if it came later. */
static const struct config *config_of(const struct machine *m, const struct machine_device *d)
{
	return d->own ? d->own : m->config;
}

static int make_rng(struct machine *m, struct machine_device *d)
{
	const struct config *config = config_of(m, d);
	int ret =
		virtio_rng_create(&d->rng, &m->memory, m->reactors, config->rng_function.queue_size,
				  machine_ring_features(&config->rng_function), config->rng_rate);

	if (!ret)
		d->device = virtio_rng_device(d->rng);
	return ret;
}

static int make_balloon(struct machine *m, struct machine_device *d)
{
	const struct config *config = config_of(m, d);
	const struct virtio_balloon_options c = {
		.memory = &m->memory,
		.reactors = m->reactors,
		.reactor = place_of(m, d, -1),
		.queue_size = config->balloon_function.queue_size,
		.features = machine_ring_features(&config->balloon_function),
		.target = config->balloon_size,
		.reporting = config->balloon_reporting,
	};
	int ret = virtio_balloon_create(&d->balloon, &c);

	if (ret)
		return ret;
	if (m->config->pages != MEMORY_PAGES_DEFAULT)
		log_line("balloon: what the guest gives up stays with this machine, as its memory "
			 "is from the host's pool of huge pages; leave hugepages= out to have it");
	d->device = virtio_balloon_device(d->balloon);
	return 0;
}

static int make_vsock(struct machine *m, struct machine_device *d)
{
	const struct config_vsock *config = &config_of(m, d)->vsock;
	const struct virtio_vsock_options c = {
		.memory = &m->memory,
		.reactors = m->reactors,
		.name = d->id,
		.reactor = place_of(m, d, config->iothread),
		.queue_size = config->function.queue_size,
		.features = machine_ring_features(&config->function),
		.cid = config->cid,
		.host = config->vhost ? NULL : &d->vsock_host,
		.vhost = config->vhost ? &d->vhost : NULL,
	};
	int ret = c.host ? vsock_host_register(c.host, m->reactors) : 0;

	if (!ret)
		ret = virtio_vsock_create(&d->vsock, &c);
	if (!ret)
		d->device = virtio_vsock_device(d->vsock);
	return ret;
}

static const struct config_function *function_of(const struct machine *m,
						 const struct machine_device *d)
{
	switch (d->kind) {
	case MACHINE_DISK:
		return &d->disk_config->function;
	case MACHINE_NET:
		return &d->net_config->function;
	case MACHINE_SHARE:
		return &d->share_config->function;
	case MACHINE_CONSOLE:
	case MACHINE_PORTS:
		return &m->config->console_function;
	case MACHINE_BALLOON:
		return &config_of(m, d)->balloon_function;
	case MACHINE_VSOCK:
		return &config_of(m, d)->vsock.function;
	default:
		return &config_of(m, d)->rng_function;
	}
}

int machine_device_make(struct machine *m, struct machine_device *d)
{
	static int (*const make[])(struct machine *, struct machine_device *) = {
		[MACHINE_DISK] = make_disk,	      [MACHINE_NET] = make_net,
		[MACHINE_SHARE] = make_share,	      [MACHINE_RNG] = make_rng,
		[MACHINE_CONSOLE] = machine_make_hvc, [MACHINE_PORTS] = ports_make,
		[MACHINE_BALLOON] = make_balloon,     [MACHINE_VSOCK] = make_vsock,
	};
	struct virtio_pci_config c = { .host = m->pci, .irq = m->irq, .reactors = m->reactors };
	int ret = make[d->kind](m, d);

	if (ret)
		return ret;
	ret = strict_attach(d->device, m->config->strict);
	if (ret)
		return ret;
	if (m->mmio_open)
		return machine_mmio_create(m, d, place_of(m, d, -1));
	c.device = d->device;
	c.function = function_of(m, d);
	return virtio_pci_create(&d->function, &c);
}

void machine_device_unmake(struct machine *m, struct machine_device *d)
{
	if (d->kind == MACHINE_CONSOLE)
		m->virtio_console = NULL;
	if (d->device)
		virtio_device_detach(d->device);
	virtio_pci_destroy(d->function);
	virtio_blk_destroy(d->blk);
	virtio_net_destroy(d->net);
	virtio_9p_destroy(d->p9);
	virtio_rng_destroy(d->rng);
	virtio_balloon_destroy(d->balloon);
	virtio_console_destroy(d->console);
	virtio_vsock_destroy(d->vsock);
	if (d->kind == MACHINE_PORTS && m->ports) {
		ports_close(m->ports);
		m->ports = NULL;
	}
	if (d->open && d->kind == MACHINE_DISK) {
		disk_unregister(&d->disk, m->reactors);
		disk_close(&d->disk);
	}
	vhost_close(&d->vhost);
	if (d->vsock_host.process)
		vsock_host_unregister(&d->vsock_host, m->reactors);
	vsock_host_close(&d->vsock_host);
	if (d->open && d->kind == MACHINE_NET) {
		tap_unregister(&d->tap, m->reactors);
		tap_close(&d->tap);
	}
	if (d->open && d->kind == MACHINE_SHARE) {
		share_unregister(&d->share, m->reactors);
		share_close(&d->share);
	}
	reactor_files_release(m->reactors);
}

void machine_device_drop(struct machine *m, struct machine_device *d)
{
	for (u32 i = 0; i < m->device_count; i++) {
		if (m->devices[i] != d)
			continue;
		m->device_count--;
		memmove(&m->devices[i], &m->devices[i + 1],
			(m->device_count - i) * sizeof(m->devices[0]));
		break;
	}
	free(d);
}

void machine_device_reset(struct machine_device *d)
{
	if (d->mmio)
		virtio_mmio_reset(d->mmio);
	else
		virtio_pci_reset(d->function);
}

static void enter_reactor(void *owner)
{
	(void)owner;
	if (sandbox_enter(SANDBOX_REACTOR))
		_exit(STATUS_HOST_ERROR);
}

static void enter_worker(void *owner)
{
	(void)owner;
	if (sandbox_enter(SANDBOX_WORKER))
		_exit(STATUS_HOST_ERROR);
}

/* Looking for work instead of sleeping pays only where it takes no CPU from the guest. */
static u32 poll_window(const struct config *config)
{
	cpu_set_t set;

	if (config->poll_given)
		return config->poll_us;
	if (!config->disk_count && !config->net_count && !config->share_count &&
	    !config->vsock.cid && !config->control)
		return 0;
	return !sched_getaffinity(0, sizeof(set), &set) && CPU_COUNT(&set) > (int)config->cpus
		       ? DEFAULT_POLL_US
		       : 0;
}

static bool any_iopoll(const struct config *config)
{
	bool any = false;

	for (u32 i = 0; i < config->disk_count; i++)
		any |= config->disks[i].iopoll;
	return any;
}

int machine_make_devices(struct machine *m)
{
	const struct reactors_config c = {
		.count = m->config->iothreads,
		.poll_us = poll_window(m->config),
		.sqpoll = m->config->sqpoll,
		.iopoll = any_iopoll(m->config),
		.pin = m->config->pin_io,
		.pin_sqpoll = m->config->pin_sqpoll,
		.max_files = count_files(m->config) + spare_files(m->config),
		.thread_start = enter_reactor,
		.worker_start = enter_worker,
	};
	int ret;

	/* no device now, and none later: no event threads */
	if (!m->device_count && !m->config->control)
		return 0;
	ret = reactors_create(&m->reactors, &c);

	m->mmio_open = m->config->mmio != CONFIG_MMIO_OFF;
	for (u32 i = 0; i < m->device_count && !ret; i++)
		ret = machine_device_make(m, m->devices[i]);
	m->mmio_open = false;
	return ret;
}
