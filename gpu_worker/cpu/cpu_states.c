/* Ops with a state a slot: lanes share sequences and columns, or sequences and heads. A state is changed by one lane alone, row
 * after row. */
#include "common/base/check.h"
#include "common/modelfile/model_info.h"
#include "gpu_worker/cpu/cpu.h"

#include <string.h>

enum {
    CONV_COLUMNS = 256, /* of a piece */
    COPY_FLOATS = 1 << 16,
};

void cpu_conv(struct lane *l, const struct op_conv *o) {
    const uint32_t n_parts = BY_DIV_UP(o->width, (uint32_t)CONV_COLUMNS);
    by_assert(o->size >= 1 && o->size <= BY_CONV_MAX);
    struct cpu_share share = cpu_share(l, o->n_seqs * n_parts);
    for (uint32_t i = cpu_share_next(&share); i != UINT32_MAX; i = cpu_share_next(&share)) {
        const struct seq_rows *s = &o->seqs[i / n_parts];
        const uint32_t from = i % n_parts * CONV_COLUMNS;
        l->cpu->k->conv(
            &(struct cpu_conv){.x = o->x + (size_t)s->first * o->ld,
                               .ld = o->ld,
                               .n_rows = s->n,
                               .in_gate_col = o->in_gate_col,
                               .out_gate_col = o->out_gate_col,
                               .w = o->w,
                               .bias = o->bias,
                               .out = o->out + (size_t)s->first * o->out_ld,
                               .out_ld = o->out_ld,
                               .window = o->windows + (size_t)s->slot * (o->size - 1) * o->width,
                               .width = o->width,
                               .size = o->size,
                               .act = o->act,
                               .is_new = s->position == 0},
            from, BY_MIN(from + CONV_COLUMNS, o->width));
    }
    cpu_meet(l);
}

static void delta_head(struct lane *l, const struct op_delta *o, const struct seq_rows *s,
                       uint32_t h) {
    const uint32_t key_head = o->is_tiled ? h % o->n_k_heads : h / (o->n_v_heads / o->n_k_heads);
    const size_t each = backend_delta_floats(o->k_dim, o->v_dim);
    float *state = o->states + ((size_t)s->slot * o->n_v_heads + h) * each;
    if (s->position == 0) memset(state, 0, each * sizeof *state);
    l->cpu->k->delta(
        &(struct cpu_delta){.x = o->x + (size_t)s->first * o->ld,
                            .ld = o->ld,
                            .n_rows = s->n,
                            .q_col = key_head * o->k_dim,
                            .k_col = o->k_col + key_head * o->k_dim,
                            .v_col = o->v_col + h * o->v_dim,
                            .z_col = o->z_col + h * o->v_dim,
                            .b_col = o->b_col + h,
                            .a_col = o->a_col + h,
                            .k_dim = o->k_dim,
                            .v_dim = o->v_dim,
                            .decay = o->decay[h],
                            .dt = o->dt[h],
                            .norm = o->norm,
                            .state = state,
                            .out = o->out + (size_t)s->first * o->out_ld + (size_t)h * o->v_dim,
                            .out_ld = o->out_ld});
}

void cpu_delta(struct lane *l, const struct op_delta *o) {
    by_assert(o->n_v_heads % o->n_k_heads == 0);
    by_assert(o->k_dim <= BY_HEAD_DIM_MAX && o->v_dim <= BY_HEAD_DIM_MAX);
    struct cpu_share share = cpu_share(l, o->n_seqs * o->n_v_heads);
    for (uint32_t i = cpu_share_next(&share); i != UINT32_MAX; i = cpu_share_next(&share))
        delta_head(l, o, &o->seqs[i / o->n_v_heads], i % o->n_v_heads);
    cpu_meet(l);
}

static void ssm_head(struct lane *l, const struct op_ssm *o, const struct seq_rows *s, uint32_t h) {
    const uint32_t group = h / (o->n_heads / o->n_groups);
    const size_t each = backend_delta_floats(o->k_dim, o->v_dim);
    float *state = o->states + ((size_t)s->slot * o->n_heads + h) * each;
    if (s->position == 0) memset(state, 0, each * sizeof *state);
    l->cpu->k->ssm(
        &(struct cpu_ssm){.x = o->x + (size_t)s->first * o->ld,
                          .ld = o->ld,
                          .n_rows = s->n,
                          .x_col = h * o->v_dim,
                          .k_col = o->k_col + group * o->k_dim,
                          .q_col = o->q_col + group * o->k_dim,
                          .z_col = o->z_col + h * o->v_dim,
                          .t_col = o->t_col + h,
                          .k_dim = o->k_dim,
                          .v_dim = o->v_dim,
                          .decay = o->decay[h],
                          .dt = o->dt[h],
                          .skip = o->skip[h],
                          .step_min = o->step_min,
                          .step_max = o->step_max,
                          .state = state,
                          .out = o->out + (size_t)s->first * o->out_ld + (size_t)h * o->v_dim,
                          .out_ld = o->out_ld});
}

void cpu_ssm(struct lane *l, const struct op_ssm *o) {
    by_assert(o->n_heads % o->n_groups == 0);
    struct cpu_share share = cpu_share(l, o->n_seqs * o->n_heads);
    for (uint32_t i = cpu_share_next(&share); i != UINT32_MAX; i = cpu_share_next(&share))
        ssm_head(l, o, &o->seqs[i / o->n_heads], i % o->n_heads);
    cpu_meet(l);
}

void cpu_copy(struct lane *l, const struct op_copy *o) {
    const uint32_t n_parts = (uint32_t)BY_DIV_UP(o->ld, (size_t)COPY_FLOATS);
    struct cpu_share share = cpu_share(l, o->n * n_parts);
    for (uint32_t i = cpu_share_next(&share); i != UINT32_MAX; i = cpu_share_next(&share)) {
        const struct state_copy *c = &o->pairs[i / n_parts];
        const size_t at = (size_t)(i % n_parts) * COPY_FLOATS;
        memcpy(o->p + c->to * o->ld + at, o->p + c->from * o->ld + at,
               BY_MIN((size_t)COPY_FLOATS, o->ld - at) * sizeof *o->p);
    }
    cpu_meet(l);
}
