/*
 * A reactor on io_uring: one ring a thread, registered files only, restricted to the operations
 * below, one io_uring_enter a sweep that submits everything and waits. Runs on the reactor's
 * thread, but for set-up.
 *
 * With sqpoll a thread of the kernel's takes what is submitted, so an enter only waits (or wakes
 * that thread). A second ring polls disks that can be polled: reactor-iopoll.c.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>
#include "vm/log.h"
#include "vm/reactor-uring.h"

/* Completions without an owner: signals, cancellations. */
#define NOBODY 0

static const u64 one = 1;

static const u8 allowed_ops[] = {
	IORING_OP_READ,	    IORING_OP_READV,	    IORING_OP_WRITE,
	IORING_OP_WRITEV,   IORING_OP_FSYNC,	    IORING_OP_FALLOCATE,
	IORING_OP_POLL_ADD, IORING_OP_ASYNC_CANCEL, IORING_OP_MADVISE,
};

static void uring_enter(struct reactor *reactor, bool wait);

/* ---- set-up ---- */

static void free_uring(struct uring *uring)
{
	free(uring->first);
	free(uring->no_nowait);
	free(uring->waiting);
	free(uring->renewing);
	free(uring);
}

static int uring_create(struct reactor *reactor)
{
	struct uring *uring = calloc(1, sizeof(*uring));
	int error = -ENOMEM;

	if (!uring)
		return -ENOMEM;
	reactor_op_list_init(&uring->overflow);
	uring->no_nowait = calloc(reactor->reactors->max_files, sizeof(*uring->no_nowait));
	uring->waiting = calloc(reactor->reactors->max_files, sizeof(*uring->waiting));
	uring->renewing = calloc(reactor->reactors->max_files, sizeof(*uring->renewing));
	uring->first = malloc(reactor->reactors->max_files * sizeof(*uring->first));
	if (!uring->no_nowait || !uring->waiting || !uring->renewing || !uring->first)
		goto free_uring;
	uring->sqpoll = reactor->reactors->config.sqpoll;
	error = uring_ring_make(reactor, &uring->ring, &uring->sqpoll);
	if (error)
		goto free_uring;
	error = uring->ring.features & IORING_FEAT_EXT_ARG ? 0 : -ENOSYS; /* 5.11: naps */
	if (error)
		goto exit_ring;
	error = uring_table_make(reactor, &uring->ring);
	if (error < 0)
		goto exit_ring;
	/* Until 5.19 a cancellation that carried the flag was refused. */
	uring->flagged_cancel = error;
	uring->skip = uring->ring.features & IORING_FEAT_CQE_SKIP &&
		      !uring_refused(reactor, REACTOR_REFUSE_CQE_SKIP);
	reactor->ring = uring;
	if (reactor->reactors->config.iopoll)
		uring_iopoll_create(reactor);
	return 0;
exit_ring:
	io_uring_queue_exit(&uring->ring);
free_uring:
	free_uring(uring);
	return error;
}

static void uring_destroy(struct reactor *reactor)
{
	struct uring *uring = reactor->ring;

	uring_iopoll_destroy(uring);
	io_uring_queue_exit(&uring->ring);
	free_uring(uring);
	reactor->ring = NULL;
}

static int uring_file_set(struct reactor *reactor, reactor_file file, int fd)
{
	struct uring *uring = reactor->ring;
	int n;

	uring->no_nowait[file] =
		uring_refused(reactor, REACTOR_REFUSE_NOWAIT) && !reactor->reactors->storage[file];
	if (!uring->open) { /* one call tells the kernel of all, in begin() */
		while (uring->first_count <= (u32)file)
			uring->first[uring->first_count++] = -1;
		uring->first[file] = fd;
		return 0;
	}
	/* Interrupts that the kernel's thread has yet to take mean the number's old file. */
	if (uring->sqpoll && io_uring_sq_ready(&uring->ring)) {
		uring_enter(reactor, false);
		while (io_uring_sq_ready(&uring->ring))
			sched_yield();
	}
	n = io_uring_register_files_update(&uring->ring, (unsigned int)file, &fd, 1);
	return n < 0 ? n : uring_iopoll_files_set(uring, file, &fd, 1);
}

static int set_first_files(struct uring *uring)
{
	int n = 0;

	if (uring->first_count)
		n = io_uring_register_files_update(&uring->ring, 0, uring->first,
						   uring->first_count);
	if (n >= 0)
		n = uring_iopoll_files_set(uring, 0, uring->first, uring->first_count);
	free(uring->first);
	uring->first = NULL;
	return n < 0 ? n : 0;
}

static int uring_begin(struct reactor *reactor)
{
	struct uring *uring = reactor->ring;
	int error = set_first_files(uring);

	if (error)
		return error;
	/* Saves the lookup of the ring's own file in each enter; 5.18 on. */
	if (!uring_refused(reactor, REACTOR_REFUSE_RING_FD))
		io_uring_register_ring_fd(&uring->ring);
	error = uring_ring_open(uring, &uring->ring, allowed_ops, ARRAY_SIZE(allowed_ops));
	uring->open = !error;
	return error ? error : uring_iopoll_begin(uring);
}

static void uring_end(struct reactor *reactor)
{
	struct uring *uring = reactor->ring;

	/* Waits until the kernel has let go of them: locks and taps are free when this returns, not
	 * at some time after the process. */
	uring_iopoll_end(uring);
	io_uring_unregister_files(&uring->ring);
	/* Here and not in destroy(): it is this thread's registration. */
	if (uring->ring.enter_ring_fd != uring->ring.ring_fd)
		io_uring_unregister_ring_fd(&uring->ring);
}

/* ---- submission ---- */

static inline void prepare_transfer(struct io_uring_sqe *sqe, const struct reactor_op *op)
{
	bool write = op->code == REACTOR_WRITEV;

	/* One buffer needs no iovec to be copied in. */
	if (op->iov_count == 1 && op->iov->iov_len <= INT32_MAX)
		io_uring_prep_rw(write ? IORING_OP_WRITE : IORING_OP_READ, sqe, op->file,
				 op->iov->iov_base, (u32)op->iov->iov_len, op->offset);
	else
		io_uring_prep_rw(write ? IORING_OP_WRITEV : IORING_OP_READV, sqe, op->file, op->iov,
				 op->iov_count, op->offset);
	sqe->rw_flags = (int)op->flags | (op->nonblocking ? RWF_NOWAIT : 0);
}

void uring_prepare(struct io_uring_sqe *sqe, const struct reactor_op *op)
{
	u32 length = (u32)op->length;
	u64 offset = op->offset;

	switch (op->code) {
	case REACTOR_READV:
	case REACTOR_WRITEV:
		prepare_transfer(sqe, op);
		break;
	case REACTOR_FSYNC:
		io_uring_prep_fsync(sqe, op->file, op->flags);
		if (op->length <= UINT32_MAX) { /* else all of it */
			sqe->off = offset;
			sqe->len = length;
		}
		break;
	case REACTOR_FALLOCATE:
		io_uring_prep_fallocate(sqe, op->file, (int)op->flags, (off_t)offset,
					(off_t)op->length);
		break;
	case REACTOR_POLL:
		io_uring_prep_poll_add(sqe, op->file, op->flags);
		break;
	case REACTOR_MADVISE:
		io_uring_prep_madvise(sqe, op->iov->iov_base, (off_t)op->iov->iov_len,
				      (int)op->flags);
		break;
	case REACTOR_CODES:
		break;
	}
	io_uring_sqe_set_data(sqe, (void *)op);
	sqe->flags = IOSQE_FIXED_FILE;
}

void uring_submit_plain(struct reactor *reactor, struct reactor_op *op)
{
	struct uring *uring = reactor->ring;
	struct io_uring_sqe *sqe = uring->overflow.first ? NULL : io_uring_get_sqe(&uring->ring);

	if (!sqe) {
		op->state = REACTOR_OP_QUEUED;
		reactor_op_list_append(&uring->overflow, op);
		return;
	}
	op->state = REACTOR_OP_FLIGHT;
	uring_prepare(sqe, op);
}

static void uring_submit(struct reactor *reactor, struct reactor_op *op)
{
	struct uring *uring = reactor->ring;

	if (op->nonblocking && uring_is_transfer(op) && uring->no_nowait[op->file])
		reactor_complete(reactor, op, reactor_transfer(op));
	else if (uring->iopoll.there && uring_iopoll_takes(reactor, op))
		uring_iopoll_submit(reactor, op);
	else
		uring_submit_plain(reactor, op);
	if (op->code != REACTOR_MADVISE && !op->nonblocking &&
	    !reactor->reactors->storage[op->file])
		uring->waiting[op->file] = op;
}

static void prepare_nobody(struct uring *uring, struct io_uring_sqe *sqe, u32 flags)
{
	io_uring_sqe_set_data64(sqe, NOBODY);
	sqe->flags = (u8)(flags | (uring->skip ? IOSQE_CQE_SKIP_SUCCESS : 0));
	uring->silent += !uring->skip;
}

static bool cancel_now(struct uring *uring, struct reactor_op *op)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);

	if (!sqe)
		return false;
	io_uring_prep_cancel(sqe, op, 0);
	prepare_nobody(uring, sqe, uring->flagged_cancel ? IOSQE_FIXED_FILE : 0);
	return true;
}

static void cancel_op(struct reactor *reactor, struct reactor_op *op)
{
	struct uring *uring = reactor->ring;

	if (op->state == REACTOR_OP_QUEUED) {
		if (!uring_iopoll_cancel(uring, op))
			reactor_op_list_remove(&uring->overflow, op);
		reactor_complete(reactor, op, -ECANCELED);
	} else if (op->state == REACTOR_OP_FLIGHT && !cancel_now(uring, op)) {
		op->state = REACTOR_OP_CANCEL;
		op->next = uring->cancels;
		uring->cancels = op;
	}
}

static void uring_cancel(struct reactor *reactor, struct reactor_op *op)
{
	struct uring *uring = reactor->ring;

	if (uring->waiting[op->file] == op) { /* it is not to be started again */
		uring->waiting[op->file] = NULL;
		uring->renewing[op->file] = false;
	}
	cancel_op(reactor, op);
}

/*
 * Until Linux 6.13 a ring keeps a removed file for as long as any operation waits that was started
 * before the removal, be it on another file. Doorbells and taps wait for ever, so those that do are
 * cancelled and started again; their owners do not notice.
 */
static void uring_renew(struct reactor *reactor)
{
	struct uring *uring = reactor->ring;

	for (u32 file = 0; file < reactor->reactors->max_files; file++) {
		struct reactor_op *op = uring->waiting[file];

		if (!op || op->state != REACTOR_OP_FLIGHT)
			continue;
		uring->renewing[file] = true;
		cancel_op(reactor, op);
	}
}

static void cancels_forget(struct uring *uring, const struct reactor_op *op)
{
	struct reactor_op **link = &uring->cancels;

	while (*link && *link != op)
		link = &(*link)->next;
	if (*link)
		*link = op->next;
}

static void uring_signal(struct reactor *reactor, reactor_file eventfd)
{
	struct uring *uring = reactor->ring;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);

	if (sqe) {
		io_uring_prep_write(sqe, eventfd, &one, sizeof(one), (u64)-1);
		prepare_nobody(uring, sqe, IOSQE_FIXED_FILE);
	} else if (write(reactor->reactors->fds[eventfd], &one, sizeof(one)) < 0) {
		/* EAGAIN: 2^64-1 are pending, one more says nothing new */
	}
}

/* ---- the sweep ---- */

/* Brings what waited for room into the SQ. True if all of it went in. */
static bool refill(struct uring *uring)
{
	while (uring->overflow.first) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
		struct reactor_op *op;

		if (!sqe)
			return false;
		op = reactor_op_list_take(&uring->overflow);
		op->state = REACTOR_OP_FLIGHT;
		uring_prepare(sqe, op);
	}
	while (uring->cancels) {
		struct reactor_op *op = uring->cancels;

		if (!cancel_now(uring, op))
			return false;
		uring->cancels = op->next;
		op->state = REACTOR_OP_FLIGHT;
	}
	return true;
}

/* With the task-run flags completions stay in the kernel until it is entered; it says so in the
 * ring. */
static bool kernel_has_completions(const struct uring *uring)
{
	return IO_URING_READ_ONCE(*uring->ring.sq.kflags) &
	       (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW);
}

static bool uring_unsubmitted(struct reactor *reactor)
{
	struct uring *uring = reactor->ring;

	/* With sqpoll the SQ is emptied by another; what counts is whether that one was told. */
	bool unsubmitted = uring->sqpoll ? uring->ring.sq.sqe_head != uring->ring.sq.sqe_tail
					 : io_uring_sq_ready(&uring->ring);

	return unsubmitted || uring->overflow.first || uring->cancels;
}

static int submit(struct reactor *reactor, bool wait, u64 nap_ns)
{
	struct __kernel_timespec most = { .tv_nsec = (long long)nap_ns };
	struct uring *uring = reactor->ring;
	u32 silent = uring->silent;
	struct io_uring_cqe *cqe;

	uring->silent = 0;
	/* Eventfd writes complete while they are submitted; where they cannot be told to be silent,
	 * the wait is for one completion more than theirs. */
	if (wait) {
		counter_add(&reactor->counts.enters, 1);
		if (nap_ns)
			return io_uring_submit_and_wait_timeout(&uring->ring, &cqe, 1 + silent,
								&most, NULL);
		return io_uring_submit_and_wait(&uring->ring, 1 + silent);
	}
	if (!uring->sqpoll) {
		counter_add(&reactor->counts.enters, 1);
		return io_uring_submit_and_get_events(&uring->ring);
	}
	/* No system call, unless the kernel's thread sleeps or the CQ has overflowed. */
	if (IO_URING_READ_ONCE(*uring->ring.sq.kflags) &
	    (IORING_SQ_NEED_WAKEUP | IORING_SQ_CQ_OVERFLOW))
		counter_add(&reactor->counts.enters, 1);
	return io_uring_submit(&uring->ring);
}

static void enter(struct reactor *reactor, bool wait, u64 nap_ns)
{
	struct uring *uring = reactor->ring;
	bool all, busy = uring_iopoll_busy(uring);
	int n;

	if (busy)
		uring_iopoll_enter(reactor);
	all = refill(uring);
	if (!all || busy || io_uring_cq_ready(&uring->ring))
		wait = false;
	if (!wait && !uring_unsubmitted(reactor) && !kernel_has_completions(uring))
		return;
	n = submit(reactor, wait, nap_ns);
	/* EAGAIN, EBUSY: the kernel is short of memory, or has completions for us to take first.
	 * The SQEs stay. */
	if (n < 0 && n != -EINTR && n != -EAGAIN && n != -EBUSY && n != -ETIME) {
		log_line("reactor%u: io_uring_enter: %s; this is a bug", reactor->number,
			 strerror(-n));
		abort();
	}
	if (!all && uring->sqpoll) /* until there is room again */
		io_uring_sqring_wait(&uring->ring);
}

static void uring_enter(struct reactor *reactor, bool wait)
{
	enter(reactor, wait, 0);
}

static void uring_nap(struct reactor *reactor, u64 ns)
{
	enter(reactor, true, ns);
}

static u32 uring_completed(struct reactor *reactor)
{
	struct uring *uring = reactor->ring;

	if (!io_uring_cq_ready(&uring->ring) && kernel_has_completions(uring))
		uring_enter(reactor, false);
	return io_uring_cq_ready(&uring->ring);
}

static bool uring_looks(const struct reactor *reactor)
{
	return uring_iopoll_busy(reactor->ring);
}

static void op_ended(struct reactor *reactor, struct reactor_op *op, s32 result)
{
	struct uring *uring = reactor->ring;

	if (op->state == REACTOR_OP_CANCEL)
		cancels_forget(uring, op);
	op->state = REACTOR_OP_IDLE;
	if (uring->waiting[op->file] == op) {
		bool renew = uring->renewing[op->file] && result == -ECANCELED;

		uring->waiting[op->file] = NULL;
		uring->renewing[op->file] = false;
		if (renew) {
			uring_submit(reactor, op);
			return;
		}
	}
	if (result == -EOPNOTSUPP && op->nonblocking && !reactor->reactors->storage[op->file] &&
	    uring_is_transfer(op)) {
		/* A driver without RWF_NOWAIT (taps before 6.4): only the call itself says "not
		 * now". */
		uring->no_nowait[op->file] = true;
		result = reactor_transfer(op);
	}
	reactor_op_done(op, result);
}

static void uring_reap(struct reactor *reactor)
{
	struct uring *uring = reactor->ring;
	const struct io_uring_cq *cq = &uring->ring.cq;
	u32 head = *cq->khead, ready = io_uring_smp_load_acquire(cq->ktail) - head;

	if (ready > REACTOR_BUDGET)
		ready = REACTOR_BUDGET;
	for (u32 i = 0; i < ready; i++) {
		const struct io_uring_cqe *cqe = &cq->cqes[(head + i) & cq->ring_mask];
		struct reactor_op *op = io_uring_cqe_get_data(cqe);

		if (op)
			op_ended(reactor, op, cqe->res);
	}
	io_uring_cq_advance(&uring->ring, ready);
	if (uring->iopoll.there)
		uring_iopoll_reap(reactor);
}

const struct reactor_engine reactor_engine_uring = {
	.name = "io_uring",
	.writes_nowait = true,
	.create = uring_create,
	.destroy = uring_destroy,
	.file_set = uring_file_set,
	.begin = uring_begin,
	.end = uring_end,
	.submit = uring_submit,
	.cancel = uring_cancel,
	.renew = uring_renew,
	.signal = uring_signal,
	.enter = uring_enter,
	.nap = uring_nap,
	.unsubmitted = uring_unsubmitted,
	.completed = uring_completed,
	.looks = uring_looks,
	.reap = uring_reap,
};
