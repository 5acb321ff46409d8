/* tsan: how block requests are carried out: flushes, ranges, O_DIRECT, and a host that fails. */
#include "tests/unit/blk-fixture.h"

static void test_flushes_share_a_sync(void **state)
{
	struct fixture *f = up(&(struct setting){ 0 });
	struct request r[64];
	u32 n;

	(void)state;
	assert_int_equal(simple(f, T_OUT, 0, 4096), S_OK);
	assert_int_equal(simple(f, T_FLUSH, 0, 0), S_OK);
	assert_int_equal(counts(f).syncs, 1);
	for (n = 0; n < ARRAY_SIZE(r); n++) {
		frame(f, &r[n], n & 1 ? T_FLUSH : T_FLUSH_OUT, n, 0, false);
		send(&f->rings[0], &r[n]);
	}
	driver_kick(&f->rings[0]);
	for (n = 0; n < ARRAY_SIZE(r); n++)
		driver_wait_used(&f->rings[0], NULL, NULL);
	for (n = 0; n < ARRAY_SIZE(r); n++)
		assert_int_equal(*r[n].status, S_OK);
	assert_int_equal(counts(f).flushes, 1 + ARRAY_SIZE(r));
	assert_int_equal(counts(f).syncs, 2);
	/* a flush of its own needs a sync of its own: earlier ones knew nothing of later writes */
	for (n = 0; n < 5; n++)
		assert_int_equal(simple(f, T_FLUSH, 0, 0), S_OK);
	assert_int_equal(counts(f).syncs, 7);
	down(f);
}

static void pretend_syncing(void *arg)
{
	((struct blk_queue *)arg)->syncing = true;
}

static void end_pretended_sync(void *arg)
{
	struct blk_queue *queue = arg;

	queue->sync.done(&queue->sync, 0);
}

/* What comes while a sync runs may not share it, as that one may have missed its writes: it waits
 * for the next, together. */
static void test_flush_during_a_sync(void **state)
{
	struct fixture *f = up(&(struct setting){ 0 });
	struct blk_queue *queue = &f->blk->queues[0];
	struct reactor *reactor = reactors_get(f->machine.reactors, 0);
	struct request r[3];

	(void)state;
	assert_int_equal(simple(f, T_FLUSH, 0, 0), S_OK);
	reactor_call(reactor, pretend_syncing, queue);
	for (u32 i = 0; i < 3; i++) {
		frame(f, &r[i], T_FLUSH, 0, 0, false);
		send(&f->rings[0], &r[i]);
		driver_kick(&f->rings[0]);
		driver_wait(look_at(f).in_flight == i + 1);
	}
	usleep(20000);
	assert_false(driver_used(&f->rings[0], NULL, NULL));
	assert_int_equal(counts(f).syncs, 1);
	reactor_call(reactor, end_pretended_sync, queue);
	for (u32 i = 0; i < 3; i++)
		driver_wait_used(&f->rings[0], NULL, NULL);
	assert_int_equal(counts(f).syncs, 2);
	down(f);
}

/* After a flush that failed on a buffered file the kernel may have dropped the data: no later flush
 * may claim that it is safe. With O_DIRECT nothing is dropped. */
static void failing_flush(bool direct, u8 later)
{
	struct fixture *f = up(&(struct setting){ 0 });
	reactor_file real = f->disk.file;
	int saved, file;

	f->disk.direct = direct;
	become_pipe(f); /* fsync of a pipe: EINVAL */
	take_stderr(&saved, &file);
	assert_int_equal(simple(f, T_FLUSH, 0, 0), S_IOERR);
	assert_int_equal(give_stderr(saved, file, "a flush failed"), direct ? 1 : 2);
	assert_int_equal(counts(f).errors, 1);
	f->disk.file = real;
	assert_int_equal(simple(f, T_FLUSH, 0, 0), later);
	driver_reset(f->device);
	begin(f, BIT64(F_FLUSH));
	assert_int_equal(simple(f, T_FLUSH, 0, 0), later);
	assert_int_equal(simple(f, T_IN, 0, 512), S_OK);
	down(f);
}

static void test_flush_failure_lasts(void **state)
{
	(void)state;
	failing_flush(false, S_IOERR);
	failing_flush(true, S_OK);
}

static void range(u8 *to, u64 sector, u32 sectors, u32 flags)
{
	le64_store(to, sector);
	le32_store(to + 8, sectors);
	le32_store(to + 12, flags);
}

static u8 one_range(struct fixture *f, u32 type, u64 sector, u32 sectors, u32 flags)
{
	struct request r;

	range(frame(f, &r, type, 0, 16, false), sector, sectors, flags);
	send(&f->rings[0], &r);
	driver_kick(&f->rings[0]);
	driver_wait_used(&f->rings[0], NULL, NULL);
	f->arena = ARENA;
	return *r.status;
}

/* Sectors [from, to) read as zero, all others as dirty() left them. */
static void assert_zero(struct fixture *f, u64 from, u64 to)
{
	static u8 bytes[IMAGE];

	assert_int_equal(pread(f->file, bytes, IMAGE, 0), IMAGE);
	for (u64 i = 0; i < IMAGE; i++)
		if (bytes[i] != (i >= from * 512 && i < to * 512 ? 0 : 0x5a))
			fail_msg("byte %llu is %#x", (unsigned long long)i, bytes[i]);
}

static s64 blocks(struct fixture *f)
{
	struct stat st;

	assert_int_equal(fsync(f->file), 0);
	assert_int_equal(fstat(f->file, &st), 0);
	return st.st_blocks;
}

static void test_discard(void **state)
{
	struct fixture *f = up(&(struct setting){ 0 });
	struct request r;
	u8 *data;
	s64 before;

	(void)state;
	if (!f->disk.can_discard) {
		down(f);
		print_message("the file system of /tmp cannot do it\n");
		skip();
	}
	assert_true(virtio_has(f->device, F_DISCARD));
	dirty(f);
	before = blocks(f);
	assert_int_equal(one_range(f, T_DISCARD, 1024, 2048, 0), S_OK);
	assert_true(blocks(f) <= before - 2048 + 64);
	assert_zero(f, 1024, 3072);
	/* the file keeps its size when the end goes */
	assert_int_equal(one_range(f, T_DISCARD, IMAGE / 512 - 8, 8, 0), S_OK);
	dirty(f);
	/* 5.2.6.2: unmap with DISCARD, unknown flags */
	assert_int_equal(one_range(f, T_DISCARD, 0, 8, 1), S_UNSUPP);
	assert_int_equal(one_range(f, T_DISCARD, 0, 8, 2), S_UNSUPP);
	assert_int_equal(one_range(f, T_DISCARD, 0, 8, 1u << 31), S_UNSUPP);
	/* beyond the end, wrapping around, longer than promised */
	assert_int_equal(one_range(f, T_DISCARD, IMAGE / 512, 1, 0), S_IOERR);
	assert_int_equal(one_range(f, T_DISCARD, IMAGE / 512 - 1, 2, 0), S_IOERR);
	assert_int_equal(one_range(f, T_DISCARD, UINT64_MAX, 2, 0), S_IOERR);
	assert_int_equal(one_range(f, T_DISCARD, UINT64_MAX / 512 + 1, 8, 0), S_IOERR);
	assert_int_equal(one_range(f, T_DISCARD, 0, UINT32_MAX, 0), S_IOERR);
	assert_int_equal(one_range(f, T_DISCARD, 0, 0, 0), S_OK);
	/* no range, half a range, more than promised */
	assert_int_equal(simple(f, T_DISCARD, 0, 0), S_IOERR);
	assert_int_equal(simple(f, T_DISCARD, 0, 15), S_IOERR);
	assert_int_equal(simple(f, T_DISCARD, 0, 24), S_IOERR);
	data = frame(f, &r, T_DISCARD, 0, 33 * 16, false);
	for (u32 i = 0; i < 33; i++)
		range(data + i * 16, i, 1, 0);
	expect(f, &r, S_IOERR, 1);
	/* a bad one among good ones: none is carried out */
	data = frame(f, &r, T_DISCARD, 0, 48, false);
	range(data, 0, 8, 0);
	range(data + 16, 8, 8, 0);
	range(data + 32, IMAGE / 512, 8, 0);
	expect(f, &r, S_IOERR, 1);
	assert_zero(f, 0, 0);
	/* as many as promised */
	assert_int_equal(config_read(f, C_DISCARD_SEG, 4), 32);
	data = frame(f, &r, T_DISCARD, 0, 32 * 16, false);
	for (u32 i = 0; i < 32; i++)
		range(data + i * 16, 8 * i, i == 5 ? 0 : 8, 0);
	range(data + 5 * 16, 40, 8, 0);
	expect(f, &r, S_OK, 1);
	assert_zero(f, 0, 256);
	assert_int_equal(lseek(f->file, 0, SEEK_END), IMAGE);
	down(f);
}

/* No range is longer than promised, on disks that are. */
static void test_longest_ranges(void **state)
{
	struct fixture *f = up(&(struct setting){ .image = GIB(3) });
	u32 discard = (u32)config_read(f, C_DISCARD_MAX, 4);
	u32 zeroes = (u32)config_read(f, C_ZEROES_MAX, 4);

	(void)state;
	if (f->disk.can_discard) {
		assert_int_equal(one_range(f, T_DISCARD, 8, discard, 0), S_OK);
		assert_int_equal(one_range(f, T_DISCARD, 8, discard + 1, 0), S_IOERR);
	}
	if (f->disk.can_zero) {
		assert_int_equal(one_range(f, T_ZEROES, 8, zeroes, 0), S_OK);
		assert_int_equal(one_range(f, T_ZEROES, 8, zeroes + 1, 1), S_IOERR);
	}
	assert_int_equal(counts(f).errors, 0);
	down(f);
}

static void test_write_zeroes(void **state)
{
	struct fixture *f = up(&(struct setting){ 0 });
	s64 before;

	(void)state;
	if (!f->disk.can_zero) {
		down(f);
		print_message("the file system of /tmp cannot do it\n");
		skip();
	}
	dirty(f);
	before = blocks(f);
	/* unmap clear: it stays allocated; set: it may go, and does */
	assert_int_equal(one_range(f, T_ZEROES, 1000, 2048, 0), S_OK);
	assert_zero(f, 1000, 3048);
	assert_true(blocks(f) >= before);
	assert_true(last_flags(f) == (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE));
	assert_int_equal(one_range(f, T_ZEROES, 3048, 2048, 1), S_OK);
	assert_zero(f, 1000, 5096);
	if (config_read(f, C_MAY_UNMAP, 1))
		assert_true(blocks(f) < before);
	assert_int_equal(one_range(f, T_ZEROES, 0, 8, 2), S_UNSUPP);
	assert_int_equal(one_range(f, T_ZEROES, 0, 8, 3), S_UNSUPP);
	assert_int_equal(one_range(f, T_ZEROES, IMAGE / 512 - 7, 8, 0), S_IOERR);
	assert_int_equal(one_range(f, T_ZEROES, 0, (u32)config_read(f, C_ZEROES_MAX, 4) + 1, 0),
			 S_IOERR);
	assert_zero(f, 1000, 5096);
	assert_int_equal(counts(f).syncs, 0);
	/* write-through holds for them too */
	config_write(f, C_WRITEBACK, 1, 0);
	assert_int_equal(one_range(f, T_ZEROES, 5096, 8, 0), S_OK);
	assert_int_equal(counts(f).syncs, 1);
	assert_zero(f, 1000, 5104);
	if (f->disk.can_discard) {
		assert_int_equal(one_range(f, T_DISCARD, 5104, 8, 0), S_OK);
		assert_int_equal(counts(f).syncs, 2);
	}
	down(f);
}

static void test_ranges_not_offered(void **state)
{
	struct fixture *f = up(&(struct setting){ .can_nothing = true });

	(void)state;
	assert_false(f->device->offered & (BIT64(F_DISCARD) | BIT64(F_ZEROES)));
	for (u32 offset = C_DISCARD_MAX; offset < C_END; offset++)
		assert_int_equal(config_read(f, offset, 1), 0);
	dirty(f);
	assert_int_equal(one_range(f, T_DISCARD, 0, 8, 0), S_UNSUPP);
	assert_int_equal(one_range(f, T_ZEROES, 0, 8, 0), S_UNSUPP);
	assert_zero(f, 0, 0);
	down(f);
}

/* More requests with unaligned buffers than there are bounce buffers, and longer ones. */
static void test_bounces(void **state)
{
	struct fixture *f = up(&(struct setting){ .direct = true });
	enum { REQUESTS = 12, LENGTH = 700 * 1024 };
	static u8 again[LENGTH];
	struct request r[REQUESTS];
	u8 *data[REQUESTS];

	(void)state;
	assert_int_equal(ftruncate(f->file, (off_t)REQUESTS * LENGTH), 0);
	f->disk.sectors = REQUESTS * LENGTH / 512;
	f->disk.size = (u64)REQUESTS * LENGTH;
	for (int round = 0; round < 2; round++) {
		for (u32 i = 0; i < REQUESTS; i++) {
			data[i] = frame(f, &r[i], round ? T_IN : T_OUT, i * (LENGTH / 512),
					LENGTH + 1, round);
			r[i].parts[1].at++;
			r[i].parts[1].length--;
			data[i]++;
			if (round)
				memset(data[i], 0, LENGTH);
			else
				fill(data[i], LENGTH, i);
			send(&f->rings[0], &r[i]);
		}
		driver_kick(&f->rings[0]);
		for (u32 i = 0; i < REQUESTS; i++)
			driver_wait_used(&f->rings[0], NULL, NULL);
		for (u32 i = 0; i < REQUESTS; i++) {
			assert_int_equal(*r[i].status, S_OK);
			fill(again, LENGTH, i);
			assert_memory_equal(data[i], again, LENGTH);
		}
		assert_int_equal(counts(f).bounced, (u32)(round + 1) * REQUESTS);
		f->arena = ARENA;
	}
	for (u32 i = 0; i < REQUESTS; i++) {
		assert_int_equal(pread(f->file, data[0], LENGTH, (off_t)i * LENGTH), LENGTH);
		fill(again, LENGTH, i);
		assert_memory_equal(data[0], again, LENGTH);
	}
	assert_int_equal(look_at(f).bounces, BLK_BOUNCES);
	/* aligned buffers take none */
	assert_int_equal(simple(f, T_IN, 0, 4096), S_OK);
	assert_int_equal(counts(f).bounced, 2 * REQUESTS);
	down(f);
}

/* blk_size says what can be done; a driver that does less gets an error and harms nothing. */
static void test_large_blocks(void **state)
{
	struct fixture *f = up(&(struct setting){ .direct = true, .alignment = 4096 });
	struct request r;
	u8 *data;

	(void)state;
	assert_int_equal(config_read(f, C_BLK_SIZE, 4), 4096);
	assert_int_equal(simple(f, T_OUT, 8, 4096), S_OK);
	assert_int_equal(simple(f, T_OUT, 1, 4096), S_IOERR);
	assert_int_equal(simple(f, T_OUT, 0, 512), S_IOERR);
	assert_int_equal(simple(f, T_IN, 0, 512), S_IOERR);
	/* buffers of 512 bytes that make up a block are bounced */
	memset(&r, 0, sizeof(r));
	header(part(f, &r, 16, false), T_IN, 8);
	data = part(f, &r, 512, true);
	for (int i = 1; i < 8; i++)
		part(f, &r, 512, true);
	r.status = part(f, &r, 1, true);
	expect(f, &r, S_OK, 4097);
	assert_int_equal(data[0], 0xa5);
	assert_int_equal(counts(f).bounced, 1);
	down(f);
}

/* A file cut short: what is gone is an error, and only what was read counts as written. */
static void test_file_cut_short(void **state)
{
	struct fixture *f = up(&(struct setting){ 0 });
	struct request r;
	int saved, file;
	u8 *data;

	(void)state;
	dirty(f);
	assert_int_equal(ftruncate(f->file, 5000), 0);
	take_stderr(&saved, &file);
	data = frame(f, &r, T_IN, 8, 8192, true);
	expect(f, &r, S_IOERR, 5000 - 4096);
	assert_int_equal(data[0], 0x5a);
	frame(f, &r, T_IN, 800, 512, true);
	expect(f, &r, S_IOERR, 0);
	assert_int_equal(give_stderr(saved, file, "cut short"), 1); /* one line, not two */
	assert_int_equal(counts(f).errors, 2);
	assert_int_equal(simple(f, T_IN, 0, 512), S_OK);
	down(f);
}

/* No room under the image: an error for the guest, one line for the user, and the machine lives. */
static void test_full_file_system(void **state)
{
	char small[160];
	struct fixture *f;
	int saved, file, failures = 0;

	(void)state;
	snprintf(small, sizeof(small), "%s/small", folder);
	mkdir(small, 0700);
	if (unshare(CLONE_NEWNS) != 0 || mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount("vmm-test", small, "tmpfs", 0, "size=1m") != 0) {
		print_message("may not mount a small tmpfs\n");
		skip();
	}
	f = up(&(struct setting){ .folder = small, .image = MIB(8) });
	take_stderr(&saved, &file);
	for (u64 i = 0; i < 8; i++)
		failures += simple(f, T_OUT, i * (MIB(1) / 512), (u32)KIB(512)) == S_IOERR;
	assert_int_equal(give_stderr(saved, file, "No space left"), 1);
	assert_in_range(failures, 5, 7);
	assert_int_equal(counts(f).errors, failures);
	assert_int_equal(simple(f, T_IN, 0, 4096), S_OK);
	assert_int_equal(simple(f, T_IN, MIB(7) / 512, 4096), S_OK); /* a hole */
	/* room again */
	if (f->disk.can_discard)
		assert_int_equal(one_range(f, T_DISCARD, 0, MIB(8) / 512, 0), S_OK);
	else
		assert_int_equal(ftruncate(f->file, 0) | ftruncate(f->file, MIB(8)), 0);
	assert_int_equal(simple(f, T_OUT, MIB(7) / 512, (u32)KIB(512)), S_OK);
	assert_int_equal(simple(f, T_FLUSH, 0, 0), S_OK);
	down(f);
	umount2(small, MNT_DETACH);
}

/* Data that comes in dribs and drabs is put together where it belongs. */
static void test_short_reads(void **state)
{
	struct fixture *f = up(&(struct setting){ 0 });
	static u8 bytes[4096];
	struct request r;
	u32 head, written;
	size_t done = 0;
	u8 *data;

	(void)state;
	become_pipe(f);
	fill(bytes, sizeof(bytes), 3);
	memset(&r, 0, sizeof(r));
	header(part(f, &r, 16, false), T_IN, 0);
	data = part(f, &r, 1000,
		    true); /* then on adjoining pages, contiguous for this test's eyes */
	r.parts[r.count++] = (struct driver_part){ r.parts[1].at + 1000, 1, true };
	r.parts[r.count++] = (struct driver_part){ r.parts[1].at + 1001, 3095, true };
	r.status = part(f, &r, 1, true);
	*r.status = S_NONE;
	send(&f->rings[0], &r);
	driver_kick(&f->rings[0]);
	while (done < sizeof(bytes)) {
		size_t n = 1 + draw(997);

		if (n > sizeof(bytes) - done)
			n = sizeof(bytes) - done;
		assert_false(driver_used(&f->rings[0], NULL, NULL));
		assert_int_equal(write(f->pipe[1], bytes + done, n), (ssize_t)n);
		done += n;
		usleep(2000);
	}
	driver_wait_used(&f->rings[0], &head, &written);
	assert_int_equal(*r.status, S_OK);
	assert_int_equal(written, 4097);
	assert_memory_equal(data, bytes, sizeof(bytes));
	down(f);
}

/* O_DIRECT that stops inside a block has not done that block: it is done again. */
static void test_short_direct_reads(void **state)
{
	struct fixture *f = up(&(struct setting){ 0 });
	u8 first[700], second[512];
	struct request r;
	int saved, file;
	u32 written;
	u8 *data;

	(void)state;
	become_pipe(f);
	f->disk.alignment = 512;
	memset(first, 1, sizeof(first));
	memset(second, 2, sizeof(second));
	data = frame(f, &r, T_IN, 0, 1024, true);
	assert_int_equal(write(f->pipe[1], first, 700), 700);
	send(&f->rings[0], &r);
	driver_kick(&f->rings[0]);
	usleep(20000);
	assert_false(driver_used(&f->rings[0], NULL, NULL));
	assert_int_equal(write(f->pipe[1], second, 512), 512);
	driver_wait_used(&f->rings[0], NULL, &written);
	assert_int_equal(written, 1025);
	assert_memory_equal(data, first, 512);
	assert_memory_equal(data + 512, second, 512);
	/* less than a block cannot be gone on from */
	take_stderr(&saved, &file);
	assert_int_equal(write(f->pipe[1], first, 100), 100);
	assert_int_equal(simple(f, T_IN, 0, 1024), S_IOERR);
	assert_int_equal(give_stderr(saved, file, "a read failed"), 1);
	down(f);
}

/* A real device of 4 KiB sectors. Through the page cache it takes sectors of 512 bytes, too. */
static void test_large_sectors(void **state)
{
	char command[256], device[64] = "";
	struct fixture *f;
	FILE *output;
	int held;

	(void)state;
	snprintf(command, sizeof(command),
		 "truncate -s 4M %s/sectors && losetup -f --show -b 4096 %s/sectors 2>/dev/null",
		 folder, folder);
	output = popen(command, "r");
	if (!output || !fgets(device, sizeof(device), output) || pclose(output) != 0) {
		print_message("no loop device to be had (not root, or none in this container)\n");
		skip();
	}
	device[strcspn(device, "\n")] = '\0';
	/* goes with the last that has it open, whatever becomes of this test */
	held = open(device, O_RDONLY);
	assert_true(held >= 0);
	snprintf(command, sizeof(command), "losetup -d %s", device);
	assert_int_equal(system(command), 0);
	f = up(&(struct setting){ .device = device, .direct = true });
	assert_int_equal(config_read(f, C_BLK_SIZE, 4), 4096);
	assert_int_equal(config_read(f, C_CAPACITY, 8), IMAGE / 512);
	assert_int_equal(simple(f, T_OUT, 8, 8192), S_OK);
	assert_int_equal(simple(f, T_OUT, 8, 512), S_IOERR);
	assert_int_equal(simple(f, T_IN, IMAGE / 512 - 8, 4096), S_OK);
	assert_int_equal(simple(f, T_FLUSH, 0, 0), S_OK);
	down(f);
	f = up(&(struct setting){ .device = device });
	assert_int_equal(config_read(f, C_BLK_SIZE, 4), 4096);
	dirty(f);
	assert_true(virtio_has(f->device, F_ZEROES));
	assert_int_equal(one_range(f, T_ZEROES, 80, 160, 0), S_OK);
	assert_zero(f, 80, 240);
	assert_int_equal(one_range(f, T_ZEROES, 81, 8, 0), S_IOERR);
	assert_int_equal(one_range(f, T_ZEROES, 80, 7, 0), S_IOERR);
	if (virtio_has(f->device, F_DISCARD)) {
		assert_int_equal(one_range(f, T_DISCARD, 240, 80, 0), S_OK);
		assert_zero(f, 80, 320);
		assert_int_equal(one_range(f, T_ZEROES, 320, 80, 1), S_OK);
		assert_zero(f, 80, 400);
	}
	assert_int_equal(simple(f, T_OUT, 3, 512), S_OK);
	assert_int_equal(simple(f, T_IN, 3, 512), S_OK);
	assert_int_equal(counts(f).errors, 0);
	down(f);
	close(held);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flushes_share_a_sync),
		cmocka_unit_test(test_flush_during_a_sync),
		cmocka_unit_test(test_flush_failure_lasts),
		cmocka_unit_test(test_discard),
		cmocka_unit_test(test_longest_ranges),
		cmocka_unit_test(test_write_zeroes),
		cmocka_unit_test(test_ranges_not_offered),
		cmocka_unit_test(test_bounces),
		cmocka_unit_test(test_large_blocks),
		cmocka_unit_test(test_large_sectors),
		cmocka_unit_test(test_file_cut_short),
		cmocka_unit_test(test_full_file_system),
		cmocka_unit_test(test_short_reads),
		cmocka_unit_test(test_short_direct_reads),
	};

	return on_both_engines(tests);
}
