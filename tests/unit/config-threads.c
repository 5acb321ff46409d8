/* Which threads there are and where they run: --iothreads, --pin, and iothread= of the devices. */
#include "tests/unit/config-fixture.h"

static void assert_list(const struct cpu_list *list, const char *numbers)
{
	char text[64] = "";

	for (u32 i = 0; i < list->count; i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), i ? " %u" : "%u",
			 list->cpu[i]);
	assert_string_equal(text, numbers);
}

static void accepted(void **state)
{
	(void)state;
	accept("--kernel", "k", "--pin", "vcpus=0-3+8+2,io=4,sqpoll=8191", "--iothreads",
	       "3,sqpoll", "--disk", "a,iothread=2,direct,iopoll", "--disk", "b", "--net",
	       "t,iothread=0", "--net", "u");
	assert_list(&config.pin_vcpus, "0 1 2 3 8 2");
	assert_list(&config.pin_io, "4");
	assert_list(&config.pin_sqpoll, "8191");
	assert_true(config.sqpoll && config.disks[0].iopoll && !config.disks[1].iopoll);
	assert_int_equal(config.disks[0].iothread, 2);
	assert_int_equal(config.disks[1].iothread, -1);
	assert_int_equal(config.nets[0].iothread, 0);
	assert_int_equal(config.nets[1].iothread, -1);
	config_free(&config);
	accept("--kernel", "k", "--pin", "vcpus=0-253", "--iothreads", "2,sqpoll=off");
	assert_int_equal(config.pin_vcpus.count, 254);
	assert_int_equal(config.pin_vcpus.cpu[253], 253);
	assert_int_equal(config.pin_io.count, 0);
	assert_false(config.sqpoll);
	config_free(&config);
}

static void no_lists(void **state)
{
	(void)state;
	refuse("--pin: cpus is no key|vcpus, io, sqpoll", "--kernel", "k", "--pin", "cpus=1");
	refuse("--pin|its value is empty", "--kernel", "k", "--pin", "");
	refuse("vcpus has no value", "--kernel", "k", "--pin", "vcpus=");
	refuse("vcpus=a|not a list|as in 0-3", "--kernel", "k", "--pin", "vcpus=a");
	refuse("vcpus=-1|not a list", "--kernel", "k", "--pin", "vcpus=-1");
	refuse("vcpus=1-|not a list", "--kernel", "k", "--pin", "vcpus=1-");
	refuse("vcpus=3-1|not a list", "--kernel", "k", "--pin", "vcpus=3-1");
	refuse("vcpus=1-2-3|not a list", "--kernel", "k", "--pin", "vcpus=1-2-3");
	refuse("vcpus=1+|not a list", "--kernel", "k", "--pin", "vcpus=1+");
	refuse("vcpus=1++2|not a list", "--kernel", "k", "--pin", "vcpus=1++2");
	refuse("2 is no key", "--kernel", "k", "--pin", "vcpus=1,2");
	refuse("io=8192|up to 8191", "--kernel", "k", "--pin", "io=8192");
	refuse("io=18446744073709551617|up to 8191", "--kernel", "k", "--pin",
	       "io=18446744073709551617");
	refuse("vcpus=0-254|at most 254", "--kernel", "k", "--pin", "vcpus=0-254");
	refuse("at most 254", "--kernel", "k", "--pin", "vcpus=0-253+1");
}

static void no_such_threads(void **state)
{
	(void)state;
	refuse("sqpoll=|no such thread|--iothreads", "--kernel", "k", "--pin", "sqpoll=1");
	refuse("--disk a: iothread=2|number 1|--iothreads 3", "--kernel", "k", "--iothreads", "2",
	       "--disk", "a,iothread=2");
	refuse("--net t: iothread=1|number 0|--iothreads 2", "--kernel", "k", "--net",
	       "t,iothread=1");
	refuse("iothread=64|0 to 63", "--kernel", "k", "--disk", "a,iothread=64");
	refuse("--disk a: iopoll|direct=on", "--kernel", "k", "--disk", "a,iopoll");
	refuse("iopoll=maybe|neither on nor off", "--kernel", "k", "--disk", "a,iopoll=maybe");
	refuse("sqpoll=1|neither on nor off", "--kernel", "k", "--iothreads", "1,sqpoll=1");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accepted),
		cmocka_unit_test(no_lists),
		cmocka_unit_test(no_such_threads),
	};

	return cmocka_run_group_tests(tests, open_errors, close_errors);
}
