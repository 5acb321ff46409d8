/* tsan: the strict checker and chains that change in flight, in rings of each kind: a driver that
 * leaves them alone is told of nothing, in whatever order the device is done with them. */
#include "tests/unit/queue-fixture.h"
#include "virtio/strict.h"

static int up_strict(void **state)
{
	int err = up_uring(state);
	struct fixture *f = *state;

	return err ? err : strict_attach(f->device, CONFIG_STRICT_WARN);
}

static u64 count(struct fixture *f, enum strict_rule rule)
{
	return atomic_load(&f->device->strict->counts[rule]);
}

static u64 total(struct fixture *f)
{
	u64 sum = 0;

	for (u32 i = 0; i < STRICT_RULES; i++)
		sum += count(f, i);
	return sum;
}

/* Many rounds of the ring, several in flight. */
static void left_alone(void **state)
{
	struct fixture *f = *state;

	begin(f, BIT64(VIRTIO_RING_F_INDIRECT_DESC) | BIT64(VIRTIO_RING_F_EVENT_IDX));
	set_mode(f, LATER_SOON);
	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < 5; i++)
			add(&f->ring, i);
		driver_kick(&f->ring);
		for (int i = 0; i < 5; i++)
			driver_wait_used(&f->ring, NULL, NULL);
	}
	assert_int_equal(total(f), 0);
}

/* [reactor] Gives back what is held, the newest first. */
static struct reactor_message backwards;
static struct later_queue *held_by;
static _Atomic bool given_back;

static void give_back(struct reactor_message *message)
{
	struct later_queue *lq = held_by;

	(void)message;
	while (lq->held_count)
		virtio_queue_push(lq->queue, lq->held[--lq->held_count].head, 5);
	atomic_store(&lq->held_now, 0);
	atomic_store(&given_back, true);
}

/* Used descriptors of a packed ring go where others' were. */
static void out_of_order(void **state)
{
	struct fixture *f = *state;

	begin(f, 0);
	set_mode(f, LATER_HOLD);
	held_by = &f->later.queues[0];
	backwards.run = give_back;
	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < 5; i++)
			add(&f->ring, i);
		driver_kick(&f->ring);
		driver_wait(held(f) == 5);
		atomic_store(&given_back, false);
		reactor_post(f->device->queues[0].reactor, &backwards);
		for (int i = 0; i < 5; i++)
			driver_wait_used(&f->ring, NULL, NULL);
		driver_wait(atomic_load(&given_back));
	}
	assert_int_equal(total(f), 0);
}

/* The driver writes to a descriptor that it does not own. */
static void changed(void **state)
{
	struct fixture *f = *state;
	u8 *descriptors;

	begin(f, 0);
	descriptors = memory_at(&f->machine.memory, f->ring.descriptors_at, 32);
	set_mode(f, LATER_HOLD);
	add(&f->ring, 0);
	driver_kick(&f->ring);
	driver_wait(held(f) == 1);
	__atomic_fetch_add((u64 *)(void *)descriptors, 8, __ATOMIC_RELAXED);
	later_release(&f->later, 0);
	driver_wait_used(&f->ring, NULL, NULL);
	assert_int_equal(count(f, STRICT_RING_CHANGED), 1);
	assert_int_equal(total(f), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(left_alone, up_strict, down),
		cmocka_unit_test_setup_teardown(out_of_order, up_strict, down),
		cmocka_unit_test_setup_teardown(changed, up_strict, down),
	};

	return driver_run_all(tests);
}
