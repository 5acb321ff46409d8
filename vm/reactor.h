/*
 * Event threads. Each reactor is a thread with one io_uring (or, where the host forbids that, epoll
 * and a small thread pool): the only place that waits. Doorbells, disk and tap I/O, interrupts and
 * messages are operations of its one ring, so a batch of whatever size costs one io_uring_enter.
 *
 * One sweep: wake, run the done() of every completion, then the tasks of REACTOR_SERVE (queues
 * that were kicked pop what is available), then those of REACTOR_FLUSH (used rings are published,
 * interrupts decided), then submit all that came of it and wait, in one call.
 *
 * Functions marked [reactor] may be called only on the reactor's own thread, where done(), fired()
 * and run() are called too.
 */
#ifndef VM_REACTOR_H
#define VM_REACTOR_H

#include <sys/uio.h>
#include "vm/pin.h"

struct reactor;	 /* one thread */
struct reactors; /* all of them: they share one numbering of files */

/*
 * A file's number in every reactor (a registered file of the ring). Disk files, tap queues,
 * eventfds: all that operations name. Eventfds and taps must be non-blocking.
 */
typedef s32 reactor_file; /* -1: none */

enum reactor_code {
	REACTOR_READV,
	REACTOR_WRITEV,	   /* flags: RWF_DSYNC or 0 */
	REACTOR_FSYNC,	   /* flags: IORING_FSYNC_DATASYNC or 0 */
	REACTOR_FALLOCATE, /* flags: fallocate(2)'s mode */
	REACTOR_POLL,	   /* flags: poll events; one shot, result: events */
	REACTOR_MADVISE,   /* flags: madvise(2)'s advice, for iov[0]; no file */
	REACTOR_CODES
};

/*
 * One operation in flight. Owner fills it, keeps it (and the iovecs and their memory) until done()
 * is called with what the system call would have returned: a count, or -errno. Short reads and
 * writes are possible. -ECANCELED after reactor_cancel(). Allocates nothing: in flight there may be
 * as many as there are objects.
 */
struct reactor_op {
	void (*done)(struct reactor_op *op, s32 result);
	enum reactor_code code;
	reactor_file file;
	const struct iovec *iov;
	u32 iov_count;
	u32 flags;
	u64 offset;	  /* (u64)-1: file position (taps) */
	u64 length;	  /* FALLOCATE, FSYNC range; else unused */
	bool nonblocking; /* READV, WRITEV: -EAGAIN at once instead of waiting for a tap */
	/* WRITEV: into a disk's page cache, little of it and whole pages, so that the reactor may
	 * well do it itself */
	bool buffered;
	/* the reactor's own; zero before the first use */
	u8 state, held;
	bool at_disk;
	s32 result;
	struct reactor *reactor;
	struct reactor_op *next;
};

/*
 * An eventfd that is waited for as long as it is added (doorbells, resample fds). fired() may come
 * spuriously; it finds the eventfd read (count: its value) and may remove the event. The memory the
 * kernel reads into is not in here, so an event may be freed as soon as it is removed.
 */
struct reactor_event {
	void (*fired)(struct reactor_event *event);
	int fd;
	u64 count;
	/* the reactor's own */
	struct reactor_wait *wait;
};

/* Work for the end of the sweep, done once however often it is asked for. */
enum reactor_phase { REACTOR_SERVE, REACTOR_FLUSH, REACTOR_PHASES };
struct reactor_task {
	void (*run)(struct reactor_task *task);
	/* the reactor's own */
	struct reactor_task *next;
	bool queued;
};

/*
 * Something worth looking at while a reactor busy-polls: a queue whose driver then need not notify.
 * poll() looks, and defers what it finds; rest() is called before the reactor sleeps and asks for
 * notifications again. Both return true if there is work.
 */
struct reactor_poller {
	bool (*poll)(struct reactor_poller *poller);
	bool (*rest)(struct reactor_poller *poller);
	/* the reactor's own */
	struct reactor_poller *next, **link;
};

/* Something another thread wants done on the reactor. The owner keeps it until run() is called. */
struct reactor_message {
	void (*run)(struct reactor_message *message);
	struct reactor_message *next; /* the reactor's own */
};

/* Relaxed counters, any thread may read. */
struct reactor_counts {
	u64 sweeps, enters, operations, signals, events;
	u64 polled;			/* operations that the second ring did */
	u64 polls_hit, polls_missed;	/* busy-polling windows that found work, that found none */
	u64 writes_here, writes_handed; /* buffered writes done by the reactor, not done by it */
};

/* Features of io_uring that tests make a reactor do without, as if the kernel lacked them. */
enum reactor_refusal {
	REACTOR_REFUSE_DEFER_TASKRUN = BIT(0), /* Linux 6.1 */
	REACTOR_REFUSE_SINGLE_ISSUER = BIT(1), /* 6.0 */
	REACTOR_REFUSE_COOP_TASKRUN = BIT(2),  /* 5.19 */
	REACTOR_REFUSE_SUBMIT_ALL = BIT(3),    /* 5.18 */
	REACTOR_REFUSE_CQE_SKIP = BIT(4),      /* 5.17 */
	REACTOR_REFUSE_SPARSE = BIT(5),	       /* 5.19 */
	REACTOR_REFUSE_RING_FD = BIT(6),       /* 5.18 */
	REACTOR_REFUSE_NOWAIT = BIT(7),	       /* on taps 6.4 */
	REACTOR_REFUSE_ALL = BIT(8) - 1,
};

struct reactors_config {
	u32 count;     /* threads, 1 to 64 */
	u32 max_files; /* files and events there will be at one time */
	u32 poll_us;   /* longest busy-polling window, 0: none */
	bool sqpoll;   /* a thread of the kernel's takes what is submitted */
	bool iopoll;   /* a second ring each, for files of reactor_file_iopoll() */
	struct cpu_list pin, pin_sqpoll; /* host CPUs for the threads, and for the kernel's */
	bool force_epoll;		 /* tests */
	u32 refuse;			 /* tests: REACTOR_REFUSE_* */
	const char *vmstat;		 /* tests: a file to take for /proc/vmstat; NULL: that */
	u64 slow_ns;			 /* tests: how long a buffered write may take, 0: 2 ms */
	void (*thread_start)(
		void *owner); /* on each thread, before its first wait (sandbox); may be NULL */
	void (*worker_start)(void *owner); /* the same on the pool's threads, where there is a pool;
					      may be NULL */
	void *owner;
};

/* Makes the rings (disabled) or, where io_uring_setup is refused, the epoll form, which it says in
 * one line. Features the kernel lacks (SINGLE_ISSUER, DEFER_TASKRUN, COOP_TASKRUN, CQE_SKIP) are
 * done without. Logs, 0 or -errno. Main thread. */
int reactors_create(struct reactors **reactors, const struct reactors_config *config);

/* The n-th thread. */
struct reactor *reactors_get(struct reactors *reactors, u32 n);
u32 reactors_count(const struct reactors *reactors);
/* "io_uring" or "epoll": for --stats and tests. */
const char *reactors_engine(const struct reactors *reactors);

/* Registers fd (the caller keeps it open) in every reactor. The number, or -errno (-ENOSPC). Main
 * thread, before reactors_start() or later (it then waits for each reactor). */
reactor_file reactor_file_add(struct reactors *reactors, int fd);
/* The same for an eventfd, of which nothing need be asked. */
reactor_file reactor_eventfd_add(struct reactors *reactors, int fd);
/* Reads and writes of an O_DIRECT file go to the second ring from now on, where completions are
 * looked for; until the kernel says that this file has none to look for, which is logged with name
 * (kept by the caller) and mended. 0, or -EOPNOTSUPP: there is no second ring. Main thread; nothing
 * is in flight on it. */
int reactor_file_iopoll(struct reactors *reactors, reactor_file file, const char *name);
/* Frees the number; nothing may be in flight on it. Main thread. */
void reactor_file_remove(struct reactors *reactors, reactor_file file);

/* [reactor] The same two for this reactor alone, which may then close the descriptor. disk: a
 * regular file, else something that can be waited for. The number, or -errno. */
reactor_file reactor_own_file_add(struct reactor *reactor, int fd, bool disk);
void reactor_own_file_remove(struct reactor *reactor, reactor_file file);

/* After removals, of several numbers at once: has the kernel let go of their files soon (within
 * some seconds), though other operations wait. Running. Main thread. */
void reactor_files_release(struct reactors *reactors);
/* [reactor] The same after many of this reactor's own. */
void reactor_own_files_release(struct reactor *reactor);

/* Starts the threads, which restrict their rings to the operations above on registered files. Then
 * reactors_ready() waits until thread_start (worker_start) has run on all; what needs no reactor
 * can be done meanwhile. Each logs, 0 or -errno. Main thread. */
int reactors_launch(struct reactors *reactors);
int reactors_ready(struct reactors *reactors);

/* Both. */
int reactors_start(struct reactors *reactors);

/* Ends the threads, then frees all. Events still added are taken out; operations may not be in
 * flight any more. Main thread. */
void reactors_destroy(struct reactors *reactors);

/* [reactor] Starts op; it is submitted with the sweep. */
void reactor_submit(struct reactor *reactor, struct reactor_op *op);

/* [reactor] Asks for an early end of an op in flight; done() is still called, soon, with -ECANCELED
 * or what happened first. File I/O that runs cannot be cancelled. */
void reactor_cancel(struct reactor *reactor, struct reactor_op *op);

/* [reactor] Writes 1 to an eventfd as part of the sweep's submit: an interrupt. */
void reactor_signal(struct reactor *reactor, reactor_file eventfd);

void reactor_enqueue(struct reactor *reactor, enum reactor_phase phase, struct reactor_task *task);

/* [reactor] Queues task for this sweep's phase (at once the next sweep's, if that phase has
 * passed). */
static inline void reactor_defer(struct reactor *reactor, enum reactor_phase phase,
				 struct reactor_task *task)
{
	if (!task->queued)
		reactor_enqueue(reactor, phase, task);
}

/* [reactor] Which sweep this is. */
u64 reactor_sweep(const struct reactor *reactor);

/* [reactor] Looks at poller in each busy-polling window from now on, or no more. */
void reactor_poller_add(struct reactor *reactor, struct reactor_poller *poller);
void reactor_poller_remove(struct reactor_poller *poller);

/* [reactor] Will the reactor look at its pollers before it sleeps? Then a served queue may stay
 * muted until rest(). */
bool reactor_polls(const struct reactor *reactor);

/*
 * [reactor] Has the reactor look at its pollers, as before any sleep, only after a nap: until
 * something ends or fires, or for a while in which many more buffers should come. For a queue that
 * was rung for and served, where nothing is busy-polled. again: its last nap was worth it; else
 * false is returned where wake-ups cost little of the time, or where there are no naps.
 */
bool reactor_nap(struct reactor *reactor, bool again);

/* Begins waiting for event->fd on this reactor (registered as a file). Before reactors_start(), or
 * [reactor]. 0 or -errno. */
int reactor_event_add(struct reactor *reactor, struct reactor_event *event);

/* [reactor] Stops waiting; fired() is not called again. */
void reactor_event_remove(struct reactor_event *event);

/* The same for threads that are no reactor's. Attaching, the reactors may run or not. Detaching,
 * they run; when it returns nothing of the event is left, and its descriptor may be closed. 0 or
 * -errno. */
int reactor_event_attach(struct reactor *reactor, struct reactor_event *event);
void reactor_event_detach(struct reactor_event *event);

/* Returns when every reactor has been through whole sweeps: what was posted, completed or deferred
 * before, and what that deferred, has run. Running. Main thread. */
void reactors_settle(struct reactors *reactors);

/* Posts a message: run() is called on the reactor. Any thread; never waits. */
void reactor_post(struct reactor *reactor, struct reactor_message *message);

/* Calls fn(arg) on the reactor and waits for it. Any thread but a reactor's; the reactor must have
 * started. */
void reactor_call(struct reactor *reactor, void (*fn)(void *arg), void *arg);

void reactor_counts(const struct reactor *reactor, struct reactor_counts *counts);

#endif
