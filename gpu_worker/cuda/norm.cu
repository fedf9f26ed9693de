/* y = norm(x), y += scale * norm(x), y = scale * x and y += scale * x: residual sums and norms in one pass; and rows times
 * the sigmoid of a number, or number by number. One block a row (of a norm in parts: a part); the row is read twice, the second
 * time out of the cache.
 * Slow twins: cpu_norm, cpu_gate. */
#include "gpu_worker/cuda/norm.cuh"

#include <string.h>

enum { THREADS_MAX = 1024 };

struct norm_args {
    const float *x;
    uint32_t x_ld, x_col, width;
    bool has_norm, is_layer, parts_differ;
    float eps;
    const float *w, *b;
    float *y;
    uint32_t y_ld, y_col, first;
    bool is_add;
    float scale;
};

static __global__ void __launch_bounds__(THREADS_MAX) norm_kernel(const struct norm_args a) {
    SHARED(float, room);
    if (a.has_norm && 32 * threadIdx.x < a.width)
        prefetch((const uint8_t *)(a.w + 32 * threadIdx.x));
    begin();
    size_t r = a.first + blockIdx.x, part = (size_t)blockIdx.y * a.width;
    const float *x = a.x + r * a.x_ld + a.x_col + part;
    float *y = a.y + r * a.y_ld + a.y_col + part;
    const float *w = a.w + (a.parts_differ ? part : 0);
    struct moments m = {0, 1};
    if (a.has_norm) m = moments_of(x, a.width, a.is_layer, a.eps, room);
    for (uint32_t i = threadIdx.x; i < a.width; i += blockDim.x) {
        float v = (x[i] - m.mean) * m.factor;
        if (a.has_norm) v *= w[i];
        if (a.has_norm && a.b) v += a.b[i];
        v *= a.scale;
        y[i] = a.is_add ? y[i] + v : v;
    }
}

extern "C" void cuda_norm(struct lane *l, const struct op_norm *o) {
    struct norm_args a;
    if (!o->n) return;
    memset(&a, 0, sizeof a);
    a.x = o->x, a.x_ld = o->x_ld, a.x_col = o->x_col, a.width = o->width;
    if (o->norm) {
        a.has_norm = true, a.is_layer = o->norm->kind == NORM_LAYER, a.eps = o->norm->eps;
        a.w = o->norm->w, a.b = o->norm->b, a.parts_differ = o->parts_differ;
    }
    a.y = o->y, a.y_ld = o->y_ld, a.y_col = o->y_col, a.first = o->first;
    a.is_add = o->is_add, a.scale = o->scale;
    LAUNCH(l->cuda, norm_kernel, a, GRID(o->n, BY_MAX(o->n_parts, 1u), 1), threads_for(o->width),
           33 * sizeof(float));
}

struct gate_args {
    float *x;
    uint32_t ld, width;
    const float *gate; /* column 0 */
    uint32_t gate_ld, first;
    bool is_by_column, is_plain;
};

static __global__ void __launch_bounds__(THREADS_MAX) gate_kernel(const struct gate_args a) {
    begin();
    size_t r = a.first + blockIdx.x;
    const float *gate = a.gate + r * a.gate_ld;
    for (uint32_t i = threadIdx.x; i < a.width; i += blockDim.x) {
        float g = gate[a.is_by_column ? i : 0];
        a.x[r * a.ld + i] *= a.is_plain ? g : sigmoid(g);
    }
}

extern "C" void cuda_gate(struct lane *l, const struct op_gate *o) {
    struct gate_args a;
    if (!o->n) return;
    memset(&a, 0, sizeof a);
    a.x = o->x, a.ld = o->ld, a.width = o->width;
    a.gate = o->gate + o->gate_col, a.gate_ld = o->gate_ld, a.first = o->first;
    a.is_by_column = o->is_by_column, a.is_plain = o->is_plain;
    LAUNCH(l->cuda, gate_kernel, a, GRID(o->n, 1, 1), threads_for(o->width), 0);
}
