/*
 * Both kinds of rings against a driver that writes anything anywhere: input bytes are that driver's
 * program. For libFuzzer: clang -g -D_GNU_SOURCE -I. -fsanitize=fuzzer,address,undefined
 * tests/fuzz/virtqueue.c virtio/virtqueue.c virtio/vq-*.c and in `make check` by
 * tests/unit/virtqueue-fuzz.c with programs of its own making.
 *
 * Held: every buffer given out lies in RAM (allocated apart, so that the address sanitizer sees the
 * edges), is no longer than promised, is not out already, and there are never more of them than the
 * size; a fault is for good.
 */
#include <errno.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <stdlib.h>
#include "virtio/virtqueue.h"

#define LOW  KIB(64)
#define HIGH KIB(8)

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

#define held_true(condition)                                                               \
	do {                                                                               \
		if (!(condition)) {                                                        \
			fprintf(stderr, "not held: %s (line %d)\n", #condition, __LINE__); \
			abort();                                                           \
		}                                                                          \
	} while (0)

struct fuzz {
	const u8 *data, *end;
	struct memory memory;
	struct virtqueue vq;
	struct vq_setup setup;
	struct iovec iov[VQ_MAX_SIZE];
	u16 held[VQ_MAX_SIZE]; /* heads out, oldest first */
	u16 held_count;
	u16 since_push; /* of those, popped since the last push: what may be unpopped */
};

static u32 take(struct fuzz *fuzz, unsigned int bytes)
{
	u32 value = 0;

	while (bytes-- && fuzz->data < fuzz->end)
		value = value << 8 | *fuzz->data++;
	return value;
}

/* An address: mostly in RAM or at an edge, else anything. */
static u64 address(struct fuzz *fuzz)
{
	u32 kind = take(fuzz, 1);
	u64 n = take(fuzz, 2);

	switch (kind % 8) {
	case 0:
		return LOW - (n & 31);
	case 1:
		return LAYOUT_RAM_HIGH + n % (HIGH + 16);
	case 2:
		return LAYOUT_RAM_HIGH - (n & 31);
	case 3:
		return UINT64_MAX - (n & 255);
	case 4:
		return n << 48 | n << 16 | n;
	default:
		return n;
	}
}

static u32 length(struct fuzz *fuzz)
{
	u32 kind = take(fuzz, 1), n = take(fuzz, 2);

	switch (kind % 8) {
	case 0:
		return UINT32_MAX - n;
	case 1:
		return n << 16;
	case 2:
		return n;
	default:
		return 16 * (n & 7); /* tables and small buffers, 0 included */
	}
}

/* Where the rings are, or would be. */
static void *ring_at(struct fuzz *fuzz, u64 area, u64 offset, u64 bytes)
{
	return memory_at(&fuzz->memory, area + offset, bytes);
}

/* ---- packed ---- */

/* What the flags are of a descriptor that the device takes next, or `ahead` of that. */
static u16 turn(const struct fuzz *fuzz, u32 ahead)
{
	u16 flags = fuzz->vq.take.flags;

	if (fuzz->vq.take.at + ahead >= fuzz->setup.size)
		flags ^= BIT(VRING_PACKED_DESC_F_AVAIL) | BIT(VRING_PACKED_DESC_F_USED);
	return flags;
}

static void put_packed(struct fuzz *fuzz, u64 at, u64 addr, u32 len, u16 id, u16 flags)
{
	struct vring_packed_desc desc = { .addr = addr, .len = len, .id = id, .flags = flags };
	void *to = memory_at(&fuzz->memory, at, sizeof(desc));

	if (to)
		memcpy(to, &desc, sizeof(desc));
}

static u64 packed_place(const struct fuzz *fuzz, u32 ahead)
{
	return fuzz->setup.descriptors + 16ull * ((fuzz->vq.take.at + ahead) % fuzz->setup.size);
}

/* Mostly one that could be meant. */
static u16 packed_id(struct fuzz *fuzz)
{
	u32 bits = take(fuzz, 2);

	return (u16)(bits & 0xf000 ? bits % fuzz->setup.size : bits);
}

static void write_packed(struct fuzz *fuzz, u64 at, u32 ahead)
{
	u64 addr = address(fuzz);
	u32 len = length(fuzz), bits = take(fuzz, 2);

	put_packed(fuzz, at, addr, len, packed_id(fuzz),
		   (u16)(bits & 0x3000 ? (bits & 15) | turn(fuzz, ahead) : bits));
}

/* A sound chain, readable ones first, in the ring or in a table. */
static void packed_chain(struct fuzz *fuzz, u64 table, u32 parts)
{
	u32 readable = take(fuzz, 1) % (parts + 1), bytes = take(fuzz, 1);
	u16 id = packed_id(fuzz), flags;

	for (u32 i = 0; i < parts; i++) {
		flags = i >= readable ? VRING_DESC_F_WRITE : 0;
		if (!table)
			flags |= (u16)(turn(fuzz, i) | (i + 1 < parts ? VRING_DESC_F_NEXT : 0));
		put_packed(fuzz, table ? table + 16ull * i : packed_place(fuzz, i), 0x8000 + 64 * i,
			   bytes, id, flags);
	}
}

static void packed_indirect(struct fuzz *fuzz)
{
	u32 parts = 1 + take(fuzz, 1) % 80, said = take(fuzz, 1) & 3 ? parts : take(fuzz, 1);
	/* sometimes so that the table ends where RAM does, and the sanitizer watches */
	u64 table = take(fuzz, 1) & 1 ? LOW - 16ull * said : 0x4000;

	packed_chain(fuzz, table, parts);
	put_packed(fuzz, packed_place(fuzz, 0), table, 16 * said, packed_id(fuzz),
		   (u16)(turn(fuzz, 0) | VRING_DESC_F_INDIRECT));
}

/* ---- split ---- */

static void write_descriptor(struct fuzz *fuzz, u64 at)
{
	struct vring_desc desc = { .addr = address(fuzz), .len = length(fuzz) };
	u32 bits = take(fuzz, 2);
	void *to = memory_at(&fuzz->memory, at, sizeof(desc));

	desc.flags = bits & 15; /* NEXT, WRITE, INDIRECT, and one that means nothing */
	desc.next = (u16)(bits & 0x1000 ? bits : bits >> 4 & (fuzz->setup.size - 1u));
	if (to)
		memcpy(to, &desc, sizeof(desc));
}

/* The next head, and the index that shows it. */
static void show(struct fuzz *fuzz, u16 head)
{
	const struct vq_setup *setup = &fuzz->setup;
	u64 place = fuzz->vq.next_available & (setup->size - 1u);

	le16_store(ring_at(fuzz, setup->driver, 4 + 2 * place, 2), head);
	le16_store(ring_at(fuzz, setup->driver, 2, 2), (u16)(fuzz->vq.next_available + 1));
}

/* A sound chain of many parts from entry 0 of a table on, readable ones first; a later step may
 * spoil it. */
static void write_chain(struct fuzz *fuzz, u64 table, u32 parts)
{
	u32 readable = take(fuzz, 1) % (parts + 1), bytes = take(fuzz, 1);
	struct vring_desc desc;
	void *to;

	for (u32 i = 0; i < parts; i++) {
		desc = (struct vring_desc){ .addr = 0x8000 + 64 * i, .len = bytes };
		desc.flags = (u16)((i >= readable ? VRING_DESC_F_WRITE : 0) |
				   (i + 1 < parts ? VRING_DESC_F_NEXT : 0));
		desc.next = (u16)(i + 1);
		to = memory_at(&fuzz->memory, table + 16ull * i, sizeof(desc));
		if (to)
			memcpy(to, &desc, sizeof(desc));
	}
}

static void sound_direct(struct fuzz *fuzz)
{
	write_chain(fuzz, fuzz->setup.descriptors, 1 + take(fuzz, 1) % fuzz->setup.size);
	show(fuzz, 0);
}

static void sound_indirect(struct fuzz *fuzz)
{
	u32 parts = 1 + take(fuzz, 1) % 80, said = take(fuzz, 1) & 3 ? parts : take(fuzz, 1);
	struct vring_desc refer = { .addr = 0x4000,
				    .len = 16 * said,
				    .flags = VRING_DESC_F_INDIRECT };
	u16 head = (u16)(take(fuzz, 1) % fuzz->setup.size);

	/* sometimes so that the table ends where RAM does, and the sanitizer watches */
	if (take(fuzz, 1) & 1)
		refer.addr = LOW - refer.len;
	write_chain(fuzz, refer.addr, parts);
	memcpy(ring_at(fuzz, fuzz->setup.descriptors, 16ull * head, 16), &refer, sizeof(refer));
	show(fuzz, head);
}

static void check_buffer(struct fuzz *fuzz, const struct vq_buffer *buffer, u16 room)
{
	u32 parts = (u32)buffer->readable + buffer->writable;
	u64 readable = 0, writable = 0;
	volatile u8 *bytes;

	held_true(parts <= room && parts <= fuzz->vq.chain_max);
	held_true(buffer->head < fuzz->setup.size);
	for (u16 i = 0; i < fuzz->held_count; i++)
		held_true(fuzz->held[i] != buffer->head);
	held_true(fuzz->held_count < fuzz->setup.size);
	for (u32 i = 0; i < parts; i++) {
		bytes = buffer->iov[i].iov_base;
		held_true(buffer->iov[i].iov_len > 0);
		/* both ends, as the sanitizer sees them; a written one may be the ring itself */
		if (i < buffer->readable) {
			readable += buffer->iov[i].iov_len;
			(void)bytes[0];
			(void)bytes[buffer->iov[i].iov_len - 1];
		} else {
			writable += buffer->iov[i].iov_len;
			bytes[0] = 0xff;
			bytes[buffer->iov[i].iov_len - 1] = 0xff;
		}
	}
	held_true(readable == buffer->readable_bytes && writable == buffer->writable_bytes);
}

static void pop(struct fuzz *fuzz)
{
	u16 room = (u16)(take(fuzz, 1) & 7 ? VQ_MAX_SIZE : 3);
	struct vq_buffer buffer;
	int got = vq_pop(&fuzz->vq, &buffer, fuzz->iov, room);

	held_true(got == 0 || got == 1 || got == -EPROTO);
	held_true((got == -EPROTO) == (fuzz->vq.fault != NULL));
	if (got < 0)
		held_true(vq_pop(&fuzz->vq, &buffer, fuzz->iov, room) == -EPROTO);
	if (got != 1)
		return;
	check_buffer(fuzz, &buffer, room);
	fuzz->held[fuzz->held_count++] = buffer.head;
	fuzz->since_push++;
}

static void push(struct fuzz *fuzz)
{
	u16 which;

	if (!fuzz->held_count)
		return;
	which = (u16)(take(fuzz, 1) % fuzz->held_count);
	vq_push(&fuzz->vq, fuzz->held[which], take(fuzz, 1));
	memmove(&fuzz->held[which], &fuzz->held[which + 1],
		sizeof(fuzz->held[0]) * (u16)(fuzz->held_count - which - 1));
	fuzz->held_count--;
	fuzz->since_push = 0;
}

static void unpop(struct fuzz *fuzz)
{
	u16 count = (u16)(take(fuzz, 1) % (fuzz->since_push + 1u));

	vq_unpop(&fuzz->vq, count);
	fuzz->held_count = (u16)(fuzz->held_count - count);
	fuzz->since_push = (u16)(fuzz->since_push - count);
}

/* What the driver writes. */
static void write_split(struct fuzz *fuzz, u32 op)
{
	const struct vq_setup *setup = &fuzz->setup;
	u8 *to;

	switch (op % 20) {
	case 3: /* somewhere: tables */
		write_descriptor(fuzz, take(fuzz, 2));
		break;
	case 4:
	case 5:
		show(fuzz, (u16)(op & 0x80 ? take(fuzz, 2) : take(fuzz, 2) % setup->size));
		break;
	case 6:
		to = ring_at(fuzz, setup->driver, 2, 2);
		le16_store(to,
			   (u16)(op & 0x80 ? take(fuzz, 2) : le16_load(to) + take(fuzz, 1) % 4));
		break;
	case 16:
	case 17:
		sound_direct(fuzz);
		break;
	case 18:
	case 19:
		sound_indirect(fuzz);
		break;
	default:
		write_descriptor(fuzz, setup->descriptors + 16ull * (take(fuzz, 2) % setup->size));
	}
}

static void write_ring_packed(struct fuzz *fuzz, u32 op)
{
	u32 ahead;

	switch (op % 20) {
	case 3:
		write_packed(fuzz, take(fuzz, 2), 0);
		break;
	case 6: /* the driver's events */
		le32_store(ring_at(fuzz, fuzz->setup.driver, 0, 4), take(fuzz, 4));
		break;
	case 16:
	case 17:
		packed_chain(fuzz, 0, 1 + take(fuzz, 1) % fuzz->setup.size);
		break;
	case 18:
	case 19:
		packed_indirect(fuzz);
		break;
	default:
		ahead = op & 0x80 ? 0 : take(fuzz, 1) % fuzz->setup.size;
		write_packed(fuzz, packed_place(fuzz, ahead), ahead);
	}
}

static void step(struct fuzz *fuzz)
{
	u32 op = take(fuzz, 1);
	u8 *to;

	switch (op % 20) {
	case 7: /* flags, indices, events, used elements: any word of RAM */
		to = memory_at(&fuzz->memory, take(fuzz, 2) & ~1u, 2);
		if (to)
			le16_store(to, (u16)take(fuzz, 2));
		break;
	case 8:
	case 9:
	case 10:
		pop(fuzz);
		break;
	case 11:
	case 12:
		push(fuzz);
		break;
	case 13:
		vq_publish(&fuzz->vq);
		held_true(fuzz->vq.published == fuzz->vq.next_used);
		break;
	case 14:
		if (op & 0x80)
			vq_mute(&fuzz->vq);
		else
			vq_unmute(&fuzz->vq);
		break;
	case 15:
		unpop(fuzz);
		break;
	default:
		if (fuzz->setup.packed)
			write_ring_packed(fuzz, op);
		else
			write_split(fuzz, op);
	}
}

/* The driver resets and goes on: memory keeps what it wrote, but for the index. */
static bool begin(struct fuzz *fuzz)
{
	if (vq_start(&fuzz->vq, fuzz->setup.packed ? &vq_packed : &vq_split, &fuzz->setup) < 0)
		return false;
	fuzz->held_count = fuzz->since_push = 0;
	if (!fuzz->setup.packed)
		le16_store(ring_at(fuzz, fuzz->setup.driver, 2, 2), 0);
	return true;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static struct fuzz fuzz;
	u32 how;

	memset(&fuzz, 0, sizeof(fuzz));
	fuzz.data = data;
	fuzz.end = data + size;
	fuzz.memory = (struct memory){ .low = calloc(1, LOW),
				       .low_size = LOW,
				       .high = calloc(1, HIGH),
				       .high_size = HIGH,
				       .fd = -1 };
	if (!fuzz.memory.low || !fuzz.memory.high)
		abort();
	how = take(&fuzz, 2);
	fuzz.setup = (struct vq_setup){
		.memory = &fuzz.memory,
		.size = (u16)(how & 0xf000 ? 1u << (how & 15) % 7 : take(&fuzz, 2)),
		.chain_max = how & 16 ? 64 : 0,
		.event_idx = how & 32,
		.indirect = how & 64,
		.notify_on_empty = how & 128,
		.packed = take(&fuzz, 1) & 1,
		.descriptors = 0x1000,
		.driver = 0x2000,
		.device = 0x3000,
	};
	if (fuzz.setup.packed && how & 0xf000) /* any size goes */
		fuzz.setup.size = 1 + (how & 63);
	if ((how & 0xf00) == 0xf00) { /* areas anywhere, over each other too */
		fuzz.setup.descriptors = address(&fuzz);
		fuzz.setup.driver = address(&fuzz);
		fuzz.setup.device = address(&fuzz);
	}
	while (fuzz.data < fuzz.end && begin(&fuzz))
		while (fuzz.data < fuzz.end && !fuzz.vq.fault)
			step(&fuzz);
	held_true(fuzz.data == fuzz.end || fuzz.vq.fault);
	free(fuzz.memory.low);
	free(fuzz.memory.high);
	return 0;
}
