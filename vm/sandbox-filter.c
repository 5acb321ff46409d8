/*
 * Seccomp programs for the sandbox: classic BPF over struct seccomp_data.
 *
 * A straight line of questions. Calls with conditions come first and ioctl(2) before all, because
 * those run this program each time; a call that is allowed whatever its arguments is looked up once
 * by the kernel, which then remembers it (since 5.11), so its place costs nothing.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "vm/sandbox-filter.h"

/* Calls by the x32 interface carry this bit (asm/unistd.h). */
#define X32_BIT 0x40000000u

#define LOAD(field) (u32) offsetof(struct seccomp_data, field)

static void emit(struct filter *filter, u16 code, u8 if_true, u8 if_false, u32 k)
{
	if (filter->length < FILTER_MAX)
		filter->code[filter->length] = (struct sock_filter){ code, if_true, if_false, k };
	filter->length++;
}

static void load(struct filter *filter, u32 offset)
{
	emit(filter, BPF_LD | BPF_W | BPF_ABS, 0, 0, offset);
}

static void answer(struct filter *filter, u32 action)
{
	emit(filter, BPF_RET | BPF_K, 0, 0, action);
}

/* The low half: this machine is little-endian. */
static void load_argument(struct filter *filter, u32 number)
{
	load(filter, LOAD(args) + number * (u32)sizeof(u64));
}

static void put_ioctls(struct filter *filter, u8 kind, const struct filter_ioctl *ioctls, u32 count)
{
	u32 skip;

	/* further than a conditional jump reaches */
	emit(filter, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, SYS_ioctl);
	skip = filter->length;
	emit(filter, BPF_JMP | BPF_JA, 0, 0, 0);
	load_argument(filter, 1);
	for (u32 i = 0; i < count; i++) {
		if (!(ioctls[i].kinds & kind))
			continue;
		emit(filter, BPF_JMP | BPF_JEQ | BPF_K, 0, 1, ioctls[i].request);
		answer(filter, SECCOMP_RET_ALLOW);
	}
	answer(filter, SECCOMP_RET_TRAP);
	if (skip < FILTER_MAX)
		filter->code[skip].k = filter->length - skip - 1;
}

/* Goes on behind itself, the number loaded, if the rule does not allow the call. */
static void put_rule(struct filter *filter, const struct filter_rule *rule)
{
	/* of the instructions between the first question and the rule's end */
	u8 left = (u8)(rule->conditions ? 3 * rule->conditions + 2 : 1);

	emit(filter, BPF_JMP | BPF_JEQ | BPF_K, 0, left, rule->call);
	for (u32 i = 0; i < rule->conditions; i++) {
		const struct filter_condition *c = &rule->condition[i];

		load_argument(filter, c->argument);
		emit(filter, BPF_ALU | BPF_AND | BPF_K, 0, 0, c->mask);
		/* to where the number is loaded again */
		emit(filter, BPF_JMP | BPF_JEQ | BPF_K, 0, (u8)(3 * (rule->conditions - i - 1) + 1),
		     c->value);
	}
	answer(filter, SECCOMP_RET_ALLOW);
	if (rule->conditions)
		load(filter, LOAD(nr));
}

static void put_rules(struct filter *filter, u8 kind, const struct filter_rules *rules, u32 count,
		      bool conditional)
{
	for (u32 i = 0; i < count; i++) {
		for (u32 j = 0; j < rules[i].count; j++) {
			const struct filter_rule *rule = &rules[i].list[j];

			if (rule->kinds & kind && !!rule->conditions == conditional)
				put_rule(filter, rule);
		}
	}
}

int filter_build(struct filter *filter, u8 kind, const struct filter_ioctl *ioctls, u32 ioctl_count,
		 const struct filter_rules *rules, u32 rules_count)
{
	filter->length = 0;
	load(filter, LOAD(arch));
	emit(filter, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, AUDIT_ARCH_X86_64);
	answer(filter, SECCOMP_RET_KILL_PROCESS);
	load(filter, LOAD(nr));
	emit(filter, BPF_JMP | BPF_JGE | BPF_K, 0, 1, X32_BIT);
	answer(filter, SECCOMP_RET_KILL_PROCESS);
	put_ioctls(filter, kind, ioctls, ioctl_count);
	put_rules(filter, kind, rules, rules_count, true);
	put_rules(filter, kind, rules, rules_count, false);
	answer(filter, SECCOMP_RET_TRAP);
	return filter->length <= FILTER_MAX ? 0 : -E2BIG;
}

int filter_enter(const struct filter *filter)
{
	const struct sock_fprog program = { (unsigned short)filter->length,
					    (struct sock_filter *)filter->code };

	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) ? -errno : 0;
}
