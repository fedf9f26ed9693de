/* Which rows of a step attend in which way (attention.h). */
#include "gpu_worker/cuda/attention.h"

#include <string.h>

enum { TILE_ROWS = 16 /* of a sequence, from which on a tile pays */ };

/* Rows of long pieces go by tiles, those between them by spans. */
static void share_out(struct cuda *c, const struct op_attention *o, const struct attend *a) {
    uint32_t done = o->first, end = o->first + o->n;
    bool may_tile = !c->options.is_deterministic && attention_fits_tiles(o);
    for (uint32_t i = 0; i < o->n_seqs && may_tile; i++) {
        const struct seq_rows *s = &o->seqs[i];
        uint32_t from = BY_MAX(s->first, o->first), to = BY_MIN(s->first + s->n, end);
        if (to <= from || to - from < TILE_ROWS) continue;
        if (from > done) attention_spans(c, o, a, done, from - done);
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
