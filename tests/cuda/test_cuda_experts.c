/* Routing and experts of the CUDA backend, run by the emulator, against portable C with exact activations. */
#include <string.h>

#include "common/base/mem.h"
#include "tests/cuda/both.h"
#include "tests/cuda/rounding.h"

/* Row r of y as bf16 makes it, added up. */
static void rounded_experts(const struct op_experts *o, const struct both_weights *up,
                            const struct both_weights *down, uint32_t r, struct rounded *y) {
    const uint32_t hidden = down[0].sample->src.n_out, ffn = down[0].sample->src.n_in;
    struct rounded *x = by_alloc_array(hidden, sizeof *x), *mid = by_alloc_array(ffn, sizeof *mid);
    memset(y, 0, hidden * sizeof *y);
    rounded_norm(o->norm, o->x + (size_t)r * o->x_ld, hidden, x);
    for (uint32_t k = 0; k < o->n_used; k++) {
        uint32_t e = o->experts[r * o->n_used + k];
        double by = (double)(o->scale * o->weights[r * o->n_used + k]);
        for (uint32_t j = 0; j < ffn; j++)
            mid[j] = rounded_gate(o->act, rounded_sum(up[e].sample, j, x, up[e].bias),
                                  rounded_sum(up[e].sample, ffn + j, x, up[e].bias));
        for (uint32_t j = 0; j < hidden; j++) {
            struct rounded v = rounded_scale(rounded_sum(down[e].sample, j, mid, down[e].bias), by);
            y[j].off += v.off;
            y[j].square += v.square;
        }
    }
    by_free(x);
    by_free(mid);
}

static void check_rounded_experts(const struct op_experts *o, const struct both_weights *up,
                                  const struct both_weights *down, const struct pair *y) {
    const float *got = gpu->get(gpu, y->gpu, y->n);
    struct rounded *may = by_alloc_array(o->y_ld, sizeof *may);
    struct roundings all = {0};
    assert_non_null(got);
    for (uint32_t r = o->first; r < o->first + o->n; r++) {
        rounded_experts(o, up, down, r, may);
        for (uint32_t c = 0; c < o->y_ld; c++)
            rounding_check(&all, got[(size_t)r * o->y_ld + c], y->cpu[(size_t)r * o->y_ld + c],
                           &may[c], "experts");
    }
    roundings_check(&all, "experts");
    by_free(may);
}

/* tolerance 0: what bf16 loses. */
static void check_experts(enum by_dtype t, const struct op_route *like, enum act_kind act,
                          bool has_bias, uint32_t n_rows, double tolerance) {
    enum { HIDDEN = 64, FFN = 32 };
    const size_t rows = n_rows;
    uint32_t n_experts = like->n_experts, n_used = like->n_used;
    struct both_weights *up = by_alloc_array(n_experts, sizeof *up),
                        *down = by_alloc_array(n_experts, sizeof *down);
    const struct weight *tables[4][64];
    for (uint32_t e = 0; e < n_experts; e++) {
        up[e] = weights_new(t, 2 * FFN, HIDDEN, true, has_bias);
        down[e] = weights_new(t, HIDDEN, FFN, false, has_bias);
        tables[0][e] = up[e].cpu, tables[1][e] = up[e].gpu;
        tables[2][e] = down[e].cpu, tables[3][e] = down[e].gpu;
    }
    struct pair logits = pair_new(rows * (n_experts + 1), 2), weights = pair_new(rows * n_used, 1);
    struct pair bias = pair_new(n_experts, 0.3f), x = pair_new(rows * HIDDEN, 1),
                y = pair_new(rows * HIDDEN, 1);
    struct pair scratch = pair_new(rows * n_used * (FFN + HIDDEN), 1),
                ids = pair_new(rows * n_used, 0);
    struct both_norms s = norms_new(NORM_RMS, HIDDEN);
    struct op_route r = *like, q;
    r.logits = logits.cpu, r.logits_ld = n_experts + 1, r.weights = weights.cpu;
    r.choice_bias = like->choice_bias ? bias.cpu : NULL;
    r.weight_scale = like->weight_scale ? bias.cpu : NULL;
    r.experts = (uint32_t *)ids.cpu, r.first = 1, r.n = rows - 1;
    q = r;
    q.logits = logits.gpu, q.weights = weights.gpu, q.experts = (uint32_t *)ids.gpu;
    if (q.choice_bias) q.choice_bias = bias.gpu;
    if (q.weight_scale) q.weight_scale = bias.gpu;
    BOTH(route, &r, &q);
    pair_check(&weights, 5e-6, "weights of experts");
    const float *got = gpu->get(gpu, ids.gpu, ids.n);
    assert_memory_equal(got + n_used, ids.cpu + n_used, (rows - 1) * n_used * sizeof(uint32_t));
    struct op_experts a = {.gate_up = tables[0],
                           .down = tables[2],
                           .n_experts = n_experts,
                           .n_used = n_used,
                           .experts = r.experts,
                           .weights = r.weights,
                           .x = x.cpu,
                           .x_ld = HIDDEN,
                           .norm = &s.cpu,
                           .act = act,
                           .y = y.cpu,
                           .y_ld = HIDDEN,
                           .scale = 0.8f,
                           .scratch = scratch.cpu,
                           .first = 1,
                           .n = rows - 1};
    struct op_experts b = a;
    b.gate_up = tables[1], b.down = tables[3], b.experts = q.experts, b.weights = q.weights;
    b.x = x.gpu, b.norm = &s.gpu, b.y = y.gpu, b.scratch = scratch.gpu;
    BOTH(experts, &a, &b);
    if (tolerance > 0)
        pair_check(&y, tolerance, "experts");
    else
        check_rounded_experts(&a, up, down, &y);
    struct pair *all[] = {&logits, &weights, &bias, &x, &y, &scratch, &ids};
    for (size_t i = 0; i < BY_COUNTOF(all); i++)
        pair_free(all[i]);
    norms_free(&s);
    for (uint32_t e = 0; e < n_experts; e++) {
        weights_free(&up[e]);
        weights_free(&down[e]);
    }
    by_free(up);
    by_free(down);
}

TEST(experts_are_chosen_and_added_up) {
    UNUSED_STATE;
    static const float has;
    static const struct op_route ways[] = {
        {.n_experts = 8,
         .n_used = 2,
         .norm_topk = true,
         .n_groups = 1,
         .n_groups_used = 1,
         .scale = 1},
        {.n_experts = 6,
         .n_used = 3,
         .norm_topk = true,
         .n_groups = 1,
         .n_groups_used = 1,
         .scale = 1},
        {.n_experts = 5,
         .n_used = 2,
         .norm_topk = true,
         .weight_scale = &has,
         .n_groups = 1,
         .n_groups_used = 1,
         .scale = 1},
        {.n_experts = 40, .n_used = 1, .n_groups = 1, .n_groups_used = 1, .scale = 2.5f},
        {.n_experts = 12,
         .n_used = 4,
         .is_sigmoid = true,
         .norm_topk = true,
         .choice_bias = &has,
         .n_groups = 4,
         .n_groups_used = 2,
         .group_by_top2 = true,
         .scale = 2},
        {.n_experts = 9, .n_used = 2, .n_groups = 3, .n_groups_used = 1, .scale = 1}};
    for (uint32_t i = 0; i < BY_COUNTOF(ways); i++)
        check_experts(i % 2 ? BY_DTYPE_Q8_0 : BY_DTYPE_BF16, &ways[i],
                      i == 3 ? ACT_SWIGLU_OAI : ACT_SILU, i == 3, 7, 2e-5);
}

/* What lies between the members of an op's struct is no part of it: the same list comes again, and is a graph. */
static void route_lane(struct lane *l, void *ctx) {
    for (int i = 0; i < 8; i++)
        gpu->route(l, ctx);
}

TEST(a_list_with_routes_becomes_a_graph) {
    UNUSED_STATE;
    struct pair logits = pair_new(8, 1), weights = pair_new(2, 1);
    uint32_t *experts = gpu->alloc(gpu, 2 * sizeof *experts);
    const struct queue *q = ((const struct cuda *)gpu)->queue;
    uint64_t n_before = queue_counted(q).n_graph_runs;
    for (int i = 0; i < 4; i++) {
        struct op_route o;
        struct by_err err;
        memset(&o, i, sizeof o);
        o.logits = logits.gpu, o.logits_ld = o.n_experts = 8, o.n_used = 2;
        o.is_sigmoid = o.norm_topk = o.group_by_top2 = false;
        o.choice_bias = o.weight_scale = NULL, o.n_groups = o.n_groups_used = 1, o.scale = 1;
        o.experts = experts, o.weights = weights.gpu, o.first = 0, o.n = 1;
        gpu->run(gpu, route_lane, &o);
        assert_int_equal(gpu->wait(gpu, &err), 0);
    }
    assert_int_equal(queue_counted(q).n_graph_runs - n_before, 3);
    gpu->free(gpu, experts);
    pair_free(&logits);
    pair_free(&weights);
}

/* Slots of several warps and rounds of the sort, some experts with none. */
TEST(experts_share_out_many_slots) {
    UNUSED_STATE;
    static const struct op_route ways[] = {
        {.n_experts = 61, .n_used = 3, .n_groups = 1, .n_groups_used = 1, .scale = 1},
        {.n_experts = 64,
         .n_used = 4,
         .is_sigmoid = true,
         .n_groups = 8,
         .n_groups_used = 1,
         .scale = 1}};
    check_experts(BY_DTYPE_BF16, &ways[0], ACT_SILU, false, 151, 2e-5);
    check_experts(BY_DTYPE_BF16, &ways[1], ACT_SILU, false, 120, 2e-5);
}

/* Enough rows an expert; of three experts one has more than its blocks take at once. */
TEST(experts_take_many_rows_by_tiles) {
    UNUSED_STATE;
    static const struct op_route ways[] = {
        {.n_experts = 9,
         .n_used = 2,
         .norm_topk = true,
         .n_groups = 1,
         .n_groups_used = 1,
         .scale = 1},
        {.n_experts = 3, .n_used = 2, .n_groups = 1, .n_groups_used = 1, .scale = 1},
        {.n_experts = 2, .n_used = 1, .n_groups = 1, .n_groups_used = 1, .scale = 1}};
    static const enum by_dtype types[] = {BY_DTYPE_BF16, BY_DTYPE_Q8_0, BY_DTYPE_MXFP4};
    for (uint32_t i = 0; i < BY_COUNTOF(ways); i++)
        check_experts(types[i], &ways[i], i == 2 ? ACT_SWIGLU_OAI : ACT_SILU, i == 2, 60 + 77 * i,
                      0);
}

int main(void) {
    const struct CMUnitTest tests[] = {RUN(experts_are_chosen_and_added_up),
                                       RUN(experts_share_out_many_slots),
                                       RUN(experts_take_many_rows_by_tiles)};
    const struct CMUnitTest of_parts[] = {RUN(a_list_with_routes_becomes_a_graph)};
    int rc = WORLD_TESTS("lanes forward", tests, both_set_up, both_tear_down);
    rc += WORLD_TESTS("lanes backward", tests, both_set_up_reversed, both_tear_down);
    rc += WORLD_TESTS("parts, by tiles", of_parts, both_set_up, both_tear_down);
    unsetenv("BANYAN_EMU_GEMM");
    return rc + WORLD_TESTS("parts", of_parts, both_set_up, both_tear_down);
}
