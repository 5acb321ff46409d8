/*
 * The sandbox: no capabilities (capabilities(7)), no new privileges, and a seccomp allowlist
 * (seccomp(2)) for each kind of thread, made by vm/sandbox-generate.c when vmm was built. Prepared
 * on the main thread, entered by each thread for itself.
 */
#include <errno.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#include "vm/end.h"
#include "vm/log.h"
#include "vm/sandbox-filter.h"
#include "sandbox-filters.h"
#include "vm/sandbox.h"

static const char *const kind_names[SANDBOX_THREADS] = {
	[SANDBOX_MAIN] = "main",
	[SANDBOX_VCPU] = "vCPU",
	[SANDBOX_REACTOR] = "reactor",
	[SANDBOX_WORKER] = "worker",
};

#define PROGRAM(kind)                                      \
	{                                                  \
		ARRAY_SIZE(program_##kind), program_##kind \
	}

static struct sock_fprog programs[] = { PROGRAM(0), PROGRAM(1), PROGRAM(2), PROGRAM(3),
					PROGRAM(4), PROGRAM(5), PROGRAM(6) };
_Static_assert(ARRAY_SIZE(programs) == SANDBOX_PROGRAMS, "a program for each kind of thread");

static void (*violation_hook)(void);
static int violation_status = STATUS_HOST_ERROR;
static bool prepared;
static int rewritable = -1; /* sandbox_allow_rewriting() */
static int vmcore = -1;	    /* sandbox_allow_vmcore() */
static bool control;	    /* sandbox_allow_control() */
static bool gdb;	    /* sandbox_allow_gdb() */
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

/* The next code of the names, 0 behind the last. */
static u32 name_code(u32 *at)
{
	u32 bit = (*at)++ * CALL_NAME_BITS, byte = bit / 8;

	if (byte + 2 > sizeof(call_names))
		return 0;
	return (u32)(call_names[byte] | call_names[byte + 1] << 8) >> bit % 8 &
	       ((1 << CALL_NAME_BITS) - 1);
}

static void put_call_name(struct text *text, u32 call)
{
	size_t before = text->length;
	u32 at = 0, code;

	call = call < CALL_NAMES ? call : CALL_NAMES;
	while (call)
		call -= !name_code(&at);
	while ((code = name_code(&at))) {
		char c = code == CALL_NAME_DIGIT  ? (char)('0' + name_code(&at))
			 : code == CALL_NAME_LINE ? '_'
						  : (char)('a' + code - 1);

		put(text, (char[]){ c, '\0' });
	}
	if (text->length == before)
		put(text, "unknown");
}

static void on_sigsys(int signal_number, siginfo_t *info, void *context)
{
	const ucontext_t *uc = context;
	unsigned int call = (unsigned int)info->si_syscall;
	struct text text = { .length = 0 };
	char name[16];

	(void)signal_number;
	/* SA_NODEFER: if the hook itself breaks a rule we are here again, and leave it out. */
	if (!violations++ && violation_hook)
		violation_hook();
	put(&text, "vmm: sandbox: thread ");
	if (prctl(PR_GET_NAME, name))
		strcpy(name, "unknown");
	put(&text, name);
	put(&text, ": forbidden system call ");
	put_call_name(&text, call);
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
	syscall(SYS_exit_group, violation_status);
}

void sandbox_on_violation(void (*fn)(void))
{
	violation_hook = fn;
}

void sandbox_end_with(int status)
{
	violation_status = status;
}

void sandbox_allow_rewriting(int fd)
{
	rewritable = fd;
}

void sandbox_allow_vmcore(int fd)
{
	vmcore = fd;
}

void sandbox_allow_control(void)
{
	control = true;
}

void sandbox_allow_gdb(void)
{
	gdb = true;
}

/* ---- preparing ---- */

/* All of them but those to be kept, which must be there to be: effective, permitted, inheritable
 * and with these the ambient ones; no_new_privs keeps an execve(2), which the filters forbid
 * anyway, from giving any back. */
static int drop_capabilities(u64 keep)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = { 0 };

	if (keep && syscall(SYS_capget, &header, sets))
		return -errno;
	for (u32 i = 0; i < ARRAY_SIZE(sets); i++) {
		sets[i].permitted &= (u32)(keep >> 32 * i);
		sets[i].effective = sets[i].permitted;
		sets[i].inheritable = 0;
	}
	return syscall(SYS_capset, &header, sets) ? -errno : 0;
}

/* Puts what this process is in the place of the number that stood for it. False if it stood
 * nowhere. */
static bool settle(struct sock_fprog *program, u32 stands, u32 value)
{
	bool found = false;

	for (u32 i = 0; i < program->len; i++) {
		struct sock_filter *step = &program->filter[i];

		if (step->code == (BPF_JMP | BPF_JEQ | BPF_K) && step->k == stands) {
			step->k = value;
			found = true;
		}
	}
	return found;
}

static bool settle_all(void)
{
	u32 pid = (u32)getpid();
	bool found = settle(&programs[SANDBOX_MAIN], SANDBOX_REWRITABLE, (u32)rewritable);

	found &= settle(&programs[SANDBOX_CONTROL], SANDBOX_REWRITABLE, (u32)rewritable);
	found &= settle(&programs[SANDBOX_MAIN], SANDBOX_VMCORE, (u32)vmcore);
	found &= settle(&programs[SANDBOX_CONTROL], SANDBOX_VMCORE, (u32)vmcore);
	for (u32 kind = 0; kind < SANDBOX_PROGRAMS; kind++)
		found &= settle(&programs[kind], SANDBOX_PID, pid);
	for (u32 kind = 0; gdb && kind < SANDBOX_PROGRAMS; kind++)
		settle(&programs[kind], SANDBOX_GUEST_DEBUG, KVM_SET_GUEST_DEBUG);
	return found;
}

static int prepare(u64 keep)
{
	const struct sigaction action = { .sa_sigaction = on_sigsys,
					  .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK };
	const char *what;
	int error;

	what = "capabilities cannot be dropped";
	error = drop_capabilities(keep);
	if (error)
		goto fail;
	what = "prctl";
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		goto fail_errno;
	/* With an arena per thread free() opens /proc/sys/vm/overcommit_memory. */
	mallopt(M_ARENA_MAX, 1);
	what = "SIGSYS cannot be handled";
	if (sigaction(SIGSYS, &action, NULL))
		goto fail_errno;
	what = "the system call filters are not whole; build vmm anew";
	error = -EINVAL;
	if (!settle_all())
		goto fail;
	prepared = true;
	return 0;
fail_errno:
	error = -errno;
fail:
	log_line("sandbox: %s: %s; --no-sandbox runs without", what, strerror(-error));
	return error;
}

int sandbox_prepare(void)
{
	return prepare(0);
}

int sandbox_share_prepare(u64 keep)
{
	return prepare(keep);
}

static int enter_whole(u32 program, const char *whose)
{
	int error;

	if (!syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC,
		     &programs[program]))
		return 0;
	error = -errno;
	log_line("sandbox: a %s cannot close its filter: %s; --no-sandbox runs without", whose,
		 strerror(-error));
	return error;
}

int sandbox_share_enter(void)
{
	return enter_whole(SANDBOX_SHARE, "share's server");
}

int sandbox_caller_enter(void)
{
	return enter_whole(SANDBOX_CALLER, "vsock's process");
}

int sandbox_enter(enum sandbox_thread kind)
{
	u32 program = kind == SANDBOX_MAIN && control ? SANDBOX_CONTROL : kind;
	int error;

	if (!prepared)
		return 0;
	if (!syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &programs[program]))
		return 0;
	error = -errno;
	if (violation_hook)
		violation_hook();
	log_line("sandbox: %s threads cannot close their filter: %s; --no-sandbox runs without",
		 kind_names[kind], strerror(-error));
	return error;
}
