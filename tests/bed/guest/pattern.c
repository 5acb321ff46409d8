/* pattern MIB STEP_KIB: writes a word that depends on its place into every STEP of MIB of memory, reads all back. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

static uint64_t word(uint64_t at)
{
	uint64_t x = at * 0x9e3779b97f4a7c15ull + 1;

	return x ^ (x >> 29);
}

int main(int argc, char **argv)
{
	uint64_t size, step, at, bad = 0;
	char *p;

	if (argc != 3)
		return 2;
	size = strtoull(argv[1], NULL, 0) << 20;
	step = strtoull(argv[2], NULL, 0) << 10;
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	madvise(p, size, MADV_NOHUGEPAGE);
	for (at = 0; at < size; at += step)
		*(volatile uint64_t *)(p + at) = word(at);
	for (at = 0; at < size; at += step)
		bad += *(volatile uint64_t *)(p + at) != word(at);
	printf("%llu words wrong\n", (unsigned long long)bad);
	return bad != 0;
}
