/*
 * One descriptor with a message of a Unix socket. Any thread.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include "backends/descriptor.h"

union control {
	struct cmsghdr header;
	char room[CMSG_SPACE(sizeof(int))];
};

int descriptor_send(int socket, const void *bytes, size_t length, int fd, int flags)
{
	struct iovec iov = { (void *)bytes, length };
	union control control = { 0 };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
		control.header.cmsg_len = CMSG_LEN(sizeof(fd));
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	}
	return sendmsg(socket, &message, flags | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

ssize_t descriptor_receive(int socket, void *bytes, size_t length, int *fd)
{
	struct iovec iov = { bytes, length };
	union control control;
	struct msghdr message = { .msg_iov = &iov,
				  .msg_iovlen = 1,
				  .msg_control = &control,
				  .msg_controllen = CMSG_LEN(sizeof(*fd)) };
	/* The kernel drops what there is no room for: CMSG_SPACE() would have some for two. */
	ssize_t n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

	*fd = -1;
	if (n < 0)
		return -errno;
	if (message.msg_controllen >= CMSG_LEN(sizeof(*fd)) &&
	    control.header.cmsg_level == SOL_SOCKET && control.header.cmsg_type == SCM_RIGHTS)
		memcpy(fd, CMSG_DATA(&control.header), sizeof(*fd));
	return n;
}
