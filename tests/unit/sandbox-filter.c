/*
 * Filter programs, run by a small interpreter here: against what their lists say, and against what
 * libseccomp makes of the same lists, over calls and arguments round every boundary.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "vm/sandbox-filter.h"

#define LOW 0xffffffffu
#define A   BIT(0)
#define B   BIT(1)

static const struct filter_rule rules[] = {
	{ SYS_read, A | B, 0, {} },
	{ SYS_write, A, 0, {} },
	{ SYS_mmap, A | B, 2, { { 2, PROT_EXEC, 0 }, { 3, MAP_ANONYMOUS, MAP_ANONYMOUS } } },
	{ SYS_mprotect, A, 1, { { 2, PROT_EXEC, 0 } } },
	{ SYS_fcntl, A, 1, { { 1, LOW, 3 } } },
	{ SYS_fcntl, A | B, 1, { { 1, LOW, 4 } } },
	{ SYS_fcntl, B, 2, { { 1, LOW, 5 }, { 0, LOW, 7 } } },
	{ SYS_exit_group, A | B, 0, {} },
};
static const struct filter_rule more[] = {
	{ SYS_tgkill, B, 1, { { 0, LOW, 1234 } } },
};
static const struct filter_rules lists[] = { { rules, ARRAY_SIZE(rules) },
					     { more, ARRAY_SIZE(more) } };
static const struct filter_ioctl ioctls[] = { { 0xae80, A },
					      { 0x4020ae76, A | B },
					      { 0xfffffff0, B } };

static u32 run(const struct sock_filter *code, u32 length, const struct seccomp_data *data)
{
	u32 a = 0;

	for (u32 pc = 0, steps = 0; steps < 100000; steps++) {
		const struct sock_filter *i = &code[pc++];

		assert_true(pc <= length);
		switch (i->code) {
		case BPF_LD | BPF_W | BPF_ABS:
			assert_true(i->k % 4 == 0 && i->k <= sizeof(*data) - 4);
			memcpy(&a, (const u8 *)data + i->k, 4);
			break;
		case BPF_ALU | BPF_AND | BPF_K:
			a &= i->k;
			break;
		case BPF_JMP | BPF_JA:
			pc += i->k;
			break;
		case BPF_JMP | BPF_JEQ | BPF_K:
			pc += a == i->k ? i->jt : i->jf;
			break;
		case BPF_JMP | BPF_JGE | BPF_K:
			pc += a >= i->k ? i->jt : i->jf;
			break;
		case BPF_JMP | BPF_JGT | BPF_K:
			pc += a > i->k ? i->jt : i->jf;
			break;
		case BPF_RET | BPF_K:
			return i->k & SECCOMP_RET_ACTION_FULL;
		default:
			fail_msg("instruction %u: code 0x%x", pc - 1, i->code);
		}
	}
	fail_msg("it does not end");
	return 0;
}

static struct scmp_arg_cmp compare(const struct filter_condition *c)
{
	return (struct scmp_arg_cmp){ c->argument, SCMP_CMP_MASKED_EQ, c->mask, c->value };
}

/* The same lists through libseccomp. */
static u32 reference(u8 kind, struct sock_filter *code)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_TRAP);
	int fd = memfd_create("bpf", 0);
	ssize_t n;

	assert_non_null(ctx);
	assert_int_equal(seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS), 0);
	for (size_t l = 0; l < ARRAY_SIZE(lists); l++) {
		for (u32 i = 0; i < lists[l].count; i++) {
			const struct filter_rule *r = &lists[l].list[i];
			struct scmp_arg_cmp args[2] = { compare(&r->condition[0]),
							compare(&r->condition[1]) };

			if (r->kinds & kind)
				assert_int_equal(seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW,
									r->call, r->conditions,
									args),
						 0);
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(ioctls); i++)
		if (ioctls[i].kinds & kind)
			assert_int_equal(seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SYS_ioctl, 1,
							  SCMP_A1(SCMP_CMP_MASKED_EQ, LOW,
								  ioctls[i].request)),
					 0);
	assert_int_equal(seccomp_export_bpf(ctx, fd), 0);
	n = pread(fd, code, 4096 * sizeof(*code), 0);
	assert_true(n > 0);
	close(fd);
	seccomp_release(ctx);
	return (u32)((size_t)n / sizeof(*code));
}

static void test_as_libseccomp(void **state)
{
	static const u64 values[] = { 0,	  1,	      2,	   3,		4,
				      5,	  7,	      8,	   0x20,	0x24,
				      1233,	  1234,	      1235,	   0xae7f,	0xae80,
				      0x4020ae76, 0xfffffff0, 0x10000ae80, 0x100000003, ~0ull };
	static const u32 archs[] = { AUDIT_ARCH_X86_64, AUDIT_ARCH_I386, AUDIT_ARCH_AARCH64, 0 };
	static const u32 bits[] = { 0, 0x40000000, 0x80000000 };
	static struct sock_filter code[4096];
	static struct filter filter;
	u32 compared = 0, allowed = 0;

	(void)state;
	for (u8 kind = A; kind <= B; kind++) {
		u32 length = reference(kind, code);

		assert_int_equal(filter_build(&filter, kind, ioctls, ARRAY_SIZE(ioctls), lists,
					      ARRAY_SIZE(lists)),
				 0);
		for (u32 n = 0; n < 600 * ARRAY_SIZE(bits); n++) {
			struct seccomp_data data = { .nr = (int)(n / 3 | bits[n % 3]) };

			for (u32 v = 0; v < 4 * 400; v++) {
				u32 ours, theirs;

				data.arch = archs[v % 4];
				for (u32 k = 0; k < 6; k++)
					data.args[k] = values[(v / 4 / 20 + k * (v / 4)) % 20];
				ours = run(filter.code, filter.length, &data);
				theirs = run(code, length, &data);
				if (ours != theirs)
					fail_msg("kind %u call 0x%x arch 0x%x: 0x%x, libseccomp "
						 "0x%x",
						 kind, (u32)data.nr, data.arch, ours, theirs);
				compared++;
				allowed += ours == SECCOMP_RET_ALLOW;
			}
		}
	}
	print_message("%u compared, %u of them allowed\n", compared, allowed);
	assert_true(allowed > 1000);
}

static u32 ask(const struct filter *f, int call, u64 arg0, u64 arg1)
{
	const struct seccomp_data data = { .nr = call,
					   .arch = AUDIT_ARCH_X86_64,
					   .args = { arg0, arg1 } };

	return run(f->code, f->length, &data);
}

static void test_ioctls(void **state)
{
	static struct filter filter;

	(void)state;
	assert_int_equal(filter_build(&filter, A, ioctls, ARRAY_SIZE(ioctls), lists, 2), 0);
	assert_int_equal(ask(&filter, SYS_ioctl, 3, 0xae80), SECCOMP_RET_ALLOW);
	/* the kernel takes the lower half only */
	assert_int_equal(ask(&filter, SYS_ioctl, 3, 0xffffffff0000ae80), SECCOMP_RET_ALLOW);
	assert_int_equal(ask(&filter, SYS_ioctl, 0xae80, 0), SECCOMP_RET_TRAP);
	assert_int_equal(ask(&filter, SYS_ioctl, 3, 0xfffffff0), SECCOMP_RET_TRAP);
	assert_int_equal(filter_build(&filter, B, ioctls, ARRAY_SIZE(ioctls), lists, 2), 0);
	assert_int_equal(ask(&filter, SYS_ioctl, 3, 0xae80), SECCOMP_RET_TRAP);
	assert_int_equal(ask(&filter, SYS_ioctl, 3, 0xfffffff0), SECCOMP_RET_ALLOW);
}

/* A list that is too long is refused, not cut short. */
static void test_too_long(void **state)
{
	static struct filter filter;
	struct filter_rule *many = calloc(FILTER_MAX, sizeof(*many));
	const struct filter_rules list = { many, FILTER_MAX };

	(void)state;
	for (u32 i = 0; i < FILTER_MAX; i++)
		many[i] = (struct filter_rule){ (u16)i, A, 0, {} };
	assert_int_equal(filter_build(&filter, A, ioctls, 1, &list, 1), -E2BIG);
	free(many);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ioctls),
		cmocka_unit_test(test_as_libseccomp),
		cmocka_unit_test(test_too_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
