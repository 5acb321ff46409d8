/*
 * 9P transport device: carries messages between the driver's buffers and the share's server, which
 * understands them (backends/share.h). One stream each way: what is available goes out in one
 * operation, from the driver's own pages; of what comes in the beginning is read to a small buffer,
 * and a long rest straight to the driver's pages. Much data of one file does not go that way: the
 * server lends the file (9p-files.h), which is then read and written here, as a disk is; what fails
 * so is asked of the server after all, which knows why. On the queue's reactor.
 *
 * Neither side is trusted. A message's size is read once and sent from our copy, so that the server
 * always knows where the next begins; on the way its tag is replaced by the place it has here, so
 * that an answer finds its request whatever the driver does with tags. An answer that fits no
 * request means that the server is out of its mind; no more is said to it.
 */
#include <errno.h>
#include <endian.h>
#include <linux/virtio_9p.h>
#include <stdlib.h>
#include "virtio/9p-files.h"
#include "virtio/9p.h"

#define REQUESTS	    CONFIG_SHARE_QUEUE_SIZE
#define CHAIN		    CONFIG_SHARE_QUEUE_SIZE /* longest, in buffers */
#define HEADER		    SHARE_HEADER
#define HEADER_FLUSH	    9u /* and oldtag[2] */
#define HEADER_FID	    11u
#define ERROR_SIZE	    11u
#define NO_TAG		    0xffff
#define BUFFER		    KIB(8)
#define PARTS		    1024 /* the kernel takes no more at once (UIO_MAXIOV) */
#define CLASS_STORAGE_OTHER 0x018000

enum { RLERROR = 7, TFLUSH = 108 };

enum p9_state { P9_FREE, P9_IO, P9_PENDING, P9_SENDING, P9_SENT };

struct p9_cursor {
	const struct iovec *iov;
	size_t offset;
};

struct p9_request {
	struct virtio_9p *p9;
	struct p9_request *next; /* free, pending or sending */
	enum p9_state state;
	bool answered; /* before its sending was told to have ended */
	u16 head, tag;
	u32 size; /* of the message */
	u32 room, written;
	u32 header_size;
	u8 header[SHARE_IO_HEADER];
	bool asks;		  /* for its file; the message comes later, if at all */
	u8 ask[SHARE_LEND_SIZE];  /* what is sent then */
	struct p9_file *file;	  /* lent: it is read or written here */
	struct p9_request *after; /* a flush's, which is not answered sooner */
	u16 readable;
	struct p9_cursor answer;
	struct iovec iov[CHAIN];
	struct reactor_op op;
	struct iovec data[CHAIN]; /* its */
};

struct virtio_9p {
	struct virtio_device device;
	struct share *share;
	struct virtio_queue *queue;
	struct p9_request *requests; /* REQUESTS of them, touched as they are used: */
	u32 used;		     /* so many were */
	struct p9_request *free;     /* of these */
	struct p9_request *pending, **pending_end;
	u32 out;     /* sending or sent */
	u32 flushes; /* that come after something */
	struct p9_files files;
	bool dead;

	struct reactor_op send;
	bool sending;
	struct p9_request *in_send; /* what it carries */
	struct iovec send_iov[PARTS];

	struct reactor_op receive;
	bool receiving;
	struct p9_request *current; /* whose answer is being read to its place ... */
	u32 left;		    /* ... of which so much is missing; or of one to be dropped */
	u32 have;		    /* bytes in buffer */
	struct iovec receive_iov[CHAIN + 1];
	u8 buffer[BUFFER];
};

static u32 get(const u8 *at, u32 bytes)
{
	u32 value = 0;

	memcpy(&value, at, bytes);
	return le32toh(value);
}

static u64 get_offset(const u8 *at)
{
	u64 value;

	memcpy(&value, at, sizeof(value));
	return le64toh(value);
}

static void put(u8 *at, u32 value, u32 bytes)
{
	value = htole32(value);
	memcpy(at, &value, bytes);
}

/* ---- requests ---- */

/* Copies between bytes and the driver's buffers at the cursor, which moves on; there is room. */
static void copy(struct p9_cursor *cursor, u8 *bytes, u32 length, bool to_driver)
{
	while (length) {
		u8 *there = (u8 *)cursor->iov->iov_base + cursor->offset;
		size_t n = cursor->iov->iov_len - cursor->offset;

		if (n > length)
			n = length;
		if (to_driver)
			memcpy(there, bytes, n);
		else
			memcpy(bytes, there, n);
		bytes += n;
		length -= (u32)n;
		cursor->offset += n;
		if (cursor->offset == cursor->iov->iov_len) {
			cursor->iov++;
			cursor->offset = 0;
		}
	}
}

/* Describes `length` bytes from the cursor on, what is adjacent as one; returns how many parts that
 * takes. */
static u32 describe(struct p9_cursor cursor, u32 length, struct iovec *parts)
{
	struct iovec *part = parts;

	while (length) {
		u8 *at = (u8 *)cursor.iov->iov_base + cursor.offset;
		size_t n = cursor.iov->iov_len - cursor.offset;

		if (n > length)
			n = length;
		if (part > parts && (u8 *)part[-1].iov_base + part[-1].iov_len == at)
			part[-1].iov_len += n;
		else if (n)
			*part++ = (struct iovec){ at, n };
		length -= (u32)n;
		cursor.iov++;
		cursor.offset = 0;
	}
	return (u32)(part - parts);
}

/* The cursor, `length` bytes further on. */
static struct p9_cursor behind(struct p9_cursor cursor, size_t length)
{
	while (length) {
		size_t n = cursor.iov->iov_len - cursor.offset;

		if (n > length) {
			cursor.offset += length;
			break;
		}
		length -= n;
		cursor.iov++;
		cursor.offset = 0;
	}
	return cursor;
}

/* A clunk ends what its fid stood for, a version what all did: nothing lent is theirs any more. */
static void forget_files(struct virtio_9p *p9, const struct p9_request *request)
{
	if (request->header[4] == SHARE_TCLUNK && request->header_size == HEADER_FID)
		p9_files_forget(&p9->files, get(request->header + HEADER, 4));
	else if (request->header[4] == SHARE_TVERSION)
		p9_files_clear(&p9->files);
}

static void unfollow(struct virtio_9p *p9, struct p9_request *flush)
{
	p9->flushes -= flush->after != NULL;
	flush->after = NULL;
}

static void complete(struct virtio_9p *p9, struct p9_request *request)
{
	if (request->state >= P9_SENDING)
		p9->out--;
	if (request->file)
		p9_file_unuse(&p9->files, request->file);
	forget_files(p9, request);
	unfollow(p9, request);
	request->state = P9_FREE;
	request->next = p9->free;
	p9->free = request;
	virtio_queue_push(p9->queue, request->head, request->written);
	for (u32 i = 0; i < p9->used && p9->flushes; i++) {
		struct p9_request *flush = &p9->requests[i];

		if (flush->after != request)
			continue;
		unfollow(p9, flush);
		if (flush->state == P9_SENT && flush->answered)
			complete(p9, flush);
	}
}

static void complete_with_error(struct virtio_9p *p9, struct p9_request *request, int error)
{
	u8 message[ERROR_SIZE] = { [4] = RLERROR };

	put(message, ERROR_SIZE, 4);
	put(message + 5, request->tag, 2);
	put(message + HEADER, (u32)error, 4);
	request->answer = (struct p9_cursor){ request->iov + request->readable, 0 };
	copy(&request->answer, message, ERROR_SIZE, true);
	request->written = ERROR_SIZE;
	complete(p9, request);
}

/* ---- a server that has ended ---- */

static void fail_all(struct virtio_9p *p9)
{
	if (p9->sending || p9->receiving)
		return;
	p9->pending = p9->in_send = p9->current = NULL;
	p9->pending_end = &p9->pending;
	for (u32 i = 0; i < p9->used; i++)
		if (p9->requests[i].state > P9_IO)
			complete_with_error(p9, &p9->requests[i], EIO);
}

static void lose(struct virtio_9p *p9, const char *why)
{
	struct reactor *reactor = p9->queue->reactor;

	if (!p9->dead)
		log_line("%s: the server of %s %s; the guest gets I/O errors from it until the "
			 "machine is started anew",
			 p9->device.name, p9->share->path, why);
	p9->dead = true;
	if (p9->sending)
		reactor_cancel(reactor, &p9->send);
	if (p9->receiving)
		reactor_cancel(reactor, &p9->receive);
	fail_all(p9);
}

/* ---- sending ---- */

static void submit_send(struct virtio_9p *p9)
{
	p9->sending = true;
	reactor_submit(p9->queue->reactor, &p9->send);
}

static void submit_receive(struct virtio_9p *p9);
static void finish(struct virtio_9p *p9, struct p9_request *request);

static void enqueue(struct virtio_9p *p9, struct p9_request *request)
{
	request->state = P9_PENDING;
	request->next = NULL;
	*p9->pending_end = request;
	p9->pending_end = &request->next;
}

/* Describes a message from its beginning on, in so many parts. */
static u32 describe_message(struct p9_request *request, struct iovec *parts)
{
	const struct p9_cursor start = { request->iov, 0 };

	if (request->asks) {
		*parts = (struct iovec){ request->ask, sizeof(request->ask) };
		return 1;
	}
	*parts = (struct iovec){ request->header, request->header_size };
	return 1 + describe(behind(start, request->header_size),
			    request->size - request->header_size, parts + 1);
}

/* All that is pending, as far as one operation carries it. */
static void send_pending(struct virtio_9p *p9)
{
	struct p9_request *request;
	u32 parts = 0;

	if (p9->sending || !p9->pending)
		return;
	while ((request = p9->pending) && parts + 1 + request->readable <= PARTS) {
		parts += describe_message(request, &p9->send_iov[parts]);
		request->state = P9_SENDING;
		p9->out++;
		p9->pending = request->next;
		request->next = p9->in_send;
		p9->in_send = request;
	}
	if (!p9->pending)
		p9->pending_end = &p9->pending;
	p9->send.iov = p9->send_iov;
	p9->send.iov_count = parts;
	submit_send(p9);
	if (!p9->receiving)
		submit_receive(p9);
}

/* False: something is left of what was to be sent. */
static bool advance(struct reactor_op *op, size_t length)
{
	struct iovec *iov = (struct iovec *)op->iov;

	while (length && length >= iov->iov_len) {
		length -= iov++->iov_len;
		op->iov_count--;
	}
	if (length) {
		iov->iov_base = (u8 *)iov->iov_base + length;
		iov->iov_len -= length;
	}
	op->iov = iov;
	return !op->iov_count;
}

static void send_done(struct reactor_op *op, s32 result)
{
	struct virtio_9p *p9 = container_of(op, struct virtio_9p, send);
	struct p9_request *request;

	p9->sending = false;
	if (p9->dead) {
		fail_all(p9);
		return;
	}
	if (result < 0 && result != -EINTR && result != -EAGAIN) {
		lose(p9, "has ended");
		return;
	}
	if (!advance(op, result > 0 ? (size_t)result : 0)) {
		submit_send(p9);
		return;
	}
	while ((request = p9->in_send)) {
		p9->in_send = request->next;
		request->state = P9_SENT;
		if (request->answered)
			finish(p9, request);
	}
	send_pending(p9);
}

/* ---- files that were lent ---- */

/* One that the file does not do is the server's, as are the reasons. */
static void io_done(struct reactor_op *op, s32 result)
{
	struct p9_request *request = container_of(op, struct p9_request, op);
	struct virtio_9p *p9 = request->p9;
	u8 answer[SHARE_RREAD] = { [4] = request->header[4] + 1 };

	if (result < 0 && !p9->dead) {
		p9_file_unuse(&p9->files, request->file);
		request->file = NULL;
		enqueue(p9, request);
		send_pending(p9);
		return;
	}
	if (result < 0) {
		complete_with_error(p9, request, EIO);
		return;
	}
	request->written = SHARE_RREAD + (op->code == REACTOR_READV ? (u32)result : 0);
	put(answer, request->written, 4);
	put(answer + 5, request->tag, 2);
	put(answer + HEADER, (u32)result, 4);
	copy(&request->answer, answer, sizeof(answer), true);
	complete(p9, request);
}

static void start_io(struct virtio_9p *p9, struct p9_request *request)
{
	const struct p9_cursor start = { request->iov, 0 };
	const bool write = request->header[4] == SHARE_TWRITE;
	const struct p9_cursor data =
		write ? behind(start, SHARE_IO_HEADER) : behind(request->answer, SHARE_RREAD);
	const u32 count = get(request->header + SHARE_IO_HEADER - 4, 4);

	request->state = P9_IO;
	request->file->written |= write;
	request->op = (struct reactor_op){
		.done = io_done,
		.code = write ? REACTOR_WRITEV : REACTOR_READV,
		.file = request->file->file,
		.iov = request->data,
		.iov_count = describe(data, count, request->data),
		.offset = get_offset(request->header + HEADER + 4),
		.buffered = write, /* a ring would read as much at once, too */
	};
	reactor_submit(p9->queue->reactor, &request->op);
}

/* A Tread or Twrite of much, whole and with room for what it reads? */
static bool is_much(const struct p9_request *request)
{
	const u32 count = get(request->header + SHARE_IO_HEADER - 4, 4);
	const bool write = request->header[4] == SHARE_TWRITE;

	return count >= SHARE_MUCH && count <= SHARE_MSIZE &&
	       request->size - SHARE_IO_HEADER == (write ? count : 0) &&
	       (write || request->room - SHARE_RREAD >= count) &&
	       get_offset(request->header + HEADER + 4) <= INT64_MAX;
}

/* Its data goes straight to or from its file if that is lent; else that may be asked for first. */
static void begin_io(struct virtio_9p *p9, struct p9_request *request)
{
	const u32 fid = get(request->header + HEADER, 4);
	struct p9_file *file = p9_files_find(&p9->files, fid);

	if (file && file->fd >= 0) {
		request->file = file;
		file->users++;
		start_io(p9, request);
		return;
	}
	if (file && p9_file_wanted(file, get(request->header + SHARE_IO_HEADER - 4, 4))) {
		request->asks = true;
		memcpy(request->ask, request->header, HEADER_FID);
		put(request->ask, SHARE_LEND_SIZE, 4);
		request->ask[4] = SHARE_TLEND;
	}
	enqueue(p9, request);
}

/* The server has answered what was asked first. False: it cannot have. */
static bool take_lent(struct virtio_9p *p9, struct p9_request *request, const u8 *answer)
{
	int fd;

	if (answer[4] == RLERROR)
		return true;
	if (answer[4] != SHARE_TLEND + 1 || get(answer, 4) != HEADER)
		return false;
	fd = share_take_file(p9->share);
	if (fd >= 0)
		request->file = p9_files_lend(&p9->files, get(request->header + HEADER, 4), fd);
	if (request->file)
		request->file->users++;
	return fd >= 0 || fd == -EMFILE;
}

/* ---- receiving ---- */

static void submit_receive(struct virtio_9p *p9)
{
	struct reactor_op *op = &p9->receive;
	u32 parts = 0;

	if (p9->current)
		parts = describe(p9->current->answer, p9->left, p9->receive_iov);
	p9->receive_iov[parts++] =
		(struct iovec){ p9->buffer + p9->have, sizeof(p9->buffer) - p9->have };
	op->iov = p9->receive_iov;
	op->iov_count = parts;
	p9->receiving = true;
	reactor_submit(p9->queue->reactor, op);
}

/* It was sent and is answered. */
static void finish(struct virtio_9p *p9, struct p9_request *request)
{
	const struct p9_request *after = request->after;

	if (after && (after->state == P9_IO || after->asks))
		return; /* the server did not know */
	if (!request->asks) {
		complete(p9, request);
		return;
	}
	p9->out--;
	request->asks = request->answered = false;
	if (request->file)
		start_io(p9, request);
	else
		enqueue(p9, request);
}

static void answered(struct virtio_9p *p9, struct p9_request *request)
{
	request->answered = true;
	if (request->state == P9_SENT)
		finish(p9, request);
}

/* The answer that begins at `at`, of which there are `length` bytes, at least a header. Returns how
 * many of these it has; 0: it is none. */
static u32 take_answer(struct virtio_9p *p9, u8 *at, u32 length)
{
	u32 size = get(at, 4), place = get(at + 5, 2), n;
	struct p9_request *request = &p9->requests[place < p9->used ? place : 0];

	if (place >= p9->used || request->state < P9_SENDING || request->answered ||
	    size < HEADER || size > SHARE_MSIZE)
		return 0;
	n = size < length ? size : length;
	p9->left = size - n;
	if (request->asks) {
		if (!take_lent(p9, request, at))
			return 0;
		answered(p9, request);
		return n;
	}
	if (size > request->room) {
		/* The driver left too little room: the server cannot know that. */
		u8 error[ERROR_SIZE] = {
			ERROR_SIZE, 0, 0, 0, RLERROR, (u8)request->tag, (u8)(request->tag >> 8),
			EMSGSIZE
		};

		copy(&request->answer, error, ERROR_SIZE, true);
		request->written = ERROR_SIZE;
		answered(p9, request);
		return n;
	}
	put(at + 5, request->tag, 2);
	copy(&request->answer, at, n, true);
	request->written = size;
	if (p9->left)
		p9->current = request;
	else
		answered(p9, request);
	return n;
}

/* What is in the buffer: whole answers, then the first part of one more. False: nonsense. */
static bool take_answers(struct virtio_9p *p9)
{
	u32 at = 0, n;

	while (!p9->current && p9->have - at) {
		if (p9->left) { /* of one to be dropped */
			n = p9->left < p9->have - at ? p9->left : p9->have - at;
			p9->left -= n;
		} else if (p9->have - at < HEADER) {
			break;
		} else {
			n = take_answer(p9, p9->buffer + at, p9->have - at);
			if (!n)
				return false;
		}
		at += n;
	}
	p9->have -= at;
	memmove(p9->buffer, p9->buffer + at, p9->have);
	return true;
}

static void receive_done(struct reactor_op *op, s32 result)
{
	struct virtio_9p *p9 = container_of(op, struct virtio_9p, receive);
	u32 n = result > 0 ? (u32)result : 0;

	p9->receiving = false;
	if (p9->dead) {
		fail_all(p9);
		return;
	}
	if (!n && result != -EINTR && result != -EAGAIN) {
		lose(p9, "has ended");
		return;
	}
	if (p9->current) {
		struct p9_request *request = p9->current;
		u32 its = n < p9->left ? n : p9->left;

		p9->left -= its;
		n -= its;
		while (its) {
			struct p9_cursor *cursor = &request->answer;
			size_t part = cursor->iov->iov_len - cursor->offset;

			if (part > its) {
				cursor->offset += its;
				break;
			}
			its -= (u32)part;
			cursor->iov++;
			cursor->offset = 0;
		}
		if (!p9->left) {
			p9->current = NULL;
			answered(p9, request);
		}
	}
	p9->have += n;
	if (!take_answers(p9)) {
		lose(p9, "talks nonsense");
		return;
	}
	send_pending(p9);
	if (p9->out && !p9->receiving)
		submit_receive(p9);
}

/* ---- the queue ---- */

/* Where the request with this tag is. */
static u16 place_of(const struct virtio_9p *p9, u32 tag)
{
	for (u16 i = 0; i < p9->used; i++)
		if (p9->requests[i].state != P9_FREE && p9->requests[i].tag == tag)
			return i;
	return NO_TAG;
}

/* The message is whole and can be sent; its header is read here, once. */
static bool read_header(struct virtio_9p *p9, struct p9_request *request,
			const struct vq_buffer *buffer)
{
	struct p9_cursor cursor = { request->iov, 0 };
	u8 *header = request->header;
	u16 place;

	request->tag = NO_TAG;
	header[4] = 0;
	if (buffer->readable_bytes < HEADER)
		return false;
	copy(&cursor, header, HEADER, false);
	request->header_size = HEADER;
	request->size = get(header, 4);
	request->tag = (u16)get(header + 5, 2);
	put(header + 5, (u32)(request - p9->requests), 2);
	if (request->size < HEADER || request->size > buffer->readable_bytes ||
	    request->size > SHARE_MSIZE)
		return false;
	if (header[4] == TFLUSH && request->size >= HEADER_FLUSH) {
		copy(&cursor, header + HEADER, 2, false);
		place = place_of(p9, get(header + HEADER, 2));
		put(header + HEADER, place, 2);
		request->header_size = HEADER_FLUSH;
		request->after = place == NO_TAG ? NULL : &p9->requests[place];
		p9->flushes += request->after != NULL;
	}
	if (header[4] == SHARE_TCLUNK && request->size >= HEADER_FID) {
		copy(&cursor, header + HEADER, HEADER_FID - HEADER, false);
		request->header_size = HEADER_FID;
	}
	if ((header[4] == SHARE_TREAD || header[4] == SHARE_TWRITE) &&
	    request->size >= SHARE_IO_HEADER) {
		copy(&cursor, header + HEADER, SHARE_IO_HEADER - HEADER, false);
		request->header_size = SHARE_IO_HEADER;
	}
	return header[4] != SHARE_TLEND; /* that is ours */
}

static void begin(struct virtio_9p *p9, struct p9_request *request, const struct vq_buffer *buffer)
{
	request->head = buffer->head;
	request->readable = buffer->readable;
	request->room = buffer->writable_bytes;
	request->answer = (struct p9_cursor){ request->iov + buffer->readable, 0 };
	request->answered = request->asks = false;
	request->file = NULL;
	request->after = NULL;
	request->written = 0;
	if (!read_header(p9, request, buffer)) {
		complete_with_error(p9, request, EINVAL);
	} else if (p9->dead) {
		complete_with_error(p9, request, EIO);
	} else if (request->header_size == SHARE_IO_HEADER && is_much(request)) {
		begin_io(p9, request);
	} else {
		forget_files(p9, request);
		enqueue(p9, request);
	}
}

/* One that is free: the first of the list, or NULL. */
static struct p9_request *free_request(struct virtio_9p *p9)
{
	if (!p9->free && p9->used < REQUESTS) {
		p9->free = &p9->requests[p9->used++];
		p9->free->p9 = p9;
	}
	return p9->free;
}

static enum virtio_served p9_serve(struct virtio_queue *queue)
{
	struct virtio_9p *p9 = queue->owner;
	struct p9_request *request;
	struct vq_buffer buffer;

	while ((request = free_request(p9)) &&
	       virtio_queue_pop(queue, &buffer, request->iov, CHAIN) == 1) {
		if (buffer.writable_bytes < ERROR_SIZE) {
			virtio_device_broken(queue->device,
					     "a 9p request has no room for an answer");
			virtio_queue_unpop(queue, 1);
			break;
		}
		p9->free = request->next;
		begin(p9, request, &buffer);
	}
	send_pending(p9);
	return VIRTIO_SERVED_ALL;
}

/* What was sent is waited for; what was not, is forgotten. */
static void p9_queue_stop(struct virtio_queue *queue)
{
	struct virtio_9p *p9 = queue->owner;
	struct p9_request *request;

	while ((request = p9->pending)) {
		p9->pending = request->next;
		complete(p9, request);
	}
	p9->pending_end = &p9->pending;
	p9_files_clear(&p9->files); /* the next driver begins anew */
}

static const struct virtio_device_ops p9_ops = {
	.id = VIRTIO_ID_9P,
	.pci_class = CLASS_STORAGE_OTHER,
	.name = "9p",
	.serve = p9_serve,
	.queue_stop = p9_queue_stop,
};

int virtio_9p_create(struct virtio_9p **out, const struct virtio_9p_options *options)
{
	const u8 reactor = (u8)(options->reactor % reactors_count(options->reactors));
	const size_t tag = strlen(options->tag);
	const struct virtio_device_config config = {
		.ops = &p9_ops,
		.name = options->name,
		.memory = options->memory,
		.reactors = options->reactors,
		.queue_count = 1,
		.queue_size = REQUESTS,
		.queue_offer = options->queue_size,
		.queue_reactor = &reactor,
		.features = options->features | BIT64(VIRTIO_9P_MOUNT_TAG),
		.config_size = (u32)(sizeof(struct virtio_9p_config) + tag),
	};
	struct virtio_9p *p9 = calloc(1, sizeof(*p9));
	int err = 0;

	if (p9)
		p9->requests = virtio_room(REQUESTS * sizeof(*p9->requests));
	if (!p9 || !p9->requests)
		err = -ENOMEM;
	if (err)
		log_line("%s: out of memory; free some", options->name);
	else
		err = virtio_device_init(&p9->device, &config);
	if (err < 0) {
		if (p9)
			virtio_room_free(p9->requests, REQUESTS * sizeof(*p9->requests));
		free(p9);
		return err;
	}
	put(p9->device.config, (u32)tag, 2);
	memcpy(p9->device.config + 2, options->tag, tag);
	p9->share = options->share;
	p9->queue = &p9->device.queues[0];
	p9->queue->owner = p9;
	p9_files_init(&p9->files, p9->queue->reactor);
	p9->pending_end = &p9->pending;
	p9->send = (struct reactor_op){ .done = send_done,
					.code = REACTOR_WRITEV,
					.file = options->share->out,
					.offset = (u64)-1 };
	p9->receive = (struct reactor_op){ .done = receive_done,
					   .code = REACTOR_READV,
					   .file = options->share->in,
					   .offset = (u64)-1 };
	*out = p9;
	return 0;
}

struct virtio_device *virtio_9p_device(struct virtio_9p *p9)
{
	return &p9->device;
}

void virtio_9p_destroy(struct virtio_9p *p9)
{
	if (!p9)
		return;
	virtio_device_destroy(&p9->device);
	virtio_room_free(p9->requests, REQUESTS * sizeof(*p9->requests));
	free(p9);
}
