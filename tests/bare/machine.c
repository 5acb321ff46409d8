/* Bare guest: serial port, results, interrupts, the end. */
#include "bare.h"

#define COM1	 0x3f8
#define LAPIC	 0xfee00000ull
#define IOAPIC	 0xfec00000ull
#define SPURIOUS 0xff
#define HEAP	 0x1000000ull
#define HEAP_END 0x3000000ull
#define PATIENCE 200000u /* polls before something counts as never happening */

struct gate {
	u16 low, selector, type, mid;
	u32 high, reserved;
};

#define TRAMPOLINE 0x8000ull

extern u8 stubs[256][16];
extern const u8 trampoline[], trampoline_end[];
extern void (*second_cpu_runs)(void);
void interrupt(u64 vector, const u64 *frame);

static struct gate idt[256] __attribute__((aligned(16)));
volatile u32 interrupts[256];
void (*line_handler)(void);
u32 failures;
static const char *running;
static bool running_failed;
static u64 heap = HEAP;

void *memset(void *to, int c, size_t n)
{
	void *p = to;

	__asm__ volatile("rep stosb" : "+D"(p), "+c"(n) : "a"(c) : "memory");
	return to;
}

void *memcpy(void *to, const void *from, size_t n)
{
	void *p = to;

	__asm__ volatile("rep movsb" : "+D"(p), "+S"(from), "+c"(n)::"memory");
	return to;
}

void serial_init(void)
{
	out8(COM1 + 3, 3); /* eight bits, no divisor latch */
	out8(COM1 + 1, 0);
	out8(COM1 + 4, 0); /* no loop */
}

u32 this_cpu(void)
{
	return read32(LAPIC + 0x20) >> 24;
}

void lock(struct lock *l)
{
	while (__atomic_exchange_n(&l->taken, 1, __ATOMIC_ACQUIRE))
		__asm__ volatile("pause");
}

void unlock(struct lock *l)
{
	__atomic_store_n(&l->taken, 0, __ATOMIC_RELEASE);
}

static void put(char c)
{
	while (!(in8(COM1 + 5) & 0x20))
		;
	out8(COM1, (u8)c);
}

static void put_number(u64 n, u32 base)
{
	char digits[20];
	u32 i = 0;

	do {
		digits[i++] = "0123456789abcdef"[n % base];
	} while (n /= base);
	while (i)
		put(digits[--i]);
}

/* %s, %u (u64), %x (u64). */
void say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	for (; *format; format++) {
		if (*format != '%') {
			put(*format);
			continue;
		}
		if (*++format == 's')
			for (const char *s = va_arg(args, const char *); *s; s++)
				put(*s);
		else
			put_number(va_arg(args, u64), *format == 'x' ? 16 : 10);
	}
	va_end(args);
}

void begin(const char *name)
{
	running = name;
	running_failed = false;
}

void expect(bool good, const char *what, u64 got, u64 wanted)
{
	if (good || running_failed)
		return;
	running_failed = true;
	failures++;
	say("not ok %s: %s", running, what);
	if (got != wanted)
		say(" (0x%x, not 0x%x)", got, wanted);
	say("\n");
}

void expect_equal(const char *what, u64 got, u64 wanted)
{
	expect(got == wanted, what, got, wanted);
}

void finish(void)
{
	if (!running_failed)
		say("ok %s\n", running);
}

void machine_end(u8 status)
{
	out8(0xf4, status);
	for (;;)
		__asm__ volatile("hlt");
}

void *allocate(u64 size, u64 align)
{
	u64 at = (heap + align - 1) & ~(align - 1);

	if (at + size > HEAP_END) {
		say("not ok memory: the heap is used up\n");
		machine_end(1);
	}
	heap = at + size;
	return memset((void *)at, 0, size);
}

/* frame: what the CPU pushed, for some exceptions an error code before the instruction's address.
 */
void interrupt(u64 vector, const u64 *frame)
{
	if (vector < 32) {
		bool error = BIT(vector) & 0x27d00;

		serial_init();
		say("not ok %s: exception %u at 0x%x\n", running ? running : "start", vector,
		    frame[error]);
		machine_end(1);
	}
	interrupts[vector]++;
	if (line_handler)
		line_handler();
	if (vector != SPURIOUS)
		write32(LAPIC + 0xb0, 0);
}

u32 wait_interrupts(u8 vector, u32 wanted)
{
	for (u32 i = 0; i < PATIENCE && interrupts[vector] < wanted; i++)
		in8(0x80); /* an exit: lets a slow clock pass, and interrupts in */
	return interrupts[vector];
}

void settle(void)
{
	for (u32 i = 0; i < 300; i++)
		in8(0x80);
}

void ioapic_route(u32 pin, u8 vector, bool masked)
{
	write32(IOAPIC, 0x10 + pin * 2 + 1);
	write32(IOAPIC + 0x10, 0);
	write32(IOAPIC, 0x10 + pin * 2);
	write32(IOAPIC + 0x10, vector | 1u << 15 | (masked ? 1u << 16 : 0));
}

/* INIT, then a start-up IPI that names the trampoline's page (Intel SDM volume 3, 9.4). */
void start_second_cpu(void (*function)(void))
{
	memcpy((void *)TRAMPOLINE, trampoline, (size_t)(trampoline_end - trampoline));
	second_cpu_runs = function;
	barrier();
	write32(LAPIC + 0x310, 1u << 24);
	write32(LAPIC + 0x300, 0x4500);
	settle();
	write32(LAPIC + 0x310, 1u << 24);
	write32(LAPIC + 0x300, 0x4600 | TRAMPOLINE >> 12);
}

void machine_init(void)
{
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) pointer = { sizeof(idt) - 1, (u64)idt };

	for (u32 i = 0; i < 256; i++) {
		u64 stub = (u64)stubs[i];

		idt[i] = (struct gate){ (u16)stub,	   8, 0x8e00, (u16)(stub >> 16),
					(u32)(stub >> 32), 0 };
	}
	__asm__ volatile("lidt %0" ::"m"(pointer));
	out8(0x21, 0xff); /* the old interrupt controllers would send vectors of exceptions */
	out8(0xa1, 0xff);
	write32(LAPIC + 0xf0, 0x100 | SPURIOUS);
	__asm__ volatile("sti");
}
