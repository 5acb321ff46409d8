/*
 * What the two halves of `vmm run` say to each other: the host, which makes the initramfs and ends
 * with the command's status, and the init inside it, which mounts the root and runs the command.
 * Included by both, so it needs no other header.
 *
 * RUN_CONF, a file of the initramfs, says what to do: strings `key=value`, each ended by a NUL.
 * Their order counts where a key is repeated. Unknown keys are passed over.
 *
 *   module=PATH	a module to load, unpacked; in this order
 *   root=9p:TAG	the root: a 9p share
 *   root=blk:DEV[:TYPE] a disk; without TYPE every type that the kernel knows is tried
 *   rootmode=MODE	ro (without it), rw, or overlay: what is written goes to RAM, the root
 *			stays as it is
 *   share=TAG:PATH:MODE a 9p share, on PATH in the new root; MODE as for the root. Each needs a
 *			TAG of its own: a device is mounted once. /dev/NAME, with MODE overlay: a
 *			disk instead
 *   cwd=PATH		where the command starts; / without it
 *   uid=N, gid=N, group=N as whom it runs; group is repeated; 0 and none without them
 *   env=NAME=VALUE	its environment, repeated; PATH and HOME have defaults
 *   arg=WORD		the command, repeated; without any: a shell ($SHELL, bash or sh)
 *   tty=0|1		1: it gets a pseudo-terminal; 0: three pipes
 *   rows=N, cols=N	the pseudo-terminal's size
 *   hostname=NAME
 *   net=DEVICE ADDRESS MASK GATEWAY RESOLVER, in dotted numbers: brought up so, and
 *			/etc/resolv.conf written
 *
 * Shares are mounted in their order, after everything that init mounts itself: /proc, /sys,
 * /sys/fs/cgroup, /dev, /dev/pts, /dev/shm, /run, /tmp. So a folder beneath /tmp or /run, or on
 * another file system of the host than the root's, needs a share to be seen.
 *
 * Four named ports of a virtio console carry the streams and what is said. The host opens
 * RUN_PORT_CONTROL last: a port that is not open then is at its end. Later a port ends when the
 * host closes it: for RUN_PORT_STDIN that is end of file, for the others nobody reads any more.
 * Under a pseudo-terminal nothing comes from RUN_PORT_STDERR.
 *
 * RUN_PORT_CONTROL carries lines of text, ended by '\n', at most RUN_LINE_MAX long with it. A line
 * that is not known is passed over. From the guest, in this order:
 *
 *   init		init runs: the ports are there, modules loaded
 *   root		the root is mounted and is /
 *   start		the command was started
 *   full PATH		the command failed, and here is no room left of what RAM has for it
 *   output OUT ERR	the bytes written to RUN_PORT_STDOUT and RUN_PORT_STDERR in all. Queues
 *			have no order among each other: when that many have come, all has
 *   exit N | signal N	how the command ended. All it wrote to disks and shares is there
 *
 * or, instead of what is left of it,
 *
 *   error KIND TEXT	KIND: one of the words below; TEXT says what, why and what to do
 *
 * After it comes `exit 127` (RUN_ERROR_NOT_FOUND), `exit 126` (RUN_ERROR_NOT_EXECUTABLE), or the
 * end. After its last line init waits for RUN_LINE_POWEROFF, RUN_LAST_WORD_MS at most, and powers
 * off; nothing is lost if the host ends the machine at once. From the host:
 *
 *   winsize ROWS COLS	of the pseudo-terminal
 *   signal N		to the pseudo-terminal's foreground, else to the command's process group
 *   poweroff		at once, whatever runs
 *   ping		init answers `pong` at once; a guest whose init no longer does hangs
 *
 * Without the ports (no virtio console, or no driver for it) streams and lines go to the console,
 * each line behind RUN_CONSOLE_PREFIX, and the first is an error of the kind RUN_ERROR_PORT, after
 * which the rest goes on.
 */
#ifndef RUN_PROTOCOL_H
#define RUN_PROTOCOL_H

#define RUN_CONF "run.conf" /* in the initramfs' / */

#define RUN_PORT_STDIN	 "vmm.stdin"
#define RUN_PORT_STDOUT	 "vmm.stdout"
#define RUN_PORT_STDERR	 "vmm.stderr"
#define RUN_PORT_CONTROL "vmm.control"

#define RUN_LINE_MAX	   1024
#define RUN_LAST_WORD_MS   10000
#define RUN_CONSOLE_PREFIX "vmm: "

/* guest to host */
#define RUN_LINE_INIT	"init"
#define RUN_LINE_ROOT	"root"
#define RUN_LINE_START	"start"
#define RUN_LINE_OUTPUT "output" /* OUT ERR */
#define RUN_LINE_FULL	"full"	 /* PATH */
#define RUN_LINE_EXIT	"exit"	 /* N */
#define RUN_LINE_SIGNAL "signal" /* N; the host says it too */
#define RUN_LINE_ERROR	"error"	 /* KIND TEXT */
#define RUN_LINE_PONG	"pong"

/* host to guest */
#define RUN_LINE_WINSIZE  "winsize" /* ROWS COLS */
#define RUN_LINE_POWEROFF "poweroff"
#define RUN_LINE_PING	  "ping"

/* KIND */
#define RUN_ERROR_CONF		 "conf"	   /* RUN_CONF is missing or says nonsense */
#define RUN_ERROR_MODULE	 "module"  /* one does not load */
#define RUN_ERROR_PORT		 "port"	   /* no ports: the console serves instead */
#define RUN_ERROR_ROOT		 "root"	   /* cannot be mounted */
#define RUN_ERROR_OVERLAY	 "overlay" /* no overlayfs, or it cannot be mounted */
#define RUN_ERROR_SHARE		 "share"   /* cannot be mounted */
#define RUN_ERROR_MOUNT		 "mount"   /* /proc and the like */
#define RUN_ERROR_NET		 "net"	   /* an interface cannot be brought up */
#define RUN_ERROR_CWD		 "cwd"	   /* cannot be entered */
#define RUN_ERROR_USER		 "user"	   /* uid, gid or groups refused */
#define RUN_ERROR_FORK		 "fork"	   /* no process, pipe or pseudo-terminal */
#define RUN_ERROR_NOT_FOUND	 "command-not-found"
#define RUN_ERROR_NOT_EXECUTABLE "not-executable"

#endif
