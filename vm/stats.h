/*
 * --stats: the file, and what the ground counts (exits, reactors). The devices' part is
 * virtio/stats.h's. docs/stats.md tells the schema. Main thread.
 */
#ifndef VM_STATS_H
#define VM_STATS_H

#include "vm/json.h"
#include "vm/reactor.h"
#include "vm/vcpu.h"

struct stats {
	const char *path; /* as it was given; the caller's */
	int fd;		  /* -1: none was asked for */
	bool rewritten;	  /* a regular file, which has only the last object; else they follow each
			     other */
	bool terminal;	  /* which may be raw while the machine runs */
};

/* Opens (makes, empties) the file; "-" is stderr, NULL is none. A FIFO needs its reader. Logs, 0 or
 * -errno. Before the sandbox. */
int stats_open(struct stats *stats, const char *path);

/* "exits" and "reactors", as members of an open object. */
void stats_put_vcpus(const struct vcpus *vcpus, struct json *json);
void stats_put_reactors(struct reactors *reactors, struct json *json);

/* Ends the text, writes it, frees it. What fails is one log line, and the machine goes on. */
void stats_write(const struct stats *stats, struct json *json);

#endif
