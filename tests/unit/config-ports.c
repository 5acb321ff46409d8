/* --console and --port: what is taken, and what is refused in which words. */
#include "tests/unit/config-fixture.h"

#define K "--kernel", "k"

static void consoles(void **state)
{
	(void)state;
	accept(K);
	assert_int_equal(config.console, CONFIG_CONSOLE_SERIAL);
	assert_int_equal(config.port_count, 0);
	config_free(&config);
	accept(K, "--console", "virtio,packed,queue-size=128,vectors=0");
	assert_int_equal(config.console, CONFIG_CONSOLE_VIRTIO);
	assert_true(config.console_function.packed && config.console_function.vectors_given);
	assert_int_equal(config.console_function.queue_size, 128);
	config_free(&config);
	accept(K, "--console=both");
	assert_int_equal(config.console, CONFIG_CONSOLE_BOTH);
	config_free(&config);
	refuse("no such console|serial, virtio or both", K, "--console", "hvc0");
	refuse("queue-size=256|2 to 128", K, "--console", "virtio,queue-size=256");
	refuse("--virtio-mmio|vectors=", K, "--virtio-mmio", "acpi", "--console", "both,vectors=1");
}

static void ports(void **state)
{
	(void)state;
	accept(K, "--port", "name=agent,unix=/run/a,,b", "--port", "pipe=/p,name=p", "--port",
	       "name=f,file=f");
	assert_int_equal(config.port_count, 3);
	assert_string_equal(config.ports[0].name, "agent");
	assert_string_equal(config.ports[0].path, "/run/a,b");
	assert_int_equal(config.ports[0].kind, CONFIG_PORT_UNIX);
	assert_int_equal(config.ports[1].kind, CONFIG_PORT_PIPE);
	assert_string_equal(config.ports[1].path, "/p");
	assert_int_equal(config.ports[2].kind, CONFIG_PORT_FILE);
	assert_int_equal(config.ports[2].in_fd & config.ports[2].out_fd, -1);
	config_free(&config);
}

static void wrong_ports(void **state)
{
	char text[256];

	(void)state;
	refuse("name= is missing", K, "--port", "unix=/x");
	refuse("unix=, pipe= or file= is missing", K, "--port", "name=x");
	refuse("contradict", K, "--port", "name=x,unix=/x,file=/y");
	refuse("name=x|twice", K, "--port", "name=x,unix=/x", "--port", "name=x,unix=/y");
	refuse("/x|twice", K, "--port", "name=x,unix=/x", "--port", "name=y,unix=/x");
	refuse("name=a/b|slashes", K, "--port", "name=a/b,unix=/x");
	refuse("tcp", K, "--port", "name=a,tcp=1");
	snprintf(text, sizeof(text), "name=%064d,unix=/x", 0);
	refuse("up to 63", K, "--port", text);
	snprintf(text, sizeof(text), "name=x,unix=/%0108d", 0);
	refuse("at most 107", K, "--port", text);
	snprintf(text, sizeof(text), "name=%063d,file=/%0108d", 0, 0);
	accept(K, "--port", text);
	config_free(&config);
}

static void too_many_ports(void **state)
{
	char words[31][32], *argv[65] = { "vmm", "--kernel", "k" };

	(void)state;
	for (int i = 0; i < 31; i++) {
		snprintf(words[i], sizeof(words[i]), "name=%u,file=%u", (u8)i, (u8)i);
		argv[3 + 2 * i] = "--port";
		argv[4 + 2 * i] = words[i];
	}
	assert_int_equal(config_parse(&config, 63, argv), 0);
	assert_int_equal(config.port_count, CONFIG_MAX_PORTS);
	config_free(&config);
	assert_int_equal(config_parse(&config, 65, argv), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(consoles),
		cmocka_unit_test(ports),
		cmocka_unit_test(wrong_ports),
		cmocka_unit_test(too_many_ports),
	};

	errors = memfd_create("errors", 0);
	return errors < 0 || cmocka_run_group_tests(tests, NULL, NULL);
}
