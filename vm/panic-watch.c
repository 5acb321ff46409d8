/*
 * The two phrases of kernel/panic.c, matched a letter at a time where the first letter stands and
 * skipped over by memchr() elsewhere. Called by whoever drains the serial port.
 */
#include "vm/panic-watch.h"

static const char begin_phrase[] = "Kernel panic - not syncing";
static const char end_phrase[] = "---[ end Kernel panic";

/* The phrase matched so far did not go on with c: the longest start of it that ends in c. */
static u8 fall_back(const char *phrase, u8 matched, char c)
{
	while (matched) {
		u8 shorter = matched - 1;

		/* the longest proper prefix that the matched part also ends with */
		while (shorter && memcmp(phrase, phrase + matched - shorter, shorter))
			shorter--;
		if (phrase[shorter] == c)
			return shorter + 1;
		matched = shorter;
	}
	return 0;
}

/* Goes on matching; true when the whole phrase was there. *matched carries over to the next bytes.
 */
static bool find(const char *phrase, size_t length, u8 *matched, const u8 *bytes, size_t size)
{
	const u8 *end = bytes + size;

	while (bytes < end) {
		if (!*matched) {
			bytes = memchr(bytes, phrase[0], (size_t)(end - bytes));
			if (!bytes)
				return false;
			*matched = 1;
		} else if (*bytes == (u8)phrase[*matched]) {
			if (++*matched == length) {
				*matched = 0;
				return true;
			}
		} else {
			*matched = fall_back(phrase, *matched, (char)*bytes);
		}
		bytes++;
	}
	return false;
}

bool panic_watch_feed(struct panic_watch *watch, const u8 *bytes, size_t size)
{
	if (!watch->complete)
		watch->complete =
			find(end_phrase, sizeof(end_phrase) - 1, &watch->ended, bytes, size);
	if (watch->seen)
		return false;
	watch->seen = find(begin_phrase, sizeof(begin_phrase) - 1, &watch->begun, bytes, size);
	return watch->seen;
}

bool panic_watch_complete(const struct panic_watch *watch)
{
	return watch->complete;
}
