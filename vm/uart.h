/*
 * 16550A serial port (National Semiconductor PC16550D data sheet) at LAYOUT_PORT_UART, with buffers to the host on both sides so that
 * no byte costs a system call of its own. Registers run on vCPU threads, the host side on the main thread.
 */
#ifndef VM_UART_H
#define VM_UART_H

#include "vm/types.h"

struct bus;
struct irq;
struct uart;

/* Called on a vCPU thread, seldom (edges only): output appeared in an empty buffer, or room for input after
 * uart_input() had to refuse some. Must not block. */
typedef void (*uart_wake_fn)(void *owner);

/* 0 or -errno. Main thread. */
int uart_create(struct uart **uart, struct bus *bus, struct irq *irq, uart_wake_fn wake, void *owner);
void uart_destroy(struct uart *uart);
/* Registers to power-on state; buffered output stays. vCPUs paused. */
void uart_reset(struct uart *uart);

/* Takes up to size bytes that the guest sent, oldest first. Returns how many. Main thread. */
size_t uart_output(struct uart *uart, u8 *to, size_t size);
/* Gives input to the guest; returns how many bytes it took (wake() follows when it took less than all). Bytes are
 * handed to the guest's FIFO while it asserts RTS (MCR). Main thread. */
size_t uart_input(struct uart *uart, const u8 *from, size_t size);
/* A break condition on the line. Main thread. */
void uart_break(struct uart *uart);

#endif
