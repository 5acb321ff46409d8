/*
 * vhost's requests (linux/vhost.h), in the order in which the kernel wants them: owner, memory,
 * features; for each ring size, addresses, eventfds, and last the tap, which starts it. The
 * IOTLB and its backend features are for guests behind an IOMMU, and there is none here: the kernel
 * takes addresses as they are in the memory table.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "backends/vhost.h"
#include "vm/log.h"

#define WITHOUT "; served without vhost-net"

/* ---- the kernel ---- */

static int kernel_open(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int kernel_ioctl(int fd, unsigned long request, void *argument)
{
	return ioctl(fd, request, argument) < 0 ? -errno : 0;
}

static const struct vhost_kernel real_kernel = {
	.open = kernel_open,
	.ioctl = kernel_ioctl,
};

static int request(const struct vhost *vhost, u16 pair, unsigned long number, void *argument)
{
	return vhost->kernel->ioctl(vhost->fds[pair], number, argument);
}

static int set_state(const struct vhost *vhost, u16 pair, unsigned long number, u32 ring, u32 value)
{
	struct vhost_vring_state state = { .index = ring, .num = value };

	return request(vhost, pair, number, &state);
}

static int set_file(const struct vhost *vhost, u16 pair, unsigned long number, u32 ring, int fd)
{
	struct vhost_vring_file file = { .index = ring, .fd = fd };

	return request(vhost, pair, number, &file);
}

/* ---- opening ---- */

static void log_open_error(const char *name, bool vsock, int error)
{
	const char *kind = vsock ? "vsock" : "net";
	const char *without = vsock ? ", or give unix=PATH instead" : WITHOUT;

	if (error == -ENOENT || error == -ENODEV || error == -ENXIO)
		log_line("%s: vhost=on: this host has no /dev/vhost-%s: its kernel's vhost_%s "
			 "driver is not loaded; `sudo modprobe vhost_%s`%s",
			 name, kind, kind, kind, without);
	else if (error == -EACCES || error == -EPERM)
		log_line("%s: vhost=on: /dev/vhost-%s may not be opened: %s; `sudo usermod -aG kvm "
			 "$USER` and a new login, or `sudo chmod 0666 /dev/vhost-%s`%s",
			 name, kind, strerror(-error), kind, without);
	else if (error == -EMFILE || error == -ENFILE)
		log_line("%s: vhost=on: /dev/vhost-%s: %s; allow more open files (ulimit -n)%s",
			 name, kind, strerror(-error), without);
	else
		log_line("%s: vhost=on: /dev/vhost-%s cannot be used: %s%s", name, kind,
			 strerror(-error), without);
}

static const struct vhost_kernel *kernel_of(const struct vhost_config *config)
{
	return config->kernel ? config->kernel : &real_kernel;
}

/* A message for each interface of this namespace that is deleted. Where it is not to be had, the
 * next frame that is sent has to tell: an eventfd that nobody rings. */
static int open_deletions(void)
{
	static const struct sockaddr_nl links = { .nl_family = AF_NETLINK,
						  .nl_groups = RTMGRP_LINK };
	static struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_H | BPF_ABS, offsetof(struct nlmsghdr, nlmsg_type)),
		/* the load takes it for big-endian */
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, RTM_DELLINK << 8, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	static const struct sock_fprog deleted = { ARRAY_SIZE(filter), filter };
	static const int on = 1;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);

	/* what is too much to keep is dropped, and no error: another is there to be read */
	if (fd >= 0 && !setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &deleted, sizeof(deleted)) &&
	    !setsockopt(fd, SOL_NETLINK, NETLINK_NO_ENOBUFS, &on, sizeof(on)) &&
	    !bind(fd, (const struct sockaddr *)&links, sizeof(links)))
		return fd;
	if (fd >= 0)
		close(fd);
	fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int vhost_open_files(const struct vhost_config *config, int *fds)
{
	int error = 0;
	u16 n = 0;

	if (!config->pairs || config->pairs > VHOST_MAX_PAIRS)
		return -EINVAL;
	while (!error && n < config->pairs) {
		fds[n] = kernel_of(config)->open(config->cid ? "/dev/vhost-vsock"
							     : "/dev/vhost-net");
		if (fds[n] < 0)
			error = fds[n];
		else
			n++;
	}
	if (!error) {
		fds[n] = config->cid ? -1 : open_deletions();
		if (fds[n] >= 0 || config->cid)
			return 0;
		error = fds[n];
	}
	while (n)
		close(fds[--n]);
	log_open_error(config->name, config->cid, error);
	return error;
}

int vhost_adopt(struct vhost *vhost, const struct vhost_config *config, const int *fds)
{
	int error = 0;

	memset(vhost, 0, sizeof(*vhost));
	snprintf(vhost->name, sizeof(vhost->name), "%s", config->name);
	vhost->kernel = kernel_of(config);
	vhost->pairs = config->pairs;
	vhost->vsock = config->cid;
	memcpy(vhost->fds, fds, config->pairs * sizeof(fds[0]));
	vhost->deletions = fds[config->pairs];
	for (u16 pair = 0; pair < vhost->pairs && !error; pair++) {
		error = request(vhost, pair, VHOST_GET_FEATURES, &vhost->features);
		if (!error) /* with its owner a pair gets its worker */
			error = request(vhost, pair, VHOST_SET_OWNER, NULL);
	}
	if (!error && config->cid)
		error = request(vhost, 0, VHOST_VSOCK_SET_GUEST_CID, &(u64){ config->cid });
	if (error == -EADDRINUSE) {
		log_line("%s: cid=%u: another machine of this host has it; give another number",
			 vhost->name, config->cid);
	} else if (error) {
		log_open_error(vhost->name, config->cid, error);
	} else if (!(vhost->features & BIT64(VIRTIO_F_VERSION_1))) {
		log_line("%s: vhost=on: this host's kernel has a vhost-net from before virtio 1.0; "
			 "Linux 5.15 or later has what it takes" WITHOUT,
			 vhost->name);
		error = -EOPNOTSUPP;
	}
	if (error)
		vhost_close(vhost);
	return error;
}

int vhost_open(struct vhost *vhost, const struct vhost_config *config)
{
	int fds[VHOST_MAX_FILES];
	int error = vhost_open_files(config, fds);

	vhost->pairs = 0;
	return error ? error : vhost_adopt(vhost, config, fds);
}

void vhost_close(struct vhost *vhost)
{
	if (vhost->pairs)
		close(vhost->deletions);
	while (vhost->pairs)
		close(vhost->fds[--vhost->pairs]);
}

/* ---- preparing ---- */

static u32 put_region(struct vhost_memory_region *region, u64 at, const void *host, u64 size)
{
	*region = (struct vhost_memory_region){
		.guest_phys_addr = at,
		.memory_size = size,
		.userspace_addr = (uintptr_t)host,
	};
	return size != 0;
}

static int set_memory(const struct vhost *vhost, u16 pair, const struct memory *memory)
{
	struct vhost_memory *table = calloc(1, sizeof(*table) + 2 * sizeof(table->regions[0]));
	int error;

	if (!table)
		return -ENOMEM;
	table->nregions = put_region(table->regions, 0, memory->low, memory->low_size);
	table->nregions += put_region(table->regions + table->nregions, LAYOUT_RAM_HIGH,
				      memory->high, memory->high_size);
	error = request(vhost, pair, VHOST_SET_MEM_TABLE, table);
	free(table);
	return error;
}

int vhost_prepare(const struct vhost *vhost, const struct memory *memory, int error_fd)
{
	int error = 0;

	for (u16 pair = 0; pair < vhost->pairs && !error; pair++) {
		error = set_memory(vhost, pair, memory);
		for (u32 ring = 0; ring < VHOST_RINGS && !error; ring++)
			error = set_file(vhost, pair, VHOST_SET_VRING_ERR, ring, error_fd);
	}
	if (error)
		log_line("%s: vhost=on: vhost-%s cannot be prepared: %s%s", vhost->name,
			 vhost->vsock ? "vsock" : "net", strerror(-error),
			 vhost->vsock ? "" : WITHOUT);
	return error;
}

int vhost_set_features(const struct vhost *vhost, u64 features)
{
	int error = 0;

	for (u16 pair = 0; pair < vhost->pairs && !error; pair++)
		error = request(vhost, pair, VHOST_SET_FEATURES, &features);
	return error;
}

/* ---- rings ---- */

int vhost_ring_place(const struct vhost *vhost, u16 pair, enum vhost_ring ring,
		     const struct vhost_place *place, int kick_fd)
{
	struct vhost_vring_addr address = {
		.index = ring,
		.desc_user_addr = (uintptr_t)place->descriptors,
		.avail_user_addr = (uintptr_t)place->available,
		.used_user_addr = (uintptr_t)place->used,
	};
	int error = set_state(vhost, pair, VHOST_SET_VRING_NUM, ring, place->size);

	if (!error)
		error = request(vhost, pair, VHOST_SET_VRING_ADDR, &address);
	if (!error)
		error = set_file(vhost, pair, VHOST_SET_VRING_KICK, ring, kick_fd);
	return error;
}

int vhost_ring_start(const struct vhost *vhost, u16 pair, enum vhost_ring ring, u16 base,
		     int call_fd, int tap_fd)
{
	int error = set_state(vhost, pair, VHOST_SET_VRING_BASE, ring, base);

	if (!error)
		error = vhost_ring_call(vhost, pair, ring, call_fd);
	if (!error && !vhost->vsock)
		error = set_file(vhost, pair, VHOST_NET_SET_BACKEND, ring, tap_fd);
	return error;
}

int vhost_ring_stop(const struct vhost *vhost, u16 pair, enum vhost_ring ring, u16 *base)
{
	struct vhost_vring_state state = { .index = ring };
	int error = vhost->vsock
			    ? 0
			    : set_file(vhost, pair, VHOST_NET_SET_BACKEND, ring, VHOST_FILE_UNBIND);

	if (!error)
		error = request(vhost, pair, VHOST_GET_VRING_BASE, &state);
	if (!error)
		*base = (u16)state.num;
	return error;
}

int vhost_ring_call(const struct vhost *vhost, u16 pair, enum vhost_ring ring, int call_fd)
{
	return set_file(vhost, pair, VHOST_SET_VRING_CALL, ring, call_fd);
}

int vhost_pair_poll(const struct vhost *vhost, u16 pair, u32 poll_us)
{
	int error = 0;

	for (u32 ring = 0; ring < VHOST_RINGS && !error; ring++)
		error = set_state(vhost, pair, VHOST_SET_VRING_BUSYLOOP_TIMEOUT, ring, poll_us);
	return error;
}

int vhost_ring_leave(const struct vhost *vhost, u16 pair, enum vhost_ring ring)
{
	return set_file(vhost, pair, VHOST_SET_VRING_KICK, ring, VHOST_FILE_UNBIND);
}

int vhost_vsock_run(const struct vhost *vhost, bool on)
{
	return request(vhost, 0, VHOST_VSOCK_SET_RUNNING, &(int){ on });
}
