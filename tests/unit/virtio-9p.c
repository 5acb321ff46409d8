/* tsan: the 9P device between a driver and a server, either of which may be hostile: here the test
 * is both, on both engines. */
#include "tests/unit/driver.h"
#include <dirent.h>
#include <fcntl.h>
#include <linux/virtio_9p.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include "backends/descriptor.h"
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
	int interrupt, server, files; /* the server's ends */
	u32 fid, count;		      /* of a read or write */
	u64 offset;
	u8 message[MIB(1)]; /* as the server got it */
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
	setsockopt(f->server, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ .tv_sec = 20 },
		   sizeof(struct timeval));
	f->share = (struct share){ .path = "/srv", .fd = ends[0], .dup = dup(ends[0]) };
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
	f->files = ends[1];
	f->share.files = ends[0];
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
	close(f->files);
	virtio_device_power_on(f->device);
	driver_machine_stop(&f->machine);
	virtio_9p_destroy(f->p9);
	close(f->share.fd);
	close(f->share.dup);
	close(f->share.files);
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
	if (size >= SHARE_LEND_SIZE && type >= SHARE_TREAD)
		memcpy(at(f, OUT(n)) + 7, &f->fid, 4);
	if (size >= SHARE_IO_HEADER && (type == SHARE_TREAD || type == SHARE_TWRITE)) {
		memcpy(at(f, OUT(n)) + 11, &f->offset, 8);
		memcpy(at(f, OUT(n)) + 19, &f->count, 4);
	}
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

		if (n < 0 && errno == EINTR) /* as io_uring's work does to a wait with a limit */
			continue;
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

/* ---- files that the server lends ---- */

/* A file of 64 KiB, whose bytes are known, without a name. */
static int make_file(int flags)
{
	static u8 bytes[KIB(64)];
	char path[] = "/tmp/vmm-9p-XXXXXX";
	int fd = mkstemp(path), reopened;

	for (u32 i = 0; i < sizeof(bytes); i++)
		bytes[i] = (u8)(i * 7 + i / 256);
	assert_int_equal(write(fd, bytes, sizeof(bytes)), sizeof(bytes));
	reopened = open(path, flags);
	assert_true(reopened >= 0);
	unlink(path);
	close(fd);
	return reopened;
}

/* A read or write of `count` bytes of fid: in this many bytes, with this much room. */
static int io(struct fixture *f, u32 n, u8 type, u32 fid, u32 count, u32 size, u32 room)
{
	f->fid = fid;
	f->count = count;
	return ask_as(f, n, type, (u16)(30 + n), size, size, room);
}

static int read_much(struct fixture *f, u32 n, u32 fid)
{
	return io(f, n, SHARE_TREAD, fid, 40000, 23, 40011);
}

/* How it comes to the server, which has nothing else to take. */
static u8 comes(struct fixture *f)
{
	take(f);
	return f->message[4];
}

static void answer_as(struct fixture *f, u8 type, u16 tag)
{
	u8 bytes[7];

	put_header(bytes, sizeof(bytes), type, tag);
	assert_int_equal(write(f->server, bytes, sizeof(bytes)), sizeof(bytes));
}

/* The file's descriptor is asked for, and given. */
static void lend(struct fixture *f, u32 fid, int fd)
{
	assert_int_equal(comes(f), SHARE_TLEND);
	assert_int_equal(size_of(f->message), SHARE_LEND_SIZE);
	assert_int_equal(size_of(f->message + 7), fid);
	assert_int_equal(descriptor_send(f->files, "", 1, fd, 0), 0);
	answer_as(f, SHARE_TLEND + 1, tag_of(f->message));
}

static void error(struct fixture *f, u32 number)
{
	u8 bytes[11];

	put_header(bytes, sizeof(bytes), 7, tag_of(f->message));
	memcpy(bytes + 7, &number, 4);
	assert_int_equal(write(f->server, bytes, sizeof(bytes)), sizeof(bytes));
}

/* The answer n, to a read of so much. */
static void was_read(struct fixture *f, u32 n, u32 count)
{
	const u8 *in = at(f, IN(n));

	assert_int_equal(size_of(in), count + 11);
	assert_int_equal(in[4], SHARE_TREAD + 1);
	assert_int_equal(tag_of(in), 30 + n);
	assert_int_equal(size_of(in + 7), count);
	for (u32 i = 0; i < count; i++) {
		u64 at = f->offset + i;

		assert_int_equal(in[11 + i], (u8)(at * 7 + at / 256));
	}
}

static void reads_what_was_lent(struct fixture *f, u32 n, u32 count)
{
	u32 written;

	ended(f, &written);
	assert_int_equal(written, count + 11);
	was_read(f, n, count);
}

/* Nothing more has come to the server. */
static void is_quiet(struct fixture *f)
{
	assert_int_equal(recv(f->server, f->message, 1, MSG_DONTWAIT), -1);
	assert_int_equal(errno, EAGAIN);
}

static void lends_and_uses(void **state)
{
	struct fixture *f = *state;
	int fd = make_file(O_RDWR);
	u32 written;
	u8 byte;

	read_much(f, 0, 9);
	assert_int_equal(comes(f), SHARE_TREAD); /* it may be all that is read of it */
	answer(f, tag_of(f->message), 7, 0);
	ended(f, &written);
	read_much(f, 0, 9);
	lend(f, 9, fd);
	reads_what_was_lent(f, 0, 40000);
	for (u32 round = 0; round < 20; round++) {
		f->offset = round * 1000;
		read_much(f, 0, 9);
		reads_what_was_lent(f, 0, round * 1000 + 40000 <= KIB(64) ? 40000 : 45536);
	}
	/* up to its end, and behind that */
	f->offset = 30000;
	read_much(f, 1, 9);
	reads_what_was_lent(f, 1, KIB(64) - 30000);
	f->offset = MIB(1);
	read_much(f, 1, 9);
	reads_what_was_lent(f, 1, 0);
	/* what is written is asked by its sum, too */
	f->offset = 5000;
	io(f, 2, SHARE_TWRITE, 9, 50000, 50023, 64);
	ended(f, &written);
	assert_int_equal(written, 11);
	assert_int_equal(size_of(at(f, IN(2))), 11);
	assert_int_equal(at(f, IN(2))[4], SHARE_TWRITE + 1);
	assert_int_equal(tag_of(at(f, IN(2))), 32);
	assert_int_equal(size_of(at(f, IN(2)) + 7), 50000);
	for (u32 i = 0; i < 50000; i++) {
		assert_int_equal(pread(fd, &byte, 1, 5000 + i), 1);
		assert_int_equal(byte, (u8)(i + 23 + 2));
	}
	is_quiet(f);
	close(fd);
}

/* What is little, or has no room, or is something else than it says, is the server's. */
static void leaves_the_rest_to_the_server(void **state)
{
	static const struct {
		u8 type;
		u32 count, size, room;
		u64 offset;
	} plain[] = {
		{ SHARE_TREAD, 16383, 23, 40011, 0 },
		{ SHARE_TREAD, 40000, 23, 40010, 0 },
		{ SHARE_TREAD, 40000, 24, 40011, 0 },
		{ SHARE_TREAD, ~0u, 23, 40011, 0 },
		{ SHARE_TREAD, 40000, 23, 40011, ~0ull },
		{ SHARE_TREAD, 40000, 22, 40011, 0 },
		{ SHARE_TWRITE, 40001, 40023, 64, 0 },
		{ SHARE_TWRITE, 30000, 40023, 64, 0 },
		{ SHARE_TWRITE, 40000, 40023, 64, BIT64(63) },
	};
	struct fixture *f = *state;
	int fd = make_file(O_RDONLY);
	u32 written;

	io(f, 0, SHARE_TREAD, 9, KIB(62), 23, KIB(63));
	answer(f, (comes(f), tag_of(f->message)), 7, 0);
	ended(f, &written);
	read_much(f, 0, 9);
	lend(f, 9, fd);
	reads_what_was_lent(f, 0, 40000);
	for (u32 i = 0; i < ARRAY_SIZE(plain); i++) {
		f->offset = plain[i].offset;
		io(f, 0, plain[i].type, 9, plain[i].count, plain[i].size, plain[i].room);
		assert_int_equal(comes(f), plain[i].type);
		assert_int_equal(size_of(f->message), plain[i].size);
		answer(f, tag_of(f->message), 11, 0);
		ended(f, &written);
		assert_int_equal(written, 11);
	}
	/* and so is what fails: it knows why */
	f->offset = 0;
	io(f, 3, SHARE_TWRITE, 9, 40000, 40023, 64);
	assert_int_equal(comes(f), SHARE_TWRITE);
	assert_int_equal(size_of(f->message), 40023);
	assert_int_equal(f->message[40022], (u8)(40022 + 3));
	error(f, EROFS);
	ended(f, &written);
	failed_with(f, 3, 33, written, EROFS);
	/* what the server does not lend */
	io(f, 1, SHARE_TREAD, 5, KIB(62), 23, KIB(63));
	answer(f, (comes(f), tag_of(f->message)), 7, 0);
	ended(f, &written);
	read_much(f, 1, 5);
	assert_int_equal(comes(f), SHARE_TLEND);
	error(f, EBADF);
	assert_int_equal(comes(f), SHARE_TREAD);
	assert_int_equal(size_of(f->message), 23);
	answer(f, tag_of(f->message), 20011, 4);
	ended(f, &written);
	assert_int_equal(written, 20011);
	close(fd);
}

/* Lends fid's file, after that was read once before. */
static void borrow(struct fixture *f, u32 n, u32 fid, int fd)
{
	u32 written;

	io(f, n, SHARE_TREAD, fid, KIB(62), 23, KIB(63));
	answer(f, (comes(f), tag_of(f->message)), 7, 0);
	ended(f, &written);
	read_much(f, n, fid);
	lend(f, fid, fd);
	reads_what_was_lent(f, n, 40000);
}

static u32 open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	u32 count = 0;

	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

static void finish_one(struct fixture *f, u32 n, u8 type, u32 size)
{
	u32 written;

	ask_as(f, n, type, 30, size, size, 64);
	assert_int_equal(comes(f), type);
	answer_as(f, type + 1, tag_of(f->message));
	ended(f, &written);
}

/* A fid means another file once it was clunked, all of them after a new version or a reset. */
static void gives_back(void **state)
{
	struct fixture *f = *state;
	int fd = make_file(O_RDWR);
	u32 before = open_files();

	for (u32 way = 0; way < 3; way++) {
		borrow(f, 0, 9, fd);
		borrow(f, 1, 10, fd);
		assert_int_equal(open_files(), before + 2);
		f->fid = 9;
		if (way == 0) {
			finish_one(f, 2, SHARE_TCLUNK, 11);
			assert_int_equal(open_files(), before + 1);
			read_much(f, 0, 10);
			reads_what_was_lent(f, 0, 40000);
			f->fid = 10;
			finish_one(f, 2, SHARE_TCLUNK, 11);
		} else if (way == 1) {
			finish_one(f, 2, SHARE_TVERSION, 20);
		} else {
			pthread_mutex_lock(&f->device->lock);
			virtio_status_write(f->device, 0, false);
			pthread_mutex_unlock(&f->device->lock);
			driver_wait(driver_status_now(f->device) == 0);
			begin(f);
		}
		assert_int_equal(open_files(), before);
	}
	/* one that came too late, for a clunk that was on its way */
	io(f, 0, SHARE_TREAD, 9, KIB(62), 23, KIB(63));
	answer(f, (comes(f), tag_of(f->message)), 7, 0);
	ended(f, NULL);
	read_much(f, 0, 9);
	assert_int_equal(comes(f), SHARE_TLEND);
	{
		u16 asked = tag_of(f->message);

		ask_as(f, 1, SHARE_TCLUNK, 31, 11, 11, 64);
		assert_int_equal(comes(f), SHARE_TCLUNK);
		assert_int_equal(descriptor_send(f->files, "", 1, fd, 0), 0);
		answer_as(f, SHARE_TLEND + 1, asked);
		reads_what_was_lent(f, 0, 40000);
		assert_int_equal(open_files(), before + 1);
		answer_as(f, SHARE_TCLUNK + 1, tag_of(f->message));
		ended(f, NULL);
		assert_int_equal(open_files(), before);
	}
	close(fd);
}

/* One is taken, however many come. */
static void takes_one_descriptor(void **state)
{
	struct fixture *f = *state;
	int fd = make_file(O_RDONLY), two[] = { fd, fd };
	char control[CMSG_SPACE(sizeof(two))] __attribute__((aligned(8))) = { 0 };
	struct iovec iov = { "", 1 };
	struct msghdr message = { .msg_iov = &iov,
				  .msg_iovlen = 1,
				  .msg_control = control,
				  .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&message);
	u32 before = open_files();

	*c = (struct cmsghdr){ CMSG_LEN(sizeof(two)), SOL_SOCKET, SCM_RIGHTS };
	memcpy(CMSG_DATA(c), two, sizeof(two));
	io(f, 0, SHARE_TREAD, 9, KIB(62), 23, KIB(63));
	answer(f, (comes(f), tag_of(f->message)), 7, 0);
	ended(f, NULL);
	read_much(f, 0, 9);
	assert_int_equal(comes(f), SHARE_TLEND);
	assert_int_equal(sendmsg(f->files, &message, 0), 1);
	answer_as(f, SHARE_TLEND + 1, tag_of(f->message));
	reads_what_was_lent(f, 0, 40000);
	assert_int_equal(open_files(), before + 1);
	close(fd);
}

/* No more than there is room for: those that were used last. */
static void borrows_no_more_than_it_has_room_for(void **state)
{
	struct fixture *f = *state;
	int fd = make_file(O_RDWR);
	u32 before = open_files();

	for (u32 fid = 100; fid < 100 + 2 * SHARE_LENT; fid++)
		borrow(f, fid % 4, fid, fd);
	assert_int_equal(open_files(), before + SHARE_LENT);
	for (u32 fid = 100 + SHARE_LENT; fid < 100 + 2 * SHARE_LENT; fid++) {
		read_much(f, 0, fid);
		reads_what_was_lent(f, 0, 40000);
	}
	is_quiet(f);
	borrow(f, 0, 100, fd);
	close(fd);
}

/* Who flushes a request may use its buffers again: the server does not know that it goes on here.
 */
static void ends_before_its_flush_does(void **state)
{
	const struct driver_part parts[] = { { OUT(1), 9, false }, { IN(1), 64, true } };
	struct fixture *f = *state;
	int fd = make_file(O_RDONLY), head;
	u16 asked, flush, tag = 30;
	u32 written;

	if (f->ring.in_order) /* which says so already */
		return;
	for (u32 round = 0; round < 2; round++) {
		io(f, 2, SHARE_TREAD, 9 + round, KIB(62), 23, KIB(63));
		answer(f, (comes(f), tag_of(f->message)), 7, 0);
		ended(f, &written);
		head = read_much(f, 0, 9 + round);
		assert_int_equal(comes(f), SHARE_TLEND);
		asked = tag_of(f->message);
		put_header(at(f, OUT(1)), 9, 108, 600);
		memcpy(at(f, OUT(1)) + 7, &tag, 2);
		assert_true(driver_add(&f->ring, parts, 2) >= 0);
		driver_kick(&f->ring);
		assert_int_equal(comes(f), 108);
		flush = tag_of(f->message);
		answer_as(f, 109, flush);
		usleep(20000);
		assert_false(driver_used(&f->ring, NULL, NULL));
		if (round == 0) {
			assert_int_equal(descriptor_send(f->files, "", 1, fd, 0), 0);
			answer_as(f, SHARE_TLEND + 1, asked);
			assert_int_equal(ended(f, &written), head);
			was_read(f, 0, 40000);
		} else { /* not lent: it goes to the server again, and is flushed then */
			put_header(f->message, 7, 7, asked);
			error(f, EBADF);
			assert_int_equal(comes(f), SHARE_TREAD);
			answer(f, tag_of(f->message), 7, 0);
			assert_int_equal(ended(f, &written), head);
		}
		ended(f, &written);
		assert_int_equal(written, 7);
		assert_int_equal(at(f, IN(1))[4], 109);
	}
	close(fd);
}

/* That one is between us and the server. */
static void takes_no_borrowing_from_the_driver(void **state)
{
	struct fixture *f = *state;
	u32 written;

	ask_as(f, 0, SHARE_TLEND, 30, 11, 11, 64);
	ended(f, &written);
	failed_with(f, 0, 30, written, EINVAL);
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

/* ... and sends what is none. */
static void survives_lending(struct fixture *f, int fd, u8 type, u32 size)
{
	u8 bytes[64];

	io(f, 1, SHARE_TREAD, 9, KIB(62), 23, KIB(63));
	answer(f, (comes(f), tag_of(f->message)), 7, 0);
	ended(f, NULL);
	read_much(f, 0, 9);
	assert_int_equal(comes(f), SHARE_TLEND);
	if (fd >= 0)
		assert_int_equal(descriptor_send(f->files, "", 1, fd, 0), 0);
	put_header(bytes, size, type, tag_of(f->message));
	assert_int_equal(write(f->server, bytes, size), size);
	fails_all(f, 1);
}

static void survives_a_pipe_for_a_file(void **state)
{
	struct fixture *f = *state;

	survives_lending(f, f->interrupt, SHARE_TLEND + 1, 7);
}

static void survives_nothing_for_a_file(void **state)
{
	survives_lending(*state, -1, SHARE_TLEND + 1, 7);
}

static void survives_another_answer_than_a_file(void **state)
{
	survives_lending(*state, -1, SHARE_TREAD + 1, 40);
}

static void survives_a_file_and_more(void **state)
{
	survives_lending(*state, 0, SHARE_TLEND + 1, 8);
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
		both(lends_and_uses),
		both(leaves_the_rest_to_the_server),
		both(gives_back),
		both(takes_one_descriptor),
		both(borrows_no_more_than_it_has_room_for),
		both(ends_before_its_flush_does),
		both(takes_no_borrowing_from_the_driver),
		both(translates_flushes),
		both(refuses_messages_that_are_none),
		both(needs_room_for_an_answer),
		both(drops_what_has_no_room),
		both(survives_unknown_tags),
		both(survives_wild_tags),
		both(survives_tiny_sizes),
		both(survives_huge_sizes),
		both(survives_a_pipe_for_a_file),
		both(survives_nothing_for_a_file),
		both(survives_another_answer_than_a_file),
		both(survives_a_file_and_more),
		both(survives_its_death),
		both(survives_its_death_halfway),
		both(finishes_before_a_reset),
	};

	return driver_run_two(tests);
}
