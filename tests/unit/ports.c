/* tsan: named ports of a machine: what is made on the host, and clients that come and go. */
#include "tests/unit/machine-fixture.h"
#include <linux/virtio_console.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include "machine/ports.h"

static char paths[3][160];
static struct virtio_console *console;

static int up(void **state)
{
	struct machine_device *d;

	machine_up(state);
	signal(SIGPIPE, SIG_IGN);
	for (int i = 0; i < 3; i++) {
		snprintf(paths[i], sizeof(paths[i]), "%s/%d", folder, i);
		config.ports[i].path = paths[i];
	}
	config.ports[0].kind = CONFIG_PORT_UNIX;
	config.ports[0].name = "socket";
	config.ports[1].kind = CONFIG_PORT_PIPE;
	config.ports[1].name = "pipe";
	config.ports[2].kind = CONFIG_PORT_FILE;
	config.ports[2].name = "file";
	config.port_count = 3;
	assert_int_equal(ports_open(&m.ports, &config), 0);
	d = machine_device_new(&m, MACHINE_PORTS);
	assert_non_null(d);
	assert_string_equal(d->id, "ports");
	/* reactors run already, as they do not when a machine starts */
	assert_int_equal(machine_device_make(&m, d), 0);
	console = d->console;
	return 0;
}

/* One turn of the main thread's loop. */
static void turn(int ms)
{
	struct pollfd fds[PORTS_POLLS];

	ports_prepare(m.ports, fds);
	if (poll(fds, PORTS_POLLS, ms) > 0)
		ports_run(m.ports, fds);
}

static int down(void **state)
{
	const struct hotplug_removal force = { .force = true };

	(void)state;
	if (m.device_count)
		hotplug_remove(m.hotplug, "ports", &force);
	hotplug_run(m.hotplug, clock_now_ns());
	return machine_down(state);
}

static int client(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, paths[0]);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static bool has_ended(int fd)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	char byte;

	return poll(&poll_fd, 1, 0) == 1 && read(fd, &byte, 1) == 0;
}

#define turn_until(expression)                                \
	do {                                                  \
		u64 until_ = clock_now_ns() + 10000000000ull; \
		while (!(expression)) {                       \
			assert_true(clock_now_ns() < until_); \
			turn(10);                             \
		}                                             \
	} while (0)

static bool waits_for_client(void)
{
	struct pollfd fds[PORTS_POLLS];

	ports_prepare(m.ports, fds);
	return fds[1].events == POLLIN;
}

static void makes_what_is_named(void **state)
{
	char path[200];
	struct stat st;

	(void)state;
	assert_int_equal(stat(paths[0], &st), 0);
	assert_int_equal(st.st_mode, S_IFSOCK | 0600);
	snprintf(path, sizeof(path), "%s.in", paths[1]);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode, S_IFIFO | 0600);
	snprintf(path, sizeof(path), "%s.out", paths[1]);
	assert_int_equal(stat(path, &st), 0);
	assert_true(S_ISFIFO(st.st_mode));
	assert_int_equal(stat(paths[2], &st), 0);
	assert_true(S_ISREG(st.st_mode));
}

/* A client at a time, also while no guest looks: one that has gone without a word makes room, one
 * that has left something keeps its place until that is read. */
static void clients_without_a_guest(void **state)
{
	int first, second;

	(void)state;
	assert_true(waits_for_client());
	for (int i = 0; i < 10; i++) {
		first = client();
		turn_until(!waits_for_client());
		second = client(); /* waits in line */
		close(first);
		turn_until(waits_for_client());
		turn_until(!waits_for_client());
		close(second);
		turn_until(waits_for_client());
	}
	first = client();
	assert_int_equal(write(first, "for later", 9), 9);
	turn_until(!waits_for_client());
	close(first);
	for (int i = 0; i < 5; i++)
		turn(10);
	assert_false(waits_for_client());
}

/* When the device is taken from the guest its host ends are closed. */
static void unplugging_hangs_up(void **state)
{
	const struct hotplug_removal force = { .force = true };
	int fd = client();

	(void)state;
	turn_until(!waits_for_client());
	assert_int_equal(hotplug_remove(m.hotplug, "ports", &force), 0);
	hotplug_run(m.hotplug, clock_now_ns());
	assert_int_equal(m.device_count, 0);
	assert_null(m.ports);
	assert_true(has_ended(fd));
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(makes_what_is_named, up, down),
		cmocka_unit_test_setup_teardown(clients_without_a_guest, up, down),
		cmocka_unit_test_setup_teardown(unplugging_hangs_up, up, down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
