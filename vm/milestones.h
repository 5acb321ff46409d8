/*
 * When start-up did what: moments with names, for --boot-timing and --stats. Main thread.
 */
#ifndef VM_MILESTONES_H
#define VM_MILESTONES_H

#include "vm/json.h"

#define MILESTONE_GUEST "first guest instruction"
#define MILESTONES_MAX	80 /* more are left out: ten of ours and two a device */

struct milestones {
	u64 start; /* CLOCK_MONOTONIC ns that all are counted from */
	u32 count;
	struct milestone {
		u64 ns; /* CLOCK_MONOTONIC */
		char what[40];
	} list[MILESTONES_MAX];
};

/* Now is the start. */
void milestones_begin(struct milestones *milestones);
/* Now is when `what` is done. */
void milestones_mark(struct milestones *milestones, const char *what);
/* The same, at another time (ns of CLOCK_MONOTONIC); 0 has not happened, and nothing is added. */
void milestones_add(struct milestones *milestones, const char *what, u64 ns);

/* Those from number `first` on as lines on stderr, by their time, in milliseconds since the start.
 * Sorts them. */
void milestones_log(struct milestones *milestones, u32 first);
/* All as members of an open object, in milliseconds. */
void milestones_put(const struct milestones *milestones, struct json *json);

#endif
