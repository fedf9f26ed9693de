/* cpu_kernels.h - what an instruction set brings: the inner loops, and the two memory layouts they agree on.
 *
 *     a strip = 16 rows of a weight. Per block of 32 columns, lines of 64 bytes: byte 4r + t of line j belongs to row r,
 *     column 4j + t; 4-bit weights put columns 0 … 15 into low nibbles and 16 … 31 into high ones of the same 4 lines:
 *
 *         | scales of the blocks | block 0: 4 lines (nibbles), 8 (bytes), + 1 (fifth bits) or + 2 (bit pairs) | block 1 | … |
 *         2 bits: line 0 has columns 0 … 15 in its bit pairs, four at a time, line 1 the others; + 1 line (third bits)
 *         f32, f16: [column][16]        bf16: [column / 2][16][2]
 *
 *     an activation tile = T rows side by side. Per block of 32 columns, words of 4 bytes:
 *
 *         | 8 x T: four int8 | T: scale s | T: s * sum | T: -offset * sum |          sum: of the int8 values
 *         | 8 x T: four int8 | T: s | 2 x T: s * sum of 16 columns | 2 x T: -offset * sum of 16 |     (I8X2)
 *         f32: [column][T]        bf16: [column / 2][T][2]
 *
 * Always: lanes are output rows, and an output is one chain over the blocks in order. So its bits depend neither on T
 * nor on who computes its neighbours, and integer kernels agree bit for bit between instruction sets.
 * Owner: constant tables; kernels touch only what they are handed. */
#ifndef GPU_WORKER_CPU_CPU_KERNELS_H
#define GPU_WORKER_CPU_CPU_KERNELS_H

#include "gpu_worker/backend.h"

enum {
    CPU_STRIP = 16, /* rows of a weight that lie together */
    /* rows of an activation tile, at most: 12 sums and 12 totals fill 24 of 32 registers */
    CPU_TILE_MAX = 12,
    CPU_FOUR_MAX = 2, /* rows of a tile that takes four strips at once, at most */
    CPU_KEYS = 64,    /* keys of an attention block */
    CPU_GROUP = 16,   /* keys that lie together in a page */
    CPU_SPAN = 256,   /* keys of a span: its sums start from nothing and are then merged in order */
    CPU_ALIGN = 64,
};

/* M(a, 1) … M(a, n): a kernel for each number of rows. */
#define CPU_EACH(n, M, a) CPU_EACH_(n, M, a)
#define CPU_EACH_(n, M, a) CPU_EACH_##n(M, a)
#define CPU_EACH_0(M, a)
#define CPU_EACH_1(M, a) CPU_EACH_0(M, a) M(a, 1)
#define CPU_EACH_2(M, a) CPU_EACH_1(M, a) M(a, 2)
#define CPU_EACH_3(M, a) CPU_EACH_2(M, a) M(a, 3)
#define CPU_EACH_4(M, a) CPU_EACH_3(M, a) M(a, 4)
#define CPU_EACH_5(M, a) CPU_EACH_4(M, a) M(a, 5)
#define CPU_EACH_6(M, a) CPU_EACH_5(M, a) M(a, 6)
#define CPU_EACH_7(M, a) CPU_EACH_6(M, a) M(a, 7)
#define CPU_EACH_8(M, a) CPU_EACH_7(M, a) M(a, 8)
#define CPU_EACH_9(M, a) CPU_EACH_8(M, a) M(a, 9)
#define CPU_EACH_10(M, a) CPU_EACH_9(M, a) M(a, 10)
#define CPU_EACH_11(M, a) CPU_EACH_10(M, a) M(a, 11)
#define CPU_EACH_12(M, a) CPU_EACH_11(M, a) M(a, 12)

/* How a weight is packed. The first three are plain numbers. */
enum cpu_format {
    CPU_F32,
    CPU_F16,
    CPU_BF16,   /* times f32 activations */
    CPU_BF16X2, /* the same bytes, times bf16 activations */
    CPU_Q4_0,
    CPU_Q4_1,
    CPU_Q8_0,
    CPU_Q5_0,
    CPU_Q5_1,
    CPU_IQ4_NL,
    CPU_MXFP4,
    CPU_Q4_K,
    CPU_Q5_K,
    CPU_Q6_K,
    CPU_Q3_K,
    CPU_Q2_K,
    CPU_IQ4_XS,
    CPU_IQ, /* IQ1, IQ2 and IQ3: the levels go before a strip's first group */
    CPU_N_FORMATS,
};

enum cpu_act { CPU_ACT_F32, CPU_ACT_BF16, CPU_ACT_I8, CPU_ACT_I8X2 };

/* out[t * ld + 0 … 15] = strip . row t of the tile; in `two`, also out[t * ld + 16 …] = the strip `next` bytes on; in
 * `four`, the two strips after these as two more, `rows of the tile` * ld further. */
typedef void cpu_linear_fn(const uint8_t *strip, size_t next, uint32_t n_in, const void *tile,
                           float *out, uint32_t ld);

/* Row t of a tile of n_rows, from n_in f32; offset: as the weight has it (cpu_formats.h). */
typedef void cpu_fill_fn(void *tile, uint32_t n_rows, uint32_t t, const float *x, uint32_t n_in,
                         int32_t offset);

struct cpu_linear_kernel {
    uint32_t tile_max;                     /* rows of a tile; 0: no kernel */
    cpu_linear_fn *one[CPU_TILE_MAX + 1];  /* by rows of the tile */
    cpu_linear_fn *two[CPU_TILE_MAX + 1];  /* two strips at once, or NULL */
    cpu_linear_fn *four[CPU_FOUR_MAX + 1]; /* four, or NULL */
};

/* What becomes of 16 sums: see op_linear. */
struct cpu_finish {
    const float *bias; /* of these 16 (gated: 32) rows, or NULL */
    enum act_kind act;
    bool is_gated; /* sums 16 … 31 are the up projection's */
    bool is_add;
    float scale, softcap;
    uint32_t n; /* columns to write, 1 … 16 */
};

/* Up to 64 keys of one head, at positions from a multiple of 64 on. */
struct cpu_keys {
    const uint8_t *group[CPU_KEYS / CPU_GROUP]; /* those that [from, to) touches */
    uint32_t from, to;                          /* keys that some row sees, 0 … 64 */
    uint32_t position;                          /* of key 0 */
    uint32_t k_dim, v_dim, v_pad;               /* v_pad: v_dim rounded up to 16 */
    uint32_t v_at, scale_at;                    /* bytes from a group's start */
    bool v_in_k;                                /* values: the keys' first columns */
};

/* Query rows that share keys, and their running softmax. */
struct cpu_rows {
    const float *q; /* [k_dim][n_rows], scaled */
    float softcap;
    uint32_t first[CPU_TILE_MAX], end[CPU_TILE_MAX]; /* row sees positions first … end - 1 */
    float max[CPU_TILE_MAX], sum[CPU_TILE_MAX];
    float *acc;    /* [n_rows][v_pad] */
    float *scores; /* [2 * n_rows][CPU_KEYS], room */
};

typedef void cpu_attend_fn(const struct cpu_keys *k, struct cpu_rows *r);

/* One sequence's rows, of op_conv. */
struct cpu_conv {
    const float *x; /* its first row, as out */
    uint32_t ld, n_rows, width, size, in_gate_col, out_gate_col;
    const float *w, *bias;
    float *window; /* [size - 1, width] */
    float *out;
    uint32_t out_ld;
    enum act_kind act;
    bool is_new; /* nothing lies before these rows, whatever the window says */
};

/* One sequence's rows, of a head of op_delta. */
struct cpu_delta {
    const float *x; /* its first row, as out */
    uint32_t ld, n_rows, q_col, k_col, v_col, z_col, b_col, a_col, k_dim, v_dim;
    float decay, dt;
    const struct norm *norm;
    float *state; /* [strips of v_dim][k_dim][16] */
    float *out;
    uint32_t out_ld;
};

/* One sequence's rows, of a head of op_ssm. */
struct cpu_ssm {
    const float *x; /* its first row, as out */
    uint32_t ld, n_rows, x_col, k_col, q_col, z_col, t_col, k_dim, v_dim;
    float decay, dt, skip, step_min, step_max;
    float *state; /* as cpu_delta's */
    float *out;
    uint32_t out_ld;
};

struct cpu_kernels {
    const char *name;
    uint32_t attend_rows; /* rows of a tile of queries */
    struct cpu_linear_kernel linear[CPU_N_FORMATS];
    cpu_fill_fn *fill[CPU_ACT_I8X2 + 1];
    /* y = x less what int8 keeps of it; y may be x. */
    void (*remainder)(const float *x, uint32_t n_in, float *y);
    /* Rows of sums lie 32 apart; row i goes to y + rows[i] * y_ld (rows NULL: i). */
    void (*finish)(const struct cpu_finish *f, const float *sums, uint32_t n_rows, float *y,
                   size_t y_ld, const uint32_t *rows);
    /* y = scale * norm(x), or added to y; norm NULL: scale * x. y may be x. */
    void (*norm)(const struct norm *norm, const float *x, uint32_t n, float *y, bool is_add,
                 float scale);
    void (*scale)(float *x, uint32_t n, float by);                      /* x *= by */
    void (*add_scaled)(float *y, const float *x, uint32_t n, float by); /* y = fma(by, x, y) */
    void (*rotate)(float *x, const float *cos, const float *sin, uint32_t n_rot,
                   bool is_interleaved);
    float (*sigmoid)(float x);
    void (*gate)(float *x, const float *gate, uint32_t n);              /* x *= sigmoid(gate) */
    void (*conv)(const struct cpu_conv *o, uint32_t from, uint32_t to); /* columns [from, to) */
    void (*delta)(const struct cpu_delta *o);
    void (*ssm)(const struct cpu_ssm *o);
    cpu_attend_fn *attend[KV_INT8 + 1][CPU_TILE_MAX + 1]; /* by kv dtype and rows */
    /* Row i of `from` into row i of `into`, for keys later than all of into's. */
    void (*merge)(struct cpu_rows *into, const struct cpu_rows *from, uint32_t i, uint32_t v_pad);
    /* out = acc / sum with the mass of a sink beside it (sink NULL: none) */
    void (*attend_finish)(const struct cpu_rows *r, uint32_t i, uint32_t v_pad, uint32_t v_dim,
                          const float *sink, float *out);
};

extern const struct cpu_kernels cpu_kernels_portable;
extern const struct cpu_kernels cpu_kernels_avx2; /* x86-64 only, as the next two */
extern const struct cpu_kernels cpu_kernels_avx512;
/* AVX-512's CPU_BF16X2 kernels: only where the CPU has BF16. */
extern const struct cpu_linear_kernel cpu_linear_avx512_bf16;
extern cpu_fill_fn *const cpu_fill_avx512_bf16;

#endif
