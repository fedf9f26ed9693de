#include "gpu_worker/models/mamba.h"

/* Where the parts lie in the qkv buffer, x from column 0 on. */
struct cols {
    uint32_t b, c, z, t, out; /* out: columns of x and of z */
};

static struct cols cols_of(const struct by_model_info *m) {
    const struct by_state_info *x = &m->state;
    const uint32_t keys = x->n_k_heads * x->k_dim, out = x->n_v_heads * x->v_dim;
    return (struct cols){
        .b = out, .c = out + keys, .z = out + 2 * keys, .t = 2 * out + 2 * keys, .out = out};
}

struct state_cols mamba_cols(const struct by_model_info *m) {
    const struct cols c = cols_of(m);
    return (struct state_cols){.all = c.t + m->state.n_v_heads, .out = c.out};
}

/* ---- forward ---- */

void mamba_round(const struct pass *p, const struct state_layer *w, const struct seq_rows *seqs,
                 uint32_t n_seqs) {
    const struct decoder *d = p->d;
    const struct by_state_info *x = &d->info.state;
    const struct cols c = cols_of(&d->info);
    states_conv(p, w, seqs, n_seqs);
    d->b->ssm(p->lane, &(struct op_ssm){.x = d->qkv.p,
                                        .ld = d->qkv.ld,
                                        .k_col = c.b,
                                        .q_col = c.c,
                                        .z_col = c.z,
                                        .t_col = c.t,
                                        .n_groups = x->n_k_heads,
                                        .n_heads = x->n_v_heads,
                                        .k_dim = x->k_dim,
                                        .v_dim = x->v_dim,
                                        .decay = w->decay,
                                        .dt = w->dt,
                                        .skip = w->skip,
                                        .step_min = (float)x->step_min,
                                        .step_max = (float)x->step_max,
                                        .states = w->states,
                                        .out = d->attn.p,
                                        .out_ld = d->attn.ld,
                                        .seqs = seqs,
                                        .n_seqs = n_seqs});
}

void mamba_finish(const struct pass *p, const struct state_layer *x) {
    const struct decoder *d = p->d;
    const uint32_t n_groups = d->info.state.n_k_heads;
    d->b->norm(p->lane, &(struct op_norm){.x = d->attn.p,
                                          .x_ld = d->attn.ld,
                                          .width = cols_of(&d->info).out / n_groups,
                                          .n_parts = n_groups,
                                          .parts_differ = true,
                                          .norm = &x->norm,
                                          .y = d->attn.p,
                                          .y_ld = d->attn.ld,
                                          .scale = 1,
                                          .first = p->first,
                                          .n = p->n});
}

/* ---- weights ---- */

/* In the file: z, x, B, C, t. */
static int bind_in(struct binder *b, struct layer *l, uint32_t layer) {
    const struct by_model_info *m = &b->d->info;
    const struct cols c = cols_of(m);
    const uint32_t n_heads = m->state.n_v_heads, rows = c.t + n_heads;
    struct bind w = {.parts = {bind_cut(ROLE_STATE_IN, rows, c.out, (struct cut){0, c.z}),
                               bind_cut(ROLE_STATE_IN, rows, 0, (struct cut){0, c.out})},
                     .n_parts = 2,
                     .n_in = m->hidden,
                     .layer = layer,
                     .wants_bias = m->state.has_bias};
    l->qkv.n = 2;
    l->qkv.y_col[1] = c.t;
    int rc = bind_matrix(b, &l->qkv.w[0], &w);
    w.parts[0] = bind_cut(ROLE_STATE_IN, rows, c.t, (struct cut){0, n_heads});
    w.n_parts = 1;
    w.is_exact = true;
    return rc ? rc : bind_matrix(b, &l->qkv.w[1], &w);
}

int mamba_bind(struct binder *b, struct layer *l, uint32_t layer) {
    const struct by_model_info *m = &b->d->info;
    struct state_layer *x = l->state;
    struct bind_vector skip = states_by_head(m, ROLE_STATE_SKIP, layer);
    struct bind_vector norm = {
        .role = ROLE_STATE_NORM, .suffix = ".weight", .layer = layer, .n = cols_of(m).out};
    if (m->is_gguf) { /* a group's in a row */
        norm.n_slices = m->state.n_k_heads;
        norm.n /= norm.n_slices;
        norm.wants_all = true;
    }
    x->norm = (struct norm){.kind = NORM_RMS, .eps = (float)m->norm_eps};
    int rc = bind_in(b, l, layer);
    if (!rc) rc = states_bind_conv(b, x, layer);
    if (!rc) rc = states_bind_decay(b, x, layer);
    if (!rc) rc = bind_put(b, &x->skip, &skip);
    return rc ? rc : bind_put(b, &x->norm.w, &norm);
}
