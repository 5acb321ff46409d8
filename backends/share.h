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
 * Between machine and server are 9P messages, but for the tag; and one more, Tlend fid[4], which
 * asks for the descriptor of an open regular file. It comes by a socket of its own, before the
 * answer, which has no body (or is Rlerror). The machine then reads and writes much data itself,
 * which is copied once.
 */
#define SHARE_TLEND	254u /* which no message of 9P2000.L is */
#define SHARE_LEND_SIZE 11u
#define SHARE_LENT	16u /* files that a machine has at one time */

#define SHARE_TVERSION	100u
#define SHARE_TREAD	116u
#define SHARE_TWRITE	118u
#define SHARE_TCLUNK	120u
#define SHARE_HEADER	7u	/* size[4] type[1] tag[2] */
#define SHARE_IO_HEADER 23u	/* and fid[4] offset[8] count[4] */
#define SHARE_RREAD	11u	/* and count[4]; Rwrite's, too */
#define SHARE_MUCH	KIB(16) /* of a read or write that may be the machine's */

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
	int files;	      /* where descriptors come from */
	int process;	      /* pid */
};

/* Opens the folder and starts its server. config->path is kept by the caller. Logs, 0 or -errno.
 * Main thread, while there is no other and guest RAM is not yet made. */
int share_open(struct share *share, const struct share_config *config);
/* Waits until the server is ready, and registers the socket. Logs, 0 or -errno. Main thread. */
int share_register(struct share *share, struct reactors *reactors);
void share_unregister(struct share *share, struct reactors *reactors);
/* The descriptor that came before the answer to a Tlend, which is the caller's: of a regular file,
 * nothing else is taken from a server. Or -errno (-EMFILE: no room for it here). A reactor. */
int share_take_file(const struct share *share);
/* Ends the server and waits for its end. Main thread. */
void share_close(struct share *share);

/* The server: never returns. Its descriptors are in place (share-internal.h). */
void share_serve(const struct share_config *config) __attribute__((noreturn));

#endif
