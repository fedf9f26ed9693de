/* Attention of single rows over latent keys on the tensor cores, in f32: a block has a span of keys and up to 16 of the query heads
 * that share it; values are their keys' first columns. See attention.h.
 *
 *     pages ─copy16─▶ a stage: 16 keys ─▶ s[16 heads][16 keys] = q · k^T, of a quarter of the columns a warp ─┐ shared
 *                                 │        p = exp(s - max) ◀── the four quarters, in order ◀──────────────────┘
 *                                 └──────▶ o[16 heads][a quarter of the values' columns] += p · v
 *
 * Heads are the large side of each product, in parts (attention_parts.cuh), and stay in registers: a key is read from shared memory
 * once as key and once as value for all of them. Slow twin: cpu_attention. */
#include "gpu_worker/cuda/attention.h"
#include "gpu_worker/cuda/attention_parts.cuh"
#include "gpu_worker/cuda/copies.cuh"

#include <string.h>

enum {
    HEADS = 16,
    KEYS = 16, /* of a stage */
    WARPS = 4,
    THREADS = 32 * WARPS,
    KEY_THREADS = THREADS / KEYS, /* that bring a key */
    K_COLUMNS = 576,
    V_COLUMNS = 512,
    K_NARROW = 320, /* keys and values of fewer columns have kernels of their own */
    V_NARROW = 256,
};

/* Keys of up to D columns. A key lies 16 bytes from the next one, so that eight of them are in different banks. */
template <int T, int D> struct stage {
    static constexpr bool IS_BYTES = CUDA_KV_IS_SCALED(T);
    static constexpr uint32_t ROW = IS_BYTES ? D : 2 * D, PITCH = ROW + 16, CHUNKS = ROW / 16,
                              SCALES = KEYS * PITCH,
                              SIZE = SCALES + (IS_BYTES ? KEYS * sizeof(float) : 0),
                              N = IS_BYTES ? 4 : 3, SCORES = N * SIZE;
    /* of two stages: [quarter][8 keys][lane] */
    static constexpr uint32_t SCORES_SIZE = WARPS * HEADS * KEYS * sizeof(float),
                              QUERIES = SCORES + 2 * SCORES_SIZE;
    /* steps of 16 columns in a warp's quarter: of values; of keys, and those whose queries find no registers */
    static constexpr uint32_t VALUE_STEPS = (D == K_NARROW ? V_NARROW : V_COLUMNS) / 16 / WARPS,
                              STEPS = D / 16 / WARPS,
                              STEPS_SHARED = STEPS * PARTS<T> + VALUE_STEPS * 2 > 40 ? 2 : 0;
    static constexpr uint32_t BYTES = QUERIES + STEPS_SHARED * PARTS<T> * THREADS * sizeof(uint4);
    static_assert(BYTES <= 81 << 10, "two blocks of a processor, with 164 KB as an A100 has");
};

/* What a lane carries of heads l / 4 and + 8. */
struct carried {
    float max[2], mass[2]; /* mass: of the lane's own keys */
    float factor[2];       /* from a product to a score */
};

/* A warp has one of the columns. */
static __device__ __forceinline__ uint32_t quarter_of(void) {
    return threadIdx.x / 32;
}

/* ---- pages to stages ---- */

/* Where the thread's key of the stage from `base` on lies. */
static __device__ __forceinline__ uint32_t page_of(const uint32_t *pages, uint32_t page_size,
                                                   uint32_t base, uint32_t to) {
    const uint32_t at = base + threadIdx.x / KEY_THREADS;
    return at < to ? pages[at / page_size] : 0;
}

/* Keys from `base` on, zero outside [from, to) and behind their columns. */
template <class S>
static __device__ __forceinline__ void bring(const struct attend &a, const struct attend_item &item,
                                             uint32_t page, uint32_t base, const uint8_t *room) {
    const uint32_t r = threadIdx.x / KEY_THREADS, at = base + r, in_page = at % a.page_size,
                   to = shared_address(room);
    const bool is_seen = at >= item.from && at < item.to;
    const uint8_t *head = a.pool + page * a.y.page_bytes + blockIdx.y * a.y.head_bytes,
                  *key = head + (size_t)in_page * a.y.k_step;
    for (uint32_t e = 0; e < S::CHUNKS; e += KEY_THREADS) {
        const uint32_t i = e + threadIdx.x % KEY_THREADS;
        if (e + KEY_THREADS <= S::CHUNKS || i < S::CHUNKS)
            copy16(to + r * S::PITCH + 16 * i, key + 16 * i,
                   is_seen && 16 * i < a.y.k_step ? 16 : 0);
    }
    if (S::IS_BYTES && threadIdx.x % (4 * KEY_THREADS) == 0) /* of four keys, in one page */
        copy16(to + S::SCALES + 4 * r, (const float *)(head + a.y.scale_at) + in_page,
               at < item.to ? 16 : 0);
}

/* ---- fragments ---- */

/* Of 16 keys, n steps of columns from `at` on: [step][8 keys]. */
template <int T, class S>
static __device__ __forceinline__ void load_keys(const uint8_t *keys, uint32_t at, uint32_t n,
                                                 uint32_t (&k)[2][2][2]) {
    const uint32_t l = threadIdx.x % 32;
    uint32_t m[4];
    if (S::IS_BYTES) { /* matrices: keys, the other eight; those 16 columns on */
        load_matrices((const uint16_t *)(keys + l % 16 * S::PITCH + 16 * (at + l / 16)), m);
        for (int j = 0; j < 4; j++)
            widen<T, false>(m[j], k[j / 2][j % 2][0], k[j / 2][j % 2][1]);
    } else {
        for (uint32_t f = 0; f < n; f++) {
            mma_load_two_b((const uint16_t *)(keys + 32 * (at + f)), S::PITCH / 2, m);
            for (int j = 0; j < 4; j++)
                k[f][j / 2][j % 2] = m[j];
        }
    }
}

/* The same of values, two steps: [step][8 columns]; of bytes, even columns and odd ones. */
template <int T, class S>
static __device__ __forceinline__ void load_values(const uint8_t *keys, uint32_t at,
                                                   uint32_t (&v)[2][2][2]) {
    const uint32_t l = threadIdx.x % 32;
    uint32_t m[4];
    if (S::IS_BYTES) {
        load_matrices_turned((const uint16_t *)(keys + l % 16 * S::PITCH + 16 * (at + l / 16)), m);
        for (int j = 0; j < 4; j++)
            widen<T, true>(m[j], v[j / 2][0][j % 2], v[j / 2][1][j % 2]);
    } else {
        for (int f = 0; f < 2; f++) {
            mma_load_two_b_turned((const uint16_t *)(keys + 32 * (at + f)), S::PITCH / 2, m);
            for (int j = 0; j < 4; j++)
                v[f][j / 2][j % 2] = m[j];
        }
    }
}

/* Two numbers of a query, of word i in step d of the warp's quarter: in the order in which keys lie in fragments. */
template <int T, class S>
static __device__ __forceinline__ float2 query_at(const float *q, uint32_t d, uint32_t i,
                                                  uint32_t n) {
    const uint32_t k = threadIdx.x % 4, col = 16 * (quarter_of() * S::STEPS + d) +
                                              (S::IS_BYTES ? 4 * k + i / 2 * 2 : 2 * k + i / 2 * 8);
    return {col < n ? q[col] : 0, col + 1 < n ? q[col + 1] : 0};
}

/* The largest number of a query. */
static __device__ __forceinline__ float top_of(const float *q, uint32_t n) {
    float top = 0;
    for (uint32_t d = threadIdx.x % 4; d < n; d += 4)
        top = fmaxf(top, fabsf(q[d]));
    for (int k = 1; k < 4; k *= 2)
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, k));
    return top;
}

/* The warp's quarter of its queries, in parts; the last ones in shared memory, where each thread reads what it wrote. */
template <int T, class S> struct queries {
    uint32_t in[S::STEPS - S::STEPS_SHARED][PARTS<T>][4];
    uint4 *own; /* THREADS apart */
};

template <int T, class S>
static __device__ __forceinline__ void load_queries(const struct attend &a, uint32_t row,
                                                    uint32_t head, uint32_t n_heads,
                                                    struct queries<T, S> &q, struct carried &c) {
    const float *x[2];
    uint32_t n[2];
    float up[2] = {1, 1}, down[2] = {1, 1};
    for (uint32_t h = 0; h < 2; h++) {
        const uint32_t r = threadIdx.x % 32 / 4 + 8 * h;
        n[h] = r < n_heads ? a.k_dim : 0;
        x[h] = a.q + (size_t)row * a.q_ld + a.q_col + (size_t)(head + r) * a.k_dim;
        if (T == KV_F16) bring_up(top_of(x[h], n[h]), up[h], down[h]);
        c.factor[h] = a.scale * down[h];
        c.max[h] = -INFINITY, c.mass[h] = 0;
    }
    for (uint32_t d = 0; d < S::STEPS; d++) {
        uint32_t parts[4][PARTS<T>];
        for (uint32_t i = 0; i < 4; i++) {
            const float2 two = query_at<T, S>(x[i % 2], d, i, n[i % 2]);
            split_pair<T>(two.x * up[i % 2], two.y * up[i % 2], parts[i]);
        }
        for (int p = 0; p < PARTS<T>; p++)
            if (d >= S::STEPS - S::STEPS_SHARED)
                q.own[((S::STEPS - 1 - d) * PARTS<T> + p) * THREADS] = {parts[0][p], parts[1][p],
                                                                        parts[2][p], parts[3][p]};
            else
                for (int i = 0; i < 4; i++)
                    q.in[d][p][i] = parts[i][p];
    }
}

template <int T, class S>
static __device__ __forceinline__ uint4 query_part(const struct queries<T, S> &q, uint32_t d,
                                                   int p) {
    if (d >= S::STEPS - S::STEPS_SHARED)
        return q.own[((S::STEPS - 1 - d) * PARTS<T> + p) * THREADS];
    return {q.in[d][p][0], q.in[d][p][1], q.in[d][p][2], q.in[d][p][3]};
}

/* ---- a stage ---- */

/* Products of the warp's quarter of the columns. */
template <int T, class S>
static __device__ __forceinline__ void multiply_keys(const uint8_t *keys,
                                                     const struct queries<T, S> &q, float4 *room) {
    float sums[PARTS<T>][2][4] = {};
    for (uint32_t d = 0; d < S::STEPS; d += 2) {
        const uint32_t n = d + 1 < S::STEPS ? 2 : 1;
        uint32_t k[2][2][2];
        load_keys<T, S>(keys, quarter_of() * S::STEPS + d, n, k);
        for (uint32_t f = 0; f < n; f++)
            for (int p = 0; p < PARTS<T>; p++) {
                const uint4 x = query_part(q, d + f, p);
                for (int j = 0; j < 2; j++)
                    mma<T>(sums[p][j], {x.x, x.y, x.z, x.w}, k[f][j]);
            }
    }
    for (uint32_t j = 0; j < 2; j++) {
        float s[4] = {};
        for (int p = PARTS<T>; p--;) /* the smallest first */
            for (int i = 0; i < 4; i++)
                s[i] += sums[p][j][i];
        room[32 * j + threadIdx.x + quarter_of() * 32] = {s[0], s[1], s[2], s[3]};
    }
}

/* Sums over the quarters, in order. i of s[j]: key 8 j + 2 (l % 4) + i % 2, head l / 4 + 8 (i / 2). */
static __device__ __forceinline__ void add_quarters(const float4 *room, float (&s)[2][4]) {
    for (uint32_t w = 0; w < WARPS; w++)
        for (uint32_t j = 0; j < 2; j++) {
            const float4 o = room[32 * (2 * w + j) + threadIdx.x % 32];
            s[j][0] += o.x, s[j][1] += o.y, s[j][2] += o.z, s[j][3] += o.w;
        }
}

/* Scores become weights of values; shrink: what earlier sums are multiplied by. */
template <int T>
static __device__ __forceinline__ void weigh(const struct attend &a, const struct attend_item &item,
                                             uint32_t base, const float *scales, struct carried &c,
                                             float (&s)[2][4], float (&shrink)[2]) {
    const uint32_t first = threadIdx.x % 4 * 2; /* of the lane's keys, and 1, 8 and 9 on */
    bool is_seen[4];
    for (int i = 0; i < 4; i++) {
        const uint32_t at = base + first + i % 2 + i / 2 * 8;
        is_seen[i] = at >= item.from && at < item.to;
    }
    for (int i = 0; i < 8; i++) {
        float &v = s[i / 4][i % 4];
        const int key = i / 4 * 2 + i % 2;
        v *= c.factor[i % 4 / 2];
        if (CUDA_KV_IS_SCALED(T)) v *= scales[first + i % 2 + i / 4 * 8];
        if (a.softcap > 0) v = a.softcap * tanhf(v / a.softcap);
        if (!is_seen[key]) v = -INFINITY;
    }
    for (int h = 0; h < 2; h++) {
        float max = fmaxf(fmaxf(s[0][2 * h], s[0][2 * h + 1]), fmaxf(s[1][2 * h], s[1][2 * h + 1]));
        for (int x = 1; x < 4; x *= 2)
            max = fmaxf(max, __shfl_xor_sync(0xffffffffu, max, x));
        max = fmaxf(max, c.max[h]);
        shrink[h] = expf(c.max[h] - finite(max));
        c.max[h] = max, c.mass[h] *= shrink[h];
    }
    for (int i = 0; i < 8; i++) {
        float &v = s[i / 4][i % 4];
        v = expf(v - finite(c.max[i % 4 / 2]));
        c.mass[i % 4 / 2] += v;
        /* what lies beside the keys that are seen may be anything */
        if (CUDA_KV_IS_SCALED(T))
            v *= is_seen[i / 4 * 2 + i % 2] ? scales[first + i % 2 + i / 4 * 8] : 0;
    }
}

/* Sums of a stage by themselves, the smallest parts first, and then to those before. */
template <int T, class S>
static __device__ __forceinline__ void add_values(const uint8_t *keys, const float (&s)[2][4],
                                                  const float (&shrink)[2],
                                                  float (&out)[S::VALUE_STEPS][2][4]) {
    uint32_t p[PARTS<T>][4];
    for (int i = 0; i < 4; i++) {
        uint32_t parts[PARTS<T>];
        split_pair<T>(s[i / 2][i % 2 * 2], s[i / 2][i % 2 * 2 + 1], parts);
        for (int k = 0; k < PARTS<T>; k++)
            p[k][i] = parts[k];
    }
    for (uint32_t d = 0; d < S::VALUE_STEPS; d += 2) {
        uint32_t v[2][2][2];
        float sums[2][2][4] = {};
        load_values<T, S>(keys, quarter_of() * S::VALUE_STEPS + d, v);
        for (int k = PARTS<T>; k--;)
            for (int i = 0; i < 4; i++)
                mma<T>(sums[i / 2][i % 2], p[k], v[i / 2][i % 2]);
        for (int i = 0; i < 16; i++) {
            float &o = out[d + i / 8][i / 4 % 2][i % 4];
            o = fmaf(o, shrink[i % 4 / 2], sums[i / 8][i / 4 % 2][i % 4]);
        }
    }
}

/* ---- the block ---- */

/* The warp's quarter of the columns, and with the first one max and mass, into the part. */
template <int T, class S>
static __device__ __forceinline__ void
store_part(const struct span_args &args, uint32_t part, uint32_t head, uint32_t n_heads,
           const struct carried &c, const float (&out)[S::VALUE_STEPS][2][4]) {
    const uint32_t k = threadIdx.x % 4, v_dim = args.a.v_dim;
    for (uint32_t h = 0; h < 2; h++) {
        const uint32_t r = threadIdx.x % 32 / 4 + 8 * h;
        float mass = c.mass[h];
        for (int x = 1; x < 4; x *= 2)
            mass += __shfl_xor_sync(0xffffffffu, mass, x);
        if (r >= n_heads) continue;
        float *to = args.parts + ((size_t)part * args.a.n_heads + head + r) * (v_dim + 2);
        for (uint32_t d = 0; d < S::VALUE_STEPS; d++)
            for (uint32_t j = 0; j < 2; j++)
                for (uint32_t i = 0; i < 2; i++) {
                    const uint32_t col = 16 * (quarter_of() * S::VALUE_STEPS + d) +
                                         (S::IS_BYTES ? 4 * k + 2 * i + j : 8 * j + 2 * k + i);
                    if (col < v_dim) to[col] = out[d][j][2 * h + i];
                }
        if (quarter_of() == 0 && k == 0) to[v_dim] = c.max[h], to[v_dim + 1] = mass;
    }
}

/* Blocks of one item are neighbours: what one reads, the others find in the L2 cache. */
template <int T, int D>
static __global__ void __launch_bounds__(THREADS, 2) heads_kernel(const struct span_args args) {
    begin();
    using S = stage<T, D>;
    const struct attend &a = args.a;
    const uint32_t n_sets = BY_DIV_UP(a.group, (uint32_t)HEADS),
                   first = blockIdx.x % n_sets * HEADS, head = blockIdx.y * a.group + first,
                   n_heads = BY_MIN((uint32_t)HEADS, a.group - first);
    const struct attend_item item = args.items[blockIdx.x / n_sets];
    SHARED(uint8_t, bytes);
    if (item.from == item.to) return;
    const uint32_t *pages = a.pages + a.rows[item.row].first_page;
    uint32_t base = item.from / KEYS * KEYS, coming = base; /* the next stage to be brought */
    for (uint32_t i = 0; i < S::N - 1; i++, coming += KEYS) {
        const uint32_t page = page_of(pages, a.page_size, coming, item.to);
        if (coming < item.to) bring<S>(a, item, page, coming, bytes + i * S::SIZE);
        copies_commit();
    }
    struct carried c;
    struct queries<T, S> q;
    q.own = (uint4 *)(bytes + S::QUERIES) + threadIdx.x;
    uint32_t page = page_of(pages, a.page_size, coming, item.to);
    float out[S::VALUE_STEPS][2][4] = {};
    load_queries<T, S>(a, item.row, head, n_heads, q, c);
    copies_wait<S::N - 2>();
    __syncthreads();
    for (uint32_t now = 0; base < item.to; base += KEYS, now = (now + 1) % S::N) {
        const uint8_t *keys = bytes + now * S::SIZE;
        float4 *room = (float4 *)(bytes + S::SCORES + base / KEYS % 2 * S::SCORES_SIZE);
        float s[2][4] = {}, shrink[2];
        multiply_keys<T, S>(keys, q, room);
        copies_wait<S::N - 3>();
        __syncthreads(); /* all scores are there, and the next stage; the one before is read */
        if (coming < item.to)
            bring<S>(a, item, page, coming, bytes + (now + S::N - 1) % S::N * S::SIZE);
        copies_commit();
        coming += KEYS;
        page = page_of(pages, a.page_size, coming, item.to); /* soon enough */
        add_quarters(room, s);
        weigh<T>(a, item, base, (const float *)(keys + S::SCALES), c, s, shrink);
        add_values<T, S>(keys, s, shrink, out);
    }
    store_part<T, S>(args, item.part, head, n_heads, c, out);
}

/* ---- host ---- */

template <int T, int D>
static void launch(struct cuda *c, const struct span_args &s, uint32_t n_items) {
    const uint32_t n_sets = BY_DIV_UP(s.a.group, (uint32_t)HEADS);
    LAUNCH(c, (heads_kernel<T, D>), s, GRID(n_items * n_sets, s.a.n_heads / s.a.group, 1), THREADS,
           (stage<T, D>::BYTES));
}

template <int T>
static void launch_for(struct cuda *c, const struct span_args &s, uint32_t n_items) {
    if (s.a.k_dim <= K_NARROW && s.a.v_dim <= V_NARROW)
        launch<T, K_NARROW>(c, s, n_items);
    else
        launch<T, K_COLUMNS>(c, s, n_items);
}

extern "C" bool attention_fits_heads(const struct op_attention *o) {
    const struct kv_shape *kv = &o->kv;
    const struct cuda_kv y = cuda_kv_of(kv);
    return kv->v_in_k && kv->dtype != KV_F32 && kv->k_dim <= K_COLUMNS && kv->v_dim <= V_COLUMNS &&
           y.k_step % 16 == 0 && kv->page_size % 4 == 0;
}

extern "C" void attention_heads(struct cuda *c, enum kv_dtype t, const struct span_args *s,
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
