/* out[r] = table[ids[r]] * scale (+ positions table, + types table): one block a row, eight columns a thread.
 * Slow twin: cpu_embed. */
#include "gpu_worker/cuda/device.cuh"

#include <string.h>

struct embed_args {
    const uint8_t *rows;
    uint64_t row_bytes;
    uint32_t scale_at, n_in;
    const uint32_t *ids, *last; /* ids NULL: row 0 */
    uint32_t offset;
    float scale;
    bool is_add;
    float *out;
    uint32_t ld, first;
};

template <int F> static __global__ void embed_kernel(const struct embed_args a) {
    begin();
    uint32_t r = a.first + blockIdx.x;
    uint32_t id = a.ids ? a.ids[r] : 0;
    if (a.last && id & (uint32_t)EMBED_LAST) id = a.last[id & ~(uint32_t)EMBED_LAST];
    id += a.offset;
    const uint8_t *row = a.rows + id * a.row_bytes;
    float *out = a.out + (size_t)r * a.ld;
    for (uint32_t k = 8 * threadIdx.x; k < a.n_in; k += 8 * blockDim.x) {
        float v[8];
        weight_load<F>(row, a.scale_at, k, v);
        for (uint32_t i = 0; i < 8 && k + i < a.n_in; i++)
            out[k + i] = a.is_add ? fmaf(a.scale, v[i], out[k + i]) : a.scale * v[i];
    }
}

static void embed_table(struct cuda *c, const struct op_embed *o, const struct weight *w,
                        const uint32_t *ids, uint32_t offset, float scale, bool is_add) {
    struct embed_args a;
    memset(&a, 0, sizeof a);
    a.rows = w->rows, a.row_bytes = w->row_bytes, a.scale_at = w->scale_at, a.n_in = w->n_in;
    if (ids) a.ids = (const uint32_t *)queue_stage(c->queue, ids, (o->first + o->n) * sizeof *ids);
    if (ids == o->ids) a.last = o->last;
    a.offset = ids ? offset : 0, a.scale = scale, a.is_add = is_add;
    a.out = o->out, a.ld = o->ld, a.first = o->first;
    BY_FORMATS(w->format, LAUNCH(c, embed_kernel<F>, a, GRID(o->n, 1, 1), 128, 0));
}

extern "C" void cuda_embed(struct lane *l, const struct op_embed *o) {
    struct cuda *c = l->cuda;
    if (!o->n) return;
    embed_table(c, o, o->table, o->ids, 0, o->scale, false);
    if (o->pos_table) embed_table(c, o, o->pos_table, o->positions, o->pos_offset, 1, true);
    if (o->type_table) embed_table(c, o, o->type_table, o->types, 0, 1, true);
}
