/*
 * The PIO and MMIO address spaces: an interval maps to a handler, an address to a doorbell
 * (ioeventfd). vCPU threads dispatch their exits here.
 */
#ifndef VM_BUS_H
#define VM_BUS_H

#include "vm/types.h"

struct kvm;
struct bus;

enum bus_space { BUS_PIO, BUS_MMIO, BUS_SPACES };

/* size is 1, 2, 4 or 8 bytes, value little-endian in the low bytes; offset counts from the region's
 * base and offset + size never passes its end. Called on vCPU threads, several at once, and on the
 * thread that performs an access through virtio's PCI_CFG window. May map and unmap regions. */
struct bus_ops {
	u64 (*read)(void *owner, u64 offset, unsigned int size);
	void (*write)(void *owner, u64 offset, unsigned int size, u64 value);
	bool yields; /* the region answers only where no other does */
};

struct bus_region {
	enum bus_space space;
	u64 base, size;
	const struct bus_ops *ops;
	void *owner;
};

/* A write of `length` bytes (0: any length, MMIO only, where kvm.ioeventfd_any_length) at address,
 * with `value` if match, becomes a write of 1 to the eventfd inside KVM: no exit. */
struct bus_doorbell {
	enum bus_space space;
	u64 address;
	u32 length;
	bool match;
	u64 value;
	int fd; /* eventfd, EFD_NONBLOCK */
};

/* kvm may be NULL (tests). The doorbells then ring by bus_write() alone, which rings them in any
 * case: for accesses that KVM did not see (PCI_CFG) and for those it had no room left for. */
int bus_create(struct bus **bus, const struct kvm *kvm);
void bus_destroy(struct bus *bus);

/*
 * Puts a region into its space, or takes it out. The caller keeps *region alive and unchanged while
 * mapped; after bus_unmap() returns no access finds it, though one that had found it may still be
 * in it on another thread. Regions may overlap (a guest can move BARs onto anything): the one
 * mapped first wins where they do, the other answers where it sticks out. bus_map: 0, or -ENOMEM,
 * -EINVAL (zero size, wraps, passes 64 KiB of ports). Any thread.
 */
int bus_map(struct bus *bus, const struct bus_region *region);
void bus_unmap(struct bus *bus, const struct bus_region *region);

/* Registers or removes a doorbell with KVM (KVM_IOEVENTFD). 0 or -errno: -EEXIST when the same
 * address and value is taken. Any thread. */
int bus_doorbell_add(struct bus *bus, const struct bus_doorbell *doorbell);
void bus_doorbell_remove(struct bus *bus, const struct bus_doorbell *doorbell);

/* One guest access. Nobody there: reads give all ones, writes are dropped (as on PCI). An
 * access that crosses the end of a region is done byte by byte. vCPU threads. */
u64 bus_read(struct bus *bus, enum bus_space space, u64 address, unsigned int size);
void bus_write(struct bus *bus, enum bus_space space, u64 address, unsigned int size, u64 value);

#endif
