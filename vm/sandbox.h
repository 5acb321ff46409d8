/*
 * What the process may still do once the guest runs: no capabilities, no new privileges, no core of
 * guest memory for others (PR_SET_DUMPABLE off), and a seccomp allowlist for each kind of thread. A
 * forbidden call prints its name and the thread, then ends the process with STATUS_HOST_ERROR, or
 * what sandbox_end_with() says.
 */
#ifndef VM_SANDBOX_H
#define VM_SANDBOX_H

#include "vm/types.h"

enum sandbox_thread {
	SANDBOX_MAIN,
	SANDBOX_VCPU,
	SANDBOX_REACTOR,
	SANDBOX_WORKER,
	SANDBOX_THREADS
};

/* Before a violation is told, fn is called once on the thread that did it (to give the terminal
 * back). It must be async-signal-safe and content with what every thread may call. Main thread,
 * before sandbox_prepare(). */
void sandbox_on_violation(void (*fn)(void));

/* The status of a process that a violation ends. Main thread, before sandbox_prepare(). */
void sandbox_end_with(int status);

/* The main thread may go on writing to this open file at any offset, and cut it short (--stats).
 * -1: none. Main thread, before sandbox_prepare(). */
void sandbox_allow_rewriting(int fd);

/* The main thread may write to this open file too, at any offset (--vmcore). -1: none. Main thread,
 * before sandbox_prepare(). */
void sandbox_allow_vmcore(int fd);

/* The main thread may go on serving its control socket: take clients and the descriptors they send,
 * make eventfds, lock and resize disk images. Main thread, before sandbox_prepare(). */
void sandbox_allow_control(void);

/* Threads may have KVM stop vCPUs at breakpoints. Main thread, before sandbox_prepare(). */
void sandbox_allow_gdb(void);

/* Drops all capabilities and sets no_new_privs; builds the filters so that
 * sandbox_enter() allocates nothing. Logs, 0 or -errno. Main thread, before other threads start. */
int sandbox_prepare(void);

/*
 * The process that serves a shared folder, in two steps: all capabilities go but those of `keep`
 * (bits by CAP_*; what it has not it does not get), no_new_privs and the rest as in
 * sandbox_prepare(); then a filter for all its threads. Each logs, 0 or -errno. The main thread of
 * that process; before the first step it is alone.
 */
int sandbox_share_prepare(u64 keep);
int sandbox_share_enter(void);
/* The second step of the process that connects for a vsock: it may make Unix sockets, connect them
 * and send them on. */
int sandbox_caller_enter(void);

/* Closes the calling thread's filter. Does nothing before sandbox_prepare() (--no-sandbox). 0 or
 * -errno (logged). Each thread for itself. */
int sandbox_enter(enum sandbox_thread kind);

#endif
