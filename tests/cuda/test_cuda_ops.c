/* Each op of the CUDA backend but attention and experts, run by the emulator, against portable C with exact activations;
 * odd shapes, NaN wherever nobody may look. And what the device side has beyond the CPU's: graphs, orders of threads. */
#include <string.h>

#include "common/base/mem.h"
#include "tests/cuda/both.h"
#include "tests/cuda/rounding.h"

/* ---- rows ---- */

TEST(norm_adds_scales_and_leaves_other_columns_alone) {
    UNUSED_STATE;
    static const uint32_t widths[] = {1, 33, 256, 577, 1030};
    for (size_t i = 0; i < BY_COUNTOF(widths); i++) {
        for (int kind = 0; kind < 4; kind++) {
            uint32_t n = widths[i], ld = n + 5;
            struct pair x = pair_new(7 * ld, 1), y = pair_new(7 * ld, 1);
            struct both_norms s = norms_new(kind & 1 ? NORM_LAYER : NORM_RMS, n);
            struct op_norm a = {.x = x.cpu,
                                .x_ld = ld,
                                .x_col = 2,
                                .width = n,
                                .norm = &s.cpu,
                                .y = y.cpu,
                                .y_ld = ld,
                                .y_col = 3,
                                .is_add = kind & 2,
                                .scale = 0.7f,
                                .first = 1,
                                .n = 5};
            struct op_norm b = a;
            b.x = x.gpu, b.y = y.gpu, b.norm = &s.gpu;
            BOTH(norm, &a, &b);
            a.norm = b.norm = NULL;
            a.first = b.first = 6, a.n = b.n = 1;
            BOTH(norm, &a, &b);
            if (n == 577) { /* the first 480 columns are normed in fifteen parts */
                a.norm = &s.cpu, b.norm = &s.gpu;
                a.first = b.first = 0;
                a.width = b.width = 32, a.n_parts = b.n_parts = 15;
                BOTH(norm, &a, &b);
                a.parts_differ = b.parts_differ = kind == 2; /* RMS, added */
                BOTH(norm, &a, &b);
            }
            pair_check(&y, 2e-6, "norm");
            pair_free(&x);
            pair_free(&y);
            norms_free(&s);
        }
    }
}

TEST(gate_multiplies_by_a_sigmoid) {
    UNUSED_STATE;
    struct pair x = pair_new(5 * 301, 1), g = pair_new(5 * 3, 2);
    struct op_gate a = {
        .x = x.cpu, .ld = 301, .width = 299, .gate = g.cpu, .gate_ld = 3, .first = 1, .n = 3};
    struct op_gate b = a;
    b.x = x.gpu, b.gate = g.gpu;
    BOTH(gate, &a, &b);
    pair_check(&x, 1e-6, "gate");
    pair_free(&x);
    pair_free(&g);
}

TEST(gate_multiplies_column_by_column) {
    UNUSED_STATE;
    struct pair x = pair_new(5 * 301, 1), g = pair_new(5 * 310, 2);
    struct op_gate a = {.x = x.cpu,
                        .ld = 301,
                        .width = 299,
                        .gate = g.cpu,
                        .gate_ld = 310,
                        .gate_col = 7,
                        .is_by_column = true,
                        .is_plain = true,
                        .first = 1,
                        .n = 3};
    struct op_gate b = a;
    b.x = x.gpu, b.gate = g.gpu;
    BOTH(gate, &a, &b);
    pair_check(&x, 0, "gate");
    a.is_plain = b.is_plain = false;
    BOTH(gate, &a, &b);
    pair_check(&x, 1e-6, "gate");
    pair_free(&x);
    pair_free(&g);
}

TEST(embed_reads_rows_of_every_format) {
    UNUSED_STATE;
    static const enum by_dtype types[] = {
        BY_DTYPE_F32,   BY_DTYPE_BF16,    BY_DTYPE_F16,   BY_DTYPE_Q4_0,   BY_DTYPE_Q4_1,
        BY_DTYPE_Q8_0,  BY_DTYPE_Q5_0,    BY_DTYPE_Q5_1,  BY_DTYPE_Q2_K,   BY_DTYPE_Q3_K,
        BY_DTYPE_Q4_K,  BY_DTYPE_Q5_K,    BY_DTYPE_Q6_K,  BY_DTYPE_IQ4_NL, BY_DTYPE_IQ4_XS,
        BY_DTYPE_IQ1_S, BY_DTYPE_IQ2_XXS, BY_DTYPE_IQ2_S, BY_DTYPE_IQ3_S,  BY_DTYPE_TQ2_0,
        BY_DTYPE_F8_32};
    for (size_t i = 0; i < BY_COUNTOF(types); i++) {
        uint32_t n_in = by_dtype_block_len(types[i]) == 1 ? 75 : 512, ids[] = {3, 0, 18, 7, 3},
                 types_[] = {0, 1, 1, 0, 1};
        struct both_weights w = weights_new(types[i], 19, n_in, false, false);
        struct both_weights p = weights_new(BY_DTYPE_F32, 23, n_in, false, false);
        struct pair out = pair_new(5 * 520, 1);
        struct op_embed a = {.table = w.cpu,
                             .ids = ids,
                             .scale = 1.5f,
                             .pos_table = p.cpu,
                             .positions = ids,
                             .pos_offset = 2,
                             .type_table = p.cpu,
                             .types = i % 2 ? types_ : NULL,
                             .out = out.cpu,
                             .ld = 520,
                             .first = 1,
                             .n = 4};
        struct op_embed b = a;
        b.table = w.gpu, b.pos_table = b.type_table = p.gpu, b.out = out.gpu;
        BOTH(embed, &a, &b);
        pair_check(&out, 1e-6, by_dtype_name(types[i]));
        pair_free(&out);
        weights_free(&w);
        weights_free(&p);
    }
}

/* ---- products ---- */

struct linear_case {
    enum by_dtype type;
    uint32_t n_out, n_in, n, out_first, out_n;
    bool is_gated, has_norm, has_rows, is_add;
    enum act_kind act;
    float softcap;
};

/* What row `row` of x gives for output `out`, and what may be lost on the way. */
static struct rounded rounded_output(const struct linear_case *k, const struct both_weights *w,
                                     const struct op_linear *o, const struct rounded *x,
                                     uint32_t out) {
    const struct sample *m = w->sample;
    struct rounded v = rounded_sum(m, out, x, w->bias);
    if (k->is_gated)
        v = rounded_gate(k->act, v, rounded_sum(m, k->n_out / 2 + out, x, w->bias));
    else
        v = rounded_act(k->act, v);
    return rounded_scale(v, (double)o->scale); /* a cap brings nothing further apart */
}

/* Products of bf16: each number is as near as the format allows, and no other column is touched. */
static void check_rounding(const struct linear_case *k, const struct both_weights *w,
                           const struct op_linear *o, const struct pair *y, const char *what) {
    const float *got = gpu->get(gpu, y->gpu, y->n);
    uint32_t n = k->out_n ? k->out_n : k->is_gated ? k->n_out / 2 : k->n_out;
    struct rounded *x = by_alloc_array(k->n_in, sizeof *x);
    struct roundings all = {0};
    assert_non_null(got);
    for (uint32_t r = 0; r < y->n / o->y_ld; r++) {
        const float *own = got + (size_t)r * o->y_ld, *want = y->cpu + (size_t)r * o->y_ld;
        bool is_row = r >= o->first && r < o->first + o->n;
        uint32_t from = o->rows && is_row ? o->rows[r] : r;
        if (is_row) rounded_norm(o->norm, o->x + (size_t)from * o->x_ld + o->x_col, k->n_in, x);
        for (uint32_t c = 0; c < o->y_ld; c++) {
            struct rounded may = {0};
            if (is_row && c >= o->y_col && c - o->y_col < n)
                may = rounded_output(k, w, o, x, k->out_first + c - o->y_col);
            rounding_check(&all, own[c], want[c], &may, what);
        }
    }
    roundings_check(&all, what);
    by_free(x);
}

/* tolerance 0: what bf16 loses. */
static void check_linear(const struct linear_case *k, double tolerance) {
    struct both_weights w = weights_new(k->type, k->n_out, k->n_in, k->is_gated, k->n % 2);
    struct both_norms s = norms_new(k->n % 3 ? NORM_RMS : NORM_LAYER, k->n_in);
    uint32_t x_ld = k->n_in + (k->n % 2 ? 5 : 8), y_ld = k->n_out + 3, rows[256];
    struct pair x = pair_new((size_t)(k->n + 2) * x_ld, 1),
                y = pair_new((size_t)(k->n + 2) * y_ld, 1);
    for (uint32_t i = 0; i < k->n + 1; i++)
        rows[i] = world_below(k->n + 2);
    struct op_linear a = {.w = w.cpu,
                          .x = x.cpu,
                          .x_ld = x_ld,
                          .x_col = k->n % 2 ? 3 : 4,
                          .norm = k->has_norm ? &s.cpu : NULL,
                          .act = k->act,
                          .y = y.cpu,
                          .y_ld = y_ld,
                          .y_col = 1,
                          .is_add = k->is_add,
                          .scale = 0.9f,
                          .softcap = k->softcap,
                          .rows = k->has_rows ? rows : NULL,
                          .out_first = k->out_first,
                          .out_n = k->out_n,
                          .first = 1,
                          .n = k->n};
    struct op_linear b = a;
    char what[96];
    b.w = w.gpu, b.x = x.gpu, b.y = y.gpu, b.norm = k->has_norm ? &s.gpu : NULL;
    BOTH(linear, &a, &b);
    snprintf(what, sizeof what, "linear %s %ux%u, %u rows", by_dtype_name(k->type), k->n_out,
             k->n_in, k->n);
    if (tolerance > 0)
        pair_check(&y, tolerance, what);
    else
        check_rounding(k, &w, &a, &y, what);
    pair_free(&x);
    pair_free(&y);
    norms_free(&s);
    weights_free(&w);
}

TEST(linear_multiplies_by_every_format) {
    UNUSED_STATE;
    static const enum by_dtype types[] = {
        BY_DTYPE_F32,   BY_DTYPE_BF16,    BY_DTYPE_F16,   BY_DTYPE_Q4_0,   BY_DTYPE_Q4_1,
        BY_DTYPE_Q8_0,  BY_DTYPE_Q5_0,    BY_DTYPE_Q5_1,  BY_DTYPE_Q2_K,   BY_DTYPE_Q3_K,
        BY_DTYPE_Q4_K,  BY_DTYPE_Q5_K,    BY_DTYPE_Q6_K,  BY_DTYPE_IQ4_NL, BY_DTYPE_IQ4_XS,
        BY_DTYPE_IQ1_S, BY_DTYPE_IQ2_XXS, BY_DTYPE_IQ2_S, BY_DTYPE_IQ3_S,  BY_DTYPE_TQ2_0,
        BY_DTYPE_MXFP4, BY_DTYPE_F8_32,   BY_DTYPE_Z4_32};
    for (size_t i = 0; i < BY_COUNTOF(types); i++) {
        uint32_t n_in = by_dtype_block_len(types[i]) == 1 ? 45 : by_dtype_block_len(types[i]) * 3;
        for (uint32_t n = 1; n <= 5; n++)
            check_linear(&(struct linear_case){.type = types[i],
                                               .n_out = 38,
                                               .n_in = n_in,
                                               .n = n,
                                               .has_norm = n & 1,
                                               .has_rows = n & 2,
                                               .is_add = n == 2,
                                               .act = n == 3 ? ACT_GELU : ACT_NONE,
                                               .softcap = n == 4 ? 3 : 0},
                         by_dtype_is_quantised(types[i]) ? 1e-4 : 2e-5);
    }
}

/* Prompts: bf16 times bf16, by gemm.h where it is (lanes forward), else by tiles (backward). */
TEST(linear_multiplies_tiles) {
    UNUSED_STATE;
    static const enum by_dtype types[] = {BY_DTYPE_BF16, BY_DTYPE_F16, BY_DTYPE_Q4_0, BY_DTYPE_Q8_0,
                                          BY_DTYPE_F8_32};
    for (uint32_t i = 0; i < BY_COUNTOF(types); i++) {
        uint32_t n_in = i < 2 ? 45 : 96;
        check_linear(&(struct linear_case){.type = types[i],
                                           .n_out = 38 + i,
                                           .n_in = n_in,
                                           .n = 9 + 60 * i,
                                           .has_norm = i & 1,
                                           .has_rows = i & 2,
                                           .is_add = i == 2},
                     0);
        check_linear(&(struct linear_case){.type = types[i],
                                           .n_out = 2 * 51,
                                           .n_in = n_in,
                                           .n = 70 + i,
                                           .is_gated = true,
                                           .has_norm = true,
                                           .act = ACT_SILU},
                     0);
    }
}

/* More than its scratch holds at once: several pieces of a weight that is widened, with a bias and without. */
TEST(linear_multiplies_large_weights_in_pieces) {
    UNUSED_STATE;
    for (uint32_t i = 0; i < 2; i++)
        check_linear(&(struct linear_case){.type = BY_DTYPE_F16,
                                           .n_out = 1100,
                                           .n_in = 40,
                                           .n = 200 + i,
                                           .is_gated = i,
                                           .act = ACT_SILU},
                     0);
}

/* A tied matrix of which a rank multiplies some rows: those are chosen for. */
/* on a GPU nobody tells */
extern bool gemm_emu_tuned(uint32_t n_out, uint32_t m) __attribute__((weak));
extern uint32_t gemm_emu_newest(void) __attribute__((weak));
TEST(linear_is_tuned_for_the_outputs_that_are_asked_for) {
    UNUSED_STATE;
    struct sample *s = sample_new(BY_DTYPE_BF16, 101, 96);
    s->src.out_n = 37;
    struct weight *w = sample_weight(gpu, s);
    if (gemm_emu_tuned) assert_true(gemm_emu_tuned(37, 0) && !gemm_emu_tuned(101, 0));
    gpu->weight_free(gpu, w);
    sample_free(s);
}

/* Logits of a vocabulary of 262,208 at 64 rows are 67 MB, and scratch has 64: here 1,2 of 1 MiB. They are chosen for all the
 * same, and a cap leaves them one product. */
TEST(logits_that_scratch_does_not_hold_are_chosen_for) {
    UNUSED_STATE;
    enum { VOCAB = 4700 };
    check_linear(&(struct linear_case){.type = BY_DTYPE_BF16,
                                       .n_out = VOCAB,
                                       .n_in = 16,
                                       .n = 64,
                                       .has_norm = true,
                                       .softcap = 3},
                 0);
    if (!gemm_emu_tuned) return;
    assert_true(gemm_emu_tuned(VOCAB, 64) && gemm_emu_tuned(VOCAB, 1024));
    assert_int_equal(gemm_emu_newest(), VOCAB);
}

/* A weight has more rows than a grid may have blocks in y. */
TEST(linear_widens_weights_of_many_rows) {
    UNUSED_STATE;
    check_linear(&(struct linear_case){.type = BY_DTYPE_F16, .n_out = 70000, .n_in = 8, .n = 128},
                 0);
}

/* A rank's logits out of a matrix that it has whole: the other columns of y stay as they are. */
TEST(linear_computes_some_outputs) {
    UNUSED_STATE;
    static const enum by_dtype types[] = {BY_DTYPE_F32, BY_DTYPE_BF16, BY_DTYPE_Q8_0,
                                          BY_DTYPE_F8_32};
    static const uint32_t n_rows[] = {1, 5, 12, 130};
    for (size_t i = 0; i < BY_COUNTOF(types); i++)
        for (size_t k = 0; k < BY_COUNTOF(n_rows); k++)
            check_linear(&(struct linear_case){.type = types[i],
                                               .n_out = 101,
                                               .n_in = 96,
                                               .n = n_rows[k],
                                               .out_first = 16 * (uint32_t)k,
                                               .out_n = k == 3 ? 53 : 32,
                                               .has_norm = k & 1,
                                               .softcap = k == 2 ? 3 : 0},
                         n_rows[k] <= 8 || types[i] == BY_DTYPE_F32 ? 1e-4 : 0);
}

TEST(linear_gates) {
    UNUSED_STATE;
    static const enum act_kind acts[] = {ACT_SILU,  ACT_GELU,       ACT_GELU_TANH,  ACT_RELU,
                                         ACT_RELU2, ACT_QUICK_GELU, ACT_SWIGLU_OAI, ACT_NONE};
    for (uint32_t i = 0; i < BY_COUNTOF(acts); i++)
        check_linear(&(struct linear_case){.type = i % 2 ? BY_DTYPE_Q4_1 : BY_DTYPE_BF16,
                                           .n_out = 2 * 17,
                                           .n_in = 96,
                                           .n = 1 + i,
                                           .is_gated = true,
                                           .has_norm = true,
                                           .is_add = i & 1,
                                           .act = acts[i]},
                     2e-5);
}

TEST(linear_heads_give_each_head_its_columns) {
    UNUSED_STATE;
    enum { HEADS = 3 };
    struct both_weights w[HEADS];
    const struct weight *on_cpu[HEADS], *on_gpu[HEADS];
    for (int h = 0; h < HEADS; h++) {
        w[h] = weights_new(BY_DTYPE_BF16, 24, 16, false, false);
        on_cpu[h] = w[h].cpu, on_gpu[h] = w[h].gpu;
    }
    struct pair x = pair_new(6 * 90, 1), y = pair_new(6 * 100, 1);
    struct op_linear_heads a = {.w = on_cpu,
                                .n_heads = HEADS,
                                .x = x.cpu,
                                .x_ld = 90,
                                .x_col = 1,
                                .x_step = 28,
                                .y = y.cpu,
                                .y_ld = 100,
                                .y_col = 2,
                                .y_step = 32,
                                .n_copy = 7,
                                .x_copy_col = 17,
                                .y_copy_col = 25,
                                .first = 1,
                                .n = 4};
    struct op_linear_heads b = a;
    b.w = on_gpu, b.x = x.gpu, b.y = y.gpu;
    BOTH(linear_heads, &a, &b);
    pair_check(&y, 1e-5, "linear_heads");
    pair_free(&x);
    pair_free(&y);
    for (int h = 0; h < HEADS; h++)
        weights_free(&w[h]);
}

/* ---- main ---- */

/* Scratch of so few bytes that weights go in pieces, with little work. */
static int with_1m(void **state) {
    int rc = both_set_up(state);
    cuda_of(gpu)->part_bytes = 1 << 20;
    return rc;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        RUN(norm_adds_scales_and_leaves_other_columns_alone),
        RUN(gate_multiplies_by_a_sigmoid),
        RUN(gate_multiplies_column_by_column),
        RUN(embed_reads_rows_of_every_format),
        RUN(linear_multiplies_by_every_format),
        RUN(linear_gates),
        RUN(linear_multiplies_tiles),
        RUN(linear_heads_give_each_head_its_columns),
    };
    const struct CMUnitTest of_parts[] = {RUN(linear_computes_some_outputs),
                                          RUN(linear_widens_weights_of_many_rows)};
    const struct CMUnitTest alone[] = {RUN(linear_is_tuned_for_the_outputs_that_are_asked_for)};
    const struct CMUnitTest in_pieces[] = {RUN(linear_multiplies_large_weights_in_pieces),
                                           RUN(logits_that_scratch_does_not_hold_are_chosen_for)};
    int rc = WORLD_TESTS("first of all", alone, both_set_up, both_tear_down);
    rc += WORLD_TESTS("lanes forward", tests, both_set_up, both_tear_down);
    rc += WORLD_TESTS("lanes backward", tests, both_set_up_reversed, both_tear_down);
    rc += WORLD_TESTS("parts, by tiles", of_parts, both_set_up, both_tear_down);
    unsetenv("BANYAN_EMU_GEMM");
    rc += WORLD_TESTS("parts", of_parts, both_set_up, both_tear_down);
    return rc + WORLD_TESTS("1 MiB of scratch", in_pieces, with_1m, both_tear_down);
}
