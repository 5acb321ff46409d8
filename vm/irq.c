/*
 * Interrupts. GSIs 0 to 23 are the IOAPIC's pins (0 to 15 the PIC's too), each MSI vector takes one
 * from 24 on. KVM has one routing table, which can only be replaced whole, at the cost of a grace
 * period: it is sent when an entry really changed, and only vectors that were connected once are in
 * it.
 *
 * Documentation/virt/kvm/api.rst: KVM_IRQFD, KVM_SET_GSI_ROUTING, KVM_IRQ_LINE.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vm/irq.h"
#include "vm/kvm.h"
#include "vm/layout.h"
#include "vm/log.h"

#define PIC_PINS     16
#define FIXED_ROUTES (LAYOUT_GSI_COUNT + PIC_PINS)
/* without KVM */
#define TEST_ROUTES 4096

struct line {
	_Atomic int fd, resample_fd;
	pthread_mutex_t lock; /* the list, over asserted() too */
	struct irq_share *shares;
};

struct irq_msi {
	struct irq *irq;
	int fd;
	u32 gsi;
	bool routed; /* address and data are to be in the table, */
	bool known;  /* and KVM has them */
	atomic_bool connected;
	u64 address;
	u32 data;
};

struct irq {
	const struct kvm *kvm;
	_Atomic u32 high; /* lines that irq_line_set() raised */
	struct line lines[LAYOUT_GSI_COUNT];

	pthread_mutex_t lock;  /* all below */
	struct irq_msi **msis; /* by GSI - LAYOUT_GSI_COUNT; NULL: free */
	u32 msi_limit;	       /* elements of msis */
	u32 msi_top;	       /* above which all are free */
	u32 msi_count;
	struct kvm_irq_routing *table;
	u32 table_capacity; /* MSI routes it has room for */
};

static int ring(int fd)
{
	u64 one = 1;

	while (write(fd, &one, sizeof(one)) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

static void drain(int fd)
{
	u64 count;

	while (read(fd, &count, sizeof(count)) < 0 && errno == EINTR)
		;
}

static int new_eventfd(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

static int set_irqfd(const struct irq *irq, int fd, u32 gsi, int resample_fd, bool attach)
{
	struct kvm_irqfd request = { .fd = (u32)fd, .gsi = gsi };

	if (!irq->kvm)
		return 0;
	if (!attach) {
		request.flags = KVM_IRQFD_FLAG_DEASSIGN;
	} else if (resample_fd >= 0) {
		request.flags = KVM_IRQFD_FLAG_RESAMPLE;
		request.resamplefd = (u32)resample_fd;
	}
	return ioctl(irq->kvm->vm, KVM_IRQFD, &request) ? -errno : 0;
}

/* ---- the routing table ---- */

static u32 put_chip_routes(struct kvm_irq_routing_entry *entry)
{
	u32 count = 0;

	for (u32 pin = 0; pin < LAYOUT_GSI_COUNT; pin++) {
		entry[count++] = (struct kvm_irq_routing_entry){
			.gsi = pin,
			.type = KVM_IRQ_ROUTING_IRQCHIP,
			.u.irqchip = { .irqchip = KVM_IRQCHIP_IOAPIC, .pin = pin },
		};
	}
	for (u32 pin = 0; pin < PIC_PINS; pin++) {
		entry[count++] = (struct kvm_irq_routing_entry){
			.gsi = pin,
			.type = KVM_IRQ_ROUTING_IRQCHIP,
			.u.irqchip = { .irqchip = pin < 8 ? KVM_IRQCHIP_PIC_MASTER
							  : KVM_IRQCHIP_PIC_SLAVE,
				       .pin = pin % 8 },
		};
	}
	return count;
}

static int send_table(struct irq *irq)
{
	struct kvm_irq_routing *table = irq->table;

	table->flags = 0;
	table->nr = put_chip_routes(table->entries);
	for (u32 i = 0; i < irq->msi_top; i++) {
		const struct irq_msi *msi = irq->msis[i];

		if (!msi || !msi->routed)
			continue;
		table->entries[table->nr++] = (struct kvm_irq_routing_entry){
			.gsi = msi->gsi,
			.type = KVM_IRQ_ROUTING_MSI,
			.u.msi = { .address_lo = (u32)msi->address,
				   .address_hi = (u32)(msi->address >> 32),
				   .data = msi->data },
		};
	}
	if (!irq->kvm)
		return 0;
	return ioctl(irq->kvm->vm, KVM_SET_GSI_ROUTING, table) ? -errno : 0;
}

static int reserve_table(struct irq *irq, u32 msis)
{
	u32 capacity = msis < 32 ? 32 : 2 * msis;
	struct kvm_irq_routing *table;

	if (msis <= irq->table_capacity)
		return 0;
	table = calloc(1, sizeof(*table) + (FIXED_ROUTES + capacity) * sizeof(table->entries[0]));
	if (!table)
		return -ENOMEM;
	free(irq->table);
	irq->table = table;
	irq->table_capacity = capacity;
	return 0;
}

/* ---- creation and reset ---- */

/* What KVM gives a VM, and a reset again: 8259A and 82093AA data sheets, with the edge/level masks
 * of a PIIX. The I/O APIC's pins are masked. */
static void power_on_chips(struct kvm_irqchip chips[3])
{
	memset(chips, 0, 3 * sizeof(chips[0]));
	chips[0].chip_id = KVM_IRQCHIP_PIC_MASTER;
	chips[0].chip.pic.elcr_mask = 0xf8;
	chips[1].chip_id = KVM_IRQCHIP_PIC_SLAVE;
	chips[1].chip.pic.elcr_mask = 0xde;
	chips[2].chip_id = KVM_IRQCHIP_IOAPIC;
	chips[2].chip.ioapic.base_address = LAYOUT_IOAPIC;
	for (u32 pin = 0; pin < LAYOUT_GSI_COUNT; pin++)
		chips[2].chip.ioapic.redirtbl[pin].fields.mask = 1;
}

int irq_create(struct irq **out, const struct kvm *kvm)
{
	struct irq *irq = calloc(1, sizeof(*irq));
	int err;

	if (!irq)
		return -ENOMEM;
	irq->kvm = kvm;
	pthread_mutex_init(&irq->lock, NULL);
	for (u32 i = 0; i < LAYOUT_GSI_COUNT; i++) {
		pthread_mutex_init(&irq->lines[i].lock, NULL);
		atomic_init(&irq->lines[i].fd, -1);
		atomic_init(&irq->lines[i].resample_fd, -1);
	}
	irq->msi_limit = (kvm ? KVM_MIN_ROUTES : TEST_ROUTES) - FIXED_ROUTES;
	irq->msis = calloc(irq->msi_limit, sizeof(struct irq_msi *));
	err = irq->msis ? reserve_table(irq, 1) : -ENOMEM;
	if (err) {
		log_line("interrupts: KVM's interrupt controllers cannot be set up: %s; "
			 "a newer host kernel may help",
			 strerror(-err));
		irq_destroy(irq);
		return err;
	}
	*out = irq;
	return 0;
}

static void close_line(struct irq *irq, u32 gsi)
{
	struct line *line = &irq->lines[gsi];
	int fd = atomic_exchange(&line->fd, -1),
	    resample_fd = atomic_exchange(&line->resample_fd, -1);

	if (fd >= 0) {
		set_irqfd(irq, fd, gsi, -1, false);
		close(fd);
	}
	if (resample_fd >= 0)
		close(resample_fd);
}

void irq_destroy(struct irq *irq)
{
	if (!irq)
		return;
	for (u32 gsi = 0; gsi < LAYOUT_GSI_COUNT; gsi++) {
		close_line(irq, gsi);
		pthread_mutex_destroy(&irq->lines[gsi].lock);
	}
	pthread_mutex_destroy(&irq->lock);
	free(irq->msis);
	free(irq->table);
	free(irq);
}

void irq_reset(struct irq *irq)
{
	struct kvm_irqchip chips[3];

	for (u32 gsi = 0; gsi < LAYOUT_GSI_COUNT; gsi++) {
		struct line *line = &irq->lines[gsi];

		irq_line_set(irq, gsi, false);
		pthread_mutex_lock(&line->lock);
		if (line->fd >= 0) {
			/* taking the irqfd away is what lowers its line */
			set_irqfd(irq, line->fd, gsi, -1, false);
			drain(line->fd);
			drain(line->resample_fd);
			if (set_irqfd(irq, line->fd, gsi, line->resample_fd, true))
				log_line("interrupts: line %u is lost: %s; restart the VM", gsi,
					 strerror(errno));
		}
		pthread_mutex_unlock(&line->lock);
	}
	power_on_chips(chips);
	for (size_t i = 0; irq->kvm && i < ARRAY_SIZE(chips); i++) {
		if (ioctl(irq->kvm->vm, KVM_SET_IRQCHIP, &chips[i]))
			log_line("interrupts: controller %zu keeps its state over the reset: %s", i,
				 strerror(errno));
	}
}

/* ---- lines of platform devices ---- */

void irq_line_set(struct irq *irq, u32 gsi, bool high)
{
	struct kvm_irq_level level = { .irq = gsi, .level = high };
	u32 before;

	if (gsi >= LAYOUT_GSI_COUNT)
		return;
	before = high ? atomic_fetch_or(&irq->high, BIT(gsi))
		      : atomic_fetch_and(&irq->high, ~BIT(gsi));
	if (!irq->kvm || !(before & BIT(gsi)) == !high)
		return;
	ioctl(irq->kvm->vm, KVM_IRQ_LINE, &level);
}

/* ---- shared lines ---- */

static int open_line(struct irq *irq, u32 gsi)
{
	struct line *line = &irq->lines[gsi];
	int fd = new_eventfd(), resample_fd = new_eventfd();
	int err = fd < 0 ? fd : resample_fd < 0 ? resample_fd : 0;

	if (!err)
		err = set_irqfd(irq, fd, gsi, resample_fd, true);
	if (err) {
		if (fd >= 0)
			close(fd);
		if (resample_fd >= 0)
			close(resample_fd);
		return err;
	}
	atomic_store(&line->fd, fd);
	atomic_store(&line->resample_fd, resample_fd);
	return 0;
}

int irq_shared_add(struct irq *irq, u32 gsi, struct irq_share *share)
{
	struct line *line;
	int err = 0;

	if (gsi >= LAYOUT_GSI_COUNT)
		return -EINVAL;
	line = &irq->lines[gsi];
	pthread_mutex_lock(&line->lock);
	if (!line->shares)
		err = open_line(irq, gsi);
	if (!err) {
		share->next = line->shares;
		line->shares = share;
	}
	pthread_mutex_unlock(&line->lock);
	return err;
}

void irq_shared_remove(struct irq *irq, u32 gsi, struct irq_share *share)
{
	struct line *line;

	if (gsi >= LAYOUT_GSI_COUNT)
		return;
	line = &irq->lines[gsi];
	pthread_mutex_lock(&line->lock);
	for (struct irq_share **at = &line->shares; *at; at = &(*at)->next) {
		if (*at != share)
			continue;
		*at = share->next;
		if (!line->shares)
			close_line(irq, gsi);
		break;
	}
	pthread_mutex_unlock(&line->lock);
}

int irq_shared_fd(const struct irq *irq, u32 gsi)
{
	return gsi < LAYOUT_GSI_COUNT ? atomic_load(&irq->lines[gsi].fd) : -1;
}

int irq_shared_resample_fd(const struct irq *irq, u32 gsi)
{
	return gsi < LAYOUT_GSI_COUNT ? atomic_load(&irq->lines[gsi].resample_fd) : -1;
}

void irq_shared_resampled(struct irq *irq, u32 gsi)
{
	struct line *line;
	bool asserted = false;

	if (gsi >= LAYOUT_GSI_COUNT)
		return;
	line = &irq->lines[gsi];
	pthread_mutex_lock(&line->lock);
	for (struct irq_share *share = line->shares; share && !asserted; share = share->next)
		asserted = share->asserted(share->owner);
	if (asserted)
		ring(line->fd);
	pthread_mutex_unlock(&line->lock);
}

/* ---- message-signalled interrupts ---- */

/* Room for as many vectors as KVM can route, which most VMs need not know. Neither the number of
 * routes nor the highest GSI may pass its limit. */
static int more_msis(struct irq *irq)
{
	u32 limit = irq->kvm ? kvm_max_routes(irq->kvm) - FIXED_ROUTES : irq->msi_limit;
	struct irq_msi **msis;

	if (limit <= irq->msi_limit)
		return -ENOSPC;
	msis = realloc(irq->msis, limit * sizeof(struct irq_msi *));
	if (!msis)
		return -ENOMEM;
	memset(msis + irq->msi_limit, 0, (limit - irq->msi_limit) * sizeof(struct irq_msi *));
	irq->msis = msis;
	irq->msi_limit = limit;
	return 0;
}

int irq_msi_create(struct irq *irq, struct irq_msi **out)
{
	struct irq_msi *msi = calloc(1, sizeof(*msi));
	u32 index = 0;
	int err;

	if (!msi)
		return -ENOMEM;
	msi->irq = irq;
	msi->fd = new_eventfd();
	if (msi->fd < 0) {
		err = msi->fd;
		free(msi);
		return err;
	}
	pthread_mutex_lock(&irq->lock);
	while (index < irq->msi_limit && irq->msis[index])
		index++;
	err = index == irq->msi_limit ? more_msis(irq) : 0;
	if (!err)
		err = reserve_table(irq, irq->msi_count + 1);
	if (!err) {
		msi->gsi = LAYOUT_GSI_COUNT + index;
		irq->msis[index] = msi;
		irq->msi_count++;
		if (index >= irq->msi_top)
			irq->msi_top = index + 1;
	}
	pthread_mutex_unlock(&irq->lock);
	if (err) {
		close(msi->fd);
		free(msi);
		return err;
	}
	*out = msi;
	return 0;
}

static void detach(struct irq_msi *msi)
{
	if (!atomic_load(&msi->connected))
		return;
	/* KVM empties the eventfd: what was fired until now is delivered */
	set_irqfd(msi->irq, msi->fd, msi->gsi, -1, false);
	atomic_store(&msi->connected, false);
}

void irq_msi_destroy(struct irq_msi *msi)
{
	struct irq *irq;

	if (!msi)
		return;
	irq = msi->irq;
	pthread_mutex_lock(&irq->lock);
	detach(msi);
	/* its route stays in KVM's table until the next change, with nothing to use it */
	irq->msis[msi->gsi - LAYOUT_GSI_COUNT] = NULL;
	irq->msi_count--;
	while (irq->msi_top && !irq->msis[irq->msi_top - 1])
		irq->msi_top--;
	pthread_mutex_unlock(&irq->lock);
	close(msi->fd);
	free(msi);
}

u32 irq_msi_room(struct irq *irq)
{
	u32 room;

	pthread_mutex_lock(&irq->lock);
	room = irq->msi_limit - irq->msi_count;
	pthread_mutex_unlock(&irq->lock);
	return room;
}

int irq_msi_fd(const struct irq_msi *msi)
{
	return msi->fd;
}

static bool has_route(const struct irq_msi *msi, u64 address, u32 data)
{
	return msi->routed && msi->address == address && msi->data == data;
}

static void set_route(struct irq_msi *msi, u64 address, u32 data)
{
	msi->routed = true;
	msi->known = false;
	msi->address = address;
	msi->data = data;
}

/* What KVM does not have yet it has now, or the table has it no more. */
static void settle(struct irq *irq, bool known)
{
	for (u32 i = 0; i < irq->msi_top; i++) {
		struct irq_msi *msi = irq->msis[i];

		if (msi && msi->routed && !msi->known)
			msi->known = msi->routed = known;
	}
}

static int route(struct irq_msi *msi, u64 address, u32 data)
{
	struct irq *irq = msi->irq;
	const struct irq_msi before = *msi;
	int err;

	if (has_route(msi, address, data) && msi->known)
		return 0;
	set_route(msi, address, data);
	err = send_table(irq);
	if (err) {
		/* KVM kept the old table, and so do we; those that were prepared come one by one */
		msi->routed = before.routed && before.known;
		msi->known = msi->routed;
		msi->address = before.address;
		msi->data = before.data;
	}
	settle(irq, !err);
	return err;
}

void irq_msi_prepare(struct irq_msi *msi, u64 address, u32 data)
{
	pthread_mutex_lock(&msi->irq->lock);
	if (!(address >> 32) && !atomic_load(&msi->connected) && !has_route(msi, address, data))
		set_route(msi, address, data);
	pthread_mutex_unlock(&msi->irq->lock);
}

int irq_msi_connect(struct irq_msi *msi, u64 address, u32 data)
{
	static struct log_limit limit;
	struct irq *irq = msi->irq;
	int err = address >> 32 ? -EINVAL : 0;

	pthread_mutex_lock(&irq->lock);
	if (!err)
		err = route(msi, address, data);
	if (!err && !atomic_load(&msi->connected)) {
		/* fires at once if the eventfd was written meanwhile */
		err = set_irqfd(irq, msi->fd, msi->gsi, -1, true);
		if (!err)
			atomic_store(&msi->connected, true);
	}
	if (err)
		detach(msi); /* rather silent than at the old address */
	pthread_mutex_unlock(&irq->lock);
	if (err)
		log_limited(
			&limit, 10,
			"interrupts: the guest's MSI address 0x%llx, data 0x%x: %s; this vector "
			"stays silent",
			(unsigned long long)address, data, strerror(-err));
	return err;
}

void irq_msi_disconnect(struct irq_msi *msi)
{
	pthread_mutex_lock(&msi->irq->lock);
	detach(msi);
	pthread_mutex_unlock(&msi->irq->lock);
}

bool irq_msi_pending(const struct irq_msi *msi)
{
	struct pollfd fd = { .fd = msi->fd, .events = POLLIN };

	return !atomic_load(&msi->connected) && poll(&fd, 1, 0) == 1;
}

void irq_msi_clear(struct irq_msi *msi)
{
	drain(msi->fd);
}
