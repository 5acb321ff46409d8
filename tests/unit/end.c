/* tsan
 * The reason of an end: which one stays, who is woken, and the exit statuses that vmm(1) promises.
 */
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>
#include <cmocka.h>

#include "vm/end.h"

static bool awake(const struct end *end)
{
	struct pollfd fd = { .fd = end->fd, .events = POLLIN };

	return poll(&fd, 1, 0) == 1;
}

static enum end_reason after(enum end_reason first, enum end_reason second)
{
	struct end end;
	enum end_reason reason;

	assert_int_equal(end_init(&end), 0);
	end_request(&end, first, 1);
	end_request(&end, second, 2);
	reason = end_reason(&end, NULL);
	close(end.fd);
	return reason;
}

static void test_life(void **state)
{
	struct end end;
	u32 value = 99;

	(void)state;
	assert_int_equal(end_init(&end), 0);
	assert_int_equal(end_reason(&end, &value), END_NONE);
	assert_int_equal(value, 0);
	assert_false(awake(&end));
	end_request(&end, END_NONE, 5);
	assert_false(awake(&end));
	end_request(&end, END_GUEST_STATUS, 0xffffffff);
	assert_true(awake(&end));
	assert_int_equal(end_reason(&end, &value), END_GUEST_STATUS);
	assert_int_equal(value, 0xffffffff);
	/* equals: the first stays */
	end_request(&end, END_GUEST_STATUS, 7);
	end_reason(&end, &value);
	assert_int_equal(value, 0xffffffff);
	end_clear(&end);
	assert_int_equal(end_reason(&end, NULL), END_NONE);
	assert_false(awake(&end));
	end_request(&end, END_RESET, 0);
	assert_true(awake(&end));
	assert_int_equal(end_reason(&end, NULL), END_RESET);
	close(end.fd);
}

static void test_ranks(void **state)
{
	(void)state;
	assert_int_equal(after(END_RESET, END_PANIC), END_PANIC);
	/* panic=-1: the reset that follows is not the reason */
	assert_int_equal(after(END_PANIC, END_RESET), END_PANIC);
	assert_int_equal(after(END_PANIC, END_TRIPLE_FAULT), END_PANIC);
	assert_int_equal(after(END_RESET, END_POWEROFF), END_RESET);
	assert_int_equal(after(END_RESET, END_TRIPLE_FAULT), END_RESET);
	assert_int_equal(after(END_GUEST_STATUS, END_TRIPLE_FAULT), END_GUEST_STATUS);
	/* a guest may panic for the NMIs of a timeout */
	assert_int_equal(after(END_TIMEOUT, END_PANIC), END_TIMEOUT);
	assert_int_equal(after(END_PANIC, END_TIMEOUT), END_TIMEOUT);
	assert_int_equal(after(END_SIGNAL, END_POWEROFF), END_SIGNAL);
	assert_int_equal(after(END_QUIT, END_HOST_ERROR), END_HOST_ERROR);
	assert_int_equal(after(END_KVM_ERROR, END_TRIPLE_FAULT), END_KVM_ERROR);
}

static void test_statuses(void **state)
{
	(void)state;
	assert_int_equal(end_status(END_POWEROFF, 9), 0);
	assert_int_equal(end_status(END_HOST_ERROR, 0), 1);
	assert_int_equal(end_status(END_RESET, 0), 3);
	assert_int_equal(end_status(END_QUIT, 0), 4);
	assert_int_equal(end_status(END_KVM_ERROR, 3), 120);
	assert_int_equal(end_status(END_PANIC, 0), 123);
	assert_int_equal(end_status(END_TIMEOUT, 0), 124);
	assert_int_equal(end_status(END_TRIPLE_FAULT, 2), 125);
	assert_int_equal(end_status(END_SIGNAL, 15), 143);
	for (u32 value = 0; value < 256; value++)
		assert_int_equal(end_status(END_GUEST_STATUS, value), value);
}

static void *request_all(void *arg)
{
	for (u32 reason = END_POWEROFF; reason <= END_HOST_ERROR; reason++)
		end_request(arg, (enum end_reason)reason, reason);
	return NULL;
}

/* From many threads at once: one of the highest rank stays, with its own value. */
static void test_threads(void **state)
{
	pthread_t threads[4];
	struct end end;
	u32 value;

	(void)state;
	assert_int_equal(end_init(&end), 0);
	for (int round = 0; round < 200; round++) {
		for (int i = 0; i < 4; i++)
			pthread_create(&threads[i], NULL, request_all, &end);
		for (int i = 0; i < 4; i++)
			pthread_join(threads[i], NULL);
		assert_int_equal(end_reason(&end, &value), END_KVM_ERROR);
		assert_int_equal(value, END_KVM_ERROR);
		assert_true(awake(&end));
		end_clear(&end);
	}
	close(end.fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_life),
		cmocka_unit_test(test_ranks),
		cmocka_unit_test(test_statuses),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
