/* Ops that go row by row: embedding, norm, gate, and the choice of experts. */
#include "common/base/check.h"
#include "common/modelfile/model_info.h"
#include "gpu_worker/cpu/cpu.h"

#include <math.h>

void cpu_embed(struct lane *l, const struct op_embed *o) {
    struct cpu_share share = cpu_share(l, o->n);
    for (uint32_t i = cpu_share_next(&share); i != UINT32_MAX; i = cpu_share_next(&share)) {
        uint32_t r = o->first + i;
        float *out = o->out + (size_t)r * o->ld;
        cpu_weight_row(o->table, o->ids[r], o->scale, false, out);
        if (o->pos_table)
            cpu_weight_row(o->pos_table, o->positions[r] + o->pos_offset, 1, true, out);
        if (o->type_table) cpu_weight_row(o->type_table, o->types ? o->types[r] : 0, 1, true, out);
    }
    cpu_meet(l);
}

void cpu_norm(struct lane *l, const struct op_norm *o) {
    struct cpu_share share = cpu_share(l, o->n);
    for (uint32_t i = cpu_share_next(&share); i != UINT32_MAX; i = cpu_share_next(&share)) {
        size_t r = o->first + i;
        const float *x = o->x + r * o->x_ld + o->x_col;
        float *y = o->y + r * o->y_ld + o->y_col;
        for (uint32_t k = 0; k < BY_MAX(o->n_parts, 1u); k++) {
            const size_t at = (size_t)k * o->width;
            struct norm own = o->norm ? *o->norm : (struct norm){0};
            if (o->parts_differ) own.w += at;
            l->cpu->k->norm(o->norm ? &own : NULL, x + at, o->width, y + at, o->is_add, o->scale);
        }
    }
    cpu_meet(l);
}

void cpu_gate(struct lane *l, const struct op_gate *o) {
    struct cpu_share share = cpu_share(l, o->n);
    for (uint32_t i = cpu_share_next(&share); i != UINT32_MAX; i = cpu_share_next(&share)) {
        size_t r = o->first + i;
        float *x = o->x + r * o->ld;
        const float *gate = o->gate + r * o->gate_ld + o->gate_col;
        if (o->is_plain) {
            for (uint32_t k = 0; k < o->width; k++)
                x[k] *= gate[k];
        } else if (o->is_by_column) {
            l->cpu->k->gate(x, gate, o->width);
        } else {
            l->cpu->k->scale(x, o->width, l->cpu->k->sigmoid(*gate));
        }
    }
    cpu_meet(l);
}

/* ---- the choice of experts: few numbers, so plain loops ---- */

static void scores_of(const struct op_route *o, const float *logits, float *scores) {
    float max = logits[0], sum = 0;
    for (uint32_t e = 1; e < o->n_experts; e++)
        max = BY_MAX(max, logits[e]);
    for (uint32_t e = 0; e < o->n_experts; e++) {
        scores[e] = o->is_sigmoid ? 1 / (1 + expf(-logits[e])) : expf(logits[e] - max);
        sum += scores[e];
    }
    for (uint32_t e = 0; e < o->n_experts && !o->is_sigmoid; e++)
        scores[e] /= sum;
}

/* The largest of n (ties: the first), and the largest but that one. */
static uint32_t top_two(const float *v, uint32_t n, float *first, float *second) {
    uint32_t at = 0;
    for (uint32_t i = 1; i < n; i++)
        if (v[i] > v[at]) at = i;
    *first = v[at];
    *second = -INFINITY;
    for (uint32_t i = 0; i < n; i++)
        if (i != at && v[i] > *second) *second = v[i];
    return at;
}

/* Experts outside the best groups are out of the choice (DeepSeek). */
static void keep_groups(const struct op_route *o, float *choice) {
    float best[BY_EXPERT_GROUPS_MAX];
    uint32_t each = o->n_experts / o->n_groups;
    for (uint32_t g = 0; g < o->n_groups; g++) {
        float first, second;
        top_two(choice + g * each, each, &first, &second);
        best[g] = o->group_by_top2 ? first + second : first;
    }
    for (uint32_t out = o->n_groups - o->n_groups_used; out > 0; out--) {
        uint32_t worst = 0; /* of equals the last goes */
        for (uint32_t g = 1; g < o->n_groups; g++)
            if (!(best[g] > best[worst])) worst = g;
        best[worst] = INFINITY;
        for (uint32_t e = 0; e < each; e++)
            choice[worst * each + e] = -INFINITY;
    }
}

static void weigh_chosen(const struct op_route *o, const float *scores, const uint32_t *experts,
                         float *weights) {
    float sum = 1e-20f; /* as DeepSeek's own code has it */
    for (uint32_t k = 0; k < o->n_used; k++) {
        weights[k] = scores[experts[k]];
        sum += weights[k];
    }
    for (uint32_t k = 0; k < o->n_used; k++) {
        if (o->norm_topk) weights[k] /= sum;
        weights[k] *= o->scale;
        if (o->weight_scale) weights[k] *= o->weight_scale[experts[k]];
    }
}

static void route_row(const struct op_route *o, uint32_t r) {
    float scores[BY_EXPERTS_MAX], choice[BY_EXPERTS_MAX];
    const float *logits = o->logits + (size_t)r * o->logits_ld;
    uint32_t *experts = o->experts + (size_t)r * o->n_used;
    scores_of(o, logits, scores);
    for (uint32_t e = 0; e < o->n_experts; e++)
        choice[e] = scores[e] + (o->choice_bias ? o->choice_bias[e] : 0);
    if (o->n_groups > 1) keep_groups(o, choice);
    for (uint32_t k = 0; k < o->n_used; k++) {
        float first, second;
        experts[k] = top_two(choice, o->n_experts, &first, &second);
        choice[experts[k]] = -INFINITY;
    }
    weigh_chosen(o, scores, experts, o->weights + (size_t)r * o->n_used);
}

void cpu_route(struct lane *l, const struct op_route *o) {
    by_assert(o->n_experts >= 1 && o->n_experts <= BY_EXPERTS_MAX);
    by_assert(o->n_used <= o->n_experts && o->n_groups <= BY_EXPERT_GROUPS_MAX);
    struct cpu_share share = cpu_share(l, o->n);
    for (uint32_t i = cpu_share_next(&share); i != UINT32_MAX; i = cpu_share_next(&share))
        route_row(o, o->first + i);
    cpu_meet(l);
}
