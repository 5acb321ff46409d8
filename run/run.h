/*
 * `vmm run`: a kernel in, a verdict out. From the top: run.c (one kernel or several, files that are
 * left), matrix.c (a child process for each of several), setup.c (the machine and what its init is
 * told), job.c (one machine and its init, followed to a verdict), input.c (the caller's terminal).
 * Main thread.
 */
#ifndef RUN_RUN_H
#define RUN_RUN_H

#include "run/result.h"
#include "vm/milestones.h"

/* All of it; the exit status. config is changed. */
int run_main(struct config *config, const struct milestones *milestones);

/* What a run is given open; -1: not there. */
struct run_files {
	int report; /* takes the JSON object */
	int junit;
	int parent; /* readable when whoever started us has ended */
};

/* One kernel, config->kernel: result begins as zeros. Returns the status, which is in the result,
 * too. */
int run_job(struct config *config, const struct milestones *milestones, struct run_result *result,
	    const struct run_files *files);

/* All of config->run.kernels, each in a child process. Returns the worst status. */
int run_matrix(struct config *config, const struct run_files *files);

#endif
