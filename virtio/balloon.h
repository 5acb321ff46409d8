/*
 * Memory balloon (virtio 1.3, 5.5): a guest gives pages up and may take them back, within the
 * target that the host sets; what it gives up, and free pages that it reports, goes back to the
 * host at once. Pages that are not the guest's to name are left alone, and counted.
 *
 * The host's kernel does that giving back beside the reactor (REACTOR_MADVISE), an address range at
 * a time, so that no other queue waits for it. Runs of pages go together. Memory may lie in
 * transparent huge pages: where all of one is in the balloon it goes once more, as a whole, so that
 * nothing of it stays or comes back (khugepaged fills holes). That takes a driver that tells us
 * before it uses a page again (MUST_TELL_HOST); from others each page goes once.
 */
#ifndef VIRTIO_BALLOON_H
#define VIRTIO_BALLOON_H

#include "virtio/device.h"

struct virtio_balloon;

struct virtio_balloon_options {
	const struct memory *memory; /* from a pool of huge pages: nothing is given back */
	struct reactors *reactors;
	u32 reactor;	/* number of the one that serves all queues */
	u16 queue_size; /* offered; 0: as large as can be */
	u64 features;	/* of VIRTIO_OPTIONAL, those offered */
	u64 target;	/* bytes that the guest shall give up, at first */
	bool reporting; /* free page reporting is offered */
};

/* Before reactors_start(). 0 or -errno (logged). Main thread. */
int virtio_balloon_create(struct virtio_balloon **balloon,
			  const struct virtio_balloon_options *options);
struct virtio_device *virtio_balloon_device(struct virtio_balloon *balloon);
void virtio_balloon_destroy(struct virtio_balloon *balloon);

/* What the guest shall give up, in bytes, of which whole pages count. Any thread, the device's lock
 * not held. */
void virtio_balloon_resize(struct virtio_balloon *balloon, u64 bytes);

/* Asks the driver for its statistics anew (5.5.6.3): their number, for virtio_balloon_put(); 0:
 * there is no driver, or it has none. The reactors run. Main thread. */
u64 virtio_balloon_ask(struct virtio_balloon *balloon);

/* Members of an open object: "target" and "actual", which the driver says, in bytes; and
 * "statistics" by name, if the driver has told those of this number, or later ones. True if it has.
 * The reactors run. Main thread. */
bool virtio_balloon_put(struct virtio_balloon *balloon, u64 number, struct json *json);

#endif
