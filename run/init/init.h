/*
 * The init inside the initramfs of `vmm run`: a static program without a library, process 1 of the
 * guest. Its files in the order of what they do: conf.c reads what to do, early.c loads modules,
 * ports.c finds the streams, root.c mounts the root, net.c has the network, command.c starts the
 * command, pump.c moves bytes until its end. run/protocol.h has what it says to the host.
 */
#ifndef RUN_INIT_INIT_H
#define RUN_INIT_INIT_H

#include "run/init/sys.h"
#include "run/protocol.h"

#define PATH_ROOM 4200

/* RUN_CONF, whose strings stay where they were read to. */
struct conf {
	char **strings;	     /* all of them, ended by NULL */
	char **argv, **envp; /* ended by NULL; argv may be empty */
	unsigned int argc, envc;
	const char *root, *rootmode, *cwd, *hostname, *net;
	unsigned int uid, gid;
	unsigned int groups[256];
	unsigned int group_count;
	unsigned short rows, cols;
	bool tty;
};

/* conf.c. It ends the machine after a line when it cannot be read. */
void conf_read(struct conf *conf);
/* The next string `key=...` behind *at (NULL: the first), its value; NULL: there is none. */
const char *conf_next(const struct conf *conf, const char *key, char ***at);

/* early.c */
void mount_early(void);
/* All of them; what was wrong with the first that failed, or NULL. */
const char *load_modules(const struct conf *conf);
/* Makes a node from a `dev` file of sysfs, MAJOR:MINOR. -errno. */
int node_from_sysfs(const char *dev, const char *node, unsigned int type);

/* ports.c: descriptors without blocking; not attached, all are the console, and control is -1. */
struct ports {
	int in, out, err, control;
	bool attached; /* to the host's half */
};
extern struct ports ports;
void ports_open(void);
/* One line to the host: the strings up to a NULL, cleaned of what no line has. */
void say(const char *first, ...);
/* An error of a kind, and the rest of the line. */
#define say_error(kind, ...) say(RUN_LINE_ERROR " ", kind, " ", __VA_ARGS__)
/* The machine's end: waits for the host's last word, if there is a port. */
void power_off(void);

/* root.c: an error is a line and the end of the machine. */
void root_enter(const struct conf *conf);
void shares_mount(const struct conf *conf);
void shares_unmount(const struct conf *conf);
/* A folder whose file system, in RAM, has no room left; NULL: none. */
const char *full_folder(const struct conf *conf);

/* net.c: the loopback, and what conf says; an error of the latter is a line and the end. */
void network_up(const struct conf *conf);

/* command.c */
struct command {
	int pid;
	int master;	  /* the pseudo-terminal's, or -1 */
	int in, out, err; /* our ends of its streams, without blocking; -1: none */
};
/* Starts it: 0, or the status to end with after a line, 126 or 127, or -1: none. */
int command_start(const struct conf *conf, struct command *command);

/* pump.c: until the command's end; all it wrote is delivered, then all else is killed. Its status
 * as wait4() has it. */
int pump(struct command *command, unsigned long *out_bytes, unsigned long *err_bytes);
/* A look at the control port: obeys the lines that have come. True: `poweroff` is among them. */
bool obey(const struct command *command);

#endif
