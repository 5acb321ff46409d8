/*
 * The vCPUs: creation, and a thread each that runs KVM_RUN and hands the exits to the bus.
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
#include <sys/mman.h>
#include <unistd.h>

#include "vm/bus.h"
#include "vm/coalesced.h"
#include "vm/cpuid.h"
#include "vm/end.h"
#include "vm/kvm.h"
#include "vm/log.h"
#include "vm/registers.h"
#include "vm/vcpu.h"

#define STACK_SIZE KIB(256)
/* Machine check banks; KVM's default of 32 costs each boot some hundred MSR exits. */
#define MCE_BANKS 10u
/* MCG_CAP: control register present, software error recovery */
#define MCE_FLAGS (BIT64(8) | BIT64(24))

enum wanted { WANTED_PARK, WANTED_RUN, WANTED_END };

/* What is counted apart. */
enum exit_kind {
	EXIT_PIO_READ,
	EXIT_PIO_WRITE,
	EXIT_MMIO_READ,
	EXIT_MMIO_WRITE,
	EXIT_OTHER,
	EXIT_INTERRUPTED,
	EXITS
};

struct vcpu {
	struct vcpus *vcpus;
	u32 index;
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	bool started;
	bool entered;	 /* not as new any more */
	bool parked;	 /* under vcpus->lock */
	bool unfinished; /* an access that the next KVM_RUN completes */
	bool leave;	 /* what happened ends this vCPU's run until it is resumed */
	atomic_bool nmi;
	atomic_bool held; /* by a debugger */
	/* the vCPU's thread writes, anyone reads */
	_Atomic u64 exits[EXITS];
};

struct vcpus {
	struct vcpus_config config;
	struct vcpu *vcpu;
	u32 created;		       /* vCPUs with a descriptor */
	struct registers *power_on[2]; /* of vCPU 0, of the others */
	u64 tsc_khz;		       /* 0: unknown */
	struct coalesced coalesced;
	pthread_mutex_t lock;
	pthread_cond_t parked, resumed;
	_Atomic enum wanted wanted;
	u32 parked_count;
	u64 resumes;
};

static void count(struct vcpu *vcpu, enum exit_kind kind)
{
	_Atomic u64 *counter = &vcpu->exits[kind];

	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1,
			      memory_order_relaxed);
}

/* ---- creation ---- */

static bool is_power_of_two(u32 n)
{
	return n && !(n & (n - 1));
}

static int check_config(const struct vcpus_config *config)
{
	if (!config->count || config->count > 254 ||
	    (u64)config->sockets * config->cores * config->threads != config->count) {
		log_line("vCPUs: %u is not %u sockets of %u cores of %u threads; make them agree, "
			 "with 1 to 254 in all",
			 config->count, config->sockets, config->cores, config->threads);
		return -EINVAL;
	}
	/* ids are dense, and a guest reads the topology from their bits */
	if ((!is_power_of_two(config->threads) && config->sockets * config->cores > 1) ||
	    (!is_power_of_two(config->cores) && config->sockets > 1)) {
		log_line("vCPUs: a guest cannot tell %u sockets of %u cores of %u threads apart; "
			 "use "
			 "powers of two below the topmost level",
			 config->sockets, config->cores, config->threads);
		return -EINVAL;
	}
	if (config->count > 1 && config->count > kvm_max_vcpus(config->kvm)) {
		log_line(
			"vCPUs: %u are more than the %u that this host's KVM can run; ask for less",
			config->count, kvm_max_vcpus(config->kvm));
		return -E2BIG;
	}
	return 0;
}

static void set_up_mce(const struct kvm *kvm, int fd)
{
	u64 capability = MCE_FLAGS | MCE_BANKS;

	if (!ioctl(fd, KVM_X86_SETUP_MCE, &capability) ||
	    ioctl(kvm->fd, KVM_X86_GET_MCE_CAP_SUPPORTED, &capability))
		return;
	capability = (capability & MCE_FLAGS) | MCE_BANKS;
	ioctl(fd, KVM_X86_SETUP_MCE, &capability);
}

static int set_cpuid(struct vcpu *vcpu, struct kvm_cpuid2 *table)
{
	const struct vcpus_config *config = &vcpu->vcpus->config;
	struct cpuid_vcpu numbers = {
		.apic_id = vcpu->index,
		.cores = config->cores,
		.threads = config->threads,
		.tsc_khz = vcpu->vcpus->tsc_khz,
	};
	int err = cpuid_build(table, config->kvm->cpuid, &numbers);

	if (err)
		return err;
	return ioctl(vcpu->fd, KVM_SET_CPUID2, table) ? -errno : 0;
}

static int create_vcpu(struct vcpus *vcpus, u32 index, struct kvm_cpuid2 *table)
{
	const struct kvm *kvm = vcpus->config.kvm;
	struct vcpu *vcpu = &vcpus->vcpu[index];
	const char *what = "creation";
	int err = 0;

	vcpu->vcpus = vcpus;
	vcpu->index = index;
	vcpu->fd = ioctl(kvm->vm, KVM_CREATE_VCPU, (unsigned long)index);
	if (vcpu->fd < 0) {
		err = -errno;
		goto fail;
	}
	vcpus->created++;
	what = "the shared page";
	vcpu->run = mmap(NULL, kvm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (vcpu->run == MAP_FAILED) {
		err = -errno;
		vcpu->run = NULL;
		goto fail;
	}
	set_up_mce(kvm, vcpu->fd);
	if (!index) { /* all run at one rate */
		int khz = ioctl(vcpu->fd, KVM_GET_TSC_KHZ, 0);

		vcpus->tsc_khz = khz > 0 ? (u64)khz : 0;
	}
	what = "CPUID";
	err = set_cpuid(vcpu, table);
	if (err)
		goto fail;
	what = "saving its state";
	if (index < ARRAY_SIZE(vcpus->power_on))
		err = registers_save(&vcpus->power_on[index], kvm, vcpu->fd);
	if (!err)
		return 0;
fail:
	log_line("vCPU %u: %s: %s; %s", index, what, strerror(-err),
		 err == -EMFILE ? "raise the limit of open files (ulimit -n)"
				: "use fewer vCPUs or a newer host kernel");
	return err;
}

static void kicked(int number)
{
	(void)number;
}

/* Without SA_RESTART: to be interrupted is the point. */
static int handle_kick(void)
{
	struct sigaction action = { .sa_handler = kicked };

	return sigaction(SIGRTMIN, &action, NULL) ? -errno : 0;
}

int vcpus_create(struct vcpus **out, const struct vcpus_config *config)
{
	struct kvm_cpuid2 *table = NULL;
	struct vcpus *vcpus;
	int err = check_config(config);

	if (err)
		return err;
	vcpus = calloc(1, sizeof(*vcpus));
	if (!vcpus) {
		log_line("vCPUs: no memory; free some");
		return -ENOMEM;
	}
	vcpus->config = *config;
	pthread_mutex_init(&vcpus->lock, NULL);
	pthread_cond_init(&vcpus->parked, NULL);
	pthread_cond_init(&vcpus->resumed, NULL);
	atomic_init(&vcpus->wanted, WANTED_PARK);
	vcpus->vcpu = calloc(config->count, sizeof(*vcpus->vcpu));
	table = cpuid_alloc();
	err = vcpus->vcpu && table ? handle_kick() : -ENOMEM;
	if (err)
		log_line("vCPUs: %s; use a current kernel", strerror(-err));
	for (u32 i = 0; i < config->count && !err; i++)
		err = create_vcpu(vcpus, i, table);
	free(table);
	if (!err)
		coalesced_create(&vcpus->coalesced, config->kvm, config->bus, vcpus->vcpu[0].run);
	if (err) {
		vcpus_destroy(vcpus);
		return err;
	}
	*out = vcpus;
	return 0;
}

int vcpus_reset(struct vcpus *vcpus, const struct vcpu_entry *entry)
{
	for (u32 i = 0; i < vcpus->created; i++) {
		struct vcpu *vcpu = &vcpus->vcpu[i];
		const struct registers *power_on = vcpus->power_on[i > 0];
		const char *what = "registers";
		int err = vcpu->entered ? registers_reset(power_on, vcpu->fd, i, &what) : 0;

		if (!err)
			err = registers_enter(power_on, vcpu->fd, i ? NULL : entry);
		vcpu->entered = true;
		if (err) {
			log_line(
				"vCPU %u: KVM refuses to reset its %s: %s; use a newer host kernel",
				i, what, strerror(-err));
			return err;
		}
		atomic_store(&vcpu->nmi, false);
	}
	return 0;
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

static void stop(struct vcpus *vcpus, enum wanted wanted)
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
	stop(vcpus, WANTED_PARK);
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

int vcpus_fd(const struct vcpus *vcpus, u32 index)
{
	return index < vcpus->created ? vcpus->vcpu[index].fd : -1;
}

void vcpus_destroy(struct vcpus *vcpus)
{
	if (!vcpus)
		return;
	stop(vcpus, WANTED_END);
	for (u32 i = 0; i < vcpus->created; i++) {
		struct vcpu *vcpu = &vcpus->vcpu[i];

		if (vcpu->started)
			pthread_join(vcpu->thread, NULL);
		if (vcpu->run)
			munmap(vcpu->run, vcpus->config.kvm->run_size);
		close(vcpu->fd);
	}
	pthread_cond_destroy(&vcpus->parked);
	pthread_cond_destroy(&vcpus->resumed);
	pthread_mutex_destroy(&vcpus->lock);
	for (u32 i = 0; i < ARRAY_SIZE(vcpus->power_on); i++)
		registers_free(vcpus->power_on[i]);
	free(vcpus->vcpu);
	free(vcpus);
}

static u64 sum(const struct vcpus *vcpus, enum exit_kind kind)
{
	u64 n = 0;

	for (u32 i = 0; i < vcpus->created; i++)
		n += atomic_load_explicit(&vcpus->vcpu[i].exits[kind], memory_order_relaxed);
	return n;
}

void vcpus_counts(const struct vcpus *vcpus, struct vcpu_counts *counts)
{
	*counts = (struct vcpu_counts){
		.pio_reads = sum(vcpus, EXIT_PIO_READ),
		.pio_writes = sum(vcpus, EXIT_PIO_WRITE),
		.mmio_reads = sum(vcpus, EXIT_MMIO_READ),
		.mmio_writes = sum(vcpus, EXIT_MMIO_WRITE),
		.other = sum(vcpus, EXIT_OTHER),
		.interrupted = sum(vcpus, EXIT_INTERRUPTED),
	};
	counts->pio = counts->pio_reads + counts->pio_writes;
	counts->mmio = counts->mmio_reads + counts->mmio_writes;
	counts->total = counts->pio + counts->mmio + counts->other;
}
