/* Mixture of experts: rows are gathered by expert, so that an expert's weights are read once for all of them.
 *
 *     scratch [row * n_used + k] = | ffn: act(gate) * up | hidden: down |        then y[row] += sum over k, in order
 */
#include "common/base/check.h"
#include "common/modelfile/model_info.h"
#include "gpu_worker/cpu/cpu.h"

/* A piece of work: some strips of an expert, for all its rows. */
struct work {
    const struct op_experts *o;
    uint32_t expert, piece, n_pieces;
    bool is_down;
};

/* Up to max places (row * n_used + k) whose expert is e, from place *at on; moves *at. */
static uint32_t gather(const struct op_experts *o, uint32_t e, uint32_t *at, uint32_t max,
                       uint32_t *places) {
    uint32_t n = 0, end = (o->first + o->n) * o->n_used;
    for (; *at < end && n < max; ++*at)
        if (o->experts[*at] == e) places[n++] = *at;
    return n;
}

static void do_work(struct lane *l, const struct work *k) {
    const struct op_experts *o = k->o;
    const struct weight *w = k->is_down ? o->down[k->expert] : o->gate_up[k->expert];
    uint32_t ffn = o->down[0]->n_in, ld = ffn + o->down[0]->n_out;
    uint32_t places[CPU_SOLO_ROWS], rows[CPU_SOLO_ROWS], n, at = o->first * o->n_used;
    uint32_t max = cpu_solo_rows(l->cpu, w), n_units = cpu_n_units(w);
    uint32_t from = cpu_tile_start(n_units, k->n_pieces, k->piece);
    uint32_t to = cpu_tile_start(n_units, k->n_pieces, k->piece + 1);
    for (n = gather(o, k->expert, &at, max, places); n > 0;
         n = gather(o, k->expert, &at, max, places)) {
        for (uint32_t i = 0; i < n; i++)
            rows[i] = k->is_down ? places[i] : places[i] / o->n_used;
        struct cpu_source s = {
            .x = o->x, .ld = o->x_ld, .norm = o->norm, .rows = rows, .is_fine = o->is_fine, .n = n};
        struct cpu_target out = {
            .y = o->scratch, .ld = ld, .rows = places, .act = o->act, .scale = 1};
        if (k->is_down) {
            s = (struct cpu_source){.x = o->scratch,
                                    .ld = ld,
                                    .rows = rows,
                                    .is_fine = o->is_fine,
                                    .fine_each = o->n_used,
                                    .n = n};
            out.act = ACT_NONE;
            out.col = ffn;
        }
        struct cpu_tiles tiles = cpu_tiles(l, w, &s, l->act);
        for (uint32_t t = 0; t < tiles.n_tiles + tiles.n_fine_tiles; t++)
            cpu_fill_tile(l, w, &s, &tiles, t);
        cpu_strips(l, w, &tiles, from, to, &out);
    }
}

/* Experts that have rows, in order. */
static uint32_t find_busy(const struct op_experts *o, uint16_t *busy) {
    bool is_busy[BY_EXPERTS_MAX] = {0};
    for (uint32_t i = o->first * o->n_used; i < (o->first + o->n) * o->n_used; i++)
        is_busy[o->experts[i]] = true;
    uint32_t n = 0;
    for (uint32_t e = 0; e < o->n_experts; e++)
        if (is_busy[e]) busy[n++] = (uint16_t)e;
    return n;
}

/* As many pieces as there would be with as many busy experts as can be: which ones are is seen with a piece in hand. */
static void all_work(struct lane *l, const struct op_experts *o, bool is_down) {
    uint32_t n_most = (uint32_t)BY_MIN((uint64_t)o->n * o->n_used, (uint64_t)o->n_experts);
    uint32_t n_pieces = BY_MAX(cpu_n_pieces(l, UINT32_MAX) / n_most, 1u), n_busy = 0;
    uint16_t busy[BY_EXPERTS_MAX];
    struct cpu_share share = cpu_share(l, n_most * n_pieces);
    for (uint32_t i = cpu_share_next(&share); i != UINT32_MAX; i = cpu_share_next(&share)) {
        if (n_busy == 0) n_busy = find_busy(o, busy);
        if (i / n_pieces >= n_busy) continue;
        struct work k = {o, busy[i / n_pieces], i % n_pieces, n_pieces, is_down};
        do_work(l, &k);
    }
    cpu_meet(l);
}

void cpu_experts(struct lane *l, const struct op_experts *o) {
    by_assert(o->n_experts >= 1 && o->n_experts <= BY_EXPERTS_MAX);
    if (o->n == 0) return;
    all_work(l, o, false);
    all_work(l, o, true);
    uint32_t ffn = o->down[0]->n_in, hidden = o->down[0]->n_out;
    struct cpu_share share = cpu_share(l, o->n);
    for (uint32_t i = cpu_share_next(&share); i != UINT32_MAX; i = cpu_share_next(&share)) {
        size_t r = o->first + i;
        for (uint32_t k = 0; k < o->n_used; k++)
            l->cpu->k->add_scaled(o->y + r * o->y_ld,
                                  o->scratch + (r * o->n_used + k) * (ffn + hidden) + ffn, hidden,
                                  o->scale * o->weights[r * o->n_used + k]);
    }
    cpu_meet(l);
}
