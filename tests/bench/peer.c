/*
 * The other end of the bench's wire, and the same measurements as the bare guest's from a Linux
 * guest's user space.
 *
 *   peer serve                    the three services, until killed (RFC 862, 863, 864 in spirit)
 *   peer rr|tx|rx ADDRESS MS      against them; prints RESULT ops=N us=N p50_ns=N p99_ns=N
 *
 * Datagrams make frames of 64 bytes.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "peer.h"

#define BATCH	  64
#define PAYLOAD	  22	      /* + UDP, IP and Ethernet headers: 64 */
#define SINK_ROOM (256 << 20) /* bytes of what has arrived and was not counted yet */
#define SAMPLES	  (1u << 20)

typedef char datagram[PAYLOAD < sizeof(struct peer_message) ? -1 : PAYLOAD];

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void die(const char *what)
{
	fprintf(stderr, "peer: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int udp(uint16_t port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), room = 4 << 20;

	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)))
		die("a UDP socket");
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	return fd;
}

/* ---- the services, a process each ---- */

static void echo(int fd)
{
	char text[2048];

	for (;;) {
		struct sockaddr_in from;
		socklen_t size = sizeof(from);
		ssize_t n = recvfrom(fd, text, sizeof(text), 0, (struct sockaddr *)&from, &size);

		if (n > 0)
			sendto(fd, text, (size_t)n, 0, (struct sockaddr *)&from, size);
	}
}

static void sink(int fd)
{
	static char text[BATCH][128];
	struct sockaddr_in from[BATCH];
	struct iovec parts[BATCH];
	struct mmsghdr list[BATCH];
	const int room = SINK_ROOM;
	uint64_t count = 0;

	/* What is sent is to be counted, and not what this process comes round to before its socket
	 * is full: on a shared CPU that rewards who sends in small pieces. */
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));

	for (;;) {
		int n;

		for (int i = 0; i < BATCH; i++) {
			parts[i] = (struct iovec){ text[i], sizeof(text[i]) };
			list[i] = (struct mmsghdr){ .msg_hdr = { .msg_name = &from[i],
								 .msg_namelen = sizeof(from[i]),
								 .msg_iov = &parts[i],
								 .msg_iovlen = 1 } };
		}
		n = recvmmsg(fd, list, BATCH, MSG_WAITFORONE, NULL);
		for (int i = 0; i < n; i++) {
			struct peer_message m;

			if (list[i].msg_len < sizeof(m))
				continue;
			memcpy(&m, text[i], sizeof(m));
			if (m.kind != PEER_COUNT) {
				count++;
				continue;
			}
			m.value = count;
			memcpy(text[i], &m, sizeof(m));
			sendto(fd, text[i], list[i].msg_len, 0, (struct sockaddr *)&from[i],
			       sizeof(from[i]));
		}
	}
}

static void stream_to(int fd, const struct sockaddr_in *to, uint64_t ms)
{
	static datagram text;
	struct peer_message m = { .kind = PEER_STREAM };
	struct iovec part = { text, sizeof(text) };
	struct mmsghdr list[BATCH];
	uint64_t end = now_ns() + ms * 1000000;

	memcpy(text, &m, sizeof(m));
	for (int i = 0; i < BATCH; i++)
		list[i] = (struct mmsghdr){ .msg_hdr = { .msg_name = (void *)(uintptr_t)to,
							 .msg_namelen = sizeof(*to),
							 .msg_iov = &part,
							 .msg_iovlen = 1 } };
	/* A full tap drops without a word: the rate is what the receiver makes of it. */
	while (now_ns() < end)
		if (sendmmsg(fd, list, BATCH, 0) < 0 && errno != ENOBUFS && errno != EAGAIN)
			return;
}

static void stream(int fd)
{
	for (;;) {
		struct peer_message m;
		struct sockaddr_in from;
		socklen_t size = sizeof(from);
		ssize_t n = recvfrom(fd, &m, sizeof(m), 0, (struct sockaddr *)&from, &size);

		if (n == sizeof(m) && m.kind == PEER_STREAM && m.value < 60000)
			stream_to(fd, &from, m.value);
	}
}

static void serve(void)
{
	static const struct {
		uint16_t port;
		void (*run)(int fd);
	} services[] = {
		{ PEER_PORT_ECHO, echo },
		{ PEER_PORT_SINK, sink },
		{ PEER_PORT_STREAM, stream },
	};

	for (size_t i = 0; i < sizeof(services) / sizeof(services[0]); i++) {
		int fd = udp(services[i].port);

		if (!fork()) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			services[i].run(fd);
		}
		close(fd);
	}
	puts("serving");
	fflush(stdout);
	while (wait(NULL) > 0)
		;
}

/* ---- the client, in a guest ---- */

static uint64_t samples[SAMPLES];
static size_t sample_count;

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void report(uint64_t ops, uint64_t ns)
{
	qsort(samples, sample_count, sizeof(samples[0]), by_value);
	printf("RESULT ops=%llu us=%llu p50_ns=%llu p99_ns=%llu\n", (unsigned long long)ops,
	       (unsigned long long)ns / 1000,
	       (unsigned long long)(sample_count ? samples[sample_count / 2] : 0),
	       (unsigned long long)(sample_count ? samples[sample_count - 1 - sample_count / 100]
						 : 0));
}

/* Sends one and waits for its answer of the same kind, at most 100 ms; its value, or -1. */
static int64_t ask(int fd, uint32_t kind, uint64_t value)
{
	char text[PAYLOAD] = { 0 }, answer[2048];
	struct peer_message m = { .kind = kind, .value = value };

	memcpy(text, &m, sizeof(m));
	if (send(fd, text, sizeof(text), 0) < 0)
		die("send");
	for (;;) {
		ssize_t n = recv(fd, answer, sizeof(answer), 0);

		if (n < 0)
			return -1;
		if ((size_t)n < sizeof(m))
			continue;
		memcpy(&m, answer, sizeof(m));
		if (m.kind == kind && (kind != PEER_ECHO || m.value == value))
			return (int64_t)m.value;
	}
}

static void client_rr(int fd, uint64_t ms)
{
	uint64_t start = now_ns(), end = start + ms * 1000000, t = start, n = 0;

	while (t < end) {
		uint64_t before = t;

		if (ask(fd, PEER_ECHO, ++n) < 0) {
			n--;
			t = now_ns();
			continue;
		}
		t = now_ns();
		if (sample_count < SAMPLES)
			samples[sample_count++] = t - before;
	}
	report(n, t - start);
}

static void client_tx(int fd, uint64_t ms)
{
	datagram text = { 0 };
	struct peer_message m = { .kind = PEER_SINK };
	struct iovec part = { text, sizeof(text) };
	struct mmsghdr list[BATCH] = { 0 };
	uint64_t start, end;
	int64_t before, after = -1;

	memcpy(text, &m, sizeof(m));
	for (int i = 0; i < BATCH; i++)
		list[i].msg_hdr = (struct msghdr){ .msg_iov = &part, .msg_iovlen = 1 };
	before = ask(fd, PEER_COUNT, 0);
	start = now_ns();
	end = start + ms * 1000000;
	while (now_ns() < end)
		if (sendmmsg(fd, list, BATCH, 0) < 0 && errno != ENOBUFS)
			die("sendmmsg");
	end = now_ns();
	for (int tries = 0; tries < 50 && after < 0; tries++)
		after = ask(fd, PEER_COUNT, 0);
	if (before < 0 || after < 0)
		die("the sink tells no count");
	report((uint64_t)(after - before), end - start);
}

static void client_rx(int fd, uint64_t ms)
{
	static char text[BATCH][128];
	struct iovec parts[BATCH];
	struct mmsghdr list[BATCH] = { 0 };
	uint64_t start, end, n = 0;

	for (int i = 0; i < BATCH; i++) {
		parts[i] = (struct iovec){ text[i], sizeof(text[i]) };
		list[i].msg_hdr = (struct msghdr){ .msg_iov = &parts[i], .msg_iovlen = 1 };
	}
	if (ask(fd, PEER_STREAM, ms + 300) < 0)
		die("no stream comes");
	start = now_ns();
	end = start + ms * 1000000;
	while (now_ns() < end) {
		int got = recvmmsg(fd, list, BATCH, MSG_WAITFORONE, NULL);

		if (got > 0)
			n += (uint64_t)got;
	}
	report(n, now_ns() - start);
}

int main(int argc, char **argv)
{
	struct timeval patience = { .tv_usec = 100000 };
	struct sockaddr_in to = { .sin_family = AF_INET };
	int fd;

	if (argc == 2 && !strcmp(argv[1], "serve")) {
		serve();
		return 1;
	}
	if (argc != 4 || !inet_aton(argv[2], &to.sin_addr)) {
		fprintf(stderr, "usage: peer serve | peer rr|tx|rx ADDRESS MS\n");
		return 2;
	}
	to.sin_port = htons(!strcmp(argv[1], "tx")   ? PEER_PORT_SINK
			    : !strcmp(argv[1], "rx") ? PEER_PORT_STREAM
						     : PEER_PORT_ECHO);
	fd = udp(PEER_GUEST_PORT);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)))
		die("connect");
	if (!strcmp(argv[1], "tx"))
		client_tx(fd, strtoull(argv[3], NULL, 10));
	else if (!strcmp(argv[1], "rx"))
		client_rx(fd, strtoull(argv[3], NULL, 10));
	else
		client_rr(fd, strtoull(argv[3], NULL, 10));
	return 0;
}
