/*
 * The ways to the host: the virtio console's named ports, or the console where there are none; and
 * the lines that are said on them.
 */
#include <linux/reboot.h>
#include <stdarg.h>
#include "run/init/init.h"

#define PORTS_FOLDER  "/sys/class/virtio-ports"
#define VIRTIO_FOLDER "/sys/bus/virtio/devices"
#define WAIT_MS	      20000 /* for the ports of a console that is there */

struct ports ports;

/* The records of getdents64(2). */
struct entry {
	unsigned long inode, offset;
	unsigned short size;
	unsigned char type;
	char name[];
};

/* Calls `each` with path and "/" and the name of what is in the folder, until it returns true. */
static bool look_through(const char *folder, bool (*each)(const char *path, void *argument),
			 void *argument)
{
	char names[2048] __attribute__((aligned(8))), path[512];
	int fd = sys_open(folder, O_RDONLY | O_DIRECTORY);
	bool found = false;
	long n;

	if (fd < 0)
		return false;
	while (!found && (n = SYS(getdents64, fd, names, sizeof(names), 0, 0)) > 0)
		for (long at = 0; !found && at < n;) {
			const struct entry *entry = (const struct entry *)(names + at);

			at += entry->size;
			if (entry->name[0] != '.')
				found = each(
					join(path, sizeof(path), folder, "/", entry->name, NULL),
					argument);
		}
	sys_close(fd);
	return found;
}

/* virtio 1.3, 5: device 3 is a console. */
static bool is_console(const char *device, void *argument)
{
	char path[512], id[16];

	(void)argument;
	return read_file(join(path, sizeof(path), device, "/device", NULL), id, sizeof(id)) > 0 &&
	       same(id, "0x0003\n");
}

struct wanted {
	const char *name;
	int fd;
};

static bool open_if_named(const char *device, void *argument)
{
	static const char node[] = "/.port";
	struct wanted *wanted = argument;
	char path[512], name[64];
	long n = read_file(join(path, sizeof(path), device, "/name", NULL), name, sizeof(name));

	if (n <= 0)
		return false;
	name[n - 1] = '\0';
	if (!same(name, wanted->name) ||
	    node_from_sysfs(join(path, sizeof(path), device, "/dev", NULL), node, S_IFCHR))
		return false;
	wanted->fd = sys_open(node, O_RDWR | O_NONBLOCK);
	sys_unlink(node);
	return wanted->fd >= 0;
}

/* Has the host its end open? */
static bool connected(int fd)
{
	struct pollfd p = { fd, 0, 0 };

	return sys_poll(&p, 1, 0) >= 0 && !(p.revents & POLLHUP);
}

static void open_console(void)
{
	int fd = sys_open("/dev/console", O_RDWR | O_NONBLOCK | O_NOCTTY);

	ports.in = ports.out = ports.err = fd;
	ports.control = -1;
}

void ports_open(void)
{
	static const struct {
		const char *name;
		int *fd;
	} all[] = {
		{ RUN_PORT_STDIN, &ports.in },
		{ RUN_PORT_STDOUT, &ports.out },
		{ RUN_PORT_STDERR, &ports.err },
		{ RUN_PORT_CONTROL, &ports.control },
	};
	bool console = look_through(VIRTIO_FOLDER, is_console, NULL);
	unsigned int next = 0;
	long since = 0;

	/* The driver learns of its ports one by one, from messages of the device. */
	while (console && next < ARRAY_SIZE(all)) {
		struct wanted wanted = { all[next].name, -1 };

		if (look_through(PORTS_FOLDER, open_if_named, &wanted))
			*all[next++].fd = wanted.fd;
		else if (!wait_more(&since, WAIT_MS))
			break;
	}
	while (next == ARRAY_SIZE(all) && !connected(ports.control) && wait_more(&since, WAIT_MS))
		;
	ports.attached = next == ARRAY_SIZE(all) && connected(ports.control);
	if (ports.attached)
		return;
	open_console();
	say_error(RUN_ERROR_PORT,
		  !console ? "no virtio console here: it needs CONFIG_VIRTIO_CONSOLE and "
			     "CONFIG_VIRTIO_PCI"
			   : "the virtio console has not the ports " RUN_PORT_STDIN
			     ", stdout, stderr and control, or nobody is behind them",
		  "; this console serves instead", NULL);
}

/* All of it, however long the other side takes. */
static void write_all(int fd, const char *line, size_t size)
{
	struct pollfd p = { fd, POLLOUT, 0 };
	long n;

	while (size) {
		n = sys_write(fd, line, size);
		if (n > 0) {
			line += n;
			size -= (size_t)n;
		} else if (n != -EAGAIN || sys_poll(&p, 1, -1) < 0 || p.revents & POLLHUP) {
			return;
		}
	}
}

void say(const char *first, ...)
{
	const char *prefix = ports.attached ? "" : RUN_CONSOLE_PREFIX;
	char line[RUN_LINE_MAX];
	size_t n = 0;
	va_list list;

	if (!ports.out)
		open_console();
	for (const char *s = prefix; *s; s++)
		line[n++] = *s;
	va_start(list, first);
	for (const char *s = first; s; s = va_arg(list, const char *))
		for (; *s && n < sizeof(line) - 1; s++)
			line[n++] = *s >= 0 && *s < ' ' ? '?' : *s;
	va_end(list);
	line[n++] = '\n';
	write_all(ports.attached ? ports.control : ports.out, line, n);
}

void power_off(void)
{
	struct pollfd p = { ports.control, POLLIN, 0 };

	if (ports.attached)
		while (!obey(NULL) && !(p.revents & POLLHUP) &&
		       sys_poll(&p, 1, RUN_LAST_WORD_MS) > 0)
			;
	if (!ports.attached)
		sys_ioctl(ports.out, TCSBRK, (void *)1);
	SYS(sync, 0, 0, 0, 0, 0);
	for (;;)
		SYS(reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF,
		    NULL, 0);
}
