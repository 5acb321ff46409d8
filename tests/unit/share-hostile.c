/*
 * The server of a shared folder against a guest that means harm: ways out of the folder, messages
 * that are none, and what is left when the machine is gone.
 */
#include "tests/unit/share-client.h"
#include <linux/landlock.h>
#include <sys/prctl.h>

static int up_with(void **state, bool readonly, enum config_map map)
{
	static struct client client;

	folder_up(&client);
	serve(&client, in_folder(&client, "share"), readonly, map);
	*state = &client;
	return 0;
}

static int up(void **state)
{
	return up_with(state, false, CONFIG_MAP_SQUASH);
}

static int up_ro(void **state)
{
	return up_with(state, true, CONFIG_MAP_SQUASH);
}

static int up_mapped(void **state)
{
	return up_with(state, false, CONFIG_MAP_MAPPED);
}

static int down(void **state)
{
	unserve(*state);
	folder_down(*state);
	return 0;
}

static void still_serves(struct client *c)
{
	struct attr attr;

	assert_true(version(c, SHARE_MSIZE, "9P2000.L"));
	assert_int_equal(attach(c, ROOT, ""), 0);
	assert_int_equal(getattr(c, ROOT, &attr), 0);
	assert_int_equal(attr.qid, 0x80);
}

/* ---- ways out ---- */

/* A walk by one name of these bytes. */
static int walk_bytes(struct client *c, const void *bytes, u32 length)
{
	start(c, TWALK);
	put(c, ROOT, 4);
	put(c, 2, 4);
	put(c, 1, 2);
	put(c, length, 2);
	put_bytes(c, bytes, length);
	return call(c);
}

static void refuses_names_that_are_none(void **state)
{
	struct client *c = *state;
	static const struct {
		const char *name;
		u32 length;
	} names[] = {
		{ "", 0 },
		{ ".", 1 },
		{ "..", 2 },
		{ "/", 1 },
		{ "sub/inner", 9 },
		{ "../secret", 9 },
		{ "file\0", 5 },
		{ "\0", 1 },
		{ "/etc/passwd", 11 },
		{ "sub/", 4 },
		{ "file\0/../secret", 16 },
	};
	char longest[4096];

	memset(longest, 'x', sizeof(longest));
	for (u32 i = 0; i < ARRAY_SIZE(names); i++) {
		if (names[i].length == 5) /* "file" and a NUL */
			assert_int_equal(walk_bytes(c, "file", 5), -EINVAL);
		else
			assert_int_equal(walk_bytes(c, names[i].name, names[i].length), -EINVAL);
	}
	assert_int_equal(walk_bytes(c, longest, 256), -ENAMETOOLONG);
	assert_int_equal(walk_bytes(c, longest, 4096), -ENAMETOOLONG);
	assert_int_equal(named(c, TMKDIR, ROOT, "..", 0755, 0), -EINVAL);
	assert_int_equal(named(c, TMKDIR, ROOT, "../x", 0755, 0), -EINVAL);
	assert_int_equal(named(c, TMKNOD, ROOT, "../x", S_IFREG | 0755, 0), -EINVAL);
	assert_int_equal(named(c, TUNLINKAT, ROOT, "../secret", 0, 0), -EINVAL);
	assert_int_equal(create(c, ROOT, 3, "../x", O_RDWR, 0644), -EINVAL);
	start(c, TRENAMEAT);
	put(c, ROOT, 4);
	put_text(c, "file");
	put(c, ROOT, 4);
	put_text(c, "../file");
	assert_int_equal(call(c), -EINVAL);
	assert_int_equal(access(in_folder(c, "x"), F_OK), -1);
	assert_int_equal(access(in_folder(c, "secret"), F_OK), 0);
}

/* The guest follows its links itself, in its own tree; here they lead nowhere. */
static void follows_no_links(void **state)
{
	struct client *c = *state;

	assert_int_equal(symlink(in_folder(c, "secret"), in_folder(c, "share/absolute")), 0);
	assert_int_equal(symlink("../secret", in_folder(c, "share/relative")), 0);
	assert_int_equal(symlink("..", in_folder(c, "share/up")), 0);
	assert_int_equal(symlink("/proc/self/root", in_folder(c, "share/magic")), 0);
	assert_int_equal(symlink("file", in_folder(c, "share/inside")), 0);
	assert_int_equal(walk_open(c, 2, "absolute", O_RDONLY), -ELOOP);
	assert_int_equal(walk_open(c, 2, "relative", O_RDONLY), -ELOOP);
	assert_int_equal(walk_open(c, 2, "inside", O_RDONLY), -ELOOP);
	assert_int_equal(walk(c, ROOT, 2, "up/secret"), -ENOENT);
	assert_int_equal(walk(c, ROOT, 2, "magic/etc"), -ENOENT);
	assert_int_equal(walk(c, ROOT, 2, "absolute"), 0);
	assert_int_equal(setattr(c, 2, 8, 0, 0, 0, 0), -EINVAL);
	assert_int_not_equal(setattr(c, 2, 1, 0777, 0, 0, 0), 0);
	assert_int_equal(create(c, ROOT, 3, "absolute", O_RDWR | O_TRUNC, 0644), -ELOOP);
	assert_int_equal(attach(c, 4, "/up"), -ELOOP);
	assert_int_equal(attach(c, 4, "/magic"), -ELOOP);
}

/* They are the host's: the guest's own do their work in the guest. */
static void opens_no_fifos_sockets_and_devices(void **state)
{
	struct client *c = *state;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	static const char *const names[] = { "fifo", "socket", "null" };
	struct attr attr;

	assert_int_equal(mkfifo(in_folder(c, "share/fifo"), 0666), 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", in_folder(c, "share/socket"));
	assert_int_equal(bind(fd, (void *)&address, sizeof(address)), 0);
	for (u32 i = 0; i < 3; i++) {
		char path[32];

		snprintf(path, sizeof(path), "share/%s", names[i]);
		if (i == 2 && mknod(in_folder(c, path), S_IFCHR | 0666, makedev(1, 3)))
			break; /* not as root */
		assert_int_equal(walk(c, ROOT, 2, names[i]), 0);
		assert_int_equal(getattr(c, 2, &attr), 0);
		assert_false(S_ISREG(attr.mode));
		assert_int_equal(lopen(c, 2, O_RDONLY), -EPERM);
		assert_int_equal(lopen(c, 2, O_RDWR), -EPERM);
		assert_int_equal(setattr(c, 2, 1, 0777, 0, 0, 0), -EPERM);
		start(c, TLINK);
		put(c, ROOT, 4);
		put(c, 2, 4);
		put_text(c, "second");
		assert_int_equal(call(c), -EPERM);
		assert_int_equal(clunk(c, 2), 0);
		assert_int_equal(create(c, ROOT, 2, names[i], O_RDWR, 0644), -EPERM);
		assert_int_equal(clunk(c, 2), 0);
	}
	close(fd);
}

/* With / for a folder, what is mounted below is not there: not the kernel's files, through which
 * the machine's memory could be read, nor devices. */
static void shares_one_mount(void **state)
{
	struct client c = { .tag = 0 };
	static const char *const below[] = { "self", "1", "mem", "kcore", "null" };
	struct attr attr;
	char path[64];

	(void)state;
	serve(&c, "/", false, CONFIG_MAP_SQUASH);
	assert_int_equal(walk(&c, ROOT, 2, "proc"), 0);
	assert_int_equal(getattr(&c, 2, &attr), 0);
	assert_int_equal(attr.mode, S_IFDIR | 0555);
	for (u32 i = 0; i < ARRAY_SIZE(below); i++)
		assert_int_equal(walk(&c, 2, 3, below[i]), -ENOENT);
	snprintf(path, sizeof(path), "proc/%d/mem", getpid());
	assert_int_equal(walk(&c, ROOT, 3, path), -ENOENT);
	assert_int_equal(walk(&c, ROOT, 3, "proc/self/fd/1"), -ENOENT);
	assert_int_equal(walk(&c, ROOT, 3, "proc/self/root/etc"), -ENOENT);
	assert_int_equal(walk(&c, ROOT, 3, "sys/kernel"), -ENOENT);
	/* a folder like any, but that it stays empty */
	assert_int_equal(walk_open(&c, 4, "proc", O_RDONLY), 0);
	start(&c, TREADDIR);
	put(&c, 4, 4);
	put(&c, 0, 8);
	put(&c, 8192, 4);
	assert_int_equal(call(&c), 0);
	assert_int_equal(got(&c, 0, 4), 0);
	assert_int_equal(named(&c, TMKDIR, 2, "x", 0755, 0), -EROFS);
	assert_int_equal(create(&c, 2, 5, "x", O_RDWR, 0644), -EROFS);
	assert_int_equal(setattr(&c, 2, 1, 0777, 0, 0, 0), -EROFS);
	assert_int_equal(attach(&c, 6, "/proc/self"), -EXDEV);
	assert_int_equal(named(&c, TUNLINKAT, ROOT, "proc", 0x200, 0),
			 geteuid() ? -EACCES : -EBUSY);
	unserve(&c);
}

static void refuses_to_share_the_kernel(void **state)
{
	static const char *const paths[] = { "/proc", "/proc/self", "/sys", "/nowhere/at/all",
					     "/etc/passwd" };
	struct share share;

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(paths); i++) {
		const struct share_config config = { .path = paths[i], .sandbox = true };

		assert_int_not_equal(share_open(&share, &config), 0);
	}
}

#define RACES 3000

/* Somebody puts a link to the outside in the place of a folder, and back, as fast as can be. */
static void wins_races(void **state)
{
	struct client *c = *state;
	pid_t racer;
	u32 inside = 0, refused = 0;

	assert_int_equal(mkdir(in_folder(c, "outside"), 0755), 0);
	make_file(c, "outside/inner", "OUTSIDE");
	assert_int_equal(symlink("../outside", in_folder(c, "share/link")), 0);
	racer = fork();
	if (!racer) {
		int folder = open(in_folder(c, "share"), O_DIRECTORY);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			syscall(SYS_renameat2, folder, "sub", folder, "link", RENAME_EXCHANGE);
	}
	for (u32 i = 0; i < RACES; i++) {
		int err = walk(c, ROOT, 2, "sub/inner");

		if (!err) {
			assert_int_equal(lopen(c, 2, O_RDONLY), 0);
			assert_int_equal(read_at(c, 2, 0, 100), 5);
			assert_memory_equal(c->in + 4, "inner", 5);
			assert_int_equal(clunk(c, 2), 0);
			inside++;
		} else {
			assert_int_equal(err, -ENOENT);
			refused++;
		}
	}
	kill(racer, SIGKILL);
	waitpid(racer, NULL, 0);
	print_message("%u inside, %u refused\n", inside, refused);
}

/* A folder that is moved out of the share, while a fid stands for it, has no way further up. */
static void stays_in_what_moved_away(void **state)
{
	struct client *c = *state;

	assert_int_equal(walk(c, ROOT, 2, "sub"), 0);
	assert_int_equal(rename(in_folder(c, "share/sub"), in_folder(c, "moved")), 0);
	assert_int_equal(walk(c, 2, 3, "inner"), 0);
	assert_int_equal(walk(c, 2, 4, "../secret"), -EINVAL);
	assert_int_equal(walk(c, 2, 4, ".."), -EINVAL);
	/* and where the kernel itself guards the folder, it is not to be had any more */
	if (syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) >= 2)
		assert_int_equal(lopen(c, 3, O_RDONLY), -EACCES);
}

/* ---- messages that are none ---- */

static const u8 types[] = { TSTATFS,  TLOPEN,	TLCREATE,   TSYMLINK,	  TMKNOD,    TREADLINK,
			    TGETATTR, TSETATTR, TXATTRWALK, TXATTRCREATE, TREADDIR,  TFSYNC,
			    TLOCK,    TGETLOCK, TLINK,	    TMKDIR,	  TRENAMEAT, TUNLINKAT,
			    TATTACH,  TFLUSH,	TWALK,	    TREAD,	  TWRITE,    TCLUNK,
			    TREMOVE,  TVERSION };

/* Each kind of request, cut off at every length and filled with every of some bytes. */
static void answers_every_length(void **state)
{
	static const u8 fill[] = { 0, 1, 0xff };
	/* what these need at least; less is an error, whatever the message before left there */
	static const u8 least[256] = {
		[TSTATFS] = 4,	 [TLOPEN] = 8, [TGETATTR] = 12, [TSETATTR] = 60,
		[TREADDIR] = 16, [TREAD] = 16, [TWRITE] = 16,	[TFLUSH] = 2,
		[TFSYNC] = 8,	 [TCLUNK] = 4, [TVERSION] = 6,	[TATTACH] = 16
	};
	struct client *c = *state;
	u16 tag;

	for (u32 t = 0; t < 256; t = t == 130 ? SHARE_TLEND : t + 1)
		for (u32 f = 0; f < ARRAY_SIZE(fill); f++)
			for (u32 length = 0; length < 72; length += t % 2 ? 24 : 1) {
				u32 size = htole32(7 + length);

				start(c, (u8)t);
				memset(c->out + c->length, fill[f], length);
				if (length >= 4) /* a fid that there is */
					c->out[7] = ROOT, memset(c->out + 8, 0, 3);
				c->length += length;
				memcpy(c->out, &size, 4);
				assert_true(send_out(c));
				if (length < least[t])
					assert_int_equal(receive(c, &tag), 7);
				else
					assert_true(receive(c, &tag));
				assert_int_equal(tag, c->tag);
			}
	still_serves(c);
}

static u64 random_state = 88172645463325252ull;

static u32 below(u32 n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return n ? (u32)(random_state >> 11) % n : 0;
}

static void put_random_text(struct client *c)
{
	static const char *const words[] = { "file", "sub", "inner", "a",      "b",
					     "..",   "x/y", "",	     "user.a", "user.vmm.attr" };
	u32 n = below(24);

	if (n < ARRAY_SIZE(words)) {
		put_text(c, words[n]);
		return;
	}
	n = below(40);
	put(c, below(20) ? n : below(65536), 2);
	while (n--)
		put(c, below(256), 1);
}

/* Requests that are nearly right, in the shapes that the server knows, with few fids. */
static void build_random(struct client *c)
{
	static const char *const shapes[] = {
		"f",	"f4",	"fn444", "fns4",    "fn4444", "f8",  "f444488888",
		"f4s",	"fs84", "f84",	 "f14884s", "f1884s", "ffn", "fn44",
		"fnfn", "fn4",	"44ss4", "2",	    "f42nn",  "f42",
	};
	const char *shape = shapes[below(ARRAY_SIZE(shapes))];

	start(c, types[below(ARRAY_SIZE(types) - 1)]); /* a version would forget all */
	for (; *shape; shape++) {
		if (*shape == 'f')
			put(c, 1 + below(8), 4);
		else if (*shape == 'n' || *shape == 's')
			put_random_text(c);
		else if (below(3))
			put(c, below(20), (u32)(*shape - '0'));
		else
			put(c, below(~0u) | (u64)below(~0u) << 32, (u32)(*shape - '0'));
	}
	for (u32 n = below(4) ? 0 : below(300); n; n--)
		put(c, below(256), 1);
	if (!below(10))
		c->out[7 + below(c->length - 6)] = (u8)below(256);
}

#define MESSAGES 15000

static void survives_nonsense(void **state)
{
	struct client *c = *state;
	u16 tag;

	for (u32 i = 0; i < MESSAGES; i++) {
		u32 size;

		build_random(c);
		size = htole32(c->length);
		memcpy(c->out, &size, 4);
		assert_true(send_out(c));
		if (!receive(c, &tag))
			fail_msg("the server is gone after %u messages, type %u", i, c->out[4]);
		assert_int_equal(tag, c->tag);
		if (i % 3000 == 0)
			still_serves(c);
	}
	still_serves(c);
	assert_int_equal(access(in_folder(c, "secret"), F_OK), 0);
}

/* Nobody could say where the next one begins. */
static void ends_at_sizes_that_are_none(void **state)
{
	static const u32 sizes[] = { 0, 6, SHARE_MSIZE + 1, ~0u };
	struct client *c = *state;
	u16 tag;

	for (u32 i = 0; i < ARRAY_SIZE(sizes); i++) {
		u32 size = htole32(sizes[i]);

		if (i) {
			unserve(c);
			serve(c, in_folder(c, "share"), false, CONFIG_MAP_SQUASH);
		}
		start(c, TCLUNK);
		memcpy(c->out, &size, 4);
		assert_true(send_out(c));
		assert_false(receive(c, &tag));
	}
}

/* In pieces, or many at once: a stream has no messages. */
static void takes_any_pieces(void **state)
{
	struct client *c = *state;
	u8 many[100 * 11];
	u16 tag;

	for (u32 i = 0; i < 100; i++) {
		start(c, TSTATFS);
		put(c, ROOT, 4);
		c->out[0] = 11;
		memcpy(many + i * 11, c->out, 11);
	}
	assert_int_equal(write(c->share.fd, many, sizeof(many)), sizeof(many));
	for (u32 i = 0; i < 100; i++)
		assert_int_equal(receive(c, &tag), TSTATFS + 1);
	for (u32 i = 0; i < 11; i++) {
		assert_int_equal(write(c->share.fd, many + i, 1), 1);
		usleep(500);
	}
	assert_int_equal(receive(c, &tag), TSTATFS + 1);
}

/* More fids than there may be descriptors: an error for the guest, and all is well after. */
static void runs_out_of_descriptors(void **state)
{
	struct client *c = *state;
	u32 n = 0;
	int err;

	do
		err = walk(c, ROOT, 100 + n++, "sub");
	while (!err && n < 2000000);
	assert_int_equal(err, -EMFILE);
	assert_int_equal(walk_open(c, 2, "file", O_RDONLY), -EMFILE);
	still_serves(c);
	assert_int_equal(walk_open(c, 2, "file", O_RDONLY), 0);
}

/* ---- the process ---- */

static void status_line(pid_t pid, const char *key, char *value, size_t size)
{
	char path[64], line[256];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "r");
	assert_non_null(f);
	*value = '\0';
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key)) && line[strlen(key)] == ':')
			snprintf(value, size, "%s", line + strlen(key) + 2);
	fclose(f);
}

static void has_only_what_it_needs(void **state)
{
	struct client *c = *state;
	char value[64], path[64];
	u32 count = 0;
	DIR *dir;

	status_line(c->share.process, "Seccomp", value, sizeof(value));
	assert_int_equal(atoi(value), 2);
	status_line(c->share.process, "NoNewPrivs", value, sizeof(value));
	assert_int_equal(atoi(value), 1);
	status_line(c->share.process, "CapEff", value, sizeof(value));
	/* DAC_READ_SEARCH; or DAC_OVERRIDE, FOWNER and FSETID */
	assert_int_equal(strtoull(value, NULL, 16) & ~0x1eull, 0);
	snprintf(path, sizeof(path), "/proc/%d/fd", c->share.process);
	dir = opendir(path);
	if (!dir) {
		print_message("skip: only root may look\n");
		skip();
	}
	while (readdir(dir))
		count++;
	closedir(dir);
	assert_int_equal(count, 2 + 5); /* socket, root, stderr, files, and the fid ROOT */
}

static bool gone(pid_t pid)
{
	char value[64];

	if (kill(pid, 0))
		return true;
	status_line(pid, "State", value, sizeof(value));
	return *value == 'Z' || *value == 'X';
}

/* Whatever ends the machine ends its server, also while that is busy. */
static void dies_with_the_machine(void **state)
{
	int ends[2], server, tries = 0;
	pid_t machine;

	(void)state;
	assert_int_equal(pipe(ends), 0);
	machine = fork();
	if (!machine) {
		struct client c = { .tag = 0 };

		serve(&c, "/", true, CONFIG_MAP_SQUASH);
		if (write(ends[1], &c.share.process, sizeof(server)) < 0)
			_exit(1);
		pause();
	}
	assert_int_equal(read(ends[0], &server, sizeof(server)), sizeof(server));
	assert_false(gone(server));
	/* a terminal's and a service manager's signals are not for it */
	kill(server, SIGINT);
	kill(server, SIGTERM);
	kill(server, SIGHUP);
	usleep(50000);
	assert_false(gone(server));
	kill(machine, SIGKILL);
	waitpid(machine, NULL, 0);
	while (!gone(server) && tries++ < 1000)
		usleep(10000);
	assert_true(gone(server));
	close(ends[0]);
	close(ends[1]);
}

#define test(name, setup) cmocka_unit_test_setup_teardown(name, setup, down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(refuses_names_that_are_none, up),
		test(follows_no_links, up),
		test(follows_no_links, up_mapped),
		test(opens_no_fifos_sockets_and_devices, up),
		cmocka_unit_test(shares_one_mount),
		cmocka_unit_test(refuses_to_share_the_kernel),
		test(wins_races, up),
		test(stays_in_what_moved_away, up),
		test(answers_every_length, up),
		test(answers_every_length, up_ro),
		test(survives_nonsense, up),
		test(survives_nonsense, up_ro),
		test(survives_nonsense, up_mapped),
		test(ends_at_sizes_that_are_none, up),
		test(takes_any_pieces, up),
		test(runs_out_of_descriptors, up),
		test(has_only_what_it_needs, up),
		test(has_only_what_it_needs, up_ro),
		cmocka_unit_test(dies_with_the_machine),
	};

	umask(022);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
