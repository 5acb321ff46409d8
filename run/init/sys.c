/*
 * Strings, memory and files without a C library.
 */
#include <asm/mman.h>
#include <linux/mman.h>
#include <linux/time.h>
#include <stdarg.h>
#include "run/init/sys.h"

void *memcpy(void *to, const void *from, size_t size)
{
	void *ret = to;

	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
	return ret;
}

void *memset(void *to, int value, size_t size)
{
	void *ret = to;

	__asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
	return ret;
}

void *take_memory(size_t size)
{
	register long r9 __asm__("r9") = 0;
	register long r10 __asm__("r10") = MAP_PRIVATE | MAP_ANONYMOUS;
	register long r8 __asm__("r8") = -1;
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"((long)__NR_mmap), "D"(0L), "S"(size),
			   "d"((long)(PROT_READ | PROT_WRITE)), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret < 0 && ret > -4096 ? NULL : (void *)ret;
}

size_t length(const char *s)
{
	size_t n = 0;

	while (s[n])
		n++;
	return n;
}

bool same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

const char *after(const char *s, const char *prefix)
{
	while (*prefix)
		if (*s++ != *prefix++)
			return NULL;
	return s;
}

long number_of(const char *s, const char **end)
{
	const char *start = s;
	long n = 0;

	for (; *s >= '0' && *s <= '9' && n < 1L << 40; s++)
		n = n * 10 + *s - '0';
	if (end)
		*end = s;
	return s == start || (*s && *s != ' ') ? -1 : n;
}

char *join(char *to, size_t room, ...)
{
	const char *s;
	size_t n = 0;
	va_list list;

	va_start(list, room);
	while ((s = va_arg(list, const char *)))
		while (*s && n + 1 < room)
			to[n++] = *s++;
	va_end(list);
	to[n] = '\0';
	return to;
}

char *decimal(char *to, unsigned long n)
{
	char *at = to + NUMBER_ROOM - 1;

	*at = '\0';
	do {
		*--at = (char)('0' + n % 10);
		n /= 10;
	} while (n);
	return at;
}

long read_file(const char *path, char *to, size_t room)
{
	int fd = sys_open(path, O_RDONLY);
	size_t n = 0;
	long got;

	if (fd < 0)
		return fd;
	do {
		got = sys_read(fd, to + n, room - 1 - n);
		n += got > 0 ? (size_t)got : 0;
	} while (got > 0);
	sys_close(fd);
	to[n] = '\0';
	return got < 0 ? got : (long)n;
}

void sleep_ms(long milliseconds)
{
	struct __kernel_timespec time = { milliseconds / 1000, milliseconds % 1000 * 1000000 };

	SYS(nanosleep, &time, NULL, 0, 0, 0);
}

bool wait_more(long *since, long limit)
{
	struct __kernel_timespec time;
	long now;

	SYS(clock_gettime, CLOCK_MONOTONIC, &time, 0, 0, 0);
	now = time.tv_sec * 1000 + time.tv_nsec / 1000000;
	if (!*since)
		*since = now;
	/* What is awaited comes at once, or late. */
	sleep_ms(now - *since < 100 ? 1 : 20);
	return now - *since < limit;
}

const char *error_text(int error)
{
	static const struct {
		short error;
		const char *text;
	} known[] = {
		{ ENOENT, "there is no such file" },
		{ EACCES, "permission denied" },
		{ EPERM, "not permitted" },
		{ ENOTDIR, "not a folder" },
		{ EISDIR, "a folder" },
		{ ELOOP, "too many symbolic links" },
		{ ENAMETOOLONG, "the name is too long" },
		{ ENOMEM, "out of memory" },
		{ ENOSPC, "no space left" },
		{ EIO, "an I/O error" },
		{ EROFS, "the file system is read-only" },
		{ EINVAL, "invalid argument" },
		{ ENODEV, "no such device or file system" },
		{ ENXIO, "no such device" },
		{ EBUSY, "busy" },
		{ ENOEXEC, "of another format" },
		{ E2BIG, "arguments and environment are too long" },
		{ EXDEV, "on another file system" },
		{ EUCLEAN, "the file system is damaged" },
	};
	static char other[32];
	char n[NUMBER_ROOM];

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (known[i].error == error)
			return known[i].text;
	return join(other, sizeof(other), "error ", decimal(n, (unsigned long)error), NULL);
}
