/* The options of the virtio console: --console and --port. Main thread. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/un.h>

#include "vm/config-table.h"
#include "vm/log.h"

int config_set_console(struct config_parser *parser, const char *value)
{
	static const char *const names[] = { [CONFIG_CONSOLE_SERIAL] = "serial",
					     [CONFIG_CONSOLE_VIRTIO] = "virtio",
					     [CONFIG_CONSOLE_BOTH] = "both" };
	struct config *config = parser->config;
	char *copy = strdup(value), *cursor = copy;
	const char *word;
	u32 i = 0;
	int err;

	if (!copy)
		return config_no_memory();
	config->console_function = (struct config_function){ 0 };
	parser->function = &config->console_function;
	parser->queue_size_max = CONFIG_PORT_QUEUE_SIZE;
	word = config_next_part(&cursor);
	while (i < ARRAY_SIZE(names) && strcmp(word, names[i]))
		i++;
	if (i < ARRAY_SIZE(names)) {
		config->console = (enum config_console)i;
		err = config_parse_suboptions(parser, NULL, &cursor);
	} else {
		err = config_error(parser, value, "no such console; give serial, virtio or both");
	}
	free(copy);
	return err;
}

static int set_port_name(struct config_parser *parser, void *target, const char *value)
{
	struct config_port *port = target;

	if (strlen(value) > CONFIG_PORT_NAME_MAX)
		return config_error(parser, NULL,
				    "name=%.40s: too long; a port's has up to %u letters", value,
				    CONFIG_PORT_NAME_MAX);
	/* It becomes a file of the guest's. */
	for (const char *p = value; *p; p++)
		if (*p == '/' || iscntrl((unsigned char)*p))
			return config_error(parser, NULL,
					    "name=%.40s: not a name for a file in "
					    "/dev/virtio-ports; leave slashes out",
					    value);
	return config_set_string(&port->name, value);
}

static int set_port_path(struct config_parser *parser, void *target, const char *value,
			 enum config_port_kind kind)
{
	struct config_port *port = target;

	if (port->path)
		return config_error(parser, NULL,
				    "unix=, pipe= and file= contradict: a port has one of them");
	if (kind == CONFIG_PORT_UNIX &&
	    strlen(value) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return config_error(parser, NULL,
				    "unix=%.40s: too long for a socket; its path has at most %zu "
				    "letters",
				    value, sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
	port->kind = kind;
	return config_set_string(&port->path, value);
}

static int set_port_unix(struct config_parser *parser, void *target, const char *value)
{
	return set_port_path(parser, target, value, CONFIG_PORT_UNIX);
}

static int set_port_pipe(struct config_parser *parser, void *target, const char *value)
{
	return set_port_path(parser, target, value, CONFIG_PORT_PIPE);
}

static int set_port_file(struct config_parser *parser, void *target, const char *value)
{
	return set_port_path(parser, target, value, CONFIG_PORT_FILE);
}

static int check_port(const struct config_parser *parser, const struct config_port *port)
{
	const struct config *config = parser->config;

	if (!port->name || !port->path)
		return config_error(parser, NULL,
				    "%s is missing; write name=agent,unix=/run/agent.sock",
				    port->name ? "unix=, pipe= or file=" : "name=");
	for (u32 i = 0; i < config->port_count; i++) {
		if (!strcmp(config->ports[i].name, port->name))
			return config_error(parser, NULL, "name=%s: given twice; change one",
					    port->name);
		if (config->ports[i].path && !strcmp(config->ports[i].path, port->path))
			return config_error(parser, NULL, "%s: given twice; change one",
					    port->path);
	}
	return 0;
}

int config_set_port(struct config_parser *parser, const char *value)
{
	struct config *config = parser->config;
	struct config_port port = { .in_fd = -1, .out_fd = -1 };
	char *copy, *cursor;
	int err;

	if (config->port_count == CONFIG_MAX_PORTS)
		return config_error(parser, value, "one port too many; a machine has at most %u",
				    CONFIG_MAX_PORTS);
	copy = cursor = strdup(value);
	if (!copy)
		return config_no_memory();
	err = config_parse_suboptions(parser, &port, &cursor);
	if (!err)
		err = check_port(parser, &port);
	free(copy);
	if (!err) {
		config->ports[config->port_count++] = port;
		return 0;
	}
	free(port.name);
	free(port.path);
	return err;
}

const struct config_suboption config_port_suboptions[] = {
	{ "name", "NAME", .set = set_port_name,
	  MAN("What the guest knows the port by: /dev/virtio-ports/NAME where udev runs, else "
	      "the file name in /sys/class/virtio-ports. Needed.") },
	{ "unix", "PATH", .set = set_port_unix,
	  MAN("A Unix socket of mode 0600 that is made here and that clients connect to, one at "
	      "a time: the next is taken when the one before has gone, or the guest has closed "
	      "its port, which hangs up. A client's end of file closes the guest's port.") },
	{ "pipe", "PATH", .set = set_port_pipe,
	  MAN("Two named pipes, made if they are not there: PATH.in takes what the guest is to "
	      "read, PATH.out gives what it has written. Who opens them may come and go; the "
	      "port stays open, and bytes wait.") },
	{ "file", "PATH", .set = set_port_file,
	  MAN("A file that takes what the guest writes; made anew.") },
	{ 0 },
};
