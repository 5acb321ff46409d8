/*
 * The socket device's connections: from the sockets of the host to what the driver is told, and
 * back. On the queues' reactor.
 *
 * A connection has at most two operations in flight on its socket: one waits for it or reads, one
 * writes. What is read goes to one of a few buffers of the device's, from which packets are made;
 * what is to be written lies in the connection's room, but for what is much and is taken at once. A
 * connection that is over stays as long as one of them is in flight, or something is due.
 */
#include "virtio/vsock-internal.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define STRIDE	 (VSOCK_ROOM + VSOCK_MARKS)
#define FULL	 (VSOCK_ROOM / 2) /* a guest is told of so much more credit at once */
#define MUCH	 KIB(4)		  /* is not copied if that can be avoided */
#define RELEASES 64		  /* sockets closed until rings are made to let go of them */
#define TOUCHED	 KIB(16)	  /* of a room that may stay in memory */

/* ---- lists ---- */

void vsock_list_add(struct vsock_conn *conn, enum vsock_list_kind kind)
{
	struct vsock_list *list = &conn->vsock->lists[kind];

	if (conn->listed & BIT(kind))
		return;
	conn->listed |= (u8)BIT(kind);
	conn->next[kind] = NULL;
	if (list->first)
		list->last->next[kind] = conn;
	else
		list->first = conn;
	list->last = conn;
}

struct vsock_conn *vsock_list_take(struct virtio_vsock *vsock, enum vsock_list_kind kind)
{
	struct vsock_list *list = &vsock->lists[kind];
	struct vsock_conn *conn = list->first;

	if (conn) {
		list->first = conn->next[kind];
		conn->listed &= (u8)~BIT(kind);
	}
	return conn;
}

static struct vsock_conn **bucket_of(struct virtio_vsock *vsock, u32 guest_port, u32 host_port)
{
	return &vsock->buckets[(guest_port * 31 + host_port) % VSOCK_BUCKETS];
}

struct vsock_conn *vsock_find(struct virtio_vsock *vsock, u32 guest_port, u32 host_port)
{
	struct vsock_conn *conn = *bucket_of(vsock, guest_port, host_port);

	while (conn && (conn->guest_port != guest_port || conn->host_port != host_port))
		conn = conn->hash_next;
	return conn;
}

void vsock_hash(struct vsock_conn *conn)
{
	struct vsock_conn **bucket = bucket_of(conn->vsock, conn->guest_port, conn->host_port);

	conn->hash_next = *bucket;
	*bucket = conn;
	conn->hashed = true;
}

static void unhash(struct vsock_conn *conn)
{
	struct vsock_conn **link = bucket_of(conn->vsock, conn->guest_port, conn->host_port);

	if (!conn->hashed)
		return;
	while (*link != conn)
		link = &(*link)->hash_next;
	*link = conn->hash_next;
	conn->hashed = false;
}

/* ---- from the first to the last ---- */

static void in_done(struct reactor_op *op, s32 result);
static void out_done(struct reactor_op *op, s32 result);

/* One that waits for nothing but the guest's answer to SHUTDOWN, which may never come: it makes
 * room when all others are in use. */
static struct vsock_conn *spare(const struct virtio_vsock *vsock)
{
	for (u32 i = 0; i < vsock->used_conns; i++) {
		struct vsock_conn *conn = &vsock->conns[(vsock->spare_at + i) % vsock->used_conns];

		if (conn->state == VSOCK_LINGER && conn->fd < 0 && !conn->due && !conn->listed &&
		    !conn->read)
			return conn;
	}
	return NULL;
}

bool vsock_has_room(const struct virtio_vsock *vsock)
{
	return vsock->free || vsock->used_conns < VSOCK_CONNECTIONS || spare(vsock);
}

struct vsock_conn *vsock_begin(struct virtio_vsock *vsock, enum vsock_state state, u16 type)
{
	struct vsock_conn *conn;

	if (!vsock->up || !vsock_has_room(vsock)) {
		counter_add(&vsock->counts.refused, 1);
		return NULL;
	}
	if (!vsock->free && vsock->used_conns == VSOCK_CONNECTIONS) {
		conn = spare(vsock);
		vsock->spare_at = (u32)(conn - vsock->conns) + 1;
		vsock_end(conn, false);
	}
	conn = vsock->free;
	if (conn)
		vsock->free = conn->hash_next;
	else
		conn = &vsock->conns[vsock->used_conns++];
	*conn = (struct vsock_conn){
		.vsock = vsock,
		.state = (u8)state,
		.type = type,
		.fd = -1,
		.need = 1,
		.room = vsock->rooms + STRIDE * (size_t)(conn - vsock->conns),
		.in = { .done = in_done, .offset = (u64)-1 },
		.out = { .done = out_done, .offset = (u64)-1 },
	};
	atomic_fetch_add(&vsock->live, 1);
	return conn;
}

/* The socket is the connection's from here on, or closed. */
bool vsock_adopt(struct vsock_conn *conn, int fd)
{
	struct virtio_vsock *vsock = conn->vsock;
	reactor_file file = reactor_own_file_add(vsock->reactor, fd, false);

	if (file < 0) {
		log_limited(&vsock->lines, 10, "%s: a connection cannot be served: %s",
			    vsock->device.name, strerror(-file));
		close(fd);
		return false;
	}
	conn->fd = fd;
	conn->file = conn->in.file = conn->out.file = file;
	counter_add(&vsock->counts.accepted, 1);
	return true;
}

static void close_socket(struct vsock_conn *conn)
{
	struct virtio_vsock *vsock = conn->vsock;

	reactor_own_file_remove(vsock->reactor, conn->file);
	shutdown(conn->fd, SHUT_RDWR); /* the ring may hold the file a while longer */
	close(conn->fd);
	conn->fd = -1;
	if (++vsock->closed % RELEASES == 0)
		reactor_own_files_release(vsock->reactor);
}

void vsock_settle(struct vsock_conn *conn)
{
	struct virtio_vsock *vsock = conn->vsock;

	if (conn->state == VSOCK_FREE || !conn->closing || conn->in_busy || conn->out_busy)
		return;
	if (conn->fd >= 0)
		close_socket(conn);
	if (!conn->gone || conn->due || conn->listed || conn->dialing || conn->read)
		return;
	if (conn->touched > TOUCHED || conn->type == VIRTIO_VSOCK_TYPE_SEQPACKET)
		madvise(conn->room, STRIDE, MADV_DONTNEED);
	conn->state = VSOCK_FREE;
	conn->hash_next = vsock->free;
	vsock->free = conn;
	vsock_wait_at(vsock, VSOCK_STREAM);
	vsock_wait_at(vsock, VSOCK_SEQPACKET);
	atomic_fetch_sub(&vsock->live, 1);
}

static void cancel_in(struct vsock_conn *conn)
{
	if (!conn->in_busy || conn->in_cancelled)
		return;
	conn->in_cancelled = true;
	reactor_cancel(conn->vsock->reactor, &conn->in);
}

/* Its socket is of no use any more. */
static void close_when_idle(struct vsock_conn *conn)
{
	conn->closing = true;
	cancel_in(conn);
	if (conn->out_busy)
		reactor_cancel(conn->vsock->reactor, &conn->out);
}

void vsock_due(struct vsock_conn *conn, enum vsock_due due)
{
	conn->due |= (u8)due;
	vsock_list_add(conn, VSOCK_LIST_DUE);
	virtio_queue_schedule(conn->vsock->rx);
}

/* The guest knows it no more, or shall not. */
static void leave(struct vsock_conn *conn, bool rst)
{
	conn->gone = true;
	unhash(conn);
	conn->due = 0;
	if (rst)
		vsock_due(conn, VSOCK_DUE_RST);
}

void vsock_end(struct vsock_conn *conn, bool rst)
{
	if (conn->gone)
		return;
	leave(conn, rst);
	close_when_idle(conn);
	vsock_settle(conn);
}

/* ---- out of the guest ---- */

/* What of the room can be written at once: all, or a whole message. */
static u32 writable(const struct vsock_conn *conn)
{
	const u8 *marks = conn->room + VSOCK_ROOM;

	if (conn->type != VIRTIO_VSOCK_TYPE_SEQPACKET)
		return conn->used;
	for (u32 i = 0; i < conn->used; i++) {
		u32 at = (conn->head + i) % VSOCK_ROOM;

		if (marks[at / 8] & BIT(at % 8))
			return i + 1;
		if (at % 8 == 0 && !marks[at / 8])
			i += 7;
	}
	return 0;
}

static void mark(struct vsock_conn *conn, u32 offset)
{
	u32 at = (conn->head + offset) % VSOCK_ROOM;

	conn->room[VSOCK_ROOM + at / 8] ^= (u8)BIT(at % 8);
}

/* The guest learns of credit when there is much more than it knows; or when a message may need it.
 */
static void forward(struct vsock_conn *conn, u32 bytes)
{
	conn->forwarded += bytes;
	if (!conn->gone &&
	    (conn->forwarded - conn->told >= FULL || conn->type == VIRTIO_VSOCK_TYPE_SEQPACKET))
		vsock_due(conn, VSOCK_DUE_CREDIT);
}

/* What the host's end takes at once, straight from the driver's buffers: of a stream any part, of
 * messages a whole one. */
static u32 write_through(const struct vsock_conn *conn, const struct iovec *iov, u32 skip, u32 size,
			 bool ends)
{
	struct iovec parts[CONFIG_VSOCK_QUEUE_SIZE];
	u32 count = 0;
	ssize_t n;

	if (conn->used || conn->out_busy || size < MUCH ||
	    (conn->type == VIRTIO_VSOCK_TYPE_SEQPACKET && !ends))
		return 0;
	for (; size; iov++) {
		u32 length = skip < iov->iov_len ? (u32)iov->iov_len - skip : 0;

		if (length > size)
			length = size;
		if (length)
			parts[count++] = (struct iovec){ (u8 *)iov->iov_base + skip, length };
		skip -= skip < iov->iov_len ? skip : (u32)iov->iov_len;
		size -= length;
	}
	n = writev(conn->fd, parts, (int)count);
	return n > 0 ? (u32)n : 0; /* what went wrong is met again by what goes the other way */
}

void vsock_take(struct vsock_conn *conn, const struct iovec *iov, u32 skip, u32 size, bool ends)
{
	u32 through, at, first, last;

	if (conn->deaf || conn->closing) {
		forward(conn, size);
		return;
	}
	through = write_through(conn, iov, skip, size, ends);
	if (through)
		forward(conn, through);
	if (through == size)
		return;
	skip += through;
	size -= through;
	at = (u32)((conn->head + conn->used) % VSOCK_ROOM);
	first = size < VSOCK_ROOM - at ? size : (u32)VSOCK_ROOM - at;
	last = conn->used + size - 1;
	vsock_copy(iov, skip, conn->room + at, first, false);
	vsock_copy(iov, skip + first, conn->room, size - first, false);
	conn->used += size;
	if (conn->used > conn->touched)
		conn->touched = conn->used;
	if (ends && conn->type == VIRTIO_VSOCK_TYPE_SEQPACKET && size)
		mark(conn, last);
	vsock_list_add(conn, VSOCK_LIST_DIRTY);
}

static void write_out(struct vsock_conn *conn)
{
	struct reactor_op *op = &conn->out;
	u32 n = conn->out_busy || conn->closing || conn->deaf ? 0 : writable(conn), first;

	if (!n)
		return;
	first = n < VSOCK_ROOM - conn->head ? n : (u32)VSOCK_ROOM - conn->head;
	conn->iov[0] = (struct iovec){ conn->room + conn->head, first };
	conn->iov[1] = (struct iovec){ conn->room, n - first };
	op->code = REACTOR_WRITEV;
	op->flags = 0;
	op->nonblocking = true;
	op->iov = conn->iov;
	op->iov_count = n > first ? 2 : 1;
	conn->out_busy = true;
	reactor_submit(conn->vsock->reactor, op);
}

void vsock_write_all(struct virtio_vsock *vsock)
{
	struct vsock_conn *conn;

	while ((conn = vsock_list_take(vsock, VSOCK_LIST_DIRTY))) {
		write_out(conn);
		vsock_settle(conn);
	}
}

/* Both sides may be through. What the host's end has not taken by now it will not. */
static void finish(struct vsock_conn *conn)
{
	if (conn->gone || conn->state != VSOCK_OPEN)
		return;
	if (conn->host_shut & VIRTIO_VSOCK_SHUTDOWN_SEND &&
	    conn->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND && !conn->out_busy && !writable(conn))
		conn->host_shut = VSOCK_BOTH;
	if (conn->host_shut != VSOCK_BOTH)
		return;
	conn->state = VSOCK_LINGER;
	vsock_due(conn, VSOCK_DUE_SHUTDOWN);
	close_when_idle(conn);
	vsock_settle(conn);
}

/* The host's end will do these things no more. */
static void host_shut(struct vsock_conn *conn, u8 flags)
{
	conn->host_shut |= flags;
	vsock_due(conn, VSOCK_DUE_SHUTDOWN);
	finish(conn);
}

/* All that the guest has sent may be written. */
static void drained(struct vsock_conn *conn)
{
	if (conn->out_busy || writable(conn))
		return;
	if (conn->gone) {
		close_when_idle(conn);
	} else if (conn->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND && !conn->told_end) {
		conn->told_end = true;
		shutdown(conn->fd, SHUT_WR);
		finish(conn);
	}
	vsock_settle(conn);
}

static void written(struct vsock_conn *conn, u32 n)
{
	if (conn->type == VIRTIO_VSOCK_TYPE_SEQPACKET)
		mark(conn, n - 1);
	conn->used -= n;
	/* the same few pages, as long as they do */
	conn->head = conn->used ? (u32)((conn->head + n) % VSOCK_ROOM) : 0;
	forward(conn, n);
	write_out(conn);
	drained(conn);
}

static void out_done(struct reactor_op *op, s32 result)
{
	struct vsock_conn *conn = container_of(op, struct vsock_conn, out);

	conn->out_busy = false;
	if (conn->closing) {
		vsock_settle(conn);
	} else if (op->code == REACTOR_POLL || result == -EINTR || result == -ECANCELED) {
		write_out(conn);
	} else if (result > 0) {
		written(conn, (u32)result);
	} else if (result == -EAGAIN) {
		op->code = REACTOR_POLL;
		op->flags = POLLOUT;
		op->nonblocking = false;
		conn->out_busy = true;
		reactor_submit(conn->vsock->reactor, op);
	} else { /* nobody reads; what was written for the guest is still read */
		conn->deaf = true;
		forward(conn, conn->used);
		conn->used = 0;
		if (!conn->gone)
			host_shut(conn, VIRTIO_VSOCK_SHUTDOWN_RCV);
		drained(conn);
	}
}

void vsock_guest_shut(struct vsock_conn *conn, u32 flags)
{
	bool rest = conn->state == VSOCK_OPEN && !conn->deaf && (conn->out_busy || writable(conn));

	flags &= ~(u32)conn->guest_shut;
	conn->guest_shut |= (u8)flags;
	if (conn->guest_shut == VSOCK_BOTH) {
		leave(conn, true);
		if (!rest)
			close_when_idle(conn);
		vsock_settle(conn);
	} else if (conn->state == VSOCK_OPEN && !conn->closing) {
		if (flags & VIRTIO_VSOCK_SHUTDOWN_RCV)
			shutdown(conn->fd, SHUT_RD);
		drained(conn);
	}
}

/* ---- into the guest ---- */

static bool may_read(const struct vsock_conn *conn)
{
	return conn->state == VSOCK_OPEN && !(conn->host_shut & VIRTIO_VSOCK_SHUTDOWN_SEND) &&
	       !(conn->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV);
}

/* What to wait for; 0: nothing. */
static u32 wanted(const struct vsock_conn *conn)
{
	if (conn->gone || conn->closing || conn->fd < 0 || conn->read ||
	    conn->listed & BIT(VSOCK_LIST_READY))
		return 0;
	if (conn->state == VSOCK_GREETING)
		return POLLIN | POLLRDHUP;
	/* POLLRDHUP is told by io_uring whether it is asked for or not, so behind it there is
	 * nothing to be waited for: that a socket is closed in the other direction too, the next
	 * write tells. */
	if (conn->state == VSOCK_REQUESTED)
		return conn->events & POLLRDHUP ? 0 : POLLHUP | POLLERR;
	return may_read(conn) && vsock_credit(conn) >= conn->need ? POLLIN | POLLRDHUP : 0;
}

void vsock_watch(struct vsock_conn *conn)
{
	struct reactor_op *op = &conn->in;
	u32 events = wanted(conn);

	if (conn->in_busy) {
		if (op->code == REACTOR_POLL && op->flags != events)
			cancel_in(conn);
		return;
	}
	if (!events)
		return;
	op->code = REACTOR_POLL;
	op->flags = events;
	op->nonblocking = false;
	conn->in_busy = true;
	reactor_submit(conn->vsock->reactor, op);
}

static void read_again(struct vsock_conn *conn)
{
	vsock_list_add(conn, VSOCK_LIST_READY);
	virtio_queue_schedule(conn->vsock->rx);
}

void vsock_read_free(struct vsock_read *read)
{
	struct vsock_conn *conn = read->conn;
	struct virtio_vsock *vsock = conn->vsock;
	/* there may be more where all was taken that could be */
	bool more = !conn->gone && may_read(conn) && conn->state == VSOCK_OPEN &&
		    (read->at == read->iov.iov_len || conn->type == VIRTIO_VSOCK_TYPE_SEQPACKET);

	read->next = vsock->reads_free;
	vsock->reads_free = read;
	conn->read = NULL;
	if (more && read->at)
		vsock_list_add(conn, VSOCK_LIST_READY);
	vsock_watch(conn);
	vsock_settle(conn);
}

/* Nothing more comes from the host's end. */
static void ended(struct vsock_conn *conn, bool wholly)
{
	host_shut(conn, wholly ? VSOCK_BOTH : VIRTIO_VSOCK_SHUTDOWN_SEND);
	vsock_watch(conn);
}

/* How much to read: a message, as long as it is. 0: not now, or never. */
static u32 next_read(struct vsock_conn *conn)
{
	u32 credit = vsock_credit(conn);
	ssize_t n;
	u8 byte;

	if (conn->type != VIRTIO_VSOCK_TYPE_SEQPACKET)
		return credit < VSOCK_READ ? credit : (u32)VSOCK_READ;
	n = recv(conn->fd, &byte, 1, MSG_PEEK | MSG_TRUNC);
	conn->need = 1;
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		ended(conn, true);
	} else if (n > (ssize_t)VSOCK_MESSAGE || n > (ssize_t)conn->peer_alloc) {
		log_limited(&conn->vsock->lines, 10,
			    "%s: a message of %zd bytes to port %u is more than the guest takes; "
			    "its connection ends",
			    conn->vsock->device.name, n, conn->guest_port);
		vsock_end(conn, true);
	} else if (n > (ssize_t)credit) {
		conn->need = (u32)n;
	} else if (n >= 0) {
		return n ? (u32)n : 1;
	}
	return 0;
}

static void read_in(struct vsock_conn *conn)
{
	struct virtio_vsock *vsock = conn->vsock;
	struct vsock_read *read = vsock->reads_free;
	u32 size = conn->gone || conn->closing || conn->in_busy || !may_read(conn)
			   ? 0
			   : next_read(conn);

	if (!size) {
		vsock_watch(conn);
		vsock_settle(conn);
		return;
	}
	vsock->reads_free = read->next;
	read->conn = conn;
	read->at = read->length = 0;
	read->iov = (struct iovec){ read->bytes, size };
	conn->read = read;
	conn->in.code = REACTOR_READV;
	conn->in.flags = 0;
	conn->in.nonblocking = true;
	conn->in.iov = &read->iov;
	conn->in.iov_count = 1;
	conn->in_busy = true;
	reactor_submit(vsock->reactor, &conn->in);
}

void vsock_read_all(struct virtio_vsock *vsock)
{
	struct vsock_conn *conn;

	while (vsock->reads_free && (conn = vsock_list_take(vsock, VSOCK_LIST_READY)))
		read_in(conn);
}

static void was_read(struct vsock_conn *conn, s32 result)
{
	struct virtio_vsock *vsock = conn->vsock;
	struct vsock_read *read = conn->read;
	bool over = conn->events & (POLLRDHUP | POLLHUP | POLLERR) ||
		    conn->type == VIRTIO_VSOCK_TYPE_STREAM;

	if (result > 0 && vsock->up) {
		read->length = (u32)result;
		read->next = NULL;
		*vsock->filled_end = read;
		vsock->filled_end = &read->next;
		virtio_queue_schedule(vsock->rx);
		return;
	}
	conn->events &= POLLHUP;
	vsock_read_free(read);
	virtio_queue_schedule(vsock->rx); /* another may have waited for it */
	if (!conn->gone && !conn->closing && result != -EAGAIN && result != -EINTR &&
	    result != -ECANCELED && (over || result))
		ended(conn, result || conn->events);
}

static void in_done(struct reactor_op *op, s32 result)
{
	struct vsock_conn *conn = container_of(op, struct vsock_conn, in);

	conn->in_busy = conn->in_cancelled = false;
	if (op->code == REACTOR_READV) {
		was_read(conn, result);
	} else if (conn->closing || conn->gone) {
		vsock_settle(conn);
	} else if (result == -ECANCELED || result == -EINTR) {
		vsock_watch(conn);
	} else if (result < 0 || (conn->state == VSOCK_REQUESTED && result & (POLLHUP | POLLERR))) {
		vsock_end(conn, conn->state != VSOCK_GREETING); /* it has hung up */
	} else if (!(op->flags & POLLIN)) {
		conn->events = (u32)result;
		vsock_watch(conn);
	} else if (conn->state == VSOCK_GREETING) {
		vsock_greet(conn);
	} else {
		conn->events = (u32)result;
		read_again(conn);
	}
}

void vsock_end_all(struct virtio_vsock *vsock)
{
	struct vsock_read *read;

	vsock->up = false;
	vsock_close_doors(vsock);
	vsock->reset_count = 0;
	memset(vsock->lists, 0, sizeof(vsock->lists));
	while ((read = vsock->filled)) {
		vsock->filled = read->next;
		read->next = vsock->reads_free;
		vsock->reads_free = read;
		read->conn->read = NULL;
	}
	vsock->filled_end = &vsock->filled;
	for (u32 i = 0; i < vsock->used_conns; i++) {
		struct vsock_conn *conn = &vsock->conns[i];

		if (conn->state == VSOCK_FREE)
			continue;
		conn->listed = 0;
		conn->due = 0;
		vsock_end(conn, false);
		/* what the guest had closed is written to its end, unless the device goes */
		if (vsock->stopping)
			close_when_idle(conn);
		else
			write_out(conn);
		vsock_settle(conn);
	}
}

/* ---- making ---- */

int vsock_conns_create(struct virtio_vsock *vsock)
{
	vsock->conns = virtio_room(VSOCK_CONNECTIONS * sizeof(*vsock->conns));
	vsock->rooms = virtio_room(VSOCK_CONNECTIONS * STRIDE);
	vsock->read_rooms = virtio_room(VSOCK_READS * VSOCK_MESSAGE);
	vsock->next_port = VSOCK_PORT_FIRST;
	vsock->filled_end = &vsock->filled;
	for (u32 i = 0; i < VSOCK_READS && vsock->read_rooms; i++) {
		struct vsock_read *read = &vsock->reads[i];

		read->bytes = vsock->read_rooms + i * VSOCK_MESSAGE;
		read->next = vsock->reads_free;
		vsock->reads_free = read;
	}
	return vsock->conns && vsock->rooms && vsock->read_rooms ? 0 : -ENOMEM;
}

void vsock_conns_destroy(struct virtio_vsock *vsock)
{
	for (u32 i = 0; i < vsock->used_conns; i++)
		if (vsock->conns[i].state != VSOCK_FREE && vsock->conns[i].fd >= 0)
			close(vsock->conns[i].fd);
	virtio_room_free(vsock->read_rooms, VSOCK_READS * VSOCK_MESSAGE);
	virtio_room_free(vsock->rooms, VSOCK_CONNECTIONS * STRIDE);
	virtio_room_free(vsock->conns, VSOCK_CONNECTIONS * sizeof(*vsock->conns));
}
