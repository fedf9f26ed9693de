/* gemm_choices.h - algorithms that were timed once, kept in a file for the processes that follow.
 *
 *     <checksum> 0 64 14336 4096 16 <8 words of the library's>        a line each, in hexadecimal, appended as it is found
 *        └ over the line and the maker: the library's version and the device. What another one chose, a torn line, one that
 *          somebody changed: all look the same, and are passed over
 *
 * Always: a choice is a proposal: who takes one asks the library first whether it serves (gemm_lt.c). A file that cannot be read or
 * written costs the timing, never the start. It is in the cache folder ($BANYAN_CACHE), its writers append whole lines.
 * Owner: gemm_lt.c. */
#ifndef GPU_WORKER_CUDA_GEMM_CHOICES_H
#define GPU_WORKER_CUDA_GEMM_CHOICES_H

#include "common/base/base.h"

enum { GEMM_ALGO_WORDS = 8 };

struct gemm_choice {
    uint32_t kind, m, n_out, n_in, y_align; /* kind: enum gemm_kind */
    uint64_t algo[GEMM_ALGO_WORDS];         /* the library's, as they are */
};

struct gemm_choices;
/* path NULL: nothing is kept. maker: whose choices count, for instance "130100 NVIDIA H100 80GB HBM3 sm_90". */
struct gemm_choices *gemm_choices_new(const char *path, const char *maker);
void gemm_choices_free(struct gemm_choices *c);
uint32_t gemm_choices_count(const struct gemm_choices *c);
/* NULL: none of this shape. Borrowed until the next call. */
const struct gemm_choice *gemm_choices_find(const struct gemm_choices *c,
                                            const struct gemm_choice *like);
void gemm_choices_add(struct gemm_choices *c, const struct gemm_choice *x); /* to the file too */

#endif
