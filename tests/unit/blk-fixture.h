/*
 * The block device on a real file with a driver of our own, for the tests of virtio/blk*.c. The
 * numbers of virtio 1.3, 5.2 are written out here, so that they are checked too; blk-queue.h lets a
 * test see what an operation really asked of the reactor.
 */
#ifndef TESTS_UNIT_BLK_FIXTURE_H
#define TESTS_UNIT_BLK_FIXTURE_H

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
	bool epoll, readonly, direct, snapshot, writethrough, can_nothing;
	u32 alignment; /* pretend that O_DIRECT wants this */
	u16 queues;
	u32 threads;
	const char *folder; /* for the image, or */
	const char *device; /* a block device instead of it */
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

static inline void make(struct fixture *f, const struct setting *s)
{
	struct disk_config disk = { .readonly = s->readonly,
				    .direct = s->direct,
				    .snapshot = s->snapshot };
	struct virtio_blk_options config = { .name = "blk0",
					     .queues = s->queues ? s->queues : 1,
					     .writethrough = s->writethrough,
					     .features = driver_features(),
					     .serial = "a serial of 20 bytes" };

	memset(f, 0, sizeof(*f));
	f->pipe[0] = f->pipe[1] = -1;
	f->arena = ARENA;
	snprintf(f->path, sizeof(f->path), "%s/image", s->folder ? s->folder : folder);
	if (s->device)
		snprintf(f->path, sizeof(f->path), "%s", s->device);
	else
		unlink(f->path);
	f->file = open(f->path, s->device ? O_RDWR : O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_true(f->file >= 0);
	if (!s->device)
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

static inline void rings(struct fixture *f, u16 size)
{
	for (u16 i = 0; i < f->device->queue_count && i < ARRAY_SIZE(f->rings); i++) {
		driver_ring_init(&f->rings[i], &f->machine.memory, RINGS + i * 0x10000ull, size,
				 false);
		driver_queue(f->device, i, &f->rings[i]);
	}
}

static inline void begin(struct fixture *f, u64 features)
{
	assert_true(driver_negotiate(f->device, features));
	rings(f, 256);
	driver_ok(f->device);
}

/* The usual device and driver: everything offered is taken. */
static inline struct fixture *up(const struct setting *s)
{
	make(&the, s);
	begin(&the, (the.device->offered & 0xffffff) | BIT64(VIRTIO_RING_F_INDIRECT_DESC));
	return &the;
}

static inline void down(struct fixture *f)
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
static inline void become_pipe(struct fixture *f)
{
	assert_int_equal(pipe2(f->pipe, O_NONBLOCK | O_CLOEXEC), 0);
	f->disk.file = reactor_file_add(f->machine.reactors, f->pipe[0]);
	assert_true(f->disk.file >= 0);
}

static inline u64 config_read(struct fixture *f, u32 offset, u32 size)
{
	u64 value;

	pthread_mutex_lock(&f->device->lock);
	value = virtio_config_read(f->device, offset, size);
	pthread_mutex_unlock(&f->device->lock);
	return value;
}

static inline void config_write(struct fixture *f, u32 offset, u32 size, u64 value)
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

static inline void *allot(struct fixture *f, u32 length, u64 *at)
{
	u8 *p;

	*at = f->arena;
	f->arena = ALIGN_UP(f->arena + length, 4096ull);
	p = memory_at(&f->machine.memory, *at, length ? length : 1);
	assert_non_null(p);
	return p;
}

static inline void *part(struct fixture *f, struct request *r, u32 length, bool writable)
{
	void *p = allot(f, length, &r->parts[r->count].at);

	r->parts[r->count].length = length;
	r->parts[r->count++].writable = writable;
	return p;
}

static inline void header(u8 *to, u32 type, u64 sector)
{
	le32_store(to, type);
	le32_store(to + 4, 0x12345678); /* ioprio: of no consequence */
	le64_store(to + 8, sector);
}

/* As Linux frames it: header, data, status. Returns the data's place. */
static inline u8 *frame(struct fixture *f, struct request *r, u32 type, u64 sector, u32 length,
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

static inline void send(struct driver_ring *ring, struct request *r)
{
	r->head = driver_add(ring, r->parts, r->count);
	assert_true(r->head >= 0);
}

/* Sends, waits, compares. */
static inline void expect(struct fixture *f, struct request *r, u8 status, u32 written)
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

static inline u8 simple(struct fixture *f, u32 type, u64 sector, u32 length)
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

static inline void fill(u8 *to, size_t length, u32 seed)
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

static inline void look_run(void *arg)
{
	struct look *look = arg;
	const struct blk_queue *queue = &look->f->blk->queues[0];

	look->last_flags = queue->free ? queue->free->op.flags : UINT32_MAX;
	look->in_flight = queue->queue->in_flight;
	look->touched = queue->touched;
	look->bounces = queue->bounce_count;
}

static inline struct look look_at(const struct fixture *f)
{
	struct look look = { .f = f };

	reactor_call(reactors_get(f->machine.reactors, 0), look_run, &look);
	return look;
}

static inline u32 last_flags(const struct fixture *f)
{
	return look_at(f).last_flags;
}

static inline struct virtio_blk_counts counts(struct fixture *f)
{
	struct virtio_blk_counts c;

	virtio_blk_counts(f->blk, &c);
	return c;
}

static inline void take_stderr(int *saved, int *file)
{
	fflush(stderr);
	*saved = dup(2);
	*file = memfd_create("stderr", 0);
	dup2(*file, 2);
}

static inline int give_stderr(int saved, int file, const char *word)
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

static u32 prng = 7;

static inline u32 draw(u32 below)
{
	prng = prng * 1664525 + 1013904223;
	return (u32)((u64)prng * below >> 32);
}

static inline void dirty(struct fixture *f)
{
	static u8 bytes[IMAGE];

	memset(bytes, 0x5a, sizeof(bytes));
	assert_int_equal(pwrite(f->file, bytes, IMAGE, 0), IMAGE);
	assert_int_equal(fsync(f->file), 0);
}

static inline int set_up(void **state)
{
	(void)state;
	strcpy(folder, "/tmp/vmm-blk-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static inline int tear_down(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

/* Runs the tests on each engine, with busy-polling, and with packed rings, and in order. Returns
 * how many failed.
 */
#define on_both_engines(tests)                                                                   \
	({                                                                                       \
		int failed_ = cmocka_run_group_tests_name("io_uring", tests, set_up, tear_down); \
                                                                                                 \
		driver_poll_us = 1000;                                                           \
		failed_ += cmocka_run_group_tests_name("polling", tests, set_up, tear_down);     \
		driver_poll_us = 0;                                                              \
		driver_packed = true;                                                            \
		failed_ += cmocka_run_group_tests_name("packed", tests, set_up, tear_down);      \
		driver_in_order = true;                                                          \
		driver_packed = false;                                                           \
		failed_ += cmocka_run_group_tests_name("in order", tests, set_up, tear_down);    \
		driver_in_order = false;                                                         \
		on_epoll = true;                                                                 \
		failed_ + cmocka_run_group_tests_name("epoll", tests, set_up, tear_down);        \
	})

#endif
