/* A Unix socket that listens: for whoever takes connections on a path. Main thread, before the
 * sandbox. */
#ifndef BACKENDS_LISTEN_H
#define BACKENDS_LISTEN_H

/* Makes the socket of type SOCK_STREAM or SOCK_SEQPACKET, non-blocking and of mode 0600; takes the
 * place of one that nobody listens on. Its descriptor, or -errno: -EADDRINUSE if another listens
 * there, or it is no socket; -ENAMETOOLONG. */
int listen_unix(const char *path, int type, int backlog);
/* The same for an option's path, which a log line names when it fails. */
int listen_option(const char *option, const char *path, int type, int backlog);

#endif
