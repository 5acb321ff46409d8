/*
 * ACPI's few registers on hardware-reduced machines: sleep control and status (ACPI 6.4, 4.8.3.7),
 * the reset register (4.8.3.6), and the event register behind the generic event device (5.6.9),
 * which the DSDT's _EVT method reads. vCPU threads; acpi_pm_event() on any.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "vm/bus.h"
#include "vm/end.h"
#include "vm/irq.h"
#include "vm/layout.h"
#include "vm/platform.h"

/* Offsets from LAYOUT_PORT_ACPI. */
enum { SLEEP_CONTROL, SLEEP_STATUS, RESET, REGISTERS = 4 };

#define SLP_TYP_SHIFT 2
#define SLP_TYP	      (7u << SLP_TYP_SHIFT)
#define SLP_EN	      BIT(5)
#define WAK_STS	      BIT(7)
#define RESET_VALUE   1
#define S5	      5 /* as the DSDT's \_S5 says */

struct acpi_pm {
	struct irq *irq;
	struct end *end;
	struct bus *bus;
	struct bus_region registers, ged;
	pthread_mutex_t lock; /* what follows, and the line */
	u32 events;
	u8 sleep_type, sleep_status;
};

static u8 read_register(struct acpi_pm *pm, u64 offset)
{
	switch (offset) {
	case SLEEP_CONTROL:
		return pm->sleep_type; /* SLP_EN is write-only */
	case SLEEP_STATUS:
		return pm->sleep_status;
	default:
		return 0;
	}
}

static void write_register(struct acpi_pm *pm, u64 offset, u8 value)
{
	switch (offset) {
	case SLEEP_CONTROL:
		pm->sleep_type = value & SLP_TYP;
		if (!(value & SLP_EN))
			break;
		if (pm->sleep_type >> SLP_TYP_SHIFT == S5)
			end_request(pm->end, END_POWEROFF, 0);
		else
			pm->sleep_status |= WAK_STS; /* a state we have not: awake again at once */
		break;
	case SLEEP_STATUS:
		pm->sleep_status &= (u8) ~(value & WAK_STS);
		break;
	case RESET:
		if (value == RESET_VALUE)
			end_request(pm->end, END_RESET, 0);
		break;
	}
}

static u64 acpi_pm_read(void *owner, u64 offset, unsigned int size)
{
	struct acpi_pm *pm = owner;
	u64 value = 0;

	pthread_mutex_lock(&pm->lock);
	for (unsigned int i = 0; i < size; i++)
		value |= (u64)read_register(pm, offset + i) << (8 * i);
	pthread_mutex_unlock(&pm->lock);
	return value;
}

static void acpi_pm_write(void *owner, u64 offset, unsigned int size, u64 value)
{
	struct acpi_pm *pm = owner;

	pthread_mutex_lock(&pm->lock);
	for (unsigned int i = 0; i < size; i++)
		write_register(pm, offset + i, (u8)(value >> (8 * i)));
	pthread_mutex_unlock(&pm->lock);
}

static const struct bus_ops acpi_pm_ops = { .read = acpi_pm_read, .write = acpi_pm_write };

/* Reading takes the events that the bytes read hold, and lowers the line with the last. */
static u64 ged_read(void *owner, u64 offset, unsigned int size)
{
	struct acpi_pm *pm = owner;
	u32 mask = (u32)((size == 4 ? BIT64(32) : BIT64(8 * size)) - 1) << (8 * offset);
	u32 events;

	pthread_mutex_lock(&pm->lock);
	events = pm->events & mask;
	pm->events &= ~mask;
	if (events && !pm->events)
		irq_line_set(pm->irq, LAYOUT_GSI_GED, false);
	pthread_mutex_unlock(&pm->lock);
	return events >> (8 * offset);
}

static void ged_write(void *owner, u64 offset, unsigned int size, u64 value)
{
	(void)owner;
	(void)offset;
	(void)size;
	(void)value;
}

static const struct bus_ops ged_ops = { .read = ged_read, .write = ged_write };

int acpi_pm_create(struct acpi_pm **result, struct bus *bus, struct irq *irq, struct end *end)
{
	struct acpi_pm *pm = calloc(1, sizeof(*pm));
	int err;

	if (!pm)
		return -ENOMEM;
	pm->irq = irq;
	pm->end = end;
	pm->bus = bus;
	pm->registers =
		(struct bus_region){ BUS_PIO, LAYOUT_PORT_ACPI, REGISTERS, &acpi_pm_ops, pm };
	pm->ged = (struct bus_region){ BUS_PIO, LAYOUT_PORT_GED, sizeof(u32), &ged_ops, pm };
	pthread_mutex_init(&pm->lock, NULL);
	err = bus_map(bus, &pm->registers);
	if (err)
		goto out;
	err = bus_map(bus, &pm->ged);
	if (!err) {
		*result = pm;
		return 0;
	}
	bus_unmap(bus, &pm->registers);
out:
	pthread_mutex_destroy(&pm->lock);
	free(pm);
	return err;
}

void acpi_pm_destroy(struct acpi_pm *pm)
{
	if (!pm)
		return;
	bus_unmap(pm->bus, &pm->ged);
	bus_unmap(pm->bus, &pm->registers);
	pthread_mutex_destroy(&pm->lock);
	free(pm);
}

void acpi_pm_event(struct acpi_pm *pm, u32 events)
{
	pthread_mutex_lock(&pm->lock);
	if (events && !pm->events)
		irq_line_set(pm->irq, LAYOUT_GSI_GED, true);
	pm->events |= events;
	pthread_mutex_unlock(&pm->lock);
}

void acpi_pm_reset(struct acpi_pm *pm)
{
	pthread_mutex_lock(&pm->lock);
	pm->events = 0;
	pm->sleep_type = pm->sleep_status = 0;
	irq_line_set(pm->irq, LAYOUT_GSI_GED, false);
	pthread_mutex_unlock(&pm->lock);
}
