/*
 * --virtio-mmio: where each device's registers and line are, and the words that tell a kernel of
 * them which has no ACPI. The devices are those of start-up: one that comes later is PCI's. Main
 * thread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "machine/machine.h"
#include "vm/layout.h"

#define WORD_MAX 64

/* Lines of old cards. A kernel without ACPI has the PIC alone; edges, which each end of an
 * interrupt gives anew while a device still asks. */
static const u8 old_lines[] = { 5, 10, 11, 3, 6, 7, 12, 14, 15 };

static u32 lines(const struct config *config)
{
	return config->mmio == CONFIG_MMIO_CMDLINE ? ARRAY_SIZE(old_lines) : LAYOUT_GSI_PCI_COUNT;
}

static u32 line_of(const struct config *config, u32 place)
{
	/* ACPI's are named in firmware/acpi-mmio.c too */
	return config->mmio == CONFIG_MMIO_CMDLINE ? old_lines[place % ARRAY_SIZE(old_lines)]
						   : LAYOUT_GSI_PCI + place % LAYOUT_GSI_PCI_COUNT;
}

static u32 device_count(const struct config *config)
{
	return config->disk_count + config->net_count + config->share_count + config->rng +
	       config->balloon + (config->vsock.cid != 0) +
	       (config->console != CONFIG_CONSOLE_SERIAL) + (config->port_count != 0);
}

u32 machine_mmio_announced(const struct config *config)
{
	return config->mmio == CONFIG_MMIO_ACPI ? device_count(config) : 0;
}

char *machine_mmio_words(const struct config *config)
{
	u32 count = config->mmio == CONFIG_MMIO_CMDLINE ? device_count(config) : 0;
	char *words = calloc(count + 1, WORD_MAX);
	size_t used = 0;

	for (u32 i = 0; words && i < count; i++)
		used += (size_t)snprintf(words + used, WORD_MAX, "virtio_mmio.device=4K@0x%llx:%u ",
					 LAYOUT_MMIO_START + i * LAYOUT_MMIO_STEP,
					 line_of(config, i));
	return words;
}

int machine_mmio_create(struct machine *m, struct machine_device *d, u32 place)
{
	const struct virtio_mmio_config c = {
		.bus = m->bus,
		.irq = m->irq,
		.reactors = m->reactors,
		.device = d->device,
		.address = LAYOUT_MMIO_START + place * LAYOUT_MMIO_STEP,
		.gsi = line_of(m->config, place),
		.first = place < lines(m->config),
	};

	return virtio_mmio_create(&d->mmio, &c);
}
