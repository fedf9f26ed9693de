/* sampler.h - from a row of logits to a token, and its log probability.
 *
 *     logits ─penalties, min_new_tokens, repetition, bias─▶ l ─┬─ temperature 0: the largest, ties to the lowest id
 *                                                            └─ w = exp((l - max) / T) as 40-bit fixed point
 *     kept = the largest w, ties to the lowest id:   rank < top_k,  mass before it < top_p · total,  w >= min_p
 *     token = first kept id, in the order of ids, at which the running mass passes  r64 · kept mass / 2^64
 *
 * Masses are integers, so any order of summing, on any device, gives the same token from the same logits. r64 is
 * Philox of (seed, output position, sample index). Order of the steps and the meaning of each: SGLang 0.5's.
 * Log probabilities are of l / T (of l when greedy), before top-k, top-p and min-p.
 * Always: the result is a function of the logits, the parameters and the output ids so far; nothing else.
 * Owner: one thread a struct sampler. */
#ifndef GPU_WORKER_SAMPLER_H
#define GPU_WORKER_SAMPLER_H

#include "common/base/map.h"
#include "proto/msg.h"

/* What a sequence's next pick depends on, but for the logits. */
struct sampler_seq {
    const struct msg_sampling *params; /* borrowed; outlives this */
    uint32_t sample;                   /* sample index */
    uint32_t n_output;                 /* output ids so far: the position of the next one */
    struct by_map counts;              /* output id + 1 -> how often; kept when a penalty is on */
};
void sampler_seq_init(struct sampler_seq *q, const struct msg_sampling *params, uint32_t sample);
/* Begins anew for another sequence in the memory that the last one left. */
void sampler_seq_restart(struct sampler_seq *q, const struct msg_sampling *params, uint32_t sample);
void sampler_seq_release(struct sampler_seq *q);
void sampler_seq_note(struct sampler_seq *q, uint32_t id); /* one more output id */
/* Does the next pick depend on which ids came before, not on their number alone? */
bool sampler_seq_counts(const struct sampler_seq *q);

/* Some ids with their log probabilities; borrowed until the next call on the sampler. */
struct sampler_ids {
    const uint32_t *ids;
    const float *logprobs;
    uint32_t n;
};
struct sampler_pick {
    uint32_t id;
    float logprob;          /* 0 unless params->logprobs */
    struct sampler_ids top; /* params->top_logprobs likeliest, best first */
    /* params->logprob_ids, in that order; -inf for an id outside the vocabulary */
    struct sampler_ids chosen;
};

struct sampler;
struct sampler *sampler_new(uint32_t n_vocab);
void sampler_free(struct sampler *s);
uint32_t sampler_n_vocab(const struct sampler *s);
/* logits: [n_vocab], changed in place. BY_EINTERNAL: a NaN or +inf, or nothing left to pick; *out is zero then. */
BY_MUST_USE int sampler_pick(struct sampler *s, const struct sampler_seq *q, float *logits,
                             struct sampler_pick *out);
/* Of a logit, given the largest one and the total mass at this temperature. */
float sampler_logprob(float logit, float max, float temperature, uint64_t total);
/* Log probability of a prompt token: of the logits as they are. Same failure. `id` is out->id afterwards. */
BY_MUST_USE int sampler_score(struct sampler *s, const struct msg_sampling *params,
                              const float *logits, uint32_t id, struct sampler_pick *out);

#endif
