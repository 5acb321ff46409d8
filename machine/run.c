/*
 * The main thread while the machine runs: it waits for signals, the terminal, the timeout and the
 * end.
 */
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>
#include "machine/control.h"
#include "machine/gdb.h"
#include "machine/hotplug.h"
#include "machine/machine.h"
#include "machine/ports.h"
#include "vm/log.h"

#define NS	    1000000000ull
#define PANIC_GRACE (2 * NS) /* for the rest of a panic's report */
#define NMI_GRACE   (1 * NS) /* for what the guest says of a timeout's NMI */
#define SYSRQ_GRACE (1 * NS) /* the same of each SysRq: its driver keeps one at a time */
#define FLUSH_MS    2000
#define NEVER	    (~0ull)

/* Where things stand among what is polled. */
enum {
	SIGNALS = MACHINE_CONSOLE_POLLS,
	END,
	WATCHER,
	PORTS = WATCHER + MACHINE_WATCHER_POLLS,
	HOTPLUG = PORTS + PORTS_POLLS,
	CONTROL,
	GDB = CONTROL + CONTROL_POLLS,
	POLLS = GDB + GDB_POLLS
};

/* What the main thread waits for besides the descriptors. */
struct wait {
	u64 timeout, grace, panic, sysrq, nmi; /* when each is due, NEVER if not */
	const char *keys;		       /* SysRqs that are left, before the NMI */
	int signal;			       /* that asked us to end */
};

static bool is_watchers(struct machine *m, int number, u64 now)
{
	return m->watcher && m->watcher->signal(m->watcher->arg, m, number, now);
}

/* The first signal presses the power button, the second ends. */
static void on_signal(struct machine *m, struct wait *w, u64 now)
{
	struct signalfd_siginfo info;

	while (read(m->signals, &info, sizeof(info)) == sizeof(info)) {
		if (is_watchers(m, (int)info.ssi_signo, now)) {
			continue;
		} else if (info.ssi_signo == SIGCONT) {
			terminal_resume();
			machine_window_changed(m);
		} else if (info.ssi_signo == SIGWINCH) {
			machine_window_changed(m);
		} else if (info.ssi_signo == SIGUSR1) {
			if (m->stats.fd >= 0)
				machine_write_stats(m, false);
			else
				log_line("SIGUSR1: nowhere to write; start with --stats FILE");
		} else if (w->signal) {
			end_request(&m->end, END_SIGNAL, info.ssi_signo);
		} else {
			w->signal = (int)info.ssi_signo;
			w->grace = now + m->config->grace_seconds * NS;
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

void machine_expire(struct machine *m)
{
	m->expired = true;
}

/* Linux's keys for the backtraces of all CPUs, and the tasks that wait for good, on the console
 * that a watcher keeps; a user's own is not written to. Then an NMI for each vCPU. */
static void ask_guest(struct machine *m, struct wait *w, u64 now)
{
	if (*w->keys) {
		w->sysrq = now + SYSRQ_GRACE;
		uart_break(m->uart);
		uart_input(m->uart, (const u8 *)w->keys++, 1);
	} else {
		w->sysrq = NEVER;
		w->nmi = now + NMI_GRACE;
		vcpus_nmi(m->vcpus);
	}
}

static void on_deadlines(struct machine *m, struct wait *w, u64 now)
{
	if (now >= w->timeout || (m->expired && w->nmi == NEVER && w->sysrq == NEVER)) {
		w->timeout = NEVER;
		w->sysrq = now;
		w->keys = m->watcher ? "lw" : "";
	}
	if (now >= w->sysrq)
		ask_guest(m, w, now);
	if (now >= w->nmi)
		end_request(&m->end, END_TIMEOUT, m->config->timeout_seconds);
	if (now >= w->grace)
		end_request(&m->end, END_SIGNAL, (u32)w->signal);
	if (machine_panicked(m) && w->panic == NEVER)
		w->panic = now + PANIC_GRACE;
	if (w->panic != NEVER && (now >= w->panic || machine_panic_complete(m)))
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
	if (machine_panicked(m) && (reason == END_RESET || reason == END_TRIPLE_FAULT))
		return END_PANIC;
	return reason;
}

static struct timespec until(u64 deadline)
{
	u64 now = clock_now_ns(), left = deadline > now ? deadline - now : 0;

	return (struct timespec){ (time_t)(left / NS), (long)(left % NS) };
}

enum end_reason machine_run(struct machine *m, u32 *value)
{
	struct wait w = { NEVER, NEVER, NEVER, NEVER, NEVER, "", 0 };
	enum end_reason reason;

	if (m->config->timeout_seconds)
		w.timeout = clock_now_ns() + m->config->timeout_seconds * NS;
	milestones_mark(&m->milestones, MILESTONE_GUEST);
	vcpus_resume(m->vcpus);
	if (m->config->boot_timing)
		milestones_log(&m->milestones, 0);
	for (;;) {
		struct pollfd fds[POLLS];
		nfds_t polled = m->gdb ? POLLS : m->control ? GDB : m->ports ? HOTPLUG : PORTS;
		u64 deadline = w.timeout, now;
		struct timespec wait;

		deadline = w.grace < deadline ? w.grace : deadline;
		deadline = w.panic < deadline ? w.panic : deadline;
		deadline = w.nmi < deadline ? w.nmi : deadline;
		deadline = w.sysrq < deadline ? w.sysrq : deadline;
		machine_consoles_prepare(m, fds, &deadline);
		fds[SIGNALS] = (struct pollfd){ .fd = m->signals, .events = POLLIN };
		fds[END] = (struct pollfd){ .fd = m->end.fd, .events = POLLIN };
		for (nfds_t i = WATCHER; i < polled; i++)
			fds[i].fd = -1;
		if (m->watcher)
			m->watcher->prepare(m->watcher->arg, m, &fds[WATCHER], &deadline);
		if (m->ports)
			ports_prepare(m->ports, &fds[PORTS]);
		if (m->control) {
			hotplug_prepare(m->hotplug, &fds[HOTPLUG], &deadline);
			control_prepare(m->control, &fds[CONTROL], &deadline);
		}
		if (m->gdb)
			gdb_prepare(m->gdb, &fds[GDB]);
		wait = until(deadline);
		if (ppoll(fds, polled, deadline == NEVER ? NULL : &wait, NULL) < 0)
			continue; /* EINTR: everything is looked at again */
		now = clock_now_ns();
		on_command(m, machine_consoles_run(m, fds, now));
		if (fds[SIGNALS].revents)
			on_signal(m, &w, now);
		if (m->watcher)
			m->watcher->run(m->watcher->arg, m, &fds[WATCHER], now);
		if (m->ports)
			ports_run(m->ports, &fds[PORTS]);
		if (m->control) {
			control_run(m->control, &fds[CONTROL], now);
			hotplug_run(m->hotplug, now);
		}
		if (m->gdb)
			gdb_run(m->gdb, &fds[GDB]);
		on_deadlines(m, &w, now);
		if (end_reason(&m->end, value) == END_NONE)
			continue;
		vcpus_pause(m->vcpus);
		if (m->ports) /* what the guest sent last is written */
			reactors_settle(m->reactors);
		machine_consoles_flush(m, FLUSH_MS);
		reason = judge(m, &w, value);
		if (reason != END_RESET || !m->config->reboot || w.signal)
			return reason;
		if (machine_restart(m))
			return END_HOST_ERROR;
		vcpus_resume(m->vcpus);
	}
}
