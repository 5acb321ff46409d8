/*
 * The device core (virtio 1.3, chapter 2): status, features, configuration, virtqueues and their
 * life on a reactor. One core under every transport; device types plug in by virtio_device_ops.
 *
 * Who holds what: registers (status, features, queue addresses) belong to the device's lock and are
 * touched on vCPU threads; a running queue (ring, in_flight, owner's requests) belongs to its
 * reactor alone.
 */
#ifndef VIRTIO_DEVICE_H
#define VIRTIO_DEVICE_H

#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <pthread.h>
#include "vm/log.h"
#include "vm/reactor.h"
#include "virtio/latency.h"
#include "virtio/virtqueue.h"

#ifndef VIRTIO_F_NOTIFICATION_DATA
#define VIRTIO_F_NOTIFICATION_DATA 38 /* not in the headers of Linux 6.1 */
#endif

struct json;
struct strict;
struct virtio_device;
struct virtio_queue;

/* What serve() found. */
enum virtio_served {
	VIRTIO_SERVED_ALL,   /* nothing available is left: unmute, look again, sleep */
	VIRTIO_SERVED_LATER, /* the device will call virtio_queue_schedule() itself; stay muted */
};

struct virtio_device_ops {
	u16 id;		  /* VIRTIO_ID_* */
	u32 pci_class;	  /* 24 bits */
	const char *name; /* "blk" */

	/* [vCPU, lock] Is this set of features acceptable beyond "offered" and the dependencies of
	 * transport bits? NULL: yes. (Feature dependencies, e.g. GUEST_TSO4 without GUEST_CSUM:
	 * no.) */
	bool (*features_ok)(struct virtio_device *device, u64 features);
	/* [vCPU, lock] The driver wrote config space (only if the device has driver-writable
	 * fields). NULL: read-only. */
	void (*config_write)(struct virtio_device *device, u32 offset, u32 size, u64 value);
	/* [vCPU or reactor, lock] Features are final (DRIVER_OK, or a legacy driver's first use);
	 * queues start after it. */
	void (*start)(struct virtio_device *device);
	/* [reactor] The queue runs: ring is set up, nothing taken yet. NULL: nothing to do. */
	void (*queue_start)(struct virtio_queue *queue);
	/* [reactor] Buffers may be available and the queue is muted: take them. */
	enum virtio_served (*serve)(struct virtio_queue *queue);
	/* [reactor] The queue shall stop: take no more, cancel what can be; the core waits until
	 * in_flight is 0. NULL: only wait. */
	void (*queue_stop)(struct virtio_queue *queue);
	/* [any, lock held or not] What virtio_device_may_dma() says has changed. For types that
	 * lend queues (virtio_queue_lend()): rings lent are left alone when this returns, or used
	 * again.
	 */
	void (*gate)(struct virtio_device *device);
	/* [any, lock] Where a queue's interrupts go has changed: virtio_queue.interrupt_fd. */
	void (*interrupt_moved)(struct virtio_queue *queue);
	/* [main] See virtio_device_detach(), for the type's own events. */
	void (*detach)(struct virtio_device *device);
	/* [vCPU or reactor, lock] All queues have stopped: forget everything the driver set. */
	void (*reset)(struct virtio_device *device);
	/* [reactor] The strict checker: a buffer was popped. What the driver got wrong in it is
	 * reported, nothing else. NULL: nothing to check. */
	void (*check)(struct virtio_queue *queue, const struct vq_buffer *buffer);
	/* [vCPU, lock] The strict checker: may the driver write these bytes of configuration? NULL:
	 * none. */
	bool (*config_writable)(const struct virtio_device *device, u32 offset, u32 size);
	/* [main] What the type counts beyond the queues, as members of an open object. NULL:
	 * nothing. */
	void (*stats)(struct virtio_device *device, struct json *json);
};

/*
 * How the transport tells the driver. All are [any thread, device's lock held], so they take no
 * lock under which the device's is taken elsewhere (the PCI function's). Doorbells need nothing:
 * they are virtio_queue.doorbell_fd.
 */
struct virtio_transport_ops {
	/* The configuration changed (status NEEDS_RESET included): ISR bit 1, then the vector or
	 * the line. */
	void (*config_interrupt)(struct virtio_device *device);
	/* Optional. The queue's registers went back to their defaults (by a reset of the device or
	 * of the queue alone), its vector to NO_VECTOR: virtio_queue.interrupt must follow. */
	void (*queue_reset)(struct virtio_queue *queue);
	/* Optional. The device finished a reset (after queue_reset of each queue): unmap the
	 * configuration vector. */
	void (*reset)(struct virtio_device *device);
};

enum virtio_queue_state { VIRTIO_QUEUE_IDLE, VIRTIO_QUEUE_RUNNING, VIRTIO_QUEUE_STOPPING };

/* Counters of one queue; written by its reactor, read by anyone (relaxed). kicks: what the driver
 * wrote to the doorbell, also while it was asked not to. */
struct virtio_queue_counts {
	u64 kicks, batches, buffers, bytes_read, bytes_written, interrupts, interrupts_suppressed;
};

/* virtio_device.isr (4.1.4.5) */
#define VIRTIO_ISR_QUEUE  BIT(0)
#define VIRTIO_ISR_CONFIG BIT(1)

/* interrupt values that are not a file: */
#define VIRTIO_INTERRUPT_NONE (-1) /* no vector: the driver does not want any */
#define VIRTIO_INTERRUPT_INTX (-2) /* ISR bit 0, then the line */

#define VIRTIO_SHOWN_LENT BIT64(63) /* virtio_queue.shown */

struct virtio_queue {
	struct virtio_device *device;
	u16 index;
	void *owner; /* the device type's */

	/* registers, under the device's lock */
	u16 max_size, size;
	u16 chain_max; /* longest chain that the device type has room for */
	bool enabled;
	u16 msix_vector;
	u64 descriptors, driver, used; /* areas */
	bool resetting;		       /* RING_RESET (or legacy PFN 0) in progress */

	/* set by the transport whenever vectors or the MSI-X enable bit change, read by the reactor
	 */
	_Atomic s32 interrupt;	  /* a reactor_file, or VIRTIO_INTERRUPT_* */
	_Atomic s32 interrupt_fd; /* its eventfd, or the same VIRTIO_INTERRUPT_* */

	int doorbell_fd; /* eventfd: a write of 1 is an available buffer notification */

	/* the reactor's */
	struct reactor *reactor;
	struct virtqueue ring;
	_Atomic int state; /* enum virtio_queue_state; written by the reactor */
	u32 in_flight;	   /* buffers popped and not yet pushed or unpopped */
	/* left to be read by anyone (relaxed) once a sweep: the next entry to take, the next to
	 * write as used, and in_flight, from bit 0, 16 and 32; or VIRTIO_SHOWN_LENT */
	_Atomic u64 shown;
	struct reactor_event doorbell;
	struct reactor_task serve, flush;
	struct reactor_poller poller;
	bool polled;  /* served and left muted: the reactor busy-polls it */
	bool lent;    /* virtio_queue_lend() */
	bool gathers; /* the device type's: buffers come many at a time, and may wait for more */
	bool napped;  /* left muted for a nap */
	/* serves until the next nap is tried, and until the one after that, if it is in vain */
	u16 awake, awake_next;
	struct virtio_queue_counts counts;
	struct latency latency;
	/* the device type's: buffers wait for what comes from outside, which is no latency of ours
	 */
	bool untimed;

	/* the core's own; the first five under the device's lock */
	bool wanted; /* the queue shall run */
	bool busy;   /* it runs, or its reactor has yet to say that it no longer does */
	bool posted; /* message is on its way */
	struct vq_setup setup;
	struct reactor_message message;
};

struct virtio_device {
	const struct virtio_device_ops *ops;
	const struct virtio_transport_ops *transport;
	void *transport_owner;
	void *owner; /* the device type's */
	const struct memory *memory;
	struct reactors *reactors;
	char name[32]; /* "blk0", for log lines */
	pthread_mutex_t lock;

	u64 offered;  /* device features: the type's and the core's ring ones */
	u64 features; /* driver features as written */
	u8 status;    /* as the driver reads it */
	bool legacy;  /* the driver uses the legacy interface (VERSION_1 not acked) */
	bool resetting;
	_Atomic bool running;	 /* queues may be started: DRIVER_OK, or legacy use */
	_Atomic bool bus_master; /* DMA allowed */

	/* for --stats, under the lock: ticks of the first and the last time that the driver was
	 * ready (0: never), and how it was then */
	u64 first_driver_ok, driver_ok;
	u64 ran_features;
	bool ran_legacy;

	u8 *config; /* little-endian bytes, config_size of them */
	u32 config_size;
	_Atomic u32 config_generation; /* see virtio_config_generation() */
	_Atomic u32 isr;	       /* bit 0 queue, bit 1 configuration */
	/* set by the transport, read by reactors: what a queue with VIRTIO_INTERRUPT_INTX signals
	 * after setting the ISR bit; a reactor_file, or -1 while INTx may not be raised (INTx
	 * Disable, MSI-X on, no transport) */
	_Atomic s32 intx_file;

	struct virtio_queue *queues;
	u16 queue_count;

	struct strict *strict; /* checks the driver; NULL: nobody asked for that */

	/* the core's own */
	pthread_cond_t idle; /* a reset has finished */
	_Atomic bool broken; /* NEEDS_RESET was set: nothing is taken until reset */
	bool config_changed; /* since config_generation was last read */
	u8 *config_before;   /* room to compare config over a reset */
	u64 features_beyond; /* selects above 1 where the driver acknowledged bits */
	struct log_limit lines;
};

/* ---- for device types: memory ---- */

/* Zeroed room for the most there may be, of which little is ever touched: it takes no huge page,
 * which where these are always on the first touch would. NULL without memory. Any thread. */
void *virtio_room(size_t bytes);
void virtio_room_free(void *room, size_t bytes);

/* ---- for main.c and device types: construction ---- */

/* Ring and transport features that the user chooses for each device. */
#define VIRTIO_OPTIONAL \
	(BIT64(VIRTIO_F_RING_PACKED) | BIT64(VIRTIO_F_IN_ORDER) | BIT64(VIRTIO_F_NOTIFICATION_DATA))

struct virtio_device_config {
	const struct virtio_device_ops *ops;
	void *owner;
	const char *name;
	const struct memory *memory;
	struct reactors *reactors;
	u64 features;	 /* device-type bits (0..23, 50..63), and which of VIRTIO_OPTIONAL are
			    offered; the core adds VERSION_1, INDIRECT_DESC, EVENT_IDX, ANY_LAYOUT,
			    NOTIFY_ON_EMPTY, RING_RESET */
	u64 withheld;	 /* of these, bits that this device's host end lacks */
	u32 config_size; /* bytes of device-specific configuration */
	u16 queue_count;
	u16 queue_size;		 /* max of each: power of two up to VQ_MAX_SIZE */
	u16 queue_offer;	 /* what is offered of that, a power of two; 0: all */
	const u8 *queue_reactor; /* for each queue the number of its reactor; NULL: all on 0 */
};

/* Makes lock, queues (each with its doorbell eventfd, registered with its reactor) and a zero
 * config; bus mastering on. 0 or -errno (logged). Main thread. */
int virtio_device_init(struct virtio_device *device, const struct virtio_device_config *config);
/* Has running reactors forget the device, whose queues are idle and whose registers
 * nobody reaches any more (virtio_pci_vanish(), vCPUs paused since). virtio_device_destroy() may
 * follow. Main thread. */
void virtio_device_detach(struct virtio_device *device);
/* Queues idle (virtio_device_power_on()); detached, or reactors not running: after
 * reactors_destroy(), or never started. */
void virtio_device_destroy(struct virtio_device *device);

/* ---- for device types ---- */

/* [reactor] Next available buffer of a running queue: 1, 0 (none, or nothing may be taken:
 * stopping, broken, no bus mastering) or -EPROTO: the device then already has NEEDS_RESET. Counts
 * it in flight; there are never more than ring.size, no head twice. max of the type's
 * queue_size (not size) never runs out. */
int virtio_queue_pop(struct virtio_queue *queue, struct vq_buffer *buffer, struct iovec *iov,
		     u16 max);
/* [reactor] Gives back the last `count` popped, unused; also while the queue stops. */
void virtio_queue_unpop(struct virtio_queue *queue, u16 count);
/* [reactor] The device is done with a buffer. Used ring and interrupt follow at the end of the
 * sweep; while the queue stops nothing but the count is touched. */
void virtio_queue_push(struct virtio_queue *queue, u16 head, u32 written);
/* [reactor] Have serve() called in this sweep. */
void virtio_queue_schedule(struct virtio_queue *queue);
/* [reactor] True from queue_start to the stop's beginning. */
bool virtio_queue_running(const struct virtio_queue *queue);
/* [any] Has the strict checker see each doorbell; before it can ring. */
void virtio_queue_check(struct virtio_queue *queue);
/* [reactor] In queue_start: something else has the ring from now on, the kernel's vhost. The core
 * touches ring and doorbell no more; it stops the queue as any other. */
void virtio_queue_lend(struct virtio_queue *queue);
/* [reactor] In queue_stop of a queue lent: the other has let go, and the doorbell is ours again. Of
 * the kicks it holds `own` were not the driver's. */
void virtio_queue_take_back(struct virtio_queue *queue, u64 own);
/* [reactor] The driver is notified of used buffers, if it has set a vector or uses the line. */
void virtio_queue_interrupt(struct virtio_queue *queue);
/* [any] May rings be touched: bus mastering is on, and the driver has broken nothing. */
bool virtio_device_may_dma(const struct virtio_device *device);
/* [any] The driver broke a rule that cannot be repaired: one log line "<name>: <why>", NEEDS_RESET
 * and a config interrupt; queues take nothing more until reset. The lock may be held. */
void virtio_device_broken(struct virtio_device *device, const char *why);
/* [any, lock not held] Changes config bytes and, if they differ, moves the generation and notifies
 * the driver. */
void virtio_config_update(struct virtio_device *device, u32 offset, const void *bytes, u32 size);
/* [any] Is feature bit (0..63) negotiated? For legacy drivers only 0..31 can be. */
static inline bool virtio_has(const struct virtio_device *device, unsigned int bit)
{
	return device->features >> bit & 1;
}

/* ---- for transports; all with the lock held, on vCPU threads ---- */

/* Where the queue's interrupts go: a reactor_file and its eventfd, or VIRTIO_INTERRUPT_* twice. */
void virtio_queue_set_interrupt(struct virtio_queue *queue, s32 file, s32 fd);

/* device_feature for a 32-bit window: 0 for select > 1. Legacy: select 0 without the bits legacy
 * must not see. */
u32 virtio_features_read(const struct virtio_device *device, u32 select, bool legacy);
/* driver_feature write; ignored after FEATURES_OK, and for bits never offered (checked at
 * FEATURES_OK). */
void virtio_features_write(struct virtio_device *device, u32 select, u32 value, bool legacy);
/* Status as the driver reads it. A modern reset in progress reads non-zero. */
u8 virtio_status_read(struct virtio_device *device);
/* A write of 0 begins a reset; else the status machine of 2.1 and 3.1. legacy: which interface
 * wrote it. */
void virtio_status_write(struct virtio_device *device, u8 value, bool legacy);
/* Legacy: waits until a reset is complete (a legacy driver expects it done by the write). Releases
 * the lock (held once) while waiting. */
void virtio_reset_wait(struct virtio_device *device);
/* Device-specific configuration, any width, any alignment. Out of range: reads 0, writes are
 * dropped. */
u64 virtio_config_read(struct virtio_device *device, u32 offset, u32 size);
void virtio_config_write(struct virtio_device *device, u32 offset, u32 size, u64 value);
/* Value of config_generation (4.1.4.3.1): changes if the config did since it was last read. */
u8 virtio_config_generation(struct virtio_device *device);
/* Queue registers; queue may be any number from the driver, NULL if there is none such. */
struct virtio_queue *virtio_queue_get(struct virtio_device *device, u16 index);
/* queue_size write: ignored unless up to max_size, a power of two (or packed), and not enabled. */
void virtio_queue_set_size(struct virtio_queue *queue, u16 size);
/* queue_enable = 1: starts the queue if the device is running. The transport has written the areas.
 */
void virtio_queue_enable(struct virtio_queue *queue);
/* RING_RESET: begins; virtio_queue.resetting and .enabled tell when it is done. */
void virtio_queue_reset(struct virtio_queue *queue);
/* QueueReady = 0 over MMIO: stops an enabled queue and, as its driver frees its memory next, waits
 * for it, releasing the lock meanwhile. */
void virtio_queue_disable(struct virtio_queue *queue);
/* Legacy queue PFN: sets the areas by the legacy layout with 4096-byte alignment. 0 stops the queue
 * and, as a legacy driver frees its memory next, waits for it, releasing the lock meanwhile. */
void virtio_queue_set_pfn(struct virtio_queue *queue, u32 pfn);
/* An available buffer notification that came as an exit instead of through the doorbell eventfd.
 * Any index. */
void virtio_queue_kick(struct virtio_device *device, u16 index);
/* The driver reads the ISR: its value, which becomes 0. [any, no lock] */
u8 virtio_isr_read(struct virtio_device *device);
/* DMA allowed or not (PCI bus mastering): while not, queues pause (nothing is popped, no ring is
 * touched by new work). */
void virtio_device_bus_master(struct virtio_device *device, bool on);
/* Whole-device power-on reset for an in-place reboot; waits until queues are idle. vCPUs paused;
 * lock not held. Main thread. */
void virtio_device_power_on(struct virtio_device *device);

#endif
