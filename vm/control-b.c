/*
 * System control port B of the PC: the reasons of an NMI, of which there are none here, and the
 * output of timer 2, which is high and stays so, so that nobody waits for a timer that is not
 * there. Without it the port would read all ones and each NMI pass for a memory error. vCPU
 * threads.
 */
#include "vm/bus.h"
#include "vm/layout.h"
#include "vm/platform.h"

#define TIMER_2_OUTPUT BIT(5)

static u64 control_b_read(void *owner, u64 offset, unsigned int size)
{
	(void)owner;
	(void)offset;
	(void)size;
	return TIMER_2_OUTPUT;
}

static void control_b_write(void *owner, u64 offset, unsigned int size, u64 value)
{
	(void)owner;
	(void)offset;
	(void)size;
	(void)value;
}

int control_b_create(struct bus *bus)
{
	static const struct bus_ops ops = { .read = control_b_read, .write = control_b_write };
	static const struct bus_region region = {
		.space = BUS_PIO,
		.base = LAYOUT_PORT_CONTROL_B,
		.size = 1,
		.ops = &ops,
	};

	return bus_map(bus, &region);
}
