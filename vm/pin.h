/*
 * Threads on host CPUs of the user's choice (--pin). A thread is made there, so that it never runs
 * elsewhere and what it touches first is near (sched(7), numa(7)).
 */
#ifndef VM_PIN_H
#define VM_PIN_H

#include <pthread.h>
#include "vm/types.h"

#define CPU_LIST_MAX   254
#define CPU_NUMBER_MAX 8191 /* Linux's largest CONFIG_NR_CPUS is 8192 */

/* Host CPUs, by number, in the order in which threads take them; empty: wherever the host likes. */
struct cpu_list {
	u16 count;
	u16 cpu[CPU_LIST_MAX];
};

/* May this process use each of them (sched_getaffinity(2))? what names the list in the log line.
 * 0 or -EINVAL (logged), -errno. Main thread. */
int pin_check(const struct cpu_list *list, const char *what);

/* Where the n-th thread of a kind goes: round the list. -1: anywhere. */
int pin_cpu(const struct cpu_list *list, u32 n);

/* Threads made with attr run on that CPU, or on any of the list; an empty list changes nothing.
 * Main thread. */
void pin_attr(pthread_attr_t *attr, const struct cpu_list *list, u32 n);
void pin_attr_any(pthread_attr_t *attr, const struct cpu_list *list);

#endif
