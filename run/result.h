/*
 * What one run of `vmm run` came to: plain numbers and text, so that a child process can leave it
 * in memory that it shares with its parent. Written by one thread, read when that is done.
 */
#ifndef RUN_RESULT_H
#define RUN_RESULT_H

#include "run/verdict.h"

/* Moments of a run. */
enum run_time {
	RUN_TIME_INSTRUCTION, /* the guest's first */
	RUN_TIME_CONSOLE,     /* its first byte on the serial console */
	RUN_TIME_INIT,
	RUN_TIME_ROOT,
	RUN_TIME_START, /* of the command */
	RUN_TIME_STOP,	/* of the command */
	RUN_TIME_END,	/* of the machine */
	RUN_TIMES
};

struct run_result {
	enum run_verdict verdict; /* RUN_UNKNOWN: it never came to one */
	int status;
	struct run_facts facts;
	u64 start;	      /* of the process, CLOCK_MONOTONIC ns */
	u64 times[RUN_TIMES]; /* the same clock; 0: never came */
	u32 warnings, oopses; /* that the kernel printed */
	/* NUL-terminated, empty where there is nothing to say; any bytes but NUL */
	char version[128]; /* of the kernel */
	char reason[512];  /* what a line on stderr says of a verdict that is not the command's */
	char message[256]; /* the first warning or oops */
	char crash[8192];  /* the last oops, panic included */
	char tail[8192];   /* of the console, whole lines */
};

#endif
