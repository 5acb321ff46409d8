/*
 * INTA of each function (PCI Local Bus 3.0, 2.2.6 and 6.2.2): a share of a level-triggered line. It
 * is raised by an eventfd; KVM lowers it at the guest's end of interrupt and tells, and who still
 * wants it raises it again.
 */
#include "pci/pci-internal.h"

#include <errno.h>
#include <sys/eventfd.h>

bool pci_intx_allowed(const struct pci_function *function)
{
	return !pci_msix_enabled(function) && !(function->command & PCI_COMMAND_INTX_DISABLE);
}

int pci_intx_fd(const struct pci_function *function)
{
	return function->host ? irq_shared_fd(function->host->config.irq, function->gsi) : -1;
}

static bool intx_asserted(void *owner)
{
	struct pci_function *function = owner;

	return pci_intx_allowed(function) && function->interrupt_status &&
	       function->interrupt_status(function);
}

void pci_intx_changed(struct pci_function *function)
{
	int fd = pci_intx_fd(function);

	if (fd >= 0 && intx_asserted(function))
		eventfd_write(fd, 1);
}

int pci_intx_add(struct pci_function *function)
{
	if (!function->config[PCI_INTERRUPT_PIN])
		return 0;
	function->share = (struct irq_share){ .asserted = intx_asserted, .owner = function };
	return irq_shared_add(function->host->config.irq, function->gsi, &function->share);
}

void pci_intx_remove(struct pci_function *function)
{
	if (function->config[PCI_INTERRUPT_PIN])
		irq_shared_remove(function->host->config.irq, function->gsi, &function->share);
}

static void line_resampled(struct reactor_event *event)
{
	struct pci_line *line = container_of(event, struct pci_line, resample);

	irq_shared_resampled(line->host->config.irq, line->gsi);
}

static bool line_asserted(void *owner)
{
	(void)owner;
	return false;
}

int pci_intx_watch(struct pci_function *function, struct reactors *reactors)
{
	struct pci_host *host = function->host;
	struct pci_line *line;
	int error;

	if (!host || !function->config[PCI_INTERRUPT_PIN])
		return -EINVAL;
	line = &host->lines[function->gsi - LAYOUT_GSI_PCI];
	if (line->watched)
		return 0;
	line->share = (struct irq_share){ .asserted = line_asserted, .owner = line };
	error = irq_shared_add(host->config.irq, line->gsi, &line->share);
	if (error)
		return error;
	line->resample.fired = line_resampled;
	line->resample.fd = irq_shared_resample_fd(host->config.irq, line->gsi);
	error = reactor_event_attach(reactors_get(reactors, 0), &line->resample);
	if (error) {
		irq_shared_remove(host->config.irq, line->gsi, &line->share);
		return error;
	}
	line->watched = true;
	return 0;
}
