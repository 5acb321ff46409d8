/* tsan
 * Interrupt objects without KVM: eventfds, pending state of vectors, sharing of lines; and, where
 * /dev/kvm opens, the routing table with the real one. Delivery into a guest is
 * tests/unit/vcpu.c's.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>

#include "vm/irq.h"
#include "vm/kvm.h"
#include "vm/layout.h"

/* What goes to KVM, or ends here while there is none: tables of routes are counted. */
static bool no_kvm, refuses;
static u32 tables, routes;

int ioctl(int fd, unsigned long request, ...)
{
	va_list list;
	void *argument;

	va_start(list, request);
	argument = va_arg(list, void *);
	va_end(list);
	if (!no_kvm)
		return (int)syscall(SYS_ioctl, fd, request, argument);
	if (request == KVM_SET_GSI_ROUTING) {
		const struct kvm_irq_routing *table = argument;

		if (refuses) {
			errno = EINVAL;
			return -1;
		}
		tables++;
		routes = table->nr;
	}
	return request == KVM_CHECK_EXTENSION ? 4096 : 0;
}

static int setup(void **state)
{
	return irq_create((struct irq **)state, NULL);
}

static int teardown(void **state)
{
	irq_destroy(*state);
	return 0;
}

static void fire(int fd)
{
	u64 one = 1;

	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
}

static u64 take(int fd)
{
	u64 count = 0;

	return read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

static u32 open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	u32 n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static void test_pending(void **state)
{
	struct irq *irq = *state;
	struct irq_msi *msi;
	int fd;

	assert_int_equal(irq_msi_create(irq, &msi), 0);
	fd = irq_msi_fd(msi);
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_false(irq_msi_pending(msi));
	fire(fd);
	assert_true(irq_msi_pending(msi));
	assert_true(irq_msi_pending(msi)); /* asking does not take it */
	/* the PBA's bit is a masked vector's only */
	assert_int_equal(irq_msi_connect(msi, LAYOUT_LAPIC, 0x40), 0);
	assert_false(irq_msi_pending(msi));
	irq_msi_disconnect(msi);
	irq_msi_clear(msi);
	assert_false(irq_msi_pending(msi));
	irq_msi_clear(msi); /* nothing there: must not wait */
	irq_msi_disconnect(msi);
	irq_msi_destroy(msi);
	irq_msi_destroy(NULL);
}

static bool flag(void *owner)
{
	return *(bool *)owner;
}

static void test_shares(void **state)
{
	struct irq *irq = *state;
	bool wants[3] = { false };
	struct irq_share shares[3];
	u32 files = open_files();

	for (int i = 0; i < 3; i++)
		shares[i] = (struct irq_share){ flag, &wants[i], NULL };
	assert_int_equal(irq_shared_fd(irq, 16), -1);
	assert_int_equal(irq_shared_resample_fd(irq, 16), -1);
	for (int i = 0; i < 3; i++)
		assert_int_equal(irq_shared_add(irq, 16, &shares[i]), 0);
	assert_true(fcntl(irq_shared_fd(irq, 16), F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(irq_shared_resample_fd(irq, 16), F_GETFL) & O_NONBLOCK);
	assert_int_equal(irq_shared_fd(irq, 17), -1);
	irq_shared_resampled(irq, 16);
	assert_int_equal(take(irq_shared_fd(irq, 16)), 0);
	for (int i = 0; i < 3; i++) {
		wants[i] = true;
		irq_shared_resampled(irq, 16);
		assert_int_equal(take(irq_shared_fd(irq, 16)), 1);
		wants[i] = false;
	}
	/* one that left has no say, in whatever order they leave */
	wants[1] = true;
	irq_shared_remove(irq, 16, &shares[1]);
	irq_shared_resampled(irq, 16);
	assert_int_equal(take(irq_shared_fd(irq, 16)), 0);
	wants[0] = true;
	irq_shared_resampled(irq, 16);
	assert_int_equal(take(irq_shared_fd(irq, 16)), 1);
	irq_shared_remove(irq, 16, &shares[2]);
	irq_shared_remove(irq, 16, &shares[0]);
	assert_int_equal(irq_shared_fd(irq, 16), -1);
	irq_shared_resampled(irq, 16);
	assert_int_equal(open_files(), files);
	/* a reset drops what is on the line */
	assert_int_equal(irq_shared_add(irq, 16, &shares[0]), 0);
	fire(irq_shared_fd(irq, 16));
	fire(irq_shared_resample_fd(irq, 16));
	irq_reset(irq);
	assert_int_equal(take(irq_shared_fd(irq, 16)), 0);
	assert_int_equal(take(irq_shared_resample_fd(irq, 16)), 0);
	irq_shared_remove(irq, 16, &shares[0]);
}

static void test_no_such_line(void **state)
{
	struct irq *irq = *state;
	struct irq_share share = { flag, NULL, NULL };

	assert_int_equal(irq_shared_add(irq, LAYOUT_GSI_COUNT, &share), -EINVAL);
	irq_shared_remove(irq, LAYOUT_GSI_COUNT, &share);
	irq_shared_resampled(irq, LAYOUT_GSI_COUNT);
	assert_int_equal(irq_shared_fd(irq, UINT32_MAX), -1);
	irq_line_set(irq, LAYOUT_GSI_COUNT, true);
	irq_line_set(irq, 4, true);
	irq_line_set(irq, 4, false);
}

/* All routes taken, some given back, all taken again. */
static void use_all(struct irq *irq, u32 at_most)
{
	struct irq_msi **msis = calloc(at_most + 1, sizeof(struct irq_msi *));
	u32 count = 0, again = 0;
	int err = 0;

	while (count <= at_most && !(err = irq_msi_create(irq, &msis[count])))
		count++;
	assert_true(err == -ENOSPC || err == -EMFILE);
	assert_true(count > 500);
	for (u32 i = 0; i < count; i += 3) {
		irq_msi_destroy(msis[i]);
		msis[i] = NULL;
		again++;
	}
	for (u32 i = 0; i < count; i += 3) {
		assert_int_equal(irq_msi_create(irq, &msis[i]), 0);
		again--;
	}
	assert_int_equal(again, 0);
	/* the first and the last of them can be routed */
	assert_int_equal(irq_msi_connect(msis[0], LAYOUT_LAPIC, 0x40), 0);
	assert_int_equal(irq_msi_connect(msis[count - 1], LAYOUT_LAPIC, 0x41), 0);
	for (u32 i = 0; i < count; i++)
		irq_msi_destroy(msis[i]);
	free(msis);
}

static void test_exhausted(void **state)
{
	u32 files = open_files();

	use_all(*state, 8192);
	assert_int_equal(open_files(), files);
}

static bool kvm_ready(struct kvm *kvm)
{
	if (access("/dev/kvm", R_OK | W_OK)) {
		print_message("skipped: /dev/kvm: %s\n", strerror(errno));
		return false;
	}
	assert_int_equal(kvm_open(kvm), 0);
	assert_int_equal(kvm_create_vm(kvm), 0);
	return true;
}

/* A reset puts back what KVM gave the VM, of which irq.c keeps no copy. */
static void test_chips_kvm(void **state)
{
	struct kvm_irqchip before[3], after[3];
	struct kvm kvm;
	struct irq *irq;

	(void)state;
	if (!kvm_ready(&kvm))
		skip();
	for (u32 i = 0; i < 3; i++) {
		before[i] = after[i] = (struct kvm_irqchip){ .chip_id = i };
		assert_int_equal(ioctl(kvm.vm, KVM_GET_IRQCHIP, &before[i]), 0);
	}
	assert_int_equal(irq_create(&irq, &kvm), 0);
	after[2] = before[2];
	after[2].chip.ioapic.redirtbl[5].bits = 0x31;
	after[2].chip.ioapic.id = 7;
	assert_int_equal(ioctl(kvm.vm, KVM_SET_IRQCHIP, &after[2]), 0);
	irq_reset(irq);
	for (u32 i = 0; i < 3; i++) {
		assert_int_equal(ioctl(kvm.vm, KVM_GET_IRQCHIP, &after[i]), 0);
		assert_memory_equal(&before[i], &after[i], sizeof(before[i]));
	}
	irq_destroy(irq);
	kvm_close(&kvm);
}

static void test_exhausted_kvm(void **state)
{
	struct kvm kvm;
	struct irq *irq;

	(void)state;
	if (!kvm_ready(&kvm))
		skip();
	assert_int_equal(irq_create(&irq, &kvm), 0);
	use_all(irq, 8192);
	irq_destroy(irq);
	kvm_close(&kvm);
}

/* An address that is none (PCI 3.0, 6.8.2 is silent on it) fails by itself and spoils no other
 * vector. */
static void test_bad_address(void **state)
{
	struct irq_msi *good, *bad;
	struct kvm kvm;
	struct irq *irq;

	(void)state;
	if (!kvm_ready(&kvm))
		skip();
	assert_int_equal(irq_create(&irq, &kvm), 0);
	assert_int_equal(irq_msi_create(irq, &good), 0);
	assert_int_equal(irq_msi_create(irq, &bad), 0);
	assert_int_equal(irq_msi_connect(bad, LAYOUT_LAPIC, 0x40), 0);
	assert_int_equal(irq_msi_connect(bad, 0xffffffffffffffff, 0xffffffff), -EINVAL);
	/* silent then, and not at its old address */
	fire(irq_msi_fd(bad));
	assert_true(irq_msi_pending(bad));
	assert_int_equal(irq_msi_connect(good, LAYOUT_LAPIC, 0x41), 0);
	assert_int_equal(irq_msi_connect(bad, LAYOUT_LAPIC, 0x42), 0);
	irq_msi_destroy(good);
	irq_msi_destroy(bad);
	irq_destroy(irq);
	kvm_close(&kvm);
}

static void test_lives_kvm(void **state)
{
	struct irq_share share = { flag, &(bool){ true }, NULL };
	u32 files = open_files();
	struct irq_msi *msi;
	struct kvm kvm;
	struct irq *irq;

	(void)state;
	for (int i = 0; i < 10; i++) {
		if (!kvm_ready(&kvm))
			skip();
		assert_int_equal(irq_create(&irq, &kvm), 0);
		assert_int_equal(irq_msi_create(irq, &msi), 0);
		for (u32 gsi = 16; gsi < 24; gsi++)
			assert_int_equal(irq_shared_add(irq, gsi, &share), 0);
		for (int j = 0; j < 20; j++) {
			assert_int_equal(irq_msi_connect(msi, LAYOUT_LAPIC, 0x40), 0);
			fire(irq_msi_fd(msi));
			fire(irq_shared_fd(irq, 16));
			irq_line_set(irq, LAYOUT_GSI_UART, true);
			irq_reset(irq);
			irq_msi_disconnect(msi);
		}
		irq_msi_destroy(msi);
		irq_destroy(irq);
		kvm_close(&kvm);
	}
	assert_int_equal(open_files(), files);
}

static void *mask_and_unmask(void *arg)
{
	struct irq_msi *msi;

	assert_int_equal(irq_msi_create(arg, &msi), 0);
	for (u32 i = 0; i < 300; i++) {
		assert_int_equal(irq_msi_connect(msi, LAYOUT_LAPIC, 0x40 + i % 8), 0);
		irq_msi_pending(msi);
		irq_msi_disconnect(msi);
		fire(irq_msi_fd(msi));
		assert_true(irq_msi_pending(msi));
		irq_msi_clear(msi);
	}
	irq_msi_destroy(msi);
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t threads[3];

	for (int i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, mask_and_unmask, *state);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
}

/* Routes that change together are one change to KVM; what is the same is none. */
static void test_routes_together(void **state)
{
	struct kvm kvm = { .vm = -1 };
	struct irq_msi *msis[64];
	const u64 nowhere = 1ull << 32;
	u32 fixed, bad = 17;
	struct irq *irq;

	(void)state;
	no_kvm = true;
	assert_int_equal(irq_create(&irq, &kvm), 0);
	for (u32 i = 0; i < 64; i++)
		assert_int_equal(irq_msi_create(irq, &msis[i]), 0);
	tables = 0;
	for (u32 round = 0; round < 3; round++) {
		/* twice the same, then others */
		u32 base = round < 2 ? 0x20 : 0x80;

		for (u32 i = 0; i < 64; i++)
			irq_msi_prepare(msis[i], LAYOUT_LAPIC, base + i);
		for (u32 i = 0; i < 64; i++)
			assert_int_equal(irq_msi_connect(msis[i], LAYOUT_LAPIC, base + i), 0);
		assert_int_equal(tables, round < 2 ? 1 : 2);
		for (u32 i = 0; i < 64; i++)
			irq_msi_disconnect(msis[i]);
	}
	fixed = routes - 64;
	/* one of them moves while it is masked, as by an affinity: one change, or none at its old
	 * place */
	assert_int_equal(irq_msi_connect(msis[5], LAYOUT_LAPIC + 0x1000, 0x33), 0);
	assert_int_equal(irq_msi_connect(msis[5], LAYOUT_LAPIC + 0x1000, 0x33), 0);
	assert_int_equal(tables, 3);
	irq_msi_disconnect(msis[5]);
	/* one whose address is none is silent, the others are not */
	for (u32 i = 0; i < 64; i++)
		irq_msi_prepare(msis[i], i == bad ? nowhere : LAYOUT_LAPIC, 0x40 + i);
	for (u32 i = 0; i < 64; i++)
		assert_int_equal(
			irq_msi_connect(msis[i], i == bad ? nowhere : LAYOUT_LAPIC, 0x40 + i),
			i == bad ? -EINVAL : 0);
	assert_int_equal(tables, 4);
	fire(irq_msi_fd(msis[bad]));
	assert_true(irq_msi_pending(msis[bad]));
	assert_int_equal(irq_msi_connect(msis[bad], LAYOUT_LAPIC, 0x3f), 0);
	assert_int_equal(routes, fixed + 64);
	/* what KVM does not take at once it is given one by one */
	for (u32 i = 0; i < 64; i++) {
		irq_msi_disconnect(msis[i]);
		irq_msi_prepare(msis[i], LAYOUT_LAPIC, 0x60 + i);
	}
	refuses = true;
	assert_int_equal(irq_msi_connect(msis[0], LAYOUT_LAPIC, 0x60), -EINVAL);
	refuses = false;
	for (u32 i = 0; i < 64; i++) {
		assert_int_equal(irq_msi_connect(msis[i], LAYOUT_LAPIC, 0x60 + i), 0);
		assert_int_equal(routes, fixed + i + 1);
	}
	for (u32 i = 0; i < 64; i++)
		irq_msi_destroy(msis[i]);
	irq_destroy(irq);
	no_kvm = false;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_pending, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shares, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_such_line, setup, teardown),
		cmocka_unit_test_setup_teardown(test_exhausted, setup, teardown),
		cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
		cmocka_unit_test(test_routes_together),
		cmocka_unit_test(test_chips_kvm),
		cmocka_unit_test(test_exhausted_kvm),
		cmocka_unit_test(test_bad_address),
		cmocka_unit_test(test_lives_kvm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
