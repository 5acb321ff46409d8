/*
 * The host's side of named ports (--port, config.ports[]): opens what they name, takes clients of
 * their sockets, and takes back what a port is through with. Main thread; while the machine runs it
 * has its turn in the loop, and never waits.
 */
#ifndef MACHINE_PORTS_H
#define MACHINE_PORTS_H

#include <poll.h>
#include "vm/config.h"

struct machine;
struct machine_device;
struct ports;

#define PORTS_POLLS (1 + CONFIG_MAX_PORTS)

/* Makes sockets, named pipes and files. Logs, 0 or -errno. Before the sandbox. */
int ports_open(struct ports **ports, const struct config *config);
/* The same for one that is added later: fds, of which there are one or two, are for ports_adopt()
 * in the machine; how many, or -errno after a line. vmm ctl. */
int ports_open_files(const struct config *config, int *fds);
/* Such a port from them, which are the caller's still after an error. Logs, 0 or -errno. Main
 * thread. */
int ports_adopt(struct ports **ports, const struct config *config, const int *fds, u32 count);
/* Their device. Logs, 0 or -errno. */
int ports_make(struct machine *m, struct machine_device *d);
/* Their device is gone: nobody is taken any more. */
void ports_close(struct ports *ports);

/* Fills fds[PORTS_POLLS] with what it waits for. */
void ports_prepare(const struct ports *ports, struct pollfd *fds);
/* Does what poll's answer asks for. */
void ports_run(struct ports *ports, const struct pollfd *fds);

/* The bytes that the guest has written to the port of this name and that are with whoever reads
 * them, or lost because nobody does. */
u64 ports_written(const struct ports *ports, const char *name);

#endif
