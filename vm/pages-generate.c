/*
 * Run at build time: writes what vmm says about itself, each ended by a zero byte, from the
 * options' table: --help, vmm run --help, and the man page vmm(1). machine/pages.c takes them in,
 * packed.
 */
#include <stdio.h>

#include "version.h"
#include "vm/config-table.h"
#include "vm/end.h"

/* Exit statuses: text for --help and for the man page. */
struct config_status {
	const char *status;
	const char *help, *man;
};

struct config_key {
	const char *key, *man;
};

#define HELP_WIDTH  79
#define HELP_COLUMN 21

/* vm/end.h's enum end_status; the assertions below keep the text in step. */
static const struct config_status config_statuses[] = {
	{ "0", "power-off", "The guest powered the machine off." },
	{ "1", "host error",
	  "The host lacks something or failed; a line on standard error says what." },
	{ "2", "usage", "The options are wrong; a line on standard error says how." },
	{ "3", "reset", "The guest reset the machine, under --no-reboot." },
	{ "4", "quit", "Ctrl-A x was typed." },
	{ "120", "KVM error", "KVM could not go on; a line on standard error says why." },
	{ "123", "guest panic",
	  "The guest's kernel panicked, as its pvpanic driver or the serial port told." },
	{ "124", "timeout", "The time of --timeout was over." },
	{ "125", "triple fault", "The guest's processor shut down." },
	{ "128+N", "signal N",
	  "Signal N ended vmm, after the grace of --grace or at its second arrival." },
};

_Static_assert(STATUS_OK == 0 && STATUS_HOST_ERROR == 1 && STATUS_USAGE == 2 && STATUS_RESET == 3 &&
		       STATUS_QUIT == 4 && STATUS_KVM_ERROR == 120 && STATUS_PANIC == 123 &&
		       STATUS_TIMEOUT == 124 && STATUS_TRIPLE_FAULT == 125 && STATUS_SIGNAL == 128,
	       "config_statuses[] documents enum end_status");

/* run/verdict.h's enum run_status; the assertions in run/verdict.c keep the text in step. */
static const struct config_status config_run_statuses[] = {
	{ "N", "the command's",
	  "The command's own. If it is one of those below, a line on standard error says so." },
	{ "126", "not executable", "The command cannot be executed." },
	{ "127", "not found", "There is no such command." },
	{ "128+N", "signal N", "The command ended by signal N, or vmm did." },
	{ "2", "usage", "The options are wrong; a line on standard error says how." },
	{ "120", "vmm's error",
	  "The host lacks something or failed, or KVM did; a line on standard error says what." },
	{ "121", "no init",
	  "The kernel never got as far as the command; a line on standard error says what is "
	  "usually missing." },
	{ "122", "oops or warning", "The kernel printed what --fail-on names." },
	{ "123", "panic", "The kernel panicked, or the machine went down while the command ran." },
	{ "124", "timeout", "The time of --timeout was over, or the guest made no progress." },
};

/* The escape keys of the serial terminal. */
static const struct config_key config_keys[] = {
	{ "x", "quit" },
	{ "b", "send a break (Linux's SysRq: the next key is the command)" },
	{ "h", "help (these keys)" },
	{ "Ctrl-A", "send one Ctrl-A" },
};

/* ---- --help ---- */

/* Puts a word (or words that stay together) on the line, or on a new one if it would pass the
 * screen's edge. */
static void put_word(const char *word, int *column, int indent)
{
	int length = (int)strlen(word);

	if (*column > indent && *column + 1 + length > HELP_WIDTH) {
		printf("\n%*s", indent, "");
		*column = indent;
	} else if (*column > indent) {
		putchar(' ');
		*column += 1;
	}
	fputs(word, stdout);
	*column += length;
}

static void put_words(const char *text, int *column, int indent)
{
	char word[80];

	while (*text) {
		size_t length = strcspn(text, " ");

		snprintf(word, sizeof(word), "%.*s", (int)length, text);
		put_word(word, column, indent);
		text += length;
		text += *text == ' ';
	}
}

static void help_option(const struct config_option *option)
{
	const struct config_suboption *sub = option->suboptions;
	char word[80];
	int column;

	if (option->hidden || option->action != CONFIG_RUN || option->beside)
		return;
	column = printf("  --%s %s", option->name, option->argument ? option->argument : "");
	column += printf("%*s", column < HELP_COLUMN ? HELP_COLUMN - column : 1, "");
	put_words(option->help, &column, HELP_COLUMN);
	for (; sub && sub->name; sub++) {
		snprintf(word, sizeof(word), ",%s%s", sub->name, sub->argument_optional ? "" : "=");
		put_word(word, &column, HELP_COLUMN);
	}
	if (option + 1 < config_options + config_option_count && option[1].beside)
		printf("  --%s%s%s  %s", option[1].name, option[1].argument ? " " : "",
		       option[1].argument ? option[1].argument : "", option[1].help);
	putchar('\n');
}

/* --help and its like share a line: the screen is short. */
static void help_actions(void)
{
	int column = printf(" ");

	for (size_t i = 0; i < config_option_count; i++)
		if (config_options[i].action != CONFIG_RUN && !config_options[i].hidden)
			column += printf(" --%s", config_options[i].name);
	printf("%*s", column < HELP_COLUMN ? HELP_COLUMN - column : 1, "");
	for (size_t i = 0, n = 0; i < config_option_count; i++)
		if (config_options[i].action != CONFIG_RUN && !config_options[i].hidden)
			printf("%s%s", n++ ? "; " : "", config_options[i].help);
	putchar('\n');
}

/* "x quit": the key's text without what stands in parentheses. */
static void help_keys(void)
{
	int column = printf("Ctrl-A and");
	char word[80];

	for (size_t i = 0; i < ARRAY_SIZE(config_keys); i++) {
		const char *man = config_keys[i].man, *end = strstr(man, " (");

		snprintf(word, sizeof(word), "%s: %.*s%s", config_keys[i].key,
			 end ? (int)(end - man) : (int)strlen(man), man,
			 i + 1 < ARRAY_SIZE(config_keys) ? "," : "");
		put_word(word, &column, 2);
	}
	putchar('\n');
}

static void help_statuses(const struct config_status *statuses, size_t count)
{
	int column = printf("Status");
	char word[80];

	for (size_t i = 0; i < count; i++) {
		snprintf(word, sizeof(word), "%s %s%s", statuses[i].status, statuses[i].help,
			 i + 1 < count ? "," : "; see vmm(1)");
		put_word(word, &column, 2);
	}
	putchar('\n');
}

static void print_help(void)
{
	puts("Usage: vmm --kernel FILE [OPTION]...  boot a Linux kernel in a virtual machine\n"
	     "       vmm run --help   vmm ctl PATH COMMAND, see vmm(1)   vmm check  the host");
	for (size_t i = 0; i < config_option_count; i++)
		if (config_options[i].use != CONFIG_RUN_ONLY)
			help_option(&config_options[i]);
	help_actions();
	help_keys();
	help_statuses(config_statuses, ARRAY_SIZE(config_statuses));
}

static void print_run_help(void)
{
	int column;

	puts("Usage: vmm run --kernel FILE [OPTION]... [-- COMMAND...]\n"
	     "Boots the kernel on this host's root folder, read-only under a throw-away\n"
	     "overlay, runs the command there (or a shell), and ends with its status.\n"
	     "  --kernel FILE      bzImage or ELF to boot; may repeat, for several verdicts");
	for (size_t i = 0; i < config_option_count; i++)
		if (config_options[i].use == CONFIG_RUN_ONLY)
			help_option(&config_options[i]);
	column = printf("And of vmm itself");
	for (size_t i = 1; i < config_option_count; i++) {
		char word[40];

		if (config_options[i].use != CONFIG_ANYWHERE || config_options[i].hidden)
			continue;
		snprintf(word, sizeof(word), "--%s", config_options[i].name);
		put_word(word, &column, 2);
	}
	putchar('\n');
	help_statuses(config_run_statuses, ARRAY_SIZE(config_run_statuses));
}

/* ---- vmm(1) ---- */

/* Text as roff: nothing in it is a request or an escape; a hyphen stays one that can be searched
 * for. */
static void roff(const char *text)
{
	bool start = true;

	for (; *text; text++) {
		if (start && (*text == '.' || *text == '\''))
			fputs("\\&", stdout);
		start = *text == '\n';
		if (*text == '\\')
			fputs("\\e", stdout);
		else if (*text == '-')
			fputs("\\-", stdout);
		else
			putchar(*text);
	}
}

static void man_line(const char *request, const char *text)
{
	printf("%s", request);
	roff(text);
	putchar('\n');
}

static void man_option(const struct config_option *option)
{
	const struct config_suboption *sub = option->suboptions;

	puts(".TP");
	printf("\\fB\\-\\-");
	roff(option->name);
	printf("\\fR");
	if (option->argument) {
		printf(" \\fI");
		roff(option->argument);
		printf("\\fR");
	}
	for (; sub && sub->name; sub++) {
		printf("[,\\fB%s\\fR%s=\\fI", sub->name, sub->argument_optional ? "[" : "");
		roff(sub->argument);
		printf("\\fR]%s", sub->argument_optional ? "]" : "");
	}
	if (option->function)
		printf("[,\\fIkey\\fR=...]");
	putchar('\n');
	man_line("", option->man);
	if (option->function)
		man_line("", "Its place on the bus follows keys of its own, see DEVICE LAYOUT.");
	if (!option->suboptions)
		return;
	puts(".RS");
	for (sub = option->suboptions; sub->name; sub++) {
		printf(".TP\n\\fB%s\\fR\n", sub->name);
		man_line("", sub->man);
	}
	puts(".RE");
}

static void man_function(void)
{
	puts(".SH DEVICE LAYOUT");
	man_line("", "These keys follow a disk, a network or the entropy device (as in --rng "
		     "on,layout=modern), for measuring, and for trying drivers:");
	for (const struct config_suboption *sub = config_function_suboptions; sub->name; sub++) {
		printf(".TP\n\\fB%s\\fR=\\fI", sub->name);
		roff(sub->argument);
		puts("\\fR");
		man_line("", sub->man);
	}
}

static void man_config_file(void)
{
	puts(".SH CONFIGURATION FILE");
	man_line("", "A file of options, one key = value a line. The keys are the long options "
		     "without their "
		     "dashes, the values are written as on the command line but without quotes. A "
		     "line that "
		     "begins with # is a comment; a # further right belongs to the value.");
	puts(".PP");
	man_line("",
		 "A flag replaces what the file says; --disk and --net add to the file's disks and "
		 "networks, which come first. A switch is turned on by its bare name or = on, and "
		 "off "
		 "by = off; so --no-reboot=off undoes a file's. Paths are taken from the directory "
		 "in "
		 "which vmm was started.");
	puts(".PP\n.nf\n.RS\nkernel = /boot/vmlinuz\ncmdline = root=/dev/vda rw\nmem = 2G\n"
	     "disk = /srv/vm/root.img,direct=on\nnet = tap0\n.RE\n.fi");
}

static void man_terminal(void)
{
	puts(".SH TERMINAL");
	man_line("",
		 "With --serial stdio a terminal on standard input goes raw: every key goes to the "
		 "guest, except Ctrl-A, which takes one more:");
	for (size_t i = 0; i < ARRAY_SIZE(config_keys); i++) {
		puts(".TP");
		printf(".B Ctrl\\-A ");
		man_line("", config_keys[i].key);
		man_line("", config_keys[i].man);
	}
	puts(".PP");
	man_line("", "Any other key after Ctrl-A is sent along with it. Input that is no terminal "
		     "(a pipe, "
		     "a file) is sent as it is. The terminal is put back however vmm ends, except "
		     "by SIGKILL.");
}

static void man_control(void)
{
	static const struct {
		const char *words, *what;
	} commands[] = {
		{ "add disk PATH[,...] | net TAP[,...] | port name=N,... | rng on[,...] | balloon "
		  "size=N[,...] | "
		  "vsock cid=N[,...]",
		  "Add a device, written as for the option of its name, and print its ID." },
		{ "remove ID [--force] [--timeout SECONDS]",
		  "Ask the guest to let go of a device, and wait until it has: 10 seconds, or the "
		  "time given. With --force the device is then taken away, at once with --timeout "
		  "0." },
		{ "resize ID [SIZE] [--shrink]",
		  "Give a disk and its image another size, as in 20G; without one, the disk gets "
		  "the size that its file or block device has now. A smaller one needs --shrink." },
		{ "list [--json]", "Show the devices." },
		{ "devices [--json]",
		  "Show what each virtio device is doing: status, layout, features, interrupts, "
		  "queues." },
		{ "stats", "Print what --stats writes." },
		{ "power", "Press the power button." },
		{ "quit", "End the machine, with status 4." },
		{ "nmi", "Send every vCPU an NMI: a guest that hangs may say where." },
		{ "balloon [SIZE]",
		  "Set what the guest shall give up, as in 512M; without a size, print that, "
		  "what it has given up, and statistics of its memory." },
		{ "announce ID", "Have the guest make an interface known on its network." },
	};

	puts(".SH CONTROL");
	man_line("",
		 "vmm ctl PATH COMMAND commands a machine that was started with --control PATH. "
		 "Files and taps are opened by vmm ctl, with the rights of whoever calls it, and "
		 "handed over. The guest brings a new device up by its ACPI hot-plug driver; there "
		 "may be 31 at a time, those of the start included.");
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		puts(".TP");
		man_line(".B ", commands[i].words);
		man_line("", commands[i].what);
	}
	puts(".PP");
	man_line("", "The exit status is 0, 1 when the command failed, or 2 for wrong words.");
}

static void man_statuses(const struct config_status *statuses, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		puts(".TP");
		man_line(".B ", statuses[i].status);
		man_line("", statuses[i].man);
	}
}

static void man_run(void)
{
	puts(".SH RUN");
	man_line("",
		 "vmm run boots the kernel with the host's root folder as the guest's root, "
		 "read-only "
		 "under an overlay whose upper half is the guest's memory, and runs the command "
		 "there: in the current folder, as the calling user, with its terminal, or its "
		 "pipes. "
		 "Without a command it runs a shell. Terminals: Ctrl-] three times within a second "
		 "ends the machine. Beside the options above that say nothing else there are:");
	for (size_t i = 0; i < config_option_count; i++)
		if (config_options[i].use == CONFIG_RUN_ONLY)
			man_option(&config_options[i]);
	puts(".PP");
	man_line("", "The kernel needs virtio-pci, virtio-console, 9p over virtio and overlayfs, "
		     "built in or as modules that are found. The exit status is:");
	man_statuses(config_run_statuses, ARRAY_SIZE(config_run_statuses));
}

static void man_status(void)
{
	puts(".SH EXIT STATUS");
	man_statuses(config_statuses, ARRAY_SIZE(config_statuses));
	puts(".PP");
	man_line("", "A byte that the guest writes to I/O port 0xf4 ends the machine with that "
		     "byte as the "
		     "status.");
}

static void print_man(void)
{
	puts(".TH VMM 1 \"\" \"vmm " VMM_VERSION "\" \"User Commands\"\n"
	     ".SH NAME\n"
	     "vmm \\- boot a Linux kernel in a virtual machine\n"
	     ".SH SYNOPSIS\n"
	     ".B vmm \\-\\-kernel\n.I FILE\n[\\fIOPTION\\fR]...\n"
	     ".br\n"
	     ".B vmm run \\-\\-kernel\n.I FILE\n[\\fIOPTION\\fR]... [\\-\\- \\fICOMMAND\\fR...]\n"
	     ".br\n"
	     ".B vmm check\n"
	     ".br\n"
	     ".B vmm ctl\n.I PATH COMMAND\n"
	     ".SH DESCRIPTION");
	man_line(
		"",
		"vmm turns /dev/kvm into a running Linux machine: it boots a kernel, gives it "
		"virtio "
		"disks and networks, and becomes its console. vmm check says what this host offers "
		"and lacks, and what mends it.");
	puts(".PP");
	man_line("", "Once the guest runs, vmm holds no capabilities and may use only the system "
		     "calls it "
		     "needs.");
	puts(".SH OPTIONS");
	man_line("",
		 "An option's value is the next word, or follows after an equals sign (--mem=4G). "
		 "Parts "
		 "of a value are separated by commas; a comma that belongs to a value is doubled.");
	for (size_t i = 0; i < config_option_count; i++)
		if (config_options[i].use != CONFIG_RUN_ONLY && !config_options[i].hidden)
			man_option(&config_options[i]);
	man_run();
	man_function();
	man_config_file();
	man_terminal();
	man_control();
	puts(".SH SIGNALS");
	man_line("", "SIGTERM presses the machine's power button, which a Linux guest takes as an "
		     "order to "
		     "shut down; a second signal, or the end of the grace, ends vmm.");
	man_status();
	puts(".SH EXAMPLES\n.nf");
	man_line("", "vmm --kernel bzImage --disk root.img --cmdline root=/dev/vda");
	man_line("", "vmm --kernel bzImage --cpus 4 --mem 4G --disk a,,b.img,direct=on --net tap0");
	puts(".fi\n.SH SEE ALSO");
	man_line("", "ip-tuntap(8), mke2fs(8), qemu-img(1)");
}

int main(void)
{
	print_help();
	putchar('\0');
	print_run_help();
	putchar('\0');
	print_man();
	putchar('\0');
	return fflush(stdout) || ferror(stdout);
}
