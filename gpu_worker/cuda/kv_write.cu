/* Norm of each head, rotation, and keys and values into their pages: a warp a head; where the norm is of all heads together, one
 * block a row, whose warps take head after head.
 *
 *     q head: global ─▶ shared (norm, turn) ─▶ back          k head: … ─▶ page          v head: ─▶ page
 *
 * Slow twin: cpu_kv_write. */
#include "gpu_worker/cuda/norm.cuh"

#include <string.h>

enum { THREADS = 128, WARPS = THREADS / 32 };

struct head_norm {
    const float *w, *b; /* w NULL: none */
    float eps;
    bool is_layer;
};

struct kv_args {
    float *x;
    uint32_t ld, q_col, k_col, v_col, n_heads, q_dim, q_rot_col, k_rot_col;
    struct head_norm q_norm, k_norm;
    bool is_whole, is_interleaved, norm_is_last;
    struct growth q_growth;
    const float *cos, *sin; /* NULL: no rotation */
    uint32_t n_half;
    uint32_t n_kv_heads, k_dim, v_dim, page_size, room; /* room: floats of shared memory a warp */
    enum kv_dtype dtype;
    bool v_in_k;
    struct cuda_kv y;
    uint8_t *pool;
    const uint32_t *positions, *pages;
    const struct cuda_row *rows;
    uint32_t first;
};

/* One head in shared memory, by a warp. w and b are those of this head. */
static __device__ void norm_head(const struct head_norm &h, float *v, uint32_t n, const float *w,
                                 const float *b, bool is_known, struct moments m) {
    uint32_t lane = threadIdx.x % 32;
    if (!is_known) {
        float sum = 0;
        m.mean = 0;
        for (uint32_t i = lane; i < n && h.is_layer; i += 32)
            sum += v[i];
        if (h.is_layer) m.mean = warp_sum(sum) / (float)n;
        sum = 0;
        for (uint32_t i = lane; i < n; i += 32)
            sum += (v[i] - m.mean) * (v[i] - m.mean);
        m.factor = 1.0f / sqrtf(warp_sum(sum) / (float)n + h.eps);
    }
    for (uint32_t i = lane; i < n; i += 32)
        v[i] = (v[i] - m.mean) * m.factor * w[i] + (b ? b[i] : 0);
    __syncwarp();
}

static __device__ void turn_head(const struct kv_args &a, float *v, uint32_t position) {
    for (uint32_t i = threadIdx.x % 32; i < a.n_half; i += 32) {
        float c = a.cos[(size_t)position * a.n_half + i],
              s = a.sin[(size_t)position * a.n_half + i];
        uint32_t p = a.is_interleaved ? 2 * i : i, q = a.is_interleaved ? p + 1 : i + a.n_half;
        float x = v[p], y = v[q];
        v[p] = x * c - y * s;
        v[q] = y * c + x * s;
    }
    __syncwarp();
}

/* 1 / scale of n numbers, whose largest then is the type's largest; the scale goes to *scale. A NaN counts as largest: the
 * scale is one then, and whoever reads the head finds out. */
static __device__ float scale_head(const struct kv_args &a, const float *v, uint32_t n,
                                   float *scale) {
    uint32_t lane = threadIdx.x % 32, bits = 0;
    float most = a.dtype == KV_INT8 ? 127.0f : 448.0f;
    for (uint32_t i = lane; i < n; i += 32)
        bits = BY_MAX(bits, as_u32(v[i]) & 0x7fffffffu);
    for (int d = 16; d; d >>= 1) {
        uint32_t other = __shfl_xor_sync(0xffffffffu, bits, d);
        bits = BY_MAX(bits, other);
    }
    float top = as_f32(bits);
    bool is_zero = top <= 0x1p-100f;
    if (lane == 0) *scale = is_zero ? 0 : top / most;
    return is_zero ? 0 : most / top;
}

static __device__ void store_head(const struct kv_args &a, const float *v, uint32_t n,
                                  uint32_t n_pad, uint8_t *at, float *scale) {
    uint32_t lane = threadIdx.x % 32;
    float inverse = CUDA_KV_IS_SCALED(a.dtype) ? scale_head(a, v, n, scale) : 1;
    for (uint32_t i = lane; i < n_pad; i += 32) {
        float x = i < n ? v[i] : 0;
        if (a.dtype == KV_F32)
            ((float *)at)[i] = x;
        else if (a.dtype == KV_BF16)
            ((uint16_t *)at)[i] = f32_to_bf16(x);
        else if (a.dtype == KV_F16)
            ((uint16_t *)at)[i] = f32_to_f16(x);
        else if (a.dtype == KV_FP8)
            at[i] = f32_to_e4m3(x * inverse);
        else
            ((int8_t *)at)[i] = (int8_t)(int32_t)rintf(x * inverse);
    }
}

/* Query or key head h of the row, normed and turned or turned and normed, in shared memory. */
static __device__ void make_head(const struct kv_args &a, const float *x, uint32_t h, bool is_q,
                                 float *v, struct moments m, uint32_t position) {
    const struct head_norm &n = is_q ? a.q_norm : a.k_norm;
    uint32_t dim = is_q ? a.q_dim : a.k_dim, at = a.is_whole ? h * dim : 0;
    for (uint32_t i = threadIdx.x % 32; i < dim; i += 32)
        v[i] = x[(size_t)h * dim + i];
    __syncwarp();
    if (a.cos && a.norm_is_last) turn_head(a, v + (is_q ? a.q_rot_col : a.k_rot_col), position);
    if (n.w) norm_head(n, v, dim, n.w + at, n.b ? n.b + at : NULL, a.is_whole, m);
    if (a.cos && !a.norm_is_last) turn_head(a, v + (is_q ? a.q_rot_col : a.k_rot_col), position);
}

static __device__ void turn_query(const struct kv_args &a, float *x, uint32_t h, float *v,
                                  struct moments m, uint32_t turn) {
    float grown = 1;
    make_head(a, x, h, true, v, m, turn);
    if (a.q_growth.every) grown += a.q_growth.beta * logf((float)(1 + turn / a.q_growth.every));
    for (uint32_t i = threadIdx.x % 32; i < a.q_dim; i += 32)
        x[(size_t)h * a.q_dim + i] = v[i] * grown;
}

/* Key and value of row r into its page. */
static __device__ void keep_head(const struct kv_args &a, const float *x, uint32_t h, float *v,
                                 struct moments m, uint32_t turn, uint32_t r) {
    uint32_t in_page = a.rows[r].position % a.page_size;
    uint32_t page = a.pages[a.rows[r].first_page + a.rows[r].position / a.page_size];
    uint8_t *head = a.pool + page * a.y.page_bytes + h * a.y.head_bytes;
    float *scales = (float *)(head + a.y.scale_at);
    const float *value = x + a.v_col + (size_t)h * a.v_dim;
    make_head(a, x + a.k_col, h, false, v, m, turn);
    /* latent attention: values are the keys' first columns */
    if (a.v_col == a.k_col) value = v;
    store_head(a, v, a.k_dim, a.y.k_pad, head + (size_t)in_page * a.y.k_step, scales + in_page);
    if (!a.v_in_k)
        store_head(a, value, a.v_dim, a.y.v_pad, head + a.y.v_at + (size_t)in_page * a.y.v_step,
                   scales + a.y.v_scale + in_page);
}

static __global__ void __launch_bounds__(THREADS, 4) kv_write_kernel(const struct kv_args a) {
    SHARED(float, shared);
    begin();
    uint32_t r = a.first + blockIdx.x, warp = threadIdx.x / 32;
    float *x = a.x + (size_t)r * a.ld, *v = shared + 36 + warp * a.room;
    struct moments q = {0, 1}, k = {0, 1};
    if (a.is_whole && a.q_norm.w)
        q = moments_of(x + a.q_col, a.n_heads * a.q_dim, a.q_norm.is_layer, a.q_norm.eps, shared);
    if (a.is_whole && a.k_norm.w)
        k = moments_of(x + a.k_col, a.n_kv_heads * a.k_dim, a.k_norm.is_layer, a.k_norm.eps,
                       shared);
    __syncthreads(); /* whoever writes q below, all have read it */
    uint32_t turn = a.positions[r];
    for (uint32_t i = blockIdx.y * WARPS + warp; i < a.n_heads + a.n_kv_heads;
         i += gridDim.y * WARPS) {
        if (i < a.n_heads)
            turn_query(a, x + a.q_col, i, v, q, turn);
        else
            keep_head(a, x, i - a.n_heads, v, k, turn, r);
        __syncwarp();
    }
}

static struct head_norm head_norm_of(const struct norm *n) {
    struct head_norm h;
    memset(&h, 0, sizeof h);
    if (n) h.w = n->w, h.b = n->b, h.eps = n->eps, h.is_layer = n->kind == NORM_LAYER;
    return h;
}

extern "C" void cuda_kv_write(struct lane *l, const struct op_kv_write *o) {
    struct cuda *c = l->cuda;
    struct kv_args a;
    if (!o->n) return;
    memset(&a, 0, sizeof a);
    a.x = o->x, a.ld = o->ld, a.q_col = o->q_col, a.k_col = o->k_col, a.v_col = o->v_col;
    a.n_heads = o->n_heads, a.q_dim = o->q_dim;
    a.q_rot_col = o->q_rot_col, a.k_rot_col = o->k_rot_col;
    a.q_norm = head_norm_of(o->q_norm), a.k_norm = head_norm_of(o->k_norm);
    a.is_whole = o->qk_whole, a.is_interleaved = o->is_interleaved;
    a.norm_is_last = o->norm_is_last, a.q_growth = o->q_growth;
    if (o->rope && o->rope->n_half)
        a.cos = o->rope->cos, a.sin = o->rope->sin, a.n_half = o->rope->n_half;
    a.n_kv_heads = o->kv.n_kv_heads, a.k_dim = o->kv.k_dim, a.v_dim = o->kv.v_dim;
    a.page_size = o->kv.page_size, a.dtype = o->kv.dtype, a.v_in_k = o->kv.v_in_k;
    a.y = cuda_kv_of(&o->kv);
    a.room = BY_MAX(o->q_dim, o->kv.k_dim);
    a.pool = (uint8_t *)o->pool, a.first = o->first;
    a.rows = cuda_rows(c, o->seqs, o->n_seqs, a.page_size, false, &a.pages);
    a.positions = (const uint32_t *)queue_stage(c->queue, o->positions,
                                                (o->first + o->n) * sizeof *o->positions);
    uint32_t n_heads = a.is_whole ? 1 : a.n_heads + a.n_kv_heads;
    LAUNCH(c, kv_write_kernel, a, GRID(o->n, BY_DIV_UP(n_heads, (uint32_t)WARPS), 1), THREADS,
           (36 + WARPS * a.room) * sizeof(float));
}

/* ---- the table of rotations ---- */

struct rope_args {
    float *cos, *sin;
    const float *inv_freq;
    float mscale;
    uint32_t n_half, n_positions;
};

/* The angle is an f32 product, as torch has it; its cosine is exact but for the last rounding. */
static __global__ void __launch_bounds__(THREADS) rope_kernel(const struct rope_args a) {
    begin();
    for (uint32_t p = blockIdx.x; p < a.n_positions; p += gridDim.x) {
        for (uint32_t i = threadIdx.x; i < a.n_half; i += THREADS) {
            double angle = (float)p * a.inv_freq[i];
            a.cos[(size_t)p * a.n_half + i] = (float)cos(angle) * a.mscale;
            a.sin[(size_t)p * a.n_half + i] = (float)sin(angle) * a.mscale;
        }
    }
}

extern "C" void cuda_rope_fill(struct cuda *c, const struct rope_table *t, const float *inv_freq,
                               float mscale) {
    struct rope_args a;
    memset(&a, 0, sizeof a);
    a.cos = t->cos, a.sin = t->sin, a.inv_freq = inv_freq, a.mscale = mscale;
    a.n_half = t->n_half, a.n_positions = t->n_positions;
    LAUNCH(c, rope_kernel, a, GRID(BY_MIN(t->n_positions, 4096u), 1, 1), THREADS, 0);
}
