/* What the bench guest (guest-net.c) and the other end of its wire (peer.c) say to each other. */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#define PEER_HOST_MAC               \
	{                           \
		0x02, 0, 0, 0, 0, 1 \
	}
#define PEER_GUEST_MAC              \
	{                           \
		0x02, 0, 0, 0, 0, 2 \
	}
#define PEER_HOST_IP	 0xc0000201u /* 192.0.2.1 (RFC 5737) */
#define PEER_GUEST_IP	 0xc0000202u
#define PEER_GUEST_PORT	 4000
#define PEER_PORT_ECHO	 4007 /* gives back what comes */
#define PEER_PORT_SINK	 4009 /* counts; tells the count when asked */
#define PEER_PORT_STREAM 4019 /* streams back for as many ms as asked */

enum peer_kind { PEER_ECHO = 0x65636830, PEER_SINK, PEER_COUNT, PEER_STREAM };

/* A datagram begins with this, in the machine's byte order: both ends are x86. */
struct peer_message {
	unsigned int kind; /* enum peer_kind */
	unsigned long long value;
} __attribute__((packed));

#endif
