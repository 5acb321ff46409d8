/*
 * One reactor: the sweep, operations, tasks, events and messages. What waits and does I/O is an
 * engine (vm/reactor-engine.h): io_uring, or epoll with worker threads. Runs on the reactor's
 * thread, but for posting messages.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include "vm/log.h"
#include "vm/reactor-engine.h"

#define POLLS_PER_LOOK	16	/* between two looks at the clock */
#define WINDOW_LEAST_NS 4000ull /* the shortest busy-polling window */
#define NAP_GATHERS	16	/* buffers that should come in a nap */
#define NAP_SHARE	4	/* no naps where more than this share of the time is slept */
#define NAP_LEAST_NS	16000ull
#define NAP_MOST_NS	2000000ull

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
	sem_t *gone; /* whoever waits for the end of a removed one; NULL: nobody */
	struct reactor_wait *next, **link;
};

/* ---- operations ---- */

void reactor_submit(struct reactor *reactor, struct reactor_op *op)
{
	const struct reactors *reactors = reactor->reactors;

	op->reactor = reactor;
	counter_add(&reactor->counts.operations, 1);
	if (op->code == REACTOR_MADVISE || !reactors->storage[op->file]) {
		if (op->code == REACTOR_WRITEV)
			reactor->sent_sweep = reactor->counts.sweeps;
		reactors->engine->submit(reactor, op);
	} else if (op->code == REACTOR_READV || !reactor_buffered_take(reactor, op)) {
		reactor_to_disk(reactor, op);
	}
}

void reactor_cancel(struct reactor *reactor, struct reactor_op *op)
{
	if (op->state == REACTOR_OP_HERE)
		reactor_buffered_cancel(reactor, op);
	else
		reactor->reactors->engine->cancel(reactor, op);
}

void reactor_signal(struct reactor *reactor, reactor_file eventfd)
{
	counter_add(&reactor->counts.signals, 1);
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
		/* one buffer needs no iovec to be copied in */
		if (op->code == REACTOR_WRITEV && op->iov_count == 1 && !flags && offset >= 0)
			n = pwrite(reactors->fds[op->file], op->iov->iov_base, op->iov->iov_len,
				   offset);
		else if (op->code == REACTOR_READV)
			n = preadv2(reactors->fds[op->file], op->iov, (int)op->iov_count, offset,
				    flags);
		else
			n = pwritev2(reactors->fds[op->file], op->iov, (int)op->iov_count, offset,
				     flags);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : (s32)n;
}

/* ---- tasks ---- */

void reactor_enqueue(struct reactor *reactor, enum reactor_phase phase, struct reactor_task *task)
{
	struct reactor_task_list *list = &reactor->phases[phase];

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

	reactor_task_list_init(&reactor->phases[phase]);
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
	reactor_number_free(reactors, wait->file);
	wait->file = -1;
}

static void wait_free(struct reactor_wait *wait)
{
	wait_forget_file(wait);
	*wait->link = wait->next;
	if (wait->next)
		wait->next->link = wait->link;
	if (wait->gone)
		sem_post(wait->gone);
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
		counter_add(&wait->reactor->counts.events, 1);
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
	wait->file = reactor_number_take(reactor->reactors, event->fd, false);
	if (wait->file < 0) {
		error = wait->file;
		free(wait);
		return error;
	}
	error = reactor->reactors->engine->file_set(reactor, wait->file, event->fd);
	if (error) {
		reactor_number_free(reactor->reactors, wait->file);
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

struct event_call {
	struct reactor *reactor;
	struct reactor_event *event;
	sem_t gone;
	int error;
};

static void event_add_run(void *arg)
{
	struct event_call *call = arg;

	call->error = reactor_event_add(call->reactor, call->event);
}

int reactor_event_attach(struct reactor *reactor, struct reactor_event *event)
{
	struct event_call call = { .reactor = reactor, .event = event };

	if (!reactor->reactors->started)
		return reactor_event_add(reactor, event);
	reactor_call(reactor, event_add_run, &call);
	return call.error;
}

static void event_remove_run(void *arg)
{
	struct event_call *call = arg;

	call->event->wait->gone = &call->gone;
	reactor_event_remove(call->event);
}

void reactor_event_detach(struct reactor_event *event)
{
	struct event_call call = { .event = event };

	if (!event->wait || !event->wait->reactor->reactors->started)
		return;
	sem_init(&call.gone, 0, 0);
	reactor_call(event->wait->reactor, event_remove_run, &call);
	while (sem_wait(&call.gone) < 0)
		; /* EINTR */
	sem_destroy(&call.gone);
}

/* What the thread left, if it never ran: nothing is in flight. */
void reactor_events_free(struct reactor *reactor)
{
	struct reactor_wait *wait, *next;

	for (wait = reactor->waits; wait; wait = next) {
		next = wait->next;
		free(wait);
	}
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
		reactor_op_done(op, op->result);
	}
}

void reactor_woken(struct reactor_event *event)
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
		reactor_op_done(op, op->result);
	}
}

u64 reactor_sweep(const struct reactor *reactor)
{
	return reactor->counts.sweeps;
}

/* ---- busy-polling ---- */

void reactor_poller_add(struct reactor *reactor, struct reactor_poller *poller)
{
	poller->next = reactor->pollers;
	poller->link = &reactor->pollers;
	if (poller->next)
		poller->next->link = &poller->next;
	reactor->pollers = poller;
}

void reactor_poller_remove(struct reactor_poller *poller)
{
	if (!poller->link)
		return;
	*poller->link = poller->next;
	if (poller->next)
		poller->next->link = poller->link;
	poller->link = NULL;
}

/* Is something in flight that ends only while it is looked for? */
static bool looks(const struct reactor *reactor)
{
	const struct reactor_engine *engine = reactor->reactors->engine;

	return engine->looks && engine->looks(reactor);
}

/* A disk's answer and the driver's next request are as far apart as they are: each has a window. */
static u64 *window_of(struct reactor *reactor)
{
	return &reactor->windows_ns[reactor->at_disks != 0];
}

bool reactor_polls(const struct reactor *reactor)
{
	return reactor->windows_ns[reactor->at_disks != 0] || looks(reactor);
}

static u64 now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (u64)t.tv_sec * 1000000000ull + (u64)t.tv_nsec;
}

/* Asks every poller: all of them, because each that has work defers it. */
static bool ask_pollers(struct reactor *reactor, bool rest)
{
	bool found = false;

	for (struct reactor_poller *p = reactor->pollers; p; p = p->next)
		found |= rest ? p->rest(p) : p->poll(p);
	return found;
}

/* A few looks, without one at the clock: most of what comes soon comes by then. */
static bool spin_briefly(struct reactor *reactor)
{
	const struct reactor_engine *engine = reactor->reactors->engine;

	for (u32 i = 0; i < POLLS_PER_LOOK; i++) {
		if (engine->completed(reactor) || ask_pollers(reactor, false)) {
			counter_add(&reactor->counts.polls_hit, 1);
			return true;
		}
		__builtin_ia32_pause();
	}
	return false;
}

/* Looks for work until the window, which began at start, ends. True: there is some, the next sweep
 * finds it. */
static bool spin(struct reactor *reactor, u64 start, u64 window_ns)
{
	do
		if (spin_briefly(reactor))
			return true;
	while (now_ns() - start < window_ns);
	counter_add(&reactor->counts.polls_missed, 1);
	return ask_pollers(reactor, true);
}

/*
 * How long the reactor had nothing to do decides how long it looks next time: a gap that a longer
 * window would have covered makes it longer, one that no window covers makes it shorter, down to
 * none. So a hot queue costs no wake-ups, and an idle one no CPU.
 */
static void adapt_window(u64 *window_ns, u64 most, u64 idle_ns)
{
	if (idle_ns <= *window_ns)
		return;
	if (idle_ns > most) {
		*window_ns = *window_ns > WINDOW_LEAST_NS ? *window_ns / 2 : 0;
		return;
	}
	*window_ns = *window_ns ? *window_ns * 2 : WINDOW_LEAST_NS;
	if (*window_ns > most)
		*window_ns = most;
}

/*
 * Where busy-polling is off, a sender of many small frames that shares a CPU with the reactor would
 * ring for each: the doorbell wakes the reactor at once, which takes the CPU away from it. So its
 * queue stays muted over a nap in which the next frames gather. A nap is as long as they should
 * need, by how long the reactor slept until it was rung for; and it ends with whatever else
 * happens.
 */
bool reactor_nap(struct reactor *reactor, bool again)
{
	const struct reactors *reactors = reactor->reactors;
	u64 ns = reactor->slept_ns * NAP_GATHERS;

	if (reactors->config.poll_us || !reactors->engine->nap)
		return false;
	if (!again) {
		/* an answer, or something else, was waited for, or the sender takes its time */
		if (!reactor->woke || reactor->slept_ns > reactor->awake_ns * NAP_SHARE)
			return false;
		reactor->nap_ns = ns < NAP_LEAST_NS  ? NAP_LEAST_NS
				  : ns > NAP_MOST_NS ? NAP_MOST_NS
						     : ns;
	}
	if (!reactor->nap_sweep)
		reactor->nap_sweep = reactor->counts.sweeps;
	return true;
}

static void nap(struct reactor *reactor)
{
	const struct reactor_engine *engine = reactor->reactors->engine;

	/* what the queue made is done first, so that its end does not end the nap */
	if (reactor->nap_sweep == reactor->counts.sweeps &&
	    reactor->sent_sweep == reactor->counts.sweeps) {
		engine->enter(reactor, false);
		return;
	}
	reactor->nap_sweep = 0;
	engine->nap(reactor, reactor->nap_ns);
	reactor->woke = 0;
	ask_pollers(reactor, true);
}

/* Sleeps until something comes. For how long is of interest in the sweep after frames were sent,
 * which has seen their end; a sleep for anything else means that no stream is being sent. */
static void sleep_idle(struct reactor *reactor)
{
	const struct reactor_engine *engine = reactor->reactors->engine;
	u64 start;

	if (!engine->nap || reactor->sent_sweep + 1 != reactor->counts.sweeps) {
		engine->enter(reactor, true);
		if (reactor->sent_sweep != reactor->counts.sweeps)
			reactor->woke = 0;
		return;
	}
	start = now_ns();
	reactor->awake_ns = reactor->woke ? start - reactor->woke : 0;
	engine->enter(reactor, true);
	reactor->woke = now_ns();
	reactor->slept_ns = reactor->woke - start;
}

/* Nothing is left to do: looks around for a while, then sleeps until something comes. */
static void idle(struct reactor *reactor)
{
	const struct reactor_engine *engine = reactor->reactors->engine;
	const struct reactors_config *config = &reactor->reactors->config;
	u64 *window_ns = window_of(reactor), start;
	u32 came;

	if (looks(reactor)) { /* for those, and so for everything else too */
		engine->enter(reactor, false);
		ask_pollers(reactor, false);
		return;
	}
	if (reactor->nap_sweep) {
		nap(reactor);
		return;
	}
	/* Queues that were served while there was something to look for. */
	if ((config->poll_us || config->iopoll) && !*window_ns && ask_pollers(reactor, true))
		return;
	if (!config->poll_us || !engine->completed) {
		sleep_idle(reactor);
		return;
	}
	if (*window_ns) {
		if (engine->unsubmitted(reactor))
			engine->enter(reactor, false);
		if (spin_briefly(reactor))
			return;
		start = now_ns();
		if (spin(reactor, start, *window_ns))
			return;
	} else {
		start = now_ns();
	}
	engine->enter(reactor, true);
	/* What a page cache answers is done while it is submitted, one after the other. */
	came = engine->completed(reactor);
	adapt_window(window_ns, config->poll_us * 1000ull, (now_ns() - start) / (came ? came : 1));
}

static void sweep(struct reactor *reactor)
{
	const struct reactor_engine *engine = reactor->reactors->engine;

	/* told by reactor_sweep(), too */
	__atomic_store_n(&reactor->counts.sweeps, reactor->counts.sweeps + 1, __ATOMIC_RELAXED);
	run_completed(reactor);
	engine->reap(reactor);
	run_phase(reactor, REACTOR_SERVE);
	if (reactor->here.first)
		reactor_buffered_run(reactor);
	run_phase(reactor, REACTOR_FLUSH);
	if (has_tasks(reactor) || reactor->completed.first || reactor->here_due || reactor->stop)
		engine->enter(reactor, false);
	else
		idle(reactor);
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

void *reactor_main(void *arg)
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

void reactor_counts(const struct reactor *reactor, struct reactor_counts *counts)
{
	counts->sweeps = __atomic_load_n(&reactor->counts.sweeps, __ATOMIC_RELAXED);
	counts->enters = __atomic_load_n(&reactor->counts.enters, __ATOMIC_RELAXED);
	counts->operations = __atomic_load_n(&reactor->counts.operations, __ATOMIC_RELAXED);
	counts->signals = __atomic_load_n(&reactor->counts.signals, __ATOMIC_RELAXED);
	counts->events = __atomic_load_n(&reactor->counts.events, __ATOMIC_RELAXED);
	counts->polled = __atomic_load_n(&reactor->counts.polled, __ATOMIC_RELAXED);
	counts->polls_hit = __atomic_load_n(&reactor->counts.polls_hit, __ATOMIC_RELAXED);
	counts->polls_missed = __atomic_load_n(&reactor->counts.polls_missed, __ATOMIC_RELAXED);
	counts->writes_here = __atomic_load_n(&reactor->counts.writes_here, __ATOMIC_RELAXED);
	counts->writes_handed = __atomic_load_n(&reactor->counts.writes_handed, __ATOMIC_RELAXED);
}
