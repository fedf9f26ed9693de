/* Routing and experts: against double precision, on all lanes and solo. */
#include <math.h>
#include <string.h>

#include "common/base/mem.h"
#include "tests/kernels/ops_world.h"

TEST(routing_picks_the_best_and_weighs_them) {
    UNUSED_STATE;
    float logits[3][8] = {
        {0, 3, 1, 3, -1, 2, 0, 0}, {5, 5, 5, 5, 5, 5, 5, 5}, {-9, -8, 9, 0, 0, 0, 0, 8}};
    float bias[8] = {10, 0, 0, 0, 0, 0, 0, 0};
    uint32_t experts[9];
    float weights[9];
    struct op_route op = {.logits = logits[0],
                          .logits_ld = 8,
                          .n_experts = 8,
                          .n_used = 3,
                          .n_groups = 1,
                          .n_groups_used = 1,
                          .scale = 1,
                          .experts = experts,
                          .weights = weights,
                          .n = 3};
    RUN_OP(world.b, route, &op);
    static const uint32_t want[9] = {1, 3, 5, 0, 1, 2, 2, 7, 3};
    for (int i = 0; i < 9; i++)
        assert_int_equal(experts[i], want[i]);
    double sum = 4 * exp(0) - 1 + 2 * exp(3) + exp(1) + exp(-1) + exp(2);
    assert_near((double)weights[0], exp(3) / sum, 1e-6, 1, "softmax over all");
    assert_near((double)weights[2], exp(2) / sum, 1e-6, 1, "softmax over all");
    op.norm_topk = true;
    op.scale = 2;
    RUN_OP(world.b, route, &op);
    assert_near((double)weights[2], 2 * exp(2) / (2 * exp(3) + exp(2)), 1e-6, 1,
                "made to sum to 1, times scale");
    const float each[8] = {1, 1, 1, 1, 1, 7, 1, 1};
    op.weight_scale = each;
    RUN_OP(world.b, route, &op);
    assert_near((double)weights[2], 7 * 2 * exp(2) / (2 * exp(3) + exp(2)), 1e-6, 1,
                "and what the expert has for itself");
    op.weight_scale = NULL;
    op.norm_topk = false;
    op.scale = 1;
    op.is_sigmoid = true;
    op.choice_bias = bias;
    RUN_OP(world.b, route, &op);
    assert_int_equal(experts[0], 0);
    assert_near((double)weights[0], 0.5, 1e-6, 1, "the bias is for the choice only");
    op.choice_bias = NULL;
    op.n_groups = 4; /* {0 3} {1 3} {-1 2} {0 0}: groups 0 and 1 are best */
    op.n_groups_used = 2;
    RUN_OP(world.b, route, &op);
    assert_int_equal(experts[0], 1);
    assert_int_equal(experts[1], 3);
    assert_int_equal(experts[2], 2);
}

enum { E = 6, USED = 2, HIDDEN = 64, FFN = 32 };

/* A few experts and an op over rows 1 … n. */
struct mixture {
    struct sample *up[E], *down[E];
    struct weight *wu[E], *wd[E];
    struct norm norm;
    uint32_t *experts;
    float *weights, *x, *y, *scratch;
    struct op_experts op;
};

static void mixture_new(struct mixture *m, uint32_t n, enum by_dtype t) {
    for (int e = 0; e < E; e++) {
        m->up[e] = sample_new(t, 2 * FFN, HIDDEN);
        m->up[e]->src.is_gated = true;
        m->down[e] = sample_new(t, HIDDEN, FFN);
        m->wu[e] = sample_weight(world.b, m->up[e]);
        m->wd[e] = sample_weight(world.b, m->down[e]);
    }
    m->norm = world_norm_new(NORM_RMS, HIDDEN, false);
    m->experts = world.b->alloc(world.b, (n + 1) * USED * sizeof *m->experts);
    m->weights = world_room(world.b, (n + 1) * USED, 0);
    m->x = world_room(world.b, (n + 1) * HIDDEN, NAN);
    m->y = world_room(world.b, (n + 1) * HIDDEN, 1);
    m->scratch = world_room(world.b, (n + 1) * USED * (FFN + HIDDEN), NAN);
    world_floats(m->x + HIDDEN, n * HIDDEN, 1);
    world_floats(m->weights, (n + 1) * USED, 1);
    for (uint32_t i = 0; i < (n + 1) * USED; i++)
        m->experts[i] = (i / USED + i % USED * (1 + world_below(E - 1))) % E;
    m->op = (struct op_experts){.gate_up = (const struct weight *const *)m->wu,
                                .down = (const struct weight *const *)m->wd,
                                .n_experts = E,
                                .n_used = USED,
                                .experts = m->experts,
                                .weights = m->weights,
                                .x = m->x,
                                .x_ld = HIDDEN,
                                .norm = &m->norm,
                                .act = ACT_SILU,
                                .y = m->y,
                                .y_ld = HIDDEN,
                                .scale = 0.5f,
                                .scratch = m->scratch,
                                .first = 1,
                                .n = n};
}

static void mixture_free(struct mixture *m) {
    void *rooms[] = {m->experts, m->weights, m->x, m->y, m->scratch};
    for (size_t i = 0; i < BY_COUNTOF(rooms); i++)
        world.b->free(world.b, rooms[i]);
    world_norm_free(&m->norm);
    for (int e = 0; e < E; e++) {
        world.b->weight_free(world.b, m->wu[e]);
        world.b->weight_free(world.b, m->wd[e]);
        sample_free(m->up[e]);
        sample_free(m->down[e]);
    }
}

static void check_mixed_row(const struct mixture *m, uint32_t r, double tolerance) {
    double in[HIDDEN], mid[FFN], want[HIDDEN], off = 0, size = 0;
    for (uint32_t k = 0; k < HIDDEN; k++) {
        in[k] = world_norm_of(&m->norm, m->x + r * HIDDEN, HIDDEN, k);
        want[k] = 1;
    }
    for (uint32_t u = 0; u < USED; u++) {
        uint32_t e = m->experts[r * USED + u];
        for (uint32_t i = 0; i < FFN; i++)
            mid[i] = act_of(ACT_SILU, world_product_of(m->up[e], in, i)) *
                     world_product_of(m->up[e], in, FFN + i);
        for (uint32_t k = 0; k < HIDDEN; k++)
            want[k] +=
                0.5 * (double)m->weights[r * USED + u] * world_product_of(m->down[e], mid, k);
    }
    for (uint32_t k = 0; k < HIDDEN; k++) {
        double d = (double)m->y[r * HIDDEN + k] - want[k];
        off += d * d;
        size += want[k] * want[k];
    }
    assert_near(sqrt(off), 0, tolerance, sqrt(size), "a row of experts, as a whole");
}

static void check_experts(uint32_t n, enum by_dtype t, double tolerance) {
    struct mixture m;
    mixture_new(&m, n, t);
    RUN_OP(world.b, experts, &m.op);
    for (uint32_t r = 1; r <= n; r++)
        check_mixed_row(&m, r, tolerance);
    float *all = by_memdup(m.y, (n + 1) * HIDDEN * sizeof *all);
    for (uint32_t r = 1; r <= n; r++) { /* each row alone, solo */
        for (uint32_t k = 0; k < HIDDEN; k++)
            m.y[r * HIDDEN + k] = 1;
        m.op.first = r;
        m.op.n = 1;
        RUN_OP_SOLO(world.b, experts, &m.op);
    }
    assert_same_bits(m.y, all, (n + 1) * HIDDEN, "experts, one row at a time");
    by_free(all);
    mixture_free(&m);
}

TEST(experts_take_their_rows) {
    UNUSED_STATE;
    check_experts(1, BY_DTYPE_F32, 1e-5);
    check_experts(3, BY_DTYPE_F32, 1e-5);
    check_experts(200, BY_DTYPE_F32, 1e-5);
    /* int8 activations, thrice in a product: at most 0.041 with 24 seeds */
    check_experts(70, BY_DTYPE_Q8_0, 0.08);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {RUN(routing_picks_the_best_and_weighs_them),
                                       RUN(experts_take_their_rows)};
    return world_main(argc, argv, tests, BY_COUNTOF(tests));
}
