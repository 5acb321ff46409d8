/* Threads on host CPUs: see pin.h. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include "vm/log.h"
#include "vm/pin.h"

/* Room for every CPU that a kernel may have: one cpu_set_t has 1024. */
struct cpus {
	cpu_set_t sets[(CPU_NUMBER_MAX + 1) / CPU_SETSIZE];
};

static bool has(const struct cpus *cpus, int cpu)
{
	return CPU_ISSET_S((size_t)cpu, sizeof(*cpus), cpus->sets);
}

/* "0-3,8", cut off where there is no more room. */
static void print_cpus(const struct cpus *cpus, char *text, size_t size)
{
	size_t used = 0;

	text[0] = '\0';
	for (int first = 0; first <= CPU_NUMBER_MAX && used < size; first++) {
		int last = first;

		if (!has(cpus, first))
			continue;
		while (last < CPU_NUMBER_MAX && has(cpus, last + 1))
			last++;
		used += (size_t)snprintf(text + used, size - used,
					 last > first ? "%s%d-%d" : "%s%d", used ? "," : "", first,
					 last);
		first = last;
	}
}

int pin_check(const struct cpu_list *list, const char *what)
{
	struct cpus allowed = {};
	char text[80];
	int err;

	if (!list->count)
		return 0;
	if (sched_getaffinity(0, sizeof(allowed), allowed.sets)) {
		err = -errno;
		log_line("--pin %s: the CPUs that this process may use cannot be read: %s; leave "
			 "it out",
			 what, strerror(-err));
		return err;
	}
	for (u32 i = 0; i < list->count; i++) {
		if (has(&allowed, list->cpu[i]))
			continue;
		print_cpus(&allowed, text, sizeof(text));
		log_line("--pin %s: this process may not use host CPU %u; give some of %s, or "
			 "allow it more (taskset, cpuset)",
			 what, list->cpu[i], text);
		return -EINVAL;
	}
	return 0;
}

int pin_cpu(const struct cpu_list *list, u32 n)
{
	return list->count ? list->cpu[n % list->count] : -1;
}

void pin_attr(pthread_attr_t *attr, const struct cpu_list *list, u32 n)
{
	struct cpus cpus = {};

	if (!list->count)
		return;
	CPU_SET_S((size_t)pin_cpu(list, n), sizeof(cpus), cpus.sets);
	pthread_attr_setaffinity_np(attr, sizeof(cpus), cpus.sets);
}

void pin_attr_any(pthread_attr_t *attr, const struct cpu_list *list)
{
	struct cpus cpus = {};

	if (!list->count)
		return;
	for (u32 i = 0; i < list->count; i++)
		CPU_SET_S((size_t)list->cpu[i], sizeof(cpus), cpus.sets);
	pthread_attr_setaffinity_np(attr, sizeof(cpus), cpus.sets);
}
