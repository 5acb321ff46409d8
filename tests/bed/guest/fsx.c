/*
 * fsx FILE OPERATIONS [SEED]: random operations on a file, each beside the same on a model in
 * memory, whose contents and size the file must have whenever it is looked at. The file is also
 * closed and opened again, renamed, and has its name taken.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST (1u << 18)

static unsigned char model[MOST], buffer[MOST];
static unsigned int size, operation;
static char path[2][256];
static int fd, name;
static unsigned long long state = 88172645463325252ull;

static unsigned int below(unsigned int n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return n ? (unsigned int)(state >> 11) % n : 0;
}

static void __attribute__((noreturn)) wrong(const char *what)
{
	printf("fsx: operation %u: %s: %s\n", operation, what, strerror(errno));
	exit(1);
}

static void compare(unsigned int at, unsigned int length)
{
	for (unsigned int i = 0; i < length; i++)
		if (buffer[i] != model[at + i]) {
			printf("fsx: operation %u: byte %u is 0x%02x, not 0x%02x\n", operation,
			       at + i, buffer[i], model[at + i]);
			exit(1);
		}
}

static void look(void)
{
	struct stat st;

	if (fstat(fd, &st))
		wrong("fstat");
	if (st.st_size != (off_t)size) {
		printf("fsx: operation %u: %lld bytes, not %u\n", operation, (long long)st.st_size,
		       size);
		exit(1);
	}
}

static void read_some(unsigned int at, unsigned int length)
{
	unsigned int want = at >= size ? 0 : length < size - at ? length : size - at;
	ssize_t n = pread(fd, buffer, length, at);

	if (n != (ssize_t)want)
		wrong("pread");
	compare(at, want);
}

static void write_some(unsigned int at, unsigned int length)
{
	ssize_t n;

	for (unsigned int i = 0; i < length; i++)
		buffer[i] = (unsigned char)below(256);
	n = pwrite(fd, buffer, length, at);
	if (n != (ssize_t)length)
		wrong("pwrite");
	memcpy(model + at, buffer, length);
	if (at + length > size)
		size = at + length;
}

static void cut(unsigned int to)
{
	if (below(2) ? ftruncate(fd, to) : truncate(path[name], to))
		wrong("truncate");
	if (to < size)
		memset(model + to, 0, size - to);
	size = to;
}

static void append(unsigned int length)
{
	int other = open(path[name], O_WRONLY | O_APPEND);

	if (other < 0)
		wrong("open to append");
	if (length > MOST - size)
		length = MOST - size;
	for (unsigned int i = 0; i < length; i++)
		model[size + i] = (unsigned char)below(256);
	if (write(other, model + size, length) != (ssize_t)length)
		wrong("append");
	size += length;
	close(other);
}

static void open_again(void)
{
	close(fd);
	fd = open(path[name], O_RDWR);
	if (fd < 0)
		wrong("open");
}

static void rename_it(void)
{
	if (rename(path[name], path[!name]))
		wrong("rename");
	name = !name;
}

/* Mapped, it has the same bytes. */
static void map(void)
{
	void *area;

	if (!size)
		return;
	area = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (area == MAP_FAILED)
		wrong("mmap");
	memcpy(buffer, area, size);
	munmap(area, size);
	compare(0, size);
}

/* Without a name it lives until it is closed; then a new one has what it had. */
static void lose_name(void)
{
	if (unlink(path[name]))
		wrong("unlink");
	read_some(0, size);
	look();
	close(fd);
	fd = open(path[name], O_RDWR | O_CREAT | O_EXCL, 0644);
	if (fd < 0)
		wrong("open anew");
	if (pwrite(fd, model, size, 0) != (ssize_t)size)
		wrong("write anew");
}

int main(int argc, char **argv)
{
	unsigned int count = argc > 2 ? (unsigned int)atoi(argv[2]) : 0;

	if (argc < 3)
		return 2;
	if (argc > 3)
		state += strtoull(argv[3], NULL, 0) * 2654435761u;
	snprintf(path[0], sizeof(path[0]), "%s", argv[1]);
	snprintf(path[1], sizeof(path[1]), "%s.other", argv[1]);
	fd = open(path[0], O_RDWR | O_CREAT | O_EXCL, 0644);
	if (fd < 0)
		wrong("open");
	for (operation = 0; operation < count; operation++) {
		unsigned int at = below(MOST), length = below(below(8) ? 5000 : MOST);

		if (length > MOST - at)
			length = MOST - at;
		switch (below(16)) {
		case 0:
			cut(below(4) ? at : 0);
			break;
		case 1:
			append(length);
			break;
		case 2:
			open_again();
			break;
		case 3:
			rename_it();
			break;
		case 4:
			map();
			break;
		case 5:
			if (below(2) ? fsync(fd) : fdatasync(fd))
				wrong("fsync");
			break;
		case 6:
			if (!below(8))
				lose_name();
			break;
		case 7:
		case 8:
		case 9:
		case 10:
			read_some(at, length);
			break;
		default:
			write_some(at, length);
		}
		look();
	}
	read_some(0, size);
	close(fd);
	unlink(path[name]);
	printf("fsx: %u operations\n", operation);
	return 0;
}
