/*
 * The threads that block so that a reactor need not: READV, WRITEV, FSYNC, FALLOCATE and MADVISE of
 * an engine that cannot have the kernel do them. One pool serves all reactors, first come, first
 * served.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "vm/reactor-engine.h"

#define MAX_WORKERS 16

struct reactor_workers {
	pthread_mutex_t lock; /* everything below */
	pthread_cond_t work;
	struct reactor_op_list queue;
	u32 idle;
	bool stop;
	/* the main thread's */
	pthread_t threads[MAX_WORKERS];
	u32 count;
	u32 named; /* workers so far, under lock */
	void (*begin)(void *owner);
	void *owner;
	sem_t ready;
};

static s32 perform(const struct reactor_op *op)
{
	int fd = op->code == REACTOR_MADVISE ? -1 : op->reactor->reactors->fds[op->file];
	int error = -EINVAL;

	switch (op->code) {
	case REACTOR_READV:
	case REACTOR_WRITEV:
		return reactor_transfer(op);
	case REACTOR_FSYNC:
		error = op->flags & IORING_FSYNC_DATASYNC ? fdatasync(fd) : fsync(fd);
		break;
	case REACTOR_FALLOCATE:
		do
			error = fallocate(fd, (int)op->flags, (off_t)op->offset, (off_t)op->length);
		while (error < 0 && errno == EINTR);
		break;
	case REACTOR_MADVISE:
		error = madvise(op->iov->iov_base, op->iov->iov_len, (int)op->flags);
		break;
	case REACTOR_POLL:
	case REACTOR_CODES:
		return -EINVAL;
	}
	return error < 0 ? -errno : 0;
}

static void *worker_main(void *arg)
{
	struct reactor_workers *workers = arg;
	char name[16];

	pthread_mutex_lock(&workers->lock);
	snprintf(name, sizeof(name), "worker%u", workers->named++);
	pthread_mutex_unlock(&workers->lock);
	pthread_setname_np(pthread_self(), name);
	if (workers->begin)
		workers->begin(workers->owner);
	sem_post(&workers->ready);

	pthread_mutex_lock(&workers->lock);
	while (!workers->stop) {
		struct reactor_op *op = reactor_op_list_take(&workers->queue);

		if (!op) {
			workers->idle++;
			pthread_cond_wait(&workers->work, &workers->lock);
			workers->idle--;
			continue;
		}
		pthread_mutex_unlock(&workers->lock);
		op->result = perform(op);
		reactor_finish(op);
		pthread_mutex_lock(&workers->lock);
	}
	pthread_mutex_unlock(&workers->lock);
	return NULL;
}

int reactor_workers_create(struct reactor_workers **result)
{
	struct reactor_workers *workers = calloc(1, sizeof(*workers));

	if (!workers)
		return -ENOMEM;
	pthread_mutex_init(&workers->lock, NULL);
	pthread_cond_init(&workers->work, NULL);
	sem_init(&workers->ready, 0, 0);
	reactor_op_list_init(&workers->queue);
	*result = workers;
	return 0;
}

int reactor_workers_start(struct reactor_workers *workers, u32 count, const struct cpu_list *pin,
			  void (*begin)(void *owner), void *owner)
{
	pthread_attr_t attr;
	int error = 0;

	pthread_attr_init(&attr);
	pin_attr_any(&attr, pin);
	workers->begin = begin;
	workers->owner = owner;
	while (!error && workers->count < count && workers->count < MAX_WORKERS) {
		error = reactor_thread_create(&workers->threads[workers->count], &attr, worker_main,
					      workers);
		workers->count += !error;
	}
	pthread_attr_destroy(&attr);
	for (u32 i = 0; i < workers->count; i++)
		while (sem_wait(&workers->ready) < 0)
			; /* EINTR */
	return error;
}

void reactor_workers_submit(struct reactor_workers *workers, struct reactor_op_list *list)
{
	u32 wanted = 0, wake;

	for (struct reactor_op *op = list->first; op; op = op->next)
		wanted++;
	pthread_mutex_lock(&workers->lock);
	reactor_op_list_move(&workers->queue, list);
	wake = wanted < workers->idle ? wanted : workers->idle;
	pthread_mutex_unlock(&workers->lock);
	while (wake--)
		pthread_cond_signal(&workers->work);
}

bool reactor_workers_cancel(struct reactor_workers *workers, struct reactor_op *op)
{
	bool ours;

	pthread_mutex_lock(&workers->lock);
	ours = reactor_op_list_remove(&workers->queue, op);
	pthread_mutex_unlock(&workers->lock);
	return ours;
}

void reactor_workers_destroy(struct reactor_workers *workers)
{
	if (!workers)
		return;
	pthread_mutex_lock(&workers->lock);
	workers->stop = true;
	pthread_cond_broadcast(&workers->work);
	pthread_mutex_unlock(&workers->lock);
	for (u32 i = 0; i < workers->count; i++)
		pthread_join(workers->threads[i], NULL);
	sem_destroy(&workers->ready);
	pthread_cond_destroy(&workers->work);
	pthread_mutex_destroy(&workers->lock);
	free(workers);
}
