/* tsan: machine/hotplug.c and pci/hotplug.c: devices come and go while the reactors run, and a
 * disk's size changes under a driver that reads it. */
#include "tests/unit/machine-fixture.h"
#include "machine/ports.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

static char said[512];
static bool told;

static void on_told(void *arg, const char *id, const char *error)
{
	(void)arg;
	assert_non_null(id);
	snprintf(said, sizeof(said), "%s", error ? error : "");
	told = true;
}

static void ask(const char *id, u64 patience, bool force)
{
	const struct hotplug_removal r = {
		.patience = patience, .force = force, .told = on_told, .arg = &told
	};

	told = false;
	assert_int_equal(hotplug_remove(m.hotplug, id, &r), 0);
}

static u32 slot_of(const char *id)
{
	return virtio_pci_slot(hotplug_find(m.hotplug, id)->function);
}

/* The function's I/O BAR, decoded. */
static u32 decode(u32 slot)
{
	config_set(slot, PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	return config_at(slot, PCI_BASE_ADDRESS_0) & ~3u;
}

static void comes_and_goes(void **state)
{
	const char *path = image("disk", MIB(1)), *id = NULL;
	u32 slot, port;

	(void)state;
	assert_int_equal(add_disk(path, &id), 0);
	assert_string_equal(id, "blk0");
	slot = slot_of(id);
	assert_int_equal(slots_read(ADDED), BIT(slot));
	assert_int_equal(slots_read(ADDED), 0);
	assert_int_equal(slots_read(OCCUPIED), BIT(slot));
	assert_int_equal(config_at(slot, PCI_VENDOR_ID), 0x10011af4);
	assert_int_equal(slots_read(LEAVING), 0);
	ask(id, ~0ull >> 1, false);
	assert_int_equal(slots_read(LEAVING), BIT(slot));
	assert_int_equal(slots_read(LEAVING), 0);
	hotplug_run(m.hotplug, clock_now_ns());
	assert_false(told);
	port = decode(slot);
	eject(BIT(slot));
	/* at once */
	assert_int_equal(bus_read(m.bus, BUS_PIO, port, 4), 0xffffffff);
	assert_int_equal(config_at(slot, PCI_VENDOR_ID), 0xffffffff);
	assert_int_equal(slots_read(OCCUPIED), 0);
	run_until(&told);
	assert_true(told);
	assert_string_equal(said, "");
	assert_int_equal(m.device_count, 0);
	/* the image is free again, and the next stands elsewhere */
	assert_int_equal(add_disk(path, &id), 0);
	assert_int_not_equal(slot_of(id), slot);
}

static void goes_unasked(void **state)
{
	const char *id = NULL;

	(void)state;
	assert_int_equal(add_disk(image("disk", MIB(1)), &id), 0);
	eject(~0u);
	eject(~0u);
	for (u32 n = 0; n < 1000 && m.device_count; n++) {
		usleep(1000);
		hotplug_run(m.hotplug, clock_now_ns());
	}
	assert_int_equal(m.device_count, 0);
}

static void is_not_let_go(void **state)
{
	const char *path = image("disk", MIB(1)), *id = NULL;
	u32 port;

	(void)state;
	assert_int_equal(add_disk(path, &id), 0);
	ask(id, 1000000, false);
	run_until(&told);
	assert_non_null(strstr(said, "--force"));
	assert_int_equal(m.device_count, 1);
	/* asked a second time by somebody else, the first is told so */
	ask(id, ~0ull >> 1, false);
	ask(id, ~0ull >> 1, false);
	assert_true(told);
	assert_non_null(strstr(said, "somebody else"));
	told = false;
	/* whoever went is not told */
	hotplug_forget(m.hotplug, &told);
	port = decode(slot_of(id));
	assert_int_not_equal(bus_read(m.bus, BUS_PIO, port, 4), 0);
	ask(id, 0, true);
	slots_read(ADDED);
	run_until(&told);
	/* a driver waits for a status of 0, and gets it */
	assert_int_equal(bus_read(m.bus, BUS_PIO, port, 4), 0);
	assert_string_equal(said, "");
	assert_int_equal(m.device_count, 0);
	/* the guest shall see that it has gone */
	assert_int_equal(slots_read(ADDED), BIT(0));
	assert_int_equal(add_disk(path, &id), 0);
}

static void goes_with_a_reset(void **state)
{
	const char *id = NULL;

	(void)state;
	assert_int_equal(add_disk(image("a", MIB(1)), &id), 0);
	assert_int_equal(add_disk(image("b", MIB(1)), &id), 0);
	ask(id, ~0ull >> 1, false);
	hotplug_reset(m.hotplug);
	assert_int_equal(slots_read(ADDED) | slots_read(LEAVING), 0);
	run_until(&told);
	assert_string_equal(said, "");
	assert_int_equal(m.device_count, 1);
	assert_string_equal(m.devices[0]->id, "blk0");
}

/* A hundred of them, with registers accessed meanwhile, and not a descriptor is left. */
static void leaves_nothing(void **state)
{
	const char *path = image("disk", MIB(1)), *id = NULL;
	u32 files = 0;

	(void)state;
	for (u32 n = 0; n < 100; n++) {
		u32 slot;

		assert_int_equal(add_disk(path, &id), 0);
		slot = slot_of(id);
		bus_read(m.bus, BUS_PIO, decode(slot), 4);
		ask(id, 0, n % 2);
		if (n % 2 == 0)
			eject(BIT(slot));
		run_until(&told);
		assert_int_equal(m.device_count, 0);
		/* the line of a slot is opened once and stays */
		if (n == 40)
			files = open_files();
	}
	assert_int_equal(open_files(), files);
}

/* A vCPU that ejects what it finds, and looks at the configuration of what is there and what is
 * not. */
static void *eject_on(void *arg)
{
	const _Atomic bool *stop = arg;
	u32 seed = 1;

	while (!*stop) {
		u32 slots = slots_read(OCCUPIED);

		seed = seed * 1664525 + 1013904223;
		for (u32 slot = 1; slot < PCI_SLOTS; slot++) {
			if (config_at(slot, PCI_VENDOR_ID) != ~0u)
				config_set(slot, PCI_COMMAND, seed >> 24);
			if (slots >> slot & 1 && seed >> (slot % 16 + 4) & 1)
				eject(BIT(slot));
		}
		slots_read(ADDED);
		slots_read(LEAVING);
	}
	return NULL;
}

static void ejected_while_others_come(void **state)
{
	const struct hotplug_removal r = { .told = on_told };
	_Atomic bool stop = false;
	const char *id = NULL;
	pthread_t thread;
	char name[16];

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, eject_on, &stop), 0);
	for (u32 n = 0; n < 100; n++) {
		snprintf(name, sizeof(name), "disk%u", n);
		assert_int_equal(add_disk(image(name, MIB(1)), &id), 0);
		if (n % 3 == 0)
			assert_int_equal(hotplug_remove(m.hotplug, id, &r), 0);
		hotplug_run(m.hotplug, clock_now_ns());
		for (u32 i = 0; m.device_count > 20 && i < 1000; i++) {
			usleep(1000);
			hotplug_run(m.hotplug, clock_now_ns());
		}
	}
	for (u32 i = 0; m.device_count && i < 10000; i++) {
		usleep(1000);
		hotplug_run(m.hotplug, clock_now_ns());
	}
	stop = true;
	pthread_join(thread, NULL);
	assert_int_equal(m.device_count, 0);
}

static void as_many_as_slots(void **state)
{
	const char *id = NULL;
	char name[16];

	(void)state;
	for (u32 n = 0; n < MACHINE_MAX_DEVICES; n++) {
		snprintf(name, sizeof(name), "disk%u", n);
		assert_int_equal(add_disk(image(name, MIB(1)), &id), 0);
	}
	assert_int_equal(slots_read(OCCUPIED), 0xfffffffe);
	log_capture(said, sizeof(said));
	assert_int_not_equal(add_disk(image("more", MIB(1)), &id), 0);
	log_capture(NULL, 0);
	assert_non_null(strstr(said, "at most 31"));
}

/* ---- what may be handed over ---- */

static int hand_over(const char *value, int fd, const struct disk *learned)
{
	const struct hotplug_addition a = {
		.option = "disk", .value = value, .fds = &fd, .fd_count = 1, .disk = learned
	};
	const char *id;
	int error;

	log_capture(said, sizeof(said));
	error = hotplug_add(m.hotplug, &a, &id);
	log_capture(NULL, 0);
	assert_int_equal(m.device_count, !error);
	/* whatever became of it, it is no longer ours */
	if (error)
		assert_int_equal(fcntl(fd, F_GETFL), -1);
	return error;
}

static void only_images_are_taken(void **state)
{
	const struct disk good = {
		.logical_block = 512, .physical_block = 4096, .alignment = 1, .memory_alignment = 1
	};
	const char *path = image("disk", MIB(1));
	struct disk bad;
	int pipes[2], other;
	char value[160];
	u32 files;

	(void)state;
	assert_int_equal(pipe(pipes), 0);
	close(pipes[1]);
	files = open_files() - 1;
	assert_int_not_equal(hand_over(path, pipes[0], &good), 0);
	assert_int_not_equal(hand_over(path, open(path, O_RDONLY), &good), 0);
	assert_int_not_equal(hand_over(path, open(path, O_RDWR | O_APPEND), &good), 0);
	assert_int_not_equal(hand_over(path, open(path, O_PATH), &good), 0);
	assert_int_not_equal(hand_over(path, open("/dev/null", O_RDWR), &good), 0);
	assert_int_not_equal(hand_over(path, open(path, O_RDWR), NULL), 0);
	assert_non_null(strstr(said, "vmm ctl"));
	snprintf(value, sizeof(value), "%s,ro", path);
	assert_int_not_equal(hand_over(value, open(path, O_RDWR), &good), 0);
	snprintf(value, sizeof(value), "%s,queues=0", path);
	assert_int_not_equal(hand_over(value, open(path, O_RDWR), &good), 0);
	assert_memory_equal(said, "disk ", 5);
	snprintf(value, sizeof(value), "%s,iothread=7", path);
	assert_int_not_equal(hand_over(value, open(path, O_RDWR), &good), 0);
	assert_int_not_equal(hand_over("", open(path, O_RDWR), &good), 0);
	for (u32 n = 0; n < 6; n++) {
		bad = good;
		*(u32 *[]){ &bad.logical_block,	   &bad.physical_block, &bad.alignment,
			    &bad.memory_alignment, &bad.logical_block,	&bad.alignment }[n] =
			n < 4 ? 0 : 1u << 31;
		assert_int_not_equal(hand_over(path, open(path, O_RDWR), &bad), 0);
	}
	/* empty */
	assert_int_not_equal(hand_over(path, open(image("none", 0), O_RDWR), &good), 0);
	/* another format */
	other = open(image("foreign", MIB(1)), O_RDWR);
	assert_int_equal(write(other, "QFI\xfb\0\0\0\3", 8), 8);
	assert_int_not_equal(hand_over("foreign", other, &good), 0);
	assert_non_null(strstr(said, "qcow2"));
	/* another writer has it */
	path = image("disk", MIB(1));
	other = open(path, O_RDWR);
	assert_int_equal(disk_lock_again(other, false), 0);
	assert_int_not_equal(hand_over(path, open(path, O_RDWR), &good), 0);
	assert_non_null(strstr(said, "has it open"));
	close(other);
	assert_int_equal(open_files(), files);
	assert_int_equal(hand_over(path, open(path, O_RDWR), &good), 0);
}

/* ---- sizes ---- */

#define SECTORS_A 0xffffffffull /* both halves differ */
#define SECTORS_B 0x100000000ull

struct reader {
	u64 bar; /* the memory BAR */
	u32 generation, capacity;
	_Atomic bool stop;
	u32 whole, torn, wrong;
	_Atomic u32 changes;
};

static u32 peek(const struct reader *r, u32 offset, unsigned int size)
{
	return (u32)bus_read(m.bus, BUS_MMIO, r->bar + offset, size);
}

/* As drivers read what is wider than an access (virtio 1.3, 2.5.1). */
static void *read_on(void *arg)
{
	struct reader *r = arg;
	u64 last = 0;

	while (!r->stop) {
		u32 before = peek(r, r->generation, 1);
		u64 low = peek(r, r->capacity, 4);
		u64 high = peek(r, r->capacity + 4, 4);
		u64 sectors = high << 32 | low;
		bool valid = sectors == SECTORS_A || sectors == SECTORS_B;

		if (peek(r, r->generation, 1) != before) {
			r->changes++;
			r->torn += !valid;
			continue;
		}
		r->wrong += !valid;
		r->whole += sectors != last;
		last = sectors;
	}
	return NULL;
}

/* Where a structure of the modern layout stands (virtio 1.3, 4.1.4). */
static u32 structure(u32 slot, u8 type)
{
	u32 at = config_at(slot, PCI_CAPABILITY_LIST) & 0xfc;

	for (; at; at = config_at(slot, at) >> 8 & 0xfc) {
		u32 head = config_at(slot, at);

		if ((head & 0xff) == PCI_CAP_ID_VNDR && head >> 24 == type &&
		    (config_at(slot, at + 4) & 0xff) == 2)
			return config_at(slot, at + 8);
	}
	fail_msg("no structure %u", type);
	return 0;
}

static void size_changes_under_its_reader(void **state)
{
	struct reader r = { 0 };
	const char *id = NULL;
	pthread_t thread;
	u32 slot;

	(void)state;
	assert_int_equal(add_disk(image("disk", SECTORS_A * 512), &id), 0);
	slot = slot_of(id);
	config_set(slot, PCI_COMMAND, PCI_COMMAND_MEMORY);
	r.bar = (config_at(slot, PCI_BASE_ADDRESS_2) & ~0xfu) |
		(u64)config_at(slot, PCI_BASE_ADDRESS_3) << 32;
	r.generation = structure(slot, 1) + 21;
	r.capacity = structure(slot, 4);
	assert_int_equal(pthread_create(&thread, NULL, read_on, &r), 0);
	for (u32 n = 0; n < 100000 && (r.changes < 50 || n % 2); n++) {
		u64 sectors = n % 2 ? SECTORS_A : SECTORS_B;

		assert_int_equal(hotplug_resize(m.hotplug, id, sectors * 512, true), 0);
		sched_yield();
	}
	r.stop = true;
	pthread_join(thread, NULL);
	print_message("%u whole, %u changed while read, %u of them torn\n", r.whole, r.changes,
		      r.torn);
	assert_int_equal(r.wrong, 0);
	assert_int_not_equal(r.whole, 0);
	assert_true(r.changes >= 50);
}

static void sizes(void **state)
{
	const char *path = image("disk", MIB(4)), *id = NULL;
	struct machine_device *d;
	struct stat st;

	(void)state;
	assert_int_equal(add_disk(path, &id), 0);
	d = hotplug_find(m.hotplug, id);
	assert_int_equal(hotplug_resize(m.hotplug, id, MIB(8), false), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, MIB(8));
	assert_int_equal(d->disk.sectors, MIB(8) / 512);
	assert_int_equal(le64_load(d->device->config), MIB(8) / 512);
	log_capture(said, sizeof(said));
	assert_int_not_equal(hotplug_resize(m.hotplug, id, MIB(4), false), 0);
	assert_non_null(strstr(said, "--shrink"));
	assert_int_not_equal(hotplug_resize(m.hotplug, id, MIB(8) + 1, false), 0);
	assert_int_not_equal(hotplug_resize(m.hotplug, id, 1, true), 0);
	assert_int_not_equal(hotplug_resize(m.hotplug, id, ~0ull, false), 0);
	assert_int_not_equal(hotplug_resize(m.hotplug, "blk7", MIB(8), false), 0);
	log_capture(NULL, 0);
	assert_int_equal(d->disk.sectors, MIB(8) / 512);
	assert_int_equal(hotplug_resize(m.hotplug, id, MIB(4), true), 0);
	assert_int_equal(d->disk.sectors, MIB(4) / 512);
	/* grown from outside */
	assert_int_equal(truncate(path, (off_t)MIB(16)), 0);
	assert_int_equal(hotplug_resize(m.hotplug, id, 0, false), 0);
	assert_int_equal(d->disk.sectors, MIB(16) / 512);
}

/* One of a kind of which a machine has one. */
static int add(const char *option, const char *value, const int *fds, u32 count)
{
	const struct hotplug_addition a = {
		.option = option, .value = value, .fds = fds, .fd_count = count
	};
	const char *id = NULL;
	int error = hotplug_add(m.hotplug, &a, &id);

	if (!error)
		assert_string_equal(id, strcmp(option, "port") ? option : "ports");
	return error;
}

/* Entropy, balloon and vsock come and go too, a vsock with its sockets and the process behind them;
 * the machine has no second of any, and what is refused leaves nothing. */
static void one_of_a_kind(void **state)
{
	static const char *const ids[] = { "rng", "balloon", "vsock" };
	char path[96], value[128];
	u32 files = 0;

	(void)state;
	config.memory = MIB(64);
	snprintf(path, sizeof(path), "%s/v", folder);
	snprintf(value, sizeof(value), "cid=7,unix=%s", path);
	log_capture(said, sizeof(said));
	for (u32 n = 0; n < 20; n++) {
		struct vsock_host host, second;
		char other[100];

		assert_int_equal(vsock_host_open_for(&host, path), 0);
		assert_int_equal(add("vsock", value, host.fds, VSOCK_DOORS), 0);
		assert_int_equal(add("rng", "on,rate=4000", NULL, 0), 0);
		assert_int_equal(add("balloon", "size=8M", NULL, 0), 0);
		assert_int_equal(m.device_count, 3);
		assert_int_equal(m.devices[2]->device->config[1], MIB(8) / 4096 >> 8);
		snprintf(other, sizeof(other), "%s2", path);
		assert_int_equal(vsock_host_open_for(&second, other), 0);
		assert_int_not_equal(add("vsock", value, second.fds, VSOCK_DOORS), 0);
		assert_non_null(strstr(said, "remove it first"));
		assert_int_not_equal(add("rng", "on", NULL, 0), 0);
		assert_int_equal(m.device_count, 3);
		for (u32 i = 0; i < ARRAY_SIZE(ids); i++) {
			ask(ids[i], 0, true);
			run_until(&told);
			assert_true(told);
		}
		assert_int_equal(m.device_count, 0);
		*said = 0;
		assert_int_not_equal(add("vsock", value, NULL, 0), 0);
		assert_non_null(strstr(said, "vmm ctl"));
		assert_int_not_equal(add("rng", "off", NULL, 0), 0);
		assert_int_not_equal(add("balloon", "size=65M", NULL, 0), 0);
		assert_int_not_equal(add("console", "virtio", NULL, 0), 0);
		assert_int_equal(m.device_count, 0);
		if (n == 5)
			files = open_files();
	}
	log_capture(NULL, 0);
	assert_int_equal(open_files(), files);
}

/* The first port of a machine, of each kind. */
static void a_port(void **state)
{
	static const char *const kinds[] = { "unix", "pipe", "file" };
	char value[160];
	u32 files = 0;

	(void)state;
	log_capture(said, sizeof(said));
	for (u32 n = 0; n < 18; n++) {
		struct config *other;
		int fds[2], count;

		snprintf(value, sizeof(value), "name=a,%s=%s/port%u", kinds[n % 3], folder, n);
		assert_int_equal(config_parse_device(&other, NULL, "port", value), 0);
		count = ports_open_files(other, fds);
		config_free(other);
		free(other);
		assert_int_equal(count, n % 3 == 1 ? 2 : 1);
		*said = 0;
		assert_int_not_equal(add("port", value, NULL, 0), 0);
		assert_non_null(strstr(said, "vmm ctl"));
		assert_int_equal(m.device_count, 0);
		assert_null(m.ports);
		assert_int_equal(add("port", value, fds, (u32)count), 0);
		assert_int_equal(m.device_count, 1);
		assert_int_not_equal(add("port", value, NULL, 0), 0);
		assert_non_null(strstr(said, "remove it first"));
		ask("ports", 0, true);
		run_until(&told);
		assert_true(told);
		assert_int_equal(m.device_count, 0);
		assert_null(m.ports);
		if (n == 9) /* each slot has its line */
			files = open_files();
	}
	log_capture(NULL, 0);
	assert_int_equal(open_files(), files);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, machine_up, machine_down)
	const struct CMUnitTest tests[] = {
		TEST(comes_and_goes),
		TEST(goes_unasked),
		TEST(is_not_let_go),
		TEST(goes_with_a_reset),
		TEST(leaves_nothing),
		TEST(ejected_while_others_come),
		TEST(as_many_as_slots),
		TEST(only_images_are_taken),
		TEST(size_changes_under_its_reader),
		TEST(sizes),
		TEST(one_of_a_kind),
		TEST(a_port),
	};

	int failed = cmocka_run_group_tests_name("io_uring", tests, NULL, NULL);

	without_io_uring = true;
	return failed + cmocka_run_group_tests_name("epoll", tests, NULL, NULL);
}
