/*
 * Bench guest: block requests at chosen depths. Words: mode=randread|randwrite|read|write, qd=N
 * requests in flight over all lanes, bs=BYTES, queues=N lanes on one disk, disks=N disks of one
 * lane each.
 */
#include <linux/virtio_blk.h>
#include "guest.h"

#define LANES_MAX 16u
#define DEPTH_MAX 256u
#define BYTES_MAX (16u << 20)

/* What is in flight: slot i of a lane uses descriptor i (indirect) or 3i. */
struct request {
	struct virtio_blk_outhdr header;
	struct vring_desc table[3] __attribute__((aligned(16)));
	u8 *buffer;
	u64 started;
	volatile u8 status;
};

static struct function functions[LANES_MAX];
static struct driver drivers[LANES_MAX];
static struct lane lanes[LANES_MAX];
static struct request *requests[LANES_MAX];
static u32 lane_count, depth /* of a lane */, bytes;
static bool writes, sequential, indirect;
static u64 blocks, next, randomness = 88172645463325252ull;

static void describe(struct lane *lane, struct request *r, u32 slot)
{
	u16 flags = writes ? 0 : VRING_DESC_F_WRITE;
	struct vring_desc chain[3] = {
		{ (u64)&r->header, sizeof(r->header), VRING_DESC_F_NEXT, 1 },
		{ (u64)r->buffer, bytes, (u16)(VRING_DESC_F_NEXT | flags), 2 },
		{ (u64)&r->status, 1, VRING_DESC_F_WRITE, 0 },
	};

	r->header.type = writes ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN;
	if (indirect) {
		for (u32 i = 0; i < 3; i++)
			r->table[i] = chain[i];
		lane->q->desc[slot] = (struct vring_desc){ (u64)r->table, sizeof(chain),
							   VRING_DESC_F_INDIRECT, 0 };
		return;
	}
	for (u32 i = 0; i < 3; i++) {
		chain[i].next = (u16)(slot * 3 + i + 1);
		lane->q->desc[slot * 3 + i] = chain[i];
	}
}

static void add(struct lane *lane, struct request *r, u32 head, u64 t)
{
	randomness ^= randomness << 13;
	randomness ^= randomness >> 7;
	randomness ^= randomness << 17;
	next = sequential ? (next + 1) % blocks : randomness % blocks;
	r->header.sector = next * (bytes / 512);
	r->started = t;
	lane->q->avail->ring[lane->available++ % lane->q->size] = (u16)head;
}

/* One look at a lane: what is done is counted and, unless it is over, asked for anew. */
static u32 serve(u32 n, bool over, u64 *errors)
{
	struct lane *lane = &lanes[n];
	u32 head, length, done = 0;
	u64 t = 0;

	while (take(lane, &head, &length)) {
		u32 slot = indirect ? head : head / 3;
		struct request *r = &requests[n][slot];

		if (slot >= depth)
			give_up("the device used a chain that was never there");
		if (!t)
			t = now();
		*errors += r->status != VIRTIO_BLK_S_OK;
		histogram_add(t - r->started);
		done++;
		if (!over)
			add(lane, r, head, t);
	}
	publish(lane);
	return done;
}

static void start_disks(void)
{
	u32 disks = (u32)number("disks", 1), queues = (u32)number("queues", 1);
	u64 wanted = 1ull << VIRTIO_BLK_F_FLUSH; /* or every write would have to be stable first */

	lane_count = disks * queues;
	if (!lane_count || lane_count > LANES_MAX || queues > ARRAY_SIZE(drivers[0].queue))
		give_up("disks or queues");
	if (queues > 1)
		wanted |= 1ull << VIRTIO_BLK_F_MQ;
	for (u32 i = 0; i < disks; i++) {
		if (!find_function(&functions[i], VIRTIO_ID_BLOCK, i))
			give_up("fewer disks than asked for");
		start_lanes(&drivers[i], &functions[i], wanted, &lanes[i * queues], queues);
	}
	indirect = drivers[0].features >> VIRTIO_RING_F_INDIRECT_DESC & 1;
}

void bench_blk(void)
{
	u64 start, end, done = 0, errors = 0, kicks = 0;
	u32 inflight;

	start_disks();
	writes = chosen("mode", "randwrite") || chosen("mode", "write");
	sequential = chosen("mode", "read") || chosen("mode", "write");
	depth = (u32)number("qd", 1) / lane_count;
	bytes = (u32)number("bs", 4096);
	if (!depth || depth > (indirect ? DEPTH_MAX : QUEUE_SIZE / 3) || !bytes || bytes % 512 ||
	    depth * lane_count * bytes > BYTES_MAX)
		give_up("qd or bs");
	blocks = read64(functions[0].bar[functions[0].config.bar] + functions[0].config.offset) /
		 (bytes / 512);
	for (u32 n = 0; n < lane_count; n++) {
		requests[n] = allocate(depth * sizeof(struct request), 64);
		for (u32 i = 0; i < depth; i++) {
			requests[n][i].buffer = allocate(bytes, 4096);
			describe(&lanes[n], &requests[n][i], i);
		}
	}
	ready();
	start = now();
	end = start + ticks_of_ms(number("ms", 1000));
	for (u32 n = 0; n < lane_count; n++) {
		for (u32 i = 0; i < depth; i++)
			add(&lanes[n], &requests[n][i], indirect ? i : i * 3, now());
		publish(&lanes[n]);
	}
	for (inflight = depth * lane_count; inflight;) {
		bool over = now() >= end;

		for (u32 n = 0; n < lane_count; n++) {
			u32 count = serve(n, over, &errors);

			done += count;
			if (over)
				inflight -= count;
		}
		__asm__ volatile("pause");
	}
	end = now();
	for (u32 n = 0; n < lane_count; n++)
		kicks += lanes[n].kicks;
	result(done, end - start, kicks, errors);
}
