/*
 * tsan: reception, from a real tap into descriptors of every shape, on both engines, and what the
 * guest is spared of offloads that it did not negotiate.
 */
#include "tests/unit/net-bench.h"

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

		rx_add(b, 0, (u16)driver_room(&b->rings[0]), lengths[i]);
		/* no frame fits beside what is left of the last round */
		for (u32 frame = 0; frame < 3; frame++, seed++) {
			if ((u64)(b->rings[0].size - driver_room(&b->rings[0])) * lengths[i] <
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
		rx_add(b, 0, driver_room(&b->rings[0]), 1526);
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
		if (driver_room(&b->rings[0]) > 100)
			rx_add(b, 0, driver_room(&b->rings[0]), 1526);
		if (b->rx_next[0] > RX_AT(1) - MIB(2))
			b->rx_next[0] = RX_AT(0);
	}
	assert_int_equal(bench_counts(b).rx_frames, 3000);
	assert_int_equal(bench_counts(b).rx_truncated, 0);
}

/* Buffers of any size and number, now many, now hardly enough: what a frame leaves over serves
 * others, wherever it lay. */
static void receives_into_any_buffers(void **state)
{
	struct bench *b = bench_up(&(struct bench_options){
		.epoll = epoll_of(state), .mtu = 9000, .features = FEATURES_GSO | F(MRG_RXBUF) });
	u32 sizes[64], sent = 0, got = 0;
	u64 bytes = 0; /* that the device has got for frames to come, at least */

	srand(1);
	while (got < 3000 && b->rx_next[0] < RX_AT(1) - MIB(1)) {
		u32 add = (u32)rand() % (rand() % 8 ? 12 : 200);

		for (; add && driver_room(&b->rings[0]) > 6; add--) {
			u32 lengths[6], count = 1 + (u32)rand() % (rand() % 4 ? 2 : 6);

			for (u32 i = 0; i < count; i++) {
				lengths[i] = 1 + (u32)rand() % (rand() % 4 ? 1600 : 5000);
				bytes += lengths[i];
			}
			rx_add_parts(b, 0, lengths, (u16)count);
		}
		rx_kick(b, 0);
		while (sent - got < ARRAY_SIZE(sizes)) {
			u32 size = 60 + (u32)rand() % (rand() % 4 ? 1400 : 8900);

			/* the last of its buffers may be much larger than what is in it */
			if (bytes < size + 12 + 30000)
				break;
			bytes -= size + 12 + 30000;
			sizes[sent % ARRAY_SIZE(sizes)] = size;
			world_send(b, size, bench_mac, sent++);
		}
		while (got < sent) {
			rx_expect(b, 0, sizes[got % ARRAY_SIZE(sizes)], bench_mac, got);
			bytes += 12 + 30000 + sizes[got % ARRAY_SIZE(sizes)];
			bytes -= received.room;
			got++;
		}
	}
	assert_true(got > 1000);
	assert_int_equal(bench_counts(b).rx_frames, got);
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

/* ---- headers that no kernel of today makes ---- */

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

int main(void)
{
	static const bool uring = false, epoll = true;
	const struct CMUnitTest tests[] = {
		BOTH(receives_into_single_buffers),
		BOTH(receives_with_the_legacy_header),
		BOTH(receives_with_the_legacy_merging_header),
		BOTH(merges_buffers),
		BOTH(receives_jumbo_frames),
		BOTH(receives_in_bursts),
		BOTH(receives_into_any_buffers),
		BOTH(drops_what_does_not_fit),
		BOTH(drops_what_does_not_fit_one_buffer),
		BOTH(uses_buffers_that_come_late),
		BOTH(needs_writable_buffers),
		BOTH(offloads_what_was_negotiated),
		BOTH(checksums_for_those_who_do_not),
		BOTH(drops_frames_of_an_older_agreement),
		BOTH(keeps_to_the_mtu),
		BOTH(passes_no_header_that_was_not_negotiated),
	};

	netns_enter();
	return driver_run_all(tests);
}
