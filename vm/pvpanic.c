/*
 * pvpanic: the guest's driver tells a panic by one byte (QEMU, docs/specs/pvpanic.rst). Reads say
 * which events are understood. vCPU threads.
 */
#include <misc/pvpanic.h>

#include "vm/bus.h"
#include "vm/end.h"
#include "vm/layout.h"
#include "vm/log.h"
#include "vm/platform.h"

static u64 pvpanic_read(void *owner, u64 offset, unsigned int size)
{
	(void)owner;
	(void)offset;
	(void)size;
	return PVPANIC_PANICKED | PVPANIC_CRASH_LOADED;
}

static void pvpanic_write(void *owner, u64 offset, unsigned int size, u64 value)
{
	static struct log_limit limit;
	struct end *end = owner;

	(void)offset;
	(void)size;
	if (value & PVPANIC_PANICKED)
		end_request(end, END_PANIC, 0);
	else if (value & PVPANIC_CRASH_LOADED)
		log_limited(&limit, 1,
			    "the guest kernel panicked: its crash kernel takes over; the machine "
			    "runs on");
}

static const struct bus_ops pvpanic_ops = { .read = pvpanic_read, .write = pvpanic_write };

int pvpanic_create(struct bus *bus, struct end *end)
{
	/* holds no state of its own, so one region serves the process's one machine */
	static struct bus_region region = {
		.space = BUS_PIO,
		.base = LAYOUT_PORT_PVPANIC,
		.size = 1,
		.ops = &pvpanic_ops,
	};

	region.owner = end;
	return bus_map(bus, &region);
}
