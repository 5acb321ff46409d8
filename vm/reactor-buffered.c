/*
 * Writes into the page cache that a reactor does itself. Where a file system cannot write so
 * without perhaps waiting (ext4, tmpfs, most but XFS and btrfs), io_uring has each write done by a
 * kernel thread, one after the other: several times what the write itself costs. Nearly always it
 * would not have waited. So such a write is done on the spot, by pwritev2(2), while nothing speaks
 * for a wait:
 *
 * - the host has far less dirty memory than what it makes writers wait for (/proc/vmstat, looked at
 *   again after some MiB, and in time);
 * - nothing else is under way that holds the file's lock: fallocate, fsync, a write that the engine
 *   has (which waits with the lock held, when it waits);
 * - no such write has lately taken long although its thread had the CPU.
 *
 * Otherwise it goes the engine's way, and stops no other queue. Reactor's thread; what is known of
 * a file is shared by all reactors, each value for itself (relaxed).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "vm/reactor-engine.h"
#include "vm/ticks.h"

#define SWEEP_BYTES KIB(512)		 /* then other queues have their turn */
#define LOOK_BYTES  MIB(64)		 /* at most, until /proc/vmstat is read again */
#define LOOK_NS	    (100 * 1000000ull)	 /* the same */
#define RETRY_NS    (10 * 1000000ull)	 /* the same, while there is too much dirty memory */
#define SLOW_NS	    (2 * 1000000ull)	 /* so long a batch must have waited */
#define WATCH_NS    (10 * 1000000000ull) /* how long a first slow batch is remembered */
#define HANDED_NS   (1 * 1000000000ull)	 /* how long nothing is done here after a second one, */
#define HANDED_MOST (64 * 1000000000ull) /* twice as long each time, up to this */

/* How a file's buffered writes are done; found out by the first one. */
enum way {
	WAY_UNKNOWN,
	WAY_ENGINE, /* by the engine, which does not wait either */
	WAY_NOWAIT, /* here, with RWF_NOWAIT; what would wait is the engine's */
	WAY_HERE,   /* here, while nothing speaks for a wait */
};

struct buffered_file {
	u8 way;
	u32 busy;   /* operations in flight that hold its lock for an unknown time */
	u32 handed; /* writes for here that the engine has got, from all reactors */
};

struct reactor_buffered {
	int vmstat;  /* -1: cannot be read */
	u32 *handed; /* by reactor and file: those of the reactor */
	struct buffered_file files[];
};

/* reactor_op.held */
enum { HELD_NOT, HELD_BUSY, HELD_HANDED };

int reactor_buffered_create(struct reactors *reactors)
{
	const char *path = reactors->config.vmstat;
	struct reactor_buffered *b;

	b = calloc(1, sizeof(*b) + reactors->max_files * sizeof(b->files[0]));
	if (!b)
		return -ENOMEM;
	b->handed = calloc((size_t)reactors->count * reactors->max_files, sizeof(*b->handed));
	if (!b->handed) {
		free(b);
		return -ENOMEM;
	}
	b->vmstat = open(path ? path : "/proc/vmstat", O_RDONLY | O_CLOEXEC);
	reactors->buffered = b;
	return 0;
}

void reactor_buffered_destroy(struct reactors *reactors)
{
	if (!reactors->buffered)
		return;
	if (reactors->buffered->vmstat >= 0)
		close(reactors->buffered->vmstat);
	free(reactors->buffered->handed);
	free(reactors->buffered);
	reactors->buffered = NULL;
}

void reactor_buffered_forget(struct reactors *reactors, reactor_file file)
{
	__atomic_store_n(&reactors->buffered->files[file].way, WAY_UNKNOWN, __ATOMIC_RELAXED);
}

static struct buffered_file *file_of(const struct reactor_op *op)
{
	return &op->reactor->reactors->buffered->files[op->file];
}

static u8 way_of(const struct buffered_file *file)
{
	return __atomic_load_n(&file->way, __ATOMIC_RELAXED);
}

static u32 *handed_here(const struct reactor *reactor, reactor_file file)
{
	const struct reactors *reactors = reactor->reactors;

	return &reactors->buffered->handed[reactor->number * reactors->max_files + (u32)file];
}

void reactor_buffered_ended(struct reactor_op *op)
{
	struct buffered_file *file = file_of(op);

	if (op->held == HELD_HANDED) {
		__atomic_sub_fetch(&file->handed, 1, __ATOMIC_RELAXED);
		--*handed_here(op->reactor, op->file);
	} else {
		__atomic_sub_fetch(&file->busy, 1, __ATOMIC_RELAXED);
	}
	op->held = HELD_NOT;
}

static void hand_over(struct reactor *reactor, struct reactor_op *op)
{
	op->state = REACTOR_OP_IDLE;
	op->held = HELD_HANDED;
	__atomic_add_fetch(&file_of(op)->handed, 1, __ATOMIC_RELAXED);
	++*handed_here(reactor, op->file);
	counter_add(&reactor->counts.writes_handed, 1);
	reactor_to_disk(reactor, op);
}

static void keep(struct reactor *reactor, struct reactor_op *op)
{
	op->state = REACTOR_OP_HERE;
	reactor_op_list_append(&reactor->here, op);
	reactor->here_count++;
}

bool reactor_buffered_take(struct reactor *reactor, struct reactor_op *op)
{
	struct buffered_file *file = file_of(op);
	u8 way = way_of(file);

	if (way == WAY_ENGINE)
		return false;
	if (op->code != REACTOR_WRITEV || !op->buffered) {
		if (way == WAY_HERE) {
			op->held = HELD_BUSY;
			__atomic_add_fetch(&file->busy, 1, __ATOMIC_RELAXED);
		}
		return false;
	}
	keep(reactor, op);
	reactor->here_due = true;
	return true;
}

void reactor_buffered_cancel(struct reactor *reactor, struct reactor_op *op)
{
	reactor_op_list_remove(&reactor->here, op);
	reactor->here_count--;
	reactor_complete(reactor, op, -ECANCELED);
}

/* ---- may there be a wait? ---- */

/* The number behind a name at the beginning of a line; UINT64_MAX: it is not there. */
static u64 line_value(const char *text, const char *name)
{
	size_t length = strlen(name);

	for (const char *at = text; at; at = strchr(at, '\n'), at = at ? at + 1 : NULL)
		if (!strncmp(at, name, length) && at[length] == ' ')
			return strtoull(at + length, NULL, 10);
	return UINT64_MAX;
}

/* Pages that may still become dirty before the kernel thinks of making writers wait (free-running:
 * up to the middle between its two thresholds), less an eighth of all for what it counts late. */
static u64 free_running(const struct reactor_buffered *b)
{
	char text[KIB(16)];
	ssize_t n = b->vmstat < 0 ? -1 : pread(b->vmstat, text, sizeof(text) - 1, 0);
	u64 dirty, writeback, threshold, background, most;

	if (n < 0)
		return 0;
	text[n] = '\0';
	dirty = line_value(text, "nr_dirty");
	writeback = line_value(text, "nr_writeback");
	threshold = line_value(text, "nr_dirty_threshold");
	background = line_value(text, "nr_dirty_background_threshold");
	if ((dirty | writeback | threshold | background) >> 40)
		return 0;
	most = (threshold + background) / 2;
	most -= most / 8;
	return dirty + writeback < most ? most - dirty - writeback : 0;
}

/* A quarter of that may be written before the next look. */
static void look(struct reactor *reactor, u64 now)
{
	u64 left = free_running(reactor->reactors->buffered) / 4 * KIB(4);

	reactor->here_full = !left;
	reactor->here_left = left < LOOK_BYTES ? (s64)left : (s64)LOOK_BYTES;
	reactor->here_until = now + (left ? LOOK_NS : RETRY_NS);
}

/* How often this thread has slept of its own accord. */
static long sleeps(void)
{
	struct rusage usage;

	return getrusage(RUSAGE_THREAD, &usage) < 0 ? 0 : usage.ru_nvcsw;
}

static void trust_renew(struct reactor *reactor, u64 now)
{
	if (reactor->here_trust == REACTOR_TRUST_FULL || now < reactor->here_again)
		return;
	reactor->here_trust--;
	reactor->here_again = now + WATCH_NS;
	if (reactor->here_trust == REACTOR_TRUST_FULL)
		reactor->here_pause = 0;
}

/* A batch has taken long. Once may be for want of a CPU, so from then on it is looked whether the
 * thread slept in one. */
static void trust_less(struct reactor *reactor, u64 now, bool slept)
{
	if (reactor->here_trust == REACTOR_TRUST_FULL) {
		reactor->here_trust = REACTOR_TRUST_WATCHED;
		reactor->here_again = now + WATCH_NS;
	} else if (slept) {
		u64 pause = reactor->here_pause ? reactor->here_pause * 2 : HANDED_NS;

		reactor->here_trust = REACTOR_TRUST_NONE;
		reactor->here_pause = pause < HANDED_MOST ? pause : HANDED_MOST;
		reactor->here_again = now + reactor->here_pause;
	}
}

/* ---- doing it ---- */

enum decision { DO_IT, HAND_OVER, LET_WAIT };

static enum decision decide(const struct reactor *reactor, const struct reactor_op *op)
{
	const struct buffered_file *file = file_of(op);
	u8 way = way_of(file);
	u32 handed;

	if (way == WAY_ENGINE)
		return HAND_OVER;
	if (way == WAY_NOWAIT)
		return DO_IT;
	if (reactor->here_trust == REACTOR_TRUST_NONE || reactor->here_left <= 0 ||
	    __atomic_load_n(&file->busy, __ATOMIC_RELAXED))
		return HAND_OVER;
	handed = __atomic_load_n(&file->handed, __ATOMIC_RELAXED);
	if (!handed)
		return DO_IT;
	/* Our own end soon, as no more of them are made meanwhile, and we hear of it. */
	return handed == *handed_here(reactor, op->file) ? LET_WAIT : HAND_OVER;
}

static s32 transfer_nowait(struct reactor_op *op)
{
	s32 result;

	op->nonblocking = true;
	result = reactor_transfer(op);
	op->nonblocking = false;
	return result;
}

/* The write; the first of a file tells how it goes. -EAGAIN: it is the engine's. */
static s32 perform(struct reactor *reactor, struct reactor_op *op)
{
	struct buffered_file *file = file_of(op);
	u8 way = way_of(file);
	s32 result;

	if (way == WAY_HERE)
		return reactor_transfer(op);
	result = transfer_nowait(op);
	if (way == WAY_NOWAIT)
		return result;
	/* EINVAL is what generic code says for file systems that cannot */
	if (result == -EOPNOTSUPP || result == -EINVAL)
		way = WAY_HERE;
	else
		way = reactor->reactors->engine->writes_nowait ? WAY_ENGINE : WAY_NOWAIT;
	__atomic_store_n(&file->way, way, __ATOMIC_RELAXED);
	return way == WAY_HERE ? reactor_transfer(op) : result;
}

static u64 op_bytes(const struct reactor_op *op)
{
	u64 bytes = 0;

	for (u32 i = 0; i < op->iov_count; i++)
		bytes += op->iov[i].iov_len;
	return bytes;
}

void reactor_buffered_run(struct reactor *reactor)
{
	bool watched = reactor->here_trust != REACTOR_TRUST_FULL;
	u64 start = clock_now_ns(), bytes = 0, end;
	long slept = watched ? sleeps() : 0;
	struct reactor_op *op;
	bool looked = false;

	reactor->here_due = false;
	trust_renew(reactor, start);
	for (u32 n = reactor->here_count; n && (op = reactor_op_list_take(&reactor->here)); n--) {
		enum decision decision;
		s32 result = -EAGAIN;

		reactor->here_count--;
		if (!looked && (start >= reactor->here_until ||
				(reactor->here_left <= 0 && !reactor->here_full))) {
			look(reactor, start);
			looked = true;
		}
		decision = decide(reactor, op);
		if (decision == LET_WAIT || (decision == DO_IT && bytes >= SWEEP_BYTES)) {
			reactor->here_due |= decision == DO_IT;
			keep(reactor, op);
			continue;
		}
		if (decision == DO_IT) {
			u64 size = op_bytes(op);

			bytes += size;
			reactor->here_left -= (s64)size;
			result = perform(reactor, op);
		}
		if (result == -EAGAIN) {
			hand_over(reactor, op);
			continue;
		}
		counter_add(&reactor->counts.writes_here, 1);
		op->state = REACTOR_OP_IDLE;
		op->done(op, result);
	}
	if (!bytes)
		return;
	end = clock_now_ns();
	if (end - start > (reactor->reactors->config.slow_ns ?: SLOW_NS))
		trust_less(reactor, end, watched && sleeps() != slept);
}
