#include "gpu_worker/models/delta.h"

#include "common/base/check.h"
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

/* ---- the rounds of a step ---- */

void delta_new_rounds(struct decoder *d) {
    struct rounds *x = &d->rounds;
    const size_t n = d->rows_max;
    if (!d->info.delta.n_v_heads) return;
    x->seqs = by_alloc_array(2 * n, sizeof *x->seqs);
    x->copies = by_alloc_array(2 * n, sizeof *x->copies);
    x->n_seqs = by_alloc_array(n + 1, sizeof *x->n_seqs);
    x->n_copies = by_alloc_array(n + 1, sizeof *x->n_copies);
}

void delta_free_rounds(struct decoder *d) {
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

void delta_plan(struct decoder *d, const struct model_step *s) {
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
    return (size_t)(m->delta.conv - 1) * delta_cols(m).z;
}

static size_t state_floats(const struct by_model_info *m) {
    return m->delta.n_v_heads * backend_delta_floats(m->delta.k_dim, m->delta.v_dim);
}

static void copy(const struct pass *p, const struct delta *x, const struct state_copy *pairs,
                 uint32_t n) {
    const struct by_model_info *m = &p->d->info;
    if (!n) return;
    struct op_copy op = {.p = x->windows, .ld = window_floats(m), .pairs = pairs, .n = n};
    p->d->b->copy(p->lane, &op);
    op.p = x->states;
    op.ld = state_floats(m);
    p->d->b->copy(p->lane, &op);
}

static void run_round(const struct pass *p, const struct delta *w, const struct seq_rows *seqs,
                      uint32_t n_seqs) {
    const struct decoder *d = p->d;
    const struct by_delta_info *x = &d->info.delta;
    const struct delta_cols c = delta_cols(&d->info);
    d->b->conv(p->lane, &(struct op_conv){.x = d->qkv.p,
                                          .ld = d->qkv.ld,
                                          .width = c.z,
                                          .w = w->conv,
                                          .size = x->conv,
                                          .act = d->arch.act,
                                          .windows = w->windows,
                                          .seqs = seqs,
                                          .n_seqs = n_seqs});
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

void delta_run(const struct pass *p, const struct layer *l) {
    const struct rounds *x = &p->d->rounds;
    const struct seq_rows *seqs = x->seqs;
    const struct state_copy *copies = x->copies;
    copy(p, l->delta, copies, x->n_starts);
    copies += x->n_starts;
    for (uint32_t i = 0; i < x->n; i++) {
        run_round(p, l->delta, seqs, x->n_seqs[i]);
        copy(p, l->delta, copies, x->n_copies[i]);
        seqs += x->n_seqs[i];
        copies += x->n_copies[i];
    }
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

size_t delta_state_bytes(const struct by_model_info *m) {
    if (!m->delta.n_v_heads) return 0;
    return (window_floats(m) + state_floats(m)) * sizeof(float);
}

bool delta_new_states(struct decoder *d, struct delta *x) {
    const size_t n = (size_t)d->n_slots + d->n_kept;
    x->windows = d->b->alloc(d->b, n * window_floats(&d->info) * sizeof(float));
    x->states = d->b->alloc(d->b, n * state_floats(&d->info) * sizeof(float));
    return x->windows && x->states;
}

void delta_free_states(struct decoder *d, struct delta *x) {
    if (!x) return;
    d->b->free(d->b, x->windows);
    d->b->free(d->b, x->states);
    x->windows = x->states = NULL;
}
