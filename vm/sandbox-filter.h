/*
 * Private to the sandbox: what its filters, which are made while vmm is built, cannot know of the
 * process. Numbers that stand for it in the programs (below what the kernel gives out as a process
 * id or a descriptor), replaced when they are loaded.
 */
#ifndef VM_SANDBOX_FILTER_H
#define VM_SANDBOX_FILTER_H

#define SANDBOX_PID	   0x7eed0001u /* ours */
#define SANDBOX_REWRITABLE 0x7eed0002u /* the file of sandbox_allow_rewriting() */

#endif
