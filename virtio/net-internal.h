/*
 * What the files of the network device share: net.c (the device and its life), net-rx.c and
 * net-tx.c (the data path), net-stream.c (the same over a stream), net-vhost.c (the same left to the
 * kernel), net-ctrl.c (control virtqueue), net-filter.c (what the driver wants to receive).
 *
 * Who holds what: net.shared is what the driver has asked for, under net.lock. Each pair has a copy
 * of its own, which its reactor alone reads; it is renewed by net_pair_refresh() on that reactor,
 * so the data path takes no lock. A control command is reported used only when every pair
 * has renewed its copy.
 */
#ifndef VIRTIO_NET_INTERNAL_H
#define VIRTIO_NET_INTERNAL_H

#include <linux/if_ether.h>
#include <stdatomic.h>
/* The kernel's struct of the configuration space bears the name of ours in net.h. */
#define virtio_net_config virtio_net_space
#include <linux/virtio_net.h>
#undef virtio_net_config
#include "backends/tap.h"
#include "backends/vhost.h"
#include "virtio/net.h"
#include "vm/config.h"

/* Newer than some uapi headers (virtio 1.3, 5.1.3 and 5.1.6). */
#ifndef VIRTIO_NET_F_GUEST_USO4
#define VIRTIO_NET_F_GUEST_USO4 54
#define VIRTIO_NET_F_GUEST_USO6 55
#define VIRTIO_NET_F_HOST_USO	56
#endif
#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#define VIRTIO_NET_HDR_GSO_UDP_L4 5
#endif

#define NET_QUEUE_SIZE CONFIG_NET_QUEUE_SIZE
/* The largest frame of all: IPv6 with a full payload (virtio 1.3, 5.1.6.3). */
#define NET_FRAME_MAX  (ETH_HLEN + 40 + 65535)
#define NET_VLAN_BYTES 4
#define NET_HEADER_MAX ((u32)sizeof(struct virtio_net_hdr_v1))

#define NET_FILTER_MACS	 64
#define NET_FILTER_VLANS 4096

/* Which frames the driver wants (virtio 1.3, 5.1.6.5.1 to 5.1.6.5.3). */
struct net_filter {
	u8 mac[ETH_ALEN];
	bool mac_known; /* else the driver uses an address that it never told */
	bool promisc, allmulti, alluni, nomulti, nouni, nobcast;
	bool vlan_filter;
	/* the driver gave more addresses than there is room for */
	bool unicast_overflow, multicast_overflow;
	u16 unicast_count, multicast_count;
	u8 unicast[NET_FILTER_MACS][ETH_ALEN];
	u8 multicast[NET_FILTER_MACS][ETH_ALEN];
	u64 vlans[NET_FILTER_VLANS / 64];
};

struct net_shared {
	u16 pairs;    /* queue pairs in use */
	u64 offloads; /* VIRTIO_NET_F_GUEST_* offloads in force, as feature bits */
	struct net_filter filter;
};

/* Written by the pair's reactor alone, read by anyone. */
struct net_counters {
	_Atomic u64 rx_frames, rx_filtered, rx_truncated, rx_invalid;
	_Atomic u64 tx_frames, tx_invalid, tx_refused;
};

/* A buffer taken from the receive queue. */
#define NET_CHAIN_SMALL 4
struct net_chain {
	u16 head;
	u16 iov_count;
	u32 bytes;
	struct iovec small[NET_CHAIN_SMALL]; /* if they suffice; else net_rx.large has them */
};

/* One read from the tap, into as many chains as the largest frame may need. What a frame leaves
 * over stays for the next one; so the lists begin anywhere in their arrays. */
#define NET_READ_IOVS 1024 /* UIO_MAXIOV */
struct net_read {
	struct reactor_op op;
	struct net_pair *pair;
	u32 capacity;	  /* bytes in its chains */
	u16 first, count; /* chains */
	u16 iov_first, iov_count;
	u16 chains[NET_QUEUE_SIZE];
	struct iovec iov[NET_READ_IOVS];
};

#define NET_READS 17 /* a burst of up to 16 that do not wait, then one that does */

struct net_rx {
	struct virtio_queue *queue;
	struct net_chain *chains; /* NET_QUEUE_SIZE of them */
	struct iovec *large; /* for each chain room for the longest, touched only by long ones */
	u16 free[NET_QUEUE_SIZE]; /* a stack of chains that hold no buffer */
	u16 free_count;
	/* a FIFO of chains that hold a buffer and are in no read */
	u16 held[NET_QUEUE_SIZE];
	u16 held_first, held_count;
	struct net_read *reads; /* NET_READS */
	struct reactor_op poll;
	u32 reading;	 /* bit n: reads[n] is in flight; bit NET_READS: poll */
	u16 armed;	 /* which of them waits for the tap */
	bool cancelling; /* the armed one */
	bool readable;	 /* the poll said so */
	u16 depth;	 /* reads that do not wait in the next burst */
	u16 burst, got;	 /* reads that did not wait: in this burst, of them successful */
	u16 at_once;	 /* frames that came alone, and in the sweep after the read's */
	u64 armed_sweep; /* in which the read that waits was submitted */
	struct iovec pop[NET_QUEUE_SIZE];
	u8 spill[64]; /* what does not fit into a read's chains begins here, which tells of it */
};

/* One frame on its way to the tap. */
#define NET_WRITE_SMALL 20 /* Linux: header, head and 17 fragments */
struct net_write {
	struct reactor_op op;
	struct net_pair *pair;
	u16 head;
	bool busy;
	struct virtio_net_hdr_v1 header; /* checked; what the tap gets in place of the driver's */
	struct iovec small[NET_WRITE_SMALL];
};

struct net_tx {
	struct virtio_queue *queue;
	struct net_write *writes; /* NET_QUEUE_SIZE */
	struct iovec *large;	  /* NET_QUEUE_SIZE + 1 for each */
	u16 free[NET_QUEUE_SIZE];
	u16 free_count;
	bool starved; /* serve() found no write free */
	struct iovec pop[NET_QUEUE_SIZE];
};

/* A ring that is lent to vhost-net, and the pair of them; under the lock, but for own_kicks once
 * the ring has stopped. */
struct net_vhost_ring {
	bool placed;   /* vhost-net knows where it is */
	bool on;       /* and serves it */
	u16 base;      /* index to go on from */
	u64 own_kicks; /* that we rang its doorbell */
};

struct net_vhost_pair {
	pthread_mutex_t lock; /* under the device's or alone */
	bool active;
	bool polls; /* the worker does */
	struct net_vhost_ring rings[VHOST_RINGS];
};

struct net_pair {
	struct virtio_net *net;
	u16 index;
	bool attached; /* the tap's queue is */
	/* this reactor's copy of net.shared, and what follows from it */
	struct net_shared shared;
	bool active;	 /* index < pairs */
	u32 rx_capacity; /* bytes that the largest frame may need */
	struct net_rx rx;
	struct net_tx tx;
	struct net_vhost_pair vhost;
	struct net_counters counters;
	struct reactor_message sync; /* from the control queue */
	struct reactor_task answer;  /* to it, behind what is published in this sweep */
	int sync_error;
	struct reactor_message renew; /* from a legacy driver's config write */
	_Atomic bool renewing;	      /* renew is on its way */
};

struct net_ctrl {
	struct virtio_queue *queue;
	bool pending; /* a command waits for the pairs */
	u16 head;
	u8 *ack;
	_Atomic u32 waiting; /* pairs that have not answered */
	_Atomic bool failed; /* one of them could not */
	struct reactor_message answer;
	struct iovec iov[NET_QUEUE_SIZE];
};

struct virtio_net {
	struct virtio_device device;
	struct tap *tap;
	struct net_stream *stream; /* NULL: it is a tap indeed */
	u8 mac[ETH_ALEN]; /* after a reset */
	u16 mtu;
	u16 max_pairs;

	/* final at start(), read by reactors */
	u32 header; /* bytes: 10 or 12 */
	u16 pair_limit;
	u16 ctrl_index; /* 0: there is none */

	pthread_mutex_t lock; /* shared; taken under the device's lock, never around it */
	struct net_shared shared;

	pthread_mutex_t
		status_lock; /* status, and its way into the config; never under the device's */
	_Atomic u16 status;  /* VIRTIO_NET_S_* */
	_Atomic bool lost;   /* the tap has vanished */

	struct net_pair *pairs; /* max_pairs */
	struct net_ctrl ctrl;

	struct vhost *vhost; /* NULL: not to be had, or not asked for */
	u32 vhost_poll_us;
	_Atomic bool by_vhost;	    /* it serves this driver's queues: final at start() */
	_Atomic bool vhost_paused;  /* for a change of what it is based on */
	struct reactor_event relay; /* rung by it for the line */
	struct reactor_event errors, deletions;

	struct log_limit vhost_lines;
	struct log_limit tx_lines, down_lines, offload_lines, queue_lines;
};

static inline struct virtio_net *net_of(struct virtio_device *device)
{
	return device->owner;
}

static inline struct net_pair *net_pair_of(const struct virtio_queue *queue)
{
	return &net_of(queue->device)->pairs[queue->index / 2];
}

static inline void net_count(_Atomic u64 *counter)
{
	counter_add((u64 *)counter, 1);
}

/* ---- net.c ---- */

/* Bytes [offset, offset + size) of a list of buffers, which has that many. */
void net_iov_read(const struct iovec *iov, u32 offset, void *to, u32 size);
void net_iov_write(const struct iovec *iov, u32 offset, const void *from, u32 size);
/* [the pair's reactor] Renews the pair's copy of net.shared and follows it. 0 or -errno. */
int net_pair_refresh(struct net_pair *pair);
/* [any, device's lock not held] The tap has vanished: says so once, takes the link down. */
void net_tap_lost(struct virtio_net *net, int error);
/* [any, device's lock not held] Sets and clears bits of config.status. */
void net_status_change(struct virtio_net *net, u16 set, u16 clear);
/* TUN_F_* bits for a set of guest offloads. */
u32 net_tap_offloads(u64 offloads);
/* Does the set respect "GUEST_TSO4 requires GUEST_CSUM" and its like (virtio 1.3, 5.1.3.1)? */
bool net_features_consistent(u64 features);

/* VIRTIO_NET_F_GUEST_* that CTRL_GUEST_OFFLOADS can switch. */
#define NET_GUEST_OFFLOADS                                                 \
	(BIT64(VIRTIO_NET_F_GUEST_CSUM) | BIT64(VIRTIO_NET_F_GUEST_TSO4) | \
	 BIT64(VIRTIO_NET_F_GUEST_TSO6) | BIT64(VIRTIO_NET_F_GUEST_ECN) |  \
	 BIT64(VIRTIO_NET_F_GUEST_UFO) | BIT64(VIRTIO_NET_F_GUEST_USO4) |  \
	 BIT64(VIRTIO_NET_F_GUEST_USO6))
#define NET_GUEST_GSO (NET_GUEST_OFFLOADS & ~BIT64(VIRTIO_NET_F_GUEST_CSUM))

/* ---- net-rx.c, net-tx.c, net-ctrl.c: the queues' part of virtio_device_ops ---- */

int net_rx_create(struct net_pair *pair);
void net_rx_destroy(struct net_pair *pair);
void net_rx_start(struct net_pair *pair);
enum virtio_served net_rx_serve(struct net_pair *pair);
/* [reactor] Gives reads[0] buffers, as many as the largest frame needs or as there are. 1; 0: there
 * are no more; -errno. */
int net_rx_fill(struct net_pair *pair);
/* [reactor] The same; then delivers a frame that lies in our memory. 1: it is done with; 0: it needs
 * more buffers than there are; -errno. */
int net_rx_put(struct net_pair *pair, const u8 *frame, u32 size);
/* [reactor] Submits reads[0].op, which net_rx_stop() knows to cancel; done() calls the second
 * function, with what came or what went wrong. */
void net_rx_arm(struct net_pair *pair);
void net_rx_disarmed(struct net_pair *pair, s32 result);
void net_rx_stop(struct net_pair *pair);
/* [reactor] active or rx_capacity has changed: reads in flight fit no more. */
void net_rx_renew(struct net_pair *pair);

int net_tx_create(struct net_pair *pair);
void net_tx_destroy(struct net_pair *pair);
void net_tx_start(struct net_pair *pair);
enum virtio_served net_tx_serve(struct net_pair *pair);
/* [reactor] Copies and mends the driver's header of a frame of up to `most` bytes behind it; false:
 * not a frame that can go out, which is said and counted. */
bool net_tx_check(struct net_pair *pair, const struct vq_buffer *buffer, u32 most,
		  struct virtio_net_hdr_v1 *header);
void net_tx_stop(struct net_pair *pair);

/* ---- net-stream.c ---- */

int net_stream_create(struct virtio_net *net);
void net_stream_destroy(struct virtio_net *net);
/* [reactor] In place of the functions of net-rx.c and net-tx.c with such names. */
enum virtio_served net_stream_receive(struct net_pair *pair);
enum virtio_served net_stream_send(struct net_pair *pair);
void net_stream_stop_sending(struct net_pair *pair);

void net_ctrl_start(struct virtio_net *net, struct virtio_queue *queue);
enum virtio_served net_ctrl_serve(struct virtio_net *net);
/* [the pair's reactor] A pair has renewed its copy for the command that waits, or could not. */
void net_ctrl_answer(struct virtio_net *net, int error);
/* [the pair's reactor] Renews the pair's copy for a command, then answers. */
void net_pair_sync(struct net_pair *pair);

/* ---- net-vhost.c ---- */

/* Of an open vhost: which of the core's features it lacks, and what of ours can be offered. */
u64 net_vhost_withheld(const struct vhost *vhost);
u64 net_vhost_offered(const struct vhost *vhost, u64 features);
/* Sets net->vhost if there is one and it can be used; else says why. Before the device is made.
 * Main thread. */
void net_vhost_init(struct virtio_net *net, const struct virtio_net_options *config);
/* Waits for what it has to say. Pairs are made. 0 or -errno. Main thread. */
int net_vhost_connect(struct virtio_net *net);
void net_vhost_detach(struct virtio_net *net);
void net_vhost_exit(struct virtio_net *net);
/* [lock, at start()] Shall it serve the driver that begins, with these features? If so it knows
 * them. */
bool net_vhost_suits(struct virtio_net *net);
/* [reactor] Queues of such a driver. */
void net_vhost_queue_start(struct virtio_queue *queue);
void net_vhost_queue_stop(struct virtio_queue *queue);
/* [the pair's reactor] Is the pair in use? Its rings are served, or not, when this returns. */
void net_vhost_activate(struct net_pair *pair, bool active);
/* The operations of the same name. */
void net_vhost_gate(struct virtio_net *net);
void net_vhost_interrupt_moved(struct virtio_queue *queue);
/* [control queue's reactor] tap_set_offload(), with or without vhost-net. */
int net_vhost_set_offload(struct virtio_net *net, u32 tun_f);

/* ---- net-filter.c ---- */

/* The state after a reset: empty tables. With control (VIRTIO_NET_F_CTRL_RX) the driver says what
 * it wants; without, it gets everything. */
void net_filter_reset(struct net_filter *filter, bool control, bool vlan_filter);
/* frame: its first bytes, at least ETH_HLEN and, if there are that many, ETH_HLEN + 4. */
bool net_filter_accepts(const struct net_filter *filter, const u8 *frame, u32 size);
void net_filter_vlan(struct net_filter *filter, u16 id, bool on);

#endif
