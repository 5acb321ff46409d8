/*
 * What tests of the network device stand on: a tap in a namespace of its own, the device, a driver
 * with its rings and buffers, and a packet socket as the world behind the tap.
 */
#ifndef TESTS_UNIT_NET_BENCH_H
#define TESTS_UNIT_NET_BENCH_H

#include "tests/unit/driver.h"
#include "tests/unit/netns.h"
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <stdlib.h>
#include "virtio/net-internal.h"

#define BENCH_TAP   "bench0"
#define BENCH_RAM   MIB(128)
#define BENCH_PAIRS 3
#define BENCH_RING  256
#define RING_AT(n)  (0x10000ull + (n)*0x10000ull)
#define CTRL_AT	    0x200000ull
#define TX_AT	    0x400000ull
#define RX_AT(pair) (MIB(16) + (pair)*MIB(32))
#define ETHERTYPE   0x88b5 /* for experiments */
#define FRAME_ROOM  70000u

#define F(name) BIT64(VIRTIO_NET_F_##name)

/* Everything but merged buffers and GSO towards the guest. */
#define FEATURES_PLAIN                                                                   \
	(F(MAC) | F(STATUS) | F(MTU) | F(CTRL_VQ) | F(CTRL_RX) | F(CTRL_RX_EXTRA) |      \
	 F(CTRL_MAC_ADDR) | F(GUEST_ANNOUNCE) | F(CSUM) | F(GUEST_CSUM) | F(HOST_TSO4) | \
	 F(HOST_TSO6) | F(HOST_ECN) | F(CTRL_GUEST_OFFLOADS))
#define FEATURES_GSO (FEATURES_PLAIN | F(GUEST_TSO4) | F(GUEST_TSO6) | F(GUEST_ECN))

static const u8 bench_mac[6] = { 0x02, 0x11, 0x22, 0x33, 0x44, 0x55 };
static const u8 other_mac[6] = { 0x02, 0xaa, 0xbb, 0xcc, 0xdd, 0xee };
static const u8 broadcast_mac[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
static const u8 group_mac[6] = { 0x01, 0x00, 0x5e, 0x01, 0x02, 0x03 };

struct bench_options {
	bool epoll;
	u16 queues;  /* of the tap; 0: 1 */
	u32 threads; /* 0: 1 */
	int mtu;     /* 0: 1500 */
	u64 features;
	bool legacy;
	bool down;			  /* the interface */
	bool idle;			  /* do not go to DRIVER_OK */
	const struct vhost_kernel *vhost; /* vhost=on, with this */
	u16 told_mtu;			  /* mtu=; 0: the tap's */
	u32 vhost_poll_us;
	bool stream; /* no tap but a stream of frames, whose other end is sock */
	bool wire;   /* no tap but a pair of sockets: headers of any kind go in, and are seen coming
			out */
};

struct bench {
	struct driver_machine machine;
	struct tap tap;
	struct vhost vhost;
	struct virtio_net *net;
	struct virtio_device *device;
	bool up;
	u32 header;
	u16 ctrl_index;
	struct driver_ring rings[2 * BENCH_PAIRS + 1];
	u64 rx_at[BENCH_PAIRS][NET_QUEUE_SIZE]; /* the buffer of each head */
	u32 rx_size[BENCH_PAIRS][NET_QUEUE_SIZE];
	u64 rx_next[BENCH_PAIRS];
	int sock;
};

struct bench_frame {
	u8 bytes[FRAME_ROOM]; /* header included */
	u32 size;	      /* likewise */
	u32 room;	      /* in all of its buffers */
	u16 buffers;
};

static struct bench bench;
static struct bench_frame received;

/* ---- up and down ---- */

static inline void bench_socket(struct bench *b)
{
	struct sockaddr_ll address = { .sll_family = AF_PACKET,
				       .sll_protocol = htons(ETH_P_ALL),
				       .sll_ifindex = (int)if_nametoindex(BENCH_TAP) };
	int one = 1, room = 8 << 20;

	b->sock = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	assert_true(b->sock >= 0);
	assert_int_equal(setsockopt(b->sock, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)), 0);
	assert_int_equal(setsockopt(b->sock, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)),
			 0);
	setsockopt(b->sock, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	setsockopt(b->sock, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
	assert_int_equal(bind(b->sock, (struct sockaddr *)&address, sizeof(address)), 0);
}

static inline void bench_rings(struct bench *b, const struct bench_options *options)
{
	bool mq = options->features & F(MQ);
	u16 pairs = mq ? b->tap.queues : 1;

	b->ctrl_index = (u16)(2 * pairs);
	for (u16 i = 0; i <= b->ctrl_index; i++) {
		/* a legacy driver takes the size it finds */
		u16 size = options->legacy ? NET_QUEUE_SIZE : BENCH_RING;

		driver_ring_init(&b->rings[i], &b->machine.memory, RING_AT(i), size, false);
		b->rings[i].packed &= !options->legacy;
		b->rings[i].in_order &= !options->legacy;
		if (!options->legacy) {
			driver_queue(b->device, i, &b->rings[i]);
			continue;
		}
		pthread_mutex_lock(&b->device->lock);
		virtio_queue_set_pfn(virtio_queue_get(b->device, i), (u32)(RING_AT(i) >> 12));
		b->rings[i].doorbell_fd = virtio_queue_get(b->device, i)->doorbell_fd;
		pthread_mutex_unlock(&b->device->lock);
	}
}

static inline void bench_negotiate(struct bench *b, const struct bench_options *options)
{
	if (options->legacy) {
		driver_status(b->device, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER,
			      true);
		pthread_mutex_lock(&b->device->lock);
		virtio_features_write(b->device, 0, (u32)options->features, true);
		pthread_mutex_unlock(&b->device->lock);
	} else {
		assert_true(driver_negotiate(b->device, options->features));
	}
	b->header = options->legacy && !(options->features & F(MRG_RXBUF)) ? 10 : 12;
	bench_rings(b, options);
	if (options->legacy)
		driver_status(b->device, 7, true);
	else
		driver_ok(b->device);
}

/* Forgets what buffers the driver had given. */
static inline void bench_forget(struct bench *b)
{
	for (u16 i = 0; i < BENCH_PAIRS; i++)
		b->rx_next[i] = RX_AT(i);
}

/* A tap that does nothing to frames; the world's end of it is sock. */
static inline void bench_wire(struct bench *b)
{
	int ends[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends),
			 0);
	memset(&b->tap, 0, sizeof(b->tap));
	strcpy(b->tap.name, "wire0");
	b->tap.queues = 1;
	b->tap.fds[0] = ends[0];
	b->tap.mtu = 1500;
	b->tap.can_csum = b->tap.can_tso4 = b->tap.can_tso6 = b->tap.can_ecn = true;
	b->tap.can_ufo = b->tap.can_uso = true;
	b->sock = ends[1];
}

/* What passt_open() makes, without passt. */
static inline void bench_stream(struct bench *b)
{
	int ends[2], says[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	assert_int_equal(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(pipe(says), 0);
	memset(&b->tap, 0, sizeof(b->tap));
	strcpy(b->tap.name, "passt");
	b->tap.queues = 1;
	b->tap.stream = true;
	b->tap.fds[0] = ends[0];
	b->tap.fds[1] = dup(ends[0]);
	b->tap.passt = INT32_MAX; /* nobody's */
	b->tap.passt_says = says[0];
	assert_int_equal(dprintf(says[1], "a warning\n%d\n", INT32_MAX), 21);
	close(says[1]);
	b->tap.mtu = 1500;
	b->sock = ends[1];
}

static inline struct bench *bench_up(const struct bench_options *options)
{
	const struct tap_config tap = { BENCH_TAP, options->queues ? options->queues : 1 };
	struct bench *b = &bench;
	struct virtio_net_options config = { .name = "net0",
					     .tap = &b->tap,
					     .features = driver_features() };

	bool tap_needed = !options->wire && !options->stream;

	if (tap_needed)
		netns_needed();
	memset(b, 0, sizeof(*b));
	if (options->wire)
		bench_wire(b);
	else if (options->stream)
		bench_stream(b);
	else
		assert_int_equal(tap_open(&b->tap, &tap), 0);
	if (options->mtu) {
		if (tap_needed)
			netns_mtu(BENCH_TAP, options->mtu);
		b->tap.mtu = (u32)options->mtu;
	}
	if (options->vhost) {
		const struct vhost_config vhost = { .name = BENCH_TAP,
						    .pairs = b->tap.queues,
						    .kernel = options->vhost };

		assert_int_equal(vhost_open(&b->vhost, &vhost), 0);
		config.vhost = &b->vhost;
		config.vhost_poll_us = options->vhost_poll_us;
	}
	driver_machine_up(&b->machine, BENCH_RAM, options->threads ? options->threads : 1,
			  options->epoll);
	assert_int_equal(tap_register(&b->tap, b->machine.reactors), 0);
	config.memory = &b->machine.memory;
	config.reactors = b->machine.reactors;
	config.mtu = options->told_mtu ? options->told_mtu : (u16)b->tap.mtu;
	memcpy(config.mac, bench_mac, 6);
	assert_int_equal(virtio_net_create(&b->net, &config), 0);
	b->device = virtio_net_device(b->net);
	b->up = true;
	driver_machine_go(&b->machine);
	if (tap_needed)
		bench_socket(b);
	if (options->down)
		netns_up(BENCH_TAP, false);
	bench_forget(b);
	if (!options->idle)
		bench_negotiate(b, options);
	return b;
}

static inline int bench_down(void **state)
{
	struct bench *b = &bench;

	(void)state;
	if (!b->up)
		return 0;
	virtio_device_power_on(b->device);
	driver_machine_stop(&b->machine);
	virtio_net_destroy(b->net);
	driver_machine_down(&b->machine);
	vhost_close(&b->vhost);
	tap_close(&b->tap);
	if (b->sock >= 0)
		close(b->sock);
	b->up = false;
	return 0;
}

static inline struct virtio_net_counts bench_counts(struct bench *b)
{
	struct virtio_net_counts counts;

	virtio_net_counts(b->net, &counts);
	return counts;
}

/* ---- frames ---- */

/* A frame of `size` bytes whose contents follow from size and seed. */
static inline void frame_fill(u8 *frame, u32 size, const u8 *to, u32 seed)
{
	memcpy(frame, to, 6);
	memcpy(frame + 6, other_mac, 6);
	frame[12] = ETHERTYPE >> 8;
	frame[13] = ETHERTYPE & 0xff;
	for (u32 i = 14; i < size; i++) {
		seed = seed * 1664525u + 1013904223u + size;
		frame[i] = (u8)(seed >> 24);
	}
}

static inline void frame_tag(u8 *frame, u16 vlan)
{
	memmove(frame + 16, frame + 12, 2);
	frame[12] = 0x81;
	frame[13] = 0x00;
	frame[14] = (u8)(vlan >> 8);
	frame[15] = (u8)vlan;
}

/* From the world to the guest, with a vnet header (NULL: an empty one). */
static inline void world_send_header(struct bench *b, const struct virtio_net_hdr *header,
				     const u8 *frame, u32 size)
{
	static const struct virtio_net_hdr none;
	const struct iovec iov[] = { { (void *)(header ? header : &none), sizeof(none) },
				     { (void *)frame, size } };
	const struct msghdr message = { .msg_iov = (struct iovec *)iov, .msg_iovlen = 2 };
	ssize_t n = sendmsg(b->sock, &message, 0);

	if (n != (ssize_t)(size + sizeof(none)))
		fail_msg("sendmsg of %u bytes: %zd %s", size, n, strerror(errno));
}

static inline void world_send(struct bench *b, u32 size, const u8 *to, u32 seed)
{
	static u8 frame[FRAME_ROOM];

	frame_fill(frame, size, to, seed);
	world_send_header(b, NULL, frame, size);
}

/* From the guest to the world: the frame without its header. -1: nothing in `ms`. */
static inline int world_receive(struct bench *b, struct virtio_net_hdr *header, u8 *frame, int ms)
{
	struct iovec iov[] = { { header, sizeof(*header) }, { frame, FRAME_ROOM } };
	struct msghdr message = { .msg_iov = iov, .msg_iovlen = 2 };
	struct pollfd ready = { .fd = b->sock, .events = POLLIN };
	ssize_t n;

	if (poll(&ready, 1, ms) != 1)
		return -1;
	n = recvmsg(b->sock, &message, 0);
	return n < 0 ? -1 : (int)(n - (ssize_t)sizeof(*header));
}

/* ---- the driver's receiving side ---- */

static inline void rx_kick(struct bench *b, u16 pair)
{
	driver_kick(&b->rings[2 * pair]);
}

/* A buffer in parts of the given lengths, one after the other in memory. */
static inline void rx_add_parts(struct bench *b, u16 pair, const u32 *lengths, u16 count)
{
	struct driver_part parts[BENCH_RING];
	u64 at = b->rx_next[pair];
	u32 size = 0;
	int head;

	for (u16 i = 0; i < count; i++) {
		parts[i] = (struct driver_part){ at + size, lengths[i], true };
		size += lengths[i];
	}
	memset(memory_at(&b->machine.memory, at, size), 0xa5, size);
	head = driver_add(&b->rings[2 * pair], parts, count);
	assert_true(head >= 0);
	b->rx_at[pair][head] = at;
	b->rx_size[pair][head] = size;
	b->rx_next[pair] = at + size;
}

static inline void rx_add(struct bench *b, u16 pair, u16 count, u32 size)
{
	while (count--)
		rx_add_parts(b, pair, &size, 1);
	rx_kick(b, pair);
}

/* Takes a used buffer that must be there; its bytes are appended to the frame. */
static inline u32 rx_take_buffer(struct bench *b, u16 pair, struct bench_frame *frame, u32 *written)
{
	u32 head = 0;

	assert_true(driver_used(&b->rings[2 * pair], &head, written));
	assert_true(*written <= b->rx_size[pair][head]);
	assert_true(frame->size + *written <= FRAME_ROOM);
	memcpy(frame->bytes + frame->size,
	       memory_at(&b->machine.memory, b->rx_at[pair][head], *written), *written);
	frame->size += *written;
	frame->room += b->rx_size[pair][head];
	return b->rx_size[pair][head];
}

static inline bool rx_waiting(struct bench *b, u16 pair)
{
	struct driver_ring *ring = &b->rings[2 * pair];

	return driver_shown(ring) != ring->next_used;
}

/* The next frame, held to what 5.1.6.4.1 says of buffers. */
static inline struct bench_frame *rx_take(struct bench *b, u16 pair)
{
	struct driver_ring *ring = &b->rings[2 * pair];
	struct bench_frame *frame = &received;
	u16 there, num = 1;
	u32 room, written = 0;

	driver_wait(rx_waiting(b, pair));
	there = (u16)(driver_shown(ring) - ring->next_used);
	frame->size = 0;
	frame->room = 0;
	frame->buffers = 1;
	room = rx_take_buffer(b, pair, frame, &written);
	for (;;) {
		/* the number itself may lie in several buffers */
		if (b->header == 12)
			num = frame->size < 12 ? (u16)(frame->buffers + 1)
					       : le16_load(frame->bytes + 10);
		if (frame->buffers >= num)
			break;
		/* all but the last are full, and all were shown together */
		assert_int_equal(written, room);
		assert_true(frame->buffers < there);
		room = rx_take_buffer(b, pair, frame, &written);
		frame->buffers++;
	}
	assert_int_equal(frame->buffers, num);
	return frame;
}

static inline void rx_expect(struct bench *b, u16 pair, u32 size, const u8 *to, u32 seed)
{
	static u8 expected[FRAME_ROOM];
	const struct bench_frame *frame = rx_take(b, pair);

	frame_fill(expected, size, to, seed);
	assert_int_equal(frame->size, b->header + size);
	assert_memory_equal(frame->bytes + b->header, expected, size);
}

/* Nothing came that was sent before: a broadcast sent now is the next frame. */
static inline void rx_expect_nothing(struct bench *b, u16 pair)
{
	world_send(b, 99, broadcast_mac, 12345);
	rx_expect(b, pair, 99, broadcast_mac, 12345);
}

/* ---- its sending side ---- */

/* Sends header and frame in parts of the given lengths (the last takes the rest) and waits until
 * the device is done with it. */
static inline void tx_send_parts(struct bench *b, u16 pair, const void *header, const u8 *frame,
				 u32 size, const u32 *lengths, u16 count)
{
	struct driver_ring *ring = &b->rings[2 * pair + 1];
	u8 *to = memory_at(&b->machine.memory, TX_AT, FRAME_ROOM);
	struct driver_part parts[BENCH_RING];
	u32 left = b->header + size, head = 0, written = 0;
	u64 at = TX_AT;
	int added;

	memcpy(to, header, b->header);
	memcpy(to + b->header, frame, size);
	for (u16 i = 0; i < count; i++) {
		u32 n = i + 1 == count || lengths[i] > left ? left : lengths[i];

		parts[i] = (struct driver_part){ at, n, false };
		at += n;
		left -= n;
	}
	added = driver_add(ring, parts, count);
	assert_true(added >= 0);
	driver_kick(ring);
	driver_wait_used(ring, &head, &written);
	assert_int_equal(head, added);
	assert_int_equal(written, 0);
	/* 2.7.5.1: what is for reading was only read */
	assert_memory_equal(to, header, b->header);
	assert_memory_equal(to + b->header, frame, size);
}

static inline void tx_send(struct bench *b, u16 pair, const void *header, const u8 *frame, u32 size)
{
	tx_send_parts(b, pair, header, frame, size, &size, 1);
}

/* ---- its control queue ---- */

/* A command whose bytes, class and command included, come in parts of `piece` bytes. The ack. */
static inline u8 ctrl_raw(struct bench *b, const void *bytes, u32 size, u32 piece)
{
	struct driver_ring *ring = &b->rings[b->ctrl_index];
	u8 *at = memory_at(&b->machine.memory, CTRL_AT, size + 64);
	struct driver_part parts[BENCH_RING];
	u16 count = 0;
	u32 written = 0;

	memcpy(at, bytes, size);
	at[size] = 0xee;
	for (u32 done = 0; done < size; done += parts[count++].length)
		parts[count] =
			(struct driver_part){ CTRL_AT + done,
					      size - done < piece ? size - done : piece, false };
	parts[count++] = (struct driver_part){ CTRL_AT + size, 1, true };
	assert_true(driver_add(ring, parts, count) >= 0);
	driver_kick(ring);
	driver_wait_used(ring, NULL, &written);
	assert_int_equal(written, 1);
	assert_memory_equal(at, bytes, size);
	return at[size];
}

static inline u8 ctrl(struct bench *b, u8 class, u8 command, const void *data, u32 size)
{
	u8 bytes[4096] = { class, command };

	assert_true(size <= sizeof(bytes) - 2);
	if (size)
		memcpy(bytes + 2, data, size);
	return ctrl_raw(b, bytes, size + 2, 4096);
}

static inline u8 ctrl_byte(struct bench *b, u8 class, u8 command, u8 value)
{
	return ctrl(b, class, command, &value, 1);
}

static inline u8 ctrl_u16(struct bench *b, u8 class, u8 command, u16 value)
{
	u8 bytes[2];

	le16_store(bytes, value);
	return ctrl(b, class, command, bytes, 2);
}

static inline u8 ctrl_u64(struct bench *b, u8 class, u8 command, u64 value)
{
	u8 bytes[8];

	le64_store(bytes, value);
	return ctrl(b, class, command, bytes, 8);
}

static inline u64 config_read(struct bench *b, u32 offset, u32 size)
{
	u64 value;

	pthread_mutex_lock(&b->device->lock);
	value = virtio_config_read(b->device, offset, size);
	pthread_mutex_unlock(&b->device->lock);
	return value;
}

static inline void config_mac(struct bench *b, u8 *mac)
{
	le_store(mac, 6, config_read(b, 0, 6));
}

/* ---- what tests share ---- */

#define TCP_PAYLOAD 40000u

/* A TCP segment whose checksum is left to do, as a host's stack makes them. Its size. */
static inline u32 tcp_frame(u8 *frame, u32 payload, struct virtio_net_hdr *header)
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
static inline bool tcp_sum_right(const u8 *frame, u32 size)
{
	u32 length = size - 34, sum = 0x0a00 + 0x0001 + 0x0a00 + 0x0002 + IPPROTO_TCP + length;

	for (u32 i = 0; i < length; i++)
		sum += i & 1 ? frame[34 + i] : (u32)frame[34 + i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

static inline bool epoll_of(void **state)
{
	return *(const bool *)*state;
}

static inline struct bench *up_wire(void **state, u64 features)
{
	struct bench *b;

	capture_begin(); /* sockets know nothing of offloads, which is said once */
	b = bench_up(&(struct bench_options){
		.epoll = epoll_of(state), .features = features, .wire = true });
	capture_end((char *)received.bytes, sizeof(received.bytes));
	return b;
}

#define BOTH(test)                                                                        \
	cmocka_unit_test_prestate_setup_teardown(test, NULL, bench_down, (void *)&uring), \
		cmocka_unit_test_prestate_setup_teardown(test, NULL, bench_down, (void *)&epoll)

#endif
