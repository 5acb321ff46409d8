/* tsan: what the block device offers, and the cache modes that come of what is taken. */
#include "tests/unit/blk-fixture.h"

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
		if (!cases[i].wce)
			assert_int_equal(config_read(f, C_WRITEBACK, 1), !cases[i].user);
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
	config_write(f, C_OPT_IO, 8, UINT32_MAX); /* writeback is its fifth byte */
	assert_int_equal(config_read(f, C_WRITEBACK, 1), 0);
	config_write(f, C_OPT_IO, 8, BIT64(32));
	assert_int_equal(config_read(f, C_WRITEBACK, 1), 1);
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
	f->rings[0].packed = f->rings[0].in_order = false;
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
	assert_int_equal(
		f->device->offered & (BIT(0) | BIT(4) | BIT(7) | BIT(15) | BIT(16) | BIT(17)), 0);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_write_through),
		cmocka_unit_test(test_writeback_field),
		cmocka_unit_test(test_legacy_driver),
		cmocka_unit_test(test_configuration),
	};

	return on_both_engines(tests);
}
