/*
 * A network without privilege: passt(1), which speaks Ethernet over a stream (each frame behind its
 * length, 32 bits, big-endian) and carries what is in the frames by sockets of its own. It is a
 * process with a sandbox of its own; the end of the stream is its end, however we end.
 *
 * To everybody else it is a tap with one queue, no offloads and `stream` set.
 */
#ifndef BACKENDS_PASST_H
#define BACKENDS_PASST_H

#include "backends/tap.h"
#include "vm/config.h"

/* What passt is told to give the guest by DHCP, and init sets by itself. */
#define PASST_GUEST   "10.0.2.15"
#define PASST_MASK    "255.255.255.0"
#define PASST_GATEWAY "10.0.2.2"
#define PASST_DNS     "10.0.2.3" /* where the host's own resolver cannot be told to a guest */
#define PASST_ADDRESS 16	 /* bytes of a text like these */

/* Bytes that one write has, at most, beside a frame that was begun: what the kernel puts into one
 * piece, and thus passt reads at once. It copes badly with a part of a frame, worse with one of its
 * length. */
#define PASST_WRITE KIB(32)

/* Starts it and fills in tap. Logs, 0 or -errno. Main thread, while there is no other and guest RAM
 * is not yet made. */
int passt_open(struct tap *tap, const struct config_net *config);
/* Waits until it is ready (tap_register()). Logs, 0 or -errno. Main thread. */
int passt_ready(struct tap *tap);
/* Waits for its end, the stream being closed (tap_close()). Main thread. */
void passt_end(struct tap *tap);

/* The resolver for a guest: the host's, by its IPv4 address. True: the address is the host's own
 * affair, and the text is PASST_DNS, which passt forwards. Main thread. */
bool passt_resolver(char text[PASST_ADDRESS]);

#endif
