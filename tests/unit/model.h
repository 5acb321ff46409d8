/*
 * A small explicit-state model checker for two threads that talk through shared memory: every
 * interleaving, and every order in which stores may become visible, is tried.
 *
 * Memory is a list of stores for each location, in the order that all agree on (coherence). Each
 * thread knows, for each location, the oldest store that it may still read; a load picks any from
 * there on, so a store can stay unseen for any time. What moves the bound:
 *
 *   reading		coherence: never an older one again
 *   release, acquire	an acquire load of a release store shows all that its thread stored before
 *   full fence		of two fences, the second's thread sees all that the first's had stored
 *
 * MODEL_WEAK is that: C11's relaxed, release/acquire and seq_cst fences (without load buffering,
 * which no load here could show: each decides whether what follows it is done). It allows what
 * compilers and ARM or POWER reorder.
 *
 * MODEL_TSO is x86: stores are seen in program order (each is a release, each load an acquire), and
 * a fence empties the store buffer, so that the other thread sees it all from then on, fence or
 * not. A store buffer that drains when somebody looks is one that drains at any time.
 */
#ifndef TESTS_UNIT_MODEL_H
#define TESTS_UNIT_MODEL_H

#include <stdio.h>
#include <stdlib.h>
#include "vm/types.h"

#define MODEL_LOCATIONS 16
#define MODEL_HISTORY	3 /* stores to one location that somebody may still read */
#define MODEL_LOCALS	12
#define MODEL_UNSEEN	63 /* stores of one thread that the other has yet to see */

enum model_order { MODEL_TSO, MODEL_WEAK };

struct model_store {
	u8 value;
	u8 writer;
	u8 seq;	  /* among its writer's stores that the other may not have seen; 0: it has */
	u8 cover; /* seq up to which an acquire of it shows its writer's stores */
};

struct model_location {
	u8 count;
	u8 bound[2]; /* by thread: the first store it may read */
	struct model_store stores[MODEL_HISTORY];
};

struct model_thread {
	u8 pc;
	u8 stored;  /* stores so far */
	u8 fenced;  /* of them, before the last full fence */
	u8 pending; /* of the other's: shown by relaxed loads, once a fence comes */
	u8 local[MODEL_LOCALS];
};

struct model_state {
	struct model_thread thread[2];
	u8 fences[2];	/* of each thread's stores: what the other sees at its next fence */
	u8 wake[2];	/* a notification for this thread is pending */
	u8 woken_by[2]; /* of the other's stores: seen when it is taken */
	struct model_location at[MODEL_LOCATIONS];
};

#define MODEL_START UINT32_MAX /* the place before the first state */
#define MODEL_CHUNK 256

struct model_visited {
	u64 a, b;
	u32 from;      /* place of the state before */
	u8 thread, pc; /* the step that led here */
};

struct model_todo {
	struct model_todo *next;
	u32 count;
	u32 places[MODEL_CHUNK];
	struct model_state states[MODEL_CHUNK];
};

struct model {
	enum model_order order;
	const void *config;
	u32 locations;
	/*
	 * Does one step of a thread: at most one access to memory, and what follows from it.
	 * alternative picks one of several; the return value is how many there are (0: the thread
	 * waits). An error is set if the step shows one.
	 */
	u32 (*step)(struct model *model, struct model_state *state, u32 thread, u32 alternative);
	/* Is the thread's next step one that neither reads what the other stores, nor fences, wakes
	 * or waits? No way of such steps alone may lead back to where it began. */
	bool (*eager)(const struct model *model, const struct model_state *state, u32 thread);
	/* May everything stand still here? Else that is the error. */
	bool (*done)(const struct model *model, const struct model_state *state);
	/* results */
	const char *error;
	u64 states, steps;
	u32 seen; /* the steps' own: what happened in some run */
	/* the explorer's own */
	struct model_visited *visited;
	u64 size;
	struct model_todo *first, *last;
	u32 here; /* place of the state visited last */
	u8 moving;
};

/* ---- memory ---- */

static inline void model_show(struct model *model, struct model_state *state, u32 reader, u8 cover)
{
	for (u32 l = 0; l < model->locations; l++) {
		struct model_location *at = &state->at[l];

		for (u32 i = at->count; i-- > at->bound[reader] + 1u;)
			if (at->stores[i].writer != reader && at->stores[i].seq <= cover) {
				at->bound[reader] = (u8)i;
				break;
			}
	}
}

/* How many different stores a load may read. */
static inline u32 model_readable(const struct model_state *state, u32 thread, u32 location)
{
	return state->at[location].count - state->at[location].bound[thread];
}

static inline u8 model_load(struct model *model, struct model_state *state, u32 thread,
			    u32 location, u32 alternative, bool acquire)
{
	struct model_location *at = &state->at[location];
	struct model_store read;

	at->bound[thread] = (u8)(at->bound[thread] + alternative);
	read = at->stores[at->bound[thread]];
	if (read.writer == thread)
		return read.value;
	if (model->order == MODEL_TSO)
		model_show(model, state, thread, read.seq);
	else if (acquire)
		model_show(model, state, thread, read.cover);
	else if (read.cover > state->thread[thread].pending)
		state->thread[thread].pending = read.cover;
	return read.value;
}

/* What nobody can read any more goes. */
static inline void model_forget(struct model_location *at)
{
	u32 old = at->bound[0] < at->bound[1] ? at->bound[0] : at->bound[1];

	if (!old)
		return;
	memmove(at->stores, at->stores + old, (at->count - old) * sizeof(at->stores[0]));
	at->count = (u8)(at->count - old);
	at->bound[0] = (u8)(at->bound[0] - old);
	at->bound[1] = (u8)(at->bound[1] - old);
	memset(&at->stores[at->count], 0, (MODEL_HISTORY - at->count) * sizeof(at->stores[0]));
}

static inline void model_put(struct model *model, struct model_state *state, u32 thread,
			     u32 location, u8 value, bool release)
{
	struct model_location *at = &state->at[location];
	struct model_thread *t = &state->thread[thread];

	if (t->stored == MODEL_UNSEEN) {
		model->error = "too many stores are unseen";
		return;
	}
	if (at->count == MODEL_HISTORY) { /* no machine keeps them back for ever */
		at->bound[!thread]++;
		if (model->order == MODEL_TSO)
			model_show(model, state, !thread, at->stores[at->bound[!thread]].seq);
		model_forget(at);
	}
	t->stored++;
	at->bound[thread] = at->count;
	at->stores[at->count++] = (struct model_store){
		.value = value,
		.writer = (u8)thread,
		.seq = t->stored,
		.cover = release ? t->stored : t->fenced,
	};
}

static inline void model_fence(struct model *model, struct model_state *state, u32 thread)
{
	struct model_thread *t = &state->thread[thread];

	model_show(model, state, thread, t->pending);
	t->pending = 0;
	t->fenced = t->stored;
	if (model->order == MODEL_TSO) {
		model_show(model, state, !thread, t->stored);
		return;
	}
	model_show(model, state, thread, state->fences[!thread]);
	state->fences[thread] = t->stored;
}

/* Wakes the other thread: an eventfd, an interrupt. What was stored before is seen when it wakes.
 */
static inline void model_wake(struct model_state *state, u32 from)
{
	state->wake[!from] = 1;
	state->woken_by[!from] = state->thread[from].stored;
}

static inline void model_woken(struct model *model, struct model_state *state, u32 thread)
{
	state->wake[thread] = 0;
	model_show(model, state, thread, state->woken_by[thread]);
	state->woken_by[thread] = 0;
}

/* ---- states that mean the same become the same ---- */

/* Stores that the other has yet to see are counted anew. */
static inline void model_normalize(const struct model *model, struct model_state *state)
{
	for (u32 l = 0; l < model->locations; l++)
		model_forget(&state->at[l]);
	for (u32 writer = 0; writer < 2; writer++) {
		struct model_thread *t = &state->thread[writer];
		u8 rank[MODEL_UNSEEN + 1] = {};

		for (u32 l = 0; l < model->locations; l++)
			for (u32 i = state->at[l].bound[!writer] + 1u; i < state->at[l].count; i++)
				if (state->at[l].stores[i].writer == writer)
					rank[state->at[l].stores[i].seq] = 1;
		for (u32 seq = 1; seq <= MODEL_UNSEEN; seq++)
			rank[seq] = (u8)(rank[seq] + rank[seq - 1]);
		for (u32 l = 0; l < model->locations; l++)
			for (u32 i = 0; i < state->at[l].count; i++) {
				struct model_store *s = &state->at[l].stores[i];

				if (s->writer != writer)
					continue;
				/* the one at the bound may be read again, to acquire it */
				s->seq = i > state->at[l].bound[!writer] ? rank[s->seq] : 0;
				s->cover = i >= state->at[l].bound[!writer] ? rank[s->cover] : 0;
			}
		t->stored = rank[t->stored];
		t->fenced = rank[t->fenced];
		state->fences[writer] = rank[state->fences[writer]];
		state->woken_by[!writer] = rank[state->woken_by[!writer]];
		state->thread[!writer].pending = rank[state->thread[!writer].pending];
	}
}

static inline u64 model_mix(u64 hash, u64 value)
{
	hash = (hash ^ value) * 0x9e3779b97f4a7c15ull;
	return hash ^ hash >> 29;
}

/* True the first time. 128 bits of hash stand for the state. */
static inline bool model_visit(struct model *model, const struct model_state *state, u32 from,
			       u32 thread)
{
	u64 a = 1, b = 0x6a09e667f3bcc909ull, place;
	u8 bytes[sizeof(*state) + 8] = {};
	u32 n = offsetof(struct model_state, at);

	memcpy(bytes, state, n);
	for (u32 l = 0; l < model->locations; l++) {
		const struct model_location *at = &state->at[l];

		memcpy(bytes + n, at, 3u + at->count * sizeof(at->stores[0]));
		n += 3u + at->count * (u32)sizeof(at->stores[0]);
	}
	for (u32 i = 0; i < n; i += 8) {
		u64 word;

		memcpy(&word, bytes + i, 8);
		a = model_mix(a, word);
		b = model_mix(b, word + 0x2545f4914f6cdd1dull);
	}
	a |= 1; /* 0: free */
	for (place = b % model->size; model->visited[place].a; place = (place + 1) % model->size)
		if (model->visited[place].a == a && model->visited[place].b == b)
			return false;
	model->visited[place] =
		(struct model_visited){ a, b, from, (u8)thread,
					from == MODEL_START ? (u8)0 : model->moving };
	model->here = (u32)place;
	model->states++;
	return true;
}

/* Puts a state at the end of the queue of those to go on from. */
static inline void model_enqueue(struct model *model, const struct model_state *state)
{
	struct model_todo *chunk = model->last;

	if (!chunk || chunk->count == MODEL_CHUNK) {
		chunk = calloc(1, sizeof(*chunk));
		if (!chunk) {
			model->error = "out of memory";
			return;
		}
		if (model->last)
			model->last->next = chunk;
		else
			model->first = chunk;
		model->last = chunk;
	}
	chunk->places[chunk->count] = model->here;
	chunk->states[chunk->count++] = *state;
}

/* All that one thread may do next. False: nothing. */
static inline bool model_expand(struct model *model, const struct model_state *from, u32 place,
				u32 thread)
{
	u32 alternatives = 1;

	for (u32 i = 0; i < alternatives && !model->error; i++) {
		struct model_state to = *from;

		alternatives = model->step(model, &to, thread, i);
		if (!alternatives)
			return false;
		model->steps++;
		model->moving = from->thread[thread].pc;
		model_normalize(model, &to);
		if (model->error || model_visit(model, &to, place, thread))
			model_enqueue(model, &to);
	}
	return true;
}

/* The steps that led to an error, last first. */
static inline void model_trace(const struct model *model, u32 place)
{
	char line[4096];
	size_t n = 0;

	while (place != MODEL_START && n + 8 < sizeof(line)) {
		const struct model_visited *v = &model->visited[place];

		if (v->from != MODEL_START)
			n += (size_t)snprintf(line + n, sizeof(line) - n, " %c%u",
					      v->thread ? 'V' : 'D', v->pc);
		place = v->from;
	}
	line[n] = '\0';
	printf("%s, by, last first:%s\n", model->error, line);
}

/*
 * Tries everything from start on, shortest ways first, until an error; model->error is NULL if
 * there is none. Where a thread's next step is an eager one only that is tried: whatever the other
 * does instead it can do afterwards as well, as no store has to be seen.
 */
static inline void model_explore(struct model *model, const struct model_state *start,
				 u64 most_states, bool trace)
{
	model->size = 2 * most_states + 1;
	model->visited = calloc(model->size, sizeof(model->visited[0]));
	model->error = model->visited ? NULL : "out of memory";
	if (!model->error && model_visit(model, start, MODEL_START, 0))
		model_enqueue(model, start);
	while (model->first) {
		struct model_todo *chunk = model->first;

		for (u32 i = 0; i < chunk->count && !model->error; i++) {
			const struct model_state *from = &chunk->states[i];
			bool moves = false, eager = false;

			for (u32 thread = 0; thread < 2 && !eager; thread++)
				if (model->eager(model, from, thread))
					eager = moves =
						model_expand(model, from, chunk->places[i], thread);
			for (u32 thread = 0; thread < 2 && !eager; thread++)
				moves |= model_expand(model, from, chunk->places[i], thread);
			if (!model->error && !moves && !model->done(model, from))
				model->error = "a wake-up is lost";
			if (!model->error && model->states > most_states)
				model->error = "more states than there is room for";
			if (model->error && trace)
				model_trace(model, chunk->places[i]);
		}
		model->first = chunk->next;
		if (!model->first)
			model->last = NULL;
		free(chunk);
	}
	free(model->visited);
}

#endif
