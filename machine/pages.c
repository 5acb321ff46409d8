/*
 * The pages, which were made when vmm was built (vm/pages-generate.c) and are packed: no run needs
 * them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "firmware/decompress.h"
#include "machine/pages.h"
#include "version.h"
#include "vm/log.h"

__asm__(".section .rodata\n"
	"pages: .incbin \"build/pages.xz\"\n"
	"pages_end:\n"
	".previous\n");
extern const u8 pages[], pages_end[];

static int print_packed(enum page page)
{
	u8 *text;
	u64 size;
	int err =
		decompress_file("vmm's own pages", pages, pages_end - pages, MIB(1), &text, &size);
	const char *start = (const char *)text;

	if (err)
		return err;
	while (page--)
		start += strlen(start) + 1;
	fputs(start, stdout);
	free(text);
	return 0;
}

int page_print(enum page page)
{
	int err = 0;

	if (page == PAGE_VERSION)
		puts("vmm " VMM_VERSION);
	else
		err = print_packed(page);
	if (!err && (fflush(stdout) || ferror(stdout))) {
		err = errno ? -errno : -EIO;
		log_line("standard output: %s; write to a place that takes it", strerror(-err));
	}
	return err;
}
