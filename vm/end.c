/*
 * How a run ends: the reason in force is one atomic word, so that anyone, a signal handler
 * too, can set it; an eventfd wakes the main thread.
 */
#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vm/end.h"
#include "vm/log.h"

/*
 * How the guest stops gives way to what befell it, that to what the world outside decided
 * (the NMIs of a timeout may well make the guest panic: it stays a timeout), and a broken host
 * or KVM explains everything else. Among equals the first one stays.
 */
static unsigned int rank(enum end_reason reason)
{
	switch (reason) {
	case END_NONE:
		return 0;
	case END_POWEROFF:
	case END_RESET:
	case END_GUEST_STATUS:
	case END_TRIPLE_FAULT: /* of a second vCPU, while the first one resets */
		return 1;
	case END_PANIC:
		return 2;
	case END_QUIT:
	case END_SIGNAL:
	case END_TIMEOUT:
		return 3;
	case END_KVM_ERROR:
	case END_HOST_ERROR:
		return 4;
	}
	return 0;
}

int end_init(struct end *end)
{
	atomic_init(&end->state, 0);
	end->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return end->fd < 0 ? -errno : 0;
}

void end_request(struct end *end, enum end_reason reason, u32 value)
{
	u64 state = atomic_load(&end->state), one = 1;
	int saved_errno = errno;

	do {
		if (rank(reason) <= rank((enum end_reason)(state >> 32)))
			return;
	} while (!atomic_compare_exchange_weak(&end->state, &state, (u64)reason << 32 | value));
	/* can fail only when the counter is full, and then it is readable anyway */
	while (write(end->fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	errno = saved_errno;
}

enum end_reason end_reason(const struct end *end, u32 *value)
{
	u64 state = atomic_load(&end->state);

	if (value)
		*value = (u32)state;
	return (enum end_reason)(state >> 32);
}

void end_clear(struct end *end)
{
	u64 count;

	atomic_store(&end->state, 0);
	while (read(end->fd, &count, sizeof(count)) < 0 && errno == EINTR)
		;
}

int end_status(enum end_reason reason, u32 value)
{
	switch (reason) {
	case END_NONE:
	case END_POWEROFF:
		return STATUS_OK;
	case END_RESET:
		return STATUS_RESET;
	case END_QUIT:
		return STATUS_QUIT;
	case END_SIGNAL:
		return STATUS_SIGNAL + (int)(value & 0x7f);
	case END_GUEST_STATUS:
		return (int)(value & 0xff);
	case END_PANIC:
		return STATUS_PANIC;
	case END_TRIPLE_FAULT:
		return STATUS_TRIPLE_FAULT;
	case END_TIMEOUT:
		return STATUS_TIMEOUT;
	case END_KVM_ERROR:
		return STATUS_KVM_ERROR;
	case END_HOST_ERROR:
		return STATUS_HOST_ERROR;
	}
	return STATUS_HOST_ERROR;
}

void end_report(enum end_reason reason, u32 value)
{
	switch (reason) {
	case END_PANIC:
		log_line("the guest kernel panicked; status %d", end_status(reason, value));
		break;
	case END_TRIPLE_FAULT:
		log_line("triple fault on vCPU %u: the guest crashed too early to say why; status "
			 "%d",
			 value, end_status(reason, value));
		break;
	case END_TIMEOUT:
		log_line("timeout after %u seconds; an NMI was sent first; status %d", value,
			 end_status(reason, value));
		break;
	case END_RESET:
		log_line("the guest asked for a reset; status %d", end_status(reason, value));
		break;
	case END_SIGNAL:
		log_line("ended by a signal before the guest powered off; status %d",
			 end_status(reason, value));
		break;
	default:
		break;
	}
}
