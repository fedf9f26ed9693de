#include "gpu_worker/models/states.h"

#include "common/base/check.h"
#include "common/base/mem.h"
#include "gpu_worker/models/delta.h"
#include "gpu_worker/models/mamba.h"
#include "gpu_worker/models/short_conv.h"

#include <math.h>

/* What differs between the kinds. */
static const struct {
    struct state_cols (*cols)(const struct by_model_info *m);
    void (*round)(const struct pass *p, const struct state_layer *x, const struct seq_rows *seqs,
                  uint32_t n_seqs);
    void (*finish)(const struct pass *p, const struct state_layer *x); /* or NULL */
    int (*bind)(struct binder *b, struct layer *l, uint32_t layer);    /* all but the way out */
} kinds[] = {
    [BY_STATE_DELTA] = {delta_state_cols, delta_round, NULL, delta_bind},
    [BY_STATE_SHORT_CONV] = {short_conv_cols, short_conv_round, NULL, short_conv_bind},
    [BY_STATE_MAMBA] = {mamba_cols, mamba_round, mamba_finish, mamba_bind},
};

struct state_cols states_cols(const struct by_model_info *m) {
    return m->state.kind ? kinds[m->state.kind].cols(m) : (struct state_cols){0};
}

/* ---- the rounds of a step ---- */

void states_new_rounds(struct decoder *d) {
    struct rounds *x = &d->rounds;
    const size_t n = d->rows_max;
    if (!d->info.state.kind) return;
    x->seqs = by_alloc_array(2 * n, sizeof *x->seqs);
    x->copies = by_alloc_array(2 * n, sizeof *x->copies);
    x->n_seqs = by_alloc_array(n + 1, sizeof *x->n_seqs);
    x->n_copies = by_alloc_array(n + 1, sizeof *x->n_copies);
}

void states_free_rounds(struct decoder *d) {
    by_free(d->rounds.seqs);
    by_free(d->rounds.copies);
    by_free(d->rounds.n_seqs);
    by_free(d->rounds.n_copies);
}

/* The sequence's rows behind the first `from`, up to the next place where it is kept. */
static struct seq_rows part_of(const struct model_step *s, uint32_t seq, uint32_t from) {
    struct seq_rows part = s->seqs[seq];
    uint32_t end = part.n;
    for (uint32_t i = 0; i < s->n_keeps; i++) {
        if (s->keeps[i].seq == seq && s->keeps[i].n > from) end = BY_MIN(end, s->keeps[i].n);
    }
    part.first += from;
    part.position += from;
    part.n = end - from;
    return part;
}

void states_plan(struct decoder *d, const struct model_step *s) {
    struct rounds *x = &d->rounds;
    struct seq_rows *out = x->seqs;
    struct state_copy *next = x->copies;
    by_assert(s->n_keeps <= d->rows_max && s->n_starts <= d->rows_max);
    x->n_starts = s->n_starts;
    for (uint32_t i = 0; i < s->n_starts; i++) {
        by_assert(s->starts[i].from < d->n_kept && s->starts[i].to < d->n_slots);
        *next++ = (struct state_copy){d->n_slots + s->starts[i].from, s->starts[i].to};
    }
    uint32_t n_left = s->n_rows;
    for (x->n = 0; n_left; x->n++) {
        struct seq_rows *first = out;
        struct state_copy *first_copy = next;
        for (uint32_t q = 0; q < s->n_seqs; q++) {
            uint32_t done = 0; /* by the rounds before */
            for (const struct seq_rows *p = x->seqs; x->n && p < first; p++)
                done += p->slot == s->seqs[q].slot ? p->n : 0;
            if (done == s->seqs[q].n) continue;
            by_assert(s->seqs[q].slot < d->n_slots);
            *out = part_of(s, q, done);
            done += out->n;
            n_left -= out++->n;
            for (uint32_t i = 0; i < s->n_keeps; i++) {
                if (s->keeps[i].seq != q || s->keeps[i].n != done) continue;
                by_assert(s->keeps[i].to < d->n_kept);
                *next++ = (struct state_copy){s->seqs[q].slot, d->n_slots + s->keeps[i].to};
            }
        }
        x->n_seqs[x->n] = (uint32_t)(out - first);
        x->n_copies[x->n] = (uint32_t)(next - first_copy);
    }
}

/* ---- forward ---- */

static size_t window_floats(const struct by_model_info *m) {
    return (size_t)(m->state.conv - 1) * by_model_info_conv_cols(m);
}

static size_t state_floats(const struct by_model_info *m) {
    return m->state.n_v_heads * backend_delta_floats(m->state.k_dim, m->state.v_dim);
}

static void copy(const struct pass *p, const struct state_layer *x, const struct state_copy *pairs,
                 uint32_t n) {
    const struct by_model_info *m = &p->d->info;
    if (!n) return;
    struct op_copy op = {.p = x->windows, .ld = window_floats(m), .pairs = pairs, .n = n};
    p->d->b->copy(p->lane, &op);
    if (!x->states) return;
    op.p = x->states;
    op.ld = state_floats(m);
    p->d->b->copy(p->lane, &op);
}

void states_run(const struct pass *p, const struct layer *l) {
    const struct rounds *x = &p->d->rounds;
    const enum by_state_kind kind = p->d->info.state.kind;
    const struct seq_rows *seqs = x->seqs;
    const struct state_copy *copies = x->copies;
    copy(p, l->state, copies, x->n_starts);
    copies += x->n_starts;
    for (uint32_t i = 0; i < x->n; i++) {
        kinds[kind].round(p, l->state, seqs, x->n_seqs[i]);
        copy(p, l->state, copies, x->n_copies[i]);
        seqs += x->n_seqs[i];
        copies += x->n_copies[i];
    }
}

void states_conv(const struct pass *p, const struct state_layer *x, const struct seq_rows *seqs,
                 uint32_t n_seqs) {
    const struct decoder *d = p->d;
    d->b->conv(p->lane, &(struct op_conv){.x = d->qkv.p,
                                          .ld = d->qkv.ld,
                                          .width = by_model_info_conv_cols(&d->info),
                                          .w = x->conv,
                                          .bias = x->conv_bias,
                                          .size = d->info.state.conv,
                                          .act = d->arch.act,
                                          .windows = x->windows,
                                          .out = d->qkv.p,
                                          .out_ld = d->qkv.ld,
                                          .seqs = seqs,
                                          .n_seqs = n_seqs});
}

void states_finish(const struct pass *p, const struct layer *l) {
    const enum by_state_kind kind = p->d->info.state.kind;
    if (kinds[kind].finish) kinds[kind].finish(p, l->state);
}

/* ---- weights ---- */

/* [columns, size] in the file, turned so that columns lie side by side. */
int states_bind_conv(struct binder *b, struct state_layer *x, uint32_t layer) {
    const uint32_t n = by_model_info_conv_cols(&b->d->info), size = b->d->info.state.conv;
    float *w = NULL;
    int rc = bind_read(b, &w,
                       &(struct bind_vector){.role = ROLE_STATE_CONV,
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
    if (rc || !b->d->info.state.has_conv_bias) return rc;
    return bind_put(
        b, &x->conv_bias,
        &(struct bind_vector){.role = ROLE_STATE_CONV, .suffix = ".bias", .layer = layer, .n = n});
}

struct bind_vector states_by_head(const struct by_model_info *m, enum role role, uint32_t layer) {
    const uint32_t n = m->state.n_v_heads;
    struct bind_vector v = {.role = role, .suffix = "", .layer = layer, .n = n};
    const bool is_column = m->is_gguf && m->state.kind == BY_STATE_MAMBA && role != ROLE_STATE_DT;
    if (is_column) v.n = 1, v.n_slices = n, v.wants_all = true;
    return v;
}

int states_bind_decay(struct binder *b, struct state_layer *x, uint32_t layer) {
    const struct by_model_info *m = &b->d->info;
    const uint32_t n = m->state.n_v_heads;
    struct bind_vector v = states_by_head(m, ROLE_STATE_LOG_A, layer);
    float *decay = NULL;
    int rc = bind_read(b, &decay, &v);
    for (uint32_t i = 0; decay && i < n && !m->is_gguf; i++)
        decay[i] = (float)-exp((double)decay[i]);
    if (!rc) x->decay = b->d->b->put(b->d->b, decay, n);
    if (!rc && !x->decay) rc = by_fail(b->err, BY_ENOMEM, "no memory for %u numbers", n);
    by_free(decay);
    v = states_by_head(m, ROLE_STATE_DT, layer);
    return rc ? rc : bind_put(b, &x->dt, &v);
}

int states_bind(struct binder *b, struct layer *l, uint32_t layer) {
    const struct by_model_info *m = &b->d->info;
    l->state = by_alloc(sizeof *l->state);
    int rc = kinds[m->state.kind].bind(b, l, layer);
    if (rc) return rc;
    return bind_matrix(b, &l->o,
                       &(struct bind){.parts = {bind_whole(ROLE_STATE_OUT, m->hidden)},
                                      .n_parts = 1,
                                      .n_in = states_cols(m).out,
                                      .layer = layer,
                                      .no_bias = !m->state.has_bias});
}

void states_release(struct decoder *d, struct state_layer *x) {
    if (!x) return;
    const float *all[] = {x->conv, x->conv_bias, x->decay, x->dt, x->skip, x->norm.w};
    for (size_t i = 0; i < BY_COUNTOF(all); i++)
        d->b->free(d->b, (void *)(uintptr_t)all[i]);
    by_free(x);
}

/* ---- states ---- */

size_t states_bytes(const struct by_model_info *m) {
    if (!m->state.kind) return 0;
    return (window_floats(m) + state_floats(m)) * sizeof(float);
}

bool states_new(struct decoder *d, struct state_layer *x) {
    const size_t n = (size_t)d->n_slots + d->n_kept, heads = state_floats(&d->info);
    x->windows = d->b->alloc(d->b, n * window_floats(&d->info) * sizeof(float));
    if (heads) x->states = d->b->alloc(d->b, n * heads * sizeof(float));
    return x->windows && (x->states || !heads);
}

void states_free(struct decoder *d, struct state_layer *x) {
    if (!x) return;
    d->b->free(d->b, x->windows);
    d->b->free(d->b, x->states);
    x->windows = x->states = NULL;
}
