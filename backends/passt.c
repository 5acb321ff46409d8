/* Starts and ends passt: see passt.h. Main thread, before the sandbox closes, but for its end. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "backends/passt.h"
#include "vm/log.h"

#define NOT_STARTED 127
#define SOCKET	    3 /* in passt */
#define ROOM	    KIB(256)

/* Ours, and passt's own, which needs one where the host's route has none to copy: both locally
 * administered. */
static const u8 mac[6] = { 0x52, 0x56, 0x0a, 0x00, 0x02, 0x0f };
#define PASST_MAC "52:56:0a:00:02:02"

/* ---- the resolver ---- */

static bool find_resolver(const char *path, char *text)
{
	FILE *f = fopen(path, "re");
	char line[256], found[PASST_ADDRESS];
	struct in_addr address;
	bool is_one = false;

	while (f && !is_one && fgets(line, sizeof(line), f))
		is_one = sscanf(line, "nameserver %15s", found) == 1 &&
			 inet_pton(AF_INET, found, &address) == 1 &&
			 ntohl(address.s_addr) >> 24 != IN_LOOPBACKNET;
	if (f)
		fclose(f);
	if (is_one)
		memcpy(text, found, sizeof(found));
	return is_one;
}

bool passt_resolver(char text[PASST_ADDRESS])
{
	/* of the second, systemd's, the first says only how to ask it on this host */
	if (find_resolver("/etc/resolv.conf", text) ||
	    find_resolver("/run/systemd/resolve/resolv.conf", text))
		return false;
	memcpy(text, PASST_DNS, sizeof(PASST_DNS));
	return true;
}

/* ---- starting ---- */

static void __attribute__((noreturn))
become_passt(const struct config_net *config, int stream, int says, pid_t parent)
{
	char mtu[8], resolver[PASST_ADDRESS];
	bool forwards = passt_resolver(resolver), udp = false;
	const char *words[16 + 2 * CONFIG_MAX_FORWARDS] = {
		"passt",
		"--quiet",
		"--foreground",
		"--fd=3",
		"--pid=/proc/self/fd/1",
		"--mac-addr=" PASST_MAC,
		"--address=" PASST_GUEST,
		"--netmask=" PASST_MASK,
		"--gateway=" PASST_GATEWAY,
		"--mtu",
		mtu,
		forwards ? "--dns-forward" : "--dns",
		resolver,
	};
	u32 count = 0;
	sigset_t all;

	snprintf(mtu, sizeof(mtu), "%u", config->mtu ? config->mtu : CONFIG_USER_MTU);
	while (words[count])
		count++;
	for (u32 i = 0; i < config->forward_count; i++) {
		udp |= config->forwards[i].udp;
		words[count++] = config->forwards[i].udp ? "--udp-ports" : "--tcp-ports";
		words[count++] = config->forwards[i].ports;
	}
	/* Else what the host serves for itself alone is the guest's too, at the gateway. passt of
	 * Debian 12 has no other way back for datagrams from the host itself. */
	if (!udp)
		words[count++] = "--no-map-gw";
	/* Until it has a user namespace. A Ctrl-C or a service manager's SIGTERM is for the
	 * machine, which needs its network to shut down. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	stream = fcntl(stream, F_DUPFD, SOCKET + 1);
	if (getppid() != parent || stream < 0 || dup2(says, STDOUT_FILENO) < 0 ||
	    dup2(says, STDERR_FILENO) < 0 || dup2(stream, SOCKET) < 0 ||
	    close_range(SOCKET + 1, ~0u, 0))
		_exit(NOT_STARTED);
	close(STDIN_FILENO);
	open("/dev/null", O_RDWR);
	execvp(words[0], (char **)words);
	_exit(NOT_STARTED);
}

static int start(struct tap *tap, const struct config_net *config)
{
	static const int room = (int)ROOM;
	pid_t parent = getpid();
	int ends[2], says[2], error;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		return -errno;
	tap->fds[0] = ends[0];
	if (pipe2(says, O_CLOEXEC)) {
		error = -errno;
		close(ends[1]);
		return error;
	}
	tap->passt_says = says[0];
	for (u32 i = 0; i < ARRAY_SIZE(ends); i++)
		setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	tap->fds[1] = fcntl(ends[0], F_DUPFD_CLOEXEC, 0);
	tap->passt = tap->fds[1] < 0 || fcntl(ends[0], F_SETFL, O_NONBLOCK) ? -1 : fork();
	if (!tap->passt)
		become_passt(config, ends[1], says[1], parent);
	error = tap->passt < 0 ? -errno : 0;
	close(ends[1]);
	close(says[1]);
	return error;
}

int passt_open(struct tap *tap, const struct config_net *config)
{
	int error;

	*tap = (struct tap){ .name = "passt",
			     .queues = 1,
			     .stream = true,
			     .passt = -1,
			     .passt_says = -1,
			     .mtu = CONFIG_USER_MTU };
	memcpy(tap->mac, mac, sizeof(mac));
	for (u32 i = 0; i < TAP_MAX_QUEUES; i++)
		tap->fds[i] = tap->files[i] = -1;
	error = start(tap, config);
	if (error) {
		log_line("--net user: passt cannot be started: %s; allow more processes and open "
			 "files (ulimit -u, ulimit -n)",
			 strerror(-error));
		tap_close(tap);
	}
	return error;
}

#define READY_MS 10000

/* It prints its pid when all is in place; what it says before that may be why it ends. */
int passt_ready(struct tap *tap)
{
	struct pollfd says = { .fd = tap->passt_says, .events = POLLIN };
	char text[256], last[256] = "", *end;
	size_t have = 0;
	ssize_t n = 0;
	bool ready = false;
	int status = 0, polled = 0;

	while (!ready && (polled = poll(&says, 1, READY_MS)) > 0 &&
	       (n = read(says.fd, text + have, sizeof(text) - 1 - have)) > 0) {
		have += (size_t)n;
		text[have] = '\0';
		while ((end = strchr(text, '\n'))) {
			*end++ = '\0';
			ready |= strtoul(text, NULL, 10) == (u32)tap->passt;
			if (*text && strncmp(text, "Failed to send", 14)) /* to a syslog */
				strcpy(last, text);
			have -= (size_t)(end - text);
			memmove(text, end, have + 1);
		}
		if (have == sizeof(text) - 1)
			have = 0; /* no such line is of use */
	}
	if (!polled) {
		strcpy(last, "it did not come up in time");
		kill(tap->passt, SIGKILL);
	}
	close(tap->passt_says);
	tap->passt_says = -1;
	if (ready)
		return 0;
	waitpid(tap->passt, &status, 0);
	tap->passt = -1;
	if (WIFEXITED(status) && WEXITSTATUS(status) == NOT_STARTED)
		log_line("--net user: there is no passt on this host; `sudo apt install passt`");
	else
		log_line("--net user: passt has ended: %s; passt(1) says more, and --net TAP does "
			 "without it",
			 *last ? last : strsignal(WTERMSIG(status)));
	return -EPIPE;
}

void passt_end(struct tap *tap)
{
	if (tap->passt_says >= 0)
		close(tap->passt_says);
	if (tap->passt > 0)
		waitpid(tap->passt, NULL, 0);
	tap->passt = tap->passt_says = -1;
}
