/*
 * What the files of the socket device share: vsock.c (the device and its life), vsock-packet.c
 * (packets from and to the driver), vsock-conn.c (connections and their sockets), vsock-vhost.c.
 *
 * All of it belongs to the reactor that serves the device's queues, but for what is said to be
 * vhost's.
 */
#ifndef VIRTIO_VSOCK_INTERNAL_H
#define VIRTIO_VSOCK_INTERNAL_H

#include <linux/virtio_vsock.h>
#include "virtio/vsock.h"
#include "vm/config.h"

#ifndef VIRTIO_VSOCK_F_STREAM /* not in the headers of Linux 6.1 */
#define VIRTIO_VSOCK_F_STREAM		 0
#define VIRTIO_VSOCK_F_NO_IMPLIED_STREAM 2
#endif

#define VSOCK_HOST_CID 2
#define VSOCK_HEADER   44u /* bytes of struct virtio_vsock_hdr */
#define VSOCK_BOTH     (VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND)
#define VSOCK_ROOM     KIB(256) /* credit of the guest for each connection; a power of two */
#define VSOCK_MARKS    (VSOCK_ROOM / 8) /* seqpacket: a bit for each byte, set where a message ends \
					 */
#define VSOCK_READS   16		/* reads of connections at one time ... */
#define VSOCK_READ    KIB(64)		/* ... of so much */
#define VSOCK_MESSAGE KIB(256)		/* or of a message, which is shorter */
#define VSOCK_RESETS  256 /* that wait for a buffer, to packets that belong to no connection */
#define VSOCK_BUCKETS 1024

/* of those that clients of the host's get */
#define VSOCK_PORT_FIRST 0x40000000u
#define VSOCK_PORT_LAST	 0x7fffffffu

enum vsock_state {
	VSOCK_FREE,
	VSOCK_GREETING,	 /* a client of the host's has yet to say what it wants */
	VSOCK_REQUESTED, /* and the guest has yet to answer */
	VSOCK_DIALING,	 /* the guest's wish is with the process that connects */
	VSOCK_OPEN,
	VSOCK_LINGER, /* both are through with it, and the guest has yet to say so by RST */
};

/* What the driver has to be told of a connection, in this order. */
enum vsock_due {
	VSOCK_DUE_REQUEST = BIT(0),
	VSOCK_DUE_RESPONSE = BIT(1),
	VSOCK_DUE_CREDIT = BIT(2),
	VSOCK_DUE_SHUTDOWN = BIT(3),
	VSOCK_DUE_RST = BIT(4), /* nothing else then */
};

enum vsock_list_kind {
	VSOCK_LIST_DUE,	  /* something is due */
	VSOCK_LIST_READY, /* there is something to read */
	VSOCK_LIST_DIRTY, /* and to write */
	VSOCK_LIST_DIAL,  /* the process has to be asked again */
	VSOCK_LISTS
};

struct vsock_conn {
	struct virtio_vsock *vsock;
	u8 state; /* enum vsock_state */
	u8 due;
	u8 listed;     /* bits by enum vsock_list_kind */
	bool hashed;   /* found by its ports */
	bool gone;     /* it is no more, but for what its socket has yet to take */
	bool closing;  /* and that shall be closed, as soon as nothing is in flight */
	bool dialing;  /* an answer of the process is to come */
	bool deaf;     /* the host's end takes nothing any more */
	bool told_end; /* and was told that nothing more comes */
	/* of each side, what it will do no more: VIRTIO_VSOCK_SHUTDOWN_* */
	u8 guest_shut, host_shut;
	u16 type; /* VIRTIO_VSOCK_TYPE_* */
	u32 guest_port, host_port;
	int fd; /* -1: none */
	reactor_file file;
	/* into the guest: a poll, or a read to a struct vsock_read */
	struct reactor_op in;
	bool in_busy, in_cancelled;
	struct vsock_read *read;
	u32 events; /* that the last poll told */
	u32 need;   /* credit to go on with: a message's bytes */
	u32 sent, peer_alloc, peer_forwarded;
	/* out of it: a ring of bytes */
	struct reactor_op out;
	bool out_busy;
	struct iovec iov[2];
	u8 *room; /* VSOCK_ROOM, and VSOCK_MARKS */
	u32 head, used, touched;
	u32 forwarded, told; /* bytes that left the room, and of which the guest knows */
	u8 line_length;
	char line[24];
	struct vsock_conn *next[VSOCK_LISTS], *hash_next;
};

/* What a connection has read. */
struct vsock_read {
	struct vsock_read *next; /* free, or filled */
	struct vsock_conn *conn;
	struct iovec iov;
	u32 at, length;
	u8 *bytes; /* VSOCK_MESSAGE */
};

/* An RST to a packet that belongs to no connection. */
struct vsock_reset {
	struct virtio_vsock_hdr header;
};

/* Waiting for somebody at a door of the host's. */
struct vsock_wait {
	struct reactor_op op;
	struct virtio_vsock *vsock;
	bool busy;
};

struct vsock_list {
	struct vsock_conn *first, *last;
};

struct vsock_counts {
	u64 accepted, refused, resets, to_guest, to_host;
};

/* A ring that is lent to vhost. */
struct vsock_lent {
	bool placed;
	u16 base;
	u64 own_kicks;
};

struct virtio_vsock {
	struct virtio_device device;
	u32 cid;
	struct vsock_host *host;
	struct reactor *reactor;
	struct virtio_queue *rx, *tx;
	bool up; /* both run */
	bool stopping;
	struct iovec iov[CONFIG_VSOCK_QUEUE_SIZE];
	struct vsock_wait doors[VSOCK_DOORS];
	struct log_limit lines;
	struct vsock_counts counts;
	u32 next_port, closed, used_conns;
	u32 spare_at; /* which may make room next */
	_Atomic u32 live; /* connections that are not VSOCK_FREE, and doors that are waited at */

	struct vsock_list lists[VSOCK_LISTS];
	struct vsock_conn *free;
	struct vsock_conn *buckets[VSOCK_BUCKETS];
	struct vsock_read reads[VSOCK_READS];
	struct vsock_read *reads_free, *filled, **filled_end;
	u32 reset_first, reset_count;
	struct vsock_reset resets[VSOCK_RESETS];
	struct vsock_conn *conns; /* VSOCK_CONNECTIONS, touched as they are used */
	u8 *rooms, *read_rooms;

	struct { /* under its lock, which is taken under the device's or alone */
		struct vhost *vhost; /* NULL: it is served here */
		pthread_mutex_t lock;
		bool on;
		struct vsock_lent rings[VHOST_RINGS];
		struct reactor_event relay, errors;
	} lent;
};

static inline bool vsock_pending(const struct virtio_vsock *vsock, enum vsock_list_kind kind)
{
	return vsock->lists[kind].first;
}

/* What the guest may still be sent. */
static inline u32 vsock_credit(const struct vsock_conn *conn)
{
	u32 out = conn->sent - conn->peer_forwarded;

	return out < conn->peer_alloc ? conn->peer_alloc - out : 0;
}

/* ---- vsock-packet.c, on the reactor ---- */

/* Between a list of buffers, from byte skip of it on, and size bytes, which it has. */
void vsock_copy(const struct iovec *iov, u32 skip, void *bytes, u32 size, bool into);
enum virtio_served vsock_rx_serve(struct virtio_vsock *vsock);
enum virtio_served vsock_tx_serve(struct virtio_vsock *vsock);
/* virtio_device_ops.check */
void vsock_strict_check(struct virtio_queue *queue, const struct vq_buffer *buffer);

/* ---- vsock-conn.c, on the reactor ---- */

void vsock_list_add(struct vsock_conn *conn, enum vsock_list_kind kind);
struct vsock_conn *vsock_list_take(struct virtio_vsock *vsock, enum vsock_list_kind kind);
/* The connection between these ports, or NULL. */
struct vsock_conn *vsock_find(struct virtio_vsock *vsock, u32 guest_port, u32 host_port);
/* It has its ports: it is to be found. */
void vsock_hash(struct vsock_conn *conn);
/* One more, for which there has to be room. NULL: there is none, which is counted. */
bool vsock_has_room(const struct virtio_vsock *vsock);
struct vsock_conn *vsock_begin(struct virtio_vsock *vsock, enum vsock_state state, u16 type);
/* The socket is the connection's from here on, or closed. */
bool vsock_adopt(struct vsock_conn *conn, int fd);
/* size bytes, for which there is room, go into it, and a message ends. */
void vsock_take(struct vsock_conn *conn, const struct iovec *iov, u32 skip, u32 size, bool ends);
/* The guest will do these things no more. */
void vsock_guest_shut(struct vsock_conn *conn, u32 flags);
/* Something is due. */
void vsock_due(struct vsock_conn *conn, enum vsock_due due);
/* It is over at once; the guest is told by RST, or knows. */
void vsock_end(struct vsock_conn *conn, bool rst);
/* Waits for what is of interest now. */
void vsock_watch(struct vsock_conn *conn);
/* Something has changed: perhaps it can be let go. */
void vsock_settle(struct vsock_conn *conn);
/* A read has been told to the guest, or to nobody. */
void vsock_read_free(struct vsock_read *read);
/* Starts to write what came; to read where there is something. */
void vsock_write_all(struct virtio_vsock *vsock);
void vsock_read_all(struct virtio_vsock *vsock);
/* A queue does not run: all connections end, and nobody comes. */
void vsock_end_all(struct virtio_vsock *vsock);
/* Lists, rooms, connections. 0 or -ENOMEM. Main thread. */
int vsock_conns_create(struct virtio_vsock *vsock);
void vsock_conns_destroy(struct virtio_vsock *vsock);

/* ---- vsock-doors.c, on the reactor ---- */

/* A connection that the guest wants. False: it cannot be. */
bool vsock_dial(struct virtio_vsock *vsock, const struct virtio_vsock_hdr *header);
/* A client of the host's has sent something: the line that says what it wants. */
void vsock_greet(struct vsock_conn *conn);
/* The guest has accepted one that the host wanted. */
void vsock_accepted(struct vsock_conn *conn);
/* Both queues run: clients come in. One does not: none does. */
void vsock_open_doors(struct virtio_vsock *vsock);
void vsock_close_doors(struct virtio_vsock *vsock);
/* Whoever comes to this door is taken, as far as there is room. */
void vsock_wait_at(struct virtio_vsock *vsock, enum vsock_door door);

/* ---- vsock-vhost.c; the first two on the main thread ---- */

int vsock_vhost_create(struct virtio_vsock *vsock, const struct virtio_vsock_options *options);
void vsock_vhost_destroy(struct virtio_vsock *vsock);
void vsock_vhost_detach(struct virtio_vsock *vsock);
/* As the functions of virtio_device_ops. */
void vsock_vhost_queue_start(struct virtio_queue *queue);
void vsock_vhost_queue_stop(struct virtio_queue *queue);
void vsock_vhost_gate(struct virtio_device *device);
void vsock_vhost_interrupt_moved(struct virtio_queue *queue);
void vsock_vhost_start(struct virtio_vsock *vsock);
/* Of the core's features, those that vhost lacks. */
u64 vsock_vhost_withheld(const struct vhost *vhost);

#endif
