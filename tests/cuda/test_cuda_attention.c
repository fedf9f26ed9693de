/* Keys and values into pages and attention over them: the CUDA backend, run by the emulator, against portable C; every type of
 * the cache, odd shapes, NaN wherever nobody may look. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gpu_worker/cuda/attention.h"
#include "gpu_worker/cuda/proven.h"
#include "tests/cuda/attention_world.h"
#include "tests/cuda/both.h"

static const struct attention_case cases[] = {
    {.n_heads = 4, .n_kv_heads = 2, .k_dim = 16, .v_dim = 16, .page_size = 16, .n = {3, 40, 1}},
    {.n_heads = 6,
     .n_kv_heads = 2,
     .k_dim = 20,
     .v_dim = 12,
     .page_size = 16,
     .done = {0, 300, 17},
     .n = {2, 1, 1},
     .kind = NORM_LAYER},
    {.n_heads = 9,
     .n_kv_heads = 1,
     .k_dim = 16,
     .v_dim = 16,
     .page_size = 32,
     .done = {515, 0, 70},
     .n = {1, 1, 3},
     .has_sinks = true,
     .window = 100},
    {.n_heads = 2,
     .n_kv_heads = 2,
     .k_dim = 40,
     .v_dim = 40,
     .page_size = 16,
     .done = {255, 256, 257},
     .n = {1, 1, 1},
     .softcap = 2,
     .is_interleaved = true,
     .window = 5},
    {.n_heads = 3,
     .n_kv_heads = 3,
     .k_dim = 24,
     .v_dim = 24,
     .page_size = 16,
     .n = {7, 33, 0},
     .is_full = true,
     .is_whole = true},
    {.n_heads = 5,
     .n_kv_heads = 1,
     .k_dim = 24,
     .v_dim = 16,
     .page_size = 16,
     .done = {20, 0, 0},
     .n = {1, 9, 0},
     .is_latent = true},
    {.n_heads = 4,
     .n_kv_heads = 2,
     .k_dim = 16,
     .v_dim = 16,
     .page_size = 16,
     .done = {0, 290, 0},
     .n = {5, 2, 1},
     .is_whole = true,
     .kind = NORM_LAYER,
     .has_sinks = true},
    {.n_heads = 4,
     .n_kv_heads = 2,
     .k_dim = 16,
     .v_dim = 16,
     .page_size = 16,
     .done = {0, 290, 63},
     .n = {5, 2, 2},
     .norm_is_last = true,
     .q_growth = {0.5f, 32}}};

TEST(attention_sees_what_it_should) {
    UNUSED_STATE;
    for (size_t i = 0; i < BY_COUNTOF(cases); i++) {
        for (int t = KV_F32; t <= KV_FP8; t++) {
            if (t != KV_F32 && t != KV_BF16 && i > 1 && !cases[i].is_latent) continue;
            struct attention_case k = cases[i];
            k.dtype = (enum kv_dtype)t;
            /* A key that lies on the border between two roundings may fall on either side. */
            k.tolerance = t == KV_F32 ? 3e-5 : 3e-2;
            attention_check(&k);
        }
        if (cases[i].is_latent) continue;
        struct attention_case k = cases[i];
        k.dtype = KV_FP8, k.is_on_grid = true;
        k.tolerance = k.n[1] < 16 ? 1e-4 : 3e-2; /* long pieces go by tiles, in bf16 */
        attention_check(&k);
    }
}

/* Scratch for 12 parts, and for 4: rounds of rows, and rows whose spans are longer because there would be too many of them. */
TEST(attention_goes_in_rounds_that_fit_its_scratch) {
    UNUSED_STATE;
    static const struct attention_case long_ones[] = {{.n_heads = 16,
                                                       .n_kv_heads = 8,
                                                       .k_dim = 8,
                                                       .v_dim = 18,
                                                       .page_size = 16,
                                                       .done = {30, 0, 900},
                                                       .n = {2, 15, 7}},
                                                      {.n_heads = 64,
                                                       .n_kv_heads = 8,
                                                       .k_dim = 8,
                                                       .v_dim = 14,
                                                       .page_size = 16,
                                                       .done = {1280, 0, 520},
                                                       .n = {1, 1, 2}}};
    for (size_t i = 0; i < BY_COUNTOF(long_ones); i++) {
        struct attention_case k = long_ones[i];
        k.dtype = i ? KV_BF16 : KV_F32;
        k.tolerance = i ? 3e-2 : 3e-5;
        attention_check(&k);
    }
}

/* Tiles of 16 rows, of one warpgroup and of two, the last of them short; prefixes that end within a page; pages that lie across blocks
 * of 128 keys; windows that begin in a later block; more blocks than there is room for at a time. */
static const struct attention_case prompts[] = {
    {.n_heads = 4, .n_kv_heads = 2, .k_dim = 64, .v_dim = 64, .page_size = 16, .n = {17, 1, 70}},
    {.n_heads = 2,
     .n_kv_heads = 1,
     .k_dim = 128,
     .v_dim = 128,
     .page_size = 32,
     .done = {0, 100, 3},
     .n = {2, 66, 16},
     .window = 40},
    {.n_heads = 3,
     .n_kv_heads = 3,
     .k_dim = 72,
     .v_dim = 40,
     .page_size = 16,
     .done = {70, 0, 5},
     .n = {33, 16, 1},
     .softcap = 2,
     .has_sinks = true},
    {.n_heads = 2,
     .n_kv_heads = 2,
     .k_dim = 24,
     .v_dim = 24,
     .page_size = 16,
     .n = {18, 33, 0},
     .is_full = true},
    {.n_heads = 2,
     .n_kv_heads = 1,
     .k_dim = 128,
     .v_dim = 128,
     .page_size = 32,
     .done = {0, 333, 3},
     .n = {2, 131, 16},
     .window = 150},
    {.n_heads = 2,
     .n_kv_heads = 2,
     .k_dim = 24,
     .v_dim = 24,
     .page_size = 48,
     .n = {18, 200, 0},
     .is_full = true},
    {.n_heads = 1,
     .n_kv_heads = 1,
     .k_dim = 128,
     .v_dim = 96,
     .page_size = 16,
     .done = {600, 0, 0},
     .n = {65, 0, 0},
     .has_sinks = true}};

/* Heads that warpgroups do not take: blocks of 32 keys, queries in shared memory. */
static const struct attention_case wide_prompts[] = {{.n_heads = 4,
                                                      .n_kv_heads = 2,
                                                      .k_dim = 256,
                                                      .v_dim = 256,
                                                      .page_size = 16,
                                                      .done = {0, 45, 3},
                                                      .n = {17, 70, 1},
                                                      .softcap = 2},
                                                     {.n_heads = 1,
                                                      .n_kv_heads = 1,
                                                      .k_dim = 192,
                                                      .v_dim = 128,
                                                      .page_size = 16,
                                                      .done = {100, 0, 5},
                                                      .n = {66, 0, 33},
                                                      .window = 40},
                                                     {.n_heads = 2,
                                                      .n_kv_heads = 1,
                                                      .k_dim = 136,
                                                      .v_dim = 200,
                                                      .page_size = 48,
                                                      .n = {33, 16, 0},
                                                      .is_full = true,
                                                      .has_sinks = true}};

/* Latent keys and other wide heads: rows of a tile that are part of a token's heads, all of one, and several tokens'; tiles that end
 * within a token, and short ones; prefixes; columns that do not fill 16 bytes of bf16, windows that begin in a later block. */
static const struct attention_case latent_prompts[] = {{.n_heads = 16,
                                                        .n_kv_heads = 1,
                                                        .scale = 0.1f,
                                                        .k_dim = 576,
                                                        .v_dim = 512,
                                                        .page_size = 64,
                                                        .done = {0, 70, 3},
                                                        .n = {17, 16, 1},
                                                        .is_latent = true},
                                                       {.n_heads = 5,
                                                        .n_kv_heads = 1,
                                                        .k_dim = 48,
                                                        .v_dim = 32,
                                                        .page_size = 16,
                                                        .done = {45, 0, 130},
                                                        .n = {20, 33, 16},
                                                        .window = 40,
                                                        .has_sinks = true,
                                                        .is_latent = true},
                                                       {.n_heads = 70,
                                                        .n_kv_heads = 1,
                                                        .scale = 0.1f,
                                                        .k_dim = 272,
                                                        .v_dim = 250,
                                                        .page_size = 48,
                                                        .n = {16, 0, 0},
                                                        .is_full = true,
                                                        .is_latent = true},
                                                       {.n_heads = 4,
                                                        .n_kv_heads = 2,
                                                        .scale = 0.1f,
                                                        .k_dim = 512,
                                                        .v_dim = 512,
                                                        .page_size = 16,
                                                        .done = {100, 0, 0},
                                                        .n = {33, 2, 18},
                                                        .softcap = 2},
                                                       {.n_heads = 2,
                                                        .n_kv_heads = 2,
                                                        .scale = 0.1f,
                                                        .k_dim = 283,
                                                        .v_dim = 272,
                                                        .page_size = 16,
                                                        .done = {0, 40, 0},
                                                        .n = {40, 35, 0},
                                                        .is_full = true,
                                                        .has_sinks = true}};

static void check_by_tiles(struct attention_case k) {
    for (int t = KV_BF16; t <= KV_FP8; t++) {
        k.dtype = (enum kv_dtype)t;
        /* int8 becomes bf16 first */
        k.tolerance = t == KV_INT8 ? 0.1 : t == KV_F16 ? 2e-2 : 6e-2;
        k.is_on_grid = t == KV_FP8;
        attention_check(&k);
    }
}

TEST(attention_of_prompts_by_tiles) {
    UNUSED_STATE;
    for (size_t i = 0; i < BY_COUNTOF(prompts); i++)
        check_by_tiles(prompts[i]);
    for (size_t i = 0; i < BY_COUNTOF(wide_prompts); i++) {
        const struct attention_case *k = &wide_prompts[i];
        struct op_attention op = {.scale = 1, .kv = {.dtype = KV_BF16}};
        op.kv.k_dim = k->k_dim, op.kv.v_dim = k->v_dim, op.kv.page_size = k->page_size;
        assert_true(attention_fits_tiles(&op) && !attention_fits_wgmma(cuda_of(gpu), &op));
        check_by_tiles(*k);
    }
}

TEST(attention_of_prompts_by_warpgroups) {
    UNUSED_STATE;
    for (size_t i = 0; i < BY_COUNTOF(prompts); i++) {
        for (int t = KV_BF16; t <= KV_F16; t++) {
            struct attention_case k = prompts[i];
            struct op_attention op = {.scale = 1, .kv = {.dtype = (enum kv_dtype)t}};
            op.kv.k_dim = k.k_dim, op.kv.v_dim = k.v_dim, op.kv.page_size = k.page_size;
            assert_true(attention_fits_wgmma(cuda_of(gpu), &op));
            k.dtype = (enum kv_dtype)t;
            k.tolerance = 6e-2;
            attention_check(&k);
        }
    }
}

static struct op_attention op_of(const struct attention_case *k, enum kv_dtype t) {
    return (struct op_attention){
        .scale = 1, .kv = {k->n_kv_heads, k->k_dim, k->v_dim, k->page_size, t, k->is_latent}};
}

TEST(attention_of_prompts_with_latent_keys) {
    UNUSED_STATE;
    for (size_t i = 0; i < BY_COUNTOF(latent_prompts); i++) {
        for (int t = KV_BF16; t <= KV_FP8; t++) {
            const struct op_attention op = op_of(&latent_prompts[i], (enum kv_dtype)t);
            assert_true(attention_fits_latent(&op));
        }
        check_by_tiles(latent_prompts[i]);
    }
}

/* Spans, which an f32 cache has, are one more: their merge. */
TEST(a_prompt_with_latent_keys_is_one_kernel) {
    UNUSED_STATE;
    struct queue *q = cuda_of(gpu)->queue;
    struct attention_case k = latent_prompts[0];
    uint64_t n[2];
    memset(k.done, 0, sizeof k.done);
    k.n[1] = k.n[2] = 0;
    for (int t = KV_F32; t <= KV_BF16; t++) {
        n[t] = queue_counted(q).n_commands;
        k.dtype = (enum kv_dtype)t, k.tolerance = t == KV_F32 ? 3e-5 : 6e-2;
        attention_check(&k);
        n[t] = queue_counted(q).n_commands - n[t];
    }
    assert_int_equal(n[KV_BF16], n[KV_F32] - 1);
}

TEST(other_wide_attention_goes_by_spans) {
    UNUSED_STATE;
    const struct op_attention fits = {.scale = 1, .kv = {1, 576, 512, 16, KV_FP8, true}};
    struct op_attention o = fits;
    assert_true(attention_fits_latent(&o));
    o.kv.dtype = KV_F32;
    assert_false(attention_fits_latent(&o));
    o = fits, o.kv.k_dim = 577;
    assert_false(attention_fits_latent(&o));
    o = fits, o.kv.v_dim = 513;
    assert_false(attention_fits_latent(&o));
    o = fits, o.kv.k_dim = 568; /* keys of 568 bytes do not all begin at a multiple of 16 */
    assert_false(attention_fits_latent(&o));
    o.kv.dtype = KV_BF16;
    assert_true(attention_fits_latent(&o));
    o = fits, o.scale = -1;
    assert_false(attention_fits_latent(&o));
    o = fits, o.kv.v_in_k = false, o.kv.v_dim = 264;
    assert_false(attention_fits_latent(&o));
    o.kv.v_dim = 272;
    assert_true(attention_fits_latent(&o));
    o.kv.k_dim = o.kv.v_dim = 256; /* by tiles */
    assert_false(attention_fits_latent(&o));
}

/* Other caches, pages and cards, and those that it was not proven on, go as before. */
TEST(other_attention_goes_by_tiles) {
    UNUSED_STATE;
    struct cuda *c = cuda_of(gpu);
    const struct op_attention fits = {.scale = 1, .kv = {1, 128, 128, 16, KV_BF16, false}};
    struct op_attention o = fits;
    assert_true(attention_fits_wgmma(c, &o));
    o.kv.dtype = KV_FP8;
    assert_false(attention_fits_wgmma(c, &o));
    o = fits, o.kv.page_size = 24;
    assert_false(attention_fits_wgmma(c, &o));
    o = fits, o.kv.k_dim = 136;
    assert_false(attention_fits_wgmma(c, &o));
    o = fits, o.kv.v_dim = 264; /* attention_latent's */
    assert_false(attention_fits_tiles(&o));
    c->device.minor = 1;
    assert_false(attention_fits_wgmma(c, &fits));
    c->device.minor = 0, c->device.major = 10;
    assert_false(attention_fits_wgmma(c, &fits));
    c->device.major = 9, c->proven = ~(uint32_t)PROVEN_WGMMA;
    assert_false(attention_fits_wgmma(c, &fits));
    c->proven = PROVEN_WGMMA;
    assert_true(attention_fits_wgmma(c, &fits));
}

/* A token that sees only itself gets its own values back, as they are kept. */
TEST(fp8_keeps_the_nearest_number) {
    UNUSED_STATE;
    enum { ROWS = 12, DIM = 128, LD = 3 * DIM + 1 };
    const struct attention_case k = {.n_heads = 1,
                                     .n_kv_heads = 1,
                                     .k_dim = DIM,
                                     .v_dim = DIM,
                                     .page_size = 16,
                                     .dtype = KV_FP8,
                                     .is_on_grid = true};
    struct attention_world w = {.k = &k, .b = gpu, .kv = {1, DIM, DIM, 16, KV_FP8, false}};
    uint32_t pages[ROWS], positions[ROWS] = {0};
    struct seq_rows seqs[ROWS];
    float x[ROWS * LD];
    world_floats(x, BY_COUNTOF(x), 1);
    for (uint32_t r = 0; r < ROWS; r++) {
        pages[r] = ROWS - 1 - r;
        seqs[r] = (struct seq_rows){r, 1, 0, &pages[r], r};
        for (uint32_t i = 0; i < DIM; i++) { /* every second one lies between two, or nearly */
            uint8_t code = (uint8_t)world_below(0x7e);
            float low = by_f8_e4m3_to_f32(code), high = by_f8_e4m3_to_f32((uint8_t)(code + 1));
            float at =
                i % 2 ? (low + high) / 2 : low + (high - low) * (float)world_below(1000) / 1000;
            x[r * LD + 1 + 2 * DIM + i] = world_below(2) ? at : -at;
        }
        x[r * LD + 1 + 2 * DIM + r] = r ? 448 : -448;
    }
    struct pair out = pair_new(ROWS * DIM + 2, 1);
    w.x = (float *)(uintptr_t)gpu->put(gpu, x, BY_COUNTOF(x));
    w.out = out.gpu;
    w.pool = gpu->kv_new(gpu, &w.kv, ROWS);
    assert_true(w.x && w.pool);
    attention_run(&w, seqs, ROWS, LD, DIM, positions, ROWS, true);
    const float *got = gpu->get(gpu, out.gpu, out.n);
    assert_non_null(got);
    for (uint32_t r = 0; r < ROWS; r++)
        for (uint32_t i = 0; i < DIM; i++) {
            float v = x[r * LD + 1 + 2 * DIM + i], is = got[2 + r * DIM + i];
            if (is != attention_nearest_e4m3(v))
                fail_msg("%.9g became %.9g, not %.9g", (double)v, (double)is,
                         (double)attention_nearest_e4m3(v));
        }
    gpu->kv_free(gpu, w.pool);
    gpu->free(gpu, w.x);
    pair_free(&out);
}

/* Bytes a token and kv head. */
TEST(pages_are_as_small_as_they_can_be) {
    UNUSED_STATE;
    static const struct {
        struct kv_shape kv;
        size_t bytes;
    } shapes[] = {
        {{1, 128, 128, 16, KV_F32, false}, 1024},  {{1, 128, 128, 16, KV_BF16, false}, 512},
        {{1, 128, 128, 16, KV_INT8, false}, 264},  {{1, 128, 128, 16, KV_FP8, false}, 264},
        {{1, 576, 512, 64, KV_BF16, true}, 1152},  {{1, 576, 512, 64, KV_FP8, true}, 580},
        {{1, 576, 512, 64, KV_BF16, false}, 2176}, {{1, 20, 12, 16, KV_FP8, false}, 48}};
    for (size_t i = 0; i < BY_COUNTOF(shapes); i++)
        assert_int_equal(gpu->kv_page_bytes(gpu, &shapes[i].kv),
                         shapes[i].bytes * shapes[i].kv.page_size);
}

/* Scratch of so few bytes that attention goes in rounds, with little work. */
static int with_16k(void **state) {
    int rc = both_set_up(state);
    cuda_of(gpu)->part_bytes = 16 << 10;
    return rc;
}

/* "wgmma": that way alone, which nobody goes without it. */
int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        RUN(attention_sees_what_it_should),         RUN(attention_of_prompts_by_tiles),
        RUN(attention_of_prompts_with_latent_keys), RUN(a_prompt_with_latent_keys_is_one_kernel),
        RUN(other_wide_attention_goes_by_spans),    RUN(fp8_keeps_the_nearest_number),
        RUN(pages_are_as_small_as_they_can_be)};
    const struct CMUnitTest in_rounds[] = {RUN(attention_goes_in_rounds_that_fit_its_scratch)};
    const struct CMUnitTest by_warpgroups[] = {RUN(attention_of_prompts_by_warpgroups),
                                               RUN(other_attention_goes_by_tiles)};
    bool is_wgmma = argc > 1 && strcmp(argv[1], "wgmma") == 0;
    setenv("BANYAN_TEST_CUDA_WAYS", is_wgmma ? "wgmma" : "", 1);
    if (is_wgmma) {
        int rc = WORLD_TESTS("lanes forward", by_warpgroups, both_set_up, both_tear_down);
        return rc +
               WORLD_TESTS("lanes backward", by_warpgroups, both_set_up_reversed, both_tear_down);
    }
    int rc = WORLD_TESTS("16 KiB of scratch", in_rounds, with_16k, both_tear_down);
    rc += WORLD_TESTS("lanes forward", tests, both_set_up, both_tear_down);
    return rc + WORLD_TESTS("lanes backward", tests, both_set_up_reversed, both_tear_down);
}
