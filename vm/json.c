/* JSON text in a buffer that grows: see json.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "vm/json.h"

static void put(struct json *json, const char *text, size_t length)
{
	if (json->failed)
		return;
	if (length > json->room - json->length) {
		size_t room = 2 * (json->room + length) + 1024;
		char *grown = realloc(json->text, room);

		if (!grown) {
			json->failed = true;
			return;
		}
		json->text = grown;
		json->room = room;
	}
	memcpy(json->text + json->length, text, length);
	json->length += length;
}

static void puts_json(struct json *json, const char *text)
{
	put(json, text, strlen(text));
}

static void end_line(struct json *json)
{
	puts_json(json, json->line ? json->line : "\n");
}

static void put_quoted(struct json *json, const char *text)
{
	char escape[8];

	puts_json(json, "\"");
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			snprintf(escape, sizeof(escape), "\\%c", c);
		else if (c < 0x20 || c > 0x7e)
			snprintf(escape, sizeof(escape), "\\u%04x", c);
		else
			snprintf(escape, sizeof(escape), "%c", c);
		puts_json(json, escape);
	}
	puts_json(json, "\"");
}

/* What stands before a value: comma, line, key. */
static void begin_value(struct json *json, const char *key, bool line)
{
	if (json->more[json->depth])
		puts_json(json, line ? "," : ", ");
	json->more[json->depth] = true;
	if (line) {
		end_line(json);
		for (u32 i = 0; i < json->depth; i++)
			puts_json(json, "  ");
	}
	if (key) {
		put_quoted(json, key);
		puts_json(json, ": ");
	}
}

static void open_container(struct json *json, const char *key, const char *bracket, char closing)
{
	if (json->depth + 1 >= JSON_DEPTH) {
		json->failed = true;
		return;
	}
	/* a line for each element of an array, and for each member of the outermost object */
	begin_value(json, key, json->depth == 1 || json->closing[json->depth] == ']');
	puts_json(json, bracket);
	json->depth++;
	json->more[json->depth] = false;
	json->closing[json->depth] = closing;
}

void json_begin_object(struct json *json, const char *key)
{
	open_container(json, key, "{", '}');
}

void json_begin_array(struct json *json, const char *key)
{
	open_container(json, key, "[", ']');
}

void json_end(struct json *json)
{
	put(json, &json->closing[json->depth], 1);
	if (json->depth)
		json->depth--;
}

void json_text(struct json *json, const char *key, const char *text)
{
	begin_value(json, key, false);
	if (text)
		put_quoted(json, text);
	else
		puts_json(json, "null");
}

void json_number(struct json *json, const char *key, u64 value)
{
	char digits[24];

	begin_value(json, key, false);
	snprintf(digits, sizeof(digits), "%llu", (unsigned long long)value);
	puts_json(json, digits);
}

void json_thousandths(struct json *json, const char *key, u64 thousandths)
{
	char digits[32];

	begin_value(json, key, false);
	snprintf(digits, sizeof(digits), "%llu.%03u", (unsigned long long)(thousandths / 1000),
		 (unsigned int)(thousandths % 1000));
	puts_json(json, digits);
}

void json_bool(struct json *json, const char *key, bool value)
{
	begin_value(json, key, false);
	puts_json(json, value ? "true" : "false");
}

void json_hex(struct json *json, const char *key, u64 value)
{
	char digits[24];

	snprintf(digits, sizeof(digits), "0x%llx", (unsigned long long)value);
	json_text(json, key, digits);
}

int json_done(struct json *json)
{
	end_line(json);
	return json->failed ? -ENOMEM : 0;
}

void json_free(struct json *json)
{
	free(json->text);
	*json = (struct json){ 0 };
}
