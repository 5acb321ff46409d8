/*
 * What a Linux guest of the bench does in a shared folder:
 *
 *   files create|stat|rename|unlink FOLDER COUNT    as many files, one after the other
 *   files list FOLDER COUNT                         a whole folder's names, as many times
 *   files write|read FILE MIB                       in blocks of 1 MiB, the first 48 again and again
 *
 * and then a line for watch.c: RESULT ops=N us=N; an operation is a file, a name, or a MiB. With
 * MARKS in the environment a plugin of the emulation (layouts-count.c) is told where each
 * operation, or list, ends.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BLOCK (1u << 20)
#define WRAP  48

/* NOPs between which a plugin of the emulation counts. */
#define MARK(n)                                                                               \
	do {                                                                                  \
		if (marks)                                                                    \
			__asm__ volatile(".byte 0x0f, 0x1f, 0x80, " #n ", 0x00, 0x79, 0x6c"); \
	} while (0)

static const char *folder;
static int marks;
static char block[BLOCK] __attribute__((aligned(4096)));

static void fail(const char *what)
{
	printf("ERROR %s: %s\n", what, strerror(errno));
	exit(1);
}

static const char *name(char kind, int i)
{
	static char names[2][256];
	static int turn;

	turn ^= 1;
	snprintf(names[turn], sizeof(names[turn]), "%s/%c%d", folder, kind, i);
	return names[turn];
}

static void create(int i)
{
	int fd = open(name('f', i), O_CREAT | O_EXCL | O_WRONLY, 0644);

	if (fd < 0 || close(fd))
		fail("create");
}

static void look(int i)
{
	struct stat st;

	if (stat(name('f', i), &st))
		fail("stat");
}

static void move(int i)
{
	if (rename(name('f', i), name('g', i)))
		fail("rename");
}

static void drop(int i)
{
	if (unlink(name('g', i)))
		fail("unlink");
}

static long list(void)
{
	DIR *d = opendir(folder);
	long n = 0;

	if (!d)
		fail("opendir");
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static long stream(int mib, int writing)
{
	int fd = open(folder, writing ? O_CREAT | O_WRONLY : O_RDONLY, 0644);

	if (fd < 0)
		fail("open");
	for (int i = 0; i < mib; i++) {
		if (i % WRAP == 0 && lseek(fd, 0, SEEK_SET))
			fail("seek");
		if ((writing ? write(fd, block, BLOCK) : read(fd, block, BLOCK)) != BLOCK)
			fail(writing ? "write" : "read");
		MARK(2);
	}
	close(fd);
	return mib;
}

static long now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*each)(int i);
	} each[] = {
		{ "create", create }, { "stat", look }, { "rename", move }, { "unlink", drop }
	};
	int count = argc == 4 ? atoi(argv[3]) : 0;
	void (*f)(int i) = NULL;
	long ops = count, began;

	if (count <= 0) {
		fprintf(stderr,
			"usage: files create|stat|rename|unlink|list|write|read WHERE COUNT\n");
		return 2;
	}
	folder = argv[2];
	memset(block, 'x', sizeof(block));
	for (size_t i = 0; i < sizeof(each) / sizeof(each[0]); i++)
		if (!strcmp(argv[1], each[i].name))
			f = each[i].each;
	marks = getenv("MARKS") != NULL;
	began = now_us();
	MARK(1);
	if (f)
		for (int i = 0; i < count; i++) {
			f(i);
			MARK(2);
		}
	else if (!strcmp(argv[1], "list"))
		for (ops = 0; count--;) {
			ops += list();
			MARK(2);
		}
	else
		ops = stream(count, argv[1][0] == 'w');
	MARK(3);
	printf("RESULT ops=%ld us=%ld\n", ops, now_us() - began);
	return 0;
}
