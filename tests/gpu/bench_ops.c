/* bench_ops [small | prompts] - ops of the backend in the shapes that a Llama of 8 billion weights gives them, one after the other in one
 * run: bytes or operations a second, to be held to what bench_gpu and check_server.py attention measure on the same card.
 * small: shapes that the emulator can carry out; its times mean nothing. prompts: their attention alone. Medians of 5. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/rand.h"
#include "gpu_worker/cuda/cuda_module.h"

enum { ROUNDS = 5, PAGE = 64, HEADS = 32, KV_HEADS = 8, DIM = 128, WRITE_ROWS = 1024 };

static struct backend *gpu;
static bool is_small;
static uint64_t seed = 1;

static void wait_for_all(void) {
    struct by_err err;
    if (gpu->wait(gpu, &err)) by_die("%s", err.text);
}

static float *floats_new(size_t n) {
    float *x = by_alloc_array(n, sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(by_rand_next(&seed) >> 40) / (1 << 23) - 1;
    float *there = (float *)(uintptr_t)gpu->put(gpu, x, n);
    by_free(x);
    if (!there) by_die("no memory for %zu numbers", n);
    return there;
}

/* ---- an op again and again ---- */

struct work {
    void (*op)(struct lane *l, const void *args);
    const void *args;
    uint32_t n;
};

static void lane_of(struct lane *l, void *ctx) {
    const struct work *w = ctx;
    for (uint32_t i = 0; i < w->n; i++)
        w->op(l, w->args);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Seconds of one. */
static double time_of(void (*op)(struct lane *l, const void *args), const void *args) {
    struct work w = {op, args, is_small ? 2 : 20};
    double t[ROUNDS];
    for (int i = -1; i < ROUNDS; i++) {
        uint64_t from = by_now_ns();
        gpu->run(gpu, lane_of, &w);
        wait_for_all();
        if (i >= 0) t[i] = (double)(by_now_ns() - from) / 1e9 / w.n;
    }
    qsort(t, ROUNDS, sizeof *t, by_size);
    return t[ROUNDS / 2];
}

static void linear(struct lane *l, const void *args) {
    gpu->linear(l, args);
}

static void attention(struct lane *l, const void *args) {
    gpu->attention(l, args);
}

static void kv_write(struct lane *l, const void *args) {
    gpu->kv_write(l, args);
}

/* ---- products ---- */

/* Random rows in the form of a file; each row begins elsewhere in one array. */
struct rows {
    uint8_t *bytes;
    size_t row_bytes, n;
};

static void give_row(const void *ctx, uint32_t out, void *bytes) {
    const struct rows *r = ctx;
    /* whole blocks of each type */
    size_t at = (size_t)out * 288 % (r->n - r->row_bytes) / 288 * 288;
    memcpy(bytes, r->bytes + at, r->row_bytes);
}

static struct rows rows_new(enum by_dtype t, uint32_t n_in) {
    struct rows r = {.n = 1 << 20};
    if (!by_dtype_row_bytes(t, n_in, &r.row_bytes)) by_die("rows of %u", n_in);
    r.bytes = by_alloc(r.n);
    for (size_t i = 0; i < r.n; i += 2) { /* small numbers of each type, never zeros */
        uint32_t x = (uint32_t)by_rand_next(&seed);
        uint16_t v =
            t == BY_DTYPE_BF16 ? (uint16_t)(0x3c00 | (x & 0x81ff)) : (uint16_t)(x & 0x2f2f);
        memcpy(r.bytes + i, &v, sizeof v);
    }
    const float scale = 0.01f; /* one for all: goes by FP8 where that was proven */
    for (size_t i = 0; i + sizeof scale <= r.n && t == BY_DTYPE_F8_32;
         i += sizeof(struct by_block_f8_32))
        memcpy(r.bytes + i, &scale, sizeof scale);
    return r;
}

static void bench_linear(enum by_dtype t, uint32_t n_out, uint32_t n_in, uint32_t m) {
    struct by_err err;
    struct backend_memory before, after;
    struct weight *w;
    struct rows rows = rows_new(t, n_in);
    const struct weight_source src = {
        .n_out = n_out, .n_in = n_in, .dtype = t, .row = give_row, .ctx = &rows};
    gpu->memory(gpu, &before);
    if (gpu->weight_new(gpu, &w, &src, &err)) by_die("%s", err.text);
    gpu->memory(gpu, &after);
    float *x = floats_new((size_t)m * n_in), *y = floats_new((size_t)m * n_out);
    const struct op_linear op = {
        .w = w, .x = x, .x_ld = n_in, .y = y, .y_ld = n_out, .scale = 1, .n = m};
    double s = time_of(linear, &op), bytes = (double)(after.weights - before.weights);
    printf("%-7s [%5u, %5u] times %5u rows %10.1f us %8.2f TB/s %8.1f TFLOP/s\n", by_dtype_name(t),
           n_out, n_in, m, s * 1e6, bytes / s / 1e12, 2.0 * n_out * n_in * m / s / 1e12);
    gpu->free(gpu, x);
    gpu->free(gpu, y);
    gpu->weight_free(gpu, w);
    by_free(rows.bytes);
}

/* ---- attention ---- */

struct scene {
    struct kv_shape kv;
    void *pool;
    uint32_t n_heads, n_seqs, len, pages_each, ld, v_col;
    uint32_t *pages, *positions;
    struct seq_rows *seqs;
};

/* Keys and values of all tokens of each sequence. */
static void fill(struct scene *s, float *x) {
    for (uint32_t q = 0; q < s->n_seqs; q++)
        for (uint32_t at = 0; at < s->len; at += WRITE_ROWS) {
            uint32_t n = BY_MIN(s->len - at, (uint32_t)WRITE_ROWS);
            struct seq_rows part = {0, n, at, s->pages + q * s->pages_each, q};
            const struct op_kv_write op = {.x = x,
                                           .ld = s->ld,
                                           .k_col = s->n_heads * s->kv.k_dim,
                                           .v_col = s->v_col,
                                           .n_heads = s->n_heads,
                                           .q_dim = s->kv.k_dim,
                                           .kv = s->kv,
                                           .pool = s->pool,
                                           .positions = s->positions,
                                           .seqs = &part,
                                           .n_seqs = 1,
                                           .n = n};
            struct work w = {kv_write, &op, 1};
            gpu->run(gpu, lane_of, &w);
            wait_for_all();
        }
}

/* The last n tokens of each of n_seqs sequences of len tokens. */
static void bench_heads(const char *name, uint32_t n_heads, const struct kv_shape *kv,
                        uint32_t n_seqs, uint32_t len, uint32_t n) {
    struct scene s = {.kv = *kv, .n_heads = n_heads, .n_seqs = n_seqs, .len = len};
    uint32_t n_rows = n_seqs * n, out_ld = n_heads * kv->v_dim;
    s.pages_each = BY_DIV_UP(len, (uint32_t)PAGE);
    s.ld = (n_heads + kv->n_kv_heads) * kv->k_dim;
    s.v_col = kv->v_in_k ? n_heads * kv->k_dim : s.ld;
    if (!kv->v_in_k) s.ld += kv->n_kv_heads * kv->v_dim;
    s.pool = gpu->kv_new(gpu, &s.kv, n_seqs * s.pages_each);
    if (!s.pool) by_die("no memory for a cache of %u x %u tokens", n_seqs, len);
    s.pages = by_alloc_array((size_t)n_seqs * s.pages_each, sizeof *s.pages);
    for (uint32_t i = 0; i < n_seqs * s.pages_each; i++)
        s.pages[i] = i % s.pages_each * n_seqs + i / s.pages_each; /* far apart */
    s.positions = by_alloc_array(BY_MAX(n_rows, (uint32_t)WRITE_ROWS), sizeof *s.positions);
    s.seqs = by_alloc_array(n_seqs, sizeof *s.seqs);
    for (uint32_t q = 0; q < n_seqs; q++)
        s.seqs[q] = (struct seq_rows){q * n, n, len - n, s.pages + q * s.pages_each, q};
    float *x = floats_new((size_t)BY_MAX(n_rows, (uint32_t)WRITE_ROWS) * s.ld),
          *out = floats_new((size_t)n_rows * out_ld);
    fill(&s, x);
    const struct op_attention op = {.q = x,
                                    .q_ld = s.ld,
                                    .n_heads = n_heads,
                                    .scale = 0.088f,
                                    .kv = s.kv,
                                    .pool = s.pool,
                                    .out = out,
                                    .out_ld = out_ld,
                                    .seqs = s.seqs,
                                    .n_seqs = n_seqs,
                                    .n = n_rows};
    double seconds = time_of(attention, &op);
    double bytes = (double)gpu->kv_page_bytes(gpu, &s.kv) / PAGE * n_seqs * len;
    double seen = (double)n_seqs * n * (len - (n - 1) / 2.0); /* keys, over all rows */
    printf("%-24s %3u x %5u of %5u %10.1f us %8.2f TB/s %8.1f TFLOP/s\n", name, n_seqs, n, len,
           seconds * 1e6, bytes / seconds / 1e12,
           2.0 * n_heads * (kv->k_dim + kv->v_dim) * seen / seconds / 1e12);
    gpu->free(gpu, x);
    gpu->free(gpu, out);
    gpu->kv_free(gpu, s.pool);
    by_free(s.pages);
    by_free(s.positions);
    by_free(s.seqs);
}

static void bench_attention(const char *name, enum kv_dtype t, uint32_t n_seqs, uint32_t len,
                            uint32_t n) {
    const struct kv_shape kv = {KV_HEADS, DIM, DIM, PAGE, t, false};
    bench_heads(name, HEADS, &kv, n_seqs, len, n);
}

/* ---- the sampler ---- */

static void sample(struct lane *l, const void *args) {
    gpu->sample(l, args);
}

/* Logits of which a few in a hundred are not small. */
static void bench_sample(const char *name, uint32_t n, bool is_greedy, uint32_t n_vocab) {
    struct sample_row *rows = by_alloc_array(n, sizeof *rows);
    float *x = by_alloc_array((size_t)n * n_vocab, sizeof *x);
    for (size_t i = 0; i < (size_t)n * n_vocab; i++)
        x[i] = 12 * powf((float)(by_rand_next(&seed) >> 40) / (1 << 24), 30);
    float *logits = (float *)(uintptr_t)gpu->put(gpu, x, (size_t)n * n_vocab);
    uint32_t *out = gpu->alloc(gpu, n * SAMPLE_WORDS * sizeof *out);
    if (!logits || !out) by_die("no memory for %u rows of logits", n);
    for (uint32_t i = 0; i < n; i++)
        rows[i] = (struct sample_row){.row = i,
                                      .at = i * SAMPLE_WORDS,
                                      .slot = UINT32_MAX,
                                      .is_greedy = is_greedy,
                                      .temperature = 1,
                                      .top_p = is_greedy ? 1 : 0.9f,
                                      .random = by_rand_next(&seed),
                                      .repetition_penalty = 1};
    const struct op_sample op = {logits, n_vocab, n_vocab, rows, n, out, NULL};
    double seconds = time_of(sample, &op);
    printf("%-24s %3u x %6u logits %10.1f us\n", name, n, n_vocab, seconds * 1e6);
    gpu->free(gpu, logits);
    gpu->free(gpu, out);
    by_free(x);
    by_free(rows);
}

static void bench_samplers(void) {
    const uint32_t ns[] = {1, is_small ? 2 : 64};
    for (size_t i = 0; i < BY_COUNTOF(ns); i++) {
        bench_sample("the largest", ns[i], true, is_small ? 500 : 128256);
        bench_sample("top-p 0.9", ns[i], false, is_small ? 500 : 128256);
    }
}

static void bench_products_and_decode(void) {
    static const enum by_dtype types[] = {BY_DTYPE_BF16, BY_DTYPE_F8_32, BY_DTYPE_Q4_0};
    uint32_t by = is_small ? 64 : 1;
    for (size_t i = 0; i < BY_COUNTOF(types); i++)
        for (uint32_t m = 1; m <= (is_small ? 16u : 2048u); m *= m < 8 ? 8 : 16)
            bench_linear(types[i], 28672 / by, 4096 / by, m);
    for (size_t i = 0; i < BY_COUNTOF(types); i++) /* few rows, long ones */
        bench_linear(types[i], 4096 / by, 14336 / by, 1);
    for (int t = KV_BF16; t <= KV_FP8; t++) {
        static const char *const names[] = {"", "bf16", "f16", "int8", "fp8"};
        char name[32];
        if (t == KV_F16) continue;
        snprintf(name, sizeof name, "decode, %s", names[t]);
        bench_attention(name, (enum kv_dtype)t, is_small ? 2 : 64, is_small ? 70 : 4096, 1);
    }
}

int main(int argc, char **argv) {
    struct by_err err;
    is_small = argc > 1 && strcmp(argv[1], "small") == 0;
    const struct cuda_options o = {.deadline_ms = 60000};
    if (banyan_cuda_module()->open(&gpu, &o, &err)) by_die("%s", err.text);
    printf("%s\n", gpu->name);
    if (argc < 2 || is_small) {
        bench_products_and_decode();
        bench_samplers();
    }
    bench_attention("prompts, bf16", KV_BF16, 1, is_small ? 40 : 2048, is_small ? 40 : 2048);
    if (!is_small) bench_attention("prompts, bf16", KV_BF16, 4, 2048, 2048);
    if (!is_small) bench_attention("prompts, bf16", KV_BF16, 1, 8192, 8192);
    for (int t = KV_BF16; t <= KV_FP8; t += KV_FP8 - KV_BF16) {
        const struct kv_shape latent = {1, 576, 512, PAGE, (enum kv_dtype)t, true};
        if (argc < 2 || is_small)
            bench_heads(t == KV_BF16 ? "decode, latent, bf16" : "decode, latent, fp8", 16, &latent,
                        is_small ? 2 : 64, is_small ? 70 : 4096, 1);
        bench_heads(t == KV_BF16 ? "prompts, latent, bf16" : "prompts, latent, fp8", 16, &latent, 1,
                    is_small ? 40 : 8192, is_small ? 20 : 512);
    }
    gpu->close(gpu);
    return 0;
}
