/*
 * --gdb SOCKET: a Unix socket of mode 0600 that speaks gdb's remote protocol (gdb's manual,
 * appendix "Remote Protocol"), to one client at a time: `target remote SOCKET`. A client finds the
 * machine stopped; when it detaches or vanishes, breakpoints are gone and the machine goes on. Main
 * thread.
 */
#ifndef MACHINE_GDB_H
#define MACHINE_GDB_H

#include <poll.h>
#include "vm/debug.h"

struct machine;
struct gdb;

#define GDB_POLLS 3

/* Makes the socket, for vCPUs that are made and not started; with wait they stay stopped until a
 * client lets them go. Logs, 0 or -errno. Before the sandbox. */
int gdb_create(struct gdb **gdb, struct machine *m, const char *path, bool wait);
void gdb_destroy(struct gdb *gdb);
/* For vcpus_config. The vCPU's thread. */
void gdb_exit(struct gdb *gdb, u32 index, const struct kvm_debug_exit_arch *exit);
/* The main thread's loop: what to poll (GDB_POLLS), and what is due. */
void gdb_prepare(const struct gdb *gdb, struct pollfd *fds);
void gdb_run(struct gdb *gdb, const struct pollfd *fds);
/* The guest's memory is made anew. vCPUs are paused. */
void gdb_restarted(struct gdb *gdb);
/* The machine has ended, with this status: the client is told. */
void gdb_ended(struct gdb *gdb, int status);

/* ---- between gdb.c and gdb-commands.c ---- */

/* Letters of a packet at most, and more than a packet of all registers has. */
#define GDB_PACKET 4096u

struct gdb {
	struct machine *m;
	struct debug debug;
	int fd, client; /* client: -1: none */
	bool running;	/* the client waits for the next stop */
	bool no_acks;	/* QStartNoAckMode */
	bool tells_swbreak;
	u32 thread;  /* the vCPU that g, m and the like are about */
	u8 signal;   /* of the last stop */
	u8 *actions; /* of each vCPU */
	u32 in_length, out_length, out_done, start;
	char in[GDB_PACKET + 8], out[2 * GDB_PACKET];
};

/* A packet's reply: between begin and end text and bytes in hex; what finds no room is cut. */
void gdb_begin(struct gdb *gdb);
void gdb_put(struct gdb *gdb, const char *format, ...) __attribute__((format(printf, 2, 3)));
void gdb_put_hex(struct gdb *gdb, const void *bytes, size_t length);
void gdb_end(struct gdb *gdb);

/* Lets the machine go as gdb->actions says. */
void gdb_resume(struct gdb *gdb);
/* Puts why it stopped last. */
void gdb_put_stop(struct gdb *gdb, const struct debug_stop *stop);
/* Lets all go, without breakpoints. */
void gdb_let_go(struct gdb *gdb);

/* Digits in hex, as many as there are up to most, from *at, which is moved behind them. */
u64 gdb_hex(const char **at, u32 most);
/* Carries out a packet, which is NUL-terminated and may have zeroes before its end; it stands in
 * gdb->in and may be changed. */
void gdb_command(struct gdb *gdb, char *packet, u32 length);

/* ---- gdb-registers.c ---- */

/* As the packet g has them, without a hole (target.xml tells names and types). */
struct gdb_registers {
	u64 general[16], rip;
	u32 eflags, segments[6]; /* cs ss ds es fs gs */
	u8 st[8][10];
	u32 x87[8]; /* fctrl fstat ftag fiseg fioff foseg fooff fop */
	u8 xmm[16][16];
	u32 mxcsr;
	u64 fs_base, gs_base, kernel_gs_base;
	u64 control[6]; /* cr0 cr2 cr3 cr4 cr8 efer */
} __attribute__((packed));

/* Of a vCPU's descriptor. 0 or -errno. */
int gdb_registers_load(int fd, struct gdb_registers *r);
/* What differs between old and r is written. -EINVAL: a selector, which cannot be changed alone. */
int gdb_registers_store(int fd, const struct gdb_registers *old, const struct gdb_registers *r);
/* Where register number n is in it, and how long: false: there is none. */
bool gdb_register_place(u32 n, u32 *offset, u32 *size);
/* target.xml (gdb's manual, appendix "Target Descriptions"). */
const char *gdb_registers_xml(void);

#endif
