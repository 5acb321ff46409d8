/*
 * `vmm check`: looks at everything a VM may want from the host and says, line by line, what is
 * there, what its absence costs and what mends it. Runs alone, on the main thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>
#include "vm/host-check.h"
#include "vm/kvm.h"

static void say(bool good, const char *what, const char *detail)
{
	printf("%-4s %-22s %s\n", good ? "ok" : "no", what, detail);
}

static void check_device(const char *path, const char *what, const char *without)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	say(fd >= 0, what, fd >= 0 ? path : without);
	if (fd >= 0)
		close(fd);
}

static void check_io_uring(void)
{
	struct io_uring_params params = { 0 };
	long fd = syscall(__NR_io_uring_setup, 4, &params);

	if (fd >= 0) {
		say(true, "io_uring", "one system call a batch");
		close((int)fd);
	} else if (errno == ENOSYS) {
		say(false, "io_uring",
		    "this kernel has none: epoll and worker threads serve instead, slower");
	} else {
		say(false, "io_uring",
		    "forbidden (container profile, or `sysctl kernel.io_uring_disabled=0`): epoll "
		    "serves instead, slower");
	}
}

/* A number from a one-line file, 0 if there is none. */
static u64 number_in(const char *path)
{
	unsigned long long n = 0;
	FILE *f = fopen(path, "re");

	if (f) {
		if (fscanf(f, "%llu", &n) != 1)
			n = 0;
		fclose(f);
	}
	return n;
}

static void check_hugepages(void)
{
	u64 free2m = number_in("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
	u64 free1g = number_in("/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages");
	char detail[160];
	bool thp = access("/sys/kernel/mm/transparent_hugepage/enabled", F_OK) == 0;

	say(thp, "transparent huge pages",
	    thp ? "used for guest RAM" : "not in this kernel: slower page walks");
	snprintf(detail, sizeof(detail),
		 "%llu of 2 MiB and %llu of 1 GiB free for --mem N,hugepages= (`sysctl "
		 "vm.nr_hugepages=N` reserves)",
		 (unsigned long long)free2m, (unsigned long long)free1g);
	say(free2m || free1g, "reserved huge pages", detail);
}

int host_check(void)
{
	struct utsname kernel;
	struct kvm kvm;
	char detail[160];
	int ret = kvm_open(&kvm);

	if (!ret && kvm_check_required(&kvm)) {
		kvm_close(&kvm);
		ret = -ENOTSUP;
	}

	if (!uname(&kernel)) {
		snprintf(detail, sizeof(detail), "Linux %.60s on %.40s", kernel.release,
			 kernel.machine);
		say(true, "host", detail);
	}
	if (!ret) {
		snprintf(detail, sizeof(detail),
			 "up to %u vCPUs, %u interrupt routes, %u-bit guest addresses",
			 kvm_max_vcpus(&kvm), kvm_max_routes(&kvm), kvm.physical_bits);
		say(true, "/dev/kvm", detail);
		say(kvm.ioeventfd_any_length, "any-length doorbells",
		    kvm.ioeventfd_any_length ? "memory doorbells without decoding (Intel)"
					     : "missing: memory doorbells match their length");
		kvm_close(&kvm);
	} else {
		say(false, "/dev/kvm", "no VM can run here: see the line above");
	}
	check_io_uring();
	check_device("/dev/net/tun", "tap networking",
		     "no --net: `sudo modprobe tun`, or no permission");
	check_device(
		"/dev/vhost-net", "vhost-net",
		"no --net TAP,vhost=on: `sudo modprobe vhost_net`, or no permission (group kvm)");
	check_hugepages();
	return ret ? -ENOTSUP : 0;
}
