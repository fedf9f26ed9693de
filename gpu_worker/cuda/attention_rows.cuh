/* attention_rows.cuh - what kernels for prompts keep of a tile's rows in registers, and how scores become weights.
 *
 *     a warp has 16 rows; a thread's numbers are in two of them, h = 0: lane / 4 and h = 1: lane / 4 + 8, in the columns that
 *     mma.cuh draws:  q [D / 16][4] packed,  s [keys / 8][4],  out [D / 8][4]
 *
 * Always: scores are kept as the products gave them and scaled on their way into the exponent; the scale is positive.
 * Owner: attention_tiles.cu, attention_wgmma.cu, attention_latent.cu. */
#ifndef GPU_WORKER_CUDA_ATTENTION_ROWS_CUH
#define GPU_WORKER_CUDA_ATTENTION_ROWS_CUH

#include "gpu_worker/cuda/attention.h"
#include "gpu_worker/cuda/mma.cuh"

struct tile_args {
    struct attend a;
    const struct attend_tile *tiles;
};

/* Eight numbers of the cache as the tensor cores take them: f16 stays, all else is bf16. */
template <int T>
static __device__ __forceinline__ uint4 kv_pack(const uint8_t *at, uint32_t d, float scale) {
    if (!CUDA_KV_IS_SCALED(T)) return *(const uint4 *)(at + 2 * (size_t)d);
    float f[8];
    kv_load<T>(at, d, f);
    for (int i = 0; i < 8; i++)
        f[i] *= scale;
    return pack8_bf16(f);
}

/* The row of the tile whose numbers h this thread has. */
static __device__ __forceinline__ uint32_t row_of(int h) {
    return threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + 8 * h;
}

static __device__ __forceinline__ const float *query_of(const struct attend &a, uint32_t row,
                                                        uint32_t head) {
    return a.q + (size_t)row * a.q_ld + a.q_col + (size_t)head * a.k_dim;
}

/* Columns 16 d … of the warp's 16 queries as a fragment. */
template <int T>
static __device__ __forceinline__ void load_query(const struct attend &a,
                                                  const struct attend_tile &t, uint32_t head,
                                                  uint32_t d, uint32_t (&q)[4]) {
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t r = BY_MIN(row_of(i & 1), t.n - 1),
                 c = 16 * d + threadIdx.x % 4 * 2 + 8 * (i >> 1);
        const float *x = query_of(a, t.row + r, head);
        q[i] = pack2<T>(c < a.k_dim ? x[c] : 0, c + 1 < a.k_dim ? x[c + 1] : 0);
    }
}

template <int T, int D>
static __device__ __forceinline__ void load_queries(const struct attend &a,
                                                    const struct attend_tile &t, uint32_t head,
                                                    uint32_t (&q)[D / 16][4]) {
    for (uint32_t d = 0; d < D / 16; d++)
        load_query<T>(a, t, head, d, q[d]);
}

struct carried {
    float max[2], mass[2];     /* max: of scores as the products gave them */
    uint32_t first[2], end[2]; /* keys that the row sees */
};

/* The first key that a row sees. */
static __device__ __forceinline__ uint32_t first_of(const struct attend &a,
                                                    const struct cuda_row &row) {
    uint32_t own = row.position + 1;
    return a.window && own > a.window ? own - a.window : 0;
}

static __device__ __forceinline__ void carry_row(const struct attend &a, uint32_t row,
                                                 uint32_t head, int h, struct carried &c) {
    float sink = a.sinks ? a.sinks[head] : -INFINITY;
    c.first[h] = first_of(a, a.rows[row]), c.end[h] = a.rows[row].end;
    c.max[h] = a.softcap > 0 ? sink : sink / a.scale;
    c.mass[h] = sink == -INFINITY ? 0 : 1;
}

static __device__ __forceinline__ struct carried carry(const struct attend &a,
                                                       const struct attend_tile &t, uint32_t head) {
    struct carried c;
    for (int h = 0; h < 2; h++)
        carry_row(a, t.row + BY_MIN(row_of(h), t.n - 1), head, h, c);
    return c;
}

/* What no row of the thread may see, of 8 N keys from base on; nothing to do but at the ends. */
template <int N>
static __device__ __forceinline__ void hide(const struct carried &c, uint32_t base,
                                            float (&s)[N][4]) {
    if (base >= BY_MAX(c.first[0], c.first[1]) && base + 8 * N <= BY_MIN(c.end[0], c.end[1]))
        return;
    for (int j = 0; j < N; j++)
        for (int i = 0; i < 4; i++) {
            uint32_t at = base + 8 * j + threadIdx.x % 4 * 2 + i % 2;
            if (at < c.first[i / 2] || at >= c.end[i / 2]) s[j][i] = -INFINITY;
        }
}

/* Scores become weights, in place; shrink: what earlier sums are multiplied by. */
template <int N>
static __device__ __forceinline__ void weigh(const struct attend &a, struct carried &c,
                                             uint32_t base, float (&s)[N][4], float (&shrink)[2]) {
    const float log2e = 1.44269504f, factor = a.softcap > 0 ? log2e : a.scale * log2e;
    if (a.softcap > 0)
        for (int j = 0; j < N; j++)
            for (int i = 0; i < 4; i++)
                s[j][i] = a.softcap * tanhf(s[j][i] * a.scale / a.softcap);
    hide(c, base, s);
    for (int h = 0; h < 2; h++) {
        float max = c.max[h], mass = 0;
        for (int j = 0; j < N; j++)
            max = fmaxf(max, fmaxf(s[j][2 * h], s[j][2 * h + 1]));
        for (int x = 1; x < 4; x *= 2)
            max = fmaxf(max, __shfl_xor_sync(0xffffffffu, max, x));
        float from = max == -INFINITY ? 0 : max * factor;
        for (int j = 0; j < N; j++)
            for (int i = 2 * h; i < 2 * h + 2; i++) {
                s[j][i] = exp2_near(fmaf(s[j][i], factor, -from));
                mass += s[j][i];
            }
        for (int x = 1; x < 4; x *= 2)
            mass += __shfl_xor_sync(0xffffffffu, mass, x);
        shrink[h] = exp2_near(fmaf(c.max[h], factor, -from));
        c.mass[h] = c.mass[h] * shrink[h] + mass;
        c.max[h] = max;
    }
}

template <int N>
static __device__ __forceinline__ void shrink_sums(float (&out)[N][4], const float (&shrink)[2]) {
    for (int d = 0; d < N; d++)
        for (int i = 0; i < 4; i++)
            out[d][i] *= shrink[i / 2];
}

/* Weights of 16 keys, from 16 k on, as the next product takes them: two fragments of scores are one of these. */
template <int T, int N>
static __device__ __forceinline__ void pack_weights(const float (&s)[N][4], int k,
                                                    uint32_t (&p)[4]) {
    for (int i = 0; i < 4; i++)
        p[i] = pack2<T>(s[2 * k + i / 2][i % 2 * 2], s[2 * k + i / 2][i % 2 * 2 + 1]);
}

static __device__ __forceinline__ float *out_of(const struct attend &a, uint32_t row,
                                                uint32_t head) {
    return a.out + (size_t)row * a.out_ld + a.out_col + (size_t)head * a.v_dim;
}

template <int N>
static __device__ __forceinline__ void
store_rows(const struct attend &a, const struct attend_tile &t, uint32_t head,
           const struct carried &c, const float (&out)[N][4]) {
    for (int d = 0; d < N; d++)
        for (int i = 0; i < 4; i++) {
            uint32_t r = row_of(i / 2), col = 8 * d + threadIdx.x % 4 * 2 + i % 2;
            if (r < t.n && col < a.v_dim)
                out_of(a, t.row + r, head)[col] = out[d][i] / c.mass[i / 2];
        }
}

#endif
