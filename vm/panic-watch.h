/*
 * Finds a kernel panic in what the guest prints: panics before the pvpanic driver is there, or on
 * kernels without it, are seen this way. All zero is its initial state. One thread at a time.
 */
#ifndef VM_PANIC_WATCH_H
#define VM_PANIC_WATCH_H

#include "vm/types.h"

struct panic_watch {
	u8 begun, ended; /* letters of each phrase matched so far */
	bool seen, complete;
};

/* Takes the next bytes of the console, cut anywhere. True once: when `Kernel panic - not syncing`
 * became complete. */
bool panic_watch_feed(struct panic_watch *watch, const u8 *bytes, size_t size);

/* Has `---[ end Kernel panic`, the last line of a panic's report, been printed? */
bool panic_watch_complete(const struct panic_watch *watch);

#endif
