/*
 * Socket device (virtio 1.3, 5.10): connections between programs of the guest, in AF_VSOCK, and of
 * the host. Over Unix sockets (backends/vsock.h) they are served here, on one reactor; or the rings
 * are lent to the host kernel's vhost-vsock, whose connections are the host's own AF_VSOCK.
 *
 * Over Unix sockets: who connects to PATH and writes the line `CONNECT PORT` is connected to that
 * port of the guest, and reads `OK HOSTPORT` when the guest has accepted; the end of file instead
 * means that nobody listens. While no driver runs, clients wait. What the guest connects to port P
 * of the host arrives at the socket PATH_P. Seqpacket connections are Unix sockets of the same
 * type, a message each way a message (records, VIRTIO_VSOCK_SEQ_EOR, have nothing to go into);
 * clients of theirs come to PATH.seq.
 *
 * What the guest sends is copied to a room of the connection's own, whose size is the credit that
 * the guest has: so a reader of the host that is stuck holds up its connection and no buffer of the
 * ring. There are at most VSOCK_CONNECTIONS; more are refused.
 */
#ifndef VIRTIO_VSOCK_H
#define VIRTIO_VSOCK_H

#include "backends/vhost.h"
#include "backends/vsock.h"
#include "virtio/device.h"

#define VSOCK_CONNECTIONS 1024

struct virtio_vsock;

struct virtio_vsock_options {
	const char *name;
	const struct memory *memory;
	struct reactors *reactors;
	u32 reactor;		 /* number of the one that serves it */
	u16 queue_size;		 /* offered; 0: as large as can be */
	u64 features;		 /* of VIRTIO_OPTIONAL, those offered */
	u32 cid;		 /* the guest's: 3 to 0xfffffffe */
	struct vsock_host *host; /* registered; kept by the caller. NULL: vhost has it */
	struct vhost *vhost;	 /* open; kept by the caller. NULL: host has it */
};

/* Before reactors_start(). 0 or -errno (logged). Main thread. */
int virtio_vsock_create(struct virtio_vsock **vsock, const struct virtio_vsock_options *options);
struct virtio_device *virtio_vsock_device(struct virtio_vsock *vsock);
/* As virtio_device_destroy(); closes what is left of connections. */
void virtio_vsock_destroy(struct virtio_vsock *vsock);

#endif
