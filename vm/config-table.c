/*
 * The options of vmm: one table, and a setter for each. Main thread.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/un.h>

#include "vm/config-table.h"
#include "vm/log.h"

int config_no_memory(void)
{
	log_line("options: the host is out of memory; free some");
	return -ENOMEM;
}

int config_set_string(char **to, const char *value)
{
	char *copy = strdup(value);

	if (!copy)
		return config_no_memory();
	free(*to);
	*to = copy;
	return 0;
}

static int set_number(struct config_parser *parser, const char *value, u64 min, u64 max, u32 *to)
{
	u64 n;
	int err = config_number(parser, NULL, value, min, max, &n);

	if (!err)
		*to = (u32)n;
	return err;
}

static int set_cmdline(struct config_parser *parser, const char *value)
{
	for (const char *p = value; *p; p++)
		if (iscntrl((unsigned char)*p) && *p != '\t')
			return config_error(parser, NULL,
					    "has a control character; a kernel command line is one "
					    "line of text");
	return config_set_string(&parser->config->cmdline, value);
}

/* ---- cpus ---- */

static int set_topology(struct config_parser *parser, const char *what, const char *value, u32 *to)
{
	u64 n;
	int err = config_number(parser, what, value, 1, CONFIG_MAX_CPUS, &n);

	if (!err)
		*to = (u32)n;
	return err;
}

static int set_sockets(struct config_parser *parser, void *target, const char *value)
{
	struct config *config = target;

	return set_topology(parser, "sockets", value, &config->sockets);
}

static int set_cores(struct config_parser *parser, void *target, const char *value)
{
	struct config *config = target;

	return set_topology(parser, "cores", value, &config->cores);
}

static int set_threads(struct config_parser *parser, void *target, const char *value)
{
	struct config *config = target;

	return set_topology(parser, "threads", value, &config->threads);
}

/* What was not given follows: cores first, then sockets, then threads take up the rest. */
static int complete_topology(struct config_parser *parser)
{
	struct config *config = parser->config;
	u32 *parts[] = { &config->cores, &config->sockets, &config->threads };
	u32 given = 1, *rest = NULL;

	for (unsigned int i = 0; i < ARRAY_SIZE(parts); i++) {
		if (*parts[i])
			given *= *parts[i]; /* at most 254^3 */
		else if (!rest)
			rest = parts[i];
	}
	if (rest && config->cpus % given == 0)
		*rest = config->cpus / given;
	for (unsigned int i = 0; i < ARRAY_SIZE(parts); i++)
		if (!*parts[i])
			*parts[i] = 1;
	if (config->sockets * config->cores * config->threads == config->cpus)
		return 0;
	return config_error(
		parser, NULL,
		"%u CPUs are not %u sockets of %u cores of %u threads; make the product equal",
		config->cpus, config->sockets, config->cores, config->threads);
}

static int set_cpus(struct config_parser *parser, const char *value)
{
	struct config *config = parser->config;
	char *copy = strdup(value), *cursor = copy;
	int err;

	if (!copy)
		return config_no_memory();
	config->sockets = config->cores = config->threads = 0;
	err = set_number(parser, config_next_part(&cursor), 1, CONFIG_MAX_CPUS, &config->cpus);
	if (!err)
		err = config_parse_suboptions(parser, config, &cursor);
	if (!err)
		err = complete_topology(parser);
	free(copy);
	return err;
}

/* ---- mem ---- */

static int set_hugepages(struct config_parser *parser, void *target, const char *value)
{
	struct config *config = target;

	if (!strcmp(value, "2M"))
		config->pages = MEMORY_PAGES_2M;
	else if (!strcmp(value, "1G"))
		config->pages = MEMORY_PAGES_1G;
	else
		return config_error(parser, NULL,
				    "hugepages=%.40s: no such page size; give 2M or 1G", value);
	return 0;
}

static int set_mem(struct config_parser *parser, const char *value)
{
	struct config *config = parser->config;
	char *copy = strdup(value), *cursor = copy;
	u64 page = MIB(1);
	int err;

	if (!copy)
		return config_no_memory();
	config->pages = MEMORY_PAGES_DEFAULT;
	err = config_size(parser, config_next_part(&cursor), &config->memory);
	if (!err)
		err = config_parse_suboptions(parser, config, &cursor);
	free(copy);
	if (err)
		return err;
	if (config->memory < CONFIG_MIN_MEMORY)
		return config_error(parser, value,
				    "too small for a Linux kernel; give at least 64M");
	if (config->pages == MEMORY_PAGES_2M)
		page = MIB(2);
	else if (config->pages == MEMORY_PAGES_1G)
		page = GIB(1);
	if (config->memory % page)
		return config_error(parser, value,
				    "not a whole number of such pages; round it to %s",
				    page == MIB(2) ? "2M" : "1G");
	return 0;
}

/* ---- the rest ---- */

static int set_timeout(struct config_parser *parser, const char *value)
{
	return set_number(parser, value, 0, CONFIG_MAX_SECONDS, &parser->config->timeout_seconds);
}

static int set_grace(struct config_parser *parser, const char *value)
{
	return set_number(parser, value, 0, CONFIG_MAX_SECONDS, &parser->config->grace_seconds);
}

static int set_no_reboot(struct config_parser *parser, const char *value)
{
	bool on;
	int err = config_bool(parser, NULL, value, &on);

	if (!err)
		parser->config->reboot = !on;
	return err;
}

static int set_no_sandbox(struct config_parser *parser, const char *value)
{
	bool on;
	int err = config_bool(parser, NULL, value, &on);

	if (!err)
		parser->config->sandbox = !on;
	return err;
}

static int set_kernel_decompress(struct config_parser *parser, const char *value)
{
	return config_bool(parser, NULL, value, &parser->config->kernel_decompress);
}

static int set_boot_timing(struct config_parser *parser, const char *value)
{
	return config_bool(parser, NULL, value, &parser->config->boot_timing);
}

static int set_socket(struct config_parser *parser, char **to, const char *value)
{
	if (!*value || strlen(value) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return config_error(parser, value,
				    "no path of a socket; it has from 1 to %zu letters",
				    sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
	return config_set_string(to, value);
}

static int set_control(struct config_parser *parser, const char *value)
{
	return set_socket(parser, &parser->config->control, value);
}

static int set_wait(struct config_parser *parser, void *target, const char *value)
{
	struct config *config = target;

	return config_bool(parser, "wait", value, &config->gdb_wait);
}

static int set_gdb(struct config_parser *parser, const char *value)
{
	char *copy = strdup(value), *cursor = copy;
	int err;

	if (!copy)
		return config_no_memory();
	err = set_socket(parser, &parser->config->gdb, config_next_part(&cursor));
	if (!err)
		err = config_parse_suboptions(parser, parser->config, &cursor);
	free(copy);
	return err;
}

static const struct config_suboption gdb_suboptions[] = {
	{ "wait", "on|off", .argument_optional = true, .set = set_wait,
	  MAN("Whether the machine waits, before its first instruction, until gdb lets it go. "
	      "The default is off.") },
	{ 0 },
};

static const struct config_suboption cpus_suboptions[] = {
	{ "sockets", "N", .set = set_sockets, MAN("Processor packages.") },
	{ "cores", "N", .set = set_cores, MAN("Cores of each package.") },
	{ "threads", "N", .set = set_threads,
	  MAN("Threads of each core. What is left out follows from the number of CPUs; without "
	      "any "
	      "of the three, it is one package with a core for each CPU.") },
	{ 0 },
};

static const struct config_suboption mem_suboptions[] = {
	{ "hugepages", "2M|1G", .set = set_hugepages,
	  MAN("Take the memory from the host's pool of huge pages of this size. Otherwise "
	      "transparent "
	      "huge pages are used where the host has them.") },
	{ 0 },
};

#define TEXT(member) .text = offsetof(struct config, member)

const struct config_option config_options[] = {
	{ "kernel", "FILE", HELP("bzImage or ELF to boot"), .set = config_add_kernel,
	  .run_list = true,
	  MAN("The Linux kernel to boot: a bzImage (boot protocol 2.12 or newer, 64-bit) or an "
	      "ELF "
	      "vmlinux. Needed; vmm run takes several and runs the command in each.") },
	{ "kernel-decompress", NULL, HELP("by the host"), .beside = true,
	  .set = set_kernel_decompress,
	  MAN("Unpack a bzImage on the host and boot the ELF kernel inside, which is quicker "
	      "than to let the guest do it; off by default, because the kernel's own unpacking "
	      "is what randomizes its address (KASLR). gzip, xz, zstd and lz4, each by its "
	      "library if that is installed. Unpacked kernels are kept in $XDG_CACHE_HOME/vmm, "
	      "or ~/.cache/vmm, up to 512 MiB of them; the folder may be deleted at any "
	      "time.") },
	{ "initrd", "FILE", HELP("initial RAM disk"), TEXT(initrd), .use = CONFIG_PLAIN_ONLY,
	  MAN("The initial RAM disk, as it is handed to the kernel.") },
	{ "pin", "vcpus=0-3,io=4", HELP("threads on CPUs"), .set = config_set_pin,
	  .suboptions = config_pin_suboptions, .beside = true,
	  MAN("Keep threads on CPUs of the host. CPUS are numbers and ranges joined by plus "
	      "signs, as in 0-3+8; each must be one that vmm may use (taskset(1)).") },
	{ "cmdline", "TEXT", HELP("kernel command line; wins"), .set = set_cmdline,
	  .empty_value = true,
	  MAN("Words for the kernel's command line. They come after vmm's own, so they win.") },
	{ "port", "name=N,...", HELP("named port"), .set = config_set_port, .beside = true,
	  .suboptions = config_port_suboptions, .list = true,
	  MAN("A stream of bytes between the guest and the host: a named port of a virtio "
	      "console. It has one of unix=, pipe= and file=. May be repeated, up to 30 "
	      "times.") },
	{ "cpus", "N", HELP("CPUs [1]"), .set = set_cpus, .suboptions = cpus_suboptions,
	  MAN("Virtual CPUs, 1 to 254. The default is 1.") },
	{ "gdb", "SOCKET", HELP("gdb"), .set = set_gdb, .suboptions = gdb_suboptions,
	  .beside = true,
	  MAN("Make this Unix socket, which only the user may use, for gdb: target remote "
	      "SOCKET. The machine stops when gdb comes, and goes on, without breakpoints, when "
	      "it goes.") },
	{ "mem", "SIZE", HELP("memory [512M]"), .set = set_mem, .suboptions = mem_suboptions,
	  MAN("The machine's memory: a number with M, G or T, or a plain number of MiB; at "
	      "least 64M. "
	      "The default is 512M.") },
	{ "vmcore", "FILE", HELP("core at a crash"), TEXT(vmcore), .beside = true,
	  MAN("When the guest's kernel panics, at a triple fault and when KVM cannot go on, "
	      "write "
	      "the machine's memory and registers to this regular file as an ELF core, for gdb "
	      "and "
	      "crash. It is made anew at the start, stays empty if none of these happens, and "
	      "has "
	      "holes where memory is zero.") },
	{ "disk", "PATH", HELP("raw image or block device; may repeat"), .set = config_set_disk,
	  .suboptions = config_disk_suboptions, .function = true, .list = true,
	  MAN("A raw disk image or a block device, as a virtio disk: /dev/vda, /dev/vdb and so "
	      "on in "
	      "the order given. May be repeated, up to 16 times. A comma in the path is "
	      "doubled.") },
	{ "net", "TAP", HELP("tap, user"), .set = config_set_net,
	  .suboptions = config_net_suboptions, .function = true, .list = true,
	  MAN("A tap interface of the host, as a virtio network interface. A tap that belongs "
	      "to the "
	      "user needs no privilege; one that does not exist is made where that is "
	      "permitted, and "
	      "goes with the machine. May be repeated, up to 8 times.\n\n"
	      "The name user stands for no tap but for passt (of the package of this name), "
	      "which needs no privilege: it is started with the machine, ends with it, and "
	      "carries what the guest sends as its user's own connections. The guest has "
	      "10.0.2.15 (by DHCP), the router is 10.0.2.2; from outside come only the ports "
	      "that forward= names, and what the host serves on 127.0.0.1 alone is out of "
	      "reach.") },
	{ "share", "DIR", HELP("a folder, by 9p; may repeat"), .set = config_set_share,
	  .suboptions = config_share_suboptions, .function = true, .list = true,
	  MAN("A folder of the host, as a virtio-9p device, served by a process of its own; "
	      "mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 TAG /mnt in the guest. "
	      "What is mounted below it on the host is not shared: it appears as an empty "
	      "folder or file. May be repeated, up to 8 times. A comma in the path is "
	      "doubled.") },
	{ "serial", "WHERE", HELP("stdio, pty, none or a file"), TEXT(serial),
	  .use = CONFIG_PLAIN_ONLY,
	  MAN("Where the serial port goes: stdio (the default; a terminal goes raw), pty (a new "
	      "pseudo-terminal, whose name is printed), none, or the path of a file that takes "
	      "the "
	      "output. A file of one of those names is written as ./pty.") },
	{ "console", "HOW", HELP("or hvc0"), .set = config_set_console, .function = true,
	  .beside = true, .use = CONFIG_PLAIN_ONLY,
	  MAN("serial, virtio or both: where the guest finds the terminal. serial, the default, "
	      "is the serial port, ttyS0. virtio is a virtio console, hvc0, which costs the "
	      "guest one exit for a line and not for a letter, and follows the terminal's size; "
	      "the serial port then goes nowhere, unless --serial names a file or pty. A "
	      "terminal "
	      "that takes nothing for a second loses bytes of hvc0, since its driver would "
	      "not let the guest go on. both has the output of both; input goes to hvc0 once "
	      "its driver is there. The "
	      "kernel is told by console= on its command line.") },
	{ "rng", "on|off", HELP("entropy [on]"), .set = config_set_rng,
	  .suboptions = config_rng_suboptions, .function = true,
	  MAN("Whether the machine has a virtio entropy device, so that boot never waits for "
	      "randomness. The default is on.") },
	{ "balloon", "size=SIZE,..", HELP("memory back"), .set = config_set_balloon,
	  .suboptions = config_balloon_suboptions, .function = true, .beside = true,
	  MAN("A memory balloon: what the guest puts into it, and takes from it again when it "
	      "would else run out of memory, goes back to the host. vmm ctl sets another size "
	      "later. It has size= or reporting=on. Memory from the host's pool of huge pages "
	      "stays with the machine.") },
	{ "iothreads", "N", HELP("I/O threads [1]"), .set = config_set_iothreads,
	  .suboptions = config_iothreads_suboptions,
	  MAN("Threads that serve the queues of disks and networks, 1 to 64. The default is "
	      "1.") },
	{ "vsock", "cid=N", HELP("sockets"), .set = config_set_vsock, .beside = true,
	  .suboptions = config_vsock_suboptions, .function = true,
	  MAN("A virtio socket device: connections between programs of the guest, in AF_VSOCK, "
	      "and of the host. Modern drivers only.") },
	{ "timeout", "SECONDS", HELP("end with status 124 after that"), .set = set_timeout,
	  MAN("End the machine after this time, with an NMI to each CPU first so that the "
	      "guest's log "
	      "shows what they did. 0, the default, is no limit.") },
	{ "virtio-mmio", "HOW", HELP("no PCI"), .set = config_set_mmio, .beside = true,
	  .use = CONFIG_PLAIN_ONLY,
	  MAN("off, acpi or cmdline: have the machine's devices on virtio's own bus of memory "
	      "and interrupt lines, instead of PCI, for kernels that have none. The kernel is "
	      "told of them by ACPI (LNRO0005), or, if it has no ACPI either, by words on its "
	      "command line (virtio_mmio.device=). Modern drivers only. The default is off.") },
	{ "grace", "SECONDS", HELP("from SIGTERM to the end [10]"), .set = set_grace,
	  MAN("SIGTERM presses the machine's power button; after this time, or at a second "
	      "signal, "
	      "the machine is ended. The default is 10.") },
	{ "strict", "HOW", HELP("check drivers"), .set = config_set_strict, .beside = true,
	  MAN("off, warn, fail or list: whether the guest's drivers are checked against the "
	      "virtio specification. warn "
	      "prints a line for each rule that a driver breaks, once from reset to reset, with "
	      "its section, and --stats counts them; fail puts the device into "
	      "DEVICE_NEEDS_RESET besides. list prints the rules and ends. The default is off, "
	      "and costs nothing.") },
	{ "no-reboot", NULL, HELP("end with status 3 at a reboot"), .set = set_no_reboot,
	  .use = CONFIG_PLAIN_ONLY,
	  MAN("End with status 3 when the guest resets the machine, instead of starting it "
	      "again.") },
	{ "no-sandbox", NULL, HELP("for debugging"), .set = set_no_sandbox, .beside = true,
	  MAN("Keep capabilities and leave all system calls allowed. For debugging vmm "
	      "itself.") },
	{ "stats", "FILE", HELP("write counters as JSON"), TEXT(stats),
	  MAN("At the end of the run, and whenever SIGUSR1 comes, write what was counted to "
	      "this "
	      "file as one JSON object: exits, event threads, and for each queue of each device "
	      "its kicks, batches, buffers, bytes, interrupts and latencies. - is standard "
	      "error. The file is made anew; a pipe gets one object after the other.") },
	{ "boot-timing", NULL, HELP("time the start-up"), .set = set_boot_timing, .beside = true,
	  MAN("Print when start-up did what, in milliseconds since vmm began: a line on "
	      "standard error for each step when the guest starts, and for what the guest "
	      "did first when the run ends.") },
	{ "root", "DIR|IMAGE", HELP("the guest's root [/], under an overlay in RAM"),
	  TEXT(run.root), .use = CONFIG_RUN_ONLY,
	  MAN("The guest's root: a folder of the host, or a disk image with a file system. "
	      "Nothing is written to it; what the guest writes goes to its memory and is gone "
	      "with it. The default is the host's own root.") },
	{ "pack", NULL, HELP("pack the root, for a kernel without 9p"), .set = config_set_pack,
	  .use = CONFIG_RUN_ONLY,
	  MAN("Pack the root's folder, and the current one where it is on another file system, "
	      "into images without a name in $TMPDIR or /var/tmp that the guest reads instead "
	      "of the folders, by mksquashfs of the package squashfs-tools. Done without "
	      "asking where the kernel's modules show that it has no 9p. What one may not read "
	      "is left out, and --rw has no meaning.") },
	{ "rw", "DIR", HELP("what the guest may really write; may repeat"), .set = config_set_rw,
	  .list = true, .use = CONFIG_RUN_ONLY,
	  MAN("A folder of the host that the guest has at the same path and may write to. May "
	      "be repeated, up to 8 times.") },
	{ "user", "USER", HELP("who runs the command [you]"), .use = CONFIG_RUN_ONLY,
	  TEXT(run.user),
	  MAN("Run the command as this user of the guest's root, a name or a number, or as "
	      "USER:GROUP. The default is the user and the groups that call vmm.") },
	{ "env", "NAME[=VALUE]", HELP("environment; may repeat"), .set = config_set_env,
	  .list = true, .use = CONFIG_RUN_ONLY,
	  MAN("Set a variable of the command's environment, or hand yours on. Of yours it has "
	      "HOME, LANG, LC_ALL, LOGNAME, PATH, SHELL, TERM, TZ and USER by default. May be "
	      "repeated.") },
	{ "cwd", "DIR", HELP("where the command starts [here]"), .set = config_set_cwd,
	  .use = CONFIG_RUN_ONLY,
	  MAN("The folder in the guest that the command starts in. The default is the current "
	      "one, at its own path.") },
	{ "modules", "DIR", HELP("of the kernel's modules [by its version]"), TEXT(run.modules),
	  .use = CONFIG_RUN_ONLY,
	  MAN("Where the kernel's modules are: a folder with modules.dep in it. The default is "
	      "/lib/modules/VERSION, or lib/modules/VERSION where the kernel's own folder has "
	      "it.") },
	{ "boot-timeout", "SECONDS", HELP("until its init runs [120]"),
	  .set = config_set_boot_timeout, .use = CONFIG_RUN_ONLY,
	  MAN("End with status 121 when the guest's init does not run after this time. 0 is no "
	      "limit.") },
	{ "fail-on", "warn|oops", HELP("status 122 for such a message of the kernel"),
	  .set = config_set_fail_on, .use = CONFIG_RUN_ONLY,
	  MAN("End with status 122 when the kernel has printed an oops (BUG, KASAN and the like "
	      "too), or with warn also a warning, whatever the command's status. The command "
	      "is let go on to its end.") },
	{ "report", "FILE", HELP("how it went, as JSON"), TEXT(run.report), .use = CONFIG_RUN_ONLY,
	  MAN("Write how the run went to this file, as JSON: verdict, status, times, the "
	      "panic's text, resources and counters; docs/ci.md tells the schema.") },
	{ "junit", "FILE", HELP("the same for CI"), .beside = true, TEXT(run.junit),
	  .use = CONFIG_RUN_ONLY,
	  MAN("Write the verdicts to this file as JUnit's XML, a test case for each kernel.") },
	{ "log", "FILE", HELP("the console with times"), TEXT(run.log), .use = CONFIG_RUN_ONLY,
	  MAN("Write the guest's console to this file, each line behind the seconds since the "
	      "start. With it the kernel says more. Without it the console's last lines are "
	      "shown where a run fails because of the kernel.") },
	{ "jobs", "N", HELP("kernels at a time"), .beside = true, .set = config_set_jobs,
	  .use = CONFIG_RUN_ONLY,
	  MAN("With several kernels, how many machines run at one time. The default is one for "
	      "each CPU.") },
	{ "config", "FILE", HELP("read options from a file"), .flag_only = true,
	  MAN("Read options from a file first; see CONFIGURATION FILE.") },
	{ "control", "PATH", HELP("for vmm ctl"), .set = set_control, .beside = true,
	  MAN("Make this Unix socket, which only the user may use, and take commands from vmm "
	      "ctl: devices come and go, disks grow, and more; see CONTROL. It also makes the "
	      "machine's PCI slots hot-plug slots.") },
	{ "help", NULL, HELP("this page"), .flag_only = true, .action = CONFIG_HELP,
	  MAN("Print a summary.") },
	{ "version", NULL, HELP("version; all devices: ,layout= ,queue-size= .."),
	  .flag_only = true, .action = CONFIG_VERSION, MAN("Print the version.") },
	{ "man", NULL, HELP(""), .flag_only = true, .hidden = true, .action = CONFIG_MAN, MAN("") },
};
const size_t config_option_count = ARRAY_SIZE(config_options);
_Static_assert(ARRAY_SIZE(config_options) <= CONFIG_MAX_OPTIONS, "a bit for each option");
