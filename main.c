/*
 * vmm: from arguments to exit status. What a machine is made of stands in machine/machine.c.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include "machine/ctl.h"
#include "machine/machine.h"
#include "virtio/strict.h"
#include "vm/host-check.h"
#include "vm/log.h"

#define LET_GO_SECONDS 5

static volatile sig_atomic_t final_status = STATUS_SIGNAL + SIGALRM; /* from outside, until then */

static void give_up(int signal_number)
{
	(void)signal_number;
	terminal_restore();
	_exit(final_status);
}

/* Signals come as descriptors; threads made later inherit the mask. -1 after a log line. */
static int catch_signals(void)
{
	static const int caught[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGCONT, SIGUSR1, SIGWINCH };
	sigset_t set, blocked;
	int fd;

	sigemptyset(&set);
	for (u32 i = 0; i < ARRAY_SIZE(caught); i++)
		sigaddset(&set, caught[i]);
	signal(SIGALRM, give_up);
	/* a reader that went, or a file-size limit, is an error of one write, not the end of us */
	blocked = set;
	sigaddset(&blocked, SIGPIPE);
	sigaddset(&blocked, SIGXFSZ);
	sigprocmask(SIG_BLOCK, &blocked, NULL);
	fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fd < 0)
		log_line(
			"signals cannot be received: %s; raise the limit on open files (ulimit -n)",
			strerror(errno));
	return fd;
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
	m->kvm.fd = m->kvm.vm = m->vmcore = -1;
	machine_allow_files(config);
	m->signals = catch_signals();
	if (m->signals >= 0 && !machine_make(m) && !machine_start(m)) {
		reason = machine_run(m, &value);
		terminal_restore();
		machine_write_core(m, reason);
		machine_write_stats(m, true);
		end_report(reason, value);
		status = end_status(reason, value);
		/* A host disk that hangs does not hold us: then the kernel cleans up. */
		final_status = status;
		alarm(LET_GO_SECONDS);
		machine_let_go(m);
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
	if (argc > 1 && !strcmp(argv[1], "ctl"))
		return ctl_main(argc, argv);
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
	case CONFIG_RULES:
		status = strict_print_rules() ? STATUS_HOST_ERROR : STATUS_OK;
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
