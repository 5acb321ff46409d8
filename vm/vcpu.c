/*
 * The vCPUs as they run: a thread each calls KVM_RUN and hands the exits to the bus.
 *
 * Stopping: the main thread sets `wanted` and each kvm_run's immediate_exit, then sends a signal. A
 * vCPU in the guest or asleep in KVM returns for the signal; one on its way into KVM_RUN finds
 * immediate_exit; none is missed. KVM finishes a port or memory access only at the next KVM_RUN, so
 * a vCPU re-enters (with immediate_exit) until nothing is left over before it counts as parked:
 * only then are its registers true.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vm/bus.h"
#include "vm/coalesced.h"
#include "vm/end.h"
#include "vm/kvm.h"
#include "vm/log.h"
#include "vm/vcpu-private.h"

#define STACK_SIZE KIB(256)

static void count(struct vcpu *vcpu, enum exit_kind kind)
{
	_Atomic u64 *counter = &vcpu->exits[kind];

	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1,
			      memory_order_relaxed);
}

/* ---- exits ---- */

static void stop_for(struct vcpu *vcpu, enum end_reason reason)
{
	end_request(vcpu->vcpus->config.end, reason, vcpu->index);
	vcpu->leave = true;
}

/* A guest that asked for its end (by a port, mostly) must not run on meanwhile: it may have put
 * nothing behind that instruction. After a panic it may, to write its last words. */
static void leave_if_ended(struct vcpu *vcpu)
{
	switch (end_reason(vcpu->vcpus->config.end, NULL)) {
	case END_POWEROFF:
	case END_RESET:
	case END_GUEST_STATUS:
		vcpu->leave = true;
		break;
	default:
		break;
	}
}

static void do_pio(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	struct bus *bus = vcpu->vcpus->config.bus;
	u8 *data = (u8 *)run + run->io.data_offset;
	u32 size = run->io.size, port = run->io.port;

	/* string instructions come with a count: the same port again and again */
	for (u32 i = 0; i < run->io.count; i++, data += size) {
		if (run->io.direction == KVM_EXIT_IO_OUT)
			bus_write(bus, BUS_PIO, port, size, le_load(data, size));
		else
			le_store(data, size, bus_read(bus, BUS_PIO, port, size));
	}
}

static void do_mmio(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	struct bus *bus = vcpu->vcpus->config.bus;
	u32 size = run->mmio.len <= sizeof(run->mmio.data) ? run->mmio.len : sizeof(run->mmio.data);

	if (run->mmio.is_write)
		bus_write(bus, BUS_MMIO, run->mmio.phys_addr, size, le_load(run->mmio.data, size));
	else
		le_store(run->mmio.data, size, bus_read(bus, BUS_MMIO, run->mmio.phys_addr, size));
}

static void do_system_event(struct vcpu *vcpu)
{
	switch (vcpu->run->system_event.type) {
	case KVM_SYSTEM_EVENT_SHUTDOWN:
		stop_for(vcpu, END_POWEROFF);
		break;
	case KVM_SYSTEM_EVENT_RESET:
		stop_for(vcpu, END_RESET);
		break;
	case KVM_SYSTEM_EVENT_CRASH:
		stop_for(vcpu, END_PANIC);
		break;
	}
}

static u64 current_rip(const struct vcpu *vcpu)
{
	struct kvm_regs regs;

	return ioctl(vcpu->fd, KVM_GET_REGS, &regs) ? 0 : regs.rip;
}

/* The bytes of the instruction that KVM could not emulate, where it tells them. */
static void put_instruction(const struct kvm_run *run, char *text, size_t size)
{
	u32 length = run->emulation_failure.insn_size;

	text[0] = 0;
	if (run->emulation_failure.ndata < 3 ||
	    length > sizeof(run->emulation_failure.insn_bytes) ||
	    !(run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES))
		return;
	for (u32 i = 0; i < length && 3 * i + 4 < size; i++)
		snprintf(text + 3 * i, size - 3 * i, " %02x", run->emulation_failure.insn_bytes[i]);
}

static void do_internal_error(struct vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->run;
	u32 suberror = run->internal.suberror;
	char instruction[64];

	if (suberror == KVM_INTERNAL_ERROR_EMULATION) {
		put_instruction(run, instruction, sizeof(instruction));
		log_line("vCPU %u: KVM cannot emulate the instruction at rip 0x%llx%s%s (suberror "
			 "1); "
			 "a newer host kernel, or a CPU with hardware virtualization, may",
			 vcpu->index, (unsigned long long)current_rip(vcpu),
			 instruction[0] ? ":" : "", instruction);
	} else {
		log_line("vCPU %u: KVM internal error, suberror %u, at rip 0x%llx; see the host's "
			 "kernel log (dmesg)",
			 vcpu->index, suberror, (unsigned long long)current_rip(vcpu));
	}
	stop_for(vcpu, END_KVM_ERROR);
}

static void do_rare_exit(struct vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->run;

	switch (run->exit_reason) {
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_SET_TPR:
		break;
	case KVM_EXIT_SHUTDOWN:
		stop_for(vcpu, END_TRIPLE_FAULT);
		break;
	case KVM_EXIT_SYSTEM_EVENT:
		do_system_event(vcpu);
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		do_internal_error(vcpu);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		log_line("vCPU %u: the CPU refuses to enter the guest at rip 0x%llx: hardware "
			 "reason "
			 "0x%llx; see the host's kernel log (dmesg)",
			 vcpu->index, (unsigned long long)current_rip(vcpu),
			 (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
		stop_for(vcpu, END_KVM_ERROR);
		break;
	case KVM_EXIT_DEBUG:
		if (vcpu->vcpus->config.debug) {
			vcpu->vcpus->config.debug(vcpu->vcpus->config.owner, vcpu->index,
						  &run->debug.arch);
			break;
		}
		/* fallthrough */
	default:
		log_line("vCPU %u: KVM exits with reason %u at rip 0x%llx, which nobody asked for; "
			 "use a current host kernel",
			 vcpu->index, run->exit_reason, (unsigned long long)current_rip(vcpu));
		stop_for(vcpu, END_KVM_ERROR);
	}
}

static void do_exit(struct vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->run;

	coalesced_drain(&vcpu->vcpus->coalesced);
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		count(vcpu, run->io.direction == KVM_EXIT_IO_OUT ? EXIT_PIO_WRITE : EXIT_PIO_READ);
		vcpu->unfinished = true;
		do_pio(vcpu);
		leave_if_ended(vcpu);
		break;
	case KVM_EXIT_MMIO:
		count(vcpu, run->mmio.is_write ? EXIT_MMIO_WRITE : EXIT_MMIO_READ);
		vcpu->unfinished = true;
		do_mmio(vcpu);
		leave_if_ended(vcpu);
		break;
	default:
		count(vcpu, EXIT_OTHER);
		do_rare_exit(vcpu);
	}
}

/* ---- the threads ---- */

static void set_immediate_exit(struct vcpu *vcpu, bool on)
{
	/* KVM reads it in another context of this process: one plain byte store */
	__atomic_store_n(&vcpu->run->immediate_exit, on, __ATOMIC_SEQ_CST);
}

/* Waits until the vCPUs are resumed. False: the thread is to end. */
static bool park(struct vcpu *vcpu)
{
	struct vcpus *vcpus = vcpu->vcpus;
	bool go_on;
	u64 resumes;

	pthread_mutex_lock(&vcpus->lock);
	resumes = vcpus->resumes;
	vcpu->parked = true;
	vcpus->parked_count++;
	pthread_cond_broadcast(&vcpus->parked);
	while (vcpus->wanted != WANTED_END && (vcpus->wanted != WANTED_RUN || vcpu->held ||
					       (vcpu->leave && vcpus->resumes == resumes)))
		pthread_cond_wait(&vcpus->resumed, &vcpus->lock);
	vcpu->parked = false;
	vcpus->parked_count--;
	vcpu->leave = false;
	set_immediate_exit(vcpu, false);
	go_on = vcpus->wanted == WANTED_RUN;
	pthread_mutex_unlock(&vcpus->lock);
	return go_on;
}

/* An NMI can be given only between two KVM_RUNs, which hold the vCPU. */
static void give_nmi(struct vcpu *vcpu)
{
	struct vcpus *vcpus = vcpu->vcpus;

	pthread_mutex_lock(&vcpus->lock);
	if (vcpus->wanted == WANTED_RUN && !vcpu->held)
		set_immediate_exit(vcpu, false);
	pthread_mutex_unlock(&vcpus->lock);
	ioctl(vcpu->fd, KVM_NMI);
}

static void run_once(struct vcpu *vcpu)
{
	if (ioctl(vcpu->fd, KVM_RUN, 0) >= 0) {
		vcpu->unfinished = false;
		do_exit(vcpu);
		return;
	}
	vcpu->unfinished = false;
	/* EAGAIN: an application processor that still waits for its INIT */
	if (errno == EINTR || errno == EAGAIN) {
		count(vcpu, EXIT_INTERRUPTED);
		return;
	}
	log_line("vCPU %u: KVM_RUN: %s, at rip 0x%llx; %s", vcpu->index, strerror(errno),
		 (unsigned long long)current_rip(vcpu),
		 errno == EFAULT || errno == ENOMEM ? "the host may be out of memory (free -m)"
						    : "see the host's kernel log (dmesg)");
	stop_for(vcpu, END_KVM_ERROR);
}

static void *vcpu_thread(void *arg)
{
	struct vcpu *vcpu = arg;
	struct vcpus *vcpus = vcpu->vcpus;
	char name[16];

	snprintf(name, sizeof(name), "vcpu%u", vcpu->index);
	pthread_setname_np(pthread_self(), name);
	if (vcpus->config.thread_start)
		vcpus->config.thread_start(vcpus->config.owner);
	for (;;) {
		bool stop = vcpu->leave || atomic_load(&vcpu->held) ||
			    atomic_load(&vcpus->wanted) != WANTED_RUN;

		if (stop && !vcpu->unfinished) {
			if (!park(vcpu))
				return NULL;
			continue;
		}
		if (stop)
			set_immediate_exit(vcpu, true);
		else if (atomic_exchange(&vcpu->nmi, false))
			give_nmi(vcpu);
		run_once(vcpu);
	}
}

/* With lock held. */
static void kick(struct vcpu *vcpu)
{
	if (!vcpu->started || vcpu->parked)
		return;
	set_immediate_exit(vcpu, true);
	pthread_kill(vcpu->thread, SIGRTMIN);
}

static u32 started_count(const struct vcpus *vcpus)
{
	u32 n = 0;

	for (u32 i = 0; i < vcpus->created; i++)
		n += vcpus->vcpu[i].started;
	return n;
}

/* A thread takes the kick and what a fault of its own raises; all else is the main thread's. */
static void thread_signals(sigset_t *blocked)
{
	static const int own[] = { SIGSYS, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT };

	sigfillset(blocked);
	for (size_t i = 0; i < ARRAY_SIZE(own); i++)
		sigdelset(blocked, own[i]);
	sigdelset(blocked, SIGRTMIN);
}

/* With lock held. */
static void wait_parked(struct vcpus *vcpus)
{
	while (vcpus->parked_count < started_count(vcpus))
		pthread_cond_wait(&vcpus->parked, &vcpus->lock);
}

void vcpus_stop(struct vcpus *vcpus, enum wanted wanted)
{
	pthread_mutex_lock(&vcpus->lock);
	atomic_store(&vcpus->wanted, wanted);
	for (u32 i = 0; i < vcpus->created; i++)
		kick(&vcpus->vcpu[i]);
	if (wanted == WANTED_END)
		pthread_cond_broadcast(&vcpus->resumed);
	if (wanted == WANTED_PARK)
		wait_parked(vcpus);
	pthread_mutex_unlock(&vcpus->lock);
}

int vcpus_start(struct vcpus *vcpus)
{
	pthread_attr_t attr;
	sigset_t blocked;
	int err = 0;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	thread_signals(&blocked);
	pthread_attr_setsigmask_np(&attr, &blocked);
	for (u32 i = 0; i < vcpus->created && !err; i++) {
		struct vcpu *vcpu = &vcpus->vcpu[i];

		pin_attr(&attr, &vcpus->config.pin, i);
		err = -pthread_create(&vcpu->thread, &attr, vcpu_thread, vcpu);
		if (err)
			log_line("vCPU %u: no thread: %s; raise the limit (ulimit -u) or use fewer "
				 "vCPUs",
				 i, strerror(-err));
		else
			vcpu->started = true;
	}
	pthread_attr_destroy(&attr);
	return err;
}

void vcpus_resume(struct vcpus *vcpus)
{
	pthread_mutex_lock(&vcpus->lock);
	atomic_store(&vcpus->wanted, WANTED_RUN);
	vcpus->resumes++;
	pthread_mutex_unlock(&vcpus->lock);
	/* not before: the woken would have to wait for the lock */
	pthread_cond_broadcast(&vcpus->resumed);
}

void vcpus_continue(struct vcpus *vcpus)
{
	pthread_mutex_lock(&vcpus->lock);
	atomic_store(&vcpus->wanted, WANTED_RUN);
	pthread_cond_broadcast(&vcpus->resumed);
	pthread_mutex_unlock(&vcpus->lock);
}

void vcpus_pause(struct vcpus *vcpus)
{
	vcpus_stop(vcpus, WANTED_PARK);
	coalesced_drain(&vcpus->coalesced);
}

void vcpus_hold(struct vcpus *vcpus, bool wait)
{
	pthread_mutex_lock(&vcpus->lock);
	for (u32 i = 0; i < vcpus->created; i++) {
		atomic_store(&vcpus->vcpu[i].held, true);
		kick(&vcpus->vcpu[i]);
	}
	if (wait)
		wait_parked(vcpus);
	pthread_mutex_unlock(&vcpus->lock);
	if (wait)
		coalesced_drain(&vcpus->coalesced);
}

void vcpus_release(struct vcpus *vcpus, u32 index)
{
	pthread_mutex_lock(&vcpus->lock);
	atomic_store(&vcpus->vcpu[index].held, false);
	pthread_cond_broadcast(&vcpus->resumed);
	pthread_mutex_unlock(&vcpus->lock);
}

void vcpus_nmi(struct vcpus *vcpus)
{
	pthread_mutex_lock(&vcpus->lock);
	for (u32 i = 0; i < vcpus->created; i++) {
		atomic_store(&vcpus->vcpu[i].nmi, true);
		kick(&vcpus->vcpu[i]);
	}
	pthread_mutex_unlock(&vcpus->lock);
}
