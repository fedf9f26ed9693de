/* The ops with a state a slot, run by the emulator, against portable C: what comes out, and the states that are left, step
 * after step; slots in any order, one that begins anew over NaN. */
#include "common/base/mem.h"
#include "tests/cuda/both.h"

#include <math.h>
#include <string.h>

enum { SLOTS = 4, SEQS = 3, ROWS = 24 };

/* Step i of three sequences: 8 rows each, in slots 2, 0, 3, from position 8 * i on; the last one begins anew each time. */
static void seqs_of(uint32_t step, struct seq_rows *seqs) {
    static const uint32_t slots[] = {2, 0, 3};
    for (uint32_t i = 0; i < SEQS; i++)
        seqs[i] = (struct seq_rows){
            .first = 8 * i, .n = 8, .position = i == 2 ? 0 : 8 * step, .slot = slots[i]};
}

static struct pair nan_pair(size_t n) {
    float *x = by_alloc_array(n, sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = NAN;
    struct pair p = pair_of(x, n);
    by_free(x);
    return p;
}

/* Gated: before and behind, into a buffer of its own, with a bias. */
static void check_conv(uint32_t width, uint32_t size, enum act_kind act, bool is_gated) {
    const uint32_t ld = width * (is_gated ? 3 : 1) + 3;
    struct pair w = pair_new((size_t)size * width, 0.7f), bias = pair_new(width, 0.7f),
                windows = nan_pair((size_t)SLOTS * size * width);
    for (uint32_t step = 0; step < 3; step++) {
        struct seq_rows seqs[SEQS];
        struct pair x = pair_new((size_t)ROWS * ld, 1), out = pair_new((size_t)ROWS * ld, 1);
        seqs_of(step, seqs);
        struct op_conv a = {.x = x.cpu,
                            .ld = ld,
                            .width = width,
                            .in_gate_col = is_gated ? width + 1 : 0,
                            .out_gate_col = is_gated ? 2 * width + 3 : 0,
                            .w = w.cpu,
                            .bias = is_gated ? bias.cpu : NULL,
                            .size = size,
                            .act = act,
                            .windows = windows.cpu,
                            .out = is_gated ? out.cpu : x.cpu,
                            .out_ld = ld,
                            .seqs = seqs,
                            .n_seqs = SEQS};
        struct op_conv b = a;
        b.x = x.gpu, b.w = w.gpu, b.windows = windows.gpu;
        b.bias = is_gated ? bias.gpu : NULL, b.out = is_gated ? out.gpu : x.gpu;
        BOTH(conv, &a, &b);
        pair_check(is_gated ? &out : &x, 2e-6, "conv");
        pair_free(&x);
        pair_free(&out);
    }
    pair_free(&w);
    pair_free(&bias);
    pair_free(&windows);
}

TEST(a_convolution_goes_on_from_its_window) {
    UNUSED_STATE;
    check_conv(300, 4, ACT_SILU, false);
    check_conv(33, 1, ACT_NONE, false);
    check_conv(130, 3, ACT_GELU, false);
    check_conv(40, 7, ACT_SILU, true);
    check_conv(260, 3, ACT_NONE, true);
}

struct heads {
    uint32_t n_k, n_v, k_dim, v_dim;
    bool is_tiled;
};

static void check_step(const struct heads *c, struct op_delta a, struct op_delta b, uint32_t step) {
    struct seq_rows seqs[SEQS];
    struct pair x = pair_new((size_t)ROWS * a.ld, 1), out = pair_new((size_t)ROWS * a.out_ld, 1);
    seqs_of(step, seqs);
    a.x = x.cpu, a.out = out.cpu, a.seqs = seqs;
    b.x = x.gpu, b.out = out.gpu, b.seqs = seqs;
    BOTH(delta, &a, &b);
    pair_check(&out, 5e-6, "delta");
    assert_true(c->n_v * c->v_dim < a.out_ld);
    pair_free(&x);
    pair_free(&out);
}

static void check_delta(const struct heads *c) {
    const uint32_t k = c->n_k * c->k_dim, v = c->n_v * c->v_dim;
    struct both_norms norm = norms_new(NORM_RMS, c->v_dim);
    struct pair decay = pair_new(c->n_v, 1), dt = pair_new(c->n_v, 1),
                states = nan_pair(SLOTS * c->n_v * backend_delta_floats(c->k_dim, c->v_dim));
    struct op_delta a = {.ld = 2 * k + 2 * v + 2 * c->n_v,
                         .k_col = k,
                         .v_col = 2 * k,
                         .z_col = 2 * k + v,
                         .b_col = 2 * k + 2 * v,
                         .a_col = 2 * k + 2 * v + c->n_v,
                         .n_k_heads = c->n_k,
                         .n_v_heads = c->n_v,
                         .k_dim = c->k_dim,
                         .v_dim = c->v_dim,
                         .is_tiled = c->is_tiled,
                         .decay = decay.cpu,
                         .dt = dt.cpu,
                         .norm = &norm.cpu,
                         .states = states.cpu,
                         .out_ld = v + 1,
                         .n_seqs = SEQS};
    struct op_delta b = a;
    b.decay = decay.gpu, b.dt = dt.gpu, b.norm = &norm.gpu, b.states = states.gpu;
    for (uint32_t h = 0; h < c->n_v; h++) /* decays: below 0 */
        decay.cpu[h] = -fabsf(decay.cpu[h]);
    b.decay = gpu->put(gpu, decay.cpu, c->n_v);
    for (uint32_t step = 0; step < 3; step++)
        check_step(c, a, b, step);
    gpu->free(gpu, (float *)(uintptr_t)b.decay);
    pair_free(&decay);
    pair_free(&dt);
    pair_free(&states);
    norms_free(&norm);
}

TEST(a_state_goes_on_row_after_row) {
    UNUSED_STATE;
    static const struct heads cases[] = {{2, 4, 16, 16, false},
                                         {1, 2, 128, 128, false},
                                         {2, 6, 17, 40, true},
                                         {1, 1, 128, 40, false},
                                         {1, 3, 8, 7, false}};
    for (size_t i = 0; i < BY_COUNTOF(cases); i++)
        check_delta(&cases[i]);
}

static void check_ssm(const struct heads *c, float step_max) {
    const uint32_t v = c->n_v * c->v_dim, k = c->n_k * c->k_dim, ld = 2 * (v + k) + c->n_v;
    struct pair decay = pair_new(c->n_v, 1), dt = pair_new(c->n_v, 1), skip = pair_new(c->n_v, 1),
                states = nan_pair(SLOTS * c->n_v * backend_delta_floats(c->k_dim, c->v_dim));
    for (uint32_t h = 0; h < c->n_v; h++) /* decays: below 0 */
        decay.cpu[h] = -fabsf(decay.cpu[h]);
    const float *gpu_decay = gpu->put(gpu, decay.cpu, c->n_v);
    for (uint32_t step = 0; step < 3; step++) {
        struct seq_rows seqs[SEQS];
        struct pair x = pair_new((size_t)ROWS * ld, 1), out = pair_new((size_t)ROWS * (v + 1), 1);
        seqs_of(step, seqs);
        struct op_ssm a = {.x = x.cpu,
                           .ld = ld,
                           .k_col = v,
                           .q_col = v + k,
                           .z_col = v + 2 * k,
                           .t_col = 2 * (v + k),
                           .n_groups = c->n_k,
                           .n_heads = c->n_v,
                           .k_dim = c->k_dim,
                           .v_dim = c->v_dim,
                           .decay = decay.cpu,
                           .dt = dt.cpu,
                           .skip = skip.cpu,
                           .step_min = 0.1f,
                           .step_max = step_max,
                           .states = states.cpu,
                           .out = out.cpu,
                           .out_ld = v + 1,
                           .seqs = seqs,
                           .n_seqs = SEQS};
        struct op_ssm b = a;
        b.x = x.gpu, b.decay = gpu_decay, b.dt = dt.gpu, b.skip = skip.gpu;
        b.states = states.gpu, b.out = out.gpu;
        BOTH(ssm, &a, &b);
        pair_check(&out, 5e-6, "ssm");
        pair_free(&x);
        pair_free(&out);
    }
    gpu->free(gpu, (float *)(uintptr_t)gpu_decay);
    pair_free(&decay);
    pair_free(&dt);
    pair_free(&skip);
    pair_free(&states);
}

TEST(a_state_space_goes_on_row_after_row) {
    UNUSED_STATE;
    static const struct heads cases[] = {{1, 4, 16, 16, false},
                                         {1, 2, 128, 64, false},
                                         {2, 6, 17, 40, false},
                                         {1, 1, 128, 40, false},
                                         {1, 3, 8, 7, false}};
    for (size_t i = 0; i < BY_COUNTOF(cases); i++)
        check_ssm(&cases[i], i % 2 ? 0.8f : INFINITY);
}

TEST(states_are_copied_whole) {
    UNUSED_STATE;
    static const struct state_copy pairs[] = {{0, 3}, {2, 1}};
    struct pair p = pair_new(4 * 9001, 1);
    struct op_copy a = {.p = p.cpu, .ld = 9001, .pairs = pairs, .n = 2};
    struct op_copy b = a;
    b.p = p.gpu;
    BOTH(copy, &a, &b);
    assert_true(memcmp(p.cpu, p.cpu + 3 * 9001, 9001 * sizeof *p.cpu) == 0);
    pair_check(&p, 0, "copy");
    pair_free(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        RUN(a_convolution_goes_on_from_its_window), RUN(a_state_goes_on_row_after_row),
        RUN(a_state_space_goes_on_row_after_row), RUN(states_are_copied_whole)};
    int rc = WORLD_TESTS("lanes forward", tests, both_set_up, both_tear_down);
    return rc + WORLD_TESTS("lanes backward", tests, both_set_up_reversed, both_tear_down);
}
