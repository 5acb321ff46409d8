/* tsan: virtio over PCI under random accesses of all widths to config space and BARs, rings full of
 * noise: nothing breaks, and a reset of the machine makes a working device again.
 * VIRTIO_PCI_FUZZ=rounds for more. */
#include "tests/unit/virtio-pci-machine.h"

static u64 seed;

static u32 random32(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (u32)(seed >> 16);
}

static u64 random_value(void)
{
	static const u64 interesting[] = { 0,	       1,	    2,		3,
					   0xf,	       0xff,	    0xffff,	0x8000,
					   0xffffffff, ~0ull,	    RING,	RING >> 12,
					   0x40,       16,	    0x80000000, 0xfee00000,
					   BUFFER,     DRIVER_BITS, 7,		GIB(4) - 1 };

	if (random32() % 4 == 0)
		return (u64)random32() << 32 | random32();
	return interesting[random32() % ARRAY_SIZE(interesting)];
}

static void fuzz_once(u64 memory_size)
{
	unsigned int size = 1u << random32() % 4;
	u64 at, value = random_value();
	bool write = random32() % 2;
	u32 kind = random32() % 16;

	if (kind < 4) { /* config space, often where it matters */
		at = ecam(SLOT, random32() % (random32() % 3 ? 256 : 4096));
		if (kind == 0)
			at = ecam(SLOT, fixture.window.capability + 4 + random32() % 16);
		/* decoding is off more often than not: keep it mostly on */
		if (write)
			bus_write(fixture.pci.bus, BUS_MMIO, at, size, value);
		else
			bus_read(fixture.pci.bus, BUS_MMIO, at, size);
	} else if (kind == 4) {
		at = LAYOUT_PORT_PCI_ADDRESS + random32() % 8;
		if (write)
			bus_write(fixture.pci.bus, BUS_PIO, at, size > 4 ? 4 : size, value);
		else
			bus_read(fixture.pci.bus, BUS_PIO, at, size > 4 ? 4 : size);
	} else if (kind < 9) {
		at = random32() % 64;
		if (write)
			io_put((u32)at, size > 4 ? 4 : size, value);
		else
			io_get((u32)at, size > 4 ? 4 : size);
	} else {
		static const u32 pages[] = { 0, 1, 2, 3, 4, 5, 0 };

		at = pages[random32() % ARRAY_SIZE(pages)] * 4096 + random32() % 80;
		if (random32() % 16 == 0)
			at = random32() % memory_size;
		if (write)
			put(2, at, size, value);
		else
			get(2, at, size);
	}
}

static void fuzz(void **state)
{
	u64 io = fixture.bars[0], memory = fixture.bars[2];
	u8 *ram = memory_at(&fixture.machine.memory, RING, 0x10000);
	const char *rounds_wanted = getenv("VIRTIO_PCI_FUZZ");
	u32 rounds = rounds_wanted ? (u32)atoi(rounds_wanted) : 60;

	(void)state;
	seed = 0x9e3779b97f4a7c15ull;
	for (u32 round = 0; round < rounds; round++) {
		for (u32 i = 0; i < 0x10000; i++)
			__atomic_store_n(&ram[i], (u8)(random32() % 3 ? 0 : random32()),
					 __ATOMIC_RELAXED);
		for (u32 i = 0; i < 3000; i++) {
			fuzz_once(KIB(32));
			/* bring back what a driver needs to be heard */
			if (random32() % 64 == 0) {
				fixture.bars[0] = io;
				fixture.bars[2] = memory;
				cfg_put(PCI_BASE_ADDRESS_0, 4, (u32)io);
				cfg_put(PCI_BASE_ADDRESS_2, 4, (u32)memory);
				cfg_put(PCI_BASE_ADDRESS_3, 4, (u32)(memory >> 32));
				cfg_put(PCI_COMMAND, 2,
					7 | (random32() % 2 ? PCI_COMMAND_INTX_DISABLE : 0));
			}
		}
		/* after all that, a machine reset makes a working device */
		virtio_pci_reset(fixture.function);
		command(&fixture.pci, SLOT,
			PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
		discover(&fixture);
		assert_int_equal(fixture.bars[0], io);
		assert_int_equal(fixture.bars[2], memory);
		assert_int_equal(status(), 0);
		assert_int_equal(common_get(VIRTIO_PCI_COMMON_NUMQ, 2), QUEUES);
		if (round % 2) {
			modern_driver(0);
			round_trip(0);
		} else {
			legacy_driver(2);
			round_trip(2);
		}
		set_status(0);
		driver_wait(status() == 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(fuzz, up, down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
