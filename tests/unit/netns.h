/*
 * A private network for tests of taps: a network namespace of the process's own, in which it may
 * make interfaces, and what tests do to them. Where that is not permitted tests skip, with the
 * reason.
 */
#ifndef TESTS_UNIT_NETNS_H
#define TESTS_UNIT_NETNS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include "vm/types.h"

static char netns_reason[128]; /* why there is none; empty: there is */

static inline void netns_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (write(fd, text, strlen(text)) < 0) {
		/* best effort: only keeps the kernel's own frames away */
	}
	close(fd);
}

/* Before any thread starts. */
static inline void netns_enter(void)
{
	int fd;

	if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0) {
		snprintf(netns_reason, sizeof(netns_reason), "no network namespace: %s",
			 strerror(errno));
		return;
	}
	fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		snprintf(netns_reason, sizeof(netns_reason), "/dev/net/tun: %s", strerror(errno));
		return;
	}
	close(fd);
	netns_write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
	netns_write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
}

#define netns_needed()                                                \
	do {                                                          \
		if (*netns_reason) {                                  \
			print_message("skipped: %s\n", netns_reason); \
			skip();                                       \
		}                                                     \
	} while (0)

static inline int netns_ioctl(const char *name, unsigned long request, struct ifreq *ifr)
{
	int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), result;

	snprintf(ifr->ifr_name, sizeof(ifr->ifr_name), "%s", name);
	result = ioctl(sock, request, ifr) < 0 ? -errno : 0;
	close(sock);
	return result;
}

static inline void netns_up(const char *name, bool up)
{
	struct ifreq ifr = {};

	assert_int_equal(netns_ioctl(name, SIOCGIFFLAGS, &ifr), 0);
	ifr.ifr_flags = (short)(up ? ifr.ifr_flags | IFF_UP : ifr.ifr_flags & ~IFF_UP);
	assert_int_equal(netns_ioctl(name, SIOCSIFFLAGS, &ifr), 0);
}

static inline void netns_mtu(const char *name, int mtu)
{
	struct ifreq ifr = { .ifr_mtu = mtu };

	assert_int_equal(netns_ioctl(name, SIOCSIFMTU, &ifr), 0);
}

/* One of ethtool's old single-feature questions, ETHTOOL_G*. */
static inline u32 netns_ethtool(const char *name, u32 command)
{
	struct ethtool_value value = { .cmd = command };
	struct ifreq ifr = { .ifr_data = (char *)&value };

	assert_int_equal(netns_ioctl(name, SIOCETHTOOL, &ifr), 0);
	return value.data;
}

/* As `ip tuntap add`: it stays until netns_delete(). owner: a uid, or -1. */
static inline void netns_tuntap(const char *name, int flags, int owner)
{
	struct ifreq ifr = { .ifr_flags = (short)flags };
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	assert_int_equal(ioctl(fd, TUNSETIFF, &ifr), 0);
	assert_int_equal(ioctl(fd, TUNSETPERSIST, 1), 0);
	if (owner >= 0)
		assert_int_equal(ioctl(fd, TUNSETOWNER, (unsigned long)owner), 0);
	close(fd);
}

/* As `ip link delete`. */
static inline void netns_delete(const char *name)
{
	struct {
		struct nlmsghdr header;
		struct ifinfomsg info;
	} request = {
		.header = { .nlmsg_len = sizeof(request),
			    .nlmsg_type = RTM_DELLINK,
			    .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK },
		.info = { .ifi_index = (int)if_nametoindex(name) },
	};
	int sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	char answer[512];

	assert_int_equal(send(sock, &request, sizeof(request), 0), sizeof(request));
	assert_true(recv(sock, answer, sizeof(answer), 0) > 0);
	close(sock);
}

/* ---- what is said on stderr ---- */

static int netns_stderr = -1, netns_capture = -1;

static inline void capture_begin(void)
{
	fflush(stderr);
	netns_capture = (int)memfd_create("stderr", MFD_CLOEXEC);
	netns_stderr = dup(STDERR_FILENO);
	assert_true(netns_capture >= 0 && netns_stderr >= 0);
	dup2(netns_capture, STDERR_FILENO);
}

/* What was said, NUL-terminated. */
static inline void capture_end(char *text, size_t size)
{
	ssize_t n;

	dup2(netns_stderr, STDERR_FILENO);
	close(netns_stderr);
	n = pread(netns_capture, text, size - 1, 0);
	text[n > 0 ? n : 0] = 0;
	close(netns_capture);
	netns_capture = -1;
}

#endif
