/*
 * The sandbox from inside: each case runs in a child of its own, which enters it and does one
 * thing; the parent looks at the status and at what was said.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <linux/securebits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include "vm/end.h"
#include "vm/sandbox.h"

#define FINE 42

static char said[4096];

/* Runs fn in a sandboxed child; what it wrote to stderr is in `said`. Its wait status. */
static int child(enum sandbox_thread kind, void (*fn)(void))
{
	int out[2], status;
	size_t length = 0;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe(out), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		dup2(out[1], STDERR_FILENO);
		close(out[0]);
		if (sandbox_prepare() || sandbox_enter(kind))
			_exit(99);
		fn();
		_exit(FINE);
	}
	close(out[1]);
	while ((n = read(out[0], said + length, sizeof(said) - 1 - length)) > 0)
		length += (size_t)n;
	said[length] = '\0';
	close(out[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void assert_fine(enum sandbox_thread kind, void (*fn)(void))
{
	int status = child(kind, fn);

	if (!WIFEXITED(status) || WEXITSTATUS(status) != FINE)
		fail_msg("kind %d: status 0x%x: %s", kind, status, said);
}

static void assert_forbidden(enum sandbox_thread kind, void (*fn)(void), const char *name)
{
	int status = child(kind, fn);
	char line[128];

	snprintf(line, sizeof(line), "forbidden system call %s (", name);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != STATUS_HOST_ERROR || !strstr(said, line))
		fail_msg("kind %d, %s: status 0x%x: %s", kind, name, status, said);
	assert_non_null(strstr(said, "vmm: sandbox: thread "));
}

static void assert_forbidden_to_all(void (*fn)(void), const char *name)
{
	for (int kind = 0; kind < SANDBOX_THREADS; kind++)
		assert_forbidden((enum sandbox_thread)kind, fn, name);
}

static void assert_fine_for_all(void (*fn)(void))
{
	for (int kind = 0; kind < SANDBOX_THREADS; kind++)
		assert_fine((enum sandbox_thread)kind, fn);
}

/* Raw calls: what a hijacked thread would do. */

static void do_open(void)
{
	syscall(SYS_open, "/etc/passwd", O_RDONLY);
}

static void do_openat(void)
{
	syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY);
}

static void do_openat2(void)
{
	syscall(SYS_openat2, AT_FDCWD, "/etc/passwd", NULL, 0);
}

static void do_creat(void)
{
	syscall(SYS_creat, "/tmp/x", 0600);
}

static void do_socket(void)
{
	syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
}

static void do_connect(void)
{
	syscall(SYS_connect, 0, NULL, 0);
}

static void do_execve(void)
{
	syscall(SYS_execve, "/bin/sh", NULL, NULL);
}

static void do_fork(void)
{
	syscall(SYS_fork);
}

static void do_clone(void)
{
	syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static void do_clone3(void)
{
	syscall(SYS_clone3, NULL, 0);
}

static void do_io_uring_setup(void)
{
	struct io_uring_params params = {};

	syscall(SYS_io_uring_setup, 4, &params);
}

static void do_ptrace(void)
{
	syscall(SYS_ptrace, PTRACE_TRACEME, 0, 0, 0);
}

static void do_process_vm_writev(void)
{
	syscall(SYS_process_vm_writev, getppid, NULL, 0, NULL, 0, 0);
}

static void do_kill(void)
{
	syscall(SYS_kill, 1, 0);
}

static void do_tgkill_other(void)
{
	syscall(SYS_tgkill, 1, 1, 0);
}

static void do_seccomp(void)
{
	syscall(SYS_seccomp, 1, 0, NULL);
}

static void do_prctl(void)
{
	syscall(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static void do_bpf(void)
{
	syscall(SYS_bpf, 0, NULL, 0);
}

static void do_setuid(void)
{
	syscall(SYS_setuid, 0);
}

static void do_mount(void)
{
	syscall(SYS_mount, NULL, NULL, NULL, 0, NULL);
}

static void do_unlink(void)
{
	syscall(SYS_unlink, "/tmp/x");
}

static void do_ftruncate(void)
{
	syscall(SYS_ftruncate, 0, 0);
}

static void do_mmap_exec(void)
{
	syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void do_mprotect_exec(void)
{
	syscall(SYS_mprotect, 4096, 4096, PROT_READ | PROT_EXEC);
}

static void do_tiocsti(void)
{
	syscall(SYS_ioctl, 0, TIOCSTI, "x");
}

static void do_kvm_create_vm(void)
{
	syscall(SYS_ioctl, 0, KVM_CREATE_VM, 0);
}

static void do_set_user_memory(void)
{
	syscall(SYS_ioctl, 0, KVM_SET_USER_MEMORY_REGION, NULL);
}

static void do_tunsetiff(void)
{
	syscall(SYS_ioctl, 0, TUNSETIFF, NULL);
}

static void test_forbidden(void **state)
{
	(void)state;
	assert_forbidden_to_all(do_open, "open");
	assert_forbidden_to_all(do_openat, "openat");
	assert_forbidden_to_all(do_openat2, "openat2");
	assert_forbidden_to_all(do_creat, "creat");
	assert_forbidden_to_all(do_socket, "socket");
	assert_forbidden_to_all(do_connect, "connect");
	assert_forbidden_to_all(do_execve, "execve");
	assert_forbidden_to_all(do_fork, "fork");
	assert_forbidden_to_all(do_clone, "clone");
	assert_forbidden_to_all(do_clone3, "clone3");
	assert_forbidden_to_all(do_io_uring_setup, "io_uring_setup");
	assert_forbidden_to_all(do_ptrace, "ptrace");
	assert_forbidden_to_all(do_process_vm_writev, "process_vm_writev");
	assert_forbidden_to_all(do_kill, "kill");
	assert_forbidden_to_all(do_tgkill_other, "tgkill");
	assert_forbidden_to_all(do_seccomp, "seccomp");
	assert_forbidden_to_all(do_prctl, "prctl");
	assert_forbidden_to_all(do_bpf, "bpf");
	assert_forbidden_to_all(do_setuid, "setuid");
	assert_forbidden_to_all(do_mount, "mount");
	assert_forbidden_to_all(do_unlink, "unlink");
	assert_forbidden_to_all(do_ftruncate, "ftruncate");
	assert_forbidden_to_all(do_mmap_exec, "mmap");
	assert_forbidden_to_all(do_mprotect_exec, "mprotect");
	assert_forbidden_to_all(do_tiocsti, "ioctl");
	assert_forbidden_to_all(do_kvm_create_vm, "ioctl");
	assert_forbidden_to_all(do_set_user_memory, "ioctl");
	assert_forbidden_to_all(do_tunsetiff, "ioctl");
}

/* Calls that one kind of thread may make and others may not. */

static void do_kvm_run(void)
{
	if (syscall(SYS_ioctl, -1, KVM_RUN, 0) == 0 || errno != EBADF)
		_exit(1);
}

static void do_irqfd(void)
{
	if (syscall(SYS_ioctl, -1, KVM_IRQFD, NULL) == 0 || errno != EBADF)
		_exit(1);
}

static void do_tunsetoffload(void)
{
	if (syscall(SYS_ioctl, -1, TUNSETOFFLOAD, 0) == 0 || errno != EBADF)
		_exit(1);
}

static void do_io_uring_enter(void)
{
	if (syscall(SYS_io_uring_enter, -1, 0, 0, 0, NULL, 0) == 0 || errno != EBADF)
		_exit(1);
}

static void do_files_update(void)
{
	if (syscall(SYS_io_uring_register, -1, IORING_REGISTER_FILES_UPDATE, NULL, 0) >= 0)
		_exit(1);
}

static void do_register_buffers(void)
{
	syscall(SYS_io_uring_register, -1, IORING_REGISTER_BUFFERS, NULL, 0);
}

static void do_preadv2(void)
{
	char c;
	struct iovec iov = { &c, 1 };

	if (preadv2(-1, &iov, 1, 0, 0) == 0 || errno != EBADF)
		_exit(1);
}

static int stats_file;

static void do_rewrite(void)
{
	if (pwrite(stats_file, "x", 1, 0) != 1 || ftruncate(stats_file, 1))
		_exit(98);
}

static void do_pwrite_other(void)
{
	syscall(SYS_pwrite64, stats_file + 1, "x", 1, 0);
}

/* The one file that main may rewrite is no way to any other, nor for any other thread. */
static void test_rewriting(void **state)
{
	(void)state;
	stats_file = memfd_create("stats", MFD_CLOEXEC);
	assert_true(stats_file > 0);
	assert_forbidden(SANDBOX_MAIN, do_rewrite, "pwrite64");
	sandbox_allow_rewriting(stats_file);
	assert_fine(SANDBOX_MAIN, do_rewrite);
	assert_forbidden_to_all(do_ftruncate, "ftruncate");
	assert_forbidden(SANDBOX_MAIN, do_pwrite_other, "pwrite64");
	assert_forbidden(SANDBOX_VCPU, do_rewrite, "pwrite64");
	assert_forbidden(SANDBOX_REACTOR, do_rewrite, "ftruncate");
	sandbox_allow_rewriting(-1);
	close(stats_file);
}

static void do_guest_debug(void)
{
	if (syscall(SYS_ioctl, -1, KVM_SET_GUEST_DEBUG, NULL) == 0 || errno != EBADF)
		_exit(1);
}

/* Last: what is allowed stays so. */
static void test_gdb(void **state)
{
	(void)state;
	assert_forbidden_to_all(do_guest_debug, "ioctl");
	sandbox_allow_gdb();
	assert_fine(SANDBOX_MAIN, do_guest_debug);
	assert_fine(SANDBOX_VCPU, do_guest_debug);
	assert_forbidden(SANDBOX_REACTOR, do_guest_debug, "ioctl");
	assert_forbidden(SANDBOX_WORKER, do_guest_debug, "ioctl");
	assert_forbidden(SANDBOX_MAIN, do_kvm_create_vm, "ioctl");
}

static void test_by_kind(void **state)
{
	(void)state;
	assert_fine(SANDBOX_VCPU, do_kvm_run);
	assert_forbidden(SANDBOX_REACTOR, do_kvm_run, "ioctl");
	assert_forbidden(SANDBOX_WORKER, do_kvm_run, "ioctl");
	assert_forbidden(SANDBOX_MAIN, do_kvm_run, "ioctl");
	assert_fine(SANDBOX_VCPU, do_irqfd);
	assert_fine(SANDBOX_REACTOR, do_irqfd);
	assert_forbidden(SANDBOX_WORKER, do_irqfd, "ioctl");
	assert_fine(SANDBOX_VCPU, do_tunsetoffload);
	assert_forbidden(SANDBOX_WORKER, do_tunsetoffload, "ioctl");
	assert_fine(SANDBOX_REACTOR, do_io_uring_enter);
	assert_forbidden(SANDBOX_VCPU, do_io_uring_enter, "io_uring_enter");
	assert_forbidden(SANDBOX_WORKER, do_io_uring_enter, "io_uring_enter");
	assert_fine(SANDBOX_REACTOR, do_files_update);
	assert_forbidden(SANDBOX_REACTOR, do_register_buffers, "io_uring_register");
	assert_fine(SANDBOX_WORKER, do_preadv2);
	assert_fine(SANDBOX_REACTOR, do_preadv2);
	assert_forbidden(SANDBOX_VCPU, do_preadv2, "preadv2");
}

/* What the C library does in a thread's ordinary life. */

static void do_ordinary(void)
{
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
	struct timespec soon;
	void *volatile p;
	char text[64];

	for (size_t size = 16; size < 64 << 20; size *= 4) {
		p = malloc(size);
		if (!p || !(p = realloc(p, 2 * size)))
			_exit(1);
		memset(p, 1, 2 * size);
		free(p);
	}
	snprintf(text, sizeof(text), "%s %d", strerror(EIO), EIO);
	clock_gettime(CLOCK_REALTIME, &soon);
	soon.tv_nsec += 1000000;
	if (soon.tv_nsec >= 1000000000) {
		soon.tv_nsec -= 1000000000;
		soon.tv_sec++;
	}
	pthread_mutex_lock(&lock);
	pthread_cond_timedwait(&cond, &lock, &soon);
	pthread_mutex_unlock(&lock);
	usleep(1);
	if (write(STDERR_FILENO, "x", 1) != 1)
		_exit(1);
}

static void on_usr1(int n)
{
	(void)n;
}

static void do_raise(void)
{
	if (raise(0) || pthread_kill(pthread_self(), SIGUSR1))
		_exit(1);
}

/* Giving the terminal back, whichever thread ends the process. */
static void do_terminal(void)
{
	struct termios modes = {};
	pid_t group;

	ioctl(STDIN_FILENO, TIOCGPGRP, &group);
	tcgetattr(STDIN_FILENO, &modes);
	tcsetattr(-1, TCSANOW, &modes);
	tcsetattr(-1, TCSAFLUSH, &modes);
	isatty(STDERR_FILENO);
}

static void test_ordinary(void **state)
{
	(void)state;
	signal(SIGUSR1, on_usr1);
	assert_fine_for_all(do_ordinary);
	assert_fine_for_all(do_raise);
	assert_fine_for_all(do_terminal);
}

/* Threads made before, as vmm makes them: each closes its own filter, arenas and exit included. */

static void *thread_main(void *arg)
{
	void *volatile blocks[64];

	(void)arg;
	pthread_setname_np(pthread_self(), "reactor7");
	if (sandbox_enter(SANDBOX_REACTOR))
		_exit(1);
	for (int i = 0; i < 64; i++)
		memset(blocks[i] = malloc(100000), 1, 100000);
	for (int i = 0; i < 64; i++)
		free(blocks[i]);
	return NULL;
}

static void *thread_forbidden(void *arg)
{
	thread_main(arg);
	do_openat();
	return NULL;
}

static int threaded(void *(*run)(void *arg))
{
	int out[2], status;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe(out), 0);
	pid = fork();
	if (!pid) {
		pthread_t thread;

		dup2(out[1], STDERR_FILENO);
		if (sandbox_prepare() || pthread_create(&thread, NULL, run, NULL) ||
		    pthread_join(thread, NULL) || sandbox_enter(SANDBOX_MAIN))
			_exit(99);
		_exit(FINE);
	}
	close(out[1]);
	n = read(out[0], said, sizeof(said) - 1);
	said[n > 0 ? n : 0] = '\0';
	close(out[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void test_threads(void **state)
{
	int status;

	(void)state;
	status = threaded(thread_main);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != FINE)
		fail_msg("status 0x%x: %s", status, said);
	status = threaded(thread_forbidden);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), STATUS_HOST_ERROR);
	assert_non_null(strstr(said, "thread reactor7: forbidden system call openat (257"));
}

static void hook_says(void)
{
	if (write(STDERR_FILENO, "given back\n", 11) < 0)
		_exit(98);
}

static void hook_breaks_rules(void)
{
	do_socket();
}

static void test_hook(void **state)
{
	(void)state;
	sandbox_on_violation(hook_says);
	assert_forbidden(SANDBOX_VCPU, do_openat, "openat");
	assert_ptr_equal(strstr(said, "given back\n"), said);
	/* a hook that is itself forbidden something does not hide the line, nor loop */
	sandbox_on_violation(hook_breaks_rules);
	assert_forbidden(SANDBOX_VCPU, do_openat, "socket");
	sandbox_on_violation(NULL);
}

/* `vmm run` has a status of its own for what is ours. */
static void test_status(void **state)
{
	int status;

	(void)state;
	sandbox_end_with(120);
	status = child(SANDBOX_VCPU, do_openat);
	sandbox_end_with(STATUS_HOST_ERROR);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 120);
}

static void look_at_process(void)
{
	char line[256];
	FILE *file = fopen("/proc/self/status", "r");
	int seen = 0;

	while (file && fgets(line, sizeof(line), file)) {
		seen += !strcmp(line, "CapInh:\t0000000000000000\n");
		seen += !strcmp(line, "CapPrm:\t0000000000000000\n");
		seen += !strcmp(line, "CapEff:\t0000000000000000\n");
		seen += !strcmp(line, "CapAmb:\t0000000000000000\n");
		seen += !strcmp(line, "NoNewPrivs:\t1\n");
	}
	if (seen < 5 || prctl(PR_GET_DUMPABLE) != 0)
		_exit(1);
}

static void test_privileges(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	if (!pid) {
		/* /proc must be opened while we may */
		if (sandbox_prepare())
			_exit(99);
		look_at_process();
		if (capng_get_caps_process() ||
		    capng_have_capabilities(CAPNG_SELECT_CAPS) != CAPNG_NONE)
			_exit(2);
		_exit(FINE);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), FINE);
}

static void test_no_sandbox(void **state)
{
	int fd;

	(void)state;
	assert_int_equal(sandbox_enter(SANDBOX_VCPU), 0);
	fd = open("/dev/null", O_RDONLY);
	assert_true(fd >= 0);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_sandbox), cmocka_unit_test(test_privileges),
		cmocka_unit_test(test_ordinary),   cmocka_unit_test(test_rewriting),
		cmocka_unit_test(test_by_kind),	   cmocka_unit_test(test_forbidden),
		cmocka_unit_test(test_threads),	   cmocka_unit_test(test_hook),
		cmocka_unit_test(test_gdb),	   cmocka_unit_test(test_status),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
