/*
 * Bench guest, on the bare guest's ground (tests/bare): block requests at chosen depths from ring
 * 3, where code runs natively even on hosts whose KVM interprets ring 0. Polls the used ring, rings
 * the memory doorbell, takes no interrupts, so it measures the device model alone.
 *
 * Words of the command line: mode=randread|randwrite|read|write  qd=N  bs=BYTES  ms=N  settle=MS
 * vectors are never set. Prints READY, waits settle ms (a tracer attaches), runs, prints RESULT,
 * waits settle ms again.
 */
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include "../bare/bare.h"

#define DEPTH_MAX 256u
#define BUCKETS	  512u /* of latency, 8 to a power of two */

static const char *line;
static struct virtio_blk_outhdr headers[DEPTH_MAX];
static volatile u8 states[DEPTH_MAX];
static struct vring_desc tables[DEPTH_MAX][4] __attribute__((aligned(16)));
static u64 started[DEPTH_MAX];
static u32 histogram[BUCKETS];
static u8 *buffers;
static u32 depth, bytes;
static bool writes, sequential, indirect, event_index;
static u64 tsc_khz;
static u64 doorbell;
static u64 kicks;

static u64 now(void)
{
	u32 low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high)::"memory");
	return low | (u64)high << 32;
}

static void sleep_ms(u64 ms)
{
	u64 end = now() + ms * tsc_khz;

	while (now() < end)
		__asm__ volatile("pause");
}

/* The value behind `key` on the command line, NULL if it is not there. */
static const char *option(const char *key)
{
	for (const char *at = line; at && *at; at++) {
		u32 i = 0;

		if (at != line && at[-1] != ' ')
			continue;
		while (key[i] && at[i] == key[i])
			i++;
		if (!key[i] && at[i] == '=')
			return at + i + 1;
	}
	return NULL;
}

static u64 number(const char *key, u64 otherwise)
{
	const char *s = option(key);
	u64 n = 0;

	if (!s)
		return otherwise;
	while (*s >= '0' && *s <= '9')
		n = n * 10 + (u64)(*s++ - '0');
	return n;
}

static bool is(const char *value, const char *word)
{
	while (*word && *value == *word) {
		value++;
		word++;
	}
	return !*word && (!*value || *value == ' ');
}

/* TSC kHz by the timing leaf, or against the PIT of machines that have no leaf. */
static u64 frequency(void)
{
	u32 a = 0x40000010, b, c, d;
	u64 first, ticks;

	__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
	if (a > 100000 && a < 10000000)
		return a;
	if (number("tsc_khz", 0))
		return number("tsc_khz", 0);
	out8(0x43, 0x30);
	out8(0x40, 0xff);
	out8(0x40, 0xff);
	first = now();
	do {
		out8(0x43, 0);
		ticks = in8(0x40);
		ticks |= (u64)in8(0x40) << 8;
	} while (ticks > 0xffff - 1193 * 50);
	return (now() - first) * 1193182 / (0xffff - ticks) / 1000;
}

static u32 bucket(u64 ticks)
{
	u32 power = ticks ? 63 - (u32)__builtin_clzll(ticks) : 0;
	u32 n = power < 3 ? (u32)ticks : (power - 2) * 8 + (u32)(ticks >> (power - 3) & 7);

	return n < BUCKETS ? n : BUCKETS - 1;
}

static u64 bucket_ns(u32 n)
{
	u64 ticks = n < 8 ? n : (8ull + n % 8) << (n / 8 - 1);

	return ticks * 1000000 / tsc_khz;
}

static u64 percentile(u64 total, u32 percent)
{
	u64 seen = 0;

	for (u32 i = 0; i < BUCKETS; i++) {
		seen += histogram[i];
		if (seen * 100 >= total * percent)
			return bucket_ns(i);
	}
	return 0;
}

static void describe(struct queue *q, u32 slot)
{
	u16 flags = writes ? 0 : VRING_DESC_F_WRITE;
	struct vring_desc chain[3] = {
		{ (u64)&headers[slot], sizeof(headers[slot]), VRING_DESC_F_NEXT, 1 },
		{ (u64)(buffers + slot * bytes), bytes, (u16)(VRING_DESC_F_NEXT | flags), 2 },
		{ (u64)&states[slot], 1, VRING_DESC_F_WRITE, 0 },
	};

	headers[slot].type = writes ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN;
	if (indirect) {
		for (u32 i = 0; i < 3; i++)
			tables[slot][i] = chain[i];
		q->desc[slot] = (struct vring_desc){ (u64)tables[slot], 3 * sizeof(chain[0]),
						     VRING_DESC_F_INDIRECT, 0 };
		return;
	}
	for (u32 i = 0; i < 3; i++) {
		chain[i].next = (u16)(slot * 3 + i + 1);
		q->desc[slot * 3 + i] = chain[i];
	}
}

/* Makes available what was queued since `old`, and rings if the device wants it. */
static void publish(struct queue *q, u16 old, u16 new)
{
	bool wanted;

	__asm__ volatile("" ::: "memory");
	*(volatile u16 *)&q->avail->idx = new;
	barrier();
	if (event_index) {
		u16 event = *(volatile u16 *)&q->used->ring[q->size];

		wanted = (u16)(new - event - 1) < (u16)(new - old);
	} else {
		wanted = !(*(volatile u16 *)&q->used->flags & VRING_USED_F_NO_NOTIFY);
	}
	if (!wanted)
		return;
	kicks++;
	write16(doorbell, 0);
}

static u64 run(struct queue *q, u64 blocks, u64 ms, u64 *elapsed, u64 *errors)
{
	u64 random = 88172645463325252ull, next = 0, done = 0, start = now(),
	    end = start + ms * tsc_khz;
	u16 available = q->avail->idx, old = available;
	u32 inflight = depth;
	bool over = false;

	for (u32 i = 0; i < depth; i++) {
		headers[i].sector = (i * 7919ull % blocks) * (bytes / 512);
		started[i] = now();
		q->avail->ring[available++ % q->size] = (u16)(indirect ? i : i * 3);
	}
	*(volatile u16 *)&q->avail->ring[q->size] = 0x8000;
	publish(q, old, available);
	while (inflight) {
		u16 used = *(volatile u16 *)&q->used->idx;
		u64 t;

		if (used == q->seen) {
			__asm__ volatile("pause");
			continue;
		}
		__asm__ volatile("" ::: "memory");
		t = now();
		over = over || t >= end;
		old = available;
		for (; q->seen != used; q->seen++) {
			u32 head = q->used->ring[q->seen % q->size].id,
			    slot = indirect ? head : head / 3;

			*errors += states[slot] != VIRTIO_BLK_S_OK;
			histogram[bucket(t - started[slot])]++;
			done++;
			if (over) {
				inflight--;
				continue;
			}
			random ^= random << 13;
			random ^= random >> 7;
			random ^= random << 17;
			next = sequential ? (next + 1) % blocks : random % blocks;
			headers[slot].sector = next * (bytes / 512);
			started[slot] = t;
			q->avail->ring[available++ % q->size] = (u16)head;
		}
		/* used_event: half a ring of indices away, never reached */
		*(volatile u16 *)&q->avail->ring[q->size] = (u16)(q->seen + 0x8000);
		if (available != old)
			publish(q, old, available);
	}
	*elapsed = (now() - start) / (tsc_khz / 1000);
	return done;
}

static void bench(void)
{
	u64 features = 1ull << VIRTIO_F_VERSION_1, offered, done, elapsed, errors = 0, sum = 0;
	const char *mode = option("mode");
	struct function f;
	struct driver d = { 0 };
	struct queue *q = &d.queue[0];

	tsc_khz = frequency();
	if (!find_function(&f, VIRTIO_ID_BLOCK, 0)) {
		say("ERROR no block function\n");
		machine_end(1);
	}
	d.f = &f;
	reset(&d);
	offered = device_features(&d) &
		  (1ull << VIRTIO_RING_F_EVENT_IDX | 1ull << VIRTIO_RING_F_INDIRECT_DESC);
	features |= offered;
	/* or every write would have to be stable before it completes */
	features |= device_features(&d) & 1ull << VIRTIO_BLK_F_FLUSH;
	event_index = offered >> VIRTIO_RING_F_EVENT_IDX & 1;
	indirect = offered >> VIRTIO_RING_F_INDIRECT_DESC & 1;
	depth = (u32)number("qd", 1);
	bytes = (u32)number("bs", 4096);
	if (!depth || depth > (indirect ? DEPTH_MAX : QUEUE_SIZE / 3) || bytes % 512 ||
	    depth * bytes > 8u << 20) {
		say("ERROR qd or bs\n");
		machine_end(1);
	}
	writes = mode && (is(mode, "randwrite") || is(mode, "write"));
	sequential = mode && (is(mode, "read") || is(mode, "write"));
	buffers = allocate(depth * bytes, 4096);
	if (!start_modern(&d, &f, features, 1)) {
		say("ERROR features\n");
		machine_end(1);
	}
	for (u32 i = 0; i < depth; i++)
		describe(q, i);
	*(volatile u16 *)&q->avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
	doorbell = f.notify_mem.found ? f.bar[f.notify_mem.bar] + f.notify_mem.offset : 0;
	if (!doorbell) {
		say("ERROR no memory doorbell\n");
		machine_end(1);
	}
	say("READY\n");
	sleep_ms(number("settle", 0));
	done = run(q, read64(f.bar[f.config.bar] + f.config.offset) / (bytes / 512),
		   number("ms", 1000), &elapsed, &errors);
	for (u32 i = 0; i < BUCKETS; i++)
		sum += histogram[i];
	say("RESULT ios=%u us=%u kicks=%u errors=%u p50_ns=%u p99_ns=%u\n", done, elapsed, kicks,
	    errors, percentile(sum, 50), percentile(sum, 99));
	sleep_ms(number("settle", 0));
	machine_end(errors ? 1 : 77);
}

void guest_main(u32 start_info);

void guest_main(u32 start_info)
{
	line = start_info ? (const char *)read64(start_info + 24) : "";
	machine_init();
	enter_user(bench);
}
