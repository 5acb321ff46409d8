/*
 * A stream through a machine's vsock, measured.
 *
 *   sockets serve unix:PATH|vsock:PORT    the host's end, until killed; one client after another
 *   sockets out|in|rr PORT MS             in a guest, with the host: so long out of it, into it, or
 *                                         a byte there and back; prints RESULT ops=N us=N, in KiB
 *                                         or turns, which have p50_ns=N p99_ns=N
 *
 * What goes out counts when it has been read: the host's end says how much that was.
 */
#include <errno.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PIECE	(64 << 10)
#define SAMPLES (1u << 18)

static char bytes[PIECE];

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void die(const char *what)
{
	fprintf(stderr, "sockets: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* ---- the host's end ---- */

static void serve_client(int fd)
{
	uint64_t count = 0;
	char mode;
	ssize_t n;

	if (read(fd, &mode, 1) != 1)
		return;
	if (mode == 'i') { /* until it has had enough */
		while (write(fd, bytes, sizeof(bytes)) > 0)
			;
		return;
	}
	while ((n = read(fd, bytes, sizeof(bytes))) > 0) {
		count += (uint64_t)n;
		if (mode == 'r' && write(fd, bytes, (size_t)n) < 0)
			return;
	}
	if (mode == 'o' && write(fd, &count, sizeof(count)) < 0)
		return;
}

static void serve(const char *address)
{
	struct sockaddr_vm vm = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY };
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int is_vm = !strncmp(address, "vsock:", 6), fd, client;

	address = strchr(address, ':') + 1;
	vm.svm_port = (unsigned int)strtoul(address, NULL, 10);
	snprintf(un.sun_path, sizeof(un.sun_path), "%s", address);
	unlink(un.sun_path);
	fd = socket(is_vm ? AF_VSOCK : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 ||
	    bind(fd, is_vm ? (struct sockaddr *)&vm : (struct sockaddr *)&un,
		 is_vm ? sizeof(vm) : sizeof(un)) ||
	    listen(fd, 8))
		die("a socket that listens");
	while ((client = accept(fd, NULL, NULL)) >= 0 || errno == ECONNABORTED) {
		serve_client(client);
		close(client);
	}
	die("accept");
}

/* ---- the guest's ---- */

static uint64_t samples[SAMPLES];
static size_t sample_count;

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void report(uint64_t ops, uint64_t ns)
{
	printf("RESULT ops=%llu us=%llu", (unsigned long long)ops, (unsigned long long)ns / 1000);
	qsort(samples, sample_count, sizeof(samples[0]), by_value);
	if (sample_count)
		printf(" p50_ns=%llu p99_ns=%llu", (unsigned long long)samples[sample_count / 2],
		       (unsigned long long)samples[sample_count - 1 - sample_count / 100]);
	putchar('\n');
}

static void out(int fd, uint64_t ms)
{
	uint64_t start = now_ns(), count;

	while (now_ns() < start + ms * 1000000)
		if (write(fd, bytes, sizeof(bytes)) < 0)
			die("write");
	shutdown(fd, SHUT_WR);
	if (recv(fd, &count, sizeof(count), MSG_WAITALL) != sizeof(count))
		die("the count");
	report(count >> 10, now_ns() - start);
}

static void in(int fd, uint64_t ms)
{
	uint64_t start = now_ns(), count = 0;

	while (now_ns() < start + ms * 1000000) {
		ssize_t n = read(fd, bytes, sizeof(bytes));

		if (n <= 0)
			die("read");
		count += (uint64_t)n;
	}
	report(count >> 10, now_ns() - start);
}

static void turns(int fd, uint64_t ms)
{
	uint64_t start = now_ns(), t = start, n = 0;

	while (t < start + ms * 1000000) {
		uint64_t before = t;

		if (write(fd, bytes, 1) != 1 || read(fd, bytes, 1) != 1)
			die("a turn");
		t = now_ns();
		if (sample_count < SAMPLES)
			samples[sample_count++] = t - before;
		n++;
	}
	report(n, t - start);
}

int main(int argc, char **argv)
{
	struct sockaddr_vm to = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST };
	uint64_t ms;
	int fd;

	signal(SIGPIPE, SIG_IGN);
	if (argc == 3 && !strcmp(argv[1], "serve"))
		serve(argv[2]);
	if (argc != 4) {
		fprintf(stderr, "usage: sockets serve ADDRESS | sockets out|in|rr PORT MS\n");
		return 2;
	}
	to.svm_port = (unsigned int)strtoul(argv[2], NULL, 10);
	ms = strtoull(argv[3], NULL, 10);
	fd = socket(AF_VSOCK, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) || write(fd, argv[1], 1) != 1)
		die("connect");
	switch (*argv[1]) {
	case 'o':
		out(fd, ms);
		break;
	case 'i':
		in(fd, ms);
		break;
	default:
		turns(fd, ms);
	}
	return 0;
}
