/*
 * What the files of the io_uring engine share: reactor-ring.c makes rings and says what they may
 * do, reactor-uring.c drives the one that everything goes through, reactor-iopoll.c the second one
 * that some disks have. On the reactor's thread, but for set-up. Nobody else includes this.
 */
#ifndef VM_REACTOR_URING_H
#define VM_REACTOR_URING_H

#include <liburing.h>
#include "vm/reactor-engine.h"

#define URING_SQ_ENTRIES 1024u
#define URING_CQ_ENTRIES 4096u

/* The second ring: reads and writes whose end nobody tells, so that it is looked for. */
struct uring_iopoll {
	struct io_uring ring;
	bool there;
	u32 in_flight;			/* at most URING_CQ_ENTRIES */
	struct reactor_op_list waiting; /* for room */
};

struct uring {
	struct io_uring ring;
	struct reactor_op_list overflow; /* submitted while the SQ was full */
	struct reactor_op *cancels;	 /* in flight, to be cancelled when the SQ has room */
	bool open;			 /* enabled: its thread runs */
	bool sqpoll;			 /* a thread of the kernel's takes the SQEs */
	bool skip;			 /* IOSQE_CQE_SKIP_SUCCESS */
	bool flagged_cancel;		 /* ASYNC_CANCEL may carry IOSQE_FIXED_FILE */
	u32 silent;			 /* without skip: completions to come that are nobody's */
	bool *no_nowait;		 /* by file: RWF_NOWAIT is not supported */
	struct reactor_op **waiting; /* by file, of those that are waited for: its op in flight */
	bool *renewing;		     /* by file: cancelled by us, to be started again */
	int *first;		     /* the files at the start, until then */
	u32 first_count;
	struct uring_iopoll iopoll;
};

static inline bool uring_refused(const struct reactor *reactor, u32 feature)
{
	return reactor->reactors->config.refuse & feature;
}

static inline bool uring_is_transfer(const struct reactor_op *op)
{
	return op->code == REACTOR_READV || op->code == REACTOR_WRITEV;
}

/* ---- reactor-ring.c ---- */

/* The ring of all operations, disabled; *sqpoll is cleared (and that logged) if the kernel will
 * not. 0 or -errno. */
int uring_ring_make(struct reactor *reactor, struct io_uring *ring, bool *sqpoll);
/* One with IORING_SETUP_IOPOLL. 0 or -errno. */
int uring_ring_make_iopoll(struct reactor *reactor, struct io_uring *ring);
/* An empty table of registered files. 1 if it was made the way of Linux 5.19 and later, 0, or
 * -errno. */
int uring_table_make(struct reactor *reactor, struct io_uring *ring);
/* [reactor] From now on only those operations on registered files; what may be registered later is
 * fixed. Then enables the ring. 0 or -errno. */
int uring_ring_open(const struct uring *uring, struct io_uring *ring, const u8 *ops, u32 count);

/* ---- reactor-uring.c ---- */

/* Writes the SQE of an op. */
void uring_prepare(struct io_uring_sqe *sqe, const struct reactor_op *op);
/* Starts an op on the ring of all operations, whatever its file. */
void uring_submit_plain(struct reactor *reactor, struct reactor_op *op);

/* ---- reactor-iopoll.c ---- */

/* A kernel that will not is told of, and done without. Main thread. */
void uring_iopoll_create(struct reactor *reactor);
void uring_iopoll_destroy(struct uring *uring);
int uring_iopoll_begin(struct uring *uring);
void uring_iopoll_end(struct uring *uring);
int uring_iopoll_files_set(struct uring *uring, reactor_file file, const int *fds, u32 count);
/* Does op belong here (where there is such a ring)? Then submit takes it. */
bool uring_iopoll_takes(const struct reactor *reactor, const struct reactor_op *op);
void uring_iopoll_submit(struct reactor *reactor, struct reactor_op *op);
/* True: op had not begun, and is the caller's again. */
bool uring_iopoll_cancel(struct uring *uring, struct reactor_op *op);
/* Is anything in flight that only looking for it completes? */
static inline bool uring_iopoll_busy(const struct uring *uring)
{
	return uring->iopoll.there && (uring->iopoll.in_flight || uring->iopoll.waiting.first);
}
/* Hands over what was submitted and looks what the devices have done, in one system call. */
void uring_iopoll_enter(struct reactor *reactor);
void uring_iopoll_reap(struct reactor *reactor);

#endif
