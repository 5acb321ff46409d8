/*
 * A folder of the host for the guest: a process of its own that speaks 9P2000.L over a socket
 * (share-server.c), and the machine's end of it. The process has the folder and that socket and
 * nothing else: it is made before guest RAM is, and ends with the machine, however that ends.
 */
#ifndef BACKENDS_SHARE_H
#define BACKENDS_SHARE_H

#include "vm/config.h"
#include "vm/reactor.h"

#define SHARE_MSIZE KIB(512) /* the largest message, either way */

struct share_config {
	const char *path;
	bool readonly;
	enum config_map map;
	bool sandbox;
};

struct share {
	const char *path;
	int fd, dup;	      /* the same socket twice: a ring's file has one operation waiting */
	reactor_file in, out; /* its numbers */
	int process;	      /* pid */
};

/* Opens the folder and starts its server. config->path is kept by the caller. Logs, 0 or -errno.
 * Main thread, while there is no other and guest RAM is not yet made. */
int share_open(struct share *share, const struct share_config *config);
/* Waits until the server is ready, and registers the socket. Logs, 0 or -errno. Main thread. */
int share_register(struct share *share, struct reactors *reactors);
void share_unregister(struct share *share, struct reactors *reactors);
/* Ends the server and waits for its end. Main thread. */
void share_close(struct share *share);

/* The server: never returns. Its descriptors are in place (share-internal.h). */
void share_serve(const struct share_config *config) __attribute__((noreturn));

#endif
