/* The sampler against its slow twin (sort, then walk), against the distribution it claims, and its small print. */
#include "gpu_worker/sampler.h"

#include <math.h>

#include "common/base/rand.h"
#include "tests/unit/test.h"

enum { VOCAB = 300 };

static struct msg_sampling plain(void) {
    return (struct msg_sampling){.temperature = 1, .top_p = 1, .repetition_penalty = 1, .n = 1};
}

static void random_logits(uint64_t *state, float *l, uint32_t n, bool has_ties) {
    for (uint32_t i = 0; i < n; i++) {
        uint64_t r = by_rand_next(state);
        l[i] = has_ties ? (float)(r % 7) : (float)(r % 100000) * 1e-4f;
        if (r >> 60 == 0) l[i] = -INFINITY;
    }
}

static uint32_t pick_with(struct sampler *s, const struct msg_sampling *p, const float *logits,
                          uint32_t n, uint32_t position, struct sampler_pick *out) {
    float *copy = malloc(n * sizeof *copy);
    struct sampler_seq q;
    memcpy(copy, logits, n * sizeof *copy);
    sampler_seq_init(&q, p, 0);
    for (uint32_t i = 0; i < position; i++)
        sampler_seq_note(&q, 0);
    assert_int_equal(sampler_pick(s, &q, copy, out), 0);
    sampler_seq_release(&q);
    free(copy);
    return out->id;
}

/* ---- the twin: probabilities in double, sorted ---- */

struct entry {
    double p;
    float logit;
    uint32_t id;
};

static int by_logit(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

/* Which tokens may be picked. Border cases of top_p within `slack` of the limit count as undecided (2). */
static void twin_kept(const struct msg_sampling *p, const float *l, uint32_t n, int *kept) {
    struct entry e[VOCAB];
    double total = 0, before = 0;
    float max = -INFINITY;
    for (uint32_t i = 0; i < n; i++)
        max = fmaxf(max, l[i]);
    for (uint32_t i = 0; i < n; i++) {
        e[i] = (struct entry){exp(((double)l[i] - (double)max) / (double)p->temperature), l[i], i};
        total += e[i].p;
    }
    qsort(e, n, sizeof *e, by_logit);
    for (uint32_t i = 0; i < n; i++) {
        double over = before - (double)p->top_p * total;
        int k = over < 0 ? 1 : 0;
        if (p->top_p >= 1)
            k = 1;
        else if (fabs(over) < 1e-6 * total)
            k = 2;
        if (p->top_k > 0 && i >= (uint32_t)p->top_k) k = 0;
        double floor = e[i].p - (double)p->min_p;
        if (k && p->min_p > 0) k = fabs(floor) < 1e-6 ? 2 : floor > 0 ? k : 0;
        kept[e[i].id] = k;
        before += e[i].p;
    }
}

TEST(picks_only_what_the_sorted_twin_keeps_and_all_of_it) {
    UNUSED_STATE;
    uint64_t state = test_seed();
    struct sampler *s = sampler_new(VOCAB);
    for (int round = 0; round < 400; round++) {
        float l[VOCAB];
        int kept[VOCAB];
        bool seen[VOCAB] = {false};
        struct msg_sampling p = plain();
        random_logits(&state, l, VOCAB, round % 2);
        if (round & 2) p.top_k = (int32_t)(by_rand_next(&state) % 40) + 2;
        if (round & 4) p.top_p = 0.05f + (float)(by_rand_next(&state) % 90) * 0.01f;
        if (round & 8) p.min_p = (float)(by_rand_next(&state) % 50) * 0.01f;
        p.temperature = 0.3f + (float)(by_rand_next(&state) % 20) * 0.1f;
        twin_kept(&p, l, VOCAB, kept);
        unsigned n_kept = 0, n_seen = 0;
        for (int i = 0; i < 200; i++) {
            struct sampler_pick out;
            p.seed = by_rand_next(&state);
            uint32_t id = pick_with(s, &p, l, VOCAB, 0, &out);
            if (!kept[id]) fail_msg("round %d picked %u, which the twin does not keep", round, id);
            seen[id] = true;
        }
        for (int i = 0; i < VOCAB; i++) {
            n_kept += kept[i] == 1;
            n_seen += seen[i];
        }
        /* few choices: most are seen */
        if (n_kept <= 4 && n_kept > 0) assert_true(n_seen >= (n_kept + 1) / 2);
    }
    sampler_free(s);
}

TEST(frequencies_follow_the_probabilities) {
    UNUSED_STATE;
    enum { N = 8, DRAWS = 40000 };
    static const float l[N] = {0, 1, 2, -1, 0.5f, 1.5f, -2, 2};
    unsigned count[N] = {0};
    double total = 0;
    struct sampler *s = sampler_new(N);
    struct msg_sampling p = plain();
    p.temperature = 0.8f;
    for (uint64_t i = 0; i < DRAWS; i++) {
        struct sampler_pick out;
        p.seed = i;
        count[pick_with(s, &p, l, N, 0, &out)]++;
    }
    for (int i = 0; i < N; i++)
        total += exp((double)l[i] / 0.8);
    for (int i = 0; i < N; i++) { /* within six standard deviations */
        double mean = DRAWS * exp((double)l[i] / 0.8) / total;
        assert_true(fabs(count[i] - mean) < 6 * sqrt(mean));
    }
    sampler_free(s);
}

TEST(greedy_takes_the_lowest_id_of_equal_logits) {
    UNUSED_STATE;
    static const float l[] = {1, 3, 3, 2};
    struct sampler *s = sampler_new(4);
    struct msg_sampling p = plain();
    struct sampler_pick out;
    p.temperature = 0;
    assert_int_equal(pick_with(s, &p, l, 4, 0, &out), 1);
    p.temperature = 0.7f;
    p.top_k = 1;
    assert_int_equal(pick_with(s, &p, l, 4, 0, &out), 1);
    sampler_free(s);
}

TEST(the_pick_depends_on_seed_position_and_sample_only) {
    UNUSED_STATE;
    float l[VOCAB] = {0};
    struct sampler *s = sampler_new(VOCAB), *other = sampler_new(VOCAB);
    struct msg_sampling p = plain();
    struct sampler_pick a, b;
    unsigned n_differ = 0;
    for (uint32_t position = 0; position < 32; position++) {
        p.seed = 9;
        pick_with(s, &p, l, VOCAB, position, &a);
        pick_with(other, &p, l, VOCAB, position, &b);
        assert_int_equal(a.id, b.id);
        p.seed = 10;
        pick_with(s, &p, l, VOCAB, position, &b);
        n_differ += a.id != b.id;
    }
    assert_true(n_differ > 24);
    sampler_free(s);
    sampler_free(other);
}

TEST(a_nan_or_an_empty_row_is_an_error) {
    UNUSED_STATE;
    struct sampler *s = sampler_new(3);
    struct msg_sampling p = plain();
    struct sampler_seq q;
    struct sampler_pick out;
    sampler_seq_init(&q, &p, 0);
    assert_int_equal(sampler_pick(s, &q, (float[]){1, NAN, 2}, &out), BY_EINTERNAL);
    assert_int_equal(sampler_pick(s, &q, (float[]){1, INFINITY, 2}, &out), BY_EINTERNAL);
    assert_int_equal(sampler_pick(s, &q, (float[]){-INFINITY, -INFINITY, -INFINITY}, &out),
                     BY_EINTERNAL);
    sampler_seq_release(&q);
    sampler_free(s);
}

/* 2 · 0.5 frequency and once 0.25 presence off id 1; then repetition 2 halves what is positive, doubles the rest. */
TEST(penalties_apply_in_order_and_to_output_only) {
    UNUSED_STATE;
    static const float l[] = {1, 3, -1, 1.5f};
    struct sampler *s = sampler_new(4);
    struct msg_sampling p = plain();
    struct sampler_seq q;
    struct sampler_pick out;
    float copy[4];
    p.temperature = 0;
    p.frequency_penalty = 0.5f;
    p.presence_penalty = 0.25f;
    p.repetition_penalty = 2;
    sampler_seq_init(&q, &p, 0);
    sampler_seq_note(&q, 1);
    sampler_seq_note(&q, 1);
    sampler_seq_note(&q, 2);
    memcpy(copy, l, sizeof l);
    assert_int_equal(sampler_pick(s, &q, copy, &out), 0);
    assert_true(copy[0] == 1 && copy[1] == (3 - 1.0f - 0.25f) / 2 &&
                copy[2] == (-1 - 0.5f - 0.25f) * 2);
    assert_int_equal(out.id, 3);
    sampler_seq_release(&q);
    sampler_free(s);
}

TEST(stop_ids_are_masked_until_min_new_tokens) {
    UNUSED_STATE;
    static const float l[] = {1, 5, 2};
    struct sampler *s = sampler_new(3);
    struct msg_sampling p = plain();
    struct sampler_pick out;
    p.temperature = 0;
    p.min_new_tokens = 2;
    p.stop_ids = (struct msg_u32s){(const uint32_t[]){1, 99}, 2};
    assert_int_equal(pick_with(s, &p, l, 3, 1, &out), 2);
    assert_int_equal(pick_with(s, &p, l, 3, 2, &out), 1);
    sampler_free(s);
}

TEST(a_bias_moves_the_pick) {
    UNUSED_STATE;
    static const float l[] = {1, 5, 2};
    struct sampler *s = sampler_new(3);
    struct msg_sampling p = plain();
    struct sampler_pick out;
    p.temperature = 0;
    p.bias_ids = (struct msg_u32s){(const uint32_t[]){0, 7}, 2};
    p.bias_values = (struct msg_f32s){(const float[]){100, 1}, 2};
    assert_int_equal(pick_with(s, &p, l, 3, 0, &out), 0);
    sampler_free(s);
}

TEST(log_probabilities_are_log_softmax_and_sorted) {
    UNUSED_STATE;
    uint64_t state = test_seed();
    float l[VOCAB];
    double total = 0;
    struct sampler *s = sampler_new(VOCAB);
    struct msg_sampling p = plain();
    struct sampler_pick out;
    random_logits(&state, l, VOCAB, false);
    p.temperature = 0;
    p.logprobs = true;
    p.top_logprobs = 5;
    p.logprob_ids = (struct msg_u32s){(const uint32_t[]){3, 1000}, 2};
    for (int i = 0; i < VOCAB; i++)
        total += exp((double)l[i]);
    pick_with(s, &p, l, VOCAB, 0, &out);
    assert_true(fabs((double)out.logprob - ((double)l[out.id] - log(total))) < 1e-5);
    assert_int_equal(out.top.n, 5);
    assert_int_equal(out.top.ids[0], out.id);
    for (int i = 1; i < 5; i++)
        assert_true(out.top.logprobs[i - 1] >= out.top.logprobs[i]);
    assert_true(fabs((double)out.chosen.logprobs[0] - ((double)l[3] - log(total))) < 1e-5 ||
                isinf(l[3]));
    assert_true(isinf(out.chosen.logprobs[1]));
    assert_int_equal(sampler_score(s, &p, l, 17, &out), 0);
    assert_true(fabs((double)out.logprob - ((double)l[17] - log(total))) < 1e-5 || isinf(l[17]));
    sampler_free(s);
}

TESTS(RUN(picks_only_what_the_sorted_twin_keeps_and_all_of_it),
      RUN(frequencies_follow_the_probabilities), RUN(greedy_takes_the_lowest_id_of_equal_logits),
      RUN(the_pick_depends_on_seed_position_and_sample_only),
      RUN(a_nan_or_an_empty_row_is_an_error), RUN(penalties_apply_in_order_and_to_output_only),
      RUN(stop_ids_are_masked_until_min_new_tokens), RUN(a_bias_moves_the_pick),
      RUN(log_probabilities_are_log_softmax_and_sorted));
