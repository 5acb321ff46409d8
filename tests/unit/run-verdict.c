/* run/verdict.c: from what is known to a verdict and a status. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "run/verdict.h"

#define expect_verdict(verdict_, status_, ...)                                                   \
	do {                                                                                     \
		const struct run_facts facts_ = { __VA_ARGS__ };                                 \
		int status__ = -1;                                                               \
		enum run_verdict got_ = run_judge(&facts_, &status__);                           \
		if (got_ != (verdict_) || status__ != (status_))                                 \
			fail_msg("line %d: %s, %d", __LINE__, run_verdict_word(got_), status__); \
	} while (0)

#define RAN	 .init = true, .start = true
#define ENDED(n) RAN, .ended = true, .code = (n), .reason = END_QUIT

static void test_command(void **state)
{
	(void)state;
	for (u32 code = 0; code < 256; code++)
		expect_verdict(RUN_EXIT, (int)code, ENDED(code));
	for (u32 signal = 1; signal < 65; signal++)
		expect_verdict(RUN_SIGNAL, 128 + (int)signal, ENDED(signal), .by_signal = true);
	/* it never started, but has a status: not found */
	expect_verdict(RUN_EXIT, 127, .init = true, .ended = true, .code = 127, .reason = END_QUIT);
	/* a signal came by, and was the command's */
	expect_verdict(RUN_EXIT, 3, ENDED(3), .interrupted = 15);
}

static void test_messages(void **state)
{
	(void)state;
	expect_verdict(RUN_EXIT, 0, ENDED(0), .warned = true, .oopsed = true);
	expect_verdict(RUN_OOPS, 122, ENDED(0), .oopsed = true, .fail_on = CONFIG_FAIL_ON_OOPS);
	expect_verdict(RUN_EXIT, 0, ENDED(0), .warned = true, .fail_on = CONFIG_FAIL_ON_OOPS);
	expect_verdict(RUN_WARNING, 122, ENDED(0), .warned = true, .fail_on = CONFIG_FAIL_ON_WARN);
	expect_verdict(RUN_OOPS, 122, ENDED(1), .warned = true, .oopsed = true,
		       .fail_on = CONFIG_FAIL_ON_WARN);
	expect_verdict(RUN_EXIT, 5, ENDED(5), .fail_on = CONFIG_FAIL_ON_WARN);
}

static void test_machine(void **state)
{
	(void)state;
	expect_verdict(RUN_PANIC, 123, RAN, .reason = END_PANIC);
	expect_verdict(RUN_PANIC, 123, .reason = END_PANIC);
	expect_verdict(RUN_CRASH, 123, RAN, .reason = END_TRIPLE_FAULT);
	expect_verdict(RUN_GONE, 123, RAN, .reason = END_POWEROFF);
	expect_verdict(RUN_GONE, 123, RAN, .reason = END_RESET);
	expect_verdict(RUN_GONE, 123, RAN, .reason = END_GUEST_STATUS, .value = 7);
	expect_verdict(RUN_TIMEOUT, 124, RAN, .reason = END_TIMEOUT, .value = 3);
	expect_verdict(RUN_TIMEOUT, 124, .reason = END_TIMEOUT);
	expect_verdict(RUN_HANG, 124, RAN, .reason = END_TIMEOUT, .hang = true);
	/* ours, whatever else is known */
	expect_verdict(RUN_ERROR, 120, RAN, .ended = true, .reason = END_KVM_ERROR);
	expect_verdict(RUN_ERROR, 120, .reason = END_HOST_ERROR);
}

static void test_boot(void **state)
{
	(void)state;
	expect_verdict(RUN_NO_INIT, 121, .reason = END_PANIC, .rootless = true);
	expect_verdict(RUN_PANIC, 123, RAN, .reason = END_PANIC, .rootless = true);
	expect_verdict(RUN_NO_INIT, 121, .reason = END_TIMEOUT, .boot_timeout = true);
	expect_verdict(RUN_NO_INIT, 121, .reason = END_POWEROFF);
	expect_verdict(RUN_NO_INIT, 121, .reason = END_RESET);
	expect_verdict(RUN_NO_INIT, 121, .reason = END_TRIPLE_FAULT);
	/* init ran, but could not go on */
	expect_verdict(RUN_NO_INIT, 121, .init = true, .failed = true, .reason = END_QUIT);
}

static void test_interrupted(void **state)
{
	(void)state;
	expect_verdict(RUN_INTERRUPTED, 143, RAN, .reason = END_SIGNAL, .value = 15,
		       .interrupted = 15);
	expect_verdict(RUN_INTERRUPTED, 130, .reason = END_SIGNAL, .value = 2);
	/* SIGTERM made init go: it is still the signal's doing */
	expect_verdict(RUN_INTERRUPTED, 143, RAN, .reason = END_POWEROFF, .interrupted = 15);
	expect_verdict(RUN_INTERRUPTED, 137, RAN, .reason = END_QUIT);
}

static void test_worst(void **state)
{
	static const int order[] = { 0, 1, 2, 119, 120, 121, 122, 123, 124 };

	(void)state;
	for (size_t i = 0; i + 1 < ARRAY_SIZE(order); i++)
		assert_int_equal(run_status_worse(order[i], order[i + 1]), order[i + 1]);
	/* a command's signal, or 126 and 127, is less than what a kernel did */
	assert_int_equal(run_status_worse(139, 123), 123);
	assert_int_equal(run_status_worse(123, 127), 123);
	assert_int_equal(run_status_worse(127, 1), 127);
	assert_int_equal(run_status_worse(0, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_command),	    cmocka_unit_test(test_messages),
		cmocka_unit_test(test_machine),	    cmocka_unit_test(test_boot),
		cmocka_unit_test(test_interrupted), cmocka_unit_test(test_worst),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
