/* tsan: a device of no type behind virtio/pci, driven through config space and BARs as a guest
 * would, by both layouts. Each test names the items of docs/conformance.md that it holds. */
#include "tests/unit/driver.h"
#include "tests/unit/pci-machine.h"
#include <linux/virtio_pci.h>
#include <pthread.h>
#include "virtio/pci.h"

#define RAM	    MIB(4)
#define RING	    0x10000ull
#define BUFFER	    0x100000ull
#define QUEUES	    3
#define CONFIG_SIZE 20
#define SLOT	    1
#define NO_VECTOR   VIRTIO_MSI_NO_VECTOR
#define DRIVER_BITS                                                                           \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK | \
	 VIRTIO_CONFIG_S_DRIVER_OK)

/* ---- the device: gives every buffer back, or keeps them while told to hold ---- */

struct structure {
	u32 capability;
	u8 bar;
	u32 offset, length, multiplier;
};

struct fixture {
	struct driver_machine machine;
	struct pci_machine pci;
	struct virtio_device device;
	struct virtio_pci *function;
	struct driver_ring ring;
	_Atomic bool hold;
	u16 held[DRIVER_RING_MAX];
	_Atomic u32 held_count;
	struct reactor_message release;
	_Atomic u32 released;
	u64 config_written;
	u64 bars[PCI_BARS];
	struct structure common, isr[2], notify[2], config, window;
};

static struct fixture fixture;

static enum virtio_served device_serve(struct virtio_queue *queue)
{
	struct fixture *f = queue->device->owner;
	struct iovec iov[VQ_MAX_SIZE];
	struct vq_buffer buffer;

	while (virtio_queue_pop(queue, &buffer, iov, ARRAY_SIZE(iov)) == 1) {
		if (f->hold) {
			f->held[f->held_count] = buffer.head;
			f->held_count++;
		} else {
			virtio_queue_push(queue, buffer.head, 0);
		}
	}
	return VIRTIO_SERVED_ALL;
}

/* [reactor] Gives back what was held on queue 0. */
static void release_run(struct reactor_message *message)
{
	struct fixture *f = container_of(message, struct fixture, release);

	while (f->held_count)
		virtio_queue_push(&f->device.queues[0], f->held[--f->held_count], 0);
	f->hold = false;
	f->released++;
}

static void device_config_write(struct virtio_device *device, u32 offset, u32 size, u64 value)
{
	struct fixture *f = device->owner;

	f->config_written = value;
	le_store(device->config + offset, size, value);
}

static struct virtio_device_ops device_ops = {
	.name = "test",
	.serve = device_serve,
	.config_write = device_config_write,
};

/* ---- the guest ---- */

static enum bus_space space_of(unsigned int bar)
{
	return bar ? BUS_MMIO : BUS_PIO;
}

static u64 get(unsigned int bar, u64 offset, unsigned int size)
{
	return bus_read(fixture.pci.bus, space_of(bar), fixture.bars[bar] + offset, size);
}

static void put(unsigned int bar, u64 offset, unsigned int size, u64 value)
{
	bus_write(fixture.pci.bus, space_of(bar), fixture.bars[bar] + offset, size, value);
}

static u64 io_get(u32 offset, unsigned int size)
{
	return get(0, offset, size);
}

static void io_put(u32 offset, unsigned int size, u64 value)
{
	put(0, offset, size, value);
}

static u64 common_get(u32 offset, unsigned int size)
{
	return get(fixture.common.bar, fixture.common.offset + offset, size);
}

static void common_put(u32 offset, unsigned int size, u64 value)
{
	put(fixture.common.bar, fixture.common.offset + offset, size, value);
}

static u32 cfg_get(u32 offset, unsigned int size)
{
	return config_get(&fixture.pci, SLOT, offset, size);
}

static void cfg_put(u32 offset, unsigned int size, u32 value)
{
	config_put(&fixture.pci, SLOT, offset, size, value);
}

static u8 status(void)
{
	return (u8)common_get(VIRTIO_PCI_COMMON_STATUS, 1);
}

static void set_status(u8 value)
{
	common_put(VIRTIO_PCI_COMMON_STATUS, 1, value);
}

static void read_structure(u32 at, struct structure *s)
{
	s->capability = at;
	s->bar = (u8)cfg_get(at + VIRTIO_PCI_CAP_BAR, 1);
	s->offset = cfg_get(at + VIRTIO_PCI_CAP_OFFSET, 4);
	s->length = cfg_get(at + VIRTIO_PCI_CAP_LENGTH, 4);
	if (cfg_get(at + VIRTIO_PCI_CAP_CFG_TYPE, 1) == VIRTIO_PCI_CAP_NOTIFY_CFG)
		s->multiplier = cfg_get(at + VIRTIO_PCI_NOTIFY_CAP_MULT, 4);
}

static void discover(struct fixture *f)
{
	u32 notifies = 0, isrs = 0, at;

	for (unsigned int bar = 0; bar < 3; bar += 2)
		f->bars[bar] = bar_address(&f->pci, SLOT, bar);
	for (unsigned int n = 0; (at = find_capability(&f->pci, SLOT, PCI_CAP_ID_VNDR, n)); n++) {
		switch (cfg_get(at + VIRTIO_PCI_CAP_CFG_TYPE, 1)) {
		case VIRTIO_PCI_CAP_COMMON_CFG:
			read_structure(at, &f->common);
			break;
		case VIRTIO_PCI_CAP_NOTIFY_CFG:
			read_structure(at, &f->notify[notifies++]);
			break;
		case VIRTIO_PCI_CAP_ISR_CFG:
			read_structure(at, &f->isr[isrs++]);
			break;
		case VIRTIO_PCI_CAP_DEVICE_CFG:
			read_structure(at, &f->config);
			break;
		case VIRTIO_PCI_CAP_PCI_CFG:
			f->window.capability = at;
			break;
		}
	}
}

static void machine_up(u16 id, u16 queues, u32 config_size)
{
	struct fixture *f = &fixture;
	struct virtio_device_config config = { .ops = &device_ops,
					       .owner = f,
					       .name = "test0",
					       .memory = &f->machine.memory,
					       .features = BIT64(5) | BIT64(40) | BIT64(50),
					       .config_size = config_size,
					       .queue_count = queues,
					       .queue_size = 64 };
	struct virtio_pci_config pci = { .device = &f->device };

	memset(f, 0, sizeof(*f));
	device_ops.id = id;
	device_ops.pci_class = 0x018000;
	driver_machine_up(&f->machine, RAM, 1, false);
	pci_machine_up(&f->pci);
	config.reactors = f->machine.reactors;
	assert_int_equal(virtio_device_init(&f->device, &config), 0);
	for (u32 i = 0; i < config_size; i++)
		f->device.config[i] = (u8)(0xa0 + i);
	f->release.run = release_run;
	pci.host = f->pci.host;
	pci.irq = f->pci.irq;
	pci.reactors = f->machine.reactors;
	assert_int_equal(virtio_pci_create(&f->function, &pci), 0);
	driver_machine_go(&f->machine);
	command(&f->pci, SLOT, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	discover(f);
}

static void machine_down(void)
{
	struct fixture *f = &fixture;

	virtio_device_power_on(&f->device);
	virtio_pci_destroy(f->function);
	driver_machine_stop(&f->machine);
	virtio_device_destroy(&f->device);
	driver_machine_down(&f->machine);
	pci_machine_down(&f->pci);
}

static int up(void **state)
{
	(void)state;
	machine_up(VIRTIO_ID_NET, QUEUES, CONFIG_SIZE);
	return 0;
}

static int down(void **state)
{
	(void)state;
	machine_down();
	return 0;
}

/* ---- driver moves ---- */

static void select_queue(u16 index)
{
	common_put(VIRTIO_PCI_COMMON_Q_SELECT, 2, index);
}

static void modern_features(u64 features)
{
	for (u32 i = 0; i < 2; i++) {
		common_put(VIRTIO_PCI_COMMON_GFSELECT, 4, i);
		common_put(VIRTIO_PCI_COMMON_GF, 4, (u32)(features >> 32 * i));
	}
	set_status(status() | VIRTIO_CONFIG_S_FEATURES_OK);
	assert_true(status() & VIRTIO_CONFIG_S_FEATURES_OK);
}

static void modern_queue(u16 index, u64 at)
{
	struct driver_ring *ring = &fixture.ring;

	driver_ring_init(ring, &fixture.machine.memory, at, 16, false);
	select_queue(index);
	common_put(VIRTIO_PCI_COMMON_Q_SIZE, 2, 16);
	common_put(VIRTIO_PCI_COMMON_Q_DESCLO, 4, ring->descriptors_at);
	common_put(VIRTIO_PCI_COMMON_Q_DESCHI, 4, 0);
	common_put(VIRTIO_PCI_COMMON_Q_AVAILLO, 4, ring->available_at);
	common_put(VIRTIO_PCI_COMMON_Q_AVAILHI, 4, 0);
	common_put(VIRTIO_PCI_COMMON_Q_USEDLO, 4, ring->used_at);
	common_put(VIRTIO_PCI_COMMON_Q_USEDHI, 4, 0);
	common_put(VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
}

/* A modern driver up to DRIVER_OK with queue 0 in fixture.ring. */
static void modern_driver(u64 features)
{
	set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE);
	set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	modern_features(features | BIT64(VIRTIO_F_VERSION_1));
	modern_queue(0, RING);
	set_status(DRIVER_BITS);
	assert_int_equal(status(), DRIVER_BITS);
}

static void legacy_driver(u16 queue)
{
	struct driver_ring *ring = &fixture.ring;
	u16 size;

	io_put(VIRTIO_PCI_STATUS, 1, 0);
	io_put(VIRTIO_PCI_STATUS, 1, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	io_put(VIRTIO_PCI_GUEST_FEATURES, 4, 0);
	io_put(VIRTIO_PCI_QUEUE_SEL, 2, queue);
	size = (u16)io_get(VIRTIO_PCI_QUEUE_NUM, 2);
	assert_int_equal(size, 64);
	driver_ring_init(ring, &fixture.machine.memory, RING, size, false);
	io_put(VIRTIO_PCI_QUEUE_PFN, 4, RING >> VIRTIO_PCI_QUEUE_ADDR_SHIFT);
	io_put(VIRTIO_PCI_STATUS, 1,
	       VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK);
}

static void offer(void)
{
	const struct driver_part part = { BUFFER, 512, true };

	assert_true(driver_add(&fixture.ring, &part, 1) >= 0);
	driver_publish(&fixture.ring);
}

static void notify_io(u16 queue)
{
	io_put(VIRTIO_PCI_QUEUE_NOTIFY, 2, queue);
}

/* One buffer there and back. */
static void round_trip(u16 queue)
{
	offer();
	notify_io(queue);
	driver_wait_used(&fixture.ring, NULL, NULL);
}

static u32 msix_capability(void)
{
	return find_capability(&fixture.pci, SLOT, PCI_CAP_ID_MSIX, 0);
}

static void msix(bool on)
{
	cfg_put(msix_capability() + PCI_MSIX_FLAGS, 2, on ? PCI_MSIX_FLAGS_ENABLE : 0);
}

static u64 table_at(u32 vector)
{
	return (cfg_get(msix_capability() + PCI_MSIX_TABLE, 4) & ~7u) + 16 * vector;
}

static bool pending(u32 vector)
{
	u64 pba = cfg_get(msix_capability() + PCI_MSIX_PBA, 4) & ~7u;

	return get(2, pba, 8) >> vector & 1;
}

static int vector_fd(u16 vector)
{
	/* The function is the first thing in struct virtio_pci; the tests of pci/ know it, a driver
	 * does not. */
	return pci_msix_fd((struct pci_function *)(void *)fixture.function, vector);
}

static int line_fd(void)
{
	return irq_shared_fd(fixture.pci.irq, LAYOUT_GSI_PCI + SLOT);
}

static void config_changes(u8 value)
{
	virtio_config_update(&fixture.device, 3, &value, 1);
}

/* ---- tests ---- */

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
	io_put(VIRTIO_PCI_GUEST_FEATURES, 4, BIT(5));
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

/* 12, 21: a reset reads back 0 when all is drained, and forgets everything. */
static void modern_reset(void **state)
{
	(void)state;
	msix(true);
	modern_driver(BIT64(5));
	common_put(VIRTIO_PCI_COMMON_MSIX, 2, 0);
	common_put(VIRTIO_PCI_COMMON_Q_MSIX, 2, 1);
	fixture.hold = true;
	offer();
	notify_io(0);
	driver_wait(fixture.held_count);
	set_status(0);
	for (u32 i = 0; i < 20; i++) {
		assert_int_not_equal(status(), 0);
		usleep(1000);
	}
	set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE); /* too early: is not taken for a new beginning */
	assert_true(status() != 0);
	reactor_post(fixture.device.queues[0].reactor, &fixture.release);
	driver_wait(status() == 0);
	/* nothing was told of a buffer given back during the reset */
	assert_int_equal(__atomic_load_n(&fixture.ring.used->idx, __ATOMIC_RELAXED), 0);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_MSIX, 2), NO_VECTOR);
	for (u16 q = 0; q < QUEUES; q++) {
		select_queue(q);
		assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
		assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_SIZE, 2), 64);
		assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_MSIX, 2), NO_VECTOR);
		assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_DESCLO, 8), 0);
		assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_AVAILLO, 8), 0);
		assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_USEDLO, 8), 0);
	}
	for (u32 i = 0; i < 2; i++) {
		common_put(VIRTIO_PCI_COMMON_GFSELECT, 4, i);
		assert_int_equal(common_get(VIRTIO_PCI_COMMON_GF, 4), 0);
	}
	assert_int_equal(io_get(VIRTIO_PCI_ISR, 1), 0);
	/* a legacy driver may follow */
	msix(false);
	legacy_driver(0);
	round_trip(0);
	/* and a modern one that resets through its own layout */
	set_status(0);
	driver_wait(status() == 0);
	modern_driver(0);
	round_trip(0);
}

static void *release_later(void *arg)
{
	(void)arg;
	usleep(50000);
	reactor_post(fixture.device.queues[0].reactor, &fixture.release);
	return NULL;
}

/* 12: for a legacy driver the reset is over when it looks again. */
static void legacy_reset(void **state)
{
	pthread_t thread;

	(void)state;
	legacy_driver(0);
	fixture.hold = true;
	offer();
	notify_io(0);
	driver_wait(fixture.held_count);
	pthread_create(&thread, NULL, release_later, NULL);
	io_put(VIRTIO_PCI_STATUS, 1, 0);
	assert_int_equal(io_get(VIRTIO_PCI_STATUS, 1), 0);
	assert_int_equal(fixture.released, 1);
	assert_int_equal(io_get(VIRTIO_PCI_QUEUE_PFN, 4), 0);
	pthread_join(thread, NULL);
	/* one that does not look, but goes on at once */
	legacy_driver(0);
	fixture.hold = true;
	offer();
	notify_io(0);
	driver_wait(fixture.held_count);
	pthread_create(&thread, NULL, release_later, NULL);
	legacy_driver(0);
	assert_int_equal(fixture.released, 2);
	pthread_join(thread, NULL);
	round_trip(0);
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

/* 14: a queue reset reads 1 while it drains, then the queue is as new. */
static void ring_reset(void **state)
{
	(void)state;
	msix(true);
	modern_driver(BIT64(VIRTIO_F_RING_RESET));
	common_put(VIRTIO_PCI_COMMON_Q_MSIX, 2, 1);
	fixture.hold = true;
	offer();
	notify_io(0);
	driver_wait(fixture.held_count);
	common_put(VIRTIO_PCI_COMMON_Q_RESET, 2, 1);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_RESET, 2), 1);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
	reactor_post(fixture.device.queues[0].reactor, &fixture.release);
	driver_wait(common_get(VIRTIO_PCI_COMMON_Q_RESET, 2) == 0);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_MSIX, 2), NO_VECTOR);
	assert_int_equal(status(), DRIVER_BITS);
	modern_queue(0, RING + 0x20000);
	round_trip(0);
	/* not negotiated: nothing happens */
	set_status(0);
	driver_wait(status() == 0);
	modern_driver(0);
	common_put(VIRTIO_PCI_COMMON_Q_RESET, 2, 1);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_RESET, 2), 0);
	round_trip(0);
}

static u64 wait_taken(int fd)
{
	u64 value = 0;

	driver_wait((value = taken(fd)) != 0);
	return value;
}

/* 16, 17, 18: ISR, Interrupt Status and the line without MSI-X. */
static void intx(void **state)
{
	u16 interrupt;

	(void)state;
	modern_driver(0);
	assert_int_equal(io_get(VIRTIO_PCI_ISR, 1), 0);
	round_trip(0);
	wait_taken(line_fd());
	interrupt = cfg_get(PCI_STATUS, 2) & PCI_STATUS_INTERRUPT;
	assert_int_equal(interrupt, PCI_STATUS_INTERRUPT);
	assert_int_equal(io_get(VIRTIO_PCI_ISR, 1), 1);
	assert_int_equal(io_get(VIRTIO_PCI_ISR, 1), 0);
	assert_int_equal(cfg_get(PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, 0);
	/* configuration, and the mirror in memory */
	config_changes(1);
	assert_int_not_equal(taken(line_fd()), 0);
	assert_int_equal(get(fixture.isr[1].bar, fixture.isr[1].offset, 1), 2);
	assert_int_equal(get(fixture.isr[1].bar, fixture.isr[1].offset, 1), 0);
	/* the end of interrupt raises the line again while the ISR was not read */
	config_changes(2);
	wait_taken(line_fd());
	irq_shared_resampled(fixture.pci.irq, LAYOUT_GSI_PCI + SLOT);
	assert_int_equal(taken(line_fd()), 1);
	assert_int_equal(io_get(fixture.isr[0].offset, 1), 2);
	irq_shared_resampled(fixture.pci.irq, LAYOUT_GSI_PCI + SLOT);
	assert_int_equal(taken(line_fd()), 0);
	/* INTx Disable: the ISR tells, the line does not, until it may again */
	cfg_put(PCI_COMMAND, 2, cfg_get(PCI_COMMAND, 2) | PCI_COMMAND_INTX_DISABLE);
	round_trip(0);
	driver_wait(atomic_load(&fixture.device.isr) == 1);
	assert_int_equal(cfg_get(PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, PCI_STATUS_INTERRUPT);
	usleep(5000);
	assert_int_equal(taken(line_fd()), 0);
	cfg_put(PCI_COMMAND, 2, cfg_get(PCI_COMMAND, 2) & ~(u32)PCI_COMMAND_INTX_DISABLE);
	wait_taken(line_fd());
	assert_int_equal(io_get(VIRTIO_PCI_ISR, 1), 1);
}

/* 16, 20, 22: under MSI-X: vectors, and silence where there is none; ISR bit 1 all the same. */
static void vectors(void **state)
{
	(void)state;
	msix(true);
	for (u32 v = 0; v <= QUEUES; v++)
		put(2, table_at(v) + PCI_MSIX_ENTRY_VECTOR_CTRL, 4, 0);
	modern_driver(0);
	/* nothing is mapped */
	round_trip(0);
	config_changes(1);
	usleep(5000);
	for (u16 v = 0; v <= QUEUES; v++)
		assert_int_equal(taken(vector_fd(v)), 0);
	assert_int_equal(taken(line_fd()), 0);
	assert_int_equal(cfg_get(PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, 0);
	assert_int_equal(io_get(VIRTIO_PCI_ISR, 1), 2);
	/* any event to any vector */
	for (u16 v = 0; v <= QUEUES; v++) {
		common_put(VIRTIO_PCI_COMMON_MSIX, 2, v);
		common_put(VIRTIO_PCI_COMMON_Q_MSIX, 2, QUEUES - v);
		assert_int_equal(common_get(VIRTIO_PCI_COMMON_MSIX, 2), v);
		assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_MSIX, 2), QUEUES - v);
		round_trip(0);
		assert_int_equal(wait_taken(vector_fd((u16)(QUEUES - v))), 1);
		config_changes((u8)(10 + v));
		assert_int_equal(taken(vector_fd(v)), 1);
	}
	/* impossible ones, in full and in one byte, from both layouts */
	common_put(VIRTIO_PCI_COMMON_MSIX, 2, QUEUES + 1);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_MSIX, 2), NO_VECTOR);
	io_put(VIRTIO_MSI_QUEUE_VECTOR, 2, 0x8000);
	assert_int_equal(io_get(VIRTIO_MSI_QUEUE_VECTOR, 2), NO_VECTOR);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_MSIX, 2), NO_VECTOR);
	io_put(VIRTIO_MSI_QUEUE_VECTOR, 2, 2);
	common_put(VIRTIO_PCI_COMMON_Q_MSIX + 1, 1, 1);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_MSIX, 2), NO_VECTOR);
	/* unmapped again: silent */
	round_trip(0);
	config_changes(99);
	usleep(5000);
	for (u16 v = 0; v <= QUEUES; v++)
		assert_int_equal(taken(vector_fd(v)), 0);
	/* two events on one vector */
	common_put(VIRTIO_PCI_COMMON_MSIX, 2, 2);
	common_put(VIRTIO_PCI_COMMON_Q_MSIX, 2, 2);
	config_changes(100);
	assert_int_equal(taken(vector_fd(2)), 1);
	round_trip(0);
	wait_taken(vector_fd(2));
	/* MSI-X off: the line again */
	io_get(VIRTIO_PCI_ISR, 1);
	msix(false);
	taken(line_fd());
	round_trip(0);
	wait_taken(line_fd());
	assert_int_equal(taken(vector_fd(2)), 0);
	assert_int_equal(io_get(VIRTIO_PCI_ISR, 1), 1);
}

/* 23: what happens while a vector is masked is pending, goes out on unmask, and does not outlive a
 * reset. */
static void masked_vectors(void **state)
{
	(void)state;
	msix(true);
	modern_driver(0);
	common_put(VIRTIO_PCI_COMMON_Q_MSIX, 2, 1);
	round_trip(0);
	driver_wait(pending(1));
	assert_false(pending(0));
	put(2, table_at(1), 8, 0xfee00000);
	put(2, table_at(1) + 8, 8, 0x31);
	assert_false(pending(1));
	assert_int_equal(taken(vector_fd(1)), 1); /* KVM's to take */
	put(2, table_at(1) + PCI_MSIX_ENTRY_VECTOR_CTRL, 4, 1);
	round_trip(0);
	driver_wait(pending(1));
	set_status(0);
	driver_wait(status() == 0);
	assert_false(pending(1));
}

static void window_set(u8 bar, u32 offset, u32 length)
{
	u32 at = fixture.window.capability;

	cfg_put(at + VIRTIO_PCI_CAP_BAR, 1, bar);
	cfg_put(at + VIRTIO_PCI_CAP_OFFSET, 4, offset);
	cfg_put(at + VIRTIO_PCI_CAP_LENGTH, 4, length);
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

/* 24: a legacy queue: PFN, read back, 0 stops it; and use before DRIVER_OK. */
static void legacy_queue(void **state)
{
	(void)state;
	for (u16 q = 0; q < QUEUES; q++) {
		legacy_driver(q);
		assert_int_equal(io_get(VIRTIO_PCI_QUEUE_PFN, 4), RING >> 12);
		assert_int_equal(io_get(VIRTIO_PCI_QUEUE_NUM, 2), 64);
		for (u32 i = 0; i < 200; i++)
			round_trip(q);
		driver_wait(atomic_load(&fixture.device.isr) == 1);
		assert_int_equal(io_get(VIRTIO_PCI_ISR, 1), 1);
		io_put(VIRTIO_PCI_QUEUE_PFN, 4, 0);
		assert_int_equal(io_get(VIRTIO_PCI_QUEUE_PFN, 4), 0);
		offer();
		notify_io(q);
		usleep(2000);
		assert_false(driver_used(&fixture.ring, NULL, NULL));
	}
	/* legacy with MSI-X */
	io_put(VIRTIO_PCI_STATUS, 1, 0);
	msix(true);
	put(2, table_at(3) + PCI_MSIX_ENTRY_VECTOR_CTRL, 4, 0);
	legacy_driver(1);
	io_put(VIRTIO_MSI_QUEUE_VECTOR, 2, 3);
	assert_int_equal(io_get(VIRTIO_MSI_QUEUE_VECTOR, 2), 3);
	round_trip(1);
	assert_int_equal(wait_taken(vector_fd(3)), 1);
}

/* Every way to notify, each as doorbell and as exit, before and after the BARs move. */
static void notifications(void **state)
{
	struct fixture *f = &fixture;

	(void)state;
	modern_driver(0);
	for (u32 moved = 0; moved < 2; moved++) {
		for (u32 n = 0; n < 2; n++) {
			const struct structure *notify = &f->notify[n];

			offer();
			put(notify->bar, notify->offset, 2, 0);
			driver_wait_used(&f->ring, NULL, NULL);
		}
		offer();
		put(2, f->notify[1].offset, 4, 0xffff0000);
		driver_wait_used(&f->ring, NULL, NULL);
		offer();
		put(0, VIRTIO_PCI_QUEUE_NOTIFY, 1, 0); /* no doorbell has this width */
		driver_wait_used(&f->ring, NULL, NULL);
		/* nobody's: another queue, no queue, between queues */
		offer();
		put(0, VIRTIO_PCI_QUEUE_NOTIFY, 2, 1);
		put(0, VIRTIO_PCI_QUEUE_NOTIFY, 2, 0xffff);
		put(2, f->notify[1].offset + 4, 2, 0);
		put(2, f->notify[1].offset + 2, 2, 0);
		put(2, f->notify[1].offset + 4 * QUEUES, 2, 0);
		usleep(2000);
		assert_false(driver_used(&f->ring, NULL, NULL));
		put(2, f->notify[1].offset, 8, 0);
		driver_wait_used(&f->ring, NULL, NULL);

		cfg_put(PCI_BASE_ADDRESS_0, 4, 0x8000);
		cfg_put(PCI_BASE_ADDRESS_3, 4, 4);
		discover(f);
	}
	assert_int_equal(f->bars[0], 0x8000);
	assert_int_equal(f->bars[2] >> 32, 4);
}

/* Bus Master set and cleared stops DMA, and set again goes on; a legacy driver that never set it is
 * served. */
static void bus_master(void **state)
{
	(void)state;
	modern_driver(0);
	round_trip(0);
	command(&fixture.pci, SLOT, PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
	offer();
	notify_io(0);
	usleep(5000);
	assert_false(driver_used(&fixture.ring, NULL, NULL));
	command(&fixture.pci, SLOT, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	driver_wait_used(&fixture.ring, NULL, NULL);
	/* cleared by the one before */
	command(&fixture.pci, SLOT, PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
	legacy_driver(0);
	round_trip(0);
	/* a reset of the machine, and never set at all */
	virtio_pci_reset(fixture.function);
	command(&fixture.pci, SLOT, PCI_COMMAND_IO);
	legacy_driver(0);
	round_trip(0);
}

/* A reset of the machine: registers of function and device as at power-on. */
static void power_on(void **state)
{
	u64 io = fixture.bars[0], memory = fixture.bars[2];

	(void)state;
	msix(true);
	modern_driver(BIT64(5));
	common_put(VIRTIO_PCI_COMMON_MSIX, 2, 1);
	common_put(VIRTIO_PCI_COMMON_DFSELECT, 4, 1);
	select_queue(2);
	config_changes(9);
	window_set(2, 0x1234, 4);
	cfg_put(PCI_BASE_ADDRESS_0, 4, 0x8000);
	virtio_pci_reset(fixture.function);
	assert_int_equal(cfg_get(PCI_COMMAND, 2), 0);
	assert_int_equal(bar_address(&fixture.pci, SLOT, 0), io);
	assert_int_equal(bar_address(&fixture.pci, SLOT, 2), memory);
	assert_int_equal(cfg_get(fixture.window.capability + VIRTIO_PCI_CAP_OFFSET, 4), 0);
	assert_int_equal(cfg_get(msix_capability() + PCI_MSIX_FLAGS, 2), QUEUES);
	command(&fixture.pci, SLOT, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	assert_int_equal(status(), 0);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_MSIX, 2), NO_VECTOR);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_DFSELECT, 4), 0);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_Q_SELECT, 2), 0);
	assert_int_equal(io_get(VIRTIO_PCI_ISR, 1), 0);
	modern_driver(0);
	round_trip(0);
	wait_taken(line_fd());
}

/* A broken ring: NEEDS_RESET, and the driver is told through the configuration interrupt. */
static void broken(void **state)
{
	(void)state;
	msix(true);
	put(2, table_at(0) + PCI_MSIX_ENTRY_VECTOR_CTRL, 4, 0);
	modern_driver(0);
	common_put(VIRTIO_PCI_COMMON_MSIX, 2, 0);
	driver_offer(&fixture.ring, 16);
	driver_publish(&fixture.ring);
	notify_io(0);
	assert_int_equal(wait_taken(vector_fd(0)), 1);
	assert_int_equal(status(), DRIVER_BITS | VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_int_equal(io_get(VIRTIO_PCI_ISR, 1), 2);
	set_status(0);
	driver_wait(status() == 0);
	modern_driver(0);
	round_trip(0);
}

/* A second function, moved onto the first: both live, and it can be taken out again. */
static void collision(void **state)
{
	struct fixture *f = &fixture;
	struct virtio_pci_config config = { .host = f->pci.host,
					    .irq = f->pci.irq,
					    .reactors = f->machine.reactors };
	struct virtio_device_config device_config = { .ops = &device_ops,
						      .owner = f,
						      .name = "test1",
						      .memory = &f->machine.memory,
						      .reactors = f->machine.reactors,
						      .config_size = CONFIG_SIZE,
						      .queue_count = QUEUES,
						      .queue_size = 64 };
	static struct virtio_device second;
	struct virtio_pci *function;
	u64 memory;

	(void)state;
	/* rebuilt, because a second device joins before the reactors start */
	machine_down();
	memset(f, 0, sizeof(*f));
	driver_machine_up(&f->machine, RAM, 1, false);
	pci_machine_up(&f->pci);
	device_config.reactors = config.reactors = f->machine.reactors;
	config.host = f->pci.host;
	config.irq = f->pci.irq;
	assert_int_equal(virtio_device_init(&f->device, &device_config), 0);
	assert_int_equal(virtio_device_init(&second, &device_config), 0);
	config.device = &f->device;
	assert_int_equal(virtio_pci_create(&f->function, &config), 0);
	config.device = &second;
	assert_int_equal(virtio_pci_create(&function, &config), 0);
	driver_machine_go(&f->machine);
	discover(f);
	memory = bar_address(&f->pci, 2, 2);
	command(&f->pci, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	config_put(&f->pci, 2, PCI_BASE_ADDRESS_0, 4, (u32)f->bars[0]);
	config_put(&f->pci, 2, PCI_BASE_ADDRESS_2, 4, (u32)f->bars[2]);
	/* the first comes second: its doorbells find the places taken, its registers too */
	command(&f->pci, SLOT, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE);
	assert_int_equal(f->device.status, 0);
	assert_int_equal(second.status, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	/* the other one leaves: no doorbell, but every notification arrives as an exit */
	config_put(&f->pci, 2, PCI_BASE_ADDRESS_0, 4, 0x9000);
	config_put(&f->pci, 2, PCI_BASE_ADDRESS_2, 4, (u32)memory);
	modern_driver(0);
	round_trip(0);
	offer();
	put(2, f->notify[1].offset, 2, 0);
	driver_wait_used(&f->ring, NULL, NULL);
	virtio_device_power_on(&second);
	virtio_pci_destroy(function);
	assert_int_equal(config_get(&f->pci, 2, PCI_VENDOR_ID, 4), 0xffffffff);
	/* without a transport there is nobody to tell */
	virtio_device_broken(&second, "tested");
	round_trip(0);
	virtio_device_power_on(&f->device);
	virtio_pci_destroy(f->function);
	driver_machine_stop(&f->machine);
	virtio_device_destroy(&second);
	virtio_device_destroy(&f->device);
	driver_machine_down(&f->machine);
	pci_machine_down(&f->pci);
	machine_up(VIRTIO_ID_NET, QUEUES, CONFIG_SIZE);
}

/* ---- fuzz ---- */

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
		cmocka_unit_test(ids),
		cmocka_unit_test(capabilities),
		cmocka_unit_test_setup_teardown(legacy_registers, up, down),
		cmocka_unit_test_setup_teardown(legacy_features, up, down),
		cmocka_unit_test_setup_teardown(common_widths, up, down),
		cmocka_unit_test_setup_teardown(features, up, down),
		cmocka_unit_test_setup_teardown(generation, up, down),
		cmocka_unit_test_setup_teardown(modern_reset, up, down),
		cmocka_unit_test_setup_teardown(legacy_reset, up, down),
		cmocka_unit_test_setup_teardown(queue_sizes, up, down),
		cmocka_unit_test_setup_teardown(ring_reset, up, down),
		cmocka_unit_test_setup_teardown(intx, up, down),
		cmocka_unit_test_setup_teardown(vectors, up, down),
		cmocka_unit_test_setup_teardown(masked_vectors, up, down),
		cmocka_unit_test_setup_teardown(window, up, down),
		cmocka_unit_test_setup_teardown(legacy_queue, up, down),
		cmocka_unit_test_setup_teardown(notifications, up, down),
		cmocka_unit_test_setup_teardown(bus_master, up, down),
		cmocka_unit_test_setup_teardown(power_on, up, down),
		cmocka_unit_test_setup_teardown(broken, up, down),
		cmocka_unit_test_setup_teardown(collision, up, down),
		cmocka_unit_test_setup_teardown(fuzz, up, down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
