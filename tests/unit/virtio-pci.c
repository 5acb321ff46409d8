/* tsan: virtio over PCI: IDs, capabilities, registers of both layouts at every width, the
 * configuration access window. Each test names the items of docs/conformance.md that it holds. */
#include "tests/unit/virtio-pci-machine.h"

/* 1, 2: device, revision and subsystem IDs. */
static void ids(void **state)
{
	static const struct {
		u16 id, pci;
		bool legacy;
	} known[] = {
		{ VIRTIO_ID_NET, 0x1000, true },     { VIRTIO_ID_BLOCK, 0x1001, true },
		{ VIRTIO_ID_BALLOON, 0x1002, true }, { VIRTIO_ID_CONSOLE, 0x1003, true },
		{ VIRTIO_ID_SCSI, 0x1004, true },    { VIRTIO_ID_RNG, 0x1005, true },
		{ VIRTIO_ID_9P, 0x1009, true },	     { VIRTIO_ID_VSOCK, 0x1053, false },
		{ VIRTIO_ID_FS, 0x105a, false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		u32 at;

		machine_up(known[i].id, 1, 8);
		assert_int_equal(cfg_get(PCI_VENDOR_ID, 2), 0x1af4);
		assert_int_equal(cfg_get(PCI_DEVICE_ID, 2), known[i].pci);
		assert_int_equal(cfg_get(PCI_SUBSYSTEM_VENDOR_ID, 2), 0x1af4);
		assert_int_equal(cfg_get(PCI_CLASS_REVISION, 4) >> 8, 0x018000);
		if (known[i].legacy) {
			assert_int_equal(cfg_get(PCI_REVISION_ID, 1), 0);
			assert_int_equal(cfg_get(PCI_SUBSYSTEM_ID, 2), known[i].id);
			assert_int_equal(cfg_get(PCI_BASE_ADDRESS_0, 4) & 3,
					 PCI_BASE_ADDRESS_SPACE_IO);
		} else {
			assert_true(cfg_get(PCI_REVISION_ID, 1) >= 1);
			assert_true(cfg_get(PCI_SUBSYSTEM_ID, 2) >= 0x40);
			assert_int_equal(cfg_get(PCI_BASE_ADDRESS_0, 4), 0);
			assert_int_equal(cfg_get(PCI_COMMAND, 2) & PCI_COMMAND_IO, 0);
			for (unsigned int n = 0;
			     (at = find_capability(&fixture.pci, SLOT, PCI_CAP_ID_VNDR, n)); n++)
				assert_true(cfg_get(at + VIRTIO_PCI_CAP_CFG_TYPE, 1) ==
						    VIRTIO_PCI_CAP_PCI_CFG ||
					    cfg_get(at + VIRTIO_PCI_CAP_BAR, 1) == 2);
			modern_driver(0);
		}
		machine_down();
	}
}

static void check_capabilities(const u8 (*expected)[2], u32 count)
{
	u32 at;

	for (u32 n = 0; n < count; n++) {
		struct structure s = { 0 };
		u64 size;

		at = find_capability(&fixture.pci, SLOT, PCI_CAP_ID_VNDR, n);
		assert_int_not_equal(at, 0);
		assert_int_equal(at % 4, 0);
		assert_int_equal(cfg_get(at + VIRTIO_PCI_CAP_CFG_TYPE, 1), expected[n][0]);
		read_structure(at, &s);
		switch (expected[n][0]) {
		case VIRTIO_PCI_CAP_PCI_CFG:
			assert_int_equal(cfg_get(at + VIRTIO_PCI_CAP_LEN, 1), 20);
			continue;
		case VIRTIO_PCI_CAP_NOTIFY_CFG:
			assert_int_equal(cfg_get(at + VIRTIO_PCI_CAP_LEN, 1), 20);
			assert_int_equal(s.offset % 2, 0);
			assert_int_equal(s.multiplier & (s.multiplier - 1), 0);
			assert_true(s.multiplier != 1);
			assert_true(s.length >=
				    s.multiplier * (fixture.device.queue_count - 1u) + 2);
			break;
		case VIRTIO_PCI_CAP_ISR_CFG:
			assert_int_equal(cfg_get(at + VIRTIO_PCI_CAP_LEN, 1), 16);
			assert_true(s.length >= 1);
			break;
		default:
			assert_int_equal(cfg_get(at + VIRTIO_PCI_CAP_LEN, 1), 16);
			assert_int_equal(s.offset % 4, 0);
			assert_true(expected[n][0] != VIRTIO_PCI_CAP_COMMON_CFG || s.length >= 64);
		}
		assert_int_equal(s.bar, expected[n][1]);
		cfg_put(PCI_BASE_ADDRESS_0 + 4 * s.bar, 4, 0xffffffff);
		size = (u32) - (cfg_get(PCI_BASE_ADDRESS_0 + 4 * s.bar, 4) & (s.bar ? ~15u : ~3u));
		cfg_put(PCI_BASE_ADDRESS_0 + 4 * s.bar, 4, (u32)fixture.bars[s.bar]);
		assert_true(s.offset + s.length <= size);
		if (s.bar == 0)
			assert_true(size <= 256);
		else
			assert_int_equal(s.offset % 4096, 0);
	}
	assert_int_equal(find_capability(&fixture.pci, SLOT, PCI_CAP_ID_VNDR, count), 0);
	assert_int_not_equal(msix_capability(), 0);
	assert_int_equal(cfg_get(msix_capability() + 1, 1), 0); /* the last one */
	assert_int_equal(cfg_get(msix_capability() + PCI_MSIX_FLAGS, 2),
			 fixture.device.queue_count);
}

/* 8, 9, 15: capabilities: lengths, order of preference, alignment, room for every queue. */
static void capabilities(void **state)
{
	static const u8 usual[][2] = {
		{ VIRTIO_PCI_CAP_COMMON_CFG, 2 }, { VIRTIO_PCI_CAP_NOTIFY_CFG, 0 },
		{ VIRTIO_PCI_CAP_NOTIFY_CFG, 2 }, { VIRTIO_PCI_CAP_ISR_CFG, 0 },
		{ VIRTIO_PCI_CAP_ISR_CFG, 2 },	  { VIRTIO_PCI_CAP_DEVICE_CFG, 2 },
		{ VIRTIO_PCI_CAP_PCI_CFG, 0 },
	};
	static const u8 many[][2] = {
		{ VIRTIO_PCI_CAP_COMMON_CFG, 2 }, { VIRTIO_PCI_CAP_NOTIFY_CFG, 2 },
		{ VIRTIO_PCI_CAP_NOTIFY_CFG, 0 }, { VIRTIO_PCI_CAP_ISR_CFG, 0 },
		{ VIRTIO_PCI_CAP_ISR_CFG, 2 },	  { VIRTIO_PCI_CAP_PCI_CFG, 0 },
	};
	static const u8 modern[][2] = {
		{ VIRTIO_PCI_CAP_COMMON_CFG, 2 }, { VIRTIO_PCI_CAP_NOTIFY_CFG, 2 },
		{ VIRTIO_PCI_CAP_ISR_CFG, 2 },	  { VIRTIO_PCI_CAP_DEVICE_CFG, 2 },
		{ VIRTIO_PCI_CAP_PCI_CFG, 0 },
	};

	(void)state;
	machine_up(VIRTIO_ID_BLOCK, QUEUES, 96);
	check_capabilities(usual, ARRAY_SIZE(usual));
	machine_down();
	machine_up(VIRTIO_ID_NET, 65, 0); /* no configuration, and queues beyond one port */
	check_capabilities(many, ARRAY_SIZE(many));
	machine_down();
	machine_up(VIRTIO_ID_VSOCK, QUEUES, 5000);
	check_capabilities(modern, ARRAY_SIZE(modern));
	machine_down();
}

/* 3, 4, 5: legacy registers; MSI-X's enable bit moves device configuration, live; any width. */
static void legacy_registers(void **state)
{
	const u8 *config = fixture.device.config;

	(void)state;
	for (u32 i = 0; i < 2; i++) {
		u32 base = i ? 24 : 20;

		msix(i);
		for (unsigned int size = 1; size <= 4; size *= 2)
			for (u32 at = 0; at + size <= CONFIG_SIZE; at++)
				assert_int_equal(io_get(base + at, size),
						 le_load(config + at, size));
	}
	assert_int_equal(io_get(VIRTIO_MSI_CONFIG_VECTOR, 2), NO_VECTOR);
	assert_int_equal(io_get(VIRTIO_MSI_QUEUE_VECTOR, 2), NO_VECTOR);
	io_put(VIRTIO_MSI_CONFIG_VECTOR, 2, 1);
	assert_int_equal(io_get(VIRTIO_MSI_CONFIG_VECTOR, 2), 1);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_MSIX, 2), 1);
	assert_int_equal(config[0], 0xa0);
	/* across the edge of registers and configuration */
	assert_int_equal(io_get(22, 4), NO_VECTOR | (u32)le16_load(config) << 16);
	msix(false);
	io_put(20, 2, 0x1234);
	assert_int_equal(le16_load(config), 0x1234);
	assert_int_equal(fixture.config_written, 0x1234);
	io_put(20 + 19, 1, 0x77);
	assert_int_equal(config[19], 0x77);
	io_put(20 + 20, 1, 0x78); /* beyond */
	assert_int_equal(io_get(20 + 20, 1), 0);
	io_put(VIRTIO_PCI_QUEUE_NUM, 2, 8); /* 24: not the driver's to choose here */
	assert_int_equal(io_get(VIRTIO_PCI_QUEUE_NUM, 2), 64);
	io_put(VIRTIO_PCI_QUEUE_SEL, 2, QUEUES);
	assert_int_equal(io_get(VIRTIO_PCI_QUEUE_NUM, 2), 0);
	io_put(VIRTIO_PCI_QUEUE_PFN, 4, 16);
	assert_int_equal(io_get(VIRTIO_PCI_QUEUE_PFN, 4), 0);
	assert_int_equal(io_get(VIRTIO_PCI_QUEUE_SEL, 2), QUEUES);
}

/* 6: through the legacy registers only the first 32 features exist, and VERSION_1 is never
 * acknowledged. */
static void legacy_features(void **state)
{
	u32 offered = (u32)io_get(VIRTIO_PCI_HOST_FEATURES, 4);

	(void)state;
	assert_true(offered & BIT(5));
	assert_true(offered & BIT(VIRTIO_F_ANY_LAYOUT));
	assert_int_equal(offered & BIT(30), 0);
	common_put(VIRTIO_PCI_COMMON_DFSELECT, 4, 0);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_DF, 4) & BIT(VIRTIO_F_ANY_LAYOUT), 0);
	common_put(VIRTIO_PCI_COMMON_DFSELECT, 4, 1);
	assert_true(common_get(VIRTIO_PCI_COMMON_DF, 4) & BIT(VIRTIO_F_VERSION_1 - 32));
	io_put(VIRTIO_PCI_STATUS, 1, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	common_put(VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
	common_put(VIRTIO_PCI_COMMON_GF, 4, BIT(50 - 32) | BIT(VIRTIO_F_VERSION_1 - 32));
	io_put(VIRTIO_PCI_GUEST_FEATURES, 4, BIT(5)); /* the upper half is gone */
	assert_int_equal(io_get(VIRTIO_PCI_GUEST_FEATURES, 4), BIT(5));
	assert_true(fixture.device.features == BIT64(5));
	assert_true(fixture.device.legacy);
}

/* 7: addresses as 32-bit halves, as 64 bits, in bytes. */
static void common_widths(void **state)
{
	static const u32 areas[] = { VIRTIO_PCI_COMMON_Q_DESCLO, VIRTIO_PCI_COMMON_Q_AVAILLO,
				     VIRTIO_PCI_COMMON_Q_USEDLO };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(areas); i++) {
		common_put(areas[i], 4, 0x11223344 + i);
		common_put(areas[i] + 4, 4, 0x55667788);
		assert_true(common_get(areas[i], 8) == 0x5566778811223344ull + i);
		common_put(areas[i] + 4, 4, 0x99); /* a half leaves the other */
		assert_true(common_get(areas[i], 8) == 0x9911223344ull + i);
		common_put(areas[i], 8, 0x123456789abcdef0ull);
		assert_int_equal(common_get(areas[i], 4), 0x9abcdef0);
		assert_int_equal(common_get(areas[i] + 4, 4), 0x12345678);
		for (u32 b = 0; b < 8; b++)
			common_put(areas[i] + b, 1, 0xf0 + b);
		assert_true(common_get(areas[i], 8) == 0xf7f6f5f4f3f2f1f0ull);
		for (u32 b = 0; b < 8; b++)
			assert_int_equal(common_get(areas[i] + b, 1), 0xf0 + b);
		common_put(areas[i] + 2, 4, 0);
		assert_true(common_get(areas[i], 8) == 0xf7f600000000f1f0ull);
		assert_int_equal(common_get(areas[i] + 1, 2), 0x00f1);
		assert_int_equal(common_get(areas[i] + 7, 1), 0xf7);
	}
	assert_true(fixture.device.queues[0].used == 0xf7f600000000f1f0ull);
	common_put(VIRTIO_PCI_COMMON_Q_SELECT, 1, 2);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_SELECT, 2), 2);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_NUMQ, 1), QUEUES);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_NOFF, 2), 2);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_NDATA, 2), 2);
	/* status, generation and queue_select at once */
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_STATUS, 4) >> 16, 2);
	/* a page of its own: what is not a register is zero */
	assert_int_equal(common_get(60, 4), 0);
	assert_int_equal(common_get(61, 8), 0);
	common_put(56, 8, ~0ull);
	/* a running queue keeps its areas */
	modern_driver(0);
	common_put(VIRTIO_PCI_COMMON_Q_DESCLO, 4, 0);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_DESCLO, 4), RING);
	round_trip(0);
}

/* 10: feature windows. */
static void features(void **state)
{
	(void)state;
	for (u32 i = 2; i < 70; i++) {
		common_put(VIRTIO_PCI_COMMON_DFSELECT, 4, i);
		assert_int_equal(common_get(VIRTIO_PCI_COMMON_DF, 4), 0);
		common_put(VIRTIO_PCI_COMMON_GFSELECT, 4, i);
		assert_int_equal(common_get(VIRTIO_PCI_COMMON_GF, 4), 0);
	}
	common_put(VIRTIO_PCI_COMMON_DFSELECT, 4, ~0u);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_DF, 4), 0);
	common_put(VIRTIO_PCI_COMMON_DFSELECT, 4, 1);
	assert_true(common_get(VIRTIO_PCI_COMMON_DF, 4) & BIT(50 - 32));
	set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	modern_features(BIT64(5) | BIT64(50) | BIT64(VIRTIO_F_VERSION_1));
	common_put(VIRTIO_PCI_COMMON_GFSELECT, 4, 0);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_GF, 4), BIT(5));
	common_put(VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_GF, 4), BIT(0) | BIT(18));
}

/* 11: the generation moves when a field changed after the driver read it, and only then. */
static void generation(void **state)
{
	u8 first;

	(void)state;
	modern_driver(0);
	first = (u8)common_get(VIRTIO_PCI_COMMON_CFGGENERATION, 1);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_CFGGENERATION, 1), first);
	assert_int_equal(get(fixture.config.bar, fixture.config.offset + 3, 1), 0xa3);
	config_changes(0x55);
	assert_int_equal(get(fixture.config.bar, fixture.config.offset + 3, 1), 0x55);
	assert_int_not_equal(common_get(VIRTIO_PCI_COMMON_CFGGENERATION, 1), first);
	first = (u8)common_get(VIRTIO_PCI_COMMON_CFGGENERATION, 1);
	/* 256 changes between two reads do not look like none */
	for (u32 i = 0; i < 256; i++)
		config_changes((u8)i);
	assert_int_not_equal(common_get(VIRTIO_PCI_COMMON_CFGGENERATION, 1), first);
	put(fixture.config.bar, fixture.config.offset + 8, 4, 0xdeadbeef);
	assert_int_equal(io_get(20 + 8, 4), 0xdeadbeef);
	assert_int_equal(get(fixture.config.bar, fixture.config.offset + 16, 8), 0xb3b2b1b0);
}

/* 13: queue sizes. */
static void queue_sizes(void **state)
{
	static const u16 wrong[] = { 0, 3, 63, 65, 128, 0xffff };

	(void)state;
	select_queue(QUEUES);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_SIZE, 2), 0);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_MSIX, 2), NO_VECTOR);
	for (u32 at = VIRTIO_PCI_COMMON_Q_SIZE; at < 64; at += 2)
		common_put(at, 2, 1);
	select_queue(0xffff);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_SIZE, 2), 0);
	select_queue(1);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_SIZE, 2), 64);
	common_put(VIRTIO_PCI_COMMON_Q_SIZE, 2, 8);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_SIZE, 2), 8);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		common_put(VIRTIO_PCI_COMMON_Q_SIZE, 2, wrong[i]);
		assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_SIZE, 2), 8);
	}
	/* neither 0 nor anything but 1 enables */
	common_put(VIRTIO_PCI_COMMON_Q_ENABLE, 2, 0);
	common_put(VIRTIO_PCI_COMMON_Q_ENABLE, 2, 0x101);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
	modern_driver(0);
	common_put(VIRTIO_PCI_COMMON_Q_ENABLE, 2, 0);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
	common_put(VIRTIO_PCI_COMMON_Q_SIZE, 2, 32); /* enabled */
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_SIZE, 2), 16);
}

static u32 window_get(u8 bar, u32 offset, u32 length)
{
	window_set(bar, offset, length);
	return cfg_get(fixture.window.capability + 16, length);
}

static void window_put(u8 bar, u32 offset, u32 length, u32 value)
{
	window_set(bar, offset, length);
	cfg_put(fixture.window.capability + 16, length, value);
}

/* 19: the PCI_CFG capability performs the accesses, decoding or not; invalid ones it ignores. */
static void window(void **state)
{
	static const struct {
		u8 bar;
		u32 offset, length;
	} invalid[] = {
		{ 1, 0, 4 },   { 3, 0, 4 },	     { 6, 0, 4 },   { 255, 0, 4 }, { 2, 0, 0 },
		{ 2, 0, 3 },   { 2, 0, 8 },	     { 2, 0, ~0u }, { 2, 2, 4 },   { 0, 256, 1 },
		{ 0, ~0u, 1 }, { 2, 0x80000000, 4 }, { 2, ~3u, 4 },
	};
	const u8 *config = fixture.device.config;
	u32 common = fixture.common.offset, at = fixture.window.capability;

	(void)state;
	command(&fixture.pci, SLOT, PCI_COMMAND_MASTER);
	assert_int_equal(window_get(2, common + VIRTIO_PCI_COMMON_NUMQ, 2), QUEUES);
	window_put(2, common + VIRTIO_PCI_COMMON_DFSELECT, 4, 1);
	assert_true(window_get(2, common + VIRTIO_PCI_COMMON_DF, 4) & 1);
	window_put(2, common + VIRTIO_PCI_COMMON_STATUS, 1, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	assert_int_equal(window_get(0, VIRTIO_PCI_STATUS, 1), VIRTIO_CONFIG_S_ACKNOWLEDGE);
	for (u32 i = 0; i < CONFIG_SIZE; i++)
		assert_int_equal(window_get(fixture.config.bar, fixture.config.offset + i, 1),
				 config[i]);
	/* as 0xcf8 does it */
	window_set(fixture.config.bar, fixture.config.offset + 4, 4);
	bus_write(fixture.pci.bus, BUS_PIO, LAYOUT_PORT_PCI_ADDRESS, 4,
		  0x80000000 | SLOT << 11 | (at + 16));
	assert_int_equal(bus_read(fixture.pci.bus, BUS_PIO, LAYOUT_PORT_PCI_DATA, 4),
			 le32_load(config + 4));
	bus_write(fixture.pci.bus, BUS_PIO, LAYOUT_PORT_PCI_DATA, 4, 0x01020304);
	assert_int_equal(le32_load(config + 4), 0x01020304);
	/* MSI-X tables */
	window_put(2, (u32)table_at(1) + 8, 4, 0x4321);
	assert_int_equal(window_get(2, (u32)table_at(1) + 8, 4), 0x4321);
	assert_int_equal(window_get(2, (u32)table_at(1) + 12, 4), 1);
	/* notifications of both kinds */
	command(&fixture.pci, SLOT, PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY);
	modern_driver(0);
	offer();
	window_put(0, VIRTIO_PCI_QUEUE_NOTIFY, 2, 0);
	driver_wait_used(&fixture.ring, NULL, NULL);
	offer();
	window_put(2, fixture.notify[1].offset, 2, 0);
	driver_wait_used(&fixture.ring, NULL, NULL);
	/* the ISR: reading clears, through here too */
	driver_wait(atomic_load(&fixture.device.isr) == 1);
	assert_int_equal(window_get(0, VIRTIO_PCI_ISR, 1), 1);
	assert_int_equal(window_get(2, fixture.isr[1].offset, 1), 0);

	window_get(2, common + VIRTIO_PCI_COMMON_NUMQ, 2);
	for (size_t i = 0; i < ARRAY_SIZE(invalid); i++) {
		window_set(invalid[i].bar, invalid[i].offset, invalid[i].length);
		cfg_put(at + 16, 4, 0x55aa1200 + (u32)i);
		assert_int_equal(cfg_get(at + 16, 4), 0x55aa1200 + i);
	}
	assert_int_equal(status(), DRIVER_BITS);
	/* the other fields cannot be written */
	cfg_put(at, 4, 0xffffffff);
	assert_int_equal(cfg_get(at + VIRTIO_PCI_CAP_LEN, 1), 20);
	assert_int_equal(cfg_get(at + VIRTIO_PCI_CAP_CFG_TYPE, 1), VIRTIO_PCI_CAP_PCI_CFG);
	cfg_put(fixture.common.capability + VIRTIO_PCI_CAP_OFFSET, 4, 0xffffffff);
	assert_int_equal(cfg_get(fixture.common.capability + VIRTIO_PCI_CAP_OFFSET, 4), common);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ids),
		cmocka_unit_test(capabilities),
		cmocka_unit_test_setup_teardown(legacy_registers, up, down),
		cmocka_unit_test_setup_teardown(legacy_features, up, down),
		cmocka_unit_test_setup_teardown(common_widths, up, down),
		cmocka_unit_test_setup_teardown(features, up, down),
		cmocka_unit_test_setup_teardown(generation, up, down),
		cmocka_unit_test_setup_teardown(queue_sizes, up, down),
		cmocka_unit_test_setup_teardown(window, up, down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
