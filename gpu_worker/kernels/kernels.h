/* kernels.h - libbanyan_kernels: what the Transformers worker calls from Python by ctypes; plain C types and pointers.
 *
 *     attention over a KV pool indexed by slots, a slot a token:
 *
 *     sequence i:  its queries are rows q_start[i] … q_start[i + 1] - 1 of q; its keys the first kv_len[i] tokens of
 *                  pages table[i][0], table[i][1], …, token t at slot table[i][t / page_size] · page_size + t % page_size
 *     query row r of sequence i stands at position kv_len[i] - (q_start[i + 1] - r) and sees position p when
 *                  p <= own,  own - p < window (if any),  p >= own / chunk · chunk (if any)
 *
 * Always: a row's result depends on its own keys (product: its own x) only, in one fixed order: not on the batch or the
 * threads.
 * Owner: the caller owns all memory; the library keeps none but what _new returns. */
#ifndef GPU_WORKER_KERNELS_KERNELS_H
#define GPU_WORKER_KERNELS_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#define BANYAN_EXPORT __attribute__((visibility("default")))

enum banyan_dtype { BANYAN_F32 = 0, BANYAN_BF16 = 1 };

/* Which rows a step runs and where their sequences lie: the same for all layers. */
struct banyan_rows {
    const int32_t *q_start; /* [n_seqs + 1] */
    const int32_t *kv_len;  /* [n_seqs] */
    const int32_t *table;   /* [n_seqs, table_stride] pages */
    int64_t table_stride;
    int32_t n_seqs, page_size;
};

struct banyan_attention {
    const struct banyan_rows *rows;
    const void *q; /* [n_rows, n_q_heads, k_dim] by the two strides, in elements; last dim dense */
    /* The rows' own keys and values [n_rows, n_kv_heads, dim], as q; they go into the pools first. NULL: they are there */
    const void *k, *v;
    void *k_pool;       /* [n_slots, n_kv_heads, k_dim] dense */
    void *v_pool;       /* [n_slots, n_kv_heads, v_dim] dense */
    void *out;          /* [n_rows, n_q_heads, v_dim] dense, dtype as q */
    const float *sinks; /* [n_q_heads] a logit that only takes mass (gpt-oss), or NULL */
    int64_t q_row_stride, q_head_stride, k_row_stride, k_head_stride, v_row_stride, v_head_stride;
    int32_t n_q_heads, n_kv_heads, k_dim, v_dim;
    int32_t window, chunk; /* 0: none */
    int32_t dtype;         /* enum banyan_dtype of q, k, v and out */
    int32_t pool_dtype;    /* the same, or bf16 beside f32 */
    float scale, softcap;  /* softcap 0: none */
};

/* As msg_sampling; arrays borrowed for the call. output_ids may be NULL when no penalty is on: the count is enough. */
struct banyan_sampling {
    float temperature, top_p, min_p, frequency_penalty, presence_penalty, repetition_penalty;
    int32_t top_k;
    uint32_t min_new_tokens, top_logprobs, sample, logprobs;
    uint64_t seed;
    const uint32_t *stop_ids, *bias_ids, *logprob_ids, *output_ids;
    const float *bias_values;
    uint32_t n_stop_ids, n_bias, n_logprob_ids, n_output_ids;
};

struct banyan_pick {
    uint32_t id, n_top;
    float logprob;
    uint32_t top_ids[128];
    float top_logprobs[128];
};

/* 0, or -1 when a size makes no sense (nothing is written then). n_threads <= 0: as many as CPUs. */
BANYAN_EXPORT int banyan_attention_run(const struct banyan_attention *a, int n_threads);

struct sampler;
BANYAN_EXPORT struct sampler *banyan_sampler_new(uint32_t n_vocab);
BANYAN_EXPORT void banyan_sampler_free(struct sampler *s);
/* sampler_pick of sampler.h; logits [n_vocab] are changed. chosen: [n_logprob_ids] or NULL. 0, or -1: the row is broken. */
BANYAN_EXPORT int banyan_sampler_pick(struct sampler *s, const struct banyan_sampling *p,
                                      float *logits, struct banyan_pick *out, float *chosen);
/* sampler_score: the log probability of a given id, of the logits as they are. */
BANYAN_EXPORT int banyan_sampler_score(struct sampler *s, const struct banyan_sampling *p,
                                       const float *logits, uint32_t id, struct banyan_pick *out,
                                       float *chosen);

/* The same for n rows at once: row r of logits, which follow one another, by p[r], into out[r] and chosen[r] (an address or 0).
 * failed[r]: 0, or 1 when the row is broken. */
BANYAN_EXPORT void banyan_sampler_pick_all(struct sampler *s,
                                           const struct banyan_sampling *const *p, float *logits,
                                           struct banyan_pick *out, float *const *chosen,
                                           uint8_t *failed, uint32_t n);

/* ---- matrix products as the native worker computes them: a weight packed once, a team of threads (linear.c) ---- */
struct banyan_matrix {
    /* [n_out, n_in] by the two strides, in elements; read while it is packed, not kept */
    const void *w;
    int64_t out_stride, in_stride;
    uint32_t n_out, n_in;
    int32_t dtype; /* enum banyan_dtype of w, and of x and y later */
};

enum banyan_act {
    BANYAN_NO_ACT,
    BANYAN_SILU,
    BANYAN_GELU, /* with erf */
    BANYAN_GELU_TANH,
    BANYAN_RELU,
    BANYAN_RELU2,
    BANYAN_QUICK_GELU
};

struct banyan_team;
struct banyan_linear;
/* n_threads 0: as many as CPUs. NULL: no memory, or no thread could be started. One thread calls it and its products. */
BANYAN_EXPORT struct banyan_team *banyan_team_new(uint32_t n_threads);
BANYAN_EXPORT void banyan_team_free(struct banyan_team *t); /* after its products; NULL is fine */
/* The n parts, of one n_in and dtype, one below the other as one weight; bias [their n_out together] or NULL. With an act there are
 * two parts, gate and up, and the product is act(gate) * up. NULL: sizes out of range, or no memory. */
BANYAN_EXPORT struct banyan_linear *banyan_linear_new(struct banyan_team *t,
                                                      const struct banyan_matrix *parts, uint32_t n,
                                                      const float *bias, int32_t act);
BANYAN_EXPORT void banyan_linear_free(struct banyan_linear *l); /* NULL is fine */
/* y [n_rows, n_out] = x [n_rows, n_in] · w^T + bias, both dense. 0, or -1: no memory. */
BANYAN_EXPORT int banyan_linear_run(struct banyan_linear *l, const void *x, void *y,
                                    uint32_t n_rows);
/* y = down(up(x)), two products of one team; what lies between stays f32. 0, or -1: no memory, or sizes that do not meet. */
BANYAN_EXPORT int banyan_mlp_run(struct banyan_linear *up, struct banyan_linear *down,
                                 const void *x, void *y, uint32_t n_rows);

/* ---- what stands between products (rows.c) ---- */
struct banyan_norm {
    const float *w; /* [width] */
    float eps;
    uint32_t width;
    int32_t dtype; /* of x and y */
    /* bf16: x / rms is rounded before w, as Llama does; else once, as Gemma does */
    int32_t is_early;
};
/* y = x / sqrt(mean(x^2) + eps) * w, rows of x dense and y dense. */
BANYAN_EXPORT void banyan_norm_run(const struct banyan_norm *n, const void *x, void *y,
                                   uint32_t n_rows);

/* Of each head the first n_rot columns turn, column i with i + n_rot / 2; each operation is rounded to the dtype, as in torch. */
struct banyan_rope {
    const void *cos, *sin; /* [n_rows, n_rot] dense */
    const void *q, *k;     /* [n_rows, n_heads, dim] by the strides, in elements; last dim dense */
    void *q_out, *k_out;   /* dense */
    int64_t q_row_stride, q_head_stride, k_row_stride, k_head_stride;
    int32_t n_rows, n_q_heads, n_k_heads, dim, n_rot, dtype;
};
BANYAN_EXPORT void banyan_rope_run(const struct banyan_rope *r);

/* ---- a whole decoder layer of the Llama family (layer.c): one call, f32 inside whatever the dtype ----
 *     x += o(attention(turn(qkv(norm(x)))))        x += down(up(norm(x)))  */
struct banyan_layer {
    struct banyan_linear *qkv, *o, *up,
        *down; /* of one team; up with an act, as in banyan_mlp_run */
    struct banyan_norm attention_norm, mlp_norm; /* is_early is not looked at */
    struct banyan_norm q_norm, k_norm;           /* over each head's columns; w NULL: none */
    /* rows, heads, dims, window, chunk, scale, softcap, pools and their dtype are read; the rest is the layer's own */
    struct banyan_attention attention;
    const void *cos, *sin; /* [n_rows, n_rot] dense, in the dtype of x */
    int32_t n_rot;         /* columns of a head that turn, as in banyan_rope; 0: none */
};
/* y [n_rows, width] from x, both dense; n_rows as in attention.rows. 0; -1: no memory, or sizes that do not meet. */
BANYAN_EXPORT int banyan_layer_run(const struct banyan_layer *l, const void *x, void *y,
                                   uint32_t n_rows);

/* ---- ranks of one model on one host (gpu_worker/tp.h; group.c) ---- */
struct tp;
enum { BANYAN_WHY = 512 };
/* NULL, and why says why [BANYAN_WHY]. A call waits deadline_ms for a rank that is alive but silent, and not at all for a dead one. */
BANYAN_EXPORT struct tp *banyan_group_open(uint32_t world, uint32_t deadline_ms, char *why);
BANYAN_EXPORT struct tp *banyan_group_join(const char *address, uint32_t rank, uint32_t world,
                                           uint32_t deadline_ms, char *why);
BANYAN_EXPORT const char *
banyan_group_address(const struct tp *group); /* of the one that opened it */
BANYAN_EXPORT void
banyan_group_close(struct tp *group); /* the others' calls fail from now on; NULL is fine */
/* x[n] becomes the sum over ranks, in their order. 0, or -1: a rank is gone, and the group with it. */
BANYAN_EXPORT int banyan_group_sum(struct tp *group, float *x, size_t n);
/* all [world, n] from each rank's x [n]. */
BANYAN_EXPORT int banyan_group_gather(struct tp *group, const float *x, size_t n, float *all);

/* common/base/sandbox.h for every thread of the process, which may call other hosts or not. 0, or the errno for which there is none. */
BANYAN_EXPORT int banyan_shut_in(int may_call);

/* What this process may use, its control group's limits included: cores, and bytes of memory that are free. */
BANYAN_EXPORT uint32_t banyan_n_cores(void);
BANYAN_EXPORT uint64_t banyan_free_memory(void);

BANYAN_EXPORT uint32_t banyan_kernels_version(void); /* changes with any struct above */

#endif
