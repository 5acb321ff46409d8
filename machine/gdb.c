/* gdb's client, its packets, and when the machine stops for it: see gdb.h. */
#include <ctype.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "backends/listen.h"
#include "machine/gdb.h"
#include "machine/machine.h"
#include "vm/log.h"

#define INTERRUPT 0x03 /* Ctrl-C in gdb */

/* As the protocol numbers signals. */
enum { SIGNAL_INT = 2, SIGNAL_TRAP = 5 };

enum { LISTENER, CLIENT, STOPPED };

/* ---- making ---- */

int gdb_create(struct gdb **result, struct machine *m, const char *path, bool wait)
{
	struct gdb *gdb = calloc(1, sizeof(*gdb));
	int error = -ENOMEM;

	if (gdb)
		gdb->actions = calloc(m->config->cpus, sizeof(*gdb->actions));
	if (!gdb || !gdb->actions)
		goto fail;
	gdb->m = m;
	gdb->client = -1;
	gdb->fd = error = listen_option("gdb", path, SOCK_STREAM, 1);
	if (error < 0)
		goto quiet;
	error = debug_create(&gdb->debug, m->vcpus, m->config->cpus, &m->memory,
			     ioctl(m->kvm.fd, KVM_CHECK_EXTENSION, KVM_CAP_SET_GUEST_DEBUG2));
	if (error)
		goto fail;
	if (wait) {
		vcpus_hold(m->vcpus, false);
		log_line("the machine waits for gdb: target remote %s", path);
	}
	*result = gdb;
	return 0;
fail:
	log_line("--gdb: %s; " MORE_FILES, strerror(-error));
quiet:
	if (gdb)
		free(gdb->actions);
	free(gdb);
	return error;
}

void gdb_destroy(struct gdb *gdb)
{
	if (!gdb)
		return;
	if (gdb->client >= 0)
		close(gdb->client);
	close(gdb->fd);
	debug_destroy(&gdb->debug);
	free(gdb->actions);
	free(gdb);
}

/* ---- replies ---- */

void gdb_put(struct gdb *gdb, const char *format, ...)
{
	u32 room = (u32)sizeof(gdb->out) - 4 - gdb->out_length; /* the checksum's */
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(gdb->out + gdb->out_length, room, format, args);
	va_end(args);
	gdb->out_length += n < 0 ? 0 : (u32)n < room ? (u32)n : room - 1;
}

void gdb_put_hex(struct gdb *gdb, const void *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		gdb_put(gdb, "%02x", ((const u8 *)bytes)[i]);
}

/* What was sent stays till then: the client may ask for it again. */
static void forget_sent(struct gdb *gdb)
{
	if (gdb->out_done == gdb->out_length)
		gdb->out_done = gdb->out_length = 0;
}

void gdb_begin(struct gdb *gdb)
{
	forget_sent(gdb);
	gdb_put(gdb, "$");
	gdb->start = gdb->out_length;
}

void gdb_end(struct gdb *gdb)
{
	u8 sum = 0;

	for (u32 i = gdb->start; i < gdb->out_length; i++)
		sum += (u8)gdb->out[i];
	gdb_put(gdb, "#%02x", sum);
}

/* ---- stopping and going on ---- */

void gdb_put_stop(struct gdb *gdb, const struct debug_stop *stop)
{
	static const char *const watches[] = {
		[DEBUG_WRITE] = "watch", [DEBUG_READ] = "rwatch", [DEBUG_ACCESS] = "awatch"
	};

	gdb_put(gdb, "T%02xthread:%x;", gdb->signal, gdb->thread + 1);
	if (stop->hit && stop->kind > DEBUG_EXEC)
		gdb_put(gdb, "%s:%llx;", watches[stop->kind], (unsigned long long)stop->address);
	else if (stop->hit && gdb->tells_swbreak)
		gdb_put(gdb, "%s:;", stop->kind == DEBUG_EXEC ? "hwbreak" : "swbreak");
}

/* All vCPUs are held. */
static void tell_stop(struct gdb *gdb)
{
	struct debug_stop stop = { 0 };
	int index = debug_take(&gdb->debug, &stop);

	gdb->signal = index >= 0 ? SIGNAL_TRAP : SIGNAL_INT;
	if (index >= 0)
		gdb->thread = (u32)index;
	gdb_begin(gdb);
	gdb_put_stop(gdb, &stop);
	gdb_end(gdb);
	gdb->running = false;
}

void gdb_exit(struct gdb *gdb, u32 index, const struct kvm_debug_exit_arch *exit)
{
	debug_exit(&gdb->debug, index, exit);
}

void gdb_resume(struct gdb *gdb)
{
	u64 count;

	/* who stopped with the one that was told of */
	if (read(gdb->debug.fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		log_line("gdb: %s", strerror(errno));
	gdb->running = true;
	if (!debug_resume(&gdb->debug, gdb->actions))
		tell_stop(gdb);
}

void gdb_let_go(struct gdb *gdb)
{
	vcpus_hold(gdb->m->vcpus, true);
	debug_clear(&gdb->debug);
	memset(gdb->actions, DEBUG_CONTINUE, gdb->debug.count);
	debug_resume(&gdb->debug, gdb->actions);
}

void gdb_restarted(struct gdb *gdb)
{
	debug_forget(&gdb->debug);
}

/* ---- the client ---- */

static void drop(struct gdb *gdb)
{
	close(gdb->client);
	gdb->client = -1;
	gdb_let_go(gdb);
}

static void send_some(struct gdb *gdb)
{
	ssize_t n = write(gdb->client, gdb->out + gdb->out_done, gdb->out_length - gdb->out_done);

	if (n >= 0)
		gdb->out_done += (u32)n;
	else if (errno != EAGAIN && errno != EINTR)
		drop(gdb);
}

static void take_client(struct gdb *gdb)
{
	int fd = accept4(gdb->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	if (gdb->client >= 0) { /* one at a time */
		close(fd);
		return;
	}
	gdb->client = fd;
	gdb->in_length = gdb->out_length = gdb->out_done = gdb->thread = 0;
	gdb->running = gdb->no_acks = gdb->tells_swbreak = false;
	gdb->signal = SIGNAL_TRAP;
	vcpus_hold(gdb->m->vcpus, true);
}

void gdb_ended(struct gdb *gdb, int status)
{
	if (gdb->client < 0 || !gdb->running)
		return;
	gdb_begin(gdb);
	gdb_put(gdb, "W%02x", (unsigned int)status);
	gdb_end(gdb);
	send_some(gdb);
}

/* ---- packets ---- */

u64 gdb_hex(const char **at, u32 most)
{
	u64 n = 0;

	for (; most && isxdigit((unsigned char)**at); (*at)++, most--)
		n = n << 4 | (u64)(**at <= '9' ? **at - '0' : (**at | 0x20) - 'a' + 10);
	return n;
}

static void eat(struct gdb *gdb, u32 count)
{
	gdb->in_length -= count;
	memmove(gdb->in, gdb->in + count, gdb->in_length);
}

/* `$`, the packet, `#` and the sum of its letters in hex. False: it is not whole yet. */
static bool run_packet(struct gdb *gdb)
{
	char *end = memchr(gdb->in, '#', gdb->in_length);
	const char *at;
	u32 length, sum = 0;

	if (!end || end + 2 >= gdb->in + gdb->in_length)
		return false;
	length = (u32)(end - gdb->in);
	for (u32 i = 1; i < length; i++)
		sum += (u8)gdb->in[i];
	at = end + 1;
	forget_sent(gdb);
	if (gdb_hex(&at, 2) != (sum & 0xff)) {
		gdb_put(gdb, "-");
	} else {
		if (!gdb->no_acks)
			gdb_put(gdb, "+");
		*end = '\0';
		gdb_command(gdb, gdb->in + 1, length - 1);
	}
	eat(gdb, length + 3);
	return true;
}

/* What the first byte asks for. False: for more bytes. */
static bool run_byte(struct gdb *gdb)
{
	char c = gdb->in[0];

	if (c == '-')
		gdb->out_done = 0;
	if (c != '$' && c != INTERRUPT) {
		eat(gdb, 1);
		return true;
	}
	/* whatever comes while it runs stops it */
	if (gdb->running) {
		vcpus_hold(gdb->m->vcpus, true);
		tell_stop(gdb);
		return true;
	}
	if (c == '$')
		return run_packet(gdb);
	eat(gdb, 1);
	return true;
}

/* One after the other: the next when the reply before it is out. */
static void run_input(struct gdb *gdb)
{
	while (gdb->client >= 0 && gdb->in_length) {
		if (!run_byte(gdb))
			break;
		if (gdb->client >= 0 && gdb->out_done < gdb->out_length)
			send_some(gdb);
		if (gdb->out_done < gdb->out_length)
			return;
	}
	if (gdb->client >= 0 && gdb->in_length == sizeof(gdb->in)) {
		log_line("--gdb: a packet longer than %u letters; the client is let go",
			 GDB_PACKET);
		drop(gdb);
	}
}

static void receive(struct gdb *gdb)
{
	ssize_t n = read(gdb->client, gdb->in + gdb->in_length, sizeof(gdb->in) - gdb->in_length);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		drop(gdb);
		return;
	}
	gdb->in_length += (u32)n;
	run_input(gdb);
}

/* ---- the loop ---- */

void gdb_prepare(const struct gdb *gdb, struct pollfd *fds)
{
	bool sends = gdb->out_done < gdb->out_length;

	fds[LISTENER] = (struct pollfd){ .fd = gdb->fd, .events = POLLIN };
	fds[CLIENT] = (struct pollfd){ .fd = gdb->client, .events = sends ? POLLOUT : POLLIN };
	fds[STOPPED] = (struct pollfd){ .fd = gdb->debug.fd, .events = POLLIN };
}

void gdb_run(struct gdb *gdb, const struct pollfd *fds)
{
	u64 count;

	if (fds[STOPPED].revents && read(gdb->debug.fd, &count, sizeof(count)) > 0 &&
	    gdb->client >= 0 && gdb->running) {
		vcpus_hold(gdb->m->vcpus, true);
		tell_stop(gdb);
	}
	if (gdb->client >= 0 && gdb->client == fds[CLIENT].fd && fds[CLIENT].revents) {
		if (gdb->out_done == gdb->out_length)
			receive(gdb);
		else if (fds[CLIENT].revents & ~POLLIN)
			send_some(gdb);
	}
	if (gdb->client >= 0 && gdb->out_done < gdb->out_length)
		send_some(gdb);
	if (gdb->client >= 0 && gdb->out_done == gdb->out_length)
		run_input(gdb);
	if (fds[LISTENER].revents)
		take_client(gdb);
}
