/* one_batch.h - how fast is the engine without HTTP, scheduler and sockets? Steps made by hand, timed one by one.
 *
 *     8x160x32        8 sequences, prompts of 160 random ids, 32 decode steps
 *     32x640x32+512   the first 512 ids of all 32 are the same, and so are their pages
 *
 * Always: the steps are those that a scheduler would send, so sampling and the mirror are in the time.
 * Owner: the gpu worker's main thread, instead of serving. */
#ifndef GPU_WORKER_ONE_BATCH_H
#define GPU_WORKER_ONE_BATCH_H

#include "gpu_worker/worker.h"

struct one_batch {
    uint32_t n_seqs, n_input, n_output, n_shared;
};

/* "8x160x32,1x512x1" into a list; *out is yours (by_free). */
BY_MUST_USE int one_batch_parse(const char *text, struct one_batch **out, uint32_t *n,
                                struct by_err *err);
/* Runs one shape and prints its row on stdout; chunk: prompt tokens a step. */
BY_MUST_USE int one_batch_run(struct worker *w, const struct mirror_limits *limits, uint32_t chunk,
                              const struct one_batch *shape, struct by_err *err);
void one_batch_print_header(void);

#endif
