/* tsan
 * Naps, in counts: where busy-polling is off, what a sender adds while the reactor naps is taken
 * without a doorbell, and a queue is muted no longer than its reactor naps. How long the reactor
 * slept and was awake before is set by the test, but in the last.
 */
#include "tests/unit/queue-fixture.h"
#include <sys/socket.h>
#include "vm/reactor-engine.h"

#define GATHERED 6
#define TRIES	 200u /* a busy host may be slower than a nap is long */

struct look {
	struct fixture *f;
	bool muted;
	u16 awake;
};

static struct reactor *reactor_of(struct fixture *f)
{
	return reactors_get(f->machine.reactors, 0);
}

/* As if it had slept for a while until it was rung for, and been awake for a long time before. */
static void pretend(void *arg)
{
	struct fixture *f = arg;
	struct reactor *reactor = reactor_of(f);

	reactor->sent_sweep = reactor->counts.sweeps - 1; /* so that this sleep counts */
	reactor->woke = 1;
	f->device->queues[0].awake = 0;
	f->device->queues[0].awake_next = 0;
}

static void look_run(void *arg)
{
	struct look *look = arg;
	const struct virtio_queue *queue = &look->f->device->queues[0];

	look->muted = queue->ring.muted;
	look->awake = queue->awake;
}

static struct look look_at(struct fixture *f)
{
	struct look look = { .f = f };

	reactor_call(reactor_of(f), look_run, &look);
	return look;
}

static int up_gathering(void **state)
{
	int failed = up_uring(state);
	struct fixture *f = *state;

	f->device->queues[0].gathers = true;
	return failed;
}

static const u64 features[] = { 0, BIT64(VIRTIO_RING_F_EVENT_IDX) };

/* One that is rung for, then some that are added while the reactor naps. */
static u64 send_gathered(struct fixture *f)
{
	u64 kicks;

	reactor_call(reactor_of(f), pretend, f);
	usleep(1000);
	kicks = f->ring.kicks;
	for (int i = 0; i <= GATHERED; i++) {
		add(&f->ring, i);
		driver_kick(&f->ring);
		while (i == 0 && !taken(f))
			__builtin_ia32_pause();
	}
	for (int i = 0; i <= GATHERED; i++)
		driver_wait_used(&f->ring, NULL, NULL);
	atomic_store(&f->later.queues[0].taken, 0);
	return f->ring.kicks - kicks;
}

static void gathers(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		u64 kicks = GATHERED;

		begin(f, features[i]);
		set_mode(f, LATER_SOON);
		for (u32 n = 0; n < TRIES && kicks != 1; n++) /* 0: it was still awake */
			kicks = send_gathered(f);
		assert_int_equal(kicks, 1);
		driver_reset(f->device);
	}
}

/* In vain: the driver is asked to notify again, and the next few are taken without a nap. */
static void rests(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		u32 n;

		begin(f, features[i]);
		set_mode(f, LATER_SOON);
		for (n = 0; n < TRIES; n++) {
			reactor_call(reactor_of(f), pretend, f);
			usleep(1000);
			add(&f->ring, 0);
			driver_kick(&f->ring);
			driver_wait_used(&f->ring, NULL, NULL);
			driver_wait(!look_at(f).muted);
			if (look_at(f).awake)
				break;
		}
		assert_in_range(n, 0, TRIES - 1);
		for (u32 j = 0; j < 3; j++) {
			u64 kicks = f->ring.kicks;

			add(&f->ring, 1);
			driver_kick(&f->ring);
			assert_int_equal(f->ring.kicks, kicks + 1);
			driver_wait_used(&f->ring, NULL, NULL);
			driver_wait(!look_at(f).muted);
		}
		driver_reset(f->device);
	}
}

/* ---- and by what really happened: sent, slept for a short while, rung for ---- */

#define ROUNDS	 40u
#define AWAKE_US 2000u

static int sockets[2];
static reactor_file wire;
static struct reactor_op frame;
static struct later_queue *sender;

static void sent(struct reactor_op *op, s32 result)
{
	(void)op;
	assert_int_equal(result, 1);
	later_finish(sender, sender->held_count);
}

/* Inside serve(): takes its time, and sends a frame; if there is one, as the end of a nap may come
 * before what is added next. */
static void send_frame(void *arg)
{
	static const struct iovec iov = { "x", 1 };
	u64 start = driver_ms();

	if (!sender->held_count) {
		atomic_store(&sender->found_empty, send_frame);
		return;
	}
	while (driver_ms() - start < AWAKE_US / 1000)
		;
	frame = (struct reactor_op){ .done = sent,
				     .code = REACTOR_WRITEV,
				     .file = wire,
				     .iov = &iov,
				     .iov_count = 1,
				     .offset = (u64)-1 };
	reactor_submit(arg, &frame);
}

static void streams(void **state)
{
	struct fixture *f = *state;
	u64 kicks = ROUNDS;
	char text[ROUNDS];

	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, sockets), 0);
	wire = reactor_file_add(f->machine.reactors, sockets[0]);
	begin(f, 0);
	set_mode(f, LATER_HOLD); /* until it is sent */
	sender = &f->later.queues[0];
	sender->found_empty_arg = reactor_of(f);
	for (u32 n = 0; n < TRIES && kicks == ROUNDS; n++) { /* a busy machine has other times */
		kicks = f->ring.kicks;
		for (u32 i = 0; i < ROUNDS; i++) {
			atomic_store(&sender->found_empty, send_frame);
			add(&f->ring, 0);
			driver_kick(&f->ring);
			while (!driver_used(&f->ring, NULL, NULL))
				__builtin_ia32_pause();
			while (read(sockets[1], text, sizeof(text)) < 0)
				;
		}
		kicks = f->ring.kicks - kicks;
	}
	assert_in_range(kicks, 1, ROUNDS - 1);
	driver_reset(f->device);
	close(sockets[0]);
	close(sockets[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(gathers, up_gathering, down),
		cmocka_unit_test_setup_teardown(rests, up_gathering, down),
		cmocka_unit_test_setup_teardown(streams, up_gathering, down),
	};

	return driver_run_all(tests);
}
