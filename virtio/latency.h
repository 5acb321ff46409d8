/*
 * How long requests take, from pop to push: a histogram of a queue, in ticks of the CPU's counter
 * (vm/ticks.h), with eight buckets for each power of two, so what is read from it is at most an
 * eighth too large.
 *
 * The clock is read once for a run of pops and once for a run of pushes, not for each: in a run
 * nothing happens but our own handling of the requests. So those popped in one run and pushed in
 * one took equally long, and a request costs a store, a comparison and an increment. The queue's
 * reactor writes; counts, max and first may be read by anyone (relaxed).
 */
#ifndef VIRTIO_LATENCY_H
#define VIRTIO_LATENCY_H

#include "virtio/virtqueue.h"
#include "vm/ticks.h"

#define LATENCY_BITS	44 /* longer than 2^44 ticks, an hour or two, is counted as that */
#define LATENCY_BUCKETS ((LATENCY_BITS - 2) * 8)

enum latency_run { LATENCY_NEITHER, LATENCY_POPPING, LATENCY_PUSHING };

struct latency {
	enum latency_run run;
	u32 alike, bucket; /* pushes not yet in counts, and where they go: those ... */
	u64 since;	   /* ... that were popped then */
	u64 look;	   /* the clock at the run's beginning */
	u64 first;	   /* of the first pop of all; 0: none yet */
	u64 max;
	u64 counts[LATENCY_BUCKETS];
	u64 popped[VQ_MAX_SIZE]; /* when, by head */
};

/* In ticks; all 0 if nothing was counted. Each but max is its bucket's upper end. */
struct latency_summary {
	u64 count, p50, p90, p99, max;
};

static inline u32 latency_bucket(u64 ticks)
{
	u32 shift;

	if (ticks < 8)
		return (u32)ticks;
	if (ticks >> LATENCY_BITS)
		ticks = BIT64(LATENCY_BITS) - 1;
	shift = 60 - (u32)__builtin_clzll(ticks);
	return 8 * shift + (u32)(ticks >> shift);
}

/* latency.c's: the run begins; requests popped at another time than the last one's are pushed. */
void latency_popping(struct latency *latency);
void latency_pushing(struct latency *latency, u64 popped);

static inline void latency_settle(struct latency *latency)
{
	counter_add(&latency->counts[latency->bucket], latency->alike);
	latency->alike = 0;
}

/* The next pop or push begins a run, and counts tell of the last one. */
static inline void latency_break(struct latency *latency)
{
	if (latency->alike)
		latency_settle(latency);
	latency->run = LATENCY_NEITHER;
}

static inline void latency_pop(struct latency *latency, u16 head)
{
	if (!COUNTED)
		return;
	if (latency->run != LATENCY_POPPING)
		latency_popping(latency);
	latency->popped[head] = latency->look;
}

static inline void latency_push(struct latency *latency, u16 head)
{
	u64 popped = latency->popped[head];

	if (!COUNTED)
		return;
	if (latency->run != LATENCY_PUSHING || popped != latency->since)
		latency_pushing(latency, popped);
	latency->alike++;
}

/* Any thread. */
void latency_summarize(const struct latency *latency, struct latency_summary *summary);

#endif
