/* tsan: the memory balloon and a driver for it, honest or not: which pages are gone, which are not;
 * on both engines. */
#include "tests/unit/driver.h"
#include <linux/virtio_balloon.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "virtio/balloon.h"
#include "virtio/strict.h"
#include "vm/json.h"

#define RAM	   MIB(64)
#define LOW	   MIB(32) /* the rest lies behind the hole */
#define QUEUES	   5
#define RING_SIZE  32
#define RINGS(n)   (0x10000ull * (1 + (u64)(n)))
#define ARRAYS	   MIB(1)
#define ARRAY_MOST MIB(1)
#define PAGES	   MIB(8) /* that are given up */
#define PFN(at)	   ((u32)((at) / 4096))
#define MUST_TELL  BIT64(VIRTIO_BALLOON_F_MUST_TELL_HOST)
#define STATS	   BIT64(VIRTIO_BALLOON_F_STATS_VQ)
#define REPORTING  BIT64(VIRTIO_BALLOON_F_REPORTING)
#define POISON	   BIT64(VIRTIO_BALLOON_F_PAGE_POISON)

enum { INFLATE, DEFLATE, STATISTICS };

struct fixture {
	struct driver_machine machine;
	struct virtio_balloon *balloon;
	struct virtio_device *device;
	struct driver_ring rings[QUEUES];
};

static struct fixture *up(void **state, bool reporting)
{
	static struct fixture fixture;
	struct fixture *f = &fixture;
	struct virtio_balloon_options options = { .features = VIRTIO_OPTIONAL,
						  .target = MIB(16) + 5,
						  .reporting = reporting };

	memset(f, 0, sizeof(*f));
	driver_machine_up(&f->machine, RAM, 1, **(const bool **)state);
	f->machine.memory.low_size = LOW;
	f->machine.memory.high = f->machine.memory.low + LOW;
	f->machine.memory.high_size = RAM - LOW;
	options.memory = &f->machine.memory;
	options.reactors = f->machine.reactors;
	assert_int_equal(virtio_balloon_create(&f->balloon, &options), 0);
	f->device = virtio_balloon_device(f->balloon);
	assert_int_equal(strict_attach(f->device, CONFIG_STRICT_WARN), 0);
	driver_machine_go(&f->machine);
	*state = f;
	return f;
}

static int down(void **state)
{
	struct fixture *f = *state;

	virtio_device_power_on(f->device);
	driver_machine_stop(&f->machine);
	virtio_balloon_destroy(f->balloon);
	driver_machine_down(&f->machine);
	return 0;
}

static const bool on_uring, on_epoll = true;

static int uring(void **state)
{
	*state = (void *)(uintptr_t)&on_uring;
	return 0;
}

static int epoll(void **state)
{
	*state = (void *)(uintptr_t)&on_epoll;
	return 0;
}

/* ---- the driver ---- */

static void start(struct fixture *f)
{
	for (u16 i = 0; i < QUEUES; i++) {
		driver_ring_init(&f->rings[i], &f->machine.memory, RINGS(i), RING_SIZE, false);
		driver_queue(f->device, i, &f->rings[i]);
	}
	driver_ok(f->device);
}

static void begin(struct fixture *f, u64 features)
{
	assert_true(driver_negotiate(f->device, features));
	start(f);
}

static u8 *at(struct fixture *f, u64 address, u64 size)
{
	u8 *bytes = memory_at(&f->machine.memory, address, size);

	assert_non_null(bytes);
	return bytes;
}

static void send(struct fixture *f, u16 queue, const struct driver_part *parts, u16 count)
{
	u32 written;

	assert_true(driver_add(&f->rings[queue], parts, count) >= 0);
	driver_kick(&f->rings[queue]);
	driver_wait_used(&f->rings[queue], NULL, &written);
	assert_int_equal(written, 0);
}

static void send_pages(struct fixture *f, u16 queue, const u32 *pfns, u32 count)
{
	const struct driver_part part = { ARRAYS, 4 * count, false };

	memcpy(at(f, ARRAYS, 4ull * count), pfns, 4ull * count);
	send(f, queue, &part, 1);
}

/* So many pages from there, in steps of so many. */
static void send_range(struct fixture *f, u16 queue, u64 first, u32 count, s32 step)
{
	static u32 pfns[4096];

	assert_true(count <= ARRAY_SIZE(pfns));
	for (u32 i = 0; i < count; i++)
		pfns[i] = (u32)((s32)PFN(first) + step * (s32)i);
	send_pages(f, queue, pfns, count);
}

static void send_one(struct fixture *f, u16 queue, u64 page)
{
	send_range(f, queue, page, 1, 1);
}

/* ---- what became of the memory ---- */

static void fill(struct fixture *f, u64 address, u64 size)
{
	memset(at(f, address, size), 0xaa, size);
}

/* The process's own pages in there: what is counted in its RSS. */
static u64 resident(struct fixture *f, u64 address, u64 size)
{
	static unsigned char present[RAM / 4096];
	u64 count = 0;

	assert_int_equal(mincore(at(f, address, size), size, present), 0);
	for (u64 i = 0; i < size / 4096; i++)
		count += present[i] & 1;
	return count;
}

/* Ends the object; its text. */
static const char *text_of(struct json *json)
{
	static char text[1024];

	json_end(json);
	assert_int_equal(json_done(json), 0);
	snprintf(text, sizeof(text), "%.*s", (int)json->length, json->text);
	json_free(json);
	return text;
}

static u64 number(struct fixture *f, const char *name)
{
	struct json json = { .line = "" };
	const char *text, *found;
	char key[40];

	json_begin_object(&json, NULL);
	f->device->ops->stats(f->device, &json);
	text = text_of(&json);
	snprintf(key, sizeof(key), "\"%s\": ", name);
	found = strstr(text, key);
	if (!found)
		fail_msg("no %s in %s", name, text);
	return strtoull(found + strlen(key), NULL, 10);
}

static u64 rule(struct fixture *f, enum strict_rule rule)
{
	return atomic_load(&f->device->strict->counts[rule]);
}

static void config_put(struct fixture *f, u32 offset, u32 size, u64 value)
{
	pthread_mutex_lock(&f->device->lock);
	virtio_config_write(f->device, offset, size, value);
	pthread_mutex_unlock(&f->device->lock);
}

static u64 config_get(struct fixture *f, u32 offset, u32 size)
{
	u64 value;

	pthread_mutex_lock(&f->device->lock);
	value = virtio_config_read(f->device, offset, size);
	pthread_mutex_unlock(&f->device->lock);
	return value;
}

static u8 generation(struct fixture *f)
{
	u8 value;

	pthread_mutex_lock(&f->device->lock);
	value = virtio_config_generation(f->device);
	pthread_mutex_unlock(&f->device->lock);
	return value;
}

/* ---- tests ---- */

static void offers(void **state)
{
	struct fixture *f = up(state, false);
	u8 before;

	assert_int_equal(f->device->offered & 0xff, 0x17);
	assert_int_equal(config_get(f, 0, 4), PFN(MIB(16)));
	before = generation(f);
	virtio_balloon_resize(f->balloon, MIB(3));
	assert_int_not_equal(generation(f), before);
	assert_int_equal(config_get(f, 0, 4), PFN(MIB(3)));
	begin(f, 0);
	config_put(f, 0, 4, 7); /* the target is the host's */
	config_put(f, 8, 4, 7);
	config_put(f, 12, 4, 7); /* not negotiated */
	assert_int_equal(config_get(f, 0, 4), PFN(MIB(3)));
	assert_int_equal(config_get(f, 8, 8), 0);
	assert_int_equal(rule(f, STRICT_CONFIG_READONLY), 3);
	config_put(f, 4, 4, PFN(MIB(2)));
	assert_int_equal(number(f, "actual"), MIB(2));
	assert_int_equal(number(f, "target"), MIB(3));
}

/* 5.5.6: pages in the balloon are no longer the process's; the others are. */
static void inflate_and_deflate(void **state)
{
	struct fixture *f = up(state, false);
	struct reactor_counts before, after;

	begin(f, MUST_TELL);
	fill(f, PAGES, MIB(8));
	assert_int_equal(resident(f, PAGES, MIB(8)), 2048);
	send_range(f, INFLATE, PAGES, 512, 1);
	assert_int_equal(resident(f, PAGES, MIB(2)), 0);
	assert_int_equal(number(f, "returned_bytes"), MIB(2));
	reactor_counts(reactors_get(f->machine.reactors, 0), &before);
	send_range(f, INFLATE, PAGES + MIB(4) - 4096, 256, -1); /* downwards */
	reactor_counts(reactors_get(f->machine.reactors, 0), &after);
	assert_true(after.operations - before.operations < 16); /* together */
	assert_int_equal(resident(f, PAGES + MIB(2), MIB(2)), 256);
	send_range(f, INFLATE, PAGES + MIB(4), 128, 2); /* each by itself */
	assert_int_equal(resident(f, PAGES + MIB(4), MIB(1)), 128);
	send_one(f, INFLATE, LAYOUT_RAM_HIGH);
	assert_int_equal(resident(f, PAGES + MIB(6), MIB(2)), 512);
	assert_int_equal(number(f, "inflated_pages"), 512 + 256 + 128 + 1);
	send_range(f, DEFLATE, PAGES, 512, 1);
	assert_int_equal(number(f, "deflated_pages"), 512);
	fill(f, PAGES, MIB(2)); /* whose they are again */
	send_range(f, INFLATE, PAGES + MIB(4) + 4096, 128, 2);
	assert_int_equal(resident(f, PAGES, MIB(2)), 512);
	assert_int_equal(at(f, PAGES + 12345, 1)[0], 0xaa);
	send_range(f, INFLATE, PAGES, 512, 1);
	assert_int_equal(resident(f, PAGES, MIB(2)), 0);
	assert_int_equal(number(f, "refused_pages"), 0);
	assert_int_equal(rule(f, STRICT_BALLOON_PAGE) + rule(f, STRICT_BALLOON_BUFFER), 0);
}

/* 2.7.4.1: an array in any pieces; what is no whole number at its end means nothing. */
static void arrays_in_pieces(void **state)
{
	struct fixture *f = up(state, false);
	const struct driver_part parts[] = { { ARRAYS, 1, false },
					     { ARRAYS + 1, 5, false },
					     { ARRAYS + 6, 7, false } };
	const u32 pfns[] = { PFN(PAGES), PFN(PAGES + 4096), PFN(PAGES + 8192), 0 };

	begin(f, MUST_TELL);
	fill(f, PAGES, MIB(1));
	memcpy(at(f, ARRAYS, 16), pfns, 16);
	send(f, INFLATE, parts, 3);
	assert_int_equal(resident(f, PAGES, MIB(1)), 253);
	assert_int_equal(number(f, "inflated_pages"), 3);
	assert_int_equal(rule(f, STRICT_BALLOON_BUFFER), 1);
	send(f, INFLATE, parts, 1);
	assert_int_equal(number(f, "inflated_pages"), 3);
	assert_int_equal(number(f, "refused_pages"), 0);
}

/* A huge page of which all is in the balloon goes as a whole, with what has come back of it; but
 * never what its driver may have taken back unseen (5.5.3.2.1). */
static void whole_huge_pages(void **state)
{
	struct fixture *f = up(state, false);

	for (int tells = 1; tells >= 0; tells--) {
		begin(f, tells ? MUST_TELL : 0);
		fill(f, PAGES, MIB(2));
		send_range(f, INFLATE, PAGES, 256, 1);
		send_range(f, INFLATE, PAGES + MIB(1) + 4096, 255, 1);
		assert_int_equal(resident(f, PAGES, MIB(2)), 1);
		fill(f, PAGES + KIB(64), 4096);
		fill(f, PAGES + MIB(1) + KIB(64), 4096);
		assert_int_equal(resident(f, PAGES, MIB(2)), 3);
		send_one(f, INFLATE, PAGES + MIB(1));
		assert_int_equal(resident(f, PAGES, MIB(2)), tells ? 0 : 2);
		driver_reset(f->device);
	}
}

/* A page of no business: nothing happens to anything, it is counted, and told of. */
static void refuses_pages(void **state)
{
	struct fixture *f = up(state, false);
	const u32 wrong[] = { PFN(LOW),
			      PFN(LOW + MIB(1)),
			      PFN(LAYOUT_RAM_HIGH) - 1,
			      PFN(LAYOUT_RAM_HIGH + RAM - LOW),
			      UINT32_MAX,
			      0x80000000 };
	const u32 twice[] = { PFN(PAGES), PFN(PAGES), PFN(PAGES + 8192), PFN(PAGES) };

	begin(f, MUST_TELL);
	fill(f, PAGES, MIB(1));
	send_pages(f, INFLATE, wrong, ARRAY_SIZE(wrong));
	send_pages(f, DEFLATE, wrong, ARRAY_SIZE(wrong));
	assert_int_equal(number(f, "refused_pages"), 2 * ARRAY_SIZE(wrong));
	assert_int_equal(resident(f, PAGES, MIB(1)), 256);
	send_pages(f, INFLATE, twice, 4);
	assert_int_equal(number(f, "refused_pages"), 2 * ARRAY_SIZE(wrong) + 2);
	assert_int_equal(resident(f, PAGES, MIB(1)), 254);
	fill(f, PAGES, 4096);
	send_one(f, INFLATE, PAGES); /* again: it stays as it is */
	assert_int_equal(resident(f, PAGES, 4096), 1);
	send_one(f, DEFLATE, PAGES + 4096); /* never was in it */
	send_pages(f, DEFLATE, twice, 4);   /* once */
	assert_int_equal(number(f, "deflated_pages"), 2);
	assert_int_equal(number(f, "refused_pages"), 2 * ARRAY_SIZE(wrong) + 6);
	assert_int_equal(rule(f, STRICT_BALLOON_PAGE), 2 * ARRAY_SIZE(wrong) + 6);
	assert_int_equal(number(f, "inflated_pages"), 2);
	assert_false(driver_status_now(f->device) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

/* Nothing is read from what is to be written, and such a buffer comes back. */
static void wrong_buffers(void **state)
{
	struct fixture *f = up(state, true);
	const struct driver_part writable = { ARRAYS, 64, true }, readable = { PAGES, 8192, false };

	begin(f, MUST_TELL | STATS | REPORTING);
	fill(f, PAGES, MIB(1));
	send(f, INFLATE, &writable, 1);
	send(f, DEFLATE, &writable, 1);
	send(f, 4, &readable, 1);
	assert_int_equal(rule(f, STRICT_BALLOON_BUFFER), 3);
	assert_int_equal(number(f, "refused_pages") + number(f, "inflated_pages"), 0);
	assert_int_equal(resident(f, PAGES, MIB(1)), 256);
}

/* 5.5.6.6: free pages go, whole ones alone; by either number of the queue (5.5.2). */
static void reports(void **state)
{
	struct fixture *f = up(state, true);
	const struct driver_part parts[] = { { PAGES, MIB(2), true },
					     { PAGES + MIB(3) + 100, 4096, true },
					     { PAGES + MIB(4) + 100, 12288, true },
					     { LAYOUT_RAM_HIGH, 4096, true } };

	for (u16 queue = STATISTICS; queue < QUEUES; queue++) {
		begin(f, MUST_TELL | REPORTING | (queue > STATISTICS ? STATS : 0));
		fill(f, PAGES, MIB(6));
		fill(f, LAYOUT_RAM_HIGH, 8192);
		send(f, queue, parts, 4);
		assert_int_equal(resident(f, PAGES, MIB(2)), 0);
		assert_int_equal(resident(f, PAGES + MIB(2), MIB(4)), 1024 - 2);
		assert_int_equal(resident(f, LAYOUT_RAM_HIGH, 8192), 1);
		assert_int_equal(number(f, "reported_bytes"),
				 (u64)(queue - STATISTICS + 1) * (MIB(2) + 3 * 4096));
		fill(f, PAGES, MIB(2)); /* they are the guest's all the time */
		send_one(f, INFLATE, PAGES);
		driver_reset(f->device);
	}
	assert_int_equal(rule(f, STRICT_BALLOON_BUFFER), 0);
}

/* 5.5.6.6.2: reported pages keep the value that they were filled with. */
static void poison(void **state)
{
	struct fixture *f = up(state, true);
	const struct driver_part part = { PAGES, MIB(2), true };

	for (u32 value = 0; value < 2; value++) {
		assert_true(driver_negotiate(f->device, MUST_TELL | REPORTING | POISON));
		config_put(f, 12, 4, value * 0xaaaaaaaa);
		assert_int_equal(config_get(f, 12, 4), value * 0xaaaaaaaa);
		assert_int_equal(rule(f, STRICT_CONFIG_READONLY), value);
		start(f);
		fill(f, PAGES, MIB(2));
		send(f, 4, &part, 1);
		assert_int_equal(resident(f, PAGES, MIB(2)), value ? 512 : 0);
		config_put(f, 12, 4, value * 0xaaaaaaaa); /* not any more */
		assert_int_equal(rule(f, STRICT_CONFIG_READONLY), value + 1);
		driver_reset(f->device);
		assert_int_equal(config_get(f, 12, 4), 0);
	}
}

/* ---- statistics ---- */

static void tell(struct fixture *f, const void *bytes, u32 size)
{
	const struct driver_part part = { ARRAYS, size, false };

	memcpy(at(f, ARRAYS, size), bytes, size);
	assert_true(driver_add(&f->rings[STATISTICS], &part, 1) >= 0);
	driver_kick(&f->rings[STATISTICS]);
}

/* Those of this number, as soon as they are told; NULL: there are none. */
static const char *statistics(struct fixture *f, u64 told)
{
	const char *text = NULL;
	bool there = false;

	for (u32 n = 0; n < 100000 && !there; n++) {
		struct json json = { .line = "" };

		json_begin_object(&json, NULL);
		there = virtio_balloon_put(f->balloon, told, &json);
		text = text_of(&json);
		if (!told)
			break;
		usleep(100);
	}
	return there ? text : NULL;
}

#define ENTRY(tag, value) tag, 0, value, 0, 0, 0, 0, 0, 0, 1

/* 5.5.6.3: asked for one by one; unknown ones are ignored, the order is any, the first buffer means
 * nothing. */
static void memory_statistics(void **state)
{
	static const u8 garbage[] = { ENTRY(VIRTIO_BALLOON_S_MEMTOT, 77) };
	static const u8 first[] = { ENTRY(VIRTIO_BALLOON_S_MEMTOT, 2),
				    ENTRY(0x77, 3),
				    ENTRY(VIRTIO_BALLOON_S_MEMFREE, 4),
				    9,
				    0,
				    5 };
	static const u8 second[] = { ENTRY(VIRTIO_BALLOON_S_MAJFLT, 6) };
	struct fixture *f = up(state, false);
	u64 told;

	assert_int_equal(virtio_balloon_ask(f->balloon), 0);
	assert_null(statistics(f, 0));
	begin(f, MUST_TELL | STATS);
	tell(f, garbage, sizeof(garbage));
	driver_wait_used(&f->rings[STATISTICS], NULL, NULL);
	told = virtio_balloon_ask(f->balloon);
	assert_int_equal(told, 1);
	tell(f, first, sizeof(first));
	assert_string_equal(statistics(f, told),
			    "{\"target\": 16777216, \"actual\": 0,  \"statistics\": "
			    "{\"free-memory\": 72057594037927940, \"total-memory\": "
			    "72057594037927938}}");
	assert_false(driver_used(&f->rings[STATISTICS], NULL, NULL)); /* kept */
	told = virtio_balloon_ask(f->balloon);
	assert_int_equal(told, 2);
	driver_wait_used(&f->rings[STATISTICS], NULL, NULL);
	tell(f, second, sizeof(second));
	assert_string_equal(statistics(f, told),
			    "{\"target\": 16777216, \"actual\": 0,  \"statistics\": "
			    "{\"major-faults\": 72057594037927942}}");
	assert_int_equal(rule(f, STRICT_BALLOON_BUFFER), 1); /* half an entry */
	driver_reset(f->device);
	assert_int_equal(virtio_balloon_ask(f->balloon), 0);
	begin(f, MUST_TELL); /* one that has none */
	assert_int_equal(virtio_balloon_ask(f->balloon), 0);
}

/* ---- resets ---- */

/* In the middle of an array, and of giving back, at any point of it; the next driver finds an empty
 * balloon. */
static void reset_in_the_middle(void **state)
{
	struct fixture *f = up(state, false);
	const struct driver_part part = { ARRAYS, (u32)ARRAY_MOST, false };
	u32 *pfns;

	for (u32 n = 0; n < 30; n++) {
		begin(f, MUST_TELL | BIT64(VIRTIO_F_RING_RESET));
		pfns = (u32 *)(void *)at(f, ARRAYS, ARRAY_MOST);
		for (u32 i = 0; i < ARRAY_MOST / 4; i++)
			pfns[i] = PFN(PAGES) + (i * 3 + i / 4096) % 4096;
		fill(f, PAGES, MIB(1));
		assert_true(driver_add(&f->rings[INFLATE], &part, 1) >= 0);
		driver_kick(&f->rings[INFLATE]);
		usleep(100 * (n % 10));
		if (n % 3 == 0) {
			pthread_mutex_lock(&f->device->lock);
			virtio_queue_reset(&f->device->queues[INFLATE]);
			virtio_reset_wait(f->device);
			pthread_mutex_unlock(&f->device->lock);
			send_one(f, DEFLATE, PAGES); /* waits for nobody */
		}
		driver_reset(f->device);
		begin(f, MUST_TELL);
		fill(f, PAGES, MIB(2));
		send_range(f, INFLATE, PAGES, 512, 1);
		assert_int_equal(resident(f, PAGES, MIB(2)), 0);
		driver_reset(f->device);
		assert_int_equal(number(f, "actual"), 0);
	}
}

/* An array that never ends holds up nobody. */
static void others_have_their_turn(void **state)
{
	struct fixture *f = up(state, false);
	const struct driver_part part = { ARRAYS + MIB(1), (u32)MIB(4), false };

	begin(f, MUST_TELL);
	fill(f, PAGES, MIB(2));
	for (u32 i = 0; i < 4; i++)
		assert_true(driver_add(&f->rings[INFLATE], &part, 1) >= 0);
	driver_kick(&f->rings[INFLATE]);
	send_one(f, DEFLATE, PAGES);
	assert_false(driver_used(&f->rings[INFLATE], NULL, NULL) &&
		     driver_used(&f->rings[INFLATE], NULL, NULL) &&
		     driver_used(&f->rings[INFLATE], NULL, NULL) &&
		     driver_used(&f->rings[INFLATE], NULL, NULL));
}

/* Memory from a pool of huge pages stays the machine's. */
static void pools_keep_theirs(void **state)
{
	struct fixture *f = up(state, false);

	f->machine.memory.pages = MEMORY_PAGES_2M;
	begin(f, MUST_TELL);
	fill(f, PAGES, MIB(2));
	send_range(f, INFLATE, PAGES, 512, 1);
	assert_int_equal(resident(f, PAGES, MIB(2)), 512);
	assert_int_equal(number(f, "inflated_pages"), 512);
}

/* ---- legacy ---- */

/* The configuration is little-endian there too (5.5.4.0.1), `actual` comes byte by byte
 * (5.5.6.2.1), and nobody has to tell us first (5.5.3.2.1). */
static void legacy_driver(void **state)
{
	struct fixture *f = up(state, false);
	const u32 actual = 0x01020304;

	pthread_mutex_lock(&f->device->lock);
	virtio_status_write(f->device, VIRTIO_CONFIG_S_ACKNOWLEDGE, true);
	virtio_status_write(f->device, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER, true);
	virtio_features_write(f->device, 0, 0, true);
	pthread_mutex_unlock(&f->device->lock);
	for (u16 i = 0; i < 2; i++) {
		struct virtio_queue *queue = &f->device->queues[i];

		driver_ring_init(&f->rings[i], &f->machine.memory, RINGS(i), queue->size, false);
		pthread_mutex_lock(&f->device->lock);
		virtio_queue_set_pfn(queue, PFN(RINGS(i)));
		pthread_mutex_unlock(&f->device->lock);
		f->rings[i].doorbell_fd = queue->doorbell_fd;
	}
	driver_status(f->device,
		      VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
			      VIRTIO_CONFIG_S_DRIVER_OK,
		      true);
	assert_int_equal(config_get(f, 0, 1) | config_get(f, 1, 1) << 8, PFN(MIB(16)));
	fill(f, PAGES, MIB(2));
	send_range(f, INFLATE, PAGES, 512, 1);
	assert_int_equal(resident(f, PAGES, MIB(2)), 0);
	for (u32 i = 0; i < 4; i++) {
		assert_int_equal(number(f, "actual"), 0);
		config_put(f, 4 + i, 1, actual >> 8 * i);
	}
	assert_int_equal(number(f, "actual"), (u64)actual * 4096);
	send_range(f, DEFLATE, PAGES, 512, 1);
	assert_int_equal(number(f, "deflated_pages"), 512);
	assert_int_equal(number(f, "refused_pages"), 0);
}

#define balloon_test(name)                                  \
	cmocka_unit_test_setup_teardown(name, uring, down), \
		cmocka_unit_test_setup_teardown(name, epoll, down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		balloon_test(offers),
		balloon_test(inflate_and_deflate),
		balloon_test(arrays_in_pieces),
		balloon_test(whole_huge_pages),
		balloon_test(refuses_pages),
		balloon_test(wrong_buffers),
		balloon_test(reports),
		balloon_test(poison),
		balloon_test(memory_statistics),
		balloon_test(reset_in_the_middle),
		balloon_test(others_have_their_turn),
		balloon_test(pools_keep_theirs),
	};
	const struct CMUnitTest legacy[] = {
		balloon_test(legacy_driver),
	};
	const struct CMUnitTest few[] = {
		cmocka_unit_test_setup_teardown(inflate_and_deflate, uring, down),
		cmocka_unit_test_setup_teardown(reset_in_the_middle, uring, down),
	};
	int failed = driver_run_all(tests) + driver_run(legacy, false, false);

	/* each form that the kernel may leave a reactor in */
	for (size_t i = 0; i < ARRAY_SIZE(reactor_modes); i++) {
		driver_mode = reactor_modes[i];
		failed += driver_run(few, false, false);
	}
	return failed;
}
