/*
 * A virtio device as a PCI function (virtio 1.3, 4.1): where its structures stand, capabilities,
 * interrupts, doorbells, and the configuration access window. Registers run on vCPU threads;
 * interrupts are decided on any thread.
 *
 * Locks: the function's, then the device's. Nothing here that a reactor calls takes the function's,
 * so that a vCPU may wait for a reactor (a legacy reset) while it holds it.
 */
#include "virtio/pci-internal.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include "vm/log.h"

#define VENDOR	      0x1af4
#define MODERN_BASE   0x1040
#define COMMON_LENGTH 64 /* with queue_notify_data and queue_reset */
#define PAGE	      KIB(4)
#define IO_BAR	      0
#define MEMORY_BAR    2
#define IO_BAR_MOST   256
#define NOTIFY_STEP   4 /* notify_off_multiplier of the memory doorbells */
/*
 * KVM tells the doorbells of one port apart by walking over them, so with more queues than this the
 * memory ones, an address each, come first.
 */
#define PORT_QUEUES 32

/* ---- layout ---- */

/* Transitional device IDs (4.1.2); 0: the device came after virtio 1.0 and has none. */
static u16 transitional_id(u16 device)
{
	switch (device) {
	case VIRTIO_ID_NET:
		return 0x1000;
	case VIRTIO_ID_BLOCK:
		return 0x1001;
	case VIRTIO_ID_BALLOON:
		return 0x1002;
	case VIRTIO_ID_CONSOLE:
		return 0x1003;
	case VIRTIO_ID_SCSI:
		return 0x1004;
	case VIRTIO_ID_RNG:
		return 0x1005;
	case VIRTIO_ID_9P:
		return 0x1009;
	default:
		return 0;
	}
}

static u64 power_of_two(u64 least, u64 n)
{
	while (least < n)
		least *= 2;
	return least;
}

static void add_window(struct virtio_pci_layout *layout, struct virtio_pci_window window)
{
	layout->windows[layout->window_count++] = window;
}

/* Takes whole pages of the memory BAR, so that each structure can be mapped by itself. */
static u32 take_pages(struct virtio_pci_layout *layout, u64 bytes)
{
	u64 at = layout->memory_size;

	layout->memory_size += ALIGN_UP(bytes, PAGE);
	return (u32)at;
}

/* Windows in the order in which drivers shall meet them: Linux takes the first of a kind that it
 * can map. */
static void choose_layout(struct virtio_pci_layout *layout, const struct virtio_device *device)
{
	u16 id = transitional_id(device->ops->id);
	u32 queues = device->queue_count;
	const struct virtio_pci_window port_notify = {
		VIRTIO_PCI_CAP_NOTIFY_CFG, IO_BAR, VIRTIO_PCI_QUEUE_NOTIFY, 2, 0,
	};
	struct virtio_pci_window memory_notify = {
		VIRTIO_PCI_CAP_NOTIFY_CFG, MEMORY_BAR, 0, queues * NOTIFY_STEP, NOTIFY_STEP,
	};
	u32 common, isr, config;

	layout->legacy = id;
	layout->device_id = id ? id : (u16)(MODERN_BASE + device->ops->id);
	layout->subsystem_id = id ? device->ops->id : layout->device_id;
	layout->revision = id ? 0 : 1;
	layout->vectors = (u16)(queues + 1 < PCI_MSIX_MAX ? queues + 1 : PCI_MSIX_MAX);

	common = take_pages(layout, COMMON_LENGTH);
	isr = take_pages(layout, 1);
	config = take_pages(layout, device->config_size);
	memory_notify.offset = take_pages(layout, queues * NOTIFY_STEP);
	layout->msix_bar = MEMORY_BAR;
	layout->msix_table = take_pages(layout, (u64)layout->vectors * PCI_MSIX_ENTRY_SIZE);
	layout->msix_pba = take_pages(layout, ALIGN_UP((u32)layout->vectors, 64u) / 8);
	layout->memory_size = power_of_two(PAGE, layout->memory_size);
	if (layout->legacy) {
		layout->io_size = power_of_two(32, VIRTIO_PCI_CONFIG_OFF(1) + device->config_size);
		if (layout->io_size > IO_BAR_MOST)
			layout->io_size = IO_BAR_MOST;
	}

	add_window(layout, (struct virtio_pci_window){ VIRTIO_PCI_CAP_COMMON_CFG, MEMORY_BAR,
						       common, COMMON_LENGTH, 0 });
	if (layout->io_size && queues <= PORT_QUEUES)
		add_window(layout, port_notify);
	add_window(layout, memory_notify);
	if (layout->io_size && queues > PORT_QUEUES)
		add_window(layout, port_notify);
	if (layout->io_size)
		add_window(layout, (struct virtio_pci_window){ VIRTIO_PCI_CAP_ISR_CFG, IO_BAR,
							       VIRTIO_PCI_ISR, 1, 0 });
	add_window(layout,
		   (struct virtio_pci_window){ VIRTIO_PCI_CAP_ISR_CFG, MEMORY_BAR, isr, 1, 0 });
	if (device->config_size)
		add_window(layout,
			   (struct virtio_pci_window){ VIRTIO_PCI_CAP_DEVICE_CFG, MEMORY_BAR,
						       config, device->config_size, 0 });
}

/* ---- registers of whatever layout ---- */

u64 virtio_pci_registers_read(struct virtio_pci *pci, const struct virtio_pci_registers *registers,
			      u64 offset, unsigned int size)
{
	u64 value = 0;

	for (u32 i = 0; i < registers->count; i++) {
		const struct virtio_pci_register *r = &registers->list[i];
		u64 bits;

		if (r->offset >= offset + size || offset >= (u64)r->offset + r->size)
			continue;
		bits = registers->read(pci, r->offset);
		if (r->offset >= offset)
			value |= bits << 8 * (r->offset - offset);
		else
			value |= bits >> 8 * (offset - r->offset);
	}
	return size < 8 ? value & (BIT64(8 * size) - 1) : value;
}

void virtio_pci_registers_write(struct virtio_pci *pci,
				const struct virtio_pci_registers *registers, u64 offset,
				unsigned int size, u64 value)
{
	for (u32 i = 0; i < registers->count; i++) {
		const struct virtio_pci_register *r = &registers->list[i];
		u64 start, end, mask;
		u32 bits;

		if (r->offset >= offset + size || offset >= (u64)r->offset + r->size)
			continue;
		start = offset > r->offset ? offset - r->offset : 0;
		end = offset + size - r->offset < r->size ? offset + size - r->offset : r->size;
		if (r->offset >= offset)
			bits = (u32)(value >> 8 * (r->offset - offset));
		else
			bits = (u32)(value << 8 * start);
		mask = (BIT64(8 * end) - 1) & ~(BIT64(8 * start) - 1);
		bits &= (u32)mask;
		/* Only registers of two bytes and more can be hit in part; no read of such has an
		 * effect. */
		if (end - start < r->size)
			bits |= registers->read(pci, r->offset) & ~(u32)mask;
		registers->write(pci, r->offset, bits);
	}
}

/* ---- interrupts ---- */

/* What a queue's reactor shall do for an interrupt; device's lock held. */
static void update_queue_interrupt(struct virtio_pci *pci, struct virtio_queue *queue)
{
	s32 target = VIRTIO_INTERRUPT_INTX;

	/* Under MSI-X an unmapped queue is silent; it does not fall back to the line (4.1.5.1.3).
	 */
	if (pci_msix_enabled(&pci->function))
		target = queue->msix_vector < pci->layout.vectors
				 ? pci->vector_files[queue->msix_vector]
				 : VIRTIO_INTERRUPT_NONE;
	atomic_store(&queue->interrupt, target);
}

static void update_interrupts(struct virtio_pci *pci)
{
	struct virtio_device *device = pci->device;

	for (u16 i = 0; i < device->queue_count; i++)
		update_queue_interrupt(pci, &device->queues[i]);
	/*
	 * A reactor sets the ISR bit, then looks for the file; here the file is set, then the ISR
	 * is looked at. One of the two sees the other.
	 */
	atomic_store(&device->intx_file, pci_intx_allowed(&pci->function) ? pci->intx_file : -1);
	pci_intx_changed(&pci->function);
}

void virtio_pci_set_config_vector(struct virtio_pci *pci, u16 vector)
{
	pci->config_vector = vector < pci->layout.vectors ? vector : VIRTIO_MSI_NO_VECTOR;
}

void virtio_pci_set_queue_vector(struct virtio_pci *pci, struct virtio_queue *queue, u16 vector)
{
	queue->msix_vector = vector < pci->layout.vectors ? vector : VIRTIO_MSI_NO_VECTOR;
	update_queue_interrupt(pci, queue);
}

static void transport_config_interrupt(struct virtio_device *device)
{
	struct virtio_pci *pci = device->transport_owner;
	int fd;

	/* Under MSI-X too (4.1.4.5.1): whoever polls the ISR learns why. */
	atomic_fetch_or(&device->isr, VIRTIO_PCI_ISR_CONFIG);
	if (!pci_msix_enabled(&pci->function)) {
		pci_intx_changed(&pci->function);
		return;
	}
	fd = pci_msix_fd(&pci->function, pci->config_vector);
	if (fd >= 0)
		eventfd_write(fd, 1);
}

static void transport_queue_reset(struct virtio_queue *queue)
{
	queue->msix_vector = VIRTIO_MSI_NO_VECTOR;
	update_queue_interrupt(queue->device->transport_owner, queue);
}

static void transport_reset(struct virtio_device *device)
{
	struct virtio_pci *pci = device->transport_owner;

	pci->config_vector = VIRTIO_MSI_NO_VECTOR;
	pci->device_feature_select = 0;
	pci->driver_feature_select = 0;
	pci->queue_select = 0;
	pci->drop_pending = true;
}

static const struct virtio_transport_ops transport_ops = {
	.config_interrupt = transport_config_interrupt,
	.queue_reset = transport_queue_reset,
	.reset = transport_reset,
};

/* A device without a transport: nobody to tell. */
static void nobody_config_interrupt(struct virtio_device *device)
{
	(void)device;
}

static const struct virtio_transport_ops nobody_ops = {
	.config_interrupt = nobody_config_interrupt,
};

static bool interrupt_status(struct pci_function *function)
{
	struct virtio_pci *pci = function->owner;

	return atomic_load(&pci->device->isr) != 0;
}

/* ---- accesses ---- */

void virtio_pci_set_status(struct virtio_pci *pci, u8 value, bool legacy)
{
	/* Old legacy drivers never set Bus Master and want DMA all the same, even after a
	 * predecessor cleared it. */
	if (legacy && value & VIRTIO_CONFIG_S_DRIVER_OK && !pci_bus_master(&pci->function))
		virtio_device_bus_master(pci->device, true);
	virtio_status_write(pci->device, value, legacy);
}

static void enter(struct virtio_pci *pci)
{
	bool drop;

	pthread_mutex_lock(&pci->device->lock);
	drop = pci->drop_pending;
	pci->drop_pending = false;
	/* Here because a reset may end on a reactor, which must not take the function's lock. */
	if (drop)
		pci_msix_clear(&pci->function);
}

static void leave(struct virtio_pci *pci)
{
	pthread_mutex_unlock(&pci->device->lock);
}

/* The structure that an offset lies in, or NULL. */
static const struct virtio_pci_window *window_at(const struct virtio_pci *pci, unsigned int bar,
						 u64 offset)
{
	for (u32 i = 0; i < pci->layout.window_count; i++) {
		const struct virtio_pci_window *window = &pci->layout.windows[i];

		if (window->bar == bar && offset >= window->offset &&
		    offset - window->offset < window->length)
			return window;
	}
	return NULL;
}

static u64 bar_read(struct pci_function *function, unsigned int bar, u64 offset, unsigned int size)
{
	struct virtio_pci *pci = function->owner;
	const struct virtio_pci_window *window = window_at(pci, bar, offset);
	u64 value = 0;

	enter(pci);
	if (pci->layout.legacy && bar == IO_BAR)
		value = virtio_pci_legacy_read(pci, offset, size);
	else if (window)
		value = virtio_pci_modern_read(pci, window, offset - window->offset, size);
	leave(pci);
	return value;
}

static void bar_write(struct pci_function *function, unsigned int bar, u64 offset,
		      unsigned int size, u64 value)
{
	struct virtio_pci *pci = function->owner;
	const struct virtio_pci_window *window = window_at(pci, bar, offset);

	enter(pci);
	if (pci->layout.legacy && bar == IO_BAR)
		virtio_pci_legacy_write(pci, offset, size, value);
	else if (window)
		virtio_pci_modern_write(pci, window, offset - window->offset, size, value);
	leave(pci);
}

/* ---- the configuration access window (4.1.4.9) ---- */

struct window_access {
	unsigned int bar;
	u32 offset, length;
	u8 *data;
};

/* Does a config access touch the window's data, and is what the driver asks for an access? */
static bool window_access(struct virtio_pci *pci, u32 offset, u32 size,
			  struct window_access *access)
{
	u8 *capability = pci->function.config + pci->window_capability;
	u32 data = pci->window_capability + (u32)sizeof(struct virtio_pci_cap);
	const struct pci_bar *bar;

	if (!pci->window_capability || offset >= data + 4 || offset + size <= data)
		return false;
	access->bar = capability[VIRTIO_PCI_CAP_BAR];
	access->offset = le32_load(capability + VIRTIO_PCI_CAP_OFFSET);
	access->length = le32_load(capability + VIRTIO_PCI_CAP_LENGTH);
	access->data = pci->function.config + data;
	if (access->bar >= PCI_BARS ||
	    (access->length != 1 && access->length != 2 && access->length != 4))
		return false;
	bar = &pci->function.bars[access->bar];
	return bar->kind != PCI_BAR_NONE && access->offset % access->length == 0 &&
	       access->offset < bar->size && access->length <= bar->size - access->offset;
}

static void config_read(struct pci_function *function, u32 offset, u32 size)
{
	struct window_access access;

	if (window_access(function->owner, offset, size, &access))
		le_store(access.data, access.length,
			 pci_bar_access_read(function, access.bar, access.offset, access.length));
}

static void config_written(struct pci_function *function, u32 offset, u32 size)
{
	struct virtio_pci *pci = function->owner;
	struct window_access access;

	if (window_access(pci, offset, size, &access))
		pci_bar_access_write(function, access.bar, access.offset, access.length,
				     le_load(access.data, access.length));
	if (offset < PCI_COMMAND + 2 && offset + size > PCI_COMMAND) {
		enter(pci);
		update_interrupts(pci);
		leave(pci);
	}
}

/* ---- what pci tells ---- */

static void bus_master(struct pci_function *function, bool on)
{
	struct virtio_pci *pci = function->owner;

	enter(pci);
	virtio_device_bus_master(pci->device, on);
	leave(pci);
}

static void msix_enabled(struct pci_function *function, bool on)
{
	struct virtio_pci *pci = function->owner;

	(void)on;
	enter(pci);
	update_interrupts(pci);
	leave(pci);
}

static const struct pci_function_ops function_ops = {
	.bar_read = bar_read,
	.bar_write = bar_write,
	.config_read = config_read,
	.config_written = config_written,
	.bus_master = bus_master,
	.msix_enabled = msix_enabled,
};

/* ---- construction ---- */

static int add_capability(struct virtio_pci *pci, const struct virtio_pci_window *window)
{
	bool notify = window->type == VIRTIO_PCI_CAP_NOTIFY_CFG;
	u8 size = notify ? sizeof(struct virtio_pci_notify_cap) : sizeof(struct virtio_pci_cap);
	int at = pci_capability_add(&pci->function, PCI_CAP_ID_VNDR, size);
	u8 *capability;

	if (at < 0)
		return at;
	capability = pci->function.config + at;
	capability[VIRTIO_PCI_CAP_LEN] = size;
	capability[VIRTIO_PCI_CAP_CFG_TYPE] = window->type;
	capability[VIRTIO_PCI_CAP_BAR] = window->bar;
	le32_store(capability + VIRTIO_PCI_CAP_OFFSET, window->offset);
	le32_store(capability + VIRTIO_PCI_CAP_LENGTH, window->length);
	if (notify)
		le32_store(capability + VIRTIO_PCI_NOTIFY_CAP_MULT, window->multiplier);
	return 0;
}

static int add_window_capability(struct virtio_pci *pci)
{
	u8 size = sizeof(struct virtio_pci_cfg_cap);
	int at = pci_capability_add(&pci->function, PCI_CAP_ID_VNDR, size);
	u8 *writable;

	if (at < 0)
		return at;
	pci->window_capability = (u8)at;
	pci->function.config[at + VIRTIO_PCI_CAP_LEN] = size;
	pci->function.config[at + VIRTIO_PCI_CAP_CFG_TYPE] = VIRTIO_PCI_CAP_PCI_CFG;
	writable = pci->function.writable + at;
	writable[VIRTIO_PCI_CAP_BAR] = 0xff;
	memset(writable + VIRTIO_PCI_CAP_OFFSET, 0xff, (size_t)(size - VIRTIO_PCI_CAP_OFFSET));
	return 0;
}

static int add_capabilities(struct virtio_pci *pci)
{
	int error;

	for (u32 i = 0; i < pci->layout.window_count; i++) {
		error = add_capability(pci, &pci->layout.windows[i]);
		if (error)
			return error;
	}
	return add_window_capability(pci);
}

static int add_doorbells(struct virtio_pci *pci)
{
	for (u32 i = 0; i < pci->layout.window_count; i++) {
		const struct virtio_pci_window *window = &pci->layout.windows[i];

		if (window->type != VIRTIO_PCI_CAP_NOTIFY_CFG)
			continue;
		for (u16 q = 0; q < pci->device->queue_count; q++) {
			struct pci_doorbell doorbell = {
				.bar = window->bar,
				.offset = window->offset + window->multiplier * q,
				.length = window->multiplier ? 0 : 2,
				.match = !window->multiplier,
				.value = q,
				.fd = pci->device->queues[q].doorbell_fd,
			};
			int error = pci_doorbell_add(&pci->function, &doorbell);

			if (error)
				return error;
		}
	}
	return 0;
}

/* Everything that reactors signal for this function. */
static int add_files(struct virtio_pci *pci)
{
	pci->intx_file = reactor_file_add(pci->reactors, pci_intx_fd(&pci->function));
	if (pci->intx_file < 0)
		return pci->intx_file;
	for (u16 i = 0; i < pci->layout.vectors; i++) {
		reactor_file file = reactor_file_add(pci->reactors, pci_msix_fd(&pci->function, i));

		if (file < 0)
			return file;
		pci->vector_files[i] = file;
	}
	return 0;
}

static void remove_files(struct virtio_pci *pci)
{
	if (pci->intx_file >= 0)
		reactor_file_remove(pci->reactors, pci->intx_file);
	for (u16 i = 0; i < pci->layout.vectors; i++)
		if (pci->vector_files[i] >= 0)
			reactor_file_remove(pci->reactors, pci->vector_files[i]);
}

static int make_function(struct virtio_pci *pci, const struct virtio_pci_config *config)
{
	struct pci_function *function = &pci->function;
	const struct virtio_pci_layout *layout = &pci->layout;
	int error = add_capabilities(pci);

	if (!error)
		error = pci_msix_init(function, config->irq, layout->msix_bar, layout->msix_table,
				      layout->msix_pba, layout->vectors);
	if (!error)
		error = add_doorbells(pci);
	if (!error)
		error = pci_function_plug(config->host, function, 0);
	if (!error)
		error = pci_intx_watch(function, config->reactors);
	if (!error)
		error = add_files(pci);
	return error;
}

/* The registers that are ours, at power-on. */
static void connect_device(struct virtio_pci *pci)
{
	struct virtio_device *device = pci->device;

	pthread_mutex_lock(&device->lock);
	device->transport_owner = pci;
	device->transport = &transport_ops;
	for (u16 i = 0; i < device->queue_count; i++)
		device->queues[i].msix_vector = VIRTIO_MSI_NO_VECTOR;
	transport_reset(device);
	virtio_device_bus_master(device, true);
	update_interrupts(pci);
	pthread_mutex_unlock(&device->lock);
}

int virtio_pci_create(struct virtio_pci **result, const struct virtio_pci_config *config)
{
	struct virtio_device *device = config->device;
	struct virtio_pci *pci = calloc(1, sizeof(*pci));
	struct pci_function *function;
	int error = -ENOMEM;

	if (!pci)
		goto out;
	pci->device = device;
	pci->reactors = config->reactors;
	pci->intx_file = -1;
	choose_layout(&pci->layout, device);
	pci->vector_files = calloc(pci->layout.vectors, sizeof(reactor_file));
	if (!pci->vector_files) {
		free(pci);
		goto out;
	}
	memset(pci->vector_files, 0xff, pci->layout.vectors * sizeof(reactor_file)); /* all -1 */

	function = &pci->function;
	function->ops = &function_ops;
	function->owner = pci;
	function->name = device->name;
	function->interrupt_status = interrupt_status;
	if (pci->layout.io_size) {
		function->bars[IO_BAR].kind = PCI_BAR_IO;
		function->bars[IO_BAR].size = pci->layout.io_size;
	}
	function->bars[MEMORY_BAR].kind = PCI_BAR_MEM64;
	function->bars[MEMORY_BAR].size = pci->layout.memory_size;
	pci_function_init(function, &(struct pci_id){
					    .vendor = VENDOR,
					    .device = pci->layout.device_id,
					    .subsystem_vendor = VENDOR,
					    .subsystem = pci->layout.subsystem_id,
					    .revision = pci->layout.revision,
					    .class_code = device->ops->pci_class,
				    });
	error = make_function(pci, config);
	if (error) {
		virtio_pci_destroy(pci);
		goto out;
	}
	connect_device(pci);
	*result = pci;
	return 0;
out:
	log_line("%s: cannot be put on the PCI bus: %s; use fewer devices or queues", device->name,
		 strerror(-error));
	return error;
}

void virtio_pci_destroy(struct virtio_pci *pci)
{
	struct virtio_device *device;

	if (!pci)
		return;
	device = pci->device;
	pci_function_unplug(&pci->function);
	pthread_mutex_lock(&device->lock);
	device->transport = &nobody_ops;
	atomic_store(&device->intx_file, -1);
	for (u16 i = 0; i < device->queue_count; i++)
		atomic_store(&device->queues[i].interrupt, VIRTIO_INTERRUPT_NONE);
	pthread_mutex_unlock(&device->lock);
	remove_files(pci);
	pci_function_destroy(&pci->function);
	free(pci->vector_files);
	free(pci);
}

void virtio_pci_reset(struct virtio_pci *pci)
{
	virtio_device_power_on(pci->device);
	pci_function_reset(&pci->function);
	connect_device(pci);
}
