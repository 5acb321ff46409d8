/*
 * The server of a share: a session of 9P2000.L over its socket. Requests are read as many as there
 * are, served in their order, and answered together; only syncing goes to a second thread, since it
 * takes as long as the disk likes.
 *
 * A message that is no request ends in an error for that message; one whose size is none ends the
 * process, as nobody could say where the next begins.
 */
#include <errno.h>
#include <linux/limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>
#include "backends/share-internal.h"
#include "vm/end.h"
#include "vm/log.h"
#include "vm/sandbox.h"

#define VERSION "9P2000.L"
#define SYNCS	256u

enum { RLERROR = 7, TFLUSH = 108 };

static struct share_session session;
static u8 in[SHARE_BUFFER], out[2 * SHARE_BUFFER];

/* What waits for the second thread, in order: a sync, or (fd -1) a flush that follows one. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t more;
	u32 first, count; /* the first is being done */
	struct {
		int fd;
		u16 tag;
		bool data_only;
	} queue[SYNCS];
} syncs = { .lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER };

static pthread_mutex_t out_lock = PTHREAD_MUTEX_INITIALIZER;

static void send_all(const u8 *bytes, size_t length)
{
	ssize_t n;

	pthread_mutex_lock(&out_lock);
	while (length) {
		n = write(SHARE_SOCKET, bytes, length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			_exit(STATUS_OK); /* the machine is gone */
		bytes += n;
		length -= (size_t)n;
	}
	pthread_mutex_unlock(&out_lock);
}

/* Puts size, type and tag before a reply that began at start; result: a handler's. */
static void seal(u8 *start, struct share_reply *reply, u8 type, u16 tag, int result)
{
	struct share_reply header = { .at = start };

	if (result < 0) {
		reply->at = start + SHARE_HEADER;
		share_put(reply, (u64)-result, 4);
		type = RLERROR - 1;
	}
	share_put(&header, (u64)(reply->at - start), 4);
	share_put(&header, type + 1u, 1);
	share_put(&header, tag, 2);
}

/* ---- syncing ---- */

static void *sync_main(void *arg)
{
	u8 bytes[SHARE_HEADER + 4];
	struct share_reply reply;
	int result;

	pthread_mutex_lock(&syncs.lock);
	for (;;) {
		u32 i = syncs.first;
		int fd;

		while (!syncs.count)
			pthread_cond_wait(&syncs.more, &syncs.lock);
		pthread_mutex_unlock(&syncs.lock);
		fd = syncs.queue[i].fd;
		result = fd < 0 ? 0 : syncs.queue[i].data_only ? fdatasync(fd) : fsync(fd);
		reply.at = bytes + SHARE_HEADER;
		seal(bytes, &reply, fd < 0 ? TFLUSH : 50, syncs.queue[i].tag,
		     result < 0 ? -errno : 0);
		if (fd >= 0)
			close(fd);
		send_all(bytes, (size_t)(reply.at - bytes));
		pthread_mutex_lock(&syncs.lock);
		syncs.first = (i + 1) % SYNCS;
		syncs.count--;
	}
	return arg;
}

/* False: there is no room, or (with idle) nothing to wait for. */
static bool sync_later(int fd, bool data_only, bool idle)
{
	bool queued;

	pthread_mutex_lock(&syncs.lock);
	queued = syncs.count < SYNCS && !(idle && !syncs.count);
	if (queued) {
		u32 i = (syncs.first + syncs.count++) % SYNCS;

		syncs.queue[i].fd = fd;
		syncs.queue[i].tag = session.tag;
		syncs.queue[i].data_only = data_only;
		pthread_cond_signal(&syncs.more);
	}
	pthread_mutex_unlock(&syncs.lock);
	return queued;
}

int share_sync(struct share_session *s, int fd, bool data_only)
{
	int copy = dup(fd); /* the fid may be gone by then */

	(void)s;
	if (copy >= 0 && sync_later(copy, data_only, false))
		return 1;
	if (copy >= 0)
		close(copy);
	return (data_only ? fdatasync(fd) : fsync(fd)) ? -errno : 0;
}

/* ---- what concerns the session itself ---- */

static int run_version(struct share_session *s, struct share_args *a, struct share_reply *reply)
{
	bool known = !strncmp(a->text[0], VERSION, strlen(VERSION));

	if (a->number[0] < SHARE_MSIZE_LEAST)
		return -EMSGSIZE;
	share_fids_clear(s);
	s->msize = a->number[0] < SHARE_MSIZE ? (u32)a->number[0] : SHARE_MSIZE;
	share_put(reply, s->msize, 4);
	share_put_text(reply, known ? VERSION : "unknown", known ? strlen(VERSION) : 7);
	if (!known)
		s->msize = 0;
	return 0;
}

/* Requests are served in order: what is to be flushed has been answered, or syncs. */
static int run_flush(struct share_session *s, struct share_args *a, struct share_reply *reply)
{
	(void)s, (void)a, (void)reply;
	return sync_later(-1, false, true);
}

/* ---- requests ---- */

/* format: a letter for each argument. f: a fid in use; 1 2 4 8: a number of so many bytes; s: a
 * string; n: a name. What follows is `rest`. */
static const struct share_request {
	u8 type;
	bool changes; /* refused where the share is read-only */
	const char *format;
	int (*run)(struct share_session *s, struct share_args *a, struct share_reply *reply);
} requests[] = {
	{ 8, false, "f", share_statfs },
	{ 12, false, "f4", share_lopen },
	{ 14, true, "fn444", share_lcreate },
	{ 16, true, "fns4", share_symlink },
	{ 18, true, "fn4444", share_mknod },
	{ 22, false, "f", share_readlink },
	{ 24, false, "f8", share_getattr },
	{ 26, true, "f444488888", share_setattr },
	{ 30, false, "f4s", share_xattrwalk },
	{ 32, true, "fs84", share_xattrcreate },
	{ 40, false, "f84", share_readdir },
	{ 50, false, "f4", share_fsync },
	{ 52, false, "f14884s", share_lock },
	{ 54, false, "f1884s", share_getlock },
	{ 70, true, "ffn", share_link },
	{ 72, true, "fn44", share_mkdir },
	{ 74, true, "fnfn", share_renameat },
	{ 76, true, "fn4", share_unlinkat },
	{ SHARE_TVERSION, false, "4s", run_version },
	{ 104, false, "44ss4", share_attach },
	{ TFLUSH, false, "2", run_flush },
	{ 110, false, "f42", share_walk },
	{ SHARE_TREAD, false, "f84", share_read },
	{ SHARE_TWRITE, false, "f84", share_write },
	{ SHARE_TCLUNK, false, "f", share_clunk },
	{ SHARE_TLEND, false, "f", share_lend },
};

static bool is_name(const char *name, size_t length)
{
	return length && !memchr(name, '/', length) && strcmp(name, ".") && strcmp(name, "..");
}

int share_text(u8 **at, u8 *end, bool name, char **text)
{
	size_t length;

	if (end - *at < 2)
		return -EBADMSG;
	length = share_get(*at, 2);
	if ((size_t)(end - *at) - 2 < length)
		return -EBADMSG;
	/* One of the two bytes of its length makes room for the NUL. */
	*text = memmove(*at, *at + 2, length);
	(*text)[length] = '\0';
	*at += 2 + length;
	if (memchr(*text, '\0', length))
		return -EINVAL;
	if (name && length > SHARE_NAME_MAX)
		return -ENAMETOOLONG;
	return name && !is_name(*text, length) ? -EINVAL : 0;
}

static int decode(struct share_session *s, const char *format, u8 *at, u8 *end,
		  struct share_args *a)
{
	u32 numbers = 0, texts = 0;

	for (; *format; format++) {
		u32 bytes = *format == 'f' ? 4 : (u32)(*format - '0');
		struct share_fid *fid;
		int err;

		if (*format == 's' || *format == 'n') {
			err = share_text(&at, end, *format == 'n', &a->text[texts++]);
			if (err)
				return err;
			continue;
		}
		if (end - at < bytes)
			return -EBADMSG;
		if (*format == 'f') {
			fid = share_fid_find(s, (u32)share_get(at, 4));
			if (!fid)
				return -EBADF;
			*(a->fid ? &a->other : &a->fid) = fid;
		} else {
			a->number[numbers++] = share_get(at, bytes);
		}
		at += bytes;
	}
	a->rest = at;
	a->rest_size = (u32)(end - at);
	return 0;
}

static int run(struct share_session *s, u8 type, u8 *at, u8 *end, struct share_reply *reply)
{
	struct share_args args = { .fid = NULL };
	const struct share_request *request = requests;
	int err;

	while (request->type != type)
		if (++request == requests + ARRAY_SIZE(requests))
			return -EOPNOTSUPP;
	if (!s->msize && type != SHARE_TVERSION)
		return -EPROTO;
	if (request->changes && s->readonly)
		return -EROFS;
	err = decode(s, request->format, at, end, &args);
	return err ? err : request->run(s, &args, reply);
}

/* One request of this size; its reply goes to `to`, whose end is returned. */
static u8 *serve(u8 *message, u32 size, u8 *to)
{
	struct share_reply reply = { .at = to + SHARE_HEADER, .end = to + session.msize };
	u8 type = message[4];
	int result;

	session.tag = (u16)share_get(message + 5, 2);
	result = run(&session, type, message + SHARE_HEADER, message + size, &reply);
	if (result == 1)
		return to;
	seal(to, &reply, type, session.tag, result);
	return reply.at;
}

/* Serves what is whole of `have` bytes; returns how many of them that was. */
static u32 serve_all(u32 have)
{
	u8 *to = out;
	u32 at = 0, size;

	while (have - at >= SHARE_HEADER) {
		size = (u32)share_get(in + at, 4);
		if (size < SHARE_HEADER || size > SHARE_MSIZE)
			_exit(STATUS_HOST_ERROR);
		if (have - at < size)
			break;
		to = serve(in + at, size, to);
		at += size;
		if (to > out + SHARE_BUFFER) {
			send_all(out, (size_t)(to - out));
			to = out;
		}
	}
	if (to > out)
		send_all(out, (size_t)(to - out));
	return at;
}

/* Threads and filters, and a byte that tells the machine of it. 0 or -errno (logged). */
static int begin(const struct share_config *config)
{
	static const u8 ready = 1;
	pthread_t thread;
	struct stat st;
	int err;

	session.readonly = config->readonly;
	session.map = config->map;
	if (fstat(SHARE_ROOT, &st))
		return -errno;
	session.dev = st.st_dev;
	err = config->readonly ? 0 : pthread_create(&thread, NULL, sync_main, NULL);
	if (err) {
		log_line("--share %s: a thread: %s; allow more processes (ulimit -u)", config->path,
			 strerror(err));
		return -err;
	}
	err = config->sandbox ? sandbox_share_enter() : 0;
	if (!err)
		send_all(&ready, 1);
	return err;
}

void share_serve(const struct share_config *config)
{
	u32 have = 0, done;
	ssize_t n;

	if (begin(config))
		_exit(STATUS_HOST_ERROR);
	for (;;) {
		n = read(SHARE_SOCKET, in + have, sizeof(in) - have);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			_exit(STATUS_OK); /* the machine has ended */
		have += (u32)n;
		done = serve_all(have);
		have -= done;
		if (have && done)
			memmove(in, in + done, have);
	}
}
