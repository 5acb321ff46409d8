/*
 * Attaches to a tap interface (Linux, Documentation/networking/tuntap.rst) and finds out what it
 * can: queues, offloads, MTU, whether it is up. Main thread, before the sandbox closes, but for the
 * functions at the end, which follow the driver's wishes.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "vm/log.h"
#include "backends/passt.h"

#define TUN_DEVICE   "/dev/net/tun"
#define DRAIN_MOST   4096 /* frames: queues hold 1000 by default; more may keep coming */
#define WAIT_STEPS   100
#define WAIT_STEP_NS 20000000

_Static_assert(sizeof(((struct tap *)0)->name) == IFNAMSIZ, "a tap's name is an interface's");

/* What stands under a name already. */
enum kind { KIND_NONE, KIND_TAP, KIND_TUN, KIND_OTHER };

struct interface {
	enum kind kind;
	bool up;
	bool carrier; /* up, and somebody holds its other end */
};

/* ---- asking about interfaces ---- */

static void request_init(struct ifreq *request, const char *name)
{
	memset(request, 0, sizeof(*request));
	snprintf(request->ifr_name, sizeof(request->ifr_name), "%s", name);
}

static enum kind interface_kind(int sock, const char *name)
{
	struct ethtool_drvinfo info = { .cmd = ETHTOOL_GDRVINFO };
	struct ifreq request;

	request_init(&request, name);
	request.ifr_data = (char *)&info;
	if (ioctl(sock, SIOCETHTOOL, &request) < 0 || strcmp(info.driver, "tun"))
		return KIND_OTHER;
	return strcmp(info.bus_info, "tap") ? KIND_TUN : KIND_TAP;
}

static void interface_look(int sock, const char *name, struct interface *interface)
{
	struct ethtool_value link = { .cmd = ETHTOOL_GLINK };
	struct ifreq request;

	*interface = (struct interface){ .kind = KIND_NONE };
	request_init(&request, name);
	if (ioctl(sock, SIOCGIFFLAGS, &request) < 0)
		return;
	interface->up = request.ifr_flags & IFF_UP;
	interface->kind = interface_kind(sock, name);
	request_init(&request, name);
	request.ifr_data = (char *)&link;
	interface->carrier = ioctl(sock, SIOCETHTOOL, &request) == 0 && link.data;
}

/* As the kernel judges names, without its templates ("tap%d"). */
static bool name_valid(const char *name)
{
	size_t length = strlen(name);

	if (!length || length >= IFNAMSIZ || !strcmp(name, ".") || !strcmp(name, ".."))
		return false;
	for (; *name; name++)
		if (*name == '/' || *name == ':' || *name == '%' || !isgraph((unsigned char)*name))
			return false;
	return true;
}

/* ---- mistakes, and the command that mends each ---- */

static int log_device_error(const char *name, int error)
{
	if (error == ENOENT || error == ENODEV || error == ENXIO)
		log_line("%s: this host has no " TUN_DEVICE
			 ": its kernel's tun driver is not loaded; `sudo modprobe tun`",
			 name);
	else if (error == EACCES || error == EPERM)
		log_line("%s: " TUN_DEVICE " may not be opened: %s; `sudo chmod 0666 " TUN_DEVICE
			 "`, or get it into this container",
			 name, strerror(error));
	else
		log_line("%s: " TUN_DEVICE " cannot be opened: %s", name, strerror(error));
	return -error;
}

static int log_busy(const char *name)
{
	log_line("%s: another process holds this tap; end it (`sudo fuser -v " TUN_DEVICE
		 "` shows who has taps open), or use another tap",
		 name);
	return -EBUSY;
}

static int log_attach_error(const struct tap_config *config, const struct interface *interface,
			    int error)
{
	const char *name = config->name;
	const char *multi = config->queues > 1 ? " multi_queue" : "";

	if (interface->kind == KIND_OTHER || interface->kind == KIND_TUN) {
		log_line("%s: this is %s, not a tap; name another interface, or make one: `sudo ip "
			 "tuntap add dev tap0 mode tap user $USER`",
			 name, interface->kind == KIND_TUN ? "a tun" : "another kind of interface");
	} else if (error == EBUSY) {
		return log_busy(name);
	} else if (error == EPERM && interface->kind == KIND_NONE) {
		log_line("%s: there is no such tap, and making one is not permitted; `sudo ip "
			 "tuntap add dev %s mode tap%s user $USER && sudo ip link set %s up`",
			 name, name, multi, name);
	} else if (error == EPERM) {
		log_line("%s: this tap belongs to another user; `sudo ip tuntap del dev %s mode "
			 "tap%s && sudo ip tuntap add dev %s mode tap%s user $USER`",
			 name, name, multi, name, multi);
	} else if (error == EINVAL && interface->kind == KIND_TAP && config->queues > 1) {
		log_line("%s: this tap has a single queue, and %u were asked for; use queues=1, or "
			 "`sudo ip tuntap del dev %s mode tap && sudo ip tuntap add dev %s mode "
			 "tap multi_queue user $USER`",
			 name, config->queues, name, name);
	} else {
		log_line("%s: cannot attach to this tap: %s", name, strerror(error));
	}
	return -error;
}

/* ---- attaching ---- */

static int queue_attach(const char *name, u32 flags, int *result)
{
	struct ifreq request;
	int fd = open(TUN_DEVICE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	int error;

	if (fd < 0)
		return log_device_error(name, errno);
	request_init(&request, name);
	request.ifr_flags = (short)flags;
	if (ioctl(fd, TUNSETIFF, &request) < 0) {
		error = errno;
		close(fd);
		*result = -1;
		return error; /* positive: the caller has the words for it */
	}
	*result = fd;
	return 0;
}

static int attach_first(struct tap *tap, const struct tap_config *config,
			const struct interface *interface)
{
	u32 flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
	int error;

	tap->multi_queue = config->queues > 1;
	error = queue_attach(tap->name, flags | (tap->multi_queue ? IFF_MULTI_QUEUE : 0u),
			     &tap->fds[0]);
	if (error == EINVAL && !tap->multi_queue && interface->kind == KIND_TAP) {
		/* made with multi_queue, which it then wants to hear each time */
		tap->multi_queue = true;
		error = queue_attach(tap->name, flags | IFF_MULTI_QUEUE, &tap->fds[0]);
	}
	if (error <= 0)
		return error;
	return log_attach_error(config, interface, error);
}

static int attach_rest(struct tap *tap, const struct tap_config *config)
{
	u32 flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;

	for (u16 i = 1; i < tap->queues; i++) {
		int error = queue_attach(tap->name, flags, &tap->fds[i]);

		if (error > 0)
			log_line("%s: queue %u of %u: cannot attach: %s; use a smaller queues=",
				 tap->name, i + 1u, config->queues, strerror(error));
		if (error)
			return error > 0 ? -error : error;
	}
	return 0;
}

/* ---- what it is and can ---- */

static bool offload_works(struct tap *tap, u32 bits)
{
	return ioctl(tap->fds[0], TUNSETOFFLOAD, (unsigned long)bits) == 0;
}

void tap_probe_offloads(struct tap *tap)
{
	tap->can_csum = offload_works(tap, TUN_F_CSUM);
	tap->can_tso4 = offload_works(tap, TUN_F_CSUM | TUN_F_TSO4);
	tap->can_tso6 = offload_works(tap, TUN_F_CSUM | TUN_F_TSO6);
	tap->can_ecn = offload_works(tap, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO_ECN);
	tap->can_ufo = offload_works(tap, TUN_F_CSUM | TUN_F_UFO);
	/* the kernel takes the two only together */
	tap->can_uso = offload_works(tap, TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6);
	offload_works(tap, 0);
}

/* One we made is brought up by us; of others the user is told. */
static void bring_up(struct tap *tap, int sock)
{
	struct ifreq request;

	request_init(&request, tap->name);
	if (ioctl(sock, SIOCGIFFLAGS, &request) < 0 || request.ifr_flags & IFF_UP)
		return;
	request.ifr_flags |= IFF_UP;
	if (tap->created && ioctl(sock, SIOCSIFFLAGS, &request) == 0)
		return;
	log_line("%s: is down, so nothing passes yet; `sudo ip link set %s up`", tap->name,
		 tap->name);
}

static u64 hash(u64 value, const char *bytes, size_t size)
{
	/* FNV-1a: any spread-out function of the name will do, as long as it stays the same */
	for (size_t i = 0; i < size; i++)
		value = (value ^ (u8)bytes[i]) * 0x100000001b3ull;
	return value;
}

/* The same tap of the same host always has the same address; tap0 of the next host another, as both
 * may be on one Ethernet. */
static void derive_mac(struct tap *tap)
{
	u64 value = hash(0xcbf29ce484222325ull, tap->name, strlen(tap->name));
	int fd = open("/etc/machine-id", O_RDONLY | O_CLOEXEC);
	char id[33];
	ssize_t n;

	if (fd >= 0) {
		n = read(fd, id, sizeof(id));
		if (n > 0)
			value = hash(value, id, (size_t)n);
		close(fd);
	}
	value ^= value >> 32; /* FNV's low bits are its best, the high ones fold in */
	le_store(tap->mac, sizeof(tap->mac), value);
	tap->mac[0] = (u8)((tap->mac[0] & ~3u) | 2u); /* locally administered, unicast */
}

static u32 interface_mtu(int sock, const char *name)
{
	struct ifreq request;

	request_init(&request, name);
	return ioctl(sock, SIOCGIFMTU, &request) < 0 ? 1500 : (u32)request.ifr_mtu;
}

/* Does somebody hold the tap? A VM that was killed does so a moment longer than it lives, until the
 * kernel has taken its rings apart. */
static bool is_held(int sock, const char *name, struct interface *interface)
{
	const struct timespec step = { .tv_nsec = WAIT_STEP_NS };

	for (int n = 0;; n++) {
		interface_look(sock, name, interface);
		if (interface->kind != KIND_TAP || !interface->carrier)
			return false;
		if (n == WAIT_STEPS)
			return true;
		nanosleep(&step, NULL);
	}
}

static int attach(struct tap *tap, const struct tap_config *config, int sock)
{
	struct interface interface;
	int error;

	/* A multi-queue tap lets any number of processes in, and shares frames out among them, so
	 * this has to be asked beforehand. */
	if (is_held(sock, tap->name, &interface))
		return log_busy(tap->name);
	error = attach_first(tap, config, &interface);
	if (error)
		return error;
	tap->created = interface.kind == KIND_NONE;
	error = attach_rest(tap, config);
	if (error)
		return error;
	tap_probe_offloads(tap);
	bring_up(tap, sock);
	tap->mtu = interface_mtu(sock, tap->name);
	derive_mac(tap);
	return 0;
}

int tap_open(struct tap *tap, const struct tap_config *config)
{
	int sock, error;

	memset(tap, 0, sizeof(*tap));
	for (u32 i = 0; i < TAP_MAX_QUEUES; i++) {
		tap->fds[i] = -1;
		tap->files[i] = -1;
	}
	if (!name_valid(config->name)) {
		log_line("%s: no interface can have this name; 1 to %d characters, without spaces "
			 "and any of / : %%",
			 config->name, IFNAMSIZ - 1);
		return -EINVAL;
	}
	if (!config->queues || config->queues > TAP_MAX_QUEUES) {
		log_line("%s: queues=%u: a tap here has 1 to %d queue pairs", config->name,
			 config->queues, TAP_MAX_QUEUES);
		return -EINVAL;
	}
	snprintf(tap->name, sizeof(tap->name), "%s", config->name);
	tap->queues = config->queues;
	sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sock < 0)
		sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sock < 0) {
		error = -errno;
		log_line("%s: no socket to ask the kernel with: %s", tap->name, strerror(-error));
		return error;
	}
	error = attach(tap, config, sock);
	close(sock);
	if (error)
		tap_close(tap);
	return error;
}

static u16 files_of(const struct tap *tap)
{
	return tap->stream ? 2 : tap->queues;
}

int tap_register(struct tap *tap, struct reactors *reactors)
{
	int error = tap->stream ? passt_ready(tap) : 0;

	if (error)
		return error;
	for (u16 i = 0; i < files_of(tap); i++) {
		tap->files[i] = reactor_file_add(reactors, tap->fds[i]);
		if (tap->files[i] < 0) {
			log_line("%s: queue %u: %s", tap->name, i, strerror(-tap->files[i]));
			return tap->files[i];
		}
	}
	return 0;
}

void tap_unregister(struct tap *tap, struct reactors *reactors)
{
	for (u16 i = 0; i < files_of(tap); i++) {
		reactor_file_remove(reactors, tap->files[i]);
		tap->files[i] = -1;
	}
}

void tap_close(struct tap *tap)
{
	if (tap->stream)
		shutdown(tap->fds[0], SHUT_RDWR); /* a ring may hold the file a while longer */
	for (u16 i = 0; i < files_of(tap); i++) {
		if (tap->fds[i] >= 0)
			close(tap->fds[i]);
		tap->fds[i] = -1;
	}
	if (tap->stream)
		passt_end(tap);
}

int tap_set_offload(struct tap *tap, u32 tun_f, u32 header)
{
	int size = (int)header;

	/* both are the device's, whichever queue they are asked of */
	if (ioctl(tap->fds[0], TUNSETVNETHDRSZ, &size) < 0 ||
	    ioctl(tap->fds[0], TUNSETOFFLOAD, (unsigned long)tun_f) < 0)
		return -errno;
	return 0;
}

void tap_drain(const struct tap *tap)
{
	char head[64]; /* the tap cuts off what has no room */

	for (u16 i = 0; i < tap->queues; i++)
		for (u32 n = 0; n < DRAIN_MOST; n++)
			if (read(tap->fds[i], head, sizeof(head)) < 0)
				break;
}

int tap_gone(const struct tap *tap)
{
	struct ifreq request;

	return ioctl(tap->fds[0], TUNGETIFF, &request) < 0 ? -errno : 0;
}

int tap_enable_queue(struct tap *tap, u16 queue, bool on)
{
	struct ifreq request;

	request_init(&request, tap->name);
	request.ifr_flags = on ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE;
	return ioctl(tap->fds[queue], TUNSETQUEUE, &request) < 0 ? -errno : 0;
}
