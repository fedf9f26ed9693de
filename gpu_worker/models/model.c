#include "gpu_worker/models/model.h"

#include "common/base/check.h"
#include "common/base/mem.h"
#include "gpu_worker/models/rope.h"
#include "gpu_worker/models/states.h"
#include "gpu_worker/models/weights.h"

#include <string.h>

struct model {
    struct decoder d;
    uint32_t n_pages, n_rows; /* n_rows: of the last step */
    float *hidden;            /* [rows_max, hidden], made when first asked for */
};

/* ---- open ---- */

static int check_context(struct decoder *d, const struct model_options *o, struct by_err *err) {
    const struct by_model_info *m = &d->info;
    d->context_len = o->context_len ? o->context_len : m->context;
    if (d->context_len == 0)
        return by_fail(err, BY_EINVAL,
                       "the model does not say how long a text it can take; --context-length does");
    if (m->context && d->context_len > m->context)
        return by_fail(err, BY_EINVAL,
                       "--context-length %u is more than the %u tokens that the model knows",
                       d->context_len, m->context);
    return 0;
}

static void set_heads(struct heads *h, const struct decoder *d, const struct model_options *o,
                      uint32_t n_kv_all, struct cut cut, uint32_t dim) {
    const struct by_mla_info *mla = &d->info.mla;
    const bool is_mla = mla->kv_rank > 0;
    h->n_kv_all = n_kv_all;
    h->cut = cut;
    h->kv = (struct kv_shape){
        .n_kv_heads = is_mla ? 1 : cut.n,
        .k_dim = is_mla ? mla->kv_rank + mla->rope_dim : dim,
        .v_dim = is_mla ? mla->kv_rank : dim,
        .v_in_k = is_mla,
        .page_size = o->page_size,
        .dtype = o->kv_dtype,
    };
    h->q_cols = d->info.n_heads * h->kv.k_dim;
    h->gate_cols = d->info.has_attn_gate ? h->q_cols : 0;
    h->k_cols = h->kv.n_kv_heads * h->kv.k_dim;
    h->v_cols = is_mla ? 0 : h->kv.n_kv_heads * h->kv.v_dim;
    h->k_col = h->q_cols + h->gate_cols;
    h->v_col = is_mla ? h->k_col : h->k_col + h->k_cols;
    h->rot_col = is_mla ? mla->kv_rank : 0;
}

static void set_shapes(struct decoder *d, const struct model_options *o) {
    const struct by_model_info *all = &d->full;
    d->rows_max = o->rows_max;
    d->logit_rows_max = o->logit_rows_max;
    set_heads(&d->windowed_heads, d, o, all->n_kv_heads, d->share.kv, all->head_dim);
    set_heads(&d->full_heads, d, o, all->full_kv_heads, d->share.full_kv, all->full_head_dim);
}

static int make_rope(struct decoder *d, struct rope_table **out, bool is_local,
                     struct by_err *err) {
    float inv_freq[BY_ROPE_PAIRS_MAX];
    const bool is_own = is_local && d->info.rope.theta_local > 0;
    struct rope_source src = {.n_rot = is_own ? d->info.rope.n_rot_local : d->info.rope.n_rot,
                              .inv_freq = inv_freq,
                              .n_positions = d->context_len};
    src.mscale = rope_inv_freq(&d->info.rope, is_local, d->context_len, inv_freq);
    *out = d->b->rope_new(d->b, &src);
    return *out ? 0
                : by_fail(err, BY_ENOMEM, "no memory for the rotations of %u positions",
                          d->context_len);
}

static int set_rope(struct decoder *d, struct by_err *err) {
    const struct by_model_info *m = &d->info;
    int rc = 0;
    if (m->rope.kind != BY_ROPE_NONE) rc = make_rope(d, &d->rope, false, err);
    if (!rc && m->rope.kind != BY_ROPE_NONE && m->rope.theta_local > 0)
        rc = make_rope(d, &d->rope_local, true, err);
    for (uint32_t i = 0; i < m->n_layers && !rc; i++) {
        struct layer *l = &d->layers[i];
        bool is_sliding = m->layer_flags[i] & BY_LAYER_SLIDING;
        l->window = is_sliding ? m->sliding_window : 0;
        if (m->layer_flags[i] & BY_LAYER_NO_ROPE) continue;
        l->rope = is_sliding && d->rope_local ? d->rope_local : d->rope;
    }
    return rc;
}

static int make_buffer(struct decoder *d, struct buffer *out, uint32_t rows, uint64_t cols,
                       struct by_err *err) {
    if (cols == 0) return 0;
    uint64_t bytes = (uint64_t)rows * cols * sizeof(float); /* below 2^32 * 2^28 * 4 */
    out->ld = (uint32_t)cols;
    const bool is_summed =
        (out == &d->out || out == &d->moe.out) && d->share.world > 1 && d->b->alloc_sums;
    out->p = is_summed ? d->b->alloc_sums(d->b, bytes) : d->b->alloc(d->b, bytes);
    if (out->p) return 0;
    return by_fail(err, BY_ENOMEM,
                   "no memory for %.1f MB of activations, %u rows of %u; fewer tokens a step need "
                   "less (--chunked-prefill-size)",
                   (double)bytes / 1e6, rows, out->ld);
}

static int make_logits(struct decoder *d, struct by_err *err) {
    const uint32_t vocab = d->info.vocab;
    int rc = make_buffer(d, &d->logits, d->logit_rows_max, vocab, err);
    if (rc || d->share.vocab.n == vocab) return rc;
    const uint32_t each = share_logits_max(&d->share, vocab), world = d->share.world;
    by_assert(world <= TP_RANKS_MAX);
    for (uint32_t k = 0; k < world; k++)
        d->logit_starts[k] = share_logits(&d->share, vocab, k).first;
    d->logit_starts[world] = vocab;
    if (!d->b->gather) d->all_logits = by_alloc_array((size_t)world * each, sizeof *d->all_logits);
    return make_buffer(d, &d->own_logits, d->logit_rows_max, each, err);
}

static uint64_t width_of(const struct heads *h) {
    return (uint64_t)h->k_col + h->k_cols + h->v_cols;
}

static int make_buffers(struct decoder *d, struct by_err *err) {
    const struct by_model_info *m = &d->info;
    const struct by_moe_info *x = &m->moe;
    const bool is_mla = m->mla.kv_rank > 0, is_moe = x->n_experts > 0;
    const uint64_t heads = m->n_heads, dim = BY_MAX(m->head_dim, m->full_head_dim),
                   token = (uint64_t)m->n_layers * m->per_layer;
    const struct {
        struct buffer *b;
        uint64_t cols;
    } all[] = {
        {&d->x, m->hidden},
        {&d->qkv, BY_MAX(BY_MAX(width_of(&d->windowed_heads), width_of(&d->full_heads)),
                         states_cols(m).all)},
        {&d->attn, BY_MAX(heads * (is_mla ? m->mla.v_dim : dim), states_cols(m).out)},
        {&d->token, token},
        {&d->ffn, BY_MAX(BY_MAX(BY_MAX(m->ffn, m->shared_ffn), x->shared_ffn), token)},
        {&d->out, (d->arch.names[ROLE_POST_ATTN_NORM] && !d->arch.is_post_ln) || d->share.world > 1
                      ? m->hidden
                      : 0},
        {&d->moe.logits, x->n_experts},
        {&d->moe.weights, is_moe ? x->n_used : 0},
        {&d->moe.gate, x->has_shared_gate},
        {&d->moe.scratch, is_moe ? (uint64_t)x->n_used * (x->ffn + m->hidden) : 0},
        {&d->moe.out, is_moe && d->arch.names[ROLE_POST_DENSE_NORM] ? m->hidden : 0},
        {&d->mla.q_a, m->mla.q_rank},
        {&d->mla.q, is_mla ? heads * m->head_dim : 0},
        {&d->mla.latent, is_mla ? heads * m->mla.kv_rank : 0},
    };
    int rc = 0;
    d->is_fine = by_alloc(d->rows_max);
    states_new_rounds(d);
    d->order = by_alloc_array(d->rows_max, sizeof *d->order);
    d->common = by_alloc_array(d->rows_max, sizeof *d->common);
    for (size_t i = 0; i < BY_COUNTOF(all) && !rc; i++)
        rc = make_buffer(d, all[i].b, d->rows_max, all[i].cols, err);
    if (!rc && d->output) rc = make_logits(d, err);
    if (!rc && d->scores) rc = make_buffer(d, &d->pooled, d->logit_rows_max, m->hidden, err);
    if (!rc && d->scores) rc = make_buffer(d, &d->labels, d->logit_rows_max, m->n_labels, err);
    if (rc || !is_moe) return rc;
    d->moe.experts = d->b->alloc(d->b, (size_t)d->rows_max * x->n_used * sizeof(uint32_t));
    return d->moe.experts
               ? 0
               : by_fail(err, BY_ENOMEM, "no memory for the experts of %u rows", d->rows_max);
}

int model_open(struct model **out, const struct by_model_dir *dir, struct backend *b,
               const struct model_options *o, struct by_err *err) {
    by_assert(o->page_size && o->page_size % 16 == 0 && o->rows_max && o->logit_rows_max);
    const struct by_model_info *info = by_model_dir_info(dir);
    if (!info)
        return by_fail(err, BY_EUNSUPPORTED,
                       "%s: its config is not one that the native engine can read",
                       by_model_dir_path(dir));
    struct model *m = by_alloc(sizeof *m);
    struct decoder *d = &m->d;
    d->b = b;
    d->info = *info;
    int rc = arch_make(&d->arch, info, by_model_dir_config(dir), err);
    if (!rc && (info->state.kind || info->has_attn_gate) && !b->delta)
        rc = by_fail(err, BY_EUNSUPPORTED, "layers with states are not done natively on %s",
                     b->name);
    if (!rc) rc = check_context(d, o, err);
    if (rc) {
        rc = by_fail_prefix(err, "%s", by_model_dir_path(dir));
        goto done;
    }
    d->full = d->info;
    const bool is_whole = d->arch.qk_whole || d->info.state.kind; /* states are not parted */
    rc = share_make(&d->share, &d->full, is_whole, o->rank, BY_MAX(o->world, 1u), err);
    if (rc) {
        rc = by_fail_prefix(err, "%s", by_model_dir_path(dir));
        goto done;
    }
    share_apply(&d->share, &d->info);
    set_shapes(d, o);
    rc = weights_load(d, dir, o, err);
    if (!rc) rc = set_rope(d, err);
    if (!rc) rc = make_buffers(d, err);
    if (rc) goto done;
    *out = m;
    m = NULL;
done:
    model_close(m);
    return rc;
}

static void free_buffers(struct decoder *d) {
    struct buffer *all[] = {&d->x,           &d->qkv,      &d->attn,        &d->ffn,
                            &d->own_logits,  &d->out,      &d->token,       &d->logits,
                            &d->hidden,      &d->pooled,   &d->labels,      &d->moe.logits,
                            &d->moe.weights, &d->moe.gate, &d->moe.scratch, &d->moe.out,
                            &d->mla.q_a,     &d->mla.q,    &d->mla.latent};
    for (size_t i = 0; i < BY_COUNTOF(all); i++)
        d->b->free(d->b, all[i]->p);
    d->b->free(d->b, d->moe.experts);
    by_free(d->all_logits);
    by_free(d->is_fine);
    states_free_rounds(d);
    by_free(d->order);
    by_free(d->common);
}

static void free_kv(struct decoder *d) {
    for (uint32_t i = 0; d->layers && i < d->info.n_layers; i++) {
        struct layer *l = &d->layers[i];
        if (l->kv && l->kv_layer == i) d->b->kv_free(d->b, l->kv);
        l->kv = NULL;
        states_free(d, l->state);
    }
}

void model_close(struct model *m) {
    if (!m) return;
    struct decoder *d = &m->d;
    free_kv(d);
    free_buffers(d);
    if (d->rope) d->b->rope_free(d->b, d->rope);
    if (d->rope_local) d->b->rope_free(d->b, d->rope_local);
    weights_release(d);
    by_free(m->hidden);
    by_free(m);
}

/* ---- what the worker asks ---- */

const char *model_family(const struct model *m) {
    return m->d.info.family;
}

uint32_t model_n_vocab(const struct model *m) {
    return m->d.info.vocab;
}

uint32_t model_context_len(const struct model *m) {
    return m->d.context_len;
}

uint32_t model_hidden_size(const struct model *m) {
    return m->d.info.hidden;
}

uint32_t model_n_labels(const struct model *m) {
    return m->d.scores ? m->d.info.n_labels : 0;
}

bool model_is_encoder(const struct model *m) {
    return m->d.arch.is_encoder;
}

bool model_dir_is_encoder(const struct by_model_dir *dir) {
    const struct by_model_info *info = by_model_dir_info(dir);
    struct by_err err; /* model_open says it */
    struct arch arch;
    return info && !arch_make(&arch, info, by_model_dir_config(dir), &err) && arch.is_encoder;
}

size_t model_kv_page_bytes(const struct model *m) {
    const struct decoder *d = &m->d;
    size_t n = 0;
    for (uint32_t i = 0; i < d->info.n_layers; i++) {
        const struct layer *l = &d->layers[i];
        if (l->kv_layer == i && !l->state) n += d->b->kv_page_bytes(d->b, &l->heads->kv);
    }
    /* One where no layer has any: pages are counted all the same. */
    return n ? n : d->b->kv_page_bytes(d->b, &d->full_heads.kv);
}

size_t model_state_bytes(const struct model *m) {
    const struct by_model_info *info = &m->d.info;
    return states_bytes(info) * (info->n_layers - by_model_info_n_keyed(info));
}

/* A layer's part of the memory: pages of keys and values, or a state a slot. */
static bool layer_new(struct decoder *d, uint32_t i, uint32_t n_pages) {
    struct layer *l = &d->layers[i];
    if (l->state) return states_new(d, l->state);
    l->kv =
        l->kv_layer == i ? d->b->kv_new(d->b, &l->heads->kv, n_pages) : d->layers[l->kv_layer].kv;
    return l->kv;
}

int model_kv_new(struct model *m, uint32_t n_pages, uint32_t n_slots, uint32_t n_kept,
                 struct by_err *err) {
    struct decoder *d = &m->d;
    free_kv(d);
    d->n_slots = n_slots;
    d->n_kept = n_kept;
    for (uint32_t i = 0; i < d->info.n_layers; i++) {
        if (layer_new(d, i, n_pages)) continue;
        free_kv(d);
        const uint32_t page_size = d->full_heads.kv.page_size;
        double page = (double)model_kv_page_bytes(m);
        if (model_state_bytes(m))
            return by_fail(
                err, BY_ENOMEM,
                "no memory for a KV cache of %u pages of %u tokens and %u states: %.1f MB "
                "and %.1f MB",
                n_pages, page_size, n_slots + n_kept, page * n_pages / 1e6,
                (double)model_state_bytes(m) * (n_slots + n_kept) / 1e6);
        return by_fail(err, BY_ENOMEM,
                       "no memory for a KV cache of %u pages of %u tokens: %.1f MB; there was room "
                       "for about %.1f MB (%u tokens)",
                       n_pages, page_size, page * n_pages / 1e6,
                       page * n_pages * i / d->info.n_layers / 1e6,
                       (uint32_t)((double)n_pages * page_size * i / d->info.n_layers));
    }
    m->n_pages = n_pages;
    return 0;
}

/* ---- a step ---- */

void model_set_group(struct model *m, struct tp *tp) {
    m->d.tp = tp;
    m->d.tp_rc = 0;
}

bool model_has_group(const struct model *m) {
    return m->d.tp;
}

int model_forward(struct model *m, const struct model_step *s) {
    by_assert(m->n_pages > 0);
    m->n_rows = s->n_rows;
    return decoder_forward(&m->d, s);
}

/* The first n rows of a buffer as host memory; NULL: the device failed. */
static float *read_rows(const struct decoder *d, const struct buffer *b, uint32_t n) {
    return d->b->get ? d->b->get(d->b, b->p, (size_t)n * b->ld) : b->p;
}

float *model_logits_there(struct model *m, const uint32_t *rows, uint32_t n) {
    return decoder_logits(&m->d, rows, n) ? NULL : m->d.logits.p;
}

float *model_logits(struct model *m, const uint32_t *rows, uint32_t n) {
    if (decoder_logits(&m->d, rows, n)) return NULL;
    return read_rows(&m->d, &m->d.logits, n);
}

const float *model_scores(struct model *m, const uint32_t *rows, uint32_t n) {
    decoder_scores(&m->d, rows, n);
    return read_rows(&m->d, &m->d.labels, n);
}

const float *model_hidden(struct model *m, const uint32_t *rows, uint32_t n) {
    struct decoder *d = &m->d;
    const size_t width = d->info.hidden;
    if (!m->hidden) {
        m->hidden = by_alloc_array(d->rows_max, width * sizeof *m->hidden);
        d->hidden =
            (struct buffer){d->b->alloc(d->b, d->rows_max * width * sizeof(float)), d->info.hidden};
        by_assert(d->hidden.p);
    }
    decoder_hidden(d, m->n_rows);
    const float *all = read_rows(d, &d->hidden, m->n_rows);
    for (uint32_t i = 0; i < n && all; i++) {
        by_assert(rows[i] < m->n_rows);
        memcpy(m->hidden + i * width, all + rows[i] * width, width * sizeof *m->hidden);
    }
    if (!all) return NULL;
    return m->hidden;
}
