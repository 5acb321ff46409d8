/*
 * What a run came to, and the exit status that says so. Pure: no state, any thread.
 */
#ifndef RUN_VERDICT_H
#define RUN_VERDICT_H

#include "vm/config.h"
#include "vm/end.h"

/* Exit statuses of vmm run besides the command's; vm/config-run.c tells of them. */
enum run_status {
	RUN_STATUS_ERROR = 120,
	RUN_STATUS_NO_INIT = 121,
	RUN_STATUS_MESSAGE = 122,
	RUN_STATUS_PANIC = STATUS_PANIC,
	RUN_STATUS_TIMEOUT = STATUS_TIMEOUT,
};

enum run_verdict {
	RUN_UNKNOWN,
	RUN_EXIT,	 /* the command ended ... */
	RUN_SIGNAL,	 /* ... by a signal */
	RUN_WARNING,	 /* the kernel warned, and --fail-on says that this counts */
	RUN_OOPS,	 /* the same for an oops */
	RUN_TIMEOUT,	 /* --timeout */
	RUN_HANG,	 /* init no longer answers */
	RUN_PANIC,	 /* of the kernel */
	RUN_CRASH,	 /* triple fault */
	RUN_GONE,	 /* the guest powered off, or reset, under the command */
	RUN_NO_INIT,	 /* init never ran, or could not start the command */
	RUN_INTERRUPTED, /* a signal ended us, or the user did */
	RUN_ERROR,	 /* of the host or KVM */
};

/* What is known when the machine has ended. */
struct run_facts {
	enum end_reason reason;
	u32 value;	   /* as in end_reason() */
	bool init, start;  /* said so */
	bool ended;	   /* the command did, ... */
	bool by_signal;	   /* ... by a signal ... */
	u32 code;	   /* ... with this number, or this status */
	bool failed;	   /* init said that it cannot go on */
	bool rootless;	   /* the panic is that the kernel found no init */
	bool boot_timeout; /* is why the machine was ended */
	bool hang;	   /* is why the machine was ended */
	u32 interrupted;   /* by this signal; 0: not */
	enum config_fail_on fail_on;
	bool warned, oopsed;
};

/* The verdict and its status. */
enum run_verdict run_judge(const struct run_facts *facts, int *status);

/* One word for reports: "exit", "no-init". */
const char *run_verdict_word(enum run_verdict verdict);
/* Is it the command's own? */
static inline bool run_verdict_own(enum run_verdict verdict)
{
	return verdict == RUN_EXIT || verdict == RUN_SIGNAL;
}
/* Of several statuses the one that stands for all: 0 only if all are, else ours before the
 * command's. */
int run_status_worse(int a, int b);

#endif
