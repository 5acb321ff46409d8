/*
 * machine/control.c and commands.c: the control socket with clients that are slow, many, verbose,
 * or out to break it. The machine is machine-fixture.h's.
 */
#include "tests/unit/machine-fixture.h"
#include <jansson.h>
#include <linux/virtio_balloon.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "machine/control.h"
#include "machine/learned.h"
#include "vm/layout.h"

#define NS 1000000000ull

static char path[128];

static int up(void **state)
{
	machine_up(state);
	snprintf(path, sizeof(path), "%s/control", folder);
	assert_int_equal(control_create(&m.control, &m, path), 0);
	return 0;
}

static int down(void **state)
{
	control_destroy(m.control);
	return machine_down(state);
}

/* One turn of the main thread's loop, at a time that much later than it is. */
static void turn_at(u64 later)
{
	struct pollfd fds[1 + CONTROL_POLLS];
	u64 deadline = ~0ull;

	hotplug_prepare(m.hotplug, &fds[0], &deadline);
	control_prepare(m.control, &fds[1], &deadline);
	poll(fds, ARRAY_SIZE(fds), 0);
	control_run(m.control, &fds[1], clock_now_ns() + later);
	hotplug_run(m.hotplug, clock_now_ns() + later);
}

static int client(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	strcpy(address.sun_path, path);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	turn_at(0);
	return fd;
}

/* All of it, in as many turns as that takes; false: it was hung up on us. */
static bool say(int fd, const char *text, size_t length)
{
	for (u32 n = 0; length && n < 1000; n++) {
		ssize_t sent = send(fd, text, length, MSG_NOSIGNAL);

		if (sent < 0 && errno != EAGAIN)
			return false;
		if (sent > 0) {
			text += sent;
			length -= (size_t)sent;
		}
		turn_at(0);
	}
	return true;
}

/* The next answer's text, NULL if none comes, "" when it was hung up. */
static const char *hear(int fd)
{
	static char line[65536];
	size_t length = 0;

	for (u32 n = 0; n < 300; n++) {
		ssize_t got;

		turn_at(0);
		got = recv(fd, line + length, 1, 0);
		while (got == 1 && line[length] != '\n' && length + 2 < sizeof(line))
			got = recv(fd, line + ++length, 1, 0);
		if (got == 1) {
			line[length] = '\0';
			return line;
		}
		if (got == 0)
			return "";
		usleep(1000);
	}
	return NULL;
}

/* The answer to a request is an object with this in it. */
static void expect(int fd, const char *request, const char *member, const char *words)
{
	json_t *answer;
	const char *text;

	assert_true(say(fd, request, strlen(request)));
	assert_true(say(fd, "\n", 1));
	text = hear(fd);
	if (!text)
		fail_msg("no answer to %.200s", request);
	answer = json_loads(text, 0, NULL);
	if (!json_object_get(answer, member) ||
	    (words && !strstr(json_string_value(json_object_get(answer, member)), words)))
		fail_msg("%.200s: the answer is %s", request, text);
	json_decref(answer);
}

static void lists(int fd)
{
	expect(fd, "{\"command\":\"list\"}", "devices", NULL);
}

/* ---- requests ---- */

static const char *const wrong[] = {
	"",
	" ",
	"{",
	"}",
	"[]",
	"1",
	"\"list\"",
	"null",
	"{}",
	"{\"command\":1}",
	"{\"command\":null}",
	"{\"command\":\"\"}",
	"{\"command\":\"lists\"}",
	"{\"command\":\"list\"",
	"{\"command\":\"list\"} x",
	"{\"command\":\"list\"}{\"command\":\"list\"}",
	"{\"command\":\"list\",\"command\":\"quit\"}",
	"{\"command\":\"list\",\"id\":\"blk0\"}",
	"{\"command\":\"quit\",\"now\":true}",
	"{'command':'list'}",
	"{\"command\":\"add\"}",
	"{\"command\":\"add\",\"disk\":\"a\",\"net\":\"b\"}",
	"{\"command\":\"add\",\"disk\":1}",
	"{\"command\":\"add\",\"disk\":\"\"}",
	"{\"command\":\"add\",\"disk\":\"/nowhere\"}",
	"{\"command\":\"add\",\"disk\":\"a\",\"learned\":[]}",
	"{\"command\":\"add\",\"net\":\"tap0\",\"learned\":{\"mtu\":1500}}",
	"{\"command\":\"add\",\"net\":\"a name that is far too long\"}",
	"{\"command\":\"add\",\"kernel\":\"a\"}",
	"{\"command\":\"remove\"}",
	"{\"command\":\"remove\",\"id\":\"blk0\"}",
	"{\"command\":\"remove\",\"id\":1}",
	"{\"command\":\"remove\",\"id\":\"rng\",\"timeout\":-1}",
	"{\"command\":\"remove\",\"id\":\"rng\",\"timeout\":1e99}",
	"{\"command\":\"remove\",\"id\":\"rng\",\"timeout\":99999999999999999999}",
	"{\"command\":\"remove\",\"id\":\"rng\",\"force\":1}",
	"{\"command\":\"resize\",\"id\":\"blk0\",\"size\":\"1G\"}",
	"{\"command\":\"resize\",\"id\":\"blk0\",\"size\":-1}",
	"{\"command\":\"resize\",\"id\":\"blk0\"}",
	"{\"command\":\"announce\",\"id\":\"net0\"}",
	"{\"command\":\"announce\"}",
	"{\"command\":\"li\\u0000st\"}",
	"{\"command\":\"l\xffist\"}",
	"{\"command\":\"%s%n\"}",
};

static void devices_are_described(void **state)
{
	int fd = client();
	const char *id, *text;

	(void)state;
	assert_int_equal(add_disk(image("a", MIB(1)), &id), 0);
	assert_true(say(fd, "{\"command\":\"devices\"}\n", 22));
	text = hear(fd);
	assert_non_null(text);
	if (!strstr(text, "{\"id\": \"blk0\", \"type\": \"blk\", \"address\": \"00:01.0\", "
			  "\"state\": \"idle\", \"status\": [], \"layout\": \"transitional\"") ||
	    !strstr(text, "\"FLUSH\"") || !strstr(text, "{\"queue\": 0, "))
		fail_msg("%s", text);
	close(fd);
}

static void mistakes_are_told(void **state)
{
	int fd = client();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		expect(fd, wrong[i], "error", NULL);
	lists(fd);
	close(fd);
}

/* Valid requests with a byte or more changed: an answer to each, whatever it is. */
static void noise_is_answered(void **state)
{
	static const char *const good[] = {
		"{\"command\":\"list\"}",
		"{\"command\":\"resize\",\"id\":\"blk0\",\"size\":1048576,\"shrink\":true}",
		"{\"command\":\"announce\",\"id\":\"net0\"}",
		"{\"command\":\"balloon\",\"size\":4096}",
		"{\"command\":\"remove\",\"id\":\"blk9\",\"force\":true,\"timeout\":0}",
		"{\"command\":\"add\",\"disk\":\"x,ro\",\"learned\":{\"alignment\":512}}",
	};
	int fd = client();

	(void)state;
	srand(4);
	for (u32 n = 0; n < 3000; n++) {
		char text[160];
		size_t length;

		snprintf(text, sizeof(text), "%s\n", good[n % ARRAY_SIZE(good)]);
		length = strlen(text);
		for (int changes = rand() % 4; changes > 0; changes--) {
			char *at = &text[(size_t)rand() % (length - 1)];

			*at = (char)rand();
			if (*at == '\n')
				*at = '"';
		}
		assert_true(say(fd, text, length));
		if (!hear(fd))
			fail_msg("no answer to %s", text);
	}
	lists(fd);
	close(fd);
}

static void what_is_asked_happens(void **state)
{
	int fd = client();
	u32 events;

	(void)state;
	expect(fd, "{\"command\":\"power\"}", "done", NULL);
	events = (u32)bus_read(m.bus, BUS_PIO, LAYOUT_PORT_GED, 4);
	assert_int_equal(events, LAYOUT_GED_POWER_BUTTON);
	assert_int_equal(end_reason(&m.end, NULL), END_NONE);
	expect(fd, "{\"command\":\"quit\"}", "done", NULL);
	assert_int_equal(end_reason(&m.end, NULL), END_QUIT);
	close(fd);
}

/* A driver that has promised statistics, and never tells them. */
static void silent_driver(struct virtio_device *device)
{
	struct virtio_queue *queue = &device->queues[2];

	pthread_mutex_lock(&device->lock);
	virtio_status_write(device, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER, false);
	virtio_features_write(device, 0, BIT(VIRTIO_BALLOON_F_STATS_VQ), false);
	virtio_features_write(device, 1, BIT(VIRTIO_F_VERSION_1 - 32), false);
	virtio_status_write(device, device->status | VIRTIO_CONFIG_S_FEATURES_OK, false);
	queue->descriptors = 0x10000;
	queue->driver = 0x20000;
	queue->used = 0x30000;
	virtio_queue_enable(queue);
	virtio_status_write(device, device->status | VIRTIO_CONFIG_S_DRIVER_OK, false);
	pthread_mutex_unlock(&device->lock);
	reactors_settle(m.reactors);
}

static void the_balloon_is_asked(void **state)
{
	int fd = client(), other = client();
	struct machine_device *d;

	(void)state;
	config.memory = MIB(64);
	expect(fd, "{\"command\":\"balloon\"}", "error", "has none; add one");
	expect(fd, "{\"command\":\"balloon\",\"size\":0}", "error", "has none; add one");
	expect(fd, "{\"command\":\"add\",\"balloon\":\"size=0\",\"rng\":\"on\"}", "error",
	       "at a time");
	expect(fd, "{\"command\":\"add\",\"balloon\":\"size=0\"}", "id", "balloon");
	expect(fd, "{\"command\":\"add\",\"balloon\":\"size=0\"}", "error", "remove it first");
	d = hotplug_find(m.hotplug, "balloon");
	expect(fd, "{\"command\":\"balloon\",\"size\":67108865}", "error", "give 0 to that");
	expect(fd, "{\"command\":\"balloon\",\"size\":-1}", "error", "give 0 to that");
	expect(fd, "{\"command\":\"balloon\",\"size\":\"1M\"}", "error", "Expected integer");
	expect(fd, "{\"command\":\"balloon\",\"id\":\"balloon\"}", "error", "docs/control.md");
	expect(fd, "{\"command\":\"balloon\",\"size\":33554432}", "target", NULL);
	expect(fd, "{\"command\":\"balloon\"}", "actual", NULL); /* at once: there is no driver */
	silent_driver(d->device);
	assert_true(say(fd, "{\"command\":\"balloon\"}\n", 22));
	assert_true(say(other, "{\"command\":\"balloon\"}\n", 22));
	assert_null(hear(fd));
	close(other); /* who does not wait is not waited for */
	other = client();
	lists(other);
	turn_at(11 * NS);
	assert_non_null(strstr(hear(fd), "\"target\": 33554432, \"actual\": 0}"));
	assert_true(say(fd, "{\"command\":\"balloon\"}\n", 22));
	assert_null(hear(fd));
	virtio_device_power_on(d->device);
	lists(other);
	close(fd);
	close(other);
}

/* ---- clients ---- */

static void requests_come_in_any_pieces(void **state)
{
	static const char two[] = "{\"command\":\"list\"}\n{\"command\":\"list\"}\n{\"com";
	int fd = client();

	(void)state;
	for (size_t i = 0; i < strlen(two); i++)
		assert_true(say(fd, &two[i], 1));
	for (u32 n = 0; n < 2; n++)
		assert_non_null(strstr(hear(fd), "devices"));
	assert_null(hear(fd));
	assert_true(say(fd, "mand\":\"list\"}\n", 14));
	assert_non_null(strstr(hear(fd), "devices"));
	assert_true(say(fd, two, strlen(two) - 5));
	/* and whoever says no more still hears */
	shutdown(fd, SHUT_WR);
	for (u32 n = 0; n < 2; n++)
		assert_non_null(strstr(hear(fd), "devices"));
	assert_string_equal(hear(fd), "");
	close(fd);
}

static void huge_requests_are_refused(void **state)
{
	char *much = malloc(2 * CONTROL_LINE);
	int fd = client();

	(void)state;
	memset(much, ' ', 2 * CONTROL_LINE);
	/* the longest line that fits */
	memcpy(much, "{\"command\":\"list\"}", 18);
	much[CONTROL_LINE - 1] = '\n';
	assert_true(say(fd, much, CONTROL_LINE));
	assert_non_null(strstr(hear(fd), "devices"));
	/* as deep as it can be nested */
	memset(much, '[', CONTROL_LINE);
	much[CONTROL_LINE - 1] = '\n';
	assert_true(say(fd, much, CONTROL_LINE));
	assert_non_null(strstr(hear(fd), "error"));
	/* a byte more than a line has */
	memset(much, ' ', 2 * CONTROL_LINE);
	say(fd, much, CONTROL_LINE + 1);
	assert_non_null(strstr(hear(fd), "64 KiB"));
	assert_string_equal(hear(fd), "");
	close(fd);
	free(much);
	fd = client();
	lists(fd);
	close(fd);
}

/* Who never reads is not read from, so that what is kept for it has an end. */
static void a_deaf_client_is_not_heard(void **state)
{
	static const char request[] = "{\"command\":\"list\"}\n";
	u32 sent = 0, files = open_files();
	int fd = client(), other;

	(void)state;
	for (u32 n = 0; n < 200000 && sent < 100; n++) {
		/* until it has stuck for a hundred turns */
		sent = send(fd, request, strlen(request), MSG_NOSIGNAL) < 0 ? sent + 1 : 0;
		turn_at(0);
	}
	assert_int_equal(sent, 100);
	other = client();
	lists(other);
	/* after a while it goes */
	turn_at(11 * NS);
	turn_at(11 * NS);
	lists(other);
	close(fd);
	close(other);
	turn_at(0);
	turn_at(0);
	assert_int_equal(open_files(), files);
}

static void half_a_request_has_its_time(void **state)
{
	int fd = client(), idle = client();

	(void)state;
	assert_true(say(fd, "{\"comm", 6));
	turn_at(9 * NS);
	turn_at(11 * NS);
	assert_string_equal(hear(fd), "");
	/* who has said nothing may take as long as he likes */
	lists(idle);
	close(fd);
	close(idle);
}

static void clients_beyond_number(void **state)
{
	int fds[5 * CONTROL_CLIENTS];
	u32 files = open_files();

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = client();
		assert_true(open_files() <= files + i + 1 + CONTROL_CLIENTS);
	}
	/* the last are there, the first have been let go */
	for (u32 i = 0; i < ARRAY_SIZE(fds); i++) {
		if (i < ARRAY_SIZE(fds) - CONTROL_CLIENTS)
			assert_string_equal(hear(fds[i]), "");
		else
			lists(fds[i]);
	}
	for (u32 i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	turn_at(0);
	assert_int_equal(open_files(), files);
}

/* ---- descriptors ---- */

/* Sends text with `count` copies of a descriptor. */
static void send_with(int to, const char *text, int fd, u32 count)
{
	char control[CMSG_SPACE(253 * sizeof(int))] __attribute__((aligned(8))) = { 0 };
	struct iovec iov = { (char *)text, strlen(text) };
	struct msghdr message = { .msg_iov = &iov,
				  .msg_iovlen = 1,
				  .msg_control = control,
				  .msg_controllen = CMSG_SPACE(count * sizeof(int)) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&message);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(count * sizeof(int));
	for (u32 i = 0; i < count; i++)
		memcpy(CMSG_DATA(c) + i * sizeof(fd), &fd, sizeof(fd));
	assert_int_equal(sendmsg(to, &message, 0), strlen(text));
	turn_at(0);
}

static void descriptors_do_not_pile_up(void **state)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), fd = client();
	u32 files = open_files();

	(void)state;
	for (u32 n = 1; n <= CONTROL_FDS; n++) {
		send_with(fd, "{\"command\":\"list\"}\n", null, n);
		assert_non_null(strstr(hear(fd), "devices"));
		assert_int_equal(open_files(), files);
	}
	/* with bytes that are no request yet, until it is too much */
	for (u32 n = 0; n < 3; n++)
		send_with(fd, " ", null, 60);
	assert_non_null(strstr(hear(fd), "descriptors"));
	assert_string_equal(hear(fd), "");
	close(fd);
	fd = client();
	send_with(fd, " ", null, 253);
	assert_non_null(strstr(hear(fd), "descriptors"));
	close(fd);
	/* of a client that goes in the middle */
	fd = client();
	send_with(fd, "{", null, 100);
	close(fd);
	turn_at(0);
	assert_int_equal(open_files(), files - 2);
	close(null);
}

/* ---- devices ---- */

static void add_by(int fd, const char *file)
{
	const struct disk_config c = { .path = file };
	struct disk disk;
	json_t *request;
	char *text, line[1024];

	assert_int_equal(disk_open(&disk, &c), 0);
	request = json_pack("{s:s, s:s, s:o}", "command", "add", "disk", file, "learned",
			    learned_pack_disk(&disk));
	text = json_dumps(request, JSON_COMPACT);
	snprintf(line, sizeof(line), "%s\n", text);
	send_with(fd, line, disk.fd, 1);
	free(text);
	json_decref(request);
	disk_close(&disk);
}

static void ask(int fd, const char *text)
{
	assert_true(say(fd, text, strlen(text)));
}

static void a_removal_is_answered_when_it_is_done(void **state)
{
	int fd = client(), other = client();

	(void)state;
	add_by(fd, image("a", MIB(1)));
	assert_non_null(strstr(hear(fd), "blk0"));
	add_by(fd, image("b", MIB(1)));
	assert_non_null(strstr(hear(fd), "blk1"));
	assert_int_equal(slots_read(OCCUPIED), BIT(1) | BIT(2));
	/* who waits is not read from, others are served */
	ask(fd, "{\"command\":\"remove\",\"id\":\"blk0\"}\n{\"command\":\"list\"}\n");
	assert_null(hear(fd));
	lists(other);
	eject(BIT(1));
	assert_non_null(strstr(hear(fd), "\"blk0\""));
	assert_non_null(strstr(hear(fd), "devices"));
	/* two ask for the same */
	ask(fd, "{\"command\":\"remove\",\"id\":\"blk1\"}\n");
	ask(other, "{\"command\":\"remove\",\"id\":\"blk1\"}\n");
	assert_non_null(strstr(hear(fd), "somebody else"));
	/* and the one that waits goes */
	close(other);
	turn_at(0);
	turn_at(0);
	lists(fd);
	assert_int_equal(m.device_count, 1);
	eject(BIT(2));
	for (u32 n = 0; n < 1000 && m.device_count; n++) {
		usleep(1000);
		turn_at(0);
	}
	assert_int_equal(m.device_count, 0);
	expect(fd, "{\"command\":\"remove\",\"id\":\"blk1\"}", "error", "no such device");
	close(fd);
}

/* ---- the socket ---- */

static void the_socket_is_the_users(void **state)
{
	struct control *second = NULL;
	char text[512];
	struct stat st;

	(void)state;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	log_capture(text, sizeof(text));
	/* somebody listens */
	assert_int_equal(control_create(&second, &m, path), -EADDRINUSE);
	assert_non_null(strstr(text, "another machine"));
	/* no socket at all */
	assert_int_equal(control_create(&second, &m, image("file", 1)), -EADDRINUSE);
	assert_int_equal(stat(image("file", 1), &st), 0);
	assert_int_not_equal(control_create(&second, &m, "/nowhere/at/all"), 0);
	log_capture(NULL, 0);
	/* what an ended machine has left is taken over */
	control_destroy(m.control);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(control_create(&m.control, &m, path), 0);
	lists(client());
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, up, down)
	const struct CMUnitTest tests[] = {
		TEST(mistakes_are_told),	   TEST(noise_is_answered),
		TEST(what_is_asked_happens),	   TEST(requests_come_in_any_pieces),
		TEST(huge_requests_are_refused),   TEST(a_deaf_client_is_not_heard),
		TEST(half_a_request_has_its_time), TEST(clients_beyond_number),
		TEST(descriptors_do_not_pile_up),  TEST(a_removal_is_answered_when_it_is_done),
		TEST(the_socket_is_the_users),	   TEST(devices_are_described),
		TEST(the_balloon_is_asked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
