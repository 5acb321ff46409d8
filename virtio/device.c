/*
 * The device core (virtio 1.3, 2.1 to 2.5 and 3.1): status, features, configuration, reset. What it
 * holds is guarded by the device's lock and touched on vCPU threads; only the end of a reset may
 * come on a reactor, when the last queue has become idle. The queues themselves are queue.c's.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "virtio/core.h"
#include "virtio/strict.h"

#define MODERN_FEATURES                                                   \
	(BIT64(VIRTIO_F_VERSION_1) | BIT64(VIRTIO_RING_F_INDIRECT_DESC) | \
	 BIT64(VIRTIO_RING_F_EVENT_IDX) | BIT64(VIRTIO_F_RING_RESET))
/* 6.3: a transitional device offers them, but only the legacy interface knows them. */
#define LEGACY_FEATURES (BIT64(VIRTIO_F_ANY_LAYOUT) | BIT64(VIRTIO_F_NOTIFY_ON_EMPTY))

#define DRIVER_STATUS                                                                         \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK | \
	 VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FAILED)

/* ---- features ---- */

static u64 offered(const struct virtio_device *device, bool legacy)
{
	/* 4.1.4.8: the legacy interface has the first 32 bits. */
	return legacy ? device->offered & UINT32_MAX : device->offered & ~LEGACY_FEATURES;
}

u32 virtio_features_read(const struct virtio_device *device, u32 select, bool legacy)
{
	return select > 1 ? 0 : (u32)(offered(device, legacy) >> (32 * select));
}

void virtio_features_write(struct virtio_device *device, u32 select, u32 value, bool legacy)
{
	u32 window;

	if (device->strict)
		strict_features_write(device, select, value, legacy, offered(device, legacy));
	if (device->resetting || atomic_load(&device->running) ||
	    (device->status & VIRTIO_CONFIG_S_FEATURES_OK))
		return;
	if (legacy) {
		/* Nothing can be refused later: what was not offered is not taken. */
		device->legacy = true;
		if (select == 0)
			device->features = value & offered(device, true);
		return;
	}
	if (select > 1) {
		window = select < 63 ? select : 63;
		device->features_beyond &= ~BIT64(window);
		if (value)
			device->features_beyond |= BIT64(window);
		return;
	}
	device->features &= ~((u64)UINT32_MAX << (32 * select));
	device->features |= (u64)value << (32 * select);
}

/* 2.2.2, 3.1.1: FEATURES_OK sticks only for a set that can be worked with. */
static bool features_ok(struct virtio_device *device)
{
	u64 features = device->features;

	if (device->features_beyond || (features & ~offered(device, false)))
		return false;
	/* 6.1.2: without VERSION_1 a driver belongs to the legacy interface, which has no
	 * FEATURES_OK. */
	if (!(features & BIT64(VIRTIO_F_VERSION_1)))
		return false;
	return !device->ops->features_ok || device->ops->features_ok(device, features);
}

/* ---- status and reset ---- */

void virtio_device_run(struct virtio_device *device)
{
	u16 i;

	device->driver_ok = ticks_now();
	if (!device->first_driver_ok)
		device->first_driver_ok = device->driver_ok;
	device->ran_features = device->features;
	device->ran_legacy = device->legacy;
	if (device->ops->start)
		device->ops->start(device);
	atomic_store(&device->running, true);
	for (i = 0; i < device->queue_count; i++)
		if (device->queues[i].enabled && !device->queues[i].resetting)
			virtio_queue_want(&device->queues[i]);
}

static void finish_reset(struct virtio_device *device)
{
	u16 i;

	if (device->config_size)
		memcpy(device->config_before, device->config, device->config_size);
	device->features = 0;
	device->features_beyond = 0;
	device->legacy = false;
	atomic_store(&device->broken, false);
	if (device->ops->reset)
		device->ops->reset(device);
	if (device->config_size &&
	    memcmp(device->config_before, device->config, device->config_size))
		device->config_changed = true;
	for (i = 0; i < device->queue_count; i++)
		virtio_queue_defaults(&device->queues[i]);
	if (device->transport && device->transport->reset)
		device->transport->reset(device);
	if (device->strict)
		strict_reset_done(device);
	atomic_store(&device->isr, 0);
	device->status = 0;
	device->resetting = false;
	pthread_cond_broadcast(&device->idle);
}

static bool any_queue_busy(const struct virtio_device *device)
{
	u16 i;

	for (i = 0; i < device->queue_count; i++)
		if (device->queues[i].busy)
			return true;
	return false;
}

/* 2.4.1: no ring is touched and nothing is told once the status reads 0, so that waits for the
 * queues. */
static void begin_reset(struct virtio_device *device)
{
	u16 i;

	if (device->resetting)
		return;
	device->resetting = true;
	atomic_store(&device->running, false);
	for (i = 0; i < device->queue_count; i++)
		virtio_queue_unwant(&device->queues[i]);
	if (!any_queue_busy(device))
		finish_reset(device);
}

void virtio_device_queue_idle(struct virtio_queue *queue)
{
	struct virtio_device *device = queue->device;

	if (device->resetting) {
		if (!any_queue_busy(device))
			finish_reset(device);
	} else if (queue->resetting) {
		virtio_queue_defaults(queue);
		pthread_cond_broadcast(&device->idle);
	}
}

u8 virtio_status_read(struct virtio_device *device)
{
	/* A driver may use a legacy device with a status of 0; its reset still must not look
	 * finished. */
	if (device->resetting && device->status == 0)
		return VIRTIO_CONFIG_S_ACKNOWLEDGE;
	if (device->strict)
		strict_status_read(device, device->status);
	return device->status;
}

void virtio_status_write(struct virtio_device *device, u8 value, bool legacy)
{
	bool accepted;
	u8 set;

	if (device->strict)
		strict_status_write(device, value, legacy);
	if (value == 0) {
		begin_reset(device);
		return;
	}
	if (device->resetting)
		return;
	/* 2.1.1: bits are only added until a reset; NEEDS_RESET is ours alone. */
	set = value & DRIVER_STATUS & (u8)~device->status;
	if (legacy) {
		device->legacy = true;
		set &= (u8)~VIRTIO_CONFIG_S_FEATURES_OK;
	} else if (set & VIRTIO_CONFIG_S_FEATURES_OK) {
		accepted = features_ok(device);
		if (device->strict)
			strict_features_checked(device, accepted, offered(device, false));
		if (!accepted)
			set &= (u8)~VIRTIO_CONFIG_S_FEATURES_OK;
	}
	/* 3.1.1: a driver that was refused, or did not ask, must not go on; so it does not get on.
	 */
	if (!legacy && !((device->status | set) & VIRTIO_CONFIG_S_FEATURES_OK))
		set &= (u8)~VIRTIO_CONFIG_S_DRIVER_OK;
	device->status |= set;
	if ((set & VIRTIO_CONFIG_S_FEATURES_OK))
		device->legacy = false;
	if ((set & VIRTIO_CONFIG_S_DRIVER_OK) && !atomic_load(&device->running))
		virtio_device_run(device);
}

static bool any_reset(const struct virtio_device *device)
{
	u16 i;

	if (device->resetting)
		return true;
	for (i = 0; i < device->queue_count; i++)
		if (device->queues[i].resetting)
			return true;
	return false;
}

void virtio_reset_wait(struct virtio_device *device)
{
	while (any_reset(device))
		pthread_cond_wait(&device->idle, &device->lock);
}

void virtio_device_power_on(struct virtio_device *device)
{
	pthread_mutex_lock(&device->lock);
	begin_reset(device);
	virtio_reset_wait(device);
	pthread_mutex_unlock(&device->lock);
}

void virtio_device_broken(struct virtio_device *device, const char *why)
{
	if (atomic_exchange(&device->broken, true))
		return;
	if (device->ops->gate)
		device->ops->gate(device);
	log_limited(&device->lines, 10, "%s: %s; it works again after a reset by the driver",
		    device->name, why);
	pthread_mutex_lock(&device->lock);
	/* 2.1.2; while a reset is under way it is what the status asks for. */
	if (!device->resetting) {
		device->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
		if (atomic_load(&device->running) && device->transport)
			device->transport->config_interrupt(device);
	}
	pthread_mutex_unlock(&device->lock);
}

void virtio_device_bus_master(struct virtio_device *device, bool on)
{
	u16 i;

	if (atomic_exchange(&device->bus_master, on) == on)
		return;
	if (device->ops->gate)
		device->ops->gate(device);
	if (!on)
		return;
	for (i = 0; i < device->queue_count; i++)
		virtio_queue_resume(&device->queues[i]);
}

/* ---- configuration ---- */

u64 virtio_config_read(struct virtio_device *device, u32 offset, u32 size)
{
	if (device->strict)
		strict_config_read(device, offset, size);
	if (offset >= device->config_size || size == 0 || size > 8)
		return 0;
	if (size > device->config_size - offset)
		size = device->config_size - offset;
	return le_load(device->config + offset, size);
}

void virtio_config_write(struct virtio_device *device, u32 offset, u32 size, u64 value)
{
	if (device->strict)
		strict_config_write(device, offset, size, device->legacy);
	if (device->resetting || !device->ops->config_write)
		return;
	if (offset >= device->config_size || size == 0 || size > 8 ||
	    size > device->config_size - offset)
		return;
	device->ops->config_write(device, offset, size, value);
}

/* 4.1.4.3.1: moves if the configuration did since the last look, so that a wrap of its eight bits
 * cannot hide a change. */
u8 virtio_config_generation(struct virtio_device *device)
{
	if (device->strict)
		strict_generation_read(device);
	if (device->config_changed) {
		device->config_changed = false;
		device->config_generation++;
	}
	return (u8)device->config_generation;
}

void virtio_config_update(struct virtio_device *device, u32 offset, const void *bytes, u32 size)
{
	pthread_mutex_lock(&device->lock);
	if (offset <= device->config_size && size <= device->config_size - offset &&
	    memcmp(device->config + offset, bytes, size)) {
		memcpy(device->config + offset, bytes, size);
		device->config_changed = true;
		if (atomic_load(&device->running) && device->transport)
			device->transport->config_interrupt(device);
	}
	pthread_mutex_unlock(&device->lock);
}

u8 virtio_isr_read(struct virtio_device *device)
{
	return (u8)atomic_exchange(&device->isr, 0);
}

/* ---- construction ---- */

/* Recursive: a device type may find its driver broken while it holds the lock. */
static int init_lock(struct virtio_device *device)
{
	pthread_mutexattr_t attr;
	int err;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
	err = pthread_mutex_init(&device->lock, &attr);
	pthread_mutexattr_destroy(&attr);
	if (!err)
		err = pthread_cond_init(&device->idle, NULL);
	return -err;
}

void *virtio_room(size_t bytes)
{
	void *room = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (room == MAP_FAILED)
		return NULL;
	madvise(room, bytes, MADV_NOHUGEPAGE); /* kernels without huge pages refuse */
	return room;
}

void virtio_room_free(void *room, size_t bytes)
{
	if (room)
		munmap(room, bytes);
}

int virtio_device_init(struct virtio_device *device, const struct virtio_device_config *config)
{
	u16 offer = config->queue_offer ? config->queue_offer : config->queue_size;
	struct reactor *reactor;
	int err;
	u16 i;

	if (config->queue_size == 0 || config->queue_size > VQ_MAX_SIZE ||
	    (config->queue_size & (config->queue_size - 1)) || offer > config->queue_size ||
	    (offer & (offer - 1)))
		return -EINVAL;
	memset(device, 0, sizeof(*device));
	device->ops = config->ops;
	device->owner = config->owner;
	device->memory = config->memory;
	device->reactors = config->reactors;
	snprintf(device->name, sizeof(device->name), "%s", config->name);
	device->offered =
		(config->features | MODERN_FEATURES | LEGACY_FEATURES) & ~config->withheld;
	device->bus_master = true;
	device->intx_file = -1;
	device->config_size = config->config_size;
	err = init_lock(device);
	if (err < 0)
		goto fail;
	err = -ENOMEM;
	device->queues = calloc(config->queue_count, sizeof(*device->queues));
	device->config = calloc(1, config->config_size + 1u);
	device->config_before = calloc(1, config->config_size + 1u);
	if (!device->queues || !device->config || !device->config_before)
		goto fail;
	for (i = 0; i < config->queue_count; i++) {
		reactor = reactors_get(config->reactors,
				       config->queue_reactor ? config->queue_reactor[i] : 0);
		err = virtio_queue_init(&device->queues[i], device, i, config->queue_size, reactor);
		if (err < 0)
			goto fail;
		device->queues[i].max_size = device->queues[i].size = offer;
		device->queue_count++;
	}
	return 0;
fail:
	log_line("%s: cannot make its queues: %s", config->name, strerror(-err));
	virtio_device_detach(device);
	virtio_device_destroy(device);
	return err;
}

void virtio_device_detach(struct virtio_device *device)
{
	u16 i;

	for (i = 0; i < device->queue_count; i++)
		reactor_event_detach(&device->queues[i].doorbell);
	if (device->ops && device->ops->detach)
		device->ops->detach(device);
	if (device->reactors)
		reactors_settle(device->reactors);
}

void virtio_device_destroy(struct virtio_device *device)
{
	u16 i;

	strict_detach(device);
	for (i = 0; i < device->queue_count; i++)
		virtio_queue_destroy(&device->queues[i]);
	device->queue_count = 0;
	free(device->queues);
	free(device->config);
	free(device->config_before);
	device->queues = NULL;
	device->config = device->config_before = NULL;
	pthread_cond_destroy(&device->idle);
	pthread_mutex_destroy(&device->lock);
}
