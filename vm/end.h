/*
 * How a run ends: whoever learns of an end (a vCPU, a platform device, the timeout) says so
 * here; the main thread is woken and decides. The first reason stays, except that a later
 * one of higher rank (a panic after a reset request was not yet served) replaces it.
 */
#ifndef VM_END_H
#define VM_END_H

#include <stdatomic.h>
#include "vm/types.h"

enum end_reason {
	END_NONE,
	END_POWEROFF,	  /* ACPI S5 */
	END_RESET,	  /* ACPI reset register or KVM_SYSTEM_EVENT_RESET */
	END_QUIT,	  /* Ctrl-A x */
	END_SIGNAL,	  /* value: signal number */
	END_GUEST_STATUS, /* value: byte written to the debug-exit port */
	END_PANIC,	  /* pvpanic, or the console stream */
	END_TRIPLE_FAULT, /* value: vCPU */
	END_TIMEOUT,
	END_KVM_ERROR,	/* value: vCPU; the line was printed already */
	END_HOST_ERROR, /* the line was printed already */
};

/* Exit statuses of the process, as documented in vmm(1). */
enum end_status {
	STATUS_OK = 0,
	STATUS_HOST_ERROR = 1,
	STATUS_USAGE = 2,
	STATUS_RESET = 3, /* under --no-reboot */
	STATUS_QUIT = 4,
	STATUS_KVM_ERROR = 120,
	STATUS_PANIC = 123,
	STATUS_TIMEOUT = 124,
	STATUS_TRIPLE_FAULT = 125,
	STATUS_SIGNAL = 128, /* plus the signal's number */
};

struct end {
	_Atomic u64 state; /* reason << 32 | value */
	int fd;		   /* eventfd, readable when a reason is set */
};

/* Creates the eventfd. 0 or -errno. Main thread. */
int end_init(struct end *end);

/* Sets the reason (unless one of the same or a higher rank stands) and wakes the main thread. Any
 * thread, async-signal-safe. */
void end_request(struct end *end, enum end_reason reason, u32 value);

/* The reason in force, END_NONE if the machine goes on; *value (if not NULL) gets its value. Any
 * thread. */
enum end_reason end_reason(const struct end *end, u32 *value);

/* Forgets the reason, for a restart in place. Main thread, vCPUs stopped. */
void end_clear(struct end *end);

/* The process's exit status for a reason. Pure. */
int end_status(enum end_reason reason, u32 value);

/* Says in one log line how the run ended, where that is news. Any thread. */
void end_report(enum end_reason reason, u32 value);

#endif
