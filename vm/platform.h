/*
 * The small fixed devices: RTC (rtc.c), ACPI sleep, reset and generic-event registers (acpi-pm.c),
 * pvpanic (pvpanic.c), debug exit (debug-exit.c). Each is one file; their faces are this small that
 * they share one header. Created on the main thread, accessed on vCPU threads.
 */
#ifndef VM_PLATFORM_H
#define VM_PLATFORM_H

#include "vm/types.h"

struct bus;
struct irq;
struct end;
struct rtc;
struct acpi_pm;

/* MC146818-compatible clock at LAYOUT_PORT_RTC, UTC from the host, century in CMOS byte 0x32; alarm
 * and update interrupts are not offered. 0 or -errno. */
int rtc_create(struct rtc **rtc, struct bus *bus);
void rtc_destroy(struct rtc *rtc);

/* ACPI 6.4, 4.8.3.7 sleep control/status (SLP_TYP 5 = S5), reset register (write 1), and the event
 * register of the generic event device (ACPI 5.6.9). 0 or -errno. */
int acpi_pm_create(struct acpi_pm **pm, struct bus *bus, struct irq *irq, struct end *end);
void acpi_pm_destroy(struct acpi_pm *pm);
/* Sets event bits (LAYOUT_GED_*) and interrupts the guest: the power button. Any thread. */
void acpi_pm_event(struct acpi_pm *pm, u32 events);
void acpi_pm_reset(struct acpi_pm *pm);

/* QEMU's pvpanic register (docs/specs/pvpanic.rst of that project): one byte at
 * LAYOUT_PORT_PVPANIC. 0 or -errno. */
int pvpanic_create(struct bus *bus, struct end *end);
/* A byte written to LAYOUT_PORT_DEBUG_EXIT ends the run with it as status. 0 or -errno. */
int debug_exit_create(struct bus *bus, struct end *end);
/* System control port B at LAYOUT_PORT_CONTROL_B: no NMI has a reason. 0 or -errno. */
int control_b_create(struct bus *bus);

#endif
