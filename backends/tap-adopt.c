/*
 * A tap of a machine that runs: another process has attached to it and sent its queues here.
 * Nothing here opens a file or makes a socket, which the sandbox forbids. Main thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include "backends/tap.h"
#include "vm/log.h"

#define MTU_MIN 68

/* What is wrong with a descriptor that is to be a queue of the tap, or NULL. */
static const char *check_queue(const struct tap *tap, int fd)
{
	struct ifreq request = { 0 };
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || ioctl(fd, TUNGETIFF, &request))
		return "it is no tap";
	if (!(request.ifr_flags & IFF_TAP) || !(request.ifr_flags & IFF_VNET_HDR) ||
	    !(request.ifr_flags & IFF_NO_PI) ||
	    !(request.ifr_flags & IFF_MULTI_QUEUE) == tap->multi_queue)
		return "it is attached in another mode than the options say";
	if (strncmp(request.ifr_name, tap->name, IFNAMSIZ))
		return "it is another interface";
	if (fcntl(fd, F_SETFL, flags | O_NONBLOCK))
		return strerror(errno);
	return NULL;
}

int tap_adopt(struct tap *tap, const struct tap_config *config, const int *fds, u32 count,
	      const struct tap *learned)
{
	const char *why = NULL;

	memset(tap, 0, sizeof(*tap));
	for (u32 i = 0; i < TAP_MAX_QUEUES; i++)
		tap->fds[i] = tap->files[i] = -1;
	snprintf(tap->name, sizeof(tap->name), "%s", config->name);
	tap->multi_queue = learned->multi_queue;
	if (config->queues > TAP_MAX_QUEUES || count != config->queues)
		why = "a descriptor for each queue is wanted";
	else if (learned->mtu < MTU_MIN || (config->queues > 1 && !learned->multi_queue))
		why = "no tap is like that";
	for (u32 i = 0; i < count && !why; i++)
		why = check_queue(tap, fds[i]);
	if (why) {
		log_line("%s: cannot be taken over: %s; add it by `vmm ctl`", tap->name, why);
		return -EINVAL;
	}
	tap->queues = config->queues;
	memcpy(tap->fds, fds, count * sizeof(fds[0]));
	tap->mtu = learned->mtu;
	tap->created = learned->created;
	memcpy(tap->mac, learned->mac, sizeof(tap->mac));
	tap_probe_offloads(tap);
	return 0;
}
