/* tsan
 * --pin: what a host allows, round which list threads go, and where those of the event loop are
 * then allowed to run.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "vm/reactor.h"

static cpu_set_t ours;
static struct cpu_list all; /* of ours */

static int look_at_host(void **state)
{
	(void)state;
	if (sched_getaffinity(0, sizeof(ours), &ours))
		return -1;
	for (u16 cpu = 0; cpu < CPU_SETSIZE && all.count < CPU_LIST_MAX; cpu++)
		if (CPU_ISSET(cpu, &ours))
			all.cpu[all.count++] = cpu;
	return 0;
}

/* What pin_check() returns, and in `text` what it says. */
static int check_saying(const struct cpu_list *list, char *text, size_t size)
{
	int saved = dup(STDERR_FILENO), file = memfd_create("stderr", MFD_CLOEXEC), err;
	ssize_t n;

	dup2(file, STDERR_FILENO);
	err = pin_check(list, "vcpus");
	dup2(saved, STDERR_FILENO);
	n = pread(file, text, size - 1, 0);
	text[n > 0 ? n : 0] = '\0';
	close(saved);
	close(file);
	return err;
}

static void test_check(void **state)
{
	struct cpu_list none = {}, wrong = all;
	char text[512], first[16];
	cpu_set_t one;

	(void)state;
	assert_int_equal(check_saying(&none, text, sizeof(text)), 0);
	assert_string_equal(text, "");
	assert_int_equal(check_saying(&all, text, sizeof(text)), 0);
	assert_string_equal(text, "");
	wrong.cpu[wrong.count - 1] = CPU_NUMBER_MAX;
	assert_int_equal(check_saying(&wrong, text, sizeof(text)), -EINVAL);
	assert_non_null(strstr(text, "--pin vcpus: this process may not use host CPU 8191; give "));

	/* what a taskset around vmm leaves is what counts */
	if (all.count < 2) {
		print_message("one CPU here\n");
		skip();
	}
	CPU_ZERO(&one);
	CPU_SET(all.cpu[0], &one);
	assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
	assert_int_equal(check_saying(&all, text, sizeof(text)), -EINVAL);
	assert_int_equal(sched_setaffinity(0, sizeof(ours), &ours), 0);
	snprintf(first, sizeof(first), "of %u,", all.cpu[0]);
	assert_non_null(strstr(text, first));
}

static void test_round(void **state)
{
	const struct cpu_list three = { 3, { 7, 1, 5 } }, none = {};

	(void)state;
	assert_int_equal(pin_cpu(&three, 0), 7);
	assert_int_equal(pin_cpu(&three, 2), 5);
	assert_int_equal(pin_cpu(&three, 3), 7);
	assert_int_equal(pin_cpu(&three, 253), 1);
	assert_int_equal(pin_cpu(&none, 0), -1);
}

static void look_run(void *arg)
{
	sched_getaffinity(0, sizeof(cpu_set_t), arg);
}

static void worker_look(void *owner)
{
	cpu_set_t set;

	sched_getaffinity(0, sizeof(set), &set);
	if (CPU_EQUAL(&set, &ours))
		__atomic_fetch_add((u32 *)owner, 1, __ATOMIC_RELAXED);
}

/* The n-th thread on the n-th CPU, whatever the engine; workers on any of them. */
static void test_reactors(void **state)
{
	for (int epoll = 0; epoll < 2; epoll++) {
		u32 workers = 0;
		const struct reactors_config config = { .count = 3,
							.max_files = 8,
							.force_epoll = epoll,
							.pin = all,
							.worker_start = worker_look,
							.owner = &workers };
		struct reactors *reactors;

		(void)state;
		assert_int_equal(reactors_create(&reactors, &config), 0);
		assert_int_equal(reactors_start(reactors), 0);
		for (u32 i = 0; i < config.count; i++) {
			cpu_set_t set;

			CPU_ZERO(&set);
			reactor_call(reactors_get(reactors, i), look_run, &set);
			assert_int_equal(CPU_COUNT(&set), 1);
			assert_true(CPU_ISSET(all.cpu[i % all.count], &set));
		}
		reactors_destroy(reactors);
		assert_true(epoll ? workers > 0 : workers == 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_check),
		cmocka_unit_test(test_round),
		cmocka_unit_test(test_reactors),
	};

	return cmocka_run_group_tests(tests, look_at_host, NULL);
}
