/* y = or += scale * act(norm(x) · w^T + bias): which way a product goes, and the rows it starts from.
 * Slow twins: cpu_linear, cpu_linear_heads. */
#include "gpu_worker/cuda/norm.cuh"

#include <string.h>

enum { THREADS_MAX = 1024 };

struct prepare_args {
    struct prepare p;
    bool has_norm;
    struct norm norm;
    void *out;
};

static __device__ __forceinline__ void put(const struct prepare_args &a, size_t at, float v) {
    if (a.p.is_bf16)
        ((uint16_t *)a.out)[at] = f32_to_bf16(v);
    else
        ((float *)a.out)[at] = v;
}

static __global__ void __launch_bounds__(THREADS_MAX) prepare_kernel(const struct prepare_args a) {
    SHARED(float, room);
    if (a.has_norm && 32 * threadIdx.x < a.p.n_in)
        prefetch((const uint8_t *)(a.norm.w + 32 * threadIdx.x));
    begin();
    uint32_t i = a.p.first + blockIdx.x, r = a.p.rows ? a.p.rows[i] : i, n = a.p.n_in;
    const float *x = a.p.x + (size_t)r * a.p.x_ld + a.p.x_col;
    struct moments m = {0, 1};
    if (a.has_norm) m = moments_of(x, n, a.norm.kind == NORM_LAYER, a.norm.eps, room);
    for (uint32_t k = threadIdx.x; k < a.p.k_pad; k += blockDim.x) {
        float v = k < n ? x[k] : 0;
        if (a.has_norm && k < n)
            v = (v - m.mean) * m.factor * a.norm.w[k] + (a.norm.b ? a.norm.b[k] : 0);
        put(a, (size_t)blockIdx.x * a.p.k_pad + k, v);
    }
}

extern "C" void product_prepare(struct cuda *c, const struct prepare *p) {
    struct prepare_args a;
    memset(&a, 0, sizeof a);
    a.p = *p, a.p.norm = NULL, a.out = c->prepared, a.has_norm = p->norm;
    if (p->norm) a.norm = *p->norm;
    LAUNCH(c, prepare_kernel, a, GRID(p->n, 1, 1), threads_for(p->k_pad), 33 * sizeof(float));
}

extern "C" struct product product_of(const struct weight *w) {
    struct product p;
    memset(&p, 0, sizeof p);
    p.rows = w->rows, p.row_bytes = w->row_bytes, p.scale_at = w->scale_at;
    p.n_out = w->n_out, p.n_in = w->n_in, p.k_pad = w->k_pad, p.is_gated = w->is_gated;
    p.e.bias = w->bias, p.e.scale = 1;
    return p;
}

/* Rows first + from … of the op, n of them. */
static void linear_rows(struct cuda *c, const struct op_linear *o, uint32_t from, uint32_t n) {
    const struct weight *w = o->w;
    struct product p = product_of(w);
    p.first = o->first + from, p.n = n;
    if (o->out_n) {
        p.rows += o->out_first * w->row_bytes, p.n_out = o->out_n;
        if (p.e.bias) p.e.bias += o->out_first;
    }
    p.e.y = o->y, p.e.ld = o->y_ld, p.e.col = o->y_col, p.e.act = o->act;
    p.e.is_add = o->is_add, p.e.scale = o->scale, p.e.softcap = o->softcap;
    p.x = o->x + (size_t)p.first * o->x_ld + o->x_col, p.x_ld = o->x_ld;
    bool by_tiles = n > CUDA_ROWS_FEW && w->format != CUDA_F32 && !c->options.is_deterministic,
         by_f8 = by_tiles && product_is_f8(c, w, p.n_out, n);
    if (o->norm || o->rows || by_tiles) {
        struct prepare r;
        memset(&r, 0, sizeof r);
        r.x = o->x, r.x_ld = o->x_ld, r.x_col = o->x_col, r.n_in = w->n_in, r.k_pad = w->k_pad;
        r.norm = o->norm, r.first = p.first, r.n = n;
        if (o->rows)
            r.rows = (const uint32_t *)queue_stage(c->queue, o->rows,
                                                   (o->first + o->n) * sizeof *o->rows);
        r.is_bf16 = by_tiles && !by_f8;
        product_prepare(c, &r);
        p.x = c->prepared, p.x_ld = w->k_pad;
    }
    if (by_f8)
        product_f8(c, w, p);
    else if (by_tiles && product_is_large(c, w, n))
        product_large(c, w->format, p);
    else if (by_tiles)
        product_tiles(c, w->format, p);
    else
        product_skinny(c, w->format, p);
}

extern "C" void cuda_linear(struct lane *l, const struct op_linear *o) {
    for (uint32_t from = 0; from < o->n; from += CUDA_BLOCK_ROWS)
        linear_rows(l->cuda, o, from, BY_MIN(o->n - from, (uint32_t)CUDA_BLOCK_ROWS));
}

/* ---- a small matrix for each head ---- */

struct copy_args {
    const float *x;
    uint32_t x_ld, x_col, x_step;
    float *y;
    uint32_t y_ld, y_col, y_step, n_copy, first;
};

static __global__ void copy_kernel(const struct copy_args a) {
    begin();
    size_t r = a.first + blockIdx.x;
    const float *x = a.x + r * a.x_ld + a.x_col + (size_t)blockIdx.y * a.x_step;
    float *y = a.y + r * a.y_ld + a.y_col + (size_t)blockIdx.y * a.y_step;
    for (uint32_t i = threadIdx.x; i < a.n_copy; i += blockDim.x)
        y[i] = x[i];
}

extern "C" void cuda_linear_heads(struct lane *l, const struct op_linear_heads *o) {
    struct cuda *c = l->cuda;
    struct product p = product_of(o->w[0]);
    if (!o->n) return;
    p.table = cuda_weights(c, o->w, o->n_heads), p.n_weights = o->n_heads;
    p.first = o->first, p.n = o->n;
    p.x = o->x + (size_t)o->first * o->x_ld + o->x_col, p.x_ld = o->x_ld, p.x_step = o->x_step;
    p.e.y = o->y, p.e.ld = o->y_ld, p.e.col = o->y_col, p.y_step = o->y_step;
    product_skinny(c, o->w[0]->format, p);
    if (!o->n_copy) return;
    struct copy_args a;
    memset(&a, 0, sizeof a);
    a.x = o->x, a.x_ld = o->x_ld, a.x_col = o->x_col + o->x_copy_col, a.x_step = o->x_step;
    a.y = o->y, a.y_ld = o->y_ld, a.y_col = o->y_col + o->y_copy_col, a.y_step = o->y_step;
    a.n_copy = o->n_copy, a.first = o->first;
    LAUNCH(c, copy_kernel, a, GRID(o->n, o->n_heads, 1), 32, 0);
}
