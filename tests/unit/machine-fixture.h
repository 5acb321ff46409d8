/*
 * A machine without KVM and vCPUs, whose reactors run, with hot-plug slots: for the tests of what
 * comes and goes. The guest is the test, by bus accesses.
 */
#ifndef TESTS_UNIT_MACHINE_FIXTURE_H
#define TESTS_UNIT_MACHINE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "backends/disk-lock.h"
#include "machine/hotplug.h"
#include "pci/pci.h"
#include "vm/log.h"

static struct machine m;
static struct config config;
static char folder[64];
static bool without_io_uring;

static inline int machine_up(void **state)
{
	struct pci_host_config host = { .window64_start = GIB(8),
					.window64_size = LAYOUT_PCI64_SIZE,
					.any_length_doorbells = true };
	const struct reactors_config r = { .count = 2,
					   .max_files = 1024,
					   .force_epoll = without_io_uring };

	(void)state;
	memset(&m, 0, sizeof(m));
	config = (struct config){ .cpus = 1, .iothreads = 2 };
	m.config = &config;
	m.stats.fd = -1;
	assert_int_equal(end_init(&m.end), 0);
	assert_int_equal(memory_create(&m.memory, NULL, MIB(64), MEMORY_PAGES_DEFAULT), 0);
	assert_int_equal(bus_create(&m.bus, NULL), 0);
	assert_int_equal(irq_create(&m.irq, NULL), 0);
	assert_int_equal(acpi_pm_create(&m.pm, m.bus, m.irq, &m.end), 0);
	host.bus = m.bus;
	host.irq = m.irq;
	assert_int_equal(pci_host_create(&m.pci, &host), 0);
	assert_int_equal(reactors_create(&m.reactors, &r), 0);
	assert_int_equal(hotplug_create(&m.hotplug, &m), 0);
	assert_int_equal(reactors_start(m.reactors), 0);
	strcpy(folder, "/tmp/vmm-hotplug-XXXXXX");
	assert_non_null(mkdtemp(folder));
	return 0;
}

/* What is there still goes by force. */
static inline int machine_down(void **state)
{
	const struct hotplug_removal force = { .force = true };
	char command[128];

	(void)state;
	while (m.device_count) {
		hotplug_remove(m.hotplug, m.devices[0]->id, &force);
		hotplug_run(m.hotplug, clock_now_ns());
	}
	reactors_destroy(m.reactors);
	hotplug_destroy(m.hotplug);
	pci_host_destroy(m.pci);
	acpi_pm_destroy(m.pm);
	irq_destroy(m.irq);
	bus_destroy(m.bus);
	memory_destroy(&m.memory);
	close(m.end.fd);
	snprintf(command, sizeof(command), "rm -r %s", folder);
	return system(command);
}

/* A sparse image. */
static inline const char *image(const char *name, u64 size)
{
	static char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	close(fd);
	return path;
}

/* As `vmm ctl` does it: opens, learns, hands over. 0 or -errno. */
static inline int add_disk(const char *path, const char **id)
{
	const struct disk_config c = { .path = path };
	struct disk learned;
	struct hotplug_addition a = { .option = "disk", .value = path, .disk = &learned };
	int fd, error;

	if (disk_open(&learned, &c))
		return -EIO;
	fd = learned.fd;
	a.fds = &fd;
	a.fd_count = 1;
	error = hotplug_add(m.hotplug, &a, id);
	learned.fd = -1;
	disk_close(&learned);
	return error;
}

/* ---- the guest ---- */

enum { ADDED = 0, LEAVING = 4, OCCUPIED = 8 };

static inline u32 slots_read(u32 offset)
{
	return (u32)bus_read(m.bus, BUS_PIO, LAYOUT_PORT_HOTPLUG + offset, 4);
}

static inline void eject(u32 slots)
{
	bus_write(m.bus, BUS_PIO, LAYOUT_PORT_HOTPLUG + OCCUPIED, 4, slots);
}

static inline u32 config_at(u32 slot, u32 offset)
{
	return (u32)bus_read(m.bus, BUS_MMIO, LAYOUT_ECAM_START + (slot << 15) + offset, 4);
}

static inline void config_set(u32 slot, u32 offset, u32 value)
{
	bus_write(m.bus, BUS_MMIO, LAYOUT_ECAM_START + (slot << 15) + offset, 4, value);
}

static inline u32 open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	u32 n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* The main thread's loop, until *done or for ten seconds. */
static inline void run_until(const bool *done)
{
	for (u32 n = 0; n < 10 && !*done; n++) {
		u64 deadline = ~0ull, now = clock_now_ns();
		struct pollfd fd;
		int wait = 1000;

		hotplug_prepare(m.hotplug, &fd, &deadline);
		if (deadline <= now)
			wait = 0;
		else if (deadline - now < 1000000000)
			wait = (int)((deadline - now) / 1000000) + 1;
		/* nobody but the descriptor and the deadline says when to look */
		if (poll(&fd, 1, wait) || wait < 1000)
			hotplug_run(m.hotplug, clock_now_ns());
	}
}

#endif
