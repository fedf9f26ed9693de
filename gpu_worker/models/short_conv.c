#include "gpu_worker/models/short_conv.h"

struct state_cols short_conv_cols(const struct by_model_info *m) {
    return (struct state_cols){.all = 3 * m->hidden, .out = m->hidden};
}

void short_conv_round(const struct pass *p, const struct state_layer *x,
                      const struct seq_rows *seqs, uint32_t n_seqs) {
    const struct decoder *d = p->d;
    const uint32_t n = d->info.hidden;
    d->b->conv(p->lane, &(struct op_conv){.x = d->qkv.p,
                                          .ld = d->qkv.ld,
                                          .width = n,
                                          .in_gate_col = n,
                                          .out_gate_col = 2 * n,
                                          .w = x->conv,
                                          .bias = x->conv_bias,
                                          .size = d->info.state.conv,
                                          .windows = x->windows,
                                          .out = d->attn.p,
                                          .out_ld = d->attn.ld,
                                          .seqs = seqs,
                                          .n_seqs = n_seqs});
}

int short_conv_bind(struct binder *b, struct layer *l, uint32_t layer) {
    const uint32_t n = b->d->info.hidden;
    struct bind w = {.n_parts = 3, .n_in = n, .layer = layer};
    for (uint32_t i = 0; i < 3; i++) /* in the file: b, c, x */
        w.parts[i] = bind_cut(ROLE_STATE_IN, 3 * n, 0, (struct cut){(i + 2) % 3 * n, n});
    l->qkv.n = 1;
    int rc = bind_matrix(b, &l->qkv.w[0], &w);
    return rc ? rc : states_bind_conv(b, l->state, layer);
}
