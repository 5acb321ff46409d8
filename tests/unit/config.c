/* vm/config*.c: what is accepted and what it means; what is refused, in one line that says what,
 * why and what to do; help and man page from the same table.
 */
#include <fcntl.h>
#include <stdlib.h>
#include "tests/unit/config-fixture.h"

/* A config file with this text. */
static const char *file(const char *text)
{
	static const char path[] = "/tmp/vmm-test-config";
	static char name[64];
	FILE *f;

	snprintf(name, sizeof(name), "%s-%d", path, getpid());
	f = fopen(name, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	return name;
}

static int tear_down(void **state)
{
	unlink(file(""));
	return close_errors(state);
}

static void test_defaults(void **state)
{
	(void)state;
	accept("--kernel", "bzImage");
	assert_int_equal(config.action, CONFIG_RUN);
	assert_string_equal(config.kernel, "bzImage");
	assert_null(config.initrd);
	assert_null(config.cmdline);
	assert_int_equal(config.cpus, 1);
	assert_int_equal(config.sockets * config.cores * config.threads, 1);
	assert_int_equal(config.memory, MIB(512));
	assert_int_equal(config.pages, MEMORY_PAGES_DEFAULT);
	assert_string_equal(config.serial, "stdio");
	assert_true(config.rng && config.reboot && config.sandbox);
	assert_int_equal(config.iothreads, 1);
	assert_int_equal(config.timeout_seconds, 0);
	assert_int_equal(config.grace_seconds, 10);
	assert_int_equal(config.disk_count + config.net_count, 0);
	config_free(&config);
	config_free(&config);
}

static void test_everything(void **state)
{
	static const u8 mac[] = { 0x52, 0x54, 0x00, 0xAB, 0xcd, 0xef };

	(void)state;
	accept("--kernel=k=v", "--initrd", "i", "--cmdline", "--quiet -- x",
	       "--cpus=6,threads=2,sockets=3", "--mem", "3G,hugepages=1G", "--disk",
	       "a,,b,ro,serial=x y,queues=64", "--disk=b,direct=on", "--disk",
	       "c,,,cache=writethrough,direct=off,ro=off", "--net",
	       "tap0,mac=52:54:00:AB:cd:ef,mtu=9000,queues=4", "--net=tap1", "--serial", "pty",
	       "--rng=off", "--iothreads", "64", "--timeout", "600", "--grace=0", "--no-reboot",
	       "--no-sandbox");
	assert_string_equal(config.kernel, "k=v");
	assert_string_equal(config.initrd, "i");
	assert_string_equal(config.cmdline, "--quiet -- x");
	assert_int_equal(config.cpus, 6);
	assert_int_equal(config.sockets, 3);
	assert_int_equal(config.cores, 1);
	assert_int_equal(config.threads, 2);
	assert_int_equal(config.memory, GIB(3));
	assert_int_equal(config.pages, MEMORY_PAGES_1G);
	assert_int_equal(config.disk_count, 3);
	assert_string_equal(config.disks[0].path, "a,b");
	assert_true(config.disks[0].readonly);
	assert_string_equal(config.disks[0].serial, "x y");
	assert_int_equal(config.disks[0].queues, 64);
	assert_false(config.disks[0].direct);
	assert_true(config.disks[1].direct);
	assert_false(config.disks[1].readonly || config.disks[1].writethrough);
	assert_string_equal(config.disks[2].path, "c,");
	assert_true(config.disks[2].writethrough);
	assert_false(config.disks[2].direct);
	assert_int_equal(config.net_count, 2);
	assert_true(config.nets[0].mac_given);
	assert_memory_equal(config.nets[0].mac, mac, 6);
	assert_int_equal(config.nets[0].mtu, 9000);
	assert_int_equal(config.nets[0].queues, 4);
	assert_false(config.nets[1].mac_given);
	assert_string_equal(config.serial, "pty");
	assert_false(config.rng || config.reboot || config.sandbox);
	assert_int_equal(config.iothreads, 64);
	assert_int_equal(config.timeout_seconds, 600);
	assert_int_equal(config.grace_seconds, 0);
	config_free(&config);
}

static void assert_memory(const char *text, u64 bytes)
{
	accept("--kernel", "k", "--mem", text);
	assert_int_equal(config.memory, bytes);
	config_free(&config);
}

static void test_memory(void **state)
{
	(void)state;
	assert_memory("64", MIB(64));
	assert_memory("64M", MIB(64));
	assert_memory("4G", GIB(4));
	assert_memory("4g", GIB(4));
	assert_memory("1T", GIB(1024));
	assert_memory("66,hugepages=2M", MIB(66));
	refuse("--mem 63M|at least 64M", "--kernel", "k", "--mem", "63M");
	refuse("--mem 0|at least 64M", "--kernel", "k", "--mem", "0");
	refuse("negative|512M", "--kernel", "k", "--mem", "-4G");
	refuse("not a size", "--kernel", "k", "--mem", "4GB");
	refuse("not a size", "--kernel", "k", "--mem", "1.5G");
	refuse("not a size", "--kernel", "k", "--mem", "G");
	refuse("not a size", "--kernel", "k", "--mem", " 4G");
	refuse("too large", "--kernel", "k", "--mem", "18446744073709551616");
	refuse("too large", "--kernel", "k", "--mem", "18446744073709551615T");
	refuse("too large", "--kernel", "k", "--mem", "17592186044416M"); /* wraps to 0 */
	refuse("too large", "--kernel", "k", "--mem", "99999999999999999999999999T");
	refuse("round it to 1G", "--kernel", "k", "--mem", "1500M,hugepages=1G");
	refuse("round it to 2M", "--kernel", "k", "--mem", "65M,hugepages=2M");
	refuse("hugepages=4K|2M or 1G", "--kernel", "k", "--mem", "1G,hugepages=4K");
	refuse("hugepages has no value", "--kernel", "k", "--mem", "1G,hugepages");
	refuse("hugepages is given twice", "--kernel", "k", "--mem",
	       "1G,hugepages=2M,hugepages=2M");
	refuse("hugpages|did you mean hugepages", "--kernel", "k", "--mem", "1G,hugpages=2M");
}

static void assert_topology(const char *text, u32 sockets, u32 cores, u32 threads)
{
	accept("--kernel", "k", "--cpus", text);
	assert_int_equal(config.cpus, sockets * cores * threads);
	assert_int_equal(config.sockets, sockets);
	assert_int_equal(config.cores, cores);
	assert_int_equal(config.threads, threads);
	config_free(&config);
}

static void test_gdb(void **state)
{
	char path[200];

	(void)state;
	accept("--kernel", "k", "--gdb", "s");
	assert_string_equal(config.gdb, "s");
	assert_false(config.gdb_wait);
	config_free(&config);
	accept("--kernel", "k", "--gdb", "a,,b,wait");
	assert_string_equal(config.gdb, "a,b");
	assert_true(config.gdb_wait);
	config_free(&config);
	accept("--kernel", "k", "--gdb", "s,wait=off");
	assert_false(config.gdb_wait);
	config_free(&config);
	memset(path, 'a', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	refuse("--gdb|1 to 107 letters", "--kernel", "k", "--gdb", path);
	refuse("neither on nor off", "--kernel", "k", "--gdb", "s,wait=yes");
	refuse("wiat|did you mean wait", "--kernel", "k", "--gdb", "s,wiat");
	refuse("--gdb|1 to 107 letters", "--kernel", "k", "--gdb", ",wait");
	refuse("--gdb", "--kernel", "k", "--gdb", "");
}

static void test_cpus(void **state)
{
	(void)state;
	assert_topology("254", 1, 254, 1);
	assert_topology("8,threads=2", 1, 4, 2);
	assert_topology("8,sockets=2", 2, 4, 1);
	assert_topology("8,cores=4", 2, 4, 1);
	assert_topology("8,cores=2,sockets=2", 2, 2, 2);
	assert_topology("8,cores=2,sockets=2,threads=2", 2, 2, 2);
	refuse("--cpus 0|1 to 254", "--kernel", "k", "--cpus", "0");
	refuse("--cpus 255|1 to 254", "--kernel", "k", "--cpus", "255");
	refuse("4294967297|1 to 254", "--kernel", "k", "--cpus", "4294967297"); /* 2^32 + 1 */
	refuse("18446744073709551617|1 to 254", "--kernel", "k", "--cpus", "18446744073709551617");
	refuse("36893488147419103240|1 to 254", "--kernel", "k", "--cpus", "36893488147419103240");
	refuse("negative", "--kernel", "k", "--cpus", "-1");
	refuse("not a number", "--kernel", "k", "--cpus", "4x");
	refuse("not a number", "--kernel", "k", "--cpus", "0x4");
	refuse("not a number", "--kernel", "k", "--cpus", "+4");
	refuse("not a number", "--kernel", "k", "--cpus", ",cores=4");
	refuse("8 CPUs|make the product equal", "--kernel", "k", "--cpus", "8,threads=3");
	refuse("8 CPUs|2 sockets of 2 cores of 1 threads", "--kernel", "k", "--cpus",
	       "8,sockets=2,cores=2,threads=1");
	refuse("cores=0", "--kernel", "k", "--cpus", "8,cores=0");
	refuse("product", "--kernel", "k", "--cpus", "1,cores=254,sockets=254,threads=254");
}

static void test_disks(void **state)
{
	char *argv[3 + 2 * 17] = { "vmm", "--kernel", "k" };
	char paths[17][16];

	(void)state;
	refuse("--disk a|contradict", "--kernel", "k", "--disk", "a,ro,cache=writeback");
	refuse("--disk a|contradict", "--kernel", "k", "--disk", "a,cache=writethrough,ro");
	accept("--kernel", "k", "--disk", "a,ro=off,cache=writeback");
	config_free(&config);
	refuse("path is missing", "--kernel", "k", "--disk", ",ro");
	refuse("value is empty", "--kernel", "k", "--disk", "");
	refuse("value is empty", "--kernel", "k", "--disk=");
	refuse("between two commas", "--kernel", "k", "--disk", "a,ro,");
	refuse("cache=fast|writeback or writethrough", "--kernel", "k", "--disk", "a,cache=fast");
	refuse("direct=yes|neither on nor off", "--kernel", "k", "--disk", "a,direct=yes");
	refuse("queues=0", "--kernel", "k", "--disk", "a,queues=0");
	refuse("queues=65", "--kernel", "k", "--disk", "a,queues=65");
	refuse("serial has no value", "--kernel", "k", "--disk", "a,serial=");
	refuse("21 letters", "--kernel", "k", "--disk", "a,serial=123456789012345678901");
	refuse("printable", "--kernel", "k", "--disk", "a,serial=\033[2J");
	assert_null(strchr(message, '\033'));
	refuse("img is no key|ro, direct, snapshot, serial, queues, cache|doubled", "--kernel", "k",
	       "--disk", "a,img");
	refuse("--disk a|given twice", "--kernel", "k", "--disk", "a", "--disk", "a,ro");
	refuse("contradict", "--kernel", "k", "--disk", "a,ro,snapshot");
	refuse("--disk a|given twice", "--kernel", "k", "--disk", "a,snapshot", "--disk", "a");
	accept("--kernel", "k", "--disk", "a,ro", "--disk", "a,ro");
	config_free(&config);
	accept("--kernel", "k", "--disk", "a,serial=12345678901234567890");
	assert_string_equal(config.disks[0].serial, "12345678901234567890");
	config_free(&config);
	for (int i = 0; i < 17; i++) {
		snprintf(paths[i], sizeof(paths[i]), "d%d", i);
		argv[3 + 2 * i] = "--disk";
		argv[4 + 2 * i] = paths[i];
	}
	assert_int_equal(config_parse(&config, 3 + 2 * 16, argv), 0);
	assert_int_equal(config.disk_count, 16);
	config_free(&config);
	assert_int_equal(config_parse(&config, 3 + 2 * 17, argv), -EINVAL);
}

static void test_nets(void **state)
{
	(void)state;
	refuse("multicast|as in 52", "--kernel", "k", "--net", "t,mac=53:54:00:00:00:00");
	refuse("null address", "--kernel", "k", "--net", "t,mac=00:00:00:00:00:00");
	refuse("not an Ethernet", "--kernel", "k", "--net", "t,mac=52:54:00:00:00");
	refuse("not an Ethernet", "--kernel", "k", "--net", "t,mac=52:54:00:00:00:00:00");
	refuse("not an Ethernet", "--kernel", "k", "--net", "t,mac=52:54:00:00:00:0");
	refuse("not an Ethernet", "--kernel", "k", "--net", "t,mac=52-54-00-00-00-00");
	refuse("not an Ethernet", "--kernel", "k", "--net", "t,mac=5");
	refuse("mtu=67", "--kernel", "k", "--net", "t,mtu=67");
	refuse("mtu=65536", "--kernel", "k", "--net", "t,mtu=65536");
	refuse("at most 15", "--kernel", "k", "--net", "interface-name-x");
	refuse("not an interface", "--kernel", "k", "--net", "tap%d");
	refuse("not an interface", "--kernel", "k", "--net", "/dev/tap");
	refuse("not an interface", "--kernel", "k", "--net", "..");
	refuse("name is missing", "--kernel", "k", "--net", ",mtu=1500");
	refuse("given twice", "--kernel", "k", "--net", "t", "--net", "t");
	refuse("vhost=maybe", "--kernel", "k", "--net", "t,vhost=maybe");
	refuse("packed and vhost=on contradict", "--net", "t,vhost,packed");
	refuse("in-order and vhost=on contradict", "--net", "t,in-order,vhost");
	refuse("same mac=", "--kernel", "k", "--net", "t,mac=52:54:00:00:00:01", "--net",
	       "u,mac=52:54:00:00:00:01");
}

/* passt instead of a tap. */
static void test_user_net(void **state)
{
	static const char *const wrong[] = {
		"tcp",		 "tcp:",       "tcp:22",       "tcp:22:",	"tcp::22",
		"tcp:0:22",	 "tcp:22:0",   "tcp:65536:22", "tcp:22:65536",	"tcp:22:22x",
		"tcp:+22:22",	 "tcp:22: 22", "tcp:-1:22",    "sctp:22:22",	"tcp:1.2.3:22:22",
		"tcp:::1:22:22", "22:22",      "tcp:22:22:22", "tcp:a.b:22:22", "tcp:1.2.3.4:22"
	};
	char value[64];

	(void)state;
	accept("--kernel", "k", "--net", "t", "--net",
	       "user,forward=tcp:2222:22,mtu=1500,forward=udp:0.0.0.0:65535:1,forward=tcp:1:65535");
	assert_false(config_net_is_user(&config.nets[0]));
	assert_true(config_net_is_user(&config.nets[1]));
	assert_int_equal(config.nets[1].forward_count, 3);
	assert_false(config.nets[1].forwards[0].udp);
	assert_string_equal(config.nets[1].forwards[0].ports, "127.0.0.1/2222:22");
	assert_true(config.nets[1].forwards[1].udp);
	assert_string_equal(config.nets[1].forwards[1].ports, "0.0.0.0/65535:1");
	assert_string_equal(config.nets[1].forwards[2].ports, "127.0.0.1/1:65535");
	config_free(&config);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		snprintf(value, sizeof(value), "user,forward=%s", wrong[i]);
		refuse("forward=", "--net", value);
	}
	refuse("--net user", "--net", "t,forward=tcp:22:22");
	refuse("vhost=on", "--net", "user,vhost=on");
	refuse("queues=", "--net", "user,queues=2");
	refuse("32000", "--net", "user,mtu=32001");
	refuse("given twice", "--net", "user", "--net", "user");
	refuse("mtu is given twice", "--net", "user,mtu=1500,mtu=1500");
	refuse("there may be 16", "--net",
	       "user,forward=tcp:1:1,forward=tcp:1:1,forward=tcp:1:1,forward=tcp:1:1,"
	       "forward=tcp:1:1,forward=tcp:1:1,forward=tcp:1:1,forward=tcp:1:1,forward=tcp:1:1,"
	       "forward=tcp:1:1,forward=tcp:1:1,forward=tcp:1:1,forward=tcp:1:1,forward=tcp:1:1,"
	       "forward=tcp:1:1,forward=tcp:1:1,forward=tcp:1:1");
}

/* How devices stand on their bus: the same keys for each kind. */
static void test_functions(void **state)
{
	const struct config_function *f;

	(void)state;
	accept("--kernel", "k", "--disk", "a,layout=modern,ro,isr=pio", "--disk",
	       "b,notify=mmio,vectors=0,queue-size=64", "--net",
	       "t,layout=legacy,notify=pio,mtu=900", "--rng",
	       "on,layout=transitional,vectors=512,queue-size=2");
	f = &config.disks[0].function;
	assert_true(f->layout == CONFIG_LAYOUT_MODERN && f->isr == CONFIG_PLACE_PIO);
	assert_true(f->notify == CONFIG_PLACE_ANY && !f->vectors_given && !f->queue_size);
	assert_true(config.disks[0].readonly);
	f = &config.disks[1].function;
	assert_true(f->layout == CONFIG_LAYOUT_TRANSITIONAL && f->notify == CONFIG_PLACE_MMIO);
	assert_true(f->vectors_given && f->vectors == 0 && f->queue_size == 64);
	f = &config.nets[0].function;
	assert_true(f->layout == CONFIG_LAYOUT_LEGACY && f->notify == CONFIG_PLACE_PIO);
	assert_int_equal(config.nets[0].mtu, 900);
	f = &config.rng_function;
	assert_true(config.rng && f->vectors == 512 && f->queue_size == 2);
	assert_false(f->packed || f->in_order || f->notify_data);
	config_free(&config);

	accept("--kernel", "k", "--disk", "a,packed,in-order=on,notify-data", "--net",
	       "t,packed=off,in-order", "--rng", "on,notify-data=on");
	f = &config.disks[0].function;
	assert_true(f->packed && f->in_order && f->notify_data);
	f = &config.nets[0].function;
	assert_true(!f->packed && f->in_order && !f->notify_data);
	f = &config.rng_function;
	assert_true(!f->packed && !f->in_order && f->notify_data);
	config_free(&config);

	accept("--kernel", "k", "--strict", "fail");
	assert_int_equal(config.strict, CONFIG_STRICT_FAIL);
	config_free(&config);
	accept("--strict=list"); /* needs no kernel */
	assert_int_equal(config.action, CONFIG_RULES);
	config_free(&config);
	accept("--kernel", "k", "--virtio-mmio", "cmdline", "--disk", "a,queue-size=64");
	assert_int_equal(config.mmio, CONFIG_MMIO_CMDLINE);
	config_free(&config);
	refuse("--virtio-mmio yes|off, acpi or cmdline", "--kernel", "k", "--virtio-mmio", "yes");
	refuse("--virtio-mmio|leave vectors=", "--kernel", "k", "--virtio-mmio", "acpi", "--net",
	       "t,vectors=2");
	refuse("--strict on|off, warn, fail or list", "--kernel", "k", "--strict", "on");

	accept("--kernel", "k", "--net", "t,notify=mmio-exact");
	assert_true(config.nets[0].function.notify == CONFIG_PLACE_MMIO);
	assert_true(config.nets[0].function.notify_exact);
	config_free(&config);
	refuse("layout=new|no such layout|transitional", "--disk", "a,layout=new");
	refuse("isr=memory|pio or mmio", "--net", "t,isr=memory");
	refuse("notify=x|pio or mmio", "--rng", "on,notify=x");
	refuse("vectors=513|0 to 512", "--disk", "a,vectors=513");
	refuse("queue-size=48|power of two", "--disk", "a,queue-size=48");
	refuse("queue-size=512|2 to 256", "--disk", "a,queue-size=512");
	refuse("queue-size=128|2 to 64", "--rng", "on,queue-size=128");
	refuse("layout=legacy|leave isr=mmio out", "--disk", "a,layout=legacy,isr=mmio");
	refuse("layout=legacy|leave notify=mmio out", "--net", "t,notify=mmio,layout=legacy");
	refuse("packed=1|on nor off", "--disk", "a,packed=1");
	refuse("layout=legacy|leave packed out", "--disk", "a,layout=legacy,packed");
	refuse("layout=legacy|leave in-order out", "--net", "t,layout=legacy,in-order");
	refuse("layout=legacy|leave notify-data out", "--rng", "on,layout=legacy,notify-data");
	refuse("notify-data|leave notify=pio out", "--disk", "a,notify=pio,notify-data");
	refuse("--virtio-mmio|notify-data out", "--kernel", "k", "--virtio-mmio", "acpi", "--rng",
	       "on,notify-data");
	refuse("layout|twice", "--net", "t,layout=legacy,layout=modern");
	refuse("layot|did you mean layout?|queue-size", "--rng", "on,layot=modern");
	refuse("--virtio-mmio|vectors=", "--kernel", "k", "--virtio-mmio", "acpi", "--balloon",
	       "size=1,vectors=1");
}

static void test_balloon(void **state)
{
	(void)state;
	accept("--kernel", "k");
	assert_true(!config.balloon && !config.rng_rate);
	config_free(&config);
	accept("--kernel", "k", "--rng", "on,rate=1000", "--balloon",
	       "size=512M,reporting,queue-size=32");
	assert_true(config.balloon && config.balloon_reporting);
	assert_int_equal(config.balloon_size, MIB(512));
	assert_int_equal(config.balloon_function.queue_size, 32);
	assert_int_equal(config.rng_rate, 1000);
	config_free(&config);
	accept("--kernel", "k", "--balloon", "reporting=off", "--mem", "512M,hugepages=2M");
	assert_true(config.balloon && !config.balloon_reporting && !config.balloon_size);
	config_free(&config);
	refuse("size=513M|has 512M|give less", "--kernel", "k", "--balloon", "size=513M");
	refuse("reporting=on|hugepages=", "--kernel", "k", "--balloon", "reporting", "--mem",
	       "512M,hugepages=2M");
	refuse("--balloon|negative", "--balloon", "size=-1");
	refuse("--balloon lots|not a size", "--balloon", "size=lots");
	refuse("--balloon|size has no value", "--balloon", "size");
	refuse("--balloon|512M is no key|size, reporting", "--balloon", "512M");
	refuse("reporting=maybe|on nor off", "--balloon", "reporting=maybe");
	refuse("queue-size=256|2 to 128", "--balloon", "size=1,queue-size=256");
	refuse("--balloon|empty", "--balloon=");
	refuse("rate=0|too small", "--rng", "on,rate=0");
	refuse("rate=fast|not a number", "--rng", "on,rate=fast");
}

static void test_usage(void **state)
{
	(void)state;
	refuse("vmm --kernel bzImage", "--mem", "1G");
	assert_int_equal(parse(NULL), -EINVAL);
	assert_message("no kernel|vmm --kernel bzImage");
	refuse("--kernal|did you mean --kernel?", "--kernal", "k");
	refuse("--kernal|did you mean --kernel?", "--kernal=k");
	refuse("-kernel|did you mean --kernel?", "-kernel", "k");
	refuse("--memory|did you mean --mem?", "--memory=1G");
	refuse("--cpu|did you mean --cpus?", "--cpu", "1");
	refuse("--time|did you mean --timeout?", "--time", "1");
	refuse("--mme|did you mean --mem?", "--mme", "1");
	refuse("--smp|no such option|vmm --help", "--smp", "1");
	refuse("-h|did you mean --help?", "-h");
	refuse("no such option", "--");
	refuse("no such option", "-");
	refuse("no such option", "--=");
	refuse("no such option",
	       "--an-option-of-a-length-that-no-buffer-should-be-expected-to-hold-whole");
	refuse("bzImage|not an option|--kernel", "bzImage");
	refuse("empty word", "");
	refuse("did you mean vmm check", "chekc");
	refuse("first word", "--kernel", "k", "check");
	refuse("check|takes no options", "check", "--mem", "1G");
	refuse("--kernel: given twice", "--kernel", "k", "--kernel", "k");
	refuse("--no-reboot: given twice", "--no-reboot", "--kernel", "k", "--no-reboot");
	refuse("--kernel: needs a value|--kernel FILE", "--kernel");
	refuse("--kernel: needs a value", "--kernel", "--mem", "1G");
	refuse("--kernel: its value is empty", "--kernel", "");
	refuse("--rng maybe|on nor off", "--rng", "maybe", "--kernel", "k");
	refuse("--no-reboot yes|on nor off", "--no-reboot=yes", "--kernel", "k");
	refuse("--iothreads 65", "--iothreads", "65", "--kernel", "k");
	refuse("--timeout 31536001", "--timeout", "31536001", "--kernel", "k");
	refuse("--timeout 1h|not a number", "--timeout", "1h", "--kernel", "k");
	refuse("--help yes|takes no value", "--help=yes");
	refuse("control character", "--kernel", "k", "--cmdline", "a\nb");
	accept("--kernel", "--odd-name", "--cmdline", "");
	assert_string_equal(config.kernel, "--odd-name");
	assert_string_equal(config.cmdline, "");
	config_free(&config);
}

static void test_actions(void **state)
{
	(void)state;
	accept("check");
	assert_int_equal(config.action, CONFIG_CHECK);
	config_free(&config);
	accept("check", "--help");
	assert_int_equal(config.action, CONFIG_HELP);
	config_free(&config);
	/* asked for help, nothing behind it matters */
	accept("--cpus", "nonsense", "--help", "--what-else");
	assert_int_equal(config.action, CONFIG_HELP);
	config_free(&config);
	accept("--version");
	assert_int_equal(config.action, CONFIG_VERSION);
	config_free(&config);
	accept("--man");
	assert_int_equal(config.action, CONFIG_MAN);
	config_free(&config);
}

static void test_file(void **state)
{
	const char *text = "# a machine\n"
			   "\n"
			   "  kernel =  /boot/vm linuz  \r\n"
			   "cmdline = root=/dev/vda # not a comment\n"
			   "\tcpus=2\n"
			   "no-reboot\n"
			   "no-sandbox = off\n"
			   "disk = a,ro\n"
			   "disk = b\n"
			   "net = tap0\n"
			   "mem = 1G"; /* no newline */

	(void)state;
	accept("--config", file(text));
	assert_string_equal(config.kernel, "/boot/vm linuz");
	assert_string_equal(config.cmdline, "root=/dev/vda # not a comment");
	assert_int_equal(config.cpus, 2);
	assert_false(config.reboot);
	assert_true(config.sandbox);
	assert_int_equal(config.disk_count, 2);
	assert_int_equal(config.memory, GIB(1));
	config_free(&config);
	/* flags win wherever they stand; lists grow */
	accept("--kernel", "k", "--mem=2G", "--disk", "c", "--config", file(text),
	       "--no-reboot=off", "--cpus", "4");
	assert_string_equal(config.kernel, "k");
	assert_int_equal(config.memory, GIB(2));
	assert_int_equal(config.cpus, 4);
	assert_int_equal(config.cores, 4);
	assert_true(config.reboot);
	assert_int_equal(config.disk_count, 3);
	assert_string_equal(config.disks[0].path, "a");
	assert_string_equal(config.disks[2].path, "c");
	config_free(&config);
	accept("--config", file("\xef\xbb\xbfkernel = k\n")); /* a byte order mark */
	assert_string_equal(config.kernel, "k");
	config_free(&config);
	refuse("given twice", "--config", file(text), "--disk", "b");
	refuse("line 3: kernal|did you mean kernel", "--config", file("\n\nkernal = x\n"));
	refuse("line 1: --kernel|did you mean kernel", "--config", file("--kernel = x\n"));
	refuse("line 2: kernel: given twice", "--config", file("kernel = x\nkernel = y\n"));
	refuse("line 1: cpus 0|1 to 254", "--config", file("cpus = 0\n"));
	refuse("line 1: kernel: has no value|kernel = FILE", "--config", file("kernel\n"));
	refuse("line 1: kernel: its value is empty", "--config", file("kernel =\n"));
	refuse("line 1: (nothing): no such key", "--config", file("= 4\n"));
	refuse("line 1: config|flag", "--config", file("config = other\n"));
	refuse("line 1: help|flag", "--config", file("help\n"));
	refuse("vmm --kernel bzImage", "--config", file(""));
	refuse("--config: given twice", "--config", file(""), "--config", file(""));
	assert_int_equal(parse("--config", "/nonexistent/file", NULL), -ENOENT);
	assert_message("/nonexistent/file: cannot open|No such file");
	assert_int_equal(parse("--config", "/", NULL), -EISDIR);
	refuse("/dev/zero|larger than", "--config", "/dev/zero");
	refuse("/proc/self/cmdline|not a text file", "--config", "/proc/self/cmdline");
}

static void test_examples(void **state)
{
	static const char *const names[] = { "configs/shell.conf", "configs/server.conf" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		accept("--config", names[i]);
		assert_non_null(config.kernel);
		assert_true(config.disk_count > 0 && config.net_count > 0);
		config_free(&config);
	}
}

/* All in --help and in the page; options that are parsed and not told would be a secret. */
static const char *const told[] = { "kernel",	 "initrd",  "cmdline", "cpus",	    "mem",
				    "disk",	 "net",	    "serial",  "rng",	    "share",
				    "iothreads", "timeout", "grace",   "no-reboot", "no-sandbox",
				    "config",	 "help",    "version", "stats",	    "boot-timing",
				    "pin",	 "vmcore",  "strict",  "control",   "virtio-mmio",
				    "balloon" };
static const char *const statuses[] = {
	"0", "1", "2", "3", "4", "120", "123", "124", "125", "128+N"
};

static void test_help(void **state)
{
	const char *text, *line;
	unsigned int lines = 0;

	(void)state;
	text = output_of(PAGE_HELP);
	for (line = text; *line; line += strcspn(line, "\n") + 1) {
		assert_true(strcspn(line, "\n") < 80);
		assert_null(memchr(line, '\t', strcspn(line, "\n")));
		lines++;
	}
	assert_true(lines <= 23); /* and the prompt */
	for (size_t i = 0; i < ARRAY_SIZE(told); i++) {
		char word[32];

		snprintf(word, sizeof(word), " --%s", told[i]);
		if (!strstr(text, word))
			fail_msg("--help has no%s", word);
	}
	for (size_t i = 0; i < ARRAY_SIZE(statuses); i++) {
		char word[32];

		snprintf(word, sizeof(word), "%s ", statuses[i]);
		if (!strstr(strstr(text, "Status"), word))
			fail_msg("--help has no status %s", word);
	}
	assert_non_null(strstr(text, ",cache="));
	assert_non_null(strstr(text, ",queue-size="));
	assert_non_null(strstr(text, "Ctrl-A"));
	assert_null(strstr(text, "--man"));
	assert_memory_equal(output_of(PAGE_VERSION), "vmm ", 4);
}

static void test_man(void **state)
{
	const char *text;

	(void)state;
	text = output_of(PAGE_MAN);
	assert_memory_equal(text, ".TH VMM 1 ", 10);
	for (size_t i = 0; i < ARRAY_SIZE(told); i++) {
		char word[64] = "\\fB\\-\\-";

		for (const char *p = told[i]; *p; p++)
			snprintf(word + strlen(word), sizeof(word) - strlen(word), "%s%c",
				 *p == '-' ? "\\" : "", *p);
		strcat(word, "\\fR");
		if (!strstr(text, word))
			fail_msg("the page has no %s", word);
	}
	for (size_t i = 0; i < ARRAY_SIZE(statuses); i++) {
		char word[32];

		snprintf(word, sizeof(word), ".B %s\n", statuses[i]);
		assert_non_null(strstr(strstr(text, ".SH EXIT STATUS"), word));
	}
	/* nothing of the text is taken for a request: every line that begins with a dot is one we
	 * know */
	for (const char *line = text; *line; line += strcspn(line, "\n") + 1)
		if (*line == '.' || *line == '\'')
			assert_true(!strncmp(line, ".TH ", 4) || !strncmp(line, ".SH ", 4) ||
				    !strncmp(line, ".TP\n", 4) || !strncmp(line, ".PP\n", 4) ||
				    !strncmp(line, ".RS\n", 4) || !strncmp(line, ".RE\n", 4) ||
				    !strncmp(line, ".B ", 3) || !strncmp(line, ".I ", 3) ||
				    !strncmp(line, ".br\n", 4) || !strncmp(line, ".nf\n", 4) ||
				    !strncmp(line, ".fi\n", 4));
}

/* Standard output may be full or gone. */
static void test_full_output(void **state)
{
	int fd = open("/dev/full", O_WRONLY), saved = dup(STDOUT_FILENO), err;

	(void)state;
	fflush(stdout);
	dup2(fd, STDOUT_FILENO);
	err = page_print(PAGE_HELP);
	dup2(saved, STDOUT_FILENO);
	clearerr(stdout);
	close(fd);
	close(saved);
	assert_int_equal(err, -ENOSPC);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),    cmocka_unit_test(test_everything),
		cmocka_unit_test(test_memory),	    cmocka_unit_test(test_cpus),
		cmocka_unit_test(test_gdb),	    cmocka_unit_test(test_disks),
		cmocka_unit_test(test_nets),	    cmocka_unit_test(test_user_net),
		cmocka_unit_test(test_functions),   cmocka_unit_test(test_balloon),
		cmocka_unit_test(test_usage),	    cmocka_unit_test(test_actions),
		cmocka_unit_test(test_file),	    cmocka_unit_test(test_examples),
		cmocka_unit_test(test_help),	    cmocka_unit_test(test_man),
		cmocka_unit_test(test_full_output),
	};

	return cmocka_run_group_tests(tests, open_errors, tear_down);
}
