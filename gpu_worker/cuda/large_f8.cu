/* Products of many rows in FP8 (E4M3), both sides, by the vendor's library (gemm.h): rows of x are rounded by a scale of their own,
 * the weight's numbers are taken as they lie. Half the bytes of bf16 and twice its rate, and nothing is widened.
 *
 *     load:  the weight's scales, side by side ─▶ f8_scales        (of blocks in pieces: for each piece anew, into parts)
 *     x f32 ─round─▶ parts [ x | x's scales | the piece's ] ─library─▶ sums ─finish: scales, bias, act, gate, cap─▶ y
 *
 *     GEMM_F8         a scale for each row of x and of the weight: sums are multiplied by both
 *     GEMM_F8_BLOCKS  a scale for each 128 columns of a row: the library multiplies
 *
 * Which of the two, if any: by the weight's own scales (per tensor, per channel, 128-blocks), the card, what was proven on it, and
 * whether the library has a way for the shape, all at load. Slow twin: cpu_linear, of rounded rows. */
#include "gpu_worker/cuda/device.cuh"
#include "gpu_worker/cuda/proven.h"

#include <string.h>

enum {
    THREADS = 256,
    WARPS = THREADS / 32,
    UNIT = 64,     /* weight rows: a piece is a multiple of it, so pairs stay together */
    OUT_UNIT = 16, /* the library's rows of FP8 */
    ROWS_UNIT = 4, /* and of x, where it takes their scales of blocks, which lie rows apart */
    RUN = GEMM_F8_BLOCK / 32, /* blocks of 32 columns */
};

/* ---- x ---- */

struct round_args {
    const float *x; /* [rows][k_pad] */
    uint32_t k_pad;
    bool is_blocks;
    uint8_t *out;  /* the same */
    float *scales; /* [rows], or [k_pad / 128][rows] */
};

/* The largest of their absolute values; a NaN counts as largest. */
static __device__ __forceinline__ uint32_t top_of(const float4 &v) {
    uint32_t a = BY_MAX(as_u32(v.x) & 0x7fffffffu, as_u32(v.y) & 0x7fffffffu);
    uint32_t b = BY_MAX(as_u32(v.z) & 0x7fffffffu, as_u32(v.w) & 0x7fffffffu);
    return BY_MAX(a, b);
}

static __device__ __forceinline__ uint32_t warp_top(uint32_t bits) {
    for (int d = 16; d; d >>= 1) {
        uint32_t other = __shfl_xor_sync(0xffffffffu, bits, d);
        bits = BY_MAX(bits, other);
    }
    return bits;
}

static __device__ __forceinline__ float scale_of(uint32_t top, float *inverse) {
    bool is_zero = as_f32(top) <= 0x1p-100f;
    *inverse = is_zero ? 0 : 448.0f / as_f32(top);
    return is_zero ? 0 : as_f32(top) / 448.0f;
}

static __device__ __forceinline__ uint32_t round4(const float4 &v, float inverse) {
    return (uint32_t)f32_to_e4m3(v.x * inverse) | (uint32_t)f32_to_e4m3(v.y * inverse) << 8 |
           (uint32_t)f32_to_e4m3(v.z * inverse) << 16 | (uint32_t)f32_to_e4m3(v.w * inverse) << 24;
}

/* A block a row; a warp takes 128 columns after the other. */
static __global__ void __launch_bounds__(THREADS) round_kernel(const struct round_args a) {
    SHARED(uint32_t, tops); /* [WARPS] */
    begin();
    const uint32_t row = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const float *x = a.x + (size_t)row * a.k_pad;
    uint8_t *out = a.out + (size_t)row * a.k_pad;
    float inverse = 0;
    if (!a.is_blocks) {
        uint32_t top = 0;
        for (uint32_t k = 4 * threadIdx.x; k < a.k_pad; k += 4 * THREADS) {
            uint32_t own = top_of(*(const float4 *)(x + k));
            top = BY_MAX(top, own);
        }
        top = warp_top(top);
        if (lane == 0) tops[warp] = top;
        __syncthreads();
        top = warp_top(lane < WARPS ? tops[lane] : 0);
        float scale = scale_of(top, &inverse);
        if (threadIdx.x == 0) a.scales[row] = scale;
    }
    for (uint32_t base = GEMM_F8_BLOCK * warp; base < a.k_pad; base += GEMM_F8_BLOCK * WARPS) {
        uint32_t k = base + 4 * lane;
        float4 v = {0, 0, 0, 0};
        if (k < a.k_pad) v = *(const float4 *)(x + k);
        if (a.is_blocks) {
            float scale = scale_of(warp_top(top_of(v)), &inverse);
            if (lane == 0) a.scales[(size_t)(base / GEMM_F8_BLOCK) * gridDim.x + row] = scale;
        }
        if (k < a.k_pad) *(uint32_t *)(out + k) = round4(v, inverse);
    }
}

/* ---- the weight's scales, side by side ---- */

struct scales_args {
    const uint8_t *rows;
    uint64_t row_bytes;
    uint32_t scale_at, n;
    float *out; /* [gridDim.y][n] */
};

static __global__ void __launch_bounds__(THREADS) scales_kernel(const struct scales_args a) {
    begin();
    uint32_t i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= a.n) return;
    const float *scales = (const float *)(a.rows + i * a.row_bytes + a.scale_at);
    a.out[(size_t)blockIdx.y * a.n + i] = scales[blockIdx.y * RUN];
}

/* Of n rows of the weight, n_groups each. */
static void gather_scales(struct cuda *c, const struct product &p, const void *rows, uint32_t n,
                          uint32_t n_groups, float *out) {
    struct scales_args s;
    memset(&s, 0, sizeof s);
    s.rows = (const uint8_t *)rows, s.row_bytes = p.row_bytes, s.scale_at = p.scale_at;
    s.n = n, s.out = out;
    LAUNCH(c, scales_kernel, s, GRID(BY_DIV_UP(n, (uint32_t)THREADS), n_groups, 1), THREADS, 0);
}

/* ---- the product ---- */

/* Where all lies in c->parts, for m rows of x. */
struct rooms {
    uint8_t *x;
    float *x_scales, *w_scales, *sums;
    uint32_t n_groups, each; /* scales a row; weight rows a piece, 0: there is no room */
};

static struct rooms rooms_of(const struct cuda *c, enum gemm_kind kind, uint32_t n_out,
                             uint32_t k_pad, uint32_t m) {
    struct rooms r;
    const size_t half = c->part_bytes / 2, m_max = gemm_class_of(m);
    r.n_groups = kind == GEMM_F8_BLOCKS ? k_pad / GEMM_F8_BLOCK : 1;
    size_t x_bytes = BY_ALIGN_UP(m_max * k_pad, (size_t)256),
           s_bytes = BY_ALIGN_UP(m_max * r.n_groups * sizeof(float), (size_t)256);
    r.x = (uint8_t *)c->parts;
    r.x_scales = (float *)(r.x + x_bytes);
    r.w_scales = (float *)(r.x + x_bytes + s_bytes);
    r.sums = (float *)(r.x + half);
    size_t left = x_bytes + s_bytes < half ? half - x_bytes - s_bytes : 0,
           n = BY_MIN(left / (r.n_groups * sizeof(float)), half / (m_max * sizeof(float)));
    r.each = (uint32_t)BY_MIN((size_t)n_out, n / UNIT * UNIT);
    return r;
}

static struct gemm_call call_of(const struct rooms &r, const struct product &p, enum gemm_kind kind,
                                uint32_t from, uint32_t m) {
    struct gemm_call g;
    memset(&g, 0, sizeof g);
    g.kind = kind, g.alpha = 1;
    g.n_out = BY_MIN(r.each, p.n_out - from), g.n_in = g.x_ld = p.k_pad, g.m = m;
    g.w = p.rows + from * p.row_bytes, g.w_ld = (uint32_t)p.row_bytes;
    g.x = r.x, g.y = r.sums, g.y_ld = g.n_out;
    if (kind == GEMM_F8_BLOCKS) g.w_scales = r.w_scales, g.x_scales = r.x_scales;
    return g;
}

extern "C" bool product_is_f8(const struct cuda *c, const struct weight *w, uint32_t n_out,
                              uint32_t n) {
    return w->f8 != GEMM_BF16 && n > CUDA_ROWS_FEW && n_out % OUT_UNIT == 0 &&
           rooms_of(c, w->f8, n_out, w->k_pad, n).each;
}

/* Those of a call's rows, if they lie so: one a row always do; of blocks the library takes only all rows' together. */
static const float *kept_scales(const struct weight *w, const struct gemm_call &g) {
    if (!w->f8_scales) return NULL;
    if (w->f8 == GEMM_F8_BLOCKS) return g.n_out == w->n_out ? w->f8_scales : NULL;
    return w->f8_scales + ((const uint8_t *)g.w - w->rows) / w->row_bytes;
}

/* p.x: prepared rows in f32, k_pad columns, zero behind the last; rows that fill up a unit are whatever lies behind them there. */
extern "C" void product_f8(struct cuda *c, const struct weight *w, struct product p) {
    const bool is_blocks = w->f8 == GEMM_F8_BLOCKS;
    const uint32_t m = is_blocks ? BY_ALIGN_UP(p.n, (uint32_t)ROWS_UNIT) : p.n;
    const struct rooms r = rooms_of(c, w->f8, p.n_out, p.k_pad, p.n);
    struct round_args a;
    memset(&a, 0, sizeof a);
    a.x = p.x, a.k_pad = p.k_pad, a.is_blocks = is_blocks, a.out = r.x, a.scales = r.x_scales;
    LAUNCH(c, round_kernel, a, GRID(m, 1, 1), THREADS, WARPS * sizeof(uint32_t));
    for (uint32_t from = 0; from < p.n_out; from += r.each) {
        struct gemm_call g = call_of(r, p, w->f8, from, m);
        const float *w_scales = kept_scales(w, g);
        if (!w_scales) gather_scales(c, p, g.w, g.n_out, r.n_groups, r.w_scales);
        if (!w_scales) w_scales = r.w_scales;
        if (is_blocks) g.w_scales = w_scales;
        queue_call(c->queue, gemm_run, c->gemm, &g, sizeof g);
        product_finish(c, &p, r.sums, g.n_out, from, g.n_out, is_blocks ? NULL : w_scales,
                       is_blocks ? NULL : r.x_scales);
    }
}

/* ---- at load ---- */

/* What the weight's scales and the card allow. */
static enum gemm_kind kind_of(const struct cuda *c, const struct weight *w, uint32_t n_out) {
    const uint32_t sm = 10 * c->device.major + c->device.minor;
    if (w->format != CUDA_F8 || n_out % OUT_UNIT) return GEMM_BF16;
    if (c->proven & PROVEN_F8 && sm >= 89 && w->scale_run == w->n_in / 32) return GEMM_F8;
    if (c->proven & PROVEN_F8_BLOCKS && sm == 90 && w->scale_run % RUN == 0 &&
        w->n_in % GEMM_F8_BLOCK == 0)
        return GEMM_F8_BLOCKS;
    return GEMM_BF16;
}

/* Where there is no memory for them, products gather their own. */
static int keep_scales(struct cuda *c, struct weight *w) {
    const uint32_t n_groups = w->f8 == GEMM_F8_BLOCKS ? w->k_pad / GEMM_F8_BLOCK : 1;
    w->f8_scales = (float *)cuda_alloc(c, (size_t)n_groups * w->n_out * sizeof *w->f8_scales,
                                       CUDA_MEM_WEIGHTS);
    if (!w->f8_scales) return 0;
    queue_begin(c->queue);
    gather_scales(c, product_of(w), w->rows, w->n_out, n_groups, w->f8_scales);
    return queue_end(c->queue);
}

/* The way is taken if the library has one for each shape; rows of the weight stand for those of x. */
extern "C" int product_tune_f8(struct cuda *c, struct weight *w, uint32_t n_out) {
    const enum gemm_kind kind = kind_of(c, w, n_out);
    struct product p = product_of(w);
    int rc = 0;
    p.n_out = n_out;
    if (kind == GEMM_BF16) return 0;
    for (uint32_t m = gemm_class_of(1); m <= CUDA_BLOCK_ROWS && !rc; m = gemm_class_of(m + 1)) {
        const struct rooms r = rooms_of(c, kind, n_out, w->k_pad, m);
        for (uint32_t from = 0; from < n_out && r.each && !rc; from += r.each) {
            struct gemm_call g = call_of(r, p, kind, from, m);
            if (from && g.n_out == r.each) continue; /* as the first */
            if (!gemm_serves(c->gemm, &g)) return 0;
            if (m > g.n_out) continue;
            g.x = g.w, g.x_ld = g.w_ld;
            rc = gemm_tune(c->gemm, &g, c->parts, c->part_bytes);
        }
    }
    w->f8 = kind;
    return rc ? rc : keep_scales(c, w);
}
