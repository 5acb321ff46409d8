/*
 * Memory balloon: see balloon.h. Registers on vCPU threads, pages on the queues' reactor, questions
 * on the main thread.
 *
 * A page is a number in the map of those that the balloon holds, which are RAM's 4 KiB pages,
 * without the hole.
 */
#include "virtio/balloon.h"

#include <errno.h>
#include <linux/virtio_balloon.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "virtio/strict.h"
#include "vm/json.h"

#define QUEUE_SIZE	CONFIG_BALLOON_QUEUE_SIZE
#define CONFIG(field)	((u32)offsetof(struct virtio_balloon_config, field))
#define PAGE		BIT64(VIRTIO_BALLOON_PFN_SHIFT)
#define BLOCK		(MIB(2) / PAGE) /* pages of a huge page */
#define PAGES_A_TURN	1024		/* looked at until other queues have theirs */
#define STATISTIC_BYTES 10
#define STATISTICS_MOST 64 /* looked at */

/*
 * 5.5.2 has free_page_vq at 3, which there is none of here, and reporting_vq at 4; drivers (Linux
 * is one) count only queues whose features they have, and so find the latter at 3, or at 2. What is
 * not of the first three is for reports.
 */
enum { INFLATE, DEFLATE, STATISTICS, QUEUES = 5 };

static const char *const statistic_names[] = VIRTIO_BALLOON_S_NAMES;

/* What is being done with a queue's buffer. */
struct work {
	struct virtio_balloon *balloon;
	struct virtio_queue *queue;
	bool held;   /* there is one */
	bool flying; /* op is in flight */
	struct vq_buffer buffer;
	u32 at;		 /* bytes of its array that are done, or parts of a report */
	u64 first, next; /* pages that go back to the host together; none if they are the same */
	struct reactor_op op;
	struct iovec range; /* of it */
	struct iovec iov[QUEUE_SIZE];
};

struct virtio_balloon {
	struct virtio_device device;
	u64 *map;      /* of pages in the balloon, a bit each */
	u64 map_bytes; /* of whole blocks */
	u64 actual;    /* pages, as the driver says; under the lock */
	_Atomic u32 poison;
	struct work works[QUEUES];
	/* the reactor's */
	u64 statistics[ARRAY_SIZE(statistic_names)];
	u64 known; /* of these, a bit each */
	u64 told;  /* how often, a driver's first buffer not counted */
	bool first_told;
	/* written by the reactor, read by anyone */
	u64 inflated, deflated, refused; /* pages */
	u64 returned, reported;		 /* bytes */
};

/* ---- the map ---- */

static bool in_balloon(const struct virtio_balloon *balloon, u64 page)
{
	return balloon->map[page / 64] >> (page % 64) & 1;
}

/* Is all of the huge page that this page lies in? */
static bool is_whole(const struct virtio_balloon *balloon, u64 page)
{
	const u64 *at = &balloon->map[page / BLOCK * (BLOCK / 64)];
	u64 all = ~0ull;

	for (u32 i = 0; i < BLOCK / 64; i++)
		all &= at[i];
	return all == ~0ull;
}

/* The page that the next number of an array stands for; false: it is none that may be put into the
 * balloon, or taken from it. */
static bool find_page(struct work *work, bool inside, u64 *page)
{
	struct virtio_balloon *balloon = work->balloon;
	const struct memory *memory = balloon->device.memory;
	const u8 *host;
	const char *why = "not RAM";
	u8 bytes[4];
	u32 pfn;

	/* 5.5.6: 4 KiB, whatever the guest's pages are, and as a legacy driver's always are */
	strict_read(work->iov, work->buffer.readable, work->at, bytes, sizeof(bytes));
	pfn = le32_load(bytes);
	host = memory_at(memory, pfn * PAGE, PAGE);
	if (host) {
		*page = (u64)(host - memory->low) / PAGE;
		if (in_balloon(balloon, *page) == inside)
			return true;
		why = inside ? "not in the balloon" : "in the balloon already";
	}
	counter_add(&balloon->refused, 1);
	strict_report(&balloon->device, work->queue, STRICT_BALLOON_PAGE, "page 0x%x is %s", pfn,
		      why);
	return false;
}

/* ---- back to the host ---- */

static void done(struct reactor_op *op, s32 result);

/* False: nothing is in flight then. */
static bool give_back(struct work *work, void *start, u64 bytes)
{
	if (work->balloon->device.memory->pages != MEMORY_PAGES_DEFAULT || !bytes)
		return false;
	work->range = (struct iovec){ start, bytes };
	work->op = (struct reactor_op){ .done = done,
					.code = REACTOR_MADVISE,
					.iov = &work->range,
					.iov_count = 1,
					.flags = MADV_DONTNEED };
	work->flying = true;
	reactor_submit(work->queue->reactor, &work->op);
	return true;
}

static bool give_run_back(struct work *work)
{
	struct virtio_balloon *balloon = work->balloon;
	u64 first = work->first, next = work->next;

	work->first = work->next = 0;
	if (first < next && virtio_has(&balloon->device, VIRTIO_BALLOON_F_MUST_TELL_HOST)) {
		if (is_whole(balloon, first))
			first = ALIGN_DOWN(first, BLOCK);
		if (is_whole(balloon, next - 1))
			next = ALIGN_UP(next, BLOCK);
	}
	return give_back(work, balloon->device.memory->low + first * PAGE, (next - first) * PAGE);
}

/* Done with a buffer, all of it or not. */
static void finish(struct work *work)
{
	work->held = false;
	virtio_queue_push(work->queue, work->buffer.head, 0);
}

static void done(struct reactor_op *op, s32 result)
{
	struct work *work = container_of(op, struct work, op);
	struct virtio_balloon *balloon = work->balloon;

	work->flying = false;
	if (result < 0)
		log_limited(&balloon->device.lines, 10,
			    "%s: the host takes no memory back: %s; unlock what is locked "
			    "(mlockall), or leave --balloon out",
			    balloon->device.name, strerror(-result));
	else
		counter_add(work->queue->index == INFLATE ? &balloon->returned : &balloon->reported,
			    work->range.iov_len);
	virtio_queue_schedule(&balloon->device.queues[DEFLATE]);
	if (virtio_queue_running(work->queue))
		virtio_queue_schedule(work->queue);
	else
		finish(work);
}

/* ---- buffers: each goes on with one, and returns true when all of it is done ---- */

/* Into the balloon, or out of it. */
static bool move_pages(struct work *work, bool out)
{
	struct virtio_balloon *balloon = work->balloon;
	u64 page;

	for (u32 turn = 0; work->buffer.readable_bytes - work->at >= 4; work->at += 4) {
		if (turn++ == PAGES_A_TURN) {
			virtio_queue_schedule(work->queue);
			return false;
		}
		if (!find_page(work, out, &page))
			continue;
		if (!out) {
			/* Linux hands them out upwards, and downwards. */
			if (page + 1 == work->first) {
				work->first--;
			} else {
				if (page != work->next) {
					if (give_run_back(work))
						return false;
					work->first = page;
				}
				work->next = page + 1;
			}
		}
		balloon->map[page / 64] ^= BIT64(page % 64);
		counter_add(out ? &balloon->deflated : &balloon->inflated, 1);
	}
	return !give_run_back(work);
}

/* 5.5.6.6: pages that are free. Where they hold a value that the driver counts on, other than 0,
 * they stay. */
static bool report(struct work *work)
{
	while (work->at < work->buffer.writable) {
		const struct iovec *part = &work->iov[work->buffer.readable + work->at++];
		u8 *start = (u8 *)ALIGN_UP((uintptr_t)part->iov_base, PAGE);
		u8 *end = (u8 *)ALIGN_DOWN((uintptr_t)part->iov_base + part->iov_len, PAGE);

		if (start < end && !atomic_load(&work->balloon->poison) &&
		    give_back(work, start, (u64)(end - start)))
			return false;
	}
	return true;
}

/* 5.5.6.3: in any order, and some unknown. A driver's first buffer may hold anything (5.5.6.3.3),
 * so it goes back at once; the next is kept until statistics are asked for. */
static void take_statistics(struct work *work)
{
	struct virtio_balloon *balloon = work->balloon;
	u32 count = work->buffer.readable_bytes / STATISTIC_BYTES;

	if (!balloon->first_told) {
		balloon->first_told = true;
		finish(work);
		return;
	}
	balloon->known = 0;
	for (u32 i = 0; i < count && i < STATISTICS_MOST; i++) {
		u8 bytes[STATISTIC_BYTES];
		u16 tag;

		strict_read(work->iov, work->buffer.readable, i * STATISTIC_BYTES, bytes,
			    sizeof(bytes));
		tag = le16_load(bytes);
		if (tag >= ARRAY_SIZE(statistic_names))
			continue;
		balloon->statistics[tag] = le64_load(bytes + 2);
		balloon->known |= BIT64(tag);
	}
	balloon->told++;
}

static bool is_statistics(const struct virtio_queue *queue)
{
	return queue->index == STATISTICS && virtio_has(queue->device, VIRTIO_BALLOON_F_STATS_VQ);
}

static enum virtio_served serve(struct virtio_queue *queue)
{
	struct virtio_balloon *balloon = queue->device->owner;
	struct work *work = &balloon->works[queue->index];

	/* A page that leaves must be out of reach of what is in flight before its driver is told
	 * (5.5.6.2). */
	if (work->flying || (queue->index == DEFLATE && balloon->works[INFLATE].flying))
		return VIRTIO_SERVED_LATER;
	for (;;) {
		bool over;

		if (work->held && is_statistics(queue)) /* until they are asked for */
			return VIRTIO_SERVED_LATER;
		if (!work->held) {
			if (virtio_queue_pop(queue, &work->buffer, work->iov, QUEUE_SIZE) != 1)
				return VIRTIO_SERVED_ALL;
			work->held = true;
			work->at = 0;
			work->first = work->next = 0;
		}
		if (is_statistics(queue)) {
			take_statistics(work);
			continue;
		}
		over = queue->index > DEFLATE ? report(work)
					      : move_pages(work, queue->index == DEFLATE);
		if (!over)
			return VIRTIO_SERVED_LATER;
		finish(work);
	}
}

static void queue_start(struct virtio_queue *queue)
{
	struct virtio_balloon *balloon = queue->device->owner;

	if (queue->index == STATISTICS)
		balloon->first_told = false;
}

static void queue_stop(struct virtio_queue *queue)
{
	struct virtio_balloon *balloon = queue->device->owner;
	struct work *work = &balloon->works[queue->index];

	if (work->held && !work->flying)
		finish(work);
}

/* ---- registers ---- */

static bool is_poison(const struct virtio_device *device, u32 at)
{
	return at >= CONFIG(poison_val) && at < CONFIG(poison_val) + 4 &&
	       virtio_has(device, VIRTIO_BALLOON_F_PAGE_POISON);
}

/* Legacy drivers may write a byte at a time; what the balloon holds is known with the last of
 * `actual` (5.5.6.2.1). */
static void config_write(struct virtio_device *device, u32 offset, u32 size, u64 value)
{
	struct virtio_balloon *balloon = device->owner;

	for (u32 at = offset; at < offset + size; at++, value >>= 8) {
		bool actual = at >= CONFIG(actual) && at < CONFIG(actual) + 4;

		if (actual || is_poison(device, at))
			device->config[at] = (u8)value;
		if (at == CONFIG(actual) + 3)
			balloon->actual = le32_load(device->config + CONFIG(actual));
	}
	atomic_store(&balloon->poison, le32_load(device->config + CONFIG(poison_val)));
}

/* The memory is all the next driver's. */
static void reset(struct virtio_device *device)
{
	struct virtio_balloon *balloon = device->owner;

	if (madvise(balloon->map, balloon->map_bytes, MADV_DONTNEED))
		memset(balloon->map, 0, balloon->map_bytes);
	balloon->actual = 0;
	le32_store(device->config + CONFIG(actual), 0);
	le32_store(device->config + CONFIG(poison_val), 0);
	atomic_store(&balloon->poison, 0);
}

/* ---- the strict checker ---- */

static void check(struct virtio_queue *queue, const struct vq_buffer *buffer)
{
	bool reports = queue->index > DEFLATE && !is_statistics(queue);
	u32 unit = is_statistics(queue) ? STATISTIC_BYTES : 4;

	if (reports ? buffer->readable : buffer->writable || buffer->readable_bytes % unit)
		strict_report(queue->device, queue, STRICT_BALLOON_BUFFER,
			      "%u bytes are readable, %u writable", buffer->readable_bytes,
			      buffer->writable_bytes);
}

/* 5.5.6.5.1: the poison is told before DRIVER_OK. */
static bool config_writable(const struct virtio_device *device, u32 offset, u32 size)
{
	if (offset >= CONFIG(actual) && offset + size <= CONFIG(actual) + 4)
		return true;
	return is_poison(device, offset) && is_poison(device, offset + size - 1) &&
	       !(device->status & VIRTIO_CONFIG_S_DRIVER_OK);
}

/* ---- the main thread's ---- */

static u64 counted(const u64 *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static void put_sizes(struct virtio_balloon *balloon, struct json *json)
{
	u64 target, actual;

	pthread_mutex_lock(&balloon->device.lock);
	target = le32_load(balloon->device.config + CONFIG(num_pages));
	actual = balloon->actual;
	pthread_mutex_unlock(&balloon->device.lock);
	json_number(json, "target", target * PAGE);
	json_number(json, "actual", actual * PAGE);
}

static void stats(struct virtio_device *device, struct json *json)
{
	struct virtio_balloon *balloon = device->owner;

	put_sizes(balloon, json);
	json_number(json, "inflated_pages", counted(&balloon->inflated));
	json_number(json, "deflated_pages", counted(&balloon->deflated));
	json_number(json, "refused_pages", counted(&balloon->refused));
	json_number(json, "returned_bytes", counted(&balloon->returned));
	json_number(json, "reported_bytes", counted(&balloon->reported));
}

void virtio_balloon_resize(struct virtio_balloon *balloon, u64 bytes)
{
	u8 pages[4];

	le32_store(pages, (u32)(bytes / PAGE));
	virtio_config_update(&balloon->device, CONFIG(num_pages), pages, sizeof(pages));
}

struct question {
	struct virtio_balloon *balloon;
	u64 told;
	u64 statistics[ARRAY_SIZE(statistic_names)];
	u64 known;
};

static void ask_run(void *arg)
{
	struct question *question = arg;
	struct virtio_balloon *balloon = question->balloon;
	struct work *work = &balloon->works[STATISTICS];

	question->told = 0;
	if (!virtio_queue_running(work->queue) || !is_statistics(work->queue))
		return;
	question->told = balloon->told + 1;
	if (!work->held)
		return;
	finish(work);
	virtio_queue_schedule(work->queue);
}

u64 virtio_balloon_ask(struct virtio_balloon *balloon)
{
	struct question question = { .balloon = balloon };

	reactor_call(balloon->works[STATISTICS].queue->reactor, ask_run, &question);
	return question.told;
}

static void look_run(void *arg)
{
	struct question *question = arg;
	const struct virtio_balloon *balloon = question->balloon;

	question->told = balloon->told;
	question->known = balloon->known;
	memcpy(question->statistics, balloon->statistics, sizeof(question->statistics));
}

bool virtio_balloon_put(struct virtio_balloon *balloon, u64 number, struct json *json)
{
	struct question question = { .balloon = balloon };

	reactor_call(balloon->works[STATISTICS].queue->reactor, look_run, &question);
	put_sizes(balloon, json);
	if (!number || question.told < number)
		return false;
	json_begin_object(json, "statistics");
	for (u32 i = 0; i < ARRAY_SIZE(statistic_names); i++)
		if (question.known >> i & 1)
			json_number(json, statistic_names[i], question.statistics[i]);
	json_end(json);
	return true;
}

/* ---- making ---- */

static const struct virtio_device_ops balloon_ops = {
	.id = VIRTIO_ID_BALLOON,
	.pci_class = 0xff0000, /* 4.1.2.1 leaves it open */
	.name = "balloon",
	.config_write = config_write,
	.queue_start = queue_start,
	.serve = serve,
	.queue_stop = queue_stop,
	.reset = reset,
	.check = check,
	.config_writable = config_writable,
	.stats = stats,
};

int virtio_balloon_create(struct virtio_balloon **result,
			  const struct virtio_balloon_options *options)
{
	const struct memory *memory = options->memory;
	struct virtio_balloon *balloon = calloc(1, sizeof(*balloon));
	u8 reactors[QUEUES];
	const struct virtio_device_config config = {
		.ops = &balloon_ops,
		.owner = balloon,
		.name = "balloon",
		.memory = memory,
		.reactors = options->reactors,
		.features = options->features | BIT64(VIRTIO_BALLOON_F_MUST_TELL_HOST) |
			    BIT64(VIRTIO_BALLOON_F_STATS_VQ) |
			    BIT64(VIRTIO_BALLOON_F_DEFLATE_ON_OOM) |
			    BIT64(VIRTIO_BALLOON_F_PAGE_POISON) |
			    (options->reporting ? BIT64(VIRTIO_BALLOON_F_REPORTING) : 0),
		.config_size = sizeof(struct virtio_balloon_config),
		.queue_count = QUEUES,
		.queue_size = QUEUE_SIZE,
		.queue_offer = options->queue_size,
		.queue_reactor = reactors,
	};
	int error = -ENOMEM;

	memset(reactors, (u8)(options->reactor % reactors_count(options->reactors)),
	       sizeof(reactors));
	if (balloon) {
		balloon->map_bytes =
			ALIGN_UP((memory->low_size + memory->high_size) / PAGE, BLOCK) / 8;
		balloon->map = virtio_room(balloon->map_bytes);
	}
	if (!balloon || !balloon->map) {
		log_line("balloon: out of memory; free some");
		free(balloon);
		return error;
	}
	error = virtio_device_init(&balloon->device, &config);
	if (error) {
		virtio_room_free(balloon->map, balloon->map_bytes);
		free(balloon);
		return error;
	}
	for (u32 i = 0; i < QUEUES; i++) {
		balloon->works[i].balloon = balloon;
		balloon->works[i].queue = &balloon->device.queues[i];
	}
	balloon->device.queues[STATISTICS].untimed = true;
	virtio_balloon_resize(balloon, options->target);
	*result = balloon;
	return 0;
}

struct virtio_device *virtio_balloon_device(struct virtio_balloon *balloon)
{
	return &balloon->device;
}

void virtio_balloon_destroy(struct virtio_balloon *balloon)
{
	if (!balloon)
		return;
	virtio_device_destroy(&balloon->device);
	virtio_room_free(balloon->map, balloon->map_bytes);
	free(balloon);
}
