/*
 * start-count COMMAND...: what a virtual machine monitor does from exec to the first entry into the
 * guest (the first KVM_RUN of any of its threads), counted by ptrace(2): system calls and page
 * faults of all threads. Prints `calls N faults N`, with START_COUNT_LIST set also each call, and
 * kills it.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define OPTIONS \
	(PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL)

/* Of the whole process: minor and major ones, proc(5). */
static unsigned long faults(pid_t pid)
{
	char path[64], line[1024], *at;
	unsigned long minor = 0, major = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "r");
	if (file && fgets(line, sizeof(line), file) && (at = strrchr(line, ')')))
		sscanf(at, ") %*c %*d %*d %*d %*d %*d %*u %lu %*u %lu", &minor, &major);
	if (file)
		fclose(file);
	return minor + major;
}

static void list(unsigned long long *args, unsigned long long number)
{
	if (getenv("START_COUNT_LIST"))
		printf("%llu %llx %llx %llx\n", number, args[0], args[1], args[2]);
}

int main(int argc, char **argv)
{
	unsigned long calls = 1, before = 0; /* the execve(2) itself */
	int status, running = 0;
	pid_t pid = fork();

	if (argc < 2 || pid < 0)
		return 2;
	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		execvp(argv[1], argv + 1);
		_exit(127);
	}
	waitpid(pid, &status, 0);
	ptrace(PTRACE_SETOPTIONS, pid, NULL, OPTIONS);
	ptrace(PTRACE_SYSCALL, pid, NULL, 0);
	for (;;) {
		pid_t thread = waitpid(-1, &status, __WALL);
		long signal = 0;

		if (thread < 0 || (thread == pid && !WIFSTOPPED(status))) {
			fprintf(stderr, "it ended before it entered a guest\n");
			return 1;
		}
		if (!WIFSTOPPED(status))
			continue;
		if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
			struct __ptrace_syscall_info info;

			ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof(info), &info);
			if (running && info.op == PTRACE_SYSCALL_INFO_ENTRY) {
				list((unsigned long long *)info.entry.args, info.entry.nr);
				if (info.entry.nr == SYS_ioctl && info.entry.args[1] == KVM_RUN)
					break;
				calls++;
			}
		} else if (status >> 8 == (SIGTRAP | PTRACE_EVENT_EXEC << 8)) {
			/* a shell that became it does not count */
			running = 1;
			calls = 1;
			before = faults(pid);
		} else if (WSTOPSIG(status) != SIGTRAP && WSTOPSIG(status) != SIGSTOP) {
			signal = WSTOPSIG(status);
		}
		ptrace(PTRACE_SYSCALL, thread, NULL, signal);
	}
	printf("calls %lu faults %lu\n", calls, faults(pid) - before);
	kill(pid, SIGKILL);
	return 0;
}
