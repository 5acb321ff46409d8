/* The caller's terminal: see input.h. */
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include "backends/terminal-mode.h"
#include "run/input.h"
#include "vm/log.h"

#define QUIT_KEY   0x1d /* Ctrl-] */
#define QUIT_TIMES 3
#define QUIT_NS	   1000000000ull

int input_open(struct input *input, int *from)
{
	int ends[2] = { -1, -1 }, error = 0;

	*input = (struct input){ .terminal = -1, .to = -1 };
	/* once more, non-blocking for us alone */
	input->terminal = open("/proc/self/fd/0", O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (input->terminal < 0 || pipe2(ends, O_CLOEXEC | O_NONBLOCK))
		error = -errno;
	if (!error)
		error = terminal_mode_take(STDIN_FILENO);
	if (!error) {
		input->to = ends[1];
		*from = ends[0];
		return 0;
	}
	log_line("standard input: the terminal cannot be used: %s; give another input (</dev/null)",
		 strerror(-error));
	for (u32 i = 0; i < 2; i++)
		if (ends[i] >= 0)
			close(ends[i]);
	if (input->terminal >= 0)
		close(input->terminal);
	input->terminal = -1;
	return error;
}

bool input_take(struct input *input, const u8 *keys, size_t count, u64 now)
{
	bool quit = false;

	for (size_t i = 0; i < count; i++) {
		/* who does not read for so long gets no more keys, but can still be ended */
		if (input->end < sizeof(input->bytes))
			input->bytes[input->end++] = keys[i];
		if (keys[i] != QUIT_KEY) {
			input->quits = 0;
			continue;
		}
		if (!input->quits || now - input->first > QUIT_NS) {
			input->quits = 0;
			input->first = now;
		}
		quit = quit || ++input->quits == QUIT_TIMES;
	}
	return quit;
}

void input_prepare(const struct input *input, struct pollfd *fds)
{
	bool ours = input->terminal >= 0 && input->to >= 0 && terminal_mode_is_raw();

	fds[0] = (struct pollfd){ .fd = ours ? input->terminal : -1, .events = POLLIN };
	fds[1] = (struct pollfd){ .fd = input->start < input->end ? input->to : -1,
				  .events = POLLOUT };
}

/* The guest sees the end of its input. */
static void hang_up(struct input *input)
{
	close(input->to);
	input->to = -1;
	input->start = input->end = 0;
}

bool input_run(struct input *input, const struct pollfd *fds, u64 now)
{
	bool quit = false;
	u8 keys[1024];
	ssize_t n;

	if (fds[0].fd >= 0 && fds[0].revents) {
		n = read(input->terminal, keys, sizeof(keys));
		if (n > 0)
			quit = input_take(input, keys, (size_t)n, now);
		else if (!n || (errno != EAGAIN && errno != EINTR && !terminal_mode_lost()))
			hang_up(input);
	}
	if (input->to < 0 || input->start == input->end)
		return quit;
	n = write(input->to, input->bytes + input->start, input->end - input->start);
	if (n < 0 && errno != EAGAIN && errno != EINTR)
		hang_up(input); /* the guest's port is gone */
	input->start += n > 0 ? (size_t)n : 0;
	if (input->start == input->end)
		input->start = input->end = 0;
	return quit;
}

void input_size(const struct input *input, u16 *rows, u16 *cols)
{
	struct winsize size = { 0 };

	if (input->terminal >= 0)
		ioctl(input->terminal, TIOCGWINSZ, &size);
	*rows = size.ws_row;
	*cols = size.ws_col;
}
