/*
 * One machine from its options to the process's exit status. Main thread.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include "machine/gdb.h"
#include "machine/machine.h"
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
	static const int caught[] = {
		SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGCONT, SIGUSR1, SIGWINCH
	};
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

int machine_session(const struct config *config, const struct milestones *milestones,
		    const struct machine_watcher *watcher)
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
	m->watcher = watcher;
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
		if (watcher) {
			status = watcher->ended(watcher->arg, m, reason, value);
		} else {
			end_report(reason, value);
			status = end_status(reason, value);
		}
		if (m->gdb)
			gdb_ended(m->gdb, status);
		/* A host disk that hangs does not hold us: then the kernel cleans up. */
		final_status = status;
		alarm(LET_GO_SECONDS);
		machine_let_go(m);
	}
	/* The rest goes with the process. */
	return status;
}
