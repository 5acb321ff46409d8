/*
 * One machine and the init in it, from start to verdict: its lines on the control port, the
 * caller's signals, the times that are up. A machine_watcher: all of it runs on the machine's main
 * thread, in its sandbox once the guest runs.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "machine/machine.h"
#include "machine/ports.h"
#include "run/console-log.h"
#include "run/input.h"
#include "run/protocol.h"
#include "run/report.h"
#include "run/run.h"
#include "run/setup.h"
#include "vm/log.h"

#define NS	    1000000000ull
#define MS	    1000000ull
#define PING_NS	    (5 * NS)
#define PINGS_LOST  12 /* then the guest hangs */
#define DRAIN_NS    (2 * MS)
#define SIGNALS_MAX 3 /* that the guest may pass over */

enum { CONTROL, PARENT, INPUT, POLLS = INPUT + INPUT_POLLS };
_Static_assert(POLLS <= MACHINE_WATCHER_POLLS, "room for all");

struct job {
	struct config *config;
	struct run_result *result;
	struct console_log log;
	struct input input;
	int control; /* -1: gone */
	struct run_files files;
	u64 boot_due, grace_due, ping_due; /* ns; 0: not */
	u32 pings_lost, signals;
	u64 out, err;  /* bytes that the command has written in all */
	size_t length; /* of line */
	char line[RUN_LINE_MAX];
};

/* ---- to the guest ---- */

static void say(struct job *job, const char *line)
{
	/* a guest that does not read its control port is not helped by more lines */
	if (job->control >= 0 && write(job->control, line, strlen(line)) < 0 && errno == EPIPE) {
		close(job->control);
		job->control = -1;
	}
}

static void say_size(struct job *job)
{
	char line[48];
	u16 rows, cols;

	input_size(&job->input, &rows, &cols);
	snprintf(line, sizeof(line), RUN_LINE_WINSIZE " %u %u\n", rows, cols);
	if (rows && cols)
		say(job, line);
}

/* ---- from the guest ---- */

static void reach(struct job *job, enum run_time time, u64 now)
{
	if (!job->result->times[time])
		job->result->times[time] = now;
}

static void set_reason(struct job *job, const char *text)
{
	snprintf(job->result->reason, sizeof(job->result->reason), "%s", text);
}

/* The command has ended: nothing more comes, but what it wrote may still be on its way out. */
static void on_command_end(struct job *job, struct machine *m, bool by_signal, const char *number,
			   u64 now)
{
	struct run_facts *f = &job->result->facts;

	f->ended = true;
	f->by_signal = by_signal;
	f->code = (u32)strtoul(number, NULL, 10);
	reach(job, RUN_TIME_STOP, now);
	vcpus_pause(m->vcpus);
	job->boot_due = job->ping_due = 0;
}

static void on_error(struct job *job, struct machine *m, char *kind)
{
	struct run_facts *f = &job->result->facts;
	char *text = strchr(kind, ' ');

	if (text)
		*text++ = '\0';
	set_reason(job, text ? text : kind);
	if (!strcmp(kind, RUN_ERROR_NOT_FOUND) || !strcmp(kind, RUN_ERROR_NOT_EXECUTABLE)) {
		log_line("%s", text ? text : kind); /* its status follows */
		return;
	}
	f->failed = true;
	end_request(&m->end, END_QUIT, 0);
}

/* The value of a line that begins with this word, NULL if it does not. */
static char *value_of(char *line, const char *word)
{
	size_t length = strlen(word);

	if (strncmp(line, word, length) || (line[length] && line[length] != ' '))
		return NULL;
	return line + length + (line[length] == ' ');
}

static void on_line(struct job *job, struct machine *m, char *line, u64 now)
{
	struct run_facts *f = &job->result->facts;
	char *value;

	job->pings_lost = 0;
	if (f->ended)
		return;
	if (value_of(line, RUN_LINE_INIT)) {
		f->init = true;
		job->boot_due = 0;
		if (!job->config->gdb) /* who is held by it answers nobody */
			job->ping_due = now + PING_NS;
		reach(job, RUN_TIME_INIT, now);
	} else if (value_of(line, RUN_LINE_ROOT)) {
		reach(job, RUN_TIME_ROOT, now);
	} else if (value_of(line, RUN_LINE_START)) {
		f->start = true;
		reach(job, RUN_TIME_START, now);
		say_size(job); /* it may have changed meanwhile */
	} else if ((value = value_of(line, RUN_LINE_OUTPUT))) {
		job->out = strtoull(value, &value, 10);
		job->err = strtoull(value, NULL, 10);
	} else if ((value = value_of(line, RUN_LINE_FULL))) {
		log_line(
			"%s: full: what is written there is in the guest's memory; raise --mem, or "
			"name what is to be written to the host by --rw",
			value);
	} else if ((value = value_of(line, RUN_LINE_EXIT))) {
		on_command_end(job, m, false, value, now);
	} else if ((value = value_of(line, RUN_LINE_SIGNAL))) {
		on_command_end(job, m, true, value, now);
	} else if ((value = value_of(line, RUN_LINE_ERROR))) {
		on_error(job, m, value);
	}
}

/* A line longer than any that init says is cut, and its rest is a line that is not known. */
static void read_control(struct job *job, struct machine *m, u64 now)
{
	ssize_t n =
		read(job->control, job->line + job->length, sizeof(job->line) - 1 - job->length);
	char *start = job->line, *end;

	if (n <= 0) {
		if (!n || (errno != EAGAIN && errno != EINTR)) {
			close(job->control); /* the machine ends by itself, or by a time that is up
					      */
			job->control = -1;
		}
		return;
	}
	job->length += (size_t)n;
	job->line[job->length] = '\0';
	for (; (end = strchr(start, '\n')); start = end + 1) {
		*end = '\0';
		on_line(job, m, start, now);
	}
	job->length = strlen(start);
	if (job->length == sizeof(job->line) - 1)
		job->length = 0;
	memmove(job->line, start, job->length);
}

/* Has all that the command wrote been taken by whoever reads it? */
static bool is_drained(const struct job *job, const struct machine *m)
{
	return !COUNTED || (ports_written(m->ports, RUN_PORT_STDOUT) >= job->out &&
			    ports_written(m->ports, RUN_PORT_STDERR) >= job->err);
}

/* ---- the machine's watcher ---- */

static void lower(u64 *deadline, u64 due)
{
	if (due && due < *deadline)
		*deadline = due;
}

static void prepare(void *arg, struct machine *m, struct pollfd *fds, u64 *deadline)
{
	struct job *job = arg;

	(void)m;
	fds[CONTROL] = (struct pollfd){ .fd = job->control, .events = POLLIN };
	fds[PARENT] = (struct pollfd){ .fd = job->files.parent, .events = POLLIN };
	input_prepare(&job->input, &fds[INPUT]);
	lower(deadline, job->boot_due);
	lower(deadline, job->grace_due);
	lower(deadline, job->ping_due);
	if (job->result->facts.ended)
		lower(deadline, clock_now_ns() + DRAIN_NS);
}

static void on_deadlines(struct job *job, struct machine *m, u64 now)
{
	struct run_facts *f = &job->result->facts;

	if (job->boot_due && now >= job->boot_due) {
		job->boot_due = 0;
		f->boot_timeout = true;
		machine_expire(m);
	}
	if (job->grace_due && now >= job->grace_due)
		end_request(&m->end, END_SIGNAL, f->interrupted);
	if (job->ping_due && now >= job->ping_due) {
		/* counted, not timed: while we were stopped nobody could answer */
		job->ping_due = now + PING_NS;
		if (++job->pings_lost > PINGS_LOST) {
			job->ping_due = 0;
			f->hang = true;
			machine_expire(m);
		} else {
			say(job, RUN_LINE_PING "\n");
		}
	}
}

static void run(void *arg, struct machine *m, const struct pollfd *fds, u64 now)
{
	struct job *job = arg;
	struct run_facts *f = &job->result->facts;

	if (fds[CONTROL].fd >= 0 && fds[CONTROL].revents)
		read_control(job, m, now);
	if (fds[PARENT].fd >= 0 && fds[PARENT].revents) {
		f->interrupted = SIGKILL;
		end_request(&m->end, END_SIGNAL, SIGKILL);
	}
	if (input_run(&job->input, &fds[INPUT], now))
		end_request(&m->end, END_QUIT, 0);
	if (f->ended && is_drained(job, m))
		end_request(&m->end, END_QUIT, 0);
	on_deadlines(job, m, now);
}

/* What would end a command goes to the command; where it does not help, in time or at the third, it
 * is ours. */
static bool on_signal(void *arg, struct machine *m, int number, u64 now)
{
	struct job *job = arg;
	struct run_facts *f = &job->result->facts;
	char line[32];

	switch (number) {
	case SIGWINCH:
		say_size(job);
		return true;
	case SIGCONT:
		terminal_resume();
		say_size(job);
		return true;
	case SIGUSR1:
		return false;
	}
	if (f->start && ++job->signals < SIGNALS_MAX) {
		snprintf(line, sizeof(line), RUN_LINE_SIGNAL " %d\n", number);
		say(job, line);
		if ((number == SIGTERM || number == SIGHUP) && !job->grace_due) {
			job->grace_due = now + job->config->grace_seconds * NS;
			f->interrupted = (u32)number;
		}
		return true;
	}
	f->interrupted = (u32)number;
	end_request(&m->end, END_SIGNAL, (u32)number);
	return true;
}

static void on_console(void *arg, const u8 *bytes, size_t size, u64 now)
{
	struct job *job = arg;

	reach(job, RUN_TIME_CONSOLE, now);
	console_log_feed(&job->log, bytes, size, now);
}

/* Why, where neither the guest nor the console has said so. */
static void explain(struct job *job)
{
	struct run_result *r = job->result;
	const struct run_facts *f = &r->facts;
	char *text = r->reason;
	size_t room = sizeof(r->reason);
	const char *meaning;

	switch (r->verdict) {
	case RUN_NO_INIT:
		if (f->failed)
			return;
		meaning = console_explain(r->tail);
		if (f->boot_timeout)
			snprintf(text, room, "the guest's init did not run within %u seconds",
				 job->config->run.boot_timeout_seconds);
		else if (f->reason != END_PANIC)
			snprintf(text, room, "the guest ended before its init ran");
		if (meaning)
			snprintf(text + strlen(text), room - strlen(text), "; %s", meaning);
		break;
	case RUN_TIMEOUT:
		snprintf(text, room, "after %u seconds%s", job->config->timeout_seconds,
			 f->start ? "" : ", before the command was started");
		break;
	case RUN_HANG:
		snprintf(text, room, "the guest's init has not answered for %llu seconds",
			 (unsigned long long)(PINGS_LOST * PING_NS / NS));
		break;
	case RUN_CRASH:
		snprintf(text, room, "triple fault on vCPU %u", f->value);
		break;
	case RUN_GONE:
		snprintf(text, room, "the guest %s while the command ran",
			 f->reason == END_POWEROFF ? "powered off" : "reset");
		break;
	case RUN_INTERRUPTED:
		if (r->status == STATUS_SIGNAL + SIGKILL)
			snprintf(text, room, "by the user");
		else
			snprintf(text, room, "%s", strsignal(r->status - STATUS_SIGNAL));
		break;
	case RUN_WARNING:
	case RUN_OOPS:
		snprintf(text, room, "%s", r->message);
		break;
	default:
		break;
	}
}

static void write_report(struct job *job, const struct machine *m)
{
	struct json json = { 0 };

	if (job->files.report < 0)
		return;
	json_begin_object(&json, NULL);
	report_put(&json, job->config, job->result);
	if (m) {
		json_begin_object(&json, "stats");
		machine_put_stats(m, &json);
		json_end(&json);
	}
	json_end(&json);
	if (!json_done(&json))
		report_write("--report", job->files.report, json.text, json.length);
	json_free(&json);
}

static void write_junit(const struct job *job)
{
	char *text;
	size_t length;

	if (job->files.junit < 0)
		return;
	text = junit_text(job->config, &job->config->kernel, job->result, 1, &length);
	if (text)
		report_write("--junit", job->files.junit, text, length);
	free(text);
}

/* m: NULL when it never came to be. */
static int finish(struct job *job, const struct machine *m, enum end_reason reason, u32 value)
{
	struct run_result *r = job->result;
	struct run_facts *f = &r->facts;
	u64 now = clock_now_ns();

	console_log_flush(&job->log, now);
	reach(job, RUN_TIME_END, now);
	f->reason = reason;
	f->value = value;
	f->fail_on = job->config->run.fail_on;
	f->warned = r->warnings;
	f->oopsed = r->oopses;
	f->rootless = console_rootless(r->crash);
	r->verdict = run_judge(f, &r->status);
	explain(job);
	report_say(r);
	write_report(job, m);
	write_junit(job);
	return r->status;
}

/* Where each vCPU was, for who has the kernel's symbols: a guest that answers neither SysRq nor NMI
 * says it nowhere else. */
static void tell_registers(struct job *job, const struct machine *m, u64 now)
{
	struct kvm_regs regs;
	char line[128];
	int fd;

	for (u32 i = 0; i < m->config->cpus; i++) {
		fd = vcpus_fd(m->vcpus, i);
		if (fd < 0 || ioctl(fd, KVM_GET_REGS, &regs))
			continue;
		snprintf(line, sizeof(line), "vmm: vCPU %u: RIP %016llx RSP %016llx RFLAGS %llx\n",
			 i, regs.rip, regs.rsp, regs.rflags);
		console_log_feed(&job->log, (const u8 *)line, strlen(line), now);
	}
}

static int ended(void *arg, struct machine *m, enum end_reason reason, u32 value)
{
	struct job *job = arg;

	log_remember(NULL, 0);
	if (reason == END_TIMEOUT)
		tell_registers(job, m, clock_now_ns());
	for (u32 i = 0; i < m->milestones.count; i++)
		if (!strcmp(m->milestones.list[i].what, MILESTONE_GUEST))
			job->result->times[RUN_TIME_INSTRUCTION] = m->milestones.list[i].ns;
	return finish(job, m, reason, value);
}

/* ---- */

static int open_control(struct job *job, int *guest)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends)) {
		log_line("start: %s; " MORE_FILES, strerror(errno));
		return -errno;
	}
	job->control = ends[0];
	*guest = ends[1];
	return 0;
}

static int set_up(struct job *job)
{
	struct config *config = job->config;
	struct run_result *r = job->result;
	bool tty = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
	int in = STDIN_FILENO, control = -1, error;
	u16 rows, cols;

	error = console_log_open(&job->log, r, config->run.log);
	if (!error)
		error = open_control(job, &control);
	if (!error && tty)
		error = input_open(&job->input, &in);
	input_size(&job->input, &rows, &cols);
	if (!error)
		error = setup_machine(config, r->version, sizeof(r->version), tty, rows, cols,
				      job->files.parent);
	if (!error)
		error = setup_ports(config, in, control);
	/* a kernel that has not what it needs would not come to init */
	r->facts.failed = error == -ENOPKG;
	return error;
}

int run_job(struct config *config, const struct milestones *milestones, struct run_result *result,
	    const struct run_files *files)
{
	static struct job job;
	const struct machine_watcher watcher = {
		.arg = &job,
		.prepare = prepare,
		.run = run,
		.signal = on_signal,
		.output = on_console,
		.ended = ended,
	};

	job = (struct job){ .config = config,
			    .result = result,
			    .files = *files,
			    .input = { .terminal = -1, .to = -1 },
			    .control = -1 };
	result->start = milestones->start;
	/* an error's line is its reason */
	log_remember(result->reason, sizeof(result->reason));
	if (!set_up(&job)) {
		if (config->run.boot_timeout_seconds && !config->gdb)
			job.boot_due = clock_now_ns() + config->run.boot_timeout_seconds * NS;
		machine_session(config, milestones, &watcher);
	}
	log_remember(NULL, 0);
	if (result->verdict == RUN_UNKNOWN) {
		terminal_restore();
		finish(&job, NULL, result->facts.failed ? END_NONE : END_HOST_ERROR, 0);
	}
	return result->status;
}
