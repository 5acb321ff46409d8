/*
 * make-initramfs KERNEL MODULES-FOLDER FILE MODULE,... KEY=VALUE...: the initramfs that `vmm run`
 * makes, as a file, for guests that are booted in other ways than its own. MODULES-FOLDER may be
 * "", for none given.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sendfile.h>
#include <unistd.h>
#include "run/initramfs.h"

int main(int argc, char **argv)
{
	struct modules *modules;
	struct bytes conf = { 0 };
	off_t at = 0;
	int from, to;

	if (argc < 5) {
		fprintf(stderr, "usage: %s KERNEL FOLDER FILE MODULE,... KEY=VALUE...\n", argv[0]);
		return 2;
	}
	if (modules_open(&modules, argv[1], *argv[2] ? argv[2] : NULL))
		return 1;
	for (char *name = strtok(argv[4], ","); name; name = strtok(NULL, ","))
		if (modules_want(modules, name, "the test") < 0)
			return 1;
	for (int i = 5; i < argc; i++) {
		char *value = strchr(argv[i], '=');

		if (!value)
			return 2;
		*value = '\0';
		run_conf_add(&conf, argv[i], value + 1);
	}
	from = initramfs_make(modules, &conf);
	to = open(argv[3], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (from < 0 || to < 0)
		return 1;
	while (sendfile(to, from, &at, MIB(16)) > 0)
		;
	free(conf.start);
	modules_close(modules);
	return 0;
}
