/* What vmm says about itself, on standard output. Main thread. */
#ifndef MACHINE_PAGES_H
#define MACHINE_PAGES_H

/* --help (fits an 80x24 screen), `vmm run --help`, the man page's roff, and --version. */
enum page { PAGE_HELP, PAGE_RUN_HELP, PAGE_MAN, PAGE_VERSION };

/* Prints it. 0, or -errno after a line (liblzma is not installed; standard output takes nothing). */
int page_print(enum page page);

#endif
