/*
 * tsan: transmission, from descriptors of every shape to a real tap, on both engines, and what
 * exactly the tap is given of a driver's header.
 */
#include "tests/unit/net-bench.h"

static const struct virtio_net_hdr_v1 no_offload;

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
		while (driver_room(ring) && sent < 2000 && sent - done < 200) {
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

int main(void)
{
	static const bool uring = false, epoll = true;
	const struct CMUnitTest tests[] = {
		BOTH(sends_frames_in_any_layout),
		BOTH(sends_with_the_legacy_header),
		BOTH(sends_frames_in_many_parts),
		BOTH(sends_what_is_left_to_offload),
		BOTH(refuses_bad_headers),
		BOTH(refuses_what_was_not_negotiated),
		BOTH(sends_batches),
		BOTH(sends_many_parts_at_once),
		BOTH(hands_over_clean_headers),
	};

	netns_enter();
	return driver_run_all(tests);
}
