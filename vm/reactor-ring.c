/*
 * The making of rings: with what the kernel has of io_uring_setup(2)'s flags, an empty table of
 * registered files, and restrictions (io_uring_register(2)). Main thread, but for the last.
 *
 * Kernels from 5.15 on do; what later ones added is taken where it is there.
 */
#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "vm/log.h"
#include "vm/reactor-uring.h"

/* How long a kernel thread looks for SQEs before it sleeps. A wake-up costs what an enter does, so
 * there is nothing in looking for long. */
#define SQPOLL_IDLE_MS 10

/* Later than uring_ring_open(): files of hotplugged devices, and the end. The last is allowed only
 * where the ring's own file is registered, as kernels before 5.18 refuse a list with what they do
 * not know. */
static const u8 allowed_register[] = {
	IORING_REGISTER_FILES_UPDATE,
	IORING_UNREGISTER_FILES,
	IORING_UNREGISTER_RING_FDS,
};

/* Each flag is worth having and none is needed; the newest is given up first. */
static const struct {
	u32 flag, refusal;
} steps[] = {
	{ IORING_SETUP_DEFER_TASKRUN, REACTOR_REFUSE_DEFER_TASKRUN },
	{ IORING_SETUP_SINGLE_ISSUER, REACTOR_REFUSE_SINGLE_ISSUER },
	/* the flag in the ring tells busy-polling of completions that wait in the kernel */
	{ IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, REACTOR_REFUSE_COOP_TASKRUN },
	{ IORING_SETUP_SUBMIT_ALL, REACTOR_REFUSE_SUBMIT_ALL },
};

/* Those of steps[] that are not among `without`, on top of what params has. */
static int make(struct reactor *reactor, struct io_uring *ring, const struct io_uring_params *base,
		u32 without)
{
	u32 flags = base->flags | IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE;
	int error;

	for (u32 i = 0; i < ARRAY_SIZE(steps); i++)
		if (!uring_refused(reactor, steps[i].refusal))
			flags |= steps[i].flag & ~without;
	/* Needs the one, and busy-polling needs the other to know what it puts off. */
	if (!(flags & IORING_SETUP_SINGLE_ISSUER) || !(flags & IORING_SETUP_TASKRUN_FLAG))
		flags &= ~IORING_SETUP_DEFER_TASKRUN;
	for (u32 i = 0;; i++) {
		struct io_uring_params params = *base;

		params.flags = flags;
		params.cq_entries = URING_CQ_ENTRIES;
		error = io_uring_queue_init_params(URING_SQ_ENTRIES, ring, &params);
		if (error != -EINVAL || i == ARRAY_SIZE(steps))
			return error;
		flags &= ~steps[i].flag;
	}
}

/*
 * The kernel's thread acts with the credentials of whoever makes the ring, which is long before the
 * sandbox drops capabilities: so none may be in effect meanwhile.
 */
static int make_sqpoll(struct reactor *reactor, struct io_uring *ring)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct held[_LINUX_CAPABILITY_U32S_3], none[ARRAY_SIZE(held)];
	int cpu = pin_cpu(&reactor->reactors->config.pin_sqpoll, reactor->number);
	struct io_uring_params params = {
		.flags = IORING_SETUP_SQPOLL | (cpu >= 0 ? IORING_SETUP_SQ_AFF : 0),
		.sq_thread_idle = SQPOLL_IDLE_MS,
		.sq_thread_cpu = cpu >= 0 ? (u32)cpu : 0,
	};
	int error;

	if (syscall(SYS_capget, &header, held))
		return -errno;
	memcpy(none, held, sizeof(none));
	for (u32 i = 0; i < ARRAY_SIZE(none); i++)
		none[i].effective = 0;
	if (syscall(SYS_capset, &header, none))
		return -errno;
	/* SQPOLL excludes the flags that put completions off to the thread that waits. */
	error = make(reactor, ring, &params,
		     IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN |
			     IORING_SETUP_TASKRUN_FLAG);
	if (syscall(SYS_capset, &header, held) && !error) {
		error = -errno;
		io_uring_queue_exit(ring);
	}
	return error;
}

int uring_ring_make(struct reactor *reactor, struct io_uring *ring, bool *sqpoll)
{
	const struct io_uring_params params = {};
	int error;

	if (*sqpoll) {
		error = make_sqpoll(reactor, ring);
		if (!error)
			return 0;
		log_line("reactor%u: sqpoll: not possible here (%s); it submits by itself",
			 reactor->number, strerror(-error));
		*sqpoll = false;
	}
	return make(reactor, ring, &params, 0);
}

int uring_ring_make_iopoll(struct reactor *reactor, struct io_uring *ring)
{
	const struct io_uring_params params = { .flags = IORING_SETUP_IOPOLL };

	return make(reactor, ring, &params, 0);
}

int uring_table_make(struct reactor *reactor, struct io_uring *ring)
{
	u32 count = reactor->reactors->max_files;
	int error = -EINVAL;
	int *none;

	if (!uring_refused(reactor, REACTOR_REFUSE_SPARSE))
		error = io_uring_register_files_sparse(ring, count);
	if (!error)
		return 1;
	none = malloc(count * sizeof(*none));
	if (!none)
		return -ENOMEM;
	for (u32 i = 0; i < count; i++)
		none[i] = -1;
	error = io_uring_register_files(ring, none, count);
	free(none);
	return error;
}

/* seccomp does not see what a ring does, so the ring itself is told what it may. (liburing 2.3
 * declares functions for this and for enabling the ring, and forgot to export them.) */
int uring_ring_open(const struct uring *uring, struct io_uring *ring, const u8 *ops, u32 count)
{
	struct io_uring_restriction list[ARRAY_SIZE(allowed_register) + IORING_OP_LAST + 2] = {};
	u32 n = 0, registers = ARRAY_SIZE(allowed_register);
	unsigned int fd = (unsigned int)ring->ring_fd;
	int error;

	for (u32 i = 0; i < count; i++)
		list[n++] = (struct io_uring_restriction){ .opcode = IORING_RESTRICTION_SQE_OP,
							   .sqe_op = ops[i] };
	if (ring->enter_ring_fd == ring->ring_fd)
		registers--;
	for (u32 i = 0; i < registers; i++)
		list[n++] = (struct io_uring_restriction){ .opcode = IORING_RESTRICTION_REGISTER_OP,
							   .register_op = allowed_register[i] };
	list[n++] = (struct io_uring_restriction){
		.opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED,
		.sqe_flags = IOSQE_FIXED_FILE | (uring->skip ? IOSQE_CQE_SKIP_SUCCESS : 0),
	};
	if (uring->flagged_cancel)
		list[n++] = (struct io_uring_restriction){
			.opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED,
			.sqe_flags = IOSQE_FIXED_FILE,
		};
	error = io_uring_register(fd, IORING_REGISTER_RESTRICTIONS, list, n);
	return error ? error : io_uring_register(fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}
