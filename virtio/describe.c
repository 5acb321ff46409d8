/*
 * What a device is doing: see describe.h. All that is under the lock is copied first, so that the
 * driver waits for no text.
 */
#include "virtio/describe.h"

#include <linux/virtio_balloon.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_console.h>
#include <linux/virtio_net.h>
#include <stdatomic.h>
#include <stdio.h>
#include "virtio/pci-internal.h"
#include "vm/json.h"

struct name {
	u8 bit;
	char text[20];
};

static const struct name status_names[] = {
	{ 0, "ACKNOWLEDGE" }, { 1, "DRIVER" },	    { 2, "DRIVER_OK" },
	{ 3, "FEATURES_OK" }, { 6, "NEEDS_RESET" }, { 7, "FAILED" },
};

static const struct name core_names[] = {
	{ VIRTIO_F_NOTIFY_ON_EMPTY, "NOTIFY_ON_EMPTY" },
	{ VIRTIO_F_ANY_LAYOUT, "ANY_LAYOUT" },
	{ VIRTIO_RING_F_INDIRECT_DESC, "INDIRECT_DESC" },
	{ VIRTIO_RING_F_EVENT_IDX, "EVENT_IDX" },
	{ VIRTIO_F_VERSION_1, "VERSION_1" },
	{ VIRTIO_F_ACCESS_PLATFORM, "ACCESS_PLATFORM" },
	{ VIRTIO_F_RING_PACKED, "RING_PACKED" },
	{ VIRTIO_F_IN_ORDER, "IN_ORDER" },
	{ VIRTIO_F_ORDER_PLATFORM, "ORDER_PLATFORM" },
	{ VIRTIO_F_SR_IOV, "SR_IOV" },
	{ VIRTIO_F_NOTIFICATION_DATA, "NOTIFICATION_DATA" },
	{ VIRTIO_F_RING_RESET, "RING_RESET" },
};

static const struct name blk_names[] = {
	{ VIRTIO_BLK_F_BARRIER, "BARRIER" },
	{ VIRTIO_BLK_F_SIZE_MAX, "SIZE_MAX" },
	{ VIRTIO_BLK_F_SEG_MAX, "SEG_MAX" },
	{ VIRTIO_BLK_F_GEOMETRY, "GEOMETRY" },
	{ VIRTIO_BLK_F_RO, "RO" },
	{ VIRTIO_BLK_F_BLK_SIZE, "BLK_SIZE" },
	{ VIRTIO_BLK_F_SCSI, "SCSI" },
	{ VIRTIO_BLK_F_FLUSH, "FLUSH" },
	{ VIRTIO_BLK_F_TOPOLOGY, "TOPOLOGY" },
	{ VIRTIO_BLK_F_CONFIG_WCE, "CONFIG_WCE" },
	{ VIRTIO_BLK_F_MQ, "MQ" },
	{ VIRTIO_BLK_F_DISCARD, "DISCARD" },
	{ VIRTIO_BLK_F_WRITE_ZEROES, "WRITE_ZEROES" },
	{ VIRTIO_BLK_F_SECURE_ERASE, "SECURE_ERASE" },
};

static const struct name net_names[] = {
	{ VIRTIO_NET_F_CSUM, "CSUM" },
	{ VIRTIO_NET_F_GUEST_CSUM, "GUEST_CSUM" },
	{ VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, "CTRL_GUEST_OFFLOADS" },
	{ VIRTIO_NET_F_MTU, "MTU" },
	{ VIRTIO_NET_F_MAC, "MAC" },
	{ VIRTIO_NET_F_GSO, "GSO" },
	{ VIRTIO_NET_F_GUEST_TSO4, "GUEST_TSO4" },
	{ VIRTIO_NET_F_GUEST_TSO6, "GUEST_TSO6" },
	{ VIRTIO_NET_F_GUEST_ECN, "GUEST_ECN" },
	{ VIRTIO_NET_F_GUEST_UFO, "GUEST_UFO" },
	{ VIRTIO_NET_F_HOST_TSO4, "HOST_TSO4" },
	{ VIRTIO_NET_F_HOST_TSO6, "HOST_TSO6" },
	{ VIRTIO_NET_F_HOST_ECN, "HOST_ECN" },
	{ VIRTIO_NET_F_HOST_UFO, "HOST_UFO" },
	{ VIRTIO_NET_F_MRG_RXBUF, "MRG_RXBUF" },
	{ VIRTIO_NET_F_STATUS, "STATUS" },
	{ VIRTIO_NET_F_CTRL_VQ, "CTRL_VQ" },
	{ VIRTIO_NET_F_CTRL_RX, "CTRL_RX" },
	{ VIRTIO_NET_F_CTRL_VLAN, "CTRL_VLAN" },
	{ VIRTIO_NET_F_CTRL_RX_EXTRA, "CTRL_RX_EXTRA" },
	{ VIRTIO_NET_F_GUEST_ANNOUNCE, "GUEST_ANNOUNCE" },
	{ VIRTIO_NET_F_MQ, "MQ" },
	{ VIRTIO_NET_F_CTRL_MAC_ADDR, "CTRL_MAC_ADDR" },
	{ VIRTIO_NET_F_HASH_REPORT, "HASH_REPORT" },
	{ VIRTIO_NET_F_RSS, "RSS" },
	{ VIRTIO_NET_F_SPEED_DUPLEX, "SPEED_DUPLEX" },
};

static const struct name console_names[] = {
	{ VIRTIO_CONSOLE_F_SIZE, "SIZE" },
	{ VIRTIO_CONSOLE_F_MULTIPORT, "MULTIPORT" },
	{ VIRTIO_CONSOLE_F_EMERG_WRITE, "EMERG_WRITE" },
};

static const struct name balloon_names[] = {
	{ VIRTIO_BALLOON_F_MUST_TELL_HOST, "MUST_TELL_HOST" },
	{ VIRTIO_BALLOON_F_STATS_VQ, "STATS_VQ" },
	{ VIRTIO_BALLOON_F_DEFLATE_ON_OOM, "DEFLATE_ON_OOM" },
	{ VIRTIO_BALLOON_F_PAGE_POISON, "PAGE_POISON" },
	{ VIRTIO_BALLOON_F_REPORTING, "PAGE_REPORTING" },
};

static const char *find(const struct name *names, size_t count, u32 bit)
{
	for (size_t i = 0; i < count; i++)
		if (names[i].bit == bit)
			return names[i].text;
	return NULL;
}

static const char *feature_name(u16 id, u32 bit)
{
	const char *name = find(core_names, ARRAY_SIZE(core_names), bit);

	if (!name && id == VIRTIO_ID_BLOCK)
		name = find(blk_names, ARRAY_SIZE(blk_names), bit);
	if (!name && id == VIRTIO_ID_NET)
		name = find(net_names, ARRAY_SIZE(net_names), bit);
	if (!name && id == VIRTIO_ID_CONSOLE)
		name = find(console_names, ARRAY_SIZE(console_names), bit);
	if (!name && id == VIRTIO_ID_BALLOON)
		name = find(balloon_names, ARRAY_SIZE(balloon_names), bit);
	return name;
}

static void put_features(struct json *json, const char *key, u16 id, u64 features)
{
	char number[16];

	json_begin_array(json, key);
	for (u32 bit = 0; bit < 64; bit++) {
		const char *name = feature_name(id, bit);

		if (!(features >> bit & 1))
			continue;
		snprintf(number, sizeof(number), "bit %u", bit);
		json_text(json, NULL, name ? name : number);
	}
	json_end(json);
}

static void put_status(struct json *json, u8 status)
{
	char number[16];

	json_begin_array(json, "status");
	for (u32 bit = 0; bit < 8; bit++) {
		const char *name = find(status_names, ARRAY_SIZE(status_names), bit);

		snprintf(number, sizeof(number), "bit %u", bit);
		if (status >> bit & 1)
			json_text(json, NULL, name ? name : number);
	}
	json_end(json);
}

static void put_vector(struct json *json, const char *key, bool msix, u16 vector)
{
	if (msix && vector != VIRTIO_MSI_NO_VECTOR)
		json_number(json, key, vector);
	else
		json_text(json, key, NULL);
}

/* A queue's registers. */
struct registers {
	u16 size, max_size, vector;
	bool enabled;
};

static void put_queue(const struct virtio_queue *queue, const struct registers *r, bool packed,
		      bool msix, struct json *json)
{
	static const char *const states[] = { [VIRTIO_QUEUE_IDLE] = "idle",
					      [VIRTIO_QUEUE_RUNNING] = "running",
					      [VIRTIO_QUEUE_STOPPING] = "stopping" };
	int state = atomic_load_explicit(&queue->state, memory_order_relaxed);
	u64 shown = atomic_load_explicit(&queue->shown, memory_order_relaxed);
	bool lent = shown & VIRTIO_SHOWN_LENT;

	json_begin_object(json, NULL);
	json_number(json, "queue", queue->index);
	json_number(json, "size", r->size);
	json_number(json, "most", r->max_size);
	json_bool(json, "enabled", r->enabled);
	json_text(json, "state", state == VIRTIO_QUEUE_RUNNING && lent ? "vhost" : states[state]);
	json_text(json, "format", packed ? "packed" : "split");
	put_vector(json, "vector", msix, r->vector);
	/* of a ring that runs, and that is ours */
	if (state != VIRTIO_QUEUE_IDLE && !lent) {
		json_number(json, "taken", (u16)shown);
		json_number(json, "used", (u16)(shown >> 16));
		json_number(json, "in_flight", (u16)(shown >> 32));
	}
	json_end(json);
}

static void put_queues(struct virtio_device *device, bool packed, bool msix, struct json *json)
{
	json_begin_array(json, "queues");
	for (u16 i = 0; i < device->queue_count; i++) {
		struct virtio_queue *queue = &device->queues[i];
		struct registers r;

		pthread_mutex_lock(&device->lock);
		r = (struct registers){ queue->size, queue->max_size, queue->msix_vector,
					queue->enabled };
		pthread_mutex_unlock(&device->lock);
		put_queue(queue, &r, packed, msix, json);
	}
	json_end(json);
}

static const char *layout_name(const struct virtio_pci *pci)
{
	if (!pci)
		return "mmio";
	if (!pci->layout.legacy)
		return "modern";
	return pci->layout.modern ? "transitional" : "legacy";
}

void virtio_describe(struct virtio_device *device, const struct virtio_pci *pci, struct json *json)
{
	u16 config_vector = VIRTIO_MSI_NO_VECTOR;
	bool msix, legacy, packed;
	u64 offered, features;
	u8 status;

	pthread_mutex_lock(&device->lock);
	status = device->status;
	legacy = device->legacy;
	offered = device->offered;
	features = device->features;
	msix = pci && pci_msix_enabled(&pci->function);
	if (pci)
		config_vector = pci->config_vector;
	pthread_mutex_unlock(&device->lock);
	packed = !legacy && features >> VIRTIO_F_RING_PACKED & 1;

	put_status(json, status);
	json_text(json, "layout", layout_name(pci));
	json_text(json, "driver",
		  status & VIRTIO_CONFIG_S_DRIVER ? legacy ? "legacy" : "modern" : NULL);
	put_features(json, "offered", device->ops->id, offered);
	put_features(json, "negotiated", device->ops->id, features);
	json_text(json, "interrupts", msix ? "MSI-X" : pci ? "INTx" : "line");
	if (pci && !msix)
		json_number(json, "line", pci->function.gsi);
	if (pci)
		json_number(json, "vectors", pci->layout.vectors);
	put_vector(json, "config_vector", msix, config_vector);
	json_number(json, "generation",
		    atomic_load_explicit(&device->config_generation, memory_order_relaxed));
	put_queues(device, packed, msix, json);
}
