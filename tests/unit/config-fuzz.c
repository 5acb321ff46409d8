/* vm/config*.c fed with files and flags made of right pieces put together wrongly, and of noise:
 * always an answer, one line for each refusal, nothing out of range let through (the sanitizers
 * watch for the rest).
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "vm/config.h"

static const char *const pieces[] = {
	"kernel",
	"initrd",
	"cmdline",
	"cpus",
	"mem",
	"disk",
	"net",
	"serial",
	"rng",
	"balloon",
	"iothreads",
	"timeout",
	"grace",
	"no-reboot",
	"no-sandbox",
	"config",
	"help",
	"man",
	"version",
	"check",
	"=",
	" = ",
	"=",
	"\n",
	"\n",
	"\r\n",
	"#",
	",",
	",,",
	"on",
	"off",
	"sockets",
	"cores",
	"threads",
	"hugepages",
	"2M",
	"1G",
	"ro",
	"direct",
	"queues",
	"cache",
	"writeback",
	"writethrough",
	"mac",
	"mtu",
	"1",
	"4",
	"254",
	"512M",
	"0",
	"-1",
	"18446744073709551615",
	"99999999999999999999",
	"52:54:00:12:34:56",
	"tap0",
	"a",
	"%s%n",
	"\t",
	"\xff",
	"\xc3\xa4",
	"--",
	"-",
	" ",
};

static int errors;

static size_t make_text(char *text, size_t size, bool as_file)
{
	static const char *const keys[] = { "cpus", "mem", "mem",  "disk",
					    "net",  "net", "disk", "grace" };
	static const char *const tails[] = { "",
					     "M",
					     ",hugepages=2M",
					     ",ro",
					     ",mtu=1500",
					     ",a-key-of-a-length-that-no-word-of-ours-has",
					     ",mac=53:54:00:00:00:01",
					     ",queues=9,serial=a-serial-number-of-many-letters",
					     "" };
	size_t used = 0, list = rand() % 2 ? 3 : 4; /* disks or nets, one too many */
	bool many = rand() % 30 == 0;

	/* most begin well, so that what follows is reached */
	if (rand() % 4)
		used = (size_t)snprintf(text, size, "%s",
					as_file ? "kernel = k\n" : "--kernel=k\n");
	for (int n = many ? 18 : rand() % 4; n > 0; n--) {
		size_t key = many ? list : (size_t)rand() % ARRAY_SIZE(keys);

		used += (size_t)snprintf(
			text + used, size - used, "%s%s%s%d%s", as_file ? "" : "--", keys[key],
			as_file ? " = " : "=", many ? n : rand() % 300,
			!many && rand() % 2 ? tails[(size_t)rand() % ARRAY_SIZE(tails)] : "");
		text[used++] = '\n';
	}
	for (int n = rand() % 2 ? 0 : rand() % 24; n > 0; n--) {
		const char *piece = pieces[(size_t)rand() % ARRAY_SIZE(pieces)];

		if (rand() % 40 == 0)
			text[used++] = (char)rand();
		memcpy(text + used, piece, strlen(piece));
		used += strlen(piece);
	}
	if (used && text[used - 1] == '\n' && rand() % 8)
		used--;
	return used;
}

/* What came out is what the rest of the program may rely on. */
static void check_config(const struct config *c)
{
	if (c->action != CONFIG_RUN)
		return;
	assert_true(c->kernel && *c->kernel && c->serial && *c->serial);
	assert_true(c->cpus >= 1 && c->cpus <= CONFIG_MAX_CPUS);
	assert_int_equal(c->sockets * c->cores * c->threads, c->cpus);
	assert_true(c->memory >= MIB(64) && c->memory <= BIT64(52) && c->memory % MIB(1) == 0);
	assert_true(c->pages != MEMORY_PAGES_2M || c->memory % MIB(2) == 0);
	assert_true(c->pages != MEMORY_PAGES_1G || c->memory % GIB(1) == 0);
	assert_true(c->iothreads >= 1 && c->iothreads <= CONFIG_MAX_IOTHREADS);
	assert_true(c->disk_count <= CONFIG_MAX_DISKS && c->net_count <= CONFIG_MAX_NETS);
	for (u32 i = 0; i < c->disk_count; i++) {
		assert_true(c->disks[i].path && *c->disks[i].path);
		assert_true(memchr(c->disks[i].serial, '\0', sizeof(c->disks[i].serial)) != NULL);
		assert_true(c->disks[i].queues <= CONFIG_MAX_QUEUES);
		assert_false(c->disks[i].readonly && c->disks[i].writethrough);
	}
	for (u32 i = 0; i < c->net_count; i++) {
		assert_true(c->nets[i].tap && *c->nets[i].tap && strlen(c->nets[i].tap) < 16);
		assert_false(c->nets[i].mac_given && c->nets[i].mac[0] & 1);
		assert_true(!c->nets[i].mtu || c->nets[i].mtu >= 68);
		assert_true(c->nets[i].queues <= CONFIG_MAX_QUEUES);
	}
}

/* Exactly one line of printable text came out, or none. */
static void check_messages(bool one)
{
	char text[4200];
	ssize_t n = pread(errors, text, sizeof(text), 0);

	assert_true(n >= 0 && n < (ssize_t)sizeof(text));
	if (!one) {
		assert_int_equal(n, 0);
		return;
	}
	assert_true(n > 6 && !memcmp(text, "vmm: ", 5));
	assert_ptr_equal(memchr(text, '\n', (size_t)n), text + n - 1);
	for (ssize_t i = 0; i < n - 1; i++)
		assert_true((u8)text[i] >= ' ' && text[i] != 0x7f);
	assert_int_equal(ftruncate(errors, 0), 0);
	lseek(errors, 0, SEEK_SET);
}

static unsigned int parse_all(unsigned int rounds, bool as_file)
{
	int fd = memfd_create("config", MFD_CLOEXEC), saved = dup(STDERR_FILENO);
	unsigned int accepted = 0;
	char path[32], text[1024];

	assert_true(fd >= 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	dup2(errors, STDERR_FILENO);
	for (unsigned int i = 0; i < rounds; i++) {
		char *argv[64] = { "vmm", "--config", path }, *cursor = text, *word;
		struct config config;
		size_t length = make_text(text, sizeof(text), as_file);
		int argc = 3, err;

		text[length] = '\0';
		if (as_file) {
			assert_int_equal(ftruncate(fd, 0), 0);
			assert_int_equal(pwrite(fd, text, length, 0), (ssize_t)length);
		} else {
			argc = 1;
			while (argc < 60 && (word = strsep(&cursor, "\n ")))
				argv[argc++] = word;
			argv[argc] = NULL;
		}
		err = config_parse(&config, argc, argv);
		assert_true(err == 0 || err == -EINVAL || err == -ENOENT);
		check_messages(err != 0);
		if (!err) {
			accepted++;
			check_config(&config);
			config_free(&config);
		}
	}
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(fd);
	return accepted;
}

static void test_files(void **state)
{
	(void)state;
	srand(1);
	assert_in_range(parse_all(40000, true), 100, 39000); /* both sides were reached */
}

static void test_flags(void **state)
{
	(void)state;
	srand(2);
	assert_in_range(parse_all(40000, false), 10, 39999);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_flags),
	};

	errors = memfd_create("errors", MFD_CLOEXEC);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
