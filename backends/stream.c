/* The host's end of a stream: see stream.h. */
#include "backends/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static const struct stream_end none = { .fd = -1, .file = -1 };

/* Others count on 0 to 2: what is opened next must not become one of them. */
static void drop(int fd)
{
	if (fd > STDERR_FILENO)
		close(fd);
}

/* The same pipe or terminal once more, non-blocking for us alone; -1 where that cannot be. A pty's
 * master would become another pty. */
static int open_again(int fd, const struct stat *st, int access)
{
	char path[32];

	if (!S_ISFIFO(st->st_mode) &&
	    (!S_ISCHR(st->st_mode) || st->st_rdev == makedev(5, 2) || !isatty(fd)))
		return -1;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, access | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

static int open_end(struct stream_end *end, int fd, int access)
{
	int flags = fcntl(fd, F_GETFL), mode = flags & O_ACCMODE, again;
	struct stat st;

	*end = none;
	if (flags < 0 || fstat(fd, &st))
		return -errno;
	if (mode != access && mode != O_RDWR)
		return -EBADF;
	end->fd = fd;
	end->storage = S_ISREG(st.st_mode) || S_ISBLK(st.st_mode);
	end->socket = S_ISSOCK(st.st_mode);
	if (end->storage || flags & O_NONBLOCK)
		return 0;
	again = open_again(fd, &st, access);
	end->bounded = again < 0;
	if (again >= 0) {
		end->fd = again;
		drop(fd);
	}
	return 0;
}

int stream_open(struct stream *stream, int in_fd, int out_fd)
{
	int error = 0;

	stream->in = stream->out = none;
	/* each is waited for in its own way, and epoll has a descriptor but once */
	if (in_fd >= 0 && in_fd == out_fd) {
		out_fd = fcntl(in_fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
		error = out_fd < 0 ? -errno : 0;
	}
	if (!error && in_fd >= 0)
		error = open_end(&stream->in, in_fd, O_RDONLY);
	if (!error && out_fd >= 0)
		error = open_end(&stream->out, out_fd, O_WRONLY);
	if (!error)
		return 0;
	if (stream->in.fd < 0)
		drop(in_fd);
	if (stream->out.fd < 0)
		drop(out_fd);
	stream_close(stream);
	return error;
}

static int register_end(struct stream_end *end, struct reactors *reactors)
{
	if (end->fd < 0)
		return 0;
	end->file = reactor_file_add(reactors, end->fd);
	return end->file < 0 ? end->file : 0;
}

int stream_register(struct stream *stream, struct reactors *reactors)
{
	int error = register_end(&stream->in, reactors);

	if (!error)
		error = register_end(&stream->out, reactors);
	if (error)
		stream_unregister(stream, reactors);
	return error;
}

void stream_unregister(struct stream *stream, struct reactors *reactors)
{
	if (stream->in.file >= 0)
		reactor_file_remove(reactors, stream->in.file);
	if (stream->out.file >= 0)
		reactor_file_remove(reactors, stream->out.file);
	stream->in.file = stream->out.file = -1;
}

static void close_end(struct stream_end *end)
{
	if (end->socket && end->fd > STDERR_FILENO)
		shutdown(end->fd, SHUT_RDWR);
	drop(end->fd);
	*end = none;
}

void stream_close(struct stream *stream)
{
	close_end(&stream->in);
	close_end(&stream->out);
}
