/* Mixture of experts: slots (row * n_used + k) are sorted by expert on the device, so that an expert's weights are read once
 * for up to 8 of its rows, or for 64 on the tensor cores where there are many; then each row adds its experts up in the order
 * of its choice.
 *
 *     scratch [slot] = | ffn: act(gate) * up | hidden: down |
 *
 * Slow twin: cpu_experts. */
#include "gpu_worker/cuda/device.cuh"

#include <string.h>

enum {
    SORT_THREADS = 128,
    SORT_WARPS = SORT_THREADS / 32,
    THREADS = 128,
    TILE_ROWS = 8, /* an expert, on the average, from which on tiles pay */
};

struct sort_args {
    const uint32_t *experts;
    uint32_t from, n, n_experts; /* slots from … from + n - 1 */
    uint32_t *slots, *starts;    /* [n], [n_experts + 1] */
};

/* A block an expert, whose warps share the slots out in order. Each counts those of earlier experts and those of its own; the
 * sums say where its own begin, and it lists them in order. No atomics: the list is the same in each run. */
static __global__ void __launch_bounds__(SORT_THREADS) sort_kernel(const struct sort_args a) {
    SHARED(uint32_t, counts); /* [SORT_WARPS][2]: earlier experts, own */
    begin();
    uint32_t e = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    uint32_t each = BY_ALIGN_UP(BY_DIV_UP(a.n, (uint32_t)SORT_WARPS), 32u);
    uint32_t from = warp * each, n_before = 0, n_own = 0, at = 0;
    for (uint32_t i = from; i < from + each; i += 32) {
        uint32_t x = i + lane < a.n ? a.experts[a.from + i + lane] : UINT32_MAX;
        n_before += (uint32_t)__popc(__ballot_sync(0xffffffffu, x < e));
        n_own += (uint32_t)__popc(__ballot_sync(0xffffffffu, x == e));
    }
    if (lane == 0) counts[2 * warp] = n_before, counts[2 * warp + 1] = n_own;
    __syncthreads();
    for (uint32_t w = 0; w < SORT_WARPS; w++)
        at += counts[2 * w];
    if (threadIdx.x == 0) a.starts[e] = at;
    for (uint32_t w = 0; w < warp; w++)
        at += counts[2 * w + 1];
    for (uint32_t i = from; i < from + each; i += 32) {
        bool is_own = i + lane < a.n && a.experts[a.from + i + lane] == e;
        uint32_t all = __ballot_sync(0xffffffffu, is_own);
        if (is_own) a.slots[at + (uint32_t)__popc(all & ((1u << lane) - 1))] = a.from + i + lane;
        at += (uint32_t)__popc(all);
    }
    if (e + 1 == a.n_experts && threadIdx.x == SORT_THREADS - 1) a.starts[a.n_experts] = at;
}

struct combine_args {
    const float *scratch, *weights;
    uint32_t ld, col, width, n_used, first, y_ld;
    float *y, scale;
};

static __global__ void __launch_bounds__(THREADS) combine_kernel(const struct combine_args a) {
    begin();
    size_t r = a.first + blockIdx.x;
    uint32_t i = blockIdx.y * THREADS + threadIdx.x;
    if (i >= a.width) return;
    float v = a.y[r * a.y_ld + i];
    for (uint32_t k = 0; k < a.n_used; k++)
        v += a.scale * a.weights[r * a.n_used + k] *
             a.scratch[(r * a.n_used + k) * a.ld + a.col + i];
    a.y[r * a.y_ld + i] = v;
}

/* All slots of n rows through one matrix each. */
static void pass(struct cuda *c, const struct op_experts *o, const struct weight *const *w,
                 const struct sort_args *s, const float *x, uint32_t x_ld, uint32_t x_div,
                 bool x_is_f32, bool by_tiles) {
    struct product p = product_of(w[0]);
    p.table = cuda_weights(c, w, o->n_experts), p.biases = cuda_biases(c, w, o->n_experts);
    p.n_weights = o->n_experts, p.slots = s->slots, p.starts = s->starts, p.n = s->n;
    p.x = x, p.x_ld = x_ld, p.x_div = x_div, p.x_is_f32 = x_is_f32;
    p.e.y = o->scratch, p.e.ld = o->down[0]->n_in + o->down[0]->n_out;
    p.e.col = w[0]->is_gated ? 0 : o->down[0]->n_in;
    p.e.act = w[0]->is_gated ? o->act : ACT_NONE;
    if (by_tiles)
        product_tiles(c, w[0]->format, p);
    else
        product_skinny(c, w[0]->format, p);
}

static void rows_of_experts(struct cuda *c, const struct op_experts *o, uint32_t first,
                            uint32_t n) {
    const struct weight *up = o->gate_up[0], *down = o->down[0];
    uint32_t ld = down->n_in + down->n_out;
    struct sort_args s;
    memset(&s, 0, sizeof s);
    s.experts = o->experts, s.from = first * o->n_used, s.n = n * o->n_used;
    s.n_experts = o->n_experts, s.starts = (uint32_t *)c->parts,
    s.slots = s.starts + o->n_experts + 1;
    LAUNCH(c, sort_kernel, s, GRID(o->n_experts, 1, 1), SORT_THREADS,
           2 * SORT_WARPS * sizeof(uint32_t));
    struct prepare r;
    memset(&r, 0, sizeof r);
    r.x = o->x, r.x_ld = o->x_ld, r.n_in = up->n_in, r.k_pad = up->k_pad;
    r.norm = o->norm, r.first = first, r.n = n;
    bool by_tiles = !c->options.is_deterministic && up->format != CUDA_F32 &&
                    down->format != CUDA_F32 && s.n >= TILE_ROWS * o->n_experts;
    r.is_bf16 = by_tiles;
    product_prepare(c, &r);
    /* Row 0 of what was prepared is row `first`. */
    size_t before = (size_t)first * up->k_pad * (by_tiles ? sizeof(uint16_t) : sizeof(float));
    const float *x = (const float *)((const uint8_t *)c->prepared - before);
    pass(c, o, o->gate_up, &s, x, up->k_pad, o->n_used, false, by_tiles);
    pass(c, o, o->down, &s, o->scratch, ld, 1, true, by_tiles);
    struct combine_args a;
    memset(&a, 0, sizeof a);
    a.scratch = o->scratch, a.weights = o->weights, a.ld = ld, a.col = down->n_in;
    a.width = down->n_out, a.n_used = o->n_used, a.first = first;
    a.y = o->y, a.y_ld = o->y_ld, a.scale = o->scale;
    LAUNCH(c, combine_kernel, a, GRID(n, BY_DIV_UP(a.width, (uint32_t)THREADS), 1), THREADS, 0);
}

extern "C" void cuda_experts(struct lane *l, const struct op_experts *o) {
    for (uint32_t from = 0; from < o->n; from += CUDA_BLOCK_ROWS)
        rows_of_experts(l->cuda, o, o->first + from,
                        BY_MIN(o->n - from, (uint32_t)CUDA_BLOCK_ROWS));
}
