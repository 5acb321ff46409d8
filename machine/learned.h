/*
 * What `vmm ctl` learns of a disk or tap that it opens, on its way to the machine in JSON: what the
 * machine's sandbox keeps it from learning itself. Main thread of either process.
 */
#ifndef MACHINE_LEARNED_H
#define MACHINE_LEARNED_H

#include "backends/disk.h"
#include "backends/tap.h"
#include "machine/json-library.h"

/* A new object, NULL without memory. */
json_t *learned_pack_disk(const struct disk *disk);
json_t *learned_pack_tap(const struct tap *tap);

/* Fills in what is learned; all else is left as it is. False: a member is missing, or of the wrong
 * kind. Whether the values make sense is the back end's to judge. */
bool learned_unpack_disk(json_t *from, struct disk *disk);
bool learned_unpack_tap(json_t *from, struct tap *tap);

#endif
