/*
 * The data path of a disk in one process, without KVM: a driver's thread beside the real reactor,
 * ring and device, to be counted where a virtual machine cannot be, or not exactly.
 *
 *   datapath [-d] [-p POLL-US] [-q DEPTH] [-n REQUESTS] [-i] [-P] [-F] [-s] FILE
 *
 * 4 KiB random reads of FILE (-d: O_DIRECT), DEPTH at a time, the next ones when all have ended.
 * The driver looks for their end; -i: it sleeps until it is interrupted. -P: a packed ring, -F: no
 * EVENT_IDX. Prints, for each request: doorbells, io_uring_enters, sweeps, interrupts,
 * busy-polling windows that found work and that found none, and the event thread's CPU; -s: the
 * event thread's instructions outside the kernel, exactly (it is single-stepped: some thousand
 * requests will do).
 */
#include "tests/unit/driver.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include "backends/disk.h"
#include "virtio/blk.h"
#include "vm/reactor-engine.h"

#define RAM	  MIB(32)
#define RINGS	  0x10000ull
#define REQUESTS  MIB(1)
#define DATA	  MIB(4)
#define SIZE	  4096u
#define DEPTH_MAX 256u

static struct driver_machine machine;
static struct disk disk;
static struct virtio_blk *blk;
static struct driver_ring ring;
static u32 depth = 1, requests = 20000, seed = 7;
static bool direct, sleeps, plain, steps;
static int interrupt_fd;
static const char *path;

static u32 draw(u32 below)
{
	seed = seed * 1664525 + 1013904223;
	return (u32)((u64)seed * below >> 32);
}

static void set_up(void)
{
	struct disk_config disk_config = { .path = path, .readonly = true, .direct = direct };
	struct virtio_blk_options config = {
		.name = "blk0", .queues = 1, .serial = "", .features = driver_features()
	};

	if (disk_open(&disk, &disk_config))
		exit(1);
	driver_machine_up(&machine, RAM, 1, false);
	if (disk_register(&disk, machine.reactors))
		exit(1);
	config.memory = &machine.memory;
	config.reactors = machine.reactors;
	config.disk = &disk;
	if (virtio_blk_create(&blk, &config))
		exit(1);
	interrupt_fd = driver_interrupt(&machine, &virtio_blk_device(blk)->queues[0]);
	driver_machine_go(&machine);
	driver_negotiate(virtio_blk_device(blk),
			 BIT64(VIRTIO_RING_F_INDIRECT_DESC) |
				 (plain ? 0 : BIT64(VIRTIO_RING_F_EVENT_IDX)));
	driver_ring_init(&ring, &machine.memory, RINGS, DEPTH_MAX, !plain);
	driver_queue(virtio_blk_device(blk), 0, &ring);
	driver_ok(virtio_blk_device(blk));
}

/* In an indirect table, as Linux does. */
static void add(u32 n, u32 blocks)
{
	u64 at = REQUESTS + n * 256ull;
	const struct driver_part parts[] = { { at, 16, false },
					     { DATA + n * (u64)SIZE, SIZE, true },
					     { at + 16, 1, true } };
	u8 *header = memory_at(&machine.memory, at, 17);

	memset(header, 0, 16); /* VIRTIO_BLK_T_IN */
	le64_store(header + 8, (u64)draw(blocks) * (SIZE / 512));
	header[16] = 0xff;
	if (driver_add_indirect(&ring, at + 64, parts, 3) < 0)
		exit(1);
}

static void await_all(u32 count)
{
	while (count) {
		if (driver_used(&ring, NULL, NULL))
			count--;
		else if (!sleeps)
			__builtin_ia32_pause();
		else if (!driver_arm(&ring, (u16)count))
			driver_wait_interrupt(interrupt_fd);
	}
}

static void work(u32 count, u32 blocks)
{
	for (u32 done = 0; done < count; done += depth) {
		for (u32 i = 0; i < depth; i++)
			add(i, blocks);
		driver_kick(&ring);
		await_all(depth);
		if (!sleeps)
			driver_disarm(&ring);
	}
	for (u32 i = 0; i < depth; i++)
		if (*(u8 *)memory_at(&machine.memory, REQUESTS + i * 256ull + 16, 1) != 0)
			exit(1);
}

/* ---- single steps ---- */

static u64 *stepped; /* shared with who steps */

static void gettid_run(void *arg)
{
	*(pid_t *)arg = gettid();
}

static void step(pid_t thread)
{
	int status;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (ptrace(PTRACE_SEIZE, thread, 0, 0) || ptrace(PTRACE_INTERRUPT, thread, 0, 0)) {
		perror("ptrace");
		_exit(1);
	}
	while (waitpid(thread, &status, __WALL) == thread && WIFSTOPPED(status)) {
		__atomic_add_fetch(stepped, 1, __ATOMIC_RELAXED);
		ptrace(PTRACE_SINGLESTEP, thread, 0, 0);
	}
	_exit(1);
}

/* Once the thread sleeps again. */
static u64 steps_now(void)
{
	u64 before, now = 0;

	do {
		before = now;
		usleep(300000);
		now = __atomic_load_n(stepped, __ATOMIC_RELAXED);
	} while (now != before);
	return now;
}

static void print_steps(u32 blocks)
{
	pid_t thread, child;
	u64 before;

	stepped = mmap(NULL, sizeof(*stepped), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);
	if (stepped == MAP_FAILED)
		exit(1);
	work(10 * depth, blocks);
	reactor_call(reactors_get(machine.reactors, 0), gettid_run, &thread);
	child = fork();
	if (!child)
		step(thread);
	prctl(PR_SET_PTRACER, child);
	before = steps_now();
	work(requests, blocks);
	printf("instructions=%.1f\n",
	       (double)(steps_now() - before) / ((requests + depth - 1) / depth * depth));
	fflush(stdout);
	_exit(0); /* a thread that is stepped can do nothing more, and its tracer ends with us */
}

/* ---- counts ---- */

static double cpu_us(void)
{
	struct reactor *reactor = reactors_get(machine.reactors, 0);
	struct timespec t;
	clockid_t clock;

	pthread_getcpuclockid(reactor->thread, &clock);
	clock_gettime(clock, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void print_counts(u32 blocks)
{
	const struct virtio_queue *queue = &virtio_blk_device(blk)->queues[0];
	struct reactor *reactor = reactors_get(machine.reactors, 0);
	struct reactor_counts before, after;
	u64 kicks, interrupts;
	double n, cpu;

	work(requests / 10 / depth * depth, blocks);
	kicks = ring.kicks;
	interrupts = __atomic_load_n(&queue->counts.interrupts, __ATOMIC_RELAXED);
	reactor_counts(reactor, &before);
	cpu = cpu_us();
	work(requests, blocks);
	cpu = cpu_us() - cpu;
	reactor_counts(reactor, &after);
	n = (requests + depth - 1) / depth * depth;
	printf("kicks=%.4f enters=%.4f sweeps=%.4f interrupts=%.4f hit=%.4f missed=%.4f "
	       "cpu_us=%.2f\n",
	       (double)(ring.kicks - kicks) / n, (double)(after.enters - before.enters) / n,
	       (double)(after.sweeps - before.sweeps) / n,
	       (double)(queue->counts.interrupts - interrupts) / n,
	       (double)(after.polls_hit - before.polls_hit) / n,
	       (double)(after.polls_missed - before.polls_missed) / n, cpu / n);
}

int main(int argc, char **argv)
{
	int option;

	while ((option = getopt(argc, argv, "dp:q:n:iPFs")) != -1) {
		switch (option) {
		case 'd':
			direct = true;
			break;
		case 'p':
			driver_poll_us = (u32)atoi(optarg);
			break;
		case 'q':
			depth = (u32)atoi(optarg);
			break;
		case 'n':
			requests = (u32)atoi(optarg);
			break;
		case 'i':
			sleeps = true;
			break;
		case 'P':
			driver_packed = true;
			break;
		case 'F':
			plain = true;
			break;
		case 's':
			steps = true;
			break;
		default:
			return 2;
		}
	}
	path = argv[optind];
	if (!path || !depth || depth > DEPTH_MAX)
		return 2;
	set_up();
	if (steps)
		print_steps((u32)(disk.sectors / (SIZE / 512)));
	else
		print_counts((u32)(disk.sectors / (SIZE / 512)));
	virtio_device_power_on(virtio_blk_device(blk));
	driver_machine_stop(&machine);
	virtio_blk_destroy(blk);
	driver_machine_down(&machine);
	disk_close(&disk);
	close(interrupt_fd);
	return 0;
}
