/* Unix sockets for a vsock: see vsock.h. */
#include "backends/vsock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "backends/descriptor.h"
#include "backends/listen.h"
#include "vm/end.h"
#include "vm/log.h"
#include "vm/sandbox.h"

#define BACKLOG 128
#define CALLER	3 /* the process's one descriptor */

/* What passes between the machine and the process: a wish, and what became of it, with the socket
 * beside it if error is 0. */
struct call {
	u32 id;
	u32 port;
	s32 error;
	u32 type; /* enum vsock_door */
};

/* ---- the process ---- */

static int connect_out(const char *path, const struct call *call)
{
	int type = call->type == VSOCK_SEQPACKET ? SOCK_SEQPACKET : SOCK_STREAM, error;
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (fd < 0)
		return -errno;
	snprintf(address.sun_path, sizeof(address.sun_path), "%s_%u", path, call->port);
	if (!connect(fd, (const struct sockaddr *)&address, sizeof(address)))
		return fd;
	error = -errno;
	close(fd);
	return error;
}

static void __attribute__((noreturn)) serve(const char *path)
{
	struct call call;

	while (read(CALLER, &call, sizeof(call)) == (ssize_t)sizeof(call)) {
		int fd = connect_out(path, &call);

		call.error = fd < 0 ? fd : 0;
		if (descriptor_send(CALLER, &call, sizeof(call), fd, 0))
			break;
		if (fd >= 0)
			close(fd);
	}
	_exit(0);
}

static void __attribute__((noreturn))
become_caller(const char *path, bool sandbox, int socket, pid_t parent)
{
	sigset_t all;
	int null = parent ? -1 : open("/dev/null", O_RDWR | O_CLOEXEC);

	/* The machine's signals are its own; the socket's end is the end. */
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	prctl(PR_SET_NAME, "vmm-vsock");
	if (parent)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	else
		setsid();
	/* whoever waits for the end of a command's output does not wait for this */
	for (int fd = 0; fd < CALLER && null >= 0; fd++)
		dup2(null, fd);
	if ((parent && getppid() != parent) || dup2(socket, CALLER) < 0 ||
	    close_range(CALLER + 1, ~0u, 0) ||
	    (sandbox && (sandbox_share_prepare(0) || sandbox_caller_enter())))
		_exit(STATUS_HOST_ERROR);
	serve(path);
}

/* ---- the machine's end ---- */

static int listen_at(struct vsock_host *host, enum vsock_door door, const char *path)
{
	static const int types[] = { SOCK_STREAM, SOCK_SEQPACKET };
	int fd = listen_option("vsock", path, types[door], BACKLOG);

	host->fds[door] = fd;
	return fd < 0 ? fd : 0;
}

static int start_caller(struct vsock_host *host, const char *path, bool sandbox, pid_t parent)
{
	int ends[2], error = 0;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
		return -errno;
	if (!fcntl(ends[0], F_SETFL, O_NONBLOCK))
		host->process = fork();
	if (!host->process)
		become_caller(path, sandbox, ends[1], parent);
	if (host->process < 0)
		error = -errno;
	close(ends[1]);
	host->fds[VSOCK_CALLER] = ends[0];
	return error;
}

static int open_for(struct vsock_host *host, const char *path, bool sandbox, pid_t parent)
{
	char seq[sizeof(((struct sockaddr_un *)0)->sun_path) + 8];
	int error;

	vsock_host_adopt(host, (const int[]){ -1, -1, -1 });
	snprintf(seq, sizeof(seq), "%s.seq", path);
	/* first, so that the process never has the sockets that listen */
	error = start_caller(host, path, sandbox, parent);
	if (error)
		log_line("--vsock: the process that connects cannot be started: %s; allow "
			 "more processes and open files (ulimit -u, ulimit -n)",
			 strerror(-error));
	if (!error)
		error = listen_at(host, VSOCK_STREAM, path);
	if (!error)
		error = listen_at(host, VSOCK_SEQPACKET, seq);
	if (error)
		vsock_host_close(host);
	return error;
}

int vsock_host_open(struct vsock_host *host, const char *path, bool sandbox)
{
	return open_for(host, path, sandbox, getpid());
}

int vsock_host_open_for(struct vsock_host *host, const char *path)
{
	return open_for(host, path, true, 0);
}

void vsock_host_adopt(struct vsock_host *host, const int *fds)
{
	*host = (struct vsock_host){ .files = { -1, -1, -1 }, .process = -1 };
	memcpy(host->fds, fds, sizeof(host->fds));
}

void vsock_host_close(struct vsock_host *host)
{
	if (!host->process) /* it never was open */
		return;
	for (u32 i = 0; i < VSOCK_DOORS; i++) {
		if (host->fds[i] < 0)
			continue;
		shutdown(host->fds[i], SHUT_RDWR); /* a ring may hold the file a while longer */
		close(host->fds[i]);
		host->fds[i] = -1;
	}
	if (host->process > 0)
		waitpid(host->process, NULL, 0);
	host->process = 0;
}

int vsock_host_register(struct vsock_host *host, struct reactors *reactors)
{
	for (u32 i = 0; i < VSOCK_DOORS; i++) {
		host->files[i] = reactor_file_add(reactors, host->fds[i]);
		if (host->files[i] < 0)
			return host->files[i];
	}
	return 0;
}

void vsock_host_unregister(struct vsock_host *host, struct reactors *reactors)
{
	for (u32 i = 0; i < VSOCK_DOORS; i++)
		if (host->files[i] >= 0)
			reactor_file_remove(reactors, host->files[i]);
}

int vsock_host_accept(const struct vsock_host *host, enum vsock_door door)
{
	int fd = accept4(host->fds[door], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

int vsock_host_call(const struct vsock_host *host, u32 id, u32 port, enum vsock_door type)
{
	const struct call call = { .id = id, .port = port, .type = type };

	return write(host->fds[VSOCK_CALLER], &call, sizeof(call)) < 0 ? -errno : 0;
}

int vsock_host_answer(const struct vsock_host *host, u32 *id, int *fd)
{
	struct call call;
	ssize_t n = descriptor_receive(host->fds[VSOCK_CALLER], &call, sizeof(call), fd);

	if (n == -EAGAIN || n == -EINTR)
		return 0;
	if (*fd >= 0 && (n != (ssize_t)sizeof(call) || call.error)) {
		close(*fd); /* it is out of its mind */
		*fd = -1;
	}
	if (n != (ssize_t)sizeof(call))
		return n < 0 ? (int)n : -EPIPE;
	*id = call.id;
	if (call.error)
		*fd = call.error;
	else if (*fd < 0) /* this process has no room for one more descriptor */
		*fd = -EMFILE;
	return 1;
}
