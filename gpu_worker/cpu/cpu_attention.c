/* Attention over pages: which rows share keys, and in which order keys come.
 *
 *     rows of a tile = neighbouring tokens x heads of one kv head        keys: spans of 256 positions, blocks of 64
 *
 * A row's result is span 0 merged with span 1, 2 … in order, whoever computes them; within a span, block by block. When
 * there are few tiles (one long sequence), lanes share the spans: each leaves its sums in a slot, and one lane merges them.
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
};

static struct plan plan_of(const struct lane *l, const struct op_attention *o) {
    struct plan p = {.o = o, .y = cpu_kv_layout(&o->kv), .group = o->n_heads / o->kv.n_kv_heads};
    uint32_t most = l->cpu->k->attend_rows;
    p.n_parts = BY_DIV_UP(p.group, most);
    p.heads_each = BY_DIV_UP(p.group, p.n_parts);
    p.tokens_each = BY_MAX(most / p.heads_each, 1u);
    return p;
}

static void load_queries(struct lane *l, const struct plan *p, const struct tile *t,
                         struct cpu_rows *r) {
    const struct op_attention *o = p->o;
    uint32_t n = t->n * t->n_heads, k_dim = o->kv.k_dim;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t row = t->first + i / t->n_heads, head = t->head + i % t->n_heads;
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

/* Keys [from, to), which lie in one span, in blocks of 64. */
static void attend_span(struct lane *l, const struct plan *p, const struct tile *t,
                        struct cpu_rows *r, uint32_t from, uint32_t to) {
    const struct kv_shape *kv = &p->o->kv;
    cpu_attend_fn *attend = l->cpu->k->attend[kv->dtype][t->n * t->n_heads];
    const uint8_t *pool = (const uint8_t *)p->o->pool + t->kv * p->y.head_bytes;
    for (uint32_t at = from / CPU_KEYS * CPU_KEYS; at < to; at += CPU_KEYS) {
        struct cpu_keys k = {.position = at,
                             .from = BY_MAX(from, at) - at,
                             .to = BY_MIN(to - at, (uint32_t)CPU_KEYS),
                             .k_dim = kv->k_dim,
                             .v_dim = kv->v_dim,
                             .v_pad = p->y.v_pad,
                             .v_at = p->y.v_at,
                             .scale_at = p->y.scale_at};
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
    forget(r, t->n * t->n_heads, p->y.v_pad);
    attend_span(l, p, t, r, BY_MAX(from, at), BY_MIN(to, at + CPU_SPAN));
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
    load_queries(l, p, t, &all);
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
    uint32_t first, n = tokens_of(p->o, s, &first);
    return BY_DIV_UP(n, p->tokens_each) * p->o->kv.n_kv_heads * p->n_parts;
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
    return (struct tile){
        .seq = &p->o->seqs[w->seq],
        .first = first + at,
        .n = BY_MIN(n - at, p->tokens_each),
        .kv = kv,
        .head = kv * p->group + part * p->heads_each,
        .n_heads = BY_MIN(p->group - part * p->heads_each, p->heads_each),
    };
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
        load_queries(l, p, &t, &r);
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

void cpu_attention(struct lane *l, const struct op_attention *o) {
    struct plan p = plan_of(l, o);
    struct walk w = {0};
    uint32_t n = 0;
    for (uint32_t s = 0; s < o->n_seqs; s++)
        n += tiles_of(&p, s);
    if (!cpu_is_alone(l) && n < CPU_FEW_TILES * l->cpu->b.n_lanes) {
        uint32_t n_spans = count_spans(&p, n);
        if (n_spans > n) {
            attend_by_spans(l, &p, n, n_spans);
            return;
        }
    }
    struct cpu_share share = cpu_share(l, n);
    for (uint32_t i = cpu_share_next(&share); i != UINT32_MAX; i = cpu_share_next(&share)) {
        struct tile t = tile_at(&p, &w, i);
        attend_tile(l, &p, &t);
    }
    cpu_meet(l);
}
