#include "gpu_worker/models/delta.h"

#include "common/base/mem.h"

#include <math.h>

struct delta_cols delta_cols(const struct by_model_info *m) {
    const struct by_delta_info *x = &m->delta;
    struct delta_cols c = {.k = x->n_k_heads * x->k_dim, .out = x->n_v_heads * x->v_dim};
    c.v = 2 * c.k;
    c.z = c.v + c.out;
    c.b = c.z + c.out;
    c.a = c.b + x->n_v_heads;
    c.all = c.a + x->n_v_heads;
    return c;
}

/* ---- forward ---- */

void delta_run(const struct pass *p, const struct layer *l) {
    const struct decoder *d = p->d;
    const struct by_delta_info *x = &d->info.delta;
    const struct delta_cols c = delta_cols(&d->info);
    d->b->conv(p->lane, &(struct op_conv){.x = d->qkv.p,
                                          .ld = d->qkv.ld,
                                          .width = c.z,
                                          .w = l->delta->conv,
                                          .size = x->conv,
                                          .act = d->arch.act,
                                          .windows = l->delta->windows,
                                          .seqs = p->s->seqs,
                                          .n_seqs = p->s->n_seqs});
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
                                            .decay = l->delta->decay,
                                            .dt = l->delta->dt,
                                            .norm = &l->delta->norm,
                                            .states = l->delta->states,
                                            .out = d->attn.p,
                                            .out_ld = d->attn.ld,
                                            .seqs = p->s->seqs,
                                            .n_seqs = p->s->n_seqs});
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
    const struct by_delta_info *x = &b->d->info.delta;
    const struct delta_cols c = delta_cols(&b->d->info);
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
    const struct by_delta_info *x = &b->d->info.delta;
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
    l->qkv.y_col[l->qkv.n] = delta_cols(&b->d->info).b;
    return bind_matrix(b, &l->qkv.w[l->qkv.n++], &w);
}

/* [columns, size] in the file, turned so that columns lie side by side. */
static int bind_conv(struct binder *b, struct delta *x, uint32_t layer) {
    const uint32_t n = delta_cols(&b->d->info).z, size = b->d->info.delta.conv;
    float *w = NULL;
    int rc = bind_read(b, &w,
                       &(struct bind_vector){.role = ROLE_DELTA_CONV,
                                             .suffix = ".weight",
                                             .layer = layer,
                                             .n = size,
                                             .n_slices = n,
                                             .wants_all = true});
    float *turned = by_alloc_array((size_t)n * size, sizeof *turned);
    for (size_t i = 0; !rc && i < (size_t)n * size; i++)
        turned[i % size * n + i / size] = w[i];
    if (!rc) x->conv = b->d->b->put(b->d->b, turned, (size_t)n * size);
    if (!rc && !x->conv)
        rc = by_fail(b->err, BY_ENOMEM, "no memory for %u columns of a convolution", n);
    by_free(turned);
    by_free(w);
    return rc;
}

static int bind_decay(struct binder *b, struct delta *x, uint32_t layer) {
    const uint32_t n = b->d->info.delta.n_v_heads;
    struct bind_vector v = {.role = ROLE_DELTA_LOG_A, .suffix = "", .layer = layer, .n = n};
    float *decay = NULL;
    int rc = bind_read(b, &decay, &v);
    for (uint32_t i = 0; decay && i < n && !b->d->info.is_gguf; i++)
        decay[i] = (float)-exp((double)decay[i]);
    if (!rc) x->decay = b->d->b->put(b->d->b, decay, n);
    if (!rc && !x->decay) rc = by_fail(b->err, BY_ENOMEM, "no memory for %u numbers", n);
    by_free(decay);
    v.role = ROLE_DELTA_DT;
    return rc ? rc : bind_put(b, &x->dt, &v);
}

int delta_bind(struct binder *b, struct layer *l, uint32_t layer) {
    const struct by_model_info *m = &b->d->info;
    struct delta *x = l->delta = by_alloc(sizeof *x);
    x->norm = (struct norm){.kind = NORM_RMS, .eps = (float)m->norm_eps};
    int rc = bind_qkvz(b, l, layer);
    if (!rc) rc = bind_gates(b, l, layer);
    if (!rc) rc = bind_conv(b, x, layer);
    if (!rc) rc = bind_decay(b, x, layer);
    if (!rc)
        rc = bind_put(
            b, &x->norm.w,
            &(struct bind_vector){
                .role = ROLE_DELTA_NORM, .suffix = ".weight", .layer = layer, .n = m->delta.v_dim});
    if (rc) return rc;
    return bind_matrix(b, &l->o,
                       &(struct bind){.parts = {bind_whole(ROLE_DELTA_OUT, m->hidden)},
                                      .n_parts = 1,
                                      .n_in = delta_cols(m).out,
                                      .layer = layer,
                                      .no_bias = true});
}

void delta_release(struct decoder *d, struct delta *x) {
    if (!x) return;
    const float *all[] = {x->conv, x->decay, x->dt, x->norm.w};
    for (size_t i = 0; i < BY_COUNTOF(all); i++)
        d->b->free(d->b, (void *)(uintptr_t)all[i]);
    by_free(x);
}

/* ---- states ---- */

static size_t window_floats(const struct by_model_info *m) {
    return (size_t)(m->delta.conv - 1) * delta_cols(m).z;
}

static size_t state_floats(const struct by_model_info *m) {
    return m->delta.n_v_heads * backend_delta_floats(m->delta.k_dim, m->delta.v_dim);
}

size_t delta_state_bytes(const struct by_model_info *m) {
    if (!m->delta.n_v_heads) return 0;
    return (window_floats(m) + state_floats(m)) * sizeof(float);
}

bool delta_new_states(struct decoder *d, struct delta *x, uint32_t n_slots) {
    x->windows = d->b->alloc(d->b, n_slots * window_floats(&d->info) * sizeof(float));
    x->states = d->b->alloc(d->b, n_slots * state_floats(&d->info) * sizeof(float));
    return x->windows && x->states;
}

void delta_free_states(struct decoder *d, struct delta *x) {
    if (!x) return;
    d->b->free(d->b, x->windows);
    d->b->free(d->b, x->states);
    x->windows = x->states = NULL;
}
