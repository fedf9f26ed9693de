/* products.h - the ways to a matrix product, from which linear.cu and experts.cu choose.
 *
 *     rows x, normed? ─prepare─▶ c->prepared ─▶ skinny: a warp reads each weight row once for up to 8 rows of x
 *                                          ├──▶ tiles:  mma over tiles of 64 x 64, prompts
 *                                          ├──▶ large:  the vendor's library (gemm.h), where the build has it
 *                                          └──▶ f8:     the same, both in FP8, where the card has shown that it is right
 *
 * Always: a sum's order is fixed by the weight alone within each way, so the bits of a row do not depend on other rows.
 * Owner: the gpu worker's main thread; kernels get the structs by value. Compiles as C++. */
#ifndef GPU_WORKER_CUDA_PRODUCTS_H
#define GPU_WORKER_CUDA_PRODUCTS_H

#include "gpu_worker/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where sums go: y[row, col + out] = or += scale * act(sum + bias), then the cap. */
struct epilogue {
    float *y;
    uint32_t ld, col;
    const float *bias; /* by weight row, or NULL */
    enum act_kind act;
    bool is_add;
    float scale, softcap;
};

struct product {
    const uint8_t *rows; /* of the weight */
    uint64_t row_bytes;
    uint32_t scale_at, n_out, n_in, k_pad;
    bool is_gated;
    const float *x;
    uint32_t x_ld, n; /* n: rows of x */
    uint32_t first;   /* row i of x gives row first + i of y */
    bool x_is_f32;    /* for tiles, which else take bf16 */
    bool is_aligned;  /* 8 columns of x may be read as two float4 */
    struct epilogue e;
    /* Many weights of one shape, by blockIdx.z; NULL: one. Number z reads x columns from z * x_step on and writes y columns
     * from z * y_step on. */
    const uint8_t *const *table;
    const float *const *biases; /* of them, or NULL */
    uint32_t n_weights, x_step, y_step;
    /* Weight z's rows: slots[starts[z]] … slots[starts[z + 1] - 1]; slot s reads x row s / x_div, writes y row s. */
    const uint32_t *slots, *starts;
    uint32_t x_div;
};

struct product product_of(const struct weight *w);
void product_skinny(struct cuda *c, enum cuda_format f, struct product p);
/* x: prepared rows in bf16, x_ld columns, or x_is_f32. A table only with slots. */
void product_tiles(struct cuda *c, enum cuda_format f, struct product p);
/* Without slots and f32, from so many rows on that the library is quicker. */
bool product_is_large(const struct cuda *c, const struct weight *w, uint32_t n);
void product_large(struct cuda *c, enum cuda_format f, struct product p);
/* Lets the library choose how it will multiply by n_out of this weight's rows; at load. Not 0: the device failed. */
BY_MUST_USE int product_tune(struct cuda *c, struct weight *w, uint32_t n_out);
/* The same in FP8: may these rows go that way, which takes them prepared as f32? */
bool product_is_f8(const struct cuda *c, const struct weight *w, uint32_t n_out, uint32_t n);
void product_f8(struct cuda *c, const struct weight *w, struct product p);
BY_MUST_USE int product_tune_f8(struct cuda *c, struct weight *w, uint32_t n_out);
/* Weight rows from … from + n - 1 of p: y from sums [rows][n], sums_ld apart, which w_scales [n] and x_scales [rows] are to be
 * multiplied by, or NULL. Without a gate and an addition the sums may lie in y. */
void product_finish(struct cuda *c, const struct product *p, const float *sums, uint32_t sums_ld,
                    uint32_t from, uint32_t n, const float *w_scales, const float *x_scales);

/* Rows first … first + n - 1 of x (or of rows[]), normed: f32 into c->prepared, k_pad columns, zero behind the last. */
struct prepare {
    const float *x;
    uint32_t x_ld, x_col, n_in, k_pad;
    const struct norm *norm;
    const uint32_t *rows; /* device, or NULL */
    uint32_t first, n;
    bool is_bf16; /* instead of f32 */
};
void product_prepare(struct cuda *c, const struct prepare *p);

#ifdef __cplusplus
}
#endif
#endif
