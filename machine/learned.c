/* Disks and taps on their way from `vmm ctl` to the machine: see learned.h. */
#include <stdio.h>
#include "machine/learned.h"

enum kind { NUMBER, SWITCH, TEXT };

struct member {
	const char *name;
	enum kind kind;
	size_t offset, size;
};

#define MEMBER(type, kind, name)                                                           \
	{                                                                                  \
#name, kind, offsetof(struct type, name), sizeof(((struct type *)0)->name) \
	}

static const struct member disk_members[] = {
	MEMBER(disk, NUMBER, logical_block),
	MEMBER(disk, NUMBER, physical_block),
	MEMBER(disk, NUMBER, minimum_io),
	MEMBER(disk, NUMBER, optimal_io),
	MEMBER(disk, NUMBER, alignment),
	MEMBER(disk, NUMBER, memory_alignment),
	MEMBER(disk, NUMBER, discard_granularity),
	MEMBER(disk, SWITCH, can_discard),
	MEMBER(disk, SWITCH, can_zero),
	MEMBER(disk, TEXT, identity),
	MEMBER(disk, SWITCH, iopoll),
};

static const struct member tap_members[] = {
	MEMBER(tap, NUMBER, mtu),
	MEMBER(tap, SWITCH, created),
	MEMBER(tap, SWITCH, multi_queue),
};

static json_t *pack(const struct member *members, size_t count, const void *from)
{
	json_t *object = json_object();

	for (size_t i = 0; i < count; i++) {
		const u8 *at = (const u8 *)from + members[i].offset;
		json_t *value = NULL;

		switch (members[i].kind) {
		case NUMBER:
			value = json_integer(*(const u32 *)at);
			break;
		case SWITCH:
			value = json_boolean(*(const bool *)at);
			break;
		case TEXT:
			value = json_string((const char *)at);
			break;
		}
		if (json_object_set_new(object, members[i].name, value)) {
			json_decref(object);
			return NULL;
		}
	}
	return object;
}

static bool unpack(const struct member *members, size_t count, json_t *from, void *to)
{
	for (size_t i = 0; i < count; i++) {
		u8 *at = (u8 *)to + members[i].offset;
		const json_t *value = json_object_get(from, members[i].name);
		json_int_t n;

		switch (members[i].kind) {
		case NUMBER:
			n = json_integer_value(value);
			if (!json_is_integer(value) || n < 0 || n > UINT32_MAX)
				return false;
			*(u32 *)at = (u32)n;
			break;
		case SWITCH:
			if (!json_is_boolean(value))
				return false;
			*(bool *)at = json_is_true(value);
			break;
		case TEXT:
			if (!json_is_string(value) || json_string_length(value) >= members[i].size)
				return false;
			memcpy(at, json_string_value(value), json_string_length(value) + 1);
			break;
		}
	}
	return true;
}

json_t *learned_pack_disk(const struct disk *disk)
{
	return pack(disk_members, ARRAY_SIZE(disk_members), disk);
}

bool learned_unpack_disk(json_t *from, struct disk *disk)
{
	return unpack(disk_members, ARRAY_SIZE(disk_members), from, disk);
}

json_t *learned_pack_tap(const struct tap *tap)
{
	json_t *object = pack(tap_members, ARRAY_SIZE(tap_members), tap);
	char mac[18];

	snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", tap->mac[0], tap->mac[1],
		 tap->mac[2], tap->mac[3], tap->mac[4], tap->mac[5]);
	if (object && json_object_set_new(object, "mac", json_string(mac))) {
		json_decref(object);
		return NULL;
	}
	return object;
}

bool learned_unpack_tap(json_t *from, struct tap *tap)
{
	const char *mac = json_string_value(json_object_get(from, "mac"));
	u8 *m = tap->mac;

	if (!mac || strlen(mac) != 17 ||
	    sscanf(mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &m[0], &m[1], &m[2], &m[3], &m[4],
		   &m[5]) != 6 ||
	    m[0] & 1)
		return false;
	return unpack(tap_members, ARRAY_SIZE(tap_members), from, tap);
}
