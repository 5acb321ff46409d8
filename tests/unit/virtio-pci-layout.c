/* tsan: where the structures of a virtio function stand, by each of the user's wishes, and a driver
 * that works with what it finds there. */
#include "tests/unit/netns.h"
#include "tests/unit/virtio-pci-machine.h"

struct expected {
	struct config_function function;
	u16 id, subsystem;
	u8 revision;
	bool io, memory;
	char structures[16]; /* kinds in order: capital letters are in memory, others in I/O */
	u16 vectors;
};

#define VECTORS(n) .vectors_given = true, .vectors = n

static const struct expected all[] = {
	{ { 0 }, 0x1001, 2, 0, true, true, "CnNiIDw", 4 },
	{ { .isr = CONFIG_PLACE_PIO }, 0x1001, 2, 0, true, true, "CnNiDw", 4 },
	{ { .isr = CONFIG_PLACE_MMIO }, 0x1001, 2, 0, true, true, "CnNIDw", 4 },
	{ { .notify = CONFIG_PLACE_PIO }, 0x1001, 2, 0, true, true, "CniIDw", 4 },
	{ { .notify = CONFIG_PLACE_MMIO, VECTORS(2) }, 0x1001, 2, 0, true, true, "CNiIDw", 2 },
	{ { .layout = CONFIG_LAYOUT_MODERN }, 0x1042, 0x1042, 1, false, true, "CNIDw", 4 },
	{ { .layout = CONFIG_LAYOUT_MODERN, .isr = CONFIG_PLACE_PIO },
	  0x1042,
	  0x1042,
	  1,
	  true,
	  true,
	  "CNiDw",
	  4 },
	{ { .layout = CONFIG_LAYOUT_MODERN, .notify = CONFIG_PLACE_PIO, VECTORS(0) },
	  0x1042,
	  0x1042,
	  1,
	  true,
	  true,
	  "CnIDw",
	  0 },
	{ { .layout = CONFIG_LAYOUT_MODERN,
	    .isr = CONFIG_PLACE_PIO,
	    .notify = CONFIG_PLACE_PIO,
	    VECTORS(200) },
	  0x1042,
	  0x1042,
	  1,
	  true,
	  true,
	  "CniDw",
	  200 },
	{ { .layout = CONFIG_LAYOUT_LEGACY }, 0x1001, 2, 0, true, true, "", 4 },
	{ { .layout = CONFIG_LAYOUT_LEGACY, VECTORS(0) }, 0x1001, 2, 0, true, false, "", 0 },
	{ { .layout = CONFIG_LAYOUT_LEGACY, .isr = CONFIG_PLACE_PIO, VECTORS(1) },
	  0x1001,
	  2,
	  0,
	  true,
	  true,
	  "",
	  1 },
};

static void check_structures(const char *expected)
{
	static const char letters[] = { [VIRTIO_PCI_CAP_COMMON_CFG] = 'c',
					[VIRTIO_PCI_CAP_NOTIFY_CFG] = 'n',
					[VIRTIO_PCI_CAP_ISR_CFG] = 'i',
					[VIRTIO_PCI_CAP_DEVICE_CFG] = 'd',
					[VIRTIO_PCI_CAP_PCI_CFG] = 'w' };
	char found[16] = "";
	u32 at;

	for (u32 n = 0; (at = find_capability(&fixture.pci, SLOT, PCI_CAP_ID_VNDR, n)); n++) {
		char letter = letters[cfg_get(at + VIRTIO_PCI_CAP_CFG_TYPE, 1)];
		struct structure s = { 0 };

		read_structure(at, &s);
		found[n] = (char)(letter != 'w' && s.bar == 2 ? letter - 32 : letter);
	}
	assert_string_equal(found, expected);
}

/* By whatever doorbells there are. */
static void every_doorbell(const struct expected *e)
{
	for (u32 i = 0; i < ARRAY_SIZE(fixture.notify); i++) {
		const struct structure *n = &fixture.notify[i];

		if (!n->length)
			continue;
		offer();
		put(n->bar, n->offset, 2, 0);
		driver_wait_used(&fixture.ring, NULL, NULL);
	}
	/* A legacy driver's doorbell rings for modern drivers too where there is one. */
	if (e->id == 0x1001)
		round_trip(0);
}

static void every_isr(void)
{
	for (u32 i = 0; i < ARRAY_SIZE(fixture.isr); i++) {
		const struct structure *isr = &fixture.isr[i];

		if (!isr->length)
			continue;
		fixture.device.isr = 3;
		assert_int_equal(get(isr->bar, isr->offset, 1), 3);
		assert_int_equal(get(isr->bar, isr->offset, 1), 0);
	}
}

static void each_wish(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		const struct expected *e = &all[i];

		machine_up_as(VIRTIO_ID_BLOCK, QUEUES, CONFIG_SIZE, &e->function);
		assert_int_equal(cfg_get(PCI_DEVICE_ID, 2), e->id);
		assert_int_equal(cfg_get(PCI_SUBSYSTEM_ID, 2), e->subsystem);
		assert_int_equal(cfg_get(PCI_REVISION_ID, 1), e->revision);
		assert_int_equal(cfg_get(PCI_BASE_ADDRESS_0, 4) & 1, e->io);
		assert_int_equal(cfg_get(PCI_BASE_ADDRESS_2, 4) != 0, e->memory);
		assert_int_equal(msix_capability() != 0, e->vectors != 0);
		if (e->vectors)
			assert_int_equal(cfg_get(msix_capability() + PCI_MSIX_FLAGS, 2),
					 e->vectors - 1);
		check_structures(e->structures);
		if (*e->structures) {
			modern_driver(0);
			every_doorbell(e);
			every_isr();
			set_status(0);
			driver_wait(status() == 0);
		}
		if (e->id == 0x1001) {
			legacy_driver(0);
			round_trip(0);
			assert_int_equal(io_get(20, 4), le_load(fixture.device.config, 4));
		} else if (e->io) {
			/* only what was asked for is there */
			assert_int_equal(io_get(VIRTIO_PCI_HOST_FEATURES, 4), 0);
			io_put(VIRTIO_PCI_STATUS, 1, 1);
			assert_int_equal(status(), 0);
		}
		machine_down();
	}
}

/* Vectors of each number: what is beyond them cannot be mapped, and with none the line it is. */
static void vectors(void **state)
{
	(void)state;
	for (u16 n = 0; n <= 2; n++) {
		const struct config_function function = { VECTORS(n) };

		machine_up_as(VIRTIO_ID_NET, QUEUES, CONFIG_SIZE, &function);
		if (n)
			msix(true);
		modern_driver(0);
		select_queue(0);
		for (u16 v = 0; v < 3; v++) {
			common_put(VIRTIO_PCI_COMMON_Q_MSIX, 2, v);
			assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_MSIX, 2),
					 v < n ? v : NO_VECTOR);
		}
		common_put(VIRTIO_PCI_COMMON_Q_MSIX, 2, 0);
		round_trip(0);
		if (n)
			wait_taken(vector_fd(0));
		else
			wait_taken(line_fd());
		machine_down();
	}
}

/* A legacy driver is told the size, a modern one may go below it and not above. */
static void queue_sizes(void **state)
{
	static const struct config_function function = { .queue_size = 8 };

	(void)state;
	machine_up_as(VIRTIO_ID_NET, QUEUES, CONFIG_SIZE, &function);
	io_put(VIRTIO_PCI_QUEUE_SEL, 2, 1);
	assert_int_equal(io_get(VIRTIO_PCI_QUEUE_NUM, 2), 8);
	select_queue(1);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_SIZE, 2), 8);
	common_put(VIRTIO_PCI_COMMON_Q_SIZE, 2, 16);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_SIZE, 2), 8);
	common_put(VIRTIO_PCI_COMMON_Q_SIZE, 2, 4);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_SIZE, 2), 4);
	set_status(1);
	set_status(0);
	driver_wait(status() == 0);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_SIZE, 2), 8);
	machine_down();
}

/* 4.1.4.4.1, 4.1.5.2: doorbells of four bytes, of their own in memory; what they are told beside
 * the queue may be anything. The old port is the legacy driver's alone. */
static void notification_data(void **state)
{
	static const struct config_function function = { .vectors_given = true,
							 .vectors = 1,
							 .notify_data = true };
	static const u32 values[] = { 0, 0x00010000, 0x80000000, 0xffff0000, 0x7fff0000 };
	struct fixture *f = &fixture;

	(void)state;
	machine_up_as(VIRTIO_ID_NET, QUEUES, CONFIG_SIZE, &function);
	assert_int_equal(f->notify[1].length, 0); /* one capability */
	assert_int_equal(f->notify[0].bar, 2);
	assert_int_equal(f->notify[0].offset % 4, 0);
	assert_true(f->notify[0].multiplier >= 4 && f->notify[0].multiplier % 4 == 0);
	assert_true(f->notify[0].length >= (QUEUES - 1) * f->notify[0].multiplier + 4);
	modern_driver(NOTIFICATION_DATA);
	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		offer();
		put(2, f->notify[0].offset, 4, values[i]);
		driver_wait_used(&f->ring, NULL, NULL);
	}
	/* and whoever does not take it writes two */
	set_status(0);
	driver_wait(status() == 0);
	modern_driver(0);
	offer();
	put(2, f->notify[0].offset, 2, 0);
	driver_wait_used(&f->ring, NULL, NULL);
	legacy_driver(0);
	round_trip(0);
	machine_down();
}

/* One table of routes for all: who comes late gets what is left, and works with it. */
static void vector_budget(void **state)
{
	static const struct config_function function = { VECTORS(3) };
	struct irq_msi *taken[4096];
	char said[500];
	u32 count = 0;
	u8 slot;

	(void)state;
	machine_up_as(VIRTIO_ID_NET, QUEUES, CONFIG_SIZE, &function);
	/* the function goes, its slot is taken again when nearly all routes are */
	virtio_device_power_on(&fixture.device);
	virtio_pci_destroy(fixture.function);
	while (irq_msi_room(fixture.pci.irq) > 1)
		assert_int_equal(irq_msi_create(fixture.pci.irq, &taken[count++]), 0);
	capture_begin();
	assert_int_equal(
		virtio_pci_create(&fixture.function,
				  &(struct virtio_pci_config){ .host = fixture.pci.host,
							       .irq = fixture.pci.irq,
							       .reactors = fixture.machine.reactors,
							       .device = &fixture.device,
							       .function = &function }),
		0);
	capture_end(said, sizeof(said));
	assert_non_null(
		strstr(said, ": 1 interrupt vectors instead of 3: KVM has routes for no more"));
	assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1);
	assert_int_equal(irq_msi_room(fixture.pci.irq), 0);
	slot = virtio_pci_slot(fixture.function);
	assert_int_equal(
		config_get(&fixture.pci, slot,
			   find_capability(&fixture.pci, slot, PCI_CAP_ID_MSIX, 0) + PCI_MSIX_FLAGS,
			   2),
		0);
	while (count)
		irq_msi_destroy(taken[--count]);
	machine_down();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_wish),	 cmocka_unit_test(vectors),
		cmocka_unit_test(queue_sizes),	 cmocka_unit_test(notification_data),
		cmocka_unit_test(vector_budget),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
