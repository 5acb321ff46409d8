/*
 * What is asked of the kernel's vhost-net, in which order, and what is said when it is not to be
 * had.
 */
#include "tests/unit/driver.h"
#include "tests/unit/netns.h"
#include "tests/unit/vhost-fake.h"

static int open_fake(struct vhost *vhost, u16 pairs)
{
	return vhost_open(vhost, &(struct vhost_config){
					 .name = "tap0", .pairs = pairs, .kernel = &fake_kernel });
}

/* One line with all of the words. */
static void opens_not(int error, u32 most, const char *words[])
{
	char said[1000];
	struct vhost vhost;

	fake_init();
	fake.open_error = error;
	fake.open_most = most;
	capture_begin();
	assert_int_equal(open_fake(&vhost, 3), error);
	capture_end(said, sizeof(said));
	assert_int_equal(vhost.pairs, 0);
	for (; *words; words++)
		if (!strstr(said, *words))
			fail_msg("no '%s' in: %s", *words, said);
	assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1);
	for (u32 i = 0; i < fake.opened; i++)
		assert_int_equal(fcntl(fake.pairs[i].fd, F_GETFD), -1); /* nothing is left open */
}

static void says_why_it_cannot_be_had(void **state)
{
	(void)state;
	opens_not(-ENOENT, 0, (const char *[]){ "tap0: vhost=on", "modprobe vhost_net", NULL });
	opens_not(-ENODEV, 0, (const char *[]){ "modprobe vhost_net", NULL });
	opens_not(-EACCES, 0, (const char *[]){ "usermod -aG kvm", "Permission denied", NULL });
	opens_not(-EPERM, 0, (const char *[]){ "usermod -aG kvm", NULL });
	opens_not(-EMFILE, 2, (const char *[]){ "ulimit -n", "without vhost-net", NULL });
	opens_not(-ENOMEM, 1, (const char *[]){ "Cannot allocate", "without vhost-net", NULL });
}

static void wants_one_of_virtio_1(void **state)
{
	struct vhost vhost;
	char said[1000];

	(void)state;
	fake_init();
	fake.features &= ~BIT64(VIRTIO_F_VERSION_1);
	capture_begin();
	assert_int_equal(open_fake(&vhost, 1), -EOPNOTSUPP);
	capture_end(said, sizeof(said));
	assert_non_null(strstr(said, "before virtio 1.0"));
	assert_int_equal(vhost.pairs, 0);
	fake_init();
	fake_fail(VHOST_SET_OWNER, -ENOMEM, 1);
	capture_begin();
	assert_int_equal(open_fake(&vhost, 2), -ENOMEM);
	capture_end(said, sizeof(said));
	assert_int_equal(vhost.pairs, 0);
}

static void prepares_each_pair(void **state)
{
	u8 low, high;
	struct memory memory = {
		.low = &low, .low_size = GIB(3), .high = &high, .high_size = GIB(1)
	};
	struct vhost vhost;

	(void)state;
	fake_init();
	assert_int_equal(open_fake(&vhost, 2), 0);
	assert_int_equal(vhost_prepare(&vhost, &memory, 77), 0);
	for (u32 i = 0; i < 2; i++) {
		const struct fake_pair *pair = &fake.pairs[i];

		assert_int_equal(pair->regions, 2);
		assert_int_equal(pair->region[0].guest_phys_addr, 0);
		assert_int_equal(pair->region[0].memory_size, GIB(3));
		assert_int_equal(pair->region[0].userspace_addr, (uintptr_t)&low);
		assert_int_equal(pair->region[1].guest_phys_addr, GIB(4));
		assert_int_equal(pair->region[1].memory_size, GIB(1));
		assert_int_equal(pair->region[1].userspace_addr, (uintptr_t)&high);
		for (u32 n = 0; n < VHOST_RINGS; n++) {
			assert_int_equal(pair->rings[n].error, 77);
			assert_int_equal(pair->rings[n].poll_us, 0);
		}
	}
	vhost_close(&vhost);
	assert_int_equal(vhost.pairs, 0);

	memory.high_size = 0;
	fake_init();
	assert_int_equal(open_fake(&vhost, 1), 0);
	assert_int_equal(vhost_prepare(&vhost, &memory, 77), 0);
	assert_int_equal(fake.pairs[0].regions, 1);
	vhost_close(&vhost);
}

static void says_what_cannot_be_prepared(void **state)
{
	struct memory memory = { .low_size = MIB(1) };
	struct vhost vhost;
	char said[1000];

	(void)state;
	fake_init();
	assert_int_equal(open_fake(&vhost, 2), 0);
	fake_fail(VHOST_SET_MEM_TABLE, -EFAULT, 1);
	capture_begin();
	assert_int_equal(vhost_prepare(&vhost, &memory, -1), -EFAULT);
	capture_end(said, sizeof(said));
	assert_non_null(strstr(said, "tap0: vhost=on: vhost-net cannot be prepared"));
	vhost_close(&vhost);
}

static void rings_start_stop_and_go_on(void **state)
{
	static u8 areas[4096] __attribute__((aligned(16)));
	const struct vhost_place place = { 128, areas, areas + 2048, areas + 3000 };
	struct vhost vhost;
	struct fake_ring ring;
	u16 base = 7;

	(void)state;
	fake_init();
	assert_int_equal(open_fake(&vhost, 2), 0);
	assert_int_equal(vhost_set_features(&vhost, BIT64(VIRTIO_F_VERSION_1)), 0);
	assert_int_equal(fake_told(0), BIT64(VIRTIO_F_VERSION_1));
	assert_int_equal(fake_told(1), BIT64(VIRTIO_F_VERSION_1));
	assert_int_equal(vhost_set_features(&vhost, BIT64(VIRTIO_F_RING_PACKED)), -EOPNOTSUPP);
	/* not before it has a place */
	assert_int_equal(vhost_ring_start(&vhost, 1, VHOST_TX, 0, 11, 12), -EFAULT);
	assert_int_equal(vhost_ring_place(&vhost, 1, VHOST_TX, &place, 10), 0);
	assert_int_equal(vhost_ring_start(&vhost, 1, VHOST_TX, 5, 11, 12), 0);
	ring = fake_ring(1, VHOST_TX);
	assert_int_equal(ring.size, 128);
	assert_int_equal(ring.descriptors, (uintptr_t)areas);
	assert_int_equal(ring.available, (uintptr_t)(areas + 2048));
	assert_int_equal(ring.used, (uintptr_t)(areas + 3000));
	assert_int_equal(ring.base, 5);
	assert_int_equal(ring.kick, 10);
	assert_int_equal(ring.call, 11);
	assert_int_equal(ring.backend, 12);
	assert_false(fake_runs(0, VHOST_TX));
	assert_false(fake_runs(1, VHOST_RX));
	assert_int_equal(vhost_ring_call(&vhost, 1, VHOST_TX, -1), 0);
	assert_int_equal(fake_ring(1, VHOST_TX).call, -1);
	fake_progress(1, VHOST_TX, 65535);
	assert_int_equal(vhost_ring_stop(&vhost, 1, VHOST_TX, &base), 0);
	assert_int_equal(base, 65535);
	assert_false(fake_runs(1, VHOST_TX));
	assert_int_equal(vhost_ring_start(&vhost, 1, VHOST_TX, base, 13, 12), 0);
	assert_int_equal(fake_ring(1, VHOST_TX).base, 65535);
	assert_int_equal(vhost_ring_place(&vhost, 1, VHOST_TX, &place, 10), -EBUSY);
	assert_int_equal(vhost_ring_stop(&vhost, 1, VHOST_TX, &base), 0);
	assert_int_equal(vhost_ring_leave(&vhost, 1, VHOST_TX), 0);
	assert_int_equal(fake_ring(1, VHOST_TX).kick, -1);
	assert_int_equal(vhost_pair_poll(&vhost, 0, 30), 0);
	assert_int_equal(fake_ring(0, VHOST_RX).poll_us, 30);
	assert_int_equal(fake_ring(0, VHOST_TX).poll_us, 30);
	assert_int_equal(fake_ring(1, VHOST_RX).poll_us, 0);
	vhost_close(&vhost);
	vhost_close(&vhost); /* does no harm */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(says_why_it_cannot_be_had),
		cmocka_unit_test(wants_one_of_virtio_1),
		cmocka_unit_test(prepares_each_pair),
		cmocka_unit_test(says_what_cannot_be_prepared),
		cmocka_unit_test(rings_start_stop_and_go_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
