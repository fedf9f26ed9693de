/* naive_backend.h - backend.h in the plainest C there is: one lane, f32 weights, double sums, no blocks, no packing.
 *
 *     models over naive == goldens       the model code is right
 *     cpu over ops == naive              a backend is right (to a tolerance: its sums run in another order)
 *
 * Always: slow and obvious. An f32 model or one that is dequantised exactly; f32 keys and values.
 * Owner: the test program. */
#ifndef TESTS_MODELS_NAIVE_BACKEND_H
#define TESTS_MODELS_NAIVE_BACKEND_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gpu_worker/backend.h"

struct lane {
    uint32_t next;
};
struct weight {
    uint32_t n_out, n_in;
    bool is_gated;
    float *w, *bias;
};
struct rope_table {
    uint32_t n_rot, n_positions;
    float *cos, *sin; /* [n_positions, n_rot / 2] */
};

static void *naive_alloc(struct backend *b, size_t n) {
    (void)b;
    return calloc(1, n + 1);
}
static void naive_free(struct backend *b, void *p) {
    (void)b;
    free(p);
}
static const float *naive_put(struct backend *b, const float *host, size_t n) {
    float *p = naive_alloc(b, n * sizeof *p);
    memcpy(p, host, n * sizeof *p);
    return p;
}

static int naive_weight_new(struct backend *b, struct weight **out, const struct weight_source *s,
                            struct by_err *err) {
    struct weight *w = calloc(1, sizeof *w);
    size_t row_bytes;
    *w = (struct weight){s->n_out, s->n_in, s->is_gated,
                         malloc((size_t)s->n_out * s->n_in * sizeof(float)), NULL};
    if (!by_dtype_row_bytes(s->dtype, s->n_in, &row_bytes))
        return by_fail(err, BY_EINVAL, "rows are no whole blocks");
    void *row = malloc(row_bytes);
    for (uint32_t r = 0; r < s->n_out; r++) {
        s->row(s->ctx, r, row);
        by_dtype_to_f32(s->dtype, row, w->w + (size_t)r * s->n_in, s->n_in);
    }
    free(row);
    if (s->bias) w->bias = (float *)(uintptr_t)naive_put(b, s->bias, s->n_out);
    *out = w;
    return 0;
}
static void naive_weight_free(struct backend *b, struct weight *w) {
    (void)b;
    if (!w) return;
    free(w->w);
    free(w->bias);
    free(w);
}

static struct rope_table *naive_rope_new(struct backend *b, const struct rope_source *s) {
    (void)b;
    struct rope_table *t = calloc(1, sizeof *t);
    uint32_t half = s->n_rot / 2;
    *t = (struct rope_table){s->n_rot, s->n_positions, malloc((size_t)s->n_positions * half * 4),
                             malloc((size_t)s->n_positions * half * 4)};
    for (size_t i = 0; i < (size_t)s->n_positions * half; i++) {
        double a = (double)(i / half) * (double)s->inv_freq[i % half];
        t->cos[i] = (float)(cos(a) * (double)s->mscale);
        t->sin[i] = (float)(sin(a) * (double)s->mscale);
    }
    return t;
}
static void naive_rope_free(struct backend *b, struct rope_table *t) {
    (void)b;
    if (!t) return;
    free(t->cos);
    free(t->sin);
    free(t);
}

/* keys [token slot][kv head][k_dim], then values */
static size_t naive_kv_page_bytes(const struct backend *b, const struct kv_shape *s) {
    (void)b;
    return (size_t)s->page_size * s->n_kv_heads * (s->k_dim + s->v_dim) * sizeof(float);
}
static void *naive_kv_new(struct backend *b, const struct kv_shape *s, uint32_t n_pages) {
    return naive_alloc(b, naive_kv_page_bytes(b, s) * n_pages);
}
static float *naive_slot(void *pool, const struct kv_shape *s, const struct seq_rows *q,
                         uint32_t token, uint32_t head) {
    size_t page = q->pages[token / s->page_size],
           each = (size_t)s->n_kv_heads * (s->k_dim + s->v_dim);
    return (float *)pool + (page * s->page_size + token % s->page_size) * each +
           (size_t)head * (s->k_dim + s->v_dim);
}

static void naive_run(struct backend *b, void (*fn)(struct lane *l, void *ctx), void *ctx) {
    (void)b;
    struct lane l = {0};
    fn(&l, ctx);
}
static uint32_t naive_lane_id(const struct lane *l) {
    (void)l;
    return 0;
}
static void naive_lane_solo(struct lane *l, bool on) {
    (void)l;
    (void)on;
}
static uint32_t naive_lane_next(struct lane *l, uint32_t n) {
    return l->next < n ? l->next++ : UINT32_MAX;
}
static void naive_barrier(struct lane *l) {
    l->next = 0;
}

static void naive_norm_row(const struct norm *n, const float *x, float *y, uint32_t width) {
    double sum = 0, sq = 0, mean = 0;
    if (!n) {
        memmove(y, x, width * sizeof *y);
        return;
    }
    for (uint32_t i = 0; i < width; i++)
        sum += (double)x[i];
    if (n->kind == NORM_LAYER) mean = sum / width;
    for (uint32_t i = 0; i < width; i++)
        sq += ((double)x[i] - mean) * ((double)x[i] - mean);
    double inv = 1 / sqrt(sq / width + (double)n->eps);
    for (uint32_t i = 0; i < width; i++)
        y[i] =
            (float)(((double)x[i] - mean) * inv * (double)n->w[i] + (n->b ? (double)n->b[i] : 0));
}

static double naive_act(enum act_kind a, double x) {
    switch (a) {
    case ACT_SILU:
        return x / (1 + exp(-x));
    case ACT_GELU:
        return 0.5 * x * (1 + erf(x / sqrt(2)));
    case ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    case ACT_RELU:
        return x > 0 ? x : 0;
    case ACT_RELU2:
        return x > 0 ? x * x : 0;
    case ACT_TANH:
        return tanh(x);
    case ACT_QUICK_GELU:
        return x / (1 + exp(-1.702 * x));
    default:
        return x;
    }
}

static double naive_dot(const struct weight *w, uint32_t r, const float *x) {
    double sum = w->bias ? (double)w->bias[r] : 0;
    for (uint32_t i = 0; i < w->n_in; i++)
        sum += (double)w->w[(size_t)r * w->n_in + i] * (double)x[i];
    return sum;
}

/* One row through a matrix and its activation; y has n_out (or half) columns. */
static void naive_row(const struct weight *w, enum act_kind act, const float *x, double *y) {
    uint32_t n = w->is_gated ? w->n_out / 2 : w->n_out;
    for (uint32_t i = 0; i < n; i++) {
        double g = naive_dot(w, i, x), u = w->is_gated ? naive_dot(w, n + i, x) : 1;
        if (act == ACT_SWIGLU_OAI) {
            g = fmin(g, 7);
            u = fmax(fmin(u, 7), -7);
            y[i] = g / (1 + exp(-1.702 * g)) * (u + 1);
        } else {
            y[i] = naive_act(act, g) * u;
        }
    }
}

static void naive_embed(struct lane *l, const struct op_embed *o) {
    (void)l;
    for (uint32_t r = o->first; r < o->first + o->n; r++) {
        uint32_t n = o->table->n_in;
        for (uint32_t i = 0; i < n; i++) {
            float v = o->table->w[(size_t)o->ids[r] * n + i] * o->scale;
            if (o->pos_table)
                v += o->pos_table->w[(size_t)(o->positions[r] + o->pos_offset) * n + i];
            if (o->type_table) v += o->type_table->w[(size_t)(o->types ? o->types[r] : 0) * n + i];
            o->out[(size_t)r * o->ld + i] = v;
        }
    }
}

static void naive_linear(struct lane *l, const struct op_linear *o) {
    (void)l;
    uint32_t n = o->w->is_gated ? o->w->n_out / 2 : o->w->n_out;
    float *x = malloc(o->w->n_in * sizeof *x);
    double *v = malloc(n * sizeof *v);
    for (uint32_t r = o->first; r < o->first + o->n; r++) {
        size_t from = o->rows ? o->rows[r] : r;
        naive_norm_row(o->norm, o->x + from * o->x_ld + o->x_col, x, o->w->n_in);
        naive_row(o->w, o->act, x, v);
        float *y = o->y + (size_t)r * o->y_ld + o->y_col;
        uint32_t n_out = o->out_n ? o->out_n : n;
        for (uint32_t i = 0; i < n_out; i++) {
            double s = v[o->out_first + i] * (double)o->scale;
            if (o->softcap > 0) s = (double)o->softcap * tanh(s / (double)o->softcap);
            y[i] = (float)(o->is_add ? (double)y[i] + s : s);
        }
    }
    free(x);
    free(v);
}

static void naive_linear_heads(struct lane *l, const struct op_linear_heads *o) {
    (void)l;
    for (uint32_t r = o->first; r < o->first + o->n; r++) {
        for (uint32_t h = 0; h < o->n_heads; h++) {
            const float *x = o->x + (size_t)r * o->x_ld + o->x_col + h * o->x_step;
            float *y = o->y + (size_t)r * o->y_ld + o->y_col + h * o->y_step;
            for (uint32_t i = 0; i < o->w[h]->n_out; i++)
                y[i] = (float)naive_dot(o->w[h], i, x);
            if (o->n_copy) memcpy(y + o->y_copy_col, x + o->x_copy_col, o->n_copy * sizeof *y);
        }
    }
}

static void naive_norm(struct lane *l, const struct op_norm *o) {
    (void)l;
    float *v = malloc(o->width * sizeof *v);
    const uint32_t n_parts = o->n_parts ? o->n_parts : 1;
    for (uint32_t k = o->first * n_parts; k < (o->first + o->n) * n_parts; k++) {
        const uint32_t r = k / n_parts, col = k % n_parts * o->width;
        naive_norm_row(o->norm, o->x + (size_t)r * o->x_ld + o->x_col + col, v, o->width);
        float *y = o->y + (size_t)r * o->y_ld + o->y_col + col;
        for (uint32_t i = 0; i < o->width; i++)
            y[i] = o->is_add ? y[i] + o->scale * v[i] : o->scale * v[i];
    }
    free(v);
}

static void naive_turn(const struct op_kv_write *o, float *head, uint32_t position) {
    uint32_t half = o->rope->n_rot / 2;
    for (uint32_t i = 0; i < half; i++) {
        float c = o->rope->cos[(size_t)position * half + i],
              s = o->rope->sin[(size_t)position * half + i];
        float *a = head + (o->is_interleaved ? 2 * i : i),
              *b = o->is_interleaved ? a + 1 : a + half, x = *a, y = *b;
        *a = x * c - y * s;
        *b = y * c + x * s;
    }
}

static void naive_kv_row(const struct op_kv_write *o, const struct seq_rows *q, uint32_t r) {
    const struct kv_shape *kv = &o->kv;
    float *row = o->x + (size_t)r * o->ld, *qs = row + o->q_col, *ks = row + o->k_col;
    uint32_t position = o->positions[r], token = q->position + (r - q->first);
    if (o->qk_whole && o->q_norm) naive_norm_row(o->q_norm, qs, qs, o->n_heads * o->q_dim);
    if (o->qk_whole && o->k_norm) naive_norm_row(o->k_norm, ks, ks, kv->n_kv_heads * kv->k_dim);
    const float grown =
        o->q_growth.every
            ? 1 + o->q_growth.beta * logf(1 + floorf((float)position / (float)o->q_growth.every))
            : 1;
    for (uint32_t h = 0; h < o->n_heads; h++) {
        float *p = qs + (size_t)h * o->q_dim;
        if (o->rope && o->norm_is_last) naive_turn(o, p + o->q_rot_col, position);
        if (!o->qk_whole && o->q_norm) naive_norm_row(o->q_norm, p, p, o->q_dim);
        if (o->rope && !o->norm_is_last) naive_turn(o, p + o->q_rot_col, position);
        for (uint32_t i = 0; i < o->q_dim; i++)
            p[i] *= grown;
    }
    for (uint32_t h = 0; h < kv->n_kv_heads; h++) {
        float *p = ks + (size_t)h * kv->k_dim, *slot = naive_slot(o->pool, kv, q, token, h);
        if (o->rope && o->norm_is_last) naive_turn(o, p + o->k_rot_col, position);
        if (!o->qk_whole && o->k_norm) naive_norm_row(o->k_norm, p, p, kv->k_dim);
        if (o->rope && !o->norm_is_last) naive_turn(o, p + o->k_rot_col, position);
        memcpy(slot, p, kv->k_dim * sizeof *slot);
        memcpy(slot + kv->k_dim, row + o->v_col + (size_t)h * kv->v_dim, kv->v_dim * sizeof *slot);
    }
}

static void naive_kv_write(struct lane *l, const struct op_kv_write *o) {
    (void)l;
    for (uint32_t i = 0; i < o->n_seqs; i++) {
        const struct seq_rows *q = &o->seqs[i];
        for (uint32_t r = q->first; r < q->first + q->n; r++) {
            if (r >= o->first && r < o->first + o->n) naive_kv_row(o, q, r);
        }
    }
}

static void naive_attend(const struct op_attention *o, const struct seq_rows *q, uint32_t r,
                         uint32_t h, double *p) {
    const struct kv_shape *kv = &o->kv;
    uint32_t at = q->position + (r - q->first), n = o->is_full ? q->position + q->n : at + 1;
    uint32_t from = o->window && at + 1 > o->window ? at + 1 - o->window : 0,
             kh = h / (o->n_heads / kv->n_kv_heads);
    const float *query = o->q + (size_t)r * o->q_ld + o->q_col + (size_t)h * kv->k_dim;
    double top = o->sinks ? (double)o->sinks[h] : -INFINITY, sum = 0;
    for (uint32_t t = from; t < n; t++) {
        const float *k = naive_slot((void *)(uintptr_t)o->pool, kv, q, t, kh);
        p[t] = 0;
        for (uint32_t i = 0; i < kv->k_dim; i++)
            p[t] += (double)query[i] * (double)k[i];
        p[t] *= (double)o->scale;
        if (o->softcap > 0) p[t] = (double)o->softcap * tanh(p[t] / (double)o->softcap);
        top = fmax(top, p[t]);
    }
    if (o->sinks) sum = exp((double)o->sinks[h] - top);
    for (uint32_t t = from; t < n; t++)
        sum += p[t] = exp(p[t] - top);
    float *out = o->out + (size_t)r * o->out_ld + o->out_col + (size_t)h * kv->v_dim;
    for (uint32_t i = 0; i < kv->v_dim; i++) {
        double v = 0;
        for (uint32_t t = from; t < n; t++)
            v += p[t] * (double)naive_slot((void *)(uintptr_t)o->pool, kv, q, t, kh)[kv->k_dim + i];
        out[i] = (float)(v / sum);
    }
}

static void naive_attention(struct lane *l, const struct op_attention *o) {
    (void)l;
    for (uint32_t i = 0; i < o->n_seqs; i++) {
        const struct seq_rows *q = &o->seqs[i];
        double *p = malloc((q->position + q->n) * sizeof *p);
        for (uint32_t r = q->first; r < q->first + q->n; r++) {
            for (uint32_t h = 0; h < o->n_heads && r >= o->first && r < o->first + o->n; h++)
                naive_attend(o, q, r, h, p);
        }
        free(p);
    }
}

static double naive_group_rank(const struct op_route *o, const double *choice, uint32_t g) {
    uint32_t n = o->n_experts / o->n_groups;
    double best = -INFINITY, second = -INFINITY;
    for (uint32_t e = g * n; e < (g + 1) * n; e++) {
        if (choice[e] > best) {
            second = best;
            best = choice[e];
        } else if (choice[e] > second) {
            second = choice[e];
        }
    }
    return o->group_by_top2 ? best + second : best;
}

/* Experts outside the best groups can not be chosen. */
static void naive_limit_groups(const struct op_route *o, double *choice) {
    uint32_t n = o->n_experts / o->n_groups;
    double *rank = malloc(o->n_groups * sizeof *rank);
    for (uint32_t g = 0; g < o->n_groups; g++)
        rank[g] = naive_group_rank(o, choice, g);
    for (uint32_t g = 0; g < o->n_groups; g++) {
        uint32_t better = 0;
        for (uint32_t k = 0; k < o->n_groups; k++)
            better += rank[k] > rank[g] || (rank[k] == rank[g] && k < g);
        for (uint32_t e = g * n; better >= o->n_groups_used && e < (g + 1) * n; e++)
            choice[e] = -INFINITY;
    }
    free(rank);
}

static void naive_route(struct lane *l, const struct op_route *o) {
    (void)l;
    double *score = malloc(o->n_experts * sizeof *score),
           *choice = malloc(o->n_experts * sizeof *choice);
    for (uint32_t r = o->first; r < o->first + o->n; r++) {
        const float *x = o->logits + (size_t)r * o->logits_ld;
        double top = -INFINITY, sum = 0, chosen = 0;
        for (uint32_t e = 0; e < o->n_experts; e++)
            top = fmax(top, (double)x[e]);
        for (uint32_t e = 0; e < o->n_experts; e++)
            sum += exp((double)x[e] - top);
        for (uint32_t e = 0; e < o->n_experts; e++) {
            score[e] = o->is_sigmoid ? 1 / (1 + exp(-(double)x[e])) : exp((double)x[e] - top) / sum;
            choice[e] = score[e] + (o->choice_bias ? (double)o->choice_bias[e] : 0);
        }
        if (o->n_groups > 1) naive_limit_groups(o, choice);
        for (uint32_t k = 0; k < o->n_used; k++) {
            uint32_t best = 0;
            for (uint32_t e = 1; e < o->n_experts; e++)
                best = choice[e] > choice[best] ? e : best;
            o->experts[(size_t)r * o->n_used + k] = best;
            choice[best] = -INFINITY;
            chosen += score[best];
        }
        for (uint32_t k = 0; k < o->n_used; k++) {
            double w = score[o->experts[(size_t)r * o->n_used + k]];
            if (o->norm_topk) w /= chosen;
            if (o->weight_scale)
                w *= (double)o->weight_scale[o->experts[(size_t)r * o->n_used + k]];
            o->weights[(size_t)r * o->n_used + k] = (float)(w * (double)o->scale);
        }
    }
    free(score);
    free(choice);
}

static void naive_experts(struct lane *l, const struct op_experts *o) {
    (void)l;
    uint32_t n_in = o->gate_up[0]->n_in, ffn = o->gate_up[0]->n_out / 2, n_out = o->down[0]->n_out;
    float *x = malloc(n_in * sizeof *x), *h = malloc(ffn * sizeof *h);
    double *v = malloc((ffn + n_out) * sizeof *v), *sum = malloc(n_out * sizeof *sum);
    for (uint32_t r = o->first; r < o->first + o->n; r++) {
        naive_norm_row(o->norm, o->x + (size_t)r * o->x_ld, x, n_in);
        memset(sum, 0, n_out * sizeof *sum);
        for (uint32_t k = 0; k < o->n_used; k++) {
            uint32_t e = o->experts[(size_t)r * o->n_used + k];
            naive_row(o->gate_up[e], o->act, x, v);
            for (uint32_t i = 0; i < ffn; i++)
                h[i] = (float)v[i];
            naive_row(o->down[e], ACT_NONE, h, v);
            for (uint32_t i = 0; i < n_out; i++)
                sum[i] += (double)o->weights[(size_t)r * o->n_used + k] * v[i];
        }
        for (uint32_t i = 0; i < n_out; i++)
            o->y[(size_t)r * o->y_ld + i] += (float)((double)o->scale * sum[i]);
    }
    free(x);
    free(h);
    free(v);
    free(sum);
}

static void naive_gate(struct lane *l, const struct op_gate *o) {
    (void)l;
    for (uint32_t r = o->first; r < o->first + o->n; r++) {
        const float *gate = o->gate + (size_t)r * o->gate_ld + o->gate_col;
        for (uint32_t i = 0; i < o->width; i++) {
            const double g = (double)gate[o->is_by_column ? i : 0];
            o->x[(size_t)r * o->ld + i] *= (float)(o->is_plain ? g : 1 / (1 + exp(-g)));
        }
    }
}

static void naive_memory(const struct backend *b, struct backend_memory *out) {
    (void)b;
    *out = (struct backend_memory){0};
}
static void naive_close(struct backend *b) {
    (void)b;
}

static struct backend *naive_backend(void) {
    static struct backend b = {
        .name = "naive",
        .n_lanes = 1,
        .alloc = naive_alloc,
        .free = naive_free,
        .put = naive_put,
        .weight_new = naive_weight_new,
        .weight_free = naive_weight_free,
        .rope_new = naive_rope_new,
        .rope_free = naive_rope_free,
        .kv_page_bytes = naive_kv_page_bytes,
        .kv_new = naive_kv_new,
        .kv_free = naive_free,
        .run = naive_run,
        .lane_id = naive_lane_id,
        .lane_solo = naive_lane_solo,
        .lane_next = naive_lane_next,
        .barrier = naive_barrier,
        .embed = naive_embed,
        .linear = naive_linear,
        .linear_heads = naive_linear_heads,
        .norm = naive_norm,
        .kv_write = naive_kv_write,
        .attention = naive_attention,
        .route = naive_route,
        .experts = naive_experts,
        .gate = naive_gate,
        .memory = naive_memory,
        .close = naive_close,
    };
    return &b;
}

#endif
