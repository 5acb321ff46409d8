/*
 * The loopback, and an interface whose address is known without DHCP. Requests of Linux sockios.h,
 * whose structs are in headers that want a C library.
 */
#include "run/init/init.h"

enum { ADD_ROUTE = 0x890b, GET_FLAGS = 0x8913, SET_FLAGS, SET_ADDRESS = 0x8916, SET_MASK = 0x891c };
enum { DEVICE, ADDRESS, MASK, GATEWAY, RESOLVER, WORDS };

#define INET		     2
#define INTERFACE_UP	     1
#define ROUTE_UP_VIA_GATEWAY 3

struct address {
	unsigned short family, port;
	unsigned char bytes[4], zero[8];
};

struct interface_request {
	char name[16];
	union {
		short flags;
		struct address address;
		char room[24];
	};
};

/* Linux route.h, struct rtentry */
struct route {
	unsigned long pad;
	struct address to, gateway, mask;
	unsigned short flags;
	unsigned long more[7];
};

static struct address address_of(const char *text)
{
	struct address a = { .family = INET };

	for (unsigned int i = 0; *text && i < sizeof(a.bytes); text++)
		if (*text == '.')
			i++;
		else
			a.bytes[i] = (unsigned char)(a.bytes[i] * 10 + *text - '0');
	return a;
}

static int up(int fd, const char *name)
{
	struct interface_request request = { 0 };
	int ret;

	join(request.name, sizeof(request.name), name, NULL);
	ret = sys_ioctl(fd, GET_FLAGS, &request);
	request.flags |= INTERFACE_UP;
	return ret ? ret : sys_ioctl(fd, SET_FLAGS, &request);
}

static int set(int fd, const char *name, unsigned int what, const char *text)
{
	struct interface_request request = { .address = address_of(text) };

	join(request.name, sizeof(request.name), name, NULL);
	return sys_ioctl(fd, what, &request);
}

/* A root that is a host's may have a link here, to what is not there in the guest. */
static void name_resolver(const char *address)
{
	static const char path[] = "/etc/resolv.conf";
	char text[64];
	int fd;

	sys_unlink(path);
	fd = (int)SYS(openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644, 0);
	if (fd < 0)
		return; /* a root without /etc resolves nothing */
	join(text, sizeof(text), "nameserver ", address, "\n", NULL);
	sys_write(fd, text, length(text));
	sys_close(fd);
}

static int configure(int fd, char **words)
{
	struct route route = { .to.family = INET, .mask.family = INET };
	int ret = set(fd, words[DEVICE], SET_ADDRESS, words[ADDRESS]);

	if (!ret)
		ret = set(fd, words[DEVICE], SET_MASK, words[MASK]);
	if (!ret)
		ret = up(fd, words[DEVICE]);
	route.gateway = address_of(words[GATEWAY]);
	route.flags = ROUTE_UP_VIA_GATEWAY;
	if (!ret)
		ret = sys_ioctl(fd, ADD_ROUTE, &route);
	name_resolver(words[RESOLVER]);
	return ret;
}

void network_up(const struct conf *conf)
{
	int fd = (int)SYS(socket, INET, 2 /* SOCK_DGRAM */ | O_CLOEXEC, 0, 0, 0);
	char text[128], *words[WORDS] = { text }, *c = text;
	int ret = fd;

	if (fd >= 0)
		up(fd, "lo");
	if (conf->net) {
		join(text, sizeof(text), conf->net, NULL);
		for (unsigned int i = 1; i < WORDS; i++) {
			while (*c && *c != ' ')
				c++;
			if (*c)
				*c++ = '\0';
			words[i] = c;
		}
		if (fd >= 0)
			ret = configure(fd, words);
		if (ret < 0) {
			say_error(RUN_ERROR_NET, words[DEVICE], ": ", error_text(-ret),
				  "; this kernel needs CONFIG_INET and CONFIG_VIRTIO_NET, built in "
				  "or as modules",
				  NULL);
			power_off();
		}
	}
	if (fd >= 0)
		sys_close(fd);
}
