#include "gpu_worker/vectors.h"

#include "common/base/check.h"
#include "common/base/mem.h"

#include <math.h>

enum { SCORES_AT_A_TIME = 64 };

/* The mean of a prompt that comes in chunks. */
struct sum {
    double *of; /* [n_embed] */
    uint32_t n; /* positions in it */
};

struct vectors {
    struct model *model;
    struct vectors_plan plan;
    uint32_t n_slots, rows_max;
    struct vectors_rows *rows; /* [n_slots], of this step */
    uint32_t n;
    uint32_t *hidden_rows; /* [rows_max]: of the step, those whose state is asked for */
    struct sum *sums;      /* [n_slots]; room for one is made when it is first needed, and kept */
};

struct vectors *vectors_new(struct model *m, const struct vectors_plan *plan, uint32_t n_slots,
                            uint32_t rows_max) {
    struct vectors *v = by_alloc(sizeof *v);
    *v = (struct vectors){.model = m, .plan = *plan, .n_slots = n_slots, .rows_max = rows_max};
    v->rows = by_alloc_array(n_slots, sizeof *v->rows);
    v->hidden_rows = by_alloc_array(rows_max, sizeof *v->hidden_rows);
    v->sums = by_alloc_array(n_slots, sizeof *v->sums);
    return v;
}

void vectors_free(struct vectors *v) {
    if (!v) return;
    for (uint32_t i = 0; i < v->n_slots; i++)
        by_free(v->sums[i].of);
    by_free(v->sums);
    by_free(v->hidden_rows);
    by_free(v->rows);
    by_free(v);
}

void vectors_begin(struct vectors *v) {
    v->n = 0;
}

void vectors_add(struct vectors *v, const struct vectors_rows *rows) {
    by_assert(v->n < v->n_slots);
    v->rows[v->n++] = *rows;
}

bool vectors_any(const struct vectors *v) {
    return v->n > 0;
}

/* ---- embeddings ---- */

static bool is_mean(const struct vectors *v, const struct vectors_rows *r) {
    return r->want == VECTOR_EMBEDDING && v->plan.pooling == POOLING_MEAN;
}

/* Rows of r whose hidden state is needed: [from, from + n) of its own. */
static uint32_t rows_of(const struct vectors *v, const struct vectors_rows *r, uint32_t *from) {
    *from = 0;
    if (r->want != VECTOR_EMBEDDING) return 0;
    if (is_mean(v, r)) return r->n;
    if (v->plan.pooling == POOLING_CLS) return r->is_last && r->position == 0;
    *from = r->n - 1;
    return r->is_last;
}

static void add_to_sum(struct sum *s, const struct vectors_rows *r, const float *hidden,
                       uint32_t width) {
    if (!s->of) s->of = by_alloc_array(width, sizeof *s->of);
    if (r->position == 0) {
        memset(s->of, 0, width * sizeof *s->of);
        s->n = 0;
    }
    if (s->n != r->position) return; /* not from the start: never to be a mean */
    for (uint32_t i = 0; i < r->n; i++) {
        for (uint32_t k = 0; k < width; k++)
            s->of[k] += (double)hidden[(size_t)i * width + k];
    }
    s->n += r->n;
}

/* x / |x|; false when that is no number. Of zeros only: zeros. */
static bool normalize(const double *x, uint32_t n, float *out) {
    double sq = 0;
    for (uint32_t i = 0; i < n; i++)
        sq += x[i] * x[i];
    double length = sqrt(sq);
    for (uint32_t i = 0; i < n; i++)
        out[i] = length > 0 ? (float)(x[i] / length) : 0;
    return isfinite(length);
}

static bool pool(struct vectors *v, const struct vectors_rows *r, const float *hidden,
                 double *scratch, float *out) {
    uint32_t width = v->plan.n_embed;
    const struct sum *s = &v->sums[r->slot];
    for (uint32_t i = 0; i < width; i++)
        scratch[i] = is_mean(v, r) ? s->of[i] / s->n : (double)hidden[i];
    return normalize(scratch, width, out);
}

static void put(struct msg_slot_vector *out, uint32_t *n_out, uint32_t slot, const float *values,
                uint32_t n) {
    out[(*n_out)++] = (struct msg_slot_vector){.slot = slot, .values = {values, n}};
}

static bool embed_all(struct vectors *v, struct by_arena *arena, bool *is_broken,
                      struct msg_slot_vector *out, uint32_t *n_out) {
    uint32_t n_rows = 0, from, width = v->plan.n_embed;
    for (uint32_t i = 0; i < v->n; i++) {
        uint32_t n = rows_of(v, &v->rows[i], &from);
        for (uint32_t k = 0; k < n; k++)
            v->hidden_rows[n_rows++] = v->rows[i].first_row + from + k;
    }
    if (!n_rows) return true;
    const float *hidden = model_hidden(v->model, v->hidden_rows, n_rows);
    if (!hidden) return false;
    double *scratch = by_arena_get_array(arena, width, sizeof *scratch);
    for (uint32_t i = 0; i < v->n; i++) {
        const struct vectors_rows *r = &v->rows[i];
        uint32_t n = rows_of(v, r, &from);
        if (!n) continue;
        if (is_mean(v, r)) add_to_sum(&v->sums[r->slot], r, hidden, width);
        bool is_whole = !is_mean(v, r) || v->sums[r->slot].n == r->position + r->n;
        if (r->is_last && is_whole) {
            float *values = by_arena_get_array(arena, width, sizeof *values);
            if (!pool(v, r, hidden, scratch, values)) is_broken[r->slot] = true;
            put(out, n_out, r->slot, values, width);
        }
        hidden += (size_t)n * width;
    }
    return true;
}

/* ---- scores ---- */

static bool activate(enum score_kind kind, const float *x, uint32_t n, float *out) {
    double max = (double)x[0], sum = 0;
    bool is_finite = true;
    for (uint32_t i = 0; i < n; i++) {
        is_finite &= isfinite(x[i]) != 0;
        max = BY_MAX(max, (double)x[i]);
    }
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)x[i] - max);
    for (uint32_t i = 0; i < n; i++) {
        double l = (double)x[i];
        out[i] = (float)(kind == SCORE_SIGMOID   ? 1 / (1 + exp(-l))
                         : kind == SCORE_SOFTMAX ? exp(l - max) / sum
                                                 : l);
    }
    return is_finite;
}

static bool score_group(struct vectors *v, struct by_arena *arena, const uint32_t *slots,
                        const uint32_t *rows, uint32_t n, bool *is_broken,
                        struct msg_slot_vector *out, uint32_t *n_out) {
    uint32_t n_labels = v->plan.n_labels;
    if (!n) return true;
    const float *labels = model_scores(v->model, rows, n);
    if (!labels) return false;
    for (uint32_t i = 0; i < n; i++) {
        float *values = by_arena_get_array(arena, n_labels, sizeof *values);
        if (!activate(v->plan.score, labels + (size_t)i * n_labels, n_labels, values))
            is_broken[slots[i]] = true;
        put(out, n_out, slots[i], values, n_labels);
    }
    return true;
}

static bool score_all(struct vectors *v, struct by_arena *arena, bool *is_broken,
                      struct msg_slot_vector *out, uint32_t *n_out) {
    uint32_t slots[SCORES_AT_A_TIME], rows[SCORES_AT_A_TIME], n = 0;
    for (uint32_t i = 0; i < v->n; i++) {
        const struct vectors_rows *r = &v->rows[i];
        if (r->want != VECTOR_SCORES || !r->is_last || r->position) continue;
        slots[n] = r->slot;
        rows[n++] = r->first_row;
        if (n < SCORES_AT_A_TIME) continue;
        if (!score_group(v, arena, slots, rows, n, is_broken, out, n_out)) return false;
        n = 0;
    }
    return score_group(v, arena, slots, rows, n, is_broken, out, n_out);
}

bool vectors_compute(struct vectors *v, struct by_arena *arena, bool *is_broken,
                     struct msg_slot_vector **out, uint32_t *n_out) {
    *n_out = 0;
    *out = by_arena_get_array(arena, BY_MAX(v->n, 1u), sizeof **out);
    if (v->plan.n_embed && !embed_all(v, arena, is_broken, *out, n_out)) return false;
    return !v->plan.n_labels || score_all(v, arena, is_broken, *out, n_out);
}
