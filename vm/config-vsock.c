/* The option of the socket device: --vsock. Main thread. */
#include <errno.h>
#include <stdlib.h>
#include <sys/un.h>

#include "vm/config-table.h"

/* PATH_4294967294 is a socket too, and so is PATH.seq. */
#define PATH_MOST (sizeof(((struct sockaddr_un *)0)->sun_path) - sizeof("_4294967294"))

static int set_cid(struct config_parser *parser, void *target, const char *value)
{
	struct config_vsock *vsock = target;
	u64 n;
	/* virtio 1.3, 5.10.4: 0 to 2 and the last are reserved */
	int err = config_number(parser, "cid", value, 3, UINT32_MAX - 1, &n);

	if (!err)
		vsock->cid = (u32)n;
	return err;
}

static int set_unix(struct config_parser *parser, void *target, const char *value)
{
	struct config_vsock *vsock = target;

	if (strlen(value) > PATH_MOST)
		return config_error(parser, NULL,
				    "unix=%.40s: too long for a socket; its path has at most %zu "
				    "letters",
				    value, PATH_MOST);
	return config_set_string(&vsock->path, value);
}

static int set_vhost(struct config_parser *parser, void *target, const char *value)
{
	struct config_vsock *vsock = target;

	return config_bool(parser, "vhost", value, &vsock->vhost);
}

static int set_iothread(struct config_parser *parser, void *target, const char *value)
{
	struct config_vsock *vsock = target;

	return config_set_iothread(parser, value, &vsock->iothread);
}

static const char *mistake(const struct config_vsock *vsock)
{
	if (!vsock->cid)
		return "cid= is missing; write cid=3,unix=/run/vm.vsock";
	if (!vsock->path == !vsock->vhost)
		return "it has either unix=PATH or vhost=on; give one";
	if (vsock->function.layout == CONFIG_LAYOUT_LEGACY)
		return "the specification has no legacy socket device; leave layout=legacy out";
	if (vsock->vhost && (vsock->function.packed || vsock->function.in_order))
		return "vhost-vsock has split virtqueues alone, in any order; leave packed and "
		       "in-order out";
	return NULL;
}

int config_set_vsock(struct config_parser *parser, const char *value)
{
	struct config *config = parser->config;
	struct config_vsock *vsock = &config->vsock;
	char *copy = strdup(value), *cursor = copy;
	const char *why;
	int err;

	if (!copy)
		return config_no_memory();
	free(vsock->path);
	*vsock = (struct config_vsock){ .iothread = -1 };
	parser->function = &vsock->function;
	parser->queue_size_max = CONFIG_VSOCK_QUEUE_SIZE;
	err = config_parse_suboptions(parser, vsock, &cursor);
	why = err ? NULL : mistake(vsock);
	if (why)
		err = config_error(parser, NULL, "%s", why);
	free(copy);
	return err;
}

const struct config_suboption config_vsock_suboptions[] = {
	{ "cid", "N", .set = set_cid,
	  MAN("The guest's context ID, from 3 on. Needed. With vhost=on no other machine of the "
	      "host may have it.") },
	{ "unix", "PATH", .set = set_unix,
	  MAN("Serve connections in process, over Unix sockets. A client of the host connects "
	      "to PATH, which is made here with mode 0600, and writes a line, CONNECT PORT; it "
	      "reads OK and a number when a program of the guest has accepted, and the end of "
	      "file if none listens. What the guest connects to port P of the host (CID 2) "
	      "arrives at PATH_P, where a program of the host listens. SOCK_SEQPACKET clients "
	      "connect to PATH.seq; a message here is a message there.") },
	{ "vhost", "on|off", true, .set = set_vhost,
	  MAN("Leave it to the host kernel's vhost-vsock instead: programs of the host use "
	      "AF_VSOCK with the guest's CID. The default is off.") },
	{ "iothread", "N", .set = set_iothread,
	  MAN("The thread of --iothreads, counted from 0, that serves it.") },
	{ 0 },
};
