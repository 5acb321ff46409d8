/* The guest's CPUID: topology as Intel's and AMD's manuals have a kernel decode it, frequencies,
 * and what is hidden. */
#include <errno.h>
#include <linux/kvm.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "vm/cpuid.h"

static struct kvm_cpuid2 *supported, *built;

static void add(u32 function, u32 index, u32 eax, u32 ebx, u32 ecx, u32 edx)
{
	supported->entries[supported->nent++] = (struct kvm_cpuid_entry2){
		.function = function,
		.index = index,
		.eax = eax,
		.ebx = ebx,
		.ecx = ecx,
		.edx = edx,
	};
}

static void vendor(u32 max_leaf, const char *name)
{
	u32 words[3];

	memcpy(words, name, 12);
	add(0, 0, max_leaf, words[0], words[2], words[1]);
}

/* As a host with other numbers of its own would report. */
static void make_supported(u32 max_leaf, const char *name)
{
	supported->nent = 0;
	vendor(max_leaf, name);
	add(1, 0, 0x000506e3, 0x07100800, BIT(3) | BIT(0), 0x178bfbff & ~BIT(28));
	add(4, 0, 0x1c004121, 0x01c0003f, 0x3f, 0);  /* L1d */
	add(4, 1, 0x1c03c163, 0x03c0003f, 0xfff, 6); /* L3 shared by 16 */
	add(4, 2, 0, 0, 0, 0);
	add(5, 0, 0x40, 0x40, 3, 0x1120);
	add(0xb, 0, 1, 2, 0x100, 7);
	add(0xb, 1, 4, 16, 0x201, 7);
	add(0x1f, 0, 1, 2, 0x100, 7);
	add(0x40000000, 0, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d);
	add(0x40000001, 0, 0x01007efb, 0, 0, 0);
	add(0x80000000, 0, 0x80000026, 0, 0, 0);
	add(0x80000001, 0, 0, 0, BIT(22) | 0x121, 0x2c100800);
	add(0x80000008, 0, 0x3028, 0, 0x400f, 0);
	add(0x8000001d, 3, 0x0003c163, 0x03c0003f, 0xfff, 6);
	add(0x8000001e, 0, 7, 0x107, 0x100, 0);
	add(0x80000026, 0, 1, 2, 0x100, 7);
}

static void build(u32 id, u32 cores, u32 threads, u64 tsc_khz)
{
	struct cpuid_vcpu vcpu = { .apic_id = id,
				   .cores = cores,
				   .threads = threads,
				   .tsc_khz = tsc_khz };

	memset(built, 0, sizeof(*built));
	assert_int_equal(cpuid_build(built, supported, &vcpu), 0);
}

static const struct kvm_cpuid_entry2 *leaf(u32 function, u32 index)
{
	const struct kvm_cpuid_entry2 *found = NULL;

	for (u32 i = 0; i < built->nent; i++) {
		if (built->entries[i].function != function || built->entries[i].index != index)
			continue;
		assert_null(found); /* KVM takes the first of two: there must be one */
		found = &built->entries[i];
	}
	return found;
}

/* 2 sockets of 4 cores of 2 threads, vCPU 13: socket 1, core 2, thread 1. */
static void test_intel(void **state)
{
	const struct kvm_cpuid_entry2 *e;

	(void)state;
	make_supported(0x1f, "GenuineIntel");
	build(13, 4, 2, 2400000);
	e = leaf(1, 0);
	assert_int_equal(e->ebx >> 24, 13);
	assert_int_equal(e->ebx >> 16 & 0xff, 8);
	assert_int_equal(e->ebx & 0xffff, 0x0800); /* cache line flush size stays */
	assert_true(e->edx & BIT(28));
	assert_true(e->ecx & BIT(31));
	assert_true(e->ecx & BIT(24));
	assert_true(e->ecx & BIT(21));
	assert_false(e->ecx & BIT(3));
	assert_null(leaf(5, 0));

	/* L1 is the core's, L3 the socket's; 4 cores in the socket */
	assert_int_equal(leaf(4, 0)->eax >> 14 & 0xfff, 1);
	assert_int_equal(leaf(4, 1)->eax >> 14 & 0xfff, 7);
	assert_int_equal(leaf(4, 0)->eax >> 26, 3);
	assert_int_equal(leaf(4, 1)->eax & 0x3fff, 0x0163);
	assert_int_equal(leaf(4, 2)->eax, 0);

	for (u32 function = 0xb; function; function = function == 0xb ? 0x1f : 0) {
		e = leaf(function, 0);
		assert_int_equal(e->eax, 1);
		assert_int_equal(e->ebx, 2);
		assert_int_equal(e->ecx, 0x100);
		assert_int_equal(e->edx, 13);
		e = leaf(function, 1);
		assert_int_equal(e->eax, 3);
		assert_int_equal(e->ebx, 8);
		assert_int_equal(e->ecx, 0x201);
		e = leaf(function, 2);
		assert_int_equal(e->ebx, 0);
		assert_int_equal(e->ecx, 2);
		assert_int_equal(e->edx, 13);
		assert_true(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
	}
	/* AMD's way of saying it is not used */
	assert_false(leaf(0x80000001, 0)->ecx & BIT(1));
	assert_int_equal(leaf(0x80000008, 0)->ecx, 0x400f);
}

static void test_amd(void **state)
{
	const struct kvm_cpuid_entry2 *e;

	(void)state;
	make_supported(0x10, "AuthenticAMD");
	build(13, 4, 2, 2400000);
	assert_true(leaf(0x80000001, 0)->ecx & BIT(1));
	e = leaf(0x80000008, 0);
	assert_int_equal(e->ecx & 0xff, 7);
	assert_int_equal(e->ecx >> 12 & 15, 3);
	assert_int_equal(e->eax, 0x3028);
	e = leaf(0x8000001e, 0);
	assert_int_equal(e->eax, 13);
	assert_int_equal(e->ebx, 0x102); /* core 2, two threads a core */
	assert_int_equal(e->ecx, 1);	 /* node 1 of one a socket */
	assert_int_equal(leaf(0x8000001d, 3)->eax >> 14 & 0xfff, 7);
	assert_int_equal(leaf(0xb, 1)->edx, 13);
	assert_null(leaf(0x80000026, 0));
	assert_null(leaf(0x1f, 0));
	assert_null(leaf(0x15, 0));
	assert_int_equal(leaf(0x40000010, 0)->eax, 2400000);
}

static void test_single(void **state)
{
	const struct kvm_cpuid_entry2 *e;

	(void)state;
	make_supported(0x1f, "GenuineIntel");
	supported->entries[1].edx |= BIT(28); /* the host has it */
	build(0, 1, 1, 0);
	e = leaf(1, 0);
	assert_false(e->edx & BIT(28));
	assert_int_equal(e->ebx >> 16, 1);
	assert_int_equal(leaf(4, 1)->eax >> 14, 0);
	assert_int_equal(leaf(0xb, 0)->eax, 0);
	assert_int_equal(leaf(0xb, 0)->ebx, 1);
	assert_int_equal(leaf(0xb, 1)->ebx, 1);
	/* no frequency, no leaf for it */
	assert_null(leaf(0x15, 0));
	assert_null(leaf(0x40000010, 0));
	assert_int_equal(leaf(0x40000000, 0)->eax, 0x40000001);
}

/* 254 in one socket, which is no power of two. */
static void test_many(void **state)
{
	(void)state;
	make_supported(0x1f, "GenuineIntel");
	build(253, 254, 1, 2400000);
	assert_int_equal(leaf(1, 0)->ebx >> 24, 253);
	assert_int_equal(leaf(1, 0)->ebx >> 16 & 0xff, 255);
	assert_int_equal(leaf(4, 1)->eax >> 26, 63);
	assert_int_equal(leaf(4, 1)->eax >> 14 & 0xfff, 255);
	assert_int_equal(leaf(0xb, 0)->eax, 0);
	assert_int_equal(leaf(0xb, 1)->eax, 8);
	assert_int_equal(leaf(0xb, 1)->ebx, 254);
	assert_int_equal(leaf(0x1f, 1)->edx, 253);
}

/* Every vCPU's id, decoded as leaf 0xb says, gives a place of its own. */
static void test_places(void **state)
{
	static const struct {
		u32 sockets, cores, threads;
	} shapes[] = {
		{ 1, 3, 1 }, { 1, 6, 2 }, { 2, 4, 1 }, { 3, 2, 2 }, { 1, 1, 3 }, { 4, 1, 2 }
	};

	(void)state;
	make_supported(0x1f, "GenuineIntel");
	for (size_t s = 0; s < ARRAY_SIZE(shapes); s++) {
		u32 in_core = shapes[s].threads, in_socket = in_core * shapes[s].cores;

		for (u32 id = 0; id < shapes[s].sockets * in_socket; id++) {
			u32 smt, all;

			build(id, shapes[s].cores, shapes[s].threads, 0);
			smt = leaf(0xb, 0)->eax;
			all = leaf(0xb, 1)->eax;
			if (shapes[s].sockets > 1)
				assert_int_equal(id >> all, id / in_socket);
			else
				assert_int_equal(id >> all, 0);
			assert_int_equal((id & (BIT(all) - 1)) >> smt, id % in_socket / in_core);
		}
	}
}

static void test_frequencies(void **state)
{
	const struct kvm_cpuid_entry2 *e;

	(void)state;
	make_supported(0x1f, "GenuineIntel");
	build(0, 1, 1, 2399998);
	e = leaf(0x15, 0);
	assert_int_equal((u64)e->ecx * e->ebx / e->eax, 2399998000);
	/* the crystal is the LAPIC timer's clock */
	assert_int_equal(e->ecx, 1000000000);
	e = leaf(0x40000010, 0);
	assert_int_equal(e->eax, 2399998);
	assert_int_equal(e->ebx, 1000000);
	assert_int_equal(leaf(0x40000000, 0)->eax, 0x40000010);
	assert_int_equal(leaf(0x40000000, 0)->ebx, 0x4b4d564b);
	assert_int_equal(leaf(0x40000001, 0)->eax, 0x01007efb);
	/* an old CPU's highest leaf is not raised for it */
	make_supported(0xd, "GenuineIntel");
	build(0, 1, 1, 2399998);
	assert_null(leaf(0x15, 0));
	assert_null(leaf(0x1f, 0));
	assert_int_equal(leaf(0, 0)->eax, 0xd);
	/* but for the topology it is */
	make_supported(0x4, "GenuineIntel");
	build(0, 1, 1, 0);
	assert_int_equal(leaf(0, 0)->eax, 0xb);
}

static void test_full(void **state)
{
	struct cpuid_vcpu vcpu = { .cores = 1, .threads = 1 };

	(void)state;
	make_supported(0x1f, "GenuineIntel");
	while (supported->nent < CPUID_MAX_ENTRIES)
		add(0xd, supported->nent, 0, 0, 0, 0);
	/* two 0xb, a 0x1f, 5 and 0x80000026 go, six come */
	assert_int_equal(cpuid_build(built, supported, &vcpu), -ENOSPC);
	/* and a host of which nothing is known */
	supported->nent = 0;
	assert_int_equal(cpuid_build(built, supported, &vcpu), 0);
	assert_int_equal(built->nent, 3);
}

static int setup(void **state)
{
	(void)state;
	supported = cpuid_alloc();
	built = cpuid_alloc();
	return supported && built ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	free(supported);
	free(built);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_intel),  cmocka_unit_test(test_amd),
		cmocka_unit_test(test_single), cmocka_unit_test(test_many),
		cmocka_unit_test(test_places), cmocka_unit_test(test_frequencies),
		cmocka_unit_test(test_full),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
