/* Which rows of a step attend in which way (attention.h). */
#include "gpu_worker/cuda/attention.h"

#include <string.h>

enum { TILE_ROWS = 16 /* of a sequence, from which on a tile pays */ };

extern "C" const struct attend_tile *
attention_tiles_of(struct cuda *c, const struct op_attention *o, const struct seq_rows *s,
                   uint32_t first, uint32_t n, uint32_t n_each, uint32_t room) {
    const void *device;
    bool is_new;
    uint32_t n_tiles = BY_DIV_UP(n, n_each);
    uint64_t variant =
        (uint64_t)first << 40 ^ (uint64_t)o->window << 8 ^ (o->is_full ? 128 : 0) ^ room;
    struct attend_tile *tiles = (struct attend_tile *)queue_room(
        c->queue, s, variant, n_tiles * sizeof *tiles, &device, &is_new);
    for (uint32_t i = 0; i < n_tiles && is_new; i++) {
        struct attend_tile *t = &tiles[n_tiles - 1 - i];
        uint32_t row = first + i * n_each, own = s->position + (row - s->first);
        t->row = row, t->n = BY_MIN(n - i * n_each, n_each);
        t->from = o->window && own + 1 > o->window ? own + 1 - o->window : 0;
        t->to = o->is_full ? s->position + s->n : own + t->n;
    }
    return (const struct attend_tile *)device;
}

/* Rows of long pieces go by tiles, those between them by spans. */
static void share_out(struct cuda *c, const struct op_attention *o, const struct attend *a) {
    uint32_t done = o->first, end = o->first + o->n;
    bool is_latent = attention_fits_latent(o);
    bool may_tile = !c->options.is_deterministic && (is_latent || attention_fits_tiles(o));
    for (uint32_t i = 0; i < o->n_seqs && may_tile; i++) {
        const struct seq_rows *s = &o->seqs[i];
        uint32_t from = BY_MAX(s->first, o->first), to = BY_MIN(s->first + s->n, end);
        if (to <= from || to - from < TILE_ROWS) continue;
        if (from > done) attention_spans(c, o, a, done, from - done);
        if (is_latent)
            attention_latent(c, o, a, from, to - from);
        else if (attention_fits_wgmma(c, o))
            attention_wgmma(c, o, a, s, from, to - from);
        else
            attention_tiles(c, o, a, s, from, to - from);
        done = to;
    }
    if (end > done) attention_spans(c, o, a, done, end - done);
}

extern "C" void cuda_attention(struct lane *l, const struct op_attention *o) {
    struct cuda *c = l->cuda;
    struct attend a;
    if (!o->n) return;
    memset(&a, 0, sizeof a);
    a.q = o->q, a.q_ld = o->q_ld, a.q_col = o->q_col, a.n_heads = o->n_heads;
    a.group = o->n_heads / o->kv.n_kv_heads, a.scale = o->scale, a.softcap = o->softcap;
    a.window = o->window, a.sinks = o->sinks;
    a.k_dim = o->kv.k_dim, a.v_dim = o->kv.v_dim, a.page_size = o->kv.page_size;
    a.y = cuda_kv_of(&o->kv), a.pool = (const uint8_t *)o->pool;
    a.out = o->out, a.out_ld = o->out_ld, a.out_col = o->out_col;
    a.rows = cuda_rows(c, o->seqs, o->n_seqs, a.page_size, o->is_full, &a.pages);
    share_out(c, o, &a);
}
