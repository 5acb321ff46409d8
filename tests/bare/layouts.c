/*
 * Bare guest: disks of every layout, each driven by all that it offers: both interfaces, each
 * doorbell, the ISR where it is, and from the first register to the last by the configuration
 * access window alone, nothing of the function being decoded (virtio 1.3, 4.1.4.9).
 */
#include <linux/pci_regs.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include "bare.h"

#define VERSION_1 (1ull << VIRTIO_F_VERSION_1)
#define SECTOR	  512u

static u8 *data;

/* Writes a sector, reads it back. */
static bool works(struct driver *d, u64 sector, u8 seed, enum doorbell how)
{
	for (u32 i = 0; i < SECTOR; i++)
		data[i] = (u8)(seed + i);
	if (block(d, VIRTIO_BLK_T_OUT, sector, data, SECTOR, how) != VIRTIO_BLK_S_OK)
		return false;
	for (u32 i = 0; i < SECTOR; i++)
		data[i] = 0;
	if (block(d, VIRTIO_BLK_T_IN, sector, data, SECTOR, how) != VIRTIO_BLK_S_OK)
		return false;
	for (u32 i = 0; i < SECTOR; i++)
		if (data[i] != (u8)(seed + i))
			return false;
	return true;
}

/* ---- by the window alone ---- */

static void point(struct function *f, u8 bar, u32 offset, u32 size)
{
	config_write(f->slot, f->window.at + 4, 1, bar);
	config_write(f->slot, f->window.at + 8, 4, offset);
	config_write(f->slot, f->window.at + 12, 4, size);
}

static u32 window_read(struct function *f, const struct capability *c, u32 at, u32 size)
{
	point(f, c->bar, c->offset + at, size);
	return config_read(f->slot, f->window.at + 16, size);
}

static void window_write(struct function *f, const struct capability *c, u32 at, u32 size,
			 u32 value)
{
	point(f, c->bar, c->offset + at, size);
	config_write(f->slot, f->window.at + 16, size, value);
}

static void window_set64(struct function *f, u32 at, u64 value)
{
	window_write(f, &f->common, at, 4, (u32)value);
	window_write(f, &f->common, at + 4, 4, (u32)(value >> 32));
}

static void window_status(struct function *f, u8 value)
{
	window_write(f, &f->common, VIRTIO_PCI_COMMON_STATUS, 1, value);
}

static void start_by_window(struct driver *d, struct function *f)
{
	struct queue *q = &d->queue[0];

	*d = (struct driver){ .f = f };
	window_status(f, 0);
	while (window_read(f, &f->common, VIRTIO_PCI_COMMON_STATUS, 1))
		;
	window_status(f, 1);
	window_status(f, 3);
	for (u32 i = 0; i < 2; i++) {
		window_write(f, &f->common, VIRTIO_PCI_COMMON_GFSELECT, 4, i);
		window_write(f, &f->common, VIRTIO_PCI_COMMON_GF, 4, (u32)(VERSION_1 >> 32 * i));
	}
	window_status(f, 11);
	EXPECT_EQ(window_read(f, &f->common, VIRTIO_PCI_COMMON_STATUS, 1), 11);
	window_write(f, &f->common, VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
	make_queue(q, 0, (u16)window_read(f, &f->common, VIRTIO_PCI_COMMON_Q_SIZE, 2));
	window_set64(f, VIRTIO_PCI_COMMON_Q_DESCLO, (u64)q->desc);
	window_set64(f, VIRTIO_PCI_COMMON_Q_AVAILLO, (u64)q->avail);
	window_set64(f, VIRTIO_PCI_COMMON_Q_USEDLO, (u64)q->used);
	window_write(f, &f->common, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
	window_status(f, 15);
}

static void test_window_alone(struct function *f)
{
	const struct capability *notify = f->notify_mem.found ? &f->notify_mem : &f->notify_io;
	const struct capability *isr = f->isr_mem.found ? &f->isr_mem : &f->isr_io;
	static struct virtio_blk_outhdr header;
	static volatile u8 status;
	const struct part parts[] = { { &header, sizeof(header) },
				      { data, SECTOR },
				      { (u8 *)&status, 1 } };
	struct driver d;

	config_write(f->slot, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
	start_by_window(&d, f);
	EXPECT(window_read(f, &f->config, 0, 4) >= 1024); /* the capacity */
	for (u32 i = 0; i < SECTOR; i++)
		data[i] = 0xee;
	status = 0xff;
	header = (struct virtio_blk_outhdr){ .type = VIRTIO_BLK_T_IN, .sector = 3 };
	add_chain(&d.queue[0], parts, 3, 1);
	window_write(f, notify, 0, 2, 0);
	EXPECT(wait_used(&d.queue[0]) >= 0);
	EXPECT_EQ(status, VIRTIO_BLK_S_OK);
	EXPECT_EQ(data[0], 3); /* what works() left in sector 3 */
	EXPECT_EQ(window_read(f, isr, 0, 1), 1);
	EXPECT_EQ(window_read(f, isr, 0, 1), 0);
	window_status(f, 0);
	while (window_read(f, &f->common, VIRTIO_PCI_COMMON_STATUS, 1))
		;
	config_write(f->slot, PCI_COMMAND, 2,
		     PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

/* ---- all that a function has ---- */

static void test_modern(struct function *f)
{
	static const struct {
		enum doorbell how;
		size_t where;
	} doorbells[] = { { DOORBELL_IO, offsetof(struct function, notify_io) },
			  { DOORBELL_MEM, offsetof(struct function, notify_mem) } };
	struct driver d = { 0 };

	for (u32 i = 0; i < ARRAY_SIZE(doorbells); i++) {
		const struct capability *c = (const void *)((u8 *)f + doorbells[i].where);

		if (!c->found)
			continue;
		EXPECT(start_modern(&d, f, VERSION_1, 1));
		EXPECT(works(&d, 3, 3, doorbells[i].how));
		/* without MSI-X the ISR tells, wherever it is */
		if (f->isr_io.found)
			EXPECT_EQ(in8((u16)(f->bar[f->isr_io.bar] + f->isr_io.offset)), 1);
		else
			EXPECT_EQ(read8(f->bar[f->isr_mem.bar] + f->isr_mem.offset), 1);
		reset(&d);
	}
	EXPECT(f->notify_io.found || f->notify_mem.found);
}

static void test_legacy(struct function *f)
{
	struct driver d = { 0 };

	start_legacy(&d, f, 0, 1);
	EXPECT(works(&d, 4, 4, DOORBELL_LEGACY));
	EXPECT_EQ(in8((u16)(f->bar[0] + VIRTIO_PCI_ISR)), 1);
	reset(&d);
}

void test_layouts(void)
{
	static const char *const names[] = { "layout 0", "layout 1", "layout 2", "layout 3",
					     "layout 4", "layout 5", "layout 6", "layout 7",
					     "layout 8", "layout 9" };
	struct function f;
	u32 n = 0;

	data = allocate(4096, 4096);
	for (; n < ARRAY_SIZE(names) && find_function(&f, VIRTIO_ID_BLOCK, n); n++) {
		begin(names[n]);
		say("layout %u: device %x, msix %x\n", n, f.device, f.msix);
		if (f.common.found) {
			test_modern(&f);
			test_window_alone(&f);
		}
		if (f.device < 0x1040)
			test_legacy(&f);
		EXPECT(f.common.found || f.device < 0x1040);
		finish();
	}
	begin("layouts: all were there");
	EXPECT_EQ(n, ARRAY_SIZE(names));
	finish();
	machine_end(failures ? 1 : 77);
}
