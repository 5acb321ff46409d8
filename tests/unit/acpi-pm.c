/* vm/acpi-pm.c, vm/pvpanic.c, vm/debug-exit.c: the registers by which a guest ends or is told to.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "vm/bus.h"
#include "vm/end.h"
#include "vm/irq.h"
#include "vm/layout.h"
#include "vm/platform.h"

/* The interrupt controller is ours, so that the line can be looked at. */
struct irq {
	bool line;
};

void irq_line_set(struct irq *irq, u32 gsi, bool high)
{
	assert_int_equal(gsi, LAYOUT_GSI_GED);
	irq->line = high;
}

static struct irq irq;
static struct bus *bus;
static struct end end;
static struct acpi_pm *pm;

static int set_up(void **state)
{
	(void)state;
	irq.line = false;
	assert_int_equal(bus_create(&bus, NULL), 0);
	assert_int_equal(end_init(&end), 0);
	assert_int_equal(pvpanic_create(bus, &end), 0);
	assert_int_equal(debug_exit_create(bus, &end), 0);
	return acpi_pm_create(&pm, bus, &irq, &end);
}

static int tear_down(void **state)
{
	(void)state;
	acpi_pm_destroy(pm);
	bus_destroy(bus);
	close(end.fd);
	return 0;
}

static u64 in(u64 port, unsigned int size)
{
	return bus_read(bus, BUS_PIO, port, size);
}

static void out(u64 port, unsigned int size, u64 value)
{
	bus_write(bus, BUS_PIO, port, size, value);
}

static void assert_ended(enum end_reason reason, u32 value)
{
	u32 v = 0;

	assert_int_equal(end_reason(&end, &v), reason);
	if (reason == END_GUEST_STATUS)
		assert_int_equal(v, value);
	end_clear(&end);
}

static void test_power_off(void **state)
{
	(void)state;
	out(LAYOUT_PORT_ACPI + 1, 1, 0x80); /* as ACPICA does first: WAK_STS away */
	out(LAYOUT_PORT_ACPI, 1, 5 << 2);   /* the type alone does nothing */
	assert_ended(END_NONE, 0);
	out(LAYOUT_PORT_ACPI, 1, 5 << 2 | 0x20);
	assert_ended(END_POWEROFF, 0);
	assert_int_equal(in(LAYOUT_PORT_ACPI, 1), 5 << 2); /* SLP_EN reads 0 */
	assert_int_equal(in(LAYOUT_PORT_ACPI + 1, 1), 0);
}

/* A sleep we do not have must not leave the guest waiting to wake. */
static void test_other_sleep(void **state)
{
	(void)state;
	for (u8 type = 0; type < 8; type++) {
		if (type == 5)
			continue;
		out(LAYOUT_PORT_ACPI, 1, (u64)type << 2 | 0x20);
		assert_ended(END_NONE, 0);
		assert_int_equal(in(LAYOUT_PORT_ACPI + 1, 1), 0x80);
		out(LAYOUT_PORT_ACPI + 1, 1, 0x7f);
		assert_int_equal(in(LAYOUT_PORT_ACPI + 1, 1), 0x80);
		out(LAYOUT_PORT_ACPI + 1, 1, 0x80);
		assert_int_equal(in(LAYOUT_PORT_ACPI + 1, 1), 0);
	}
}

static void test_reset(void **state)
{
	(void)state;
	out(LAYOUT_PORT_ACPI + 2, 1, 0);
	out(LAYOUT_PORT_ACPI + 2, 1, 6);
	out(LAYOUT_PORT_ACPI + 3, 1, 1);
	assert_ended(END_NONE, 0);
	out(LAYOUT_PORT_ACPI + 2, 1, 1);
	assert_ended(END_RESET, 0);
}

static void test_events(void **state)
{
	(void)state;
	assert_int_equal(in(LAYOUT_PORT_GED, 4), 0);
	acpi_pm_event(pm, LAYOUT_GED_POWER_BUTTON);
	assert_true(irq.line);
	acpi_pm_event(pm, BIT(9));
	out(LAYOUT_PORT_GED, 4, 0); /* writes mean nothing */
	/* a byte's read takes that byte's events; the line stays for the others */
	assert_int_equal(in(LAYOUT_PORT_GED, 1), LAYOUT_GED_POWER_BUTTON);
	assert_true(irq.line);
	assert_int_equal(in(LAYOUT_PORT_GED + 1, 1), BIT(1));
	assert_false(irq.line);
	acpi_pm_event(pm, LAYOUT_GED_POWER_BUTTON | BIT(31));
	assert_int_equal(in(LAYOUT_PORT_GED, 4), LAYOUT_GED_POWER_BUTTON | BIT(31));
	assert_false(irq.line);
	assert_int_equal(in(LAYOUT_PORT_GED, 4), 0);
	acpi_pm_event(pm, BIT(0));
	acpi_pm_reset(pm);
	assert_false(irq.line);
	assert_int_equal(in(LAYOUT_PORT_GED, 4), 0);
}

static void test_pvpanic(void **state)
{
	(void)state;
	assert_int_equal(in(LAYOUT_PORT_PVPANIC, 1), 3);
	out(LAYOUT_PORT_PVPANIC, 1, 0);
	out(LAYOUT_PORT_PVPANIC, 1, 0xfc);
	out(LAYOUT_PORT_PVPANIC, 1, 2); /* a crash kernel takes over: not our end */
	assert_ended(END_NONE, 0);
	out(LAYOUT_PORT_PVPANIC, 1, 1);
	assert_ended(END_PANIC, 0);
	out(LAYOUT_PORT_PVPANIC, 1, 3);
	assert_ended(END_PANIC, 0);
}

static void test_debug_exit(void **state)
{
	(void)state;
	in(LAYOUT_PORT_DEBUG_EXIT, 1);
	out(LAYOUT_PORT_DEBUG_EXIT + 1, 1, 9);
	assert_ended(END_NONE, 0);
	for (unsigned int size = 1; size <= 4; size *= 2)
		for (u32 status = 0; status < 256; status += 51) {
			out(LAYOUT_PORT_DEBUG_EXIT, size, 0xaabbcc00 | status);
			assert_ended(END_GUEST_STATUS, status);
		}
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_power_off), TEST(test_other_sleep), TEST(test_reset),
		TEST(test_events),    TEST(test_pvpanic),     TEST(test_debug_exit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
