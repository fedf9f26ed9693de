/* Attention over pages: which rows share keys, and in which order keys come.
 *
 *     rows of a tile = neighbouring tokens x heads of one kv head        keys: spans of 256 positions, blocks of 64
 *
 * A row's result is span 0 merged with span 1, 2 … in order, whoever computes them; within a span, block by block. When
 * there are few tiles (one long sequence), lanes share the spans: each leaves its sums in a slot, and one lane merges them.
 *
 *     decoding sequences whose pages begin alike      |==== read once for a tile of all their rows ====|- own -|
 *                                                                                                      |-- own --|
 *
 * go through whole blocks of what they share as the rows of one tile, then each through the rest; every row meets the blocks
 * that it would have met alone, in the same order, so its bits are the same.
 */
#include "common/base/check.h"
#include "gpu_worker/cpu/cpu.h"

#include <math.h>
#include <string.h>

/* Query rows: tokens [first, first + n) of a sequence, heads [head, head + n_heads) of kv head kv. */
struct tile {
    const struct seq_rows *seq;
    uint32_t first, n; /* rows of the step */
    uint32_t kv, head, n_heads;
};

/* How an op is cut. */
struct plan {
    const struct op_attention *o;
    struct cpu_kv_layout y;
    uint32_t group;       /* query heads a kv head */
    uint32_t heads_each;  /* of them in one tile */
    uint32_t n_parts;     /* tiles over the heads of a group */
    uint32_t tokens_each; /* in one tile */
    bool has_runs;        /* sequences of one row go in runs, the others in tiles */
};

static struct plan plan_of(const struct lane *l, const struct op_attention *o) {
    struct plan p = {.o = o, .y = cpu_kv_layout(&o->kv), .group = o->n_heads / o->kv.n_kv_heads};
    uint32_t most = l->cpu->k->attend_rows;
    p.n_parts = BY_DIV_UP(p.group, most);
    p.heads_each = BY_DIV_UP(p.group, p.n_parts);
    p.tokens_each = BY_MAX(most / p.heads_each, 1u);
    return p;
}

/* A tile's queries as rows from `at` on of n. */
static void load_queries(struct lane *l, const struct plan *p, const struct tile *t,
                         struct cpu_rows *r, uint32_t at, uint32_t n) {
    const struct op_attention *o = p->o;
    uint32_t k_dim = o->kv.k_dim;
    for (uint32_t k = 0; k < t->n * t->n_heads; k++) {
        uint32_t row = t->first + k / t->n_heads, head = t->head + k % t->n_heads, i = at + k;
        const float *q = o->q + (size_t)row * o->q_ld + o->q_col + (size_t)head * k_dim;
        for (uint32_t d = 0; d < k_dim; d++)
            l->query[(size_t)d * n + i] = q[d] * o->scale;
        uint32_t own = t->seq->position + (row - t->seq->first);
        r->end[i] = o->is_full ? t->seq->position + t->seq->n : own + 1;
        r->first[i] = o->window && own + 1 > o->window ? own + 1 - o->window : 0;
    }
    r->q = l->query;
    r->softcap = o->softcap;
}

static void forget(struct cpu_rows *r, uint32_t n, uint32_t v_pad) {
    for (uint32_t i = 0; i < n; i++) {
        r->max[i] = -INFINITY;
        r->sum[i] = 0;
    }
    memset(r->acc, 0, (size_t)n * v_pad * sizeof *r->acc);
}

/* Keys [from, to) of a tile's sequence, which lie in one span, in blocks of 64, for the n rows of r. */
static void attend_span(struct lane *l, const struct plan *p, const struct tile *t,
                        struct cpu_rows *r, uint32_t n, uint32_t from, uint32_t to) {
    const struct kv_shape *kv = &p->o->kv;
    cpu_attend_fn *attend = l->cpu->k->attend[kv->dtype][n];
    const uint8_t *pool = (const uint8_t *)p->o->pool + t->kv * p->y.head_bytes;
    for (uint32_t at = from / CPU_KEYS * CPU_KEYS; at < to; at += CPU_KEYS) {
        struct cpu_keys k = {.position = at,
                             .from = BY_MAX(from, at) - at,
                             .to = BY_MIN(to - at, (uint32_t)CPU_KEYS),
                             .k_dim = kv->k_dim,
                             .v_dim = kv->v_dim,
                             .v_pad = p->y.v_pad,
                             .v_at = p->y.v_at,
                             .scale_at = p->y.scale_at,
                             .v_in_k = kv->v_in_k};
        for (uint32_t g = k.from / CPU_GROUP; g * CPU_GROUP < k.to; g++) {
            uint32_t token = at + g * CPU_GROUP;
            k.group[g] = pool + t->seq->pages[token / kv->page_size] * p->y.page_bytes +
                         token % kv->page_size / CPU_GROUP * p->y.group_bytes;
        }
        attend(&k, r);
    }
}

/* Positions that any row of a tile sees. */
static void range_of(const struct op_attention *o, const struct tile *t, uint32_t *from,
                     uint32_t *to) {
    uint32_t own = t->seq->position + (t->first - t->seq->first); /* of the first row */
    *from = o->window && own + 1 > o->window ? own + 1 - o->window : 0;
    *to = o->is_full ? t->seq->position + t->seq->n : own + t->n;
}

static uint32_t spans_of(const struct op_attention *o, const struct tile *t) {
    uint32_t from, to;
    range_of(o, t, &from, &to);
    return (to - 1) / CPU_SPAN - from / CPU_SPAN + 1;
}

/* Span number i of a tile into r, which is forgotten first. */
static void attend_nth_span(struct lane *l, const struct plan *p, const struct tile *t,
                            struct cpu_rows *r, uint32_t i) {
    uint32_t from, to;
    range_of(p->o, t, &from, &to);
    uint32_t at = (from / CPU_SPAN + i) * CPU_SPAN;
    uint32_t n = t->n * t->n_heads;
    forget(r, n, p->y.v_pad);
    attend_span(l, p, t, r, n, BY_MAX(from, at), BY_MIN(to, at + CPU_SPAN));
}

static void store_tile(struct lane *l, const struct plan *p, const struct tile *t,
                       const struct cpu_rows *r) {
    const struct op_attention *o = p->o;
    for (uint32_t i = 0; i < t->n * t->n_heads; i++) {
        uint32_t row = t->first + i / t->n_heads, head = t->head + i % t->n_heads;
        float *out = o->out + (size_t)row * o->out_ld + o->out_col + (size_t)head * o->kv.v_dim;
        l->cpu->k->attend_finish(r, i, p->y.v_pad, o->kv.v_dim, o->sinks ? o->sinks + head : NULL,
                                 out);
    }
}

static void attend_tile(struct lane *l, const struct plan *p, const struct tile *t) {
    struct cpu_rows all = {.acc = l->acc, .scores = l->scores}, span;
    uint32_t n = t->n * t->n_heads, n_spans = spans_of(p->o, t);
    load_queries(l, p, t, &all, 0, n);
    attend_nth_span(l, p, t, &all, 0);
    span = all;
    span.acc = l->span_acc;
    for (uint32_t i = 1; i < n_spans; i++) {
        attend_nth_span(l, p, t, &span, i);
        for (uint32_t r = 0; r < n; r++)
            l->cpu->k->merge(&all, &span, r, p->y.v_pad);
    }
    store_tile(l, p, t, &all);
}

/* ---- all tiles of an op, numbered: sequence, then tokens, kv head, part of its heads ---- */

struct walk {
    uint32_t seq, before; /* before: tiles of earlier sequences */
};

static uint32_t tokens_of(const struct op_attention *o, uint32_t s, uint32_t *first) {
    uint32_t a = BY_MAX(o->seqs[s].first, o->first);
    uint32_t b = BY_MIN(o->seqs[s].first + o->seqs[s].n, o->first + o->n);
    *first = a;
    return b > a ? b - a : 0;
}

static uint32_t tiles_of(const struct plan *p, uint32_t s) {
    if (p->has_runs && p->o->seqs[s].n == 1) return 0;
    uint32_t first, n = tokens_of(p->o, s, &first);
    return BY_DIV_UP(n, p->tokens_each) * p->o->kv.n_kv_heads * p->n_parts;
}

static struct tile tile_of(const struct plan *p, const struct seq_rows *seq, uint32_t first,
                           uint32_t n, uint32_t kv, uint32_t part) {
    return (struct tile){
        .seq = seq,
        .first = first,
        .n = n,
        .kv = kv,
        .head = kv * p->group + part * p->heads_each,
        .n_heads = BY_MIN(p->group - part * p->heads_each, p->heads_each),
    };
}

/* Tile i; i must not go down. */
static struct tile tile_at(const struct plan *p, struct walk *w, uint32_t i) {
    while (i - w->before >= tiles_of(p, w->seq)) {
        w->before += tiles_of(p, w->seq);
        w->seq++;
        by_assert(w->seq < p->o->n_seqs);
    }
    uint32_t first, n = tokens_of(p->o, w->seq, &first);
    i -= w->before;
    uint32_t part = i % p->n_parts, kv = i / p->n_parts % p->o->kv.n_kv_heads;
    uint32_t at = i / p->n_parts / p->o->kv.n_kv_heads * p->tokens_each;
    return tile_of(p, &p->o->seqs[w->seq], first + at, BY_MIN(n - at, p->tokens_each), kv, part);
}

/* ---- sequences of one row that share their first pages ---- */

/* Sequences whose rows make one tile for the first n_shared keys, whole blocks; 0: nothing is shared, and it is only one. */
struct run {
    const struct seq_rows *members[CPU_TILE_MAX];
    uint32_t n, n_shared;
};

/* The run that begins at number *at of the order or later; n 0: none. A further sequence comes in unless less would be saved
 * then: its rows share keys with those before it, but shorten what these share. */
static struct run next_run(const struct plan *p, uint32_t *at) {
    const struct op_attention *o = p->o;
    struct run r = {0};
    uint32_t common = UINT32_MAX; /* of the last member and all behind it so far */
    for (; *at < o->prefixes.n && r.n < p->tokens_each; ++*at) {
        const struct seq_rows *s = &o->seqs[o->prefixes.order[*at]];
        common = BY_MIN(common, o->prefixes.common[*at]);
        if (s->first < o->first || s->first >= o->first + o->n) continue;
        if (r.n > 0) {
            uint32_t shared = BY_MIN(common, r.n > 1 ? r.n_shared : UINT32_MAX);
            shared = shared / CPU_KEYS * CPU_KEYS;
            if (shared == 0 || (uint64_t)shared * r.n < (uint64_t)r.n_shared * (r.n - 1)) break;
            r.n_shared = shared;
        }
        r.members[r.n++] = s;
        common = UINT32_MAX;
    }
    return r;
}

/* Where the order stands: n runs have been taken, the last of them is `run`. */
struct run_walk {
    uint32_t at, n;
    struct run run;
};

static const struct run *run_at(const struct plan *p, struct run_walk *w, uint32_t i) {
    if (i + 1 < w->n) *w = (struct run_walk){0}; /* the next head begins with the first run */
    for (; w->n <= i; w->n++)
        w->run = next_run(p, &w->at);
    return &w->run;
}

static uint32_t count_runs(const struct plan *p) {
    uint32_t n = 0, at = 0;
    while (next_run(p, &at).n)
        n++;
    return n;
}

/* Rows [at, at + n) of r. */
static struct cpu_rows some_rows(const struct cpu_rows *r, uint32_t at, uint32_t n,
                                 uint32_t v_pad) {
    struct cpu_rows some = {.acc = r->acc + (size_t)at * v_pad, .scores = r->scores};
    memcpy(some.max, r->max + at, n * sizeof *r->max);
    memcpy(some.sum, r->sum + at, n * sizeof *r->sum);
    return some;
}

/* A member goes on from key `done` in the span that begins at `at`: all holds the spans before it, span what came of it. */
static void attend_rest(struct lane *l, const struct plan *p, const struct tile *t,
                        struct cpu_rows all, struct cpu_rows span, uint32_t at, uint32_t done) {
    uint32_t n = t->n_heads, from, to;
    range_of(p->o, t, &from, &to);
    from = BY_MAX(from, done);
    load_queries(l, p, t, &span, 0, n);
    for (; at < to; at += CPU_SPAN) {
        uint32_t first = BY_MAX(from, at), end = BY_MIN(to, at + CPU_SPAN);
        if (first < end) attend_span(l, p, t, &span, n, first, end);
        for (uint32_t r = 0; r < n; r++)
            l->cpu->k->merge(&all, &span, r, p->y.v_pad);
        forget(&span, n, p->y.v_pad);
    }
    store_tile(l, p, t, &all);
}

static void attend_run(struct lane *l, const struct plan *p, const struct run *run, uint32_t kv,
                       uint32_t part) {
    struct cpu_rows all = {.acc = l->acc, .scores = l->scores}, span;
    struct tile tiles[CPU_TILE_MAX];
    uint32_t n_heads = BY_MIN(p->group - part * p->heads_each, p->heads_each);
    uint32_t n = run->n * n_heads, first = UINT32_MAX, v_pad = p->y.v_pad;
    for (uint32_t m = 0; m < run->n; m++) {
        uint32_t from, to;
        tiles[m] = tile_of(p, run->members[m], run->members[m]->first, 1, kv, part);
        load_queries(l, p, &tiles[m], &all, m * n_heads, n);
        range_of(p->o, &tiles[m], &from, &to);
        first = BY_MIN(first, from);
    }
    span = all;
    span.acc = l->span_acc;
    forget(&all, n, v_pad);
    forget(&span, n, v_pad);
    uint32_t at = first / CPU_SPAN * CPU_SPAN, end = run->n_shared;
    for (; at + CPU_SPAN <= end; at += CPU_SPAN) {
        attend_span(l, p, tiles, &span, n, BY_MAX(first, at), at + CPU_SPAN);
        for (uint32_t r = 0; r < n; r++)
            l->cpu->k->merge(&all, &span, r, v_pad);
        forget(&span, n, v_pad);
    }
    if (BY_MAX(first, at) < end) attend_span(l, p, tiles, &span, n, BY_MAX(first, at), end);
    for (uint32_t m = 0; m < run->n; m++)
        attend_rest(l, p, &tiles[m], some_rows(&all, m * n_heads, n_heads, v_pad),
                    some_rows(&span, m * n_heads, n_heads, v_pad), at, end);
}

/* ---- few tiles: lanes share their spans, numbered tile by tile ---- */

/* What a span's rows came to: max, sum, acc. Those of whole tiles come first, then those of the spans of a round. */
struct slots {
    float *at;
    size_t each; /* floats */
    uint32_t n_tiles, n_round;
};

static struct cpu_rows slot_rows(const struct slots *s, uint32_t i, uint32_t n) {
    float *at = s->at + i * s->each;
    struct cpu_rows r = {.acc = at + 2 * CPU_TILE_MAX};
    memcpy(r.max, at, n * sizeof *at);
    memcpy(r.sum, at + CPU_TILE_MAX, n * sizeof *at);
    return r;
}

static void slot_store(const struct slots *s, uint32_t i, const struct cpu_rows *r, uint32_t n) {
    float *at = s->at + i * s->each;
    memcpy(at, r->max, n * sizeof *at);
    memcpy(at + CPU_TILE_MAX, r->sum, n * sizeof *at);
}

/* Spans [start, start + n) of all, into slots. */
static void round_spans(struct lane *l, const struct plan *p, const struct slots *s, uint32_t start,
                        uint32_t n) {
    struct walk w = {0};
    uint32_t tile = 0, before = 0;
    struct tile t = tile_at(p, &w, 0);
    struct cpu_share share = cpu_share(l, n);
    for (uint32_t i = cpu_share_next(&share); i != UINT32_MAX; i = cpu_share_next(&share)) {
        while (start + i - before >= spans_of(p->o, &t)) {
            before += spans_of(p->o, &t);
            t = tile_at(p, &w, ++tile);
        }
        struct cpu_rows r = slot_rows(s, s->n_tiles + i, 0);
        r.scores = l->scores;
        load_queries(l, p, &t, &r, 0, t.n * t.n_heads);
        attend_nth_span(l, p, &t, &r, start + i - before);
        slot_store(s, s->n_tiles + i, &r, t.n * t.n_heads);
    }
    cpu_meet(l);
}

/* Merges what a round brought, each tile's spans in order; whole tiles are stored. */
static void round_merge(struct lane *l, const struct plan *p, const struct slots *s, uint32_t start,
                        uint32_t n) {
    struct walk w = {0};
    uint32_t tile = 0, before = 0;
    struct tile t = tile_at(p, &w, 0);
    struct cpu_share share = cpu_share(l, s->n_tiles);
    for (uint32_t i = cpu_share_next(&share); i != UINT32_MAX; i = cpu_share_next(&share)) {
        for (; tile < i; t = tile_at(p, &w, ++tile))
            before += spans_of(p->o, &t);
        uint32_t rows = t.n * t.n_heads, end = before + spans_of(p->o, &t);
        struct cpu_rows all = slot_rows(s, i, rows);
        if (before >= start) forget(&all, rows, p->y.v_pad);
        for (uint32_t k = BY_MAX(before, start); k < BY_MIN(end, start + n); k++) {
            struct cpu_rows one = slot_rows(s, s->n_tiles + k - start, rows);
            for (uint32_t r = 0; r < rows; r++)
                l->cpu->k->merge(&all, &one, r, p->y.v_pad);
        }
        slot_store(s, i, &all, rows);
        if (end > start && end <= start + n) store_tile(l, p, &t, &all);
    }
    cpu_meet(l);
}

static void attend_by_spans(struct lane *l, const struct plan *p, uint32_t n_tiles,
                            uint32_t n_spans) {
    struct slots s = {.at = l->cpu->slots, .n_tiles = n_tiles};
    s.each = 2 * CPU_TILE_MAX + (size_t)p->tokens_each * p->heads_each * p->y.v_pad;
    s.n_round = (uint32_t)BY_MIN(l->cpu->slots_cap / s.each - n_tiles, (size_t)n_spans);
    for (uint32_t start = 0; start < n_spans; start += s.n_round) {
        uint32_t n = BY_MIN(n_spans - start, s.n_round);
        round_spans(l, p, &s, start, n);
        round_merge(l, p, &s, start, n);
    }
}

/* Spans of all tiles. */
static uint32_t count_spans(const struct plan *p, uint32_t n_tiles) {
    struct walk w = {0};
    uint32_t n = 0;
    for (uint32_t i = 0; i < n_tiles; i++) {
        struct tile t = tile_at(p, &w, i);
        n += spans_of(p->o, &t);
    }
    return n;
}

static uint32_t count_tiles(const struct plan *p) {
    uint32_t n = 0;
    for (uint32_t s = 0; s < p->o->n_seqs; s++)
        n += tiles_of(p, s);
    return n;
}

/* Runs, a kv head of all of them after the other: what they share stays in the second cache. Then the other tiles. */
static void attend_all(struct lane *l, const struct plan *p) {
    uint32_t n_runs = p->has_runs ? count_runs(p) : 0;
    uint32_t n_first = n_runs * p->o->kv.n_kv_heads * p->n_parts;
    struct run_walk runs = {0};
    struct walk w = {0};
    struct cpu_share share = cpu_share(l, n_first + count_tiles(p));
    for (uint32_t i = cpu_share_next(&share); i != UINT32_MAX; i = cpu_share_next(&share)) {
        if (i < n_first) {
            uint32_t part = i / n_runs % p->n_parts, kv = i / n_runs / p->n_parts;
            attend_run(l, p, run_at(p, &runs, i % n_runs), kv, part);
        } else {
            struct tile t = tile_at(p, &w, i - n_first);
            attend_tile(l, p, &t);
        }
    }
    cpu_meet(l);
}

void cpu_attention(struct lane *l, const struct op_attention *o) {
    struct plan p = plan_of(l, o);
    uint32_t n = count_tiles(&p);
    if (!cpu_is_alone(l) && n < CPU_FEW_TILES * l->cpu->b.n_lanes) {
        uint32_t n_spans = count_spans(&p, n);
        if (n_spans > n) {
            attend_by_spans(l, &p, n, n_spans);
            return;
        }
    }
    p.has_runs = o->prefixes.n > 0 && !o->is_full && p.tokens_each > 2;
    attend_all(l, &p);
}
