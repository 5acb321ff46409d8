/* tsan: the 9P device between a driver and a server, either of which may be hostile: here the test
 * is both, on both engines. */
#include "tests/unit/driver.h"
#include <fcntl.h>
#include <linux/virtio_9p.h>
#include <sys/socket.h>
#include "virtio/9p.h"

#define RAM    MIB(8)
#define RINGS  0x10000ull
#define OUT(n) (MIB(1) + KIB(64) * (u64)(n))
#define IN(n)  (MIB(3) + KIB(64) * (u64)(n))
#define SIZE   64

struct fixture {
	struct driver_machine machine;
	struct share share;
	struct virtio_9p *p9;
	struct virtio_device *device;
	struct driver_ring ring;
	int interrupt, server, pipe_in, pipe_out; /* the server's ends */
	u32 count;				  /* of a read or write */
	u8 message[MIB(1)];			  /* as the server got it */
};

static void begin(struct fixture *f)
{
	assert_true(driver_negotiate(f->device, BIT64(VIRTIO_RING_F_INDIRECT_DESC)));
	driver_ring_init(&f->ring, &f->machine.memory, RINGS, SIZE, false);
	driver_queue(f->device, 0, &f->ring);
	driver_ok(f->device);
}

static int up(void **state, bool epoll)
{
	struct virtio_9p_options options = { .name = "share0", .tag = "src" };
	static struct fixture fixture;
	struct fixture *f = &fixture;
	int ends[2];

	memset(f, 0, sizeof(*f));
	driver_machine_up(&f->machine, RAM, 1, epoll);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	f->server = ends[1];
	f->share =
		(struct share){ .path = "/srv", .fd = ends[0], .dup = dup(ends[0]), .slots = 19 };
	assert_int_equal(pipe(ends), 0);
	f->pipe_in = ends[0];
	f->share.pipe_out = ends[1];
	assert_int_equal(pipe(ends), 0);
	f->share.pipe_in = ends[0];
	f->pipe_out = ends[1];
	fcntl(f->pipe_in, F_SETPIPE_SZ, KIB(128));
	fcntl(f->pipe_out, F_SETPIPE_SZ, KIB(128));
	assert_int_equal(write(f->server, "x", 1), 1); /* it is ready */
	assert_int_equal(share_register(&f->share, f->machine.reactors), 0);
	options.memory = &f->machine.memory;
	options.reactors = f->machine.reactors;
	options.share = &f->share;
	options.features = VIRTIO_OPTIONAL;
	assert_int_equal(virtio_9p_create(&f->p9, &options), 0);
	f->device = virtio_9p_device(f->p9);
	f->interrupt = driver_interrupt(&f->machine, &f->device->queues[0]);
	driver_machine_go(&f->machine);
	begin(f);
	*state = f;
	return 0;
}

static int up_uring(void **state)
{
	return up(state, false);
}

static int up_epoll(void **state)
{
	return up(state, true);
}

static int down(void **state)
{
	struct fixture *f = *state;

	close(f->server);
	close(f->pipe_in);
	close(f->pipe_out);
	virtio_device_power_on(f->device);
	driver_machine_stop(&f->machine);
	virtio_9p_destroy(f->p9);
	close(f->share.fd);
	close(f->share.dup);
	close(f->share.pipe_in);
	close(f->share.pipe_out);
	driver_machine_down(&f->machine);
	close(f->interrupt);
	return 0;
}

static u8 *at(struct fixture *f, u64 gpa)
{
	return memory_at(&f->machine.memory, gpa, KIB(64));
}

static void put_header(u8 *to, u32 size, u8 type, u16 tag)
{
	memcpy(to, &size, 4);
	to[4] = type;
	memcpy(to + 5, &tag, 2);
}

static u32 size_of(const u8 *message)
{
	u32 size;

	memcpy(&size, message, 4);
	return size;
}

static u16 tag_of(const u8 *message)
{
	u16 tag;

	memcpy(&tag, message + 5, 2);
	return tag;
}

/* Request n: a message of `size` bytes that says `claims`, in two parts, and room for an answer in
 * two. */
static int ask_as(struct fixture *f, u32 n, u8 type, u16 tag, u32 claims, u32 size, u32 room)
{
	u32 first = size < 5 ? size : 5, half = room / 2;
	const struct driver_part parts[] = {
		{ OUT(n), first, false },
		{ OUT(n) + first, size - first, false },
		{ IN(n), half, true },
		{ IN(n) + half, room - half, true },
	};
	int head;

	for (u32 i = 0; i < size; i++)
		at(f, OUT(n))[i] = (u8)(i + n);
	put_header(at(f, OUT(n)), claims, type, tag);
	if (size >= SHARE_IO_HEADER && type >= SHARE_TREAD && type <= SHARE_TWRITE + 1)
		memcpy(at(f, OUT(n)) + SHARE_IO_HEADER - 4, &f->count, 4);
	memset(at(f, IN(n)), 0xee, room);
	head = size > first ? driver_add(&f->ring, parts, 4)
			    : driver_add(&f->ring,
					 (struct driver_part[]){ parts[0], parts[2], parts[3] }, 3);
	assert_true(head >= 0);
	driver_kick(&f->ring);
	return head;
}

static int ask(struct fixture *f, u32 n, u16 tag, u32 size, u32 room)
{
	return ask_as(f, n, 100, tag, size, size, room);
}

static void take(struct fixture *f)
{
	u32 got = 0, want = 7;

	while (got < want) {
		ssize_t n = read(f->server, f->message + got, want - got);

		assert_true(n > 0);
		got += (u32)n;
		if (got == 7)
			want = size_of(f->message);
	}
}

static void answer(struct fixture *f, u16 tag, u32 size, u8 fill)
{
	static u8 bytes[MIB(1)];

	memset(bytes, fill, size);
	put_header(bytes, size, 101, tag);
	assert_int_equal(write(f->server, bytes, size), size);
}

static u32 ended(struct fixture *f, u32 *written)
{
	u32 head;

	driver_wait_used(&f->ring, &head, written);
	return head;
}

/* The answer n is an error of the device's own. */
static void failed_with(struct fixture *f, u32 n, u16 tag, u32 written, u32 error)
{
	const u8 *in = at(f, IN(n));

	assert_int_equal(written, 11);
	assert_int_equal(size_of(in), 11);
	assert_int_equal(in[4], 7);
	assert_int_equal(tag_of(in), tag);
	assert_int_equal(size_of(in + 7), error);
}

static void tells_its_tag(void **state)
{
	struct fixture *f = *state;

	assert_true(f->device->features & BIT64(VIRTIO_9P_MOUNT_TAG) ||
		    f->device->offered & BIT64(VIRTIO_9P_MOUNT_TAG));
	assert_int_equal(f->device->config_size, 5);
	assert_memory_equal(f->device->config, "\3\0src", 5);
}

/* There with a tag of ours, back with the driver's, nothing else changed. */
static void carries_messages(void **state)
{
	struct fixture *f = *state;
	u32 written;

	for (u32 round = 0; round < 200; round++) {
		u32 size = 7 + round * 11, reply = 7 + round * 53;
		int head = ask(f, 0, (u16)(0x1234 + round), size, 20000);

		take(f);
		assert_int_equal(size_of(f->message), size);
		assert_int_equal(f->message[4], 100);
		for (u32 i = 7; i < size; i++)
			assert_int_equal(f->message[i], (u8)i);
		answer(f, tag_of(f->message), reply, 0x5a);
		assert_int_equal(ended(f, &written), head);
		assert_int_equal(written, reply);
		assert_int_equal(size_of(at(f, IN(0))), reply);
		assert_int_equal(tag_of(at(f, IN(0))), 0x1234 + round);
		for (u32 i = 7; i < reply; i++)
			assert_int_equal(at(f, IN(0))[i], 0x5a);
		assert_int_equal(at(f, IN(0))[reply], 0xee);
	}
}

/* In any order, in any pieces, while the driver uses one tag for all. */
static void answers_in_any_order(void **state)
{
	struct fixture *f = *state;
	static u8 bytes[16 * KIB(40)];
	u16 places[12];
	u32 length = 0, written, sum = 0;
	int heads[12];

	for (u32 n = 0; n < 12; n++)
		heads[n] = ask(f, n, 77, 8 + n, KIB(60));
	for (u32 n = 0; n < 12; n++) {
		take(f);
		places[size_of(f->message) - 8] = tag_of(f->message);
	}
	for (u32 i = 12; i-- > 0;) {
		u32 size = 7 + i * 3001;

		memset(bytes + length, (int)i, size);
		put_header(bytes + length, size, 101, places[i]);
		length += size;
	}
	for (u32 sent = 0, n; sent < length; sent += n) {
		n = 1 + sent * 7 % 9973;
		n = n < length - sent ? n : length - sent;
		assert_int_equal(write(f->server, bytes + sent, n), n);
	}
	for (u32 k = 12; k-- > 0;) {
		u32 i = f->ring.in_order ? 11 - k : k;

		assert_int_equal(ended(f, &written), heads[i]);
		assert_int_equal(written, 7 + i * 3001);
		for (u32 b = 7; b < written; b++)
			assert_int_equal(at(f, IN(i))[b], i);
		sum += written;
	}
	assert_int_equal(sum, length);
}

/* A server that does not read: what is more than the socket holds waits, then goes on. */
static void waits_for_a_slow_server(void **state)
{
	struct fixture *f = *state;
	u16 places[14];
	u32 written;

	for (u32 n = 0; n < 14; n++)
		ask(f, n, (u16)n, 60000, 64);
	usleep(20000);
	for (u32 n = 0; n < 14; n++) {
		take(f);
		assert_int_equal(size_of(f->message), 60000);
		assert_int_equal(f->message[59999], (u8)(59999 + n));
		places[n] = tag_of(f->message);
	}
	for (u32 n = 0; n < 14; n++)
		answer(f, places[n], 7, 0);
	for (u32 n = 0; n < 14; n++)
		ended(f, &written);
}

/* A read or write of `count` bytes: in this many bytes, with this much room. How it came to the
 * server: its type there. */
static u8 io(struct fixture *f, u32 n, u8 type, u32 count, u32 size, u32 room)
{
	f->count = count;
	ask_as(f, n, type, (u16)(30 + n), size, size, room);
	take(f);
	assert_int_equal(size_of(f->message), f->message[4] & 1 ? SHARE_IO_HEADER : size);
	if (type != 100)
		assert_int_equal(size_of(f->message + SHARE_IO_HEADER - 4), count);
	return f->message[4];
}

static void answer_read(struct fixture *f, u16 tag, u32 count, u32 there)
{
	static u8 bytes[KIB(64)];
	u8 message[SHARE_RREAD];

	memset(bytes, 0x77, there);
	assert_int_equal(write(f->pipe_out, bytes, there), there);
	put_header(message, SHARE_RREAD, SHARE_TREAD, tag);
	memcpy(message + 7, &count, 4);
	/* in two pieces, as a stream may be */
	assert_int_equal(write(f->server, message, 9), 9);
	usleep(1000);
	assert_int_equal(write(f->server, message + 9, 2), 2);
}

static void moves_much_by_pipes(void **state)
{
	static const struct {
		u8 type;
		u32 count, size, room;
	} plain[] = {
		{ SHARE_TREAD, 16383, 23, 40011 },  { SHARE_TREAD, 40000, 23, 40010 },
		{ SHARE_TREAD, 40000, 24, 40011 },  { SHARE_TREAD, ~0u, 23, 40011 },
		{ SHARE_TWRITE, 40001, 40023, 64 }, { SHARE_TWRITE, 30000, 40023, 64 },
	};
	static u8 bytes[KIB(64)];
	struct fixture *f = *state;
	u32 written;
	u16 tag;

	for (u32 round = 0; round < 20; round++) {
		assert_int_equal(io(f, 0, SHARE_TWRITE, 40000, 40023, 64), SHARE_TWRITE + 1);
		assert_int_equal(read(f->pipe_in, bytes, sizeof(bytes)), 40000);
		for (u32 i = 0; i < 40000; i++)
			assert_int_equal(bytes[i], (u8)(i + 23));
		answer(f, tag_of(f->message), 11, 0);
		ended(f, &written);
		assert_int_equal(written, 11);

		assert_int_equal(io(f, 0, SHARE_TREAD, 40000, 23, 40011), SHARE_TREAD + 1);
		answer_read(f, tag_of(f->message), 40000 - round, 40000 - round);
		ended(f, &written);
		assert_int_equal(written, 40011 - round);
		assert_int_equal(size_of(at(f, IN(0))), written);
		assert_int_equal(at(f, IN(0))[4], SHARE_TREAD + 1);
		assert_int_equal(tag_of(at(f, IN(0))), 30);
		assert_int_equal(size_of(at(f, IN(0)) + 7), 40000 - round);
		for (u32 i = 11; i < written; i++)
			assert_int_equal(at(f, IN(0))[i], 0x77);
	}
	/* the server may answer as ever */
	assert_int_equal(io(f, 0, SHARE_TREAD, 40000, 23, 40011), SHARE_TREAD + 1);
	answer(f, tag_of(f->message), 30011, 5);
	ended(f, &written);
	assert_int_equal(written, 30011);
	/* what is small, has no room, or is something else than it says, goes as it is */
	for (u32 i = 0; i < ARRAY_SIZE(plain); i++) {
		assert_int_equal(
			io(f, 0, plain[i].type, plain[i].count, plain[i].size, plain[i].room),
			plain[i].type);
		answer(f, tag_of(f->message), 11, 0);
		ended(f, &written);
	}
	/* and so does what a pipe has no room for: of 19 pages each of these takes 10 */
	assert_int_equal(io(f, 6, SHARE_TWRITE, 40000, 40023, 64), SHARE_TWRITE + 1);
	tag = tag_of(f->message);
	assert_int_equal(io(f, 7, SHARE_TWRITE, 40000, 40023, 64), SHARE_TWRITE);
	assert_int_equal(read(f->pipe_in, bytes, sizeof(bytes)), 40000);
	answer(f, tag, 11, 0);
	ended(f, &written);
	assert_int_equal(io(f, 8, SHARE_TWRITE, 40000, 40023, 64), SHARE_TWRITE + 1);
}

/* The types that we use between us and the server are not the driver's. */
static void takes_no_answers_for_requests(void **state)
{
	struct fixture *f = *state;
	u32 written;

	f->count = 40000;
	for (u8 type = SHARE_TREAD + 1; type <= SHARE_TWRITE + 1; type += 2) {
		ask_as(f, 0, type, 30, 23, 23, 40011);
		ended(f, &written);
		failed_with(f, 0, 30, written, EINVAL);
	}
}

/* What a flush is about is known to the server by the place. */
static void translates_flushes(void **state)
{
	struct fixture *f = *state;
	u8 oldtag[2];
	u16 place;

	if (f->ring.in_order) /* the flush's answer would wait for what it flushes */
		return;
	ask(f, 0, 500, 20, 64);
	take(f);
	place = tag_of(f->message);
	for (u32 i = 0; i < 2; i++) {
		u16 tag = i ? 501 : 500;
		const struct driver_part parts[] = { { OUT(1), 9, false }, { IN(1), 64, true } };

		put_header(at(f, OUT(1)), 9, 108, 600);
		memcpy(at(f, OUT(1)) + 7, &tag, 2);
		assert_true(driver_add(&f->ring, parts, 2) >= 0);
		driver_kick(&f->ring);
		take(f);
		memcpy(oldtag, f->message + 7, 2);
		assert_int_equal(oldtag[0] | oldtag[1] << 8, i ? 0xffff : place);
		answer(f, tag_of(f->message), 7, 0);
		ended(f, NULL);
	}
	answer(f, place, 7, 0);
	ended(f, NULL);
}

static void refuses_messages_that_are_none(void **state)
{
	static const struct {
		u32 claims, size;
	} bad[] = { { 6, 20 },	 { 0, 20 }, { 21, 20 },
		    { ~0u, 20 }, { 3, 3 },  { SHARE_MSIZE + 1, 60000 } };
	struct fixture *f = *state;
	u32 written;

	for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
		int head = ask_as(f, 0, 100, 9, bad[i].claims, bad[i].size, 64);

		assert_int_equal(ended(f, &written), head);
		failed_with(f, 0, bad[i].size < 7 ? 0xffff : 9, written, EINVAL);
	}
	/* what is behind a message is not sent */
	ask_as(f, 0, 100, 9, 8, 60, 64);
	take(f);
	answer(f, tag_of(f->message), 7, 0);
	ended(f, NULL);
	ask(f, 0, 10, 9, 64);
	take(f);
	assert_int_equal(size_of(f->message), 9);
	answer(f, tag_of(f->message), 7, 0);
	ended(f, NULL);
}

/* Nothing can be said to such a driver but that. */
static void needs_room_for_an_answer(void **state)
{
	struct fixture *f = *state;

	ask(f, 0, 1, 20, 10);
	driver_wait(driver_status_now(f->device) & VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_false(driver_used(&f->ring, NULL, NULL));
}

/* An answer that is larger than the driver's room is dropped, and the next is not harmed. */
static void drops_what_has_no_room(void **state)
{
	struct fixture *f = *state;
	u32 written;
	u16 place;

	ask(f, 0, 21, 20, 64);
	take(f);
	place = tag_of(f->message);
	ask(f, 1, 22, 20, 64);
	take(f);
	answer(f, place, 30000, 1);
	ended(f, &written);
	failed_with(f, 0, 21, written, EMSGSIZE);
	answer(f, tag_of(f->message), 20, 2);
	ended(f, &written);
	assert_int_equal(written, 20);
	assert_int_equal(tag_of(at(f, IN(1))), 22);
}

/* ---- a server that is out of its mind, or gone ---- */

static void fails_all(struct fixture *f, u32 count)
{
	u32 written;

	for (u32 n = 0; n < count; n++)
		ended(f, &written);
	for (u32 n = 0; n < count; n++)
		failed_with(f, n, (u16)(30 + n), 11, EIO);
	/* and what comes later */
	ask(f, 0, 40, 20, 64);
	ended(f, &written);
	failed_with(f, 0, 40, written, EIO);
	assert_false(driver_status_now(f->device) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

static void survives_answer(struct fixture *f, u32 size, u32 place)
{
	u8 bytes[7];

	for (u32 n = 0; n < 3; n++) {
		ask(f, n, (u16)(30 + n), 20, 64);
		take(f);
	}
	put_header(bytes, size, 101, place == ~0u ? tag_of(f->message) : (u16)place);
	assert_int_equal(write(f->server, bytes, 7), 7);
	fails_all(f, 3);
}

static void survives_unknown_tags(void **state)
{
	survives_answer(*state, 7, 100);
}

static void survives_wild_tags(void **state)
{
	survives_answer(*state, 7, 0xffff);
}

static void survives_tiny_sizes(void **state)
{
	survives_answer(*state, 3, ~0u);
}

static void survives_huge_sizes(void **state)
{
	survives_answer(*state, SHARE_MSIZE + 1, ~0u);
}

static void survives_piped_answers(struct fixture *f, u8 type, u32 count, u32 there)
{
	io(f, 0, type, 40000, 23, 40011);
	answer_read(f, tag_of(f->message), count, there);
	fails_all(f, 1);
}

static void survives_more_than_was_asked_for(void **state)
{
	survives_piped_answers(*state, SHARE_TREAD, 40001, 40001);
}

static void survives_less_than_was_said(void **state)
{
	survives_piped_answers(*state, SHARE_TREAD, 40000, 39999);
}

static void survives_a_read_that_was_none(void **state)
{
	survives_piped_answers(*state, 100, 11, 11);
}

static void survives_its_death(void **state)
{
	struct fixture *f = *state;

	for (u32 n = 0; n < 3; n++)
		ask(f, n, (u16)(30 + n), 20, 64);
	take(f);
	shutdown(f->server, SHUT_RDWR);
	fails_all(f, 3);
}

/* In the middle of an answer, and of a message. */
static void survives_its_death_halfway(void **state)
{
	struct fixture *f = *state;
	u8 bytes[100] = { 0 };

	ask(f, 0, 30, 20, 30000);
	take(f);
	put_header(bytes, 29000, 101, tag_of(f->message));
	assert_int_equal(write(f->server, bytes, 100), 100);
	for (u32 n = 1; n < 14; n++)
		ask(f, n, (u16)(30 + n), 60000, 64);
	usleep(10000);
	shutdown(f->server, SHUT_RDWR);
	fails_all(f, 14);
}

/* ---- resets ---- */

static void finishes_before_a_reset(void **state)
{
	struct fixture *f = *state;
	u16 places[3];
	u32 written;

	for (u32 round = 0; round < 5; round++) {
		for (u32 n = 0; n < 3; n++) {
			ask(f, n, (u16)(30 + n), 20, KIB(50));
			take(f);
			places[n] = tag_of(f->message);
		}
		pthread_mutex_lock(&f->device->lock);
		virtio_status_write(f->device, 0, false);
		pthread_mutex_unlock(&f->device->lock);
		answer(f, places[0], 7, 0);
		answer(f, places[2], KIB(40), 3);
		usleep(5000);
		assert_int_not_equal(driver_status_now(f->device), 0);
		answer(f, places[1], 7, 0);
		driver_wait(driver_status_now(f->device) == 0);
		begin(f);
		ask(f, 0, 50, 20, 64);
		take(f);
		answer(f, tag_of(f->message), 7, 0);
		ended(f, &written);
		assert_int_equal(written, 7);
	}
}

#define both(name)                                             \
	cmocka_unit_test_setup_teardown(name, up_uring, down), \
		cmocka_unit_test_setup_teardown(name, up_epoll, down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		both(tells_its_tag),
		both(carries_messages),
		both(answers_in_any_order),
		both(waits_for_a_slow_server),
		both(moves_much_by_pipes),
		both(takes_no_answers_for_requests),
		both(translates_flushes),
		both(refuses_messages_that_are_none),
		both(needs_room_for_an_answer),
		both(drops_what_has_no_room),
		both(survives_unknown_tags),
		both(survives_wild_tags),
		both(survives_tiny_sizes),
		both(survives_huge_sizes),
		both(survives_more_than_was_asked_for),
		both(survives_less_than_was_said),
		both(survives_a_read_that_was_none),
		both(survives_its_death),
		both(survives_its_death_halfway),
		both(finishes_before_a_reset),
	};

	return driver_run_two(tests);
}
