/*
 * All reactors together: their making and ending, and the numbering of files that they share. Main
 * thread.
 */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>
#include "vm/log.h"
#include "vm/reactor-engine.h"

#define MAX_REACTORS 64
#define WORKERS	     8
#define STACK_SIZE   KIB(256) /* less than a huge page, which the first touch of more could take */

/* ---- numbering of files ---- */

reactor_file reactor_number_take(struct reactors *reactors, int fd, bool storage)
{
	reactor_file file = -ENOSPC;

	pthread_mutex_lock(&reactors->lock);
	for (u32 i = 0; i < reactors->max_files; i++) {
		if (reactors->fds[i] != -1)
			continue;
		reactors->storage[i] = storage;
		reactor_buffered_forget(reactors, (reactor_file)i);
		__atomic_store_n(&reactors->fds[i], fd, __ATOMIC_RELAXED);
		file = (reactor_file)i;
		break;
	}
	pthread_mutex_unlock(&reactors->lock);
	return file;
}

void reactor_number_free(struct reactors *reactors, reactor_file file)
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

static reactor_file file_add(struct reactors *reactors, int fd, bool storage)
{
	reactor_file file = reactor_number_take(reactors, fd, storage);
	int error;

	if (file < 0)
		return file;
	error = file_set_all(reactors, file, fd);
	if (error) {
		reactor_file_remove(reactors, file);
		return error;
	}
	return file;
}

reactor_file reactor_file_add(struct reactors *reactors, int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	return file_add(reactors, fd, S_ISREG(st.st_mode) || S_ISBLK(st.st_mode));
}

reactor_file reactor_eventfd_add(struct reactors *reactors, int fd)
{
	return file_add(reactors, fd, false);
}

int reactor_file_iopoll(struct reactors *reactors, reactor_file file, const char *name)
{
	if (!reactors->config.iopoll || !reactors->engine->looks)
		return -EOPNOTSUPP;
	atomic_store(&reactors->iopolled[file], name);
	return 0;
}

void reactor_file_remove(struct reactors *reactors, reactor_file file)
{
	if (file < 0 || (u32)file >= reactors->max_files)
		return;
	atomic_store(&reactors->iopolled[file], NULL);
	file_set_all(reactors, file, -1);
	reactor_number_free(reactors, file);
}

static void renew_run(void *arg)
{
	struct reactor *reactor = arg;

	reactor->reactors->engine->renew(reactor);
}

reactor_file reactor_own_file_add(struct reactor *reactor, int fd, bool disk)
{
	reactor_file file = reactor_number_take(reactor->reactors, fd, disk);
	int error;

	if (file < 0)
		return file;
	error = reactor->reactors->engine->file_set(reactor, file, fd);
	if (error)
		reactor_number_free(reactor->reactors, file);
	return error ? error : file;
}

void reactor_own_file_remove(struct reactor *reactor, reactor_file file)
{
	reactor->reactors->engine->file_set(reactor, file, -1);
	reactor_number_free(reactor->reactors, file);
}

void reactor_own_files_release(struct reactor *reactor)
{
	if (reactor->reactors->engine->renew)
		reactor->reactors->engine->renew(reactor);
}

void reactor_files_release(struct reactors *reactors)
{
	for (u32 i = 0; i < reactors->count && reactors->started; i++)
		if (reactors->engine->renew)
			reactor_call(&reactors->list[i], renew_run, &reactors->list[i]);
}

#define SETTLE_SWEEPS 3 /* a message defers a task, and that another */

static void nothing_run(void *arg)
{
	(void)arg;
}

void reactors_settle(struct reactors *reactors)
{
	for (u32 n = 0; n < SETTLE_SWEEPS && reactors->started; n++)
		for (u32 i = 0; i < reactors->count; i++)
			reactor_call(&reactors->list[i], nothing_run, NULL);
}

/* ---- threads ---- */

int reactor_thread_create(pthread_t *thread, pthread_attr_t *attr, void *(*run)(void *arg),
			  void *arg)
{
	sigset_t block;

	sigfillset(&block);
	/* what a thread does to itself stays its own; SIGSYS is the sandbox's */
	sigdelset(&block, SIGSEGV);
	sigdelset(&block, SIGBUS);
	sigdelset(&block, SIGFPE);
	sigdelset(&block, SIGILL);
	sigdelset(&block, SIGABRT);
	sigdelset(&block, SIGTRAP);
	sigdelset(&block, SIGSYS);
	pthread_attr_setsigmask_np(attr, &block);
	pthread_attr_setstacksize(attr, STACK_SIZE);
	return -pthread_create(thread, attr, run, arg);
}

/* Says why, if there is a reason. */
static int start_failed(const struct reactors *reactors, int error)
{
	if (error)
		log_line("event threads: cannot start (%s): %s", reactors->engine->name,
			 strerror(-error));
	return error;
}

static void await_begun(struct reactors *reactors, u32 threads)
{
	while (threads--)
		while (sem_wait(&reactors->ready) < 0)
			; /* EINTR */
}

int reactors_launch(struct reactors *reactors)
{
	pthread_attr_t attr;
	u32 threads = 0;
	int error = 0;

	if (reactors->workers)
		error = reactor_workers_start(reactors->workers, WORKERS, &reactors->config.pin,
					      reactors->config.worker_start,
					      reactors->config.owner);
	pthread_attr_init(&attr);
	for (u32 i = 0; i < reactors->count && !error; i++) {
		struct reactor *reactor = &reactors->list[i];

		pin_attr(&attr, &reactors->config.pin, i);
		error = reactor_thread_create(&reactor->thread, &attr, reactor_main, reactor);
		reactor->running = !error;
		threads += !error;
	}
	pthread_attr_destroy(&attr);
	if (error) /* reactors_destroy() looks at what became of them */
		await_begun(reactors, threads);
	return start_failed(reactors, error);
}

int reactors_ready(struct reactors *reactors)
{
	int error = 0;

	await_begun(reactors, reactors->count);
	for (u32 i = 0; i < reactors->count && !error; i++)
		error = reactors->list[i].error;
	reactors->started = !error;
	return start_failed(reactors, error);
}

int reactors_start(struct reactors *reactors)
{
	int error = reactors_launch(reactors);

	return error ? error : reactors_ready(reactors);
}

static int reactor_init(struct reactor *reactor, struct reactors *reactors, u32 number)
{
	int error;

	reactor->reactors = reactors;
	reactor->number = number;
	for (int phase = 0; phase < REACTOR_PHASES; phase++)
		reactor_task_list_init(&reactor->phases[phase]);
	reactor_op_list_init(&reactor->here);
	reactor_op_list_init(&reactor->completed);
	reactor->wake.fired = reactor_woken;
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
	if (!reactor->reactors)
		return;
	if (reactor->ring)
		reactor->reactors->engine->destroy(reactor);
	reactor_events_free(reactor);
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
	reactors->iopolled = calloc(reactors->max_files, sizeof(reactors->iopolled[0]));
	error = reactor_buffered_create(reactors);
	if (error || !reactors->fds || !reactors->storage || !reactors->iopolled) {
		error = -ENOMEM;
		goto fail;
	}
	error = config->force_epoll ? -EPERM : engine_try(reactors, &reactor_engine_uring);
	if (error) {
		if (!config->force_epoll)
			log_line(
				"io_uring: not permitted here (%s); using epoll and worker threads",
				strerror(-error));
		if (config->sqpoll)
			log_line("sqpoll: needs io_uring; done without");
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
	free(reactors->iopolled);
	reactor_buffered_destroy(reactors);
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
	free(reactors->iopolled);
	reactor_buffered_destroy(reactors);
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
