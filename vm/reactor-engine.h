/*
 * What the two engines of a reactor (reactor-uring.c, reactor-epoll.c) share with its face,
 * reactor.c, and with the worker threads (reactor-workers.c). Nobody else includes this.
 */
#ifndef VM_REACTOR_ENGINE_H
#define VM_REACTOR_ENGINE_H

#include <pthread.h>
#include <semaphore.h>
#include "vm/reactor.h"

/* Completions handled in one sweep: enough for any batch, few enough that tasks get their turn. */
#define REACTOR_BUDGET 1024u

/* Where an operation is (reactor_op.state). */
enum reactor_op_state {
	REACTOR_OP_IDLE,
	REACTOR_OP_QUEUED,    /* on a list of the engine, nothing begun */
	REACTOR_OP_WAITING,   /* epoll: on its file's list */
	REACTOR_OP_FLIGHT,    /* the kernel or a worker has it */
	REACTOR_OP_POLLED,    /* in flight where it cannot be cancelled */
	REACTOR_OP_CANCEL,    /* in flight, and on the list of those to be cancelled */
	REACTOR_OP_COMPLETED, /* on reactor.completed */
	REACTOR_OP_HERE,      /* on reactor.here */
};

/* First in, first out, linked through reactor_op.next. */
struct reactor_op_list {
	struct reactor_op *first, **last;
};

struct reactor_task_list {
	struct reactor_task *first, **last;
};

/* What is thought of buffered writes done by the reactor: they do not wait; they are watched, as
 * one may have; they do. */
enum reactor_trust { REACTOR_TRUST_FULL, REACTOR_TRUST_WATCHED, REACTOR_TRUST_NONE };

struct reactor {
	struct reactors *reactors;
	void *ring; /* the engine's */
	u32 number;
	bool stop;
	struct reactor_task_list phases[REACTOR_PHASES];
	struct reactor_op_list completed; /* done() comes with the next sweep */
	struct reactor_wait *waits;	  /* all events, removed ones until their read has ended */
	struct reactor_event wake;	  /* rung for inbox and finished */
	_Atomic(struct reactor_message *) inbox;
	_Atomic(struct reactor_op *) finished; /* by workers; op->result is set */
	struct reactor_counts counts;
	/* reactor-buffered.c's */
	struct reactor_op_list here; /* writes to be done here */
	u32 here_count;		     /* of them */
	bool here_due;		     /* some need not wait for a completion first */
	bool here_full;		     /* the last look found too much memory dirty */
	u8 here_trust;		     /* enum reactor_trust */
	u64 here_again;		     /* ns: when to trust more */
	u64 here_pause;		     /* ns: how long there was no trust the last time */
	s64 here_left;		     /* bytes, until */
	u64 here_until;		     /* ns: looking at how much memory is dirty */
	struct reactor_poller *pollers;
	/* how long to busy-poll before sleeping, adapting between 0 and poll_us: while a disk is at
	 * work, and while it is the driver's turn */
	u64 windows_ns[2];
	u32 at_disks;	/* operations on storage in flight */
	u64 sent_sweep; /* in which something was last written that is not on storage */
	u64 nap_sweep;	/* in which a nap was asked for; 0: none */
	u64 nap_ns;
	/* ns: the end of the last sleep, how long it was, and how long it was until the next */
	u64 woke, slept_ns, awake_ns;
	pthread_t thread;
	bool running; /* the thread is there */
	int error;    /* of its start */
};

struct reactors {
	const struct reactor_engine *engine;
	struct reactors_config config;
	u32 max_files;
	pthread_mutex_t lock; /* numbering: fds */
	int *fds;	      /* by reactor_file; -1: free */
	bool *storage; /* by reactor_file: a regular file or block device (else a tap, an eventfd:
			  something to wait for) */
	/* by reactor_file: the name of a file that the second ring takes; else NULL */
	_Atomic(const char *) *iopolled;
	struct reactor_workers *workers;
	struct reactor_buffered *buffered;
	bool started;
	sem_t ready;
	u32 count;
	struct reactor list[];
};

struct reactor_engine {
	const char *name;
	bool writes_nowait; /* its buffered writes do not wait where the file system has such */
	/* [main] Makes reactor->ring. 0 or -errno. */
	int (*create)(struct reactor *reactor);
	/* [main, the thread has ended or never ran] */
	void (*destroy)(struct reactor *reactor);
	/* [main before the start, then reactor] The number now means fd; -1: nothing. 0 or -errno.
	 */
	int (*file_set)(struct reactor *reactor, reactor_file file, int fd);
	/* [reactor] First thing on the thread, before its sandbox. 0 or -errno. */
	int (*begin)(struct reactor *reactor);
	/* [reactor] Last thing on the thread. */
	void (*end)(struct reactor *reactor);
	/* [main before the start, then reactor] */
	void (*submit)(struct reactor *reactor, struct reactor_op *op);
	void (*cancel)(struct reactor *reactor, struct reactor_op *op);
	/* [reactor] Starts whatever waits anew, so that nothing holds files that were removed.
	 * NULL: nothing ever does. */
	void (*renew)(struct reactor *reactor);
	/* [reactor] */
	void (*signal)(struct reactor *reactor, reactor_file eventfd);
	/* [reactor] Hands everything submitted to the kernel; if wait, returns only when there is
	 * something for reap(). */
	void (*enter)(struct reactor *reactor, bool wait);
	/* [reactor] enter() that waits for this long at most. NULL: there are no naps. */
	void (*nap)(struct reactor *reactor, u64 ns);
	/* [reactor] Is there anything for enter() to submit? For reap() to take (or for enter() to
	 * fetch)? NULL: the engine does not busy-poll. */
	bool (*unsubmitted)(struct reactor *reactor);
	u32 (*completed)(struct reactor *reactor);
	/* [reactor] Is anything in flight whose end enter() has to look for, so that there must be
	 * no sleep? NULL: never. */
	bool (*looks)(const struct reactor *reactor);
	/* [reactor] reactor_complete() or done() for what has ended, up to REACTOR_BUDGET. */
	void (*reap)(struct reactor *reactor);
};

extern const struct reactor_engine reactor_engine_uring;
extern const struct reactor_engine reactor_engine_epoll;

/* [reactor] done() of op will be called with result in the next sweep. */
void reactor_complete(struct reactor *reactor, struct reactor_op *op, s32 result);

/* ---- buffered writes that the reactor does itself (reactor-buffered.c) ---- */

/* [main] 0 or -errno. */
int reactor_buffered_create(struct reactors *reactors);
void reactor_buffered_destroy(struct reactors *reactors);
/* [any] The number means another file from now on. */
void reactor_buffered_forget(struct reactors *reactors, reactor_file file);
/* [reactor] Any operation on a disk file but a read, before it goes to the engine. True: op is on
 * reactor.here, and not the engine's. */
bool reactor_buffered_take(struct reactor *reactor, struct reactor_op *op);
/* [reactor] op, on reactor.here, shall not be done. */
void reactor_buffered_cancel(struct reactor *reactor, struct reactor_op *op);
/* [reactor] op, of which op->held tells that it was counted, has left the engine. */
void reactor_buffered_ended(struct reactor_op *op);
/* [reactor] Does what is on reactor.here, or gives it to the engine. */
void reactor_buffered_run(struct reactor *reactor);

/* [reactor] Tells op's owner. */
static inline void reactor_op_done(struct reactor_op *op, s32 result)
{
	op->state = REACTOR_OP_IDLE;
	if (op->held)
		reactor_buffered_ended(op);
	if (op->at_disk) {
		op->at_disk = false;
		op->reactor->at_disks--;
	}
	op->done(op, result);
}

/* [reactor] Gives op, which is on storage, to the engine. */
static inline void reactor_to_disk(struct reactor *reactor, struct reactor_op *op)
{
	op->at_disk = true;
	reactor->at_disks++;
	reactor->reactors->engine->submit(reactor, op);
}

/* [worker] op has ended with op->result. */
void reactor_finish(struct reactor_op *op);

/* Signals that belong to the main thread are blocked on all others: starts a thread so. 0 or
 * -errno. */
int reactor_thread_create(pthread_t *thread, pthread_attr_t *attr, void *(*run)(void *arg),
			  void *arg);

/* The transfer of a READV or WRITEV by system call, never restarted for a signal's sake: count or
 * -errno. */
s32 reactor_transfer(const struct reactor_op *op);

/* ---- between reactor.c and reactors.c ---- */

/* A free number for fd, which is a disk file (storage) or can be waited for; -ENOSPC. Any thread.
 */
reactor_file reactor_number_take(struct reactors *reactors, int fd, bool storage);
void reactor_number_free(struct reactors *reactors, reactor_file file);

/* The thread, from start to end; arg is the reactor. */
void *reactor_main(void *arg);

/* fired() of reactor.wake. */
void reactor_woken(struct reactor_event *event);

/* [main, the thread has ended] */
void reactor_events_free(struct reactor *reactor);

/* ---- worker threads: file I/O that would block. One pool for all reactors ---- */

int reactor_workers_create(struct reactor_workers **workers);
/* Starts the threads, on any of the CPUs; begin(owner) has run on each when it returns. 0 or
 * -errno. */
int reactor_workers_start(struct reactor_workers *workers, u32 count, const struct cpu_list *pin,
			  void (*begin)(void *owner), void *owner);
/* [reactor] Takes the whole list (each op's reactor and fd known by its file). */
void reactor_workers_submit(struct reactor_workers *workers, struct reactor_op_list *list);
/* [reactor] True: op had not begun, and is the caller's again. */
bool reactor_workers_cancel(struct reactor_workers *workers, struct reactor_op *op);
void reactor_workers_destroy(struct reactor_workers *workers);

static inline void reactor_op_list_init(struct reactor_op_list *list)
{
	list->first = NULL;
	list->last = &list->first;
}

static inline void reactor_task_list_init(struct reactor_task_list *list)
{
	list->first = NULL;
	list->last = &list->first;
}

static inline void reactor_op_list_append(struct reactor_op_list *list, struct reactor_op *op)
{
	op->next = NULL;
	*list->last = op;
	list->last = &op->next;
}

static inline struct reactor_op *reactor_op_list_take(struct reactor_op_list *list)
{
	struct reactor_op *op = list->first;

	if (op && !(list->first = op->next))
		list->last = &list->first;
	return op;
}

/* Moves all of from behind to. */
static inline void reactor_op_list_move(struct reactor_op_list *to, struct reactor_op_list *from)
{
	if (!from->first)
		return;
	*to->last = from->first;
	to->last = from->last;
	reactor_op_list_init(from);
}

static inline bool reactor_op_list_remove(struct reactor_op_list *list, struct reactor_op *op)
{
	for (struct reactor_op **link = &list->first; *link; link = &(*link)->next) {
		if (*link != op)
			continue;
		*link = op->next;
		if (!op->next)
			list->last = link;
		return true;
	}
	return false;
}

#endif
