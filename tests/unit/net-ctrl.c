/*
 * tsan: the network device's control queue and what its commands change: receive filters, address,
 * VLANs, announcement, queue pairs, offloads; a driver's own mistakes. Over a real tap, on both
 * engines.
 */
#include "tests/unit/net-bench.h"

#define FEATURES (FEATURES_PLAIN | F(MRG_RXBUF))

static const struct virtio_net_hdr_v1 no_offload;

static struct bench *up(void **state, u64 features, u16 queues, u32 threads)
{
	return bench_up(&(struct bench_options){ .epoll = *(const bool *)*state,
						 .features = features,
						 .queues = queues,
						 .threads = threads });
}

static void renegotiate(struct bench *b, u64 features)
{
	driver_reset(b->device);
	bench_forget(b);
	bench_negotiate(b, &(struct bench_options){ .features = features });
}

#define assert_ok(ack)	    assert_int_equal(ack, VIRTIO_NET_OK)
#define assert_refused(ack) assert_int_equal(ack, VIRTIO_NET_ERR)

/* Which of the four kinds of frames come: own, other, group, broadcast. */
static void assert_hears(struct bench *b, bool own, bool other, bool group)
{
	if (driver_room(&b->rings[0]) > 20)
		rx_add(b, 0, (u16)(driver_room(&b->rings[0]) - 10), 1526);
	world_send(b, 60, bench_mac, 1);
	world_send(b, 61, other_mac, 2);
	world_send(b, 62, group_mac, 3);
	if (own)
		rx_expect(b, 0, 60, bench_mac, 1);
	if (other)
		rx_expect(b, 0, 61, other_mac, 2);
	if (group)
		rx_expect(b, 0, 62, group_mac, 3);
	rx_expect_nothing(b, 0);
}

/* Item 51. */
static void receive_modes(void **state)
{
	struct bench *b = up(state, FEATURES, 1, 1);

	assert_hears(b, true, false, false);
	assert_ok(ctrl_byte(b, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 1));
	assert_hears(b, true, true, true);
	assert_ok(ctrl_byte(b, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 0));
	assert_hears(b, true, false, false);
	assert_ok(ctrl_byte(b, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLMULTI, 1));
	assert_hears(b, true, false, true);
	assert_ok(ctrl_byte(b, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLUNI, 1));
	assert_hears(b, true, true, true);
	assert_ok(ctrl_byte(b, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_NOMULTI, 1));
	assert_hears(b, true, true, false);
	assert_ok(ctrl_byte(b, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_NOUNI, 1));
	assert_hears(b, false, false, false);
	/* all of it is gone after a reset */
	renegotiate(b, FEATURES);
	assert_hears(b, true, false, false);
}

static void no_broadcasts(void **state)
{
	struct bench *b = up(state, FEATURES, 1, 1);

	rx_add(b, 0, 10, 1526);
	assert_ok(ctrl_byte(b, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_NOBCAST, 1));
	world_send(b, 60, broadcast_mac, 1);
	world_send(b, 60, bench_mac, 2);
	rx_expect(b, 0, 60, bench_mac, 2);
	assert_int_equal(bench_counts(b).rx_filtered, 1);
}

/* Nothing is taken from a driver that did not negotiate it. */
static void commands_need_their_features(void **state)
{
	struct bench *b = up(state, F(CTRL_VQ) | F(CTRL_RX) | F(MAC), 2, 1);
	const u8 tables[8] = {};

	assert_ok(ctrl_byte(b, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 0));
	for (u8 mode = VIRTIO_NET_CTRL_RX_ALLUNI; mode <= VIRTIO_NET_CTRL_RX_NOBCAST; mode++)
		assert_refused(ctrl_byte(b, VIRTIO_NET_CTRL_RX, mode, 1));
	assert_refused(ctrl(b, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, other_mac, 6));
	assert_refused(ctrl_u16(b, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, 1));
	assert_refused(ctrl(b, VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, NULL, 0));
	assert_refused(ctrl_u16(b, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, 1));
	assert_refused(
		ctrl_u64(b, VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, 0));
	renegotiate(b, F(CTRL_VQ) | F(MAC));
	assert_refused(ctrl_byte(b, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 1));
	assert_refused(ctrl_byte(b, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLMULTI, 1));
	assert_refused(ctrl(b, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, tables, 8));
}

static void refuses_what_it_does_not_know(void **state)
{
	struct bench *b = up(state, FEATURES | F(CTRL_VLAN) | F(MQ), 2, 1);
	const u8 class_only = VIRTIO_NET_CTRL_RX;

	for (u32 class = 0; class < 256; class += 1 + class / 8)
		assert_refused(ctrl(b, (u8) class, 200, "\1\0\0\0\0\0\0\0", 8));
	assert_refused(ctrl(b, 6, 0, "", 1));
	assert_refused(ctrl_raw(b, &class_only, 1, 1));
	assert_refused(ctrl_raw(b, "", 0, 1)); /* an ack and nothing else */
	/* commands cut short */
	assert_refused(ctrl(b, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, NULL, 0));
	assert_refused(ctrl(b, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, other_mac, 5));
	assert_refused(ctrl(b, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, "\0\0\0\0", 4));
	assert_refused(
		ctrl(b, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, "\0\0\0\0\0\0\0", 7));
	assert_refused(ctrl(b, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, "\1", 1));
	assert_refused(ctrl_u16(b, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, 4096));
	assert_refused(ctrl(b, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, "\1", 1));
	assert_refused(ctrl(b, VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
			    "\0\0\0\0\0\0\0", 7));
	assert_hears(b, true, false, false);
}

/* A command without a byte to answer into cannot be answered. */
static void needs_room_for_the_ack(void **state)
{
	struct bench *b = up(state, FEATURES, 1, 1);
	const struct driver_part part = { CTRL_AT, 3, false };

	memcpy(memory_at(&b->machine.memory, CTRL_AT, 3), "\0\0\1", 3);
	assert_true(driver_add(&b->rings[b->ctrl_index], &part, 1) >= 0);
	driver_kick(&b->rings[b->ctrl_index]);
	driver_wait(driver_status_now(b->device) & VIRTIO_CONFIG_S_NEEDS_RESET);
	renegotiate(b, FEATURES);
	assert_hears(b, true, false, false);
}

static u32 put_table(u8 *to, u32 claimed, u32 given, const u8 *last)
{
	le32_store(to, claimed);
	for (u32 i = 0; i < given; i++) {
		u8 mac[6] = { last[0], 9, 9, 9, (u8)(i >> 8), (u8)i };

		memcpy(to + 4 + 6 * i, i + 1 == given ? last : mac, 6);
	}
	return 4 + 6 * given;
}

/* Item 52, framed in every way (2.7.4). */
static void mac_table(void **state)
{
	struct bench *b = up(state, FEATURES, 1, 1);
	u8 command[2048] = { VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET };
	u32 size;

	for (u32 piece = 1; piece < 40; piece += piece < 8 ? 1 : 11) {
		size = 2 + put_table(command + 2, 2, 2, other_mac);
		size += put_table(command + size, 1, 1, group_mac);
		assert_ok(ctrl_raw(b, command, size, piece));
		assert_hears(b, true, true, true);
		size = 2 + put_table(command + 2, 0, 0, other_mac);
		size += put_table(command + size, 0, 0, group_mac);
		assert_ok(ctrl_raw(b, command, size, piece));
		assert_hears(b, true, false, false);
	}
	/* as many as there is room for, then more: then all of the kind come */
	size = 2 + put_table(command + 2, 64, 64, other_mac);
	size += put_table(command + size, 64, 64, group_mac);
	assert_ok(ctrl_raw(b, command, size, 4096));
	assert_hears(b, true, true, true);
	size = 2 + put_table(command + 2, 65, 65, bench_mac);
	size += put_table(command + size, 0, 0, group_mac);
	assert_ok(ctrl_raw(b, command, size, 4096));
	assert_hears(b, true, true, false);
	size = 2 + put_table(command + 2, 0, 0, bench_mac);
	size += put_table(command + size, 65, 65, bench_mac);
	assert_ok(ctrl_raw(b, command, size, 4096));
	assert_hears(b, true, false, true);
	/* a count past the data changes nothing, not even by half */
	size = 2 + put_table(command + 2, 1, 1, other_mac);
	size += put_table(command + size, 2, 1, group_mac);
	assert_refused(ctrl_raw(b, command, size, 4096));
	assert_hears(b, true, false, true);
	size = 2 + put_table(command + 2, 0xffffffff, 4, other_mac);
	assert_refused(ctrl_raw(b, command, size, 4096));
	size = 2 + put_table(command + 2, 0x2aaaaaab, 4, other_mac); /* times six wraps to two */
	assert_refused(ctrl_raw(b, command, size, 4096));
	memset(command + 6, 0, 6); /* nor would what follows those two make a table */
	assert_refused(ctrl_raw(b, command, 12, 4096));
	assert_hears(b, true, false, true);
	renegotiate(b, FEATURES);
	assert_hears(b, true, false, false);
}

static void mac_address(void **state)
{
	struct bench *b = up(state, FEATURES, 1, 1);
	u8 mac[6];

	assert_ok(ctrl(b, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, other_mac, 6));
	config_mac(b, mac); /* by the time the command is used */
	assert_memory_equal(mac, other_mac, 6);
	assert_hears(b, false, true, false);
	/* a modern driver finds the field read-only */
	pthread_mutex_lock(&b->device->lock);
	for (u32 i = 0; i < 6; i++)
		virtio_config_write(b->device, i, 1, bench_mac[i]);
	pthread_mutex_unlock(&b->device->lock);
	config_mac(b, mac);
	assert_memory_equal(mac, other_mac, 6);
	renegotiate(b, FEATURES);
	config_mac(b, mac);
	assert_memory_equal(mac, bench_mac, 6);
	assert_hears(b, true, false, false);
	/* a driver that took no address from us has one that we do not know */
	renegotiate(b, FEATURES & ~F(MAC));
	assert_hears(b, true, true, false);
	assert_ok(ctrl(b, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, other_mac, 6));
	assert_hears(b, false, true, false);
}

/* Legacy drivers write the address byte by byte (5.1.6.5.2.1). */
static void legacy_mac_writes(void **state)
{
	const struct bench_options options = { .epoll = *(const bool *)*state,
					       .features = F(MAC) | F(CTRL_VQ) | F(CTRL_RX) |
							   F(MRG_RXBUF),
					       .legacy = true };
	struct bench *b = bench_up(&options);
	u8 mac[6];

	assert_hears(b, true, false, false);
	for (u32 i = 0; i < 6; i++) {
		pthread_mutex_lock(&b->device->lock);
		virtio_config_write(b->device, i, 1, other_mac[i]);
		pthread_mutex_unlock(&b->device->lock);
		if (i == 4)
			assert_hears(b, true, false, false); /* not whole yet */
	}
	config_mac(b, mac);
	assert_memory_equal(mac, other_mac, 6);
	usleep(20000);
	assert_hears(b, false, true, false);
	/* also in words, and before DRIVER_OK */
	driver_reset(b->device);
	bench_forget(b);
	config_mac(b, mac);
	assert_memory_equal(mac, bench_mac, 6);
	driver_status(b->device, VIRTIO_CONFIG_S_ACKNOWLEDGE, true);
	pthread_mutex_lock(&b->device->lock);
	virtio_config_write(b->device, 0, 4, le32_load(other_mac));
	virtio_config_write(b->device, 4, 2, le16_load(other_mac + 4));
	pthread_mutex_unlock(&b->device->lock);
	bench_negotiate(b, &options);
	assert_hears(b, false, true, false);
}

static void send_tagged(struct bench *b, u16 vlan, u32 seed)
{
	u8 frame[64];

	frame_fill(frame, sizeof(frame), bench_mac, seed);
	frame_tag(frame, vlan);
	world_send_header(b, NULL, frame, sizeof(frame));
}

/* Item 53. */
static void vlans(void **state)
{
	struct bench *b = up(state, FEATURES, 1, 1);

	rx_add(b, 0, 50, 1526);
	send_tagged(b, 100, 1);
	rx_take(b, 0); /* not negotiated: all come */
	renegotiate(b, FEATURES | F(CTRL_VLAN));
	rx_add(b, 0, 50, 1526);
	send_tagged(b, 100, 1);
	rx_expect_nothing(b, 0);
	assert_ok(ctrl_u16(b, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, 100));
	assert_ok(ctrl_u16(b, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, 4095));
	send_tagged(b, 101, 2);
	send_tagged(b, 100, 3);
	rx_take(b, 0);
	assert_int_equal(received.bytes[12 + 15], 100);
	assert_ok(ctrl_u16(b, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_DEL, 100));
	send_tagged(b, 100, 4);
	rx_expect_nothing(b, 0);
	assert_ok(ctrl_u16(b, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, 7));
	renegotiate(b, FEATURES | F(CTRL_VLAN)); /* an empty table again */
	rx_add(b, 0, 50, 1526);
	send_tagged(b, 7, 5);
	rx_expect_nothing(b, 0);
}

/* Item 54. */
static void announcements(void **state)
{
	struct bench *b = up(state, FEATURES, 1, 1);

	virtio_net_announce(b->net);
	assert_int_equal(config_read(b, 6, 2), VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
	assert_ok(ctrl(b, VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, NULL, 0));
	assert_int_equal(config_read(b, 6, 2), VIRTIO_NET_S_LINK_UP);
	assert_refused(ctrl(b, VIRTIO_NET_CTRL_ANNOUNCE, 1, NULL, 0));
	virtio_net_announce(b->net);
	renegotiate(b, FEATURES & ~F(GUEST_ANNOUNCE));
	assert_int_equal(config_read(b, 6, 2), VIRTIO_NET_S_LINK_UP);
	virtio_net_announce(b->net); /* nobody would answer */
	assert_int_equal(config_read(b, 6, 2), VIRTIO_NET_S_LINK_UP);
}

/* ---- queue pairs (item 55) ---- */

static u8 set_pairs(struct bench *b, u16 pairs)
{
	return ctrl_u16(b, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, pairs);
}

/* Frames of many flows, as the tap steers by flow. */
static void send_flows(struct bench *b, u32 count)
{
	for (u32 i = 0; i < count; i++) {
		u8 frame[60];

		/* UDP over IPv4 from a different port each */
		frame_fill(frame, sizeof(frame), bench_mac, i);
		memcpy(frame + 12, "\x08\x00\x45\x00\x00\x2e\x00\x00\x40\x00\x40\x11\x00\x00", 14);
		memcpy(frame + 26, "\x0a\x00\x00\x01\x0a\x00\x00\x02", 8);
		frame[34] = (u8)(i >> 8);
		frame[35] = (u8)i;
		world_send_header(b, NULL, frame, sizeof(frame));
	}
}

static u32 take_all(struct bench *b, u16 pair)
{
	u32 n = 0;

	for (; rx_waiting(b, pair); n++)
		rx_take(b, pair);
	return n;
}

/* Takes frames until there are `count`, from pairs below `pairs`; got[] says from which. */
static void take_count(struct bench *b, u16 pairs, u32 count, u32 *got)
{
	u64 until = driver_ms() + DRIVER_PATIENCE_MS;
	u32 sum = 0;

	while (sum < count) {
		for (u16 i = 0; i < pairs; i++) {
			u32 n = take_all(b, i);

			got[i] += n;
			sum += n;
		}
		if (driver_ms() > until)
			fail_msg("only %u of %u frames came", sum, count);
	}
}

static void fill_pairs(struct bench *b)
{
	for (u16 i = 0; i < BENCH_PAIRS; i++)
		if (driver_room(&b->rings[2 * i]) > 1)
			rx_add(b, i, (u16)(driver_room(&b->rings[2 * i]) - 1), 1526);
}

static void pairs_as_set(void **state, u32 threads)
{
	struct bench *b = up(state, FEATURES | F(MQ), 3, threads);
	u32 got[BENCH_PAIRS] = {};
	u8 frame[60] = {};

	assert_int_equal(b->ctrl_index, 6);
	fill_pairs(b);
	/* until told otherwise all come to the first; which runs once its reactor has started
	 * the queues, of which this command's is the last */
	assert_refused(set_pairs(b, 0));
	send_flows(b, 60);
	take_count(b, 1, 60, got);
	assert_int_equal(take_all(b, 1) + take_all(b, 2), 0);

	assert_refused(set_pairs(b, 4));
	assert_refused(set_pairs(b, 0x8001));
	assert_ok(set_pairs(b, 3));
	for (u32 round = 0; round < 10; round++) {
		fill_pairs(b);
		send_flows(b, 60);
		take_count(b, 3, 60, got);
	}
	assert_true(got[0] && got[1] && got[2]);
	for (u16 i = 0; i < 3; i++)
		tx_send(b, i, &no_offload, frame, sizeof(frame));
	assert_int_equal(bench_counts(b).tx_frames, 3);

	/* back: from the moment the command is used */
	fill_pairs(b);
	send_flows(b, 100);
	assert_ok(set_pairs(b, 1));
	take_all(b, 0);
	take_all(b, 1);
	take_all(b, 2);
	fill_pairs(b);
	send_flows(b, 60);
	take_count(b, 1, 60, got);
	assert_int_equal(take_all(b, 1) + take_all(b, 2), 0);

	/* and a reset makes it one again */
	assert_ok(set_pairs(b, 3));
	renegotiate(b, FEATURES | F(MQ));
	assert_refused(set_pairs(b, 0));
	fill_pairs(b);
	send_flows(b, 60);
	take_count(b, 1, 60, got);
}

static void queue_pairs(void **state)
{
	pairs_as_set(state, 1);
}

static void queue_pairs_on_reactors_of_their_own(void **state)
{
	pairs_as_set(state, 3);
}

/* Once the command is used a queue out of use has shown its last frame: tried while frames pour in,
 * as those on other reactors are the ones that could come late. */
static void retired_pairs_are_silent_at_once(void **state)
{
	struct bench *b = up(state, FEATURES | F(MQ), 3, 3);

	for (u32 i = 0; i < 150; i++) {
		const struct driver_part parts[] = { { CTRL_AT, 4, false },
						     { CTRL_AT + 4, 1, true } };
		u8 *bytes = memory_at(&b->machine.memory, CTRL_AT, 5);

		fill_pairs(b);
		assert_ok(set_pairs(b, 3));
		send_flows(b, i % 40);
		bytes[0] = VIRTIO_NET_CTRL_MQ;
		bytes[1] = VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET;
		le16_store(bytes + 2, 1);
		assert_true(driver_add(&b->rings[6], parts, 2) >= 0);
		driver_kick(&b->rings[6]);
		send_flows(b, 20);
		driver_wait_used(&b->rings[6], NULL, NULL);
		assert_ok(bytes[4]);
		take_all(b, 1);
		take_all(b, 2);
		usleep(1000);
		assert_int_equal(take_all(b, 1) + take_all(b, 2), 0);
		take_all(b, 0);
	}
}

/* A queue that is out of use keeps what the driver put there. */
static void idle_pairs_send_nothing(void **state)
{
	struct bench *b = up(state, FEATURES | F(MQ), 2, 2);
	const struct driver_part part = { TX_AT, 12 + 60, false };
	struct driver_ring *ring = &b->rings[3];

	memset(memory_at(&b->machine.memory, TX_AT, 72), 0, 72);
	assert_true(driver_add(ring, &part, 1) >= 0);
	driver_kick(ring);
	usleep(20000);
	assert_false(driver_used(ring, NULL, NULL));
	assert_int_equal(bench_counts(b).tx_frames, 0);
	assert_ok(set_pairs(b, 2));
	driver_wait_used(ring, NULL, NULL);
	assert_int_equal(bench_counts(b).tx_frames, 1);
}

/* The control queue is number 2 without MQ, whatever the device has (5.1.2). */
static void control_queue_moves(void **state)
{
	struct bench *b = up(state, FEATURES, 3, 2);

	assert_int_equal(b->ctrl_index, 2);
	assert_ok(ctrl_byte(b, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 1));
	assert_refused(set_pairs(b, 1));
	renegotiate(b, FEATURES | F(MQ));
	assert_int_equal(b->ctrl_index, 6);
	assert_ok(set_pairs(b, 3));
	renegotiate(b, FEATURES);
	assert_ok(ctrl_byte(b, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 1));
	assert_hears(b, true, true, true);
}

/* RING_RESET of a receive queue: its flows go to the others meanwhile (5.1.6.5.5.2). */
static void steers_around_a_queue_being_reset(void **state)
{
	struct bench *b = up(state, FEATURES | F(MQ) | BIT64(VIRTIO_F_RING_RESET), 2, 2);
	struct virtio_queue *queue = &b->device->queues[2];
	u32 got[2] = {};
	bool done;

	assert_ok(set_pairs(b, 2));
	rx_add(b, 0, 200, 1526);
	rx_add(b, 1, 200, 1526);
	pthread_mutex_lock(&b->device->lock);
	virtio_queue_reset(queue);
	pthread_mutex_unlock(&b->device->lock);
	do {
		pthread_mutex_lock(&b->device->lock);
		done = !queue->resetting && !queue->enabled;
		pthread_mutex_unlock(&b->device->lock);
	} while (!done);
	send_flows(b, 60);
	take_count(b, 1, 60, got);
	driver_ring_init(&b->rings[2], &b->machine.memory, RING_AT(2), BENCH_RING, false);
	driver_queue(b->device, 2, &b->rings[2]);
	rx_add(b, 0, 60, 1526);
	rx_add(b, 1, 200, 1526);
	usleep(20000); /* until it has started */
	send_flows(b, 60);
	take_count(b, 2, 60, got);
	assert_int_equal(bench_counts(b).rx_frames, 120);
}

static void resets_while_pairs_change(void **state)
{
	struct bench *b = up(state, FEATURES | F(MQ), 3, 3);

	for (u32 i = 0; i < 30; i++) {
		const struct driver_part parts[] = { { CTRL_AT, 4, false },
						     { CTRL_AT + 4, 1, true } };
		u8 *bytes = memory_at(&b->machine.memory, CTRL_AT, 5);

		fill_pairs(b);
		send_flows(b, 20);
		bytes[0] = VIRTIO_NET_CTRL_MQ;
		bytes[1] = VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET;
		le16_store(bytes + 2, (u16)(1 + i % 3));
		assert_true(driver_add(&b->rings[6], parts, 2) >= 0);
		driver_kick(&b->rings[6]);
		if (i & 1)
			usleep(i * 100);
		renegotiate(b, FEATURES | F(MQ));
	}
	fill_pairs(b);
	assert_ok(set_pairs(b, 3));
}

/* ---- offloads ---- */

static u8 set_offloads(struct bench *b, u64 offloads)
{
	return ctrl_u64(b, VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
			offloads);
}

static void guest_offloads(void **state)
{
	const u64 all = F(GUEST_CSUM) | F(GUEST_TSO4) | F(GUEST_TSO6);
	struct bench *b = up(state, (FEATURES_GSO & ~F(GUEST_ECN)) | F(MRG_RXBUF), 1, 1);

	assert_int_equal(netns_ethtool(BENCH_TAP, ETHTOOL_GTSO), 1);
	assert_ok(set_offloads(b, F(GUEST_CSUM)));
	assert_int_equal(netns_ethtool(BENCH_TAP, ETHTOOL_GTSO), 0);
	assert_int_equal(netns_ethtool(BENCH_TAP, ETHTOOL_GTXCSUM), 1);
	assert_ok(set_offloads(b, 0));
	assert_int_equal(netns_ethtool(BENCH_TAP, ETHTOOL_GTXCSUM), 0);
	assert_hears(b, true, false, false);
	assert_ok(set_offloads(b, all));
	assert_int_equal(netns_ethtool(BENCH_TAP, ETHTOOL_GTSO), 1);
	/* not negotiated, unknown, without what it needs: all stays as it was */
	assert_refused(set_offloads(b, all | F(GUEST_ECN)));
	assert_refused(set_offloads(b, all | F(CSUM)));
	assert_refused(set_offloads(b, BIT64(63)));
	assert_refused(set_offloads(b, F(GUEST_TSO4)));
	assert_int_equal(netns_ethtool(BENCH_TAP, ETHTOOL_GTSO), 1);
	renegotiate(b, FEATURES_PLAIN & ~F(GUEST_CSUM));
	assert_int_equal(netns_ethtool(BENCH_TAP, ETHTOOL_GTXCSUM), 0);
	assert_refused(set_offloads(b, F(GUEST_CSUM)));
}

int main(void)
{
	static const bool uring = false, epoll = true;
	const struct CMUnitTest tests[] = {
		BOTH(receive_modes),
		BOTH(no_broadcasts),
		BOTH(commands_need_their_features),
		BOTH(refuses_what_it_does_not_know),
		BOTH(needs_room_for_the_ack),
		BOTH(mac_table),
		BOTH(mac_address),
		BOTH(legacy_mac_writes),
		BOTH(vlans),
		BOTH(announcements),
		BOTH(queue_pairs),
		BOTH(queue_pairs_on_reactors_of_their_own),
		BOTH(retired_pairs_are_silent_at_once),
		BOTH(idle_pairs_send_nothing),
		BOTH(control_queue_moves),
		BOTH(steers_around_a_queue_being_reset),
		BOTH(resets_while_pairs_change),
		BOTH(guest_offloads),
	};

	netns_enter();
	return driver_run_two(tests);
}
