/*
 * The devices a user names: their host ends are opened first, then each becomes a virtio function
 * on the PCI bus, its queues spread over the reactors. Main thread.
 */
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "machine/machine.h"
#include "vm/sandbox.h"

#define DEFAULT_MAX_QUEUES 8
#define DEFAULT_POLL_US	   32

static u16 disk_queues(const struct config *config, const struct config_disk *disk)
{
	u32 n = config->cpus < DEFAULT_MAX_QUEUES ? config->cpus : DEFAULT_MAX_QUEUES;

	return disk->queues ? disk->queues : (u16)n;
}

static u16 net_queues(const struct config_net *net)
{
	return net->queues ? net->queues : 1;
}

/* Every descriptor that a reactor may name: doorbells, vectors, the line, disk or tap queues. */
static u32 count_files(const struct config *config)
{
	u32 files = 64;

	for (u32 i = 0; i < config->disk_count; i++)
		files += 2u * disk_queues(config, &config->disks[i]) + 8;
	for (u32 i = 0; i < config->net_count; i++)
		files += 5u * net_queues(&config->nets[i]) + 8;
	return files;
}

int machine_open_backends(struct machine *m)
{
	const struct config *config = m->config;
	int ret = 0;

	for (u32 i = 0; i < config->disk_count && !ret; i++) {
		const struct config_disk *d = &config->disks[i];
		const struct disk_config c = { .path = d->path,
					       .readonly = d->readonly,
					       .direct = d->direct };

		ret = disk_open(&m->disks[i], &c);
		m->disk_count += !ret;
	}
	for (u32 i = 0; i < config->net_count && !ret; i++) {
		const struct tap_config c = { .name = config->nets[i].tap,
					      .queues = net_queues(&config->nets[i]) };

		ret = tap_open(&m->taps[i], &c);
		m->tap_count += !ret;
	}
	return ret ? ret : stats_open(&m->stats, config->stats);
}

static int plug(struct machine *m, struct virtio_device *device)
{
	const struct virtio_pci_config c = {
		.host = m->pci, .irq = m->irq, .reactors = m->reactors, .device = device
	};
	int ret = virtio_pci_create(&m->functions[m->function_count], &c);

	m->devices[m->function_count] = device;
	m->function_count += !ret;
	return ret;
}

static int make_disk(struct machine *m, u32 i)
{
	const struct config_disk *d = &m->config->disks[i];
	struct virtio_blk_options c = {
		.memory = &m->memory,
		.reactors = m->reactors,
		.disk = &m->disks[i],
		.queues = disk_queues(m->config, d),
		.first_reactor = i,
		.writethrough = d->writethrough,
	};
	char name[16];
	int ret = disk_register(&m->disks[i], m->reactors);

	snprintf(name, sizeof(name), "blk%u", i);
	c.name = name;
	snprintf(c.serial, sizeof(c.serial), "%s", *d->serial ? d->serial : m->disks[i].identity);
	if (!ret)
		ret = virtio_blk_create(&m->blks[i], &c);
	return ret ? ret : plug(m, virtio_blk_device(m->blks[i]));
}

static int make_net(struct machine *m, u32 i)
{
	const struct config_net *n = &m->config->nets[i];
	struct virtio_net_options c = {
		.memory = &m->memory,
		.reactors = m->reactors,
		.tap = &m->taps[i],
		.first_reactor = m->config->disk_count + i,
		.mtu = n->mtu ? n->mtu : (u16)(m->taps[i].mtu > 65535 ? 65535 : m->taps[i].mtu),
	};
	char name[16];
	int ret = tap_register(&m->taps[i], m->reactors);

	snprintf(name, sizeof(name), "net%u", i);
	c.name = name;
	memcpy(c.mac, n->mac_given ? n->mac : m->taps[i].mac, sizeof(c.mac));
	if (!ret)
		ret = virtio_net_create(&m->nets[i], &c);
	return ret ? ret : plug(m, virtio_net_device(m->nets[i]));
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
	return !sched_getaffinity(0, sizeof(set), &set) && CPU_COUNT(&set) > (int)config->cpus
		       ? DEFAULT_POLL_US
		       : 0;
}

int machine_make_devices(struct machine *m)
{
	const struct reactors_config c = {
		.count = m->config->iothreads,
		.poll_us = poll_window(m->config),
		.max_files = count_files(m->config),
		.thread_start = enter_reactor,
		.worker_start = enter_worker,
	};
	int ret = reactors_create(&m->reactors, &c);

	for (u32 i = 0; i < m->config->disk_count && !ret; i++)
		ret = make_disk(m, i);
	for (u32 i = 0; i < m->config->net_count && !ret; i++)
		ret = make_net(m, i);
	if (!ret && m->config->rng) {
		ret = virtio_rng_create(&m->rng, &m->memory, m->reactors);
		if (!ret)
			ret = plug(m, virtio_rng_device(m->rng));
	}
	return ret;
}
