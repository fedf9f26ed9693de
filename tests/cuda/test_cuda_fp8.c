/* Products of FP8 weights in FP8 (large_f8.cu) against portable C. Rows whose numbers FP8 keeps as they are leave nothing but the
 * order of sums; others are held to what rounding can do. On a GPU this is what proves that way (tests/gpu/check.sh):
 *
 *     test_cuda_fp8 [fp8|fp8-blocks]        one scale a weight row, or one for 128 columns; default: both, and what is the
 *                                           emulator's */
#include <math.h>
#include <string.h>

#include "common/base/mem.h"
#include "gpu_worker/cuda/proven.h"
#include "tests/cuda/both.h"

enum { Y_COL = 3 };

static bool is_emulated(void) {
    return strstr(gpu->name, "SIMT emulator");
}

/* Scales of the blocks of 32 columns: by tensor, by row, by 128 columns, by each. */
enum scales { OF_TENSOR, OF_ROWS, OF_128, OF_32 };

static void set_scales(struct sample *s, enum scales kind) {
    const uint32_t n_blocks = s->src.n_in / 32;
    for (uint32_t r = 0; r < s->src.n_out; r++)
        for (uint32_t b = 0; b < n_blocks; b++) {
            uint32_t i = kind == OF_TENSOR ? 0
                         : kind == OF_ROWS ? r
                         : kind == OF_128  ? r + b / 4
                                           : r + b;
            float scale = 0.001f * (float)(1 + i * 7 % 5);
            memcpy(s->bytes + r * s->row_bytes + b * sizeof(struct by_block_f8_32), &scale,
                   sizeof scale);
        }
}

/* Rows of small numbers of E4M3, with 448 times a power of two in each 128 columns. */
static struct pair grid_rows(uint32_t n, uint32_t n_in, uint32_t ld) {
    float *x = by_alloc_array((size_t)n * ld, sizeof *x);
    for (uint32_t r = 0; r < n; r++) {
        float scale = ldexpf(1, -(int)(r % 5));
        for (uint32_t k = 0; k < n_in; k++)
            x[r * ld + k] =
                scale * by_f8_e4m3_to_f32((uint8_t)(world_below(2) << 7 | world_below(0x48)));
        for (uint32_t k = 0; k < n_in; k += 128)
            x[r * ld + k + world_below(BY_MIN(128u, n_in - k))] = 448 * scale;
    }
    struct pair p = pair_of(x, (size_t)n * ld);
    by_free(x);
    return p;
}

struct f8_case {
    enum scales scales;
    uint32_t n_out, n_in, n, out_first, out_n;
    bool is_gated, has_bias, is_add;
    enum act_kind act;
    float softcap;
};

static void check(const struct f8_case *k, enum gemm_kind kind) {
    struct both_weights w = {.sample = sample_new(BY_DTYPE_F8_32, k->n_out, k->n_in)};
    float *bias = by_alloc_array(k->n_out, sizeof *bias);
    uint32_t ld = k->n_in + 4, y_ld = k->n_out + 5;
    struct pair x = grid_rows(k->n + 1, k->n_in, ld), y = pair_new((size_t)(k->n + 1) * y_ld, 1);
    char what[96];
    world_floats(bias, k->n_out, 1);
    set_scales(w.sample, k->scales);
    w.sample->src.is_gated = k->is_gated;
    w.sample->src.bias = k->has_bias ? bias : NULL;
    w.cpu = sample_weight(cpu, w.sample);
    w.gpu = sample_weight(gpu, w.sample);
    assert_int_equal(w.gpu->f8, kind);
    struct op_linear a = {.w = w.cpu,
                          .x = x.cpu,
                          .x_ld = ld,
                          .act = k->act,
                          .y = y.cpu,
                          .y_ld = y_ld,
                          .y_col = Y_COL,
                          .is_add = k->is_add,
                          .scale = 0.9f,
                          .softcap = k->softcap,
                          .out_first = k->out_first,
                          .out_n = k->out_n,
                          .first = 1,
                          .n = k->n};
    struct op_linear b = a;
    b.w = w.gpu, b.x = x.gpu, b.y = y.gpu;
    BOTH(linear, &a, &b);
    snprintf(what, sizeof what, "fp8 %ux%u, %u rows", k->n_out, k->n_in, k->n);
    /* Tensor cores keep some 13 bits of a sum of FP8, for up to 128 columns: 2^-13 of each term, all one way at the worst. */
    pair_check(&y, is_emulated() ? 1e-4 : 128.0 / 8192, what);
    pair_free(&x);
    pair_free(&y);
    weights_free(&w);
    by_free(bias);
}

/* Few rows (f32), many; a bias and an activation, gates, parts of the outputs, sums that are added. */
static void check_shapes(enum scales scales, enum gemm_kind kind) {
    const struct f8_case cases[] = {
        {.scales = scales, .n_out = 48, .n_in = 256, .n = 3},
        {.scales = scales, .n_out = 48, .n_in = 256, .n = 9, .is_add = true},
        {.scales = scales, .n_out = 80, .n_in = 256, .n = 130, .has_bias = true, .act = ACT_RELU},
        {.scales = scales, .n_out = 224, .n_in = 384, .n = 70, .is_gated = true, .act = ACT_RELU},
        {.scales = scales, .n_out = 112, .n_in = 256, .n = 20, .out_first = 32, .out_n = 64},
        {.scales = scales, .n_out = 112, .n_in = 384, .n = 40, .softcap = 30}};
    for (size_t i = 0; i < BY_COUNTOF(cases); i++)
        check(&cases[i], kind);
    if (!is_emulated())
        check(&(struct f8_case){.scales = scales, .n_out = 1024, .n_in = 4096, .n = 300}, kind);
}

TEST(a_scale_a_row_is_multiplied_in_fp8) {
    UNUSED_STATE;
    check_shapes(OF_TENSOR, GEMM_F8);
    check_shapes(OF_ROWS, GEMM_F8);
}

TEST(a_scale_for_128_columns_is_multiplied_in_fp8) {
    UNUSED_STATE;
    check_shapes(OF_128, GEMM_F8_BLOCKS);
}

/* A product of all rows is four commands (prepare, round, multiply, finish): nothing is gathered for it. */
TEST(scales_are_gathered_at_load) {
    UNUSED_STATE;
    enum { OUT = 48, IN = 256, ROWS = 20 };
    for (int kind = OF_TENSOR; kind <= OF_128; kind++) {
        struct both_weights w = {.sample = sample_new(BY_DTYPE_F8_32, OUT, IN)};
        set_scales(w.sample, (enum scales)kind);
        w.cpu = sample_weight(cpu, w.sample), w.gpu = sample_weight(gpu, w.sample);
        if (w.gpu->f8 != GEMM_BF16) {
            struct pair x = pair_new(ROWS * IN, 1), y = pair_new(ROWS * OUT, 1);
            struct op_linear op = {
                .w = w.gpu, .x = x.gpu, .x_ld = IN, .y = y.gpu, .y_ld = OUT, .scale = 1, .n = ROWS};
            struct queue *q = cuda_of(gpu)->queue;
            uint64_t before = queue_counted(q).n_commands;
            RUN_OP(gpu, linear, &op);
            assert_int_equal(queue_counted(q).n_commands - before, 4);
            pair_free(&x);
            pair_free(&y);
        }
        weights_free(&w);
    }
}

/* Room for the sums of 128 weight rows and 384 of x. */
static int with_512k(void **state) {
    int rc = both_set_up(state);
    cuda_of(gpu)->part_bytes = 512 << 10;
    return rc;
}

TEST(pieces_of_a_weight_have_scales_of_their_own) {
    UNUSED_STATE;
    check(&(struct f8_case){.scales = OF_ROWS, .n_out = 336, .n_in = 128, .n = 257, .is_add = true},
          GEMM_F8);
    check(&(struct f8_case){.scales = OF_128, .n_out = 336, .n_in = 256, .n = 257, .is_add = true},
          GEMM_F8_BLOCKS);
}

/* A number of E4M3 is within a sixteenth of what it stands for, or 2^-10 of a row whose largest is 448; such errors are even, so
 * that together they come to less than 1 / sqrt(3) of that. */
static void check_rounding(const struct both_weights *w, const float *x, const struct pair *y,
                           uint32_t n_rows) {
    const uint32_t n_in = w->sample->src.n_in, n_out = w->sample->src.n_out;
    const float *got = gpu->get(gpu, y->gpu, y->n);
    double all_errors = 0, all_terms = 0;
    assert_non_null(got);
    for (uint32_t r = 0; r < n_rows; r++, x += n_in) {
        double top = 0;
        for (uint32_t k = 0; k < n_in; k++)
            top = fmax(top, fabs((double)x[k]));
        for (uint32_t o = 0; o < n_out; o++) {
            double bound = 1e-6, terms = 0, size = 0;
            for (uint32_t k = 0; k < n_in; k++) {
                double v = (double)w->sample->values[o * n_in + k], t = v * (double)x[k];
                bound += fabs(t) / 16 + fabs(v) * top / 448 / 1024;
                terms += t * t, size += fabs(t);
            }
            if (!is_emulated()) bound += size * 128 / 8192;
            double want = (double)y->cpu[r * n_out + o], d = (double)got[r * n_out + o] - want;
            if (isnan(want) && isnan(d)) continue;
            if (!(fabs(d) <= bound))
                fail_msg("row %u, %u: off by %g, at most %g is rounding", r, o, d, bound);
            all_errors += d * d, all_terms += terms;
        }
    }
    assert_true(all_errors > 0 &&
                all_errors <= all_terms / (16 * 16 * 3) * (is_emulated() ? 1 : 2));
}

/* Activations as they come, in rows of many sizes. A row of zeros stays one, one with a NaN is lost alone. */
static void check_rounded(enum scales kind) {
    enum { OUT = 64, IN = 384, ROWS = 33 };
    struct both_weights w = {.sample = sample_new(BY_DTYPE_F8_32, OUT, IN)};
    float *x = by_alloc_array(ROWS * IN, sizeof *x);
    set_scales(w.sample, kind);
    w.cpu = sample_weight(cpu, w.sample);
    w.gpu = sample_weight(gpu, w.sample);
    assert_int_not_equal(w.gpu->f8, GEMM_BF16);
    world_floats(x, ROWS * IN, 1);
    for (uint32_t r = 0; r < ROWS; r++)
        for (uint32_t k = 0; k < IN; k++)
            x[r * IN + k] *= r == 7 ? 0 : ldexpf(1, 3 * (int)(r % 9) - 12);
    x[12 * IN + 5] = NAN;
    struct pair in = pair_of(x, ROWS * IN), y = pair_new(ROWS * OUT, 1);
    struct op_linear a = {
        .w = w.cpu, .x = in.cpu, .x_ld = IN, .y = y.cpu, .y_ld = OUT, .scale = 1, .n = ROWS};
    struct op_linear b = a;
    b.w = w.gpu, b.x = in.gpu, b.y = y.gpu;
    BOTH(linear, &a, &b);
    check_rounding(&w, x, &y, ROWS);
    pair_free(&in);
    pair_free(&y);
    by_free(x);
    weights_free(&w);
}

TEST(rows_are_rounded_by_their_largest_number) {
    UNUSED_STATE;
    check_rounded(OF_ROWS);
}

TEST(columns_are_rounded_by_the_largest_of_128) {
    UNUSED_STATE;
    check_rounded(OF_128);
}

/* What has no kind of scales that the card takes, or was not proven, goes as before. */
TEST(other_scales_and_cards_go_as_before) {
    UNUSED_STATE;
    check(&(struct f8_case){.scales = OF_32, .n_out = 48, .n_in = 256, .n = 3}, GEMM_BF16);
    check(&(struct f8_case){.scales = OF_ROWS, .n_out = 40, .n_in = 256, .n = 3}, GEMM_BF16);
    check(&(struct f8_case){.scales = OF_128, .n_out = 48, .n_in = 160, .n = 3}, GEMM_BF16);
    cuda_of(gpu)->device.major = 8; /* minor 0 */
    check(&(struct f8_case){.scales = OF_ROWS, .n_out = 48, .n_in = 256, .n = 3}, GEMM_BF16);
    cuda_of(gpu)->device.major = 12;
    check(&(struct f8_case){.scales = OF_128, .n_out = 48, .n_in = 256, .n = 3}, GEMM_BF16);
    cuda_of(gpu)->device.major = 9;
    cuda_of(gpu)->proven = PROVEN_F8_BLOCKS;
    check(&(struct f8_case){.scales = OF_ROWS, .n_out = 48, .n_in = 256, .n = 3}, GEMM_F8_BLOCKS);
    cuda_of(gpu)->proven = 0;
    check(&(struct f8_case){.scales = OF_ROWS, .n_out = 48, .n_in = 256, .n = 3}, GEMM_BF16);
}

int main(int argc, char **argv) {
    const struct CMUnitTest of_rows[] = {RUN(a_scale_a_row_is_multiplied_in_fp8),
                                         RUN(rows_are_rounded_by_their_largest_number)};
    const struct CMUnitTest of_blocks[] = {RUN(a_scale_for_128_columns_is_multiplied_in_fp8),
                                           RUN(columns_are_rounded_by_the_largest_of_128)};
    const struct CMUnitTest in_pieces[] = {RUN(pieces_of_a_weight_have_scales_of_their_own)};
    const struct CMUnitTest choices[] = {RUN(scales_are_gathered_at_load),
                                         RUN(other_scales_and_cards_go_as_before)};
    const char *only = argc > 1 ? argv[1] : "all";
    setenv("BANYAN_TEST_CUDA_WAYS", only, 1);
    if (strcmp(only, "fp8") == 0) return WORLD_TESTS(only, of_rows, both_set_up, both_tear_down);
    if (strcmp(only, "fp8-blocks") == 0)
        return WORLD_TESTS(only, of_blocks, both_set_up, both_tear_down);
    int rc = WORLD_TESTS("rows", of_rows, both_set_up, both_tear_down);
    rc += WORLD_TESTS("blocks", of_blocks, both_set_up, both_tear_down);
    rc += WORLD_TESTS("512 KiB of scratch", in_pieces, with_512k, both_tear_down);
    rc += WORLD_TESTS("choices", choices, both_set_up, both_tear_down);
    setenv("BANYAN_EMU_REVERSE", "1", 1);
    rc += WORLD_TESTS("rows, lanes backward", of_rows, both_set_up, both_tear_down);
    return rc + WORLD_TESTS("blocks, lanes backward", of_blocks, both_set_up, both_tear_down);
}
