/* tsan: virtio over MMIO (virtio 1.3, 4.2), without KVM: registers, queues, line, reset. */
#include "tests/unit/driver.h"
#include "tests/unit/pci-machine.h"
#include <linux/virtio_mmio.h>
#include "virtio/mmio.h"
#include "virtio/strict.h"
#include "vm/layout.h"

#define RAM	     MIB(4)
#define RING	     0x10000ull
#define BUFFER	     0x100000ull
#define BASE	     LAYOUT_MMIO_START
#define GSI	     17
#define QUEUE_RESET  0x0c0
#define CONFIG_SIZE  20
#define ALL_STATUS   15
#define SIZE_OF_PAGE 4096

static struct fixture {
	struct driver_machine machine;
	struct pci_machine pci; /* for its bus and interrupts */
	struct virtio_device device;
	struct virtio_mmio *mmio;
	struct driver_ring ring;
	_Atomic bool hold;
	_Atomic u32 held;
	u16 heads[64];
	struct reactor_message release;
} fixture;

static enum virtio_served device_serve(struct virtio_queue *queue)
{
	struct fixture *f = queue->device->owner;
	struct iovec iov[VQ_MAX_SIZE];
	struct vq_buffer buffer;

	while (virtio_queue_pop(queue, &buffer, iov, ARRAY_SIZE(iov)) == 1) {
		if (f->hold)
			f->heads[f->held++] = buffer.head;
		else
			virtio_queue_push(queue, buffer.head, 0);
	}
	return VIRTIO_SERVED_ALL;
}

static void release_run(struct reactor_message *message)
{
	struct fixture *f = container_of(message, struct fixture, release);

	f->hold = false;
	while (f->held)
		virtio_queue_push(&f->device.queues[1], f->heads[--f->held], 0);
}

static void device_config_write(struct virtio_device *device, u32 offset, u32 size, u64 value)
{
	le_store(device->config + offset, size, value);
}

static const struct virtio_device_ops device_ops = {
	.id = VIRTIO_ID_BLOCK,
	.name = "test",
	.serve = device_serve,
	.config_write = device_config_write,
};

static u32 get(u32 offset)
{
	return (u32)bus_read(fixture.pci.bus, BUS_MMIO, BASE + offset, 4);
}

static void put(u32 offset, u32 value)
{
	bus_write(fixture.pci.bus, BUS_MMIO, BASE + offset, 4, value);
}

static int up_with(enum config_strict mode)
{
	struct fixture *f = &fixture;
	struct virtio_device_config config = { .ops = &device_ops,
					       .owner = f,
					       .name = "test0",
					       .memory = &f->machine.memory,
					       .features = BIT64(5) | BIT64(40),
					       .config_size = CONFIG_SIZE,
					       .queue_count = 2,
					       .queue_size = 64 };
	struct virtio_mmio_config mmio = {
		.device = &f->device, .address = BASE, .gsi = GSI, .first = true
	};

	memset(f, 0, sizeof(*f));
	driver_machine_up(&f->machine, RAM, 1, false);
	pci_machine_up(&f->pci);
	config.reactors = mmio.reactors = f->machine.reactors;
	assert_int_equal(virtio_device_init(&f->device, &config), 0);
	assert_int_equal(strict_attach(&f->device, mode), 0);
	for (u32 i = 0; i < CONFIG_SIZE; i++)
		f->device.config[i] = (u8)(0xa0 + i);
	f->release.run = release_run;
	mmio.bus = f->pci.bus;
	mmio.irq = f->pci.irq;
	assert_int_equal(virtio_mmio_create(&f->mmio, &mmio), 0);
	driver_machine_go(&f->machine);
	return 0;
}

static int up(void **state)
{
	(void)state;
	return up_with(CONFIG_STRICT_OFF);
}

static int up_strict(void **state)
{
	(void)state;
	return up_with(CONFIG_STRICT_WARN);
}

static int down(void **state)
{
	struct fixture *f = &fixture;

	(void)state;
	virtio_device_power_on(&f->device);
	driver_machine_stop(&f->machine);
	virtio_mmio_destroy(f->mmio);
	virtio_device_destroy(&f->device);
	driver_machine_down(&f->machine);
	pci_machine_down(&f->pci);
	return 0;
}

static void queue_up(u16 index)
{
	struct driver_ring *ring = &fixture.ring;

	driver_ring_init(ring, &fixture.machine.memory, RING, 16, false);
	put(VIRTIO_MMIO_QUEUE_SEL, index);
	put(VIRTIO_MMIO_QUEUE_NUM, 16);
	put(VIRTIO_MMIO_QUEUE_DESC_LOW, (u32)ring->descriptors_at);
	put(VIRTIO_MMIO_QUEUE_DESC_HIGH, 0);
	put(VIRTIO_MMIO_QUEUE_AVAIL_LOW, (u32)ring->available_at);
	put(VIRTIO_MMIO_QUEUE_AVAIL_HIGH, 0);
	put(VIRTIO_MMIO_QUEUE_USED_LOW, (u32)ring->used_at);
	put(VIRTIO_MMIO_QUEUE_USED_HIGH, 0);
	put(VIRTIO_MMIO_QUEUE_READY, 1);
}

static void negotiate(u64 features)
{
	put(VIRTIO_MMIO_STATUS, 0);
	put(VIRTIO_MMIO_STATUS, 1);
	put(VIRTIO_MMIO_STATUS, 3);
	for (u32 i = 0; i < 2; i++) {
		put(VIRTIO_MMIO_DRIVER_FEATURES_SEL, i);
		put(VIRTIO_MMIO_DRIVER_FEATURES, (u32)(features >> 32 * i));
	}
	put(VIRTIO_MMIO_STATUS, 11);
}

static void driver(u64 features)
{
	negotiate(features | BIT64(VIRTIO_F_VERSION_1));
	assert_int_equal(get(VIRTIO_MMIO_STATUS), 11);
	queue_up(1);
	put(VIRTIO_MMIO_STATUS, ALL_STATUS);
	assert_int_equal(get(VIRTIO_MMIO_STATUS), ALL_STATUS);
}

static void offer(void)
{
	const struct driver_part part = { BUFFER, 512, true };

	assert_true(driver_add(&fixture.ring, &part, 1) >= 0);
	driver_publish(&fixture.ring);
	put(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
}

static u64 line_taken(void)
{
	int fd = irq_shared_fd(fixture.pci.irq, GSI);
	u64 value = 0;

	driver_wait((value = taken(fd)) != 0);
	return value;
}

static void registers(void **state)
{
	(void)state;
	assert_int_equal(get(VIRTIO_MMIO_MAGIC_VALUE), 0x74726976);
	assert_int_equal(get(VIRTIO_MMIO_VERSION), 2);
	assert_int_equal(get(VIRTIO_MMIO_DEVICE_ID), VIRTIO_ID_BLOCK);
	put(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	assert_int_equal(get(VIRTIO_MMIO_DEVICE_FEATURES),
			 (u32)((fixture.device.offered & ~(BIT64(24) | BIT64(27))) >> 32));
	put(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
	assert_int_equal(get(VIRTIO_MMIO_DEVICE_FEATURES), 0);
	put(VIRTIO_MMIO_QUEUE_SEL, 1);
	assert_int_equal(get(VIRTIO_MMIO_QUEUE_NUM_MAX), 64);
	put(VIRTIO_MMIO_QUEUE_SEL, 2);
	assert_int_equal(get(VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
	put(VIRTIO_MMIO_QUEUE_SEL, 0x10001); /* no queue, whatever its low half is */
	assert_int_equal(get(VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
	put(VIRTIO_MMIO_QUEUE_READY, 1);
	assert_int_equal(get(VIRTIO_MMIO_QUEUE_READY), 0);
	/* no shared memory */
	put(VIRTIO_MMIO_SHM_SEL, 0);
	assert_int_equal(get(VIRTIO_MMIO_SHM_LEN_LOW), 0xffffffff);
	assert_int_equal(get(VIRTIO_MMIO_SHM_LEN_HIGH), 0xffffffff);
	/* control registers are 32 bits wide, configuration any */
	assert_int_equal(bus_read(fixture.pci.bus, BUS_MMIO, BASE + VIRTIO_MMIO_VERSION, 2), 0);
	bus_write(fixture.pci.bus, BUS_MMIO, BASE + VIRTIO_MMIO_STATUS, 1, 1);
	assert_int_equal(get(VIRTIO_MMIO_STATUS), 0);
	for (u32 size = 1; size <= 4; size *= 2)
		for (u32 at = 0; at < CONFIG_SIZE; at += size)
			assert_int_equal(bus_read(fixture.pci.bus, BUS_MMIO,
						  BASE + VIRTIO_MMIO_CONFIG + at, size),
					 le_load(fixture.device.config + at, size));
	bus_write(fixture.pci.bus, BUS_MMIO, BASE + VIRTIO_MMIO_CONFIG + 3, 1, 0x55);
	assert_int_equal(fixture.device.config[3], 0x55);
	assert_int_equal(get(0x800), 0); /* behind the configuration */
}

/* A driver without VERSION_1 has no other interface here. */
static void features(void **state)
{
	(void)state;
	negotiate(BIT64(5));
	assert_int_equal(get(VIRTIO_MMIO_STATUS), 3);
	negotiate(BIT64(5) | BIT64(VIRTIO_F_VERSION_1) | BIT64(49));
	assert_int_equal(get(VIRTIO_MMIO_STATUS), 3);
	negotiate(BIT64(5) | BIT64(40) | BIT64(VIRTIO_F_VERSION_1));
	assert_int_equal(get(VIRTIO_MMIO_STATUS), 11);
}

static void buffers_and_line(void **state)
{
	(void)state;
	driver(0);
	offer();
	driver_wait_used(&fixture.ring, NULL, NULL);
	line_taken();
	assert_int_equal(get(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
	/* reading acknowledges nothing: the line would rise again */
	irq_shared_resampled(fixture.pci.irq, GSI);
	line_taken();
	put(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_CONFIG);
	assert_int_equal(get(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
	put(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
	assert_int_equal(get(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	irq_shared_resampled(fixture.pci.irq, GSI);
	assert_int_equal(taken(irq_shared_fd(fixture.pci.irq, GSI)), 0);
}

static void configuration_changes(void **state)
{
	u32 generation;
	u8 byte = 1;

	(void)state;
	driver(0);
	generation = get(VIRTIO_MMIO_CONFIG_GENERATION);
	virtio_config_update(&fixture.device, 7, &byte, 1);
	line_taken();
	assert_int_equal(get(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG);
	assert_int_not_equal(get(VIRTIO_MMIO_CONFIG_GENERATION), generation);
}

/* Whatever a driver does after its reset waits for it: 4.2 has it not look. */
static void *release_later(void *reactor)
{
	usleep(20000);
	reactor_post(reactor, &fixture.release);
	return NULL;
}

static void reset_with_buffers_out(void **state)
{
	pthread_t thread;

	(void)state;
	for (u32 how = 0; how < 2; how++) {
		driver(0);
		fixture.hold = true;
		offer();
		driver_wait(fixture.held == 1);
		pthread_create(&thread, NULL, release_later, fixture.device.queues[1].reactor);
		if (how) {
			put(VIRTIO_MMIO_QUEUE_READY, 0); /* 4.2.2.2: stops the queue alone */
			assert_int_equal(fixture.held, 0);
			assert_int_equal(get(VIRTIO_MMIO_QUEUE_READY), 0);
			assert_int_equal(get(VIRTIO_MMIO_STATUS), ALL_STATUS);
			queue_up(1);
			offer();
			driver_wait_used(&fixture.ring, NULL, NULL);
		} else {
			put(VIRTIO_MMIO_STATUS, 0);
			assert_int_equal(get(VIRTIO_MMIO_STATUS), 0);
			assert_int_equal(fixture.held, 0);
			put(VIRTIO_MMIO_QUEUE_SEL, 1);
			assert_int_equal(get(VIRTIO_MMIO_QUEUE_READY), 0);
		}
		pthread_join(thread, NULL);
	}
}

static void ring_reset(void **state)
{
	(void)state;
	driver(BIT64(VIRTIO_F_RING_RESET));
	put(QUEUE_RESET, 1);
	driver_wait(get(QUEUE_RESET) == 0);
	assert_int_equal(get(VIRTIO_MMIO_QUEUE_READY), 0);
	queue_up(1);
	offer();
	driver_wait_used(&fixture.ring, NULL, NULL);
}

/* Nonsense at every register, checked and not; then the device works as ever. */
static void random_accesses(void **state)
{
	static const u32 likely[] = { VIRTIO_MMIO_STATUS,	   VIRTIO_MMIO_QUEUE_SEL,
				      VIRTIO_MMIO_QUEUE_READY,	   VIRTIO_MMIO_QUEUE_NUM,
				      VIRTIO_MMIO_DRIVER_FEATURES, VIRTIO_MMIO_QUEUE_NOTIFY,
				      VIRTIO_MMIO_QUEUE_DESC_LOW,  VIRTIO_MMIO_QUEUE_USED_LOW };
	unsigned int seed = 1;

	(void)state;
	for (u32 i = 0; i < 30000; i++) {
		u64 at = rand_r(&seed) % 2 ? likely[(u32)rand_r(&seed) % ARRAY_SIZE(likely)]
					   : (u32)rand_r(&seed) % (SIZE_OF_PAGE - 8);
		u32 size = 1u << rand_r(&seed) % 4;
		u64 value = (u64)rand_r(&seed) >> rand_r(&seed) % 32;

		if (rand_r(&seed) % 3)
			bus_write(fixture.pci.bus, BUS_MMIO, BASE + at, size, value);
		else
			bus_read(fixture.pci.bus, BUS_MMIO, BASE + at, size);
	}
	driver(0);
	offer();
	driver_wait_used(&fixture.ring, NULL, NULL);
}

static void strictly(void **state)
{
	(void)state;
	driver(0);
	offer();
	driver_wait_used(&fixture.ring, NULL, NULL);
	put(VIRTIO_MMIO_STATUS, 0);
	driver(0);
	for (u32 i = 0; i < STRICT_RULES; i++)
		assert_int_equal(fixture.device.strict->counts[i], 0);
	put(VIRTIO_MMIO_MAGIC_VALUE, 1);
	get(VIRTIO_MMIO_QUEUE_NUM);
	assert_int_equal(fixture.device.strict->counts[STRICT_REGISTER_READONLY], 2);
	bus_read(fixture.pci.bus, BUS_MMIO, BASE + VIRTIO_MMIO_VERSION, 2);
	assert_int_equal(fixture.device.strict->counts[STRICT_REGISTER_WIDTH], 1);
	put(VIRTIO_MMIO_QUEUE_DESC_LOW, 0);
	assert_int_equal(fixture.device.strict->counts[STRICT_QUEUE_LATE], 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(registers, up, down),
		cmocka_unit_test_setup_teardown(features, up, down),
		cmocka_unit_test_setup_teardown(buffers_and_line, up, down),
		cmocka_unit_test_setup_teardown(configuration_changes, up, down),
		cmocka_unit_test_setup_teardown(reset_with_buffers_out, up, down),
		cmocka_unit_test_setup_teardown(ring_reset, up, down),
		cmocka_unit_test_setup_teardown(random_accesses, up, down),
		cmocka_unit_test_setup_teardown(random_accesses, up_strict, down),
		cmocka_unit_test_setup_teardown(strictly, up_strict, down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
