/*
 * The control socket (--control PATH): a Unix socket of mode 0600 that takes commands, a JSON
 * object a line, and answers each by one (docs/control.md). Clients are served by the main thread
 * between its other duties: nothing here waits for one, and what a client may make us keep is
 * bounded.
 */
#ifndef MACHINE_CONTROL_H
#define MACHINE_CONTROL_H

#include <poll.h>
#include "vm/json.h"

struct machine;
struct control;
struct control_client;

#define CONTROL_CLIENTS 8     /* at one time; of more, those that are idle the longest are let go */
#define CONTROL_LINE	65536 /* bytes of a request, newline included */
#define CONTROL_FDS	129   /* descriptors with one request */
#define CONTROL_POLLS	(1 + CONTROL_CLIENTS)

/* Makes the socket; takes the place of one that nobody listens on. Logs, 0 or -errno. Before the
 * sandbox. */
int control_create(struct control **control, struct machine *m, const char *path);
/* Hangs up on all clients; the socket's file stays, and the next machine takes its place. */
void control_destroy(struct control *control);
/* Main thread's loop: what to poll (CONTROL_POLLS), until when at most (*deadline is lowered, ns),
 * and what is due. */
void control_prepare(struct control *control, struct pollfd *fds, u64 *deadline);
void control_run(struct control *control, const struct pollfd *fds, u64 now);

/* ---- between control.c and commands.c ---- */

/* One request. Descriptors that are taken become -1; the rest are closed. */
struct control_request {
	struct machine *m;
	struct control_client *client;
	const char *text;
	size_t length;
	int *fds;
	u32 fd_count;
};

/* Carries a request out. True: the answer is in *answer, an object without its closing bracket;
 * false: it comes later by control_answer(). */
bool command_run(const struct control_request *request, struct json *answer);
/* The later answer; of *answer as above. */
void control_answer(struct control_client *client, struct json *answer);
/* The same by trying: again() is called each turn for some seconds, and the answer goes when it
 * returns true, or with what it has put there the last time. `number` is the caller's. */
void control_retry(struct control_client *client,
		   bool (*again)(struct machine *m, u64 number, struct json *answer), u64 number);

#endif
