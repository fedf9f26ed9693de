#include "gpu_worker/sampler_device.h"

#include "common/base/check.h"
#include "common/base/rand.h"

#include <math.h>

enum { WORD_ID, WORD_BAD, WORD_MAX, WORD_LOGIT, WORD_MASS_LOW, WORD_MASS_HIGH };

static uint32_t n_top_of(const struct msg_sampling *p) {
    return BY_MIN(p->top_logprobs, (uint32_t)LIMIT_TOP_LOGPROBS);
}

static void ask_report(const struct msg_sampling *p, struct sample_row *out) {
    out->chosen = p->logprob_ids.p;
    out->n_chosen = p->logprob_ids.n;
    out->n_top = n_top_of(p);
}

static void ask_counts(const struct sampler_seq *q, struct by_arena *arena,
                       struct sample_row *out) {
    size_t at = 0;
    uint64_t key;
    void *count;
    if (!q->counts.n) return;
    uint32_t *ids = by_arena_get_array(arena, q->counts.n, sizeof *ids);
    uint32_t *counts = by_arena_get_array(arena, q->counts.n, sizeof *counts);
    for (; by_map_next(&q->counts, &at, &key, &count); out->n_counted++) {
        ids[out->n_counted] = (uint32_t)(key - 1);
        counts[out->n_counted] = (uint32_t)(uintptr_t)count;
    }
    out->counted = ids;
    out->counts = counts;
}

void sampler_device_ask(const struct sampler_seq *q, uint32_t n_ahead, struct by_arena *arena,
                        struct sample_row *out) {
    const struct msg_sampling *p = q->params;
    uint32_t n_output = q->n_output + n_ahead;
    by_assert(!n_ahead || !sampler_seq_counts(q));
    bool is_cold = p->temperature < 1e-6f;
    *out = (struct sample_row){.is_greedy = is_cold || p->top_k == 1,
                               .wants_report = p->logprobs || p->top_logprobs || p->logprob_ids.n,
                               .temperature = is_cold ? 1 : p->temperature,
                               .top_p = p->top_p,
                               .min_p = p->min_p,
                               .top_k = p->top_k > 0 ? (uint32_t)p->top_k : 0,
                               .random = by_rand_word(p->seed, n_output, q->sample, 0),
                               .frequency_penalty = p->frequency_penalty,
                               .presence_penalty = p->presence_penalty,
                               .repetition_penalty = p->repetition_penalty};
    ask_counts(q, arena, out);
    if (n_output < p->min_new_tokens) {
        out->banned = p->stop_ids.p;
        out->n_banned = p->stop_ids.n;
    }
    out->bias_ids = p->bias_ids.p;
    out->bias_values = p->bias_values.p;
    out->n_bias = BY_MIN(p->bias_ids.n, p->bias_values.n);
    if (out->wants_report) ask_report(p, out);
}

void sampler_device_ask_score(const struct msg_sampling *params, uint32_t id,
                              struct sample_row *out) {
    *out = (struct sample_row){.is_greedy = true,
                               .wants_report = true,
                               .is_score = true,
                               .score_id = id,
                               .temperature = 1,
                               .repetition_penalty = 1};
    ask_report(params, out);
}

uint32_t sampler_device_words(const struct sample_row *row) {
    return SAMPLE_WORDS + 2 * row->n_top + row->n_chosen;
}

static float float_of(uint32_t word) {
    return by_bits_f32(word);
}

/* Logits become log probabilities where they lie. */
static const float *logprobs(const struct sample_row *row, uint32_t *words, uint32_t n, float max,
                             uint64_t total) {
    for (uint32_t i = 0; i < n; i++)
        words[i] = by_f32_bits(sampler_logprob(float_of(words[i]), max, row->temperature, total));
    return (const float *)words;
}

int sampler_device_take(const struct sample_row *row, const struct msg_sampling *params,
                        uint32_t n_vocab, uint32_t *words, struct sampler_pick *out) {
    float max = float_of(words[WORD_MAX]);
    uint64_t total = (uint64_t)words[WORD_MASS_HIGH] << 32 | words[WORD_MASS_LOW];
    *out = (struct sampler_pick){0};
    if (words[WORD_BAD]) return BY_EINTERNAL;
    out->id = words[WORD_ID];
    if (!row->wants_report) return 0;
    out->logprob = sampler_logprob(float_of(words[WORD_LOGIT]), max, row->temperature, total);
    uint32_t *ids = words + SAMPLE_WORDS, *chosen = ids + 2 * row->n_top;
    const float *of_top = logprobs(row, ids + row->n_top, row->n_top, max, total);
    const float *of_chosen = logprobs(row, chosen, row->n_chosen, max, total);
    out->top = (struct sampler_ids){ids, of_top, BY_MIN(row->n_top, n_vocab)};
    out->chosen = (struct sampler_ids){params->logprob_ids.p, of_chosen, row->n_chosen};
    return 0;
}
