/*
 * Devices that come and go while the machine runs. Main thread, but for the guest's ejecting, which
 * comes on a vCPU.
 *
 * A device that goes does so in two steps. It vanishes for the guest at once: when the guest ejects
 * it, or by force. What it holds here (files, rings, interrupts, memory) is given back when its
 * last request in flight has ended, which nobody waits for.
 */
#ifndef MACHINE_HOTPLUG_H
#define MACHINE_HOTPLUG_H

#include "machine/machine.h"

/* What `add` is given: an option's name and value, and what the sender has opened and learned. */
struct hotplug_addition {
	const char *option, *value; /* "disk", "data.img,ro" */
	const int *fds;
	u32 fd_count;
	const struct disk *disk; /* learned; of its kind one is given */
	const struct tap *tap;
};

/* How a removal is asked for, and who is told of its end (error NULL: it is done). */
struct hotplug_removal {
	u64 patience; /* ns that the guest has */
	bool force;   /* then take it away; at once if patience is 0 */
	void (*told)(void *arg, const char *id, const char *error);
	void *arg;
};

/* Slots and their registers. 0 or -errno (logged). Before the machine starts. */
int hotplug_create(struct hotplug **hotplug, struct machine *m);
/* All devices gone. */
void hotplug_destroy(struct hotplug *hotplug);

/* Makes the device and tells the guest. The descriptors are its own from here on, or closed. Logs,
 * -errno; *id gets its name. */
int hotplug_add(struct hotplug *hotplug, const struct hotplug_addition *addition, const char **id);

/* Asks the guest to let go of a device; told() is called later, once. What was asked before for the
 * same device is over. Logs, -errno: there is no such device. */
int hotplug_remove(struct hotplug *hotplug, const char *id, const struct hotplug_removal *removal);

/* Whoever was to be told has gone; what it asked for goes on. */
void hotplug_forget(struct hotplug *hotplug, const void *arg);

/* Gives a disk another size (see disk_resize()) and tells the guest. Logs, -errno. */
int hotplug_resize(struct hotplug *hotplug, const char *id, u64 size, bool shrink);

/* The device of this name that the guest can see, or NULL after a log line. */
struct machine_device *hotplug_find(const struct hotplug *hotplug, const char *id);
/* Has the device vanished already? */
bool hotplug_vanished(struct hotplug *hotplug, const struct machine_device *d);

/* For the main thread's loop: what to poll, until when at most (*deadline is lowered, ns), and what
 * is due. */
void hotplug_prepare(const struct hotplug *hotplug, struct pollfd *fd, u64 *deadline);
void hotplug_run(struct hotplug *hotplug, u64 now);

/* The machine starts anew: what the guest was asked to let go has gone. vCPUs paused. */
void hotplug_reset(struct hotplug *hotplug);

#endif
