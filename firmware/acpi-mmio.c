/*
 * virtio-mmio devices in ACPI: \_SB.VMnn with _HID LNRO0005, registers and a level-triggered line
 * each. AML of fixed sizes (ACPI 6.4, 20.2; resources: 6.4.2.9, 6.4.3.4, 6.4.3.6), for the SSDT.
 * Main thread.
 */
#include "firmware/acpi.h"
#include "vm/layout.h"

#define AML_NAME     0x08
#define AML_BYTE     0x0a
#define AML_STRING   0x0d
#define AML_SCOPE    0x10
#define AML_BUFFER   0x11
#define AML_EXTENDED 0x5b
#define AML_DEVICE   0x82

#define RESOURCES   23 /* Memory32Fixed, Extended Interrupt, End Tag */
#define HID_SIZE    15
#define UID_SIZE    7
#define CRS_SIZE    (9 + RESOURCES)
#define BODY_SIZE   (1 + 4 + HID_SIZE + UID_SIZE + CRS_SIZE) /* with its own length byte */
#define DEVICE_SIZE (2 + BODY_SIZE)
#define SCOPE_HEAD  8 /* opcode, length of two bytes, \_SB_ */

_Static_assert(BODY_SIZE < 64, "its length fits into one byte");

static u8 *put(u8 *to, const void *bytes, u32 size)
{
	memcpy(to, bytes, size);
	return to + size;
}

static u8 *put_name(u8 *to, const char *name)
{
	*to++ = AML_NAME;
	return put(to, name, 4);
}

static u8 *put_crs(u8 *to, u32 address, u32 gsi)
{
	to = put_name(to, "_CRS");
	to = put(to, (const u8[]){ AML_BUFFER, 3 + RESOURCES, AML_BYTE, RESOURCES }, 4);
	to = put(to, (const u8[]){ 0x86, 9, 0, 1 }, 4); /* Memory32Fixed, read and write */
	le32_store(to, address);
	le32_store(to + 4, LAYOUT_MMIO_STEP);
	to = put(to + 8, (const u8[]){ 0x89, 6, 0, 0x09, 1 },
		 5); /* consumer, level, high, shared */
	le32_store(to, gsi);
	return put(to + 4, (const u8[]){ 0x79, 0 }, 2);
}

static u8 *put_device(u8 *to, u32 n)
{
	const char name[] = { 'V', 'M', (char)('0' + n / 10), (char)('0' + n % 10) };

	to = put(to, (const u8[]){ AML_EXTENDED, AML_DEVICE, BODY_SIZE }, 3);
	to = put(to, name, sizeof(name));
	to = put_name(to, "_HID");
	*to++ = AML_STRING;
	to = put(to, "LNRO0005", 9);
	to = put_name(to, "_UID");
	to = put(to, (const u8[]){ AML_BYTE, (u8)n }, 2);
	return put_crs(to, (u32)(LAYOUT_MMIO_START + n * LAYOUT_MMIO_STEP),
		       LAYOUT_GSI_PCI + n % LAYOUT_GSI_PCI_COUNT);
}

u32 acpi_mmio_size(u32 count)
{
	return count ? SCOPE_HEAD + count * DEVICE_SIZE : 0;
}

void acpi_mmio_put(u8 *to, u32 count)
{
	u32 size = acpi_mmio_size(count) - 1; /* behind the opcode */

	if (!count)
		return;
	*to++ = AML_SCOPE;
	/* 20.2.4: one byte follows the first, which has the low four bits */
	*to++ = (u8)(0x40 | (size & 0xf));
	*to++ = (u8)(size >> 4);
	to = put(to, "\\_SB_", 5);
	for (u32 i = 0; i < count; i++)
		to = put_device(to, i);
}
