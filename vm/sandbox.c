/*
 * The sandbox: no capabilities (capabilities(7)), no new privileges, and a seccomp allowlist
 * (seccomp(2)) for each kind of thread. The lists below are the whole of what this process may ask
 * of the host once the guest runs.
 *
 * Files that are open stay usable; nothing opens a path, makes a socket, a process, a thread or a
 * ring, or maps executable memory. Built on the main thread, entered by each thread for itself.
 * Everything here is made by hand and without a library, because every VM pays for it at start.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <linux/if_tun.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>
#include <asm/termbits.h>
#include "vm/end.h"
#include "vm/log.h"
#include "syscall-names.h"
#include "vm/sandbox-filter.h"
#include "vm/sandbox.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif

#define M   BIT(SANDBOX_MAIN)
#define V   BIT(SANDBOX_VCPU)
#define R   BIT(SANDBOX_REACTOR)
#define W   BIT(SANDBOX_WORKER)
#define ALL (M | V | R | W)

/* clang-format off */
#define IF(argument, mask, value) { argument, mask, value }
#define CALL(name, kinds) { SYS_##name, kinds, 0, {} }
#define CALL_IF(name, kinds, argument, mask, value) \
	{ SYS_##name, kinds, 1, { IF(argument, mask, value) } }
#define CALL_IF2(name, kinds, argument1, mask1, value1, argument2, mask2, value2) \
	{ SYS_##name, kinds, 2, { IF(argument1, mask1, value1), IF(argument2, mask2, value2) } }
/* clang-format on */

/* An int or unsigned int: the kernel does not look at the upper half of the register. */
#define LOW 0xffffffffu

static const struct filter_rule calls[] = {
	/* ---- living ---- */
	CALL(exit, ALL),
	CALL(exit_group, ALL),
	CALL(futex, ALL),
	CALL(sched_yield, ALL),
	CALL(restart_syscall, ALL),
	CALL(membarrier, ALL),
	CALL(rseq, ALL),
	CALL(set_robust_list, ALL),
	CALL(getpid, ALL),
	CALL(gettid, ALL),
	CALL(rt_sigreturn, ALL),
	CALL(rt_sigprocmask, ALL),
	CALL(sigaltstack, ALL),
	CALL(clock_gettime, ALL), /* these three come from the vDSO mostly */
	CALL(gettimeofday, ALL),
	CALL(time, ALL),
	CALL(clock_nanosleep, ALL),
	CALL(getrandom, ALL),
	/* ---- memory: never executable, never a file ---- */
	CALL(brk, ALL),
	CALL(madvise, ALL),
	CALL(munmap, ALL),
	CALL(mremap, ALL),
	CALL_IF2(mmap, ALL, 2, PROT_EXEC, 0, 3, MAP_ANONYMOUS, MAP_ANONYMOUS),
	CALL_IF(mprotect, ALL, 2, PROT_EXEC, 0),
	/* ---- open files ---- */
	CALL(read, ALL),
	CALL(write, ALL),
	CALL(readv, M | R),
	CALL(writev, M | R),
	CALL(preadv, M | R | W),
	CALL(pwritev, M | R | W),
	CALL(preadv2, M | R | W),
	CALL(pwritev2, M | R | W),
	CALL(pread64, M | R | W),
	CALL(pwrite64, R | W),
	CALL(fsync, M | R | W),
	CALL(fdatasync, M | R | W),
	CALL(fallocate, M | R | W), /* main: gives guest RAM in hugetlb pages back */
	CALL(lseek, M),
	CALL(fstat, M), /* which the C library writes in either way */
	CALL_IF(newfstatat, M, 3, LOW, AT_EMPTY_PATH),
	CALL(close, M | R),
	CALL(poll, ALL), /* whoever logs looks first whether there is room */
	CALL(ppoll, M | V | R),
	CALL_IF(fcntl, M, 1, LOW, F_GETFL),
	CALL_IF(fcntl, M, 1, LOW, F_SETFL),
	CALL(timerfd_settime, M),
	CALL(alarm, M),
	CALL(setitimer, M),
	/* ---- vCPUs are called out of the guest by a signal ---- */
	CALL(rt_sigtimedwait, M | V),
	/* ---- a reactor's waiting ---- */
	CALL(io_uring_enter, R),
	CALL_IF(io_uring_register, R, 1, LOW, IORING_REGISTER_FILES_UPDATE),
	CALL_IF(io_uring_register, R, 1, LOW, IORING_UNREGISTER_RING_FDS),
	CALL_IF(io_uring_register, R, 1, LOW, IORING_UNREGISTER_FILES),
	CALL(epoll_wait, R),
	CALL(epoll_pwait, R),
	CALL(epoll_ctl, R),
#ifdef SANITIZED
	/* What the sanitizers' run time calls: to know its stacks, and to end. */
	CALL(sched_getaffinity, ALL),
	CALL(getppid, ALL),
	CALL_IF(prctl, ALL, 0, LOW, PR_GET_NAME),
	CALL_IF(mmap, ALL, 2, PROT_EXEC, 0),
#endif
};

/* ioctl(2) requests. */
static const struct filter_ioctl ioctls[] = {
	{ KVM_RUN, V },
	/* interrupts and doorbells, as a driver moves them */
	{ KVM_IRQ_LINE, M | V | R },
	{ KVM_IRQFD, M | V | R },
	{ KVM_IOEVENTFD, M | V | R },
	{ KVM_SET_GSI_ROUTING, M | V | R },
	{ KVM_SIGNAL_MSI, M | V | R },
	/* restart in place; the first run of a vCPU */
	{ KVM_SET_IRQCHIP, M },
	{ KVM_GET_IRQCHIP, M },
	{ KVM_SET_CLOCK, M },
	{ KVM_GET_CLOCK, M },
	{ KVM_NMI, M | V },
	{ KVM_SET_NESTED_STATE, M },
	{ KVM_SET_REGS, M | V },
	{ KVM_GET_REGS, M | V },
	{ KVM_SET_SREGS, M | V },
	{ KVM_GET_SREGS, M | V },
	{ KVM_SET_FPU, M | V },
	{ KVM_SET_XSAVE, M | V },
	{ KVM_GET_XSAVE, M | V },
	{ KVM_SET_XCRS, M | V },
	{ KVM_GET_XCRS, M | V },
	{ KVM_SET_MSRS, M | V },
	{ KVM_GET_MSRS, M | V },
	{ KVM_SET_LAPIC, M | V },
	{ KVM_GET_LAPIC, M | V },
	{ KVM_SET_MP_STATE, M | V },
	{ KVM_GET_MP_STATE, M | V },
	{ KVM_SET_VCPU_EVENTS, M | V },
	{ KVM_GET_VCPU_EVENTS, M | V },
	{ KVM_SET_DEBUGREGS, M | V },
	{ KVM_KVMCLOCK_CTRL, M | V },
	/* a tap's offloads and queues, as a driver negotiates them */
	{ TUNSETOFFLOAD, M | V | R },
	{ TUNSETVNETHDRSZ, M | V | R },
	{ TUNSETQUEUE, M | V | R },
	/* the terminal; given back by whichever thread ends the process */
	{ TCGETS, ALL },
	{ TCSETS, ALL },
	{ TCSETSW, ALL },
	{ TCSETSF, ALL },
	{ TCGETS2, ALL },
	{ TCSETS2, ALL },
	{ TCSETSW2, ALL },
	{ TCSETSF2, ALL },
	{ TIOCGPGRP, ALL }, /* is the terminal ours to restore? */
	{ TIOCGWINSZ, M },
	{ FIONREAD, M },
};

static const char *const kind_names[SANDBOX_THREADS] = {
	[SANDBOX_MAIN] = "main",
	[SANDBOX_VCPU] = "vCPU",
	[SANDBOX_REACTOR] = "reactor",
	[SANDBOX_WORKER] = "worker",
};

static const char *const call_names[] = { SYSCALL_NAMES };

static struct filter filters[SANDBOX_THREADS];
static void (*violation_hook)(void);
static bool prepared;
static int rewritable = -1; /* sandbox_allow_rewriting() */
static __thread char thread_name[16];
static __thread volatile sig_atomic_t violations;

/* ---- telling of a violation; async-signal-safe ---- */

struct text {
	char bytes[256];
	size_t length;
};

static void put(struct text *text, const char *s)
{
	while (*s && text->length < sizeof(text->bytes))
		text->bytes[text->length++] = *s++;
}

static void put_number(struct text *text, u64 n, unsigned int base)
{
	char digits[24];
	size_t at = sizeof(digits);

	digits[--at] = '\0';
	do
		digits[--at] = "0123456789abcdef"[n % base];
	while (n /= base);
	put(text, &digits[at]);
}

static void on_sigsys(int signal_number, siginfo_t *info, void *context)
{
	const ucontext_t *uc = context;
	unsigned int call = (unsigned int)info->si_syscall;
	struct text text = { .length = 0 };

	(void)signal_number;
	/* SA_NODEFER: if the hook itself breaks a rule we are here again, and leave it out. */
	if (!violations++ && violation_hook)
		violation_hook();
	put(&text, "vmm: sandbox: thread ");
	put(&text, thread_name);
	put(&text, ": forbidden system call ");
	put(&text,
	    call < ARRAY_SIZE(call_names) && call_names[call] ? call_names[call] : "unknown");
	put(&text, " (");
	put_number(&text, call, 10);
	put(&text, ", arguments 0x");
	put_number(&text, (u64)uc->uc_mcontext.gregs[REG_RDI], 16);
	put(&text, " 0x");
	put_number(&text, (u64)uc->uc_mcontext.gregs[REG_RSI], 16);
	put(&text, " 0x");
	put_number(&text, (u64)uc->uc_mcontext.gregs[REG_RDX], 16);
	put(&text, "): ended; please report it (--no-sandbox runs without)\n");
	if (write(STDERR_FILENO, text.bytes, text.length) < 0) {
		/* nobody listens; the status tells */
	}
	/* Not _exit(): before what does not return, AddressSanitizer wants to look at
	 * /proc/self/maps. */
	syscall(SYS_exit_group, STATUS_HOST_ERROR);
}

void sandbox_on_violation(void (*fn)(void))
{
	violation_hook = fn;
}

void sandbox_allow_rewriting(int fd)
{
	rewritable = fd;
}

/* ---- preparing ---- */

/* All of them, and the way back: neither root nor what a file carries gives any at an execve(2),
 * which the filters forbid anyway. What may not set the bits has no capability to lose by them. */
static int drop_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};

	prctl(PR_SET_SECUREBITS, SECURE_ALL_BITS | SECURE_ALL_LOCKS, 0, 0, 0);
	return syscall(SYS_capset, &header, none) ? -errno : 0;
}

/* What depends on this process: that one file only, since what main may cut short must not be a
 * disk image; and a thread may signal its own process only: raise(), abort(), calling vCPUs out of
 * the guest. */
static int build_filter(enum sandbox_thread kind)
{
	const struct filter_rule own[] = {
		CALL_IF(tgkill, ALL, 0, LOW, (u32)getpid()),
		CALL_IF(pwrite64, M, 0, LOW, (u32)rewritable),
		CALL_IF(ftruncate, M, 0, LOW, (u32)rewritable),
	};
	const struct filter_rules rules[] = {
		{ own, rewritable < 0 ? 1 : ARRAY_SIZE(own) },
		{ calls, ARRAY_SIZE(calls) },
	};

	return filter_build(&filters[kind], BIT(kind), ioctls, ARRAY_SIZE(ioctls), rules,
			    ARRAY_SIZE(rules));
}

int sandbox_prepare(void)
{
	const struct sigaction action = { .sa_sigaction = on_sigsys,
					  .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK };
	const char *what;
	int error;

	what = "capabilities cannot be dropped";
	error = drop_capabilities();
	if (error)
		goto fail;
	what = "prctl";
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		goto fail_errno;
	/* The C library opens files in two surprising places: the time zone's, for gmtime() too
	 * (and the one that is looked for here does not exist, so nothing is read), and with an
	 * arena per thread /proc/sys/vm/overcommit_memory in free(). */
	setenv("TZ", "UTC0", true);
	tzset();
	mallopt(M_ARENA_MAX, 1);
	what = "SIGSYS cannot be handled";
	if (sigaction(SIGSYS, &action, NULL))
		goto fail_errno;
	what = "the system call filter cannot be built";
	for (int kind = 0; kind < SANDBOX_THREADS; kind++) {
		error = build_filter((enum sandbox_thread)kind);
		if (error)
			goto fail;
	}
	prepared = true;
	return 0;
fail_errno:
	error = -errno;
fail:
	log_line("sandbox: %s: %s; --no-sandbox runs without", what, strerror(-error));
	return error;
}

int sandbox_enter(enum sandbox_thread kind)
{
	int error;

	if (!prepared)
		return 0;
	if (pthread_getname_np(pthread_self(), thread_name, sizeof(thread_name)))
		strcpy(thread_name, kind_names[kind]);
	error = filter_enter(&filters[kind]);
	if (!error)
		return 0;
	if (violation_hook)
		violation_hook();
	log_line("sandbox: %s threads cannot close their filter: %s; --no-sandbox runs without",
		 kind_names[kind], strerror(-error));
	return error;
}
