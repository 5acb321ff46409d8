/*
 * The files that a share's server has lent (backends/share.h): by fid, so that the device itself
 * reads and writes what is much. Inside virtio/9p*.c; on the queue's reactor.
 */
#ifndef VIRTIO_9P_FILES_H
#define VIRTIO_9P_FILES_H

#include "backends/share.h"

struct p9_file {
	u32 fid;
	bool known; /* fid is one; else it is free, or gone as soon as nobody uses it */
	int fd;	    /* -1: not lent */
	reactor_file file;
	bool written;
	u32 users; /* operations */
	u32 bytes; /* so many were, or are to be, read and written much at a time: until it is lent
		    */
	u64 used;
};

struct p9_files {
	struct reactor *reactor;
	struct p9_file list[SHARE_LENT];
	u64 clock;
	u32 unreleased; /* closed since the kernel was told */
};

void p9_files_init(struct p9_files *files, struct reactor *reactor);
/* The fid's, in place of what was not used for longest if it is new. NULL: all are in use. */
struct p9_file *p9_files_find(struct p9_files *files, u32 fid);
/* It is not lent; count bytes more of it are to be read or written. Would it be worth having? */
bool p9_file_wanted(struct p9_file *file, u32 count);
/* fd, which is the table's from now on, is what the fid stands for: the file, or NULL. */
struct p9_file *p9_files_lend(struct p9_files *files, u32 fid, int fd);
/* One user less. */
void p9_file_unuse(struct p9_files *files, struct p9_file *file);
/* The fid, or all, mean nothing any more. */
void p9_files_forget(struct p9_files *files, u32 fid);
void p9_files_clear(struct p9_files *files);

#endif
