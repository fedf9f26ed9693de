/* The ops around the products: norms, activations, embeddings, rotation, gates: against double precision, on all
 * lanes and solo, with NaN around whatever is read. */
#include <math.h>
#include <string.h>

#include "common/base/mem.h"
#include "tests/kernels/ops_world.h"

enum { N = 23, LD = 150, COL = 5 };

/* A room of N rows of random numbers in columns COL … COL + width - 1, NaN elsewhere. */
static float *rows_new(uint32_t width, float size) {
    float *x = world_room(world.b, (size_t)N * LD, NAN);
    for (uint32_t r = 0; r < N; r++)
        world_floats(x + r * LD + COL, width, size);
    return x;
}

static void check_norm(enum norm_kind kind, uint32_t width, bool has_bias, bool is_add) {
    struct norm n = world_norm_new(kind, width, has_bias);
    float *x = rows_new(width, 3), *y = rows_new(width, 1),
          *before = by_memdup(y, sizeof(float) * N * LD);
    struct op_norm op = {.x = x,
                         .x_ld = LD,
                         .x_col = COL,
                         .width = width,
                         .norm = &n,
                         .y = y,
                         .y_ld = LD,
                         .y_col = COL,
                         .is_add = is_add,
                         .scale = 0.5f,
                         .first = 2,
                         .n = N - 4};
    RUN_OP(world.b, norm, &op);
    for (uint32_t r = 0; r < N; r++) {
        for (uint32_t c = 0; c < width; c++) {
            double old = (double)before[r * LD + COL + c],
                   want = 0.5 * world_norm_of(&n, x + r * LD + COL, width, c);
            if (is_add) want += old;
            if (r < 2 || r >= N - 2) want = old;
            assert_near((double)y[r * LD + COL + c], want, 2e-6, 4, "norm");
        }
        assert_true(isnan(y[r * LD + COL - 1]) && isnan(y[r * LD + COL + width]));
    }
    float *all = by_memdup(y, sizeof(float) * N * LD);
    memcpy(y, before, sizeof(float) * N * LD);
    RUN_OP_SOLO(world.b, norm, &op);
    for (uint32_t r = 0; r < N; r++)
        assert_same_bits(y + r * LD + COL, all + r * LD + COL, width, "norm, solo");
    by_free(all);
    by_free(before);
    world.b->free(world.b, x);
    world.b->free(world.b, y);
    world_norm_free(&n);
}

/* A norm in parts is as many norms. */
TEST(parts_of_a_row_are_normed_each_alone) {
    UNUSED_STATE;
    enum { PARTS = 6, WIDTH = 24 };
    struct norm n = world_norm_new(NORM_RMS, WIDTH, false);
    float *x = rows_new(PARTS * WIDTH, 3), *y = rows_new(PARTS * WIDTH, 1),
          *want = by_memdup(y, sizeof(float) * N * LD);
    struct op_norm op = {.x = x,
                         .x_ld = LD,
                         .x_col = COL,
                         .width = WIDTH,
                         .n_parts = PARTS,
                         .norm = &n,
                         .y = y,
                         .y_ld = LD,
                         .y_col = COL,
                         .is_add = true,
                         .scale = 0.5f,
                         .n = N};
    RUN_OP(world.b, norm, &op);
    float *all = by_memdup(y, sizeof(float) * N * LD);
    memcpy(y, want, sizeof(float) * N * LD);
    op.n_parts = 0;
    for (uint32_t i = 0; i < PARTS; i++, op.x_col += WIDTH, op.y_col += WIDTH)
        RUN_OP(world.b, norm, &op);
    for (uint32_t r = 0; r < N; r++)
        assert_same_bits(y + r * LD + COL, all + r * LD + COL, PARTS * WIDTH, "norm in parts");
    by_free(all);
    by_free(want);
    world.b->free(world.b, x);
    world.b->free(world.b, y);
    world_norm_free(&n);
}

TEST(norms_equal_double_precision) {
    UNUSED_STATE;
    static const uint32_t widths[] = {1, 8, 15, 16, 17, 64, 100, 127};
    for (size_t i = 0; i < BY_COUNTOF(widths); i++) {
        for (int k = 0; k < 8; k++)
            check_norm(k & 1 ? NORM_LAYER : NORM_RMS, widths[i], k & 2, k & 4);
    }
}

/* ---- what a product can carry ---- */

static double finished(const struct op_linear *o, double v, double up, bool is_gated, double old) {
    v = o->act == ACT_SWIGLU_OAI ? fmin(v, 7) : act_of(o->act, v);
    if (o->act == ACT_SWIGLU_OAI)
        v = v / (1 + exp(-1.702 * v)) * (fmax(fmin(up, 7), -7) + 1);
    else if (is_gated)
        v *= up;
    v *= (double)o->scale;
    if (o->softcap > 0) return (double)o->softcap * tanh(v / (double)o->softcap);
    return o->is_add ? old + v : v;
}

struct carried {
    enum act_kind act;
    bool is_gated, is_add, has_bias, has_norm, has_rows;
    float scale, softcap;
};

static void check_carried(const struct carried *c) {
    enum { IN = 100, OUT = 58 };
    struct sample *m = sample_new(BY_DTYPE_F32, OUT, IN);
    float bias[OUT];
    uint32_t rows[N], n_cols = c->is_gated ? OUT / 2 : OUT;
    for (uint32_t r = 0; r < N; r++)
        rows[r] = (r * 7 + 3) % N;
    world_floats(bias, OUT, 1);
    m->src.bias = c->has_bias ? bias : NULL;
    m->src.is_gated = c->is_gated;
    struct weight *w = sample_weight(world.b, m);
    struct norm n = world_norm_new(NORM_RMS, IN, false);
    float *x = rows_new(IN, 4), *y = rows_new(n_cols, 1),
          *before = by_memdup(y, sizeof(float) * N * LD);
    struct op_linear op = {.w = w,
                           .x = x,
                           .x_ld = LD,
                           .x_col = COL,
                           .norm = c->has_norm ? &n : NULL,
                           .act = c->act,
                           .y = y,
                           .y_ld = LD,
                           .y_col = COL,
                           .is_add = c->is_add,
                           .scale = c->scale,
                           .softcap = c->softcap,
                           .rows = c->has_rows ? rows : NULL,
                           .first = 1,
                           .n = N - 1};
    RUN_OP(world.b, linear, &op);
    for (uint32_t r = 1; r < N; r++) {
        const float *row = x + (c->has_rows ? rows[r] : r) * LD + COL;
        double in[IN];
        for (uint32_t k = 0; k < IN; k++)
            in[k] = c->has_norm ? world_norm_of(&n, row, IN, k) : (double)row[k];
        for (uint32_t o = 0; o < n_cols; o++) {
            double up = c->is_gated ? world_product_of(m, in, n_cols + o) : 0;
            double want = finished(&op, world_product_of(m, in, o), up, c->is_gated,
                                   (double)before[r * LD + COL + o]);
            assert_near((double)y[r * LD + COL + o], want, 1e-5, 1 + fabs(want),
                        "a product and what follows");
        }
    }
    assert_same_bits(y + COL, before + COL, n_cols, "the row before the first");
    by_free(before);
    world.b->free(world.b, x);
    world.b->free(world.b, y);
    world_norm_free(&n);
    world.b->weight_free(world.b, w);
    sample_free(m);
}

TEST(a_product_carries_norm_bias_activation_and_the_rest) {
    UNUSED_STATE;
    for (int a = ACT_NONE; a <= ACT_SWIGLU_OAI; a++) {
        struct carried c = {
            .act = (enum act_kind)a, .scale = 1, .has_bias = a % 2, .has_norm = true};
        if (a != ACT_SWIGLU_OAI) check_carried(&c);
        c.is_gated = true;
        c.has_rows = true;
        check_carried(&c);
        c.is_add = true;
        c.scale = 0.3f;
        check_carried(&c);
    }
    check_carried(&(struct carried){.scale = 0.7f, .softcap = 3});
    check_carried(&(struct carried){.scale = 1, .softcap = 30, .has_bias = true, .has_rows = true});
}

/* Against erf, tanh and exp of libm, at arguments up to where they saturate. */
TEST(activations_are_right_far_out) {
    UNUSED_STATE;
    struct sample *m = sample_new(BY_DTYPE_F32, 1, 1);
    m->values[0] = 1;
    memcpy(m->bytes, m->values, sizeof(float));
    struct weight *w = sample_weight(world.b, m);
    float *x = world_room(world.b, 4001, 0), *y = world_room(world.b, 4001, 0);
    for (int i = 0; i <= 4000; i++)
        x[i] = (float)(i - 2000) / 20;
    for (int a = ACT_NONE; a < ACT_SWIGLU_OAI; a++) {
        struct op_linear op = {.w = w,
                               .x = x,
                               .x_ld = 1,
                               .act = (enum act_kind)a,
                               .y = y,
                               .y_ld = 1,
                               .scale = 1,
                               .n = 4001};
        RUN_OP(world.b, linear, &op);
        for (int i = 0; i <= 4000; i++) {
            double want = act_of((enum act_kind)a, (double)x[i]);
            assert_near((double)y[i], want, 1e-6, 1 + fabs(want), "activation");
        }
    }
    world.b->free(world.b, x);
    world.b->free(world.b, y);
    world.b->weight_free(world.b, w);
    sample_free(m);
}

TEST(heads_have_products_of_their_own) {
    UNUSED_STATE;
    enum { HEADS = 5, IN = 24, OUT = 20, COPY = 3 };
    struct sample *m[HEADS];
    struct weight *w[HEADS];
    for (int h = 0; h < HEADS; h++) {
        m[h] = sample_new(BY_DTYPE_F32, OUT, IN);
        w[h] = sample_weight(world.b, m[h]);
    }
    float *x = rows_new(HEADS * (IN + 4), 1), *y = rows_new(HEADS * (OUT + 4), 1);
    struct op_linear_heads op = {.w = (const struct weight *const *)w,
                                 .n_heads = HEADS,
                                 .x = x,
                                 .x_ld = LD,
                                 .x_col = COL,
                                 .x_step = IN + 4,
                                 .y = y,
                                 .y_ld = LD,
                                 .y_col = COL,
                                 .y_step = OUT + 4,
                                 .n_copy = COPY,
                                 .x_copy_col = IN,
                                 .y_copy_col = OUT + 1,
                                 .first = 1,
                                 .n = N - 1};
    RUN_OP(world.b, linear_heads, &op);
    for (uint32_t r = 1; r < N; r++) {
        for (uint32_t h = 0; h < HEADS; h++) {
            const float *in = x + r * LD + COL + h * (IN + 4),
                        *out = y + r * LD + COL + h * (OUT + 4);
            double v[IN];
            for (int k = 0; k < IN; k++)
                v[k] = (double)in[k];
            for (uint32_t o = 0; o < OUT; o++)
                assert_near((double)out[o], world_product_of(m[h], v, o), 1e-5, 1, "a head");
            assert_same_bits(out + OUT + 1, in + IN, COPY, "copied columns");
        }
    }
    for (int h = 0; h < HEADS; h++) {
        world.b->weight_free(world.b, w[h]);
        sample_free(m[h]);
    }
    world.b->free(world.b, x);
    world.b->free(world.b, y);
}

TEST(embeddings_are_the_rows_of_the_file) {
    UNUSED_STATE;
    for (int t = BY_DTYPE_F32; t < BY_DTYPE_F8_32; t++) { /* what a CPU is given */
        bool is_plain = t == BY_DTYPE_F32 || t == BY_DTYPE_F16 || t == BY_DTYPE_BF16;
        if (!is_plain && !by_dtype_is_quantised((enum by_dtype)t)) continue;
        struct sample *m = sample_new((enum by_dtype)t, 37, 256),
                      *p = sample_new(BY_DTYPE_F32, 40, 256);
        m->src.is_row_lookup = p->src.is_row_lookup = true;
        struct weight *w = sample_weight(world.b, m), *pw = sample_weight(world.b, p);
        uint32_t ids[N], positions[N];
        for (uint32_t r = 0; r < N; r++) {
            ids[r] = world_below(37);
            positions[r] = world_below(38);
        }
        float *out = world_room(world.b, (size_t)N * 260, NAN);
        struct op_embed op = {.table = w,
                              .ids = ids,
                              .scale = 2,
                              .pos_table = pw,
                              .positions = positions,
                              .pos_offset = 2,
                              .type_table = pw,
                              .out = out,
                              .ld = 260,
                              .n = N};
        RUN_OP(world.b, embed, &op);
        for (uint32_t r = 0; r < N; r++) {
            for (uint32_t k = 0; k < 256; k++) {
                float want =
                    2 * m->values[ids[r] * 256 + k] + p->values[(positions[r] + 2) * 256 + k];
                want += p->values[k];
                assert_near((double)out[r * 260 + k], (double)want, 1e-6, 1 + fabs((double)want),
                            by_dtype_name((enum by_dtype)t));
            }
        }
        op.pos_table = op.type_table = NULL;
        op.scale = 1;
        RUN_OP(world.b, embed, &op);
        for (uint32_t r = 0; r < N; r++)
            assert_same_bits(out + r * 260, m->values + ids[r] * 256, 256,
                             by_dtype_name((enum by_dtype)t));
        world.b->free(world.b, out);
        world.b->weight_free(world.b, w);
        world.b->weight_free(world.b, pw);
        sample_free(m);
        sample_free(p);
    }
}

/* ---- rotation ---- */

/* a turn of a head of doubles, by hand */
static void turn_by_hand(const struct op_kv_write *o, const float *freq, uint32_t n_rot,
                         uint32_t position, double *v) {
    for (uint32_t i = 0; i < n_rot / 2; i++) {
        uint32_t a = o->q_rot_col + (o->is_interleaved ? 2 * i : i),
                 b = o->is_interleaved ? a + 1 : a + n_rot / 2;
        double angle = (double)((float)position * freq[i]), c = 1.5 * cos(angle),
               s = 1.5 * sin(angle);
        double va = v[a], vb = v[b];
        v[a] = va * c - vb * s;
        v[b] = vb * c + va * s;
    }
}

static void norm_by_hand(const struct norm *n, double *v, uint32_t dim) {
    double sum = 0;
    for (uint32_t d = 0; d < dim; d++)
        sum += v[d] * v[d];
    for (uint32_t d = 0; d < dim; d++)
        v[d] = v[d] / sqrt(sum / dim + (double)n->eps) * (double)n->w[d];
}

struct rotation {
    bool is_interleaved, qk_whole, norm_is_last;
    uint32_t n_rot, rot_col;
    struct growth growth;
};

static void check_rotation(const struct rotation *k) {
    enum { HEADS = 3, KV = 1, DIM = 24 };
    const bool qk_whole = k->qk_whole;
    const uint32_t n_rot = k->n_rot, rot_col = k->rot_col;
    float freq[12];
    for (uint32_t i = 0; i < n_rot / 2; i++)
        freq[i] = powf(100, -2 * (float)i / (float)n_rot);
    struct rope_table *rope =
        world.b->rope_new(world.b, &(struct rope_source){n_rot, freq, 1.5f, 1000});
    struct norm qn = world_norm_new(NORM_RMS, qk_whole ? HEADS * DIM : DIM, false),
                kn = world_norm_new(NORM_RMS, DIM, false);
    float *x = rows_new((HEADS + 2 * KV) * DIM, 1), *before = by_memdup(x, sizeof(float) * N * LD);
    struct kv_shape kv = {KV, DIM, DIM, 16, KV_F32, false};
    void *pool = world.b->kv_new(world.b, &kv, 70);
    uint32_t pages[70], positions[N];
    for (uint32_t i = 0; i < 70; i++)
        pages[i] = i;
    struct seq_rows seq = {0, N, 700, pages, 0};
    for (uint32_t r = 0; r < N; r++)
        positions[r] = 700 + r;
    struct op_kv_write op = {.x = x,
                             .ld = LD,
                             .q_col = COL,
                             .k_col = COL + HEADS * DIM,
                             .v_col = COL + (HEADS + KV) * DIM,
                             .n_heads = HEADS,
                             .q_dim = DIM,
                             .q_norm = &qn,
                             .k_norm = &kn,
                             .qk_whole = qk_whole,
                             .norm_is_last = k->norm_is_last,
                             .q_growth = k->growth,
                             .rope = rope,
                             .is_interleaved = k->is_interleaved,
                             .q_rot_col = rot_col,
                             .k_rot_col = rot_col,
                             .kv = kv,
                             .pool = pool,
                             .positions = positions,
                             .seqs = &seq,
                             .n_seqs = 1,
                             .n = N};
    RUN_OP(world.b, kv_write, &op);
    for (uint32_t r = 0; r < N; r++) {
        double grown = 1;
        if (k->growth.every)
            grown += (double)k->growth.beta * log(1 + positions[r] / k->growth.every);
        for (uint32_t h = 0; h < HEADS; h++) {
            double v[DIM];
            const float *whole = before + r * LD + COL, *head = whole + h * DIM;
            for (uint32_t d = 0; d < DIM; d++)
                v[d] = qk_whole          ? world_norm_of(&qn, whole, HEADS * DIM, h * DIM + d)
                       : k->norm_is_last ? (double)head[d]
                                         : world_norm_of(&qn, head, DIM, d);
            turn_by_hand(&op, freq, n_rot, positions[r], v);
            if (k->norm_is_last) norm_by_hand(&qn, v, DIM);
            for (uint32_t d = 0; d < DIM; d++)
                assert_near((double)x[r * LD + COL + h * DIM + d], v[d] * grown, 4e-6, 4,
                            "a turned head");
        }
    }
    by_free(before);
    world.b->kv_free(world.b, pool);
    world.b->rope_free(world.b, rope);
    world_norm_free(&qn);
    world_norm_free(&kn);
    world.b->free(world.b, x);
}

TEST(heads_are_normed_and_turned) {
    UNUSED_STATE;
    static const uint32_t turned[3][2] = {{24, 0}, {12, 0}, {10, 14}};
    for (int i = 0; i < 4 * 3; i++) {
        struct rotation k = {.is_interleaved = i & 1,
                             .qk_whole = i & 2,
                             .n_rot = turned[i / 4][0],
                             .rot_col = turned[i / 4][1]};
        check_rotation(&k);
        if (k.qk_whole) continue;
        k.norm_is_last = true;
        check_rotation(&k);
        k.growth = (struct growth){0.1f, 300};
        check_rotation(&k);
    }
}

/* ---- gates ---- */

TEST(a_gate_scales_rows) {
    UNUSED_STATE;
    float *x = rows_new(77, 1), *before = by_memdup(x, sizeof(float) * N * LD),
          *gate = world_room(world.b, N * 3, NAN);
    for (uint32_t r = 0; r < N; r++)
        gate[r * 3] = world_float() * 3;
    struct op_gate op = {.x = x + COL, .ld = LD, .width = 77, .gate = gate, .gate_ld = 3, .n = N};
    RUN_OP(world.b, gate, &op);
    for (uint32_t r = 0; r < N; r++) {
        for (uint32_t c = 0; c < 77; c++)
            assert_near((double)x[r * LD + COL + c],
                        (double)before[r * LD + COL + c] / (1 + exp(-(double)gate[r * 3])), 1e-6, 1,
                        "gate");
        assert_true(isnan(x[r * LD + COL + 77]));
    }
    by_free(before);
    world.b->free(world.b, x);
    world.b->free(world.b, gate);
}

TEST(a_gate_may_be_a_number_a_column) {
    UNUSED_STATE;
    float *x = rows_new(77, 1), *before = by_memdup(x, sizeof(float) * N * LD),
          *gate = rows_new(77, 2);
    struct op_gate op = {.x = x + COL,
                         .ld = LD,
                         .width = 77,
                         .gate = gate,
                         .gate_ld = LD,
                         .gate_col = COL,
                         .is_by_column = true,
                         .is_plain = true,
                         .first = 1,
                         .n = N - 1};
    RUN_OP(world.b, gate, &op);
    for (uint32_t i = COL; i < N * LD; i++) {
        bool is_inside = i >= LD && i % LD >= COL && i % LD < COL + 77;
        float want = is_inside ? before[i] * gate[i] : before[i];
        assert_true(isnan(want) ? isnan(x[i]) : x[i] == want);
    }
    by_free(before);
    world.b->free(world.b, x);
    world.b->free(world.b, gate);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        RUN(norms_equal_double_precision),
        RUN(parts_of_a_row_are_normed_each_alone),
        RUN(a_product_carries_norm_bias_activation_and_the_rest),
        RUN(activations_are_right_far_out),
        RUN(heads_have_products_of_their_own),
        RUN(embeddings_are_the_rows_of_the_file),
        RUN(heads_are_normed_and_turned),
        RUN(a_gate_scales_rows),
        RUN(a_gate_may_be_a_number_a_column),
    };
    return world_main(argc, argv, tests, BY_COUNTOF(tests));
}
