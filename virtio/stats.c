/* What devices and queues count: see stats.h; docs/stats.md has the schema. */
#include <stdio.h>
#include "virtio/stats.h"
#include "virtio/strict.h"
#include "vm/json.h"

static u64 get(const u64 *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static void put_us(struct json *json, const char *key, u64 ticks, double scale)
{
	json_thousandths(json, key, (u64)((double)ticks * scale + 0.5)); /* ns */
}

static void put_latency(const struct latency *latency, double scale, struct json *json)
{
	struct latency_summary summary;

	latency_summarize(latency, &summary);
	json_begin_object(json, "latency_us");
	json_number(json, "count", summary.count);
	put_us(json, "p50", summary.p50, scale);
	put_us(json, "p90", summary.p90, scale);
	put_us(json, "p99", summary.p99, scale);
	put_us(json, "max", summary.max, scale);
	json_end(json);
}

static void put_queue(const struct virtio_queue *queue, double scale, struct json *json)
{
	const struct virtio_queue_counts *counts = &queue->counts;

	json_begin_object(json, NULL);
	json_number(json, "queue", queue->index);
	json_number(json, "kicks", get(&counts->kicks));
	json_number(json, "batches", get(&counts->batches));
	json_number(json, "buffers", get(&counts->buffers));
	json_number(json, "bytes_read", get(&counts->bytes_read));
	json_number(json, "bytes_written", get(&counts->bytes_written));
	json_number(json, "interrupts", get(&counts->interrupts));
	json_number(json, "interrupts_suppressed", get(&counts->interrupts_suppressed));
	if (!queue->untimed)
		put_latency(&queue->latency, scale, json);
	json_end(json);
}

static void put_device(struct virtio_device *device, double scale, struct json *json)
{
	bool ran, legacy;
	u64 features;
	u8 status;

	pthread_mutex_lock(&device->lock);
	ran = device->driver_ok != 0;
	legacy = device->ran_legacy;
	features = device->ran_features;
	status = device->status;
	pthread_mutex_unlock(&device->lock);

	json_begin_object(json, NULL);
	json_text(json, "name", device->name);
	json_text(json, "type", device->ops->name);
	json_text(json, "layout", ran ? legacy ? "legacy" : "modern" : NULL);
	json_hex(json, "features", features);
	json_hex(json, "status", status);
	strict_stats(device, json);
	if (device->ops->stats)
		device->ops->stats(device, json);
	json_begin_array(json, "queues");
	for (u16 i = 0; i < device->queue_count; i++)
		put_queue(&device->queues[i], scale, json);
	json_end(json);
	json_end(json);
}

static double scale_of(const struct stats_sources *sources)
{
	const struct ticks now = ticks_look();

	return ticks_scale(&sources->start, &now);
}

/* CLOCK_MONOTONIC at a tick of this machine's life; 0 stays 0. */
static u64 ns_at(const struct stats_sources *sources, u64 ticks, double scale)
{
	s64 delta = (s64)(ticks - sources->start.ticks);

	return ticks ? sources->start.ns + (u64)(s64)((double)delta * scale) : 0;
}

/* The first pop of any of its queues; 0: none yet. */
static u64 first_pop(const struct virtio_device *device)
{
	u64 first = 0;

	for (u16 i = 0; i < device->queue_count; i++) {
		u64 ticks = get(&device->queues[i].latency.first);

		if (ticks && (!first || ticks < first))
			first = ticks;
	}
	return first;
}

/* Those of start-up, then what the guest did first. */
static void collect(const struct stats_sources *sources, struct milestones *all)
{
	double scale = scale_of(sources);
	char what[48];

	*all = *sources->milestones;
	milestones_add(all, "console: first byte", sources->first_output);
	for (u32 i = 0; i < sources->device_count; i++) {
		struct virtio_device *device = sources->devices[i];
		u64 driver_ok;

		pthread_mutex_lock(&device->lock);
		driver_ok = device->first_driver_ok;
		pthread_mutex_unlock(&device->lock);
		snprintf(what, sizeof(what), "%s: driver ready", device->name);
		milestones_add(all, what, ns_at(sources, driver_ok, scale));
		if (device->ops->id != VIRTIO_ID_BLOCK)
			continue;
		snprintf(what, sizeof(what), "%s: first request", device->name);
		milestones_add(all, what, ns_at(sources, first_pop(device), scale));
	}
}

void stats_put(const struct stats_sources *sources, struct json *json)
{
	double scale = scale_of(sources);
	struct milestones all;

	collect(sources, &all);
	json_thousandths(json, "elapsed_ms", (clock_now_ns() - all.start) / 1000);
	if (sources->vcpus)
		stats_put_vcpus(sources->vcpus, json);
	stats_put_reactors(sources->reactors, json);
	json_begin_array(json, "devices");
	for (u32 i = 0; i < sources->device_count; i++)
		put_device(sources->devices[i], scale, json);
	json_end(json);
	json_begin_object(json, "milestones_ms");
	milestones_put(&all, json);
	json_end(json);
}

void stats_put_all(const struct stats_sources *sources, const struct stats *file)
{
	struct json json = { .line = file->terminal ? "\r\n" : NULL };

	json_begin_object(&json, NULL);
	stats_put(sources, &json);
	json_end(&json);
	stats_write(file, &json);
}

void stats_log_guest(const struct stats_sources *sources)
{
	struct milestones all;

	collect(sources, &all);
	milestones_mark(&all, "end");
	milestones_log(&all, sources->milestones->count);
}
