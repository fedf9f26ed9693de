/* attention_world.h - three sequences whose keys and values go into pages, and attention over them, on both backends.
 *
 *     case ─▶ rows of random numbers ─kv_write▶ pages, NaN wherever nobody may look ─attention▶ out: CUDA's beside portable C's
 *
 * Always: both backends start from the same numbers, and nothing outside of out is written.
 * Owner: the test program. */
#ifndef TESTS_CUDA_ATTENTION_WORLD_H
#define TESTS_CUDA_ATTENTION_WORLD_H

#include "gpu_worker/backend.h"

struct attention_case {
    uint32_t n_heads, n_kv_heads, k_dim, v_dim, page_size, window;
    enum kv_dtype dtype;
    float softcap, scale; /* scale 0: 0.3 */
    float q_size;         /* of plain queries, 0: 1; scores stay as large */
    bool has_sinks, is_full, is_latent, is_whole, is_interleaved, norm_is_last;
    struct growth q_growth;
    bool is_plain;   /* no norm, no rotation: both backends keep the same keys */
    bool is_on_grid; /* that, and keys and values are numbers that FP8 keeps as they are */
    enum norm_kind kind;
    uint32_t done[3], n[3]; /* tokens in the pages before the last step, and in it */
    double tolerance;
};

struct attention_world {
    const struct attention_case *k;
    struct backend *b;
    struct kv_shape kv;
    float *x, *out;
    void *pool;
    struct rope_table *rope;
    const struct norm *q_norm, *k_norm;
    const float *sinks;
};

/* Sequences of done + n tokens: first all but the last n, then those; both backends from the same numbers. */
void attention_check(const struct attention_case *k);
/* Rows of w->x into the pages, and attention of all of them when wants_output. */
void attention_run(struct attention_world *w, const struct seq_rows *seqs, uint32_t n_seqs,
                   uint32_t ld, uint32_t out_ld, const uint32_t *positions, uint32_t n_rows,
                   bool wants_output);
/* The nearest number of E4M3, of two the one with the even code. */
float attention_nearest_e4m3(float x);

#endif
