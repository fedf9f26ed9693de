/* attention.h - the ways to attend, from which attention.cu chooses, and what they share.
 *
 *     spans   one row, one kv head, up to 8 of its query heads, keys of one span of 256 positions; f32. Decode. Parts of a row's
 *             spans are merged in their order. A span goes
 *         by heads    16 of them at a time, mma: latent keys of up to 576 columns
 *         by strips   of 16 keys, mma: others of up to 256; neither over a cache of f32
 *         by lanes    else
 *     tiles   a block: 64 rows of one sequence, one query head of up to 256 columns; mma. Prompts
 *     wgmma   a block: 128 rows of one sequence, one query head of up to 128. The same on sm_90a, with caches that need no
 *             unpacking
 *     latent  a block: 64 rows of one sequence, each with one query head of up to 576 columns (values: 512); mma. Prompts whose
 *             values are their keys' first columns, or too wide for tiles
 *
 * Always: spans lie on a fixed grid of positions, so that a row's bits do not depend on what else is in the step.
 * Owner: the gpu worker's main thread. Compiles as C++. */
#ifndef GPU_WORKER_CUDA_ATTENTION_H
#define GPU_WORKER_CUDA_ATTENTION_H

#include "gpu_worker/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What kernels need of an op_attention. */
struct attend {
    const float *q;
    uint32_t q_ld, q_col, n_heads, group; /* group: query heads a kv head */
    float scale, softcap;
    uint32_t window;
    const float *sinks;
    uint32_t k_dim, v_dim, page_size;
    struct cuda_kv y;
    const uint8_t *pool;
    float *out;
    uint32_t out_ld, out_col;
    const struct cuda_row *rows;
    const uint32_t *pages;
};

/* Keys from … to - 1 of a row, in one span; part: where the result goes. An item with from == to is none. */
struct attend_item {
    uint32_t row, from, to, part;
};
/* A row's parts: n from first on. */
struct attend_merge {
    uint32_t row, first, n;
};
/* What is asked of spans. */
struct span_args {
    struct attend a;
    const struct attend_item *items;
    float *parts; /* [part][n_heads][v_dim + 2]: sums, then max and mass */
};

/* n rows of a sequence from `row` on; keys from … to - 1 are seen by some of them. */
struct attend_tile {
    uint32_t row, n, from, to;
};

/* Rows [first, first + n) of sequence s, in tiles of n_each; those with the most keys first. Staged once a run for each kind
 * of room. */
const struct attend_tile *attention_tiles_of(struct cuda *c, const struct op_attention *o,
                                             const struct seq_rows *s, uint32_t first, uint32_t n,
                                             uint32_t n_each, uint32_t room);
/* The same rows, by tiles; only what fits them. */
bool attention_fits_tiles(const struct op_attention *o);
void attention_tiles(struct cuda *c, const struct op_attention *o, const struct attend *a,
                     const struct seq_rows *s, uint32_t first, uint32_t n);
bool attention_fits_wgmma(const struct cuda *c, const struct op_attention *o);
void attention_wgmma(struct cuda *c, const struct op_attention *o, const struct attend *a,
                     const struct seq_rows *s, uint32_t first, uint32_t n);
bool attention_fits_latent(const struct op_attention *o);
/* Rows [first, first + n) of one sequence. */
void attention_latent(struct cuda *c, const struct op_attention *o, const struct attend *a,
                      uint32_t first, uint32_t n);
/* Rows [first, first + n) of the op, a row after the other. */
void attention_spans(struct cuda *c, const struct op_attention *o, const struct attend *a,
                     uint32_t first, uint32_t n);
/* Parts of n items; only what fits. */
bool attention_fits_heads(const struct op_attention *o);
void attention_heads(struct cuda *c, enum kv_dtype t, const struct span_args *s, uint32_t n_items);
bool attention_fits_strips(const struct op_attention *o);
void attention_strips(struct cuda *c, enum kv_dtype t, const struct span_args *s, uint32_t n_items);

#ifdef __cplusplus
}
#endif
#endif
