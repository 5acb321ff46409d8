/*
 * A reactor on epoll, for hosts that forbid io_uring (containers do by default): eventfds and taps
 * are read and written here without blocking and waited for by epoll, file I/O goes to the worker
 * threads. Runs on the reactor's thread, but for set-up.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "vm/log.h"
#include "vm/reactor-engine.h"

#define BATCH 256

/* A file that can be waited for, by reactor_file. */
struct epoll_file {
	struct reactor_op_list waiting;
	u32 watched; /* events epoll reports now; 0: not in the set */
};

struct epoll {
	int fd;
	struct epoll_file *files;
	struct reactor_op_list fresh; /* submitted in this sweep, for this thread */
	struct reactor_op_list disk;  /* the same, for the workers */
	struct epoll_event ready[BATCH];
	int ready_count;
};

static const u64 one = 1;

static int epoll_engine_create(struct reactor *reactor)
{
	struct epoll *epoll = calloc(1, sizeof(*epoll));
	int error;

	if (!epoll)
		return -ENOMEM;
	reactor_op_list_init(&epoll->fresh);
	reactor_op_list_init(&epoll->disk);
	epoll->files = calloc(reactor->reactors->max_files, sizeof(*epoll->files));
	epoll->fd = epoll_create1(EPOLL_CLOEXEC);
	if (!epoll->files || epoll->fd < 0) {
		error = epoll->fd < 0 ? -errno : -ENOMEM;
		if (epoll->fd >= 0)
			close(epoll->fd);
		free(epoll->files);
		free(epoll);
		return error;
	}
	for (u32 i = 0; i < reactor->reactors->max_files; i++)
		reactor_op_list_init(&epoll->files[i].waiting);
	reactor->ring = epoll;
	return 0;
}

static void epoll_engine_destroy(struct reactor *reactor)
{
	struct epoll *epoll = reactor->ring;

	close(epoll->fd);
	free(epoll->files);
	free(epoll);
	reactor->ring = NULL;
}

static u32 wanted_events(const struct reactor_op *op)
{
	switch (op->code) {
	case REACTOR_READV:
		return EPOLLIN;
	case REACTOR_WRITEV:
		return EPOLLOUT;
	case REACTOR_POLL:
		return op->flags;
	case REACTOR_FSYNC:
	case REACTOR_FALLOCATE:
	case REACTOR_MADVISE:
	case REACTOR_CODES:
		break;
	}
	return 0;
}

/* Makes epoll report `events` of a file, and nothing else. 0 or -errno. */
static int watch(struct reactor *reactor, reactor_file file, u32 events)
{
	struct epoll *epoll = reactor->ring;
	struct epoll_file *f = &epoll->files[file];
	struct epoll_event event = { .events = events, .data.u32 = (u32)file };
	int op = !events ? EPOLL_CTL_DEL : f->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	if (events == f->watched)
		return 0;
	f->watched = events;
	return epoll_ctl(epoll->fd, op, reactor->reactors->fds[file], &event) < 0 ? -errno : 0;
}

static int epoll_engine_file_set(struct reactor *reactor, reactor_file file, int fd)
{
	struct epoll *epoll = reactor->ring;

	if (fd == -1 && epoll->files[file].watched)
		watch(reactor, file, 0);
	return 0;
}

static int epoll_engine_begin(struct reactor *reactor)
{
	(void)reactor;
	return 0;
}

static void epoll_engine_end(struct reactor *reactor)
{
	(void)reactor;
}

static void epoll_engine_submit(struct reactor *reactor, struct reactor_op *op)
{
	struct epoll *epoll = reactor->ring;
	bool here = op->code != REACTOR_MADVISE && (op->code == REACTOR_POLL || op->nonblocking ||
						    !reactor->reactors->storage[op->file]);

	op->state = REACTOR_OP_QUEUED;
	reactor_op_list_append(here ? &epoll->fresh : &epoll->disk, op);
}

/* What has ended, or is with a worker that has begun it, is not found and ends by itself. */
static void epoll_engine_cancel(struct reactor *reactor, struct reactor_op *op)
{
	struct epoll *epoll = reactor->ring;
	struct epoll_file *file;
	bool ours;

	if (op->state == REACTOR_OP_IDLE)
		return;
	file = &epoll->files[op->file];
	ours = reactor_op_list_remove(&file->waiting, op) ||
	       reactor_op_list_remove(&epoll->fresh, op) ||
	       reactor_op_list_remove(&epoll->disk, op) ||
	       reactor_workers_cancel(reactor->reactors->workers, op);
	/* Now, as the owner may close its descriptor next and the number may come to mean another
	 * file. */
	if (!file->waiting.first)
		watch(reactor, op->file, 0);
	if (ours)
		reactor_complete(reactor, op, -ECANCELED);
}

static void epoll_engine_signal(struct reactor *reactor, reactor_file eventfd)
{
	if (write(reactor->reactors->fds[eventfd], &one, sizeof(one)) < 0) {
		/* EAGAIN: 2^64-1 are pending, one more says nothing new */
	}
}

static void wait_for(struct reactor *reactor, struct reactor_op *op)
{
	struct epoll *epoll = reactor->ring;
	struct epoll_file *file = &epoll->files[op->file];
	int error = watch(reactor, op->file, file->watched | wanted_events(op));

	if (error) {
		file->watched = 0;
		if (error == -EPERM && op->code == REACTOR_POLL) /* a disk file is always ready */
			error = (int)(op->flags & (POLLIN | POLLOUT));
		reactor_complete(reactor, op, error);
		return;
	}
	op->state = REACTOR_OP_WAITING;
	reactor_op_list_append(&file->waiting, op);
}

/* Writes are tried at once, as there mostly is room; reads wait to be told, as there mostly is
 * nothing yet. */
static void begin_op(struct reactor *reactor, struct reactor_op *op)
{
	bool transfer = op->code == REACTOR_READV || op->code == REACTOR_WRITEV;
	s32 result;

	if (op->code == REACTOR_POLL || (op->code == REACTOR_READV && !op->nonblocking)) {
		wait_for(reactor, op);
		return;
	}
	result = transfer ? reactor_transfer(op) : -EINVAL;
	if (result == -EAGAIN && !op->nonblocking)
		wait_for(reactor, op);
	else
		reactor_complete(reactor, op, result);
}

static void epoll_engine_enter(struct reactor *reactor, bool wait)
{
	struct epoll *epoll = reactor->ring;
	struct reactor_op *op;

	while ((op = reactor_op_list_take(&epoll->fresh)))
		begin_op(reactor, op);
	if (epoll->disk.first)
		reactor_workers_submit(reactor->reactors->workers, &epoll->disk);
	if (reactor->completed.first)
		wait = false;
	counter_add(&reactor->counts.enters, 1);
	epoll->ready_count = epoll_wait(epoll->fd, epoll->ready, BATCH, wait ? -1 : 0);
	if (epoll->ready_count >= 0)
		return;
	if (errno != EINTR) {
		log_line("reactor%u: epoll_wait: %s; this is a bug", reactor->number,
			 strerror(errno));
		abort();
	}
	epoll->ready_count = 0;
}

/* A file has events: those of its operations that can go on do; what nobody waits for any more is
 * not watched. */
static void file_ready(struct reactor *reactor, reactor_file number, u32 events)
{
	struct epoll *epoll = reactor->ring;
	struct epoll_file *file = &epoll->files[number];
	struct reactor_op_list todo = file->waiting;
	struct reactor_op *op, *next;
	u32 wanted = 0;

	if (!todo.first) {
		watch(reactor, number, 0);
		return;
	}
	reactor_op_list_init(&file->waiting);
	for (op = todo.first; op; op = next) {
		u32 hit = events & (wanted_events(op) | EPOLLERR | EPOLLHUP);
		s32 result = -EAGAIN;

		next = op->next;
		if (hit)
			result = op->code == REACTOR_POLL ? (s32)hit : reactor_transfer(op);
		if (result == -EAGAIN) {
			wanted |= wanted_events(op);
			reactor_op_list_append(&file->waiting, op);
		} else {
			reactor_complete(reactor, op, result);
		}
	}
	/* A level that stays up with only others waiting would wake us for nothing. */
	if (events & file->watched & ~wanted & ~(u32)(EPOLLERR | EPOLLHUP) && wanted)
		watch(reactor, number, wanted);
}

static void epoll_engine_reap(struct reactor *reactor)
{
	struct epoll *epoll = reactor->ring;
	struct reactor_op_list list;
	struct reactor_op *op, *next;

	/* Nothing is called back here, so no entry can go stale before its turn. */
	for (int i = 0; i < epoll->ready_count; i++)
		file_ready(reactor, (reactor_file)epoll->ready[i].data.u32, epoll->ready[i].events);
	epoll->ready_count = 0;
	list = reactor->completed;
	reactor_op_list_init(&reactor->completed);
	for (op = list.first; op; op = next) {
		next = op->next;
		reactor_op_done(op, op->result);
	}
}

const struct reactor_engine reactor_engine_epoll = {
	.name = "epoll",
	.create = epoll_engine_create,
	.destroy = epoll_engine_destroy,
	.file_set = epoll_engine_file_set,
	.begin = epoll_engine_begin,
	.end = epoll_engine_end,
	.submit = epoll_engine_submit,
	.cancel = epoll_engine_cancel,
	.signal = epoll_engine_signal,
	.enter = epoll_engine_enter,
	.reap = epoll_engine_reap,
};
