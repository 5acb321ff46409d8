/*
 * tsan: the network device with vhost=on, over a real tap and a vhost-net of paper: what it offers,
 * which drivers it leaves to vhost-net, and that rings stop and go on with all that a driver does.
 * (Frames that vhost-net really carries: tests/guest/vhost.sh.)
 */
#include "tests/unit/net-bench.h"
#include "tests/unit/vhost-fake.h"

/* What Linux's driver takes, of what there is with vhost=on. */
#define FEATURES                                                                           \
	(F(MAC) | F(STATUS) | F(MTU) | F(CTRL_VQ) | F(CTRL_MAC_ADDR) | F(GUEST_ANNOUNCE) | \
	 F(CSUM) | F(GUEST_CSUM) | F(HOST_TSO4) | F(GUEST_TSO4) | F(CTRL_GUEST_OFFLOADS) | \
	 F(MRG_RXBUF))
#define RING_RESET BIT64(VIRTIO_F_RING_RESET)

static struct bench *up(void **state, struct bench_options options)
{
	fake_init();
	options.epoll = epoll_of(state);
	options.vhost = &fake_kernel;
	return bench_up(&options);
}

static struct bench *up_plain(void **state, u64 features, u16 queues)
{
	struct bench *b = up(state, (struct bench_options){ .features = features,
							    .queues = queues,
							    .threads = queues > 1 ? 2 : 1 });

	driver_wait(fake_runs(0, VHOST_RX) && fake_runs(0, VHOST_TX));
	return b;
}

static bool by_vhost(struct bench *b)
{
	return atomic_load(&b->net->by_vhost);
}

static u64 batches(struct bench *b, u16 queue)
{
	return __atomic_load_n(&b->device->queues[queue].counts.batches, __ATOMIC_RELAXED);
}

static u64 kicks(struct bench *b, u16 queue)
{
	return __atomic_load_n(&b->device->queues[queue].counts.kicks, __ATOMIC_RELAXED);
}

static void bus_master(struct bench *b, bool on)
{
	pthread_mutex_lock(&b->device->lock);
	virtio_device_bus_master(b->device, on);
	pthread_mutex_unlock(&b->device->lock);
}

static void set_interrupt(struct bench *b, u16 queue, s32 file, s32 fd)
{
	pthread_mutex_lock(&b->device->lock);
	virtio_queue_set_interrupt(&b->device->queues[queue], file, fd);
	pthread_mutex_unlock(&b->device->lock);
}

/* ---- what it offers ---- */

static void offers_what_both_can(void **state)
{
	const u64 ours = F(MAC) | F(STATUS) | F(MTU) | F(MRG_RXBUF) | F(CTRL_VQ) |
			 F(CTRL_MAC_ADDR) | F(GUEST_ANNOUNCE) | F(CSUM) | F(GUEST_CSUM) |
			 F(HOST_TSO4) | F(GUEST_TSO4) | F(CTRL_GUEST_OFFLOADS) | RING_RESET |
			 BIT64(VIRTIO_F_VERSION_1) | BIT64(VIRTIO_RING_F_EVENT_IDX) |
			 BIT64(VIRTIO_RING_F_INDIRECT_DESC) | BIT64(VIRTIO_F_ANY_LAYOUT);
	/* nobody would filter; vhost-net of today has split rings alone */
	const u64 never = F(CTRL_RX) | F(CTRL_RX_EXTRA) | F(CTRL_VLAN) |
			  BIT64(VIRTIO_F_RING_PACKED) | BIT64(VIRTIO_F_IN_ORDER) |
			  BIT64(38) /* NOTIFICATION_DATA */ | BIT64(VIRTIO_F_ACCESS_PLATFORM);
	struct bench *b = up(state, (struct bench_options){ .idle = true });
	struct vhost poor = { .features = BIT64(VIRTIO_F_VERSION_1) };

	assert_int_equal(b->device->offered & (ours | never), ours);
	assert_int_equal(net_vhost_offered(&poor, F(MRG_RXBUF) | F(MAC)), F(MAC));
	assert_int_equal(net_vhost_withheld(&poor) &
				 (BIT64(VIRTIO_RING_F_EVENT_IDX) | BIT64(VIRTIO_F_VERSION_1) |
				  BIT64(VIRTIO_RING_F_INDIRECT_DESC) | RING_RESET |
				  BIT64(VIRTIO_F_NOTIFY_ON_EMPTY)),
			 BIT64(VIRTIO_RING_F_EVENT_IDX) | BIT64(VIRTIO_RING_F_INDIRECT_DESC) |
				 BIT64(VIRTIO_F_NOTIFY_ON_EMPTY));
}

static void keeps_to_an_mtu_by_itself(void **state)
{
	char said[1000];
	struct bench *b;

	netns_needed(); /* before stderr is gone */
	capture_begin();
	b = up(state, (struct bench_options){ .features = FEATURES, .told_mtu = 1400 });
	capture_end(said, sizeof(said));
	assert_non_null(strstr(said, "ip link set " BENCH_TAP " mtu 1400"));
	assert_false(by_vhost(b));
	assert_int_equal(fake.pairs[0].regions, 0);
	assert_int_equal(b->device->offered & F(CTRL_VLAN), F(CTRL_VLAN));
}

/* ---- a driver comes ---- */

static void lends_its_rings(void **state)
{
	struct bench *b = up_plain(state, FEATURES, 1);
	static u8 frame[100];
	struct fake_ring ring;

	assert_true(by_vhost(b));
	assert_int_equal(fake_told(0), BIT64(VIRTIO_F_VERSION_1) | F(MRG_RXBUF));
	for (u16 n = 0; n < 2; n++) {
		ring = fake_ring(0, n);
		assert_int_equal(ring.size, BENCH_RING);
		assert_int_equal(ring.base, 0);
		assert_ptr_equal((void *)ring.descriptors, b->rings[n].descriptors);
		assert_ptr_equal((void *)ring.available, b->rings[n].available);
		assert_ptr_equal((void *)ring.used, b->rings[n].used);
		assert_int_equal(ring.kick, b->device->queues[n].doorbell_fd);
		assert_int_equal(ring.backend, b->tap.fds[0]);
		assert_int_equal(ring.call, -1); /* no vector yet */
		assert_int_equal(ring.poll_us, 0);
		/* what was available before is announced */
		pthread_mutex_lock(&b->net->pairs[0].vhost.lock);
		assert_int_equal(b->net->pairs[0].vhost.rings[n].own_kicks, 1);
		pthread_mutex_unlock(&b->net->pairs[0].vhost.lock);
	}
	/* once the reactor has called back its own reads, nobody here takes doorbells away */
	assert_int_equal(ctrl_u16(b, VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, 0),
			 VIRTIO_NET_OK);
	driver_interrupts(b->device->queues[0].doorbell_fd);
	driver_interrupts(b->device->queues[1].doorbell_fd);
	/* what the driver does from now on is none of ours */
	rx_add(b, 0, 20, 1526);
	world_send(b, 99, bench_mac, 1);
	frame_fill(frame, sizeof(frame), other_mac, 1);
	assert_true(driver_add(&b->rings[1], &(struct driver_part){ TX_AT, 112, false }, 1) >= 0);
	driver_kick(&b->rings[1]);
	assert_int_equal(ctrl_u16(b, VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, 0),
			 VIRTIO_NET_OK);
	assert_int_equal(driver_interrupts(b->device->queues[0].doorbell_fd), 1);
	assert_int_equal(driver_interrupts(b->device->queues[1].doorbell_fd), 1);
	assert_int_equal(batches(b, 0) + batches(b, 1), 0);
	assert_false(rx_waiting(b, 0));
	assert_int_equal(b->rings[0].used->flags, 0);
}

static void tells_what_was_negotiated(void **state)
{
	const u64 rings = BIT64(VIRTIO_RING_F_EVENT_IDX) | BIT64(VIRTIO_RING_F_INDIRECT_DESC);
	struct bench *b =
		up(state, (struct bench_options){ .features = FEATURES | rings | RING_RESET });

	driver_wait(fake_runs(0, VHOST_RX));
	assert_int_equal(fake_told(0), BIT64(VIRTIO_F_VERSION_1) | F(MRG_RXBUF) | rings);
	assert_int_equal(b->net->header, 12);
}

/* To vhost-net ANY_LAYOUT's bit means that it shall make vnet headers up. */
static void tells_no_legacy_driver_bits_of_its_own(void **state)
{
	const u64 legacy = BIT64(VIRTIO_F_ANY_LAYOUT) | BIT64(VIRTIO_F_NOTIFY_ON_EMPTY);
	struct bench *b =
		up(state, (struct bench_options){ .features = (FEATURES & ~F(MRG_RXBUF)) | legacy,
						  .legacy = true });

	driver_wait(fake_runs(0, VHOST_RX) && fake_runs(0, VHOST_TX));
	assert_int_equal(fake_told(0), BIT64(VIRTIO_F_NOTIFY_ON_EMPTY));
	assert_int_equal(b->net->header, 10);
	assert_int_equal(fake_ring(0, VHOST_RX).size, NET_QUEUE_SIZE);
}

/* Such drivers have rights that vhost-net does not give them; they get them here. */
static void serves_itself(void **state, u64 features, const char *words)
{
	struct bench *b = up(state, (struct bench_options){ .idle = true });
	char said[1000];

	capture_begin();
	bench_negotiate(b, &(struct bench_options){ .features = features });
	capture_end(said, sizeof(said));
	assert_non_null(strstr(said, words));
	assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1);
	assert_false(by_vhost(b));
	rx_add(b, 0, 20, 1526);
	world_send(b, 99, bench_mac, 1);
	rx_expect(b, 0, 99, bench_mac, 1);
	assert_int_equal(bench_counts(b).rx_frames, 1);
	assert_int_equal(fake_ring(0, VHOST_RX).starts, 0);
	/* the next may be another */
	driver_reset(b->device);
	bench_forget(b);
	fake_fail(0, 0, 0);
	bench_negotiate(b, &(struct bench_options){ .features = FEATURES });
	driver_wait(fake_runs(0, VHOST_RX) && fake_runs(0, VHOST_TX));
}

static void serves_drivers_that_do_not_merge(void **state)
{
	serves_itself(state, FEATURES & ~F(MRG_RXBUF), "does not merge receive buffers");
}

static void serves_drivers_without_checksums(void **state)
{
	serves_itself(state, FEATURES & ~(F(GUEST_CSUM) | F(GUEST_TSO4)),
		      "takes no part in checksums");
}

static void serves_what_vhost_refuses(void **state)
{
	struct bench *b = up(state, (struct bench_options){ .idle = true });
	char said[1000];

	fake_fail(VHOST_SET_FEATURES, -EFAULT, 0);
	capture_begin();
	bench_negotiate(b, &(struct bench_options){ .features = FEATURES });
	capture_end(said, sizeof(said));
	assert_non_null(strstr(said, "vhost-net refuses features"));
	assert_false(by_vhost(b));
	rx_add(b, 0, 20, 1526);
	world_send(b, 99, bench_mac, 1);
	rx_expect(b, 0, 99, bench_mac, 1);
}

/* 5.1.6.4.1: frames that waited may be such as this driver did not agree to. */
static void drops_what_waited_before(void **state)
{
	struct bench *b = up(state, (struct bench_options){ .idle = true });
	u8 head[64];

	for (u32 i = 0; i < 20; i++)
		world_send(b, 99, bench_mac, i);
	bench_negotiate(b, &(struct bench_options){ .features = FEATURES });
	assert_int_equal(read(b->tap.fds[0], head, sizeof(head)), -1);
	assert_int_equal(errno, EAGAIN);
}

/* ---- interrupts ---- */

static void interrupts_follow_the_vector(void **state)
{
	struct bench *b = up_plain(state, FEATURES, 1);
	int first = eventfd(0, EFD_NONBLOCK), second = eventfd(0, EFD_NONBLOCK);

	set_interrupt(b, 0, 3, first); /* done when the register access is */
	assert_int_equal(fake_ring(0, VHOST_RX).call, first);
	assert_int_equal(fake_ring(0, VHOST_TX).call, -1);
	set_interrupt(b, 1, 4, second);
	set_interrupt(b, 0, 4, second);
	assert_int_equal(fake_ring(0, VHOST_RX).call, second);
	assert_int_equal(fake_ring(0, VHOST_TX).call, second);
	set_interrupt(b, 0, VIRTIO_INTERRUPT_NONE, VIRTIO_INTERRUPT_NONE);
	assert_int_equal(fake_ring(0, VHOST_RX).call, -1);
	/* the control queue's is no ring's of the second pair, which there is not */
	set_interrupt(b, 2, 3, first);
	driver_reset(b->device);
	set_interrupt(b, 0, 3, first);
	bench_forget(b);
	bench_negotiate(b, &(struct bench_options){ .features = FEATURES });
	driver_wait(fake_runs(0, VHOST_RX));
	assert_int_equal(fake_ring(0, VHOST_RX).call, first);
	close(first);
	close(second);
}

static void line_interrupts_set_the_isr(void **state)
{
	struct bench *b = up(state, (struct bench_options){ .idle = true });
	int relay;

	set_interrupt(b, 0, VIRTIO_INTERRUPT_INTX, VIRTIO_INTERRUPT_INTX);
	set_interrupt(b, 1, VIRTIO_INTERRUPT_INTX, VIRTIO_INTERRUPT_INTX);
	bench_negotiate(b, &(struct bench_options){ .features = FEATURES });
	driver_wait(fake_runs(0, VHOST_RX) && fake_runs(0, VHOST_TX));
	relay = fake_ring(0, VHOST_RX).call;
	assert_true(relay >= 0);
	assert_int_equal(fake_ring(0, VHOST_TX).call, relay);
	assert_int_equal(virtio_isr_read(b->device), 0);
	for (u32 i = 0; i < 3; i++) {
		eventfd_write(relay, 1); /* as the worker does */
		driver_wait(virtio_isr_read(b->device) == VIRTIO_ISR_QUEUE);
	}
	driver_wait(__atomic_load_n(&b->device->queues[0].counts.interrupts, __ATOMIC_RELAXED) ==
		    3);
}

/* ---- rings stop and go on ---- */

static void stops_without_bus_mastering(void **state)
{
	struct bench *b = up_plain(state, FEATURES, 1);
	struct fake_ring ring;

	driver_interrupts(b->device->queues[0].doorbell_fd);
	fake_progress(0, VHOST_RX, 41);
	fake_progress(0, VHOST_TX, 65000);
	bus_master(b, false);
	assert_false(fake_runs(0, VHOST_RX)); /* as soon as the register access ends */
	assert_false(fake_runs(0, VHOST_TX));
	/* a vector that moves meanwhile */
	set_interrupt(b, 0, 3, b->device->queues[2].doorbell_fd);
	bus_master(b, true);
	ring = fake_ring(0, VHOST_RX);
	assert_true(ring.backend >= 0);
	assert_int_equal(ring.base, 41);
	assert_int_equal(ring.call, b->device->queues[2].doorbell_fd);
	assert_int_equal(fake_ring(0, VHOST_TX).base, 65000);
	/* the driver may have rung meanwhile */
	assert_int_equal(driver_interrupts(b->device->queues[0].doorbell_fd), 1);
	set_interrupt(b, 0, VIRTIO_INTERRUPT_NONE, VIRTIO_INTERRUPT_NONE);
}

static void stops_at_a_reset(void **state)
{
	struct bench *b = up_plain(state, FEATURES, 1);
	u64 before;

	for (u32 i = 0; i < 20; i++) {
		if (i & 1) /* some are reset before they have run */
			driver_wait(fake_runs(0, VHOST_RX) && fake_runs(0, VHOST_TX));
		rx_add(b, 0, 3, 1526);
		before = kicks(b, 0);
		driver_reset(b->device);
		for (u16 n = 0; n < 2; n++) {
			assert_int_equal(fake_ring(0, n).backend, -1);
			assert_int_equal(fake_ring(0, n).kick, -1);
		}
		/* the driver's one, if not all of it went with a read that was called back; not
		 * ours */
		if (i & 1)
			assert_true(kicks(b, 0) <= before + 1);
		bench_forget(b);
		bench_negotiate(b, &(struct bench_options){ .features = FEATURES });
	}
	driver_wait(fake_runs(0, VHOST_RX));
	assert_int_equal(fake_ring(0, VHOST_RX).base, 0);
	/* ours again are the doorbells too: a legacy driver may begin with them */
	driver_reset(b->device);
	bench_forget(b);
	driver_status(b->device, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER, true);
	pthread_mutex_lock(&b->device->lock);
	virtio_features_write(b->device, 0, (u32)(FEATURES & UINT32_MAX), true);
	pthread_mutex_unlock(&b->device->lock);
	bench_rings(b, &(struct bench_options){ .features = FEATURES, .legacy = true });
	usleep(2000);
	assert_false(fake_runs(0, VHOST_RX));
	driver_kick(&b->rings[0]);
	driver_wait(fake_runs(0, VHOST_RX) && fake_runs(0, VHOST_TX));
}

static void resets_one_ring(void **state)
{
	struct bench *b = up_plain(state, FEATURES | RING_RESET, 1);
	struct virtio_queue *queue = &b->device->queues[0];
	bool done;

	fake_progress(0, VHOST_RX, 12);
	fake_progress(0, VHOST_TX, 13);
	pthread_mutex_lock(&b->device->lock);
	virtio_queue_reset(queue);
	pthread_mutex_unlock(&b->device->lock);
	do {
		pthread_mutex_lock(&b->device->lock);
		done = !queue->resetting && !queue->enabled;
		pthread_mutex_unlock(&b->device->lock);
	} while (!done);
	assert_false(fake_runs(0, VHOST_RX));
	assert_int_equal(fake_ring(0, VHOST_TX).stops, 0);
	driver_ring_init(&b->rings[0], &b->machine.memory, RING_AT(0), 64, false);
	driver_queue(b->device, 0, &b->rings[0]);
	driver_wait(fake_runs(0, VHOST_RX));
	assert_int_equal(fake_ring(0, VHOST_RX).base, 0);
	assert_int_equal(fake_ring(0, VHOST_RX).size, 64);
}

/* A worker that busy-polls for one ring writes into the other, wherever that was last. */
static void polls_while_both_rings_run(void **state)
{
	struct bench *b = up(state, (struct bench_options){ .features = FEATURES | RING_RESET,
							    .vhost_poll_us = 40 });
	struct virtio_queue *queue = &b->device->queues[1];
	bool done;

	driver_wait(fake_ring(0, VHOST_TX).poll_us == 40);
	assert_int_equal(fake_ring(0, VHOST_RX).poll_us, 40);
	pthread_mutex_lock(&b->device->lock);
	virtio_queue_reset(queue);
	pthread_mutex_unlock(&b->device->lock);
	do {
		pthread_mutex_lock(&b->device->lock);
		done = !queue->resetting && !queue->enabled;
		pthread_mutex_unlock(&b->device->lock);
	} while (!done);
	assert_true(fake_runs(0, VHOST_RX));
	assert_int_equal(fake_ring(0, VHOST_RX).poll_us, 0);
	driver_ring_init(&b->rings[1], &b->machine.memory, RING_AT(1), 64, false);
	driver_queue(b->device, 1, &b->rings[1]);
	driver_wait(fake_ring(0, VHOST_TX).poll_us == 40);
	bus_master(b, false);
	assert_int_equal(fake_ring(0, VHOST_RX).poll_us, 0);
	bus_master(b, true);
	assert_int_equal(fake_ring(0, VHOST_RX).poll_us, 40);
	driver_reset(b->device);
	assert_int_equal(fake.stray_polls, 0);
}

static void pairs_come_and_go(void **state)
{
	struct bench *b = up_plain(state, FEATURES | F(MQ), 3);

	assert_false(fake_runs(1, VHOST_RX) || fake_runs(1, VHOST_TX) || fake_runs(2, VHOST_TX));
	for (u16 pairs = 3; pairs; pairs--) {
		assert_int_equal(
			ctrl_u16(b, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, pairs),
			VIRTIO_NET_OK);
		for (u16 i = 0; i < 3; i++) {
			assert_int_equal(fake_runs(i, VHOST_RX), i < pairs);
			assert_int_equal(fake_runs(i, VHOST_TX), i < pairs);
			assert_int_equal(fake_ring(i, VHOST_RX).backend,
					 i < pairs ? b->tap.fds[i] : -1);
		}
		fake_progress(2, VHOST_TX, 9);
	}
	assert_int_equal(ctrl_u16(b, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, 3),
			 VIRTIO_NET_OK);
	assert_int_equal(fake_ring(2, VHOST_TX).base, 9);
	assert_int_equal(fake_ring(0, VHOST_RX).stops, 0);
}

static void offloads_change_between_frames(void **state)
{
	struct bench *b = up_plain(state, FEATURES, 1);
	u8 head[64];

	fake_progress(0, VHOST_RX, 77);
	world_send(b, 99, bench_mac, 1);
	assert_int_equal(ctrl_u64(b, VIRTIO_NET_CTRL_GUEST_OFFLOADS,
				  VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, F(GUEST_CSUM)),
			 VIRTIO_NET_OK);
	assert_int_equal(fake_ring(0, VHOST_RX).stops, 1);
	assert_int_equal(fake_ring(0, VHOST_RX).starts, 2);
	assert_int_equal(fake_ring(0, VHOST_RX).base, 77);
	assert_int_equal(read(b->tap.fds[0], head, sizeof(head)), -1); /* made for the old set */
	assert_int_equal(ctrl_u64(b, VIRTIO_NET_CTRL_GUEST_OFFLOADS,
				  VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, F(GUEST_TSO4)),
			 VIRTIO_NET_ERR);
	/* nobody filters: the commands are not there */
	assert_int_equal(ctrl_byte(b, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 1),
			 VIRTIO_NET_ERR);
}

/* ---- faults ---- */

static void stops_what_cannot_be_worked_with(void **state)
{
	struct bench *b = up_plain(state, FEATURES, 1);
	char said[1000];

	capture_begin();
	eventfd_write(fake_ring(0, VHOST_TX).error, 1);
	driver_wait(driver_status_now(b->device) & VIRTIO_CONFIG_S_NEEDS_RESET);
	capture_end(said, sizeof(said));
	assert_non_null(strstr(said, "vhost-net cannot work with one of its queues"));
	assert_false(fake_runs(0, VHOST_RX));
	assert_false(fake_runs(0, VHOST_TX));
	driver_reset(b->device);
	bench_forget(b);
	bench_negotiate(b, &(struct bench_options){ .features = FEATURES });
	driver_wait(fake_runs(0, VHOST_RX) && fake_runs(0, VHOST_TX));
}

/* The same when it is the control queue that is broken: none is used any more. */
static void stops_when_another_queue_breaks(void **state)
{
	struct bench *b = up_plain(state, FEATURES, 1);
	char said[1000];

	capture_begin();
	driver_offer(&b->rings[2], 65000);
	driver_kick(&b->rings[2]);
	driver_wait(driver_status_now(b->device) & VIRTIO_CONFIG_S_NEEDS_RESET);
	driver_wait(!fake_runs(0, VHOST_RX) && !fake_runs(0, VHOST_TX));
	capture_end(said, sizeof(said));
	driver_reset(b->device);
}

static void says_what_vhost_does_not_take(void **state)
{
	struct bench *b = up(state, (struct bench_options){ .idle = true });
	char said[1000];

	fake_fail(VHOST_NET_SET_BACKEND, -ENOTSOCK, 0);
	capture_begin();
	bench_negotiate(b, &(struct bench_options){ .features = FEATURES });
	driver_wait(driver_status_now(b->device) & VIRTIO_CONFIG_S_NEEDS_RESET);
	capture_end(said, sizeof(said));
	assert_non_null(strstr(said, "vhost-net does not take its queues: Socket operation"));
	driver_reset(b->device);
	bench_forget(b);
	bench_negotiate(b, &(struct bench_options){ .features = FEATURES });
	driver_wait(fake_runs(0, VHOST_RX) && fake_runs(0, VHOST_TX));
}

static void notices_a_tap_that_vanished(void **state)
{
	struct bench *b = up_plain(state, FEATURES, 1);
	char said[1000];

	capture_begin();
	netns_delete(BENCH_TAP);
	/* nobody has sent; afterwards the worker could not */
	driver_wait(config_read(b, 6, 2) == 0);
	eventfd_write(fake_ring(0, VHOST_TX).error, 1);
	driver_reset(b->device);
	capture_end(said, sizeof(said));
	assert_non_null(strstr(said, "has vanished"));
	assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1);
	assert_false(driver_status_now(b->device) & VIRTIO_CONFIG_S_NEEDS_RESET);
	driver_reset(b->device);
	bench_forget(b);
	bench_negotiate(b, &(struct bench_options){ .features = FEATURES });
	assert_false(by_vhost(b)); /* buffers come back */
}

int main(void)
{
	static const bool uring = false, epoll = true;
	const struct CMUnitTest tests[] = {
		BOTH(offers_what_both_can),
		BOTH(keeps_to_an_mtu_by_itself),
		BOTH(lends_its_rings),
		BOTH(tells_what_was_negotiated),
		BOTH(tells_no_legacy_driver_bits_of_its_own),
		BOTH(serves_drivers_that_do_not_merge),
		BOTH(serves_drivers_without_checksums),
		BOTH(serves_what_vhost_refuses),
		BOTH(drops_what_waited_before),
		BOTH(interrupts_follow_the_vector),
		BOTH(line_interrupts_set_the_isr),
		BOTH(stops_without_bus_mastering),
		BOTH(stops_at_a_reset),
		BOTH(resets_one_ring),
		BOTH(polls_while_both_rings_run),
		BOTH(pairs_come_and_go),
		BOTH(offloads_change_between_frames),
		BOTH(stops_what_cannot_be_worked_with),
		BOTH(stops_when_another_queue_breaks),
		BOTH(says_what_vhost_does_not_take),
		BOTH(notices_a_tap_that_vanished),
	};

	netns_enter();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
