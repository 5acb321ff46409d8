/*
 * Runs a VMM and measures it from outside while its guest measures from inside.
 *
 *   watch [-k WORDS] [-f TEXT] [-e] [-c] [-p] [-m MIB] [-a PID] [-t SECONDS] COMMAND...
 *
 * The guest says on the console `READY [key=value...]`, waits, works, says `RESULT key=value...`,
 * waits. For each such section a line of key=value pairs is printed: WORDS, what the guest said,
 * and
 *
 *   wall_us            of the section
 *   cpu_ns             CPU of the VMM's threads, without those of virtual CPUs; a share's server,
 * vhost's workers included vcpu_ns            CPU of the threads of virtual CPUs outside the guest,
 * as the kernel's ticks have it others_pct         CPU that neither the VMM nor `-a` processes
 * used, in percent of one CPU calls, exits, user_exits   (-c) system calls of all the VMM's
 * threads; exits from the guest; those that reached user space dirty_kib          (-m) private
 * dirty memory, without the guest's MIB of RAM
 *
 * `DONE` on the console ends it all.
 *
 * -f: a line `FIRST us=N faults=N` when the console first shows TEXT: since just before exec; -e:
 * then the end. -p: virtual CPUs stay on the first CPU, all other threads on the last. A last line
 * `END status=N us=N faults=N`.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 512
#define AUX_MAX	    8

enum counted { CALLS, EXITS, USER_EXITS, COUNTED };

static const char *const tracepoints[COUNTED] = { "raw_syscalls/sys_enter", "kvm/kvm_exit",
						  "kvm/kvm_userspace_exit" };
static const char *const counted_names[COUNTED] = { "calls", "exits", "user_exits" };

struct sample {
	uint64_t at_ns, cpu_ns, vcpu_total_ns, vcpu_out_ns, busy_ns, stolen_ns, aux_ns;
};

static const char *words = "", *first_text;
static bool end_after_first, counting, pinning;
static uint64_t ram_kib;
static int aux[AUX_MAX], aux_count;
static pid_t child;
static uint64_t born_ns;
static int events[COUNTED][THREADS_MAX], event_count;
static struct sample before;
static char ready_words[1024], measured[1024];

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* A small file's text, NUL behind it; its length, or 0. */
static size_t slurp(const char *path, char *to, size_t room)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, to, room - 1);

	if (fd >= 0)
		close(fd);
	to[n > 0 ? n : 0] = 0;
	return n > 0 ? (size_t)n : 0;
}

static uint64_t tick_ns(void)
{
	return 1000000000 / (uint64_t)sysconf(_SC_CLK_TCK);
}

/* ---- threads ---- */

/* Calls f for each thread of a process. */
static void each_thread(pid_t pid, void (*f)(pid_t pid, pid_t tid, void *arg), void *arg)
{
	char path[64];
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	d = opendir(path);
	while (d && (e = readdir(d)))
		if (isdigit(e->d_name[0]))
			f(pid, atoi(e->d_name), arg);
	if (d)
		closedir(d);
}

/* The same for the VMM's threads and those of its processes: a share's server is one. */
static void each_of_vmm(void (*f)(pid_t pid, pid_t tid, void *arg), void *arg)
{
	char path[64], text[256], *at = text, *end;

	each_thread(child, f, arg);
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", child, child);
	slurp(path, text, sizeof(text));
	for (pid_t pid; (pid = (pid_t)strtol(at, &end, 10)) > 0; at = end)
		each_thread(pid, f, arg);
}

static bool is_vcpu(pid_t pid, pid_t tid)
{
	char path[64], name[32];

	snprintf(path, sizeof(path), "/proc/%d/task/%d/comm", pid, tid);
	slurp(path, name, sizeof(name));
	return !strncmp(name, "vcpu", 4) || !strncmp(name, "CPU ", 4) ||
	       !strncmp(name, "kvm-vcpu", 8);
}

static uint64_t thread_cpu_ns(pid_t pid, pid_t tid)
{
	char path[64], text[128];

	snprintf(path, sizeof(path), "/proc/%d/task/%d/schedstat", pid, tid);
	return slurp(path, text, sizeof(text)) ? strtoull(text, NULL, 10) : 0;
}

/* Fields 14, 15 and 43 of proc(5)'s stat: user (the guest's in it) and system time, the guest's. */
static uint64_t thread_outside_ns(pid_t pid, pid_t tid)
{
	uint64_t user = 0, system = 0, guest = 0;
	char path[64], text[1024], *at;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, tid);
	if (!slurp(path, text, sizeof(text)) || !(at = strrchr(text, ')')))
		return 0;
	at = strtok(at + 1, " ");
	for (int field = 3; at; field++, at = strtok(NULL, " ")) {
		uint64_t v = strtoull(at, NULL, 10);

		user = field == 14 ? v : user;
		system = field == 15 ? v : system;
		guest = field == 43 ? v : guest;
	}
	return user + system > guest ? (user + system - guest) * tick_ns() : 0;
}

static void add_thread(pid_t pid, pid_t tid, void *arg)
{
	struct sample *s = arg;

	if (is_vcpu(pid, tid)) {
		s->vcpu_total_ns += thread_cpu_ns(pid, tid);
		s->vcpu_out_ns += thread_outside_ns(pid, tid);
	} else {
		s->cpu_ns += thread_cpu_ns(pid, tid);
	}
}

static void add_aux(pid_t pid, pid_t tid, void *arg)
{
	*(uint64_t *)arg += thread_cpu_ns(pid, tid);
}

/* Before Linux 6.4 vhost's workers are kernel threads named after their owner. */
static void add_vhost(struct sample *s)
{
	char wanted[32], path[64], name[32];
	DIR *d = opendir("/proc");
	struct dirent *e;

	snprintf(wanted, sizeof(wanted), "vhost-%d\n", child);
	while (d && (e = readdir(d))) {
		if (!isdigit(e->d_name[0]))
			continue;
		snprintf(path, sizeof(path), "/proc/%.20s/comm", e->d_name);
		slurp(path, name, sizeof(name));
		if (!strcmp(name, wanted))
			s->cpu_ns += thread_cpu_ns(atoi(e->d_name), atoi(e->d_name));
	}
	if (d)
		closedir(d);
}

/* What all CPUs of this machine did, and what its own host took from it. */
static void add_machine(struct sample *s)
{
	unsigned long long v[8] = { 0 };
	char text[256];

	slurp("/proc/stat", text, sizeof(text));
	sscanf(text, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &v[0], &v[1], &v[2], &v[3],
	       &v[4], &v[5], &v[6], &v[7]);
	s->busy_ns = (v[0] + v[1] + v[2] + v[5] + v[6]) * tick_ns();
	s->stolen_ns = v[7] * tick_ns();
}

static struct sample look(void)
{
	struct sample s = { .at_ns = now_ns() };

	add_machine(&s);
	each_of_vmm(add_thread, &s);
	add_vhost(&s);
	each_thread(getpid(), add_aux, &s.aux_ns);
	for (int i = 0; i < aux_count; i++)
		each_thread(aux[i], add_aux, &s.aux_ns);
	return s;
}

static void pin(pid_t pid, pid_t tid, void *arg)
{
	long last = sysconf(_SC_NPROCESSORS_ONLN) - 1;
	cpu_set_t set;

	(void)arg;
	CPU_ZERO(&set);
	CPU_SET(is_vcpu(pid, tid) ? 0 : (size_t)last, &set);
	sched_setaffinity(tid, sizeof(set), &set);
}

/* ---- tracepoints ---- */

static int tracepoint_id(const char *name)
{
	static const char *const roots[] = { "/sys/kernel/tracing/events",
					     "/sys/kernel/debug/tracing/events" };
	char path[128], text[32];

	for (size_t i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s/id", roots[i], name);
		if (slurp(path, text, sizeof(text)))
			return atoi(text);
	}
	return -1;
}

static void count_thread(pid_t pid, pid_t tid, void *arg)
{
	(void)pid;
	(void)arg;
	if (event_count == THREADS_MAX)
		return;
	for (int i = 0; i < COUNTED; i++) {
		int id = tracepoint_id(tracepoints[i]);
		struct perf_event_attr attr = { .type = PERF_TYPE_TRACEPOINT,
						.size = sizeof(attr),
						.config = (uint64_t)id,
						.inherit = 1 };

		events[i][event_count] = id < 0 ? -1
						: (int)syscall(SYS_perf_event_open, &attr, tid, -1,
							       -1, PERF_FLAG_FD_CLOEXEC);
	}
	event_count++;
}

static void read_counts(char *to, size_t room)
{
	size_t length = 0;

	for (int i = 0; i < COUNTED; i++) {
		uint64_t sum = 0, n;
		bool any = false;

		for (int t = 0; t < event_count; t++) {
			if (events[i][t] < 0)
				continue;
			if (read(events[i][t], &n, sizeof(n)) == sizeof(n)) {
				sum += n;
				any = true;
			}
			close(events[i][t]);
		}
		if (any)
			length += (size_t)snprintf(to + length, room - length, " %s=%llu",
						   counted_names[i], (unsigned long long)sum);
	}
	event_count = 0;
}

/* ---- memory ---- */

/* Private dirty pages of everything but the guest's RAM: mappings that are not as large as it. A
 * VMM may keep it in two pieces around the hole below 4 GiB: only guests below that are asked for
 * here. */
static long dirty_kib(void)
{
	char path[64], line[512];
	unsigned long long from, to, kib;
	bool ram = false;
	long sum = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps", child);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%llx-%llx ", &from, &to) == 2 && strchr(line, '-'))
			ram = (to - from) / 1024 >= ram_kib;
		else if (!ram && sscanf(line, "Private_Dirty: %llu kB", &kib) == 1)
			sum += (long)kib;
	}
	if (f)
		fclose(f);
	return sum;
}

/* ---- the console ---- */

/* NOPs between which a plugin of the emulation counts (layouts-count.c). */
#define MARK(n) __asm__ volatile(".byte 0x0f, 0x1f, 0x80, " #n ", 0x00, 0x79, 0x6c")

static void print_first(void)
{
	struct rusage u;
	char path[64], text[1024], *at;
	unsigned long long minor = 0, major = 0;

	MARK(3);
	getrusage(RUSAGE_CHILDREN, &u);
	snprintf(path, sizeof(path), "/proc/%d/stat", child);
	if (slurp(path, text, sizeof(text)) && (at = strrchr(text, ')')))
		sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %llu %*u %llu", &minor, &major);
	printf("%s FIRST us=%llu faults=%llu", words,
	       (unsigned long long)(now_ns() - born_ns) / 1000, minor + major);
	if (ram_kib)
		printf(" dirty_kib=%ld", dirty_kib());
	putchar('\n');
	if (end_after_first)
		kill(child, SIGKILL);
}

static void begin_section(const char *said)
{
	snprintf(ready_words, sizeof(ready_words), "%s", said);
	if (pinning)
		each_of_vmm(pin, NULL);
	if (counting)
		each_of_vmm(count_thread, NULL);
	before = look();
}

static uint64_t less(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

static void end_section(void)
{
	struct sample after = look();
	uint64_t wall = after.at_ns - before.at_ns, all = less(after.busy_ns, before.busy_ns), ours;
	size_t n;

	if (!before.at_ns)
		return;
	ours = after.cpu_ns - before.cpu_ns + (after.vcpu_total_ns - before.vcpu_total_ns) +
	       (after.aux_ns - before.aux_ns);
	n = (size_t)snprintf(
		measured, sizeof(measured),
		" wall_us=%llu cpu_ns=%llu vcpu_ns=%llu others_pct=%llu stolen_pct=%llu",
		(unsigned long long)wall / 1000,
		(unsigned long long)less(after.cpu_ns, before.cpu_ns),
		(unsigned long long)less(after.vcpu_out_ns, before.vcpu_out_ns),
		(unsigned long long)(less(all, ours) * 100 / wall),
		(unsigned long long)(less(after.stolen_ns, before.stolen_ns) * 100 / wall));
	if (ram_kib)
		n += (size_t)snprintf(measured + n, sizeof(measured) - n, " dirty_kib=%ld",
				      dirty_kib());
	if (counting)
		read_counts(measured + n, sizeof(measured) - n);
	before.at_ns = 0;
}

static void see_line(char *line)
{
	size_t n = strcspn(line, "\r\n");

	line[n] = 0;
	if (first_text && strstr(line, first_text)) {
		print_first();
		first_text = NULL;
	}
	if (!strncmp(line, "READY", 5)) {
		begin_section(line + 5);
	} else if (!strcmp(line, "#")) {
		end_section();
	} else if (!strncmp(line, "RESULT", 6)) {
		end_section();
		printf("%s%s%s%s\n", words, ready_words, line + 6, measured);
		measured[0] = 0;
	} else if (!strcmp(line, "DONE")) {
		kill(child, SIGKILL);
	} else if (strstr(line, "ERROR")) {
		fprintf(stderr, "watch: %s: %s\n", words, line);
	}
	fflush(stdout);
}

static void usage(void)
{
	fprintf(stderr, "usage: watch [-k WORDS] [-f TEXT] [-e] [-c] [-p] [-m MIB] [-a PID] [-t "
			"SECONDS] COMMAND...\n");
	exit(2);
}

int main(int argc, char **argv)
{
	int out[2], in[2], option, status, seconds = 60;
	struct rusage usage_at_end;
	size_t used = 0;
	static char text[65536];
	uint64_t deadline;
	ssize_t n;

	while ((option = getopt(argc, argv, "+k:f:ecpm:a:t:")) != -1) {
		switch (option) {
		case 'k':
			words = optarg;
			break;
		case 'f':
			first_text = optarg;
			break;
		case 'e':
			end_after_first = true;
			break;
		case 'c':
			counting = true;
			break;
		case 'p':
			pinning = true;
			break;
		case 'm':
			ram_kib = strtoull(optarg, NULL, 10) * 1024;
			break;
		case 'a':
			if (aux_count < AUX_MAX)
				aux[aux_count++] = atoi(optarg);
			break;
		case 't':
			seconds = atoi(optarg);
			break;
		default:
			usage();
		}
	}
	/* whoever started this and is gone wants no result */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!argv[optind] || pipe2(out, O_CLOEXEC) || pipe2(in, O_CLOEXEC))
		usage();
	born_ns = now_ns();
	deadline = born_ns + (uint64_t)seconds * 1000000000;
	child = fork();
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(in[0], 0); /* open and silent: nobody types */
		dup2(out[1], 1);
		MARK(1);
		execvp(argv[optind], argv + optind);
		fprintf(stderr, "watch: %s: %s\n", argv[optind], strerror(errno));
		_exit(127);
	}
	close(out[1]);
	close(in[0]);
	for (;;) {
		struct pollfd p = { .fd = out[0], .events = POLLIN };
		char *line = text, *end;

		if (now_ns() > deadline) {
			fprintf(stderr, "watch: %s: no end within %d s\n", words, seconds);
			kill(child, SIGKILL);
			break;
		}
		if (poll(&p, 1, 200) <= 0)
			continue;
		n = read(out[0], text + used, sizeof(text) - 1 - used);
		if (n <= 0)
			break;
		used += (size_t)n;
		text[used] = 0;
		while ((end = memchr(line, '\n', used - (size_t)(line - text)))) {
			*end = 0;
			see_line(line);
			line = end + 1;
		}
		used -= (size_t)(line - text);
		memmove(text, line, used);
		if (used == sizeof(text) - 1)
			used = 0;
	}
	if (wait4(child, &status, 0, &usage_at_end) < 0)
		return 1;
	printf("%s END status=%d us=%llu faults=%ld\n", words,
	       WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
	       (unsigned long long)(now_ns() - born_ns) / 1000,
	       usage_at_end.ru_minflt + usage_at_end.ru_majflt);
	return 0;
}
