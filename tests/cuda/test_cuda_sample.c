/* The op sample, emulated, against sampler.c: from equal logits equal ids and equal log probabilities, bit for bit. */
#include <math.h>
#include <string.h>

#include "common/base/mem.h"
#include "gpu_worker/cuda/cuda_module.h"
#include "gpu_worker/sampler_device.h"
#include "tests/kernels/ops_world.h"

enum { VOCAB_MAX = 50000, ROWS = 5, WORDS = ROWS * (SAMPLE_WORDS + 2 * LIMIT_TOP_LOGPROBS + 64) };

static struct backend *gpu;
static struct by_arena arena;

struct row {
    struct msg_sampling params;
    struct sampler_seq seq;
    float logits[VOCAB_MAX];
    bool is_score;
};

static void sample_lane(struct lane *l, void *ctx) {
    gpu->sample(l, ctx);
}

static void same_float(float a, float b, const char *what) {
    if (by_f32_bits(a) != by_f32_bits(b)) fail_msg("%s: %.9g and %.9g", what, (double)a, (double)b);
}

static void same_ids(const struct sampler_ids *a, const struct sampler_ids *b, const char *what) {
    assert_int_equal(a->n, b->n);
    for (uint32_t i = 0; i < a->n; i++) {
        assert_int_equal(a->ids[i], b->ids[i]);
        same_float(a->logprobs[i], b->logprobs[i], what);
    }
}

/* All rows in one op; then each by sampler.c. */
static void check(struct row *rows, uint32_t n, uint32_t n_vocab) {
    uint32_t ld = n_vocab + 3, at = 0;
    float *all = by_alloc_array((size_t)n * ld, sizeof *all);
    struct sample_row asks[ROWS];
    for (uint32_t i = 0; i < n; i++) {
        memcpy(all + (size_t)i * ld, rows[i].logits, n_vocab * sizeof *all);
        all[(size_t)i * ld + n_vocab] = NAN;
        if (rows[i].is_score)
            sampler_device_ask_score(&rows[i].params, i, &asks[i]);
        else
            sampler_device_ask(&rows[i].seq, 0, &arena, &asks[i]);
        asks[i].row = i;
        asks[i].at = at;
        at += sampler_device_words(&asks[i]);
    }
    float *there = (float *)(uintptr_t)gpu->put(gpu, all, (size_t)n * ld);
    uint32_t *out = gpu->alloc(gpu, WORDS * sizeof *out);
    struct op_sample op = {there, ld, n_vocab, asks, n, out, NULL};
    gpu->run(gpu, sample_lane, &op);
    uint32_t *words = (uint32_t *)gpu->get(gpu, (const float *)out, at);
    assert_non_null(words);
    struct sampler *s = sampler_new(n_vocab);
    for (uint32_t i = 0; i < n; i++) {
        struct sampler_pick got, want;
        int rc = rows[i].is_score ? sampler_score(s, &rows[i].params, rows[i].logits, i, &want)
                                  : sampler_pick(s, &rows[i].seq, rows[i].logits, &want);
        assert_int_equal(
            sampler_device_take(&asks[i], &rows[i].params, n_vocab, words + asks[i].at, &got), rc);
        assert_int_equal(got.id, want.id);
        if (rc) continue;
        same_float(got.logprob, want.logprob, "logprob");
        same_ids(&got.top, &want.top, "top");
        same_ids(&got.chosen, &want.chosen, "chosen");
    }
    sampler_free(s);
    gpu->free(gpu, there);
    gpu->free(gpu, out);
    by_free(all);
}

static const uint32_t ids[] = {3, 0, 55, 99, 3, 100000}, stops[] = {0, 7, 200000};
static const float biases[] = {2, -3.5f, 100, 0.25f, -0.5f, 1};

/* Parameters of every kind; logits with ties. */
static void make_row(struct row *r, uint32_t n_vocab, uint32_t kind) {
    memset(r, 0, sizeof *r);
    r->params = (struct msg_sampling){.temperature = kind % 7 ? 0.3f * (float)(kind % 7) : 0,
                                      .top_p = kind % 3 ? 1 : 0.4f + 0.1f * (float)world_below(6),
                                      .top_k = kind % 4 ? 0 : (int32_t)world_below(60),
                                      .min_p = kind % 5 ? 0 : 0.05f,
                                      .repetition_penalty = kind % 6 ? 1 : 1.3f,
                                      .frequency_penalty = kind % 8 ? 0 : 0.4f,
                                      .presence_penalty = kind % 9 ? 0 : -0.2f,
                                      .seed = world_random(),
                                      .min_new_tokens = kind % 2 ? 0 : 4,
                                      .stop_ids = {stops, 3},
                                      .logprobs = kind % 3 == 1,
                                      .top_logprobs = kind % 5 == 2 ? 6 : 0};
    if (kind % 4 == 1)
        r->params.bias_ids = (struct msg_u32s){ids, 6},
        r->params.bias_values = (struct msg_f32s){biases, 6};
    if (kind % 6 == 3) r->params.logprob_ids = (struct msg_u32s){ids, 6};
    sampler_seq_init(&r->seq, &r->params, kind % 3);
    for (uint32_t i = 0; i < kind % 11; i++)
        sampler_seq_note(&r->seq, world_below(i % 2 ? 5 : n_vocab));
    for (uint32_t i = 0; i < n_vocab; i++)
        r->logits[i] = kind % 4 == 2 ? (float)world_below(4) : world_float() * 3;
    if (kind % 8 ==
        3) /* one that is large, and many small ones of few values, where a cut may lie */
        for (uint32_t i = 0; i < n_vocab; i++)
            r->logits[i] =
                i == n_vocab / 3 ? 8 * r->params.temperature : 0.1f * (float)world_below(2);
    r->is_score = kind % 10 == 9;
}

TEST(equal_logits_give_equal_tokens) {
    UNUSED_STATE;
    /* rows of an odd size, and of one where four logits may be read at once; the last with more large weights than a list holds */
    static const uint32_t sizes[] = {1, 31, 640, 2999, 9997, 49997};
    struct row *rows = by_alloc_array(ROWS, sizeof *rows);
    for (uint32_t round = 0; round < 60; round++) {
        uint32_t n_vocab = sizes[round % 6];
        for (uint32_t i = 0; i < ROWS; i++) {
            make_row(&rows[i], n_vocab, ROWS * round + i);
            rows[i].is_score = rows[i].is_score && i < n_vocab;
            if (round % 12 == 3 && i == 2)
                rows[i].logits[n_vocab / 2] = round % 24 == 3 ? NAN : INFINITY;
        }
        check(rows, ROWS, n_vocab);
        for (uint32_t i = 0; i < ROWS; i++)
            sampler_seq_release(&rows[i].seq);
        by_arena_clear(&arena);
    }
    by_free(rows);
}

TEST(nothing_left_to_pick_breaks_that_row_alone) {
    UNUSED_STATE;
    struct row *rows = by_alloc_array(2, sizeof *rows);
    for (uint32_t i = 0; i < 2; i++)
        make_row(&rows[i], 64, 1);
    for (uint32_t i = 0; i < 64; i++)
        rows[0].logits[i] = -INFINITY;
    rows[0].params.bias_ids.n = 0;
    check(rows, 2, 64);
    for (uint32_t i = 0; i < 2; i++)
        sampler_seq_release(&rows[i].seq);
    by_arena_clear(&arena);
    by_free(rows);
}

static int set_up(void **state) {
    struct by_err err;
    (void)state;
    by_arena_init(&arena, 0);
    if (banyan_cuda_module()->open(&gpu, &(struct cuda_options){.deadline_ms = 1000}, &err))
        fail_msg("%s", err.text);
    return 0;
}

static int set_up_reversed(void **state) {
    setenv("BANYAN_EMU_REVERSE", "1", 1);
    return set_up(state);
}

static int tear_down(void **state) {
    (void)state;
    gpu->close(gpu);
    by_arena_release(&arena);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {RUN(equal_logits_give_equal_tokens),
                                       RUN(nothing_left_to_pick_breaks_that_row_alone)};
    int rc = WORLD_TESTS("lanes forward", tests, set_up, tear_down);
    return rc + WORLD_TESTS("lanes backward", tests, set_up_reversed, tear_down);
}
