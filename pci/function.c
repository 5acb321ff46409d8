/*
 * A function's config space (PCI Local Bus 3.0, chapter 6): the type 0 header with its write masks,
 * capabilities, and what follows from a write to the command register. Accesses on vCPU threads
 * under the function's lock.
 */
#include "pci/pci-internal.h"

#include <errno.h>
#include <stdlib.h>

#define COMMAND_BITS (PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE)

void pci_function_init(struct pci_function *function, const struct pci_id *id)
{
	pthread_mutexattr_t recursive;
	u8 *config = function->config;
	u16 command = COMMAND_BITS;

	pthread_mutexattr_init(&recursive);
	pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&function->lock, &recursive);
	pthread_mutexattr_destroy(&recursive);

	le16_store(config + PCI_VENDOR_ID, id->vendor);
	le16_store(config + PCI_DEVICE_ID, id->device);
	config[PCI_REVISION_ID] = id->revision;
	config[PCI_CLASS_PROG] = (u8)id->class_code;
	le16_store(config + PCI_CLASS_DEVICE, (u16)(id->class_code >> 8));
	config[PCI_HEADER_TYPE] = PCI_HEADER_TYPE_NORMAL;
	le16_store(config + PCI_SUBSYSTEM_VENDOR_ID, id->subsystem_vendor);
	le16_store(config + PCI_SUBSYSTEM_ID, id->subsystem);
	config[PCI_INTERRUPT_PIN] = 1;

	for (unsigned int i = 0; i < PCI_BARS; i++) {
		if (function->bars[i].kind == PCI_BAR_IO)
			command |= PCI_COMMAND_IO;
		else if (function->bars[i].kind != PCI_BAR_NONE)
			command |= PCI_COMMAND_MEMORY;
	}
	le16_store(function->writable + PCI_COMMAND, command);
	function->writable[PCI_CACHE_LINE_SIZE] = 0xff;
	function->writable[PCI_INTERRUPT_LINE] = 0xff;
	pci_bars_init(function);
	function->config_end = PCI_STD_HEADER_SIZEOF;
	function->last_capability = PCI_CAPABILITY_LIST;
}

void pci_function_destroy(struct pci_function *function)
{
	pci_msix_destroy(function);
	free(function->doorbells);
	function->doorbells = NULL;
	function->doorbell_count = 0;
	pthread_mutex_destroy(&function->lock);
}

int pci_capability_add(struct pci_function *function, u8 id, u8 size)
{
	u8 offset = function->config_end;
	unsigned int end = ALIGN_UP((unsigned int)offset + size, 4u);

	/* config_end is a byte: the very last dword stays unused */
	if (size < PCI_CAP_SIZEOF || end >= PCI_CONFIG_SIZE)
		return -ENOSPC;
	/* appended at the end of the list: the driver meets them in the order they were added */
	function->config[function->last_capability] = offset;
	function->last_capability = (u8)(offset + PCI_CAP_LIST_NEXT);
	function->config[offset + PCI_CAP_LIST_ID] = id;
	function->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
	function->config_end = (u8)end;
	return offset;
}

bool pci_bus_master(const struct pci_function *function)
{
	return function->command & PCI_COMMAND_MASTER;
}

/* Interrupt Status (6.2.3) shows what the function wants, whether or not INTx is disabled. */
static void refresh_status(struct pci_function *function)
{
	bool wants = function->interrupt_status && !pci_msix_enabled(function) &&
		     function->interrupt_status(function);

	function->config[PCI_STATUS] &= (u8)~PCI_STATUS_INTERRUPT;
	if (wants)
		function->config[PCI_STATUS] |= PCI_STATUS_INTERRUPT;
}

u32 pci_config_read(struct pci_function *function, u32 offset, u32 size)
{
	u8 bytes[4] = { 0 };

	/* Beyond the conventional 256 bytes: no extended capabilities, all zero. */
	if (offset >= PCI_CONFIG_SIZE || size > PCI_CONFIG_SIZE - offset)
		return 0;
	pthread_mutex_lock(&function->lock);
	if (function->ops->config_read)
		function->ops->config_read(function, offset, size);
	if (pci_overlaps(offset, size, PCI_STATUS, 2))
		refresh_status(function);
	memcpy(bytes, function->config + offset, size);
	pthread_mutex_unlock(&function->lock);
	return le32_load(bytes);
}

/* The command register may have a new value: decoding is pci_bars_update()'s. */
static void command_written(struct pci_function *function)
{
	u16 old = function->command;
	u16 command = le16_load(function->config + PCI_COMMAND);

	function->command = command;
	if ((old ^ command) & PCI_COMMAND_MASTER && function->ops->bus_master)
		function->ops->bus_master(function, command & PCI_COMMAND_MASTER);
	if ((old ^ command) & PCI_COMMAND_INTX_DISABLE)
		pci_intx_changed(function);
}

void pci_config_write(struct pci_function *function, u32 offset, u32 size, u32 value)
{
	if (offset >= PCI_CONFIG_SIZE || size > PCI_CONFIG_SIZE - offset)
		return;
	pthread_mutex_lock(&function->lock);
	for (u32 i = 0; i < size; i++) {
		u8 mask = function->writable[offset + i];
		u8 *byte = &function->config[offset + i];

		*byte = (u8)((*byte & ~mask) | ((value >> 8 * i) & mask));
	}
	if (pci_overlaps(offset, size, PCI_COMMAND, 2))
		command_written(function);
	if (pci_overlaps(offset, size, PCI_COMMAND, 2) ||
	    pci_overlaps(offset, size, PCI_BASE_ADDRESS_0, 4 * PCI_BARS))
		pci_bars_update(function);
	pci_msix_control_written(function, offset, size);
	if (function->ops->config_written)
		function->ops->config_written(function, offset, size);
	pthread_mutex_unlock(&function->lock);
}

void pci_function_reset(struct pci_function *function)
{
	pthread_mutex_lock(&function->lock);
	pci_msix_reset(function);
	memcpy(function->config, function->power_on, PCI_CONFIG_SIZE);
	command_written(function);
	pci_bars_update(function);
	pthread_mutex_unlock(&function->lock);
}
