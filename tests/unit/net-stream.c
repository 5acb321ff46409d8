/* tsan: the network device over a stream of frames, a socket being passt, on both engines: frames
 * in any pieces, streams that end or talk nonsense, resets amid a frame. And passt's own start.
 */
#include "tests/unit/net-bench.h"
#include <signal.h>
#include <sys/stat.h>
#include "backends/passt.h"

#define FEATURES (F(MAC) | F(STATUS) | F(MTU) | F(CTRL_VQ))
#define PREFIX	 4

static const struct virtio_net_hdr_v1 no_offload;

static struct bench *stream_up(void **state, int mtu, u64 more)
{
	return bench_up(&(struct bench_options){ .epoll = epoll_of(state),
						 .stream = true,
						 .mtu = mtu,
						 .features = FEATURES | more });
}

/* ---- passt's end ---- */

/* A frame with its length; its bytes in all. */
static u32 put_frame(u8 *at, u32 size, u32 seed)
{
	u32 prefix = htonl(size);

	memcpy(at, &prefix, PREFIX);
	frame_fill(at + PREFIX, size, bench_mac, seed);
	return PREFIX + size;
}

static void write_all(struct bench *b, const u8 *bytes, u32 size)
{
	while (size) {
		ssize_t n = write(b->sock, bytes, size);

		assert_true(n > 0);
		bytes += n;
		size -= (u32)n;
	}
}

static void send_frame(struct bench *b, u32 size, u32 seed)
{
	static u8 bytes[FRAME_ROOM];

	write_all(b, bytes, put_frame(bytes, size, seed));
}

static void read_all(struct bench *b, u8 *bytes, u32 size)
{
	while (size) {
		struct pollfd ready = { .fd = b->sock, .events = POLLIN };
		ssize_t n;

		assert_int_equal(poll(&ready, 1, DRIVER_PATIENCE_MS), 1);
		n = read(b->sock, bytes, size);
		assert_true(n > 0);
		bytes += n;
		size -= (u32)n;
	}
}

static void expect_frame(struct bench *b, u32 size, u32 seed)
{
	static u8 bytes[FRAME_ROOM], expected[FRAME_ROOM];
	u32 prefix;

	read_all(b, (u8 *)&prefix, PREFIX);
	assert_int_equal(ntohl(prefix), size);
	read_all(b, bytes, size);
	frame_fill(expected, size, other_mac, seed);
	assert_memory_equal(bytes, expected, size);
}

/* ---- the driver's ---- */

/* Makes a frame available, with a place of its own; no doorbell. */
static void tx_add(struct bench *b, u32 size, u32 seed, u32 place)
{
	u64 at = TX_AT + (u64)place * FRAME_ROOM;
	u8 *to = memory_at(&b->machine.memory, at, b->header + size);
	const struct driver_part part = { at, b->header + size, false };

	memset(to, 0, b->header);
	frame_fill(to + b->header, size, other_mac, seed);
	assert_true(driver_add(&b->rings[1], &part, 1) >= 0);
}

static void tx_wait(struct bench *b, u32 count)
{
	while (count--)
		driver_wait_used(&b->rings[1], NULL, NULL);
}

static void negotiate_again(struct bench *b, void **state, u64 more)
{
	bench_forget(b);
	bench_negotiate(b, &(struct bench_options){ .epoll = epoll_of(state),
						    .features = FEATURES | more });
}

/* ---- what it offers ---- */

static void offers_no_offloads(void **state)
{
	struct bench *b = stream_up(state, 0, 0);
	u64 never = F(CSUM) | F(GUEST_CSUM) | F(CTRL_GUEST_OFFLOADS) | F(HOST_TSO4) | F(HOST_TSO6) |
		    F(HOST_ECN) | F(HOST_UFO) | F(HOST_USO) | NET_GUEST_OFFLOADS | F(MQ);

	assert_int_equal(b->device->offered & never, 0);
	assert_int_equal(config_read(b, 6, 2), VIRTIO_NET_S_LINK_UP);
}

/* ---- receiving ---- */

/* In pieces of any size, so that lengths are cut too; with and without merging. */
static void receives_in_pieces(void **state)
{
	static const u32 sizes[] = { 14, 60, 61, 1000, 1513, 1514, 15 };
	static const u32 pieces[] = { 1, 2, 3, 5, 64, 1000, 100000 };
	static u8 bytes[FRAME_ROOM];
	struct bench *b = stream_up(state, 0, 0);
	u32 seed = 0, total;

	for (u32 merge = 0; merge < 2; merge++) {
		for (u32 p = 0; p < ARRAY_SIZE(pieces); p++) {
			rx_add(b, 0, ARRAY_SIZE(sizes), merge ? 500 : 1526);
			rx_add(b, 0, merge ? 20 : 0, 500);
			total = 0;
			for (u32 i = 0; i < ARRAY_SIZE(sizes); i++)
				total += put_frame(bytes + total, sizes[i], seed + i);
			for (u32 done = 0, n; done < total; done += n) {
				n = total - done < pieces[p] ? total - done : pieces[p];
				write_all(b, bytes + done, n);
				if (p < 4 && done % 97 == 0)
					usleep(200);
			}
			for (u32 i = 0; i < ARRAY_SIZE(sizes); i++)
				rx_expect(b, 0, sizes[i], bench_mac, seed++);
		}
		driver_reset(b->device);
		negotiate_again(b, state, F(MRG_RXBUF));
	}
	assert_int_equal(bench_counts(b).rx_frames, seed);
}

static void receives_large_frames(void **state)
{
	static const u32 sizes[] = { 32014, 14, 32000, 20000, 1514 };
	struct bench *b = stream_up(state, CONFIG_USER_MTU, F(MRG_RXBUF));

	for (u32 i = 0; i < 20; i++) {
		u32 size = sizes[i % ARRAY_SIZE(sizes)];

		b->rx_next[0] = RX_AT(0) + i % 2 * MIB(8);
		rx_add(b, 0, driver_room(&b->rings[0]), 1526);
		send_frame(b, size, i);
		rx_expect(b, 0, size, bench_mac, i);
	}
}

/* Frames wait for buffers, and come in order; one that all of the ring does not hold is dropped. */
static void waits_for_buffers(void **state)
{
	struct bench *b = stream_up(state, 0, F(MRG_RXBUF));

	for (u32 i = 0; i < 20; i++)
		send_frame(b, 1500, i);
	usleep(2000);
	assert_int_equal(bench_counts(b).rx_frames, 0);
	for (u32 i = 0; i < 20; i++) {
		rx_add(b, 0, 1, 800);
		usleep(500);
		rx_add(b, 0, 1, 800);
		rx_expect(b, 0, 1500, bench_mac, i);
	}
	driver_reset(b->device);
	bench_negotiate(b, &(struct bench_options){ .features = FEATURES | F(MRG_RXBUF) });
	bench_forget(b);
	rx_add(b, 0, BENCH_RING, 16);
	send_frame(b, 5000, 0);
	send_frame(b, 1000, 1);
	rx_expect(b, 0, 1000, bench_mac, 1);
	assert_int_equal(bench_counts(b).rx_truncated, 1);
}

static void drops_what_has_no_room(void **state)
{
	struct bench *b = stream_up(state, 0, 0);

	rx_add(b, 0, 2, 1526);
	send_frame(b, 1515, 1);
	send_frame(b, 1000, 2);
	rx_expect(b, 0, 1000, bench_mac, 2);
	assert_int_equal(bench_counts(b).rx_truncated, 1);
}

/* ---- sending ---- */

static void sends_batches(void **state)
{
	struct bench *b = stream_up(state, 0, 0);
	u32 seed = 0;

	for (u32 round = 0; round < 10; round++) {
		for (u32 i = 0; i < 200; i++)
			tx_add(b, 14 + (seed + i) * 7 % 1501, seed + i, i);
		driver_kick(&b->rings[1]);
		for (u32 i = 0; i < 200; i++, seed++)
			expect_frame(b, 14 + seed * 7 % 1501, seed);
		tx_wait(b, 200);
	}
	assert_int_equal(bench_counts(b).tx_frames, 2000);
}

/* The other end takes little at a time: the stream is full, and writes end anywhere. */
static void sends_to_a_slow_reader(void **state)
{
	static const u32 sizes[] = { 32018, 32017, 100, 14, 17000, 1514 };
	struct bench *b = stream_up(state, CONFIG_USER_MTU, 0);
	int small = 4096;

	assert_int_equal(setsockopt(b->tap.fds[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)),
			 0);
	for (u32 i = 0; i < 120; i++)
		tx_add(b, sizes[i % ARRAY_SIZE(sizes)], i, i);
	driver_kick(&b->rings[1]);
	usleep(5000);
	assert_true(bench_counts(b).tx_frames < 120);
	for (u32 i = 0; i < 120; i++)
		expect_frame(b, sizes[i % ARRAY_SIZE(sizes)], i);
	tx_wait(b, 120);
	assert_int_equal(bench_counts(b).tx_frames, 120);
}

static void refuses_bad_frames(void **state)
{
	static u8 frame[40000];
	struct bench *b = stream_up(state, CONFIG_USER_MTU, 0);
	struct virtio_net_hdr_v1 gso = { .gso_type = VIRTIO_NET_HDR_GSO_TCPV4 };

	tx_send(b, 0, &no_offload, frame, 13);
	tx_send(b, 0, &no_offload, frame, KIB(32));
	tx_send(b, 0, &gso, frame, 100);
	assert_int_equal(bench_counts(b).tx_invalid, 3);
	frame_fill(frame, KIB(32) - PREFIX, other_mac, 5);
	tx_send(b, 0, &no_offload, frame, KIB(32) - PREFIX);
	expect_frame(b, KIB(32) - PREFIX, 5);
}

/* ---- a stream that fails ---- */

static void expect_link_down(struct bench *b, const char *why)
{
	static u8 frame[100];
	char said[1000];

	driver_wait(config_read(b, 6, 2) == 0);
	usleep(2000);
	capture_end(said, sizeof(said));
	assert_non_null(strstr(said, "net0: passt has vanished: "));
	assert_non_null(strstr(said, why));
	assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1);
	/* the device goes on: buffers come back, and so after a reset */
	tx_send(b, 0, &no_offload, frame, sizeof(frame));
	driver_reset(b->device);
	bench_forget(b);
	bench_negotiate(b, &(struct bench_options){ .features = FEATURES });
	assert_int_equal(config_read(b, 6, 2), 0);
	rx_add(b, 0, 2, 1526);
	tx_send(b, 0, &no_offload, frame, sizeof(frame));
	assert_true(bench_counts(b).tx_refused >= 2);
}

static void survives_its_end(void **state)
{
	struct bench *b = stream_up(state, 0, 0);
	u8 generation = virtio_config_generation(b->device);

	rx_add(b, 0, 4, 1526);
	usleep(1000);
	capture_begin();
	close(b->sock);
	b->sock = -1;
	driver_wait(config_read(b, 6, 2) == 0);
	assert_int_not_equal(virtio_config_generation(b->device), generation);
	expect_link_down(b, strerror(ECONNRESET));
}

/* The same without a buffer to receive into. */
static void notices_its_end_by_sending(void **state)
{
	struct bench *b = stream_up(state, 0, 0);

	tx_add(b, 60, 1, 0);
	capture_begin();
	close(b->sock);
	b->sock = -1;
	driver_kick(&b->rings[1]);
	tx_wait(b, 1);
	driver_wait(config_read(b, 6, 2) == 0);
	expect_link_down(b, strerror(EPIPE));
}

static void survives_nonsense(void **state)
{
	static const u32 lengths[] = { 0, 13, 66000, 0x7fffffff, 0xffffffff };

	for (u32 i = 0; i < ARRAY_SIZE(lengths); i++) {
		struct bench *b = stream_up(state, 0, 0);
		u32 prefix = htonl(lengths[i]);

		rx_add(b, 0, 4, 1526);
		send_frame(b, 100, 1);
		rx_expect(b, 0, 100, bench_mac, 1);
		capture_begin();
		write_all(b, (u8 *)&prefix, PREFIX);
		expect_link_down(b, strerror(EPROTO));
		bench_down(state);
	}
}

/* ---- resets ---- */

/* A frame half received is whole for the next driver, and the stream stays in step. */
static void resets_amid_reception(void **state)
{
	static u8 bytes[FRAME_ROOM];
	struct bench *b = stream_up(state, 0, 0);

	for (u32 cut = 1; cut < 1000; cut += cut < 8 ? 1 : 300) {
		u32 size = put_frame(bytes, 1000, cut);

		rx_add(b, 0, 8, 1526);
		usleep(500);
		write_all(b, bytes, cut);
		usleep(500);
		driver_reset(b->device);
		memset(memory_at(&b->machine.memory, RX_AT(0), 8 * 1526), 0x77, 8 * 1526);
		write_all(b, bytes + cut, size - cut);
		usleep(500);
		for (u32 i = 0; i < 8 * 1526; i++)
			assert_int_equal(((u8 *)memory_at(&b->machine.memory, RX_AT(0) + i, 1))[0],
					 0x77);
		negotiate_again(b, state, 0);
		rx_add(b, 0, 8, 1526);
		send_frame(b, 77, cut);
		rx_expect(b, 0, 1000, bench_mac, cut);
		rx_expect(b, 0, 77, bench_mac, cut);
		driver_reset(b->device);
		negotiate_again(b, state, 0);
	}
}

/* A frame half sent is ended before the next driver's first; of what was not begun nothing need
 * come. */
static void resets_amid_transmission(void **state)
{
	struct bench *b = stream_up(state, CONFIG_USER_MTU, 0);
	static u8 bytes[FRAME_ROOM], expected[FRAME_ROOM];
	int small = 4096;
	u32 prefix, got = 0;

	assert_int_equal(setsockopt(b->tap.fds[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)),
			 0);
	for (u32 round = 0; round < 4; round++) {
		for (u32 i = 0; i < 20; i++)
			tx_add(b, 14 + (i + 1) * 1500, i, i);
		driver_kick(&b->rings[1]);
		usleep(2000);
		driver_reset(b->device);
		/* what was the old driver's is not read any more */
		memset(memory_at(&b->machine.memory, TX_AT, 20 * FRAME_ROOM), 0x77,
		       20 * FRAME_ROOM);
		negotiate_again(b, state, 0);
	}
	tx_add(b, 5000, 4242, 0);
	driver_kick(&b->rings[1]);
	do {
		u32 size, seed;

		read_all(b, (u8 *)&prefix, PREFIX);
		size = ntohl(prefix);
		assert_true(size <= KIB(32));
		read_all(b, bytes, size);
		seed = size == 5000 ? 4242 : (size - 14) / 1500 - 1;
		frame_fill(expected, size, other_mac, seed);
		assert_memory_equal(bytes, expected, size);
		got++;
	} while (ntohl(prefix) != 5000);
	assert_true(got > 1);
	tx_wait(b, 1);
}

/* ---- its start ---- */

/* A program of the name passt, of this text, is what there is. */
static void start_passt(u32 forwards, const char *script, const char *why, const char *what)
{
	char folder[] = "/tmp/passt-XXXXXX", path[64], said[1000];
	const struct config_net config = { .tap = CONFIG_NET_USER,
					   .mtu = 1500,
					   .forward_count = forwards,
					   .forwards = { { false, "127.0.0.1/1:2" },
							 { true, "0.0.0.0/65535:65535" } } };
	const char *before = getenv("PATH");
	char *kept = strdup(before ? before : "");
	struct tap tap;
	FILE *f;

	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/passt", folder);
	if (script) {
		f = fopen(path, "w");
		assert_non_null(f);
		fprintf(f, "#!/bin/sh\n%s\n", script);
		fclose(f);
		chmod(path, 0755);
	}
	setenv("PATH", folder, 1);
	capture_begin();
	assert_int_equal(passt_open(&tap, &config), 0);
	setenv("PATH", kept, 1);
	assert_int_equal(passt_ready(&tap), why ? -EPIPE : 0);
	capture_end(said, sizeof(said));
	if (why) {
		assert_non_null(strstr(said, why));
		assert_non_null(strstr(said, what));
		assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1);
	} else {
		assert_string_equal(said, "");
	}
	/* ends what was started, which sees the end of its stream */
	tap_close(&tap);
	unlink(path);
	rmdir(folder);
	free(kept);
}

static void tells_why_there_is_none(void **state)
{
	(void)state;
	start_passt(0, NULL, "there is no passt", "apt install passt");
	start_passt(0, "echo Failed to send 3 bytes to syslog >&2; echo No such port >&2; exit 1",
		    "has ended: No such port", "passt(1)");
	start_passt(0, "kill -KILL $$", "has ended: Killed", "passt(1)");
	start_passt(0, "echo; exec /bin/sleep 100", "has ended: it did not come up", "passt(1)");
}

static void waits_until_it_is_ready(void **state)
{
	(void)state;
	/* as passt, the words it is given being right, its stream there and nothing else */
	start_passt(
		1,
		"case \"$*\" in '--quiet --foreground --fd=3 --pid=/proc/self/fd/1 "
		"--mac-addr=52:56:0a:00:02:02 --address=10.0.2.15 --netmask=255.255.255.0 "
		"--gateway=10.0.2.2 --mtu 1500 --dns'*' --tcp-ports 127.0.0.1/1:2 --no-map-gw') "
		";; *) exit 1 ;; esac\n"
		"for i in 4 5 6 7 8 9; do ! [ -S /proc/self/fd/$i ] || exit 1; done\n"
		"echo warning; echo $$; exec /bin/cat <&3 >/dev/null",
		NULL, NULL);
	start_passt(
		2,
		"case \"$*\" in *' --tcp-ports 127.0.0.1/1:2 --udp-ports 0.0.0.0/65535:65535') ;; "
		"*) exit 1 ;; esac\necho $$; exec /bin/cat <&3 >/dev/null",
		NULL, NULL);
}

int main(void)
{
	static const bool uring = false, epoll = true;
	const struct CMUnitTest tests[] = {
		BOTH(offers_no_offloads),
		BOTH(receives_in_pieces),
		BOTH(receives_large_frames),
		BOTH(waits_for_buffers),
		BOTH(drops_what_has_no_room),
		BOTH(sends_batches),
		BOTH(sends_to_a_slow_reader),
		BOTH(refuses_bad_frames),
		BOTH(survives_its_end),
		BOTH(notices_its_end_by_sending),
		BOTH(survives_nonsense),
		BOTH(resets_amid_reception),
		BOTH(resets_amid_transmission),
		cmocka_unit_test(tells_why_there_is_none),
		cmocka_unit_test(waits_until_it_is_ready),
	};

	signal(SIGPIPE, SIG_IGN);
	return driver_run_two(tests);
}
