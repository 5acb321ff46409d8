/*
 * Private to the sandbox: from lists of what kinds of threads may call to a seccomp program
 * (seccomp(2), Linux Documentation/userspace-api/seccomp_filter.rst).
 */
#ifndef VM_SANDBOX_FILTER_H
#define VM_SANDBOX_FILTER_H

#include <linux/filter.h>
#include "vm/types.h"

/* One for each kind of thread. Longest: each rule takes up to 8 instructions, each ioctl 2. */
#define FILTER_MAX 640

struct filter {
	struct sock_filter code[FILTER_MAX];
	u32 length;
};

/* An int or unsigned int of the call's arguments: (argument & mask) == value. The kernel does not
 * look at the upper half of such an argument's register, and neither do we. */
struct filter_condition {
	u8 argument;
	u32 mask, value;
};

/* Who may make the call, if all conditions hold. A call that has several rules needs one of them.
 */
struct filter_rule {
	u16 call;
	u8 kinds; /* a bit each */
	u8 conditions;
	struct filter_condition condition[2];
};

struct filter_rules {
	const struct filter_rule *list;
	u32 count;
};

/* Who may make an ioctl(2) with this request. */
struct filter_ioctl {
	u32 request;
	u8 kinds;
};

/*
 * Makes the program for one kind (a single bit): what the lists allow is allowed, every other call
 * of this machine's 64-bit interface traps (SIGSYS), calls by any other interface kill the process.
 * The first ioctls in the list are the quickest to be let through. 0 or -E2BIG. Any thread.
 */
int filter_build(struct filter *filter, u8 kind, const struct filter_ioctl *ioctls, u32 ioctl_count,
		 const struct filter_rules *rules, u32 rules_count);

/* Closes it over the calling thread, for good; no_new_privs is set. 0 or -errno. */
int filter_enter(const struct filter *filter);

#endif
