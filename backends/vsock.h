/*
 * The host's side of a machine's vsock over Unix sockets: two sockets at whose paths programs of
 * the host come in, and a process that connects out, since the sandbox of the machine opens
 * nothing. That process knows one path and is told a port's number; it gives back a socket
 * connected to PATH_PORT.
 */
#ifndef BACKENDS_VSOCK_H
#define BACKENDS_VSOCK_H

#include <sys/types.h>
#include "vm/reactor.h"

enum vsock_door { VSOCK_STREAM, VSOCK_SEQPACKET, VSOCK_CALLER, VSOCK_DOORS };

struct vsock_host {
	/* sockets that listen at PATH (stream) and PATH.seq (seqpacket), and the one to the
	 * process; non-blocking, -1: not open */
	int fds[VSOCK_DOORS];
	reactor_file files[VSOCK_DOORS];
	pid_t process;
};

/* Makes the sockets and the process. sandbox: it may do nothing but its work. Logs, 0 or -errno;
 * then nothing is left. Main thread, before there is guest memory or another thread. */
int vsock_host_open(struct vsock_host *host, const char *path, bool sandbox);
/* The same for a machine that runs in another process: the process that connects belongs to nobody,
 * and ends with its socket. */
int vsock_host_open_for(struct vsock_host *host, const char *path);
/* The descriptors of VSOCK_DOORS that such a call has made. */
void vsock_host_adopt(struct vsock_host *host, const int *fds);
/* Ends the process. Main thread; does nothing if not open. */
void vsock_host_close(struct vsock_host *host);

/* Numbers for the reactors. 0 or -errno. Main thread. */
int vsock_host_register(struct vsock_host *host, struct reactors *reactors);
void vsock_host_unregister(struct vsock_host *host, struct reactors *reactors);

/* The next client at a door that listens: its socket, non-blocking, or -errno (-EAGAIN: there is
 * none). Any thread. */
int vsock_host_accept(const struct vsock_host *host, enum vsock_door door);
/* Asks for a connection to a port; the answer comes by id. 0; -EAGAIN: so many wait that it must be
 * asked for again after an answer; -errno: there will be none. Any thread. */
int vsock_host_call(const struct vsock_host *host, u32 id, u32 port, enum vsock_door type);
/* The next answer: 1, with *fd the socket, non-blocking, or -errno, nobody listens there; 0: none
 * has come; -errno: the process is gone. Any thread. */
int vsock_host_answer(const struct vsock_host *host, u32 *id, int *fd);

#endif
