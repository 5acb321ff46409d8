/*
 * Private to terminal*.c: the modes of the one terminal that the process took over, and their way
 * back. The state is the process's, because a signal handler must find it.
 */
#ifndef BACKENDS_TERMINAL_MODE_H
#define BACKENDS_TERMINAL_MODE_H

#include "vm/types.h"

/* Reads fd's modes and makes it raw, unless we are in its background. 0 or -errno. Main thread. */
int terminal_mode_take(int fd);
/* Is input ours to read? Any thread. */
bool terminal_mode_is_raw(void);
/* A read failed: if that is because another process group has the terminal now, it is no longer raw
 * for us. Main thread. */
bool terminal_mode_lost(void);
/* Restores it and forgets fd. Main thread. */
void terminal_mode_give_back(void);

#endif
