/* See json-library.h. */
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include "machine/json-library.h"
#include "vm/log.h"

#define FILE_NAME "libjansson.so.4"

struct json_library json_library;

/* In the order of struct json_library's members. */
static const char names[] =
#define F(name) "json_" #name "\0"
	JSON_LIBRARY_FUNCTIONS(F);
#undef F

int json_library_load(void)
{
	void **function = (void **)&json_library;
	void *library;

	if (*function)
		return 0;
	library = dlopen(FILE_NAME, RTLD_NOW | RTLD_LOCAL);
	for (const char *name = names; library && *name; name = strchr(name, '\0') + 1)
		if (!(*function++ = dlsym(library, name)))
			library = NULL;
	if (!library) {
		json_library.array_get_ = NULL;
		log_line("the control socket needs %s, 2.12 or newer; install it (apt install "
			 "libjansson4)",
			 FILE_NAME);
		return -ENOENT;
	}
	json_library.object_seed_(0);
	return 0;
}
