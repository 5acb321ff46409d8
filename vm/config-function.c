/*
 * What --disk, --net and --rng have in common: how the device stands on its bus; and what is
 * expected of its driver. Main thread.
 */
#include <errno.h>
#include <stdlib.h>

#include "vm/config-table.h"
#include "vm/log.h"

static int set_layout(struct config_parser *parser, void *target, const char *value)
{
	static const char *const names[] = { [CONFIG_LAYOUT_TRANSITIONAL] = "transitional",
					     [CONFIG_LAYOUT_MODERN] = "modern",
					     [CONFIG_LAYOUT_LEGACY] = "legacy" };
	struct config_function *function = target;

	for (unsigned int i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(value, names[i])) {
			function->layout = (enum config_layout)i;
			return 0;
		}
	return config_error(parser, NULL,
			    "layout=%.40s: no such layout; give transitional, modern or legacy",
			    value);
}

static int set_place(struct config_parser *parser, const char *what, const char *value,
		     enum config_place *to)
{
	if (!strcmp(value, "pio"))
		*to = CONFIG_PLACE_PIO;
	else if (!strcmp(value, "mmio"))
		*to = CONFIG_PLACE_MMIO;
	else
		return config_error(parser, NULL, "%s=%.40s: no such place; give pio or mmio", what,
				    value);
	return 0;
}

static int set_isr(struct config_parser *parser, void *target, const char *value)
{
	struct config_function *function = target;

	return set_place(parser, "isr", value, &function->isr);
}

static int set_notify(struct config_parser *parser, void *target, const char *value)
{
	struct config_function *function = target;

	function->notify_exact = !strcmp(value, "mmio-exact");
	return set_place(parser, "notify", function->notify_exact ? "mmio" : value,
			 &function->notify);
}

static int set_vectors(struct config_parser *parser, void *target, const char *value)
{
	struct config_function *function = target;
	u64 n;
	int err = config_number(parser, "vectors", value, 0, CONFIG_MAX_VECTORS, &n);

	if (err)
		return err;
	function->vectors_given = true;
	function->vectors = (u16)n;
	return 0;
}

static int set_queue_size(struct config_parser *parser, void *target, const char *value)
{
	struct config_function *function = target;
	u64 n;
	int err = config_number(parser, "queue-size", value, 2, parser->queue_size_max, &n);

	if (err)
		return err;
	if (n & (n - 1))
		return config_error(parser, NULL,
				    "queue-size=%.40s: not a power of two; give 2 to %u", value,
				    parser->queue_size_max);
	function->queue_size = (u16)n;
	return 0;
}

int config_set_strict(struct config_parser *parser, const char *value)
{
	static const char *const names[] = { [CONFIG_STRICT_OFF] = "off",
					     [CONFIG_STRICT_WARN] = "warn",
					     [CONFIG_STRICT_FAIL] = "fail",
					     [CONFIG_STRICT_LIST] = "list" };

	for (unsigned int i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(value, names[i])) {
			parser->config->strict = (enum config_strict)i;
			return 0;
		}
	return config_error(parser, value, "no such mode; give off, warn, fail or list");
}

int config_set_mmio(struct config_parser *parser, const char *value)
{
	static const char *const names[] = { [CONFIG_MMIO_OFF] = "off",
					     [CONFIG_MMIO_ACPI] = "acpi",
					     [CONFIG_MMIO_CMDLINE] = "cmdline" };

	for (unsigned int i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(value, names[i])) {
			parser->config->mmio = (enum config_mmio)i;
			return 0;
		}
	return config_error(parser, value, "no such announcement; give off, acpi or cmdline");
}

/* What is wished for PCI is no wish for MMIO. */
static bool wants_pci(const struct config_function *function)
{
	return function->layout == CONFIG_LAYOUT_LEGACY || function->isr == CONFIG_PLACE_PIO ||
	       function->notify == CONFIG_PLACE_PIO || function->vectors_given ||
	       function->notify_data;
}

int config_check_mmio(const struct config *config)
{
	bool wanted = wants_pci(&config->rng_function) || wants_pci(&config->console_function) ||
		      wants_pci(&config->balloon_function) || wants_pci(&config->vsock.function);

	for (u32 i = 0; i < config->disk_count; i++)
		wanted |= wants_pci(&config->disks[i].function);
	for (u32 i = 0; i < config->net_count; i++)
		wanted |= wants_pci(&config->nets[i].function);
	for (u32 i = 0; i < config->share_count; i++)
		wanted |= wants_pci(&config->shares[i].function);
	if (config->mmio == CONFIG_MMIO_OFF || !wanted)
		return 0;
	log_line("--virtio-mmio: there are no vectors, I/O ports, legacy registers and doorbells "
		 "for each queue without PCI; leave vectors=, isr=pio, notify=pio, layout=legacy "
		 "and notify-data out");
	return -EINVAL;
}

static int set_packed(struct config_parser *parser, void *target, const char *value)
{
	struct config_function *function = target;

	return config_bool(parser, "packed", value, &function->packed);
}

static int set_in_order(struct config_parser *parser, void *target, const char *value)
{
	struct config_function *function = target;

	return config_bool(parser, "in-order", value, &function->in_order);
}

static int set_notify_data(struct config_parser *parser, void *target, const char *value)
{
	struct config_function *function = target;

	return config_bool(parser, "notify-data", value, &function->notify_data);
}

int config_check_function(const struct config_parser *parser)
{
	const struct config_function *function = parser->function;

	if (function->layout == CONFIG_LAYOUT_LEGACY &&
	    (function->isr == CONFIG_PLACE_MMIO || function->notify == CONFIG_PLACE_MMIO))
		return config_error(parser, NULL,
				    "layout=legacy has its ISR and its doorbell in I/O space "
				    "alone; leave %s=mmio out",
				    function->isr == CONFIG_PLACE_MMIO ? "isr" : "notify");
	if (function->layout == CONFIG_LAYOUT_LEGACY &&
	    (function->packed || function->in_order || function->notify_data))
		return config_error(parser, NULL,
				    "layout=legacy has none of the features of virtio 1.1; leave "
				    "%s out",
				    function->packed	 ? "packed"
				    : function->in_order ? "in-order"
							 : "notify-data");
	/* 4.1.4.4.1: four bytes, where a port has room for two */
	if (function->notify_data && function->notify == CONFIG_PLACE_PIO)
		return config_error(parser, NULL,
				    "notify-data needs doorbells in memory; leave notify=pio out");
	return 0;
}

const struct config_suboption config_function_suboptions[] = {
	{ "layout", "transitional|modern|legacy", .shared = true, .set = set_layout,
	  MAN("Which interfaces of virtio over PCI the device has. transitional, the default, "
	      "is both at once; modern has the IDs and structures of virtio 1.0 and later "
	      "alone, and no I/O region unless isr= or notify= ask for one; legacy has the "
	      "registers from before 1.0 alone.") },
	{ "isr", "pio|mmio", .shared = true, .set = set_isr,
	  MAN("Where modern drivers find the ISR register: in I/O space or in memory. By "
	      "default in both, I/O first; with layout=modern in memory.") },
	{ "notify", "pio|mmio|mmio-exact", .shared = true, .set = set_notify,
	  MAN("Where modern drivers find the doorbells: one I/O port for all queues, or an "
	      "address in memory for each. By default in both, I/O first unless there are "
	      "many queues; with layout=modern in memory. mmio-exact has KVM match the write's "
	      "length too, which on Intel is slower.") },
	{ "vectors", "N", .shared = true, .set = set_vectors,
	  MAN("MSI-X vectors, 0 to 512; 0 leaves the interrupt line alone. The default is one "
	      "for each queue and one for the configuration.") },
	{ "queue-size", "N", .shared = true, .set = set_queue_size,
	  MAN("Entries of each virtqueue, a power of two up to the default: 256 for disks "
	      "and vsock, 512 for networks, 64 for entropy, 128 for others.") },
	{ "packed", "on|off", .argument_optional = true, .shared = true, .set = set_packed,
	  MAN("Offer virtqueues of the packed format, which drivers take if they know it. The "
	      "default is off.") },
	{ "in-order", "on|off", .argument_optional = true, .shared = true, .set = set_in_order,
	  MAN("Offer to use buffers in the order in which the driver made them available. What "
	      "is done early then waits for what is not. The default is off.") },
	{ "notify-data", "on|off", .argument_optional = true, .shared = true,
	  .set = set_notify_data,
	  MAN("Offer drivers to say in a notification how far they are. The doorbells are in "
	      "memory then. The default is off.") },
	{ 0 },
};
