/* A console device, a driver for it, and hosts with pipes and sockets: for unit/console.c. */
#ifndef TESTS_UNIT_CONSOLE_FIXTURE_H
#define TESTS_UNIT_CONSOLE_FIXTURE_H

#include "tests/unit/driver.h"
#include <fcntl.h>
#include <linux/virtio_console.h>
#include <signal.h>
#include <sys/socket.h>
#include "virtio/console.h"

#define RAM	     MIB(16)
#define PORTS	     4
#define QUEUES	     (2 * PORTS + 2)
#define RING_SIZE    16
#define RX_BYTES     512u
#define MULTIPORT    BIT64(VIRTIO_CONSOLE_F_MULTIPORT)
#define RING_RESET   BIT64(VIRTIO_F_RING_RESET)
#define RINGS(n)     (0x10000ull * (1 + (u64)(n)))
#define BUFFER(n, i) (MIB(1) + KIB(512) * (u64)(n) + KIB(16) * (u64)(i))

enum kind { END, NONE, PIPES, SOCKET, LASTING };

struct console_plan {
	bool console, interrupts;
	enum kind kinds[PORTS];
};

/* The test's descriptors; the same for a socket. */
struct host {
	int to_guest, from_guest;
};

struct fixture {
	struct driver_machine machine;
	struct virtio_console *console;
	struct virtio_device *device;
	struct driver_ring rings[QUEUES];
	u64 at[QUEUES][DRIVER_RING_MAX]; /* where a head's buffer is */
	struct host hosts[PORTS];
	u32 ports;
	u64 received[PORTS], pattern[PORTS];
	int interrupts[QUEUES]; /* if the plan has them */
	char text[KIB(16)];	/* what guest_takes() took */
	u32 text_length;
};

static inline u16 rx_of(u32 port)
{
	return (u16)(port ? 2 * port + 2 : 0);
}

static inline u16 tx_of(u32 port)
{
	return (u16)(rx_of(port) + 1);
}

static inline u8 *at(struct fixture *f, u64 address, u64 size)
{
	u8 *bytes = memory_at(&f->machine.memory, address, size);

	assert_non_null(bytes);
	return bytes;
}

static inline u64 put(struct fixture *f, u64 address, const void *bytes, size_t size)
{
	memcpy(at(f, address, size), bytes, size);
	return address;
}

static inline void make_host(struct fixture *f, u32 port, enum kind kind,
			     struct virtio_console_port *to)
{
	int up[2], down[2];

	to->in_fd = to->out_fd = f->hosts[port].to_guest = f->hosts[port].from_guest = -1;
	to->lasting = kind == LASTING;
	if (kind == SOCKET) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, up), 0);
		to->in_fd = to->out_fd = up[0];
		f->hosts[port] = (struct host){ up[1], up[1] };
	} else if (kind == PIPES || kind == LASTING) {
		/* blocking, as a shell's are */
		assert_int_equal(pipe(up), 0);
		assert_int_equal(pipe(down), 0);
		to->in_fd = down[0];
		to->out_fd = up[1];
		f->hosts[port] = (struct host){ down[1], up[0] };
		fcntl(down[1], F_SETFL, O_NONBLOCK);
	}
}

static inline struct fixture *console_up(void **state, const struct console_plan *plan)
{
	static struct fixture fixture;
	struct fixture *f = &fixture;
	static const char *const names[] = { NULL, "port1", "port2", "port3" };
	struct virtio_console_port ports[PORTS] = { 0 };
	struct virtio_console_options options = { .name = "console0",
						  .console = plan->console,
						  .cols = 80,
						  .rows = 25,
						  .features = VIRTIO_OPTIONAL,
						  .ports = ports,
						  .wake_fd = -1 };

	signal(SIGPIPE, SIG_IGN);
	memset(f, 0, sizeof(*f));
	driver_machine_up(&f->machine, RAM, 1, **(const bool **)state);
	for (f->ports = 0; f->ports < PORTS && plan->kinds[f->ports] != END; f->ports++) {
		ports[f->ports].name = names[f->ports];
		make_host(f, f->ports, plan->kinds[f->ports], &ports[f->ports]);
	}
	options.port_count = f->ports;
	options.memory = &f->machine.memory;
	options.reactors = f->machine.reactors;
	assert_int_equal(virtio_console_create(&f->console, &options), 0);
	f->device = virtio_console_device(f->console);
	for (u16 i = 0; i < f->device->queue_count && plan->interrupts; i++)
		f->interrupts[i] = driver_interrupt(&f->machine, &f->device->queues[i]);
	driver_machine_go(&f->machine);
	*state = f;
	return f;
}

static inline int console_down(void **state)
{
	struct fixture *f = *state;

	virtio_device_power_on(f->device);
	driver_machine_stop(&f->machine);
	virtio_console_destroy(f->console);
	driver_machine_down(&f->machine);
	for (u16 i = 0; i < QUEUES; i++)
		if (f->interrupts[i])
			close(f->interrupts[i]);
	for (u32 i = 0; i < f->ports; i++) {
		if (f->hosts[i].from_guest >= 0)
			close(f->hosts[i].from_guest);
		if (f->hosts[i].to_guest >= 0 && f->hosts[i].to_guest != f->hosts[i].from_guest)
			close(f->hosts[i].to_guest);
	}
	return 0;
}

static const bool on_uring, on_epoll = true;

static inline int console_uring(void **state)
{
	*state = (void *)(uintptr_t)&on_uring;
	return 0;
}

static inline int console_epoll(void **state)
{
	*state = (void *)(uintptr_t)&on_epoll;
	return 0;
}

#define console_test(name)                                                  \
	cmocka_unit_test_setup_teardown(name, console_uring, console_down), \
		cmocka_unit_test_setup_teardown(name, console_epoll, console_down)

/* ---- the driver ---- */

static inline u64 config_get(struct fixture *f, u32 offset, u32 size)
{
	u64 value;

	pthread_mutex_lock(&f->device->lock);
	value = virtio_config_read(f->device, offset, size);
	pthread_mutex_unlock(&f->device->lock);
	return value;
}

static inline u8 generation(struct fixture *f)
{
	u8 value;

	pthread_mutex_lock(&f->device->lock);
	value = virtio_config_generation(f->device);
	pthread_mutex_unlock(&f->device->lock);
	return value;
}

static inline void negotiate(struct fixture *f, u64 features)
{
	assert_true(driver_negotiate(f->device, features));
}

static inline void ring_up(struct fixture *f, u16 queue)
{
	driver_ring_init(&f->rings[queue], &f->machine.memory, RINGS(queue), RING_SIZE, false);
	driver_queue(f->device, queue, &f->rings[queue]);
}

static inline bool lend(struct fixture *f, u16 queue, u64 address, u32 length, bool writable)
{
	const struct driver_part part = { address, length, writable };
	int head = driver_add(&f->rings[queue], &part, 1);

	if (head >= 0)
		f->at[queue][head] = address;
	return head >= 0;
}

static inline void fill(struct fixture *f, u16 queue, u32 bytes)
{
	for (u32 i = 0; i < RING_SIZE; i++)
		assert_true(lend(f, queue, BUFFER(queue, i), bytes, true));
	driver_kick(&f->rings[queue]);
}

static inline void fill_rx(struct fixture *f, u32 port)
{
	fill(f, rx_of(port), RX_BYTES);
}

/* A driver with all queues, and all buffers that they take. */
static inline void begin(struct fixture *f, u64 features)
{
	negotiate(f, features);
	for (u16 i = 0; i < f->device->queue_count; i++)
		ring_up(f, i);
	driver_ok(f->device);
	for (u32 i = 0; i < f->ports; i++)
		fill_rx(f, i);
	if (features & MULTIPORT)
		fill(f, 2, 128);
}

static inline void guest_queues(struct fixture *f, u32 port, const char *text)
{
	u64 address = BUFFER(tx_of(port), 0);

	put(f, address, text, strlen(text));
	assert_true(lend(f, tx_of(port), address, (u32)strlen(text), false));
	driver_publish(&f->rings[tx_of(port)]);
}

static inline void guest_sends(struct fixture *f, u32 port, const char *text)
{
	u32 written;

	guest_queues(f, port, text);
	driver_ring_doorbell(&f->rings[tx_of(port)]);
	driver_wait_used(&f->rings[tx_of(port)], NULL, &written);
	assert_int_equal(written, 0);
}

/* What has come to the port, without waiting: appended to text; how many bytes there are in it. The
 * buffers go back. */
static inline u32 guest_takes(struct fixture *f, u32 port)
{
	u16 queue = rx_of(port);
	struct driver_ring *ring = &f->rings[queue];
	u32 head, written;

	while (driver_used(ring, &head, &written)) {
		u64 address = f->at[queue][head];

		assert_true(written > 0 && written <= RX_BYTES);
		assert_true(f->text_length + written <= sizeof(f->text));
		memcpy(f->text + f->text_length, at(f, address, written), written);
		f->text_length += written;
		assert_true(lend(f, queue, address, RX_BYTES, true));
	}
	driver_kick(ring);
	return f->text_length;
}

static inline void guest_gets(struct fixture *f, u32 port, const char *text)
{
	f->text_length = 0;
	driver_wait(guest_takes(f, port) >= strlen(text));
	assert_int_equal(f->text_length, strlen(text));
	assert_memory_equal(f->text, text, strlen(text));
}

static inline void message_parts(struct fixture *f, const struct driver_part *parts, u16 count)
{
	assert_true(driver_add(&f->rings[3], parts, count) >= 0);
	driver_kick(&f->rings[3]);
	driver_wait_used(&f->rings[3], NULL, NULL);
}

static inline void message(struct fixture *f, const void *bytes, u32 size)
{
	const struct driver_part part = { put(f, BUFFER(3, 0), bytes, size), size, false };

	message_parts(f, &part, 1);
}

static inline void say(struct fixture *f, u32 id, u16 event, u16 value)
{
	u8 bytes[8];

	le32_store(bytes, id);
	le16_store(bytes + 4, event);
	le16_store(bytes + 6, value);
	message(f, bytes, sizeof(bytes));
}

/* The next message to the driver: this one, with what follows it; its value. */
static inline u16 told(struct fixture *f, u32 id, u16 event, const char *more)
{
	u32 head, written,
		length = event == VIRTIO_CONSOLE_RESIZE ? 4
			 : more				? (u32)strlen(more)
							: 0;
	const u8 *bytes;
	u16 value;

	driver_wait_used(&f->rings[2], &head, &written);
	bytes = at(f, f->at[2][head], written);
	assert_int_equal(written, 8 + length);
	assert_int_equal(le32_load(bytes), id);
	assert_int_equal(le16_load(bytes + 4), event);
	if (length)
		assert_memory_equal(bytes + 8, more, length);
	value = le16_load(bytes + 6);
	assert_true(lend(f, 2, f->at[2][head], 128, true));
	driver_kick(&f->rings[2]);
	return value;
}

/* The reactor has been through everything, and has told nothing. */
static inline void told_nothing(struct fixture *f)
{
	reactors_settle(f->machine.reactors);
	assert_false(driver_used(&f->rings[2], NULL, NULL));
}

static inline void ready(struct fixture *f, u32 port)
{
	char name[] = "port0";

	name[4] = (char)(name[4] + port);
	say(f, port, VIRTIO_CONSOLE_PORT_READY, 1);
	told(f, port, VIRTIO_CONSOLE_PORT_NAME, name);
	assert_int_equal(told(f, port, VIRTIO_CONSOLE_PORT_OPEN, NULL), 1);
}

static inline void introduce(struct fixture *f)
{
	say(f, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	for (u32 i = 1; i < f->ports; i++)
		told(f, i, VIRTIO_CONSOLE_PORT_ADD, NULL);
	for (u32 i = 1; i < f->ports; i++)
		ready(f, i);
}

/* The control queue with no buffer in it (RING_RESET), and with all again. */
static inline void take_control_buffers(struct fixture *f)
{
	pthread_mutex_lock(&f->device->lock);
	virtio_queue_reset(&f->device->queues[2]);
	virtio_reset_wait(f->device);
	pthread_mutex_unlock(&f->device->lock);
	ring_up(f, 2);
}

static inline void give_control_buffers(struct fixture *f)
{
	fill(f, 2, 128);
}

/* ---- the host ---- */

static inline void host_sends(struct fixture *f, u32 port, const char *text)
{
	assert_int_equal(write(f->hosts[port].to_guest, text, strlen(text)), strlen(text));
}

static inline void host_gets(struct fixture *f, u32 port, const char *text)
{
	char got[KIB(4)];
	size_t length = 0;

	while (length < strlen(text)) {
		struct pollfd fd = { .fd = f->hosts[port].from_guest, .events = POLLIN };
		ssize_t n;

		assert_int_equal(poll(&fd, 1, DRIVER_PATIENCE_MS), 1);
		n = read(fd.fd, got + length, sizeof(got) - length);
		assert_true(n > 0);
		length += (size_t)n;
	}
	assert_int_equal(length, strlen(text));
	assert_memory_equal(got, text, length);
}

static inline void host_sees_end(struct fixture *f, u32 port)
{
	struct pollfd fd = { .fd = f->hosts[port].from_guest, .events = POLLIN };
	char byte;

	assert_int_equal(poll(&fd, 1, DRIVER_PATIENCE_MS), 1);
	assert_int_equal(read(fd.fd, &byte, 1), 0);
}

/* What it writes has an end; of a socket it goes on to read. */
static inline void host_closes(struct fixture *f, u32 port)
{
	struct host *host = &f->hosts[port];

	if (host->to_guest == host->from_guest) {
		shutdown(host->to_guest, SHUT_WR);
	} else {
		close(host->to_guest);
		host->to_guest = -1;
	}
}

/* ---- plenty ---- */

static inline u8 pattern(u64 i)
{
	return (u8)(i * 31 + (i >> 8) * 7 + (i >> 16));
}

/* The guest sends until its ring is full and nothing comes back; bytes given. */
static inline u32 stuff(struct fixture *f, u32 port)
{
	u16 queue = tx_of(port);
	struct driver_ring *ring = &f->rings[queue];
	u32 sent = 0, idle = 0, i = 0;
	u64 *n = &f->pattern[port];

	*n = 0;
	while (idle < 40) {
		u64 address = BUFFER(queue, i % RING_SIZE);
		u8 *bytes;

		if (!driver_room(ring)) {
			if (driver_used(ring, NULL, NULL)) {
				idle = 0;
			} else {
				usleep(2000);
				idle++;
			}
			continue;
		}
		/* heads come back in order, as a port's bytes do */
		bytes = at(f, address, KIB(8));
		for (u32 j = 0; j < KIB(8); j++)
			bytes[j] = pattern((*n)++);
		assert_true(lend(f, queue, address, KIB(8), false));
		driver_kick(ring);
		sent += (u32)KIB(8);
		i++;
	}
	return sent;
}

/* The host reads so many bytes, and each is right. */
static inline u32 drain(struct fixture *f, u32 port, u32 bytes)
{
	u8 got[KIB(4)];
	u32 sum = 0;

	while (sum < bytes) {
		struct pollfd fd = { .fd = f->hosts[port].from_guest, .events = POLLIN };
		ssize_t n;

		if (poll(&fd, 1, DRIVER_PATIENCE_MS) != 1)
			break;
		n = read(fd.fd, got, sizeof(got));
		assert_true(n > 0);
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(got[i], pattern(sum++));
	}
	return sum;
}

static inline void empty(struct fixture *f, u32 port)
{
	struct pollfd fd = { .fd = f->hosts[port].from_guest, .events = POLLIN };
	u8 got[KIB(4)];

	while (poll(&fd, 1, 0) == 1 && read(fd.fd, got, sizeof(got)) > 0)
		;
}

/* As much as each side takes, in pieces that fit nothing. */
static inline void bulk_both_ways(struct fixture *f, u32 port, u32 bytes)
{
	static u8 out[KIB(64)], in[KIB(64)];
	struct driver_ring *ring = &f->rings[tx_of(port)];
	u64 host_sent = 0, host_got = 0, guest_sent = 0, guest_got = 0;
	u64 until = driver_ms() + 10 * DRIVER_PATIENCE_MS;
	u32 i = 0;

	fcntl(f->hosts[port].from_guest, F_SETFL, O_NONBLOCK);
	while (host_sent < bytes || host_got < bytes || guest_sent < bytes || guest_got < bytes) {
		size_t size = 1 + (host_sent * 7919 + guest_got) % (sizeof(out) - 1);
		ssize_t n;

		if (driver_ms() > until)
			fail_msg("%lu %lu %lu %lu of %u", (unsigned long)host_sent,
				 (unsigned long)host_got, (unsigned long)guest_sent,
				 (unsigned long)guest_got, bytes);
		if (size > bytes - host_sent)
			size = bytes - host_sent;
		for (size_t j = 0; j < size; j++)
			out[j] = pattern(host_sent + j);
		n = size ? write(f->hosts[port].to_guest, out, size) : 0;
		host_sent += n > 0 ? (u64)n : 0;
		n = read(f->hosts[port].from_guest, in, sizeof(in));
		for (ssize_t j = 0; j < n; j++)
			assert_int_equal(in[j], pattern(host_got++));
		while (driver_used(ring, NULL, NULL))
			;
		while (guest_sent < bytes && driver_room(ring) > 1) {
			u32 length = 1 + (u32)((guest_sent * 31 + 5) % KIB(8));
			u64 address = BUFFER(tx_of(port), i % RING_SIZE);
			u8 *to;

			if (length > bytes - guest_sent)
				length = (u32)(bytes - guest_sent);
			to = at(f, address, length + 1);
			for (u32 j = 0; j < length; j++)
				to[j] = pattern(guest_sent + j);
			if (length > 1) { /* in two parts */
				const struct driver_part parts[] = {
					{ address, length / 3 + 1, false },
					{ address + length / 3 + 1, length - length / 3 - 1, false }
				};

				assert_true(driver_add(ring, parts,
						       length / 3 + 1 < length ? 2 : 1) >= 0);
			} else {
				assert_true(lend(f, tx_of(port), address, length, false));
			}
			guest_sent += length;
			i++;
		}
		driver_kick(ring);
		f->text_length = 0;
		guest_takes(f, port);
		for (u32 j = 0; j < f->text_length; j++)
			assert_int_equal((u8)f->text[j], pattern(guest_got++));
	}
}

#endif
