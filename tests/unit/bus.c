/* tsan
 * The bus: who answers where, overlaps, accesses across ends, doorbells, changes from within
 * handlers and from other threads.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <cmocka.h>

#include "vm/bus.h"

struct device {
	struct bus_region region;
	struct bus *bus;
	u8 id;
	u64 offset, value;
	unsigned int size, writes;
};

/* Each byte read tells the device (high nibble) and the offset (low nibble). */
static u64 device_read(void *owner, u64 offset, unsigned int size)
{
	struct device *d = owner;
	u64 value = 0;

	assert_true(size == 1 || size == 2 || size == 4 || size == 8);
	assert_true(offset + size <= d->region.size);
	for (unsigned int i = 0; i < size; i++)
		value |= (u64)(d->id << 4 | ((offset + i) & 15)) << (8 * i);
	return value;
}

static void device_write(void *owner, u64 offset, unsigned int size, u64 value)
{
	struct device *d = owner;

	assert_true(offset + size <= d->region.size);
	d->offset = offset;
	d->size = size;
	d->value = value;
	d->writes++;
}

static const struct bus_ops device_ops = { .read = device_read, .write = device_write };

static const struct bus_ops yielding_ops = { .read = device_read,
					     .write = device_write,
					     .yields = true };

static struct device device_at(enum bus_space space, u64 base, u64 size, u8 id)
{
	return (struct device){ .region = { space, base, size, &device_ops, NULL }, .id = id };
}

static int map(struct bus *bus, struct device *d)
{
	d->region.owner = d;
	d->bus = bus;
	return bus_map(bus, &d->region);
}

static int setup(void **state)
{
	return bus_create((struct bus **)state, NULL);
}

static int teardown(void **state)
{
	bus_destroy(*state);
	return 0;
}

static void test_nobody(void **state)
{
	struct bus *bus = *state;

	assert_int_equal(bus_read(bus, BUS_PIO, 0x80, 1), 0xff);
	assert_int_equal(bus_read(bus, BUS_PIO, 0xfffe, 4), 0xffffffff);
	assert_int_equal(bus_read(bus, BUS_MMIO, 0xd0000000, 4), 0xffffffff);
	assert_true(bus_read(bus, BUS_MMIO, UINT64_MAX - 2, 8) == UINT64_MAX);
	bus_write(bus, BUS_MMIO, UINT64_MAX, 8, 1);
}

static void test_sizes(void **state)
{
	struct bus *bus = *state;
	struct device d = device_at(BUS_MMIO, 0x1000, 16, 1);

	assert_int_equal(map(bus, &d), 0);
	assert_int_equal(bus_read(bus, BUS_MMIO, 0x1003, 1), 0x13);
	assert_int_equal(bus_read(bus, BUS_MMIO, 0x1002, 4), 0x15141312);
	assert_true(bus_read(bus, BUS_MMIO, 0x1008, 8) == 0x1f1e1d1c1b1a1918);
	/* KVM splits a misaligned access into odd lengths */
	assert_int_equal(bus_read(bus, BUS_MMIO, 0x1004, 3), 0x161514);
	bus_write(bus, BUS_MMIO, 0x1004, 2, 0xaabbccdd);
	assert_int_equal(d.offset, 4);
	assert_int_equal(d.size, 2);
	assert_int_equal(d.value, 0xccdd); /* cut to its size */
	d.writes = 0;
	bus_write(bus, BUS_MMIO, 0x1004, 7, 0x11223344556677);
	assert_int_equal(d.writes, 7);
	assert_int_equal(d.offset, 10);
	assert_int_equal(d.value, 0x11);
	/* ports and memory are apart */
	assert_int_equal(bus_read(bus, BUS_PIO, 0x1003, 1), 0xff);
	bus_unmap(bus, &d.region);
	assert_int_equal(bus_read(bus, BUS_MMIO, 0x1003, 1), 0xff);
	bus_unmap(bus, &d.region);
}

static void test_across_ends(void **state)
{
	struct bus *bus = *state;
	struct device a = device_at(BUS_MMIO, 0x1000, 2, 1), b = device_at(BUS_MMIO, 0x1002, 4, 2);

	assert_int_equal(map(bus, &a), 0);
	assert_int_equal(map(bus, &b), 0);
	assert_int_equal(bus_read(bus, BUS_MMIO, 0x1000, 4), 0x21201110);
	assert_int_equal(bus_read(bus, BUS_MMIO, 0x0fff, 4), 0x201110ff);
	assert_int_equal(bus_read(bus, BUS_MMIO, 0x1004, 4), 0xffff2322);
	bus_write(bus, BUS_MMIO, 0x1001, 2, 0xbbaa);
	assert_int_equal(a.value, 0xaa);
	assert_int_equal(a.offset, 1);
	assert_int_equal(b.value, 0xbb);
	assert_int_equal(b.offset, 0);
	bus_unmap(bus, &a.region);
	bus_unmap(bus, &b.region);
}

static void test_refused(void **state)
{
	struct bus *bus = *state;
	struct device d = device_at(BUS_PIO, 0xfffe, 4, 1);

	assert_int_equal(map(bus, &d), -EINVAL); /* passes the last port */
	d.region.size = 0;
	assert_int_equal(map(bus, &d), -EINVAL);
	d = device_at(BUS_MMIO, UINT64_MAX - 3, 5, 1);
	assert_int_equal(map(bus, &d), -EINVAL);
	d = device_at(BUS_PIO, UINT64_MAX, 2, 1);
	assert_int_equal(map(bus, &d), -EINVAL);
	/* the very ends are fine */
	d = device_at(BUS_MMIO, UINT64_MAX - 3, 4, 1);
	assert_int_equal(map(bus, &d), 0);
	assert_int_equal(bus_read(bus, BUS_MMIO, UINT64_MAX, 1), 0x13);
	assert_int_equal(bus_read(bus, BUS_MMIO, UINT64_MAX - 3, 4), 0x13121110);
	/* what wraps round the end of memory reaches nobody at its start */
	assert_int_equal(bus_read(bus, BUS_MMIO, UINT64_MAX - 1, 4), 0xffff1312);
	bus_unmap(bus, &d.region);
	d = device_at(BUS_PIO, 0xffff, 1, 1);
	assert_int_equal(map(bus, &d), 0);
	assert_int_equal(bus_read(bus, BUS_PIO, 0xffff, 2), 0xff10);
	bus_unmap(bus, &d.region);
}

/* What the rule says, without any cleverness. */
/* The first that was mapped there; of those that yield, only where there is no other. */
static u8 expected_at(struct device **mapped, size_t count, u64 address)
{
	for (int yields = 0; yields < 2; yields++) {
		for (size_t i = 0; i < count; i++) {
			const struct bus_region *r = &mapped[i]->region;

			if (r->ops->yields == yields && address >= r->base &&
			    address - r->base < r->size)
				return (u8)(mapped[i]->id << 4 | ((address - r->base) & 15));
		}
	}
	return 0xff;
}

/* A guest throws its BARs about: after each step every byte answers as the plain rule says. */
static void test_overlaps(void **state)
{
	struct bus *bus = *state;
	struct device devices[14], *mapped[14];
	size_t count = 0;

	srandom(1);
	for (u8 i = 0; i < ARRAY_SIZE(devices); i++)
		devices[i] = device_at(BUS_MMIO, 0, 1, i);
	for (u8 i = 0; i < ARRAY_SIZE(devices) / 4; i++)
		devices[i].region.ops = &yielding_ops;
	for (int step = 0; step < 500; step++) {
		struct device *d = &devices[(u64)random() % ARRAY_SIZE(devices)];
		size_t at = 0;

		while (at < count && mapped[at] != d)
			at++;
		if (at < count) {
			bus_unmap(bus, &d->region);
			count--;
			memmove(mapped + at, mapped + at + 1, (count - at) * sizeof(*mapped));
		} else {
			d->region.base = 0x1000 + (u64)random() % 64;
			d->region.size = 1 + (u64)random() % 48;
			assert_int_equal(map(bus, d), 0);
			mapped[count++] = d;
		}
		for (u64 address = 0xff8; address < 0x1080; address++) {
			u8 expected = expected_at(mapped, count, address);

			if (bus_read(bus, BUS_MMIO, address, 1) != expected)
				fail_msg("step %d: 0x%llx", step, (unsigned long long)address);
		}
		for (u64 address = 0xff8; address < 0x1080; address += 7) {
			u64 value = 0;

			for (unsigned int i = 0; i < 8; i++)
				value |= (u64)expected_at(mapped, count, address + i) << (8 * i);
			assert_true(bus_read(bus, BUS_MMIO, address, 8) == value);
		}
	}
	while (count)
		bus_unmap(bus, &mapped[--count]->region);
}

static void test_many(void **state)
{
	struct bus *bus = *state;
	struct device *devices = calloc(300, sizeof(*devices));

	for (u32 i = 0; i < 300; i++) {
		devices[i] = device_at(BUS_PIO, 8 * i, 4, (u8)(i & 15));
		assert_int_equal(map(bus, &devices[i]), 0);
	}
	for (u32 i = 0; i < 300; i++) {
		assert_int_equal(bus_read(bus, BUS_PIO, 8 * i, 1), (i & 15) << 4);
		assert_int_equal(bus_read(bus, BUS_PIO, 8 * i + 4, 1), 0xff);
	}
	for (u32 i = 0; i < 300; i += 2)
		bus_unmap(bus, &devices[i].region);
	for (u32 i = 0; i < 300; i++)
		assert_int_equal(bus_read(bus, BUS_PIO, 8 * i, 1), i % 2 ? (i & 15) << 4 : 0xff);
	for (u32 i = 1; i < 300; i += 2)
		bus_unmap(bus, &devices[i].region);
	free(devices);
}

static u64 take(int fd)
{
	u64 count = 0;

	return read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

static void test_doorbells(void **state)
{
	struct bus *bus = *state;
	struct device d = device_at(BUS_MMIO, 0x1000, 16, 1);
	int fds[4];

	for (int i = 0; i < 4; i++)
		fds[i] = eventfd(0, EFD_NONBLOCK);
	struct bus_doorbell zero = { BUS_MMIO, 0x1004, 2, true, 0, fds[0] };
	struct bus_doorbell one = { BUS_MMIO, 0x1004, 2, true, 1, fds[1] };
	struct bus_doorbell wide = { BUS_MMIO, 0x1004, 4, false, 0, fds[2] };
	struct bus_doorbell any = { BUS_MMIO, 0x1008, 0, false, 0, fds[3] };
	struct bus_doorbell bad;

	assert_int_equal(map(bus, &d), 0);
	assert_int_equal(bus_doorbell_add(bus, &zero), 0);
	assert_int_equal(bus_doorbell_add(bus, &one), 0);
	assert_int_equal(bus_doorbell_add(bus, &wide), 0);
	assert_int_equal(bus_doorbell_add(bus, &any), 0);
	/* the same address and value, or one that takes all */
	assert_int_equal(bus_doorbell_add(bus, &one), -EEXIST);
	bad = (struct bus_doorbell){ BUS_MMIO, 0x1004, 2, false, 0, fds[0] };
	assert_int_equal(bus_doorbell_add(bus, &bad), -EEXIST);
	bad = (struct bus_doorbell){ BUS_MMIO, 0x1008, 4, true, 3, fds[0] };
	assert_int_equal(bus_doorbell_add(bus, &bad), -EEXIST);
	bad = (struct bus_doorbell){ BUS_PIO, 0x1008, 0, false, 0, fds[0] };
	assert_int_equal(bus_doorbell_add(bus, &bad), -EINVAL);
	bad = (struct bus_doorbell){ BUS_MMIO, 0x1008, 3, false, 0, fds[0] };
	assert_int_equal(bus_doorbell_add(bus, &bad), -EINVAL);

	bus_write(bus, BUS_MMIO, 0x1004, 2, 1);
	bus_write(bus, BUS_MMIO, 0x1004, 2, 0x10001); /* the rest is cut off */
	bus_write(bus, BUS_MMIO, 0x1004, 4, 1);
	bus_write(bus, BUS_MMIO, 0x1008, 8, 99);
	bus_write(bus, BUS_MMIO, 0x1008, 1, 0);
	assert_int_equal(take(fds[0]), 0);
	assert_int_equal(take(fds[1]), 2);
	assert_int_equal(take(fds[2]), 1);
	assert_int_equal(take(fds[3]), 2);
	assert_int_equal(d.writes, 0);
	/* no bell has it: the region does */
	bus_write(bus, BUS_MMIO, 0x1004, 2, 2);
	assert_int_equal(d.writes, 1);
	bus_write(bus, BUS_PIO, 0x1004, 2, 1);
	assert_int_equal(take(fds[1]), 0);

	bus_doorbell_remove(bus, &one);
	bus_write(bus, BUS_MMIO, 0x1004, 2, 1);
	assert_int_equal(take(fds[1]), 0);
	assert_int_equal(d.writes, 2);
	bus_write(bus, BUS_MMIO, 0x1004, 2, 0);
	assert_int_equal(take(fds[0]), 1);
	bus_doorbell_remove(bus, &one); /* gone already */
	assert_int_equal(bus_doorbell_add(bus, &one), 0);
	bus_unmap(bus, &d.region);
	for (int i = 0; i < 4; i++)
		close(fds[i]);
}

static void test_many_doorbells(void **state)
{
	struct bus *bus = *state;
	int fd = eventfd(0, EFD_NONBLOCK);
	struct bus_doorbell bell = { BUS_PIO, 0, 2, true, 0, fd };

	/* in an order that is no order */
	for (u32 i = 0; i < 500; i++) {
		bell.address = i * 167 % 500 * 4;
		assert_int_equal(bus_doorbell_add(bus, &bell), 0);
	}
	for (u32 i = 0; i < 500; i++) {
		bus_write(bus, BUS_PIO, i * 4, 2, 0);
		bus_write(bus, BUS_PIO, i * 4 + 2, 2, 0);
		assert_int_equal(take(fd), 1);
	}
	for (u32 i = 0; i < 500; i += 2) {
		bell.address = i * 4;
		bus_doorbell_remove(bus, &bell);
	}
	for (u32 i = 0; i < 500; i++) {
		bus_write(bus, BUS_PIO, i * 4, 2, 0);
		assert_int_equal(take(fd), i % 2);
	}
	close(fd);
}

/* The config-space write that moves its own BAR, and the one that unmaps itself. */
static void moving_write(void *owner, u64 offset, unsigned int size, u64 value)
{
	struct device *d = owner;

	(void)offset;
	(void)size;
	bus_unmap(d->bus, &d->region);
	d->region.base = value;
	d->writes++;
	assert_int_equal(bus_map(d->bus, &d->region), 0);
}

static void test_move_in_handler(void **state)
{
	static const struct bus_ops moving_ops = { .read = device_read, .write = moving_write };
	struct bus *bus = *state;
	struct device d = device_at(BUS_MMIO, 0x1000, 4, 1);

	d.region.ops = &moving_ops;
	assert_int_equal(map(bus, &d), 0);
	for (u32 i = 1; i < 100; i++) {
		bus_write(bus, BUS_MMIO, d.region.base, 4, 0x1000 + 0x10 * i);
		assert_int_equal(d.writes, i);
		assert_int_equal(bus_read(bus, BUS_MMIO, 0x1000 + 0x10 * i, 1), 0x10);
		assert_int_equal(bus_read(bus, BUS_MMIO, 0xff0 + 0x10 * i, 1), 0xff);
	}
	bus_unmap(bus, &d.region);
}

struct readers {
	struct bus *bus;
	atomic_bool stop;
	_Atomic u32 wrong;
};

static void *read_always(void *arg)
{
	struct readers *r = arg;

	while (!atomic_load(&r->stop)) {
		/* mapped all the time, below and above what comes and goes */
		if (bus_read(r->bus, BUS_MMIO, 0x1000, 4) != 0x13121110 ||
		    bus_read(r->bus, BUS_MMIO, 0x2000, 4) != 0x23222120)
			atomic_fetch_add(&r->wrong, 1);
		u64 between = bus_read(r->bus, BUS_MMIO, 0x1800, 1);

		if (between != 0x30 && between != 0xff)
			atomic_fetch_add(&r->wrong, 1);
		bus_write(r->bus, BUS_MMIO, 0x1900, 2, 0);
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct readers readers = { .bus = *state };
	struct device low = device_at(BUS_MMIO, 0x1000, 16, 1),
		      high = device_at(BUS_MMIO, 0x2000, 16, 2);
	struct device between = device_at(BUS_MMIO, 0x1800, 16, 3);
	struct bus_doorbell bell = { BUS_MMIO, 0x1900, 2, false, 0, eventfd(0, EFD_NONBLOCK) };
	struct bus_doorbell others = { BUS_MMIO, 0, 2, false, 0, bell.fd };
	pthread_t threads[2];

	assert_int_equal(map(readers.bus, &low), 0);
	assert_int_equal(map(readers.bus, &high), 0);
	for (int i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, read_always, &readers);
	for (u32 i = 0; i < 300; i++) {
		assert_int_equal(map(readers.bus, &between), 0);
		assert_int_equal(bus_doorbell_add(readers.bus, &bell), 0);
		others.address = 0x3000 + 4 * i;
		assert_int_equal(bus_doorbell_add(readers.bus, &others), 0);
		bus_unmap(readers.bus, &between.region);
		bus_doorbell_remove(readers.bus, &bell);
	}
	atomic_store(&readers.stop, true);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(readers.wrong, 0);
	close(bell.fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_nobody, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sizes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_across_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_overlaps, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many, setup, teardown),
		cmocka_unit_test_setup_teardown(test_doorbells, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_doorbells, setup, teardown),
		cmocka_unit_test_setup_teardown(test_move_in_handler, setup, teardown),
		cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
