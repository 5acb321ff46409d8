/*
 * vmm: from arguments to exit status. What a machine is made of stands in machine/machine.c.
 */
#include "backends/terminal.h"
#include "machine/ctl.h"
#include "machine/machine.h"
#include "machine/pages.h"
#include "run/run.h"
#include "virtio/strict.h"
#include "vm/host-check.h"

int main(int argc, char **argv)
{
	struct milestones milestones;
	struct config config;
	int status = STATUS_OK;

	milestones_begin(&milestones);
	if (terminal_hold_standard_files())
		return STATUS_HOST_ERROR;
	if (argc > 1 && !strcmp(argv[1], "ctl"))
		return ctl_main(argc, argv);
	if (config_parse(&config, argc, argv))
		return STATUS_USAGE;
	milestones_mark(&milestones, "options parsed");
	switch (config.action) {
	case CONFIG_RUN:
		status = config.run.asked ? run_main(&config, &milestones)
					  : machine_session(&config, &milestones, NULL);
		break;
	case CONFIG_CHECK:
		status = host_check() ? STATUS_HOST_ERROR : STATUS_OK;
		break;
	case CONFIG_RULES:
		status = strict_print_rules() ? STATUS_HOST_ERROR : STATUS_OK;
		break;
	case CONFIG_HELP:
		status = page_print(config.run.asked ? PAGE_RUN_HELP : PAGE_HELP)
				 ? STATUS_HOST_ERROR
				 : STATUS_OK;
		break;
	case CONFIG_VERSION:
		status = page_print(PAGE_VERSION) ? STATUS_HOST_ERROR : STATUS_OK;
		break;
	case CONFIG_MAN:
		status = page_print(PAGE_MAN) ? STATUS_HOST_ERROR : STATUS_OK;
		break;
	}
	config_free(&config);
	return status;
}
