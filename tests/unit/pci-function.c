/* tsan (the line is watched by a reactor). A function: sizing, moving and decoding BARs, doorbells
 * that follow them, capabilities, command register, INTx. */
#include "tests/unit/pci-machine.h"
#include "vm/reactor.h"

#define IO_SIZE	 64
#define M32_SIZE KIB(8)
#define M64_SIZE KIB(32)
#define BELL	 16 /* offset of the doorbells, in BAR0 and BAR2 */

#define DECODE (PCI_COMMAND_IO | PCI_COMMAND_MEMORY)

struct access {
	unsigned int bar, size;
	u64 offset, value;
};

/* A function that remembers what reached it. */
struct device {
	struct pci_function function;
	struct access last;
	unsigned int reads, writes;
	int masters, bells[2];
	_Atomic bool wants;
};

static u64 device_read(struct pci_function *function, unsigned int bar, u64 offset,
		       unsigned int size)
{
	struct device *device = function->owner;

	device->reads++;
	device->last = (struct access){ bar, size, offset, 0 };
	return 0x8877665544332211ull;
}

static void device_write(struct pci_function *function, unsigned int bar, u64 offset,
			 unsigned int size, u64 value)
{
	struct device *device = function->owner;

	device->writes++;
	device->last = (struct access){ bar, size, offset, value };
}

static void device_master(struct pci_function *function, bool on)
{
	struct device *device = function->owner;

	device->masters += on ? 1 : -1;
}

static const struct pci_function_ops device_ops = {
	.bar_read = device_read,
	.bar_write = device_write,
	.bus_master = device_master,
};

static bool device_wants(struct pci_function *function)
{
	struct device *device = function->owner;

	return device->wants;
}

static struct pci_machine machine;

static struct device *make(u8 slot)
{
	const struct pci_id id = {
		.vendor = 0x1af4,
		.device = 0x1041,
		.subsystem_vendor = 0x1b36,
		.subsystem = 0x1100,
		.revision = 1,
		.class_code = 0x020000,
	};
	struct device *device = calloc(1, sizeof(*device));
	struct pci_function *function = &device->function;

	function->ops = &device_ops;
	function->owner = device;
	function->name = "test";
	function->interrupt_status = device_wants;
	function->bars[0] = (struct pci_bar){ .kind = PCI_BAR_IO, .size = IO_SIZE };
	function->bars[1] = (struct pci_bar){ .kind = PCI_BAR_MEM32, .size = M32_SIZE };
	function->bars[2] = (struct pci_bar){ .kind = PCI_BAR_MEM64, .size = M64_SIZE };
	pci_function_init(function, &id);
	for (u8 i = 0; i < 2; i++) {
		struct pci_doorbell bell = { .bar = (u8)(2 * i),
					     .offset = BELL,
					     .length = i ? 0 : 2,
					     .match = !i,
					     .value = 3 };

		device->bells[i] = bell.fd = eventfd(0, EFD_NONBLOCK);
		assert_int_equal(pci_doorbell_add(function, &bell), 0);
	}
	assert_int_equal(pci_function_plug(machine.host, function, slot), 0);
	return device;
}

static void drop(struct device *device)
{
	pci_function_unplug(&device->function);
	pci_function_destroy(&device->function);
	close(device->bells[0]);
	close(device->bells[1]);
	free(device);
}

static int up(void **state)
{
	pci_machine_up(&machine);
	*state = make(1);
	return 0;
}

static int down(void **state)
{
	drop(*state);
	pci_machine_down(&machine);
	return 0;
}

static u64 in(enum bus_space space, u64 at, unsigned int size)
{
	return bus_read(machine.bus, space, at, size);
}

static void out(enum bus_space space, u64 at, unsigned int size, u64 value)
{
	bus_write(machine.bus, space, at, size, value);
}

static void header(void **state)
{
	(void)state;
	for (u32 i = 0; i < 2; i++) {
		assert_int_equal(config_get(&machine, 1, PCI_VENDOR_ID, 4), 0x10411af4);
		assert_int_equal(config_get(&machine, 1, PCI_CLASS_REVISION, 4), 0x02000001);
		assert_int_equal(config_get(&machine, 1, PCI_SUBSYSTEM_VENDOR_ID, 4), 0x11001b36);
		assert_int_equal(config_get(&machine, 1, PCI_HEADER_TYPE, 1), 0);
		assert_int_equal(config_get(&machine, 1, PCI_INTERRUPT_PIN, 1), 1);
		assert_int_equal(config_get(&machine, 1, PCI_ROM_ADDRESS, 4), 0);
		assert_int_equal(config_get(&machine, 1, PCI_CARDBUS_CIS, 4), 0);
		/* whatever is written, but for what decides something */
		for (u32 reg = 0; reg < 256; reg += 4)
			if (reg != PCI_COMMAND)
				config_put(&machine, 1, reg, 4, i ? 0 : 0xffffffff);
	}
	config_put(&machine, 1, PCI_COMMAND, 4, 0xffffffff);
	assert_int_equal(config_get(&machine, 1, PCI_COMMAND, 2),
			 DECODE | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
}

static void sizing(void **state)
{
	const u32 bars[] = { PCI_BASE_ADDRESS_0, PCI_BASE_ADDRESS_1, PCI_BASE_ADDRESS_2,
			     PCI_BASE_ADDRESS_3, PCI_BASE_ADDRESS_4, PCI_BASE_ADDRESS_5 };
	const u32 masks[] = {
		(u32)-IO_SIZE | 1, (u32)-M32_SIZE, (u32)-M64_SIZE | 4, 0xffffffff, 0, 0
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bars); i++) {
		u32 before = config_get(&machine, 1, bars[i], 4);

		config_put(&machine, 1, bars[i], 4, 0xffffffff);
		assert_int_equal(config_get(&machine, 1, bars[i], 4), masks[i]);
		config_put(&machine, 1, bars[i], 4, before);
		assert_int_equal(config_get(&machine, 1, bars[i], 4), before);
	}
	/* byte by byte gives the same */
	for (u32 i = 0; i < 4; i++)
		config_put(&machine, 1, PCI_BASE_ADDRESS_2 + i, 1, 0xff);
	assert_int_equal(config_get(&machine, 1, PCI_BASE_ADDRESS_2, 4), masks[2]);
}

static void decoding(void **state)
{
	struct device *device = *state;
	u64 io = bar_address(&machine, 1, 0), m32 = bar_address(&machine, 1, 1),
	    m64 = bar_address(&machine, 1, 2);

	assert_int_equal(in(BUS_PIO, io, 1), 0xff);
	assert_int_equal(in(BUS_MMIO, m32, 4), 0xffffffff);
	command(&machine, 1, PCI_COMMAND_IO);
	assert_int_equal(in(BUS_PIO, io + 5, 1), 0x11);
	assert_int_equal(device->last.bar, 0);
	assert_int_equal(device->last.offset, 5);
	assert_int_equal(in(BUS_MMIO, m32, 4), 0xffffffff);
	command(&machine, 1, PCI_COMMAND_MEMORY);
	assert_int_equal(in(BUS_PIO, io, 1), 0xff);
	out(BUS_MMIO, m32 + M32_SIZE - 8, 8, 0x123456789abcdef0ull);
	assert_int_equal(device->last.bar, 1);
	assert_int_equal(device->last.offset, M32_SIZE - 8);
	assert_true(device->last.value == 0x123456789abcdef0ull);
	in(BUS_MMIO, m64 + M64_SIZE - 1, 1);
	assert_int_equal(device->last.bar, 2);
	assert_int_equal(device->last.offset, M64_SIZE - 1);
	in(BUS_MMIO, m64 + M64_SIZE, 1);
	assert_int_equal(device->last.offset, M64_SIZE - 1);
	command(&machine, 1, 0);
	assert_int_equal(in(BUS_MMIO, m64, 4), 0xffffffff);
}

static void moving(void **state)
{
	struct device *device = *state;
	u64 old = bar_address(&machine, 1, 2), new = WINDOW64 + GIB(3) + M64_SIZE;

	command(&machine, 1, DECODE);
	/* with decoding on: through an address of old and new halves */
	config_put(&machine, 1, PCI_BASE_ADDRESS_2, 4, (u32) new);
	config_put(&machine, 1, PCI_BASE_ADDRESS_3, 4, (u32)(new >> 32));
	assert_int_equal(in(BUS_MMIO, old, 4), 0xffffffff);
	assert_int_equal(in(BUS_MMIO, new + 4, 4), 0x44332211);
	assert_int_equal(device->last.offset, 4);
	config_put(&machine, 1, PCI_BASE_ADDRESS_0, 4, 0x2340);
	in(BUS_PIO, 0x2340 + 7, 1);
	assert_int_equal(device->last.offset, 7);
	config_put(&machine, 1, PCI_BASE_ADDRESS_1, 4, 0xd0000000);
	in(BUS_MMIO, 0xd0000000 + 8, 1);
	assert_int_equal(device->last.offset, 8);
	/* one register in single bytes */
	config_put(&machine, 1, PCI_BASE_ADDRESS_1 + 2, 1, 0x12);
	in(BUS_MMIO, 0xd0120000 + 12, 1);
	assert_int_equal(device->last.offset, 12);
}

/* Sizing with decoding on, and places that are none. */
static void silly_addresses(void **state)
{
	struct device *device = *state;
	const struct {
		u32 bar, low, high;
		u64 at;
		enum bus_space space;
	} places[] = {
		{ 0, 0xffffffff, 0, 0xffc0, BUS_PIO },	    /* beyond 64 KiB */
		{ 0, 0, 0, 0, BUS_PIO },		    /* unassigned */
		{ 0, 0x10000, 0, 0, BUS_PIO },		    /* just beyond */
		{ 1, 0xffffffff, 0, 0xffffe000, BUS_MMIO }, /* the sizing value */
		{ 1, 0, 0, 0, BUS_MMIO },
		{ 2, 0xffffffff, 0xffffffff, 0xffffffffffff8000, BUS_MMIO },
		{ 2, 0, 0xfff00000, 0xfff0000000000000, BUS_MMIO },
		{ 2, 0, 0, 0, BUS_MMIO },
	};

	command(&machine, 1, DECODE);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		u32 reg = PCI_BASE_ADDRESS_0 + 4 * places[i].bar;
		unsigned int reads = device->reads;

		config_put(&machine, 1, reg, 4, places[i].low);
		if (places[i].bar == 2)
			config_put(&machine, 1, reg + 4, 4, places[i].high);
		assert_int_equal(in(places[i].space, places[i].at, 1), 0xff);
		assert_int_equal(device->reads, reads);
		out(places[i].space, places[i].at + BELL, 2, 3);
		assert_int_equal(taken(device->bells[0]) + taken(device->bells[1]), 0);
	}
	/* the last ports there are */
	config_put(&machine, 1, PCI_BASE_ADDRESS_0, 4, 0xffc0);
	assert_int_equal(in(BUS_PIO, 0xffff, 1), 0x11);
	/* onto RAM, onto ECAM: lives */
	config_put(&machine, 1, PCI_BASE_ADDRESS_1, 4, 0x100000);
	config_put(&machine, 1, PCI_BASE_ADDRESS_1, 4, LAYOUT_ECAM_START);
	assert_int_equal(config_get(&machine, 1, PCI_VENDOR_ID, 2), 0x1af4);
}

static void doorbells_follow(void **state)
{
	struct device *device = *state;
	u64 io = bar_address(&machine, 1, 0), m64 = bar_address(&machine, 1, 2);

	out(BUS_MMIO, m64 + BELL, 2, 0);
	assert_int_equal(taken(device->bells[1]), 0);
	command(&machine, 1, DECODE);
	out(BUS_PIO, io + BELL, 2, 3);
	assert_int_equal(taken(device->bells[0]), 1);
	out(BUS_MMIO, m64 + BELL, 2, 77);
	out(BUS_MMIO, m64 + BELL, 4, 77);
	assert_int_equal(taken(device->bells[1]), 2);
	assert_int_equal(device->writes, 0);
	/* another value, another width: an exit */
	out(BUS_PIO, io + BELL, 2, 4);
	out(BUS_PIO, io + BELL, 1, 3);
	assert_int_equal(device->writes, 2);
	assert_int_equal(taken(device->bells[0]), 0);
	/* they go where the BAR goes */
	config_put(&machine, 1, PCI_BASE_ADDRESS_0, 4, 0x4000);
	config_put(&machine, 1, PCI_BASE_ADDRESS_2, 4, 0x80000000);
	m64 = (m64 & ~0xffffffffull) | 0x80000000;
	out(BUS_PIO, io + BELL, 2, 3);
	assert_int_equal(taken(device->bells[0]), 0);
	out(BUS_PIO, 0x4000 + BELL, 2, 3);
	assert_int_equal(taken(device->bells[0]), 1);
	out(BUS_MMIO, m64 + BELL, 2, 0);
	assert_int_equal(taken(device->bells[1]), 1);
	/* and with decoding */
	command(&machine, 1, 0);
	out(BUS_PIO, 0x4000 + BELL, 2, 3);
	out(BUS_MMIO, m64 + BELL, 2, 0);
	assert_int_equal(taken(device->bells[0]) + taken(device->bells[1]), 0);
	assert_int_equal(device->writes, 2);
}

/* Two functions at one place: the first one's doorbell stays, nobody crashes, the other comes back
 * to life by itself. */
static void doorbells_collide(void **state)
{
	struct device *first = *state, *second = make(2);

	command(&machine, 1, DECODE);
	command(&machine, 2, DECODE);
	config_put(&machine, 1, PCI_BASE_ADDRESS_0, 4, 0x4000);
	config_put(&machine, 2, PCI_BASE_ADDRESS_0, 4, 0x4000);
	out(BUS_PIO, 0x4000 + BELL, 2, 3);
	assert_int_equal(taken(first->bells[0]), 1);
	assert_int_equal(taken(second->bells[0]), 0);
	/* the first leaves: now an exit reaches the second */
	config_put(&machine, 1, PCI_BASE_ADDRESS_0, 4, 0x5000);
	out(BUS_PIO, 0x4000 + BELL, 2, 3);
	assert_int_equal(second->writes, 1);
	assert_int_equal(second->last.offset, BELL);
	/* it moves: its doorbell rings again */
	config_put(&machine, 2, PCI_BASE_ADDRESS_0, 4, 0x6000);
	out(BUS_PIO, 0x6000 + BELL, 2, 3);
	assert_int_equal(taken(second->bells[0]), 1);
	drop(second);
	out(BUS_PIO, 0x5000 + BELL, 2, 3);
	assert_int_equal(taken(first->bells[0]), 1);
}

static void any_length_missing(void **state)
{
	struct pci_host_config config = { .bus = machine.bus,
					  .irq = machine.irq,
					  .window64_start = WINDOW64,
					  .window64_size = WINDOW64_SIZE };
	struct device *device;
	u64 at;

	drop(*state);
	pci_host_destroy(machine.host);
	assert_int_equal(pci_host_create(&machine.host, &config), 0);
	*state = device = make(1);
	command(&machine, 1, DECODE);
	at = bar_address(&machine, 1, 2) + BELL;
	out(BUS_MMIO, at, 2, 0);
	assert_int_equal(taken(device->bells[1]), 1);
	out(BUS_MMIO, at, 4, 0);
	assert_int_equal(taken(device->bells[1]), 0);
	assert_int_equal(device->writes, 1);
}

static void unplugged(void **state)
{
	struct device *device = make(0);
	u32 slot = device->function.slot;
	u64 m64 = bar_address(&machine, slot, 2);

	(void)state;
	command(&machine, slot, DECODE);
	out(BUS_MMIO, m64 + BELL, 2, 0);
	assert_int_equal(taken(device->bells[1]), 1);
	pci_function_unplug(&device->function);
	assert_int_equal(config_get(&machine, slot, 0, 4), 0xffffffff);
	assert_int_equal(in(BUS_MMIO, m64, 4), 0xffffffff);
	out(BUS_MMIO, m64 + BELL, 2, 0);
	assert_int_equal(taken(device->bells[1]), 0);
	assert_int_equal(pci_intx_fd(&device->function), -1);
	assert_int_equal(irq_shared_fd(machine.irq, LAYOUT_GSI_PCI + slot % 8), -1);
	drop(device);
}

static void capabilities(void **state)
{
	struct pci_function function = { .ops = &device_ops, .name = "caps" };
	int first, second, at, count = 2;

	(void)state;
	pci_function_init(&function, &(struct pci_id){ .vendor = 1 });
	assert_int_equal(function.config[PCI_STATUS] & PCI_STATUS_CAP_LIST, 0);
	first = pci_capability_add(&function, PCI_CAP_ID_VNDR, 17);
	second = pci_capability_add(&function, PCI_CAP_ID_MSIX, 12);
	assert_int_equal(first, 0x40);
	assert_int_equal(second, 0x54);
	assert_int_equal(function.config[PCI_CAPABILITY_LIST], first);
	assert_int_equal(function.config[first + 1], second);
	assert_int_equal(function.config[second + 1], 0);
	assert_int_equal(function.config[first], PCI_CAP_ID_VNDR);
	assert_int_equal(function.config[PCI_STATUS] & PCI_STATUS_CAP_LIST, PCI_STATUS_CAP_LIST);
	while ((at = pci_capability_add(&function, PCI_CAP_ID_VNDR, 16)) >= 0) {
		assert_true(at + 16 <= PCI_CONFIG_SIZE);
		assert_true(++count < 32);
	}
	assert_int_equal(at, -ENOSPC);
	assert_int_equal(pci_capability_add(&function, PCI_CAP_ID_VNDR, 255), -ENOSPC);
	pci_function_destroy(&function);
}

static void bus_master(void **state)
{
	struct device *device = *state;

	assert_false(pci_bus_master(&device->function));
	command(&machine, 1, PCI_COMMAND_MASTER);
	command(&machine, 1, PCI_COMMAND_MASTER | PCI_COMMAND_IO);
	assert_int_equal(device->masters, 1);
	assert_true(pci_bus_master(&device->function));
	config_put(&machine, 1, PCI_COMMAND, 1, PCI_COMMAND_IO);
	assert_int_equal(device->masters, 0);
}

static void intx(void **state)
{
	struct device *device = *state;
	int line = pci_intx_fd(&device->function);

	assert_true(line >= 0);
	assert_true(pci_intx_allowed(&device->function));
	assert_int_equal(config_get(&machine, 1, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, 0);
	pci_intx_changed(&device->function);
	assert_int_equal(taken(line), 0);
	device->wants = true;
	assert_int_equal(config_get(&machine, 1, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT,
			 PCI_STATUS_INTERRUPT);
	assert_int_equal(config_get(&machine, 1, PCI_COMMAND, 4) >> 16 & PCI_STATUS_INTERRUPT,
			 PCI_STATUS_INTERRUPT);
	pci_intx_changed(&device->function);
	assert_int_equal(taken(line), 1);
	/* disabled: status still shows it, the line stays */
	command(&machine, 1, PCI_COMMAND_INTX_DISABLE);
	assert_false(pci_intx_allowed(&device->function));
	assert_int_equal(config_get(&machine, 1, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT,
			 PCI_STATUS_INTERRUPT);
	pci_intx_changed(&device->function);
	irq_shared_resampled(machine.irq, device->function.gsi);
	assert_int_equal(taken(line), 0);
	/* enabled again while it wants: raised */
	command(&machine, 1, 0);
	assert_int_equal(taken(line), 1);
	device->wants = false;
	assert_int_equal(config_get(&machine, 1, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, 0);
}

/* The end of an interrupt raises the line again for whoever of those that share it still asks. */
static void resample(void **state)
{
	struct device *device = *state, *sharing = make(9), *other = make(2);
	struct reactors_config config = { .count = 1, .max_files = 16 };
	struct reactors *reactors;
	int line = pci_intx_fd(&device->function), end;
	eventfd_t value;

	assert_int_equal(device->function.gsi, sharing->function.gsi);
	assert_int_equal(line, pci_intx_fd(&sharing->function));
	assert_int_equal(reactors_create(&reactors, &config), 0);
	assert_int_equal(pci_intx_watch(&device->function, reactors), 0);
	assert_int_equal(pci_intx_watch(&sharing->function, reactors), 0);
	assert_int_equal(pci_intx_watch(&other->function, reactors), 0);
	assert_int_equal(reactors_start(reactors), 0);
	end = irq_shared_resample_fd(machine.irq, device->function.gsi);
	sharing->wants = true;
	assert_int_equal(eventfd_write(end, 1), 0);
	for (int i = 0; i < 5000 && eventfd_read(line, &value); i++)
		usleep(1000);
	assert_int_equal(value, 1);
	sharing->wants = false;
	other->wants = true; /* another line's matter */
	assert_int_equal(eventfd_write(end, 1), 0);
	usleep(20000);
	assert_int_equal(taken(line), 0);
	/* the line outlives the functions on it, for those that come later */
	drop(sharing);
	drop(other);
	drop(device);
	assert_int_equal(irq_shared_resample_fd(machine.irq, LAYOUT_GSI_PCI + 1), end);
	*state = device = make(1);
	device->wants = true;
	assert_int_equal(eventfd_write(end, 1), 0);
	for (int i = 0; i < 5000 && eventfd_read(line, &value); i++)
		usleep(1000);
	assert_int_equal(value, 1);
	reactors_destroy(reactors);
}

static void power_on(void **state)
{
	struct device *device = *state;
	u64 io = bar_address(&machine, 1, 0), m64 = bar_address(&machine, 1, 2);

	command(&machine, 1, DECODE | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
	config_put(&machine, 1, PCI_BASE_ADDRESS_0, 4, 0x4000);
	config_put(&machine, 1, PCI_BASE_ADDRESS_2, 4, 0x80000000);
	config_put(&machine, 1, PCI_INTERRUPT_LINE, 1, 0x33);
	pci_function_reset(&device->function);
	assert_int_equal(config_get(&machine, 1, PCI_COMMAND, 2), 0);
	assert_int_equal(bar_address(&machine, 1, 0), io);
	assert_int_equal(bar_address(&machine, 1, 2), m64);
	assert_int_equal(config_get(&machine, 1, PCI_INTERRUPT_LINE, 1), device->function.gsi);
	assert_int_equal(in(BUS_PIO, 0x4000, 1), 0xff);
	assert_int_equal(in(BUS_PIO, io, 1), 0xff);
	assert_int_equal(device->masters, 0);
	command(&machine, 1, DECODE);
	out(BUS_PIO, io + BELL, 2, 3);
	assert_int_equal(taken(device->bells[0]), 1);
}

static void inside_access(void **state)
{
	struct device *device = *state;
	struct pci_function *function = &device->function;

	pthread_mutex_lock(&function->lock);
	assert_int_equal(pci_bar_access_read(function, 2, 4, 4),
			 0x44332211 | 0x8877665500000000ull);
	assert_int_equal(pci_bar_access_read(function, 0, IO_SIZE - 1, 2), 0xffff);
	assert_int_equal(pci_bar_access_read(function, 0, ~0ull, 2), 0xffff);
	assert_int_equal(pci_bar_access_read(function, 3, 0, 1), 0xff);
	assert_int_equal(pci_bar_access_read(function, 6, 0, 4), 0xffffffff);
	assert_int_equal(pci_bar_access_read(function, 4, 0, 8), ~0ull);
	pci_bar_access_write(function, 255, 0, 4, 1);
	pci_bar_access_write(function, 1, M32_SIZE, 4, 1);
	pthread_mutex_unlock(&function->lock);
	assert_int_equal(device->reads, 1);
	assert_int_equal(device->writes, 0);
}

static void bad_doorbells(void **state)
{
	struct pci_function function = { .ops = &device_ops, .name = "bells" };
	struct pci_doorbell bell = { .bar = 0, .offset = 0, .length = 0 };

	(void)state;
	function.bars[0] = (struct pci_bar){ .kind = PCI_BAR_IO, .size = 32 };
	pci_function_init(&function, &(struct pci_id){ .vendor = 1 });
	assert_int_equal(pci_doorbell_add(&function, &bell), -EINVAL); /* any length: memory only */
	bell = (struct pci_doorbell){ .bar = 0, .offset = 32, .length = 2 };
	assert_int_equal(pci_doorbell_add(&function, &bell), -EINVAL);
	bell = (struct pci_doorbell){ .bar = 6, .offset = 0, .length = 2 };
	assert_int_equal(pci_doorbell_add(&function, &bell), -EINVAL);
	bell = (struct pci_doorbell){ .bar = 0, .offset = 4, .length = 2 };
	for (u32 i = 0; i < PCI_MAX_DOORBELLS; i++)
		assert_int_equal(pci_doorbell_add(&function, &bell), 0);
	assert_int_equal(pci_doorbell_add(&function, &bell), -ENOSPC);
	pci_function_destroy(&function);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(header, up, down),
		cmocka_unit_test_setup_teardown(sizing, up, down),
		cmocka_unit_test_setup_teardown(decoding, up, down),
		cmocka_unit_test_setup_teardown(moving, up, down),
		cmocka_unit_test_setup_teardown(silly_addresses, up, down),
		cmocka_unit_test_setup_teardown(doorbells_follow, up, down),
		cmocka_unit_test_setup_teardown(doorbells_collide, up, down),
		cmocka_unit_test_setup_teardown(any_length_missing, up, down),
		cmocka_unit_test_setup_teardown(unplugged, up, down),
		cmocka_unit_test_setup_teardown(capabilities, up, down),
		cmocka_unit_test_setup_teardown(bus_master, up, down),
		cmocka_unit_test_setup_teardown(intx, up, down),
		cmocka_unit_test_setup_teardown(resample, up, down),
		cmocka_unit_test_setup_teardown(power_on, up, down),
		cmocka_unit_test_setup_teardown(inside_access, up, down),
		cmocka_unit_test_setup_teardown(bad_doorbells, up, down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
