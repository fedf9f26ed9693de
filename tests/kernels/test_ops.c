/* Every op but attention: against double precision, against portable C, and against itself in other company. */
#include "common/base/mem.h"
#include "tests/kernels/ops_world.h"

#include <math.h>
#include <string.h>

static const enum by_dtype formats[] = {
    BY_DTYPE_F32,    BY_DTYPE_F16,   BY_DTYPE_BF16,   BY_DTYPE_Q4_0,    BY_DTYPE_Q4_1,
    BY_DTYPE_Q8_0,   BY_DTYPE_Q5_0,  BY_DTYPE_Q5_1,   BY_DTYPE_Q4_K,    BY_DTYPE_Q5_K,
    BY_DTYPE_Q6_K,   BY_DTYPE_Q2_K,  BY_DTYPE_Q3_K,   BY_DTYPE_IQ4_NL,  BY_DTYPE_MXFP4,
    BY_DTYPE_IQ4_XS, BY_DTYPE_IQ1_M, BY_DTYPE_IQ2_XS, BY_DTYPE_IQ3_XXS, BY_DTYPE_IQ3_S,
    BY_DTYPE_TQ1_0,
};

enum { ROWS = 131, COL = 3 };

/* A product to check: y[:, COL …] = x[:, COL …] . w^T, all around NaN. */
struct product {
    struct sample *m;
    struct weight *w;
    float *x, *y; /* [ROWS, ld] */
    uint32_t x_ld, y_ld, n_cols;
    struct op_linear op;
};

static struct product product_new(struct backend *b, struct sample *m, const float *x) {
    struct product p = {.m = m, .w = sample_weight(b, m)};
    p.n_cols = m->src.is_gated ? m->src.n_out / 2 : m->src.n_out;
    p.x_ld = m->src.n_in + COL + 5;
    p.y_ld = p.n_cols + COL + 2;
    p.x = world_room(b, (size_t)ROWS * p.x_ld, NAN);
    p.y = world_room(b, (size_t)ROWS * p.y_ld, 0.5f);
    for (uint32_t r = 0; r < ROWS; r++)
        memcpy(p.x + (size_t)r * p.x_ld + COL, x + (size_t)r * m->src.n_in,
               m->src.n_in * sizeof *x);
    p.op = (struct op_linear){.w = p.w,
                              .x = p.x,
                              .x_ld = p.x_ld,
                              .x_col = COL,
                              .y = p.y,
                              .y_ld = p.y_ld,
                              .y_col = COL,
                              .scale = 1,
                              .n = ROWS};
    return p;
}

static void product_free(struct backend *b, struct product *p) {
    b->free(b, p->x);
    b->free(b, p->y);
    b->weight_free(b, p->w);
}

/* Columns outside the op's are untouched. */
static void check_around(const struct product *p) {
    for (uint32_t r = 0; r < ROWS; r++) {
        for (uint32_t c = 0; c < p->y_ld; c++) {
            bool is_outside = c < COL || c >= COL + p->n_cols;
            if (is_outside && p->y[(size_t)r * p->y_ld + c] != 0.5f)
                fail_msg("row %u: column %u was written", r, c);
        }
    }
}

/* Sum and size (sum of magnitudes) of row r with output o. */
static double reference(const struct sample *m, const float *x, uint32_t o, bool is_int8,
                        double *size) {
    uint32_t n = m->src.n_in;
    double *v = by_alloc_array(n, sizeof *v), sum = 0;
    for (uint32_t i = 0; i < n; i++)
        v[i] = (double)x[i];
    if (is_int8) int8_values(x, n, v);
    *size = 1e-6;
    for (uint32_t i = 0; i < n; i++) {
        double term = v[i] * (double)m->values[(size_t)o * n + i];
        sum += term;
        *size += fabs(term);
    }
    by_free(v);
    return sum;
}

/* bf16 x bf16 rounds its activations to 8 bits of mantissa */
static double tolerance_of(enum by_dtype t) {
    return t == BY_DTYPE_BF16 && world.isa == CPU_ISA_AVX512 ? 1.0 / 128 : 2e-6;
}

static void against_double(enum by_dtype t, uint32_t n_out, uint32_t n_in) {
    struct sample *m = sample_new(t, n_out, n_in);
    float *x = by_alloc_array((size_t)ROWS * n_in, sizeof *x);
    world_floats(x, (size_t)ROWS * n_in, 1);
    struct product p = product_new(world.b, m, x);
    RUN_OP(world.b, linear, &p.op);
    check_around(&p);
    for (uint32_t r = 0; r < ROWS; r += 13) {
        for (uint32_t o = 0; o < n_out; o++) {
            double size,
                want = reference(m, x + (size_t)r * n_in, o, by_dtype_is_quantised(t), &size);
            assert_near((double)p.y[(size_t)r * p.y_ld + COL + o], want, tolerance_of(t), size,
                        by_dtype_name(t));
        }
    }
    product_free(world.b, &p);
    by_free(x);
    sample_free(m);
}

TEST(linear_equals_double_precision) {
    UNUSED_STATE;
    for (size_t i = 0; i < BY_COUNTOF(formats); i++) {
        against_double(formats[i], 16 * 5 + 7, 256);
        against_double(formats[i], 32, 768);
    }
    for (uint32_t n_in = 1; n_in <= 50; n_in += 7) {
        against_double(BY_DTYPE_F32, 19, n_in);
        against_double(BY_DTYPE_F16, 1, n_in);
        against_double(BY_DTYPE_BF16, 33, n_in);
    }
}

/* The rows [first, first + n) computed alone, by way, have the bits they have among all. */
static void check_part(const struct product *p, struct backend *b, const float *all, uint32_t first,
                       uint32_t n, bool is_solo) {
    struct op_linear op = p->op;
    for (size_t i = 0; i < (size_t)ROWS * p->y_ld; i++)
        p->y[i] = 0.5f;
    op.first = first;
    op.n = n;
    if (is_solo)
        RUN_OP_SOLO(b, linear, &op);
    else
        RUN_OP(b, linear, &op);
    for (uint32_t r = 0; r < ROWS; r++) {
        const float *got = p->y + (size_t)r * p->y_ld, *want = all + (size_t)r * p->y_ld;
        if (r >= first && r < first + n)
            assert_same_bits(got, want, p->y_ld, "a row alone");
        else if (got[COL] != 0.5f)
            fail_msg("row %u was written", r);
    }
}

static void in_any_company(enum by_dtype t, uint32_t n_out, uint32_t n_in, bool is_gated) {
    struct sample *m = sample_new(t, n_out, n_in);
    m->src.is_gated = is_gated;
    float *x = by_alloc_array((size_t)ROWS * n_in, sizeof *x), *all = NULL;
    world_floats(x, (size_t)ROWS * n_in, 1);
    struct product p = product_new(world.b, m, x), lone = product_new(world.one, m, x);
    p.op.act = lone.op.act = ACT_SILU;
    RUN_OP(world.b, linear, &p.op);
    check_around(&p);
    all = by_memdup(p.y, (size_t)ROWS * p.y_ld * sizeof *all);
    for (uint32_t n = 1; n <= 14; n++) {
        uint32_t first = world_below(ROWS - n);
        check_part(&p, world.b, all, first, n, false);
        check_part(&p, world.b, all, first, n, true);
    }
    check_part(&p, world.b, all, 0, ROWS, true);
    check_part(&p, world.b, all, 7, 100, false);
    check_part(&lone, world.one, all, 0, ROWS, false);
    product_free(world.one, &lone);
    product_free(world.b, &p);
    by_free(all);
    by_free(x);
    sample_free(m);
}

TEST(a_row_has_the_same_bits_in_any_company) {
    UNUSED_STATE;
    for (size_t i = 0; i < BY_COUNTOF(formats); i++) {
        in_any_company(formats[i], 16 * 9 + 5, 512, false);
        in_any_company(formats[i], 2 * 37, 256, true);
    }
    in_any_company(BY_DTYPE_F32, 50, 77, false);
    in_any_company(BY_DTYPE_BF16, 50, 77, false);
}

static void equals_portable(enum by_dtype t) {
    struct sample *m = sample_new(t, 16 * 4 + 3, 768);
    float *x = by_alloc_array((size_t)ROWS * 768, sizeof *x);
    world_floats(x, (size_t)ROWS * 768, 1);
    struct product p = product_new(world.b, m, x), q = product_new(world.portable, m, x);
    RUN_OP(world.b, linear, &p.op);
    RUN_OP(world.portable, linear, &q.op);
    assert_same_bits(p.y, q.y, (size_t)ROWS * p.y_ld, by_dtype_name(t));
    product_free(world.portable, &q);
    product_free(world.b, &p);
    by_free(x);
    sample_free(m);
}

/* All but bf16 times bf16, which only AVX-512 has. */
TEST(every_path_has_the_bits_of_portable_c) {
    UNUSED_STATE;
    for (size_t i = 0; i < BY_COUNTOF(formats); i++) {
        bool is_own = formats[i] == BY_DTYPE_BF16 && world.isa == CPU_ISA_AVX512;
        if (!is_own) equals_portable(formats[i]);
    }
}

/* A row with a NaN answers NaN (the sampler sees it), and its neighbours know nothing of it. */
static void nan_stays_in_its_row(enum by_dtype t) {
    struct sample *m = sample_new(t, 40, 256);
    float *x = by_alloc_array((size_t)ROWS * 256, sizeof *x);
    world_floats(x, (size_t)ROWS * 256, 1);
    for (uint32_t k = 0; k < 256; k += 32)
        x[50 * 256 + k] = NAN;
    struct product p = product_new(world.b, m, x);
    RUN_OP(world.b, linear, &p.op);
    for (uint32_t r = 0; r < ROWS; r++) {
        for (uint32_t o = 0; o < 40; o++)
            assert_true(isnan(p.y[(size_t)r * p.y_ld + COL + o]) == (r == 50));
    }
    product_free(world.b, &p);
    by_free(x);
    sample_free(m);
}

TEST(a_nan_reaches_its_row_and_no_other) {
    UNUSED_STATE;
    for (size_t i = 0; i < BY_COUNTOF(formats); i++)
        nan_stays_in_its_row(formats[i]);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        RUN(linear_equals_double_precision),
        RUN(a_row_has_the_same_bits_in_any_company),
        RUN(every_path_has_the_bits_of_portable_c),
        RUN(a_nan_reaches_its_row_and_no_other),
    };
    return world_main(argc, argv, tests, BY_COUNTOF(tests));
}
