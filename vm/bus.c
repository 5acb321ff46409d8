/*
 * The PIO and MMIO address spaces. Of each, an access sees a sorted array of disjoint segments,
 * worked out from the mapped regions whenever one comes or goes. The rwlock is held for the search
 * alone, never over a handler: handlers map and unmap (a BAR moves from within a config-space
 * write).
 */
#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vm/bus.h"
#include "vm/kvm.h"

#define PORTS 0x10000ull

struct segment {
	u64 first, last;
	const struct bus_region *region;
};

struct space {
	const struct bus_region **regions; /* in the order they were mapped */
	size_t region_count;
	struct segment *segments, *spare; /* the array in use, and room to build the next */
	size_t segment_count;
	u64 *edges;			/* scratch of the builder */
	size_t capacity;		/* in regions, of all four arrays */
	struct bus_doorbell *doorbells; /* by address */
	size_t doorbell_count, doorbell_capacity;
};

struct bus {
	const struct kvm *kvm;
	pthread_mutex_t change;	 /* who maps, unmaps, adds or removes */
	pthread_rwlock_t lookup; /* segments and doorbells, short */
	struct space spaces[BUS_SPACES];
};

int bus_create(struct bus **out, const struct kvm *kvm)
{
	struct bus *bus = calloc(1, sizeof(*bus));

	if (!bus)
		return -ENOMEM;
	bus->kvm = kvm;
	pthread_mutex_init(&bus->change, NULL);
	pthread_rwlock_init(&bus->lookup, NULL);
	*out = bus;
	return 0;
}

void bus_destroy(struct bus *bus)
{
	if (!bus)
		return;
	for (int i = 0; i < BUS_SPACES; i++) {
		struct space *space = &bus->spaces[i];

		free(space->regions);
		free(space->segments);
		free(space->spare);
		free(space->edges);
		free(space->doorbells);
	}
	pthread_rwlock_destroy(&bus->lookup);
	pthread_mutex_destroy(&bus->change);
	free(bus);
}

/* ---- regions ---- */

/* n regions make at most 2n - 1 segments with 2n edges. */
static int reserve(struct bus *bus, struct space *space, size_t count)
{
	size_t capacity = count < 16 ? 16 : 2 * count;
	const struct bus_region **regions;
	struct segment *segments, *spare;
	u64 *edges;

	if (count <= space->capacity)
		return 0;
	regions = calloc(capacity, sizeof(const struct bus_region *));
	segments = calloc(2 * capacity, sizeof(*segments));
	spare = calloc(2 * capacity, sizeof(*spare));
	edges = calloc(2 * capacity, sizeof(*edges));
	if (!regions || !segments || !spare || !edges) {
		free(regions);
		free(segments);
		free(spare);
		free(edges);
		return -ENOMEM;
	}
	if (space->region_count) {
		memcpy(regions, space->regions,
		       space->region_count * sizeof(const struct bus_region *));
		memcpy(segments, space->segments, space->segment_count * sizeof(*segments));
	}
	pthread_rwlock_wrlock(&bus->lookup);
	free(space->segments);
	space->segments = segments;
	pthread_rwlock_unlock(&bus->lookup);
	free(space->regions);
	free(space->spare);
	free(space->edges);
	space->regions = regions;
	space->spare = spare;
	space->edges = edges;
	space->capacity = capacity;
	return 0;
}

static u64 last_of(const struct bus_region *region)
{
	return region->base + (region->size - 1);
}

static int compare_u64(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return (x > y) - (x < y);
}

/* Between two neighbouring edges one region answers: the first mapped of those that lie there, and
 * do not yield if any does not. */
static void rebuild(struct bus *bus, struct space *space)
{
	struct segment *segments = space->spare;
	size_t edge_count = 0, count = 0;

	for (size_t i = 0; i < space->region_count; i++) {
		space->edges[edge_count++] = space->regions[i]->base;
		if (last_of(space->regions[i]) != UINT64_MAX)
			space->edges[edge_count++] = last_of(space->regions[i]) + 1;
	}
	qsort(space->edges, edge_count, sizeof(u64), compare_u64);
	for (size_t e = 0; e < edge_count; e++) {
		u64 first = space->edges[e];
		u64 last = e + 1 < edge_count ? space->edges[e + 1] - 1 : UINT64_MAX;
		const struct bus_region *region = NULL;

		if (e + 1 < edge_count && space->edges[e + 1] == first)
			continue;
		for (size_t i = 0; i < space->region_count; i++) {
			if (space->regions[i]->base > first || first > last_of(space->regions[i]))
				continue;
			if (!region || (region->ops->yields && !space->regions[i]->ops->yields))
				region = space->regions[i];
		}
		if (!region)
			continue;
		if (count && segments[count - 1].region == region &&
		    segments[count - 1].last + 1 == first)
			segments[count - 1].last = last;
		else
			segments[count++] = (struct segment){ first, last, region };
	}
	pthread_rwlock_wrlock(&bus->lookup);
	space->spare = space->segments;
	space->segments = segments;
	space->segment_count = count;
	pthread_rwlock_unlock(&bus->lookup);
}

int bus_map(struct bus *bus, const struct bus_region *region)
{
	struct space *space = &bus->spaces[region->space];
	u64 end;
	int err;

	if (!region->size || __builtin_add_overflow(region->base, region->size - 1, &end) ||
	    (region->space == BUS_PIO && end >= PORTS))
		return -EINVAL;
	pthread_mutex_lock(&bus->change);
	err = reserve(bus, space, space->region_count + 1);
	if (!err) {
		space->regions[space->region_count++] = region;
		rebuild(bus, space);
	}
	pthread_mutex_unlock(&bus->change);
	return err;
}

void bus_unmap(struct bus *bus, const struct bus_region *region)
{
	struct space *space = &bus->spaces[region->space];

	pthread_mutex_lock(&bus->change);
	for (size_t i = 0; i < space->region_count; i++) {
		if (space->regions[i] != region)
			continue;
		space->region_count--;
		memmove(space->regions + i, space->regions + i + 1,
			(space->region_count - i) * sizeof(const struct bus_region *));
		rebuild(bus, space);
		break;
	}
	pthread_mutex_unlock(&bus->change);
}

/* ---- doorbells ---- */

/* The first doorbell at or after address. */
static size_t doorbell_position(const struct space *space, u64 address)
{
	size_t low = 0, high = space->doorbell_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (space->doorbells[middle].address < address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* KVM's own rule: could one write ring both? */
static bool doorbells_collide(const struct bus_doorbell *a, const struct bus_doorbell *b)
{
	if (!a->length || !b->length)
		return true;
	return a->length == b->length && (!a->match || !b->match || a->value == b->value);
}

static int doorbell_ioctl(const struct bus *bus, const struct bus_doorbell *doorbell, u32 flags)
{
	struct kvm_ioeventfd request = {
		.datamatch = doorbell->match ? doorbell->value : 0,
		.addr = doorbell->address,
		.len = doorbell->length,
		.fd = doorbell->fd,
		.flags = flags,
	};

	if (!bus->kvm)
		return 0;
	if (doorbell->space == BUS_PIO)
		request.flags |= KVM_IOEVENTFD_FLAG_PIO;
	if (doorbell->match)
		request.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
	return ioctl(bus->kvm->vm, KVM_IOEVENTFD, &request) ? -errno : 0;
}

static bool doorbell_valid(const struct bus *bus, const struct bus_doorbell *doorbell)
{
	switch (doorbell->length) {
	case 0:
		return doorbell->space == BUS_MMIO && !doorbell->match &&
		       (!bus->kvm || bus->kvm->ioeventfd_any_length);
	case 1:
	case 2:
	case 4:
	case 8:
		return true;
	}
	return false;
}

int bus_doorbell_add(struct bus *bus, const struct bus_doorbell *doorbell)
{
	struct space *space = &bus->spaces[doorbell->space];
	size_t at;
	int err = 0;

	if (!doorbell_valid(bus, doorbell))
		return -EINVAL;
	pthread_mutex_lock(&bus->change);
	at = doorbell_position(space, doorbell->address);
	for (size_t i = at; i < space->doorbell_count; i++) {
		if (space->doorbells[i].address != doorbell->address)
			break;
		if (doorbells_collide(&space->doorbells[i], doorbell)) {
			err = -EEXIST;
			goto out;
		}
	}
	if (space->doorbell_count == space->doorbell_capacity) {
		size_t capacity = space->doorbell_capacity ? 2 * space->doorbell_capacity : 64;
		struct bus_doorbell *grown = calloc(capacity, sizeof(*grown));

		if (!grown) {
			err = -ENOMEM;
			goto out;
		}
		if (space->doorbell_count)
			memcpy(grown, space->doorbells, space->doorbell_count * sizeof(*grown));
		pthread_rwlock_wrlock(&bus->lookup);
		free(space->doorbells);
		space->doorbells = grown;
		pthread_rwlock_unlock(&bus->lookup);
		space->doorbell_capacity = capacity;
	}
	/* Outside of the lookup lock: KVM waits for a grace period. When its table is full (ENOSPC)
	 * the write exits, and bus_write() rings. */
	err = doorbell_ioctl(bus, doorbell, 0);
	if (err && err != -ENOSPC)
		goto out;
	err = 0;
	pthread_rwlock_wrlock(&bus->lookup);
	memmove(space->doorbells + at + 1, space->doorbells + at,
		(space->doorbell_count - at) * sizeof(*space->doorbells));
	space->doorbells[at] = *doorbell;
	space->doorbell_count++;
	pthread_rwlock_unlock(&bus->lookup);
out:
	pthread_mutex_unlock(&bus->change);
	return err;
}

void bus_doorbell_remove(struct bus *bus, const struct bus_doorbell *doorbell)
{
	struct space *space = &bus->spaces[doorbell->space];

	pthread_mutex_lock(&bus->change);
	for (size_t i = doorbell_position(space, doorbell->address); i < space->doorbell_count;
	     i++) {
		const struct bus_doorbell *d = &space->doorbells[i];

		if (d->address != doorbell->address)
			break;
		if (d->fd != doorbell->fd || d->length != doorbell->length ||
		    d->match != doorbell->match || (d->match && d->value != doorbell->value))
			continue;
		doorbell_ioctl(bus, doorbell, KVM_IOEVENTFD_FLAG_DEASSIGN);
		pthread_rwlock_wrlock(&bus->lookup);
		space->doorbell_count--;
		memmove(space->doorbells + i, space->doorbells + i + 1,
			(space->doorbell_count - i) * sizeof(*space->doorbells));
		pthread_rwlock_unlock(&bus->lookup);
		break;
	}
	pthread_mutex_unlock(&bus->change);
}

/*
 * What KVM does with a guest's write, for the writes that it does not see: those of the PCI_CFG
 * window (virtio 1.3, 4.1.4.9), those of a doorbell it had no room for, and all without KVM.
 */
static bool ring_doorbell(const struct space *space, u64 address, unsigned int size, u64 value)
{
	u64 one = 1;

	for (size_t i = doorbell_position(space, address); i < space->doorbell_count; i++) {
		const struct bus_doorbell *d = &space->doorbells[i];

		if (d->address != address)
			break;
		if (d->length && (d->length != size || (d->match && d->value != value)))
			continue;
		/* EAGAIN: the counter is full, so it has rung */
		while (write(d->fd, &one, sizeof(one)) < 0 && errno == EINTR)
			;
		return true;
	}
	return false;
}

/* ---- accesses ---- */

/* Who answers at address (NULL: nobody), and up to which address that holds. */
static const struct bus_region *find(const struct space *space, u64 address, u64 *last)
{
	size_t low = 0, high = space->segment_count;

	/* the first segment that ends at or after address */
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (space->segments[middle].last < address)
			low = middle + 1;
		else
			high = middle;
	}
	*last = UINT64_MAX;
	if (low == space->segment_count)
		return NULL;
	if (space->segments[low].first > address) {
		*last = space->segments[low].first - 1;
		return NULL;
	}
	*last = space->segments[low].last;
	return space->segments[low].region;
}

static u64 size_mask(unsigned int size)
{
	return size >= 8 ? UINT64_MAX : BIT64(8 * size) - 1;
}

/* In one piece: a size that handlers know, within what one region (or nobody) answers. */
static bool whole(u64 address, unsigned int size, u64 last)
{
	return (size == 1 || size == 2 || size == 4 || size == 8) && last - address >= size - 1;
}

u64 bus_read(struct bus *bus, enum bus_space which, u64 address, unsigned int size)
{
	const struct bus_region *found;
	struct bus_region region = { 0 };
	u64 last, value = 0;

	pthread_rwlock_rdlock(&bus->lookup);
	found = find(&bus->spaces[which], address, &last);
	if (found)
		region = *found;
	pthread_rwlock_unlock(&bus->lookup);

	if (!whole(address, size, last)) {
		for (unsigned int i = 0; i < size && i < 8; i++)
			value |= bus_read(bus, which, address + i, 1) << (8 * i);
		return value;
	}
	if (!found || !region.ops->read)
		return size_mask(size);
	return region.ops->read(region.owner, address - region.base, size) & size_mask(size);
}

void bus_write(struct bus *bus, enum bus_space which, u64 address, unsigned int size, u64 value)
{
	const struct bus_region *found;
	struct bus_region region = { 0 };
	bool rung;
	u64 last;

	value &= size_mask(size);
	pthread_rwlock_rdlock(&bus->lookup);
	rung = ring_doorbell(&bus->spaces[which], address, size, value);
	found = find(&bus->spaces[which], address, &last);
	if (found)
		region = *found;
	pthread_rwlock_unlock(&bus->lookup);
	if (rung)
		return;

	if (!whole(address, size, last)) {
		for (unsigned int i = 0; i < size && i < 8; i++)
			bus_write(bus, which, address + i, 1, value >> (8 * i));
		return;
	}
	if (found && region.ops->write)
		region.ops->write(region.owner, address - region.base, size, value);
}
