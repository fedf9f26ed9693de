/* Attention of single rows on the tensor cores, in f32: a block has a span of keys, one kv head and up to 8 of its query heads, a
 * warp every WARPS-th strip of 16 keys. See attention.h.
 *
 *     pages ─copy16─▶ slots of the warp ─▶ s[16 keys][8 heads] = k · q^T ─▶ p = exp(s - max) ─▶ o[columns][8 heads] += v^T · p
 *                                                                                └─▶ sums of the warps, in order ─▶ part
 *
 * Keys and values are the large side of each product, as they lie in their pages. The small side is of f32, in parts
 * (attention_parts.cuh), one after the other. A warp goes its own way until its strips are done: what it
 * copies only it reads. Slow twin: cpu_attention. */
#include "gpu_worker/cuda/attention.h"
#include "gpu_worker/cuda/attention_parts.cuh"
#include "gpu_worker/cuda/copies.cuh"

#include <string.h>

enum {
    STRIP = 16, /* keys, of one page */
    HEADS = 8,
    SLOTS = 2,
    COLUMNS_MAX = 256,
};

/* A slot: 16 keys and 16 values, 16 bytes apart so that eight rows lie in different banks; their scales. */
template <int T, int D> struct strip {
    static constexpr bool IS_BYTES = CUDA_KV_IS_SCALED(T);
    static constexpr uint32_t WARPS = D > 128 ? 2 : 4, THREADS = 32 * WARPS,
                              ROW = IS_BYTES ? D : 2 * D, PITCH = ROW + 16, VALUES = STRIP * PITCH,
                              SCALES = 2 * VALUES,
                              SLOT = SCALES + (IS_BYTES ? 2 * STRIP * sizeof(float) : 0),
                              STATS = WARPS * HEADS * sizeof(float2),
                              BYTES = STATS + WARPS * SLOTS * SLOT,
                              SUM_PITCH = D + 4; /* floats from a head's sums to the next one's */
    static_assert(HEADS * SUM_PITCH * sizeof(float) <= SLOTS * SLOT, "sums lie where slots did");
};

/* What a lane carries of heads 2(l%4) and +1. */
struct carried {
    float max[2], mass[2]; /* mass: of the lane's own keys */
    float factor[2];       /* from a product to a score */
};

/* ---- pages to slots ---- */

/* Strip `base` of the warp into a slot, zero outside [from, to) and behind the head's columns. */
template <int T, int D>
static __device__ __forceinline__ void bring(const struct attend &a, const struct attend_item &item,
                                             uint32_t page, uint32_t base, uint8_t *room) {
    using S = strip<T, D>;
    constexpr uint32_t CHUNKS = S::ROW / 16, EACH = S::IS_BYTES ? 1 : 2, ROWS = 32 / CHUNKS;
    const uint32_t lane = threadIdx.x % 32, in_page = base % a.page_size, at = lane % CHUNKS * 16;
    const uint32_t slot = shared_address(room);
    const bool is_key = at < a.y.k_pad * EACH, is_value = at < a.y.v_pad * EACH;
    const uint8_t *head = a.pool + page * a.y.page_bytes + blockIdx.y * a.y.head_bytes,
                  *key = head + (size_t)(in_page + lane / CHUNKS) * a.y.k_step + at,
                  *value = head + a.y.v_at + (size_t)(in_page + lane / CHUNKS) * a.y.v_step + at;
    for (uint32_t r = lane / CHUNKS; r < STRIP; r += ROWS) {
        const uint32_t to = slot + r * S::PITCH + at;
        const bool is_seen = base + r >= item.from && base + r < item.to;
        copy16(to, key, is_seen && is_key ? 16 : 0);
        copy16(to + S::VALUES, value, is_seen && is_value ? 16 : 0);
        key += ROWS * a.y.k_step, value += ROWS * a.y.v_step;
    }
    if (S::IS_BYTES && lane < 8) { /* four scales each */
        const float *scales = (const float *)(head + a.y.scale_at) + in_page;
        copy16(slot + S::SCALES + 16 * lane, scales + (lane < 4 ? 0 : a.y.v_scale) + 4 * (lane % 4),
               16);
    }
}

/* ---- fragments ---- */

/* Four matrices of 16 rows and 32 bytes, in a fragment's order: of keys upper, lower, and those 16 bytes on; values, which are
 * turned, the other way round. */
template <int T, int D, bool IS_VALUE>
static __device__ __forceinline__ void load_rows(const uint8_t *rows, uint32_t (&m)[4]) {
    const uint32_t l = threadIdx.x, low = l / 8 % 2, high = l / 16 % 2;
    if (IS_VALUE)
        load_matrices_turned(
            (const uint16_t *)(rows + (l % 8 + 8 * high) * strip<T, D>::PITCH + 16 * low), m);
    else
        load_matrices((const uint16_t *)(rows + (l % 8 + 8 * low) * strip<T, D>::PITCH + 16 * high),
                      m);
}

/* Two fragments of 16 x 16, of 32 columns from 32 i on: of keys as they lie, of values turned. */
template <int T, int D, bool IS_VALUE>
static __device__ __forceinline__ void load_fragments(const uint8_t *rows, uint32_t i,
                                                      uint32_t (&a)[2][4]) {
    if (!strip<T, D>::IS_BYTES) {
        load_rows<T, D, IS_VALUE>(rows + 64 * i, a[0]);
        load_rows<T, D, IS_VALUE>(rows + 64 * i + 32, a[1]);
    } else {
        uint32_t m[4];
        load_rows<T, D, IS_VALUE>(rows + 32 * i, m);
        for (int f = 0; f < 2; f++)
            for (int k = 0; k < 2; k++) { /* rows of upper and lower matrices */
                if (IS_VALUE)
                    widen<T, true>(m[f + 2 * k], a[f][2 * k], a[f][2 * k + 1]);
                else
                    widen<T, false>(m[2 * f + k], a[f][k], a[f][k + 2]);
            }
    }
}

/* Number i of the lane, of columns 16 d … of a query: in the order in which keys lie in fragments. */
template <int T>
static __device__ __forceinline__ float query_at(const float *q, uint32_t d, uint32_t i,
                                                 uint32_t n) {
    const uint32_t k = threadIdx.x % 4,
                   col = 16 * d + (CUDA_KV_IS_SCALED(T) ? 4 * k + i : 2 * k + i % 2 + i / 2 * 8);
    return col < n ? q[col] : 0;
}

/* Queries of the block as fragments, in parts. */
template <int T, int D>
static __device__ __forceinline__ void
load_queries(const struct attend &a, uint32_t row, uint32_t head, uint32_t n_heads,
             uint32_t (&q)[D / 16][2][PARTS<T>], struct carried &c) {
    const uint32_t lane = threadIdx.x % 32, h = lane / 4, n = h < n_heads ? a.k_dim : 0;
    const float *x = a.q + (size_t)row * a.q_ld + a.q_col + (size_t)(head + h) * a.k_dim;
    float up = 1, down = 1;
    if (T == KV_F16) {
        float top = 0;
        for (uint32_t d = 0; d < D / 16; d++)
            for (uint32_t i = 0; i < 4; i++)
                top = fmaxf(top, fabsf(query_at<T>(x, d, i, n)));
        for (int k = 1; k < 4; k *= 2)
            top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, k));
        bring_up(top, up, down);
    }
    for (uint32_t d = 0; d < D / 16; d++)
        for (uint32_t i = 0; i < 2; i++)
            split_pair<T>(query_at<T>(x, d, 2 * i, n) * up, query_at<T>(x, d, 2 * i + 1, n) * up,
                          q[d][i]);
    for (int i = 0; i < 2; i++)
        c.factor[i] = a.scale * __shfl_sync(0xffffffffu, down, lane % 4 * 8 + 4 * i);
}

/* ---- a strip ---- */

template <int T, int D>
static __device__ __forceinline__ void
multiply_keys(const uint8_t *slot, const uint32_t (&q)[D / 16][2][PARTS<T>], float (&s)[4]) {
    float sums[PARTS<T>][4] = {};
    for (uint32_t d = 0; d < D / 16; d += 2) {
        uint32_t k[2][4];
        load_fragments<T, D, false>(slot, d / 2, k);
        for (int f = 0; f < 2; f++)
            for (int p = 0; p < PARTS<T>; p++) {
                const uint32_t b[2] = {q[d + f][0][p], q[d + f][1][p]};
                mma<T>(sums[p], k[f], b);
            }
    }
    for (int i = 0; i < 4; i++) {
        s[i] = 0;
        for (int p = PARTS<T>; p--;) /* the smallest first */
            s[i] += sums[p][i];
    }
}

/* Scores become weights of values; shrink: what earlier sums are multiplied by. i of s: key l / 4 + 8 (i / 2), head i % 2. */
template <int T>
static __device__ __forceinline__ void weigh(const struct attend &a, const struct attend_item &item,
                                             uint32_t base, const float *scales, struct carried &c,
                                             float (&s)[4], float (&shrink)[2]) {
    const uint32_t j = threadIdx.x % 32 / 4;
    bool is_seen[2];
    for (int i = 0; i < 2; i++)
        is_seen[i] = base + j + 8 * i >= item.from && base + j + 8 * i < item.to;
    for (int i = 0; i < 4; i++) {
        s[i] *= c.factor[i % 2];
        if (CUDA_KV_IS_SCALED(T)) s[i] *= scales[j + i / 2 * 8];
        if (a.softcap > 0) s[i] = a.softcap * tanhf(s[i] / a.softcap);
        if (!is_seen[i / 2]) s[i] = -INFINITY;
    }
    for (int h = 0; h < 2; h++) {
        float max = fmaxf(c.max[h], fmaxf(s[h], s[2 + h]));
        for (int x = 4; x < 32; x *= 2)
            max = fmaxf(max, __shfl_xor_sync(0xffffffffu, max, x));
        shrink[h] = expf(c.max[h] - finite(max));
        c.max[h] = max, c.mass[h] *= shrink[h];
        for (int i = h; i < 4; i += 2) {
            s[i] = expf(s[i] - finite(max));
            c.mass[h] += s[i];
            /* what lies beside the keys that are seen may be anything */
            if (CUDA_KV_IS_SCALED(T)) s[i] *= is_seen[i / 2] ? scales[STRIP + j + i / 2 * 8] : 0;
        }
    }
}

template <int T, int D>
static __device__ __forceinline__ void add_values(const uint8_t *slot, const float (&s)[4],
                                                  const float (&shrink)[2],
                                                  float (&out)[D / 16][4]) {
    uint32_t p[2][PARTS<T>]; /* turned: of a head, keys side by side */
    for (int i = 0; i < 2; i++) {
        split_pair<T>(s[2 * i], s[2 * i + 1], p[i]);
        for (int k = 0; k < PARTS<T>; k++)
            p[i][k] = turn_matrix(p[i][k]);
    }
    for (uint32_t d = 0; d < D / 16; d += 2) {
        uint32_t v[2][4];
        load_fragments<T, D, true>(slot + strip<T, D>::VALUES, d / 2, v);
        for (int i = 0; i < 8; i++)
            out[d + i / 4][i % 4] *= shrink[i % 2];
        for (int k = 0; k < PARTS<T>; k++)
            for (int f = 0; f < 2; f++) {
                const uint32_t b[2] = {p[0][k], p[1][k]};
                mma<T>(out[d + f], v[f], b);
            }
    }
}

/* ---- the block ---- */

/* stats: [WARPS][HEADS] of max and mass. */
template <int WARPS>
static __device__ __forceinline__ float max_of(const float2 *stats, uint32_t head) {
    float max = -INFINITY;
    for (uint32_t w = 0; w < WARPS; w++)
        max = fmaxf(max, stats[w * HEADS + head].x);
    return max;
}

/* The warp's sums, by the block's maximum, to sums [HEADS][SUM_PITCH]. */
template <int T, int D>
static __device__ __forceinline__ void
put_sums(const float (&out)[D / 16][4], const struct carried &c, const float2 *stats, float *sums) {
    using S = strip<T, D>;
    const uint32_t r = threadIdx.x % 32 / 4, k = threadIdx.x % 4;
    for (uint32_t h = 0; h < 2; h++) {
        const float max = max_of<S::WARPS>(stats, 2 * k + h), shrink = expf(c.max[h] - finite(max));
        for (uint32_t d = 0; d < D / 16; d++)
            for (uint32_t i = 0; i < 2; i++) { /* the order of columns is that of load_fragments */
                uint32_t col = 16 * d + (S::IS_BYTES ? 2 * r + i : r + 8 * i);
                sums[(2 * k + h) * S::SUM_PITCH + col] = out[d][2 * i + h] * shrink;
            }
    }
}

/* Sums of the warps, in order, into the part. */
template <int T, int D>
static __device__ __forceinline__ void
store_part(const struct span_args &args, uint32_t part, uint32_t head, uint32_t n_heads,
           struct carried &c, const float (&out)[D / 16][4], uint8_t *bytes) {
    using S = strip<T, D>;
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, v_dim = args.a.v_dim;
    float2 *stats = (float2 *)bytes;
    float *sums = (float *)(bytes + S::STATS),
          *to = args.parts + ((size_t)part * args.a.n_heads + head) * (v_dim + 2);
    for (int h = 0; h < 2; h++) {
        for (int x = 4; x < 32; x *= 2)
            c.mass[h] += __shfl_xor_sync(0xffffffffu, c.mass[h], x);
        if (lane < 4) stats[warp * HEADS + 2 * lane + h] = {c.max[h], c.mass[h]};
    }
    __syncthreads(); /* and the slots are read */
    put_sums<T, D>(out, c, stats, sums + warp * HEADS * S::SUM_PITCH);
    __syncthreads();
    for (uint32_t e = threadIdx.x; e < n_heads * v_dim; e += S::THREADS) {
        uint32_t h = e / v_dim, i = e % v_dim;
        float sum = 0;
        for (uint32_t w = 0; w < S::WARPS; w++)
            sum += sums[(w * HEADS + h) * S::SUM_PITCH + i];
        to[h * (v_dim + 2) + i] = sum;
    }
    if (threadIdx.x < n_heads) {
        const float max = max_of<S::WARPS>(stats, threadIdx.x);
        float mass = 0;
        for (uint32_t w = 0; w < S::WARPS; w++) {
            const float2 of = stats[w * HEADS + threadIdx.x];
            mass += of.y * expf(of.x - finite(max));
        }
        to += threadIdx.x * (v_dim + 2) + v_dim;
        to[0] = max, to[1] = mass;
    }
}

/* Blocks of one item and kv head, of 8 query heads each, are neighbours: what one reads, the next finds in the L2 cache. */
template <int T, int D>
static __global__ void __launch_bounds__((strip<T, D>::THREADS),
                                         (strip<T, D>::IS_BYTES && D <= 128 ? 4 : 3))
    strip_kernel(const struct span_args args) {
    begin();
    using S = strip<T, D>;
    const struct attend &a = args.a;
    const uint32_t n_sets = BY_DIV_UP(a.group, (uint32_t)HEADS), warp = threadIdx.x / 32;
    const uint32_t first = blockIdx.x % n_sets * HEADS, head = blockIdx.y * a.group + first;
    const struct attend_item item = args.items[blockIdx.x / n_sets];
    SHARED(uint8_t, bytes);
    if (item.from == item.to) return;
    const uint32_t *pages = a.pages + a.rows[item.row].first_page;
    uint8_t *slots = bytes + S::STATS + warp * SLOTS * S::SLOT;
    constexpr uint32_t STEP = S::WARPS * STRIP;
    uint32_t base = item.from / STRIP * STRIP + warp * STRIP;
    for (uint32_t i = 0; i < SLOTS; i++) {
        uint32_t at = base + i * STEP;
        if (at < item.to) bring<T, D>(a, item, pages[at / a.page_size], at, slots + i * S::SLOT);
        copies_commit();
    }
    const uint32_t n_heads = BY_MIN((uint32_t)HEADS, a.group - first);
    struct carried c = {{-INFINITY, -INFINITY}, {0, 0}, {0, 0}};
    uint32_t q[D / 16][2][PARTS<T>];
    float out[D / 16][4] = {};
    load_queries<T, D>(a, item.row, head, n_heads, q, c);
    static_assert(SLOTS == 2, "one slot, the other");
    for (uint32_t slot = 0; base < item.to; base += STEP, slot ^= S::SLOT) {
        const uint32_t next = base + SLOTS * STEP;
        const uint32_t page = next < item.to ? pages[next / a.page_size] : 0; /* soon enough */
        float s[4], shrink[2];
        copies_wait<SLOTS - 1>();
        __syncwarp(); /* what the other lanes have copied, too */
        multiply_keys<T, D>(slots + slot, q, s);
        weigh<T>(a, item, base, (const float *)(slots + slot + S::SCALES), c, s, shrink);
        add_values<T, D>(slots + slot, s, shrink, out);
        __syncwarp(); /* the slot is read */
        if (next < item.to) bring<T, D>(a, item, page, next, slots + slot);
        copies_commit();
    }
    store_part<T, D>(args, item.part, head, n_heads, c, out, bytes);
}

/* ---- host ---- */

template <int T, int D>
static void launch(struct cuda *c, const struct span_args &s, uint32_t n_items) {
    const uint32_t n_sets = BY_DIV_UP(s.a.group, (uint32_t)HEADS);
    LAUNCH(c, (strip_kernel<T, D>), s, GRID(n_items * n_sets, s.a.n_heads / s.a.group, 1),
           (strip<T, D>::THREADS), (strip<T, D>::BYTES));
}

template <int T>
static void launch_for(struct cuda *c, const struct span_args &s, uint32_t n_items) {
    const uint32_t dim = BY_MAX(s.a.k_dim, s.a.v_dim);
    if (dim <= 64)
        launch<T, 64>(c, s, n_items);
    else if (dim <= 128)
        launch<T, 128>(c, s, n_items);
    else
        launch<T, COLUMNS_MAX>(c, s, n_items);
}

extern "C" bool attention_fits_strips(const struct op_attention *o) {
    const struct cuda_kv y = cuda_kv_of(&o->kv);
    const uint32_t each = CUDA_KV_IS_SCALED(o->kv.dtype) ? 16 : 8; /* numbers of 16 bytes */
    return o->kv.dtype != KV_F32 && BY_MAX(o->kv.k_dim, o->kv.v_dim) <= COLUMNS_MAX &&
           y.k_pad % each == 0 && y.v_pad % each == 0 && o->kv.page_size % STRIP == 0;
}

extern "C" void attention_strips(struct cuda *c, enum kv_dtype t, const struct span_args *s,
                                 uint32_t n_items) {
    if (t == KV_BF16)
        launch_for<KV_BF16>(c, *s, n_items);
    else if (t == KV_F16)
        launch_for<KV_F16>(c, *s, n_items);
    else if (t == KV_INT8)
        launch_for<KV_INT8>(c, *s, n_items);
    else
        launch_for<KV_FP8>(c, *s, n_items);
}
