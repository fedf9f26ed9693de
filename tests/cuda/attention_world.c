#include "tests/cuda/attention_world.h"

#include <math.h>

#include "common/base/mem.h"
#include "tests/cuda/both.h"

enum { PAGES = 96 };

static const char *const kv_names[] = {"attention over float32", "… bfloat16", "… float16",
                                       "… int8", "… fp8"};

static bool is_plain(const struct attention_case *k) {
    return k->is_plain || k->is_on_grid;
}

static float q_size(const struct attention_case *k) {
    return k->q_size > 0 ? k->q_size : 1;
}

/* Weights that differ, and none that is nearly all. */
static float scale_of(const struct attention_case *k) {
    if (k->is_on_grid) return 1e-3f;
    if (k->is_plain) return 1 / sqrtf((float)k->k_dim) / q_size(k);
    return k->scale > 0 ? k->scale : 0.3f;
}

float attention_nearest_e4m3(float x) {
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
            x[i] = attention_nearest_e4m3(x[i] * (448 / top)) * (top / 448);
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
    write->q_growth.every = 0;
    RUN_OP(w->b, kv_write, write);
}

void attention_run(struct attention_world *w, const struct seq_rows *seqs, uint32_t n_seqs,
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
                                .norm_is_last = k->norm_is_last,
                                .q_growth = k->q_growth,
                                .rope = is_plain(k) ? NULL : w->rope,
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
                              .scale = scale_of(k),
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
        seqs[q] = (struct seq_rows){n_rows, n, 0, pages[q], q};
        n_rows += n;
    }
    assert_true(n_rows <= BY_COUNTOF(positions));
    float *nan = by_alloc_array((size_t)n_rows * ld, sizeof *nan);
    for (size_t i = 0; i < (size_t)n_rows * ld; i++)
        nan[i] = NAN;
    w->x = (float *)(uintptr_t)w->b->put(w->b, nan, (size_t)n_rows * ld);
    assert_non_null(w->x);
    attention_run(w, seqs, 3, ld, 0, positions, n_rows, false);
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
    for (uint32_t r = 0; r < n_rows; r++)
        for (uint32_t i = 1; i < k_col; i++)
            x[(size_t)r * ld + i] *= q_size(k);
    struct pair p = pair_of(x, n);
    by_free(x);
    return p;
}

void attention_check(const struct attention_case *k) {
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
                                     .q_norm = is_plain(k) ? NULL : &qn.cpu,
                                     .k_norm = is_plain(k) ? NULL : &kn.cpu,
                                     .sinks = k->has_sinks ? sinks.cpu : NULL};
    struct attention_world on_gpu = {.k = k,
                                     .b = gpu,
                                     .q_norm = is_plain(k) ? NULL : &qn.gpu,
                                     .k_norm = is_plain(k) ? NULL : &kn.gpu,
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
            seqs[n_seqs++] = (struct seq_rows){n_rows, n, from, pages[q], q};
            for (uint32_t i = 0; i < n; i++)
                positions[n_rows++] = from + i;
        }
        if (!n_rows) continue;
        struct pair x = rows_new(k, n_rows, ld), out = pair_new((size_t)n_rows * out_ld, 1);
        on_cpu.x = x.cpu, on_cpu.out = out.cpu, on_gpu.x = x.gpu, on_gpu.out = out.gpu;
        for (int i = 0; i < 2; i++)
            attention_run(both[i], seqs, n_seqs, ld, out_ld, positions, n_rows, step == 1);
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
