/* Dates are the C library's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "vm/date.h"

static void same(s64 seconds)
{
	time_t t = seconds;
	struct tm expected, tm;

	assert_non_null(gmtime_r(&t, &expected));
	date_split(seconds, &tm);
	assert_int_equal(tm.tm_year, expected.tm_year);
	assert_int_equal(tm.tm_mon, expected.tm_mon);
	assert_int_equal(tm.tm_mday, expected.tm_mday);
	assert_int_equal(tm.tm_wday, expected.tm_wday);
	assert_int_equal(tm.tm_hour, expected.tm_hour);
	assert_int_equal(tm.tm_min, expected.tm_min);
	assert_int_equal(tm.tm_sec, expected.tm_sec);
	assert_int_equal(date_join(&tm), seconds);
}

/* Each day of 800 years around ours, its first and its last second. */
static void test_days(void **state)
{
	(void)state;
	for (s64 day = -146097; day < 146097; day++) {
		same(day * 86400);
		same(day * 86400 + 86399);
	}
}

static void test_far(void **state)
{
	(void)state;
	for (int shift = 0; shift < 55; shift++) {
		same(1ll << shift);
		same(-(1ll << shift));
		same((1ll << shift) - 1);
	}
}

/* What a guest can write into a clock's registers. */
static void test_no_dates(void **state)
{
	(void)state;
	srandom(1);
	for (int i = 0; i < 100000; i++) {
		struct tm tm = {
			.tm_sec = (int)(random() % 256),
			.tm_min = (int)(random() % 256),
			.tm_hour = (int)(random() % 256),
			.tm_mday = (int)(random() % 256),
			.tm_mon = (int)(random() % 256) - 1,
			.tm_year = (int)(random() % 16600) - 1900,
		};
		struct tm copy = tm;

		assert_int_equal(date_join(&tm), timegm(&copy));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_days),
		cmocka_unit_test(test_far),
		cmocka_unit_test(test_no_dates),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
