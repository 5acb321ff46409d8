/* tsan: the block device, from doorbell to file, on both engines. The numbers of virtio 1.3, 5.2
 * are written out here, so that they are checked too; blk-queue.h lets the test see which flags an
 * operation really had. */
#include "tests/unit/driver.h"
#include <fcntl.h>
#include <linux/falloc.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include "backends/disk.h"
#include "virtio/blk-queue.h"
#include "virtio/blk.h"

#define RAM   MIB(32)
#define RINGS 0x10000ull /* 64 KiB each */
#define ARENA MIB(1)
#define IMAGE MIB(4)

enum {
	T_IN = 0,
	T_OUT = 1,
	T_FLUSH = 4,
	T_FLUSH_OUT = 5,
	T_GET_ID = 8,
	T_DISCARD = 11,
	T_ZEROES = 13
};
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2, S_NONE = 0xee };
enum {
	F_SIZE_MAX = 1,
	F_SEG_MAX = 2,
	F_RO = 5,
	F_BLK_SIZE = 6,
	F_FLUSH = 9,
	F_TOPOLOGY = 10,
	F_WCE = 11,
	F_MQ = 12,
	F_DISCARD = 13,
	F_ZEROES = 14
};
enum {
	C_CAPACITY = 0,
	C_SIZE_MAX = 8,
	C_SEG_MAX = 12,
	C_BLK_SIZE = 20,
	C_PHYSICAL = 24,
	C_MIN_IO = 26,
	C_OPT_IO = 28,
	C_WRITEBACK = 32,
	C_QUEUES = 34,
	C_DISCARD_MAX = 36,
	C_DISCARD_SEG = 40,
	C_DISCARD_ALIGN = 44,
	C_ZEROES_MAX = 48,
	C_ZEROES_SEG = 52,
	C_MAY_UNMAP = 56,
	C_END = 60
};

struct setting {
	bool epoll, readonly, direct, writethrough, can_nothing;
	u32 alignment; /* pretend that O_DIRECT wants this */
	u16 queues;
	u32 threads;
	const char *folder;
	u64 image;
};

struct fixture {
	struct driver_machine machine;
	struct disk disk;
	struct virtio_blk *blk;
	struct virtio_device *device;
	struct driver_ring rings[4];
	char path[128];
	int file;  /* the image, from outside */
	u64 arena; /* next free guest-physical byte */
	int pipe[2];
};

static struct fixture the;
static bool on_epoll; /* the engine that this round of tests uses */
static char folder[] = "/tmp/vmm-blk-XXXXXX";

/* ---- set-up ---- */

static void make(struct fixture *f, const struct setting *s)
{
	struct disk_config disk = { .readonly = s->readonly, .direct = s->direct };
	struct virtio_blk_config config = { .name = "blk0",
					    .queues = s->queues ? s->queues : 1,
					    .writethrough = s->writethrough,
					    .serial = "a serial of 20 bytes" };

	memset(f, 0, sizeof(*f));
	f->pipe[0] = f->pipe[1] = -1;
	f->arena = ARENA;
	snprintf(f->path, sizeof(f->path), "%s/image", s->folder ? s->folder : folder);
	unlink(f->path);
	f->file = open(f->path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_true(f->file >= 0);
	assert_int_equal(ftruncate(f->file, (off_t)(s->image ? s->image : IMAGE)), 0);
	disk.path = f->path;
	assert_int_equal(disk_open(&f->disk, &disk), 0);
	if (s->can_nothing)
		f->disk.can_discard = f->disk.can_zero = false;
	if (s->alignment) {
		f->disk.alignment = f->disk.logical_block = s->alignment;
		f->disk.memory_alignment = s->alignment;
	}
	driver_machine_up(&f->machine, RAM, s->threads ? s->threads : 1, on_epoll);
	assert_int_equal(disk_register(&f->disk, f->machine.reactors), 0);
	config.memory = &f->machine.memory;
	config.reactors = f->machine.reactors;
	config.disk = &f->disk;
	assert_int_equal(virtio_blk_create(&f->blk, &config), 0);
	f->device = virtio_blk_device(f->blk);
	driver_machine_go(&f->machine);
}

static void rings(struct fixture *f, u16 size)
{
	for (u16 i = 0; i < f->device->queue_count && i < ARRAY_SIZE(f->rings); i++) {
		driver_ring_init(&f->rings[i], &f->machine.memory, RINGS + i * 0x10000ull, size,
				 false);
		driver_queue(f->device, i, &f->rings[i]);
	}
}

static void begin(struct fixture *f, u64 features)
{
	assert_true(driver_negotiate(f->device, features));
	rings(f, 256);
	driver_ok(f->device);
}

/* The usual device and driver: everything offered is taken. */
static struct fixture *up(const struct setting *s)
{
	make(&the, s);
	begin(&the, (the.device->offered & 0xffffff) | BIT64(VIRTIO_RING_F_INDIRECT_DESC));
	return &the;
}

static void down(struct fixture *f)
{
	virtio_device_power_on(f->device);
	driver_machine_stop(&f->machine);
	virtio_blk_destroy(f->blk);
	driver_machine_down(&f->machine);
	disk_close(&f->disk);
	close(f->file);
	for (int i = 0; i < 2; i++)
		if (f->pipe[i] >= 0)
			close(f->pipe[i]);
}

/* From now on the disk's file is a pipe: reads last until the test writes, and come short. Nothing
 * may be in flight. */
static void become_pipe(struct fixture *f)
{
	assert_int_equal(pipe2(f->pipe, O_NONBLOCK | O_CLOEXEC), 0);
	f->disk.file = reactor_file_add(f->machine.reactors, f->pipe[0]);
	assert_true(f->disk.file >= 0);
}

static u64 config_read(struct fixture *f, u32 offset, u32 size)
{
	u64 value;

	pthread_mutex_lock(&f->device->lock);
	value = virtio_config_read(f->device, offset, size);
	pthread_mutex_unlock(&f->device->lock);
	return value;
}

static void config_write(struct fixture *f, u32 offset, u32 size, u64 value)
{
	pthread_mutex_lock(&f->device->lock);
	virtio_config_write(f->device, offset, size, value);
	pthread_mutex_unlock(&f->device->lock);
}

/* ---- requests ---- */

struct request {
	struct driver_part parts[260];
	u16 count;
	u8 *status;
	int head;
};

static void *allot(struct fixture *f, u32 length, u64 *at)
{
	u8 *p;

	*at = f->arena;
	f->arena = ALIGN_UP(f->arena + length, 4096ull);
	p = memory_at(&f->machine.memory, *at, length ? length : 1);
	assert_non_null(p);
	return p;
}

static void *part(struct fixture *f, struct request *r, u32 length, bool writable)
{
	void *p = allot(f, length, &r->parts[r->count].at);

	r->parts[r->count].length = length;
	r->parts[r->count++].writable = writable;
	return p;
}

static void header(u8 *to, u32 type, u64 sector)
{
	le32_store(to, type);
	le32_store(to + 4, 0x12345678); /* ioprio: of no consequence */
	le64_store(to + 8, sector);
}

/* As Linux frames it: header, data, status. Returns the data's place. */
static u8 *frame(struct fixture *f, struct request *r, u32 type, u64 sector, u32 length,
		 bool writable)
{
	u8 *data = NULL;

	memset(r, 0, sizeof(*r));
	header(part(f, r, 16, false), type, sector);
	if (length)
		data = part(f, r, length, writable);
	r->status = part(f, r, 1, true);
	*r->status = S_NONE;
	return data;
}

static void send(struct driver_ring *ring, struct request *r)
{
	r->head = driver_add(ring, r->parts, r->count);
	assert_true(r->head >= 0);
}

/* Sends, waits, compares. */
static void expect(struct fixture *f, struct request *r, u8 status, u32 written)
{
	u32 head, got;

	send(&f->rings[0], r);
	driver_kick(&f->rings[0]);
	driver_wait_used(&f->rings[0], &head, &got);
	assert_int_equal(head, r->head);
	assert_int_equal(*r->status, status);
	assert_int_equal(got, written);
	f->arena = ARENA;
}

static u8 simple(struct fixture *f, u32 type, u64 sector, u32 length)
{
	struct request r;
	u8 *data = frame(f, &r, type, sector, length, type == T_IN);

	if (data)
		memset(data, 0xa5, length);
	send(&f->rings[0], &r);
	driver_kick(&f->rings[0]);
	driver_wait_used(&f->rings[0], NULL, NULL);
	f->arena = ARENA;
	return *r.status;
}

static void fill(u8 *to, size_t length, u32 seed)
{
	for (size_t i = 0; i < length; i++)
		to[i] = (u8)((seed = seed * 1664525 + 1013904223) >> 24);
}

/* What queue 0 looks like, seen where it belongs: on its reactor. */
struct look {
	const struct fixture *f;
	u32 last_flags; /* of the operation of the request that finished last */
	u32 in_flight, touched, bounces;
};

static void look_run(void *arg)
{
	struct look *look = arg;
	const struct blk_queue *queue = &look->f->blk->queues[0];

	look->last_flags = queue->free ? queue->free->op.flags : UINT32_MAX;
	look->in_flight = queue->queue->in_flight;
	look->touched = queue->touched;
	look->bounces = queue->bounce_count;
}

static struct look look_at(const struct fixture *f)
{
	struct look look = { .f = f };

	reactor_call(reactors_get(f->machine.reactors, 0), look_run, &look);
	return look;
}

static u32 last_flags(const struct fixture *f)
{
	return look_at(f).last_flags;
}

static struct virtio_blk_counts counts(struct fixture *f)
{
	struct virtio_blk_counts c;

	virtio_blk_counts(f->blk, &c);
	return c;
}

static void take_stderr(int *saved, int *file)
{
	fflush(stderr);
	*saved = dup(2);
	*file = memfd_create("stderr", 0);
	dup2(*file, 2);
}

static int give_stderr(int saved, int file, const char *word)
{
	char text[4096];
	ssize_t n = pread(file, text, sizeof(text) - 1, 0);
	int lines = 0;

	dup2(saved, 2);
	close(saved);
	close(file);
	text[n > 0 ? n : 0] = '\0';
	for (const char *c = text; *c; c++)
		lines += *c == '\n';
	if (!strstr(text, word))
		fail_msg("\"%s\" lacks \"%s\"", text, word);
	return lines;
}

/* ---- the tests ---- */

static void test_read_and_write(void **state)
{
	static u8 bytes[KIB(64)], again[KIB(64)];
	struct fixture *f = up(&(struct setting){ 0 });
	struct request r;
	u8 *data;

	(void)state;
	fill(bytes, sizeof(bytes), 1);
	data = frame(f, &r, T_OUT, 100, sizeof(bytes), false);
	memcpy(data, bytes, sizeof(bytes));
	expect(f, &r, S_OK, 1);
	assert_int_equal(pread(f->file, again, sizeof(again), 100 * 512), sizeof(again));
	assert_memory_equal(bytes, again, sizeof(bytes));
	data = frame(f, &r, T_IN, 100, sizeof(bytes), true);
	memset(data, 0, sizeof(bytes));
	expect(f, &r, S_OK, sizeof(bytes) + 1);
	assert_memory_equal(bytes, data, sizeof(bytes));
	/* no data at all is nothing wrong */
	frame(f, &r, T_IN, 0, 0, true);
	expect(f, &r, S_OK, 1);
	/* the last sectors of the disk */
	frame(f, &r, T_IN, IMAGE / 512 - 8, 4096, true);
	expect(f, &r, S_OK, 4097);
	/* one request object served them all, beside the one that finds the ring empty: what is not
	 * needed costs no memory */
	for (int i = 0; i < 500; i++)
		assert_int_equal(simple(f, T_IN, (u64)i, 512), S_OK);
	assert_int_equal(look_at(f).touched, 2);
	down(f);
}

static u32 prng = 7;

static u32 draw(u32 below)
{
	prng = prng * 1664525 + 1013904223;
	return (u32)((u64)prng * below >> 32);
}

/* Cuts `total` bytes, which lie scattered in RAM, into up to `most` pieces, empty ones excluded
 * (2.7.5). Copies bytes in. */
static void cut(struct fixture *f, struct request *r, const u8 *bytes, u32 total, bool writable,
		u32 most)
{
	u32 done = 0, n;

	while (done < total) {
		n = most-- > 1 ? 1 + draw(total - done) : total - done;
		if (draw(3) == 0 && n > 20)
			n = 1 + draw(20);
		if (most == 0)
			n = total - done;
		memcpy(part(f, r, n, writable), bytes + done, n);
		done += n;
	}
}

static void gather(struct fixture *f, const struct request *r, u8 *to)
{
	for (u16 i = 0; i < r->count; i++) {
		if (!r->parts[i].writable)
			continue;
		memcpy(to, memory_at(&f->machine.memory, r->parts[i].at, r->parts[i].length),
		       r->parts[i].length);
		to += r->parts[i].length;
	}
}

/* 2.7.4.1: wherever the driver ends its buffers, the request is the same. Written, then read back.
 */
static void any_framing(const struct setting *s)
{
	static u8 bytes[16 + 32768 + 1], again[32768 + 1];
	struct fixture *f = up(s);
	struct request r;
	u32 head, written;

	for (int round = 0; round < 200; round++) {
		u32 length = (1 + draw(64)) * 512;
		u64 sector = draw((u32)(IMAGE / 512) - 64), table;

		fill(bytes, 16 + length, (u32)round);
		header(bytes, T_OUT, sector);
		memset(&r, 0, sizeof(r));
		cut(f, &r, bytes, 16 + length, false, 1 + draw(40));
		cut(f, &r, bytes, 1, true, 1);
		allot(f, 4096, &table);
		if (round & 1)
			assert_true(driver_add_indirect(&f->rings[0], table, r.parts, r.count) >=
				    0);
		else
			send(&f->rings[0], &r);
		driver_kick(&f->rings[0]);
		driver_wait_used(&f->rings[0], &head, &written);
		assert_int_equal(written, 1);
		gather(f, &r, again);
		assert_int_equal(again[0], S_OK);
		assert_int_equal(pread(f->file, again, length, (off_t)sector * 512), length);
		assert_memory_equal(again, bytes + 16, length);

		f->arena = ARENA;
		header(again, T_IN, sector);
		memset(&r, 0, sizeof(r));
		cut(f, &r, again, 16, false, 1 + draw(16));
		memset(again, S_NONE, sizeof(again));
		cut(f, &r, again, length + 1, true, 1 + draw(40));
		allot(f, 4096, &table);
		if (round & 1)
			assert_true(driver_add_indirect(&f->rings[0], table, r.parts, r.count) >=
				    0);
		else
			send(&f->rings[0], &r);
		driver_kick(&f->rings[0]);
		driver_wait_used(&f->rings[0], &head, &written);
		assert_int_equal(written, length + 1);
		gather(f, &r, again);
		assert_int_equal(again[length], S_OK);
		assert_memory_equal(again, bytes + 16, length);
		f->arena = ARENA;
	}
	down(f);
}

static void test_any_framing(void **state)
{
	(void)state;
	any_framing(&(struct setting){ 0 });
}

/* The same where hardly any buffer suits O_DIRECT: all goes through bounce buffers. */
static void test_any_framing_direct(void **state)
{
	(void)state;
	any_framing(&(struct setting){ .direct = true });
}

static void test_bad_requests(void **state)
{
	static const struct {
		u32 type;
		u64 sector;
		u32 length;
	} cases[] = {
		{ T_OUT, 0, 511 },
		{ T_OUT, 0, 513 },
		{ T_OUT, IMAGE / 512, 512 },
		{ T_OUT, IMAGE / 512 - 1, 1024 },
		{ T_OUT, IMAGE / 512 + 1, 512 },
		{ T_OUT, UINT64_MAX, 512 },
		{ T_OUT, UINT64_MAX - 1, 1024 },
		{ T_OUT, UINT64_MAX / 512, 512 },
		{ T_OUT, UINT64_MAX / 512 + 1, 512 }, /* times 512 it would be 0 */
		{ T_OUT, 1ull << 55, 512 },
		{ T_OUT, 1ull << 63, 512 },
	};
	static u8 zero[IMAGE], image[IMAGE];
	struct fixture *f = up(&(struct setting){ 0 });
	struct request r;
	u8 *data;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		data = frame(f, &r, cases[i].type, cases[i].sector, cases[i].length, false);
		memset(data, 0xff, cases[i].length);
		expect(f, &r, S_IOERR, 1);
		data = frame(f, &r, T_IN, cases[i].sector, cases[i].length, true);
		memset(data, 0x77, cases[i].length);
		expect(f, &r, S_IOERR, 0); /* nothing before the status was written */
		for (u32 n = 0; n < cases[i].length; n++)
			assert_int_equal(data[n], 0x77);
	}
	/* a header that is too short, or not there */
	for (u32 length = 0; length < 16; length++) {
		memset(&r, 0, sizeof(r));
		if (length)
			part(f, &r, length, false);
		r.status = part(f, &r, 1, true);
		*r.status = S_NONE;
		expect(f, &r, S_IOERR, 1);
	}
	assert_int_equal(pread(f->file, image, IMAGE, 0), IMAGE);
	assert_memory_equal(image, zero, IMAGE);
	assert_int_equal(driver_status_now(f->device) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
	down(f);
}

/* Every type that is not ours ends with UNSUPP: SCSI (2, 3), secure erase (14), zones (15 to 26),
 * barriers, all others. */
static void test_unknown_types(void **state)
{
	struct fixture *f = up(&(struct setting){ 0 });
	struct request r;

	(void)state;
	for (u64 type = 0; type < 64; type++) {
		if (type < 2 || type == T_FLUSH || type == T_FLUSH_OUT || type == T_GET_ID ||
		    type == T_DISCARD || type == T_ZEROES)
			continue;
		frame(f, &r, (u32)type, 0, 0, false);
		expect(f, &r, S_UNSUPP, 1);
		frame(f, &r, (u32)type, 0, 512, false);
		expect(f, &r, S_UNSUPP, 1);
		frame(f, &r, (u32)type, 0, 512, true);
		expect(f, &r, S_UNSUPP, 0);
		frame(f, &r, (u32)type | 1u << 31, 0, 512, false);
		expect(f, &r, S_UNSUPP, 1);
	}
	frame(f, &r, 1u << 31, 0, 512, true);
	expect(f, &r, S_UNSUPP, 0);
	frame(f, &r, UINT32_MAX, 0, 512, false);
	expect(f, &r, S_UNSUPP, 1);
	down(f);
}

/* No byte for the status: all that is left is to say that the device needs a reset, after which it
 * works again. */
static void test_no_status_byte(void **state)
{
	struct fixture *f = up(&(struct setting){ 0 });
	int saved, file;
	struct request r;

	(void)state;
	take_stderr(&saved, &file);
	memset(&r, 0, sizeof(r));
	header(part(f, &r, 16, false), T_OUT, 0);
	memset(part(f, &r, 512, false), 0xff, 512);
	send(&f->rings[0], &r);
	driver_kick(&f->rings[0]);
	driver_wait(driver_status_now(f->device) & VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_int_equal(give_stderr(saved, file, "no byte to write its status"), 1);
	assert_false(driver_used(&f->rings[0], NULL, NULL));
	driver_reset(f->device);
	f->arena = ARENA;
	begin(f, BIT64(F_FLUSH));
	assert_int_equal(simple(f, T_IN, 0, 512), S_OK);
	down(f);
}

static void test_identity(void **state)
{
	static const struct {
		u32 room, filled, written;
	} cases[] = { { 20, 20, 21 }, { 1, 1, 2 },     { 19, 19, 20 },
		      { 21, 20, 20 }, { 512, 20, 20 }, { 0, 0, 1 } };
	struct fixture *f = up(&(struct setting){ 0 });
	struct request r;
	u8 *data;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		data = frame(f, &r, T_GET_ID, 0, cases[i].room, true);
		if (data)
			memset(data, 0x11, cases[i].room);
		expect(f, &r, S_OK, cases[i].written);
		if (data)
			assert_memory_equal(data, "a serial of 20 bytes", cases[i].filled);
		if (cases[i].room > 20)
			assert_int_equal(data[20], 0x11);
	}
	down(f);
}

static void test_read_only(void **state)
{
	struct fixture *f = up(&(struct setting){ .readonly = true });
	struct request r;
	u8 *data;
	u8 byte = 1;

	(void)state;
	assert_true(virtio_has(f->device, F_RO));
	assert_true(virtio_has(f->device, F_FLUSH));
	assert_false(virtio_has(f->device, F_DISCARD) || virtio_has(f->device, F_ZEROES));
	data = frame(f, &r, T_OUT, 0, 512, false);
	memset(data, 0xff, 512);
	expect(f, &r, S_IOERR, 1);
	assert_int_equal(pread(f->file, &byte, 1, 0), 1);
	assert_int_equal(byte, 0);
	assert_int_equal(simple(f, T_IN, 0, 512), S_OK);
	assert_int_equal(simple(f, T_FLUSH, 0, 0), S_OK);
	assert_int_equal(simple(f, T_DISCARD, 0, 16), S_UNSUPP);
	down(f);
}

/* ---- cache modes ---- */

/* 5.2.6.2: in each combination, does a write reach stable storage before it completes? */
static void test_write_through(void **state)
{
	static const struct {
		bool user, flush, wce;
		int store; /* what the driver writes to writeback, -1: nothing */
		bool stable;
	} cases[] = {
		{ false, true, true, -1, false },  { false, true, true, 0, true },
		{ false, true, true, 1, false },   { false, true, false, -1, false },
		{ false, true, false, 0, false }, /* a field that is not negotiated */
		{ false, false, true, -1, true },  { false, false, true, 1, true },
		{ false, false, false, -1, true }, { true, true, true, -1, true },
		{ true, true, true, 1, false },	   { true, true, false, -1, true },
		{ true, true, false, 1, true },	   { true, false, false, -1, true },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct fixture *f = &the;

		make(f, &(struct setting){ .writethrough = cases[i].user });
		assert_true(f->device->offered & BIT64(F_FLUSH) &&
			    f->device->offered & BIT64(F_WCE));
		assert_int_equal(config_read(f, C_WRITEBACK, 1), !cases[i].user);
		begin(f, (cases[i].flush ? BIT64(F_FLUSH) : 0) | (cases[i].wce ? BIT64(F_WCE) : 0));
		if (cases[i].wce && !cases[i].flush)
			assert_int_equal(config_read(f, C_WRITEBACK, 1), 0);
		if (cases[i].store >= 0)
			config_write(f, C_WRITEBACK, 1, (u64)cases[i].store);
		assert_int_equal(simple(f, T_OUT, 0, 4096), S_OK);
		assert_int_equal(last_flags(f), cases[i].stable ? RWF_DSYNC : 0);
		assert_int_equal(simple(f, T_IN, 0, 4096), S_OK);
		assert_int_equal(last_flags(f), 0);
		/* all of it is forgotten in a reset */
		driver_reset(f->device);
		assert_int_equal(config_read(f, C_WRITEBACK, 1), !cases[i].user);
		begin(f, BIT64(F_FLUSH));
		assert_int_equal(simple(f, T_OUT, 0, 512), S_OK);
		assert_int_equal(last_flags(f), cases[i].user ? RWF_DSYNC : 0);
		down(f);
	}
}

/* The mode follows the field while the device runs, however wide the access. */
static void test_writeback_field(void **state)
{
	struct fixture *f = up(&(struct setting){ 0 });

	(void)state;
	for (u32 size = 1; size <= 4; size <<= 1) {
		config_write(f, C_WRITEBACK, size, 0);
		assert_int_equal(simple(f, T_OUT, 0, 512), S_OK);
		assert_int_equal(last_flags(f), RWF_DSYNC);
		config_write(f, C_WRITEBACK, size, 0x00000001);
		assert_int_equal(simple(f, T_OUT, 0, 512), S_OK);
		assert_int_equal(last_flags(f), 0);
	}
	config_write(f, C_OPT_IO, 8, 0); /* writeback is its fifth byte */
	assert_int_equal(config_read(f, C_WRITEBACK, 1), 0);
	config_write(f, C_WRITEBACK, 1, 0x80);
	assert_int_equal(config_read(f, C_WRITEBACK, 1), 1);
	/* nothing else can be written */
	for (u32 offset = 0; offset < C_END; offset++) {
		u64 before = config_read(f, offset, 1);

		if (offset == C_WRITEBACK)
			continue;
		config_write(f, offset, 1, ~before & 0xff);
		assert_int_equal(config_read(f, offset, 1), before);
	}
	config_write(f, C_WRITEBACK + 1, 2, 0);
	assert_int_equal(config_read(f, C_WRITEBACK, 1), 1);
	down(f);
}

/* A legacy driver: features through the old window, no FEATURES_OK, the ring at a page. */
static void legacy(struct fixture *f, u32 features)
{
	struct virtio_device *device = f->device;

	pthread_mutex_lock(&device->lock);
	virtio_status_write(device, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER, true);
	virtio_features_write(device, 0, features, true);
	driver_ring_init(&f->rings[0], &f->machine.memory, RINGS, device->queues[0].max_size,
			 false);
	virtio_queue_set_pfn(&device->queues[0], (u32)(RINGS / 4096));
	f->rings[0].doorbell_fd = device->queues[0].doorbell_fd;
	virtio_status_write(device,
			    VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
				    VIRTIO_CONFIG_S_DRIVER_OK,
			    true);
	pthread_mutex_unlock(&device->lock);
}

static void test_legacy_driver(void **state)
{
	static const struct {
		u32 features;
		bool stable;
	} cases[] = { { 0, true },
		      { BIT(F_FLUSH), false },
		      { BIT(F_WCE), true },
		      { BIT(F_FLUSH) | BIT(F_WCE), false } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		make(&the, &(struct setting){ 0 });
		legacy(&the, cases[i].features);
		assert_int_equal(simple(&the, T_OUT, 3, 4096), S_OK);
		assert_int_equal(last_flags(&the), cases[i].stable ? RWF_DSYNC : 0);
		assert_int_equal(simple(&the, T_FLUSH_OUT, 0, 0), S_OK);
		assert_int_equal(counts(&the).syncs, 1);
		assert_int_equal(simple(&the, T_IN, 3, 4096), S_OK);
		down(&the);
	}
}

static void test_flushes_share_a_sync(void **state)
{
	struct fixture *f = up(&(struct setting){ 0 });
	struct request r[64];
	u32 n;

	(void)state;
	assert_int_equal(simple(f, T_OUT, 0, 4096), S_OK);
	assert_int_equal(simple(f, T_FLUSH, 0, 0), S_OK);
	assert_int_equal(counts(f).syncs, 1);
	for (n = 0; n < ARRAY_SIZE(r); n++) {
		frame(f, &r[n], n & 1 ? T_FLUSH : T_FLUSH_OUT, n, 0, false);
		send(&f->rings[0], &r[n]);
	}
	driver_kick(&f->rings[0]);
	for (n = 0; n < ARRAY_SIZE(r); n++)
		driver_wait_used(&f->rings[0], NULL, NULL);
	for (n = 0; n < ARRAY_SIZE(r); n++)
		assert_int_equal(*r[n].status, S_OK);
	assert_int_equal(counts(f).flushes, 1 + ARRAY_SIZE(r));
	assert_int_equal(counts(f).syncs, 2);
	/* a flush of its own needs a sync of its own: earlier ones knew nothing of later writes */
	for (n = 0; n < 5; n++)
		assert_int_equal(simple(f, T_FLUSH, 0, 0), S_OK);
	assert_int_equal(counts(f).syncs, 7);
	down(f);
}

/* After a flush that failed on a buffered file the kernel may have dropped the data: no later flush
 * may claim that it is safe. With O_DIRECT nothing is dropped. */
static void failing_flush(bool direct, u8 later)
{
	struct fixture *f = up(&(struct setting){ 0 });
	reactor_file real = f->disk.file;
	int saved, file;

	f->disk.direct = direct;
	become_pipe(f); /* fsync of a pipe: EINVAL */
	take_stderr(&saved, &file);
	assert_int_equal(simple(f, T_FLUSH, 0, 0), S_IOERR);
	assert_int_equal(give_stderr(saved, file, "a flush failed"), 1);
	assert_int_equal(counts(f).errors, 1);
	f->disk.file = real;
	assert_int_equal(simple(f, T_FLUSH, 0, 0), later);
	driver_reset(f->device);
	begin(f, BIT64(F_FLUSH));
	assert_int_equal(simple(f, T_FLUSH, 0, 0), later);
	assert_int_equal(simple(f, T_IN, 0, 512), S_OK);
	down(f);
}

static void test_flush_failure_lasts(void **state)
{
	(void)state;
	failing_flush(false, S_IOERR);
	failing_flush(true, S_OK);
}

/* ---- discard and write zeroes ---- */

static void range(u8 *to, u64 sector, u32 sectors, u32 flags)
{
	le64_store(to, sector);
	le32_store(to + 8, sectors);
	le32_store(to + 12, flags);
}

static u8 one_range(struct fixture *f, u32 type, u64 sector, u32 sectors, u32 flags)
{
	struct request r;

	range(frame(f, &r, type, 0, 16, false), sector, sectors, flags);
	send(&f->rings[0], &r);
	driver_kick(&f->rings[0]);
	driver_wait_used(&f->rings[0], NULL, NULL);
	f->arena = ARENA;
	return *r.status;
}

static void dirty(struct fixture *f)
{
	static u8 bytes[IMAGE];

	memset(bytes, 0x5a, sizeof(bytes));
	assert_int_equal(pwrite(f->file, bytes, IMAGE, 0), IMAGE);
	assert_int_equal(fsync(f->file), 0);
}

/* Sectors [from, to) read as zero, all others as dirty() left them. */
static void assert_zero(struct fixture *f, u64 from, u64 to)
{
	static u8 bytes[IMAGE];

	assert_int_equal(pread(f->file, bytes, IMAGE, 0), IMAGE);
	for (u64 i = 0; i < IMAGE; i++)
		if (bytes[i] != (i >= from * 512 && i < to * 512 ? 0 : 0x5a))
			fail_msg("byte %llu is %#x", (unsigned long long)i, bytes[i]);
}

static s64 blocks(struct fixture *f)
{
	struct stat st;

	assert_int_equal(fsync(f->file), 0);
	assert_int_equal(fstat(f->file, &st), 0);
	return st.st_blocks;
}

static void test_discard(void **state)
{
	struct fixture *f = up(&(struct setting){ 0 });
	struct request r;
	u8 *data;
	s64 before;

	(void)state;
	if (!f->disk.can_discard) {
		down(f);
		skip();
	}
	assert_true(virtio_has(f->device, F_DISCARD));
	dirty(f);
	before = blocks(f);
	assert_int_equal(one_range(f, T_DISCARD, 1024, 2048, 0), S_OK);
	assert_true(blocks(f) <= before - 2048 + 64);
	assert_zero(f, 1024, 3072);
	/* the file keeps its size when the end goes */
	assert_int_equal(one_range(f, T_DISCARD, IMAGE / 512 - 8, 8, 0), S_OK);
	dirty(f);
	/* 5.2.6.2: unmap with DISCARD, unknown flags */
	assert_int_equal(one_range(f, T_DISCARD, 0, 8, 1), S_UNSUPP);
	assert_int_equal(one_range(f, T_DISCARD, 0, 8, 2), S_UNSUPP);
	assert_int_equal(one_range(f, T_DISCARD, 0, 8, 1u << 31), S_UNSUPP);
	/* beyond the end, wrapping around, longer than promised */
	assert_int_equal(one_range(f, T_DISCARD, IMAGE / 512, 1, 0), S_IOERR);
	assert_int_equal(one_range(f, T_DISCARD, IMAGE / 512 - 1, 2, 0), S_IOERR);
	assert_int_equal(one_range(f, T_DISCARD, UINT64_MAX, 2, 0), S_IOERR);
	assert_int_equal(one_range(f, T_DISCARD, UINT64_MAX / 512 + 1, 8, 0), S_IOERR);
	assert_int_equal(one_range(f, T_DISCARD, 0, UINT32_MAX, 0), S_IOERR);
	assert_int_equal(one_range(f, T_DISCARD, 0, 0, 0), S_OK);
	/* no range, half a range, more than promised */
	assert_int_equal(simple(f, T_DISCARD, 0, 0), S_IOERR);
	assert_int_equal(simple(f, T_DISCARD, 0, 15), S_IOERR);
	assert_int_equal(simple(f, T_DISCARD, 0, 24), S_IOERR);
	data = frame(f, &r, T_DISCARD, 0, 33 * 16, false);
	for (u32 i = 0; i < 33; i++)
		range(data + i * 16, i, 1, 0);
	expect(f, &r, S_IOERR, 1);
	/* a bad one among good ones: none is carried out */
	data = frame(f, &r, T_DISCARD, 0, 48, false);
	range(data, 0, 8, 0);
	range(data + 16, 8, 8, 0);
	range(data + 32, IMAGE / 512, 8, 0);
	expect(f, &r, S_IOERR, 1);
	assert_zero(f, 0, 0);
	/* as many as promised */
	assert_int_equal(config_read(f, C_DISCARD_SEG, 4), 32);
	data = frame(f, &r, T_DISCARD, 0, 32 * 16, false);
	for (u32 i = 0; i < 32; i++)
		range(data + i * 16, 8 * i, i == 5 ? 0 : 8, 0);
	range(data + 5 * 16, 40, 8, 0);
	expect(f, &r, S_OK, 1);
	assert_zero(f, 0, 256);
	assert_int_equal(lseek(f->file, 0, SEEK_END), IMAGE);
	down(f);
}

static void test_write_zeroes(void **state)
{
	struct fixture *f = up(&(struct setting){ 0 });
	s64 before;

	(void)state;
	if (!f->disk.can_zero) {
		down(f);
		skip();
	}
	dirty(f);
	before = blocks(f);
	/* unmap clear: it stays allocated; set: it may go, and does */
	assert_int_equal(one_range(f, T_ZEROES, 1000, 2048, 0), S_OK);
	assert_zero(f, 1000, 3048);
	assert_true(blocks(f) >= before);
	assert_true(last_flags(f) == (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE));
	assert_int_equal(one_range(f, T_ZEROES, 3048, 2048, 1), S_OK);
	assert_zero(f, 1000, 5096);
	if (config_read(f, C_MAY_UNMAP, 1))
		assert_true(blocks(f) < before);
	assert_int_equal(one_range(f, T_ZEROES, 0, 8, 2), S_UNSUPP);
	assert_int_equal(one_range(f, T_ZEROES, 0, 8, 3), S_UNSUPP);
	assert_int_equal(one_range(f, T_ZEROES, IMAGE / 512 - 7, 8, 0), S_IOERR);
	assert_int_equal(one_range(f, T_ZEROES, 0, (u32)config_read(f, C_ZEROES_MAX, 4) + 1, 0),
			 S_IOERR);
	assert_zero(f, 1000, 5096);
	assert_int_equal(counts(f).syncs, 0);
	/* write-through holds for them too */
	config_write(f, C_WRITEBACK, 1, 0);
	assert_int_equal(one_range(f, T_ZEROES, 5096, 8, 0), S_OK);
	assert_int_equal(counts(f).syncs, 1);
	assert_zero(f, 1000, 5104);
	if (f->disk.can_discard) {
		assert_int_equal(one_range(f, T_DISCARD, 5104, 8, 0), S_OK);
		assert_int_equal(counts(f).syncs, 2);
	}
	down(f);
}

static void test_ranges_not_offered(void **state)
{
	struct fixture *f = up(&(struct setting){ .can_nothing = true });

	(void)state;
	assert_false(f->device->offered & (BIT64(F_DISCARD) | BIT64(F_ZEROES)));
	for (u32 offset = C_DISCARD_MAX; offset < C_END; offset++)
		assert_int_equal(config_read(f, offset, 1), 0);
	dirty(f);
	assert_int_equal(one_range(f, T_DISCARD, 0, 8, 0), S_UNSUPP);
	assert_int_equal(one_range(f, T_ZEROES, 0, 8, 0), S_UNSUPP);
	assert_zero(f, 0, 0);
	down(f);
}

/* ---- O_DIRECT ---- */

/* More requests with unaligned buffers than there are bounce buffers, and longer ones. */
static void test_bounces(void **state)
{
	struct fixture *f = up(&(struct setting){ .direct = true });
	enum { REQUESTS = 12, LENGTH = 700 * 1024 };
	static u8 again[LENGTH];
	struct request r[REQUESTS];
	u8 *data[REQUESTS];

	(void)state;
	assert_int_equal(ftruncate(f->file, (off_t)REQUESTS * LENGTH), 0);
	f->disk.sectors = REQUESTS * LENGTH / 512;
	f->disk.size = (u64)REQUESTS * LENGTH;
	for (int round = 0; round < 2; round++) {
		for (u32 i = 0; i < REQUESTS; i++) {
			data[i] = frame(f, &r[i], round ? T_IN : T_OUT, i * (LENGTH / 512),
					LENGTH + 1, round);
			r[i].parts[1].at++;
			r[i].parts[1].length--;
			data[i]++;
			if (round)
				memset(data[i], 0, LENGTH);
			else
				fill(data[i], LENGTH, i);
			send(&f->rings[0], &r[i]);
		}
		driver_kick(&f->rings[0]);
		for (u32 i = 0; i < REQUESTS; i++)
			driver_wait_used(&f->rings[0], NULL, NULL);
		for (u32 i = 0; i < REQUESTS; i++) {
			assert_int_equal(*r[i].status, S_OK);
			fill(again, LENGTH, i);
			assert_memory_equal(data[i], again, LENGTH);
		}
		assert_int_equal(counts(f).bounced, (u32)(round + 1) * REQUESTS);
		f->arena = ARENA;
	}
	for (u32 i = 0; i < REQUESTS; i++) {
		assert_int_equal(pread(f->file, data[0], LENGTH, (off_t)i * LENGTH), LENGTH);
		fill(again, LENGTH, i);
		assert_memory_equal(data[0], again, LENGTH);
	}
	assert_int_equal(look_at(f).bounces, BLK_BOUNCES);
	/* aligned buffers take none */
	assert_int_equal(simple(f, T_IN, 0, 4096), S_OK);
	assert_int_equal(counts(f).bounced, 2 * REQUESTS);
	down(f);
}

/* blk_size says what can be done; a driver that does less gets an error and harms nothing. */
static void test_large_blocks(void **state)
{
	struct fixture *f = up(&(struct setting){ .direct = true, .alignment = 4096 });
	struct request r;
	u8 *data;

	(void)state;
	assert_int_equal(config_read(f, C_BLK_SIZE, 4), 4096);
	assert_int_equal(simple(f, T_OUT, 8, 4096), S_OK);
	assert_int_equal(simple(f, T_OUT, 1, 4096), S_IOERR);
	assert_int_equal(simple(f, T_OUT, 0, 512), S_IOERR);
	assert_int_equal(simple(f, T_IN, 0, 512), S_IOERR);
	/* buffers of 512 bytes that make up a block are bounced */
	memset(&r, 0, sizeof(r));
	header(part(f, &r, 16, false), T_IN, 8);
	data = part(f, &r, 512, true);
	for (int i = 1; i < 8; i++)
		part(f, &r, 512, true);
	r.status = part(f, &r, 1, true);
	expect(f, &r, S_OK, 4097);
	assert_int_equal(data[0], 0xa5);
	assert_int_equal(counts(f).bounced, 1);
	down(f);
}

/* ---- what the host does to us ---- */

/* A file cut short: what is gone is an error, and only what was read counts as written. */
static void test_file_cut_short(void **state)
{
	struct fixture *f = up(&(struct setting){ 0 });
	struct request r;
	int saved, file;
	u8 *data;

	(void)state;
	dirty(f);
	assert_int_equal(ftruncate(f->file, 5000), 0);
	take_stderr(&saved, &file);
	data = frame(f, &r, T_IN, 8, 8192, true);
	expect(f, &r, S_IOERR, 5000 - 4096);
	assert_int_equal(data[0], 0x5a);
	frame(f, &r, T_IN, 800, 512, true);
	expect(f, &r, S_IOERR, 0);
	assert_int_equal(give_stderr(saved, file, "cut short"), 1); /* one line, not two */
	assert_int_equal(counts(f).errors, 2);
	assert_int_equal(simple(f, T_IN, 0, 512), S_OK);
	down(f);
}

/* No room under the image: an error for the guest, one line for the user, and the machine lives. */
static void test_full_file_system(void **state)
{
	char small[160];
	struct fixture *f;
	int saved, file, failures = 0;

	(void)state;
	snprintf(small, sizeof(small), "%s/small", folder);
	mkdir(small, 0700);
	if (unshare(CLONE_NEWNS) != 0 || mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount("vmm-test", small, "tmpfs", 0, "size=1m") != 0) {
		print_message("may not mount a small tmpfs\n");
		skip();
	}
	f = up(&(struct setting){ .folder = small, .image = MIB(8) });
	take_stderr(&saved, &file);
	for (u64 i = 0; i < 8; i++)
		failures += simple(f, T_OUT, i * (MIB(1) / 512), (u32)KIB(512)) == S_IOERR;
	assert_int_equal(give_stderr(saved, file, "No space left"), 1);
	assert_in_range(failures, 5, 7);
	assert_int_equal(counts(f).errors, failures);
	assert_int_equal(simple(f, T_IN, 0, 4096), S_OK);
	assert_int_equal(simple(f, T_IN, MIB(7) / 512, 4096), S_OK); /* a hole */
	/* room again */
	if (f->disk.can_discard)
		assert_int_equal(one_range(f, T_DISCARD, 0, MIB(8) / 512, 0), S_OK);
	else
		assert_int_equal(ftruncate(f->file, 0) | ftruncate(f->file, MIB(8)), 0);
	assert_int_equal(simple(f, T_OUT, MIB(7) / 512, (u32)KIB(512)), S_OK);
	assert_int_equal(simple(f, T_FLUSH, 0, 0), S_OK);
	down(f);
	umount2(small, MNT_DETACH);
}

/* Data that comes in dribs and drabs is put together where it belongs. */
static void test_short_reads(void **state)
{
	struct fixture *f = up(&(struct setting){ 0 });
	static u8 bytes[4096];
	struct request r;
	u32 head, written;
	size_t done = 0;
	u8 *data;

	(void)state;
	become_pipe(f);
	fill(bytes, sizeof(bytes), 3);
	memset(&r, 0, sizeof(r));
	header(part(f, &r, 16, false), T_IN, 0);
	data = part(f, &r, 1000,
		    true); /* then on adjoining pages, contiguous for this test's eyes */
	r.parts[r.count++] = (struct driver_part){ r.parts[1].at + 1000, 1, true };
	r.parts[r.count++] = (struct driver_part){ r.parts[1].at + 1001, 3095, true };
	r.status = part(f, &r, 1, true);
	*r.status = S_NONE;
	send(&f->rings[0], &r);
	driver_kick(&f->rings[0]);
	while (done < sizeof(bytes)) {
		size_t n = 1 + draw(997);

		if (n > sizeof(bytes) - done)
			n = sizeof(bytes) - done;
		assert_false(driver_used(&f->rings[0], NULL, NULL));
		assert_int_equal(write(f->pipe[1], bytes + done, n), (ssize_t)n);
		done += n;
		usleep(2000);
	}
	driver_wait_used(&f->rings[0], &head, &written);
	assert_int_equal(*r.status, S_OK);
	assert_int_equal(written, 4097);
	assert_memory_equal(data, bytes, sizeof(bytes));
	down(f);
}

/* The whole ring in flight, each buffer given again as soon as it comes back: none is forgotten. */
static void test_full_ring(void **state)
{
	enum { REQUESTS = 1000 };
	struct fixture *f = up(&(struct setting){ 0 });
	struct driver_ring *ring = &f->rings[0];
	u32 sent = 0, fed = 0, used = 0;
	const u8 sector[512] = { 0 };
	struct request r;
	u64 table, until;

	(void)state;
	become_pipe(f);
	frame(f, &r, T_IN, 0, 512, true);
	allot(f, REQUESTS * 48, &table);
	for (; sent < 256; sent++)
		assert_true(driver_add_indirect(ring, table + sent * 48, r.parts, r.count) >= 0);
	driver_kick(ring);
	driver_wait(look_at(f).in_flight == 256);
	assert_int_equal(look_at(f).touched, BLK_QUEUE_SIZE);
	until = driver_ms() + DRIVER_PATIENCE_MS;
	while (used < REQUESTS) {
		if (fed < REQUESTS && write(f->pipe[1], sector, 512) == 512)
			fed++;
		while (driver_used(ring, NULL, NULL)) {
			used++;
			if (sent == REQUESTS)
				continue;
			assert_true(driver_add_indirect(ring, table + sent * 48, r.parts,
							r.count) >= 0);
			sent++;
			driver_kick(ring);
		}
		assert_true(driver_ms() < until);
	}
	down(f);
}

/* A reset with I/O in flight: not over before the I/O is, and nothing is said of it afterwards. */
static void test_reset_in_flight(void **state)
{
	struct fixture *f = up(&(struct setting){ 0 });
	reactor_file real = f->disk.file;
	struct request r;

	(void)state;
	become_pipe(f);
	frame(f, &r, T_IN, 0, 512, true);
	send(&f->rings[0], &r);
	driver_kick(&f->rings[0]);
	driver_wait(look_at(f).in_flight == 1);
	driver_status(f->device, 0, false);
	usleep(50000);
	assert_int_not_equal(driver_status_now(f->device), 0);
	assert_int_equal(write(f->pipe[1], f->path, 100), 100);
	usleep(20000);
	assert_int_not_equal(driver_status_now(f->device), 0);
	assert_int_equal(write(f->pipe[1], (u8[412]){ 0 }, 412), 412);
	driver_wait(driver_status_now(f->device) == 0);
	assert_int_equal(f->rings[0].used->idx, 0);
	f->disk.file = real;
	f->arena = ARENA;
	begin(f, BIT64(F_FLUSH));
	assert_int_equal(simple(f, T_IN, 0, 512), S_OK);
	down(f);
}

/* ---- what is offered ---- */

static void test_configuration(void **state)
{
	struct fixture *f = up(&(struct setting){ .queues = 3, .image = IMAGE + 700 });
	u32 block, physical;

	(void)state;
	assert_true(f->device->offered & BIT64(F_SIZE_MAX) &&
		    f->device->offered & BIT64(F_SEG_MAX));
	assert_true(f->device->offered & BIT64(F_BLK_SIZE) &&
		    f->device->offered & BIT64(F_TOPOLOGY));
	assert_true(f->device->offered & BIT64(F_MQ));
	assert_false(f->device->offered & BIT64(F_RO));
	assert_int_equal(f->device->offered & (BIT(0) | BIT(4) | BIT(7) | BIT(16) | BIT(17)), 0);
	assert_int_equal(config_read(f, C_CAPACITY, 8), IMAGE / 512 + 1);
	assert_true(config_read(f, C_SIZE_MAX, 4) >= MIB(1));
	assert_int_equal(config_read(f, C_SEG_MAX, 4), 254);
	block = (u32)config_read(f, C_BLK_SIZE, 4);
	assert_int_equal(block, 512);
	physical = block << config_read(f, C_PHYSICAL, 1);
	assert_int_equal(physical, f->disk.physical_block);
	assert_int_equal(config_read(f, C_PHYSICAL + 1, 1), 0);
	assert_int_equal(config_read(f, C_MIN_IO, 2) * block, f->disk.minimum_io);
	assert_int_equal(config_read(f, C_WRITEBACK, 1), 1);
	assert_int_equal(config_read(f, C_WRITEBACK + 1, 1), 0); /* 5.2.5.2: unused0 */
	assert_int_equal(config_read(f, C_MAY_UNMAP + 1, 2), 0);
	assert_int_equal(config_read(f, C_QUEUES, 2), 3);
	if (f->disk.can_discard) {
		assert_true(config_read(f, C_DISCARD_MAX, 4) >= 2048);
		assert_int_equal(config_read(f, C_DISCARD_ALIGN, 4) * 512,
				 f->disk.discard_granularity);
	}
	if (f->disk.can_zero) {
		assert_true(config_read(f, C_ZEROES_MAX, 4) >= 2048);
		assert_int_equal(config_read(f, C_ZEROES_SEG, 4), 32);
		assert_int_equal(config_read(f, C_MAY_UNMAP, 1), f->disk.can_discard);
	}
	assert_int_equal(f->device->config_size, C_END);
	down(f);
	f = up(&(struct setting){ .image = 512 });
	assert_false(f->device->offered & BIT64(F_MQ));
	assert_int_equal(config_read(f, C_CAPACITY, 8), 1);
	assert_int_equal(simple(f, T_IN, 0, 512), S_OK);
	assert_int_equal(simple(f, T_IN, 0, 1024), S_IOERR);
	down(f);
}

/* As long a request as seg_max promises, through an indirect table. */
static void test_longest_request(void **state)
{
	struct fixture *f = up(&(struct setting){ 0 });
	struct request r;
	u32 head, written;
	u64 table;

	(void)state;
	dirty(f);
	memset(&r, 0, sizeof(r));
	header(part(f, &r, 16, false), T_IN, 0);
	for (int i = 0; i < 254; i++)
		part(f, &r, 512, true);
	r.status = part(f, &r, 1, true);
	allot(f, 4096, &table);
	assert_true(driver_add_indirect(&f->rings[0], table, r.parts, r.count) >= 0);
	driver_kick(&f->rings[0]);
	driver_wait_used(&f->rings[0], &head, &written);
	assert_int_equal(*r.status, S_OK);
	assert_int_equal(written, 254 * 512 + 1);
	for (int i = 1; i <= 254; i++)
		assert_int_equal(*(u8 *)memory_at(&f->machine.memory, r.parts[i].at + 511, 1),
				 0x5a);
	down(f);
}

/* Four queues on two threads, each writing and flushing its own quarter, deep and at once. */
static void test_queues(void **state)
{
	enum { QUEUES = 4, DEPTH = 32, ROUNDS = 20, LENGTH = 4096 };
	struct fixture *f = up(&(struct setting){ .queues = QUEUES, .threads = 2 });
	static struct request r[QUEUES][DEPTH];
	static u8 expected[LENGTH], got[LENGTH];
	u64 quarter = IMAGE / 512 / QUEUES;

	(void)state;
	for (u32 round = 0; round < ROUNDS; round++) {
		f->arena = ARENA;
		for (u32 q = 0; q < QUEUES; q++) {
			for (u32 i = 0; i < DEPTH; i++) {
				u8 *data =
					frame(f, &r[q][i], i % 8 == 7 ? T_FLUSH : T_OUT,
					      q * quarter + i * 8, i % 8 == 7 ? 0 : LENGTH, false);

				if (data)
					fill(data, LENGTH, round * 1000 + q * 100 + i);
				send(&f->rings[q], &r[q][i]);
			}
		}
		for (u32 q = 0; q < QUEUES; q++)
			driver_kick(&f->rings[q]);
		for (u32 q = 0; q < QUEUES; q++) {
			for (u32 i = 0; i < DEPTH; i++)
				driver_wait_used(&f->rings[q], NULL, NULL);
			for (u32 i = 0; i < DEPTH; i++)
				assert_int_equal(*r[q][i].status, S_OK);
		}
	}
	for (u32 q = 0; q < QUEUES; q++) {
		for (u32 i = 0; i < DEPTH; i++) {
			if (i % 8 == 7)
				continue;
			fill(expected, LENGTH, (ROUNDS - 1) * 1000 + q * 100 + i);
			assert_int_equal(
				pread(f->file, got, LENGTH, (off_t)(q * quarter + i * 8) * 512),
				LENGTH);
			assert_memory_equal(expected, got, LENGTH);
		}
	}
	assert_true(counts(f).syncs <= counts(f).flushes);
	assert_int_equal(counts(f).flushes, QUEUES * ROUNDS * DEPTH / 8);
	down(f);
}

static int set_up(void **state)
{
	(void)state;
	strcpy(folder, "/tmp/vmm-blk-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_read_and_write),
		cmocka_unit_test(test_any_framing),
		cmocka_unit_test(test_any_framing_direct),
		cmocka_unit_test(test_bad_requests),
		cmocka_unit_test(test_unknown_types),
		cmocka_unit_test(test_no_status_byte),
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_read_only),
		cmocka_unit_test(test_write_through),
		cmocka_unit_test(test_writeback_field),
		cmocka_unit_test(test_legacy_driver),
		cmocka_unit_test(test_flushes_share_a_sync),
		cmocka_unit_test(test_flush_failure_lasts),
		cmocka_unit_test(test_discard),
		cmocka_unit_test(test_write_zeroes),
		cmocka_unit_test(test_ranges_not_offered),
		cmocka_unit_test(test_bounces),
		cmocka_unit_test(test_large_blocks),
		cmocka_unit_test(test_file_cut_short),
		cmocka_unit_test(test_full_file_system),
		cmocka_unit_test(test_short_reads),
		cmocka_unit_test(test_full_ring),
		cmocka_unit_test(test_reset_in_flight),
		cmocka_unit_test(test_configuration),
		cmocka_unit_test(test_longest_request),
		cmocka_unit_test(test_queues),
	};
	int failed = cmocka_run_group_tests_name("io_uring", tests, set_up, tear_down);

	on_epoll = true;
	return failed + cmocka_run_group_tests_name("epoll", tests, set_up, tear_down);
}
