/* Devices that come and go while the machine runs: see hotplug.h. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "machine/hotplug.h"
#include "machine/ports.h"
#include "pci/hotplug.h"
#include "vm/log.h"

#define NS	    1000000000ull
#define LAST_NS	    (10 * NS) /* for the host to end what is in flight, until whoever asked is told */
#define ERROR_BYTES 256

struct hotplug {
	struct machine *m;
	struct pci_hotplug *registers;
	int wake; /* eventfd: a vanished device has nothing in flight any more */
	pthread_mutex_t lock;
	struct machine_device *slots[PCI_SLOTS]; /* under the lock, as is device.vanished */
};

/* ---- finding ---- */

bool hotplug_vanished(struct hotplug *h, const struct machine_device *d)
{
	bool vanished;

	pthread_mutex_lock(&h->lock);
	vanished = d->vanished;
	pthread_mutex_unlock(&h->lock);
	return vanished;
}

struct machine_device *hotplug_find(const struct hotplug *h, const char *id)
{
	for (u32 i = 0; i < h->m->device_count; i++)
		if (!strcmp(h->m->devices[i]->id, id))
			return h->m->devices[i];
	log_line("%.40s: there is no such device; `vmm ctl` with `list` shows those there are", id);
	return NULL;
}

/* ---- coming ---- */

static void close_all(const int *fds, u32 count)
{
	for (u32 i = 0; i < count; i++)
		close(fds[i]);
}

static int adopt_disk(struct machine_device *d, const struct hotplug_addition *a)
{
	const struct config_disk *config = &d->own->disks[0];
	const struct disk_config c = { .path = config->path,
				       .readonly = config->readonly,
				       .direct = config->direct,
				       .snapshot = config->snapshot,
				       .iopoll = config->iopoll };

	d->disk_config = config;
	if (!a->disk) {
		log_line("%s: what is to be known of it was not sent along; add it by `vmm ctl`",
			 config->path);
		return -EINVAL;
	}
	return disk_adopt(&d->disk, &c, a->fds, a->fd_count, a->disk);
}

/* At start the options are compared; here the newcomer is, with those that are there. */
static int check_mac(const struct machine *m, const struct config_net *config)
{
	for (u32 i = 0; i < m->device_count; i++) {
		const struct config_net *other = m->devices[i]->net_config;

		if (!other || other == config || !config->mac_given || !other->mac_given ||
		    memcmp(config->mac, other->mac, sizeof(config->mac)))
			continue;
		log_line("%s: has the same mac= as %s; change it", config->tap, m->devices[i]->id);
		return -EINVAL;
	}
	return 0;
}

/* The tap's queues, and behind them vhost-net's files if it shall serve them and can. */
static int adopt_net(struct machine *m, struct machine_device *d, const struct hotplug_addition *a)
{
	const struct config_net *config = &d->own->nets[0];
	const struct tap_config c = { .name = config->tap,
				      .queues = config->queues ? config->queues : 1 };
	const struct vhost_config v = { .name = config->tap, .pairs = c.queues };
	bool with_vhost = config->vhost && a->fd_count == 2u * c.queues + 1;
	int error;

	d->net_config = config;
	if (!a->tap) {
		log_line("%s: its open queues were not sent along; add it by `vmm ctl`",
			 config->tap);
		return -EBADF;
	}
	error = check_mac(m, config);
	if (!error)
		error = tap_adopt(&d->tap, &c, a->fds, with_vhost ? c.queues : a->fd_count, a->tap);
	if (error || !with_vhost)
		return error;
	if (machine_wants_vhost(m, config))
		vhost_adopt(&d->vhost, &v, a->fds + c.queues);
	else
		close_all(a->fds + c.queues, c.queues + 1u);
	return 0;
}

/* The sockets and the one to the process that connects; or vhost-vsock's file. */
static int adopt_vsock(struct machine *m, struct machine_device *d,
		       const struct hotplug_addition *a)
{
	const struct config_vsock *config = &d->own->vsock;
	const struct vhost_config v = { .name = "vsock", .pairs = 1, .cid = config->cid };
	int error = machine_check_vsock(m, config);

	if (!error && a->fd_count != (config->vhost ? 1u : VSOCK_DOORS)) {
		log_line("vsock: its sockets were not sent along; add it by `vmm ctl`");
		error = -EBADF;
	}
	if (error)
		close_all(a->fds, a->fd_count);
	else if (config->vhost) /* whose file is closed if it fails */
		error = vhost_adopt(&d->vhost, &v, (const int[]){ a->fds[0], -1 });
	else
		vsock_host_adopt(&d->vsock_host, a->fds);
	return error;
}

/* The descriptors are the device's, or closed. */
static int adopt(struct machine *m, struct machine_device *d, const struct hotplug_addition *a)
{
	int error;

	if (d->kind == MACHINE_VSOCK)
		return adopt_vsock(m, d, a);
	error = d->kind == MACHINE_DISK	   ? adopt_disk(d, a)
		: d->kind == MACHINE_NET   ? adopt_net(m, d, a)
		: d->kind == MACHINE_PORTS ? ports_adopt(&m->ports, d->own, a->fds, a->fd_count)
					   : 0;
	d->open = !error;
	if (error || d->kind == MACHINE_RNG || d->kind == MACHINE_BALLOON)
		close_all(a->fds, a->fd_count);
	return error;
}

static void discard(struct machine *m, struct machine_device *d)
{
	machine_device_unmake(m, d);
	if (d->own)
		config_free(d->own);
	free(d->own);
	machine_device_drop(m, d);
}

int hotplug_add(struct hotplug *h, const struct hotplug_addition *a, const char **id)
{
	struct machine *m = h->m;
	struct machine_device *d;
	struct config *own;
	int error = config_parse_device(&own, m->config, a->option, a->value);

	if (error) {
		close_all(a->fds, a->fd_count);
		return error;
	}
	d = machine_device_new(m, own->disk_count   ? MACHINE_DISK
				  : own->net_count  ? MACHINE_NET
				  : own->vsock.cid  ? MACHINE_VSOCK
				  : own->port_count ? MACHINE_PORTS
				  : own->balloon    ? MACHINE_BALLOON
						    : MACHINE_RNG);
	if (!d) {
		config_free(own);
		free(own);
		close_all(a->fds, a->fd_count);
		return -ENOSPC;
	}
	d->own = own;
	error = adopt(m, d, a);
	if (!error)
		error = machine_device_make(m, d);
	if (error) {
		discard(m, d);
		return error;
	}
	pthread_mutex_lock(&h->lock);
	h->slots[virtio_pci_slot(d->function)] = d;
	pthread_mutex_unlock(&h->lock);
	pci_hotplug_check(h->registers, virtio_pci_slot(d->function));
	*id = d->id;
	return 0;
}

/* ---- going ---- */

/* Lock held. True if it was there until now. */
static bool vanish(struct hotplug *h, struct machine_device *d)
{
	if (d->vanished)
		return false;
	d->vanished = true;
	h->slots[virtio_pci_slot(d->function)] = NULL;
	virtio_pci_vanish(d->function, h->wake);
	return true;
}

/* The guest has let go of it, asked or not. vCPU thread. */
static void ejected(void *owner, u8 slot)
{
	struct hotplug *h = owner;

	pthread_mutex_lock(&h->lock);
	if (h->slots[slot])
		vanish(h, h->slots[slot]);
	pthread_mutex_unlock(&h->lock);
}

static void tell(struct machine_device *d, const char *error)
{
	void (*told)(void *, const char *, const char *) = d->removal.told;

	d->removal.told = NULL;
	if (told)
		told(d->removal.arg, d->id, error);
}

int hotplug_remove(struct hotplug *h, const char *id, const struct hotplug_removal *removal)
{
	struct machine_device *d = hotplug_find(h, id);

	if (!d)
		return -ENOENT;
	if (!d->function) /* virtio-mmio, which has no way to say so */
		return -EOPNOTSUPP;
	tell(d, "somebody else asks for its removal now");
	d->removal.force = removal->force;
	d->removal.told = removal->told;
	d->removal.arg = removal->arg;
	d->removal.asked = true;
	d->removal.deadline = clock_now_ns() + removal->patience;
	if (!hotplug_vanished(h, d) && (removal->patience || !removal->force))
		pci_hotplug_ask(h->registers, virtio_pci_slot(d->function));
	return 0;
}

void hotplug_forget(struct hotplug *h, const void *arg)
{
	for (u32 i = 0; i < h->m->device_count; i++)
		if (h->m->devices[i]->removal.arg == arg)
			h->m->devices[i]->removal.told = NULL;
}

/* The guest has had its time. */
static void overdue(struct hotplug *h, struct machine_device *d, u64 now)
{
	char error[ERROR_BYTES];

	if (hotplug_vanished(h, d)) {
		snprintf(error, sizeof(error),
			 "%s: gone for the guest, but the host has not ended what was in flight; "
			 "it is let go when that ends",
			 d->id);
		d->removal.deadline = ~0ull;
		tell(d, error);
	} else if (d->removal.force) {
		pthread_mutex_lock(&h->lock);
		if (!d->vanished)
			pci_hotplug_haunt(h->registers, virtio_pci_function(d->function));
		vanish(h, d);
		pthread_mutex_unlock(&h->lock);
		d->removal.deadline = now + LAST_NS;
		pci_hotplug_lost(h->registers);
	} else {
		snprintf(error, sizeof(error),
			 "%s: the guest has not let go of it in time; --force takes it away all "
			 "the same",
			 d->id);
		d->removal.asked = false;
		tell(d, error);
	}
}

static bool ended(struct hotplug *h, struct machine_device *d)
{
	return hotplug_vanished(h, d) && virtio_pci_idle(d->function);
}

void hotplug_prepare(const struct hotplug *h, struct pollfd *fd, u64 *deadline)
{
	*fd = (struct pollfd){ .fd = h->wake, .events = POLLIN };
	for (u32 i = 0; i < h->m->device_count; i++) {
		const struct machine_device *d = h->m->devices[i];

		if (d->removal.asked && d->removal.deadline < *deadline)
			*deadline = d->removal.deadline;
	}
}

static void finish(struct machine *m, struct machine_device *d)
{
	struct machine_device gone = { .removal = d->removal };

	memcpy(gone.id, d->id, sizeof(gone.id));
	if (!d->removal.asked)
		log_line("%s: the guest has ejected it", d->id);
	discard(m, d);
	tell(&gone, NULL); /* now that all is free */
}

void hotplug_run(struct hotplug *h, u64 now)
{
	struct machine_device *over[MACHINE_MAX_DEVICES];
	struct machine *m = h->m;
	u32 count = 0;
	eventfd_t rung;

	eventfd_read(h->wake, &rung); /* or nothing, which is as well */
	for (u32 i = 0; i < m->device_count; i++) {
		struct machine_device *d = m->devices[i];

		if (d->removal.asked && now >= d->removal.deadline && !ended(h, d))
			overdue(h, d, now);
	}
	for (u32 i = 0; i < m->device_count; i++)
		if (ended(h, m->devices[i]))
			over[count++] = m->devices[i];
	if (!count)
		return;
	/* An access that a vCPU had begun when the function vanished, an ejecting too, ends before
	 * the vCPU goes on. What vanishes from here on is the next turn's. */
	if (m->vcpus) {
		vcpus_pause(m->vcpus);
		vcpus_continue(m->vcpus);
	}
	for (u32 i = 0; i < count; i++)
		finish(m, over[i]);
}

void hotplug_reset(struct hotplug *h)
{
	pci_hotplug_reset(h->registers);
	pthread_mutex_lock(&h->lock);
	for (u32 i = 0; i < h->m->device_count; i++)
		if (h->m->devices[i]->removal.asked)
			vanish(h, h->m->devices[i]);
	pthread_mutex_unlock(&h->lock);
}

/* ---- sizes ---- */

int hotplug_resize(struct hotplug *h, const char *id, u64 size, bool shrink)
{
	struct machine_device *d = hotplug_find(h, id);
	int error;

	if (!d)
		return -ENOENT;
	if (d->kind != MACHINE_DISK) {
		log_line("%s: is no disk, so it has no size", d->id);
		return -EINVAL;
	}
	error = disk_resize(&d->disk, size, shrink);
	if (!error)
		virtio_blk_resized(d->blk);
	return error;
}

/* ---- making ---- */

int hotplug_create(struct hotplug **result, struct machine *m)
{
	struct hotplug *h = calloc(1, sizeof(*h));
	struct pci_hotplug_config c = {
		.host = m->pci, .pm = m->pm, .ejected = ejected, .owner = h
	};
	int error = -ENOMEM;

	if (!h)
		goto out;
	h->m = m;
	pthread_mutex_init(&h->lock, NULL);
	h->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	error = h->wake < 0 ? -errno : pci_hotplug_create(&h->registers, &c);
	if (error)
		goto out;
	for (u32 i = 0; i < m->device_count; i++)
		if (m->devices[i]->function)
			h->slots[virtio_pci_slot(m->devices[i]->function)] = m->devices[i];
	*result = h;
	return 0;
out:
	log_line("hot-plug slots: %s; " MORE_FILES, strerror(-error));
	return error;
}

void hotplug_destroy(struct hotplug *h)
{
	if (!h)
		return;
	pci_hotplug_destroy(h->registers);
	close(h->wake);
	pthread_mutex_destroy(&h->lock);
	free(h);
}
