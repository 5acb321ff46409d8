/* tsan: the console device, from descriptors to rings and back, on both engines. */
#include "tests/unit/console-fixture.h"

/* ---- one port, a driver without MULTIPORT: a console ---- */

static const struct console_plan console_only = { .console = true, .kinds = { PIPES } };

/* 5.3.4, 5.3.6: what it offers, and bytes both ways. */
static void console_carries_bytes(void **state)
{
	struct fixture *f = console_up(state, &console_only);

	assert_int_equal(f->device->offered & 0xff, BIT(VIRTIO_CONSOLE_F_SIZE) |
							    BIT(VIRTIO_CONSOLE_F_MULTIPORT) |
							    BIT(VIRTIO_CONSOLE_F_EMERG_WRITE));
	assert_int_equal(f->device->queue_count, 4);
	assert_int_equal(config_get(f, 4, 4), 1);
	assert_int_equal(config_get(f, 0, 2), 80);
	assert_int_equal(config_get(f, 2, 2), 25);
	begin(f, BIT64(VIRTIO_CONSOLE_F_SIZE));
	driver_wait(virtio_console_is_open(f->console, 0));
	guest_sends(f, 0, "login: ");
	host_gets(f, 0, "login: ");
	host_sends(f, 0, "root\n");
	guest_gets(f, 0, "root\n");
}

/* Nothing is read from the host while the guest has no buffers, and all of it then. */
static void waits_for_buffers(void **state)
{
	struct fixture *f = console_up(state, &console_only);

	negotiate(f, 0);
	ring_up(f, 0);
	ring_up(f, 1);
	driver_ok(f->device);
	host_sends(f, 0, "early");
	guest_sends(f, 0, "x");
	host_gets(f, 0, "x");
	assert_false(driver_used(&f->rings[0], NULL, NULL));
	fill_rx(f, 0);
	guest_gets(f, 0, "early");
}

/* 5.3.4.1: also without a driver. */
static void emergency_writes(void **state)
{
	struct fixture *f = console_up(state, &console_only);

	pthread_mutex_lock(&f->device->lock);
	virtio_config_write(f->device, 8, 4, 0x4141 + '!' - 0x41);
	virtio_config_write(f->device, 0, 2, 'x'); /* the window is not the driver's */
	virtio_config_write(f->device, 9, 1, 'y');
	pthread_mutex_unlock(&f->device->lock);
	host_gets(f, 0, "!");
	assert_int_equal(config_get(f, 0, 2), 80);
	begin(f, 0);
	guest_sends(f, 0, "z");
	host_gets(f, 0, "z");
}

static void window_changes(void **state)
{
	struct fixture *f = console_up(state, &console_only);
	u8 before;

	begin(f, BIT64(VIRTIO_CONSOLE_F_SIZE));
	before = generation(f);
	virtio_console_resize(f->console, 132, 50);
	assert_int_not_equal(generation(f), before);
	assert_int_equal(config_get(f, 0, 2), 132);
	assert_int_equal(config_get(f, 2, 2), 50);
}

/* ---- MULTIPORT ---- */

static const struct console_plan two_ports = { .kinds = { NONE, PIPES, SOCKET } };

static void ports_introduce_themselves(void **state)
{
	struct fixture *f = console_up(state, &two_ports);

	assert_int_equal(f->device->offered & 0xff, BIT(VIRTIO_CONSOLE_F_MULTIPORT));
	assert_int_equal(f->device->queue_count, 8);
	assert_int_equal(config_get(f, 4, 4), 3);
	begin(f, MULTIPORT);
	say(f, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	told(f, 1, VIRTIO_CONSOLE_PORT_ADD, NULL);
	told(f, 2, VIRTIO_CONSOLE_PORT_ADD, NULL);
	/* 5.3.6.2.1: a port is not added twice */
	say(f, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	say(f, 2, VIRTIO_CONSOLE_PORT_READY, 1);
	told(f, 2, VIRTIO_CONSOLE_PORT_NAME, "port2");
	assert_int_equal(told(f, 2, VIRTIO_CONSOLE_PORT_OPEN, NULL), 1);
	say(f, 2, VIRTIO_CONSOLE_PORT_READY, 1);
	say(f, 1, VIRTIO_CONSOLE_PORT_READY, 1);
	told(f, 1, VIRTIO_CONSOLE_PORT_NAME, "port1");
	assert_int_equal(told(f, 1, VIRTIO_CONSOLE_PORT_OPEN, NULL), 1);
	told_nothing(f);
}

/* A port 0 that is a console says so, and its size: columns first. */
static void console_among_ports(void **state)
{
	static const struct console_plan plan = { .console = true, .kinds = { PIPES, PIPES } };
	struct fixture *f = console_up(state, &plan);

	begin(f, MULTIPORT | BIT64(VIRTIO_CONSOLE_F_SIZE));
	say(f, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	told(f, 0, VIRTIO_CONSOLE_PORT_ADD, NULL);
	told(f, 1, VIRTIO_CONSOLE_PORT_ADD, NULL);
	say(f, 0, VIRTIO_CONSOLE_PORT_READY, 1);
	assert_int_equal(told(f, 0, VIRTIO_CONSOLE_CONSOLE_PORT, NULL), 1);
	assert_int_equal(told(f, 0, VIRTIO_CONSOLE_PORT_OPEN, NULL), 1);
	told(f, 0, VIRTIO_CONSOLE_RESIZE, "\x50\0\x19\0");
	virtio_console_resize(f->console, 0x102, 0x304);
	told(f, 0, VIRTIO_CONSOLE_RESIZE, "\x02\x01\x04\x03");
}

/* A port reads nothing from the host before the guest has opened it, and once it has: all. */
static void streams_of_open_ports(void **state)
{
	struct fixture *f = console_up(state, &two_ports);

	begin(f, MULTIPORT);
	introduce(f);
	host_sends(f, 1, "one");
	host_sends(f, 2, "two");
	say(f, 2, VIRTIO_CONSOLE_PORT_OPEN, 1);
	guest_gets(f, 2, "two");
	assert_false(driver_used(&f->rings[rx_of(1)], NULL, NULL));
	assert_false(virtio_console_is_open(f->console, 1));
	say(f, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	guest_gets(f, 1, "one");
	guest_sends(f, 1, "uno");
	guest_sends(f, 2, "due");
	host_gets(f, 1, "uno");
	host_gets(f, 2, "due");
}

/* ---- ends ---- */

/* The host's end of file closes the guest's port, behind the last byte; what the guest has sent is
 * written, and then the end is given back. */
static void end_of_file_closes_the_port(void **state)
{
	struct fixture *f = console_up(state, &two_ports);

	begin(f, MULTIPORT);
	introduce(f);
	say(f, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	say(f, 2, VIRTIO_CONSOLE_PORT_OPEN, 1);
	host_sends(f, 1, "last");
	host_closes(f, 1);
	assert_int_equal(told(f, 1, VIRTIO_CONSOLE_PORT_OPEN, NULL), 0);
	/* no waiting: it must be there before the message is */
	assert_int_equal(guest_takes(f, 1), 4);
	driver_wait(virtio_console_reap(f->console, 1));
	assert_false(virtio_console_reap(f->console, 1));
	host_sees_end(f, 1);
	guest_sends(f, 1, "nobody"); /* is given back all the same */
	host_sends(f, 2, "on");
	guest_gets(f, 2, "on");
}

/* The guest's closing its port is the end of file for the host, behind the last byte. */
static void guest_closes(void **state)
{
	struct fixture *f = console_up(state, &two_ports);

	begin(f, MULTIPORT);
	introduce(f);
	say(f, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	say(f, 2, VIRTIO_CONSOLE_PORT_OPEN, 1);
	for (int i = 0; i < 2; i++) {
		u32 port = i ? 2 : 1;

		guest_queues(f, port, "last words");
		say(f, port, VIRTIO_CONSOLE_PORT_OPEN, 0);
		driver_kick(&f->rings[tx_of(port)]);
		assert_int_equal(told(f, port, VIRTIO_CONSOLE_PORT_OPEN, NULL), 0);
		driver_wait(virtio_console_reap(f->console, port));
		host_gets(f, port, "last words");
		host_sees_end(f, port);
	}
}

static void lasting_ports_stay(void **state)
{
	static const struct console_plan plan = { .kinds = { NONE, LASTING } };
	struct fixture *f = console_up(state, &plan);

	begin(f, MULTIPORT);
	introduce(f);
	for (int i = 0; i < 3; i++) {
		say(f, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
		guest_sends(f, 1, "again");
		host_gets(f, 1, "again");
		host_sends(f, 1, "and");
		guest_gets(f, 1, "and");
		say(f, 1, VIRTIO_CONSOLE_PORT_OPEN, 0);
	}
	told_nothing(f);
	assert_false(virtio_console_reap(f->console, 1));
}

/* A reader that goes away: the guest learns it, what it sends is given back. */
static void reader_goes(void **state)
{
	struct fixture *f = console_up(state, &two_ports);

	begin(f, MULTIPORT);
	introduce(f);
	say(f, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	close(f->hosts[1].from_guest);
	f->hosts[1].from_guest = -1;
	guest_sends(f, 1, "to nobody");
	assert_int_equal(told(f, 1, VIRTIO_CONSOLE_PORT_OPEN, NULL), 0);
	driver_wait(virtio_console_reap(f->console, 1));
	guest_sends(f, 1, "to nobody");
}

/* A port's next host is told of behind the going of the one before, however late the driver looks,
 * and hears nothing of what was sent to that. */
static void hosts_come_and_go(void **state)
{
	struct fixture *f = console_up(state, &two_ports);
	int pair[2];

	begin(f, MULTIPORT);
	introduce(f);
	say(f, 2, VIRTIO_CONSOLE_PORT_OPEN, 1);
	for (int i = 0; i < 20; i++) {
		host_sends(f, 2, "hello");
		guest_gets(f, 2, "hello");
		guest_sends(f, 2, "answer");
		host_gets(f, 2, "answer");
		host_closes(f, 2);
		driver_wait(virtio_console_reap(f->console, 2));
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
		f->hosts[2] = (struct host){ pair[0], pair[0] };
		assert_int_equal(virtio_console_connect(f->console, 2, pair[1], pair[1]), 0);
		assert_int_equal(told(f, 2, VIRTIO_CONSOLE_PORT_OPEN, NULL), 0);
		assert_int_equal(told(f, 2, VIRTIO_CONSOLE_PORT_OPEN, NULL), 1);
	}
	virtio_console_hang_up(f->console, 2);
	assert_int_equal(told(f, 2, VIRTIO_CONSOLE_PORT_OPEN, NULL), 0);
	driver_wait(virtio_console_reap(f->console, 2));
	host_sees_end(f, 2);
}

/* ---- flow control ---- */

/* A reader that is stuck holds up its own port alone; and when it goes on nothing is missing. */
static void stuck_reader(void **state)
{
	struct fixture *f = console_up(state, &two_ports);
	u32 sent = 0, back = 0;

	begin(f, MULTIPORT);
	introduce(f);
	say(f, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	say(f, 2, VIRTIO_CONSOLE_PORT_OPEN, 1);
	sent = stuff(f, 1);
	for (int i = 0; i < 50; i++) {
		guest_sends(f, 2, "alive");
		host_gets(f, 2, "alive");
		host_sends(f, 2, "too");
		guest_gets(f, 2, "too");
	}
	assert_true(sent > KIB(64));
	back = drain(f, 1, sent);
	assert_int_equal(back, sent);
}

/* Every byte, in order, both ways at once, whatever pieces they come in. */
static void bulk(void **state)
{
	struct fixture *f = console_up(state, &two_ports);

	begin(f, MULTIPORT);
	introduce(f);
	say(f, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	say(f, 2, VIRTIO_CONSOLE_PORT_OPEN, 1);
	bulk_both_ways(f, 1, MIB(4));
	bulk_both_ways(f, 2, MIB(4));
}

/* ---- resets ---- */

/* In the middle of everything: buffers come home, the next driver begins anew, the host stays. */
static void resets(void **state)
{
	struct fixture *f = console_up(state, &two_ports);

	for (int i = 0; i < 10; i++) {
		begin(f, MULTIPORT);
		introduce(f);
		say(f, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
		say(f, 2, VIRTIO_CONSOLE_PORT_OPEN, 1);
		guest_sends(f, 2, "here");
		host_gets(f, 2, "here");
		host_sends(f, 2, "there");
		guest_gets(f, 2, "there");
		stuff(f, 1);
		driver_reset(f->device);
		assert_false(virtio_console_is_open(f->console, 2));
		empty(f, 1);
	}
	/* without MULTIPORT the other queues are nobody's */
	begin(f, 0);
	assert_true(driver_add(&f->rings[5], &(struct driver_part){ BUFFER(5, 0), 8, false }, 1) >=
		    0);
	driver_ring_doorbell(&f->rings[5]);
	guest_sends(f, 0, "discarded");
	assert_false(driver_used(&f->rings[5], NULL, NULL));
}

static void ring_reset(void **state)
{
	struct fixture *f = console_up(state, &two_ports);

	begin(f, MULTIPORT | RING_RESET);
	introduce(f);
	say(f, 2, VIRTIO_CONSOLE_PORT_OPEN, 1);
	host_sends(f, 2, "a");
	guest_gets(f, 2, "a");
	pthread_mutex_lock(&f->device->lock);
	virtio_queue_reset(&f->device->queues[rx_of(2)]);
	virtio_reset_wait(f->device);
	pthread_mutex_unlock(&f->device->lock);
	ring_up(f, rx_of(2));
	fill_rx(f, 2);
	host_sends(f, 2, "b");
	guest_gets(f, 2, "b");
}

/* ---- what a driver should not do ---- */

static void hostile_messages(void **state)
{
	struct fixture *f = console_up(state, &two_ports);
	static const struct {
		u32 id;
		u16 event, value;
	} wrong[] = {
		{ 3, VIRTIO_CONSOLE_PORT_READY, 1 },
		{ 0, VIRTIO_CONSOLE_PORT_READY, 1 },
		{ UINT32_MAX, VIRTIO_CONSOLE_PORT_OPEN, 1 },
		{ 0x80000001, VIRTIO_CONSOLE_PORT_OPEN, 1 },
		{ 1, VIRTIO_CONSOLE_PORT_OPEN, 1 }, /* not ready */
		{ 1, VIRTIO_CONSOLE_PORT_ADD, 1 },
		{ 1, VIRTIO_CONSOLE_PORT_REMOVE, 1 },
		{ 1, VIRTIO_CONSOLE_CONSOLE_PORT, 1 },
		{ 1, VIRTIO_CONSOLE_RESIZE, 1 },
		{ 1, VIRTIO_CONSOLE_PORT_NAME, 1 },
		{ 1, VIRTIO_CONSOLE_PORT_READY, 0 },
		{ 1, 0xffff, 0xffff },
	};

	begin(f, MULTIPORT);
	for (u32 i = 0; i < ARRAY_SIZE(wrong); i++) /* before anything was added */
		say(f, wrong[i].id, wrong[i].event, wrong[i].value);
	say(f, 0, VIRTIO_CONSOLE_DEVICE_READY, 0);
	told_nothing(f);
	say(f, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	told(f, 1, VIRTIO_CONSOLE_PORT_ADD, NULL);
	told(f, 2, VIRTIO_CONSOLE_PORT_ADD, NULL);
	for (u32 i = 0; i < ARRAY_SIZE(wrong); i++)
		say(f, wrong[i].id, wrong[i].event, wrong[i].value);
	told_nothing(f);
	assert_false(virtio_console_is_open(f->console, 1));
	ready(f, 1);
	/* too short to be one, and one with nothing in it at all */
	message(f, "\x01\0\0\0\x06\0\x01", 7);
	assert_false(virtio_console_is_open(f->console, 1));
	message_parts(f, (const struct driver_part[]){ { BUFFER(3, 0), 8, true } }, 1);
	/* in three pieces, and followed by more than belongs to it */
	message_parts(f,
		      (const struct driver_part[]){
			      { put(f, BUFFER(3, 0), "\x01", 1), 1, false },
			      { put(f, BUFFER(3, 1), "\0\0\0\x06", 4), 4, false },
			      { put(f, BUFFER(3, 2), "\0\x01\0zzz", 6), 6, false } },
		      3);
	driver_wait(virtio_console_is_open(f->console, 1));
	assert_int_equal(driver_status_now(f->device) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
}

/* What is to be told is bounded, however often things change while the driver gives no buffers. */
static void bursts_of_messages(void **state)
{
	struct fixture *f = console_up(state, &two_ports);
	int pair[2];

	begin(f, MULTIPORT | RING_RESET);
	introduce(f);
	take_control_buffers(f);
	for (int i = 0; i < 100; i++) {
		say(f, 2, VIRTIO_CONSOLE_PORT_OPEN, 1);
		say(f, 2, VIRTIO_CONSOLE_PORT_OPEN, 0);
		say(f, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
		say(f, 2, VIRTIO_CONSOLE_PORT_READY, 1);
		driver_wait(virtio_console_reap(f->console, 2));
		close(f->hosts[2].from_guest);
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
		f->hosts[2] = (struct host){ pair[0], pair[0] };
		assert_int_equal(virtio_console_connect(f->console, 2, pair[1], pair[1]), 0);
	}
	give_control_buffers(f);
	assert_int_equal(told(f, 2, VIRTIO_CONSOLE_PORT_OPEN, NULL), 0);
	assert_int_equal(told(f, 2, VIRTIO_CONSOLE_PORT_OPEN, NULL), 1);
	told_nothing(f);
}

/* Buffers of the wrong kind are given back untouched; one for control messages that is too short
 * breaks the device, and it alone. */
static void wrong_buffers(void **state)
{
	struct fixture *f = console_up(state, &two_ports);
	u32 written;

	begin(f, MULTIPORT | RING_RESET);
	introduce(f);
	say(f, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	assert_true(driver_add(&f->rings[tx_of(1)], &(struct driver_part){ BUFFER(5, 0), 64, true },
			       1) >= 0);
	driver_kick(&f->rings[tx_of(1)]);
	driver_wait_used(&f->rings[tx_of(1)], NULL, &written);
	assert_int_equal(written, 0);
	guest_sends(f, 1, "right");
	host_gets(f, 1, "right");
	take_control_buffers(f);
	assert_true(driver_add(&f->rings[2], &(struct driver_part){ BUFFER(2, 0), 7, true }, 1) >=
		    0);
	driver_kick(&f->rings[2]);
	host_closes(f, 1);
	driver_wait(driver_status_now(f->device) & VIRTIO_CONFIG_S_NEEDS_RESET);
	driver_reset(f->device);
	virtio_console_reap(f->console, 1);
	begin(f, MULTIPORT);
	say(f, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	told(f, 1, VIRTIO_CONSOLE_PORT_ADD, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		console_test(console_carries_bytes),
		console_test(waits_for_buffers),
		console_test(emergency_writes),
		console_test(window_changes),
		console_test(ports_introduce_themselves),
		console_test(console_among_ports),
		console_test(streams_of_open_ports),
		console_test(end_of_file_closes_the_port),
		console_test(guest_closes),
		console_test(lasting_ports_stay),
		console_test(reader_goes),
		console_test(hosts_come_and_go),
		console_test(stuck_reader),
		console_test(bulk),
		console_test(resets),
		console_test(ring_reset),
		console_test(hostile_messages),
		console_test(bursts_of_messages),
		console_test(wrong_buffers),
	};

	return driver_run_two(tests);
}
