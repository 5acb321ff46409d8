/*
 * The machine: what it is made of (machine.c, devices.c), and what the main thread does while it
 * runs (run.c). Only main.c and this room include this. Main thread throughout.
 */
#ifndef MACHINE_MACHINE_H
#define MACHINE_MACHINE_H

#include "backends/console.h"
#include "backends/disk.h"
#include "backends/share.h"
#include "backends/tap.h"
#include "backends/vhost.h"
#include "firmware/boot.h"
#include "virtio/9p.h"
#include "virtio/balloon.h"
#include "virtio/blk.h"
#include "virtio/console.h"
#include "virtio/mmio.h"
#include "virtio/net.h"
#include "virtio/pci.h"
#include "virtio/rng.h"
#include "virtio/vsock.h"
#include "vm/config.h"
#include "vm/end.h"
#include "vm/kvm.h"
#include "vm/milestones.h"
#include "vm/platform.h"
#include "vm/stats.h"
#include "vm/ticks.h"
#include "vm/uart.h"

#define MACHINE_MAX_DEVICES 31 /* slots of bus 0 beside the bridge's */
/* What helps against -EMFILE, the likeliest error of what needs no more than a descriptor. */
#define MORE_FILES "allow more open files (ulimit -n)"

enum machine_kind {
	MACHINE_DISK,
	MACHINE_NET,
	MACHINE_SHARE,
	MACHINE_RNG,
	MACHINE_BALLOON,
	MACHINE_CONSOLE,
	MACHINE_PORTS,
	MACHINE_VSOCK
};

/* One virtio device with its host end. What its kind has not is zero. */
struct machine_device {
	enum machine_kind kind;
	char id[16]; /* "blk0": its name wherever it is spoken of */
	u32 number;  /* among its kind */
	const struct config_disk *disk_config;
	const struct config_net *net_config;
	const struct config_share *share_config;
	bool open; /* disk, tap or share */
	struct disk disk;
	struct tap tap;
	struct share share;
	struct vhost vhost; /* of a tap or a vsock, if the user wants it and the host has it */
	struct vsock_host vsock_host;
	struct virtio_blk *blk;
	struct virtio_net *net;
	struct virtio_9p *p9;
	struct virtio_rng *rng;
	struct virtio_balloon *balloon;
	struct virtio_console *console;
	struct virtio_vsock *vsock;
	struct virtio_device *device; /* of these */
	struct virtio_pci *function;
	/* of one that came while the machine runs: what its options lie in; else NULL */
	struct config *own;
	bool vanished; /* the guest sees it no more (hotplug.c) */
	struct {
		bool asked, force;
		u64 deadline; /* ns */
		void (*told)(void *arg, const char *id, const char *error);
		void *arg;
	} removal;
	struct virtio_mmio *mmio; /* instead, with --virtio-mmio */
};

struct machine;

#define MACHINE_WATCHER_POLLS 4

/* Somebody who follows a machine from its main thread (run/): takes its console, has descriptors
 * of its own in the loop, and says with what status the process ends. */
struct machine_watcher {
	void *arg;
	/* As console_prepare() and console_run(). */
	void (*prepare)(void *arg, struct machine *m, struct pollfd *fds, u64 *deadline);
	void (*run)(void *arg, struct machine *m, const struct pollfd *fds, u64 now);
	/* A signal has come. False: it is not the watcher's. */
	bool (*signal)(void *arg, struct machine *m, int number, u64 now);
	console_output_fn *output; /* what the guest prints */
	/* The vCPUs are stopped, the devices not. The exit status. */
	int (*ended)(void *arg, struct machine *m, enum end_reason reason, u32 value);
};

struct machine {
	const struct config *config;
	const struct machine_watcher *watcher; /* NULL: none */
	struct kvm kvm;
	struct end end;
	struct memory memory;
	struct bus *bus;
	struct irq *irq;
	struct terminal *terminal, *serial_terminal; /* may be the same */
	struct console *console;		     /* of the serial port */
	struct console *hvc;			     /* NULL: not with --console serial */
	struct virtio_console *virtio_console;	     /* its device; NULL: it was removed */
	int hvc_device_end;			     /* what that is made with */
	struct uart *uart;
	struct rtc *rtc;
	struct acpi_pm *pm;
	struct pci_host *pci;
	struct reactors *reactors;
	struct machine_device *devices[MACHINE_MAX_DEVICES];
	u32 device_count;
	struct ports *ports;	 /* NULL: none were asked for */
	struct hotplug *hotplug; /* these two with --control only */
	struct control *control;
	struct gdb *gdb; /* NULL: not with --gdb */
	bool mmio_open;	 /* devices go there, not on PCI: what comes after start-up could not be
			    announced */
	struct boot *boot;
	struct vcpus *vcpus; /* NULL: there are none (tests) */
	int signals;	     /* signalfd */
	struct stats stats;
	struct ticks start; /* when the machine was begun */
	struct milestones milestones;
	int vmcore;   /* descriptor of --vmcore, -1: none */
	bool expired; /* machine_expire() */
};

/* From options to exit status: makes, starts and runs a machine, and lets go of it. Signals are
 * blocked from here on, and stay so. */
int machine_session(const struct config *config, const struct milestones *milestones,
		    const struct machine_watcher *watcher);

/* Opens what the user named, makes the VM and its devices; config and milestones are set. Logs, 0
 * or -errno. */
int machine_make(struct machine *m);

/* Starts the threads, loads the kernel while they come up, and closes the sandbox: from here on
 * nothing can be opened any more, and vcpus_resume() runs the guest. Logs, 0 or -errno. */
int machine_start(struct machine *m);

/* Runs until the machine ends for good, restarting it when the guest asks for that. Returns why,
 * with value as in end_reason(). */
enum end_reason machine_run(struct machine *m, u32 *value);

/* As if --timeout were over now: the guest is asked where it is, then ended with END_TIMEOUT. While
 * machine_run() runs. */
void machine_expire(struct machine *m);

/* A reset by the guest: everything back to power-on, the same kernel loaded anew. vCPUs are paused
 * before and after. Logs, 0 or -errno. */
int machine_restart(struct machine *m);

/* What --stats would write, as members of an open object. */
void machine_put_stats(const struct machine *m, struct json *json);

/* Writes --stats; at the end of the run also what --boot-timing adds. */
void machine_write_stats(const struct machine *m, bool end);

/* --vmcore: opens the file before the sandbox; logs, 0 or -errno. */
int machine_open_core(struct machine *m);
/* Writes the core, if there is to be one and the reason is worth it. The vCPUs are paused. What
 * fails is one log line. */
void machine_write_core(const struct machine *m, enum end_reason reason);

/*
 * Images are unlocked and taps are free when the process has ended, not a moment later: a ring's
 * files would else live on in the kernel until it gets round to them, and the next VM would find
 * them taken. Waits for the I/O in flight, be it for ever.
 */
void machine_let_go(struct machine *m);

/* ---- mmio.c ---- */

/* How many virtio-mmio devices ACPI has to announce. */
u32 machine_mmio_announced(const struct config *config);
/* The words for a kernel without ACPI, each with a space behind it; the caller frees them. NULL: no
 * memory. */
char *machine_mmio_words(const struct config *config);
/* Puts the device at a place, counted from 0. Logs, 0 or -errno. */
int machine_mmio_create(struct machine *m, struct machine_device *d, u32 place);

/* ---- devices.c ---- */

/* To power-on state, whatever bus it is on. */
void machine_device_reset(struct machine_device *d);

/* Raises the process's limit on open files where the machine that config asks for, or what a
 * control socket may add to it, could need more. First. */
void machine_allow_files(const struct config *config);

/* Everything the user named is opened before anything is made, so that mistakes cost nothing.
 * Logs, 0 or -errno. */
int machine_open_backends(struct machine *m);

/* Shall vhost-net serve this interface? Where it cannot, although the user wants it, a line says
 * why. */
bool machine_wants_vhost(const struct machine *m, const struct config_net *config);
/* Can this vsock be served as the user wants it? Logs, -EINVAL. */
int machine_check_vsock(const struct machine *m, const struct config_vsock *config);

/* ---- console.c ---- */

/* The terminals, as --console and --serial say. Logs, 0 or -errno. */
int machine_open_terminals(struct machine *m);
/* The pumps: the serial port's before it is made, hvc0's with it. 0 or -errno. */
int machine_make_consoles(struct machine *m);
/* The device of hvc0. Logs, 0 or -errno. */
int machine_make_hvc(struct machine *m, struct machine_device *d);
/* console= for the kernel's command line, each with a space behind it. */
const char *machine_console_words(const struct config *config);
/* The terminal's window has changed. */
void machine_window_changed(const struct machine *m);

/* Of both consoles, what they tell of themselves (backends/console.h). */
#define MACHINE_CONSOLE_POLLS (2 * CONSOLE_POLLS)
void machine_consoles_prepare(struct machine *m, struct pollfd *fds, u64 *deadline);
enum terminal_command machine_consoles_run(struct machine *m, const struct pollfd *fds, u64 now);
void machine_consoles_flush(struct machine *m, unsigned int wait_ms);
void machine_consoles_reset(struct machine *m);
u64 machine_first_output(const struct machine *m);
bool machine_panicked(const struct machine *m);
bool machine_panic_complete(const struct machine *m);

/* Of VIRTIO_OPTIONAL, what the user wants offered. */
u64 machine_ring_features(const struct config_function *function);

/* The reactors, and every virtio device on the bus. Logs, 0 or -errno. */
int machine_make_devices(struct machine *m);

/* A new device of a kind, with the lowest number that is free, last in m->devices; logs and returns
 * NULL when there are as many as there may be. */
struct machine_device *machine_device_new(struct machine *m, enum machine_kind kind);
/* Registers the open host end, makes the virtio device and puts it on the bus. Logs, 0 or -errno.
 */
int machine_device_make(struct machine *m, struct machine_device *d);
/* Undoes that, however far it came, and closes the host end. Vanished and idle, or never plugged;
 * the reactors run. */
void machine_device_unmake(struct machine *m, struct machine_device *d);
/* Takes it out of m->devices and frees it. */
void machine_device_drop(struct machine *m, struct machine_device *d);

#endif
