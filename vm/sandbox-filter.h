/*
 * Private to the sandbox: what its filters, which are made while vmm is built, cannot know of the
 * process. Numbers that stand for it in the programs (below what the kernel gives out as a process
 * id or a descriptor), replaced when they are loaded.
 */
#ifndef VM_SANDBOX_FILTER_H
#define VM_SANDBOX_FILTER_H

/* The programs: one for each kind of thread, the main thread's where it has a control socket, that
 * of a share's server, and that of the process which connects for a vsock.
 */
#define SANDBOX_CONTROL	 SANDBOX_THREADS
#define SANDBOX_SHARE	 (SANDBOX_THREADS + 1)
#define SANDBOX_CALLER	 (SANDBOX_THREADS + 2)
#define SANDBOX_PROGRAMS (SANDBOX_THREADS + 3)

#define SANDBOX_PID	    0x7eed0001u /* ours */
#define SANDBOX_REWRITABLE  0x7eed0002u /* the file of sandbox_allow_rewriting() */
#define SANDBOX_VMCORE	    0x7eed0003u /* that of sandbox_allow_vmcore() */
#define SANDBOX_GUEST_DEBUG 0x7eed0004u /* KVM_SET_GUEST_DEBUG, by sandbox_allow_gdb() */

/* The names of system calls, from 0 on, in codes of so many bits, the lowest first: 1 to 26 are
 * letters, 0 ends a name. */
#define CALL_NAMES	512
#define CALL_NAME_BITS	5
#define CALL_NAME_LINE	27 /* _ */
#define CALL_NAME_DIGIT 28 /* the next code is one */

#endif
