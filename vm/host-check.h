/* `vmm check`: what this host offers, what it lacks, and the command that mends it. */
#ifndef VM_HOST_CHECK_H
#define VM_HOST_CHECK_H

/* Prints a line a thing to stdout. 0 if a VM can run here, -ENOTSUP if not. Main thread, alone. */
int host_check(void);

#endif
