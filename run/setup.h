/*
 * From what the user asked of `vmm run` to a machine: which folders of the host the guest gets, as
 * whom and with what the command runs, the kernel's command line, the initramfs. Main thread,
 * before the sandbox.
 */
#ifndef RUN_SETUP_H
#define RUN_SETUP_H

#include "vm/config.h"

#define SETUP_SHARES 16

/* A folder for the guest. */
struct setup_share {
	char *path;    /* whole, of the host and of the guest; "/": the root */
	char *host;    /* where that is on the host, NULL: the same */
	bool writable; /* else what is written stays in the guest */
};

/* Who runs the command. */
struct setup_user {
	u32 uid, gid;
	u32 groups[64];
	u32 group_count;
	char name[64], home[512], shell[256]; /* empty: not known */
};

struct setup {
	struct setup_share shares[SETUP_SHARES];
	u32 share_count;
	bool image;  /* the root is the first disk */
	bool packed; /* the shares are disks instead, ... */
	u32 disk;    /* ... from this one on */
	const char *cwd;
	struct setup_user user;
	char here[4096];
};

/*
 * The folder in an image, a squashfs, for a kernel that has no 9p: a file without a name, which is
 * gone with its descriptor. Of a root what the guest mounts over is left out. parent: as in
 * run_files; its end is ours. Terminals see how far it is. Logs, -errno.
 */
int pack_folder(const char *folder, bool root, int parent);
/* What the shares are, and in which order they are mounted. Logs, 0 or -errno. */
int setup_shares(struct setup *setup, const struct config *config);
/* --user, in the root's own files, or the caller. Logs, 0 or -errno. */
int setup_user(struct setup *setup, const struct config *config);
/* The kernel's whole command line, for free(); NULL: no memory. */
char *setup_cmdline(const struct config *config);
void setup_free(struct setup *setup);

/*
 * All of it: config gets shares, disk, command line and initramfs; version (sizeof
 * run_result.version) the kernel's. tty: the command has a terminal of this size. Logs, 0 or
 * -errno; -ENOPKG: the kernel lacks a module. parent: as for pack_folder().
 */
int setup_machine(struct config *config, char *version, size_t size, bool tty, u16 rows, u16 cols,
		  int parent);

/* The ports of run/protocol.h: standard input from `in`, the others as they are, and the control
 * port. The descriptors are the machine's from there on. Logs, 0 or -errno. */
int setup_ports(struct config *config, int in, int control);

#endif
