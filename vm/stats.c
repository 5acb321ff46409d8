/* --stats: the file, and what the ground counts. See stats.h. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>
#include "vm/log.h"
#include "vm/stats.h"

#define PATIENCE_MS 1000 /* with a pipe that is full */

int stats_open(struct stats *stats, const char *path)
{
	struct stat st;
	int err = 0;

	*stats = (struct stats){ .path = path, .fd = -1 };
	if (!path)
		return 0;
	if (!strcmp(path, "-")) {
		stats->path = "standard error";
		stats->fd = STDERR_FILENO;
		stats->terminal = isatty(STDERR_FILENO);
		return 0;
	}
	stats->fd =
		open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0666);
	if (stats->fd < 0 || fstat(stats->fd, &st))
		err = -errno;
	else
		stats->rewritten = S_ISREG(st.st_mode);
	if (err)
		log_line("--stats %s: %s; %s", path, strerror(-err),
			 err == -ENXIO
				 ? "start the reader of this FIFO first"
				 : "give a file that can be written, or - for standard error");
	return err;
}

void stats_put_vcpus(const struct vcpus *vcpus, struct json *json)
{
	struct vcpu_counts counts;

	vcpus_counts(vcpus, &counts);
	json_begin_object(json, "exits");
	json_number(json, "total", counts.total);
	json_number(json, "pio_read", counts.pio_reads);
	json_number(json, "pio_write", counts.pio_writes);
	json_number(json, "mmio_read", counts.mmio_reads);
	json_number(json, "mmio_write", counts.mmio_writes);
	json_number(json, "other", counts.other);
	json_number(json, "interrupted", counts.interrupted);
	json_end(json);
}

void stats_put_reactors(struct reactors *reactors, struct json *json)
{
	json_begin_array(json, "reactors");
	for (u32 i = 0; reactors && i < reactors_count(reactors); i++) {
		struct reactor_counts counts;

		reactor_counts(reactors_get(reactors, i), &counts);
		json_begin_object(json, NULL);
		json_text(json, "engine", reactors_engine(reactors));
		json_number(json, "sweeps", counts.sweeps);
		json_number(json, "enters", counts.enters);
		json_number(json, "operations", counts.operations);
		json_number(json, "signals", counts.signals);
		json_number(json, "events", counts.events);
		json_number(json, "polled", counts.polled);
		json_number(json, "writes_here", counts.writes_here);
		json_number(json, "writes_handed", counts.writes_handed);
		json_end(json);
	}
	json_end(json);
}

/* All of it, whatever the file is. 0 or -errno. */
static int write_all(const struct stats *stats, const struct json *json)
{
	size_t done = 0;

	while (done < json->length) {
		const char *from = json->text + done;
		size_t left = json->length - done;
		ssize_t n = stats->rewritten ? pwrite(stats->fd, from, left, (off_t)done)
					     : write(stats->fd, from, left);
		struct pollfd fd = { .fd = stats->fd, .events = POLLOUT };

		if (n > 0)
			done += (size_t)n;
		else if (n == 0)
			return -EIO;
		else if (errno == EAGAIN && poll(&fd, 1, PATIENCE_MS) == 0)
			return -EAGAIN;
		else if (errno != EINTR && errno != EAGAIN)
			return -errno;
	}
	if (stats->rewritten && ftruncate(stats->fd, (off_t)json->length))
		return -errno;
	return 0;
}

void stats_write(const struct stats *stats, struct json *json)
{
	int err = json_done(json);

	if (!err)
		err = write_all(stats, json);
	if (err)
		log_line("--stats %s: %s; the machine is not concerned", stats->path,
			 err == -EAGAIN ? "nobody reads it" : strerror(-err));
	json_free(json);
}
