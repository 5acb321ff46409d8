/* tsan: what the network device promises whatever its tap can and whoever drives it: sets of
 * features that can be taken whole, an MTU that stays, memory that it may not write or not yet. */
#include "tests/unit/net-bench.h"

static struct bench *up(u64 features, int mtu)
{
	return bench_up(&(struct bench_options){ .mtu = mtu, .features = features });
}

/* 2.2.2: no feature is offered without what it needs. */
static void offers_consistent_sets(void **state)
{
	struct bench *b = bench_up(&(struct bench_options){ .idle = true });

	(void)state;
	for (u32 i = 0; i < 64; i++) {
		struct driver_machine idle;
		struct virtio_net *net;
		struct tap tap = b->tap;
		struct virtio_net_options options = { .name = "net1", .tap = &tap, .mtu = 1500 };
		u64 offered;

		tap.can_csum = i & 1;
		tap.can_tso4 = i & 2;
		tap.can_tso6 = i & 4;
		tap.can_ecn = i & 8;
		tap.can_ufo = i & 16;
		tap.can_uso = i & 32;
		driver_machine_up(&idle, MIB(2), 1, true);
		options.memory = &idle.memory;
		options.reactors = idle.reactors;
		assert_int_equal(virtio_net_create(&net, &options), 0);
		offered = virtio_net_device(net)->offered;
		assert_true(net_features_consistent(offered));
		/* packed rings, buffers in order, RSS, hash reports, coalescing, RSC, standby: not
		 * here */
		assert_int_equal(offered & (BIT64(34) | BIT64(35) | BIT64(52) | BIT64(53) |
					    BIT64(57) | BIT64(60) | BIT64(61) | BIT64(62)),
				 0);
		virtio_net_destroy(net);
		driver_machine_down(&idle);
	}
}

/* 5.1.4.1: whatever the host does to its end. */
static void mtu_stays(void **state)
{
	struct bench *b = up(FEATURES_PLAIN | F(MRG_RXBUF), 1400);
	u8 generation;

	(void)state;
	pthread_mutex_lock(&b->device->lock);
	generation = virtio_config_generation(b->device);
	pthread_mutex_unlock(&b->device->lock);
	netns_mtu(BENCH_TAP, 1480);
	rx_add(b, 0, 4, 1526);
	world_send(b, 1000, bench_mac, 1);
	rx_expect(b, 0, 1000, bench_mac, 1);
	assert_int_equal(config_read(b, 10, 2), 1400);
	driver_reset(b->device);
	assert_int_equal(config_read(b, 10, 2), 1400);
	pthread_mutex_lock(&b->device->lock);
	assert_int_equal(virtio_config_generation(b->device), generation);
	pthread_mutex_unlock(&b->device->lock);
}

/* 2.7.5.1: a receive buffer that begins with something to read is written behind that. */
static void writes_only_what_is_writable(void **state)
{
	struct bench *b = up(FEATURES_PLAIN, 0);
	const struct driver_part parts[] = { { RX_AT(0), 64, false },
					     { RX_AT(0) + 64, 1526, true } };
	u8 *bytes = memory_at(&b->machine.memory, RX_AT(0), 64 + 1526), before[64];
	static u8 expected[500];
	u32 written = 0;

	(void)state;
	memset(bytes, 0xa5, 64 + 1526);
	memcpy(before, bytes, sizeof(before));
	assert_true(driver_add(&b->rings[0], parts, 2) >= 0);
	rx_kick(b, 0);
	world_send(b, sizeof(expected), bench_mac, 4);
	driver_wait_used(&b->rings[0], NULL, &written);
	assert_int_equal(written, 12 + sizeof(expected));
	frame_fill(expected, sizeof(expected), bench_mac, 4);
	assert_memory_equal(bytes + 64 + 12, expected, sizeof(expected));
	assert_memory_equal(bytes, before, sizeof(before));
	for (u32 i = 64 + written; i < 64 + 1526; i++)
		assert_int_equal(bytes[i], 0xa5);
}

/* A datagram to be cut, as a tap that cuts for IPv4 and IPv6 alike marks both. */
static void wire_send_datagram(struct bench *b, u32 seed)
{
	static u8 frame[12 + 3000];
	const struct virtio_net_hdr header = { .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
					       .gso_type = VIRTIO_NET_HDR_GSO_UDP_L4,
					       .gso_size = 1200 };

	memcpy(frame, &header, sizeof(header));
	frame_fill(frame + 12, sizeof(frame) - 12, broadcast_mac, seed);
	assert_int_equal(send(b->sock, frame, sizeof(frame), 0), sizeof(frame));
}

/* 5.1.6.4.1: to a driver that takes it for one of the two only, it may be the other. */
static void drops_segments_of_the_other_version(void **state)
{
	const u64 features = FEATURES_PLAIN | F(MRG_RXBUF);
	static const u64 one[] = { F(GUEST_USO4), F(GUEST_USO6) };
	char said[1000];
	struct bench *b;

	(void)state;
	capture_begin(); /* sockets know nothing of offloads, which is said */
	b = bench_up(&(struct bench_options){
		.wire = true, .features = features | F(GUEST_USO4) | F(GUEST_USO6) });
	capture_end(said, sizeof(said));
	rx_add(b, 0, 20, 1526);
	wire_send_datagram(b, 1);
	rx_expect(b, 0, 3000, broadcast_mac, 1);
	for (u32 i = 0; i < ARRAY_SIZE(one); i++) {
		driver_reset(b->device);
		bench_forget(b);
		bench_negotiate(b, &(struct bench_options){ .features = features | one[i] });
		rx_add(b, 0, 20, 1526);
		wire_send_datagram(b, 2);
		driver_wait(bench_counts(b).rx_invalid == i + 1);
	}
	assert_int_equal(bench_counts(b).rx_frames, 1);
}

/* A legacy driver's new address goes to the reactors by messages. One that comes when that driver
 * is gone leaves alone what the next one's start sets up: the thread sanitizer watches. */
static void renews_nothing_after_a_reset(void **state)
{
	struct bench *b = bench_up(&(struct bench_options){ .idle = true });

	(void)state;
	for (u32 i = 0; i < 500; i++) {
		driver_status(b->device, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER,
			      true);
		pthread_mutex_lock(&b->device->lock);
		virtio_features_write(b->device, 0, i & 1 ? (u32)F(MRG_RXBUF) : 0, true);
		pthread_mutex_unlock(&b->device->lock);
		driver_status(b->device, 7, true); /* without a queue */
		pthread_mutex_lock(&b->device->lock);
		virtio_config_write(b->device, 5, 1, i);
		pthread_mutex_unlock(&b->device->lock);
		driver_reset(b->device);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(offers_consistent_sets, bench_down),
		cmocka_unit_test_teardown(mtu_stays, bench_down),
		cmocka_unit_test_teardown(writes_only_what_is_writable, bench_down),
		cmocka_unit_test_teardown(drops_segments_of_the_other_version, bench_down),
		cmocka_unit_test_teardown(renews_nothing_after_a_reset, bench_down),
	};

	netns_enter();
	return driver_run_all(tests);
}
