/*
 * The second ring of a reactor (IORING_SETUP_IOPOLL), for reads and writes of O_DIRECT files whose
 * devices can be polled: no interrupt ends them, io_uring_enter asks the device. While any is in
 * flight its reactor does not sleep. What turns out not to work here goes to the first ring. On the
 * reactor's thread, but for set-up.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include "vm/log.h"
#include "vm/reactor-uring.h"

static const u8 allowed_ops[] = {
	IORING_OP_READ,
	IORING_OP_READV,
	IORING_OP_WRITE,
	IORING_OP_WRITEV,
};

void uring_iopoll_create(struct reactor *reactor)
{
	struct uring *uring = reactor->ring;
	struct uring_iopoll *iopoll = &uring->iopoll;
	int error = uring_ring_make_iopoll(reactor, &iopoll->ring);

	reactor_op_list_init(&iopoll->waiting);
	if (!error) {
		error = uring_table_make(reactor, &iopoll->ring);
		if (error >= 0) {
			iopoll->there = true;
			return;
		}
		io_uring_queue_exit(&iopoll->ring);
	}
	log_line("reactor%u: iopoll: not possible here (%s); disks interrupt", reactor->number,
		 strerror(-error));
}

void uring_iopoll_destroy(struct uring *uring)
{
	if (uring->iopoll.there)
		io_uring_queue_exit(&uring->iopoll.ring);
}

int uring_iopoll_begin(struct uring *uring)
{
	if (!uring->iopoll.there)
		return 0;
	return uring_ring_open(uring, &uring->iopoll.ring, allowed_ops, ARRAY_SIZE(allowed_ops));
}

void uring_iopoll_end(struct uring *uring)
{
	if (uring->iopoll.there)
		io_uring_unregister_files(&uring->iopoll.ring);
}

int uring_iopoll_files_set(struct uring *uring, reactor_file file, const int *fds, u32 count)
{
	int n;

	if (!uring->iopoll.there || !count)
		return 0;
	n = io_uring_register_files_update(&uring->iopoll.ring, (unsigned int)file, fds, count);
	return n < 0 ? n : 0;
}

bool uring_iopoll_takes(const struct reactor *reactor, const struct reactor_op *op)
{
	return uring_is_transfer(op) && !op->nonblocking &&
	       atomic_load_explicit(&reactor->reactors->iopolled[op->file], memory_order_relaxed);
}

/* Completions are bounded by what the CQ holds, so none is ever left in the kernel. */
static bool start(struct uring_iopoll *iopoll, struct reactor_op *op)
{
	struct io_uring_sqe *sqe;

	if (iopoll->in_flight == URING_CQ_ENTRIES)
		return false;
	sqe = io_uring_get_sqe(&iopoll->ring);
	if (!sqe)
		return false;
	uring_prepare(sqe, op);
	op->state = REACTOR_OP_POLLED;
	iopoll->in_flight++;
	return true;
}

void uring_iopoll_submit(struct reactor *reactor, struct reactor_op *op)
{
	struct uring *uring = reactor->ring;
	struct uring_iopoll *iopoll = &uring->iopoll;

	if (!iopoll->waiting.first && start(iopoll, op))
		return;
	op->state = REACTOR_OP_QUEUED;
	reactor_op_list_append(&iopoll->waiting, op);
}

bool uring_iopoll_cancel(struct uring *uring, struct reactor_op *op)
{
	return uring->iopoll.there && reactor_op_list_remove(&uring->iopoll.waiting, op);
}

void uring_iopoll_enter(struct reactor *reactor)
{
	struct uring *uring = reactor->ring;
	struct uring_iopoll *iopoll = &uring->iopoll;
	struct reactor_op *op;
	int n;

	while ((op = iopoll->waiting.first) && start(iopoll, op))
		reactor_op_list_take(&iopoll->waiting);
	counter_add(&reactor->counts.enters, 1);
	n = io_uring_submit_and_get_events(&iopoll->ring);
	/* Short of memory, or of room for completions: the SQEs stay. */
	if (n < 0 && n != -EINTR && n != -EAGAIN && n != -EBUSY) {
		log_line("reactor%u: io_uring_enter (iopoll): %s; this is a bug", reactor->number,
			 strerror(-n));
		abort();
	}
}

/* The file's other operations find out by themselves. */
static void give_up(struct reactor *reactor, reactor_file file)
{
	const char *name = atomic_exchange(&reactor->reactors->iopolled[file], NULL);

	if (name)
		log_line("%s: iopoll: its device or file system cannot be polled, so it is waited "
			 "for "
			 "(NVMe can with nvme.poll_queues=N)",
			 name);
}

static void op_ended(struct reactor *reactor, struct reactor_op *op, s32 result)
{
	if (result == -EOPNOTSUPP)
		give_up(reactor, op->file);
	/* EAGAIN: the device's queue is full, and here nobody waits for room */
	if (result == -EOPNOTSUPP || result == -EAGAIN) {
		uring_submit_plain(reactor, op);
		return;
	}
	counter_add(&reactor->counts.polled, 1);
	reactor_op_done(op, result);
}

void uring_iopoll_reap(struct reactor *reactor)
{
	struct uring *uring = reactor->ring;
	struct uring_iopoll *iopoll = &uring->iopoll;
	struct io_uring_cqe *cqe;
	unsigned int head, n = 0;

	io_uring_for_each_cqe(&iopoll->ring, head, cqe)
	{
		iopoll->in_flight--;
		op_ended(reactor, io_uring_cqe_get_data(cqe), cqe->res);
		if (++n == REACTOR_BUDGET)
			break;
	}
	io_uring_cq_advance(&iopoll->ring, n);
}
