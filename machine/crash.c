/* --vmcore: the file, and whose state goes into it. Main thread. */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "machine/machine.h"
#include "machine/vmcore.h"
#include "vm/log.h"
#include "vm/vcpu.h"

#define MSR_KERNEL_GS_BASE 0xc0000102u

/* Is this what an earlier machine left, or nothing? A disk image or a kernel is not to be lost. */
static bool may_go(int fd, const struct stat *st)
{
	Elf64_Ehdr head;

	return !st->st_size || (pread(fd, &head, sizeof(head), 0) == sizeof(head) &&
				!memcmp(head.e_ident, ELFMAG, SELFMAG) && head.e_type == ET_CORE);
}

int machine_open_core(struct machine *m)
{
	const char *path = m->config->vmcore;
	struct stat st;
	int error = 0;

	if (!path)
		return 0;
	m->vmcore = open(path, O_RDWR | O_CREAT | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
			 0600); /* it will hold the guest's secrets */
	if (m->vmcore < 0 || fstat(m->vmcore, &st))
		error = -errno;
	else if (!S_ISREG(st.st_mode))
		error = -EINVAL;
	else if (!may_go(m->vmcore, &st)) {
		log_line("--vmcore %s: holds something that is not a core; name another file, or "
			 "remove it",
			 path);
		return -EEXIST;
	} else if (ftruncate(m->vmcore, 0)) {
		error = -errno;
	}
	if (error)
		log_line("--vmcore %s: %s; give a regular file that can be written", path,
			 strerror(-error));
	return error;
}

static void look(struct vmcore_cpu *cpu, int fd)
{
	struct {
		u32 count, pad;
		struct kvm_msr_entry entry;
	} msr = { 1, 0, { .index = MSR_KERNEL_GS_BASE } };

	/* what cannot be read is zero */
	ioctl(fd, KVM_GET_REGS, &cpu->regs);
	ioctl(fd, KVM_GET_SREGS, &cpu->sregs);
	if (ioctl(fd, KVM_GET_MSRS, &msr) == 1)
		cpu->kernel_gs_base = msr.entry.data;
}

void machine_write_core(const struct machine *m, enum end_reason reason)
{
	struct vmcore_cpu *cpus;
	bool with_info = false;
	u32 count = 0;
	u64 bytes = 0;
	int error = -ENOMEM, fd;

	if (m->vmcore < 0 ||
	    (reason != END_PANIC && reason != END_TRIPLE_FAULT && reason != END_KVM_ERROR))
		return;
	cpus = calloc(m->config->cpus, sizeof(*cpus));
	for (; cpus && count < m->config->cpus && (fd = vcpus_fd(m->vcpus, count)) >= 0; count++)
		look(&cpus[count], fd);
	if (cpus)
		error = vmcore_write(m->vmcore, &m->memory, cpus, count, &with_info, &bytes);
	free(cpus);
	if (error)
		log_line("--vmcore %s: %s: the core is not whole; %s", m->config->vmcore,
			 strerror(-error),
			 error == -ENOSPC ? "make room for what the guest has used of its memory"
					  : "give a file on another disk");
	else
		log_line("--vmcore %s: written, %llu MiB%s", m->config->vmcore,
			 (unsigned long long)(bytes >> 20),
			 with_info ? "" : ", without VMCOREINFO: the guest's memory has none");
}
