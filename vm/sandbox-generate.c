/*
 * Run while vmm is built: the lists below, which are the whole of what the process may ask of the
 * host once the guest runs, become seccomp programs by libseccomp, printed as C
 * (sandbox-filters.h). So a start pays neither for the library nor for its work. vm/sandbox.c loads
 * the programs, one for each kind of thread.
 *
 * Files that are open stay usable; nothing opens a path, makes a socket, a process, a thread or a
 * ring, or maps executable memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <linux/vhost.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <asm/termbits.h>
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

#define C   BIT(SANDBOX_CONTROL)
#define M   (BIT(SANDBOX_MAIN) | C)
#define V   BIT(SANDBOX_VCPU)
#define R   BIT(SANDBOX_REACTOR)
#define W   BIT(SANDBOX_WORKER)
#define ALL (M | V | R | W)
#define S   BIT(SANDBOX_SHARE)
#define N   BIT(SANDBOX_CALLER)
#define ANY (ALL | S | N)

/* Who may make the call, and on what conditions, if any: (argument & mask) == value. */
struct rule {
	int call;
	u8 kinds;
	u8 conditions;
	struct scmp_arg_cmp condition[2];
};

/* clang-format off */
#define IF(argument, mask, value) { argument, SCMP_CMP_MASKED_EQ, mask, value }
#define CALL(name, kinds) { SCMP_SYS(name), kinds, 0, {} }
#define CALL_IF(name, kinds, argument, mask, value) \
	{ SCMP_SYS(name), kinds, 1, { IF(argument, mask, value) } }
#define CALL_IF2(name, kinds, argument1, mask1, value1, argument2, mask2, value2) \
	{ SCMP_SYS(name), kinds, 2, { IF(argument1, mask1, value1), IF(argument2, mask2, value2) } }
/* clang-format on */

/* An int or unsigned int: the kernel does not look at the upper half of the register. */
#define LOW 0xffffffffu

static const struct rule calls[] = {
	/* ---- living ---- */
	CALL(exit, ANY),
	CALL(exit_group, ANY),
	CALL(futex, ANY),
	CALL(sched_yield, ANY),
	CALL(restart_syscall, ANY),
	CALL(membarrier, ANY),
	CALL(rseq, ANY),
	CALL(set_robust_list, ANY),
	CALL(getpid, ANY),
	CALL(gettid, ANY),
	CALL(rt_sigreturn, ANY),
	CALL(rt_sigprocmask, ANY),
	CALL(sigaltstack, ANY),
	CALL(clock_gettime, ANY), /* these three come from the vDSO mostly */
	CALL(gettimeofday, ANY),
	CALL(time, ANY),
	CALL(clock_nanosleep, ANY),
	CALL(getrandom, ANY),
	CALL_IF(prctl, ANY, 0, LOW, PR_GET_NAME), /* to tell of a violation */
	/* ---- memory: never executable, never a file ---- */
	CALL(brk, ANY),
	CALL(madvise, ANY),
	CALL(munmap, ANY),
	CALL(mremap, ANY),
	CALL_IF2(mmap, ANY, 2, PROT_EXEC, 0, 3, MAP_ANONYMOUS, MAP_ANONYMOUS),
	CALL_IF(mprotect, ANY, 2, PROT_EXEC, 0),
	/* ---- open files ---- */
	CALL(read, ANY),
	CALL(write, ANY),
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
	CALL(fstat, M | R), /* which the C library writes in either way */
	CALL_IF(newfstatat, M | R, 3, LOW, AT_EMPTY_PATH),
	CALL(close, M | R),
	CALL(poll, ANY), /* whoever logs looks first whether there is room */
	CALL(ppoll, M | V | R),
	CALL_IF(fcntl, M, 1, LOW, F_GETFL),
	CALL_IF(fcntl, M, 1, LOW, F_SETFL),
	CALL_IF(fcntl, M, 1, LOW, F_DUPFD_CLOEXEC),
	CALL(timerfd_settime, M | R),
	CALL(alarm, M),
	CALL(setitimer, M),
	/* ---- clients of named ports: of sockets that listen already ---- */
	CALL(accept4, M),
	CALL(shutdown, M),
	/* ---- a vsock's clients, and sockets that its own process has connected for it ---- */
	CALL(accept4, R),
	CALL(shutdown, R),
	CALL(recvmsg, R),
	CALL_IF(recvfrom, R, 3, LOW, MSG_PEEK | MSG_TRUNC), /* how long is a message? */
	CALL_IF(socket, N, 0, LOW, AF_UNIX),
	CALL(connect, N),
	CALL(sendmsg, N),
	CALL(close, N),
	/* ---- a control socket: no path is looked up for it, and what it sends is open ---- */
	CALL(recvmsg, C),
	CALL(sendmsg, C),
	CALL(eventfd2, C),  /* doorbells and vectors of a new device */
	CALL(ftruncate, C), /* an image's new size */
	CALL_IF(fcntl, C, 1, LOW, F_OFD_SETLK),
	CALL_IF(fcntl, C, 1, LOW, F_OFD_GETLK),
	/* ---- the server of a shared folder. A name is looked up by openat2, with conditions that
	   no filter sees; openat is for /proc/self/fd, where it stands ---- */
	CALL(openat2, S),
	CALL_IF(openat, S, 0, LOW, (u32)AT_FDCWD),
	CALL(close, S),
	CALL(pread64, S),
	CALL(pwrite64, S),
	CALL(sendmsg, S), /* files, to the machine */
	CALL(getdents64, S),
	CALL(lseek, S),
	CALL(fstat, S),
	CALL(newfstatat, S),
	CALL(fstatfs, S),
	CALL(fsync, S),
	CALL(fdatasync, S),
	CALL(dup, S),
	CALL_IF(fcntl, S, 1, LOW, F_DUPFD_CLOEXEC),
	CALL_IF(fcntl, S, 1, LOW, F_GETFL),
	CALL_IF(fcntl, S, 1, LOW, F_SETFL),
	CALL_IF(fcntl, S, 1, LOW, F_OFD_SETLK),
	CALL_IF(fcntl, S, 1, LOW, F_OFD_GETLK),
	CALL(readlinkat, S),
	CALL(getxattr, S),
	CALL(listxattr, S),
	CALL(setxattr, S),
	CALL(removexattr, S),
	CALL(mknodat, S),
	CALL(mkdirat, S),
	CALL(symlinkat, S),
	CALL(linkat, S),
	CALL(unlinkat, S),
	CALL(renameat, S),
	CALL(fchmodat, S),
	CALL(fchownat, S),
	CALL(utimensat, S),
	CALL(truncate, S),
	CALL(ftruncate, S),
	CALL(shutdown, M), /* its end */
	CALL(wait4, M),
	/* ---- vCPUs are called out of the guest by a signal ---- */
	CALL(rt_sigtimedwait, M | V),
	/* ---- a reactor's waiting ---- */
	CALL(getrusage, R | M), /* did it sleep? what did it all take? */
	CALL(io_uring_enter, R),
	CALL_IF(io_uring_register, R, 1, LOW, IORING_REGISTER_FILES_UPDATE),
	CALL_IF(io_uring_register, R, 1, LOW, IORING_UNREGISTER_RING_FDS),
	CALL_IF(io_uring_register, R, 1, LOW, IORING_UNREGISTER_FILES),
	CALL(epoll_wait, R),
	CALL(epoll_pwait, R),
	CALL(epoll_ctl, R),
	/* One file only: what main may cut short must not be a disk image. */
	CALL_IF(pwrite64, M, 0, LOW, SANDBOX_REWRITABLE),
	CALL_IF(ftruncate, M, 0, LOW, SANDBOX_REWRITABLE),
	CALL_IF(pwrite64, M, 0, LOW, SANDBOX_VMCORE),
	/* A thread may signal its own process only: raise(), abort(), calling vCPUs out of the
	   guest. */
	CALL_IF(tgkill, ANY, 0, LOW, SANDBOX_PID),
#ifdef SANITIZED
	/* What the sanitizers' run time calls: to know its stacks, and to end. */
	CALL(sched_getaffinity, ANY),
	CALL(getppid, ANY),
	CALL_IF(mmap, ANY, 2, PROT_EXEC, 0),
#endif
};

/* ioctl(2) requests. */
static const struct {
	unsigned int request;
	u8 kinds;
} ioctls[] = {
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
	{ KVM_CHECK_EXTENSION, M }, /* how many interrupts there can be */
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
	/* a debugger's, if there is to be one */
	{ SANDBOX_GUEST_DEBUG, M | V },
	/* a tap's offloads and queues, as a driver negotiates them */
	{ TUNSETOFFLOAD, M | V | R },
	{ TUNSETVNETHDRSZ, M | V | R },
	{ TUNSETQUEUE, M | V | R },
	{ TUNGETIFF, R },
	/* vhost-net's rings: placed by reactors, started and stopped as a driver goes about them */
	{ VHOST_SET_FEATURES, V | R },
	{ VHOST_SET_VRING_NUM, R },
	{ VHOST_SET_VRING_ADDR, R },
	{ VHOST_SET_VRING_KICK, R },
	{ VHOST_SET_VRING_BASE, V | R },
	{ VHOST_GET_VRING_BASE, V | R },
	{ VHOST_SET_VRING_CALL, M | V | R },
	{ VHOST_SET_VRING_BUSYLOOP_TIMEOUT, V | R },
	{ VHOST_NET_SET_BACKEND, V | R },
	{ VHOST_VSOCK_SET_RUNNING, M | V | R },
	{ TUNGETIFF, C }, /* is what was sent one? */
	/* and vhost-net's */
	{ VHOST_GET_FEATURES, C },
	{ VHOST_SET_OWNER, C },
	{ VHOST_VSOCK_SET_GUEST_CID, C },
	{ VHOST_SET_MEM_TABLE, C },
	{ VHOST_SET_VRING_ERR, C },
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

static int add_rules(scmp_filter_ctx filter, unsigned int kind)
{
	int error = 0;

	for (size_t i = 0; i < ARRAY_SIZE(calls) && !error; i++)
		if (calls[i].kinds & BIT(kind))
			error = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, calls[i].call,
						       calls[i].conditions, calls[i].condition);
	for (size_t i = 0; i < ARRAY_SIZE(ioctls) && !error; i++)
		if (ioctls[i].kinds & BIT(kind))
			error = seccomp_rule_add(
				filter, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
				SCMP_A1(SCMP_CMP_MASKED_EQ, LOW, ioctls[i].request));
	return error;
}

static scmp_filter_ctx build(unsigned int kind, int *error)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_TRAP);

	*error = filter ? 0 : -ENOMEM;
	if (!*error)
		*error = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (!*error)
		*error = add_rules(filter, kind);
	if (!*error)
		*error = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a binary tree */
	return filter;
}

/* libseccomp (before 2.6) exports a program to a file only. */
static int print_program(unsigned int kind)
{
	struct sock_filter step;
	scmp_filter_ctx filter;
	FILE *file = tmpfile();
	int error;

	if (!file)
		return -errno;
	filter = build(kind, &error);
	if (!error)
		error = seccomp_export_bpf(filter, fileno(file));
	rewind(file);
	printf("static struct sock_filter program_%u[] = {\n", kind);
	while (!error && fread(&step, sizeof(step), 1, file) == 1)
		printf("\t{ 0x%02x, %u, %u, 0x%08x },\n", step.code, step.jt, step.jf, step.k);
	printf("};\n\n");
	seccomp_release(filter);
	fclose(file);
	return error;
}

static u32 bits, bit_count;

static void print_code(u32 code)
{
	bits |= code << bit_count;
	for (bit_count += CALL_NAME_BITS; bit_count >= 8; bit_count -= 8, bits >>= 8)
		printf("%u,", bits & 0xff);
}

/* For the signal handler, which tells of a forbidden call by its name: one after the other, packed.
 */
static void print_names(void)
{
	printf("static const u8 call_names[] = {\n");
	for (int call = 0; call < CALL_NAMES; call++) {
		char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, call);

		for (const char *c = name ? name : ""; *c; c++)
			if (*c >= '0' && *c <= '9') {
				print_code(CALL_NAME_DIGIT);
				print_code((u32)(*c - '0'));
			} else {
				print_code(*c == '_' ? CALL_NAME_LINE : (u32)(*c - 'a') + 1);
			}
		print_code(0);
		printf("\n");
		free(name);
	}
	/* what is left, and a byte more, as two are read at a time */
	printf("%u, 0 };\n", bits);
}

int main(void)
{
	for (unsigned int kind = 0; kind < SANDBOX_PROGRAMS; kind++) {
		int error = print_program(kind);

		if (error) {
			fprintf(stderr, "sandbox: filter %u: %s\n", kind, strerror(-error));
			return 1;
		}
	}
	print_names();
	return fflush(stdout) || ferror(stdout);
}
