/* tsan
 * gdb's remote protocol on vCPUs whose threads are real and whose KVM is of paper: it keeps what it
 * is asked for, "runs" until it is called out, steps by a byte, and stops where a test says.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "machine/gdb.h"
#include "machine/machine.h"
#include "vm/bus.h"
#include "vm/cpuid.h"
#include "vm/log.h"
#include "vm/vcpu.h"

#define CPUS   2u
#define RUN    4096u
#define KERNEL 0xffffffff80000000ull /* mapped to physical 0, but for a page without anything */
#define HOLE   (KERNEL + 0x5000)
#define TABLES 0x2000000ull
#define STEP   BIT64(14) /* DR6 */
#define PAPER  1000	 /* the descriptor of the VM and of /dev/kvm */

/* ---- KVM ---- */

struct paper {
	int fd; /* of the run page */
	struct kvm_run *run;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	u8 xsave[4096];
	u64 msr;
	struct kvm_guest_debug debug;
	u32 injected, entered;
	bool inside;
	struct kvm_debug_exit_arch exit; /* the next, if exception is set */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct paper papers[CPUS];
static u32 made;

static struct paper *find_paper(int fd)
{
	for (u32 i = 0; i < made; i++)
		if (papers[i].fd == fd)
			return &papers[i];
	return NULL;
}

static bool called_out(const struct paper *p)
{
	return __atomic_load_n(&p->run->immediate_exit, __ATOMIC_SEQ_CST);
}

/* With lock held. */
static bool stops(struct paper *p)
{
	if (p->exit.exception) {
		p->run->debug.arch = p->exit;
		p->exit.exception = 0;
	} else if (p->debug.control & KVM_GUESTDBG_SINGLESTEP) {
		p->regs.rip++;
		p->run->debug.arch = (struct kvm_debug_exit_arch){ .exception = 1,
								   .pc = p->regs.rip,
								   .dr6 = STEP };
	} else {
		return false;
	}
	p->run->exit_reason = KVM_EXIT_DEBUG;
	return true;
}

static int paper_run(struct paper *p)
{
	pthread_mutex_lock(&lock);
	p->entered++;
	p->inside = true;
	for (;;) {
		bool hit = stops(p);

		if (hit || called_out(p)) {
			p->inside = false;
			pthread_mutex_unlock(&lock);
			errno = EINTR;
			return hit ? 0 : -1;
		}
		pthread_mutex_unlock(&lock);
		usleep(100);
		pthread_mutex_lock(&lock);
	}
}

static int paper_vcpu(struct paper *p, unsigned long request, void *arg)
{
	struct kvm_msrs *msrs = arg;

	switch (request) {
	case KVM_GET_REGS:
		*(struct kvm_regs *)arg = p->regs;
		return 0;
	case KVM_SET_REGS:
		p->regs = *(struct kvm_regs *)arg;
		return 0;
	case KVM_GET_SREGS:
		*(struct kvm_sregs *)arg = p->sregs;
		return 0;
	case KVM_SET_SREGS:
		errno = EINVAL;
		if (((struct kvm_sregs *)arg)->cr4 & BIT64(63))
			return -1;
		p->sregs = *(struct kvm_sregs *)arg;
		return 0;
	case KVM_GET_XSAVE:
		memcpy(arg, p->xsave, sizeof(p->xsave));
		return 0;
	case KVM_SET_XSAVE:
		memcpy(p->xsave, arg, sizeof(p->xsave));
		return 0;
	case KVM_GET_MSRS:
		msrs->entries[0].data = p->msr;
		return msrs->nmsrs == 1;
	case KVM_SET_MSRS:
		p->msr = msrs->entries[0].data;
		return 1;
	case KVM_SET_GUEST_DEBUG:
		p->debug = *(struct kvm_guest_debug *)arg;
		p->injected += !!(p->debug.control & KVM_GUESTDBG_INJECT_BP);
		return 0;
	case KVM_RUN:
		break;
	}
	return 0;
}

/* Instead of the C library's. */
int ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	struct paper *p;
	void *arg;
	int ret;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (fd == PAPER && request == KVM_CREATE_VCPU) {
		p = &papers[made++];
		p->fd = memfd_create("vcpu", MFD_CLOEXEC);
		if (ftruncate(p->fd, RUN))
			abort();
		p->run = mmap(NULL, RUN, PROT_READ | PROT_WRITE, MAP_SHARED, p->fd, 0);
		return p->fd;
	}
	if (fd == PAPER)
		return request == KVM_CHECK_EXTENSION && arg == (void *)KVM_CAP_SET_GUEST_DEBUG2
			       ? (int)KVM_GUESTDBG_BLOCKIRQ
			       : 0;
	p = find_paper(fd);
	if (!p)
		return (int)syscall(SYS_ioctl, fd, request, arg);
	if (request == KVM_RUN)
		return paper_run(p);
	pthread_mutex_lock(&lock);
	ret = paper_vcpu(p, request, arg);
	pthread_mutex_unlock(&lock);
	return ret;
}

/* ---- the machine ---- */

static struct machine m;
static struct config config;
static char path[64];
static int fd; /* a client's */
static u64 tables;

static void exits(void *owner, u32 index, const struct kvm_debug_exit_arch *exit)
{
	(void)owner;
	gdb_exit(m.gdb, index, exit);
}

/* The kernel's address by 4 KiB pages, and itself by ones of 2 MiB. */
static void map(u64 at, u64 address, u32 level, u64 to, u64 flags)
{
	for (u32 n = 4; n > level; n--) {
		u8 *entry = memory_at(&m.memory, at + 8 * (address >> (12 + 9 * (n - 1)) & 511), 8);

		if (!le64_load(entry))
			le64_store(entry, (tables += 0x1000) | 3);
		at = le64_load(entry) & ~0xfffull;
	}
	le64_store(memory_at(&m.memory, at + 8 * (address >> (12 + 9 * (level - 1)) & 511), 8),
		   to | flags);
}

static void map_all(void)
{
	tables = TABLES;
	for (u64 at = 0; at < MIB(2); at += 0x1000)
		if (KERNEL + at != HOLE)
			map(TABLES, KERNEL + at, 1, at, BIT64(63) | 7);
	for (u64 at = 0; at < MIB(64); at += MIB(2))
		map(TABLES, at, 2, at, 0x83);
	map(TABLES, GIB(1), 3, 0, 0x83);
	map(TABLES, GIB(2), 1, MIB(600), 3); /* no RAM */
	map(TABLES, GIB(3), 2, MIB(600), 3); /* no table */
	for (u32 i = 0; i < CPUS; i++) {
		papers[i].sregs.cr0 = BIT64(31) | 1;
		papers[i].sregs.cr3 = TABLES | 1; /* PCID */
		papers[i].sregs.efer = 0xd01;
	}
}

static void up_with(bool wait)
{
	struct vcpus_config c = { .count = CPUS,
				  .sockets = 1,
				  .cores = CPUS,
				  .threads = 1,
				  .kvm = &m.kvm,
				  .end = &m.end,
				  .debug = exits };

	memset(papers, 0, sizeof(papers));
	made = 0;
	memset(&m, 0, sizeof(m));
	config = (struct config){ .cpus = CPUS };
	m.config = &config;
	m.kvm = (struct kvm){ .fd = PAPER, .vm = PAPER, .run_size = RUN, .physical_bits = 40 };
	m.kvm.cpuid = cpuid_alloc();
	assert_int_equal(end_init(&m.end), 0);
	assert_int_equal(memory_create(&m.memory, NULL, MIB(64), MEMORY_PAGES_DEFAULT), 0);
	map_all();
	assert_int_equal(bus_create(&m.bus, NULL), 0);
	c.bus = m.bus;
	assert_int_equal(vcpus_create(&m.vcpus, &c), 0);
	snprintf(path, sizeof(path), "/tmp/vmm-gdb-%d", (int)getpid());
	assert_int_equal(gdb_create(&m.gdb, &m, path, wait), 0);
	assert_int_equal(vcpus_start(m.vcpus), 0);
	vcpus_resume(m.vcpus);
	fd = -1;
}

static int up(void **state)
{
	(void)state;
	up_with(false);
	return 0;
}

static int down(void **state)
{
	(void)state;
	if (fd >= 0)
		close(fd);
	vcpus_destroy(m.vcpus);
	gdb_destroy(m.gdb);
	bus_destroy(m.bus);
	memory_destroy(&m.memory);
	close(m.end.fd);
	free(m.kvm.cpuid);
	for (u32 i = 0; i < CPUS; i++)
		munmap(papers[i].run, RUN);
	unlink(path);
	return 0;
}

static void turn(void)
{
	struct pollfd fds[GDB_POLLS];

	gdb_prepare(m.gdb, fds);
	poll(fds, GDB_POLLS, 0);
	gdb_run(m.gdb, fds);
}

static int client(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	strcpy(address.sun_path, path);
	assert_int_equal(connect(s, (struct sockaddr *)&address, sizeof(address)), 0);
	turn();
	return s;
}

static u32 inside(void)
{
	u32 n = 0;

	pthread_mutex_lock(&lock);
	for (u32 i = 0; i < CPUS; i++)
		n += papers[i].inside;
	pthread_mutex_unlock(&lock);
	return n;
}

/* So many vCPUs are in the guest, or will soon be. */
static void expect_inside(u32 n)
{
	for (u32 i = 0; i < 20000 && inside() != n; i++)
		usleep(100);
	assert_int_equal(inside(), n);
}

static void stop_by(u32 cpu, u32 exception, u64 pc, u64 dr6)
{
	pthread_mutex_lock(&lock);
	papers[cpu].exit =
		(struct kvm_debug_exit_arch){ .exception = exception, .pc = pc, .dr6 = dr6 };
	pthread_mutex_unlock(&lock);
}

/* ---- packets ---- */

static void send_bytes(const void *bytes, size_t length)
{
	const u8 *at = bytes;

	for (u32 n = 0; length && n < 1000; n++) {
		ssize_t sent = send(fd, at, length, MSG_NOSIGNAL);

		if (sent > 0) {
			at += sent;
			length -= (size_t)sent;
		} else if (errno != EAGAIN) {
			return;
		}
		turn();
	}
}

static void send_packet(const void *bytes, size_t length)
{
	char end[4];
	u8 sum = 0;

	for (size_t i = 0; i < length; i++)
		sum += ((const u8 *)bytes)[i];
	snprintf(end, sizeof(end), "#%02x", sum);
	send_bytes("$", 1);
	send_bytes(bytes, length);
	send_bytes(end, 3);
}

/* The next packet's letters, its sum verified; NULL: none comes; "-" for a refusal, "" too for a
 * hang-up with hung set. */
static bool hung;
static char heard[8192];

static const char *hear(void)
{
	size_t length = 0;
	u8 sum = 0;
	char c;

	for (u32 n = 0; n < 3000;) {
		ssize_t got = recv(fd, &c, 1, 0);

		if (!got || (got < 0 && errno != EAGAIN)) {
			hung = true;
			return "";
		}
		if (got < 0) {
			turn();
			usleep(1000);
			n++;
			continue;
		}
		if (!length && c == '-')
			return "-";
		if (!length && c != '$')
			continue;
		heard[length++] = c;
		assert_true(length < sizeof(heard));
		if (length > 3 && heard[length - 3] == '#')
			break;
	}
	if (!length)
		return NULL;
	heard[length] = '\0';
	for (size_t i = 1; i < length - 3; i++)
		sum += (u8)heard[i];
	assert_int_equal(strtoul(heard + length - 2, NULL, 16), sum);
	heard[length - 3] = '\0';
	return heard + 1;
}

static const char *ask(const char *packet)
{
	send_packet(packet, strlen(packet));
	return hear();
}

static void expect(const char *packet, const char *answer)
{
	const char *got = ask(packet);

	if (!got || strcmp(got, answer))
		fail_msg("%s: the answer is %s, not %s", packet, got ? got : "none", answer);
}

static void expect_stop(const char *answer)
{
	const char *got = hear();

	if (!got || strcmp(got, answer))
		fail_msg("stopped by %s, not %s", got ? got : "nothing", answer);
	expect_inside(0);
}

static void attach(void)
{
	expect_inside(CPUS);
	fd = client();
	expect_inside(0);
	assert_non_null(strstr(ask("qSupported:swbreak+;hwbreak+"), "PacketSize=1000;"));
}

/* ---- tests ---- */

static void who_is_there(void **state)
{
	char xml[8192] = "", packet[64];
	struct stat st;
	size_t length = 0;
	u32 registers = 0;

	(void)state;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	attach();
	expect("?", "T05thread:1;");
	expect("qC", "QC1");
	expect("qfThreadInfo", "m1,2");
	expect("qsThreadInfo", "l");
	expect("qThreadExtraInfo,2", "764350552031");
	expect("T2", "OK");
	expect("T3", "E16");
	expect("Hg3", "E16");
	expect("Hg2", "OK");
	expect("Hc-1", "OK");
	expect("qC", "QC2");
	expect("qAttached", "1");
	expect("vCont?", "vCont;c;C;s;S");
	expect("vMustReplyEmpty", "");
	expect("qOffsets", "");
	expect("qRcmd,696e666f2076657273696f6e", "766d6d0a");
	assert_true(strlen(ask("qRcmd,78")) > 10);
	for (;;) {
		const char *got;

		snprintf(packet, sizeof(packet), "qXfer:features:read:target.xml:%zx,100", length);
		got = ask(packet);
		assert_true(strlen(got) <= 0x101);
		strcpy(xml + length, got + 1);
		length += strlen(got + 1);
		if (*got == 'l')
			break;
		assert_int_equal(*got, 'm');
	}
	assert_true(length > 1000);
	expect("qXfer:features:read:target.xml:ffffffff,100", "l");
	for (const char *at = xml; (at = strstr(at, "<reg ")); at++)
		registers++;
	/* each has a place, and they fill the packet g */
	for (u32 n = 0, end = 0, offset, size; n <= registers; n++) {
		if (n == registers) {
			assert_int_equal(end, sizeof(struct gdb_registers));
			assert_false(gdb_register_place(n, &offset, &size));
		} else {
			assert_true(gdb_register_place(n, &offset, &size));
			assert_int_equal(offset, end);
			end += size;
		}
	}
	assert_int_equal(strlen(ask("g")), 2 * sizeof(struct gdb_registers));
	expect("QStartNoAckMode", "OK");
	expect("qC", "QC2");
}

static void registers_are_read_and_written(void **state)
{
	char packet[3000], value[64];
	struct gdb_registers r;

	(void)state;
	attach();
	papers[0].regs.rbp = 0x1122334455667788;
	papers[0].regs.r15 = 15;
	papers[0].regs.rip = KERNEL + 0x1234;
	papers[0].sregs.ss.selector = 0x18;
	papers[0].sregs.gs.base = 0xffff888000000000;
	papers[0].sregs.efer = 0xd01;
	/* as FXSAVE has it */
	papers[0].xsave[4] = 0x80;
	papers[0].xsave[32 + 7 * 16 + 9] = 0x3f;
	le32_store(papers[0].xsave + 24, 0x1f80);
	papers[0].msr = 0x77;
	expect("p6", "8877665544332211");
	expect("pf", "0f00000000000000");
	expect("p10", "3412008"
		      "0ffffffff");
	expect("p13", "18000000");
	expect("p1f", "0000000000000000003f");
	expect("p22", "ff3f0000");
	expect("p38", "801f0000");
	expect("p3a", "00000000"
		      "8088ffff");
	expect("p3b", "7700000000000000");
	expect("p41", "010d000000000000");
	expect("p42", "E16");
	expect("pffffffffffffffff", "E16");
	/* each is written, and nothing beside it */
	for (u32 n = 0, offset, size; gdb_register_place(n, &offset, &size); n++) {
		struct gdb_registers before, after;

		assert_int_equal(gdb_registers_load(papers[0].fd, &before), 0);
		memset(value, '5', 2 * size);
		value[2 * size] = '\0';
		snprintf(packet, sizeof(packet), "P%x=%s", n, value);
		/* selectors stay, and of the coprocessor what KVM keeps in less has less */
		if (n >= 18 && n < 24) {
			expect(packet, "E16");
			continue;
		}
		if (n >= 32 && n < 40)
			continue;
		expect(packet, "OK");
		snprintf(packet, sizeof(packet), "p%x", n);
		expect(packet, value);
		assert_int_equal(gdb_registers_load(papers[0].fd, &after), 0);
		memcpy((u8 *)&after + offset, (u8 *)&before + offset, size);
		assert_memory_equal(&after, &before, sizeof(after));
	}
	assert_int_equal(papers[0].regs.rsp, 0x5555555555555555);
	assert_int_equal(papers[0].regs.rbp, 0x5555555555555555);
	assert_int_equal(papers[0].sregs.cr8, 0x5555555555555555);
	assert_int_equal(papers[0].msr, 0x5555555555555555);
	expect("P20=7f030000", "OK");
	assert_int_equal(le16_load(papers[0].xsave), 0x37f);
	expect("P22=ffff0000", "OK");
	assert_int_equal(papers[0].xsave[4], 0);
	assert_int_equal(papers[0].xsave[512], 3);
	/* KVM says no */
	expect("P3f=0000000000000080", "E16");
	expect("P1=55", "E16");
	expect("P1=", "E16");
	/* all of the other vCPU */
	expect("Hg2", "OK");
	assert_int_equal(gdb_registers_load(papers[1].fd, &r), 0);
	r.general[3] = 0x99;
	*packet = 'G';
	for (size_t i = 0; i < sizeof(r); i++)
		sprintf(packet + 1 + 2 * i, "%02x", ((u8 *)&r)[i]);
	expect(packet, "OK");
	assert_int_equal(papers[1].regs.rdx, 0x99);
	packet[1000] = '\0';
	expect(packet, "E16");
}

static void memory_is_read_and_written(void **state)
{
	u8 *ram = memory_at(&m.memory, 0, MIB(64));

	(void)state;
	attach();
	memcpy(ram + 0x1ffe, "abcd", 4);
	expect("mffffffff80001ffe,4", "61626364");
	expect("m1ffe,4", "61626364");
	expect("m5000,0", "");
	/* up to what is mapped, and none of what is not */
	memcpy(ram + 0x4ffe, "yz", 2);
	expect("mffffffff80004ffe,4", "797a");
	expect("mffffffff80005000,4", "E0e");
	expect("m3fffffe,4", "0000");
	expect("m4000000,1", "E0e");
	expect("m8000000000000000,8", "E0e");
	expect("m800000000000,8", "E0e"); /* is no address */
	expect("m40001ffe,4", "61626364");
	expect("m43ffffff,1", "00");
	expect("m80000000,1", "E0e");
	expect("mc0000000,1", "E0e");
	/* physical, before paging */
	papers[0].sregs.cr0 = 1;
	expect("m1ffe,4", "61626364");
	expect("mffffffff80001ffe,4", "E0e");
	papers[0].sregs.cr0 |= BIT64(31);
	/* other tables: nothing is there, or in circles, or no RAM */
	papers[0].sregs.cr3 = 0x1000000;
	expect("m1ffe,4", "E0e");
	for (u32 i = 0; i < 512; i++)
		le64_store(ram + 0x1000000 + 8 * i, 0x1000003);
	expect("m0,8", "0300000100000000");
	papers[0].sregs.cr3 = ~0ull;
	expect("m1ffe,4", "E0e");
	papers[0].sregs.cr3 = TABLES;
	expect("mffffffffffffffff,8", "E0e");
	assert_int_equal(strlen(ask("m0,ffffffff")), GDB_PACKET);
	expect("Mffffffff80001ffe,4:31323334", "OK");
	assert_memory_equal(ram + 0x1ffe, "1234", 4);
	expect("M10,4:313233", "E16");
	expect("M10,4:31zz3334", "E16");
	expect("M10,ffffffffffffffff:31", "E16");
	expect("Mffffffff80005000,1:31", "E0e");
	send_packet("Xffffffff80001ffe,4:}\003}]\0a", 26);
	assert_string_equal(hear(), "OK");
	assert_memory_equal(ram + 0x1ffe, "#}\0a", 4);
	expect("X10,0:", "OK");
	expect("X10,2:a}", "OK");
	assert_memory_equal(ram + 0x10, "a}", 2);
	expect("X10,3:a", "E16");
}

static void breakpoints_are_kvms(void **state)
{
	u8 *ram = memory_at(&m.memory, 0, MIB(64));
	char packet[64];

	(void)state;
	attach();
	ram[0x1000] = 0x90;
	expect("Z0,ffffffff80001000,1", "OK");
	expect("Z0,ffffffff80001000,1", "OK");
	assert_int_equal(ram[0x1000], 0xcc);
	expect("z0,ffffffff80001000,1", "OK");
	assert_int_equal(ram[0x1000], 0x90);
	expect("z0,ffffffff80001000,1", "OK");
	expect("Z0,ffffffff80005000,1", "E0e");
	for (u32 i = 0; i <= DEBUG_SOFT; i++) {
		snprintf(packet, sizeof(packet), "Z0,%x,1", 0x2000 + i);
		expect(packet, i < DEBUG_SOFT ? "OK" : "E1c");
	}
	for (u32 i = 0; i < DEBUG_SOFT; i++) {
		snprintf(packet, sizeof(packet), "z0,%x,1", 0x2000 + i);
		expect(packet, "OK");
	}
	expect("Z1,123,1", "OK");
	expect("Z2,1004,4", "OK");
	expect("Z3,1008,8", "OK");
	expect("Z4,100e,2", "OK");
	expect("Z4,100e,2", "OK");
	expect("Z2,1000,1", "E1c");
	expect("z4,100e,2", "OK");
	expect("Z2,1000,3", "E16");
	expect("Z2,1002,4", "E16");
	expect("Z2,1000,10", "E16");
	expect("Z2,1000,0", "E16");
	expect("Z2,1000,100000001", "E16");
	expect("Z5,1000,1", "");
	send_packet("vCont;c", 7);
	expect_inside(CPUS);
	for (u32 i = 0; i < CPUS; i++) {
		const struct kvm_guest_debug *g = &papers[i].debug;

		assert_int_equal(g->control, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP);
		assert_int_equal(g->arch.debugreg[3], 0x123);
		assert_int_equal(g->arch.debugreg[2], 0x1004);
		assert_int_equal(g->arch.debugreg[1], 0x1008);
		/* from register 3 on: execute, write 4, access 8; each on for good */
		assert_int_equal(g->arch.debugreg[7], 0x0db00600 | 0xa8);
	}
	stop_by(1, 1, 0x4444, BIT64(2));
	expect_stop("T05thread:2;watch:1004;");
	send_packet("vCont;c", 7);
	stop_by(0, 1, 0x4444, BIT64(1));
	expect_stop("T05thread:1;rwatch:1008;");
	send_packet("vCont;c", 7);
	stop_by(0, 1, 0x123, BIT64(3));
	expect_stop("T05thread:1;hwbreak:;");
	/* who has none has no control either */
	expect("z1,123,1", "OK");
	expect("z2,1004,4", "OK");
	expect("z3,1008,8", "OK");
	send_packet("c", 1);
	expect_inside(CPUS);
	assert_int_equal(papers[0].debug.control, 0);
}

static u32 injected(u32 cpu)
{
	u32 n;

	pthread_mutex_lock(&lock);
	n = papers[cpu].injected;
	pthread_mutex_unlock(&lock);
	return n;
}

static void int3_is_gdbs_or_the_guests(void **state)
{
	u8 *ram = memory_at(&m.memory, 0, MIB(64));

	(void)state;
	attach();
	expect("Z0,ffffffff80001000,1", "OK");
	send_packet("vCont;c", 7);
	expect_inside(CPUS);
	stop_by(1, 3, KERNEL + 0x1001, 0);
	for (u32 i = 0; i < 20000 && !injected(1); i++)
		usleep(100);
	expect_inside(CPUS);
	assert_int_equal(injected(1), 1);
	assert_int_equal(injected(0), 0);
	stop_by(1, 3, KERNEL + 0x1000, 0);
	expect_stop("T05thread:2;swbreak:;");
	expect("qC", "QC2");
	/* what the guest puts there stays */
	ram[0x1000] = 0xc3;
	expect("z0,ffffffff80001000,1", "OK");
	assert_int_equal(ram[0x1000], 0xc3);
}

static void one_steps_and_others_stay(void **state)
{
	u32 entered;

	(void)state;
	attach();
	papers[0].regs.rip = 0x1000;
	entered = papers[1].entered;
	send_packet("vCont;s:1", 9);
	expect_stop("T05thread:1;");
	assert_int_equal(papers[0].regs.rip, 0x1001);
	assert_int_equal(papers[1].entered, entered);
	assert_int_equal(papers[0].debug.control,
			 KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_BLOCKIRQ);
	send_packet("vCont;S05:2;c", 13);
	expect_stop("T05thread:2;");
	assert_int_equal(papers[0].debug.control, 0);
	expect("Hg1", "OK");
	send_packet("s", 1);
	expect_stop("T05thread:1;");
	assert_int_equal(papers[0].regs.rip, 0x1002);
	expect("vCont;c:3", "E16");
	expect("vCont;t", "E16");
	expect("vCont;", "E16");
	expect("vCont", "E16");
	/* one goes, the other does not */
	send_packet("vCont;c:2", 9);
	expect_inside(1);
	send_bytes("\003", 1);
	expect_stop("T02thread:1;");
}

/* Two at one time: neither is lost. */
static void each_hit_is_told(void **state)
{
	const char *first;

	(void)state;
	attach();
	expect("Z2,1000,8", "OK");
	pthread_mutex_lock(&lock);
	for (u32 i = 0; i < CPUS; i++)
		papers[i].exit = (struct kvm_debug_exit_arch){ .exception = 1, .dr6 = BIT64(3) };
	pthread_mutex_unlock(&lock);
	send_packet("vCont;c", 7);
	first = hear();
	assert_non_null(first);
	if (!strcmp(first, "T05thread:1;watch:1000;")) {
		send_packet("vCont;c", 7);
		expect_stop("T05thread:2;watch:1000;");
	} else {
		assert_string_equal(first, "T05thread:2;watch:1000;");
		send_packet("vCont;c", 7);
		expect_stop("T05thread:1;watch:1000;");
	}
	send_packet("vCont;c", 7);
	expect_inside(CPUS);
}

static void whatever_comes_stops_it(void **state)
{
	(void)state;
	attach();
	expect("qC", "QC1");
	send_packet("c", 1);
	expect_inside(CPUS);
	send_bytes("\003", 1);
	expect_stop("T02thread:1;");
	send_bytes("\003", 1); /* too late: it stands */
	expect("qC", "QC1");
	send_packet("c", 1);
	expect_inside(CPUS);
	send_packet("qC", 2);
	expect_stop("T02thread:1;");
	assert_string_equal(hear(), "QC1");
}

static void who_goes_leaves_nothing(void **state)
{
	u8 *ram = memory_at(&m.memory, 0, MIB(64));
	int second;
	char c;

	(void)state;
	attach();
	ram[0x1000] = 0x90;
	expect("Z0,1000,1", "OK");
	expect("Z1,2000,1", "OK");
	second = client();
	turn();
	assert_int_equal(recv(second, &c, 1, 0), 0);
	close(second);
	expect_inside(0);
	close(fd);
	turn();
	expect_inside(CPUS);
	assert_int_equal(ram[0x1000], 0x90);
	assert_int_equal(papers[0].debug.control, 0);
	/* in the middle of a packet, of a run */
	fd = client();
	send_bytes("$m1000,", 7);
	close(fd);
	turn();
	expect_inside(CPUS);
	attach();
	expect("Z0,1000,1", "OK");
	send_packet("c", 1);
	close(fd);
	turn();
	expect_inside(CPUS);
	assert_int_equal(ram[0x1000], 0x90);
	attach();
	expect("Z0,1000,1", "OK");
	expect("D", "OK");
	expect_inside(CPUS);
	assert_int_equal(ram[0x1000], 0x90);
	close(fd);
	turn();
	/* pauses of others do not let go who is held */
	attach();
	vcpus_pause(m.vcpus);
	vcpus_continue(m.vcpus);
	vcpus_pause(m.vcpus);
	vcpus_resume(m.vcpus);
	usleep(20000);
	assert_int_equal(inside(), 0);
	send_packet("c", 1);
	vcpus_pause(m.vcpus);
	expect_inside(0);
	vcpus_resume(m.vcpus);
	expect_inside(CPUS);
	gdb_ended(m.gdb, 7);
	assert_string_equal(hear(), "W07");
}

static void kill_ends_it(void **state)
{
	(void)state;
	attach();
	send_packet("k", 1);
	assert_int_equal(end_reason(&m.end, NULL), END_QUIT);
	end_clear(&m.end);
	expect("vKill;1", "OK");
	assert_int_equal(end_reason(&m.end, NULL), END_QUIT);
}

static void it_waits_if_asked(void **state)
{
	(void)state;
	up_with(true);
	usleep(20000);
	assert_int_equal(inside(), 0);
	fd = client();
	expect("?", "T05thread:1;");
	send_packet("c", 1);
	expect_inside(CPUS);
	/* a restart takes int3 with it */
	send_bytes("\003", 1);
	expect_stop("T02thread:1;");
	expect("Z0,1000,1", "OK");
	memory_clear(&m.memory);
	gdb_restarted(m.gdb);
	expect("z0,1000,1", "OK");
	assert_int_equal(*(u8 *)memory_at(&m.memory, 0x1000, 1), 0);
}

static const char *const odd[] = {
	"",
	"m",
	"m,",
	"m0",
	"mzz,4",
	"M",
	"M0",
	"M0,1",
	"M0,1:",
	"M0,1:3",
	"X",
	"X0",
	"X0,1",
	"X0,1:",
	"X0,1:}",
	"p",
	"pzz",
	"P",
	"P0",
	"P0=",
	"P0=zz",
	"G",
	"Gzz",
	"H",
	"Hg",
	"Hgzz",
	"T",
	"Tzz",
	"T-2",
	"Z",
	"Z0",
	"Z0,",
	"Z2,0,",
	"z",
	"zz",
	"Z9,0",
	"vCont;x",
	"vCont;c:",
	"vCont;c:zz",
	"vConts",
	"v",
	"q",
	"Q",
	"qRcmd,",
	"qRcmd,zz",
	"qRcmd,6",
	"qRcmd,0000",
	"qXfer:features:read:target.xml:",
	"qXfer:features:read:other.xml:0,10",
	"qXfer:memory-map:read::0,10",
	"qThreadExtraInfo,",
	"qThreadExtraInfo,ff",
	"\177",
	"!",
	"R00",
	"%s%n",
	"m0,1%n",
	"Hg-1",
	"Hg0",
};

static void odd_packets_are_answered(void **state)
{
	(void)state;
	attach();
	for (size_t i = 0; i < ARRAY_SIZE(odd); i++) {
		const char *got = ask(odd[i]);

		if (!got)
			fail_msg("no answer to %s", odd[i]);
	}
	assert_false(hung);
	expect("Hg1", "OK");
	/* sums */
	send_bytes("$qC#00", 6);
	assert_string_equal(hear(), "-");
	send_bytes("$qC#zz", 6);
	assert_string_equal(hear(), "-");
	send_bytes("-", 1); /* once more */
	assert_string_equal(hear(), "-");
	/* noise around, and one byte at a time */
	send_bytes("++abc#\001\377", 8);
	for (const char *at = "$qC#b4"; *at; at++)
		send_bytes(at, 1);
	assert_string_equal(hear(), "QC1");
	send_bytes("-", 1);
	assert_string_equal(hear(), "QC1");
}

static void too_much_is_hung_up_on(void **state)
{
	static char much[3 * GDB_PACKET];

	(void)state;
	attach();
	memset(much, 'm', sizeof(much));
	send_bytes("$", 1);
	send_bytes(much, sizeof(much));
	hung = false;
	while (!hung && hear())
		;
	assert_true(hung);
	expect_inside(CPUS);
	/* who sends and reads nothing keeps nobody from anything */
	close(fd);
	fd = client();
	for (u32 i = 0; i < 3000; i++) {
		if (send(fd, "$m0,800#8f", 10, MSG_NOSIGNAL) < 0)
			break;
		turn();
	}
	close(fd);
	fd = -1;
	for (u32 i = 0; i < 10; i++)
		turn();
	expect_inside(CPUS);
}

/* Good packets with some bytes changed, and their sums right. */
static void noise_does_no_harm(void **state)
{
	static const char *const good[] = { "m1000,40",
					    "M1000,4:01020304",
					    "X1000,4:abcd",
					    "p10",
					    "P10=0011223344556677",
					    "Z0,1000,1",
					    "z0,1000,1",
					    "Z2,1000,8",
					    "vCont;s:1;c",
					    "vCont;c:2",
					    "qRcmd,6e6d",
					    "Hg2",
					    "T1",
					    "qC",
					    "qXfer:features:read:target.xml:10,20",
					    "qSupported:swbreak+",
					    "g",
					    "?" };
	unsigned int seed = 5;

	(void)state;
	attach();
	for (u32 n = 0; n < 4000; n++) {
		char packet[64];
		const char *from = good[(u32)rand_r(&seed) % ARRAY_SIZE(good)];
		size_t length = strlen(from);

		memcpy(packet, from, length);
		for (int i = rand_r(&seed) % 3; i >= 0; i--) {
			char c = (char)rand_r(&seed);

			/* what begins and ends packets would be another test */
			if (c != '#' && c != '$')
				packet[(u32)rand_r(&seed) % length] = c;
		}
		if (*packet == 'k' || *packet == 'D')
			continue;
		send_packet(packet, length);
		while (recv(fd, heard, sizeof(heard), 0) > 0)
			;
	}
	close(fd);
	fd = -1;
	turn();
	expect_inside(CPUS);
	attach();
	expect("qfThreadInfo", "m1,2");
}

static void sockets_that_cannot_be(void **state)
{
	struct gdb *other;
	char said[256];

	(void)state;
	log_capture(said, sizeof(said));
	assert_true(gdb_create(&other, &m, path, false) < 0);
	assert_non_null(strstr(said, "another machine listens there"));
	log_capture(said, sizeof(said));
	assert_true(gdb_create(&other, &m, "/nowhere/gdb", false) < 0);
	assert_non_null(strstr(said, "--gdb /nowhere/gdb: No such file"));
	log_capture(NULL, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, up, down)
	const struct CMUnitTest tests[] = {
		TEST(who_is_there),
		TEST(registers_are_read_and_written),
		TEST(memory_is_read_and_written),
		TEST(breakpoints_are_kvms),
		TEST(int3_is_gdbs_or_the_guests),
		TEST(one_steps_and_others_stay),
		TEST(each_hit_is_told),
		TEST(whatever_comes_stops_it),
		TEST(who_goes_leaves_nothing),
		TEST(kill_ends_it),
		cmocka_unit_test_setup_teardown(it_waits_if_asked, NULL, down),
		TEST(odd_packets_are_answered),
		TEST(too_much_is_hung_up_on),
		TEST(noise_does_no_harm),
		TEST(sockets_that_cannot_be),
	};

	signal(SIGPIPE, SIG_IGN); /* as machine_session() has it */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
