/* What the packets of gdb's remote protocol ask for: see gdb.h. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "machine/gdb.h"
#include "machine/machine.h"

#define PAGE KIB(4)
#define ALL  (~0u) /* instead of one thread */

static void reply(struct gdb *gdb, const char *text)
{
	gdb_begin(gdb);
	gdb_put(gdb, "%s", text);
	gdb_end(gdb);
}

/* OK, or E and the error's number. */
static void reply_error(struct gdb *gdb, int error)
{
	gdb_begin(gdb);
	gdb_put(gdb, error ? "E%02x" : "OK", (unsigned int)-error & 0xff);
	gdb_end(gdb);
}

/* A number, and what stands between it and the next. */
static u64 number(const char **at)
{
	u64 n = gdb_hex(at, 16);

	if (**at == ',' || **at == ':' || **at == '=')
		(*at)++;
	return n;
}

/* A thread's name is the vCPU's number and one. ALL for -1 and 0, which mean all and any. */
static bool thread_of(const struct gdb *gdb, const char **at, u32 *index)
{
	const char *start = *at;
	u64 n;

	if (!strncmp(*at, "-1", 2)) {
		*at += 2;
		*index = ALL;
		return true;
	}
	n = gdb_hex(at, 16);
	*index = (u32)n - 1;
	return *at != start && n <= gdb->debug.count;
}

/* Bytes of two digits, in place. Their number. */
static u32 from_hex(char *to, const char *from)
{
	u32 n = 0;

	for (; isxdigit((unsigned char)from[0]) && isxdigit((unsigned char)from[1]); n++)
		to[n] = (char)gdb_hex(&from, 2);
	return n;
}

/* ---- memory ---- */

/* Page by page: gdb takes less than it asked for. */
static void do_read(struct gdb *gdb, const char *at)
{
	u64 address = number(&at), length = number(&at), some;
	u8 *from;

	if (length > GDB_PACKET / 2)
		length = GDB_PACKET / 2;
	gdb_begin(gdb);
	for (u64 done = 0; done < length; done += some, address += some) {
		some = PAGE - address % PAGE;
		if (some > length - done)
			some = length - done;
		from = debug_memory(&gdb->debug, gdb->thread, address, some);
		if (!from) {
			if (!done)
				gdb_put(gdb, "E%02x", EFAULT);
			break;
		}
		gdb_put_hex(gdb, from, some);
	}
	gdb_end(gdb);
}

static int write_memory(struct gdb *gdb, u64 address, const char *bytes, u64 length)
{
	for (u64 some; length; length -= some, address += some, bytes += some) {
		u8 *to;

		some = PAGE - address % PAGE;
		if (some > length)
			some = length;
		to = debug_memory(&gdb->debug, gdb->thread, address, some);
		if (!to)
			return -EFAULT;
		memcpy(to, bytes, some);
	}
	return 0;
}

/* M: in hex. X: as they are, but for `}`, after which a byte stands that has bit 5 turned. */
static void do_write(struct gdb *gdb, char *packet, u32 length)
{
	const char *at = packet + 1;
	u64 address = number(&at), size = number(&at);
	u32 from = (u32)(at - packet), n = 0;
	char *bytes = packet + from;

	if (*packet == 'M') {
		n = from_hex(bytes, bytes);
	} else {
		for (; from < length; n++, from++) {
			if (packet[from] == '}' && from + 1 < length)
				packet[++from] ^= 0x20;
			bytes[n] = packet[from];
		}
	}
	reply_error(gdb, n == size ? write_memory(gdb, address, bytes, n) : -EINVAL);
}

/* ---- registers ---- */

static void do_registers(struct gdb *gdb, char *packet)
{
	int fd = vcpus_fd(gdb->m->vcpus, gdb->thread), error;
	u32 offset = 0, size = sizeof(struct gdb_registers);
	struct gdb_registers r, old;
	const char *at = packet + 1;
	char *bytes = packet;

	error = gdb_registers_load(fd, &r);
	if (!error && (*packet | 0x20) == 'p' &&
	    !gdb_register_place((u32)number(&at), &offset, &size))
		error = -EINVAL;
	if (error) {
		reply_error(gdb, error);
	} else if (*packet == 'g' || *packet == 'p') {
		gdb_begin(gdb);
		gdb_put_hex(gdb, (u8 *)&r + offset, size);
		gdb_end(gdb);
	} else {
		bytes += at - packet;
		old = r;
		error = from_hex(bytes, bytes) == size ? 0 : -EINVAL;
		if (!error) {
			memcpy((u8 *)&r + offset, bytes, size);
			error = gdb_registers_store(fd, &old, &r);
		}
		reply_error(gdb, error);
	}
}

/* ---- running ---- */

/* `;c`, `;s:2` and so on: of those that fit a vCPU the first counts, and who has none stays. */
static void do_continue(struct gdb *gdb, const char *at)
{
	const u8 unset = 0xff;
	bool any = false;

	memset(gdb->actions, unset, gdb->debug.count);
	while (*at++ == ';') {
		char action = *at++;
		u32 index = ALL;

		if (action == 'C' || action == 'S') /* with a signal, of which there are none */
			gdb_hex(&at, 2);
		action |= 0x20;
		if ((action != 'c' && action != 's') ||
		    (*at == ':' && (at++, !thread_of(gdb, &at, &index)))) {
			reply_error(gdb, -EINVAL);
			return;
		}
		for (u32 i = 0; i < gdb->debug.count; i++)
			if ((index == ALL || index == i) && gdb->actions[i] == unset)
				gdb->actions[i] = action == 's' ? DEBUG_STEP : DEBUG_CONTINUE;
	}
	for (u32 i = 0; i < gdb->debug.count; i++) {
		any |= gdb->actions[i] != unset;
		if (gdb->actions[i] == unset)
			gdb->actions[i] = DEBUG_STAY;
	}
	if (any)
		gdb_resume(gdb);
	else
		reply_error(gdb, -EINVAL);
}

/* The older words: the current one steps, all continue. */
static void do_run(struct gdb *gdb, bool step)
{
	memset(gdb->actions, DEBUG_CONTINUE, gdb->debug.count);
	if (step)
		gdb->actions[gdb->thread] = DEBUG_STEP;
	gdb_resume(gdb);
}

static void do_breakpoint(struct gdb *gdb, const char *packet)
{
	const char *at = packet + 1;
	u64 kind = number(&at), address = number(&at), length = number(&at);
	int error = 0;

	if (kind > DEBUG_ACCESS) {
		reply(gdb, "");
		return;
	}
	if (*packet == 'Z')
		error = debug_insert(&gdb->debug, gdb->thread, (enum debug_kind)kind, address,
				     length);
	else
		debug_remove(&gdb->debug, (enum debug_kind)kind, address);
	reply_error(gdb, error);
}

/* ---- questions ---- */

static void do_features(struct gdb *gdb, const char *at)
{
	const char *xml = gdb_registers_xml();
	u64 offset = number(&at), length = number(&at), whole = strlen(xml);

	if (offset > whole)
		offset = whole;
	if (length > GDB_PACKET - 8)
		length = GDB_PACKET - 8;
	gdb_begin(gdb);
	gdb_put(gdb, "%c%.*s", length < whole - offset ? 'm' : 'l', (int)length, xml + offset);
	gdb_end(gdb);
}

static void do_threads(struct gdb *gdb)
{
	gdb_begin(gdb);
	for (u32 i = 0; i < gdb->debug.count; i++)
		gdb_put(gdb, "%c%x", i ? ',' : 'm', i + 1);
	gdb_end(gdb);
}

static void do_about_thread(struct gdb *gdb, const char *at)
{
	char text[16];
	u32 index;

	gdb_begin(gdb);
	if (thread_of(gdb, &at, &index) && index != ALL)
		gdb_put_hex(gdb, text, (size_t)snprintf(text, sizeof(text), "vCPU %u", index));
	gdb_end(gdb);
}

/* `monitor` and a word. Linux's scripts know by an answer to `info version` that the threads are
 * CPUs (scripts/gdb/linux/utils.py). */
static void do_monitor(struct gdb *gdb, char *word)
{
	const char *text = "there are: nmi, info version\n";

	word[from_hex(word, word)] = '\0';
	if (!strcmp(word, "nmi")) {
		vcpus_nmi(gdb->m->vcpus);
		text = "an NMI for each vCPU, when it goes on\n";
	} else if (!strcmp(word, "info version")) {
		text = "vmm\n";
	}
	gdb_begin(gdb);
	gdb_put_hex(gdb, text, strlen(text));
	gdb_end(gdb);
}

/* What the packet has behind this word; NULL: it is another. */
static char *behind(char *packet, const char *word)
{
	size_t length = strlen(word);

	return strncmp(packet, word, length) ? NULL : packet + length;
}

static void do_question(struct gdb *gdb, char *packet)
{
	char *at;

	if ((at = behind(packet, "qSupported"))) {
		gdb->tells_swbreak = strstr(at, "swbreak+") != NULL;
		gdb_begin(gdb);
		gdb_put(gdb,
			"PacketSize=%x;qXfer:features:read+;QStartNoAckMode+;"
			"vContSupported+;swbreak+;hwbreak+",
			GDB_PACKET);
		gdb_end(gdb);
	} else if ((at = behind(packet, "qXfer:features:read:target.xml:"))) {
		do_features(gdb, at);
	} else if (behind(packet, "qfThreadInfo")) {
		do_threads(gdb);
	} else if (behind(packet, "qsThreadInfo")) {
		reply(gdb, "l");
	} else if ((at = behind(packet, "qThreadExtraInfo,"))) {
		do_about_thread(gdb, at);
	} else if (behind(packet, "qAttached")) {
		reply(gdb, "1"); /* the end of gdb is not that of the machine */
	} else if (!strcmp(packet, "qC")) {
		gdb_begin(gdb);
		gdb_put(gdb, "QC%x", gdb->thread + 1);
		gdb_end(gdb);
	} else if ((at = behind(packet, "qRcmd,"))) {
		do_monitor(gdb, at);
	} else if (behind(packet, "QStartNoAckMode")) {
		reply(gdb, "OK");
		gdb->no_acks = true;
	} else {
		reply(gdb, "");
	}
}

static void do_thread(struct gdb *gdb, const char *packet)
{
	const char *at = packet + 1 + (*packet == 'H');
	u32 index;
	bool known = thread_of(gdb, &at, &index);

	if (known && !strncmp(packet, "Hg", 2) && index != ALL)
		gdb->thread = index;
	reply_error(gdb, known ? 0 : -EINVAL);
}

void gdb_command(struct gdb *gdb, char *packet, u32 length)
{
	const struct debug_stop none = { 0 };
	char *at;

	switch (*packet) {
	case '?':
		gdb_begin(gdb);
		gdb_put_stop(gdb, &none);
		gdb_end(gdb);
		break;
	case 'c':
	case 's':
		do_run(gdb, *packet == 's');
		break;
	case 'D':
		reply(gdb, "OK");
		gdb_let_go(gdb);
		gdb->running = true;
		break;
	case 'g':
	case 'G':
	case 'p':
	case 'P':
		do_registers(gdb, packet);
		break;
	case 'H':
	case 'T':
		do_thread(gdb, packet);
		break;
	case 'k':
		end_request(&gdb->m->end, END_QUIT, 0);
		break;
	case 'm':
		do_read(gdb, packet + 1);
		break;
	case 'M':
	case 'X':
		do_write(gdb, packet, length);
		break;
	case 'q':
	case 'Q':
		do_question(gdb, packet);
		break;
	case 'z':
	case 'Z':
		do_breakpoint(gdb, packet);
		break;
	case 'v':
		if (!strcmp(packet, "vCont?")) {
			reply(gdb, "vCont;c;C;s;S");
		} else if ((at = behind(packet, "vCont"))) {
			do_continue(gdb, at);
		} else if (behind(packet, "vKill")) {
			reply(gdb, "OK");
			end_request(&gdb->m->end, END_QUIT, 0);
		} else {
			reply(gdb, "");
		}
		break;
	default:
		reply(gdb, "");
	}
}
