/*
 * A plugin of QEMU's emulation (`-plugin layouts-count.so,out=FILE`, interface version 1) that
 * counts what one request costs a whole nested machine: each instruction of the guest, of the
 * kernel that runs KVM, and of the programs there; entries into the guest (VMRUN), and calls of
 * KVM_RUN by vmm, each of which ends with an exit to it.
 *
 * The guest's program (layouts-disk.c) marks where a request begins by a NOP that nobody else uses.
 * FILE gets a line a batch: of each count the median and where 10 and 90 % of the requests are. A
 * timer tick falls into few requests, so the median is free of it: most of a batch cost the same,
 * nearly to the instruction. A program of the machine itself (watch.c) marks a begin and an end, and
 * gets a line with all between.
 *
 * Whose an instruction is shows when QEMU first translates it: translations are kept apart by
 * privilege and by whether a guest runs. What follows VMRUN is the guest's until the instruction
 * behind VMRUN is next.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What of QEMU's interface is used here. */
#define EXPORT __attribute__((visibility("default")))
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef uint64_t qemu_plugin_id_t;
enum { NO_REGS = 0 }; /* callbacks look at no registers */
enum { ADD_U64 = 0 }; /* inline operation */
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
					   void (*cb)(qemu_plugin_id_t id,
						      struct qemu_plugin_tb *tb));
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn,
					    void (*cb)(unsigned int cpu, void *data), int flags,
					    void *data);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *insn, int op, void *at,
						uint64_t value);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t n);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
void *qemu_plugin_insn_haddr(const struct qemu_plugin_insn *insn);
EXPORT int qemu_plugin_version = 1;
EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv);

/* nopl N(%rax), of seven bytes */
static const uint8_t mark_begin[] = { 0x0f, 0x1f, 0x80, 0x01, 0x00, 0x79, 0x6c };
static const uint8_t mark_request[] = { 0x0f, 0x1f, 0x80, 0x02, 0x00, 0x79, 0x6c };
static const uint8_t mark_end[] = { 0x0f, 0x1f, 0x80, 0x03, 0x00, 0x79, 0x6c };
static const uint8_t vmrun[] = { 0x0f, 0x01, 0xd8 };
static const uint8_t kvm_run[] = { 0xbe, 0x80, 0xae, 0x00, 0x00 }; /* mov $KVM_RUN, %esi */

enum { GUEST, KERNEL, USER, ENTRIES, RUNS, COUNTS };
static const char *const names[COUNTS] = { "guest", "kernel", "vmm", "exits", "user" };

#define MOST 4096 /* requests of a batch */

static uint64_t count[COUNTS], last[COUNTS], sample[COUNTS][MOST];
static uint32_t samples;
static bool in_guest;
static char *vmrun_at; /* in QEMU's memory: nobody else's virtual address */
static FILE *out;

static void begin(unsigned int cpu, void *data)
{
	(void)cpu, (void)data;
	samples = 0;
	memcpy(last, count, sizeof(last));
}

static void request(unsigned int cpu, void *data)
{
	(void)cpu, (void)data;
	if (samples == MOST)
		return;
	for (int i = 0; i < COUNTS; i++) {
		sample[i][samples] = count[i] - last[i];
		last[i] = count[i];
	}
	samples++;
}

static int less(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void end(unsigned int cpu, void *data)
{
	(void)cpu, (void)data;
	for (int i = 0; samples && i < COUNTS; i++) {
		const uint64_t *of = sample[i];

		qsort(sample[i], samples, sizeof(of[0]), less);
		fprintf(out, "%s_p10=%llu %s_p50=%llu %s_p90=%llu ", names[i],
			(unsigned long long)of[samples / 10], names[i],
			(unsigned long long)of[samples / 2], names[i],
			(unsigned long long)of[samples * 9 / 10]);
	}
	fprintf(out, "requests=%u\n", samples);
	fflush(out);
}

static void end_of_all(unsigned int cpu, void *data)
{
	(void)cpu, (void)data;
	for (int i = 0; i < COUNTS; i++)
		fprintf(out, "%s=%llu ", i == USER ? "programs" : names[i],
			(unsigned long long)(count[i] - last[i]));
	fprintf(out, "\n");
	fflush(out);
}

static void entered(unsigned int cpu, void *data)
{
	(void)cpu, (void)data;
	in_guest = true;
}

static void left(unsigned int cpu, void *data)
{
	(void)cpu, (void)data;
	in_guest = false;
}

static bool is(const struct qemu_plugin_insn *insn, const void *bytes, size_t size)
{
	return qemu_plugin_insn_size(insn) == size &&
	       !memcmp(qemu_plugin_insn_data(insn), bytes, size);
}

#define IS(insn, bytes) is(insn, bytes, sizeof(bytes))

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	size_t n = qemu_plugin_tb_n_insns(tb);

	(void)id;
	for (size_t i = 0; i < n; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		char *at = qemu_plugin_insn_haddr(insn);
		bool user = !(qemu_plugin_insn_vaddr(insn) >> 63);

		if (vmrun_at && at == vmrun_at + sizeof(vmrun)) {
			in_guest = false;
			qemu_plugin_register_vcpu_insn_exec_cb(insn, left, NO_REGS, NULL);
		}
		qemu_plugin_register_vcpu_insn_exec_inline(insn, ADD_U64,
							   &count[in_guest ? GUEST
								  : user   ? USER
									   : KERNEL],
							   1);
		if (in_guest && user) {
			if (IS(insn, mark_begin))
				qemu_plugin_register_vcpu_insn_exec_cb(insn, begin, NO_REGS, NULL);
			else if (IS(insn, mark_request))
				qemu_plugin_register_vcpu_insn_exec_cb(insn, request, NO_REGS,
								       NULL);
			else if (IS(insn, mark_end))
				qemu_plugin_register_vcpu_insn_exec_cb(insn, end, NO_REGS, NULL);
		} else if (!in_guest && user) {
			if (IS(insn, kvm_run))
				qemu_plugin_register_vcpu_insn_exec_inline(insn, ADD_U64,
									   &count[RUNS], 1);
			else if (IS(insn, mark_begin))
				qemu_plugin_register_vcpu_insn_exec_cb(insn, begin, NO_REGS, NULL);
			else if (IS(insn, mark_end))
				qemu_plugin_register_vcpu_insn_exec_cb(insn, end_of_all, NO_REGS,
								       NULL);
		} else if (!in_guest && IS(insn, vmrun)) {
			vmrun_at = at;
			qemu_plugin_register_vcpu_insn_exec_inline(insn, ADD_U64, &count[ENTRIES],
								   1);
			qemu_plugin_register_vcpu_insn_exec_cb(insn, entered, NO_REGS, NULL);
		}
	}
}

int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
	(void)info;
	if (argc != 1 || strncmp(argv[0], "out=", 4)) {
		fprintf(stderr, "layouts-count: -plugin layouts-count.so,out=FILE\n");
		return 1;
	}
	out = fopen(argv[0] + 4, "w");
	if (!out) {
		perror(argv[0] + 4);
		return 1;
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
