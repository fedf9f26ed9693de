/* kv_write and attention: against double precision, and rows against themselves in other company. Whatever a row must not
 * see is NaN: pages of nobody, slots behind the last token, columns around heads. */
#include <math.h>
#include <string.h>

#include "common/base/mem.h"
#include "tests/kernels/ops_world.h"

/* One model's attention, and a step of a few sequences over it. */
struct shape {
    uint32_t n_heads, n_kv_heads, k_dim, v_dim, page_size;
    enum kv_dtype dtype;
    uint32_t window;
    bool is_full, has_sinks, is_latent; /* latent: values are the keys' first columns */
    float softcap;
    uint32_t lens[4]; /* tokens of each sequence; 0: no more */
};

enum { TOKENS_MAX = 4500, PAGES_MAX = 256 };

struct scene {
    const struct shape *s;
    struct backend *b;
    void *pool;
    uint32_t n_rows, ld, out_ld, n_seqs, n_tokens;
    float *x, *out, *sinks; /* all tokens of all sequences, one after the other */
    uint32_t pages[4][PAGES_MAX], positions[4 * TOKENS_MAX];
    struct seq_rows seqs[4];
    struct op_kv_write write;
    struct op_attention op;
};

static void poison_pool(struct scene *c, size_t bytes) {
    memset(c->pool, 0xff, bytes); /* NaN in every dtype but int8, whose scales are NaN */
}

/* Pages in random order, no two alike. */
static void deal_pages(struct scene *c) {
    uint32_t order[PAGES_MAX], n = 0;
    for (uint32_t i = 0; i < PAGES_MAX; i++)
        order[i] = i;
    for (uint32_t i = PAGES_MAX - 1; i > 0; i--) {
        uint32_t j = world_below(i + 1), t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
    for (uint32_t q = 0; q < c->n_seqs; q++) {
        for (uint32_t p = 0; p < BY_DIV_UP(c->s->lens[q], c->s->page_size); p++)
            c->pages[q][p] = order[n++];
    }
    assert_true(n <= PAGES_MAX);
}

static struct kv_shape kv_of(const struct shape *s) {
    return (struct kv_shape){s->n_kv_heads, s->k_dim, s->v_dim,
                             s->page_size,  s->dtype, s->is_latent};
}

static void set_ops(struct scene *c) {
    const struct shape *s = c->s;
    uint32_t k_col = 2 + s->n_heads * s->k_dim, v_col = k_col + 1 + s->n_kv_heads * s->k_dim;
    c->write = (struct op_kv_write){.x = c->x,
                                    .ld = c->ld,
                                    .q_col = 2,
                                    .k_col = k_col,
                                    .v_col = s->is_latent ? k_col : v_col,
                                    .n_heads = s->n_heads,
                                    .q_dim = s->k_dim,
                                    .kv = kv_of(s),
                                    .pool = c->pool,
                                    .positions = c->positions,
                                    .seqs = c->seqs,
                                    .n_seqs = c->n_seqs,
                                    .n = c->n_rows};
    c->op = (struct op_attention){.q = c->x,
                                  .q_ld = c->ld,
                                  .q_col = 2,
                                  .n_heads = s->n_heads,
                                  .scale = 1 / sqrtf((float)s->k_dim),
                                  .softcap = s->softcap,
                                  .window = s->window,
                                  .is_full = s->is_full,
                                  .sinks = c->sinks,
                                  .kv = kv_of(s),
                                  .pool = c->pool,
                                  .out = c->out,
                                  .out_ld = c->out_ld,
                                  .out_col = 1,
                                  .seqs = c->seqs,
                                  .n_seqs = c->n_seqs,
                                  .n = c->n_rows};
}

static struct scene *scene_new(struct backend *b, const struct shape *s) {
    struct scene *c = by_alloc(sizeof *c);
    c->s = s;
    c->b = b;
    for (uint32_t q = 0; q < 4 && s->lens[q]; q++) {
        c->seqs[q] = (struct seq_rows){c->n_rows, s->lens[q], 0, c->pages[q], q};
        for (uint32_t i = 0; i < s->lens[q]; i++)
            c->positions[c->n_rows + i] = i;
        c->n_rows += s->lens[q];
        c->n_seqs++;
    }
    deal_pages(c);
    c->ld = 2 + (s->n_heads + s->n_kv_heads) * s->k_dim + 1 + s->n_kv_heads * s->v_dim + 3;
    c->out_ld = 1 + s->n_heads * s->v_dim + 2;
    c->x = world_room(b, (size_t)c->n_rows * c->ld, NAN);
    c->out = world_room(b, (size_t)c->n_rows * c->out_ld, 0.5f);
    if (s->has_sinks) {
        c->sinks = world_room(b, s->n_heads, 0);
        world_floats(c->sinks, s->n_heads, 2);
    }
    struct kv_shape kv = kv_of(s);
    c->pool = b->kv_new(b, &kv, PAGES_MAX);
    assert_non_null(c->pool);
    poison_pool(c, b->kv_page_bytes(b, &kv) * PAGES_MAX);
    set_ops(c);
    for (uint32_t r = 0; r < c->n_rows; r++) {
        float *x = c->x + (size_t)r * c->ld;
        world_floats(x + 2, s->n_heads * s->k_dim, 1);
        world_floats(x + c->write.k_col, s->n_kv_heads * s->k_dim, 1);
        if (!s->is_latent) world_floats(x + c->write.v_col, s->n_kv_heads * s->v_dim, 1);
    }
    return c;
}

static void scene_free(struct scene *c) {
    c->b->free(c->b, c->x);
    c->b->free(c->b, c->out);
    c->b->free(c->b, c->sinks);
    c->b->kv_free(c->b, c->pool);
    by_free(c);
}

/* What a number becomes in the cache. */
static double stored(enum kv_dtype t, const float *x, uint32_t n, uint32_t i) {
    float top = 0;
    switch (t) {
    case KV_F32:
        return (double)x[i];
    case KV_BF16:
        return (double)by_bf16_to_f32(by_f32_to_bf16(x[i]));
    case KV_F16:
        return (double)by_f16_to_f32(by_f32_to_f16(x[i]));
    default:
        for (uint32_t k = 0; k < n; k++)
            top = fmaxf(top, fabsf(x[k]));
        return (double)(top / 127) * (double)rintf(x[i] * (127 / top));
    }
}

/* Output of one row and head in double precision. */
static void expect_row(const struct scene *c, const struct seq_rows *q, uint32_t row, uint32_t head,
                       double *out) {
    const struct shape *s = c->s;
    uint32_t kv = head / (s->n_heads / s->n_kv_heads), own = row - q->first;
    uint32_t from = s->window && own + 1 > s->window ? own + 1 - s->window : 0;
    uint32_t to = s->is_full ? q->n : own + 1;
    double *p = by_alloc_array(to, sizeof *p), max = -INFINITY, sum = 0;
    const float *query = c->x + (size_t)row * c->ld + 2 + head * s->k_dim;
    for (uint32_t t = from; t < to; t++) {
        const float *k = c->x + (size_t)(q->first + t) * c->ld + c->write.k_col + kv * s->k_dim;
        for (uint32_t d = 0; d < s->k_dim; d++)
            p[t] += (double)query[d] * stored(s->dtype, k, s->k_dim, d);
        p[t] *= (double)c->op.scale;
        if (s->softcap > 0) p[t] = (double)s->softcap * tanh(p[t] / (double)s->softcap);
        max = fmax(max, p[t]);
    }
    if (s->has_sinks) max = fmax(max, (double)c->sinks[head]);
    if (s->has_sinks) sum = exp((double)c->sinks[head] - max);
    for (uint32_t d = 0; d < s->v_dim; d++)
        out[d] = 0;
    for (uint32_t t = from; t < to; t++) {
        const float *v = c->x + (size_t)(q->first + t) * c->ld + c->write.v_col + kv * s->v_dim;
        double w = exp(p[t] - max);
        sum += w;
        for (uint32_t d = 0; d < s->v_dim; d++)
            out[d] += w * stored(s->dtype, v, s->is_latent ? s->k_dim : s->v_dim, d);
    }
    for (uint32_t d = 0; d < s->v_dim; d++)
        out[d] /= sum;
    by_free(p);
}

static void check_against_double(const struct scene *c) {
    double *want = by_alloc_array(c->s->v_dim, sizeof *want);
    for (uint32_t q = 0; q < c->n_seqs; q++) {
        for (uint32_t i = 0; i < c->seqs[q].n; i += i + 8 < c->seqs[q].n ? 7 : 1) {
            uint32_t row = c->seqs[q].first + i, head = world_below(c->s->n_heads);
            expect_row(c, &c->seqs[q], row, head, want);
            for (uint32_t d = 0; d < c->s->v_dim; d++)
                assert_near((double)c->out[(size_t)row * c->out_ld + 1 + head * c->s->v_dim + d],
                            want[d], 5e-6, 1, "attention");
        }
    }
    for (uint32_t r = 0; r < c->n_rows; r++) {
        const float *out = c->out + (size_t)r * c->out_ld;
        assert_true(out[0] == 0.5f && out[c->out_ld - 1] == 0.5f && out[c->out_ld - 2] == 0.5f);
    }
    by_free(want);
}

/* The same tokens in steps of `chunk`, sequences side by side, into a fresh pool: decode and chunked prefill. */
static void check_chunked(struct scene *c, uint32_t chunk, bool is_solo, const float *want) {
    struct kv_shape kv = kv_of(c->s);
    poison_pool(c, c->b->kv_page_bytes(c->b, &kv) * PAGES_MAX);
    for (size_t i = 0; i < (size_t)c->n_rows * c->out_ld; i++)
        c->out[i] = 0.5f;
    for (uint32_t q = 0; q < c->n_seqs; q++) {
        for (uint32_t at = 0; at < c->seqs[q].n; at += chunk) {
            struct seq_rows part = {0, BY_MIN(chunk, c->seqs[q].n - at), at, c->pages[q], q};
            struct op_kv_write w = c->write;
            struct op_attention o = c->op;
            size_t row = c->seqs[q].first + at;
            w.x += row * c->ld;
            w.positions += row;
            o.q = w.x;
            o.out += row * c->out_ld;
            w.seqs = o.seqs = &part;
            w.n_seqs = o.n_seqs = 1;
            w.n = o.n = part.n;
            (is_solo ? world_run_solo : world_run)(c->b, offsetof(struct backend, kv_write), &w);
            (is_solo ? world_run_solo : world_run)(c->b, offsetof(struct backend, attention), &o);
        }
    }
    assert_same_bits(c->out, want, (size_t)c->n_rows * c->out_ld, "tokens in other steps");
}

/* Rows [first, first + n) of the step alone, as decoder.c gives them to lanes. */
static void check_rows(struct scene *c, uint32_t first, uint32_t n, const float *want) {
    struct op_attention o = c->op;
    for (size_t i = 0; i < (size_t)c->n_rows * c->out_ld; i++)
        c->out[i] = 0.5f;
    o.first = first;
    o.n = n;
    RUN_OP_SOLO(c->b, attention, &o);
    for (uint32_t r = 0; r < c->n_rows; r++) {
        const float *got = c->out + (size_t)r * c->out_ld;
        if (r >= first && r < first + n)
            assert_same_bits(got, want + (size_t)r * c->out_ld, c->out_ld, "some rows alone");
        else
            assert_true(got[1] == 0.5f);
    }
}

/* The same on portable C, from the same numbers. */
static void check_portable(const struct scene *c) {
    struct scene *p = scene_new(world.portable, c->s);
    memcpy(p->x, c->x, (size_t)c->n_rows * c->ld * sizeof *p->x);
    if (c->sinks) memcpy(p->sinks, c->sinks, c->s->n_heads * sizeof *p->sinks);
    RUN_OP(world.portable, kv_write, &p->write);
    RUN_OP(world.portable, attention, &p->op);
    assert_same_bits(c->out, p->out, (size_t)c->n_rows * c->out_ld, "portable C");
    scene_free(p);
}

static void play(const struct shape *s) {
    struct scene *c = scene_new(world.b, s);
    RUN_OP(world.b, kv_write, &c->write);
    RUN_OP(world.b, attention, &c->op);
    check_against_double(c);
    check_portable(c);
    float *want = by_memdup(c->out, (size_t)c->n_rows * c->out_ld * sizeof *want);
    uint32_t n = 1 + world_below(c->n_rows - 1);
    check_rows(c, world_below(c->n_rows - n + 1), n, want);
    check_rows(c, 0, c->n_rows, want);
    if (!s->is_full) {
        check_chunked(c, 1, false, want);
        check_chunked(c, 7, true, want);
        check_chunked(c, 64, false, want);
    }
    by_free(want);
    scene_free(c);
}

TEST(attention_of_all_head_groups) {
    UNUSED_STATE;
    static const uint32_t groups[][2] = {{4, 4}, {9, 3}, {8, 2}, {8, 1}, {3, 3}, {20, 1}, {26, 2}};
    for (size_t i = 0; i < BY_COUNTOF(groups); i++) {
        struct shape s = {.n_heads = groups[i][0],
                          .n_kv_heads = groups[i][1],
                          .k_dim = 64,
                          .v_dim = 64,
                          .page_size = 16,
                          .dtype = KV_F32,
                          .lens = {70, 1, 33}};
        play(&s);
    }
}

TEST(attention_of_all_cache_types_and_pages) {
    UNUSED_STATE;
    for (uint32_t t = KV_F32; t <= KV_INT8; t++) {
        for (uint32_t page = 16; page <= 64; page += 16) {
            struct shape s = {.n_heads = 6,
                              .n_kv_heads = 2,
                              .k_dim = 32,
                              .v_dim = 32,
                              .page_size = page,
                              .dtype = (enum kv_dtype)t,
                              .lens = {130, 17, 64, 5}};
            play(&s);
        }
    }
}

TEST(attention_of_odd_head_sizes) {
    UNUSED_STATE;
    static const uint32_t dims[][2] = {{8, 8},   {80, 80},   {96, 96},
                                       {20, 12}, {256, 256}, {192, 128}};
    for (size_t i = 0; i < BY_COUNTOF(dims); i++) {
        struct shape s = {.n_heads = 4,
                          .n_kv_heads = 2,
                          .k_dim = dims[i][0],
                          .v_dim = dims[i][1],
                          .page_size = 16,
                          .dtype = i % 2 ? KV_BF16 : KV_INT8,
                          .lens = {90, 3}};
        play(&s);
    }
}

TEST(attention_over_several_spans) {
    UNUSED_STATE;
    for (uint32_t t = KV_F32; t <= KV_INT8; t++) {
        struct shape s = {.n_heads = 3,
                          .n_kv_heads = 1,
                          .k_dim = 16,
                          .v_dim = 16,
                          .page_size = 32,
                          .dtype = (enum kv_dtype)t,
                          .lens = {600, 257}};
        play(&s);
    }
}

TEST(attention_with_windows_caps_and_sinks) {
    UNUSED_STATE;
    static const uint32_t windows[] = {1, 16, 50, 64, 300};
    for (size_t i = 0; i < BY_COUNTOF(windows); i++) {
        struct shape s = {.n_heads = 8,
                          .n_kv_heads = 4,
                          .k_dim = 16,
                          .v_dim = 16,
                          .page_size = 16,
                          .dtype = KV_F16,
                          .window = windows[i],
                          .softcap = i % 2 ? 5 : 0,
                          .has_sinks = i % 3 != 1,
                          .lens = {330, 40}};
        play(&s);
    }
}

TEST(attention_of_an_encoder_sees_what_comes_later) {
    UNUSED_STATE;
    struct shape s = {.n_heads = 4,
                      .n_kv_heads = 4,
                      .k_dim = 32,
                      .v_dim = 32,
                      .page_size = 16,
                      .dtype = KV_F32,
                      .is_full = true,
                      .lens = {50, 1, 270, 16}};
    play(&s);
}

TEST(attention_of_latents) {
    UNUSED_STATE;
    static const uint32_t shapes[][4] = {
        {16, 576, 512, 40}, {2, 80, 64, 300}, {5, 40, 40, 70}, {13, 48, 20, 90}, {1, 64, 48, 20}};
    for (uint32_t t = KV_F32; t <= KV_INT8; t++) {
        for (size_t i = t == KV_BF16 ? 0 : 1; i < BY_COUNTOF(shapes); i++) {
            struct shape s = {.n_heads = shapes[i][0],
                              .n_kv_heads = 1,
                              .k_dim = shapes[i][1],
                              .v_dim = shapes[i][2],
                              .page_size = 16,
                              .dtype = (enum kv_dtype)t,
                              .is_latent = true,
                              .lens = {shapes[i][3], 17}};
            play(&s);
        }
    }
}

/* One copy of the latents gives what keys and values beside each other do, in little more than half the room. */
TEST(latents_kept_once_have_the_bits_of_two_copies) {
    UNUSED_STATE;
    for (uint32_t t = KV_F32; t < KV_INT8; t++) {
        struct shape s = {.n_heads = 14,
                          .n_kv_heads = 1,
                          .k_dim = 576,
                          .v_dim = 512,
                          .page_size = 32,
                          .dtype = (enum kv_dtype)t,
                          .is_latent = true,
                          .lens = {75, 9}};
        struct scene *c = scene_new(world.b, &s);
        struct kv_shape once = kv_of(&s), twice = once;
        twice.v_in_k = false;
        size_t n = world.b->kv_page_bytes(world.b, &once);
        assert_int_equal(n * (576 + 512), world.b->kv_page_bytes(world.b, &twice) * 576);
        RUN_OP(world.b, kv_write, &c->write);
        RUN_OP(world.b, attention, &c->op);
        float *got = by_memdup(c->out, (size_t)c->n_rows * c->out_ld * sizeof *got);
        void *pool = world.b->kv_new(world.b, &twice, PAGES_MAX);
        assert_non_null(pool);
        c->write.kv = c->op.kv = twice;
        c->write.pool = pool;
        c->op.pool = pool;
        RUN_OP(world.b, kv_write, &c->write);
        RUN_OP(world.b, attention, &c->op);
        assert_same_bits(got, c->out, (size_t)c->n_rows * c->out_ld, "latents kept twice");
        world.b->kv_free(world.b, pool);
        by_free(got);
        scene_free(c);
    }
}

/* 17 spans of one tile: more than there are slots for at once, so that lanes share them in two rounds. */
TEST(lanes_share_the_spans_of_one_long_sequence) {
    UNUSED_STATE;
    struct shape s = {.n_heads = 12,
                      .n_kv_heads = 1,
                      .k_dim = 16,
                      .v_dim = 512,
                      .page_size = 32,
                      .dtype = KV_BF16,
                      .lens = {4300}};
    struct scene *c = scene_new(world.b, &s);
    RUN_OP(world.b, kv_write, &c->write);
    for (uint32_t window = 0; window < 4000; window += 1000) {
        c->op.window = window;
        c->op.first = 4299 - window;
        c->op.n = 1;
        RUN_OP(world.b, attention, &c->op);
        float *row = c->out + (size_t)c->op.first * c->out_ld;
        float *shared = by_memdup(row, c->out_ld * sizeof *row);
        memset(row + 1, 0xff, (c->out_ld - 3) * sizeof *row);
        RUN_OP_SOLO(world.b, attention, &c->op);
        assert_same_bits(shared, row, c->out_ld, "spans shared and spans of one lane");
        by_free(shared);
    }
    scene_free(c);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        RUN(attention_of_all_head_groups),
        RUN(attention_of_all_cache_types_and_pages),
        RUN(attention_of_odd_head_sizes),
        RUN(attention_over_several_spans),
        RUN(attention_with_windows_caps_and_sinks),
        RUN(attention_of_an_encoder_sees_what_comes_later),
        RUN(attention_of_latents),
        RUN(latents_kept_once_have_the_bits_of_two_copies),
        RUN(lanes_share_the_spans_of_one_long_sequence),
    };
    return world_main(argc, argv, tests, BY_COUNTOF(tests));
}
