/* The rules of the strict checker, and how a violation is told and counted: see strict.h. */
#include "virtio/strict.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include "vm/json.h"

_Static_assert(STRICT_RULES <= 64, "a bit for each rule");

const struct strict_rule_text strict_rules[STRICT_RULES] = {
	[STRICT_STATUS_CLEARED] = { "status-cleared", "2.1.1", false,
				    "status bits are only ever added, until a reset" },
	[STRICT_STATUS_ORDER] = { "status-order", "3.1.1", false,
				  "initialization has its order: ACKNOWLEDGE, DRIVER, features, "
				  "FEATURES_OK, queues, DRIVER_OK" },
	[STRICT_AFTER_FAILED] = { "after-failed", "2.1.1", false,
				  "after FAILED comes a reset, nothing else" },
	[STRICT_RESET_UNREAD] = { "reset-unread", "4.1.4.3.2", false,
				  "after a reset the status is read until it is 0" },
	[STRICT_FEATURES_LATE] = { "features-late", "3.1.1", false,
				   "no features are accepted after FEATURES_OK" },
	[STRICT_FEATURES_NOT_OFFERED] = { "features-not-offered", "2.2.1", false,
					  "only offered features are accepted" },
	[STRICT_FEATURES_DEPENDENCY] = { "features-dependency", "2.2.1", false,
					 "features come with those that they need" },
	[STRICT_FEATURES_UNREAD] = { "features-unread", "3.1.1", false,
				     "after FEATURES_OK the status is read, and the bit still "
				     "set" },
	[STRICT_VERSION_1] = { "version-1", "6.1", false,
			       "VERSION_1 is accepted wherever it is offered" },
	[STRICT_LAYOUTS_MIXED] = { "layouts-mixed", "4.1.4.10", false,
				   "from reset to reset a driver uses one interface" },
	[STRICT_CONFIG_EARLY] = { "config-early", "3.1.1", false,
				  "configuration is not written before FEATURES_OK" },
	[STRICT_CONFIG_READONLY] = { "config-readonly", "2.5", false,
				     "only fields that are the driver's are written" },
	[STRICT_CONFIG_TORN] = { "config-torn", "2.5.1", true,
				 "the generation is read again after a field in several parts" },
	[STRICT_REGISTER_WIDTH] = { "register-width", "4.1.3.1, 4.2.2.2", false,
				    "registers are accessed at their width, 64 bits as halves" },
	[STRICT_REGISTER_READONLY] = { "register-readonly", "4.1.4.3.2, 4.2.2.2", false,
				       "registers of the device are not written" },
	[STRICT_WINDOW] = { "window", "4.1.4.9.2", false,
			    "the configuration access window is pointed at aligned parts of "
			    "virtio structures" },
	[STRICT_ISR_UNDER_MSIX] = { "isr-under-msix", "4.1.4.5.2", true,
				    "under MSI-X a queue's interrupt does not need the ISR" },
	[STRICT_VECTOR_RANGE] = { "vector-range", "4.1.5.1.2.2", false,
				  "events are mapped to vectors of the table" },
	[STRICT_VECTOR_UNREAD] = { "vector-unread", "4.1.5.1.2.2", false,
				   "a mapped vector is read back" },
	[STRICT_QUEUE_NONE] = { "queue-none", "4.1.5.1.3", false,
				"queues that do not exist are left alone" },
	[STRICT_QUEUE_SIZE] = { "queue-size", "4.1.4.3.2, 4.2.2.2", false,
				"a queue's size is a power of two up to the device's" },
	[STRICT_QUEUE_LATE] = { "queue-late", "4.1.4.3.2, 4.2.2.2", false,
				"a queue's registers are left alone while it is enabled" },
	[STRICT_QUEUE_UNCONFIGURED] = { "queue-unconfigured", "4.1.4.3.2", false,
					"a queue has its addresses before it is enabled" },
	[STRICT_QUEUE_ALIGNMENT] = { "queue-alignment", "2.7.1, 2.8.10.1", false,
				     "a queue's areas are aligned" },
	[STRICT_QUEUE_ENABLE_ZERO] = { "queue-enable-zero", "4.1.4.3.2", false,
				       "0 is not written to queue_enable" },
	[STRICT_QUEUE_RESET] = { "queue-reset", "2.6.1, 4.1.4.3.2", false,
				 "queue_reset is for who negotiated RING_RESET, and read until "
				 "it is 0" },
	[STRICT_KICK_EARLY] = { "kick-early", "3.1.1", false,
				"no notification is sent before DRIVER_OK" },
	[STRICT_KICK_DISABLED] = { "kick-disabled", "4.1.5.2", false,
				   "notifications name an enabled queue" },
	[STRICT_KICK_SUPPRESSED] = { "kick-suppressed", "2.7.10.1", true,
				     "no notification is sent that the device did not ask for" },
	[STRICT_RING_MEMORY] = { "ring-memory", "2.6", false,
				 "rings, tables and buffers lie in memory" },
	[STRICT_RING_INDEX] = { "ring-index", "2.7.6.1, 2.7.13", false,
				"the available index goes forward, by no more than the size" },
	[STRICT_RING_HEAD] = { "ring-head", "2.7.6, 2.7.5", false,
			       "heads and next are indices of their table" },
	[STRICT_RING_IN_FLIGHT] = { "ring-in-flight", "3.3.1", false,
				    "a buffer is not offered again before it is used" },
	[STRICT_RING_CHANGED] = { "ring-changed", "3.3.1", false,
				  "descriptors of a buffer in flight are left alone" },
	[STRICT_RING_LOOP] = { "ring-loop", "2.7.5.2", false, "a chain does not loop" },
	[STRICT_RING_LONG] = { "ring-long", "2.7.5.3.1, 2.8.19", false,
			       "a chain is no longer than the queue" },
	[STRICT_RING_BYTES] = { "ring-bytes", "2.7.5.2", false,
				"a chain's buffers are at most 4 GiB together" },
	[STRICT_RING_ORDER] = { "ring-order", "2.7.4.2, 2.8.17", false,
				"readable parts of a chain come before writable ones" },
	[STRICT_RING_INDIRECT] = { "ring-indirect", "2.7.5.3.1, 2.8.19", false,
				   "indirect tables: negotiated, last in their chain, whole "
				   "descriptors, not nested" },
	[STRICT_RING_FLAGS] = { "ring-flags", "2.7.5", true,
				"descriptors have no flags that have no meaning" },
	[STRICT_RING_SUPPRESSION] = { "ring-suppression", "2.7.7.1", false,
				      "the available ring's flags are 0 or 1, with EVENT_IDX 0" },
	[STRICT_RING_FORMAT] = { "ring-format", "2.7, 2.8", false,
				 "a ring has the form that was negotiated" },
	[STRICT_BLK_REQUEST] = { "blk-request", "5.2.6", false,
				 "a request has a header, a known type and a status byte" },
	[STRICT_BLK_LENGTH] = { "blk-length", "5.2.6.1", false,
				"reads and writes are of whole sectors, GET_ID of 20 bytes" },
	[STRICT_BLK_CAPACITY] = { "blk-capacity", "5.2.6.1", false,
				  "requests stay within the capacity" },
	[STRICT_BLK_FLUSH] = { "blk-flush", "5.2.6.1", false, "a flush has sector 0 and no data" },
	[STRICT_BLK_RANGES] = { "blk-ranges", "5.2.6.1", false,
				"ranges to discard or zero: whole, not too many, known flags" },
	[STRICT_BLK_FEATURE] = { "blk-feature", "5.2.6", false,
				 "requests are of negotiated features; a read-only disk is not "
				 "written" },
	[STRICT_BLK_FRAMING] = { "blk-framing", "2.7.4.3", false,
				 "a legacy driver without ANY_LAYOUT has header and status in "
				 "descriptors of their own" },
	[STRICT_NET_HEADER] = { "net-header", "5.1.6.2", false,
				"a frame to send is readable and has its header" },
	[STRICT_NET_FLAGS] = { "net-flags", "5.1.6.2.1", false,
			       "flags and num_buffers are 0 but for NEEDS_CSUM, if negotiated, "
			       "within the frame" },
	[STRICT_NET_GSO] = { "net-gso", "5.1.6.2.1", false,
			     "GSO is of a negotiated type, with NEEDS_CSUM and gso_size" },
	[STRICT_NET_LENGTH] = { "net-length", "5.1.4.2", false,
				"frames without GSO are no longer than the MTU" },
	[STRICT_NET_RECEIVE] = { "net-receive", "5.1.6.3.1", true,
				 "receive buffers are writable and large enough" },
	[STRICT_NET_CONTROL] = { "net-control", "5.1.6.5", false,
				 "control commands are of negotiated features, with room for the "
				 "answer" },
	[STRICT_RNG_BUFFER] = { "rng-buffer", "5.4.6.1", false,
				"buffers for entropy are writable alone" },
	[STRICT_CONSOLE_BUFFER] = { "console-buffer", "5.3.6.1", false,
				    "buffers to send are readable, buffers to receive writable, "
				    "and control messages fit" },
	[STRICT_CONSOLE_CONTROL] = { "console-control", "5.3.6.2", false,
				     "control messages are a driver's, and name ports there "
				     "are" },
	[STRICT_BALLOON_BUFFER] = { "balloon-buffer", "5.5.6", false,
				    "arrays of pages and statistics are readable and whole, "
				    "reports writable" },
	[STRICT_BALLOON_PAGE] = { "balloon-page", "5.5.6", false,
				  "pages of RAM go into the balloon, and what leaves it was in "
				  "it" },
	[STRICT_VSOCK_BUFFER] = { "vsock-buffer", "5.10.6.4", false,
				  "packets sent are readable and as long as they say, buffers to "
				  "receive are writable" },
	[STRICT_VSOCK_HEADER] = { "vsock-header", "5.10.6", false,
				  "packets have the CIDs of both ends, a type that was negotiated, "
				  "an operation, and its flags" },
};

int strict_print_rules(void)
{
	for (u32 i = 0; i < STRICT_RULES; i++)
		printf("%-21s %s %s (virtio 1.3, %s)\n", strict_rules[i].name,
		       strict_rules[i].should ? "should" : "must  ", strict_rules[i].text,
		       strict_rules[i].section);
	if (!fflush(stdout) && !ferror(stdout))
		return 0;
	log_line("standard output: %s; write to a place that takes it", strerror(errno));
	return -EIO;
}

int strict_attach(struct virtio_device *device, enum config_strict mode)
{
	struct strict *strict;

	if (mode == CONFIG_STRICT_OFF)
		return 0;
	strict = calloc(1, sizeof(*strict) + device->queue_count * sizeof(strict->queues[0]));
	if (!strict)
		goto fail;
	strict->mode = mode;
	device->strict = strict;
	for (u16 i = 0; i < device->queue_count; i++) {
		struct strict_queue *queue = &strict->queues[i];

		/* By head, or by the driver's own name of a buffer, which may be any. */
		virtio_queue_check(&device->queues[i]);
		queue->sizes = device->queues[i].max_size;
		queue->chains = calloc(queue->sizes, sizeof(*queue->chains));
		if (!queue->chains)
			goto fail;
	}
	return 0;
fail:
	strict_detach(device);
	log_line("%s: no memory to check its driver; leave --strict out", device->name);
	return -ENOMEM;
}

void strict_detach(struct virtio_device *device)
{
	struct strict *strict = device->strict;

	if (!strict)
		return;
	for (u16 i = 0; i < device->queue_count; i++)
		free(strict->queues[i].chains);
	free(strict);
	device->strict = NULL;
}

void strict_report(struct virtio_device *device, const struct virtio_queue *queue,
		   enum strict_rule rule, const char *fmt, ...)
{
	const struct strict_rule_text *text = &strict_rules[rule];
	struct strict *strict = device->strict;
	char what[128], where[24] = "", why[96];
	va_list arguments;

	if (!strict)
		return;
	atomic_fetch_add_explicit(&strict->counts[rule], 1, memory_order_relaxed);
	if (!(atomic_fetch_or(&strict->told, BIT64(rule)) & BIT64(rule))) {
		va_start(arguments, fmt);
		vsnprintf(what, sizeof(what), fmt, arguments);
		va_end(arguments);
		if (queue)
			snprintf(where, sizeof(where), ", queue %u", queue->index);
		/* A guest may go round in resets: each rule at its time. */
		log_limited(&strict->limits[rule], 2, "%s%s: %s: %s; %s (virtio 1.3, %s)",
			    device->name, where, text->name, what, text->text, text->section);
	}
	if (strict->mode == CONFIG_STRICT_FAIL && !text->should) {
		snprintf(why, sizeof(why), "--strict fail: %s", text->name);
		virtio_device_broken(device, why);
	}
}

void strict_read(const struct iovec *iov, u16 count, u32 offset, void *to, u32 size)
{
	u32 copied = 0;

	for (u16 i = 0; i < count && copied < size; i++) {
		size_t length = iov[i].iov_len;

		if (offset >= length) {
			offset -= (u32)length;
			continue;
		}
		length -= offset;
		if (length > size - copied)
			length = size - copied;
		memcpy((u8 *)to + copied, (const u8 *)iov[i].iov_base + offset, length);
		copied += (u32)length;
		offset = 0;
	}
}

void strict_stats(const struct virtio_device *device, struct json *json)
{
	const struct strict *strict = device->strict;

	if (!strict)
		return;
	json_begin_object(json, "strict");
	for (u32 i = 0; i < STRICT_RULES; i++) {
		u64 count = atomic_load_explicit(&strict->counts[i], memory_order_relaxed);

		if (count)
			json_number(json, strict_rules[i].name, count);
	}
	json_end(json);
}
