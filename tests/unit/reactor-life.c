/* tsan
 * Reactors: what goes on around operations (events, tasks, messages, files that come and go), and
 * what the ring, the sandbox and the host refuse; in every mode.
 */
#include "tests/unit/reactor-fixture.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "vm/sandbox.h"

/* ---- events ---- */

/* What an owner may do as soon as it has removed an event. */
static void bell_discard(void *arg)
{
	struct bell *bell = *(struct bell **)arg;

	reactor_event_remove(&bell->event);
	eventfd_write(bell->event.fd, 1);
	close(bell->event.fd);
	free(bell);
}

/* Out with one, and the next gets its descriptor's number, all in one message. */
static void bell_replace(void *arg)
{
	struct bell *bell = arg;
	int old = bell->event.fd;

	reactor_event_remove(&bell->event);
	close(old);
	bell->event.fd = eventfd(0, EFD_NONBLOCK);
	if (bell->event.fd == old)
		reactor_event_add(reactor, &bell->event);
}

static void await_sum(struct bell *bell, u64 sum)
{
	for (int i = 0; i < 5000; i++) {
		call(nothing, NULL);
		if (bell->sum >= sum)
			break;
		usleep(1000);
	}
	assert_int_equal(bell->sum, sum);
}

static void test_events(void **state)
{
	struct bell before = { .event = { .fired = bell_fired, .fd = eventfd(0, EFD_NONBLOCK) } };
	struct bell never = before, later = before, *gone;
	struct reactor_counts counts;

	(void)state;
	later.event.fd = eventfd(0, EFD_NONBLOCK);
	never.event.fd = eventfd(3, EFD_NONBLOCK);
	assert_int_equal(reactor_event_add(reactor, &before.event), 0);
	assert_int_equal(reactor_event_add(reactor, &never.event), 0);
	reactor_event_remove(&never.event); /* before the start this thread may */
	start();
	call(bell_add, &later);
	for (int i = 0; i < 1000; i++) {
		eventfd_write(before.event.fd, 1);
		eventfd_write(later.event.fd, 2);
	}
	await_sum(&before, 1000);
	await_sum(&later, 2000);
	reactor_counts(reactor, &counts);
	assert_true(counts.events >= before.calls + later.calls);

	call(bell_remove, &before);
	eventfd_write(before.event.fd, 1);
	usleep(2000);
	call(nothing, NULL);
	assert_int_equal(before.sum, 1000);
	call(bell_remove, &before); /* again: nothing */
	call(bell_add, &before); /* it finds what came meanwhile, unless the read that was cancelled
				    took it */
	eventfd_write(before.event.fd, 1);
	for (int i = 0; i < 1000; i++) {
		call(nothing, NULL);
		if (before.sum >= 1001)
			break;
		usleep(1000);
	}
	assert_in_range(before.sum, 1001, 1002);

	call(bell_once, &later);
	eventfd_write(later.event.fd, 1);
	await_sum(&later, 2001);
	eventfd_write(later.event.fd, 1);
	usleep(2000);
	call(nothing, NULL);
	assert_int_equal(later.sum, 2001);
	assert_int_equal(never.calls, 0);

	/* removed, written to, closed, freed, with descriptor and file number taken by the next:
	 * 300 times in 64 numbers */
	for (int i = 0; i < 300; i++) {
		gone = calloc(1, sizeof(*gone));
		gone->event.fired = bell_fired;
		gone->event.fd = eventfd(0, EFD_NONBLOCK);
		call(bell_add, gone);
		assert_non_null(gone->event.wait);
		eventfd_write(gone->event.fd, 1);
		if (i & 1)
			await_sum(gone, 1);
		call(bell_discard, &gone);
	}
	call(bell_replace, &before);
	assert_non_null(before.event.wait);
	call(nothing, NULL);
	call(nothing, NULL);
	atomic_store(&before.sum, 0);
	eventfd_write(before.event.fd, 1);
	await_sum(&before, 1);
	call(bell_remove, &before);
	call(bell_remove, &later);
	assert_int_equal(worker_threads_of_kernel(), 0);
	close(before.event.fd);
	close(later.event.fd);
	close(never.event.fd);
}

/* ---- files that come and go while it runs ---- */

static void test_hotplug_files(void **state)
{
	struct request request;
	reactor_file files[70];
	int fd = temporary(), n = 0;

	(void)state;
	assert_int_equal(write(fd, "0123456789abcdef", 16), 16);
	assert_int_equal(reactor_file_add(reactors, -1), -EBADF);
	start();
	while (n < 70 && (files[n] = reactor_file_add(reactors, fd)) >= 0)
		n++;
	assert_int_equal(n, 64);
	assert_int_equal(files[64], -ENOSPC);
	request_init(&request, REACTOR_READV, files[63], NULL);
	assert_int_equal(run_one(&request), 16);
	for (int i = 0; i < n; i++)
		reactor_file_remove(reactors, files[i]);
	if (is_uring()) {
		request_init(&request, REACTOR_READV, files[63], NULL);
		assert_int_equal(run_one(&request), -EBADF);
	}
	files[0] = reactor_file_add(reactors, fd);
	request_init(&request, REACTOR_READV, files[0], NULL);
	assert_int_equal(run_one(&request), 16);
	close(fd);
}

/* ---- tasks ---- */

struct chain {
	struct reactor_task serve, flush, again;
	char order[32];
	u32 length;
	u64 sweeps[32];
	sem_t ended;
};

static void note(struct chain *chain, char what)
{
	struct reactor_counts counts;

	reactor_counts(reactor, &counts);
	chain->sweeps[chain->length] = counts.sweeps;
	chain->order[chain->length++] = what;
}

static void chain_serve(struct reactor_task *task)
{
	struct chain *chain = container_of(task, struct chain, serve);

	note(chain, 's');
	if (chain->length < 9)
		reactor_defer(reactor, REACTOR_FLUSH, &chain->flush);
	else
		sem_post(&chain->ended);
}

static void chain_flush(struct reactor_task *task)
{
	struct chain *chain = container_of(task, struct chain, flush);

	note(chain, 'f');
	reactor_defer(reactor, REACTOR_SERVE, &chain->serve);
	reactor_defer(reactor, REACTOR_FLUSH, &chain->again);
}

static void chain_again(struct reactor_task *task)
{
	note(container_of(task, struct chain, again), 'a');
}

static void chain_start(void *arg)
{
	struct chain *chain = arg;

	reactor_defer(reactor, REACTOR_FLUSH, &chain->again);
	reactor_defer(reactor, REACTOR_SERVE, &chain->serve);
	reactor_defer(reactor, REACTOR_SERVE, &chain->serve);
}

static void test_tasks(void **state)
{
	struct chain chain = { .serve = { .run = chain_serve },
			       .flush = { .run = chain_flush },
			       .again = { .run = chain_again } };

	(void)state;
	sem_init(&chain.ended, 0, 0);
	start();
	call(chain_start, &chain);
	await(&chain.ended, 1); /* hangs if a sweep waits with a task on its list */
	call(nothing, NULL);
	/* serve before flush within a sweep; what flush asks for comes with the next */
	assert_string_equal(chain.order, "safsafsafsa");
	assert_int_equal(chain.sweeps[0], chain.sweeps[2]);
	assert_int_equal(chain.sweeps[3], chain.sweeps[2] + 1);
	assert_int_equal(chain.sweeps[9], chain.sweeps[0] + 3);
	sem_destroy(&chain.ended);
}

/* ---- messages ---- */

#define SENDERS	 6
#define MESSAGES 3000

struct letter {
	struct reactor_message message;
	u32 sender, number;
};

static u32 received[SENDERS]; /* the reactor's thread alone */
static bool out_of_order;

static void letter_run(struct reactor_message *message)
{
	struct letter *letter = container_of(message, struct letter, message);

	out_of_order |= received[letter->sender]++ != letter->number;
}

static void *sender_main(void *arg)
{
	struct letter *letters = arg;

	for (u32 i = 0; i < MESSAGES; i++) {
		reactor_post(reactor, &letters[i].message);
		if (i % 100 == 0)
			call(nothing, NULL);
	}
	return NULL;
}

static void test_messages(void **state)
{
	struct letter *letters = calloc(SENDERS * MESSAGES, sizeof(*letters));
	pthread_t threads[SENDERS];

	(void)state;
	memset(received, 0, sizeof(received));
	out_of_order = false;
	for (u32 i = 0; i < SENDERS * MESSAGES; i++) {
		letters[i].message.run = letter_run;
		letters[i].sender = i / MESSAGES;
		letters[i].number = i % MESSAGES;
	}
	start();
	for (u32 i = 0; i < SENDERS; i++)
		assert_int_equal(
			pthread_create(&threads[i], NULL, sender_main, letters + i * MESSAGES), 0);
	for (u32 i = 0; i < SENDERS; i++)
		pthread_join(threads[i], NULL);
	call(nothing, NULL);
	for (u32 i = 0; i < SENDERS; i++)
		assert_int_equal(received[i], MESSAGES);
	assert_false(out_of_order);
	free(letters);
}

/* ---- what the ring refuses ---- */

static void submit_raw(void *arg)
{
	struct request *requests = arg;
	struct io_uring *ring = reactor->ring; /* its first member */
	struct io_uring_sqe *sqe;

	sqe = io_uring_get_sqe(ring);
	io_uring_prep_openat(sqe, AT_FDCWD, "/etc/passwd", O_RDONLY, 0);
	io_uring_sqe_set_data(sqe, &requests[0].op);
	sqe = io_uring_get_sqe(ring);
	io_uring_prep_write(sqe, requests[1].op.file, "not a registered file", 21, (u64)-1);
	io_uring_sqe_set_data(sqe, &requests[1].op);
	/* a kernel before 5.18 would not have let this be allowed */
	if (ring->enter_ring_fd == ring->ring_fd)
		requests[3].result = io_uring_register((unsigned int)ring->ring_fd,
						       IORING_UNREGISTER_RING_FDS, NULL, 0);
	requests[2].result = io_uring_register((unsigned int)ring->ring_fd, IORING_REGISTER_EVENTFD,
					       &requests[2].result, 1);
}

static void test_restrictions(void **state)
{
	struct request requests[4];
	int null;
	sem_t ended;

	(void)state;
	if (!is_uring())
		return; /* nothing to restrict */
	null = open("/dev/null", O_WRONLY);
	sem_init(&ended, 0, 0);
	for (int i = 0; i < 4; i++)
		request_init(&requests[i], REACTOR_READV, null, &ended);
	start();
	call(submit_raw, requests);
	await(&ended, 2);
	call(nothing, NULL);
	assert_int_equal(requests[0].result, -EACCES);
	/* Where a cancellation cannot carry the flag, other operations are not forced to. */
	if (!(mode.refuse & REACTOR_REFUSE_SPARSE))
		assert_int_equal(requests[1].result, -EACCES);
	assert_int_equal(requests[2].result, -EACCES);
	if (mode.refuse & REACTOR_REFUSE_RING_FD)
		assert_int_equal(requests[3].result, -EACCES);
	close(null);
	sem_destroy(&ended);
}

/* ---- in the sandbox, and without io_uring; each in a child ---- */

static void enter_reactor(void *owner)
{
	(void)owner;
	if (sandbox_enter(SANDBOX_REACTOR))
		_exit(97);
}

static void enter_worker(void *owner)
{
	(void)owner;
	if (sandbox_enter(SANDBOX_WORKER))
		_exit(97);
}

static void live_in_sandbox(void)
{
	struct bell bell = { .event = { .fired = bell_fired, .fd = eventfd(0, EFD_NONBLOCK) } };
	struct request request;
	int fd = temporary();
	reactor_file file;

	if (make_with(enter_reactor, enter_worker))
		_exit(1);
	file = reactor_file_add(reactors, fd);
	if (sandbox_prepare() || reactors_start(reactors) || sandbox_enter(SANDBOX_MAIN))
		_exit(2);
	for (int i = 0; i < 10; i++) {
		request_init(&request, REACTOR_WRITEV, file, NULL);
		request.op.offset = (u64)i * 16;
		if (run_one(&request) != 16)
			_exit(3);
	}
	request_init(&request, REACTOR_FSYNC, file, NULL);
	if (run_one(&request))
		_exit(4);
	call(bell_add, &bell);
	eventfd_write(bell.event.fd, 1);
	for (int i = 0; i < 5000; i++) {
		call(nothing, NULL);
		if (bell.sum)
			break;
		usleep(1000);
	}
	if (bell.sum != 1)
		_exit(5);
	call(bell_remove, &bell);
	reactors_destroy(reactors);
}

static char said[4096];

static int child(void (*fn)(void))
{
	int out[2], status;
	size_t length = 0;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe(out), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		dup2(out[1], STDERR_FILENO);
		close(out[0]);
		alarm(60);
		fn();
		_exit(42);
	}
	close(out[1]);
	while ((n = read(out[0], said + length, sizeof(said) - 1 - length)) > 0)
		length += (size_t)n;
	said[length] = '\0';
	close(out[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void test_sandbox(void **state)
{
	int status;

	(void)state;
	status = child(live_in_sandbox);
	if (status != 42)
		fail_msg("%s: status %d: %s", mode.name, status, said);
}

static void live_without_io_uring(void)
{
	struct sock_filter program[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog filter = { ARRAY_SIZE(program), program };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter))
		_exit(1);
	if (make_with(NULL, NULL) || strcmp(reactors_engine(reactors), "epoll") ||
	    reactors_start(reactors))
		_exit(2);
	call(nothing, NULL);
	reactors_destroy(reactors);
}

static void test_denied(void **state)
{
	int status;

	(void)state;
	if (!is_uring()) {
		print_message("no io_uring here\n");
		skip();
	}
	status = child(live_without_io_uring);
	if (status != 42)
		fail_msg("status %d: %s", status, said);
	assert_string_equal(
		said, "vmm: io_uring: not permitted here (Operation not permitted); using epoll "
		      "and worker threads\n");
}

static void test_create_errors(void **state)
{
	struct reactors_config config = { .count = 0 };
	struct reactors *none = NULL;

	(void)state;
	assert_int_equal(reactors_create(&none, &config), -EINVAL);
	config.count = 65;
	assert_int_equal(reactors_create(&none, &config), -EINVAL);
	assert_null(none);
	/* never started: all is freed (LeakSanitizer looks) */
	assert_int_equal(make_with(NULL, NULL), 0);
	assert_int_equal(reactors_count(reactors), 2);
	reactors_destroy(reactors);
	reactors_destroy(NULL);
}

int main(void)
{
	const struct CMUnitTest once[] = {
		cmocka_unit_test(test_create_errors),
		cmocka_unit_test(test_denied),
	};
	const struct CMUnitTest each[] = {
		cmocka_unit_test(test_sandbox),
		EACH(test_events),
		EACH(test_hotplug_files),
		EACH(test_tasks),
		EACH(test_messages),
		EACH(test_restrictions),
	};

	mode.name = reactor_modes[0].name;
	return cmocka_run_group_tests(once, NULL, NULL) + in_each_mode(each);
}
