/*
 * The machine's end of a shared folder: opens it, forks the server, and ends it. Main thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "backends/descriptor.h"
#include "backends/share-internal.h"
#include "vm/end.h"
#include "vm/log.h"
#include "vm/sandbox.h"

/* ---- the server's first steps ---- */

/* What it needs to be able to do for whom: as root, to pass over the modes of other users' files,
 * which is what root expects of the guest's root; nothing else has any to keep. */
static u64 capabilities(const struct share_config *config)
{
	if (config->readonly)
		return BIT64(CAP_DAC_READ_SEARCH);
	return BIT64(CAP_DAC_OVERRIDE) | BIT64(CAP_FOWNER) | BIT64(CAP_FSETID) |
	       (config->map == CONFIG_MAP_PASSTHROUGH ? BIT64(CAP_CHOWN) : 0);
}

/* Where the host has Landlock (5.19, when it learned to let files be moved), nothing but what is in
 * the folder can be opened or changed, whatever becomes of this process. */
static void confine(bool readonly)
{
	const u64 reading = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
	long version =
		syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	/* all that there is to forbid: 14 things in the second version, one more since the third */
	struct landlock_ruleset_attr all = { .handled_access_fs = version < 3 ? 0x3fff : 0x7fff };
	struct landlock_path_beneath_attr beneath = {
		.allowed_access = readonly ? reading : all.handled_access_fs,
		.parent_fd = SHARE_ROOT,
	};
	int rules;

	if (version < 2)
		return;
	rules = (int)syscall(SYS_landlock_create_ruleset, &all, sizeof(all.handled_access_fs), 0);
	if (rules < 0)
		return;
	if (!syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0))
		syscall(SYS_landlock_restrict_self, rules, 0);
	close(rules);
}

/* Descriptors, signals and rights; 0 or -errno (logged). */
static int settle(const struct share_config *config, int socket, int root, int files)
{
	sigset_t all;
	int proc, err;

	/* A Ctrl-C, a hangup or a service manager's SIGTERM is for the machine, which still needs
	 * its folder to shut down; the socket's end is the end. */
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	prctl(PR_SET_NAME, "vmm-share");
	umask(0);
	proc = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (proc < 0 || fchdir(proc)) {
		log_line("--share %s: /proc/self/fd: %s; mount /proc here", config->path,
			 strerror(errno));
		return -errno;
	}
	/* out of each other's way first */
	files = fcntl(files, F_DUPFD, SHARE_FILES + 1);
	if (dup2(socket, SHARE_SOCKET) < 0 || dup2(root, SHARE_ROOT) < 0 ||
	    dup2(files, SHARE_FILES) < 0 || close_range(SHARE_FILES + 1, ~0u, 0)) {
		log_line("--share %s: descriptors: %s; it needs Linux 5.9", config->path,
			 strerror(errno));
		return -errno;
	}
	if (!config->sandbox)
		return 0;
	err = sandbox_share_prepare(capabilities(config));
	if (!err)
		confine(config->readonly);
	return err;
}

static void __attribute__((noreturn))
become_server(const struct share_config *config, int socket, int root, int files, pid_t parent)
{
	/* The end of the socket would tell, but not one that waits for a slow disk. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent || settle(config, socket, root, files))
		_exit(STATUS_HOST_ERROR);
	share_serve(config);
}

/* ---- the machine's end ---- */

static int check_folder(const struct share_config *config, int root)
{
	struct statfs fs;
	char path[32];

	if (fstatfs(root, &fs))
		return -errno;
	if (fs.f_type == PROC_SUPER_MAGIC || fs.f_type == SYSFS_MAGIC) {
		log_line("--share %s: is the host's kernel, not files; share another folder",
			 config->path);
		return -EINVAL;
	}
	if (config->map == CONFIG_MAP_PASSTHROUGH && geteuid()) {
		log_line("--share %s: map=passthrough gives files to other users, which needs "
			 "root; leave it out, or use map=mapped",
			 config->path);
		return -EPERM;
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", root);
	if (config->map == CONFIG_MAP_MAPPED && getxattr(path, SHARE_ATTR, NULL, 0) < 0 &&
	    errno == EOPNOTSUPP) {
		log_line("--share %s: map=mapped keeps owners in user xattrs, which its file "
			 "system has not; leave map= out",
			 config->path);
		return -EOPNOTSUPP;
	}
	return 0;
}

static int start(struct share *share, const struct share_config *config, int root)
{
	static const int room = (int)MIB(1);
	pid_t parent = getpid();
	int ends[2], files[2], err = 0;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		return -errno;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, files)) {
		err = -errno;
		close(ends[0]);
		close(ends[1]);
		return err;
	}
	/* As far as the host allows: the larger, the fewer turns a large message takes. */
	for (u32 i = 0; i < ARRAY_SIZE(ends); i++)
		setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	share->dup = fcntl(ends[0], F_DUPFD_CLOEXEC, 0);
	share->process = share->dup < 0 ? -1 : fork();
	if (share->process < 0)
		err = -errno;
	if (!share->process)
		become_server(config, ends[1], root, files[1], parent);
	close(ends[1]);
	close(files[1]);
	share->fd = ends[0];
	share->files = files[0];
	return err;
}

int share_open(struct share *share, const struct share_config *config)
{
	int root, err;

	*share = (struct share){
		.path = config->path, .fd = -1, .dup = -1, .in = -1, .out = -1, .files = -1
	};
	root = open(config->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0) {
		err = -errno;
		log_line("--share %s: %s; give a folder", config->path, strerror(errno));
		return err;
	}
	err = check_folder(config, root);
	if (!err) {
		err = start(share, config, root);
		if (err)
			log_line("--share %s: its server cannot be started: %s; allow more "
				 "processes and open files (ulimit -u, ulimit -n)",
				 config->path, strerror(-err));
	}
	close(root);
	if (err)
		share_close(share);
	return err;
}

int share_register(struct share *share, struct reactors *reactors)
{
	char ready;
	ssize_t n;

	/* Its start went along with ours. */
	do
		n = read(share->fd, &ready, 1);
	while (n < 0 && errno == EINTR);
	if (n != 1)
		return -EPIPE; /* it has said why */
	if (fcntl(share->fd, F_SETFL, O_NONBLOCK))
		return -errno;
	share->in = reactor_file_add(reactors, share->fd);
	if (share->in < 0)
		return share->in;
	share->out = reactor_file_add(reactors, share->dup);
	return share->out < 0 ? share->out : 0;
}

void share_unregister(struct share *share, struct reactors *reactors)
{
	if (share->in >= 0)
		reactor_file_remove(reactors, share->in);
	if (share->out >= 0)
		reactor_file_remove(reactors, share->out);
	share->in = share->out = -1;
}

int share_take_file(const struct share *share)
{
	struct stat st;
	u8 nothing;
	int fd;
	ssize_t n = descriptor_receive(share->files, &nothing, sizeof(nothing), &fd);

	if (n < 0)
		return (int)n;
	if (fd < 0)
		return n ? -EMFILE : -EPIPE;
	if (!fstat(fd, &st) && S_ISREG(st.st_mode))
		return fd;
	close(fd);
	return -EPROTO;
}

void share_close(struct share *share)
{
	if (share->fd >= 0)
		shutdown(share->fd, SHUT_RDWR); /* a ring may hold the file a while longer */
	if (share->fd >= 0)
		close(share->fd);
	if (share->dup >= 0)
		close(share->dup);
	if (share->files >= 0)
		close(share->files);
	share->fd = share->dup = share->files = -1;
	if (share->process > 0)
		waitpid(share->process, NULL, 0);
	share->process = -1;
}
