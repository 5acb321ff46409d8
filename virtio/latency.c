/* A queue's histogram of latencies: what happens once a run, and its reading. See latency.h. */
#include "virtio/latency.h"

void latency_popping(struct latency *latency)
{
	latency_break(latency);
	latency->run = LATENCY_POPPING;
	latency->look = ticks_now();
	if (!latency->first)
		__atomic_store_n(&latency->first, latency->look, __ATOMIC_RELAXED);
}

void latency_pushing(struct latency *latency, u64 popped)
{
	u64 ticks;

	latency_settle(latency);
	if (latency->run != LATENCY_PUSHING) {
		latency->run = LATENCY_PUSHING;
		latency->look = ticks_now();
	}
	ticks = latency->look - popped;
	if ((s64)ticks < 0) /* another CPU's counter, a little behind */
		ticks = 0;
	latency->since = popped;
	latency->bucket = latency_bucket(ticks);
	if (ticks > latency->max)
		__atomic_store_n(&latency->max, ticks, __ATOMIC_RELAXED);
}

/* The largest number of ticks that bucket counts. */
static u64 upper_end(u32 bucket)
{
	u32 shift;

	if (bucket < 8)
		return bucket;
	shift = bucket / 8 - 1;
	return ((bucket % 8 + 9ull) << shift) - 1;
}

/* Of `count` in order, the one that `percent` of them do not exceed. */
static u64 percentile(const u64 *counts, u64 count, u32 percent, u64 max)
{
	u64 rank = count / 100 * percent + (count % 100 * percent + 99) / 100, seen = 0;
	u32 bucket = 0;

	for (; bucket < LATENCY_BUCKETS; bucket++) {
		seen += counts[bucket];
		if (seen >= rank)
			break;
	}
	return upper_end(bucket) < max ? upper_end(bucket) : max;
}

void latency_summarize(const struct latency *latency, struct latency_summary *summary)
{
	/* a copy, since the reactor goes on counting */
	u64 counts[LATENCY_BUCKETS], count = 0;

	for (u32 i = 0; i < LATENCY_BUCKETS; i++) {
		counts[i] = __atomic_load_n(&latency->counts[i], __ATOMIC_RELAXED);
		count += counts[i];
	}
	*summary = (struct latency_summary){ .count = count };
	if (!count)
		return;
	summary->max = __atomic_load_n(&latency->max, __ATOMIC_RELAXED);
	summary->p50 = percentile(counts, count, 50, summary->max);
	summary->p90 = percentile(counts, count, 90, summary->max);
	summary->p99 = percentile(counts, count, 99, summary->max);
}
