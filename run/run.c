/* `vmm run` from its options to a status: see run.h. */
#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "run/report.h"
#include "run/run.h"
#include "vm/sandbox.h"

/*
 * A descriptor for the process that started us, which stays that process's when its number is
 * another's. PR_SET_PDEATHSIG, where there is none, is about the thread that started us: some
 * runners have it end long before they do.
 */
static int follow_parent(void)
{
	pid_t parent = getppid();
	int fd = -1;

	if (parent > 1)
		fd = (int)syscall(SYS_pidfd_open, parent, 0);
	if (fd < 0 && parent > 1)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (parent > 1 && getppid() != parent)
		raise(SIGKILL); /* it has ended just now */
	return fd;
}

int run_main(struct config *config, const struct milestones *milestones)
{
	static struct run_result result;
	struct run_files files = { -1, -1, follow_parent() };

	sandbox_end_with(RUN_STATUS_ERROR);
	if (report_open("--report", config->run.report, &files.report) ||
	    report_open("--junit", config->run.junit, &files.junit))
		return RUN_STATUS_ERROR;
	if (config->run.kernel_count > 1)
		return run_matrix(config, &files);
	return run_job(config, milestones, &result, &files);
}
