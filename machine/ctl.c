/* `vmm ctl`: see ctl.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "backends/vhost.h"
#include "backends/disk-overlay.h"
#include "backends/vsock.h"
#include "machine/ctl.h"
#include "machine/json-library.h"
#include "machine/learned.h"
#include "machine/ports.h"
#include "vm/config.h"
#include "vm/end.h"
#include "vm/log.h"

/* A command on its way. */
struct call {
	char **words; /* behind the command's name */
	int count;
	json_t *request;
	struct config *config; /* of what is added */
	struct disk disk;
	struct tap tap;
	int fds[TAP_MAX_QUEUES + VHOST_MAX_FILES];
	u32 fd_count;
	bool json; /* --json: the answer as it came */
};

static int usage(const char *why)
{
	log_line("ctl: %s; vmm ctl PATH add disk|net|port|rng|balloon|vsock VALUE | remove ID "
		 "[--force] [--timeout SECONDS] | resize ID [SIZE] [--shrink] | list [--json] | "
		 "devices [--json] | stats | power | nmi | quit | announce ID | balloon [SIZE]",
		 why);
	return STATUS_USAGE;
}

/* ---- building requests; each returns an exit status ---- */

static int put(struct call *call, const char *name, json_t *value)
{
	if (!json_object_set_new(call->request, name, value))
		return STATUS_OK;
	log_line("ctl: out of memory, or no text: the words must be UTF-8");
	return STATUS_HOST_ERROR;
}

static int open_disk(struct call *call)
{
	const struct config_disk *config = &call->config->disks[0];
	const struct disk_config c = { .path = config->path,
				       .readonly = config->readonly,
				       .direct = config->direct,
				       .snapshot = config->snapshot,
				       .iopoll = config->iopoll };

	if (disk_open(&call->disk, &c))
		return STATUS_HOST_ERROR;
	call->fds[call->fd_count++] = call->disk.fd;
	if (call->disk.overlay)
		call->fds[call->fd_count++] = call->disk.overlay->fd;
	return put(call, "learned", learned_pack_disk(&call->disk));
}

static int open_net(struct call *call)
{
	const struct config_net *config = &call->config->nets[0];
	const struct tap_config c = { .name = config->tap,
				      .queues = config->queues ? config->queues : 1 };
	const struct vhost_config v = { .name = config->tap, .pairs = c.queues };

	if (tap_open(&call->tap, &c))
		return STATUS_HOST_ERROR;
	for (u16 i = 0; i < call->tap.queues; i++)
		call->fds[call->fd_count++] = call->tap.fds[i];
	/* without, it is served by the machine itself, which was said */
	if (config->vhost && !vhost_open_files(&v, call->fds + call->fd_count))
		call->fd_count += v.pairs + 1u;
	return put(call, "learned", learned_pack_tap(&call->tap));
}

/* Its end is the sockets' and of the process that connects; once they have been sent. */
static int open_vsock(struct call *call)
{
	const struct config_vsock *config = &call->config->vsock;
	const struct vhost_config v = { .name = "vsock", .pairs = 1, .cid = config->cid };
	struct vsock_host host;

	if (config->vhost ? vhost_open_files(&v, call->fds)
			  : vsock_host_open_for(&host, config->path))
		return STATUS_HOST_ERROR;
	if (!config->vhost)
		memcpy(call->fds, host.fds, sizeof(host.fds));
	call->fd_count = config->vhost ? 1 : VSOCK_DOORS;
	return STATUS_OK;
}

/* Its end is the listener's, the pipes' or the file's, once they have been sent. */
static int open_port(struct call *call)
{
	int count = ports_open_files(call->config, call->fds);

	call->fd_count = count > 0 ? (u32)count : 0;
	return count < 0 ? STATUS_HOST_ERROR : STATUS_OK;
}

static int add(struct call *call)
{
	const char *kind, *value;
	int status;

	if (call->count != 2)
		return usage("add takes a kind and its value");
	kind = call->words[0];
	value = call->words[1];
	if (config_parse_device(&call->config, NULL, kind, value))
		return STATUS_USAGE;
	status = put(call, kind, json_string(value));
	if (status)
		return status;
	if (call->config->vsock.cid)
		return open_vsock(call);
	if (call->config->port_count)
		return open_port(call);
	return call->config->disk_count	 ? open_disk(call)
	       : call->config->net_count ? open_net(call)
					 : STATUS_OK;
}

/* Of an ID and what may stand around it. */
static int take_id(struct call *call, const char *word)
{
	if (json_object_get(call->request, "id"))
		return usage("one ID is wanted");
	return put(call, "id", json_string(word));
}

static int check_id(struct call *call)
{
	return json_object_get(call->request, "id") ? STATUS_OK : usage("an ID is missing");
}

static int remove_device(struct call *call)
{
	int status = STATUS_OK;
	u64 seconds;

	for (int i = 0; i < call->count && !status; i++) {
		const char *word = call->words[i];

		if (!strcmp(word, "--force"))
			status = put(call, "force", json_true());
		else if (!strcmp(word, "--timeout") && i + 1 < call->count)
			status = config_parse_count("timeout", call->words[++i], 0,
						    CONFIG_MAX_SECONDS, &seconds)
					 ? STATUS_USAGE
					 : put(call, "timeout", json_integer((json_int_t)seconds));
		else if (*word == '-')
			status = usage("remove takes --force and --timeout SECONDS");
		else
			status = take_id(call, word);
	}
	return status ? status : check_id(call);
}

static int resize(struct call *call)
{
	int status = STATUS_OK;
	u64 size;

	for (int i = 0; i < call->count && !status; i++) {
		const char *word = call->words[i];

		if (!strcmp(word, "--shrink"))
			status = put(call, "shrink", json_true());
		else if (*word == '-')
			status = usage("resize takes --shrink");
		else if (!json_object_get(call->request, "id"))
			status = take_id(call, word);
		else if (json_object_get(call->request, "size"))
			status = usage("resize takes one size");
		else
			status = config_parse_size("size", word, &size)
					 ? STATUS_USAGE
					 : put(call, "size", json_integer((json_int_t)size));
	}
	return status ? status : check_id(call);
}

static int announce(struct call *call)
{
	return call->count == 1 ? take_id(call, call->words[0]) : usage("one ID is wanted");
}

static int balloon(struct call *call)
{
	u64 size;

	if (call->count > 1)
		return usage("balloon takes one size");
	if (!call->count)
		return STATUS_OK;
	if (config_parse_size("balloon", call->words[0], &size))
		return STATUS_USAGE;
	return put(call, "size", json_integer((json_int_t)size));
}

static int list(struct call *call)
{
	call->json = call->count == 1 && !strcmp(call->words[0], "--json");
	return call->count && !call->json ? usage("that takes --json") : STATUS_OK;
}

static int nothing(struct call *call)
{
	return call->count ? usage("the command takes no more words") : STATUS_OK;
}

/* ---- showing answers ---- */

static void show_json(const struct call *call, json_t *answer)
{
	(void)call;
	json_dumpf(answer, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(15));
	putchar('\n');
}

static const char *text_of(json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "-";
}

static void show_list(const struct call *call, json_t *answer)
{
	json_t *device;
	size_t i;

	if (call->json) {
		show_json(call, answer);
		return;
	}
	printf("%-8s %-8s %-8s %-8s %14s  %s\n", "ID", "ADDRESS", "STATE", "LAYOUT", "BYTES",
	       "SOURCE");
	json_array_foreach(json_object_get(answer, "devices"), i, device)
	{
		json_t *size = json_object_get(device, "size");
		char bytes[24] = "-";

		if (json_is_integer(size))
			snprintf(bytes, sizeof(bytes), "%" JSON_INTEGER_FORMAT,
				 json_integer_value(size));
		printf("%-8s %-8s %-8s %-8s %14s  %s\n", text_of(device, "id"),
		       text_of(device, "address"), text_of(device, "state"),
		       text_of(device, "layout"), bytes, text_of(device, "source"));
	}
}

static void show_devices(const struct call *call, json_t *answer)
{
	if (call->json)
		show_json(call, answer);
	else
		ctl_show_devices(answer);
}

static void show_id(const struct call *call, json_t *answer)
{
	(void)call;
	puts(text_of(answer, "id"));
}

static const struct {
	const char *name;
	int (*build)(struct call *call);
	void (*show)(const struct call *call, json_t *answer); /* NULL: success says enough */
} commands[] = {
	{ "add", add, show_id },	   { "remove", remove_device, NULL },
	{ "resize", resize, NULL },	   { "list", list, show_list },
	{ "devices", list, show_devices }, { "stats", nothing, show_json },
	{ "power", nothing, NULL },	   { "quit", nothing, NULL },
	{ "announce", announce, NULL },	   { "nmi", nothing, NULL },
	{ "balloon", balloon, show_json },
};

/* ---- the wire ---- */

static int reach(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const char *advice = "start the machine with --control and this path";
	int fd, error;

	if (strlen(path) >= sizeof(address.sun_path)) {
		log_line("ctl: %.60s...: too long for a socket's path", path);
		return -ENAMETOOLONG;
	}
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && !connect(fd, (struct sockaddr *)&address, sizeof(address)))
		return fd;
	error = errno;
	if (fd >= 0)
		close(fd);
	if (error == ECONNREFUSED)
		advice = "the machine has ended, or this is no control socket";
	else if (error == EACCES || error == EPERM)
		advice = "only the user whose machine it is may use it";
	log_line("ctl: %s: %s; %s", path, strerror(error), advice);
	return -error;
}

/* The descriptors go with the first byte. */
static int send_all(int fd, const struct call *call, const char *text, size_t length)
{
	char control[CMSG_SPACE(sizeof(call->fds))] __attribute__((aligned(8))) = { 0 };
	size_t bytes = call->fd_count * sizeof(call->fds[0]), done = 0;

	while (done < length) {
		struct iovec iov = { (char *)text + done, length - done };
		struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
		ssize_t n;

		if (!done && bytes) {
			struct cmsghdr *c;

			message.msg_control = control;
			message.msg_controllen = CMSG_SPACE(bytes);
			c = CMSG_FIRSTHDR(&message);
			c->cmsg_level = SOL_SOCKET;
			c->cmsg_type = SCM_RIGHTS;
			c->cmsg_len = CMSG_LEN(bytes);
			memcpy(CMSG_DATA(c), call->fds, bytes);
		}
		n = sendmsg(fd, &message, MSG_NOSIGNAL);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			done += (size_t)n;
	}
	return 0;
}

/* One line, NUL-terminated, to be freed; NULL: the machine went before it answered. */
static char *receive_line(int fd)
{
	char *line = NULL;
	size_t length = 0, room = 0;

	for (;;) {
		ssize_t n;

		if (length + 1 >= room) {
			char *grown = realloc(line, room = 2 * room + 4096);

			if (!grown)
				break;
			line = grown;
		}
		n = read(fd, line + length, room - length - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		length += (size_t)n;
		line[length] = '\0';
		if (line[length - 1] == '\n')
			return line;
	}
	free(line);
	return NULL;
}

static int talk(const char *path, const struct call *call, json_t **answer)
{
	char *text = json_dumps(call->request, JSON_COMPACT), *line;
	int fd, error, status = STATUS_HOST_ERROR;
	size_t length;

	if (!text) {
		log_line("ctl: out of memory; free some");
		return status;
	}
	fd = reach(path);
	if (fd < 0)
		goto out;
	length = strlen(text);
	text[length] = '\n'; /* in the place of the NUL */
	error = send_all(fd, call, text, length + 1);
	if (error) {
		log_line("ctl: %s: the machine does not take the command: %s", path,
			 strerror(-error));
		goto out_close;
	}
	line = receive_line(fd);
	*answer = line ? json_loads(line, 0, NULL) : NULL;
	if (json_is_object(*answer))
		status = STATUS_OK;
	else
		log_line("ctl: %s: the machine went before it answered", path);
	free(line);
out_close:
	close(fd);
out:
	free(text);
	return status;
}

static int run(const char *path, const char *name, struct call *call)
{
	json_t *answer = NULL;
	const char *error;
	int status;
	size_t i = 0;

	while (i < ARRAY_SIZE(commands) && strcmp(commands[i].name, name))
		i++;
	if (i == ARRAY_SIZE(commands))
		return usage("there is no such command");
	status = put(call, "command", json_string(name));
	if (!status)
		status = commands[i].build(call);
	if (!status)
		status = talk(path, call, &answer);
	if (status)
		return status;
	error = json_string_value(json_object_get(answer, "error"));
	if (error) {
		log_line("%s", error);
		status = STATUS_HOST_ERROR;
	} else if (commands[i].show) {
		commands[i].show(call, answer);
		if (fflush(stdout) || ferror(stdout)) {
			log_line("standard output: %s", strerror(errno));
			status = STATUS_HOST_ERROR;
		}
	}
	json_decref(answer);
	return status;
}

int ctl_main(int argc, char **argv)
{
	struct call call = { 0 };
	int status;

	if (argc < 4)
		return usage(argc < 3 ? "the socket's path is missing" : "the command is missing");
	call.words = argv + 4;
	call.count = argc - 4;
	if (json_library_load())
		return STATUS_HOST_ERROR;
	call.request = json_object();
	if (!call.request) {
		log_line("ctl: out of memory; free some");
		return STATUS_HOST_ERROR;
	}
	status = run(argv[2], argv[3], &call);
	json_decref(call.request);
	if (call.config)
		config_free(call.config);
	free(call.config);
	return status;
}
