/*
 * jansson, which reads the control socket's requests and `vmm ctl`'s answers: loaded where there is
 * a socket, so that no other start pays for it. Its functions keep their names.
 */
#ifndef MACHINE_JSON_LIBRARY_H
#define MACHINE_JSON_LIBRARY_H

#include <jansson.h>
#include "vm/types.h"

/* clang-format off */
#define JSON_LIBRARY_FUNCTIONS(F)                                                              \
	F(array_get) F(array_size) F(delete) F(dumpf) F(dumps) F(false) F(integer)           \
	F(integer_value) F(loadb) F(loads) F(object) F(object_get) F(object_seed)              \
	F(object_set_new) F(string) F(string_length) F(string_value) F(true)      \
	F(unpack_ex)
/* clang-format on */

struct json_library {
#define F(name) __typeof__(json_##name) *name##_;
	JSON_LIBRARY_FUNCTIONS(F)
#undef F
};

extern struct json_library json_library;

/* Loads it, and has it read what it wants of the host's chance (json_object_seed()); once for the
 * life of the process. 0; -ENOENT after a line. Main thread, before the sandbox. */
int json_library_load(void);

static inline void json_library_decref(json_t *json)
{
	if (json && json->refcount != (size_t)-1 && !JSON_INTERNAL_DECREF(json))
		json_library.delete_(json);
}

#define json_decref	    json_library_decref
#define json_array_get	    json_library.array_get_
#define json_array_size	    json_library.array_size_
#define json_dumpf	    json_library.dumpf_
#define json_dumps	    json_library.dumps_
#define json_false	    json_library.false_
#define json_integer	    json_library.integer_
#define json_integer_value  json_library.integer_value_
#define json_loadb	    json_library.loadb_
#define json_loads	    json_library.loads_
#define json_object	    json_library.object_
#define json_object_get	    json_library.object_get_
#define json_object_set_new json_library.object_set_new_
#define json_string	    json_library.string_
#define json_string_length  json_library.string_length_
#define json_string_value   json_library.string_value_
#define json_true	    json_library.true_
#define json_unpack_ex	    json_library.unpack_ex_

#endif
