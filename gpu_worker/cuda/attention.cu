/* Which rows of a step attend in which way (attention.h). */
#include "gpu_worker/cuda/attention.h"

#include <string.h>

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
    attention_spans(c, o, &a, o->first, o->n);
}
