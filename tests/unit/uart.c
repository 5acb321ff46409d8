/* tsan
 * vm/uart.c against a driver of our own that does what Linux's 8250 does, register by register:
 * probe, loopback test, THRE test, printing, interrupt-driven input and output; and against guests
 * that do anything.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>
#include <linux/serial_reg.h>

#include "vm/bus.h"
#include "vm/irq.h"
#include "vm/layout.h"
#include "vm/uart.h"

/* The interrupt controller is ours, so that the line can be looked at. */
struct irq {
	atomic_bool line;
	atomic_uint changes;
};

void irq_line_set(struct irq *irq, u32 gsi, bool high)
{
	assert_int_equal(gsi, LAYOUT_GSI_UART);
	assert_true(atomic_exchange(&irq->line, high) != high); /* changes only */
	atomic_fetch_add(&irq->changes, 1);
}

static struct irq irq;
static struct bus *bus;
static struct uart *uart;
static atomic_uint wakes;

static void wake(void *owner)
{
	assert_ptr_equal(owner, &wakes);
	atomic_fetch_add(&wakes, 1);
}

static int set_up(void **state)
{
	(void)state;
	irq.line = false;
	wakes = 0;
	assert_int_equal(bus_create(&bus, NULL), 0);
	return uart_create(&uart, bus, &irq, wake, &wakes);
}

static int tear_down(void **state)
{
	(void)state;
	uart_destroy(uart);
	bus_destroy(bus);
	return 0;
}

static u8 in(u64 reg)
{
	return (u8)bus_read(bus, BUS_PIO, LAYOUT_PORT_UART + reg, 1);
}

static void out(u64 reg, u8 value)
{
	bus_write(bus, BUS_PIO, LAYOUT_PORT_UART + reg, 1, value);
}

static size_t give(const char *text)
{
	return uart_input(uart, (const u8 *)text, strlen(text));
}

/* All output there is, as a string. */
static const char *printed(void)
{
	static char text[20000];

	text[uart_output(uart, (u8 *)text, sizeof(text) - 1)] = '\0';
	return text;
}

static void open_port(void)
{
	out(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_8);
	out(UART_LCR, UART_LCR_WLEN8);
	out(UART_MCR, UART_MCR_DTR | UART_MCR_RTS | UART_MCR_OUT2);
}

/* What the 8250 driver's autoconfig asks, in its order; the answers make it a 16550A and nothing
 * better. */
static void test_probe(void **state)
{
	u8 saved_mcr, saved_lcr;

	(void)state;
	/* something is there: IER keeps the low four bits and only them */
	out(UART_IER, 0);
	assert_int_equal(in(UART_IER), 0);
	out(UART_IER, 0xff);
	assert_int_equal(in(UART_IER), 0x0f);
	out(UART_IER, 0);
	saved_mcr = in(UART_MCR);
	saved_lcr = in(UART_LCR);
	/* loopback: outputs come back as inputs */
	out(UART_MCR, UART_MCR_LOOP | UART_MCR_OUT2 | UART_MCR_RTS);
	assert_int_equal(in(UART_MSR)&0xf0, UART_MSR_DCD | UART_MSR_CTS);
	out(UART_MCR, UART_MCR_LOOP | UART_MCR_OUT1 | UART_MCR_DTR);
	assert_int_equal(in(UART_MSR)&0xf0, UART_MSR_RI | UART_MSR_DSR);
	out(UART_MCR, saved_mcr);
	/* no enhanced registers behind LCR 0xbf; FIFOs that work */
	out(UART_LCR, UART_LCR_CONF_MODE_B);
	out(UART_EFR, 0);
	out(UART_LCR, 0);
	out(UART_FCR, UART_FCR_ENABLE_FIFO);
	assert_int_equal(in(UART_IIR) >> 6, 3);
	/* 16650: EFR reads 0 with DLAB */
	out(UART_LCR, UART_LCR_CONF_MODE_A);
	assert_int_not_equal(in(UART_EFR), 0);
	out(UART_LCR, UART_LCR_CONF_MODE_B);
	assert_int_not_equal(in(UART_EFR), 0);
	/* 16750: a 64-byte FIFO shows in IIR bit 5 */
	out(UART_LCR, 0);
	out(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR7_64BYTE);
	assert_int_equal(in(UART_IIR) >> 5, 6);
	out(UART_FCR, UART_FCR_ENABLE_FIFO);
	out(UART_LCR, UART_LCR_CONF_MODE_A);
	out(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR7_64BYTE);
	assert_int_equal(in(UART_IIR) >> 5, 6);
	out(UART_FCR, UART_FCR_ENABLE_FIFO);
	out(UART_LCR, 0);
	/* XScale's UART unit enable bit */
	out(UART_IER, UART_IER_UUE);
	assert_int_equal(in(UART_IER)&UART_IER_UUE, 0);
	/* scratch and divisor keep what they are given, apart from each other */
	out(UART_SCR, 0xa5);
	out(UART_LCR, UART_LCR_DLAB);
	out(UART_DLL, 0x01);
	out(UART_DLM, 0xfe);
	assert_int_equal(in(UART_DLL), 0x01);
	assert_int_equal(in(UART_DLM), 0xfe);
	out(UART_LCR, saved_lcr);
	assert_int_equal(in(UART_SCR), 0xa5);
	assert_int_equal(in(UART_IER), 0);
	assert_int_equal(in(UART_LSR), UART_LSR_TEMT | UART_LSR_THRE);
	assert_int_equal(in(UART_MSR)&0xf0, UART_MSR_CTS | UART_MSR_DSR | UART_MSR_DCD);
	assert_false(irq.line);
}

/* Without these a driver takes the chip for a broken one and polls by a timer. */
static void test_thre_interrupt(void **state)
{
	(void)state;
	open_port();
	for (int i = 0; i < 2; i++) { /* enabled again, it must interrupt again */
		out(UART_IER, UART_IER_THRI);
		assert_true(irq.line);
		assert_int_equal(in(UART_IIR), 0xc0 | UART_IIR_THRI);
		assert_false(irq.line); /* reading IIR took it */
		assert_int_equal(in(UART_IIR), 0xc0 | UART_IIR_NO_INT);
		out(UART_IER, 0);
	}
	/* written again while it is on: no new event */
	out(UART_IER, UART_IER_THRI);
	in(UART_IIR);
	out(UART_IER, UART_IER_THRI | UART_IER_RDI);
	assert_false(irq.line);
	/* each byte sent is one */
	out(UART_TX, 'a');
	assert_true(irq.line);
	out(UART_IER, 0);
	assert_false(irq.line);
	assert_string_equal(printed(), "a");
}

static void test_print(void **state)
{
	u8 byte[64];

	(void)state;
	open_port();
	for (const char *p = "Linux version"; *p; p++) {
		assert_true(in(UART_LSR)&UART_LSR_THRE);
		out(UART_TX, (u8)*p);
	}
	assert_int_equal(wakes, 1); /* empty to not empty: once */
	assert_int_equal(uart_output(uart, byte, 5), 5);
	assert_memory_equal(byte, "Linux", 5);
	out(UART_TX, '!');
	assert_int_equal(wakes, 1);
	assert_string_equal(printed(), " version!");
	out(UART_TX, '?');
	assert_int_equal(wakes, 2);
}

/* The transmitter of a host that does not take: busy, with room for the FIFO a driver was promised.
 */
static void test_full_output(void **state)
{
	static u8 taken[KIB(16)];
	u32 sent = 0, got = 0;

	(void)state;
	open_port();
	for (int round = 0; round < 3; round++) {
		out(UART_IER, UART_IER_THRI);
		while (in(UART_LSR)&UART_LSR_THRE) {
			assert_true(sent < 1000000);
			for (int i = 0; i < 16; i++)
				out(UART_TX, (u8)(sent++ * 7));
		}
		assert_int_equal(in(UART_LSR) & (UART_LSR_THRE | UART_LSR_TEMT), 0);
		assert_false(irq.line);
		out(UART_IER, 0);
		out(UART_IER, UART_IER_THRI);
		assert_false(irq.line); /* busy: not even by enabling it */
		while (!irq.line) {
			size_t n = uart_output(uart, taken, 1000);

			assert_true(n > 0);
			for (size_t i = 0; i < n; i++)
				assert_int_equal(taken[i], (u8)(got++ * 7));
		}
		assert_true(in(UART_LSR)&UART_LSR_TEMT);
	}
	while (uart_output(uart, taken, sizeof(taken)))
		;
	/* who does not look at THRE loses the newest, and nothing else breaks */
	for (int i = 0; i < 40000; i++)
		out(UART_TX, (u8)(i / 100));
	assert_int_equal(uart_output(uart, taken, sizeof(taken)), sizeof(taken));
	for (u32 i = 0; i < sizeof(taken); i++)
		assert_int_equal(taken[i], (u8)(i / 100));
	assert_int_equal(uart_output(uart, taken, sizeof(taken)), 0);
}

static void test_input_waits_for_rts(void **state)
{
	(void)state;
	assert_int_equal(give("hello"), 5);
	out(UART_FCR, UART_FCR_ENABLE_FIFO);
	out(UART_IER, UART_IER_RDI);
	assert_false(irq.line);
	assert_false(in(UART_LSR)&UART_LSR_DR);
	assert_int_equal(in(UART_RX), 0);
	out(UART_MCR, UART_MCR_DTR);
	assert_false(irq.line);
	out(UART_MCR, UART_MCR_RTS);
	assert_true(irq.line);
	assert_true(in(UART_LSR)&UART_LSR_DR);
	assert_int_equal(in(UART_RX), 'h');
	out(UART_MCR, 0); /* "not now" */
	assert_false(irq.line);
	assert_int_equal(in(UART_RX), 0);
	out(UART_MCR, UART_MCR_RTS | UART_MCR_LOOP); /* the line is cut */
	assert_false(in(UART_LSR)&UART_LSR_DR);
	out(UART_MCR, UART_MCR_RTS);
	/* while the divisor is set, offset 0 is not the receiver */
	out(UART_LCR, UART_LCR_DLAB);
	in(UART_RX);
	in(UART_RX);
	out(UART_LCR, 0);
	for (const char *p = "ello"; *p; p++)
		assert_int_equal(in(UART_RX), *p);
	assert_false(irq.line);
}

static void test_receive_interrupts(void **state)
{
	(void)state;
	open_port();
	out(UART_IER, UART_IER_RDI);
	give("1234567");
	assert_int_equal(in(UART_IIR), 0xc0 | UART_IIR_RX_TIMEOUT); /* below the trigger */
	give("8");
	assert_int_equal(in(UART_IIR), 0xc0 | UART_IIR_RDI);
	assert_int_equal(in(UART_RX), '1');
	assert_int_equal(in(UART_IIR), 0xc0 | UART_IIR_RX_TIMEOUT);
	out(UART_FCR, 0); /* the mode's change clears */
	assert_int_equal(in(UART_IIR), UART_IIR_NO_INT);
	give("ab");
	assert_int_equal(in(UART_IIR), UART_IIR_RDI);
	/* data comes before an empty transmitter, and that before the modem's lines */
	out(UART_MCR, 0);
	out(UART_MCR, UART_MCR_LOOP);
	out(UART_MCR, UART_MCR_RTS);
	out(UART_IER, UART_IER_RDI | UART_IER_THRI | UART_IER_MSI);
	assert_int_equal(in(UART_IIR), UART_IIR_RDI);
	in(UART_RX);
	in(UART_RX);
	assert_int_equal(in(UART_IIR), UART_IIR_THRI);
	assert_int_equal(in(UART_IIR), UART_IIR_MSI);
	assert_true(irq.line);
	assert_int_equal(in(UART_MSR)&0x0f, UART_MSR_DCTS | UART_MSR_DDSR | UART_MSR_DDCD);
	assert_int_equal(in(UART_MSR)&0x0f, 0);
	assert_false(irq.line);
}

/* A driver's start-up clears the FIFO three times and reads the receiver; what the host typed
 * before is there after it. */
static void test_clear(void **state)
{
	(void)state;
	assert_int_equal(give("0123456789abcdefghijklmnopqrstuvwxyz"), 36);
	out(UART_FCR, UART_FCR_ENABLE_FIFO);
	out(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR | UART_FCR_CLEAR_XMIT);
	out(UART_FCR, 0);
	in(UART_RX);
	open_port();
	/* RTS is up now: a clear takes the FIFO that the guest saw, once */
	assert_true(in(UART_LSR)&UART_LSR_DR);
	out(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR);
	out(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR);
	out(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR);
	assert_int_equal(in(UART_RX), 'g');
	/* and an empty FIFO is what a clear leaves, if no more than a FIFO was there */
	while (in(UART_LSR)&UART_LSR_DR)
		in(UART_RX);
	give("stale");
	assert_true(in(UART_LSR)&UART_LSR_DR);
	out(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR);
	assert_false(in(UART_LSR)&UART_LSR_DR);
}

static void test_break(void **state)
{
	(void)state;
	open_port();
	out(UART_IER, UART_IER_RDI | UART_IER_RLSI);
	give("a");
	uart_break(uart);
	give("h");
	assert_false(in(UART_LSR)&UART_LSR_BI); /* not its turn yet */
	assert_int_equal(in(UART_RX), 'a');
	assert_int_equal(in(UART_IIR)&0x0f, UART_IIR_RLSI);
	assert_int_equal(in(UART_LSR) & (UART_LSR_BI | UART_LSR_DR | UART_LSR_FIFOE),
			 UART_LSR_BI | UART_LSR_DR | UART_LSR_FIFOE);
	assert_false(in(UART_LSR)&UART_LSR_BI); /* told once */
	assert_int_equal(in(UART_IIR)&0x0f, UART_IIR_RX_TIMEOUT);
	assert_int_equal(in(UART_RX), 0);
	assert_int_equal(in(UART_LSR) & (UART_LSR_BI | UART_LSR_DR), UART_LSR_DR);
	assert_int_equal(in(UART_RX), 'h');
	assert_false(irq.line);
	/* a full ring still takes it */
	for (int i = 0; i < 5000; i++)
		give("x");
	for (int i = 0; i < 100; i++)
		uart_break(uart);
	for (int i = 0; i < 4096; i++)
		assert_int_equal(in(UART_RX), 'x');
	assert_true(in(UART_LSR)&UART_LSR_BI);
}

static void test_loopback_data(void **state)
{
	(void)state;
	open_port();
	give("host");
	out(UART_MCR, UART_MCR_LOOP | UART_MCR_RTS);
	assert_false(in(UART_LSR)&UART_LSR_DR);
	for (u8 i = 0; i < 20; i++)
		out(UART_TX, i);
	assert_string_equal(printed(), ""); /* nothing leaves */
	assert_true(in(UART_LSR)&UART_LSR_OE);
	for (u8 i = 0; i < 16; i++) {
		assert_true(in(UART_LSR)&UART_LSR_DR);
		assert_int_equal(in(UART_RX), i);
	}
	assert_false(in(UART_LSR)&UART_LSR_DR);
	out(UART_MCR, UART_MCR_RTS);
	assert_int_equal(in(UART_RX), 'h'); /* the host's input outlived it */
}

static void test_reset(void **state)
{
	(void)state;
	open_port();
	out(UART_TX, 'x');
	out(UART_IER, 0x0f);
	out(UART_LCR, UART_LCR_DLAB);
	give("kept");
	uart_reset(uart);
	assert_false(irq.line);
	assert_int_equal(in(UART_IER), 0);
	assert_int_equal(in(UART_MCR), 0);
	assert_int_equal(in(UART_LCR), 0);
	assert_int_equal(in(UART_IIR), UART_IIR_NO_INT);
	assert_string_equal(printed(), "x");
	open_port();
	assert_int_equal(in(UART_RX), 'k');
}

/* ---- a megabyte, two threads, a driver that drops RTS, clears and resets its modes while it does
 * not listen ---- */

#define PASTE MIB(1)

static u8 pasted(u32 n)
{
	return (u8)(n * 2654435761u >> 24);
}

static void *paste(void *arg)
{
	u32 sent = 0, seen = wakes;
	u8 chunk[1500];

	(void)arg;
	while (sent < PASTE) {
		size_t size = PASTE - sent < sizeof(chunk) ? PASTE - sent : sizeof(chunk), taken;

		for (u32 i = 0; i < size; i++)
			chunk[i] = pasted(sent + i);
		taken = uart_input(uart, chunk, size);
		sent += (u32)taken;
		if (taken < size) { /* wait to be told, however long: a lost wake hangs the test */
			while (atomic_load(&wakes) == seen)
				usleep(10);
			seen = atomic_load(&wakes);
		}
	}
	return NULL;
}

static void test_megabyte(void **state)
{
	u32 got = 0, random = 1;
	pthread_t thread;

	(void)state;
	alarm(120);
	assert_int_equal(pthread_create(&thread, NULL, paste, NULL), 0);
	open_port();
	out(UART_IER, UART_IER_RDI | UART_IER_RLSI);
	while (got < PASTE) {
		u8 lsr;

		random = random * 1103515245 + 12345;
		if (random >> 24 == 7) {
			out(UART_MCR, UART_MCR_DTR);
			out(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR);
			out(UART_FCR, 0);
			in(UART_RX);
			open_port();
		}
		for (int i = 0; i < 256 && (lsr = in(UART_LSR)) & UART_LSR_DR; i++) {
			assert_false(lsr & UART_LSR_BRK_ERROR_BITS);
			if (in(UART_RX) != pasted(got++))
				fail_msg("byte %u is wrong", got - 1);
		}
	}
	assert_false(in(UART_LSR)&UART_LSR_DR);
	pthread_join(thread, NULL);
	alarm(0);
}

/* Any access at all: the line says what IIR says, and nothing is corrupted (the sanitizers look).
 */
static void test_anything(void **state)
{
	static const unsigned int sizes[] = { 1, 1, 1, 2, 4, 8 };
	u8 bytes[300] = { 0 };

	(void)state;
	srand(16550);
	for (int i = 0; i < 300000; i++) {
		u64 reg = (u64)rand() % 8;
		unsigned int size = sizes[rand() % 6];

		switch (rand() % 8) {
		case 0:
		case 1:
		case 2:
			bus_write(bus, BUS_PIO, LAYOUT_PORT_UART + reg, size, (u64)rand() * 77777u);
			break;
		case 3:
		case 4:
			bus_read(bus, BUS_PIO, LAYOUT_PORT_UART + reg, size);
			break;
		case 5:
			assert_true(uart_input(uart, bytes, (size_t)rand() % 300) < 300);
			break;
		case 6:
			assert_true(uart_output(uart, bytes, (size_t)rand() % 300) < 300);
			break;
		case 7:
			uart_break(uart);
			break;
		}
		if (i % 100 == 0) {
			bool line = irq.line;

			assert_int_equal(!(in(UART_IIR)&UART_IIR_NO_INT), line);
		}
	}
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_probe),
		TEST(test_thre_interrupt),
		TEST(test_print),
		TEST(test_full_output),
		TEST(test_input_waits_for_rts),
		TEST(test_receive_interrupts),
		TEST(test_clear),
		TEST(test_break),
		TEST(test_loopback_data),
		TEST(test_reset),
		TEST(test_megabyte),
		TEST(test_anything),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
