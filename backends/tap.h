/*
 * A tap interface: one file descriptor a queue pair, vnet headers, offloads. Ignorant of virtio's
 * rings (the vnet header is Linux's struct virtio_net_hdr by TUNSETVNETHDRSZ).
 */
#ifndef BACKENDS_TAP_H
#define BACKENDS_TAP_H

#include <linux/if_tun.h>
#include "vm/reactor.h"

#define TAP_MAX_QUEUES 64

/* Newer than some uapi headers; a kernel without it refuses the bits when they are tried. */
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

struct tap_config {
	const char *name;
	u16 queues;
};

struct tap {
	char name[16];
	u16 queues;
	int fds[TAP_MAX_QUEUES];	    /* O_NONBLOCK; -1: none */
	reactor_file files[TAP_MAX_QUEUES]; /* set by tap_register() */
	u32 mtu;
	bool created; /* by us: it goes with us */
	/* IFF_MULTI_QUEUE: its queues can be attached and detached (also when queues is 1) */
	bool multi_queue;
	/* what the kernel's tap really can, found by trying TUNSETOFFLOAD */
	bool can_csum, can_tso4, can_tso6, can_ecn, can_ufo, can_uso;
	/* no tap but a stream of frames (passt.h): fds[0] to read from it, fds[1] to write to it */
	bool stream;
	int passt, passt_says; /* its pid; what it prints until it is ready, or -1 */
	u8 mac[6];	       /* a stable locally administered address derived from the name */
};

/*
 * Attaches to an existing tap (no privilege needed when it belongs to the user), or makes one where
 * permitted. Down, busy, missing, single-queue for queues > 1, forbidden, not a tap: one log line
 * that says which and the command that helps, and -errno (down: only the line). Main thread.
 */
int tap_open(struct tap *tap, const struct tap_config *config);
/* Registers the queues' files with the reactors. 0 or -errno. Main thread. */
int tap_register(struct tap *tap, struct reactors *reactors);
/* Takes the queues out of reactors that run; nothing is in flight. Main thread. */
void tap_unregister(struct tap *tap, struct reactors *reactors);
void tap_close(struct tap *tap);

/*
 * The same as tap_open() with queues that another process attached to and sent here: fds, one a
 * queue pair, and what it learned by means that the sandbox has not (MTU, address, whether it made
 * the tap). The descriptors are the tap's from then on, and the caller's still after an error. Logs
 * one line and returns -errno. Main thread; allowed in the sandbox with a control socket.
 */
int tap_adopt(struct tap *tap, const struct tap_config *config, const int *fds, u32 count,
	      const struct tap *learned);
/* Finds out can_*. Main thread. */
void tap_probe_offloads(struct tap *tap);

/* TUNSETOFFLOAD with TUN_F_* bits for all queues, header of `header` bytes (10 or 12). 0 or -errno.
 * Any thread; allowed in the sandbox. */
int tap_set_offload(struct tap *tap, u32 tun_f, u32 header);
/* Drops what waits in its queues. Any thread; allowed in the sandbox. */
void tap_drain(const struct tap *tap);
/* -errno if the interface has been deleted, else 0. Any thread; allowed in the sandbox. */
int tap_gone(const struct tap *tap);
/* Attaches or detaches queue n (IFF_ATTACH_QUEUE): what a detached one held is dropped, and no
 * frame comes to it; frames can still be written to it. Only where multi_queue. 0 or -errno. Any
 * thread; allowed in the sandbox. */
int tap_enable_queue(struct tap *tap, u16 queue, bool on);

#endif
