/* What devices and queues count, for --stats and --boot-timing. Main thread. */
#ifndef VIRTIO_STATS_H
#define VIRTIO_STATS_H

#include "virtio/device.h"
#include "vm/milestones.h"
#include "vm/stats.h"
#include "vm/ticks.h"

/* All that is looked at; the caller's. */
struct stats_sources {
	const struct vcpus *vcpus; /* NULL: there are none (tests) */
	struct reactors *reactors;
	struct virtio_device *const *devices;
	u32 device_count;
	struct ticks start; /* both clocks when the machine was begun: what a tick is worth */
	u64 first_output;   /* CLOCK_MONOTONIC ns of the console's first byte; 0: none yet */
	const struct milestones *milestones; /* of start-up; the guest's are added here */
};

/* Everything, as members of an open object. The devices' locks are not held. */
void stats_put(const struct stats_sources *sources, struct json *json);

/* --stats: one JSON object of everything to the file. The devices' locks are not held. */
void stats_put_all(const struct stats_sources *sources, const struct stats *file);

/* --boot-timing: a line for each thing that the guest did first, and for now, the end. */
void stats_log_guest(const struct stats_sources *sources);

#endif
