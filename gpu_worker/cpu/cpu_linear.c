/* Matrix products: tiles of activations, strips of weights, and what follows a sum. */
#include "common/base/check.h"
#include "gpu_worker/cpu/cpu.h"
#include "gpu_worker/cpu/cpu_formats.h"

#include <string.h>

size_t cpu_act_bytes(enum cpu_act act, uint32_t n_in) {
    switch (act) {
    case CPU_ACT_I8:
        return (size_t)(n_in / 32) * 11 * 4;
    case CPU_ACT_I8X2:
        return (size_t)(n_in / 32) * 13 * 4;
    case CPU_ACT_BF16:
        return (size_t)BY_DIV_UP(n_in, 2) * 4;
    default:
        return (size_t)BY_ALIGN_UP(n_in, 2) * 4;
    }
}

uint32_t cpu_n_units(const struct weight *w) {
    return w->is_gated ? w->n_strips / 2 : w->n_strips;
}

uint32_t cpu_n_tiles(const struct cpu *c, const struct weight *w, uint32_t n) {
    return BY_DIV_UP(n, c->linear[w->format].tile_max);
}

uint32_t cpu_solo_rows(const struct cpu *c, const struct weight *w) {
    size_t fit = c->act_cap / (2 * cpu_act_bytes(CPU_FORMAT_ACT(w->format), w->n_in));
    return (uint32_t)BY_MIN(fit, (size_t)CPU_SOLO_ROWS);
}

struct cpu_tiles cpu_tiles(const struct lane *l, const struct weight *w, const struct cpu_source *s,
                           uint8_t *room) {
    struct cpu_tiles t = {.p = room, .n = s->n, .n_tiles = cpu_n_tiles(l->cpu, w, s->n)};
    enum cpu_act act = CPU_FORMAT_ACT(w->format);
    if (!s->is_fine || (act != CPU_ACT_I8 && act != CPU_ACT_I8X2)) return t;
    for (uint32_t i = 0; i < s->n; i++) {
        uint32_t row = s->rows ? s->rows[s->first + i] : s->first + i;
        if (!s->is_fine[row / BY_MAX(s->fine_each, 1u)]) continue;
        t.fine_row[t.n_fine++] = (uint8_t)i;
        t.fine[i] = (uint8_t)t.n_fine;
    }
    t.is_joined = t.n_fine && t.n + t.n_fine <= l->cpu->linear[w->format].tile_max;
    t.n_fine_tiles = t.is_joined ? 0 : cpu_n_tiles(l->cpu, w, t.n_fine);
    return t;
}

/* Row i of the block, normed; in the lane's own memory when anything was done to it. */
static const float *source_row(struct lane *l, const struct weight *w, const struct cpu_source *s,
                               uint32_t i) {
    uint32_t r = s->rows ? s->rows[s->first + i] : s->first + i;
    const float *x = s->x + (size_t)r * s->ld + s->col;
    if (!s->norm) return x;
    l->cpu->k->norm(s->norm, x, w->n_in, l->row, false, 1);
    return l->row;
}

/* Fine rows [from, to), as what int8 leaves of them: rows of int8 themselves, from row `at` of a tile of n_rows on. */
static void fill_fine_rows(struct lane *l, const struct weight *w, const struct cpu_source *s,
                           const struct cpu_tiles *tiles, uint32_t from, uint32_t to, uint8_t *tile,
                           uint32_t n_rows, uint32_t at) {
    enum cpu_act act = CPU_FORMAT_ACT(w->format);
    for (uint32_t k = from; k < to; k++, at++) {
        l->cpu->k->remainder(source_row(l, w, s, tiles->fine_row[k]), w->n_in, l->row);
        l->cpu->fill[act](tile, n_rows, at, l->row, w->n_in, CPU_FORMAT_OFFSET(w->format));
    }
}

void cpu_fill_tile(struct lane *l, const struct weight *w, const struct cpu_source *s,
                   const struct cpu_tiles *tiles, uint32_t t) {
    enum cpu_act act = CPU_FORMAT_ACT(w->format);
    size_t row_bytes = cpu_act_bytes(act, w->n_in);
    if (t >= tiles->n_tiles) {
        t -= tiles->n_tiles;
        uint32_t from = cpu_tile_start(tiles->n_fine, tiles->n_fine_tiles, t);
        uint32_t to = cpu_tile_start(tiles->n_fine, tiles->n_fine_tiles, t + 1);
        fill_fine_rows(l, w, s, tiles, from, to, tiles->p + (tiles->n + from) * row_bytes,
                       to - from, 0);
        return;
    }
    uint32_t from = cpu_tile_start(s->n, tiles->n_tiles, t);
    uint32_t to = cpu_tile_start(s->n, tiles->n_tiles, t + 1);
    uint32_t n_rows = to - from + (tiles->is_joined ? tiles->n_fine : 0);
    uint8_t *tile = tiles->p + from * row_bytes;
    for (uint32_t i = from; i < to; i++)
        l->cpu->fill[act](tile, n_rows, i - from, source_row(l, w, s, i), w->n_in,
                          CPU_FORMAT_OFFSET(w->format));
    if (tiles->is_joined) fill_fine_rows(l, w, s, tiles, 0, tiles->n_fine, tile, n_rows, to - from);
}

struct strip_at {
    const uint8_t *strip;
    const float *bias;
    uint32_t n_strips; /* 1 or 2 */
    uint32_t unit;     /* of 16 columns of y */
    uint32_t n_cols;   /* of y, in all */
};

/* Strip s of a weight; n_strips (two at once, or a gate and its up) of them. */
static struct strip_at strip_at(const struct weight *w, uint32_t s, uint32_t n_strips) {
    return (struct strip_at){
        .strip = w->strips + (size_t)s * w->strip_bytes,
        .bias = w->bias ? w->bias + (size_t)s * CPU_STRIP : NULL,
        .n_strips = n_strips,
        .unit = w->is_gated ? s / 2 : s,
        .n_cols = w->is_gated ? w->n_out / 2 : w->n_out,
    };
}

enum { SUMS_LD = 2 * CPU_STRIP };

static void tile_sums(const struct lane *l, const struct weight *w, const struct strip_at *a,
                      const uint8_t *tile, uint32_t n_rows, float *sums) {
    const struct cpu_linear_kernel *kernel = &l->cpu->linear[w->format];
    if (a->n_strips == 2 && kernel->two[n_rows]) {
        kernel->two[n_rows](a->strip, w->strip_bytes, w->n_in, tile, sums, SUMS_LD);
        return;
    }
    for (uint32_t s = 0; s < a->n_strips; s++)
        kernel->one[n_rows](a->strip + s * w->strip_bytes, 0, w->n_in, tile, sums + s * CPU_STRIP,
                            SUMS_LD);
}

/* Sums of one tile's rows into y, with what the fine ones have besides. */
static void finish_tile(const struct lane *l, const struct weight *w, const struct strip_at *a,
                        const struct cpu_tiles *tiles, float *sums, uint32_t first, uint32_t end,
                        const struct cpu_target *out) {
    struct cpu_finish f = {.act = out->act,
                           .is_gated = w->is_gated,
                           .is_add = out->is_add,
                           .scale = out->scale,
                           .softcap = out->softcap};
    const float *fine = tiles->is_joined ? sums + tiles->n * SUMS_LD : l->fine;
    for (uint32_t i = first; i < end && tiles->n_fine; i++) {
        if (tiles->fine[i])
            l->cpu->k->add_scaled(sums + (i - first) * SUMS_LD,
                                  fine + (tiles->fine[i] - 1u) * SUMS_LD, a->n_strips * CPU_STRIP,
                                  1);
    }
    for (uint32_t s = 0; s < (w->is_gated ? 1 : a->n_strips); s++) {
        uint32_t col = (a->unit + s) * CPU_STRIP;
        f.bias = a->bias ? a->bias + s * CPU_STRIP : NULL;
        f.n = BY_MIN(a->n_cols - col, (uint32_t)CPU_STRIP);
        float *y =
            out->y + out->col + (col - out->out_first) + (out->rows ? 0 : (size_t)first * out->ld);
        l->cpu->k->finish(&f, sums + s * CPU_STRIP, end - first, y, out->ld,
                          out->rows ? out->rows + first : NULL);
    }
}

/* As many fours of the strips [from, to) as there are, where there is but one tile and a kernel for its rows: strips of few
 * rows are as fast as they come from memory. Returns the strip to go on with. */
static uint32_t four_strips(struct lane *l, const struct weight *w, const struct cpu_tiles *tiles,
                            uint32_t from, uint32_t to, const struct cpu_target *out) {
    uint32_t n_rows = tiles->n + (tiles->is_joined ? tiles->n_fine : 0);
    static_assert(2 * CPU_FOUR_MAX <= CPU_TILE_MAX, "sums of four strips");
    if (tiles->n_tiles != 1 || tiles->n_fine_tiles || n_rows > CPU_FOUR_MAX) return from;
    cpu_linear_fn *four = l->cpu->linear[w->format].four[n_rows];
    for (; four && to - from >= 4; from += 4) {
        struct strip_at first = strip_at(w, from, 2), then = strip_at(w, from + 2, 2);
        four(first.strip, w->strip_bytes, w->n_in, tiles->p, l->sums, SUMS_LD);
        finish_tile(l, w, &first, tiles, l->sums, 0, tiles->n, out);
        finish_tile(l, w, &then, tiles, l->sums + n_rows * SUMS_LD, 0, tiles->n, out);
    }
    return from;
}

/* Strip by strip, tile by tile: a strip stays in L1 while the tiles pass, which lie in L2. */
void cpu_strips(struct lane *l, const struct weight *w, const struct cpu_tiles *tiles,
                uint32_t from, uint32_t to, const struct cpu_target *out) {
    size_t row_bytes = cpu_act_bytes(CPU_FORMAT_ACT(w->format), w->n_in);
    uint32_t at_once = w->is_gated || l->cpu->linear[w->format].two[1] ? 2 : 1;
    uint32_t last = w->is_gated ? 2 * to : to, s = w->is_gated ? 2 * from : from;
    for (s = four_strips(l, w, tiles, s, last, out); s < last; s += at_once) {
        struct strip_at a = strip_at(w, s, BY_MIN(last - s, at_once));
        for (uint32_t t = 0; t < tiles->n_fine_tiles; t++) {
            uint32_t first = cpu_tile_start(tiles->n_fine, tiles->n_fine_tiles, t),
                     end = cpu_tile_start(tiles->n_fine, tiles->n_fine_tiles, t + 1);
            tile_sums(l, w, &a, tiles->p + (tiles->n + first) * row_bytes, end - first,
                      l->fine + first * SUMS_LD);
        }
        for (uint32_t t = 0; t < tiles->n_tiles; t++) {
            uint32_t first = cpu_tile_start(tiles->n, tiles->n_tiles, t),
                     end = cpu_tile_start(tiles->n, tiles->n_tiles, t + 1);
            uint32_t n_rows = end - first + (tiles->is_joined ? tiles->n_fine : 0);
            tile_sums(l, w, &a, tiles->p + first * row_bytes, n_rows, l->sums);
            finish_tile(l, w, &a, tiles, l->sums, first, end, out);
        }
    }
}

/* One block of rows, for units [first, end) of the weight. All lanes, or a lane alone. */
static void linear_block(struct lane *l, const struct weight *w, const struct cpu_source *s,
                         const struct cpu_target *out, uint32_t first, uint32_t end) {
    bool is_own = cpu_is_alone(l) || s->n <= CPU_FEW_ROWS;
    struct cpu_tiles tiles = cpu_tiles(l, w, s, is_own ? l->act : l->cpu->shared);
    uint32_t n_units = end - first, n_fills = tiles.n_tiles + tiles.n_fine_tiles;
    bool is_filled = !is_own;
    if (!is_own) {
        struct cpu_share share = cpu_share(l, n_fills);
        for (uint32_t t = cpu_share_next(&share); t != UINT32_MAX; t = cpu_share_next(&share))
            cpu_fill_tile(l, w, s, &tiles, t);
        cpu_meet(l);
    }
    /* pieces of an even number of strips, for kernels that take two */
    uint32_t pairs = BY_DIV_UP(n_units, 2), n_pieces = cpu_n_pieces(l, pairs);
    struct cpu_share share = cpu_share(l, n_pieces);
    for (uint32_t p = cpu_share_next(&share); p != UINT32_MAX; p = cpu_share_next(&share)) {
        for (uint32_t t = 0; t < n_fills && !is_filled; t++)
            cpu_fill_tile(l, w, s, &tiles, t);
        is_filled = true;
        uint32_t from = first + 2 * cpu_tile_start(pairs, n_pieces, p),
                 to = first + 2 * cpu_tile_start(pairs, n_pieces, p + 1);
        cpu_strips(l, w, &tiles, from, BY_MIN(to, end), out);
    }
    cpu_meet(l);
}

void cpu_linear(struct lane *l, const struct op_linear *o) {
    uint32_t most = cpu_is_alone(l) ? cpu_solo_rows(l->cpu, o->w) : CPU_BLOCK_ROWS;
    uint32_t n_blocks = BY_DIV_UP(o->n, most), at_once = n_blocks ? BY_DIV_UP(o->n, n_blocks) : 1;
    uint32_t first = o->out_first / CPU_STRIP, end = cpu_n_units(o->w);
    if (o->out_n) {
        by_assert(!o->w->is_gated && o->out_first % CPU_STRIP == 0);
        by_assert(o->out_n <= o->w->n_out && o->out_first <= o->w->n_out - o->out_n);
        end = BY_DIV_UP(o->out_first + o->out_n, CPU_STRIP);
    }
    for (uint32_t i = 0; i < o->n; i += at_once) {
        struct cpu_source s = {.x = o->x,
                               .ld = o->x_ld,
                               .col = o->x_col,
                               .norm = o->norm,
                               .rows = o->rows,
                               .is_fine = o->is_fine,
                               .first = o->first + i,
                               .n = BY_MIN(o->n - i, at_once)};
        struct cpu_target out = {.y = o->y + (size_t)s.first * o->y_ld,
                                 .ld = o->y_ld,
                                 .col = o->y_col,
                                 .out_first = o->out_first,
                                 .act = o->act,
                                 .is_add = o->is_add,
                                 .scale = o->scale,
                                 .softcap = o->softcap};
        linear_block(l, o->w, &s, &out, first, end);
    }
}

/* The columns of a head that go over as they are. */
static void copy_columns(const struct op_linear_heads *o, uint32_t head) {
    for (uint32_t r = o->first; r < o->first + o->n && o->n_copy; r++) {
        const float *x = o->x + (size_t)r * o->x_ld + o->x_col + head * o->x_step + o->x_copy_col;
        float *y = o->y + (size_t)r * o->y_ld + o->y_col + head * o->y_step + o->y_copy_col;
        memcpy(y, x, o->n_copy * sizeof *y);
    }
}

/* One head and as many rows as a lane takes at once a piece of work. */
void cpu_linear_heads(struct lane *l, const struct op_linear_heads *o) {
    struct cpu_share share = cpu_share(l, o->n_heads);
    for (uint32_t h = cpu_share_next(&share); h != UINT32_MAX; h = cpu_share_next(&share)) {
        const struct weight *w = o->w[h];
        copy_columns(o, h);
        uint32_t at_once = cpu_solo_rows(l->cpu, w);
        for (uint32_t i = 0; i < o->n; i += at_once) {
            struct cpu_source s = {.x = o->x,
                                   .ld = o->x_ld,
                                   .col = o->x_col + h * o->x_step,
                                   .first = o->first + i,
                                   .n = BY_MIN(o->n - i, at_once)};
            struct cpu_target out = {.y = o->y + (size_t)s.first * o->y_ld,
                                     .ld = o->y_ld,
                                     .col = o->y_col + h * o->y_step,
                                     .scale = 1};
            struct cpu_tiles tiles = cpu_tiles(l, w, &s, l->act);
            for (uint32_t t = 0; t < tiles.n_tiles; t++)
                cpu_fill_tile(l, w, &s, &tiles, t);
            cpu_strips(l, w, &tiles, 0, cpu_n_units(w), &out);
        }
    }
    cpu_meet(l);
}
