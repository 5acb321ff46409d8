/*
 * Guest RAM: one mapping of which the guest sees the first 3 GiB at address 0 and the rest from 4
 * GiB. Pages appear when they are first touched, by the guest or by us, and never before.
 * Main thread; memory_at() (in the header) on any.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "vm/kvm.h"
#include "vm/log.h"
#include "vm/memory.h"

static u64 page_size(enum memory_pages pages)
{
	switch (pages) {
	case MEMORY_PAGES_DEFAULT:
		break;
	case MEMORY_PAGES_2M:
		return MIB(2);
	case MEMORY_PAGES_1G:
		return GIB(1);
	}
	return KIB(4);
}

static int check_size(const struct kvm *kvm, u64 size, enum memory_pages pages)
{
	unsigned int bits = kvm ? kvm->physical_bits : 52;
	u64 limit = LAYOUT_RAM_HIGH, end;
	u64 page = page_size(pages), have;
	struct sysinfo info;

	if (!size || size % page) {
		log_line("memory: %llu bytes are not a whole number of %llu KiB pages; "
			 "round the size up",
			 (unsigned long long)size, (unsigned long long)(page >> 10));
		return -EINVAL;
	}
	/* the 64-bit PCI window follows RAM and must be reachable as well */
	if (bits >= 36)
		limit = BIT64(bits) - LAYOUT_PCI64_SIZE - GIB(1);
	if (__builtin_add_overflow(size, LAYOUT_RAM_HIGH - LAYOUT_RAM_LOW_END, &end) ||
	    end > limit) {
		log_line("memory: %llu MiB do not fit: guests on this CPU have %u address bits, "
			 "room "
			 "for %llu MiB of RAM; ask for less",
			 (unsigned long long)(size >> 20), bits,
			 (unsigned long long)((limit - GIB(1)) >> 20));
		return -E2BIG;
	}
	if (pages != MEMORY_PAGES_DEFAULT || size <= GIB(1) || sysinfo(&info))
		return 0; /* hosts with less than that are not asked */
	have = (u64)info.totalram * info.mem_unit + (u64)info.totalswap * info.mem_unit;
	if (size > have) {
		log_line("memory: %llu MiB are more than this host has: %llu MiB of RAM and swap; "
			 "ask for less",
			 (unsigned long long)(size >> 20), (unsigned long long)(have >> 20));
		return -ENOMEM;
	}
	return 0;
}

static u8 *map_anonymous(u64 size)
{
	return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		    -1, 0);
}

/* Anonymous memory on a 2 MiB boundary, so that a huge page in the guest can be one here. Linux 6.7
 * and later choose such a place by themselves. */
static int map_default(u8 **base, u64 size)
{
	u8 *raw = map_anonymous(size), *start = raw;

	if (raw != MAP_FAILED && (uintptr_t)raw % MIB(2)) {
		munmap(raw, size);
		raw = map_anonymous(size + MIB(2));
		start = (u8 *)ALIGN_UP((uintptr_t)raw, (uintptr_t)MIB(2));
		if (raw != MAP_FAILED) {
			if (start > raw)
				munmap(raw, (size_t)(start - raw));
			if (start < raw + MIB(2))
				munmap(start + size, (size_t)(raw + MIB(2) - start));
		}
	}
	if (raw == MAP_FAILED) {
		int error = errno;

		log_line("memory: cannot map %llu MiB: %s; ask for less, or allow it "
			 "(sysctl vm.overcommit_memory, ulimit -v)",
			 (unsigned long long)(size >> 20), strerror(error));
		return -error;
	}
	madvise(start, size, MADV_HUGEPAGE); /* kernels without it give small pages */
	*base = start;
	return 0;
}

/* A number from the host's pool of huge pages; -1 if the host has no such pool. */
static long long pool_count(u64 page, const char *name)
{
	long long count = -1;
	char path[96];
	FILE *file;

	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%llukB/%s",
		 (unsigned long long)(page >> 10), name);
	file = fopen(path, "re");
	if (!file)
		return -1;
	if (fscanf(file, "%lld", &count) != 1)
		count = -1;
	fclose(file);
	return count;
}

static void explain_hugetlb(u64 size, u64 page, int error)
{
	long long total = pool_count(page, "nr_hugepages");
	long long unused = pool_count(page, "free_hugepages");
	long long reserved = pool_count(page, "resv_hugepages");
	const char *name = page == GIB(1) ? "1G" : "2M";
	long long need = (long long)(size / page);

	if (total < 0) {
		log_line("memory: this host has no %s huge pages; use %s", name,
			 page == GIB(1) ? "hugepages=2M, or none (transparent huge pages)"
					: "none (transparent huge pages)");
		return;
	}
	if (error != ENOMEM) {
		log_line("memory: %s huge pages: %s; do without them (transparent huge pages)",
			 name, strerror(error));
		return;
	}
	unused = unused > reserved ? unused - reserved : 0;
	log_line("memory: %lld huge pages of %s needed, %lld free; reserve them: "
		 "echo %lld >/sys/kernel/mm/hugepages/hugepages-%llukB/nr_hugepages",
		 need, name, unused, total - unused + need, (unsigned long long)(page >> 10));
}

/* hugetlb pages; mmap() reserves them all, so that no access finds the pool empty later */
static int map_hugetlb(u8 **base, int *fd, u64 size, u64 page)
{
	unsigned int flags = page == GIB(1) ? MFD_HUGE_1GB : MFD_HUGE_2MB;
	void *start;
	int error;

	*fd = memfd_create("vmm-ram", MFD_CLOEXEC | MFD_HUGETLB | flags);
	if (*fd < 0)
		goto fail;
	if (ftruncate(*fd, (off_t)size))
		goto fail;
	start = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	if (start == MAP_FAILED)
		goto fail;
	*base = start;
	return 0;
fail:
	error = errno;
	explain_hugetlb(size, page, error);
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	return -error;
}

static int give_slot(const struct kvm *kvm, u32 slot, u64 gpa, u8 *host, u64 size)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)host,
	};

	if (!size || !kvm)
		return 0;
	if (ioctl(kvm->vm, KVM_SET_USER_MEMORY_REGION, &region)) {
		int error = errno;

		log_line("memory: KVM does not take %llu MiB at 0x%llx: %s; ask for less",
			 (unsigned long long)(size >> 20), (unsigned long long)gpa,
			 strerror(error));
		return -error;
	}
	return 0;
}

int memory_create(struct memory *memory, const struct kvm *kvm, u64 size, enum memory_pages pages)
{
	u8 *base = NULL;
	int err;

	*memory = (struct memory){ .pages = pages, .fd = -1 };
	err = check_size(kvm, size, pages);
	if (err)
		return err;
	if (pages == MEMORY_PAGES_DEFAULT)
		err = map_default(&base, size);
	else
		err = map_hugetlb(&base, &memory->fd, size, page_size(pages));
	if (err)
		return err;

	memory->low = base;
	memory->low_size = size < LAYOUT_RAM_LOW_END ? size : LAYOUT_RAM_LOW_END;
	memory->high_size = size - memory->low_size;
	memory->high = memory->high_size ? base + memory->low_size : NULL;

	err = give_slot(kvm, 0, 0, memory->low, memory->low_size);
	if (!err)
		err = give_slot(kvm, 1, LAYOUT_RAM_HIGH, memory->high, memory->high_size);
	if (err)
		memory_destroy(memory);
	return err;
}

void memory_hide(const struct memory *memory)
{
	madvise(memory->low, memory->low_size + memory->high_size, MADV_DONTDUMP);
}

void memory_clear(struct memory *memory)
{
	u64 size = memory->low_size + memory->high_size;

	/* Huge pages from a pool stay ours: given back they could be someone else's when we need
	 * them again. The others' return is refused on locked memory only (mlockall). */
	if (memory->pages != MEMORY_PAGES_DEFAULT || madvise(memory->low, size, MADV_DONTNEED))
		memset(memory->low, 0, size);
}

void memory_destroy(struct memory *memory)
{
	if (memory->low)
		munmap(memory->low, memory->low_size + memory->high_size);
	if (memory->pages != MEMORY_PAGES_DEFAULT && memory->fd >= 0)
		close(memory->fd);
	*memory = (struct memory){ .fd = -1 };
}
