/*
 * A virtio device as a PCI function (virtio 1.3, 4.1): where its structures stand, capabilities,
 * interrupts, doorbells, and the configuration access window. Registers run on vCPU threads;
 * interrupts are decided on any thread.
 *
 * Locks: the function's, then the device's. Nothing here that a reactor calls takes the function's,
 * so that a vCPU may wait for a reactor (a legacy reset) while it holds it.
 */
#include "virtio/pci-internal.h"
#include "virtio/strict.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include "vm/log.h"

/* ---- interrupts ---- */

/* What a queue's reactor shall do for an interrupt; device's lock held. */
static void update_queue_interrupt(struct virtio_pci *pci, struct virtio_queue *queue)
{
	s32 file = VIRTIO_INTERRUPT_INTX, fd = VIRTIO_INTERRUPT_INTX;

	/* Under MSI-X an unmapped queue is silent; it does not fall back to the line (4.1.5.1.3).
	 */
	if (pci_msix_enabled(&pci->function)) {
		bool mapped = queue->msix_vector < pci->layout.vectors;

		file = mapped ? pci->vector_files[queue->msix_vector] : VIRTIO_INTERRUPT_NONE;
		fd = mapped ? pci_msix_fd(&pci->function, queue->msix_vector)
			    : VIRTIO_INTERRUPT_NONE;
	}
	virtio_queue_set_interrupt(queue, file, fd);
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
	if (pci->device->strict)
		strict_vector_write(pci->device, NULL, vector, pci->layout.vectors);
	pci->config_vector = vector < pci->layout.vectors ? vector : VIRTIO_MSI_NO_VECTOR;
}

void virtio_pci_set_queue_vector(struct virtio_pci *pci, struct virtio_queue *queue, u16 vector)
{
	if (pci->device->strict)
		strict_vector_write(pci->device, queue, vector, pci->layout.vectors);
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

/* The reset that follows virtio_pci_vanish() has ended. */
static void nobody_reset(struct virtio_device *device)
{
	struct virtio_pci *pci = device->transport_owner;

	if (pci->idle_fd >= 0)
		eventfd_write(pci->idle_fd, 1);
}

static const struct virtio_transport_ops nobody_ops = {
	.config_interrupt = nobody_config_interrupt,
	.reset = nobody_reset,
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

u8 virtio_pci_isr_read(struct virtio_pci *pci)
{
	u8 value = virtio_isr_read(pci->device);

	if (pci->device->strict && pci_msix_enabled(&pci->function) &&
	    !(value & VIRTIO_PCI_ISR_CONFIG))
		strict_report(pci->device, NULL, STRICT_ISR_UNDER_MSIX, "it is read, and holds %u",
			      value);
	return value;
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
	if (pci->vanished)
		value = ~0ull;
	else if (pci->layout.legacy && bar == VIRTIO_PCI_IO_BAR)
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
	/* an access that was on its way when the function went reaches nothing */
	if (pci->vanished)
		goto out;
	if (pci->layout.legacy && bar == VIRTIO_PCI_IO_BAR)
		virtio_pci_legacy_write(pci, offset, size, value);
	else if (window)
		virtio_pci_modern_write(pci, window, offset - window->offset, size, value);
out:
	leave(pci);
}

/* ---- what pci tells ---- */

static void config_read(struct pci_function *function, u32 offset, u32 size)
{
	virtio_pci_window_read(function->owner, offset, size);
}

static void config_written(struct pci_function *function, u32 offset, u32 size)
{
	struct virtio_pci *pci = function->owner;

	virtio_pci_window_written(pci, offset, size);
	if (offset < PCI_COMMAND + 2 && offset + size > PCI_COMMAND) {
		enter(pci);
		update_interrupts(pci);
		leave(pci);
	}
}

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
				.length = window->multiplier ? pci->layout.doorbell_bytes : 2,
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
	pci->intx_file = reactor_eventfd_add(pci->reactors, pci_intx_fd(&pci->function));
	if (pci->intx_file < 0)
		return pci->intx_file;
	for (u16 i = 0; i < pci->layout.vectors; i++) {
		reactor_file file =
			reactor_eventfd_add(pci->reactors, pci_msix_fd(&pci->function, i));

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
	int error = virtio_pci_add_capabilities(pci);

	if (!error && layout->vectors)
		error = pci_msix_init(function, config->irq, layout->msix_bar, layout->msix_table,
				      layout->msix_pba, layout->vectors);
	if (!error)
		error = add_doorbells(pci);
	if (!error)
		error = pci_function_place(config->host, function, 0);
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

/*
 * What the user wants, within what is there: KVM has one table of interrupt routes for the whole
 * machine. Who comes when it is nearly full gets what is left, and shares or goes without: that is
 * slower, not less.
 */
static const struct config_function *function_wishes(const struct virtio_pci_config *config,
						     struct config_function *wishes)
{
	u32 room = irq_msi_room(config->irq), vectors = config->device->queue_count + 1u;

	*wishes = config->function ? *config->function : (struct config_function){ 0 };
	if (wishes->vectors_given)
		vectors = wishes->vectors;
	else if (vectors > PCI_MSIX_MAX)
		vectors = PCI_MSIX_MAX;
	if (vectors > room) {
		log_line("%s: %u interrupt vectors instead of %u: KVM has routes for no more; give "
			 "devices fewer queues, or smaller vectors=",
			 config->device->name, room, vectors);
		vectors = room;
	}
	wishes->vectors_given = true;
	wishes->vectors = (u16)vectors;
	return wishes;
}

int virtio_pci_create(struct virtio_pci **result, const struct virtio_pci_config *config)
{
	struct virtio_device *device = config->device;
	struct virtio_pci *pci = calloc(1, sizeof(*pci));
	struct config_function wishes;
	struct pci_function *function;
	int error = -ENOMEM;

	if (!pci)
		goto out;
	pci->device = device;
	pci->reactors = config->reactors;
	pci->intx_file = pci->idle_fd = -1;
	virtio_pci_choose_layout(&pci->layout, device, function_wishes(config, &wishes));
	pci->vector_files = calloc(pci->layout.vectors + 1u, sizeof(reactor_file));
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
		function->bars[VIRTIO_PCI_IO_BAR].kind = PCI_BAR_IO;
		function->bars[VIRTIO_PCI_IO_BAR].size = pci->layout.io_size;
	}
	if (pci->layout.memory_size) {
		function->bars[VIRTIO_PCI_MEMORY_BAR].kind = PCI_BAR_MEM64;
		function->bars[VIRTIO_PCI_MEMORY_BAR].size = pci->layout.memory_size;
	}
	pci_function_init(function, &(struct pci_id){
					    .vendor = VIRTIO_PCI_VENDOR,
					    .device = pci->layout.device_id,
					    .subsystem_vendor = VIRTIO_PCI_VENDOR,
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
	pci_function_appear(function);
	*result = pci;
	return 0;
out:
	log_line("%s: cannot be put on the PCI bus: %s; use fewer devices or queues", device->name,
		 strerror(-error));
	return error;
}

/* From the first half on no reactor asks for an interrupt of the configuration, from the second
 * none of a queue. */
static void take_out(struct virtio_pci *pci)
{
	struct virtio_device *device = pci->device;

	pthread_mutex_lock(&device->lock);
	pci->vanished = true;
	device->transport_owner = pci;
	device->transport = &nobody_ops;
	pthread_mutex_unlock(&device->lock);
	pci_function_unplug(&pci->function);
	pthread_mutex_lock(&device->lock);
	atomic_store(&device->intx_file, -1);
	for (u16 i = 0; i < device->queue_count; i++)
		virtio_queue_set_interrupt(&device->queues[i], VIRTIO_INTERRUPT_NONE,
					   VIRTIO_INTERRUPT_NONE);
	pthread_mutex_unlock(&device->lock);
}

void virtio_pci_vanish(struct virtio_pci *pci, int idle_fd)
{
	struct virtio_device *device = pci->device;

	take_out(pci);
	pthread_mutex_lock(&device->lock);
	pci->idle_fd = idle_fd;
	virtio_status_write(device, 0, false);
	pthread_mutex_unlock(&device->lock);
}

bool virtio_pci_idle(struct virtio_pci *pci)
{
	bool idle;

	pthread_mutex_lock(&pci->device->lock);
	idle = !pci->device->resetting;
	pthread_mutex_unlock(&pci->device->lock);
	return idle;
}

void virtio_pci_destroy(struct virtio_pci *pci)
{
	if (!pci)
		return;
	if (!pci->vanished)
		take_out(pci);
	pthread_mutex_lock(&pci->device->lock);
	pci->device->transport = NULL;
	pthread_mutex_unlock(&pci->device->lock);
	remove_files(pci);
	pci_function_destroy(&pci->function);
	free(pci->vector_files);
	free(pci);
}

struct pci_function *virtio_pci_function(struct virtio_pci *pci)
{
	return &pci->function;
}

u8 virtio_pci_slot(const struct virtio_pci *pci)
{
	return pci->function.slot;
}

void virtio_pci_reset(struct virtio_pci *pci)
{
	virtio_device_power_on(pci->device);
	pci_function_reset(&pci->function);
	connect_device(pci);
}
