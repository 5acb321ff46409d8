/* firmware/acpi.c and dsdt.asl: every table, for every shape of machine, taken apart again by iasl.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>
#include "firmware/acpi.h"

#define ADDRESS 0xe0000ull
#define ROOM	0x10000ull

static u8 sum(const u8 *bytes, u32 size)
{
	u8 total = 0;

	while (size--)
		total = (u8)(total + *bytes++);
	return total;
}

static char folder[] = "/tmp/vmm-acpi-XXXXXX";

/* Checks a table's length and checksum and leaves it as a file for iasl. */
static const u8 *take_table(const struct memory *memory, u64 address, const char *signature,
			    const char *name)
{
	const u8 *table = memory_at(memory, address, 36);
	char path[128];
	u32 size;
	FILE *f;

	assert_non_null(table);
	size = le32_load(table + 4);
	assert_memory_equal(table, signature, 4);
	assert_non_null(memory_at(memory, address, size));
	assert_true(address >= ADDRESS && address + size <= ADDRESS + ROOM);
	assert_int_equal(sum(table, size), 0);
	snprintf(path, sizeof(path), "%s/%s.aml", folder, name);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(table, 1, size, f), size);
	fclose(f);
	return table;
}

/* iasl must take it apart, and put code together again, without finding anything to say. */
static void take_apart(const char *name, bool hotplug)
{
	char command[512], line[256];
	FILE *out;

	if (!strcmp(name, "DSDT") || !strcmp(name, "SSDT2"))
		snprintf(command, sizeof(command),
			 "cd %s && iasl -e %s -d %s.aml 2>&1 && iasl -ve -p again %s.dsl 2>&1",
			 folder,
			 *name == 'S' ? "DSDT.aml -e SSDT.aml"
			 : hotplug    ? "SSDT.aml -e SSDT2.aml"
				      : "SSDT.aml",
			 name, name);
	else
		snprintf(command, sizeof(command), "cd %s && iasl -d %s.aml 2>&1", folder, name);
	out = popen(command, "r");
	assert_non_null(out);
	while (fgets(line, sizeof(line), out)) {
		if (strstr(line, "0 Errors, 0 Warnings, 0 Remarks"))
			continue;
		if (strstr(line, "rror") || strstr(line, "arning") || strstr(line, "emark") ||
		    strstr(line, "nvalid") || strstr(line, "nknown"))
			fail_msg("iasl on %s: %s", name, line);
	}
	assert_int_equal(pclose(out), 0);
}

/* What iasl made of the SSDT says this as often. */
static void said(const char *words, u32 times)
{
	char command[200], line[16] = "";
	FILE *out;

	snprintf(command, sizeof(command), "grep -c '%s' %s/SSDT.dsl", words, folder);
	out = popen(command, "r");
	assert_non_null(out);
	assert_non_null(fgets(line, sizeof(line), out));
	pclose(out);
	assert_int_equal(atoi(line), times);
}

static void check_mmio(u32 count)
{
	char address[40], pin[20];

	snprintf(address, sizeof(address), "0x%08X, *// Address Base",
		 0xe1000000 + 4096 * (count - 1));
	snprintf(pin, sizeof(pin), "0x%08X,$", 16 + (count - 1) % 8);
	said("LNRO0005", count);
	said("Interrupt (ResourceConsumer, Level, ActiveHigh, Shared", count);
	said("0x00001000, *// Address Length", count);
	said(address, count != 0);
	said(pin, (count + 7) / 8);
}

static void check_machine(u32 cpus, u64 size, bool hotplug, u32 mmio)
{
	const struct acpi_config config = { cpus, ALIGN_UP(GIB(4) + size, GIB(1)), GIB(32), hotplug,
					    mmio };
	/* the last is there with hot-plug slots only */
	static const char *const expected[] = { "FACP", "APIC", "MCFG", "SSDT", "SSDT" };
	static const char *const files[] = { "FACP", "APIC", "MCFG", "SSDT", "SSDT2" };
	u32 count = ARRAY_SIZE(expected) - !hotplug;
	struct memory memory;
	const u8 *rsdp, *xsdt, *fadt = NULL, *madt = NULL;
	u64 address, used;

	assert_int_equal(memory_create(&memory, NULL, size, MEMORY_PAGES_DEFAULT), 0);
	address = acpi_write(&memory, &config, ADDRESS, ROOM, &used);
	assert_int_equal(address, ADDRESS);
	assert_true(used <= ROOM);
	rsdp = memory_at(&memory, address, 36);
	assert_memory_equal(rsdp, "RSD PTR ", 8);
	assert_int_equal(sum(rsdp, 20), 0);
	assert_int_equal(sum(rsdp, 36), 0);
	xsdt = take_table(&memory, le64_load(rsdp + 24), "XSDT", "XSDT");
	assert_int_equal(le32_load(xsdt + 4), 36 + 8 * count);
	for (u32 i = 0; i < count; i++) {
		const u8 *t =
			take_table(&memory, le64_load(xsdt + 36 + i * 8), expected[i], files[i]);

		if (i == 0)
			fadt = t;
		if (i == 1)
			madt = t;
	}
	take_table(&memory, le64_load(fadt + 140), "DSDT", "DSDT");
	/* one local APIC a vCPU, dense ids */
	for (u32 i = 0; i < cpus; i++) {
		assert_int_equal(madt[44 + i * 8], 0);
		assert_int_equal(madt[44 + i * 8 + 3], i);
	}
	for (u32 i = 0; i < count; i++)
		take_apart(files[i], hotplug);
	take_apart("DSDT", hotplug);
	check_mmio(mmio);
	memory_destroy(&memory);
}

static void every_table_disassembles(void **state)
{
	static const u32 cpus[] = { 1, 2, 32, 254 };

	(void)state;
	if (system("iasl -v >/dev/null 2>&1")) {
		print_message("no iasl here\n");
		skip();
	}
	assert_non_null(mkdtemp(folder));
	for (u32 i = 0; i < ARRAY_SIZE(cpus); i++) {
		check_machine(cpus[i], MIB(128), i % 2, 10 * i);
		check_machine(cpus[i], GIB(6), true, 1);
	}
}

static void too_little_room_is_refused(void **state)
{
	const struct acpi_config config = { 254, GIB(4), GIB(32), true, 31 };
	struct memory memory;
	u64 used;

	(void)state;
	assert_int_equal(memory_create(&memory, NULL, MIB(128), MEMORY_PAGES_DEFAULT), 0);
	for (u64 room = 0; room < 3000; room += 100)
		assert_int_equal(acpi_write(&memory, &config, ADDRESS, room, &used), 0);
	/* outside RAM */
	assert_int_equal(acpi_write(&memory, &config, MIB(128) - 64, ROOM, &used), 0);
	memory_destroy(&memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_table_disassembles),
		cmocka_unit_test(too_little_room_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
