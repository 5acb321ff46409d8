/* What of the network a driver wants to hear (virtio 1.3, 5.1.6.5.1 to 5.1.6.5.3), as a table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "virtio/net-internal.h"

static const u8 own[6] = { 0x02, 1, 2, 3, 4, 5 };
static const u8 other[6] = { 0x02, 1, 2, 3, 4, 6 };
static const u8 group[6] = { 0x01, 0, 0x5e, 1, 1, 1 };
static const u8 group2[6] = { 0x01, 0, 0x5e, 1, 1, 2 };
static const u8 all[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

static struct net_filter filter;

static bool accepts(const u8 *to, u16 type, u16 tag)
{
	u8 frame[18] = {};

	memcpy(frame, to, 6);
	frame[12] = (u8)(type >> 8);
	frame[13] = (u8)type;
	frame[14] = (u8)(tag >> 8);
	frame[15] = (u8)tag;
	return net_filter_accepts(&filter, frame, sizeof(frame));
}

static void assert_accepts(bool to_own, bool to_other, bool to_group, bool to_all)
{
	assert_int_equal(accepts(own, ETH_P_IP, 0), to_own);
	assert_int_equal(accepts(other, ETH_P_IP, 0), to_other);
	assert_int_equal(accepts(group, ETH_P_IP, 0), to_group);
	assert_int_equal(accepts(all, ETH_P_IP, 0), to_all);
}

static int fresh(void **state)
{
	(void)state;
	net_filter_reset(&filter, true, false);
	memcpy(filter.mac, own, 6);
	filter.mac_known = true;
	return 0;
}

static void starts_with_its_own_address(void **state)
{
	(void)state;
	assert_accepts(true, false, false, true);
	filter.mac_known = false; /* a driver that never said which */
	assert_accepts(true, true, false, true);
	net_filter_reset(&filter, false, false); /* one that cannot say what it wants */
	assert_accepts(true, true, true, true);
}

static void obeys_modes(void **state)
{
	(void)state;
	filter.allmulti = true;
	assert_accepts(true, false, true, true);
	filter.alluni = true;
	assert_accepts(true, true, true, true);
	/* what is suppressed stays so even if all of it is wanted */
	filter.nomulti = true;
	assert_accepts(true, true, false, true);
	filter.nouni = true;
	assert_accepts(false, false, false, true);
	filter.nobcast = true;
	assert_accepts(false, false, false, false);
	/* and promiscuous mode is above all */
	filter.promisc = true;
	assert_accepts(true, true, true, true);
}

static void obeys_the_tables(void **state)
{
	(void)state;
	memcpy(filter.unicast[1], other, 6);
	filter.unicast_count = 1; /* the second entry is none */
	memcpy(filter.multicast[0], group2, 6);
	filter.multicast_count = 1;
	assert_accepts(true, false, false, true);
	assert_true(accepts(group2, ETH_P_IP, 0));
	filter.unicast_count = 2;
	assert_accepts(true, true, false, true);
	filter.multicast_overflow = true;
	assert_accepts(true, true, true, true);
	filter.unicast_count = 0;
	assert_accepts(true, false, true, true);
	filter.unicast_overflow = true;
	assert_accepts(true, true, true, true);
}

static void obeys_the_vlan_table(void **state)
{
	(void)state;
	assert_true(accepts(own, ETH_P_8021Q, 5)); /* not negotiated: all (5.1.6.5.3.1) */
	filter.vlan_filter = true;
	assert_false(accepts(own, ETH_P_8021Q, 5));
	assert_false(accepts(all, ETH_P_8021AD, 5));
	assert_true(accepts(own, ETH_P_IP, 5));		/* the table is about tagged frames only */
	assert_true(accepts(own, ETH_P_8021Q, 0xe000)); /* a priority, no VLAN */
	for (u32 id = 1; id < NET_FILTER_VLANS; id += 63) {
		net_filter_vlan(&filter, (u16)id, true);
		assert_true(accepts(own, ETH_P_8021Q, (u16)id));
		assert_true(accepts(own, ETH_P_8021Q, (u16)(id | 0xf000))); /* priority and DEI */
		assert_false(accepts(own, ETH_P_8021Q, (u16)(id + 1)));
		assert_false(accepts(other, ETH_P_8021Q, (u16)id));
		net_filter_vlan(&filter, (u16)id, false);
		assert_false(accepts(own, ETH_P_8021Q, (u16)id));
	}
	filter.promisc = true;
	assert_true(accepts(own, ETH_P_8021Q, 5));
}

/* A frame that ends where a tag's value would be has none. */
static void reads_no_further_than_the_frame(void **state)
{
	u8 *frame = test_malloc(14);

	(void)state;
	memcpy(frame, own, 6);
	memset(frame + 6, 0, 6);
	frame[12] = 0x81;
	frame[13] = 0x00;
	filter.vlan_filter = true;
	assert_true(net_filter_accepts(&filter, frame, 14));
	test_free(frame);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(starts_with_its_own_address, fresh),
		cmocka_unit_test_setup(obeys_modes, fresh),
		cmocka_unit_test_setup(obeys_the_tables, fresh),
		cmocka_unit_test_setup(obeys_the_vlan_table, fresh),
		cmocka_unit_test_setup(reads_no_further_than_the_frame, fresh),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
