/* When start-up did what: see milestones.h. */
#include <stdio.h>
#include <stdlib.h>
#include "vm/log.h"
#include "vm/milestones.h"
#include "vm/ticks.h"

void milestones_begin(struct milestones *milestones)
{
	milestones->start = clock_now_ns();
	milestones->count = 0;
}

void milestones_add(struct milestones *milestones, const char *what, u64 ns)
{
	struct milestone *milestone = &milestones->list[milestones->count];

	if (!ns || milestones->count == MILESTONES_MAX)
		return;
	/* a conversion from ticks may be off by a little */
	milestone->ns = ns > milestones->start ? ns : milestones->start;
	snprintf(milestone->what, sizeof(milestone->what), "%s", what);
	milestones->count++;
}

void milestones_mark(struct milestones *milestones, const char *what)
{
	milestones_add(milestones, what, clock_now_ns());
}

static int by_time(const void *a, const void *b)
{
	const struct milestone *first = a, *second = b;

	return (first->ns > second->ns) - (first->ns < second->ns);
}

void milestones_log(struct milestones *milestones, u32 first)
{
	if (first >= milestones->count)
		return;
	qsort(&milestones->list[first], milestones->count - first, sizeof(milestones->list[0]),
	      by_time);
	for (u32 i = first; i < milestones->count; i++)
		log_line("boot-timing: %10.3f ms  %s",
			 (double)(milestones->list[i].ns - milestones->start) / 1e6,
			 milestones->list[i].what);
}

void milestones_put(const struct milestones *milestones, struct json *json)
{
	for (u32 i = 0; i < milestones->count; i++)
		json_thousandths(json, milestones->list[i].what,
				 (milestones->list[i].ns - milestones->start) / 1000);
}
