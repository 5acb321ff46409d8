/*
 * The face of the reactors: the sweep, tasks, messages, events, and the numbering of files. What
 * waits and does I/O is an engine (vm/reactor-engine.h): io_uring, or epoll with worker threads.
 */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>
#include "vm/log.h"
#include "vm/reactor-engine.h"

#define MAX_REACTORS 64
#define WORKERS	     8

/* An event's read in flight. It outlives a removed event until the kernel has let go of count. */
struct reactor_wait {
	struct reactor *reactor;
	struct reactor_event *event; /* NULL: removed */
	struct reactor_op op;
	struct iovec iov;
	u64 count;
	reactor_file file;
	bool armed;  /* op is in flight */
	bool firing; /* inside wait_done() */
	struct reactor_wait *next, **link;
};

/* ---- numbering of files ---- */

static reactor_file number_take(struct reactors *reactors, int fd, bool storage)
{
	reactor_file file = -ENOSPC;
	pthread_mutex_lock(&reactors->lock);
	for (u32 i = 0; i < reactors->max_files; i++) {
		if (reactors->fds[i] != -1)
			continue;
		reactors->storage[i] = storage;
		__atomic_store_n(&reactors->fds[i], fd, __ATOMIC_RELAXED);
		file = (reactor_file)i;
		break;
	}
	pthread_mutex_unlock(&reactors->lock);
	return file;
}

static void number_free(struct reactors *reactors, reactor_file file)
{
	pthread_mutex_lock(&reactors->lock);
	__atomic_store_n(&reactors->fds[file], -1, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&reactors->lock);
}

struct file_call {
	struct reactor *reactor;
	reactor_file file;
	int fd, error;
};

static void file_call_run(void *arg)
{
	struct file_call *call = arg;
	const struct reactor_engine *engine = call->reactor->reactors->engine;

	call->error = engine->file_set(call->reactor, call->file, call->fd);
}

/* Only a ring's own thread may change its table once it runs. */
static int file_set_all(struct reactors *reactors, reactor_file file, int fd)
{
	for (u32 i = 0; i < reactors->count; i++) {
		struct file_call call = { .reactor = &reactors->list[i], .file = file, .fd = fd };

		if (reactors->started)
			reactor_call(call.reactor, file_call_run, &call);
		else
			file_call_run(&call);
		if (call.error)
			return call.error;
	}
	return 0;
}

reactor_file reactor_file_add(struct reactors *reactors, int fd)
{
	reactor_file file;
	struct stat st;
	int error;

	if (fstat(fd, &st) < 0)
		return -errno;
	file = number_take(reactors, fd, S_ISREG(st.st_mode) || S_ISBLK(st.st_mode));
	if (file < 0)
		return file;
	error = file_set_all(reactors, file, fd);
	if (error) {
		reactor_file_remove(reactors, file);
		return error;
	}
	return file;
}

void reactor_file_remove(struct reactors *reactors, reactor_file file)
{
	if (file < 0 || (u32)file >= reactors->max_files)
		return;
	file_set_all(reactors, file, -1);
	number_free(reactors, file);
}

/* ---- operations ---- */

void reactor_submit(struct reactor *reactor, struct reactor_op *op)
{
	op->reactor = reactor;
	reactor_count(&reactor->counts.operations, 1);
	reactor->reactors->engine->submit(reactor, op);
}

void reactor_cancel(struct reactor *reactor, struct reactor_op *op)
{
	reactor->reactors->engine->cancel(reactor, op);
}

void reactor_signal(struct reactor *reactor, reactor_file eventfd)
{
	reactor_count(&reactor->counts.signals, 1);
	reactor->reactors->engine->signal(reactor, eventfd);
}

void reactor_complete(struct reactor *reactor, struct reactor_op *op, s32 result)
{
	op->state = REACTOR_OP_COMPLETED;
	op->result = result;
	reactor_op_list_append(&reactor->completed, op);
}

s32 reactor_transfer(const struct reactor_op *op)
{
	const struct reactors *reactors = op->reactor->reactors;
	bool storage = reactors->storage[op->file];
	/* an offset of -1 makes preadv2() and pwritev2() use the file's position, as streams need
	 */
	off_t offset = storage ? (off_t)op->offset : -1;
	/* streams are O_NONBLOCK, which says it already, and not all of them know RWF_NOWAIT */
	int flags = (int)op->flags | (op->nonblocking && storage ? RWF_NOWAIT : 0);
	ssize_t n;

	do {
		if (op->code == REACTOR_READV)
			n = preadv2(reactors->fds[op->file], op->iov, (int)op->iov_count, offset,
				    flags);
		else
			n = pwritev2(reactors->fds[op->file], op->iov, (int)op->iov_count, offset,
				     flags);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : (s32)n;
}

/* ---- tasks ---- */

static void task_list_init(struct reactor_task_list *list)
{
	list->first = NULL;
	list->last = &list->first;
}

void reactor_defer(struct reactor *reactor, enum reactor_phase phase, struct reactor_task *task)
{
	struct reactor_task_list *list = &reactor->phases[phase];

	if (task->queued)
		return;
	task->queued = true;
	task->next = NULL;
	*list->last = task;
	list->last = &task->next;
}

/* Runs what was asked for until now; what is asked for meanwhile is the next sweep's, so that
 * completions get their turn. */
static void run_phase(struct reactor *reactor, enum reactor_phase phase)
{
	struct reactor_task *task = reactor->phases[phase].first, *next;

	task_list_init(&reactor->phases[phase]);
	for (; task; task = next) {
		next = task->next;
		task->queued = false;
		task->run(task);
	}
}

static bool has_tasks(const struct reactor *reactor)
{
	return reactor->phases[REACTOR_SERVE].first || reactor->phases[REACTOR_FLUSH].first;
}

/* ---- events ---- */

static void wait_arm(struct reactor_wait *wait)
{
	wait->armed = true;
	wait->op.reactor = wait->reactor;
	wait->reactor->reactors->engine->submit(wait->reactor, &wait->op);
}

static void wait_forget_file(struct reactor_wait *wait)
{
	struct reactors *reactors = wait->reactor->reactors;

	if (wait->file < 0)
		return;
	reactors->engine->file_set(wait->reactor, wait->file, -1);
	number_free(reactors, wait->file);
	wait->file = -1;
}

static void wait_free(struct reactor_wait *wait)
{
	wait_forget_file(wait);
	*wait->link = wait->next;
	if (wait->next)
		wait->next->link = wait->link;
	free(wait);
}

static void wait_done(struct reactor_op *op, s32 result)
{
	struct reactor_wait *wait = container_of(op, struct reactor_wait, op);
	struct reactor_event *event = wait->event;
	bool again = true;

	wait->armed = false;
	wait->firing = true;
	if (event && result == (s32)sizeof(wait->count)) {
		event->count = wait->count;
		reactor_count(&wait->reactor->counts.events, 1);
		event->fired(event);
	} else if (event && result != -EAGAIN && result != -EINTR) {
		log_line("reactor%u: an eventfd cannot be read: %s; its events are lost",
			 wait->reactor->number, result < 0 ? strerror(-result) : "short read");
		again = false;
	}
	wait->firing = false;
	if (!wait->event) /* removed before, or by fired() */
		wait_free(wait);
	else if (again)
		wait_arm(wait);
}

int reactor_event_add(struct reactor *reactor, struct reactor_event *event)
{
	struct reactor_wait *wait = calloc(1, sizeof(*wait));
	int error;

	if (!wait)
		return -ENOMEM;
	wait->reactor = reactor;
	wait->event = event;
	wait->iov = (struct iovec){ &wait->count, sizeof(wait->count) };
	wait->file = number_take(reactor->reactors, event->fd, false);
	if (wait->file < 0) {
		error = wait->file;
		free(wait);
		return error;
	}
	error = reactor->reactors->engine->file_set(reactor, wait->file, event->fd);
	if (error) {
		number_free(reactor->reactors, wait->file);
		free(wait);
		return error;
	}
	wait->op = (struct reactor_op){ .done = wait_done,
					.code = REACTOR_READV,
					.file = wait->file,
					.iov = &wait->iov,
					.iov_count = 1,
					.offset = (u64)-1 };
	wait->link = &reactor->waits;
	wait->next = reactor->waits;
	if (wait->next)
		wait->next->link = &wait->next;
	reactor->waits = wait;
	event->wait = wait;
	wait_arm(wait);
	return 0;
}

static void wait_remove(struct reactor_wait *wait)
{
	wait->event = NULL;
	if (wait->armed)
		reactor_cancel(wait->reactor, &wait->op);
	else if (wait->firing)
		wait_forget_file(wait); /* now: the owner may close its descriptor next */
	else
		wait_free(wait);
}

void reactor_event_remove(struct reactor_event *event)
{
	if (!event->wait)
		return;
	wait_remove(event->wait);
	event->wait = NULL;
}

/* ---- messages: many senders push onto a stack, the reactor takes all of it and turns it round
 * ---- */

static void ring_wake(struct reactor *reactor)
{
	const u64 one = 1;
	ssize_t n;

	do
		n = write(reactor->wake.fd, &one, sizeof(one));
	while (n < 0 && errno == EINTR); /* EAGAIN: it is as loud as can be */
}

void reactor_post(struct reactor *reactor, struct reactor_message *message)
{
	struct reactor_message *head = atomic_load_explicit(&reactor->inbox, memory_order_relaxed);

	/* release pairs with the acquire in take_messages() */
	do
		message->next = head;
	while (!atomic_compare_exchange_weak_explicit(&reactor->inbox, &head, message,
						      memory_order_release, memory_order_relaxed));
	if (!head)
		ring_wake(reactor);
}

void reactor_finish(struct reactor_op *op)
{
	struct reactor *reactor = op->reactor;
	struct reactor_op *head = atomic_load_explicit(&reactor->finished, memory_order_relaxed);

	do
		op->next = head;
	while (!atomic_compare_exchange_weak_explicit(&reactor->finished, &head, op,
						      memory_order_release, memory_order_relaxed));
	if (!head)
		ring_wake(reactor);
}

static void take_messages(struct reactor *reactor)
{
	struct reactor_message *stack, *message = NULL, *next;

	stack = atomic_exchange_explicit(&reactor->inbox, NULL, memory_order_acquire);
	for (; stack; stack = next) {
		next = stack->next;
		stack->next = message;
		message = stack;
	}
	for (; message; message = next) {
		next = message->next;
		message->run(message);
	}
}

static void take_finished(struct reactor *reactor)
{
	struct reactor_op *stack, *op = NULL, *next;

	stack = atomic_exchange_explicit(&reactor->finished, NULL, memory_order_acquire);
	for (; stack; stack = next) {
		next = stack->next;
		stack->next = op;
		op = stack;
	}
	for (; op; op = next) {
		next = op->next;
		op->state = REACTOR_OP_IDLE;
		op->done(op, op->result);
	}
}

static void woken(struct reactor_event *event)
{
	struct reactor *reactor = container_of(event, struct reactor, wake);

	take_messages(reactor);
	take_finished(reactor);
}

struct call {
	struct reactor_message message;
	void (*fn)(void *arg);
	void *arg;
	sem_t ended;
};

static void call_run(struct reactor_message *message)
{
	struct call *call = container_of(message, struct call, message);

	call->fn(call->arg);
	sem_post(&call->ended);
}

void reactor_call(struct reactor *reactor, void (*fn)(void *arg), void *arg)
{
	struct call call = { .message = { .run = call_run }, .fn = fn, .arg = arg };

	sem_init(&call.ended, 0, 0);
	reactor_post(reactor, &call.message);
	while (sem_wait(&call.ended) < 0)
		; /* EINTR */
	sem_destroy(&call.ended);
}

/* ---- the thread ---- */

static void run_completed(struct reactor *reactor)
{
	struct reactor_op_list list = reactor->completed;
	struct reactor_op *op, *next;

	reactor_op_list_init(&reactor->completed);
	for (op = list.first; op; op = next) {
		next = op->next;
		op->state = REACTOR_OP_IDLE;
		op->done(op, op->result);
	}
}

static void sweep(struct reactor *reactor)
{
	const struct reactor_engine *engine = reactor->reactors->engine;

	reactor_count(&reactor->counts.sweeps, 1);
	run_completed(reactor);
	engine->reap(reactor);
	run_phase(reactor, REACTOR_SERVE);
	run_phase(reactor, REACTOR_FLUSH);
	engine->enter(reactor, !has_tasks(reactor) && !reactor->completed.first && !reactor->stop);
}

/* Takes out every event and lets their reads end, so that nothing is left that could write to our
 * memory. */
static void drain(struct reactor *reactor)
{
	const struct reactor_engine *engine = reactor->reactors->engine;
	struct reactor_wait *wait, *next;

	for (wait = reactor->waits; wait; wait = next) {
		next = wait->next;
		if (wait->event)
			wait_remove(wait); /* the event itself may be gone with its owner */
	}
	while (reactor->waits) {
		engine->enter(reactor, !reactor->completed.first);
		run_completed(reactor);
		engine->reap(reactor);
	}
}

static void *reactor_main(void *arg)
{
	struct reactor *reactor = arg;
	struct reactors *reactors = reactor->reactors;
	char name[16];

	snprintf(name, sizeof(name), "reactor%u", reactor->number);
	pthread_setname_np(pthread_self(), name);
	reactor->error = reactors->engine->begin(reactor);
	if (!reactor->error && reactors->config.thread_start)
		reactors->config.thread_start(reactors->config.owner);
	sem_post(&reactors->ready);
	if (reactor->error)
		return NULL;
	while (!reactor->stop)
		sweep(reactor);
	drain(reactor);
	reactors->engine->end(reactor);
	return NULL;
}

int reactor_thread_create(pthread_t *thread, void *(*run)(void *arg), void *arg)
{
	sigset_t block, old;
	int error;

	sigfillset(&block);
	/* what a thread does to itself stays its own; SIGSYS is the sandbox's */
	sigdelset(&block, SIGSEGV);
	sigdelset(&block, SIGBUS);
	sigdelset(&block, SIGFPE);
	sigdelset(&block, SIGILL);
	sigdelset(&block, SIGABRT);
	sigdelset(&block, SIGTRAP);
	sigdelset(&block, SIGSYS);
	pthread_sigmask(SIG_SETMASK, &block, &old);
	error = pthread_create(thread, NULL, run, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -error;
}

int reactors_start(struct reactors *reactors)
{
	u32 threads = 0;
	int error = 0;

	if (reactors->workers) {
		error = reactor_workers_start(reactors->workers, WORKERS,
					      reactors->config.worker_start,
					      reactors->config.owner);
		if (error)
			goto out;
	}
	for (u32 i = 0; i < reactors->count && !error; i++) {
		struct reactor *reactor = &reactors->list[i];

		error = reactor_thread_create(&reactor->thread, reactor_main, reactor);
		reactor->running = !error;
		threads += !error;
	}
	for (u32 i = 0; i < threads; i++)
		while (sem_wait(&reactors->ready) < 0)
			; /* EINTR */
	for (u32 i = 0; i < threads && !error; i++)
		error = reactors->list[i].error;
	reactors->started = !error;
out:
	if (error)
		log_line("event threads: cannot start (%s): %s", reactors->engine->name,
			 strerror(-error));
	return error;
}

static int reactor_init(struct reactor *reactor, struct reactors *reactors, u32 number)
{
	int error;

	reactor->reactors = reactors;
	reactor->number = number;
	for (int phase = 0; phase < REACTOR_PHASES; phase++)
		task_list_init(&reactor->phases[phase]);
	reactor_op_list_init(&reactor->completed);
	reactor->wake.fired = woken;
	reactor->wake.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (reactor->wake.fd < 0)
		return -errno;
	error = reactors->engine->create(reactor);
	if (error)
		return error;
	return reactor_event_add(reactor, &reactor->wake);
}

static void reactor_exit(struct reactor *reactor)
{
	struct reactor_wait *wait, *next;

	if (!reactor->reactors)
		return;
	if (reactor->ring)
		reactor->reactors->engine->destroy(reactor);
	for (wait = reactor->waits; wait; wait = next) { /* the thread never ran */
		next = wait->next;
		free(wait);
	}
	if (reactor->wake.fd >= 0)
		close(reactor->wake.fd);
}

static int engine_try(struct reactors *reactors, const struct reactor_engine *engine)
{
	int error = 0;

	reactors->engine = engine;
	memset(reactors->list, 0, reactors->count * sizeof(reactors->list[0]));
	for (u32 i = 0; i < reactors->max_files; i++)
		reactors->fds[i] = -1;
	for (u32 i = 0; i < reactors->count && !error; i++)
		error = reactor_init(&reactors->list[i], reactors, i);
	for (u32 i = 0; error && i < reactors->count; i++)
		reactor_exit(&reactors->list[i]);
	return error;
}

int reactors_create(struct reactors **result, const struct reactors_config *config)
{
	struct reactors *reactors;
	int error;

	if (!config->count || config->count > MAX_REACTORS)
		return -EINVAL;
	reactors = calloc(1, sizeof(*reactors) + config->count * sizeof(reactors->list[0]));
	if (!reactors)
		return -ENOMEM;
	reactors->config = *config;
	reactors->count = config->count;
	reactors->max_files = config->max_files + config->count; /* the wake events' */
	pthread_mutex_init(&reactors->lock, NULL);
	sem_init(&reactors->ready, 0, 0);
	reactors->fds = malloc(reactors->max_files * sizeof(reactors->fds[0]));
	reactors->storage = calloc(reactors->max_files, sizeof(reactors->storage[0]));
	if (!reactors->fds || !reactors->storage) {
		error = -ENOMEM;
		goto fail;
	}
	error = config->force_epoll ? -EPERM : engine_try(reactors, &reactor_engine_uring);
	if (error) {
		if (!config->force_epoll)
			log_line(
				"io_uring: not permitted here (%s); using epoll and worker threads",
				strerror(-error));
		error = reactor_workers_create(&reactors->workers);
		if (!error)
			error = engine_try(reactors, &reactor_engine_epoll);
		if (error)
			goto fail;
	}
	*result = reactors;
	return 0;
fail:
	log_line("event threads: cannot be made: %s", strerror(-error));
	reactor_workers_destroy(reactors->workers);
	free(reactors->storage);
	free(reactors->fds);
	sem_destroy(&reactors->ready);
	pthread_mutex_destroy(&reactors->lock);
	free(reactors);
	return error;
}

static void stop_run(void *arg)
{
	struct reactor *reactor = arg;

	reactor->stop = true;
}

void reactors_destroy(struct reactors *reactors)
{
	if (!reactors)
		return;
	for (u32 i = 0; i < reactors->count; i++) {
		struct reactor *reactor = &reactors->list[i];

		if (!reactor->running)
			continue;
		if (!reactor->error)
			reactor_call(reactor, stop_run, reactor);
		pthread_join(reactor->thread, NULL);
	}
	reactor_workers_destroy(reactors->workers);
	for (u32 i = 0; i < reactors->count; i++)
		reactor_exit(&reactors->list[i]);
	free(reactors->storage);
	free(reactors->fds);
	sem_destroy(&reactors->ready);
	pthread_mutex_destroy(&reactors->lock);
	free(reactors);
}

struct reactor *reactors_get(struct reactors *reactors, u32 n)
{
	return &reactors->list[n];
}

u32 reactors_count(const struct reactors *reactors)
{
	return reactors->count;
}

const char *reactors_engine(const struct reactors *reactors)
{
	return reactors->engine->name;
}

void reactor_counts(const struct reactor *reactor, struct reactor_counts *counts)
{
	counts->sweeps = __atomic_load_n(&reactor->counts.sweeps, __ATOMIC_RELAXED);
	counts->enters = __atomic_load_n(&reactor->counts.enters, __ATOMIC_RELAXED);
	counts->operations = __atomic_load_n(&reactor->counts.operations, __ATOMIC_RELAXED);
	counts->signals = __atomic_load_n(&reactor->counts.signals, __ATOMIC_RELAXED);
	counts->events = __atomic_load_n(&reactor->counts.events, __ATOMIC_RELAXED);
}
