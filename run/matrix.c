/*
 * Several kernels: a child process of ours for each, so many at a time, which leave their results
 * in memory that all share, and what they print in files without a name until they end. Main
 * thread, the only one here.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "run/report.h"
#include "run/run.h"
#include "vm/log.h"
#include "vm/milestones.h"

/* What a child has: files without a name. */
struct child {
	pid_t pid; /* 0: none */
	int out, err, report;
};

struct matrix {
	struct config *config;
	const struct run_files *files;
	struct run_result *results;
	struct child *children; /* one for each kernel */
	u32 count, next, running, done;
	int signals;	 /* signalfd */
	int interrupted; /* by this signal; 0: not */
	bool progress;	 /* there is somebody to show it to */
	sigset_t mask;	 /* before ours */
};

/* ---- a child ---- */

/* Each has its own: what one name would mix. */
static int number_file(char **path, u32 number)
{
	char *numbered;

	if (!*path || !strcmp(*path, "-"))
		return 0;
	if (asprintf(&numbered, "%s.%u", *path, number + 1) < 0)
		return -ENOMEM;
	free(*path);
	*path = numbered;
	return 0;
}

static int settle(struct matrix *matrix, struct child *child, u32 number)
{
	struct config *config = matrix->config;
	int none = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (none < 0 || dup2(none, STDIN_FILENO) < 0 || dup2(child->out, STDOUT_FILENO) < 0 ||
	    dup2(child->err, STDERR_FILENO) < 0)
		return -errno;
	free(config->kernel);
	config->kernel = strdup(config->run.kernels[number]);
	if (!config->kernel || number_file(&config->run.log, number) ||
	    number_file(&config->stats, number) || number_file(&config->vmcore, number) ||
	    number_file(&config->control, number))
		return -ENOMEM;
	return 0;
}

static void __attribute__((noreturn))
become_child(struct matrix *matrix, struct child *child, u32 number, pid_t parent)
{
	const struct run_files files = { child->report, -1, -1 };
	struct milestones milestones;
	int error;

	milestones_begin(&milestones);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(RUN_STATUS_ERROR);
	sigprocmask(SIG_SETMASK, &matrix->mask, NULL);
	error = settle(matrix, child, number);
	if (error) {
		log_line("start: %s", strerror(-error));
		_exit(RUN_STATUS_ERROR);
	}
	exit(run_job(matrix->config, &milestones, &matrix->results[number], &files));
}

/* ---- the parent ---- */

static int open_nameless(void)
{
	return memfd_create("vmm-run", MFD_CLOEXEC);
}

static int start(struct matrix *matrix, u32 number)
{
	struct child *child = &matrix->children[number];
	pid_t parent = getpid();

	child->out = open_nameless();
	child->err = open_nameless();
	child->report = open_nameless();
	child->pid = child->out < 0 || child->err < 0 || child->report < 0 ? -1 : fork();
	if (!child->pid)
		become_child(matrix, child, number, parent);
	if (child->pid < 0) {
		child->pid = 0;
		log_line("%s: cannot be started: %s; allow more processes and open files (ulimit "
			 "-u, ulimit -n)",
			 matrix->config->run.kernels[number], strerror(errno));
		return -errno;
	}
	matrix->running++;
	return 0;
}

static void copy_out(int from, FILE *to)
{
	char bytes[16384];
	off_t at = 0;
	ssize_t n;

	while ((n = pread(from, bytes, sizeof(bytes), at)) > 0) {
		fwrite(bytes, 1, (size_t)n, to);
		at += n;
	}
	fflush(to);
}

static void show_progress(const struct matrix *matrix)
{
	if (matrix->progress)
		fprintf(stderr, "\r\033[K%u of %u done, %u running", matrix->done, matrix->count,
			matrix->running);
}

static void clear_progress(const struct matrix *matrix)
{
	if (matrix->progress)
		fputs("\r\033[K", stderr);
}

static void on_end(struct matrix *matrix, u32 number, int status)
{
	struct child *child = &matrix->children[number];
	struct run_result *r = &matrix->results[number];
	char verdict[64];

	child->pid = 0;
	matrix->running--;
	matrix->done++;
	if (r->verdict == RUN_UNKNOWN) {
		r->verdict = RUN_ERROR;
		r->status = RUN_STATUS_ERROR;
		snprintf(r->reason, sizeof(r->reason), "its vmm ended with %s %d",
			 WIFSIGNALED(status) ? "signal" : "status",
			 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	}
	report_verdict(r, verdict, sizeof(verdict));
	clear_progress(matrix);
	fflush(stderr);
	printf("==> %s: %s <==\n", matrix->config->run.kernels[number], verdict);
	copy_out(child->out, stdout);
	copy_out(child->err, stderr);
	close(child->out);
	close(child->err);
}

static void reap(struct matrix *matrix)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (u32 i = 0; i < matrix->next; i++)
			if (matrix->children[i].pid == pid)
				on_end(matrix, i, status);
}

/* The first signal is handed on, and nothing more is started; the second ends all. */
static void interrupt(struct matrix *matrix, int number)
{
	int passed = matrix->interrupted ? SIGKILL : number;

	matrix->interrupted = number;
	for (u32 i = 0; i < matrix->next; i++)
		if (matrix->children[i].pid)
			kill(matrix->children[i].pid, passed);
}

static void on_signals(struct matrix *matrix)
{
	struct signalfd_siginfo info;

	while (read(matrix->signals, &info, sizeof(info)) == sizeof(info))
		if (info.ssi_signo != SIGCHLD)
			interrupt(matrix, (int)info.ssi_signo);
	reap(matrix);
}

static u32 jobs_of(const struct config *config)
{
	cpu_set_t set;
	int cpus;

	if (config->run.jobs)
		return config->run.jobs;
	cpus = sched_getaffinity(0, sizeof(set), &set) ? 1 : CPU_COUNT(&set);
	return cpus > 0 ? (u32)cpus : 1;
}

static int follow(struct matrix *matrix)
{
	u32 jobs = jobs_of(matrix->config);
	int error = 0;

	for (;;) {
		struct pollfd fds[2] = { { .fd = matrix->signals, .events = POLLIN },
					 { .fd = matrix->files->parent, .events = POLLIN } };

		while (!error && !matrix->interrupted && matrix->running < jobs &&
		       matrix->next < matrix->count) {
			error = start(matrix, matrix->next);
			matrix->next += !error;
		}
		if (!matrix->running)
			return error;
		show_progress(matrix);
		if (poll(fds, ARRAY_SIZE(fds), -1) < 0)
			continue;
		if (fds[1].revents)
			_exit(STATUS_SIGNAL + SIGKILL); /* and the children with us */
		on_signals(matrix);
	}
}

/* ---- what is left ---- */

static void write_report(const struct matrix *matrix, int status)
{
	int to = matrix->files->report;
	char bytes[16384];

	if (to < 0)
		return;
	report_write("--report", to, bytes,
		     (size_t)snprintf(bytes, sizeof(bytes),
				      "{\"schema\": %u, \"status\": %d, \"runs\": [\n",
				      REPORT_SCHEMA, status));
	for (u32 i = 0, written = 0; i < matrix->next; i++) {
		int from = matrix->children[i].report;
		off_t at = 0;
		ssize_t n;

		while ((n = pread(from, bytes, sizeof(bytes), at)) > 0) {
			if (!at && written++)
				report_write("--report", to, ",\n", 2);
			report_write("--report", to, bytes, (size_t)n);
			at += n;
		}
	}
	report_write("--report", to, "]}\n", 3);
}

static int conclude(const struct matrix *matrix)
{
	struct config *config = matrix->config;
	int status = matrix->interrupted ? STATUS_SIGNAL + matrix->interrupted : 0;
	char *text;
	size_t length;

	for (u32 i = 0; i < matrix->next; i++)
		status = run_status_worse(status, matrix->results[i].status);
	clear_progress(matrix);
	report_table(stdout, config->run.kernels, matrix->results, matrix->next);
	if (fflush(stdout))
		log_line("standard output: %s", strerror(errno));
	write_report(matrix, status);
	if (matrix->files->junit < 0)
		return status;
	text = junit_text(config, config->run.kernels, matrix->results, matrix->next, &length);
	if (text)
		report_write("--junit", matrix->files->junit, text, length);
	free(text);
	return status;
}

int run_matrix(struct config *config, const struct run_files *files)
{
	u32 count = config->run.kernel_count;
	struct matrix matrix = {
		.config = config, .files = files, .count = count, .progress = isatty(STDERR_FILENO)
	};
	int error, status;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGQUIT);
	sigprocmask(SIG_BLOCK, &set, &matrix.mask);
	signal(SIGPIPE, SIG_IGN);
	matrix.signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	matrix.children = calloc(count, sizeof(*matrix.children));
	matrix.results = mmap(NULL, count * sizeof(*matrix.results), PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (matrix.signals < 0 || !matrix.children || matrix.results == MAP_FAILED) {
		log_line("start: %s", strerror(errno));
		return RUN_STATUS_ERROR;
	}
	error = follow(&matrix);
	status = conclude(&matrix);
	return error ? run_status_worse(status, RUN_STATUS_ERROR) : status;
}
