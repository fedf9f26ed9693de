#include "gpu_worker/models/delta.h"

#include <math.h>

/* Where its parts lie in the qkv buffer, q from column 0 on. */
struct cols {
    uint32_t k, v, z, b, a, out; /* out: columns of v and of z */
};

static struct cols cols_of(const struct by_model_info *m) {
    const struct by_state_info *x = &m->state;
    struct cols c = {.k = x->n_k_heads * x->k_dim, .out = x->n_v_heads * x->v_dim};
    c.v = 2 * c.k;
    c.z = c.v + c.out;
    c.b = c.z + c.out;
    c.a = c.b + x->n_v_heads;
    return c;
}

struct state_cols delta_state_cols(const struct by_model_info *m) {
    const struct cols c = cols_of(m);
    return (struct state_cols){.all = c.a + m->state.n_v_heads, .out = c.out};
}

/* ---- forward ---- */

void delta_round(const struct pass *p, const struct state_layer *w, const struct seq_rows *seqs,
                 uint32_t n_seqs) {
    const struct decoder *d = p->d;
    const struct by_state_info *x = &d->info.state;
    const struct cols c = cols_of(&d->info);
    states_conv(p, w, seqs, n_seqs);
    d->b->delta(p->lane, &(struct op_delta){.x = d->qkv.p,
                                            .ld = d->qkv.ld,
                                            .k_col = c.k,
                                            .v_col = c.v,
                                            .z_col = c.z,
                                            .b_col = c.b,
                                            .a_col = c.a,
                                            .n_k_heads = x->n_k_heads,
                                            .n_v_heads = x->n_v_heads,
                                            .k_dim = x->k_dim,
                                            .v_dim = x->v_dim,
                                            .is_tiled = x->is_tiled,
                                            .decay = w->decay,
                                            .dt = w->dt,
                                            .norm = &w->norm,
                                            .states = w->states,
                                            .out = d->attn.p,
                                            .out_ld = d->attn.ld,
                                            .seqs = seqs,
                                            .n_seqs = n_seqs});
}

/* ---- weights ---- */

/* n of every `stride` rows of a role's tensor, from `offset` on, n_all in all. */
static struct bind_part part(enum role role, uint32_t rows, uint32_t n_all, uint32_t n,
                             uint32_t stride, uint32_t offset) {
    return (struct bind_part){
        .role = role, .rows = rows, .n = n_all, .run = n, .stride = stride, .offset = offset};
}

/* q, k, v and z: in one matrix where one tensor has them all, or two of one type. */
static int bind_qkvz(struct binder *b, struct layer *l, uint32_t layer) {
    static const enum role two[] = {ROLE_DELTA_QKV, ROLE_DELTA_Z};
    const struct by_state_info *x = &b->d->info.state;
    const struct cols c = cols_of(&b->d->info);
    struct bind w = {.n_in = b->d->info.hidden, .layer = layer};
    l->qkv.n = 1;
    if (bind_has(b, ROLE_DELTA_QKVZ, layer, 0)) {
        const uint32_t k = x->k_dim, v = c.out / x->n_k_heads, each = 2 * (k + v);
        const uint32_t rows = x->n_k_heads * each;
        w.n_parts = 4;
        w.parts[0] = part(ROLE_DELTA_QKVZ, rows, c.k, k, each, 0);
        w.parts[1] = part(ROLE_DELTA_QKVZ, rows, c.k, k, each, k);
        w.parts[2] = part(ROLE_DELTA_QKVZ, rows, c.out, v, each, 2 * k);
        w.parts[3] = part(ROLE_DELTA_QKVZ, rows, c.out, v, each, 2 * k + v);
        return bind_matrix(b, &l->qkv.w[0], &w);
    }
    w.parts[0] = bind_whole(ROLE_DELTA_QKV, c.z);
    w.parts[1] = bind_whole(ROLE_DELTA_Z, c.out);
    w.n_parts = 2;
    if (bind_has_one_type(b, two, BY_COUNTOF(two), layer)) return bind_matrix(b, &l->qkv.w[0], &w);
    w.n_parts = 1;
    int rc = bind_matrix(b, &l->qkv.w[0], &w);
    w.parts[0] = w.parts[1];
    l->qkv.y_col[l->qkv.n] = c.z;
    return rc ? rc : bind_matrix(b, &l->qkv.w[l->qkv.n++], &w);
}

/* In f32: few numbers, whose errors the state would keep. */
static int bind_gates(struct binder *b, struct layer *l, uint32_t layer) {
    const struct by_state_info *x = &b->d->info.state;
    const uint32_t n = x->n_v_heads, each = n / x->n_k_heads;
    struct bind w = {.parts = {bind_whole(ROLE_DELTA_B, n), bind_whole(ROLE_DELTA_A, n)},
                     .n_parts = 2,
                     .n_in = b->d->info.hidden,
                     .layer = layer,
                     .is_exact = true};
    if (bind_has(b, ROLE_DELTA_BA, layer, 0)) {
        w.parts[0] = part(ROLE_DELTA_BA, 2 * n, n, each, 2 * each, 0);
        w.parts[1] = part(ROLE_DELTA_BA, 2 * n, n, each, 2 * each, each);
    }
    l->qkv.y_col[l->qkv.n] = cols_of(&b->d->info).b;
    return bind_matrix(b, &l->qkv.w[l->qkv.n++], &w);
}

int delta_bind(struct binder *b, struct layer *l, uint32_t layer) {
    const struct by_model_info *m = &b->d->info;
    struct state_layer *x = l->state;
    x->norm = (struct norm){.kind = NORM_RMS, .eps = (float)m->norm_eps};
    int rc = bind_qkvz(b, l, layer);
    if (!rc) rc = bind_gates(b, l, layer);
    if (!rc) rc = states_bind_conv(b, x, layer);
    if (!rc) rc = states_bind_decay(b, x, layer);
    if (rc) return rc;
    return bind_put(
        b, &x->norm.w,
        &(struct bind_vector){
            .role = ROLE_STATE_NORM, .suffix = ".weight", .layer = layer, .n = m->state.v_dim});
}
