/*
 * Debug exit: a byte written to the port ends the run and is its status. Wider writes carry it in
 * their low byte; the bus cuts them at the region's end. vCPU threads.
 */
#include "vm/bus.h"
#include "vm/end.h"
#include "vm/layout.h"
#include "vm/platform.h"

static u64 debug_exit_read(void *owner, u64 offset, unsigned int size)
{
	(void)owner;
	(void)offset;
	(void)size;
	return 0;
}

static void debug_exit_write(void *owner, u64 offset, unsigned int size, u64 value)
{
	struct end *end = owner;

	(void)offset;
	(void)size;
	end_request(end, END_GUEST_STATUS, (u8)value);
}

static const struct bus_ops debug_exit_ops = { .read = debug_exit_read, .write = debug_exit_write };

int debug_exit_create(struct bus *bus, struct end *end)
{
	/* holds no state of its own, so one region serves the process's one machine */
	static struct bus_region region = {
		.space = BUS_PIO,
		.base = LAYOUT_PORT_DEBUG_EXIT,
		.size = 1,
		.ops = &debug_exit_ops,
	};

	region.owner = end;
	return bus_map(bus, &region);
}
