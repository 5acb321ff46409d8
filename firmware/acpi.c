/*
 * ACPI tables for a hardware-reduced machine (ACPI 6.4, 5.2). Everything that does not depend on
 * the configuration is in dsdt.asl; here are the fixed tables and the SSDT that names the rest.
 * Runs on the main thread while the guest does not.
 */
#include "dsdt.hex"
#include "hotplug.hex"
#include "firmware/acpi.h"

#define HEADER_SIZE	   36
#define RSDP_SIZE	   36
#define FADT_SIZE	   276
#define MCFG_SIZE	   (HEADER_SIZE + 8 + 16)
#define MADT_LAPIC_SIZE	   8
#define MADT_IOAPIC_SIZE   12
#define MADT_NMI_SIZE	   6
#define SPACE_IO	   1
#define ACCESS_BYTE	   1
#define FADT_BOOT_NO_VGA   BIT(2)
#define FADT_WBINVD	   BIT(0)
#define FADT_RESET_REG	   BIT(10)
#define FADT_HW_REDUCED	   BIT(20)
#define AML_NAME	   0x08
#define AML_QWORD	   0x0e
#define AML_NAMED_QWORD	   (1 + 4 + 1 + 8)
#define PROFILE_ENTERPRISE 4

/* Where the next table goes. */
struct writer {
	struct memory *memory;
	u64 start, next, end;
};

static u8 checksum(const u8 *bytes, u64 length)
{
	u8 sum = 0;

	while (length--)
		sum = (u8)(sum + *bytes++);
	return (u8)-sum;
}

/* Room for a table, zeroed, 16-byte aligned; NULL when it is used up. */
static u8 *table_new(struct writer *w, u64 size, u64 *address)
{
	u64 at = ALIGN_UP(w->next, 16);
	u8 *table;

	if (at > w->end || size > w->end - at)
		return NULL;
	table = memory_at(w->memory, at, size);
	if (!table)
		return NULL;
	memset(table, 0, size);
	*address = at;
	w->next = at + size;
	return table;
}

/* 5.2.6: the header that every table but the RSDP has; the body must be complete. */
static void table_finish(u8 *table, const char *signature, u8 revision, u32 size)
{
	memcpy(table, signature, 4);
	le32_store(table + 4, size);
	table[8] = revision;
	memcpy(table + 10, "VMM   ", 6);
	memcpy(table + 16, "VMM", 3);
	memcpy(table + 19, signature, 4);
	table[23] = ' ';
	le32_store(table + 24, 1);
	memcpy(table + 28, "VMM ", 4);
	le32_store(table + 32, 1);
	table[9] = 0;
	table[9] = checksum(table, size);
}

/* 5.2.3.2 */
static void address_structure(u8 *to, u16 port)
{
	to[0] = SPACE_IO;
	to[1] = 8;
	to[3] = ACCESS_BYTE;
	le64_store(to + 4, port);
}

/* A table that iasl has made. */
static u64 write_aml(struct writer *w, const u8 *code, u64 size)
{
	u64 address;
	u8 *table = table_new(w, size, &address);

	if (!table)
		return 0;
	memcpy(table, code, size);
	return address;
}

static u8 *aml_named_qword(u8 *to, const char *name, u64 value)
{
	to[0] = AML_NAME;
	memcpy(to + 1, name, 4);
	to[5] = AML_QWORD;
	le64_store(to + 6, value);
	return to + AML_NAMED_QWORD;
}

static u64 write_ssdt(struct writer *w, const struct acpi_config *config)
{
	u32 size = HEADER_SIZE + 2 * AML_NAMED_QWORD + acpi_mmio_size(config->mmio_count);
	u64 address;
	u8 *table = table_new(w, size, &address), *p;

	if (!table)
		return 0;
	p = aml_named_qword(table + HEADER_SIZE, "W64B", config->window64_start);
	p = aml_named_qword(p, "W64L", config->window64_size);
	acpi_mmio_put(p, config->mmio_count);
	table_finish(table, "SSDT", 2, size);
	return address;
}

/* 5.2.9 */
static u64 write_fadt(struct writer *w, u64 dsdt)
{
	u64 address;
	u8 *table = table_new(w, FADT_SIZE, &address);

	if (!table)
		return 0;
	table[45] = PROFILE_ENTERPRISE;
	le16_store(table + 109, FADT_BOOT_NO_VGA);
	le32_store(table + 112, FADT_WBINVD | FADT_RESET_REG | FADT_HW_REDUCED);
	address_structure(table + 116, LAYOUT_PORT_ACPI_RESET);
	table[128] = 1; /* what the reset register wants written */
	table[131] = 4; /* minor version: 6.4 */
	le64_store(table + 140, dsdt);
	address_structure(table + 244, LAYOUT_PORT_ACPI);     /* sleep control */
	address_structure(table + 256, LAYOUT_PORT_ACPI + 1); /* sleep status */
	memcpy(table + 268, "VMM", 3);			      /* hypervisor vendor */
	table_finish(table, "FACP", 6, FADT_SIZE);
	return address;
}

/* 5.2.12: each vCPU's local APIC, the one I/O APIC, NMI on LINT1 of all. */
static u64 write_madt(struct writer *w, u32 cpus)
{
	u32 size = HEADER_SIZE + 8 + cpus * MADT_LAPIC_SIZE + MADT_IOAPIC_SIZE + MADT_NMI_SIZE;
	u64 address;
	u8 *table = table_new(w, size, &address), *p;

	if (!table)
		return 0;
	le32_store(table + HEADER_SIZE, (u32)LAYOUT_LAPIC);
	p = table + HEADER_SIZE + 8;
	for (u32 i = 0; i < cpus; i++, p += MADT_LAPIC_SIZE) {
		p[0] = 0;
		p[1] = MADT_LAPIC_SIZE;
		p[2] = (u8)i; /* UID */
		p[3] = (u8)i; /* APIC id */
		le32_store(p + 4, 1);
	}
	p[0] = 1;
	p[1] = MADT_IOAPIC_SIZE;
	le32_store(p + 4, (u32)LAYOUT_IOAPIC);
	p += MADT_IOAPIC_SIZE;
	p[0] = 4;
	p[1] = MADT_NMI_SIZE;
	p[2] = 0xff; /* all processors */
	p[5] = 1;
	table_finish(table, "APIC", 5, size);
	return address;
}

/* PCI Firmware Specification 3.0, 4.1.2: bus 0 alone. */
static u64 write_mcfg(struct writer *w)
{
	u64 address;
	u8 *table = table_new(w, MCFG_SIZE, &address);

	if (!table)
		return 0;
	le64_store(table + HEADER_SIZE + 8, LAYOUT_ECAM_START);
	table_finish(table, "MCFG", 1, MCFG_SIZE);
	return address;
}

static u64 write_xsdt(struct writer *w, const u64 *tables, u32 count)
{
	u32 size = HEADER_SIZE + count * 8;
	u64 address;
	u8 *table = table_new(w, size, &address);

	if (!table)
		return 0;
	for (u32 i = 0; i < count; i++)
		le64_store(table + HEADER_SIZE + i * 8, tables[i]);
	table_finish(table, "XSDT", 1, size);
	return address;
}

/* 5.2.5.3. It comes first, where a kernel that is not told its address searches. */
static void write_rsdp(u8 *rsdp, u64 xsdt)
{
	memcpy(rsdp, "RSD PTR ", 8);
	memcpy(rsdp + 9, "VMM   ", 6);
	rsdp[15] = 2;
	le32_store(rsdp + 20, RSDP_SIZE);
	le64_store(rsdp + 24, xsdt);
	rsdp[8] = checksum(rsdp, 20);
	rsdp[32] = checksum(rsdp, RSDP_SIZE);
}

u64 acpi_write(struct memory *memory, const struct acpi_config *config, u64 address, u64 room,
	       u64 *used)
{
	struct writer w = { memory, address, address, address + room };
	u64 rsdp_address, dsdt, xsdt, tables[5];
	u32 count = 4;
	u8 *rsdp = table_new(&w, RSDP_SIZE, &rsdp_address);

	dsdt = write_aml(&w, dsdt_aml_code, sizeof(dsdt_aml_code));
	tables[0] = write_fadt(&w, dsdt);
	tables[1] = write_madt(&w, config->cpus);
	tables[2] = write_mcfg(&w);
	tables[3] = write_ssdt(&w, config);
	if (config->hotplug)
		tables[count++] = write_aml(&w, hotplug_aml_code, sizeof(hotplug_aml_code));
	xsdt = write_xsdt(&w, tables, count);
	if (!rsdp || !dsdt || !xsdt)
		return 0;
	for (u32 i = 0; i < count; i++)
		if (!tables[i])
			return 0;
	write_rsdp(rsdp, xsdt);
	*used = w.next - w.start;
	return rsdp_address;
}
