/* bench_engine_ops [isa] [threads] [Q4_1|Q4_0|Q8_0|BF16|F32|…|attention|latents] [wide] - the op table on the shapes of
 * SmolLM2-135M: 30 layers of qkv, o, gate/up and down, and the head; "attention": only that. "wide": only the products of 4
 * layers of a model of 2,048 columns, which are whole super-blocks (the K formats), and before them one of 2,048 x 2,048 by itself.
 * The best of some: with one thread of CPU time, so that other processes cost little but caches, with more of the time on the
 * wall. */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "gpu_worker/cpu/cpu_backend.h"
#include "tests/bench/bench.h"

#include <string.h>
#include <time.h>

enum {
    LAYERS = 30,
    HIDDEN = 576,
    QKV = 960,
    VOCAB = 49152,
    ROWS = 512,
    SOLO_ROWS = 96,
    CTX = 2048,
    STREAMS = 32, /* which decode with SHARED tokens in common and OWN of their own */
    SHARED = 512,
    OWN = 64,
    POOLS = 6, /* as much as the caches do not hold */
};

struct shape {
    uint32_t n_layers, hidden, ffn, qkv;
};

static const struct shape small = {LAYERS, HIDDEN, 1536, QKV}, wide = {4, 2048, 8192, 3072};

struct model {
    const struct shape *s;
    struct weight *qkv[LAYERS], *o[LAYERS], *gate_up[LAYERS], *down[LAYERS], *head;
    float *x, *h, *ffn, *out, *logits;
    struct norm norm;
};

struct job {
    struct backend *b;
    struct model m;
    uint32_t n;    /* rows */
    bool is_split; /* solo, 96 rows a lane, as decoder.c does for long prompts */
    bool with_head;
    struct op_attention attention;
    void *pools[POOLS]; /* of the layers in turn, or none */
    double seconds;     /* CPU time of lane 0 */
};

static double cpu_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Any finite numbers will do: nibbles count up, scales are 1/64. */
static void any_row(const void *ctx, uint32_t out, void *bytes) {
    const struct weight_source *s = ctx;
    size_t n = 0;
    if (!by_dtype_row_bytes(s->dtype, s->n_in, &n)) return;
    uint32_t block = by_dtype_block_bytes(s->dtype);
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)bytes)[i] = (uint8_t)((i * 37 + out * 11) & 0x2f);
    for (size_t i = 0; i + 2 <= n && by_dtype_is_quantised(s->dtype); i += block)
        memcpy((uint8_t *)bytes + i, &(uint16_t){0x2400}, 2);
}

static struct weight *any_weight(struct backend *b, enum by_dtype t, uint32_t n_out, uint32_t n_in,
                                 bool is_gated) {
    struct weight_source s = {
        .n_out = n_out, .n_in = n_in, .dtype = t, .row = any_row, .is_gated = is_gated};
    struct weight *w = NULL;
    struct by_err err;
    s.ctx = &s;
    if (b->weight_new(b, &w, &s, &err)) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    return w;
}

static void linear(struct lane *l, struct job *j, const struct weight *w, const float *x,
                   uint32_t x_ld, float *y, uint32_t y_ld, enum act_kind act, bool is_add,
                   const struct norm *norm, uint32_t first, uint32_t n) {
    struct op_linear op = {.w = w,
                           .x = x,
                           .x_ld = x_ld,
                           .norm = norm,
                           .act = act,
                           .y = y,
                           .y_ld = y_ld,
                           .is_add = is_add,
                           .scale = is_add ? 1e-6f : 1,
                           .first = first,
                           .n = n};
    j->b->linear(l, &op);
}

static void layers(struct lane *l, struct job *j, uint32_t first, uint32_t n) {
    struct model *m = &j->m;
    const uint32_t hidden = m->s->hidden, ffn = m->s->ffn, qkv = m->s->qkv;
    for (uint32_t i = 0; i < m->s->n_layers; i++) {
        linear(l, j, m->qkv[i], m->x, hidden, m->h, qkv, ACT_NONE, false, &m->norm, first, n);
        linear(l, j, m->o[i], m->h, qkv, m->x, hidden, ACT_NONE, true, NULL, first, n);
        linear(l, j, m->gate_up[i], m->x, hidden, m->ffn, ffn, ACT_SILU, false, &m->norm, first, n);
        linear(l, j, m->down[i], m->ffn, ffn, m->x, hidden, ACT_NONE, true, NULL, first, n);
    }
}

static void pass(struct lane *l, void *ctx) {
    struct job *j = ctx;
    double from = cpu_s();
    if (j->is_split) {
        uint32_t n_parts = (j->n + SOLO_ROWS - 1) / SOLO_ROWS;
        for (uint32_t i = j->b->lane_next(l, n_parts); i != UINT32_MAX;
             i = j->b->lane_next(l, n_parts)) {
            uint32_t first = i * SOLO_ROWS;
            j->b->lane_solo(l, true);
            layers(l, j, first, BY_MIN(SOLO_ROWS, j->n - first));
            j->b->lane_solo(l, false);
        }
        j->b->barrier(l);
    } else {
        layers(l, j, 0, j->n);
    }
    if (j->with_head)
        linear(l, j, j->m.head, j->m.x, j->m.s->hidden, j->m.logits, VOCAB, ACT_NONE, false,
               &j->m.norm, 0, j->n);
    if (j->b->lane_id(l) == 0) j->seconds = cpu_s() - from;
}

static void attend(struct lane *l, void *ctx) {
    struct job *j = ctx;
    double from = cpu_s();
    struct op_attention o = j->attention;
    for (int i = 0; i < LAYERS; i++) {
        if (j->pools[0]) o.pool = j->pools[i % POOLS];
        j->b->attention(l, &o);
    }
    if (j->b->lane_id(l) == 0) j->seconds = cpu_s() - from;
}

static double best(struct job *j, void (*fn)(struct lane *l, void *ctx), int repeats) {
    double least = 1e9;
    for (int i = 0; i < repeats; i++) {
        uint64_t from = by_now_ns();
        j->b->run(j->b, fn, j);
        double wall = (double)(by_now_ns() - from) * 1e-9;
        least = BY_MIN(least, j->b->n_lanes > 1 ? wall : j->seconds);
    }
    return least;
}

static void fill(float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        x[i] = (float)((i * 2654435761u) % 2000) / 1000.0f - 1;
}

static void product(struct lane *l, void *ctx) {
    struct job *j = ctx;
    const struct model *m = &j->m;
    double from = cpu_s();
    linear(l, j, m->o[0], m->h, m->s->qkv, m->out, m->s->hidden, ACT_NONE, false, NULL, 0, j->n);
    if (j->b->lane_id(l) == 0) j->seconds = cpu_s() - from;
}

/* A block: 16 rows of the weight and 32 columns. Fits the caches, so that even a busy machine has a least. */
static void bench_product(struct job *j) {
    static const uint32_t rows[] = {1, 8, ROWS};
    const double n_blocks = j->m.s->hidden / 16.0 * j->m.s->hidden / 32.0;
    for (size_t i = 0; i < BY_COUNTOF(rows); i++) {
        char name[32];
        j->n = rows[i];
        snprintf(name, sizeof name, "rows=%u", rows[i]);
        bench_row("product", name,
                  best(j, product, rows[i] == ROWS ? 5 : 60) * 1e9 / (n_blocks * rows[i]),
                  "ns a block and row");
    }
}

static void bench_linear(struct job *j) {
    static const uint32_t rows[] = {1, 2, 4, 8, 16, 32, 128, 512};
    const struct shape *m = j->m.s;
    const double macs = (double)m->n_layers * m->hidden * (m->qkv + m->hidden + 3.0 * m->ffn);
    for (size_t i = 0; i < BY_COUNTOF(rows); i++) {
        char name[32];
        j->n = rows[i];
        j->is_split = rows[i] >= 128;
        j->with_head = false;
        double s = best(j, pass, rows[i] >= 128 ? 5 : 40);
        snprintf(name, sizeof name, "rows=%u", rows[i]);
        bench_row("layers", name, s * 1e3, "ms");
        bench_row("layers", name, 2 * macs * rows[i] / s * 1e-9 / j->b->n_lanes, "GOPS a lane");
        if (rows[i] > 32 || m == &wide) continue;
        j->with_head = true;
        bench_row("layers+head", name, best(j, pass, 20) * 1e3, "ms");
    }
}

static void bench_attention(struct job *j) {
    static const enum kv_dtype types[] = {KV_F32, KV_BF16, KV_F16, KV_INT8};
    static const char *const names[] = {"f32", "bf16", "f16", "int8"};
    uint32_t *pages = by_alloc_array(CTX / 16, sizeof *pages);
    for (uint32_t i = 0; i < CTX / 16; i++)
        pages[i] = (i * 77) % (CTX / 16);
    for (size_t i = 0; i < BY_COUNTOF(types); i++) {
        struct kv_shape kv = {3, 64, 64, 16, types[i], false};
        void *pool = j->b->kv_new(j->b, &kv, CTX / 16);
        struct seq_rows seq = {0, 1, 0, pages, 0};
        j->attention = (struct op_attention){.q = j->m.h,
                                             .q_ld = QKV,
                                             .n_heads = 9,
                                             .scale = 0.125f,
                                             .kv = kv,
                                             .pool = pool,
                                             .out = j->m.out,
                                             .out_ld = HIDDEN,
                                             .seqs = &seq,
                                             .n_seqs = 1};
        for (uint32_t n = 1; n <= 512; n += 511) {
            for (uint32_t ctx = 512; ctx <= CTX; ctx *= 4) {
                char name[64];
                seq.n = j->attention.n = n;
                seq.position = ctx - n;
                snprintf(name, sizeof name, "%s rows=%u context=%u", names[i], n, ctx);
                double s = best(j, attend, n > 1 ? 3 : 20);
                double flops = 4.0 * LAYERS * 9 * 64 * n * (ctx - (n - 1) / 2.0);
                bench_row("attention", name, s * 1e3, "ms");
                bench_row("attention", name, flops / s * 1e-9 / j->b->n_lanes, "GFLOP/s a lane");
            }
        }
        j->b->kv_free(j->b, pool);
    }
    by_free(pages);
}

static struct shared_prefixes streams(struct seq_rows *seqs, uint32_t *pages, bool is_shared) {
    static uint32_t order[STREAMS], common[STREAMS];
    for (uint32_t s = 0, next = SHARED / 16; s < STREAMS; s++) {
        uint32_t *own = pages + s * ((SHARED + OWN) / 16);
        for (uint32_t i = 0; i < (SHARED + OWN) / 16; i++)
            own[i] = is_shared && i < SHARED / 16 ? i : next++;
        seqs[s] = (struct seq_rows){s, 1, SHARED + OWN - 1, own, s};
        order[s] = s;
        common[s] = s && is_shared ? SHARED : 0;
    }
    return (struct shared_prefixes){order, common, STREAMS};
}

/* Streams with pages of their own, with shared pages that each reads alone, and that they read together. */
static void bench_sharers(struct job *j) {
    static const char *const names[] = {"own pages", "shared, each alone", "shared, together"};
    const uint32_t n_pages = SHARED / 16 + STREAMS * ((SHARED + OWN) / 16);
    struct kv_shape kv = {3, 64, 64, 16, KV_F16, false};
    struct seq_rows seqs[STREAMS];
    uint32_t *pages = by_alloc_array(n_pages, sizeof *pages);
    for (int i = 0; i < POOLS; i++) {
        j->pools[i] = j->b->kv_new(j->b, &kv, n_pages);
        memset(j->pools[i], 1, j->b->kv_page_bytes(j->b, &kv) * n_pages);
    }
    j->attention.kv = kv;
    j->attention.seqs = seqs;
    j->attention.n = j->attention.n_seqs = STREAMS;
    for (size_t i = 0; i < BY_COUNTOF(names); i++) {
        struct shared_prefixes x = streams(seqs, pages, i > 0);
        j->attention.prefixes = i == 2 ? x : (struct shared_prefixes){0};
        bench_row("attention of 32 streams", names[i], best(j, attend, 10) * 1e3, "ms");
    }
    for (int i = 0; i < POOLS; i++)
        j->b->kv_free(j->b, j->pools[i]);
    by_free(pages);
}

/* DeepSeek V2 Lite's: 16 heads on one latent of 512 + 64 columns, kept once and kept as keys and as values. */
static void bench_latents(struct job *j) {
    enum { HEADS = 16, RANK = 512, ALL = RANK + 64, CTX_EACH = 1024, SEQS = 8 };
    static uint32_t pages[SEQS][CTX_EACH / 16];
    struct seq_rows seqs[SEQS];
    float *q = j->b->alloc(j->b, sizeof(float) * ROWS * HEADS * ALL),
          *out = j->b->alloc(j->b, sizeof(float) * ROWS * HEADS * RANK);
    fill(q, (size_t)ROWS * HEADS * ALL);
    for (uint32_t i = 0; i < SEQS * (CTX_EACH / 16); i++)
        pages[i / (CTX_EACH / 16)][i % (CTX_EACH / 16)] = i;
    for (int is_once = 0; is_once <= 1; is_once++) {
        const struct kv_shape kv = {1, ALL, RANK, 16, KV_BF16, is_once};
        for (int i = 0; i < POOLS; i++) {
            j->pools[i] = j->b->kv_new(j->b, &kv, SEQS * (CTX_EACH / 16));
            memset(j->pools[i], 1, j->b->kv_page_bytes(j->b, &kv) * SEQS * (CTX_EACH / 16));
        }
        j->attention = (struct op_attention){.q = q,
                                             .q_ld = HEADS * ALL,
                                             .n_heads = HEADS,
                                             .scale = 0.07f,
                                             .kv = kv,
                                             .pool = j->pools[0],
                                             .out = out,
                                             .out_ld = HEADS * RANK,
                                             .seqs = seqs};
        for (uint32_t n = 1; n <= ROWS; n += ROWS - 1) {
            for (uint32_t s = 0; s < SEQS; s++)
                seqs[s] = (struct seq_rows){s, n, CTX_EACH - n, pages[s], s};
            j->attention.n_seqs = n == 1 ? SEQS : 1;
            j->attention.n = n == 1 ? SEQS : n;
            bench_row(
                n == 1 ? "latents, 8 rows over 1,024 keys" : "latents, 512 rows over 1,024 keys",
                is_once ? "kept once" : "kept twice", best(j, attend, n > 1 ? 2 : 20) * 1e3, "ms");
        }
        for (int i = 0; i < POOLS; i++) {
            j->b->kv_free(j->b, j->pools[i]);
            j->pools[i] = NULL;
        }
    }
    j->b->free(j->b, q);
    j->b->free(j->b, out);
}

static void model_new(struct job *j, enum by_dtype t, const struct shape *s) {
    struct backend *b = j->b;
    struct model *m = &j->m;
    float *ones = by_alloc_array(s->hidden, sizeof *ones);
    for (uint32_t i = 0; i < s->hidden; i++)
        ones[i] = 1;
    m->s = s;
    for (uint32_t i = 0; i < s->n_layers; i++) {
        m->qkv[i] = any_weight(b, t, s->qkv, s->hidden, false);
        m->o[i] = any_weight(b, t, s->hidden, s->hidden, false);
        m->gate_up[i] = any_weight(b, t, 2 * s->ffn, s->hidden, true);
        m->down[i] = any_weight(b, t, s->hidden, s->ffn, false);
    }
    if (s != &wide)
        m->head =
            any_weight(b, by_dtype_is_quantised(t) ? BY_DTYPE_Q8_0 : t, VOCAB, s->hidden, false);
    m->norm = (struct norm){.eps = 1e-5f, .w = b->put(b, ones, s->hidden)};
    by_free(ones);
    m->x = b->alloc(b, sizeof(float) * ROWS * s->hidden);
    m->h = b->alloc(b, sizeof(float) * ROWS * s->qkv);
    m->ffn = b->alloc(b, sizeof(float) * ROWS * s->ffn);
    m->out = b->alloc(b, sizeof(float) * ROWS * s->hidden);
    m->logits = b->alloc(b, sizeof(float) * 32 * VOCAB);
    fill(m->x, (size_t)ROWS * s->hidden);
    fill(m->h, (size_t)ROWS * s->qkv);
}

int main(int argc, char **argv) {
    static const char *const isas[] = {"portable", "avx2", "avx512"};
    struct cpu_options o = {.isa = cpu_isa_best(),
                            .n_threads = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 1};
    for (size_t i = 0; argc > 1 && i < BY_COUNTOF(isas); i++)
        if (strcmp(argv[1], isas[i]) == 0) o.isa = (enum cpu_isa)i;
    enum by_dtype t = BY_DTYPE_Q4_1;
    for (int i = 0; argc > 3 && i < BY_N_DTYPES; i++)
        if (strcmp(argv[3], by_dtype_name((enum by_dtype)i)) == 0) t = (enum by_dtype)i;
    struct job j = {0};
    struct by_err err;
    if (cpu_backend_new(&j.b, &o, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    printf("# %s, %s\n", j.b->name, by_dtype_name(t));
    uint64_t from = by_now_ns();
    bool is_wide = argc > 4 && strcmp(argv[4], "wide") == 0;
    model_new(&j, t, is_wide ? &wide : &small);
    bench_row("packing", by_dtype_name(t), (double)(by_now_ns() - from) * 1e-6, "ms");
    if (is_wide) bench_product(&j);
    if (argc <= 3 || (strcmp(argv[3], "attention") != 0 && strcmp(argv[3], "latents") != 0))
        bench_linear(&j);
    if (is_wide) goto done;
    if (argc <= 3 || strcmp(argv[3], "latents") != 0) {
        bench_attention(&j);
        bench_sharers(&j);
    }
    bench_latents(&j);
done:
    j.b->close(j.b);
    return 0;
}
