/*
 * The kernel's vhost-net (linux/vhost.h): a worker in the kernel that carries frames between a tap
 * and a guest's rings; and its vhost-vsock, which does it between sockets and a guest's. One file
 * descriptor a pair of rings. Ignorant of virtio's devices: it is told where rings are, which
 * eventfds ring and are rung, and which tap's queue is theirs.
 */
#ifndef BACKENDS_VHOST_H
#define BACKENDS_VHOST_H

#include "vm/memory.h"

#define VHOST_MAX_PAIRS 64
#define VHOST_MAX_FILES (VHOST_MAX_PAIRS + 1)

enum vhost_ring { VHOST_RX, VHOST_TX, VHOST_RINGS }; /* as vhost-net numbers them */

/* Where requests go: the kernel, or what a test has in its place. As open(2) and ioctl(2), but what
 * they return is negative errno. */
struct vhost_kernel {
	int (*open)(const char *path);
	int (*ioctl)(int fd, unsigned long request, void *argument);
};

struct vhost_config {
	const char *name; /* the interface's, for log lines */
	u16 pairs;
	u32 cid;			   /* 0, or it is vhost-vsock, for this guest, a pair */
	const struct vhost_kernel *kernel; /* NULL: the real one */
};

struct vhost {
	char name[16];
	const struct vhost_kernel *kernel;
	u16 pairs; /* 0: not open */
	bool vsock;
	int fds[VHOST_MAX_PAIRS];
	/* read like an eventfd: an interface was deleted, perhaps the tap, of which vhost-net
	 * itself tells only who sends */
	int deletions;
	u64 features; /* VIRTIO_* bits that it can, and its own VHOST_* */
};

/* Host addresses of a split ring's areas, aligned as rings are and all in RAM. */
struct vhost_place {
	u16 size;
	void *descriptors, *available, *used;
};

/* Opens /dev/vhost-net once for each pair, with a worker each. Missing, forbidden, too old: one log
 * line with what helps, and -errno; nothing is left open. Main thread, before the sandbox. */
int vhost_open(struct vhost *vhost, const struct vhost_config *config);
/* The two halves of it, for processes that open what another shall use, in the tap's network
 * namespace: fds has room for one a pair and the one that tells of deletions; adopting, vhost owns
 * them from then on, and closes them if it cannot use them. */
int vhost_open_files(const struct vhost_config *config, int *fds);
int vhost_adopt(struct vhost *vhost, const struct vhost_config *config, const int *fds);
/* Ends the workers and lets go of taps. Main thread; does nothing if not open. */
void vhost_close(struct vhost *vhost);

/* Tells all pairs of guest RAM, and of the eventfd that they shall ring when a ring cannot be
 * worked with. Logs, 0 or -errno. Main thread, before the sandbox. */
int vhost_prepare(const struct vhost *vhost, const struct memory *memory, int error_fd);

/* The rest returns 0 or -errno and logs nothing. Any thread, but one at a time for a pair; allowed
 * in the sandbox on vCPU threads and reactors. */

/* What was negotiated, for all pairs; none of their rings is started. */
int vhost_set_features(const struct vhost *vhost, u64 features);
/* A ring that is stopped: where it is, and the eventfd that announces buffers. */
int vhost_ring_place(const struct vhost *vhost, u16 pair, enum vhost_ring ring,
		     const struct vhost_place *place, int kick_fd);
/* Has the worker serve it from index base on, over this queue of a tap; call_fd is rung for used
 * buffers (-1: none is). What is available already has to be announced after this. */
int vhost_ring_start(const struct vhost *vhost, u16 pair, enum vhost_ring ring, u16 base,
		     int call_fd, int tap_fd);
/* When it returns, the worker touches neither ring nor buffers any more. *base: where to go on. */
int vhost_ring_stop(const struct vhost *vhost, u16 pair, enum vhost_ring ring, u16 *base);
/* Another eventfd for used buffers, of a ring started or not. */
int vhost_ring_call(const struct vhost *vhost, u16 pair, enum vhost_ring ring, int call_fd);
/* For how long, in microseconds, the pair's worker looks for work before it sleeps; 0, as it
 * begins: it does not. It looks at both rings then, started or not: only while both are. */
int vhost_pair_poll(const struct vhost *vhost, u16 pair, u32 poll_us);
/* Of a ring that is stopped: nobody listens to its kick_fd any more. */
int vhost_ring_leave(const struct vhost *vhost, u16 pair, enum vhost_ring ring);

/* vhost-vsock: both rings, whose backends there are none, are started at once (after
 * vhost_ring_start()), or stopped (before vhost_ring_stop()). */
int vhost_vsock_run(const struct vhost *vhost, bool on);

#endif
