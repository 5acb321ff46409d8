/* tsan: virtio over PCI with buffers in flight: resets, interrupts of both kinds, notifications,
 * DMA on and off, two functions on one address. Each test names the items of docs/conformance.md
 * that it holds. */
#include "tests/unit/virtio-pci-machine.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(modern_reset, up, down),
		cmocka_unit_test_setup_teardown(legacy_reset, up, down),
		cmocka_unit_test_setup_teardown(ring_reset, up, down),
		cmocka_unit_test_setup_teardown(intx, up, down),
		cmocka_unit_test_setup_teardown(vectors, up, down),
		cmocka_unit_test_setup_teardown(masked_vectors, up, down),
		cmocka_unit_test_setup_teardown(legacy_queue, up, down),
		cmocka_unit_test_setup_teardown(notifications, up, down),
		cmocka_unit_test_setup_teardown(bus_master, up, down),
		cmocka_unit_test_setup_teardown(power_on, up, down),
		cmocka_unit_test_setup_teardown(broken, up, down),
		cmocka_unit_test_setup_teardown(collision, up, down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
