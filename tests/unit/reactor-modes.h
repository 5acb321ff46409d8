/* The ways in which reactors can run: on every engine, and on io_uring without each feature that a
 * kernel may lack, as on the oldest that will do (Linux 5.15: "without anything"). */
#ifndef TESTS_UNIT_REACTOR_MODES_H
#define TESTS_UNIT_REACTOR_MODES_H

#include "vm/reactor.h"

struct reactor_mode {
	const char *name;
	bool force_epoll;
	u32 refuse;
	u32 poll_us;
	bool sqpoll;
};

static const struct reactor_mode reactor_modes[] = {
	{ .name = "io_uring" },
	{ .name = "io_uring without DEFER_TASKRUN", .refuse = REACTOR_REFUSE_DEFER_TASKRUN },
	{ .name = "io_uring without SINGLE_ISSUER", .refuse = REACTOR_REFUSE_SINGLE_ISSUER },
	{ .name = "io_uring without COOP_TASKRUN", .refuse = REACTOR_REFUSE_COOP_TASKRUN },
	{ .name = "io_uring without SUBMIT_ALL", .refuse = REACTOR_REFUSE_SUBMIT_ALL },
	{ .name = "io_uring without CQE_SKIP", .refuse = REACTOR_REFUSE_CQE_SKIP },
	{ .name = "io_uring without sparse tables", .refuse = REACTOR_REFUSE_SPARSE },
	{ .name = "io_uring without registered rings", .refuse = REACTOR_REFUSE_RING_FD },
	{ .name = "io_uring without NOWAIT", .refuse = REACTOR_REFUSE_NOWAIT },
	{ .name = "io_uring without anything", .refuse = REACTOR_REFUSE_ALL },
	{ .name = "io_uring, busy-polling", .poll_us = 1000 },
	{ .name = "io_uring without anything, busy-polling",
	  .refuse = REACTOR_REFUSE_ALL,
	  .poll_us = 1000 },
	{ .name = "io_uring, sqpoll", .sqpoll = true },
	{ .name = "io_uring without anything, sqpoll",
	  .refuse = REACTOR_REFUSE_ALL,
	  .sqpoll = true },
	{ .name = "io_uring, sqpoll, busy-polling", .sqpoll = true, .poll_us = 1000 },
	{ .name = "epoll", .force_epoll = true },
};

#endif
