/*
 * The strict checker: tells the author of a driver which rule of the virtio specification the
 * driver has broken. A rule is checked where the device can see it, and costs nothing while nobody
 * asked: registers test one pointer, a ring's checks are a format of their own around the real one
 * (vq-strict.c), chosen when the queue starts.
 *
 * A violation is one line the first time since the device's last reset, and counted each time.
 */
#ifndef VIRTIO_STRICT_H
#define VIRTIO_STRICT_H

#include "virtio/device.h"
#include "vm/config.h"

/* In the order of strict_rules[]. */
enum strict_rule {
	STRICT_STATUS_CLEARED,
	STRICT_STATUS_ORDER,
	STRICT_AFTER_FAILED,
	STRICT_RESET_UNREAD,
	STRICT_FEATURES_LATE,
	STRICT_FEATURES_NOT_OFFERED,
	STRICT_FEATURES_DEPENDENCY,
	STRICT_FEATURES_UNREAD,
	STRICT_VERSION_1,
	STRICT_LAYOUTS_MIXED,
	STRICT_CONFIG_EARLY,
	STRICT_CONFIG_READONLY,
	STRICT_CONFIG_TORN,
	STRICT_REGISTER_WIDTH,
	STRICT_REGISTER_READONLY,
	STRICT_WINDOW,
	STRICT_ISR_UNDER_MSIX,
	STRICT_VECTOR_RANGE,
	STRICT_VECTOR_UNREAD,
	STRICT_QUEUE_NONE,
	STRICT_QUEUE_SIZE,
	STRICT_QUEUE_LATE,
	STRICT_QUEUE_UNCONFIGURED,
	STRICT_QUEUE_ALIGNMENT,
	STRICT_QUEUE_ENABLE_ZERO,
	STRICT_QUEUE_RESET,
	STRICT_KICK_EARLY,
	STRICT_KICK_DISABLED,
	STRICT_KICK_SUPPRESSED,
	STRICT_RING_MEMORY,
	STRICT_RING_INDEX,
	STRICT_RING_HEAD,
	STRICT_RING_IN_FLIGHT,
	STRICT_RING_CHANGED,
	STRICT_RING_LOOP,
	STRICT_RING_LONG,
	STRICT_RING_BYTES,
	STRICT_RING_ORDER,
	STRICT_RING_INDIRECT,
	STRICT_RING_FLAGS,
	STRICT_RING_SUPPRESSION,
	STRICT_RING_FORMAT,
	STRICT_BLK_REQUEST,
	STRICT_BLK_LENGTH,
	STRICT_BLK_CAPACITY,
	STRICT_BLK_FLUSH,
	STRICT_BLK_RANGES,
	STRICT_BLK_FEATURE,
	STRICT_BLK_FRAMING,
	STRICT_NET_HEADER,
	STRICT_NET_FLAGS,
	STRICT_NET_GSO,
	STRICT_NET_LENGTH,
	STRICT_NET_RECEIVE,
	STRICT_NET_CONTROL,
	STRICT_RNG_BUFFER,
	STRICT_CONSOLE_BUFFER,
	STRICT_CONSOLE_CONTROL,
	STRICT_BALLOON_BUFFER,
	STRICT_BALLOON_PAGE,
	STRICT_VSOCK_BUFFER,
	STRICT_VSOCK_HEADER,
	STRICT_RULES,
};

struct strict_rule_text {
	const char *name;
	const char *section; /* of virtio 1.3 */
	bool should;	     /* a SHOULD: told, but no reason to fail */
	const char *text;    /* what the driver owes */
};
extern const struct strict_rule_text strict_rules[STRICT_RULES];

/* `--strict list`: every rule, to stdout. Logs, 0 or -errno. Main thread. */
int strict_print_rules(void);

/* A chain when it was taken. */
struct strict_chain {
	u64 sum;	 /* of its descriptors in the ring; split: and in its table */
	u64 table_sum;	 /* packed: of its table */
	u64 table;	 /* packed: where that is (guest-physical), */
	u32 table_bytes; /* and how long; 0: there is none */
	u16 start;	 /* packed: its first descriptor, free-running */
};

struct strict_queue {
	/* registers, under the device's lock */
	bool vector_unread, reset_unread;
	bool ran, ever_ran; /* since the device's last reset; since it was made */
	/* the reactor's */
	const struct vq_format *format; /* the real one */
	u64 wishes;			/* how often notifications were asked for since the start */
	u64 wished_at;			/* what taken was when last */
	u64 kicks, taken;		/* since the start */
	u32 mutes; /* doorbell events since notifications were last turned off */
	bool muted;
	struct strict_chain *chains; /* in flight, by head or buffer id */
	u16 sizes;		     /* elements of chains */
};

struct strict {
	enum config_strict mode; /* not CONFIG_STRICT_OFF */
	_Atomic u64 counts[STRICT_RULES];
	_Atomic u64 told; /* rules told of since the last reset, a bit each */
	struct log_limit limits[STRICT_RULES];
	/* registers, under the device's lock */
	bool legacy_used, modern_used;
	bool reset_unread, features_unread, config_vector_unread;
	u32 config_reads; /* since the generation was read, or anything else */
	u32 config_end;	  /* where the last one ended */
	bool config_was_changed, torn;
	struct strict_queue queues[];
};

/* Has a device checked from now on; nothing happens with CONFIG_STRICT_OFF. Before the reactors see
 * it, and before its transport does. 0 or -ENOMEM (logged). Main thread. */
int strict_attach(struct virtio_device *device, enum config_strict mode);
/* By virtio_device_destroy(). */
void strict_detach(struct virtio_device *device);

/* The rule was broken by what fmt says. queue may be NULL. Does nothing where nothing is checked.
 * Any thread, the lock may be held. */
void strict_report(struct virtio_device *device, const struct virtio_queue *queue,
		   enum strict_rule rule, const char *fmt, ...)
	__attribute__((format(printf, 4, 5), cold));

/* "strict": counts of the rules that were broken, as a member of an open object. Main thread. */
void strict_stats(const struct virtio_device *device, struct json *json);

/*
 * ---- strict-driver.c: what the registers see; device->strict is set, its lock held. Before the
 * access has its effect, unless it says otherwise. ----
 */
void strict_status_write(struct virtio_device *device, u8 value, bool legacy);
void strict_status_read(struct virtio_device *device, u8 value);
void strict_features_write(struct virtio_device *device, u32 select, u32 value, bool legacy,
			   u64 offered);
/* After the core decided on FEATURES_OK. */
void strict_features_checked(struct virtio_device *device, bool accepted, u64 offered);
void strict_config_read(struct virtio_device *device, u32 offset, u32 size);
void strict_config_write(struct virtio_device *device, u32 offset, u32 size, bool legacy);
void strict_generation_read(struct virtio_device *device);
void strict_queue_size(struct virtio_queue *queue, u16 size);
/* enable: the value written. */
void strict_queue_enable(struct virtio_queue *queue, u32 enable);
void strict_queue_reset(struct virtio_queue *queue, u32 value);
void strict_queue_reset_read(struct virtio_queue *queue);
/* A register of a queue that may change only while it is not enabled. */
void strict_queue_register(struct virtio_queue *queue);
void strict_queue_started(struct virtio_queue *queue);
/* The device has come to the end of a reset. */
void strict_reset_done(struct virtio_device *device);
/* A register access that belongs to one layout alone; modern ones but to the status. */
void strict_access(struct virtio_device *device, bool legacy, bool write);
void strict_vector_write(struct virtio_device *device, struct virtio_queue *queue, u16 vector,
			 u16 vectors);
void strict_vector_read(struct virtio_device *device, struct virtio_queue *queue);
/* [reactor, lock not held] The doorbell rang, on a queue that runs or not. */
void strict_kick(struct virtio_queue *queue, u64 count);

/* ---- vq-strict.c: what rings see, on the reactor ---- */

/* The format to start a queue with, so that what goes through the ring is checked. */
const struct vq_format *strict_format(struct virtio_queue *queue, const struct vq_format *format);
/* The ring could not be started, or is broken: which rule was that? */
void strict_fault(struct virtio_queue *queue);

/* Bytes [offset, offset + size) of a list of buffers, or as many as it has. [reactor] */
void strict_read(const struct iovec *iov, u16 count, u32 offset, void *to, u32 size);

/* ---- blk-strict.c, net-strict.c: virtio_device_ops.check and .config_writable ---- */
void blk_strict_check(struct virtio_queue *queue, const struct vq_buffer *buffer);
bool blk_strict_writable(const struct virtio_device *device, u32 offset, u32 size);
void net_strict_check(struct virtio_queue *queue, const struct vq_buffer *buffer);
bool net_strict_writable(const struct virtio_device *device, u32 offset, u32 size);

#endif
