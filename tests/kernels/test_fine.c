/* Fine rows: int8 twice over. They are nearly exact, and which rows are fine changes no bit of any other. */
#include "common/base/mem.h"
#include "tests/kernels/ops_world.h"

#include <math.h>

enum { ROWS = 61, N_IN = 768, N_OUT = 80 };

struct run {
    float *x, *y;
    uint8_t is_fine[ROWS];
};

static void linear(struct backend *b, const struct sample *m, struct run *r, uint32_t first,
                   uint32_t n, bool is_solo) {
    struct weight *w = sample_weight(b, m);
    float *x = world_room(b, (size_t)ROWS * N_IN, 0), *y = world_room(b, (size_t)ROWS * N_OUT, 7);
    memcpy(x, r->x, (size_t)ROWS * N_IN * sizeof *x);
    struct op_linear o = {.w = w,
                          .x = x,
                          .x_ld = N_IN,
                          .y = y,
                          .y_ld = N_OUT,
                          .scale = 1,
                          .is_fine = r->is_fine,
                          .first = first,
                          .n = n};
    if (is_solo)
        RUN_OP_SOLO(b, linear, &o);
    else
        RUN_OP(b, linear, &o);
    memcpy(r->y, y, (size_t)ROWS * N_OUT * sizeof *y);
    b->free(b, x);
    b->free(b, y);
    b->weight_free(b, w);
}

static struct run run_new(void) {
    struct run r = {.x = by_alloc_array(ROWS * N_IN, sizeof(float)),
                    .y = by_alloc_array(ROWS * N_OUT, sizeof(float))};
    world_floats(r.x, (size_t)ROWS * N_IN, 1);
    return r;
}

static void run_free(struct run *r) {
    by_free(r->x);
    by_free(r->y);
}

/* Mean square of the differences from the product in double, over rows i with is_fine[i] == want. */
static double error_of(const struct sample *m, const struct run *r, bool want) {
    double sum = 0;
    for (uint32_t i = 0; i < ROWS; i++) {
        for (uint32_t c = 0; c < N_OUT && r->is_fine[i] == want; c++) {
            double dot = 0;
            for (uint32_t k = 0; k < N_IN; k++)
                dot += (double)r->x[i * N_IN + k] * (double)m->values[(size_t)c * N_IN + k];
            double d = dot - (double)r->y[i * N_OUT + c];
            sum += d * d;
        }
    }
    return sum;
}

static const enum by_dtype types[] = {BY_DTYPE_Q4_0, BY_DTYPE_Q4_1, BY_DTYPE_Q8_0, BY_DTYPE_Q4_K,
                                      BY_DTYPE_Q6_K};

TEST(fine_rows_are_a_hundred_times_nearer) {
    UNUSED_STATE;
    for (size_t t = 0; t < BY_COUNTOF(types); t++) {
        struct sample *m = sample_new(types[t], N_OUT, N_IN);
        struct run r = run_new();
        linear(world.b, m, &r, 0, ROWS, false);
        double coarse = error_of(m, &r, false);
        memset(r.is_fine, 1, sizeof r.is_fine);
        linear(world.b, m, &r, 0, ROWS, false);
        assert_true(sqrt(error_of(m, &r, true) / coarse) < 0.01);
        run_free(&r);
        sample_free(m);
    }
}

TEST(a_row_keeps_its_bits_whichever_others_are_fine) {
    UNUSED_STATE;
    for (size_t t = 0; t < BY_COUNTOF(types); t++) {
        struct sample *m = sample_new(types[t], N_OUT, N_IN);
        struct run all = run_new(), some = run_new();
        float *coarse = by_alloc_array(ROWS * N_OUT, sizeof *coarse);
        memcpy(some.x, all.x, (size_t)ROWS * N_IN * sizeof *all.x);
        linear(world.b, m, &all, 0, ROWS, false);
        memcpy(coarse, all.y, (size_t)ROWS * N_OUT * sizeof *coarse);
        memset(all.is_fine, 1, sizeof all.is_fine);
        linear(world.b, m, &all, 0, ROWS, false);
        for (uint32_t i = 0; i < ROWS; i++)
            some.is_fine[i] = world_below(2) == 0;
        for (int way = 0; way < 3; way++) {
            struct backend *b = way == 2 ? world.one : world.b;
            linear(b, m, &some, 0, ROWS, way == 1);
            for (uint32_t i = 0; i < ROWS; i++)
                assert_same_bits(some.y + i * N_OUT, (some.is_fine[i] ? all.y : coarse) + i * N_OUT,
                                 N_OUT, "a row");
        }
        /* few rows, whose second halves come into the same tile */
        for (uint32_t n = 1, first = 0; first + n <= ROWS; first += n, n = n % 9 + 1) {
            linear(world.b, m, &some, first, n, n % 2);
            for (uint32_t i = first; i < first + n; i++)
                assert_same_bits(some.y + i * N_OUT, (some.is_fine[i] ? all.y : coarse) + i * N_OUT,
                                 N_OUT, "a row of few");
        }
        by_free(coarse);
        run_free(&all);
        run_free(&some);
        sample_free(m);
    }
}

TEST(a_fine_row_alone_has_the_same_bits_and_so_has_portable_c) {
    UNUSED_STATE;
    struct sample *m = sample_new(BY_DTYPE_Q4_1, N_OUT, N_IN);
    struct run many = run_new(), alone = run_new();
    memcpy(alone.x, many.x, (size_t)ROWS * N_IN * sizeof *many.x);
    memset(many.is_fine, 1, sizeof many.is_fine);
    memset(alone.is_fine, 1, sizeof alone.is_fine);
    linear(world.b, m, &many, 0, ROWS, false);
    for (uint32_t i = 0; i < ROWS; i += 7) {
        linear(world.b, m, &alone, i, 1, false);
        assert_same_bits(alone.y + i * N_OUT, many.y + i * N_OUT, N_OUT, "alone");
    }
    linear(world.portable, m, &alone, 0, ROWS, false);
    assert_same_bits(alone.y, many.y, ROWS * N_OUT, "portable C");
    run_free(&many);
    run_free(&alone);
    sample_free(m);
}

/* ---- experts ---- */

enum { EXPERTS = 3, USED = 2, HIDDEN = 96, FFN = 64 };

struct experts {
    struct sample *up[EXPERTS], *down[EXPERTS];
    float x[ROWS * HIDDEN], weights[ROWS * USED], y[ROWS * HIDDEN];
    uint32_t chosen[ROWS * USED];
    uint8_t is_fine[ROWS];
};

static void run_experts(struct backend *b, struct experts *e) {
    struct weight *up[EXPERTS], *down[EXPERTS];
    for (uint32_t i = 0; i < EXPERTS; i++) {
        up[i] = sample_weight(b, e->up[i]);
        down[i] = sample_weight(b, e->down[i]);
    }
    float *x = world_room(b, ROWS * HIDDEN, 0), *y = world_room(b, ROWS * HIDDEN, 0);
    float *scratch = world_room(b, ROWS * USED * (FFN + HIDDEN), NAN);
    memcpy(x, e->x, sizeof e->x);
    memset(y, 0, sizeof e->y);
    RUN_OP(b, experts,
           (&(struct op_experts){.gate_up = (const struct weight *const *)up,
                                 .down = (const struct weight *const *)down,
                                 .n_experts = EXPERTS,
                                 .n_used = USED,
                                 .experts = e->chosen,
                                 .weights = e->weights,
                                 .x = x,
                                 .x_ld = HIDDEN,
                                 .act = ACT_SILU,
                                 .y = y,
                                 .y_ld = HIDDEN,
                                 .scale = 1,
                                 .scratch = scratch,
                                 .is_fine = e->is_fine,
                                 .n = ROWS}));
    memcpy(e->y, y, sizeof e->y);
    b->free(b, x);
    b->free(b, y);
    b->free(b, scratch);
    for (uint32_t i = 0; i < EXPERTS; i++) {
        b->weight_free(b, up[i]);
        b->weight_free(b, down[i]);
    }
}

static double dot(const float *w, const double *x, uint32_t n) {
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += (double)w[i] * x[i];
    return sum;
}

/* Sum of squares of what a run is off from double precision. */
static double experts_error(const struct experts *e) {
    double sum = 0, x[HIDDEN], h[FFN];
    for (uint32_t r = 0; r < ROWS; r++) {
        double want[HIDDEN] = {0};
        for (uint32_t i = 0; i < HIDDEN; i++)
            x[i] = (double)e->x[r * HIDDEN + i];
        for (uint32_t k = r * USED; k < (r + 1) * USED; k++) {
            const float *up = e->up[e->chosen[k]]->values, *down = e->down[e->chosen[k]]->values;
            for (uint32_t i = 0; i < FFN; i++)
                h[i] = act_of(ACT_SILU, dot(up + i * HIDDEN, x, HIDDEN)) *
                       dot(up + (FFN + i) * HIDDEN, x, HIDDEN);
            for (uint32_t i = 0; i < HIDDEN; i++)
                want[i] += (double)e->weights[k] * dot(down + i * FFN, h, FFN);
        }
        for (uint32_t i = 0; i < HIDDEN; i++) {
            double d = want[i] - (double)e->y[r * HIDDEN + i];
            sum += d * d;
        }
    }
    return sum;
}

TEST(fine_rows_of_experts_are_nearer_and_leave_the_others_alone) {
    UNUSED_STATE;
    struct experts *e = by_alloc(sizeof *e);
    static float fine[ROWS * HIDDEN], coarse[ROWS * HIDDEN];
    for (uint32_t i = 0; i < EXPERTS; i++) {
        e->up[i] = sample_new(BY_DTYPE_Q8_0, 2 * FFN, HIDDEN);
        e->up[i]->src.is_gated = true;
        e->down[i] = sample_new(BY_DTYPE_Q8_0, HIDDEN, FFN);
    }
    world_floats(e->x, ROWS * HIDDEN, 1);
    world_floats(e->weights, ROWS * USED, 1);
    for (uint32_t i = 0; i < ROWS * USED; i++)
        e->chosen[i] = (i / USED + i % USED * (1 + i % 2)) % EXPERTS;
    run_experts(world.b, e);
    double off = experts_error(e);
    memcpy(coarse, e->y, sizeof coarse);
    memset(e->is_fine, 1, sizeof e->is_fine);
    run_experts(world.b, e);
    memcpy(fine, e->y, sizeof fine);
    assert_true(sqrt(experts_error(e) / off) < 0.02);
    for (uint32_t i = 0; i < ROWS; i++)
        e->is_fine[i] = world_below(2) == 0;
    for (int way = 0; way < 2; way++) {
        run_experts(way ? world.portable : world.b, e);
        for (uint32_t i = 0; i < ROWS; i++)
            assert_same_bits(e->y + i * HIDDEN, (e->is_fine[i] ? fine : coarse) + i * HIDDEN,
                             HIDDEN, way ? "portable C" : "a row of experts");
    }
    for (uint32_t i = 0; i < EXPERTS; i++) {
        sample_free(e->up[i]);
        sample_free(e->down[i]);
    }
    by_free(e);
}

int main(int argc, char **argv) {
    static const struct CMUnitTest tests[] = {
        RUN(fine_rows_are_a_hundred_times_nearer),
        RUN(a_row_keeps_its_bits_whichever_others_are_fine),
        RUN(a_fine_row_alone_has_the_same_bits_and_so_has_portable_c),
        RUN(fine_rows_of_experts_are_nearer_and_leave_the_others_alone),
    };
    return world_main(argc, argv, tests, BY_COUNTOF(tests));
}
