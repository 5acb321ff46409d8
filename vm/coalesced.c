/* Port writes that KVM collects: see coalesced.h. */
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "vm/bus.h"
#include "vm/coalesced.h"
#include "vm/kvm.h"
#include "vm/layout.h"

/* The registers that choose what the next port means. */
static const struct {
	u32 port, size;
} zones[] = {
	{ LAYOUT_PORT_PCI_ADDRESS, 4 },
	{ LAYOUT_PORT_RTC, 1 },
};

#define PAGE 4096u
#define RING_PLACES \
	((PAGE - sizeof(struct kvm_coalesced_mmio_ring)) / sizeof(struct kvm_coalesced_mmio))

void coalesced_create(struct coalesced *c, const struct kvm *kvm, struct bus *bus, void *run)
{
	int page = ioctl(kvm->fd, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_MMIO);

	*c = (struct coalesced){ .bus = bus };
	pthread_mutex_init(&c->lock, NULL);
	if (page <= 0 || kvm->run_size < ((u32)page + 1) * PAGE)
		return;
	for (u32 i = 0; i < ARRAY_SIZE(zones); i++) {
		struct kvm_coalesced_mmio_zone zone = { .addr = zones[i].port,
							.size = zones[i].size,
							.pio = 1 };

		/* a kernel that knows no ports here refuses the flag */
		if (!ioctl(kvm->vm, KVM_REGISTER_COALESCED_MMIO, &zone))
			c->ring = (void *)((u8 *)run + (u32)page * PAGE);
	}
}

void coalesced_destroy(struct coalesced *c)
{
	pthread_mutex_destroy(&c->lock);
}

/* The kernel adds at last, we take at first: api.rst. Whoever finds them equal finds everything
 * done, because first moves on behind the deed. */
void coalesced_drain(struct coalesced *c)
{
	struct kvm_coalesced_mmio_ring *ring = c->ring;
	u32 first;

	if (!ring || __atomic_load_n(&ring->first, __ATOMIC_ACQUIRE) ==
			     __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE))
		return;
	pthread_mutex_lock(&c->lock);
	first = ring->first;
	while (first < RING_PLACES && first != __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE)) {
		const struct kvm_coalesced_mmio *write = &ring->coalesced_mmio[first];

		bus_write(c->bus, write->pio ? BUS_PIO : BUS_MMIO, write->phys_addr, write->len,
			  le_load(write->data, write->len <= sizeof(write->data) ? write->len : 0));
		first = (first + 1) % RING_PLACES;
		__atomic_store_n(&ring->first, first, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&c->lock);
}
