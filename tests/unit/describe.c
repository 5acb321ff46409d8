/* tsan: what `vmm ctl devices` is told of a function: through both layouts, with buffers in flight,
 * under MSI-X and the line, and after a reset. */
#include "tests/unit/virtio-pci-machine.h"
#include <string.h>
#include "virtio/describe.h"
#include "vm/json.h"

/* The text on one line, without the spaces that begin what was a line of its own. */
static const char *squeeze(const struct json *json)
{
	static char text[4096];
	size_t n = 0;

	assert_true(json->length < sizeof(text));
	for (size_t i = 0; i < json->length; i++)
		if (json->text[i] != ' ' || (n && !strchr(" [{", text[n - 1])))
			text[n++] = json->text[i];
	text[n] = '\0';
	return text;
}

/* Says it these words now, or soon? Reactors leave what they know at the end of a sweep. */
static void says(const char *words)
{
	for (u32 n = 0;; n++) {
		struct json json = { .line = "" };
		const char *text;

		json_begin_object(&json, NULL);
		virtio_describe(&fixture.device, fixture.function, &json);
		json_end(&json);
		assert_int_equal(json_done(&json), 0);
		text = squeeze(&json);
		json_free(&json);
		if (strstr(text, words))
			return;
		if (n == 2000)
			fail_msg("no %s in %s", words, text);
		usleep(1000);
	}
}

static void before_any_driver(void **state)
{
	(void)state;
	says("{\"status\": [], \"layout\": \"transitional\", \"driver\": null, \"offered\": "
	     "[\"MAC\", \"NOTIFY_ON_EMPTY\", \"ANY_LAYOUT\", \"INDIRECT_DESC\", \"EVENT_IDX\", "
	     "\"VERSION_1\", \"RING_RESET\", \"bit 50\"], \"negotiated\": [], \"interrupts\": "
	     "\"INTx\", \"line\": ");
	says("\"vectors\": 4, \"config_vector\": null, \"generation\": 0, \"queues\": ["
	     "{\"queue\": 0, \"size\": 64, \"most\": 64, \"enabled\": false, \"state\": \"idle\", "
	     "\"format\": \"split\", \"vector\": null}");
}

static void a_modern_driver(void **state)
{
	const u8 byte = 1;

	(void)state;
	modern_driver(BIT64(5));
	says("{\"status\": [\"ACKNOWLEDGE\", \"DRIVER\", \"DRIVER_OK\", \"FEATURES_OK\"], "
	     "\"layout\": \"transitional\", \"driver\": \"modern\"");
	says("\"negotiated\": [\"MAC\", \"VERSION_1\"]");
	says("{\"queue\": 0, \"size\": 16, \"most\": 64, \"enabled\": true, \"state\": "
	     "\"running\", \"format\": \"split\", \"vector\": null, \"taken\": 0, \"used\": 0, "
	     "\"in_flight\": 0}");
	round_trip(0);
	says("\"taken\": 1, \"used\": 1, \"in_flight\": 0}");
	/* it moves when it is read */
	virtio_config_update(&fixture.device, 1, &byte, 1);
	assert_int_equal(common_get(VIRTIO_PCI_COMMON_CFGGENERATION, 1), 1);
	says("\"generation\": 1");
	fixture.hold = true;
	offer();
	notify_io(0);
	says("\"taken\": 2, \"used\": 1, \"in_flight\": 1}");
	set_status(0);
	reactor_post(fixture.device.queues[0].reactor, &fixture.release);
	says("\"size\": 64, \"most\": 64, \"enabled\": false, \"state\": \"idle\"");
	says("\"driver\": null");
}

static void vectors(void **state)
{
	u32 at = find_capability(&fixture.pci, SLOT, PCI_CAP_ID_MSIX, 0);

	(void)state;
	modern_driver(0);
	cfg_put(at + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
	common_put(VIRTIO_PCI_COMMON_MSIX, 2, 3);
	select_queue(0);
	common_put(VIRTIO_PCI_COMMON_Q_MSIX, 2, 1);
	says("\"interrupts\": \"MSI-X\", \"vectors\": 4, \"config_vector\": 3,");
	says("\"format\": \"split\", \"vector\": 1, \"taken\": ");
}

static void a_legacy_driver(void **state)
{
	(void)state;
	legacy_driver(0);
	says("\"driver\": \"legacy\"");
	says("\"queue\": 0, \"size\": 64, \"most\": 64, \"enabled\": true, \"state\": \"running\"");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, up, down)
	const struct CMUnitTest tests[] = {
		TEST(before_any_driver),
		TEST(a_modern_driver),
		TEST(vectors),
		TEST(a_legacy_driver),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
