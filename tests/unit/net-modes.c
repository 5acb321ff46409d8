/*
 * tsan: frames through a real tap, both ways, in every way in which reactors can run: what a
 * kernel's io_uring lacks costs speed, no frame. And a queue decides once a sweep whether to
 * interrupt: the frames of one doorbell, or of one burst, share an interrupt; so do control
 * commands.
 */
#include "tests/unit/net-bench.h"

#define FRAMES 100u
#define BATCH  25u

static u64 decisions(struct bench *b, u16 queue)
{
	const struct virtio_queue_counts *counts = &b->device->queues[queue].counts;

	return __atomic_load_n(&counts->interrupts, __ATOMIC_RELAXED) +
	       __atomic_load_n(&counts->interrupts_suppressed, __ATOMIC_RELAXED);
}

static int interrupts[3]; /* of the queues */

static void give_vectors(struct bench *b)
{
	for (u16 i = 0; i < ARRAY_SIZE(interrupts); i++)
		interrupts[i] = driver_interrupt(&b->machine, &b->device->queues[i]);
}

static int down(void **state)
{
	int err = bench_down(state);

	for (u16 i = 0; i < ARRAY_SIZE(interrupts); i++) {
		if (interrupts[i] > 0)
			close(interrupts[i]);
		interrupts[i] = 0;
	}
	return err;
}

/* One doorbell for a batch of frames; the first has a number of its own. */
static void send_batch(struct bench *b, u32 first)
{
	struct driver_ring *ring = &b->rings[1];

	for (u32 i = 0; i < BATCH; i++) {
		u64 at = TX_AT + i * 2048;
		u8 *bytes = memory_at(&b->machine.memory, at, 2048);
		const struct driver_part part = { at, b->header + 1000, false };

		memset(bytes, 0, b->header);
		frame_fill(bytes + b->header, 1000, other_mac, first + i);
		assert_true(driver_add(ring, &part, 1) >= 0);
	}
	driver_kick(ring);
	for (u32 i = 0; i < BATCH; i++)
		driver_wait_used(ring, NULL, NULL);
}

static void through_the_tap(void **state)
{
	static u8 frame[1000], got[FRAME_ROOM];
	struct virtio_net_hdr header;

	(void)state;
	for (size_t m = 0; m < ARRAY_SIZE(reactor_modes); m++) {
		struct reactor_counts counts;
		struct bench *b;

		driver_mode = reactor_modes[m];
		print_message("%s\n", driver_mode.name);
		b = bench_up(&(struct bench_options){ .features = FEATURES_PLAIN | F(MRG_RXBUF) });
		give_vectors(b);
		rx_add(b, 0, BENCH_RING / 2, 2048);
		for (u32 first = 0; first < FRAMES; first += BATCH) {
			send_batch(b, first);
			for (u32 i = 0; i < BATCH; i++) {
				frame_fill(frame, sizeof(frame), other_mac, first + i);
				assert_int_equal(world_receive(b, &header, got, 5000),
						 sizeof(frame));
				assert_memory_equal(got, frame, sizeof(frame));
			}
			for (u32 i = 0; i < BATCH; i++)
				world_send(b, 700, bench_mac, first + i);
			for (u32 i = 0; i < BATCH; i++)
				rx_expect(b, 0, 700, bench_mac, first + i);
			bench_forget(b);
			rx_add(b, 0, BATCH, 2048);
		}
		assert_int_equal(ctrl_byte(b, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 1),
				 VIRTIO_NET_OK);
		assert_int_equal(bench_counts(b).tx_frames, FRAMES);
		assert_int_equal(bench_counts(b).rx_frames, FRAMES);
		reactor_counts(reactors_get(b->machine.reactors, 0), &counts);
		for (u16 queue = 0; queue < 3; queue++) {
			driver_wait_interrupt(interrupts[queue]);
			assert_in_range(decisions(b, queue), 1, counts.sweeps);
		}
		down(NULL);
	}
	driver_mode = (struct reactor_mode){ 0 };
}

/* A tap takes frames while they are submitted, so those of one doorbell end in one sweep. */
static void one_interrupt_a_batch(void **state)
{
	struct bench *b = bench_up(&(struct bench_options){ .features = FEATURES_PLAIN });

	(void)state;
	give_vectors(b);
	for (u32 batch = 1; batch <= 20; batch++) {
		send_batch(b, batch);
		driver_wait_interrupt(interrupts[1]);
		assert_int_equal(decisions(b, 1), batch);
	}
	assert_int_equal(bench_counts(b).tx_frames, 20 * BATCH);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(through_the_tap, down),
		cmocka_unit_test_teardown(one_interrupt_a_batch, down),
	};

	netns_enter();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
