/*
 * Bare guest: a hostile driver. A deterministic stream of nonsense at everything a guest can reach:
 * configuration space through both mechanisms, every BAR by memory, by port and through the PCI_CFG
 * window, the platform's ports, and rings made of lies. Then everything is put back in order, and
 * the devices have to work as if nothing had been.
 *
 * The guest spares itself, or the run would end too early: devices get no address in the guest's
 * own code and data, MSI-X entries hold ordinary vectors only, and the ports and bits that are
 * meant to end the machine stay alone.
 */
#include <linux/pci_regs.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pci.h>
#include "hostile.h"

#define ECAM	    0xe0000000ull
#define ECAM_END    0xe0100000ull
#define LOCAL	    0xfec00000ull  /* I/O APIC, local APIC, up to 4 GiB */
#define MAPPED	    0x200000000ull /* entry.S maps 8 GiB */
#define COM1	    0x3f8
#define LINES	    8
#define LINE_PIN    16
#define LINE_VECTOR (VECTOR_FIRST + 32)

static struct victim victims[8];
static u32 victim_count;
static u64 state;
static u8 open_lines;

/* ---- chance ---- */

/* splitmix64 */
u64 next(void)
{
	u64 z = state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

u32 below(u32 n)
{
	return (u32)(next() >> 32) % n;
}

bool one_in(u32 n)
{
	return !below(n);
}

/* Numbers at which things break. */
u64 number(void)
{
	static const u64 edges[] = { 0,		 1,	     2,
				     3,		 0x7f,	     0x80,
				     0xff,	 0x100,	     0x1ff,
				     0x7fff,	 0x8000,     0xfffe,
				     0xffff,	 0x10000,    0x7fffffff,
				     0x80000000, 0xffffffff, 1ull << 32,
				     ~0ull >> 1, 1ull << 63, ~0ull - 4095,
				     ~0ull - 1,	 ~0ull,	     RAM_END };

	switch (below(4)) {
	case 0:
		return edges[below(ARRAY_SIZE(edges))];
	case 1:
		return below(300);
	case 2:
		return 1ull << below(64);
	default:
		return next();
	}
}

static u32 width(void)
{
	return 1u << below(4);
}

/* ---- sparing the guest ---- */

/* Bytes of queue addresses in the common configuration: whatever part of one is written, it stays
 * outside of what the guest needs. */
static u8 spare_common(u64 offset, u8 byte)
{
	if (offset < VIRTIO_PCI_COMMON_Q_DESCLO || offset >= VIRTIO_PCI_COMMON_Q_USEDHI + 4)
		return byte;
	switch ((offset - VIRTIO_PCI_COMMON_Q_DESCLO) % 8) {
	case 2:
		return byte & 0xf; /* below 1 MiB while the next byte is 0 */
	case 3:
		if (byte & 0x80)
			return byte;
		return offset < VIRTIO_PCI_COMMON_Q_AVAILLO ? TABLES >> 24
							    : (ARENA >> 24) + (byte & 1);
	case 0:
	case 1:
		return byte;
	default:
		return byte & 1 ? byte : 0; /* more than 4 GiB half of the time */
	}
}

static u8 spare_msix(u64 offset, u8 byte)
{
	switch (offset % PCI_MSIX_ENTRY_SIZE) {
	case PCI_MSIX_ENTRY_DATA:
		return byte < VECTOR_FIRST || byte == 0xff ? LINE_VECTOR + 1 : byte;
	case PCI_MSIX_ENTRY_DATA + 1:
		return byte & 0xf8; /* delivery mode: fixed */
	default:
		return byte;
	}
}

/* The same for the queue's page number in the legacy layout. */
static u8 spare_legacy(u64 offset, u8 byte)
{
	if (offset == VIRTIO_PCI_QUEUE_PFN)
		return byte & 0xf0;
	if (offset == VIRTIO_PCI_QUEUE_PFN + 1)
		return 0x70 | (byte & 1);
	if (offset == VIRTIO_PCI_QUEUE_PFN + 2 || offset == VIRTIO_PCI_QUEUE_PFN + 3)
		return byte & 7 ? 0 : byte;
	return byte;
}

static u64 spare(bool io, u64 offset, u32 size, u64 value)
{
	u64 spared = 0;

	for (u32 i = 0; i < size; i++) {
		u64 at = offset + i;
		u8 byte = (u8)(value >> 8 * i);

		if (io)
			byte = spare_legacy(at, byte);
		else if (at < 0x1000)
			byte = spare_common(at, byte);
		else
			byte = spare_msix(at, byte);
		spared |= (u64)byte << 8 * i;
	}
	return spared;
}

/* ---- accesses ---- */

static void touch_memory(u64 at, u32 size, u64 value, bool write)
{
	if (!write) {
		if (size == 1)
			read8(at);
		else if (size == 2)
			read16(at);
		else if (size == 4)
			read32(at);
		else
			read64(at);
	} else if (size == 1) {
		write8(at, (u8)value);
	} else if (size == 2) {
		write16(at, (u16)value);
	} else if (size == 4) {
		write32(at, (u32)value);
	} else {
		write64(at, value);
	}
}

static void touch_port(u32 port, u32 size, u64 value, bool write)
{
	u16 at = (u16)port;

	if (!write) {
		if (size == 1)
			in8(at);
		else if (size == 2)
			in16(at);
		else
			in32(at);
	} else if (size == 1) {
		out8(at, (u8)value);
	} else if (size == 2) {
		out16(at, (u16)value);
	} else {
		out32(at, (u32)value);
	}
}

static struct victim *somebody(void)
{
	return &victims[below(victim_count)];
}

/* ---- the attacks ---- */

void heal(const struct victim *v)
{
	u32 wrong = (config_read(v->f.slot, PCI_COMMAND, 2) ^ COMMAND) & COMMAND;

	for (u32 i = 0; i < 6; i++)
		wrong |= config_read(v->f.slot, PCI_BASE_ADDRESS_0 + i * 4, 4) ^ v->registers[i];
	if (!wrong)
		return;
	config_write(v->f.slot, PCI_COMMAND, 2, 0);
	for (u32 i = 0; i < 6; i++)
		config_write(v->f.slot, PCI_BASE_ADDRESS_0 + i * 4, 4, v->registers[i]);
	config_write(v->f.slot, PCI_COMMAND, 2, COMMAND);
}

static void attack_somebodys_rings(void)
{
	attack_rings(somebody());
}

/* Configuration space, mostly where somebody lives. The PCI_CFG window is attack_window()'s: what
 * is written through it has to be spared. */
static void attack_config(void)
{
	const struct victim *v = somebody();
	u32 slot = one_in(4) ? below(32) : v->f.slot, size = 1u << below(3);
	u32 offset = one_in(8) ? below(4096) : below(2) ? below(64) : below(256);
	u64 value = number();
	bool write = below(4);

	for (u32 i = 0; i < victim_count; i++) {
		u32 window = victims[i].f.window.at;

		if (offset + 8 > window && offset < window + 24)
			return;
	}
	if (below(2)) {
		if (one_in(4))
			size = 8;
		touch_memory(ECAM + slot * 32768 + (one_in(16) ? below(8) * 4096 : 0) + offset,
			     size, value, write);
		return;
	}
	lock(&config_ports);
	out32(0xcf8, 0x80000000u | slot << 11 | (offset & 0xfc));
	touch_port(0xcfc + (offset & 3), size, value, write);
	if (one_in(4)) { /* the latch itself, in every width and off its feet */
		touch_port(0xcf8 + below(4), 1u << below(2), next(), write);
		in32(0xcfc);
	}
	unlock(&config_ports);
}

/* A BAR of one's own, wherever it is now. */
static void attack_bar(void)
{
	struct victim *v = somebody();
	struct function *f = &v->f;
	bool io = below(2), write = below(4);
	u32 pages[] = { 0,
			f->isr_mem.offset,
			f->config.offset,
			f->notify_mem.offset,
			(u32)(f->msix_table - f->bar[2]),
			(u32)(f->msix_pba - f->bar[2]) };
	u64 offset = io ? below(one_in(4) ? 256 : 40)
			: pages[below(ARRAY_SIZE(pages))] + below(one_in(8) ? 4096 : 64);
	u32 low = config_read(f->slot, PCI_BASE_ADDRESS_0 + (io ? 0 : 8), 4);
	u64 base = io ? low & 0xfffc : low & ~15u, end;
	u32 size = io ? 1u << below(3) : width();
	u64 value = spare(io, offset, size, number());

	if (io) {
		if (base >= 0x1000 && base + offset + size <= 0x10000)
			touch_port((u32)(base + offset), size, value, write);
		return;
	}
	base |= (u64)config_read(f->slot, PCI_BASE_ADDRESS_3, 4) << 32;
	end = base + offset + size;
	if (base < RAM_END || end < base || end > MAPPED || (base < ECAM_END && end > ECAM) ||
	    (base < 1ull << 32 && end > LOCAL))
		return;
	touch_memory(base + offset, size, value, write);
}

static void attack_window(void)
{
	static struct lock window; /* what is spared depends on where it points */
	const struct function *f = &somebody()->f;
	u32 at = f->window.at, size = 1u << below(3);
	u8 bar = one_in(8) ? (u8)below(256) : below(2) ? 0 : 2;
	u32 offset = one_in(8) ? (u32)number() : below(bar ? 0x6000 : 64);

	lock(&window);
	config_write(f->slot, at + VIRTIO_PCI_CAP_BAR, 1, bar);
	config_write(f->slot, at + VIRTIO_PCI_CAP_OFFSET, 4, offset);
	config_write(f->slot, at + VIRTIO_PCI_CAP_LENGTH, 4, one_in(8) ? (u32)number() : size);
	if (below(2))
		config_read(f->slot, at + sizeof(struct virtio_pci_cap), 1u << below(3));
	else
		config_write(f->slot, at + sizeof(struct virtio_pci_cap), 4,
			     (u32)spare(!bar, offset, 4, number()));
	unlock(&window);
}

static void move_somebody(void)
{
	const struct function *f = &somebody()->f;

	switch (below(4)) {
	case 0: /* onto another one */
		config_write(f->slot, PCI_BASE_ADDRESS_0, 4, victims[0].registers[0]);
		break;
	case 1:
		config_write(f->slot, PCI_BASE_ADDRESS_2, 4, victims[0].registers[2]);
		config_write(f->slot, PCI_BASE_ADDRESS_3, 4, victims[0].registers[3]);
		break;
	case 2: /* anywhere: RAM, the APICs, ECAM, ports that are taken */
		config_write(f->slot, PCI_BASE_ADDRESS_0, 4, below(0x10000));
		break;
	default:
		config_write(f->slot, PCI_BASE_ADDRESS_2, 4, (u32)number());
		config_write(f->slot, PCI_BASE_ADDRESS_3, 4, below(3));
	}
}

static void attack_port(void)
{
	static const u16 known[] = {
		0x60,  0x61,  0x64,  0x70,  0x71,  0x80,  0x92,	 0x2f8, 0x402,
		0x505, 0x600, 0x601, 0x602, 0x603, 0x604, 0x605, 0x607, 0x608
	};
	u32 port = one_in(8)  ? below(0x1000)
		   : below(2) ? COM1 + below(8)
			      : known[below(ARRAY_SIZE(known))];
	u32 size = 1u << below(3);
	u64 value = number();
	bool write = below(3);

	for (u32 i = 0; write && i < size; i++) {
		u32 p = port + i;

		if (p == 0x600) /* sleep: not really */
			value &= ~(0x20ull << 8 * i);
		if (p == 0x602 || p == 0x505) /* reset, panic */
			value &= ~(3ull << 8 * i);
		/* debug exit, interrupt controllers, configuration (its own attack) */
		if (p == 0xf4 || (p & 0xfe) == 0x20 || (p & 0xfe) == 0xa0 || (p & ~1u) == 0x4d0 ||
		    (p & ~7u) == 0xcf8)
			return;
	}
	touch_port(port, size, value, write);
	if (one_in(16)) { /* strings */
		u64 at = ARENA, count = 64;

		if (below(2))
			__asm__ volatile("rep outsb" : "+S"(at), "+c"(count) : "d"((u16)COM1));
		else
			__asm__ volatile("rep insl"
					 : "+D"(at), "+c"(count)
					 : "d"((u16)(COM1 + 4))
					 : "memory");
	}
}

/* ---- interrupts: whatever comes is silenced ---- */

static void silence(void)
{
	for (u32 i = 0; i < LINES; i++)
		if (open_lines & BIT(i))
			ioapic_route(LINE_PIN + i, LINE_VECTOR, true);
	open_lines = 0;
}

static void open_line(void)
{
	u32 i = below(LINES);

	open_lines |= (u8)BIT(i);
	ioapic_route(LINE_PIN + i, LINE_VECTOR, false);
}

static void set_msix(void)
{
	const struct function *f = &somebody()->f;

	config_write(f->slot, f->msix + PCI_MSIX_FLAGS, 2, below(4) << 14);
}

/* ---- the whole ---- */

static void collect(void)
{
	static const u32 types[] = { VIRTIO_ID_BLOCK, VIRTIO_ID_BLOCK, VIRTIO_ID_NET, VIRTIO_ID_NET,
				     VIRTIO_ID_RNG };

	prepare_tables();
	for (u32 i = 0; i < ARRAY_SIZE(types); i++) {
		struct victim *v = &victims[victim_count];
		u32 nth = i && types[i] == types[i - 1];

		if (!find_function(&v->f, types[i], nth))
			continue;
		for (u32 b = 0; b < 6; b++)
			v->registers[b] = config_read(v->f.slot, PCI_BASE_ADDRESS_0 + b * 4, 4);
		/* entries never written would be vector 0 */
		for (u32 n = 0; n < (config_read(v->f.slot, v->f.msix + 2, 2) & 0x7ff) + 1; n++) {
			u64 entry = v->f.msix_table + n * PCI_MSIX_ENTRY_SIZE;

			write32(entry + PCI_MSIX_ENTRY_LOWER_ADDR, 0xfee00000);
			write32(entry + PCI_MSIX_ENTRY_DATA, LINE_VECTOR + 2);
			write32(entry + PCI_MSIX_ENTRY_VECTOR_CTRL, 0);
		}
		victim_count++;
	}
}

static void still_works(struct function *f, bool legacy)
{
	struct driver d = { 0 };
	u8 *data = allocate(4096, 4096);
	bool readonly;

	d.f = f;
	readonly = device_features(&d) & BIT(VIRTIO_BLK_F_RO);
	if (legacy)
		start_legacy(&d, f, 0, 1);
	else
		EXPECT(start_modern(&d, f, VERSION_1, 1));
	for (u32 i = 0; i < 512; i++)
		data[i] = (u8)(i * 7 + legacy);
	EXPECT_EQ(block(&d, VIRTIO_BLK_T_OUT, 9, data, 512, legacy ? DOORBELL_LEGACY : DOORBELL_IO),
		  readonly ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
	for (u32 i = 0; i < 512; i++)
		data[i] = 0;
	EXPECT_EQ(block(&d, VIRTIO_BLK_T_IN, 9, data, 512, legacy ? DOORBELL_LEGACY : DOORBELL_MEM),
		  VIRTIO_BLK_S_OK);
	for (u32 i = 0; i < 512; i++)
		EXPECT(readonly || data[i] == (u8)(i * 7 + legacy));
	reset(&d);
}

static void attack(void)
{
	static void (*const attacks[])(void) = {
		attack_config, attack_config, attack_bar,  attack_bar,	attack_bar,
		attack_bar,    attack_window, attack_port, attack_port, attack_somebodys_rings,
		move_somebody, set_msix,      open_line
	};

	attacks[below(ARRAY_SIZE(attacks))]();
	if (one_in(40))
		heal(somebody());
}

static volatile bool stop, stopped;

static void second_cpu(void)
{
	while (!stop)
		attack();
	stopped = true;
}

/* Everything in its place and at rest. */
static void make_peace(void)
{
	silence();
	line_handler = NULL;
	serial_init();
	say("\n");
	for (u32 i = 0; i < victim_count; i++) /* all of them first: they may lie on each other */
		heal(&victims[i]);
	for (u32 i = 0; i < victim_count; i++) {
		struct driver d = { .f = &victims[i].f };

		config_write(d.f->slot, d.f->msix + PCI_MSIX_FLAGS, 2, 0);
		reset(&d);
		EXPECT_EQ(read8(common(&d) + VIRTIO_PCI_COMMON_STATUS), 0);
	}
}

void hostile(u64 seed, u64 steps, bool two)
{
	begin("hostile driver: the machine stands, and its devices work afterwards");
	state = seed;
	line_handler = silence;
	collect();
	EXPECT(victim_count >= 2);
	if (two)
		start_second_cpu(second_cpu);
	for (u64 step = 0; step < steps && victim_count; step++)
		attack();
	stop = true;
	for (u32 i = 0; two && i < 1000000 && !stopped; i++)
		in8(0x80);
	EXPECT(!two || stopped);
	make_peace();
	for (u32 i = 0; i < victim_count; i++) {
		if (victims[i].f.type != VIRTIO_ID_BLOCK)
			continue;
		still_works(&victims[i].f, false);
		still_works(&victims[i].f, true);
	}
	finish();
	say("seed %u: %u steps, %u functions\n", seed, steps, victim_count);
	machine_end(failures ? 1 : 77);
}
