/*
 * Bench guest, on the bare guest's ground (tests/bare): what its files share. Measures the device
 * model alone from ring 3, where code runs natively even on hosts whose KVM interprets ring 0:
 * polls the used rings, rings the memory doorbells, takes no interrupts.
 */
#ifndef BENCH_GUEST_H
#define BENCH_GUEST_H

#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include "../bare/bare.h"

/* ---- guest.c ---- */

/* The number behind `key=` on the command line; `otherwise` if it is not there. */
u64 number(const char *key, u64 otherwise);
/* Is `key=word` on the command line? */
bool chosen(const char *key, const char *word);
u64 now(void);
u64 ticks_of_ms(u64 ms);
u64 us_of(u64 ticks);
void sleep_ms(u64 ms);

void histogram_add(u64 ticks);
u64 percentile_ns(u32 percent);

/* A virtqueue that is polled, with its doorbell. */
struct lane {
	struct queue *q;
	u64 doorbell;
	u64 kicks;
	u16 available; /* where the driver adds; published up to q->avail->idx */
	bool event_index;
};

/* Negotiates VERSION_1, what of `wanted` is offered, EVENT_IDX and INDIRECT_DESC; prepares `count`
 * lanes. Ends the machine if that fails. */
void start_lanes(struct driver *d, struct function *f, u64 wanted, struct lane *lanes, u32 count);
/* Tells the device what was added, if it wants to know. */
void publish(struct lane *lane);
/* Is there a used element? Then *head is its chain and *length what was written. */
bool take(struct lane *lane, u32 *head, u32 *length);
/* READY, and a while for a tracer to attach; #, a while for it to look, RESULT, the end. */
void ready(void);
void result(u64 ops, u64 ticks, u64 kicks, u64 errors) __attribute__((noreturn));
void give_up(const char *why) __attribute__((noreturn));

void bench_blk(void);
void bench_net(void);

#endif
