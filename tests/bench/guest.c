/*
 * Bench guest: the command line, the clock, lanes, the end. Words: mode=... of guest-blk.c and
 * guest-net.c, `nothing` (the end at once), `print` (lines on the console); ms=N of measuring;
 * settle=MS before and after; tsc_khz=N where neither CPUID nor the PIT would tell.
 */
#include "guest.h"

#define BUCKETS	    512u /* of latency, 8 to a power of two */
#define PRINT_LINES 200u

static const char *line;
static u64 tsc_khz;
static u32 histogram[BUCKETS];
static u64 samples;

/* ---- the command line ---- */

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

u64 number(const char *key, u64 otherwise)
{
	const char *s = option(key);
	u64 n = 0;

	if (!s)
		return otherwise;
	while (*s >= '0' && *s <= '9')
		n = n * 10 + (u64)(*s++ - '0');
	return n;
}

bool chosen(const char *key, const char *word)
{
	const char *value = option(key);

	if (!value)
		return false;
	while (*word && *value == *word) {
		value++;
		word++;
	}
	return !*word && (!*value || *value == ' ' || *value == '\n');
}

/* ---- the clock ---- */

u64 now(void)
{
	u32 low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high)::"memory");
	return low | (u64)high << 32;
}

u64 ticks_of_ms(u64 ms)
{
	return ms * tsc_khz;
}

u64 us_of(u64 ticks)
{
	return ticks * 1000 / tsc_khz;
}

void sleep_ms(u64 ms)
{
	u64 end = now() + ticks_of_ms(ms);

	while (now() < end)
		__asm__ volatile("pause");
}

/*
 * TSC kHz by the timing leaf, or against the PIT of machines that have no leaf. In ring 0: where
 * KVM has no hardware behind it, ring 3 sees the leaves of the machine around.
 */
static u64 frequency(void)
{
	u32 a = 0x40000010, b, c, d, looks = 0;
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
		if (ticks == 0xffff && ++looks > 1000)
			give_up("neither a timing leaf nor a PIT; give tsc_khz=");
	} while (ticks > 0xffff - 1193 * 50);
	return (now() - first) * 1193182 / (0xffff - ticks) / 1000;
}

/* ---- latencies ---- */

void histogram_add(u64 ticks)
{
	u32 power = ticks ? 63 - (u32)__builtin_clzll(ticks) : 0;
	u32 n = power < 3 ? (u32)ticks : (power - 2) * 8 + (u32)(ticks >> (power - 3) & 7);

	histogram[n < BUCKETS ? n : BUCKETS - 1]++;
	samples++;
}

static u64 bucket_ns(u32 n)
{
	u64 ticks = n < 8 ? n : (8ull + n % 8) << (n / 8 - 1);

	return ticks * 1000000 / tsc_khz;
}

u64 percentile_ns(u32 percent)
{
	u64 seen = 0;

	for (u32 i = 0; i < BUCKETS; i++) {
		seen += histogram[i];
		if (seen * 100 >= samples * percent)
			return bucket_ns(i);
	}
	return 0;
}

/* ---- lanes ---- */

void start_lanes(struct driver *d, struct function *f, u64 wanted, struct lane *lanes, u32 count)
{
	u64 ring = 1ull << VIRTIO_RING_F_EVENT_IDX | 1ull << VIRTIO_RING_F_INDIRECT_DESC;

	d->f = f;
	if (!f->notify_mem.found)
		give_up("no memory doorbell");
	reset(d);
	if (!start_modern(d, f, 1ull << VIRTIO_F_VERSION_1 | (device_features(d) & (ring | wanted)),
			  count))
		give_up("the device refuses features it offered");
	for (u32 i = 0; i < count; i++) {
		struct lane *l = &lanes[i];

		write16(common(d) + VIRTIO_PCI_COMMON_Q_SELECT, (u16)i);
		*l = (struct lane){
			.q = &d->queue[i],
			.doorbell =
				f->bar[f->notify_mem.bar] + f->notify_mem.offset +
				read16(common(d) + VIRTIO_PCI_COMMON_Q_NOFF) * f->notify_mem.extra,
			.event_index = d->features >> VIRTIO_RING_F_EVENT_IDX & 1,
		};
		*(volatile u16 *)&l->q->avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
		/* used_event: half a ring of indices away, never reached */
		*(volatile u16 *)&l->q->avail->ring[l->q->size] = 0x8000;
	}
}

void publish(struct lane *lane)
{
	struct queue *q = lane->q;
	u16 old = q->avail->idx, new = lane->available;
	bool wanted;

	if (old == new)
		return;
	__asm__ volatile("" ::: "memory");
	*(volatile u16 *)&q->avail->idx = new;
	barrier();
	if (lane->event_index) {
		u16 event = *(volatile u16 *)&q->used->ring[q->size];

		wanted = (u16)(new - event - 1) < (u16)(new - old);
	} else {
		wanted = !(*(volatile u16 *)&q->used->flags & VRING_USED_F_NO_NOTIFY);
	}
	if (!wanted)
		return;
	lane->kicks++;
	write16(lane->doorbell, q->index);
}

bool take(struct lane *lane, u32 *head, u32 *length)
{
	struct queue *q = lane->q;
	struct vring_used_elem *e;

	if (*(volatile u16 *)&q->used->idx == q->seen)
		return false;
	__asm__ volatile("" ::: "memory");
	e = &q->used->ring[q->seen++ % q->size];
	*head = e->id;
	*length = e->len;
	*(volatile u16 *)&q->avail->ring[q->size] = (u16)(q->seen + 0x8000);
	return true;
}

/* ---- the run ---- */

/* By the debug port where there is one, else by the keyboard controller's reset. */
static void end(u8 status)
{
	out8(0xf4, status);
	out8(0x64, 0xfe);
	machine_end(status);
}

void give_up(const char *why)
{
	say("ERROR %s\n", why);
	end(1);
	__builtin_unreachable();
}

void ready(void)
{
	say("READY\n");
	sleep_ms(number("settle", 0));
}

void result(u64 ops, u64 ticks, u64 kicks, u64 errors)
{
	say("#\n");
	sleep_ms(number("settle", 0));
	say("RESULT ops=%u us=%u kicks=%u errors=%u p50_ns=%u p99_ns=%u\n", ops, us_of(ticks),
	    kicks, errors, percentile_ns(50), percentile_ns(99));
	end(errors ? 1 : 77);
	__builtin_unreachable();
}

static void print_lines(void)
{
	u64 start;

	ready();
	start = now();
	for (u32 i = 0; i < PRINT_LINES; i++)
		say("[    0.000000] a line as long as those that kernels print usually are\n");
	result(PRINT_LINES, now() - start, 0, 0);
}

static void bench(void)
{
	if (chosen("mode", "print"))
		print_lines();
	if (chosen("mode", "rr") || chosen("mode", "tx") || chosen("mode", "rx"))
		bench_net();
	else
		bench_blk();
}

void guest_main(u32 start_info);

void guest_main(u32 start_info)
{
	line = start_info ? (const char *)read64(start_info + 24) : "";
	if (chosen("mode", "nothing")) {
		out8(0x3f8, '.');
		out8(0x3f8, '\n');
		end(77);
	}
	machine_init();
	tsc_khz = frequency();
	enter_user(bench);
}
