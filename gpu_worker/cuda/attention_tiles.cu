/* Attention of prompts: tiles of 64 rows of a sequence and one query head against blocks of keys, on the tensor cores, with the
 * softmax carried along in f32. See attention.h.
 *
 *     keys [KEYS][D] ─▶ shared ─▶ s = q · k^T ─▶ p = exp(s - max) ─▶ o = o * shrink + p · v      values: turned in shared
 *
 * A warp has 16 of the rows: what it carries lies in its registers. Sums of 256 columns leave no room there for queries: those lie
 * in shared memory, where each thread reads what it wrote, and blocks are of half as many keys. Slow twin: cpu_attention. */
#include "gpu_worker/cuda/attention_rows.cuh"

#include <string.h>

enum { THREADS = 128, ROWS = 64, TILE_COLUMNS = 256 };

template <int D> struct shape {
    static constexpr bool IS_WIDE = D > 128;
    static constexpr uint32_t KEYS = IS_WIDE ? 32 : 64, K_PITCH = D + 8, V_PITCH = KEYS + 8,
                              KV_BYTES = (KEYS * K_PITCH + D * V_PITCH) * sizeof(uint16_t),
                              BYTES = KV_BYTES + (IS_WIDE ? D / 16 * THREADS * sizeof(uint4) : 0);
};

/* Keys and values of positions base … base + KEYS - 1 into shared memory, zero outside [from, to). */
template <int T, int D>
static __device__ void bring_keys(const struct attend &a, const uint32_t *pages, uint32_t head,
                                  uint32_t base, const struct attend_tile &t, uint16_t *k,
                                  uint16_t *v) {
    constexpr uint32_t KEYS = shape<D>::KEYS;
    for (uint32_t unit = threadIdx.x; unit < KEYS * D / 8; unit += THREADS) {
        uint32_t j = unit % KEYS, d = unit / KEYS * 8, at = base + j, in_page = at % a.page_size;
        uint4 key = {0, 0, 0, 0}, value = {0, 0, 0, 0};
        if (at >= t.from && at < t.to) {
            const uint8_t *page =
                a.pool + pages[at / a.page_size] * a.y.page_bytes + head * a.y.head_bytes;
            const float *scales = (const float *)(page + a.y.scale_at);
            float ks = CUDA_KV_IS_SCALED(T) ? scales[in_page] : 1,
                  vs = CUDA_KV_IS_SCALED(T) ? scales[a.y.v_scale + in_page] : 1;
            if (d < a.y.k_pad) key = kv_pack<T>(page + (size_t)in_page * a.y.k_step, d, ks);
            if (d < a.y.v_pad)
                value = kv_pack<T>(page + a.y.v_at + (size_t)in_page * a.y.v_step, d, vs);
        }
        *(uint4 *)(k + j * shape<D>::K_PITCH + d) = key;
        const uint32_t pairs[4] = {value.x, value.y, value.z, value.w};
        for (uint32_t i = 0; i < 8; i++)
            v[(d + i) * shape<D>::V_PITCH + j] = (uint16_t)(pairs[i / 2] >> (16 * (i % 2)));
    }
}

/* Queries of a warp as fragments, in registers or in shared memory. */
template <int T, int D> struct queries {
    uint32_t in[shape<D>::IS_WIDE ? 1 : D / 16][4];
    uint4 *own; /* the thread's first, THREADS apart */

    __device__ __forceinline__ void load(const struct attend &a, const struct attend_tile &t,
                                         uint32_t head, uint8_t *room) {
        own = (uint4 *)room + threadIdx.x;
        for (uint32_t d = 0; d < D / 16; d++) {
            uint32_t q[4];
            load_query<T>(a, t, head, d, q);
            const uint4 v = {q[0], q[1], q[2], q[3]};
            if (shape<D>::IS_WIDE) own[d * THREADS] = v;
            for (int i = 0; i < 4 && !shape<D>::IS_WIDE; i++)
                in[d][i] = q[i];
        }
    }
    __device__ __forceinline__ void get(uint32_t d, uint32_t (&q)[4]) const {
        if (shape<D>::IS_WIDE) {
            uint4 v = own[d * THREADS];
            q[0] = v.x, q[1] = v.y, q[2] = v.z, q[3] = v.w;
        }
        for (int i = 0; i < 4 && !shape<D>::IS_WIDE; i++)
            q[i] = in[d][i];
    }
};

template <int T, int D>
static __global__ void __launch_bounds__(THREADS) tile_kernel(const struct tile_args args) {
    begin();
    constexpr uint32_t KEYS = shape<D>::KEYS, K_PITCH = shape<D>::K_PITCH,
                       V_PITCH = shape<D>::V_PITCH;
    const struct attend &a = args.a;
    const struct attend_tile t = args.tiles[blockIdx.x];
    SHARED(uint8_t, bytes);
    uint16_t *k = (uint16_t *)bytes, *v = k + KEYS * K_PITCH;
    uint32_t head = blockIdx.y;
    struct queries<T, D> queries;
    float out[D / 8][4] = {}, shrink[2];
    struct carried c = carry(a, t, head);
    const uint32_t *pages = a.pages + a.rows[t.row].first_page;
    queries.load(a, t, head, bytes + shape<D>::KV_BYTES);
    for (uint32_t base = t.from / KEYS * KEYS; base < t.to; base += KEYS) {
        float s[KEYS / 8][4] = {};
        __syncthreads(); /* the last block is read */
        bring_keys<T, D>(a, pages, head / a.group, base, t, k, v);
        __syncthreads();
        for (uint32_t d = 0; d < D / 16; d++) {
            uint32_t q[4];
            queries.get(d, q);
            for (uint32_t j = 0; j < KEYS / 8; j++) {
                uint32_t b[2];
                mma_load_b(k + 8 * j * K_PITCH + 16 * d, K_PITCH, b);
                mma<T>(s[j], q, b);
            }
        }
        weigh(a, c, base, s, shrink);
        shrink_sums(out, shrink);
        for (uint32_t j = 0; j < KEYS / 16; j++) {
            uint32_t p[4];
            pack_weights<T>(s, j, p);
            for (uint32_t d = 0; d < D / 8; d++) {
                uint32_t b[2];
                mma_load_b(v + 8 * d * V_PITCH + 16 * j, V_PITCH, b);
                mma<T>(out[d], p, b);
            }
        }
    }
    store_rows(a, t, head, c, out);
}

/* ---- host ---- */

template <int T, int D>
static void launch(struct cuda *c, const struct tile_args &args, uint32_t n_tiles) {
    LAUNCH(c, (tile_kernel<T, D>), args, GRID(n_tiles, args.a.n_heads, 1), THREADS,
           shape<D>::BYTES);
}

template <int T>
static void launch_for(struct cuda *c, const struct tile_args &args, uint32_t n_tiles) {
    const uint32_t dim = BY_MAX(args.a.k_dim, args.a.v_dim);
    if (dim <= 64)
        launch<T, 64>(c, args, n_tiles);
    else if (dim <= 128)
        launch<T, 128>(c, args, n_tiles);
    else
        launch<T, TILE_COLUMNS>(c, args, n_tiles);
}

extern "C" bool attention_fits_tiles(const struct op_attention *o) {
    return o->kv.dtype != KV_F32 && BY_MAX(o->kv.k_dim, o->kv.v_dim) <= TILE_COLUMNS &&
           o->scale > 0;
}

extern "C" void attention_tiles(struct cuda *c, const struct op_attention *o,
                                const struct attend *a, const struct seq_rows *s, uint32_t first,
                                uint32_t n) {
    struct tile_args args;
    uint32_t n_tiles = BY_DIV_UP(n, (uint32_t)ROWS);
    memset(&args, 0, sizeof args);
    args.a = *a, args.tiles = attention_tiles_of(c, o, s, first, n, ROWS, CUDA_ROOM_TILES);
    if (o->kv.dtype == KV_BF16)
        launch_for<KV_BF16>(c, args, n_tiles);
    else if (o->kv.dtype == KV_F16)
        launch_for<KV_F16>(c, args, n_tiles);
    else if (o->kv.dtype == KV_INT8)
        launch_for<KV_INT8>(c, args, n_tiles);
    else
        launch_for<KV_FP8>(c, args, n_tiles);
}
