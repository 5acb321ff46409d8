/*
 * What init has instead of a C library: system calls of x86-64 (Linux arch/x86/entry/entry_64.S),
 * and the few functions on strings that it needs. A call returns what the kernel does: -errno when
 * it fails.
 */
#ifndef RUN_INIT_SYS_H
#define RUN_INIT_SYS_H

#include <asm/errno.h>
#include <asm/ioctls.h>
#include <asm/poll.h>
#include <asm/stat.h>
#include <asm/statfs.h>
#include <asm/termbits.h>
#include <asm/termios.h>
#include <asm/unistd.h>
#include <linux/fcntl.h>
#include <linux/mount.h>
#include <linux/signal.h>
#include <linux/stat.h>
#include <stdbool.h>
#include <stddef.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static inline long sys5(long number, long a, long b, long c, long d, long e)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return ret;
}

#define SYS(name, a, b, c, d, e) \
	sys5(__NR_##name, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e))

static inline int sys_open(const char *path, int flags)
{
	return (int)SYS(openat, AT_FDCWD, path, flags | O_CLOEXEC, 0, 0);
}

static inline long sys_read(int fd, void *to, size_t size)
{
	return SYS(read, fd, to, size, 0, 0);
}

static inline long sys_write(int fd, const void *from, size_t size)
{
	return SYS(write, fd, from, size, 0, 0);
}

static inline int sys_close(int fd)
{
	return (int)SYS(close, fd, 0, 0, 0, 0);
}

static inline int sys_ioctl(int fd, unsigned int request, void *argument)
{
	return (int)SYS(ioctl, fd, request, argument, 0, 0);
}

static inline int sys_mount(const char *source, const char *target, const char *type,
			    unsigned long flags, const char *options)
{
	return (int)SYS(mount, source, target, type, flags, options);
}

static inline int sys_mkdir(const char *path, unsigned int mode)
{
	return (int)SYS(mkdirat, AT_FDCWD, path, mode, 0, 0);
}

static inline int sys_mknod(const char *path, unsigned int mode, unsigned long device)
{
	return (int)SYS(mknodat, AT_FDCWD, path, mode, device, 0);
}

static inline int sys_unlink(const char *path)
{
	return (int)SYS(unlinkat, AT_FDCWD, path, 0, 0, 0);
}

static inline int sys_chdir(const char *path)
{
	return (int)SYS(chdir, path, 0, 0, 0, 0);
}

static inline int sys_kill(int pid, int number)
{
	return (int)SYS(kill, pid, number, 0, 0, 0);
}

static inline int sys_poll(struct pollfd *fds, unsigned int count, int milliseconds)
{
	return (int)SYS(poll, fds, count, milliseconds, 0, 0);
}

static inline int sys_execve(const char *path, char **argv, char **envp)
{
	return (int)SYS(execve, path, argv, envp, 0, 0);
}

static inline void sys_exit(int status)
{
	for (;;)
		SYS(exit_group, status, 0, 0, 0, 0);
}

/* The compiler calls the first two on its own too. */
void *memcpy(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
/* Zeroed memory that is never given back, or NULL. */
void *take_memory(size_t size);
size_t length(const char *s);
bool same(const char *a, const char *b);
/* What follows the prefix; NULL if s does not begin with it. */
const char *after(const char *s, const char *prefix);
/* Decimal digits up to the string's end or a space; -1 if there is none, or anything else. *end, if
 * given, is where they end. */
long number_of(const char *s, const char **end);
/* Joins the strings up to a NULL into `to`, cutting what does not fit; returns `to`. */
char *join(char *to, size_t room, ...);
/* The decimal number, in memory of the caller's of NUMBER_ROOM. */
#define NUMBER_ROOM 24
char *decimal(char *to, unsigned long n);
/* The whole file's bytes, NUL-terminated, at most room - 1: how many, or -errno. */
long read_file(const char *path, char *to, size_t room);
void sleep_ms(long milliseconds);
/* Sleeps a little. False when `limit` milliseconds have gone by since the first call with *since 0.
 */
bool wait_more(long *since, long limit);
/* In words, for what is likely here. */
const char *error_text(int error);

#endif
