/*
 * A tap interface: one file descriptor a queue pair, vnet headers, offloads. Ignorant of virtio's rings (the vnet header is
 * Linux's struct virtio_net_hdr by TUNSETVNETHDRSZ).
 */
#ifndef BACKENDS_TAP_H
#define BACKENDS_TAP_H

#include "vm/reactor.h"

#define TAP_MAX_QUEUES 64

struct tap_config {
	const char *name;
	u16 queues;
};

struct tap {
	char name[16];
	u16 queues;
	int fds[TAP_MAX_QUEUES];	      /* O_NONBLOCK */
	reactor_file files[TAP_MAX_QUEUES]; /* set by tap_register() */
	u32 mtu;
	bool created; /* by us: it goes with us */
	/* what the kernel's tap really can, found by trying TUNSETOFFLOAD */
	bool can_csum, can_tso4, can_tso6, can_ecn, can_ufo, can_uso;
	u8 mac[6]; /* a stable locally administered address derived from the name */
};

/*
 * Attaches to an existing tap (no privilege needed when it belongs to the user), or makes one where permitted. Down, busy, missing, single-queue
 * for queues > 1, forbidden, not a tap: one log line that says which and the command that helps, and -errno. Main thread.
 */
int tap_open(struct tap *tap, const struct tap_config *config);
int tap_register(struct tap *tap, struct reactors *reactors);
void tap_close(struct tap *tap);

/* TUNSETOFFLOAD with TUN_F_* bits for all queues, header of `header` bytes. 0 or -errno. Any thread; allowed in the sandbox. */
int tap_set_offload(struct tap *tap, u32 tun_f, u32 header);
/* Attaches or detaches queue n's steering (IFF_ATTACH_QUEUE): pairs in use after VIRTIO_NET_CTRL_MQ. 0 or -errno. */
int tap_enable_queue(struct tap *tap, u16 queue, bool on);

#endif
