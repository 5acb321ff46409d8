/* tsan: what of the strict checker needs a host that changes things meanwhile, or none at all: torn
 * reads of configuration, the rules' table, and the silence of a driver that does it right. Every
 * other rule is broken by tests/bare/strict.c. */
#include "tests/unit/virtio-pci-machine.h"
#include <ctype.h>
#include "virtio/strict.h"

static int up_strict(void **state)
{
	int err = up(state);

	return err ? err : strict_attach(&fixture.device, CONFIG_STRICT_WARN);
}

static u64 count(enum strict_rule rule)
{
	return fixture.device.strict->counts[rule];
}

static u64 total(void)
{
	u64 sum = 0;

	for (u32 i = 0; i < STRICT_RULES; i++)
		sum += count(i);
	return sum;
}

static u32 part(u32 offset, u32 size)
{
	return (u32)get(fixture.config.bar, fixture.config.offset + offset, size);
}

static void change(u8 value)
{
	virtio_config_update(&fixture.device, 1, &value, 1);
}

/* 2.5.1: two halves, a change between them, and no look at the generation. */
static void torn_reads(void **state)
{
	(void)state;
	modern_driver(0);
	part(0, 4);
	change(1);
	part(4, 4);
	select_queue(0); /* it goes on to something else */
	assert_int_equal(count(STRICT_CONFIG_TORN), 1);

	/* looked at, before and after: read again, if it matters */
	common_get(VIRTIO_PCI_COMMON_CFGGENERATION, 1);
	part(0, 4);
	change(2);
	part(4, 4);
	common_get(VIRTIO_PCI_COMMON_CFGGENERATION, 1);
	select_queue(0);
	/* a change before the first half, one after the second, and two fields */
	change(3);
	part(0, 4);
	part(4, 4);
	select_queue(0);
	common_get(VIRTIO_PCI_COMMON_CFGGENERATION, 1);
	part(0, 4);
	part(4, 4);
	change(4);
	select_queue(0);
	common_get(VIRTIO_PCI_COMMON_CFGGENERATION, 1);
	part(4, 4);
	change(5);
	part(8, 4);
	select_queue(0);
	assert_int_equal(count(STRICT_CONFIG_TORN), 1);
	assert_int_equal(total(), 1);
}

/* Drivers of both layouts, many times, resets between them under load. */
static void nothing_wrong(void **state)
{
	(void)state;
	for (u32 i = 0; i < 20; i++) {
		set_status(0);
		driver_wait(status() == 0);
		modern_driver(i % 2 ? BIT64(VIRTIO_RING_F_INDIRECT_DESC) : 0);
		for (u32 n = 0; n < 5; n++)
			round_trip(0);
		offer();
		notify_io(0);
		set_status(0);
		driver_wait(status() == 0);
		legacy_driver(0);
		round_trip(0);
		io_put(VIRTIO_PCI_STATUS, 1, 0);
	}
	assert_int_equal(total(), 0);
}

/* Off, nothing of it is on the way of a buffer or a doorbell: both are served by the very functions
 * that there are without a checker. */
static void off_costs_nothing(void **state)
{
	const struct virtio_queue *queue = &fixture.device.queues[0];
	void (*const doorbell)(struct reactor_event *) = queue->doorbell.fired;

	(void)state;
	assert_null(fixture.device.strict);
	modern_driver(0);
	round_trip(0);
	assert_ptr_equal(queue->ring.format, &vq_split);
	set_status(0);
	driver_wait(status() == 0);
	assert_int_equal(strict_attach(&fixture.device, CONFIG_STRICT_OFF), 0);
	assert_null(fixture.device.strict);
	assert_ptr_equal(queue->doorbell.fired, doorbell);
	/* and on, it is on both */
	assert_int_equal(strict_attach(&fixture.device, CONFIG_STRICT_WARN), 0);
	assert_ptr_not_equal(queue->doorbell.fired, doorbell);
	modern_driver(0);
	round_trip(0);
	assert_ptr_not_equal(queue->ring.format, &vq_split);
}

/* One violation: one line until the reset, counted each time, and after the reset told again. */
static void counted_each_time(void **state)
{
	(void)state;
	modern_driver(0);
	for (u32 i = 0; i < 3; i++)
		common_put(VIRTIO_PCI_COMMON_NUMQ, 2, 1);
	assert_int_equal(count(STRICT_REGISTER_READONLY), 3);
	assert_int_equal(fixture.device.strict->told, BIT64(STRICT_REGISTER_READONLY));
	set_status(0);
	driver_wait(status() == 0);
	assert_int_equal(fixture.device.strict->told, 0);
	assert_int_equal(count(STRICT_REGISTER_READONLY), 3);
}

static void failing(void **state)
{
	(void)state;
	fixture.device.strict->mode = CONFIG_STRICT_FAIL;
	modern_driver(0);
	/* a SHOULD is no reason */
	part(0, 4);
	change(1);
	part(4, 4);
	select_queue(0);
	assert_int_equal(count(STRICT_CONFIG_TORN), 1);
	assert_int_equal(status() & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
	common_put(VIRTIO_PCI_COMMON_NUMQ, 2, 1);
	assert_int_not_equal(status() & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
	set_status(0);
	driver_wait(status() == 0);
	modern_driver(0);
	round_trip(0);
}

static void rules(void **state)
{
	(void)state;
	for (u32 i = 0; i < STRICT_RULES; i++) {
		const struct strict_rule_text *rule = &strict_rules[i];

		assert_non_null(rule->name);
		assert_true(strlen(rule->name) <= 20);
		assert_true(isdigit((unsigned char)rule->section[0]));
		assert_non_null(rule->text);
		for (u32 j = 0; j < i; j++)
			assert_string_not_equal(rule->name, strict_rules[j].name);
	}
}

/* Bytes out of a list of buffers, wherever they are, and no more than there are. */
static void read_buffers(void **state)
{
	const struct iovec iov[] = { { "abc", 3 }, { "", 0 }, { "defgh", 5 } };
	char to[16];

	(void)state;
	for (u32 offset = 0; offset <= 8; offset++)
		for (u32 size = 0; size <= sizeof(to); size++) {
			u32 there = size < 8 - offset ? size : 8 - offset;

			memset(to, '.', sizeof(to));
			strict_read(iov, ARRAY_SIZE(iov), offset, to, size);
			assert_memory_equal(to, "abcdefgh" + offset, there);
			for (u32 i = there; i < sizeof(to); i++)
				assert_int_equal(to[i], '.');
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(torn_reads, up_strict, down),
		cmocka_unit_test_setup_teardown(nothing_wrong, up_strict, down),
		cmocka_unit_test_setup_teardown(off_costs_nothing, up, down),
		cmocka_unit_test_setup_teardown(counted_each_time, up_strict, down),
		cmocka_unit_test_setup_teardown(failing, up_strict, down),
		cmocka_unit_test(rules),
		cmocka_unit_test(read_buffers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
