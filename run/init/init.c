/*
 * Process 1: from the kernel's jump to the command's status.
 */
#include "run/init/init.h"

#define SIGNAL_CHILD 17

void run(void);

static void start_and_follow(struct conf *conf)
{
	unsigned long out = 0, err = 0;
	char a[NUMBER_ROOM], b[NUMBER_ROOM];
	struct command command;
	int status = command_start(conf, &command);
	const char *full;

	if (status < 0)
		return;
	if (!status) {
		say(RUN_LINE_START, NULL);
		status = pump(&command, &out, &err);
	} else {
		status <<= 8;
	}
	full = status ? full_folder(conf) : NULL;
	if (full)
		say(RUN_LINE_FULL " ", full, NULL);
	shares_unmount(conf);
	say(RUN_LINE_OUTPUT " ", decimal(a, out), " ", decimal(b, err), NULL);
	/* as wait4() has it: a signal in the low bits, else a status above them */
	if (status & 0x7f)
		say(RUN_LINE_SIGNAL " ", decimal(a, (unsigned long)status & 0x7f), NULL);
	else
		say(RUN_LINE_EXIT " ", decimal(a, (unsigned long)status >> 8 & 0xff), NULL);
}

__attribute__((used)) void run(void)
{
	static struct conf conf;
	unsigned long mask = 1ul << (SIGNAL_CHILD - 1);
	const char *failed;

	SYS(rt_sigprocmask, 0 /* SIG_BLOCK */, &mask, NULL, sizeof(mask), 0);
	mount_early();
	conf_read(&conf);
	failed = load_modules(&conf);
	ports_open();
	say(RUN_LINE_INIT, NULL);
	if (failed) {
		say_error(RUN_ERROR_MODULE, failed, NULL);
	} else {
		root_enter(&conf);
		shares_mount(&conf);
		say(RUN_LINE_ROOT, NULL);
		start_and_follow(&conf);
	}
	power_off();
}

/* The kernel enters here with the stack aligned; a function expects it as behind a call. */
__asm__(".globl _start\n"
	"_start:\n"
	"	xor %ebp, %ebp\n"
	"	call run\n"
	"	hlt\n");
