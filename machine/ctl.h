/*
 * `vmm ctl PATH COMMAND`: speaks to a running machine over its control socket. Disks and taps are
 * opened here, with the caller's rights, and sent along open.
 */
#ifndef MACHINE_CTL_H
#define MACHINE_CTL_H

/* argv begins with the program's name and "ctl". Returns the process's exit status; what went wrong
 * is one log line. Main thread. */
int ctl_main(int argc, char **argv);

/* ctl-devices.c: the answer to `devices` as people read it, on stdout. Main thread. */
struct json_t;
void ctl_show_devices(const struct json_t *answer);

#endif
