/* Bare guest: what its files share. Prints `ok NAME` and `not ok NAME: why` lines on the serial
 * port. */
#ifndef BARE_H
#define BARE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#define BIT(n)	      (1u << (n))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define barrier()     __asm__ volatile("mfence" ::: "memory")

static inline void out8(u16 port, u8 v)
{
	__asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port));
}
static inline void out16(u16 port, u16 v)
{
	__asm__ volatile("outw %0, %1" ::"a"(v), "Nd"(port));
}
static inline void out32(u16 port, u32 v)
{
	__asm__ volatile("outl %0, %1" ::"a"(v), "Nd"(port));
}
static inline u8 in8(u16 port)
{
	u8 v;

	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}
static inline u16 in16(u16 port)
{
	u16 v;

	__asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}
static inline u32 in32(u16 port)
{
	u32 v;

	__asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}
static inline u8 read8(u64 a)
{
	return *(volatile u8 *)a;
}
static inline u16 read16(u64 a)
{
	return *(volatile u16 *)a;
}
static inline u32 read32(u64 a)
{
	return *(volatile u32 *)a;
}
static inline u64 read64(u64 a)
{
	return *(volatile u64 *)a;
}
static inline void write8(u64 a, u8 v)
{
	*(volatile u8 *)a = v;
}
static inline void write16(u64 a, u16 v)
{
	*(volatile u16 *)a = v;
}
static inline void write32(u64 a, u32 v)
{
	*(volatile u32 *)a = v;
}
static inline void write64(u64 a, u64 v)
{
	*(volatile u64 *)a = v;
}

/* ---- machine.c ---- */

/* The port as say() needs it, whatever was done to it. */
void serial_init(void);
void say(const char *format, ...);
/* One result line; the test's name is the running one's. */
extern u32 failures;
void begin(const char *name);
void expect(bool good, const char *what, u64 got, u64 wanted);
#define EXPECT(cond)	expect(cond, #cond, 0, 0)
#define EXPECT_EQ(a, b) expect_equal(#a " == " #b, (u64)(a), (u64)(b))
void expect_equal(const char *what, u64 got, u64 wanted);
void finish(void); /* prints the running test's line */
void machine_init(void);
void machine_end(u8 status) __attribute__((noreturn));
/* Has the CPU with APIC id 1 run the function, interrupts off; does not wait for it. */
void start_second_cpu(void (*function)(void));
u32 this_cpu(void); /* its APIC id */
struct lock {
	volatile u32 taken;
};
void lock(struct lock *l);
void unlock(struct lock *l);
void *allocate(u64 size, u64 align); /* zeroed; never freed */

/* Interrupts that came at a vector since the start. */
extern volatile u32 interrupts[256];
#define VECTOR_FIRST 0x40
/* Waits until vector has come `wanted` times, or a good while; what it is then. */
u32 wait_interrupts(u8 vector, u32 wanted);
/* Gives interrupts that must not come the time to come. */
void settle(void);
/* Routes an I/O APIC pin, level-triggered, to a vector; masked leaves it dead. */
void ioapic_route(u32 pin, u8 vector, bool masked);
/* Called by the handler of line interrupts before EOI, if set: the driver's acknowledge. */
extern void (*line_handler)(void);

/* ---- pci.c ---- */

extern struct lock config_ports; /* 0xcf8 and 0xcfc */
u32 config_read(u32 slot, u32 offset, u32 size);
void config_write(u32 slot, u32 offset, u32 size, u32 value);

struct capability {
	bool found;
	u8 bar;
	u32 offset, length, extra; /* extra: NOTIFY's multiplier */
	u32 at;			   /* in config space */
};

struct function {
	u32 slot, device, type; /* type: virtio device id */
	u64 bar[6];
	bool bar_io[6];
	struct capability common, notify_io, notify_mem, isr_io, isr_mem, config, window;
	u32 msix; /* config offset of the MSI-X capability */
	u64 msix_table, msix_pba;
};

/* The n-th virtio function of a type; false if there is none. */
bool find_function(struct function *f, u32 type, u32 n);
void read_bars(struct function *f);
/* Moves a BAR (decoding off meanwhile) and updates *f. */
void move_bar(struct function *f, u32 bar, u64 to);
u64 bar_size(struct function *f, u32 bar);

/* ---- virtio.c ---- */

#define QUEUE_SIZE   256
#define CHAIN_STRIDE 8u /* descriptors of a split ring that belong to a buffer's number */
#define BUFFERS_OUT  (QUEUE_SIZE / CHAIN_STRIDE)

#ifndef VIRTIO_F_NOTIFICATION_DATA
#define VIRTIO_F_NOTIFICATION_DATA 38 /* not in the headers of Linux 6.1 */
#endif

struct queue {
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	u16 size, seen, index;

	/* packed: instead of the three above */
	bool packed;
	struct vring_packed_desc *ring;
	volatile u32 *driver_event, *device_event;
	u16 fill, look;		   /* next descriptor to write, to see used */
	bool fill_wrap, look_wrap; /* wrap counters */
	u16 first, first_flags;	   /* of the chain prepared last */
	u16 span[QUEUE_SIZE];	   /* descriptors, by buffer */

	/* in order: buffers out, oldest first, and how many the last element stands for */
	bool in_order;
	u16 order[BUFFERS_OUT], oldest, newest, batch, batches;
	u32 batch_length;

	u16 added; /* chains made available; the next one's number, modulo BUFFERS_OUT */
	u16 number_of[QUEUE_SIZE]; /* split: which buffer's head a descriptor is */
};

struct driver {
	struct function *f;
	bool legacy, legacy_msix;
	u64 features;
	struct queue queue[8];
};

u64 common(struct driver *d); /* address of the common configuration */
u64 device_features(struct driver *d);
void reset(struct driver *d);
/* Modern initialisation up to DRIVER_OK with `queues` queues; false if FEATURES_OK did not stick.
 */
bool start_modern(struct driver *d, struct function *f, u64 features, u32 queues);
void start_legacy(struct driver *d, struct function *f, u32 features, u32 queues);
/* Rings of the legacy layout, zeroed, which serve both. */
void make_queue(struct queue *q, u16 index, u16 size);
/* Tells the device of a queue as it is now, and enables it. */
void enable_queue(struct driver *d, u16 index);
/* RING_RESET, and waits for its end. */
void reset_queue(struct driver *d, u16 index);
/* A number that changes when the device uses a buffer. */
u64 device_wrote(const struct queue *q);
void set_vector(struct driver *d, u32 queue, u16 vector);
struct part {
	void *at;
	u32 length;
};
/* Puts one chain of `count` descriptors, the first `readable` of them readable, into the queue, as
 * the buffer of that number (below BUFFERS_OUT, not out), or of the next... */
void prepare_buffer(struct queue *q, u32 number, const struct part *parts, u32 count, u32 readable);
void prepare_chain(struct queue *q, const struct part *parts, u32 count, u32 readable);
/* ...and makes it available. */
void show_chain(struct queue *q);
void add_chain(struct queue *q, const struct part *parts, u32 count, u32 readable);
/* The next used buffer: its number and length; false if there is none. */
bool take_used(struct queue *q, u32 *number, u32 *length);
enum doorbell { DOORBELL_IO, DOORBELL_MEM, DOORBELL_LEGACY, DOORBELL_WINDOW };
void ring(struct driver *d, u32 queue, enum doorbell how);
/* Waits for the next used element: its length, or -1. */
long wait_used(struct queue *q);
/* One whole block request; returns the status byte, 0xff if the device never answered. */
u8 block(struct driver *d, u32 type, u64 sector, void *data, u32 length, enum doorbell how);

/* ---- packed.c: what virtio.c does with a packed ring, and the tests of it ---- */

void packed_make(struct queue *q, u16 size);
void packed_prepare(struct queue *q, u32 number, const struct part *parts, u32 count, u32 readable);
/* Writes one descriptor at the next place; the flags get what makes it available. */
void packed_write(struct queue *q, u64 at, u32 length, u16 id, u16 flags);
void packed_show(struct queue *q);
bool packed_used(struct queue *q, u32 *number, u32 *length);
void packed_release(struct queue *q, u32 number);
void test_packed(struct function *f);

/* ---- tests.c ---- */

/* All there are, on the first block device and some others, with packed rings or split ones; ends
 * the machine. */
void test_all(bool packed) __attribute__((noreturn));

/* ---- verify.c, entry.S ---- */

/* Goes on in ring 3 (native speed even where ring 0 is interpreted); does not return. */
void enter_user(void (*function)(void)) __attribute__((noreturn));
/* Fills the first block disk with a pattern, many requests in flight, and reads all of it back;
 * ends the machine. With these features too, if they are offered. */
extern u64 verify_features;
void verify(void);

/* ---- steady.c ---- */

struct steady_work {
	u64 rounds;
	u32 depth;   /* block requests a round, 1 to 64 */
	bool writes; /* else reads */
	bool silent; /* wants no interrupts */
	bool echo;   /* no block requests but echo requests on the first network device */
};

/* Does that in ring 3 and ends the machine. */
void steady(const struct steady_work *work) __attribute__((noreturn));
void steady_block(void);
void steady_echo(void);

/* ---- endless.c: guests that only the host ends ---- */

void run_nowhere(void);
void spin(void) __attribute__((noreturn)); /* interrupts off */
void idle(void) __attribute__((noreturn)); /* halted, interrupts on */
void print(void) __attribute__((noreturn));
/* Writes the first block disk over and over; tells when the status changes. */
void write_on(void) __attribute__((noreturn));

/* ---- layouts.c ---- */

/* Drives ten disks, whatever their layouts, by all that they offer; ends the machine. */
void test_layouts(void) __attribute__((noreturn));

/* ---- strict.c ---- */

/* Breaks every rule of the strict checker once, where there is a device for it; ends the
 * machine: 77. fail: tells besides whether the device asked for a reset. only_behave: ends before
 * the first. */
void break_rules(bool fail, bool only_behave) __attribute__((noreturn));

/* ---- slots.c ---- */

/* Serves hot-plug slots for ever. */
void slots(void) __attribute__((noreturn));

/* ---- hostile.c ---- */

/* So many steps of nonsense at every device, the same for the same seed as long as one CPU does it;
 * ends the machine: 77 if the devices work afterwards. */
void hostile(u64 seed, u64 steps, bool two_cpus) __attribute__((noreturn));

#endif
