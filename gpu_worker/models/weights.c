#include "gpu_worker/models/weights.h"

#include "common/base/mem.h"
#include "gpu_worker/models/mla.h"
#include "gpu_worker/models/moe.h"
#include "gpu_worker/models/states.h"

#include <stdio.h>
#include <string.h>

/* ---- a layer ---- */

/* The parts of a fused tensor whose rows are, for each key-value head, its queries, its key, its value. A rank has whole
 * groups, or some queries of one. */
static void parts_by_group(const struct decoder *d, uint32_t rows, struct bind_part *parts) {
    const struct share *s = &d->share;
    uint32_t dim = d->full.head_dim, group = d->full.n_heads / d->full.n_kv_heads;
    uint32_t stride = (group + 2) * dim, first = s->kv.first * stride;
    uint32_t n_queries = s->q.n / s->kv.n;
    const uint32_t runs[] = {n_queries * dim, dim, dim};
    const uint32_t offsets[] = {first + (s->q.first - s->kv.first * group) * dim,
                                first + group * dim, first + (group + 1) * dim};
    for (uint32_t i = 0; i < 3; i++)
        parts[i] = (struct bind_part){.role = ROLE_QKV,
                                      .rows = rows,
                                      .n = runs[i] * s->kv.n,
                                      .run = runs[i],
                                      .stride = stride,
                                      .offset = offsets[i]};
}

/* Some heads' rows of a tensor of heads, which begin at row `from`. */
static struct bind_part bind_heads(uint32_t dim, enum role role, uint32_t rows, uint32_t from,
                                   struct cut heads) {
    return (struct bind_part){
        .role = role, .rows = rows, .n = heads.n * dim, .offset = from + heads.first * dim};
}

static bool has_own_values(const struct decoder *d, const struct layer *l) {
    return !d->info.k_is_v || l->heads != &d->full_heads;
}

/* Queries, and behind them their gates, where the tensor has a gate behind each head's query. */
static uint32_t query_parts(const struct decoder *d, const struct heads *h,
                            struct bind_part *parts) {
    const struct cut q = d->share.q;
    const uint32_t dim = h->kv.k_dim, rows = d->full.n_heads * dim;
    parts[0] = bind_heads(dim, ROLE_Q, rows, 0, q);
    if (!h->gate_cols) return 1;
    for (uint32_t i = 0; i < 2; i++)
        parts[i] = (struct bind_part){.role = ROLE_Q,
                                      .rows = 2 * rows,
                                      .n = q.n * dim,
                                      .run = dim,
                                      .stride = 2 * dim,
                                      .offset = (2 * q.first + i) * dim};
    return 2;
}

static int bind_qkv(struct binder *b, struct layer *l, uint32_t layer) {
    static const enum role roles[] = {ROLE_Q, ROLE_K, ROLE_V};
    const struct decoder *d = b->d;
    const struct cut q = d->share.q, kv = l->heads->cut;
    const uint32_t dim = l->heads->kv.k_dim, n_q = d->full.n_heads * dim,
                   n_kv = l->heads->n_kv_all * dim, all = n_q + 2 * n_kv;
    struct bind w = {.n_in = d->info.hidden,
                     .layer = layer,
                     .is_transposed = d->arch.layout.is_transposed,
                     .wants_bias = d->info.has_attn_bias};
    l->qkv.n = 1;
    if (d->arch.names[ROLE_QKV] && !bind_has(b, ROLE_Q, layer, 0)) {
        w.n_parts = 3;
        w.parts[0] = bind_heads(dim, ROLE_QKV, all, 0, q);
        w.parts[1] = bind_heads(dim, ROLE_QKV, all, n_q, kv);
        w.parts[2] = bind_heads(dim, ROLE_QKV, all, n_q + n_kv, kv);
        if (d->arch.layout.qkv_by_group) parts_by_group(d, all, w.parts);
        return bind_matrix(b, &l->qkv.w[0], &w);
    }
    const uint32_t n = query_parts(d, l->heads, w.parts);
    const uint32_t n_later = l->kv_layer != layer ? 0 : has_own_values(d, l) ? 2 : 1;
    w.n_parts = n + n_later;
    w.parts[n] = bind_heads(dim, ROLE_K, n_kv, 0, kv);
    w.parts[n + 1] = bind_heads(dim, ROLE_V, n_kv, 0, kv);
    if (bind_has_one_type(b, roles, 1 + n_later, layer)) return bind_matrix(b, &l->qkv.w[0], &w);
    const struct bind_part later[] = {w.parts[n], w.parts[n + 1]};
    w.n_parts = n;
    int rc = bind_matrix(b, &l->qkv.w[0], &w);
    w.n_parts = 1;
    for (; l->qkv.n < 1 + n_later && !rc; l->qkv.n++) {
        l->qkv.y_col[l->qkv.n] = l->qkv.n == 1 ? l->heads->k_col : l->heads->v_col;
        w.parts[0] = later[l->qkv.n - 1];
        rc = bind_matrix(b, &l->qkv.w[l->qkv.n], &w);
    }
    return rc;
}

static int bind_attention(struct binder *b, struct layer *l, uint32_t layer) {
    const struct decoder *d = b->d;
    const struct by_model_info *m = &d->info;
    if (m->layer_flags[layer] & BY_LAYER_STATE) return states_bind(b, l, layer);
    int rc = m->mla.kv_rank ? mla_bind(b, l, layer) : bind_qkv(b, l, layer);
    const struct heads *h = l->heads;
    const bool has_keys = l->kv_layer == layer;
    /* of latent attention none */
    uint32_t q_norm = d->arch.qk_whole ? h->q_cols : h->kv.k_dim,
             k_norm = d->arch.qk_whole ? h->k_cols : h->kv.k_dim;
    if (!rc) rc = bind_norm(b, &l->q_norm, ROLE_Q_NORM, layer, q_norm);
    if (!rc && has_keys) rc = bind_norm(b, &l->k_norm, ROLE_K_NORM, layer, k_norm);
    if (has_keys && d->arch.has_v_norm)
        l->v_norm = (struct norm){.kind = NORM_RMS, .eps = (float)m->norm_eps, .w = d->ones};
    if (!rc && d->arch.names[ROLE_SINKS])
        rc = bind_put(b, &l->sinks,
                      &(struct bind_vector){.role = ROLE_SINKS,
                                            .suffix = m->is_gguf ? ".weight" : "",
                                            .layer = layer,
                                            .n = m->n_heads,
                                            .n_all = d->full.n_heads,
                                            .first = d->share.q.first});
    if (rc) return rc;
    uint32_t v_dim = m->mla.kv_rank ? m->mla.v_dim : h->kv.v_dim;
    return bind_matrix(b, &l->o,
                       &(struct bind){.parts = {bind_whole(ROLE_O, m->hidden)},
                                      .n_parts = 1,
                                      .n_in = m->n_heads * v_dim,
                                      .n_in_all = d->full.n_heads * v_dim,
                                      .in_first = d->share.q.first * v_dim,
                                      .no_bias = d->share.rank && !d->share.is_attention_whole,
                                      .layer = layer,
                                      .is_transposed = d->arch.layout.is_transposed});
}

static int bind_ffn(struct binder *b, struct layer *l, uint32_t layer) {
    const struct decoder *d = b->d;
    const bool is_other = l->kv_layer != layer && d->full.shared_ffn;
    const struct cut cut = is_other ? d->share.shared_ffn : d->share.ffn;
    const uint32_t n = is_other ? d->full.shared_ffn : d->full.ffn;
    struct bind w = {.n_in = d->info.hidden,
                     .layer = layer,
                     .n_parts = 1,
                     .is_gated = !d->arch.is_ungated,
                     .is_transposed = d->arch.layout.is_transposed,
                     .wants_bias = d->info.has_mlp_bias};
    if (d->arch.is_ungated) {
        w.parts[0] = bind_cut(ROLE_UP, n, 0, cut);
    } else if (d->arch.names[ROLE_GATE_UP]) {
        w.n_parts = 2;
        w.parts[0] = bind_cut(ROLE_GATE_UP, 2 * n, 0, cut);
        w.parts[1] = bind_cut(ROLE_GATE_UP, 2 * n, n, cut);
    } else {
        w.n_parts = 2;
        w.parts[0] = bind_cut(ROLE_GATE, n, 0, cut);
        w.parts[1] = bind_cut(ROLE_UP, n, 0, cut);
    }
    int rc = bind_matrix(b, &l->up, &w);
    if (rc) return rc;
    return bind_matrix(b, &l->down,
                       &(struct bind){.parts = {bind_whole(ROLE_DOWN, d->info.hidden)},
                                      .n_parts = 1,
                                      .n_in = cut.n,
                                      .n_in_all = n,
                                      .in_first = cut.first,
                                      .no_bias = d->share.rank > 0,
                                      .layer = layer,
                                      .is_transposed = w.is_transposed});
}

static int bind_token_part(struct binder *b, struct token_part *t, uint32_t layer) {
    const struct by_model_info *m = &b->d->info;
    if (!m->per_layer) return 0;
    int rc = bind_matrix(b, &t->gate,
                         &(struct bind){.parts = {bind_whole(ROLE_TOKEN_GATE, m->per_layer)},
                                        .n_parts = 1,
                                        .n_in = m->hidden,
                                        .no_bias = true,
                                        .layer = layer});
    if (!rc)
        rc = bind_matrix(b, &t->out,
                         &(struct bind){.parts = {bind_whole(ROLE_TOKEN_OUT, m->hidden)},
                                        .n_parts = 1,
                                        .n_in = m->per_layer,
                                        .no_bias = true,
                                        .layer = layer});
    return rc ? rc : bind_norm(b, &t->post_norm, ROLE_POST_TOKEN_NORM, layer, m->hidden);
}

static int bind_scale(struct binder *b, float *out, uint32_t layer) {
    float *scale = NULL;
    int rc = bind_read(
        b, &scale,
        &(struct bind_vector){
            .role = ROLE_LAYER_SCALE, .suffix = "", .layer = layer, .n = 1, .is_optional = true});
    *out = scale ? *scale : 1;
    by_free(scale);
    return rc;
}

static int bind_layer(struct binder *b, uint32_t layer) {
    const struct by_model_info *m = &b->d->info;
    struct layer *l = &b->d->layers[layer];
    l->heads = m->layer_flags[layer] & BY_LAYER_SLIDING ? &b->d->windowed_heads : &b->d->full_heads;
    l->kv_layer = by_model_info_kv_layer(m, layer);
    int rc = bind_norm(b, &l->attn_norm, ROLE_ATTN_NORM, layer, m->hidden);
    if (!rc) rc = bind_attention(b, l, layer);
    if (!rc) rc = bind_norm(b, &l->post_attn_norm, ROLE_POST_ATTN_NORM, layer, m->hidden);
    if (!rc && !b->d->arch.ffn_norm_is_attn_norm)
        rc = bind_norm(b, &l->ffn_norm, ROLE_FFN_NORM, layer, m->hidden);
    if (b->d->arch.ffn_norm_is_attn_norm) l->ffn_norm = l->attn_norm;
    bool is_moe = m->moe.n_experts && (m->layer_flags[layer] & BY_LAYER_MOE);
    if (!rc && is_moe) rc = moe_bind(b, l, layer);
    if (!rc && (!is_moe || b->d->arch.names[ROLE_POST_DENSE_NORM])) rc = bind_ffn(b, l, layer);
    if (!rc) rc = bind_token_part(b, &l->token, layer);
    if (!rc) rc = bind_scale(b, &l->scale, layer);
    return rc ? rc : bind_norm(b, &l->post_ffn_norm, ROLE_POST_FFN_NORM, layer, m->hidden);
}

/* ---- the rest ---- */

static int bind_table(struct binder *b, struct weight **out, enum role role, uint32_t rows) {
    if (!b->d->arch.names[role]) return 0;
    bool is_of_tokens = role == ROLE_EMBED;
    /* Logits out of it are this rank's alone. */
    bool is_cut = is_of_tokens && b->d->info.is_tied && b->d->share.vocab.n < rows;
    const struct bind w = {.parts = {bind_whole(role, rows)},
                           .n_parts = 1,
                           .n_in = b->d->info.hidden,
                           .is_row_lookup = true,
                           .out_n = is_cut ? b->d->share.vocab.n : 0,
                           .keep_type = !is_of_tokens,
                           .is_of_tokens = is_of_tokens,
                           .no_bias = true};
    return bind_matrix(b, out, &w);
}

/* What each layer has of a token: a table as large as the model, of which a step reads a row a token; it stays as it is. */
static int bind_token_layers(struct binder *b) {
    struct decoder *d = b->d;
    const struct by_model_info *m = &d->info;
    const uint32_t n = m->n_layers * m->per_layer;
    if (!n) return 0;
    int rc = bind_matrix(b, &d->token_layers,
                         &(struct bind){.parts = {bind_whole(ROLE_TOKEN_LAYERS, m->vocab)},
                                        .n_parts = 1,
                                        .n_in = n,
                                        .is_row_lookup = true,
                                        .is_of_tokens = true,
                                        .no_bias = true});
    if (!rc)
        rc = bind_matrix(b, &d->token_layers_proj,
                         &(struct bind){.parts = {bind_whole(ROLE_TOKEN_LAYERS_PROJ, n)},
                                        .n_parts = 1,
                                        .n_in = m->hidden,
                                        .no_bias = true});
    return rc ? rc : bind_norm(b, &d->token_layers_norm, ROLE_TOKEN_LAYERS_NORM, 0, m->per_layer);
}

/* The weights of norms that have none. */
static int bind_ones(struct binder *b) {
    struct decoder *d = b->d;
    const uint32_t n = BY_MAX(d->info.head_dim, d->info.full_head_dim);
    if (!d->arch.has_v_norm) return 0;
    float *ones = by_alloc_array(n, sizeof *ones);
    for (uint32_t i = 0; i < n; i++)
        ones[i] = 1;
    d->ones = d->b->put(d->b, ones, n);
    by_free(ones);
    return d->ones ? 0 : by_fail(b->err, BY_ENOMEM, "no memory for %u numbers", n);
}

static int bind_output(struct binder *b) {
    struct decoder *d = b->d;
    char name[MATRIX_NAME_MAX];
    if (d->info.is_tied) {
        d->output = d->embed;
        return 0;
    }
    if (bind_name(b, ROLE_OUTPUT, 0, 0, name, sizeof name) && !bind_has(b, ROLE_OUTPUT, 0, 0))
        return by_fail(
            b->err, BY_ENOTFOUND,
            "there is no tensor %s.weight, and the config does not tie it to the embedding", name);
    if (!d->arch.names[ROLE_OUTPUT]) return 0; /* an encoder */
    return bind_matrix(
        b, &d->output,
        &(struct bind){.parts = {bind_cut(ROLE_OUTPUT, d->info.vocab, 0, d->share.vocab)},
                       .n_parts = 1,
                       .n_in = d->info.hidden,
                       .is_of_tokens = true});
}

/* The head of a cross-encoder: a pooler and a classifier, where the file has them. */
static int bind_classifier(struct binder *b) {
    struct decoder *d = b->d;
    const struct by_model_info *m = &d->info;
    if (!m->n_labels || !bind_has(b, ROLE_SCORES, 0, 0)) return 0;
    struct bind w = {.parts = {bind_whole(ROLE_POOLER, m->hidden)},
                     .n_parts = 1,
                     .n_in = m->hidden,
                     .keep_type = true};
    int rc = bind_matrix(b, &d->pooler, &w);
    w.parts[0] = bind_whole(ROLE_SCORES, m->n_labels);
    return rc ? rc : bind_matrix(b, &d->scores, &w);
}

static int bind_ends(struct binder *b) {
    struct decoder *d = b->d;
    const struct by_model_info *m = &d->info;
    if (!d->arch.names[ROLE_EMBED])
        return by_fail(b->err, BY_EINTERNAL, "a family without an embedding");
    int rc = bind_table(b, &d->embed, ROLE_EMBED, m->vocab);
    if (!rc) rc = bind_table(b, &d->positions, ROLE_POSITIONS, m->context + m->pos_offset);
    if (!rc) rc = bind_table(b, &d->types, ROLE_TYPES, m->n_types);
    if (!rc) rc = bind_token_layers(b);
    if (!rc) rc = bind_ones(b);
    if (!rc) rc = bind_norm(b, &d->embed_norm, ROLE_EMBED_NORM, 0, m->hidden);
    if (!rc) rc = bind_norm(b, &d->final_norm, ROLE_FINAL_NORM, 0, m->hidden);
    if (!rc) rc = bind_classifier(b);
    return rc ? rc : bind_output(b);
}

int weights_load(struct decoder *d, const struct by_model_dir *dir, const struct model_options *o,
                 struct by_err *err) {
    struct binder b;
    bind_start(&b, d, dir, o, err);
    bool has_output = bind_has(&b, ROLE_OUTPUT, 0, 0);
    if (by_model_dir_may_tie(dir) && !has_output) d->info.is_tied = true;
    if (by_model_dir_unties(dir) && has_output) d->info.is_tied = false;
    int rc = bind_ends(&b);
    d->layers = by_alloc_array(d->info.n_layers, sizeof *d->layers);
    for (uint32_t i = 0; i < d->info.n_layers && !rc; i++)
        rc = bind_layer(&b, i);
    bind_finish(&b, rc == 0);
    return rc ? by_fail_prefix(err, "%s", by_model_dir_path(dir)) : 0;
}

/* ---- release ---- */

static void free_norm(struct decoder *d, struct norm *n) {
    d->b->free(d->b, (void *)(uintptr_t)n->w);
    d->b->free(d->b, (void *)(uintptr_t)n->b);
}

static void free_layer(struct decoder *d, struct layer *l) {
    struct norm *norms[] = {&l->attn_norm, &l->post_attn_norm, &l->post_ffn_norm,
                            &l->q_norm,    &l->k_norm,         &l->token.post_norm};
    for (size_t i = 0; i < BY_COUNTOF(norms); i++)
        free_norm(d, norms[i]);
    if (!d->arch.ffn_norm_is_attn_norm) free_norm(d, &l->ffn_norm);
    for (uint32_t i = 0; i < BY_COUNTOF(l->qkv.w); i++)
        d->b->weight_free(d->b, l->qkv.w[i]);
    d->b->weight_free(d->b, l->o);
    d->b->weight_free(d->b, l->up);
    d->b->weight_free(d->b, l->down);
    d->b->weight_free(d->b, l->token.gate);
    d->b->weight_free(d->b, l->token.out);
    d->b->free(d->b, (void *)(uintptr_t)l->sinks);
    moe_release(d, l->moe);
    mla_release(d, l->mla);
    states_release(d, l->state);
}

void weights_release(struct decoder *d) {
    for (uint32_t i = 0; d->layers && i < d->info.n_layers; i++)
        free_layer(d, &d->layers[i]);
    if (d->output != d->embed) d->b->weight_free(d->b, d->output);
    d->b->weight_free(d->b, d->embed);
    d->b->weight_free(d->b, d->positions);
    d->b->weight_free(d->b, d->types);
    d->b->weight_free(d->b, d->pooler);
    d->b->weight_free(d->b, d->scores);
    d->b->weight_free(d->b, d->token_layers);
    d->b->weight_free(d->b, d->token_layers_proj);
    d->b->free(d->b, (void *)(uintptr_t)d->ones);
    free_norm(d, &d->token_layers_norm);
    free_norm(d, &d->embed_norm);
    free_norm(d, &d->final_norm);
    by_free(d->layers);
    d->layers = NULL;
}
