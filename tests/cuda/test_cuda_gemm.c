/* gemm_lt.c, which is made for cuBLASLt, over a library of loops (lt_loops.h). */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/file.h"
#include "common/modelfile/dtype.h"
#include "gpu_worker/cuda/gemm.h"
#include "gpu_worker/cuda/gemm_choices.h"
#include "tests/cuda/lt_loops.h"
#include "tests/unit/test.h"

enum { M = 40, N_OUT = 24, N_IN = 16 };

/* ---- a device with one product ---- */

static struct gemm *gemm;
static char folder[] = "/tmp/banyan-gemm-XXXXXX", path[64];
static const char *device_name = "a device";
static uint16_t *w, *x;
static float *y;

/* As the next process does. */
static void open_again(void) {
    struct by_err err;
    gemm_close(gemm);
    const struct gemm_place at = {lt_loops.port, lt_loops.scratch, device_name, path};
    if (gemm_open(&gemm, &at, &err)) fail_msg("%s", err.text);
    lt_loops.n_asked = lt_loops.n_run = 0;
}

static int set_up(void **state) {
    struct port_device device;
    struct by_err err;
    (void)state;
    memset(&lt_loops, 0, sizeof lt_loops);
    lt_loops.n_guesses = LT_LOOPS_N;
    for (uint32_t i = 0; i < LT_LOOPS_N; i++)
        lt_loops.cost[i] = 100;
    if (port_open(&lt_loops.port, 0, &device, &err)) fail_msg("%s", err.text);
    lt_loops.scratch = port_malloc(lt_loops.port, 64);
    w = port_malloc(lt_loops.port, 2 * 1200 * N_IN);
    x = port_malloc(lt_loops.port, 2 * 1200 * N_IN);
    y = port_malloc(lt_loops.port, sizeof *y * 1200 * N_OUT);
    for (uint32_t i = 0; i < 1200 * N_IN; i++) {
        w[i] = by_f32_to_bf16((float)(i * 7 % 11) - 5);
        x[i] = by_f32_to_bf16((float)(i * 5 % 13) - 6);
    }
    (void)unlink(path);
    open_again();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    gemm_close(gemm);
    gemm = NULL;
    device_name = "a device";
    lt_loops.version = 0;
    void *all[] = {lt_loops.scratch, w, x, y};
    for (size_t i = 0; i < BY_COUNTOF(all); i++)
        port_free(lt_loops.port, all[i]);
    port_close(lt_loops.port);
    return 0;
}

static struct gemm_call call_of(uint32_t n_out, uint32_t m) {
    return (struct gemm_call){.w = w,
                              .x = x,
                              .y = y,
                              .w_ld = N_IN,
                              .x_ld = N_IN,
                              .y_ld = N_OUT,
                              .n_out = n_out,
                              .n_in = N_IN,
                              .m = m,
                              .alpha = 1};
}

static void tune(uint32_t n_out, uint32_t m) {
    struct gemm_call c = call_of(n_out, m);
    assert_int_equal(gemm_tune(gemm, &c, y, sizeof *y * 1200 * N_OUT), 0);
}

/* The number of the algorithm that a product of m rows goes by. */
static uint32_t used(uint32_t n_out, uint32_t m) {
    struct gemm_call c = call_of(n_out, m);
    assert_int_equal(gemm_run(gemm, &c), 0);
    return lt_loops.last;
}

/* ---- what it chooses ---- */

TEST(a_product_is_what_it_says) {
    UNUSED_STATE;
    struct gemm_call c = call_of(N_OUT, M);
    c.alpha = 0.5f, c.beta = 2, c.y = y + 1, c.w_ld = 2 * N_IN;
    for (uint32_t i = 0; i < 1200 * N_OUT; i++)
        y[i] = (float)i;
    assert_int_equal(gemm_run(gemm, &c), 0);
    for (uint32_t r = 0; r < M; r++)
        for (uint32_t o = 0; o < N_OUT; o++) {
            float sum = 0;
            for (uint32_t k = 0; k < N_IN; k++)
                sum += by_bf16_to_f32(x[r * N_IN + k]) * by_bf16_to_f32(w[o * 2 * N_IN + k]);
            assert_true(y[1 + r * N_OUT + o] == 0.5f * sum + 2 * (float)(1 + r * N_OUT + o));
        }
    assert_true(y[0] == 0 && y[1 + M * N_OUT] == 1 + M * N_OUT);
}

/* FP8, as they are and with a scale for 128 columns of each row; each kind has choices of its own. */
TEST(a_product_of_fp8_is_what_it_says) {
    UNUSED_STATE;
    enum { F8_IN = 256, F8_OUT = 32, F8_M = 12 };
    const uint8_t *w8 = (const uint8_t *)w, *x8 = (const uint8_t *)x;
    float scales[2][F8_IN / 128 * F8_OUT];
    struct gemm_call c = {.w = w8,
                          .x = x8,
                          .y = y,
                          .kind = GEMM_F8,
                          .w_ld = F8_IN + 32,
                          .x_ld = F8_IN,
                          .y_ld = F8_OUT,
                          .n_out = F8_OUT,
                          .n_in = F8_IN,
                          .m = F8_M,
                          .alpha = 1};
    for (uint32_t i = 0; i < 1200 * N_IN * 2; i++) {
        ((uint8_t *)w)[i] = (uint8_t)(i * 7 % 90 + 128 * (i % 2));
        ((uint8_t *)x)[i] = (uint8_t)(i * 5 % 90);
    }
    for (uint32_t i = 0; i < BY_COUNTOF(scales[0]); i++) {
        scales[0][i] = 1 + (float)(i % 7);
        scales[1][i] = 0.5f + (float)(i % 3);
    }
    for (int kind = GEMM_F8; kind <= GEMM_F8_BLOCKS; kind++) {
        bool is_blocks = kind == GEMM_F8_BLOCKS;
        c.kind = (enum gemm_kind)kind;
        c.w_scales = is_blocks ? scales[0] : NULL, c.x_scales = is_blocks ? scales[1] : NULL;
        uint32_t n_asked = lt_loops.n_asked;
        assert_true(gemm_serves(gemm, &c));
        assert_int_equal(gemm_run(gemm, &c), 0);
        assert_int_equal(gemm_run(gemm, &c), 0);
        assert_int_equal(lt_loops.n_asked, n_asked + 2);
        for (uint32_t r = 0; r < F8_M; r++)
            for (uint32_t o = 0; o < F8_OUT; o++) {
                double sum = 0, size = 0;
                for (uint32_t k = 0; k < F8_IN; k++) {
                    double v = (double)by_f8_e4m3_to_f32(x8[r * F8_IN + k]) *
                               (double)by_f8_e4m3_to_f32(w8[o * (F8_IN + 32) + k]);
                    if (is_blocks)
                        v *= (double)(scales[0][k / 128 * F8_OUT + o] *
                                      scales[1][k / 128 * F8_M + r]);
                    sum += v, size += fabs(v);
                }
                assert_true(fabs((double)y[r * F8_OUT + o] - sum) <= 1e-5 * size);
            }
    }
    lt_loops.n_guesses = 0;
    c.n_out = 16;
    assert_false(gemm_serves(gemm, &c));
}

TEST(the_quickest_guess_is_taken_and_stays) {
    UNUSED_STATE;
    lt_loops.cost[2] = 80;
    tune(N_OUT, 64);
    assert_int_equal(lt_loops.n_asked, 1);
    lt_loops.cost[2] = 300;
    lt_loops.cost[1] = 10;
    for (uint32_t m = 33; m <= 64; m++)
        assert_int_equal(used(N_OUT, m), 2);
    tune(N_OUT, 64); /* weights of the same shape in the next layer */
    assert_int_equal(used(N_OUT, M), 2);
    assert_int_equal(lt_loops.n_asked, 1);
}

TEST(what_may_be_noise_changes_nothing) {
    UNUSED_STATE;
    lt_loops.cost[3] = 98;
    tune(N_OUT, 64);
    assert_int_equal(used(N_OUT, 64), 0);
}

TEST(a_guess_that_cannot_be_carried_out_is_left) {
    UNUSED_STATE;
    lt_loops.cost[0] = lt_loops.cost[1] = 0;
    lt_loops.cost[3] = 90;
    tune(N_OUT, 64);
    assert_int_equal(used(N_OUT, 64), 3);
}

TEST(each_class_of_rows_has_its_own) {
    UNUSED_STATE;
    static const uint32_t edges[][2] = {{1, 16},    {16, 16},   {17, 32},   {33, 64},
                                        {64, 64},   {65, 96},   {96, 96},   {97, 128},
                                        {129, 192}, {193, 256}, {257, 384}, {1024, 1024}};
    for (size_t i = 0; i < BY_COUNTOF(edges); i++)
        assert_int_equal(gemm_class_of(edges[i][0]), edges[i][1]);
    for (uint32_t m = gemm_class_of(1), i = 0; m <= 1024; m = gemm_class_of(m + 1), i++) {
        for (uint32_t k = 0; k < LT_LOOPS_N; k++)
            lt_loops.cost[k] = k == i % LT_LOOPS_N ? 5 : 10;
        tune(N_OUT, m);
    }
    for (uint32_t m = gemm_class_of(1), i = 0; m <= 1024; m = gemm_class_of(m + 1), i++)
        assert_int_equal(used(N_OUT, m), i % LT_LOOPS_N);
}

TEST(a_shape_that_was_not_tuned_is_asked_for_once) {
    UNUSED_STATE;
    lt_loops.cost[1] = 1;
    assert_int_equal(used(N_OUT, M), 0);
    assert_int_equal(used(N_OUT, M + 1), 0);
    assert_int_equal(lt_loops.n_asked, 1);
    assert_int_equal(lt_loops.n_run, 2);
}

TEST(rows_that_the_algorithm_of_their_class_does_not_serve_have_one) {
    UNUSED_STATE;
    lt_loops.cost[2] = 50;
    tune(N_OUT, 64);
    lt_loops.refuses = 41;
    assert_int_equal(used(N_OUT, 41), 0);
    assert_int_equal(used(N_OUT, 42), 2);
    assert_int_equal(lt_loops.n_asked, 2);
}

/* More shapes than are remembered: those that were tuned stay. */
TEST(a_full_table_forgets_nothing_that_was_tuned) {
    UNUSED_STATE;
    lt_loops.cost[2] = 1;
    tune(N_OUT, 16);
    lt_loops.cost[2] = 9;
    for (uint32_t m = 1; m <= 1100; m++) { /* a shape each: the class does not serve */
        lt_loops.refuses = m;
        (void)used(1, m);
    }
    lt_loops.refuses = 0;
    uint32_t n = lt_loops.n_asked;
    assert_int_equal(used(N_OUT, 16), 2);
    assert_int_equal(lt_loops.n_asked, n);
}

TEST(a_library_that_knows_no_way_is_told_of_with_the_shape) {
    UNUSED_STATE;
    lt_loops.n_guesses = 0;
    tune(N_OUT, 64);
    struct gemm_call c = call_of(N_OUT, M);
    assert_int_not_equal(gemm_run(gemm, &c), 0);
    assert_string_equal(port_error(lt_loops.port),
                        "cuBLASLt: [40, 16] times [24, 16]: not supported");
}

/* ---- choices of an earlier process ---- */

static void tune_two(void) {
    lt_loops.cost[2] = 80;
    tune(N_OUT, 64);
    lt_loops.cost[2] = 100;
    lt_loops.cost[1] = 50;
    tune(N_OUT, 128);
    lt_loops.cost[1] = 100;
}

TEST(the_next_process_times_nothing_and_goes_the_same_way) {
    UNUSED_STATE;
    tune_two();
    for (int i = 0; i < 2; i++) {
        open_again();
        lt_loops.cost[3] = 1; /* what it would choose */
        tune(N_OUT, 64);
        tune(N_OUT, 128);
        assert_int_equal(lt_loops.n_asked, 0);
        assert_int_equal(lt_loops.n_run, 0);
        assert_int_equal(used(N_OUT, 64), 2);
        assert_int_equal(used(N_OUT, 128), 1);
    }
}

static void timed_anew(void) {
    lt_loops.cost[3] = 1;
    tune(N_OUT, 64);
    assert_int_equal(lt_loops.n_asked, 1);
    assert_int_equal(used(N_OUT, 64), 3);
    lt_loops.cost[3] = 100;
}

TEST(another_library_or_device_chooses_for_itself) {
    UNUSED_STATE;
    tune_two();
    lt_loops.version = 130200;
    open_again();
    timed_anew();
    lt_loops.version = 0;
    device_name = "another device";
    open_again();
    timed_anew();
    device_name = "a device"; /* all have their lines in one file */
    open_again();
    tune(N_OUT, 64);
    assert_int_equal(lt_loops.n_asked, 0);
    assert_int_equal(used(N_OUT, 64), 2);
}

TEST(what_the_library_no_longer_takes_is_timed_anew) {
    UNUSED_STATE;
    tune(N_OUT, 64);
    struct gemm_choices *c = gemm_choices_new(NULL, "nobody");
    assert_int_equal(gemm_choices_count(c), 0);
    gemm_choices_free(c);
    c = gemm_choices_new(path, "cuBLASLt 0, 33554432 bytes of workspace, a device");
    assert_int_equal(gemm_choices_count(c), 1);
    /* A line that is in order, and names an algorithm that does not serve these rows. */
    const struct gemm_choice bad = {GEMM_BF16, 128, N_OUT, N_IN, 16, {2, 64}};
    gemm_choices_add(c, &bad);
    gemm_choices_free(c);
    open_again();
    lt_loops.refuses = 128;
    lt_loops.cost[1] = 5;
    tune(N_OUT, 128);
    assert_int_equal(lt_loops.n_asked, 1);
    assert_int_equal(used(N_OUT, 128), 1);
}

static struct by_buf whole_file(void) {
    struct by_buf b;
    struct by_err err;
    by_buf_init(&b, 1 << 20);
    if (by_file_read(&b, path, &err)) fail_msg("%s", err.text);
    return b;
}

/* Each byte in turn becomes another one, and the file ends at each byte: nothing but whole lines as they were written counts. */
TEST(a_damaged_file_costs_the_timing_only) {
    UNUSED_STATE;
    struct by_err err;
    tune_two();
    struct by_buf good = whole_file(), bad = whole_file();
    for (size_t i = 0; i < good.n; i++) {
        bad.p[i] = (char)(good.p[i] ^ 1);
        assert_int_equal(by_file_write(path, (struct by_str){bad.p, bad.n}, &err), 0);
        bad.p[i] = good.p[i];
        open_again();
        tune(N_OUT, 64);
        tune(N_OUT, 128);
        assert_true(lt_loops.n_asked <= 1);
        assert_int_equal(by_file_write(path, (struct by_str){good.p, i}, &err), 0);
        open_again();
        tune(N_OUT, 64);
        tune(N_OUT, 128);
        assert_true(lt_loops.n_asked <= 2);
        open_again(); /* what was lost is there again, behind the torn line */
        tune(N_OUT, 64);
        tune(N_OUT, 128);
        assert_int_equal(lt_loops.n_asked, 0);
    }
    by_buf_release(&good);
    by_buf_release(&bad);
}

TEST(a_file_that_cannot_be_is_done_without) {
    UNUSED_STATE;
    char kept[sizeof path];
    memcpy(kept, path, sizeof kept);
    snprintf(path, sizeof path, "/proc/none/choices");
    open_again();
    timed_anew();
    memcpy(path, kept, sizeof path);
}

#define ONE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        ONE(the_next_process_times_nothing_and_goes_the_same_way),
        ONE(another_library_or_device_chooses_for_itself),
        ONE(what_the_library_no_longer_takes_is_timed_anew),
        ONE(a_damaged_file_costs_the_timing_only),
        ONE(a_file_that_cannot_be_is_done_without),
        ONE(a_product_is_what_it_says),
        ONE(a_product_of_fp8_is_what_it_says),
        ONE(the_quickest_guess_is_taken_and_stays),
        ONE(what_may_be_noise_changes_nothing),
        ONE(a_guess_that_cannot_be_carried_out_is_left),
        ONE(each_class_of_rows_has_its_own),
        ONE(a_shape_that_was_not_tuned_is_asked_for_once),
        ONE(rows_that_the_algorithm_of_their_class_does_not_serve_have_one),
        ONE(a_full_table_forgets_nothing_that_was_tuned),
        ONE(a_library_that_knows_no_way_is_told_of_with_the_shape)};
    if (!mkdtemp(folder)) return 1;
    snprintf(path, sizeof path, "%s/cache/choices", folder);
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(path);
    path[strlen(path) - strlen("/choices")] = '\0';
    return rmdir(path) || rmdir(folder) ? 1 : rc;
}
