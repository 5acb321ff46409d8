/*
 * The socket device's packets (virtio 1.3, 5.10.6): what the driver sends, checked, and what it is
 * told. Of the latter nothing is kept but a bit for each kind and connection, what 16 reads have
 * brought, and 256 resets to packets that belong to nothing, behind which the driver has to take
 * some before more of its own are looked at (5.10.6.1). On the queues' reactor.
 */
#include "virtio/vsock-internal.h"

#include "virtio/strict.h"

void vsock_copy(const struct iovec *iov, u32 skip, void *bytes, u32 size, bool into)
{
	for (u8 *at = bytes; size; iov++) {
		size_t n = skip < iov->iov_len ? iov->iov_len - skip : 0;
		u8 *there = (u8 *)iov->iov_base + skip;

		skip -= skip < iov->iov_len ? skip : (u32)iov->iov_len;
		n = n < size ? n : size;
		memcpy(into ? there : at, into ? at : there, n);
		at += n;
		size -= (u32)n;
	}
}

/* ---- to the driver ---- */

/* The header, and what its buffer has room for of size bytes; how much that is, or -1: there is no
 * buffer. */
static s64 put(struct virtio_vsock *vsock, struct virtio_vsock_hdr *header, const u8 *bytes,
	       u32 size)
{
	struct vq_buffer buffer;
	const struct iovec *iov;
	u32 room;

	if (virtio_queue_pop(vsock->rx, &buffer, vsock->iov, CONFIG_VSOCK_QUEUE_SIZE) != 1)
		return -1;
	if (buffer.writable_bytes <= VSOCK_HEADER) {
		virtio_device_broken(&vsock->device, "a buffer has no room for a packet");
		virtio_queue_unpop(vsock->rx, 1);
		return -1;
	}
	room = buffer.writable_bytes - VSOCK_HEADER;
	iov = buffer.iov + buffer.readable;
	if (size <= room && bytes && le16toh(header->type) == VIRTIO_VSOCK_TYPE_SEQPACKET)
		header->flags = htole32(VIRTIO_VSOCK_SEQ_EOM);
	size = size < room ? size : room;
	header->len = htole32(size);
	vsock_copy(iov, 0, header, VSOCK_HEADER, true);
	vsock_copy(iov, VSOCK_HEADER, (void *)bytes, size, true);
	virtio_queue_push(vsock->rx, buffer.head, VSOCK_HEADER + size);
	return size;
}

static s64 send(struct vsock_conn *conn, u16 op, u32 flags, const u8 *bytes, u32 size)
{
	struct virtio_vsock *vsock = conn->vsock;
	struct virtio_vsock_hdr header = {
		.src_cid = htole64(VSOCK_HOST_CID),
		.dst_cid = htole64(vsock->cid),
		.src_port = htole32(conn->host_port),
		.dst_port = htole32(conn->guest_port),
		.type = htole16(conn->type),
		.op = htole16(op),
		.flags = htole32(flags),
		.buf_alloc = htole32(VSOCK_ROOM),
		.fwd_cnt = htole32(conn->forwarded),
	};
	s64 n = put(vsock, &header, bytes, size);

	if (n >= 0)
		conn->told = conn->forwarded;
	return n;
}

/* The first thing that is due of the connection. False: there is no buffer. */
static bool send_due(struct vsock_conn *conn)
{
	static const u16 ops[] = { VIRTIO_VSOCK_OP_REQUEST, VIRTIO_VSOCK_OP_RESPONSE,
				   VIRTIO_VSOCK_OP_CREDIT_UPDATE, VIRTIO_VSOCK_OP_SHUTDOWN,
				   VIRTIO_VSOCK_OP_RST };
	u32 kind = (u32)__builtin_ctz(conn->due);
	u32 flags = BIT(kind) == VSOCK_DUE_SHUTDOWN ? conn->host_shut : 0;

	if (send(conn, ops[kind], flags, NULL, 0) < 0)
		return false;
	conn->due &= (u8)~BIT(kind);
	return true;
}

static bool send_reset(struct virtio_vsock *vsock)
{
	struct vsock_reset *reset = &vsock->resets[vsock->reset_first];

	if (put(vsock, &reset->header, NULL, 0) < 0)
		return false;
	vsock->reset_first = (vsock->reset_first + 1) % VSOCK_RESETS;
	if (vsock->reset_count-- == VSOCK_RESETS)
		virtio_queue_schedule(vsock->tx);
	return true;
}

/* Of what was read first. */
static bool send_read(struct virtio_vsock *vsock)
{
	struct vsock_read *read = vsock->filled;
	struct vsock_conn *conn = read->conn;
	s64 n;

	if (conn->gone || conn->state != VSOCK_OPEN ||
	    conn->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV) {
		read->length = 0;
	} else {
		n = send(conn, VIRTIO_VSOCK_OP_RW, 0, read->bytes + read->at, read->length);
		if (n < 0)
			return false;
		conn->sent += (u32)n;
		counter_add(&vsock->counts.to_guest, (u64)n);
		read->at += (u32)n;
		read->length -= (u32)n;
	}
	if (read->length)
		return true;
	vsock->filled = read->next;
	if (!vsock->filled)
		vsock->filled_end = &vsock->filled;
	vsock_read_free(read);
	return true;
}

/* One thing of all that the driver has to be told; 0: there is nothing; -1: no buffer. */
static int tell(struct virtio_vsock *vsock)
{
	struct vsock_conn *conn = vsock->lists[VSOCK_LIST_DUE].first;

	if (vsock->reset_count)
		return send_reset(vsock) ? 1 : -1;
	if (conn) {
		if (conn->due && !send_due(conn))
			return -1;
		if (!conn->due) {
			vsock_list_take(vsock, VSOCK_LIST_DUE);
			vsock_settle(conn);
		}
		return 1;
	}
	if (vsock->filled)
		return send_read(vsock) ? 1 : -1;
	return 0;
}

enum virtio_served vsock_rx_serve(struct virtio_vsock *vsock)
{
	int told;

	while ((told = tell(vsock)) > 0)
		;
	vsock_read_all(vsock);
	/* buffers stay where they are until there is something for them */
	return told ? VIRTIO_SERVED_ALL : VIRTIO_SERVED_LATER;
}

/* ---- from the driver ---- */

/* There is room for one: else the packet would not have been taken. */
static void reset_nobody(struct virtio_vsock *vsock, const struct virtio_vsock_hdr *to)
{
	u32 at = (vsock->reset_first + vsock->reset_count) % VSOCK_RESETS;

	if (le16toh(to->op) == VIRTIO_VSOCK_OP_RST)
		return;
	vsock->resets[at].header = (struct virtio_vsock_hdr){
		.src_cid = to->dst_cid,
		.dst_cid = to->src_cid,
		.src_port = to->dst_port,
		.dst_port = to->src_port,
		.type = to->type,
		.op = htole16(VIRTIO_VSOCK_OP_RST),
	};
	vsock->reset_count++;
	counter_add(&vsock->counts.resets, 1);
	virtio_queue_schedule(vsock->rx);
}

/* 5.10.6.4: the driver's CID is the source, and types are those that were negotiated. */
static bool is_ours(const struct virtio_vsock *vsock, const struct virtio_vsock_hdr *header)
{
	const struct virtio_device *device = &vsock->device;
	u16 type = le16toh(header->type);

	if (le64toh(header->src_cid) != vsock->cid || le64toh(header->dst_cid) != VSOCK_HOST_CID)
		return false;
	if (type == VIRTIO_VSOCK_TYPE_SEQPACKET)
		return virtio_has(device, VIRTIO_VSOCK_F_SEQPACKET);
	return type == VIRTIO_VSOCK_TYPE_STREAM &&
	       (virtio_has(device, VIRTIO_VSOCK_F_STREAM) ||
		!virtio_has(device, VIRTIO_VSOCK_F_NO_IMPLIED_STREAM));
}

/* A packet of a connection that there is, and whose payload is there. False: it has no business. */
static bool handle(struct vsock_conn *conn, const struct virtio_vsock_hdr *header,
		   const struct vq_buffer *buffer)
{
	u32 size = le32toh(header->len), flags = le32toh(header->flags);
	bool lives = conn->state == VSOCK_OPEN || conn->state == VSOCK_LINGER;

	conn->peer_alloc = le32toh(header->buf_alloc);
	conn->peer_forwarded = le32toh(header->fwd_cnt);
	switch (le16toh(header->op)) {
	case VIRTIO_VSOCK_OP_RESPONSE:
		if (conn->state != VSOCK_REQUESTED)
			return false;
		vsock_accepted(conn);
		break;
	case VIRTIO_VSOCK_OP_RW:
		if (!lives || conn->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND ||
		    size > VSOCK_ROOM - conn->used)
			return false;
		counter_add(&conn->vsock->counts.to_host, size);
		vsock_take(conn, buffer->iov, VSOCK_HEADER, size, flags & VIRTIO_VSOCK_SEQ_EOM);
		break;
	case VIRTIO_VSOCK_OP_SHUTDOWN:
		if (!lives)
			return false;
		vsock_guest_shut(conn, flags & VSOCK_BOTH);
		break;
	case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
		break;
	case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
		vsock_due(conn, VSOCK_DUE_CREDIT);
		break;
	default:
		return false;
	}
	return lives || le16toh(header->op) == VIRTIO_VSOCK_OP_RESPONSE;
}

static void receive(struct virtio_vsock *vsock, const struct vq_buffer *buffer)
{
	struct virtio_vsock_hdr header;
	struct vsock_conn *conn;
	bool fits;

	vsock_copy(buffer->iov, 0, &header, VSOCK_HEADER, false);
	fits = le32toh(header.len) <= buffer->readable_bytes - VSOCK_HEADER;
	if (!is_ours(vsock, &header)) {
		reset_nobody(vsock, &header);
		return;
	}
	conn = vsock_find(vsock, le32toh(header.src_port), le32toh(header.dst_port));
	if (!conn) {
		if (!fits || le16toh(header.op) != VIRTIO_VSOCK_OP_REQUEST ||
		    !vsock_dial(vsock, &header))
			reset_nobody(vsock, &header);
	} else if (le16toh(header.op) == VIRTIO_VSOCK_OP_RST) {
		vsock_end(conn, false);
	} else if (!fits || le16toh(header.type) != conn->type || !handle(conn, &header, buffer)) {
		counter_add(&vsock->counts.resets, 1);
		vsock_end(conn, true);
	} else {
		vsock_watch(conn);
	}
}

enum virtio_served vsock_tx_serve(struct virtio_vsock *vsock)
{
	struct vq_buffer buffer;

	for (u16 n = 0; n < CONFIG_VSOCK_QUEUE_SIZE && vsock->reset_count < VSOCK_RESETS; n++) {
		if (virtio_queue_pop(vsock->tx, &buffer, vsock->iov, CONFIG_VSOCK_QUEUE_SIZE) != 1)
			break;
		if (buffer.readable_bytes >= VSOCK_HEADER)
			receive(vsock, &buffer);
		virtio_queue_push(vsock->tx, buffer.head, 0);
	}
	vsock_write_all(vsock);
	return vsock->reset_count < VSOCK_RESETS ? VIRTIO_SERVED_ALL : VIRTIO_SERVED_LATER;
}

/* ---- the strict checker ---- */

/* 5.10.6.5, 5.10.6.6: what there is, of operations that have some. */
static u32 known_flags(const struct virtio_vsock_hdr *header)
{
	if (le16toh(header->op) == VIRTIO_VSOCK_OP_SHUTDOWN)
		return VSOCK_BOTH;
	return le16toh(header->op) == VIRTIO_VSOCK_OP_RW &&
			       le16toh(header->type) == VIRTIO_VSOCK_TYPE_SEQPACKET
		       ? VIRTIO_VSOCK_SEQ_EOM | VIRTIO_VSOCK_SEQ_EOR
		       : 0;
}

void vsock_strict_check(struct virtio_queue *queue, const struct vq_buffer *buffer)
{
	const struct virtio_vsock *vsock = queue->device->owner;
	struct virtio_vsock_hdr header = { .len = 0 };
	bool sent = queue == vsock->tx;
	u32 room = sent ? buffer->readable_bytes : buffer->writable_bytes;

	if (sent && room >= VSOCK_HEADER)
		vsock_copy(buffer->iov, 0, &header, VSOCK_HEADER, false);
	if (sent ? room < VSOCK_HEADER || le32toh(header.len) > room - VSOCK_HEADER ||
			    buffer->writable
		 : buffer->readable || (queue == vsock->rx && room <= VSOCK_HEADER)) {
		strict_report(queue->device, queue, STRICT_VSOCK_BUFFER,
			      "%u bytes are readable, %u writable, for a payload of %u",
			      buffer->readable_bytes, buffer->writable_bytes, le32toh(header.len));
		return;
	}
	if (sent && (!is_ours(vsock, &header) || !header.op ||
		     le16toh(header.op) > VIRTIO_VSOCK_OP_CREDIT_REQUEST ||
		     le32toh(header.flags) & ~known_flags(&header)))
		strict_report(queue->device, queue, STRICT_VSOCK_HEADER,
			      "from CID %llu to %llu, type %u, operation %u, flags 0x%x",
			      (unsigned long long)le64toh(header.src_cid),
			      (unsigned long long)le64toh(header.dst_cid), le16toh(header.type),
			      le16toh(header.op), le32toh(header.flags));
}
