/* tsan: the socket device, from Unix sockets to rings and back, on both engines; its driver may be
 * hostile. */
#include "tests/unit/vsock-fixture.h"

/* ---- connections ---- */

/* 5.10.3, 5.10.4: what it offers. */
static void offers(void **state)
{
	struct fixture *f = vsock_up(state);

	assert_int_equal(f->device->offered & 0xff, 7);
	assert_int_equal(f->device->queue_count, 3);
	pthread_mutex_lock(&f->device->lock);
	assert_int_equal(virtio_config_read(f->device, 0, 8), CID);
	pthread_mutex_unlock(&f->device->lock);
}

static void guest_connects(void **state)
{
	struct fixture *f = vsock_up(state);
	int listener = listens(f, 1234, SOCK_STREAM, 8), fd;

	begin(f, SEQPACKET, 16);
	fd = dials(f, 7, 1234, listener);
	assert_int_equal(le64toh(f->told.src_cid), 2);
	assert_int_equal(le16toh(f->told.type), STREAM);
	assert_int_equal(le32toh(f->told.buf_alloc), CREDIT);
	sends(f, 7, 1234, "hello", 5);
	host_gets(fd, "hello");
	host_sends(fd, "and back");
	gets(f, 7, 1234, "and back");
	assert_int_equal(le32toh(f->told.fwd_cnt), 5);
	close(fd);
	close(listener);
}

/* A client's line, and what it says right behind it. */
static void host_connects(void **state)
{
	struct fixture *f = vsock_up(state);
	int early = comes(f, SOCK_STREAM), fd, other;
	u32 port, second;

	host_sends(early, "CONNECT 5\nsoon"); /* before there is a driver */
	begin(f, SEQPACKET, 16);
	told(f, OP(REQUEST), 5, 0);
	port = le32toh(f->told.src_port);
	told_nothing(f);
	says(f, OP(RESPONSE), 5, port, 0);
	gets(f, 5, port, "soon");
	host_gets(early, "OK ");
	fd = calls(f, 6, &port);
	other = calls(f, 6, &second);
	assert_int_not_equal(port, second);
	host_sends(other, "second");
	gets(f, 6, second, "second");
	sends(f, 6, port, "first", 5);
	host_gets(fd, "first");
	close(early);
	close(fd);
	close(other);
}

static void nobody_listens(void **state)
{
	static const char *const lines[] = { "CONNECT\n",
					     "CONNECT x\n",
					     "connect 5\n",
					     "\n",
					     "CONNECT 5 6\n",
					     "CONNECT 4294967295\n",
					     "CONNECT 18446744073709551621\n" };
	struct fixture *f = vsock_up(state);
	int stream = listens(f, 11, SOCK_STREAM, 1), fd;
	struct virtio_vsock_hdr h;

	begin(f, SEQPACKET, 16);
	says(f, OP(REQUEST), 7, 10, 0);
	told(f, OP(RST), 7, 10);
	h = header(f, OP(REQUEST), 7, 11); /* what listens is of the other kind */
	h.type = htole16(SEQ);
	post(f, &h, NULL, 0);
	told(f, OP(RST), 7, 11);
	fd = comes(f, SOCK_STREAM);
	host_sends(fd, "CONNECT 5\n");
	told(f, OP(REQUEST), 5, 0);
	says(f, OP(RST), 5, le32toh(f->told.src_port), 0);
	host_sees_end(fd);
	close(fd);
	for (u32 i = 0; i < ARRAY_SIZE(lines); i++) {
		fd = comes(f, SOCK_STREAM);
		host_sends(fd, lines[i]);
		host_sees_end(fd);
		close(fd);
	}
	told_nothing(f);
	fd = comes(f, SOCK_STREAM); /* one that says no more, but waits, ... */
	host_sends(fd, "CONNECT 9\nall");
	shutdown(fd, SHUT_WR);
	told(f, OP(REQUEST), 9, 0);
	told_nothing(f);
	says(f, OP(RESPONSE), 9, le32toh(f->told.src_port), 0);
	gets(f, 9, 0, "all");
	told(f, OP(SHUTDOWN), 9, 0);
	host_gets(fd, "OK ");
	says(f, OP(RST), 9, le32toh(f->told.src_port), 0);
	close(fd);
	fd = comes(f, SOCK_STREAM); /* ... and one that leaves before the guest has answered */
	host_sends(fd, "CONNECT 9\n");
	told(f, OP(REQUEST), 9, 0);
	close(fd);
	told(f, OP(RST), 9, 0);
	close(stream);
}

/* 5.10.6.6: each half ends behind its last byte, and the whole with RST. */
static void half_closes(void **state)
{
	struct fixture *f = vsock_up(state);
	u32 port;
	int fd;

	begin(f, 0, 16);
	fd = calls(f, 1, &port);
	sends(f, 1, port, "last", 4);
	says(f, OP(SHUTDOWN), 1, port, SHUT(SEND));
	host_gets(fd, "last");
	host_sees_end(fd);
	host_sends(fd, "still");
	gets(f, 1, port, "still");
	close(fd);
	told(f, OP(SHUTDOWN), 1, port);
	assert_int_equal(le32toh(f->told.flags), SHUT(SEND) | SHUT(RCV));
	says(f, OP(RST), 1, port, 0);
	told_nothing(f);

	fd = calls(f, 1, &port);
	host_sends(fd, "last");
	shutdown(fd, SHUT_WR);
	gets(f, 1, port, "last");
	told(f, OP(SHUTDOWN), 1, port);
	assert_int_equal(le32toh(f->told.flags), SHUT(SEND));
	sends(f, 1, port, "still", 5);
	host_gets(fd, "still");
	says(f, OP(SHUTDOWN), 1, port, SHUT(SEND) | SHUT(RCV));
	told(f, OP(RST), 1, port);
	host_sees_end(fd);
	close(fd);

	fd = calls(f, 1, &port); /* the guest reads no more */
	says(f, OP(SHUTDOWN), 1, port, SHUT(RCV));
	driver_wait(send(fd, "x", 1, MSG_NOSIGNAL) < 0);
	assert_int_equal(errno, EPIPE);
	sends(f, 1, port, "but writes", 10);
	host_gets(fd, "but writes");
	says(f, OP(SHUTDOWN), 1, port, SHUT(SEND)); /* with what was said before: both */
	told(f, OP(RST), 1, port);
	host_sees_end(fd);
	close(fd);
}

/* The guest sends until it has no credit more, since nobody reads; how much. */
static u32 stuff(struct fixture *f, u32 guest_port, u32 host_port)
{
	static u8 bytes[KIB(8)];
	u32 sent = 0, forwarded = 0, idle = 0;

	while (idle < 200) {
		while (look(f))
			if (le32toh(f->told.dst_port) == guest_port)
				forwarded = le32toh(f->told.fwd_cnt);
		if (sent - forwarded + sizeof(bytes) > CREDIT) {
			idle++;
			usleep(1000);
			continue;
		}
		idle = 0;
		for (u32 j = 0; j < sizeof(bytes); j++)
			bytes[j] = pattern(sent++);
		sends(f, guest_port, host_port, bytes, sizeof(bytes));
	}
	return sent;
}

/* The host reads so much, and each byte is right. */
static void drain(int fd, u32 bytes)
{
	static u8 got[KIB(64)];

	for (u32 sum = 0; sum < bytes;) {
		size_t n = host_takes(fd, got, sizeof(got));

		assert_true(n > 0);
		for (size_t i = 0; i < n; i++)
			assert_int_equal(got[i], pattern(sum++));
	}
}

/* What a guest has sent before it closed is read, however late, and its ports are free at once. */
static void closes_with_bytes_left(void **state)
{
	struct fixture *f = vsock_up(state);
	int listener = listens(f, 9, SOCK_STREAM, 8), fd, again;
	u32 sent;

	begin(f, 0, 16);
	fd = dials(f, 1, 9, listener);
	sent = stuff(f, 1, 9);
	assert_true(sent > CREDIT);
	says(f, OP(SHUTDOWN), 1, 9, SHUT(SEND) | SHUT(RCV));
	told(f, OP(RST), 1, 9);
	again = dials(f, 1, 9, listener);
	sends(f, 1, 9, "new", 3);
	host_gets(again, "new");
	drain(fd, sent);
	host_sees_end(fd);
	close(fd);
	close(again);
	close(listener);
}

/* The host's end goes while the guest writes: it is told that nobody reads, and still gets what was
 * written for it. */
static void reader_goes(void **state)
{
	struct fixture *f = vsock_up(state);
	u32 port;
	int fd;

	begin(f, 0, 16);
	fd = calls(f, 1, &port);
	host_sends(fd, "my last");
	close(fd);
	sends(f, 1, port, "to nobody", 9);
	sends(f, 1, port, "to nobody", 9);
	/* in which order these come is the host's affair; the bytes are not lost */
	for (bool had = false, over = false; !had || !over;) {
		driver_wait(look(f));
		if (le16toh(f->told.op) == OP(RW)) {
			assert_memory_equal(f->data, "my last", 7);
			had = true;
		} else if (le16toh(f->told.op) == OP(SHUTDOWN)) {
			over = le32toh(f->told.flags) == (SHUT(SEND) | SHUT(RCV));
		}
	}
	says(f, OP(RST), 1, port, 0);
	says(f, OP(CREDIT_REQUEST), 1, port, 0); /* nobody's any more */
	told(f, OP(RST), 1, port);
}

/* ---- credit ---- */

/* 5.10.6.3.2: the device sends no more than there is room for. */
static void keeps_to_the_guests_credit(void **state)
{
	struct fixture *f = vsock_up(state);
	char text[1001];
	u32 port, sum = 0;
	int fd;

	memset(text, 'x', sizeof(text));
	text[1000] = 0;
	begin(f, 0, 16);
	f->alloc = 100;
	fd = calls(f, 1, &port);
	host_sends(fd, text);
	assert_int_equal(told(f, OP(RW), 1, port), 100);
	told_nothing(f);
	for (sum = 100; sum < 1000; sum += 100) {
		f->forwarded += 100;
		says(f, OP(CREDIT_UPDATE), 1, port, 0);
		assert_int_equal(told(f, OP(RW), 1, port), 100);
	}
	told_nothing(f);
	f->forwarded = 5000; /* more than it was ever sent */
	says(f, OP(CREDIT_UPDATE), 1, port, 0);
	host_sends(fd, text);
	told_nothing(f);
	f->forwarded = 1000;
	f->alloc = UINT32_MAX;
	says(f, OP(CREDIT_UPDATE), 1, port, 0);
	assert_int_equal(told(f, OP(RW), 1, port), 1000);
	close(fd);
}

/* A reader that is stuck holds up its connection alone, and the guest may fill its room; beyond
 * that it is reset. */
static void stuck_reader(void **state)
{
	static u8 bytes[KIB(8)], got[KIB(64)];
	struct fixture *f = vsock_up(state);
	u32 stuck, port, sent;
	int slow, fd;

	begin(f, 0, 64);
	slow = calls(f, 1, &stuck);
	fd = calls(f, 2, &port);
	sent = stuff(f, 1, stuck);
	for (u32 i = 0; i < 50; i++) {
		sends(f, 2, port, "alive", 5);
		host_gets(fd, "alive");
		host_sends(fd, "too");
		gets(f, 2, port, "too");
	}
	drain(slow, sent);
	do
		told(f, OP(CREDIT_UPDATE), 1, stuck);
	while (le32toh(f->told.fwd_cnt) < sent - CREDIT / 4);
	says(f, OP(CREDIT_REQUEST), 1, stuck, 0);
	do
		told(f, OP(CREDIT_UPDATE), 1, stuck);
	while (le32toh(f->told.fwd_cnt) != sent);
	/* nobody reads, and it goes on and on */
	for (u32 i = 0; i < 4 * CREDIT / sizeof(bytes) + 64; i++)
		sends(f, 1, stuck, bytes, sizeof(bytes));
	told(f, OP(RST), 1, stuck);
	for (bool more = true; more;)
		more = host_takes(slow, got, sizeof(got)) > 0;
	sends(f, 2, port, "alive", 5);
	host_gets(fd, "alive");
	close(slow);
	close(fd);
}

/* A socket that takes a part of a packet: the rest follows, wherever the border is. */
static void writes_in_parts(void **state)
{
	static u8 bytes[KIB(10)];
	const u32 large = 60000;
	struct fixture *f = vsock_up(state);
	int listener = listens(f, 9, SOCK_STREAM, 8), fd;
	struct virtio_vsock_hdr h;
	u8 *packet = at(f, MIB(9), HEADER + large);
	const struct driver_part part = { MIB(9), HEADER + large, false };

	begin(f, 0, 16);
	for (u32 n = 0; n < 20; n++) {
		u32 sent = 0;

		fd = dials(f, 100 + n, 9, listener);
		for (u32 i = 0; i < n; i++) {
			for (u32 j = 0; j < sizeof(bytes); j++)
				bytes[j] = pattern(sent++);
			sends(f, 100 + n, 9, bytes, sizeof(bytes));
		}
		h = header(f, OP(RW), 100 + n, 9);
		h.len = htole32(large);
		memcpy(packet, &h, HEADER);
		for (u32 j = 0; j < large; j++)
			packet[HEADER + j] = pattern(sent++);
		assert_true(driver_add(&f->rings[TX], &part, 1) >= 0);
		driver_kick(&f->rings[TX]);
		reactors_settle(f->machine.reactors);
		drain(fd, sent);
		says(f, OP(SHUTDOWN), 100 + n, 9, SHUT(SEND) | SHUT(RCV));
		host_sees_end(fd);
		close(fd);
		told(f, OP(RST), 100 + n, 9);
	}
	close(listener);
}

static void bulk(void **state)
{
	static u8 out[KIB(64)], in[KIB(64)], packet[KIB(15)];
	struct fixture *f = vsock_up(state);
	const u32 total = MIB(3);
	u32 port, host_sent = 0, host_got = 0, sent = 0, got = 0, forwarded = 0;
	u64 until = driver_ms() + 10 * DRIVER_PATIENCE_MS;
	int fd;

	begin(f, 0, 64);
	f->alloc = KIB(50);
	fd = calls(f, 1, &port);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	while (host_sent < total || host_got < total || sent < total || got < total) {
		u32 size = 1 + (host_sent * 7919) % ((u32)sizeof(out) - 1);
		ssize_t n;

		assert_true(driver_ms() < until);
		size = size < total - host_sent ? size : total - host_sent;
		for (u32 i = 0; i < size; i++)
			out[i] = pattern(host_sent + i);
		n = size ? write(fd, out, size) : 0;
		host_sent += n > 0 ? (u32)n : 0;
		n = read(fd, in, sizeof(in));
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(in[i], pattern(host_got++));
		while (look(f)) {
			forwarded = le32toh(f->told.fwd_cnt);
			for (u32 i = 0; i < le32toh(f->told.len); i++)
				assert_int_equal(f->data[i], pattern(got++));
			if (f->forwarded != got) {
				f->forwarded = got;
				says(f, OP(CREDIT_UPDATE), 1, port, 0);
			}
		}
		size = 1 + (sent * 31) % ((u32)sizeof(packet) - 1);
		size = size < total - sent ? size : total - sent;
		if (!size || sent + size - forwarded > CREDIT)
			continue;
		for (u32 i = 0; i < size; i++)
			packet[i] = pattern(sent++);
		sends(f, 1, port, packet, size);
	}
	close(fd);
}

/* ---- seqpacket ---- */

static void messages(void **state)
{
	static u8 bytes[KIB(12)], got[KIB(200)];
	struct fixture *f = vsock_up(state);
	int listener = listens(f, 30, SOCK_SEQPACKET, 8), fd;
	struct virtio_vsock_hdr h;
	u32 port;

	begin(f, SEQPACKET, 64);
	h = header(f, OP(REQUEST), 3, 30);
	h.type = htole16(SEQ);
	post(f, &h, NULL, 0);
	told(f, OP(RESPONSE), 3, 30);
	assert_int_equal(le16toh(f->told.type), SEQ);
	fd = accepts(listener);
	sends_piece(f, 3, 30, "one", 3, VIRTIO_VSOCK_SEQ_EOM);
	sends_piece(f, 3, 30, "tw", 2, 0);
	sends_piece(f, 3, 30, "", 0, VIRTIO_VSOCK_SEQ_EOR);
	sends_piece(f, 3, 30, "o", 1, VIRTIO_VSOCK_SEQ_EOM | VIRTIO_VSOCK_SEQ_EOR);
	sends_piece(f, 3, 30, "", 0, VIRTIO_VSOCK_SEQ_EOM);
	assert_int_equal(host_takes(fd, got, sizeof(got)), 3);
	assert_int_equal(host_takes(fd, got, sizeof(got)), 3);
	assert_memory_equal(got, "two", 3);
	/* as long as the room is, in pieces, more than once round it */
	for (u32 n = 0; n < 5; n++) {
		for (u32 i = 0; i < 10; i++) {
			for (u32 j = 0; j < sizeof(bytes); j++)
				bytes[j] = pattern(n + i * sizeof(bytes) + j);
			sends_piece(f, 3, 30, bytes, sizeof(bytes),
				    i == 9 ? VIRTIO_VSOCK_SEQ_EOM : 0);
		}
		assert_int_equal(host_takes(fd, got, sizeof(got)), 10 * sizeof(bytes));
		for (u32 i = 0; i < 10 * sizeof(bytes); i++)
			assert_int_equal(got[i], pattern(n + i));
		do /* the guest may send as much again */
			told(f, OP(CREDIT_UPDATE), 3, 30);
		while (le32toh(f->told.fwd_cnt) != 6 + (n + 1) * 10 * sizeof(bytes));
	}
	/* into the guest: whole, or not at all */
	f->alloc = 10000;
	says(f, OP(CREDIT_UPDATE), 99, 99, 0);
	told(f, OP(RST), 99, 99);
	h = header(f, OP(CREDIT_UPDATE), 3, 30);
	h.type = htole16(SEQ);
	post(f, &h, NULL, 0);
	assert_int_equal(send(fd, got, 9000, 0), 9000);
	assert_int_equal(send(fd, got, 9001, 0), 9001);
	host_sends(fd, "x");
	for (u32 n = 0, size; n < 9000; n += size) {
		size = told(f, OP(RW), 3, 30);
		assert_int_equal(le32toh(f->told.flags),
				 n + size == 9000 ? VIRTIO_VSOCK_SEQ_EOM : 0);
	}
	told_nothing(f);
	f->forwarded = 9000;
	h = header(f, OP(CREDIT_UPDATE), 3, 30);
	h.type = htole16(SEQ);
	post(f, &h, NULL, 0);
	for (u32 n = 0; n < 9001;)
		n += told(f, OP(RW), 3, 30);
	assert_int_equal(le32toh(f->told.flags), VIRTIO_VSOCK_SEQ_EOM);
	assert_int_equal(told(f, OP(RW), 3, 30), 1);
	/* one that never fits */
	f->forwarded = 18002;
	h = header(f, OP(CREDIT_UPDATE), 3, 30);
	h.type = htole16(SEQ);
	post(f, &h, NULL, 0);
	assert_int_equal(send(fd, got, 10001, 0), 10001);
	told(f, OP(RST), 3, 30);
	close(fd);
	close(listener);
	/* a client's */
	f->forwarded = 0;
	fd = comes(f, SOCK_SEQPACKET);
	host_sends(fd, "CONNECT 8");
	told(f, OP(REQUEST), 8, 0);
	assert_int_equal(le16toh(f->told.type), SEQ);
	port = le32toh(f->told.src_port);
	h = header(f, OP(RESPONSE), 8, port);
	h.type = htole16(SEQ);
	post(f, &h, NULL, 0);
	host_gets(fd, "OK ");
	host_sends(fd, "message");
	gets(f, 8, port, "message");
	assert_int_equal(le32toh(f->told.flags), VIRTIO_VSOCK_SEQ_EOM);
	shutdown(fd, SHUT_WR);
	told(f, OP(SHUTDOWN), 8, port);
	close(fd);
}

/* ---- what a driver should not do ---- */

/* 5.10.6.4 and the rest: each wrong packet is answered with RST, and costs at most its connection.
 */
static void wrong_packets(void **state)
{
	struct fixture *f = vsock_up(state);
	struct virtio_vsock_hdr h;
	int safe, fd;
	u32 port, safe_port;

	begin(f, 0, 64);
	safe = calls(f, 1, &safe_port);
	for (u32 n = 0;; n++) {
		bool its = true; /* it is of the connection, which it ends */

		fd = calls(f, 2, &port);
		h = header(f, OP(RW), 2, port);
		h.len = htole32(4);
		switch (n) {
		case 0:
			h.src_cid = htole64(CID + 1);
			its = false;
			break;
		case 1:
			h.dst_cid = htole64(3);
			its = false;
			break;
		case 2:
			h.src_cid |= htole64(BIT64(32)); /* the upper half is zero */
			its = false;
			break;
		case 3:
			h.type = htole16(SEQ); /* not negotiated */
			its = false;
			break;
		case 4:
			h.type = 0;
			its = false;
			break;
		case 5:
			h.type = htole16(0xffff);
			its = false;
			break;
		case 6:
			h.op = 0;
			break;
		case 7:
			h.op = htole16(8);
			break;
		case 8:
			h.op = htole16(0xffff);
			break;
		case 9:
			h.len = htole32(5);
			break;
		case 10:
			h.len = htole32(UINT32_MAX);
			break;
		case 11:
			h.op = htole16(OP(REQUEST));
			break;
		case 12:
			h.op = htole16(OP(RESPONSE));
			break;
		case 13:
			h.src_port = htole32(77);
			its = false;
			break;
		case 14:
			h.dst_port = htole32(77);
			its = false;
			break;
		case 15:
			says(f, OP(SHUTDOWN), 2, port, SHUT(SEND));
			host_sees_end(fd);
			break;
		default:
			close(fd);
			close(safe);
			return;
		}
		post(f, &h, "abcd", 4);
		told(f, OP(RST), n == 13 ? 77 : 2, n == 14 ? 77 : port);
		if (n == 4 || n == 5)
			assert_int_equal(f->told.type, h.type);
		if (its) {
			host_sees_end(fd);
			says(f, OP(CREDIT_REQUEST), 2, port, 0);
			told(f, OP(RST), 2, port);
		} else {
			sends(f, 2, port, "lives", 5);
			host_gets(fd, "lives");
			says(f, OP(RST), 2, port, 0); /* never answered */
			host_sees_end(fd);
		}
		told_nothing(f);
		close(fd);
		sends(f, 1, safe_port, "safe", 4);
		host_gets(safe, "safe");
	}
}

/* Packets too short for a header, and one in the direction of nobody: back they come. */
static void wrong_buffers(void **state)
{
	struct fixture *f = vsock_up(state);
	const struct driver_part shorter = { TX_AT(0), HEADER - 1, false };
	const struct driver_part readable = { TX_AT(0), 64, true };
	u32 port;
	int fd;

	begin(f, 0, 0);
	assert_true(driver_add(&f->rings[TX], &shorter, 1) >= 0);
	driver_kick(&f->rings[TX]);
	driver_wait_used(&f->rings[TX], NULL, NULL);
	assert_true(driver_add(&f->rings[TX], &readable, 1) >= 0);
	driver_kick(&f->rings[TX]);
	driver_wait_used(&f->rings[TX], NULL, NULL);
	/* no room for a packet: the device asks for a reset, and works after it */
	assert_true(driver_add(&f->rings[RX], &(struct driver_part){ RX_AT(0), HEADER - 1, true },
			       1) >= 0);
	driver_kick(&f->rings[RX]);
	says(f, OP(REQUEST), 1, 2, 0);
	driver_wait(driver_status_now(f->device) & VIRTIO_CONFIG_S_NEEDS_RESET);
	driver_reset(f->device);
	begin(f, 0, 16);
	fd = calls(f, 1, &port);
	close(fd);
}

/* 5.10.6.1: replies that nobody takes are kept up to a number, then the driver's packets wait. */
static void storm(void **state)
{
	struct fixture *f = vsock_up(state);
	u32 n = 0, answered = 0, taken = 0;

	begin(f, 0, 0);
	for (; n < 2 * RING_SIZE; n++) {
		struct virtio_vsock_hdr h = header(f, OP(CREDIT_UPDATE), n, 1);
		const struct driver_part part = { TX_AT(n % RING_SIZE), HEADER, false };

		while (driver_used(&f->rings[TX], NULL, NULL))
			taken++;
		if (!driver_room(&f->rings[TX])) {
			usleep(200000);
			while (driver_used(&f->rings[TX], NULL, NULL))
				taken++;
			if (!driver_room(&f->rings[TX]))
				break;
		}
		memcpy(at(f, part.at, HEADER), &h, HEADER);
		assert_true(driver_add(&f->rings[TX], &part, 1) >= 0);
		driver_kick(&f->rings[TX]);
	}
	assert_int_equal(taken, 256);
	fill(f, 100);
	while (answered < n) {
		told(f, OP(RST), answered, 1);
		answered++;
	}
	told_nothing(f);
}

/* As many as there may be, both ways; what is too many is refused, and what ends makes room. */
static void thousand(void **state)
{
	static int fds[VSOCK_CONNECTIONS];
	struct fixture *f = vsock_up(state);
	int listener = listens(f, 5, SOCK_STREAM, VSOCK_CONNECTIONS), fd;
	u8 byte;

	begin(f, 0, 128);
	for (u32 i = 0; i < VSOCK_CONNECTIONS; i++)
		says(f, OP(REQUEST), i, 5, 0);
	for (u32 i = 0; i < VSOCK_CONNECTIONS; i++) { /* in the order of the host's */
		driver_wait(look(f));
		assert_int_equal(le16toh(f->told.op), OP(RESPONSE));
		fds[le32toh(f->told.dst_port)] = accepts(listener);
	}
	says(f, OP(REQUEST), VSOCK_CONNECTIONS, 5, 0);
	told(f, OP(RST), VSOCK_CONNECTIONS, 5);
	fd = comes(f, SOCK_STREAM); /* waits */
	host_sends(fd, "CONNECT 7\n");
	told_nothing(f);
	for (u32 i = 0; i < VSOCK_CONNECTIONS; i++)
		sends(f, i, 5, &(u8){ (u8)i }, 1);
	for (u32 i = 0; i < VSOCK_CONNECTIONS; i++) {
		assert_int_equal(host_takes(fds[i], &byte, 1), 1);
		assert_int_equal(byte, (u8)i);
		assert_int_equal(send(fds[i], &byte, 1, 0), 1);
	}
	for (u32 i = 0; i < VSOCK_CONNECTIONS; i++) {
		driver_wait(look(f));
		assert_int_equal(le16toh(f->told.op), OP(RW));
		assert_int_equal(f->data[0], (u8)le32toh(f->told.dst_port));
	}
	says(f, OP(RST), 500, 5, 0);
	host_sees_end(fds[500]);
	told(f, OP(REQUEST), 7, 0); /* the client's turn */
	says(f, OP(RST), 7, le32toh(f->told.src_port), 0);
	host_sees_end(fd);
	close(fd);
	driver_reset(f->device);
	for (u32 i = 0; i < VSOCK_CONNECTIONS; i++) {
		host_sees_end(fds[i]);
		close(fds[i]);
	}
	begin(f, 0, 16); /* and all are free again */
	fd = dials(f, 1, 5, listener);
	close(fd);
	close(listener);
}

/* A guest that never answers what is shut has all of its connections again. */
static void no_answers(void **state)
{
	struct fixture *f = vsock_up(state);
	int listener = listens(f, 5, SOCK_STREAM, 8), fd;
	u32 port;

	begin(f, 0, 64);
	for (u32 i = 0; i < VSOCK_CONNECTIONS + 100; i++) {
		fd = dials(f, i, 5, listener);
		close(fd);
		told(f, OP(SHUTDOWN), i, 5);
	}
	for (u32 i = 0; i < 100; i++) {
		fd = calls(f, 9, &port);
		close(fd);
		told(f, OP(SHUTDOWN), 9, port);
	}
	fd = dials(f, 1, 5, listener); /* the first port again */
	sends(f, 1, 5, "hello", 5);
	host_gets(fd, "hello");
	close(fd);
	close(listener);
}

/* In the middle of everything: all connections end, and the next driver knows of none. */
static void resets(void **state)
{
	static u8 bytes[KIB(64)];
	struct fixture *f = vsock_up(state);
	int listener = listens(f, 5, SOCK_STREAM, 64), other = listens(f, 6, SOCK_STREAM, 64);
	int a, b, c;
	u32 port;

	for (u32 n = 0; n < 20; n++) {
		f->forwarded = 0;
		begin(f, SEQPACKET | BIT64(VIRTIO_F_RING_RESET), 8);
		a = calls(f, 1, &port);
		b = dials(f, 2, 5, listener);
		fcntl(a, F_SETFL, O_NONBLOCK);
		assert_true(send(a, bytes, sizeof(bytes), 0) > 0); /* more than the buffers take */
		for (u32 i = 0; i < 8; i++)
			sends(f, 2, 5, bytes, KIB(8));
		c = comes(f, SOCK_STREAM);
		host_sends(c, "CONNECT 3\n");
		says(f, OP(REQUEST), 9, 6, 0); /* with the process when it happens, perhaps */
		if (n % 2) {
			driver_reset(f->device);
		} else {
			pthread_mutex_lock(&f->device->lock);
			virtio_queue_reset(&f->device->queues[n % 4 ? RX : TX]);
			virtio_reset_wait(f->device);
			pthread_mutex_unlock(&f->device->lock);
		}
		driver_wait(send(a, "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
		while (host_takes(b, bytes, sizeof(bytes)))
			;
		close(a);
		close(b);
		close(c);
		if (n % 2 == 0)
			driver_reset(f->device);
	}
	close(other);
	close(listener);
}

/* The process that connects goes: what the guest connects to is refused, the rest lives. */
static void caller_goes(void **state)
{
	struct fixture *f = vsock_up(state);
	int listener = listens(f, 5, SOCK_STREAM, 8), fd, other;
	u32 port;

	begin(f, 0, 16);
	fd = dials(f, 1, 5, listener);
	kill(f->host.process, SIGKILL);
	for (u32 n = 0; n < 3; n++) {
		says(f, OP(REQUEST), 2 + n, 5, 0);
		told(f, OP(RST), 2 + n, 5);
	}
	sends(f, 1, 5, "alive", 5);
	host_gets(fd, "alive");
	other = calls(f, 9, &port);
	close(other);
	close(fd);
	close(listener);
}

/* It is taken away from a machine that runs: nothing of it is left. */
static void goes(void **state)
{
	struct fixture *f = vsock_up(state);
	int listener = listens(f, 5, SOCK_STREAM, 8), a, b;
	u32 port;

	begin(f, 0, 16);
	a = calls(f, 1, &port);
	b = dials(f, 2, 5, listener);
	sends(f, 2, 5, "bye", 3);
	host_gets(b, "bye");
	virtio_device_power_on(f->device);
	virtio_device_detach(f->device);
	host_sees_end(a);
	host_sees_end(b);
	close(a);
	close(b);
	close(listener);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		vsock_test(offers),	     vsock_test(guest_connects),
		vsock_test(host_connects),   vsock_test(nobody_listens),
		vsock_test(half_closes),     vsock_test(closes_with_bytes_left),
		vsock_test(reader_goes),     vsock_test(keeps_to_the_guests_credit),
		vsock_test(stuck_reader),    vsock_test(bulk),
		vsock_test(writes_in_parts), vsock_test(messages),
		vsock_test(wrong_packets),   vsock_test(wrong_buffers),
		vsock_test(storm),	     vsock_test(thousand),
		vsock_test(no_answers),	     vsock_test(resets),
		vsock_test(caller_goes),     vsock_test(goes),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return driver_run_all(tests);
}
