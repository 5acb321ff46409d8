/*
 * A small table of lent files. What is lent is the same open file as the server's: it means what
 * the fid means, until that is clunked. On the queue's reactor.
 */
#include <string.h>
#include <unistd.h>
#include "virtio/9p-files.h"

#define WANTED	 KIB(64) /* less of a file is read sooner than its descriptor is had */
#define RELEASES 16	 /* the kernel is told to let go of files after so many */

void p9_files_init(struct p9_files *files, struct reactor *reactor)
{
	files->reactor = reactor;
	for (u32 i = 0; i < SHARE_LENT; i++)
		files->list[i] = (struct p9_file){ .fd = -1 };
}

static void forget(struct p9_files *files, struct p9_file *file)
{
	file->known = false;
	file->used = 0;
	if (file->users || file->fd < 0)
		return;
	reactor_own_file_remove(files->reactor, file->file);
	close(file->fd);
	file->fd = -1;
	/* Nobody can execute what was written for as long as a ring has it. */
	if (file->written || ++files->unreleased == RELEASES) {
		reactor_own_files_release(files->reactor);
		files->unreleased = 0;
	}
}

struct p9_file *p9_files_find(struct p9_files *files, u32 fid)
{
	struct p9_file *file, *oldest = NULL;

	for (u32 i = 0; i < SHARE_LENT; i++) {
		file = &files->list[i];
		if (file->known && file->fid == fid) {
			file->used = ++files->clock;
			return file;
		}
		if (!file->users && (!oldest || file->used < oldest->used))
			oldest = file;
	}
	if (!oldest)
		return NULL;
	forget(files, oldest);
	*oldest = (struct p9_file){ .fid = fid, .known = true, .fd = -1, .used = ++files->clock };
	return oldest;
}

bool p9_file_wanted(struct p9_file *file, u32 count)
{
	if (file->bytes < WANTED)
		file->bytes += count;
	return file->bytes >= WANTED;
}

struct p9_file *p9_files_lend(struct p9_files *files, u32 fid, int fd)
{
	struct p9_file *file = p9_files_find(files, fid);
	reactor_file number =
		file && file->fd < 0 ? reactor_own_file_add(files->reactor, fd, true) : -1;

	if (number < 0) {
		close(fd);
		return file && file->fd >= 0 ? file : NULL;
	}
	file->file = number;
	file->fd = fd;
	return file;
}

void p9_file_unuse(struct p9_files *files, struct p9_file *file)
{
	file->users--;
	if (!file->known)
		forget(files, file);
}

void p9_files_forget(struct p9_files *files, u32 fid)
{
	for (u32 i = 0; i < SHARE_LENT; i++)
		if (files->list[i].known && files->list[i].fid == fid)
			forget(files, &files->list[i]);
}

void p9_files_clear(struct p9_files *files)
{
	for (u32 i = 0; i < SHARE_LENT; i++)
		forget(files, &files->list[i]);
}
