/*
 * JSON text (RFC 8259) in a buffer that grows. A writer for what we know the shape of: calls nest
 * as the text does, and nothing checks that but the assertion of the reader. (The names are other
 * ones than jansson's, which reads what we are sent.)
 *
 * One thread at a time. An allocation that fails makes all that follows a no-op and is told by
 * json_done().
 */
#ifndef VM_JSON_H
#define VM_JSON_H

#include "vm/types.h"

#define JSON_DEPTH 16

/* Begins as zeros, but for `line`. */
struct json {
	const char *line; /* what ends a line; NULL: "\n" */
	char *text;
	size_t length, room;
	bool failed;
	u32 depth;
	bool more[JSON_DEPTH];	  /* by depth: a comma is due before the next value */
	char closing[JSON_DEPTH]; /* by depth: what ends it */
};

/* key: of the value in its object; NULL in an array, and for the outermost value. A container
 * inside an array begins a line of its own. */
void json_begin_object(struct json *json, const char *key);
void json_begin_array(struct json *json, const char *key);
/* Closes what was opened last. */
void json_end(struct json *json);

/* text: any bytes; what is no printable ASCII is escaped byte by byte. NULL: null. */
void json_text(struct json *json, const char *key, const char *text);
void json_number(struct json *json, const char *key, u64 value);
/* thousandths / 1000, with three decimals. */
void json_thousandths(struct json *json, const char *key, u64 thousandths);
void json_bool(struct json *json, const char *key, bool value);
/* "0x1f": JSON's own numbers lose what is above 2^53 in most readers. */
void json_hex(struct json *json, const char *key, u64 value);

/* Ends the text and its line; it is json->text and json->length, json_free()'s. 0 or -ENOMEM. */
int json_done(struct json *json);
void json_free(struct json *json);

#endif
