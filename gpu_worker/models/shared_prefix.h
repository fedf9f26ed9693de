/* shared_prefix.h - the decoding sequences of a step, in an order in which those whose pages begin alike stand together.
 *
 *     pages   7 3 9 4        common, in pages: 0
 *             7 3 9 5                          3        sorted by page numbers: a sequence has its longest common
 *             7 3 2                            2        beginning with a neighbour, as in the scheduler's tree
 *             8 1                              0
 *
 * Always: only whole pages in front of a sequence's first row count, which nobody writes to any more.
 * Owner: the decoder, on the gpu worker's main thread. */
#ifndef GPU_WORKER_MODELS_SHARED_PREFIX_H
#define GPU_WORKER_MODELS_SHARED_PREFIX_H

#include "gpu_worker/backend.h"

/* Fills order and common, [n_seqs] each, from the sequences that have one row in the step; returns how many there are. */
uint32_t shared_prefix_find(const struct seq_rows *seqs, uint32_t n_seqs, uint32_t page_size,
                            uint32_t *order, uint32_t *common);

#endif
