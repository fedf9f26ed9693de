#include "gpu_worker/models/mla.h"

#include "common/base/mem.h"

#include <stdio.h>

/* ---- forward ---- */

static void project(const struct pass *p, const struct weight *w, const struct buffer *x,
                    const struct norm *norm, const struct buffer *y, uint32_t y_col) {
    p->d->b->linear(p->lane, &(struct op_linear){.is_fine = p->d->is_fine,
                                                 .w = w,
                                                 .x = x->p,
                                                 .x_ld = x->ld,
                                                 .norm = norm,
                                                 .y = y->p,
                                                 .y_ld = y->ld,
                                                 .y_col = y_col,
                                                 .scale = 1,
                                                 .first = p->first,
                                                 .n = p->n});
}

void mla_project(const struct pass *p, const struct layer *l) {
    const struct decoder *d = p->d;
    const struct by_mla_info *m = &d->info.mla;
    const struct norm *norm = decoder_norm(&l->attn_norm);
    if (l->mla->q_a) project(p, l->mla->q_a, &d->x, norm, &d->mla.q_a, 0);
    project(p, l->mla->q_b, l->mla->q_a ? &d->mla.q_a : &d->x,
            l->mla->q_a ? &l->mla->q_a_norm : norm, &d->mla.q, 0);
    project(p, l->mla->kv_a, &d->x, norm, &d->qkv, l->heads->q_cols);
    d->b->norm(p->lane, &(struct op_norm){.x = d->qkv.p,
                                          .x_ld = d->qkv.ld,
                                          .x_col = l->heads->q_cols,
                                          .width = m->kv_rank,
                                          .norm = &l->mla->kv_a_norm,
                                          .y = d->qkv.p,
                                          .y_ld = d->qkv.ld,
                                          .y_col = l->heads->q_cols,
                                          .scale = 1,
                                          .first = p->first,
                                          .n = p->n});
    d->b->linear_heads(p->lane,
                       &(struct op_linear_heads){.w = (const struct weight *const *)l->mla->key_in,
                                                 .n_heads = d->info.n_heads,
                                                 .x = d->mla.q.p,
                                                 .x_ld = d->mla.q.ld,
                                                 .x_step = m->nope_dim + m->rope_dim,
                                                 .y = d->qkv.p,
                                                 .y_ld = d->qkv.ld,
                                                 .y_step = m->kv_rank + m->rope_dim,
                                                 .n_copy = m->rope_dim,
                                                 .x_copy_col = m->nope_dim,
                                                 .y_copy_col = m->kv_rank,
                                                 .first = p->first,
                                                 .n = p->n});
}

void mla_output(const struct pass *p, const struct layer *l) {
    const struct decoder *d = p->d;
    d->b->linear_heads(
        p->lane, &(struct op_linear_heads){.w = (const struct weight *const *)l->mla->value_out,
                                           .n_heads = d->info.n_heads,
                                           .x = d->mla.latent.p,
                                           .x_ld = d->mla.latent.ld,
                                           .x_step = d->info.mla.kv_rank,
                                           .y = d->attn.p,
                                           .y_ld = d->attn.ld,
                                           .y_step = d->info.mla.v_dim,
                                           .first = p->first,
                                           .n = p->n});
}

/* ---- weights ---- */

/* The transposed key half of one head, in floats; what type it had is kept where it is a float type. */
static int bind_key(struct binder *b, struct weight **out, const struct matrix *kv_b,
                    uint32_t head) {
    const struct by_mla_info *m = &b->d->info.mla;
    size_t bytes = (size_t)m->nope_dim * m->kv_rank * sizeof(float);
    float *t = by_try_alloc(bytes), *row = by_try_alloc(m->kv_rank * sizeof *row);
    int rc =
        t && row ? 0 : by_fail(b->err, BY_ENOMEM, "%s: no memory for %zu bytes", kv_b->name, bytes);
    for (uint32_t i = 0; i < m->nope_dim && !rc; i++) {
        size_t at = (size_t)(b->d->share.q.first + head) * (m->nope_dim + m->v_dim) + i;
        by_dtype_to_f32(kv_b->dtype, kv_b->rows + at * kv_b->row_bytes, row, m->kv_rank);
        for (uint32_t k = 0; k < m->kv_rank; k++)
            t[(size_t)k * m->nope_dim + i] = row[k];
    }
    if (!rc) {
        struct matrix turned = {.dtype = BY_DTYPE_F32,
                                .n_rows = m->kv_rank,
                                .n_cols = m->nope_dim,
                                .row_bytes = m->nope_dim * sizeof(float),
                                .rows = (const uint8_t *)t};
        snprintf(turned.name, sizeof turned.name, "%s", kv_b->name);
        struct stack s = {.parts = {{.m = &turned, .n = m->kv_rank}},
                          .n_parts = 1,
                          .n_cols = m->nope_dim,
                          .dtype = by_dtype_is_quantised(kv_b->dtype) ? BY_DTYPE_F32 : kv_b->dtype};
        rc = bind_stack(b, out, &s, &(struct weight_source){0});
    }
    by_free(t);
    by_free(row);
    return rc;
}

/* GGUF files of late have kv_b in two, the key half turned already. */
static int bind_halves(struct binder *b, struct mla *l, uint32_t layer, uint32_t head) {
    const struct by_mla_info *m = &b->d->info.mla;
    struct bind w = {.parts = {bind_whole(ROLE_K_B, m->kv_rank)},
                     .n_parts = 1,
                     .n_in = m->nope_dim,
                     .layer = layer,
                     .expert = b->d->share.q.first + head,
                     .n_slices = b->d->full.n_heads,
                     .no_bias = true};
    int rc = bind_matrix(b, &l->key_in[head], &w);
    w.parts[0] = bind_whole(ROLE_V_B, m->v_dim);
    w.n_in = m->kv_rank;
    return rc ? rc : bind_matrix(b, &l->value_out[head], &w);
}

static int bind_heads(struct binder *b, struct mla *l, uint32_t layer) {
    const struct by_model_info *info = &b->d->info;
    const struct by_mla_info *m = &info->mla;
    int rc = 0;
    l->key_in = by_alloc_array(info->n_heads, sizeof(struct weight *));
    l->value_out = by_alloc_array(info->n_heads, sizeof(struct weight *));
    if (bind_has(b, ROLE_K_B, layer, 0)) {
        for (uint32_t h = 0; h < info->n_heads && !rc; h++)
            rc = bind_halves(b, l, layer, h);
        return rc;
    }
    char stem[MATRIX_NAME_MAX];
    struct matrix kv_b = {0};
    const struct matrix_want want = {.stem = bind_name(b, ROLE_KV_B, layer, 0, stem, sizeof stem),
                                     .n_rows = b->d->full.n_heads * (m->nope_dim + m->v_dim),
                                     .n_cols = m->kv_rank};
    rc = matrix_open(&kv_b, &b->source, &want, b->err);
    for (uint32_t h = 0; h < info->n_heads && !rc; h++) {
        struct stack s = {
            .parts = {{.m = &kv_b,
                       .n = m->v_dim,
                       .offset =
                           (b->d->share.q.first + h) * (m->nope_dim + m->v_dim) + m->nope_dim}},
            .n_parts = 1,
            .n_cols = m->kv_rank,
            .dtype = kv_b.dtype};
        rc = bind_key(b, &l->key_in[h], &kv_b, h);
        if (!rc) rc = bind_stack(b, &l->value_out[h], &s, &(struct weight_source){0});
    }
    matrix_close(&kv_b);
    return rc;
}

int mla_bind(struct binder *b, struct layer *l, uint32_t layer) {
    const struct by_model_info *info = &b->d->info;
    const struct by_mla_info *m = &info->mla;
    const struct cut q = b->d->share.q;
    struct mla *x = l->mla = by_alloc(sizeof *x);
    int rc = 0;
    if (m->q_rank) {
        rc = bind_matrix(b, &x->q_a,
                         &(struct bind){.parts = {bind_whole(ROLE_Q_A, m->q_rank)},
                                        .n_parts = 1,
                                        .n_in = info->hidden,
                                        .layer = layer});
        if (!rc) rc = bind_norm(b, &x->q_a_norm, ROLE_Q_A_NORM, layer, m->q_rank);
    }
    if (!rc)
        rc = bind_matrix(
            b, &x->q_b,
            &(struct bind){.parts = {bind_cut(
                               m->q_rank ? ROLE_Q_B : ROLE_Q, b->d->full.n_heads * info->head_dim,
                               0, (struct cut){q.first * info->head_dim, q.n * info->head_dim})},
                           .n_parts = 1,
                           .n_in = m->q_rank ? m->q_rank : info->hidden,
                           .layer = layer});
    if (!rc)
        rc = bind_matrix(b, &x->kv_a,
                         &(struct bind){.parts = {bind_whole(ROLE_KV_A, m->kv_rank + m->rope_dim)},
                                        .n_parts = 1,
                                        .n_in = info->hidden,
                                        .layer = layer});
    if (!rc) rc = bind_norm(b, &x->kv_a_norm, ROLE_KV_A_NORM, layer, m->kv_rank);
    x->q_a_norm.eps = x->kv_a_norm.eps = 1e-6f; /* whatever the config says of the others */
    return rc ? rc : bind_heads(b, x, layer);
}

void mla_release(struct decoder *d, struct mla *m) {
    if (!m) return;
    for (uint32_t h = 0; m->key_in && h < d->info.n_heads; h++) {
        d->b->weight_free(d->b, m->key_in[h]);
        d->b->weight_free(d->b, m->value_out[h]);
    }
    struct weight *rest[] = {m->q_a, m->q_b, m->kv_a};
    for (size_t i = 0; i < BY_COUNTOF(rest); i++)
        d->b->weight_free(d->b, rest[i]);
    const float *norms[] = {m->q_a_norm.w, m->kv_a_norm.w};
    for (size_t i = 0; i < BY_COUNTOF(norms); i++)
        d->b->free(d->b, (void *)(uintptr_t)norms[i]);
    by_free(m->key_in);
    by_free(m->value_out);
    by_free(m);
}
