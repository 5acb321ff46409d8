/* The host bridge: the 0xcf8 latch, 0xcfc and ECAM byte for byte, slots, first addresses. */
#include "tests/unit/pci-machine.h"

#define ADDRESS LAYOUT_PORT_PCI_ADDRESS
#define DATA	LAYOUT_PORT_PCI_DATA
#define ENABLE	0x80000000u

static u64 quiet_read(struct pci_function *function, unsigned int bar, u64 offset,
		      unsigned int size)
{
	(void)function;
	(void)bar;
	(void)offset;
	(void)size;
	return 0;
}

static void quiet_write(struct pci_function *function, unsigned int bar, u64 offset,
			unsigned int size, u64 value)
{
	(void)function;
	(void)bar;
	(void)offset;
	(void)size;
	(void)value;
}

static const struct pci_function_ops quiet_ops = { .bar_read = quiet_read,
						   .bar_write = quiet_write };

static const struct pci_id some_id = {
	.vendor = 0x1af4,
	.device = 0x1001,
	.subsystem_vendor = 0x1af4,
	.subsystem = 2,
	.revision = 7,
	.class_code = 0x010203,
};

static struct pci_function *make(u64 io_size, u64 memory_size)
{
	struct pci_function *function = calloc(1, sizeof(*function));

	function->ops = &quiet_ops;
	function->name = "test";
	if (io_size)
		function->bars[0] = (struct pci_bar){ .kind = PCI_BAR_IO, .size = io_size };
	if (memory_size) {
		function->bars[1] = (struct pci_bar){ .kind = PCI_BAR_MEM32, .size = memory_size };
		function->bars[2] = (struct pci_bar){ .kind = PCI_BAR_MEM64, .size = memory_size };
	}
	pci_function_init(function, &some_id);
	return function;
}

static void drop(struct pci_function *function)
{
	pci_function_unplug(function);
	pci_function_destroy(function);
	free(function);
}

static struct pci_machine machine;

static int up(void **state)
{
	(void)state;
	pci_machine_up(&machine);
	return 0;
}

static int down(void **state)
{
	(void)state;
	pci_machine_down(&machine);
	return 0;
}

static u32 in(u64 port, unsigned int size)
{
	return (u32)bus_read(machine.bus, BUS_PIO, port, size);
}

static void out(u64 port, unsigned int size, u32 value)
{
	bus_write(machine.bus, BUS_PIO, port, size, value);
}

static void bridge(void **state)
{
	(void)state;
	assert_int_equal(config_get(&machine, 0, PCI_VENDOR_ID, 4), 0x00081b36);
	assert_int_equal(config_get(&machine, 0, PCI_CLASS_REVISION, 4), 0x06000000);
	assert_int_equal(config_get(&machine, 0, PCI_INTERRUPT_PIN, 1), 0);
	assert_int_equal(config_get(&machine, 0, PCI_HEADER_TYPE, 1), 0);
	config_put(&machine, 0, PCI_VENDOR_ID, 4, 0);
	assert_int_equal(config_get(&machine, 0, PCI_VENDOR_ID, 4), 0x00081b36);
}

/* The latch takes 32-bit accesses at its address only, and has reserved bits. */
static void latch(void **state)
{
	(void)state;
	out(ADDRESS, 4, 0xffffffff);
	assert_int_equal(in(ADDRESS, 4), 0x80fffffc);
	out(ADDRESS, 4, ENABLE | 0x3c);
	out(ADDRESS + 3, 1, 1); /* Linux's probe for mechanism #2 */
	out(ADDRESS, 1, 0x55);
	out(ADDRESS, 2, 0x5555);
	out(ADDRESS + 2, 2, 0x5555);
	assert_int_equal(in(ADDRESS, 4), ENABLE | 0x3c);
	assert_int_equal(in(ADDRESS, 1), 0xff);
	assert_int_equal(in(ADDRESS, 2), 0xffff);
	assert_int_equal(in(ADDRESS + 3, 1), 0xff);
	pci_host_reset(machine.host);
	assert_int_equal(in(ADDRESS, 4), 0);
}

static void data_bytes(void **state)
{
	struct pci_function *function = make(64, KIB(4));

	(void)state;
	assert_int_equal(pci_function_plug(machine.host, function, 0), 0);
	for (u32 reg = 0; reg < 256; reg += 4) {
		u32 dword = config_get(&machine, 1, reg, 4);

		out(ADDRESS, 4, ENABLE | 1 << 11 | reg);
		assert_int_equal(in(DATA, 4), dword);
		for (u32 i = 0; i < 4; i++) {
			assert_int_equal(in(DATA + i, 1), dword >> 8 * i & 0xff);
			assert_int_equal(config_get(&machine, 1, reg + i, 1),
					 dword >> 8 * i & 0xff);
		}
		for (u32 i = 0; i < 3; i++)
			assert_int_equal(in(DATA + i, 2), dword >> 8 * i & 0xffff);
	}
	/* Byte writes reach their byte alone. */
	out(ADDRESS, 4, ENABLE | 1 << 11 | PCI_INTERRUPT_LINE);
	out(DATA, 4, 0xffffffff);
	assert_int_equal(in(DATA, 4), 0x000001ff);
	out(ADDRESS, 4, ENABLE | 1 << 11 | PCI_CACHE_LINE_SIZE);
	out(DATA + 1, 1, 0xff); /* latency timer: read-only */
	out(DATA, 1, 0x10);
	assert_int_equal(in(DATA, 2), 0x10);
	out(ADDRESS, 4, ENABLE | 1 << 11 | PCI_COMMAND);
	out(DATA + 1, 1, PCI_COMMAND_INTX_DISABLE >> 8);
	assert_int_equal(in(DATA, 2), PCI_COMMAND_INTX_DISABLE);
	/* Two ports of the latch, two of the data. */
	assert_int_equal(in(ADDRESS + 2, 4), (u32)PCI_COMMAND_INTX_DISABLE << 16 | 0xffff);
	/* Beyond its end. */
	assert_int_equal(in(DATA + 2, 4) >> 16, 0xffff);
	drop(function);
}

static void nobody(void **state)
{
	struct pci_function *function = make(64, 0);

	(void)state;
	assert_int_equal(pci_function_plug(machine.host, function, 0), 0);
	const u32 absent[] = {
		ENABLE | 2 << 11,	    /* empty slot */
		ENABLE | 1 << 11 | 1 << 8,  /* second function */
		ENABLE | 1 << 16 | 1 << 11, /* bus 1 */
		1 << 11,		    /* not enabled */
	};
	for (size_t i = 0; i < ARRAY_SIZE(absent); i++) {
		out(ADDRESS, 4, absent[i]);
		assert_int_equal(in(DATA, 4), 0xffffffff);
		assert_int_equal(in(DATA + 1, 2), 0xffff);
		out(ADDRESS, 4, absent[i] | PCI_INTERRUPT_LINE);
		out(DATA, 1, 0xee);
	}
	assert_int_not_equal(config_get(&machine, 1, PCI_INTERRUPT_LINE, 1), 0xee);
	assert_int_equal(config_get(&machine, 31, 0, 4), 0xffffffff);
	assert_int_equal(config_get(&machine, 1, 1 << 12, 4), 0xffffffff);
	drop(function);
}

static void ecam_widths(void **state)
{
	struct pci_function *function = make(64, 0);

	(void)state;
	assert_int_equal(pci_function_plug(machine.host, function, 0), 0);
	assert_int_equal(bus_read(machine.bus, BUS_MMIO, ecam(1, 0), 8),
			 config_get(&machine, 1, 0, 4) | (u64)config_get(&machine, 1, 4, 4) << 32);
	assert_int_equal(bus_read(machine.bus, BUS_MMIO, ecam(1, 1), 4),
			 config_get(&machine, 1, 1, 1) | config_get(&machine, 1, 2, 2) << 8 |
				 config_get(&machine, 1, 4, 1) << 24);
	/* No extended capabilities: zero, not all ones. */
	assert_int_equal(config_get(&machine, 1, 0x100, 4), 0);
	assert_int_equal(config_get(&machine, 1, 0xffc, 4), 0);
	/* From the end of this function into one that is not there. */
	assert_int_equal(bus_read(machine.bus, BUS_MMIO, ecam(1, 0xffe), 4), 0xffff0000);
	config_put(&machine, 1, 0x100, 4, 0x12345678);
	/* The last bytes of all. */
	assert_int_equal(
		bus_read(machine.bus, BUS_MMIO, LAYOUT_ECAM_START + LAYOUT_ECAM_SIZE - 2, 4),
		0xffffffff);
	drop(function);
}

static void slots(void **state)
{
	struct pci_function *functions[PCI_SLOTS - 1], *more;

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(functions); i++) {
		functions[i] = make(32, KIB(16));
		assert_int_equal(pci_function_plug(machine.host, functions[i], 0), 0);
		assert_int_equal(functions[i]->slot, i + 1);
		assert_int_equal(functions[i]->gsi,
				 LAYOUT_GSI_PCI + (i + 1) % LAYOUT_GSI_PCI_COUNT);
		assert_int_equal(config_get(&machine, i + 1, PCI_INTERRUPT_LINE, 1),
				 functions[i]->gsi);
	}
	more = make(32, KIB(16));
	assert_int_equal(pci_function_plug(machine.host, more, 0), -ENOSPC);
	assert_int_equal(pci_function_plug(machine.host, more, 5), -ENOSPC);
	assert_int_equal(pci_function_plug(machine.host, more, 32), -ENOSPC);
	drop(functions[4]);
	assert_int_equal(config_get(&machine, 5, 0, 4), 0xffffffff);
	assert_int_equal(pci_function_plug(machine.host, more, 0), 0);
	assert_int_equal(more->slot, 5);
	functions[4] = more;
	for (u32 i = 0; i < ARRAY_SIZE(functions); i++)
		drop(functions[i]);
}

/* Every BAR gets an aligned place of its own inside its window, and places come back. */
static void first_addresses(void **state)
{
	struct pci_function *functions[16];
	u64 before;

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(functions); i++) {
		functions[i] = make(4u << i % 7, KIB(4) << i % 5);
		assert_int_equal(pci_function_plug(machine.host, functions[i], 0), 0);
	}
	for (u32 i = 0; i < ARRAY_SIZE(functions); i++) {
		for (unsigned int b = 0; b < 3; b++) {
			u64 at = bar_address(&machine, i + 1, b), size = functions[i]->bars[b].size;
			const u64 windows[3][2] = {
				{ LAYOUT_PORT_PCI_START, LAYOUT_PORT_PCI_END },
				{ LAYOUT_PCI32_START, LAYOUT_PCI32_END },
				{ WINDOW64, WINDOW64 + WINDOW64_SIZE },
			};

			assert_int_equal(at % size, 0);
			assert_true(at >= windows[b][0] && at + size <= windows[b][1]);
			for (u32 j = 0; j < i; j++) {
				u64 other = bar_address(&machine, j + 1, b);

				assert_true(at + size <= other ||
					    other + functions[j]->bars[b].size <= at);
			}
		}
	}
	before = bar_address(&machine, 4, 2);
	drop(functions[3]);
	functions[3] = make(4u << 3, KIB(4) << 3);
	assert_int_equal(pci_function_plug(machine.host, functions[3], 0), 0);
	/* in another slot, which a guest cannot take for the function that was there */
	assert_int_equal(functions[3]->slot, ARRAY_SIZE(functions) + 1);
	assert_int_equal(bar_address(&machine, functions[3]->slot, 2), before);
	assert_int_equal(config_get(&machine, 4, 0, 4), 0xffffffff);
	for (u32 i = 0; i < ARRAY_SIZE(functions); i++)
		drop(functions[i]);
}

static void impossible_bars(void **state)
{
	const struct {
		unsigned int index;
		enum pci_bar_kind kind;
		u64 size;
	} wrong[] = {
		{ 0, PCI_BAR_IO, 48 },	    { 0, PCI_BAR_IO, 512 },  { 0, PCI_BAR_IO, 2 },
		{ 0, PCI_BAR_MEM32, 8 },    { 0, PCI_BAR_MEM32, 0 }, { 5, PCI_BAR_MEM64, KIB(4) },
		{ 0, PCI_BAR_MEM64, 4097 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct pci_function *function = make(0, 0);

		function->bars[wrong[i].index] =
			(struct pci_bar){ .kind = wrong[i].kind, .size = wrong[i].size };
		assert_int_equal(pci_function_plug(machine.host, function, 0), -EINVAL);
		drop(function);
	}
	assert_int_equal(config_get(&machine, 1, 0, 4), 0xffffffff);
}

static void count_function(struct pci_function *function, void *arg)
{
	u32 *slots_seen = arg;

	*slots_seen |= BIT(function->slot);
}

static void each(void **state)
{
	struct pci_function *a = make(4, 0), *b = make(4, 0);
	u32 seen = 0;

	(void)state;
	assert_int_equal(pci_function_plug(machine.host, a, 9), 0);
	assert_int_equal(pci_function_plug(machine.host, b, 3), 0);
	pci_host_each(machine.host, count_function, &seen);
	assert_int_equal(seen, BIT(3) | BIT(9));
	drop(a);
	drop(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(bridge, up, down),
		cmocka_unit_test_setup_teardown(latch, up, down),
		cmocka_unit_test_setup_teardown(data_bytes, up, down),
		cmocka_unit_test_setup_teardown(nobody, up, down),
		cmocka_unit_test_setup_teardown(ecam_widths, up, down),
		cmocka_unit_test_setup_teardown(slots, up, down),
		cmocka_unit_test_setup_teardown(first_addresses, up, down),
		cmocka_unit_test_setup_teardown(impossible_bars, up, down),
		cmocka_unit_test_setup_teardown(each, up, down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
