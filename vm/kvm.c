/*
 * /dev/kvm and the VM made from it. Linux Documentation/virt/kvm/api.rst. Main thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vm/cpuid.h"
#include "vm/kvm.h"
#include "vm/layout.h"
#include "vm/log.h"

/* What nothing can stand in for. All are older than Linux 5.0. */
static const struct {
	int capability;
	const char *name;
} required[] = {
	{ KVM_CAP_IRQCHIP, "an interrupt controller in the kernel" },
	{ KVM_CAP_USER_MEMORY, "user memory" },
	{ KVM_CAP_EXT_CPUID, "CPUID tables" },
	{ KVM_CAP_MP_STATE, "processor states" },
	{ KVM_CAP_IOEVENTFD, "doorbells (ioeventfd)" },
	{ KVM_CAP_IRQFD, "interrupts from eventfds (irqfd)" },
	{ KVM_CAP_IRQFD_RESAMPLE, "level-triggered irqfds" },
	{ KVM_CAP_IRQ_ROUTING, "interrupt routing" },
	{ KVM_CAP_IMMEDIATE_EXIT, "immediate exits" },
	{ KVM_CAP_TSC_DEADLINE_TIMER, "the TSC deadline timer" },
};

/* The first word of the "flags" line that tells which virtualization the CPU has. */
static const char *cpu_module(void)
{
	const char *module = NULL;
	size_t size = 0;
	char *line = NULL;
	FILE *file = fopen("/proc/cpuinfo", "re");

	if (!file)
		return NULL;
	while (getline(&line, &size, file) > 0) {
		if (strncmp(line, "flags", 5))
			continue;
		if (strstr(line, " vmx"))
			module = "kvm_intel";
		else if (strstr(line, " svm"))
			module = "kvm_amd";
		break;
	}
	free(line);
	fclose(file);
	return module;
}

static void explain_open(int error)
{
	const char *module;

	switch (error) {
	case EACCES:
	case EPERM:
		log_line("/dev/kvm: no permission; join its group (sudo usermod -aG kvm $USER, "
			 "then log in again) or run as root");
		return;
	case ENOENT:
	case ENXIO:
	case ENODEV:
		module = cpu_module();
		if (module)
			log_line("/dev/kvm: KVM is not loaded; load it (sudo modprobe %s), or in a "
				 "container pass the device in (--device /dev/kvm)",
				 module);
		else
			log_line("/dev/kvm: missing, and this CPU shows no virtualization; enable "
				 "VT-x or SVM in the firmware set-up, or nested virtualization if "
				 "this is a VM");
		return;
	default:
		log_line("/dev/kvm: %s; is KVM loaded (lsmod | grep kvm)?", strerror(error));
	}
}

static int capability(const struct kvm *kvm, int number)
{
	int value = ioctl(kvm->fd, KVM_CHECK_EXTENSION, number);

	return value < 0 ? 0 : value;
}

static int check_version(const struct kvm *kvm)
{
	int version = ioctl(kvm->fd, KVM_GET_API_VERSION, 0);

	if (version != KVM_API_VERSION) {
		log_line(
			"/dev/kvm: version %d of the interface instead of %d; use a current kernel",
			version, KVM_API_VERSION);
		return -ENOTSUP;
	}
	return 0;
}

int kvm_check_required(const struct kvm *kvm)
{
	int missing = 0;

	for (size_t i = 0; i < ARRAY_SIZE(required); i++) {
		if (capability(kvm, required[i].capability))
			continue;
		log_line("/dev/kvm: this host's KVM lacks %s; use a newer or fuller kernel",
			 required[i].name);
		missing++;
	}
	return missing ? -ENOTSUP : 0;
}

static u32 count_capability(const struct kvm *kvm, int number, u32 otherwise)
{
	int value = capability(kvm, number);

	return value > 0 ? (u32)value : otherwise;
}

u32 kvm_max_vcpus(const struct kvm *kvm)
{
	/* api.rst 4.4: 4 where neither is told */
	return count_capability(kvm, KVM_CAP_MAX_VCPUS, count_capability(kvm, KVM_CAP_NR_VCPUS, 4));
}

u32 kvm_max_routes(const struct kvm *kvm)
{
	/* kernels before 2.6.36 or so said just yes */
	u32 routes = count_capability(kvm, KVM_CAP_IRQ_ROUTING, KVM_MIN_ROUTES);

	return routes < 64 ? KVM_MIN_ROUTES : routes;
}

static int read_offers(struct kvm *kvm)
{
	int size = ioctl(kvm->fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	int err = 0;

	if (size < (int)sizeof(struct kvm_run)) {
		log_line("/dev/kvm: no room for a vCPU's run page; use a current kernel");
		return -ENOTSUP;
	}
	kvm->run_size = (u32)size;
	kvm->ioeventfd_any_length = capability(kvm, KVM_CAP_IOEVENTFD_ANY_LENGTH);
	kvm->cpuid = cpuid_alloc();
	err = kvm->cpuid ? cpuid_supported(kvm, kvm->cpuid) : -ENOMEM;
	if (err)
		log_line("/dev/kvm: no list of supported CPUID leaves: %s; use a current kernel",
			 strerror(-err));
	else
		kvm->physical_bits = cpuid_physical_bits(kvm->cpuid);
	return err;
}

int kvm_open(struct kvm *kvm)
{
	int err;

	*kvm = (struct kvm){ .fd = -1, .vm = -1 };
	kvm->fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm->fd < 0) {
		err = -errno;
		explain_open(-err);
		return err;
	}
	err = check_version(kvm);
	if (!err)
		err = read_offers(kvm);
	if (err)
		kvm_close(kvm);
	return err;
}

static void explain_create(int error)
{
	switch (error) {
	case EBUSY:
		log_line("KVM: the CPU's virtualization is in use by another hypervisor; end it "
			 "(VirtualBox, VMware) and try again");
		return;
	case EOPNOTSUPP:
	case EIO:
		log_line("KVM: the CPU's virtualization does not start: %s; enable VT-x or SVM in "
			 "the "
			 "firmware set-up",
			 strerror(error));
		return;
	case ENOMEM:
		log_line("KVM: no memory for a VM; free some");
		return;
	default:
		log_line("KVM: cannot create a VM: %s; see the kernel's log (dmesg)",
			 strerror(error));
	}
}

int kvm_create_vm(struct kvm *kvm)
{
	u64 identity_map = LAYOUT_IDENTITY_MAP;
	int err;

	do {
		kvm->vm = ioctl(kvm->fd, KVM_CREATE_VM, 0);
	} while (kvm->vm < 0 && errno == EINTR);
	if (kvm->vm < 0) {
		err = -errno;
		explain_create(-err);
		return err;
	}
	/* Intel without unrestricted guest runs real mode with the help of these pages; elsewhere
	 * they mean nothing and may be refused. */
	if (!cpuid_is_amd(kvm->cpuid)) {
		ioctl(kvm->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity_map);
		ioctl(kvm->vm, KVM_SET_TSS_ADDR, LAYOUT_TSS);
	}
	if (ioctl(kvm->vm, KVM_CREATE_IRQCHIP, 0)) {
		err = -errno;
		if (!kvm_check_required(kvm))
			log_line("KVM: no interrupt controllers: %s; use a current kernel",
				 strerror(-err));
		close(kvm->vm);
		kvm->vm = -1;
		return err;
	}
	return 0;
}

void kvm_close(struct kvm *kvm)
{
	if (kvm->vm >= 0)
		close(kvm->vm);
	if (kvm->fd >= 0)
		close(kvm->fd);
	free(kvm->cpuid);
	kvm->cpuid = NULL;
	kvm->vm = -1;
	kvm->fd = -1;
}
