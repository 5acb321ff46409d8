/* A socket device over Unix sockets, a driver for it, and programs of the host: for unit/vsock.c.
 */
#ifndef TESTS_UNIT_VSOCK_FIXTURE_H
#define TESTS_UNIT_VSOCK_FIXTURE_H

#include "tests/unit/driver.h"
#include <fcntl.h>
#include <linux/virtio_vsock.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "virtio/vsock.h"

#define RAM	   MIB(16)
#define RING_SIZE  256
#define RX	   0
#define TX	   1
#define EVENTS	   2
#define HEADER	   44u
#define RX_BYTES   4096u
#define CID	   42
#define CREDIT	   KIB(256) /* that the device gives */
#define RINGS(n)   (0x10000ull * (1 + (u64)(n)))
#define RX_AT(i)   (MIB(1) + KIB(8) * (u64)(i))
#define TX_AT(i)   (MIB(4) + KIB(16) * (u64)(i))
#define SEQPACKET  BIT64(VIRTIO_VSOCK_F_SEQPACKET)
#define STREAM	   VIRTIO_VSOCK_TYPE_STREAM
#define SEQ	   VIRTIO_VSOCK_TYPE_SEQPACKET
#define OP(name)   VIRTIO_VSOCK_OP_##name
#define SHUT(name) VIRTIO_VSOCK_SHUTDOWN_##name

struct fixture {
	struct driver_machine machine;
	struct vsock_host host;
	struct virtio_vsock *vsock;
	struct virtio_device *device;
	struct driver_ring rings[3];
	u64 at[DRIVER_RING_MAX]; /* where a head's receive buffer is */
	char folder[32], path[64];
	u32 alloc, forwarded; /* what packets say of the guest's credit */
	u32 turn;
	/* the packet told last */
	struct virtio_vsock_hdr told;
	u8 data[RX_BYTES];
};

static inline void clean(struct fixture *f)
{
	char command[64];

	snprintf(command, sizeof(command), "rm -rf %.32s", f->folder);
	assert_int_equal(system(command), 0);
}

static const bool on_uring, on_epoll = true;

static inline struct fixture *vsock_up(void **state)
{
	static struct fixture fixture;
	struct fixture *f = &fixture;
	struct virtio_vsock_options options = { .name = "vsock",
						.cid = CID,
						.features = VIRTIO_OPTIONAL };

	signal(SIGPIPE, SIG_IGN);
	memset(f, 0, sizeof(*f));
	strcpy(f->folder, "/tmp/vsock-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->path, sizeof(f->path), "%.32s/v", f->folder);
	assert_int_equal(vsock_host_open(&f->host, f->path, false), 0);
	driver_max_files = 2048;
	driver_machine_up(&f->machine, RAM, 1, **(const bool **)state);
	assert_int_equal(vsock_host_register(&f->host, f->machine.reactors), 0);
	options.memory = &f->machine.memory;
	options.reactors = f->machine.reactors;
	options.host = &f->host;
	assert_int_equal(virtio_vsock_create(&f->vsock, &options), 0);
	f->device = virtio_vsock_device(f->vsock);
	driver_machine_go(&f->machine);
	f->alloc = MIB(1);
	*state = f;
	return f;
}

static inline int vsock_down(void **state)
{
	struct fixture *f = *state;

	virtio_device_power_on(f->device);
	virtio_device_detach(f->device);
	driver_machine_stop(&f->machine);
	virtio_vsock_destroy(f->vsock);
	vsock_host_close(&f->host);
	driver_machine_down(&f->machine);
	clean(f);
	return 0;
}

static inline int vsock_uring(void **state)
{
	*state = (void *)(uintptr_t)&on_uring;
	return 0;
}

static inline int vsock_epoll(void **state)
{
	*state = (void *)(uintptr_t)&on_epoll;
	return 0;
}

#define vsock_test(name)                                                \
	cmocka_unit_test_setup_teardown(name, vsock_uring, vsock_down), \
		cmocka_unit_test_setup_teardown(name, vsock_epoll, vsock_down)

/* ---- the driver ---- */

static inline u8 *at(struct fixture *f, u64 address, u64 size)
{
	u8 *bytes = memory_at(&f->machine.memory, address, size);

	assert_non_null(bytes);
	return bytes;
}

static inline void lend(struct fixture *f, u64 address, u32 size)
{
	/* a header on its own, as older drivers have it, every other time */
	const struct driver_part parts[] = { { address, HEADER, true },
					     { address + HEADER, size - HEADER, true } };
	const struct driver_part whole = { address, size, true };
	bool split = f->turn++ & 1 && size > HEADER && driver_room(&f->rings[RX]) > RING_SIZE / 2;
	int head = driver_add(&f->rings[RX], split ? parts : &whole, split ? 2 : 1);

	assert_true(head >= 0);
	f->at[head] = address;
}

static inline void fill(struct fixture *f, u32 count)
{
	for (u32 i = 0; i < count; i++)
		lend(f, RX_AT(i), RX_BYTES);
	driver_kick(&f->rings[RX]);
}

/* A driver that gives so many receive buffers, RING_SIZE / 2 at most. */
static inline void begin(struct fixture *f, u64 features, u32 buffers)
{
	assert_true(driver_negotiate(f->device, features));
	for (u16 i = 0; i < 3; i++) {
		driver_ring_init(&f->rings[i], &f->machine.memory, RINGS(i), RING_SIZE, false);
		driver_queue(f->device, i, &f->rings[i]);
	}
	driver_ok(f->device);
	fill(f, buffers);
}

/* The next packet is the driver's to see, if there is one: in f->told, f->data. */
static inline bool look(struct fixture *f)
{
	u32 head, written, size;

	if (!driver_used(&f->rings[RX], &head, &written))
		return false;
	memcpy(&f->told, at(f, f->at[head], HEADER), HEADER);
	size = le32toh(f->told.len);
	assert_int_equal(written, HEADER + size);
	memcpy(f->data, at(f, f->at[head] + HEADER, size + 1), size);
	lend(f, f->at[head], RX_BYTES);
	driver_kick(&f->rings[RX]);
	return true;
}

/* The next packet that is no news of credit: this one; its payload's bytes. */
static inline u32 told(struct fixture *f, u16 op, u32 guest_port, u32 host_port)
{
	do
		driver_wait(look(f));
	while (le16toh(f->told.op) == OP(CREDIT_UPDATE) && op != OP(CREDIT_UPDATE));
	assert_int_equal(le16toh(f->told.op), op);
	assert_int_equal(le32toh(f->told.dst_port), guest_port);
	if (host_port)
		assert_int_equal(le32toh(f->told.src_port), host_port);
	return le32toh(f->told.len);
}

/* The reactor has been through everything, and has told nothing but perhaps of credit. */
static inline void told_nothing(struct fixture *f)
{
	reactors_settle(f->machine.reactors);
	while (look(f))
		assert_int_equal(le16toh(f->told.op), OP(CREDIT_UPDATE));
}

static inline struct virtio_vsock_hdr header(struct fixture *f, u16 op, u32 guest_port,
					     u32 host_port)
{
	return (struct virtio_vsock_hdr){
		.src_cid = htole64(CID),
		.dst_cid = htole64(2),
		.src_port = htole32(guest_port),
		.dst_port = htole32(host_port),
		.type = htole16(STREAM),
		.op = htole16(op),
		.buf_alloc = htole32(f->alloc),
		.fwd_cnt = htole32(f->forwarded),
	};
}

/* A packet as it is, with so many bytes behind it; not waited for. */
static inline void post(struct fixture *f, const struct virtio_vsock_hdr *h, const void *bytes,
			u32 size)
{
	static u32 i;
	u64 address = TX_AT(i++ % RING_SIZE);
	struct driver_ring *ring = &f->rings[TX];
	const struct driver_part parts[] = { { address, 20, false },
					     { address + 20, HEADER - 20 + size, false } };

	assert_true(size <= KIB(15));
	while (driver_used(ring, NULL, NULL))
		;
	driver_wait(driver_used(ring, NULL, NULL) || driver_room(ring) >= 2);
	memcpy(at(f, address, HEADER), h, HEADER);
	memcpy(at(f, address + HEADER, size + 1), bytes ? bytes : "", size);
	assert_true(driver_add(ring, parts, 2) >= 0);
	driver_kick(ring);
}

static inline void says(struct fixture *f, u16 op, u32 guest_port, u32 host_port, u32 flags)
{
	struct virtio_vsock_hdr h = header(f, op, guest_port, host_port);

	h.flags = htole32(flags);
	post(f, &h, NULL, 0);
}

static inline void sends(struct fixture *f, u32 guest_port, u32 host_port, const void *bytes,
			 u32 size)
{
	struct virtio_vsock_hdr h = header(f, OP(RW), guest_port, host_port);

	h.len = htole32(size);
	post(f, &h, bytes, size);
}

/* A piece of a message. */
static inline void sends_piece(struct fixture *f, u32 guest_port, u32 host_port, const void *bytes,
			       u32 size, u32 flags)
{
	struct virtio_vsock_hdr h = header(f, OP(RW), guest_port, host_port);

	h.type = htole16(SEQ);
	h.len = htole32(size);
	h.flags = htole32(flags);
	post(f, &h, bytes, size);
}

static inline void gets(struct fixture *f, u32 guest_port, u32 host_port, const char *text)
{
	u32 size = told(f, OP(RW), guest_port, host_port);

	assert_int_equal(le64toh(f->told.dst_cid), CID);
	assert_int_equal(size, strlen(text));
	assert_memory_equal(f->data, text, size);
}

/* ---- the host ---- */

static inline struct sockaddr_un address_of(struct fixture *f, u32 port, const char *suffix)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (port)
		snprintf(address.sun_path, sizeof(address.sun_path), "%s_%u", f->path, port);
	else
		snprintf(address.sun_path, sizeof(address.sun_path), "%s%s", f->path, suffix);
	return address;
}

static inline int listens(struct fixture *f, u32 port, int type, int backlog)
{
	struct sockaddr_un address = address_of(f, port, "");
	int fd = socket(AF_UNIX, type, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fd, backlog), 0);
	return fd;
}

static inline int accepts(int listener)
{
	struct pollfd fd = { .fd = listener, .events = POLLIN };

	assert_int_equal(poll(&fd, 1, DRIVER_PATIENCE_MS), 1);
	return accept(listener, NULL, NULL);
}

static inline int comes(struct fixture *f, int type)
{
	struct sockaddr_un address = address_of(f, 0, type == SOCK_STREAM ? "" : ".seq");
	int fd = socket(AF_UNIX, type, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static inline void host_sends(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), 0), strlen(text));
}

static inline size_t host_takes(int fd, void *to, size_t size)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	ssize_t n;

	assert_int_equal(poll(&p, 1, DRIVER_PATIENCE_MS), 1);
	n = recv(fd, to, size, 0);
	return n > 0 ? (size_t)n : 0;
}

static inline void host_gets(int fd, const char *text)
{
	char got[256];
	size_t length = 0, n;

	while (length < strlen(text)) {
		n = host_takes(fd, got + length, strlen(text) - length);
		assert_true(n > 0);
		length += n;
	}
	assert_memory_equal(got, text, length);
}

static inline void host_sees_end(int fd)
{
	char byte;

	assert_int_equal(host_takes(fd, &byte, 1), 0);
}

/* ---- connections ---- */

/* By the guest to a socket that listens; the host's end. */
static inline int dials(struct fixture *f, u32 guest_port, u32 host_port, int listener)
{
	says(f, OP(REQUEST), guest_port, host_port, 0);
	assert_int_equal(told(f, OP(RESPONSE), guest_port, host_port), 0);
	return accepts(listener);
}

/* By the host; *host_port gets what the device chose. */
static inline int calls(struct fixture *f, u32 guest_port, u32 *host_port)
{
	char line[32];
	int fd = comes(f, SOCK_STREAM);

	snprintf(line, sizeof(line), "CONNECT %u\n", guest_port);
	host_sends(fd, line);
	told(f, OP(REQUEST), guest_port, 0);
	*host_port = le32toh(f->told.src_port);
	says(f, OP(RESPONSE), guest_port, *host_port, 0);
	snprintf(line, sizeof(line), "OK %u\n", *host_port);
	host_gets(fd, line);
	return fd;
}

static inline u8 pattern(u64 i)
{
	return (u8)(i * 31 + (i >> 8) * 7 + (i >> 16));
}

#endif
