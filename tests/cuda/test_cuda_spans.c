/* Attention of single rows on the tensor cores, by strips of keys or, over latent keys, by heads: as near to portable C as sums of f32
 * are to one another, for every group of heads; the CUDA backend, run by the emulator. */
#include <string.h>

#include "gpu_worker/cuda/attention.h"
#include "tests/cuda/attention_world.h"
#include "tests/cuda/both.h"

/* Each group of heads, and more than a block takes; widths that end within a fragment, and within 16 bytes (bytes go by lanes
 * then); spans of less than a strip and of several for each warp; windows, and pages, that end within a strip. */
static const struct attention_case cases[] = {{.n_heads = 2,
                                               .n_kv_heads = 2,
                                               .k_dim = 64,
                                               .v_dim = 64,
                                               .page_size = 16,
                                               .done = {0, 300, 17},
                                               .n = {2, 1, 1}},
                                              {.n_heads = 4,
                                               .n_kv_heads = 2,
                                               .k_dim = 128,
                                               .v_dim = 128,
                                               .page_size = 48,
                                               .done = {255, 256, 257},
                                               .n = {1, 1, 1},
                                               .window = 100},
                                              {.n_heads = 3,
                                               .n_kv_heads = 1,
                                               .k_dim = 72,
                                               .v_dim = 40,
                                               .page_size = 32,
                                               .done = {90, 0, 5},
                                               .n = {1, 1, 2},
                                               .has_sinks = true},
                                              {.n_heads = 4,
                                               .n_kv_heads = 1,
                                               .k_dim = 128,
                                               .v_dim = 94,
                                               .page_size = 16,
                                               .done = {515, 0, 70},
                                               .n = {1, 3, 2},
                                               .softcap = 2},
                                              {.n_heads = 5,
                                               .n_kv_heads = 1,
                                               .k_dim = 80,
                                               .v_dim = 80,
                                               .page_size = 80,
                                               .done = {163, 7, 0},
                                               .n = {1, 5, 0}},
                                              {.n_heads = 7,
                                               .n_kv_heads = 1,
                                               .k_dim = 256,
                                               .v_dim = 256,
                                               .page_size = 16,
                                               .done = {70, 0, 270},
                                               .n = {1, 1, 1},
                                               .window = 30,
                                               .has_sinks = true},
                                              {.n_heads = 8,
                                               .n_kv_heads = 1,
                                               .k_dim = 64,
                                               .v_dim = 128,
                                               .page_size = 48,
                                               .done = {200, 31, 14},
                                               .n = {1, 1, 3},
                                               .window = 5},
                                              {.n_heads = 9,
                                               .n_kv_heads = 1,
                                               .k_dim = 140,
                                               .v_dim = 144,
                                               .page_size = 16,
                                               .done = {130, 0, 0},
                                               .n = {1, 0, 1},
                                               .softcap = 30,
                                               .has_sinks = true},
                                              {.n_heads = 32,
                                               .n_kv_heads = 2,
                                               .k_dim = 16,
                                               .v_dim = 16,
                                               .page_size = 32,
                                               .done = {0, 40, 0},
                                               .n = {9, 3, 0},
                                               .is_full = true}};

/* Latent keys: fewer heads than a block takes, as many, and more; widths that end within a warp's columns (and within 16 bytes: bytes
 * go by lanes then); windows, and pages, that end within a stage. */
static const struct attention_case latent[] = {{.n_heads = 16,
                                                .n_kv_heads = 1,
                                                .k_dim = 576,
                                                .v_dim = 512,
                                                .page_size = 16,
                                                .done = {0, 300, 17},
                                                .n = {2, 1, 1}},
                                               {.n_heads = 5,
                                                .n_kv_heads = 1,
                                                .k_dim = 64,
                                                .v_dim = 48,
                                                .page_size = 16,
                                                .done = {255, 256, 257},
                                                .n = {1, 1, 1},
                                                .has_sinks = true},
                                               {.n_heads = 40,
                                                .n_kv_heads = 1,
                                                .k_dim = 288,
                                                .v_dim = 256,
                                                .page_size = 48,
                                                .done = {130, 0, 31},
                                                .n = {1, 3, 2},
                                                .window = 20},
                                               {.n_heads = 20,
                                                .n_kv_heads = 1,
                                                .k_dim = 576,
                                                .v_dim = 512,
                                                .page_size = 80,
                                                .done = {70, 0, 14},
                                                .n = {1, 1, 3},
                                                .window = 45,
                                                .softcap = 2},
                                               {.n_heads = 34,
                                                .n_kv_heads = 2,
                                                .k_dim = 328,
                                                .v_dim = 290,
                                                .page_size = 32,
                                                .done = {40, 5, 0},
                                                .n = {1, 5, 0},
                                                .softcap = 30,
                                                .has_sinks = true},
                                               {.n_heads = 16,
                                                .n_kv_heads = 1,
                                                .k_dim = 176,
                                                .v_dim = 162,
                                                .page_size = 16,
                                                .done = {0, 40, 0},
                                                .n = {9, 3, 0},
                                                .is_full = true}};

/* Two parts of bf16 instead of three would be about 1e-5 off, one of f16 1e-3. */
static void check_all(const struct attention_case *of, size_t n, bool is_latent) {
    for (size_t i = 0; i < n; i++) {
        for (int t = KV_BF16; t <= KV_FP8; t++) {
            struct attention_case k = of[i];
            k.dtype = (enum kv_dtype)t, k.is_latent = is_latent;
            k.is_plain = true, k.is_on_grid = t == KV_FP8;
            k.tolerance = 6e-6;
            attention_check(&k);
        }
    }
}

TEST(single_rows_are_of_f32) {
    UNUSED_STATE;
    check_all(cases, BY_COUNTOF(cases), false);
}

TEST(single_rows_over_latent_keys_are_of_f32) {
    UNUSED_STATE;
    check_all(latent, BY_COUNTOF(latent), true);
}

/* f16 reaches from 2^-24 to 2^16 only: queries of any size, and weights of any size, are of f32 all the same. */
TEST(single_rows_of_any_size_over_f16) {
    UNUSED_STATE;
    static const float sizes[] = {1e-30f, 1e-6f, 1, 1e6f, 1e30f};
    for (size_t i = 0; i < 2 * BY_COUNTOF(sizes); i++) {
        struct attention_case k = i % 2 ? latent[1] : cases[0];
        k.dtype = KV_F16, k.is_latent = i % 2, k.is_plain = true, k.q_size = sizes[i / 2];
        k.tolerance = 6e-6;
        attention_check(&k);
    }
}

/* Three rows of three sequences in one step, then each in a step of its own. */
static void check_company(const struct attention_case *k) {
    enum { SEQS = 3, PAGES = 40, ROWS = 600, OUT_MAX = 512 };
    static const uint32_t done[SEQS] = {270, 3, 600};
    struct attention_world w = {
        .k = k, .b = gpu, .kv = {k->n_kv_heads, k->k_dim, k->v_dim, 16, k->dtype, k->is_latent}};
    static uint32_t pages[SEQS][PAGES], positions[ROWS];
    const uint32_t n_out = k->n_heads * k->v_dim,
                   ld = (k->n_heads + 2 * k->n_kv_heads) * k->k_dim + 1;
    struct seq_rows seqs[SEQS];
    struct pair before = pair_new((size_t)ROWS * ld, 1), x = pair_new((size_t)SEQS * ld, 1),
                out = pair_new((size_t)SEQS * n_out + 2, 1);
    assert_true(n_out <= OUT_MAX);
    w.pool = gpu->kv_new(gpu, &w.kv, SEQS * PAGES);
    assert_non_null(w.pool);
    for (uint32_t q = 0; q < SEQS; q++) {
        for (uint32_t i = 0; i < PAGES; i++)
            pages[q][i] = i * SEQS + q;
        w.x = before.gpu;
        attention_run(&w, &(struct seq_rows){0, done[q], 0, pages[q], q}, 1, ld, 0, positions,
                      done[q], false);
        seqs[q] = (struct seq_rows){q, 1, done[q], pages[q], q};
    }
    w.x = x.gpu, w.out = out.gpu;
    attention_run(&w, seqs, SEQS, ld, n_out, positions, SEQS, true);
    float together[SEQS * OUT_MAX], *got = gpu->get(gpu, out.gpu, out.n);
    assert_non_null(got);
    memcpy(together, got + 2, SEQS * n_out * sizeof *got);
    for (uint32_t q = 0; q < SEQS; q++) {
        struct seq_rows alone = {0, 1, done[q], pages[q], q};
        w.x = x.gpu + (size_t)q * ld;
        attention_run(&w, &alone, 1, ld, n_out, positions, 1, true);
        got = gpu->get(gpu, out.gpu, out.n);
        assert_non_null(got);
        assert_memory_equal(got + 2, together + q * n_out, n_out * sizeof *got);
    }
    gpu->kv_free(gpu, w.pool);
    pair_free(&before);
    pair_free(&x);
    pair_free(&out);
}

TEST(single_rows_have_the_same_bits_in_any_company) {
    UNUSED_STATE;
    struct attention_case k = {.n_heads = 6,
                               .n_kv_heads = 2,
                               .k_dim = 64,
                               .v_dim = 64,
                               .page_size = 16,
                               .is_plain = true,
                               .dtype = KV_BF16};
    check_company(&k);
    k.n_heads = 20, k.n_kv_heads = 1, k.v_dim = 24, k.is_latent = true;
    check_company(&k);
}

/* Rows of other caches go by lanes: f32, wider ones, bytes that do not lie at multiples of 16. */
TEST(what_goes_by_strips_and_by_heads) {
    UNUSED_STATE;
    enum { LANES, STRIPS, HEADS };
    static const struct {
        struct kv_shape kv;
        int way;
    } shapes[] = {
        {{1, 128, 128, 16, KV_BF16, false}, STRIPS}, {{1, 256, 256, 16, KV_FP8, false}, STRIPS},
        {{1, 20, 12, 16, KV_F16, false}, STRIPS},    {{1, 80, 96, 48, KV_INT8, false}, STRIPS},
        {{1, 128, 128, 16, KV_F32, false}, LANES},   {{1, 264, 128, 16, KV_BF16, false}, LANES},
        {{1, 576, 512, 16, KV_BF16, false}, LANES},  {{1, 72, 64, 16, KV_INT8, false}, LANES},
        {{1, 64, 40, 16, KV_FP8, false}, LANES},     {{1, 72, 40, 16, KV_BF16, false}, STRIPS},
        {{1, 576, 512, 16, KV_BF16, true}, HEADS},   {{1, 576, 512, 16, KV_FP8, true}, HEADS},
        {{1, 576, 512, 16, KV_F32, true}, LANES},    {{1, 584, 512, 16, KV_F16, true}, LANES},
        {{1, 576, 520, 16, KV_F16, true}, LANES},    {{1, 72, 40, 16, KV_F16, true}, HEADS},
        {{1, 328, 290, 16, KV_INT8, true}, LANES},   {{1, 64, 40, 18, KV_INT8, true}, LANES}};
    for (size_t i = 0; i < BY_COUNTOF(shapes); i++) {
        const struct op_attention o = {.kv = shapes[i].kv};
        assert_int_equal(attention_fits_heads(&o)    ? HEADS
                         : attention_fits_strips(&o) ? STRIPS
                                                     : LANES,
                         shapes[i].way);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        RUN(single_rows_are_of_f32), RUN(single_rows_over_latent_keys_are_of_f32),
        RUN(single_rows_of_any_size_over_f16), RUN(single_rows_have_the_same_bits_in_any_company),
        RUN(what_goes_by_strips_and_by_heads)};
    int rc = WORLD_TESTS("lanes forward", tests, both_set_up, both_tear_down);
    return rc + WORLD_TESTS("lanes backward", tests, both_set_up_reversed, both_tear_down);
}
