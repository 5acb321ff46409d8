/*
 * Prints the kHz of this CPU's time-stamp counter, which is what an emulated CPU counts by. A nested kernel that
 * calibrates it for itself on a busy machine may be wrong many times over, and all its time limits with it.
 */
#include <stdint.h>
#include <stdio.h>
#include <time.h>

/* Clock and counter at one moment: the pair that was read quickest of many. */
static void look(uint64_t *ns, uint64_t *ticks)
{
	uint64_t best = UINT64_MAX;

	for (int i = 0; i < 1000; i++) {
		uint64_t before = __builtin_ia32_rdtsc(), after;
		struct timespec t;

		clock_gettime(CLOCK_MONOTONIC, &t);
		after = __builtin_ia32_rdtsc();
		if (after - before >= best)
			continue;
		best = after - before;
		*ticks = before + best / 2;
		*ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
	}
}

int main(void)
{
	const struct timespec wait = { 0, 200000000 };
	uint64_t ns1, ticks1, ns2, ticks2;

	look(&ns1, &ticks1);
	nanosleep(&wait, NULL);
	look(&ns2, &ticks2);
	printf("%llu\n", (unsigned long long)((ticks2 - ticks1) * 1000000 / (ns2 - ns1)));
	return 0;
}
