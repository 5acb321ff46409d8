/* From what is known to a verdict and a status: see verdict.h. */
#include "run/verdict.h"

_Static_assert(RUN_STATUS_ERROR == 120 && RUN_STATUS_NO_INIT == 121 && RUN_STATUS_MESSAGE == 122 &&
		       RUN_STATUS_PANIC == 123 && RUN_STATUS_TIMEOUT == 124,
	       "config_run_statuses[] documents enum run_status");

/* Of a machine that ended while the command ran, or before. */
static enum run_verdict judge_end(const struct run_facts *f)
{
	if (f->interrupted || f->reason == END_SIGNAL)
		return RUN_INTERRUPTED;
	if (f->failed || f->boot_timeout)
		return RUN_NO_INIT;
	if (f->hang)
		return RUN_HANG;
	if (f->reason == END_TIMEOUT)
		return RUN_TIMEOUT;
	if (f->reason == END_QUIT)
		return RUN_INTERRUPTED;
	if (!f->init)
		return RUN_NO_INIT;
	return f->reason == END_TRIPLE_FAULT ? RUN_CRASH : RUN_GONE;
}

static enum run_verdict judge(const struct run_facts *f)
{
	if (f->reason == END_HOST_ERROR || f->reason == END_KVM_ERROR)
		return RUN_ERROR;
	if (f->reason == END_PANIC)
		return f->rootless && !f->init ? RUN_NO_INIT : RUN_PANIC;
	if (!f->ended)
		return judge_end(f);
	if (f->oopsed && f->fail_on >= CONFIG_FAIL_ON_OOPS)
		return RUN_OOPS;
	if (f->warned && f->fail_on >= CONFIG_FAIL_ON_WARN)
		return RUN_WARNING;
	return f->by_signal ? RUN_SIGNAL : RUN_EXIT;
}

enum run_verdict run_judge(const struct run_facts *f, int *status)
{
	enum run_verdict verdict = judge(f);
	u32 signal = f->interrupted ? f->interrupted : f->value;

	switch (verdict) {
	case RUN_EXIT:
		*status = (int)(f->code & 0xff);
		break;
	case RUN_SIGNAL:
		*status = STATUS_SIGNAL + (int)(f->code & 0x7f);
		break;
	case RUN_INTERRUPTED: /* Ctrl-] and `vmm ctl quit` are no signal: as SIGKILL would */
		*status = STATUS_SIGNAL +
			  (f->reason == END_QUIT && !f->interrupted ? 9 : (int)(signal & 0x7f));
		break;
	case RUN_WARNING:
	case RUN_OOPS:
		*status = RUN_STATUS_MESSAGE;
		break;
	case RUN_TIMEOUT:
	case RUN_HANG:
		*status = RUN_STATUS_TIMEOUT;
		break;
	case RUN_PANIC:
	case RUN_CRASH:
	case RUN_GONE:
		*status = RUN_STATUS_PANIC;
		break;
	case RUN_NO_INIT:
		*status = RUN_STATUS_NO_INIT;
		break;
	case RUN_UNKNOWN:
	case RUN_ERROR:
		*status = RUN_STATUS_ERROR;
		break;
	}
	return verdict;
}

const char *run_verdict_word(enum run_verdict verdict)
{
	static const char *const words[] = {
		[RUN_UNKNOWN] = "unknown", [RUN_EXIT] = "exit",
		[RUN_SIGNAL] = "signal",   [RUN_WARNING] = "warning",
		[RUN_OOPS] = "oops",	   [RUN_TIMEOUT] = "timeout",
		[RUN_HANG] = "hang",	   [RUN_PANIC] = "panic",
		[RUN_CRASH] = "crash",	   [RUN_GONE] = "gone",
		[RUN_NO_INIT] = "no-init", [RUN_INTERRUPTED] = "interrupted",
		[RUN_ERROR] = "error",
	};

	return words[verdict];
}

/* What a kernel did, or we, weighs more than any status of a command. */
static int weight(int status)
{
	return status >= RUN_STATUS_ERROR && status <= RUN_STATUS_TIMEOUT ? status + 256 : status;
}

int run_status_worse(int a, int b)
{
	return weight(b) > weight(a) ? b : a;
}
