/*
 * tsan: the network device as a whole, over a real tap, on both engines: what it offers, how it
 * fares when the tap does not, resets. (Frames: net-rx.c, net-tx.c; commands: net-ctrl.c.)
 */
#include "tests/unit/net-bench.h"

static const struct virtio_net_hdr_v1 no_offload;

/* ---- what it offers (checklist 46) ---- */

static void configuration_says_what_it_is(void **state)
{
	struct bench *b = bench_up(&(struct bench_options){
		.epoll = epoll_of(state), .queues = 3, .mtu = 9000, .features = FEATURES_PLAIN });
	u8 mac[6];

	config_mac(b, mac);
	assert_memory_equal(mac, bench_mac, 6);
	assert_int_equal(config_read(b, 6, 2), VIRTIO_NET_S_LINK_UP);
	assert_int_equal(config_read(b, 8, 2), 3);
	assert_int_equal(config_read(b, 10, 2), 9000);
	assert_int_equal(config_read(b, 12, 4), 10000);
	assert_int_equal(config_read(b, 16, 1), 1);
	/* of what every kernel's tap can; MQ as there are queues */
	assert_int_equal(b->device->offered & (FEATURES_GSO | F(MRG_RXBUF) | F(MQ) | F(CTRL_VLAN)),
			 FEATURES_GSO | F(MRG_RXBUF) | F(MQ) | F(CTRL_VLAN));
	assert_int_equal(!!(b->device->offered & F(HOST_USO)), b->tap.can_uso);
}

static void offers_only_what_the_tap_can(void **state)
{
	struct bench *b =
		bench_up(&(struct bench_options){ .epoll = epoll_of(state), .idle = true });
	struct tap poor = b->tap;
	struct virtio_net *net;
	struct virtio_net_options config = { .name = "net1",
					     .memory = &b->machine.memory,
					     .reactors = b->machine.reactors,
					     .tap = &poor,
					     .mtu = 1500 };
	u64 never = F(CSUM) | F(GUEST_CSUM) | F(CTRL_GUEST_OFFLOADS) | F(HOST_TSO4) | F(HOST_TSO6) |
		    F(HOST_ECN) | F(HOST_UFO) | F(HOST_USO) | NET_GUEST_OFFLOADS | F(MQ);
	struct driver_machine idle;

	/* a machine whose reactors have not started, as at the start of a VM */
	driver_machine_up(&idle, MIB(2), 1, epoll_of(state));
	config.reactors = idle.reactors;
	poor.can_csum = false;
	assert_int_equal(virtio_net_create(&net, &config), 0);
	assert_int_equal(virtio_net_device(net)->offered & never, 0);
	virtio_net_destroy(net);
	poor.can_csum = true;
	poor.can_tso4 = poor.can_tso6 = poor.can_ufo = poor.can_uso =
		false; /* ECN alone is nothing */
	assert_int_equal(virtio_net_create(&net, &config), 0);
	assert_int_equal(virtio_net_device(net)->offered & never,
			 F(CSUM) | F(GUEST_CSUM) | F(CTRL_GUEST_OFFLOADS));
	virtio_net_destroy(net);
	config.mtu = 67;
	assert_int_equal(virtio_net_create(&net, &config), -EINVAL);
	driver_machine_down(&idle);
}

static void refuses_features_without_what_they_need(void **state)
{
	static const u64 wrong[] = {
		F(GUEST_TSO4),
		F(GUEST_TSO6) | F(CSUM),
		F(GUEST_UFO),
		F(GUEST_CSUM) | F(GUEST_ECN),
		F(HOST_TSO4) | F(GUEST_CSUM),
		F(HOST_TSO6),
		F(CSUM) | F(HOST_ECN),
		F(HOST_UFO),
		F(MQ),
		F(CTRL_RX),
		F(CTRL_VLAN),
		F(GUEST_ANNOUNCE),
		F(CTRL_MAC_ADDR),
	};
	struct bench *b = bench_up(
		&(struct bench_options){ .epoll = epoll_of(state), .queues = 2, .idle = true });

	for (u32 i = 0; i < ARRAY_SIZE(wrong); i++) {
		assert_int_equal(wrong[i] & ~b->device->offered, 0);
		assert_false(driver_negotiate(b->device, wrong[i]));
		driver_reset(b->device);
	}
	assert_true(driver_negotiate(b->device, FEATURES_GSO | F(MQ)));
}

static void maps_offloads(void **state)
{
	const u64 csum = F(GUEST_CSUM);

	(void)state;
	assert_int_equal(net_tap_offloads(0), 0);
	assert_int_equal(net_tap_offloads(NET_GUEST_GSO), 0); /* nothing without checksums */
	assert_int_equal(net_tap_offloads(csum), TUN_F_CSUM);
	assert_int_equal(net_tap_offloads(csum | F(GUEST_TSO4)), TUN_F_CSUM | TUN_F_TSO4);
	assert_int_equal(net_tap_offloads(csum | F(GUEST_TSO6)), TUN_F_CSUM | TUN_F_TSO6);
	assert_int_equal(net_tap_offloads(csum | F(GUEST_ECN)), TUN_F_CSUM);
	assert_int_equal(net_tap_offloads(csum | F(GUEST_TSO6) | F(GUEST_ECN)),
			 TUN_F_CSUM | TUN_F_TSO6 | TUN_F_TSO_ECN);
	assert_int_equal(net_tap_offloads(csum | F(GUEST_UFO)), TUN_F_CSUM | TUN_F_UFO);
	/* the tap has the two only together */
	assert_int_equal(net_tap_offloads(csum | F(GUEST_USO4)), TUN_F_CSUM);
	assert_int_equal(net_tap_offloads(csum | F(GUEST_USO4) | F(GUEST_USO6)),
			 TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6);
}

/* ---- faults and ends ---- */

static void survives_a_tap_that_is_down(void **state)
{
	static u8 frame[100], got[FRAME_ROOM];
	char said[1000];
	struct bench *b = bench_up(&(struct bench_options){
		.epoll = epoll_of(state), .features = FEATURES_PLAIN, .down = true });
	struct virtio_net_hdr header;

	frame_fill(frame, sizeof(frame), other_mac, 1);
	capture_begin();
	for (u32 i = 0; i < 5; i++)
		tx_send(b, 0, &no_offload, frame, sizeof(frame));
	capture_end(said, sizeof(said));
	assert_int_equal(bench_counts(b).tx_refused, 5);
	assert_non_null(strstr(said, "ip link set " BENCH_TAP " up"));
	assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1); /* once */
	netns_up(BENCH_TAP, true);
	tx_send(b, 0, &no_offload, frame, sizeof(frame));
	while (recv(b->sock, got, sizeof(got), MSG_DONTWAIT) < 0 && errno == ENETDOWN)
		; /* what the socket has to say of the time before */
	(void)header;
	assert_int_equal(bench_counts(b).tx_frames, 1);
}

static void survives_a_tap_that_vanishes(void **state)
{
	static u8 frame[100];
	char said[1000];
	struct bench *b = bench_up(
		&(struct bench_options){ .epoll = epoll_of(state),
					 .queues = 3,
					 .threads = 2,
					 .features = FEATURES_PLAIN | F(MRG_RXBUF) | F(MQ) });
	u8 generation = virtio_config_generation(b->device);

	assert_int_equal(ctrl_u16(b, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, 3),
			 VIRTIO_NET_OK);
	for (u16 i = 0; i < 3; i++)
		rx_add(b, i, 10, 1526);
	usleep(5000);
	capture_begin();
	netns_delete(BENCH_TAP);
	frame_fill(frame, sizeof(frame), other_mac, 1);
	for (u32 i = 0; i < 5; i++)
		tx_send(b, 0, &no_offload, frame, sizeof(frame)); /* buffers come back */
	driver_wait(config_read(b, 6, 2) == 0);
	usleep(20000);
	capture_end(said, sizeof(said));
	assert_non_null(strstr(said, "has vanished"));
	assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1);
	assert_int_not_equal(virtio_config_generation(b->device), generation);
	/* the device goes on: reset, and a driver that finds no link */
	driver_reset(b->device);
	bench_forget(b);
	bench_negotiate(b, &(struct bench_options){ .features = FEATURES_PLAIN });
	assert_int_equal(config_read(b, 6, 2), 0);
	tx_send(b, 0, &no_offload, frame, sizeof(frame));
	assert_int_equal(ctrl_byte(b, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 1),
			 VIRTIO_NET_OK);
}

/* The same without a buffer to receive into. */
static void notices_a_lost_tap_by_sending(void **state)
{
	static u8 frame[100];
	char said[1000];
	struct bench *b = bench_up(
		&(struct bench_options){ .epoll = epoll_of(state), .features = FEATURES_PLAIN });

	frame_fill(frame, sizeof(frame), other_mac, 1);
	capture_begin();
	netns_delete(BENCH_TAP);
	tx_send(b, 0, &no_offload, frame, sizeof(frame));
	driver_wait(config_read(b, 6, 2) == 0);
	capture_end(said, sizeof(said));
	assert_non_null(strstr(said, "has vanished"));
}

/* A reset calls back the read that waits; nothing of the old driver's memory is written after it.
 */
static void resets_with_reads_in_flight(void **state)
{
	struct bench *b = bench_up(&(struct bench_options){
		.epoll = epoll_of(state), .features = FEATURES_GSO | F(MRG_RXBUF) });

	for (u32 i = 0; i < 20; i++) {
		const u8 *old = memory_at(&b->machine.memory, RX_AT(0), 1526);

		rx_add(b, 0, (u16)(1 + 12 * i), 1526);
		if (i & 1)
			for (u32 j = 0; j < 5; j++)
				world_send(b, 1514, bench_mac, j);
		driver_reset(b->device);
		while (rx_waiting(b, 0))
			rx_take(b, 0);
		memset((u8 *)old, 0x77, 1526 * 256);
		world_send(b, 1514, bench_mac, 0);
		usleep(1000);
		for (u32 j = 0; j < 1526 * 256; j++)
			assert_int_equal(old[j], 0x77);
		bench_forget(b);
		bench_negotiate(b,
				&(struct bench_options){ .features = FEATURES_GSO | F(MRG_RXBUF) });
	}
	b->rx_next[0] = RX_AT(0);
	rx_add(b, 0, 200, 1526);
	/* what waited in the tap comes first */
	world_send(b, 77, bench_mac, 4242);
	do
		rx_take(b, 0);
	while (received.size != 77 + 12);
}

/* RING_RESET of one queue, the device going on. */
static void resets_one_queue(void **state)
{
	struct bench *b = bench_up(&(struct bench_options){
		.epoll = epoll_of(state),
		.features = FEATURES_PLAIN | F(MRG_RXBUF) | BIT64(VIRTIO_F_RING_RESET) });
	struct virtio_queue *queue = &b->device->queues[0];
	static u8 frame[60];
	bool done;

	rx_add(b, 0, 20, 1526);
	usleep(2000);
	pthread_mutex_lock(&b->device->lock);
	virtio_queue_reset(queue);
	pthread_mutex_unlock(&b->device->lock);
	do {
		pthread_mutex_lock(&b->device->lock);
		done = !queue->resetting && !queue->enabled;
		pthread_mutex_unlock(&b->device->lock);
	} while (!done);
	tx_send(b, 0, &no_offload, frame, sizeof(frame));
	assert_int_equal(bench_counts(b).tx_frames, 1);
	driver_ring_init(&b->rings[0], &b->machine.memory, RING_AT(0), 64, false);
	driver_queue(b->device, 0, &b->rings[0]);
	bench_forget(b);
	rx_add(b, 0, 20, 1526);
	world_send(b, 1000, bench_mac, 3);
	rx_expect(b, 0, 1000, bench_mac, 3);
}

int main(void)
{
	static const bool uring = false, epoll = true;
	const struct CMUnitTest tests[] = {
		BOTH(configuration_says_what_it_is),
		BOTH(offers_only_what_the_tap_can),
		BOTH(refuses_features_without_what_they_need),
		cmocka_unit_test(maps_offloads),
		BOTH(survives_a_tap_that_is_down),
		BOTH(survives_a_tap_that_vanishes),
		BOTH(notices_a_lost_tap_by_sending),
		BOTH(resets_with_reads_in_flight),
		BOTH(resets_one_queue),
	};

	netns_enter();
	return driver_run_two(tests);
}
