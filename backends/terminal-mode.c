/*
 * Raw mode and the way back (termios(3)): by call, at exit, and on every signal that would end the
 * process, on whatever thread that arrives.
 */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "backends/terminal-mode.h"
#include "backends/terminal.h"
#include "vm/log.h"

/* Faults and abort(): whoever handled them before is called after us. */
static const int faults[] = { SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSYS };
/* The others that end a process which does nothing about them. */
static const int ends[] = { SIGHUP,  SIGINT,  SIGQUIT,	 SIGTRAP,   SIGUSR1, SIGUSR2, SIGALRM,
			    SIGTERM, SIGXCPU, SIGSTKFLT, SIGVTALRM, SIGPROF, SIGIO,   SIGPWR };

/* Room for the handler where the main thread's own stack overflowed. */
static char signal_stack[16384] __attribute__((aligned(16)));

static struct termios saved, raw;
static int mode_fd = -1;
static pid_t own_group;
static atomic_bool is_raw;
static struct sigaction fault_before[ARRAY_SIZE(faults)];

/* A terminal that is not our controlling one has no background. */
static bool in_foreground(void)
{
	pid_t group;

	return ioctl(mode_fd, TIOCGPGRP, &group) < 0 || group == own_group;
}

void terminal_restore(void)
{
	int saved_errno = errno;

	/* in the background the terminal is the foreground's, which has put it as it likes */
	if (atomic_exchange(&is_raw, false)) {
		if (in_foreground())
			tcsetattr(mode_fd, TCSANOW, &saved);
		log_terminal_raw(false);
	}
	errno = saved_errno;
}

/* SA_RESETHAND is set: the signal's second arrival does what it does by default. */
static void on_end(int number, siginfo_t *info, void *context)
{
	terminal_restore();
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
		const struct sigaction *before = &fault_before[i];

		if (faults[i] != number)
			continue;
		if (before->sa_flags & SA_SIGINFO) {
			before->sa_sigaction(number, info, context);
			return;
		}
		if (before->sa_handler != SIG_DFL && before->sa_handler != SIG_IGN) {
			before->sa_handler(number);
			return;
		}
		if (info->si_code > 0)
			return; /* the instruction faults again */
	}
	raise(number);
}

static void install(int number, struct sigaction *before)
{
	struct sigaction action = { .sa_sigaction = on_end,
				    .sa_flags = SA_SIGINFO | SA_RESETHAND | SA_ONSTACK };

	sigfillset(&action.sa_mask);
	sigaction(number, &action, before);
}

static void install_if_default(int number)
{
	struct sigaction now;

	if (!sigaction(number, NULL, &now) && !(now.sa_flags & SA_SIGINFO) &&
	    now.sa_handler == SIG_DFL)
		install(number, NULL);
}

/* Once, before the first time that the terminal is raw. */
static void install_handlers(void)
{
	static bool done;
	stack_t stack = { .ss_sp = signal_stack, .ss_size = sizeof(signal_stack) }, before;

	if (done)
		return;
	done = true;
	if (!sigaltstack(NULL, &before) && before.ss_flags & SS_DISABLE)
		sigaltstack(&stack, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++)
		install(faults[i], &fault_before[i]);
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++)
		install_if_default(ends[i]);
	for (int number = SIGRTMIN; number <= SIGRTMAX; number++)
		install_if_default(number);
	atexit(terminal_restore);
}

void terminal_resume(void)
{
	if (mode_fd < 0 || !in_foreground())
		return;
	if (tcsetattr(mode_fd, TCSANOW, &raw))
		return;
	atomic_store(&is_raw, true);
	log_terminal_raw(true);
}

int terminal_mode_take(int fd)
{
	if (tcgetattr(fd, &saved))
		return -errno;
	raw = saved;
	cfmakeraw(&raw);
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	own_group = getpgrp();
	/* reads and changes of modes from the background fail then, instead of stopping us */
	signal(SIGTTIN, SIG_IGN);
	signal(SIGTTOU, SIG_IGN);
	install_handlers();
	mode_fd = fd;
	terminal_resume();
	return 0;
}

bool terminal_mode_is_raw(void)
{
	return atomic_load_explicit(&is_raw, memory_order_relaxed);
}

bool terminal_mode_lost(void)
{
	if (in_foreground())
		return false;
	atomic_store(&is_raw, false);
	log_terminal_raw(false);
	return true;
}

void terminal_mode_give_back(void)
{
	terminal_restore();
	mode_fd = -1;
}
