/*
 * 16550A serial port (National Semiconductor PC16550D data sheet, section 8): registers on vCPU
 * threads, the host's side on the main thread, one lock between them.
 *
 * The wire is two rings. What the guest sends is on it at once; when the ring is nearly full, the
 * transmitter reads as busy. What the host sends waits in its ring and is seen by the guest only
 * while RTS says that it listens; the receive FIFO is no more than a view of the ring's head, so
 * nothing can overrun.
 */
#include <errno.h>
#include <linux/serial_reg.h>
#include <pthread.h>
#include <stdlib.h>

#include "vm/bus.h"
#include "vm/irq.h"
#include "vm/layout.h"
#include "vm/uart.h"

#define REGISTERS 8
#define FIFO_SIZE 16

#define TX_SIZE	  KIB(16)
#define TX_ENOUGH (TX_SIZE / 2) /* room at which a full transmitter is ready again */
#define RX_SIZE	  KIB(4)
#define RX_BREAKS 16 /* room that only breaks may use */
#define RX_ENOUGH (RX_SIZE / 2)
#define RX_BREAK  0x100 /* an entry that is a break: a null with an error */

#define IIR_FIFO_ENABLED 0xc0 /* both bits: a 16550A, whose FIFOs work */
#define IER_BITS	 (UART_IER_RDI | UART_IER_THRI | UART_IER_RLSI | UART_IER_MSI)
#define MCR_BITS	 (UART_MCR_DTR | UART_MCR_RTS | UART_MCR_OUT1 | UART_MCR_OUT2 | UART_MCR_LOOP)
/* Who is connected is there, and ready. */
#define MSR_CONNECTED (UART_MSR_CTS | UART_MSR_DSR | UART_MSR_DCD)

struct uart {
	struct bus *bus;
	struct irq *irq;
	uart_wake_fn wake;
	void *wake_owner;
	struct bus_region region;

	pthread_mutex_t lock; /* all below */
	u8 ier, lcr, mcr, scr, dll, dlm;
	bool fifo;	 /* FCR bit 0 */
	u8 trigger;	 /* bytes that make it a data interrupt, not a timeout */
	u8 lsr_errors;	 /* kept until LSR is read */
	u8 msr_deltas;	 /* kept until MSR is read */
	bool thre_event; /* the transmitter ran empty and nobody asked yet */
	bool tx_busy;	 /* the ring is nearly full */
	bool line;	 /* the interrupt line's level */
	bool head_told;	 /* the break at the ring's head is in lsr_errors */
	bool refused;	 /* the host waits for room */
	u32 offered;	 /* bytes at the ring's head that the guest can know of */
	u32 loop_head, loop_count;
	u32 tx_head, tx_count, rx_head, rx_count;
	u8 loop[FIFO_SIZE];
	u8 tx[TX_SIZE];
	u16 rx[RX_SIZE + RX_BREAKS];
};

/* ---- the receiver ---- */

/* Does the host's ring show? */
static bool is_listening(const struct uart *uart)
{
	return (uart->mcr & (UART_MCR_RTS | UART_MCR_LOOP)) == UART_MCR_RTS;
}

/* Bytes in the guest's FIFO. */
static u32 received(const struct uart *uart)
{
	u32 size = uart->fifo ? FIFO_SIZE : 1;

	if (uart->loop_count)
		return uart->loop_count;
	if (!is_listening(uart))
		return 0;
	return uart->rx_count < size ? uart->rx_count : size;
}

static void drop_received(struct uart *uart, u32 n)
{
	uart->rx_head = (uart->rx_head + n) % ARRAY_SIZE(uart->rx);
	uart->rx_count -= n;
	uart->offered -= n < uart->offered ? n : uart->offered;
	uart->head_told = false;
}

static u8 read_received(struct uart *uart)
{
	u8 byte;

	if (!received(uart))
		return 0;
	if (uart->loop_count) {
		byte = uart->loop[uart->loop_head];
		uart->loop_head = (uart->loop_head + 1) % FIFO_SIZE;
		uart->loop_count--;
		return byte;
	}
	byte = (u8)uart->rx[uart->rx_head];
	drop_received(uart, 1);
	return byte;
}

static void receive_looped(struct uart *uart, u8 byte)
{
	u32 size = uart->fifo ? FIFO_SIZE : 1;

	if (uart->loop_count >= size) {
		uart->lsr_errors |= UART_LSR_OE;
		if (!uart->fifo) /* the holding register takes the newer one */
			uart->loop[uart->loop_head] = byte;
		return;
	}
	uart->loop[(uart->loop_head + uart->loop_count++) % FIFO_SIZE] = byte;
}

/*
 * FCR's clear empties the FIFO. The host's bytes go only as far as the guest can have known that
 * they were there: the others are as good as not yet arrived, and a driver that clears three times
 * while it probes takes no more than one FIFO.
 */
static void clear_received(struct uart *uart)
{
	uart->loop_count = 0;
	drop_received(uart, uart->offered);
	uart->lsr_errors &= (u8)~UART_LSR_BRK_ERROR_BITS;
}

/* ---- interrupts ---- */

/* The highest in priority (data sheet, table III), as IIR reads it. */
static u8 interrupt_id(const struct uart *uart)
{
	u32 count = received(uart);

	if (uart->ier & UART_IER_RLSI && uart->lsr_errors)
		return UART_IIR_RLSI;
	if (uart->ier & UART_IER_RDI && count)
		return uart->fifo && count < uart->trigger ? UART_IIR_RX_TIMEOUT : UART_IIR_RDI;
	if (uart->ier & UART_IER_THRI && uart->thre_event)
		return UART_IIR_THRI;
	if (uart->ier & UART_IER_MSI && uart->msr_deltas)
		return UART_IIR_MSI;
	return UART_IIR_NO_INT;
}

/* Brings what follows from the state in line with it; ends every change. */
static void update(struct uart *uart)
{
	bool line;

	if (!uart->loop_count && received(uart) && !uart->head_told &&
	    uart->rx[uart->rx_head] & RX_BREAK) {
		uart->head_told = true;
		uart->lsr_errors |= UART_LSR_BI;
	}
	if (uart->ier & UART_IER_RDI && !uart->loop_count)
		uart->offered = received(uart);
	line = interrupt_id(uart) != UART_IIR_NO_INT;
	if (line != uart->line) {
		uart->line = line;
		irq_line_set(uart->irq, LAYOUT_GSI_UART, line);
	}
}

/* ---- registers ---- */

static u8 read_lsr(struct uart *uart)
{
	u8 lsr = uart->lsr_errors;

	if (uart->fifo && lsr & UART_LSR_BI)
		lsr |= UART_LSR_FIFOE;
	if (received(uart))
		lsr |= UART_LSR_DR;
	if (!uart->tx_busy)
		lsr |= UART_LSR_THRE | UART_LSR_TEMT;
	uart->lsr_errors = 0;
	if (!uart->loop_count)
		uart->offered = received(uart);
	return lsr;
}

/* In loopback the outputs are the inputs (data sheet, 8.7). */
static u8 modem_lines(const struct uart *uart)
{
	u8 lines = 0;

	if (!(uart->mcr & UART_MCR_LOOP))
		return MSR_CONNECTED;
	if (uart->mcr & UART_MCR_RTS)
		lines |= UART_MSR_CTS;
	if (uart->mcr & UART_MCR_DTR)
		lines |= UART_MSR_DSR;
	if (uart->mcr & UART_MCR_OUT1)
		lines |= UART_MSR_RI;
	if (uart->mcr & UART_MCR_OUT2)
		lines |= UART_MSR_DCD;
	return lines;
}

static void write_mcr(struct uart *uart, u8 value)
{
	u8 before = modem_lines(uart), after, changed;

	uart->mcr = value & MCR_BITS;
	if (!is_listening(uart))
		uart->offered = 0;
	after = modem_lines(uart);
	changed = before ^ after;
	if (changed & UART_MSR_CTS)
		uart->msr_deltas |= UART_MSR_DCTS;
	if (changed & UART_MSR_DSR)
		uart->msr_deltas |= UART_MSR_DDSR;
	if (changed & before & UART_MSR_RI) /* its trailing edge alone */
		uart->msr_deltas |= UART_MSR_TERI;
	if (changed & UART_MSR_DCD)
		uart->msr_deltas |= UART_MSR_DDCD;
}

static void write_fcr(struct uart *uart, u8 value)
{
	static const u8 triggers[] = { 1, 4, 8, 14 };
	bool fifo = value & UART_FCR_ENABLE_FIFO;

	/* a change of mode clears too; the other bits count only with bit 0 (data sheet, 8.4) */
	if (fifo != uart->fifo || (fifo && value & UART_FCR_CLEAR_RCVR))
		clear_received(uart);
	uart->fifo = fifo;
	if (fifo)
		uart->trigger = triggers[value >> 6];
}

static void write_ier(struct uart *uart, u8 value)
{
	/* enabling it while the transmitter is empty is an interrupt at once: drivers start sending
	 * by it */
	if (value & ~uart->ier & UART_IER_THRI)
		uart->thre_event = !uart->tx_busy;
	uart->ier = value & IER_BITS;
}

/* Returns whether the host must be told. */
static bool transmit(struct uart *uart, u8 byte)
{
	if (uart->mcr & UART_MCR_LOOP) {
		receive_looped(uart, byte);
		uart->thre_event = true;
		return false;
	}
	/* a driver may send a whole FIFO for each THRE; one that does not look at it loses what
	 * overflows, as on the wire */
	if (uart->tx_count < TX_SIZE)
		uart->tx[(uart->tx_head + uart->tx_count++) % TX_SIZE] = byte;
	uart->tx_busy = TX_SIZE - uart->tx_count < FIFO_SIZE;
	uart->thre_event = !uart->tx_busy;
	return uart->tx_count == 1;
}

static u8 read_register(struct uart *uart, u64 offset)
{
	bool dlab = uart->lcr & UART_LCR_DLAB;
	u8 value;

	switch (offset) {
	case UART_RX:
		return dlab ? uart->dll : read_received(uart);
	case UART_IER:
		return dlab ? uart->dlm : uart->ier;
	case UART_IIR:
		value = interrupt_id(uart);
		if (value == UART_IIR_THRI)
			uart->thre_event = false;
		return value | (uart->fifo ? IIR_FIFO_ENABLED : 0);
	case UART_LCR:
		return uart->lcr;
	case UART_MCR:
		return uart->mcr;
	case UART_LSR:
		return read_lsr(uart);
	case UART_MSR:
		value = modem_lines(uart) | uart->msr_deltas;
		uart->msr_deltas = 0;
		return value;
	default:
		return uart->scr;
	}
}

static bool write_register(struct uart *uart, u64 offset, u8 value)
{
	bool dlab = uart->lcr & UART_LCR_DLAB;

	switch (offset) {
	case UART_TX:
		if (!dlab)
			return transmit(uart, value);
		uart->dll = value;
		break;
	case UART_IER:
		if (dlab)
			uart->dlm = value;
		else
			write_ier(uart, value);
		break;
	case UART_FCR:
		write_fcr(uart, value);
		break;
	case UART_LCR:
		uart->lcr = value;
		break;
	case UART_MCR:
		write_mcr(uart, value);
		break;
	case UART_LSR:
	case UART_MSR:
		break; /* read-only */
	case UART_SCR:
		uart->scr = value;
		break;
	}
	return false;
}

/* Room for input that had to be refused? Says it once. */
static bool has_news_of_room(struct uart *uart)
{
	if (!uart->refused || uart->rx_count > RX_ENOUGH)
		return false;
	uart->refused = false;
	return true;
}

static u64 uart_read(void *owner, u64 offset, unsigned int size)
{
	struct uart *uart = owner;
	u64 value = 0;
	bool wake;

	pthread_mutex_lock(&uart->lock);
	for (unsigned int i = 0; i < size; i++) {
		value |= (u64)read_register(uart, offset + i) << (8 * i);
		update(uart);
	}
	wake = has_news_of_room(uart);
	pthread_mutex_unlock(&uart->lock);
	if (wake)
		uart->wake(uart->wake_owner);
	return value;
}

static void uart_write(void *owner, u64 offset, unsigned int size, u64 value)
{
	struct uart *uart = owner;
	bool wake = false;

	pthread_mutex_lock(&uart->lock);
	for (unsigned int i = 0; i < size; i++) {
		wake |= write_register(uart, offset + i, (u8)(value >> (8 * i)));
		update(uart);
	}
	wake |= has_news_of_room(uart);
	pthread_mutex_unlock(&uart->lock);
	if (wake)
		uart->wake(uart->wake_owner);
}

static const struct bus_ops uart_ops = { .read = uart_read, .write = uart_write };

/* ---- the host's side ---- */

int uart_create(struct uart **result, struct bus *bus, struct irq *irq, uart_wake_fn wake,
		void *owner)
{
	struct uart *uart = calloc(1, sizeof(*uart));
	int err;

	if (!uart)
		return -ENOMEM;
	uart->bus = bus;
	uart->irq = irq;
	uart->wake = wake;
	uart->wake_owner = owner;
	uart->trigger = 1;
	uart->region = (struct bus_region){ BUS_PIO, LAYOUT_PORT_UART, REGISTERS, &uart_ops, uart };
	pthread_mutex_init(&uart->lock, NULL);
	err = bus_map(bus, &uart->region);
	if (err) {
		pthread_mutex_destroy(&uart->lock);
		free(uart);
		return err;
	}
	*result = uart;
	return 0;
}

void uart_destroy(struct uart *uart)
{
	if (!uart)
		return;
	bus_unmap(uart->bus, &uart->region);
	pthread_mutex_destroy(&uart->lock);
	free(uart);
}

void uart_reset(struct uart *uart)
{
	pthread_mutex_lock(&uart->lock);
	uart->ier = uart->lcr = uart->mcr = uart->scr = uart->dll = uart->dlm = 0;
	uart->fifo = false;
	uart->trigger = 1;
	uart->lsr_errors = uart->msr_deltas = 0;
	uart->thre_event = false;
	uart->head_told = false;
	uart->offered = uart->loop_count = 0;
	update(uart);
	pthread_mutex_unlock(&uart->lock);
}

size_t uart_output(struct uart *uart, u8 *to, size_t size)
{
	size_t taken = 0;

	pthread_mutex_lock(&uart->lock);
	while (taken < size && uart->tx_count) {
		size_t run = TX_SIZE - uart->tx_head;

		if (run > uart->tx_count)
			run = uart->tx_count;
		if (run > size - taken)
			run = size - taken;
		memcpy(to + taken, uart->tx + uart->tx_head, run);
		uart->tx_head = (u32)((uart->tx_head + run) % TX_SIZE);
		uart->tx_count -= (u32)run;
		taken += run;
	}
	if (uart->tx_busy && TX_SIZE - uart->tx_count >= TX_ENOUGH) {
		uart->tx_busy = false;
		uart->thre_event = true;
	}
	update(uart);
	pthread_mutex_unlock(&uart->lock);
	return taken;
}

static void put_received(struct uart *uart, u16 entry)
{
	uart->rx[(uart->rx_head + uart->rx_count) % ARRAY_SIZE(uart->rx)] = entry;
	uart->rx_count++;
}

size_t uart_input(struct uart *uart, const u8 *from, size_t size)
{
	size_t taken = 0;

	pthread_mutex_lock(&uart->lock);
	while (taken < size && uart->rx_count < RX_SIZE)
		put_received(uart, from[taken++]);
	if (taken < size)
		uart->refused = true;
	update(uart);
	pthread_mutex_unlock(&uart->lock);
	return taken;
}

void uart_break(struct uart *uart)
{
	pthread_mutex_lock(&uart->lock);
	if (uart->rx_count < ARRAY_SIZE(uart->rx))
		put_received(uart, RX_BREAK);
	update(uart);
	pthread_mutex_unlock(&uart->lock);
}
