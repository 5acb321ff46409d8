/*
 * Bare guest: what a driver may do to a machine and its functions that Linux never does, or only
 * once: exits, doorbells in every form, BAR moves, masks, line interrupts, both layouts, resets,
 * broken rings.
 */
#include <linux/pci_regs.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include "bare.h"

#define VERSION_1 (1ull << VIRTIO_F_VERSION_1)
#define ECAM	  0xe0000000ull
#define SECTOR	  512u

static u8 *data;
/* What every modern driver here takes: VERSION_1, and packed rings if we were asked for these. */
static u64 usual = VERSION_1;

static void fill(u8 seed)
{
	for (u32 i = 0; i < SECTOR; i++)
		data[i] = (u8)(seed + i * 7);
}

static bool filled(u8 seed)
{
	for (u32 i = 0; i < SECTOR; i++)
		if (data[i] != (u8)(seed + i * 7))
			return false;
	return true;
}

/* Writes a sector, reads it back: 0, or how far it got. */
static int round_trip(struct driver *d, u64 sector, u8 seed, enum doorbell how)
{
	fill(seed);
	if (block(d, VIRTIO_BLK_T_OUT, sector, data, SECTOR, how) != VIRTIO_BLK_S_OK)
		return 1;
	for (u32 i = 0; i < SECTOR; i++)
		data[i] = 0;
	if (block(d, VIRTIO_BLK_T_IN, sector, data, SECTOR, how) != VIRTIO_BLK_S_OK)
		return 2;
	return filled(seed) ? 0 : 3;
}

static void test_nobody_there(void)
{
	begin("reads from nowhere give all ones, writes are dropped");
	EXPECT_EQ(in8(0x2f8), 0xff);
	EXPECT_EQ(in8(0x61), 0x20); /* an NMI has no reason here */
	EXPECT_EQ(in32(0x8888), 0xffffffff);
	out32(0x8888, 1);
	EXPECT_EQ(read32(0xd0000000ull), 0xffffffff);
	EXPECT_EQ(read64(0xd0000000ull), ~0ull);
	write64(0xd0000000ull, 0);
	finish();
}

static void test_config_space(void)
{
	begin("configuration space by ports and by ECAM agree");
	EXPECT_EQ(config_read(0, PCI_CLASS_DEVICE, 2), 0x0600);
	for (u32 slot = 0; slot < 32; slot++)
		for (u32 at = 0; at < 64; at += 4)
			EXPECT_EQ(read32(ECAM + slot * 32768 + at), config_read(slot, at, 4));
	EXPECT_EQ(read32(ECAM + 0x100), 0);
	EXPECT_EQ(read32(ECAM + 31 * 32768), 0xffffffff);
	EXPECT_EQ(read32(ECAM + 32768 + 4096), 0xffffffff); /* function 1 */
	out32(0xcf8, 0); /* no enable bit: not a configuration access */
	EXPECT_EQ(in32(0xcfc), 0xffffffff);
	finish();
}

static void test_identity(struct function *f)
{
	begin("a transitional function says what it is");
	EXPECT_EQ(f->device, 0x1001);
	EXPECT_EQ(config_read(f->slot, PCI_REVISION_ID, 1), 0);
	EXPECT_EQ(config_read(f->slot, PCI_SUBSYSTEM_ID, 2), VIRTIO_ID_BLOCK);
	EXPECT(f->bar_io[0]);
	EXPECT(f->common.found && f->notify_io.found && f->notify_mem.found && f->isr_io.found);
	EXPECT(f->config.found && f->window.found && f->msix);
	EXPECT_EQ(f->isr_io.offset, VIRTIO_PCI_ISR);
	EXPECT(f->common.length >= 64);
	/* the I/O doorbell comes before the memory one */
	EXPECT(f->notify_io.at < f->notify_mem.at);
	EXPECT_EQ(bar_size(f, 0) & (bar_size(f, 0) - 1), 0);
	EXPECT(bar_size(f, 0) <= 256);
	finish();
}

static void test_doorbells(struct function *f)
{
	static const struct {
		enum doorbell how;
		const char *name;
	} all[] = { { DOORBELL_IO, "I/O doorbell: write and read back" },
		    { DOORBELL_MEM, "memory doorbell: write and read back" },
		    { DOORBELL_WINDOW, "PCI_CFG window doorbell: write and read back" } };
	struct driver d = { 0 };

	for (u32 i = 0; i < ARRAY_SIZE(all); i++) {
		begin(all[i].name);
		EXPECT(start_modern(&d, f, usual, 1));
		EXPECT_EQ(round_trip(&d, 8 + i, (u8)(i * 50 + 1), all[i].how), 0);
		finish();
	}
	reset(&d);
}

static void test_legacy(struct function *f)
{
	struct driver d = { 0 };
	u16 base = (u16)f->bar[0];
	u64 capacity;

	begin("legacy layout: write and read back, config at any width");
	start_legacy(&d, f, 0, 1);
	EXPECT_EQ(round_trip(&d, 20, 77, DOORBELL_LEGACY), 0);
	capacity = in32((u16)(base + 20)) | (u64)in32((u16)(base + 24)) << 32;
	EXPECT(capacity >= 1024);
	for (u32 i = 0; i < 8; i++)
		EXPECT_EQ(in8((u16)(base + 20 + i)), (u8)(capacity >> (i * 8)));
	EXPECT_EQ(in32((u16)(base + VIRTIO_PCI_QUEUE_PFN)), (u64)d.queue[0].desc >> 12);
	finish();

	begin("legacy layout: MSI-X moves the configuration by four bytes");
	config_write(f->slot, f->msix + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
	EXPECT_EQ(in16((u16)(base + VIRTIO_MSI_CONFIG_VECTOR)), VIRTIO_MSI_NO_VECTOR);
	EXPECT_EQ(in32((u16)(base + 24)), (u32)capacity);
	config_write(f->slot, f->msix + PCI_MSIX_FLAGS, 2, 0);
	EXPECT_EQ(in32((u16)(base + 20)), (u32)capacity);
	finish();
	reset(&d);

	begin("a modern driver follows a legacy one without a trace");
	EXPECT_EQ(in32((u16)(base + VIRTIO_PCI_QUEUE_PFN)), 0);
	EXPECT(start_modern(&d, f, usual, 1));
	EXPECT_EQ(round_trip(&d, 21, 78, DOORBELL_MEM), 0);
	finish();
	reset(&d);

	begin("a legacy driver follows a modern one without a trace");
	start_legacy(&d, f, 0, 1);
	EXPECT_EQ(round_trip(&d, 22, 79, DOORBELL_LEGACY), 0);
	finish();
	reset(&d);
}

static void test_features(struct function *f)
{
	struct driver d = { 0 };

	begin("features: windows beyond 1 read 0, refused sets do not stick");
	d.f = f;
	reset(&d);
	EXPECT(device_features(&d) & VERSION_1);
	for (u32 select = 2; select < 10; select++) {
		write32(common(&d) + VIRTIO_PCI_COMMON_DFSELECT, select);
		EXPECT_EQ(read32(common(&d) + VIRTIO_PCI_COMMON_DF), 0);
	}
	EXPECT(!start_modern(&d, f, usual | 1ull << 49, 1));
	EXPECT(!start_modern(&d, f, 0, 1)); /* the modern layout without VERSION_1 */
	EXPECT(start_modern(&d, f, usual, 1));
	finish();
	reset(&d);
}

static void moves_in_flight(struct driver *d, u32 bar, u64 to, enum doorbell how)
{
	static struct virtio_blk_outhdr headers[9];
	static u8 *large;
	static volatile u8 status[9];
	const u32 bytes = 65536;

	if (!large)
		large = allocate(9 * bytes, 4096);
	for (u32 i = 0; i < 9; i++) {
		const struct part parts[] = { { &headers[i], sizeof(headers[i]) },
					      { large + i * bytes, bytes },
					      { (u8 *)&status[i], 1 } };

		headers[i] =
			(struct virtio_blk_outhdr){ .type = VIRTIO_BLK_T_IN, .sector = i * 16 };
		status[i] = 0xff;
		if (i == 8) {
			ring(d, 0, how);
			move_bar(d->f, bar, to);
		}
		add_chain(&d->queue[0], parts, 3, 1);
	}
	ring(d, 0, how);
	for (u32 i = 0; i < 9; i++)
		EXPECT(wait_used(&d->queue[0]) == (long)bytes + 1);
	for (u32 i = 0; i < 9; i++)
		EXPECT_EQ(status[i], VIRTIO_BLK_S_OK);
}

static void test_bar_moves(struct function *f)
{
	struct driver d = { 0 };
	u64 old_io = f->bar[0], old_mem = f->bar[2];

	begin("BARs move: nothing is lost, the new doorbells ring, the old address is dead");
	EXPECT(start_modern(&d, f, usual, 1));
	EXPECT_EQ(round_trip(&d, 30, 1, DOORBELL_IO), 0);
	move_bar(f, 0, 0x9000);
	EXPECT_EQ(f->bar[0], 0x9000);
	EXPECT_EQ(in32((u16)old_io), 0xffffffff);
	EXPECT_EQ(round_trip(&d, 31, 2, DOORBELL_IO), 0);
	move_bar(f, 2, 0x1c0000000ull);
	EXPECT_EQ(read32(old_mem), 0xffffffff);
	EXPECT_EQ(read8(common(&d) + VIRTIO_PCI_COMMON_STATUS), 15);
	EXPECT_EQ(round_trip(&d, 32, 3, DOORBELL_MEM), 0);
	EXPECT_EQ(round_trip(&d, 33, 4, DOORBELL_IO), 0);
	/* the way back, of each BAR with requests in flight, and one more that rings at the new
	 * address */
	moves_in_flight(&d, 0, old_io, DOORBELL_IO);
	moves_in_flight(&d, 2, old_mem, DOORBELL_MEM);
	EXPECT_EQ(in32(0x9000), 0xffffffff);
	EXPECT_EQ(read32(0x1c0000000ull), 0xffffffff);
	EXPECT_EQ(round_trip(&d, 34, 5, DOORBELL_MEM), 0);
	finish();

	begin("two BARs on one address and back: nothing breaks");
	{
		struct function g;

		if (find_function(&g, VIRTIO_ID_RNG, 0)) {
			u64 own = g.bar[0];

			move_bar(&g, 0, f->bar[0]);
			round_trip(&d, 35, 6, DOORBELL_IO);
			move_bar(&g, 0, own);
			EXPECT_EQ(round_trip(&d, 35, 7, DOORBELL_IO), 0);
		}
	}
	finish();
	reset(&d);
}

static void test_decode(struct function *f)
{
	static struct virtio_blk_outhdr header;
	static volatile u8 status = 0xff;
	const struct part parts[] = { { &header, sizeof(header) },
				      { data, SECTOR },
				      { (u8 *)&status, 1 } };
	struct driver d = { 0 };
	u64 before;

	begin("decoding off: registers and doorbells are dead; on: they live again");
	EXPECT(start_modern(&d, f, usual, 1));
	EXPECT_EQ(round_trip(&d, 36, 8, DOORBELL_IO), 0);
	add_chain(&d.queue[0], parts, 3, 1);
	before = device_wrote(&d.queue[0]);
	config_write(f->slot, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
	EXPECT_EQ(read8(common(&d)), 0xff);
	/* queue 0 has the first of each kind */
	out16((u16)(f->bar[0] + VIRTIO_PCI_QUEUE_NOTIFY), 0);
	out16((u16)(f->bar[f->notify_io.bar] + f->notify_io.offset), 0);
	write16(f->bar[f->notify_mem.bar] + f->notify_mem.offset, 0);
	settle();
	EXPECT_EQ(device_wrote(&d.queue[0]), before);
	config_write(f->slot, PCI_COMMAND, 2,
		     PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	EXPECT_EQ(read8(common(&d) + VIRTIO_PCI_COMMON_STATUS), 15);
	ring(&d, 0, DOORBELL_IO);
	EXPECT(wait_used(&d.queue[0]) >= 0);
	EXPECT_EQ(status, VIRTIO_BLK_S_OK);
	finish();
	reset(&d);
}

static void test_bus_master(struct function *f)
{
	static struct virtio_blk_outhdr header;
	static volatile u8 status = 0xff;
	const struct part parts[] = { { &header, sizeof(header) },
				      { data, SECTOR },
				      { (u8 *)&status, 1 } };
	struct driver d = { 0 };

	begin("Bus Master cleared stops DMA; set, it goes on");
	EXPECT(start_modern(&d, f, usual, 1));
	EXPECT_EQ(round_trip(&d, 40, 9, DOORBELL_IO), 0);
	config_write(f->slot, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
	add_chain(&d.queue[0], parts, 3, 1);
	ring(&d, 0, DOORBELL_IO);
	settle();
	EXPECT_EQ(status, 0xff);
	config_write(f->slot, PCI_COMMAND, 2,
		     PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	ring(&d, 0, DOORBELL_IO);
	EXPECT(wait_used(&d.queue[0]) >= 0);
	EXPECT_EQ(status, VIRTIO_BLK_S_OK);
	finish();
	reset(&d);
}

static void msix_entry(struct function *f, u32 n, u8 vector, bool masked)
{
	u64 e = f->msix_table + n * PCI_MSIX_ENTRY_SIZE;

	write32(e + PCI_MSIX_ENTRY_VECTOR_CTRL, 1);
	write32(e + PCI_MSIX_ENTRY_LOWER_ADDR, 0xfee00000);
	write32(e + PCI_MSIX_ENTRY_UPPER_ADDR, 0);
	write32(e + PCI_MSIX_ENTRY_DATA, vector);
	write32(e + PCI_MSIX_ENTRY_VECTOR_CTRL, masked);
}

static void msix_control(struct function *f, u32 flags)
{
	config_write(f->slot, f->msix + PCI_MSIX_FLAGS, 2, flags);
}

static void test_msix(struct function *f)
{
	const u8 v = VECTOR_FIRST;
	struct driver d = { 0 };
	u32 n;

	begin("MSI-X: a vector comes, moves, and stays away when unmapped");
	EXPECT(start_modern(&d, f, usual, 1));
	msix_entry(f, 0, v, false);
	msix_entry(f, 1, v + 1, false);
	msix_control(f, PCI_MSIX_FLAGS_ENABLE);
	set_vector(&d, 0, 1);
	EXPECT_EQ(read16(common(&d) + VIRTIO_PCI_COMMON_Q_MSIX), 1);
	EXPECT_EQ(round_trip(&d, 50, 1, DOORBELL_IO), 0);
	EXPECT_EQ(wait_interrupts(v + 1, 2), 2);
	EXPECT_EQ(interrupts[v], 0);
	msix_entry(f, 1, v + 2, false); /* the same entry, another vector */
	EXPECT_EQ(round_trip(&d, 51, 2, DOORBELL_MEM), 0);
	EXPECT_EQ(wait_interrupts(v + 2, 2), 2);
	EXPECT_EQ(interrupts[v + 1], 2);
	set_vector(&d, 0, VIRTIO_MSI_NO_VECTOR);
	EXPECT_EQ(round_trip(&d, 52, 3, DOORBELL_IO), 0);
	settle();
	EXPECT_EQ(interrupts[v + 2], 2);
	set_vector(&d, 0, 0x123); /* there is none such */
	EXPECT_EQ(read16(common(&d) + VIRTIO_PCI_COMMON_Q_MSIX), VIRTIO_MSI_NO_VECTOR);
	finish();

	begin("MSI-X: a masked entry is pending in the PBA and comes when unmasked");
	n = interrupts[v + 1];
	set_vector(&d, 0, 1);
	msix_entry(f, 1, v + 1, true);
	EXPECT_EQ(round_trip(&d, 53, 4, DOORBELL_IO), 0);
	settle();
	EXPECT_EQ(interrupts[v + 1], n);
	EXPECT_EQ(read32(f->msix_pba) & 2, 2);
	write32(f->msix_table + PCI_MSIX_ENTRY_SIZE + PCI_MSIX_ENTRY_VECTOR_CTRL, 0);
	EXPECT_EQ(wait_interrupts(v + 1, n + 1), n + 1);
	EXPECT_EQ(read32(f->msix_pba) & 2, 0);
	finish();

	begin("MSI-X: the function mask holds all, and gives them back");
	n = interrupts[v + 1];
	msix_control(f, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	EXPECT_EQ(round_trip(&d, 54, 5, DOORBELL_IO), 0);
	settle();
	EXPECT_EQ(interrupts[v + 1], n);
	EXPECT_EQ(read32(f->msix_pba) & 2, 2);
	msix_control(f, PCI_MSIX_FLAGS_ENABLE);
	EXPECT_EQ(wait_interrupts(v + 1, n + 1), n + 1);
	finish();

	begin("MSI-X: a device reset unmaps every vector");
	reset(&d);
	EXPECT(start_modern(&d, f, usual, 1));
	EXPECT_EQ(read16(common(&d) + VIRTIO_PCI_COMMON_MSIX), VIRTIO_MSI_NO_VECTOR);
	write16(common(&d) + VIRTIO_PCI_COMMON_Q_SELECT, 0);
	EXPECT_EQ(read16(common(&d) + VIRTIO_PCI_COMMON_Q_MSIX), VIRTIO_MSI_NO_VECTOR);
	finish();
	reset(&d);
	msix_control(f, 0);
}

static u16 isr_port;
static volatile u8 isr_seen;

static void acknowledge(void)
{
	isr_seen |= in8(isr_port);
}

static void test_intx(struct function *f)
{
	const u8 v = VECTOR_FIRST + 16;
	const u32 pin = 16 + f->slot % 8;
	struct driver d = { 0 };

	begin("INTx: the line rises, the ISR says why and clears, the status bit follows");
	isr_port = (u16)(f->bar[0] + VIRTIO_PCI_ISR);
	line_handler = acknowledge;
	EXPECT(start_modern(&d, f, usual, 1));
	ioapic_route(pin, v, false);
	EXPECT_EQ(round_trip(&d, 60, 1, DOORBELL_IO), 0);
	EXPECT(wait_interrupts(v, 1) >= 1);
	EXPECT_EQ(isr_seen, 1);
	/* the second request's may come after its answer, on a busy host a while after */
	for (u32 i = 0, quiet = 0; i < 100 && quiet < 5; i++) {
		settle();
		quiet = in8(isr_port) ? 0 : quiet + 1;
		EXPECT(i < 99);
	}
	EXPECT_EQ(config_read(f->slot, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, 0);
	finish();

	begin("INTx: an interrupt that nobody acknowledged comes again; INTx Disable silences it");
	{
		u32 n = interrupts[v];

		line_handler = NULL;
		__asm__ volatile("cli");
		EXPECT_EQ(block(&d, VIRTIO_BLK_T_IN, 60, data, SECTOR, DOORBELL_IO),
			  VIRTIO_BLK_S_OK);
		settle();
		EXPECT_EQ(config_read(f->slot, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT,
			  PCI_STATUS_INTERRUPT);
		__asm__ volatile("sti");
		EXPECT(wait_interrupts(v, n + 3) >= n + 3); /* level: again after each EOI */
		line_handler = acknowledge;
		/* what was under way comes to its end, on a busy host after a while */
		for (u32 i = 0, quiet = 0; i < 100 && quiet < 5; i++) {
			n = interrupts[v];
			settle();
			quiet = interrupts[v] == n ? quiet + 1 : 0;
			EXPECT(i < 99);
		}
		config_write(f->slot, PCI_COMMAND, 2,
			     PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER |
				     PCI_COMMAND_INTX_DISABLE);
		EXPECT_EQ(round_trip(&d, 61, 2, DOORBELL_IO), 0);
		settle();
		EXPECT_EQ(interrupts[v], n);
		EXPECT_EQ(in8(isr_port), 1);
		config_write(f->slot, PCI_COMMAND, 2,
			     PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	}
	finish();
	reset(&d);
	ioapic_route(pin, v, true);
	line_handler = NULL;
}

/* Requests in flight while status becomes 0: after it reads 0 the rings stay untouched. */
static void test_reset_in_flight(struct function *f)
{
	static struct virtio_blk_outhdr headers[8];
	static u8 status[8];
	struct driver d = { 0 };
	u8 *large = allocate(8 * 65536, 4096);

	begin("reset with requests in flight: then no ring is touched");
	for (u32 round = 0; round < 20; round++) {
		u64 used;

		EXPECT(start_modern(&d, f, usual, 1));
		for (u32 i = 0; i < 8; i++) {
			const struct part parts[] = { { &headers[i], sizeof(headers[i]) },
						      { large + i * 65536, 65536 },
						      { &status[i], 1 } };

			headers[i].sector = i * 16;
			add_chain(&d.queue[0], parts, 3, 1);
		}
		ring(&d, 0, round % 2 ? DOORBELL_IO : DOORBELL_MEM);
		reset(&d);
		EXPECT_EQ(read8(common(&d) + VIRTIO_PCI_COMMON_STATUS), 0);
		used = device_wrote(&d.queue[0]);
		settle();
		EXPECT_EQ(device_wrote(&d.queue[0]), used);
	}
	EXPECT(start_modern(&d, f, usual, 1));
	EXPECT_EQ(round_trip(&d, 70, 1, DOORBELL_IO), 0);
	finish();
	reset(&d);
}

static void test_ring_reset(struct function *f)
{
	struct driver d = { 0 };
	u64 c;

	begin("RING_RESET: the queue forgets its ring and starts anew");
	EXPECT(start_modern(&d, f, usual | 1ull << VIRTIO_F_RING_RESET, 1));
	c = common(&d);
	EXPECT_EQ(round_trip(&d, 80, 1, DOORBELL_IO), 0);
	reset_queue(&d, 0);
	EXPECT_EQ(read16(c + VIRTIO_PCI_COMMON_Q_RESET), 0);
	EXPECT_EQ(read16(c + VIRTIO_PCI_COMMON_Q_ENABLE), 0);
	if (d.queue[0].packed) {
		packed_make(&d.queue[0], QUEUE_SIZE);
	} else {
		d.queue[0].avail->idx = d.queue[0].used->idx = 0;
		d.queue[0].seen = 0;
	}
	enable_queue(&d, 0);
	EXPECT_EQ(round_trip(&d, 81, 2, DOORBELL_MEM), 0);
	finish();
	reset(&d);
}

static void break_packed(struct queue *q, u32 how)
{
	const struct part parts[] = { { data, 16 }, { data, SECTOR }, { data, 1 } };
	struct vring_packed_desc *chain = &q->ring[q->fill];

	prepare_chain(q, parts, 3, 1);
	switch (how) {
	case 0: /* a chain that goes on with what is not there */
		chain[2].flags |= VRING_DESC_F_NEXT;
		break;
	case 1: /* an id that is none */
		chain[2].id = q->size;
		break;
	case 2: /* memory that is none */
		chain[1].addr = 0xfffffffffffff000ull;
		chain[1].len = 0xffffffff;
		break;
	case 3: /* the hole */
		chain[1].addr = 0xc0000000;
		break;
	case 4: /* a table that was not negotiated */
		q->first_flags =
			(u16)((q->first_flags & ~VRING_DESC_F_NEXT) | VRING_DESC_F_INDIRECT);
		break;
	case 5: /* a table inside a chain */
		chain[1].flags |= VRING_DESC_F_INDIRECT;
		break;
	case 6: /* writable before readable */
		q->first_flags |= VRING_DESC_F_WRITE;
		chain[1].flags &= (u16)~VRING_DESC_F_WRITE;
		break;
	}
	show_chain(q);
}

static void break_ring(struct driver *d, u32 how)
{
	struct queue *q = &d->queue[0];
	const struct part parts[] = { { data, 16 }, { data, SECTOR }, { data, 1 } };

	if (q->packed) {
		break_packed(q, how);
		return;
	}
	prepare_chain(q, parts, 3, 1);
	switch (how) {
	case 0: /* a loop */
		q->desc[2].flags = VRING_DESC_F_NEXT | VRING_DESC_F_WRITE;
		q->desc[2].next = 0;
		break;
	case 1: /* a head that is none */
		q->avail->ring[0] = q->size;
		break;
	case 2: /* memory that is none */
		q->desc[1].addr = 0xfffffffffffff000ull;
		q->desc[1].len = 0xffffffff;
		break;
	case 3: /* the hole */
		q->desc[1].addr = 0xc0000000;
		break;
	case 4: /* an index that jumps */
		q->avail->idx += q->size;
		break;
	case 5: /* a next that is none */
		q->desc[0].next = 0xffff;
		break;
	case 6: /* writable before readable */
		q->desc[0].flags |= VRING_DESC_F_WRITE;
		q->desc[1].flags &= (u16)~VRING_DESC_F_WRITE;
		break;
	}
	barrier();
	q->avail->idx++;
	barrier();
}

static void test_broken_rings(struct function *f)
{
	struct driver d = { 0 }, other = { 0 };
	struct function g;
	bool second = find_function(&g, VIRTIO_ID_BLOCK, 1);

	begin("a broken ring: NEEDS_RESET, the other devices go on, a reset mends it");
	for (u32 how = 0; how < 7; how++) {
		u32 i = 0;

		EXPECT(start_modern(&d, f, usual, 1));
		break_ring(&d, how);
		ring(&d, 0, DOORBELL_IO);
		while (i++ < 20000 && !(read8(common(&d) + VIRTIO_PCI_COMMON_STATUS) &
					VIRTIO_CONFIG_S_NEEDS_RESET))
			;
		EXPECT(read8(common(&d) + VIRTIO_PCI_COMMON_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
		if (second) {
			EXPECT(start_modern(&other, &g, usual, 1));
			EXPECT_EQ(block(&other, VIRTIO_BLK_T_IN, 0, data, SECTOR, DOORBELL_IO), 0);
			reset(&other);
		}
		reset(&d);
	}
	EXPECT(start_modern(&d, f, usual, 1));
	EXPECT_EQ(round_trip(&d, 90, 1, DOORBELL_IO), 0);
	finish();
	reset(&d);
}

static void test_window(struct function *f)
{
	u32 at = f->window.at;

	begin("PCI_CFG window: reads what the BAR holds, ignores nonsense");
	config_write(f->slot, at + 4, 1, f->config.bar);
	for (u32 i = 0; i < 8; i += 4) {
		config_write(f->slot, at + 8, 4, f->config.offset + i);
		config_write(f->slot, at + 12, 4, 4);
		EXPECT_EQ(config_read(f->slot, at + 16, 4),
			  read32(f->bar[f->config.bar] + f->config.offset + i));
	}
	config_write(f->slot, at + 8, 4, 0xfffffff0);
	config_read(f->slot, at + 16, 4);
	config_write(f->slot, at + 16, 4, 0x12345678);
	config_write(f->slot, at + 4, 1, 0xff);
	config_write(f->slot, at + 12, 4, 0x1000);
	config_read(f->slot, at + 16, 4);
	config_write(f->slot, at + 16, 4, 0x12345678);
	EXPECT_EQ(config_read(f->slot, PCI_VENDOR_ID, 2), 0x1af4);
	finish();
}

static void test_rng(void)
{
	struct function f;
	struct driver d = { 0 };
	u8 *bytes = allocate(4096, 4096);
	u32 zeros = 0;
	long got;

	begin("entropy: a buffer comes back with bytes in it");
	if (!find_function(&f, VIRTIO_ID_RNG, 0)) {
		EXPECT(false);
		finish();
		return;
	}
	EXPECT(start_modern(&d, &f, usual, 1));
	add_chain(&d.queue[0], &(const struct part){ bytes, 256 }, 1, 0);
	ring(&d, 0, DOORBELL_IO);
	got = wait_used(&d.queue[0]);
	EXPECT(got > 0 && got <= 256);
	for (long i = 0; i < got; i++)
		zeros += !bytes[i];
	EXPECT(zeros < 20);
	finish();
	reset(&d);
}

void test_all(bool packed)
{
	struct function f;

	data = allocate(65536, 4096);
	if (packed)
		usual |= 1ull << VIRTIO_F_RING_PACKED;
	test_nobody_there();
	test_config_space();
	if (!find_function(&f, VIRTIO_ID_BLOCK, 0)) {
		say("not ok devices: no block function on bus 0\n");
		machine_end(1);
	}
	test_identity(&f);
	test_features(&f);
	test_doorbells(&f);
	test_legacy(&f);
	test_window(&f);
	test_bar_moves(&f);
	test_decode(&f);
	test_bus_master(&f);
	test_msix(&f);
	test_intx(&f);
	test_reset_in_flight(&f);
	test_ring_reset(&f);
	test_broken_rings(&f);
	test_rng();
	if (usual != VERSION_1)
		test_packed(&f);
	machine_end(failures ? 1 : 77);
}
