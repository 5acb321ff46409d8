/* `vmm ctl PATH devices` as people read it: a paragraph a device, a line a queue. docs/control.md
 * says what the answer has. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "machine/ctl.h"
#include "machine/json-library.h"
#include "vm/types.h"

#define LINE   100
#define INDENT 14

static const char *text_of(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "-";
}

/* A number, or "-" where there is none; in one of a few places, for as many in one printf(). */
static const char *number_of(const json_t *object, const char *name)
{
	static char places[8][24];
	static u32 next;
	const json_t *value = json_object_get(object, name);
	char *place = places[next++ % ARRAY_SIZE(places)];

	if (!json_is_integer(value))
		return "-";
	snprintf(place, sizeof(places[0]), "%" JSON_INTEGER_FORMAT, json_integer_value(value));
	return place;
}

static void show_words(const char *label, const json_t *list)
{
	size_t column = INDENT, i;
	json_t *word;

	printf("  %-*s", INDENT - 2, label);
	json_array_foreach(list, i, word)
	{
		const char *text = json_string_value(word);
		size_t length = text ? strlen(text) : 0;

		if (column > INDENT && column + length > LINE) {
			printf("\n%*s", INDENT, "");
			column = INDENT;
		}
		printf("%s ", text ? text : "");
		column += length + 1;
	}
	puts(json_array_size(list) ? "" : "-");
}

static void show_interrupts(const json_t *device)
{
	printf("  %-*s%s", INDENT - 2, "interrupts", text_of(device, "interrupts"));
	if (json_object_get(device, "line"))
		printf(" on line %s", number_of(device, "line"));
	if (json_object_get(device, "vectors"))
		printf(", %s vectors, configuration %s", number_of(device, "vectors"),
		       number_of(device, "config_vector"));
	putchar('\n');
}

static void show_queues(const json_t *queues)
{
	json_t *queue;
	size_t i;

	printf("  %5s %5s %5s %-8s %-8s %-7s %6s %6s %6s %9s\n", "QUEUE", "SIZE", "MOST", "ENABLED",
	       "STATE", "FORMAT", "VECTOR", "TAKEN", "USED", "IN FLIGHT");
	json_array_foreach(queues, i, queue)
	{
		printf("  %5s %5s %5s %-8s %-8s %-7s %6s %6s %6s %9s\n", number_of(queue, "queue"),
		       number_of(queue, "size"), number_of(queue, "most"),
		       json_is_true(json_object_get(queue, "enabled")) ? "yes" : "no",
		       text_of(queue, "state"), text_of(queue, "format"),
		       number_of(queue, "vector"), number_of(queue, "taken"),
		       number_of(queue, "used"), number_of(queue, "in_flight"));
	}
}

void ctl_show_devices(const json_t *answer)
{
	json_t *device;
	size_t i;

	json_array_foreach(json_object_get(answer, "devices"), i, device)
	{
		printf("%s%s at %s: %s\n", i ? "\n" : "", text_of(device, "id"),
		       text_of(device, "address"), text_of(device, "state"));
		show_words("status", json_object_get(device, "status"));
		printf("  %-*s%s, driver %s\n", INDENT - 2, "layout", text_of(device, "layout"),
		       text_of(device, "driver"));
		show_words("offered", json_object_get(device, "offered"));
		show_words("negotiated", json_object_get(device, "negotiated"));
		show_interrupts(device);
		printf("  %-*s%s\n", INDENT - 2, "generation", number_of(device, "generation"));
		show_queues(json_object_get(device, "queues"));
	}
}
