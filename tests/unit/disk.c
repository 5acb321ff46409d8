/*
 * backends/disk.c, disk-format.c, disk-lock.c: real files, devices and programs. What a new user
 * gets wrong is answered by one line that says what to do.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "backends/disk.h"

static char folder[] = "/tmp/vmm-disk-XXXXXX";
static char said[8192]; /* the log lines of the last try() */

static const char *in_folder(const char *name)
{
	static char paths[8][128]; /* so many are good at one time */
	static unsigned int turn;
	char *path = paths[turn++ % 8];

	snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
	return path;
}

static const char *make_file(const char *name, u64 size, const void *bytes, size_t length, u64 at)
{
	const char *path = in_folder(name);
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	assert_int_equal(pwrite(fd, bytes, length, (off_t)at), (ssize_t)length);
	close(fd);
	return path;
}

static const char *make_image(const char *name, u64 size)
{
	return make_file(name, size, "", 0, 0);
}

/* disk_open with its log lines taken into said[]. */
static int try(struct disk *disk, const char *path, bool readonly, bool direct)
{
	const struct disk_config config = { .path = path, .readonly = readonly, .direct = direct };
	int file = memfd_create("said", 0);
	int err = dup(2), r;
	ssize_t n;

	assert_true(file >= 0 && err >= 0);
	dup2(file, 2);
	r = disk_open(disk, &config);
	dup2(err, 2);
	close(err);
	n = pread(file, said, sizeof(said) - 1, 0);
	said[n > 0 ? n : 0] = '\0';
	close(file);
	return r;
}

static int lines_said(void)
{
	int lines = 0;

	for (const char *c = said; *c; c++)
		lines += *c == '\n';
	return lines;
}

/* Refused, in one line, with these words in it. */
static void refused(const char *path, bool readonly, int error, const char *a, const char *b)
{
	struct disk disk;

	assert_int_equal(try(&disk, path, readonly, false), error);
	assert_int_equal(disk.fd, -1);
	assert_int_equal(lines_said(), 1);
	if (!strstr(said, a) || !strstr(said, b))
		fail_msg("\"%s\" lacks \"%s\" or \"%s\"", said, a, b);
}

static bool have(const char *program)
{
	char command[64];

	snprintf(command, sizeof(command), "command -v %s >/dev/null 2>&1", program);
	return system(command) == 0;
}

static int run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int run(const char *fmt, ...)
{
	char command[1024];
	va_list args;
	int n;

	va_start(args, fmt);
	n = snprintf(command, sizeof(command), "cd %s && { ", folder);
	n += vsnprintf(command + n, sizeof(command) - (size_t)n, fmt, args);
	snprintf(command + n, sizeof(command) - (size_t)n, "; } >/dev/null 2>&1");
	va_end(args);
	return system(command);
}

/* ---- what opens ---- */

static void test_plain_file(void **state)
{
	const char *path = make_image("plain", MIB(8));
	char identity[21];
	struct disk disk;

	(void)state;
	assert_int_equal(try(&disk, path, false, false), 0);
	assert_string_equal(said, "");
	assert_int_equal(disk.size, MIB(8));
	assert_int_equal(disk.sectors, MIB(8) / 512);
	assert_int_equal(disk.logical_block, 512);
	assert_true(disk.physical_block >= 512 && disk.discard_granularity >= 512);
	assert_int_equal(disk.alignment, 1);
	assert_int_equal(disk.memory_alignment, 1);
	assert_false(disk.block_device);
	/* blocking, or io_uring would fail what is not in the page cache */
	assert_int_equal(fcntl(disk.fd, F_GETFL) & (O_NONBLOCK | O_ACCMODE), O_RDWR);
	assert_int_equal(fcntl(disk.fd, F_GETFD), FD_CLOEXEC);
	assert_int_equal(strlen(disk.identity), 20);
	strcpy(identity, disk.identity);
	disk_close(&disk);

	/* the same file is the same disk, another is another */
	assert_int_equal(try(&disk, path, true, false), 0);
	assert_string_equal(disk.identity, identity);
	assert_false(disk.can_discard || disk.can_zero);
	assert_int_equal(fcntl(disk.fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	disk_close(&disk);
	assert_int_equal(try(&disk, make_image("other", MIB(8)), true, false), 0);
	assert_string_not_equal(disk.identity, identity);
	disk_close(&disk);
}

/* Finding out what the file system can do leaves the file as it was: content, size, blocks. */
static void test_probing_harms_nothing(void **state)
{
	static u8 bytes[KIB(64)], again[KIB(64)];
	struct stat before, after;
	const char *path;
	struct disk disk;
	int fd;

	(void)state;
	memset(bytes, 0x5a, sizeof(bytes));
	path = make_file("probed", sizeof(bytes) + 12345, bytes, sizeof(bytes), 0);
	assert_int_equal(run("sync probed"), 0);
	assert_int_equal(stat(path, &before), 0);
	assert_int_equal(try(&disk, path, false, false), 0);
	fsync(disk.fd);
	disk_close(&disk);
	assert_int_equal(stat(path, &after), 0);
	assert_int_equal(before.st_size, after.st_size);
	assert_int_equal(before.st_blocks, after.st_blocks);
	fd = open(path, O_RDONLY);
	assert_int_equal(read(fd, again, sizeof(again)), sizeof(again));
	close(fd);
	assert_memory_equal(bytes, again, sizeof(bytes));
}

static void test_odd_sizes(void **state)
{
	struct disk disk;

	(void)state;
	assert_int_equal(try(&disk, make_image("odd", 1000 * 512 + 100), false, false), 0);
	assert_int_equal(disk.sectors, 1000);
	assert_int_equal(lines_said(), 1);
	assert_non_null(strstr(said, "last 100 bytes"));
	assert_non_null(strstr(said, "truncate -s %512"));
	disk_close(&disk);
	refused(make_image("tiny", 511), false, -EINVAL, "smaller than one block", "truncate");
}

static void test_direct(void **state)
{
	struct disk disk;

	(void)state;
	/* an odd tail larger than a sector, smaller than a block of 4096 */
	if (try(&disk, make_image("direct", MIB(1) + 1024), false, true) != 0) {
		assert_int_equal(lines_said(), 1);
		assert_non_null(strstr(said, "leave out `direct=on`"));
		print_message("no O_DIRECT on /tmp\n");
		skip();
	}
	assert_true(fcntl(disk.fd, F_GETFL) & O_DIRECT);
	assert_true(disk.alignment >= 512 && disk.memory_alignment >= 1);
	assert_true(disk.logical_block >= disk.alignment);
	assert_int_equal(disk.sectors * 512 % disk.logical_block, 0);
	assert_true(disk.physical_block >= disk.logical_block);
	disk_close(&disk);
}

static void test_find_small_direct_block(void **state)
{
	struct disk disk;

	(void)state;
	/* proc has regular files whose file system knows no O_DIRECT */
	assert_true(try(&disk, "/proc/kallsyms", true, true) < 0);
	assert_int_equal(lines_said(), 1);
}

static void test_block_device(void **state)
{
	char device[64] = "";
	struct disk disk;
	FILE *pipe;
	int fd, held;

	(void)state;
	make_image("loop", MIB(4));
	if (geteuid() != 0 || !have("losetup")) {
		print_message("loop devices need root and losetup\n");
		skip();
	}
	setenv("IMAGE", in_folder("loop"), 1);
	pipe = popen("losetup -f --show -b 4096 $IMAGE 2>/dev/null", "r");
	if (!pipe || !fgets(device, sizeof(device), pipe) || pclose(pipe) != 0) {
		print_message("no loop device to be had\n");
		skip();
	}
	device[strcspn(device, "\n")] = '\0';
	/* goes with the last that has it open, whatever becomes of this test */
	held = open(device, O_RDONLY);
	assert_true(held >= 0);
	assert_int_equal(run("losetup -d %s", device), 0);
	assert_int_equal(try(&disk, device, false, false), 0);
	assert_true(disk.block_device);
	assert_int_equal(disk.size, MIB(4));
	assert_int_equal(disk.logical_block, 4096);
	assert_true(disk.can_zero);
	disk_close(&disk);
	assert_int_equal(try(&disk, device, false, true), 0);
	assert_int_equal(disk.alignment, 4096);
	disk_close(&disk);
	/* as a mount holds it */
	fd = open(device, O_RDWR | O_EXCL);
	assert_true(fd >= 0);
	refused(device, false, -EBUSY, "the host uses it", "`,ro`");
	assert_int_equal(try(&disk, device, true, false), 0);
	disk_close(&disk);
	close(fd);
	close(held);
}

/* ---- what a new user gets wrong ---- */

static void test_mistakes(void **state)
{
	(void)state;
	refused(in_folder("nowhere.img"), false, -ENOENT, "no such file", "truncate -s 8G");
	refused(folder, false, -EISDIR, "is a directory", "give an image file");
	refused(make_image("empty", 0), false, -EINVAL, "is empty", "truncate -s 8G");
	refused("/dev/null", false, -EINVAL, "a character device", "give an image file");
	/* must not wait for somebody at the other end */
	alarm(10);
	assert_int_equal(mkfifo(in_folder("fifo"), 0600), 0);
	refused(in_folder("fifo"), true, -EINVAL, "a fifo", "give an image file");
	alarm(0);
	assert_int_equal(symlink("loop-link", in_folder("loop-link")), 0);
	refused(in_folder("loop-link"), false, -ELOOP, "cannot be opened", "");
}

/* Runs fn in a child as nobody; its assertions are the child's status. */
static void as_nobody(void (*fn)(void))
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		if (setresgid(65534, 65534, 65534) != 0 || setresuid(65534, 65534, 65534) != 0)
			_exit(77);
		fn();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
		print_message("may not become nobody\n");
		skip();
	}
	assert_int_equal(status, 0);
}

/* try() without a file in the folder, which nobody cannot write: the lines go through a pipe. */
static int try_piped(const char *path, bool readonly)
{
	const struct disk_config config = { .path = path, .readonly = readonly };
	struct disk disk;
	int ends[2], r;
	ssize_t n;

	if (pipe(ends) != 0)
		return 1;
	dup2(ends[1], 2);
	r = disk_open(&disk, &config);
	if (write(ends[1], "", 1) != 1)
		return 1;
	n = read(ends[0], said, sizeof(said) - 1);
	said[n > 0 ? n : 0] = '\0';
	return r;
}

static void read_only_file(void)
{
	if (try_piped(in_folder("readable"), false) != -EACCES || !strstr(said, "add `,ro`"))
		_exit(1);
	if (try_piped(in_folder("readable"), true) != 0)
		_exit(2);
	if (try_piped(in_folder("secret"), true) != -EACCES || !strstr(said, "cannot be read") ||
	    strstr(said, ",ro"))
		_exit(3);
}

static void test_permissions(void **state)
{
	(void)state;
	if (geteuid() != 0) {
		print_message("needs root to become somebody else\n");
		skip();
	}
	make_image("readable", MIB(1));
	make_image("secret", MIB(1));
	assert_int_equal(chmod(in_folder("secret"), 0600), 0);
	assert_int_equal(chmod(folder, 0755), 0);
	as_nobody(read_only_file);
}

/* ---- foreign formats ---- */

static void test_signatures(void **state)
{
	static const struct {
		const char *bytes;
		u32 length, at;
		const char *name, *advice;
	} cases[] = {
#define CASE(bytes, at, name, advice) { bytes, sizeof(bytes) - 1, at, name, advice }
		CASE("QFI\xfb\0\0\0\3", 0, "qcow2 image", "qemu-img convert -O raw -f qcow2"),
		CASE("QFI\xfb\0\0\0\1", 0, "qcow image", "qemu-img convert -O raw -f qcow "),
		CASE("QED\0", 0, "QED", "-f qed"),
		CASE("KDMV", 0, "VMDK", "-f vmdk"),
		CASE("COWD", 0, "VMDK", "-f vmdk"),
		CASE("# Disk DescriptorFile", 0, "VMDK", "-f vmdk"),
		CASE("conectix", 0, "VHD", "-f vpc"),
		CASE("conectix", MIB(1) - 512, "VHD", "-f vpc"),
		CASE("conectix", MIB(1) - 511, "VHD", "-f vpc"),
		CASE("vhdxfile", 0, "VHDX", "-f vhdx"),
		CASE("\x7f\x10\xda\xbe", 64, "VDI", "-f vdi"),
		CASE("WithoutFreeSpace", 0, "Parallels", "-f parallels"),
		CASE("WithouFreSpacExt", 0, "Parallels", "-f parallels"),
		CASE("\x1f\x8b\x08", 0, "gzip", "gzip -dc"),
		CASE("\xfd"
		     "7zXZ\0",
		     0, "xz", "xz -dc"),
		CASE("\x28\xb5\x2f\xfd", 0, "zstd", "zstd -dc"),
		CASE("BZh91AY&SY", 0, "bzip2", "bzip2 -dc"),
		CASE("\x04\x22\x4d\x18", 0, "lz4", "lz4 -dc"),
		CASE("PK\3\4", 0, "zip", "unzip -p"),
#undef CASE
	};

	struct disk disk;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *path =
			make_file("image", MIB(1), cases[i].bytes, cases[i].length, cases[i].at);

		refused(path, false, -EMEDIUMTYPE, cases[i].name, cases[i].advice);
		refused(path, true, -EMEDIUMTYPE, cases[i].name, "/image.raw");
		/* without its last byte (of those with versions: the magic's) it is nothing special
		 */
		if ((u8)cases[i].bytes[cases[i].length - 1] > 3) {
			path = make_file("image", MIB(1), cases[i].bytes, cases[i].length - 1,
					 cases[i].at);
			assert_int_equal(try(&disk, path, false, false), 0);
			disk_close(&disk);
		}
	}
}

/* What raw disks really hold. */
static void test_raw_contents(void **state)
{
	static const struct {
		const char *bytes;
		u32 length, at;
	} cases[] = {
		{ "\x55\xaa", 2, 510 },		  /* MBR */
		{ "EFI PART", 8, 512 },		  /* GPT */
		{ "\1CD001", 6, 32768 },	  /* ISO 9660 */
		{ "\x53\xef", 2, 1080 },	  /* ext4 */
		{ "XFSB", 4, 0 },		  /* XFS */
		{ "LUKS\xba\xbe", 6, 0 },	  /* LUKS: the guest's secret */
		{ "QFI\xfb", 4, 512 },		  /* a qcow2 image in the guest's first partition */
		{ "conectix", 8, MIB(1) - 1024 }, /* ... */
	};
	struct disk disk;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *path =
			make_file("raw", MIB(1), cases[i].bytes, cases[i].length, cases[i].at);

		assert_int_equal(try(&disk, path, false, false), 0);
		assert_string_equal(said, "");
		disk_close(&disk);
	}
}

/* Real images: refused, and the line that is given really makes a disk of them. */
static void test_advice(void **state)
{
	static const struct {
		const char *needs, *make, *file, *raw;
	} cases[] = {
		{ "qemu-img", "qemu-img create -f qcow2 'a b.qcow2' 1M", "a b.qcow2", "a b.raw" },
		{ "qemu-img", "qemu-img create -f vmdk c.vmdk 1M", "c.vmdk", "c.raw" },
		{ "qemu-img", "qemu-img create -f vpc d.vhd 1M", "d.vhd", "d.raw" },
		{ "qemu-img", "qemu-img create -f vpc -o subformat=fixed e.vhd 1M", "e.vhd",
		  "e.raw" },
		{ "qemu-img", "qemu-img create -f vhdx f.vhdx 1M", "f.vhdx", "f.raw" },
		{ "qemu-img", "qemu-img create -f vdi g.vdi 1M", "g.vdi", "g.raw" },
		{ "qemu-img", "qemu-img create -f qed h.qed 1M", "h.qed", "h.raw" },
		{ "qemu-img", "qemu-img create -f parallels i.hdd 1M", "i.hdd", "i.raw" },
		{ "gzip", "truncate -s 1M j.img; gzip j.img", "j.img.gz", "j.img" },
		{ "xz", "truncate -s 1M k.img; xz k.img", "k.img.xz", "k.img" },
		{ "bzip2", "truncate -s 1M l.img; bzip2 l.img", "l.img.bz2", "l.img" },
		{ "zstd", "truncate -s 1M m.img; zstd --rm m.img", "m.img.zst", "m.img" },
		{ "lz4", "truncate -s 1M n.img; lz4 --rm n.img n.img.lz4", "n.img.lz4", "n.img" },
		{ "gzip", "truncate -s 1M \"o'\\\"o\"; gzip \"o'\\\"o\"; mv \"o'\\\"o.gz\" o\\'o",
		  "o'o", "o'o.raw" },
	};
	unsigned int tried = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *from, *to;
		struct disk disk;

		if (!have(cases[i].needs) || run("%s", cases[i].make) != 0) {
			print_message("cannot: %s\n", cases[i].make);
			continue;
		}
		refused(in_folder(cases[i].file), false, -EMEDIUMTYPE, "convert it: `", "");
		from = strchr(said, '`') + 1;
		to = strrchr(from, '`');
		*to = '\0';
		assert_int_equal(run("%s", from), 0);
		assert_int_equal(try(&disk, in_folder(cases[i].raw), false, false), 0);
		assert_true(disk.size >= MIB(1));
		disk_close(&disk);
		tried++;
	}
	if (!tried) {
		print_message("none of the programs that make such images is here\n");
		skip();
	}
}

/* ---- locks ---- */

static void test_one_writer_or_many_readers(void **state)
{
	const char *path = make_image("locked", MIB(1));
	struct disk a, b;

	(void)state;
	assert_int_equal(try(&a, path, false, false), 0);
	refused(path, false, -EBUSY, "given twice", "`,ro`");
	refused(path, true, -EBUSY, "given twice", "`,ro`");
	disk_close(&a);
	/* closing gave it back */
	assert_int_equal(try(&a, path, true, false), 0);
	assert_int_equal(try(&b, path, true, false), 0);
	refused(path, false, -EBUSY, "given twice", "");
	disk_close(&b);
	refused(path, false, -EBUSY, "given twice", "");
	disk_close(&a);
	assert_int_equal(try(&a, path, false, false), 0);
	disk_close(&a);
}

static void test_holder_is_named(void **state)
{
	const char *path = make_image("held", MIB(1));
	const struct disk_config config = { .path = path };
	int ready[2];
	char byte, who[64];
	struct disk disk;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(ready), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		prctl(PR_SET_NAME, "another-vmm");
		if (disk_open(&disk, &config) == 0 && write(ready[1], "", 1) == 1)
			pause();
		_exit(1);
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	snprintf(who, sizeof(who), "another-vmm (pid %d)", pid);
	refused(path, false, -EBUSY, who, "second writer");
	refused(path, true, -EBUSY, who, "for writing");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	/* its death gave it back */
	assert_int_equal(try(&disk, path, false, false), 0);
	disk_close(&disk);
	close(ready[0]);
	close(ready[1]);
}

static int ghost_socket; /* its queue holds an open file, and no process does */

static void *bury_ghost(void *arg)
{
	usleep(100000);
	close(ghost_socket);
	return arg;
}

/* A lock whose process is gone, but not yet its file: waited for. */
static void test_ghost_is_waited_for(void **state)
{
	const char *path = make_image("ghost", MIB(1));
	char control[CMSG_SPACE(sizeof(int))] = { 0 }, byte = 0;
	struct iovec iov = { &byte, 1 };
	struct msghdr message = { .msg_iov = &iov,
				  .msg_iovlen = 1,
				  .msg_control = control,
				  .msg_controllen = sizeof(control) };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	int sockets[2];
	pthread_t thread;
	struct disk disk;

	(void)state;
	assert_int_equal(try(&disk, path, false, false), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, sockets), 0);
	*header = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
	memcpy(CMSG_DATA(header), &disk.fd, sizeof(int));
	assert_int_equal(sendmsg(sockets[0], &message, 0), 1);
	close(sockets[0]);
	disk_close(&disk);
	ghost_socket = sockets[1];
	assert_int_equal(pthread_create(&thread, NULL, bury_ghost, NULL), 0);
	assert_int_equal(try(&disk, path, false, false), 0);
	assert_string_equal(said, "");
	pthread_join(thread, NULL);
	disk_close(&disk);
}

/* QEMU keeps us out, and we keep QEMU out. */
static void test_qemu(void **state)
{
	const char *path = make_image("shared", MIB(1));
	struct disk disk;
	pid_t pid;
	int tries, r;

	(void)state;
	if (!have("qemu-system-x86_64") || !have("qemu-img")) {
		print_message("no qemu-system-x86_64 here\n");
		skip();
	}
	assert_int_equal(try(&disk, path, false, false), 0);
	assert_int_not_equal(run("qemu-img resize -f raw shared 2M"), 0);
	/* not even a reader that relies on what it reads */
	assert_int_not_equal(run("timeout 5 qemu-system-x86_64 -accel tcg -S -display none "
				 "-nodefaults -drive file=shared,format=raw,if=virtio,readonly=on "
				 "2>log; ! grep -q \"lock\" log"),
			     0);
	disk_close(&disk);
	assert_int_equal(try(&disk, path, true, false), 0);
	assert_int_equal(run("qemu-img info shared"), 0);
	assert_int_not_equal(run("qemu-img resize -f raw shared 2M"), 0);
	disk_close(&disk);
	assert_int_equal(run("qemu-img resize -f raw shared 2M"), 0);

	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		char drive[160];
		int null = open("/dev/null", O_RDWR);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (int i = 0; i < 3; i++)
			dup2(null, i);
		snprintf(drive, sizeof(drive), "file=%s,format=raw,if=virtio", path);
		execlp("qemu-system-x86_64", "qemu-system-x86_64", "-accel", "tcg", "-S",
		       "-display", "none", "-nodefaults", "-drive", drive, NULL);
		_exit(1);
	}
	for (tries = 0, r = 0; tries < 200 && r == 0; tries++) {
		r = try(&disk, path, true, false);
		if (r == 0)
			disk_close(&disk);
		usleep(50000);
	}
	r = try(&disk, path, false, false);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	assert_int_equal(r, -EBUSY);
	assert_non_null(strstr(said, "qemu-system-x86 (pid "));
}

static int set_up(void **state)
{
	(void)state;
	return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain_file),
		cmocka_unit_test(test_probing_harms_nothing),
		cmocka_unit_test(test_odd_sizes),
		cmocka_unit_test(test_direct),
		cmocka_unit_test(test_find_small_direct_block),
		cmocka_unit_test(test_block_device),
		cmocka_unit_test(test_mistakes),
		cmocka_unit_test(test_permissions),
		cmocka_unit_test(test_signatures),
		cmocka_unit_test(test_raw_contents),
		cmocka_unit_test(test_advice),
		cmocka_unit_test(test_one_writer_or_many_readers),
		cmocka_unit_test(test_holder_is_named),
		cmocka_unit_test(test_ghost_is_waited_for),
		cmocka_unit_test(test_qemu),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
