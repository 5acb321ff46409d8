/*
 * Where the structures of a virtio function stand (virtio 1.3, 4.1.4), the capabilities that say
 * so, and the configuration access window among them. Layout on the main thread; the window on vCPU
 * threads, function's lock held.
 */
#include "virtio/pci-internal.h"
#include "virtio/strict.h"

#define MODERN_BASE   0x1040
#define COMMON_LENGTH 64 /* with queue_notify_data and queue_reset */
#define PAGE	      KIB(4)
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

static u32 preference(const struct virtio_pci_window *window, bool memory_first)
{
	bool io = window->bar == VIRTIO_PCI_IO_BAR;
	bool second = window->type == VIRTIO_PCI_CAP_NOTIFY_CFG && memory_first ? io : !io;

	return 2u * window->type + second;
}

/* By kind, and in each as drivers shall meet them: Linux takes the first of a kind that it can map.
 */
static void sort_windows(struct virtio_pci_layout *layout, bool memory_first)
{
	for (u32 i = 1; i < layout->window_count; i++)
		for (u32 j = i; j; j--) {
			struct virtio_pci_window *a = &layout->windows[j - 1];
			struct virtio_pci_window *b = a + 1, kept = *a;

			if (preference(a, memory_first) <= preference(b, memory_first))
				break;
			*a = *b;
			*b = kept;
		}
}

static void choose_identity(struct virtio_pci_layout *layout, const struct virtio_device *device,
			    const struct config_function *wishes)
{
	u16 id = transitional_id(device->ops->id);

	/* A device type without a transitional ID has no legacy interface (4.1.2.1). */
	layout->legacy = id && wishes->layout != CONFIG_LAYOUT_MODERN;
	layout->modern = !layout->legacy || wishes->layout != CONFIG_LAYOUT_LEGACY;
	layout->device_id = layout->legacy ? id : (u16)(MODERN_BASE + device->ops->id);
	layout->subsystem_id = layout->legacy ? device->ops->id : layout->device_id;
	layout->revision = layout->legacy ? 0 : 1;
}

/* Where the ISR or the doorbells are offered to modern drivers. */
static bool offers(const struct virtio_pci_layout *layout, enum config_place wish,
		   enum config_place place)
{
	if (!layout->modern)
		return false;
	if (wish != CONFIG_PLACE_ANY)
		return wish == place;
	return place == CONFIG_PLACE_MMIO || layout->legacy;
}

/* The windows in BAR0, which is what says how large that is. A legacy driver's doorbell is there in
 * any case. */
static void add_io_windows(struct virtio_pci_layout *layout, const struct virtio_device *device,
			   bool notify, bool isr)
{
	u64 size = VIRTIO_PCI_CONFIG_OFF(1);

	if (layout->legacy || notify)
		add_window(layout, (struct virtio_pci_window){ .type = VIRTIO_PCI_CAP_NOTIFY_CFG,
							       .bar = VIRTIO_PCI_IO_BAR,
							       .offset = VIRTIO_PCI_QUEUE_NOTIFY,
							       .length = 2,
							       .silent = !notify });
	if (isr)
		add_window(layout, (struct virtio_pci_window){ .type = VIRTIO_PCI_CAP_ISR_CFG,
							       .bar = VIRTIO_PCI_IO_BAR,
							       .offset = VIRTIO_PCI_ISR,
							       .length = 1 });
	if (!layout->window_count)
		return;
	if (layout->legacy)
		size += device->config_size;
	layout->io_size = power_of_two(32, size);
	if (layout->io_size > IO_BAR_MOST)
		layout->io_size = IO_BAR_MOST;
}

static void add_memory_window(struct virtio_pci_layout *layout, u8 type, u32 length, u32 multiplier)
{
	add_window(layout, (struct virtio_pci_window){ .type = type,
						       .bar = VIRTIO_PCI_MEMORY_BAR,
						       .offset = take_pages(layout, length),
						       .length = length,
						       .multiplier = multiplier });
}

static void add_msix(struct virtio_pci_layout *layout)
{
	if (!layout->vectors)
		return;
	layout->msix_bar = VIRTIO_PCI_MEMORY_BAR;
	layout->msix_table = take_pages(layout, (u64)layout->vectors * PCI_MSIX_ENTRY_SIZE);
	layout->msix_pba = take_pages(layout, ALIGN_UP((u32)layout->vectors, 64u) / 8);
}

void virtio_pci_choose_layout(struct virtio_pci_layout *layout, const struct virtio_device *device,
			      const struct config_function *wishes)
{
	u32 queues = device->queue_count;
	bool memory_first = queues > PORT_QUEUES;
	bool port;

	choose_identity(layout, device, wishes);
	layout->vectors = wishes->vectors;
	layout->doorbell_bytes = wishes->notify_exact ? 2 : 0;
	/* 4.1.4.4.1: NOTIFICATION_DATA is four bytes, and behind the port's two are registers. In
	 * memory the value is not looked at, since it says more than the queue. */
	port = offers(layout, wishes->notify, CONFIG_PLACE_PIO) &&
	       !(device->offered & BIT64(VIRTIO_F_NOTIFICATION_DATA));
	add_io_windows(layout, device, port, offers(layout, wishes->isr, CONFIG_PLACE_PIO));
	if (layout->modern)
		add_memory_window(layout, VIRTIO_PCI_CAP_COMMON_CFG, COMMON_LENGTH, 0);
	if (offers(layout, wishes->isr, CONFIG_PLACE_MMIO))
		add_memory_window(layout, VIRTIO_PCI_CAP_ISR_CFG, 1, 0);
	if (layout->modern && device->config_size)
		add_memory_window(layout, VIRTIO_PCI_CAP_DEVICE_CFG, device->config_size, 0);
	if (offers(layout, wishes->notify, CONFIG_PLACE_MMIO) || (layout->modern && !port))
		add_memory_window(layout, VIRTIO_PCI_CAP_NOTIFY_CFG, queues * NOTIFY_STEP,
				  NOTIFY_STEP);
	add_msix(layout);
	if (layout->memory_size)
		layout->memory_size = power_of_two(PAGE, layout->memory_size);
	sort_windows(layout, memory_first);
}

/* ---- capabilities ---- */

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

int virtio_pci_add_capabilities(struct virtio_pci *pci)
{
	int error;

	for (u32 i = 0; i < pci->layout.window_count; i++) {
		if (pci->layout.windows[i].silent)
			continue;
		error = add_capability(pci, &pci->layout.windows[i]);
		if (error)
			return error;
	}
	return pci->layout.modern ? add_window_capability(pci) : 0;
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

/* 4.1.4.9.2: only accesses to virtio structures, aligned. A window that was never pointed anywhere
 * is read by whoever looks through the whole of configuration space. */
static void check_window(struct virtio_pci *pci, u32 offset, u32 size, bool good,
			 const struct window_access *access)
{
	u32 data = pci->window_capability + (u32)sizeof(struct virtio_pci_cap);

	if (!pci->window_capability || offset >= data + 4 || offset + size <= data ||
	    !(access->bar | access->offset | access->length))
		return;
	for (u32 i = 0; good && i < pci->layout.window_count; i++) {
		const struct virtio_pci_window *window = &pci->layout.windows[i];

		if (!window->silent && window->bar == access->bar &&
		    access->offset >= window->offset &&
		    access->offset + access->length <= window->offset + window->length)
			return;
	}
	strict_report(pci->device, NULL, STRICT_WINDOW, "BAR %u, offset 0x%x, length %u",
		      access->bar, access->offset, access->length);
}

void virtio_pci_window_read(struct virtio_pci *pci, u32 offset, u32 size)
{
	struct window_access access = { 0 };
	bool good = window_access(pci, offset, size, &access);

	if (pci->device->strict)
		check_window(pci, offset, size, good, &access);
	if (good)
		le_store(access.data, access.length,
			 pci_bar_access_read(&pci->function, access.bar, access.offset,
					     access.length));
}

void virtio_pci_window_written(struct virtio_pci *pci, u32 offset, u32 size)
{
	struct window_access access = { 0 };
	bool good = window_access(pci, offset, size, &access);

	if (pci->device->strict)
		check_window(pci, offset, size, good, &access);
	if (good)
		pci_bar_access_write(&pci->function, access.bar, access.offset, access.length,
				     le_load(access.data, access.length));
}
