/* Products of many rows by the vendor's library (gemm.h). Weights that are not bf16 become it first, some rows at a time, in
 * scratch that stays in the L2 cache; where more than y = or += scale * sum is wanted, sums go to scratch and are finished from
 * there. A cap alone is put on in y, so that logits are one product, the one that was chosen for.
 *
 *     weight rows ─widen─▶ parts [ bf16 | sums f32 ] ─finish: bias, act, gate, cap─▶ y          halves of c->parts
 *
 * Slow twin: cpu_linear. */
#include "gpu_worker/cuda/device.cuh"
#include "gpu_worker/cuda/mma.cuh"

#include <string.h>

enum {
    THREADS = 256,
    UNIT = 64,        /* weight rows: a piece is a multiple of it, so pairs stay together */
    WIDEN_ROWS = 128, /* of x, from which on widening pays */
};

struct widen_args {
    const uint8_t *rows;
    uint64_t row_bytes;
    uint32_t scale_at, k_pad, n;
    uint16_t *out; /* [n][k_pad] */
};

template <int F>
static __global__ void __launch_bounds__(THREADS) widen_kernel(const struct widen_args a) {
    begin();
    uint32_t k = (blockIdx.y * THREADS + threadIdx.x) * 8;
    float v[8];
    if (k >= a.k_pad) return;
    weight_load<F>(a.rows + blockIdx.x * a.row_bytes, a.scale_at, k, v);
    *(uint4 *)(a.out + (size_t)blockIdx.x * a.k_pad + k) = pack8_bf16(v);
}

struct finish_args {
    struct epilogue e;
    const float *sums; /* [rows], sums_ld apart; may be y */
    const float *w_scales, *x_scales;
    uint32_t n_out, sums_ld, first, out0;
    bool is_gated;
};

static __global__ void __launch_bounds__(THREADS) finish_kernel(const struct finish_args a) {
    begin();
    uint32_t i = blockIdx.x * THREADS + threadIdx.x, each = a.is_gated ? 2 : 1;
    const float *sums = a.sums + (size_t)blockIdx.y * a.sums_ld + (size_t)i * each;
    float s[2] = {1, 1};
    if (i * each >= a.n_out) return;
    for (uint32_t k = 0; k < each && a.w_scales; k++)
        s[k] = a.w_scales[i * each + k] * a.x_scales[blockIdx.y];
    if (a.is_gated)
        finish_pair(a.e, a.first + blockIdx.y, a.out0 / 2 + i, s[0] * sums[0], s[1] * sums[1]);
    else
        finish_one(a.e, a.first + blockIdx.y, a.out0 + i, s[0] * sums[0]);
}

extern "C" bool product_is_large(const struct cuda *c, const struct weight *w, uint32_t n) {
    uint32_t from = w->format == CUDA_BF16 ? CUDA_ROWS_FEW + 1 : (uint32_t)WIDEN_ROWS;
    return c->gemm && n >= from;
}

static void widen(struct cuda *c, enum cuda_format f, const struct product &p, uint32_t from,
                  uint32_t n) {
    struct widen_args a;
    memset(&a, 0, sizeof a);
    a.rows = p.rows + from * p.row_bytes, a.row_bytes = p.row_bytes, a.scale_at = p.scale_at;
    a.k_pad = p.x_ld, a.n = n, a.out = (uint16_t *)c->parts;
    BY_FORMATS(f, LAUNCH(c, widen_kernel<F>, a,
                         GRID(n, BY_DIV_UP(a.k_pad, (uint32_t)(THREADS * 8)), 1), THREADS, 0));
}

extern "C" void product_finish(struct cuda *c, const struct product *p, const float *sums,
                               uint32_t sums_ld, uint32_t from, uint32_t n, const float *w_scales,
                               const float *x_scales) {
    struct finish_args a;
    memset(&a, 0, sizeof a);
    a.e = p->e, a.sums = sums, a.sums_ld = sums_ld, a.n_out = n, a.first = p->first, a.out0 = from;
    a.is_gated = p->is_gated, a.w_scales = w_scales, a.x_scales = x_scales;
    LAUNCH(c, finish_kernel, a,
           GRID(BY_DIV_UP(p->is_gated ? n / 2 : n, (uint32_t)THREADS), p->n, 1), THREADS, 0);
}

/* Weight rows of one call: as many as scratch holds, of the widened weight and of the sums. The same for all m of a class. */
static uint32_t rows_of_piece(const struct cuda *c, enum cuda_format f, uint32_t n_out,
                              uint32_t k_pad, uint32_t m, bool is_direct) {
    uint32_t each = n_out, half = (uint32_t)(c->part_bytes / 2);
    if (f != CUDA_BF16) each = BY_MIN(each, half / (k_pad * 2) / UNIT * UNIT);
    if (!is_direct) each = BY_MIN(each, half / (gemm_class_of(m) * 4) / UNIT * UNIT);
    return each;
}

/* p.x: prepared rows in bf16, x_ld of them columns, zero behind the last. */
extern "C" void product_large(struct cuda *c, enum cuda_format f, struct product p) {
    bool is_capped = p.e.softcap > 0,
         is_direct = !p.is_gated && p.e.act == ACT_NONE && !p.e.bias && !(is_capped && p.e.is_add);
    float *sums = (float *)((uint8_t *)c->parts + c->part_bytes / 2);
    uint32_t each = rows_of_piece(c, f, p.n_out, p.x_ld, p.n, is_direct);
    for (uint32_t from = 0; from < p.n_out; from += each) {
        struct gemm_call g;
        memset(&g, 0, sizeof g);
        g.n_out = BY_MIN(each, p.n_out - from), g.n_in = g.x_ld = p.x_ld, g.m = p.n;
        g.x = p.x, g.alpha = is_direct && !is_capped ? p.e.scale : 1;
        g.beta = is_direct && p.e.is_add ? 1 : 0;
        if (f != CUDA_BF16) widen(c, f, p, from, g.n_out);
        g.w = f == CUDA_BF16 ? (const void *)(p.rows + from * p.row_bytes) : c->parts;
        g.w_ld = f == CUDA_BF16 ? (uint32_t)(p.row_bytes / 2) : p.x_ld;
        g.y = is_direct ? p.e.y + (size_t)p.first * p.e.ld + p.e.col + from : sums;
        g.y_ld = is_direct ? p.e.ld : g.n_out;
        queue_call(c->queue, gemm_run, c->gemm, &g, sizeof g);
        if (!is_direct || is_capped) product_finish(c, &p, g.y, g.y_ld, from, g.n_out, NULL, NULL);
    }
}

/* ---- at load ---- */

/* n rows of the weight as bf16, which take the place of x too: real numbers, in rows of the right length. Their product goes
 * where scratch is left, or into memory that is lent for it: logits of many rows are more than scratch holds. */
static int tune_piece(struct cuda *c, const struct weight *w, uint32_t n, uint32_t m) {
    struct gemm_call g;
    bool is_wide = w->format != CUDA_BF16;
    uint8_t *parts = (uint8_t *)c->parts;
    const size_t half = is_wide ? c->part_bytes / 2 : 0, left = c->part_bytes - half,
                 bytes = (size_t)m * n * sizeof(float);
    memset(&g, 0, sizeof g);
    g.n_out = n, g.n_in = w->k_pad, g.m = m, g.alpha = 1;
    g.w = g.x = is_wide ? parts : w->rows;
    g.w_ld = g.x_ld = is_wide ? w->k_pad : (uint32_t)(w->row_bytes / 2);
    if (m > n) return 0;
    void *lent = bytes > left ? cuda_alloc(c, bytes, CUDA_MEM_OTHER) : NULL;
    if (bytes > left && !lent) return 0; /* the library's first guess will do */
    g.y = (float *)(lent ? lent : parts + half), g.y_ld = n;
    /* A weight that was just widened is in the cache when it is multiplied; any other comes from memory. */
    int rc = gemm_tune(c->gemm, &g, parts + half, left);
    cuda_free(c, lent);
    return rc;
}

extern "C" int product_tune(struct cuda *c, struct weight *w, uint32_t n_out) {
    bool is_direct = !w->is_gated && !w->bias;
    int rc = 0;
    if (!c->gemm || c->options.is_deterministic || w->format == CUDA_F32) return 0;
    rc = product_tune_f8(c, w, n_out);
    if (rc || w->f8 != GEMM_BF16) return rc;
    if (w->format != CUDA_BF16 && w->n_out >= WIDEN_ROWS) {
        struct product p = product_of(w);
        p.x_ld = w->k_pad;
        queue_begin(c->queue);
        widen(c, w->format, p, 0, rows_of_piece(c, w->format, w->n_out, w->k_pad, 1, true));
        if (queue_end(c->queue)) return -1;
    }
    for (uint32_t m = gemm_class_of(1); m <= CUDA_BLOCK_ROWS && !rc; m = gemm_class_of(m + 1)) {
        if (!product_is_large(c, w, m)) continue;
        uint32_t each = rows_of_piece(c, w->format, n_out, w->k_pad, m, is_direct);
        rc = tune_piece(c, w, each, m);
        if (!rc && n_out % each) rc = tune_piece(c, w, n_out % each, m);
    }
    return rc;
}
