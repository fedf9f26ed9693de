/* cuda.h - what the files of this room share: the backend, a packed weight, the KV layout, scratch.
 *
 *     struct cuda = struct backend (first) + port (the device) + queue (commands of a run) + one lane
 *
 *     weight   a row:  | values, 1 … 32 bits each | scales |      k_pad columns, row_bytes a multiple of 16
 *                      gated: gate 0, up 0, gate 1, up 1 …         a pair lies side by side in whatever computes both
 *     page     | kv head 0: K [page_size][k_pad]  V [page_size][v_pad]  scales: of keys, of values | kv head 1 … |
 *              values that are their keys' first columns (MLA) are kept once: V is K, and so are the scales
 *
 * Always: padding columns of weights and pages are zero. A step allocates nothing: scratch is sized when weights and pools
 * are made. An op only adds commands; what a device says is found out by cuda_wait.
 * Owner: the gpu worker's main thread. Compiles as C++ for the kernels. */
#ifndef GPU_WORKER_CUDA_CUDA_H
#define GPU_WORKER_CUDA_CUDA_H

#ifdef __cplusplus
extern "C" {
#endif

#include "gpu_worker/backend.h"
#include "gpu_worker/cuda/cuda_module.h"
#include "gpu_worker/cuda/gemm.h"
#include "gpu_worker/cuda/queue.h"

enum {
    CUDA_BLOCK_ROWS = 1024, /* rows whose activations are prepared at a time */
    /* keys that one block attends to; a fixed grid over positions, so that bits do not move */
    CUDA_SPAN = 256,
    CUDA_PART_BYTES = 64 << 20,
    CUDA_GRID_Y = 65535, /* blocks of a grid in y and z; in x there may be 2^31 */
    CUDA_ROWS_FEW = 8,   /* rows up to which a product is bound by the reading of the weight */
};

/* Numbers of a packed weight: bits each, and columns that share scales with the bytes of these. _K: f16 d and dmin, then a
 * byte of scale for 16 columns, or two of scale and minimum for 32. L: before a row's scales stand its type's 16 levels. */
#define CUDA_FORMATS(X, ...) \
    X(F32, 32, 8, 0, __VA_ARGS__) \
    X(BF16, 16, 8, 0, __VA_ARGS__) \
    X(F16, 16, 8, 0, __VA_ARGS__) \
    X(Q4, 4, 32, 4, __VA_ARGS__)     /* d * q + m, d and m f16 */ \
    X(Q5, 4, 32, 8, __VA_ARGS__)     /* the same; behind d and m the fifth bits */ \
    X(Q8, 8, 32, 2, __VA_ARGS__)     /* d * q, d f16 */ \
    X(L4, 4, 32, 2, __VA_ARGS__)     /* d * levels[q], d f16 */ \
    X(Z4, 4, 32, 4, __VA_ARGS__)     /* d * (q - z), d and z f16 */ \
    X(F4, 4, 32, 4, __VA_ARGS__)     /* s * e2m1, s f32 */ \
    X(F8, 8, 32, 4, __VA_ARGS__)     /* s * e4m3, s f32 */ \
    X(Q2_K, 2, 256, 20, __VA_ARGS__) /* d * scale * q - dmin * min, both in one byte */ \
    X(Q3_K, 3, 256, 20, __VA_ARGS__) /* d * scale * (q - 4) */ \
    X(Q4_K, 4, 256, 20, __VA_ARGS__) /* d * scale * q - dmin * min */ \
    X(Q5_K, 5, 256, 20, __VA_ARGS__) /* the same */ \
    X(Q6_K, 6, 256, 20, __VA_ARGS__) /* d * scale * (q - 32) */ \
    X(L4_K, 4, 256, 20, __VA_ARGS__) /* d * scale * levels[q], d f32 */

#define CUDA_FORMAT_NAME(name, bits, block, scale_bytes, ...) CUDA_##name,
enum cuda_format { CUDA_FORMATS(CUDA_FORMAT_NAME, ) CUDA_N_FORMATS };
#define CUDA_FORMAT_IS_K(f) ((f) >= CUDA_Q2_K)
#define CUDA_FORMAT_HAS_LEVELS(f) ((f) == CUDA_L4 || (f) == CUDA_L4_K)

struct cuda_layout {
    uint16_t bits, block, scale_bytes;
};
#define CUDA_FORMAT_LAYOUT(name, bits, block, scale_bytes, ...) {bits, block, scale_bytes},

struct weight {
    enum cuda_format format;
    uint32_t n_out, n_in, k_pad, scale_at; /* scale_at: bytes from a row's start */
    uint64_t row_bytes;
    bool is_gated;
    /* CUDA_F8: so many blocks of 32 columns side by side have one scale, in each row */
    uint32_t scale_run;
    /* CUDA_F8: how prompts are multiplied by it in FP8; GEMM_BF16: they are not */
    enum gemm_kind f8;
    float *f8_scales; /* device: of all rows as the library takes them, gemm.h; NULL: each product
                         gathers its own */
    uint8_t *rows;    /* device: [n_out][row_bytes], gated rows by pairs */
    float *bias;      /* device: [n_out] in the order of rows, or NULL */
};

struct rope_table {
    uint32_t n_half, n_positions;
    float *cos, *sin; /* device: [n_positions, n_half] */
};

struct cuda_kv {
    uint32_t k_pad, v_pad;            /* columns */
    uint32_t k_step, v_step;          /* bytes from a token's row to the next one's */
    uint64_t v_at, scale_at, v_scale; /* v_scale: of the head's scales, that of its first value */
    uint64_t head_bytes, page_bytes;
};
#define CUDA_KV_IS_SCALED(dtype) ((dtype) == KV_INT8 || (dtype) == KV_FP8)

/* One row of a step as kernels see it: what it may see, and where its pages are listed. */
struct cuda_row {
    uint32_t position, end, first_page; /* keys 0 … end - 1 */
};

struct cuda;
struct lane {
    struct cuda *cuda;
    uint32_t n_taken;
};

/* Device pointers of the weights of an array (experts, heads), made when first met. */
struct cuda_table {
    const void *key;
    const void **at; /* device */
    uint32_t n;
    bool is_bias;
};
enum { CUDA_TABLES_MAX = 1024 };

enum cuda_purpose { CUDA_MEM_WEIGHTS, CUDA_MEM_KV, CUDA_MEM_OTHER };

struct cuda {
    struct backend b; /* first: the two are cast into each other */
    struct port *port;
    struct port_device device;
    struct queue *queue;
    struct lane lane;
    bool is_held; /* what is run is of one list, from hold to go */
    struct cuda_options options;
    char name[160];
    float *prepared; /* [CUDA_BLOCK_ROWS, widest k_pad]: rows normed and padded, f32 or bf16 */
    uint32_t prepared_pad; /* that widest k_pad */
    float *parts;          /* scratch of one op */
    size_t part_bytes;     /* CUDA_PART_BYTES, or what a test has set before the first weight */
    struct cuda_table tables[CUDA_TABLES_MAX];
    uint32_t n_tables;
    float *host; /* pinned: what get gives */
    size_t host_bytes;
    struct gemm *gemm;        /* NULL: no library for large products */
    struct cuda_group *group; /* NULL: none, or sums go through the host */
    void *sums; /* NULL, or memory of the group's library, which ranks can read of each other */
    size_t sums_bytes;
    uint32_t proven; /* bits of enum proven_way */
    uint64_t n_bytes[3];
    struct chunk *chunks[3]; /* arenas by purpose */
};

static inline struct cuda *cuda_of(struct backend *b) {
    return (struct cuda *)b;
}

/* ---- memory (memory.c) ---- */
void *cuda_alloc(struct cuda *c, size_t bytes, enum cuda_purpose what); /* zeroed; NULL: none */
void cuda_free(struct cuda *c, void *p);
void cuda_free_all(struct cuda *c);
/* Scratch for weights this wide; false: no memory. */
BY_MUST_USE bool cuda_reserve(struct cuda *c, uint32_t k_pad);
/* n numbers as they are once all that was given before is done, in pinned memory with room for n_more behind them; until the
 * next call. NULL: no memory, or the device failed. */
float *cuda_get(struct cuda *c, const float *p, size_t n, size_t n_more);
/* Device pointers to the rows of n weights, or to their biases (NULL: they have none). */
const uint8_t *const *cuda_weights(struct cuda *c, const struct weight *const *w, uint32_t n);
const float *const *cuda_biases(struct cuda *c, const struct weight *const *w, uint32_t n);

/* ---- weights (weights.c) ---- */
int cuda_weight_new(struct backend *b, struct weight **out, const struct weight_source *src,
                    struct by_err *err);
void cuda_weight_free(struct backend *b, struct weight *w);

/* ---- steps (plan.c) ---- */
/* What is made of a step's sequences and staged once a run: variants of queue_room. */
enum {
    CUDA_ROOM_ROWS = 1,
    CUDA_ROOM_FULL,
    CUDA_ROOM_PAGES,
    CUDA_ROOM_ITEMS,
    CUDA_ROOM_TILES,
    CUDA_ROOM_WGMMA
};
struct cuda_kv cuda_kv_of(const struct kv_shape *s);
/* The rows of a step and their page lists, staged once a run. */
const struct cuda_row *cuda_rows(struct cuda *c, const struct seq_rows *seqs, uint32_t n_seqs,
                                 uint32_t page_size, bool is_full, const uint32_t **pages);

/* ---- the ops ---- */
void cuda_embed(struct lane *l, const struct op_embed *o);
void cuda_linear(struct lane *l, const struct op_linear *o);
void cuda_linear_heads(struct lane *l, const struct op_linear_heads *o);
void cuda_norm(struct lane *l, const struct op_norm *o);
void cuda_kv_write(struct lane *l, const struct op_kv_write *o);
void cuda_attention(struct lane *l, const struct op_attention *o);
void cuda_route(struct lane *l, const struct op_route *o);
void cuda_experts(struct lane *l, const struct op_experts *o);
void cuda_gate(struct lane *l, const struct op_gate *o);
void cuda_conv(struct lane *l, const struct op_conv *o);
void cuda_delta(struct lane *l, const struct op_delta *o);
void cuda_ssm(struct lane *l, const struct op_ssm *o);
void cuda_copy(struct lane *l, const struct op_copy *o);
void cuda_sample(struct lane *l, const struct op_sample *o);
int cuda_sum(struct lane *l, float *x, size_t n, int (*on_host)(void *ctx, float *x, size_t n),
             void *ctx);
int cuda_gather(struct lane *l, const struct op_gather *o,
                int (*on_host)(void *ctx, const float *x, size_t n, float *all), void *ctx);
/* Fills cos and sin of t. */
void cuda_rope_fill(struct cuda *c, const struct rope_table *t, const float *inv_freq,
                    float mscale);

#ifdef __cplusplus
}
#endif
#endif
