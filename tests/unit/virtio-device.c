/* tsan: the device core's registers: features, status, configuration, reset; what a driver sees of
 * them. */
#include <pthread.h>
#include "tests/unit/later.h"

#define RAM   MIB(4)
#define RINGS 0x10000ull

#define ACK	    VIRTIO_CONFIG_S_ACKNOWLEDGE
#define DRIVER	    VIRTIO_CONFIG_S_DRIVER
#define FEATURES_OK VIRTIO_CONFIG_S_FEATURES_OK
#define DRIVER_OK   VIRTIO_CONFIG_S_DRIVER_OK
#define FAILED	    VIRTIO_CONFIG_S_FAILED
#define NEEDS_RESET VIRTIO_CONFIG_S_NEEDS_RESET

struct fixture {
	struct driver_machine machine;
	struct later later;
	struct virtio_device *device;
	struct driver_ring ring;
};

static int up(void **state)
{
	static struct fixture fixture;
	struct fixture *f = &fixture;

	memset(f, 0, sizeof(*f));
	driver_machine_up(&f->machine, RAM, 1, false);
	later_init(&f->later, &f->machine, "later0");
	f->device = &f->later.device;
	driver_machine_go(&f->machine);
	*state = f;
	return 0;
}

static int down(void **state)
{
	struct fixture *f = *state;

	virtio_device_power_on(f->device);
	driver_machine_stop(&f->machine);
	virtio_device_destroy(f->device);
	driver_machine_down(&f->machine);
	return 0;
}

/* A vCPU's access: the lock is the transport's to take. */
#define locked(f, expression)                             \
	({                                                \
		__typeof__(expression) value_;            \
		pthread_mutex_lock(&(f)->device->lock);   \
		value_ = (expression);                    \
		pthread_mutex_unlock(&(f)->device->lock); \
		value_;                                   \
	})

static u64 offered(struct fixture *f, bool legacy)
{
	return locked(f, virtio_features_read(f->device, 0, legacy) |
				 (u64)virtio_features_read(f->device, 1, legacy) << 32);
}

static void write_features(struct fixture *f, u32 select, u32 value, bool legacy)
{
	pthread_mutex_lock(&f->device->lock);
	virtio_features_write(f->device, select, value, legacy);
	pthread_mutex_unlock(&f->device->lock);
}

static bool features_accepted(struct fixture *f, u64 features)
{
	driver_reset(f->device);
	driver_status(f->device, ACK | DRIVER, false);
	write_features(f, 0, (u32)features, false);
	write_features(f, 1, (u32)(features >> 32), false);
	driver_status(f->device, ACK | DRIVER | FEATURES_OK, false);
	return driver_status_now(f->device) & FEATURES_OK;
}

#define V1 BIT64(VIRTIO_F_VERSION_1)

/* 4.1.4.3.1 and 4.1.4.8: windows of 32 bits; 6: VERSION_1 is offered; ANY_LAYOUT and
 * NOTIFY_ON_EMPTY to legacy drivers. */
static void features_offered(void **state)
{
	struct fixture *f = *state;
	const u64 rings = BIT64(VIRTIO_RING_F_INDIRECT_DESC) | BIT64(VIRTIO_RING_F_EVENT_IDX);
	const u64 old = BIT64(VIRTIO_F_ANY_LAYOUT) | BIT64(VIRTIO_F_NOTIFY_ON_EMPTY);

	assert_int_equal(offered(f, false), 0xff | BIT64(50) | rings | V1 |
						    BIT64(VIRTIO_F_RING_RESET) | VIRTIO_OPTIONAL);
	assert_int_equal(offered(f, true), 0xff | rings | old);
	static const u32 beyond[] = { 2, 3, 63, 64, 65, 0x80000000, UINT32_MAX };
	for (size_t i = 0; i < ARRAY_SIZE(beyond); i++)
		assert_int_equal(locked(f, virtio_features_read(f->device, beyond[i], false)), 0);
	assert_int_equal(locked(f, virtio_features_read(f->device, 1, true)), 0);
}

/* 2.2.2: refused when it is not a subset, has no VERSION_1, or the type says no; the same set is
 * always the same. */
static void features_refused(void **state)
{
	struct fixture *f = *state;

	for (int round = 0; round < 2; round++) {
		assert_true(features_accepted(f, V1));
		assert_true(features_accepted(f, offered(f, false)));
		assert_false(features_accepted(f, 0));
		assert_false(features_accepted(f, 0xff));
		assert_false(features_accepted(f, V1 | 1 << 8));
		assert_false(features_accepted(f, V1 | BIT64(63)));
		assert_false(features_accepted(f, V1 | BIT64(VIRTIO_F_ANY_LAYOUT)));
		assert_false(features_accepted(f, V1 | 2)); /* the type's: 2 needs 1 */
		assert_true(features_accepted(f, V1 | 3));
	}
	assert_false(atomic_load(&f->device->running));
}

/* A refused driver may try again with less; bits beyond 64 count as well. */
static void features_second_try(void **state)
{
	struct fixture *f = *state;

	driver_status(f->device, ACK | DRIVER, false);
	write_features(f, 1, (u32)(V1 >> 32), false);
	write_features(f, 2, 1, false);
	write_features(f, 99, 1, false);
	driver_status(f->device, ACK | DRIVER | FEATURES_OK, false);
	assert_int_equal(driver_status_now(f->device), ACK | DRIVER);
	write_features(f, 2, 0, false);
	driver_status(f->device, ACK | DRIVER | FEATURES_OK, false);
	assert_int_equal(driver_status_now(f->device), ACK | DRIVER);
	write_features(f, 99, 0, false);
	write_features(f, 0, 1, false);
	assert_int_equal(f->device->features, V1 | 1);
	driver_status(f->device, ACK | DRIVER | FEATURES_OK, false);
	assert_int_equal(driver_status_now(f->device), ACK | DRIVER | FEATURES_OK);
	/* frozen (3.1.1) */
	write_features(f, 0, 0, false);
	write_features(f, 0, 0, true);
	assert_int_equal(f->device->features, V1 | 1);
	assert_true(virtio_has(f->device, VIRTIO_F_VERSION_1));
}

/* 3.1.2: no FEATURES_OK, nothing to refuse, no bit above 31. */
static void features_legacy(void **state)
{
	struct fixture *f = *state;

	driver_status(f->device, ACK | DRIVER | FEATURES_OK, true);
	assert_int_equal(driver_status_now(f->device), ACK | DRIVER);
	write_features(f, 0, UINT32_MAX, true);
	write_features(f, 1, UINT32_MAX, true);
	assert_int_equal(f->device->features, offered(f, true));
	driver_status(f->device, ACK | DRIVER | DRIVER_OK, true);
	assert_int_equal(driver_status_now(f->device), ACK | DRIVER | DRIVER_OK);
	assert_true(f->device->legacy);
	assert_true(atomic_load(&f->device->running));
	write_features(f, 0, 0, true); /* too late */
	assert_int_equal(f->device->features, offered(f, true));
}

/* Kexec: a modern driver, a reset, a legacy one, and back. */
static void features_forgotten_by_reset(void **state)
{
	struct fixture *f = *state;

	for (int round = 0; round < 3; round++) {
		assert_true(driver_negotiate(f->device, 1));
		driver_ok(f->device);
		assert_false(f->device->legacy);
		driver_reset(f->device);
		assert_int_equal(f->device->features, 0);
		driver_status(f->device, ACK | DRIVER, true);
		write_features(f, 0, 4, true);
		driver_status(f->device, ACK | DRIVER | DRIVER_OK, true);
		assert_int_equal(f->device->features, 4);
		assert_true(f->device->legacy);
		pthread_mutex_lock(&f->device->lock);
		virtio_status_write(f->device, 0, true);
		virtio_reset_wait(f->device);
		assert_int_equal(virtio_status_read(f->device), 0);
		assert_false(f->device->legacy);
		pthread_mutex_unlock(&f->device->lock);
	}
	assert_int_equal(f->later.device_starts, 6);
}

/* 2.1.1, 2.1.2 */
static void status_machine(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(driver_status_now(f->device), 0);
	driver_status(f->device, ACK, false);
	driver_status(f->device, DRIVER, false); /* clears nothing */
	assert_int_equal(driver_status_now(f->device), ACK | DRIVER);
	driver_status(f->device, ACK | DRIVER | NEEDS_RESET | 0x30,
		      false); /* not the driver's, not defined */
	assert_int_equal(driver_status_now(f->device), ACK | DRIVER);
	driver_status(f->device, ACK | DRIVER | DRIVER_OK, false); /* without FEATURES_OK */
	assert_int_equal(driver_status_now(f->device), ACK | DRIVER);
	assert_false(atomic_load(&f->device->running));
	write_features(f, 1, (u32)(V1 >> 32), false);
	driver_status(f->device, ACK | DRIVER | FEATURES_OK | DRIVER_OK,
		      false); /* hasty, but whole */
	assert_int_equal(driver_status_now(f->device), ACK | DRIVER | FEATURES_OK | DRIVER_OK);
	assert_int_equal(f->later.device_starts, 1);
	driver_status(f->device, ACK | DRIVER | FEATURES_OK | DRIVER_OK, false);
	assert_int_equal(f->later.device_starts, 1);
	driver_status(f->device, FAILED, false);
	assert_int_equal(driver_status_now(f->device),
			 ACK | DRIVER | FEATURES_OK | DRIVER_OK | FAILED);
	driver_reset(f->device);
	assert_int_equal(f->later.resets, 1);
}

static u64 config_read(struct fixture *f, u32 offset, u32 size)
{
	return locked(f, virtio_config_read(f->device, offset, size));
}

static void config_write(struct fixture *f, u32 offset, u32 size, u64 value)
{
	pthread_mutex_lock(&f->device->lock);
	virtio_config_write(f->device, offset, size, value);
	pthread_mutex_unlock(&f->device->lock);
}

static u8 generation(struct fixture *f)
{
	return locked(f, virtio_config_generation(f->device));
}

/* 2.5.3: readable from the start, at any width; beyond the end there is nothing. */
static void config_any_width(void **state)
{
	static const u8 bytes[LATER_CONFIG] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 };
	struct fixture *f = *state;
	u64 expected;

	virtio_config_update(f->device, 0, bytes, sizeof(bytes));
	for (u32 size = 1; size <= 8; size++)
		for (u32 offset = 0; offset < 16; offset++) {
			expected = 0;
			for (u32 i = 0; i < size && offset + i < LATER_CONFIG; i++)
				expected |= (u64)bytes[offset + i] << (8 * i);
			assert_int_equal(config_read(f, offset, size), expected);
		}
	assert_int_equal(config_read(f, UINT32_MAX, 8), 0);
	assert_int_equal(config_read(f, UINT32_MAX - 3, 8), 0);
	assert_int_equal(config_read(f, 0, 0), 0);
	assert_int_equal(config_read(f, 0, 16), 0);
}

/* A legacy driver may write it before anything else (3.1.2). */
static void config_writes(void **state)
{
	struct fixture *f = *state;

	config_write(f, 8, 2, 0xbeef);
	config_write(f, 11, 1, 0x77);
	assert_int_equal(f->later.writes, 2);
	assert_int_equal(config_read(f, 8, 4), 0x7700beef);
	/* partly or wholly outside */
	config_write(f, 11, 2, 0xffff);
	config_write(f, 12, 1, 0xff);
	config_write(f, 8, 8, 0xff);
	config_write(f, UINT32_MAX, 4, 0xff);
	config_write(f, UINT32_MAX - 1, 4, 0xff);
	config_write(f, 0, 0, 0xff);
	config_write(f, 0, 9, 0xff);
	assert_int_equal(f->later.writes, 2);
}

/* 4.1.4.3.1: moves exactly when something has changed since the last look, 256 changes included. */
static void config_generation_moves(void **state)
{
	struct fixture *f = *state;
	u8 before = generation(f), byte;

	assert_int_equal(generation(f), before);
	for (int changes = 1; changes <= 512; changes *= 2) {
		for (int i = 0; i < changes; i++) {
			byte = (u8)(config_read(f, 5, 1) + 1);
			virtio_config_update(f->device, 5, &byte, 1);
		}
		assert_int_not_equal(generation(f), before);
		before = generation(f);
		assert_int_equal(generation(f), before);
	}
	byte = (u8)config_read(f, 5, 1);
	virtio_config_update(f->device, 5, &byte, 1); /* no change */
	virtio_config_update(f->device, LATER_CONFIG, &byte, 1);
	virtio_config_update(f->device, UINT32_MAX, &byte, 1);
	assert_int_equal(generation(f), before);
	/* a reset that changes nothing, and one that does */
	driver_reset(f->device);
	assert_int_equal(generation(f), before);
	byte = 0x99;
	virtio_config_update(f->device, 0, &byte, 1);
	before = generation(f);
	driver_reset(f->device);
	assert_int_equal(config_read(f, 0, 1), 0x11);
	assert_int_not_equal(generation(f), before);
}

/* 2.1.2, 2.4: told only while the driver is on. */
static void config_interrupt_when_running(void **state)
{
	struct fixture *f = *state;
	u8 byte = 1;

	virtio_config_update(f->device, 4, &byte, 1);
	assert_int_equal(f->later.config_interrupts, 0);
	assert_true(driver_negotiate(f->device, 0));
	byte = 2;
	virtio_config_update(f->device, 4, &byte, 1);
	assert_int_equal(f->later.config_interrupts, 0);
	driver_ok(f->device);
	virtio_config_update(f->device, 4, &byte, 1);
	assert_int_equal(f->later.config_interrupts, 0); /* nothing changed */
	byte = 3;
	virtio_config_update(f->device, 4, &byte, 1);
	assert_int_equal(f->later.config_interrupts, 1);
	assert_int_equal(virtio_isr_read(f->device), VIRTIO_ISR_CONFIG);
	assert_int_equal(virtio_isr_read(f->device), 0);
	driver_reset(f->device);
	byte = 4;
	virtio_config_update(f->device, 4, &byte, 1);
	assert_int_equal(f->later.config_interrupts, 1);
}

static void queue_registers(void **state)
{
	struct fixture *f = *state;
	struct virtio_queue *queue = virtio_queue_get(f->device, 1);

	assert_ptr_equal(queue, &f->device->queues[1]);
	assert_null(virtio_queue_get(f->device, LATER_QUEUES));
	assert_null(virtio_queue_get(f->device, 0xffff));
	pthread_mutex_lock(&f->device->lock);
	static const u16 bad[] = { 0, 3, LATER_SIZE * 2, 0x8000, 0xffff, LATER_SIZE - 1 };
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		virtio_queue_set_size(queue, bad[i]);
		assert_int_equal(queue->size, LATER_SIZE);
	}
	virtio_queue_set_size(queue, 8);
	assert_int_equal(queue->size, 8);
	virtio_queue_enable(queue);
	virtio_queue_set_size(queue, 16); /* too late */
	assert_int_equal(queue->size, 8);
	queue->msix_vector = 1;
	pthread_mutex_unlock(&f->device->lock);
	driver_reset(f->device);
	assert_int_equal(queue->size, LATER_SIZE);
	assert_int_equal(queue->msix_vector, 0xffff);
	assert_false(queue->enabled);
	assert_int_equal(f->later.queue_resets, LATER_QUEUES);
	virtio_queue_kick(f->device, 0xffff); /* nobody */
}

/* 4.1.4.3.1: packed rings may have any size, from when they are agreed on; until a reset. */
static void queue_sizes_of_packed_rings(void **state)
{
	struct fixture *f = *state;
	struct virtio_queue *queue = &f->device->queues[0];

	driver_status(f->device, ACK | DRIVER, false);
	write_features(f, 1, (u32)((V1 | BIT64(VIRTIO_F_RING_PACKED)) >> 32), false);
	pthread_mutex_lock(&f->device->lock);
	virtio_queue_set_size(queue, 3); /* they may still change */
	assert_int_equal(queue->size, LATER_SIZE);
	pthread_mutex_unlock(&f->device->lock);
	driver_status(f->device, ACK | DRIVER | FEATURES_OK, false);
	pthread_mutex_lock(&f->device->lock);
	static const u16 bad[] = { 0, LATER_SIZE + 1, 0x8000, 0xffff };
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		virtio_queue_set_size(queue, bad[i]);
		assert_int_equal(queue->size, LATER_SIZE);
	}
	virtio_queue_set_size(queue, 3);
	assert_int_equal(queue->size, 3);
	pthread_mutex_unlock(&f->device->lock);
	driver_reset(f->device);
	pthread_mutex_lock(&f->device->lock);
	virtio_queue_set_size(queue, 3);
	assert_int_equal(queue->size, LATER_SIZE);
	pthread_mutex_unlock(&f->device->lock);
}

/* 2.1.2: NEEDS_RESET, told once, forgotten by a reset; with the lock held or not. */
static void broken_until_reset(void **state)
{
	struct fixture *f = *state;

	virtio_device_broken(f->device, "tried before DRIVER_OK");
	assert_int_equal(driver_status_now(f->device), NEEDS_RESET);
	assert_int_equal(f->later.config_interrupts, 0);
	for (int round = 1; round < 3; round++) {
		driver_reset(f->device);
		assert_true(driver_negotiate(f->device, 0));
		driver_ok(f->device);
		pthread_mutex_lock(&f->device->lock);
		virtio_device_broken(f->device, "tried");
		virtio_device_broken(f->device, "tried again");
		pthread_mutex_unlock(&f->device->lock);
		assert_int_equal(driver_status_now(f->device),
				 ACK | DRIVER | FEATURES_OK | DRIVER_OK | NEEDS_RESET);
		assert_int_equal(f->later.config_interrupts, round);
	}
}

#define test(name) cmocka_unit_test_setup_teardown(name, up, down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(features_offered),
		test(features_refused),
		test(features_second_try),
		test(features_legacy),
		test(features_forgotten_by_reset),
		test(status_machine),
		test(config_any_width),
		test(config_writes),
		test(config_generation_moves),
		test(config_interrupt_when_running),
		test(queue_registers),
		test(queue_sizes_of_packed_rings),
		test(broken_until_reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
