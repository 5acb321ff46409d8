/* tsan: the entropy device, from doorbell to interrupt, on both engines. */
#include "tests/unit/driver.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include "virtio/rng.h"

#define RAM    MIB(4)
#define RINGS  0x10000ull
#define BUFFER 0x100000ull

struct fixture {
	struct driver_machine machine;
	struct virtio_rng *rng;
	struct virtio_device *device;
	struct driver_ring ring;
	int interrupt;
};

/* Of the next fixture, bytes a second. */
static u32 rate;

static int up(void **state, bool epoll)
{
	static struct fixture fixture;
	struct fixture *f = &fixture;

	memset(f, 0, sizeof(*f));
	driver_machine_up(&f->machine, RAM, 1, epoll);
	assert_int_equal(virtio_rng_create(&f->rng, &f->machine.memory, f->machine.reactors, 0,
					   VIRTIO_OPTIONAL, rate),
			 0);
	f->device = virtio_rng_device(f->rng);
	f->interrupt = driver_interrupt(&f->machine, &f->device->queues[0]);
	driver_machine_go(&f->machine);
	assert_true(driver_negotiate(f->device, BIT64(VIRTIO_RING_F_INDIRECT_DESC)));
	driver_ring_init(&f->ring, &f->machine.memory, RINGS, 16, false);
	driver_queue(f->device, 0, &f->ring);
	driver_ok(f->device);
	*state = f;
	return 0;
}

static int up_uring(void **state)
{
	return up(state, false);
}

static int up_epoll(void **state)
{
	return up(state, true);
}

static int down(void **state)
{
	struct fixture *f = *state;

	virtio_device_power_on(f->device);
	driver_machine_stop(&f->machine);
	virtio_rng_destroy(f->rng);
	driver_machine_down(&f->machine);
	close(f->interrupt);
	return 0;
}

static void ask(struct fixture *f, const struct driver_part *parts, u16 count, u32 *written)
{
	u32 head;
	int added = driver_add(&f->ring, parts, count);

	assert_true(added >= 0);
	driver_kick(&f->ring);
	driver_wait_interrupt(f->interrupt);
	driver_wait_used(&f->ring, &head, written);
	assert_int_equal(head, added);
}

/* 5.4.6.1: random bytes, all over the buffer, and nothing beyond it. */
static void fills_buffers(void **state)
{
	struct fixture *f = *state;
	const struct driver_part parts[] = { { BUFFER, 100, true }, { BUFFER + 4096, 28, true } };
	u8 *bytes = memory_at(&f->machine.memory, BUFFER, 8192), first[128];
	u32 written;

	ask(f, parts, 2, &written);
	assert_int_equal(written, 128);
	memcpy(first, bytes, 100);
	memcpy(first + 100, bytes + 4096, 28);
	for (int i = 0; i < 128; i += 16) {
		static const u8 zero[16];

		assert_memory_not_equal(first + i, zero, 16);
	}
	assert_int_equal(bytes[100] | bytes[4096 + 28], 0);
	ask(f, parts, 2, &written);
	assert_memory_not_equal(bytes, first, 100);
}

static void one_byte_is_enough(void **state)
{
	struct fixture *f = *state;
	const struct driver_part part = { BUFFER, 1, true };
	u32 written;

	ask(f, &part, 1, &written);
	assert_int_equal(written, 1);
}

/* A buffer of any size costs the reactor a bounded time. */
static void takes_no_more_than_its_share(void **state)
{
	struct fixture *f = *state;
	const struct driver_part part = { BUFFER, MIB(2), true };
	const u8 *bytes = memory_at(&f->machine.memory, BUFFER, MIB(2));
	u32 written;

	ask(f, &part, 1, &written);
	assert_int_equal(written, KIB(64));
	for (u64 i = KIB(64); i < MIB(2); i++)
		assert_int_equal(bytes[i], 0);
}

/* A readable buffer is the driver's fault, and must never be written (2.7.5.1). */
static void readable_buffer_breaks_it(void **state)
{
	struct fixture *f = *state;
	const struct driver_part part = { BUFFER, 16, false };
	const u8 *bytes = memory_at(&f->machine.memory, BUFFER, 16);
	static const u8 zero[16];

	assert_true(driver_add(&f->ring, &part, 1) >= 0);
	driver_kick(&f->ring);
	driver_wait(driver_status_now(f->device) & VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_memory_equal(bytes, zero, 16);
	assert_false(driver_used(&f->ring, NULL, NULL));
}

/* 2.7.5.1: of a buffer with both kinds of parts only the writable one counts. */
static void leaves_readable_parts_alone(void **state)
{
	struct fixture *f = *state;
	const struct driver_part parts[] = { { BUFFER, 16, false }, { BUFFER + 4096, 16, true } };
	const u8 *bytes = memory_at(&f->machine.memory, BUFFER, 8192);
	static const u8 zero[16];
	u32 written;

	ask(f, parts, 2, &written);
	assert_int_equal(written, 16);
	assert_memory_equal(bytes, zero, 16);
	assert_memory_not_equal(bytes + 4096, zero, 16);
}

static int up_slow_uring(void **state)
{
	rate = 4000;
	return up(state, false);
}

static int up_slow_epoll(void **state)
{
	rate = 4000;
	return up(state, true);
}

static int down_slow(void **state)
{
	rate = 0;
	return down(state);
}

/* So many bytes, of which one second's may come at once, in buffers of 500. */
static void takes_its_time(struct fixture *f, u64 bytes)
{
	const struct driver_part large = { BUFFER, KIB(32), true }, part = { BUFFER, 500, true };
	u64 since = driver_ms(), taken;
	u32 written;

	ask(f, &large, 1, &written);
	assert_int_equal(written, rate);
	for (taken = written; taken < bytes; taken += written) {
		ask(f, &part, 1, &written);
		assert_int_equal(written, 500);
		/* (a clock of whole milliseconds) */
		assert_true(taken + written - rate <= (driver_ms() - since + 1) * rate / 1000);
	}
}

/* And no buffer comes back empty, not even one that is larger than all that (5.4.6.1). */
static void keeps_to_its_rate(void **state)
{
	struct fixture *f = *state;
	const struct driver_part part = { BUFFER, 1, true };
	const u8 *bytes = memory_at(&f->machine.memory, BUFFER, KIB(32));
	u32 written;

	takes_its_time(f, 2 * rate);
	assert_int_equal(bytes[rate] | bytes[KIB(32) - 1], 0);
	/* nothing is saved for longer */
	usleep(300000);
	ask(f, &part, 1, &written);
	usleep(1000000);
	takes_its_time(f, rate + 500);
}

/* One that waits for its bytes is no hindrance to a reset. */
static void resets_while_it_waits(void **state)
{
	struct fixture *f = *state;
	const struct driver_part part = { BUFFER, 4000, true };
	u32 written;

	ask(f, &part, 1, &written);
	for (u32 n = 0; n < 3; n++) {
		assert_true(driver_add(&f->ring, &part, 1) >= 0);
		driver_kick(&f->ring);
		usleep(1000);
		assert_false(driver_used(&f->ring, NULL, NULL));
		driver_reset(f->device);
		assert_true(driver_negotiate(f->device, BIT64(VIRTIO_RING_F_INDIRECT_DESC)));
		driver_ring_init(&f->ring, &f->machine.memory, RINGS, 16, false);
		driver_queue(f->device, 0, &f->ring);
		driver_ok(f->device);
	}
	ask(f, &(struct driver_part){ BUFFER, 1, true }, 1, &written);
	assert_int_equal(written, 1);
}

/* From here on getrandom(2) fails in this process, so what needs it is the last test. */
static int up_without_entropy(void **state)
{
	struct sock_filter program[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getrandom, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EIO),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog filter = { ARRAY_SIZE(program), program };

	assert_int_equal(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	assert_int_equal(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter), 0);
	return up(state, false);
}

/* 5.4.6.1: a buffer without a random byte in it is not given back; the driver learns it otherwise.
 */
static void gives_no_empty_buffers(void **state)
{
	struct fixture *f = *state;
	const struct driver_part part = { BUFFER, 16, true };

	assert_true(driver_add(&f->ring, &part, 1) >= 0);
	driver_kick(&f->ring);
	driver_wait(driver_status_now(f->device) & VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_false(driver_used(&f->ring, NULL, NULL));
}

/* What one doorbell brings is published together: one interrupt. */
static void one_interrupt_a_batch(void **state)
{
	struct fixture *f = *state;
	const struct driver_part part = { BUFFER, 16, true };

	for (u32 batch = 1; batch <= 10; batch++) {
		for (u32 i = 0; i < 16; i++)
			assert_true(driver_add(&f->ring, &part, 1) >= 0);
		driver_kick(&f->ring);
		for (u32 i = 0; i < 16; i++)
			driver_wait_used(&f->ring, NULL, NULL);
		driver_wait_interrupt(f->interrupt);
		assert_int_equal(
			__atomic_load_n(&f->device->queues[0].counts.interrupts, __ATOMIC_RELAXED),
			batch);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(fills_buffers, up_uring, down),
		cmocka_unit_test_setup_teardown(fills_buffers, up_epoll, down),
		cmocka_unit_test_setup_teardown(one_interrupt_a_batch, up_uring, down),
		cmocka_unit_test_setup_teardown(one_interrupt_a_batch, up_epoll, down),
		cmocka_unit_test_setup_teardown(one_byte_is_enough, up_uring, down),
		cmocka_unit_test_setup_teardown(takes_no_more_than_its_share, up_epoll, down),
		cmocka_unit_test_setup_teardown(readable_buffer_breaks_it, up_uring, down),
		cmocka_unit_test_setup_teardown(leaves_readable_parts_alone, up_uring, down),
	};
	const struct CMUnitTest slow[] = {
		cmocka_unit_test_setup_teardown(keeps_to_its_rate, up_slow_uring, down_slow),
		cmocka_unit_test_setup_teardown(keeps_to_its_rate, up_slow_epoll, down_slow),
		cmocka_unit_test_setup_teardown(resets_while_it_waits, up_slow_uring, down_slow),
		cmocka_unit_test_setup_teardown(resets_while_it_waits, up_slow_epoll, down_slow),
	};
	const struct CMUnitTest last[] = {
		cmocka_unit_test_setup_teardown(gives_no_empty_buffers, up_without_entropy, down),
	};
	int failed = driver_run_two(tests) + driver_run_two(slow);

	return failed + cmocka_run_group_tests(last, NULL, NULL);
}
