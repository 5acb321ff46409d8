/* MSI-X: table and pending bits at every width, masks, what is fired while masked and delivered on
 * unmask. */
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include "tests/unit/pci-machine.h"
#include "vm/kvm.h"

#define VECTORS 70
#define TABLE	0x1000
#define PBA	0x2000
#define BAR	2
#define MASKED	PCI_MSIX_ENTRY_CTRL_MASKBIT

struct device {
	struct pci_function function;
	unsigned int reads, writes;
	int enables;
	bool wants;
};

static u64 device_read(struct pci_function *function, unsigned int bar, u64 offset,
		       unsigned int size)
{
	struct device *device = function->owner;

	(void)bar;
	(void)offset;
	(void)size;
	device->reads++;
	return 0;
}

static void device_write(struct pci_function *function, unsigned int bar, u64 offset,
			 unsigned int size, u64 value)
{
	struct device *device = function->owner;

	(void)bar;
	(void)offset;
	(void)size;
	(void)value;
	device->writes++;
}

static void device_enabled(struct pci_function *function, bool on)
{
	struct device *device = function->owner;

	device->enables += on ? 1 : -1;
	assert_int_equal(pci_msix_enabled(function), on);
}

static const struct pci_function_ops device_ops = {
	.bar_read = device_read,
	.bar_write = device_write,
	.msix_enabled = device_enabled,
};

static bool device_wants(struct pci_function *function)
{
	return ((struct device *)function->owner)->wants;
}

static struct pci_machine machine;
static u64 bar;
static u32 capability;

static int up(void **state)
{
	struct device *device = calloc(1, sizeof(*device));
	struct pci_function *function = &device->function;

	pci_machine_up(&machine);
	function->ops = &device_ops;
	function->owner = device;
	function->name = "test";
	function->interrupt_status = device_wants;
	function->bars[BAR] = (struct pci_bar){ .kind = PCI_BAR_MEM64, .size = KIB(16) };
	pci_function_init(function, &(struct pci_id){ .vendor = 0x1af4 });
	assert_int_equal(pci_msix_init(function, machine.irq, BAR, TABLE, PBA, VECTORS), 0);
	assert_int_equal(pci_function_plug(machine.host, function, 0), 0);
	command(&machine, 1, PCI_COMMAND_MEMORY);
	bar = bar_address(&machine, 1, BAR);
	capability = find_capability(&machine, 1, PCI_CAP_ID_MSIX, 0);
	*state = device;
	return 0;
}

static int down(void **state)
{
	struct device *device = *state;

	pci_function_unplug(&device->function);
	pci_function_destroy(&device->function);
	free(device);
	pci_machine_down(&machine);
	return 0;
}

static u64 get(u64 offset, unsigned int size)
{
	return bus_read(machine.bus, BUS_MMIO, bar + offset, size);
}

static void put(u64 offset, unsigned int size, u64 value)
{
	bus_write(machine.bus, BUS_MMIO, bar + offset, size, value);
}

static void control(u16 bits)
{
	config_put(&machine, 1, capability + PCI_MSIX_FLAGS, 2, bits);
}

static void mask(u32 vector, bool on)
{
	put(TABLE + 16 * vector + PCI_MSIX_ENTRY_VECTOR_CTRL, 4, on);
}

static bool pending(u32 vector)
{
	return get(PBA + vector / 64 * 8, 8) >> vector % 64 & 1;
}

static void fire(struct device *device, u16 vector)
{
	assert_int_equal(eventfd_write(pci_msix_fd(&device->function, vector), 1), 0);
}

/* Connected: an interrupt goes out instead of waiting. Without KVM the eventfd keeps it; it is
 * taken here. */
static bool delivered(struct device *device, u16 vector)
{
	fire(device, vector);
	if (pending(vector)) {
		taken(pci_msix_fd(&device->function, vector));
		return false;
	}
	assert_int_equal(taken(pci_msix_fd(&device->function, vector)), 1);
	return true;
}

static void capability_fields(void **state)
{
	struct device *device = *state;

	assert_int_not_equal(capability, 0);
	assert_int_equal(config_get(&machine, 1, capability + PCI_MSIX_FLAGS, 2), VECTORS - 1);
	assert_int_equal(config_get(&machine, 1, capability + PCI_MSIX_TABLE, 4), TABLE | BAR);
	assert_int_equal(config_get(&machine, 1, capability + PCI_MSIX_PBA, 4), PBA | BAR);
	control(0xffff);
	assert_int_equal(config_get(&machine, 1, capability + PCI_MSIX_FLAGS, 2),
			 (VECTORS - 1) | PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	config_put(&machine, 1, capability + PCI_MSIX_TABLE, 4, 0xffffffff);
	assert_int_equal(config_get(&machine, 1, capability + PCI_MSIX_TABLE, 4), TABLE | BAR);
	assert_int_equal(pci_msix_vectors(&device->function), VECTORS);
	assert_int_equal(pci_msix_fd(&device->function, VECTORS), -1);
	assert_true(pci_msix_fd(&device->function, VECTORS - 1) >= 0);
}

static void table_access(void **state)
{
	struct device *device = *state;

	for (u32 i = 0; i < VECTORS; i++) {
		u32 at = TABLE + 16 * i;

		assert_int_equal(get(at + 12, 4), MASKED);
		put(at, 4, 0xfee00000 | i << 12 | 3);
		put(at + 4, 4, i);
		put(at + 8, 4, 0x4000 + i);
		put(at + 12, 4, 0xffffffff); /* reserved bits stay zero */
	}
	for (u32 i = 0; i < VECTORS; i++) {
		u32 at = TABLE + 16 * i, low = 0xfee00000 | i << 12;

		assert_int_equal(get(at, 4), low); /* the two low bits are zero */
		assert_true(get(at, 8) == (low | (u64)i << 32));
		assert_true(get(at + 8, 8) == ((0x4000 + i) | (u64)MASKED << 32));
		assert_int_equal(get(at + 1, 1), low >> 8 & 0xff);
		assert_int_equal(get(at + 10, 2), 0);
	}
	put(TABLE, 8, 0x1122334455667788ull);
	assert_true(get(TABLE, 8) == 0x1122334455667788ull);
	put(TABLE + 8, 8, 0xcafe);
	assert_int_equal(get(TABLE + 8, 4), 0xcafe);
	assert_int_equal(get(TABLE + 12, 4), 0);
	/* undefined by the standard: nothing changes */
	put(TABLE, 1, 0xff);
	put(TABLE + 2, 2, 0xffff);
	put(TABLE + 2, 4, 0xffffffff);
	put(TABLE + 4, 8, ~0ull);
	assert_true(get(TABLE, 8) == 0x1122334455667788ull);
	assert_int_equal(get(TABLE + 8, 4), 0xcafe);
	assert_int_equal(device->reads + device->writes, 0);
	/* beyond the last entry the device answers, beyond nothing of ours is read */
	get(TABLE + 16 * VECTORS, 4);
	put(TABLE + 16 * VECTORS, 8, ~0ull);
	assert_int_equal(device->reads, 1);
	assert_int_equal(device->writes, 1);
	assert_int_equal(get(TABLE + 16 * VECTORS - 2, 8), 0);
	assert_int_equal(get(PBA + 16 - 1, 8), 0);
}

static void pending_bits(void **state)
{
	struct device *device = *state;

	control(PCI_MSIX_FLAGS_ENABLE);
	fire(device, 0);
	fire(device, 33);
	fire(device, VECTORS - 1);
	assert_true(get(PBA, 8) == (BIT64(33) | 1));
	assert_int_equal(get(PBA, 4), 1);
	assert_int_equal(get(PBA + 4, 4), 2);
	assert_int_equal(get(PBA + 4, 1), 2);
	assert_int_equal(get(PBA + 8, 8), BIT(VECTORS - 1 - 64));
	/* read-only */
	put(PBA, 8, 0);
	put(PBA + 8, 4, ~0u);
	assert_true(get(PBA, 8) == (BIT64(33) | 1));
	assert_int_equal(device->writes, 0);
	/* delivered on unmask, once */
	mask(33, false);
	assert_false(pending(33));
	assert_int_equal(taken(pci_msix_fd(&device->function, 33)), 1);
	mask(33, true);
	assert_false(pending(33));
	assert_true(pending(0));
}

static void masks(void **state)
{
	struct device *device = *state;

	mask(5, false);
	assert_false(delivered(device, 5)); /* not enabled */
	control(PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	assert_false(delivered(device, 5)); /* function mask */
	control(PCI_MSIX_FLAGS_ENABLE);
	assert_true(delivered(device, 5));
	assert_false(delivered(device, 6)); /* its own mask */
	mask(6, false);
	assert_true(delivered(device, 6));
	mask(5, true);
	assert_false(delivered(device, 5));
	/* function mask over an unmasked vector: waits, goes out when it is lifted */
	control(PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	fire(device, 6);
	assert_true(pending(6));
	control(PCI_MSIX_FLAGS_ENABLE);
	assert_false(pending(6));
	taken(pci_msix_fd(&device->function, 6));
	/* address and data of an unmasked entry: still connected */
	put(TABLE + 16 * 6, 8, 0xfee01000);
	put(TABLE + 16 * 6 + 8, 4, 0x42);
	assert_true(delivered(device, 6));
	/* byte write of Message Control's upper half */
	config_put(&machine, 1, capability + PCI_MSIX_FLAGS + 1, 1, 0);
	assert_false(delivered(device, 6));
	assert_int_equal(device->enables, 0);
	config_put(&machine, 1, capability + PCI_MSIX_FLAGS + 1, 1, PCI_MSIX_FLAGS_ENABLE >> 8);
	assert_true(delivered(device, 6));
	assert_int_equal(device->enables, 1);
}

/* What was fired before MSI-X was on is not delivered when it goes on. */
static void stale(void **state)
{
	struct device *device = *state;

	mask(1, false);
	fire(device, 1);
	control(PCI_MSIX_FLAGS_ENABLE);
	assert_int_equal(taken(pci_msix_fd(&device->function, 1)), 0);
}

static void intx_gives_way(void **state)
{
	struct device *device = *state;
	int line = pci_intx_fd(&device->function);

	device->wants = true;
	assert_true(pci_intx_allowed(&device->function));
	control(PCI_MSIX_FLAGS_ENABLE);
	assert_false(pci_intx_allowed(&device->function));
	assert_int_equal(config_get(&machine, 1, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, 0);
	pci_intx_changed(&device->function);
	assert_int_equal(taken(line), 0);
	control(0);
	assert_int_equal(taken(line), 1);
	assert_int_equal(config_get(&machine, 1, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT,
			 PCI_STATUS_INTERRUPT);
}

static void power_on(void **state)
{
	struct device *device = *state;

	put(TABLE + 32, 8, 0xfee00000);
	put(TABLE + 40, 8, 0x77);
	fire(device, 9);
	control(PCI_MSIX_FLAGS_ENABLE);
	fire(device, 9);
	assert_true(delivered(device, 2));
	pci_function_reset(&device->function);
	assert_int_equal(device->enables, 0);
	command(&machine, 1, PCI_COMMAND_MEMORY);
	assert_int_equal(config_get(&machine, 1, capability + PCI_MSIX_FLAGS, 2), VECTORS - 1);
	assert_int_equal(get(TABLE + 32, 8), 0);
	assert_true(get(TABLE + 40, 8) == (u64)MASKED << 32);
	assert_false(pending(9));
	assert_false(delivered(device, 2));
}

static void bad_arguments(void **state)
{
	struct pci_function function = { .ops = &device_ops, .name = "bad" };

	(void)state;
	pci_function_init(&function, &(struct pci_id){ .vendor = 1 });
	assert_int_equal(pci_msix_init(&function, machine.irq, 2, 0, 0x1000, 0), -EINVAL);
	assert_int_equal(pci_msix_init(&function, machine.irq, 2, 0, 0x1000, PCI_MSIX_MAX + 1),
			 -EINVAL);
	assert_int_equal(pci_msix_init(&function, machine.irq, 6, 0, 0x1000, 1), -EINVAL);
	assert_int_equal(pci_msix_init(&function, machine.irq, 2, 4, 0x1000, 1), -EINVAL);
	assert_int_equal(pci_msix_vectors(&function), 0);
	assert_int_equal(pci_msix_fd(&function, 0), -1);
	assert_false(pci_msix_enabled(&function));
	/* no room for the capability: nothing is left behind */
	while (pci_capability_add(&function, PCI_CAP_ID_VNDR, PCI_CAP_MSIX_SIZEOF) >= 0)
		;
	assert_int_equal(pci_msix_init(&function, machine.irq, 2, 0, 0x1000, 4), -ENOSPC);
	assert_int_equal(pci_msix_vectors(&function), 0);
	pci_function_destroy(&function);
}

/* A VM that takes everything: what it is asked is counted. */
static struct kvm kvm = { .vm = -1 };
static u32 tables;

int ioctl(int fd, unsigned long request, ...)
{
	assert_int_equal(fd, -1);
	if (request == KVM_SET_GSI_ROUTING)
		tables++;
	return 0;
}

/* Vectors that begin to count together cost one change of KVM's table, or none if it has them. */
static void routes_together(void **state)
{
	static struct device device;
	struct pci_function *function = &device.function;
	struct irq *irq;

	(void)state;
	function->ops = &device_ops;
	function->owner = &device;
	function->name = "other";
	function->bars[BAR] = (struct pci_bar){ .kind = PCI_BAR_MEM64, .size = KIB(16) };
	function->interrupt_status = device_wants;
	pci_function_init(function, &(struct pci_id){ .vendor = 0x1af4 });
	assert_int_equal(irq_create(&irq, &kvm), 0);
	assert_int_equal(pci_msix_init(function, irq, BAR, TABLE, PBA, VECTORS), 0);
	assert_int_equal(pci_function_plug(machine.host, function, 0), 0);
	command(&machine, 2, PCI_COMMAND_MEMORY);
	bar = bar_address(&machine, 2, BAR);
	capability = find_capability(&machine, 2, PCI_CAP_ID_MSIX, 0);
	for (u32 round = 1; round <= 2; round++) {
		config_put(&machine, 2, capability + PCI_MSIX_FLAGS, 2,
			   PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
		for (u32 i = 0; i < VECTORS; i++) {
			put(TABLE + 16 * i, 8, 0xfee00000);
			put(TABLE + 16 * i + 8, 4, 0x20 * round + i);
			mask(i, i % 10 == 9);
		}
		assert_int_equal(tables, round - 1);
		for (u32 again = 0; again < 2; again++) {
			config_put(&machine, 2, capability + PCI_MSIX_FLAGS, 2,
				   PCI_MSIX_FLAGS_ENABLE);
			assert_int_equal(tables, round);
			config_put(&machine, 2, capability + PCI_MSIX_FLAGS, 2,
				   PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
		}
	}
	pci_function_unplug(function);
	pci_function_destroy(function);
	irq_destroy(irq);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(capability_fields, up, down),
		cmocka_unit_test_setup_teardown(table_access, up, down),
		cmocka_unit_test_setup_teardown(pending_bits, up, down),
		cmocka_unit_test_setup_teardown(masks, up, down),
		cmocka_unit_test_setup_teardown(stale, up, down),
		cmocka_unit_test_setup_teardown(intx_gives_way, up, down),
		cmocka_unit_test_setup_teardown(power_on, up, down),
		cmocka_unit_test_setup_teardown(bad_arguments, up, down),
		cmocka_unit_test_setup_teardown(routes_together, up, down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
