/* The control socket and its clients: see control.h. Main thread. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "backends/listen.h"
#include "machine/control.h"
#include "machine/hotplug.h"
#include "machine/json-library.h"
#include "vm/log.h"
#include "vm/ticks.h"

#define NS	    1000000000ull
#define PATIENCE_NS (10 * NS) /* with half a request, and with an answer that nobody reads */
#define NEVER	    (~0ull)
#define RETRY_NS    (NS / 100)
/* Room for one descriptor more than there may be, so that too many are noticed. */
#define CMSG_BYTES CMSG_SPACE((CONTROL_FDS + 1) * sizeof(int))

struct control_client {
	struct control *control;
	int fd;	      /* -1: free */
	u64 since;    /* it did something last */
	bool waiting; /* for an answer that comes later */
	bool closing; /* when the answer is out */
	bool (*again)(struct machine *m, u64 number, struct json *answer);
	u64 number; /* control_retry() */
	char *in;   /* CONTROL_LINE bytes */
	size_t in_length;
	int fds[CONTROL_FDS];
	u32 fd_count;
	char *out;
	size_t out_length, out_done;
};

struct control {
	struct machine *m;
	int fd;
	struct control_client clients[CONTROL_CLIENTS];
};

/* ---- making ---- */

int control_create(struct control **result, struct machine *m, const char *path)
{
	struct control *control = calloc(1, sizeof(*control));
	int error;

	if (!control) {
		log_line("--control: out of memory; free some");
		return -ENOMEM;
	}
	control->m = m;
	for (u32 i = 0; i < CONTROL_CLIENTS; i++)
		control->clients[i] = (struct control_client){ .control = control, .fd = -1 };
	error = json_library_load();
	if (!error)
		control->fd = error = listen_option("control", path, SOCK_STREAM, CONTROL_CLIENTS);
	if (error < 0) {
		free(control);
		return error;
	}
	*result = control;
	return 0;
}

/* ---- clients ---- */

static void drop_fds(struct control_client *client)
{
	for (u32 i = 0; i < client->fd_count; i++)
		if (client->fds[i] >= 0)
			close(client->fds[i]);
	client->fd_count = 0;
}

static void drop(struct control_client *client)
{
	if (client->waiting)
		hotplug_forget(client->control->m->hotplug, client);
	drop_fds(client);
	close(client->fd);
	free(client->in);
	free(client->out);
	*client = (struct control_client){ .control = client->control, .fd = -1 };
}

/* A free place; else that of who has been idle the longest and waits for nothing. NULL: all wait.
 */
static struct control_client *find_place(struct control *control)
{
	struct control_client *oldest = NULL;

	for (u32 i = 0; i < CONTROL_CLIENTS; i++) {
		struct control_client *client = &control->clients[i];

		if (client->fd < 0)
			return client;
		if (!client->waiting && (!oldest || client->since < oldest->since))
			oldest = client;
	}
	if (oldest)
		drop(oldest);
	return oldest;
}

static void take_client(struct control *control, u64 now)
{
	struct control_client *client;
	int fd = accept4(control->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	client = find_place(control);
	if (client)
		client->in = malloc(CONTROL_LINE);
	if (!client || !client->in) {
		close(fd);
		return;
	}
	client->fd = fd;
	client->since = now;
}

/* ---- answers ---- */

static void send_some(struct control_client *client)
{
	struct iovec iov = { client->out + client->out_done,
			     client->out_length - client->out_done };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (!client->out)
		return;
	n = sendmsg(client->fd, &message, MSG_NOSIGNAL);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		drop(client);
		return;
	}
	client->out_done += (size_t)n;
	client->since = clock_now_ns();
	if (client->out_done < client->out_length)
		return;
	free(client->out);
	client->out = NULL;
	if (client->closing)
		drop(client);
}

/* Takes the answer's text as it is: one line. */
static void answer(struct control_client *client, struct json *json)
{
	json_end(json);
	json->line = "\n";
	if (json_done(json)) {
		json_free(json);
		drop(client);
		return;
	}
	client->out = json->text;
	client->out_length = json->length;
	client->out_done = 0;
	client->since = clock_now_ns();
	send_some(client);
}

static void begin(struct json *json)
{
	*json = (struct json){ .line = "" };
	json_begin_object(json, NULL);
}

static void refuse(struct control_client *client, const char *why)
{
	struct json json;

	client->closing = true;
	begin(&json);
	json_text(&json, "error", why);
	answer(client, &json);
}

/* ---- requests ---- */

static void run_line(struct control_client *client, size_t length)
{
	struct control_request request = {
		.m = client->control->m,
		.client = client,
		.text = client->in,
		.length = length,
		.fds = client->fds,
		.fd_count = client->fd_count,
	};
	struct json json;

	begin(&json);
	client->waiting = true; /* until it is answered, if only by this */
	if (command_run(&request, &json)) {
		client->waiting = false;
		answer(client, &json);
	} else {
		json_free(&json);
	}
}

/* Lines that are whole, as long as the answers before them are out. */
static void run_lines(struct control_client *client)
{
	while (client->fd >= 0 && !client->waiting && !client->out) {
		char *end = memchr(client->in, '\n', client->in_length);
		size_t length;

		if (!end)
			break;
		length = (size_t)(end - client->in);
		run_line(client, length);
		if (client->fd < 0)
			return;
		drop_fds(client);
		client->in_length -= length + 1;
		memmove(client->in, end + 1, client->in_length);
	}
	if (client->fd >= 0 && !client->waiting && !client->out &&
	    client->in_length == CONTROL_LINE)
		refuse(client, "the request is longer than 64 KiB; make it shorter");
}

void control_answer(struct control_client *client, struct json *json)
{
	/* what it has sent behind its request is looked at in the loop's next turn */
	client->waiting = false;
	answer(client, json);
}

void control_retry(struct control_client *client,
		   bool (*again)(struct machine *m, u64 number, struct json *answer), u64 number)
{
	client->again = again;
	client->number = number;
}

static void retry(struct control_client *client, u64 now)
{
	struct json json;

	begin(&json);
	if (client->again(client->control->m, client->number, &json) ||
	    now >= client->since + PATIENCE_NS) {
		client->again = NULL;
		control_answer(client, &json);
	} else {
		json_free(&json);
	}
}

/* False: more came than there is room for. */
static bool take_fds(struct control_client *client, struct msghdr *message)
{
	bool room = !(message->msg_flags & MSG_CTRUNC);

	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		u32 count = (u32)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (u32 i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			if (client->fd_count < CONTROL_FDS) {
				client->fds[client->fd_count++] = fd;
			} else {
				close(fd);
				room = false;
			}
		}
	}
	return room;
}

/* Once a turn: whoever sends without end does not keep the others waiting. */
static void receive(struct control_client *client, u64 now)
{
	char control[CMSG_BYTES] __attribute__((aligned(8)));
	struct iovec iov = { client->in + client->in_length, CONTROL_LINE - client->in_length };
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n = recvmsg(client->fd, &message, MSG_CMSG_CLOEXEC);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		drop(client);
		return;
	}
	client->since = now;
	client->in_length += (size_t)n;
	if (!take_fds(client, &message)) {
		drop_fds(client);
		refuse(client, "too many descriptors with one request; send fewer");
		return;
	}
	run_lines(client);
}

/* ---- the loop ---- */

static bool ready(const struct control_client *client)
{
	return !client->out && !client->waiting && client->in_length &&
	       memchr(client->in, '\n', client->in_length);
}

static bool reads(const struct control_client *client)
{
	return !client->out && !client->waiting && client->in_length < CONTROL_LINE;
}

void control_prepare(struct control *control, struct pollfd *fds, u64 *deadline)
{
	fds[0] = (struct pollfd){ .fd = control->fd, .events = POLLIN };
	for (u32 i = 0; i < CONTROL_CLIENTS; i++) {
		const struct control_client *client = &control->clients[i];

		fds[1 + i] = (struct pollfd){ .fd = client->fd };
		if (client->fd < 0)
			continue;
		/* of who waits for an answer nothing is read, but its going is seen: POLLHUP */
		fds[1 + i].events = client->out ? POLLOUT : reads(client) ? POLLIN : 0;
		if (ready(client))
			*deadline = 0;
		if (client->again && clock_now_ns() + RETRY_NS < *deadline)
			*deadline = clock_now_ns() + RETRY_NS;
		if ((client->out || client->in_length) && !client->waiting &&
		    client->since + PATIENCE_NS < *deadline)
			*deadline = client->since + PATIENCE_NS;
	}
}

void control_run(struct control *control, const struct pollfd *fds, u64 now)
{
	for (u32 i = 0; i < CONTROL_CLIENTS; i++) {
		struct control_client *client = &control->clients[i];
		short events = fds[1 + i].revents;

		/* another may have come to its place in this turn */
		if (client->fd < 0 || client->fd != fds[1 + i].fd)
			continue;
		if (events & (POLLERR | POLLNVAL)) {
			drop(client);
		} else if (client->out) {
			if (events & (POLLOUT | POLLHUP))
				send_some(client);
		} else if (reads(client)) {
			if (events & (POLLIN | POLLHUP))
				receive(client, now);
		} else if (events & POLLHUP) {
			drop(client);
		}
		if (client->again)
			retry(client, now);
		if (client->fd >= 0 && ready(client))
			run_lines(client);
		if (client->fd >= 0 && !client->waiting && (client->out || client->in_length) &&
		    now >= client->since + PATIENCE_NS)
			drop(client);
	}
	if (fds[0].revents & POLLIN)
		take_client(control, now);
}

void control_destroy(struct control *control)
{
	if (!control)
		return;
	for (u32 i = 0; i < CONTROL_CLIENTS; i++)
		if (control->clients[i].fd >= 0)
			drop(&control->clients[i]);
	close(control->fd);
	free(control);
}
