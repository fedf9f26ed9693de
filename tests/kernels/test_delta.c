/* The ops with a state a slot, against double precision: the convolution over time, the gated delta rule, Mamba-2. A state's bits
 * depend on its sequence alone: not on the rows of a step, other sequences, lanes or the instruction set. */
#include <math.h>
#include <string.h>

#include "common/base/mem.h"
#include "common/modelfile/model_info.h"
#include "tests/kernels/ops_world.h"

enum { SLOTS = 5, ROWS = 60, SEQS = 3 };

/* Sequences of one step: which slot, how many rows, at what position. */
struct cut {
    struct seq_rows seqs[SEQS];
    uint32_t n;
};

/* Sequence q has 20 rows from q * 20 on, in slot (3 * q + 1) % SLOTS; step i of them has rows [from, to). */
static struct cut cut_of(uint32_t only, uint32_t from, uint32_t to) {
    struct cut c = {.n = 0};
    for (uint32_t q = 0; q < SEQS; q++) {
        if (only != UINT32_MAX && only != q) continue;
        c.seqs[c.n++] = (struct seq_rows){
            .first = 20 * q + from, .n = to - from, .position = from, .slot = (3 * q + 1) % SLOTS};
    }
    return c;
}

/* ---- the convolution ---- */

struct conv_case {
    uint32_t width, size;
    enum act_kind act;
    bool has_bias, is_gated; /* gated: before and behind, out into a buffer of its own */
};

/* Columns of a row of x: those that convolve, one beside them, the gates before and behind. */
static double conv_want(const struct conv_case *c, const struct op_conv *o, const float *x,
                        uint32_t row, uint32_t col) {
    double sum = o->bias ? (double)o->bias[col] : 0;
    for (uint32_t j = 0; j < c->size; j++) {
        const float *at = x + (row - (c->size - 1 - j)) * o->ld + col;
        if (row % 20 >= c->size - 1 - j)
            sum += (double)o->w[j * c->width + col] * (double)at[0] *
                   (c->is_gated ? (double)at[o->in_gate_col] : 1);
    }
    sum = act_of(c->act, sum);
    return c->is_gated ? sum * (double)x[row * o->ld + col + o->out_gate_col] : sum;
}

static void conv_run(struct backend *b, struct op_conv *op, uint32_t only, uint32_t step) {
    for (uint32_t at = 0; at < 20; at += step) {
        struct cut c = cut_of(only, at, BY_MIN(at + step, 20u));
        op->seqs = c.seqs;
        op->n_seqs = c.n;
        RUN_OP(b, conv, op);
    }
}

/* x as it was before, what was there in out forgotten. */
static void conv_again(struct backend *b, struct op_conv *op, float *x, const float *before,
                       uint32_t only, uint32_t step) {
    memcpy(x, before, (size_t)ROWS * op->ld * sizeof *x);
    for (size_t i = 0; op->out != x && i < (size_t)ROWS * op->out_ld; i++)
        op->out[i] = NAN;
    conv_run(b, op, only, step);
}

static void check_conv(const struct conv_case *c) {
    const uint32_t ld = c->width * (c->is_gated ? 3 : 1) + 3,
                   out_ld = c->is_gated ? c->width + 2 : ld;
    const size_t n = (size_t)ROWS * ld, n_out = (size_t)ROWS * out_ld,
                 n_windows = (size_t)SLOTS * c->size * c->width;
    struct backend *b = world.b;
    float *x = world_room(b, n, NAN), *w = world_room(b, (size_t)c->size * c->width, 0),
          *bias = world_room(b, c->width, 0), *out = c->is_gated ? world_room(b, n_out, NAN) : x,
          *windows = world_room(b, n_windows, NAN); /* what lies there before is nobody's */
    for (uint32_t r = 0; r < ROWS; r++)
        world_floats(x + (size_t)r * ld, c->is_gated ? ld : c->width, 1);
    float *before = by_memdup(x, n * sizeof *x), *whole = by_alloc_array(n_out, sizeof *whole);
    struct op_conv op = {.x = x,
                         .ld = ld,
                         .width = c->width,
                         .in_gate_col = c->is_gated ? c->width + 1 : 0,
                         .out_gate_col = c->is_gated ? 2 * c->width + 3 : 0,
                         .w = w,
                         .bias = c->has_bias ? bias : NULL,
                         .size = c->size,
                         .act = c->act,
                         .windows = windows,
                         .out = out,
                         .out_ld = out_ld};
    world_floats(w, (size_t)c->size * c->width, 0.7f);
    world_floats(bias, c->width, 0.7f);
    conv_run(b, &op, UINT32_MAX, 20);
    memcpy(whole, out, n_out * sizeof *x);
    for (uint32_t r = 0; r < ROWS; r++) {
        for (uint32_t i = 0; i < c->width; i++)
            assert_near((double)out[r * out_ld + i], conv_want(c, &op, before, r, i), 2e-6, 3,
                        "conv");
        assert_true(isnan(out[r * out_ld + c->width]));
    }
    static const uint32_t steps[] = {1, 3, 7};
    for (size_t i = 0; i < BY_COUNTOF(steps); i++) {
        conv_again(b, &op, x, before, UINT32_MAX, steps[i]);
        assert_same_bits(out, whole, n_out, "conv in steps");
    }
    conv_again(b, &op, x, before, 1, 5);
    assert_same_bits(out + 20 * out_ld, whole + 20 * out_ld, 20 * out_ld, "conv alone");
    conv_again(world.portable, &op, x, before, UINT32_MAX, 20);
    assert_same_bits(out, whole, n_out, "conv in portable C");
    by_free(before);
    by_free(whole);
    if (out != x) b->free(b, out);
    float *all[] = {x, w, bias, windows};
    for (size_t i = 0; i < BY_COUNTOF(all); i++)
        b->free(b, all[i]);
}

TEST(a_convolution_goes_on_where_its_window_ends) {
    UNUSED_STATE;
    static const struct conv_case cases[] = {
        {300, 4, ACT_SILU, false, false}, {17, 4, ACT_NONE, true, false},
        {40, 1, ACT_SILU, false, false},  {5, 2, ACT_GELU, true, false},
        {64, 3, ACT_RELU, false, false},  {33, BY_CONV_MAX, ACT_SILU, false, false},
        {270, 3, ACT_NONE, false, true},  {21, 5, ACT_SILU, true, true}};
    for (size_t i = 0; i < BY_COUNTOF(cases); i++)
        check_conv(&cases[i]);
}

/* ---- the delta rule ---- */

struct delta_case {
    uint32_t n_k, n_v, k_dim, v_dim;
    bool is_tiled;
};

struct scene {
    const struct delta_case *c;
    uint32_t ld, out_ld;
    float *x, *decay, *dt, *states, *out;
    struct norm norm;
    struct op_delta op;
};

static void scene_new(struct scene *s, const struct delta_case *c) {
    struct backend *b = world.b;
    const uint32_t k = c->n_k * c->k_dim, v = c->n_v * c->v_dim;
    *s = (struct scene){.c = c, .ld = 2 * k + 2 * v + 2 * c->n_v + 1, .out_ld = v + 2};
    s->x = world_room(b, (size_t)ROWS * s->ld, 0);
    s->out = world_room(b, (size_t)ROWS * s->out_ld, NAN);
    s->decay = world_room(b, c->n_v, 0);
    s->dt = world_room(b, c->n_v, 0);
    s->states = world_room(b, SLOTS * c->n_v * backend_delta_floats(c->k_dim, c->v_dim), NAN);
    s->norm = world_norm_new(NORM_RMS, c->v_dim, false);
    world_floats(s->x, (size_t)ROWS * s->ld, 1);
    world_floats(s->dt, c->n_v, 1);
    for (uint32_t h = 0; h < c->n_v; h++)
        s->decay[h] = -expf(world_float());
    s->op = (struct op_delta){.x = s->x,
                              .ld = s->ld,
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
                              .decay = s->decay,
                              .dt = s->dt,
                              .norm = &s->norm,
                              .states = s->states,
                              .out = s->out,
                              .out_ld = s->out_ld};
}

static void scene_free(struct scene *s) {
    struct backend *b = world.b;
    float *all[] = {s->x, s->decay, s->dt, s->states, s->out};
    for (size_t i = 0; i < BY_COUNTOF(all); i++)
        b->free(b, all[i]);
    world_norm_free(&s->norm);
}

static void delta_run(struct backend *b, struct scene *s, uint32_t only, uint32_t step) {
    for (uint32_t at = 0; at < 20; at += step) {
        struct cut c = cut_of(only, at, BY_MIN(at + step, 20u));
        s->op.seqs = c.seqs;
        s->op.n_seqs = c.n;
        RUN_OP(b, delta, &s->op);
    }
}

/* One head's output of one row in double, S going on. */
static void delta_row(const struct scene *s, const float *x, uint32_t h, double *state, float *o) {
    const struct delta_case *c = s->c;
    const uint32_t kh = c->is_tiled ? h % c->n_k : h / (c->n_v / c->n_k);
    const float *q = x + kh * c->k_dim, *k = x + s->op.k_col + kh * c->k_dim,
                *v = x + s->op.v_col + h * c->v_dim;
    double qq = 1e-6, kk = 1e-6;
    for (uint32_t i = 0; i < c->k_dim; i++) {
        qq += (double)q[i] * (double)q[i];
        kk += (double)k[i] * (double)k[i];
    }
    double rate = log1p(exp((double)x[s->op.a_col + h] + (double)s->dt[h])),
           d = exp((double)s->decay[h] * rate), beta = 1 / (1 + exp(-(double)x[s->op.b_col + h]));
    for (uint32_t j = 0; j < c->v_dim; j++) {
        double m = 0, y = 0;
        for (uint32_t i = 0; i < c->k_dim; i++)
            m += d * state[i * c->v_dim + j] * (double)k[i] / sqrt(kk);
        for (uint32_t i = 0; i < c->k_dim; i++) {
            double *at = &state[i * c->v_dim + j];
            *at = d * *at + (double)k[i] / sqrt(kk) * beta * ((double)v[j] - m);
            y += *at * (double)q[i] / sqrt(qq * c->k_dim);
        }
        o[j] = (float)y;
    }
}

static void check_rows(const struct scene *s) {
    const struct delta_case *c = s->c;
    double *state = by_alloc_array((size_t)c->k_dim * c->v_dim, sizeof *state);
    float *o = by_alloc_array(c->v_dim, sizeof *o);
    for (uint32_t h = 0; h < c->n_v; h++) {
        for (uint32_t r = 0; r < ROWS; r++) {
            if (r % 20 == 0) memset(state, 0, (size_t)c->k_dim * c->v_dim * sizeof *state);
            delta_row(s, s->x + (size_t)r * s->ld, h, state, o);
            for (uint32_t j = 0; j < c->v_dim; j++) {
                double z = (double)s->x[r * s->ld + s->op.z_col + h * c->v_dim + j];
                double want = world_norm_of(&s->norm, o, c->v_dim, j) * z / (1 + exp(-z));
                assert_near((double)s->out[r * s->out_ld + h * c->v_dim + j], want, 2e-5, 3,
                            "delta");
            }
        }
    }
    by_free(state);
    by_free(o);
}

static void check_delta(const struct delta_case *c) {
    struct scene s;
    scene_new(&s, c);
    const size_t n = (size_t)ROWS * s.out_ld;
    delta_run(world.b, &s, UINT32_MAX, 20);
    float *whole = by_memdup(s.out, n * sizeof *whole);
    check_rows(&s);
    static const uint32_t steps[] = {1, 3, 17};
    for (size_t i = 0; i < BY_COUNTOF(steps); i++) {
        memset(s.out, 0xff, n * sizeof *s.out);
        delta_run(world.b, &s, UINT32_MAX, steps[i]);
        for (uint32_t r = 0; r < ROWS; r++)
            assert_same_bits(s.out + r * s.out_ld, whole + r * s.out_ld, s.out_ld - 2, "in steps");
    }
    memset(s.out, 0xff, n * sizeof *s.out);
    delta_run(world.one, &s, 2, 4);
    for (uint32_t r = 40; r < ROWS; r++)
        assert_same_bits(s.out + r * s.out_ld, whole + r * s.out_ld, s.out_ld - 2, "alone");
    delta_run(world.portable, &s, UINT32_MAX, 20);
    for (uint32_t r = 0; r < ROWS; r++)
        assert_same_bits(s.out + r * s.out_ld, whole + r * s.out_ld, s.out_ld - 2, "portable C");
    by_free(whole);
    scene_free(&s);
}

TEST(a_state_is_updated_row_after_row) {
    UNUSED_STATE;
    static const struct delta_case cases[] = {{2, 4, 16, 16, false},   {2, 6, 17, 24, true},
                                              {1, 1, 128, 128, false}, {3, 3, 5, 40, false},
                                              {1, 3, 8, 7, true},      {2, 2, 33, 64, false}};
    for (size_t i = 0; i < BY_COUNTOF(cases); i++)
        check_delta(&cases[i]);
}

/* ---- Mamba-2 ---- */

struct ssm_case {
    uint32_t n_groups, n_heads, k_dim, v_dim;
    float step_min, step_max;
};

static struct op_ssm ssm_of(const struct ssm_case *c) {
    struct backend *b = world.b;
    const uint32_t v = c->n_heads * c->v_dim, k = c->n_groups * c->k_dim,
                   ld = 2 * (v + k) + c->n_heads + 1;
    float *x = world_room(b, (size_t)ROWS * ld, 0), *vectors[3];
    world_floats(x, (size_t)ROWS * ld, 1);
    for (uint32_t i = 0; i < 3; i++) {
        vectors[i] = world_room(b, c->n_heads, 0);
        world_floats(vectors[i], c->n_heads, 1);
    }
    for (uint32_t h = 0; h < c->n_heads; h++)
        vectors[0][h] = -expf(vectors[0][h]);
    return (struct op_ssm){
        .x = x,
        .ld = ld,
        .k_col = v,
        .q_col = v + k,
        .z_col = v + 2 * k,
        .t_col = 2 * (v + k),
        .n_groups = c->n_groups,
        .n_heads = c->n_heads,
        .k_dim = c->k_dim,
        .v_dim = c->v_dim,
        .decay = vectors[0],
        .dt = vectors[1],
        .skip = vectors[2],
        .step_min = c->step_min,
        .step_max = c->step_max,
        .states = world_room(b, SLOTS * c->n_heads * backend_delta_floats(c->k_dim, c->v_dim), NAN),
        .out = world_room(b, (size_t)ROWS * (v + 2), NAN),
        .out_ld = v + 2};
}

static void ssm_free(struct op_ssm *o) {
    const float *all[] = {o->x, o->decay, o->dt, o->skip, o->states, o->out};
    for (size_t i = 0; i < BY_COUNTOF(all); i++)
        world.b->free(world.b, (void *)(uintptr_t)all[i]);
}

static void ssm_run(struct backend *b, struct op_ssm *op, uint32_t only, uint32_t step) {
    for (size_t i = 0; i < (size_t)ROWS * op->out_ld; i++)
        op->out[i] = NAN;
    for (uint32_t at = 0; at < 20; at += step) {
        struct cut c = cut_of(only, at, BY_MIN(at + step, 20u));
        op->seqs = c.seqs;
        op->n_seqs = c.n;
        RUN_OP(b, ssm, op);
    }
}

/* One head's columns of one row in double, S going on. */
static void check_ssm_row(const struct op_ssm *o, uint32_t row, uint32_t h, double *state) {
    const float *x = o->x + (size_t)row * o->ld, *v = x + h * o->v_dim,
                *z = x + o->z_col + h * o->v_dim;
    const uint32_t group = h / (o->n_heads / o->n_groups) * o->k_dim;
    double t = log1p(exp((double)x[o->t_col + h] + (double)o->dt[h]));
    t = fmin((double)o->step_max, fmax((double)o->step_min, t));
    for (uint32_t j = 0; j < o->v_dim; j++) {
        double y = (double)o->skip[h] * (double)v[j];
        for (uint32_t i = 0; i < o->k_dim; i++) {
            double *at = &state[i * o->v_dim + j];
            *at = exp((double)o->decay[h] * t) * *at +
                  (double)x[o->k_col + group + i] * t * (double)v[j];
            y += *at * (double)x[o->q_col + group + i];
        }
        y *= (double)z[j] / (1 + exp(-(double)z[j]));
        assert_near((double)o->out[row * o->out_ld + h * o->v_dim + j], y, 2e-5, 3, "ssm");
    }
}

static void check_ssm(const struct ssm_case *c) {
    struct op_ssm op = ssm_of(c);
    const uint32_t width = op.out_ld - 2;
    double *state = by_alloc_array((size_t)c->k_dim * c->v_dim, sizeof *state);
    ssm_run(world.b, &op, UINT32_MAX, 20);
    for (uint32_t h = 0; h < c->n_heads; h++) {
        for (uint32_t r = 0; r < ROWS; r++) {
            if (r % 20 == 0) memset(state, 0, (size_t)c->k_dim * c->v_dim * sizeof *state);
            check_ssm_row(&op, r, h, state);
            assert_true(isnan(op.out[r * op.out_ld + width]));
        }
    }
    float *whole = by_memdup(op.out, (size_t)ROWS * op.out_ld * sizeof *whole);
    static const uint32_t steps[] = {1, 3, 17};
    for (size_t i = 0; i < BY_COUNTOF(steps); i++) {
        ssm_run(world.b, &op, UINT32_MAX, steps[i]);
        for (uint32_t r = 0; r < ROWS; r++)
            assert_same_bits(op.out + r * op.out_ld, whole + r * op.out_ld, width, "in steps");
    }
    ssm_run(world.one, &op, 2, 4);
    for (uint32_t r = 40; r < ROWS; r++)
        assert_same_bits(op.out + r * op.out_ld, whole + r * op.out_ld, width, "alone");
    ssm_run(world.portable, &op, UINT32_MAX, 20);
    for (uint32_t r = 0; r < ROWS; r++)
        assert_same_bits(op.out + r * op.out_ld, whole + r * op.out_ld, width, "portable C");
    by_free(whole);
    by_free(state);
    ssm_free(&op);
}

TEST(a_state_space_is_gone_through_row_after_row) {
    UNUSED_STATE;
    static const struct ssm_case cases[] = {{1, 4, 16, 16, 0, INFINITY},
                                            {2, 6, 17, 24, 0, INFINITY},
                                            {1, 2, 128, 64, 0, INFINITY},
                                            {3, 3, 5, 40, 0.5f, 0.9f},
                                            {1, 3, 8, 7, 0, 0.7f}};
    for (size_t i = 0; i < BY_COUNTOF(cases); i++)
        check_ssm(&cases[i]);
}

TEST(parts_of_a_norm_may_have_weights_of_their_own) {
    UNUSED_STATE;
    enum { N = 3, PARTS = 3, WIDTH = 21, LD = PARTS * WIDTH + 1 };
    struct backend *b = world.b;
    float *x = world_room(b, N * LD, NAN), *before;
    struct norm norm = world_norm_new(NORM_RMS, PARTS * WIDTH, false);
    for (uint32_t r = 0; r < N; r++)
        world_floats(x + r * LD, PARTS * WIDTH, 1);
    before = by_memdup(x, N * LD * sizeof *x);
    RUN_OP(b, norm,
           (&(struct op_norm){.x = x,
                              .x_ld = LD,
                              .width = WIDTH,
                              .n_parts = PARTS,
                              .parts_differ = true,
                              .norm = &norm,
                              .y = x,
                              .y_ld = LD,
                              .scale = 1,
                              .n = N}));
    for (uint32_t r = 0; r < N; r++) {
        for (uint32_t i = 0; i < PARTS * WIDTH; i++) {
            struct norm part = norm;
            part.w += i / WIDTH * WIDTH;
            assert_near((double)x[r * LD + i],
                        world_norm_of(&part, before + r * LD + i / WIDTH * WIDTH, WIDTH, i % WIDTH),
                        2e-6, 3, "norm");
        }
    }
    by_free(before);
    world_norm_free(&norm);
    b->free(b, x);
}

/* ---- gates ---- */

TEST(a_gate_may_weigh_each_column_by_its_own) {
    UNUSED_STATE;
    enum { N = 3, WIDTH = 37, LD = 90, COL = 41 };
    struct backend *b = world.b;
    float *x = world_room(b, N * LD, NAN), *gate = world_room(b, N * LD, NAN);
    for (uint32_t r = 0; r < N; r++) {
        world_floats(x + r * LD, WIDTH, 1);
        world_floats(gate + r * LD + COL, WIDTH, 3);
    }
    float *before = by_memdup(x, N * LD * sizeof *x);
    RUN_OP(b, gate,
           (&(struct op_gate){.x = x,
                              .ld = LD,
                              .width = WIDTH,
                              .gate = gate,
                              .gate_ld = LD,
                              .gate_col = COL,
                              .is_by_column = true,
                              .n = N}));
    for (uint32_t r = 0; r < N; r++) {
        for (uint32_t i = 0; i < WIDTH; i++)
            assert_near((double)x[r * LD + i],
                        (double)before[r * LD + i] / (1 + exp(-(double)gate[r * LD + COL + i])),
                        1e-6, 1, "gate");
        assert_true(isnan(x[r * LD + WIDTH]));
    }
    by_free(before);
    b->free(b, x);
    b->free(b, gate);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        RUN(a_convolution_goes_on_where_its_window_ends),
        RUN(a_state_is_updated_row_after_row),
        RUN(a_state_space_is_gone_through_row_after_row),
        RUN(parts_of_a_norm_may_have_weights_of_their_own),
        RUN(a_gate_may_weigh_each_column_by_its_own),
    };
    return world_main(argc, argv, tests, BY_COUNTOF(tests));
}
