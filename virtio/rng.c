/*
 * Entropy device (virtio 1.3, 5.4): one queue of writable buffers, filled from getrandom(2). Queue
 * work runs on the queue's reactor.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include "virtio/rng.h"
#include "virtio/strict.h"
#include "vm/config.h"
#include "vm/ticks.h"

#define QUEUE_SIZE CONFIG_RNG_QUEUE_SIZE
/* One buffer gets no more: filling a large one (a guest may offer gigabytes) would hold up the
 * reactor, and 5.4.6 lets the device use less than the buffer. */
#define BYTES_MAX KIB(64)
#define NS	  1000000000ull

struct virtio_rng {
	struct virtio_device device;
	struct iovec iov[QUEUE_SIZE];
	/* a bucket of bytes, which fills at `rate` a second up to one second's; times that NS */
	u32 rate;
	u64 bucket, filled_at;
	struct reactor_event timer; /* a timerfd: the bucket has what a buffer waits for */
};

static void timer_fired(struct reactor_event *event)
{
	struct virtio_rng *rng = container_of(event, struct virtio_rng, timer);

	virtio_queue_schedule(&rng->device.queues[0]);
}

/* How much of a buffer of so many bytes may be filled now; 0: the timer is set. Those that would
 * take more than the bucket holds get what it holds, and none waits for longer than a second. */
static u32 allowance(struct virtio_rng *rng, u32 bytes)
{
	u64 now = clock_now_ns(), passed = now - rng->filled_at, missing;
	struct itimerspec at = { 0 };

	if (bytes > BYTES_MAX)
		bytes = BYTES_MAX;
	if (!rng->rate)
		return bytes;
	rng->filled_at = now;
	rng->bucket += (passed < NS ? passed : NS) * rng->rate;
	if (rng->bucket > rng->rate * NS)
		rng->bucket = rng->rate * NS;
	if (bytes > rng->rate)
		bytes = rng->rate;
	if (rng->bucket >= bytes * NS) {
		rng->bucket -= bytes * NS;
		return bytes;
	}
	missing = (bytes * NS - rng->bucket) / rng->rate + 1;
	at.it_value.tv_sec = (time_t)(missing / NS);
	at.it_value.tv_nsec = (long)(missing % NS);
	timerfd_settime(rng->timer.fd, 0, &at, NULL);
	return 0;
}

/* Bytes written: the kernel's generator never runs dry once seeded, and before that a blocking read
 * of it would stall the reactor for a moment at most. 0: it failed, errno says how. */
static u32 fill(const struct iovec *iov, u16 iov_count, u32 most)
{
	size_t total = 0, length;
	ssize_t got;
	u16 i;

	for (i = 0; i < iov_count && total < most; i++) {
		size_t done = 0;

		length = iov[i].iov_len;
		if (length > most - total)
			length = most - total;
		while (done < length) {
			got = getrandom((u8 *)iov[i].iov_base + done, length - done, GRND_NONBLOCK);
			if (got < 0 && errno == EAGAIN)
				got = getrandom((u8 *)iov[i].iov_base + done, length - done, 0);
			if (got < 0 && errno == EINTR)
				continue;
			if (got < 0)
				return (u32)total;
			done += (size_t)got;
			total += (size_t)got;
		}
	}
	return (u32)total;
}

static enum virtio_served rng_serve(struct virtio_queue *queue)
{
	struct virtio_rng *rng = queue->device->owner;
	struct vq_buffer buffer;
	char why[80];
	u32 most, written;

	while (virtio_queue_pop(queue, &buffer, rng->iov, QUEUE_SIZE) == 1) {
		if (!buffer.writable) {
			/* 5.4.6: there is nothing to read from a driver, and a buffer returned
			 * empty would be taken for entropy. */
			virtio_device_broken(queue->device, "a buffer for entropy is not writable");
			virtio_queue_unpop(queue, 1);
			break;
		}
		most = allowance(rng, buffer.writable_bytes);
		if (!most) {
			virtio_queue_unpop(queue, 1);
			return VIRTIO_SERVED_LATER;
		}
		written = fill(buffer.iov + buffer.readable, buffer.writable, most);
		if (!written) {
			/* 5.4.6.1: at least a byte in each, so this one stays with us. */
			snprintf(why, sizeof(why), "getrandom: %s", strerror(errno));
			virtio_device_broken(queue->device, why);
			virtio_queue_unpop(queue, 1);
			break;
		}
		virtio_queue_push(queue, buffer.head, written);
	}
	return VIRTIO_SERVED_ALL;
}

/* 5.4.6.1 */
static void rng_check(struct virtio_queue *queue, const struct vq_buffer *buffer)
{
	if (buffer->readable || !buffer->writable)
		strict_report(queue->device, queue, STRICT_RNG_BUFFER,
			      "%u bytes are readable, %u writable", buffer->readable_bytes,
			      buffer->writable_bytes);
}

static void rng_detach(struct virtio_device *device)
{
	struct virtio_rng *rng = device->owner;

	reactor_event_detach(&rng->timer);
}

static const struct virtio_device_ops rng_ops = {
	.id = VIRTIO_ID_RNG,
	.pci_class = 0xff0000, /* 4.1.2.1 leaves it open: no class fits */
	.name = "rng",
	.serve = rng_serve,
	.detach = rng_detach,
	.check = rng_check,
};

int virtio_rng_create(struct virtio_rng **out, const struct memory *memory,
		      struct reactors *reactors, u16 queue_size, u64 features, u32 rate)
{
	struct virtio_rng *rng = calloc(1, sizeof(*rng));
	const struct virtio_device_config config = {
		.ops = &rng_ops,
		.owner = rng,
		.name = "rng",
		.memory = memory,
		.reactors = reactors,
		.queue_count = 1,
		.queue_size = QUEUE_SIZE,
		.queue_offer = queue_size,
		.features = features,
	};
	int err;

	if (!rng) {
		log_line("rng: out of memory");
		return -ENOMEM;
	}
	err = virtio_device_init(&rng->device, &config);
	if (err < 0) {
		free(rng);
		return err;
	}
	rng->rate = rate;
	rng->timer = (struct reactor_event){ .fired = timer_fired, .fd = -1 };
	if (rate) {
		rng->timer.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
		err = rng->timer.fd < 0
			      ? -errno
			      : reactor_event_attach(rng->device.queues[0].reactor, &rng->timer);
	}
	if (err < 0) {
		log_line("rng: no timer for its rate: %s; allow more open files (ulimit -n)",
			 strerror(-err));
		virtio_device_detach(&rng->device);
		virtio_rng_destroy(rng);
		return err;
	}
	*out = rng;
	return 0;
}

struct virtio_device *virtio_rng_device(struct virtio_rng *rng)
{
	return &rng->device;
}

void virtio_rng_destroy(struct virtio_rng *rng)
{
	if (!rng)
		return;
	virtio_device_destroy(&rng->device);
	if (rng->timer.fd >= 0)
		close(rng->timer.fd);
	free(rng);
}
