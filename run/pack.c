/*
 * A folder packed into an image for a kernel without 9p: by mksquashfs, which reads it as fast as
 * the host can, and writes no more than what compresses at once. Main thread, before the sandbox.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "backends/disk-overlay.h"
#include "run/setup.h"
#include "vm/end.h"
#include "vm/log.h"

#define NOT_STARTED 127
#define IMAGE	    3 /* in mksquashfs */
#define LOOK_MS	    200

struct packing {
	const char *folder;
	int image;
	bool shown;
	u32 unreadable;
	char why[512];
	size_t length; /* of line */
	char line[512];
};

static void __attribute__((noreturn))
become_packer(const char *folder, bool root, int image, int says, pid_t parent)
{
	/* in a root, where the guest has file systems of its own */
	const char *const words[] = { "mksquashfs",
				      folder,
				      "/proc/self/fd/3",
				      "-noappend",
				      "-quiet",
				      "-no-progress",
				      "-mem",
				      "256M",
				      "-comp",
				      "lz4",
				      "-no-fragments",
				      "-no-duplicates",
				      "-no-exports",
				      "-one-file-system",
				      root ? "-e" : NULL,
				      "proc",
				      "sys",
				      "dev",
				      "run",
				      "tmp",
				      NULL };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	image = fcntl(image, F_DUPFD, IMAGE + 1);
	if (getppid() == parent && image >= 0 && dup2(says, STDOUT_FILENO) >= 0 &&
	    dup2(says, STDERR_FILENO) >= 0 && dup2(image, IMAGE) >= 0 &&
	    !close_range(IMAGE + 1, ~0u, 0))
		execvp(words[0], (char **)words);
	_exit(NOT_STARTED);
}

/* What it may not read is a line each, and it goes on: a file is empty then, a folder not there. */
static void take_line(struct packing *p)
{
	if (!strncmp(p->line, "Failed to read file", 19) || !strncmp(p->line, "Could not open", 14))
		p->unreadable++;
	else if (!*p->why) /* then it says what follows from that */
		memcpy(p->why, p->line, sizeof(p->why));
}

static void take(struct packing *p, const char *bytes, ssize_t size)
{
	for (ssize_t i = 0; i < size; i++) {
		bool end = bytes[i] == '\n';

		p->line[p->length] = end ? '\0' : bytes[i];
		if (end && p->length)
			take_line(p);
		p->length = end ? 0 : p->length + (p->length < sizeof(p->line) - 2);
	}
}

static u64 mib_of(const struct packing *p)
{
	struct stat st;

	return fstat(p->image, &st) ? 0 : ((u64)st.st_size + MIB(1) - 1) >> 20;
}

/* All that it says, to its end. */
static void follow(struct packing *p, int says, int parent)
{
	struct pollfd fds[] = { { .fd = says, .events = POLLIN },
				{ .fd = parent, .events = POLLIN } };
	char bytes[4096];
	ssize_t n = 1;

	while (n > 0) {
		if (p->shown)
			fprintf(stderr, "\r\033[K%s: packing, %llu MiB", p->folder,
				(unsigned long long)mib_of(p));
		if (poll(fds, ARRAY_SIZE(fds), p->shown ? LOOK_MS : -1) <= 0)
			continue;
		if (fds[1].revents)
			_exit(STATUS_SIGNAL + SIGKILL); /* and the packer with us */
		n = read(says, bytes, sizeof(bytes));
		take(p, bytes, n);
	}
	if (p->shown)
		fputs("\r\033[K", stderr);
}

/* In a form that a person reads; the report says nothing of it, so it is no log_line(). */
static void tell(const struct packing *p)
{
	fprintf(stderr, "vmm: %s: packed, %llu MiB", p->folder, (unsigned long long)mib_of(p));
	if (p->unreadable)
		fprintf(stderr, ", without %u that you may not read", p->unreadable);
	fputc('\n', stderr);
}

static int refuse(const struct packing *p, const char *place, const char *why)
{
	log_line("%s: cannot be packed in %s: %s; give a place with more room by TMPDIR, or a "
		 "smaller root by --root",
		 p->folder, place, why);
	return -EIO;
}

static int judge(const struct packing *p, int status, const char *place)
{
	if (!status) {
		if (p->shown)
			tell(p);
		return 0;
	}
	if (WIFSIGNALED(status))
		return refuse(p, place, strsignal(WTERMSIG(status)));
	if (WEXITSTATUS(status) != NOT_STARTED)
		return refuse(p, place, p->why);
	log_line("%s: this kernel has no 9p, and there is no mksquashfs here to pack it by; `sudo "
		 "apt install squashfs-tools`",
		 p->folder);
	return -EIO;
}

int pack_folder(const char *folder, bool root, int parent)
{
	struct packing p = { .folder = folder, .shown = isatty(STDERR_FILENO) };
	int says[2] = { -1, -1 }, status = 0, error;
	pid_t self = getpid(), pid = -1;
	const char *place;

	error = p.image = disk_overlay_file(&place);
	if (error >= 0 && !pipe2(says, O_CLOEXEC))
		pid = fork();
	if (!pid)
		become_packer(folder, root, p.image, says[1], self);
	if (error >= 0 && pid < 0)
		error = -errno;
	close(says[1]);
	if (error < 0) {
		refuse(&p, place, strerror(-error));
	} else {
		follow(&p, says[0], parent);
		waitpid(pid, &status, 0);
		error = judge(&p, status, place);
	}
	close(says[0]);
	if (!error)
		return p.image;
	close(p.image);
	return error;
}
