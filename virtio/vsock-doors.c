/*
 * The doors of the socket device: how connections begin, by clients of the host's at its sockets
 * and by the guest through the process that connects. On the queues' reactor.
 */
#include "virtio/vsock-internal.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- clients of the host's ---- */

static void request(struct vsock_conn *conn, u32 port)
{
	struct virtio_vsock *vsock = conn->vsock;

	conn->guest_port = port;
	do {
		conn->host_port = vsock->next_port;
		vsock->next_port =
			conn->host_port < VSOCK_PORT_LAST ? conn->host_port + 1 : VSOCK_PORT_FIRST;
	} while (vsock_find(vsock, port, conn->host_port));
	vsock_hash(conn);
	conn->state = VSOCK_REQUESTED;
	vsock_due(conn, VSOCK_DUE_REQUEST);
	vsock_watch(conn);
}

/* The line, without taking a byte of what follows it. */
void vsock_greet(struct vsock_conn *conn)
{
	bool stream = conn->type == VIRTIO_VSOCK_TYPE_STREAM;
	char *at, *end;
	ssize_t n = 1;
	u64 port;

	while (n > 0 && conn->line_length < sizeof(conn->line) - 1) {
		at = &conn->line[conn->line_length];
		n = read(conn->fd, at, stream ? 1 : sizeof(conn->line) - 1);
		conn->line_length = (u8)(conn->line_length + (n > 0 ? n : 0));
		if (n > 0 && (!stream || *at == '\n'))
			break;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		vsock_watch(conn);
		return;
	}
	conn->line[conn->line_length] = 0;
	at = conn->line + sizeof("CONNECT ") - 1;
	port = strtoull(at, &end, 10);
	if (n <= 0 || strncmp(conn->line, "CONNECT ", sizeof("CONNECT ") - 1) || *at < '0' ||
	    *at > '9' || (*end != '\n' && (stream || *end)) || port >= UINT32_MAX)
		vsock_end(conn, false);
	else
		request(conn, (u32)port);
}

void vsock_accepted(struct vsock_conn *conn)
{
	char line[sizeof("OK 4294967295\n")];
	int n = snprintf(line, sizeof(line), "OK %u\n", conn->host_port);

	conn->state = VSOCK_OPEN;
	if (write(conn->fd, line, (size_t)n) != n)
		vsock_end(conn, true);
}

static void take_clients(struct virtio_vsock *vsock, enum vsock_door door)
{
	int fd = -EAGAIN;

	while (vsock_has_room(vsock) && (fd = vsock_host_accept(vsock->host, door)) >= 0) {
		struct vsock_conn *conn =
			vsock_begin(vsock, VSOCK_GREETING,
				    door == VSOCK_STREAM ? VIRTIO_VSOCK_TYPE_STREAM
							 : VIRTIO_VSOCK_TYPE_SEQPACKET);

		if (vsock_adopt(conn, fd))
			vsock_watch(conn);
		else
			vsock_end(conn, false);
	}
	if (fd == -EMFILE || fd == -ENFILE || fd == -ENOMEM)
		/* until a connection ends */
		log_limited(&vsock->lines, 10,
			    "%s: a client cannot be taken: %s; allow more open "
			    "files (ulimit -n)",
			    vsock->device.name, strerror(-fd));
	else
		vsock_wait_at(vsock, door);
}

/* ---- the guest's wishes ---- */

static void ask(struct vsock_conn *conn)
{
	struct virtio_vsock *vsock = conn->vsock;
	int error = vsock_host_call(vsock->host, (u32)(conn - vsock->conns), conn->host_port,
				    conn->type == VIRTIO_VSOCK_TYPE_SEQPACKET ? VSOCK_SEQPACKET
									      : VSOCK_STREAM);

	conn->dialing = !error;
	if (error == -EAGAIN)
		vsock_list_add(conn, VSOCK_LIST_DIAL);
	else if (error)
		vsock_end(conn, true);
}

bool vsock_dial(struct virtio_vsock *vsock, const struct virtio_vsock_hdr *header)
{
	struct vsock_conn *conn = vsock_begin(vsock, VSOCK_DIALING, le16toh(header->type));

	if (!conn)
		return false;
	conn->guest_port = le32toh(header->src_port);
	conn->host_port = le32toh(header->dst_port);
	conn->peer_alloc = le32toh(header->buf_alloc);
	conn->peer_forwarded = le32toh(header->fwd_cnt);
	vsock_hash(conn);
	ask(conn);
	return true;
}

static void answer(struct vsock_conn *conn, int fd)
{
	conn->dialing = false;
	if (conn->gone) {
		if (fd >= 0)
			close(fd);
		vsock_settle(conn);
	} else if (fd < 0 || !vsock_adopt(conn, fd)) {
		vsock_end(conn, true);
	} else {
		conn->state = VSOCK_OPEN;
		vsock_due(conn, VSOCK_DUE_RESPONSE);
		vsock_watch(conn);
	}
}

static void take_answers(struct virtio_vsock *vsock)
{
	struct vsock_conn *conn;
	int got, fd = -1;
	u32 id = 0;

	while ((got = vsock_host_answer(vsock->host, &id, &fd)) > 0)
		answer(&vsock->conns[id], fd);
	if (got < 0) {
		log_line("%s: the process that connects for the guest has ended; what the guest "
			 "connects to is refused until the machine is started anew",
			 vsock->device.name);
		for (u32 i = 0; i < vsock->used_conns; i++)
			if (vsock->conns[i].dialing)
				answer(&vsock->conns[i], -EPIPE);
	} else {
		vsock_wait_at(vsock, VSOCK_CALLER);
	}
	do {
		conn = vsock_list_take(vsock, VSOCK_LIST_DIAL);
		if (conn && !conn->gone)
			ask(conn);
		if (conn)
			vsock_settle(conn);
	} while (conn && !(conn->listed & BIT(VSOCK_LIST_DIAL)));
}

/* ---- doors ---- */

static void door_done(struct reactor_op *op, s32 result)
{
	struct vsock_wait *wait = container_of(op, struct vsock_wait, op);
	struct virtio_vsock *vsock = wait->vsock;
	enum vsock_door door = (enum vsock_door)(wait - vsock->doors);

	wait->busy = false;
	if (vsock->stopping)
		;
	else if (result == -ECANCELED || result == -EINTR)
		vsock_wait_at(vsock, door);
	else if (door == VSOCK_CALLER)
		take_answers(vsock);
	else if (vsock->up)
		take_clients(vsock, door);
	atomic_fetch_sub(&vsock->live, 1);
}

void vsock_wait_at(struct virtio_vsock *vsock, enum vsock_door door)
{
	struct vsock_wait *wait = &vsock->doors[door];

	if (wait->busy || vsock->stopping ||
	    (door != VSOCK_CALLER && (!vsock->up || !vsock_has_room(vsock))))
		return;
	wait->vsock = vsock;
	wait->op.done = door_done;
	wait->op.code = REACTOR_POLL;
	wait->op.file = vsock->host->files[door];
	wait->op.flags = POLLIN;
	wait->busy = true;
	atomic_fetch_add(&vsock->live, 1);
	reactor_submit(vsock->reactor, &wait->op);
}

void vsock_open_doors(struct virtio_vsock *vsock)
{
	vsock->up = true;
	virtio_queue_schedule(vsock->rx);
	virtio_queue_schedule(vsock->tx);
	for (u32 door = 0; door < VSOCK_DOORS; door++)
		vsock_wait_at(vsock, (enum vsock_door)door);
}

void vsock_close_doors(struct virtio_vsock *vsock)
{
	for (u32 door = 0; door < VSOCK_DOORS; door++)
		if (vsock->doors[door].busy && (door != VSOCK_CALLER || vsock->stopping))
			reactor_cancel(vsock->reactor, &vsock->doors[door].op);
}
