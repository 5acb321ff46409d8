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

/*
 * Between machine and server are 9P messages, but for the tag, and for much data: that goes through
 * two pipes, which the kernel fills with references to pages, so that it is copied once. The
 * machine decides, as it knows how much room a pipe has, and adds 1 to the type of such a request.
 * Of a Twrite the data is in the pipe before the message, which then has none. The answer to a
 * Tread may be as ever, or of type Rread - 1 and without data: its count is in the pipe.
 */
#define SHARE_TREAD	116u
#define SHARE_TWRITE	118u
#define SHARE_IO_HEADER 23u /* size[4] type[1] tag[2] fid[4] offset[8] count[4] */
#define SHARE_RREAD	11u /* size[4] type[1] tag[2] count[4] */
#define SHARE_MUCH	KIB(16)

struct share_config {
	const char *path;
	bool readonly;
	enum config_map map;
	bool sandbox;
};

struct share {
	const char *path;
	int fd, dup;	       /* the same socket twice: a ring's file has one operation waiting */
	reactor_file in, out;  /* its numbers */
	int pipe_out, pipe_in; /* the latter does not wait */
	u32 slots;	       /* of each: pages that it has room for; 0: they are not used */
	int process;	       /* pid */
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
