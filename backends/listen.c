/* A Unix socket that listens: see listen.h. */
#include "backends/listen.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "vm/log.h"

/* A socket that nobody listens on is what a machine leaves that ended; or a device that was
 * removed, whose file a ring may hold: then only a socket of its own type is told so. */
static bool is_stale(const struct sockaddr_un *address, int type)
{
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct stat st;
	bool stale;

	if (fd < 0)
		return false;
	stale = !lstat(address->sun_path, &st) && S_ISSOCK(st.st_mode) &&
		connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 &&
		errno == ECONNREFUSED;
	close(fd);
	return stale;
}

static int bind_socket(int fd, const char *path, int type)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	mode_t mask;
	int error = 0;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	mask = umask(0177); /* 0600 from its first moment on */
	for (int n = 0; n < 2; n++) {
		error = bind(fd, (struct sockaddr *)&address, sizeof(address)) ? -errno : 0;
		if (error != -EADDRINUSE || !is_stale(&address, type) || unlink(path))
			break;
	}
	umask(mask);
	return error;
}

int listen_unix(const char *path, int type, int backlog)
{
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), error;

	if (fd < 0)
		return -errno;
	error = bind_socket(fd, path, type);
	if (!error && listen(fd, backlog))
		error = -errno;
	if (!error)
		return fd;
	close(fd);
	return error;
}

int listen_option(const char *option, const char *path, int type, int backlog)
{
	int fd = listen_unix(path, type, backlog);

	if (fd < 0)
		log_line("--%s %s: %s; %s", option, path, strerror(-fd),
			 fd == -EADDRINUSE
				 ? "another machine listens there, or it is no socket; give "
				   "another path"
				 : "give a path in a directory that can be written");
	return fd;
}
