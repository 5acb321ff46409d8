/* Keeps a disk image from being written by two machines at once, whichever program runs them. */
#ifndef BACKENDS_DISK_LOCK_H
#define BACKENDS_DISK_LOCK_H

#include "vm/types.h"

/*
 * Locks the open image for as long as fd's open file description lives: one writer, or any number
 * of readers. A conflict is one log line that names the holder where /proc shows it, and -EBUSY. A
 * file system that has no locks is said in one line, and 0. Main thread.
 */
int disk_lock(int fd, const char *path, bool readonly);

/* For an open file that its sender has locked already, so that it can be had at once or not at all,
 * and nobody is looked for. 0, or -EBUSY without a line. Main thread; allowed in the sandbox with a
 * control socket. */
int disk_lock_again(int fd, bool readonly);
/* Unlocks it, though the open file may live on in a ring for a while. Main thread; allowed in the
 * sandbox with a control socket. */
void disk_unlock(int fd);

#endif
