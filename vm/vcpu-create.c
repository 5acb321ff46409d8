/*
 * vCPUs made, reset, counted and let go of.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vm/cpuid.h"
#include "vm/kvm.h"
#include "vm/log.h"
#include "vm/vcpu-private.h"

/* Machine check banks; KVM's default of 32 costs each boot some hundred MSR exits. */
#define MCE_BANKS 10u
/* MCG_CAP: control register present, software error recovery */
#define MCE_FLAGS (BIT64(8) | BIT64(24))
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
int vcpus_fd(const struct vcpus *vcpus, u32 index)
{
	return index < vcpus->created ? vcpus->vcpu[index].fd : -1;
}

void vcpus_destroy(struct vcpus *vcpus)
{
	if (!vcpus)
		return;
	vcpus_stop(vcpus, WANTED_END);
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
