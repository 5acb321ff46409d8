/*
 * tsan: the network device's data path, over a real tap, from descriptors to frames and back, on
 * both engines. (Its control queue: net-ctrl.c; its filter: net-filter.c.)
 */
#include "tests/unit/net-bench.h"

static const struct virtio_net_hdr_v1 no_offload;

static bool epoll_of(void **state)
{
	return *(const bool *)*state;
}

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

/* ---- receiving ---- */

/* Item 47: without merging one buffer a frame, and num_buffers 1 all the same. */
static void receives_into_single_buffers(void **state)
{
	static const u32 sizes[] = { 60, 61, 64, 65, 1000, 1513, 1514 };
	struct bench *b = bench_up(
		&(struct bench_options){ .epoll = epoll_of(state), .features = FEATURES_PLAIN });

	rx_add(b, 0, 2 * ARRAY_SIZE(sizes), 1526);
	for (u32 round = 0; round < 2; round++)
		for (u32 i = 0; i < ARRAY_SIZE(sizes); i++) {
			world_send(b, sizes[i], bench_mac, i);
			rx_expect(b, 0, sizes[i], bench_mac, i);
			assert_int_equal(received.buffers, 1);
			assert_int_equal(received.bytes[0], 0);
			assert_int_equal(received.bytes[1], 0);
		}
	assert_int_equal(bench_counts(b).rx_frames, 2 * ARRAY_SIZE(sizes));
}

/* A legacy driver without merging has a header of 10 bytes (5.1.6.1); it finds buffers of its own
 * order of descriptors, and may have them in any layout. */
static void receives_with_the_legacy_header(void **state)
{
	static const u32 parts[] = { 3, 7, 5, 1511 };
	struct bench *b = bench_up(&(struct bench_options){
		.epoll = epoll_of(state), .features = F(MAC) | F(CSUM), .legacy = true });

	for (u32 i = 0; i < 8; i++)
		rx_add_parts(b, 0, parts, ARRAY_SIZE(parts));
	rx_kick(b, 0);
	for (u32 i = 0; i < 8; i++) {
		world_send(b, 60 + i * 200, other_mac, i); /* without CTRL_RX all frames come */
		rx_expect(b, 0, 60 + i * 200, other_mac, i);
	}
}

static void receives_with_the_legacy_merging_header(void **state)
{
	struct bench *b = bench_up(&(struct bench_options){
		.epoll = epoll_of(state), .features = F(MAC) | F(MRG_RXBUF), .legacy = true });

	rx_add(b, 0, 64, 256);
	world_send(b, 1514, bench_mac, 1);
	rx_expect(b, 0, 1514, bench_mac, 1);
	assert_int_equal(received.buffers, (1526 + 255) / 256);
}

/* Items 47 and 48, with buffers of all sizes, header and num_buffers split in all places. */
static void merges_buffers(void **state)
{
	static const u32 lengths[] = { 1, 2, 5, 10, 11, 12, 13, 26, 64, 100, 777, 1526, 4096 };
	struct bench *b = bench_up(&(struct bench_options){
		.epoll = epoll_of(state), .features = FEATURES_PLAIN | F(MRG_RXBUF) });
	u32 seed = 0, head;

	for (u32 i = 0; i < ARRAY_SIZE(lengths); i++) {
		u32 size = lengths[i] < 10 ? 60 : 1514; /* the ring has 256 buffers */

		rx_add(b, 0, (u16)b->rings[0].free_count, lengths[i]);
		/* no frame fits beside what is left of the last round */
		for (u32 frame = 0; frame < 3; frame++, seed++) {
			if ((u64)(b->rings[0].size - b->rings[0].free_count) * lengths[i] <
			    size + 300)
				break;
			world_send(b, size, bench_mac, seed);
			rx_expect(b, 0, size, bench_mac, seed);
		}
		/* take the rest back, so that the next round has buffers of its own size only */
		driver_reset(b->device);
		bench_forget(b);
		bench_negotiate(
			b, &(struct bench_options){ .features = FEATURES_PLAIN | F(MRG_RXBUF) });
	}
	assert_true(seed > 2 * ARRAY_SIZE(lengths));
	assert_false(driver_used(&b->rings[0], &head, NULL));
}

/* Frames up to the largest MTU a tap has. */
static void receives_jumbo_frames(void **state)
{
	static const u32 sizes[] = { 65535, 60, 9014, 65534, 30000, 61 };
	struct bench *b =
		bench_up(&(struct bench_options){ .epoll = epoll_of(state),
						  .mtu = 65521,
						  .features = FEATURES_PLAIN | F(MRG_RXBUF) });

	for (u32 i = 0; i < ARRAY_SIZE(sizes); i++) {
		rx_add(b, 0, b->rings[0].free_count, 1526);
		world_send(b, sizes[i], bench_mac, i);
		rx_expect(b, 0, sizes[i], bench_mac, i);
		assert_int_equal(received.buffers, (sizes[i] + 12 + 1525) / 1526);
	}
}

/* More frames than a burst, in order, none lost, while the driver refills. */
static void receives_in_bursts(void **state)
{
	struct bench *b = bench_up(&(struct bench_options){
		.epoll = epoll_of(state), .features = FEATURES_GSO | F(MRG_RXBUF) });
	u32 sent = 0, got = 0;

	rx_add(b, 0, 250, 1526);
	while (got < 3000) {
		/* the tap holds 1000 (its txqueuelen) */
		while (sent < 3000 && sent - got < 400) {
			world_send(b, 60 + sent % 1400, bench_mac, sent);
			sent++;
		}
		rx_expect(b, 0, 60 + got % 1400, bench_mac, got);
		got++;
		if (b->rings[0].free_count > 100)
			rx_add(b, 0, b->rings[0].free_count, 1526);
		if (b->rx_next[0] > RX_AT(1) - MIB(2))
			b->rx_next[0] = RX_AT(0);
	}
	assert_int_equal(bench_counts(b).rx_frames, 3000);
	assert_int_equal(bench_counts(b).rx_truncated, 0);
}

/* What does not fit is dropped and counted, its buffers serve the next frame. */
static void drops_what_does_not_fit(void **state)
{
	struct bench *b = bench_up(&(struct bench_options){
		.epoll = epoll_of(state), .features = FEATURES_PLAIN | F(MRG_RXBUF) });

	rx_add(b, 0, 3, 100); /* 300 bytes, header included */
	world_send(b, 289, bench_mac, 1);
	driver_wait(bench_counts(b).rx_truncated == 1);
	world_send(b, 288, bench_mac, 2); /* exactly full is not cut off */
	rx_expect(b, 0, 288, bench_mac, 2);
	assert_int_equal(received.buffers, 3);
	assert_int_equal(bench_counts(b).rx_frames, 1);

	/* no buffers: frames wait in the tap, as there may be some soon */
	world_send(b, 500, bench_mac, 3);
	usleep(20000);
	assert_false(rx_waiting(b, 0));
	rx_add(b, 0, 1, 1526);
	rx_expect(b, 0, 500, bench_mac, 3);
}

static void drops_what_does_not_fit_one_buffer(void **state)
{
	struct bench *b = bench_up(
		&(struct bench_options){ .epoll = epoll_of(state), .features = FEATURES_PLAIN });

	rx_add(b, 0, 2, 200);
	world_send(b, 189, bench_mac, 1);
	driver_wait(bench_counts(b).rx_truncated == 1);
	world_send(b, 188, bench_mac, 2);
	rx_expect(b, 0, 188, bench_mac, 2);
	world_send(b, 60, bench_mac, 3);
	rx_expect(b, 0, 60, bench_mac, 3);
}

/* A frame gets all the buffers that there are when it comes, not those when waiting for it began.
 */
static void uses_buffers_that_come_late(void **state)
{
	struct bench *b = bench_up(&(struct bench_options){
		.epoll = epoll_of(state), .mtu = 9000, .features = FEATURES_GSO | F(MRG_RXBUF) });

	rx_add(b, 0, 1, 128);
	usleep(5000);
	for (u32 i = 0; i < 80; i++)
		rx_add(b, 0, 1, 128);
	world_send(b, 9014, bench_mac, 1);
	rx_expect(b, 0, 9014, bench_mac, 1);
	assert_int_equal(bench_counts(b).rx_truncated, 0);
}

/* A buffer with nothing to write into breaks the rules (2.7.5, 5.1.6.3.1). */
static void needs_writable_buffers(void **state)
{
	struct bench *b = bench_up(
		&(struct bench_options){ .epoll = epoll_of(state), .features = FEATURES_PLAIN });
	const struct driver_part part = { RX_AT(0), 1526, false };

	assert_true(driver_add(&b->rings[0], &part, 1) >= 0);
	rx_kick(b, 0);
	driver_wait(driver_status_now(b->device) & VIRTIO_CONFIG_S_NEEDS_RESET);
	/* and a reset makes it well */
	driver_reset(b->device);
	bench_forget(b);
	bench_negotiate(b, &(struct bench_options){ .features = FEATURES_PLAIN });
	rx_add(b, 0, 4, 1526);
	world_send(b, 100, bench_mac, 9);
	rx_expect(b, 0, 100, bench_mac, 9);
}

/* ---- offloads towards the guest (item 49) ---- */

#define TCP_PAYLOAD 40000u

/* A TCP segment whose checksum is left to do, as a host's stack makes them. Its size. */
static u32 tcp_frame(u8 *frame, u32 payload, struct virtio_net_hdr *header)
{
	u32 ip = 20 + 20 + payload, sum = 0;

	frame_fill(frame, 14 + ip, bench_mac, 7);
	frame[12] = 0x08;
	frame[13] = 0x00;
	memset(frame + 14, 0, 40);
	frame[14] = 0x45;
	frame[16] = (u8)(ip >> 8);
	frame[17] = (u8)ip;
	frame[22] = 64;
	frame[23] = IPPROTO_TCP;
	memcpy(frame + 26, "\x0a\x00\x00\x01\x0a\x00\x00\x02", 8);
	for (u32 i = 14; i < 34; i += 2)
		sum += (u32)frame[i] << 8 | frame[i + 1];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = ~((sum & 0xffff) + (sum >> 16));
	frame[24] = (u8)(sum >> 8);
	frame[25] = (u8)sum;
	memcpy(frame + 34, "\x12\x34\x56\x78\0\0\0\1\0\0\0\1\x50\x10\xff\xff", 16);
	/* the pseudo header's sum */
	sum = 0x0a00 + 0x0001 + 0x0a00 + 0x0002 + IPPROTO_TCP + 20 + payload;
	sum = (sum & 0xffff) + (sum >> 16);
	frame[50] = (u8)(sum >> 8);
	frame[51] = (u8)sum;
	*header = (struct virtio_net_hdr){ .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
					   .csum_start = 34,
					   .csum_offset = 16,
					   .hdr_len = 54 };
	if (payload > 1460) {
		header->gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
		header->gso_size = 1460;
	}
	return 14 + ip;
}

/* Sums up to ffff over pseudo header and segment. */
static bool tcp_sum_right(const u8 *frame, u32 size)
{
	u32 length = size - 34, sum = 0x0a00 + 0x0001 + 0x0a00 + 0x0002 + IPPROTO_TCP + length;

	for (u32 i = 0; i < length; i++)
		sum += i & 1 ? frame[34 + i] : (u32)frame[34 + i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

static void offloads_what_was_negotiated(void **state)
{
	static u8 frame[FRAME_ROOM];
	struct bench *b = bench_up(&(struct bench_options){
		.epoll = epoll_of(state), .features = FEATURES_GSO | F(MRG_RXBUF) });
	struct virtio_net_hdr header;
	u32 size = tcp_frame(frame, TCP_PAYLOAD, &header);

	assert_int_equal(netns_ethtool(BENCH_TAP, ETHTOOL_GTSO), 1);
	rx_add(b, 0, 200, 1526);
	world_send_header(b, &header, frame, size);
	rx_take(b, 0);
	assert_int_equal(received.size, size + 12);
	assert_memory_equal(received.bytes + 12, frame, size);
	assert_int_equal(received.bytes[0], VIRTIO_NET_HDR_F_NEEDS_CSUM);
	assert_int_equal(received.bytes[1], VIRTIO_NET_HDR_GSO_TCPV4);
	assert_int_equal(le16_load(received.bytes + 4), 1460);
	assert_int_equal(le16_load(received.bytes + 6), 34);
	assert_int_equal(le16_load(received.bytes + 8), 16);

	/* the largest that the kernel hands over in one (gso_max_size) */
	size = tcp_frame(frame, 65535 - 54, &header);
	world_send_header(b, &header, frame, size);
	rx_take(b, 0);
	assert_int_equal(received.size, size + 12);
	assert_memory_equal(received.bytes + 12, frame, size);

	/* a reset takes it back, whoever comes next */
	driver_reset(b->device);
	assert_int_equal(netns_ethtool(BENCH_TAP, ETHTOOL_GTSO), 0);
	assert_int_equal(netns_ethtool(BENCH_TAP, ETHTOOL_GTXCSUM), 0);
}

static void checksums_for_those_who_do_not(void **state)
{
	static u8 frame[FRAME_ROOM];
	const u64 features = F(MAC) | F(CTRL_VQ) | F(CTRL_RX) | F(MRG_RXBUF);
	struct bench *b =
		bench_up(&(struct bench_options){ .epoll = epoll_of(state), .features = features });
	struct virtio_net_hdr header;
	u32 size = tcp_frame(frame, 4 * 1460, &header);

	rx_add(b, 0, 50, 1526);
	world_send_header(b, &header, frame, size);
	for (u32 i = 0; i < 4; i++) {
		rx_take(b, 0);
		assert_int_equal(received.size, 12 + 1514);
		assert_int_equal(received.bytes[0], 0);
		assert_int_equal(received.bytes[1], VIRTIO_NET_HDR_GSO_NONE);
		assert_true(tcp_sum_right(received.bytes + 12, 1514));
	}
}

/* Frames that wait in the tap from before are as the driver before them wanted. */
static void drops_frames_of_an_older_agreement(void **state)
{
	static u8 frame[FRAME_ROOM];
	const u64 plain = F(MAC) | F(CTRL_VQ) | F(CTRL_RX) | F(MRG_RXBUF);
	struct bench *b = bench_up(&(struct bench_options){
		.epoll = epoll_of(state), .features = FEATURES_GSO | F(MRG_RXBUF) });
	struct virtio_net_hdr header;
	u32 size = tcp_frame(frame, TCP_PAYLOAD, &header);

	world_send_header(b, &header, frame, size); /* no buffers yet: it stays in the tap */
	size = tcp_frame(frame, 100, &header);
	world_send_header(b, &header, frame, size);
	driver_reset(b->device);
	bench_negotiate(b, &(struct bench_options){ .features = plain });
	rx_add(b, 0, 100, 1526);
	rx_expect_nothing(b, 0);
	assert_int_equal(bench_counts(b).rx_truncated, 1); /* longer than any it may now be sent */
	assert_int_equal(bench_counts(b).rx_invalid, 1);
}

/* 5.1.4.1: nothing longer than the MTU that was negotiated, though the host's end may have changed.
 */
static void keeps_to_the_mtu(void **state)
{
	static u8 frame[2000];
	struct bench *b = bench_up(&(struct bench_options){
		.epoll = epoll_of(state), .mtu = 1400, .features = FEATURES_PLAIN | F(MRG_RXBUF) });

	netns_mtu(BENCH_TAP, 1480);
	rx_add(b, 0, 20, 1526);
	world_send(b, 1415, bench_mac, 1);
	driver_wait(bench_counts(b).rx_invalid == 1);
	world_send(b, 1414, bench_mac, 2);
	rx_expect(b, 0, 1414, bench_mac, 2);
	/* a VLAN tag belongs to the Ethernet header */
	frame_fill(frame, 1418, bench_mac, 3);
	frame_tag(frame, 7);
	world_send_header(b, NULL, frame, 1418);
	rx_take(b, 0);
	assert_int_equal(received.size, 12 + 1418);
}

/* ---- sending (item 50) ---- */

static void sends_frames_in_any_layout(void **state)
{
	static const u32 sizes[] = { 14, 15, 60, 1514, 9014, 65550, NET_FRAME_MAX };
	static const u32 layouts[][8] = {
		{ 12 }, { 1, 1, 1 }, { 5, 7 }, { 13 }, { 26, 1 }, { 40 }
	};
	static u8 frame[FRAME_ROOM], got[FRAME_ROOM];
	struct bench *b = bench_up(
		&(struct bench_options){ .epoll = epoll_of(state), .features = FEATURES_PLAIN });
	struct virtio_net_hdr header;

	for (u32 i = 0; i < ARRAY_SIZE(sizes); i++)
		for (u32 j = 0; j < ARRAY_SIZE(layouts); j++) {
			frame_fill(frame, sizes[i], broadcast_mac, j);
			tx_send_parts(b, 0, &no_offload, frame, sizes[i], layouts[j], 4);
			assert_int_equal(world_receive(b, &header, got, 2000), sizes[i]);
			assert_memory_equal(got, frame, sizes[i]);
		}
	assert_int_equal(bench_counts(b).tx_frames, ARRAY_SIZE(sizes) * ARRAY_SIZE(layouts));
}

static void sends_with_the_legacy_header(void **state)
{
	static const u32 pieces[] = { 4, 4, 2, 30, 1000 };
	static u8 frame[1514], got[FRAME_ROOM];
	struct bench *b = bench_up(&(struct bench_options){
		.epoll = epoll_of(state), .features = F(MAC), .legacy = true });
	struct virtio_net_hdr header;

	frame_fill(frame, sizeof(frame), other_mac, 1);
	tx_send_parts(b, 0, &no_offload, frame, sizeof(frame), pieces, 5);
	assert_int_equal(world_receive(b, &header, got, 2000), sizeof(frame));
	assert_memory_equal(got, frame, sizeof(frame));
}

/* A frame in more parts than fit beside its request. */
static void sends_frames_in_many_parts(void **state)
{
	static u8 frame[FRAME_ROOM], got[FRAME_ROOM];
	static u32 lengths[BENCH_RING];
	struct bench *b = bench_up(
		&(struct bench_options){ .epoll = epoll_of(state), .features = FEATURES_PLAIN });
	struct virtio_net_hdr header;

	for (u32 i = 0; i < BENCH_RING; i++)
		lengths[i] = 1 + i % 300;
	for (u16 parts = 18; parts <= BENCH_RING;
	     parts = (u16)(parts < 24 ? parts + 1 : parts + 29)) {
		frame_fill(frame, 30000, other_mac, parts);
		tx_send_parts(b, 0, &no_offload, frame, 30000, lengths, parts);
		assert_int_equal(world_receive(b, &header, got, 2000), 30000);
		assert_memory_equal(got, frame, 30000);
	}
}

/* Each has a list of parts of its own. */
static void sends_many_parts_at_once(void **state)
{
	static u8 got[FRAME_ROOM], expected[1000];
	struct driver_part parts[40];
	struct bench *b = bench_up(
		&(struct bench_options){ .epoll = epoll_of(state), .features = FEATURES_PLAIN });
	struct virtio_net_hdr header;

	for (u32 i = 0; i < 6; i++) {
		u8 *bytes = memory_at(&b->machine.memory, TX_AT + i * 4096, 1012);

		memset(bytes, 0, 12);
		frame_fill(bytes + 12, 1000, other_mac, i);
		for (u32 j = 0; j < 40; j++)
			parts[j] = (struct driver_part){ TX_AT + i * 4096 + j * 25,
							 j < 39 ? 25 : 1012 - 39 * 25, false };
		assert_true(driver_add(&b->rings[1], parts, 40) >= 0);
	}
	driver_kick(&b->rings[1]);
	for (u32 i = 0; i < 6; i++) {
		assert_int_equal(world_receive(b, &header, got, 2000), 1000);
		frame_fill(expected, 1000, other_mac, i);
		assert_memory_equal(got, expected, 1000);
	}
}

static void sends_what_is_left_to_offload(void **state)
{
	static u8 frame[FRAME_ROOM], got[FRAME_ROOM];
	struct bench *b = bench_up(
		&(struct bench_options){ .epoll = epoll_of(state), .features = FEATURES_PLAIN });
	struct virtio_net_hdr_v1 header = {};
	struct virtio_net_hdr plain, seen;
	u32 size = tcp_frame(frame, 100, &plain);

	memcpy(&header, &plain, sizeof(plain));
	/* what a driver may have wrong: flags of no meaning here, a hint, a field of the other
	 * direction */
	header.flags |= VIRTIO_NET_HDR_F_DATA_VALID | 0xf0;
	header.hdr_len = 0xffff;
	header.num_buffers = 0xdead;
	tx_send(b, 0, &header, frame, size);
	assert_int_equal(world_receive(b, &seen, got, 2000), size);
	assert_int_equal(seen.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
	assert_int_equal(seen.csum_start, 34);

	size = tcp_frame(frame, TCP_PAYLOAD, &plain);
	memcpy(&header, &plain, sizeof(plain));
	tx_send(b, 0, &header, frame, size);
	assert_int_equal(world_receive(b, &seen, got, 2000), size);
	assert_int_equal(seen.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
	assert_int_equal(seen.gso_size, 1460);
	header.gso_type |= VIRTIO_NET_HDR_GSO_ECN;
	tx_send(b, 0, &header, frame, size);
	assert_int_equal(world_receive(b, &seen, got, 2000), size);

	/* no NEEDS_CSUM: the other two fields mean nothing, however absurd */
	header = (struct virtio_net_hdr_v1){ .csum_start = 0xffff, .csum_offset = 0xffff };
	tx_send(b, 0, &header, frame, 100);
	assert_int_equal(world_receive(b, &seen, got, 2000), 100);
	assert_int_equal(bench_counts(b).tx_invalid, 0);
}

static void refuses_bad_headers(void **state)
{
	static u8 frame[FRAME_ROOM], got[FRAME_ROOM];
	const struct virtio_net_hdr_v1 good = { .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
						.gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
						.gso_size = 1460,
						.csum_start = 34,
						.csum_offset = 16 };
	struct bench *b = bench_up(
		&(struct bench_options){ .epoll = epoll_of(state), .features = FEATURES_PLAIN });
	struct virtio_net_hdr_v1 bad[12];
	struct virtio_net_hdr header;
	u32 size = tcp_frame(frame, TCP_PAYLOAD, &header), n = 0;
	u64 refused;

	for (u32 i = 0; i < ARRAY_SIZE(bad); i++)
		bad[i] = good;
	bad[n++].flags = 0; /* GSO without a checksum to do */
	bad[n++].gso_size = 0;
	bad[n++].gso_type = VIRTIO_NET_HDR_GSO_ECN;    /* of nothing */
	bad[n++].gso_type = VIRTIO_NET_HDR_GSO_UDP;    /* not negotiated */
	bad[n++].gso_type = VIRTIO_NET_HDR_GSO_UDP_L4; /* not negotiated */
	bad[n++].gso_type = 2;			       /* unknown */
	bad[n++].gso_type = 0x7f;		       /* unknown */
	bad[n++].csum_start = (u16)size;
	bad[n++].csum_start = 0xffff;
	bad[n++].csum_offset = 0xffff;
	bad[n++].csum_offset = (u16)(size - 34 - 1); /* its second byte is past the end */
	for (u32 i = 0; i < n; i++) {
		capture_begin();
		tx_send(b, 0, &bad[i], frame, size);
		capture_end((char *)got, sizeof(got));
		assert_int_equal(bench_counts(b).tx_invalid, i + 1);
	}
	/* too short for Ethernet, too long for anything; no header at all */
	tx_send(b, 0, &no_offload, frame, 13);
	tx_send(b, 0, &no_offload, frame, 0);
	tx_send(b, 0, &no_offload, frame, NET_FRAME_MAX + 1);
	refused = bench_counts(b).tx_invalid;
	assert_int_equal(refused, n + 3);
	assert_int_equal(world_receive(b, &header, got, 20), -1);
	tx_send(b, 0, &good, frame, size);
	assert_int_equal(world_receive(b, &header, got, 2000), size);
	assert_int_equal(bench_counts(b).tx_invalid, refused);
}

/* Legacy drivers go without FEATURES_OK; then too GSO is only what was acked. */
static void refuses_what_was_not_negotiated(void **state)
{
	static u8 frame[FRAME_ROOM], got[FRAME_ROOM];
	struct bench *b = bench_up(&(struct bench_options){
		.epoll = epoll_of(state), .features = F(CSUM) | F(HOST_TSO6), .legacy = true });
	struct virtio_net_hdr header, seen;
	u32 size = tcp_frame(frame, TCP_PAYLOAD, &header);

	tx_send(b, 0, &header, frame, size);
	assert_int_equal(bench_counts(b).tx_invalid, 1);
	assert_int_equal(world_receive(b, &seen, got, 20), -1);
}

static void sends_batches(void **state)
{
	static u8 got[FRAME_ROOM], expected[FRAME_ROOM];
	struct bench *b = bench_up(
		&(struct bench_options){ .epoll = epoll_of(state), .features = FEATURES_PLAIN });
	struct driver_ring *ring = &b->rings[1];
	struct virtio_net_hdr header;
	u32 done = 0, sent = 0;

	while (done < 2000) {
		while (ring->free_count && sent < 2000 && sent - done < 200) {
			const u64 at = TX_AT + (sent % BENCH_RING) * 2048;
			const struct driver_part part = { at, 12 + 60 + sent % 1000, false };
			u8 *bytes = memory_at(&b->machine.memory, at, 2048);

			memset(bytes, 0, 12);
			frame_fill(bytes + 12, 60 + sent % 1000, other_mac, sent);
			assert_true(driver_add(ring, &part, 1) >= 0);
			sent++;
		}
		driver_kick(ring);
		assert_int_equal(world_receive(b, &header, got, 2000), 60 + done % 1000);
		frame_fill(expected, 60 + done % 1000, other_mac, done);
		assert_memory_equal(got, expected, 60 + done % 1000);
		done++;
		while (driver_used(ring, NULL, NULL))
			;
	}
}

/* ---- headers that no kernel of today makes, and what exactly goes out ---- */

static struct bench *up_wire(void **state, u64 features)
{
	struct bench *b;

	capture_begin(); /* sockets know nothing of offloads, which is said once */
	b = bench_up(&(struct bench_options){
		.epoll = epoll_of(state), .features = features, .wire = true });
	capture_end((char *)received.bytes, sizeof(received.bytes));
	return b;
}

static void wire_send(struct bench *b, u8 flags, u8 gso, u16 gso_size, u32 size, u32 seed)
{
	static u8 frame[FRAME_ROOM];
	struct virtio_net_hdr_v1 header = { .flags = flags, .gso_type = gso, .num_buffers = 77 };

	le16_store(&header.gso_size, gso_size);
	memcpy(frame, &header, sizeof(header));
	frame_fill(frame + sizeof(header), size, broadcast_mac, seed);
	assert_int_equal(send(b->sock, frame, sizeof(header) + size, 0), sizeof(header) + size);
}

/* Item 49: flags and GSO types as negotiated, whatever comes. */
static void passes_no_header_that_was_not_negotiated(void **state)
{
	const u8 csum = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	struct bench *b = up_wire(state, F(MRG_RXBUF));
	u64 dropped = 0;

	rx_add(b, 0, 100, 1526);
	wire_send(b, VIRTIO_NET_HDR_F_DATA_VALID, 0, 0, 60, 1);
	rx_expect(b, 0, 60, broadcast_mac, 1);
	assert_int_equal(received.bytes[0], 0);
	wire_send(b, csum, 0, 0, 60, 1);
	wire_send(b, 0, VIRTIO_NET_HDR_GSO_TCPV4, 1000, 60, 1);
	assert_int_equal(send(b->sock, "", 1, 0), 1);
	assert_int_equal(send(b->sock, received.bytes, 12 + 13, 0), 12 + 13);
	dropped = 4;
	wire_send(b, 0, 0, 0, 60, 2);
	rx_expect(b, 0, 60, broadcast_mac, 2);
	assert_int_equal(bench_counts(b).rx_invalid, dropped);

	driver_reset(b->device);
	bench_forget(b);
	bench_negotiate(b, &(struct bench_options){ .features = F(MRG_RXBUF) | F(GUEST_CSUM) |
								F(GUEST_TSO4) });
	rx_add(b, 0, 100, 1526);
	wire_send(b, VIRTIO_NET_HDR_F_DATA_VALID, 0, 0, 60, 3);
	rx_expect(b, 0, 60, broadcast_mac, 3);
	assert_int_equal(received.bytes[0], VIRTIO_NET_HDR_F_DATA_VALID);
	wire_send(b, csum, VIRTIO_NET_HDR_GSO_TCPV4, 1000, 5000, 4);
	rx_expect(b, 0, 5000, broadcast_mac, 4);
	wire_send(b, 0, VIRTIO_NET_HDR_GSO_TCPV4, 1000, 60, 5);
	wire_send(b, csum, VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN, 1000, 60, 5);
	wire_send(b, csum, VIRTIO_NET_HDR_GSO_TCPV6, 1000, 60, 5);
	wire_send(b, csum, VIRTIO_NET_HDR_GSO_UDP, 1000, 60, 5);
	wire_send(b, csum, VIRTIO_NET_HDR_GSO_UDP_L4, 1000, 60, 5);
	wire_send(b, csum, VIRTIO_NET_HDR_GSO_ECN, 1000, 60, 5);
	wire_send(b, csum, 0x22, 1000, 60, 5);
	dropped += 7;
	wire_send(b, 0, 0, 0, 60, 6);
	rx_expect(b, 0, 60, broadcast_mac, 6);
	assert_int_equal(bench_counts(b).rx_invalid, dropped);
}

static void hands_over_clean_headers(void **state)
{
	static u8 frame[FRAME_ROOM], got[FRAME_ROOM];
	struct bench *b = up_wire(state, FEATURES_PLAIN);
	struct virtio_net_hdr_v1 header, seen;

	frame_fill(frame, 3000, other_mac, 1);
	memset(&header, 0xff, sizeof(header));
	header.flags = (u8)~VIRTIO_NET_HDR_F_NEEDS_CSUM;
	header.gso_type = VIRTIO_NET_HDR_GSO_NONE;
	tx_send(b, 0, &header, frame, 100);
	assert_int_equal(recv(b->sock, got, sizeof(got), 0), 112);
	memset(&seen, 0, sizeof(seen));
	assert_memory_equal(got, &seen, sizeof(seen));

	header = (struct virtio_net_hdr_v1){ .flags = 0xff,
					     .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
					     .hdr_len = 0xffff,
					     .gso_size = 1000,
					     .csum_start = 34,
					     .csum_offset = 16,
					     .num_buffers = 0xffff };
	tx_send(b, 0, &header, frame, 3000);
	assert_int_equal(recv(b->sock, got, sizeof(got), 0), 3012);
	seen = header;
	seen.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	seen.hdr_len = 3000; /* a tap refuses one past the frame's end */
	seen.num_buffers = 0;
	assert_memory_equal(got, &seen, sizeof(seen));
	assert_memory_equal(got + 12, frame, 3000);
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

#define BOTH(test)                                                                        \
	cmocka_unit_test_prestate_setup_teardown(test, NULL, bench_down, (void *)&uring), \
		cmocka_unit_test_prestate_setup_teardown(test, NULL, bench_down, (void *)&epoll)

int main(void)
{
	static const bool uring = false, epoll = true;
	const struct CMUnitTest tests[] = {
		BOTH(configuration_says_what_it_is),
		BOTH(offers_only_what_the_tap_can),
		BOTH(refuses_features_without_what_they_need),
		BOTH(receives_into_single_buffers),
		BOTH(receives_with_the_legacy_header),
		BOTH(receives_with_the_legacy_merging_header),
		BOTH(merges_buffers),
		BOTH(receives_jumbo_frames),
		BOTH(receives_in_bursts),
		BOTH(drops_what_does_not_fit),
		BOTH(drops_what_does_not_fit_one_buffer),
		BOTH(uses_buffers_that_come_late),
		BOTH(needs_writable_buffers),
		BOTH(offloads_what_was_negotiated),
		BOTH(checksums_for_those_who_do_not),
		BOTH(drops_frames_of_an_older_agreement),
		BOTH(keeps_to_the_mtu),
		BOTH(sends_frames_in_any_layout),
		BOTH(sends_with_the_legacy_header),
		BOTH(sends_frames_in_many_parts),
		BOTH(sends_what_is_left_to_offload),
		BOTH(refuses_bad_headers),
		BOTH(refuses_what_was_not_negotiated),
		BOTH(sends_batches),
		BOTH(sends_many_parts_at_once),
		BOTH(passes_no_header_that_was_not_negotiated),
		BOTH(hands_over_clean_headers),
		cmocka_unit_test(maps_offloads),
		BOTH(survives_a_tap_that_is_down),
		BOTH(survives_a_tap_that_vanishes),
		BOTH(notices_a_lost_tap_by_sending),
		BOTH(resets_with_reads_in_flight),
		BOTH(resets_one_queue),
	};

	netns_enter();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
