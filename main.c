/*
 * vmm: from arguments to exit status. What a machine is made of stands here, in the order it is
 * made; then the main thread's loop, which waits for signals, the terminal, the timeout and the
 * end.
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>
#include "backends/console.h"
#include "backends/disk.h"
#include "backends/tap.h"
#include "firmware/boot.h"
#include "virtio/blk.h"
#include "virtio/net.h"
#include "virtio/pci.h"
#include "virtio/rng.h"
#include "virtio/stats.h"
#include "vm/config.h"
#include "vm/end.h"
#include "vm/host-check.h"
#include "vm/kvm.h"
#include "vm/log.h"
#include "vm/milestones.h"
#include "vm/platform.h"
#include "vm/sandbox.h"
#include "vm/stats.h"
#include "vm/ticks.h"
#include "vm/uart.h"

#define MAX_FUNCTIONS	   (CONFIG_MAX_DISKS + CONFIG_MAX_NETS + 1)
#define DEFAULT_MAX_QUEUES 8
#define DEFAULT_POLL_US	   32
#define NS		   1000000000ull
#define PANIC_GRACE	   (2 * NS) /* for the rest of a panic's report */
#define NMI_GRACE	   (1 * NS) /* for what the guest says of a timeout's NMI */
#define FLUSH_MS	   2000
#define LET_GO_SECONDS	   5
#define NEVER		   (~0ull)
/* What helps against -EMFILE, the likeliest error of what needs no more than a descriptor. */
#define MORE_FILES "allow more open files (ulimit -n)"

struct machine {
	const struct config *config;
	struct kvm kvm;
	struct end end;
	struct memory memory;
	struct bus *bus;
	struct irq *irq;
	struct terminal *terminal;
	struct console *console;
	struct uart *uart;
	struct rtc *rtc;
	struct acpi_pm *pm;
	struct pci_host *pci;
	struct reactors *reactors;
	struct disk disks[CONFIG_MAX_DISKS];
	struct tap taps[CONFIG_MAX_NETS];
	u32 disk_count, tap_count; /* open ones */
	struct virtio_blk *blks[CONFIG_MAX_DISKS];
	struct virtio_net *nets[CONFIG_MAX_NETS];
	struct virtio_rng *rng;
	struct virtio_pci *functions[MAX_FUNCTIONS];
	struct virtio_device *devices[MAX_FUNCTIONS]; /* of the functions */
	u32 function_count;
	struct boot *boot;
	struct vcpus *vcpus;
	int signals; /* signalfd */
	struct stats stats;
	struct ticks start; /* when the machine was begun */
	struct milestones milestones;
};

static u16 disk_queues(const struct config *config, const struct config_disk *disk)
{
	u32 n = config->cpus < DEFAULT_MAX_QUEUES ? config->cpus : DEFAULT_MAX_QUEUES;

	return disk->queues ? disk->queues : (u16)n;
}

static u16 net_queues(const struct config_net *net)
{
	return net->queues ? net->queues : 1;
}

/* Every descriptor that a reactor may name: doorbells, vectors, the line, disk or tap queues. */
static u32 count_files(const struct config *config)
{
	u32 files = 64;

	for (u32 i = 0; i < config->disk_count; i++)
		files += 2u * disk_queues(config, &config->disks[i]) + 8;
	for (u32 i = 0; i < config->net_count; i++)
		files += 5u * net_queues(&config->nets[i]) + 8;
	return files;
}

/* Our defaults first, so that the user's words win. */
static char *command_line(const struct config *config)
{
	const char *user = config->cmdline ? config->cmdline : "";
	const char *console =
		strcmp(config->serial, "none") && !strstr(user, "console=") ? "console=ttyS0 " : "";
	const char *root =
		config->disk_count && !strstr(user, "root=")
			? config->disks[0].readonly ? "root=/dev/vda ro " : "root=/dev/vda rw "
			: "";
	char *line;

	return asprintf(&line, "%s%s%s", console, root, user) < 0 ? NULL : line;
}

static void window64(const struct machine *m, u64 *start, u64 *size)
{
	u64 top = m->kvm.physical_bits < 64 ? BIT64(m->kvm.physical_bits) : ~0ull;

	*start = ALIGN_UP(memory_end(&m->memory), GIB(1));
	*size = *start < top && top - *start < LAYOUT_PCI64_SIZE ? top - *start : LAYOUT_PCI64_SIZE;
}

/* Everything the user named is opened before anything is made, so that mistakes cost nothing. */
static int open_backends(struct machine *m)
{
	const struct config *config = m->config;
	int ret = 0;

	for (u32 i = 0; i < config->disk_count && !ret; i++) {
		const struct config_disk *d = &config->disks[i];
		const struct disk_config c = { .path = d->path,
					       .readonly = d->readonly,
					       .direct = d->direct };

		ret = disk_open(&m->disks[i], &c);
		m->disk_count += !ret;
	}
	for (u32 i = 0; i < config->net_count && !ret; i++) {
		const struct tap_config c = { .name = config->nets[i].tap,
					      .queues = net_queues(&config->nets[i]) };

		ret = tap_open(&m->taps[i], &c);
		m->tap_count += !ret;
	}
	return ret ? ret : stats_open(&m->stats, config->stats);
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
	int ret = console_create(&m->console, m->terminal);

	if (!ret)
		ret = uart_create(&m->uart, m->bus, m->irq, console_wake, m->console);
	if (!ret)
		console_attach(m->console, m->uart);
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

static int plug(struct machine *m, struct virtio_device *device)
{
	const struct virtio_pci_config c = {
		.host = m->pci, .irq = m->irq, .reactors = m->reactors, .device = device
	};
	int ret = virtio_pci_create(&m->functions[m->function_count], &c);

	m->devices[m->function_count] = device;
	m->function_count += !ret;
	return ret;
}

static int make_disk(struct machine *m, u32 i)
{
	const struct config_disk *d = &m->config->disks[i];
	struct virtio_blk_options c = {
		.memory = &m->memory,
		.reactors = m->reactors,
		.disk = &m->disks[i],
		.queues = disk_queues(m->config, d),
		.first_reactor = i,
		.writethrough = d->writethrough,
	};
	char name[16];
	int ret = disk_register(&m->disks[i], m->reactors);

	snprintf(name, sizeof(name), "blk%u", i);
	c.name = name;
	snprintf(c.serial, sizeof(c.serial), "%s", *d->serial ? d->serial : m->disks[i].identity);
	if (!ret)
		ret = virtio_blk_create(&m->blks[i], &c);
	return ret ? ret : plug(m, virtio_blk_device(m->blks[i]));
}

static int make_net(struct machine *m, u32 i)
{
	const struct config_net *n = &m->config->nets[i];
	struct virtio_net_options c = {
		.memory = &m->memory,
		.reactors = m->reactors,
		.tap = &m->taps[i],
		.first_reactor = m->config->disk_count + i,
		.mtu = n->mtu ? n->mtu : (u16)(m->taps[i].mtu > 65535 ? 65535 : m->taps[i].mtu),
	};
	char name[16];
	int ret = tap_register(&m->taps[i], m->reactors);

	snprintf(name, sizeof(name), "net%u", i);
	c.name = name;
	memcpy(c.mac, n->mac_given ? n->mac : m->taps[i].mac, sizeof(c.mac));
	if (!ret)
		ret = virtio_net_create(&m->nets[i], &c);
	return ret ? ret : plug(m, virtio_net_device(m->nets[i]));
}

static void enter_reactor(void *owner)
{
	(void)owner;
	if (sandbox_enter(SANDBOX_REACTOR))
		_exit(STATUS_HOST_ERROR);
}

static void enter_worker(void *owner)
{
	(void)owner;
	if (sandbox_enter(SANDBOX_WORKER))
		_exit(STATUS_HOST_ERROR);
}

static void enter_vcpu(void *owner)
{
	(void)owner;
	if (sandbox_enter(SANDBOX_VCPU))
		_exit(STATUS_HOST_ERROR);
}

/* Looking for work instead of sleeping pays only where it takes no CPU from the guest. */
static u32 poll_window(const struct config *config)
{
	cpu_set_t set;

	if (config->poll_given)
		return config->poll_us;
	return !sched_getaffinity(0, sizeof(set), &set) && CPU_COUNT(&set) > (int)config->cpus
		       ? DEFAULT_POLL_US
		       : 0;
}

static int make_devices(struct machine *m)
{
	const struct reactors_config c = {
		.count = m->config->iothreads,
		.poll_us = poll_window(m->config),
		.max_files = count_files(m->config),
		.thread_start = enter_reactor,
		.worker_start = enter_worker,
	};
	int ret = reactors_create(&m->reactors, &c);

	for (u32 i = 0; i < m->config->disk_count && !ret; i++)
		ret = make_disk(m, i);
	for (u32 i = 0; i < m->config->net_count && !ret; i++)
		ret = make_net(m, i);
	if (!ret && m->config->rng) {
		ret = virtio_rng_create(&m->rng, &m->memory, m->reactors);
		if (!ret)
			ret = plug(m, virtio_rng_device(m->rng));
	}
	return ret;
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
		.thread_start = enter_vcpu,
	};

	return vcpus_create(&m->vcpus, &c);
}

/* Kernel and tables into clean RAM, vCPU 0 at the entry. */
static int load(struct machine *m)
{
	struct vcpu_entry entry;
	int ret = boot_load(m->boot, &m->memory, &entry);

	return ret ? ret : vcpus_reset(m->vcpus, &entry);
}

static int make_machine(struct machine *m)
{
	const struct config *config = m->config;
	int ret = end_init(&m->end);

	if (ret)
		log_line("start: %s; " MORE_FILES, strerror(-ret));
	if (!ret)
		ret = open_backends(m);
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
		ret = terminal_open(&m->terminal, config->serial);
	if (!ret)
		ret = make_platform(m);
	if (!ret)
		ret = make_devices(m);
	if (!ret)
		ret = make_vcpus(m);
	milestones_mark(&m->milestones, "devices and vCPUs made");
	if (!ret)
		ret = load(m);
	milestones_mark(&m->milestones, "kernel loaded");
	return ret;
}

/* From here on nothing can be opened any more. */
static int close_sandbox_and_start(struct machine *m)
{
	int ret = 0;

	sandbox_on_violation(terminal_restore);
	sandbox_allow_rewriting(m->stats.rewritten ? m->stats.fd : -1);
	if (m->config->sandbox)
		ret = sandbox_prepare();
	else
		log_line("--no-sandbox: the guest is held by KVM alone; use it for debugging only");
	if (!ret)
		ret = reactors_start(m->reactors);
	if (!ret)
		ret = vcpus_start(m->vcpus);
	if (!ret)
		ret = sandbox_enter(SANDBOX_MAIN);
	milestones_mark(&m->milestones, "threads running, sandbox closed");
	return ret;
}

/* A reset by the guest: everything back to power-on, the same kernel loaded anew. */
static int restart(struct machine *m)
{
	vcpus_pause(m->vcpus);
	for (u32 i = 0; i < m->function_count; i++)
		virtio_pci_reset(m->functions[i]);
	pci_host_reset(m->pci);
	console_flush(m->console, 0);
	uart_reset(m->uart);
	acpi_pm_reset(m->pm);
	irq_reset(m->irq);
	memory_clear(&m->memory);
	console_reset(m->console);
	end_clear(&m->end);
	return load(m);
}

static void write_stats(const struct machine *m, bool end)
{
	const struct stats_sources sources = {
		.vcpus = m->vcpus,
		.reactors = m->reactors,
		.devices = m->devices,
		.device_count = m->function_count,
		.start = m->start,
		.first_output = console_first_output(m->console),
		.milestones = &m->milestones,
	};

	if (m->stats.fd >= 0)
		stats_put_all(&sources, &m->stats);
	if (end && m->config->boot_timing)
		stats_log_guest(&sources);
}

static volatile sig_atomic_t final_status = STATUS_SIGNAL + SIGALRM; /* from outside, until then */

static void give_up(int signal_number)
{
	(void)signal_number;
	terminal_restore();
	_exit(final_status);
}

/*
 * Images are unlocked and taps are free when the process has ended, not a moment later: a ring's
 * files would else live on in the kernel until it gets round to them, and the next VM would find
 * them taken. A host disk that hangs does not hold us: then the kernel cleans up in its own time.
 */
static void let_go(struct machine *m, int status)
{
	final_status = status;
	alarm(LET_GO_SECONDS);
	for (u32 i = 0; i < m->function_count; i++)
		virtio_pci_reset(m->functions[i]);
	reactors_destroy(m->reactors);
	for (u32 i = 0; i < m->tap_count; i++)
		tap_close(&m->taps[i]);
	for (u32 i = 0; i < m->disk_count; i++)
		disk_close(&m->disks[i]);
}

/* What the main thread waits for besides the descriptors. */
struct wait {
	u64 timeout, grace, panic, nmi; /* when each is due, NEVER if not */
	int signal;			/* that asked us to end */
};

/* The first signal presses the power button, the second ends. */
static void on_signal(struct machine *m, struct wait *w)
{
	struct signalfd_siginfo info;

	while (read(m->signals, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGCONT) {
			terminal_resume();
		} else if (info.ssi_signo == SIGUSR1) {
			if (m->stats.fd >= 0)
				write_stats(m, false);
			else
				log_line("SIGUSR1: nowhere to write; start with --stats FILE");
		} else if (w->signal) {
			end_request(&m->end, END_SIGNAL, info.ssi_signo);
		} else {
			w->signal = (int)info.ssi_signo;
			w->grace = clock_now_ns() + m->config->grace_seconds * NS;
			log_line("%s: power button pressed; the guest has %u seconds, a second "
				 "signal ends it now",
				 strsignal(w->signal), m->config->grace_seconds);
			acpi_pm_event(m->pm, LAYOUT_GED_POWER_BUTTON);
		}
	}
}

static void on_command(struct machine *m, enum terminal_command command)
{
	if (command == TERMINAL_QUIT)
		end_request(&m->end, END_QUIT, 0);
	if (command == TERMINAL_HELP)
		log_line("Ctrl-A x: quit   Ctrl-A b: send a break (SysRq)   Ctrl-A Ctrl-A: send "
			 "Ctrl-A");
}

static void on_deadlines(struct machine *m, struct wait *w, u64 now)
{
	if (now >= w->timeout) {
		w->timeout = NEVER;
		w->nmi = now + NMI_GRACE;
		vcpus_nmi(m->vcpus);
	}
	if (now >= w->nmi)
		end_request(&m->end, END_TIMEOUT, m->config->timeout_seconds);
	if (now >= w->grace)
		end_request(&m->end, END_SIGNAL, (u32)w->signal);
	if (console_panicked(m->console) && w->panic == NEVER)
		w->panic = now + PANIC_GRACE;
	if (w->panic != NEVER && (now >= w->panic || console_panic_complete(m->console)))
		end_request(&m->end, END_PANIC, 0);
}

/* What the reason becomes once everything is known: a panic explains whatever followed it. */
static enum end_reason judge(const struct machine *m, const struct wait *w, u32 *value)
{
	enum end_reason reason = end_reason(&m->end, value);

	if (reason == END_NONE)
		return reason;
	if (w->nmi != NEVER && reason != END_QUIT && reason != END_SIGNAL) {
		*value = m->config->timeout_seconds;
		return END_TIMEOUT;
	}
	if (console_panicked(m->console) && (reason == END_RESET || reason == END_TRIPLE_FAULT))
		return END_PANIC;
	return reason;
}

static struct timespec until(u64 deadline)
{
	u64 now = clock_now_ns(), left = deadline > now ? deadline - now : 0;

	return (struct timespec){ (time_t)(left / NS), (long)(left % NS) };
}

/* Runs until the machine ends for good; returns why. */
static enum end_reason run(struct machine *m, u32 *value)
{
	struct wait w = { NEVER, NEVER, NEVER, NEVER, 0 };
	enum end_reason reason;

	if (m->config->timeout_seconds)
		w.timeout = clock_now_ns() + m->config->timeout_seconds * NS;
	milestones_mark(&m->milestones, "first guest instruction");
	vcpus_resume(m->vcpus);
	if (m->config->boot_timing)
		milestones_log(&m->milestones, 0);
	for (;;) {
		struct pollfd fds[CONSOLE_POLLS + 2];
		u64 deadline = w.timeout, now;
		struct timespec wait;

		deadline = w.grace < deadline ? w.grace : deadline;
		deadline = w.panic < deadline ? w.panic : deadline;
		deadline = w.nmi < deadline ? w.nmi : deadline;
		console_prepare(m->console, fds, &deadline);
		fds[CONSOLE_POLLS] = (struct pollfd){ .fd = m->signals, .events = POLLIN };
		fds[CONSOLE_POLLS + 1] = (struct pollfd){ .fd = m->end.fd, .events = POLLIN };
		wait = until(deadline);
		if (ppoll(fds, CONSOLE_POLLS + 2, deadline == NEVER ? NULL : &wait, NULL) < 0)
			continue; /* EINTR: everything is looked at again */
		now = clock_now_ns();
		on_command(m, console_run(m->console, fds, now));
		if (fds[CONSOLE_POLLS].revents)
			on_signal(m, &w);
		on_deadlines(m, &w, now);
		if (end_reason(&m->end, value) == END_NONE)
			continue;
		vcpus_pause(m->vcpus);
		console_flush(m->console, FLUSH_MS);
		reason = judge(m, &w, value);
		if (reason != END_RESET || !m->config->reboot || w.signal)
			return reason;
		if (restart(m))
			return END_HOST_ERROR;
		vcpus_resume(m->vcpus);
	}
}

/* Signals come as descriptors; threads made later inherit the mask. -1 after a log line. */
static int catch_signals(void)
{
	static const int caught[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGCONT, SIGUSR1 };
	sigset_t set;
	int fd;

	sigemptyset(&set);
	for (u32 i = 0; i < ARRAY_SIZE(caught); i++)
		sigaddset(&set, caught[i]);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGALRM, give_up);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fd < 0)
		log_line(
			"signals cannot be received: %s; raise the limit on open files (ulimit -n)",
			strerror(errno));
	return fd;
}

static void raise_file_limit(void)
{
	struct rlimit limit;

	if (!getrlimit(RLIMIT_NOFILE, &limit)) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static int run_machine(const struct config *config, const struct milestones *milestones)
{
	struct machine *m = calloc(1, sizeof(*m));
	int status = STATUS_HOST_ERROR;
	enum end_reason reason;
	u32 value = 0;

	if (!m) {
		log_line("start: out of memory; free some");
		return status;
	}
	m->config = config;
	m->milestones = *milestones;
	m->start = ticks_look();
	m->kvm.fd = m->kvm.vm = -1;
	raise_file_limit();
	m->signals = catch_signals();
	if (m->signals >= 0 && !make_machine(m) && !close_sandbox_and_start(m)) {
		reason = run(m, &value);
		terminal_restore();
		write_stats(m, true);
		end_report(reason, value);
		status = end_status(reason, value);
		let_go(m, status);
	}
	/* The rest goes with the process. */
	return status;
}

int main(int argc, char **argv)
{
	struct milestones milestones;
	struct config config;
	int status = STATUS_OK;

	milestones_begin(&milestones);
	if (terminal_hold_standard_files())
		return STATUS_HOST_ERROR;
	if (config_parse(&config, argc, argv))
		return STATUS_USAGE;
	milestones_mark(&milestones, "options parsed");
	switch (config.action) {
	case CONFIG_RUN:
		status = run_machine(&config, &milestones);
		break;
	case CONFIG_CHECK:
		status = host_check() ? STATUS_HOST_ERROR : STATUS_OK;
		break;
	case CONFIG_HELP:
		status = config_print_help() ? STATUS_HOST_ERROR : STATUS_OK;
		break;
	case CONFIG_VERSION:
		status = config_print_version() ? STATUS_HOST_ERROR : STATUS_OK;
		break;
	case CONFIG_MAN:
		status = config_print_man() ? STATUS_HOST_ERROR : STATUS_OK;
		break;
	}
	config_free(&config);
	return status;
}
