/*
 * A device of no type behind virtio/pci, without KVM, and a guest that drives it through config
 * space and BARs as a driver would, by both layouts: for the tests of virtio/pci*.c. One device at
 * a time, in `fixture`, in slot 1.
 */
#ifndef TESTS_UNIT_VIRTIO_PCI_MACHINE_H
#define TESTS_UNIT_VIRTIO_PCI_MACHINE_H

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

static inline enum virtio_served device_serve(struct virtio_queue *queue)
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
static inline void release_run(struct reactor_message *message)
{
	struct fixture *f = container_of(message, struct fixture, release);

	while (f->held_count)
		virtio_queue_push(&f->device.queues[0], f->held[--f->held_count], 0);
	f->hold = false;
	f->released++;
}

static inline void device_config_write(struct virtio_device *device, u32 offset, u32 size,
				       u64 value)
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

#define NOTIFICATION_DATA BIT64(VIRTIO_F_NOTIFICATION_DATA)

/* ---- the guest ---- */

static inline enum bus_space space_of(unsigned int bar)
{
	return bar ? BUS_MMIO : BUS_PIO;
}

static inline u64 get(unsigned int bar, u64 offset, unsigned int size)
{
	return bus_read(fixture.pci.bus, space_of(bar), fixture.bars[bar] + offset, size);
}

static inline void put(unsigned int bar, u64 offset, unsigned int size, u64 value)
{
	bus_write(fixture.pci.bus, space_of(bar), fixture.bars[bar] + offset, size, value);
}

static inline u64 io_get(u32 offset, unsigned int size)
{
	return get(0, offset, size);
}

static inline void io_put(u32 offset, unsigned int size, u64 value)
{
	put(0, offset, size, value);
}

static inline u64 common_get(u32 offset, unsigned int size)
{
	return get(fixture.common.bar, fixture.common.offset + offset, size);
}

static inline void common_put(u32 offset, unsigned int size, u64 value)
{
	put(fixture.common.bar, fixture.common.offset + offset, size, value);
}

static inline u32 cfg_get(u32 offset, unsigned int size)
{
	return config_get(&fixture.pci, SLOT, offset, size);
}

static inline void cfg_put(u32 offset, unsigned int size, u32 value)
{
	config_put(&fixture.pci, SLOT, offset, size, value);
}

static inline u8 status(void)
{
	return (u8)common_get(VIRTIO_PCI_COMMON_STATUS, 1);
}

static inline void set_status(u8 value)
{
	common_put(VIRTIO_PCI_COMMON_STATUS, 1, value);
}

static inline void read_structure(u32 at, struct structure *s)
{
	s->capability = at;
	s->bar = (u8)cfg_get(at + VIRTIO_PCI_CAP_BAR, 1);
	s->offset = cfg_get(at + VIRTIO_PCI_CAP_OFFSET, 4);
	s->length = cfg_get(at + VIRTIO_PCI_CAP_LENGTH, 4);
	if (cfg_get(at + VIRTIO_PCI_CAP_CFG_TYPE, 1) == VIRTIO_PCI_CAP_NOTIFY_CFG)
		s->multiplier = cfg_get(at + VIRTIO_PCI_NOTIFY_CAP_MULT, 4);
}

static inline void discover(struct fixture *f)
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

static inline void machine_up_as(u16 id, u16 queues, u32 config_size,
				 const struct config_function *function)
{
	struct fixture *f = &fixture;
	struct virtio_device_config config = {
		.ops = &device_ops,
		.owner = f,
		.name = "test0",
		.memory = &f->machine.memory,
		.features = BIT64(5) | BIT64(40) | BIT64(50) |
			    (function && function->notify_data ? NOTIFICATION_DATA : 0),
		.config_size = config_size,
		.queue_count = queues,
		.queue_size = 64,
		.queue_offer = function ? function->queue_size : 0
	};
	struct virtio_pci_config pci = { .device = &f->device, .function = function };

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

static inline void machine_up(u16 id, u16 queues, u32 config_size)
{
	machine_up_as(id, queues, config_size, NULL);
}

static inline void machine_down(void)
{
	struct fixture *f = &fixture;

	virtio_device_power_on(&f->device);
	virtio_pci_destroy(f->function);
	driver_machine_stop(&f->machine);
	virtio_device_destroy(&f->device);
	driver_machine_down(&f->machine);
	pci_machine_down(&f->pci);
}

static inline int up(void **state)
{
	(void)state;
	machine_up(VIRTIO_ID_NET, QUEUES, CONFIG_SIZE);
	return 0;
}

static inline int down(void **state)
{
	(void)state;
	machine_down();
	return 0;
}

/* ---- driver moves ---- */

static inline void select_queue(u16 index)
{
	common_put(VIRTIO_PCI_COMMON_Q_SELECT, 2, index);
}

static inline void modern_features(u64 features)
{
	for (u32 i = 0; i < 2; i++) {
		common_put(VIRTIO_PCI_COMMON_GFSELECT, 4, i);
		common_put(VIRTIO_PCI_COMMON_GF, 4, (u32)(features >> 32 * i));
	}
	set_status(status() | VIRTIO_CONFIG_S_FEATURES_OK);
	assert_true(status() & VIRTIO_CONFIG_S_FEATURES_OK);
}

static inline void modern_queue(u16 index, u64 at)
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
static inline void modern_driver(u64 features)
{
	set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE);
	set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	modern_features(features | BIT64(VIRTIO_F_VERSION_1));
	modern_queue(0, RING);
	set_status(DRIVER_BITS);
	assert_int_equal(status(), DRIVER_BITS);
}

static inline void legacy_driver(u16 queue)
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

static inline void offer(void)
{
	const struct driver_part part = { BUFFER, 512, true };

	assert_true(driver_add(&fixture.ring, &part, 1) >= 0);
	driver_publish(&fixture.ring);
}

static inline void notify_io(u16 queue)
{
	io_put(VIRTIO_PCI_QUEUE_NOTIFY, 2, queue);
}

/* One buffer there and back. */
static inline void round_trip(u16 queue)
{
	offer();
	notify_io(queue);
	driver_wait_used(&fixture.ring, NULL, NULL);
}

static inline u32 msix_capability(void)
{
	return find_capability(&fixture.pci, SLOT, PCI_CAP_ID_MSIX, 0);
}

static inline void msix(bool on)
{
	cfg_put(msix_capability() + PCI_MSIX_FLAGS, 2, on ? PCI_MSIX_FLAGS_ENABLE : 0);
}

static inline u64 table_at(u32 vector)
{
	return (cfg_get(msix_capability() + PCI_MSIX_TABLE, 4) & ~7u) + 16 * vector;
}

static inline bool pending(u32 vector)
{
	u64 pba = cfg_get(msix_capability() + PCI_MSIX_PBA, 4) & ~7u;

	return get(2, pba, 8) >> vector & 1;
}

static inline int vector_fd(u16 vector)
{
	/* The function is the first thing in struct virtio_pci; the tests of pci/ know it, a driver
	 * does not. */
	return pci_msix_fd((struct pci_function *)(void *)fixture.function, vector);
}

static inline int line_fd(void)
{
	return irq_shared_fd(fixture.pci.irq, LAYOUT_GSI_PCI + SLOT);
}

static inline void config_changes(u8 value)
{
	virtio_config_update(&fixture.device, 3, &value, 1);
}

/* Waits until an eventfd was written, and takes what it holds. */
static inline u64 wait_taken(int fd)
{
	u64 value = 0;

	driver_wait((value = taken(fd)) != 0);
	return value;
}

/* Points the configuration access window somewhere. */
static inline void window_set(u8 bar, u32 offset, u32 length)
{
	u32 at = fixture.window.capability;

	cfg_put(at + VIRTIO_PCI_CAP_BAR, 1, bar);
	cfg_put(at + VIRTIO_PCI_CAP_OFFSET, 4, offset);
	cfg_put(at + VIRTIO_PCI_CAP_LENGTH, 4, length);
}

#endif
