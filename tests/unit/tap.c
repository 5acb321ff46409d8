/* Taps: attached to, made, and every mistake named with the command that mends it. */
#include <cap-ng.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include "backends/tap.h"
#include "tests/unit/netns.h"

static char said[4096];

static int open_tap(struct tap *tap, const char *name, u16 queues)
{
	const struct tap_config config = { .name = name, .queues = queues };
	int result;

	capture_begin();
	result = tap_open(tap, &config);
	capture_end(said, sizeof(said));
	return result;
}

#define assert_said(text)                                                             \
	do {                                                                          \
		if (!strstr(said, text))                                              \
			fail_msg("expected a line with \"%s\", got: %s", text, said); \
	} while (0)

/* One line, `vmm: what: why; what to do`. */
static void assert_one_line(const char *name)
{
	char start[64];

	snprintf(start, sizeof(start), "vmm: %s: ", name);
	assert_memory_equal(said, start, strlen(start));
	assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1);
}

static bool is_up(const char *name)
{
	struct ifreq ifr = {};

	assert_int_equal(netns_ioctl(name, SIOCGIFFLAGS, &ifr), 0);
	return ifr.ifr_flags & IFF_UP;
}

static void makes_one_and_takes_it_along(void **state)
{
	struct tap tap, again;

	(void)state;
	netns_needed();
	assert_int_equal(open_tap(&tap, "new0", 1), 0);
	assert_string_equal(said, "");
	assert_true(tap.created);
	assert_true(is_up("new0"));
	assert_int_equal(tap.mtu, 1500);
	assert_true(fcntl(tap.fds[0], F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(tap.fds[0], F_GETFD) & FD_CLOEXEC);
	/* what every kernel since 2.6.27 can */
	assert_true(tap.can_csum && tap.can_tso4 && tap.can_tso6 && tap.can_ecn);
	tap_close(&tap);
	assert_int_equal(if_nametoindex("new0"), 0);
	/* the address: local, unicast, the name's own */
	assert_int_equal(open_tap(&again, "new0", 1), 0);
	assert_memory_equal(tap.mac, again.mac, 6);
	assert_int_equal(tap.mac[0] & 3, 2);
	tap_close(&again);
	assert_int_equal(open_tap(&again, "new1", 1), 0);
	assert_memory_not_equal(tap.mac, again.mac, 6);
	tap_close(&again);
}

static void uses_one_that_exists(void **state)
{
	struct tap tap;

	(void)state;
	netns_needed();
	netns_tuntap("old0", IFF_TAP | IFF_NO_PI, -1);
	netns_mtu("old0", 9000);
	netns_up("old0", true);
	assert_int_equal(open_tap(&tap, "old0", 1), 0);
	assert_string_equal(said, "");
	assert_false(tap.created || tap.multi_queue);
	assert_int_equal(tap.mtu, 9000);
	tap_close(&tap);
	assert_int_not_equal(if_nametoindex("old0"), 0);
	netns_delete("old0");
}

static void says_that_it_is_down(void **state)
{
	struct tap tap;

	(void)state;
	netns_needed();
	netns_tuntap("down0", IFF_TAP, -1);
	assert_int_equal(open_tap(&tap, "down0", 1), 0);
	assert_one_line("down0");
	assert_said("is down");
	assert_said("ip link set down0 up");
	assert_false(is_up("down0")); /* not ours to touch */
	tap_close(&tap);
	netns_delete("down0");
}

static void says_who_is_busy(void **state)
{
	struct tap tap, second;

	(void)state;
	netns_needed();
	assert_int_equal(open_tap(&tap, "busy0", 1), 0);
	assert_int_equal(open_tap(&second, "busy0", 1), -EBUSY);
	assert_one_line("busy0");
	assert_said("another process holds this tap");
	tap_close(&tap);
	/* of a multi-queue tap the kernel would let us have a share */
	assert_int_equal(open_tap(&tap, "busy0", 2), 0);
	assert_int_equal(open_tap(&second, "busy0", 2), -EBUSY);
	assert_one_line("busy0");
	assert_int_equal(open_tap(&second, "busy0", 1), -EBUSY);
	assert_one_line("busy0");
	assert_int_equal(second.fds[0], -1);
	tap_close(&tap);
}

static void knows_single_and_multi_queue(void **state)
{
	struct tap tap;

	(void)state;
	netns_needed();
	netns_tuntap("one0", IFF_TAP, -1);
	netns_up("one0", true);
	assert_int_equal(open_tap(&tap, "one0", 4), -EINVAL);
	assert_one_line("one0");
	assert_said("single queue");
	assert_said("queues=1");
	assert_said("mode tap multi_queue");
	netns_delete("one0");
	netns_tuntap("many0", IFF_TAP | IFF_MULTI_QUEUE, -1);
	netns_up("many0", true);
	assert_int_equal(open_tap(&tap, "many0", 1), 0);
	assert_string_equal(said, "");
	assert_true(tap.multi_queue);
	tap_close(&tap);
	assert_int_equal(open_tap(&tap, "many0", 3), 0);
	assert_true(tap.fds[2] >= 0 && tap.fds[3] < 0);
	tap_close(&tap);
	netns_delete("many0");
}

static void refuses_what_is_no_tap(void **state)
{
	struct tap tap;

	(void)state;
	netns_needed();
	netns_tuntap("tun9", IFF_TUN, -1);
	assert_int_equal(open_tap(&tap, "tun9", 1), -EINVAL);
	assert_one_line("tun9");
	assert_said("a tun, not a tap");
	netns_delete("tun9");
	assert_int_equal(open_tap(&tap, "lo", 1), -EINVAL);
	assert_one_line("lo");
	assert_said("another kind of interface");
}

static void refuses_bad_names_and_counts(void **state)
{
	static const char *const names[] = {
		"", "sixteen-letters-", "a/b", "a b", "tap%d", "a:1", "..", "."
	};
	struct tap tap;

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(names); i++) {
		assert_int_equal(open_tap(&tap, names[i], 1), -EINVAL);
		assert_said("no interface can have this name");
	}
	assert_int_equal(open_tap(&tap, "tap0", 0), -EINVAL);
	assert_int_equal(open_tap(&tap, "tap0", TAP_MAX_QUEUES + 1), -EINVAL);
	assert_one_line("tap0");
}

/* Runs fn in a process that may nothing but what its user may; the text is said's. */
static int without_capabilities(int (*fn)(void))
{
	char *shared =
		mmap(NULL, sizeof(said), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status, result;
	pid_t child;

	assert_ptr_not_equal(shared, MAP_FAILED);
	child = fork();
	assert_true(child >= 0);
	if (!child) {
		capng_clear(CAPNG_SELECT_BOTH);
		capng_apply(CAPNG_SELECT_CAPS);
		result = fn();
		memcpy(shared, said, sizeof(said));
		_exit(-result);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	memcpy(said, shared, sizeof(said));
	munmap(shared, sizeof(said));
	return -WEXITSTATUS(status);
}

static int open_perm0(void)
{
	struct tap tap;

	return open_tap(&tap, "perm0", 1);
}

static int open_perm0_queues(void)
{
	struct tap tap;

	return open_tap(&tap, "perm0", 2);
}

static void needs_no_privilege_for_the_users_own(void **state)
{
	(void)state;
	netns_needed();
	assert_int_equal(without_capabilities(open_perm0), -EPERM);
	assert_one_line("perm0");
	assert_said("there is no such tap");
	assert_said("ip tuntap add dev perm0 mode tap user $USER");
	assert_int_equal(without_capabilities(open_perm0_queues), -EPERM);
	assert_said("mode tap multi_queue user $USER");

	netns_tuntap("perm0", IFF_TAP, (int)getuid() + 1);
	netns_up("perm0", true);
	assert_int_equal(without_capabilities(open_perm0), -EPERM);
	assert_one_line("perm0");
	assert_said("belongs to another user");
	netns_delete("perm0");

	netns_tuntap("perm0", IFF_TAP, (int)getuid());
	netns_up("perm0", true);
	assert_int_equal(without_capabilities(open_perm0), 0);
	assert_string_equal(said, "");
	netns_delete("perm0");
	netns_tuntap("perm0", IFF_TAP | IFF_MULTI_QUEUE, (int)getuid());
	netns_up("perm0", true);
	assert_int_equal(without_capabilities(open_perm0_queues), 0);
	netns_delete("perm0");
}

static void follows_offloads(void **state)
{
	struct tap tap;
	int size;

	(void)state;
	netns_needed();
	assert_int_equal(open_tap(&tap, "off0", 2), 0);
	assert_int_equal(netns_ethtool("off0", ETHTOOL_GTXCSUM), 0); /* what probing left */
	assert_int_equal(tap_set_offload(&tap, TUN_F_CSUM | TUN_F_TSO4, 12), 0);
	assert_int_equal(ioctl(tap.fds[1], TUNGETVNETHDRSZ, &size), 0);
	assert_int_equal(size, 12);
	assert_int_equal(netns_ethtool("off0", ETHTOOL_GTSO), 1);
	assert_int_equal(tap_set_offload(&tap, 0, 10), 0);
	assert_int_equal(ioctl(tap.fds[1], TUNGETVNETHDRSZ, &size), 0);
	assert_int_equal(size, 10);
	assert_int_equal(netns_ethtool("off0", ETHTOOL_GTSO), 0);
	/* also with all queues detached, as before a driver comes */
	assert_int_equal(tap_enable_queue(&tap, 0, false), 0);
	assert_int_equal(tap_enable_queue(&tap, 1, false), 0);
	assert_int_equal(tap_set_offload(&tap, TUN_F_CSUM | TUN_F_TSO4, 12), 0);
	assert_int_equal(netns_ethtool("off0", ETHTOOL_GTSO), 1);
	assert_int_equal(tap_enable_queue(&tap, 1, true), 0);
	assert_int_equal(tap_enable_queue(&tap, 1, true), -EINVAL);
	tap_close(&tap);
	assert_int_equal(tap_set_offload(&tap, 0, 12), -EBADF);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(makes_one_and_takes_it_along),
		cmocka_unit_test(uses_one_that_exists),
		cmocka_unit_test(says_that_it_is_down),
		cmocka_unit_test(says_who_is_busy),
		cmocka_unit_test(knows_single_and_multi_queue),
		cmocka_unit_test(refuses_what_is_no_tap),
		cmocka_unit_test(refuses_bad_names_and_counts),
		cmocka_unit_test(needs_no_privilege_for_the_users_own),
		cmocka_unit_test(follows_offloads),
	};

	netns_enter();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
