/*
 * Time at the price of one instruction: the CPU's time-stamp counter, and what its ticks are worth.
 * A look costs a quarter of what clock_gettime(2) does through the vDSO; the ticks become
 * nanoseconds only when somebody asks, by the two looks at both clocks that lie between.
 *
 * Counters of CPUs may differ where the host calls them unstable: differences are to be taken for
 * what they are, signed.
 */
#ifndef VM_TICKS_H
#define VM_TICKS_H

#include <time.h>
#include "vm/types.h"

static inline u64 ticks_now(void)
{
	return __builtin_ia32_rdtsc();
}

/* CLOCK_MONOTONIC, ns. */
static inline u64 clock_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (u64)t.tv_sec * 1000000000 + (u64)t.tv_nsec;
}

/* Both clocks at one moment. */
struct ticks {
	u64 ticks, ns;
};

static inline struct ticks ticks_look(void)
{
	return (struct ticks){ ticks_now(), clock_now_ns() };
}

/* Nanoseconds a tick, by two looks; 0 if no time lies between. */
static inline double ticks_scale(const struct ticks *first, const struct ticks *last)
{
	return last->ticks > first->ticks
		       ? (double)(last->ns - first->ns) / (double)(last->ticks - first->ticks)
		       : 0;
}

#endif
