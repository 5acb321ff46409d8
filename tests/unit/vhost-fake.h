/*
 * A /dev/vhost-net of paper for tests: it keeps what it is asked for, and says no where the kernel
 * would: to rings moved while they run, to features it has not, to anybody before SET_OWNER. It
 * carries no frames; tests read its pages and ring its eventfds.
 */
#ifndef TESTS_UNIT_VHOST_FAKE_H
#define TESTS_UNIT_VHOST_FAKE_H

#include <errno.h>
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "backends/vhost.h"

/* As Linux 6.1 has it; bits 26 and 27 are vhost's own. */
#define FAKE_FEATURES                                                             \
	(BIT64(VIRTIO_F_NOTIFY_ON_EMPTY) | BIT64(VHOST_F_LOG_ALL) |               \
	 BIT64(VHOST_NET_F_VIRTIO_NET_HDR) | BIT64(VIRTIO_RING_F_INDIRECT_DESC) | \
	 BIT64(VIRTIO_RING_F_EVENT_IDX) | BIT64(VIRTIO_F_VERSION_1) |             \
	 BIT64(VIRTIO_NET_F_MRG_RXBUF) | BIT64(VIRTIO_F_ACCESS_PLATFORM))

struct fake_ring {
	u32 size, base;
	u64 descriptors, available, used;
	int kick, call, error, backend; /* -1: none */
	u32 poll_us;
	u32 starts, stops;
	u32 index; /* what GET_VRING_BASE says: how far the worker got */
};

struct fake_pair {
	int fd;
	bool owned;
	u64 features;
	u32 regions;
	struct vhost_memory_region region[2];
	struct fake_ring rings[VHOST_RINGS];
};

struct fake {
	u64 features;
	int open_error;
	u32 open_most;	    /* opens that work before open_error; */
	unsigned long fail; /* the request that fails, */
	int fail_error;	    /* with this, */
	u32 fail_after;	    /* after so many that do not */
	u32 opened;
	u32 stray_polls; /* busy-polling while a ring of the pair was not started */
	struct fake_pair pairs[VHOST_MAX_PAIRS];
};

static struct fake fake;
static pthread_mutex_t fake_lock = PTHREAD_MUTEX_INITIALIZER;

static inline void fake_init(void)
{
	memset(&fake, 0, sizeof(fake));
	fake.features = FAKE_FEATURES;
	fake.open_most = VHOST_MAX_PAIRS;
}

static inline int fake_open(const char *path)
{
	struct fake_pair *pair = &fake.pairs[fake.opened];

	if (strcmp(path, "/dev/vhost-net"))
		return -ENOENT;
	if (fake.open_error && fake.opened == fake.open_most)
		return fake.open_error;
	pair->fd = eventfd(0, EFD_CLOEXEC);
	for (u32 i = 0; i < VHOST_RINGS; i++)
		pair->rings[i].kick = pair->rings[i].call = pair->rings[i].error =
			pair->rings[i].backend = -1;
	fake.opened++;
	return pair->fd;
}

static inline int fake_ring_request(struct fake_pair *pair, unsigned long request, void *argument)
{
	struct vhost_vring_state *state = argument;
	const struct vhost_vring_file *file = argument;
	const struct vhost_vring_addr *address = argument;
	struct fake_ring *ring;

	if (state->index >= VHOST_RINGS) /* the first member of all three */
		return -ENOBUFS;
	ring = &pair->rings[state->index];
	switch (request) {
	case VHOST_SET_VRING_NUM:
		if (ring->backend >= 0)
			return -EBUSY;
		if (!state->num || state->num > 0xffff || state->num & (state->num - 1))
			return -EINVAL;
		ring->size = state->num;
		return 0;
	case VHOST_SET_VRING_ADDR:
		if (address->flags)
			return -EOPNOTSUPP;
		if (address->desc_user_addr % 16 || address->avail_user_addr % 2 ||
		    address->used_user_addr % 4)
			return -EINVAL;
		ring->descriptors = address->desc_user_addr;
		ring->available = address->avail_user_addr;
		ring->used = address->used_user_addr;
		return 0;
	case VHOST_SET_VRING_BASE:
		if (ring->backend >= 0)
			return -EBUSY;
		if (state->num > 0xffff)
			return -EINVAL;
		ring->base = ring->index = state->num;
		return 0;
	case VHOST_GET_VRING_BASE:
		state->num = ring->index;
		return 0;
	case VHOST_SET_VRING_BUSYLOOP_TIMEOUT:
		ring->poll_us = state->num;
		if (state->num && (pair->rings[0].backend < 0 || pair->rings[1].backend < 0))
			fake.stray_polls++;
		return 0;
	case VHOST_SET_VRING_KICK:
		ring->kick = file->fd;
		return 0;
	case VHOST_SET_VRING_CALL:
		ring->call = file->fd;
		return 0;
	case VHOST_SET_VRING_ERR:
		ring->error = file->fd;
		return 0;
	case VHOST_NET_SET_BACKEND:
		if (!ring->descriptors || !ring->size)
			return -EFAULT;
		if (file->fd < 0 && (pair->rings[0].poll_us || pair->rings[1].poll_us))
			fake.stray_polls++;
		ring->starts += file->fd >= 0;
		ring->stops += file->fd < 0 && ring->backend >= 0;
		ring->backend = file->fd;
		return 0;
	}
	return -ENOTTY;
}

static inline int fake_request(struct fake_pair *pair, unsigned long request, void *argument)
{
	const struct vhost_memory *table = argument;

	if (request == fake.fail && !fake.fail_after--)
		return fake.fail_error;
	switch (request) {
	case VHOST_GET_FEATURES:
		memcpy(argument, &fake.features, sizeof(fake.features));
		return 0;
	case VHOST_SET_OWNER:
		if (pair->owned)
			return -EBUSY;
		pair->owned = true;
		return 0;
	}
	if (!pair->owned)
		return -EPERM;
	switch (request) {
	case VHOST_SET_FEATURES:
		memcpy(&pair->features, argument, sizeof(pair->features));
		return pair->features & ~fake.features ? -EOPNOTSUPP : 0;
	case VHOST_SET_MEM_TABLE:
		if (table->padding || table->nregions > 2)
			return -EOPNOTSUPP;
		pair->regions = table->nregions;
		memcpy(pair->region, table->regions, table->nregions * sizeof(table->regions[0]));
		return 0;
	}
	return fake_ring_request(pair, request, argument);
}

static inline int fake_ioctl(int fd, unsigned long request, void *argument)
{
	int result = -EBADF;

	pthread_mutex_lock(&fake_lock);
	for (u32 i = 0; i < fake.opened; i++)
		if (fake.pairs[i].fd == fd)
			result = fake_request(&fake.pairs[i], request, argument);
	pthread_mutex_unlock(&fake_lock);
	return result;
}

static const struct vhost_kernel fake_kernel = { .open = fake_open, .ioctl = fake_ioctl };

/* A ring as it stands now. */
static inline struct fake_ring fake_ring(u32 pair, enum vhost_ring ring)
{
	struct fake_ring copy;

	pthread_mutex_lock(&fake_lock);
	copy = fake.pairs[pair].rings[ring];
	pthread_mutex_unlock(&fake_lock);
	return copy;
}

static inline u64 fake_told(u32 pair)
{
	u64 features;

	pthread_mutex_lock(&fake_lock);
	features = fake.pairs[pair].features;
	pthread_mutex_unlock(&fake_lock);
	return features;
}

static inline bool fake_runs(u32 pair, enum vhost_ring ring)
{
	return fake_ring(pair, ring).backend >= 0;
}

/* The worker has come to this index. */
static inline void fake_progress(u32 pair, enum vhost_ring ring, u32 index)
{
	pthread_mutex_lock(&fake_lock);
	fake.pairs[pair].rings[ring].index = index;
	pthread_mutex_unlock(&fake_lock);
}

static inline void fake_fail(unsigned long request, int error, u32 after)
{
	pthread_mutex_lock(&fake_lock);
	fake.fail = request;
	fake.fail_error = error;
	fake.fail_after = after;
	pthread_mutex_unlock(&fake_lock);
}

#endif
