/*
 * SMBIOS 3 tables (DMTF DSP0134 3.4), so that dmidecode and systemd-detect-virt know where they
 * are. Runs on the main thread while the guest does not.
 */
#include <stdio.h>
#include "firmware/smbios.h"
#include "version.h"

#define ENTRY_SIZE 24
#define END_MARK   127

/* Handles: the type, shifted, plus an index. */
#define HANDLE(type, n) ((u16)((type) << 8 | (n)))

struct writer {
	u8 *start, *next, *end;
	bool full;
};

/* The formatted area of a structure, zeroed, with its header filled; strings follow. */
static u8 *structure(struct writer *w, u8 type, u8 size, u16 handle)
{
	static u8 nowhere[256];
	u8 *s = w->next;

	if (w->full || size > w->end - s) {
		w->full = true;
		return nowhere;
	}
	memset(s, 0, size);
	s[0] = type;
	s[1] = size;
	le16_store(s + 2, handle);
	w->next = s + size;
	return s;
}

/* Ends a structure with its strings (numbered from 1), an empty one doubling the terminator. */
static void strings(struct writer *w, const char *const *list, u32 count)
{
	for (u32 i = 0; i < count; i++) {
		size_t n = strlen(list[i]) + 1;

		if (w->full || n > (size_t)(w->end - w->next)) {
			w->full = true;
			return;
		}
		memcpy(w->next, list[i], n);
		w->next += n;
	}
	if (w->full || w->end - w->next < 2) {
		w->full = true;
		return;
	}
	*w->next++ = 0;
	if (!count)
		*w->next++ = 0;
}

static void write_system(struct writer *w)
{
	static const char *const bios[] = { "vmm", VMM_VERSION, "11/21/2026" };
	static const char *const system[] = { "vmm", "virtual machine", VMM_VERSION };
	static const char *const chassis[] = { "vmm" };
	u8 *s = structure(w, 0, 0x1a, HANDLE(0, 0));

	s[4] = 1;
	s[5] = 2;
	s[8] = 3;
	s[0x0a] = BIT(3);	   /* characteristics below are not supported: a virtual machine */
	s[0x13] = BIT(2) | BIT(4); /* virtual machine; UEFI not, targeted content distribution */
	s[0x14] = s[0x15] = 0;
	s[0x16] = s[0x17] = 0xff; /* no embedded controller */
	strings(w, bios, 3);

	s = structure(w, 1, 0x1b, HANDLE(1, 0));
	s[4] = 1;
	s[5] = 2;
	s[6] = 3;
	s[0x18] = 6; /* wake-up type: power switch */
	strings(w, system, 3);

	s = structure(w, 3, 0x16, HANDLE(3, 0));
	s[4] = 1;
	s[5] = 1;		      /* other */
	s[9] = s[0x0a] = s[0x0b] = 3; /* states: safe */
	s[0x0c] = 2;		      /* security status: unknown */
	strings(w, chassis, 1);
}

static void write_processors(struct writer *w, const struct smbios_config *config)
{
	static const char *const names[] = { "CPU", "KVM" };
	u32 cores = config->cores, threads = config->cores * config->threads;

	for (u32 i = 0; i < config->sockets; i++) {
		u8 *s = structure(w, 4, 0x30, HANDLE(4, i));

		s[4] = 1;
		s[5] = 3; /* central processor */
		s[6] = 2; /* family: unknown */
		s[7] = 2;
		s[0x18] = 0x41; /* populated, enabled */
		s[0x19] = 1;	/* upgrade: other */
		le16_store(s + 0x1a, 0xffff);
		le16_store(s + 0x1c, 0xffff);
		le16_store(s + 0x1e, 0xffff); /* no cache information */
		s[0x23] = s[0x24] = cores > 0xff ? 0xff : (u8)cores;
		s[0x25] = threads > 0xff ? 0xff : (u8)threads;
		le16_store(s + 0x26, BIT(2) | BIT(3)); /* 64-bit, multi-core */
		le16_store(s + 0x28, 2);
		le16_store(s + 0x2a, (u16)cores);
		le16_store(s + 0x2c, (u16)cores);
		le16_store(s + 0x2e, (u16)threads);
		strings(w, names, 2);
	}
}

/* 7.20: a mapped range, both ends inclusive, in the extended (byte) form. */
static void write_range(struct writer *w, u8 n, u64 start, u64 size)
{
	u8 *s = structure(w, 19, 0x1f, HANDLE(19, n));

	le32_store(s + 4, 0xffffffff);
	le32_store(s + 8, 0xffffffff);
	le16_store(s + 0x0c, HANDLE(16, 0));
	s[0x0e] = 1;
	le64_store(s + 0x0f, start);
	le64_store(s + 0x17, start + size - 1);
	strings(w, NULL, 0);
}

static void write_memory(struct writer *w, const struct memory *memory)
{
	static const char *const names[] = { "RAM" };
	u64 size = memory->low_size + memory->high_size;
	u8 *s = structure(w, 16, 0x17, HANDLE(16, 0));

	s[4] = 1; /* location: other */
	s[5] = 3; /* use: system memory */
	s[6] = 2; /* error correction: unknown */
	le32_store(s + 7, 0x80000000);
	le16_store(s + 0x0b, 0xfffe); /* no error information */
	le16_store(s + 0x0d, 1);
	le64_store(s + 0x0f, size);
	strings(w, NULL, 0);

	s = structure(w, 17, 0x28, HANDLE(17, 0));
	le16_store(s + 4, HANDLE(16, 0));
	le16_store(s + 6, 0xfffe);
	le16_store(s + 8, 0xffff);
	le16_store(s + 0x0a, 0xffff);
	le16_store(s + 0x0c, 0x7fff); /* size is in the extended field, MiB */
	s[0x0e] = 9;		      /* form: DIMM */
	s[0x10] = 1;
	s[0x12] = 7; /* type: RAM */
	le16_store(s + 0x13, BIT(1));
	le32_store(s + 0x1c, (u32)(size >> 20) & 0x7fffffff);
	strings(w, names, 1);

	write_range(w, 0, 0, memory->low_size);
	if (memory->high_size)
		write_range(w, 1, LAYOUT_RAM_HIGH, memory->high_size);
}

u64 smbios_write(struct memory *memory, const struct smbios_config *config, u64 address, u64 room)
{
	u8 *entry = memory_at(memory, address, room), *s, sum = 0;
	struct writer w;

	if (!entry || room < ENTRY_SIZE + 8)
		return 0;
	w = (struct writer){ entry + ALIGN_UP(ENTRY_SIZE, 16), entry + ALIGN_UP(ENTRY_SIZE, 16),
			     entry + room, false };
	write_system(&w);
	write_processors(&w, config);
	write_memory(&w, memory);
	s = structure(&w, 32, 0x0b, HANDLE(32, 0)); /* boot status: no errors */
	s[0x0a] = 0;
	strings(&w, NULL, 0);
	structure(&w, END_MARK, 4, HANDLE(END_MARK, 0));
	strings(&w, NULL, 0);
	if (w.full)
		return 0;

	memset(entry, 0, ENTRY_SIZE);
	memcpy(entry, "_SM3_", 5);
	entry[6] = ENTRY_SIZE;
	entry[7] = 3;
	entry[8] = 4;
	entry[10] = 1;
	le32_store(entry + 12, (u32)(w.next - w.start));
	le64_store(entry + 16, address + (u64)(w.start - entry));
	for (u32 i = 0; i < ENTRY_SIZE; i++)
		sum = (u8)(sum + entry[i]);
	entry[5] = (u8)-sum;
	return (u64)(w.next - entry);
}
