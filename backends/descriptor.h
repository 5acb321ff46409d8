/*
 * Descriptors between processes: one at a time, with the bytes of a message over a Unix socket
 * (unix(7), SCM_RIGHTS).
 */
#ifndef BACKENDS_DESCRIPTOR_H
#define BACKENDS_DESCRIPTOR_H

#include <sys/types.h>

/* Sends the bytes, at least one, and with them fd, which the caller keeps; -1: none. 0 or -errno
 * (MSG_DONTWAIT or 0 in flags). Any thread. */
int descriptor_send(int socket, const void *bytes, size_t length, int fd, int flags);

/* Takes the next message. Returns its length, or -errno; *fd: the caller's from here on, close on
 * exec, or -1: none came with it, or this process has no room for one more. Of several the first
 * is taken, the others are dropped. Any thread. */
ssize_t descriptor_receive(int socket, void *bytes, size_t length, int *fd);

#endif
