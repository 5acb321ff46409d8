/*
 * A gigabyte through a port of the console in each direction, every byte of it looked at, in the
 * buffers that Linux uses (4 KiB in, 32 KiB out), over a Unix socket whose other end is a thread.
 *
 * Built without sanitizers it is build/bench/port, a part of `make bench`: `port ROUND` prints for
 * each direction what the port moved in which time, and what a bare pair of sockets did.
 */
#include "tests/unit/console-fixture.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define TOTAL	  GIB(1)
#define BOTH	  MIB(256) /* each way when both are under way at once */
#define RING	  128
#define IN_BYTES  KIB(4)
#define OUT_BYTES KIB(32)
#define IN_AT(i)  (MIB(8) + IN_BYTES * (u64)(i))
#define OUT_AT(i) (MIB(10) + OUT_BYTES * (u64)(i))
#define PORT	  1

/* What is sent: it repeats, but at no multiple of any buffer's size, so that a piece that is
 * missing, twice there or elsewhere shows. */
#define PERIOD (MIB(2) - 4093)
#define CHUNK  KIB(64)
static u8 stream[PERIOD + CHUNK];

static void make_stream(void)
{
	u64 x = 88172645463325252ull;

	for (size_t i = 0; i < sizeof(stream); i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		stream[i] = (u8)(i < PERIOD ? x : stream[i - PERIOD]);
	}
}

static bool is_right(u64 at, const u8 *bytes, size_t size)
{
	return size <= CHUNK && !memcmp(stream + at % PERIOD, bytes, size);
}

/* ---- the other end: a thread that sends so much, or takes and looks at it ---- */

struct peer {
	pthread_t thread;
	int fd;
	u64 total;
	u64 wrong; /* the first wrong byte's chunk, and one */
};

static void *send_all(void *arg)
{
	struct peer *p = arg;

	for (u64 at = 0; at < p->total;) {
		u64 left = p->total - at;
		ssize_t n = write(p->fd, stream + at % PERIOD, left < CHUNK ? left : CHUNK);

		if (n <= 0)
			break;
		at += (u64)n;
	}
	return NULL;
}

static void *take_all(void *arg)
{
	static u8 bytes[CHUNK];
	struct peer *p = arg;

	for (u64 at = 0; at < p->total;) {
		ssize_t n = read(p->fd, bytes, sizeof(bytes));

		if (n <= 0 || at + (u64)n > p->total || !is_right(at, bytes, (size_t)n)) {
			p->wrong = at + 1;
			break;
		}
		at += (u64)n;
	}
	return NULL;
}

static void peer_start(struct peer *p, int fd, u64 total, void *(*work)(void *))
{
	*p = (struct peer){ .fd = fd, .total = total };
	fcntl(fd, F_SETFL, 0);
	assert_int_equal(pthread_create(&p->thread, NULL, work, p), 0);
}

static void peer_join(struct peer *p)
{
	pthread_join(p->thread, NULL);
	assert_int_equal(p->wrong, 0);
}

/* ---- the driver ---- */

static struct fixture *port_up(void **state)
{
	static const struct console_plan plan = { .interrupts = true, .kinds = { NONE, SOCKET } };
	struct fixture *f = console_up(state, &plan);

	negotiate(f, MULTIPORT | BIT64(VIRTIO_RING_F_EVENT_IDX));
	for (u16 i = 0; i < f->device->queue_count; i++) {
		driver_ring_init(&f->rings[i], &f->machine.memory, RINGS(i),
				 i < 4 ? RING_SIZE : RING, true);
		driver_queue(f->device, i, &f->rings[i]);
	}
	driver_ok(f->device);
	fill(f, 2, 128);
	introduce(f);
	say(f, PORT, VIRTIO_CONSOLE_PORT_OPEN, 1);
	for (u32 i = 0; i < RING; i++)
		assert_true(lend(f, rx_of(PORT), IN_AT(i), IN_BYTES, true));
	driver_kick(&f->rings[rx_of(PORT)]);
	return f;
}

/* What has come by now is right, and its buffers go back. */
static u64 take_in(struct fixture *f, u64 at)
{
	u16 queue = rx_of(PORT);
	u32 head, written;

	while (driver_used(&f->rings[queue], &head, &written)) {
		u64 address = f->at[queue][head];

		assert_true(written > 0 && is_right(at, f->machine.memory.low + address, written));
		at += written;
		assert_true(lend(f, queue, address, IN_BYTES, true));
	}
	driver_kick(&f->rings[queue]);
	return at;
}

/* Gives as much as there is room for. Buffers come back in the order in which they went. */
static u64 give_out(struct fixture *f, u64 at, u64 total)
{
	struct driver_ring *ring = &f->rings[tx_of(PORT)];
	static u32 i;

	while (driver_used(ring, NULL, NULL))
		;
	while (at < total && driver_room(ring)) {
		u64 address = OUT_AT(i++ % RING), left = total - at;
		u32 size = left < OUT_BYTES ? (u32)left : (u32)OUT_BYTES;

		memcpy(f->machine.memory.low + address, stream + at % PERIOD, size);
		assert_true(lend(f, tx_of(PORT), address, size, false));
		at += size;
	}
	driver_kick(ring);
	return at;
}

/* Until one of the rings has something, as a driver waits. */
static void sleep_for(struct fixture *f, bool in, bool out)
{
	struct pollfd fds[] = { { .fd = in ? f->interrupts[rx_of(PORT)] : -1, .events = POLLIN },
				{ .fd = out ? f->interrupts[tx_of(PORT)] : -1, .events = POLLIN } };
	eventfd_t value;

	if ((in && driver_arm(&f->rings[rx_of(PORT)], 1)) ||
	    (out && driver_arm(&f->rings[tx_of(PORT)], 1)))
		return;
	assert_true(poll(fds, 2, DRIVER_PATIENCE_MS) > 0);
	for (int i = 0; i < 2; i++)
		if (fds[i].revents)
			eventfd_read(fds[i].fd, &value);
}

/* So much in and so much out, at once. */
static void move(struct fixture *f, u64 in_total, u64 out_total)
{
	struct driver_ring *tx = &f->rings[tx_of(PORT)];
	struct peer sender, taker;
	u64 in = 0, out = 0;

	if (in_total)
		peer_start(&sender, f->hosts[PORT].to_guest, in_total, send_all);
	if (out_total)
		peer_start(&taker, f->hosts[PORT].from_guest, out_total, take_all);
	while (in < in_total || out < out_total) {
		in = in < in_total ? take_in(f, in) : in;
		out = out < out_total ? give_out(f, out, out_total) : out;
		if (in < in_total || out < out_total)
			sleep_for(f, in < in_total, out < out_total);
	}
	if (in_total)
		peer_join(&sender);
	if (out_total)
		peer_join(&taker);
	while (driver_room(tx) < RING) /* all of the last ones come back, too */
		driver_wait_used(tx, NULL, NULL);
	assert_int_equal(in, in_total);
}

static u64 us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (u64)now.tv_sec * 1000000 + (u64)now.tv_nsec / 1000;
}

static void a_gigabyte_in(void **state)
{
	move(port_up(state), TOTAL, 0);
}

static void a_gigabyte_out(void **state)
{
	move(port_up(state), 0, TOTAL);
}

static void both_at_once(void **state)
{
	move(port_up(state), BOTH, BOTH);
}

/* ---- the bench ---- */

/* Writer and reader of a pair of sockets, with nothing between them. */
static void bare(void)
{
	struct peer sender, taker;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	peer_start(&taker, pair[1], TOTAL, take_all);
	peer_start(&sender, pair[0], TOTAL, send_all);
	peer_join(&sender);
	peer_join(&taker);
	close(pair[0]);
	close(pair[1]);
}

static const char *round_name;

static void tell(const char *name, const char *who, u64 began)
{
	printf("part=port case=%s vmm=%s round=%s ops=%u us=%lu\n", name, who, round_name,
	       (u32)(TOTAL / MIB(1)), (unsigned long)(us() - began));
	fflush(stdout);
}

static void bench(void **state)
{
	struct fixture *f = port_up(state);
	u64 began = us();

	bare();
	tell("in", "limit-socket", began);
	began = us();
	move(f, TOTAL, 0);
	tell("in", "vmm", began);
	began = us();
	bare();
	tell("out", "limit-socket", began);
	began = us();
	move(f, 0, TOTAL);
	tell("out", "vmm", began);
}

#define bulk_test(name, engine) cmocka_unit_test_setup_teardown(name, engine, console_down)

int main(int argc, char **argv)
{
	const struct CMUnitTest both[] = {
		bulk_test(both_at_once, console_uring),
		bulk_test(both_at_once, console_epoll),
	};
	const struct CMUnitTest tests[] = {
		bulk_test(a_gigabyte_in, console_uring),
		bulk_test(a_gigabyte_out, console_uring),
	};
	const struct CMUnitTest benches[] = { bulk_test(bench, console_uring) };

	make_stream();
	if (argc > 1) {
		round_name = argv[1];
		return driver_run(benches, false, false);
	}
	return driver_run(tests, false, false) + driver_run_two(both);
}
