/*
 * What the user asked for: one struct, filled from flags and config files by one table, from which
 * --help and the man page come too. Imports nothing of ours but plain types, memory's and pin's.
 */
#ifndef VM_CONFIG_H
#define VM_CONFIG_H

#include "vm/memory.h"
#include "vm/pin.h"

#define CONFIG_MAX_CPUS	     254
#define CONFIG_MAX_DISKS     16
#define CONFIG_MAX_NETS	     8
#define CONFIG_MAX_FORWARDS  16
#define CONFIG_USER_MTU	     32000
#define CONFIG_MAX_PORTS     30
#define CONFIG_MAX_SHARES    8
#define CONFIG_MAX_TAG	     31 /* bytes of a share's name */
#define CONFIG_MAX_QUEUES    64
#define CONFIG_MAX_VECTORS   512
#define CONFIG_MAX_IOTHREADS 64
#define CONFIG_MAX_POLL_US   1000000
#define CONFIG_MAX_SECONDS   31536000 /* a year */
#define CONFIG_MIN_MEMORY    MIB(64)
#define CONFIG_RUN_MEMORY    GIB(1) /* what is written goes there too */
#define CONFIG_MAX_KERNELS   256
#define CONFIG_MAX_RW	     8
#define CONFIG_MAX_JOBS	     1024
#define CONFIG_BOOT_SECONDS  120

/* Entries of a virtqueue, at most and by default. */
#define CONFIG_DISK_QUEUE_SIZE	  256
#define CONFIG_NET_QUEUE_SIZE	  512
#define CONFIG_RNG_QUEUE_SIZE	  64
#define CONFIG_PORT_QUEUE_SIZE	  128
#define CONFIG_SHARE_QUEUE_SIZE	  128
#define CONFIG_BALLOON_QUEUE_SIZE 128
#define CONFIG_VSOCK_QUEUE_SIZE	  256

enum config_layout { CONFIG_LAYOUT_TRANSITIONAL, CONFIG_LAYOUT_MODERN, CONFIG_LAYOUT_LEGACY };
enum config_place { CONFIG_PLACE_ANY, CONFIG_PLACE_PIO, CONFIG_PLACE_MMIO };

/* How a device stands on its bus; all zero: as is usual. */
struct config_function {
	enum config_layout layout;
	enum config_place isr, notify;
	bool notify_exact; /* doorbells in memory match two bytes, not any length */
	bool vectors_given;
	u16 vectors;	  /* MSI-X, if vectors_given; 0: none */
	u16 queue_size;	  /* 0: the largest */
	bool packed;	  /* virtqueues of the packed format are offered, ... */
	bool in_order;	  /* ... and IN_ORDER, ... */
	bool notify_data; /* ... and NOTIFICATION_DATA */
};

struct config_disk {
	char *path;
	bool readonly;
	bool direct;	   /* O_DIRECT */
	bool snapshot;	   /* what is written is gone with the machine */
	bool writethrough; /* cache=writethrough */
	char serial[21];   /* NUL-terminated, may be empty: then derived from the file */
	u16 queues;	   /* 0: the default */
	struct config_function function;
	s32 iothread; /* that serves all of its queues; -1: they are spread */
	bool iopoll;  /* with direct: completions are looked for, not waited for */
};

/* A port of the host's, as passt is told of it: ADDRESS/PORT:PORT. */
struct config_forward {
	bool udp;
	char ports[28];
};

#define CONFIG_NET_USER "user" /* in place of a tap: passt (backends/passt.h) */

struct config_net {
	char *tap; /* or CONFIG_NET_USER */
	u32 forward_count;
	struct config_forward forwards[CONFIG_MAX_FORWARDS];
	u8 mac[6];
	bool mac_given;
	struct config_function function;
	u16 mtu;      /* 0: the tap's */
	u16 queues;   /* pairs; 0: the default (1) */
	bool vhost;   /* default off */
	s32 iothread; /* as a disk's */
};

static inline bool config_net_is_user(const struct config_net *net)
{
	return !strcmp(net->tap, CONFIG_NET_USER);
}

#define CONFIG_PORT_NAME_MAX 63

/* Where the user's terminal is found in the guest: ttyS0, hvc0, or either. */
enum config_console { CONFIG_CONSOLE_SERIAL, CONFIG_CONSOLE_VIRTIO, CONFIG_CONSOLE_BOTH };

/* What stands behind a named port of the virtio console. */
enum config_port_kind {
	CONFIG_PORT_FDS,  /* in_fd and out_fd, for ports that code makes: no option has it */
	CONFIG_PORT_UNIX, /* a socket at path that clients connect to, one at a time */
	CONFIG_PORT_PIPE, /* named pipes path.in (to the guest) and path.out */
	CONFIG_PORT_FILE, /* takes what the guest writes */
};

/*
 * Code that makes ports (`vmm run`) fills ports[] before the machine is made: a name (allocated,
 * config_free() frees it), kind CONFIG_PORT_FDS, and two descriptors, -1 for a direction that is
 * not there, twice the same for a socket. The machine takes them over and closes them: when the
 * guest has closed its port, behind the last byte (so a reader of a pipe sees its end), or when
 * reading in_fd found the end of file, which closes the guest's port behind the last byte. Such a
 * port is open once. Blocking or not, pipe, socket, terminal or file: any will do; 0 to 2 may be
 * given, and are not closed. More is said in virtio/console.h.
 */
struct config_port {
	char *name;
	enum config_port_kind kind;
	char *path; /* of the other kinds */
	int in_fd, out_fd;
};

/* Whose the files of a share are. */
enum config_map { CONFIG_MAP_SQUASH, CONFIG_MAP_MAPPED, CONFIG_MAP_PASSTHROUGH };

struct config_share {
	char *path;
	char tag[CONFIG_MAX_TAG + 1];
	bool readonly;
	enum config_map map;
	struct config_function function;
	s32 iothread; /* as a disk's */
};

struct config_vsock {
	u32 cid; /* 0: there is none */
	char *path;
	bool vhost;
	struct config_function function;
	s32 iothread; /* as a disk's */
};

/* What is done about a driver that breaks a rule of virtio. */
enum config_strict {
	CONFIG_STRICT_OFF,
	CONFIG_STRICT_WARN,
	CONFIG_STRICT_FAIL,
	CONFIG_STRICT_LIST
};

/* virtio-mmio instead of PCI, and who tells the kernel of it. */
enum config_mmio { CONFIG_MMIO_OFF, CONFIG_MMIO_ACPI, CONFIG_MMIO_CMDLINE };

enum config_action {
	CONFIG_RUN,
	CONFIG_CHECK,
	CONFIG_HELP,
	CONFIG_VERSION,
	CONFIG_MAN,
	CONFIG_RULES
};

/* From what on a message of the guest's kernel fails the run. */
enum config_fail_on { CONFIG_FAIL_ON_PANIC, CONFIG_FAIL_ON_OOPS, CONFIG_FAIL_ON_WARN };

/* What `vmm run` has beside the machine's own options; strings not given are NULL. */
struct config_run {
	bool asked;	/* this is `vmm run` */
	char **command; /* ended by NULL; the caller's argv. NULL: a shell */
	char **kernels; /* all of --kernel */
	u32 kernel_count;
	char *root, *user, *cwd, *modules;
	bool pack; /* the root's folders, whatever the kernel has */
	char *rw[CONFIG_MAX_RW];
	u32 rw_count;
	char **env; /* NAME=VALUE */
	u32 env_count;
	u32 boot_timeout_seconds; /* 0: none */
	enum config_fail_on fail_on;
	char *report, *log, *junit;
	u32 jobs; /* kernels at one time, 0: as many as there are CPUs */
};

struct config {
	enum config_action action;
	char *kernel, *initrd, *cmdline; /* NULL: not given */
	bool kernel_decompress;
	u32 cpus;		     /* default 1 */
	u32 sockets, cores, threads; /* --cpus N[,sockets=][,cores=][,threads=]; product == cpus */
	u64 memory;		     /* bytes, default 512 MiB */
	enum memory_pages pages;
	struct config_disk disks[CONFIG_MAX_DISKS];
	u32 disk_count;
	struct config_net nets[CONFIG_MAX_NETS];
	u32 net_count;
	struct config_port ports[CONFIG_MAX_PORTS];
	u32 port_count;
	struct config_share shares[CONFIG_MAX_SHARES];
	u32 share_count;
	struct config_vsock vsock;
	enum config_console console;
	struct config_function console_function; /* of its device, and of the ports' */
	char *serial; /* "stdio" (default), "none", "pty" or a file's path */
	bool rng;     /* default on */
	u32 rng_rate; /* bytes a second, 0: any */
	struct config_function rng_function;
	bool balloon;
	u64 balloon_size;	/* bytes, up to memory */
	bool balloon_reporting; /* default off */
	struct config_function balloon_function;
	u32 iothreads;
	bool poll_given;
	u32 poll_us; /* longest busy-polling window, if poll_given */
	bool sqpoll; /* default off */
	struct cpu_list pin_vcpus, pin_io, pin_sqpoll; /* empty: not given */
	u32 timeout_seconds;			       /* 0: none */
	u32 grace_seconds; /* between the power button and the end, default 10 */
	bool reboot;	   /* false: --no-reboot */
	bool sandbox;	   /* false: --no-sandbox */
	char *stats;	   /* a file's path, "-" for stderr, NULL: none */
	bool boot_timing;
	enum config_mmio mmio;
	enum config_strict strict; /* CONFIG_STRICT_LIST is an action */
	char *vmcore;		   /* a file's path, NULL: none */
	char *control;		   /* the control socket's path, NULL: none */
	char *gdb;		   /* that of gdb's, NULL: none */
	bool gdb_wait;		   /* until gdb lets the machine go */
	struct config_run run;
};

/*
 * Parses `vmm [OPTIONS]`, `vmm run [OPTIONS] [-- COMMAND...]` or `vmm check`. Unknown, repeated or
 * contradictory options, absent values and bad numbers are one log line (what, why, what to do;
 * with the nearest option name for a typo) and -EINVAL; an unreadable config file -errno. --config
 * FILE holds `key = value` lines (keys are the long options; lines that begin with `#` are
 * comments); a flag replaces the file's value,
 * --disk and --net add to the file's. After an error nothing is left to free. With CONFIG_RUN there
 * is a kernel; with the other actions only `action` and `run.asked` count. Main thread.
 */
int config_parse(struct config *config, int argc, char **argv);
/*
 * One device for a machine that runs, "disk" or "net" with the value that the option of this name
 * would have: *config has this device and nothing else, to be freed by config_free() and free().
 * machine is what the machine was given; NULL where that is not known. One log line and -EINVAL, or
 * -ENOMEM. Main thread.
 */
int config_parse_device(struct config **config, const struct config *machine, const char *option,
			const char *value);
/* A size or a number as options have them, for the word `name` of `vmm ctl`: in bytes; from min to
 * max. One log line and -EINVAL. */
int config_parse_size(const char *name, const char *text, u64 *bytes);
int config_parse_count(const char *name, const char *text, u64 min, u64 max, u64 *number);
void config_free(struct config *config);

#endif
