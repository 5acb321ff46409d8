/*
 * A reactor on io_uring: one ring a thread, registered files only, restricted to the operations
 * below, one io_uring_enter a sweep that submits everything and waits. Runs on the reactor's
 * thread, but for set-up.
 *
 * Kernels from 5.15 on do; what later ones added (io_uring_setup(2)) is taken where it is there.
 */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>
#include "vm/log.h"
#include "vm/reactor-engine.h"

#define SQ_ENTRIES 1024u
#define CQ_ENTRIES 4096u

struct uring {
	struct io_uring ring;
	struct reactor_op_list overflow; /* submitted while the SQ was full */
	struct reactor_op *cancels;	 /* in flight, to be cancelled when the SQ has room */
	bool skip;			 /* IOSQE_CQE_SKIP_SUCCESS */
	bool flagged_cancel;		 /* ASYNC_CANCEL may carry IOSQE_FIXED_FILE */
	u32 silent;			 /* without skip: completions to come that are nobody's */
	bool *no_nowait;		 /* by file: RWF_NOWAIT is not supported */
};

/* Completions without an owner: signals, cancellations. */
#define NOBODY 0

static const u64 one = 1;

static const u8 allowed_ops[] = {
	IORING_OP_READ,	 IORING_OP_READV,     IORING_OP_WRITE,	  IORING_OP_WRITEV,
	IORING_OP_FSYNC, IORING_OP_FALLOCATE, IORING_OP_POLL_ADD, IORING_OP_ASYNC_CANCEL,
};

/* Later than begin(): files of hotplugged devices, and end(). */
static const u8 allowed_register[] = {
	IORING_REGISTER_FILES_UPDATE,
	IORING_UNREGISTER_RING_FDS,
	IORING_UNREGISTER_FILES,
};

static bool refused(const struct reactor *reactor, u32 feature)
{
	return reactor->reactors->config.refuse & feature;
}

/* ---- set-up ---- */

/* Each flag is worth having and none is needed, but the first two; the newest is given up first. */
static int ring_make(struct reactor *reactor, struct io_uring *ring)
{
	static const struct {
		u32 flag, refusal;
	} steps[] = {
		{ IORING_SETUP_DEFER_TASKRUN, REACTOR_REFUSE_DEFER_TASKRUN },
		{ IORING_SETUP_SINGLE_ISSUER, REACTOR_REFUSE_SINGLE_ISSUER },
		/* the flag in the ring tells busy-polling of completions that wait in the kernel */
		{ IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
		  REACTOR_REFUSE_COOP_TASKRUN },
		{ IORING_SETUP_SUBMIT_ALL, REACTOR_REFUSE_SUBMIT_ALL },
	};
	u32 flags = IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE;
	int error;

	for (u32 i = 0; i < ARRAY_SIZE(steps); i++)
		if (!refused(reactor, steps[i].refusal))
			flags |= steps[i].flag;
	if (!(flags & IORING_SETUP_SINGLE_ISSUER))
		flags &= ~IORING_SETUP_DEFER_TASKRUN; /* needs it */
	for (u32 i = 0;; i++) {
		struct io_uring_params params = { .flags = flags, .cq_entries = CQ_ENTRIES };

		error = io_uring_queue_init_params(SQ_ENTRIES, ring, &params);
		if (error != -EINVAL || i == ARRAY_SIZE(steps))
			return error;
		flags &= ~steps[i].flag;
	}
}

/* An empty table of registered files. Returns 1 if it was made the way of 5.19 and later. */
static int table_make(struct reactor *reactor, struct io_uring *ring)
{
	u32 count = reactor->reactors->max_files;
	int error = -EINVAL;
	int *none;

	if (!refused(reactor, REACTOR_REFUSE_SPARSE))
		error = io_uring_register_files_sparse(ring, count);
	if (!error)
		return 1;
	none = malloc(count * sizeof(*none));
	if (!none)
		return -ENOMEM;
	for (u32 i = 0; i < count; i++)
		none[i] = -1;
	error = io_uring_register_files(ring, none, count);
	free(none);
	return error;
}

static int uring_create(struct reactor *reactor)
{
	struct uring *uring = calloc(1, sizeof(*uring));
	int error = -ENOMEM;

	if (!uring)
		return -ENOMEM;
	reactor_op_list_init(&uring->overflow);
	uring->no_nowait = calloc(reactor->reactors->max_files, sizeof(*uring->no_nowait));
	if (!uring->no_nowait)
		goto free_uring;
	error = ring_make(reactor, &uring->ring);
	if (error)
		goto free_uring;
	error = table_make(reactor, &uring->ring);
	if (error < 0)
		goto exit_ring;
	/* Until 5.19 a cancellation that carried the flag was refused. */
	uring->flagged_cancel = error;
	uring->skip = uring->ring.features & IORING_FEAT_CQE_SKIP &&
		      !refused(reactor, REACTOR_REFUSE_CQE_SKIP);
	reactor->ring = uring;
	return 0;
exit_ring:
	io_uring_queue_exit(&uring->ring);
free_uring:
	free(uring->no_nowait);
	free(uring);
	return error;
}

static void uring_destroy(struct reactor *reactor)
{
	struct uring *uring = reactor->ring;

	io_uring_queue_exit(&uring->ring);
	free(uring->no_nowait);
	free(uring);
	reactor->ring = NULL;
}

static int uring_file_set(struct reactor *reactor, reactor_file file, int fd)
{
	struct uring *uring = reactor->ring;
	int n = io_uring_register_files_update(&uring->ring, (unsigned int)file, &fd, 1);

	uring->no_nowait[file] =
		refused(reactor, REACTOR_REFUSE_NOWAIT) && !reactor->reactors->storage[file];
	return n < 0 ? n : 0;
}

/* seccomp does not see what a ring does, so the ring itself is told what it may. (liburing 2.3
 * declares functions for this and for enabling the ring, and forgot to export them.) */
static int restrict_ring(struct uring *uring)
{
	struct io_uring_restriction
		list[ARRAY_SIZE(allowed_ops) + ARRAY_SIZE(allowed_register) + 2] = {};
	u32 n = 0;

	for (u32 i = 0; i < ARRAY_SIZE(allowed_ops); i++)
		list[n++] = (struct io_uring_restriction){ .opcode = IORING_RESTRICTION_SQE_OP,
							   .sqe_op = allowed_ops[i] };
	for (u32 i = 0; i < ARRAY_SIZE(allowed_register); i++)
		list[n++] = (struct io_uring_restriction){ .opcode = IORING_RESTRICTION_REGISTER_OP,
							   .register_op = allowed_register[i] };
	list[n++] = (struct io_uring_restriction){
		.opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED,
		.sqe_flags = IOSQE_FIXED_FILE | (uring->skip ? IOSQE_CQE_SKIP_SUCCESS : 0),
	};
	if (uring->flagged_cancel)
		list[n++] = (struct io_uring_restriction){
			.opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED,
			.sqe_flags = IOSQE_FIXED_FILE,
		};
	return io_uring_register((unsigned int)uring->ring.ring_fd, IORING_REGISTER_RESTRICTIONS,
				 list, n);
}

static int uring_begin(struct reactor *reactor)
{
	struct uring *uring = reactor->ring;
	int error;

	/* Saves the lookup of the ring's own file in each enter; 5.18 on. */
	if (!refused(reactor, REACTOR_REFUSE_RING_FD))
		io_uring_register_ring_fd(&uring->ring);
	error = restrict_ring(uring);
	if (error)
		return error;
	return io_uring_register((unsigned int)uring->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS,
				 NULL, 0);
}

static void uring_end(struct reactor *reactor)
{
	struct uring *uring = reactor->ring;

	/* Waits until the kernel has let go of them: locks and taps are free when this returns, not
	 * at some time after the process. */
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

static void prepare_op(struct io_uring_sqe *sqe, const struct reactor_op *op)
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
	case REACTOR_CODES:
		break;
	}
	io_uring_sqe_set_data(sqe, (void *)op);
	sqe->flags = IOSQE_FIXED_FILE;
}

static bool is_transfer(const struct reactor_op *op)
{
	return op->code == REACTOR_READV || op->code == REACTOR_WRITEV;
}

static void uring_submit(struct reactor *reactor, struct reactor_op *op)
{
	struct uring *uring = reactor->ring;
	struct io_uring_sqe *sqe;

	if (op->nonblocking && is_transfer(op) && uring->no_nowait[op->file]) {
		reactor_complete(reactor, op, reactor_transfer(op));
		return;
	}
	sqe = uring->overflow.first ? NULL : io_uring_get_sqe(&uring->ring);
	if (!sqe) {
		op->state = REACTOR_OP_QUEUED;
		reactor_op_list_append(&uring->overflow, op);
		return;
	}
	op->state = REACTOR_OP_FLIGHT;
	prepare_op(sqe, op);
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

static void uring_cancel(struct reactor *reactor, struct reactor_op *op)
{
	struct uring *uring = reactor->ring;

	if (op->state == REACTOR_OP_QUEUED) {
		reactor_op_list_remove(&uring->overflow, op);
		reactor_complete(reactor, op, -ECANCELED);
	} else if (op->state == REACTOR_OP_FLIGHT && !cancel_now(uring, op)) {
		op->state = REACTOR_OP_CANCEL;
		op->next = uring->cancels;
		uring->cancels = op;
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
		prepare_op(sqe, op);
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

static void uring_enter(struct reactor *reactor, bool wait)
{
	struct uring *uring = reactor->ring;
	u32 silent = uring->silent;
	int n;

	if (!refill(uring) || io_uring_cq_ready(&uring->ring))
		wait = false;
	reactor_count(&reactor->counts.enters, 1);
	/* Eventfd writes complete while they are submitted; where they cannot be told to be silent,
	 * the wait is for one completion more than theirs. */
	if (wait)
		n = io_uring_submit_and_wait(&uring->ring, 1 + silent);
	else
		n = io_uring_submit_and_get_events(&uring->ring);
	uring->silent = 0;
	/* EAGAIN, EBUSY: the kernel is short of memory, or has completions for us to take first.
	 * The SQEs stay. */
	if (n < 0 && n != -EINTR && n != -EAGAIN && n != -EBUSY) {
		log_line("reactor%u: io_uring_enter: %s; this is a bug", reactor->number,
			 strerror(-n));
		abort();
	}
}

static bool uring_unsubmitted(struct reactor *reactor)
{
	struct uring *uring = reactor->ring;

	return io_uring_sq_ready(&uring->ring) || uring->overflow.first || uring->cancels;
}

/* With the task-run flags completions stay in the kernel until it is entered; it says so in the
 * ring. */
static bool uring_completed(struct reactor *reactor)
{
	struct uring *uring = reactor->ring;

	if (!io_uring_cq_ready(&uring->ring) && IO_URING_READ_ONCE(*uring->ring.sq.kflags) &
							(IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW))
		uring_enter(reactor, false);
	return io_uring_cq_ready(&uring->ring);
}

static void op_ended(struct reactor *reactor, struct reactor_op *op, s32 result)
{
	struct uring *uring = reactor->ring;

	if (op->state == REACTOR_OP_CANCEL)
		cancels_forget(uring, op);
	op->state = REACTOR_OP_IDLE;
	if (result == -EOPNOTSUPP && op->nonblocking && !reactor->reactors->storage[op->file] &&
	    is_transfer(op)) {
		/* A driver without RWF_NOWAIT (taps before 6.4): only the call itself says "not
		 * now". */
		uring->no_nowait[op->file] = true;
		result = reactor_transfer(op);
	}
	op->done(op, result);
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
}

const struct reactor_engine reactor_engine_uring = {
	.name = "io_uring",
	.create = uring_create,
	.destroy = uring_destroy,
	.file_set = uring_file_set,
	.begin = uring_begin,
	.end = uring_end,
	.submit = uring_submit,
	.cancel = uring_cancel,
	.signal = uring_signal,
	.enter = uring_enter,
	.unsubmitted = uring_unsubmitted,
	.completed = uring_completed,
	.reap = uring_reap,
};
