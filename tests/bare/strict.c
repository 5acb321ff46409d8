/*
 * Bare guest: a driver that breaks each rule of the strict checker once, under the rule's own name,
 * and before that a driver that breaks none. tests/host/strict looks for the lines; with `fail` on
 * the command line the device must ask for a reset after each.
 */
#include <linux/pci_regs.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <linux/virtio_vsock.h>
#include "bare.h"

#define VERSION_1 (1ull << VIRTIO_F_VERSION_1)
#define INDIRECT  (1ull << VIRTIO_RING_F_INDIRECT_DESC)
#define EVENT_IDX (1ull << VIRTIO_RING_F_EVENT_IDX)
#define SECTOR	  512u
#define Q_RESET	  58

#define STATUS	   VIRTIO_PCI_COMMON_STATUS
#define Q_SELECT   VIRTIO_PCI_COMMON_Q_SELECT
#define DRIVER_SET (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER)
#define FEATURES   (DRIVER_SET | VIRTIO_CONFIG_S_FEATURES_OK)

static struct function blk, rng, net, console, balloon, sockets;
static struct driver d;
static struct virtio_blk_outhdr header;
static u8 status_byte, *data;

/* ---- a driver in steps ---- */

static u64 c(void)
{
	return common(&d);
}

static void fresh(struct function *f)
{
	d = (struct driver){ .f = f };
	reset(&d);
}

/* As far as FEATURES_OK, seen. */
static void negotiated(struct function *f, u64 features)
{
	fresh(f);
	write8(c() + STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	write8(c() + STATUS, DRIVER_SET);
	for (u32 i = 0; i < 2; i++) {
		write32(c() + VIRTIO_PCI_COMMON_GFSELECT, i);
		write32(c() + VIRTIO_PCI_COMMON_GF, (u32)((features | VERSION_1) >> 32 * i));
	}
	write8(c() + STATUS, FEATURES);
	read8(c() + STATUS);
}

static void started(u64 features)
{
	start_modern(&d, &blk, features | VERSION_1, 1);
}

static void request(u32 type, u64 sector, u32 length)
{
	block(&d, type, sector, data, length, DOORBELL_IO);
}

/* A request of one's own making in queue 0. */
static void send(const struct part *parts, u32 count, u32 readable)
{
	add_chain(&d.queue[0], parts, count, readable);
	ring(&d, 0, DOORBELL_IO);
	settle();
}

static void send_broken(void (*break_it)(struct queue *q))
{
	const struct part parts[] = { { &header, sizeof(header) },
				      { data, SECTOR },
				      { &status_byte, 1 } };

	header = (struct virtio_blk_outhdr){ .type = VIRTIO_BLK_T_IN };
	prepare_chain(&d.queue[0], parts, 3, 1);
	break_it(&d.queue[0]);
	barrier();
	d.queue[0].avail->idx++;
	barrier();
	ring(&d, 0, DOORBELL_IO);
	settle();
}

/* ---- registers ---- */

static void status_cleared(void)
{
	started(0);
	write8(c() + STATUS, FEATURES);
}

static void status_order(void)
{
	fresh(&blk);
	write8(c() + STATUS, VIRTIO_CONFIG_S_DRIVER);
}

static void after_failed(void)
{
	fresh(&blk);
	write8(c() + STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	write8(c() + STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_FAILED);
	write8(c() + STATUS, DRIVER_SET | VIRTIO_CONFIG_S_FAILED);
}

static void reset_unread(void)
{
	fresh(&blk);
	write8(c() + STATUS, 0);
	write32(c() + VIRTIO_PCI_COMMON_GFSELECT, 0);
}

static void features_late(void)
{
	started(0);
	write32(c() + VIRTIO_PCI_COMMON_GF, 0);
}

static void features_not_offered(void)
{
	negotiated(&blk, 1ull << 49);
}

static void features_dependency(void)
{
	negotiated(&net, 1ull << VIRTIO_NET_F_GUEST_TSO4);
}

static void features_unread(void)
{
	fresh(&blk);
	write8(c() + STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	write8(c() + STATUS, DRIVER_SET);
	write32(c() + VIRTIO_PCI_COMMON_GFSELECT, 1);
	write32(c() + VIRTIO_PCI_COMMON_GF, (u32)(VERSION_1 >> 32));
	write8(c() + STATUS, FEATURES);
	write8(c() + STATUS, FEATURES | VIRTIO_CONFIG_S_DRIVER_OK);
}

static void version_1(void)
{
	fresh(&blk);
	write8(c() + STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	write8(c() + STATUS, DRIVER_SET);
	write8(c() + STATUS, FEATURES);
}

static void layouts_mixed(void)
{
	started(0);
	out32((u16)(blk.bar[0] + VIRTIO_PCI_GUEST_FEATURES), 0);
}

static u64 configuration(void)
{
	return blk.bar[blk.config.bar] + blk.config.offset;
}

static void config_early(void)
{
	fresh(&blk);
	write8(c() + STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	write8(configuration() + offsetof(struct virtio_blk_config, wce), 1);
}

static void config_readonly(void)
{
	started(0);
	write32(configuration(), 1);
}

static void register_width(void)
{
	fresh(&blk);
	read16(c() + VIRTIO_PCI_COMMON_DFSELECT);
}

static void register_readonly(void)
{
	fresh(&blk);
	write16(c() + VIRTIO_PCI_COMMON_NUMQ, 1);
}

static void window(void)
{
	fresh(&blk);
	config_write(blk.slot, blk.window.at + 4, 1, blk.common.bar);
	config_write(blk.slot, blk.window.at + 8, 4, blk.common.offset + 2);
	config_write(blk.slot, blk.window.at + 12, 4, 4);
	config_read(blk.slot, blk.window.at + 16, 4);
}

static void msix(u32 flags)
{
	config_write(blk.slot, blk.msix + PCI_MSIX_FLAGS, 2, flags);
}

static void isr_under_msix(void)
{
	started(0);
	msix(PCI_MSIX_FLAGS_ENABLE);
	in8((u16)(blk.bar[0] + VIRTIO_PCI_ISR));
	msix(0);
}

static void vector_range(void)
{
	negotiated(&blk, 0);
	set_vector(&d, 0, 0x123);
}

static void vector_unread(void)
{
	negotiated(&blk, 0);
	set_vector(&d, 0, 0);
	write8(c() + STATUS, FEATURES | VIRTIO_CONFIG_S_DRIVER_OK);
}

static void queue_none(void)
{
	negotiated(&blk, 0);
	write16(c() + Q_SELECT, 99);
	write16(c() + VIRTIO_PCI_COMMON_Q_SIZE, 16);
}

static void queue_size(void)
{
	negotiated(&blk, 0);
	write16(c() + Q_SELECT, 0);
	write16(c() + VIRTIO_PCI_COMMON_Q_SIZE, 3);
}

static void queue_late(void)
{
	started(0);
	write32(c() + VIRTIO_PCI_COMMON_Q_DESCLO, 0);
}

static void queue_unconfigured(void)
{
	negotiated(&blk, 0);
	write16(c() + Q_SELECT, 0);
	write16(c() + VIRTIO_PCI_COMMON_Q_ENABLE, 1);
}

static void queue_alignment(void)
{
	negotiated(&blk, 0);
	write16(c() + Q_SELECT, 0);
	write32(c() + VIRTIO_PCI_COMMON_Q_DESCLO, (u32)(u64)data + 8);
	write32(c() + VIRTIO_PCI_COMMON_Q_AVAILLO, (u32)(u64)data + 4096);
	write32(c() + VIRTIO_PCI_COMMON_Q_USEDLO, (u32)(u64)data + 8192);
	write16(c() + VIRTIO_PCI_COMMON_Q_ENABLE, 1);
}

static void queue_enable_zero(void)
{
	started(0);
	write16(c() + VIRTIO_PCI_COMMON_Q_ENABLE, 0);
}

static void queue_reset(void)
{
	started(0);
	write16(c() + Q_RESET, 1);
}

static void kick_early(void)
{
	negotiated(&blk, 0);
	ring(&d, 0, DOORBELL_IO);
	settle();
}

static void kick_disabled(void)
{
	negotiated(&blk, 0);
	write8(c() + STATUS, FEATURES | VIRTIO_CONFIG_S_DRIVER_OK);
	ring(&d, 0, DOORBELL_MEM);
	settle();
}

static void kick_suppressed(void)
{
	started(EVENT_IDX);
	request(VIRTIO_BLK_T_IN, 0, SECTOR);
	for (u32 i = 0; i < 3; i++) {
		ring(&d, 0, DOORBELL_IO);
		settle();
	}
}

/* ---- rings ---- */

static void outside(struct queue *q)
{
	q->desc[1].addr = 0xc0000000;
}

static void jump(struct queue *q)
{
	q->avail->idx += q->size;
}

static void wrong_head(struct queue *q)
{
	q->avail->ring[0] = q->size;
}

static void twice(struct queue *q)
{
	q->avail->ring[1] = 0;
	q->avail->idx++;
}

/* What the disk writes is its own descriptors. */
static void over_itself(struct queue *q)
{
	q->desc[1].addr = (u64)q->desc;
}

static void loop(struct queue *q)
{
	q->desc[0].flags = VRING_DESC_F_NEXT;
	q->desc[0].next = 0;
}

static void bytes(struct queue *q)
{
	for (u16 i = 0; i < 40; i++) {
		q->desc[i].addr = 0;
		q->desc[i].len = 0x7000000;
		q->desc[i].flags = i < 39 ? VRING_DESC_F_NEXT : 0;
		q->desc[i].next = (u16)(i + 1);
	}
}

static void order(struct queue *q)
{
	q->desc[0].flags |= VRING_DESC_F_WRITE;
	q->desc[1].flags &= (u16)~VRING_DESC_F_WRITE;
}

static void indirect(struct queue *q)
{
	q->desc[0].flags = VRING_DESC_F_INDIRECT;
}

static void flags(struct queue *q)
{
	q->desc[0].flags |= 0x100;
}

static void suppression(struct queue *q)
{
	q->avail->flags = 2;
}

static void (*ring_breaker)(struct queue *q);

static void broken_ring(void)
{
	started(0);
	send_broken(ring_breaker);
}

static void ring_long(void)
{
	static struct vring_desc table[8];
	struct queue *q = &d.queue[0];

	negotiated(&blk, INDIRECT);
	make_queue(q, 0, 4);
	enable_queue(&d, 0);
	write8(c() + STATUS, FEATURES | VIRTIO_CONFIG_S_DRIVER_OK);
	header = (struct virtio_blk_outhdr){ .type = VIRTIO_BLK_T_IN };
	for (u16 i = 0; i < 6; i++)
		table[i] = (struct vring_desc){
			.addr = i ? (u64)data + i * SECTOR : (u64)&header,
			.len = i ? SECTOR : sizeof(header),
			.flags = (u16)((i ? VRING_DESC_F_WRITE : 0) |
				       (i < 5 ? VRING_DESC_F_NEXT : 0)),
			.next = (u16)(i + 1),
		};
	table[5].len = 1;
	q->desc[0] =
		(struct vring_desc){ (u64)table, 6 * sizeof(table[0]), VRING_DESC_F_INDIRECT, 0 };
	q->avail->ring[0] = 0;
	barrier();
	q->avail->idx++;
	ring(&d, 0, DOORBELL_IO);
	settle();
}

/* ---- devices ---- */

static void blk_request(void)
{
	started(0);
	request(99, 0, SECTOR);
}

static void blk_length(void)
{
	started(0);
	request(VIRTIO_BLK_T_IN, 0, 100);
}

static void blk_capacity(void)
{
	started(0);
	request(VIRTIO_BLK_T_IN, 1ull << 40, SECTOR);
}

static void blk_flush(void)
{
	started(1ull << VIRTIO_BLK_F_FLUSH);
	request(VIRTIO_BLK_T_FLUSH, 5, 0);
}

static void blk_ranges(void)
{
	const struct part parts[] = { { &header, sizeof(header) },
				      { data, 17 },
				      { &status_byte, 1 } };

	started(0);
	header = (struct virtio_blk_outhdr){ .type = VIRTIO_BLK_T_DISCARD };
	send(parts, 3, 2);
}

static void blk_feature(void)
{
	started(0);
	request(VIRTIO_BLK_T_FLUSH, 0, 0);
}

static void blk_framing(void)
{
	const struct part parts[] = {
		{ &header, 8 }, { (u8 *)&header + 8, 8 }, { data, SECTOR }, { &status_byte, 1 }
	};

	start_legacy(&d, &blk, 0, 1);
	header = (struct virtio_blk_outhdr){ .type = VIRTIO_BLK_T_IN };
	add_chain(&d.queue[0], parts, 4, 2);
	ring(&d, 0, DOORBELL_LEGACY);
	wait_used(&d.queue[0]);
	/* the rest of the test is modern */
	out8((u16)(blk.bar[0] + VIRTIO_PCI_STATUS), 0);
	in8((u16)(blk.bar[0] + VIRTIO_PCI_STATUS));
}

static struct virtio_net_hdr_v1 frame;

/* One buffer into one of the network's queues. */
static void net_buffer(u64 features, u32 queue, void *at, u32 length, bool readable)
{
	const struct part part = { at, length };

	start_modern(&d, &net, features | VERSION_1, 3);
	add_chain(&d.queue[queue], &part, 1, readable);
	ring(&d, queue, DOORBELL_IO);
	settle();
}

static void transmit(u64 features, u32 length)
{
	*(struct virtio_net_hdr_v1 *)data = frame;
	net_buffer(features, 1, data, sizeof(frame) + length, true);
	frame = (struct virtio_net_hdr_v1){ 0 };
}

static void net_header(void)
{
	net_buffer(0, 1, data, 2000, false);
}

static void net_flags(void)
{
	frame.flags = VIRTIO_NET_HDR_F_DATA_VALID;
	transmit(0, 60);
}

static void net_gso(void)
{
	frame.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
	transmit(0, 60);
}

static void net_length(void)
{
	transmit(1ull << VIRTIO_NET_F_MTU, 5000);
}

static void net_receive(void)
{
	net_buffer(0, 0, data, 100, false);
}

static void net_control(void)
{
	const struct part parts[] = { { "\x63", 2 }, { &status_byte, 1 } };

	start_modern(&d, &net, VERSION_1 | 1ull << VIRTIO_NET_F_CTRL_VQ, 3);
	add_chain(&d.queue[2], parts, 2, 1);
	ring(&d, 2, DOORBELL_IO);
	settle();
}

static void rng_buffer(void)
{
	const struct part parts[] = { { data, 16 }, { data, 16 } };

	start_modern(&d, &rng, VERSION_1, 1);
	send(parts, 2, 1);
}

static void console_buffer(void)
{
	start_modern(&d, &console, VERSION_1, 2);
	add_chain(&d.queue[1], &(const struct part){ data, 16 }, 1, 0);
	ring(&d, 1, DOORBELL_IO);
	settle();
}

static void console_control(void)
{
	static struct virtio_console_control ready = { .id = 9,
						       .event = VIRTIO_CONSOLE_PORT_READY,
						       .value = 1 };

	start_modern(&d, &console, VERSION_1 | 1ull << VIRTIO_CONSOLE_F_MULTIPORT, 4);
	add_chain(&d.queue[3], &(const struct part){ &ready, sizeof(ready) }, 1, 1);
	ring(&d, 3, DOORBELL_IO);
	settle();
}

/* What page numbers there are, on both queues. */
static void balloon_array(void *array, u32 size)
{
	start_modern(&d, &balloon, VERSION_1, 2);
	for (u32 i = 0; i < 2; i++) {
		add_chain(&d.queue[i], &(const struct part){ array, size }, 1, 1);
		ring(&d, i, DOORBELL_IO);
	}
	settle();
}

static void balloon_buffer(void)
{
	static u32 page = 0xfff;

	balloon_array(&page, 2);
}

static void balloon_page(void)
{
	static u32 page = 0xffffffff;

	balloon_array(&page, sizeof(page));
}

static void vsock_packet(u32 bytes, u32 payload, u64 from)
{
	static struct virtio_vsock_hdr packet;

	packet = (struct virtio_vsock_hdr){ .src_cid = from,
					    .dst_cid = 2,
					    .len = payload,
					    .type = VIRTIO_VSOCK_TYPE_STREAM,
					    .op = VIRTIO_VSOCK_OP_REQUEST };
	start_modern(&d, &sockets, VERSION_1, 2);
	add_chain(&d.queue[1], &(const struct part){ &packet, bytes }, 1, 1);
	ring(&d, 1, DOORBELL_MEM); /* it has no I/O BAR */
	settle();
}

static void vsock_buffer(void)
{
	vsock_packet(sizeof(struct virtio_vsock_hdr), 1, 3);
}

static void vsock_header(void)
{
	vsock_packet(sizeof(struct virtio_vsock_hdr), 0, 4);
}

static const struct {
	const char *rule;
	void (*break_it)(void);
	void (*ring)(struct queue *q);
	struct function *f;
	bool should;
} rules[] = {
	{ "status-cleared", status_cleared, NULL, &blk, false },
	{ "status-order", status_order, NULL, &blk, false },
	{ "after-failed", after_failed, NULL, &blk, false },
	{ "reset-unread", reset_unread, NULL, &blk, false },
	{ "features-late", features_late, NULL, &blk, false },
	{ "features-not-offered", features_not_offered, NULL, &blk, false },
	{ "features-dependency", features_dependency, NULL, &net, false },
	{ "features-unread", features_unread, NULL, &blk, false },
	{ "version-1", version_1, NULL, &blk, false },
	{ "layouts-mixed", layouts_mixed, NULL, &blk, false },
	{ "config-early", config_early, NULL, &blk, false },
	{ "config-readonly", config_readonly, NULL, &blk, false },
	{ "register-width", register_width, NULL, &blk, false },
	{ "register-readonly", register_readonly, NULL, &blk, false },
	{ "window", window, NULL, &blk, false },
	{ "isr-under-msix", isr_under_msix, NULL, &blk, true },
	{ "vector-range", vector_range, NULL, &blk, false },
	{ "vector-unread", vector_unread, NULL, &blk, false },
	{ "queue-none", queue_none, NULL, &blk, false },
	{ "queue-size", queue_size, NULL, &blk, false },
	{ "queue-late", queue_late, NULL, &blk, false },
	{ "queue-unconfigured", queue_unconfigured, NULL, &blk, false },
	{ "queue-alignment", queue_alignment, NULL, &blk, false },
	{ "queue-enable-zero", queue_enable_zero, NULL, &blk, false },
	{ "queue-reset", queue_reset, NULL, &blk, false },
	{ "kick-early", kick_early, NULL, &blk, false },
	{ "kick-disabled", kick_disabled, NULL, &blk, false },
	{ "kick-suppressed", kick_suppressed, NULL, &blk, true },
	{ "ring-memory", broken_ring, outside, &blk, false },
	{ "ring-index", broken_ring, jump, &blk, false },
	{ "ring-head", broken_ring, wrong_head, &blk, false },
	{ "ring-in-flight", broken_ring, twice, &blk, false },
	{ "ring-changed", broken_ring, over_itself, &blk, false },
	{ "ring-loop", broken_ring, loop, &blk, false },
	{ "ring-long", ring_long, NULL, &blk, false },
	{ "ring-bytes", broken_ring, bytes, &blk, false },
	{ "ring-order", broken_ring, order, &blk, false },
	{ "ring-indirect", broken_ring, indirect, &blk, false },
	{ "ring-flags", broken_ring, flags, &blk, true },
	{ "ring-suppression", broken_ring, suppression, &blk, false },
	{ "blk-request", blk_request, NULL, &blk, false },
	{ "blk-length", blk_length, NULL, &blk, false },
	{ "blk-capacity", blk_capacity, NULL, &blk, false },
	{ "blk-flush", blk_flush, NULL, &blk, false },
	{ "blk-ranges", blk_ranges, NULL, &blk, false },
	{ "blk-feature", blk_feature, NULL, &blk, false },
	{ "blk-framing", blk_framing, NULL, &blk, true }, /* its reset mends it at once */
	{ "net-header", net_header, NULL, &net, false },
	{ "net-flags", net_flags, NULL, &net, false },
	{ "net-gso", net_gso, NULL, &net, false },
	{ "net-length", net_length, NULL, &net, false },
	{ "net-receive", net_receive, NULL, &net, true },
	{ "net-control", net_control, NULL, &net, false },
	{ "rng-buffer", rng_buffer, NULL, &rng, false },
	{ "console-buffer", console_buffer, NULL, &console, false },
	{ "console-control", console_control, NULL, &console, false },
	{ "balloon-buffer", balloon_buffer, NULL, &balloon, false },
	{ "balloon-page", balloon_page, NULL, &balloon, false },
	{ "vsock-buffer", vsock_buffer, NULL, &sockets, false },
	{ "vsock-header", vsock_header, NULL, &sockets, false },
};

/* Both layouts, both doorbells, as the specification has it. */
static void behave(void)
{
	for (u32 i = 0; i < 4; i++) {
		started(i & 1 ? EVENT_IDX | INDIRECT : 0);
		for (u32 n = 0; n < 4; n++)
			if (block(&d, n & 1 ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, n, data, SECTOR,
				  i & 2 ? DOORBELL_MEM : DOORBELL_IO) != VIRTIO_BLK_S_OK)
				say("not ok strict: a driver that keeps to the rules is refused\n");
		reset(&d);
	}
	start_legacy(&d, &blk, 0, 1);
	block(&d, VIRTIO_BLK_T_IN, 0, data, SECTOR, DOORBELL_LEGACY);
	reset(&d);
}

/* Another device, which the same thread serves, answers: so what was notified before has been seen.
 */
static void catch_up(struct function *f)
{
	struct driver other = { 0 };

	start_modern(&other, f, VERSION_1, 1);
	if (f == &rng) {
		add_chain(&other.queue[0], &(const struct part){ data, 16 }, 1, 0);
		ring(&other, 0, DOORBELL_IO);
		wait_used(&other.queue[0]);
	} else {
		block(&other, VIRTIO_BLK_T_IN, 0, data, SECTOR, DOORBELL_IO);
	}
	reset(&other);
}

void break_rules(bool fail, bool only_behave)
{
	bool network = find_function(&net, VIRTIO_ID_NET, 0);

	data = allocate(65536, 4096);
	find_function(&blk, VIRTIO_ID_BLOCK, 0);
	find_function(&rng, VIRTIO_ID_RNG, 0);
	find_function(&console, VIRTIO_ID_CONSOLE, 0);
	find_function(&balloon, VIRTIO_ID_BALLOON, 0);
	find_function(&sockets, VIRTIO_ID_VSOCK, 0);
	behave();
	say("behaved\n");
	if (only_behave)
		machine_end(77);
	for (u32 i = 0; i < ARRAY_SIZE(rules); i++) {
		u32 patience = 20000;
		bool needs_reset;

		if (rules[i].f == &net && !network)
			continue;
		ring_breaker = rules[i].ring;
		rules[i].break_it();
		catch_up(rules[i].f == &rng ? &blk : &rng);
		say("broke %s\n", rules[i].rule);
		if (!fail)
			continue;
		do {
			needs_reset = read8(c() + STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET;
		} while (!needs_reset && !rules[i].should && patience--);
		say("%s %s\n", needs_reset ? "needs-reset" : "goes-on", rules[i].rule);
	}
	for (u32 i = 0; i < 6; i++) {
		struct function *const all[] = { &blk, &rng, &console, &balloon, &sockets, &net };

		d.f = all[i];
		if (d.f != &net || network)
			reset(&d);
	}
	behave();
	machine_end(77);
}
