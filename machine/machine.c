/*
 * What a machine is made of, in the order it is made; how it starts, starts again and ends. Main
 * thread.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "machine/control.h"
#include "machine/gdb.h"
#include "machine/hotplug.h"
#include "machine/machine.h"
#include "virtio/stats.h"
#include "vm/log.h"
#include "vm/sandbox.h"

/* Our defaults first, so that the user's words win. */
static char *command_line(const struct config *config)
{
	const char *user = config->cmdline ? config->cmdline : "";
	bool whole = config->run.asked; /* it has made it */
	const char *console =
		whole || strstr(user, "console=") ? "" : machine_console_words(config);
	const char *root =
		!whole && config->disk_count && !strstr(user, "root=")
			? config->disks[0].readonly ? "root=/dev/vda ro " : "root=/dev/vda rw "
			: "";
	char *mmio = machine_mmio_words(config), *line = NULL;

	if (!mmio || asprintf(&line, "%s%s%s%s", console, root, mmio, user) < 0)
		line = NULL;
	free(mmio);
	return line;
}

static void window64(const struct machine *m, u64 *start, u64 *size)
{
	u64 top = m->kvm.physical_bits < 64 ? BIT64(m->kvm.physical_bits) : ~0ull;

	*start = ALIGN_UP(memory_end(&m->memory), GIB(1));
	*size = *start < top && top - *start < LAYOUT_PCI64_SIZE ? top - *start : LAYOUT_PCI64_SIZE;
}

static int open_kernel(struct machine *m)
{
	const struct config *config = m->config;
	struct boot_config c = {
		.kernel = config->kernel,
		.initrd = config->initrd,
		.cpus = config->cpus,
		.sockets = config->sockets,
		.cores = config->cores,
		.threads = config->threads,
		.physical_bits = m->kvm.physical_bits,
		.hotplug = config->control != NULL,
		.decompress = config->kernel_decompress,
		.mmio_count = machine_mmio_announced(config),
	};
	char *line = command_line(config);
	int ret;

	if (!line)
		return -ENOMEM;
	c.cmdline = line;
	window64(m, &c.window64_start, &c.window64_size);
	ret = boot_open(&m->boot, &c);
	free(line);
	return ret;
}

static int make_fixed_devices(struct machine *m)
{
	int ret = machine_make_consoles(m);

	if (!ret)
		ret = rtc_create(&m->rtc, m->bus);
	if (!ret)
		ret = acpi_pm_create(&m->pm, m->bus, m->irq, &m->end);
	if (!ret)
		ret = pvpanic_create(m->bus, &m->end);
	if (!ret)
		ret = debug_exit_create(m->bus, &m->end);
	return ret ? ret : control_b_create(m->bus);
}

static int make_platform(struct machine *m)
{
	struct pci_host_config pci = { .any_length_doorbells = m->kvm.ioeventfd_any_length };
	int ret = irq_create(&m->irq, &m->kvm);

	if (ret)
		return ret; /* it has said why */
	ret = bus_create(&m->bus, &m->kvm);
	if (!ret)
		ret = make_fixed_devices(m);
	pci.bus = m->bus;
	pci.irq = m->irq;
	window64(m, &pci.window64_start, &pci.window64_size);
	if (!ret)
		ret = pci_host_create(&m->pci, &pci);
	if (ret)
		log_line("fixed devices: %s; " MORE_FILES, strerror(-ret));
	return ret;
}

static void enter_vcpu(void *owner)
{
	(void)owner;
	if (sandbox_enter(SANDBOX_VCPU))
		_exit(STATUS_HOST_ERROR);
}

static void debugged(void *owner, u32 index, const struct kvm_debug_exit_arch *exit)
{
	const struct machine *m = owner;

	gdb_exit(m->gdb, index, exit);
}

static int make_vcpus(struct machine *m)
{
	const struct vcpus_config c = {
		.count = m->config->cpus,
		.sockets = m->config->sockets,
		.cores = m->config->cores,
		.threads = m->config->threads,
		.kvm = &m->kvm,
		.bus = m->bus,
		.end = &m->end,
		.pin = m->config->pin_vcpus,
		.thread_start = enter_vcpu,
		.debug = m->config->gdb ? debugged : NULL,
		.owner = m,
	};
	int ret = vcpus_create(&m->vcpus, &c);

	if (!ret && m->config->gdb)
		ret = gdb_create(&m->gdb, m, m->config->gdb, m->config->gdb_wait);
	return ret;
}

/* Kernel and tables into clean RAM, vCPU 0 at the entry. */
static int load(struct machine *m)
{
	struct vcpu_entry entry;
	int ret = boot_load(m->boot, &m->memory, &entry);

	return ret ? ret : vcpus_reset(m->vcpus, &entry);
}

int machine_make(struct machine *m)
{
	const struct config *config = m->config;
	int ret = pin_check(&config->pin_vcpus, "vcpus");

	if (!ret)
		ret = pin_check(&config->pin_io, "io");
	if (!ret)
		ret = pin_check(&config->pin_sqpoll, "sqpoll");
	if (ret)
		return ret;
	ret = end_init(&m->end);
	if (ret)
		log_line("start: %s; " MORE_FILES, strerror(-ret));
	if (!ret)
		ret = machine_open_backends(m);
	if (!ret)
		ret = machine_open_core(m);
	if (!ret && config->control)
		ret = control_create(&m->control, m, config->control);
	milestones_mark(&m->milestones, "backends open");
	if (!ret)
		ret = kvm_open(&m->kvm);
	if (!ret)
		ret = kvm_create_vm(&m->kvm);
	milestones_mark(&m->milestones, "VM created");
	if (!ret)
		ret = memory_create(&m->memory, &m->kvm, config->memory, config->pages);
	if (!ret)
		ret = open_kernel(m);
	milestones_mark(&m->milestones, "memory made, kernel open");
	if (!ret)
		ret = machine_open_terminals(m);
	if (!ret)
		ret = make_platform(m);
	if (!ret)
		ret = machine_make_devices(m);
	if (!ret && config->control)
		ret = hotplug_create(&m->hotplug, m);
	if (!ret)
		ret = make_vcpus(m);
	milestones_mark(&m->milestones, "devices and vCPUs made");
	return ret;
}

int machine_start(struct machine *m)
{
	int ret = 0;

	sandbox_on_violation(terminal_restore);
	if (m->control)
		sandbox_allow_control();
	if (m->gdb)
		sandbox_allow_gdb();
	sandbox_allow_vmcore(m->vmcore);
	sandbox_allow_rewriting(m->stats.rewritten ? m->stats.fd : -1);
	if (m->config->sandbox)
		ret = sandbox_prepare();
	if (!m->config->sandbox) {
		log_line("--no-sandbox: the guest is held by KVM alone; use it for debugging only");
		memory_hide(&m->memory);
	}
	/* The threads come up while the kernel is read. */
	if (!ret && m->reactors)
		ret = reactors_launch(m->reactors);
	if (!ret)
		ret = vcpus_start(m->vcpus);
	if (!ret)
		ret = load(m);
	milestones_mark(&m->milestones, "kernel loaded");
	if (!ret && m->reactors)
		ret = reactors_ready(m->reactors);
	if (!ret)
		ret = sandbox_enter(SANDBOX_MAIN);
	milestones_mark(&m->milestones, "threads running, sandbox closed");
	return ret;
}

/* Of one that is about to go only the end of what is in flight is waited for. */
static void reset_devices(struct machine *m)
{
	for (u32 i = 0; i < m->device_count; i++) {
		struct machine_device *d = m->devices[i];

		if (d->vanished)
			virtio_device_power_on(d->device);
		else
			machine_device_reset(d);
	}
}

int machine_restart(struct machine *m)
{
	vcpus_pause(m->vcpus);
	if (m->hotplug)
		hotplug_reset(m->hotplug);
	reset_devices(m);
	pci_host_reset(m->pci);
	machine_consoles_flush(m, 0);
	uart_reset(m->uart);
	acpi_pm_reset(m->pm);
	irq_reset(m->irq);
	memory_clear(&m->memory);
	if (m->gdb)
		gdb_restarted(m->gdb);
	machine_consoles_reset(m);
	end_clear(&m->end);
	return load(m);
}

static struct stats_sources sources_of(const struct machine *m, struct virtio_device **devices)
{
	for (u32 i = 0; i < m->device_count; i++)
		devices[i] = m->devices[i]->device;
	return (struct stats_sources){
		.vcpus = m->vcpus,
		.reactors = m->reactors,
		.devices = devices,
		.device_count = m->device_count,
		.start = m->start,
		.first_output = machine_first_output(m),
		.milestones = &m->milestones,
	};
}

void machine_put_stats(const struct machine *m, struct json *json)
{
	struct virtio_device *devices[MACHINE_MAX_DEVICES];
	const struct stats_sources sources = sources_of(m, devices);

	stats_put(&sources, json);
}

void machine_write_stats(const struct machine *m, bool end)
{
	struct virtio_device *devices[MACHINE_MAX_DEVICES];
	const struct stats_sources sources = sources_of(m, devices);

	if (m->stats.fd >= 0)
		stats_put_all(&sources, &m->stats);
	if (end && m->config->boot_timing)
		stats_log_guest(&sources);
}

void machine_let_go(struct machine *m)
{
	reset_devices(m);
	for (u32 i = 0; i < m->device_count; i++)
		if (m->devices[i]->vsock) /* it waits for clients, and perhaps for a reader */
			virtio_device_detach(m->devices[i]->device);
	reactors_destroy(m->reactors);
	for (u32 i = 0; i < m->device_count; i++) {
		struct machine_device *d = m->devices[i];

		vhost_close(&d->vhost);
		vsock_host_close(&d->vsock_host);
		if (d->open && d->kind == MACHINE_NET)
			tap_close(&d->tap);
		if (d->open && d->kind == MACHINE_DISK)
			disk_close(&d->disk);
		if (d->open && d->kind == MACHINE_SHARE)
			share_close(&d->share);
	}
}
