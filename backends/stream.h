/*
 * The host's end of a stream of bytes, for whoever moves them through a reactor: one descriptor to
 * read from, one to write to; pipes, terminals, sockets or files, blocking or not. Main thread.
 */
#ifndef BACKENDS_STREAM_H
#define BACKENDS_STREAM_H

#include "vm/reactor.h"

struct stream_end {
	int fd; /* -1: this direction is not there */
	reactor_file file;
	bool socket;
	bool storage; /* a regular file or block device: never waits, EOF is its end */
	/* blocks whoever writes more than STREAM_BOUND, or without having polled */
	bool bounded;
};

#define STREAM_BOUND 4096

struct stream {
	struct stream_end in, out; /* from the host, to the host */
};

/*
 * Takes both descriptors over (-1: none; both may be the same). Pipes and terminals are opened once
 * more, so that nothing becomes non-blocking for others who have them; 0 to 2 stay open. Before the
 * sandbox, unless the descriptor is a non-blocking socket. 0 or -errno; after an error all is
 * closed.
 */
int stream_open(struct stream *stream, int in_fd, int out_fd);
/* Numbers for the reactors. 0 or -errno. */
int stream_register(struct stream *stream, struct reactors *reactors);
/* Nothing of it is in flight. */
void stream_unregister(struct stream *stream, struct reactors *reactors);
/* Whoever has the other end sees the end at once if it is a socket, else when rings have let go of
 * it (reactor_files_release()). */
void stream_close(struct stream *stream);

#endif
