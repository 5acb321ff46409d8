/*
 * layouts-disk ROUNDS REQUESTS CASE=DISK...: what the Linux guest of layouts-agent runs. In each
 * round each disk in turn, in an order that rotates, gets so many reads of 4 KiB, one at a time, at
 * random places. Prints a line a batch, `@ops CASE requests=N ns_p10= ns_p50= ns_p90=`. NOPs mark
 * where batches and requests begin for layouts-count.c.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BLOCK	4096
#define BLOCKS	(64 << 20) / BLOCK
#define WARM	20
#define MOST	4096
#define MARK(n) __asm__ volatile("nopl 0x6c790000 + " #n "(%%rax)" ::: "memory")

static uint64_t took[MOST];
static char buffer[BLOCK] __attribute__((aligned(BLOCK)));

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int less(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void read_one(int fd)
{
	if (pread(fd, buffer, BLOCK, (off_t)(random() % (BLOCKS)) * BLOCK) != BLOCK) {
		perror("pread");
		exit(1);
	}
}

static void batch(const char *way, int requests)
{
	const char *disk = strchr(way, '=') + 1;
	int fd = open(disk, O_RDONLY | O_DIRECT);

	if (fd < 0) {
		perror(disk);
		exit(1);
	}
	for (int n = 0; n < WARM; n++)
		read_one(fd);
	MARK(1);
	for (int n = 0; n < requests; n++) {
		uint64_t began = now();

		read_one(fd);
		took[n] = now() - began;
		MARK(2);
	}
	MARK(3);
	close(fd);
	qsort(took, (size_t)requests, sizeof(took[0]), less);
	printf("@ops %.*s requests=%d ns_p10=%llu ns_p50=%llu ns_p90=%llu\n", (int)(disk - way - 1),
	       way, requests, (unsigned long long)took[requests / 10],
	       (unsigned long long)took[requests / 2], (unsigned long long)took[requests * 9 / 10]);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	int cases = argc - 3, rounds, requests;

	if (cases < 1)
		return 2;
	rounds = atoi(argv[1]);
	requests = atoi(argv[2]);
	if (requests < 1 || requests > MOST)
		return 2;
	for (int round = 0; round < rounds; round++)
		for (int i = 0; i < cases; i++)
			batch(argv[3 + (round + i) % cases], requests);
	return 0;
}
