/*
 * A terminal's keys on their way to the guest: raw, all of them, and read even by whom the guest no
 * longer listens to, so that Ctrl-] three times within a second always ends the machine. Main
 * thread.
 */
#ifndef RUN_INPUT_H
#define RUN_INPUT_H

#include <poll.h>
#include "vm/types.h"

#define INPUT_POLLS 2

struct input {
	int terminal; /* -1: there is none, and nothing here does anything */
	int to;	      /* the pipe's end; -1: the terminal has hung up */
	u32 quits;    /* Ctrl-] in a row, ... */
	u64 first;    /* ... since (ns) */
	size_t start, end;
	u8 bytes[16384];
};

/* Makes standard input raw; *from is where its bytes come out, to be given to the guest. Logs, 0 or
 * -errno. Before the sandbox. */
int input_open(struct input *input, int *from);
void input_prepare(const struct input *input, struct pollfd *fds);
/* True: the user wants to end it. */
bool input_run(struct input *input, const struct pollfd *fds, u64 now);
/* Of the terminal, 0 for none. Allowed in the sandbox. */
void input_size(const struct input *input, u16 *rows, u16 *cols);

/* The same keys, without descriptors: adds them; true for the third Ctrl-] in a second. */
bool input_take(struct input *input, const u8 *keys, size_t count, u64 now);

#endif
