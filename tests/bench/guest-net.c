/*
 * Bench guest: UDP over virtio-net, against the services of tests/bench/peer.c. Words: mode=rr (a
 * datagram there and back, one at a time), mode=tx (a stream of them out), mode=rx (a stream in);
 * qd=N frames in flight out; len=BYTES of a frame, virtio header apart.
 */
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <linux/virtio_net.h>
#include "guest.h"
#include "peer.h"

#define ROOM	  2048u /* of a receive buffer */
#define BUFFERS	  QUEUE_SIZE
#define OUT_MAX	  128u
#define MS_PLENTY 20u /* nobody answers after that long */

struct frame {
	struct virtio_net_hdr_v1 header;
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	struct peer_message message;
} __attribute__((packed));

static struct function f;
static struct driver d;
static struct lane lanes[2];
static struct lane *const rx = &lanes[0], *const tx = &lanes[1];
static u8 *in;
static struct frame *out[OUT_MAX];
static u64 length; /* of a frame without the virtio header */

static u16 swap16(u32 v)
{
	return (u16)(v << 8 | (v >> 8 & 0xff));
}

static u32 swap32(u32 v)
{
	return __builtin_bswap32(v);
}

/* Of the IP header (RFC 791); UDP's may be zero (RFC 768). */
static u16 checksum(const void *at, u32 words)
{
	u32 sum = 0;

	for (u32 i = 0; i < words; i++)
		sum += read16((u64)at + i * 2);
	sum = (sum & 0xffff) + (sum >> 16);
	return (u16) ~(sum + (sum >> 16));
}

static void make_frame(struct frame *t, u16 port)
{
	static const u8 to[6] = PEER_HOST_MAC, from[6] = PEER_GUEST_MAC;

	for (u32 i = 0; i < 6; i++) {
		t->eth.h_dest[i] = to[i];
		t->eth.h_source[i] = from[i];
	}
	t->eth.h_proto = swap16(ETH_P_IP);
	t->ip.version = 4;
	t->ip.ihl = 5;
	t->ip.tot_len = swap16((u32)length - ETH_HLEN);
	t->ip.ttl = 64;
	t->ip.protocol = IPPROTO_UDP;
	t->ip.saddr = swap32(PEER_GUEST_IP);
	t->ip.daddr = swap32(PEER_HOST_IP);
	t->ip.check = 0;
	t->ip.check = checksum(&t->ip, sizeof(t->ip) / 2);
	t->udp.source = swap16(PEER_GUEST_PORT);
	t->udp.dest = swap16(port);
	t->udp.len = swap16((u32)length - ETH_HLEN - sizeof(t->ip));
}

static void send(u32 slot, u32 kind, u64 value)
{
	out[slot]->message.kind = kind;
	out[slot]->message.value = value;
	tx->q->avail->ring[tx->available++ % tx->q->size] = (u16)slot;
}

/* Takes what came in and gives the buffers back; the last of our kind of datagrams is *got. */
static u32 receive(u32 kind, u64 *got)
{
	u32 head, bytes, count = 0;

	while (take(rx, &head, &bytes)) {
		const struct frame *t = (const struct frame *)(in + head * ROOM);

		if (bytes >= sizeof(*t) && t->eth.h_proto == swap16(ETH_P_IP) &&
		    t->udp.dest == swap16(PEER_GUEST_PORT) && t->message.kind == kind) {
			*got = t->message.value;
			count++;
		}
		rx->q->avail->ring[rx->available++ % rx->q->size] = (u16)head;
	}
	publish(rx);
	return count;
}

static void start_net(u16 port)
{
	if (!find_function(&f, VIRTIO_ID_NET, 0))
		give_up("no network function");
	start_lanes(&d, &f, 1ull << VIRTIO_NET_F_MAC, lanes, 2);
	in = allocate((u64)BUFFERS * ROOM, 4096);
	for (u32 i = 0; i < BUFFERS; i++) {
		rx->q->desc[i] =
			(struct vring_desc){ (u64)(in + i * ROOM), ROOM, VRING_DESC_F_WRITE, 0 };
		rx->q->avail->ring[rx->available++ % rx->q->size] = (u16)i;
	}
	for (u32 i = 0; i < OUT_MAX; i++) {
		out[i] = allocate(ROOM, 64);
		make_frame(out[i], port);
		tx->q->desc[i] = (struct vring_desc){
			(u64)out[i], (u32)(sizeof(struct virtio_net_hdr_v1) + length), 0, 0
		};
	}
	publish(rx);
}

/* One datagram, until its answer is there (true) or is not to be expected any more. */
static bool transaction(u32 kind, u64 value, u64 *answer)
{
	u64 end = now() + ticks_of_ms(MS_PLENTY);
	bool sent = false, answered = false;
	u32 head, bytes;

	send(0, kind, value);
	publish(tx);
	while (!(sent && answered)) {
		u64 got;

		sent = sent || take(tx, &head, &bytes);
		if (receive(kind, &got) && (kind != PEER_ECHO || got == value)) {
			*answer = got;
			answered = true;
		}
		if (sent && now() > end)
			return false;
		__asm__ volatile("pause");
	}
	return true;
}

static void run_rr(u64 ms)
{
	u64 start, end, n = 0, errors = 0, answer;

	ready();
	start = now();
	end = start + ticks_of_ms(ms);
	while (now() < end) {
		u64 t = now();

		if (!transaction(PEER_ECHO, n + 1, &answer)) {
			errors++;
			continue;
		}
		n++;
		histogram_add(now() - t);
	}
	/* A datagram lost on the way is no error of a device; many are. */
	result(n, now() - start, tx->kicks, errors * 100 > n ? errors : 0);
}

static bool ask_count(u64 *count)
{
	for (u32 tries = 0; tries < 50; tries++)
		if (transaction(PEER_COUNT, 0, count))
			return true;
	return false;
}

/* What counts is what the other end has seen. */
static void run_tx(u64 ms)
{
	u32 depth = (u32)number("qd", 64), head, bytes;
	u64 start, end, before = 0, after = 0, got, took;

	if (!depth || depth > OUT_MAX)
		give_up("qd");
	ready();
	if (!ask_count(&before))
		give_up("the other end does not answer");
	start = now();
	end = start + ticks_of_ms(ms);
	for (u32 i = 0; i < depth; i++)
		send(i, PEER_SINK, 0);
	publish(tx);
	while (now() < end) {
		while (take(tx, &head, &bytes)) {
			send(head, PEER_SINK, 0);
		}
		publish(tx);
		receive(PEER_SINK, &got);
		__asm__ volatile("pause");
	}
	for (u32 left = depth; left; left -= take(tx, &head, &bytes))
		;
	took = now() - start;
	if (!ask_count(&after))
		give_up("the other end does not answer any more");
	result(after - before, took, tx->kicks, 0);
}

static void run_rx(u64 ms)
{
	u64 start = 0, end = 0, n = 0, got;

	ready();
	send(0, PEER_STREAM, ms + 300);
	publish(tx);
	start = now();
	/* The time counts from the first one on. */
	while (!receive(PEER_STREAM, &got))
		if (now() - start > ticks_of_ms(2000))
			give_up("no stream comes");
	start = now();
	end = start + ticks_of_ms(ms);
	while (now() < end) {
		n += receive(PEER_STREAM, &got);
		__asm__ volatile("pause");
	}
	result(n, now() - start, rx->kicks, 0);
}

void bench_net(void)
{
	u64 ms = number("ms", 1000);
	bool tx_mode = chosen("mode", "tx"), rx_mode = chosen("mode", "rx");

	length = number("len", 64);
	if (length < sizeof(struct frame) - sizeof(struct virtio_net_hdr_v1) || length > 1514)
		give_up("len");
	start_net(tx_mode ? PEER_PORT_SINK : rx_mode ? PEER_PORT_STREAM : PEER_PORT_ECHO);
	if (tx_mode)
		run_tx(ms);
	else if (rx_mode)
		run_rx(ms);
	else
		run_rr(ms);
}
