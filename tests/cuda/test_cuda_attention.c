/* Keys and values into pages and attention over them: the CUDA backend, run by the emulator, against portable C; every type of
 * the cache, odd shapes, NaN wherever nobody may look. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/mem.h"
#include "gpu_worker/cuda/attention.h"
#include "gpu_worker/cuda/proven.h"
#include "tests/cuda/both.h"

struct attention_case {
    uint32_t n_heads, n_kv_heads, k_dim, v_dim, page_size, window;
    enum kv_dtype dtype;
    float softcap;
    bool has_sinks, is_full, is_latent, is_whole, is_interleaved;
    /* keys and values are numbers that FP8 keeps as they are: no norm, no rotation */
    bool is_on_grid;
    enum norm_kind kind;
    uint32_t done[3], n[3]; /* tokens in the pages before the last step, and in it */
    double tolerance;
};

enum { PAGES = 96 };

static const char *const kv_names[] = {"attention over float32", "… bfloat16", "… float16",
                                       "… int8", "… fp8"};

struct attention_world {
    const struct attention_case *k;
    struct backend *b;
    struct kv_shape kv;
    float *x, *out;
    void *pool;
    struct rope_table *rope;
    const struct norm *q_norm, *k_norm;
    const float *sinks;
};

/* The nearest number of E4M3, of two the one with the even code. */
static float nearest_e4m3(float x) {
    uint8_t best = 0;
    for (uint32_t code = 1; code < 256; code++) {
        float at = by_f8_e4m3_to_f32((uint8_t)code), d = fabsf(at - x),
              least = fabsf(by_f8_e4m3_to_f32(best) - x);
        if (d < least || (d == least && code % 2 == 0 && best % 2)) best = (uint8_t)code;
    }
    return by_f8_e4m3_to_f32(best);
}

/* Heads as a cache of FP8 keeps them: by a scale whose largest number is 448. */
static void keep_as_fp8(float *x, uint32_t n_heads, uint32_t dim) {
    for (uint32_t h = 0; h < n_heads; h++, x += dim) {
        float top = 0;
        for (uint32_t i = 0; i < dim; i++)
            top = isnan(x[i]) ? NAN : fmaxf(top, fabsf(x[i]));
        for (uint32_t i = 0; i < dim && top > 0; i++)
            x[i] = nearest_e4m3(x[i] * (448 / top)) * (top / 448);
    }
}

/* Portable C has no FP8, but it turns keys where they are: they and the values are rounded there, and written once more. */
static void write_rounded(struct attention_world *w, struct op_kv_write *write) {
    const struct kv_shape *kv = &write->kv;
    for (uint32_t r = 0; r < write->n; r++) {
        float *x = w->x + (size_t)r * write->ld;
        keep_as_fp8(x + write->k_col, kv->n_kv_heads, kv->k_dim);
        if (!w->k->is_latent) keep_as_fp8(x + write->v_col, kv->n_kv_heads, kv->v_dim);
    }
    write->q_norm = write->k_norm = NULL;
    write->rope = NULL;
    RUN_OP(w->b, kv_write, write);
}

static void attend(struct attention_world *w, const struct seq_rows *seqs, uint32_t n_seqs,
                   uint32_t ld, uint32_t out_ld, const uint32_t *positions, uint32_t n_rows,
                   bool wants_output) {
    const struct attention_case *k = w->k;
    uint32_t q_cols = k->n_heads * k->k_dim, k_cols = k->n_kv_heads * k->k_dim;
    struct op_kv_write write = {.x = w->x,
                                .ld = ld,
                                .q_col = 1,
                                .k_col = 1 + q_cols,
                                .v_col = k->is_latent ? 1 + q_cols : 1 + q_cols + k_cols,
                                .n_heads = k->n_heads,
                                .q_dim = k->k_dim,
                                .q_norm = w->q_norm,
                                .k_norm = w->k_norm,
                                .qk_whole = k->is_whole,
                                .rope = k->is_on_grid ? NULL : w->rope,
                                .is_interleaved = k->is_interleaved,
                                .q_rot_col = k->is_latent ? k->v_dim : 0,
                                .k_rot_col = k->is_latent ? k->v_dim : 0,
                                .kv = w->kv,
                                .pool = w->pool,
                                .positions = positions,
                                .seqs = seqs,
                                .n_seqs = n_seqs,
                                .n = n_rows};
    struct op_attention op = {.q = w->x,
                              .q_ld = ld,
                              .q_col = 1,
                              .n_heads = k->n_heads,
                              .scale = k->is_on_grid ? 1e-3f : 0.3f,
                              .softcap = k->softcap,
                              .window = k->window,
                              .is_full = k->is_full,
                              .sinks = w->sinks,
                              .kv = w->kv,
                              .pool = w->pool,
                              .out = w->out,
                              .out_ld = out_ld,
                              .out_col = 2,
                              .seqs = seqs,
                              .n_seqs = n_seqs,
                              .n = n_rows};
    RUN_OP(w->b, kv_write, &write);
    if (k->dtype == KV_FP8 && w->b == cpu) write_rounded(w, &write);
    if (wants_output) RUN_OP(w->b, attention, &op);
}

/* NaN in every place of the pages that the sequences will have, as in pages that others have left. */
static void poison_pages(struct attention_world *w, uint32_t pages[3][PAGES], uint32_t ld) {
    static const uint32_t positions[2048];
    struct seq_rows seqs[3];
    uint32_t n_rows = 0;
    for (uint32_t q = 0; q < 3; q++) {
        uint32_t n = BY_ALIGN_UP(w->k->done[q] + w->k->n[q], w->k->page_size);
        seqs[q] = (struct seq_rows){n_rows, n, 0, pages[q]};
        n_rows += n;
    }
    assert_true(n_rows <= BY_COUNTOF(positions));
    float *nan = by_alloc_array((size_t)n_rows * ld, sizeof *nan);
    for (size_t i = 0; i < (size_t)n_rows * ld; i++)
        nan[i] = NAN;
    w->x = (float *)(uintptr_t)w->b->put(w->b, nan, (size_t)n_rows * ld);
    assert_non_null(w->x);
    attend(w, seqs, 3, ld, 0, positions, n_rows, false);
    w->b->free(w->b, w->x);
    by_free(nan);
}

/* Small numbers of E4M3, and in each head its largest, so that the scale is 1. */
static void put_on_grid(float *x, uint32_t n_heads, uint32_t dim) {
    for (uint32_t i = 0; i < n_heads * dim; i++)
        x[i] = by_f8_e4m3_to_f32((uint8_t)(world_below(2) << 7 | world_below(0x48)));
    for (uint32_t h = 0; h < n_heads; h++)
        x[h * dim + world_below(dim)] = h % 2 ? -448 : 448;
}

static struct pair rows_new(const struct attention_case *k, uint32_t n_rows, uint32_t ld) {
    size_t n = (size_t)n_rows * ld;
    float *x = by_alloc_array(n, sizeof *x);
    uint32_t k_col = 1 + k->n_heads * k->k_dim, v_col = k_col + k->n_kv_heads * k->k_dim;
    world_floats(x, n, 1);
    for (uint32_t r = 0; r < n_rows && k->is_on_grid; r++) {
        put_on_grid(x + (size_t)r * ld + k_col, k->n_kv_heads, k->k_dim);
        put_on_grid(x + (size_t)r * ld + v_col, k->n_kv_heads, k->v_dim);
    }
    struct pair p = pair_of(x, n);
    by_free(x);
    return p;
}

/* Sequences of done + n tokens: first all but the last n, then those; both backends from the same numbers. */
static void check_attention(const struct attention_case *k) {
    struct kv_shape kv = {.n_kv_heads = k->n_kv_heads,
                          .k_dim = k->k_dim,
                          .v_dim = k->v_dim,
                          .page_size = k->page_size,
                          .dtype = k->dtype,
                          .v_in_k = k->is_latent};
    uint32_t cols = (k->n_heads + k->n_kv_heads) * k->k_dim + k->n_kv_heads * k->v_dim,
             ld = cols + 2;
    uint32_t out_ld = k->n_heads * k->v_dim + 3, pages[3][PAGES], positions[2048], next = 5;
    uint32_t n_whole = k->is_whole ? k->n_heads : 1, n_whole_k = k->is_whole ? k->n_kv_heads : 1;
    struct both_norms qn = norms_new(k->kind, n_whole * k->k_dim),
                      kn = norms_new(k->kind, n_whole_k * k->k_dim);
    struct pair sinks = pair_new(k->n_heads, 1);
    float inv_freq[4] = {1, 0.31f, 0.1f, 0.031f};
    const struct rope_source rope = {
        .n_rot = 8, .inv_freq = inv_freq, .mscale = 1.1f, .n_positions = 2000};
    struct attention_world on_cpu = {.k = k,
                                     .b = cpu,
                                     .q_norm = k->is_on_grid ? NULL : &qn.cpu,
                                     .k_norm = k->is_on_grid ? NULL : &kn.cpu,
                                     .sinks = k->has_sinks ? sinks.cpu : NULL};
    struct attention_world on_gpu = {.k = k,
                                     .b = gpu,
                                     .q_norm = k->is_on_grid ? NULL : &qn.gpu,
                                     .k_norm = k->is_on_grid ? NULL : &kn.gpu,
                                     .sinks = k->has_sinks ? sinks.gpu : NULL};
    struct attention_world *both[] = {&on_cpu, &on_gpu};
    for (int i = 0; i < 2; i++) {
        if (i == 0 && k->dtype == KV_FP8) kv.dtype = KV_F32; /* portable C has no FP8 */
        both[i]->kv = kv;
        kv.dtype = k->dtype;
        both[i]->pool = both[i]->b->kv_new(both[i]->b, &both[i]->kv, 3 * PAGES + 5);
        both[i]->rope = both[i]->b->rope_new(both[i]->b, &rope);
        assert_true(both[i]->pool && both[i]->rope);
    }
    for (uint32_t i = 0; i < PAGES; i++)
        for (uint32_t q = 0; q < 3; q++)
            pages[q][i] = next++ * 7 % (3 * PAGES + 5);
    for (int i = 0; i < 2; i++)
        poison_pages(both[i], pages, ld);
    for (int step = 0; step < 2; step++) {
        struct seq_rows seqs[3];
        uint32_t n_seqs = 0, n_rows = 0;
        for (uint32_t q = 0; q < 3; q++) {
            uint32_t n = step ? k->n[q] : k->done[q], from = step ? k->done[q] : 0;
            if (!n) continue;
            seqs[n_seqs++] = (struct seq_rows){n_rows, n, from, pages[q]};
            for (uint32_t i = 0; i < n; i++)
                positions[n_rows++] = from + i;
        }
        if (!n_rows) continue;
        struct pair x = rows_new(k, n_rows, ld), out = pair_new((size_t)n_rows * out_ld, 1);
        on_cpu.x = x.cpu, on_cpu.out = out.cpu, on_gpu.x = x.gpu, on_gpu.out = out.gpu;
        for (int i = 0; i < 2; i++)
            attend(both[i], seqs, n_seqs, ld, out_ld, positions, n_rows, step == 1);
        pair_check(&out, k->tolerance, kv_names[k->dtype]);
        pair_free(&x);
        pair_free(&out);
    }
    for (int i = 0; i < 2; i++) {
        both[i]->b->kv_free(both[i]->b, both[i]->pool);
        both[i]->b->rope_free(both[i]->b, both[i]->rope);
    }
    norms_free(&qn);
    norms_free(&kn);
    pair_free(&sinks);
}

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
     .has_sinks = true}};

TEST(attention_sees_what_it_should) {
    UNUSED_STATE;
    for (size_t i = 0; i < BY_COUNTOF(cases); i++) {
        for (int t = KV_F32; t <= KV_FP8; t++) {
            if (t != KV_F32 && t != KV_BF16 && i > 1 && !cases[i].is_latent) continue;
            struct attention_case k = cases[i];
            k.dtype = (enum kv_dtype)t;
            /* A key that lies on the border between two roundings may fall on either side. */
            k.tolerance = t == KV_F32 ? 3e-5 : 3e-2;
            check_attention(&k);
        }
        if (cases[i].is_latent) continue;
        struct attention_case k = cases[i];
        k.dtype = KV_FP8, k.is_on_grid = true;
        k.tolerance = k.n[1] < 16 ? 1e-4 : 3e-2; /* long pieces go by tiles, in bf16 */
        check_attention(&k);
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
        check_attention(&k);
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

static void check_by_tiles(struct attention_case k) {
    for (int t = KV_BF16; t <= KV_FP8; t++) {
        k.dtype = (enum kv_dtype)t;
        k.tolerance = t == KV_INT8 ? 0.1 : 6e-2; /* int8 becomes bf16 first */
        k.is_on_grid = t == KV_FP8;
        check_attention(&k);
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
            check_attention(&k);
        }
    }
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
    o = fits, o.kv.v_dim = 264; /* by spans */
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
        seqs[r] = (struct seq_rows){r, 1, 0, &pages[r]};
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
    attend(&w, seqs, ROWS, LD, DIM, positions, ROWS, true);
    const float *got = gpu->get(gpu, out.gpu, out.n);
    assert_non_null(got);
    for (uint32_t r = 0; r < ROWS; r++)
        for (uint32_t i = 0; i < DIM; i++) {
            float v = x[r * LD + 1 + 2 * DIM + i], is = got[2 + r * DIM + i];
            if (is != nearest_e4m3(v))
                fail_msg("%.9g became %.9g, not %.9g", (double)v, (double)is,
                         (double)nearest_e4m3(v));
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
        RUN(attention_sees_what_it_should), RUN(attention_of_prompts_by_tiles),
        RUN(fp8_keeps_the_nearest_number), RUN(pages_are_as_small_as_they_can_be)};
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
