/* Attention of prompts whose heads are wide, latent keys above all: tiles of 64 rows against blocks of 32 keys, on the tensor cores,
 * with the softmax carried along in f32. A row is a token with one of the query heads that share the kv head. See attention.h.
 *
 *     warp w: rows 16 (w % 4) …, half w / 4 of the columns
 *     keys [32][576] ─▶ s of half the columns ─▶ + the other half's, through shared ─▶ p ─▶ o [16][256] += p · half of the values
 *
 * Values that are their keys' first columns are those keys, where they are in shared memory. A block is copied while the one before
 * it is multiplied. Slow twin: cpu_attention. */
#include "gpu_worker/cuda/attention_rows.cuh"
#include "gpu_worker/cuda/copies.cuh"

#include <string.h>

enum {
    ROW_WARPS = 4,
    WARPS = 2 * ROW_WARPS,
    THREADS = 32 * WARPS,
    ROWS = 16 * ROW_WARPS,
    KEYS = 32,
    KEY_THREADS = THREADS / KEYS, /* that bring a key */
    K_COLUMNS = 576,
    V_COLUMNS = 512,
    PITCH = K_COLUMNS + 8,       /* numbers; rows of ldmatrix begin in eight different banks */
    HALF_STEPS = K_COLUMNS / 32, /* of 16 columns, in half the keys */
    /* of these so many queries are not in registers, of which sums take 128, the others 64 */
    SHARED_STEPS = 2,
};

struct latent_args {
    struct attend a;
    uint32_t row, n; /* rows of one sequence, from row on */
};

/* What lies in shared memory. Numbers of a byte are copied to where their thread alone reads them, and unpacked from there. */
template <int T> struct shape {
    static constexpr uint32_t BLOCK = KEYS * PITCH * sizeof(uint16_t),
                              KEY_CHUNKS = K_COLUMNS * (CUDA_KV_IS_SCALED(T) ? 1 : 2) / 16,
                              CHUNKS = (KEY_CHUNKS + KEY_THREADS - 1) / KEY_THREADS,
                              PACKED = CHUNKS * THREADS * 16,
                              SCORES = BLOCK + (CUDA_KV_IS_SCALED(T) ? PACKED : BLOCK),
                              QUERIES = SCORES + WARPS * 16 * KEYS * sizeof(float),
                              BYTES = QUERIES + SHARED_STEPS * THREADS * sizeof(uint4);
    static_assert(BYTES <= 99 << 10, "what a block may have on sm_86 and sm_89");
};

static __device__ __forceinline__ uint32_t tile_of(void) {
    return gridDim.x - 1 - blockIdx.x; /* those with the most keys first */
}

/* ---- keys and values, block after block ---- */

template <int T> struct blocks {
    const struct attend &a;
    const uint32_t *pages;
    uint8_t *room;
    uint32_t from, to; /* positions outside are zeros */
    uint32_t base;     /* of the block that is under way */
    bool is_value, is_second;
    float scale; /* of the thread's key there */
};

/* What the rows of the tile see between them, from its first block on. */
template <int T>
static __device__ __forceinline__ struct blocks<T> blocks_of(const struct latent_args &args,
                                                             uint8_t *room) {
    const struct attend &a = args.a;
    const uint32_t first = tile_of() * ROWS, last = BY_MIN(first + ROWS, args.n *a.group) - 1;
    const struct cuda_row &row = a.rows[args.row + first / a.group];
    const uint32_t from = first_of(a, row), to = a.rows[args.row + last / a.group].end;
    return {a, a.pages + row.first_page, room, from, to, from / KEYS *KEYS, false, false, 0};
}

/* Copies the thread's part of the next block: of one key every KEY_THREADS-th 16 bytes. */
template <int T>
static __device__ __forceinline__ void begin_block(struct blocks<T> &b) {
    const struct attend &a = b.a;
    const uint32_t key = threadIdx.x / KEY_THREADS, at = b.base + key, in_page = at % a.page_size;
    const uint8_t *from = a.pool;
    uint32_t n_bytes = 0;
    b.scale = 0;
    if (at >= b.from && at < b.to) {
        from += b.pages[at / a.page_size] * a.y.page_bytes + blockIdx.y * a.y.head_bytes;
        if (CUDA_KV_IS_SCALED(T))
            b.scale =
                ((const float *)(from + a.y.scale_at))[(b.is_value ? a.y.v_scale : 0) + in_page];
        n_bytes = b.is_value ? a.y.v_step : a.y.k_step;
        from += (b.is_value ? a.y.v_at : 0) + (size_t)in_page * n_bytes;
    }
    for (uint32_t i = 0; i < shape<T>::CHUNKS; i++) {
        const uint32_t chunk = threadIdx.x % KEY_THREADS + i * KEY_THREADS;
        const uint8_t *to = CUDA_KV_IS_SCALED(T)
                                ? b.room + shape<T>::BLOCK + 16 * (i * THREADS + threadIdx.x)
                                : b.room + (b.is_second ? shape<T>::BLOCK : 0) +
                                      key * PITCH * sizeof(uint16_t) + 16 * chunk;
        if (chunk < shape<T>::KEY_CHUNKS)
            copy16(shared_address(to), from + 16 * chunk, 16 * chunk < n_bytes ? 16 : 0);
    }
    copies_commit();
}

template <int T> static __device__ __forceinline__ void unpack_block(const struct blocks<T> &b) {
    for (uint32_t i = 0; i < shape<T>::CHUNKS; i++) {
        const uint32_t chunk = threadIdx.x % KEY_THREADS + i * KEY_THREADS;
        const uint8_t *from = b.room + shape<T>::BLOCK + 16 * (i * THREADS + threadIdx.x);
        uint4 *to =
            (uint4 *)(b.room + threadIdx.x / KEY_THREADS * PITCH * sizeof(uint16_t) + 32 * chunk);
        if (chunk < shape<T>::KEY_CHUNKS)
            to[0] = kv_pack<T>(from, 0, b.scale), to[1] = kv_pack<T>(from, 8, b.scale);
    }
}

/* The block that is under way, once all of it is there; the next one is under way instead. The block that was given before is no
 * more. */
template <int T> static __device__ __forceinline__ const uint16_t *next_block(struct blocks<T> &b) {
    const uint8_t *block = b.room + (b.is_second ? shape<T>::BLOCK : 0);
    copies_wait<0>();
    __syncthreads(); /* all have their copies, and have read the block before */
    if (CUDA_KV_IS_SCALED(T)) {
        unpack_block(b);
        __syncthreads();
    }
    b.is_second = !CUDA_KV_IS_SCALED(T) && !b.is_second;
    b.is_value = b.a.y.v_at && !b.is_value;
    if (!b.is_value) b.base += KEYS;
    if (b.base < b.to) begin_block(b);
    return (const uint16_t *)block;
}

/* ---- rows ---- */

/* Number h of a thread's two rows; behind the last of all that one again, which then is stored several times, the same. */
struct place {
    uint32_t row, head;
};

static __device__ __forceinline__ struct place place_of(const struct latent_args &args, int h) {
    const uint32_t group = args.a.group,
                   r = threadIdx.x / 32 % ROW_WARPS * 16 + threadIdx.x % 32 / 4,
                   at = BY_MIN(tile_of() * ROWS + r + 8 * h, args.n * group - 1);
    return {args.row + at / group, blockIdx.y * group + at % group};
}

/* A warp's 16 queries, half the columns: fragments; the last ones in shared memory, where each thread reads what it wrote. */
struct queries {
    uint32_t in[HALF_STEPS - SHARED_STEPS][4];
    uint4 *own; /* THREADS apart */
};

/* How many of n columns are from `from` on. */
static __device__ __forceinline__ int columns_from(uint32_t n, uint32_t from) {
    return (int)n - (int)from;
}

template <int T>
static __device__ __forceinline__ void load_rows(const struct latent_args &args, uint32_t half,
                                                 struct queries &q, struct carried &c) {
    const uint32_t from = half * K_COLUMNS / 2 + threadIdx.x % 4 * 2;
    const int n = columns_from(args.a.k_dim, from);
    const float *x[2];
    for (int h = 0; h < 2; h++) {
        const struct place p = place_of(args, h);
        carry_row(args.a, p.row, p.head, h, c);
        x[h] = query_of(args.a, p.row, p.head) + from;
    }
    for (int d = 0; d < HALF_STEPS; d++) {
        uint32_t f[4];
        for (int i = 0; i < 4; i++) {
            const int at = 16 * d + i / 2 * 8;
            f[i] = pack2<T>(at < n ? x[i % 2][at] : 0, at + 1 < n ? x[i % 2][at + 1] : 0);
        }
        if (d >= HALF_STEPS - SHARED_STEPS)
            q.own[(HALF_STEPS - 1 - d) * THREADS] = {f[0], f[1], f[2], f[3]};
        for (int i = 0; i < 4 && d < HALF_STEPS - SHARED_STEPS; i++)
            q.in[d][i] = f[i];
    }
}

static __device__ __forceinline__ void store_rows(const struct latent_args &args, uint32_t half,
                                                  const struct carried &c,
                                                  const float (&out)[V_COLUMNS / 16][4]) {
    const uint32_t from = half * V_COLUMNS / 2 + threadIdx.x % 4 * 2;
    const int n = columns_from(args.a.v_dim, from);
    float *to[2], share[2];
    for (int h = 0; h < 2; h++) {
        const struct place p = place_of(args, h);
        to[h] = out_of(args.a, p.row, p.head) + from;
        share[h] = 1 / c.mass[h];
    }
#pragma unroll /* else the sums go through memory */
    for (int d = 0; d < V_COLUMNS / 16; d++)
        for (int i = 0; i < 4; i++)
            if (8 * d + i % 2 < n) to[i / 2][8 * d + i % 2] = out[d][i] * share[i / 2];
}

/* Scores of half the columns, as the mma gives them. */
template <int T>
static __device__ __forceinline__ void score(float (&s)[KEYS / 8][4], const struct queries &q,
                                             const uint16_t *keys) {
    for (int d = 0; d < HALF_STEPS; d++) {
        uint4 v = {};
        if (d >= HALF_STEPS - SHARED_STEPS)
            v = q.own[(HALF_STEPS - 1 - d) * THREADS];
        else
            v = {q.in[d][0], q.in[d][1], q.in[d][2], q.in[d][3]};
        for (uint32_t j = 0; j < KEYS / 16; j++) {
            uint32_t m[4];
            mma_load_two_b(keys + 16 * j * PITCH + 16 * d, PITCH, m);
            mma<T>(s[2 * j], {v.x, v.y, v.z, v.w}, {m[0], m[1]});
            mma<T>(s[2 * j + 1], {v.x, v.y, v.z, v.w}, {m[2], m[3]});
        }
    }
}

/* Adds those of the other half, which the warp ROW_WARPS away has: x + y and y + x are the same bits. */
static __device__ __forceinline__ void add_other_half(float (&s)[KEYS / 8][4], float4 *room) {
    const uint32_t own = threadIdx.x / 32 * (KEYS / 8) * 32 + threadIdx.x % 32,
                   other = own ^ ROW_WARPS * (KEYS / 8) * 32;
    for (int j = 0; j < KEYS / 8; j++)
        room[own + 32 * j] = {s[j][0], s[j][1], s[j][2], s[j][3]};
    __syncthreads();
    for (int j = 0; j < KEYS / 8; j++) {
        const float4 o = room[other + 32 * j];
        s[j][0] += o.x, s[j][1] += o.y, s[j][2] += o.z, s[j][3] += o.w;
    }
}

template <int T>
static __device__ __forceinline__ void
add_values(float (&out)[V_COLUMNS / 16][4], const float (&s)[KEYS / 8][4], const uint16_t *values) {
    for (uint32_t k = 0; k < KEYS / 16; k++) {
        uint32_t p[4];
        pack_weights<T>(s, k, p);
        for (uint32_t d = 0; d < V_COLUMNS / 32; d++) {
            uint32_t m[4];
            mma_load_two_b_turned(values + 16 * k * PITCH + 16 * d, PITCH, m);
            mma<T>(out[2 * d], p, {m[0], m[1]});
            mma<T>(out[2 * d + 1], p, {m[2], m[3]});
        }
    }
}

template <int T>
static __global__ void __launch_bounds__(THREADS, 1) latent_kernel(const struct latent_args args) {
    begin();
    const struct attend &a = args.a;
    const uint32_t half = threadIdx.x / 32 / ROW_WARPS;
    SHARED(uint8_t, bytes);
    struct blocks<T> b = blocks_of<T>(args, bytes);
    float out[V_COLUMNS / 16][4] = {}, shrink[2];
    struct queries q;
    struct carried c;
    q.own = (uint4 *)(bytes + shape<T>::QUERIES) + threadIdx.x;
    begin_block(b);
    load_rows<T>(args, half, q, c);
    for (uint32_t base = b.base; base < b.to; base += KEYS) {
        float s[KEYS / 8][4] = {};
        const uint16_t *keys = next_block(b);
        score<T>(s, q, keys + half * K_COLUMNS / 2);
        add_other_half(s, (float4 *)(bytes + shape<T>::SCORES));
        weigh(a, c, base, s, shrink);
        shrink_sums(out, shrink);
        add_values<T>(out, s, (a.y.v_at ? next_block(b) : keys) + half * V_COLUMNS / 2);
    }
    store_rows(args, half, c, out);
}

/* ---- host ---- */

template <int T> static void launch(struct cuda *c, const struct latent_args &args) {
    LAUNCH(c, latent_kernel<T>, args,
           GRID(BY_DIV_UP(args.n * args.a.group, (uint32_t)ROWS), args.a.n_heads / args.a.group, 1),
           THREADS, shape<T>::BYTES);
}

/* Narrow heads with values of their own have tiles; what is copied begins at multiples of 16 bytes. */
extern "C" bool attention_fits_latent(const struct op_attention *o) {
    const struct kv_shape *kv = &o->kv;
    const struct cuda_kv y = cuda_kv_of(kv);
    return kv->dtype != KV_F32 && kv->k_dim <= K_COLUMNS && kv->v_dim <= V_COLUMNS &&
           (kv->v_in_k || !attention_fits_tiles(o)) && y.k_step % 16 == 0 && y.v_step % 16 == 0 &&
           o->scale > 0;
}

extern "C" void attention_latent(struct cuda *c, const struct op_attention *o,
                                 const struct attend *a, uint32_t first, uint32_t n) {
    struct latent_args args;
    memset(&args, 0, sizeof args);
    args.a = *a, args.row = first, args.n = n;
    if (o->kv.dtype == KV_BF16)
        launch<KV_BF16>(c, args);
    else if (o->kv.dtype == KV_F16)
        launch<KV_F16>(c, args);
    else if (o->kv.dtype == KV_INT8)
        launch<KV_INT8>(c, args);
    else
        launch<KV_FP8>(c, args);
}
