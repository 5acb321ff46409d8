/*
 * Which received frames the driver wants: receive modes, MAC table, VLAN table
 * (virtio 1.3, 5.1.6.5.1 to 5.1.6.5.3). Pure functions over a struct net_filter; each pair has its
 * own copy of it.
 */
#include "virtio/net-internal.h"

void net_filter_reset(struct net_filter *filter, bool control, bool vlan_filter)
{
	memset(filter, 0, sizeof(*filter));
	filter->promisc = !control;
	filter->vlan_filter = vlan_filter;
}

void net_filter_vlan(struct net_filter *filter, u16 id, bool on)
{
	u64 bit = BIT64(id % 64);

	if (on)
		filter->vlans[id / 64] |= bit;
	else
		filter->vlans[id / 64] &= ~bit;
}

static bool table_has(const u8 table[][ETH_ALEN], u16 count, const u8 *mac)
{
	for (u16 i = 0; i < count; i++)
		if (!memcmp(table[i], mac, ETH_ALEN))
			return true;
	return false;
}

/* An identifier of 0 is no VLAN but a priority: such frames belong to the untagged ones. */
static bool vlan_accepts(const struct net_filter *filter, const u8 *frame, u32 size)
{
	u16 type = (u16)(frame[12] << 8 | frame[13]);
	u16 id;

	if ((type != ETH_P_8021Q && type != ETH_P_8021AD) || size < ETH_HLEN + NET_VLAN_BYTES)
		return true;
	id = (u16)((frame[14] << 8 | frame[15]) & (NET_FILTER_VLANS - 1));
	return !id || filter->vlans[id / 64] >> (id % 64) & 1;
}

static bool unicast_accepts(const struct net_filter *filter, const u8 *mac)
{
	if (filter->nouni)
		return false;
	if (filter->alluni || filter->unicast_overflow || !filter->mac_known)
		return true;
	return !memcmp(filter->mac, mac, ETH_ALEN) ||
	       table_has(filter->unicast, filter->unicast_count, mac);
}

static bool multicast_accepts(const struct net_filter *filter, const u8 *mac)
{
	if (filter->nomulti)
		return false;
	return filter->allmulti || filter->multicast_overflow ||
	       table_has(filter->multicast, filter->multicast_count, mac);
}

bool net_filter_accepts(const struct net_filter *filter, const u8 *frame, u32 size)
{
	static const u8 broadcast[ETH_ALEN] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

	if (filter->promisc)
		return true;
	if (filter->vlan_filter && !vlan_accepts(filter, frame, size))
		return false;
	if (!memcmp(frame, broadcast, ETH_ALEN))
		return !filter->nobcast;
	return frame[0] & 1 ? multicast_accepts(filter, frame) : unicast_accepts(filter, frame);
}
