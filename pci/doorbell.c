/*
 * Doorbells: ioeventfds that stand where their BAR stands. Whatever KVM does not take (an address
 * that another function's doorbell holds already, a width it does not match) arrives as an exit in
 * bar_write() and means the same there.
 */
#include "pci/pci-internal.h"

#include <errno.h>
#include <stdlib.h>
#include "vm/log.h"

int pci_doorbell_add(struct pci_function *function, const struct pci_doorbell *doorbell)
{
	struct pci_doorbell *grown;

	if (function->doorbell_count == PCI_MAX_DOORBELLS)
		return -ENOSPC;
	if (doorbell->bar >= PCI_BARS || doorbell->offset >= function->bars[doorbell->bar].size ||
	    (!doorbell->length && function->bars[doorbell->bar].kind == PCI_BAR_IO))
		return -EINVAL;
	grown = realloc(function->doorbells, (function->doorbell_count + 1) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	function->doorbells = grown;
	grown[function->doorbell_count] = *doorbell;
	grown[function->doorbell_count++].live = false;
	return 0;
}

static struct bus_doorbell bus_form(const struct pci_function *function,
				    const struct pci_doorbell *doorbell)
{
	const struct pci_bar *bar = &function->bars[doorbell->bar];
	u32 length = doorbell->length;

	/* Without the any-length form: two bytes, what drivers write (virtio 1.3, 4.1.5.2). */
	if (!length && !function->host->config.any_length_doorbells)
		length = 2;
	return (struct bus_doorbell){
		.space = bar->kind == PCI_BAR_IO ? BUS_PIO : BUS_MMIO,
		.address = bar->address + doorbell->offset,
		.length = length,
		.match = doorbell->match,
		.value = doorbell->value,
		.fd = doorbell->fd,
	};
}

void pci_doorbells_connect(struct pci_function *function, unsigned int bar)
{
	static struct log_limit limit;

	for (u32 i = 0; i < function->doorbell_count; i++) {
		struct pci_doorbell *doorbell = &function->doorbells[i];
		struct bus_doorbell form;
		int error;

		if (doorbell->bar != bar || doorbell->live)
			continue;
		form = bus_form(function, doorbell);
		error = bus_doorbell_add(function->host->config.bus, &form);
		doorbell->live = !error;
		/* -EEXIST: the driver put two functions at one place; exits still reach this one's
		 * BAR. */
		if (error && error != -EEXIST)
			log_limited(&limit, 10,
				    "%s: doorbell at 0x%llx: %s; the queue is slower without it",
				    function->name, (unsigned long long)form.address,
				    strerror(-error));
	}
}

void pci_doorbells_disconnect(struct pci_function *function, unsigned int bar)
{
	for (u32 i = 0; i < function->doorbell_count; i++) {
		struct pci_doorbell *doorbell = &function->doorbells[i];
		struct bus_doorbell form;

		if (doorbell->bar != bar || !doorbell->live)
			continue;
		form = bus_form(function, doorbell);
		bus_doorbell_remove(function->host->config.bus, &form);
		doorbell->live = false;
	}
}
