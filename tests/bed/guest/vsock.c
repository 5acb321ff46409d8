/*
 * Both ends of connections through a machine's vsock, for tests on either side of it.
 *
 *   vsock echo LISTENER [seq]            gives back what it gets, connection by connection, up to
 * its end vsock many ADDRESS N                 N connections at once, each of which is written to
 * and read vsock bulk ADDRESS MIB               so much there and back, and the end of both halves
 *   vsock messages ADDRESS               seqpacket: messages of all lengths there and back
 *   vsock refused ADDRESS [seq]          nobody listens
 *   vsock stuff ADDRESS                  writes until nothing more goes, then waits to be killed
 *   vsock once LISTENER                  waits for somebody to come
 *   vsock hold LISTENER                  takes who comes, and reads nothing
 *
 * LISTENER is vsock:PORT or unix:PATH; ADDRESS is vsock:CID:PORT, or unix:PATH:PORT, where a line
 * asks for the port. Prints what it did; its status is 0 if all was as it should be.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MOST 1100
#define ROOM (256 << 10)

static void die(const char *what)
{
	printf("vsock: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void must(int good, const char *what)
{
	if (!good)
		die(what);
}

static unsigned char pattern(unsigned long i)
{
	return (unsigned char)(i * 31 + (i >> 8) * 7 + (i >> 16));
}

static int make(const char *address, int type, int listens)
{
	struct sockaddr_vm vm = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY };
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	char words[200], *first, *second;
	int isvm = !strncmp(address, "vsock:", 6), fd, error;
	struct sockaddr *to = isvm ? (struct sockaddr *)&vm : (struct sockaddr *)&un;
	socklen_t size = isvm ? sizeof(vm) : sizeof(un);

	snprintf(words, sizeof(words), "%s", strchr(address, ':') + 1);
	first = words;
	second = strrchr(words, ':');
	if (second)
		*second++ = 0;
	if (isvm && second)
		vm.svm_cid = (unsigned int)strtoul(first, NULL, 10);
	vm.svm_port = (unsigned int)strtoul(second ? second : first, NULL, 10);
	snprintf(un.sun_path, sizeof(un.sun_path), "%.100s", first);
	fd = socket(isvm ? AF_VSOCK : AF_UNIX, type, 0);
	must(fd >= 0, "socket");
	if (listens) {
		if (!isvm)
			unlink(un.sun_path);
		must(!bind(fd, to, size) && !listen(fd, 1100), "listen");
		return fd;
	}
	error = connect(fd, to, size);
	if (!error && !isvm) {
		char line[64];
		ssize_t n;

		snprintf(line, sizeof(line), "CONNECT %s\n", second);
		must(write(fd, line, strlen(line)) > 0, "ask");
		for (size_t i = 0; i < sizeof(line); i++) {
			n = read(fd, line + i, type == SOCK_SEQPACKET ? sizeof(line) : 1);
			if (n <= 0) {
				errno = ECONNREFUSED;
				error = -1;
				break;
			}
			if (type == SOCK_SEQPACKET || line[i] == '\n')
				break;
		}
		must(error || !strncmp(line, "OK ", 3), "answer");
	}
	if (!error)
		return fd;
	error = errno;
	close(fd);
	errno = error;
	return -1;
}

/* Writes all of it, though the descriptor may not block. */
static void put(int fd, const unsigned char *bytes, size_t size)
{
	while (size) {
		ssize_t n = write(fd, bytes, size);
		struct pollfd out = { .fd = fd, .events = POLLOUT };

		if (n < 0 && errno == EAGAIN) {
			poll(&out, 1, -1);
			continue;
		}
		if (n < 0) /* it has gone, as clients may */
			return;
		bytes += n;
		size -= (size_t)n;
	}
}

static void echo(const char *address, int type)
{
	static struct pollfd fds[MOST];
	static unsigned char bytes[ROOM];
	int count = 1;

	fds[0] = (struct pollfd){ .fd = make(address, type, 1), .events = POLLIN };
	printf("listening\n");
	fflush(stdout);
	for (;;) {
		must(poll(fds, (nfds_t)count, -1) > 0, "poll");
		for (int i = count - 1; i > 0; i--) {
			ssize_t n;

			if (!fds[i].revents)
				continue;
			n = recv(fds[i].fd, bytes, sizeof(bytes), 0);
			if (n > 0) {
				put(fds[i].fd, bytes, (size_t)n);
				continue;
			}
			close(fds[i].fd);
			fds[i] = fds[--count];
		}
		if (fds[0].revents && count < MOST) {
			fds[count] = (struct pollfd){ .fd = accept(fds[0].fd, NULL, NULL),
						      .events = POLLIN };
			count += fds[count].fd >= 0;
		}
	}
}

static void many(const char *address, int n)
{
	static int fds[MOST];
	unsigned char out[100], in[100];

	for (int i = 0; i < n; i++) {
		fds[i] = make(address, SOCK_STREAM, 0);
		must(fds[i] >= 0, "connect");
	}
	for (int i = 0; i < n; i++) {
		memset(out, i, sizeof(out));
		must(write(fds[i], out, sizeof(out)) == sizeof(out), "write");
	}
	for (int i = n; i-- > 0;) {
		memset(out, i, sizeof(out));
		must(recv(fds[i], in, sizeof(in), MSG_WAITALL) == sizeof(in), "read");
		must(!memcmp(in, out, sizeof(in)), "what was read");
		close(fds[i]);
	}
	printf("%d connections\n", n);
}

static void bulk(const char *address, unsigned long bytes)
{
	static unsigned char out[ROOM], in[ROOM];
	unsigned long sent = 0, got = 0;
	int fd = make(address, SOCK_STREAM, 0);
	ssize_t n;

	must(fd >= 0, "connect");
	fcntl(fd, F_SETFL, O_NONBLOCK);
	while (got < bytes) {
		struct pollfd p = { .fd = fd,
				    .events = (short)(POLLIN | (sent < bytes ? POLLOUT : 0)) };

		must(poll(&p, 1, 60000) == 1, "poll");
		if (p.revents & POLLOUT) {
			size_t size = 1 + (sent * 7919) % (ROOM - 1);

			size = size < bytes - sent ? size : bytes - sent;
			for (size_t i = 0; i < size; i++)
				out[i] = pattern(sent + i);
			n = write(fd, out, size);
			must(n > 0 || errno == EAGAIN, "write");
			sent += n > 0 ? (unsigned long)n : 0;
			if (sent == bytes)
				must(!shutdown(fd, SHUT_WR), "shutdown");
		}
		n = p.revents & POLLIN ? read(fd, in, sizeof(in)) : -1;
		for (ssize_t i = 0; i < n; i++, got++)
			if (in[i] != pattern(got)) {
				printf("byte %lu is wrong\n", got);
				exit(1);
			}
		must(n > 0 || (n < 0 && (errno == EAGAIN || !(p.revents & POLLIN))), "read");
	}
	fcntl(fd, F_SETFL, 0);
	must(read(fd, in, 1) == 0, "the end");
	printf("%lu bytes\n", got);
}

static void messages(const char *address)
{
	static const int sizes[] = {
		1, 2, 43, 44, 45, 4051, 4052, 4096, 4097, 20000, 65536, 100000
	};
	static unsigned char out[ROOM], in[ROOM];
	int fd = make(address, SOCK_SEQPACKET, 0), count = sizeof(sizes) / sizeof(sizes[0]);

	must(fd >= 0, "connect");
	for (int i = 0; i < count; i++) {
		for (int j = 0; j < sizes[i]; j++)
			out[j] = pattern((unsigned long)(i + j));
		must(send(fd, out, (size_t)sizes[i], 0) == sizes[i], "send");
		must(recv(fd, in, sizeof(in), 0) == sizes[i], "receive");
		must(!memcmp(in, out, (size_t)sizes[i]), "what was received");
	}
	/* many under way, small enough for both sides to keep them all */
	for (int i = 1; i <= 200; i++)
		must(send(fd, out, (size_t)i, 0) == i, "send");
	for (int i = 1; i <= 200; i++)
		must(recv(fd, in, sizeof(in), 0) == i, "receive in order");
	printf("%d messages\n", count + 200);
}

int main(int argc, char **argv)
{
	int seq = argc > 3 && !strcmp(argv[3], "seq"), fd;
	struct rlimit limit;

	if (argc < 3)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	alarm(strcmp(argv[1], "echo") && strcmp(argv[1], "hold") ? 240 : 0);
	if (!strcmp(argv[1], "echo")) {
		echo(argv[2], seq ? SOCK_SEQPACKET : SOCK_STREAM);
	} else if (!strcmp(argv[1], "many")) {
		many(argv[2], atoi(argv[3]));
	} else if (!strcmp(argv[1], "bulk")) {
		bulk(argv[2], strtoul(argv[3], NULL, 10) << 20);
	} else if (!strcmp(argv[1], "messages")) {
		messages(argv[2]);
	} else if (!strcmp(argv[1], "once")) {
		must(accept(make(argv[2], SOCK_STREAM, 1), NULL, NULL) >= 0, "accept");
	} else if (!strcmp(argv[1], "hold")) {
		for (fd = make(argv[2], SOCK_STREAM, 1); accept(fd, NULL, NULL) >= 0;)
			;
	} else if (!strcmp(argv[1], "stuff")) {
		static unsigned char bytes[4096];

		fd = make(argv[2], SOCK_STREAM, 0);
		must(fd >= 0, "connect");
		while (send(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
			;
		printf("stuffed\n");
		fflush(stdout);
		pause();
	} else if (!strcmp(argv[1], "refused")) {
		fd = make(argv[2], seq ? SOCK_SEQPACKET : SOCK_STREAM, 0);
		printf("%s\n", fd >= 0 ? "accepted" : strerror(errno));
		return fd >= 0;
	} else {
		return 2;
	}
	return 0;
}
