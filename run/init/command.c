/*
 * Starts the command: its streams, session, user, folder; and tells a command that is not there
 * from one that cannot be executed, as shells do.
 */
#include <linux/sched.h>
#include "run/init/init.h"

/* What the child says when it could not become the command. */
struct failure {
	const char *kind; /* the same address in both, a copy of one program */
	int error;
	bool interpreter; /* the file is there, what it names on its first line is not */
};

#define PTY_PEER 0x5441 /* TIOCGPTPEER, _IO('T', 0x41) */

static const char *get_env(const struct conf *conf, const char *name)
{
	const char *value;

	for (unsigned int i = 0; i < conf->envc; i++)
		if ((value = after(conf->envp[i], name)))
			return value;
	return NULL;
}

/* execve(), and the shell for a script that names none. Returns only with an error. */
static int become(const char *path, struct conf *conf)
{
	int ret = sys_execve(path, conf->argv, conf->envp);

	if (ret == -ENOEXEC) {
		/* argv has room in front: see command_start() */
		conf->argv[0] = (char *)path;
		conf->argv[-1] = "/bin/sh";
		sys_execve("/bin/sh", conf->argv - 1, conf->envp);
	}
	return ret;
}

static bool is_there(const char *path)
{
	return !SYS(faccessat, AT_FDCWD, path, 0 /* F_OK */, 0, 0);
}

/* As execvp(3): a name without a slash is looked for in PATH. */
static void exec_command(struct conf *conf, struct failure *failure)
{
	const char *name = conf->argv[0], *at = get_env(conf, "PATH=");
	char path[PATH_ROOM];
	bool slash = false;
	int ret, worst = -ENOENT;

	for (const char *c = name; *c; c++)
		slash = slash || *c == '/';
	if (slash || !*name) {
		worst = *name ? become(name, conf) : -ENOENT;
		failure->interpreter = worst == -ENOENT && *name && is_there(name);
	} else {
		for (const char *end = at; *end; at = end + 1) {
			for (end = at; *end && *end != ':'; end++)
				;
			if ((size_t)(end - at) + length(name) + 2 > sizeof(path))
				continue;
			memcpy(path, at, (size_t)(end - at));
			join(path + (end - at), sizeof(path) - (size_t)(end - at),
			     end == at ? "./" : "/", name, NULL);
			ret = become(path, conf);
			if (ret == -ENOENT && is_there(path))
				failure->interpreter = true;
			else if (ret != -ENOENT && ret != -ENOTDIR)
				worst = ret;
			if (worst != -ENOENT && worst != -EACCES)
				break;
		}
	}
	failure->error = -worst;
	failure->kind = failure->interpreter || (worst != -ENOENT && worst != -ENOTDIR)
				? RUN_ERROR_NOT_EXECUTABLE
				: RUN_ERROR_NOT_FOUND;
}

static void try_shells(struct conf *conf)
{
	const char *shells[] = { get_env(conf, "SHELL="), "/bin/bash", "/bin/sh" };

	for (size_t i = 0; i < ARRAY_SIZE(shells); i++)
		if (shells[i]) {
			conf->argv[0] = (char *)shells[i];
			conf->argv[1] = NULL;
			sys_execve(shells[i], conf->argv, conf->envp);
		}
	conf->argv[0] = "/bin/sh";
}

static void become_user(const struct conf *conf, struct failure *failure)
{
	long ret = SYS(setgroups, conf->group_count, conf->groups, 0, 0, 0);

	if (!ret)
		ret = SYS(setresgid, conf->gid, conf->gid, conf->gid, 0, 0);
	if (!ret)
		ret = SYS(setresuid, conf->uid, conf->uid, conf->uid, 0, 0);
	failure->kind = RUN_ERROR_USER;
	failure->error = (int)-ret;
	if (ret)
		return;
	failure->kind = RUN_ERROR_CWD;
	failure->error = -sys_chdir(conf->cwd);
}

/* The child, with its streams in fds, up to the command or to a word why not. */
static void child(struct conf *conf, const int fds[3], int word)
{
	struct failure failure = { 0 };
	unsigned long none = 0;

	SYS(setsid, 0, 0, 0, 0, 0);
	if (conf->tty)
		sys_ioctl(fds[0], TIOCSCTTY, NULL);
	/* fds are above 2: command_start() sees to that */
	for (int i = 0; i < 3; i++)
		SYS(dup3, fds[i], i, 0, 0, 0);
	SYS(rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof(none), 0);
	SYS(umask, 022, 0, 0, 0, 0);
	become_user(conf, &failure);
	if (!failure.error) {
		if (!conf->argc)
			try_shells(conf);
		exec_command(conf, &failure);
	}
	sys_write(word, &failure, sizeof(failure));
	sys_exit(127);
}

/* A pipe, of which the command's end belongs to its user, who may open it again by /dev/stdin and
 * the like; ours does not block. */
static int make_pipe(const struct conf *conf, int *ours, int *theirs, bool to_command)
{
	int ends[2], ret = (int)SYS(pipe2, ends, O_CLOEXEC, 0, 0, 0);

	if (ret)
		return ret;
	*ours = ends[to_command ? 1 : 0];
	*theirs = ends[to_command ? 0 : 1];
	SYS(fcntl, *ours, F_SETFL, O_NONBLOCK, 0, 0);
	SYS(fchown, *theirs, conf->uid, conf->gid, 0, 0);
	return 0;
}

static int make_terminal(const struct conf *conf, struct command *command, int fds[3])
{
	struct winsize size = { conf->rows, conf->cols, 0, 0 };
	int unlock = 0, ret;

	ret = command->master = sys_open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK);
	if (ret >= 0)
		ret = sys_ioctl(command->master, TIOCSPTLCK, &unlock);
	if (ret >= 0)
		ret = sys_ioctl(command->master, PTY_PEER, (void *)(O_RDWR | O_NOCTTY | O_CLOEXEC));
	if (ret < 0)
		return ret;
	fds[0] = fds[1] = fds[2] = ret;
	SYS(fchown, ret, conf->uid, -1, 0, 0);
	sys_ioctl(command->master, TIOCSWINSZ, &size);
	command->in = command->out = command->master;
	return 0;
}

static int make_streams(const struct conf *conf, struct command *command, int fds[3])
{
	int ret;

	if (conf->tty)
		return make_terminal(conf, command, fds);
	ret = make_pipe(conf, &command->in, &fds[0], true);
	if (!ret)
		ret = make_pipe(conf, &command->out, &fds[1], false);
	return ret ? ret : make_pipe(conf, &command->err, &fds[2], false);
}

static int tell(const struct conf *conf, const struct failure *failure)
{
	const char *what = conf->argv[0];

	if (same(failure->kind, RUN_ERROR_NOT_FOUND)) {
		say_error(failure->kind, what,
			  conf->argc
				  ? ": not found in the guest; give a path, or set PATH"
				  : ": the root has no shell; give a command behind --, or another "
				    "--root",
			  NULL);
		return 127;
	}
	if (same(failure->kind, RUN_ERROR_NOT_EXECUTABLE)) {
		say_error(failure->kind, what, ": cannot be executed: ",
			  failure->interpreter ? "its interpreter is not there"
			  : failure->error == ENOEXEC
				  ? "neither a program for this machine nor a script"
				  : error_text(failure->error),
			  NULL);
		return 126;
	}
	say_error(failure->kind,
		  same(failure->kind, RUN_ERROR_CWD) ? conf->cwd : "the command's user", ": ",
		  error_text(failure->error), NULL);
	return -1;
}

int command_start(const struct conf *conf, struct command *command)
{
	struct conf own = *conf;
	struct failure failure;
	int word[2], fds[3], ret;
	const char *what = conf->tty ? "a pseudo-terminal" : "a pipe";

	*command = (struct command){ -1, -1, -1, -1, -1 };
	/* one place in front for a shell, one behind for NULL */
	own.argv = (char **)take_memory((conf->argc + 3) * sizeof(char *)) + 1;
	for (unsigned int i = 0; i < conf->argc; i++)
		own.argv[i] = conf->argv[i];
	ret = make_streams(conf, command, fds);
	if (!ret)
		ret = (int)SYS(pipe2, word, O_CLOEXEC, 0, 0, 0);
	if (!ret) {
		what = "a process";
		ret = command->pid = (int)SYS(clone, 17 /* SIGCHLD */, NULL, NULL, NULL, 0);
		if (!ret)
			child(&own, fds, word[1]);
	}
	if (ret < 0) {
		say_error(RUN_ERROR_FORK, what, ": ", error_text(-ret),
			  "; give the guest more memory", NULL);
		return -1;
	}
	sys_close(word[1]);
	for (int i = conf->tty ? 2 : 0; i < 3; i++)
		sys_close(fds[i]);
	/* Ends without a word when the command takes the child's place. */
	ret = (int)sys_read(word[0], &failure, sizeof(failure));
	sys_close(word[0]);
	if (ret != sizeof(failure))
		return 0;
	if (!conf->argc)
		own.argv[0] = "/bin/sh";
	return tell(&own, &failure);
}
